//! A look at the raw heads of HTTP/1 requests, before the HTTP library has tidied them up.
//!
//! hyper folds equal `Content-Length` lines into one and drops `Content-Length` beside `Transfer-Encoding`. Both are legal
//! readings, and both are what request smuggling is made of (hazard S11), so larder wants to know and to refuse. This scanner
//! follows the byte stream from head to head and knows only the lines that decide where a request ends, and the one that says what
//! is asked for.
//!
//! Some of what is refused makes hyper end the connection with an answer of its own, which has no words. The scanner writes over
//! it what hyper takes, so that the service can say what is wrong; the head is refused whatever is read in it.

use crate::hidden::{self, LONGEST_BODY, value_of};

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FramingDefect {
    /// More than one `Content-Length` line, equal or not.
    RepeatedLength,
    /// `Content-Length` beside `Transfer-Encoding`.
    LengthAndEncoding,
    /// More than one `Transfer-Encoding` line.
    RepeatedEncoding,
    /// A `Content-Length` that is not a plain number.
    BadLength,
    /// One beyond [`LONGEST_BODY`].
    TooLong,
    /// A `#` in the target of a request that changes something.
    Fragment,
    /// What no URI holds, in the target.
    BadTarget,
}

impl FramingDefect {
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::RepeatedLength => "the request has more than one Content-Length",
            Self::LengthAndEncoding => "the request has both Content-Length and Transfer-Encoding",
            Self::RepeatedEncoding => "the request has more than one Transfer-Encoding",
            Self::BadLength => "the request's Content-Length is not a number",
            Self::TooLong => "the request's Content-Length is beyond what any file can have",
            Self::Fragment => {
                "the request target has a '#', and what is behind it would not be read: percent-encode it as %23"
            }
            Self::BadTarget => {
                "the request target holds what is to be percent-encoded: a space, a quote, '<', '>', '`' or bytes that are not UTF-8"
            }
        }
    }
}

/// A line that is longer is not of interest, or not legal.
const LINE_KEPT: usize = 64;

/// Follows one connection's incoming bytes.
#[derive(Debug, Default)]
pub(crate) struct HeadScanner {
    state: State,
    /// Start of a line that a read has cut, at most [`LINE_KEPT`] bytes.
    carry: Vec<u8>,
    /// Heads seen whole.
    heads: u64,
    length: Option<u64>,
    encoding: bool,
    defect: Option<FramingDefect>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a request line; empty lines are skipped.
    #[default]
    Between,
    /// Within a head.
    Head,
    /// Within a body of which so many bytes are to come.
    Body(u64),
    /// Within a line whose number is too long already.
    Overlong,
    /// Within or after a chunked body: the server closes the connection after such a request, nothing further is read.
    Opaque,
}

impl HeadScanner {
    /// Takes the next bytes, and writes over what hyper would not pass on. `Some((n, defect))`: the head of the connection's request
    /// number `n`, counted from 0, is to be refused.
    pub(crate) fn feed(&mut self, mut bytes: &mut [u8]) -> Option<(u64, FramingDefect)> {
        while !bytes.is_empty() {
            match self.state {
                State::Opaque => return None,
                State::Body(left) => {
                    let step = left.min(bytes.len() as u64);
                    bytes = &mut bytes[step as usize..];
                    self.state = if step == left {
                        State::Between
                    } else {
                        State::Body(left - step)
                    };
                }
                State::Overlong => {
                    let end = memchr::memchr(b'\n', bytes);
                    let length = end.unwrap_or(bytes.len());
                    hidden::rest_of_a_length(&mut bytes[..length]);
                    if end.is_some() {
                        self.state = State::Opaque;
                    }
                    return None;
                }
                State::Between | State::Head => {
                    let Some(end) = memchr::memchr(b'\n', bytes) else {
                        return self.part_of_a_line(bytes);
                    };
                    let (line, rest) = bytes.split_at_mut(end + 1);
                    bytes = rest;
                    if let Some(found) = self.whole_line(&mut line[..end]) {
                        return Some(found);
                    }
                }
            }
        }
        None
    }

    /// A line, or the rest of one that a read has cut, without its line feed.
    fn whole_line(&mut self, line: &mut [u8]) -> Option<(u64, FramingDefect)> {
        use FramingDefect::{BadLength, RepeatedLength, TooLong};
        self.request_line(line, true);
        let before = std::mem::take(&mut self.carry);
        if before.is_empty() {
            self.line(&line[..line.len().min(LINE_KEPT)]);
        } else {
            self.carry.clone_from(&before);
            self.keep(line);
            let whole = std::mem::take(&mut self.carry);
            self.line(&whole);
        }
        let defect = self.defect?;
        self.state = State::Opaque;
        if matches!(defect, BadLength | RepeatedLength | TooLong) {
            hidden::length(line, &before);
        }
        Some((self.heads, defect))
    }

    /// The beginning of a line, or more of it.
    fn part_of_a_line(&mut self, part: &mut [u8]) -> Option<(u64, FramingDefect)> {
        self.request_line(part, false);
        let before = self.carry.clone();
        self.keep(part);
        if self.defect.is_some() {
            self.state = State::Opaque;
        } else if self.state == State::Head && hidden::is_too_long(&self.carry) {
            self.defect = Some(FramingDefect::TooLong);
            self.state = State::Overlong;
            hidden::length(part, &before);
        }
        self.defect.map(|defect| (self.heads, defect))
    }

    /// A part of a request line: hyper drops what is behind a `#`, and would write to another file than the client means; what it does not
    /// take is looked for in lines that have come in one piece.
    fn request_line(&mut self, part: &mut [u8], ends: bool) {
        if self.state != State::Between {
            return;
        }
        let begins_with = |method: &[u8]| {
            let line = self.carry.iter().chain(&*part);
            line.take(method.len()).eq(method)
        };
        if memchr::memchr(b'#', part).is_some() && !begins_with(b"GET ") && !begins_with(b"HEAD ") {
            self.defect = Some(FramingDefect::Fragment);
        } else if ends && self.carry.is_empty() && hidden::target(part) {
            self.defect = Some(FramingDefect::BadTarget);
        }
    }

    fn keep(&mut self, part: &[u8]) {
        let room = LINE_KEPT.saturating_sub(self.carry.len());
        self.carry.extend_from_slice(&part[..part.len().min(room)]);
    }

    /// `line` comes without its line feed.
    fn line(&mut self, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match (line.first(), self.state) {
            (None, State::Head) => self.end_of_head(),
            (Some(_), State::Between) => self.state = State::Head,
            (Some(b'c' | b'C'), _) => {
                if let Some(value) = value_of(line, b"content-length") {
                    self.content_length(value);
                }
            }
            (Some(b't' | b'T'), _) if value_of(line, b"transfer-encoding").is_some() => {
                if std::mem::replace(&mut self.encoding, true) {
                    self.defect = Some(FramingDefect::RepeatedEncoding);
                } else if self.length.is_some() {
                    self.defect = Some(FramingDefect::LengthAndEncoding);
                }
            }
            _ => {}
        }
    }

    fn content_length(&mut self, value: &[u8]) {
        let digits = value.trim_ascii();
        let number = std::str::from_utf8(digits)
            .ok()
            .filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
            .map(|text| text.parse().unwrap_or(u64::MAX));
        self.defect = match number {
            None => Some(FramingDefect::BadLength),
            Some(_) if self.encoding => Some(FramingDefect::LengthAndEncoding),
            Some(_) if self.length.is_some() => Some(FramingDefect::RepeatedLength),
            Some(number) if number > LONGEST_BODY => Some(FramingDefect::TooLong),
            Some(number) => {
                self.length = Some(number);
                None
            }
        };
    }

    fn end_of_head(&mut self) {
        self.heads += 1;
        self.state = match (std::mem::take(&mut self.encoding), self.length.take()) {
            (true, _) => State::Opaque,
            (false, Some(length)) if length > 0 => State::Body(length),
            (false, _) => State::Between,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(text: &str) -> Option<(u64, FramingDefect)> {
        let whole = HeadScanner::default().feed(&mut text.as_bytes().to_vec());
        // However the bytes are cut into reads, the verdict is the same.
        let mut scanner = HeadScanner::default();
        let bytewise = text.bytes().find_map(|byte| scanner.feed(&mut [byte]));
        assert_eq!(whole, bytewise, "{text:?}");
        whole
    }

    /// What is left of `text` where it is read in two parts, and what is found.
    fn read_in_two(text: &str, cut: usize) -> (String, Option<(u64, FramingDefect)>) {
        let mut scanner = HeadScanner::default();
        let mut bytes = text.as_bytes().to_vec();
        let (first, second) = bytes.split_at_mut(cut);
        let found = scanner.feed(first);
        let found = found.or(scanner.feed(second));
        (String::from_utf8(bytes).unwrap(), found)
    }

    #[test]
    fn hazard_s11_both_lengths_and_encodings_in_either_order() {
        let cl_te =
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n";
        let te_cl =
            "POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\nCONTENT-LENGTH:3\r\n\r\n";
        assert_eq!(scan(cl_te), Some((0, FramingDefect::LengthAndEncoding)));
        assert_eq!(scan(te_cl), Some((0, FramingDefect::LengthAndEncoding)));
    }

    #[test]
    fn hazard_s11_repeated_headers_even_when_equal() {
        assert_eq!(
            scan("GET / HTTP/1.1\nContent-Length: 0\nContent-Length: 0\n\n"),
            Some((0, FramingDefect::RepeatedLength))
        );
        let twice =
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(scan(twice), Some((0, FramingDefect::RepeatedEncoding)));
    }

    #[test]
    fn hazard_s11_lengths_that_are_not_plain_numbers() {
        for value in ["+3", "3,3", "0x3", "3 3"] {
            assert_eq!(
                scan(&format!(
                    "POST / HTTP/1.1\r\nContent-Length: {value}\r\n\r\n"
                )),
                Some((0, FramingDefect::BadLength))
            );
        }
        let padded = format!(
            "POST / HTTP/1.1\r\nContent-Length: {}3\r\n\r\n",
            " ".repeat(200)
        );
        assert_eq!(scan(&padded), Some((0, FramingDefect::BadLength)));
    }

    /// RFC 9110 section 8.6: a recipient must anticipate large numerals, and not let them overflow.
    #[test]
    fn hazard_s11_lengths_that_nothing_can_have() {
        let of =
            |value: &str| format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {value}\r\n\r\n");
        assert_eq!(scan(&of("9223372036854775807")), None);
        for value in [
            "9223372036854775808",
            "18446744073709551615",
            "18446744073709551616",
            &"9".repeat(200),
        ] {
            assert_eq!(
                scan(&of(value)),
                Some((0, FramingDefect::TooLong)),
                "{value}"
            );
            // Wherever a read ends, what hyper is given is a length that it can count to, or none; what came before on the same
            // connection stays as it is.
            let before = of("20") + "Content-Length: 1234";
            let text = before.clone() + &of(value);
            for cut in 0..text.len() {
                let (read, found) = read_in_two(&text, cut);
                assert_eq!(found, Some((1, FramingDefect::TooLong)), "{cut}");
                let (left, head) = read.split_at(before.len());
                assert_eq!((left, scan(head)), (&*before, None), "{cut}: {read}");
            }
        }
    }

    /// So that the service says what is wrong, and not hyper without words.
    #[test]
    fn lengths_that_hyper_cannot_read_are_hidden_from_it() {
        let of = |lines: &str| format!("PUT / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n");
        for (lines, defect, left) in [
            (
                "Content-Length: abc",
                FramingDefect::BadLength,
                "Xontent-Length: abc",
            ),
            (
                "content-length:",
                FramingDefect::BadLength,
                "Xontent-length:",
            ),
            (
                "Content-Length: 3\r\nContent-Length: 4",
                FramingDefect::RepeatedLength,
                "Content-Length: 3\r\nXontent-Length: 4",
            ),
        ] {
            let mut read = of(lines).into_bytes();
            let found = HeadScanner::default().feed(&mut read);
            assert_eq!(found, Some((0, defect)), "{lines}");
            assert_eq!(String::from_utf8(read).unwrap(), of(left));
        }
        let text = of("Content-Length: 3, 3");
        let cut = text.find(", 3").unwrap();
        let (read, found) = read_in_two(&text, cut);
        assert_eq!(found, Some((0, FramingDefect::BadLength)));
        assert_eq!(read, of("Content-Length: 3   "));
    }

    /// hyper drops what is behind it: `a#1` and `a#2` would be written to one file.
    #[test]
    fn a_number_sign_is_refused_where_something_is_changed() {
        let of = |line: &str| format!("{line} HTTP/1.1\r\nHost: a\r\nX-Note: #1\r\n\r\n");
        for line in ["PUT /a#1", "DELETE /a#", "POST /?a#b", "HEADS /#"] {
            assert_eq!(
                scan(&of(line)),
                Some((0, FramingDefect::Fragment)),
                "{line}"
            );
        }
        for line in ["GET /a#1", "HEAD /a#1", "PUT /a%231"] {
            assert_eq!(scan(&of(line)), None, "{line}");
        }
        let second = of("GET /a") + &of("PUT /a#1");
        assert_eq!(scan(&second), Some((1, FramingDefect::Fragment)));
    }

    #[test]
    fn bodies_are_not_taken_for_heads() {
        let body = "Content-Length: 1\nContent-Length: 1\n";
        let first = format!(
            "POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        assert_eq!(scan(&first), None);
        let then =
            format!("{first}GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n");
        assert_eq!(scan(&then), Some((1, FramingDefect::RepeatedLength)));
    }

    #[test]
    fn ordinary_requests_one_after_another_pass() {
        let get = "GET /a HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nContent-Type: text/plain\r\n\r\n";
        assert_eq!(scan(&format!("\r\n{get}\r\n{get}{get}")), None);
    }
}

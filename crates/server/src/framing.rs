//! A look at the raw heads of HTTP/1 requests, before the HTTP library has tidied them up.
//!
//! hyper folds equal `Content-Length` lines into one and drops `Content-Length` beside `Transfer-Encoding`. Both are legal
//! readings, and both are what request smuggling is made of (hazard S11), so larder wants to know and to refuse. This scanner
//! follows the byte stream from head to head and knows only the lines that decide where a request ends.

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
}

impl FramingDefect {
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::RepeatedLength => "the request has more than one Content-Length",
            Self::LengthAndEncoding => "the request has both Content-Length and Transfer-Encoding",
            Self::RepeatedEncoding => "the request has more than one Transfer-Encoding",
            Self::BadLength => "the request's Content-Length is not a number",
            Self::TooLong => "the request's Content-Length is beyond what any file can have",
        }
    }
}

/// No file system has longer files, and offsets end there (`off_t`).
pub(crate) const LONGEST_BODY: u64 = i64::MAX as u64;

/// Digits of a number that is certainly not longer.
const SHORT: usize = 18;

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
    /// How far the last bytes were looked at, up to the end of the line with the defect.
    looked_at: usize,
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
    /// Within or after a chunked body: the server closes the connection after such a request, nothing further is read.
    Opaque,
}

impl HeadScanner {
    /// Takes the next bytes. `Some((n, defect))`: the head of the connection's request number `n`, counted from 0, is to be refused.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Option<(u64, FramingDefect)> {
        let fed = bytes.len();
        while !bytes.is_empty() {
            match self.state {
                State::Opaque => return None,
                State::Body(left) => {
                    let step = left.min(bytes.len() as u64);
                    bytes = &bytes[step as usize..];
                    self.state = if step == left {
                        State::Between
                    } else {
                        State::Body(left - step)
                    };
                }
                State::Between | State::Head => {
                    let Some(end) = memchr::memchr(b'\n', bytes) else {
                        self.keep(bytes);
                        return None;
                    };
                    let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
                    bytes = rest;
                    if self.carry.is_empty() {
                        self.line(&line[..line.len().min(LINE_KEPT)]);
                    } else {
                        self.keep(line);
                        let whole = std::mem::take(&mut self.carry);
                        self.line(&whole);
                    }
                    if let Some(defect) = self.defect {
                        self.state = State::Opaque;
                        self.looked_at = fed - bytes.len();
                        return Some((self.heads, defect));
                    }
                }
            }
        }
        None
    }

    /// Puts a length that can be counted to in the place of the one that was found to be too long in `read`, which is what was fed last:
    /// hyper would end the connection itself, and the service is to say what is wrong.
    pub(crate) fn shorten_length(&self, read: &mut [u8]) {
        let looked_at = &mut read[..self.looked_at];
        let line = looked_at.trim_ascii_end().len();
        let digits = looked_at[..line].iter_mut().rev();
        let digits = digits.take_while(|byte| byte.is_ascii_digit());
        for (place, digit) in digits.enumerate() {
            *digit = if place < SHORT { b'9' } else { b'0' };
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

/// The value of a header line, if it is the header of that lower-case name. A line cut at [`LINE_KEPT`] keeps its name.
fn value_of<'l>(line: &'l [u8], name: &[u8]) -> Option<&'l [u8]> {
    let (found, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":")?;
    found.eq_ignore_ascii_case(name).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(text: &str) -> Option<(u64, FramingDefect)> {
        let whole = HeadScanner::default().feed(text.as_bytes());
        // However the bytes are cut into reads, the verdict is the same.
        let mut scanner = HeadScanner::default();
        let bytewise = text.bytes().find_map(|byte| scanner.feed(&[byte]));
        assert_eq!(whole, bytewise, "{text:?}");
        whole
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
            // What came before on the same connection stays as it is.
            let before = of("20") + "Content-Length: 1234";
            let mut read = (before.clone() + &of(value)).into_bytes();
            let mut scanner = HeadScanner::default();
            assert_eq!(scanner.feed(&read), Some((1, FramingDefect::TooLong)));
            scanner.shorten_length(&mut read);
            let read = String::from_utf8(read).unwrap();
            let (left, shortened) = read.split_at(before.len());
            assert_eq!((left, scan(shortened)), (&*before, None), "{read}");
        }
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

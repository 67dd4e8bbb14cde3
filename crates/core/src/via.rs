//! `Via` (RFC 9110 section 7.6.3): which larders a request has passed, so that a remote that leads back to itself is noticed.
//!
//! Only the pseudonyms of larders are read and carried on. Every loop that larder is part of comes back with larder's own; and what
//! strangers write into this field must not reach an upstream on behalf of everybody who waits for the same file (ADR 0041).

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use http::HeaderMap;
use http::header::VIA;

/// A request that has passed more larders than this is taken for one that goes in circles.
const MOST_PASSED: usize = 32;

const PREFIX: &str = "larder-";
const DIGITS: usize = 32;

/// What a larder is called in `Via`: of a process, and impossible to guess, so that nobody else can be taken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pseudonym(u128);

impl Pseudonym {
    /// A new one.
    pub fn random() -> Self {
        // The keys of a RandomState come from the system's random numbers; its hash does not give them away.
        let half = |n: u8| u128::from(RandomState::new().hash_one(n));
        Self(half(1) << 64 | half(2))
    }

    /// The one that stands in a word of a field, if it is one.
    fn read(word: &[u8]) -> Option<Self> {
        let word = std::str::from_utf8(word).ok()?;
        let (prefix, digits) = word.split_at_checked(PREFIX.len())?;
        let is_one = prefix.eq_ignore_ascii_case(PREFIX)
            && digits.len() == DIGITS
            && digits.bytes().all(|b| b.is_ascii_hexdigit());
        is_one
            .then(|| u128::from_str_radix(digits, 16).ok().map(Self))
            .flatten()
    }
}

impl fmt::Display for Pseudonym {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{:0DIGITS$x}", self.0)
    }
}

/// The larders that a request has passed, first to last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trail(Arc<[Pseudonym]>);

impl Trail {
    /// What the lines of `Via` say. Nothing is allocated where there are none.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut passed = Vec::new();
        for line in headers.get_all(VIA) {
            read_line(line.as_bytes(), &mut passed);
        }
        if passed.is_empty() {
            Self::default()
        } else {
            Self(passed.into())
        }
    }

    /// Whether it has passed none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it has come back to `own`, or has passed so many that it must be going in circles.
    pub fn is_loop(&self, own: Pseudonym) -> bool {
        self.0.len() > MOST_PASSED || self.0.contains(&own)
    }

    /// The field of the request that `own` sends on.
    pub fn line(&self, own: Pseudonym) -> String {
        let all: Vec<String> = self
            .0
            .iter()
            .chain([&own])
            .map(|passed| format!("1.1 {passed}"))
            .collect();
        all.join(", ")
    }
}

/// Reads `received-protocol RWS received-by [ RWS comment ]`, separated by commas; comments may hold commas and comments. Of a line full
/// of pseudonyms no more are read than make a loop.
fn read_line(line: &[u8], passed: &mut Vec<Pseudonym>) {
    let (mut at, mut words, mut comments_close) = (0, 0, true);
    while at < line.len() && passed.len() <= MOST_PASSED {
        match line[at] {
            b',' => (at, words) = (at + 1, 0),
            b' ' | b'\t' => at += 1,
            b'(' if comments_close => match comment_end(line, at) {
                Some(end) => at = end,
                // An opening bracket that nobody closes must not hide what comes after it.
                None => comments_close = false,
            },
            _ => {
                let length = line[at + 1..]
                    .iter()
                    .position(|byte| matches!(byte, b',' | b' ' | b'\t' | b'('));
                let end = length.map_or(line.len(), |length| at + 1 + length);
                words += 1;
                // The second word; the first of a proxy that leaves the protocol out.
                passed.extend(
                    (words <= 2)
                        .then(|| Pseudonym::read(&line[at..end]))
                        .flatten(),
                );
                at = end;
            }
        }
    }
}

/// Where the comment that begins at `start` ends (RFC 9110 section 5.6.5).
fn comment_end(line: &[u8], start: usize) -> Option<usize> {
    let (mut depth, mut at) = (0_usize, start);
    while at < line.len() {
        match line[at] {
            b'\\' => at += 1,
            b'(' => depth += 1,
            b')' if depth == 1 => return Some(at + 1),
            b')' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    const OWN: Pseudonym = Pseudonym(0x00c0_ffee);

    fn trail(lines: &[&[u8]]) -> Trail {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(VIA, HeaderValue::from_bytes(line).unwrap());
        }
        Trail::of(&headers)
    }

    /// RFC 9110 section 7.6.3: a list, over any number of lines, with comments (section 5.6.5) that may hold commas and brackets.
    #[test]
    fn loop_ones_own_pseudonym_is_found_wherever_a_list_may_have_it() {
        let own = OWN.to_string();
        assert_eq!(own, "larder-00000000000000000000000000c0ffee");
        for text in [
            format!("1.1 {own}"),
            format!("1.0 fred, 1.1 p.example.net, 1.1 {own}, HTTP/2 cdn.example (a, b)"),
            format!("1.1 fred (squid, \"x\" \\) (nested)),1.1\t{own}(comment)"),
            format!("1.1 {}", own.to_uppercase()),
            format!(",, ,HTTP/1.1  {own} , ,"),
            own.clone(),
            format!("1.1 fred (never closed, 1.1 {own}"),
            format!("1.1 fr\u{e9}d, 1.1 {own}"),
        ] {
            assert!(
                trail(&[b"1.1 before", text.as_bytes()]).is_loop(OWN),
                "{text}"
            );
        }
        for text in [
            "1.1 larder-00000000000000000000000000c0ffef".to_owned(),
            format!("1.1 {own}x"),
            format!("1.1 x{own}"),
            format!("1.1 {own}:8080"),
            format!("1.1 fred ({own})"),
            format!("1.1 fred (1.1 a, 1.1 {own})"),
            format!("1.1 fred comment {own}"),
            format!("1.1 {}", &own[..own.len() - 1]),
            "1.1 larder-+0000000000000000000000000c0ffee".to_owned(),
            String::new(),
        ] {
            assert!(!trail(&[text.as_bytes()]).is_loop(OWN), "{text}");
        }
    }

    #[test]
    fn loop_a_trail_goes_on_with_ones_own_at_its_end_and_without_strangers() {
        let (a, b) = (Pseudonym(10), Pseudonym(11));
        let line = trail(&[
            format!("1.1 fred, 1.1 {a}").as_bytes(),
            b"1.0 proxy.internal (secret)",
        ])
        .line(b);
        assert_eq!(line, format!("1.1 {a}, 1.1 {b}"));
        assert_eq!(Trail::default().line(a), format!("1.1 {a}"));
        let onward = trail(&[line.as_bytes()]);
        assert!(onward.is_loop(a) && onward.is_loop(b) && !onward.is_loop(OWN));
    }

    #[test]
    fn loop_a_trail_without_end_is_one_and_is_read_no_further() {
        let many = |count: usize| {
            (0..count)
                .map(|n| format!("1.1 {}", Pseudonym(n as u128 + 1)))
                .collect::<Vec<_>>()
                .join(",")
        };
        assert!(!trail(&[many(MOST_PASSED).as_bytes()]).is_loop(Pseudonym(0)));
        let endless = trail(&[many(10_000).as_bytes(), many(10_000).as_bytes()]);
        assert!(endless.is_loop(Pseudonym(0)));
        assert!(endless.0.len() <= MOST_PASSED + 1);
        // A line of nothing but opening brackets is read in one pass.
        assert!(trail(&[&vec![b'('; 60_000]]).is_empty());
    }

    #[test]
    fn no_two_pseudonyms_are_alike() {
        assert_ne!(Pseudonym::random(), Pseudonym::random());
        assert_eq!(Pseudonym::read(OWN.to_string().as_bytes()), Some(OWN));
    }
}

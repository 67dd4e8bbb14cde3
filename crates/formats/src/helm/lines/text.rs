//! Where the tokens of a line end.

use memchr::{memchr, memchr2};

use crate::helm::scan::{Span, Style};

/// Keys may not be longer than this (YAML 1.2 section 7.4.2 says 1,024 characters).
const MAX_KEY: usize = 1000;

/// The offset of the first byte in `at..end` that is no space.
pub(super) fn skip_spaces(text: &[u8], at: usize, end: usize) -> usize {
    text.get(at..end)
        .and_then(|rest| rest.iter().position(|&b| b != b' '))
        .map_or(end, |spaces| at + spaces)
}

/// Whether a sequence item starts at `at`.
pub(super) fn is_dash(text: &[u8], at: usize, end: usize) -> bool {
    text.get(at) == Some(&b'-') && (at + 1 == end || text.get(at + 1) == Some(&b' '))
}

/// The key at `at` and the offset after its colon; `Some(None)` if there is none, `None` if it is of a kind that is not known here.
#[expect(
    clippy::option_option,
    reason = "not known is another answer than none"
)]
pub(super) fn key_end(text: &[u8], at: usize, end: usize) -> Option<Option<(Span, usize)>> {
    let ends = |colon: usize| colon + 1 == end || text.get(colon + 1) == Some(&b' ');
    match *text.get(at)? {
        quote @ (b'"' | b'\'') => {
            let Some(stop) = quoted_end(text, at).filter(|stop| *stop <= end) else {
                return Some(None);
            };
            let colon = skip_spaces(text, stop, end);
            if colon == end || text.get(colon) == Some(&b'#') {
                return Some(None);
            }
            let style = if quote == b'"' {
                Style::Double
            } else {
                Style::Single
            };
            let key = text.get(colon) == Some(&b':') && ends(colon) && stop - at <= MAX_KEY;
            key.then(|| Some((Span::new(at..stop, style), colon + 1)))
        }
        // What starts with another indicator is no key of this style, and `value` says whether it is known.
        b'[' | b'{' | b'|' | b'>' | b'&' | b'*' | b'!' | b'%' | b'@' | b'`' | b'#' | b','
        | b']' | b'}' => Some(None),
        b':' | b'?' | b'-' if at + 1 == end || matches!(text.get(at + 1), Some(b' ' | b'\t')) => {
            None
        }
        _ => {
            let line = text.get(at..end)?;
            // Keys are short: a loop over bytes finds their end sooner than a call that is made for long texts.
            let mut before = b'x';
            for (length, &byte) in line.iter().enumerate() {
                match byte {
                    b':' => match line.get(length + 1) {
                        None | Some(b' ') => {
                            let key = Span::new(at..at + length, Style::Plain);
                            return (length <= MAX_KEY && !is_blank(before))
                                .then(|| Some((key, at + length + 1)));
                        }
                        Some(b'\t') => return None,
                        Some(_) => {}
                    },
                    b'#' if is_blank(before) => return Some(None),
                    _ => {}
                }
                before = byte;
            }
            Some(None)
        }
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Where a line of a plain scalar ends, and whether a comment follows it. `None` if it holds what a plain scalar must not.
pub(super) fn plain_end(text: &[u8], at: usize, end: usize) -> Option<(usize, bool)> {
    let line = text.get(at..end)?;
    let mut from = 0;
    loop {
        let rest = line.get(from..)?;
        let special = |b: &u8| matches!(b, b':' | b'#');
        let found = if rest.len() < 32 {
            rest.iter().position(special)
        } else {
            memchr2(b':', b'#', rest)
        };
        let Some(found) = found.map(|offset| from + offset) else {
            return Some((trimmed(line) + at, false));
        };
        let before = found
            .checked_sub(1)
            .and_then(|before| line.get(before))
            .copied()
            .unwrap_or(b' ');
        if line.get(found) == Some(&b'#') {
            if is_blank(before) {
                return Some((trimmed(line.get(..found)?) + at, true));
            }
        } else if line.get(found + 1).is_none_or(|after| is_blank(*after)) {
            return None;
        }
        from = found + 1;
    }
}

/// The offset after the quote that ends the scalar at `at`, on whichever line; `None` if there is none, or an escape is illegal.
pub(in crate::helm) fn quoted_end(text: &[u8], at: usize) -> Option<usize> {
    let quote = *text.get(at)?;
    let mut from = at + 1;
    if quote == b'\'' {
        loop {
            from += memchr(b'\'', text.get(from..)?)? + 1;
            if text.get(from) != Some(&b'\'') {
                return Some(from);
            }
            from += 1;
        }
    }
    loop {
        from += memchr2(b'"', b'\\', text.get(from..)?)?;
        if text.get(from) == Some(&b'"') {
            return Some(from + 1);
        }
        from += escape_length(text.get(from + 1..)?)? + 1;
    }
}

/// Length of a legal escape without its backslash.
fn escape_length(rest: &[u8]) -> Option<usize> {
    let digits = match rest.first()? {
        b'0' | b'a' | b'b' | b't' | b'\t' | b'n' | b'v' | b'f' | b'r' | b'e' | b' ' | b'"'
        | b'/' | b'\\' | b'N' | b'_' | b'L' | b'P' | b'\n' => 0,
        b'x' => 2,
        b'u' => 4,
        b'U' => 8,
        _ => return None,
    };
    let code = rest.get(1..=digits)?;
    if digits > 0 {
        let hex = code
            .iter()
            .all(u8::is_ascii_hexdigit)
            .then(|| std::str::from_utf8(code).ok())
            .flatten()?;
        char::from_u32(u32::from_str_radix(hex, 16).ok()?)?;
    }
    Some(1 + digits)
}

/// Reads the header of a block scalar: `Some(Some(n))` if it states its indentation, `None` if it is no header.
#[expect(
    clippy::option_option,
    reason = "no header is another answer than no indentation"
)]
pub(super) fn block_header(line: &[u8]) -> Option<Option<usize>> {
    let (mut indentation, mut chomping) = (None, false);
    let mut rest = line.get(1..)?;
    while let [byte, tail @ ..] = rest {
        match byte {
            b'1'..=b'9' if indentation.is_none() => indentation = Some(usize::from(byte - b'0')),
            b'+' | b'-' if !chomping => chomping = true,
            _ => break,
        }
        rest = tail;
    }
    let spaces = rest.iter().take_while(|b| **b == b' ').count();
    let tail = rest.get(spaces..)?;
    (tail.is_empty() || (spaces > 0 && tail.first() == Some(&b'#'))).then_some(indentation)
}

/// Length of a text without the white space at its end.
fn trimmed(text: &[u8]) -> usize {
    text.iter()
        .rposition(|b| !is_blank(*b))
        .map_or(0, |last| last + 1)
}

//! Where the tokens of a line end.

use memchr::{memchr, memchr_iter, memchr2, memchr2_iter};

use crate::helm::scan::{Span, Style};

/// Keys may not be longer than this (YAML 1.2 section 7.4.2 says 1,024 characters).
const MAX_KEY: usize = 1000;

/// The offset of the first byte in `at..end` that is no space.
pub(super) fn skip_spaces(text: &[u8], at: usize, end: usize) -> usize {
    text.get(at..end).and_then(|rest| rest.iter().position(|&b| b != b' ')).map_or(end, |spaces| at + spaces)
}

/// Whether a sequence item starts at `at`.
pub(super) fn is_dash(text: &[u8], at: usize, end: usize) -> bool {
    text.get(at) == Some(&b'-') && (at + 1 == end || text.get(at + 1) == Some(&b' '))
}

/// The key at `at` and the offset after its colon; `Some(None)` if there is none, `None` if it is of a kind that is not known here.
#[expect(clippy::option_option, reason = "not known is another answer than none")]
pub(super) fn key_end(text: &[u8], at: usize, end: usize) -> Option<Option<(Span, usize)>> {
    let ends = |colon: usize| colon + 1 == end || text.get(colon + 1) == Some(&b' ');
    match *text.get(at)? {
        quote @ (b'"' | b'\'') => {
            let Some(stop) = quoted_end(text, at).filter(|stop| *stop <= end) else { return Some(None) };
            let colon = skip_spaces(text, stop, end);
            if colon == end || text.get(colon) == Some(&b'#') {
                return Some(None);
            }
            let style = if quote == b'"' { Style::Double } else { Style::Single };
            let key = text.get(colon) == Some(&b':') && ends(colon) && stop - at <= MAX_KEY;
            key.then(|| Some((Span::new(at..stop, style), colon + 1)))
        }
        // What starts with another indicator is no key of this style, and `value` says whether it is known.
        b'[' | b'{' | b'|' | b'>' | b'&' | b'*' | b'!' | b'%' | b'@' | b'`' | b'#' | b',' | b']' | b'}' => Some(None),
        b':' | b'?' | b'-' if at + 1 == end || matches!(text.get(at + 1), Some(b' ' | b'\t')) => None,
        _ => {
            let rest = text.get(at..end)?;
            for colon in memchr_iter(b':', rest).map(|offset| at + offset) {
                if text.get(colon + 1) == Some(&b'\t') {
                    return None;
                }
                if ends(colon) {
                    let stop = trimmed(text, at, colon);
                    if has_comment(text.get(at..colon)?) {
                        return Some(None);
                    }
                    return (stop - at <= MAX_KEY && stop == colon).then(|| Some((Span::new(at..stop, Style::Plain), colon + 1)));
                }
            }
            Some(None)
        }
    }
}

/// Where a line of a plain scalar ends, and whether a comment follows it. `None` if it holds what a plain scalar must not.
pub(super) fn plain_end(text: &[u8], at: usize, end: usize) -> Option<(usize, bool)> {
    for found in memchr2_iter(b':', b'#', text.get(at..end)?).map(|offset| at + offset) {
        let before = if found == at { b' ' } else { *text.get(found - 1)? };
        match text.get(found) {
            Some(b'#') if before == b' ' || before == b'\t' => return Some((trimmed(text, at, found), true)),
            Some(b':') if found + 1 == end || matches!(text.get(found + 1), Some(b' ' | b'\t')) => return None,
            _ => {}
        }
    }
    Some((trimmed(text, at, end), false))
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
        b'0' | b'a' | b'b' | b't' | b'\t' | b'n' | b'v' | b'f' | b'r' | b'e' | b' ' | b'"' | b'/' | b'\\' | b'N' | b'_'
        | b'L' | b'P' | b'\n' => 0,
        b'x' => 2,
        b'u' => 4,
        b'U' => 8,
        _ => return None,
    };
    let code = rest.get(1..=digits)?;
    if digits > 0 {
        let hex = code.iter().all(u8::is_ascii_hexdigit).then(|| std::str::from_utf8(code).ok()).flatten()?;
        char::from_u32(u32::from_str_radix(hex, 16).ok()?)?;
    }
    Some(1 + digits)
}

/// Reads the header of a block scalar: `Some(Some(n))` if it states its indentation, `None` if it is no header.
#[expect(clippy::option_option, reason = "no header is another answer than no indentation")]
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

fn trimmed(text: &[u8], at: usize, end: usize) -> usize {
    let blanks = text.get(at..end).unwrap_or_default().iter().rev().take_while(|b| matches!(b, b' ' | b'\t')).count();
    end - blanks
}

fn has_comment(text: &[u8]) -> bool {
    memchr_iter(b'#', text).any(|at| at > 0 && matches!(text.get(at - 1), Some(b' ' | b'\t')))
}

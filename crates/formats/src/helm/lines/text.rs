//! Where the tokens of a line end.

use memchr::{memchr, memchr2};

use crate::helm::scan::{Span, Style};

/// Keys may not be longer than this (YAML 1.2 section 7.4.2 says 1,024 characters).
const MAX_KEY: usize = 1000;

/// From this length on a search is left to `memchr`, which takes a while to begin and is the faster then.
const LONG: usize = 64;
/// Each byte of a word.
const ONES: u64 = 0x0101_0101_0101_0101;

/// Eight bytes of the text; `None` where there are not so many left.
#[inline]
fn word(text: &[u8], at: usize) -> Option<u64> {
    let bytes = text.get(at..)?.first_chunk::<8>()?;
    Some(u64::from_le_bytes(*bytes))
}

/// The lowest bit that is set belongs to the first byte of `word` that is `byte`; 0 if none is. (Borrows can set bits above it, never
/// below.)
#[inline]
fn equal(word: u64, byte: u8) -> u64 {
    let zero = word ^ (ONES * u64::from(byte));
    zero.wrapping_sub(ONES) & !zero & (ONES << 7)
}

/// The offset of the first byte in `at..end` that is no space. Lines are short, and mostly words of eight bytes do.
#[inline]
pub(super) fn skip_spaces(text: &[u8], mut at: usize, end: usize) -> usize {
    while at < end {
        let Some(word) = word(text, at) else {
            let rest = text.get(at..end).unwrap_or_default();
            let spaces = rest.iter().position(|&b| b != b' ');
            return spaces.map_or(end, |spaces| at + spaces);
        };
        let other = word ^ (ONES * u64::from(b' '));
        if other != 0 {
            return end.min(at + (other.trailing_zeros() / 8) as usize);
        }
        at += 8;
    }
    end
}

/// The offset of the first colon or number sign in `at..end`.
#[inline]
fn colon_or_sign(text: &[u8], mut at: usize, end: usize) -> Option<usize> {
    if end.checked_sub(at)? >= LONG {
        return memchr2(b':', b'#', text.get(at..end)?).map(|found| at + found);
    }
    while at < end {
        let Some(word) = word(text, at) else {
            let rest = text.get(at..end)?;
            return rest
                .iter()
                .position(|b| matches!(b, b':' | b'#'))
                .map(|found| at + found);
        };
        let hit = equal(word, b':') | equal(word, b'#');
        if hit != 0 {
            let found = at + (hit.trailing_zeros() / 8) as usize;
            return (found < end).then_some(found);
        }
        at += 8;
    }
    None
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
            let line = text.get(..end)?;
            let mut from = at;
            while let Some(found) = colon_or_sign(text, from, end) {
                let is_after_blank =
                    found > at && line.get(found - 1).copied().is_some_and(is_blank);
                match (line.get(found)?, line.get(found + 1)) {
                    (b'#', _) if is_after_blank => return Some(None),
                    (b'#', _) => {}
                    (_, None | Some(b' ')) => {
                        let key = Span::new(at..found, Style::Plain);
                        return (found - at <= MAX_KEY && !is_after_blank)
                            .then(|| Some((key, found + 1)));
                    }
                    (_, Some(b'\t')) => return None,
                    (_, Some(_)) => {}
                }
                from = found + 1;
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
        let found = colon_or_sign(text, at + from, end);
        let Some(found) = found.map(|found| found - at) else {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn words_of_bytes_find_what_bytes_do(
            text in prop::collection::vec(prop_oneof![
                Just(b' '), Just(b':'), Just(b'#'), Just(b'!'), Just(b'\n'), Just(b'"'), any::<u8>()
            ], 0..100),
            one in 0_usize..100,
            other in 0_usize..100,
        ) {
            let (at, end) = (one.min(other).min(text.len()), one.max(other).min(text.len()));
            let first = |wanted: &dyn Fn(u8) -> bool| {
                text[at..end].iter().position(|b| wanted(*b)).map(|found| at + found)
            };
            prop_assert_eq!(skip_spaces(&text, at, end), first(&|b| b != b' ').unwrap_or(end));
            prop_assert_eq!(colon_or_sign(&text, at, end), first(&|b| matches!(b, b':' | b'#')));
        }
    }
}

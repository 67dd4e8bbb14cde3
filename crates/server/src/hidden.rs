//! What hyper refuses without words in the head of a request, written over in place by what it takes, so that the service can say what is
//! wrong. Whoever calls this refuses the head, whatever is read in it then.

/// No file system has longer files, and offsets end there (`off_t`).
pub(crate) const LONGEST_BODY: u64 = i64::MAX as u64;

/// Digits of a number that is certainly not longer than [`LONGEST_BODY`].
const SHORT: usize = 18;

/// The value of a header line, if it is the header of that lower-case name. A line that is cut keeps its name.
pub(crate) fn value_of<'l>(line: &'l [u8], name: &[u8]) -> Option<&'l [u8]> {
    let (found, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":")?;
    found.eq_ignore_ascii_case(name).then_some(value)
}

/// How many digits of a length a `Content-Length` line begins with.
fn digits_of(line: &[u8]) -> Option<usize> {
    let value = value_of(line, b"content-length")?.trim_ascii_start();
    Some(
        value
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count(),
    )
}

/// Whether what there is of a line is a length that is too long, whatever comes.
pub(crate) fn is_too_long(line: &[u8]) -> bool {
    if digits_of(line).is_none_or(|digits| digits <= SHORT) {
        return false;
    }
    let value = value_of(line, b"content-length").unwrap_or_default();
    let text = std::str::from_utf8(value.trim_ascii()).unwrap_or_default();
    text.bytes().all(|byte| byte.is_ascii_digit())
        && text.parse().unwrap_or(u64::MAX) > LONGEST_BODY
}

/// Makes another header of a `Content-Length` line whose beginning, `before`, has been read already, or a number that can be counted to.
pub(crate) fn length(rest: &mut [u8], before: &[u8]) {
    match (before.contains(&b':'), rest) {
        (true, rest) => shorten(rest, digits_of(before).unwrap_or(0)),
        (false, [b':', rest @ ..]) => shorten(rest, 0),
        (false, [first, ..]) => *first = b'X',
        (false, []) => {}
    }
}

/// What comes of a length behind as many digits as can be counted to.
pub(crate) fn rest_of_a_length(rest: &mut [u8]) {
    shorten(rest, SHORT);
}

/// Leaves so many digits of a length, of which `before` have been read already, that it is short, and puts spaces in the place of the rest.
fn shorten(rest: &mut [u8], before: usize) {
    let end = rest.len() - usize::from(rest.ends_with(b"\r"));
    let rest = &mut rest[..end];
    let digits = rest.iter().take(SHORT.saturating_sub(before));
    let kept = digits.take_while(|byte| byte.is_ascii_digit()).count();
    rest[kept..].fill(b' ');
    if before + kept == 0
        && let Some(first) = rest.first_mut()
    {
        *first = b'0';
    }
}

/// Puts backslashes, which the service refuses, in the place of what hyper does not take in the target of a request line. Whether there
/// was any of it.
pub(crate) fn target(line: &mut [u8]) -> bool {
    target_of(line).is_some_and(mend_target)
}

/// The target within a request line.
fn target_of(line: &mut [u8]) -> Option<&mut [u8]> {
    let (start, end) = (memchr::memchr(b' ', line)?, memchr::memrchr(b' ', line)?);
    let is_request = start < end && line[end + 1..].starts_with(b"HTTP/1.");
    if is_request {
        line.get_mut(start + 1..end)
    } else {
        None
    }
}

fn mend_target(target: &mut [u8]) -> bool {
    let may_be = |byte: &u8| matches!(byte, b'!' | b'#'..=b';' | b'=' | b'?'..=b'_' | b'a'..=b'~');
    // To the end in any case: this is done for many bytes at a time.
    if target.iter().fold(true, |all, byte| all & may_be(byte)) {
        return false;
    }
    let is_text = std::str::from_utf8(target).is_ok();
    let (mut in_query, mut found) = (false, false);
    for byte in target {
        in_query |= *byte == b'?';
        let is_wrong = match *byte {
            b'#' => break,
            b'<' | b'>' | ..=b' ' | 0x7f => true,
            b'"' => in_query,
            b'`' => !in_query,
            0x80.. => !is_text,
            _ => false,
        };
        if is_wrong {
            (*byte, found) = (b'\\', true);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_target_that_hyper_does_not_take_comes_to_the_service() {
        let of = |target: &[u8]| [&b"GET "[..], target, b" HTTP/1.1\r"].concat();
        for (target, left) in [
            (&b"/a b"[..], &b"/a\\b"[..]),
            (b"/<b>?<", b"/\\b\\?\\"),
            (b"/`?\"", b"/\\?\\"),
            (b"/\xe9\xc3\xa9", b"/\\\\\\"),
            (b"/a\x7f", b"/a\\"),
        ] {
            let mut read = of(target);
            assert!(super::target(&mut read), "{target:?}");
            assert_eq!(read, of(left), "{target:?}");
        }
        for target in [
            "/a\"?`",
            "/{a}|^[b]\\",
            "/\u{e9}?\u{e9}",
            "/a#<b>",
            "/%3Cb%3E",
        ] {
            let mut read = of(target.as_bytes());
            assert!(!super::target(&mut read), "{target}");
            assert_eq!(read, of(target.as_bytes()));
        }
    }
}

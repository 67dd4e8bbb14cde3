//! How what strangers wrote is shown in log lines: bounded, on one line, without queries.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

/// How much of a target, path or name is logged, in bytes. A request may carry 8 KiB of it, thousands of times a second.
const SHOWN: usize = 200;

/// A text of a stranger's for a field of a log line: at most its first 200 bytes, with a mark and the whole length if that is less
/// than all of it. What the field needs beyond that, quotes and escapes, is added by who writes the line.
///
/// ```
/// assert_eq!(larder_core::shown("pool/a.deb"), "pool/a.deb");
/// assert_eq!(larder_core::shown(&"x".repeat(8_000)), format!("{}… (8000 bytes)", "x".repeat(200)));
/// ```
pub fn shown(text: &str) -> Cow<'_, str> {
    if text.len() <= SHOWN {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(SHOWN);
    Cow::Owned(format!("{}… ({} bytes)", &text[..end], text.len()))
}

/// Writes a path into the middle of a line: bounded as by [`shown`], control characters, quotes and backslashes escaped, and of its
/// query only that there is one, for queries may hold signatures.
pub(crate) fn write_path(f: &mut fmt::Formatter<'_>, path: &str) -> fmt::Result {
    let (path, query) = path
        .split_once('?')
        .map_or((path, ""), |(path, _)| (path, "?…"));
    for character in shown(path).chars() {
        match character {
            '"' | '\\' => f.write_char('\\').and_then(|()| f.write_char(character))?,
            other if other.is_control() => write!(f, "{}", other.escape_default())?,
            other => f.write_char(other)?,
        }
    }
    f.write_str(query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_is_cut_between_characters() {
        let text = format!("{}{}", "x".repeat(199), "é".repeat(10));
        assert_eq!(shown(&text), format!("{}… (219 bytes)", "x".repeat(199)));
        assert_eq!(shown(&"x".repeat(200)), "x".repeat(200));
    }
}

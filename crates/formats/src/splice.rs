//! Changing a few spans of a document and nothing else: byte ranges in, bytes out. Also the JSON string escapes of such spans.
//!
//! Knows no format. Everything outside the replaced ranges is copied as it is (docs/reference/protocols/helm.md, section 3.8).

use std::borrow::Cow;
use std::convert::Infallible;
use std::ops::Range;

/// A part of a body that is put together from pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'p> {
    /// Stands so in the document that the body is made of.
    Copied(&'p [u8]),
    /// Stands in the place of something else.
    Written {
        /// The bytes.
        text: &'p [u8],
        /// Where they begin in [everything that is written](crate::Pieces::written).
        from: usize,
    },
}

impl<'p> Piece<'p> {
    /// Its bytes.
    pub fn bytes(self) -> &'p [u8] {
        match self {
            Self::Copied(text) | Self::Written { text, .. } => text,
        }
    }
}

/// Replacements of byte ranges of one document, in ascending order.
#[derive(Debug)]
pub(crate) struct Splicer<'a> {
    source: &'a [u8],
    /// Ranges of `source` and their replacements' ranges of `text`.
    edits: Vec<(Range<usize>, Range<usize>)>,
    text: String,
    removed: usize,
}

impl<'a> Splicer<'a> {
    /// Nothing is replaced yet.
    pub(crate) fn new(source: &'a [u8]) -> Self {
        Self {
            source,
            edits: Vec::new(),
            text: String::new(),
            removed: 0,
        }
    }

    /// Replaces `range` by `replacement`. A range that lies outside the document, or before the end of the one given last,
    /// is ignored: the text there stays as it was.
    pub(crate) fn replace(&mut self, range: Range<usize>, replacement: &str) {
        self.replace_with(range, |text| text.push_str(replacement));
    }

    /// As [`replace`](Self::replace), the replacement being appended by `write`, which must not touch what is there already.
    pub(crate) fn replace_with(&mut self, range: Range<usize>, write: impl FnOnce(&mut String)) {
        let last = self.edits.last().map_or(0, |(range, _)| range.end);
        if range.start < last || range.start > range.end || range.end > self.source.len() {
            return;
        }
        let start = self.text.len();
        write(&mut self.text);
        self.removed += range.len();
        self.edits.push((range, start..self.text.len()));
    }

    /// How long the edited document is, in bytes.
    pub(crate) fn length(&self) -> usize {
        self.source.len() - self.removed + self.text.len()
    }

    /// All replacements, one behind the other.
    pub(crate) fn written(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// Hands the edited document on, piece by piece.
    ///
    /// # Errors
    /// The first one of `take`, at which it ends.
    pub(crate) fn each<E>(
        &self,
        mut take: impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut copied = 0;
        for (range, replacement) in &self.edits {
            let before = self.source.get(copied..range.start).unwrap_or_default();
            take(Piece::Copied(before))?;
            take(Piece::Written {
                text: self.written().get(replacement.clone()).unwrap_or_default(),
                from: replacement.start,
            })?;
            copied = range.end;
        }
        take(Piece::Copied(self.source.get(copied..).unwrap_or_default()))
    }

    /// The edited document in one piece. Its capacity is its length.
    pub(crate) fn finish(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.length());
        let Ok(()) = self.each(|piece| {
            out.extend_from_slice(piece.bytes());
            Ok::<_, Infallible>(())
        });
        out
    }
}

/// The value of a JSON string, given the text between its quotes (RFC 8259 section 7); `None` if an escape is malformed or
/// half of a surrogate pair is missing.
pub(crate) fn json_unescape(inner: &str) -> Option<Cow<'_, str>> {
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str::<String>(&format!("\"{inner}\""))
        .ok()
        .map(Cow::Owned)
}

/// Appends `value` to `out` as the inside of a JSON string, without quotes.
pub(crate) fn json_escape_into(value: &str, out: &mut String) {
    if !value.bytes().any(|b| b < b' ' || matches!(b, b'"' | b'\\')) {
        out.push_str(value);
        return;
    }
    if let Ok(quoted) = serde_json::to_string(value) {
        out.push_str(quoted.get(1..quoted.len() - 1).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_only_the_given_ranges() {
        let mut splicer = Splicer::new(b"aa 111 bb 22 cc");
        splicer.replace(3..6, "one");
        splicer.replace(10..12, "twenty-two");
        let out = splicer.finish();
        assert_eq!(out, b"aa one bb twenty-two cc");
        assert_eq!(out.capacity(), out.len());
    }

    #[test]
    fn pieces_tell_what_is_copied_from_what_is_written() {
        let mut splicer = Splicer::new(b"aa 111 bb 22");
        splicer.replace(3..6, "one");
        splicer.replace(10..12, "two");
        assert_eq!(splicer.written(), b"onetwo");
        let mut seen = Vec::new();
        let Ok(()) = splicer.each(|piece| {
            let place = match piece {
                Piece::Copied(_) => None,
                Piece::Written { from, .. } => Some(from),
            };
            seen.push((String::from_utf8_lossy(piece.bytes()).into_owned(), place));
            Ok::<_, Infallible>(())
        });
        let expected = [
            ("aa ", None),
            ("one", Some(0)),
            (" bb ", None),
            ("two", Some(3)),
            ("", None),
        ];
        assert!(
            seen.iter()
                .map(|(text, place)| (text.as_str(), *place))
                .eq(expected)
        );
        assert_eq!(splicer.length(), splicer.finish().len());
    }

    #[test]
    fn an_untouched_document_is_copied() {
        assert_eq!(Splicer::new(b"abc").finish(), b"abc");
    }

    #[test]
    fn overlapping_and_outside_ranges_are_ignored() {
        let mut splicer = Splicer::new(b"abcdef");
        splicer.replace(2..4, "X");
        splicer.replace(3..5, "Y");
        splicer.replace(5..9, "Z");
        assert_eq!(splicer.finish(), b"abXef");
    }

    #[test]
    fn json_escapes_follow_rfc_8259() {
        assert_eq!(
            json_unescape(r"a\u0041\/\n\ud83d\ude00").as_deref(),
            Some("aA/\n\u{1f600}")
        );
        assert_eq!(json_unescape("plain").as_deref(), Some("plain"));
        assert_eq!(json_unescape(r"\ud83d"), None);
        assert_eq!(json_unescape(r"\x"), None);
        let mut out = String::new();
        json_escape_into("a\"b\\c\nd\u{1}/ä", &mut out);
        assert_eq!(out, "a\\\"b\\\\c\\nd\\u0001/ä");
    }
}

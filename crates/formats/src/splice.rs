//! Changing a few spans of a document and nothing else: byte ranges in, bytes out. Also the JSON string escapes of such spans.
//!
//! Knows no format. Everything outside the replaced ranges is copied as it is (docs/reference/protocols/helm.md, section 3.8).

use std::borrow::Cow;
use std::ops::Range;

/// Collects replacements of byte ranges of one document, in ascending order, then writes the result in one go.
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

    /// The edited document. Its capacity is its length.
    pub(crate) fn finish(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.source.len() - self.removed + self.text.len());
        let mut copied = 0;
        for (range, replacement) in &self.edits {
            out.extend_from_slice(self.source.get(copied..range.start).unwrap_or_default());
            out.extend_from_slice(
                self.text
                    .as_bytes()
                    .get(replacement.clone())
                    .unwrap_or_default(),
            );
            copied = range.end;
        }
        out.extend_from_slice(self.source.get(copied..).unwrap_or_default());
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

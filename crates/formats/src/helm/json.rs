//! An index in JSON. Helm takes a document for JSON if it is valid JSON, and parses it more leniently than YAML; a YAML parser
//! would refuse some of it (surrogate pairs in escapes).

use memchr::memchr2;
use serde::de::IgnoredAny;

use super::scan::{Kind, Sink, Span, Style};
use crate::Malformed;

/// Reads `text` if it is JSON; `false` if it is not, and then `sink` has got nothing.
pub(super) fn read(text: &str, sink: &mut impl Sink) -> Result<bool, Malformed> {
    if serde_json::from_str::<IgnoredAny>(text).is_err() {
        return Ok(false);
    }
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let from = at;
        at += 1;
        sink.tick()?;
        match byte {
            b'{' => sink.start(Kind::Mapping)?,
            b'[' => sink.start(Kind::Sequence)?,
            b'}' | b']' => sink.end(),
            b'"' => {
                at = closing_quote(bytes, at);
                sink.scalar(Span::new(from..at, Style::Double));
            }
            b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' => {}
            _ => {
                let ends = |b: &u8| matches!(b, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
                at = bytes
                    .get(at..)
                    .and_then(|rest| rest.iter().position(ends))
                    .map_or(bytes.len(), |length| at + length);
                sink.scalar(Span::new(from..at, Style::Plain));
            }
        }
    }
    Ok(true)
}

/// The offset after the quote that ends the string whose content starts at `at`. The document is known to be valid.
fn closing_quote(bytes: &[u8], mut at: usize) -> usize {
    while let Some(found) = bytes.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        at += found;
        if bytes.get(at) == Some(&b'"') {
            return at + 1;
        }
        at += 2;
    }
    bytes.len()
}

//! The values inside a JSON simple page: strings with their place in the text, hashes, flags that may be more than a flag.
//!
//! Knows the types that the Simple API allows for each. Knows no page.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::splice::json_unescape;

/// Deepest nesting that a page may have.
const MAX_DEPTH: usize = 64;
/// Most hashes of a file: they are compared with each other.
const MAX_HASHES: usize = 64;

/// Where `part`, a slice of `text`, stands in it.
pub(super) fn span_of(text: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr().addr().saturating_sub(text.as_ptr().addr());
    start..start + part.len()
}

/// Refuses a value, `above` levels down its page, that nests deeper than any index does.
pub(super) fn check_depth<E: de::Error>(value: &RawValue, above: usize) -> Result<(), E> {
    let mut depth = above;
    let bytes = value.get().as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => at = string_end(bytes, at),
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(E::custom(format_args!(
                "it nests more than {MAX_DEPTH} levels deep"
            )));
        }
        at += 1;
    }
    Ok(())
}

/// The closing quote of the string that opens at `open`, in text that is known to be valid JSON.
fn string_end(bytes: &[u8], open: usize) -> usize {
    let mut at = open + 1;
    while let Some(found) = bytes
        .get(at..)
        .and_then(|rest| memchr::memchr2(b'"', b'\\', rest))
    {
        at += found;
        if bytes.get(at) == Some(&b'"') {
            return at;
        }
        at += 2;
    }
    bytes.len()
}

/// The value of a raw JSON string; `None` if it is no string.
pub(super) fn string_of(raw: &RawValue) -> Option<Cow<'_, str>> {
    json_unescape(raw.get().strip_prefix('"')?.strip_suffix('"')?)
}

/// A string, borrowed where it holds no escapes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Text(Cow::Owned(text.to_owned())))
    }
}

/// `hashes`: algorithm names and hexadecimal digits, as stated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Hashes<'a>(pub(super) Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'de: 'a, 'a> Deserialize<'de> for Hashes<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(HashesVisitor)
    }
}

struct HashesVisitor;

impl<'de> Visitor<'de> for HashesVisitor {
    type Value = Hashes<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of hashes")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Hashes::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut hashes = Vec::with_capacity(1);
        while let Some((name, value)) = map.next_entry::<Text<'de>, Text<'de>>()? {
            if hashes.iter().any(|(known, _)| *known == name.0) {
                return Err(de::Error::custom(format_args!(
                    "the hash {:?} is stated twice",
                    name.0
                )));
            }
            if hashes.len() == MAX_HASHES {
                return Err(de::Error::custom(format_args!(
                    "more than {MAX_HASHES} hashes are stated"
                )));
            }
            hashes.push((name.0, value.0));
        }
        Ok(Hashes(hashes))
    }
}

/// `core-metadata`: whether the file's metadata can be had beside it, perhaps with its hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CoreMetadata<'a> {
    /// `false` or `null`.
    No,
    /// `true` or an object, which may be empty.
    Yes(Hashes<'a>),
}

impl<'de: 'a, 'a> Deserialize<'de> for CoreMetadata<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CoreMetadataVisitor)
    }
}

struct CoreMetadataVisitor;

impl<'de> Visitor<'de> for CoreMetadataVisitor {
    type Value = CoreMetadata<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a boolean or an object of hashes")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(CoreMetadata::No)
    }

    fn visit_bool<E>(self, yes: bool) -> Result<Self::Value, E> {
        Ok(if yes {
            CoreMetadata::Yes(Hashes::default())
        } else {
            CoreMetadata::No
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        HashesVisitor.visit_map(map).map(CoreMetadata::Yes)
    }
}

/// Whether a file is yanked, and why (PEP 592). The reason may be empty.
pub(super) fn yanked<E: de::Error>(raw: &RawValue) -> Result<Option<Cow<'_, str>>, E> {
    match raw.get() {
        "true" => Ok(Some(Cow::Borrowed(""))),
        "false" | "null" => Ok(None),
        // An empty reason is a reason: a yanked file must never lose its mark.
        _ => string_of(raw)
            .map(Some)
            .ok_or_else(|| E::custom("`yanked` is neither a boolean nor a string")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depth(text: &str, above: usize) -> Result<(), serde_json::Error> {
        check_depth(serde_json::from_str::<&RawValue>(text).unwrap(), above)
    }

    #[test]
    fn nesting_is_bounded_and_strings_do_not_nest() {
        assert!(depth(&format!("{}{}", "[".repeat(64), "]".repeat(64)), 0).is_ok());
        assert!(depth(&format!("{}{}", "[".repeat(65), "]".repeat(65)), 0).is_err());
        assert!(depth(&format!("{}{}", "[".repeat(63), "]".repeat(63)), 2).is_err());
        assert!(depth(&format!("\"{}\\\"[\\\\\"", "[".repeat(100)), 0).is_ok());
        assert!(depth("[[],[],[{\"a\":[\"]]]\"]}]]", 60).is_ok());
    }

    #[test]
    fn core_metadata_takes_every_legal_shape() {
        let read = |text| serde_json::from_str::<CoreMetadata<'_>>(text).ok();
        assert_eq!(read("true"), Some(CoreMetadata::Yes(Hashes::default())));
        assert_eq!(read("{}"), Some(CoreMetadata::Yes(Hashes::default())));
        assert_eq!(read("false"), Some(CoreMetadata::No));
        assert_eq!(read("null"), Some(CoreMetadata::No));
        assert_eq!(read("\"sha256=x\""), None);
        assert_eq!(read("{\"sha256\":1}"), None);
        assert_eq!(
            read("{\"sha256\":\"a\",\"sha\\u0032\\u0035\\u0036\":\"b\"}"),
            None
        );
    }

    #[test]
    fn a_file_has_only_so_many_hashes() {
        let hashes = |count: usize| {
            format!(
                "{{{}}}",
                (0..count)
                    .map(|n| format!("\"h{n}\":\"\""))
                    .collect::<Vec<_>>()
                    .join(",")
            )
        };
        assert!(serde_json::from_str::<Hashes<'_>>(&hashes(MAX_HASHES)).is_ok());
        assert!(serde_json::from_str::<Hashes<'_>>(&hashes(MAX_HASHES + 1)).is_err());
    }

    #[test]
    fn checklist_9_every_yank_counts() {
        let read = |text| {
            yanked::<serde_json::Error>(serde_json::from_str(text).unwrap())
                .map(|reason| reason.map(Cow::into_owned))
        };
        assert_eq!(read("true").unwrap().as_deref(), Some(""));
        assert_eq!(read("\"\"").unwrap().as_deref(), Some(""));
        assert_eq!(read("\"br\\u006fken\"").unwrap().as_deref(), Some("broken"));
        assert_eq!(read("false").unwrap(), None);
        assert_eq!(read("null").unwrap(), None);
        assert!(read("1").is_err());
    }
}

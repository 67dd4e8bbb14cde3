//! Field values as texts. Servers send octets above 127 in them (RFC 9110 section 5.5, `obs-text`): UTF-8, Latin-1 or neither, and nobody
//! says which. So each octet is one character of the same number, as the Fetch standard's "isomorphic decode" has it: nothing is
//! guessed, texts of ASCII stay what they are, and what is sent again is what came, byte for byte.

use std::borrow::Cow;

use http::HeaderValue;

/// A field's value as a text that [`field_value`] turns back into the same bytes.
pub fn field_text(value: &HeaderValue) -> Cow<'_, str> {
    match value.to_str() {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(
            value
                .as_bytes()
                .iter()
                .map(|&byte| char::from(byte))
                .collect(),
        ),
    }
}

/// The value that a text stands for; `None` if it is none (control characters, or a character that no octet stands for).
pub fn field_value(text: &str) -> Option<HeaderValue> {
    if text.is_ascii() {
        return HeaderValue::from_str(text).ok();
    }
    let bytes: Vec<u8> = text
        .chars()
        .map(|character| u8::try_from(character).ok())
        .collect::<Option<_>>()?;
    HeaderValue::try_from(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9110 section 5.5: field-vchar is VCHAR / obs-text, and obs-text is %x80-FF.
    #[test]
    fn every_legal_octet_comes_back_as_it_went() {
        let all: Vec<u8> = (0..=255)
            .filter(|byte| !matches!(byte, 0..=8 | 10..=31 | 127))
            .collect();
        for bytes in [
            &all[..],
            "attachment; filename=\"资.zip\"".as_bytes(),
            b"\"\xe9\xff\"",
            b"plain",
            b"",
        ] {
            let value = HeaderValue::from_bytes(bytes).unwrap();
            let text = field_text(&value);
            assert_eq!(field_value(&text).unwrap().as_bytes(), bytes);
            assert_eq!(
                serde_json::from_str::<String>(&serde_json::to_string(&text).unwrap()).unwrap(),
                text
            );
        }
    }

    #[test]
    fn what_no_field_can_hold_is_no_value() {
        for text in ["a\r\nb", "a\0b", "\u{e9}\n", "资", "a\u{7f}"] {
            assert_eq!(field_value(text), None, "{text:?}");
        }
    }
}

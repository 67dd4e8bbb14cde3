//! Statements with their values in them, as one message of the simple query protocol.
//!
//! A statement that is prepared and run in two messages needs both to reach the same server process. Behind a pooler that hands a
//! process to another client after each transaction they may not, and what then runs is what the other client has prepared
//! (docs/adr/0079). So values are written as literals, by the same rules as libpq's `PQescapeLiteral`: a text that a statement is
//! made of is a constant, a value is a number, hexadecimal digits, or a quoted text in which the two characters that could end it are
//! doubled.

use std::fmt::Write as _;

use super::super::{About, DbError, Value};
use crate::error::StorageErrorKind;

/// The statement with each `$n` replaced by the literal of the value `n`, counted from 1. A place without value stays as it is, which
/// the server refuses.
///
/// # Errors
/// A text holds the character zero. The server has no such texts, and a message ends for it there: it would answer to what follows as to
/// messages of their own, and nobody would know any more which answer is whose.
pub(super) fn with_values(
    statement: &'static str,
    values: &[Value<'_>],
) -> Result<String, DbError> {
    let is_cut = |value: &Value<'_>| matches!(value, Value::Text(text) if text.contains('\0'));
    if values.iter().any(is_cut) {
        return Err(DbError {
            kind: StorageErrorKind::Io,
            reason: "the metadata database has no texts with the character zero",
            about: About::Other,
            source: "a value holds the character zero".into(),
        });
    }
    let mut text = String::with_capacity(statement.len() + 64);
    let mut rest = statement;
    while let Some(at) = rest.find('$') {
        let (before, place) = rest.split_at(at);
        text.push_str(before);
        let digits = place[1..].bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = place[1..].split_at(digits);
        let value = number
            .parse::<usize>()
            .ok()
            .and_then(|number| values.get(number.checked_sub(1)?));
        match value {
            Some(value) => push_literal(&mut text, value),
            None => text.push_str(&place[..=digits]),
        }
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

fn push_literal(text: &mut String, value: &Value<'_>) {
    match value {
        Value::Null => text.push_str("NULL"),
        // A bare minus sign could meet another one, and two begin a comment.
        Value::Integer(number) => {
            let _ = write!(text, "'{number}'::bigint");
        }
        Value::Text(value) => push_quoted(text, value),
        Value::Bytes(bytes) => {
            text.reserve(bytes.len() * 2 + 20);
            text.push_str("decode('");
            for byte in &**bytes {
                let _ = write!(text, "{byte:02x}");
            }
            text.push_str("', 'hex')");
        }
    }
}

/// A literal that means the same whatever `standard_conforming_strings` is.
fn push_quoted(text: &mut String, value: &str) {
    let has_backslash = value.contains('\\');
    text.push_str(if has_backslash { " E'" } else { "'" });
    for character in value.chars() {
        if character == '\'' || character == '\\' {
            text.push(character);
        }
        text.push(character);
    }
    text.push('\'');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_take_the_places_of_their_numbers() {
        let values = [
            Value::from("it's"),
            Value::from(-5),
            Value::Null,
            Value::from(&[0_u8, 255][..]),
            Value::from("a\\'b"),
        ];
        // By the rules of https://www.postgresql.org/docs/15/sql-syntax-lexical.html#SQL-SYNTAX-STRINGS.
        assert_eq!(
            with_values(
                "a = $1 AND b - $2 > $2 OR c = $3 OR d = $4 OR e = $5;",
                &values
            )
            .unwrap(),
            "a = 'it''s' AND b - '-5'::bigint > '-5'::bigint OR c = NULL OR d = decode('00ff', 'hex') OR e =  E'a\\\\''b';"
        );
        assert_eq!(with_values("$1$10$", &values).unwrap(), "'it''s'$10$");
    }

    #[test]
    fn a_text_that_would_end_the_message_is_refused() {
        for (value, is_sent) in [
            (Value::from("a\0b"), false),
            (Value::from("\0"), false),
            (Value::from("a\u{1}b\\0"), true),
            (Value::from(&[0_u8][..]), true),
        ] {
            let text = with_values("$1", std::slice::from_ref(&value));
            assert_eq!(text.is_ok(), is_sent, "{value:?}");
            assert!(text.is_ok_and(|text| !text.contains('\0')) || !is_sent);
        }
    }
}

//! What a scalar's text means, and how to write another text in its place.

use std::borrow::Cow;
use std::ops::Range;

use super::scan::{Span, Style};
use super::shape::is_null;

impl Span {
    /// The value, and the range of the text that stands for it (without quotes and block header). `None` for a block of several
    /// lines, a malformed escape, or no value: none of these can be a URL, a digest or a date.
    pub(super) fn decode(self, text: &str) -> Option<(Range<usize>, Cow<'_, str>)> {
        let range = self.range();
        let inner = match self.style {
            Style::Plain => range,
            Style::Single | Style::Double => range.start + 1..range.end.checked_sub(1)?,
            Style::Block => return block_line(text, range),
        };
        let raw = text.get(inner.clone())?;
        if self.style == Style::Plain && is_null(raw) {
            return None;
        }
        let line = folded(raw, self.style)?;
        let value = match self.style {
            Style::Single if line.contains('\'') => Cow::Owned(line.replace("''", "'")),
            Style::Double if line.contains('\\') => Cow::Owned(unescape(&line)?),
            _ => line,
        };
        Some((inner, value))
    }

    /// Appends the text made of `parts`, which holds no white space, control character or backslash, in the form that it must
    /// have in the place of [`decode`](Self::decode)'s range.
    pub(super) fn encode_into(self, parts: &[&str], out: &mut String) {
        // Inside `[…]` these characters would end a plain text. Double quotes are good everywhere.
        let quote =
            if self.style == Style::Plain && parts.iter().any(|part| has_flow_indicator(part)) {
                "\""
            } else {
                ""
            };
        let double = self.style == Style::Single && parts.iter().any(|part| part.contains('\''));
        out.push_str(quote);
        for part in parts {
            if double {
                out.push_str(&part.replace('\'', "''"));
            } else {
                out.push_str(part);
            }
        }
        out.push_str(quote);
    }
}

/// Without a branch per byte: most texts have none.
fn has_flow_indicator(text: &str) -> bool {
    text.bytes().fold(false, |found, b| {
        found | matches!(b, b',' | b'[' | b']' | b'{' | b'}')
    })
}

/// White space within a line.
const BLANKS: [char; 2] = [' ', '\t'];

/// A text over several lines on one, its escapes undone later (YAML 1.2 sections 6.5 and 7.3): a line break is a space, and as many as are
/// more than one are line breaks. `None` for a line break that not all readers know.
fn folded(raw: &str, style: Style) -> Option<Cow<'_, str>> {
    if !raw.contains(['\n', '\r']) {
        return Some(Cow::Borrowed(raw));
    }
    let mut text = String::with_capacity(raw.len());
    let (mut empty_lines, mut joins) = (0, false);
    let last = raw.matches('\n').count();
    for (at, line) in raw.split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.contains('\r') {
            return None;
        }
        let line = if at == 0 {
            line
        } else {
            line.trim_start_matches(BLANKS)
        };
        let (line, escapes_break) = match style {
            _ if at == last => (line, false),
            Style::Double => end_of_line(line),
            _ => (line.trim_end_matches(BLANKS), false),
        };
        if at > 0 {
            if line.is_empty() && !escapes_break && at < last {
                empty_lines += 1;
                continue;
            }
            text.extend(std::iter::repeat_n('\n', empty_lines));
            text.push_str(if empty_lines == 0 && !joins { " " } else { "" });
        }
        text.push_str(line);
        (empty_lines, joins) = (0, escapes_break);
    }
    Some(Cow::Owned(text))
}

/// A line within double quotes without the blanks at its end, and whether its line break is escaped. A blank may be escaped, too.
fn end_of_line(line: &str) -> (&str, bool) {
    let text = line.trim_end_matches(BLANKS);
    let slashes = text.bytes().rev().take_while(|byte| *byte == b'\\').count();
    if slashes % 2 == 0 {
        return (text, false);
    }
    match line.get(..=text.len()) {
        Some(with_blank) => (with_blank, false),
        None => (text.strip_suffix('\\').unwrap_or(text), true),
    }
}

/// The one line of a block scalar whose value is that line: without a final line break, because its header says so (`>-`, `|2-`, `|- # …`)
/// or because the document ends there.
fn block_line(text: &str, range: Range<usize>) -> Option<(Range<usize>, Cow<'_, str>)> {
    let body = text.get(range.clone())?;
    let line = body.trim_ascii();
    let start = range.start + body.len() - body.trim_ascii_start().len();
    let before = text.get(..start)?.trim_end_matches(' ');
    let header = before.strip_suffix('\n')?.rsplit('\n').next()?;
    let is_cut = range.end == text.len() && !text.trim_end_matches(' ').ends_with(['\n', '\r']);
    let strips = block_indicators(header)?.contains('-') || is_cut;
    let single = !line.is_empty() && !line.contains(['\n', '\r']);
    (strips && single).then(|| (start..start + line.len(), Cow::Borrowed(line)))
}

/// What a block scalar's header says behind its `|` or `>`, in the line that it ends, with or without a comment.
fn block_indicators(line: &str) -> Option<&str> {
    let comment = [" #", "\t#"].into_iter().filter_map(|sign| line.find(sign));
    let header = line.get(..comment.min().unwrap_or(line.len()))?;
    let token = header.trim_ascii_end().rsplit(BLANKS).next()?;
    let indicators = token.strip_prefix(['|', '>'])?;
    let is_one = |c: char| matches!(c, '+' | '-' | '1'..='9');
    indicators.chars().all(is_one).then_some(indicators)
}

/// Whether a text in double quotes has the escape `\/`, which JSON and YAML 1.2 know and Helm's reader of YAML refuses.
pub(super) fn has_slash_escape(raw: &str) -> bool {
    let mut is_escaped = false;
    raw.bytes().any(|byte| {
        let found = is_escaped && byte == b'/';
        is_escaped = byte == b'\\' && !is_escaped;
        found
    })
}

/// Undoes the escapes of a double-quoted scalar on one line (YAML 1.2 section 5.7), JSON's surrogate pairs included.
fn unescape(raw: &str) -> Option<String> {
    let mut value = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((before, after)) = rest.split_once('\\') {
        value.push_str(before);
        let mut chars = after.chars();
        let plain = match chars.next()? {
            '0' => '\0',
            'a' => '\x07',
            'b' => '\x08',
            't' | '\t' => '\t',
            'n' => '\n',
            'v' => '\x0b',
            'f' => '\x0c',
            'r' => '\r',
            'e' => '\x1b',
            same @ (' ' | '"' | '/' | '\\') => same,
            'N' => '\u{85}',
            '_' => '\u{a0}',
            'L' => '\u{2028}',
            'P' => '\u{2029}',
            width @ ('x' | 'u' | 'U') => {
                let (character, used) = code_point(chars.as_str(), width)?;
                value.push(character);
                rest = chars.as_str().get(used..)?;
                continue;
            }
            _ => return None,
        };
        value.push(plain);
        rest = chars.as_str();
    }
    value.push_str(rest);
    Some(value)
}

/// The character that the digits after `\x`, `\u` or `\U` stand for, and how many bytes they take.
fn code_point(digits: &str, width: char) -> Option<(char, usize)> {
    let length = match width {
        'x' => 2,
        'u' => 4,
        _ => 8,
    };
    let hex = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_hexdigit())
            .then(|| u32::from_str_radix(text, 16).ok())
            .flatten()
    };
    let high = hex(digits.get(..length)?)?;
    if width == 'u' && (0xd800..0xe000).contains(&high) {
        let second = digits.get(4..).and_then(|rest| rest.strip_prefix("\\u"));
        let low = second.and_then(|rest| hex(rest.get(..4)?));
        let pair = low.and_then(|low| char::decode_utf16([high as u16, low as u16]).next()?.ok());
        // In JSON alone, for no reader of YAML takes either half. What is none of a pair is a mark there, as it is to Helm.
        return Some(pair.map_or((char::REPLACEMENT_CHARACTER, 4), |pair| (pair, 10)));
    }
    Some((char::from_u32(high)?, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str, style: Style) -> Option<String> {
        Span::new(0..text.len(), style)
            .decode(text)
            .map(|(_, value)| value.into_owned())
    }

    #[test]
    fn each_style_has_its_value() {
        assert_eq!(value("a/b.tgz", Style::Plain).as_deref(), Some("a/b.tgz"));
        assert_eq!(value("'it''s'", Style::Single).as_deref(), Some("it's"));
        assert_eq!(
            value(r#""a\/b\x2Bc\u002bd\U0000002b""#, Style::Double).as_deref(),
            Some("a/b+c+d+")
        );
        assert_eq!(
            value(r#""\ud83d\ude00""#, Style::Double).as_deref(),
            Some("\u{1f600}")
        );
        // Halves of pairs, as Go's reader of JSON takes them.
        for text in [r#""a\ud83d""#, r#""a\ude00""#, r#""a\uDFFF""#] {
            assert_eq!(value(text, Style::Double).as_deref(), Some("a\u{fffd}"));
        }
        assert_eq!(
            value(r#""\ud83d\ud83d\ude00\ud83dx\ud83d\u0041""#, Style::Double).as_deref(),
            Some("\u{fffd}\u{1f600}\u{fffd}x\u{fffd}A")
        );
    }

    /// The examples 7.5 to 7.12 of YAML 1.2.2, as far as they are about line breaks, and what Helm's reader makes of the rest.
    #[test]
    fn a_text_over_several_lines_is_folded() {
        for (text, style, expected) in [
            (
                "\"folded \nto a space,\t\n \nto a line feed, or \t\\\n \\ \tnon-content\"",
                Style::Double,
                "folded to a space,\nto a line feed, or \t \tnon-content",
            ),
            (
                "\" 1st non-empty\n\n 2nd non-empty \n\t3rd non-empty \"",
                Style::Double,
                " 1st non-empty\n2nd non-empty 3rd non-empty ",
            ),
            (
                "' 1st non-empty\n\n 2nd non-empty \n\t3rd non-empty '",
                Style::Single,
                " 1st non-empty\n2nd non-empty 3rd non-empty ",
            ),
            (
                "1st non-empty\n\n 2nd non-empty \n\t3rd non-empty",
                Style::Plain,
                "1st non-empty\n2nd non-empty 3rd non-empty",
            ),
            ("\"fo\\\r\n      ld\"", Style::Double, "fold"),
            ("\"a\\\n\n\n  b\"", Style::Double, "a\n\nb"),
            ("\"a\\ \n  b\"", Style::Double, "a  b"),
            ("\"a\\\\\n  b\"", Style::Double, "a\\ b"),
            ("'it''s\n  one'", Style::Single, "it's one"),
            ("\"a\n  \"", Style::Double, "a "),
        ] {
            assert_eq!(value(text, style).as_deref(), Some(expected), "{text:?}");
        }
    }

    #[test]
    fn a_block_of_one_line_without_line_break_has_a_value() {
        let value = |text: &str| {
            let start = text.find('x').unwrap();
            Span::new(start..text.len(), Style::Block)
                .decode(text)
                .map(|(range, _)| text[range].to_owned())
        };
        assert_eq!(value("- >-\n    x.tgz\n").as_deref(), Some("x.tgz"));
        for text in [
            "|-  \n  x\n",
            "|- # a comment\n  x\n",
            "- &a !!str |1-\n  x\n",
            "a: >-2\t# |\r\n   x\r\n",
            "|\n  x",
            "|+\n  x",
        ] {
            assert_eq!(value(text).as_deref(), Some("x"), "{text:?}");
        }
        for text in [
            "|\n  x\n",
            "|+\n  x\n",
            "|1+\n  x\n",
            ">-\n  x\n  y\n",
            "|-\n\n  x\n",
            "| # >-\n  x\n",
            "|\n  x\n  ",
        ] {
            assert_eq!(value(text), None, "{text:?}");
        }
    }

    #[test]
    fn what_cannot_be_a_url_has_none() {
        for (text, style) in [
            ("", Style::Plain),
            ("~", Style::Plain),
            ("null", Style::Plain),
            ("'a\rb'", Style::Single),
            (r#""\.tgz""#, Style::Double),
            (r#""\x2""#, Style::Double),
            (r#""\x+2""#, Style::Double),
            ("\"", Style::Double),
        ] {
            assert_eq!(value(text, style), None, "{text:?}");
        }
    }

    #[test]
    fn an_escaped_slash_is_told_from_one_behind_a_backslash() {
        assert!(has_slash_escape(r#""a\/b""#));
        assert!(has_slash_escape(r#""\\\/""#));
        assert!(!has_slash_escape(r#""a\\/b""#));
        assert!(!has_slash_escape(r#""a/b\n""#));
    }

    #[test]
    fn replacements_keep_the_style_legal() {
        let encode = |value: &str, style| {
            let mut out = String::new();
            Span::new(0..0, style).encode_into(&[value], &mut out);
            out
        };
        assert_eq!(
            encode("https://h.example/x", Style::Plain),
            "https://h.example/x"
        );
        assert_eq!(encode("http://[::1]/x", Style::Plain), "\"http://[::1]/x\"");
        assert_eq!(encode("http://[::1]/x", Style::Double), "http://[::1]/x");
        assert_eq!(encode("h/it's", Style::Single), "h/it''s");
    }
}

//! The one leniency of larder's YAML: `"\.tgz$"`, as existing files write it.
//!
//! A backslash inside double quotes must start a YAML escape, and `\.` is none. Every strict parser refuses such a file.
//! Only when the parser has refused a scalar for that reason, each backslash in it whose next character starts no legal
//! escape is doubled, so that the text means what its author saw. Legal escapes keep their YAML meaning.

/// A refused scalar and its repair.
pub(super) struct Repair {
    /// The whole source with the scalar repaired.
    pub(super) source: String,
    /// The scalar as it stood, with its quotes.
    pub(super) written: String,
    /// The scalar as it should stand.
    pub(super) corrected: String,
    /// The first illegal escape, such as `\.`.
    pub(super) escape: String,
}

/// What may follow a backslash inside double quotes (YAML 1.2.2 section 5.7); a line break may, too.
const LEGAL: &str = "0abt\tnvfre \"/\\N_LPxuU\n\r";

/// Repairs the double-quoted scalar at `line` (from 1) and `column` (from 0, in characters); `None` if there is none, or nothing to mend.
pub(super) fn repair(source: &str, line: usize, column: usize) -> Option<Repair> {
    let start = offset(source, line, column)?;
    let inner = source.get(start..)?.strip_prefix('"')?;
    let mut corrected = String::from("\"");
    let mut escape = None;
    let mut chars = inner.char_indices();
    let length = loop {
        let (at, c) = chars.next()?;
        corrected.push(c);
        if c == '"' {
            break at + 2;
        }
        if c != '\\' {
            continue;
        }
        let (_, next) = chars.next()?;
        if !LEGAL.contains(next) {
            corrected.push('\\');
            escape.get_or_insert(format!("\\{next}"));
        }
        corrected.push(next);
    };
    let written = source[start..start + length].to_owned();
    let source = [&source[..start], &corrected, &source[start + length..]].concat();
    escape.map(|escape| Repair {
        source,
        written,
        corrected,
        escape,
    })
}

/// Byte offset of a position. Lines end as in YAML: LF, CR LF or CR.
fn offset(source: &str, line: usize, column: usize) -> Option<usize> {
    let bytes = source.as_bytes();
    let mut start = 0;
    for _ in 1..line {
        let end = start
            + bytes
                .get(start..)?
                .iter()
                .position(|b| matches!(b, b'\n' | b'\r'))?;
        start = if bytes[end] == b'\r' && bytes.get(end + 1) == Some(&b'\n') {
            end + 2
        } else {
            end + 1
        };
    }
    let (at, _) = source[start..].char_indices().nth(column)?;
    Some(start + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_only_illegal_backslashes_of_that_scalar() {
        let source = "a: 'x\\.y'\r\nb: [ \"ü\", \"\\.t\\\\.gz\\\"\\d$\" ] # \"\\.\"\n";
        let made = repair(source, 2, 10).unwrap();
        assert_eq!(made.written, r#""\.t\\.gz\"\d$""#);
        assert_eq!(made.corrected, r#""\\.t\\.gz\"\\d$""#);
        assert_eq!(made.escape, "\\.");
        assert_eq!(
            made.source,
            "a: 'x\\.y'\r\nb: [ \"ü\", \"\\\\.t\\\\.gz\\\"\\\\d$\" ] # \"\\.\"\n"
        );
    }

    #[test]
    fn nothing_to_mend() {
        assert!(repair("a: \"\\n\"", 1, 3).is_none(), "a legal escape");
        assert!(repair("a: '\\.'", 1, 3).is_none(), "single quotes");
        assert!(repair("a: \"\\.", 1, 3).is_none(), "no end");
        assert!(repair("a: \"\\", 1, 3).is_none(), "ends within an escape");
        assert!(repair("a", 7, 3).is_none(), "no such line");
    }
}

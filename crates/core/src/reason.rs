//! The reason phrase of HTTP/1.1: what a client prints that shows no body (pip, npm, helm, twine). RFC 9112 section 4 allows any
//! visible text there; what is written here cannot end the line, for only printable ASCII is left of it.

use crate::error::Fault;

/// Longest reason phrase, in bytes (contract, section 1).
pub const MAX_REASON: usize = 120;
/// The mark of a sentence that is cut.
const CUT: &str = "...";
/// No sentence is cut to less than this for the sake of its end at a comma or colon.
const LEAST: usize = 30;

/// A fault in at most 120 printable ASCII bytes: its message, cut after a part of a sentence or after a word, and the rule that
/// decided where the message does not name it.
///
/// ```
/// use larder_core::{ErrorCode, Fault, FaultKind, reason_phrase};
///
/// let fault = Fault::new(FaultKind::NotFound, ErrorCode::Quarantined, "Quarantined until 2026-12-01")
///     .by_rule("quarantine_new");
/// assert_eq!(reason_phrase(&fault), "Quarantined until 2026-12-01 (rule quarantine_new)");
/// ```
pub fn reason_phrase(fault: &Fault) -> String {
    let brief = fault
        .detail
        .as_ref()
        .and_then(|detail| detail.brief.as_deref());
    let text = plain(brief.unwrap_or(&fault.message));
    // What the upstream did, or what a path may be, is no rule that somebody could look up and change.
    let rule = fault
        .rule
        .as_deref()
        .map(plain)
        .filter(|rule| !matches!(&**rule, "" | "upstream" | "paths" | "via"));
    let rule = rule.map_or_else(String::new, |rule| format!(" (rule {rule})"));
    let room = MAX_REASON.saturating_sub(rule.len());
    if room < LEAST || text.contains(rule.trim_start()) && !rule.is_empty() {
        return cut(&text, MAX_REASON);
    }
    let mut phrase = cut(&text, room);
    phrase.push_str(&rule);
    phrase
}

/// The text in printable ASCII, each run of white space a space, and everything else that cannot be shown a question mark.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len().min(2 * MAX_REASON));
    for character in text.trim().chars() {
        match character {
            ' '..='~' if character != ' ' => plain.push(character),
            '…' => plain.push_str(CUT),
            _ if character.is_whitespace() => {
                if !plain.ends_with(' ') {
                    plain.push(' ');
                }
            }
            _ => plain.push('?'),
        }
    }
    plain
}

fn cut(text: &str, room: usize) -> String {
    if text.len() <= room {
        return text.to_owned();
    }
    let within = &text[..room];
    let part = ["; ", ". "]
        .iter()
        .filter_map(|end| within.rfind(end))
        .max()
        .filter(|end| *end >= LEAST);
    if let Some(end) = part {
        return within[..end].to_owned();
    }
    let within = &text[..room - CUT.len()];
    let whole_word = text[within.len()..].starts_with(' ');
    let end = if whole_word {
        within.len()
    } else {
        within
            .rfind(' ')
            .filter(|end| *end >= LEAST)
            .unwrap_or(within.len())
    };
    format!(
        "{}{CUT}",
        within[..end].trim_end_matches([' ', ',', ':', ';'])
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::FaultKind;

    fn fault(message: &str) -> Fault {
        Fault::new(
            FaultKind::Forbidden,
            crate::ErrorCode::PatternDenied,
            message,
        )
    }

    #[test]
    fn a_short_sentence_is_said_whole_with_its_rule() {
        assert_eq!(reason_phrase(&fault("no")), "no");
        assert_eq!(
            reason_phrase(&fault("no").by_rule("deny_patterns")),
            "no (rule deny_patterns)"
        );
        assert_eq!(
            reason_phrase(&fault("the upstream answered 503").by_rule("upstream")),
            "the upstream answered 503"
        );
        assert_eq!(
            reason_phrase(&fault("a long story").briefly("short").by_rule("r")),
            "short (rule r)"
        );
    }

    #[test]
    fn a_long_one_ends_after_a_part_of_a_sentence_or_after_a_word() {
        let parts = format!(
            "repository files has no such file today; {}",
            "ask somebody else ".repeat(20)
        );
        assert_eq!(
            reason_phrase(&fault(&parts)),
            "repository files has no such file today"
        );
        let words = "word ".repeat(60);
        let cut = reason_phrase(&fault(&words).by_rule("offline"));
        assert!(
            cut.ends_with("word... (rule offline)") && cut.len() <= 120 && cut.len() > 110,
            "{cut}"
        );
        for length in 100..140 {
            let text = "x".repeat(length);
            let said = reason_phrase(&fault(&text));
            assert_eq!(said.len(), length.min(120));
            assert_eq!(said.ends_with("..."), length > 120);
        }
    }

    #[test]
    fn nothing_that_could_end_the_line_or_is_not_ascii_is_left() {
        for hostile in [
            "a\r\nSet-Cookie: x=1\r\n\r\n<b>",
            "a\u{b}b\0c\u{7f}",
            "é\u{2028}\u{85}ü",
            "\u{1b}[31mred",
            &"é".repeat(300),
        ] {
            for message in [hostile.to_owned(), format!("{}{hostile}", "y".repeat(115))] {
                let said = reason_phrase(&fault(&message).by_rule(hostile));
                assert!(!said.is_empty() && said.len() <= 120, "{said:?}");
                assert!(
                    said.bytes().all(|byte| (0x20..0x7f).contains(&byte)),
                    "{said:?}"
                );
            }
        }
        assert_eq!(
            reason_phrase(&fault("tool-é.tgz\r\nX: y")),
            "tool-?.tgz X: y"
        );
    }
}

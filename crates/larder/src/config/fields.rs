//! Typed reading of the tree: each reader gives a value or reports what is wrong and where.
//!
//! Quoting does not matter for numbers and truth values, as it did not for the readers of existing files. A key with nothing
//! behind it counts as absent. Values are named in messages only where they cannot be secrets.

use std::time::Duration;

use super::diagnostic::{Place, Report};
use super::hints;
use super::node::{Entry, Node, Value};
use super::schema;
use super::yaml_hints::missing_space;

/// A mapping whose keys have been checked.
pub(super) struct Section<'a> {
    /// Path for messages, such as `remotes.npm.cache`; empty at the top.
    name: String,
    entries: &'a [Entry],
}

/// Longest duration: 100 years. More would overflow somewhere later.
const MAX_SECONDS: u64 = 100 * 366 * 86_400;

impl<'a> Section<'a> {
    /// Opens a mapping and reports every key that is not in `known`. Something that is no mapping reads as an empty one.
    pub(super) fn open(
        node: &'a Node,
        name: impl Into<String>,
        known: &[&str],
        report: &mut Report,
    ) -> Self {
        let name = name.into();
        if !matches!(node.value, Value::Map(_) | Value::Null) {
            let hint = match &node.value {
                Value::Scalar { text, .. } => {
                    missing_space(text, known).map(|hint| format!(": {hint}"))
                }
                _ => None,
            };
            report.error(
                &node.place,
                format!(
                    "`{name}` must be a mapping, but is {}{}",
                    node.kind(),
                    hint.unwrap_or_default()
                ),
            );
        }
        Self::of_entries(node.entries(), name, known, report)
    }

    /// The same for entries that were put together from several files.
    pub(super) fn of_entries(
        entries: &'a [Entry],
        name: impl Into<String>,
        known: &[&str],
        report: &mut Report,
    ) -> Self {
        let name = name.into();
        for entry in entries
            .iter()
            .filter(|entry| !known.contains(&entry.key.as_str()))
        {
            let within = if name.is_empty() {
                String::new()
            } else {
                format!(" in `{name}`")
            };
            report.error(
                &entry.place,
                format!(
                    "unknown key `{}`{within}: {}",
                    entry.key,
                    hints::of_key(&entry.key, known)
                ),
            );
        }
        Self { name, entries }
    }

    /// Whether one of its keys that are not in `known` is `key` with a slip of the pen.
    pub(super) fn misspells(&self, key: &str, known: &[&str]) -> bool {
        let keys = self.entries.iter().map(|entry| entry.key.as_str());
        keys.filter(|own| !known.contains(own))
            .any(|own| hints::nearest(own, known.iter().copied()) == Some(key))
    }

    /// The top level, whose unknown keys may be repositories that stand too high.
    pub(super) fn top(entries: &'a [Entry], report: &mut Report) -> Self {
        for entry in entries
            .iter()
            .filter(|entry| !schema::TOP.contains(&entry.key.as_str()))
        {
            report.error(
                &entry.place,
                format!("unknown key `{}`: {}", entry.key, hints::of_top(entry)),
            );
        }
        Self {
            name: String::new(),
            entries,
        }
    }

    /// `name.key`, for messages.
    pub(super) fn path(&self, key: &str) -> String {
        if self.name.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.name)
        }
    }

    /// The value of a key, if there is one.
    pub(super) fn node(&self, key: &str) -> Option<&'a Node> {
        self.entries
            .iter()
            .find(|e| e.key == key)
            .map(|e| &e.node)
            .filter(|node| !matches!(node.value, Value::Null))
    }

    /// Where a key stands, even with nothing behind it.
    pub(super) fn key_place(&self, key: &str) -> Option<&'a Place> {
        self.entries.iter().find(|e| e.key == key).map(|e| &e.place)
    }

    /// A mapping below this one.
    pub(super) fn section(
        &self,
        key: &str,
        known: &[&str],
        report: &mut Report,
    ) -> Option<Section<'a>> {
        self.node(key)
            .map(|node| Section::open(node, self.path(key), known, report))
    }

    /// A text.
    pub(super) fn text(&self, key: &str, report: &mut Report) -> Option<(&'a str, &'a Place)> {
        let node = self.node(key)?;
        text_of(node, &self.path(key), report).map(|text| (text, &node.place))
    }

    /// A truth value, in any of the spellings of YAML 1.1.
    pub(super) fn truth(&self, key: &str, report: &mut Report) -> Option<bool> {
        let (text, place) = self.text(key, report)?;
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Some(true),
            "false" | "no" | "off" => Some(false),
            _ => {
                report.error(place, format!("`{}` must be true or false", self.path(key)));
                None
            }
        }
    }

    /// A whole number within bounds.
    pub(super) fn number(
        &self,
        key: &str,
        least: u64,
        most: u64,
        report: &mut Report,
    ) -> Option<u64> {
        let (text, place) = self.text(key, report)?;
        let number = text
            .parse::<u64>()
            .ok()
            .filter(|n| (least..=most).contains(n));
        if number.is_none() {
            report.error(
                place,
                format!(
                    "`{}` must be a whole number from {least} to {most}",
                    self.path(key)
                ),
            );
        }
        number
    }

    /// A duration in seconds: whole numbers only.
    pub(super) fn seconds(&self, key: &str, least: u64, report: &mut Report) -> Option<Duration> {
        self.seconds_up_to(key, least, MAX_SECONDS, report)
    }

    /// The same, with a most of its own.
    pub(super) fn seconds_up_to(
        &self,
        key: &str,
        least: u64,
        most: u64,
        report: &mut Report,
    ) -> Option<Duration> {
        let (text, place) = self.text(key, report)?;
        let number = text
            .parse::<u64>()
            .ok()
            .filter(|n| (least..=most).contains(n));
        if number.is_none() {
            let bounds =
                format!("a whole number of seconds from {least} to {most}, without a unit");
            let meant = seconds_meant(text)
                .map_or_else(String::new, |seconds| format!(": {text} is {seconds}"));
            let meant = if key == "immutable_ttl" && text == "-1" {
                ": for ever is 0".to_owned()
            } else {
                meant
            };
            report.error(
                place,
                format!("`{}` must be {bounds}{meant}", self.path(key)),
            );
        }
        number.map(Duration::from_secs)
    }

    /// A size in bytes: a whole number, or one with a unit (`64MiB`, `2 GB`).
    pub(super) fn size(&self, key: &str, report: &mut Report) -> Option<u64> {
        let (text, place) = self.text(key, report)?;
        let size = parse_size(text);
        if size.is_none() {
            report.error(
                place,
                format!(
                    "`{}` must be a number of bytes, or one with a unit such as 64MiB or 2GB",
                    self.path(key)
                ),
            );
        }
        size
    }

    /// One of a few words; the nearest is named when it is none of them.
    pub(super) fn word<T: Copy>(
        &self,
        key: &str,
        words: &[(&str, T)],
        report: &mut Report,
    ) -> Option<T> {
        let (text, place) = self.text(key, report)?;
        let found = words
            .iter()
            .find(|(word, _)| *word == text)
            .map(|(_, value)| *value);
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let hint = hints::of_value(key, text, &known);
            report.error(
                place,
                format!(
                    "`{}` is one of {}, not {text:?}{hint}",
                    self.path(key),
                    known.join(", ")
                ),
            );
        }
        found
    }

    /// The items of a list of texts. Nothing where a list is expected is an error: an empty list is written `[]`.
    pub(super) fn list(&self, key: &str, report: &mut Report) -> Option<Vec<(&'a str, &'a Place)>> {
        let entry = self.entries.iter().find(|e| e.key == key)?;
        let Value::List(items) = &entry.node.value else {
            let path = self.path(key);
            report.error(
                &entry.node.place,
                format!(
                    "`{path}` must be a list, but is {}: write `{key}: [ … ]`",
                    entry.node.kind()
                ),
            );
            return None;
        };
        let path = format!("an item of {}", self.path(key));
        Some(
            items
                .iter()
                .filter_map(|item| text_of(item, &path, report).map(|text| (text, &item.place)))
                .collect(),
        )
    }

    /// One text or a list of texts.
    pub(super) fn one_or_more(
        &self,
        key: &str,
        report: &mut Report,
    ) -> Option<Vec<(&'a str, &'a Place)>> {
        match self.node(key)?.value {
            Value::List(_) => self.list(key, report),
            _ => self.text(key, report).map(|one| vec![one]),
        }
    }
}

fn text_of<'n>(node: &'n Node, path: &str, report: &mut Report) -> Option<&'n str> {
    let Value::Scalar { text, .. } = &node.value else {
        report.error(
            &node.place,
            format!("`{path}` must be a single value, but is {}", node.kind()),
        );
        return None;
    };
    Some(text)
}

/// What a duration with a unit (`10m`, `1 hour`, `7d`) is in seconds.
fn seconds_meant(text: &str) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number: u64 = text[..digits].parse().ok()?;
    let unit = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "s" | "sec" | "secs" | "second" | "seconds" => 1,
        "m" | "min" | "mins" | "minute" | "minutes" => 60,
        "h" | "hour" | "hours" => 3_600,
        "d" | "day" | "days" => 86_400,
        "w" | "week" | "weeks" => 7 * 86_400,
        _ => return None,
    };
    number.checked_mul(unit)
}

/// Bytes a second, written as sizes are.
///
/// # Errors
/// It is none, or nothing, in a sentence for users.
pub fn parse_rate(text: &str) -> Result<u64, String> {
    let rate = parse_size(text).filter(|rate| *rate > 0);
    rate.ok_or_else(|| format!("{text:?} is no number of bytes; it may have a unit, such as 50MiB"))
}

/// Bytes, from `1048576`, `1MiB`, `1 MiB`, `1MB`, `1M` (decimal without the `i`).
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number: u64 = text[..digits].parse().ok()?;
    let unit: u64 = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1000,
        "m" | "mb" => 1000_u64.pow(2),
        "g" | "gb" => 1000_u64.pow(3),
        "t" | "tb" => 1000_u64.pow(4),
        "ki" | "kib" => 1 << 10,
        "mi" | "mib" => 1 << 20,
        "gi" | "gib" => 1 << 30,
        "ti" | "tib" => 1 << 40,
        _ => return None,
    };
    number
        .checked_mul(unit)
        .filter(|bytes| i64::try_from(*bytes).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_with_a_unit_are_told_in_seconds() {
        for (text, want) in [
            ("10m", Some(600)),
            ("1 hour", Some(3600)),
            ("7d", Some(604_800)),
            ("30s", Some(30)),
            ("-1", None),
            ("1.5h", None),
            ("", None),
        ] {
            assert_eq!(seconds_meant(text), want, "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, want) in [
            ("0", Some(0)),
            ("64MiB", Some(67_108_864)),
            ("2 GB", Some(2_000_000_000)),
            ("1k", Some(1000)),
            ("1.5GiB", None),
            ("MiB", None),
            ("-1", None),
            ("99999999TiB", None),
        ] {
            assert_eq!(parse_size(text), want, "{text}");
        }
    }
}

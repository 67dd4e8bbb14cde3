//! The names of all charts in an index: the keys of `entries` that have anything, by which Helm looks charts up, and what the versions call
//! themselves. Whether larder or Helm could make use of a version is no question here: its name is somebody's all the same.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::scan::{Kind, Sink, Span, Style, check_depth};
use super::shape::is_null;
use super::{events, index, json, lines, normal};
use crate::Malformed;

/// All names in an index.
pub(super) fn of(body: &[u8]) -> Result<HashSet<String>, Malformed> {
    let text = index::text_of(body)?;
    let mut names = Names::new(text);
    if text.trim_ascii_start().starts_with('{') && json::read(text, &mut names)? {
        return names.finish();
    }
    if !normal::has_odd(text) && lines::read(text, &mut names)? {
        return names.finish();
    }
    let mut names = Names::new(text);
    events::read(text, &mut names)?;
    names.finish()
}

/// Which part of the index a collection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Root,
    Entries,
    Versions,
    Version,
    Other,
}

/// The key whose value comes next, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Key {
    Entries,
    /// A chart's, in `entries`.
    Chart(String),
    Name,
    /// `<<`, whose mapping, or each of a list of them, has keys of the mapping that it stands in.
    Merge,
    Other,
}

#[derive(Debug)]
struct Open {
    part: Part,
    is_mapping: bool,
    /// What a merge key brings.
    is_merged: bool,
    anchor: usize,
    /// In a mapping: the key that was read, its value being awaited.
    key: Option<Key>,
    /// The key that a list of versions stands under, as long as it has nothing.
    chart: Option<String>,
}

struct Names<'a> {
    text: &'a str,
    found: HashSet<String>,
    open: Vec<Open>,
    /// The anchor of the node that begins next.
    anchor: usize,
    /// What an alias gives where a name stands: a text, or the name in a mapping, by its anchor.
    anchored: HashMap<usize, String>,
    /// There are charts whose names stand elsewhere.
    is_cut: bool,
}

impl<'a> Names<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            found: HashSet::new(),
            open: Vec::with_capacity(8),
            anchor: 0,
            anchored: HashMap::new(),
            is_cut: false,
        }
    }

    fn finish(self) -> Result<HashSet<String>, Malformed> {
        if self.is_cut {
            let message = "its charts stand behind a YAML alias, which larder does not follow";
            return Err(Malformed(message.to_owned()));
        }
        Ok(self.found)
    }

    /// Which part of the index a collection is that starts now, and whether a merge key brings it. It takes the awaited key with it.
    fn part(&mut self, is_mapping: bool) -> (Part, bool, Option<String>) {
        let Some(parent) = self.open.last_mut() else {
            return (Part::Root, false, None);
        };
        let key = parent.key.take();
        let is_of_list = parent.is_merged && !parent.is_mapping && is_mapping;
        match (parent.part, key) {
            (part, Some(Key::Merge)) => (part, true, None),
            (part, None) if is_of_list => (part, true, None),
            (Part::Root, Some(Key::Entries)) => (Part::Entries, false, None),
            (Part::Entries, Some(Key::Chart(name))) => (Part::Versions, false, Some(name)),
            (Part::Versions, _) if is_mapping => (Part::Version, false, None),
            _ => (Part::Other, false, None),
        }
    }

    /// There is something under a chart's key.
    fn has_something(&mut self) {
        let chart = self.open.last_mut().and_then(|open| open.chart.take());
        self.found.extend(chart);
    }

    fn key(part: Part, span: Span, raw: &str, value: &str) -> Key {
        let is = |known: &str| value.eq_ignore_ascii_case(known);
        match part {
            _ if span.style == Style::Plain && raw == "<<" => Key::Merge,
            Part::Root if is("entries") => Key::Entries,
            Part::Entries => Key::Chart(value.to_owned()),
            // What stands elsewhere may be merged into a version.
            _ if is("name") => Key::Name,
            _ => Key::Other,
        }
    }

    /// A name in the innermost mapping, or in what an alias brings into it.
    fn name(&mut self, name: Option<String>) {
        let Some(name) = name else {
            return;
        };
        // What a merge key brings is a part of the mapping that it stands in, and yields to what that says itself.
        let merged = self.open.iter().rev().take_while(|open| open.is_merged);
        let parts = self.open.iter().rev().take(merged.count() + 1).enumerate();
        for (depth, open) in parts.filter(|(_, open)| open.anchor > 0) {
            if depth == 0 {
                self.anchored.insert(open.anchor, name.clone());
            } else {
                let known = self.anchored.entry(open.anchor);
                known.or_insert_with(|| name.clone());
            }
        }
        if self
            .open
            .last()
            .is_some_and(|open| open.part == Part::Version)
        {
            self.found.insert(name);
        }
    }

    /// An alias for a mapping whose keys are those of the innermost one.
    fn merge(&mut self, part: Part, name: Option<String>) {
        self.is_cut |= matches!(part, Part::Root | Part::Entries);
        self.name(name);
    }

    fn value(&mut self, key: Key, value: &str, is_nothing: bool) {
        match key {
            _ if is_nothing => {}
            Key::Name => self.name(Some(value.to_owned())),
            Key::Chart(name) => self.found.extend([name]),
            Key::Entries | Key::Merge | Key::Other => {}
        }
    }
}

impl Sink for Names<'_> {
    fn start(&mut self, kind: Kind) -> Result<(), Malformed> {
        check_depth(self.open.len())?;
        self.has_something();
        let is_mapping = kind == Kind::Mapping;
        let (part, is_merged, chart) = self.part(is_mapping);
        self.open.push(Open {
            part,
            is_mapping,
            is_merged,
            anchor: std::mem::take(&mut self.anchor),
            key: None,
            chart,
        });
        Ok(())
    }

    fn end(&mut self) {
        self.open.pop();
    }

    fn scalar(&mut self, span: Span) {
        let value = span.decode(self.text).map(|(_, value)| value);
        let value = value.unwrap_or(Cow::Borrowed(""));
        self.scalar_value(span, &value);
    }

    fn scalar_value(&mut self, span: Span, value: &str) {
        let raw = self.text.get(span.range()).unwrap_or_default();
        let is_nothing = value.is_empty() || (span.style == Style::Plain && is_null(raw));
        let anchor = std::mem::take(&mut self.anchor);
        if anchor > 0 {
            self.anchored.insert(anchor, value.to_owned());
        }
        self.has_something();
        let Some(open) = self.open.last_mut().filter(|open| open.is_mapping) else {
            return;
        };
        match open.key.take() {
            None => open.key = Some(Self::key(open.part, span, raw, value)),
            Some(key) => self.value(key, value, is_nothing),
        }
    }

    fn anchor(&mut self, anchor: usize) {
        self.anchor = anchor;
    }

    fn alias(&mut self, anchor: usize) {
        self.anchor = 0;
        self.has_something();
        let text = self.anchored.get(&anchor).cloned();
        let Some(open) = self.open.last_mut() else {
            return;
        };
        let part = open.part;
        match open.key.take() {
            None if open.is_mapping => {
                open.key = Some(match part {
                    Part::Entries => Key::Chart(text.unwrap_or_default()),
                    _ => Key::Other,
                });
            }
            // A version that stands elsewhere.
            None if part == Part::Versions => self.found.extend(text),
            None if open.is_merged => self.merge(part, text),
            None | Some(Key::Other) => {}
            Some(Key::Chart(name)) => self.found.extend([name]),
            Some(Key::Entries) => self.is_cut = true,
            Some(Key::Name) => self.name(text),
            Some(Key::Merge) => self.merge(part, text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(entries: &str) -> Vec<String> {
        let body = format!("apiVersion: v1\nentries:\n{entries}");
        let mut names: Vec<String> = of(body.as_bytes()).unwrap().into_iter().collect();
        names.sort_unstable();
        names
    }

    /// What Helm reads as a name, in whichever way it is written.
    #[test]
    fn a_name_is_known_however_it_is_written() {
        for version in [
            "{name: secret, version: 1.0.0}",
            "{Name: secret, version: 1.0.0}",
            "{home: &n secret, name: *n}",
            "{<<: &base {name: secret, apiVersion: v2}, version: 1.0.0}",
            "{<<: [{<<: {name: secret}}], version: 1.0.0}",
            "{name: \"sec\\\n      ret\", version: 1.0.0}",
            "\n    name: \"sec\\\n      ret\"\n    version: 1.0.0",
            "\n    name: >-\n      secret\n    version: 1.0.0",
            "{name: secret, unknown: {name: x}, dependencies: [{name: y}], maintainers: [{name: z}]}",
        ] {
            assert_eq!(
                names(&format!("  key:\n  - {version}\n")),
                ["key", "secret"],
                "{version}"
            );
        }
    }

    #[test]
    fn a_name_that_stands_elsewhere_is_known() {
        for (entries, expected) in [
            (
                "  a:\n  - &e {name: secret}\n  b: [*e]\n",
                &["a", "b", "secret"][..],
            ),
            (
                "  a:\n  - icon: &m {<<: {name: secret}}\n  - <<: *m\n",
                &["a", "secret"],
            ),
            ("  a:\n  - &d {name: a}\n  - <<: [*d]\n", &["a"]),
            ("  a: &l [{name: secret}]\n  b: *l\n", &["a", "b", "secret"]),
            (
                "  a: [{name: &k secret}]\n  *k : [{version: 1.0.0}]\n",
                &["a", "secret"],
            ),
        ] {
            assert_eq!(names(entries), expected, "{entries}");
        }
        for cut in [
            "x: &x {a: []}\nentries: *x\n",
            "x: &x {a: []}\nentries: {<<: *x}\n",
            "x: &x {entries: {}}\n<<: *x\n",
        ] {
            let error = of(format!("apiVersion: v1\n{cut}").as_bytes()).unwrap_err();
            assert!(error.0.contains("alias"), "{cut}: {error}");
        }
        let merged = "  <<: {secret: [{name: other}]}\n";
        assert_eq!(names(merged), ["other", "secret"]);
    }

    /// As Helm looks charts up.
    #[test]
    fn the_key_of_a_list_that_has_anything_is_a_name() {
        let entries =
            "  a:\n  - version: 1.0.0\n  b: []\n  c:\n  d: ~\n  \"e\\x66\":\n  - \n  g: text\n";
        assert_eq!(names(entries), ["a", "ef", "g"]);
        let json =
            r#"{"apiVersion": "v1", "Entries": {"a\u0062": [{"NAME": "c"}], "d": [], "e": null}}"#;
        assert_eq!(of(json.as_bytes()).unwrap().len(), 2);
    }
}

//! Comments, tests and documents cite only what is in the repository, and every citation leads somewhere (docs/reference/README.md has
//! the short forms).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::sync::{LazyLock, Mutex, PoisonError};

use regex::{Captures, Regex};

use crate::{files, root};

/// What may be cited, read once.
struct Library {
    /// Contract and mechanics: their sections by number.
    contract: BTreeMap<String, String>,
    mechanics: BTreeMap<String, String>,
    /// Sections of each page of docs/reference/protocols, by the page's name.
    protocols: BTreeMap<String, BTreeMap<String, String>>,
    /// W2 and the like.
    hazards: BTreeSet<String>,
    /// Four digits each.
    records: BTreeSet<String>,
}

/// The sections of a page, by the number that their heading begins with.
fn sections(page: &str) -> BTreeMap<String, String> {
    page.split("\n## ")
        .skip(1)
        .filter_map(|section| {
            let (number, text) = section.split_once(". ")?;
            number
                .bytes()
                .all(|b| b.is_ascii_digit())
                .then(|| (number.to_owned(), text.to_owned()))
        })
        .collect()
}

/// Whether a section has an item of a numbered list with this number.
fn has_item(section: &str, number: &str) -> bool {
    section
        .lines()
        .any(|line| line.starts_with(&format!("{number}. ")))
}

impl Library {
    fn read() -> Self {
        let page = |name: &str| fs::read_to_string(root().join(name)).expect(name);
        let reference = |name: &str| page(&format!("docs/reference/{name}"));
        let names: Vec<String> = files().into_iter().map(|(name, _)| name).collect();
        let protocols = names
            .iter()
            .filter_map(|name| {
                let short = name.strip_prefix("docs/reference/protocols/")?;
                Some((short.to_owned(), sections(&page(name))))
            })
            .collect();
        let row = pattern(r"(?m)^\| ([WLASRX]\d+) \|");
        Self {
            contract: sections(&reference("contract.md")),
            mechanics: sections(&reference("mechanics.md")),
            protocols,
            hazards: row
                .captures_iter(&reference("hazards.md"))
                .map(|found| found[1].to_owned())
                .collect(),
            records: names
                .iter()
                .filter_map(|name| name.strip_prefix("docs/adr/")?.get(..4))
                .map(str::to_owned)
                .collect(),
        }
    }

    /// Everything in `text` that is cited and is not there, or cannot be.
    fn unresolved(&self, text: &str) -> Vec<String> {
        let mut wrong = untracked(text);
        wrong.extend(self.unknown_hazards(text));
        wrong.extend(self.unknown_sections(text));
        wrong.extend(self.unknown_lines_of_protocols(text));
        wrong.extend(self.unknown_records(text));
        wrong.extend(absent_files(text));
        wrong
    }

    fn unknown_hazards(&self, text: &str) -> Vec<String> {
        const CITED: &str = r"\b[Hh]azards? ([WLASRX]\d+(?:(?:, and |, | and | to )[WLASRX]\d+)*)";
        let ids = pattern(r"[WLASRX]\d+");
        let named = every(r"\bhazard_([wlasrx]\d+)_", text, |found| {
            vec![found[1].to_uppercase()]
        });
        let cited = every(CITED, text, |found| {
            ids.find_iter(&found[1])
                .map(|id| id.as_str().to_owned())
                .collect()
        });
        named
            .into_iter()
            .chain(cited)
            .filter(|id| !self.hazards.contains(id))
            .map(|id| format!("hazard {id}"))
            .collect()
    }

    fn unknown_sections(&self, text: &str) -> Vec<String> {
        const CITED: &str =
            r#"\b([Cc]ontract|[Mm]echanics), sections? (\d+)(?: and (\d+))?(?:, "([^"\n]+?),?")?"#;
        every(CITED, text, |found| {
            let page = match found[1].to_ascii_lowercase().as_str() {
                "contract" => &self.contract,
                _ => &self.mechanics,
            };
            let numbers = [found.get(2), found.get(3)];
            let there = numbers
                .iter()
                .flatten()
                .all(|number| page.contains_key(number.as_str()));
            // What is quoted is the bold beginning of a paragraph; of two sections the last one is meant.
            let last = found.get(3).or(found.get(2)).map_or("", |n| n.as_str());
            let said = found.get(4).is_none_or(|words| {
                page.get(last)
                    .is_some_and(|section| section.contains(&format!("**{}", words.as_str())))
            });
            (!(there && said))
                .then(|| found[0].to_owned())
                .into_iter()
                .collect()
        })
    }

    fn unknown_lines_of_protocols(&self, text: &str) -> Vec<String> {
        const CITED: &str = r"\bprotocols/([a-z-]+\.md)(?:, (section|line)s? (\d+)(?:\.(\d+))?(?: and (\d+)(?:\.(\d+))?)?)?";
        every(CITED, text, |found| {
            let part = |at| found.get(at).map(|part| part.as_str());
            let resolves = self.protocols.get(&found[1]).is_some_and(|page| {
                let places = [(part(3), part(4)), (part(5), part(6))];
                places.into_iter().all(|place| match place {
                    (None, _) => true,
                    (Some(line), _) if part(2) == Some("line") => {
                        page.get("6").is_some_and(|section| has_item(section, line))
                    }
                    (Some(section), item) => page
                        .get(section)
                        .is_some_and(|section| item.is_none_or(|item| has_item(section, item))),
                })
            });
            (!resolves)
                .then(|| found[0].to_owned())
                .into_iter()
                .collect()
        })
    }

    fn unknown_records(&self, text: &str) -> Vec<String> {
        let numbers = pattern(r"\d{4}");
        every(
            r"(?:\bADRs? |docs/adr/)\d{4}(?:(?:, | and )\d{4}\b)*",
            text,
            |found| {
                let numbers = numbers.find_iter(&found[0]);
                numbers
                    .filter(|number| !self.records.contains(number.as_str()))
                    .map(|number| format!("record {}", number.as_str()))
                    .collect()
            },
        )
    }
}

/// A pattern, compiled once for all files.
fn pattern(text: &'static str) -> Regex {
    static COMPILED: LazyLock<Mutex<HashMap<&'static str, Regex>>> = LazyLock::new(Mutex::default);
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    let known = compiled.entry(text);
    known
        .or_insert_with(|| Regex::new(text).expect("a pattern"))
        .clone()
}

/// What `find` makes of every match of a pattern.
fn every(
    looked_for: &'static str,
    text: &str,
    find: impl Fn(&Captures<'_>) -> Vec<String>,
) -> Vec<String> {
    let found = pattern(looked_for);
    found
        .captures_iter(text)
        .flat_map(|found| find(&found))
        .collect()
}

/// Citations of documents that are not in the repository, or not by these names.
fn untracked(text: &str) -> Vec<String> {
    const FORMS: &str = r"(?i)\bspec(?:ification)? sections? \d|\bspec\.md\b|\bdesign(?:\.md)? sections? \d|\bdesign\.md\b|\bfloor[- ]plan\b|\bhazards\.md section|\bmodels\.md\b|\b[a-z]+\.md sections? \d|\b[a-z]+\.md, checklist";
    every(FORMS, text, |found| vec![found[0].to_owned()])
}

/// Paths below docs/ that do not exist. Records are judged by their numbers.
fn absent_files(text: &str) -> Vec<String> {
    every(
        r#"(?m)(?:^|[\s(`\["'])(docs/(?:reference|guide|operate|LOGGING)[A-Za-z0-9_./-]*)"#,
        text,
        |found| {
            let path = found[1].trim_end_matches(['.', '/']);
            (!root().join(path).exists())
                .then(|| path.to_owned())
                .into_iter()
                .collect()
        },
    )
}

/// Whether comments of this file are judged: whatever people read, but the lines that say what is wrong.
fn is_read(name: &str) -> bool {
    const KINDS: &[&str] = &[
        ".rs", ".py", ".sh", ".toml", ".sql", ".yaml", ".md", "Makefile", ".ci/run",
    ];
    name != "tests/rules/citations.rs" && KINDS.iter().any(|kind| name.ends_with(kind))
}

#[test]
fn citations_lead_to_what_is_in_the_repository() {
    let library = Library::read();
    assert_eq!(library.contract.len(), 10, "sections of the contract");
    assert!(library.hazards.len() > 60, "hazards: {:?}", library.hazards);
    let mut wrong = Vec::new();
    for (name, path) in files().into_iter().filter(|(name, _)| is_read(name)) {
        let bytes = fs::read(&path).expect("a file");
        let text = String::from_utf8_lossy(&bytes);
        let said = library.unresolved(&text).into_iter();
        wrong.extend(said.map(|citation| format!("{name}: {citation}")));
    }
    assert!(
        wrong.is_empty(),
        "{} citations lead nowhere (docs/reference/README.md has the forms):\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn citations_that_lead_nowhere_are_noticed() {
    let library = Library::read();
    for sound in [
        "(contract, section 3, \"Stale\")",
        "Contract, sections 1 and 6",
        "(hazards S1, S11 and X8)",
        "fn hazard_w8_suffix_range_overflow() {",
        "(docs/reference/protocols/npm.md, sections 3.4 and 3.5)",
        "docs/reference/protocols/generic-http.md, line 23:",
        "(docs/adr/0047, 0048) and ADR 0026",
        "see docs/guide/generic.md.",
        "RFC 9110 section 12.5.1",
    ] {
        assert_eq!(library.unresolved(sound), Vec::<String>::new(), "{sound}");
    }
    for unsound in [
        "(contract, section 11)",
        "(contract, section 3, \"Fresh\")",
        "(mechanics, section 9)",
        "hazards W1, W99",
        "fn hazard_w99_nothing() {",
        "protocols/npm.md, section 3.99",
        "protocols/npm.md, line 99",
        "protocols/cargo.md",
        "ADR 9999",
        "docs/adr/0047, 9998",
        "docs/guide/cargo.md",
        "(spec section 3)",
        "`spec.md`",
        "design section 11",
        "the floor plan",
        "generic-http.md, checklist 23",
    ] {
        assert_eq!(library.unresolved(unsound).len(), 1, "{unsound}");
    }
}

/// The table of words stands where programmers look and where everybody does; both say the same.
#[test]
fn the_glossary_is_that_of_the_core() {
    let rows = |name: &str, prefix: &str| -> Vec<String> {
        let text = fs::read_to_string(root().join(name)).expect(name);
        let rows = text.lines().filter_map(|line| line.strip_prefix(prefix));
        rows.filter(|row| row.starts_with('|'))
            .map(|row| row.replace("[`", "`").replace("`]", "`"))
            .collect()
    };
    let of_core = rows("crates/core/src/lib.rs", "//! ");
    assert!(of_core.len() > 20, "the table was not found");
    assert_eq!(rows("docs/reference/glossary.md", ""), of_core);
}

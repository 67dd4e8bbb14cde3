//! Circles of files: within a folder, who imports or calls whom, and whether that ever leads back.

use std::collections::{BTreeMap, BTreeSet};

use super::{Source, sources};

/// Folders of the engine in which files still lead back to each other. Nothing is added here.
const CIRCLES_LEFT: &[&str] = &[];

/// What `origin/remote/` implements of the traits that the engine defines. Each is something that is handed down when a flight starts, and
/// called from below: who obtains documents, who has the rest of a body, what knows its format. Nothing is added here to hide a circle.
const PORTS: &[&str] = &["Inspector", "Launch", "Origin", "Supply"];

/// Words and signs of a source, as far as paths and calls are made of them. A string ends with its line at the latest.
fn tokens(code: &str) -> Vec<&str> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for line in code.lines() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let length = match first {
                '"' => {
                    let inner = rest.get(1..).unwrap_or_default();
                    let mut escaped = false;
                    let end = inner.find(|c| {
                        let ends = c == '"' && !escaped;
                        escaped = c == '\\' && !escaped;
                        ends
                    });
                    rest = end.and_then(|end| inner.get(end + 1..)).unwrap_or_default();
                    continue;
                }
                c if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
                ':' if rest.starts_with("::") => 2,
                c => c.len_utf8(),
            };
            let (token, after) = rest.split_at(length);
            if !token.trim().is_empty() {
                found.push(token);
            }
            rest = after;
        }
    }
    found
}

fn is_word(token: &str) -> bool {
    token
        .chars()
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
}

/// All paths from `at` on (`a::b`, `a::{b, c::d}`), and where they end.
fn paths<'t>(tokens: &[&'t str], mut at: usize) -> (Vec<Vec<&'t str>>, usize) {
    let mut prefix = Vec::new();
    while let Some(word) = tokens.get(at).filter(|token| is_word(token)) {
        prefix.push(*word);
        at += 1;
        if tokens.get(at) != Some(&"::") {
            return (vec![prefix], at);
        }
        at += 1;
    }
    if tokens.get(at) != Some(&"{") {
        return (vec![prefix], at);
    }
    let mut all = Vec::new();
    at += 1;
    while at < tokens.len() && tokens[at] != "}" {
        if is_word(tokens[at]) {
            let (inner, end) = paths(tokens, at);
            all.extend(
                inner
                    .into_iter()
                    .map(|path| [prefix.clone(), path].concat()),
            );
            at = end.max(at + 1);
        } else {
            at += 1;
        }
    }
    (all, at + 1)
}

/// The module that a file is.
fn module(name: &str) -> Vec<&str> {
    let mut parts: Vec<&str> = name.trim_end_matches(".rs").split('/').collect();
    if matches!(parts.last(), Some(&("mod" | "lib"))) {
        parts.pop();
    }
    parts
}

/// The file that a path leads to, as far as it is one of these.
fn file_of<'s>(
    path: &[&str],
    from: &[&str],
    modules: &BTreeMap<Vec<&str>, &'s str>,
) -> Option<&'s str> {
    let climbs = path.iter().take_while(|part| **part == "super").count();
    let (mut module, rest) = match *path.first()? {
        "crate" => (Vec::new(), path.get(1..)?),
        "self" => (from.to_vec(), path.get(1..)?),
        "super" => (
            from.get(..from.len().checked_sub(climbs)?)?.to_vec(),
            path.get(climbs..)?,
        ),
        child => {
            let below = [from, &[child]].concat();
            modules
                .contains_key(&below)
                .then(|| (from.to_vec(), path))?
        }
    };
    for part in rest {
        module.push(part);
        if !modules.contains_key(&module) {
            module.pop();
            break;
        }
    }
    modules.get(&module).copied()
}

/// The types of a folder's `impl` blocks, each method that others see with the files that have it; and which words stand for which types.
#[derive(Default)]
struct Methods<'s> {
    files: BTreeMap<(&'s str, &'s str), BTreeSet<&'s str>>,
    of_file: BTreeMap<&'s str, BTreeSet<&'s str>>,
    words: BTreeMap<&'s str, BTreeSet<&'s str>>,
}

impl<'s> Methods<'s> {
    fn of(folder: &[(&'s str, Vec<&'s str>)]) -> Self {
        let mut methods = Self::default();
        for (name, tokens) in folder {
            let mut of = None;
            for (at, token) in tokens.iter().enumerate() {
                let next = |n: usize| tokens.get(at + n).copied().unwrap_or_default();
                match *token {
                    "impl" if is_word(next(1)) && next(2) == "for" => of = Some(next(3)),
                    "impl" if is_word(next(1)) => of = Some(next(1)),
                    "impl" if next(1) == "<" => {
                        let end = tokens.iter().skip(at).position(|token| *token == ">");
                        of = end.map(|end| next(end + 1));
                    }
                    "fn" => {
                        let is_seen = tokens[at.saturating_sub(12)..at]
                            .iter()
                            .rev()
                            .take_while(|token| !matches!(**token, "{" | "}" | ";"))
                            .any(|token| *token == "pub");
                        if let Some(of) = of.filter(|_| is_seen) {
                            let methods = methods.files.entry((of, next(1)));
                            methods.or_default().insert(*name);
                        }
                    }
                    // A field or a parameter: `name: &'a Arc<Type>`.
                    ":" if at > 0 && is_word(tokens[at - 1]) => {
                        let mut types = tokens.iter().skip(at + 1).filter(|token| {
                            !matches!(**token, "&" | "'" | "a" | "t" | "mut" | "Arc" | "<" | "dyn")
                        });
                        let word = methods.words.entry(tokens[at - 1]).or_default();
                        word.extend(types.next().filter(|token| is_word(token)));
                    }
                    _ => {}
                }
                if let Some(of) = of {
                    methods.of_file.entry(*name).or_default().insert(of);
                }
            }
        }
        methods
    }

    /// The files that a call may lead to: `receiver` is the word before the dot, or the type before `::`.
    fn called<'m>(
        &'m self,
        from: &str,
        receiver: &'s str,
        method: &'s str,
    ) -> impl Iterator<Item = &'s str> + 'm {
        let types = match receiver {
            "self" | "Self" => self.of_file.get(from).cloned().unwrap_or_default(),
            word => {
                let mut types = self.words.get(word).cloned().unwrap_or_default();
                types.insert(word);
                types
            }
        };
        types
            .into_iter()
            .filter_map(move |of| self.files.get(&(of, method)))
            .flatten()
            .copied()
    }
}

/// The arrows between the files of a folder: by import, by path, by call of a method.
fn arrows<'s>(sources: &'s [Source], folder: &str) -> BTreeSet<(&'s str, &'s str)> {
    let modules: BTreeMap<Vec<&str>, &str> = sources
        .iter()
        .map(|source| (module(&source.name), &*source.name))
        .collect();
    let below = format!("{folder}/");
    let files: Vec<(&str, Vec<&str>)> = sources
        .iter()
        .filter(|source| source.name.starts_with(&below))
        .map(|source| (&*source.name, tokens(&source.code)))
        .collect();
    let methods = Methods::of(&files);
    let mut arrows = BTreeSet::new();
    for (name, tokens) in &files {
        let from = module(name);
        for at in 0..tokens.len() {
            let before = at.checked_sub(1).and_then(|at| tokens.get(at).copied());
            if is_word(tokens[at]) && !matches!(before, Some("::" | "." | "in")) {
                let (paths, _) = paths(tokens, at);
                // A word alone is none, but behind `use` in a group.
                let paths = paths.iter().filter(|path| path.len() > 1);
                arrows.extend(
                    paths
                        .filter_map(|path| file_of(path, &from, &modules))
                        .map(|to| (*name, to)),
                );
            }
            if matches!(tokens[at], "." | "::")
                && at > 0
                && tokens.get(at + 2) == Some(&"(")
                && is_word(tokens[at - 1])
            {
                let called = methods.called(name, tokens[at - 1], tokens[at + 1]);
                arrows.extend(called.map(|to| (*name, to)));
            }
        }
    }
    arrows.retain(|(from, to)| from != to && to.starts_with(&below));
    arrows
}

/// The sets of files of which each leads to each.
fn circles<'s>(arrows: &BTreeSet<(&'s str, &'s str)>) -> Vec<BTreeSet<&'s str>> {
    let reached = |from: &'s str| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(at) = open.pop() {
            let next = arrows.iter().filter(|arrow| arrow.0 == at);
            open.extend(next.map(|arrow| arrow.1).filter(|to| seen.insert(*to)));
        }
        seen
    };
    let files: BTreeSet<&str> = arrows.iter().map(|arrow| arrow.0).collect();
    let reach: BTreeMap<&str, _> = files.iter().map(|file| (*file, reached(file))).collect();
    let mut found: Vec<BTreeSet<&str>> = Vec::new();
    for (file, to) in &reach {
        let back = |other: &&&str| reach.get(**other).is_some_and(|reach| reach.contains(file));
        let circle: BTreeSet<&str> = to.iter().filter(back).copied().collect();
        if !circle.is_empty() && !found.contains(&circle) {
            found.push(circle);
        }
    }
    found
}

/// The folders that have files of their own; a folder of one stands with the one above it.
fn folders(sources: &[Source]) -> BTreeSet<&str> {
    let folder = |source: &'_ Source| source.name.rsplit_once('/').map(|(folder, _)| folder.len());
    let folders = sources
        .iter()
        .filter_map(|source| source.name.get(..folder(source)?));
    let all: BTreeSet<&str> = folders.collect();
    let is_part = |folder: &&str| {
        folder
            .rsplit_once('/')
            .is_none_or(|(above, _)| above == "origin" || !all.contains(above))
    };
    all.iter()
        .copied()
        .filter(|folder| *folder != "origin" && is_part(folder))
        .collect()
}

#[test]
fn files_of_a_folder_lead_to_each_other_one_way_only() {
    let engine = sources("engine");
    for folder in folders(&engine) {
        let arrows = arrows(&engine, folder);
        let circles = circles(&arrows);
        let files = engine.iter().filter(|source| {
            let rest = source.name.strip_prefix(folder);
            rest.is_some_and(|rest| rest.starts_with('/'))
        });
        println!(
            "rule 3: {folder}: {} files, {} arrows (imports, paths, calls); circles of files: {}",
            files.count(),
            arrows.len(),
            circles.len()
        );
        if !CIRCLES_LEFT.contains(&folder) {
            for circle in &circles {
                let inside = arrows
                    .iter()
                    .filter(|(from, to)| circle.contains(from) && circle.contains(to));
                inside.for_each(|(from, to)| println!("  {from} -> {to}"));
            }
            assert!(circles.is_empty(), "{folder}: {circles:?}");
        }
    }
    assert!(folders(&engine).contains("origin/remote") && folders(&engine).contains("transfer"));
}

/// A circle of calls could hide behind a trait: then it would be seen here.
#[test]
fn a_remote_hands_down_ports_that_are_known() {
    let engine = sources("engine");
    let tokens: Vec<(&str, Vec<&str>)> = engine
        .iter()
        .map(|source| (&*source.name, tokens(&source.code)))
        .collect();
    let defined: BTreeSet<&str> = tokens
        .iter()
        .flat_map(|(_, tokens)| tokens.windows(2))
        .filter(|pair| pair[0] == "trait")
        .map(|pair| pair[1])
        .collect();
    let implemented: BTreeSet<&str> = tokens
        .iter()
        .filter(|(name, _)| name.starts_with("origin/remote/"))
        .flat_map(|(_, tokens)| tokens.windows(2))
        .filter(|pair| pair[1] == "for" && defined.contains(pair[0]))
        .map(|pair| pair[0])
        .collect();
    println!("rule 3: origin/remote implements {implemented:?} of the engine's own traits");
    assert_eq!(implemented.into_iter().collect::<Vec<_>>(), PORTS);
}

/// What a format has to say of a body comes to `transfer/` as an argument.
#[test]
fn transfers_know_no_format() {
    let engine = sources("engine");
    let formats: [&[&str]; 4] = [
        &[".", "format"],
        &["profile"],
        &["Generation"],
        &["Expectation"],
    ];
    for words in formats {
        let says = |source: &&Source| {
            tokens(&source.code)
                .windows(words.len())
                .any(|at| at == words)
        };
        let found: Vec<&str> = engine
            .iter()
            .filter(says)
            .map(|source| &*source.name)
            .collect();
        assert!(!found.is_empty(), "{words:?} is called otherwise by now");
        let inside = found.iter().filter(|name| name.starts_with("transfer/"));
        assert_eq!(
            inside.count(),
            0,
            "{words:?} occurs in transfer/: {found:?}"
        );
    }
    let from_formats: BTreeSet<&str> = engine
        .iter()
        .filter(|source| source.name.starts_with("transfer/"))
        .flat_map(|source| source.code.lines())
        .filter(|line| line.contains("larder_formats"))
        .collect();
    println!("transfers: of formats they import {from_formats:?}");
    assert_eq!(
        from_formats.into_iter().collect::<Vec<_>>(),
        ["use larder_formats::Identifier;"]
    );
}

#[test]
fn a_circle_of_files_is_noticed() {
    let source = |name: &str, code: &str| Source {
        name: name.to_owned(),
        code: code.to_owned(),
    };
    let circles_of = |sources: &[Source]| circles(&arrows(sources, "a")).len();
    let (parts, text) = (
        "pub(crate) struct Parts { pub(super) file: Arc<File> }",
        "let a = \"crate::a::low\";",
    );
    let mut folder = vec![
        source(
            "a/mod.rs",
            "mod low; mod parts; mod top; pub(crate) use parts::Parts;",
        ),
        source("a/parts.rs", parts),
        source(
            "a/top.rs",
            "use super::parts::Parts; impl Parts { fn go(&self) { self.sink() } }",
        ),
        source("a/low.rs", text),
        source("b.rs", "use crate::a::Parts;"),
    ];
    assert_eq!(
        arrows(&folder, "a"),
        BTreeSet::from([("a/mod.rs", "a/parts.rs"), ("a/top.rs", "a/parts.rs")])
    );
    assert_eq!(circles_of(&folder), 0);
    // By an import in a group, by a path, by a method of the same type, by a method of a field's type.
    for back in [
        "use crate::{a::{parts::Parts, top}, b};",
        "fn f() { super::top::go() }",
    ] {
        folder[1].code = format!("{parts} {back}");
        assert_eq!(circles_of(&folder), 1, "{back}");
    }
    folder[1].code = parts.to_owned();
    folder[3].code =
        "use super::parts::Parts; impl Parts { pub(super) fn sink(&self) { self.rise() } }"
            .to_owned();
    assert_eq!(circles_of(&folder), 0);
    folder[2].code = "use super::parts::Parts; impl Parts { fn go(&self) { self.sink() } pub(super) async fn rise(&self) {} }".to_owned();
    assert_eq!(circles_of(&folder), 1, "self");
    folder[3].code = "struct Low { parts: Arc<Parts> } impl Low { pub(super) fn sink(&self) { self.parts.rise() } }".to_owned();
    folder[2].code = "use super::low::Low; impl Parts { pub(super) fn rise(&self) {} }".to_owned();
    assert_eq!(circles_of(&folder), 1, "a field");
}

//! The rules of the house that no compiler checks: who may import whom, where heavy crates and public addresses live, how long
//! files are. Reads `cargo metadata` and the sources; builds nothing of larder.
#![expect(
    clippy::expect_used,
    reason = "a test program: what it cannot read, it cannot judge"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

#[path = "rules/circles.rs"]
mod circles;
#[path = "rules/citations.rs"]
mod citations;

/// Each crate with the crates of the workspace that it may be built on (ARCHITECTURE.md, "The crates").
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("larder-core", &[]),
    ("larder-sendfile", &[]),
    ("larder-formats", &["larder-core"]),
    ("larder-storage", &["larder-budget", "larder-core"]),
    ("larder-ui", &["larder-core"]),
    ("larder-budget", &["larder-core"]),
    ("larder-upstream", &["larder-budget", "larder-core"]),
    (
        "larder-engine",
        &[
            "larder-budget",
            "larder-core",
            "larder-formats",
            "larder-sendfile",
            "larder-storage",
            "larder-upstream",
        ],
    ),
    (
        "larder-server",
        &[
            "larder-budget",
            "larder-core",
            "larder-engine",
            "larder-formats",
            "larder-sendfile",
            "larder-ui",
        ],
    ),
    (
        "larder",
        &[
            "larder-budget",
            "larder-core",
            "larder-engine",
            "larder-formats",
            "larder-server",
            "larder-storage",
            "larder-upstream",
        ],
    ),
    (
        "larder-testkit",
        &[
            "larder-core",
            "larder-storage",
            "larder-upstream",
            "larder-engine",
            "larder-server",
        ],
    ),
];

/// For tests only, and then for everyone.
const TEST_KIT: &str = "larder-testkit";

/// Crates that are costly to build or that stand for a whole subject, and their one home. Tests may use them elsewhere.
const HOMES: &[(&str, &str)] = &[
    ("sqlx", "larder-storage"),
    ("redis", "larder-storage"),
    ("object_store", "larder-storage"),
    ("reqwest", "larder-upstream"),
    // Beneath object_store: how long a store is waited for (docs/adr/0081).
    ("reqwest", "larder-storage"),
    ("hyper", "larder-server"),
    ("hyper-util", "larder-server"),
    ("tokio-rustls", "larder-server"),
    ("socket2", "larder-server"),
    ("prometheus-client", "larder-server"),
    ("lol_html", "larder-formats"),
    ("askama", "larder-ui"),
    ("fancy-regex", "larder-core"),
    ("clap", "larder"),
    ("tracing-subscriber", "larder"),
    ("libc", "larder-sendfile"),
];

/// Crates that no member uses. deny.toml bans them at any depth.
const BANNED: &[&str] = &["native-tls", "openssl", "openssl-sys", "ring"];

/// The one file that may hold public addresses.
const DEFAULTS: &str = "crates/larder/src/config/defaults.rs";
const MAX_LINES: usize = 500;

fn root() -> PathBuf {
    // Compiled as a test of crates/testkit, wherever that lies in the tree.
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = manifest
        .ancestors()
        .find(|directory| directory.join("Cargo.lock").is_file());
    root.expect("the workspace's directory").to_owned()
}

/// Packages of the workspace as `cargo metadata` describes them; nothing is resolved, nothing is downloaded.
fn members() -> Vec<Value> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--offline",
        ])
        .current_dir(root());
    let output = cargo.output().expect("cargo runs");
    assert!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    metadata["packages"].as_array().expect("packages").clone()
}

/// A dependency: who, on whom, and whether for tests only.
struct Edge<'m> {
    from: &'m str,
    to: &'m str,
    tests_only: bool,
}

fn edges(members: &[Value]) -> Vec<Edge<'_>> {
    members.iter().flat_map(edges_of).collect()
}

fn edges_of(member: &Value) -> Vec<Edge<'_>> {
    let from = text(&member["name"]);
    let dependencies = member["dependencies"].as_array().expect("dependencies");
    dependencies
        .iter()
        .map(|to| Edge {
            from,
            to: text(&to["name"]),
            tests_only: text(&to["kind"]) == "dev",
        })
        .collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// What is wrong with one dependency; `None` if it is allowed.
fn objection(edge: &Edge<'_>) -> Option<String> {
    let Edge {
        from,
        to,
        tests_only,
    } = *edge;
    if to == TEST_KIT {
        return (!tests_only).then(|| format!("{from} imports {to} outside its tests"));
    }
    if MAY_IMPORT.iter().any(|(name, _)| *name == to) {
        let allowed = MAY_IMPORT.iter().find(|(name, _)| *name == from)?.1;
        return (!allowed.contains(&to)).then(|| format!("{from} must not import {to}"));
    }
    let homes = HOMES.iter().filter(|(name, _)| *name == to);
    let home = homes.clone().next()?.1;
    let is_at_home = homes.clone().any(|(_, home)| *home == from);
    (!is_at_home && !tests_only).then(|| format!("{to} is used by {from}, but its home is {home}"))
}

#[test]
fn crates_import_each_other_one_way_only() {
    let members = members();
    let mut names: Vec<&str> = members.iter().map(|member| text(&member["name"])).collect();
    let mut known: Vec<&str> = MAY_IMPORT.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    known.sort_unstable();
    assert_eq!(
        names, known,
        "a new crate needs a line in MAY_IMPORT and a place in ARCHITECTURE.md"
    );
    let wrong: Vec<String> = edges(&members).iter().filter_map(objection).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_forbidden_import_is_noticed() {
    let judge = |from, to, tests_only| {
        objection(&Edge {
            from,
            to,
            tests_only,
        })
    };
    assert_eq!(
        judge("larder-server", "larder-storage", false).as_deref(),
        Some("larder-server must not import larder-storage")
    );
    assert!(
        judge("larder-server", "larder-storage", true).is_some(),
        "nor in tests"
    );
    assert!(judge("larder-core", "larder-formats", false).is_some());
    assert!(judge("larder-engine", "larder-testkit", false).is_some());
    assert_eq!(judge("larder-engine", "larder-testkit", true), None);
    assert!(judge("larder-engine", "sqlx", false).is_some());
    assert!(judge("larder", "reqwest", false).is_some());
    assert_eq!(judge("larder", "reqwest", true), None);
    assert_eq!(judge("larder-engine", "larder-storage", false), None);
    assert_eq!(judge("larder-engine", "bytes", false), None);
}

#[test]
fn banned_crates_are_nobodys_dependency() {
    let members = members();
    let direct = edges(&members);
    let wrong: Vec<String> = direct
        .iter()
        .filter(|edge| BANNED.contains(&edge.to))
        .map(|edge| format!("{} uses {}", edge.from, edge.to))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whoever leaves `[lints] workspace = true` out would escape `unsafe_code = "forbid"`; versions stand in one table.
#[test]
fn members_take_lints_and_versions_from_the_workspace() {
    for member in members() {
        let name = text(&member["name"]);
        let manifest = fs::read_to_string(text(&member["manifest_path"])).expect("a manifest");
        if name != "larder-sendfile" {
            assert!(
                manifest.contains("[lints]\nworkspace = true"),
                "{name} does not inherit the workspace's lints"
            );
        }
        let sections = manifest
            .split("\n[")
            .filter(|section| section.contains("dependencies]"));
        let pinned = sections
            .flat_map(str::lines)
            .find(|line| line.contains('=') && !line.contains("workspace"));
        assert_eq!(
            pinned, None,
            "{name} has a version of its own: it belongs into the workspace's Cargo.toml"
        );
    }
}

/// Every file of the project with its path from the root: what a checkout has, not what tools have left in it.
fn files() -> Vec<(String, PathBuf)> {
    const LEFT_BEHIND: &[&str] = &[
        ".git",
        "target",
        ".venv",
        "bench-data",
        "node_modules",
        "__pycache__",
    ];
    let root = root();
    let mut found = Vec::new();
    let mut open = vec![root.clone()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).expect("a directory") {
            let entry = entry.expect("an entry");
            let (path, kind) = (entry.path(), entry.file_type().expect("its type"));
            let name = path
                .strip_prefix(&root)
                .expect("below the root")
                .to_string_lossy()
                .into_owned();
            if kind.is_dir() && !LEFT_BEHIND.contains(&entry.file_name().to_string_lossy().as_ref())
            {
                open.push(path);
            } else if kind.is_file() {
                found.push((name, path));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn no_source_file_is_longer_than_one_idea() {
    let is_source = |name: &str| {
        let tests = name
            .split('/')
            .any(|part| matches!(part, "tests" | "benches" | "fuzz"))
            || name.ends_with("tests.rs");
        Path::new(name)
            .extension()
            .is_some_and(|extension| extension == "rs")
            && !tests
    };
    let files: Vec<_> = files()
        .into_iter()
        .filter(|(name, _)| is_source(name))
        .collect();
    assert!(
        files.iter().any(|(name, _)| name == DEFAULTS),
        "the sources were not found"
    );
    let lines = |path: &Path| {
        fs::read_to_string(path)
            .expect("a source file")
            .lines()
            .count()
    };
    let long: Vec<String> = files
        .iter()
        .map(|(name, path)| (name, lines(path)))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .map(|(name, lines)| format!("{name} has {lines} lines; the limit is {MAX_LINES}"))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

/// Host names in a source text: whatever stands where a host does, after `://`, or as a whole string or list item.
fn hosts(source: &str) -> Vec<String> {
    let is_host = |token: &str| {
        let last = token.rsplit('.').next().unwrap_or_default();
        token.contains('.')
            && !token.starts_with('.')
            && last.len() > 1
            && last.bytes().all(|b| b.is_ascii_lowercase())
    };
    let part_of_host =
        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-');
    let mut hosts: Vec<String> = Vec::new();
    for (at, _) in source.match_indices(['/', '"', '[']) {
        let rest = source.get(at + 1..).unwrap_or_default();
        let end = rest.find(|c| !part_of_host(c)).unwrap_or(rest.len());
        let (token, after) = rest.split_at(end);
        let ends = after.is_empty() || after.starts_with(['/', '"', ']', ',', ':', '\n', ' ']);
        if ends && is_host(token) && !hosts.iter().any(|known| known == token) {
            hosts.push(token.to_owned());
        }
    }
    hosts
}

/// Whether `text` names `host` or a host below it.
fn names(text: &str, host: &str) -> bool {
    let part_of_word = |c: char| c.is_ascii_alphanumeric() || c == '-';
    text.match_indices(host).any(|(at, _)| {
        let before = text.get(..at).and_then(|text| text.chars().next_back());
        let after = text
            .get(at + host.len()..)
            .and_then(|text| text.chars().next());
        !before.is_some_and(part_of_word) && !after.is_some_and(part_of_word)
    })
}

#[test]
fn public_addresses_stand_in_one_file() {
    let defaults = fs::read_to_string(root().join(DEFAULTS)).expect("the defaults");
    let hosts = hosts(&defaults);
    assert!(
        hosts.len() >= 10,
        "too few hosts were recognised: {hosts:?}"
    );
    let mut wrong = Vec::new();
    for (name, path) in files() {
        // Lock files name the registry that every crate comes from.
        if name == DEFAULTS || name.ends_with("Cargo.lock") {
            continue;
        }
        let bytes = fs::read(&path).expect("a file");
        let text = String::from_utf8_lossy(&bytes);
        wrong.extend(
            hosts
                .iter()
                .filter(|host| names(&text, host))
                .map(|host| format!("{name} names {host}")),
        );
    }
    assert!(
        wrong.is_empty(),
        "public upstream hosts belong into {DEFAULTS} alone:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn hosts_are_recognised() {
    let source = "const A: &str = \"https://a.example.com/x/\";\nconst B: &[&str] = &[\"b.example.org\", \"c.example.net\"];\n\
                  base: https://d.example.io\nlink_hosts: [e.example.com]\nurl.host_str() '\\.(tar\\.gz|zip)$' use a::b;\n";
    let wanted = [
        "a.example.com",
        "b.example.org",
        "c.example.net",
        "d.example.io",
        "e.example.com",
    ];
    let mut found = hosts(source);
    found.sort();
    assert_eq!(found, wanted);
    assert!(
        names("see https://b.example.org.", "b.example.org")
            && names("(x.b.example.org)", "b.example.org")
    );
    assert!(!names("ab.example.org b.example.organ", "b.example.org"));
}

/// Crates whose functions have not all been cut to the length of clippy.toml. Nothing is added here.
const LONG_FUNCTIONS_LEFT: &[&str] = &[];

/// The workspace allows long functions, for tests have them; each crate's root forbids them for the rest.
#[test]
fn the_length_of_functions_is_bounded_in_every_crate() {
    const BOUND: &str = "\n#![cfg_attr(not(test), warn(clippy::too_many_lines))]\n";
    let mut roots = 0;
    for (name, path) in files() {
        let Some((krate, file)) = name
            .strip_prefix("crates/")
            .and_then(|name| name.split_once("/src/"))
        else {
            continue;
        };
        if matches!(file, "lib.rs" | "main.rs") {
            roots += 1;
            let bounded = fs::read_to_string(path)
                .expect("a source file")
                .contains(BOUND);
            assert_eq!(
                bounded,
                !LONG_FUNCTIONS_LEFT.contains(&krate),
                "{name}: the line{BOUND}stands in it, or the crate in LONG_FUNCTIONS_LEFT, not both"
            );
        }
    }
    assert!(roots >= 10, "the roots of crates were not found");
    let clippy = fs::read_to_string(root().join("clippy.toml")).expect("clippy.toml");
    assert!(clippy.contains("too-many-lines-threshold = 60\n"));
}

/// The modules of the engine, in the order in which they may import each other: from left to right only.
const ENGINE_ORDER: &[&str] = &[
    "lib",
    "jobs",
    "views",
    "built",
    "read",
    "operate",
    "origin",
    "document",
    "cluster",
    "presign",
    "representation",
    "scripted",
    "answer",
    "transfer",
    "catalog",
    "policy",
    "fault",
    "decided",
    "loaded",
    "target",
    "claim",
    "keys",
    "repositories",
    "parts",
    "budget",
    "counters",
    "causes",
    "news",
];

/// A source file of a crate: its path below `src`, and its lines of code without comments and unit tests.
struct Source {
    name: String,
    code: String,
}

fn sources(of: &str) -> Vec<Source> {
    let below = format!("crates/{of}/src/");
    let code = |text: &str| {
        // A module of tests stands at a file's end; other things for tests may stand anywhere.
        let code = text.split("\n#[cfg(test)]\nmod tests").next();
        let code = code.unwrap_or_default();
        let lines = code
            .lines()
            .map(|line| line.split("//").next().unwrap_or_default());
        lines.collect::<Vec<_>>().join("\n")
    };
    let all = files().into_iter().filter_map(|(name, path)| {
        let name = name.strip_prefix(&below)?.to_owned();
        let is_rust = path.extension().is_some_and(|extension| extension == "rs");
        let is_source = is_rust && !name.ends_with("tests.rs");
        let text = is_source.then(|| fs::read_to_string(path).expect("a source file"))?;
        Some(Source {
            name,
            code: code(&text),
        })
    });
    let all: Vec<Source> = all.collect();
    assert!(!all.is_empty(), "the sources of {of} were not found");
    all
}

/// Whether `code` has this word: not as a part of another one.
fn count_word(code: &str, word: &str) -> usize {
    let part_of_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    code.match_indices(word)
        .filter(|(at, _)| {
            let before = code.get(..*at).and_then(|text| text.chars().next_back());
            let after = code
                .get(at + word.len()..)
                .and_then(|text| text.chars().next());
            !before.is_some_and(part_of_word) && !after.is_some_and(part_of_word)
        })
        .count()
}

/// The files in which `what` occurs, with the number of times.
fn occurrences(sources: &[Source], what: &str) -> Vec<(String, usize)> {
    let count = |source: &Source| (source.name.clone(), count_word(&source.code, what));
    sources
        .iter()
        .map(count)
        .filter(|(_, times)| *times > 0)
        .collect()
}

fn outside<'o>(found: &'o [(String, usize)], place: &str) -> Vec<&'o (String, usize)> {
    found
        .iter()
        .filter(|(name, _)| !name.starts_with(place))
        .collect()
}

/// Database, in-process copies and epochs are the catalog's. What an engine is built from (`parts.rs`) hands the database on.
#[test]
fn only_the_catalog_changes_state() {
    let engine = sources("engine");
    for (what, hands_on) in [
        ("MetadataStore", "parts.rs"),
        ("bump()", ""),
        ("flushed();", ""),
        ("apply_by", ""),
        ("Records", ""),
        ("Absences", ""),
    ] {
        let found = occurrences(&engine, what);
        println!("rule 1: {what} occurs in {found:?}");
        assert!(!found.is_empty(), "{what} is called otherwise by now");
        let mut strangers = outside(&found, "catalog/");
        strangers.retain(|(name, _)| name != hands_on || hands_on.is_empty());
        assert!(
            strangers.is_empty(),
            "{what} occurs outside catalog/: {strangers:?}"
        );
    }
}

#[test]
fn the_engine_is_a_facade_in_one_file() {
    let found = occurrences(&sources("engine"), "impl Engine");
    println!("rule 2: impl Engine occurs in {found:?}");
    assert_eq!(found, [("lib.rs".to_owned(), 1)]);
}

/// The top-level module that a file belongs to.
fn module_of(name: &str) -> &str {
    name.split('/')
        .next()
        .unwrap_or_default()
        .trim_end_matches(".rs")
}

/// The arrows between top-level modules, each with a file that draws it.
fn arrows(sources: &[Source]) -> Vec<(String, String, String)> {
    let mut arrows = Vec::new();
    for Source { name, code } in sources {
        // A path that climbs to the root would be an arrow that is not seen.
        let depth = name.split('/').count() - usize::from(name.ends_with("/mod.rs"));
        let climbs = "super::".repeat(depth);
        assert!(
            !code.contains(&climbs),
            "{name} imports by {climbs}: write crate::"
        );
        for (at, _) in code.match_indices("crate::") {
            let to: String = code
                .get(at + 7..)
                .unwrap_or_default()
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect();
            let arrow = (module_of(name).to_owned(), to, name.clone());
            if arrow.0 != arrow.1 && !arrows.contains(&arrow) {
                arrows.push(arrow);
            }
        }
    }
    arrows
}

/// Those that lead back.
fn backwards(arrows: &[(String, String, String)]) -> Vec<String> {
    let place = |module: &str| ENGINE_ORDER.iter().position(|known| *known == module);
    arrows
        .iter()
        .filter(|(from, to, _)| match (place(from), place(to)) {
            (Some(from), Some(to)) => to <= from,
            _ => true,
        })
        .map(|(from, to, file)| format!("{from} -> {to} ({file})"))
        .collect()
}

#[test]
fn the_engine_s_modules_import_each_other_one_way_only() {
    let engine = sources("engine");
    let mut modules: Vec<&str> = engine
        .iter()
        .map(|source| module_of(&source.name))
        .collect();
    modules.sort_unstable();
    modules.dedup();
    let mut known = ENGINE_ORDER.to_vec();
    known.sort_unstable();
    assert_eq!(
        modules, known,
        "a new module needs its place in ENGINE_ORDER"
    );
    let arrows = arrows(&engine);
    let mut pairs: Vec<_> = arrows.iter().map(|(from, to, _)| (from, to)).collect();
    pairs.sort();
    pairs.dedup();
    let wrong = backwards(&arrows);
    println!(
        "rule 3: {} modules of {} files, {} arrows, {} backwards; circles: {}",
        modules.len(),
        engine.len(),
        pairs.len(),
        wrong.len(),
        // Arrows in one order make no circle.
        wrong.len()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_arrow_back_is_noticed() {
    let source = |name: &str, code: &str| Source {
        name: name.to_owned(),
        code: code.to_owned(),
    };
    let found = arrows(&[
        source("catalog/mod.rs", "use crate::target::Target;"),
        source("catalog/commit.rs", "use crate::transfer::flight::Flight;"),
        source("read.rs", "let x = crate::answer::new();"),
    ]);
    assert_eq!(found.len(), 3);
    assert_eq!(
        backwards(&found),
        ["catalog -> transfer (catalog/commit.rs)"]
    );
}

#[test]
fn formats_and_databases_are_named_at_home() {
    let engine = sources("engine");
    let found = occurrences(&engine, "PackageType");
    let mut asked = engine.iter();
    let asked = asked.find(|source| source.code.contains("PackageType::"));
    println!("rule 4: PackageType is named in {found:?} and branched on in no file");
    assert!(
        asked.is_none(),
        "{:?} branches on the package type: it is for a format to say",
        asked.map(|source| &source.name)
    );
    for of in ["core", "formats", "upstream", "engine", "server", "larder"] {
        for word in ["Sqlite", "SqlitePool", "PgPool"] {
            let found = occurrences(&sources(of), word);
            assert!(
                found.is_empty(),
                "{of} names a database: {word} in {found:?}"
            );
        }
    }
    let strangers = occurrences(&sources("storage"), "sqlx");
    let strangers = outside(&strangers, "meta/");
    println!("rule 4: storage names sqlx outside meta/ in {strangers:?}");
    assert!(
        strangers.iter().all(|(name, _)| name == "error.rs"),
        "{strangers:?}"
    );
}

/// What differs from type to type is said by the format; what all formats share asks its profile. Two tables have a line for each type: that
/// of the formats themselves, and that of the lines that users copy.
#[test]
fn what_formats_share_asks_no_package_type() {
    const TABLES: &[&str] = &["lib.rs", "client_lines.rs"];
    // Compiled for tests only, and no `#[cfg(test)]` of their own.
    let is_of_tests = |name: &str| {
        ["testing.rs", "fixture.rs", "test_support.rs", "tests_v3.rs"]
            .iter()
            .any(|end| name.ends_with(end))
    };
    let formats = sources("formats");
    let found: Vec<&str> = formats
        .iter()
        .filter(|source| source.code.contains("PackageType::") && !is_of_tests(&source.name))
        .filter(|source| !source.name.contains("/tests/"))
        .map(|source| &*source.name)
        .collect();
    println!("rule 4: formats names package types in {found:?}");
    assert!(found.contains(&"lib.rs"), "the formats were not found");
    let strangers: Vec<_> = found.iter().filter(|name| !TABLES.contains(name)).collect();
    assert!(strangers.is_empty(), "{strangers:?}");
}

/// One place says whether something may be asked for or may leave: access rules and quarantine are asked there only (docs/adr/0077).
#[test]
fn one_judge_decides_what_may_be_seen() {
    let engine = sources("engine");
    for (what, asked) in [
        (".classify(", "access rules"),
        ("quarantine.judge(", "quarantine"),
    ] {
        let found: Vec<&str> = engine
            .iter()
            .filter(|source| source.code.contains(what))
            .map(|source| &*source.name)
            .collect();
        println!("the judge: {asked} are asked in {found:?}");
        assert_eq!(found, ["policy/ruling.rs"], "{what}");
    }
    let makes = |source: &&Source| source.code.contains("Cleared(what)");
    let makers: Vec<&str> = engine.iter().filter(makes).map(|s| &*s.name).collect();
    assert_eq!(makers, ["policy/clearance.rs"]);
}

/// What is recognised and not built is said by `Fault::not_built` and `Fault::unbuilt`; the list of refusals that are counted names the code.
#[test]
fn what_is_not_built_is_said_in_one_place() {
    let mut found = Vec::new();
    for of in ["core", "formats", "upstream", "engine", "server", "larder"] {
        let says = |source: &Source| source.code.contains("ErrorCode::NotImplemented");
        let files = sources(of).into_iter().filter(says);
        found.extend(files.map(|source| format!("{of}/{}", source.name)));
    }
    println!("501 is said in {found:?}");
    assert_eq!(found, ["core/error.rs", "server/refused.rs"]);
}

/// What may be asked of an upstream is made where the access rules are asked (docs/adr/0074).
#[test]
fn targets_are_made_where_the_rules_are_asked() {
    let engine = sources("engine");
    let found = occurrences(&engine, "Target::new");
    println!("witnesses: Target::new occurs in {found:?}");
    assert!(!found.is_empty(), "Target::new is called otherwise by now");
    // That nobody writes one down field by field is seen by the compiler: one field is private.
    assert!(outside(&found, "policy/admission.rs").is_empty());
}

/// Codes are for users. What may be done about a fault is data beside its code, and `fault/` is where the one is made of the other.
#[test]
fn no_decision_depends_on_what_a_fault_is_called() {
    let engine = sources("engine");
    let steers = |source: &&Source| {
        let code = &source.code;
        [
            "fault.code ==",
            "fault.code !=",
            "why.code ==",
            "fault.rule.as_deref()",
        ]
        .iter()
        .any(|what| code.contains(what))
            || code.contains("match (fault.kind, fault.code)")
            || code.contains("fault.code,\n            ErrorCode::")
    };
    let found: Vec<&str> = engine
        .iter()
        .filter(|source| !source.name.starts_with("fault/"))
        .filter(steers)
        .map(|source| &*source.name)
        .collect();
    println!("codes of faults steer in {found:?}");
    assert!(found.is_empty(), "{found:?}");
}

/// The crates in which something could wait for its turn, or be remembered.
const CRATES: &[&str] = &[
    "budget", "core", "engine", "formats", "larder", "sendfile", "server", "storage", "ui",
    "upstream",
];

/// Who waits for what is scarce waits in one queue, and what is remembered is weighed in bytes.
#[test]
fn scarce_things_are_leased_in_one_place() {
    let all = CRATES.iter().flat_map(|of| {
        let named = move |source: Source| (format!("{of}/{}", source.name), source.code);
        sources(of).into_iter().map(named)
    });
    let all: Vec<(String, String)> = all.collect();
    let places = |word: &str| -> Vec<&str> {
        let with = all.iter().filter(|(_, code)| code.contains(word));
        with.map(|(name, _)| &**name).collect()
    };
    let (pools, semaphores) = (places("Pool::new("), places("Semaphore"));
    println!(
        "rule 6: of {} files in {} crates, Pool::new occurs in {pools:?}, Semaphore in {semaphores:?}",
        all.len(),
        CRATES.len()
    );
    assert!(semaphores.is_empty(), "{semaphores:?}");
    // The second is a pool of connections.
    assert_eq!(pools, ["budget/lib.rs", "storage/meta/db/postgres/mod.rs"]);
    let by_number: Vec<&str> = places("Cache::new(");
    println!("rule 6: caches weighed by number: {by_number:?}");
    // Of open files the number is what is scarce: larder/descriptors.rs shares it out.
    assert_eq!(by_number, ["storage/blob/local/open_files.rs"]);
}

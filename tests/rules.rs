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

/// Each crate with the crates of the workspace that it may be built on (ARCHITECTURE.md, "The crates").
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("larder-core", &[]),
    ("larder-sendfile", &[]),
    ("larder-formats", &["larder-core"]),
    ("larder-storage", &["larder-core"]),
    ("larder-upstream", &["larder-core"]),
    (
        "larder-engine",
        &[
            "larder-core",
            "larder-formats",
            "larder-storage",
            "larder-upstream",
        ],
    ),
    (
        "larder-server",
        &[
            "larder-core",
            "larder-engine",
            "larder-formats",
            "larder-sendfile",
        ],
    ),
    (
        "larder",
        &[
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
    ("hyper", "larder-server"),
    ("hyper-util", "larder-server"),
    ("tokio-rustls", "larder-server"),
    ("socket2", "larder-server"),
    ("prometheus-client", "larder-server"),
    ("lol_html", "larder-formats"),
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
    let home = HOMES.iter().find(|(name, _)| *name == to)?.1;
    (home != from && !tests_only).then(|| format!("{to} is used by {from}, but its home is {home}"))
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
        // The lock file names the registry that every crate comes from.
        if name == DEFAULTS || name == "Cargo.lock" {
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
const LONG_FUNCTIONS_LEFT: &[&str] = &["engine", "formats", "server"];

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

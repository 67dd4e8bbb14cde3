//! The documents say what is there: every error code has its line, links lead somewhere, and files that a page shows are the files.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests may fail loudly"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("the workspace")
        .to_owned()
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Every file below a folder of the project with one of these endings.
fn files_below(folder: &str, ending: &str) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![root().join(folder)]);
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Source texts by path, without their unit tests.
fn sources() -> BTreeMap<String, String> {
    let crates = [
        "core", "engine", "formats", "larder", "server", "storage", "upstream",
    ];
    let files = crates
        .iter()
        .flat_map(|name| files_below(&format!("crates/{name}/src"), ".rs"));
    let tests = Regex::new(r"#\[cfg\(test\)\]\nmod \w+ \{").unwrap();
    let text = |path: &PathBuf| {
        let text = fs::read_to_string(path).expect("a source file");
        tests.split(&text).next().unwrap_or_default().to_owned()
    };
    files
        .map(|path| {
            (
                path.strip_prefix(root())
                    .unwrap()
                    .to_string_lossy()
                    .into_owned(),
                text(&path),
            )
        })
        .collect()
}

#[test]
fn every_error_code_has_a_line_in_the_table_and_every_line_a_code() {
    let page = read("docs/operate/error-codes.md");
    let row = Regex::new(r"(?m)^\| `([a-z_]+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$").unwrap();
    let mut listed = BTreeSet::new();
    for captures in row.captures_iter(&page) {
        assert!(
            listed.insert(captures[1].to_owned()),
            "{} has two lines",
            &captures[1]
        );
        assert!(
            captures[2].chars().any(|c| c.is_ascii_digit()) || &captures[2] == "none",
            "a status: {}",
            &captures[0]
        );
        assert!(
            captures[3].trim().len() > 10 && captures[4].trim().len() > 3,
            "what it means, what to do: {}",
            &captures[0]
        );
    }
    let codes: BTreeSet<String> = larder_core::ErrorCode::ALL
        .iter()
        .map(|code| code.as_str().to_owned())
        .collect();
    let missing: Vec<&String> = codes.difference(&listed).collect();
    assert!(
        missing.is_empty(),
        "codes without a line in docs/operate/error-codes.md: {missing:?}"
    );
    let unknown: Vec<&String> = listed.difference(&codes).collect();
    assert!(
        unknown.is_empty(),
        "lines of docs/operate/error-codes.md whose code larder has not: {unknown:?}"
    );
    // A code that nothing gives is a line that leads users astray.
    let all: String = sources().into_values().collect();
    let unused: Vec<String> = larder_core::ErrorCode::ALL
        .iter()
        .map(|code| format!("ErrorCode::{code:?}"))
        .filter(|code| !all.contains(code.as_str()))
        .collect();
    assert!(unused.is_empty(), "codes that nothing gives: {unused:?}");
}

/// The anchors of a page: its headings, as they become anchors on the usual hosts.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut fenced = false;
    let headings = page.lines().filter(|line| {
        fenced ^= line.starts_with("```");
        !fenced && line.starts_with('#')
    });
    let anchor = |heading: &str| -> String {
        let text = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = text
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn links_between_pages_lead_somewhere() {
    let link = Regex::new(r"\]\(([^()\s]+)\)").unwrap();
    let fence = Regex::new(r"(?ms)^```.*?^```$").unwrap();
    let code = Regex::new(r"`[^`\n]*`").unwrap();
    let mut pages = files_below("docs", ".md");
    pages.extend(
        [
            "README.md",
            "ARCHITECTURE.md",
            "CONTRIBUTING.md",
            "CHANGELOG.md",
            "SECURITY.md",
        ]
        .map(|name| root().join(name)),
    );
    let (mut wrong, mut links) = (Vec::new(), 0);
    for page in &pages {
        let text = fs::read_to_string(page).expect("a page");
        let text = code
            .replace_all(&fence.replace_all(&text, ""), "")
            .into_owned();
        for target in link
            .captures_iter(&text)
            .map(|captures| captures[1].to_owned())
        {
            if target.contains("://") {
                continue;
            }
            links += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let path = if file.is_empty() {
                page.clone()
            } else {
                page.parent().unwrap().join(file)
            };
            let is_there = path.exists()
                && (anchor.is_empty()
                    || fs::read_to_string(&path).is_ok_and(|text| anchors(&text).contains(anchor)));
            if !is_there {
                wrong.push(format!(
                    "{}: {target}",
                    page.strip_prefix(root()).unwrap().display()
                ));
            }
        }
    }
    assert!(links > 100, "only {links} links were recognised");
    assert!(
        wrong.is_empty(),
        "links that lead nowhere:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn every_page_is_in_the_guides_table_of_contents() {
    let index = read("docs/guide/index.md");
    for folder in ["docs/guide", "docs/operate"] {
        for page in files_below(folder, ".md") {
            let name = page.file_name().unwrap().to_string_lossy().into_owned();
            let link = if folder == "docs/guide" {
                format!("({name})")
            } else {
                format!("(../operate/{name})")
            };
            assert!(
                name == "index.md" || index.contains(&link),
                "docs/guide/index.md does not name {name}"
            );
        }
    }
}

/// The fenced block of a page that begins with this line.
fn block(page: &str, first: &str) -> String {
    let start = page
        .find(first)
        .unwrap_or_else(|| panic!("no block begins with {first}"));
    page[start..]
        .split("\n```")
        .next()
        .unwrap_or_default()
        .to_owned()
        + "\n"
}

#[test]
fn the_unit_and_the_image_that_pages_show_are_the_files() {
    let running = read("docs/operate/running.md");
    let unit = read("packaging/larder.service");
    assert_eq!(
        block(&running, unit.lines().next().unwrap()),
        unit,
        "running.md shows another unit than packaging/larder.service"
    );
    let sysusers = read("packaging/larder.sysusers.conf");
    assert_eq!(block(&running, sysusers.lines().next().unwrap()), sysusers);
    let containers = read("docs/operate/containers.md");
    let containerfile = read("Containerfile");
    for line in ["USER 65532:65532", "VOLUME /var/lib/larder"] {
        assert!(
            containerfile.lines().any(|of_file| of_file == line) && containers.contains(line),
            "{line}"
        );
    }
}

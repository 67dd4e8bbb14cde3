use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::*;

fn read(source: &str) -> Result<Parsed, String> {
    let mut report = Report::default();
    let parsed = parse(&"f.yaml".into(), source, &mut report);
    let failed = report.has_errors();
    let text: Vec<String> = report
        .into_sorted()
        .iter()
        .map(ToString::to_string)
        .collect();
    parsed.filter(|_| !failed).ok_or_else(|| text.join("\n"))
}

fn error(source: &str) -> String {
    read(source).err().unwrap_or_default()
}

/// The tree as one line, with the line and column of each value.
fn show(node: &Node) -> String {
    let inner = match &node.value {
        Value::Null => "null".to_owned(),
        Value::Scalar { text, plain } => format!("{text}{}", if *plain { "" } else { "'" }),
        Value::List(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" ")),
        Value::Map(entries) => {
            let entry = |e: &Entry| format!("{}={}", e.key, show(&e.node));
            format!(
                "{{{}}}",
                entries.iter().map(entry).collect::<Vec<_>>().join(" ")
            )
        }
    };
    format!("{inner}@{}:{}", node.place.line, node.place.column)
}

#[test]
fn values_know_their_places() {
    let parsed = read("a: 1\nb:\n  - 'x'\n  - ~\nc: {d: }\n").unwrap();
    // An empty value stands at its colon.
    assert_eq!(
        show(&parsed.root.unwrap()),
        "{a=1@1:4 b=[x'@3:5 null@4:5]@3:3 c={d=null@5:6}@5:4}@1:1"
    );
    assert!(
        read("# nothing\n")
            .unwrap()
            .root
            .is_none_or(|root| matches!(root.value, Value::Null))
    );
}

#[test]
fn anchors_and_merge_keys_expand_as_pyyaml_does() {
    let parsed = read("base: &b {x: 1, y: 2}\nuse: {<<: *b, y: 3}\nlist: [*b]\n").unwrap();
    let shown = show(&parsed.root.unwrap());
    assert!(
        shown.contains("use={y=3@2:18 x=1@1:14}"),
        "explicit keys win: {shown}"
    );
    assert!(error("a: {<<: 3}").contains("`<<` takes a mapping"));
}

#[test]
fn duplicate_keys_are_all_reported() {
    let text = error("a: 1\na: 2\nb: {c: 1, c: 2}\n");
    assert!(
        text.contains("f.yaml:2: key `a` stands twice in this mapping (first on line 1)"),
        "{text}"
    );
    assert!(text.contains("f.yaml:3: key `c`"), "{text}");
}

#[test]
fn illegal_escapes_are_mended_and_told() {
    let source = "a: [\"\\.tgz$\", \"\\n\"]\nb: \"\\d+\\\\.x\"\n";
    let parsed = read(source).unwrap();
    assert!(show(&parsed.root.unwrap()).starts_with("{a=[\\.tgz$'@1:5 \n'"));
    let told: Vec<_> = parsed
        .repairs
        .iter()
        .map(|(at, r)| (at.line, r.written.as_str(), r.corrected.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (1, r#""\.tgz$""#, r#""\\.tgz$""#),
            (2, r#""\d+\\.x""#, r#""\\d+\\.x""#)
        ]
    );
    assert!(
        error("a: \"\\xZZ\"").contains("hexadecimal"),
        "other faults of escapes stay faults"
    );
}

#[test]
fn what_is_not_one_plain_document_is_refused() {
    assert!(error("a: 1\n---\nb: 2\n").starts_with("f.yaml:2: a second YAML document"));
    assert!(error("? [a]\n: 1\n").contains("a key must be plain text"));
    assert!(error("a: !env X\n").contains("tag `!env` is not known"));
    assert!(error("a: [1\n").contains("not valid YAML"));
    assert!(error("a:\n\t- b\n").contains("not valid YAML"));
}

#[test]
fn hazard_r3_yaml_bombs_are_bounded() {
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let previous = format!("*a{}, ", level - 1).repeat(9);
        writeln!(
            laughs,
            "a{level}: &a{level} [{}]",
            previous.trim_end_matches(", ")
        )
        .unwrap();
    }
    let mut chain = String::from("a0: &a0 [x]\n");
    for level in 1..100 {
        writeln!(chain, "a{level}: &a{level} [*a{}]", level - 1).unwrap();
    }
    let merges = format!(
        "a: &a {{x: 1}}\nb: {{<<: [{}]}}\n",
        "*a, ".repeat(300_000).trim_end_matches(", ")
    );
    let began = Instant::now();
    for (name, source, want) in [
        ("billion laughs", laughs, "after expanding anchors"),
        (
            "deep flow",
            format!("a: {}", "[".repeat(1_000_000)),
            "nested deeper than 64",
        ),
        (
            "deep block",
            "- ".repeat(1_000_000),
            "nested deeper than 64",
        ),
        ("deep by alias", chain, "nested deeper than 64"),
        ("merged over and over", merges, "after expanding anchors"),
        ("itself", "a: &a [*a]\n".to_owned(), "contains itself"),
        ("huge", "# comment\n".repeat(1_000_000), "larger than 8 MiB"),
        ("many", "- x\n".repeat(600_000), "more than 500000 values"),
    ] {
        let text = error(&source);
        assert!(
            text.contains(want),
            "{name}: {}",
            &text[..text.len().min(200)]
        );
    }
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
}

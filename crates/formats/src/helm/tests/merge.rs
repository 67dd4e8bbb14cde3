//! Several indexes as one: docs/reference/protocols/virtual.md as far as it is about bytes.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::{LinkBase, LinkKey, MergeFault, MergeMember, Merged};

/// A member: its name, its index, which names are another's, and from when on its versions are held back.
struct Member<'a> {
    name: &'a str,
    body: &'a str,
    is_anothers: Option<&'a dyn Fn(&str) -> bool>,
    held_from: Option<&'a str>,
}

fn member<'a>(name: &'a str, body: &'a str) -> Member<'a> {
    Member {
        name,
        body,
        is_anothers: None,
        held_from: None,
    }
}

/// Member `x` is the repository at `https://x.example.com/charts/`.
fn merged(members: &[Member<'_>]) -> Result<Merged, MergeFault> {
    let repositories: Vec<Repository> = members
        .iter()
        .map(|member| {
            let root = format!("https://{}.example.com/charts/", member.name);
            remote(member.name, PackageType::Helm, &root)
        })
        .collect();
    let urls: Vec<url::Url> = repositories
        .iter()
        .map(|repository| {
            repository.upstream().unwrap().base_urls[0]
                .join("index.yaml")
                .unwrap()
        })
        .collect();
    let links: Vec<Links<'_>> = repositories
        .iter()
        .map(|repository| {
            let base = LinkBase::new(format!("https://l.example/{}", repository.name));
            Links::new(repository, &LinkKey::from_bytes([7; 32]), base)
        })
        .collect();
    let held: Vec<_> = members
        .iter()
        .map(|member| {
            let from = member
                .held_from
                .map(|from| UnixMillis(from.parse::<jiff::Timestamp>().unwrap().as_millisecond()));
            move |created: Option<UnixMillis>| created.is_some_and(|at| Some(at) >= from)
        })
        .collect();
    let parts: Vec<MergeMember<'_>> = members
        .iter()
        .enumerate()
        .map(|(at, member)| MergeMember {
            document: crate::testing::document(member.body.as_bytes(), &urls[at], "index.yaml"),
            links: &links[at],
            is_anothers: member.is_anothers,
            is_held: member
                .held_from
                .is_some()
                .then_some(&held[at] as &dyn Fn(Option<UnixMillis>) -> bool),
        })
        .collect();
    Helm.merge(&parts, "index").unwrap()
}

fn text(members: &[Member<'_>]) -> String {
    String::from_utf8(merged(members).unwrap().derived.body).unwrap()
}

/// One version in the style that Helm writes.
fn version(name: &str, version: &str, more: &str) -> String {
    format!(
        "  - name: {name}\n{more}    urls:\n    - {name}-{version}.tgz\n    version: {version}\n"
    )
}

fn index(charts: &[(&str, &[&str])]) -> String {
    let mut text = "apiVersion: v1\nentries:\n".to_owned();
    for (name, versions) in charts {
        let _ = writeln!(text, "  {name}:");
        versions
            .iter()
            .for_each(|of| text.push_str(&version(name, of, "")));
    }
    text
}

/// What an index names: name, version and first URL of each entry, in order. Of the merged style alone.
fn named(text: &str) -> Vec<(String, String, String)> {
    let mut all: Vec<(String, String, String)> = Vec::new();
    let mut is_url = false;
    for line in text.lines() {
        if line.starts_with("  - ") {
            all.push(Default::default());
        }
        let Some(last) = all.last_mut() else { continue };
        let field = line.trim_start_matches("  - ").trim();
        if let Some(url) = field.strip_prefix("- ").filter(|_| is_url) {
            last.2 = url.trim_matches('"').to_owned();
        }
        is_url = field == "urls:";
        if let Some(name) = field.strip_prefix("name: ") {
            last.0 = name.trim_matches('"').to_owned();
        }
        if let Some(version) = field.strip_prefix("version: ") {
            last.1 = version.trim_matches('"').to_owned();
        }
    }
    all
}

fn names_and_versions(text: &str) -> Vec<String> {
    named(text)
        .into_iter()
        .map(|(name, version, _)| format!("{name} {version}"))
        .collect()
}

#[test]
fn virtual_1_and_2_a_union_in_which_the_first_member_wins() {
    let one = index(&[("redis", &["20.1.0", "19.0.0"]), ("vault", &["0.27.0"])]);
    let two = index(&[("nginx", &["1.0.0"]), ("redis", &["20.1.0", "20.2.0"])]);
    let want = "\
apiVersion: v1
entries:
  nginx:
  - name: nginx
    urls:
    - https://l.example/two/nginx-1.0.0.tgz
    version: 1.0.0
  redis:
  - name: redis
    urls:
    - https://l.example/two/redis-20.2.0.tgz
    version: 20.2.0
  - name: redis
    urls:
    - https://l.example/one/redis-20.1.0.tgz
    version: 20.1.0
  - name: redis
    urls:
    - https://l.example/one/redis-19.0.0.tgz
    version: 19.0.0
  vault:
  - name: vault
    urls:
    - https://l.example/one/vault-0.27.0.tgz
    version: 0.27.0
";
    assert_eq!(text(&[member("one", &one), member("two", &two)]), want);
}

#[test]
fn versions_are_newest_first_and_what_is_none_is_last() {
    let one = index(&[("a", &["1.2.0", "x", "1.10.0", "1.10.0-rc.1"])]);
    let two = index(&[("a", &["v2.0.0", "1.2.0+b"])]);
    let both = [member("one", &one), member("two", &two)];
    assert_eq!(
        names_and_versions(&text(&both)),
        [
            "a v2.0.0",
            "a 1.10.0",
            "a 1.10.0-rc.1",
            "a 1.2.0",
            "a 1.2.0+b",
            "a x"
        ]
    );
}

#[test]
fn charts_are_grouped_by_the_names_of_their_entries() {
    let one = index(&[("a", &["1.0.0"])]).replace("  a:\n", "  another:\n");
    let two = index(&[("a", &["2.0.0"])]);
    let text = text(&[member("one", &one), member("two", &two)]);
    assert_eq!(names_and_versions(&text), ["a 2.0.0", "a 1.0.0"]);
    assert_eq!(text.matches("  a:\n").count(), 1);
    assert!(!text.contains("another"));
}

/// The list of docs/reference/protocols/helm.md, section 3.8, and what YAML 1.1 takes for times.
#[test]
fn scalars_that_are_no_texts_are_quoted_with_the_text_that_they_have() {
    for scalar in [
        "1.10",
        "1e3",
        "0x1F",
        "12345678901234567890123",
        "yes",
        "on",
        "2024-01-02",
        "12:30:00",
        "017",
        "true",
        "1_000",
        ".5",
    ] {
        let fields = format!(
            "    annotations:\n      a: {scalar}\n    appVersion: {scalar}\n    keywords:\n    - {scalar}\n    maintainers:\n    - name: {scalar}\n"
        );
        let body = format!(
            "apiVersion: v1\nentries:\n  a:\n{}",
            version("a", "1.0.0", &fields)
        );
        let text = text(&[member("one", &body)]);
        let quoted = fields.replace(&format!(" {scalar}\n"), &format!(" \"{scalar}\"\n"));
        assert!(text.contains(&quoted), "{scalar}: {text}");
    }
}

#[test]
fn everything_else_stays_as_it_stands() {
    let fields = r#"    # a comment
    annotations:
      note: |
        two
          lines: of # text
      empty:
    appVersion: "1.10"
    created: 2024-01-02T03:04:05.678Z
    dependencies:
    - condition: x.enabled
      enabled: yes
      import-values:
      - child: a
        parent: b
      name: 'it''s'
    deprecated: false
    description: >-
      folded
      text
    digest: null
    icon: ~
    kubeVersion: ">= 1.2 < 2"
    sources: []
    type: application
"#;
    let body = format!(
        "apiVersion: v1\nentries:\n  a:\n{}",
        version("a", "1.0.0", fields)
    );
    let merged = merged(&[member("one", &body)]).unwrap();
    let text = String::from_utf8(merged.derived.body).unwrap();
    assert_eq!(
        text,
        body.replace("- a-1.0.0.tgz", "- https://l.example/one/a-1.0.0.tgz")
    );
    assert_eq!(merged.remarks, []);
}

#[test]
fn entries_move_to_the_column_of_the_merged_index() {
    let deep = "\
apiVersion: v1
entries:
    a:
        -   name: a
            description: |
                one
                  two

                three
            urls: 
                - a.tgz
            version: 1.0.0
";
    let flat =
        "entries:\n a:\n - version: 2.0.0\n   name: a\n   urls:\n   - b.tgz\napiVersion: v1\n";
    let want = "\
apiVersion: v1
entries:
  a:
  - version: 2.0.0
    name: a
    urls:
    - https://l.example/two/b.tgz
  -   name: a
      description: |
          one
            two

          three
      urls: 
          - https://l.example/one/a.tgz
      version: 1.0.0
";
    assert_eq!(text(&[member("one", deep), member("two", flat)]), want);
}

#[test]
fn an_entry_that_helm_would_refuse_is_left_out_with_a_remark() {
    for (fields, why) in [
        ("    unknown: 1\n", "does not know the key \"unknown\""),
        ("    home: a\n    home: b\n", "\"home\" stands twice"),
        ("    keywords: a\n", "is no list"),
        ("    deprecated: maybe\n", "is no true or false"),
        ("    deprecated: \"true\"\n", "is no true or false"),
        ("    created: yesterday\n", "is no time"),
        (
            "    annotations:\n      a:\n        b: c\n",
            "a text should be",
        ),
        (
            "    annotations:\n      a: b\n      a: c\n",
            "\"a\" stands twice",
        ),
        ("    maintainers:\n    - somebody\n", "is no mapping"),
        (
            "    dependencies:\n    - version:\n      - 1\n",
            "a text should be",
        ),
        ("    description: [a]\n", "a text should be"),
        ("    deprecated: oN\n", "is no true or false"),
        ("    removed: tRue\n", "is no true or false"),
        (
            "    dependencies:\n    - name: x\n      enabled: YeS\n",
            "is no true or false",
        ),
        (
            "    dependencies:\n    - name: x\n      import-values:\n        child: a\n        parent: b\n",
            "a list should be",
        ),
        (
            "    dependencies: [{name: x, import-values: {child: a, parent: b}}]\n",
            "a list should be",
        ),
        (
            "    dependencies:\n    - name: x\n      import-values: a\n",
            "is no list",
        ),
        (
            "    dependencies:\n    - name: x\n      import-values: 5\n",
            "is no list",
        ),
        (
            "    dependencies:\n    - name: x\n      import-values:\n      - .NaN\n",
            "\".NaN\" is no finite value",
        ),
        (
            "    dependencies: [{name: x, import-values: [[{a: -.inf}]]}]\n",
            "\"-.inf\" is no",
        ),
        ("    created: 2024-01-02T03:04:05+25:00\n", "is no time"),
        ("    annotations:\n      ~: a\n", "a key is null"),
        (
            "    annotations:\n      yes: a\n      True: b\n",
            "\"True\" stands twice",
        ),
        (
            "    annotations:\n      1.10: a\n      1.1: b\n",
            "\"1.1\" stands twice",
        ),
        (
            "    dependencies:\n    - name: x\n      import-values:\n      - {017: a, 0xf: b}\n",
            "\"0xf\" stands twice",
        ),
        (
            "    description: !!binary aGVsbG8=\n",
            "aliases or !!binary",
        ),
        (
            "    annotations:\n      !!binary aGVsbG8=: x\n",
            "aliases or !!binary",
        ),
        ("    home: \"a\\/b\"\n", "escape"),
        ("    annotations:\n      \"a\\/b\": c\n", "escape"),
    ] {
        let body = format!(
            "apiVersion: v1\nentries:\n  a:\n{}{}",
            version("a", "1.0.0", fields),
            version("a", "0.9.0", "")
        );
        let merged = merged(&[member("one", &body)]).unwrap();
        let text = String::from_utf8(merged.derived.body).unwrap();
        assert_eq!(names_and_versions(&text), ["a 0.9.0"], "{fields}");
        let [(0, remark)] = &merged.remarks[..] else {
            panic!("{fields}: {:?}", merged.remarks);
        };
        assert!(
            remark.starts_with("1 entries") && remark.contains(why),
            "{fields}: {remark}"
        );
    }
    let nameless =
        "apiVersion: v1\nentries:\n  a:\n  - version: 1.0.0\n  - name: a\n    version: null\n";
    let merged = merged(&[member("one", nameless)]).unwrap();
    assert_eq!(merged.derived.body, b"apiVersion: v1\nentries: {}\n");
    assert!(
        merged.remarks[0].1.contains("it has no name"),
        "{:?}",
        merged.remarks
    );
}

/// Each of these `helm repo add` takes (3 and 4).
#[test]
fn what_helm_takes_is_in_the_merged_index() {
    for fields in [
        "    created: 2024-01-02T03:04:05.1234567890123Z\n",
        "    created: \"2024-01-02T3:04:05,5Z\"\n",
        "    created: 9999-12-31T23:59:59Z\n",
        "    created: 2024-01-02T03:04:05+24:60\n",
        "    deprecated: y\n",
        "    annotations:\n      yes: a\n      no: b\n",
        "    annotations:\n      2: a\n      2.5: b\n      2.50.0: c\n      \"2.50\": d\n",
        "    home: a\\/b\n",
        "    dependencies:\n    - name: x\n      import-values:\n      - null\n      - a\n      - child: 1.5\n",
        "    dependencies:\n    - name: x\n      import-values:\n",
    ] {
        let body = format!(
            "apiVersion: v1\nentries:\n  a:\n{}",
            version("a", "1.0.0", fields)
        );
        let merged = merged(&[member("one", &body)]).unwrap();
        assert_eq!(merged.remarks, [], "{fields}");
        let text = String::from_utf8(merged.derived.body).unwrap();
        assert_eq!(names_and_versions(&text), ["a 1.0.0"], "{fields}");
    }
}

/// Helm takes the keys of YAML in the order of their bytes, those of JSON as they stand, and the last of one field.
#[test]
fn of_a_key_in_two_spellings_the_usual_one_counts() {
    let other = index(&[("a", &["0.5.0"])]);
    for fields in [
        "name: a\n    Name: b",
        "NAME: b\n    name: a\n    Home: c\n    home: d",
    ] {
        let body = format!(
            "apiVersion: v1\nentries:\n  key:\n  - Version: 0.1.0\n    {fields}\n    version: 1.0.0\n    urls: []\n"
        );
        let both = merged(&[member("two", &other), member("one", &body)]).unwrap();
        assert_eq!(both.remarks, [], "{fields}");
        let text = String::from_utf8(both.derived.body).unwrap();
        assert_eq!(
            names_and_versions(&text),
            ["a 1.0.0", "a 0.5.0"],
            "{fields}"
        );
        assert!(!text.contains("  b:"), "{text}");
    }
    let twice = "apiVersion: v1\nentries:\n  a:\n  - name: a\n    Name: b\n    Name: c\n    version: 1.0.0\n";
    let json = r#"{"apiVersion": "v1", "entries": {"a": [{"name": "a", "Name": "b", "version": "1.0.0", "urls": []}]}}"#;
    for body in [twice, json] {
        let merged = merged(&[member("one", body)]).unwrap();
        assert!(merged.remarks[0].1.contains("stands twice"), "{body}");
    }
}

/// YAML 1.2 section 6.5: a line break within a text is a space, or none where it is escaped.
#[test]
fn texts_over_several_lines_have_the_value_that_they_have_on_one() {
    let body = r#"apiVersion: v1
entries:
  ab:
  - name: "a\
      b"
    created: "2024-01-02T03:04:05\
      Z"
    urls:
    - "a\
      b.tgz"
    version: "1.0\
      .0"
"#;
    let young = Member {
        held_from: Some("2024-01-01T00:00:00Z"),
        ..member("one", body)
    };
    assert_eq!(text(&[young]), "apiVersion: v1\nentries: {}\n");
    let other = index(&[("ab", &["1.0.0", "0.9.0"])]);
    let both = merged(&[member("one", body), member("two", &other)]).unwrap();
    assert_eq!(both.remarks, []);
    let text = String::from_utf8(both.derived.body).unwrap();
    assert!(
        text.contains("    - \"https://l.example/one/ab.tgz\"\n"),
        "{text}"
    );
    // Of what both have the first member's stays.
    let versions = ["1.0.0", "0.9.0"].map(|of| text.matches(&format!("version: {of}\n")).count());
    assert_eq!(versions, [0, 1], "{text}");
}

/// YAML 1.2 section 8.1.1: the header of a block scalar has two indicators in either order, and may have a comment.
#[test]
fn names_versions_and_links_may_be_blocks_with_any_header() {
    for (header, spaces) in [
        ("|- # c", 2),
        (">-1", 1),
        ("|1- # >", 1),
        (">-\t# |+", 3),
        ("|3-", 3),
    ] {
        let block = |column: usize, text: &str| {
            format!("{header}\n{:width$}{text}", "", width = column + spaces)
        };
        let body = format!(
            "apiVersion: v1\nentries:\n  key:\n  - name: {}\n    urls:\n    - {}\n    version: {}\n",
            block(4, "a"),
            block(4, "a.tgz"),
            block(4, "1.0.0"),
        );
        for index in [
            body.clone(),
            body.replace("apiVersion: v1", "apiVersion: &x v1"),
        ] {
            let merged = merged(&[member("one", &index)]).unwrap();
            assert_eq!(merged.remarks, [], "{index}");
            let text = String::from_utf8(merged.derived.body).unwrap();
            assert!(text.contains("https://l.example/one/a.tgz"), "{text}");
            assert!(
                derive(&index).contains(&format!("{LARDER}a.tgz")),
                "{index}"
            );
            let names = names::of(index.as_bytes()).unwrap();
            assert!(names.contains("a"), "{index}");
        }
    }
}

/// SemVer 2.0.0 section 10: build metadata has no precedence. The versions are several all the same, and each stands once.
#[test]
fn versions_of_one_precedence_are_told_apart_by_their_text() {
    let builds: Vec<String> = (0..100).map(|build| format!("1.0.0+{build}")).collect();
    let all: Vec<&str> = builds.iter().map(String::as_str).collect();
    let (some, backwards) = (
        all[30..].to_vec(),
        all.iter().rev().copied().collect::<Vec<_>>(),
    );
    let one = index(&[("a", &some[..]), ("b", &["1.0.0+1", "1.0.0+1"])]);
    let two = index(&[("b", &["1.0.0+2", "v1.0.0+1"]), ("a", &backwards[..])]);
    let text = text(&[member("one", &one), member("two", &two)]);
    let wanted = some
        .iter()
        .chain(&backwards[70..])
        .map(|version| format!("a {version}"));
    let others = ["1.0.0+1", "1.0.0+2", "v1.0.0+1"].map(|version| format!("b {version}"));
    let wanted: Vec<String> = wanted.chain(others).collect();
    assert_eq!(names_and_versions(&text), wanted);
}

/// YAML 1.2 section 6.1: a tab separates as a space does. Within texts it is a tab.
#[test]
fn a_tab_may_follow_a_colon() {
    let body = "apiVersion:\tv1\nEntries:\n  a:\n  - name:\ta\n    version:\t\t1.0.0\n    home: \"h:\tx:\t\n      y: z\"\n    description: |\n      make:\tall:\t\n        x: y\n    annotations: {k:\tv, 'q:\tr':\ts}\n    urls:\n    - a.tgz\n";
    let want = "\
apiVersion: v1
entries:
  a:
  - name: a
    version: 1.0.0
    home: \"h:\\tx: y: z\"
    description: \"make:\\tall:\\t\\n  x: y\\n\"
    annotations:
      k: v
      \"q:\\tr\": s
    urls:
    - https://l.example/one/a.tgz
";
    assert_eq!(text(&[member("one", body)]), want);
    assert_eq!(
        derive(body),
        body.replace("- a.tgz", &format!("- {LARDER}a.tgz"))
    );
}

/// YAML 1.1 and 1.2: clipping and keeping leave the line breaks that are there.
#[test]
fn a_text_that_ends_the_index_without_a_line_break_gets_none() {
    for header in ["|", ">", "|+", "|-"] {
        let body = format!(
            "apiVersion: v1\nentries:\n  a:\n{}    description: {header}\n      end",
            version("a", "1.0.0", "")
        );
        for index in [
            body.clone(),
            body.replacen("  - name", "  - &x\n    name", 1),
        ] {
            let text = text(&[member("one", &index)]);
            assert!(
                text.ends_with("    description: \"end\"\n"),
                "{header}: {text}"
            );
        }
    }
    let ended = format!(
        "apiVersion: v1\nentries:\n  a:\n{}    description: |\n      end\n",
        version("a", "1.0.0", "")
    );
    assert!(text(&[member("one", &ended)]).ends_with("    description: |\n      end\n"));
}

/// As Go's reader of JSON does.
#[test]
fn halves_of_pairs_in_json_are_marks() {
    let json = r#"{"apiVersion": "v1", "entries": {"a": [{"name": "a", "version": "1.0.0", "description": "\ud800x",
        "appVersion": "1\udc00", "annotations": {"k\udfff": "\ud83d\ud83d\ude00"}, "urls": ["a.tgz"]}]}}"#;
    let text = text(&[member("one", json)]);
    for want in [
        "    description: \"\u{fffd}x\"\n",
        "    appVersion: \"1\u{fffd}\"\n",
        "      \"k\u{fffd}\": \"\u{fffd}\u{1f600}\"\n",
    ] {
        assert!(text.contains(want), "{want}{text}");
    }
}

#[test]
fn json_is_read_as_leniently_as_helm_reads_it_and_written_as_yaml() {
    let json = r#"{"entries": {"a": [null, {}, {"urls": ["sub/a-1.0.0.tgz"], "unknown": {"x": [1, {}]}, "name": "a", "version": "1.0.0",
        "appVersion": 1.10, "annotations": {}, "description": "tab\t \ud83d\ude00 \u0085 \"q\"", "dependencies": [{"name": "b", "odd": [], "tags": []}],
        "created": "2024-01-02T03:04:05Z"}]}, "serverInfo": {"contextPath": "/x"}, "apiVersion": "v1", "generated": "2024-05-06T07:08:09Z"}"#;
    let want = "\
apiVersion: v1
entries:
  a:
  - urls:
    - \"https://l.example/one/sub/a-1.0.0.tgz\"
    name: \"a\"
    version: \"1.0.0\"
    appVersion: \"1.10\"
    annotations: {}
    description: \"tab\\t \u{1f600} \\u0085 \\\"q\\\"\"
    dependencies:
    - name: \"b\"
      tags: []
    created: \"2024-01-02T03:04:05Z\"
generated: \"2024-05-06T07:08:09Z\"
";
    assert_eq!(text(&[member("one", json)]), want);
}

#[test]
fn any_other_yaml_becomes_the_same_style() {
    let yaml = "%YAML 1.1\n---\nentries:\n  ? a\n  :\n    - {name: a, version: !!str 1.10, urls: [a.tgz],\n       description: \"two\n        lines\", keywords: [x, z], appVersion: 1.0}\n    -\n      name: a\n      version: 2.0.0\n      description: plain\u{2028}break\n      urls: [b.tgz]\n    - &anchor {name: c, version: 1.0.0}\n    - *anchor\n    - name: d\n      version: 1.0.0\n      home: *anchor\napiVersion: v1\n";
    let merged = merged(&[member("one", yaml)]).unwrap();
    let text = String::from_utf8(merged.derived.body).unwrap();
    let want = "\
apiVersion: v1
entries:
  a:
  - name: a
    version: 2.0.0
    description: \"plain\\u2028break\"
    urls:
    - https://l.example/one/b.tgz
  - name: a
    version: \"1.10\"
    urls:
    - https://l.example/one/a.tgz
    description: \"two lines\"
    keywords:
    - x
    - z
    appVersion: \"1.0\"
  c:
  - name: c
    version: 1.0.0
";
    assert_eq!(text, want);
    assert!(
        merged.remarks[0].1.starts_with("2 entries") && merged.remarks[0].1.contains("aliases"),
        "{:?}",
        merged.remarks
    );
}

#[test]
fn virtual_10_links_are_those_of_the_member_that_has_them() {
    let body = "apiVersion: v1\nentries:\n  a:\n  - name: a\n    urls:\n    - charts/a.tgz\n    - https://two.example.com/charts/a.tgz\n    - oci://registry.example.com/a\n    version: 1.0.0\n";
    let text = text(&[member("one", body)]);
    assert!(
        text.contains(
            "    - https://l.example/one/charts/a.tgz\n    - https://l.example/one/_ext/"
        ),
        "{text}"
    );
    assert!(
        text.contains("/two.example.com/charts/a.tgz\n    - oci://registry.example.com/a\n"),
        "{text}"
    );
}

#[test]
fn a_name_that_is_another_s_is_left_out() {
    let public = index(&[("acme-web", &["9.9.9"]), ("redis", &["1.0.0"])]);
    let own = index(&[("acme-api", &["1.0.0"])]);
    let is_anothers = |name: &str| name.starts_with("acme-");
    let other = Member {
        is_anothers: Some(&is_anothers),
        ..member("public", &public)
    };
    let text = text(&[other, member("own", &own)]);
    assert_eq!(names_and_versions(&text), ["acme-api 1.0.0", "redis 1.0.0"]);
}

#[test]
fn virtual_26_a_version_that_is_held_back_is_nobody_else_s_to_fill_in_for() {
    let dated = |at: &str| {
        let fields = format!("    created: \"{at}\"\n");
        format!(
            "apiVersion: v1\nentries:\n  a:\n{}{}",
            version("a", "2.0.0", &fields),
            version("a", "1.0.0", "    created: \"2020-01-01T00:00:00Z\"\n")
        )
    };
    let (young, old) = (dated("2024-06-01T00:00:00Z"), dated("2019-01-01T00:00:00Z"));
    let holding = || Member {
        held_from: Some("2024-05-01T00:00:00Z"),
        ..member("one", &young)
    };
    let both = text(&[holding(), member("two", &old)]);
    assert_eq!(names_and_versions(&both), ["a 1.0.0"]);
    let other_way = text(&[member("two", &old), holding()]);
    assert_eq!(names_and_versions(&other_way), ["a 2.0.0", "a 1.0.0"]);
}

#[test]
fn generated_is_the_newest_that_a_member_states() {
    let at = |time: &str| format!("{}generated: {time}\n", index(&[("a", &["1.0.0"])]));
    let (one, two) = (
        at("\"2024-01-02T03:04:05.5+02:00\""),
        at("2024-01-02T02:00:00Z"),
    );
    let text = text(&[member("one", &one), member("two", &two)]);
    assert!(
        text.ends_with("generated: \"2024-01-02T02:00:00Z\"\n"),
        "{text}"
    );
}

#[test]
fn one_member_that_cannot_be_read_is_named() {
    let good = index(&[("a", &["1.0.0"])]);
    let fault = merged(&[
        member("one", &good),
        member("two", "apiVersion: v1\nentries: {a: [\n"),
    ]);
    assert_eq!(fault.map_err(|fault| fault.member), Err(1));
}

/// Real documents of several writers: nothing is refused, everything is there, and a merge of the merge is the same.
#[test]
fn virtual_9_what_was_merged_is_merged_into_itself() {
    let members = [
        member("four", HELM_4),
        member("three", HELM_STYLE),
        member("releaser", RELEASER),
        member("museum", MUSEUM),
        member("handwritten", HANDWRITTEN),
    ];
    let first = merged(&members).unwrap();
    assert_eq!(merged(&members).unwrap(), first);
    let text = String::from_utf8(first.derived.body).unwrap();
    let all: HashSet<_> = names_and_versions(&text).into_iter().collect();
    assert_eq!(all.len(), named(&text).len(), "each stands once");
    for one in &members {
        let of_one = names_and_versions(&self::text(std::slice::from_ref(one)));
        assert!(!of_one.is_empty(), "{}", one.name);
        assert!(of_one.iter().all(|name| all.contains(name)), "{}", one.name);
    }
    // Its links lead to larder, and so out of the member that it is taken for here.
    let again = self::text(&[member(
        "again",
        &text.replace("https://l.example/", "oci://l.example/"),
    )]);
    assert_eq!(
        again.replace("oci://l.example/", "https://l.example/"),
        text
    );
}

#[test]
fn a_file_is_of_the_chart_that_its_name_begins_with() {
    for (path, name) in [
        ("redis-20.1.0.tgz", Some("redis")),
        ("sub/redis-v1.tgz", Some("redis")),
        ("redis-1.0.0-2.0.0.tgz", Some("redis")),
        ("redis-ha-1.0.0.tgz", Some("redis-ha")),
        ("redis-vault-1.0.0.tgz", Some("redis-vault")),
        ("redis-v2-1.0.0.tgz", Some("redis-v2")),
        ("redis-1password-1.0.0.tgz", Some("redis-1password")),
        ("redis-20240102.tgz", Some("redis")),
        ("redis-vault.tgz", None),
        ("redis.tgz", None),
        ("1.0.0/redis.tgz", None),
    ] {
        assert_eq!(Helm.likely_name(path), name, "{path}");
    }
}

proptest! {
    /// Whatever is in them: merging does not fail on what passed the check, and does the same twice.
    #[test]
    fn any_text_is_merged_or_refused(
        fields in proptest::collection::vec("(name|version|urls|home|keywords|created|x): ?[-a-z0-9.\"'{}\\[\\]&*|>: \u{2028}\u{85}]{0,12}", 0..6)
    ) {
        let mut body = "apiVersion: v1\nentries:\n  a:\n  - name: a\n    version: 1.0.0\n  - description: b\n".to_owned();
        for field in &fields {
            let _ = writeln!(body, "    {field}");
        }
        if let Ok(first) = merged(&[member("one", &body)]) {
            let text = String::from_utf8(first.derived.body.clone()).unwrap();
            prop_assert!(names_and_versions(&text).iter().any(|one| one == "a 1.0.0"), "{}", text);
            prop_assert_eq!(merged(&[member("one", &body)]).unwrap(), first);
            // Helm would read it: it passes larder's own check, and nothing more is left out of it.
            prop_assert!(with_document("https://l.example/index.yaml", &text, |document| Helm.check(&stable(), document, &document.meter())).is_ok());
            prop_assert_eq!(merged(&[member("two", &text)]).unwrap().remarks, vec![]);
        }
    }
}

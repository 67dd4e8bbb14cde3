use proptest::prelude::*;
use proptest::strategy::ValueTree as _;

use super::*;
use crate::helm::events;

/// An event as both readers must see it: collections, and scalars by their text.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Start(Kind),
    End,
    Scalar(Style, String),
    Alias,
}

struct Recorder<'a> {
    text: &'a str,
    seen: Vec<Seen>,
}

impl Sink for Recorder<'_> {
    fn start(&mut self, kind: Kind) -> Result<(), Malformed> {
        self.seen.push(Seen::Start(kind));
        Ok(())
    }

    fn end(&mut self) {
        self.seen.push(Seen::End);
    }

    fn scalar(&mut self, span: Span) {
        // The readers differ in whether blank lines around a block scalar are part of it.
        let text = self.text[span.range()].trim_matches([' ', '\n', '\t']);
        self.seen.push(Seen::Scalar(span.style, text.to_owned()));
    }

    fn alias(&mut self, _anchor: usize) {
        self.seen.push(Seen::Alias);
    }
}

fn by_lines(text: &str) -> Option<Vec<Seen>> {
    let mut recorder = Recorder {
        text,
        seen: Vec::new(),
    };
    read(text, &mut recorder).unwrap().then_some(recorder.seen)
}

fn by_events(text: &str) -> Result<Vec<Seen>, Malformed> {
    let mut recorder = Recorder {
        text,
        seen: Vec::new(),
    };
    events::read(text, &mut recorder).map(|()| recorder.seen)
}

/// What indexes are made of.
fn usual() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "a: b",
        "urls:",
        "k:",
        "- https://h.example/x.tgz",
        "- name: x",
        "- k:",
        "- - y",
        "key: 'q: # r'",
        "key: \"q\\\" \\u00e9\"",
        "text: |",
        "text: >-",
        "- |-",
        "plain words",
        "plain: words # note",
        "# note",
        "",
        "e: []",
        "- {}",
        "é: ü",
        "k: http://h/#f",
    ])
}

/// What could be mistaken for it.
fn odd() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "- ",
        "-",
        "key: \"open",
        "close\"",
        "key: 'open",
        "close'",
        "text: |2-",
        "text: |1",
        "text: |+ # c",
        "   ",
        "e: [a]",
        "k: &x y",
        "k: *x",
        "k: !t y",
        "- é",
        "a:b",
        "a: b: c",
        "'q': r",
        "\"q\": r",
        "'q' r",
        "k:  \"v\"  # c",
        "k: v ",
        "k: a#b",
        "? x",
        "---",
        "...",
        "- 'it''s'",
        "k: - x",
        "k: -x",
        "k: ~",
        "#",
        "k: \"\\.\"",
        "k: '",
        "\"",
        "k: \"a\" b",
        "k:\tv",
        "k: v\t# c",
        ": v",
        "-x: y",
        "\t",
        " \tx",
        "k: \"a\\",
        "k : v",
        "k: >2",
        "- \"a\": b",
        "k: | x",
        "k: []x",
        "k: [] # c",
        "k: '' # c",
        "k: %x",
        "@x: y",
        "k: ?x",
        "k: :x",
        "?x: y",
        "k: a]",
        "k: \"\\ud83d\"",
        "k: \"\\U0001F680\"",
    ])
}

fn document() -> impl Strategy<Value = String> {
    let fragment = prop_oneof![9 => usual(), 1 => odd()];
    let step = prop::sample::select(vec![0isize, 0, 0, 0, 1, 2, 2, -1, -2, -2, -4, 5]);
    prop::collection::vec((step, fragment), 1..12).prop_map(|lines| {
        let mut indent = 0usize;
        let mut text = String::new();
        for (step, fragment) in lines {
            indent = if text.is_empty() {
                0
            } else {
                indent.saturating_add_signed(step)
            };
            text.extend([" ".repeat(indent).as_str(), fragment, "\n"]);
            // What opens a collection is most often followed by it.
            if fragment.ends_with(':') || fragment.ends_with(['|', '-']) {
                indent += 2;
            }
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the line scanner accepts, the real parser accepts too and sees the same in it.
    #[test]
    fn scanner_and_parser_agree(text in document()) {
        if let Some(seen) = by_lines(&text) {
            prop_assert_eq!(Ok(seen), by_events(&text), "{}", text);
        }
    }
}

/// The property above says nothing unless many of its documents are accepted.
#[test]
fn the_property_is_not_vacuous() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let accepted = (0..1000)
        .filter(|_| by_lines(&document().new_tree(&mut runner).unwrap().current()).is_some())
        .count();
    assert!(accepted >= 100, "{accepted} of 1000");
}

#[test]
fn the_style_of_helm_is_recognised() {
    for text in [
        include_str!("../testdata/helm-4-repo-index.yaml"),
        include_str!("../testdata/helm-repo-index.yaml"),
        include_str!("../testdata/chart-releaser.yaml"),
        include_str!("../testdata/chartmuseum.yaml"),
        include_str!("../testdata/handwritten.yaml"),
    ] {
        let seen = by_lines(text).expect("recognised");
        assert_eq!(Ok(seen), by_events(text));
    }
}

#[test]
fn what_is_not_known_is_left_to_the_parser() {
    for text in [
        "a: [b]\n",
        "a: &x b\n",
        "a: *x\n",
        "a: !t b\n",
        "? a\n",
        "a:\r\n",
        "\u{feff}a: b\n",
        "%YAML 1.2\n---\na: b\n",
        "a\n",
        "",
        "a:\tb\n",
        "a: \"\n",
        "a: |\n",
    ] {
        assert_eq!(by_lines(text), None, "{text:?}");
    }
}

use proptest::prelude::*;

use super::*;

const PLAIN: PathRules = PathRules {
    encoded_scope_slash: false,
};
const NPM: PathRules = PathRules {
    encoded_scope_slash: true,
};

fn refusal(raw: &str) -> PathError {
    ArtifactPath::parse(raw, NPM).expect_err(raw)
}

#[test]
fn legal_paths_are_decoded_once_and_keep_their_encoding() {
    let rows = [
        ("", "", ""),
        ("/", "", ""),
        ("a", "a", "a"),
        ("/a/b.tgz", "a/b.tgz", "a/b.tgz"),
        ("a/b/", "a/b/", "a/b/"),
        ("a%20b/c%2Bd+e", "a b/c+d+e", "a%20b/c%2Bd+e"),
        ("a%2eb/c%7e", "a.b/c~", "a%2eb/c%7e"),
        ("...", "...", "..."),
        ("..a/b..", "..a/b..", "..a/b.."),
        ("caf%C3%A9", "café", "caf%C3%A9"),
        ("café", "café", "caf%C3%A9"),
        (
            "a b\"<>{}|^`[]",
            "a b\"<>{}|^`[]",
            "a%20b%22%3C%3E%7B%7D%7C%5E%60%5B%5D",
        ),
        ("100%", "100%", "100%25"),
        ("100%/x", "100%/x", "100%25/x"),
        ("%zz%4", "%zz%4", "%25zz%254"),
        ("100%25", "100%", "100%25"),
        ("%2530", "%30", "%2530"),
        (
            "a;b=1/c:d@e!$&'()*,",
            "a;b=1/c:d@e!$&'()*,",
            "a;b=1/c:d@e!$&'()*,",
        ),
        ("a%3Fb%23c", "a?b#c", "a%3Fb%23c"),
    ];
    for (raw, decoded, encoded) in rows {
        let path = ArtifactPath::parse(raw, PLAIN).expect(raw);
        assert_eq!((path.as_str(), path.encoded()), (decoded, encoded), "{raw}");
    }
}

#[test]
fn hazard_s1_everything_that_could_be_read_twice_is_refused() {
    use PathError::{Backslash, DotSegment, DoubleEncoded, EncodedSlash, NotUtf8};
    let rows = [
        ("..", DotSegment),
        ("%2e", DotSegment),
        ("a/../b", DotSegment),
        ("a/./../b", DotSegment),
        ("a//../b", DotSegment),
        ("a/%2e/b", DotSegment),
        ("a/b/%2E", DotSegment),
        ("a/.;/b", DotSegment),
        ("a/..", DotSegment),
        ("a/../", DotSegment),
        ("%2e%2e/secret", DotSegment),
        ("%2E./secret", DotSegment),
        ("/../x", DotSegment),
        ("a/..;/b", DotSegment),
        ("a/..;x=1/b", DotSegment),
        ("a\\b", Backslash),
        ("a%5c..%5cb", Backslash),
        ("a%5Cb", Backslash),
        ("a%2fb", EncodedSlash),
        ("a/%2F..%2Fb", EncodedSlash),
        ("%2F%2F..%2F", EncodedSlash),
        ("%252e%252e/x", DoubleEncoded),
        ("a%252Fb", DoubleEncoded),
        ("a%255cb", DoubleEncoded),
        ("a%255Cb", DoubleEncoded),
        ("a%2500b", DoubleEncoded),
        ("a%2525b", DoubleEncoded),
        ("%%32%65", DoubleEncoded),
        ("%2%65", DoubleEncoded),
        ("a%ff", NotUtf8),
        ("%c0%ae%c0%ae/x", NotUtf8),
    ];
    for (raw, expected) in rows {
        assert_eq!(refusal(raw), expected, "{raw}");
    }
}

/// RFC 3986 section 5.2.4 for `.`; the upstream is asked for the same as by a client that never wrote the idle segments.
#[test]
fn idle_segments_are_folded_into_one_spelling() {
    let rows = [
        ("./x.deb", "x.deb"),
        ("a/./b", "a/b"),
        ("a/././b", "a/b"),
        ("a//b", "a/b"),
        ("a///b", "a/b"),
        ("/a", "a"),
        ("//a/b", "a/b"),
        ("/./a", "a"),
        ("a/.//./b", "a/b"),
        (".", ""),
        ("./", ""),
        ("//", ""),
        ("a/.", "a/"),
        ("a/./", "a/"),
        ("a//", "a/"),
        ("a/b/.//", "a/b/"),
        ("a/b%2Bc/./d%20e", "a/b%2Bc/d%20e"),
        ("a/.hidden/..b/...", "a/.hidden/..b/..."),
        (".hidden", ".hidden"),
    ];
    for (raw, spelling) in rows {
        let (path, plain) = (
            ArtifactPath::parse(raw, PLAIN).expect(raw),
            ArtifactPath::parse(spelling, PLAIN).unwrap(),
        );
        assert_eq!((&path, path.encoded()), (&plain, spelling), "{raw}");
    }
    assert!(
        matches!(fold_segments("a/b/"), Cow::Borrowed("a/b/")),
        "what has nothing to fold is not copied"
    );
    assert_eq!(
        ArtifactPath::parse(&format!("{}a", "./".repeat(3000)), PLAIN)
            .unwrap()
            .as_str(),
        "a",
        "what is left counts"
    );
}

#[test]
fn hazard_s21_nul_and_control_characters_and_long_names_are_refused() {
    for raw in [
        "a%00b", "a%0d%0ab", "%1f", "%7F", "a\u{1}", "a\tb", "a%C2%85b",
    ] {
        assert_eq!(refusal(raw), PathError::Control, "{raw:?}");
    }
    assert!(ArtifactPath::parse(&"a".repeat(2048), PLAIN).is_ok());
    assert_eq!(refusal(&"a".repeat(2049)), PathError::TooLong);
    assert!(
        ArtifactPath::parse(&"%61".repeat(2048), PLAIN).is_ok(),
        "the decoded length counts"
    );
    assert_eq!(
        ArtifactPath::from_decoded(&"a".repeat(2049)),
        Err(PathError::TooLong)
    );
    let long_and_bad = format!("{}/../b", "a".repeat(3000));
    assert_eq!(refusal(&long_and_bad), PathError::DotSegment);
}

#[test]
fn only_npm_may_encode_the_slash_of_a_scope() {
    for raw in [
        "@babel%2fcore",
        "@babel%2Fcore",
        "%40babel%2fcore",
        "/@babel%2fcore",
        "@babel/core",
    ] {
        let path = ArtifactPath::parse(raw, NPM).expect(raw);
        assert_eq!(path.as_str(), "@babel/core", "{raw}");
    }
    assert_eq!(
        ArtifactPath::parse("@babel%2fcore/1.0", NPM)
            .unwrap()
            .encoded(),
        "@babel%2fcore/1.0"
    );
    assert_eq!(
        ArtifactPath::parse("@babel%2fcore", PLAIN),
        Err(PathError::EncodedSlash)
    );
    for raw in [
        "@babel%2fcore%2f1.0",
        "@babel/core%2f1.0",
        "babel%2fcore",
        "@%2fcore",
        "x/@babel%2fcore",
    ] {
        assert_eq!(refusal(raw), PathError::EncodedSlash, "{raw}");
    }
    assert_eq!(refusal("@babel%2f.."), PathError::DotSegment);
    assert_eq!(refusal("@babel%2f%2fcore"), PathError::EncodedSlash);
    assert_eq!(
        refusal("@babel%2f/core"),
        PathError::EmptySegment,
        "which of the two slashes is one too many?"
    );
    assert_eq!(refusal("@babel%2f./core"), PathError::DotSegment);
    assert_eq!(refusal("@babel%252fcore"), PathError::DoubleEncoded);
}

#[test]
fn a_decoded_path_is_checked_but_not_decoded_again() {
    assert_eq!(
        ArtifactPath::from_decoded("a+b 100%/?#é")
            .unwrap()
            .encoded(),
        "a+b%20100%25/%3F%23%C3%A9"
    );
    assert_eq!(ArtifactPath::from_decoded("%41").unwrap().as_str(), "%41");
    assert_eq!(
        ArtifactPath::from_decoded("/a"),
        Err(PathError::EmptySegment)
    );
    assert_eq!(
        ArtifactPath::from_decoded("a/../b"),
        Err(PathError::DotSegment)
    );
    assert_eq!(
        ArtifactPath::from_decoded("a%2fb"),
        Err(PathError::DoubleEncoded)
    );
}

#[test]
fn names_and_equality_follow_the_decoded_form() {
    let path = |raw| ArtifactPath::parse(raw, PLAIN).unwrap();
    assert_eq!(path("a%2Bb"), path("a+b"));
    assert_eq!(
        std::collections::HashSet::from([path("a%2Bb"), path("a+b")]).len(),
        1
    );
    assert_eq!(path("x/y%20z").file_name(), "y z");
    assert_eq!(
        (
            path("x/").file_name(),
            path("").file_name(),
            path("x").file_name()
        ),
        ("", "", "x")
    );
    assert!(path("").is_root() && path("/").is_root() && !path("x").is_root());
    assert_eq!(
        format!("{} {:?}", path("a%20b"), path("a%20b")),
        "a b \"a b\""
    );
}

/// Texts full of what attackers combine.
fn hostile() -> impl Strategy<Value = String> {
    let pieces = vec![
        "a", ".", "..", "/", "//", "%", "%2", "%2e", "%2E", "%2f", "%5c", "%25", "%252e", "%00",
        "%zz", "@", ";", "\\", "?", "é", "%c3%a9", "%ff", "2e", "f", " ", "+",
    ];
    proptest::collection::vec(proptest::sample::select(pieces), 0..12)
        .prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn what_is_accepted_cannot_traverse_now_or_after_another_decoding(raw in hostile(), scoped: bool) {
        let rules = PathRules { encoded_scope_slash: scoped };
        let Ok(path) = ArtifactPath::parse(&raw, rules) else { return Ok(()) };
        let mut text = path.as_str().to_owned();
        prop_assert!(!text.starts_with('/'));
        for _ in 0..3 {
            prop_assert!(!text.contains(['\\', '\0']), "{:?}", text);
            prop_assert!(text.split('/').all(|segment| segment != ".." && segment != "."), "{:?}", text);
            prop_assert!(!text.contains("//"));
            for (escape, plain) in [("%2e", "."), ("%2E", "."), ("%2f", "/"), ("%2F", "/"), ("%5c", "\\"), ("%5C", "\\"), ("%00", "\0")] {
                text = text.replace(escape, plain);
            }
        }
    }

    #[test]
    fn both_forms_of_an_accepted_path_lead_back_to_it(raw in hostile(), scoped: bool) {
        let rules = PathRules { encoded_scope_slash: scoped };
        let Ok(path) = ArtifactPath::parse(&raw, rules) else { return Ok(()) };
        prop_assert_eq!(&ArtifactPath::parse(path.encoded(), rules).unwrap(), &path);
        let again = ArtifactPath::from_decoded(path.as_str()).unwrap();
        prop_assert_eq!(&again, &path);
        prop_assert_eq!(&ArtifactPath::parse(again.encoded(), PLAIN).unwrap(), &path);
        prop_assert!(path.encoded().is_ascii());
    }
}

//! Paths inside a repository: folded and decoded once, at the edge; what could be read in two ways is refused.
//!
//! Knows the spelling of paths (spec section 1 "Paths", RFC 3986). Knows nothing of repositories, queries or files on disk.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Longest decoded path, in bytes (spec section 1).
pub const MAX_PATH_BYTES: usize = 2048;

/// What a package type allows in its paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PathRules {
    /// npm: a package name `@scope%2fname` may encode its slash, at the start of a path or anywhere below `-/`.
    pub encoded_scope_slash: bool,
}

/// A path inside a repository, without a leading slash. It holds no `.`, `..` or empty segment (a single trailing slash is
/// legal), no backslash, no control character. The empty path is the repository's root.
///
/// Equality, order and hashing are by the decoded form.
#[derive(Clone)]
pub struct ArtifactPath {
    decoded: Arc<str>,
    encoded: Arc<str>,
}

/// Why a path is refused, each a 400 but [`TooLong`](PathError::TooLong), which is a 414.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// `..` as a segment, in any encoding, or `.` in an encoding.
    #[error("the path holds a '..' or an encoded '.' segment")]
    DotSegment,
    /// A backslash, plain or encoded.
    #[error("the path holds a backslash")]
    Backslash,
    /// NUL or another control character.
    #[error("the path holds a control character")]
    Control,
    /// `%2e`, `%2f`, `%5c`, `%00` or `%25` is left after decoding once.
    #[error("the path is percent-encoded twice")]
    DoubleEncoded,
    /// `%2f` where it is not an npm scope's slash.
    #[error("the path holds an encoded slash")]
    EncodedSlash,
    /// Nothing between two slashes of which one was encoded.
    #[error("the path holds an empty segment")]
    EmptySegment,
    /// Not UTF-8 after decoding.
    #[error("the path is not UTF-8")]
    NotUtf8,
    /// Longer than 2,048 bytes after decoding.
    #[error("the path is longer than 2048 bytes")]
    TooLong,
    /// Appended to the upstream's base URL it would lead elsewhere.
    #[error("the path leads out of the upstream's base URL")]
    LeavesBase,
}

impl ArtifactPath {
    /// Decodes the percent-encoded path of a request, without its leading slash and query, exactly once.
    ///
    /// Empty segments and plain `.` segments are folded first ([`fold_segments`]): all spellings are one path, and the upstream is
    /// asked for that one. A `%` that two hexadecimal digits do not follow stands for itself.
    ///
    /// ```
    /// use larder_core::{ArtifactPath, PathError, PathRules};
    ///
    /// let path = ArtifactPath::parse("pool/g%2B%2B.deb", PathRules::default())?;
    /// assert_eq!((path.as_str(), path.encoded()), ("pool/g++.deb", "pool/g%2B%2B.deb"));
    /// assert_eq!(ArtifactPath::parse("./pool//g%2B%2B.deb", PathRules::default())?.encoded(), path.encoded());
    /// assert_eq!(ArtifactPath::parse("a/%2e%2E/b", PathRules::default()), Err(PathError::DotSegment));
    /// # Ok::<(), PathError>(())
    /// ```
    pub fn parse(raw: &str, rules: PathRules) -> Result<Self, PathError> {
        let raw = &*fold_segments(raw);
        let mut decoded = Vec::with_capacity(raw.len());
        let mut encoded = String::with_capacity(raw.len());
        let mut rest = raw.as_bytes();
        while let [byte, tail @ ..] = rest {
            if let Some(value) = escaped(rest) {
                if value == b'/' && !(rules.encoded_scope_slash && is_scope(&decoded)) {
                    return Err(PathError::EncodedSlash);
                }
                decoded.push(value);
                encoded.extend(rest[..3].iter().map(|&b| b as char));
                rest = &rest[3..];
            } else {
                decoded.push(*byte);
                push_encoded(&mut encoded, *byte);
                rest = tail;
            }
        }
        let decoded = String::from_utf8(decoded).map_err(|_| PathError::NotUtf8)?;
        check(&decoded)?;
        Ok(Self {
            decoded: decoded.into(),
            encoded: encoded.into(),
        })
    }

    /// Takes a path that is already decoded, such as one out of the database or of a document. Nothing is folded.
    pub fn from_decoded(decoded: &str) -> Result<Self, PathError> {
        check(decoded)?;
        let mut encoded = String::with_capacity(decoded.len());
        decoded
            .bytes()
            .for_each(|byte| push_encoded(&mut encoded, byte));
        Ok(Self {
            decoded: decoded.into(),
            encoded: encoded.into(),
        })
    }

    /// The decoded form: what patterns see and what keys are made of.
    pub fn as_str(&self) -> &str {
        &self.decoded
    }

    /// The client's own percent-encoding, for the request to the upstream: `+` and `%2B` are different names on some servers.
    /// Characters that are not legal in a URL path are encoded.
    pub fn encoded(&self) -> &str {
        &self.encoded
    }

    /// What follows the last slash, decoded; empty for the root and for a path that ends in a slash.
    pub fn file_name(&self) -> &str {
        self.decoded.rsplit('/').next().unwrap_or_default()
    }

    /// Whether this is the repository itself.
    pub fn is_root(&self) -> bool {
        self.decoded.is_empty()
    }
}

impl fmt::Display for ArtifactPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.decoded)
    }
}

impl fmt::Debug for ArtifactPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.decoded, f)
    }
}

impl PartialEq for ArtifactPath {
    fn eq(&self, other: &Self) -> bool {
        self.decoded == other.decoded
    }
}

impl Eq for ArtifactPath {}

impl PartialOrd for ArtifactPath {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ArtifactPath {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.decoded.cmp(&other.decoded)
    }
}

impl Hash for ArtifactPath {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.decoded.hash(state);
    }
}

/// Takes empty segments and plain `.` segments out of an undecoded path (RFC 3986 section 5.2.4): apt asks flat repositories for
/// `./Packages`, and two joined base addresses make `//`. A path that ends in one of them is a folder's, and ends in a slash. A dot
/// that is percent-encoded is no `.` here, and stays to be refused.
pub fn fold_segments(raw: &str) -> Cow<'_, str> {
    let is_idle = |segment: &str| segment.is_empty() || segment == ".";
    let (folder, name) = raw
        .rsplit_once('/')
        .map_or((None, raw), |(folder, name)| (Some(folder), name));
    if name != "." && !folder.is_some_and(|folder| folder.split('/').any(is_idle)) {
        return Cow::Borrowed(raw);
    }
    let mut folded = String::with_capacity(raw.len());
    for segment in folder
        .into_iter()
        .flat_map(|folder| folder.split('/'))
        .filter(|segment| !is_idle(segment))
    {
        folded.push_str(segment);
        folded.push('/');
    }
    folded.push_str(if name == "." { "" } else { name });
    Cow::Owned(folded)
}

/// The byte that `%XX` at the start of `rest` stands for.
fn escaped(rest: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = rest else {
        return None;
    };
    let digit = |b: u8| char::from(b).to_digit(16);
    Some((digit(*high)? * 16 + digit(*low)?) as u8)
}

/// Whether what was decoded so far ends in a scope, so that its slash comes next: at the start, or below npm's reserved
/// first segment (`-/package/@scope%2fname/dist-tags`).
fn is_scope(decoded: &[u8]) -> bool {
    let (before, last) = decoded.split_at(
        decoded
            .iter()
            .rposition(|&b| b == b'/')
            .map_or(0, |slash| slash + 1),
    );
    matches!(last, [b'@', _, ..]) && (before.is_empty() || before.starts_with(b"-/"))
}

/// Appends one byte that is not part of a `%XX`: as it is where RFC 3986 allows it in a path, else encoded.
fn push_encoded(encoded: &mut String, byte: u8) {
    use fmt::Write as _;
    if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte) {
        encoded.push(byte as char);
    } else {
        let _ = write!(encoded, "%{byte:02X}");
    }
}

/// The rules on the decoded form. Length comes last: a path that is both malformed and too long is malformed.
fn check(decoded: &str) -> Result<(), PathError> {
    check_segments(decoded)?;
    let bytes = decoded.as_bytes();
    let twice = |at: usize| matches!(escaped(&bytes[at..]), Some(b'.' | b'/' | b'\\' | 0 | b'%'));
    if (0..bytes.len()).any(twice) {
        return Err(PathError::DoubleEncoded);
    }
    if bytes.len() > MAX_PATH_BYTES {
        Err(PathError::TooLong)
    } else {
        Ok(())
    }
}

/// Refuses what could move between segments or servers.
pub(crate) fn check_segments(path: &str) -> Result<(), PathError> {
    if path.contains('\\') {
        return Err(PathError::Backslash);
    }
    if path.chars().any(char::is_control) {
        return Err(PathError::Control);
    }
    let within = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return Ok(());
    }
    for segment in within.split('/') {
        // Some servers cut path parameters off before they resolve dots: `..;` climbs there.
        match segment.split(';').next() {
            Some("." | "..") => return Err(PathError::DotSegment),
            _ if segment.is_empty() => return Err(PathError::EmptySegment),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
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
            "a", ".", "..", "/", "//", "%", "%2", "%2e", "%2E", "%2f", "%5c", "%25", "%252e",
            "%00", "%zz", "@", ";", "\\", "?", "é", "%c3%a9", "%ff", "2e", "f", " ", "+",
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
}

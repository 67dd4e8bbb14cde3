//! Paths inside a repository: folded and decoded once, at the edge; what could be read in two ways is refused.
//!
//! Knows the spelling of paths (contract, section 1, "Paths", RFC 3986). Knows nothing of repositories, queries or files on disk.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Longest decoded path, in bytes (contract, section 1).
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
mod tests;

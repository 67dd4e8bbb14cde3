//! Paths below `/v2/{repository}/`: names, tags and digests by the grammar of the distribution specification.
//!
//! A name may hold slashes and the words `manifests`, `blobs`, `tags` and `referrers`, so paths are read from the right.

use larder_core::{Digest, DigestAlgorithm};

/// Longest name: references of 255 characters are the longest that clients take.
const MAX_NAME: usize = 255;
/// Longest tag.
const MAX_TAG: usize = 128;

/// What a path asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route<'p> {
    /// The image's name within the repository.
    pub(super) name: &'p str,
    pub(super) target: Target<'p>,
}

/// The part of a path after the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target<'p> {
    /// `manifests/{tag}`
    Tag(&'p str),
    /// `manifests/{digest}`
    Manifest(Digest),
    /// `blobs/{digest}`
    Blob(Digest),
    /// `tags/list`
    Tags,
    /// `referrers/{digest}`
    Referrers(Digest),
}

/// Why a path is none of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unroutable {
    /// Not the shape of any endpoint.
    Shape,
    /// The name breaks the grammar.
    Name,
    /// The tag breaks the grammar.
    Tag,
    /// Not `sha256:` with 64 or `sha512:` with 128 lower-case hexadecimal digits.
    Digest,
}

impl Target<'_> {
    /// The digest that the path names the bytes by.
    pub(super) fn digest(self) -> Option<Digest> {
        match self {
            Self::Manifest(digest) | Self::Blob(digest) => Some(digest),
            Self::Tag(_) | Self::Tags | Self::Referrers(_) => None,
        }
    }
}

impl<'p> Route<'p> {
    /// Parses a decoded path.
    pub(super) fn parse(path: &'p str) -> Result<Self, Unroutable> {
        let (rest, last) = path.rsplit_once('/').ok_or(Unroutable::Shape)?;
        let (name, kind) = rest.rsplit_once('/').ok_or(Unroutable::Shape)?;
        let target = match kind {
            "manifests" if last.contains(':') => Target::Manifest(digest(last)?),
            "manifests" if is_tag(last) => Target::Tag(last),
            "manifests" => return Err(Unroutable::Tag),
            "blobs" => Target::Blob(digest(last)?),
            "referrers" => Target::Referrers(digest(last)?),
            "tags" if last == "list" => Target::Tags,
            _ => return Err(Unroutable::Shape),
        };
        if is_name(name) {
            Ok(Self { name, target })
        } else {
            Err(Unroutable::Name)
        }
    }
}

/// `sha256:…` or `sha512:…`; the hexadecimal digits are lower case by the grammar.
fn digest(text: &str) -> Result<Digest, Unroutable> {
    let parsed: Digest = text.parse().map_err(|_| Unroutable::Digest)?;
    let known = matches!(
        parsed.algorithm(),
        DigestAlgorithm::Sha256 | DigestAlgorithm::Sha512
    );
    if known && parsed.to_string() == text {
        Ok(parsed)
    } else {
        Err(Unroutable::Digest)
    }
}

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`
fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= MAX_TAG
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, components separated by slashes.
fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME && text.split('/').all(is_component)
}

fn is_component(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let separates = |separator: &str| {
        matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
    };
    let ends_well = |edge: Option<u8>| edge.is_some_and(plain);
    ends_well(text.bytes().next())
        && ends_well(text.bytes().last())
        && text
            .split(|c: char| c.is_ascii() && plain(c as u8))
            .all(separates)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA256: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn oci_13_paths_are_read_from_the_right() {
        let blob = format!("a/manifests/b/blobs/{SHA256}");
        let digest: Digest = SHA256.parse().unwrap();
        for (path, name, target) in [
            (
                "library/blobs/manifests/latest",
                "library/blobs",
                Target::Tag("latest"),
            ),
            ("a/b/c/manifests/blobs", "a/b/c", Target::Tag("blobs")),
            (
                "manifests/manifests/manifests",
                "manifests",
                Target::Tag("manifests"),
            ),
            ("x/manifests/list", "x", Target::Tag("list")),
            ("x/tags/tags/list", "x/tags", Target::Tags),
            (blob.as_str(), "a/manifests/b", Target::Blob(digest)),
        ] {
            assert_eq!(Route::parse(path), Ok(Route { name, target }), "{path}");
        }
    }

    /// The expressions of the distribution specification, "Pulling manifests".
    #[test]
    fn names_and_tags_keep_to_their_grammar() {
        let longest = "a".repeat(255);
        for name in [
            "a",
            "library/nginx",
            "a.b",
            "a_b",
            "a__b",
            "a-b",
            "a----b",
            "0/1/2",
            "a.b_c--d/e",
            longest.as_str(),
        ] {
            assert!(is_name(name), "{name}");
        }
        let too_long = "a".repeat(256);
        for name in [
            "",
            "A",
            "a/",
            "/a",
            "a//b",
            "a..b",
            "a___b",
            "a._b",
            "a-.b",
            "-a",
            "a-",
            "a b",
            "ä",
            "a%2fb",
            too_long.as_str(),
        ] {
            assert!(!is_name(name), "{name}");
        }
        let longest = format!("v{}", ".".repeat(127));
        for tag in ["latest", "_", "1.0.0_x", "V1-a.b", longest.as_str()] {
            assert!(is_tag(tag), "{tag}");
        }
        for tag in [
            "",
            ".a",
            "-a",
            "a+b",
            "a/b",
            "a b",
            "ä",
            &format!("{longest}."),
        ] {
            assert!(!is_tag(tag), "{tag}");
        }
    }

    #[test]
    fn only_the_specification_s_digests_are_digests() {
        let sha512 = format!("sha512:{}", "0".repeat(128));
        for text in [SHA256, &sha512] {
            let path = format!("a/blobs/{text}");
            let Ok(Target::Blob(digest)) = Route::parse(&path).map(|route| route.target) else {
                panic!("{path} is no blob");
            };
            assert_eq!(digest.to_string(), *text);
        }
        let md5 = "md5:d41d8cd98f00b204e9800998ecf8427e".to_owned();
        for text in [
            SHA256.to_uppercase(),
            SHA256.replace("e3b0", "E3B0"),
            SHA256[..70].to_owned(),
            md5,
            "latest".into(),
            "sha256:".into(),
        ] {
            assert_eq!(
                Route::parse(&format!("a/blobs/{text}")),
                Err(Unroutable::Digest),
                "{text}"
            );
            assert_eq!(
                Route::parse(&format!("a/referrers/{text}")),
                Err(Unroutable::Digest),
                "{text}"
            );
        }
        assert_eq!(Route::parse("a/manifests/md5:00"), Err(Unroutable::Digest));
    }

    #[test]
    fn what_is_no_endpoint_is_said_to_be_none() {
        for path in [
            "",
            "a",
            "a/b",
            "manifests/latest",
            "a/blobs/uploads/",
            "a/tags/other",
            "a/b/c",
        ] {
            assert!(Route::parse(path).is_err(), "{path}");
        }
        assert_eq!(Route::parse("A/manifests/latest"), Err(Unroutable::Name));
        assert_eq!(Route::parse("a/manifests/a+b"), Err(Unroutable::Tag));
    }
}

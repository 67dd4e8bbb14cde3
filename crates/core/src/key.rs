//! Names of cached things: `SourceKey` for what came from upstream, `RepresentationKey` for what was derived from it.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, DigestAlgorithm, Hasher};
use crate::repository::RepositoryName;
use crate::shown::write_path;

/// Keys flights and records: one upstream document or file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SourceKey {
    /// The repository that owns the copy.
    pub repository: RepositoryName,
    /// Decoded path within the repository; for types that forward queries followed by `?` and the raw query.
    #[serde(
        serialize_with = "shared_text::serialize",
        deserialize_with = "shared_text::deserialize"
    )]
    pub path: Arc<str>,
    /// Which of the upstream's negotiated forms; empty where there is one.
    pub variant: Cow<'static, str>,
}

impl SourceKey {
    /// The bytes that it takes in memory.
    pub fn weight(&self) -> u64 {
        let texts = self.repository.as_str().len() + self.path.len() + self.variant.len();
        (size_of::<Self>() + texts) as u64
    }
}

/// For log lines: strangers choose paths, so they are cut, escaped, and shown without their queries.
impl fmt::Display for SourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.repository)?;
        write_path(f, &self.path)?;
        if !self.variant.is_empty() {
            write!(f, " [{}]", self.variant)?;
        }
        Ok(())
    }
}

/// `Arc<str>` as a plain text, which serde offers only behind a feature that nothing else here needs.
mod shared_text {
    use std::sync::Arc;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        text: &Arc<str>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<str>, D::Error> {
        String::deserialize(deserializer).map(Arc::from)
    }
}

/// Keys a derivation: a pure function of its inputs, so it never needs invalidation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepresentationKey(Digest);

/// All that a derivation depends on. Two derivations with equal inputs have equal bytes.
#[derive(Debug, Clone, Copy)]
pub struct RepresentationInputs<'a> {
    /// Digests of the source documents, in merge order.
    pub sources: &'a [&'a Digest],
    /// The final upstream URL of each source: relative links are resolved against it.
    pub source_urls: &'a [&'a str],
    /// Version of the rewriting code.
    pub rewriter_version: u32,
    /// The base that links in the result start with.
    pub link_base: &'a str,
    /// Which result: a format's own name for it, such as `simple+json`.
    pub form: &'a str,
    /// `identity`, `gzip` or `zstd`.
    pub coding: &'a str,
    /// The repository's rules epoch.
    pub rules_epoch: u64,
    /// What is left out of the result, by its digest; `None` if nothing is.
    pub hidden: Option<&'a Digest>,
}

impl RepresentationKey {
    /// Hashes the inputs, each preceded by its length and each list by its count, so that no two sets of inputs run together.
    pub fn new(inputs: &RepresentationInputs<'_>) -> Self {
        let mut hasher = Hasher::new(&[DigestAlgorithm::Sha256]);
        let mut put = |part: &[u8]| {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        };
        put(&(inputs.sources.len() as u64).to_le_bytes());
        for source in inputs.sources {
            put(source.to_string().as_bytes());
        }
        put(&(inputs.source_urls.len() as u64).to_le_bytes());
        for url in inputs.source_urls {
            put(url.as_bytes());
        }
        put(&inputs.rewriter_version.to_le_bytes());
        put(inputs.link_base.as_bytes());
        put(inputs.form.as_bytes());
        put(inputs.coding.as_bytes());
        put(&inputs.rules_epoch.to_le_bytes());
        // What hides nothing has the name that it had before anything could be hidden.
        if let Some(hidden) = inputs.hidden {
            put(hidden.to_string().as_bytes());
        }
        Self(hasher.finish_sha256())
    }

    /// 64 hexadecimal digits.
    pub fn to_hex(&self) -> String {
        self.0.to_hex()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::sha256;

    #[test]
    fn a_source_key_names_repository_path_and_variant() {
        let key = |variant| SourceKey {
            repository: RepositoryName::parse("pypi").unwrap(),
            path: "simple/six/".into(),
            variant: Cow::Borrowed(variant),
        };
        assert_eq!(key("").to_string(), "pypi/simple/six/");
        assert_eq!(key("json").to_string(), "pypi/simple/six/ [json]");
        let text = serde_json::to_string(&key("json")).unwrap();
        assert_eq!(
            text,
            r#"{"repository":"pypi","path":"simple/six/","variant":"json"}"#
        );
        assert_eq!(
            serde_json::from_str::<SourceKey>(&text).unwrap(),
            key("json")
        );
    }

    /// Log lines show keys: strangers choose the paths, and queries may be signatures.
    #[test]
    fn hazard_a_key_is_shown_bounded_on_one_line_and_without_its_query() {
        let shown = |path: &str| {
            let key = SourceKey {
                repository: RepositoryName::parse("files").unwrap(),
                path: path.into(),
                variant: Cow::Borrowed(""),
            };
            key.to_string()
        };
        assert_eq!(shown("a.deb?token=s3cret&b=c"), "files/a.deb?…");
        assert_eq!(
            shown(&"x".repeat(2_048)),
            format!("files/{}… (2048 bytes)", "x".repeat(200))
        );
        assert_eq!(
            shown(&format!(
                "{}?token={}",
                "x".repeat(190),
                "s3cret".repeat(500)
            )),
            format!("files/{}?…", "x".repeat(190))
        );
        assert_eq!(
            shown("a\nlevel=\"error\"\u{1b}[31m\\"),
            "files/a\\nlevel=\\\"error\\\"\\u{1b}[31m\\\\"
        );
    }

    #[test]
    fn every_input_of_a_derivation_changes_its_key() {
        let (one, two) = (sha256(b"one"), sha256(b"two"));
        let base = RepresentationInputs {
            sources: &[&one, &two],
            source_urls: &["https://example.com/a"],
            rewriter_version: 1,
            link_base: "/x",
            form: "html",
            coding: "gzip",
            rules_epoch: 1,
            hidden: None,
        };
        let (one_text, two_text) = (one.to_string(), two.to_string());
        let others = [
            RepresentationInputs {
                sources: &[&two, &one],
                ..base
            },
            RepresentationInputs {
                sources: &[&one],
                ..base
            },
            RepresentationInputs {
                source_urls: &["https://example.com/b"],
                ..base
            },
            RepresentationInputs {
                source_urls: &["https://example.com/a", ""],
                ..base
            },
            RepresentationInputs {
                rewriter_version: 2,
                ..base
            },
            RepresentationInputs {
                link_base: "/xh",
                form: "tml",
                ..base
            },
            RepresentationInputs {
                link_base: "",
                form: "/xhtml",
                ..base
            },
            RepresentationInputs {
                form: "json",
                ..base
            },
            RepresentationInputs {
                coding: "identity",
                ..base
            },
            RepresentationInputs {
                rules_epoch: 2,
                ..base
            },
            RepresentationInputs {
                hidden: Some(&one),
                ..base
            },
            RepresentationInputs {
                hidden: Some(&two),
                ..base
            },
            // What ends one list may not begin the next.
            RepresentationInputs {
                sources: &[&one],
                source_urls: &[&two_text, "https://example.com/a"],
                ..base
            },
            RepresentationInputs {
                sources: &[],
                source_urls: &[&one_text, &two_text, "https://example.com/a"],
                ..base
            },
        ];
        let mut keys: std::collections::BTreeSet<_> =
            others.iter().map(RepresentationKey::new).collect();
        keys.insert(RepresentationKey::new(&base));
        assert_eq!(keys.len(), others.len() + 1);
        assert_eq!(
            RepresentationKey::new(&base),
            RepresentationKey::new(&base.clone())
        );
        assert_eq!(RepresentationKey::new(&base).to_hex().len(), 64);
    }
}

//! What an index of either version says of a package, and where clients ask for it (protocols/apk.md sections 2 and 4).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use larder_core::{ArtifactPath, Digest, DigestAlgorithm};

use super::path::{above, beside};
use crate::Claim;

/// Packages that one index may name.
pub(super) const MAX_RECORDS: usize = 1_000_000;

/// One package in an index, as far as larder needs it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Record {
    /// `P:`, `name`
    pub(super) name: String,
    /// `V:`, `version`
    pub(super) version: String,
    /// `A:`, `arch`
    pub(super) arch: String,
    /// `C:` as it stands there, `hashes` as apk would write it there.
    pub(super) identity: String,
    /// `S:`, `file-size`
    pub(super) size: Option<u64>,
}

/// A hash as apk writes it: `Q1` before 20 bytes, `Q2` before 32 (apk-tools `apk_blob_push_hash`).
pub(super) fn identity_of(hash: &[u8]) -> Option<String> {
    let kind = match hash.len() {
        20 => "Q1",
        32 => "Q2",
        _ => return None,
    };
    Some(format!("{kind}{}", STANDARD.encode(hash)))
}

/// Which file names an index gives to its packages (`pkgname-spec`).
#[derive(Debug, Clone, Copy)]
pub(super) struct Naming<'a>(Option<&'a str>);

impl<'a> Naming<'a> {
    pub(super) const USUAL: Self = Self(None);

    /// A rule that an index states; an empty one is none.
    pub(super) fn stated(rule: &'a str) -> Self {
        Self(Some(rule).filter(|rule| !rule.is_empty()))
    }

    /// Whether clients take the rule for a whole URL (apk-tools `absolute_pkgname`).
    pub(super) fn leads_elsewhere(&self) -> Option<&'a str> {
        self.0.filter(|rule| rule.contains("://"))
    }

    /// Where clients ask for a package: of a repository named by its root, and of an index named by its own URL.
    fn paths(&self, index: &str, record: &Record) -> Vec<String> {
        let rules = self.0.map_or(
            ["${arch}/${name}-${version}.apk", "${name}-${version}.apk"],
            |rule| [rule; 2],
        );
        let folders = [above(index).map(str::to_owned), Some(beside(index, ""))];
        let named = |(folder, rule): (Option<String>, &str)| {
            let path = format!("{}{}", folder?, substituted(rule, record)?);
            ArtifactPath::from_decoded(&path).ok().map(|_| path)
        };
        let mut paths: Vec<String> = folders.into_iter().zip(rules).filter_map(named).collect();
        paths.dedup();
        paths
    }
}

/// A rule with a package's values in it; `None` if apk would refuse the rule.
fn substituted(rule: &str, record: &Record) -> Option<String> {
    let (mut text, mut rest) = (String::new(), rule);
    while let Some((before, variable)) = rest.split_once("${") {
        let (variable, after) = variable.split_once('}')?;
        let (name, length) = match variable.split_once(':') {
            Some((name, length)) => (name, length.parse().ok()?),
            None => (variable, usize::MAX),
        };
        let value = match name {
            "name" => record.name.clone(),
            "version" => record.version.clone(),
            "arch" => record.arch.clone(),
            "hash" => hex(&record.identity)?,
            _ => return None,
        };
        text.push_str(before);
        text.push_str(value.get(..length).unwrap_or(&value));
        rest = after;
    }
    Some(text + rest)
}

fn hex(identity: &str) -> Option<String> {
    let bytes = STANDARD.decode(identity.get(2..)?).ok()?;
    let algorithm = if bytes.len() == 32 {
        DigestAlgorithm::Sha256
    } else {
        DigestAlgorithm::Sha1
    };
    Digest::new(algorithm, &bytes).map(|digest| digest.to_hex())
}

/// Gathers what an index says of each package that can be asked for.
pub(super) struct Packages<'a> {
    index: &'a str,
    naming: Naming<'a>,
    all: Vec<(String, Option<String>, Option<u64>)>,
}

impl<'a> Packages<'a> {
    pub(super) fn of(index: &'a str, naming: Naming<'a>) -> Self {
        Self {
            index,
            naming,
            all: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, record: &Record) {
        if !is_name(&record.name)
            || !is_name(&record.version)
            || !(record.arch.is_empty() || is_name(&record.arch))
        {
            return;
        }
        let identity = Some(&record.identity)
            .filter(|identity| matches!(identity.get(..2), Some("Q1" | "Q2")))
            .cloned();
        let paths = self.naming.paths(self.index, record);
        self.all.extend(
            paths
                .into_iter()
                .map(|path| (path, identity.clone(), record.size)),
        );
    }

    /// Of two records for one file name nobody can say which is meant: they claim nothing.
    pub(super) fn claims(mut self, sink: &mut dyn FnMut(Claim)) {
        self.all.sort();
        self.all.dedup_by(|later, first| {
            let same_path = later.0 == first.0;
            if same_path && later.1 != first.1 {
                (first.1, first.2) = (None, None);
            }
            same_path
        });
        for (path, identity, size) in self.all {
            // Packages are fetched from where they are asked for, in the client's own spelling.
            sink(Claim {
                path,
                url: String::new(),
                digests: Vec::new(),
                identity,
                size,
                published_at: None,
            });
        }
    }
}

/// Names, versions and architectures: what the grammar has, and nothing that could make a path of a name.
fn is_name(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'+' | b'-' | b'~');
    text.bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric())
        && text.bytes().all(legal)
}

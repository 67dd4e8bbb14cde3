//! What an index of either version says of a package, and where clients ask for it (docs/reference/protocols/apk.md, sections 2 and 4).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use larder_core::{ArtifactPath, Digest, DigestAlgorithm, UnixMillis};

use super::path::{above, beside, root_above};
use crate::budget::MAX_URL;
use crate::{Claim, Links, Malformed, Meter, Release};

/// What a package takes while its index is read, beside its texts.
const NODE: usize = 96;

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
    /// `t:`, `build-time`: when it was built, in seconds. None, where that is no time or zero.
    pub(super) built: Option<i64>,
}

impl Record {
    /// Whether a path can be made of it.
    fn is_usable(&self) -> bool {
        is_name(&self.name)
            && is_name(&self.version)
            && (self.arch.is_empty() || is_name(&self.arch))
    }
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
        // A rule may name the same value any number of times.
        if text.len() > MAX_URL {
            return None;
        }
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
    meter: &'a Meter,
    /// By path: identity and size. An index may name one package any number of times.
    all: BTreeMap<String, (Option<String>, Option<u64>)>,
    /// The record before: the same one again says nothing new.
    before: Record,
}

impl<'a> Packages<'a> {
    pub(super) fn of(index: &'a str, naming: Naming<'a>, meter: &'a Meter) -> Self {
        Self {
            index,
            naming,
            meter,
            all: BTreeMap::new(),
            before: Record::default(),
        }
    }

    /// Of two records for one file name nobody can say which is meant: they claim nothing.
    ///
    /// # Errors
    /// The index goes beyond its budget.
    pub(super) fn add(&mut self, record: &Record) -> Result<(), Malformed> {
        if *record == self.before {
            return Ok(());
        }
        record.clone_into(&mut self.before);
        if !record.is_usable() {
            return Ok(());
        }
        let identity = Some(&record.identity)
            .filter(|identity| matches!(identity.get(..2), Some("Q1" | "Q2")))
            .cloned();
        for path in self.naming.paths(self.index, record) {
            let length = path.len();
            match self.all.entry(path) {
                Entry::Occupied(mut known) => {
                    let stated = known.get_mut();
                    if stated.0 != identity {
                        *stated = (None, None);
                    }
                }
                Entry::Vacant(free) => {
                    let texts = length + identity.as_ref().map_or(0, String::len);
                    self.meter.keep(NODE + texts)?;
                    free.insert((identity.clone(), record.size));
                }
            }
        }
        Ok(())
    }

    /// All of them.
    ///
    /// # Errors
    /// The index goes beyond its budget.
    pub(super) fn claims(
        self,
        links: &Links<'_>,
        sink: &mut dyn FnMut(Claim),
    ) -> Result<(), Malformed> {
        for (path, (identity, size)) in self.all {
            // Packages are fetched from where they are asked for, in the client's own spelling.
            let claim = Claim {
                path,
                url: String::new(),
                digests: Vec::new(),
                identity,
                package: None,
                size,
                published_at: None,
                names_files: false,
            };
            links.claim(claim, sink);
        }
        links.end()
    }
}

/// Gathers the files of one package, for people.
pub(super) struct Found<'a> {
    index: &'a str,
    naming: Naming<'a>,
    meter: &'a Meter,
    name: &'a str,
    all: BTreeMap<String, Release>,
}

impl<'a> Found<'a> {
    pub(super) fn of(index: &'a str, naming: Naming<'a>, meter: &'a Meter, name: &'a str) -> Self {
        Self {
            index,
            naming,
            meter,
            name,
            all: BTreeMap::new(),
        }
    }

    /// # Errors
    /// The index goes beyond its budget.
    pub(super) fn add(&mut self, record: &Record) -> Result<(), Malformed> {
        if record.name != self.name || !record.is_usable() {
            return Ok(());
        }
        let paths = self.naming.paths(self.index, record);
        let is_named = |path: &str| paths.iter().any(|one| one == path);
        for path in &paths {
            if !is_asked_for(self.index, path, &is_named) {
                continue;
            }
            if let Entry::Vacant(free) = self.all.entry(path.clone()) {
                self.meter
                    .keep(NODE + 2 * path.len() + record.version.len())?;
                free.insert(Release {
                    version: record.version.clone(),
                    path: path.clone(),
                    published: record
                        .built
                        .and_then(|at| at.checked_mul(1000))
                        .map(UnixMillis),
                    ..Release::default()
                });
            }
        }
        Ok(())
    }

    /// All of them.
    pub(super) fn releases(self) -> Vec<Release> {
        self.all.into_values().collect()
    }
}

/// Clients that are given a repository's root ask for a package in the folder of its own architecture, which is the index's or `noarch`;
/// those that are given an index which is in no such folder, beside that.
pub(super) fn is_asked_for(index: &str, path: &str, is_named: &dyn Fn(&str) -> bool) -> bool {
    let folder = beside(index, "");
    let below = path.strip_prefix(&folder);
    let Some(root) = root_above(&folder) else {
        return below.is_some();
    };
    let is_same = |root: &str, name: &str| is_named(&format!("{root}{name}"));
    below.is_none_or(|name| !is_same(root, name) && !is_same(&format!("{root}noarch/"), name))
}

/// Names, versions and architectures: what the grammar has, and nothing that could make a path of a name.
fn is_name(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'+' | b'-' | b'~');
    text.bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric())
        && text.bytes().all(legal)
}

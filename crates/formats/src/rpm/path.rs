//! What a path within an RPM remote is. Pure text; decoded paths throughout.

use larder_core::{BuiltIn, Digest, DigestAlgorithm};

use crate::generic::subject;
use crate::{Naming, PathFacts, Role};

/// Endings of the files that belong to a master index, and whether they are its signature.
pub(super) const COMPANIONS: [(&str, bool); 2] = [(".asc", true), (".key", false)];

const FOLDER: &str = "repodata/";
const MASTER: &str = "repomd.xml";
/// Deepest folder that a repository's root is looked for in.
const MAX_DEPTH: usize = 16;

/// A file of a `repodata` folder.
struct Metadata<'p> {
    /// The root of the repository whose metadata this is, with its slash.
    root: &'p str,
    /// The file's name.
    name: &'p str,
    /// The digest that the name begins with.
    digest: Option<Digest>,
}

impl<'p> Metadata<'p> {
    /// Parses a decoded path; `None` if it is no such file.
    fn parse(path: &'p str) -> Option<Self> {
        let (folder, name) = path.rsplit_once('/')?;
        let root = if folder == "repodata" {
            ""
        } else {
            path.get(..folder.strip_suffix("/repodata")?.len() + 1)?
        };
        (!name.is_empty() && !is_package(path)).then(|| Self {
            root,
            name,
            digest: digest_in(name),
        })
    }

    /// What the file is called without its digest.
    fn plain_name(&self) -> &'p str {
        let rest = self.name.split_once('-').filter(|_| self.digest.is_some());
        rest.map_or(self.name, |(_, rest)| rest)
    }

    /// Whether clients ask for this file as a matter of course, so that it is fetched before a new generation is offered. The
    /// change logs and the databases of old clients are not: they are large and seldom asked for.
    fn is_essential(&self) -> bool {
        let name = self.plain_name();
        !name.starts_with("other.") && !name.contains(".sqlite")
    }

    /// Whether the master index says what this is: neither is it that itself or what stands beside it, nor does its name say it.
    fn is_stated(&self) -> bool {
        let beside = self.name.strip_prefix(MASTER);
        let is_unit = beside.is_some_and(|suffix| {
            suffix.is_empty() || COMPANIONS.iter().any(|(companion, _)| *companion == suffix)
        });
        self.digest.is_none() && !is_unit
    }

    fn role(&self) -> Role {
        if self.name == MASTER {
            Role::Document
        } else {
            Role::Member {
                is_essential: self.is_essential(),
            }
        }
    }
}

/// What a decoded path is.
pub(super) fn facts(path: &str) -> PathFacts {
    let metadata = Metadata::parse(path);
    let subject = subject(path);
    let built_in = match subject {
        None => class(path, metadata.as_ref()),
        Some(subject) => class(subject, Metadata::parse(subject).as_ref()),
    };
    let facts = PathFacts {
        built_in,
        naming: if is_package(path) || metadata.as_ref().is_some_and(Metadata::is_stated) {
            Naming::Held
        } else {
            Naming::Nobody
        },
        ..PathFacts::default()
    };
    let facts = match metadata {
        None => facts,
        Some(metadata) => PathFacts {
            role: Some(metadata.role()),
            digest: metadata.digest,
            ..facts
        },
    };
    facts.beside(subject)
}

/// What the format says of the class of a path, of which `metadata` was parsed.
fn class(path: &str, metadata: Option<&Metadata<'_>>) -> BuiltIn {
    match metadata {
        Some(metadata) if metadata.digest.is_some() => BuiltIn::MutableNamedByDigest,
        Some(_) => BuiltIn::Mutable,
        None if changes(path) || is_media_description(path) => BuiltIn::Mutable,
        None => BuiltIn::None,
    }
}

/// The root of the repository whose metadata this is, with its slash; `None` if the path is no file of a `repodata` folder.
pub(super) fn root_of_metadata(path: &str) -> Option<&str> {
    Metadata::parse(path).map(|metadata| metadata.root)
}

/// The master index of a root.
pub(super) fn master(root: &str) -> String {
    format!("{root}{FOLDER}{MASTER}")
}

pub(super) fn is_master(path: &str) -> bool {
    Metadata::parse(path).is_some_and(|metadata| metadata.name == MASTER)
}

pub(super) fn is_package(path: &str) -> bool {
    path.strip_suffix(".rpm")
        .is_some_and(|stem| !stem.is_empty() && !stem.ends_with('/'))
}

/// The contract's built-in patterns outside of `repodata` folders: `repomd\.xml$`, `Packages\.gz$`; and `repomd.xml`'s companions
/// and `.treeinfo`, which change with it.
fn changes(path: &str) -> bool {
    let names = [
        MASTER,
        "repomd.xml.asc",
        "repomd.xml.key",
        "Packages.gz",
        ".treeinfo",
    ];
    names.iter().any(|name| path.ends_with(name))
}

/// What zypper probes for before anything else: where there are no media, it must get the upstream's 404, not a refusal.
fn is_media_description(path: &str) -> bool {
    let Some((folder, name)) = path.rsplit_once('/') else {
        return false;
    };
    let number = folder
        .rsplit('/')
        .next()
        .and_then(|folder| folder.strip_prefix("media."));
    matches!(name, "media" | "products")
        && number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// `metalink` and `mirrorlist`: the root they stand for and the form that is derived from its master index.
pub(super) fn listing(path: &str) -> Option<(&str, &'static str)> {
    let name = path.rsplit('/').next()?;
    let form = [super::metalink::METALINK, super::metalink::MIRRORLIST]
        .into_iter()
        .find(|form| *form == name)?;
    Some((path.get(..path.len() - name.len())?, form))
}

/// The digest that a metadata file's name begins with (`<hex>-primary.xml.gz`, as createrepo_c writes by default). The
/// algorithm is told by the length.
fn digest_in(name: &str) -> Option<Digest> {
    let (hex, rest) = name.split_once('-')?;
    let algorithm = match hex.len() {
        32 => DigestAlgorithm::Md5,
        40 => DigestAlgorithm::Sha1,
        64 => DigestAlgorithm::Sha256,
        96 => DigestAlgorithm::Sha384,
        128 => DigestAlgorithm::Sha512,
        _ => return None,
    };
    if rest.is_empty() {
        None
    } else {
        Digest::from_hex(algorithm, hex).ok()
    }
}

/// The master indexes that may say what a file is, the nearest first: itself of metadata, by what it names of packages.
pub(super) fn masters_of(path: &str) -> Vec<String> {
    if is_package(path) {
        return roots_above(path).map(master).collect();
    }
    let metadata = Metadata::parse(path).filter(Metadata::is_stated);
    metadata.map(|it| master(it.root)).into_iter().collect()
}

/// The folders above a file that may be its repository's root, the nearest first.
fn roots_above(path: &str) -> impl Iterator<Item = &str> {
    let ends = path
        .bytes()
        .enumerate()
        .filter(|(_, byte)| *byte == b'/')
        .map(|(at, _)| at + 1);
    let mut ends: Vec<usize> = std::iter::once(0).chain(ends).collect();
    ends.reverse();
    ends.into_iter()
        .take(MAX_DEPTH)
        .filter_map(|end| path.get(..end))
}

/// How larder spells a path of its own accord, where there is no client whose spelling could be taken: what RFC 3986 allows in
/// a path stands as it is.
pub(super) fn encoded(path: &str) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(path.len() + 8);
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte) {
            text.push(byte as char);
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

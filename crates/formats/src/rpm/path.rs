//! What a path within an RPM remote is. Pure text; decoded paths throughout.

use larder_core::{Digest, DigestAlgorithm};

/// Endings of the files that belong to a master index, and whether they are its signature.
pub(super) const COMPANIONS: [(&str, bool); 2] = [(".asc", true), (".key", false)];

const FOLDER: &str = "repodata/";
const MASTER: &str = "repomd.xml";
/// Deepest folder that a repository's root is looked for in.
const MAX_DEPTH: usize = 16;

/// The root of the repository whose metadata this is, with its slash; `None` if the path is no file of a `repodata` folder.
pub(super) fn root_of_metadata(path: &str) -> Option<&str> {
    let (folder, name) = path.rsplit_once('/')?;
    let root = if folder == "repodata" {
        ""
    } else {
        path.get(..folder.strip_suffix("/repodata")?.len() + 1)?
    };
    (!name.is_empty() && !is_package(path)).then_some(root)
}

/// Name of a file of a `repodata` folder.
fn name_of_metadata(path: &str) -> Option<&str> {
    root_of_metadata(path).and_then(|_| path.rsplit('/').next())
}

/// The master index of a root.
pub(super) fn master(root: &str) -> String {
    format!("{root}{FOLDER}{MASTER}")
}

pub(super) fn is_master(path: &str) -> bool {
    name_of_metadata(path) == Some(MASTER)
}

pub(super) fn is_package(path: &str) -> bool {
    path.strip_suffix(".rpm")
        .is_some_and(|stem| !stem.is_empty() && !stem.ends_with('/'))
}

/// The contract's built-in patterns: `repomd\.xml$`, what is in a `repodata` folder, `Packages\.gz$`; and `repomd.xml`'s
/// companions and `.treeinfo`, which change with it.
pub(super) fn is_metadata(path: &str) -> bool {
    let names = [
        MASTER,
        "repomd.xml.asc",
        "repomd.xml.key",
        "Packages.gz",
        ".treeinfo",
    ];
    names.iter().any(|name| path.ends_with(name)) || root_of_metadata(path).is_some()
}

/// What zypper probes for before anything else: where there are no media, it must get the upstream's 404, not a refusal.
pub(super) fn is_media_description(path: &str) -> bool {
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
pub(super) fn digest_in_name(path: &str) -> Option<Digest> {
    let (hex, rest) = name_of_metadata(path)?.split_once('-')?;
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

/// What a metadata file is called without its digest.
fn plain_name(path: &str) -> Option<&str> {
    let name = name_of_metadata(path)?;
    match digest_in_name(path) {
        Some(_) => name.split_once('-').map(|(_, rest)| rest),
        None => Some(name),
    }
}

/// Whether this lists the packages of a repository, in a compression that is read here.
pub(super) fn is_primary(path: &str) -> bool {
    let rest = plain_name(path).and_then(|name| name.strip_prefix("primary.xml"));
    matches!(rest, Some("" | ".gz" | ".xz" | ".zst" | ".bz2"))
}

/// Whether clients ask for this file as a matter of course, so that it is fetched before a new generation is offered. The
/// change logs and the databases of old clients are not: they are large and seldom asked for.
pub(super) fn is_essential(path: &str) -> bool {
    plain_name(path).is_some_and(|name| !name.starts_with("other.") && !name.contains(".sqlite"))
}

/// The folders above a file that may be its repository's root, the nearest first.
pub(super) fn roots_above(path: &str) -> impl Iterator<Item = &str> {
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

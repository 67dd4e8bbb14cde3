//! Where a record was found: in an archive below the root of an upstream, whose address is that of one installation; elsewhere below the
//! root that the repository has there.

use larder_core::{ArtifactPath, ArtifactRecord, SafeUrl, SourceKey, join_url};
use url::Url;

use crate::keys;
use crate::origin::remote::usual_place;
use crate::repositories::RepositoryState;
use crate::target::Target;

/// The roots of a repository's files, or of its index; each ends in a slash.
fn roots(entry: &RepositoryState, of_index: bool) -> Vec<Url> {
    let upstream = entry.repository.upstream();
    upstream.map_or_else(Vec::new, |upstream| {
        if of_index {
            upstream.index_urls()
        } else {
            upstream.base_urls.clone()
        }
    })
}

/// The part of an address that is below a root.
fn below_root<'u>(root: &Url, url: &'u str) -> Option<&'u str> {
    url.strip_prefix(&*SafeUrl(root.clone()).to_string())
}

/// The part of an address that is below the repository's upstream.
pub(super) fn below(entry: &RepositoryState, of_index: bool, url: &str) -> Option<String> {
    let roots = roots(entry, of_index);
    let mut found = roots.iter().filter_map(|root| below_root(root, url));
    found.next().map(str::to_owned)
}

/// Where something that came out of an archive is to be found from now on: at the same place below the upstream of this repository, or at
/// its usual one, if it was found elsewhere. No server that the configuration does not name is asked because of an archive.
pub(super) fn found_at(
    entry: &RepositoryState,
    (key, target): (&SourceKey, Option<&Target>),
    of_index: bool,
    (below, record): (Option<&str>, &ArtifactRecord),
) -> String {
    let (roots, url) = (roots(entry, of_index), &*record.source_url);
    let is_below = |url: &str| roots.iter().any(|root| below_root(root, url).is_some());
    // What was never found has no place.
    if url.is_empty() {
        return String::new();
    }
    let same = below.and_then(|below| {
        let root = SafeUrl(roots.first()?.clone()).to_string();
        let url = Url::parse(&format!("{root}{below}")).ok()?.to_string();
        is_below(&url).then_some(url)
    });
    let as_it_was = || is_below(url).then(|| url.to_owned());
    let usual = || target.map_or_else(|| named_by(&roots, key), usual_place);
    same.or_else(as_it_was).or_else(usual).unwrap_or_default()
}

/// The place that a key stands for, where the rules do not admit what it is the key of.
fn named_by(roots: &[Url], key: &SourceKey) -> Option<String> {
    let path = keys::path_of(&key.path, &key.variant);
    let path = ArtifactPath::from_decoded(path).ok()?;
    let url = join_url(roots.first()?, path.encoded(), None).ok()?;
    Some(SafeUrl(url).to_string())
}

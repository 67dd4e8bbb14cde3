//! The versions of a package, as the index that is held names them, each with what is held of it. Nobody is asked: an index that is not held
//! is one that no client has wanted yet.

use std::cmp::Ordering;
use std::sync::Arc;

use larder_core::{ArtifactRecord, Digest, DigestAlgorithm, Fault, UnixMillis};
use larder_formats::{Offering, PartOf, Release, Releases};

use super::base::{Views, bad, cached_at, expires, not_held};
use crate::claim::StoredClaim;
use crate::document::claim_table::ClaimTable;
use crate::policy::admission;
use crate::repositories::RepositoryState;
use crate::target::Target;

/// Files of a package that are put in order; beyond that there are none of such a name.
const MOST_FILES: usize = 20_000;

/// Which package is wanted.
#[derive(Debug, Clone, Default)]
pub struct PackageRequest {
    /// The repository.
    pub repository: String,
    /// The package's, project's or chart's name.
    pub name: String,
    /// The folder of the index, where there is one in each.
    pub folder: Option<String>,
    /// How many files are passed over.
    pub skip: usize,
    /// At most so many.
    pub limit: usize,
}

/// A package.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackageView {
    /// The index's path.
    pub index: String,
    /// When the index was fetched.
    pub cached_at: Option<UnixMillis>,
    /// When the upstream is asked for it again; `None`: never.
    pub fresh_until: Option<UnixMillis>,
    /// Names that stand for versions, with the version.
    pub tags: Vec<(String, String)>,
    /// The newest first.
    pub files: Vec<PackageFile>,
    /// How many there are in all.
    pub total: usize,
    /// Of a virtual repository, which holds nothing itself: the members whose indexes name the package, each with the index's path.
    pub members: Vec<(String, String)>,
}

/// A file of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageFile {
    /// Its version; empty if nothing tells it.
    pub version: String,
    /// Decoded path below the repository, without a query; empty for a version without a file that larder carries.
    pub path: String,
    /// Bytes, as the index states it, or as they are held.
    pub size: Option<u64>,
    /// SHA-256 of the bytes in hexadecimal digits, as the index states it, or as they are held.
    pub sha256: Option<String>,
    /// When it was published.
    pub published_at: Option<UnixMillis>,
    /// It was withdrawn, and why; the reason may be empty.
    pub yanked: Option<String>,
    /// It is not to be used any more, and why; the reason may be empty.
    pub deprecated: Option<String>,
    /// When the held copy was fetched; `None`: there is none.
    pub cached_at: Option<UnixMillis>,
    /// Whether quarantine holds it back.
    pub is_held_back: bool,
    /// Until when, as far as that is known.
    pub held_until: Option<UnixMillis>,
    /// The repository whose file it is.
    pub repository: String,
}

/// A held index.
pub(super) struct Index {
    target: Arc<Target>,
    record: Arc<ArtifactRecord>,
}

/// A file that an index names, before what is held of it is looked up.
pub(super) struct Named {
    entry: Arc<RepositoryState>,
    /// The claim's path, with its query.
    path: String,
    claim: Option<StoredClaim>,
    release: Release,
}

/// What one repository's index says of a package.
pub(super) struct OfOne {
    pub(super) index: Index,
    pub(super) tags: Vec<(String, String)>,
    pub(super) named: Vec<Named>,
}

impl Index {
    pub(super) fn key_path(&self) -> &str {
        &self.target.spec.key_path
    }
}

impl Named {
    pub(super) fn version(&self) -> &str {
        &self.release.version
    }
}

impl Views {
    /// The versions of a package, as one repository's held index names them.
    pub(super) async fn own_package(
        &self,
        entry: &Arc<RepositoryState>,
        request: &PackageRequest,
    ) -> Result<PackageView, Fault> {
        let of_one = self.offered(entry, request).await?;
        let path = of_one.index.key_path();
        let total = of_one.named.len();
        Ok(PackageView {
            index: path.to_owned(),
            cached_at: Some(cached_at(&of_one.index.record)),
            fresh_until: expires(entry, path, &of_one.index.record),
            files: self.files_of(of_one.named, request).await?,
            tags: of_one.tags,
            total,
            members: Vec::new(),
        })
    }

    /// What a repository's held index says of a package.
    ///
    /// # Errors
    /// No index of it is held or it names no such package (404), the type has none (400), it cannot be read, or storage fails.
    pub(super) async fn offered(
        &self,
        entry: &Arc<RepositoryState>,
        request: &PackageRequest,
    ) -> Result<OfOne, Fault> {
        let index = self.index(entry, request).await?;
        let releases = self.releases(&index, &request.name).await?;
        let tags = releases
            .iter()
            .flat_map(|told| told.tags.clone())
            .collect::<Vec<_>>();
        let named = self.named(entry, request, &index, releases).await?;
        // An index of one package is that package's, though it has no files.
        let of_index = entry.format.part_of(index.key_path());
        let serves_many = !matches!(of_index, Some(PartOf::Package { .. }));
        if named.is_empty() && tags.is_empty() && serves_many {
            let message = format!(
                "the index {} that {} holds names no package {:?}",
                index.target.spec.key_path, entry.repository.name, request.name
            );
            return Err(not_held(entry, message));
        }
        Ok(OfOne { index, tags, named })
    }

    /// What an index says of a package; what those documents do that it names and that are held, where it only names them.
    async fn releases(&self, index: &Index, name: &str) -> Result<Option<Releases>, Fault> {
        let Index { target, record } = index;
        let told = self.told_by(target, record, name).await?;
        if told.is_some() {
            return Ok(told);
        }
        let table = self.documents.claim_table(target, record).await?;
        let mut all: Option<Releases> = None;
        for (target, record) in self.documents.nested_documents(target, &table).await {
            if let Ok(Some(told)) = self.told_by(&target, &record, name).await {
                all.get_or_insert_default().releases.extend(told.releases);
            }
        }
        // Where no package has this name, a file may have it.
        Ok(all.filter(|all| !all.releases.is_empty()))
    }

    async fn told_by(
        &self,
        target: &Arc<Target>,
        record: &Arc<ArtifactRecord>,
        name: &str,
    ) -> Result<Option<Releases>, Fault> {
        let source = self.documents.held_source(target, record).await?;
        self.documents.releases(source, name.to_owned()).await
    }

    /// A page of these files, the newest first, with what is held of each.
    pub(super) async fn files_of(
        &self,
        mut named: Vec<Named>,
        request: &PackageRequest,
    ) -> Result<Vec<PackageFile>, Fault> {
        named.sort_by(newest_first);
        let mut files = Vec::new();
        for named in named.into_iter().skip(request.skip).take(request.limit) {
            files.push(self.package_file(named).await?);
        }
        Ok(files)
    }

    /// The index that is held of a package, in the form that says most.
    async fn index(
        &self,
        entry: &Arc<RepositoryState>,
        request: &PackageRequest,
    ) -> Result<Index, Fault> {
        let offering = |name: Option<&str>| entry.format.offering(&entry.repository, name);
        let places = match offering(Some(&request.name)) {
            // A name is that of the index's folder there.
            Offering::In(places) if places.iter().any(|place| place.in_folder) => {
                match offering(request.folder.as_deref()) {
                    Offering::In(places) => places,
                    _ => Vec::new(),
                }
            }
            Offering::In(places) => places,
            Offering::Misnamed(what) => {
                return Err(bad(entry, format!("{what} cannot have this name")));
            }
            Offering::Nowhere(_) | Offering::Unnamed(_) => {
                let package = entry.repository.package.as_str();
                let message = format!("a repository of the type {package} has no packages");
                return Err(bad(entry, message));
            }
        };
        let mut best: Option<Index> = None;
        let size = |index: &Index| index.record.blob().map_or(0, |blob| blob.size);
        for place in &places {
            let Some(target) = admission::named_file(entry, entry.format, &place.path) else {
                continue;
            };
            let variants = entry.format.profile().document_variants.iter();
            let others = variants
                .filter(|variant| **variant != target.spec.variant)
                .map(|variant| target.in_variant(variant));
            for target in others.chain([target.clone()]).map(Arc::new) {
                let record = self.record(&target).await?;
                let found = record
                    .filter(|record| record.blob().is_some())
                    .map(|record| Index { target, record });
                if found.as_ref().map(size) > best.as_ref().map(size) {
                    best = found;
                }
            }
        }
        best.ok_or_else(|| {
            let first = places.first().map_or("", |place| &*place.path);
            let message = format!(
                "{} does not hold the index {first}: it does once a client has asked for it",
                entry.repository.name
            );
            not_held(entry, message)
        })
    }

    /// The files that an index names of a package.
    async fn named(
        &self,
        entry: &Arc<RepositoryState>,
        request: &PackageRequest,
        index: &Index,
        releases: Option<Releases>,
    ) -> Result<Vec<Named>, Fault> {
        let table = self
            .documents
            .claim_table(&index.target, &index.record)
            .await?;
        let mut tables: Vec<Arc<ClaimTable>> = self
            .documents
            .nested_claims(&index.target, &table, &[])
            .await;
        tables.push(table);
        let named = |path: &str, claim, release| Named {
            entry: Arc::clone(entry),
            path: path.to_owned(),
            claim,
            release,
        };
        if let Some(told) = releases {
            let files = told.releases.into_iter().map(|release| {
                let claim = tables.iter().find_map(|table| table.find(&release.path));
                // What no claim names is a version without a file.
                let path = claim
                    .as_ref()
                    .map_or_else(String::new, |_| release.path.clone());
                named(&path, claim, release)
            });
            let files = files.filter(|file| !entry.facts(&file.path).is_sidecar());
            return Ok(files.take(MOST_FILES).collect());
        }
        let claims = tables.iter().flat_map(|table| table.iter());
        let files = claims.filter_map(|(path, claim)| {
            let own = path.split('?').next().unwrap_or_default();
            let version = entry.format.version_of(own, &request.name)?;
            let release = Release {
                version: version.to_owned(),
                ..Release::default()
            };
            (!entry.facts(own).is_sidecar()).then(|| named(path, Some(claim), release))
        });
        Ok(files.take(MOST_FILES).collect())
    }

    /// A file that an index names, with what is held of it.
    async fn package_file(&self, named: Named) -> Result<PackageFile, Fault> {
        let Named {
            entry,
            path,
            claim,
            release,
        } = named;
        let own = path.split('?').next().unwrap_or_default().to_owned();
        let target = admission::named_file(&entry, entry.format, &own);
        let record = match &target {
            Some(target) => self.record(target).await?,
            None => None,
        };
        let held = record.as_ref().filter(|record| record.has_body());
        let held_back = target
            .as_ref()
            .and_then(|target| self.held_back(target, record.as_deref(), claim.as_ref()));
        let stated = claim.as_ref().and_then(|claim| {
            let mut digests = claim.digests.iter();
            digests.find(|digest| digest.algorithm() == DigestAlgorithm::Sha256)
        });
        let blob = held.and_then(|record| record.blob());
        Ok(PackageFile {
            version: release.version,
            path: own,
            size: claim
                .as_ref()
                .and_then(|claim| claim.size)
                .or(blob.map(|blob| blob.size)),
            sha256: stated
                .map(Digest::to_hex)
                .or(blob.map(|blob| blob.digest.to_hex())),
            published_at: release
                .published
                .or(claim.as_ref().and_then(|claim| claim.published_at)),
            yanked: release.yanked,
            deprecated: release.deprecated,
            cached_at: held.map(|record| cached_at(record)),
            is_held_back: held_back.is_some(),
            held_until: held_back.flatten(),
            repository: entry.repository.name.to_string(),
        })
    }
}

/// What a path is a part of. The index of its package is the nearest above it that is held of those that may name it; where none is, the
/// format guesses.
pub(super) fn part_of(
    entry: &RepositoryState,
    path: &str,
    is_held: impl Fn(&str) -> bool,
) -> Option<PartOf> {
    let (name, guessed) = match entry.format.part_of(path)? {
        PartOf::Package { name, folder } => (name, folder),
        image @ PartOf::Image { .. } => return Some(image),
    };
    let has_index = |folder: &str| match entry.format.offering(&entry.repository, Some(folder)) {
        Offering::In(places) => places
            .iter()
            .any(|place| place.in_folder && is_held(&place.path)),
        _ => false,
    };
    let folders = path
        .rmatch_indices('/')
        .filter_map(|(at, _)| path.get(..at));
    let folder = match folders.chain([""]).find(|folder| has_index(folder)) {
        Some(folder) => Some(folder.to_owned()).filter(|folder| !folder.is_empty()),
        None => guessed,
    };
    Some(PartOf::Package { name, folder })
}

/// By version, and files of one version by name.
fn newest_first(one: &Named, other: &Named) -> Ordering {
    by_version(&other.release.version, &one.release.version).then_with(|| one.path.cmp(&other.path))
}

/// Compares versions as people read them: numbers by their value, and what is before a release (`-rc`, `a`, `b`, `dev`) in front of it. The
/// order of each ecosystem differs in odd cases; this one is for looking at.
fn by_version(one: &str, other: &str) -> Ordering {
    parts(one).cmp(parts(other))
}

/// A part of a version; the end is one, so that every part stands in one order with it: `1.0-rc`, `1.0`, `1.0-hotfix`, `1.0.1`.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part<'v> {
    /// A word that says that this is before the release.
    Before(&'v str),
    End,
    Word(&'v str),
    /// Without zeros in front: the longer one is larger.
    Number(usize, &'v str),
}

/// Whether a word in a version says that it came before the release.
fn is_before_release(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    let known = [
        "a", "alpha", "b", "beta", "c", "rc", "pre", "preview", "dev", "snapshot", "next", "canary",
    ];
    known.contains(&&*word)
}

fn parts(version: &str) -> impl Iterator<Item = Part<'_>> {
    let mut rest = version.strip_prefix('v').unwrap_or(version);
    let parts = std::iter::from_fn(move || {
        rest = rest.trim_start_matches(|c: char| !c.is_alphanumeric());
        let first = rest.chars().next()?;
        let is_number = first.is_ascii_digit();
        let ends = |c: char| !c.is_alphanumeric() || c.is_ascii_digit() != is_number;
        let (part, after) = rest.split_at(rest.find(ends).unwrap_or(rest.len()));
        rest = after;
        Some(if is_number {
            let number = part.trim_start_matches('0');
            Part::Number(number.len(), number)
        } else if is_before_release(part) {
            Part::Before(part)
        } else {
            Part::Word(part)
        })
    });
    parts.chain([Part::End])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_stand_as_people_read_them() {
        let ascending = [
            "0.9",
            "1.0.0-alpha.2",
            "1.0.0-alpha.10",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.1",
            "1.2.0",
            "1.10.0",
            "v2.0",
        ];
        for (earlier, later) in ascending.iter().zip(&ascending[1..]) {
            assert_eq!(
                by_version(earlier, later),
                Ordering::Less,
                "{earlier} {later}"
            );
            assert_eq!(
                by_version(later, earlier),
                Ordering::Greater,
                "{later} {earlier}"
            );
        }
        assert_eq!(by_version("1.0", "1.0"), Ordering::Equal);
        assert_eq!(by_version("1.0.post1", "1.0"), Ordering::Greater);
        assert_eq!(by_version("1.0a1", "1.0"), Ordering::Less);
        assert_eq!(by_version("1.2.3-r1", "1.2.3-r0"), Ordering::Greater);
        assert_eq!(by_version("1.0.post1", "1.0rc1"), Ordering::Greater);
        assert_eq!(by_version("1.0-hotfix", "1.0-next"), Ordering::Greater);
    }

    /// What is no order at all makes sorting panic.
    #[test]
    fn versions_stand_in_one_order_whatever_they_are_made_of() {
        let first = [
            "", "a", "RC", "rc", ".dev", "-next", ".post", "-hotfix", "-x", ".0", ".1", ".10",
        ];
        let all: Vec<String> = first
            .iter()
            .flat_map(|first| ["", "1", ".02", "rc", "-r1"].map(|last| format!("1{first}{last}")))
            .collect();
        for (a, b) in all.iter().flat_map(|a| all.iter().map(move |b| (a, b))) {
            let order = by_version(a, b);
            assert_eq!(by_version(b, a), order.reverse(), "{a} {b}");
            for c in &all {
                let next = by_version(b, c);
                if order == next || next == Ordering::Equal {
                    assert_eq!(by_version(a, c), order, "{a} {b} {c}");
                }
            }
        }
    }
}

//! An image: the tags that are held, and what a manifest of it consists of.

use std::sync::Arc;

use larder_core::{ArtifactRecord, Content, Digest, Fault, UnixMillis};
use larder_formats::{ImageConfig, Part};

use super::base::{Views, bad, cached_at, expires, is_virtual, not_held};
use crate::policy::admission;
use crate::repositories::RepositoryState;
use crate::target::Target;

/// Parts of a manifest that are shown.
const MOST_PARTS: usize = 200;
/// Longest configuration that is read, in bytes.
const MOST_CONFIG: u64 = 4 << 20;

/// Which image is wanted.
#[derive(Debug, Clone, Default)]
pub struct ImageRequest {
    /// The repository.
    pub repository: String,
    /// The image's name.
    pub name: String,
    /// The tag or digest whose manifest is looked into.
    pub reference: Option<String>,
    /// Where the page of tags before ended.
    pub after: Option<String>,
    /// At most so many tags and digests.
    pub limit: usize,
}

/// An image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageView {
    /// Tags and digests whose manifests are held, with the manifest's digest and when it was fetched.
    pub references: Vec<(String, Option<String>, UnixMillis)>,
    /// The reference behind which the next page begins; `None`: there is none.
    pub next: Option<String>,
    /// The manifest that was asked for.
    pub manifest: Option<Manifest>,
    /// Of a virtual repository, which holds nothing itself: its members.
    pub members: Vec<String>,
}

/// A manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Its path.
    pub path: String,
    /// Its digest in hexadecimal digits.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
    /// Its media type.
    pub media_type: Option<String>,
    /// What kind of artifact it is, where it says so.
    pub artifact_type: Option<String>,
    /// The digest of the manifest that it says something of.
    pub subject: Option<String>,
    /// When it was fetched.
    pub cached_at: Option<UnixMillis>,
    /// When the upstream is asked again; `None`: never.
    pub fresh_until: Option<UnixMillis>,
    /// Whether its parts are manifests: one for each platform.
    pub is_index: bool,
    /// Its layers or manifests.
    pub parts: Vec<ImagePart>,
    /// Those that are not shown.
    pub left_out: usize,
    /// The bytes of all of them, also of those not shown, as far as the manifest states them.
    pub sum: u64,
    /// Its configuration.
    pub config: Option<ImagePart>,
    /// What the configuration says, where it is held.
    pub configured: Option<ImageConfig>,
    /// What refers to it, as far as a list of that is held.
    pub referrers: Vec<ImagePart>,
}

/// A part of a manifest, and whether it is held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImagePart {
    /// What the manifest says of it.
    pub part: Part,
    /// Whether its bytes are held.
    pub is_held: bool,
}

impl Views {
    /// An image's held tags, and what one of them consists of.
    ///
    /// # Errors
    /// There is no such repository, its type has no images or that is no name of one (400), nothing of it is held (404), a manifest cannot
    /// be read, or storage fails.
    pub async fn image(&self, request: &ImageRequest) -> Result<ImageView, Fault> {
        let entry = self.entry(&request.repository)?;
        let Some(folder) = entry.format.manifests_of(&request.name) else {
            let package = entry.repository.package.as_str();
            let message = format!("no repository of the type {package} has an image of this name");
            return Err(bad(&entry, message));
        };
        if is_virtual(&entry) {
            return Ok(ImageView {
                members: self.holders_of(&request.repository)?,
                ..ImageView::default()
            });
        }
        let after = request
            .after
            .as_ref()
            .map(|after| format!("{folder}{after}"));
        let (held, has_more) = self
            .held_paths(&entry, &folder, after.as_deref(), request.limit)
            .await?;
        let references: Vec<_> = held
            .iter()
            .map(|(path, record)| {
                let reference = path.strip_prefix(&*folder).unwrap_or_default().to_owned();
                (reference, digest_of(record), cached_at(record))
            })
            .collect();
        let last = references.last().map(|(reference, ..)| reference.clone());
        let manifest = match &request.reference {
            Some(reference) => Some(self.manifest(&entry, request, reference).await?),
            None if references.is_empty() && request.after.is_none() => {
                let name = &entry.repository.name;
                let message = format!("{name} holds no manifest of this image");
                return Err(not_held(&entry, message));
            }
            None => None,
        };
        Ok(ImageView {
            references,
            next: last.filter(|_| has_more),
            manifest,
            members: Vec::new(),
        })
    }

    async fn manifest(
        &self,
        entry: &Arc<RepositoryState>,
        request: &ImageRequest,
        reference: &str,
    ) -> Result<Manifest, Fault> {
        let name = &request.name;
        let folder = entry.format.manifests_of(name).unwrap_or_default();
        let path = format!("{folder}{reference}");
        let nothing = || {
            let repository = &entry.repository.name;
            not_held(entry, format!("{repository} holds no manifest {path}"))
        };
        let found = self.manifest_at(entry, &folder, &path).await?;
        let (target, record) = found.ok_or_else(nothing)?;
        let blob = record.blob().cloned().ok_or_else(nothing)?;
        let format = entry.format;
        let read = self
            .read(&target, &record, move |document| {
                format.manifest(document, MOST_PARTS)
            })
            .await?
            .ok_or_else(nothing)?;
        let configured = match &read.config {
            Some(config) => self.image_config(entry, config).await?,
            None => None,
        };
        let config = match read.config {
            Some(config) => Some(self.part(entry, config).await?),
            None => None,
        };
        Ok(Manifest {
            sha256: blob.digest.to_hex(),
            size: blob.size,
            media_type: read.media_type.or(record.headers.content_type.clone()),
            artifact_type: read.artifact_type,
            subject: read.subject,
            cached_at: Some(cached_at(&record)),
            fresh_until: expires(entry, &path, &record),
            is_index: read.is_index,
            parts: self.parts(entry, read.parts).await?,
            left_out: read.left_out,
            sum: read.sum,
            config,
            configured,
            referrers: self.referrers(entry, name, &blob.digest).await?,
            path,
        })
    }

    /// The manifest that is held under a path, in whichever form clients have asked for it: the latest one.
    async fn manifest_at(
        &self,
        entry: &Arc<RepositoryState>,
        folder: &str,
        path: &str,
    ) -> Result<Option<(Arc<Target>, Arc<ArtifactRecord>)>, Fault> {
        let mut records = self.records_at(entry, path).await?;
        records.sort_by_key(cached_at);
        for record in records.into_iter().rev() {
            let place = match (&record.content, &record.headers.digest) {
                (Content::Pointer(_), Some(digest)) => format!("{folder}{digest}"),
                _ => path.to_owned(),
            };
            let Some(target) = admission::named_file(entry, entry.format, &place) else {
                continue;
            };
            let held = if record.blob().is_some() {
                Some(Arc::new(record))
            } else {
                self.record(&target).await?
            };
            if let Some(held) = held.filter(|held| held.blob().is_some()) {
                return Ok(Some((Arc::new(target), held)));
            }
        }
        Ok(None)
    }

    async fn parts(
        &self,
        entry: &Arc<RepositoryState>,
        parts: Vec<Part>,
    ) -> Result<Vec<ImagePart>, Fault> {
        let mut looked_up = Vec::with_capacity(parts.len());
        for part in parts {
            looked_up.push(self.part(entry, part).await?);
        }
        Ok(looked_up)
    }

    async fn part(&self, entry: &Arc<RepositoryState>, part: Part) -> Result<ImagePart, Fault> {
        let is_held = self.held(entry, &part.path).await?.is_some();
        Ok(ImagePart { part, is_held })
    }

    /// What is held under a path that a manifest names.
    async fn held(
        &self,
        entry: &Arc<RepositoryState>,
        path: &str,
    ) -> Result<Option<Arc<ArtifactRecord>>, Fault> {
        let Some(target) = admission::named_file(entry, entry.format, path) else {
            return Ok(None);
        };
        let record = self.record(&target).await?;
        Ok(record.filter(|record| record.has_body()))
    }

    /// What a configuration says that is held.
    async fn image_config(
        &self,
        entry: &Arc<RepositoryState>,
        config: &Part,
    ) -> Result<Option<ImageConfig>, Fault> {
        let Some(record) = self.held(entry, &config.path).await? else {
            return Ok(None);
        };
        let is_short = record.blob().is_some_and(|blob| blob.size <= MOST_CONFIG);
        let target = admission::named_file(entry, entry.format, &config.path);
        let Some(target) = target.filter(|_| is_short).map(Arc::new) else {
            return Ok(None);
        };
        let format = entry.format;
        let read = self.read(&target, &record, move |document| {
            Ok(format.image_config(document.body))
        });
        read.await
    }

    /// What refers to a manifest, by the list that is held.
    async fn referrers(
        &self,
        entry: &Arc<RepositoryState>,
        name: &str,
        digest: &Digest,
    ) -> Result<Vec<ImagePart>, Fault> {
        let Some(path) = entry.format.referrers_of(name, digest) else {
            return Ok(Vec::new());
        };
        let target = admission::named_file(entry, entry.format, &path).map(Arc::new);
        let Some((target, record)) = target.zip(self.held(entry, &path).await?) else {
            return Ok(Vec::new());
        };
        let format = entry.format;
        let read = self
            .read(&target, &record, move |document| {
                format.manifest(document, MOST_PARTS)
            })
            .await?;
        self.parts(entry, read.unwrap_or_default().parts).await
    }
}

/// The digest of a manifest's bytes: its record's, or that of the record that has them.
fn digest_of(record: &ArtifactRecord) -> Option<String> {
    match &record.content {
        Content::Blob(blob) => Some(blob.digest.to_string()),
        Content::Pointer(_) => record.headers.digest.as_ref().map(ToString::to_string),
        Content::Negative { .. } | Content::HeadOnly => None,
    }
}

//! What goes into an archive of repositories, and comes out of one (docs/adr/0100): rows page by page, blobs one by one. Knows what is
//! of this installation alone, and leaves it out: the marks of upstreams, and the signatures of links to other hosts.
//!
//! | file | knows |
//! |---|---|
//! | `mod.rs` | what goes into an archive |
//! | `rows.rs` | a row of an archive |
//! | `take.rs`, `records.rs` | what comes out of one, and what becomes of a remote's rows |
//! | `places.rs` | where something was found, said without the address of an upstream, and with that of another |
//!
//! Documents' claims and derivations are no part of it: they are made anew from the documents.

mod places;
mod records;
mod rows;
mod take;

use std::sync::Arc;

use larder_core::{
    ArtifactPath, ArtifactRecord, BlobDescriptor, Digest, ErrorCode, Fault, FaultKind,
};
use larder_formats::{LinkBase, Links, SIDECAR_SUFFIXES};
use larder_storage::{BlobStore, Body, StorageError, StorageErrorKind};

use super::operator::storage_unavailable;
use crate::catalog::Catalog;
use crate::fault::storage_fault;
use crate::keys;
use crate::origin::local::Local;
use crate::origin::remote::{self, Remote};
use crate::policy::admission;
use crate::repositories::{Registry, RepositoryState};

pub use rows::{ArchiveLink, ArchivePage, ArchiveRow, ArchiveTaken, ArchivedFile, LeftAlone};

/// Rows of one page.
const MOST_ROWS: u32 = 100;
/// And about so many bytes.
const MOST_BYTES: u64 = 512 << 10;
const RULE: &str = "archive";

/// What goes into an archive, and comes out of one.
#[derive(Debug)]
pub struct Archive {
    registry: Arc<Registry>,
    catalog: Arc<Catalog>,
    blobs: Arc<dyn BlobStore>,
    remote: Arc<Remote>,
    local: Arc<Local>,
}

impl Archive {
    pub(crate) fn new(base: &remote::Parts, remote: &Arc<Remote>, local: Arc<Local>) -> Self {
        Self {
            registry: Arc::clone(&base.registry),
            catalog: Arc::clone(&base.catalog),
            blobs: Arc::clone(&base.blobs),
            remote: Arc::clone(remote),
            local,
        }
    }

    /// Rows of a repository behind a path and form, in their order. A page may have none and still a next one.
    ///
    /// # Errors
    /// There is no such repository, it is a virtual one, or storage fails.
    pub async fn page(
        &self,
        repository: &str,
        after: Option<&(String, String)>,
    ) -> Result<ArchivePage, Fault> {
        let entry = admission::entry(&self.registry, repository)?;
        // What is being committed is part of it.
        self.catalog.barrier().await;
        let epoch = self.catalog.epoch(&entry).value;
        let page = ArchivePage {
            rows: Vec::new(),
            next: None,
            epoch,
            left_out: 0,
        };
        let filled = if entry.repository.local().is_some() {
            self.fill_local(&entry, after, page).await
        } else {
            self.fill_remote(&entry, after, page).await
        };
        filled.map_err(|error| storage_fault(&entry, &error))
    }

    async fn fill_remote(
        &self,
        entry: &RepositoryState,
        after: Option<&(String, String)>,
        mut page: ArchivePage,
    ) -> Result<ArchivePage, StorageError> {
        let name = &entry.repository.name;
        let rows = self.catalog.rows(name, after, MOST_ROWS).await?;
        let is_last = rows.len() < MOST_ROWS as usize;
        let (count, mut bytes) = (rows.len(), 0);
        for (at, (path, variant, record)) in rows.into_iter().enumerate() {
            bytes += record.as_ref().map_or(0, ArtifactRecord::weight) + path.len() as u64;
            let place = (path.clone(), variant.clone());
            match record.and_then(|record| self.remote_row(entry, path, &variant, record)) {
                Some(row) => page.rows.push(row),
                None => page.left_out += 1,
            }
            let ends = at + 1 == count;
            if (ends && !is_last) || (!ends && bytes > MOST_BYTES) {
                page.next = Some(place);
                break;
            }
        }
        Ok(page)
    }

    /// A record without what is of this installation; `None` if it could not be used elsewhere.
    fn remote_row(
        &self,
        entry: &RepositoryState,
        path: String,
        variant: &str,
        record: ArtifactRecord,
    ) -> Option<ArchiveRow> {
        let (form, origin) = keys::split_origin(variant);
        let of_index = match &entry.origins {
            [files, _] if **files == *origin => false,
            [_, index] if **index == *origin => true,
            _ => return None,
        };
        let link = if keys::is_link(entry, &path) {
            Some(self.link_of(entry, &path)?)
        } else {
            None
        };
        let path = if link.is_some() { String::new() } else { path };
        Some(ArchiveRow {
            form: form.to_owned(),
            of_index,
            below: places::below(entry, of_index, &record.source_url),
            link,
            record: Some(record),
            ..ArchiveRow::of_path(path)
        })
    }

    /// What a signed path stands for.
    fn link_of(&self, entry: &RepositoryState, path: &str) -> Option<ArchiveLink> {
        let links = self.links(entry);
        let suffixes = std::iter::once("").chain(SIDECAR_SUFFIXES.iter().copied());
        let mut subjects = suffixes.filter_map(|suffix| Some((path.strip_suffix(suffix)?, suffix)));
        subjects.find_map(|(subject, suffix)| {
            let subject = ArtifactPath::from_decoded(subject).ok()?;
            let link = links.resolve_external(&subject, &[])?;
            Some(ArchiveLink {
                url: link.url,
                suffix: suffix.to_owned(),
            })
        })
    }

    fn links<'e>(&self, entry: &'e RepositoryState) -> Links<'e> {
        let base = LinkBase::new("/");
        Links::new(&entry.repository, &self.registry.link_key, base)
    }

    async fn fill_local(
        &self,
        entry: &RepositoryState,
        after: Option<&(String, String)>,
        mut page: ArchivePage,
    ) -> Result<ArchivePage, StorageError> {
        let name = &entry.repository.name;
        let after = after.map_or("", |(path, _)| path);
        let rows = self.catalog.local_page(name, after, MOST_ROWS).await?;
        let is_last = rows.len() < MOST_ROWS as usize;
        page.next = rows
            .last()
            .filter(|_| !is_last)
            .map(|(path, _)| (path.clone(), String::new()));
        for (path, file) in rows {
            let Some(file) = file else {
                page.left_out += 1;
                continue;
            };
            page.rows.push(ArchiveRow {
                file: Some(ArchivedFile {
                    blob: file.blob,
                    headers: file.headers,
                    uploaded_at: file.uploaded_at,
                }),
                ..ArchiveRow::of_path(path)
            });
        }
        Ok(page)
    }

    /// A blob's bytes.
    ///
    /// # Errors
    /// 404 if it is not there, 500 if it has not its length, 503 where storage fails.
    pub async fn blob(&self, blob: &BlobDescriptor) -> Result<Body, Fault> {
        self.blobs
            .open(blob)
            .await
            .map_err(|error| match error.kind {
                StorageErrorKind::NotFound => absent(&blob.digest),
                StorageErrorKind::Corrupt => {
                    tracing::error!(%error, "a blob is damaged");
                    let message = format!("the blob {} is damaged", blob.digest);
                    Fault::new(FaultKind::Internal, ErrorCode::Storage, message).by_rule(RULE)
                }
                _ => storage_unavailable(&error),
            })
    }
}

fn absent(digest: &Digest) -> Fault {
    let message = format!("there is no blob {digest}");
    Fault::new(FaultKind::NotFound, ErrorCode::NotFound, message).by_rule(RULE)
}

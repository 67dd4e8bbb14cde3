//! What comes out of an archive: first blobs, which nothing refers to yet, then the rows that name them.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_core::Stream;
use futures_util::StreamExt as _;
use larder_core::{BlobDescriptor, Digest, DigestAlgorithm, ErrorCode, Fault, FaultKind, Hasher};
use larder_formats::SIDECAR_SUFFIXES;
use larder_storage::{BlobInfo, ExpectedBlob, LocalFile, SealedSpool, StorageError};

use super::{Archive, ArchiveRow, ArchiveTaken, RULE, storage_unavailable};
use crate::catalog::DISK_IS_LOW;
use crate::fault::internal;
use crate::origin::local::Restored;
use crate::policy::admission;
use crate::repositories::RepositoryState;

/// The longest path or form that is taken, in bytes.
const LONGEST: usize = 8 << 10;

impl Archive {
    /// Takes a blob into the store, durably. Nothing refers to it then; if no row comes that does, it goes after a day.
    ///
    /// # Errors
    /// 400 if the bytes are others than those of the digest, 507 where there is no space, 503 where storage fails, and whatever the
    /// body ends with. Nothing is kept then.
    pub async fn take_blob<S>(&self, blob: &BlobDescriptor, body: S) -> Result<(), Fault>
    where
        S: Stream<Item = Result<Bytes, Fault>> + Send,
    {
        self.check_space(blob.size)?;
        let expected = ExpectedBlob {
            digest: blob.digest.clone(),
            length: Some(blob.size),
        };
        let failed = |error: StorageError| self.storage_error(&error);
        let mut spool = self.blobs.spool_for(&expected).map_err(failed)?;
        let (mut body, mut hasher) = (pin!(body), Hasher::new(&[]));
        while let Some(bytes) = body.next().await {
            let bytes = bytes?;
            if spool.len() + bytes.len() as u64 > blob.size {
                return Err(other_bytes(blob));
            }
            spool.append(&bytes).map_err(failed)?;
            hasher.update(&bytes);
        }
        if spool.len() != blob.size || hasher.finish_sha256() != blob.digest {
            return Err(other_bytes(blob));
        }
        let sealed = SealedSpool {
            spool,
            descriptor: blob.clone(),
        };
        // A store goes on with what it has begun to publish though nobody waits for it.
        match self.blobs.publish(vec![sealed]).await.pop() {
            Some(published) => published.map(drop).map_err(failed),
            None => Err(internal("a blob was not stored")),
        }
    }

    /// Takes rows of one repository, whose blobs are in the store. Records of a remote are written where nothing newer is known, all in
    /// one transaction; files of a local repository each in its own, as its rules for uploads say. `overwrite`: in place of other
    /// files, too.
    ///
    /// # Errors
    /// There is no such repository, a row is none of its kind or names a blob that is not there (400), or storage fails.
    pub async fn take(
        &self,
        repository: &str,
        rows: Vec<ArchiveRow>,
        overwrite: bool,
    ) -> Result<ArchiveTaken, Fault> {
        let entry = admission::entry(&self.registry, repository)?;
        let is_local = entry.repository.local().is_some();
        for row in &rows {
            check(row, is_local)
                .map_err(|why| refuse(why).in_repository(&entry.repository.name))?;
        }
        self.check_space(0)?;
        let blobs = self.hold(rows.iter().filter_map(ArchiveRow::blob)).await?;
        if is_local {
            self.take_files(&entry, rows, &blobs, overwrite).await
        } else {
            self.take_records(&entry, rows, &blobs).await
        }
    }

    async fn take_files(
        &self,
        entry: &Arc<RepositoryState>,
        rows: Vec<ArchiveRow>,
        blobs: &BTreeMap<Digest, BlobInfo>,
        overwrite: bool,
    ) -> Result<ArchiveTaken, Fault> {
        let mut taken = ArchiveTaken::default();
        for row in rows {
            let Some((file, blob)) = row.file.and_then(|file| {
                let blob = blobs.get(&file.blob.digest)?;
                Some((file, blob))
            }) else {
                continue;
            };
            let file = LocalFile {
                blob: file.blob,
                headers: file.headers,
                uploaded_at: file.uploaded_at,
                written_at: file.uploaded_at,
            };
            let restored = self
                .local
                .restore(entry, (&row.path, &file), blob, overwrite);
            match restored.await? {
                Restored::Written => taken.written += 1,
                Restored::Same => taken.kept += 1,
                Restored::Refused(fault) => taken.leave(row.path, &fault.message),
            }
        }
        if taken.written > 0 {
            self.catalog.supersede(entry);
        }
        Ok(taken)
    }

    /// Holds blobs that are in the store, so that they stay until rows refer to them.
    async fn hold<'b>(
        &self,
        blobs: impl Iterator<Item = &'b BlobDescriptor>,
    ) -> Result<BTreeMap<Digest, BlobInfo>, Fault> {
        let (mut held, mut sealed) = (BTreeMap::new(), Vec::new());
        let distinct: BTreeMap<&Digest, &BlobDescriptor> =
            blobs.map(|blob| (&blob.digest, blob)).collect();
        for blob in distinct.into_values() {
            let body = self.blob(blob).await.map_err(|fault| match fault.kind {
                FaultKind::NotFound => refuse(format!(
                    "the blob {} is not here: send it first",
                    blob.digest
                )),
                _ => fault,
            })?;
            if let Some(stored) = SealedSpool::of_stored(blob.clone(), &body) {
                sealed.push(stored);
                continue;
            }
            // What is no file here is not deleted for a day.
            let info = BlobInfo {
                descriptor: blob.clone(),
                modified_ns: 0,
                pin: None,
            };
            held.insert(blob.digest.clone(), info);
        }
        for published in self.blobs.publish(sealed).await {
            let info = published.map_err(|error| self.storage_error(&error))?;
            held.insert(info.descriptor.digest.clone(), info);
        }
        Ok(held)
    }

    /// Whether the disk has room for so many bytes more.
    fn check_space(&self, bytes: u64) -> Result<(), Fault> {
        let why = self.catalog.why_no_room_for(bytes);
        let why = why.map_err(|error| self.storage_error(&error))?;
        why.map_or(Ok(()), |why| Err(no_room(&why)))
    }

    pub(super) fn storage_error(&self, error: &StorageError) -> Fault {
        if error.is_full() {
            self.catalog.make_room();
            return no_room(DISK_IS_LOW);
        }
        storage_unavailable(error)
    }
}

/// What is wrong with a row, if anything is.
fn check(row: &ArchiveRow, is_local: bool) -> Result<(), String> {
    let shown = larder_core::shown(&row.path);
    if is_local != row.file.is_some() || is_local == row.record.is_some() {
        let kind = if is_local { "local" } else { "remote" };
        return Err(format!("{shown} is no row of a {kind} repository"));
    }
    let texts = [&row.path, &row.form];
    let is_odd = |text: &&String| text.len() > LONGEST || text.contains(char::is_control);
    if texts.iter().any(is_odd) || row.form.contains('@') {
        return Err(format!("{shown} is no path that a repository can have"));
    }
    let suffix = row.link.as_ref().map_or("", |link| &*link.suffix);
    if !suffix.is_empty() && !SIDECAR_SUFFIXES.contains(&suffix) {
        return Err("a link ends in what no sidecar ends in".to_owned());
    }
    match row.blob() {
        Some(blob) if blob.digest.algorithm() != DigestAlgorithm::Sha256 => Err(format!(
            "{shown} names a blob by another digest than SHA-256"
        )),
        _ => Ok(()),
    }
}

fn refuse(message: String) -> Fault {
    Fault::new(FaultKind::BadRequest, ErrorCode::BadRequest, message).by_rule(RULE)
}

fn other_bytes(blob: &BlobDescriptor) -> Fault {
    let message = format!(
        "the body is not the {} bytes with the digest {}; nothing was kept",
        blob.size, blob.digest
    );
    Fault::new(FaultKind::BadRequest, ErrorCode::ChecksumMismatch, message).by_rule(RULE)
}

fn no_room(why: &str) -> Fault {
    let message = format!("{why}: nothing was kept; free space, and import again");
    Fault::new(
        FaultKind::InsufficientStorage,
        ErrorCode::StorageFull,
        message,
    )
    .by_rule("disk")
}

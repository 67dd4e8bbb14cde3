//! From the body of a request to a durable file.
//!
//! 1. Everything that can be said before the body is said before a byte of it is read.
//! 2. The body goes into a spool without a name, and is hashed on the way. Whatever ends it early leaves nothing.
//! 3. The spool becomes a blob: file, name and directories are on stable storage.
//! 4. One transaction decides and writes the row, and is on stable storage, too.
//! 5. The epoch is raised: nobody is given what was there before. Only then is the upload acknowledged.
//!
//! Steps 3 to 5 are a task of their own: a client that leaves does not stop them half-way.

use std::sync::Arc;

use bytes::Bytes;
use futures_core::Stream;
use futures_util::StreamExt as _;
use http::HeaderMap;
use http::header::{
    CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_RANGE, CONTENT_TYPE,
    HeaderName,
};
use larder_core::{
    BlobDescriptor, Digest, ErrorCode, Fault, FaultKind, Hasher, StoredHeaders, field_text, shown,
};
use larder_storage::{
    BlobInfo, ExpectedBlob, LocalChange, LocalFile, LocalOutcome, LocalState, SealedSpool, Spool,
    StorageError,
};

use super::checksums::Checksums;
use super::place::{Local, Place};
use super::read::repr_digest;
use super::rules::{UploadRules, etag};
use crate::catalog::DISK_IS_LOW;
use crate::fault::{internal, storage_fault};
use crate::repositories::RepositoryState;

/// The longest value of a field that is kept with a file, in bytes.
const LONGEST_FIELD: usize = 1024;
/// What curl and browsers say of a body that they were told nothing of.
const FORM: &str = "application/x-www-form-urlencoded";

/// A part of the body of an upload.
#[derive(Debug)]
pub enum UploadPart {
    /// The next of its bytes.
    Data(Bytes),
    /// The fields behind them (RFC 9110 section 6.5).
    Trailers(HeaderMap),
}

/// An upload that is on stable storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Whether there was no file under the path before.
    pub is_new: bool,
    /// Decoded path below the repository.
    pub path: String,
    /// Its bytes.
    pub blob: BlobDescriptor,
    /// The tag that the file now has, with its quotes.
    pub etag: String,
    /// `Repr-Digest` of the file.
    pub repr_digest: Option<http::HeaderValue>,
}

/// Takes the file at `place`.
pub(super) async fn write<S>(
    local: &Arc<Local>,
    place: &Place<'_>,
    headers: &HeaderMap,
    length: Option<u64>,
    body: S,
) -> Result<Written, Fault>
where
    S: Stream<Item = Result<UploadPart, Fault>> + Send + Unpin,
{
    place.file_only()?;
    if headers.contains_key(CONTENT_RANGE) {
        // RFC 9110 section 14.5: a part must not be taken for the whole.
        let message = "an upload is a whole file: Content-Range cannot be used with PUT";
        return Err(place
            .fault(FaultKind::BadRequest, ErrorCode::BadRequest, message)
            .by_rule("content-range"));
    }
    let named = |fault: Fault| fault.in_repository(place.repository());
    let checksums = Checksums::of(headers).map_err(named)?;
    let rules = UploadRules::of(place, headers).map_err(named)?;
    let state = state(local, place).await?;
    rules.before_the_body(&state, length, checksums.sha256())?;
    let spool = room(local, place, length, checksums.sha256())?;
    let intake = Intake {
        local,
        place,
        rules: &rules,
        state: &state,
        checksums: &checksums,
    };
    let sealed = intake.receive(spool, body).await.map_err(named)?;
    let now = local.now();
    let file = LocalFile {
        blob: sealed.descriptor.clone(),
        headers: kept(headers),
        uploaded_at: now,
        written_at: now,
    };
    let finish = Finish {
        local: Arc::clone(local),
        entry: Arc::clone(place.entry),
        path: place.path.as_str().to_owned(),
        rules,
        file,
    };
    tokio::spawn(finish.run(sealed))
        .await
        .unwrap_or_else(|_| Err(internal("the upload was broken off")))
}

/// What is there now.
async fn state(local: &Local, place: &Place<'_>) -> Result<LocalState, Fault> {
    let state = local
        .catalog
        .local_state(place.repository(), place.path.as_str());
    state
        .await
        .map_err(|error| storage_fault(place.entry, &error))
}

/// A spool, if the disk has room for a body of this length, which may have been stated to have this digest.
fn room(
    local: &Arc<Local>,
    place: &Place<'_>,
    length: Option<u64>,
    stated: Option<&Digest>,
) -> Result<Spool, Fault> {
    let full = |error: &StorageError| storage_error(local, place.entry, error);
    let why = local.catalog.why_no_room_for(length.unwrap_or_default());
    if let Some(why) = why.map_err(|error| full(&error))? {
        return Err(no_room(place.entry, &why));
    }
    let spool = match stated.cloned() {
        Some(digest) => local.blobs.spool_for(&ExpectedBlob { digest, length }),
        None => local.blobs.spool(),
    };
    spool.map_err(|error| full(&error))
}

struct Intake<'a> {
    local: &'a Arc<Local>,
    place: &'a Place<'a>,
    rules: &'a UploadRules,
    state: &'a LocalState,
    checksums: &'a Checksums,
}

impl Intake<'_> {
    /// The whole body, hashed and compared with what the request states of it.
    async fn receive<S>(&self, mut spool: Spool, mut body: S) -> Result<SealedSpool, Fault>
    where
        S: Stream<Item = Result<UploadPart, Fault>> + Send + Unpin,
    {
        let mut most = self.rules.most(self.state);
        let mut hasher = Hasher::new(&self.checksums.algorithms());
        let mut behind = Checksums::default();
        while let Some(part) = body.next().await {
            let bytes = match part? {
                UploadPart::Data(bytes) => bytes,
                UploadPart::Trailers(fields) => {
                    behind = Checksums::of(&fields)?;
                    continue;
                }
            };
            let size = spool.len().saturating_add(bytes.len() as u64);
            if size > most {
                // Since the upload began others may have made room.
                let state = state(self.local, self.place).await?;
                self.rules.too_much(&state, size)?;
                most = self.rules.most(&state);
            }
            spool
                .append(&bytes)
                .map_err(|error| storage_error(self.local, self.place.entry, &error))?;
            hasher.update(&bytes);
        }
        let digests = hasher.finish();
        self.checksums.compare(&digests)?;
        behind.compare(&digests)?;
        let Some(digest) = digests.into_iter().next() else {
            return Err(internal("a body has no digest"));
        };
        let descriptor = BlobDescriptor {
            digest,
            size: spool.len(),
        };
        Ok(SealedSpool { spool, descriptor })
    }
}

/// What is left to do once the body is whole and right.
struct Finish {
    local: Arc<Local>,
    entry: Arc<RepositoryState>,
    path: String,
    rules: UploadRules,
    file: LocalFile,
}

impl Finish {
    async fn run(self, sealed: SealedSpool) -> Result<Written, Fault> {
        let blob = self.publish(sealed).await?;
        let repository = &self.entry.repository.name;
        let change = LocalChange::Put {
            file: &self.file,
            blob: &blob,
            clock: &*self.local.clock,
        };
        let outcome = self
            .local
            .catalog
            .change_local_file(repository, &self.path, change, |state| {
                self.rules.decide(state, &self.file)
            })
            .await;
        // The row, if there is one now, keeps the blob from here on.
        drop(blob);
        let is_new = match outcome {
            Ok(LocalOutcome::Changed(before)) => {
                self.local.catalog.supersede(&self.entry);
                !before.exists
            }
            Ok(LocalOutcome::Kept(_)) => false,
            Ok(LocalOutcome::Refused(fault)) => {
                self.discard().await;
                return Err(fault);
            }
            Err(error) => {
                self.discard().await;
                return Err(storage_error(&self.local, &self.entry, &error));
            }
        };
        let blob = self.file.blob;
        tracing::info!(
            %repository, path = &*shown(&self.path), size = blob.size, digest = %blob.digest, is_new,
            "a file was uploaded"
        );
        Ok(Written {
            is_new,
            path: self.path,
            etag: etag(&blob.digest),
            repr_digest: repr_digest(&blob.digest),
            blob,
        })
    }

    async fn publish(&self, sealed: SealedSpool) -> Result<BlobInfo, Fault> {
        match self.local.blobs.publish(vec![sealed]).await.pop() {
            Some(Ok(blob)) => Ok(blob),
            Some(Err(error)) => Err(storage_error(&self.local, &self.entry, &error)),
            None => Err(internal("the upload was not stored")),
        }
    }

    /// The blob of an upload that was refused at last goes, unless something else refers to it.
    async fn discard(&self) {
        let (local, blob) = (&self.local, &self.file.blob);
        if let Err(error) = local.catalog.collect_blob(blob).await {
            tracing::debug!(%error, "the bytes of a refused upload are taken away later");
        }
    }
}

/// What the request says of its body that answers will say again.
fn kept(headers: &HeaderMap) -> StoredHeaders {
    let joined = |name: HeaderName, lines: usize| {
        let lines = headers.get_all(name).iter().take(lines).map(field_text);
        let lines: Vec<_> = lines.collect();
        let text = lines.join(", ").trim().to_owned();
        (!text.is_empty() && text.len() <= LONGEST_FIELD).then_some(text)
    };
    let text = |name| joined(name, 1);
    // Lines of one field are one list (RFC 9110 section 5.3).
    let list = |name| joined(name, usize::MAX);
    let content_type = text(CONTENT_TYPE).filter(|kind| !kind.eq_ignore_ascii_case(FORM));
    StoredHeaders {
        content_type,
        content_disposition: text(CONTENT_DISPOSITION),
        content_language: list(CONTENT_LANGUAGE),
        content_encoding: list(CONTENT_ENCODING),
        ..StoredHeaders::default()
    }
}

fn storage_error(local: &Arc<Local>, entry: &RepositoryState, error: &StorageError) -> Fault {
    if error.is_full() {
        local.catalog.make_room();
        return no_room(entry, DISK_IS_LOW);
    }
    storage_fault(entry, error)
}

fn no_room(entry: &RepositoryState, why: &str) -> Fault {
    let message = format!("{why}: nothing was kept; free space, or delete files");
    Fault::new(
        FaultKind::InsufficientStorage,
        ErrorCode::StorageFull,
        message,
    )
    .in_repository(&entry.repository.name)
    .by_rule("disk")
}

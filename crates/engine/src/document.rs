//! Whole documents: checked before they are kept, loaded to be derived from. Also the engine's dealings with whole files in general.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use larder_core::{
    ArtifactRecord, BlobDescriptor, Digest, DigestAlgorithm, ErrorCode, Fault, Hasher,
};
use larder_formats::{Identifier, Malformed, Memo};
use larder_storage::{BlobInfo, OpenBlob, Spool, StorageError};

use crate::admission::Wanted;
use crate::claims::LoadedDocument;
use crate::coding;
use crate::counters::count;
use crate::download::{Filled, Received, finished_record};
use crate::engine::Engine;
use crate::fill::Fill;
use crate::flight::{Settled, SettledBody};
use crate::no_body::NoBody;
use crate::obtain::is_full;
use crate::serve::{internal, storage_fault};
use crate::verify::{Whole, last_of};

const CHUNK: usize = 256 << 10;
/// The longest document that stays in memory between its check and what is derived from it.
const KEPT_AT_HAND: usize = 256 << 10;

/// A received document that has been found good.
struct Checked {
    received: Received,
    fill: Arc<Fill>,
    record: ArtifactRecord,
    /// If it is short.
    document: Option<LoadedDocument>,
}

/// Where a document's bytes are, to be read by whoever has got a parser for them: waiting for one takes no memory.
pub(crate) enum DocumentSource {
    /// In memory already.
    Loaded(Arc<LoadedDocument>),
    /// In a file.
    File {
        file: Arc<File>,
        length: u64,
        record: Arc<ArtifactRecord>,
        wanted: Arc<Wanted>,
    },
    /// In what was received, where no file could be made.
    Fill {
        fill: Arc<Fill>,
        length: u64,
        record: Arc<ArtifactRecord>,
        wanted: Arc<Wanted>,
    },
}

impl DocumentSource {
    /// Reads it, on a thread that may wait.
    ///
    /// # Errors
    /// The bytes cannot be read.
    pub(crate) fn load(self) -> Result<Arc<LoadedDocument>, Fault> {
        let lost = |_| internal("a document could not be read back");
        let (body, record, wanted) = match self {
            Self::Loaded(document) => return Ok(document),
            Self::File {
                file,
                length,
                record,
                wanted,
            } => (read_file(&file, length).map_err(lost)?, record, wanted),
            Self::Fill {
                fill,
                length,
                record,
                wanted,
            } => (
                Engine::read_fill(&fill, length).map_err(lost)?,
                record,
                wanted,
            ),
        };
        LoadedDocument::new(body, &record, wanted).map(Arc::new)
    }
}

impl Engine {
    /// A received document: decoded if it came compressed, checked, and only then kept. While it waits for a parser its bytes are where
    /// they arrived, and not in memory.
    pub(crate) async fn accept_document(
        self: &Arc<Self>,
        wanted: &Arc<Wanted>,
        fill: &Arc<Fill>,
        received: Received,
        prior: Option<&ArtifactRecord>,
    ) -> Result<Filled, NoBody> {
        let (engine, wanted_there, fill_there) =
            (Arc::clone(self), Arc::clone(wanted), Arc::clone(fill));
        let prior = prior.cloned();
        let checked = self.parse_blocking(move || {
            engine.check_received(&wanted_there, &fill_there, received, prior.as_ref())
        });
        let Checked {
            received,
            fill,
            record,
            document,
        } = checked.await.map_err(stopped)??;
        fill.verified(received.length);
        let filled = Self::hand_over(wanted, &fill, received, record);
        Ok(Filled {
            document: document.map(Arc::new),
            ..filled
        })
    }

    /// Decodes and checks a received document, on a thread that may wait.
    fn check_received(
        self: &Arc<Self>,
        wanted: &Arc<Wanted>,
        fill: &Arc<Fill>,
        mut received: Received,
        prior: Option<&ArtifactRecord>,
    ) -> Result<Checked, NoBody> {
        let mut headers = fill.draft.headers.clone();
        if received.of_another_mirror {
            (headers.etag, headers.last_modified) = (None, None);
        }
        let mut body = Self::received_bytes(fill, &received)?;
        // An index that is an archive by its name is signed as it is: a label on top is a server's mistake (design section 11).
        let label = headers
            .content_encoding
            .take()
            .filter(|_| !coding::name_says_compressed(&wanted.spec.key_path));
        let decoded_here = label.is_some();
        if let Some(label) = label {
            body = coding::decode(&body, &label, self.limits.document_size)
                .map_err(|message| unusable_document(wanted, &message))?;
            // The upstream's tag belongs to the coded form.
            headers.etag = None;
            received = self.rewritten(&body, &received);
        }
        let record = finished_record(fill, headers, &received, true, prior, self.now());
        let document = LoadedDocument::new(body, &record, Arc::clone(wanted)).map_err(stopped)?;
        let view = document.view();
        let verdict = wanted
            .format
            .check(&wanted.entry.repository, &view, &view.meter());
        if let Err(Malformed(reason)) = verdict {
            count(&wanted.entry.counters.malformed_documents);
            return Err(unusable_document(wanted, &reason));
        }
        if prior.and_then(ArtifactRecord::blob) != record.blob() {
            tell(&document);
        }
        let fill = if decoded_here && received.spool.is_none() {
            // The decoded bytes are not what the fill holds.
            Arc::new(Fill::complete(
                fill.draft.clone(),
                Bytes::copy_from_slice(view.body),
            ))
        } else {
            Arc::clone(fill)
        };
        // A long one is read from its file once more, by whoever has got a parser for it.
        let document = (view.body.len() <= KEPT_AT_HAND)
            .then_some(())
            .map(|()| document);
        Ok(Checked {
            received,
            fill,
            record,
            document,
        })
    }

    pub(crate) fn received_bytes(fill: &Arc<Fill>, received: &Received) -> Result<Vec<u8>, NoBody> {
        let spool = received.spool.as_ref().map(Spool::reader);
        Self::read_received(fill, spool.as_deref(), received.length)
    }

    /// All bytes of a received body: from its spool, else from the fill.
    pub(crate) fn read_received(
        fill: &Arc<Fill>,
        spool: Option<&File>,
        length: u64,
    ) -> Result<Vec<u8>, NoBody> {
        let read = match spool {
            Some(file) => read_file(file, length),
            None => Self::read_fill(fill, length),
        };
        read.map_err(|_| {
            NoBody::unusable(
                ErrorCode::Internal,
                "a downloaded document could not be read back",
            )
        })
    }

    /// All bytes of a fill that holds everything.
    pub(crate) fn read_fill(fill: &Arc<Fill>, length: u64) -> std::io::Result<Vec<u8>> {
        let attached = fill.attach(0);
        let mut bytes = Vec::with_capacity(length as usize);
        while (bytes.len() as u64) < length {
            bytes.extend_from_slice(&attached.read(length)?);
        }
        Ok(bytes)
    }

    /// Bytes made from received ones, spooled anew if the disk takes them.
    fn rewritten(self: &Arc<Self>, bytes: &[u8], from: &Received) -> Received {
        let mut hasher = Hasher::new(&[]);
        hasher.update(bytes);
        let spool = self
            .new_spool()
            .and_then(|mut spool| spool.append(bytes).ok().map(|()| spool));
        Received {
            spool,
            digests: hasher.finish(),
            identities: None,
            length: bytes.len() as u64,
            end_marked: from.end_marked,
            needs_digest: from.needs_digest,
            of_another_mirror: from.of_another_mirror,
        }
    }

    /// Decodes a file whose upstream compressed it unasked.
    pub(crate) async fn decode(
        self: &Arc<Self>,
        wanted: &Wanted,
        whole: &Whole,
        label: &str,
    ) -> Result<Whole, NoBody> {
        let received = &whole.received;
        let limit = self.limits.document_size;
        if received.length > limit || !(received.spool.is_some() || whole.fill.holds_everything()) {
            let message = "the upstream compressed the file unasked, and it is too large to be unpacked in memory";
            return Err(NoBody::unusable(ErrorCode::UnaskedCoding, message));
        }
        let (fill, spool, length) = (
            Arc::clone(&whole.fill),
            received.spool.as_ref().map(Spool::reader),
            received.length,
        );
        let label = label.to_owned();
        let plain = self
            .parse_blocking(move || {
                let coded = Self::read_received(&fill, spool.as_deref(), length)?;
                Ok::<_, NoBody>(coding::decode(&coded, &label, limit))
            })
            .await
            .map_err(stopped)??;
        let plain = plain.map_err(|message| unusable_document(wanted, &message))?;
        let received = self.rewritten(&plain, received);
        // Without a file of their own the decoded bytes need a place: the fill holds the coded ones.
        let fill = match &received.spool {
            Some(_) => Arc::clone(&whole.fill),
            None => Arc::new(Fill::complete(whole.fill.draft.clone(), plain.into())),
        };
        Ok(Whole { received, fill })
    }

    /// Where a held document's bytes are.
    pub(crate) fn held_source(
        &self,
        wanted: &Arc<Wanted>,
        record: &Arc<ArtifactRecord>,
    ) -> Result<DocumentSource, Fault> {
        let blob = record
            .blob()
            .ok_or_else(|| internal("a document has no bytes"))?;
        let OpenBlob { file, length } = self
            .blobs
            .open(blob)
            .map_err(|error| storage_fault(&wanted.entry, &error))?;
        Ok(DocumentSource::File {
            file,
            length,
            record: Arc::clone(record),
            wanted: Arc::clone(wanted),
        })
    }

    /// Where the bytes behind a settled flight are.
    pub(crate) fn settled_source(wanted: &Arc<Wanted>, settled: &Settled) -> DocumentSource {
        if let Some(document) = &settled.document {
            return DocumentSource::Loaded(Arc::clone(document));
        }
        let (record, wanted) = (Arc::clone(&settled.record), Arc::clone(wanted));
        match &settled.body {
            SettledBody::Blob(open) => DocumentSource::File {
                file: Arc::clone(&open.file),
                length: open.length,
                record,
                wanted,
            },
            SettledBody::Fill(fill) => DocumentSource::Fill {
                fill: Arc::clone(fill),
                length: settled.record.blob().map_or(0, |blob| blob.size),
                record,
                wanted,
            },
        }
    }

    /// All bytes of a small or medium blob.
    pub(crate) async fn read_blob(&self, blob: &BlobDescriptor) -> Result<Vec<u8>, StorageError> {
        let OpenBlob { file, length } = self.blobs.open(blob)?;
        let read = tokio::task::spawn_blocking(move || read_file(&file, length)).await;
        read.unwrap_or_else(|_| Err(std::io::Error::other("interrupted")))
            .map_err(|error| StorageError::from_io("read a blob", error))
    }

    /// Stores bytes of larder's own making: `None` if the disk is nearly full.
    pub(crate) async fn put_bytes(&self, bytes: Bytes) -> Result<Option<BlobInfo>, StorageError> {
        let blobs = Arc::clone(&self.blobs);
        match tokio::task::spawn_blocking(move || blobs.put_bytes(&bytes)).await {
            Ok(Ok(info)) => Ok(Some(info)),
            Ok(Err(error)) if is_full(&error) => Ok(None),
            Ok(Err(error)) => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// A temporary file, unless the disk is nearly full.
    pub(crate) fn new_spool(self: &Arc<Self>) -> Option<Spool> {
        match self.blobs.spool() {
            Ok(spool) => Some(spool),
            Err(error) => {
                self.warn_not_kept(&error);
                self.make_room();
                None
            }
        }
    }

    /// Parses on a blocking thread, few at a time: each parse may hold a few times its document. `work` reads what it needs into memory
    /// by itself, so that whoever waits here holds nothing; and the place that it takes is free only when it has ended, though nobody
    /// may wait for it any more.
    pub(crate) async fn parse_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Fault> {
        let permit = Arc::clone(&self.parsing)
            .acquire_owned()
            .await
            .map_err(|_| internal("shutting down"))?;
        let work = move || {
            let done = work();
            drop(permit);
            done
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| internal("a parser stopped unexpectedly"))
    }

    pub(crate) async fn hash_file(
        &self,
        file: Arc<File>,
        length: u64,
        algorithm: DigestAlgorithm,
    ) -> Result<Digest, StorageError> {
        measure(file, length, move |chunks| {
            let mut hasher = Hasher::new(&[algorithm]);
            chunks(&mut |chunk| hasher.update(chunk))?;
            Ok(last_of(hasher, algorithm))
        })
        .await
    }

    /// The identities of a file's bytes, as the format computes them.
    pub(crate) async fn identify_file(
        &self,
        file: Arc<File>,
        length: u64,
        mut identifier: Box<dyn Identifier>,
    ) -> Result<Vec<String>, StorageError> {
        measure(file, length, move |chunks| {
            chunks(&mut |chunk| identifier.update(chunk))?;
            Ok(identifier.finish())
        })
        .await
    }

    pub(crate) async fn identify(
        &self,
        blob: &BlobDescriptor,
        identifier: Box<dyn Identifier>,
    ) -> Result<Vec<String>, StorageError> {
        let open = self.blobs.open(blob)?;
        self.identify_file(open.file, open.length, identifier).await
    }

    pub(crate) async fn rehash(
        &self,
        blob: &BlobDescriptor,
        algorithm: DigestAlgorithm,
    ) -> Result<Digest, StorageError> {
        let open = self.blobs.open(blob)?;
        self.hash_file(open.file, open.length, algorithm).await
    }
}

/// Hands every chunk of a file to a function.
type Chunks<'a> = &'a dyn Fn(&mut dyn FnMut(&[u8])) -> std::io::Result<()>;

/// Reads a whole file on a blocking thread and makes something of its chunks.
async fn measure<T: Send + 'static>(
    file: Arc<File>,
    length: u64,
    make: impl FnOnce(Chunks<'_>) -> std::io::Result<T> + Send + 'static,
) -> Result<T, StorageError> {
    let measured = tokio::task::spawn_blocking(move || {
        make(&|take| {
            let mut buffer = vec![0; CHUNK];
            let mut at = 0;
            while at < length {
                let want = (length - at).min(CHUNK as u64) as usize;
                file.read_exact_at(&mut buffer[..want], at)?;
                take(&buffer[..want]);
                at += want as u64;
            }
            Ok(())
        })
    });
    measured
        .await
        .unwrap_or_else(|_| Err(std::io::Error::other("interrupted")))
        .map_err(|error| StorageError::from_io("hash a blob", error))
}

/// Reads a whole file by position, so that its offset, which others share, does not matter.
pub(crate) fn read_file(file: &File, length: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length as usize);
    Positioned { file, at: 0 }
        .take(length)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 != length {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

struct Positioned<'a> {
    file: &'a File,
    at: u64,
}

impl std::io::Read for Positioned<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// Tells the operator what a format has to say of a new document. Called once for its bytes.
pub(crate) fn tell(document: &LoadedDocument) {
    let view = document.view();
    if let Some(remark) = view.memo.and_then(Memo::remarked) {
        let repository = &document.wanted().entry.repository.name;
        tracing::warn!(%repository, document = &*larder_core::shown(view.key_path), "{remark}");
    }
}

pub(crate) fn stopped(fault: Fault) -> NoBody {
    NoBody::unusable(fault.code, fault.message)
}

pub(crate) fn unusable_document(wanted: &Wanted, reason: &str) -> NoBody {
    // The log warns of it with the upstream's other failures (`upstreams.rs`).
    tracing::debug!(key = %wanted.key, reason, "the upstream sent a document that cannot be used");
    let message = format!(
        "the upstream of repository {} sent something that cannot be used: {reason}",
        wanted.entry.repository.name
    );
    NoBody::unusable(ErrorCode::MalformedDocument, message)
}

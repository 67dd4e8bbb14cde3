//! Whole documents: checked before they are kept, loaded to be derived from. Also the engine's dealings with whole files in general.

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;
use larder_core::{ArtifactRecord, Digest, ErrorCode, Fault, Hasher, RepositoryName};
use larder_formats::{Malformed, Memo};
use larder_sendfile::map_to_read;
use larder_storage::{Body, Spool};

use crate::counters::count;
use crate::document::recent::SHORT;
use crate::document::{Documents, coding};
use crate::fault::{
    FetchError, busy, internal, stopped, storage_fault, too_much_under_way, unusable_document,
};
use crate::loaded::{Arrival, AtHand, LoadedDocument};
use crate::target::Target;
use crate::transfer::files::{read_received, received_bytes};
use crate::transfer::fill::Fill;
use crate::transfer::flight::Settled;
use crate::transfer::received;
use crate::transfer::received::{FetchedBody, Received, Whole, finished_record};

/// A received document that has been found good.
struct Checked {
    received: Received,
    fill: Arc<Fill>,
    record: ArtifactRecord,
    document: LoadedDocument,
}

/// What a coded body unpacks to.
struct Unpacked {
    spool: Option<Spool>,
    /// All of it, where the disk took none.
    in_memory: Vec<u8>,
    digests: Vec<Digest>,
    length: u64,
}

impl Unpacked {
    /// The same, come in as `coded` did; with the bytes, where they are in memory.
    fn received_as(self, coded: &Received) -> (Received, Option<Vec<u8>>) {
        let in_memory = self.spool.is_none().then_some(self.in_memory);
        let received = Received {
            spool: self.spool,
            digests: self.digests,
            identities: None,
            length: self.length,
            end_marked: coded.end_marked,
            needs_digest: coded.needs_digest,
            of_another_mirror: coded.of_another_mirror,
        };
        (received, in_memory)
    }
}

/// Where a document's bytes are, to be read by whoever has got a parser for them: waiting for one takes no memory.
#[derive(Debug)]
pub(crate) enum DocumentSource {
    /// In memory already.
    Loaded(Arc<LoadedDocument>),
    /// Where its body says.
    Stored {
        body: Body,
        record: Arc<ArtifactRecord>,
        wanted: Arc<Target>,
        memo: Arc<Memo>,
        /// In memory, too, if it has just been checked.
        at_hand: AtHand,
    },
}

impl DocumentSource {
    /// Where the bytes behind a settled flight are.
    pub(crate) fn settled(wanted: &Arc<Target>, settled: &Settled) -> Self {
        let (memo, at_hand) = match &settled.document {
            Some(Arrival::Whole(document)) => return Self::Loaded(Arc::clone(document)),
            Some(Arrival::Memo(memo, at_hand)) => (Arc::clone(memo), at_hand.clone()),
            None => (Arc::default(), AtHand::default()),
        };
        Self::Stored {
            body: settled.body.clone(),
            record: Arc::clone(&settled.record),
            wanted: Arc::clone(wanted),
            memo,
            at_hand,
        }
    }

    /// How many bytes it has.
    pub(crate) fn length(&self) -> u64 {
        match self {
            Self::Loaded(document) => document.view().body.len() as u64,
            Self::Stored { record, .. } => record.blob().map_or(0, |blob| blob.size),
        }
    }

    /// The repository that it is of.
    pub(crate) fn repository(&self) -> &RepositoryName {
        let wanted = match self {
            Self::Loaded(document) => document.wanted(),
            Self::Stored { wanted, .. } => wanted,
        };
        &wanted.entry.repository.name
    }

    /// As [`load`](Self::load), for what is derived from it: nothing else is likely to be wanted of it soon.
    ///
    /// # Errors
    /// The same.
    pub(crate) fn load_to_derive(self) -> Result<Arc<LoadedDocument>, Fault> {
        let at_hand = match &self {
            Self::Loaded(_) => AtHand::default(),
            Self::Stored { at_hand, .. } => at_hand.clone(),
        };
        let loaded = self.load();
        at_hand.release();
        loaded
    }

    /// Reads it, on a thread that may wait.
    ///
    /// # Errors
    /// The bytes cannot be read.
    pub(crate) fn load(self) -> Result<Arc<LoadedDocument>, Fault> {
        match self {
            Self::Loaded(document) => Ok(document),
            Self::Stored {
                body,
                record,
                wanted,
                memo,
                at_hand,
            } => {
                if let Some(document) = at_hand.get() {
                    return Ok(document);
                }
                let length = record.blob().map_or(0, |blob| blob.size);
                let bytes = body
                    .read_blocking(length)
                    .map_err(|_| internal("a document could not be read back"))?;
                LoadedDocument::with_memo(bytes, &record, wanted, memo).map(Arc::new)
            }
        }
    }
}

impl Documents {
    /// A received document: decoded if it came compressed, checked, and only then kept. While it waits for a parser its bytes are where
    /// they arrived, and not in memory.
    pub(crate) async fn accept_document(
        self: &Arc<Self>,
        wanted: &Arc<Target>,
        fill: &Arc<Fill>,
        received: Received,
        prior: Option<&ArtifactRecord>,
    ) -> Result<FetchedBody, FetchError> {
        let (documents, wanted_there, fill_there) =
            (Arc::clone(self), Arc::clone(wanted), Arc::clone(fill));
        let prior = prior.cloned();
        let checked =
            self.parse_blocking(&wanted.entry.repository.name, received.length, move || {
                documents.check_received(&wanted_there, &fill_there, received, prior.as_ref())
            });
        let Checked {
            received,
            fill,
            record,
            document,
        } = checked.await.map_err(stopped)??;
        fill.verified(received.length);
        let filled = received::hand_over(wanted, &fill, received, record);
        Ok(FetchedBody {
            document: Some(self.recent.keep(document)),
            ..filled
        })
    }

    /// Decodes and checks a received document, on a thread that may wait.
    fn check_received(
        self: &Arc<Self>,
        wanted: &Arc<Target>,
        fill: &Arc<Fill>,
        mut received: Received,
        prior: Option<&ArtifactRecord>,
    ) -> Result<Checked, FetchError> {
        let mut headers = fill.draft.headers.clone();
        if received.of_another_mirror {
            (headers.etag, headers.last_modified) = (None, None);
        }
        let (mut body, mut file) = bytes_to_check(fill, &received)?;
        // An index that is an archive by its name is signed as it is: a label on top is a server's mistake (mechanics, section 3).
        let label = headers
            .content_encoding
            .take()
            .filter(|_| !coding::name_says_compressed(&wanted.spec.key_path));
        let decoded_here = label.is_some();
        if let Some(label) = label {
            let unpacked = self.unpack(wanted, &body, &label)?;
            // The upstream's tag belongs to the coded form.
            headers.etag = None;
            let (unpacked, in_memory) = unpacked.received_as(&received);
            received = unpacked;
            (body, file) = match in_memory {
                Some(plain) => (plain.into(), None),
                None => bytes_to_check(fill, &received)?,
            };
        }
        let record = finished_record(fill, headers, &received, true, prior, self.now());
        let document = LoadedDocument::new(body, &record, Arc::clone(wanted)).map_err(stopped)?;
        let document = document.mapped_of(file);
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
        Ok(Checked {
            received,
            fill,
            record,
            document,
        })
    }

    /// Undoes a coding, on a thread that may wait: into a file of its own, block by block, if the disk takes it, else in memory.
    fn unpack(&self, wanted: &Target, coded: &[u8], label: &str) -> Result<Unpacked, FetchError> {
        let unusable = |message: String| unusable_document(wanted, &message);
        let mut hasher = Hasher::new(&[]);
        if let Some(mut spool) = self.transfers.new_spool() {
            let length = coding::decode(coded, label, self.document_size, &mut |block| {
                hasher.update(block);
                spool.append(block).is_ok()
            });
            if let Some(length) = length.map_err(unusable)? {
                return Ok(Unpacked {
                    spool: Some(spool),
                    in_memory: Vec::new(),
                    digests: hasher.finish(),
                    length,
                });
            }
        }
        let (mut hasher, mut in_memory) = (Hasher::new(&[]), Vec::new());
        let length = coding::decode(coded, label, self.document_size, &mut |block| {
            hasher.update(block);
            in_memory.extend_from_slice(block);
            true
        });
        Ok(Unpacked {
            spool: None,
            digests: hasher.finish(),
            length: length.map_err(unusable)?.unwrap_or_default(),
            in_memory,
        })
    }

    /// Decodes a file whose upstream compressed it unasked.
    pub(crate) async fn decode(
        self: &Arc<Self>,
        wanted: &Arc<Target>,
        whole: &Whole,
        label: &str,
    ) -> Result<Whole, FetchError> {
        let received = &whole.received;
        let limit = self.document_size;
        if received.length > limit || !(received.spool.is_some() || whole.fill.holds_everything()) {
            let message = "the upstream compressed the file unasked, and it is too large to be unpacked in memory";
            return Err(FetchError::unusable(ErrorCode::UnaskedCoding, message));
        }
        let (fill, spool, length) = (
            Arc::clone(&whole.fill),
            received.spool.as_ref().map(Spool::reader),
            received.length,
        );
        let (label, documents) = (label.to_owned(), Arc::clone(self));
        let unpacked_as = Arc::clone(wanted);
        let unpacked = self
            .parse_blocking(&wanted.entry.repository.name, length, move || {
                let coded = read_received(&fill, spool, length)?;
                documents.unpack(&unpacked_as, &coded, &label)
            })
            .await
            .map_err(stopped)??;
        let (received, in_memory) = unpacked.received_as(received);
        // Without a file of their own the decoded bytes need a place: the fill holds the coded ones.
        let fill = match in_memory {
            None => Arc::clone(&whole.fill),
            Some(plain) => Arc::new(Fill::complete(whole.fill.draft.clone(), plain.into())),
        };
        Ok(Whole { received, fill })
    }

    /// Where a held document's bytes are.
    pub(crate) async fn held_source(
        &self,
        wanted: &Arc<Target>,
        record: &Arc<ArtifactRecord>,
    ) -> Result<DocumentSource, Fault> {
        let blob = record
            .blob()
            .ok_or_else(|| internal("a document has no bytes"))?;
        let body = self
            .blobs
            .open(blob)
            .await
            .map_err(|error| storage_fault(&wanted.entry, &error))?;
        Ok(DocumentSource::Stored {
            body,
            record: Arc::clone(record),
            wanted: Arc::clone(wanted),
            memo: Arc::default(),
            at_hand: AtHand::default(),
        })
    }

    /// Parses on a blocking thread, few at a time: each parse may hold a few times its document, which is `bytes` long. `work` reads what
    /// it needs into memory by itself, so that whoever waits here holds nothing; and what is leased for it is free only when it has
    /// ended, though nobody may wait for it any more. Work that has not begun goes with whoever waits for it.
    ///
    /// # Errors
    /// 503 where too much of the repository waits already or this has waited too long; the work ended in a panic.
    pub(crate) async fn parse_blocking<T: Send + 'static>(
        &self,
        repository: &RepositoryName,
        bytes: u64,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Fault> {
        let leases = self
            .budgets
            .parser(repository.as_str(), bytes)
            .await
            .map_err(|refused| busy(repository, &too_much_under_way(refused).message))?;
        let leased = move || {
            let _leases = leases;
            work()
        };
        tokio::task::spawn_blocking(leased)
            .await
            .map_err(|_| internal("a parser stopped unexpectedly"))
    }
}

/// The bytes of a document that has just arrived. Of a long one they stay in its file, which has no name before it is found good: it is
/// mapped, for memory that is read into would first have to be cleared (docs/adr/0090).
fn bytes_to_check(
    fill: &Arc<Fill>,
    received: &Received,
) -> Result<(Bytes, Option<Arc<File>>), FetchError> {
    let spool = received.spool.as_ref();
    if let Some(file) = spool.filter(|_| received.length > SHORT).map(Spool::reader)
        && let Ok(bytes) = map_to_read(&file, received.length)
    {
        return Ok((bytes, Some(file)));
    }
    received_bytes(fill, received).map(|bytes| (bytes.into(), None))
}

/// Tells the operator what a format has to say of a new document. Called once for its bytes.
pub(crate) fn tell(document: &LoadedDocument) {
    let view = document.view();
    if let Some(remark) = view.memo.and_then(Memo::remarked) {
        let repository = &document.wanted().entry.repository.name;
        tracing::warn!(%repository, document = &*larder_core::shown(view.key_path), "{remark}");
    }
}

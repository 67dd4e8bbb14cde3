//! Whole documents: checked before they are kept, loaded to be derived from. Also the engine's dealings with whole files in general.

use std::sync::Arc;

use bytes::Bytes;
use larder_core::{ArtifactRecord, ErrorCode, Fault, Hasher};
use larder_formats::{Malformed, Memo};

use crate::counters::count;
use crate::document::{Documents, coding};
use crate::fault::{FetchError, internal, stopped, storage_fault, unusable_document};
use crate::loaded::LoadedDocument;
use crate::target::Target;
use crate::transfer::files::{read_file, read_fill, received_bytes};
use crate::transfer::fill::Fill;
use crate::transfer::flight::{Settled, SettledBody};
use crate::transfer::received;
use crate::transfer::received::{Filled, Received, Whole, finished_record};

impl Documents {
    /// A received document: decoded if it came compressed, checked, and only then kept.
    pub(crate) async fn accept_document(
        self: &Arc<Self>,
        wanted: &Arc<Target>,
        fill: &Arc<Fill>,
        received: Received,
        prior: Option<&ArtifactRecord>,
    ) -> Result<Filled, FetchError> {
        let mut headers = fill.draft.headers.clone();
        let mut received = received;
        let mut decoded = None;
        if received.of_another_mirror {
            (headers.etag, headers.last_modified) = (None, None);
        }
        // An index that is an archive by its name is signed as it is: a label on top is a server's mistake (design section 11).
        let label = headers
            .content_encoding
            .take()
            .filter(|_| !coding::name_says_compressed(&wanted.spec.key_path));
        if let Some(label) = label {
            let bytes = received_bytes(fill, &received)?;
            let limit = self.budgets.limits.document_size;
            let plain = self
                .parse_blocking(move || coding::decode(&bytes, &label, limit))
                .await
                .map_err(stopped)?;
            let plain = plain.map_err(|message| unusable_document(wanted, &message))?;
            // The upstream's tag belongs to the coded form.
            headers.etag = None;
            received = self.rewritten(&plain, &received);
            decoded = Some(plain);
        }
        let decoded_here = decoded.is_some();
        let body = match decoded {
            Some(plain) => plain,
            None => received_bytes(fill, &received)?,
        };
        let record = finished_record(fill, headers, &received, true, prior, self.now());
        let document = LoadedDocument::new(body, &record, Arc::clone(wanted)).map_err(stopped)?;
        let checked = self.parse_blocking(move || {
            let wanted = document.wanted();
            let verdict = wanted
                .format
                .check(&wanted.entry.repository, &document.view());
            (verdict, document)
        });
        let (verdict, document) = checked.await.map_err(stopped)?;
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
                Bytes::copy_from_slice(document.view().body),
            ))
        } else {
            Arc::clone(fill)
        };
        fill.verified(received.length);
        let filled = received::hand_over(wanted, &fill, received, record);
        Ok(Filled {
            document: Some(Arc::new(document)),
            ..filled
        })
    }

    /// Bytes made from received ones, spooled anew if the disk takes them.
    fn rewritten(self: &Arc<Self>, bytes: &[u8], from: &Received) -> Received {
        let mut hasher = Hasher::new(&[]);
        hasher.update(bytes);
        let spool = self
            .transfers
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
        wanted: &Target,
        whole: &Whole,
        label: &str,
    ) -> Result<Whole, FetchError> {
        let received = &whole.received;
        let limit = self.budgets.limits.document_size;
        if received.length > limit || !(received.spool.is_some() || whole.fill.holds_everything()) {
            let message = "the upstream compressed the file unasked, and it is too large to be unpacked in memory";
            return Err(FetchError::unusable(ErrorCode::UnaskedCoding, message));
        }
        let coded = received_bytes(&whole.fill, received)?;
        let label = label.to_owned();
        let plain = self
            .parse_blocking(move || coding::decode(&coded, &label, limit))
            .await
            .map_err(stopped)?;
        let plain = plain.map_err(|message| unusable_document(wanted, &message))?;
        let received = self.rewritten(&plain, received);
        // Without a file of their own the decoded bytes need a place: the fill holds the coded ones.
        let fill = match &received.spool {
            Some(_) => Arc::clone(&whole.fill),
            None => Arc::new(Fill::complete(whole.fill.draft.clone(), plain.into())),
        };
        Ok(Whole { received, fill })
    }

    /// A held document's bytes, ready to be read.
    pub(crate) async fn load_document(
        &self,
        wanted: &Arc<Target>,
        record: &ArtifactRecord,
    ) -> Result<Arc<LoadedDocument>, Fault> {
        let blob = record
            .blob()
            .ok_or_else(|| internal("a document has no bytes"))?;
        let body = self
            .transfers
            .read_blob(blob)
            .await
            .map_err(|error| storage_fault(&wanted.entry, &error))?;
        LoadedDocument::new(body, record, Arc::clone(wanted)).map(Arc::new)
    }

    /// The bytes behind a settled flight, for derivations.
    pub(crate) async fn settled_document(
        &self,
        wanted: &Arc<Target>,
        settled: &Settled,
    ) -> Result<Arc<LoadedDocument>, Fault> {
        if let Some(document) = &settled.document {
            return Ok(Arc::clone(document));
        }
        let lost = |_| internal("a document could not be read back");
        let bytes = match &settled.body {
            SettledBody::Blob(open) => {
                let (file, length) = (Arc::clone(&open.file), open.length);
                tokio::task::spawn_blocking(move || read_file(&file, length))
                    .await
                    .map_err(|_| internal("interrupted"))?
                    .map_err(lost)?
            }
            SettledBody::Fill(fill) => {
                read_fill(fill, settled.record.blob().map_or(0, |blob| blob.size)).map_err(lost)?
            }
        };
        LoadedDocument::new(bytes, &settled.record, Arc::clone(wanted)).map(Arc::new)
    }

    /// Parses on a blocking thread, few at a time: each parse may hold twice its document.
    pub(crate) async fn parse_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Fault> {
        let permit = self
            .budgets
            .parser()
            .await
            .map_err(|_| internal("shutting down"))?;
        let leased = move || {
            let _permit = permit;
            work()
        };
        tokio::task::spawn_blocking(leased)
            .await
            .map_err(|_| internal("a parser stopped unexpectedly"))
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

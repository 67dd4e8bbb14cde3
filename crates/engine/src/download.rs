//! Step 8: the body of one download, from its head to verified bytes that may be handed over. How the bytes come in stands in `intake.rs`.

use std::sync::Arc;

use http::{HeaderMap, header};
use larder_core::{
    ArtifactRecord, BlobDescriptor, Content, Digest, DigestAlgorithm, Fault, Hasher, PackageType, SafeUrl, StoredHeaders,
    UnixMillis,
};
use larder_storage::{OpenBlob, SealedSpool, Spool};
use larder_upstream::{Framing, UpstreamResponse};
use url::Url;

use crate::admission::Wanted;
use crate::clearance::{self, Dates};
use crate::commit::RecordChange;
use crate::counters::count;
use crate::engine::Engine;
use crate::expectation::Expectation;
use crate::fetch::NoBody;
use crate::fill::Fill;
use crate::flight::{Flight, SettledBody};
use crate::intake::Intake;

/// Why a download gave nothing to keep.
#[derive(Debug)]
pub(crate) enum Stopped {
    NoBody(NoBody),
    /// Quarantine holds it: the record remembers its date.
    Held {
        fault: Fault,
        record: ArtifactRecord,
    },
}

impl From<NoBody> for Stopped {
    fn from(no_body: NoBody) -> Self {
        Self::NoBody(no_body)
    }
}

/// A complete, verified body.
#[derive(Debug)]
pub(crate) struct Filled {
    pub(crate) record: Arc<ArtifactRecord>,
    pub(crate) body: SettledBody,
    pub(crate) change: Option<RecordChange>,
    pub(crate) detail: Option<&'static str>,
}

/// The bytes as they came in.
pub(crate) struct Received {
    pub(crate) spool: Option<Spool>,
    pub(crate) digests: Vec<Digest>,
    pub(crate) length: u64,
}

impl Engine {
    /// Takes in a 200's body. Followers may read it while it arrives.
    pub(crate) async fn fill(
        self: &Arc<Self>,
        flight: &Arc<Flight>,
        wanted: &Arc<Wanted>,
        prior: Option<&ArtifactRecord>,
        response: UpstreamResponse,
        mut expectation: Expectation,
    ) -> Result<Filled, Stopped> {
        let draft = draft(&response, prior, self.now());
        let is_sidecar = wanted.format.subject(&wanted.spec.key_path).is_some();
        if !is_sidecar {
            let dates = Dates { published_at: draft.published_at, first_seen_at: draft.first_seen_at };
            if let Err(fault) = clearance::clear(&wanted.entry.repository, wanted.class, dates, self.now(), ()) {
                count(&wanted.entry.counters.quarantined);
                return Err(Stopped::Held { fault, record: draft });
            }
        }
        let total = response.body.declared_length();
        self.refuse_oversized(wanted, total)?;
        let is_document = wanted.spec.is_document;
        let labelled = draft.headers.content_encoding.is_some() && wanted.entry.repository.package != PackageType::Generic;
        let ring_capacity = if is_document { self.limits.document_size as usize } else { self.limits.ring_bytes };
        let fill = Arc::new(Fill::new(draft, total, expectation.expects_digest(), is_document || labelled, ring_capacity));
        let intake = Intake::new(self, wanted, &fill, &expectation.algorithms());
        flight.begin_fill(Arc::clone(&fill));
        let framing = response.body.framing();
        let received = match intake.run(self, wanted, response).await {
            Ok(received) => received,
            Err(no_body) => {
                fill.fail();
                return Err(no_body.into());
            }
        };
        let finished = self.verify(wanted, &fill, received, &mut expectation, prior).await;
        if finished.is_err() {
            fill.fail();
        }
        let mut filled = finished?;
        if framing == Framing::ConnectionClose && (is_document || !filled.record.verified) {
            // Nothing marked the end of the body and no digest vouches for it: it may have been cut (hazard W2).
            filled.change = None;
            filled.detail = Some("not-kept");
            count(&wanted.entry.counters.fills_not_kept);
        }
        Ok(filled)
    }

    pub(crate) fn refuse_oversized(&self, wanted: &Wanted, length: Option<u64>) -> Result<(), NoBody> {
        let limit = self.limits.document_size;
        if wanted.spec.is_document && length.is_some_and(|length| length > limit) {
            let message = format!("the document is larger than limits.document_size ({limit} bytes)");
            return Err(NoBody::unusable("document_too_large", message));
        }
        Ok(())
    }

    async fn verify(
        self: &Arc<Self>,
        wanted: &Arc<Wanted>,
        fill: &Arc<Fill>,
        received: Received,
        expectation: &mut Expectation,
        prior: Option<&ArtifactRecord>,
    ) -> Result<Filled, NoBody> {
        if wanted.spec.is_document {
            return self.accept_document(wanted, fill, received, prior).await;
        }
        let verdict = self.check_digest(wanted, fill, &received, expectation).await?;
        let mut headers = fill.draft.headers.clone();
        let mut received = received;
        if wanted.entry.repository.package != PackageType::Generic
            && let Some(coding) = headers.content_encoding.take()
            && !verdict.as_received
            && !crate::coding::name_says_compressed(&wanted.spec.key_path)
        {
            received = self.decode(wanted, received, &coding).await?;
            if let Some(stated) = &verdict.stated
                && self.digest_of(&received, fill, stated.algorithm()).await.as_ref() != Some(stated)
            {
                return Err(mismatch(wanted, stated));
            }
        }
        let length = received.length;
        let record = finished_record(fill, headers, &received, verdict.stated.is_some(), prior);
        fill.verified(length);
        Ok(Self::hand_over(wanted, fill, received, record))
    }

    /// From verified bytes to what is served and what is committed.
    pub(crate) fn hand_over(wanted: &Wanted, fill: &Arc<Fill>, received: Received, record: ArtifactRecord) -> Filled {
        let record = Arc::new(record);
        if let (Some(spool), Some(descriptor)) = (received.spool, record.blob().cloned()) {
            let body = SettledBody::Blob(OpenBlob { file: spool.reader(), length: received.length });
            let spool = SealedSpool { spool, descriptor };
            let change = Some(RecordChange::Store { record: Arc::clone(&record), spool });
            return Filled { record, body, change, detail: None };
        }
        count(&wanted.entry.counters.fills_not_kept);
        Filled { record, body: SettledBody::Fill(Arc::clone(fill)), change: None, detail: Some("not-kept") }
    }

    /// Compares the bytes with what the ecosystem states of them.
    async fn check_digest(
        self: &Arc<Self>,
        wanted: &Arc<Wanted>,
        fill: &Arc<Fill>,
        received: &Received,
        expectation: &mut Expectation,
    ) -> Result<DigestVerdict, NoBody> {
        let unknown = DigestVerdict { stated: None, as_received: false };
        let Some(claim) = expectation.resolve().await else { return Ok(unknown) };
        let Some(stated) = claim.strongest().cloned() else { return Ok(unknown) };
        if self.digest_of(received, fill, stated.algorithm()).await.as_ref() == Some(&stated) {
            return Ok(DigestVerdict { stated: Some(stated), as_received: true });
        }
        if fill.draft.headers.content_encoding.is_some() && wanted.entry.repository.package != PackageType::Generic {
            return Ok(DigestVerdict { stated: Some(stated), as_received: false });
        }
        // The document may be older than the file: read it once more before giving up.
        if let Some(now) = self.refreshed_claim(wanted).await.and_then(|claim| claim.strongest().cloned())
            && now != stated
            && self.digest_of(received, fill, now.algorithm()).await.as_ref() == Some(&now)
        {
            return Ok(DigestVerdict { stated: Some(now), as_received: true });
        }
        count(&wanted.entry.counters.digest_mismatches);
        tracing::warn!(key = %wanted.key, stated = %stated, "the upstream sent other bytes than its index states; nothing is kept");
        Err(mismatch(wanted, &stated))
    }

    /// The digest of received bytes: computed on the way, or now from the spool.
    async fn digest_of(&self, received: &Received, fill: &Arc<Fill>, algorithm: DigestAlgorithm) -> Option<Digest> {
        if let Some(digest) = received.digests.iter().find(|digest| digest.algorithm() == algorithm) {
            return Some(digest.clone());
        }
        match &received.spool {
            Some(spool) => self.hash_file(spool.reader(), received.length, algorithm).await.ok(),
            None if fill.holds_everything() => {
                let bytes = Self::read_fill(fill, received.length).ok()?;
                Some(hash_bytes(&bytes, algorithm))
            }
            None => None,
        }
    }
}

struct DigestVerdict {
    /// The digest that was enforced.
    stated: Option<Digest>,
    /// Whether the bytes on the wire satisfied it, coding and all.
    as_received: bool,
}

fn mismatch(wanted: &Wanted, stated: &Digest) -> NoBody {
    let message = format!(
        "the upstream of repository {} sent bytes whose {} is not the one its index states; nothing was kept",
        wanted.entry.repository.name,
        stated.algorithm().as_str()
    );
    NoBody::unusable("digest_mismatch", message)
}

pub(crate) fn hash_bytes(bytes: &[u8], algorithm: DigestAlgorithm) -> Digest {
    let mut hasher = Hasher::new(&[algorithm]);
    hasher.update(bytes);
    last_of(hasher, algorithm)
}

pub(crate) fn last_of(hasher: Hasher, algorithm: DigestAlgorithm) -> Digest {
    let mut all = hasher.finish();
    let at = all.iter().position(|digest| digest.algorithm() == algorithm).unwrap_or(0);
    all.swap_remove(at)
}

/// The record of a finished body: dates of equal bytes never move.
pub(crate) fn finished_record(
    fill: &Fill,
    headers: StoredHeaders,
    received: &Received,
    verified: bool,
    prior: Option<&ArtifactRecord>,
) -> ArtifactRecord {
    let digest = received.digests.first().cloned().unwrap_or_else(|| larder_core::sha256(b""));
    let blob = BlobDescriptor { digest, size: received.length };
    let same = prior.filter(|prior| prior.blob() == Some(&blob));
    let draft = &fill.draft;
    let first_body = prior.is_none_or(|prior| prior.blob().is_none());
    ArtifactRecord {
        headers,
        published_at: match same {
            Some(prior) => prior.published_at,
            // Other bytes under an old name start their quarantine anew.
            None if first_body => draft.published_at,
            None => draft.headers.last_modified.as_deref().and_then(UnixMillis::from_http_date),
        },
        first_seen_at: if same.is_some() || first_body { draft.first_seen_at } else { draft.contacted_at },
        began_at: same.map_or(draft.contacted_at, |prior| prior.began_at),
        content: Content::Blob(blob),
        verified,
        ..draft.clone()
    }
}

/// What the upstream's head says, before there is a body.
fn draft(response: &UpstreamResponse, prior: Option<&ArtifactRecord>, now: UnixMillis) -> ArtifactRecord {
    let headers = stored_headers(&response.headers);
    let modified = headers.last_modified.as_deref().and_then(UnixMillis::from_http_date);
    ArtifactRecord {
        content: Content::HeadOnly,
        source_url: without_secrets(&response.final_url),
        published_at: prior.and_then(|prior| prior.published_at).or(modified),
        first_seen_at: prior.map_or(now, |prior| prior.first_seen_at),
        contacted_at: now,
        renewed_at: now,
        began_at: now,
        verified: false,
        headers,
    }
}

fn without_secrets(url: &Url) -> String {
    SafeUrl(url.clone()).to_string()
}

/// The upstream headers that are kept; all others are dropped here (generic-http: what survives).
pub(crate) fn stored_headers(headers: &HeaderMap) -> StoredHeaders {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let is_tag = |tag: &String| {
        let opaque = tag.strip_prefix("W/").unwrap_or(tag);
        opaque.len() >= 2 && opaque.starts_with('"') && opaque.ends_with('"')
    };
    let identity = |coding: &String| !coding.trim().is_empty() && !coding.trim().eq_ignore_ascii_case("identity");
    StoredHeaders {
        content_type: text(header::CONTENT_TYPE),
        etag: text(header::ETAG).filter(is_tag),
        // Clients reject what is no HTTP date, so it is dropped; two obsolete forms become the current one.
        last_modified: text(header::LAST_MODIFIED).and_then(|t| UnixMillis::from_http_date(&t)).map(UnixMillis::to_http_date),
        content_disposition: text(header::CONTENT_DISPOSITION),
        content_language: text(header::CONTENT_LANGUAGE),
        content_encoding: text(header::CONTENT_ENCODING).filter(identity),
    }
}

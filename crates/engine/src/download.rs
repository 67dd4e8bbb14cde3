//! Step 8: the body of one download: into the spool (or, if the disk cannot take it, through memory), counted, hashed, resumed
//! after a cut, verified, and only then handed over.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderMap, Method, StatusCode, header};
use larder_core::{
    ArtifactRecord, BlobDescriptor, Content, Digest, DigestAlgorithm, Fault, Hasher, PackageType, SafeUrl, StoredHeaders,
    UnixMillis,
};
use larder_storage::{OpenBlob, SealedSpool, Spool};
use larder_upstream::{BodyStream, Framing, Resume, UpstreamErrorKind, UpstreamResponse};
use tokio::time::Instant;
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
use crate::obtain::is_full;

/// Chunks up to this size are hashed and written where they arrive; larger ones on a blocking thread.
const INLINE: usize = 64 << 10;
/// Followers are woken when this much has come, or after [`PUBLISH_AFTER`].
const PUBLISH_BYTES: u64 = 256 << 10;
const PUBLISH_AFTER: Duration = Duration::from_millis(8);
/// How often a cut download is taken up again.
const RESUMES: u32 = 3;

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

    fn refuse_oversized(&self, wanted: &Wanted, length: Option<u64>) -> Result<(), NoBody> {
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

/// Takes bytes in and makes them visible to followers.
struct Intake {
    fill: Arc<Fill>,
    /// `None` once the ring has taken over, or while a blocking thread has it.
    spool: Option<Spool>,
    in_ring: bool,
    /// Bytes beyond this are not kept.
    keep_up_to: u64,
    hasher: Hasher,
    written: u64,
    published: u64,
    published_at: Instant,
    /// Bytes at the start of a restarted body that are there already.
    skip: u64,
}

impl Intake {
    fn new(engine: &Arc<Engine>, wanted: &Wanted, fill: &Arc<Fill>, algorithms: &[DigestAlgorithm]) -> Self {
        let max_size = wanted.entry.repository.upstream.as_ref().and_then(|upstream| upstream.max_size);
        let keep_up_to = max_size.unwrap_or(u64::MAX);
        let too_large = fill.total.is_some_and(|total| total > keep_up_to);
        let spool = if too_large { None } else { engine.new_spool() };
        if let Some(spool) = &spool {
            fill.set_spool(spool.reader());
        } else {
            fill.start_ring(0);
        }
        Self {
            fill: Arc::clone(fill),
            in_ring: spool.is_none(),
            spool,
            keep_up_to,
            hasher: Hasher::new(algorithms),
            written: 0,
            published: 0,
            published_at: Instant::now(),
            skip: 0,
        }
    }

    async fn run(mut self, engine: &Arc<Engine>, wanted: &Arc<Wanted>, response: UpstreamResponse) -> Result<Received, NoBody> {
        let first = Arc::new(FirstAnswer::of(&response));
        let mut body = response.body;
        let mut resumes = 0;
        let mut resumed_at = 0;
        let total = self.fill.total;
        loop {
            match self.drain(engine, wanted, &mut body).await {
                Ok(()) => break,
                Err(Broken::Fatal(no_body)) => return Err(no_body),
                Err(Broken::Cut(error)) => {
                    let progress = resumes == 0 || self.written > resumed_at;
                    if resumes >= RESUMES || !progress || !(first.has_strong_tag() || self.fill.expects_digest) {
                        return Err(error);
                    }
                    self.publish();
                    resumes += 1;
                    resumed_at = self.written;
                    let Ok((rest, known)) = first.resume(engine, wanted, self.written).await else { return Err(error) };
                    body = rest;
                    self.skip = known;
                    count(&wanted.entry.counters.fills_resumed);
                }
            }
        }
        if total.is_some_and(|total| total != self.written) {
            return Err(NoBody::unusable("upstream_cut", "the upstream sent fewer or more bytes than it declared"));
        }
        self.publish();
        let digests = self.hasher.finish();
        Ok(Received { spool: self.spool, digests, length: self.written })
    }

    /// Takes the body until it ends.
    async fn drain(&mut self, engine: &Arc<Engine>, wanted: &Wanted, body: &mut BodyStream) -> Result<(), Broken> {
        loop {
            let next = if self.published < self.written {
                if let Ok(next) = tokio::time::timeout_at(self.published_at + PUBLISH_AFTER, body.next()).await {
                    next
                } else {
                    self.publish();
                    continue;
                }
            } else {
                body.next().await
            };
            match next {
                None => return Ok(()),
                Some(Ok(chunk)) => {
                    let counters = &wanted.entry.counters;
                    counters.upstream_bytes.fetch_add(chunk.len() as u64, std::sync::atomic::Ordering::Relaxed);
                    self.take(chunk).await.map_err(Broken::Fatal)?;
                    engine.refuse_oversized(wanted, Some(self.written)).map_err(Broken::Fatal)?;
                }
                Some(Err(error)) => {
                    let cut = matches!(
                        error.kind,
                        UpstreamErrorKind::Truncated
                            | UpstreamErrorKind::TimedOut
                            | UpstreamErrorKind::Protocol
                            | UpstreamErrorKind::Unreachable
                    );
                    return Err(if cut { Broken::Cut(error.into()) } else { Broken::Fatal(error.into()) });
                }
            }
        }
    }

    async fn take(&mut self, mut chunk: Bytes) -> Result<(), NoBody> {
        if self.skip > 0 {
            let known = self.skip.min(chunk.len() as u64);
            self.skip -= known;
            chunk = chunk.split_off(known as usize);
        }
        if chunk.is_empty() {
            return Ok(());
        }
        let length = chunk.len() as u64;
        if !self.in_ring && self.written + length > self.keep_up_to {
            self.enter_ring();
        }
        if self.in_ring {
            self.hasher.update(&chunk);
            self.fill
                .push_ring(chunk)
                .await
                .map_err(|_| NoBody::unusable("unread", "nobody read this download and it could not be kept"))?;
        } else {
            self.write(chunk).await?;
        }
        let was_empty = self.written == 0;
        self.written += length;
        if was_empty || self.written - self.published >= PUBLISH_BYTES || self.published_at.elapsed() >= PUBLISH_AFTER {
            self.publish();
        }
        Ok(())
    }

    async fn write(&mut self, chunk: Bytes) -> Result<(), NoBody> {
        let Some(mut spool) = self.spool.take() else {
            return Err(NoBody::unusable("internal", "the download lost its file"));
        };
        let written = if chunk.len() <= INLINE {
            self.hasher.update(&chunk);
            spool.append(&chunk)
        } else {
            let mut hasher = std::mem::replace(&mut self.hasher, Hasher::new(&[]));
            let bytes = chunk.clone();
            let work = tokio::task::spawn_blocking(move || {
                hasher.update(&bytes);
                let result = spool.append(&bytes);
                (spool, hasher, result)
            });
            let Ok((back, hasher, result)) = work.await else {
                return Err(NoBody::unusable("internal", "the download's writer stopped"));
            };
            (spool, self.hasher) = (back, hasher);
            result
        };
        match written {
            Ok(()) => self.spool = Some(spool),
            Err(error) => {
                tracing::warn!(%error, full = is_full(&error), "a download cannot be kept on disk and goes on through memory");
                if spool.truncate_to(self.written).is_err() {
                    tracing::debug!("the tail of a spool was not cut off; it is never read");
                }
                self.enter_ring();
                let pushed = self.fill.push_ring(chunk).await;
                pushed.map_err(|_| NoBody::unusable("unread", "nobody read this download and it could not be kept"))?;
            }
        }
        Ok(())
    }

    /// What has been written stays readable; nothing will be committed.
    fn enter_ring(&mut self) {
        self.publish();
        self.fill.start_ring(self.written);
        self.in_ring = true;
        self.spool = None;
    }

    fn publish(&mut self) {
        self.fill.publish(self.written);
        self.published = self.written;
        self.published_at = Instant::now();
    }
}

enum Broken {
    Cut(NoBody),
    Fatal(NoBody),
}

/// What is needed to take a cut download up again.
struct FirstAnswer {
    etag: Option<String>,
    total: Option<u64>,
}

impl FirstAnswer {
    fn of(response: &UpstreamResponse) -> Self {
        Self { etag: stored_headers(&response.headers).etag, total: response.body.declared_length() }
    }

    fn strong_tag(&self) -> Option<&str> {
        self.etag.as_deref().filter(|tag| tag.starts_with('"'))
    }

    fn has_strong_tag(&self) -> bool {
        self.strong_tag().is_some()
    }

    /// Asks for the rest, from the first URL again: a signed one may have expired. Gives the body and how much of it is there already.
    async fn resume(&self, engine: &Arc<Engine>, wanted: &Arc<Wanted>, offset: u64) -> Result<(BodyStream, u64), ()> {
        let mut expectation = engine.expect(wanted).await;
        let claimed = match &mut expectation {
            Expectation::Known(claim) => Url::parse(&claim.url).ok(),
            Expectation::None | Expectation::Pending(_) => None,
        };
        let mut request = Engine::upstream_request(wanted, Method::GET, claimed).map_err(drop)?;
        request.resume = Some(Resume { offset, if_range: self.strong_tag().unwrap_or_default().to_owned() });
        let response = engine.send(wanted, request).await.map_err(drop)?;
        let same_tag = self.strong_tag().is_none() || stored_headers(&response.headers).etag.as_deref() == self.strong_tag();
        match response.status {
            StatusCode::PARTIAL_CONTENT if same_tag && self.continues(&response.headers, offset) => Ok((response.body, 0)),
            // The upstream knows no ranges: what is already there is read again and passed over.
            StatusCode::OK if same_tag && (self.total.is_none() || response.body.declared_length() == self.total) => {
                Ok((response.body, offset))
            }
            _ => Err(()),
        }
    }

    fn continues(&self, headers: &HeaderMap, offset: u64) -> bool {
        let Some(range) = headers.get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok()) else { return false };
        let Some((span, total)) = range.strip_prefix("bytes ").and_then(|rest| rest.split_once('/')) else { return false };
        let starts_there = span.split_once('-').is_some_and(|(start, _)| start.parse() == Ok(offset));
        let same_total = self.total.is_none_or(|expected| total.parse() == Ok(expected));
        starts_there && same_total
    }
}

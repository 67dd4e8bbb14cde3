//! HEAD on what is not held: forwarded, one for all who ask meanwhile; nothing is stored but a tag's digest (spec section 1).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{Method, StatusCode, header};
use larder_core::{
    ArtifactRecord, CacheStatus, Content, Decision, Fault, FaultKind, ForwardReason, Source, StoredHeaders, UnixMillis, decide,
};
use larder_upstream::UpstreamResponse;

use crate::admission::{Admitted, Wanted};
use crate::answer::{Answer, Body, Freshness};
use crate::clearance::{Dates, clear, clear_non_artifact};
use crate::counters::count;
use crate::download::stored_headers;
use crate::engine::Engine;
use crate::fetch::{NoBody, status_outcome};
use crate::mirrors::Ask;
use crate::obtain::remaining_seconds;
use crate::places::Spoilt;
use crate::serve::{forwarded_status, representation};

impl Engine {
    /// `None`: this can only be answered with the body at hand.
    pub(crate) async fn forward_head(self: &Arc<Self>, admitted: &Admitted) -> Result<Option<Answer>, Fault> {
        let wanted = admitted.wanted();
        if let Some(record) = self.told_before(wanted).await? {
            let status = CacheStatus { hit: true, ttl: remaining_seconds(&record, wanted, self.now()), ..CacheStatus::default() };
            return self.answer_head(admitted, &record, status, Source::Cache);
        }
        if wanted.entry.repository_is_offline() {
            return Err(crate::serve::offline(wanted));
        }
        let key = (wanted.key.clone(), wanted.entry.epoch.load(Ordering::Acquire));
        let (engine, asked_for) = (Arc::clone(self), Arc::clone(wanted));
        let (told, asked_here) = self.heads.join_or_ask(key, async move { engine.learn_head(&asked_for).await }).await;
        if !asked_here {
            count(&wanted.entry.counters.collapsed);
        }
        let record = told?;
        let status = CacheStatus { collapsed: !asked_here, ..forwarded_status(ForwardReason::Method, 200) };
        self.answer_head(admitted, &record, status, Source::Remote)
    }

    /// The answer to HEAD from what the upstream's head told; `None` if it lacks a part that clients rely on.
    fn answer_head(
        &self,
        admitted: &Admitted,
        record: &ArtifactRecord,
        cache_status: CacheStatus,
        source: Source,
    ) -> Result<Option<Answer>, Fault> {
        let (wanted, headers) = (admitted.wanted(), &record.headers);
        if admitted.subject().is_none() {
            let dates = Dates { published_at: record.published_at, first_seen_at: record.first_seen_at };
            clear(&wanted.entry.repository, wanted.class, dates, self.now(), ())
                .inspect_err(|_| count(&wanted.entry.counters.quarantined))?;
        }
        if wanted.has_name_by_digest() && !tells_everything(headers) {
            return Ok(None);
        }
        let mut representation = representation(wanted, headers, headers.digest.as_ref(), None, headers.length);
        representation.vary = crate::serve::vary(wanted.format.varies_by(&wanted.spec.key_path), false, false);
        let unknown = Freshness { age: Duration::ZERO, remaining: Some(Duration::ZERO), no_store: false };
        let freshness = if cache_status.hit { self.freshness(record, wanted, false) } else { unknown };
        Ok(Some(Answer {
            status: StatusCode::OK,
            representation,
            body: clear_non_artifact(Body::Empty),
            cache_status,
            source,
            freshness,
            location: None,
            hot: None,
        }))
    }

    /// What a HEAD told a moment ago of a name whose bytes are not held, as long as that is good.
    async fn told_before(&self, wanted: &Wanted) -> Result<Option<Arc<ArtifactRecord>>, Fault> {
        let record = self.records.get(&wanted.key).await.map_err(|error| crate::serve::storage_fault(&wanted.entry, &error))?;
        Ok(record.filter(|record| {
            let decision = decide(Some(record), wanted.class, &wanted.entry.repository.cache, self.now());
            matches!(record.content, Content::Pointer(_)) && tells_everything(&record.headers) && decision == Decision::Serve
        }))
    }

    /// Asks the upstream for the head, on behalf of all who wait for it; a digest is remembered.
    async fn learn_head(self: &Arc<Self>, wanted: &Arc<Wanted>) -> Result<Arc<ArtifactRecord>, Fault> {
        let epoch = wanted.entry.epoch.load(Ordering::Acquire);
        // The one who asked before may just have been answered.
        if let Some(record) = self.told_before(wanted).await? {
            return Ok(record);
        }
        let response = self.ask_head(wanted).await?;
        let record = self.head_only(wanted, &response);
        if tells_everything(&record.headers) {
            self.remember_digest(wanted, &record, epoch).await?;
        }
        Ok(Arc::new(record))
    }

    /// What an answer to HEAD tells.
    fn head_only(&self, wanted: &Wanted, response: &UpstreamResponse) -> ArtifactRecord {
        let length = response.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let headers = StoredHeaders { length, ..stored_headers(wanted, &response.headers) };
        let now = self.now();
        ArtifactRecord {
            content: Content::HeadOnly,
            source_url: String::new(),
            published_at: headers.last_modified.as_deref().and_then(UnixMillis::from_http_date),
            first_seen_at: now,
            contacted_at: now,
            renewed_at: now,
            began_at: now,
            verified: false,
            headers,
        }
    }

    /// Sends HEAD to the places where the file may be, and GET closed after its head where HEAD is not supported; only a 200 is a
    /// success.
    async fn ask_head(self: &Arc<Self>, wanted: &Arc<Wanted>) -> Result<UpstreamResponse, Fault> {
        // No document is obtained as long as the file is where it is looked for.
        let mut expectation = self.expect_of_held(wanted).await;
        let head = Ask { method: Method::HEAD, ..Ask::default() };
        let found = self.find(wanted, &mut expectation, &head, &Spoilt::default()).await;
        let answer = found.map_or_else(|| Err(NoBody::unusable("internal", "no place was asked")), |found| found.answer);
        let response = answer.map_err(|no_body| self.no_copy(wanted, &no_body))?.response;
        if response.status != StatusCode::OK {
            return Err(self.no_copy(wanted, &status_outcome(wanted, &response, self.now())));
        }
        Ok(response)
    }

    /// The first contact with a sidecar's subject: its date is remembered, its body is not fetched.
    pub(crate) async fn first_contact(self: &Arc<Self>, wanted: &Arc<Wanted>) -> Result<Arc<ArtifactRecord>, Fault> {
        let response = self.ask_head(wanted).await?;
        let storage = |error| crate::serve::storage_fault(&wanted.entry, &error);
        // The subject itself may have been fetched meanwhile, and its record says more.
        let meanwhile = self.records.get(&wanted.key).await.map_err(storage)?;
        if let Some(record) = meanwhile.filter(|record| !matches!(record.content, Content::Negative { .. })) {
            return Ok(record);
        }
        let record = Arc::new(self.head_only(wanted, &response));
        let change =
            larder_storage::Change::PutRecord { key: wanted.key.clone(), record: ArtifactRecord::clone(&record), blob: None };
        self.metadata.apply(vec![change]).await.map_err(storage)?;
        self.records.put(wanted.key.clone(), Arc::clone(&record));
        Ok(record)
    }

    /// The fault for an upstream that gave nothing, when there is no copy.
    pub(crate) fn no_copy(&self, wanted: &Wanted, no_body: &NoBody) -> Fault {
        match self.settle_failure(wanted, None, no_body) {
            Err((fault, _)) => fault,
            Ok(_) => Fault::new(FaultKind::Internal, "internal", "there is no copy to serve"),
        }
    }
}

/// Clients take the digest of a name from its head and ask for that next: a head that lacks a part makes them ask twice.
fn tells_everything(headers: &StoredHeaders) -> bool {
    headers.digest.is_some() && headers.length.is_some() && headers.content_type.is_some()
}

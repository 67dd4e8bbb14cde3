//! HEAD on what is not held: forwarded, nothing stored (spec section 1).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{Method, StatusCode, header};
use larder_core::{ArtifactRecord, Content, Fault, FaultKind, ForwardReason, Source, UnixMillis};
use larder_upstream::UpstreamResponse;

use crate::admission::{Admitted, Wanted};
use crate::answer::{Answer, Body, Freshness};
use crate::clearance::{Dates, clear, clear_non_artifact};
use crate::counters::count;
use crate::download::stored_headers;
use crate::engine::Engine;
use crate::fetch::{NoBody, status_outcome};
use crate::mirrors::Ask;
use crate::serve::{forwarded_status, representation};

impl Engine {
    /// `None`: this can only be answered with the body at hand.
    pub(crate) async fn forward_head(self: &Arc<Self>, admitted: &Admitted) -> Result<Option<Answer>, Fault> {
        let wanted = admitted.wanted();
        let epoch = wanted.entry.epoch.load(Ordering::Acquire);
        if wanted.entry.repository_is_offline() {
            return Err(crate::serve::offline(wanted));
        }
        let response = self.ask_head(wanted).await?;
        let headers = stored_headers(wanted, &response.headers);
        if admitted.subject().is_none() {
            let published_at = headers.last_modified.as_deref().and_then(UnixMillis::from_http_date);
            let dates = Dates { published_at, first_seen_at: self.now() };
            clear(&wanted.entry.repository, wanted.class, dates, self.now(), ())
                .inspect_err(|_| count(&wanted.entry.counters.quarantined))?;
        }
        let length = response.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if wanted.has_name_by_digest() {
            // Clients take the digest from here and ask for it next: a head that lacks a part makes them ask twice.
            if headers.digest.is_none() || length.is_none() || headers.content_type.is_none() {
                return Ok(None);
            }
            self.remember_digest(wanted, &headers, epoch).await?;
        }
        let mut representation = representation(wanted, &headers, headers.digest.as_ref(), None, length);
        representation.vary = crate::serve::vary(wanted.format.varies_by(&wanted.spec.key_path), false, false);
        Ok(Some(Answer {
            status: StatusCode::OK,
            representation,
            body: clear_non_artifact(Body::Empty),
            cache_status: forwarded_status(ForwardReason::Method, 200),
            source: Source::Remote,
            freshness: Freshness { age: Duration::ZERO, remaining: Some(Duration::ZERO), no_store: false },
            location: None,
            hot: None,
        }))
    }

    /// Sends HEAD, and GET closed after its head where HEAD is not supported; only a 200 is a success.
    async fn ask_head(self: &Arc<Self>, wanted: &Arc<Wanted>) -> Result<UpstreamResponse, Fault> {
        let claimed = self.held_claim(wanted).await.and_then(|claim| url::Url::parse(&claim.url).ok());
        let fault = |no_body: &NoBody| self.no_copy(wanted, no_body);
        let ask = async |method| {
            let asked = Ask { method, claimed: claimed.clone(), ..Ask::default() };
            let arrival = self.ask(wanted, &asked).await.map_err(|error| fault(&error))?;
            Ok::<_, Fault>(arrival.response)
        };
        let mut response = ask(Method::HEAD).await?;
        if matches!(response.status.as_u16(), 400 | 403 | 405 | 501) {
            response = ask(Method::GET).await?;
        }
        if response.status != StatusCode::OK {
            return Err(fault(&status_outcome(wanted, &response, self.now())));
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
        let headers = stored_headers(wanted, &response.headers);
        let now = self.now();
        let record = Arc::new(ArtifactRecord {
            content: Content::HeadOnly,
            source_url: String::new(),
            published_at: headers.last_modified.as_deref().and_then(UnixMillis::from_http_date),
            first_seen_at: now,
            contacted_at: now,
            renewed_at: now,
            began_at: now,
            verified: false,
            headers,
        });
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

//! HEAD on what is not held: forwarded, one for all who ask meanwhile; nothing is stored but a tag's digest (contract, section 1).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::{Method, StatusCode};
use larder_core::{
    ArtifactRecord, CacheStatus, Content, Decision, Fault, ForwardReason, Source, StoredHeaders,
    UnixMillis, believed, decide,
};
use larder_upstream::UpstreamResponse;

use super::body::stated_date;
use super::fields::stored_headers;
use super::parts::Remote;
use super::places::{Found, Search, Spoilt};
use super::query::UpstreamQuery;
use crate::answer::{Answer, Body};
use crate::budget::Usage;
use crate::cluster::HeadTurn;
use crate::counters::count;
use crate::fault::{gave_way, internal, offline, status_outcome, storage_fault, was_given_up};
use crate::policy::admission::Admitted;
use crate::policy::clearance::{clear, clear_non_artifact};
use crate::policy::ruling::{Facts, dates_of};
use crate::policy::visibility::Visibility;
use crate::representation::{forwarded_status, freshness, passing_folder_on, representation};
use crate::target::{ArtifactRequest, Target, remaining_seconds};
use crate::transfer::audience::Audience;
use crate::transfer::flight::lost;
use crate::transfer::turns::head_asked_back;

impl Remote {
    /// `None`: this can only be answered with the body at hand.
    pub(super) async fn forward_head(
        self: &Arc<Self>,
        admitted: &Admitted,
        request: &ArtifactRequest<'_>,
    ) -> Result<Option<Answer>, Fault> {
        let wanted = admitted.wanted();
        if let Some(record) = self.told_before(wanted).await? {
            let status = CacheStatus {
                hit: true,
                ttl: remaining_seconds(&record, wanted, self.now()),
                ..CacheStatus::default()
            };
            return self.answer_head(admitted, &record, status, Source::Cache, request);
        }
        if wanted.entry.repository_is_offline() {
            return Err(offline(wanted));
        }
        let key = (wanted.key.clone(), self.catalog.epoch(&wanted.entry).value);
        let ask = |audience: Arc<Audience>| {
            let (engine, asked_for) = (Arc::clone(self), Arc::clone(wanted));
            async move {
                engine
                    .learn_head_unless_given_up(&asked_for, &audience)
                    .await
            }
        };
        let (mut told, mut asked_here) = self.heads.join_or_ask(key.clone(), ask).await;
        if told.as_ref().is_err_and(was_given_up) {
            // It was being given up when this one came.
            (told, asked_here) = self.heads.join_or_ask(key, ask).await;
        }
        if !asked_here {
            count(&wanted.entry.counters.collapsed);
        }
        let record = told?;
        let status = CacheStatus {
            collapsed: !asked_here,
            ..forwarded_status(ForwardReason::Method, 200)
        };
        self.answer_head(admitted, &record, status, Source::Remote, request)
    }

    /// The answer to HEAD from what the upstream's head told; `None` if it lacks a part that clients rely on.
    fn answer_head(
        &self,
        admitted: &Admitted,
        record: &ArtifactRecord,
        cache_status: CacheStatus,
        source: Source,
        request: &ArtifactRequest<'_>,
    ) -> Result<Option<Answer>, Fault> {
        let (wanted, headers) = (admitted.wanted(), &record.headers);
        if admitted.subject().is_none() {
            let class = match wanted.judged(record, headers.length) {
                // The head does not say what the body is, which may be an empty one.
                Err(_) if headers.content_type.is_none() => return Ok(None),
                judged => judged?,
            };
            let facts = Facts {
                dates: dates_of(wanted, record),
                now: self.now(),
            };
            clear(&wanted.entry.repository, class, &facts, ())
                .inspect_err(|_| count(&wanted.entry.counters.quarantined))?;
        }
        if wanted.facts.has_name_by_digest && !tells_everything(headers) {
            return Ok(None);
        }
        let mut representation = representation(
            wanted,
            headers,
            headers.digest.as_ref(),
            None,
            headers.length,
        );
        representation.vary = crate::representation::vary(wanted.facts.vary, false, false);
        // As GET's: of what is too large to be kept no further answer is made.
        let max_size = wanted
            .entry
            .repository
            .upstream()
            .and_then(|upstream| upstream.max_size);
        let reusable = headers
            .length
            .zip(max_size)
            .is_none_or(|(length, most)| length <= most);
        let all = Visibility::default();
        let freshness = freshness(record, wanted, reusable, &all, self.now());
        let body = clear_non_artifact(Body::Empty);
        let answer = Answer {
            status: StatusCode::OK,
            representation,
            body,
            cache_status,
            source,
            freshness,
            location: None,
            hot: None,
            reading: None,
        };
        Ok(Some(passing_folder_on(
            &self.registry,
            headers,
            request,
            answer,
            self.now(),
        )))
    }

    /// What a HEAD told a moment ago of a name whose bytes are not held, as long as that is good.
    async fn told_before(&self, wanted: &Target) -> Result<Option<Arc<ArtifactRecord>>, Fault> {
        let record = self
            .catalog
            .record(&wanted.key)
            .await
            .map_err(|error| storage_fault(&wanted.entry, &error))?;
        Ok(record.filter(|record| {
            let decision = decide(
                Some(record),
                wanted.class,
                &wanted.entry.repository.cache,
                self.now(),
            );
            matches!(record.content, Content::Pointer(_))
                && tells_everything(&record.headers)
                && decision == Decision::Serve
        }))
    }

    /// The same for as long as somebody waits for it: before it has its turn, and afterwards where others wait for theirs.
    async fn learn_head_unless_given_up(
        self: &Arc<Self>,
        wanted: &Arc<Target>,
        audience: &Audience,
    ) -> Result<Arc<ArtifactRecord>, Fault> {
        let place = tokio::select! {
            biased;
            place = self.transfers.take_head_place(wanted) => {
                place.map_err(|no_body| self.copies.no_copy(wanted, &no_body))?
            }
            () = audience.left() => return Err(lost()),
        };
        tokio::select! {
            told = self.learn_head(wanted) => told,
            usage = head_asked_back(audience, &place) => match usage {
                Usage::Idle => Err(lost()),
                Usage::Slow | Usage::Busy => Err(self.copies.no_copy(wanted, &gave_way(usage))),
            },
        }
    }

    /// Asks the upstream for the head, on behalf of all who wait for it; a digest is remembered.
    async fn learn_head(
        self: &Arc<Self>,
        wanted: &Arc<Target>,
    ) -> Result<Arc<ArtifactRecord>, Fault> {
        let epoch = self.catalog.epoch(&wanted.entry);
        // The one who asked before may just have been answered.
        if let Some(record) = self.told_before(wanted).await? {
            return Ok(record);
        }
        let flushes = wanted.entry.flushes.load(Ordering::Acquire);
        let turn = self.cluster.head_turn(&wanted.key).await;
        // What was asked before a flush is no answer after it.
        let is_good = wanted.entry.flushes.load(Ordering::Acquire) == flushes;
        let (asking, arriving) = match turn {
            HeadTurn::Ours(asking) => (asking, None),
            HeadTurn::Arriving(response) if is_good => (None, Some(*response)),
            HeadTurn::Told(record) if is_good => {
                return Ok(Arc::new(believed(*record, self.now())));
            }
            HeadTurn::Arriving(_) | HeadTurn::Told(_) | HeadTurn::Over => {
                self.catalog.forget_in_memory(&wanted.key);
                if let Some(record) = self.told_before(wanted).await? {
                    return Ok(record);
                }
                (None, None)
            }
        };
        let response = match arriving {
            Some(response) => response,
            None => self.ask_head(wanted).await?,
        };
        let dates = self.dates_beside(wanted).await?;
        let record = self.head_only(wanted, &response, dates);
        if tells_everything(&record.headers) {
            self.copies.remember_digest(wanted, &record, &epoch).await?;
        }
        if let Some(asking) = asking
            && wanted.entry.flushes.load(Ordering::Acquire) == flushes
        {
            asking.tell(&record).await;
        }
        Ok(Arc::new(record))
    }

    /// When a file was published and seen first, as far as that is known beside what its upstream's head says.
    async fn dates_beside(
        self: &Arc<Self>,
        wanted: &Arc<Target>,
    ) -> Result<(Option<UnixMillis>, UnixMillis), Fault> {
        let known = self.catalog.age(wanted).await;
        let known = known.map_err(|error| storage_fault(&wanted.entry, &error))?;
        let published = match known.as_ref().and_then(|known| known.published_at) {
            Some(published) => Some(published),
            None => stated_date(&self.inquiry(), wanted).await,
        };
        let first_seen = known.map_or(self.now(), |known| known.first_seen_at);
        Ok((published, first_seen))
    }

    /// What an answer to HEAD tells, as far as it will hold for GET.
    fn head_only(
        &self,
        wanted: &Target,
        response: &UpstreamResponse,
        (published, first_seen_at): (Option<UnixMillis>, UnixMillis),
    ) -> ArtifactRecord {
        // Servers that do not count what they do not send say 0.
        let length = response.declared_length().filter(|length| *length > 0);
        let mut headers = StoredHeaders {
            length,
            ..stored_headers(wanted, &response.headers)
        };
        crate::policy::folder::note(wanted, response, &mut headers);
        if headers.content_encoding.is_some() && !wanted.format.profile().keeps_coding {
            // A GET decodes such a body, unless its digest or its name says otherwise: length and tag are those of the coded form.
            (headers.content_encoding, headers.length, headers.etag) = (None, None, None);
        }
        let now = self.now();
        ArtifactRecord {
            content: Content::HeadOnly,
            source_url: String::new(),
            published_at: published.or_else(|| {
                let modified = headers.last_modified.as_deref();
                modified.and_then(UnixMillis::from_http_date)
            }),
            first_seen_at,
            contacted_at: now,
            fresh_since: now,
            served_since: now,
            verified: false,
            headers,
        }
    }

    /// Sends HEAD to the places where the file may be, and GET closed after its head where HEAD is not supported; only a 200 is a
    /// success.
    async fn ask_head(self: &Arc<Self>, wanted: &Arc<Target>) -> Result<UpstreamResponse, Fault> {
        if let Some(fault) = self.refusals.told_to_wait(wanted, self.now()) {
            return Err(fault);
        }
        let flushes = wanted.entry.flushes.load(Ordering::Acquire);
        // No document is obtained as long as the file is where it is looked for.
        let mut expectation = self.documents.expect_of_held(wanted).await;
        let head = UpstreamQuery {
            method: Method::HEAD,
            ..UpstreamQuery::default()
        };
        let (inquiry, spoilt) = (self.inquiry(), Spoilt::default());
        let search = Search {
            mirrors: &self.mirrors,
            inquiry: &inquiry,
            wanted,
            ask: &head,
            spoilt: &spoilt,
        };
        let Some(Found { answer, is_final }) = search.find(&mut expectation).await else {
            return Err(internal("no place was asked"));
        };
        let arrival = answer.map_err(|no_body| self.copies.no_copy(wanted, &no_body))?;
        if arrival.response.status != StatusCode::OK {
            if is_final {
                self.refusals
                    .note_refusal(wanted, &arrival, flushes, self.now());
            }
            return Err(self.copies.no_copy(
                wanted,
                &status_outcome(wanted, &arrival.response, self.now()),
            ));
        }
        Ok(arrival.response)
    }

    /// The first contact with a sidecar's subject: its date is remembered, its body is not fetched.
    pub(crate) async fn first_contact(
        self: &Arc<Self>,
        wanted: &Arc<Target>,
    ) -> Result<Arc<ArtifactRecord>, Fault> {
        let place = self.transfers.take_head_place(wanted).await;
        let _place = place.map_err(|no_body| self.copies.no_copy(wanted, &no_body))?;
        let response = self.ask_head(wanted).await?;
        let storage = |error| storage_fault(&wanted.entry, &error);
        // The subject itself may have been fetched meanwhile, and its record says more.
        let meanwhile = self.catalog.record(&wanted.key).await.map_err(storage)?;
        if let Some(record) =
            meanwhile.filter(|record| !matches!(record.content, Content::Negative { .. }))
        {
            return Ok(record);
        }
        let dates = self.dates_beside(wanted).await?;
        let record = Arc::new(self.head_only(wanted, &response, dates));
        self.catalog
            .remember(wanted, Arc::clone(&record))
            .await
            .map_err(storage)?;
        Ok(record)
    }
}

/// Clients take the digest of a name from its head and ask for that next: a head that lacks a part makes them ask twice.
fn tells_everything(headers: &StoredHeaders) -> bool {
    headers.digest.is_some() && headers.length.is_some() && headers.content_type.is_some()
}

//! Step 5: ask the upstream, and settle what came of it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::{Method, StatusCode};
use larder_core::{
    ArtifactRecord, Clock, ErrorCode, Fault, ForwardReason, HeadVerdict, Outcome, RevalidateWith,
    UnixMillis, fresh_until,
};
use url::Url;

use super::body::{Bodies, Stopped};
use super::copies::{Copies, Copy};
use super::mirrors::{Mirrors, has_mirror_beside};
use super::outcome::FetchResult;
use super::places::{Found, Search, Spoilt, is_hint};
use super::query::{Arrival, UpstreamQuery};
use super::refusals::Refusals;
use super::settle::{arrived, head_verdict};
use super::standing::note_body;
use crate::budget::{Lease, Usage};
use crate::catalog::{Catalog, RecordChange};
use crate::counters::count;
use crate::document::expectation::Expectation;
use crate::document::inquiry::Inquiry;
use crate::fault::{FetchError, NOT_ASKED, gave_way, nothing_left, status_outcome, storage_fault};
use crate::repositories::mirror::Mirror;
use crate::target::Target;
use crate::transfer::Transfers;
use crate::transfer::flight::{Flight, lost};
use crate::transfer::turns::{NoPlace, asked_back};

/// Gets bodies from upstreams, and makes an outcome of what comes.
#[derive(Debug)]
pub(super) struct Fetcher {
    pub(super) catalog: Arc<Catalog>,
    pub(super) transfers: Arc<Transfers>,
    pub(super) copies: Arc<Copies>,
    pub(super) mirrors: Arc<Mirrors>,
    pub(super) refusals: Arc<Refusals>,
    pub(super) clock: Arc<dyn Clock>,
}

/// What is fetched, for which flight, and who obtains documents for it.
#[derive(Clone, Copy)]
pub(super) struct Job<'a> {
    pub(super) inquiry: &'a Inquiry,
    pub(super) flight: &'a Arc<Flight>,
    pub(super) wanted: &'a Arc<Target>,
}

/// How far the fetching of one body has come.
struct Fetching {
    /// What was remembered before.
    prior: Option<Arc<ArtifactRecord>>,
    /// What may be served if this fails.
    copy: Option<Copy>,
    /// Whether only what has changed is wanted.
    conditional: bool,
    /// How often the repository had been flushed when this began.
    flushes: u64,
    tried: Tried,
    /// Whether the body comes from another replica, whose end is no word of the upstream's.
    is_relayed: bool,
}

/// What has been tried for one body, in vain.
#[derive(Default)]
struct Tried {
    /// Mirrors of the place that is being tried.
    avoid: Vec<Arc<Mirror>>,
    spoilt: Spoilt,
    /// What went wrong, and whether that counts more than what another place says.
    failure: Option<(FetchError, bool)>,
}

impl Tried {
    fn failed(
        &mut self,
        wanted: &Target,
        mirror: Option<Arc<Mirror>>,
        place: Option<Url>,
        why: FetchError,
    ) {
        self.avoid.extend(mirror);
        let is_another_left = !self.avoid.is_empty() && has_mirror_beside(wanted, &self.avoid);
        self.failure = Some((why, is_another_left || !is_hint(wanted, place.as_ref())));
        if !is_another_left {
            // No mirror is left at this place; at another one they may have it.
            self.avoid.clear();
            self.spoilt.add(place);
        }
    }
}

impl Fetcher {
    fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    /// Asks whether a copy is still good.
    pub(super) async fn revalidate(
        &self,
        job: Job<'_>,
        copy: Copy,
        with: RevalidateWith,
    ) -> FetchResult {
        if let Some(no_body) = self.asked_to_wait(job.wanted) {
            return self.copies.settle_failure(job.wanted, Some(copy), &no_body);
        }
        let _needed = self.catalog.needed(&job.wanted.key);
        let prior = Some(Arc::clone(&copy.0));
        let (copy, conditional) = match with {
            RevalidateWith::Get => (copy, true),
            // A path that is left alone is not asked for its head either.
            RevalidateWith::Head if self.refusals.stands(job.wanted, self.now()) => (copy, true),
            RevalidateWith::Head => match self.compare_head(job, copy).await {
                ControlFlow::Break(settled) => return settled,
                ControlFlow::Continue(unsettled) => unsettled,
            },
        };
        self.fetch(job, prior, Some(copy), conditional).await
    }

    /// Asks with HEAD whether a copy is still good. What that does not settle is asked with GET: for the body, or (`true`) for what has
    /// changed.
    async fn compare_head(
        &self,
        Job { wanted, .. }: Job<'_>,
        copy: Copy,
    ) -> ControlFlow<FetchResult, (Copy, bool)> {
        let failed = |copy, no_body: &FetchError| {
            let settled = self.copies.settle_failure(wanted, Some(copy), no_body);
            ControlFlow::Break(settled)
        };
        let head = UpstreamQuery {
            method: Method::HEAD,
            unless_changed: Some(&copy.0),
            has_stale_fallback: self.copies.may_serve(wanted, &copy.0),
            ..UpstreamQuery::default()
        };
        let flushes = wanted.entry.flushes.load(Ordering::Acquire);
        // Where a document says where the file is, this place is a guess, and its refusal says nothing: the GET asks all places.
        let is_guess = !wanted.spec.is_document && is_hint(wanted, None);
        let asked = match self.transfers.take_head_place(wanted).await {
            Ok(_place) => self.mirrors.ask(wanted, &head).await,
            Err(busy) => return failed(copy, &busy),
        };
        let arrival = match asked {
            Ok(arrival) => arrival,
            Err(_) if is_guess => return ControlFlow::Continue((copy, true)),
            Err(no_body) => return failed(copy, &no_body),
        };
        let response = &arrival.response;
        match head_verdict(wanted, response, &copy.0) {
            HeadVerdict::Unchanged => {
                ControlFlow::Break(Ok(self.copies.renew(wanted, copy, response)))
            }
            HeadVerdict::Changed => {
                let stated = wanted
                    .format
                    .digest_in_head(&wanted.facts, &response.headers);
                let Some(stated) = stated else {
                    return ControlFlow::Continue((copy, false));
                };
                let Some(settled) = self.copies.switch_to(wanted, &stated, &copy.0).await else {
                    return ControlFlow::Continue((copy, false));
                };
                count(&wanted.entry.counters.revalidated);
                let change = RecordChange::Renew {
                    record: Arc::clone(&settled.record),
                };
                ControlFlow::Break(Ok((settled, Some(change), Some(copy.0))))
            }
            HeadVerdict::AskWithGet => ControlFlow::Continue((copy, true)),
            HeadVerdict::Other if is_guess => ControlFlow::Continue((copy, true)),
            HeadVerdict::Other => {
                self.refusals
                    .note_refusal(wanted, &arrival, flushes, self.now());
                let no_body = match arrival.failed {
                    Some(failed) => failed,
                    None => status_outcome(wanted, response, self.now()),
                };
                failed(copy, &no_body)
            }
        }
    }

    /// Gets the body. `prior` is what was remembered before, `copy` what may be served if this fails; where it is `conditional`, only what
    /// has changed is wanted.
    pub(super) async fn fetch(
        &self,
        job: Job<'_>,
        prior: Option<Arc<ArtifactRecord>>,
        copy: Option<Copy>,
        conditional: bool,
    ) -> FetchResult {
        let wanted = job.wanted;
        // An upstream that fails after a while leaves nothing else to serve.
        let held = copy.as_ref().map(|_| &wanted.key);
        let _needed = held.and_then(|key| self.catalog.needed(key));
        job.flight
            .forwarded(self.reason_to_ask(wanted, copy.as_ref()));
        let spared = self.asked_to_wait(wanted).or_else(|| self.spared(wanted));
        if let (Some(no_body), Some(_)) = (spared, &copy) {
            return self.copies.settle_failure(wanted, copy, &no_body);
        }
        if let Some(fault) = self.refusals.told_to_wait(wanted, self.now()) {
            return self.copies.left_alone(wanted, copy, fault);
        }
        let prior = self.with_age(wanted, prior).await;
        let mut fetching = Fetching {
            prior: prior.map_err(|fault| (fault, None))?,
            copy,
            conditional,
            flushes: wanted.entry.flushes.load(Ordering::Acquire),
            tried: Tried::default(),
            is_relayed: false,
        };
        self.catalog.spool_room(wanted).await;
        loop {
            if let ControlFlow::Break(result) = self.attempt(job, &mut fetching).await {
                return result;
            }
        }
    }

    /// What was remembered before. Of what is not held that is how old it is: neither a flush nor an eviction changes it.
    async fn with_age(
        &self,
        wanted: &Target,
        prior: Option<Arc<ArtifactRecord>>,
    ) -> Result<Option<Arc<ArtifactRecord>>, Fault> {
        if prior.as_ref().is_some_and(|prior| prior.blob().is_some()) {
            return Ok(prior);
        }
        let age = self.catalog.age(wanted).await;
        let age = age.map_err(|error| storage_fault(&wanted.entry, &error))?;
        Ok(age.map(Arc::new).or(prior))
    }

    /// Tries once, wherever the body may still be.
    async fn attempt(&self, job: Job<'_>, fetching: &mut Fetching) -> ControlFlow<FetchResult> {
        let Job {
            inquiry,
            flight,
            wanted,
        } = job;
        let mut expectation = inquiry.expect(wanted).await;
        let may_be_dropped = fetching.copy.is_none();
        // After the documents have been asked: who waits for them keeps no place from others.
        let turn = self.transfers.take_place(flight, wanted, may_be_dropped);
        let turn = match turn.await {
            Ok(turn) => turn,
            Err(NoPlace::GivenUp) => return ControlFlow::Break(Err((lost(), None))),
            Err(NoPlace::Refused(no_body)) => return self.failed(job, fetching, &no_body),
        };
        let relayed = flight.relayed();
        fetching.is_relayed = relayed.is_some();
        let found = if let Some(response) = relayed {
            Some(Found::relayed(response))
        } else {
            tokio::select! {
                found = self.open_body(job, &mut expectation, fetching) => found,
                usage = asked_back(flight, &turn, None) => return match usage {
                    Usage::Idle => ControlFlow::Break(Err((lost(), None))),
                    Usage::Slow | Usage::Busy => self.failed(job, fetching, &gave_way(usage)),
                },
            }
        };
        let Some(Found { answer, is_final }) = found else {
            let failure = fetching.tried.failure.take();
            let why = failure.map_or_else(nothing_left, |(no_body, _)| no_body);
            return self.failed(job, fetching, &why);
        };
        let before = fetching
            .tried
            .failure
            .take_if(|(_, counts)| *counts)
            .map(|(no_body, _)| no_body);
        let arrival = match answer {
            Ok(arrival) => arrival,
            Err(no_body) => return self.failed(job, fetching, &before.unwrap_or(no_body)),
        };
        let response = &arrival.response;
        if response.status == StatusCode::OK {
            return self
                .take_body(job, &turn, fetching, arrival, expectation, before)
                .await;
        }
        if response.status == StatusCode::NOT_MODIFIED && std::mem::take(&mut fetching.conditional)
        {
            let copy = &mut fetching.copy;
            return match self.copies.not_modified(wanted, copy, response) {
                Some(renewed) => ControlFlow::Break(Ok(renewed)),
                None => ControlFlow::Continue(()),
            };
        }
        self.refused(job, fetching, arrival, is_final, before).await
    }

    /// Nothing new comes: the end.
    fn failed(
        &self,
        job: Job<'_>,
        fetching: &mut Fetching,
        why: &FetchError,
    ) -> ControlFlow<FetchResult> {
        let copy = fetching.copy.take();
        ControlFlow::Break(self.copies.settle_failure(job.wanted, copy, why))
    }

    /// A status that brings no body. `before` counts more than that, if something has failed before.
    async fn refused(
        &self,
        job: Job<'_>,
        fetching: &mut Fetching,
        arrival: Arrival,
        is_final: bool,
        before: Option<FetchError>,
    ) -> ControlFlow<FetchResult> {
        let (wanted, now) = (job.wanted, self.now());
        let has_copy = fetching.copy.is_some();
        // Where a mirror is avoided, not everybody has said so.
        if is_final && fetching.tried.avoid.is_empty() {
            self.refusals
                .note_refusal(wanted, &arrival, fetching.flushes, now);
        }
        let no_body = no_body_of(wanted, &arrival, has_copy, now);
        if matches!(no_body.outcome, Outcome::Missing(_)) {
            job.inquiry.refresh_generation_of(wanted).await;
        }
        let copy = fetching.copy.take();
        let why = before.unwrap_or(no_body);
        let settled = self.copies.settle_failure(wanted, copy, &why);
        ControlFlow::Break(if is_final {
            settled
        } else {
            settled.map_err(|(fault, _)| (fault, None))
        })
    }

    /// The body comes. If it turns out to be wrong or breaks off, it may be had from elsewhere.
    async fn take_body(
        &self,
        job: Job<'_>,
        turn: &Lease,
        fetching: &mut Fetching,
        arrival: Arrival,
        expectation: Expectation,
        before: Option<FetchError>,
    ) -> ControlFlow<FetchResult> {
        let (wanted, flight) = (job.wanted, job.flight);
        let (mirror, place) = (arrival.mirror.clone(), arrival.claimed.clone());
        let bodies = Bodies {
            transfers: &self.transfers,
            mirrors: &self.mirrors,
            copies: &self.copies,
            inquiry: job.inquiry,
            now: self.now(),
        };
        let prior = fetching.prior.as_deref();
        let filled = bodies.fill((flight, turn), wanted, prior, arrival, expectation);
        let no_body = match filled.await {
            Ok(filled) => {
                let copy = fetching.copy.take();
                return ControlFlow::Break(Ok(arrived(filled, copy, flight.reason())));
            }
            Err(Stopped::Held { fault, record }) => {
                let record = Arc::new(record);
                return ControlFlow::Break(Err((fault, Some(RecordChange::Renew { record }))));
            }
            Err(Stopped::Refused(fault)) => return ControlFlow::Break(Err((fault, None))),
            Err(Stopped::FetchError(no_body)) => no_body,
        };
        count(&wanted.entry.counters.fills_failed);
        if fetching.is_relayed {
            flight.follow(None);
            return ControlFlow::Continue(());
        }
        if !no_body.is_of_the_mirror() {
            return self.failed(job, fetching, &before.unwrap_or(no_body));
        }
        match &mirror {
            Some(mirror) => self.mirrors.put_aside(wanted, mirror, &no_body),
            None => note_body(wanted, None, place.as_ref(), &no_body, self.now()),
        }
        let why = before.unwrap_or(no_body);
        fetching.tried.failed(wanted, mirror, place, why);
        ControlFlow::Continue(())
    }

    /// Why the upstream is asked for a body, in the words of `Cache-Status`.
    fn reason_to_ask(&self, wanted: &Target, copy: Option<&Copy>) -> ForwardReason {
        let Some((record, _)) = copy else {
            return ForwardReason::UriMiss;
        };
        let until = fresh_until(
            record,
            wanted.class_of(record),
            &wanted.entry.repository.cache,
        );
        if until.is_none_or(|until| self.now() < until) {
            ForwardReason::Request
        } else {
            ForwardReason::Stale
        }
    }

    /// The upstream has said when to come back, and copies may serve until then (`stale.on_status`): it is not asked.
    fn asked_to_wait(&self, wanted: &Target) -> Option<FetchError> {
        let status = StatusCode::TOO_MANY_REQUESTS.as_u16();
        // Where there is somebody else to ask, that one is asked.
        if wanted.entry.mirrors.len() > 1 {
            return None;
        }
        let pause = wanted.entry.quota.busy_for(self.now())?;
        let listed = wanted
            .entry
            .repository
            .cache
            .stale_on_status
            .contains(&status);
        listed.then(|| FetchError {
            outcome: Outcome::Refused {
                status,
                retry_after: Some(pause),
            },
            message: "the upstream answered 429 a moment ago and said when to come back".to_owned(),
            code: NOT_ASKED,
            status: None,
            brief: "",
        })
    }

    /// The upstream counts requests, and has said that there are to be none for a while, or that few are left: those are kept for what is
    /// not held.
    fn spared(&self, wanted: &Target) -> Option<FetchError> {
        let (quota, now) = (&wanted.entry.quota, self.now());
        if wanted.entry.mirrors.len() > 1 || wanted.spec.accept.is_none() {
            return None;
        }
        let message = if quota.is_counted() && quota.busy_for(now).is_some() {
            "the upstream answered 429 a moment ago and said when to come back"
        } else if quota.is_scarce(now) {
            "little is left of what the upstream allows, and kept for what is not held"
        } else {
            return None;
        };
        Some(FetchError::unusable(NOT_ASKED, message))
    }

    /// Sends the GET to the places where the body may be.
    async fn open_body(
        &self,
        job: Job<'_>,
        expectation: &mut Expectation,
        fetching: &Fetching,
    ) -> Option<Found> {
        let copy = fetching.copy.as_ref().map(|(record, _)| record.as_ref());
        let ask = UpstreamQuery {
            unless_changed: copy.filter(|_| fetching.conditional),
            avoid: &fetching.tried.avoid,
            has_stale_fallback: copy.is_some_and(|copy| self.copies.may_serve(job.wanted, copy)),
            ..UpstreamQuery::default()
        };
        let search = Search {
            mirrors: &self.mirrors,
            inquiry: job.inquiry,
            wanted: job.wanted,
            ask: &ask,
            spoilt: &fetching.tried.spoilt,
        };
        search.find(expectation).await
    }
}

/// Why an answer other than 200 and an expected 304 has no body. Where another mirror could not be asked, one that has not got the
/// file does not end the life of a copy.
fn no_body_of(wanted: &Target, arrival: &Arrival, has_copy: bool, now: UnixMillis) -> FetchError {
    if arrival.response.status == StatusCode::NOT_MODIFIED {
        let message = format!(
            "the upstream of repository {} answered 304 to a request without conditions",
            wanted.entry.repository.name
        );
        return FetchError {
            status: Some(304),
            ..FetchError::unusable(ErrorCode::UpstreamProtocol, message)
        };
    }
    match &arrival.failed {
        Some(failed) if has_copy => failed.clone(),
        _ => status_outcome(wanted, &arrival.response, now),
    }
}

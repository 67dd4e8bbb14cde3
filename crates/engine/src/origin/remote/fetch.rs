//! Step 5: ask the upstream, and settle what came of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::{Method, StatusCode};
use larder_core::{
    ArtifactRecord, ErrorCode, ForwardReason, HeadVerdict, Outcome, RevalidateWith, UnixMillis,
    fresh_until,
};
use larder_storage::Body;
use url::Url;

use crate::catalog::RecordChange;
use crate::counters::count;
use crate::document::expectation::Expectation;
use crate::fault::{FetchError, NOT_ASKED, nothing_left, status_outcome};
use crate::origin::remote::Remote;
use crate::origin::remote::download::Stopped;
use crate::origin::remote::fly::FetchResult;
use crate::origin::remote::mirrors::{Arrival, UpstreamQuery};
use crate::origin::remote::places::{Found, Spoilt, is_hint};
use crate::origin::remote::settle::head_verdict;
use crate::origin::remote::turns::{NoPlace, wanted_by_others};
use crate::repositories::mirror::Mirror;
use crate::target::Target;
use crate::transfer::flight::{Flight, lost};

/// An expired copy with its open file.
pub(crate) type Copy = (Arc<ArtifactRecord>, Body);

/// What there is in place of a new body.
#[derive(Clone, Copy)]
struct Fallback<'a> {
    copy: &'a Copy,
    /// Whether only what has changed is wanted.
    conditional: bool,
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
        let is_another_left =
            !self.avoid.is_empty() && Remote::has_mirror_beside(wanted, &self.avoid);
        self.failure = Some((why, is_another_left || !is_hint(wanted, place.as_ref())));
        if !is_another_left {
            // No mirror is left at this place; at another one they may have it.
            self.avoid.clear();
            self.spoilt.add(place);
        }
    }
}

impl Remote {
    /// Asks whether a copy is still good.
    pub(crate) async fn revalidate(
        self: &Arc<Self>,
        flight: &Arc<Flight>,
        wanted: &Arc<Target>,
        copy: Copy,
        with: RevalidateWith,
    ) -> FetchResult {
        if let Some(no_body) = self.asked_to_wait(wanted) {
            return self.settle_failure(wanted, Some(copy), &no_body);
        }
        let prior = Some(Arc::clone(&copy.0));
        if with == RevalidateWith::Head {
            let has_stale_fallback = self.may_serve(wanted, &copy.0);
            let head = UpstreamQuery {
                method: Method::HEAD,
                unless_changed: Some(&copy.0),
                has_stale_fallback,
                ..UpstreamQuery::default()
            };
            // Where a document says where the file is, this place is a guess, and its refusal says nothing: the GET asks all places.
            let is_guess = !wanted.spec.is_document && is_hint(wanted, None);
            let asked = match self.take_head_place(wanted).await {
                Ok(_place) => self.ask(wanted, &head).await,
                Err(busy) => return self.settle_failure(wanted, Some(copy), &busy),
            };
            match asked {
                Err(_) if is_guess => {}
                Err(no_body) => return self.settle_failure(wanted, Some(copy), &no_body),
                Ok(Arrival {
                    response, failed, ..
                }) => match head_verdict(wanted, &response, &copy.0) {
                    HeadVerdict::Unchanged => return Ok(self.renew(wanted, copy, &response)),
                    HeadVerdict::Changed => {
                        let stated = wanted
                            .format
                            .digest_in_head(&wanted.facts, &response.headers);
                        if let Some(stated) = stated
                            && let Some(settled) = self.switch_to(wanted, &stated, &copy.0).await
                        {
                            count(&wanted.entry.counters.revalidated);
                            let change = RecordChange::Renew {
                                record: Arc::clone(&settled.record),
                            };
                            return Ok((settled, Some(change), prior));
                        }
                        return self.fetch(flight, wanted, prior, Some(copy), false).await;
                    }
                    HeadVerdict::AskWithGet => {}
                    HeadVerdict::Other if is_guess => {}
                    HeadVerdict::Other => {
                        let no_body =
                            failed.unwrap_or_else(|| status_outcome(wanted, &response, self.now()));
                        return self.settle_failure(wanted, Some(copy), &no_body);
                    }
                },
            }
        }
        self.fetch(flight, wanted, prior, Some(copy), true).await
    }

    /// Gets the body. `prior` is what was remembered before, `copy` what may be served if this fails.
    pub(crate) async fn fetch(
        self: &Arc<Self>,
        flight: &Arc<Flight>,
        wanted: &Arc<Target>,
        prior: Option<Arc<ArtifactRecord>>,
        copy: Option<Copy>,
        conditional: bool,
    ) -> FetchResult {
        flight.forwarded(self.reason_to_ask(wanted, copy.as_ref()));
        if let (Some(no_body), Some(_)) = (self.asked_to_wait(wanted), &copy) {
            return self.settle_failure(wanted, copy, &no_body);
        }
        if copy.is_none()
            && let Some(fault) = self.told_to_wait(wanted)
        {
            return Err((fault, None));
        }
        self.fetch_now(flight, wanted, prior, copy, conditional)
            .await
    }

    async fn fetch_now(
        self: &Arc<Self>,
        flight: &Arc<Flight>,
        wanted: &Arc<Target>,
        prior: Option<Arc<ArtifactRecord>>,
        mut copy: Option<Copy>,
        mut conditional: bool,
    ) -> FetchResult {
        let flushes = wanted.entry.flushes.load(Ordering::Acquire);
        self.catalog.spool_room(wanted).await;
        let mut tried = Tried::default();
        loop {
            let mut expectation = self.inquiry().expect(wanted).await;
            // After the documents have been asked: who waits for them keeps no place from others.
            let turn = match self.take_place(flight, wanted, copy.is_none()).await {
                Ok(turn) => turn,
                Err(NoPlace::GivenUp) => return Err((lost(), None)),
                Err(NoPlace::Refused(no_body)) => {
                    return self.settle_failure(wanted, copy, &no_body);
                }
            };
            let fallback = copy.as_ref().map(|copy| Fallback { copy, conditional });
            let relayed = flight.relayed();
            let is_relayed = relayed.is_some();
            let found = if let Some(response) = relayed {
                Some(Found::relayed(response))
            } else {
                tokio::select! {
                    found = self.open_body(wanted, &mut expectation, fallback, &tried) => found,
                    () = wanted_by_others(flight, &turn, None) => return Err((lost(), None)),
                }
            };
            let Some(Found { answer, is_final }) = found else {
                return self.settle_failure(
                    wanted,
                    copy,
                    &tried
                        .failure
                        .map_or_else(nothing_left, |(no_body, _)| no_body),
                );
            };
            let before = tried
                .failure
                .take_if(|(_, counts)| *counts)
                .map(|(no_body, _)| no_body);
            let arrival = match answer {
                Ok(arrival) => arrival,
                Err(no_body) => {
                    return self.settle_failure(wanted, copy, &before.unwrap_or(no_body));
                }
            };
            let status = arrival.response.status;
            if status == StatusCode::NOT_MODIFIED && std::mem::take(&mut conditional) {
                match self.not_modified(wanted, &mut copy, &arrival.response) {
                    Some(renewed) => return Ok(renewed),
                    None => continue,
                }
            }
            if status != StatusCode::OK {
                // Where a mirror is avoided, not everybody has said so.
                if is_final && copy.is_none() && tried.avoid.is_empty() {
                    self.note_refusal(wanted, &arrival, flushes);
                }
                let no_body = no_body_of(wanted, &arrival, copy.is_some(), self.now());
                if matches!(no_body.outcome, Outcome::Missing(_)) {
                    self.inquiry().refresh_generation_of(wanted).await;
                }
                let flown = self.settle_failure(wanted, copy, &before.unwrap_or(no_body));
                return if is_final {
                    flown
                } else {
                    flown.map_err(|(fault, _)| (fault, None))
                };
            }
            let (mirror, place) = (arrival.mirror.clone(), arrival.claimed.clone());
            let no_body = match self
                .fill(
                    (flight, &turn),
                    wanted,
                    prior.as_deref(),
                    arrival,
                    expectation,
                )
                .await
            {
                Ok(filled) => return Ok(Self::arrived(filled, copy, flight.reason())),
                Err(Stopped::Held { fault, record }) => {
                    return Err((
                        fault,
                        Some(RecordChange::Renew {
                            record: Arc::new(record),
                        }),
                    ));
                }
                Err(Stopped::Refused(fault)) => return Err((fault, None)),
                Err(Stopped::FetchError(no_body)) => no_body,
            };
            count(&wanted.entry.counters.fills_failed);
            if is_relayed {
                // Another replica's end is no word of the upstream's.
                continue;
            }
            if !no_body.is_of_the_mirror() {
                return self.settle_failure(wanted, copy, &before.unwrap_or(no_body));
            }
            match &mirror {
                Some(mirror) => self.put_aside(wanted, mirror, &no_body),
                None => self.note_body(wanted, None, place.as_ref(), &no_body),
            }
            tried.failed(wanted, mirror, place, before.unwrap_or(no_body));
        }
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

    /// Sends the GET to the places where the body may be.
    async fn open_body(
        self: &Arc<Self>,
        wanted: &Arc<Target>,
        expectation: &mut Expectation,
        fallback: Option<Fallback<'_>>,
        tried: &Tried,
    ) -> Option<Found> {
        let has_stale_fallback =
            fallback.is_some_and(|fallback| self.may_serve(wanted, &fallback.copy.0));
        let unless_changed = fallback
            .filter(|fallback| fallback.conditional)
            .map(|fallback| fallback.copy.0.as_ref());
        let ask = UpstreamQuery {
            unless_changed,
            avoid: &tried.avoid,
            has_stale_fallback,
            ..UpstreamQuery::default()
        };
        self.find(wanted, expectation, &ask, &tried.spoilt).await
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

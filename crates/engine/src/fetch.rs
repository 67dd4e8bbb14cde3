//! Step 5: ask the upstream, and settle what came of it.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::{Method, StatusCode, header};
use larder_core::{
    ArtifactRecord, CacheStatus, Content, ForwardReason, HeadVerdict, Outcome, RevalidateWith,
    Settlement, Source, UnixMillis, confirms, field_text, fresh_until, judge_head, settle,
};
use larder_storage::OpenBlob;
use larder_upstream::UpstreamResponse;
use url::Url;

use crate::admission::Wanted;
use crate::catalog::RecordChange;
use crate::causes::warn_once;
use crate::counters::count;
use crate::download::{Filled, Stopped, stored_headers};
use crate::engine::Engine;
use crate::expectation::Expectation;
use crate::flight::{Flight, Settled, SettledBody};
use crate::mirrors::{Arrival, Ask, Mirror};
use crate::no_body::{
    NOT_ASKED, NoBody, failed, no_body_of, nothing_left, passed_on, status_outcome,
};
use crate::obtain::{Arrived, Flown};
use crate::places::{Found, Spoilt, is_hint};

/// An expired copy with its open file.
pub(crate) type Copy = (Arc<ArtifactRecord>, OpenBlob);

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
    failure: Option<(NoBody, bool)>,
}

impl Tried {
    fn failed(
        &mut self,
        wanted: &Wanted,
        mirror: Option<Arc<Mirror>>,
        place: Option<Url>,
        why: NoBody,
    ) {
        self.avoid.extend(mirror);
        let is_another_left =
            !self.avoid.is_empty() && Engine::has_mirror_beside(wanted, &self.avoid);
        self.failure = Some((why, is_another_left || !is_hint(wanted, place.as_ref())));
        if !is_another_left {
            // No mirror is left at this place; at another one they may have it.
            self.avoid.clear();
            self.spoilt.add(place);
        }
    }
}

impl Engine {
    /// Asks whether a copy is still good.
    pub(crate) async fn revalidate(
        self: &Arc<Self>,
        flight: &Arc<Flight>,
        wanted: &Arc<Wanted>,
        copy: Copy,
        with: RevalidateWith,
    ) -> Flown {
        if let Some(no_body) = self.asked_to_wait(wanted) {
            return self.settle_failure(wanted, Some(copy), &no_body);
        }
        let prior = Some(Arc::clone(&copy.0));
        if with == RevalidateWith::Head {
            let dispensable = self.may_serve(wanted, &copy.0);
            let head = Ask {
                method: Method::HEAD,
                unless_changed: Some(&copy.0),
                dispensable,
                ..Ask::default()
            };
            // Where a document says where the file is, this place is a guess, and its refusal says nothing: the GET asks all places.
            let is_guess = !wanted.spec.is_document && is_hint(wanted, None);
            match self.ask(wanted, &head).await {
                Err(_) if is_guess => {}
                Err(no_body) => return self.settle_failure(wanted, Some(copy), &no_body),
                Ok(Arrival {
                    response, failed, ..
                }) => match head_verdict(wanted, &response, &copy.0) {
                    HeadVerdict::Unchanged => return Ok(self.renew(wanted, copy, &response)),
                    HeadVerdict::Changed => {
                        let stated = wanted
                            .format
                            .digest_in_head(&wanted.spec.key_path, &response.headers);
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
        wanted: &Arc<Wanted>,
        prior: Option<Arc<ArtifactRecord>>,
        copy: Option<Copy>,
        conditional: bool,
    ) -> Flown {
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
        wanted: &Arc<Wanted>,
        prior: Option<Arc<ArtifactRecord>>,
        mut copy: Option<Copy>,
        mut conditional: bool,
    ) -> Flown {
        let flushes = wanted.entry.flushes.load(Ordering::Acquire);
        // Files wait for their documents, so documents must never wait for files; a document that heads a generation waits for the files
        // of it, so these must not wait either.
        let waited_for =
            wanted.spec.is_document || wanted.format.generation(&wanted.spec.key_path).is_some();
        let _permit = if waited_for {
            None
        } else {
            self.downloads.acquire().await.ok()
        };
        let mut tried = Tried::default();
        loop {
            let mut expectation = self.expect(wanted).await;
            let fallback = copy.as_ref().map(|copy| Fallback { copy, conditional });
            let found = self
                .open_body(wanted, &mut expectation, fallback, &tried)
                .await;
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
                    self.refresh_generation_of(wanted).await;
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
                .fill(flight, wanted, prior.as_deref(), arrival, expectation)
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
                Err(Stopped::NoBody(no_body)) => no_body,
            };
            count(&wanted.entry.counters.fills_failed);
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
    fn reason_to_ask(&self, wanted: &Wanted, copy: Option<&Copy>) -> ForwardReason {
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

    /// A new body, as those get it who waited for it.
    fn arrived(filled: Filled, copy: Option<Copy>, reason: ForwardReason) -> Arrived {
        let status = CacheStatus {
            forward: Some(reason),
            forward_status: Some(200),
            stored: filled.change.is_some(),
            detail: filled.detail,
            ..CacheStatus::default()
        };
        let settled = Settled {
            record: filled.record,
            body: filled.body,
            status,
            source: Source::Remote,
            for_once: filled.change.is_none(),
            document: filled.document,
        };
        (settled, filled.change, copy.map(|(record, _)| record))
    }

    /// Whether this expired copy would be served if nobody answered.
    pub(crate) fn may_serve(&self, wanted: &Wanted, copy: &ArtifactRecord) -> bool {
        let policy = &wanted.entry.repository.cache;
        matches!(
            settle(
                Outcome::Unreachable,
                Some(copy),
                wanted.class,
                policy,
                self.now()
            ),
            Settlement::ServeStale { .. }
        )
    }

    /// The upstream has said when to come back, and copies may serve until then (`stale.on_status`): it is not asked.
    fn asked_to_wait(&self, wanted: &Wanted) -> Option<NoBody> {
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
        listed.then(|| NoBody {
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
        wanted: &Arc<Wanted>,
        expectation: &mut Expectation,
        fallback: Option<Fallback<'_>>,
        tried: &Tried,
    ) -> Option<Found> {
        let dispensable = fallback.is_some_and(|fallback| self.may_serve(wanted, &fallback.copy.0));
        let unless_changed = fallback
            .filter(|fallback| fallback.conditional)
            .map(|fallback| fallback.copy.0.as_ref());
        let ask = Ask {
            unless_changed,
            avoid: &tried.avoid,
            dispensable,
            ..Ask::default()
        };
        self.find(wanted, expectation, &ask, &tried.spoilt).await
    }

    /// A 304 came; `None` if it is said of another body than the one that is held: then only the body itself can tell.
    fn not_modified(
        &self,
        wanted: &Wanted,
        copy: &mut Option<Copy>,
        response: &UpstreamResponse,
    ) -> Option<Arrived> {
        let unchanged = copy.take_if(|(record, _)| is_about(wanted, response, record));
        if unchanged.is_none() {
            warn_once!(
                wanted,
                "other_304",
                "the upstream answered 304 with the tag of another body; it is asked without conditions"
            );
        }
        unchanged.map(|copy| self.renew(wanted, copy, response))
    }

    /// The copy is unchanged, as `response` says: its life starts anew.
    fn renew(&self, wanted: &Wanted, (record, open): Copy, response: &UpstreamResponse) -> Arrived {
        count(&wanted.entry.counters.revalidated);
        let now = self.now();
        // What was negotiated is read by its type, which an answer without a body may not know.
        let reads_as = wanted.spec.accept.is_some();
        let headers = record
            .headers
            .renewed_by(&stored_headers(wanted, &response.headers), reads_as);
        let renewed = Arc::new(ArtifactRecord {
            renewed_at: now,
            contacted_at: now,
            headers,
            ..ArtifactRecord::clone(&record)
        });
        let status = CacheStatus {
            forward: Some(ForwardReason::Stale),
            forward_status: Some(response.status.as_u16()),
            detail: (response.status != StatusCode::NOT_MODIFIED).then_some(CacheStatus::UNCHANGED),
            ..CacheStatus::default()
        };
        let settled = Settled {
            record: Arc::clone(&renewed),
            body: SettledBody::Blob(open),
            status,
            source: Source::Cache,
            for_once: false,
            document: None,
        };
        (settled, Some(RecordChange::Renew { record: renewed }), None)
    }

    /// Nothing new came: serve the copy, pass the status on, or fail, as `settle` says.
    pub(crate) fn settle_failure(
        &self,
        wanted: &Wanted,
        copy: Option<Copy>,
        no_body: &NoBody,
    ) -> Flown {
        let now = self.now();
        let policy = &wanted.entry.repository.cache;
        let record = copy.as_ref().map(|(record, _)| record.as_ref());
        match (
            settle(no_body.outcome, record, wanted.class, policy, now),
            copy,
        ) {
            (Settlement::ServeStale { renew }, Some((record, open))) => {
                warn_once!(
                    wanted,
                    no_body.code.as_str(),
                    "the expired copy is served",
                    reason = no_body.code.as_str(),
                    detail = no_body.message
                );
                count(&wanted.entry.counters.stale_served);
                let record = if renew {
                    Arc::new(ArtifactRecord {
                        renewed_at: now,
                        ..ArtifactRecord::clone(&record)
                    })
                } else {
                    record
                };
                let status = no_body.cache_status(&record, wanted, now);
                let change = renew.then(|| RecordChange::Renew {
                    record: Arc::clone(&record),
                });
                Ok((
                    Settled {
                        record,
                        body: SettledBody::Blob(open),
                        status,
                        source: Source::Cache,
                        for_once: !renew,
                        document: None,
                    },
                    change,
                    None,
                ))
            }
            (
                Settlement::PassOn {
                    status,
                    keep_copy,
                    negative_ttl,
                    retry_after,
                },
                copy,
            ) => {
                let fault = passed_on(wanted, status, retry_after);
                let change = match (negative_ttl, keep_copy, copy) {
                    (Some(_), false, copy) => Some(RecordChange::Absent {
                        status,
                        at: now,
                        was_held: copy.is_some(),
                    }),
                    (None, false, Some(_)) => Some(RecordChange::Drop),
                    _ => None,
                };
                if matches!(change, Some(RecordChange::Drop)) {
                    self.catalog.supersede(&wanted.entry);
                }
                Err((fault, change))
            }
            (Settlement::Fail { timed_out }, _) => Err((failed(wanted, timed_out, no_body), None)),
            (Settlement::Replace | Settlement::Renew | Settlement::ServeStale { .. }, _) => {
                Err((failed(wanted, false, no_body), None))
            }
        }
    }
}

fn text(response: &UpstreamResponse, name: header::HeaderName) -> Option<Cow<'_, str>> {
    response.headers.get(name).map(field_text)
}

/// Whether an answer states, by digest, which bytes it is about, and whether these are those of `record`.
fn states_bytes_of(
    wanted: &Wanted,
    response: &UpstreamResponse,
    record: &ArtifactRecord,
) -> Option<bool> {
    let stated = wanted
        .format
        .digest_in_head(&wanted.spec.key_path, &response.headers)?;
    Some(
        record.headers.digest.as_ref() == Some(&stated)
            || record.blob().is_some_and(|blob| blob.digest == stated),
    )
}

/// Whether a 304 is about the copy that was asked after.
fn is_about(wanted: &Wanted, response: &UpstreamResponse, record: &ArtifactRecord) -> bool {
    states_bytes_of(wanted, response, record)
        .unwrap_or_else(|| confirms(text(response, header::ETAG).as_deref(), record))
}

pub(crate) fn head_verdict(
    wanted: &Wanted,
    response: &UpstreamResponse,
    record: &ArtifactRecord,
) -> HeadVerdict {
    if matches!(response.status, StatusCode::OK | StatusCode::NOT_MODIFIED)
        && let Some(held) = states_bytes_of(wanted, response, record)
    {
        return if held {
            HeadVerdict::Unchanged
        } else {
            HeadVerdict::Changed
        };
    }
    let length = text(response, header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
    let (etag, date) = (
        text(response, header::ETAG),
        text(response, header::LAST_MODIFIED),
    );
    judge_head(
        response.status.as_u16(),
        etag.as_deref(),
        date.as_deref(),
        length,
        record,
    )
}

/// The record of a generation's member that its upstream does not have.
pub(crate) fn negative(wanted: &Wanted, status: u16, now: UnixMillis) -> ArtifactRecord {
    ArtifactRecord {
        content: Content::Negative { status },
        headers: larder_core::StoredHeaders::default(),
        source_url: String::new(),
        published_at: None,
        first_seen_at: now,
        contacted_at: now,
        renewed_at: now,
        began_at: now,
        verified: wanted.spec.is_document,
    }
}

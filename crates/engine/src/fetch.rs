//! Step 5: ask the upstream, and settle what came of it.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode, header};
use larder_core::{
    ArtifactRecord, CacheStatus, Content, Fault, FaultKind, ForwardReason, HeadVerdict, Outcome, RevalidateWith, Settlement,
    Source, UnixMillis, judge_head, settle,
};
use larder_storage::OpenBlob;
use larder_upstream::{UpstreamError, UpstreamErrorKind, UpstreamResponse, retry_after};
use url::Url;

use crate::admission::Wanted;
use crate::commit::RecordChange;
use crate::counters::count;
use crate::download::{Filled, Stopped};
use crate::engine::Engine;
use crate::expectation::Expectation;
use crate::flight::{Flight, Settled, SettledBody};
use crate::mirrors::{Arrival, Ask, Mirror};
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
    fn failed(&mut self, wanted: &Wanted, mirror: Option<Arc<Mirror>>, place: Option<Url>, why: NoBody) {
        self.avoid.extend(mirror);
        let is_another_left = !self.avoid.is_empty() && Engine::has_mirror_beside(wanted, &self.avoid);
        self.failure = Some((why, is_another_left || !is_hint(wanted, place.as_ref())));
        if !is_another_left {
            // No mirror is left at this place; at another one they may have it.
            self.avoid.clear();
            self.spoilt.add(place);
        }
    }
}

/// For clients of an upstream that refuses more requests for now and does not say for how long.
const UNTOLD_RETRY_AFTER: Duration = Duration::from_mins(1);

/// Why there is no body: the outcome for `settle`, and the words for the user.
#[derive(Debug, Clone)]
pub(crate) struct NoBody {
    pub(crate) outcome: Outcome,
    pub(crate) message: String,
    pub(crate) code: &'static str,
}

impl NoBody {
    pub(crate) fn unusable(code: &'static str, message: impl Into<String>) -> Self {
        Self { outcome: Outcome::Unusable, message: message.into(), code }
    }

    /// Whether it is the fault of the place that was asked, so that another may have the right body.
    fn is_of_the_mirror(&self) -> bool {
        let of_the_body = ["digest_mismatch", "malformed_document", "unasked_coding"];
        self.code.starts_with("upstream_") || of_the_body.contains(&self.code)
    }
}

impl From<UpstreamError> for NoBody {
    fn from(error: UpstreamError) -> Self {
        let (outcome, code) = match error.kind {
            UpstreamErrorKind::Unreachable => (Outcome::Unreachable, "upstream_unreachable"),
            UpstreamErrorKind::Offline => (Outcome::Unreachable, "offline"),
            UpstreamErrorKind::TimedOut => (Outcome::TimedOut, "upstream_timeout"),
            UpstreamErrorKind::RefusedRedirect => (Outcome::Unusable, "redirect_refused"),
            UpstreamErrorKind::RefusedAddress => (Outcome::Unusable, "address_refused"),
            // The registry's answer was 401: a statement about rights, which no old copy covers up.
            UpstreamErrorKind::Unauthorized => (Outcome::Denied(StatusCode::UNAUTHORIZED.as_u16()), "upstream_login"),
            UpstreamErrorKind::Protocol => (Outcome::Unusable, "upstream_protocol"),
            UpstreamErrorKind::Truncated => (Outcome::Unusable, "upstream_cut"),
        };
        Self { outcome, message: error.message, code }
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
            let head = Ask { method: Method::HEAD, unless_changed: Some(&copy.0), dispensable, ..Ask::default() };
            // Where a document says where the file is, this place is a guess, and its refusal says nothing: the GET asks all places.
            let is_guess = !wanted.spec.is_document && is_hint(wanted, None);
            match self.ask(wanted, &head).await {
                Err(_) if is_guess => {}
                Err(no_body) => return self.settle_failure(wanted, Some(copy), &no_body),
                Ok(Arrival { response, failed, .. }) => match head_verdict(wanted, &response, &copy.0) {
                    HeadVerdict::Unchanged => return Ok(self.renew(wanted, copy)),
                    HeadVerdict::Changed => {
                        let stated = wanted.format.digest_in_head(&wanted.spec.key_path, &response.headers);
                        if let Some(stated) = stated
                            && let Some(settled) = self.switch_to(wanted, &stated, &copy.0).await
                        {
                            count(&wanted.entry.counters.revalidated);
                            let change = RecordChange::Renew { record: Arc::clone(&settled.record) };
                            return Ok((settled, Some(change), prior));
                        }
                        return self.fetch(flight, wanted, prior, Some(copy), false).await;
                    }
                    HeadVerdict::AskWithGet => {}
                    HeadVerdict::Other if is_guess => {}
                    HeadVerdict::Other => {
                        let no_body = failed.unwrap_or_else(|| status_outcome(wanted, &response, self.now()));
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
        mut copy: Option<Copy>,
        conditional: bool,
    ) -> Flown {
        if let (Some(no_body), Some(_)) = (self.asked_to_wait(wanted), &copy) {
            return self.settle_failure(wanted, copy, &no_body);
        }
        // Files wait for their documents, so documents must never wait for files; a document that heads a generation waits for the files
        // of it, so these must not wait either.
        let waited_for = wanted.spec.is_document || wanted.format.generation(&wanted.spec.key_path).is_some();
        let _permit = if waited_for { None } else { self.downloads.acquire().await.ok() };
        let mut tried = Tried::default();
        loop {
            let mut expectation = self.expect(wanted).await;
            let fallback = copy.as_ref().map(|copy| Fallback { copy, conditional });
            let found = self.open_body(wanted, &mut expectation, fallback, &tried).await;
            let Some(Found { answer, is_final }) = found else {
                return self.settle_failure(wanted, copy, &tried.failure.map_or_else(nothing_left, |(no_body, _)| no_body));
            };
            let before = tried.failure.take_if(|(_, counts)| *counts).map(|(no_body, _)| no_body);
            let arrival = match answer {
                Ok(arrival) => arrival,
                Err(no_body) => return self.settle_failure(wanted, copy, &before.unwrap_or(no_body)),
            };
            let status = arrival.response.status;
            if status == StatusCode::NOT_MODIFIED
                && let Some(copy) = copy.take_if(|_| conditional)
            {
                return Ok(self.renew(wanted, copy));
            }
            if status != StatusCode::OK {
                let no_body = no_body_of(wanted, &arrival, copy.is_some(), self.now());
                if matches!(no_body.outcome, Outcome::Missing(_)) {
                    self.refresh_generation_of(wanted).await;
                }
                let flown = self.settle_failure(wanted, copy, &before.unwrap_or(no_body));
                return if is_final { flown } else { flown.map_err(|(fault, _)| (fault, None)) };
            }
            let (mirror, place) = (arrival.mirror.clone(), arrival.claimed.clone());
            let no_body = match self.fill(flight, wanted, prior.as_deref(), arrival, expectation).await {
                Ok(filled) => return Ok(Self::arrived(filled, copy)),
                Err(Stopped::Held { fault, record }) => {
                    return Err((fault, Some(RecordChange::Renew { record: Arc::new(record) })));
                }
                Err(Stopped::NoBody(no_body)) => no_body,
            };
            count(&wanted.entry.counters.fills_failed);
            if !no_body.is_of_the_mirror() {
                return self.settle_failure(wanted, copy, &before.unwrap_or(no_body));
            }
            if let Some(mirror) = &mirror {
                self.put_aside(wanted, mirror, &no_body);
            }
            tried.failed(wanted, mirror, place, before.unwrap_or(no_body));
        }
    }

    /// A new body, as those get it who waited for it.
    fn arrived(filled: Filled, copy: Option<Copy>) -> Arrived {
        let forward = if copy.is_some() { ForwardReason::Stale } else { ForwardReason::UriMiss };
        let status = CacheStatus {
            forward: Some(forward),
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
    fn may_serve(&self, wanted: &Wanted, copy: &ArtifactRecord) -> bool {
        let policy = &wanted.entry.repository.cache;
        matches!(settle(Outcome::Unreachable, Some(copy), wanted.class, policy, self.now()), Settlement::ServeStale { .. })
    }

    /// The upstream has said when to come back, and copies may serve until then (`stale.on_status`): it is not asked.
    fn asked_to_wait(&self, wanted: &Wanted) -> Option<NoBody> {
        let status = StatusCode::TOO_MANY_REQUESTS.as_u16();
        // Where there is somebody else to ask, that one is asked.
        if wanted.entry.mirrors.len() > 1 {
            return None;
        }
        let pause = wanted.entry.quota.busy_for(self.now())?;
        let listed = wanted.entry.repository.cache.stale_on_status.contains(&status);
        listed.then(|| NoBody {
            outcome: Outcome::Refused { status, retry_after: Some(pause) },
            message: "the upstream answered 429 a moment ago and said when to come back".to_owned(),
            code: "upstream_status",
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
        let unless_changed = fallback.filter(|fallback| fallback.conditional).map(|fallback| fallback.copy.0.as_ref());
        let ask = Ask { unless_changed, avoid: &tried.avoid, dispensable, ..Ask::default() };
        self.find(wanted, expectation, &ask, &tried.spoilt).await
    }

    /// The copy is unchanged: its life starts anew.
    fn renew(&self, wanted: &Wanted, (record, open): Copy) -> Arrived {
        count(&wanted.entry.counters.revalidated);
        let now = self.now();
        let renewed = Arc::new(ArtifactRecord { renewed_at: now, contacted_at: now, ..ArtifactRecord::clone(&record) });
        let status = CacheStatus { forward: Some(ForwardReason::Stale), forward_status: Some(304), ..CacheStatus::default() };
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
    pub(crate) fn settle_failure(&self, wanted: &Wanted, copy: Option<Copy>, no_body: &NoBody) -> Flown {
        let now = self.now();
        let policy = &wanted.entry.repository.cache;
        let record = copy.as_ref().map(|(record, _)| record.as_ref());
        match (settle(no_body.outcome, record, wanted.class, policy, now), copy) {
            (Settlement::ServeStale { renew }, Some((record, open))) => {
                tracing::warn!(key = %wanted.key, reason = no_body.code, detail = no_body.message, "the expired copy is served");
                count(&wanted.entry.counters.stale_served);
                let record =
                    if renew { Arc::new(ArtifactRecord { renewed_at: now, ..ArtifactRecord::clone(&record) }) } else { record };
                let status = CacheStatus { hit: true, detail: Some("stale-error"), ..CacheStatus::default() };
                let change = renew.then(|| RecordChange::Renew { record: Arc::clone(&record) });
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
            (Settlement::Renew, Some(copy)) => Ok(self.renew(wanted, copy)),
            (Settlement::PassOn { status, keep_copy, negative_ttl, retry_after }, copy) => {
                let fault = passed_on(wanted, status, retry_after);
                let change = match (negative_ttl, keep_copy, copy) {
                    (Some(_), false, copy) => {
                        Some(RecordChange::Renew { record: Arc::new(negative(wanted, status, copy.as_ref(), now)) })
                    }
                    (None, false, Some(_)) => Some(RecordChange::Drop),
                    _ => None,
                };
                if matches!(change, Some(RecordChange::Drop)) {
                    wanted.entry.bump();
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

/// Wherever a body may be, it was wrong.
fn nothing_left() -> NoBody {
    NoBody::unusable("internal", "a download failed without a reason")
}

fn text(response: &UpstreamResponse, name: header::HeaderName) -> Option<&str> {
    response.headers.get(name)?.to_str().ok()
}

/// Why an answer other than 200 and an expected 304 has no body. Where another mirror could not be asked, one that has not got the
/// file does not end the life of a copy.
fn no_body_of(wanted: &Wanted, arrival: &Arrival, has_copy: bool, now: UnixMillis) -> NoBody {
    if arrival.response.status == StatusCode::NOT_MODIFIED {
        return NoBody::unusable("upstream_protocol", "the upstream answered 304 to a request without conditions");
    }
    match &arrival.failed {
        Some(failed) if has_copy => failed.clone(),
        _ => status_outcome(wanted, &arrival.response, now),
    }
}

pub(crate) fn head_verdict(wanted: &Wanted, response: &UpstreamResponse, record: &ArtifactRecord) -> HeadVerdict {
    let stated = wanted.format.digest_in_head(&wanted.spec.key_path, &response.headers);
    if let Some(stated) = stated.as_ref().filter(|_| response.status == StatusCode::OK) {
        let held = record.headers.digest.as_ref() == Some(stated) || record.blob().is_some_and(|blob| blob.digest == *stated);
        return if held { HeadVerdict::Unchanged } else { HeadVerdict::Changed };
    }
    let length = text(response, header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
    judge_head(response.status.as_u16(), text(response, header::ETAG), text(response, header::LAST_MODIFIED), length, record)
}

/// What a status other than 200 and an expected 304 means.
pub(crate) fn status_outcome(wanted: &Wanted, response: &UpstreamResponse, now: UnixMillis) -> NoBody {
    let status = response.status.as_u16();
    let retry_after = retry_after(&response.headers, now);
    let outcome = match status {
        404 | 410 => Outcome::Missing(status),
        401 | 403 | 407 | 451 => Outcome::Denied(status),
        400..=599 => Outcome::Refused { status, retry_after },
        _ => Outcome::Unusable,
    };
    let hint = match status {
        401 | 407 => "; check the repository's username and password",
        _ => "",
    };
    let message = format!("the upstream of repository {} answered {status}{hint}", wanted.entry.repository.name);
    let code = if matches!(status, 401 | 407) { "upstream_unauthorized" } else { "upstream_status" };
    NoBody { outcome, message, code }
}

/// The upstream's own status, passed on.
pub(crate) fn passed_on(wanted: &Wanted, status: u16, retry_after: Option<Duration>) -> Fault {
    let code = match status {
        404 | 410 => wanted.format.missing_code(&wanted.spec.key_path),
        429 => "rate_limited",
        _ => "upstream_status",
    };
    let message =
        format!("the upstream of repository {} answered {status} for {}", wanted.entry.repository.name, wanted.spec.key_path);
    // Who is told to come back later must be told when.
    let retry_after = retry_after.or((status == 429).then_some(UNTOLD_RETRY_AFTER));
    Fault::new(FaultKind::Upstream(status), code, message)
        .in_repository(&wanted.entry.repository.name)
        .by_rule("upstream")
        .retry_after(retry_after)
}

fn failed(wanted: &Wanted, timed_out: bool, no_body: &NoBody) -> Fault {
    let kind = if timed_out { FaultKind::GatewayTimeout } else { FaultKind::BadGateway };
    let message = format!("{} (asked for {})", no_body.message, wanted.spec.key_path);
    Fault::new(kind, no_body.code, message).in_repository(&wanted.entry.repository.name).by_rule("upstream")
}

pub(crate) fn negative(wanted: &Wanted, status: u16, copy: Option<&Copy>, now: UnixMillis) -> ArtifactRecord {
    ArtifactRecord {
        content: Content::Negative { status },
        headers: larder_core::StoredHeaders::default(),
        source_url: String::new(),
        published_at: None,
        first_seen_at: copy.map_or(now, |(record, _)| record.first_seen_at),
        contacted_at: now,
        renewed_at: now,
        began_at: now,
        verified: wanted.spec.is_document,
    }
}

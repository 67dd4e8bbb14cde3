//! Step 5: ask the upstream, and settle what came of it.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode, header};
use larder_core::{
    ArtifactRecord, CacheStatus, Content, Fault, FaultKind, ForwardReason, HeadVerdict, Outcome, RevalidateWith, Settlement,
    Source, UnixMillis, join_url, judge_head, settle,
};
use larder_formats::SourceBase;
use larder_storage::OpenBlob;
use larder_upstream::{Conditions, UpstreamError, UpstreamErrorKind, UpstreamRequest, UpstreamResponse, retry_after};
use url::Url;

use crate::admission::Wanted;
use crate::commit::RecordChange;
use crate::counters::count;
use crate::engine::Engine;
use crate::expectation::Expectation;
use crate::flight::{Flight, Settled, SettledBody};
use crate::obtain::{Arrived, Flown};

/// An expired copy with its open file.
pub(crate) type Copy = (Arc<ArtifactRecord>, OpenBlob);

/// For clients of an upstream that refuses more requests for now and does not say for how long.
const UNTOLD_RETRY_AFTER: Duration = Duration::from_mins(1);

/// Why there is no body: the outcome for `settle`, and the words for the user.
#[derive(Debug)]
pub(crate) struct NoBody {
    pub(crate) outcome: Outcome,
    pub(crate) message: String,
    pub(crate) code: &'static str,
}

impl NoBody {
    pub(crate) fn unusable(code: &'static str, message: impl Into<String>) -> Self {
        Self { outcome: Outcome::Unusable, message: message.into(), code }
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
            UpstreamErrorKind::Unauthorized => (Outcome::Unusable, "upstream_login"),
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
            let mut request = match Self::upstream_request(wanted, Method::HEAD, None) {
                Ok(request) => request,
                Err(no_body) => return self.settle_failure(wanted, Some(copy), &no_body),
            };
            request.conditions = conditions_of(&copy.0);
            match self.send(wanted, request).await {
                Err(error) => return self.settle_failure(wanted, Some(copy), &error.into()),
                Ok(response) => match head_verdict(wanted, &response, &copy.0) {
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
                    HeadVerdict::Other => {
                        let no_body = status_outcome(wanted, &response, self.now());
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
        if let (Some(no_body), Some(_)) = (self.asked_to_wait(wanted), &copy) {
            return self.settle_failure(wanted, copy, &no_body);
        }
        // Files wait for their documents, so documents must never wait for files.
        let _permit = if wanted.spec.is_document { None } else { self.downloads.acquire().await.ok() };
        let mut expectation = self.expect(wanted).await;
        let response = match self.open_body(wanted, &mut expectation, copy.as_ref().filter(|_| conditional)).await {
            Ok(response) => response,
            Err(no_body) => return self.settle_failure(wanted, copy, &no_body),
        };
        if response.status == StatusCode::NOT_MODIFIED {
            return match copy {
                Some(copy) if conditional => Ok(self.renew(wanted, copy)),
                copy => {
                    let no_body =
                        NoBody::unusable("upstream_protocol", "the upstream answered 304 to a request without conditions");
                    self.settle_failure(wanted, copy, &no_body)
                }
            };
        }
        if response.status != StatusCode::OK {
            let no_body = status_outcome(wanted, &response, self.now());
            return self.settle_failure(wanted, copy, &no_body);
        }
        match self.fill(flight, wanted, prior.as_deref(), response, expectation).await {
            Ok(filled) => {
                let forward = if copy.is_some() { ForwardReason::Stale } else { ForwardReason::UriMiss };
                let status = CacheStatus {
                    forward: Some(forward),
                    forward_status: Some(200),
                    stored: filled.change.is_some(),
                    detail: filled.detail,
                    ..CacheStatus::default()
                };
                let settled = Settled { record: filled.record, body: filled.body, status, source: Source::Remote, stale: false };
                Ok((settled, filled.change, copy.map(|(record, _)| record)))
            }
            Err(crate::download::Stopped::Held { fault, record }) => {
                Err((fault, Some(RecordChange::Renew { record: Arc::new(record) })))
            }
            Err(crate::download::Stopped::NoBody(no_body)) => {
                count(&wanted.entry.counters.fills_failed);
                self.settle_failure(wanted, copy, &no_body)
            }
        }
    }

    /// The upstream has said when to come back, and copies may serve until then (`stale.on_status`): it is not asked.
    fn asked_to_wait(&self, wanted: &Wanted) -> Option<NoBody> {
        let status = StatusCode::TOO_MANY_REQUESTS.as_u16();
        let pause = wanted.entry.quota.busy_for(self.now())?;
        let listed = wanted.entry.repository.cache.stale_on_status.contains(&status);
        listed.then(|| NoBody {
            outcome: Outcome::Refused { status, retry_after: Some(pause) },
            message: "the upstream answered 429 a moment ago and said when to come back".to_owned(),
            code: "upstream_status",
        })
    }

    /// Sends the GET; where the usual place has nothing, the place that the document names is tried.
    async fn open_body(
        self: &Arc<Self>,
        wanted: &Arc<Wanted>,
        expectation: &mut Expectation,
        conditional: Option<&Copy>,
    ) -> Result<UpstreamResponse, NoBody> {
        let claimed = match expectation {
            Expectation::Known(claim) => Url::parse(&claim.url).ok(),
            Expectation::None | Expectation::Pending(_) => None,
        };
        let mut request = Self::upstream_request(wanted, Method::GET, claimed)?;
        if let Some((record, _)) = conditional {
            request.conditions = conditions_of(record);
        }
        let asked = request.url.clone();
        let response = self.send(wanted, request).await?;
        if response.status != StatusCode::NOT_FOUND || !matches!(expectation, Expectation::Pending(_)) {
            return Ok(response);
        }
        match expectation.resolve(self, wanted).await.and_then(|claim| Url::parse(&claim.url).ok()) {
            Some(url) if url != asked => Ok(self.send(wanted, Self::upstream_request(wanted, Method::GET, Some(url))?).await?),
            _ => Ok(response),
        }
    }

    /// A request for a source; `claimed` is a URL that a document gave, in place of the usual one.
    pub(crate) fn upstream_request(wanted: &Wanted, method: Method, claimed: Option<Url>) -> Result<UpstreamRequest, NoBody> {
        let repository = &wanted.entry.repository;
        let bad = |message: String| NoBody::unusable("bad_url", message);
        let settings = repository.upstream.as_ref().ok_or_else(|| bad("this repository has no upstream".to_owned()))?;
        let spec = &wanted.spec;
        let join = |base: &Url| join_url(base, &spec.path, spec.query.as_deref()).map_err(|error| bad(error.to_string()));
        let (url, learned) = match (claimed, &spec.base) {
            (Some(url), _) => (url, true),
            (None, SourceBase::External(url)) => (Url::clone(url), true),
            (None, SourceBase::Files) => {
                let base = settings.base_urls.first().ok_or_else(|| bad("this repository has no base_url".to_owned()))?;
                (join(base)?, false)
            }
            (None, SourceBase::Index) => (join(&index_parent(&settings.index_url))?, false),
        };
        let learned = learned && !settings.is_configured_origin(&url);
        Ok(UpstreamRequest {
            repository: Arc::clone(repository),
            method,
            url,
            learned,
            accept: spec.accept,
            conditions: Conditions::default(),
            resume: None,
            headers: http::HeaderMap::new(),
            body: None,
        })
    }

    pub(crate) async fn send(&self, wanted: &Wanted, request: UpstreamRequest) -> Result<UpstreamResponse, UpstreamError> {
        count(&wanted.entry.counters.upstream_requests);
        let answer = self.upstream.send(request).await;
        match &answer {
            Ok(response) => {
                let now = self.now();
                wanted.entry.quota.note(&response.headers);
                let pause = retry_after(&response.headers, now).filter(|_| response.status == StatusCode::TOO_MANY_REQUESTS);
                if let Some(pause) = pause {
                    wanted.entry.quota.busy(now.plus(pause));
                }
            }
            Err(_) => count(&wanted.entry.counters.upstream_errors),
        }
        answer
    }

    /// The copy is unchanged: its life starts anew.
    fn renew(&self, wanted: &Wanted, (record, open): Copy) -> Arrived {
        count(&wanted.entry.counters.revalidated);
        let now = self.now();
        let renewed = Arc::new(ArtifactRecord { renewed_at: now, contacted_at: now, ..ArtifactRecord::clone(&record) });
        let status = CacheStatus { forward: Some(ForwardReason::Stale), forward_status: Some(304), ..CacheStatus::default() };
        let settled =
            Settled { record: Arc::clone(&renewed), body: SettledBody::Blob(open), status, source: Source::Cache, stale: false };
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
                    Settled { record, body: SettledBody::Blob(open), status, source: Source::Cache, stale: !renew },
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

/// The parent of a simple root: `https://host/root/` for `https://host/root/simple/`.
fn index_parent(index_url: &Url) -> Url {
    let mut parent = index_url.clone();
    let path = index_url.path().trim_end_matches('/');
    let end = path.rfind('/').map_or(0, |at| at + 1);
    parent.set_path(&path[..end]);
    parent
}

fn conditions_of(record: &ArtifactRecord) -> Conditions {
    Conditions { if_none_match: record.headers.etag.clone(), if_modified_since: record.headers.last_modified.clone() }
}

fn text(response: &UpstreamResponse, name: header::HeaderName) -> Option<&str> {
    response.headers.get(name)?.to_str().ok()
}

fn head_verdict(wanted: &Wanted, response: &UpstreamResponse, record: &ArtifactRecord) -> HeadVerdict {
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

fn negative(wanted: &Wanted, status: u16, copy: Option<&Copy>, now: UnixMillis) -> ArtifactRecord {
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

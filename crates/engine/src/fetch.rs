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
        let prior = Some(Arc::clone(&copy.0));
        if with == RevalidateWith::Head {
            let mut request = match Self::upstream_request(wanted, Method::HEAD, None) {
                Ok(request) => request,
                Err(no_body) => return self.settle_failure(wanted, Some(copy), &no_body),
            };
            request.conditions = conditions_of(&copy.0);
            match self.send(wanted, request).await {
                Err(error) => return self.settle_failure(wanted, Some(copy), &error.into()),
                Ok(response) => match head_verdict(&response, &copy.0) {
                    HeadVerdict::Unchanged => return Ok(self.renew(wanted, copy)),
                    HeadVerdict::Changed => return self.fetch(flight, wanted, prior, Some(copy), false).await,
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
        // Files wait for their documents, so documents must never wait for files.
        // So does a document that heads a generation for the files of it.
        let waited_for = wanted.spec.is_document || wanted.format.generation(&wanted.spec.key_path).is_some();
        let _permit = if waited_for { None } else { self.downloads.acquire().await.ok() };
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
            if matches!(no_body.outcome, Outcome::Missing(_)) {
                self.refresh_generation_of(wanted).await;
            }
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
                let settled = Settled {
                    record: filled.record,
                    body: filled.body,
                    status,
                    source: Source::Remote,
                    stale: false,
                    document: filled.document,
                };
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
        let response = match self.send(wanted, request).await {
            answer if conditional.is_none() && is_no_file(&answer) => {
                self.ask_usual_place(wanted, expectation, &asked, answer).await?
            }
            answer => answer?,
        };
        if response.status != StatusCode::NOT_FOUND || !matches!(expectation, Expectation::Pending(_)) {
            return Ok(response);
        }
        match expectation.resolve(self, wanted).await.and_then(|claim| Url::parse(&claim.url).ok()) {
            Some(url) if url != asked => Ok(self.send(wanted, Self::upstream_request(wanted, Method::GET, Some(url))?).await?),
            _ => Ok(response),
        }
    }

    /// A document has led to a server that does not have the file (any more): the usual place is tried, if a digest will tell
    /// whether it has the right one.
    async fn ask_usual_place(
        self: &Arc<Self>,
        wanted: &Arc<Wanted>,
        expectation: &Expectation,
        asked: &Url,
        answer: Result<UpstreamResponse, UpstreamError>,
    ) -> Result<UpstreamResponse, UpstreamError> {
        let proven = matches!(expectation, Expectation::Known(claim) if !claim.digests.is_empty());
        match Self::upstream_request(wanted, Method::GET, None) {
            Ok(usual) if proven && usual.url != *asked => match self.send(wanted, usual).await {
                Ok(response) if response.status == StatusCode::OK => Ok(response),
                _ => answer,
            },
            _ => answer,
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
        if answer.is_err() {
            count(&wanted.entry.counters.upstream_errors);
        }
        answer
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
            stale: false,
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
                        stale: !renew,
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

/// The parent of a simple root: `https://host/root/` for `https://host/root/simple/`.
fn index_parent(index_url: &Url) -> Url {
    let mut parent = index_url.clone();
    let path = index_url.path().trim_end_matches('/');
    let end = path.rfind('/').map_or(0, |at| at + 1);
    parent.set_path(&path[..end]);
    parent
}

pub(crate) fn conditions_of(record: &ArtifactRecord) -> Conditions {
    Conditions { if_none_match: record.headers.etag.clone(), if_modified_since: record.headers.last_modified.clone() }
}

/// Whether an answer says that the file is not to be had there.
fn is_no_file(answer: &Result<UpstreamResponse, UpstreamError>) -> bool {
    match answer {
        Ok(response) => matches!(response.status.as_u16(), 404 | 410 | 500..=599),
        Err(error) => matches!(error.kind, UpstreamErrorKind::Unreachable | UpstreamErrorKind::TimedOut),
    }
}

fn text(response: &UpstreamResponse, name: header::HeaderName) -> Option<&str> {
    response.headers.get(name)?.to_str().ok()
}

pub(crate) fn head_verdict(response: &UpstreamResponse, record: &ArtifactRecord) -> HeadVerdict {
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
    NoBody { outcome, message, code: "upstream_status" }
}

/// The upstream's own status, passed on.
pub(crate) fn passed_on(wanted: &Wanted, status: u16, retry_after: Option<Duration>) -> Fault {
    let code = match status {
        404 | 410 => "not_found",
        429 => "rate_limited",
        _ => "upstream_status",
    };
    let message =
        format!("the upstream of repository {} answered {status} for {}", wanted.entry.repository.name, wanted.spec.key_path);
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

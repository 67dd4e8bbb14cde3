//! [`Upstream`] without a network: answers what a test told it to, piece by piece, and remembers what it was asked.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use larder_core::RepositoryName;
use tokio::sync::Notify;
use url::Url;

use crate::body::{BodyOrigin, BodyStream, Framing};
use crate::breaker::BreakerState;
use crate::error::{UpstreamError, UpstreamErrorKind};
use crate::{Conditions, Resume, Upstream, UpstreamRequest, UpstreamResponse};

/// What a [`ScriptedUpstream`] was asked.
#[derive(Debug, Clone)]
pub struct RecordedRequest {
    /// On whose behalf.
    pub repository: RepositoryName,
    /// The method.
    pub method: Method,
    /// The URL, query included.
    pub url: Url,
    /// Whether the URL came from a document.
    pub learned: bool,
    /// The `Accept` field.
    pub accept: Option<&'static str>,
    /// Validators.
    pub conditions: Conditions,
    /// The range asked for.
    pub resume: Option<Resume>,
    /// Fields passed through.
    pub headers: HeaderMap,
    /// The body.
    pub body: Option<Bytes>,
}

#[derive(Debug, Clone)]
enum Step {
    Chunk(Bytes),
    Pause(Duration),
    Wait(Arc<Notify>),
    Fail(UpstreamErrorKind),
}

/// One answer: a head, then steps of the body in the order in which they were added.
#[derive(Debug, Clone)]
pub struct ScriptedReply {
    head: Result<StatusCode, UpstreamErrorKind>,
    head_steps: Vec<Step>,
    headers: HeaderMap,
    final_url: Option<Url>,
    steps: Vec<Step>,
}

impl ScriptedReply {
    /// A response with this status and, so far, no body.
    ///
    /// # Panics
    /// `status` is not a status code.
    #[expect(clippy::expect_used, reason = "a test's own script is wrong")]
    pub fn status(status: u16) -> Self {
        let status = StatusCode::from_u16(status).expect("a status code");
        Self {
            head: Ok(status),
            head_steps: Vec::new(),
            headers: HeaderMap::new(),
            final_url: None,
            steps: Vec::new(),
        }
    }

    /// Status 200 with `body` and its true `Content-Length`.
    pub fn ok(body: impl Into<Bytes>) -> Self {
        let body = body.into();
        Self::status(200)
            .header("content-length", &body.len().to_string())
            .chunk(body)
    }

    /// No head arrives; `send` fails.
    pub fn error(kind: UpstreamErrorKind) -> Self {
        Self {
            head: Err(kind),
            ..Self::status(200)
        }
    }

    /// Adds a header field. `Content-Length` is never added on its own: without it the body ends by its end mark.
    ///
    /// # Panics
    /// The name or value is malformed.
    #[expect(clippy::expect_used, reason = "a test's own script is wrong")]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::try_from(name).expect("a field name");
        self.headers
            .append(name, HeaderValue::from_str(value).expect("a field value"));
        self
    }

    /// As if redirects had led to `url`.
    pub fn final_url(mut self, url: Url) -> Self {
        self.final_url = Some(url);
        self
    }

    /// The head comes only after `delay`.
    pub fn head_after(mut self, delay: Duration) -> Self {
        self.head_steps.push(Step::Pause(delay));
        self
    }

    /// The head comes only after `gate` was notified.
    pub fn head_behind(mut self, gate: &Arc<Notify>) -> Self {
        self.head_steps.push(Step::Wait(Arc::clone(gate)));
        self
    }

    /// The body's next bytes.
    pub fn chunk(mut self, bytes: impl Into<Bytes>) -> Self {
        self.steps.push(Step::Chunk(bytes.into()));
        self
    }

    /// The body pauses.
    pub fn pause(mut self, delay: Duration) -> Self {
        self.steps.push(Step::Pause(delay));
        self
    }

    /// The body waits until `gate` was notified.
    pub fn wait(mut self, gate: &Arc<Notify>) -> Self {
        self.steps.push(Step::Wait(Arc::clone(gate)));
        self
    }

    /// The body breaks off with an error.
    pub fn fail(mut self, kind: UpstreamErrorKind) -> Self {
        self.steps.push(Step::Fail(kind));
        self
    }
}

type Answer = dyn Fn(&RecordedRequest) -> ScriptedReply + Send + Sync;

#[derive(Default)]
struct State {
    queue: VecDeque<ScriptedReply>,
    requests: Vec<RecordedRequest>,
    health: HashMap<RepositoryName, BreakerState>,
}

/// An upstream that follows a script: queued replies first, then the function it was made with. With neither, it is unreachable.
pub struct ScriptedUpstream {
    state: Mutex<State>,
    answer: Option<Box<Answer>>,
}

impl ScriptedUpstream {
    /// Answers from the queue only.
    pub fn new() -> Self {
        Self {
            state: Mutex::default(),
            answer: None,
        }
    }

    /// Answers by `answer` whatever the queue does not.
    pub fn answering(
        answer: impl Fn(&RecordedRequest) -> ScriptedReply + Send + Sync + 'static,
    ) -> Self {
        Self {
            state: Mutex::default(),
            answer: Some(Box::new(answer)),
        }
    }

    /// Queues the answer to the next unanswered request.
    pub fn push(&self, reply: ScriptedReply) {
        self.state().queue.push_back(reply);
    }

    /// All requests so far, oldest first.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.state().requests.clone()
    }

    /// What [`Upstream::health`] says of `repository`.
    pub fn set_health(&self, repository: RepositoryName, state: BreakerState) {
        self.state().health.insert(repository, state);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_reply(&self, request: &RecordedRequest) -> Option<ScriptedReply> {
        let mut state = self.state();
        state.requests.push(request.clone());
        let queued = state.queue.pop_front();
        drop(state);
        queued.or_else(|| self.answer.as_ref().map(|answer| answer(request)))
    }
}

impl Default for ScriptedUpstream {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ScriptedUpstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedUpstream")
            .field("requests", &self.state().requests.len())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Upstream for ScriptedUpstream {
    /// Honours `offline` and `timeouts.read` like the network does; follows no redirects.
    async fn send(&self, request: UpstreamRequest) -> Result<UpstreamResponse, UpstreamError> {
        let name = request.repository.name.clone();
        let settings = request.repository.upstream();
        if settings.is_some_and(|settings| settings.offline) {
            return Err(UpstreamError::at(
                UpstreamErrorKind::Offline,
                &name,
                &request.url,
                "offline",
            ));
        }
        let read_timeout = settings.map(|settings| settings.read_timeout);
        let method = request.method.clone();
        let recorded = RecordedRequest {
            repository: name.clone(),
            method: request.method,
            url: request.url.clone(),
            learned: request.learned,
            accept: request.accept,
            conditions: request.conditions,
            resume: request.resume,
            headers: request.headers,
            body: request.body,
        };
        let reply = self
            .next_reply(&recorded)
            .unwrap_or_else(|| ScriptedReply::error(UpstreamErrorKind::Unreachable));
        let origin = BodyOrigin {
            repository: name,
            url: request.url,
        };
        for step in &reply.head_steps {
            take(step, &origin).await;
        }
        let status = reply.head.map_err(|kind| {
            UpstreamError::at(kind, &origin.repository, &origin.url, "scripted failure")
        })?;
        let bodiless = method == Method::HEAD || matches!(status.as_u16(), 204 | 304);
        let (declared, framing) = framing(&reply.headers, bodiless);
        let steps = if bodiless {
            VecDeque::new()
        } else {
            VecDeque::from(reply.steps)
        };
        let chunks = stream::unfold((steps, origin.clone()), |(mut steps, origin)| async move {
            loop {
                if let Some(item) = take(&steps.pop_front()?, &origin).await {
                    return Some((item, (steps, origin)));
                }
            }
        });
        let final_url = reply.final_url.unwrap_or_else(|| origin.url.clone());
        let body = BodyStream::new(chunks, declared, framing, read_timeout, origin);
        Ok(UpstreamResponse {
            status,
            headers: reply.headers,
            final_url,
            folder: None,
            body,
        })
    }

    fn health(&self, repository: &RepositoryName) -> BreakerState {
        self.state()
            .health
            .get(repository)
            .copied()
            .unwrap_or_default()
    }
}

/// How the length of a body is told, as a server with these headers would.
fn framing(headers: &HeaderMap, bodiless: bool) -> (Option<u64>, Framing) {
    let length = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    match length {
        _ if bodiless => (Some(0), Framing::Length),
        Some(length) => (Some(length), Framing::Length),
        None => (None, Framing::EndMark),
    }
}

impl BodyStream {
    /// A body that is all there, without a declared length.
    pub fn scripted(repository: RepositoryName, url: Url, bytes: Bytes) -> Self {
        let chunks = stream::iter([Ok(bytes)]);
        let origin = BodyOrigin { repository, url };
        Self::new(chunks, None, Framing::EndMark, None, origin)
    }
}

/// Does one step; gives what it adds to the body.
async fn take(step: &Step, origin: &BodyOrigin) -> Option<Result<Bytes, UpstreamError>> {
    match step {
        Step::Chunk(bytes) => return Some(Ok(bytes.clone())),
        Step::Fail(kind) => {
            return Some(Err(UpstreamError::at(
                *kind,
                &origin.repository,
                &origin.url,
                "scripted failure",
            )));
        }
        Step::Pause(delay) => tokio::time::sleep(*delay).await,
        Step::Wait(gate) => gate.notified().await,
    }
    None
}

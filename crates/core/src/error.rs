//! An error as a client will see it: whose fault it is, what happened, which repository and rule decided.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::error_code::ErrorCode;

/// What kind of failure this is. The HTTP status is chosen from it in `server/problem.rs` and nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// The request is malformed (400).
    BadRequest,
    /// Credentials are needed (401).
    Unauthorized,
    /// A rule forbids it (403).
    Forbidden,
    /// No such repository or artifact, or held back by quarantine (404).
    NotFound,
    /// The method does not apply to this repository (405).
    MethodNotAllowed,
    /// What is there already may not be replaced (409).
    Conflict,
    /// The request's body did not arrive in time (408).
    RequestTimeout,
    /// Precondition of a conditional write failed (412).
    PreconditionFailed,
    /// Request body above a limit (413).
    TooLarge,
    /// Path or target too long (414).
    UriTooLong,
    /// The request's host is not one that larder answers for (421).
    Misdirected,
    /// The client has to wait before it asks again (429).
    TooManyRequests,
    /// The upstream's own status is passed on (one that [keeps its status](crate::keeps_status)).
    Upstream(u16),
    /// The upstream cannot be reached, or answered something that cannot be used (502).
    BadGateway,
    /// The upstream did not answer in time (504).
    GatewayTimeout,
    /// Storage is full and the request needs it (507).
    InsufficientStorage,
    /// The request has passed this larder before (508).
    LoopDetected,
    /// Recognised but not built in this version (501).
    NotImplemented,
    /// Larder cannot serve this now (503).
    Unavailable,
    /// A fault of larder's own (500).
    Internal,
}

/// What whoever asked on behalf of others may do where a fault stands in the way. It is data beside the code, which is for users: no
/// decision depends on what a fault is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Recovery {
    /// Nothing: it is an answer, and no other is to be had.
    #[default]
    Final,
    /// What came was wrong: another place may have the right one.
    Elsewhere,
    /// What came broke off or made no sense: another try may help.
    Retry,
    /// No answer came in time, or nobody may be asked: a copy may take its place.
    Copy,
    /// Nobody could be reached: another try may help, and a copy may take its place.
    RetryOrCopy,
}

impl Recovery {
    /// Whether the same question may be answered if it is asked once more.
    pub fn may_retry(self) -> bool {
        matches!(self, Self::Retry | Self::RetryOrCopy)
    }

    /// Whether a copy may be given instead that is not quite what was asked for.
    pub fn may_use_copy(self) -> bool {
        matches!(self, Self::Copy | Self::RetryOrCopy)
    }
}

/// An error on its way to a client. `message` is for users: no internal paths, no secrets, no upstream HTML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What kind of failure.
    pub kind: FaultKind,
    /// Stable machine-readable word, such as `not_found`, `quarantined`, `pattern_denied`.
    pub code: ErrorCode,
    /// One or two sentences: what happened and what to do.
    pub message: String,
    /// The repository concerned.
    pub repository: Option<String>,
    /// The rule (configuration key, specification section) that decided.
    pub rule: Option<String>,
    /// For `Retry-After`.
    pub retry_after: Option<Duration>,
    /// For `X-Larder-Quarantine: until=…`, RFC 3339.
    pub held_until: Option<crate::UnixMillis>,
    /// What the body does not say.
    pub detail: Option<Box<FaultDetail>>,
    /// What may be done about it.
    pub recovery: Recovery,
}

/// What is said of a fault beside its body: in the reason phrase of HTTP/1.1 and in log lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FaultDetail {
    /// The message in few words of larder's own, where the message is long or repeats what an upstream wrote.
    pub brief: Option<Cow<'static, str>>,
    /// The upstream document or file concerned, as log lines show keys.
    pub key: Option<String>,
    /// What it would be called if it were not there.
    pub missing_code: Option<ErrorCode>,
    /// What the upstream answered: its status, or a few words of larder's own on why there is none.
    pub upstream: Option<Cow<'static, str>>,
}

impl Fault {
    /// A fault with only the essentials.
    pub fn new(kind: FaultKind, code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            kind,
            code,
            message: message.into(),
            repository: None,
            rule: None,
            retry_after: None,
            held_until: None,
            detail: None,
            recovery: Recovery::Final,
        }
    }

    /// Something that this version of larder knows of and cannot do (501): `what` says what that is.
    pub fn not_built(what: impl Into<String>) -> Self {
        Self::new(FaultKind::NotImplemented, ErrorCode::NotImplemented, what)
    }

    /// The same of a repository that loads and cannot be served, for `reason`.
    pub fn unbuilt(repository: &crate::RepositoryName, reason: &str) -> Self {
        let message = format!("{reason}; {repository} can be taken out of the configuration");
        Self::not_built(message).in_repository(repository)
    }

    /// Says what may be done about it.
    pub fn recoverable(mut self, recovery: Recovery) -> Self {
        self.recovery = recovery;
        self
    }

    /// Names the repository.
    pub fn in_repository(mut self, name: &crate::RepositoryName) -> Self {
        self.repository = Some(name.to_string());
        self
    }

    /// Names the rule that decided.
    pub fn by_rule(mut self, rule: impl Into<String>) -> Self {
        self.rule = Some(rule.into());
        self
    }

    /// Says the message in few words, for the reason phrase.
    pub fn briefly(mut self, brief: impl Into<Cow<'static, str>>) -> Self {
        self.detail_mut().brief = Some(brief.into());
        self
    }

    /// Names the document or file concerned, unless a nearer one is named already.
    pub fn about(mut self, key: &dyn fmt::Display) -> Self {
        self.detail_mut().key.get_or_insert_with(|| key.to_string());
        self
    }

    /// Says what it would be called if what is asked for were not there: what is held back is told so to clients that know no other word.
    pub fn missing_as(mut self, code: ErrorCode) -> Self {
        self.detail_mut().missing_code = Some(code);
        self
    }

    /// Notes what the upstream answered.
    pub fn upstream_said(mut self, said: impl Into<Cow<'static, str>>) -> Self {
        self.detail_mut().upstream = Some(said.into());
        self
    }

    /// The document or file concerned.
    pub fn key(&self) -> Option<&str> {
        self.detail.as_ref()?.key.as_deref()
    }

    /// What it would be called if what is asked for were not there, as far as that is known.
    pub fn missing_code(&self) -> Option<ErrorCode> {
        self.detail.as_ref()?.missing_code
    }

    /// What the upstream answered.
    pub fn upstream(&self) -> Option<&str> {
        self.detail.as_ref()?.upstream.as_deref()
    }

    fn detail_mut(&mut self) -> &mut FaultDetail {
        self.detail.get_or_insert_default()
    }

    /// Sets `Retry-After`.
    pub fn retry_after(mut self, after: Option<Duration>) -> Self {
        self.retry_after = after;
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Fault {}

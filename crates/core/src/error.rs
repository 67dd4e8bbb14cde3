//! An error as a client will see it: whose fault it is, what happened, which repository and rule decided.

use std::fmt;
use std::time::Duration;

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

/// An error on its way to a client. `message` is for users: no internal paths, no secrets, no upstream HTML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What kind of failure.
    pub kind: FaultKind,
    /// Stable machine-readable word, such as `not_found`, `quarantined`, `pattern_denied`.
    pub code: &'static str,
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
}

impl Fault {
    /// A fault with only the essentials.
    pub fn new(kind: FaultKind, code: &'static str, message: impl Into<String>) -> Self {
        Self { kind, code, message: message.into(), repository: None, rule: None, retry_after: None, held_until: None }
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

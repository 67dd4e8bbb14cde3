//! Why no response, or no whole body, came from an upstream. Knows how to say it without secrets; does not know HTTP statuses for
//! clients.

use larder_core::{RepositoryName, SafeUrl, shown};
use url::Url;

use crate::cause::Cause;

/// What went wrong with an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UpstreamErrorKind {
    /// No connection: name unknown, refused, reset before an answer, TLS failure, or the origin's circuit breaker is open.
    Unreachable,
    /// Connecting took longer than `timeouts.connect`, or no byte came for `timeouts.read`.
    TimedOut,
    /// A redirect that is not followed: too many, downgraded from https, with user-info, for a POST, or unreadable.
    RefusedRedirect,
    /// The address behind a redirect or a link is not public and not in `allow_private`.
    RefusedAddress,
    /// The repository is configured with `offline: true`.
    Offline,
    /// It had no turn: as many requests to the host are under way as the operator allows.
    Busy,
    /// The upstream's answer is not valid HTTP, or the request could not be built from the repository's settings.
    Protocol,
    /// The registry wants a token that cannot be had: its realm may not be asked, refuses the account, or gives no usable token.
    Unauthorized,
    /// The body ended before its declared end.
    Truncated,
}

impl UpstreamErrorKind {
    /// Whether nobody was asked, by the operator's word: it says nothing of the upstream.
    pub fn is_of_the_operator(self) -> bool {
        matches!(self, Self::Offline | Self::Busy)
    }

    /// What is wrong with the upstream where nothing more is known.
    pub(crate) fn usual_cause(self) -> Option<Cause> {
        match self {
            Self::Unreachable => Some(Cause::Refused),
            Self::TimedOut => Some(Cause::Timeout),
            Self::RefusedRedirect => Some(Cause::RedirectRefused),
            Self::RefusedAddress => Some(Cause::AddressRefused),
            Self::Offline | Self::Busy => None,
            Self::Protocol => Some(Cause::Protocol),
            Self::Unauthorized => Some(Cause::Unauthorized),
            Self::Truncated => Some(Cause::Cut),
        }
    }
}

/// An upstream failed. The message is for users: it holds no secret, no query string and no user-info.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("upstream of repository {repository}: {message}")]
pub struct UpstreamError {
    /// What kind of failure.
    pub kind: UpstreamErrorKind,
    /// What happened, and at which address.
    pub message: String,
    /// The repository whose upstream it was.
    pub repository: RepositoryName,
    /// What is wrong with the upstream; `None` if it was not asked.
    pub cause: Option<Cause>,
    /// Why it cannot be reached, in a few words of larder's own after "the upstream cannot be reached"; empty where there is no more to say.
    pub brief: &'static str,
}

impl UpstreamError {
    /// An error about `url`; shown as `what` after the URL, cut, without its query.
    pub(crate) fn at(
        kind: UpstreamErrorKind,
        repository: &RepositoryName,
        url: &Url,
        what: impl std::fmt::Display,
    ) -> Self {
        let message = format!("{}: {what}", shown(&SafeUrl(url.clone()).to_string()));
        Self {
            kind,
            message,
            repository: repository.clone(),
            cause: kind.usual_cause(),
            brief: "",
        }
    }

    /// An error of a body that was passed on by somebody else than the upstream at `url`.
    pub fn relayed(
        kind: UpstreamErrorKind,
        repository: &RepositoryName,
        url: &Url,
        what: &str,
    ) -> Self {
        Self::at(kind, repository, url, what).because(None)
    }

    /// The same, with a cause that the kind does not tell.
    pub(crate) fn because(self, cause: Option<Cause>) -> Self {
        Self { cause, ..self }
    }

    /// The same, with a few words for where there is no room for more.
    pub(crate) fn briefly(self, brief: &'static str) -> Self {
        Self { brief, ..self }
    }
}

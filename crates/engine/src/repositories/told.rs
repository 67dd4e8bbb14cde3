//! What an answer or a failure makes of a repository's places, and what the log is told of it.

use std::sync::Arc;

use larder_core::UnixMillis;
use larder_upstream::Cause;
use url::Url;

use super::RepositoryState;
use super::mirror::Mirror;
use super::upstreams::{Scope, UpstreamFailure, UpstreamState};

/// A failure on its way into the state.
pub(crate) struct Blow<'a> {
    pub(crate) scope: Scope,
    pub(crate) cause: Cause,
    pub(crate) reason: String,
    pub(crate) url: Option<&'a Url>,
}

impl RepositoryState {
    /// The state of one of its places, or of all those that its documents name.
    fn state_of<'a>(&'a self, mirror: Option<&'a Arc<Mirror>>) -> &'a UpstreamState {
        mirror.map_or(&*self.elsewhere, |mirror| mirror.state())
    }

    /// A place answered.
    pub(crate) fn answered(&self, mirror: Option<&Arc<Mirror>>, now: UnixMillis) {
        let Some(over) = self.state_of(mirror).answered(now) else {
            return;
        };
        // Which of many other hosts it was is not remembered.
        let Some(mirror) = mirror else { return };
        tracing::info!(
            repository = %self.repository.name, upstream = mirror.shown(), failures = over.failures, after_s = over.lasted.as_secs(),
            "the upstream answers again"
        );
    }

    /// A place failed, or did not give what it should.
    pub(crate) fn fell(
        &self,
        mirror: Option<&Arc<Mirror>>,
        key: &str,
        blow: Blow<'_>,
        now: UnixMillis,
    ) {
        let Blow {
            scope,
            cause,
            reason,
            url,
        } = blow;
        self.failures.count(cause);
        let scope = if mirror.is_some() {
            scope
        } else {
            Scope::Elsewhere
        };
        let origin = url.map(|url| url.origin().ascii_serialization());
        let state = self.state_of(mirror);
        if let Some(origin) = &origin {
            state.note_origin(origin.clone());
        }
        let upstream = mirror
            .map(|mirror| mirror.shown())
            .or(origin)
            .unwrap_or_default();
        let failure = UpstreamFailure {
            at: now,
            cause,
            reason: reason.clone(),
            key: key.to_owned(),
        };
        let (repository, cause) = (&self.repository.name, cause.as_str());
        let key = format!("{repository}/{key}");
        if state.failed(scope, failure) {
            tracing::warn!(
                %repository, upstream, cause, key, reason,
                "the upstream fails; this is said once for each cause, larder_upstream_failures_total counts on"
            );
        } else {
            tracing::debug!(%repository, upstream, cause, key, reason, "the upstream failed again");
        }
    }
}

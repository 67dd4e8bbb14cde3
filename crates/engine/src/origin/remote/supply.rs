//! Who is asked for the rest of a body that was cut: whoever has it among the mirrors of its source.

use std::sync::Arc;

use http::StatusCode;
use larder_upstream::Resume;
use url::Url;

use super::fields::stored_headers;
use super::mirrors::Mirrors;
use super::places::is_hint;
use super::query::{Arrival, UpstreamQuery};
use crate::fault::FetchError;
use crate::repositories::mirror::Mirror;
use crate::target::Target;
use crate::transfer::resume::{Answered, Cut, Supply};

/// The mirrors of a source, asked for the rest of a body that one of them has cut.
pub(super) struct MirrorSupply<'a> {
    pub(super) mirrors: &'a Arc<Mirrors>,
    pub(super) wanted: &'a Arc<Target>,
    /// The place that was asked instead of the usual one.
    pub(super) claimed: Option<Url>,
}

impl Supply for MirrorSupply<'_> {
    /// Asks from the first URL again: a signed one may have expired. Where another place than the usual one does not go on, the usual
    /// one is asked, if it has the last word or a digest will tell.
    async fn rest(&self, rest: Resume, cut: &Cut<'_>) -> Option<Answered> {
        let wanted = self.wanted;
        let mut ask = UpstreamQuery {
            claimed: self.claimed.clone(),
            resume: Some(rest),
            avoid: cut.avoid,
            ..UpstreamQuery::default()
        };
        let mut answer = self.mirrors.ask(wanted, &ask).await;
        let goes_on = |arrival: &Arrival| {
            matches!(
                arrival.response.status,
                StatusCode::OK | StatusCode::PARTIAL_CONTENT
            )
        };
        let has_usual =
            ask.claimed.is_some() && (cut.expects_digest || is_hint(wanted, ask.claimed.as_ref()));
        if has_usual && !answer.as_ref().is_ok_and(goes_on) {
            ask.claimed = None;
            answer = self.mirrors.ask(wanted, &ask).await;
        }
        let Arrival {
            response, mirror, ..
        } = answer.ok()?;
        Some(Answered {
            headers: stored_headers(wanted, &response.headers),
            response,
            mirror,
        })
    }

    fn put_aside(&self, mirror: &Arc<Mirror>, why: &FetchError) {
        self.mirrors.put_aside(self.wanted, mirror, why);
    }
}

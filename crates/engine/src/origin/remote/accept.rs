//! Which media types an upstream can be asked for.
//!
//! Some servers answer 406, or even 404, to who mentions a type that they do not know. They are asked once more with another `Accept`
//! ([`Format::accept_otherwise`](larder_formats::Format::accept_otherwise)); what they answer is remembered for a while, so that neither
//! each document of theirs nor each name that does not exist costs two requests.

use std::sync::Arc;

use http::{Method, StatusCode};

use super::mirrors::Mirrors;
use super::query::{Arrival, UpstreamQuery};
use crate::fault::FetchError;
use crate::repositories::learnt::Tongue;
use crate::target::Target;

impl Mirrors {
    /// Asks an upstream, in the media types that it answers.
    pub(super) async fn ask(
        self: &Arc<Self>,
        wanted: &Target,
        ask: &UpstreamQuery<'_>,
    ) -> Result<Arrival, FetchError> {
        let otherwise = |status: StatusCode| {
            wanted
                .format
                .accept_otherwise(&wanted.spec, status.as_u16())
        };
        let other = otherwise(StatusCode::NOT_ACCEPTABLE);
        if other.is_none() || !matches!(ask.method, Method::GET | Method::HEAD) {
            return self.ask_in_turn(wanted, ask).await;
        }
        let learnt = &wanted.entry.learnt;
        let tongue = learnt.tongue(self.now());
        if tongue == Tongue::Other {
            return self
                .ask_in_turn(
                    wanted,
                    &UpstreamQuery {
                        accept: other,
                        ..ask.clone()
                    },
                )
                .await;
        }
        let answer = self.ask_in_turn(wanted, ask).await?;
        let status = answer.response.status;
        if has_document(status) {
            learnt.answers_usual(self.now());
            return Ok(answer);
        }
        // Who has answered before knows the types: what is missing is missing.
        let Some(accept) = otherwise(status)
            .filter(|_| tongue == Tongue::Unknown || status != StatusCode::NOT_FOUND)
        else {
            return Ok(answer);
        };
        match self
            .ask_in_turn(
                wanted,
                &UpstreamQuery {
                    accept: Some(accept),
                    ..ask.clone()
                },
            )
            .await
        {
            Ok(second) if has_document(second.response.status) => {
                learnt.answers_other(self.now());
                tracing::info!(
                    repository = %wanted.entry.repository.name, status = status.as_u16(), accept,
                    "the upstream answers this Accept alone, and is asked with it for an hour"
                );
                Ok(second)
            }
            _ => Ok(answer),
        }
    }
}

fn has_document(status: StatusCode) -> bool {
    matches!(status, StatusCode::OK | StatusCode::NOT_MODIFIED)
}

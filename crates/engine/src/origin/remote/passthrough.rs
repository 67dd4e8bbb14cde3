//! Requests that go to the upstream and back without the cache (npm audit): body and coding untouched.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{HeaderMap, HeaderName, Method, StatusCode, header};
use larder_core::{ErrorCode, Fault, FaultKind, ForwardReason, Source, field_text};
use larder_formats::PassThrough;
use larder_upstream::UpstreamResponse;

use super::parts::Remote;
use super::query::UpstreamQuery;
use crate::answer::{Answer, Freshness, Representation};
use crate::budget::Lease;
use crate::decided;
use crate::fault::status_outcome;
use crate::policy::clearance::clear_non_artifact;
use crate::representation::forwarded_status;
use crate::target::{ArtifactRequest, Target};
use crate::transfer::passthrough::passed_through;

impl Remote {
    pub(crate) async fn pass_through(
        self: &Arc<Self>,
        wanted: &Target,
        pass: &PassThrough,
        request: &ArtifactRequest<'_>,
    ) -> Result<Answer, Fault> {
        if request.body.len() as u64 > pass.max_body {
            let message = format!("the request body is larger than {} bytes", pass.max_body);
            return Err(
                Fault::new(FaultKind::TooLarge, ErrorCode::TooLarge, message)
                    .in_repository(&wanted.entry.repository.name),
            );
        }
        decided::tell(
            self.now(),
            wanted,
            None,
            "pass through",
            "the upstream answers such questions itself",
        );
        self.refusals
            .told_to_wait(wanted, self.now())
            .map_or(Ok(()), Err)?;
        let flushes = wanted.entry.flushes.load(Ordering::Acquire);
        let ask = UpstreamQuery {
            method: request.method.clone(),
            headers: only(request.headers, pass.request_headers),
            body: (*request.method == Method::POST).then(|| request.body.clone()),
            ..UpstreamQuery::default()
        };
        let place = self.transfers.take_head_place(wanted).await;
        let place = place.map_err(|no_body| self.copies.no_copy(wanted, &no_body))?;
        let arrival = self
            .mirrors
            .ask(wanted, &ask)
            .await
            .map_err(|no_body| self.copies.no_copy(wanted, &no_body))?;
        if arrival.response.status != StatusCode::OK {
            self.refusals
                .note_refusal(wanted, &arrival, flushes, self.now());
            return Err(self.copies.no_copy(
                wanted,
                &status_outcome(wanted, &arrival.response, self.now()),
            ));
        }
        Ok(self.passed_on(pass, arrival.response, place))
    }

    /// The upstream's answer, as the client gets it.
    fn passed_on(&self, pass: &PassThrough, response: UpstreamResponse, place: Lease) -> Answer {
        let joined = |name: HeaderName, lines: usize| {
            let lines = response.headers.get_all(name).iter().take(lines);
            let lines: Vec<_> = lines.map(field_text).collect();
            (!lines.is_empty()).then(|| lines.join(", "))
        };
        let mut extra = only(&response.headers, pass.response_headers);
        for separately in [header::CONTENT_TYPE, header::CONTENT_ENCODING] {
            extra.remove(separately);
        }
        let keep = |name: &str| pass.response_headers.contains(&name);
        Answer {
            status: StatusCode::OK,
            representation: Representation {
                content_type: joined(header::CONTENT_TYPE, 1).filter(|_| keep("content-type")),
                content_encoding: joined(header::CONTENT_ENCODING, usize::MAX)
                    .filter(|_| keep("content-encoding")),
                length: response.body.declared_length(),
                extra,
                ..Representation::default()
            },
            body: clear_non_artifact(passed_through(response.body, Some(place))),
            cache_status: forwarded_status(ForwardReason::Bypass, 200),
            source: Source::Remote,
            freshness: Freshness {
                contacted_at: self.now(),
                remaining: Some(Duration::ZERO),
                no_store: true,
            },
            location: None,
            hot: None,
            reading: None,
        }
    }
}

fn only(headers: &HeaderMap, names: &[&'static str]) -> HeaderMap {
    let lines = names.iter().flat_map(|name| {
        let values = headers.get_all(*name).iter();
        values.map(|value| (HeaderName::from_static(name), value.clone()))
    });
    lines.collect()
}

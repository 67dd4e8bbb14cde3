//! Requests that go to the upstream and back without the cache (npm audit): body and coding untouched.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use http::{HeaderMap, HeaderName, Method, StatusCode, header};
use larder_core::{ErrorCode, Fault, FaultKind, ForwardReason, Mutability, Source, field_text};
use larder_formats::{Operation, PassThrough, SourceSpec};
use larder_upstream::{BodyStream, UpstreamError};

use crate::admission::{Admission, Wanted};
use crate::answer::{Answer, Body, Freshness, Representation};
use crate::clearance::clear_non_artifact;
use crate::engine::{ArtifactRequest, Engine};
use crate::mirrors::Ask;
use crate::no_body::{NoBody, status_outcome};
use crate::origin::local::other_method;
use crate::repositories::Entry;
use crate::serve::{forwarded_status, internal};

/// A body on its way through. An error means: abort the connection.
#[derive(Debug)]
pub struct PassThroughBody(BodyStream);

impl Stream for PassThroughBody {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.0).poll_next(context).map(|item| {
            item.map(|chunk| chunk.map_err(|error| io::Error::other(broken_off(error))))
        })
    }
}

/// Why a body that is passed through breaks off.
fn broken_off(error: UpstreamError) -> Fault {
    let no_body = NoBody::from(error);
    Fault::new(FaultKind::BadGateway, no_body.code, no_body.message)
        .by_rule("upstream")
        .upstream_said("broken off")
}

impl Engine {
    /// How long a body this request may have, in bytes, asked before any of it is read: only what is passed through has one. `None` if
    /// nobody would look at it.
    ///
    /// # Errors
    /// The fault that the request ends in whatever its body is: no such repository, a path that is refused, a method that is not offered.
    pub fn body_limit(&self, request: &ArtifactRequest<'_>) -> Result<Option<u64>, Fault> {
        Ok(match self.admit(request)? {
            Admission::Other {
                operation: Operation::PassThrough(pass),
                ..
            } => Some(pass.max_body),
            Admission::Local(entry) => return Err(other_method(&entry)),
            Admission::Other { .. } | Admission::Read(_) => None,
        })
    }

    pub(crate) async fn pass_through(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        pass: &PassThrough,
        request: &ArtifactRequest<'_>,
    ) -> Result<Answer, Fault> {
        let format = entry
            .format
            .ok_or_else(|| internal("a format is missing"))?;
        if request.body.len() as u64 > pass.max_body {
            let message = format!("the request body is larger than {} bytes", pass.max_body);
            return Err(
                Fault::new(FaultKind::TooLarge, ErrorCode::TooLarge, message)
                    .in_repository(&entry.repository.name),
            );
        }
        let spec = SourceSpec {
            base: pass.base.clone(),
            path: pass.path.clone(),
            query: pass.query.clone(),
            key_path: pass.path.clone(),
            accept: None,
            variant: "",
            is_document: false,
        };
        let class = Mutability::Mutable {
            user_defined: false,
            named_by_digest: false,
        };
        let wanted = Wanted::new(Arc::clone(entry), format, spec, class);
        self.tell(
            &wanted,
            None,
            "pass through",
            "the upstream answers such questions itself",
        );
        self.told_to_wait(&wanted).map_or(Ok(()), Err)?;
        let flushes = entry.flushes.load(Ordering::Acquire);
        let ask = Ask {
            method: request.method.clone(),
            headers: only(request.headers, pass.request_headers),
            body: (*request.method == Method::POST).then(|| request.body.clone()),
            ..Ask::default()
        };
        let arrival = self
            .ask(&wanted, &ask)
            .await
            .map_err(|no_body| self.no_copy(&wanted, &no_body))?;
        if arrival.response.status != StatusCode::OK {
            self.note_refusal(&wanted, &arrival, flushes);
            return Err(self.no_copy(
                &wanted,
                &status_outcome(&wanted, &arrival.response, self.now()),
            ));
        }
        let response = arrival.response;
        let text = |name: HeaderName| {
            response
                .headers
                .get(name)
                .map(|value| field_text(value).into_owned())
        };
        let mut extra = only(&response.headers, pass.response_headers);
        for separately in [header::CONTENT_TYPE, header::CONTENT_ENCODING] {
            extra.remove(separately);
        }
        let keep = |name: &str| pass.response_headers.contains(&name);
        Ok(Answer {
            status: StatusCode::OK,
            representation: Representation {
                content_type: text(header::CONTENT_TYPE).filter(|_| keep("content-type")),
                content_encoding: text(header::CONTENT_ENCODING)
                    .filter(|_| keep("content-encoding")),
                length: response.body.declared_length(),
                extra,
                ..Representation::default()
            },
            body: clear_non_artifact(Body::Stream(PassThroughBody(response.body))),
            cache_status: forwarded_status(ForwardReason::Bypass, 200),
            source: Source::Remote,
            freshness: Freshness {
                contacted_at: self.now(),
                remaining: Some(Duration::ZERO),
                no_store: true,
            },
            location: None,
            hot: None,
        })
    }
}

fn only(headers: &HeaderMap, names: &[&'static str]) -> HeaderMap {
    let pairs = names.iter().filter_map(|name| {
        let value = headers.get(*name)?.clone();
        Some((HeaderName::from_static(name), value))
    });
    pairs.collect()
}

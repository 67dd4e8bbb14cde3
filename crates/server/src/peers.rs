//! `GET /internal/v1/flight`: what this replica downloads, for the other replicas. Who may ask, and what there is, the engine says.

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response};
use larder_engine::CLUSTER_HEADER;

use crate::backend::Backend;
use crate::body::ResponseBody;
use crate::exchange::{Exchange, Handled};
use crate::problem::{self, Audience};

pub(crate) fn serve<B: Backend>(exchange: &Exchange<'_, B>) -> Handled {
    let head = exchange.head;
    let target = head
        .uri
        .path_and_query()
        .map_or("", |target| target.as_str());
    let signature = head
        .headers
        .get(CLUSTER_HEADER)
        .and_then(|value| value.to_str().ok());
    let response = match exchange.backend.peer_flight(signature, target) {
        Ok(body) => {
            let mut response = Response::new(ResponseBody::streamed(body));
            let headers = response.headers_mut();
            let kind = HeaderValue::from_static("application/octet-stream");
            headers.insert(CONTENT_TYPE, kind);
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Err(fault) => problem::response(&**exchange.backend, &fault, Audience::Repository(None)),
    };
    Handled::other(response)
}

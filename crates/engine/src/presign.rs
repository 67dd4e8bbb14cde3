//! A redirect to the object store in place of a whole file, where the operator wants that (docs/adr/0087). It is made of an answer that
//! has been cleared: no gate is passed by. What has conditions or ranges, HEAD, and everything that changes is answered here.

use std::time::Duration;

use http::header::{
    AUTHORIZATION, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE,
};
use http::{Method, StatusCode};
use larder_core::{BlobDescriptor, Repository, UnixMillis};
use larder_storage::{BlobStore, PresignedUrl};

use crate::answer::{Answer, Body, Freshness};
use crate::representation::plain;
use crate::target::ArtifactRequest;

/// Shorter files are sent from here: a redirect would cost more than it saves.
const LEAST: u64 = 1 << 20;

/// The same answer, or a redirect to where the store has its bytes: of an immutable file of a repository that wants redirects, to a
/// plain GET. Such answers are not remembered, so that each request comes here.
pub(crate) async fn redirected(
    blobs: &dyn BlobStore,
    repository: &Repository,
    blob: Option<&BlobDescriptor>,
    request: &ArtifactRequest<'_>,
    mut answer: Answer,
    now: UnixMillis,
) -> Answer {
    let Some(blob) = blob
        .filter(|blob| repository.redirects_to_store() && blob.size >= LEAST && is_plain(&answer))
    else {
        return answer;
    };
    answer.hot = None;
    if !asks_plainly(request) {
        return answer;
    }
    match blobs.presign(blob).await {
        Some(url) if may_follow(request, &url) => Answer {
            reading: answer.reading.take(),
            ..elsewhere(&answer, &url, now)
        },
        _ => answer,
    }
}

/// Whether the bytes are the representation: the store knows nothing of codings, and does not choose.
fn is_plain(answer: &Answer) -> bool {
    let representation = &answer.representation;
    answer.status == StatusCode::OK
        && answer.location.is_none()
        && representation.content_encoding.is_none()
        && representation.vary.is_empty()
}

/// Whether the whole file is asked for, whatever the client has of it.
fn asks_plainly(request: &ArtifactRequest<'_>) -> bool {
    let conditions = [
        RANGE,
        IF_RANGE,
        IF_MATCH,
        IF_NONE_MATCH,
        IF_MODIFIED_SINCE,
        IF_UNMODIFIED_SINCE,
    ];
    *request.method == Method::GET
        && !conditions
            .iter()
            .any(|name| request.headers.contains_key(name))
}

/// Clients take `Authorization` along to the same host, some to another port of it, and some to hosts below it; a store refuses a
/// request that has two of them, and must not see larder's.
fn may_follow(request: &ArtifactRequest<'_>, url: &PresignedUrl) -> bool {
    if !request.headers.contains_key(AUTHORIZATION) {
        return true;
    }
    let base = request.mount.base;
    let host = base.split_once("://").map_or(base, |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or_default();
    let host = match host.strip_prefix('[') {
        Some(address) => address.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let (host, store) = (host.to_ascii_lowercase(), url.host());
    let is_below = store
        .strip_suffix(host.as_str())
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    !host.is_empty() && !is_below
}

/// 307: the method stays. Whoever keeps it keeps a signed address, so nobody may.
fn elsewhere(answer: &Answer, url: &PresignedUrl, now: UnixMillis) -> Answer {
    Answer {
        location: Some(url.expose().to_owned()),
        cache_status: answer.cache_status,
        source: answer.source,
        freshness: Freshness {
            contacted_at: now,
            remaining: Some(Duration::ZERO),
            no_store: true,
        },
        ..plain(StatusCode::TEMPORARY_REDIRECT, Body::Empty, Some(0), now)
    }
}

//! Answers that are given again without asking the pipeline: out of the hot set and the warm set.

use std::borrow::Cow;
use std::sync::Arc;

use http::Response;
use larder_core::{Source, UnixMillis};
use larder_engine::Body;

use crate::backend::Backend;
use crate::body::ResponseBody;
use crate::file_body::read_cached_whole;
use crate::hot::{self, HotBody, HotVariant, MAX_IN_MEMORY};
use crate::respond::{self, Asked};
use crate::selector::Selector;
use crate::state::Shared;
use crate::warm::WarmAnswer;

/// The answer out of the hot set; `None` if it needs an error body, which the long way makes.
pub(crate) fn from_hot(
    variant: &HotVariant,
    asked: Asked<'_>,
    now: UnixMillis,
) -> Option<Response<ResponseBody>> {
    let sent = variant.requests.sent(Source::Cache);
    respond::respond(
        Cow::Borrowed(&variant.prepared),
        variant.body.body(),
        variant.timing(now),
        asked,
        sent,
    )
    .ok()
}

/// The answer out of the warm set, whose ticket is good; and its body if that is an open file. One that is asked for `again` enters the hot
/// set. `None` if the body is not at hand, or an error body is needed: the long way finds out.
pub(crate) fn from_warm<B: Backend>(
    backend: &B,
    shared: &Shared,
    (target, warm): (&str, &WarmAnswer),
    asked: Asked<'_>,
    now: UnixMillis,
) -> Option<Response<ResponseBody>> {
    let again = shared.sightings.again(target);
    let length = warm.ticket.held_length()?;
    let is_small = length <= MAX_IN_MEMORY;
    let body = backend.reopen(&warm.ticket, again || !is_small)?;
    let loaded = match body.get() {
        Body::File { file, .. } if is_small && length > 0 => Some(read_cached_whole(file, length)?),
        _ => None,
    };
    let prepared = warm.head.unpack()?;
    let sent = warm.requests.sent(Source::Cache);
    let timing = hot::timing(&warm.ticket, now);
    if !(again && shared.hot.is_enabled()) {
        let body = loaded.map_or_else(|| body.into_inner(), Body::Memory);
        return respond::respond(Cow::Owned(prepared), body, timing, asked, sent).ok();
    }
    let body = HotBody::new(body, loaded);
    let (borrowed, sent_body) = (Cow::Borrowed(&prepared), body.body());
    let response = respond::respond(borrowed, sent_body, timing, asked, sent).ok();
    let variant = HotVariant {
        selector: Selector::anything(),
        prepared,
        body,
        ticket: warm.ticket.clone(),
        requests: Arc::clone(&warm.requests),
    };
    shared.hot.insert(target, variant, now);
    response
}

//! From what is known of bytes to the parts of an [`Answer`].

use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode, header};
use larder_core::{
    ArtifactRecord, CacheStatus, Digest, Source, StoredHeaders, UnixMillis, field_text, fresh_until,
};

use crate::answer::{Answer, Body, Freshness, HotTicket, Representation};
use crate::catalog::Epoch;
use crate::policy::clearance::clear_non_artifact;
use crate::policy::visibility::Visibility;
use crate::repositories::Registry;
use crate::target::{ArtifactRequest, FOLDER, Target};

/// The field that names the members which a merged document lacks, of this larder's or of one behind it.
pub(crate) const SKIPPED_MEMBERS: &str = "x-larder-skipped";

/// A representation's headers from those that were kept.
pub(crate) fn representation(
    wanted: &Target,
    headers: &StoredHeaders,
    digest: Option<&Digest>,
    fallback_tag: Option<String>,
    length: Option<u64>,
) -> Representation {
    let held = wanted.held(headers, digest);
    let mut extra = wanted
        .format
        .answer_headers(&wanted.entry.repository, &held);
    let own_type = extra
        .remove(header::CONTENT_TYPE)
        .map(|value| field_text(&value).into_owned());
    let of_the_way = |name: &str| headers.further.get(name);
    if let Some(names) = of_the_way(SKIPPED_MEMBERS)
        && let Ok(names) = HeaderValue::from_str(names)
    {
        extra.insert(HeaderName::from_static(SKIPPED_MEMBERS), names);
    }
    Representation {
        content_type: own_type.or_else(|| headers.content_type.clone()),
        content_encoding: headers.content_encoding.clone(),
        content_disposition: headers.content_disposition.clone(),
        content_language: headers.content_language.clone(),
        etag: headers.etag.clone().or(fallback_tag),
        last_modified: headers.last_modified.clone(),
        served_since: None,
        length,
        vary: &[],
        extra,
        upstream_status: of_the_way(StoredHeaders::CACHE_STATUS).cloned(),
        is_aged: of_the_way(StoredHeaders::AGE).is_some(),
    }
}

/// The names that choose between representations. `host` tells the hot set only; it is never sent.
pub(crate) fn vary(
    by_format: &'static [&'static str],
    by_coding: bool,
    by_host: bool,
) -> &'static [&'static str] {
    match (!by_format.is_empty(), by_coding, by_host) {
        (false, false, false) => &[],
        (true, false, false) => &["accept"],
        (false, true, false) => &["accept-encoding"],
        (false, false, true) => &["host"],
        (true, true, false) => &["accept", "accept-encoding"],
        (true, false, true) => &["accept", "host"],
        (false, true, true) => &["accept-encoding", "host"],
        (true, true, true) => &["accept", "accept-encoding", "host"],
    }
}

/// The status of an answer that nothing was cached for.
pub(crate) fn forwarded_status(reason: larder_core::ForwardReason, status: u16) -> CacheStatus {
    CacheStatus {
        forward: Some(reason),
        forward_status: Some(status),
        ..CacheStatus::default()
    }
}

pub(crate) fn freshness(
    record: &ArtifactRecord,
    wanted: &Target,
    reusable: bool,
    visibility: &Visibility,
    now: UnixMillis,
) -> Freshness {
    let until = fresh_until(
        record,
        wanted.class_of(record),
        &wanted.entry.repository.cache,
    );
    let remaining = visibility.bound(until).map(|until| until.since(now));
    let remaining = if reusable {
        remaining
    } else {
        Some(Duration::ZERO)
    };
    Freshness {
        contacted_at: record.said_at(),
        remaining,
        no_store: false,
    }
}

/// What an answer made from this record may be remembered by, and for how long: no longer than what it hides stays hidden.
pub(crate) fn ticket(
    wanted: &Target,
    record: &ArtifactRecord,
    epoch: Epoch,
    visibility: &Visibility,
    now: UnixMillis,
) -> Option<HotTicket> {
    let until = visibility.bound(fresh_until(
        record,
        wanted.class_of(record),
        &wanted.entry.repository.cache,
    ));
    if until.is_some_and(|until| until <= now) {
        return None;
    }
    Some(HotTicket {
        epoch: epoch.shared,
        epoch_value: epoch.value,
        others: Vec::new(),
        fresh_until: until,
        whose_until: None,
        contacted_at: record.said_at(),
        for_anyone: true,
        held: None,
        used: None,
    })
}

/// An answer of larder's own making: it is no artifact and is not cached.
pub(crate) fn plain(
    status: StatusCode,
    body: Body,
    length: Option<u64>,
    now: UnixMillis,
) -> Answer {
    Answer {
        status,
        representation: Representation {
            length,
            ..Representation::default()
        },
        body: clear_non_artifact(body),
        cache_status: CacheStatus::default(),
        source: Source::Cache,
        freshness: Freshness {
            contacted_at: now,
            remaining: Some(Duration::ZERO),
            no_store: false,
        },
        location: None,
        hot: None,
        reading: None,
    }
}

/// The redirect in place of an answer that was made from these headers; the answer itself if no folder is passed on.
pub(crate) fn passing_folder_on(
    registry: &Registry,
    headers: &StoredHeaders,
    request: &ArtifactRequest<'_>,
    answer: Answer,
    now: UnixMillis,
) -> Answer {
    let to = headers
        .further
        .get(FOLDER)
        .and_then(|text| text.split_once(' '));
    let Some((status, to)) = to else {
        return answer;
    };
    let status = status
        .parse()
        .ok()
        .and_then(|status| StatusCode::from_u16(status).ok())
        .unwrap_or(StatusCode::FOUND);
    let location = registry.location(to, &request.mount);
    let redirect = plain(status, Body::Empty, Some(0), now);
    let Answer {
        cache_status,
        source,
        freshness,
        ..
    } = answer;
    Answer {
        location: Some(location),
        cache_status,
        source,
        freshness,
        ..redirect
    }
}

//! What is kept of the head that an upstream sent.

use http::HeaderMap;
use larder_core::{ArtifactRecord, Content, SafeUrl, StoredHeaders, UnixMillis, field_text};
use larder_upstream::UpstreamResponse;
use url::Url;

use crate::document::coding;
use crate::policy::folder;
use crate::target::Target;

/// What the upstream's head says, before there is a body.
pub(super) fn draft(
    wanted: &Target,
    response: &UpstreamResponse,
    prior: Option<&ArtifactRecord>,
    stated: Option<UnixMillis>,
    now: UnixMillis,
) -> ArtifactRecord {
    let mut headers = stored_headers(wanted, &response.headers);
    folder::note(wanted, response, &mut headers);
    let modified = headers
        .last_modified
        .as_deref()
        .and_then(UnixMillis::from_http_date);
    let dated_before = prior.and_then(|prior| prior.published_at);
    ArtifactRecord {
        content: Content::HeadOnly,
        source_url: without_secrets(&response.final_url),
        // Of bytes that may come again the date that counted counts, and that there was none.
        published_at: match prior {
            Some(prior) if prior.blob().is_some() => prior.published_at,
            _ => dated_before.or(stated).or(modified),
        },
        first_seen_at: prior.map_or(now, |prior| prior.first_seen_at),
        contacted_at: now,
        fresh_since: now,
        served_since: now,
        verified: false,
        headers,
    }
}

/// A query may be a secret. That there was one stays to be seen (`?`): such a URL is of one file, and leads to no other.
pub(super) fn without_secrets(url: &Url) -> String {
    let mark = if url.query().is_some() { "?" } else { "" };
    format!("{}{mark}", SafeUrl(url.clone()))
}

/// The longest value that is kept, in bytes.
const LONGEST_VALUE: usize = 4 << 10;
/// Of a field that is a list, all lines are.
const ALL: usize = usize::MAX;
/// All values of a record together.
const MOST_KEPT: usize = 16 << 10;

/// The upstream headers that are kept; all others are dropped here (generic-http: what survives). They stay in the database and in
/// memory as long as the copy does, so they are bounded: a value that is too long is dropped, and where all together are, those at the
/// end of this order: what the bytes are, what they are compared by, how they are to be saved, what the format keeps beside.
pub(super) fn stored_headers(wanted: &Target, headers: &HeaderMap) -> StoredHeaders {
    let mut room = MOST_KEPT;
    let mut joined = |name: &str, lines: usize| {
        let lines: Vec<_> = headers.get_all(name).iter().take(lines).collect();
        let length = lines
            .iter()
            .map(|line| line.len() + 2)
            .sum::<usize>()
            .checked_sub(2)?;
        if length > LONGEST_VALUE.min(room) {
            tracing::debug!(key = %wanted.key, field = name, bytes = length, "a field is too long to be kept");
            return None;
        }
        room -= length;
        Some(
            lines
                .into_iter()
                .map(field_text)
                .collect::<Vec<_>>()
                .join(", "),
        )
    };
    // What is kept as it came keeps its label; what is unpacked is in the codings that there are.
    let keeps_coding = wanted.format.profile().keeps_coding;
    let coded = |label: String| {
        if !keeps_coding {
            return coding::applied(&label);
        }
        let says_something =
            !label.trim().is_empty() && !label.trim().eq_ignore_ascii_case("identity");
        says_something.then_some(label)
    };
    StoredHeaders {
        // Lines of one field are one list (RFC 9110 section 5.3); of what is one value the first counts.
        content_encoding: joined("content-encoding", ALL).and_then(coded),
        content_type: joined("content-type", 1),
        // Well formed or not: to be served, and sent back, as it came.
        etag: joined("etag", 1).filter(|tag| !tag.is_empty()),
        // Clients reject what is no HTTP date, so it is dropped; two obsolete forms become the current one.
        last_modified: joined("last-modified", 1)
            .and_then(|t| UnixMillis::from_http_date(&t))
            .map(UnixMillis::to_http_date),
        content_disposition: joined("content-disposition", 1),
        content_language: joined("content-language", ALL),
        digest: wanted.format.digest_in_head(&wanted.facts, headers),
        length: None,
        further: wanted
            .format
            .profile()
            .kept_headers
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), joined(name, ALL)?)))
            .chain(of_the_way(headers))
            .collect(),
    }
}

/// The longest list of what caches did that is kept, in bytes.
const LONGEST_STATUS: usize = 1 << 10;
/// The longest age that is believed, in seconds (RFC 9111 section 1.2.2).
const LONGEST_AGE: u64 = 1 << 31;

/// What caches behind the upstream say of its answer: how old it is, what they did, and whom another larder left out.
fn of_the_way(headers: &HeaderMap) -> impl Iterator<Item = (String, String)> {
    let lines = headers.get_all(StoredHeaders::CACHE_STATUS).iter();
    let lines: Vec<_> = lines.filter_map(|line| line.to_str().ok()).collect();
    let status = lines.join(", ");
    let has_status = (1..=LONGEST_STATUS).contains(&status.len());
    let age = headers.get(StoredHeaders::AGE);
    let age = age.and_then(|age| age.to_str().ok()?.trim().parse::<u64>().ok());
    let age = age.filter(|age| *age > 0).map(|age| age.min(LONGEST_AGE));
    let skipped = headers.get(StoredHeaders::SKIPPED_MEMBERS);
    let skipped = skipped.and_then(|names| names.to_str().ok());
    let skipped = skipped.filter(|names| names.len() <= LONGEST_STATUS);
    let field = |name: &str, value: String| (name.to_owned(), value);
    [
        age.map(|age| field(StoredHeaders::AGE, age.to_string())),
        has_status.then(|| field(StoredHeaders::CACHE_STATUS, status)),
        skipped.map(|names| field(StoredHeaders::SKIPPED_MEMBERS, names.to_owned())),
    ]
    .into_iter()
    .flatten()
}

//! A file of a local repository, read.

use std::sync::Arc;
use std::time::Duration;

use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use larder_core::{CacheStatus, Digest, ErrorCode, Fault, FaultKind, Source, UnixMillis, shown};
use larder_storage::{LocalFile, StorageErrorKind};

use super::list;
use super::list::NO_CACHE;
use super::place::{Local, Place};
use super::rules::etag;
use crate::answer::{Answer, Body, Freshness, HeldBlob, HotTicket, Representation};
use crate::catalog::Reading;
use crate::counters::count;
use crate::fault::storage_fault;
use crate::policy::clearance::clear;
use crate::policy::ruling::Facts;
use crate::presign;
use crate::repositories::RepositoryState;
use crate::target::ArtifactRequest;
use crate::transfer::received::SWITCH_MILLIS;

pub(super) const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
/// Of what no one uploaded.
const OCTETS: &str = "application/octet-stream";
/// Other bytes will never be there.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
/// Looks at a row whose blob was gone: a file that is overwritten may lose its bytes between the two.
const LOOKS: usize = 8;

/// Answers GET and HEAD on a path of a local repository.
pub(crate) async fn read(
    local: &Arc<Local>,
    entry: &Arc<RepositoryState>,
    request: &ArtifactRequest<'_>,
) -> Result<Answer, Fault> {
    let place = Place::admit(entry, request.raw_path)?;
    if place.is_folder() {
        return list::folder(local, &place, request).await;
    }
    // Before the row is read: what changes it afterwards voids the ticket.
    let epoch = local.catalog.epoch(entry);
    let (file, body) = find(local, &place).await?;
    let now = local.now();
    let dates = local
        .catalog
        .dates_of_upload(entry, place.path.as_str(), &file)
        .await
        .map_err(|error| storage_fault(entry, &error))?;
    let body = clear(&entry.repository, place.class, &Facts { dates, now }, body)
        .inspect_err(|_| count(&entry.counters.quarantined))?;
    let settled = settled_at(file.written_at);
    let used = local
        .catalog
        .used_upload(place.repository(), place.path.as_str());
    let hot = HotTicket {
        epoch: epoch.shared,
        epoch_value: epoch.value,
        others: Vec::new(),
        fresh_until: (now < settled).then_some(settled),
        whose_until: None,
        contacted_at: now,
        for_anyone: true,
        held: Some(HeldBlob {
            blob: file.blob.clone(),
            counters: Arc::clone(&entry.counters),
        }),
        used: Some(Arc::clone(&used)),
    };
    let blob = file.blob.clone();
    let answer = Answer {
        status: StatusCode::OK,
        representation: representation(&place, file, now),
        body,
        cache_status: CacheStatus {
            hit: true,
            ..CacheStatus::default()
        },
        source: Source::Cache,
        freshness: Freshness {
            contacted_at: now,
            remaining: Some(Duration::ZERO),
            no_store: false,
        },
        location: None,
        hot: Some(hot),
        reading: Some(Reading::of_copy(&used)),
    };
    let blob = (!place.class.is_mutable()).then_some(&blob);
    Ok(presign::redirected(&*local.blobs, &entry.repository, blob, request, answer, now).await)
}

/// The row and its open file.
async fn find(local: &Local, place: &Place<'_>) -> Result<(LocalFile, Body), Fault> {
    let mut looks = 0;
    loop {
        let file = local
            .catalog
            .local_file(place.repository(), place.path.as_str())
            .await
            .map_err(|error| storage_fault(place.entry, &error))?
            .ok_or_else(|| place.absent())?;
        looks += 1;
        match local.blobs.open(&file.blob).await {
            Ok(body) => return Ok((file, body)),
            Err(error) if error.kind == StorageErrorKind::NotFound && looks < LOOKS => {}
            Err(error) => {
                // Says it in the log, once in a while.
                let fault = storage_fault(place.entry, &error);
                return Err(lost(place, error.kind).unwrap_or(fault));
            }
        }
    }
}

/// The row is there and its bytes are not, or not as they were: whoever asks again will not get them either.
fn lost(place: &Place<'_>, kind: StorageErrorKind) -> Option<Fault> {
    let what = match kind {
        StorageErrorKind::NotFound => "missing from",
        StorageErrorKind::Corrupt => "damaged in",
        _ => return None,
    };
    let message = format!(
        "the bytes of {} are {what} larder's store: upload the file again, or restore them from a backup",
        shown(place.path.as_str())
    );
    Some(place.fault(FaultKind::Internal, ErrorCode::Storage, message))
}

fn representation(place: &Place<'_>, file: LocalFile, now: UnixMillis) -> Representation {
    let mut extra = HeaderMap::new();
    let lasting = !place.settings.allow_overwrite;
    extra.insert(CACHE_CONTROL, if lasting { IMMUTABLE } else { NO_CACHE });
    if let Some(value) = repr_digest(&file.blob.digest) {
        extra.insert(REPR_DIGEST, value);
    }
    let headers = file.headers;
    Representation {
        content_type: headers.content_type.or_else(|| Some(OCTETS.to_owned())),
        content_encoding: headers.content_encoding,
        content_disposition: headers.content_disposition,
        content_language: headers.content_language,
        etag: Some(etag(&file.blob.digest)),
        last_modified: (settled_at(file.written_at) <= now).then(|| file.written_at.to_http_date()),
        served_since: Some(switched_at(file.written_at)),
        length: Some(file.blob.size),
        extra,
        ..Representation::default()
    }
}

/// Since when nobody is given what was there before: a change is dated within its transaction, and seen behind it.
fn switched_at(written_at: UnixMillis) -> UnixMillis {
    UnixMillis(written_at.0.saturating_add(SWITCH_MILLIS))
}

/// When all that is dated within the same second is seen. Only then is it told as `Last-Modified`: another file of that second would have
/// the same date, and clients would take it for this one.
fn settled_at(written_at: UnixMillis) -> UnixMillis {
    let switched = switched_at(written_at);
    UnixMillis((switched.0.div_euclid(1000) + 1).saturating_mul(1000))
}

/// The field of RFC 9530.
pub(super) fn repr_digest(digest: &Digest) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("sha-256=:{}:", digest.to_base64())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hazard_w9_a_date_is_told_when_no_other_upload_can_have_it() {
        // The last one of that second is seen two seconds after its date.
        for millis in [1_000, 1_999] {
            assert_eq!(settled_at(UnixMillis(millis)), UnixMillis(4_000));
        }
    }

    /// RFC 9530 section 2: the digest of `{"hello": "world"}` and a line feed.
    #[test]
    fn the_digest_of_an_answer_is_a_byte_sequence() {
        let digest = larder_core::sha256(b"{\"hello\": \"world\"}\n");
        assert_eq!(
            repr_digest(&digest).unwrap(),
            "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"
        );
    }
}

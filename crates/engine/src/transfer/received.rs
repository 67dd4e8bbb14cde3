//! A body that has arrived, and its record.

use std::sync::Arc;

use larder_core::{ArtifactRecord, BlobDescriptor, Content, Digest, StoredHeaders, UnixMillis};
use larder_storage::{Body, SealedSpool, Spool};

use super::fill::Fill;
use crate::catalog::RecordChange;
use crate::counters::count;
use crate::loaded::Arrival;
use crate::target::Target;

/// Until a new body's record is visible, the body before it may still be served here and there. A client that dates its copy by its own
/// clock (apk) must not get a 304 for the old one later, so the new one counts as served from a moment that is surely past that.
pub(crate) const SWITCH_MILLIS: i64 = 2000;

/// A complete, verified body.
#[derive(Debug)]
pub(crate) struct FetchedBody {
    pub(crate) record: Arc<ArtifactRecord>,
    pub(crate) body: Body,
    pub(crate) change: Option<RecordChange>,
    pub(crate) detail: Option<&'static str>,
    /// What was checked, if it is a document.
    pub(crate) document: Option<Arrival>,
}

/// The bytes as they came in.
pub(crate) struct Received {
    pub(crate) spool: Option<Spool>,
    pub(crate) digests: Vec<Digest>,
    /// What the format's identifier made of them, if it was asked.
    pub(crate) identities: Option<Vec<String>>,
    pub(crate) length: u64,
    /// Whether anything marked the end: a length or a last chunk. Without one the body may have been cut (hazard W2).
    pub(crate) end_marked: bool,
    /// Taken up again after a cut without a strong validator: only a digest can tell that the parts belong together.
    pub(crate) needs_digest: bool,
    /// The bytes turned out to be another mirror's: the validators that came first are not theirs.
    pub(crate) of_another_mirror: bool,
}

/// A complete body, and the fill that it can be read from where the disk could not take it.
pub(crate) struct Whole {
    pub(crate) received: Received,
    pub(crate) fill: Arc<Fill>,
}

/// The record of a finished body: dates of equal bytes never move.
pub(crate) fn finished_record(
    fill: &Fill,
    headers: StoredHeaders,
    received: &Received,
    verified: bool,
    prior: Option<&ArtifactRecord>,
    now: UnixMillis,
) -> ArtifactRecord {
    let digest = received
        .digests
        .first()
        .cloned()
        .unwrap_or_else(|| larder_core::sha256(b""));
    let blob = BlobDescriptor {
        digest,
        size: received.length,
    };
    let same = prior.filter(|prior| prior.blob() == Some(&blob));
    let draft = &fill.draft;
    let first_body = prior.is_none_or(|prior| prior.blob().is_none());
    ArtifactRecord {
        headers,
        published_at: match same {
            Some(prior) => prior.published_at,
            // Other bytes under an old name start their quarantine anew.
            None if first_body => draft.published_at,
            None => fill.stated.or_else(|| {
                let modified = draft.headers.last_modified.as_deref();
                modified.and_then(UnixMillis::from_http_date)
            }),
        },
        first_seen_at: if same.is_some() || first_body {
            draft.first_seen_at
        } else {
            draft.contacted_at
        },
        served_since: match same {
            Some(prior) => prior.served_since,
            // There was no body before it that could still be served.
            None if first_body => draft.served_since,
            None => UnixMillis(now.0 + SWITCH_MILLIS),
        },
        content: Content::Blob(blob),
        verified,
        ..draft.clone()
    }
}

/// From verified bytes to what is served and what is committed.
pub(crate) fn hand_over(
    wanted: &Target,
    fill: &Arc<Fill>,
    received: Received,
    record: ArtifactRecord,
) -> FetchedBody {
    let record = Arc::new(record);
    if let (Some(spool), Some(descriptor)) = (received.spool, record.blob().cloned()) {
        let body = Body::file(spool.reader(), received.length);
        let spool = SealedSpool { spool, descriptor };
        let change = Some(RecordChange::Store {
            record: Arc::clone(&record),
            spool,
            also: None,
        });
        return FetchedBody {
            record,
            body,
            change,
            detail: None,
            document: None,
        };
    }
    count(&wanted.entry.counters.fills_not_kept);
    FetchedBody {
        record,
        body: Body::Growing(fill.body()),
        change: None,
        detail: Some("not-kept"),
        document: None,
    }
}

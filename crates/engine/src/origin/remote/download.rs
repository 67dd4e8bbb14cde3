//! Step 8: the body of one download, from the upstream's head to what is kept of it. How the bytes
//! come in stands in `intake.rs`, whether they are the right ones in `verify.rs`.

use std::sync::Arc;

use http::HeaderMap;
use larder_core::{
    ArtifactRecord, Content, Dates, ErrorCode, Fault, Outcome, SafeUrl, StoredHeaders, UnixMillis,
    field_text,
};
use larder_upstream::{Framing, UpstreamResponse};
use tokio::time::{Instant, timeout};
use url::Url;

use crate::budget::Lease;
use crate::catalog::RecordChange;
use crate::counters::count;
use crate::document::expectation::Expectation;
use crate::fault::{FetchError, failed};
use crate::origin::remote::Remote;
use crate::origin::remote::intake::Intake;
use crate::origin::remote::mirrors::Arrival;
use crate::origin::remote::places::is_hint;
use crate::origin::remote::turns::wanted_by_others;
use crate::policy::clearance;
use crate::policy::ruling::{Facts, dates_of, goes_by_stated_date};
use crate::target::Target;
use crate::transfer::fill::{Fill, Release};
use crate::transfer::flight::Flight;
use crate::transfer::received::FetchedBody;

/// Why a download gave nothing to keep.
#[derive(Debug)]
pub(crate) enum Stopped {
    FetchError(FetchError),
    /// Quarantine holds it: the record remembers its date.
    Held {
        fault: Fault,
        record: ArtifactRecord,
    },
    /// A rule refuses what the head shows it to be.
    Refused(Fault),
}

impl From<FetchError> for Stopped {
    fn from(no_body: FetchError) -> Self {
        Self::FetchError(no_body)
    }
}

/// Why a body broke off, for those who have its head already.
fn cause(wanted: &Target, no_body: &FetchError) -> Fault {
    failed(wanted, no_body.outcome == Outcome::TimedOut, no_body).about(&wanted.key)
}

/// Nobody waited for it, next to nothing came, and others waited for its place.
fn gave_way() -> FetchError {
    FetchError::unusable(
        ErrorCode::Interrupted,
        "nobody waited for this slow download any more, and it ended to make room for others; ask again",
    )
}

impl Remote {
    /// Takes in a 200's body. Followers may read it while it arrives.
    pub(crate) async fn fill(
        self: &Arc<Self>,
        (flight, place): (&Arc<Flight>, &Lease),
        wanted: &Arc<Target>,
        prior: Option<&ArtifactRecord>,
        arrival: Arrival,
        mut expectation: Expectation,
    ) -> Result<FetchedBody, Stopped> {
        let stated = if prior.is_none_or(|prior| prior.published_at.is_none()) {
            self.stated_date(wanted).await
        } else {
            None
        };
        let response = &arrival.response;
        let draft = draft(wanted, response, prior, stated, self.now());
        expectation.learn_from_head(&draft.headers);
        let total = response.body.declared_length();
        self.judge_head(wanted, &draft, total)?;
        self.refuse_oversized(wanted, total)?;
        let is_document = wanted.spec.is_document;
        let labelled =
            draft.headers.content_encoding.is_some() && !wanted.format.profile().keeps_coding;
        let is_checked = self.check_limit(wanted).is_some();
        let whole_only = is_checked || labelled || self.may_be_held(wanted, &draft, prior);
        let ring_capacity = if whole_only {
            self.limits.document_size as usize
        } else {
            self.limits.ring_bytes
        };
        let expects_digest = expectation.expects_digest();
        // A redirect has led there, and the usual place may know better.
        let is_led = arrival.claimed.is_some() && is_hint(wanted, arrival.claimed.as_ref());
        let release = if whole_only {
            Release::AtTheEnd
        } else if expects_digest && (arrival.has_mirror_beside || is_led) {
            Release::From(Instant::now() + self.limits.held_back)
        } else {
            Release::AtOnce
        };
        let will_be_kept = response.body.framing() != Framing::ConnectionClose || expects_digest;
        let fill = Arc::new(Fill::new(
            draft,
            total,
            expects_digest,
            release,
            will_be_kept,
            ring_capacity,
        ));
        let intake = Intake::new(self, wanted, &fill, &expectation, ring_capacity);
        flight.begin_fill(Arc::clone(&fill));
        let received = tokio::select! {
            received = intake.run(self, wanted, arrival) => received,
            () = wanted_by_others(flight, place, Some(&fill)) => Err(gave_way()),
        };
        let received = match received {
            Ok(received) => received,
            Err(no_body) => {
                fill.fail(cause(wanted, &no_body));
                return Err(no_body.into());
            }
        };
        let end_marked = received.end_marked;
        let finished = self
            .verify(flight, wanted, &fill, received, &mut expectation, prior)
            .await;
        if let Err(no_body) = &finished {
            fill.fail(cause(wanted, no_body));
        }
        let mut filled = finished?;
        if let Some(RecordChange::Store { record, also, .. }) = &mut filled.change {
            *also = self.unheld_by_digest(wanted, record).await;
        }
        if !end_marked && (is_document || !filled.record.verified) {
            filled.change = None;
            filled.detail = Some("not-kept");
            count(&wanted.entry.counters.fills_not_kept);
        }
        Ok(filled)
    }

    /// When the registry says that a file was published, where quarantine goes by that: the naming document is read for it, if need be;
    /// where it cannot be had in the time that the upstream has for a byte, `None`.
    pub(crate) async fn stated_date(self: &Arc<Self>, wanted: &Arc<Target>) -> Option<UnixMillis> {
        if !goes_by_stated_date(wanted) {
            return None;
        }
        let inquiry = self.inquiry();
        let ask = inquiry.stated_date(wanted);
        // An index that drips keeps the file's place from nobody: then it counts as one that cannot be had.
        let patience = wanted.entry.repository.upstream()?.read_timeout;
        timeout(patience, ask).await.ok()?
    }

    /// Whether what the head shows may come in, before any of the body does.
    fn judge_head(
        &self,
        wanted: &Target,
        draft: &ArtifactRecord,
        total: Option<u64>,
    ) -> Result<(), Stopped> {
        let class = wanted.judged(draft, total).map_err(Stopped::Refused)?;
        if wanted.facts.is_sidecar() {
            return Ok(());
        }
        let facts = Facts {
            dates: dates_of(wanted, draft),
            now: self.now(),
        };
        clearance::clear(&wanted.entry.repository, class, &facts, ())
            .map(drop)
            .map_err(|fault| {
                count(&wanted.entry.counters.quarantined);
                Stopped::Held {
                    fault,
                    record: draft.clone(),
                }
            })
    }

    /// Whether quarantine lets these bytes through only if they are those that were held before: known at the end.
    fn may_be_held(
        &self,
        wanted: &Target,
        draft: &ArtifactRecord,
        prior: Option<&ArtifactRecord>,
    ) -> bool {
        let modified = draft.headers.last_modified.as_deref();
        let dates = Dates {
            stated: None,
            last_modified: modified.and_then(UnixMillis::from_http_date),
            first_seen_at: draft.contacted_at,
        };
        let facts = Facts {
            dates,
            now: self.now(),
        };
        prior.is_some_and(|prior| prior.blob().is_some())
            && wanted
                .judged(draft, None)
                .and_then(|class| clearance::clear(&wanted.entry.repository, class, &facts, ()))
                .is_err()
    }

    pub(crate) fn refuse_oversized(
        &self,
        wanted: &Target,
        length: Option<u64>,
    ) -> Result<(), FetchError> {
        let Some(limit) = self
            .check_limit(wanted)
            .filter(|limit| length.is_some_and(|length| length > *limit))
        else {
            return Ok(());
        };
        let message = if wanted.spec.is_document {
            format!("the document is larger than limits.document_size ({limit} bytes)")
        } else {
            format!(
                "the upstream sent more than {limit} bytes, which is more than such a file may have"
            )
        };
        Err(FetchError::unusable(ErrorCode::DocumentTooLarge, message))
    }

    /// The longest body that is taken whole and checked by its format; `None` where the bytes are not looked into.
    pub(crate) fn check_limit(&self, wanted: &Target) -> Option<u64> {
        let document = wanted.spec.is_document.then_some(self.limits.document_size);
        document.or(wanted.facts.check_limit)
    }
}

/// What the upstream's head says, before there is a body.
fn draft(
    wanted: &Target,
    response: &UpstreamResponse,
    prior: Option<&ArtifactRecord>,
    stated: Option<UnixMillis>,
    now: UnixMillis,
) -> ArtifactRecord {
    let mut headers = stored_headers(wanted, &response.headers);
    crate::policy::folder::note(wanted, response, &mut headers);
    let modified = headers
        .last_modified
        .as_deref()
        .and_then(UnixMillis::from_http_date);
    ArtifactRecord {
        content: Content::HeadOnly,
        source_url: without_secrets(&response.final_url),
        published_at: prior
            .and_then(|prior| prior.published_at)
            .or(stated)
            .or(modified),
        first_seen_at: prior.map_or(now, |prior| prior.first_seen_at),
        contacted_at: now,
        fresh_since: now,
        served_since: now,
        verified: false,
        headers,
    }
}

/// A query may be a secret. That there was one stays to be seen (`?`): such a URL is of one file, and leads to no other.
fn without_secrets(url: &Url) -> String {
    let mark = if url.query().is_some() { "?" } else { "" };
    format!("{}{mark}", SafeUrl(url.clone()))
}

/// The longest value that is kept, in bytes.
const LONGEST_VALUE: usize = 4 << 10;
/// All values of a record together.
const MOST_KEPT: usize = 16 << 10;

/// The upstream headers that are kept; all others are dropped here (generic-http: what survives). They stay in the database and in
/// memory as long as the copy does, so they are bounded: a value that is too long is dropped, and where all together are, those at the
/// end of this order: what the bytes are, what they are compared by, how they are to be saved, what the format keeps beside.
pub(crate) fn stored_headers(wanted: &Target, headers: &HeaderMap) -> StoredHeaders {
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
    let mut text = |name: &str| joined(name, 1);
    let identity = |coding: &String| {
        !coding.trim().is_empty() && !coding.trim().eq_ignore_ascii_case("identity")
    };
    StoredHeaders {
        content_encoding: text("content-encoding").filter(identity),
        content_type: text("content-type"),
        // Well formed or not: to be served, and sent back, as it came.
        etag: text("etag").filter(|tag| !tag.is_empty()),
        // Clients reject what is no HTTP date, so it is dropped; two obsolete forms become the current one.
        last_modified: text("last-modified")
            .and_then(|t| UnixMillis::from_http_date(&t))
            .map(UnixMillis::to_http_date),
        content_disposition: text("content-disposition"),
        content_language: text("content-language"),
        digest: wanted.format.digest_in_head(&wanted.facts, headers),
        length: None,
        // Lines of one field are one list (RFC 9110 section 5.3).
        further: wanted
            .format
            .profile()
            .kept_headers
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), joined(name, usize::MAX)?)))
            .collect(),
    }
}

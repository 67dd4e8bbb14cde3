//! What came of asking: a copy renewed or served in place of a body, a status passed on, or a failure.

use std::borrow::Cow;
use std::sync::Arc;

use http::{StatusCode, header};
use larder_core::{
    ArtifactRecord, CacheStatus, Content, ErrorCode, Fault, FaultKind, ForwardReason, HeadVerdict,
    Settlement, Source, UnixMillis, confirms, field_text, judge_head, settle,
};
use larder_upstream::UpstreamResponse;

use super::copies::{Copies, Copy};
use super::fields::stored_headers;
use super::outcome::{FetchResult, Fetched};
use crate::catalog::RecordChange;
use crate::causes::warn_once;
use crate::counters::count;
use crate::fault::{FetchError, failed, passed_on};
use crate::target::Target;
use crate::transfer::flight::Settled;
use crate::transfer::received::FetchedBody;

impl Copies {
    /// The copy is unchanged, as `response` says: its life starts anew.
    pub(super) fn renew(
        &self,
        wanted: &Target,
        (record, open): Copy,
        response: &UpstreamResponse,
    ) -> Fetched {
        count(&wanted.entry.counters.revalidated);
        let now = self.now();
        // What was negotiated is read by its type, which an answer without a body may not know.
        let reads_as = wanted.spec.accept.is_some();
        let headers = record
            .headers
            .renewed_by(&stored_headers(wanted, &response.headers), reads_as);
        let renewed = Arc::new(ArtifactRecord {
            fresh_since: now,
            contacted_at: now,
            headers,
            ..ArtifactRecord::clone(&record)
        });
        let status = CacheStatus {
            forward: Some(ForwardReason::Stale),
            forward_status: Some(response.status.as_u16()),
            detail: (response.status != StatusCode::NOT_MODIFIED).then_some(CacheStatus::UNCHANGED),
            ..CacheStatus::default()
        };
        let settled = Settled {
            record: Arc::clone(&renewed),
            body: open,
            status,
            source: Source::Cache,
            reusable: true,
            document: None,
        };
        (settled, Some(RecordChange::Renew { record: renewed }), None)
    }

    /// A 304 came; `None` if it is said of another body than the one that is held: then only the body itself can tell.
    pub(super) fn not_modified(
        &self,
        wanted: &Target,
        copy: &mut Option<Copy>,
        response: &UpstreamResponse,
    ) -> Option<Fetched> {
        let unchanged = copy.take_if(|(record, _)| is_about(wanted, response, record));
        if unchanged.is_none() {
            warn_once!(
                wanted,
                "other_304",
                "the upstream answered 304 with the tag of another body; it is asked without conditions"
            );
        }
        unchanged.map(|copy| self.renew(wanted, copy, response))
    }

    /// Nothing new came: serve the copy, pass the status on, or fail, as `settle` says.
    pub(super) fn settle_failure(
        &self,
        wanted: &Target,
        copy: Option<Copy>,
        no_body: &FetchError,
    ) -> FetchResult {
        let now = self.now();
        let policy = &wanted.entry.repository.cache;
        let record = copy.as_ref().map(|(record, _)| record.as_ref());
        let settlement = settle(no_body.outcome, record, wanted.class, policy, now);
        match (settlement, copy) {
            (Settlement::ServeStale { renew }, Some(copy)) => {
                Ok(self.stale(wanted, copy, no_body, renew))
            }
            (
                Settlement::PassOn {
                    status,
                    keep_copy,
                    negative_ttl,
                    retry_after,
                },
                copy,
            ) => {
                let fault = passed_on(wanted, status, retry_after);
                let change = match (negative_ttl, keep_copy, copy) {
                    (Some(_), false, copy) => Some(RecordChange::Absent {
                        status,
                        at: now,
                        was_held: copy.is_some(),
                    }),
                    (None, false, Some(_)) => Some(RecordChange::Drop),
                    _ => None,
                };
                if matches!(change, Some(RecordChange::Drop)) {
                    self.catalog.supersede(&wanted.entry);
                }
                Err((fault, change))
            }
            (Settlement::Fail { timed_out }, _) => Err((failed(wanted, timed_out, no_body), None)),
            (Settlement::Replace | Settlement::Renew | Settlement::ServeStale { .. }, _) => {
                Err((failed(wanted, false, no_body), None))
            }
        }
    }

    /// An expired copy, served because nothing new came; where it is to `renew`, nobody is asked again for as long as a fresh one lives.
    fn stale(
        &self,
        wanted: &Target,
        (record, open): Copy,
        no_body: &FetchError,
        renew: bool,
    ) -> Fetched {
        let now = self.now();
        warn_once!(
            wanted,
            no_body.code.as_str(),
            "the expired copy is served",
            reason = no_body.code.as_str(),
            detail = no_body.message
        );
        count(&wanted.entry.counters.stale_served);
        let record = if renew {
            Arc::new(ArtifactRecord {
                fresh_since: now,
                ..ArtifactRecord::clone(&record)
            })
        } else {
            record
        };
        let status = no_body.cache_status(&record, wanted, now);
        let change = renew.then(|| RecordChange::Renew {
            record: Arc::clone(&record),
        });
        let settled = Settled {
            record,
            body: open,
            status,
            source: Source::Cache,
            reusable: renew,
            document: None,
        };
        (settled, change, None)
    }

    /// The fault for an upstream that gave nothing, when there is no copy.
    pub(super) fn no_copy(&self, wanted: &Target, no_body: &FetchError) -> Fault {
        match self.settle_failure(wanted, None, no_body) {
            Err((fault, _)) => fault,
            Ok(_) => Fault::new(
                FaultKind::Internal,
                ErrorCode::Internal,
                "there is no copy to serve",
            ),
        }
    }
}

/// A new body, as those get it who waited for it.
pub(super) fn arrived(filled: FetchedBody, copy: Option<Copy>, reason: ForwardReason) -> Fetched {
    let status = CacheStatus {
        forward: Some(reason),
        forward_status: Some(200),
        stored: filled.change.is_some() && filled.detail.is_none(),
        detail: filled.detail,
        ..CacheStatus::default()
    };
    let settled = Settled {
        record: filled.record,
        body: filled.body,
        status,
        source: Source::Remote,
        reusable: filled.change.is_some(),
        document: filled.document,
    };
    (settled, filled.change, copy.map(|(record, _)| record))
}

fn text(response: &UpstreamResponse, name: header::HeaderName) -> Option<Cow<'_, str>> {
    response.headers.get(name).map(field_text)
}

/// Whether an answer states, by digest, which bytes it is about, and whether these are those of `record`.
fn states_bytes_of(
    wanted: &Target,
    response: &UpstreamResponse,
    record: &ArtifactRecord,
) -> Option<bool> {
    let stated = wanted
        .format
        .digest_in_head(&wanted.facts, &response.headers)?;
    Some(
        record.headers.digest.as_ref() == Some(&stated)
            || record.blob().is_some_and(|blob| blob.digest == stated),
    )
}

/// Whether a 304 is about the copy that was asked after.
fn is_about(wanted: &Target, response: &UpstreamResponse, record: &ArtifactRecord) -> bool {
    states_bytes_of(wanted, response, record)
        .unwrap_or_else(|| confirms(text(response, header::ETAG).as_deref(), record))
}

pub(super) fn head_verdict(
    wanted: &Target,
    response: &UpstreamResponse,
    record: &ArtifactRecord,
) -> HeadVerdict {
    if matches!(response.status, StatusCode::OK | StatusCode::NOT_MODIFIED)
        && let Some(held) = states_bytes_of(wanted, response, record)
    {
        return if held {
            HeadVerdict::Unchanged
        } else {
            HeadVerdict::Changed
        };
    }
    let length = text(response, header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
    let (etag, date) = (
        text(response, header::ETAG),
        text(response, header::LAST_MODIFIED),
    );
    judge_head(
        response.status.as_u16(),
        etag.as_deref(),
        date.as_deref(),
        length,
        record,
    )
}

/// The record of a generation's member that its upstream does not have.
pub(super) fn negative(wanted: &Target, status: u16, now: UnixMillis) -> ArtifactRecord {
    ArtifactRecord {
        content: Content::Negative { status },
        headers: larder_core::StoredHeaders::default(),
        source_url: String::new(),
        published_at: None,
        first_seen_at: now,
        contacted_at: now,
        fresh_since: now,
        served_since: now,
        verified: wanted.spec.is_document,
    }
}

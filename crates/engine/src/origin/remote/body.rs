//! The body of one answer: what its head says of it, from when on it may leave, and what knows its format. How its bytes come in stands
//! in `transfer/`.

use std::sync::Arc;

use larder_core::{ArtifactRecord, Dates, Fault, UnixMillis};
use larder_upstream::Framing;
use tokio::time::{Instant, timeout};

use super::copies::Copies;
use super::fields::draft;
use super::inspector::FormatInspector;
use super::mirrors::Mirrors;
use super::places::is_hint;
use super::query::Arrival;
use super::supply::MirrorSupply;
use crate::budget::Lease;
use crate::catalog::RecordChange;
use crate::causes::warn_once;
use crate::counters::count;
use crate::document::expectation::Expectation;
use crate::document::inquiry::Inquiry;
use crate::fault::FetchError;
use crate::policy::clearance;
use crate::policy::ruling::{Facts, dates_of, goes_by_stated_date};
use crate::target::Target;
use crate::transfer::Transfers;
use crate::transfer::download::Download;
use crate::transfer::fill::{Fill, Release};
use crate::transfer::flight::Flight;
use crate::transfer::received::FetchedBody;

/// Why a download gave nothing to keep.
#[derive(Debug)]
pub(super) enum Stopped {
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

/// What a body comes in with.
pub(super) struct Bodies<'a> {
    pub(super) transfers: &'a Transfers,
    pub(super) mirrors: &'a Arc<Mirrors>,
    pub(super) copies: &'a Copies,
    pub(super) inquiry: &'a Inquiry,
    pub(super) now: UnixMillis,
}

impl Bodies<'_> {
    /// Takes in a 200's body. Followers may read it while it arrives.
    pub(super) async fn fill(
        &self,
        (flight, place): (&Flight, &Lease),
        wanted: &Arc<Target>,
        prior: Option<&ArtifactRecord>,
        arrival: Arrival,
        mut expectation: Expectation,
    ) -> Result<FetchedBody, Stopped> {
        let stated = self.stated(wanted, prior).await;
        let response = &arrival.response;
        let draft = draft(wanted, response, prior, stated, self.now);
        expectation.learn_from_head(&draft.headers);
        let total = response.body.declared_length();
        self.judge_head(wanted, &draft, total)?;
        self.transfers.refuse_oversized(wanted, total)?;
        let whole_only = self.is_whole_only(wanted, (&draft, stated), prior);
        let limits = self.transfers.limits();
        let ring_capacity = if whole_only {
            limits.document_size as usize
        } else {
            limits.ring_bytes
        };
        let expects_digest = expectation.expects_digest();
        // What has no marked end may have been cut (hazard W2).
        let has_end = response.body.framing() != Framing::ConnectionClose || expects_digest;
        let fill = Fill::new(
            draft,
            total,
            expects_digest,
            self.release(wanted, &arrival, whole_only, expects_digest),
            has_end && self.transfers.may_be_kept(wanted, total),
            ring_capacity,
        );
        let fill = Arc::new(fill.stated(stated));
        let download = Download {
            wanted,
            flight,
            place,
            prior,
            fill,
            ring_capacity,
        };
        let supply = MirrorSupply {
            mirrors: self.mirrors,
            wanted,
            claimed: arrival.claimed,
        };
        let mut inspector = FormatInspector {
            wanted,
            expectation,
            inquiry: self.inquiry,
        };
        let coming = (arrival.response.body, arrival.mirror);
        let downloaded = self
            .transfers
            .download(download, coming, &supply, &mut inspector);
        let mut fetched = downloaded.await?;
        tell_cut_list(wanted, &fetched.record);
        if let Some(RecordChange::Store { record, also, .. }) = &mut fetched.change {
            *also = self.copies.unheld_by_digest(wanted, record).await;
        }
        Ok(fetched)
    }

    /// When the registry states that the file was published, where that may count: for bytes that are not those of before it always does.
    async fn stated(
        &self,
        wanted: &Arc<Target>,
        prior: Option<&ArtifactRecord>,
    ) -> Option<UnixMillis> {
        let may_count =
            prior.is_none_or(|prior| prior.published_at.is_none() || prior.blob().is_some());
        if !may_count {
            return None;
        }
        stated_date(self.inquiry, wanted).await
    }

    /// From when on bytes of the body may leave.
    fn release(
        &self,
        wanted: &Target,
        arrival: &Arrival,
        whole_only: bool,
        expects_digest: bool,
    ) -> Release {
        // A redirect has led there, and the usual place may know better.
        let is_led = arrival.claimed.is_some() && is_hint(wanted, arrival.claimed.as_ref());
        if whole_only {
            Release::AtTheEnd
        } else if expects_digest && (arrival.has_mirror_beside || is_led) {
            Release::From(Instant::now() + self.transfers.limits().held_back)
        } else {
            Release::AtOnce
        }
    }

    /// Whether it is known only at the end what the bytes are, or whether they may leave.
    fn is_whole_only(
        &self,
        wanted: &Target,
        (draft, stated): (&ArtifactRecord, Option<UnixMillis>),
        prior: Option<&ArtifactRecord>,
    ) -> bool {
        let labelled =
            draft.headers.content_encoding.is_some() && !wanted.format.profile().keeps_coding;
        let is_checked = self.transfers.check_limit(wanted).is_some();
        is_checked || labelled || self.may_be_held(wanted, (draft, stated), prior)
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
            now: self.now,
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
        (draft, stated): (&ArtifactRecord, Option<UnixMillis>),
        prior: Option<&ArtifactRecord>,
    ) -> bool {
        let modified = draft.headers.last_modified.as_deref();
        let facts = Facts {
            dates: Dates {
                stated,
                last_modified: modified.and_then(UnixMillis::from_http_date),
                first_seen_at: draft.contacted_at,
            },
            now: self.now,
        };
        prior.is_some_and(|prior| prior.blob().is_some())
            && wanted
                .judged(draft, None)
                .and_then(|class| clearance::clear(&wanted.entry.repository, class, &facts, ()))
                .is_err()
    }
}

/// Says of a list that clients get no more of it than this page.
fn tell_cut_list(wanted: &Target, page: &ArtifactRecord) {
    let held = wanted.held(&page.headers, None);
    if wanted.format.ends_early(&wanted.entry.repository, &held) {
        warn_once!(
            wanted,
            "list_cut",
            "the upstream's link to the next page of a list leads to the same page or elsewhere; clients get no further than this page"
        );
    }
}

/// When the registry says that a file was published, where quarantine goes by that: the naming document is read for it, if need be;
/// where it cannot be had in the time that the upstream has for a byte, `None`.
pub(super) async fn stated_date(inquiry: &Inquiry, wanted: &Arc<Target>) -> Option<UnixMillis> {
    if !goes_by_stated_date(wanted) {
        return None;
    }
    // An index that drips keeps the file's place from nobody: then it counts as one that cannot be had.
    let patience = wanted.entry.repository.upstream()?.read_timeout;
    timeout(patience, inquiry.stated_date(wanted)).await.ok()?
}

//! One body, from its first byte to what is kept of it: taken in, given up where others want its place, and found right or wrong.

use std::sync::Arc;

use larder_core::{ArtifactRecord, ErrorCode, Fault, Outcome};
use larder_upstream::BodyStream;

use crate::budget::Lease;
use crate::counters::count;
use crate::fault::{FetchError, failed, gave_way};
use crate::repositories::mirror::Mirror;
use crate::target::Target;
use crate::transfer::Transfers;
use crate::transfer::fill::Fill;
use crate::transfer::flight::Flight;
use crate::transfer::intake::{Coming, Intake};
use crate::transfer::received::{FetchedBody, Received};
use crate::transfer::resume::Supply;
use crate::transfer::turns::asked_back;
use crate::transfer::verify::{Inspector, Verification};

/// A body whose head is known and may come in.
pub(crate) struct Download<'a> {
    pub(crate) wanted: &'a Target,
    pub(crate) flight: &'a Flight,
    /// Its place among other downloads.
    pub(crate) place: &'a Lease,
    /// What was remembered before.
    pub(crate) prior: Option<&'a ArtifactRecord>,
    /// Where it arrives, with what its head says.
    pub(crate) fill: Arc<Fill>,
    /// Bytes that may wait in memory for readers where the disk does not take them.
    pub(crate) ring_capacity: usize,
}

impl Transfers {
    /// Takes in a body, and finds out whether it is the right one. Followers may read it while it arrives.
    ///
    /// # Errors
    /// It broke off and nobody has the rest, it is not what is stated of it, or it gave way to others. Who has begun to read it is told.
    pub(crate) async fn download(
        &self,
        download: Download<'_>,
        (body, mirror): (BodyStream, Option<Arc<Mirror>>),
        supply: &impl Supply,
        inspector: &mut impl Inspector,
    ) -> Result<FetchedBody, FetchError> {
        let coming = Coming { body, mirror };
        let fetched = match self.take_in(&download, coming, supply, inspector).await {
            Ok(received) => self.keep(&download, received, inspector).await,
            Err(no_body) => Err(no_body),
        };
        if let Err(no_body) = &fetched {
            download.fill.fail(cause(download.wanted, no_body));
        }
        fetched
    }

    async fn take_in(
        &self,
        download: &Download<'_>,
        coming: Coming,
        supply: &impl Supply,
        inspector: &impl Inspector,
    ) -> Result<Received, FetchError> {
        let Download {
            wanted,
            flight,
            place,
            fill,
            ring_capacity,
            ..
        } = download;
        // What another replica brings to the store is looked for there at the end.
        let is_stored_here = flight.followed().is_none();
        let holding = (*ring_capacity, is_stored_here);
        let intake = Intake::new(self, wanted, fill, inspector, holding);
        flight.begin_fill(Arc::clone(fill));
        tokio::select! {
            received = intake.run(coming, supply) => received,
            usage = asked_back(flight, place, Some(fill)) => Err(gave_way(usage)),
        }
    }

    /// What is kept of a body, if it is the right one. Where nothing marked its end, only a digest can tell that it is all there.
    async fn keep(
        &self,
        download: &Download<'_>,
        received: Received,
        inspector: &mut impl Inspector,
    ) -> Result<FetchedBody, FetchError> {
        let wanted = download.wanted;
        let end_marked = received.end_marked;
        let verification = Verification {
            transfers: self,
            flight: download.flight,
            wanted,
            inspector,
        };
        let mut fetched = verification
            .verify(&download.fill, received, download.prior)
            .await?;
        if !end_marked && (wanted.spec.is_document || !fetched.record.verified) {
            fetched.change = None;
            fetched.detail = Some("not-kept");
            count(&wanted.entry.counters.fills_not_kept);
        }
        if !self.may_be_kept(wanted, fetched.record.blob().map(|blob| blob.size)) {
            // The catalog leaves it out, and says so.
            fetched.detail = Some("not-kept");
        }
        Ok(fetched)
    }

    /// Whether a body of this length, as far as it is known, is within all bounds.
    pub(crate) fn may_be_kept(&self, wanted: &Target, length: Option<u64>) -> bool {
        let most = self.catalog.longest_kept(&wanted.entry.repository);
        length.is_none_or(|length| length <= most)
    }

    /// Whether a body of this length, as far as it is known, may come in.
    ///
    /// # Errors
    /// It is longer than its format looks into.
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
        let document_size = self.limits.document_size;
        let document = wanted.spec.is_document.then_some(document_size);
        document.or(wanted.facts.check_limit)
    }
}

/// Why a body broke off, for those who have its head already.
fn cause(wanted: &Target, no_body: &FetchError) -> Fault {
    failed(wanted, no_body.outcome == Outcome::TimedOut, no_body).about(&wanted.key)
}

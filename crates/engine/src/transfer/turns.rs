//! A flight's turn among others: waiting for a place, and giving it up to others when nobody waits for what it brings.

use std::sync::Arc;
use std::time::Duration;

use crate::budget::{BudgetKind, Lease};
use crate::fault::{FetchError, too_much_under_way};
use crate::target::Target;
use crate::transfer::Transfers;
use crate::transfer::audience::Audience;
use crate::transfer::fill::Fill;
use crate::transfer::flight::Flight;

/// How often a download that nobody waits for looks whether its place is wanted.
const LOOK_AROUND: Duration = Duration::from_secs(1);
/// What has to come of it in that time for it to keep its place, in bytes.
const LEAST_UNREAD: u64 = 64 << 10;

/// Why a flight has no place.
#[derive(Debug)]
pub(crate) enum NoPlace {
    /// Nobody waits for it any more.
    GivenUp,
    Refused(FetchError),
}

impl Transfers {
    /// A place for what this flight downloads. Where `may_be_dropped`, it is waited for as long as somebody waits for the flight.
    pub(crate) async fn take_place(
        &self,
        flight: &Flight,
        wanted: &Target,
        may_be_dropped: bool,
    ) -> Result<Lease, NoPlace> {
        // Files wait for their documents, so documents must never wait for files; a document that heads a generation waits for the files
        // of it, so these must not wait either.
        let waited_for = wanted.spec.is_document || wanted.facts.role.is_some();
        let kind = if waited_for {
            BudgetKind::Documents
        } else {
            BudgetKind::Downloads
        };
        let given_up = async {
            if !may_be_dropped {
                std::future::pending::<()>().await;
            }
            flight.given_up().await;
        };
        tokio::select! {
            biased;
            place = self.budgets.place(kind, &wanted.entry.repository.name) => {
                place.map_err(|refused| NoPlace::Refused(too_much_under_way(refused)))
            }
            () = given_up => Err(NoPlace::GivenUp),
        }
    }

    /// A place for a question that brings no body.
    pub(crate) async fn take_head_place(&self, wanted: &Target) -> Result<Lease, FetchError> {
        let repository = &wanted.entry.repository.name;
        let place = self.budgets.place(BudgetKind::Heads, repository).await;
        place.map_err(too_much_under_way)
    }
}

/// Ends when a place has been wanted by others for a while in which nobody waited for this flight and next to nothing came.
pub(crate) async fn wanted_by_others(flight: &Flight, place: &Lease, fill: Option<&Arc<Fill>>) {
    let come = || fill.map_or(0, |fill| fill.subscribe().borrow().available);
    let mut before = come();
    loop {
        tokio::time::sleep(LOOK_AROUND).await;
        let now = come();
        let is_slow = now - before < LEAST_UNREAD;
        before = now;
        if is_slow && flight.is_given_up() && place.is_wanted() {
            tracing::debug!(key = %flight.key, "nobody waits for a slow download, and its place is wanted: it ends");
            return;
        }
    }
}

/// Ends when a place is wanted by others, and all who waited for what it is used for have gone.
pub(crate) async fn left_and_wanted(audience: &Audience, place: &Lease) {
    while !(audience.has_left() && place.is_wanted()) {
        tokio::time::sleep(LOOK_AROUND).await;
    }
}

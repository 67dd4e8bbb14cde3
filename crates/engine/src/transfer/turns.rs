//! A flight's turn among others: waiting for a place, and giving it up to others who need it more.

use std::sync::Arc;

use crate::budget::{BudgetKind, Lease, Usage};
use crate::fault::{FetchError, too_much_under_way};
use crate::target::Target;
use crate::transfer::Transfers;
use crate::transfer::audience::Audience;
use crate::transfer::fill::Fill;
use crate::transfer::flight::Flight;
use crate::transfer::looks::{LOOK_AROUND, Looks};

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
        let kind = if wanted.is_waited_for() {
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
        let repository = wanted.entry.repository.name.as_str();
        tokio::select! {
            biased;
            place = self.budgets.place(kind, repository) => {
                place.map_err(|refused| NoPlace::Refused(too_much_under_way(refused)))
            }
            () = given_up => Err(NoPlace::GivenUp),
        }
    }

    /// A place for a question that brings no body.
    pub(crate) async fn take_head_place(&self, wanted: &Target) -> Result<Lease, FetchError> {
        let repository = wanted.entry.repository.name.as_str();
        let place = self.budgets.place(BudgetKind::Heads, repository).await;
        place.map_err(too_much_under_way)
    }
}

/// Ends when the place of this flight is to be given up: nobody waits for the flight, and next to nothing came in a while in which others
/// wanted the place; or somebody does, but it is slow and its upstream has more than its part of what others lack. Gives which.
pub(crate) async fn asked_back(flight: &Flight, place: &Lease, fill: Option<&Arc<Fill>>) -> Usage {
    let come = || fill.map_or(0, |fill| fill.subscribe().borrow().available);
    let watched = Watched(place);
    let mut looks = Looks::new(come());
    loop {
        tokio::time::sleep(LOOK_AROUND).await;
        let usage = looks.usage(come(), !flight.is_given_up());
        if watched.0.should_yield(usage) {
            tracing::debug!(key = %flight.key, ?usage, "a slow download ends: its place is wanted by others");
            return usage;
        }
    }
}

/// Ends when the place of a question that brings no body is to be given up. Gives whether anybody waits for it.
pub(crate) async fn head_asked_back(audience: &Audience, place: &Lease) -> Usage {
    let watched = Watched(place);
    let mut looks = Looks::new(0);
    loop {
        tokio::time::sleep(LOOK_AROUND).await;
        let usage = looks.usage(0, !audience.has_left());
        if watched.0.should_yield(usage) {
            return usage;
        }
    }
}

/// A place of which it is said how it is used, until this is dropped: what follows then is larder's own work.
struct Watched<'p>(&'p Lease);

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.0.should_yield(Usage::Busy);
    }
}

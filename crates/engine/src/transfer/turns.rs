//! A flight's turn among others: waiting for a place, and giving it up to others who need it more.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use larder_core::ErrorCode;

use crate::budget::{BudgetKind, Lease, Usage};
use crate::fault::{FetchError, too_much_under_way};
use crate::target::Target;
use crate::transfer::Transfers;
use crate::transfer::audience::Audience;
use crate::transfer::fill::Fill;
use crate::transfer::flight::Flight;

/// How often whoever has a place looks whether it is to be given up.
const LOOK_AROUND: Duration = Duration::from_secs(1);
/// What has to come in that time of what nobody waits for, for it to keep a place that others want, in bytes.
const LEAST_UNREAD: u64 = 64 << 10;
/// After so many looks what somebody waits for is slow, if less than [`LEAST_READ`] bytes have come between them.
const WINDOW: usize = 5;
const LEAST_READ: u64 = 80 << 10;

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
    let mut seen = VecDeque::from([come()]);
    loop {
        tokio::time::sleep(LOOK_AROUND).await;
        let now = come();
        let since = |looks: usize| {
            let before = seen.len().checked_sub(looks)?;
            Some(now - seen.get(before).copied()?)
        };
        let usage = if since(1).is_none_or(|bytes| bytes >= LEAST_UNREAD) {
            Usage::Busy
        } else if flight.is_given_up() {
            Usage::Idle
        } else if since(WINDOW).is_some_and(|bytes| bytes < LEAST_READ) {
            Usage::Slow
        } else {
            Usage::Busy
        };
        if watched.0.should_yield(usage) {
            tracing::debug!(key = %flight.key, ?usage, "a slow download ends: its place is wanted by others");
            return usage;
        }
        seen.push_back(now);
        if seen.len() > WINDOW {
            seen.pop_front();
        }
    }
}

/// Ends when the place of a question that brings no body is to be given up. Gives whether anybody waits for it.
pub(crate) async fn head_asked_back(audience: &Audience, place: &Lease) -> Usage {
    let watched = Watched(place);
    for looks in 1.. {
        tokio::time::sleep(LOOK_AROUND).await;
        let usage = if audience.has_left() {
            Usage::Idle
        } else if looks < WINDOW {
            Usage::Busy
        } else {
            Usage::Slow
        };
        if watched.0.should_yield(usage) {
            return usage;
        }
    }
    Usage::Idle
}

/// A place of which it is said how it is used, until this is dropped: what follows then is larder's own work.
struct Watched<'p>(&'p Lease);

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.0.should_yield(Usage::Busy);
    }
}

/// Why something ended whose place others needed more.
pub(crate) fn gave_way(usage: Usage) -> FetchError {
    let (code, message) = if usage == Usage::Idle {
        let message = "nobody waited for this slow download any more, and it ended to make room for others; ask again";
        (ErrorCode::Interrupted, message)
    } else {
        let message = "its upstream is slow and had more under way than its part, so this ended to make room for other repositories; ask again later";
        (ErrorCode::Busy, message)
    };
    FetchError::unusable(code, message)
}

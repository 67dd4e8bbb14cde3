//! Starting the one flight for a source.

use std::sync::Arc;

use larder_core::time_to_live;

use super::fly::asks_again;
use super::parts::Remote;
use crate::document::inquiry::Launch;
use crate::target::Target;
use crate::transfer::flight::{Effort, Flight};

impl Launch for Remote {
    fn launch(self: Arc<Self>, document: &Arc<Target>, effort: Effort) -> (Arc<Flight>, bool) {
        self.flight_or_join(document, effort)
    }
}

impl Remote {
    /// The running flight for this source, or a new one.
    pub(super) fn flight(self: &Arc<Self>, wanted: &Arc<Target>, effort: Effort) -> Arc<Flight> {
        self.flight_or_join(wanted, effort).0
    }

    /// The same; `true` if it is a new one.
    pub(super) fn flight_or_join(
        self: &Arc<Self>,
        wanted: &Arc<Target>,
        effort: Effort,
    ) -> (Arc<Flight>, bool) {
        let join_ended = !asks_again(wanted, effort) && !self.brought_a_folder(wanted);
        self.transfers
            .flights
            .join_or_start(&wanted.key, join_ended, |flight| {
                let (engine, wanted) = (Arc::clone(self), Arc::clone(wanted));
                // Boxed: whoever starts a flight would carry it.
                async move { Box::pin(engine.fly(flight, wanted, effort)).await }
            })
    }

    /// Whether a flight that has just ended brought a folder of which every request must ask the upstream (`mutable_ttl: 0`): the path
    /// alone does not tell.
    fn brought_a_folder(&self, wanted: &Target) -> bool {
        let asks_always = |class| {
            time_to_live(class, &wanted.entry.repository.cache).is_some_and(|ttl| ttl.is_zero())
        };
        wanted.format.profile().passes_folders_on
            && self
                .transfers
                .flights
                .running(&wanted.key)
                .and_then(|flight| flight.arrived())
                .is_some_and(|settled| asks_always(wanted.class_of(&settled.record)))
    }
}

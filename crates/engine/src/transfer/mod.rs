//! Bytes on their way, and where they are kept. Knows no format: what one has to say of a body comes as an argument (`verify.rs`), and so
//! does whoever is asked for the rest of one that was cut (`resume.rs`).
//!
//! | file | knows |
//! |---|---|
//! | `audience.rs` | who waits for something under way |
//! | `flights.rs`, `flight.rs` | one detached download per key, many who wait for it and read it |
//! | `turns.rs` | a flight's turn among others, and when it gives its place up |
//! | `fill.rs` | a download while it arrives: its growing spool, and from when on its bytes may leave |
//! | `download.rs` | one body from its first byte to what is kept of it |
//! | `intake.rs`, `resume.rs`, `verify.rs` | its bytes, what follows a cut, whether it is the right one |
//! | `received.rs` | a body that has arrived, and its record |
//! | `files.rs` | reading, hashing and storing whole files |
//! | `spliced.rs` | documents that get the name that the client has for larder while they are sent |
//! | `passthrough.rs` | bodies that are passed through |
//! | `looks.rs` | how a place is used by what brings so many bytes |

pub(crate) mod audience;
pub(crate) mod download;
pub(crate) mod files;
pub(crate) mod fill;
pub(crate) mod flight;
pub(crate) mod flights;
mod intake;
pub(crate) mod looks;
pub(crate) mod passthrough;
pub(crate) mod received;
pub(crate) mod resume;
pub(crate) mod spliced;
pub(crate) mod turns;
pub(crate) mod verify;

use std::sync::Arc;

use flight::Flight;
use flights::{Flights, Landed};
use larder_core::{Clock, UnixMillis};
use larder_storage::BlobStore;

use crate::budget::{Budgets, Limits};
use crate::catalog::{Catalog, Landing};

/// Downloads under way, and the files that bytes are kept in.
#[derive(Debug)]
pub(crate) struct Transfers {
    pub(crate) flights: Arc<Flights>,
    catalog: Arc<Catalog>,
    blobs: Arc<dyn BlobStore>,
    budgets: Arc<Budgets>,
    limits: Limits,
    clock: Arc<dyn Clock>,
}

/// What transfers are made with.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) blobs: Arc<dyn BlobStore>,
    pub(crate) budgets: Arc<Budgets>,
    pub(crate) limits: Limits,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Transfers {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            flights: Arc::default(),
            catalog: parts.catalog,
            blobs: parts.blobs,
            budgets: parts.budgets,
            limits: parts.limits,
            clock: parts.clock,
        })
    }

    /// The flight as who waits for a commit to become visible.
    pub(crate) fn landing(&self, flight: &Arc<Flight>) -> Arc<dyn Landing> {
        Arc::new(Landed {
            flights: Arc::clone(&self.flights),
            flight: Arc::clone(flight),
        })
    }

    /// The bounds that bodies are taken in by.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    fn now(&self) -> UnixMillis {
        self.clock.now()
    }
}

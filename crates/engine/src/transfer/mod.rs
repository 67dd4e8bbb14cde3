//! Bytes on their way, and where they are kept. Knows no format.
//!
//! | file | knows |
//! |---|---|
//! | `audience.rs` | who waits for something under way |
//! | `flight.rs` | one detached download per key, many who wait for it and read it |
//! | `fill.rs` | a download while it arrives: its growing spool, and from when on its bytes may leave |
//! | `received.rs` | a body that has arrived, and its record |
//! | `files.rs` | reading, hashing and storing whole files |
//! | `spliced.rs` | documents that get the name that the client has for larder while they are sent |
//! | `passthrough.rs` | bodies that are passed through |
//! | `looks.rs` | how a place is used by what brings so many bytes |

pub(crate) mod audience;
pub(crate) mod files;
pub(crate) mod fill;
pub(crate) mod flight;
pub(crate) mod looks;
pub(crate) mod passthrough;
pub(crate) mod received;
pub(crate) mod spliced;

use std::sync::Arc;

use flight::{Flight, Flights, Landed};
use larder_storage::BlobStore;

use crate::catalog::{Catalog, Landing};

/// Downloads under way, and the files that bytes are kept in.
#[derive(Debug)]
pub(crate) struct Transfers {
    pub(crate) flights: Arc<Flights>,
    catalog: Arc<Catalog>,
    blobs: Arc<dyn BlobStore>,
}

impl Transfers {
    pub(crate) fn new(catalog: Arc<Catalog>, blobs: Arc<dyn BlobStore>) -> Arc<Self> {
        Arc::new(Self {
            flights: Arc::default(),
            catalog,
            blobs,
        })
    }

    /// The flight as who waits for a commit to become visible.
    pub(crate) fn landing(&self, flight: &Arc<Flight>) -> Arc<dyn Landing> {
        Arc::new(Landed {
            flights: Arc::clone(&self.flights),
            flight: Arc::clone(flight),
        })
    }
}

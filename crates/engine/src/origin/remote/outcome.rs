//! What comes of a flight.

use std::sync::Arc;

use larder_core::{ArtifactRecord, Fault};

use crate::catalog::RecordChange;
use crate::transfer::flight::Settled;

/// A flight's end: what is served, what is to be committed, and the record that is replaced.
pub(super) type FetchResult = Result<Fetched, (Fault, Option<RecordChange>)>;

/// What is served, what is to be committed, and the record that is replaced.
pub(super) type Fetched = (Settled, Option<RecordChange>, Option<Arc<ArtifactRecord>>);

//! The operator's verbs and views: flush, explanations, the collection of what nothing refers to, what is held, and how all is doing. Nothing here is
//! on the way of a request for an artifact.

mod ages;
mod archive;
mod condition;
mod explain;
mod flush;
mod forget;
mod health;
mod hearsay;
mod held;
mod ledger;
mod offered;
mod operator;
mod reports;
mod sizes;
mod summary;
mod upkeep;

pub use crate::counters::LatencyReport;
pub use crate::repositories::lag::IndexLag;
pub use archive::{
    Archive, ArchiveLink, ArchivePage, ArchiveRow, ArchiveTaken, ArchivedFile, LeftAlone,
};
pub use condition::{BackendHealth, DiskSpace, Health};
pub(crate) use explain::Explainer;
pub use flush::{CacheType, FlushReport, FlushRequest};
pub use forget::Queries;
pub use held::{HeldArtifact, HeldCursor, HeldPage, HeldRequest};
pub use ledger::{
    Forecast, History, HistoryPoint, Ledger, MissingPath, Outage, RecentError, RecentErrors,
    RefusedGroup, Span, TrafficSource,
};
pub(crate) use offered::Offers;
pub use offered::{OfferPage, OfferRequest, OfferedArtifact};
pub(crate) use operator::{Operator, storage_unavailable};
pub use summary::HeldSummary;

//! Where what a repository holds comes from: a repository's kind is an origin. Above it nobody knows the kind; below it, state changes
//! through the catalog and bytes move as transfers.

pub(crate) mod local;
pub(crate) mod remote;
pub(crate) mod virtual_;

use std::future::Future;
use std::sync::Arc;

use larder_core::{CacheStatus, Fault};
use larder_storage::GrowingBody;

use crate::target::Target;
use crate::transfer::fill::Fill;
use crate::transfer::flight::Settled;

/// How much is to be found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// What is due: a fresh copy is as good as any.
    Usual,
    /// The client asks for it anew.
    Anew,
}

/// How a request's bytes were come by.
#[derive(Debug)]
pub(crate) enum Held {
    /// They are there.
    Whole(Settled),
    /// They are arriving, and may be read meanwhile.
    InFlight(Arc<Fill>, GrowingBody, CacheStatus),
}

/// Produces what a repository holds. A remote asks its upstream.
pub(crate) trait Origin {
    /// A document: whole and checked.
    fn document(
        &self,
        target: &Arc<Target>,
        need: Need,
    ) -> impl Future<Output = Result<Settled, Fault>> + Send;

    /// A file: it may still be arriving.
    fn file(
        &self,
        target: &Arc<Target>,
        need: Need,
    ) -> impl Future<Output = Result<Held, Fault>> + Send;
}

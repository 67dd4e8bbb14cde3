//! What a remote is made of.

use std::sync::Arc;

use larder_core::{Clock, UnixMillis};
use larder_storage::BlobStore;
use larder_upstream::Upstream;

use super::copies::Copies;
use super::fetch::Fetcher;
use super::generation::Generations;
use super::generation::readers::ReaderGate;
use super::heads::Heads;
use super::landing::Landings;
use super::mirrors::Mirrors;
use super::refusals::Refusals;
use crate::catalog::Catalog;
use crate::cluster::Membership;
use crate::document::Documents;
use crate::document::inquiry::{Inquiry, Launch};
use crate::repositories::Registry;
use crate::transfer::Transfers;

/// What larder needs to ask upstreams.
#[derive(Debug)]
pub(crate) struct Remote {
    pub(super) registry: Arc<Registry>,
    pub(super) catalog: Arc<Catalog>,
    pub(super) transfers: Arc<Transfers>,
    pub(super) documents: Arc<Documents>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) heads: Heads,
    pub(super) readings: Arc<ReaderGate>,
    pub(super) fetcher: Arc<Fetcher>,
    pub(super) landings: Arc<Landings>,
    pub(super) generations: Arc<Generations>,
    /// What is held, and may be served where nobody answers.
    pub(crate) copies: Arc<Copies>,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) mirrors: Arc<Mirrors>,
    /// The other replicas, if there are any.
    pub(crate) cluster: Membership,
}

/// What a remote is made with.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub(crate) registry: Arc<Registry>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) transfers: Arc<Transfers>,
    pub(crate) documents: Arc<Documents>,
    pub(crate) blobs: Arc<dyn BlobStore>,
    pub(crate) upstream: Arc<dyn Upstream>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Remote {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let Parts {
            registry,
            catalog,
            transfers,
            documents,
            blobs,
            upstream,
            clock,
        } = parts;
        let mirrors = Mirrors::new(upstream, Arc::clone(&clock));
        let refusals = Arc::new(Refusals::new(Arc::clone(catalog.news())));
        let readings = Arc::<ReaderGate>::default();
        let copies = Arc::new(Copies {
            catalog: Arc::clone(&catalog),
            flights: Arc::clone(&transfers.flights),
            documents: Arc::clone(&documents),
            blobs,
            clock: Arc::clone(&clock),
        });
        let fetcher = Arc::new(Fetcher {
            catalog: Arc::clone(&catalog),
            transfers: Arc::clone(&transfers),
            copies: Arc::clone(&copies),
            mirrors: Arc::clone(&mirrors),
            refusals: Arc::clone(&refusals),
            clock: Arc::clone(&clock),
        });
        let landings = Arc::new(Landings {
            catalog: Arc::clone(&catalog),
            transfers: Arc::clone(&transfers),
            documents: Arc::clone(&documents),
        });
        let generations = Arc::new(Generations {
            catalog: Arc::clone(&catalog),
            transfers: Arc::clone(&transfers),
            documents: Arc::clone(&documents),
            mirrors: Arc::clone(&mirrors),
            fetcher: Arc::clone(&fetcher),
            landings: Arc::clone(&landings),
            readings: Arc::clone(&readings),
            clock: Arc::clone(&clock),
        });
        Arc::new(Self {
            registry,
            catalog,
            transfers,
            documents,
            clock,
            heads: Heads::default(),
            readings,
            fetcher,
            landings,
            generations,
            copies,
            refusals,
            mirrors,
            cluster: Membership::default(),
        })
    }

    pub(super) fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    /// Asking documents what they say of files, where they may have to be obtained for it.
    pub(super) fn inquiry(self: &Arc<Self>) -> Inquiry {
        Inquiry {
            documents: Arc::clone(&self.documents),
            port: Arc::clone(self) as Arc<dyn Launch>,
        }
    }
}

//! How the parts of an engine are put together.

use std::collections::BTreeMap;
use std::sync::Arc;

use larder_core::{PublicUrls, Repository};
use larder_formats::LinkKey;

use crate::catalog::Catalog;
use crate::counters::Counters;
use crate::document::{self, Documents};
use crate::origin::local::Local;
use crate::origin::remote::{self, Remote};
use crate::origin::virtual_::{self, Virtual};
use crate::parts::EngineParts;
use crate::read::Pipeline;
use crate::repositories::{Registry, Repositories};
use crate::transfer::{self, Transfers};

/// What the origins are made of.
pub(crate) fn base(parts: EngineParts, counters: &Arc<Counters>) -> remote::Parts {
    let (clock, blobs) = (parts.clock, parts.blobs);
    let catalog = Catalog::new(
        parts.metadata,
        Arc::clone(&blobs),
        Arc::clone(&clock),
        Arc::clone(counters),
        Arc::clone(&parts.budgets),
    );
    if parts.limits.keeps_up {
        catalog.start_eviction();
        catalog.start_taking_over();
    }
    let budgets = parts.budgets;
    budgets.configured(&parts.repositories);
    let registry = registry(
        &catalog,
        parts.repositories,
        &parts.not_built,
        parts.public_urls,
        &parts.link_key,
    );
    let transfers = Transfers::new(transfer::Parts {
        catalog: Arc::clone(&catalog),
        blobs: Arc::clone(&blobs),
        budgets: Arc::clone(&budgets),
        limits: parts.limits,
        clock: Arc::clone(&clock),
    });
    let documents = Documents::new(document::Parts {
        catalog: Arc::clone(&catalog),
        transfers: Arc::clone(&transfers),
        blobs: Arc::clone(&blobs),
        clock: Arc::clone(&clock),
        link_key: parts.link_key,
        budgets: Arc::clone(&budgets),
        limits: parts.limits,
        counters: Arc::clone(counters),
    });
    remote::Parts {
        registry,
        catalog,
        transfers,
        documents,
        blobs,
        upstream: parts.upstream,
        clock,
    }
}

/// The repositories that are configured when an engine is built.
fn registry(
    catalog: &Arc<Catalog>,
    repositories: Vec<Arc<Repository>>,
    not_built: &BTreeMap<String, String>,
    public_urls: PublicUrls,
    link_key: &LinkKey,
) -> Arc<Registry> {
    let repositories = Repositories::telling(catalog.news()).next(
        repositories,
        not_built,
        link_key,
        &|name, addresses| catalog.origin(name, addresses),
    );
    Registry::new(repositories, public_urls, link_key.clone())
}

/// The pipeline over the origins of all kinds of repositories.
pub(crate) fn pipeline(base: &remote::Parts, remote: &Arc<Remote>) -> Pipeline {
    let local = Arc::new(Local {
        catalog: Arc::clone(&base.catalog),
        blobs: Arc::clone(&base.blobs),
        clock: Arc::clone(&base.clock),
    });
    let virtuals = Virtual::new(virtual_::Parts {
        registry: Arc::clone(&base.registry),
        catalog: Arc::clone(&base.catalog),
        documents: Arc::clone(&base.documents),
        remote: Arc::clone(remote),
        clock: Arc::clone(&base.clock),
    });
    Pipeline {
        registry: Arc::clone(&base.registry),
        catalog: Arc::clone(&base.catalog),
        flights: Arc::clone(&base.transfers.flights),
        documents: Arc::clone(&base.documents),
        remote: Arc::clone(remote),
        blobs: Arc::clone(&base.blobs),
        local,
        virtuals,
        clock: Arc::clone(&base.clock),
    }
}

//! What an engine is made with.

use std::collections::BTreeMap;
use std::sync::Arc;

use larder_budget::Budgets;
use larder_core::{Clock, PublicUrls, Repository};
use larder_formats::LinkKey;
use larder_storage::{BlobStore, MetadataStore};
use larder_upstream::Upstream;

use crate::budget::Limits;

/// What an engine is built from.
#[derive(Debug)]
pub struct EngineParts {
    /// The configured repositories.
    pub repositories: Vec<Arc<Repository>>,
    /// Repositories that load but answer 501, with the reason.
    pub not_built: BTreeMap<String, String>,
    /// Where bytes are.
    pub blobs: Arc<dyn BlobStore>,
    /// Where records are.
    pub metadata: MetadataStore,
    /// The way outside.
    pub upstream: Arc<dyn Upstream>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Signs links to other hosts.
    pub link_key: LinkKey,
    /// The addresses that clients use, as far as configured.
    pub public_urls: PublicUrls,
    /// Bounds.
    pub limits: Limits,
    /// Where what is scarce is leased: the same for the whole process.
    pub budgets: Arc<Budgets>,
}

//! Documents: what they say of the files that they name, and the forms that are made of them.
//!
//! | file | knows |
//! |---|---|
//! | `load.rs`, `recent.rs` | whole documents: checked before they are kept, loaded to be read, at hand for a moment in between |
//! | `claims.rs`, `claim_table.rs`, `claim_tables.rs` | what documents say of files, a sorted table for each |
//! | `known.rs` | what the documents that are held say of a file, and what is remembered of its absence |
//! | `inquiry.rs`, `rereadings.rs` | the same of documents that are obtained for it, or read once more: gets them through a port |
//! | `expectation.rs` | what a file on its way should be |
//! | `measure.rs` | whether held bytes are what is stated of them |
//! | `derive.rs`, `derived.rs`, `named.rs`, `coding.rs` | rewritten documents and their compressed forms |
//! | `marking.rs` | the places in them where what a client calls larder stands |

pub(crate) mod claim_table;
pub(crate) mod claim_tables;
pub(crate) mod claims;
pub(crate) mod coding;
pub(crate) mod derive;
pub(crate) mod derived;
pub(crate) mod expectation;
pub(crate) mod inquiry;
pub(crate) mod known;
pub(crate) mod load;
pub(crate) mod marking;
pub(crate) mod measure;
pub(crate) mod named;
mod recent;
mod rereadings;

use std::sync::Arc;

use claim_tables::ClaimTables;
use derived::Derivations;
use larder_core::{Clock, UnixMillis};
use larder_formats::LinkKey;
use larder_storage::BlobStore;
use recent::Recent;
use rereadings::Rereadings;

use crate::budget::{Budgets, Limits};
use crate::catalog::Catalog;
use crate::counters::Counters;
use crate::transfer::Transfers;
use crate::transfer::flights::Flights;
use crate::transfer::spliced::FamiliarBases;

/// Parsers' places, tables of claims and derivations.
#[derive(Debug)]
pub(crate) struct Documents {
    catalog: Arc<Catalog>,
    transfers: Arc<Transfers>,
    flights: Arc<Flights>,
    blobs: Arc<dyn BlobStore>,
    clock: Arc<dyn Clock>,
    link_key: LinkKey,
    budgets: Arc<Budgets>,
    /// Longest document that is read, in bytes.
    document_size: u64,
    counters: Arc<Counters>,
    claim_tables: ClaimTables,
    derivations: Derivations,
    /// What clients call larder, where no `public_url` says it.
    familiar_bases: FamiliarBases,
    rereadings: Rereadings,
    /// Long documents that were checked a moment ago.
    recent: Recent,
}

/// What documents are made with.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) transfers: Arc<Transfers>,
    pub(crate) blobs: Arc<dyn BlobStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) link_key: LinkKey,
    pub(crate) budgets: Arc<Budgets>,
    pub(crate) limits: Limits,
    pub(crate) counters: Arc<Counters>,
}

impl Documents {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            catalog: parts.catalog,
            flights: Arc::clone(&parts.transfers.flights),
            transfers: parts.transfers,
            blobs: parts.blobs,
            clock: parts.clock,
            link_key: parts.link_key,
            derivations: Derivations::new(parts.limits.derived_files),
            budgets: parts.budgets,
            document_size: parts.limits.document_size,
            counters: parts.counters,
            claim_tables: ClaimTables::new(),
            familiar_bases: FamiliarBases::default(),
            rereadings: Rereadings::default(),
            recent: Recent::default(),
        })
    }

    fn now(&self) -> UnixMillis {
        self.clock.now()
    }
}

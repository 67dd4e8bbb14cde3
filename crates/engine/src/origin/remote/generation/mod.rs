//! Files that are only right together (docs/adr/0023): what stands around a document, who is reading it, its exchange for the next one,
//! and what becomes of the files of the one before.
//!
//! | file | knows |
//! |---|---|
//! | `exchange.rs` | a generation is gathered, and takes the place of the one before |
//! | `companions.rs`, `member.rs` | fetching the files around a document |
//! | `readers.rs` | who reads a document and its companion, and must not get them of two generations |
//! | `retire.rs` | files of generations past |
//! | `served.rs` | the files around a document, as they are served |

pub(super) mod companions;
pub(super) mod exchange;
pub(super) mod member;
pub(super) mod readers;
pub(super) mod retire;
pub(super) mod served;

use std::sync::Arc;

use larder_core::{Clock, UnixMillis};

use super::fetch::Fetcher;
use super::landing::Landings;
use super::mirrors::Mirrors;
use crate::catalog::Catalog;
use crate::document::Documents;
use crate::transfer::Transfers;
use readers::ReaderGate;

/// Exchanges the generations of documents that are only right together with other files.
#[derive(Debug)]
pub(super) struct Generations {
    pub(super) catalog: Arc<Catalog>,
    pub(super) transfers: Arc<Transfers>,
    pub(super) documents: Arc<Documents>,
    pub(super) mirrors: Arc<Mirrors>,
    pub(super) fetcher: Arc<Fetcher>,
    pub(super) landings: Arc<Landings>,
    pub(super) readings: Arc<ReaderGate>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Generations {
    fn now(&self) -> UnixMillis {
        self.clock.now()
    }
}

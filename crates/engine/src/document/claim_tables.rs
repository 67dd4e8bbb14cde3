//! The tables of claims that are in memory, and which documents cannot be read for theirs.

use std::sync::Arc;

use larder_core::Fault;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::document::claim_table::ClaimTable;

/// Memory for tables, in bytes.
const BUDGET: u64 = 32 << 20;

/// What a fault takes beside its message.
const FAULT: u64 = 800;

/// The claims of a document, or why these bytes have none: reading them once more would end in the same way, and may take seconds each time.
pub(crate) type Read = Result<Arc<ClaimTable>, Fault>;

/// A table weighs what its text does.
#[derive(Debug, Clone)]
pub(crate) struct ByBytes;

impl Weighter<String, Read> for ByBytes {
    fn weight(&self, _: &String, read: &Read) -> u64 {
        match read {
            Ok(table) => table.bytes().len() as u64 + 200,
            Err(fault) => fault.message.len() as u64 + FAULT,
        }
    }
}

#[derive(Debug)]
pub(crate) struct ClaimTables(pub(crate) Cache<String, Read, ByBytes>);

impl ClaimTables {
    pub(crate) fn new() -> Self {
        // So few are estimated that there is one shard. What is larger than a shard is not remembered, and the table of a large
        // repository has some ten megabytes.
        Self(Cache::with_weighter(32, BUDGET, ByBytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the index of a large distribution: 60,000 packages are 9 MiB.
    #[test]
    fn a_large_table_is_remembered() {
        let (tables, large) = (
            ClaimTables::new(),
            Arc::new(ClaimTable::from_bytes(vec![b'x'; 12 << 20].into())),
        );
        for number in 0..2 {
            tables
                .0
                .insert(format!("large {number}"), Ok(Arc::clone(&large)));
        }
        assert!((0..2).all(|number| tables.0.get(&format!("large {number}")).is_some()));
    }
}

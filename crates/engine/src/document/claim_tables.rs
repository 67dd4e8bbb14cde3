//! The tables of claims that are in memory.

use std::sync::Arc;

use larder_core::Digest;
use larder_formats::{Claim, Malformed};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::document::claim_table::ClaimTable;

/// The most memory for the claims of one document while its table is made, in bytes: half a million of the usual length. Compressed
/// metadata of some kilobytes can name more.
const MOST_CLAIMED: usize = 256 << 20;

/// The claims of a document, as they are read.
#[derive(Debug, Default)]
pub(crate) struct Gathering {
    claims: Vec<Claim>,
    weight: usize,
}

impl Gathering {
    pub(crate) fn add(&mut self, claim: Claim) {
        let texts = claim.path.capacity()
            + claim.url.capacity()
            + claim.identity.as_ref().map_or(0, String::capacity);
        self.weight += size_of::<Claim>() + texts + claim.digests.capacity() * DIGEST_WEIGHT;
        if self.weight <= MOST_CLAIMED {
            self.claims.push(claim);
        } else {
            self.claims = Vec::new();
        }
    }

    /// All of them.
    ///
    /// # Errors
    /// They are too many.
    pub(crate) fn all(self) -> Result<Vec<Claim>, Malformed> {
        if self.weight > MOST_CLAIMED {
            return Err(Malformed(format!(
                "what it says of the files it names takes more than {} MiB",
                MOST_CLAIMED >> 20
            )));
        }
        Ok(self.claims)
    }
}

/// A digest with its bytes.
const DIGEST_WEIGHT: usize = size_of::<Digest>() + 64;

/// Memory for tables, in bytes.
const BUDGET: u64 = 32 << 20;

/// A table weighs what its text does.
#[derive(Debug, Clone)]
pub(crate) struct ByBytes;

impl Weighter<String, Arc<ClaimTable>> for ByBytes {
    fn weight(&self, _: &String, table: &Arc<ClaimTable>) -> u64 {
        table.bytes().len() as u64 + 200
    }
}

#[derive(Debug)]
pub(crate) struct ClaimTables(pub(crate) Cache<String, Arc<ClaimTable>, ByBytes>);

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

    /// 81 KiB of compressed metadata have named files in 2.6 GiB of claims.
    #[test]
    fn hazard_x2_no_document_makes_claims_without_end() {
        let claim = |n: usize| Claim {
            path: n.to_string(),
            url: "u".repeat(1 << 20),
            size: None,
            published_at: None,
            digests: Vec::new(),
            identity: None,
        };
        let (mut fits, mut endless) = (Gathering::default(), Gathering::default());
        (0..100).for_each(|n| fits.add(claim(n)));
        assert_eq!(fits.all().unwrap().len(), 100);
        for n in 0..300 {
            endless.add(claim(n));
            assert!(
                endless
                    .claims
                    .iter()
                    .map(|claim| claim.url.len())
                    .sum::<usize>()
                    <= MOST_CLAIMED
            );
        }
        assert!(endless.all().is_err());
    }

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
                .insert(format!("large {number}"), Arc::clone(&large));
        }
        assert!((0..2).all(|number| tables.0.get(&format!("large {number}")).is_some()));
    }
}

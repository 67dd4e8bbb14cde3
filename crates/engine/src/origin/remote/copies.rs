//! Copies that are held: whether they may be served, and what they are served as.

use std::sync::Arc;

use larder_core::{
    ArtifactRecord, CacheStatus, Clock, Outcome, Settlement, Source, UnixMillis, settle,
};
use larder_storage::{BlobStore, Body};
use larder_upstream::in_request;

use crate::catalog::Catalog;
use crate::causes::warn_once;
use crate::claim::Stated;
use crate::counters::count;
use crate::document::Documents;
use crate::target::{Target, remaining_seconds};
use crate::transfer::flight::Settled;
use crate::transfer::flights::Flights;
use crate::transfer::verify::{keeps_contradicted, tell_contradicted};

/// A copy with its open file.
pub(super) type Copy = (Arc<ArtifactRecord>, Body);

/// What is held of upstreams' documents and files.
#[derive(Debug)]
pub(crate) struct Copies {
    pub(super) catalog: Arc<Catalog>,
    pub(super) flights: Arc<Flights>,
    pub(super) documents: Arc<Documents>,
    pub(super) blobs: Arc<dyn BlobStore>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Copies {
    pub(super) fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    /// Whether this expired copy would be served if nobody answered.
    pub(crate) fn may_serve(&self, wanted: &Target, copy: &ArtifactRecord) -> bool {
        let policy = &wanted.entry.repository.cache;
        matches!(
            settle(
                Outcome::Unreachable,
                Some(copy),
                wanted.class,
                policy,
                self.now()
            ),
            Settlement::ServeStale { .. }
        )
    }

    /// A copy as it is served: a hit.
    pub(crate) fn settled_copy(
        &self,
        wanted: &Target,
        record: Arc<ArtifactRecord>,
        body: Body,
        stale: Option<&'static str>,
    ) -> Settled {
        let ttl = remaining_seconds(&record, wanted, self.now());
        let status = CacheStatus {
            hit: true,
            ttl,
            detail: stale,
            ..CacheStatus::default()
        };
        Settled {
            record,
            body,
            status,
            source: Source::Cache,
            reusable: stale.is_none(),
            document: None,
        }
    }

    /// A file that was kept before its document could be read is checked when the document has been read, and one of a generation
    /// whenever it is used: it was right as of the document of that time. `None`: it was wrong, and is dropped.
    pub(super) async fn still_claimed(
        &self,
        wanted: &Arc<Target>,
        record: Arc<ArtifactRecord>,
    ) -> Option<Arc<ArtifactRecord>> {
        let named = wanted.facts.digest.clone();
        let is_settled = record.verified || (wanted.class.is_mutable() && named.is_none());
        if wanted.spec.is_document || (is_settled && !wanted.is_member()) {
            return Some(record);
        }
        let by_name = named.is_some();
        let stated = match named {
            Some(digest) => Some(Stated::Digests(vec![digest])),
            None => self.stated_by_held(wanted).await,
        };
        let (Some(stated), Some(blob)) = (stated, record.blob()) else {
            return Some(record);
        };
        let right = self
            .documents
            .blob_is(wanted, &wanted.key.path, blob, &stated)
            .await;
        if right && record.verified {
            return Some(record);
        }
        if !right && keeps_contradicted(wanted) {
            tell_contradicted(wanted, &stated);
        } else if !right {
            self.drop_contradicted(wanted, &record).await;
            return None;
        }
        self.vouched_for(wanted, record, stated, by_name).await
    }

    async fn drop_contradicted(&self, wanted: &Target, record: &ArtifactRecord) {
        if record.verified {
            tracing::debug!(key = %wanted.key, "a file of an earlier generation is fetched again");
        } else {
            count(&wanted.entry.counters.digest_mismatches);
            in_request(|| {
                warn_once!(
                    wanted,
                    "held_mismatch",
                    "a held file is not what its index or its name says and is fetched again"
                );
            });
        }
        self.catalog
            .drop_record(&wanted.entry, &wanted.key, record)
            .await;
    }

    /// What the documents that are held state of a file.
    async fn stated_by_held(&self, wanted: &Arc<Target>) -> Option<Stated> {
        let claim = self.documents.held_claim(wanted).await;
        claim.and_then(|claim| claim.stated())
    }

    /// Remembers that a held file is what is stated of it, unless something else is stated, or held, by now.
    async fn vouched_for(
        &self,
        wanted: &Arc<Target>,
        record: Arc<ArtifactRecord>,
        stated: Stated,
        by_name: bool,
    ) -> Option<Arc<ArtifactRecord>> {
        // What is being committed may be a document that states something else, and drops the record.
        let _alone = self.catalog.exclusive().await;
        let is_held = self
            .catalog
            .record(&wanted.key)
            .await
            .ok()
            .flatten()
            .is_some_and(|now| now.blob() == record.blob());
        let is_stated = by_name || self.stated_by_held(wanted).await == Some(stated);
        if !(is_held && is_stated) {
            return is_held.then_some(record);
        }
        let verified = Arc::new(ArtifactRecord {
            verified: true,
            ..ArtifactRecord::clone(&record)
        });
        // If this fails, it is compared again.
        let _ = self.catalog.remember(wanted, Arc::clone(&verified)).await;
        Some(verified)
    }
}

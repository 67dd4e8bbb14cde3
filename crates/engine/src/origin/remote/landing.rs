//! The end of a document's flight: the document becomes visible together with the dropping of the held files that it contradicts, so
//! that nobody who has read it gets the bytes of before (docs/adr/0036).

use std::sync::Arc;

use larder_core::{ArtifactRecord, SourceKey};

use super::outcome::Fetched;
use crate::catalog::{Batch, Catalog, Commit};
use crate::claim::Stated;
use crate::document::Documents;
use crate::document::claim_table::ClaimTable;
use crate::keys::key_of_named;
use crate::policy::admission;
use crate::target::Target;
use crate::transfer::Transfers;
use crate::transfer::flight::{Flight, Settled};

/// Makes new documents visible.
#[derive(Debug)]
pub(super) struct Landings {
    pub(super) catalog: Arc<Catalog>,
    pub(super) transfers: Arc<Transfers>,
    pub(super) documents: Arc<Documents>,
}

/// A file of which a new document states other bytes than are held, or may be arriving.
#[derive(Debug)]
pub(super) struct Restated {
    pub(super) key: SourceKey,
    stated: Stated,
}

impl Landings {
    /// Keeps and shows a new document.
    pub(super) async fn land_document(
        &self,
        flight: Arc<Flight>,
        wanted: Arc<Target>,
        arrived: Fetched,
    ) {
        let (settled, change, replaces) = arrived;
        let restated = self.restated_by(&wanted, replaces.as_ref(), &settled).await;
        let is_kept = change.is_some();
        let is_news = replaces
            .as_ref()
            .is_none_or(|before| before.blob() != settled.record.blob());
        let commit = change.map(|change| Commit {
            wanted: Arc::clone(&wanted),
            landing: self.transfers.landing(&flight),
            change,
            replaces,
        });
        let commits: Vec<Commit> = commit.into_iter().collect();
        if restated.is_empty() {
            self.catalog.enqueue(commits);
        } else {
            // Whoever waits for the document sees it no sooner than others do.
            self.exchange(&wanted, commits, &restated).await;
        }
        if is_news {
            // Whoever reads it asks at once for what it names, before it is committed.
            wanted.entry.arrived();
        }
        flight.finish(Ok(settled));
        if !is_kept {
            self.transfers.flights.remove(&flight);
        }
    }

    /// Makes changes visible, and takes back what is held of files that are restated by them.
    pub(super) async fn exchange(
        &self,
        document: &Target,
        commits: Vec<Commit>,
        restated: &[Restated],
    ) {
        // What came before is kept first, and found among what is held; what comes later is told that it is restated.
        self.catalog.barrier().await;
        let exclusive = self.catalog.exclusive().await;
        let held = self.held_otherwise(document, restated).await;
        let restate = || {
            self.transfers
                .flights
                .restate(restated.iter().map(|restated| &restated.key))
        };
        let batch = Batch {
            commits,
            contradicted: &held,
            restate: Some(&restate),
            entry: Some(&document.entry),
        };
        exclusive.commit(batch).await;
    }

    /// Those restated files that are held as something else, which is told. The right to make records visible is held meanwhile.
    pub(super) async fn held_otherwise(
        &self,
        document: &Target,
        restated: &[Restated],
    ) -> Vec<SourceKey> {
        let mut held = Vec::new();
        for Restated { key, stated } in restated {
            if self
                .documents
                .is_held_otherwise(document, key, stated)
                .await
            {
                tracing::debug!(%key, "the upstream's index states another digest for this file than before");
                held.push(key.clone());
            }
        }
        // An index that is made anew may restate thousands.
        if let Some(first) = held.first() {
            tracing::warn!(
                repository = %document.entry.repository.name, key = %first, files = held.len(), index = document.spec.key_path.as_str(),
                "the upstream's index states another digest for held files than before: they are fetched again when they are asked for"
            );
        }
        held
    }

    /// A held document is about to be dropped, for the upstream has it no more: what it vouched for is compared with the next one.
    pub(super) async fn no_longer_vouched_for(&self, document: &Arc<Target>) {
        let held = self.catalog.record(&document.key).await.ok().flatten();
        let Some(held) = held.filter(|held| document.spec.is_document && held.blob().is_some())
        else {
            return;
        };
        let Ok(table) = self.documents.claim_table(document, &held).await else {
            return;
        };
        let _exclusive = self.catalog.exclusive().await;
        let mut unvouched = Vec::new();
        for (path, _) in table.iter() {
            let key = key_of_named(&document.entry, path);
            let file = self.catalog.record(&key).await.ok().flatten();
            if let Some(file) =
                file.filter(|file| file.verified && document.facts_of(path).digest.is_none())
            {
                unvouched.push((key, file));
            }
        }
        self.catalog.unvouch(&document.entry, unvouched).await;
    }

    /// The files of which a document that has just arrived states something else than the one before it, or than another variant of
    /// it that is held.
    pub(super) async fn restated_by(
        &self,
        wanted: &Arc<Target>,
        old: Option<&Arc<ArtifactRecord>>,
        new: &Settled,
    ) -> Vec<Restated> {
        let befores = self
            .documents
            .earlier_claims(wanted, old.filter(|old| old.blob() != new.record.blob()))
            .await;
        if befores.is_empty() {
            return Vec::new();
        }
        let Ok(after) = self.documents.arrived_claims(wanted, new).await else {
            return Vec::new();
        };
        self.restated(wanted, befores, vec![after]).await
    }

    /// The same of the files of a generation that has `arrived` with its document. Its own files are exchanged with it, or have names that
    /// say what they are.
    pub(super) async fn restated_by_generation(
        &self,
        wanted: &Arc<Target>,
        old: &Arc<ArtifactRecord>,
        new: &Settled,
        arrived: &[(Arc<Target>, Settled)],
    ) -> Vec<Restated> {
        let befores = self.documents.named_by_generation(wanted, old).await;
        let Ok(after) = self.documents.arrived_claims(wanted, new).await else {
            return Vec::new();
        };
        let afters = self.documents.nested_claims(wanted, &after, arrived).await;
        let restated = self.restated(wanted, befores, afters).await;
        let may_be_read = |one: &Restated| {
            admission::named_file(&wanted.entry, wanted.format, &one.key.path).is_some()
        };
        restated.into_iter().filter(may_be_read).collect()
    }

    /// Of the files that `afters` state something of which `befores` do not state: those that were stated otherwise, and those that
    /// are held and are something else.
    async fn restated(
        &self,
        wanted: &Arc<Target>,
        befores: Vec<Arc<ClaimTable>>,
        afters: Vec<Arc<ClaimTable>>,
    ) -> Vec<Restated> {
        // Of tables that are in memory already.
        let repository = &wanted.entry.repository.name;
        let differing = self.documents.parse_blocking(repository, 1, move || {
            let mut differing = Vec::new();
            for (path, now) in afters.iter().flat_map(|after| after.iter()) {
                let mut earlier = befores
                    .iter()
                    .filter_map(|before| before.find(path))
                    .peekable();
                let was_stated = earlier.peek().is_some();
                let as_before = was_stated
                    && earlier.all(|claim| {
                        claim.digests == now.digests && claim.identity == now.identity
                    });
                if let Some(stated) = now.stated().filter(|_| !as_before) {
                    differing.push((path.to_owned(), stated, was_stated));
                }
            }
            differing
        });
        let mut restated = Vec::new();
        for (path, stated, was_stated) in differing.await.unwrap_or_default() {
            let key = key_of_named(&wanted.entry, &path);
            if was_stated
                || self
                    .documents
                    .is_held_otherwise(wanted, &key, &stated)
                    .await
            {
                restated.push(Restated { key, stated });
            }
        }
        restated
    }
}

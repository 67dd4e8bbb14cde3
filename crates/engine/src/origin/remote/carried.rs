//! What comes out of an archive becomes visible as what was fetched does: a document together with the dropping of the held files that it
//! contradicts (docs/adr/0036, 0100).

use std::sync::Arc;

use larder_core::ArtifactRecord;
use larder_storage::StorageError;

use super::landing::Restated;
use super::parts::Remote;
use crate::catalog::{Carried, CarriedIn};
use crate::repositories::RepositoryState;
use crate::target::Target;
use crate::transfer::flight::Settled;

/// A record of an archive, and what its path is, where the rules admit that.
pub(crate) type Identified = (Option<Arc<Target>>, Carried);

impl Remote {
    /// Writes the records of one repository where nothing newer is known, all in one transaction. Its documents' blobs are in the store.
    ///
    /// # Errors
    /// The database does not take them: nothing has changed then.
    pub(crate) async fn carry_in(
        &self,
        entry: &RepositoryState,
        all: Vec<Identified>,
    ) -> Result<CarriedIn, StorageError> {
        // What clients have been answered with is found among what is held.
        self.catalog.barrier().await;
        let restated = self.restated_by_carried(&all).await;
        let exclusive = self.catalog.exclusive().await;
        let mut contradicted = Vec::new();
        for (document, files) in &restated {
            contradicted.extend(self.landings.held_otherwise(document, files).await);
        }
        let carried = all.into_iter().map(|(_, carried)| carried).collect();
        let restate = || {
            let files = restated.iter().flat_map(|(_, files)| files);
            self.transfers.flights.restate(files.map(|file| &file.key))
        };
        exclusive
            .carry_in(entry, carried, &contradicted, &restate)
            .await
    }

    /// The files of which documents that come in state something else than those that are held.
    async fn restated_by_carried(&self, all: &[Identified]) -> Vec<(Arc<Target>, Vec<Restated>)> {
        let mut members = Vec::new();
        for (wanted, carried) in all {
            let member = wanted.as_ref();
            let member = member.filter(|it| it.facts.role.is_some() && !it.spec.is_document);
            if let Some(member) = member
                && let Some(settled) = self.settled_carried(carried).await
            {
                members.push((Arc::clone(member), settled));
            }
        }
        let mut restated = Vec::new();
        for (wanted, carried) in all {
            if let Some(wanted) = wanted.as_ref().filter(|it| it.spec.is_document) {
                let files = self.restated_by_one(wanted, carried, &members).await;
                restated.push((Arc::clone(wanted), files));
            }
        }
        restated
    }

    async fn restated_by_one(
        &self,
        wanted: &Arc<Target>,
        carried: &Carried,
        members: &[(Arc<Target>, Settled)],
    ) -> Vec<Restated> {
        let held = self.catalog.stored(&wanted.key).await;
        let stays = |held: &Arc<ArtifactRecord>| held.contacted_at >= carried.record.contacted_at;
        if held.as_ref().is_some_and(stays) {
            return Vec::new();
        }
        let held = held.filter(|held| held.blob().is_some());
        let Some(settled) = self.settled_carried(carried).await else {
            return Vec::new();
        };
        match held.as_ref() {
            Some(held) if held.blob() == settled.record.blob() => Vec::new(),
            Some(held) if wanted.heads_generation() => {
                let landings = &self.landings;
                landings
                    .restated_by_generation(wanted, held, &settled, members)
                    .await
            }
            None if wanted.heads_generation() => Vec::new(),
            held => self.landings.restated_by(wanted, held, &settled).await,
        }
    }

    /// A record that comes in with its bytes, to be read.
    async fn settled_carried(&self, carried: &Carried) -> Option<Settled> {
        let blob = carried.record.blob()?;
        let body = self.copies.blobs.open(blob).await.ok()?;
        let record = Arc::new(carried.record.clone());
        Some(Settled::of_record(&record, body))
    }
}

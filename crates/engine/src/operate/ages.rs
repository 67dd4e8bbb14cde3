//! How old the files are that were held before quarantine was switched on, or by a larder that knew no ages: written down before they can go
//! (docs/adr/0110).

use std::sync::Arc;

use larder_core::{ArtifactRecord, Fault};
use larder_storage::{Age, StorageError};

use crate::catalog::is_asked_in;
use crate::fault::storage_fault;
use crate::keys;
use crate::operate::operator::Operator;
use crate::repositories::RepositoryState;

/// Records that are looked at together.
const PAGE: u32 = 500;

impl Operator {
    /// Notes the ages of what quarantined repositories hold, behind the scenes.
    pub(crate) fn keep_ages(self: &Arc<Self>) {
        let operator = Arc::clone(self);
        tokio::spawn(async move {
            for entry in operator.registry.load().all() {
                if let Err(error) = operator.note_ages(&entry).await {
                    let repository = &entry.repository.name;
                    tracing::warn!(%repository, %error, "it was not noted how old held files are: a flush of the repository tries again");
                }
            }
        });
    }

    /// The same before records of a repository are dropped; a full disk must not keep them.
    ///
    /// # Errors
    /// The database does not answer.
    pub(super) async fn note_ages_first(&self, entry: &RepositoryState) -> Result<(), Fault> {
        if entry.repository.quarantine.hold.is_none() {
            return Ok(());
        }
        match self.note_ages(entry).await {
            Err(error) if error.is_full() => {
                let repository = &entry.repository.name;
                tracing::warn!(%repository, "there was no space to note how old dropped files are: they count as new");
                Ok(())
            }
            noted => noted.map_err(|error| storage_fault(entry, &error)),
        }
    }

    /// Once for as long as quarantine is on: what is fetched meanwhile is noted with its record.
    async fn note_ages(&self, entry: &RepositoryState) -> Result<(), StorageError> {
        let name = &entry.repository.name;
        let mut noted = self.aged.lock().await;
        if entry.repository.quarantine.hold.is_none() {
            noted.remove(name);
            return Ok(());
        }
        if noted.contains(name) {
            return Ok(());
        }
        let mut after = None;
        loop {
            let rows = self.catalog.rows(name, after.as_ref(), PAGE).await?;
            let Some((path, variant, _)) = rows.last() else {
                break;
            };
            after = Some((path.clone(), variant.clone()));
            let ages = rows.into_iter().filter_map(|(path, variant, record)| {
                let age = age_of(entry, &path, &variant, &record?)?;
                Some((path, variant, age))
            });
            let ages: Vec<_> = ages.collect();
            if !ages.is_empty() {
                self.catalog.add_ages(name, &ages).await?;
            }
        }
        noted.insert(name.clone());
        Ok(())
    }
}

/// How old something held or heard of is, where quarantine judges it by that.
pub(super) fn age_of(
    entry: &RepositoryState,
    path: &str,
    variant: &str,
    record: &ArtifactRecord,
) -> Option<Age> {
    let own = keys::path_of(path, variant);
    let class = entry.class_of_held(own, record)?;
    let is_judged = is_asked_in(&entry.repository, class) && !entry.facts(own).is_sidecar();
    is_judged.then(|| Age::of(record)).flatten()
}

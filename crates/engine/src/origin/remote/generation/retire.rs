//! Files of generations past. They stay readable for a day after their generation was exchanged, for clients that still have
//! its document (hazard W10), and are dropped with a later exchange.

use std::sync::Arc;
use std::time::Duration;

use larder_core::{ArtifactRecord, SourceKey};
use larder_storage::StorageError;

use super::Generations;
use crate::document::claim_table::ClaimTable;
use crate::keys::same_origin;
use crate::target::Target;

/// How long the files of a generation stay readable after it.
const GRACE: Duration = Duration::from_hours(24);
/// Records looked at together.
const PAGE: u32 = 500;

impl Generations {
    /// After an exchange, behind the scenes: the files named by their digest that stand beside the document and that it no
    /// longer names begin their last day, or have had it.
    pub(super) fn retire(
        self: &Arc<Self>,
        document: &Arc<Target>,
        before: Arc<ArtifactRecord>,
        after: Arc<ArtifactRecord>,
    ) {
        let (generations, document) = (Arc::clone(self), Arc::clone(document));
        tokio::spawn(async move {
            let tables = (
                generations.documents.claim_table(&document, &before).await,
                generations.documents.claim_table(&document, &after).await,
            );
            let (Ok(before), Ok(after)) = tables else {
                return;
            };
            if let Err(error) = generations.retire_files(&document, &before, &after).await {
                tracing::warn!(%error, key = %document.key, "files of earlier generations were not looked through");
            }
        });
    }

    async fn retire_files(
        &self,
        document: &Target,
        before: &ClaimTable,
        after: &ClaimTable,
    ) -> Result<(), StorageError> {
        let name = &document.entry.repository.name;
        let Some((folder, _)) = document.key.path.rsplit_once('/') else {
            return Ok(());
        };
        let folder = format!("{folder}/");
        let (now, is_low) = (self.now(), self.catalog.is_disk_low());
        let mut last = Some((folder.clone(), String::new()));
        while let Some(from) = last.take() {
            let page = self.catalog.page(name, Some(&from), PAGE).await?;
            let (mut last_day, mut over) = (Vec::new(), Vec::new());
            for (path, variant, record) in page {
                if !path.starts_with(&folder) {
                    last = None;
                    break;
                }
                last = Some((path.clone(), variant.clone()));
                let is_other = !same_origin(&variant, &document.key.variant);
                if is_other
                    || document.facts_of(&path).digest.is_none()
                    || after.find(&path).is_some()
                {
                    continue;
                }
                let key = SourceKey {
                    repository: name.clone(),
                    path: path.as_str().into(),
                    variant: variant.into(),
                };
                if before.find(&path).is_some() {
                    if is_low {
                        continue;
                    }
                    // What is named by its digest has no other use for this time: its last day begins.
                    let record = ArtifactRecord {
                        fresh_since: now,
                        ..record
                    };
                    last_day.push((key, record));
                } else if record.fresh_since.plus(GRACE) < now {
                    over.push((key, record));
                }
            }
            self.catalog.retire(last_day, over).await?;
        }
        Ok(())
    }
}

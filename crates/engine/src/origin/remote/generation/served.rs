//! The files around a document that heads a generation, as they are served: as of the document that is held.

use std::sync::Arc;
use std::time::Duration;

use larder_core::{Content, Fault, fresh_until};
use tokio::time::Instant;

use crate::fault::{Remembered, negative_fault, storage_fault};
use crate::origin::remote::parts::Remote;
use crate::origin::remote::patience::{Waited, patience};
use crate::policy::admission;
use crate::target::Target;
use crate::transfer::flight::{Effort, Ready, Settled};

/// A generation whose document has expired for longer than this is refreshed when one of its other files is asked for.
const LEFT_BEHIND: Duration = Duration::from_secs(60);

impl Remote {
    /// A companion, or another file of a generation whose name says nothing, is served as of the document that is held, and only if
    /// it is what that states: whoever asks for it has read that document (docs/adr/0023). `None` if this is no such file, or none
    /// is held.
    pub(in crate::origin::remote) async fn of_generation(
        self: &Arc<Self>,
        wanted: &Arc<Target>,
        came: Instant,
    ) -> Result<Option<Settled>, Fault> {
        let path = &wanted.spec.key_path;
        let Some(generation) = wanted.member_of() else {
            return Ok(None);
        };
        let is_companion = generation
            .companions
            .iter()
            .any(|companion| companion.source.key_path == *path);
        let document = wanted.with_client_encoding(generation.document);
        let Some(document) = admission::document(wanted, document).map(Arc::new) else {
            return Ok(None);
        };
        let storage = |error| storage_fault(&wanted.entry, &error);
        let held = self.catalog.record(&document.key).await.map_err(storage)?;
        let now = self.now();
        let is_current = held
            .filter(|held| held.blob().is_some())
            .is_some_and(|held| {
                let until = fresh_until(&held, document.class, &document.entry.repository.cache);
                until.is_none_or(|until| now < until.plus(LEFT_BEHIND))
            });
        let mut arrived = None;
        if !is_current {
            let flight = self.flight(&document, Effort::IfDue);
            let until = patience(&document, &flight, came);
            match self.ready_or_copy(&document, &flight, true, until).await {
                Waited::Ready(Ready::Done(Ok(settled))) | Waited::Overdue(settled) => {
                    arrived = Some(settled);
                }
                // Without its document a file stands for itself.
                Waited::Ready(Ready::Done(Err(_)) | Ready::Filling(_)) => return Ok(None),
            }
        }
        let Some(record) = self.catalog.record(&wanted.key).await.map_err(storage)? else {
            return Ok(None);
        };
        if let Content::Negative { status } = record.content {
            return Err(negative_fault(
                wanted,
                Remembered { status, over: None },
                self.now(),
            ));
        }
        let Some((record, open)) = self.own_copy(wanted, record).await else {
            return Ok(None);
        };
        if is_companion {
            self.readings.note(&document.key, Instant::now());
        }
        let mut settled = self.copies.settled_copy(wanted, record, open, None);
        if let Some(document) = arrived {
            (settled.status, settled.source, settled.reusable) =
                (document.status, document.source, document.reusable);
        }
        Ok(Some(settled))
    }
}

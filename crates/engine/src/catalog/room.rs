//! Room on the disk: what nothing refers to any more goes. And the bytes behind records, opened.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::Either;
use larder_core::{ArtifactRecord, BlobDescriptor};
use larder_storage::{Body, StorageError, StorageErrorKind};
use larder_upstream::in_request;

use super::state::Catalog;
use crate::causes::warn_once;
use crate::target::Target;

/// Unreferenced blobs and superseded derivations are kept this long: somebody may be reading them.
pub(super) const GRACE: Duration = Duration::from_hours(24);
/// How often it is looked whether another process has ended in the middle of a deletion, and how long nothing may have come of it: much
/// longer than a process may go on with what it has begun.
const LOOK_FOR_LEFT: Duration = Duration::from_secs(15);
const LEFT_AFTER: Duration = Duration::from_secs(75);
/// How often a nearly full disk makes larder look for what can go, in milliseconds.
const ROOM_EVERY_MS: i64 = 60_000;
/// Why nothing more is kept.
pub(crate) const DISK_IS_LOW: &str = "the disk of larder's data directory is down to its reserve";

impl Catalog {
    /// Deletes blobs and derivations that nothing has referred to for a day.
    pub(crate) async fn collect_garbage(&self) {
        self.collect_all(GRACE).await;
    }

    /// Goes on with deletions that other processes have begun, and have ended in, as long as the catalog is there.
    pub(crate) fn start_taking_over(self: &Arc<Self>) {
        let catalog: Weak<Self> = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK_FOR_LEFT).await;
                let Some(catalog) = catalog.upgrade() else {
                    return;
                };
                let taken = catalog
                    .metadata
                    .take_over(catalog.now(), LEFT_AFTER, &catalog.blobs)
                    .await;
                match taken {
                    Ok((blobs, bytes)) => catalog.count_deleted(blobs, bytes),
                    Err(error) => {
                        tracing::debug!(%error, "it could not be found out whether a deletion was left behind");
                    }
                }
            }
        });
    }

    /// The disk is nearly full: what nothing refers to goes at once, looked for at most once a minute. Open files stay readable.
    pub(crate) fn make_room(self: &Arc<Self>) {
        let now = self.now().0;
        let last = self.last_room_made.load(Ordering::Acquire);
        let due = now.saturating_sub(last) >= ROOM_EVERY_MS || last > now;
        if due
            && self
                .last_room_made
                .compare_exchange(last, now, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
        {
            let catalog = Arc::clone(self);
            tokio::spawn(async move { catalog.collect_all(Duration::ZERO).await });
        }
    }

    /// Why the disk has no room for so many bytes more, if it has none. Then garbage goes.
    ///
    /// # Errors
    /// The system does not say how much space there is.
    pub(crate) fn why_no_room_for(
        self: &Arc<Self>,
        bytes: u64,
    ) -> Result<Option<String>, StorageError> {
        let space = self.blobs.free_space()?;
        if space.is_low() {
            self.make_room();
            return Ok(Some(DISK_IS_LOW.to_owned()));
        }
        let free = space.available - space.reserve;
        if bytes <= free {
            return Ok(None);
        }
        // What an empty disk would not take either is worth no garbage's grace.
        if bytes <= space.total - space.reserve {
            self.make_room();
        }
        Ok(Some(format!(
            "the disk of larder's data directory has room for {free} bytes before it is down to its reserve, and {bytes} were to come"
        )))
    }

    async fn collect_all(&self, grace: Duration) {
        match self.collect(grace).await {
            Ok(report) => {
                self.count_deleted(report.blobs_deleted, report.bytes_freed);
                if report.blobs_deleted > 0 {
                    tracing::info!(
                        blobs = report.blobs_deleted,
                        bytes = report.bytes_freed,
                        "unreferenced blobs were deleted"
                    );
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the collection of unreferenced blobs was interrupted and will be tried again");
            }
        }
    }

    /// Opens bytes that were served lately. `kept`: they stay open for the next; else they are read once, and their length is for the
    /// reader to find out. `None` if they are not at hand, gone or damaged.
    pub(crate) fn reopen(&self, blob: &BlobDescriptor, kept: bool) -> Option<Body> {
        if !kept {
            return self.blobs.open_once(blob);
        }
        match self.blobs.open(blob) {
            Either::Left(at_hand) => at_hand.into_inner().ok(),
            Either::Right(_) => None,
        }
    }

    /// Opens a record's blob; a record whose bytes are gone or damaged is dropped, so that they are fetched again.
    pub(crate) async fn open_held(&self, wanted: &Target, record: &ArtifactRecord) -> Option<Body> {
        let blob = record.blob()?;
        drop(self.used(&wanted.key));
        match self.blobs.open(blob).await {
            Ok(open) => Some(open),
            Err(error) => {
                let error_text = error.to_string();
                in_request(|| {
                    warn_once!(
                        wanted,
                        "unreadable",
                        "a held copy cannot be read and is fetched again",
                        error = error_text
                    );
                });
                if matches!(
                    error.kind,
                    StorageErrorKind::NotFound | StorageErrorKind::Corrupt
                ) {
                    self.drop_record(&wanted.entry, &wanted.key, record).await;
                }
                None
            }
        }
    }
}

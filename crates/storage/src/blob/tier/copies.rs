//! Whether the files of the tier are still what was put there: nobody compares them with their digests when they are read.

use larder_core::{BlobDescriptor, Digest};

use super::Tier;
use crate::blob::{BlobStore as _, CheckedCopies, Flaw, Rate, check};
use crate::error::StorageError;

/// Files that are looked at in one go.
const TOGETHER: usize = 100;

impl Tier {
    /// Reads the next files after a digest, so many bytes a second, and drops those that are wrong.
    pub(super) async fn check_copies(
        &self,
        after: Option<&Digest>,
        rate: u64,
    ) -> Result<CheckedCopies, StorageError> {
        let rate = Rate::new(rate);
        let page = self.local.list(after, TOGETHER).await?;
        let mut checked = CheckedCopies {
            last: page.last().map(|found| found.descriptor.digest.clone()),
            ..CheckedCopies::default()
        };
        for found in page {
            checked.bytes += found.descriptor.size;
            if self.is_spoilt(&found.descriptor, &rate).await? {
                self.drop_copy(&found.descriptor).await;
                checked.dropped.push(found.descriptor);
            }
        }
        Ok(checked)
    }

    async fn is_spoilt(&self, blob: &BlobDescriptor, rate: &Rate) -> Result<bool, StorageError> {
        for _ in 0..2 {
            match check(&self.local, blob, rate).await? {
                // One that has been evicted meanwhile is not there, and one that is right the second time is right.
                None | Some(Flaw::Missing) => return Ok(false),
                Some(Flaw::Wrong | Flaw::Unreadable) => {}
            }
        }
        Ok(true)
    }

    /// Takes a file out of the tier that is not what it should be.
    async fn drop_copy(&self, blob: &BlobDescriptor) {
        // Who is about to put the right one there replaces it.
        self.local.doubt(&blob.digest);
        match self.local.delete(&blob.digest).await {
            Ok(_) => {
                self.recency.remove(&blob.digest);
                tracing::warn!(digest = %blob.digest, "a file of the local tier was not what it should be, and is fetched from the object store again");
            }
            Err(error) => {
                tracing::warn!(%error, digest = %blob.digest, "a file of the local tier is not what it should be, and cannot be deleted");
            }
        }
        self.spoilt
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

//! Which blobs the tier holds, and when each was read last.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use larder_core::{BlobDescriptor, Digest};

/// Those who read different blobs seldom wait for each other.
const SHARDS: usize = 16;

/// Lengths and times of the blobs in a tier.
#[derive(Debug, Default)]
pub(super) struct Recency {
    shards: [Mutex<HashMap<Digest, Held>>; SHARDS],
    bytes: AtomicU64,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    size: u64,
    /// Milliseconds since 1970.
    read_at: i64,
}

fn now() -> i64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    since.as_millis() as i64
}

impl Recency {
    fn shard(&self, digest: &Digest) -> MutexGuard<'_, HashMap<Digest, Held>> {
        // By the last byte: directories and turns go by the first ones.
        let last = digest.as_bytes().last().copied().unwrap_or(0);
        self.shards[usize::from(last) % SHARDS]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of all blobs.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// A blob that is there is read, or has just come.
    pub(super) fn touch(&self, blob: &BlobDescriptor) {
        self.note(&blob.digest, blob.size, now());
    }

    /// A blob was found that is there from an earlier run; `at` in milliseconds since 1970.
    pub(super) fn found(&self, blob: &BlobDescriptor, at: i64) {
        self.note(&blob.digest, blob.size, at);
    }

    fn note(&self, digest: &Digest, size: u64, read_at: i64) {
        let mut shard = self.shard(digest);
        if let Some(held) = shard.get_mut(digest) {
            held.read_at = held.read_at.max(read_at);
            return;
        }
        shard.insert(digest.clone(), Held { size, read_at });
        self.bytes.fetch_add(size, Ordering::Relaxed);
    }

    /// It is there no longer.
    pub(super) fn remove(&self, digest: &Digest) {
        if let Some(held) = self.shard(digest).remove(digest) {
            self.bytes.fetch_sub(held.size, Ordering::Relaxed);
        }
    }

    /// The blobs that were read longest ago, so many that without them no more than `target` bytes are left; the oldest first.
    pub(super) fn oldest(&self, target: u64) -> Vec<BlobDescriptor> {
        let mut excess = self.bytes().saturating_sub(target);
        if excess == 0 {
            return Vec::new();
        }
        let mut all: Vec<(i64, BlobDescriptor)> = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend(shard.iter().map(|(digest, held)| {
                let (digest, size) = (digest.clone(), held.size);
                (held.read_at, BlobDescriptor { digest, size })
            }));
        }
        all.sort_unstable_by_key(|(read_at, _)| *read_at);
        let goes = |(_, blob): &(i64, BlobDescriptor)| {
            let is_needed = excess > 0;
            excess = excess.saturating_sub(blob.size);
            is_needed
        };
        all.into_iter()
            .take_while(goes)
            .map(|(_, blob)| blob)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use larder_core::sha256;

    use super::*;

    fn blob(number: u8, size: u64) -> BlobDescriptor {
        BlobDescriptor {
            digest: sha256(&[number]),
            size,
        }
    }

    #[test]
    fn those_go_that_were_read_longest_ago_and_no_more_than_must() {
        let recency = Recency::default();
        for number in 0..10 {
            recency.found(&blob(number, 100), i64::from(number));
        }
        recency.found(&blob(3, 100), 2);
        assert_eq!(recency.bytes(), 1000, "each counts once");
        assert_eq!(recency.oldest(1000), []);
        assert_eq!(recency.oldest(999), [blob(0, 100)]);
        recency.touch(&blob(0, 100));
        assert_eq!(
            recency.oldest(750),
            [blob(1, 100), blob(2, 100), blob(3, 100)]
        );
        recency.remove(&blob(1, 100).digest);
        recency.remove(&blob(1, 100).digest);
        assert_eq!(recency.bytes(), 900);
        assert_eq!(recency.oldest(0).len(), 9);
    }
}

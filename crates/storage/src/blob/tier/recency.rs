//! Which blobs the tier holds, and when each was read last.

use std::collections::HashMap;
use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
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

#[derive(Debug)]
struct Held {
    size: u64,
    /// Milliseconds since 1970.
    read_at: i64,
    /// The file as it was opened last: whoever keeps it open reads it without asking here.
    file: Weak<File>,
}

impl Held {
    /// Whether anybody has the file open beside the store, which `keeps_open` it itself or not.
    fn is_in_use(&self, keeps_open: impl FnOnce() -> bool) -> bool {
        match self.file.strong_count() {
            0 => false,
            1 => !keeps_open(),
            _ => true,
        }
    }
}

fn now() -> i64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    since.as_millis() as i64
}

impl Recency {
    fn shard(&self, digest: &Digest) -> MutexGuard<'_, HashMap<Digest, Held>> {
        // By the last byte: directories go by the first ones.
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

    /// As that, and this is its file, which may stay open.
    pub(super) fn opened(&self, blob: &BlobDescriptor, file: &Arc<File>) {
        self.touch(blob);
        if let Some(held) = self.shard(&blob.digest).get_mut(&blob.digest) {
            held.file = Arc::downgrade(file);
        }
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
        let file = Weak::new();
        let held = Held {
            size,
            read_at,
            file,
        };
        shard.insert(digest.clone(), held);
        self.bytes.fetch_add(size, Ordering::Relaxed);
    }

    /// It is there no longer.
    pub(super) fn remove(&self, digest: &Digest) {
        if let Some(held) = self.shard(digest).remove(digest) {
            self.bytes.fetch_sub(held.size, Ordering::Relaxed);
        }
    }

    /// The blobs that were read longest ago, so many that without them no more than `target` bytes are left; the oldest first. Those whose
    /// files somebody has open come last: they are being read, or are answered from the hot set, and their space would not come back. Which
    /// the store itself has open, `keeps_open` says.
    pub(super) fn oldest(
        &self,
        target: u64,
        keeps_open: impl Fn(&Digest) -> bool,
    ) -> Vec<BlobDescriptor> {
        let mut excess = self.bytes().saturating_sub(target);
        if excess == 0 {
            return Vec::new();
        }
        let mut all: Vec<((bool, i64), BlobDescriptor)> = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend(shard.iter().map(|(digest, held)| {
                let is_in_use = held.is_in_use(|| keeps_open(digest));
                let (digest, size) = (digest.clone(), held.size);
                ((is_in_use, held.read_at), BlobDescriptor { digest, size })
            }));
        }
        all.sort_unstable_by_key(|(order, _)| *order);
        let goes = |(_, blob): &((bool, i64), BlobDescriptor)| {
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
        let oldest = |target| recency.oldest(target, |_| false);
        assert_eq!(oldest(1000), []);
        assert_eq!(oldest(999), [blob(0, 100)]);
        recency.touch(&blob(0, 100));
        assert_eq!(oldest(750), [blob(1, 100), blob(2, 100), blob(3, 100)]);
        recency.remove(&blob(1, 100).digest);
        recency.remove(&blob(1, 100).digest);
        assert_eq!(recency.bytes(), 900);
        assert_eq!(oldest(0).len(), 9);
    }

    #[test]
    fn what_somebody_has_open_goes_last_and_goes() {
        let recency = Recency::default();
        let file = || Arc::new(tempfile::tempfile().unwrap());
        let (kept, read, let_go) = (file(), file(), file());
        for number in 0..4 {
            recency.found(&blob(number, 100), i64::from(number));
        }
        // These are read in one order and asked for in the other.
        for (number, file) in [(0, &kept), (1, &read), (2, &let_go)] {
            let blob = blob(number, 100);
            if let Some(held) = recency.shard(&blob.digest).get_mut(&blob.digest) {
                held.file = Arc::downgrade(file);
            }
        }
        drop(let_go);
        // The store itself has the first one open, and nobody else.
        let by_store = blob(0, 100).digest;
        let oldest = |target| recency.oldest(target, |digest| *digest == by_store);
        assert_eq!(
            oldest(100),
            [blob(0, 100), blob(2, 100), blob(3, 100)],
            "all but the one that is being read"
        );
        assert_eq!(oldest(0).last(), Some(&blob(1, 100)));
        let reader = Arc::clone(&kept);
        assert_eq!(oldest(200), [blob(2, 100), blob(3, 100)]);
        drop(reader);
        assert_eq!(oldest(300), [blob(0, 100)]);
    }
}

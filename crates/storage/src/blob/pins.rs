//! Pins: what keeps a blob from deletion between its publication and the row that refers to it (hazard L3).
//!
//! Knows this process only. What another process deletes is noticed when the row is written, and then the blob is published again
//! from the file that the pin holds open, or from the spool of an upload to a store of objects (docs/adr/0065).

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use futures_util::future::BoxFuture;
use larder_core::Digest;

use super::local::TemporaryName;
use crate::error::StorageError;

/// Bytes that are copied at a time.
const BLOCK: usize = 256 << 10;

/// Counts the pins of each digest.
#[derive(Debug, Default)]
pub(super) struct Pins(Mutex<HashMap<Digest, usize>>);

/// Holds one blob; dropping it lets go.
#[derive(Debug)]
pub struct BlobPin {
    pins: Arc<Pins>,
    digest: Digest,
    /// Where the blob stands; nowhere in a store that nobody else can reach.
    place: OnceLock<Place>,
}

/// Where a blob was published.
#[derive(Debug)]
pub(super) enum Place {
    File(Arc<BlobPlace>),
    Object(Box<dyn Published>),
}

/// A blob that was published where it can only be asked for.
pub(super) trait Published: Send + Sync + std::fmt::Debug {
    /// Whether it is there. Who cannot be asked does not have it.
    fn is_in_place(&self) -> BoxFuture<'_, bool>;

    /// Publishes it again.
    fn put_back(&self) -> BoxFuture<'_, Result<(), StorageError>>;
}

/// A published file, and its bytes.
#[derive(Debug)]
pub(super) struct BlobPlace {
    pub(super) path: PathBuf,
    /// On the same file system.
    pub(super) spool_directory: Arc<Path>,
    /// Has the bytes, whatever becomes of the path.
    pub(super) file: Arc<File>,
    pub(super) size: u64,
}

impl Pins {
    /// Holds `digest`. To be called before the store looks whether the blob exists.
    pub(super) fn pin(self: &Arc<Self>, digest: &Digest, place: Option<Place>) -> Arc<BlobPin> {
        *self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(digest.clone())
            .or_insert(0) += 1;
        Arc::new(BlobPin {
            pins: Arc::clone(self),
            digest: digest.clone(),
            place: place.map_or_else(OnceLock::new, OnceLock::from),
        })
    }

    /// Runs `delete` unless `digest` is held, and lets nobody pin it meanwhile. `None` if it is held.
    pub(super) fn unless_pinned<T>(
        &self,
        digest: &Digest,
        delete: impl FnOnce() -> T,
    ) -> Option<T> {
        let pins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (!pins.contains_key(digest)).then(delete)
    }
}

impl BlobPin {
    /// Where it was published, told later; the first word counts.
    pub(super) fn stands(&self, place: Place) {
        let _ = self.place.set(place);
    }

    /// Whether the blob stands where it was published.
    pub(crate) async fn is_in_place(&self) -> bool {
        match self.place.get() {
            None => true,
            Some(Place::File(place)) => place.is_in_place(),
            Some(Place::Object(object)) => object.is_in_place().await,
        }
    }

    /// Publishes the blob again, durably.
    ///
    /// # Errors
    /// `Full` where there is no space, and what else may befall a file or a store.
    pub(crate) async fn put_back(&self) -> Result<(), StorageError> {
        let place = match self.place.get() {
            None => return Ok(()),
            Some(Place::Object(object)) => return object.put_back().await,
            Some(Place::File(place)) => Arc::clone(place),
        };
        let done = tokio::task::spawn_blocking(move || place.put_back()).await;
        let done = done.unwrap_or_else(|error| Err(io::Error::other(error)));
        done.map_err(|e| StorageError::from_io("publish a blob again", e))
    }
}

impl BlobPlace {
    fn is_in_place(&self) -> bool {
        fs::symlink_metadata(&self.path)
            .is_ok_and(|found| found.is_file() && found.len() == self.size)
    }

    fn put_back(&self) -> io::Result<()> {
        /// Makes private names differ.
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-again-{serial}", std::process::id());
        let private = TemporaryName(self.spool_directory.join(name));
        let mut copy = File::options()
            .write(true)
            .create_new(true)
            .open(&private.0)?;
        // Tells another process that starts in this directory that the file is in use; not every file system knows locks.
        let _ = copy.lock();
        // By position: others read the same open file.
        let mut block = vec![0; BLOCK];
        let mut at = 0;
        while at < self.size {
            let read = self.file.read_at(&mut block, at)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            copy.write_all(&block[..read])?;
            at += read as u64;
        }
        copy.sync_all()?;
        fs::rename(&private.0, &self.path)?;
        match self.path.parent() {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    }
}

impl Drop for BlobPin {
    fn drop(&mut self) {
        let mut pins = self.pins.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = pins.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.digest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use larder_core::sha256;

    use super::*;

    #[tokio::test]
    async fn hazard_l3_a_blob_is_published_again_from_the_open_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("blob");
        let bytes: Vec<u8> = (0..BLOCK + 7).map(|n| (n % 251) as u8).collect();
        fs::write(&path, &bytes).unwrap();
        let place = BlobPlace {
            path: path.clone(),
            spool_directory: directory.path().into(),
            file: Arc::new(File::open(&path).unwrap()),
            size: bytes.len() as u64,
        };
        let pin =
            Arc::new(Pins::default()).pin(&sha256(&bytes), Some(Place::File(Arc::new(place))));
        assert!(pin.is_in_place().await);
        fs::remove_file(&path).unwrap();
        assert!(!pin.is_in_place().await);
        pin.put_back().await.unwrap();
        assert!(pin.is_in_place().await);
        assert!(fs::read(&path).unwrap() == bytes, "the same bytes");
        fs::write(&path, b"shorter").unwrap();
        assert!(!pin.is_in_place().await, "another file under the name");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_last_pin_decides() {
        let pins = Arc::new(Pins::default());
        let digest = sha256(b"x");
        let first = pins.pin(&digest, None);
        let second = pins.pin(&digest, None);
        assert_eq!(pins.unless_pinned(&digest, || ()), None);
        drop(first);
        assert_eq!(pins.unless_pinned(&digest, || ()), None);
        drop(second);
        assert_eq!(pins.unless_pinned(&digest, || ()), Some(()));
        assert!(pins.0.lock().unwrap().is_empty(), "no entry is left behind");
    }
}

//! Blobs that were read lately, still open: a hit outside the hot set costs one fstat in place of a walk down the directories.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use larder_core::Digest;
use quick_cache::sync::Cache;

/// Files that stay open, unless [`FsBlobStore::keeping_open`](super::FsBlobStore::keeping_open) says otherwise.
pub const MOST_OPEN_BLOBS: usize = 1_024;

/// The files of the blobs that were read last.
pub(crate) struct OpenFiles(Cache<Digest, Arc<File>>);

impl OpenFiles {
    /// At most `most` files.
    pub(crate) fn new(most: usize) -> Self {
        Self(Cache::new(most))
    }

    /// The open file of a blob, with its present length. A file that is no longer where blobs stand (deleted, or replaced because
    /// it was damaged) is forgotten: it has no name left.
    pub(crate) fn get(&self, digest: &Digest) -> Option<(Arc<File>, u64)> {
        let file = self.0.get(digest)?;
        match file.metadata() {
            Ok(metadata) if metadata.nlink() > 0 => Some((file, metadata.len())),
            _ => {
                self.forget(digest);
                None
            }
        }
    }

    pub(crate) fn keep(&self, digest: &Digest, file: &Arc<File>) {
        self.0.insert(digest.clone(), Arc::clone(file));
    }

    /// Whether a blob's file is among them. It does not count as read.
    pub(crate) fn has(&self, digest: &Digest) -> bool {
        self.0.peek(digest).is_some()
    }

    /// So that the space of a deleted blob is given back.
    pub(crate) fn forget(&self, digest: &Digest) {
        self.0.remove(digest);
    }
}

impl std::fmt::Debug for OpenFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("OpenFiles").field(&self.0.len()).finish()
    }
}

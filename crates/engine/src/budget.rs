//! Bounds that protect the process: the one place where the engine's semaphores are made.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// Documents are parsed at most this many at once: each may hold twice its size.
const PARSERS: usize = 2;

/// How many files of derived documents stay open, where descriptors are plenty: what the budget of derivations has room for.
pub const MOST_DERIVED_FILES: usize = 2_048;

/// Bounds that protect the process.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest document (index, packument) that is rewritten, in bytes.
    pub document_size: u64,
    /// Downloads that run at once.
    pub downloads: usize,
    /// Files of derived documents that stay open.
    pub derived_files: usize,
    /// Bytes of memory a download may hold for its readers when the disk cannot take it.
    pub ring_bytes: usize,
    /// How long the first byte of a large body waits for its digest, where another mirror could be asked for the right body.
    pub held_back: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            document_size: 256 << 20,
            downloads: 512,
            derived_files: MOST_DERIVED_FILES,
            ring_bytes: 4 << 20,
            held_back: Duration::from_secs(2),
        }
    }
}

/// What is leased to whoever uses a scarce thing, for as long as it is used.
#[derive(Debug)]
pub(crate) struct Budgets {
    pub(crate) limits: Limits,
    downloads: Semaphore,
    parsers: Arc<Semaphore>,
}

impl Budgets {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            downloads: Semaphore::new(limits.downloads),
            parsers: Arc::new(Semaphore::new(PARSERS)),
        })
    }

    /// A place for a download. `None` at the end of the process.
    pub(crate) async fn download(&self) -> Option<SemaphorePermit<'_>> {
        self.downloads.acquire().await.ok()
    }

    /// A parser's place. It ends with the work, and not when who waits for it goes away.
    ///
    /// # Errors
    /// The process ends.
    pub(crate) async fn parser(&self) -> Result<OwnedSemaphorePermit, AcquireError> {
        Arc::clone(&self.parsers).acquire_owned().await
    }
}

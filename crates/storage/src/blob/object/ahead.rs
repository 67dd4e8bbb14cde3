//! Bytes go to the service while they are still being written, where it is known what they are to be: their digest is their key. They are
//! put under it when they have been published, and taken back when they are not (hazard W4).

use std::fs::File;
use std::sync::Arc;

use larder_core::BlobDescriptor;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::sums::Sums;
use super::{Shared, Source, Staged};
use crate::blob::ExpectedBlob;
use crate::blob::local::Follower;
use crate::body::Body;
use crate::error::{StorageError, StorageErrorKind};

/// Bodies of up to this length are sent when they are complete: they take a request or a few.
const BEGIN: u64 = 16 << 20;
/// Who sends is told of so much more at a time.
const STEP: u64 = 1 << 20;

/// How far a file has been written.
#[derive(Debug, Clone, Copy, Default)]
struct Grown {
    available: u64,
    is_complete: bool,
}

/// A file that is still being written.
#[derive(Debug, Clone)]
pub struct Growth {
    file: Arc<File>,
    grown: watch::Receiver<Grown>,
}

impl Growth {
    /// Waits until there are `to` bytes, or all that there will be. Gives how many of those there are.
    ///
    /// # Errors
    /// Nobody writes any more.
    pub async fn reach(&mut self, to: u64) -> Result<u64, StorageError> {
        let enough = |grown: &Grown| grown.is_complete || grown.available >= to;
        let grown = self.grown.wait_for(enough).await;
        let grown = grown.map_err(|_| {
            let message = "cannot put an object: its bytes have not come to an end";
            StorageError::new(StorageErrorKind::Unavailable, message)
        })?;
        Ok(grown.available.min(to))
    }

    /// Bytes that are there.
    pub fn part(&self, from: u64, to: u64) -> Body {
        Body::File {
            file: Arc::clone(&self.file),
            offset: from,
            length: to.saturating_sub(from),
        }
    }
}

/// What has been sent of a body, and is not under its key.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) staged: Box<dyn Staged>,
    pub(super) sums: Sums,
}

/// Sends what a spool gets, from a certain length on. Dropped, it takes everything back.
#[derive(Debug)]
pub(super) struct Ahead {
    expected: ExpectedBlob,
    key: String,
    shared: Arc<Shared>,
    runtime: Handle,
    told: u64,
    grown: watch::Sender<Grown>,
    growth: Growth,
    sending: Option<Sending>,
}

/// Ends with its owner.
#[derive(Debug)]
struct Sending(JoinHandle<Result<Option<Sent>, StorageError>>);

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Ahead {
    /// `None` where it would not pay, or nothing can be done beside the present work.
    pub(super) fn of(
        shared: &Arc<Shared>,
        key: String,
        expected: &ExpectedBlob,
        file: Arc<File>,
    ) -> Option<Self> {
        if expected.length.is_some_and(|length| length <= BEGIN) {
            return None;
        }
        let (sender, grown) = watch::channel(Grown::default());
        Some(Self {
            expected: expected.clone(),
            key,
            shared: Arc::clone(shared),
            runtime: Handle::try_current().ok()?,
            told: 0,
            grown: sender,
            growth: Growth { file, grown },
            sending: None,
        })
    }

    /// All bytes are there, and are those of `blob`. Waits until they have been sent; `None` if they are not to be had in this way.
    pub(super) async fn finish(mut self, blob: &BlobDescriptor) -> Option<Sent> {
        let mut sending = self.sending.take()?;
        if blob.digest != self.expected.digest {
            return None;
        }
        self.grown.send_replace(Grown {
            available: blob.size,
            is_complete: true,
        });
        match (&mut sending.0).await {
            Ok(Ok(sent)) => sent,
            Ok(Err(error)) => {
                tracing::debug!(%error, "a body did not reach the object store while it came; it is sent again");
                None
            }
            Err(_) => None,
        }
    }
}

impl Follower for Ahead {
    fn grown(&mut self, available: u64) {
        if available < BEGIN || available < self.told + STEP {
            return;
        }
        self.told = available;
        self.grown.send_replace(Grown {
            available,
            is_complete: false,
        });
        if self.sending.is_none() {
            let source = Source::Growing(self.growth.clone(), self.expected.length);
            let (shared, key) = (Arc::clone(&self.shared), self.key.clone());
            let sums = self.growth.clone();
            let sending = async move { send(&shared, &key, source, sums).await };
            self.sending = Some(Sending(self.runtime.spawn(sending)));
        }
    }
}

/// Sends everything that comes, unless there is such an object.
async fn send(
    shared: &Arc<Shared>,
    key: &str,
    source: Source,
    sums: Growth,
) -> Result<Option<Sent>, StorageError> {
    if shared.objects.head(key).await?.is_some() {
        return Ok(None);
    }
    let staged = shared.objects.stage(key, source);
    let (staged, sums) = tokio::try_join!(staged, Sums::of_growing(sums))?;
    Ok(staged.map(|staged| Sent { staged, sums }))
}

//! Following a spool while it grows for somebody who finds out for himself whether the bytes are the right ones: nothing is withheld.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::growing::{End, GrowingSpool, Place, Progress};

/// The bytes of a growing spool from some place on, as they arrive. It counts as a reader.
#[derive(Debug)]
pub struct Arriving {
    place: Place,
    progress: watch::Receiver<Progress>,
}

impl GrowingSpool {
    /// Its bytes from `from` on; `None` if they have been let go.
    pub fn arriving(self: &Arc<Self>, from: u64) -> Option<Arriving> {
        let place = self.attach(from);
        self.still_holds(from).then(|| Arriving {
            progress: self.subscribe(),
            place,
        })
    }
}

impl Arriving {
    /// The next bytes, `None` at the end of a body that is complete and the right one. Nothing is lost if it is dropped while it waits.
    ///
    /// # Errors
    /// The body stays incomplete or is the wrong one, or its bytes cannot be read.
    pub async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            let now = *self.progress.borrow_and_update();
            if now.end == End::Failed {
                return Some(Err(io::Error::other(self.place.spool.cause())));
            }
            if self.place.position() < now.available {
                return Some(self.place.read(now.available));
            }
            if now.end == End::Verified {
                return None;
            }
            if self.progress.changed().await.is_err() {
                return Some(Err(io::Error::other(self.place.spool.cause())));
            }
        }
    }
}

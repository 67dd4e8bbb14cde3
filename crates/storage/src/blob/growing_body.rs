//! Reading a spool while it grows, all of it or a part, at the reader's own pace.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use larder_core::Fault;

use super::growing::{End, Place};
use crate::body::Chunks;

/// A body that is still arriving, or a part of it. Copies share one place.
#[derive(Debug, Clone)]
pub struct GrowingBody {
    place: Arc<Place>,
    range: Option<Range<u64>>,
}

impl GrowingBody {
    pub(super) fn new(place: Place) -> Self {
        Self {
            place: Arc::new(place),
            range: None,
        }
    }

    /// Length in bytes, if the source has declared it or the body has arrived.
    pub fn length(&self) -> Option<u64> {
        let spool = &self.place.spool;
        match &self.range {
            Some(range) => Some(range.end - range.start),
            None if spool.is_verified() => Some(spool.progress().available),
            None => spool.total(),
        }
    }

    /// Whether a newcomer could still read all of it.
    pub fn holds_everything(&self) -> bool {
        self.place.spool.holds_everything()
    }

    /// Waits for the end of a body of unknown length and gives its length.
    ///
    /// # Errors
    /// What the transfer failed by.
    pub async fn wait_length(&self) -> Result<u64, Fault> {
        if let Some(length) = self.length() {
            return Ok(length);
        }
        let spool = &self.place.spool;
        let mut progress = spool.subscribe();
        let ended = progress
            .wait_for(|progress| progress.end != End::Open)
            .await
            .map(|progress| *progress);
        match ended {
            Ok(progress) if progress.end == End::Verified => Ok(progress.available),
            _ => Err(spool.cause()),
        }
    }

    pub(crate) fn range(&self, from: u64, to: u64) -> Self {
        let base = self.range.as_ref().map_or(0, |range| range.start);
        Self {
            place: Arc::clone(&self.place),
            range: Some(base + from..base + to),
        }
    }

    /// The bytes as they arrive. A part ahead of the download waits for it. An error means: abort the connection.
    pub fn chunks(self) -> Chunks {
        let start = self.range.as_ref().map_or(0, |range| range.start);
        let end = self.range.as_ref().map(|range| range.end);
        let reader = Reader {
            place: self.place.spool.attach(start),
            end,
        };
        // The reader paces the download from here on; the body it came from only holds what further parts may ask for.
        self.place.seek(end.unwrap_or(u64::MAX));
        Box::pin(futures_util::stream::unfold(reader, Reader::next))
    }
}

struct Reader {
    place: Place,
    /// Exclusive; `None` = to the end.
    end: Option<u64>,
}

impl Reader {
    async fn next(self) -> Option<(io::Result<Bytes>, Self)> {
        let mut progress = self.place.spool.subscribe();
        loop {
            let now = *progress.borrow_and_update();
            let position = self.place.position();
            let total = if now.end == End::Verified {
                Some(now.available)
            } else {
                self.place.spool.total()
            };
            let end = self.end.or(total);
            if end.is_some_and(|end| position >= end) {
                return None;
            }
            let limit = match now.end {
                End::Failed => return Some((Err(self.failure()), self)),
                End::Verified => end.unwrap_or(now.available).min(now.available),
                End::Open => self.released(end, now.available),
            };
            if position < limit {
                return Some((self.place.read(limit), self));
            }
            if now.end == End::Verified {
                return None;
            }
            if progress.changed().await.is_err() {
                return Some((Err(self.failure()), self));
            }
        }
    }

    /// How far may be read of a body that has not been found good yet.
    fn released(&self, end: Option<u64>, available: u64) -> u64 {
        let withheld = self.place.spool.withheld;
        let to_the_end = self.end.is_none() || self.end == self.place.spool.total();
        let released = match end {
            Some(end) if withheld.of_parts || to_the_end => end.saturating_sub(withheld.tail),
            Some(end) => end,
            None => available.saturating_sub(withheld.tail),
        };
        released.min(available)
    }

    fn failure(&self) -> io::Error {
        io::Error::other(self.place.spool.cause())
    }
}

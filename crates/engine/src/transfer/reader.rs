//! Reading a body while it arrives, from the start or from a range, at the reader's own pace.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use larder_core::{ByteRange, Fault};

use crate::transfer::fill::{Attached, End, HELD_BACK};

/// A body that is still arriving.
#[derive(Debug)]
pub struct FlightBody(Attached);

impl FlightBody {
    pub(crate) fn new(attached: Attached) -> Self {
        Self(attached)
    }

    /// Length, if the upstream declared it.
    pub fn length(&self) -> Option<u64> {
        self.0.fill().total
    }

    /// Waits for the end of a body of unknown length and gives its length.
    pub async fn wait_length(&self) -> Result<u64, Fault> {
        if let Some(total) = self.length() {
            return Ok(total);
        }
        let mut progress = self.0.fill().subscribe();
        let ended = progress
            .wait_for(|progress| progress.end != End::Open)
            .await
            .map(|progress| *progress);
        match ended {
            Ok(progress) if progress.end == End::Verified => Ok(progress.available),
            _ => Err(self.0.fill().cause()),
        }
    }

    /// The bytes, all or a range of them. A range ahead of the download waits for it. An error means: abort the connection.
    pub fn reader(&self, range: Option<ByteRange>) -> FlightReader {
        let start = range.map_or(0, |range| range.start);
        let attached = self.0.fill().attach(start);
        // The reader paces the download from here on; the body it came from only holds what further ranges may ask for.
        self.0.seek(range.map_or(u64::MAX, |range| range.end + 1));
        let state = State {
            attached,
            end: range.map(|range| range.end + 1),
        };
        FlightReader(Box::pin(futures_util::stream::unfold(state, State::next)))
    }
}

struct State {
    attached: Attached,
    /// Exclusive; `None` = to the end.
    end: Option<u64>,
}

impl State {
    async fn next(self) -> Option<(io::Result<Bytes>, Self)> {
        let fill = self.attached.fill().clone();
        let mut progress = fill.subscribe();
        loop {
            let now = *progress.borrow_and_update();
            let position = self.attached.position();
            let total = if now.end == End::Verified {
                Some(now.available)
            } else {
                fill.total
            };
            let end = self.end.or(total);
            if end.is_some_and(|end| position >= end) {
                return None;
            }
            let limit = match now.end {
                End::Failed => {
                    return Some((Err(io::Error::other(fill.cause())), self));
                }
                End::Verified => end.unwrap_or(now.available).min(now.available),
                End::Open => {
                    // The last bytes wait for verification; of a range, too, where a digest is expected.
                    let verdict_matters =
                        fill.expects_digest || self.end.is_none() || self.end == fill.total;
                    let held = match end {
                        Some(end) if verdict_matters => end.saturating_sub(HELD_BACK),
                        Some(end) => end,
                        None => now.available.saturating_sub(HELD_BACK),
                    };
                    held.min(now.available)
                }
            };
            if position < limit {
                return Some((self.attached.read(limit), self));
            }
            if now.end == End::Verified {
                return None;
            }
            if progress.changed().await.is_err() {
                return Some((Err(io::Error::other(crate::transfer::flight::lost())), self));
            }
        }
    }
}

/// A stream of the bytes of a [`FlightBody`].
pub struct FlightReader(Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>);

impl std::fmt::Debug for FlightReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FlightReader")
    }
}

impl Stream for FlightReader {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}

//! Bodies of requests. Who asks for nothing that takes a body is answered before a byte of it is read; whoever may send one takes
//! room for it from a budget that all bodies of the process share, and has to keep up. Uploads pass through and are never held.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use larder_budget::{BudgetKind, Budgets, Lease, Refused};
use larder_core::{ErrorCode, Fault, FaultKind};
use larder_engine::UploadPart;
use tokio::time::{Instant, timeout_at};

use crate::backend::UploadBody;
use crate::settings::ServerLimits;

/// Room that is taken at a time for a body that does not say its length: about what one read brings.
const STEP: u64 = 16 << 10;

/// A body that does not say its length must come as fast as one of this length, in bytes.
const ASSUMED: u64 = 256 << 10;

/// When a client that found no room should ask again.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Why a body has no room.
fn busy(_: Refused) -> Fault {
    let message =
        "larder is reading as many request bodies as it has memory for; ask again in a moment";
    Fault::new(FaultKind::Unavailable, ErrorCode::Busy, message).retry_after(Some(ASK_AGAIN))
}

/// Bytes together with their room, which is given back when nobody holds the bytes any more.
struct Leased {
    bytes: Bytes,
    _room: Lease,
}

impl AsRef<[u8]> for Leased {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The whole body of a request to a repository, of at most `most` bytes. What is too long is refused by its `Content-Length`, before
/// anything is read.
pub(crate) async fn collect(
    body: &mut Incoming,
    most: u64,
    (budgets, repository): (&Budgets, &str),
    limits: &ServerLimits,
) -> Result<Bytes, Fault> {
    let most = most.min(limits.body_bytes as u64);
    let declared = body.size_hint().exact();
    if declared.is_some_and(|length| length > most) {
        return Err(too_large(most));
    }
    if declared == Some(0) {
        return Ok(Bytes::new());
    }
    let (first, patience) = (declared.unwrap_or(STEP), limits.body_patience);
    let room = budgets.lease_within(BudgetKind::RequestBytes, repository, first, patience);
    let (mut room, mut has_room_for) = (room.await.map_err(busy)?, first);
    let mut pace = Pace::new(declared.unwrap_or(ASSUMED), limits);
    let mut all = BytesMut::with_capacity(first as usize);
    while let Some(frame) = pace.next(body).await? {
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let length = (all.len() + data.len()) as u64;
        if length > most {
            return Err(too_large(most));
        }
        if length > has_room_for {
            let more = length + STEP - has_room_for;
            room.grow(more, patience).await.map_err(busy)?;
            has_room_for += more;
        }
        all.extend_from_slice(&data);
        pace.received = length;
    }
    room.shrink_to(all.len() as u64);
    Ok(Bytes::from_owner(Leased {
        bytes: all.freeze(),
        _room: room,
    }))
}

/// How fast a body must come: never silent for long, and no later at any point than one that would be whole just in time.
struct Pace {
    started: Instant,
    silence: Duration,
    total: Duration,
    expected: u64,
    received: u64,
}

impl Pace {
    fn new(expected: u64, limits: &ServerLimits) -> Self {
        let (silence, total) = (limits.body_timeout, limits.body_total);
        Self {
            started: Instant::now(),
            silence,
            total,
            expected: expected.max(1),
            received: 0,
        }
    }

    /// When the next bytes must have come.
    fn deadline(&self, now: Instant) -> Instant {
        let share = (self.received as f64 / self.expected as f64).min(1.0);
        let due = self.silence + self.total.saturating_sub(self.silence).mul_f64(share);
        (self.started + due).min(now + self.silence)
    }

    async fn next(&self, body: &mut Incoming) -> Result<Option<http_body::Frame<Bytes>>, Fault> {
        match timeout_at(self.deadline(Instant::now()), body.frame()).await {
            Ok(None) => Ok(None),
            Ok(Some(Ok(frame))) => Ok(Some(frame)),
            Ok(Some(Err(_))) => Err(broken_off()),
            Err(_) => {
                let message = "the request body did not arrive in time; send it faster, or in smaller requests";
                Err(Fault::new(
                    FaultKind::RequestTimeout,
                    ErrorCode::RequestTimeout,
                    message,
                ))
            }
        }
    }
}

/// The body of an upload as it comes, and nothing of it in memory beside what one read brings. It may take as long as it likes, but
/// not be silent for longer than `limits.upload_timeout`, nor bring fewer than `limits.upload_bytes` in any such time; and while others wait
/// for a place, it has to bring more.
pub(crate) fn stream<'b>(
    body: &'b mut Incoming,
    limits: &ServerLimits,
    place: &'b Lease,
) -> UploadBody<'b> {
    let start = (body, Progress::new(limits));
    let frames = futures_util::stream::unfold(Some(start), move |state| async move {
        let (body, mut progress) = state?;
        loop {
            match timeout_at(progress.deadline(), body.frame()).await {
                Ok(None) => return None,
                Ok(Some(Ok(frame))) => {
                    let part = match frame.into_data() {
                        Ok(data) => {
                            progress.received(data.len() as u64);
                            UploadPart::Data(data)
                        }
                        Err(frame) => match frame.into_trailers() {
                            Ok(fields) => UploadPart::Trailers(fields),
                            Err(_) => continue,
                        },
                    };
                    return Some((Ok(part), Some((body, progress))));
                }
                Ok(Some(Err(_))) => return Some((Err(broken_off()), None)),
                Err(_) => {
                    if let Err(fault) = progress.judge(place.is_wanted()) {
                        return Some((Err(fault), None));
                    }
                }
            }
        }
    });
    Box::pin(frames)
}

/// What an upload has to bring in [`WANTED_WINDOW`] while others wait for a place, in bytes.
const WANTED_BYTES: u64 = 16 << 10;
const WANTED_WINDOW: Duration = Duration::from_secs(2);

/// Whether an upload comes on: in each window of time so many bytes.
struct Progress {
    window: Duration,
    least: u64,
    /// When the window began.
    began: Instant,
    /// What has come since.
    bytes: u64,
    /// When something last came.
    last: Instant,
    /// The beginning of a short window, and what has come in it.
    lately: (Instant, u64),
}

impl Progress {
    fn new(limits: &ServerLimits) -> Self {
        let now = Instant::now();
        Self {
            window: limits.upload_timeout,
            least: limits.upload_bytes,
            began: now,
            bytes: 0,
            last: now,
            lately: (now, 0),
        }
    }

    fn received(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.lately.1 += bytes;
        self.last = Instant::now();
    }

    /// When it is to be judged next.
    fn deadline(&self) -> Instant {
        (self.began.min(self.last) + self.window).min(self.lately.0 + WANTED_WINDOW)
    }

    /// Ends the windows that are over: either enough has come, or it is given up. `wanted`: whether others wait for its place.
    fn judge(&mut self, wanted: bool) -> Result<(), Fault> {
        let now = Instant::now();
        if now >= self.lately.0 + WANTED_WINDOW {
            let (_, bytes) = std::mem::replace(&mut self.lately, (now, 0));
            if wanted && bytes < WANTED_BYTES {
                let message = format!(
                    "the upload brought {bytes} bytes in {} seconds while others wait for its place, and was given up; nothing was kept: \
                     send the file again by a faster way",
                    WANTED_WINDOW.as_secs()
                );
                return Err(given_up(message));
            }
        }
        if now < self.began.min(self.last) + self.window {
            return Ok(());
        }
        if now < self.last + self.window && self.bytes >= self.least {
            (self.began, self.bytes) = (now, 0);
            return Ok(());
        }
        let (seconds, bytes) = (self.window.as_secs(), self.bytes);
        let message = if now >= self.last + self.window {
            format!(
                "the upload brought no byte for {seconds} seconds and was given up; nothing was kept: send the file again"
            )
        } else {
            format!(
                "the upload brought {bytes} bytes in {seconds} seconds and was given up, for it is to bring {} in this time; nothing was \
                 kept: send the file again by a faster way",
                self.least
            )
        };
        Err(given_up(message))
    }
}

fn given_up(message: String) -> Fault {
    let kind = FaultKind::RequestTimeout;
    Fault::new(kind, ErrorCode::RequestTimeout, message)
}

fn broken_off() -> Fault {
    Fault::new(
        FaultKind::BadRequest,
        ErrorCode::BadRequest,
        "the request body is broken off",
    )
}

fn too_large(most: u64) -> Fault {
    let message = format!("the request body is larger than the {most} bytes that are taken here");
    Fault::new(FaultKind::TooLarge, ErrorCode::BodyTooLarge, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long an upload lasts that brings `bytes` each second, and why it ends.
    async fn given_up_after(bytes: u64, wanted: bool) -> Option<(u64, String)> {
        let mut progress = Progress::new(&ServerLimits::default());
        let began = Instant::now();
        for second in 1..300 {
            let next = began + Duration::from_secs(second);
            while progress.deadline() < next {
                tokio::time::sleep_until(progress.deadline()).await;
                if let Err(fault) = progress.judge(wanted) {
                    assert_eq!(fault.code, ErrorCode::RequestTimeout);
                    return Some((began.elapsed().as_secs(), fault.message));
                }
            }
            tokio::time::sleep_until(next).await;
            if bytes > 0 {
                progress.received(bytes);
            }
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn hazard_r1_an_upload_that_drips_is_given_up_and_one_that_comes_on_is_not() {
        assert_eq!(given_up_after(1_200, false).await, None);
        let (after, message) = given_up_after(1_000, false).await.unwrap();
        assert!(
            after == 60 && message.contains("is to bring 65536"),
            "{message}"
        );
        let (after, message) = given_up_after(0, false).await.unwrap();
        assert!(
            after == 60 && message.contains("no byte for 60 s"),
            "{message}"
        );
        assert_eq!(given_up_after(16 << 10, true).await, None);
        let (after, message) = given_up_after(4_000, true).await.unwrap();
        assert!(
            after == 2 && message.contains("while others wait"),
            "{message}"
        );
    }

    /// Of 60 s, 10 s may be silence: a body must be half here after 35 s, however its bytes are spread before.
    #[test]
    fn hazard_r1_a_body_that_drips_falls_behind() {
        let due = |received| {
            let pace = Pace {
                received,
                ..Pace::new(1_000, &ServerLimits::default())
            };
            (pace.deadline(pace.started + Duration::from_hours(1)) - pace.started).as_secs()
        };
        assert_eq!([due(0), due(500), due(1_000), due(9_000)], [10, 35, 60, 60]);
        let pace = Pace {
            received: 900,
            ..Pace::new(1_000, &ServerLimits::default())
        };
        assert_eq!(
            pace.deadline(pace.started),
            pace.started + Duration::from_secs(10),
            "nor may it be silent for longer"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn hazard_x3_room_is_taken_before_and_given_back_with_the_last_copy_of_the_bytes() {
        let budgets = Budgets::new(larder_budget::Totals {
            request_bytes: 100,
            ..larder_budget::Totals::default()
        });
        let room = async |bytes| {
            let patience = Duration::from_secs(1);
            let room = budgets.lease_within(BudgetKind::RequestBytes, "npm", bytes, patience);
            room.await.map_err(busy)
        };
        let bytes = Bytes::from_owner(Leased {
            bytes: Bytes::from_static(b"x"),
            _room: room(70).await.unwrap(),
        });
        let copy = bytes.clone();
        drop(bytes);
        let fault = room(40).await.unwrap_err();
        assert_eq!(
            (fault.kind, fault.retry_after.is_some()),
            (FaultKind::Unavailable, true)
        );
        drop(copy);
        assert!(room(75).await.is_ok());
    }
}

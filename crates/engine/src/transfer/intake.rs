//! Taking a body in: into the spool (or, if the disk cannot take it, through memory), counted, hashed, and taken up again after a cut.

use std::slice;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use larder_core::{ErrorCode, Hasher};
use larder_formats::Identifier;
use larder_storage::Spool;
use larder_upstream::{BodyStream, Framing, UpstreamError, UpstreamErrorKind};
use tokio::time::Instant;

use crate::budget::{BudgetKind, Lease};
use crate::counters::count;
use crate::fault::{FetchError, too_much_under_way};
use crate::repositories::mirror::Mirror;
use crate::target::Target;
use crate::transfer::Transfers;
use crate::transfer::fill::Fill;
use crate::transfer::received::Received;
use crate::transfer::resume::{Cut, FirstAnswer, Joined, Rest, Supply};
use crate::transfer::verify::Inspector;

/// Chunks up to this size are hashed and written where they arrive; larger ones on a blocking thread.
const INLINE: usize = 64 << 10;
/// Documents from this length on take turns in coming in, many at once: until then no read buffer has grown.
const LONG: u64 = 128 << 10;
/// Followers are woken when this much has come, or after [`PUBLISH_AFTER`].
const PUBLISH_BYTES: u64 = 256 << 10;
const PUBLISH_AFTER: Duration = Duration::from_millis(8);
/// How often a cut download is taken up again.
const RESUMES: u32 = 3;

/// Takes bytes in and makes them visible to followers.
pub(super) struct Intake<'t> {
    transfers: &'t Transfers,
    wanted: &'t Target,
    fill: Arc<Fill>,
    /// `None` once the ring has taken over, or while a blocking thread has it.
    spool: Option<Spool>,
    in_ring: bool,
    /// How many bytes the ring may hold, and for how many there is room.
    ring_capacity: u64,
    room: u64,
    /// Where the ring begins in the body.
    ring_from: u64,
    /// Bytes beyond this are not kept.
    keep_up_to: u64,
    measures: Measures,
    written: u64,
    published: u64,
    published_at: Instant,
    /// Bytes at the start of a restarted body that are there already.
    skip: u64,
    /// Whether they have to be the same as those that are there, and how many have been compared.
    compares: bool,
    compared: u64,
    /// Length of the whole, once any answer has stated it.
    total: Option<u64>,
    needs_digest: bool,
    of_another_mirror: bool,
    pace: Pace,
    /// Of a long document: its turn to come in, if it got one, and whether it has waited for it.
    arrival: Option<Lease>,
    has_waited: bool,
}

/// A body as it comes, and who sends it.
pub(super) struct Coming {
    pub(super) body: BodyStream,
    pub(super) mirror: Option<Arc<Mirror>>,
}

/// How often a body has been taken up again, and how far it had come then.
#[derive(Default)]
struct Resumes {
    count: u32,
    at: u64,
}

impl<'t> Intake<'t> {
    pub(super) fn new(
        transfers: &'t Transfers,
        wanted: &'t Target,
        fill: &Arc<Fill>,
        inspector: &impl Inspector,
        (ring_capacity, is_stored_here): (usize, bool),
    ) -> Self {
        let max_size = wanted
            .entry
            .repository
            .upstream()
            .and_then(|upstream| upstream.max_size);
        let keep_up_to = max_size.unwrap_or(u64::MAX);
        let too_large = fill.total().is_some_and(|total| total > keep_up_to);
        let spool = if too_large {
            None
        } else {
            let expected = inspector.expected().filter(|_| is_stored_here);
            transfers.new_spool_for(expected, fill.total())
        };
        if let Some(spool) = &spool {
            fill.set_spool(spool.reader());
        } else {
            fill.start_ring(0);
        }
        let is_kept = spool.is_some();
        Self {
            transfers,
            wanted,
            fill: Arc::clone(fill),
            in_ring: !is_kept,
            ring_capacity: ring_capacity as u64,
            room: 0,
            ring_from: 0,
            spool,
            keep_up_to,
            measures: Measures {
                hasher: Hasher::new(&inspector.algorithms(is_kept)),
                identifier: inspector.identifier().filter(|_| fill.expects_digest),
            },
            written: 0,
            published: 0,
            published_at: Instant::now(),
            skip: 0,
            compares: false,
            compared: 0,
            total: fill.total(),
            needs_digest: false,
            of_another_mirror: false,
            pace: Pace::default(),
            arrival: None,
            has_waited: false,
        }
    }

    /// Takes the whole body in, whoever sends its parts.
    pub(super) async fn run(
        mut self,
        mut coming: Coming,
        supply: &impl Supply,
    ) -> Result<Received, FetchError> {
        let has_several = self.wanted.entry.mirrors.len() > 1;
        let first = FirstAnswer::new(
            &self.fill.draft.headers,
            coming.body.declared_length(),
            coming.mirror.as_ref(),
            has_several,
        );
        let can_be_joined = first.has_strong_tag() || self.fill.expects_digest;
        // A mirror that is merely slow is left at most once: the others may be no faster.
        self.pace.is_watched = has_several && can_be_joined;
        let mut resumes = Resumes::default();
        loop {
            match self.drain(&mut coming.body).await {
                Ok(()) => return self.received(&coming.body),
                Err(Broken::Fatal(no_body)) => return Err(no_body),
                Err(Broken::Slow) => {
                    self.pace.is_watched = false;
                    if let Some(faster) = self.faster(coming.mirror.as_ref(), &first, supply).await
                    {
                        coming = faster;
                    }
                }
                Err(Broken::Cut(error)) => {
                    if !(has_several || can_be_joined) {
                        return Err(error);
                    }
                    coming = self
                        .rest(coming.mirror.as_ref(), error, &first, supply, &mut resumes)
                        .await?;
                }
            }
        }
    }

    /// The same body from another mirror than the one that is slow. Whatever comes of asking, the body that is slow is still there.
    async fn faster(
        &mut self,
        slow: Option<&Arc<Mirror>>,
        first: &FirstAnswer,
        supply: &impl Supply,
    ) -> Option<Coming> {
        let slow = slow?;
        let message = format!(
            "it sent less than {} bytes a second",
            Pace::LEAST / Pace::WINDOW.as_secs()
        );
        let why = FetchError::unusable(ErrorCode::UpstreamSlow, message);
        supply.put_aside(slow, &why);
        let rest = first
            .resume(supply, &self.cut(slice::from_ref(slow)))
            .await?;
        (rest.joined != Joined::IfTheSame).then(|| self.adopt(rest))
    }

    /// The rest of a body that was cut; `error` again if it has been cut too often, or nobody has the rest.
    async fn rest(
        &mut self,
        broke_off: Option<&Arc<Mirror>>,
        error: FetchError,
        first: &FirstAnswer,
        supply: &impl Supply,
        resumes: &mut Resumes,
    ) -> Result<Coming, FetchError> {
        let progress = resumes.count == 0 || self.written > resumes.at;
        if resumes.count >= RESUMES || !progress {
            return Err(error);
        }
        if let Some(mirror) = broke_off {
            supply.put_aside(mirror, &error);
        }
        self.publish();
        (resumes.count, resumes.at) = (resumes.count + 1, self.written);
        let rest = first.resume(supply, &self.cut(&[])).await.ok_or(error)?;
        Ok(self.adopt(rest))
    }

    /// What has come in, when `last`, its last part, has ended.
    fn received(mut self, last: &BodyStream) -> Result<Received, FetchError> {
        if self.skip > 0 || self.total.is_some_and(|total| total != self.written) {
            return Err(FetchError::unusable(
                ErrorCode::UpstreamCut,
                "the upstream sent fewer or more bytes than it declared",
            ));
        }
        self.publish();
        Ok(Received {
            digests: self.measures.hasher.finish(),
            identities: self.measures.identifier.map(Identifier::finish),
            spool: self.spool,
            length: self.written,
            end_marked: self.total.is_some() || last.framing() != Framing::ConnectionClose,
            needs_digest: self.needs_digest,
            of_another_mirror: self.of_another_mirror,
        })
    }

    fn cut<'a>(&self, avoid: &'a [Arc<Mirror>]) -> Cut<'a> {
        Cut {
            offset: self.written,
            expects_digest: self.fill.expects_digest,
            avoid,
        }
    }

    /// Goes on with the rest that another answer brings.
    fn adopt(&mut self, rest: Rest) -> Coming {
        self.skip = rest.known;
        self.compares = rest.joined == Joined::IfTheSame;
        self.compared = 0;
        self.needs_digest |= rest.joined == Joined::ByDigest;
        self.of_another_mirror |= rest.of_another_mirror;
        self.total = self.total.or(rest.total);
        count(&self.wanted.entry.counters.fills_resumed);
        Coming {
            body: rest.body,
            mirror: rest.mirror,
        }
    }

    /// Takes the body until it ends.
    async fn drain(&mut self, body: &mut BodyStream) -> Result<(), Broken> {
        loop {
            let began = Instant::now();
            let next = if self.published < self.written {
                let next =
                    tokio::time::timeout_at(self.published_at + PUBLISH_AFTER, body.next()).await;
                self.pace.waited += began.elapsed();
                let Ok(next) = next else {
                    self.publish();
                    continue;
                };
                next
            } else {
                let next = body.next().await;
                self.pace.waited += began.elapsed();
                next
            };
            match next {
                None => return Ok(()),
                Some(Ok(chunk)) => {
                    let counters = &self.wanted.entry.counters;
                    counters
                        .upstream_bytes
                        .fetch_add(chunk.len() as u64, std::sync::atomic::Ordering::Relaxed);
                    let is_slow = self.pace.is_slow(chunk.len());
                    self.take(chunk).await.map_err(Broken::Fatal)?;
                    self.transfers
                        .refuse_oversized(self.wanted, Some(self.written))
                        .map_err(Broken::Fatal)?;
                    if is_slow {
                        return Err(Broken::Slow);
                    }
                }
                Some(Err(error)) => return Err(Broken::by(error)),
            }
        }
    }

    async fn take(&mut self, mut chunk: Bytes) -> Result<(), FetchError> {
        if self.skip > 0 {
            let known = self.skip.min(chunk.len() as u64);
            self.skip -= known;
            let rest = chunk.split_off(known as usize);
            if self.compares && !self.fill.holds_at(self.compared, &chunk) {
                let message = "the upstream broke off the transfer, and the other mirror has other bytes under the same name";
                return Err(FetchError::unusable(ErrorCode::UpstreamCut, message));
            }
            self.compared += known;
            chunk = rest;
        }
        if chunk.is_empty() {
            return Ok(());
        }
        let length = chunk.len() as u64;
        if self.wanted.spec.is_document && !self.has_waited && self.written + length > LONG {
            self.has_waited = true;
            let repository = self.wanted.entry.repository.name.as_str();
            let budgets = &self.transfers.budgets;
            let arrival = budgets.place_if_any(BudgetKind::Arrivals, repository);
            self.arrival = arrival.await;
        }
        if !self.in_ring && self.written + length > self.keep_up_to {
            self.enter_ring();
        }
        if self.in_ring {
            self.measures.update(&chunk);
            self.push(chunk).await?;
        } else {
            self.write(chunk).await?;
        }
        let was_empty = self.written == 0;
        self.written += length;
        if was_empty
            || self.written - self.published >= PUBLISH_BYTES
            || self.published_at.elapsed() >= PUBLISH_AFTER
        {
            self.publish();
        }
        Ok(())
    }

    /// Adds to what is in memory, for which there must be room first: as much as the body has, or the ring may hold.
    async fn push(&mut self, chunk: Bytes) -> Result<(), FetchError> {
        let budgets = &self.transfers.budgets;
        let repository = self.wanted.entry.repository.name.as_str();
        let after = self.written - self.ring_from + chunk.len() as u64;
        while self.room < after.min(self.ring_capacity) {
            let whole = self.total.map(|total| total.saturating_sub(self.ring_from));
            let more = whole
                .unwrap_or(self.room + self.transfers.limits.ring_bytes as u64)
                .clamp(after, self.ring_capacity.max(after))
                - self.room;
            let leased = budgets.lease(BudgetKind::UnkeptBytes, repository, more);
            let lease = leased.await.map_err(too_much_under_way)?;
            self.fill.holds(lease);
            self.room += more;
        }
        self.fill.push_ring(chunk).await.map_err(|_| {
            FetchError::unusable(
                ErrorCode::Unread,
                "nobody read this download and it could not be kept",
            )
        })
    }

    async fn write(&mut self, chunk: Bytes) -> Result<(), FetchError> {
        let Some(mut spool) = self.spool.take() else {
            return Err(FetchError::unusable(
                ErrorCode::Internal,
                "the download lost its file",
            ));
        };
        let written = if chunk.len() <= INLINE {
            self.measures.update(&chunk);
            spool.append(&chunk)
        } else {
            let mut measures = std::mem::replace(&mut self.measures, Measures::none());
            let bytes = chunk.clone();
            let work = tokio::task::spawn_blocking(move || {
                measures.update(&bytes);
                let result = spool.append(&bytes);
                (spool, measures, result)
            });
            let Ok((back, measures, result)) = work.await else {
                return Err(FetchError::unusable(
                    ErrorCode::Internal,
                    "the download's writer stopped",
                ));
            };
            (spool, self.measures) = (back, measures);
            result
        };
        match written {
            Ok(()) => self.spool = Some(spool),
            Err(error) => {
                self.transfers.catalog.trouble().warn_not_kept(&error);
                if spool.truncate_to(self.written).is_err() {
                    tracing::debug!("the tail of a spool was not cut off; it is never read");
                }
                self.enter_ring();
                self.push(chunk).await?;
            }
        }
        Ok(())
    }

    /// What has been written stays readable; nothing will be committed.
    fn enter_ring(&mut self) {
        self.publish();
        self.fill.start_ring(self.written);
        self.ring_from = self.written;
        self.in_ring = true;
        self.spool = None;
    }

    fn publish(&mut self) {
        self.fill.publish(self.written);
        self.published = self.written;
        self.published_at = Instant::now();
    }
}

/// What is computed of the bytes on their way.
struct Measures {
    hasher: Hasher,
    identifier: Option<Box<dyn Identifier>>,
}

impl Measures {
    fn none() -> Self {
        Self {
            hasher: Hasher::new(&[]),
            identifier: None,
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        if let Some(identifier) = &mut self.identifier {
            identifier.update(bytes);
        }
    }
}

/// How fast bytes come while they are waited for. What slow readers cost is not counted.
#[derive(Debug, Default)]
struct Pace {
    is_watched: bool,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    const WINDOW: Duration = Duration::from_secs(5);
    /// What has to come in that time.
    const LEAST: u64 = 80 << 10;

    fn is_slow(&mut self, length: usize) -> bool {
        self.bytes += length as u64;
        if self.waited < Self::WINDOW {
            return false;
        }
        let slow = self.is_watched && self.bytes < Self::LEAST;
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        slow
    }
}

enum Broken {
    Slow,
    Cut(FetchError),
    Fatal(FetchError),
}

impl Broken {
    /// Whether others may have the rest is seen by how the body ended.
    fn by(error: UpstreamError) -> Self {
        let cut = matches!(
            error.kind,
            UpstreamErrorKind::Truncated
                | UpstreamErrorKind::TimedOut
                | UpstreamErrorKind::Protocol
                | UpstreamErrorKind::Unreachable
        );
        if cut {
            Self::Cut(error.into())
        } else {
            Self::Fatal(error.into())
        }
    }
}

//! Who waits for the refresh of something of which a copy is held waits no longer than `stale.wait`, and gets the copy then; the refresh
//! goes on, and is kept when it ends (docs/adr/0072). Knows neither why the upstream is slow nor what it is asked for: a connection that
//! hangs, a body that drips and mirrors that are silent one after the other are all one wait.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use larder_core::{ArtifactRecord, CacheStatus, Fault, ForwardReason, Source};
use larder_storage::End;
use tokio::time::{Instant, timeout_at};

use super::copies::Copy;
use super::parts::Remote;
use crate::answer::Answer;
use crate::causes::warn_once;
use crate::counters::count;
use crate::policy::admission::Admitted;
use crate::target::{ArtifactRequest, Target};
use crate::transfer::fill::{Fill, SMALL_BODY};
use crate::transfer::flight::{Flight, Ready, Settled};

/// A large body in the place of a copy is handed on while it arrives if it comes at least this fast, in bytes a second: whoever has begun
/// to read it cannot be given the copy any more.
const FLOWING: u64 = 64 << 10;

/// What came of waiting with a copy to fall back on.
#[derive(Debug)]
pub(crate) enum Waited<T> {
    Ready(T),
    /// It did not come in time: the copy, to be served meanwhile.
    Overdue(Settled),
}

impl Remote {
    /// What a flight comes to; the copy if it does not in time. Without a copy that may be served the wait has no bound of its own.
    pub(super) async fn ready_or_copy(
        self: &Arc<Self>,
        wanted: &Arc<Target>,
        flight: &Flight,
        whole: bool,
        until: Instant,
    ) -> Waited<Ready> {
        match self
            .unless_overdue(wanted, until, flight.ready(whole))
            .await
        {
            Waited::Ready(Ready::Filling(fill)) if flight.reason() == ForwardReason::Stale => {
                let flows = flows_by(&fill, flight.began, until).await;
                let copy = if flows {
                    None
                } else {
                    self.overdue(wanted).await
                };
                copy.map_or(Waited::Ready(Ready::Filling(fill)), Waited::Overdue)
            }
            waited => waited,
        }
    }

    /// A forwarded HEAD; what stands in for it if the upstream does not answer in time. Others may go on waiting for it.
    pub(crate) async fn head_or_copy(
        self: &Arc<Self>,
        admitted: &Admitted,
        request: &ArtifactRequest<'_>,
    ) -> Waited<Result<Option<Answer>, Fault>> {
        let wanted = admitted.wanted();
        let until = Instant::now() + wanted.entry.repository.cache.stale_wait;
        let head = Box::pin(self.forward_head(admitted, request));
        self.unless_overdue(wanted, until, head).await
    }

    /// What `coming` gives; the copy if it does not by `until`.
    async fn unless_overdue<T>(
        self: &Arc<Self>,
        wanted: &Arc<Target>,
        until: Instant,
        coming: impl Future<Output = T>,
    ) -> Waited<T> {
        let mut coming = pin!(coming);
        if let Ok(came) = timeout_at(until, &mut coming).await {
            return Waited::Ready(came);
        }
        match self.overdue(wanted).await {
            Some(copy) => Waited::Overdue(copy),
            None => Waited::Ready(coming.await),
        }
    }

    /// The copy of what is overdue. Boxed: it is rarely asked for, and every request that waits would carry it.
    fn overdue<'a>(
        self: &'a Arc<Self>,
        wanted: &'a Arc<Target>,
    ) -> Pin<Box<dyn Future<Output = Option<Settled>> + Send + 'a>> {
        Box::pin(self.copy_meanwhile(wanted))
    }

    /// The same, as it is served.
    async fn copy_meanwhile(self: &Arc<Self>, wanted: &Arc<Target>) -> Option<Settled> {
        // A new generation has arrived and takes the place of the copy as soon as nobody reads that: it is waited for.
        let is_exchanging =
            || wanted.heads_generation() && self.readings.is_exchanging(&wanted.key);
        if is_exchanging() {
            return None;
        }
        let (record, open) = self.spare_copy(wanted).await?;
        if wanted.heads_generation() {
            // Who gets the document now may ask for its companion next.
            self.readings.note(&wanted.key, Instant::now());
            if is_exchanging() {
                return None;
            }
        }
        let wait = wanted.entry.repository.cache.stale_wait;
        warn_once!(
            wanted,
            "stale_wait",
            "the upstream takes longer than stale.wait: the expired copy is served, and the refresh goes on",
            seconds = wait.as_secs()
        );
        count(&wanted.entry.counters.stale_served);
        Some(Settled {
            record,
            body: open,
            status: CacheStatus {
                forward: Some(ForwardReason::Stale),
                detail: Some("stale-timeout"),
                ..CacheStatus::default()
            },
            source: Source::Cache,
            reusable: false,
            document: None,
        })
    }

    /// What is held under this name, or stands in for it, and may be served if nobody answers.
    async fn spare_copy(self: &Arc<Self>, wanted: &Arc<Target>) -> Option<Copy> {
        let record = self.catalog.record(&wanted.key).await.ok().flatten();
        let own = match record {
            Some(record) => self.own_copy(wanted, record).await,
            None => None,
        };
        match own.filter(|(record, _)| self.copies.may_serve(wanted, record)) {
            Some(copy) => Some(copy),
            None => self.copies.stand_in(wanted).await,
        }
    }

    /// A copy that is held, if its bytes are there and are what is stated of them.
    pub(super) async fn own_copy(
        self: &Arc<Self>,
        wanted: &Arc<Target>,
        record: Arc<ArtifactRecord>,
    ) -> Option<Copy> {
        if let Some(copy) = self.copies.follow_pointer(wanted, &record).await {
            return Some(copy);
        }
        let open = self.catalog.open_held(wanted, &record).await?;
        Some((self.copies.still_claimed(wanted, record).await?, open))
    }
}

/// Until when somebody who came at `since` waits for this flight. Who comes when it is overdue already does not wait once more.
pub(super) fn patience(wanted: &Target, flight: &Flight, since: Instant) -> Instant {
    since.min(flight.began) + wanted.entry.repository.cache.stale_wait
}

/// Whether so much of a large body has arrived by `until` that it may be read while the rest arrives.
async fn flows_by(fill: &Fill, began: Instant, until: Instant) -> bool {
    let mut progress = fill.subscribe();
    let flows = progress.wait_for(|progress| {
        let least = began
            .elapsed()
            .checked_sub(Duration::from_secs(1))
            .map_or(0, |elapsed| elapsed.as_secs() * FLOWING);
        progress.end != End::Open || progress.available >= least.max(SMALL_BODY)
    });
    matches!(timeout_at(until, flows).await, Ok(Ok(_)))
}

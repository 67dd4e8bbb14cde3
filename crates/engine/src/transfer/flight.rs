//! One detached download per key, many readers. The first client is just one more reader.

use std::collections::HashMap;
use std::fmt::Debug;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use larder_core::{
    ArtifactRecord, CacheStatus, ErrorCode, Fault, FaultKind, ForwardReason, Recovery, Source,
    SourceKey,
};
use larder_storage::{Body, End};
use larder_upstream::UpstreamResponse;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::catalog::Landing;
use crate::loaded::Arrival;
use crate::transfer::audience::Audience;
use crate::transfer::fill::Fill;

/// How much a flight is to find out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// What is due: nothing, if a fresh copy is held.
    IfDue,
    /// Whether the copy is still what the upstream has, however fresh it is. If nothing is learnt, it stays as it was.
    Recheck,
    /// The upstream's answer, without conditions.
    Anew,
}

/// What a flight ended with.
#[derive(Debug, Clone)]
pub(crate) struct Settled {
    pub(crate) record: Arc<ArtifactRecord>,
    /// A complete file, stored or verified and about to be; or what has arrived, partly in memory: the disk could not take it.
    pub(crate) body: Body,
    pub(crate) status: CacheStatus,
    pub(crate) source: Source,
    /// Whether further answers may be made of it, here and at clients: not where the copy has expired, or the body is not kept.
    pub(crate) reusable: bool,
    /// Of a document that has just arrived and been checked: what is at hand for the first derivations from it.
    pub(crate) document: Option<Arrival>,
}

impl Settled {
    /// Bytes with their record, of which nothing is told to anybody.
    pub(crate) fn of_record(record: &Arc<ArtifactRecord>, body: Body) -> Self {
        Self {
            record: Arc::clone(record),
            body,
            status: CacheStatus::default(),
            source: Source::Remote,
            reusable: true,
            document: None,
        }
    }

    /// Whether this is a copy that is served because nothing better came.
    pub(crate) fn is_old(&self) -> bool {
        self.status.detail.is_some() && self.document.is_none()
    }
}

#[derive(Debug, Clone)]
enum State {
    Pending,
    Filling(Arc<Fill>),
    Done(Result<Settled, Fault>),
}

/// What a waiter gets.
#[derive(Debug)]
pub(crate) enum Ready {
    /// Bytes may be read while the rest arrives.
    Filling(Arc<Fill>),
    Done(Result<Settled, Fault>),
}

#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) key: SourceKey,
    pub(crate) began: Instant,
    state: watch::Sender<State>,
    /// Set by a flush: readers are served, nothing is committed.
    flushed: AtomicBool,
    /// Set when a document is exchanged for one that states other bytes: what comes of this is to be compared with it.
    restated: AtomicBool,
    /// Whether the document is being read on this flight's account: it decides by what that says.
    rereads: AtomicBool,
    audience: Audience,
    /// Why the upstream is asked; unset until it is.
    reason: OnceLock<ForwardReason>,
    task: OnceLock<AbortHandle>,
    /// What is kept as long as it can be joined: the lease by which other replicas know that it is under way.
    kept: Mutex<Option<Box<dyn Debug + Send>>>,
    /// The answer that another replica passes on, until it is taken in.
    relayed: Mutex<Option<Box<UpstreamResponse>>>,
    /// How often it was asked whose turn it is.
    asks: AtomicU32,
    /// The request that it was begun for: what is said of the file later carries its id.
    pub(crate) span: tracing::Span,
}

impl Flight {
    /// A flight that nobody can join: its outcome is one part of another's.
    pub(crate) fn detached(key: SourceKey) -> Self {
        Self::new(key)
    }

    fn new(key: SourceKey) -> Self {
        Self {
            key,
            began: Instant::now(),
            state: watch::Sender::new(State::Pending),
            flushed: AtomicBool::new(false),
            restated: AtomicBool::new(false),
            rereads: AtomicBool::new(false),
            audience: Audience::default(),
            reason: OnceLock::new(),
            task: OnceLock::new(),
            kept: Mutex::default(),
            relayed: Mutex::default(),
            asks: AtomicU32::new(0),
            span: larder_upstream::request_span(),
        }
    }

    /// Notes why the upstream is asked; the first reason stays.
    pub(crate) fn forwarded(&self, reason: ForwardReason) {
        let _ = self.reason.set(reason);
    }

    /// Why the upstream was asked.
    pub(crate) fn reason(&self) -> ForwardReason {
        self.reason.get().copied().unwrap_or(ForwardReason::UriMiss)
    }

    /// Announces that the head is known and bytes are coming.
    pub(crate) fn begin_fill(&self, fill: Arc<Fill>) {
        self.state.send_replace(State::Filling(fill));
    }

    /// Ends the flight for those who wait. It may stay joinable until its record is visible.
    pub(crate) fn finish(&self, result: Result<Settled, Fault>) {
        self.state.send_replace(State::Done(result));
    }

    /// Whether it has ended, though its record may not be visible yet.
    pub(crate) fn is_done(&self) -> bool {
        matches!(&*self.state.borrow(), State::Done(_))
    }

    /// What came of it, if it has ended well.
    pub(crate) fn arrived(&self) -> Option<Settled> {
        match &*self.state.borrow() {
            State::Done(Ok(settled)) => Some(settled.clone()),
            State::Pending | State::Filling(_) | State::Done(Err(_)) => None,
        }
    }

    /// Whether all bytes are here and verified: who comes now gets what is kept already, or about to be.
    pub(crate) fn has_everything(&self) -> bool {
        match &*self.state.borrow() {
            State::Done(_) => true,
            State::Filling(fill) => fill.is_verified(),
            State::Pending => false,
        }
    }

    /// Whether a newcomer can still get everything from here.
    fn is_joinable(&self) -> bool {
        match &*self.state.borrow() {
            State::Filling(fill) => fill.holds_everything(),
            State::Done(Ok(Settled {
                body: Body::Growing(body),
                ..
            })) => body.holds_everything(),
            State::Pending | State::Done(_) => true,
        }
    }

    pub(crate) fn mark_flushed(&self) {
        self.flushed.store(true, Ordering::Release);
    }

    pub(crate) fn is_flushed(&self) -> bool {
        self.flushed.load(Ordering::Acquire)
    }

    pub(crate) fn is_restated(&self) -> bool {
        self.restated.load(Ordering::Acquire)
    }

    pub(crate) fn set_rereads(&self, rereads: bool) {
        self.rereads.store(rereads, Ordering::Release);
    }

    /// Waits until there is something to serve: the end, or (unless `whole`) a body large enough to be streamed.
    pub(crate) async fn ready(&self, whole: bool) -> Ready {
        let _seat = self.audience.join();
        let mut state = self.state.subscribe();
        loop {
            let fill = match &*state.borrow_and_update() {
                State::Done(result) => return Ready::Done(result.clone()),
                State::Filling(fill) if !whole && fill.may_stream() => {
                    return Ready::Filling(Arc::clone(fill));
                }
                State::Filling(fill) if !whole => Some(Arc::clone(fill)),
                State::Filling(_) | State::Pending => None,
            };
            let ended = match fill {
                // A body of unknown length may outgrow the small limit before the state changes again.
                Some(fill) => tokio::select! {
                    changed = state.changed() => changed.is_err(),
                    () = fill.until_streamable() => false,
                },
                None => state.changed().await.is_err(),
            };
            if ended {
                return Ready::Done(Err(lost()));
            }
        }
    }

    /// Nobody waits for the head and nobody reads the body.
    fn is_unread(&self) -> bool {
        !self.is_being_read() && self.audience.is_empty()
    }

    fn is_being_read(&self) -> bool {
        match &*self.state.borrow() {
            State::Filling(fill) => fill.readers() > 0,
            State::Pending | State::Done(_) => false,
        }
    }

    /// Whether all who wanted it have gone. What was begun without anybody, or is a part of something else, is not given up.
    pub(crate) fn is_given_up(&self) -> bool {
        !self.is_being_read() && self.audience.has_left()
    }

    /// Waits until nobody waits any more for what has not begun.
    pub(crate) async fn given_up(&self) {
        self.audience.left().await;
    }

    /// As [`ready`](Self::ready), for another replica, which looks at the bytes itself: as soon as any may come.
    pub(crate) async fn begun(&self) -> Ready {
        let _seat = self.audience.join();
        let mut state = self.state.subscribe();
        loop {
            match &*state.borrow_and_update() {
                State::Done(result) => return Ready::Done(result.clone()),
                // After a body that failed another one may begin.
                State::Filling(fill) if fill.progress().end != End::Failed => {
                    return Ready::Filling(Arc::clone(fill));
                }
                State::Filling(_) | State::Pending => {}
            }
            if state.changed().await.is_err() {
                return Ready::Done(Err(lost()));
            }
        }
    }

    /// Keeps something for as long as it can be joined.
    pub(crate) fn keep(&self, what: impl Debug + Send + 'static) {
        *lock(&self.kept) = Some(Box::new(what));
    }

    /// Whether something is kept.
    pub(crate) fn is_kept(&self) -> bool {
        lock(&self.kept).is_some()
    }

    fn let_go(&self) {
        // What is kept may do something when it goes.
        let kept = lock(&self.kept).take();
        drop(kept);
    }

    /// Counts a question, and gives how many there have been.
    pub(crate) fn asks(&self) -> u32 {
        self.asks.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Has an answer that is taken in instead of asking the upstream.
    pub(crate) fn relay(&self, response: Box<UpstreamResponse>) {
        *lock(&self.relayed) = Some(response);
    }

    /// That answer, once.
    pub(crate) fn relayed(&self) -> Option<UpstreamResponse> {
        lock(&self.relayed).take().map(|response| *response)
    }

    fn stop(&self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The task that others waited for ended without a word.
pub(crate) fn lost() -> Fault {
    Fault::new(
        FaultKind::Unavailable,
        ErrorCode::Interrupted,
        "the download was interrupted; ask again",
    )
    .recoverable(Recovery::Retry)
}

/// The flights under way.
#[derive(Debug, Default)]
pub(crate) struct Flights(Mutex<HashMap<SourceKey, Arc<Flight>>>);

impl Flights {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SourceKey, Arc<Flight>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// The running flight of that key, if a newcomer can use it.
    pub(crate) fn running(&self, key: &SourceKey) -> Option<Arc<Flight>> {
        self.lock()
            .get(key)
            .filter(|flight| flight.is_joinable())
            .cloned()
    }

    /// The flight of that key, also one whose body has failed: it may begin another one.
    pub(crate) fn present(&self, key: &SourceKey) -> Option<Arc<Flight>> {
        self.lock().get(key).cloned()
    }

    /// Joins the running flight of that key, or starts one; `true` if it was started here. A flight that has ended and waits for
    /// its record to become visible is joined only if `join_ended`: not where every request must ask the upstream.
    pub(crate) fn join_or_start<F>(
        &self,
        key: &SourceKey,
        join_ended: bool,
        work: impl FnOnce(Arc<Flight>) -> F,
    ) -> (Arc<Flight>, bool)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut flights = self.lock();
        let usable =
            |flight: &&Arc<Flight>| flight.is_joinable() && (join_ended || !flight.is_done());
        if let Some(flight) = flights.get(key).filter(usable) {
            return (Arc::clone(flight), false);
        }
        let flight = Arc::new(Flight::new(key.clone()));
        flights.insert(key.clone(), Arc::clone(&flight));
        drop(flights);
        let work = work(Arc::clone(&flight));
        let guard = EndGuard(Arc::clone(&flight));
        let task = larder_upstream::spawn(async move {
            let _guard = guard;
            work.await;
        });
        let _ = flight.task.set(task.abort_handle());
        (flight, true)
    }

    /// Takes a flight out of the table, unless another has taken its place.
    pub(crate) fn remove(&self, flight: &Arc<Flight>) {
        let mut flights = self.lock();
        if flights
            .get(&flight.key)
            .is_some_and(|present| Arc::ptr_eq(present, flight))
        {
            flights.remove(&flight.key);
        }
        drop(flights);
        flight.let_go();
    }

    /// Flights whose key matches are marked as flushed and can no longer be joined; gives how many of them had brought everything.
    pub(crate) fn flush(&self, matches: impl Fn(&SourceKey) -> bool) -> usize {
        let mut complete = 0;
        self.lock().retain(|key, flight| {
            let hit = matches(key);
            if hit {
                complete += usize::from(flight.has_everything());
                flight.mark_flushed();
            }
            !hit
        });
        complete
    }

    /// A document that states other bytes for these files has become visible: downloads begun before serve their readers, can no
    /// longer be joined, and what they bring is compared with the document before it is trusted. `true` if there were any.
    pub(crate) fn restate<'k>(&self, keys: impl Iterator<Item = &'k SourceKey>) -> bool {
        let mut flights = self.lock();
        let mut any = false;
        for key in keys {
            if let Some(flight) = flights
                .get(key)
                .filter(|flight| !flight.rereads.load(Ordering::Acquire))
            {
                flight.restated.store(true, Ordering::Release);
                flights.remove(key);
                any = true;
            }
        }
        any
    }

    /// Stops flights that nobody reads.
    pub(crate) fn stop_unread(&self) {
        self.stop_if(Flight::is_unread);
    }

    pub(crate) fn stop_all(&self) {
        self.stop_if(|_| true);
    }

    fn stop_if(&self, condition: impl Fn(&Flight) -> bool) {
        self.lock().retain(|_, flight| {
            let stop = !flight.is_done() && condition(flight);
            if stop {
                flight.stop();
            }
            !stop
        });
    }
}

/// A flight that stays joinable until its record is visible.
#[derive(Debug)]
pub(crate) struct Landed {
    pub(crate) flights: Arc<Flights>,
    pub(crate) flight: Arc<Flight>,
}

impl Landing for Landed {
    fn is_flushed(&self) -> bool {
        self.flight.is_flushed()
    }

    fn is_restated(&self) -> bool {
        self.flight.is_restated()
    }

    fn landed(&self) {
        self.flights.remove(&self.flight);
    }

    fn span(&self) -> &tracing::Span {
        &self.flight.span
    }
}

/// A flight whose task ends without a word (panic, abort) must not leave its waiters hanging.
struct EndGuard(Arc<Flight>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        let fill = match &*self.0.state.borrow() {
            State::Done(_) => return,
            State::Filling(fill) => Some(Arc::clone(fill)),
            State::Pending => None,
        };
        if let Some(fill) = fill {
            fill.fail(lost());
        }
        self.0.finish(Err(lost()));
        self.0.let_go();
    }
}

//! One download that many may read: what it has come to, and who waits for it. The first client is just one more reader.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use larder_core::{
    ArtifactRecord, CacheStatus, ErrorCode, Fault, FaultKind, ForwardReason, Recovery, Source,
    SourceKey, UnixMillis,
};
use larder_storage::{Body, End, Fence};
use larder_upstream::UpstreamResponse;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::keys;
use crate::loaded::Arrival;
use crate::transfer::audience::Audience;
use crate::transfer::fill::Fill;

/// A download under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlightReport {
    /// The repository's name.
    pub repository: String,
    /// The path below the repository, decoded.
    pub path: String,
    /// Bytes that have arrived.
    pub bytes: u64,
    /// Bytes that are to arrive, if that is known.
    pub total: Option<u64>,
    /// When it began.
    pub started_at: UnixMillis,
    /// How many wait for it or read it.
    pub readers: u64,
}

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
    /// The lease of the replica whose download this one follows.
    followed: Mutex<Option<Fence>>,
    /// What it has brought, to be joined under another name for as long as under its own.
    beside: OnceLock<Arc<Flight>>,
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

    pub(super) fn new(key: SourceKey) -> Self {
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
            followed: Mutex::default(),
            beside: OnceLock::new(),
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

    /// How far it has come; `None`: it has ended.
    pub(super) fn report(&self, now: UnixMillis) -> Option<FlightReport> {
        let (bytes, total, reading) = match &*self.state.borrow() {
            State::Pending => (0, None, 0),
            State::Filling(fill) => (fill.progress().available, fill.total(), fill.readers()),
            State::Done(_) => return None,
        };
        let ago = i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX);
        Some(FlightReport {
            repository: self.key.repository.to_string(),
            path: keys::path_of(&self.key.path, &self.key.variant).to_owned(),
            bytes,
            total,
            started_at: UnixMillis(now.0.saturating_sub(ago)),
            readers: (reading + self.audience.len()) as u64,
        })
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
    pub(super) fn is_joinable(&self) -> bool {
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

    /// A document that states other bytes for it has become visible: what it brings is compared with that before it is trusted.
    /// `false`: it reads the document itself, and goes by that.
    pub(super) fn restate(&self) -> bool {
        let restates = !self.rereads.load(Ordering::Acquire);
        if restates {
            self.restated.store(true, Ordering::Release);
        }
        restates
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
    pub(super) fn is_unread(&self) -> bool {
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

    /// The task that carries it out.
    pub(super) fn carried_out_by(&self, task: AbortHandle) {
        let _ = self.task.set(task);
    }

    /// Its task has ended: whoever still waits is told that it ended without a word.
    pub(super) fn end_if_lost(&self) {
        let fill = match &*self.state.borrow() {
            State::Done(_) => return,
            State::Filling(fill) => Some(Arc::clone(fill)),
            State::Pending => None,
        };
        if let Some(fill) = fill {
            fill.fail(lost());
        }
        self.finish(Err(lost()));
        self.let_go();
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

    pub(super) fn let_go(&self) {
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

    /// From now on its bytes are those that the replica with this lease receives and keeps; `None`: they are its own.
    pub(crate) fn follow(&self, lease: Option<Fence>) {
        *lock(&self.followed) = lease;
    }

    /// The lease of the replica that keeps the same bytes.
    pub(crate) fn followed(&self) -> Option<Fence> {
        *lock(&self.followed)
    }

    /// Has brought what another name is joined for, too.
    pub(super) fn stands_beside(&self, other: Arc<Self>) {
        let _ = self.beside.set(other);
    }

    /// What is joined under another name.
    pub(super) fn beside(&self) -> Option<&Arc<Self>> {
        self.beside.get()
    }

    pub(super) fn stop(&self) {
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

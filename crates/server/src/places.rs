//! Which connections may be open: a number in all, of which no peer gets the last quarter, nor more than a quarter while others wait; and a
//! few places beyond them that are kept for those who only ask how larder does (`/live`, `/ready`, `/health`).
//!
//! A newcomer is always accepted. Where no place is free for it, a connection that is idle makes room: the one that has been idle longest of
//! the peer with the most idle ones, and never one of a peer that has fewer than the newcomer's. Where nobody is idle, it sits in the
//! reserve: its probes are answered, and its other requests wait a moment for a place.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::activity::Activity;

/// Places beyond the limit, for probes and for those who wait.
pub const RESERVE: usize = 16;

/// A connection must have been idle for so long before it has to make room.
const IDLE: Duration = Duration::from_millis(500);

/// How long a request waits for a place, and how often it looks.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);

/// Between two lines of the log that say that there are no places left.
const BETWEEN_WARNINGS: Duration = Duration::from_mins(1);

/// Whose connection it is: an address of IPv4, or the network of 64 bits that one host of IPv6 has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Peer(IpAddr);

impl Peer {
    pub(crate) fn new(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = u128::from(address) >> 64 << 64;
                IpAddr::V6(Ipv6Addr::from(network))
            }
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

/// All places.
#[derive(Debug)]
pub(crate) struct Places {
    limit: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    open: usize,
    peers: HashMap<Peer, Vec<Sitter>>,
    /// Requests in the reserve that wait for a place.
    waiting: HashMap<Peer, usize>,
    reserve: VecDeque<Sitter>,
    warned: Option<Instant>,
}

/// A connection that has a place.
#[derive(Debug)]
struct Sitter {
    id: u64,
    activity: Arc<Activity>,
    task: Option<AbortHandle>,
}

/// A place, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    places: Arc<Places>,
    id: u64,
    peer: Peer,
    /// Whether the peer speaks for many: it has no share.
    is_proxy: bool,
    ordinary: AtomicBool,
    activity: Arc<Activity>,
}

impl Places {
    /// So many places, beside the reserve.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit: limit.max(1),
            state: Mutex::default(),
        })
    }

    /// The most that a peer may have: the last quarter is for others, and while others wait that have less, a quarter is enough.
    fn share(&self, state: &State, peer: Peer) -> usize {
        let quarter = (self.limit / 4).max(1);
        if state.others_wait(peer, quarter) {
            quarter
        } else {
            self.limit - self.limit / 4
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a new connection. `is_proxy`: whether the peer is one that speaks for many clients. `None` if even the reserve is
    /// taken by requests that are being answered: then the connection is to be closed.
    pub(crate) fn admit(
        self: &Arc<Self>,
        peer: Peer,
        is_proxy: bool,
        activity: &Arc<Activity>,
    ) -> Option<Seat> {
        let mut state = self.state();
        state.next += 1;
        let sitter = Sitter {
            id: state.next,
            activity: Arc::clone(activity),
            task: None,
        };
        let seat = Seat {
            places: Arc::clone(self),
            id: sitter.id,
            peer,
            is_proxy,
            ordinary: AtomicBool::new(false),
            activity: Arc::clone(activity),
        };
        if self.has_room(&mut state, peer, is_proxy) {
            state.sit(peer, sitter);
            seat.ordinary.store(true, Ordering::Relaxed);
            return Some(seat);
        }
        if state.reserve.len() >= RESERVE {
            // The newest comes in: who has said nothing so far has least to lose.
            let silent = |sitter: &Sitter| !sitter.activity.is_answering();
            let Some(oldest) = state.reserve.iter().position(silent) else {
                drop(state);
                // Giving the seat back takes the lock.
                drop(seat);
                return None;
            };
            if let Some(left) = state.reserve.remove(oldest) {
                left.leave();
            }
        }
        state.reserve.push_back(sitter);
        state.warn(self.limit);
        Some(seat)
    }

    /// Names the task that serves a connection: stopping it is how the connection makes room.
    pub(crate) fn served_by(&self, id: u64, task: AbortHandle) {
        let mut state = self.state();
        let State { peers, reserve, .. } = &mut *state;
        let all = peers.values_mut().flatten().chain(reserve);
        if let Some(sitter) = all.into_iter().find(|sitter| sitter.id == id) {
            sitter.task = Some(task);
        }
    }

    /// Whether there is an ordinary place for this peer, if need be one that somebody idle leaves now.
    fn has_room(&self, state: &mut State, peer: Peer, is_proxy: bool) -> bool {
        let own = state.peers.get(&peer).map_or(0, Vec::len);
        let is_over = !is_proxy && own >= self.share(state, peer);
        if !is_over && state.open < self.limit {
            return true;
        }
        let idle_since = |sitter: &Sitter| sitter.activity.quiet_for().filter(|idle| *idle >= IDLE);
        let may_lose = |other: Peer, held: usize| other == peer || (!is_over && held > own);
        let idlest = state
            .peers
            .iter()
            .filter(|(other, sitters)| may_lose(**other, sitters.len()))
            .filter_map(|(other, sitters)| {
                let idle = sitters
                    .iter()
                    .filter_map(|sitter| Some((idle_since(sitter)?, sitter.id)));
                let (count, oldest) = idle.fold((0, None), |(count, oldest), one| {
                    (count + 1, oldest.max(Some(one)))
                });
                oldest.map(|(idle, id)| ((count, idle), *other, id))
            })
            .max_by_key(|(idle, ..)| *idle);
        let Some((_, other, id)) = idlest else {
            return false;
        };
        if let Some(left) = state.stand(other, id) {
            left.leave();
        }
        true
    }
}

impl State {
    fn sit(&mut self, peer: Peer, sitter: Sitter) {
        self.open += 1;
        self.peers.entry(peer).or_default().push(sitter);
    }

    fn stand(&mut self, peer: Peer, id: u64) -> Option<Sitter> {
        let sitters = self.peers.get_mut(&peer)?;
        let index = sitters.iter().position(|sitter| sitter.id == id)?;
        let sitter = sitters.swap_remove(index);
        if sitters.is_empty() {
            self.peers.remove(&peer);
        }
        self.open -= 1;
        Some(sitter)
    }

    /// Whether a request of another peer waits that has fewer places than `quarter`.
    fn others_wait(&self, peer: Peer, quarter: usize) -> bool {
        let held = |peer: &Peer| self.peers.get(peer).map_or(0, Vec::len);
        let mut waiting = self.waiting.keys().filter(|other| **other != peer);
        waiting.any(|other| held(other) < quarter)
    }

    /// Says, once in a while, that there are no places left.
    fn warn(&mut self, limit: usize) {
        let now = Instant::now();
        if self
            .warned
            .is_some_and(|before| now - before < BETWEEN_WARNINGS)
        {
            return;
        }
        self.warned = Some(now);
        let (busiest, held) = self
            .peers
            .iter()
            .map(|(peer, sitters)| (peer.0, sitters.len()))
            .max_by_key(|(_, held)| *held)
            .map_or((None, 0), |(peer, held)| (Some(peer), held));
        tracing::warn!(
            limit,
            ?busiest,
            held,
            "a connection finds no place: raise limits.connections; a proxy that speaks for many clients belongs in trusted_proxies"
        );
    }
}

impl Sitter {
    fn leave(&self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Seat {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Whether the connection may be asked for everything, and not for probes alone.
    pub(crate) fn is_ordinary(&self) -> bool {
        self.ordinary.load(Ordering::Relaxed)
    }

    /// Takes an ordinary place, waiting a moment for one. `false` if there is none.
    pub(crate) async fn take_place(&self) -> bool {
        if self.try_take() {
            return true;
        }
        // The rest of the reserve is for probes.
        let Some(_leaving) = Leaving::begin(&self.places, self.peer) else {
            return false;
        };
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            tokio::time::sleep(LOOK).await;
            if self.try_take() {
                return true;
            }
        }
        false
    }

    fn try_take(&self) -> bool {
        let mut state = self.places.state();
        if self.is_ordinary() {
            return true;
        }
        if !self.places.has_room(&mut state, self.peer, self.is_proxy) {
            return false;
        }
        let index = state.reserve.iter().position(|sitter| sitter.id == self.id);
        let sitter = index.and_then(|index| state.reserve.remove(index));
        let sitter = sitter.unwrap_or_else(|| Sitter {
            id: self.id,
            activity: Arc::clone(&self.activity),
            task: None,
        });
        state.sit(self.peer, sitter);
        self.ordinary.store(true, Ordering::Relaxed);
        true
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.places.state();
        if self.is_ordinary() {
            state.stand(self.peer, self.id);
        } else {
            state.reserve.retain(|sitter| sitter.id != self.id);
        }
    }
}

/// One more waits, until it is dropped.
struct Leaving<'a>(&'a Places, Peer);

impl<'a> Leaving<'a> {
    /// `None` if enough wait already: of one peer, no more than half of what may wait.
    fn begin(places: &'a Places, peer: Peer) -> Option<Self> {
        let mut state = places.state();
        let all: usize = state.waiting.values().sum();
        let own = state.waiting.get(&peer).copied().unwrap_or_default();
        if all >= RESERVE / 2 || own >= RESERVE / 4 {
            return None;
        }
        *state.waiting.entry(peer).or_default() += 1;
        Some(Self(places, peer))
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if let Some(own) = state.waiting.get_mut(&self.1) {
            *own -= 1;
            if *own == 0 {
                state.waiting.remove(&self.1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> Peer {
        Peer::new(IpAddr::from([192, 0, 2, last]))
    }

    fn admit(places: &Arc<Places>, peer: Peer) -> (Seat, Arc<Activity>) {
        let activity = Activity::new();
        (places.admit(peer, false, &activity).unwrap(), activity)
    }

    async fn idle() {
        tokio::time::advance(IDLE + Duration::from_millis(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn no_peer_gets_the_last_quarter() {
        let places = Places::new(8);
        let mut first: Vec<_> = (0..8).map(|_| admit(&places, peer(1))).collect();
        let ordinary = first.iter().filter(|(seat, _)| seat.is_ordinary()).count();
        assert_eq!(ordinary, 6);
        let other = admit(&places, peer(2));
        assert!(other.0.is_ordinary());
        first.clear();
        assert!(admit(&places, peer(1)).0.is_ordinary(), "places come back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_has_no_share() {
        let places = Places::new(8);
        let activity = Activity::new();
        let seats: Vec<_> = (0..8)
            .map(|_| places.admit(peer(1), true, &activity).unwrap())
            .collect();
        assert!(seats.iter().all(Seat::is_ordinary));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_idle_makes_room_for_a_peer_with_fewer_and_nobody_else_does() {
        let places = Places::new(4);
        let first: Vec<_> = (0..3).map(|_| admit(&places, peer(1))).collect();
        let second = admit(&places, peer(2));
        assert!(
            !admit(&places, peer(3)).0.is_ordinary(),
            "nobody is idle yet"
        );
        idle().await;
        let busy = first[0].1.begin();
        let third = admit(&places, peer(3));
        assert!(third.0.is_ordinary(), "one of the first peer's has left");
        assert_eq!(places.state().peers[&peer(1)].len(), 2);
        let ids: Vec<u64> = places.state().peers[&peer(1)]
            .iter()
            .map(|s| s.id)
            .collect();
        assert!(ids.contains(&first[0].0.id()), "not the busy one");
        drop(busy);
        // Its own idle connection, but not one of those who have no more than it.
        let newest = admit(&places, peer(2));
        assert!(newest.0.is_ordinary());
        drop((second, third));
    }

    #[tokio::test(start_paused = true)]
    async fn the_reserve_takes_the_newest_in_and_its_requests_wait_for_a_place() {
        let places = Places::new(1);
        let (taken, activity) = admit(&places, peer(1));
        let running = activity.begin();
        let reserve: Vec<_> = (0..RESERVE + 5).map(|_| admit(&places, peer(2))).collect();
        assert_eq!(places.state().reserve.len(), RESERVE);
        let (waiting, _) = reserve.last().unwrap();
        assert!(!waiting.take_place().await, "nobody leaves in time");
        let freed = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop((running, taken));
        });
        assert!(waiting.take_place().await);
        freed.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn while_others_wait_a_quarter_is_enough() {
        let places = Places::new(8);
        let mut first: Vec<_> = (0..6).map(|_| admit(&places, peer(1))).collect();
        let mut second: Vec<_> = (0..2).map(|_| admit(&places, peer(2))).collect();
        let busy: Vec<_> = (first.iter().chain(&second))
            .map(|(_, activity)| activity.begin())
            .collect();
        let (waiting, _) = admit(&places, peer(3));
        assert!(!waiting.is_ordinary());
        let left = first.pop();
        let taken = tokio::spawn(async move { (waiting.take_place().await, waiting) });
        tokio::task::yield_now().await;
        drop(left);
        assert!(
            !admit(&places, peer(1)).0.is_ordinary(),
            "it has more than its quarter, and another waits"
        );
        assert!(taken.await.unwrap().0);
        second.clear();
        assert!(
            admit(&places, peer(1)).0.is_ordinary(),
            "nobody waits any more"
        );
        drop(busy);
    }

    #[tokio::test(start_paused = true)]
    async fn the_peer_with_the_most_idle_ones_loses_its_oldest() {
        let places = Places::new(8);
        let working: Vec<_> = (0..5).map(|_| admit(&places, peer(1))).collect();
        let _busy: Vec<_> = (working.iter().skip(1))
            .map(|(_, activity)| activity.begin())
            .collect();
        let oldest = admit(&places, peer(2));
        idle().await;
        let _younger: Vec<_> = (0..2).map(|_| admit(&places, peer(2))).collect();
        idle().await;
        assert!(admit(&places, peer(3)).0.is_ordinary());
        let state = places.state();
        assert_eq!(state.peers[&peer(1)].len(), 5, "one of them is idle");
        assert!(state.peers[&peer(2)].iter().all(|s| s.id != oldest.0.id()));
        drop(state);
    }

    #[test]
    fn one_host_of_ipv6_is_one_peer() {
        let peer = |text: &str| Peer::new(text.parse().unwrap());
        assert_eq!(peer("2001:db8::1"), peer("2001:db8::ffff:2"));
        assert_ne!(peer("2001:db8::1"), peer("2001:db8:0:1::1"));
        assert_eq!(peer("::ffff:192.0.2.1"), peer("192.0.2.1"));
        assert_ne!(peer("127.0.0.1"), peer("127.0.0.2"));
    }
}

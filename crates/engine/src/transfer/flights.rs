//! The downloads under way, one for each key. Each is a detached task that belongs to nobody.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use larder_core::{SourceKey, UnixMillis};

use crate::catalog::Landing;
use crate::transfer::flight::{Flight, FlightReport, Settled};

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

    /// Those that have not ended, that first which began first.
    pub(crate) fn shown(&self, now: UnixMillis) -> Vec<FlightReport> {
        let all: Vec<Arc<Flight>> = self.lock().values().cloned().collect();
        let mut shown: Vec<FlightReport> = all.iter().filter_map(|f| f.report(now)).collect();
        shown.sort_by(|one, other| {
            (one.started_at, &one.repository, &one.path).cmp(&(
                other.started_at,
                &other.repository,
                &other.path,
            ))
        });
        shown
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
        flight.carried_out_by(task.abort_handle());
        (flight, true)
    }

    /// Lets what a flight has brought be joined under another name, too, until it is taken out of the table: the records of both become
    /// visible together.
    pub(crate) fn join_beside(&self, flight: &Flight, key: &SourceKey, brought: Settled) {
        let mut flights = self.lock();
        // What a flush has overtaken serves its readers only.
        if let Entry::Vacant(free) = flights.entry(key.clone())
            && !flight.is_flushed()
        {
            let other = Arc::new(Flight::new(key.clone()));
            other.finish(Ok(brought));
            free.insert(Arc::clone(&other));
            flight.stands_beside(other);
        }
    }

    /// Takes a flight, and what stands beside it, out of the table, unless others have taken their places.
    pub(crate) fn remove(&self, flight: &Arc<Flight>) {
        let mut flights = self.lock();
        for one in flight.beside().into_iter().chain([flight]) {
            let present = flights.get(&one.key);
            if present.is_some_and(|present| Arc::ptr_eq(present, one)) {
                flights.remove(&one.key);
            }
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
            if flights.get(key).is_some_and(|flight| flight.restate()) {
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
        self.0.end_if_lost();
    }
}

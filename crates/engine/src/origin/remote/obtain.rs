//! Steps 3 and 4: look up, decide, and either serve what is held or join the one flight for it.

use std::sync::Arc;

use larder_core::{ArtifactRecord, CacheStatus, Decision, Fault, Source, decide};
use larder_storage::Body;
use tokio::time::Instant;

use super::parts::Remote;
use super::patience::{Waited, patience};
use crate::counters::count;
use crate::decided;
use crate::decided::words;
use crate::fault::{Remembered, internal, negative_fault, offline, storage_fault, was_given_up};
use crate::origin::{Held, Need, Origin};
use crate::target::{Target, remaining_seconds};
use crate::transfer::fill::Fill;
use crate::transfer::flight::{Effort, Flight, Ready, Settled};

/// Times to start over when what was joined turned out to be of no use (a ring that has moved on, an interrupted flight).
const ATTEMPTS: usize = 3;

/// How a request came to its flight.
#[derive(Clone, Copy)]
struct Joining {
    /// It is the one that the flight was started for.
    started: bool,
    /// The record is not visible yet, but to whoever comes now it is a copy that is held.
    is_held: bool,
}

/// What a flight is to one of those who wait for it.
enum Joined {
    Held(Held),
    /// What was joined is of no use to this one: it begins anew. With the fault that the flight ended in, if it did.
    Anew(Option<Fault>),
}

impl Origin for Arc<Remote> {
    async fn document(&self, target: &Arc<Target>, need: Need) -> Result<Settled, Fault> {
        match self.obtain(target, true, need == Need::Anew).await? {
            Held::Whole(settled) => Ok(settled),
            Held::InFlight(..) => Err(internal("a document was not whole")),
        }
    }

    async fn file(&self, target: &Arc<Target>, need: Need) -> Result<Held, Fault> {
        self.obtain(target, false, need == Need::Anew).await
    }
}

impl Remote {
    /// Obtains a source for a client: from what is held, or from the one flight for it.
    async fn obtain(
        self: &Arc<Self>,
        wanted: &Arc<Target>,
        whole: bool,
        force: bool,
    ) -> Result<Held, Fault> {
        let came = Instant::now();
        if force {
            let why = "the request asks for it anew";
            decided::tell(self.now(), wanted, None, "fetch", why);
        } else if let Some(settled) = self.held(wanted, came).await? {
            return Ok(Held::Whole(settled));
        }
        let effort = if force { Effort::Anew } else { Effort::IfDue };
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let (flight, started) = self.flight_or_join(wanted, effort);
            let joining = Joining {
                started,
                is_held: !started && flight.has_everything(),
            };
            let counters = &wanted.entry.counters;
            count(match (joining.started, joining.is_held) {
                (true, _) => &counters.misses,
                (false, false) => &counters.collapsed,
                (false, true) => &counters.hits,
            });
            let ready = if force {
                flight.ready(whole).await
            } else {
                let until = patience(wanted, &flight, came);
                match self.ready_or_copy(wanted, &flight, whole, until).await {
                    Waited::Ready(ready) => ready,
                    Waited::Overdue(mut copy) => {
                        copy.status.collapsed = !started;
                        return Ok(Held::Whole(copy));
                    }
                }
            };
            match self.joined(wanted, &flight, joining, ready)? {
                Joined::Held(held) => return Ok(held),
                Joined::Anew(fault) => last = fault.or(last),
            }
        }
        Err(last.unwrap_or_else(|| internal("the download could not be joined")))
    }

    /// What a flight has come to, for one who has waited for it.
    fn joined(
        &self,
        wanted: &Target,
        flight: &Arc<Flight>,
        joining: Joining,
        ready: Ready,
    ) -> Result<Joined, Fault> {
        let Joining { started, is_held } = joining;
        match ready {
            // Others may have read on meanwhile, with no room for what they have read.
            Ready::Filling(fill) => Ok(match fill.body_from_start() {
                Some(body) => {
                    let status = arriving(&fill, flight, started);
                    Joined::Held(Held::InFlight(fill, body, status))
                }
                None => Joined::Anew(None),
            }),
            Ready::Done(Ok(mut settled)) => {
                if let Body::Growing(body) = &settled.body
                    && !body.holds_everything()
                {
                    self.transfers.flights.remove(flight);
                    return Ok(Joined::Anew(None));
                }
                if is_held && settled.source == Source::Remote && settled.reusable {
                    let ttl = remaining_seconds(&settled.record, wanted, self.now());
                    settled.source = Source::Cache;
                    settled.status = CacheStatus {
                        hit: true,
                        ttl,
                        ..CacheStatus::default()
                    };
                }
                settled.status.collapsed |=
                    !started && !is_held && settled.status.forward.is_some();
                Ok(Joined::Held(Held::Whole(settled)))
            }
            Ready::Done(Err(fault)) if was_given_up(&fault) => {
                self.transfers.flights.remove(flight);
                Ok(Joined::Anew(Some(fault)))
            }
            Ready::Done(Err(fault)) => Err(fault),
        }
    }

    /// A held copy that may be served to somebody who came at `came`, without asking anyone.
    async fn held(
        self: &Arc<Self>,
        wanted: &Arc<Target>,
        came: Instant,
    ) -> Result<Option<Settled>, Fault> {
        if let Some(settled) = self.of_generation(wanted, came).await? {
            let (record, why) = (&settled.record, "the index that it belongs to is held");
            decided::tell(self.now(), wanted, Some(record), "serve", why);
            return Ok(Some(settled));
        }
        let in_memory = self.catalog.peek(&wanted.key);
        if in_memory.is_none()
            && let Some(absence) = self.documents.absence(wanted).await
        {
            let (decision, why) = words(Decision::ServeNegative(absence.status));
            decided::tell(self.now(), wanted, None, decision, why);
            return Err(negative_fault(wanted, absence, self.now()));
        }
        let record = match in_memory {
            Some(record) => Some(record),
            None => self
                .catalog
                .record(&wanted.key)
                .await
                .map_err(|error| storage_fault(&wanted.entry, &error))?,
        };
        let Some(record) = record else {
            return self.nothing_held(wanted).await;
        };
        if wanted.spec.is_document
            && self.readings.is_exchanging(&wanted.key)
            && !self.readings.keeps(&wanted.key, Instant::now())
        {
            let why = "the index is being exchanged together with its files";
            decided::tell(self.now(), wanted, Some(&record), "wait", why);
            return Ok(None);
        }
        match self.decide_on_held(wanted, &record) {
            Decision::ServeNegative(status) => Err(negative_fault(
                wanted,
                Remembered::of_record(wanted, status, &record),
                self.now(),
            )),
            Decision::Serve => Ok(self.served(wanted, record, None).await),
            Decision::ServeAndRefresh => {
                let detail = Some("stale-revalidating");
                let served = self.served(wanted, record, detail).await;
                if served.is_some() {
                    self.flight(wanted, Effort::IfDue);
                }
                Ok(served)
            }
            Decision::Revalidate(_) | Decision::Fetch { .. } => Ok(None),
        }
    }

    /// Nothing is held under this name. Offline, what is held under others may stand in.
    async fn nothing_held(&self, wanted: &Target) -> Result<Option<Settled>, Fault> {
        let (decision, why) = if wanted.entry.repository_is_offline() {
            (
                "serve what stands in, or nothing",
                "nothing is held, and the repository is offline",
            )
        } else {
            ("fetch", "nothing is held")
        };
        decided::tell(self.now(), wanted, None, decision, why);
        if !wanted.entry.repository_is_offline() {
            return Ok(None);
        }
        let stand_in = self.copies.stand_in(wanted).await;
        let (record, body) = stand_in.ok_or_else(|| offline(wanted))?;
        Ok(Some(self.copies.settled_copy(wanted, record, body, None)))
    }

    /// What is done with a record that is held, and says so.
    fn decide_on_held(&self, wanted: &Target, record: &Arc<ArtifactRecord>) -> Decision {
        let (policy, now) = (&wanted.entry.repository.cache, self.now());
        let offline = wanted.entry.repository_is_offline() && record.blob().is_some();
        let decision = match decide(Some(record), wanted.class_of(record), policy, now) {
            _ if offline => Decision::Serve,
            // Whoever may have its companion gets it once more; the upstream is asked all the same, behind the scenes: a short life
            // (with `mutable_ttl: 0`, none) says how often to ask, and readers only put off the exchange.
            Decision::Fetch { .. } | Decision::Revalidate(_)
                if wanted.heads_generation()
                    && self.readings.keeps(&wanted.key, Instant::now()) =>
            {
                Decision::ServeAndRefresh
            }
            decision => decision,
        };
        let (done, why) = words(decision);
        let why = if offline {
            "the repository is offline"
        } else {
            why
        };
        decided::tell(now, wanted, Some(record), done, why);
        decision
    }

    /// The copy, if its bytes are there and are what is stated of them.
    async fn served(
        &self,
        wanted: &Arc<Target>,
        record: Arc<ArtifactRecord>,
        detail: Option<&'static str>,
    ) -> Option<Settled> {
        let body = self.catalog.open_held(wanted, &record).await?;
        let record = self.copies.still_claimed(wanted, record).await?;
        count(&wanted.entry.counters.hits);
        Some(self.copies.settled_copy(wanted, record, body, detail))
    }
}

/// How a body that is still arriving came to be served.
fn arriving(fill: &Fill, flight: &Flight, started: bool) -> CacheStatus {
    CacheStatus {
        forward: Some(flight.reason()),
        forward_status: Some(200),
        collapsed: !started,
        stored: started && fill.will_be_kept(),
        detail: (!fill.will_be_kept()).then_some("not-kept"),
        ..CacheStatus::default()
    }
}

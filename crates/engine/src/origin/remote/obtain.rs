//! Steps 3 and 4: look up, decide, and either serve what is held or join the one flight for it.

use std::sync::Arc;

use larder_core::{ArtifactRecord, CacheStatus, Decision, Fault, Source, decide, time_to_live};
use larder_storage::Body;
use larder_upstream::in_request;
use tokio::time::Instant;

use crate::causes::warn_once;
use crate::claim::Stated;
use crate::counters::count;
use crate::decided;
use crate::decided::words;
use crate::fault::{Remembered, negative_fault, storage_fault, was_given_up};
use crate::origin::Held;
use crate::origin::remote::Remote;
use crate::origin::remote::patience::Waited;
use crate::target::{Target, remaining_seconds};
use crate::transfer::flight::{Effort, Flight, Ready, Settled};

/// Times to start over when what was joined turned out to be of no use (a ring that has moved on, an interrupted flight).
const ATTEMPTS: usize = 3;

impl Remote {
    /// Obtains a source for a client: from what is held, or from the one flight for it.
    pub(crate) async fn obtain(
        self: &Arc<Self>,
        wanted: &Arc<Target>,
        whole: bool,
        force: bool,
    ) -> Result<Held, Fault> {
        let came = Instant::now();
        if force {
            decided::tell(
                self.now(),
                wanted,
                None,
                "fetch",
                "the request asks for it anew",
            );
        } else if let Some(settled) = self.held(wanted, came).await? {
            return Ok(Held::Whole(settled));
        }
        let effort = if force { Effort::Anew } else { Effort::IfDue };
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let (flight, started) = self.flight_or_join(wanted, effort);
            // Its record is not visible yet, but to whoever comes now it is a copy that is held.
            let is_held = !started && flight.has_everything();
            let counters = &wanted.entry.counters;
            count(match (started, is_held) {
                (true, _) => &counters.misses,
                (false, false) => &counters.collapsed,
                (false, true) => &counters.hits,
            });
            let ready = if force {
                flight.ready(whole).await
            } else {
                let until = Self::patience(wanted, &flight, came);
                match self.ready_or_copy(wanted, &flight, whole, until).await {
                    Waited::Ready(ready) => ready,
                    Waited::Overdue(mut copy) => {
                        copy.status.collapsed = !started;
                        return Ok(Held::Whole(copy));
                    }
                }
            };
            match ready {
                Ready::Filling(fill) => {
                    // Others may have read on meanwhile, with no room for what they have read.
                    let Some(body) = fill.body_from_start() else {
                        continue;
                    };
                    let status = CacheStatus {
                        forward: Some(flight.reason()),
                        forward_status: Some(200),
                        collapsed: !started,
                        stored: started && fill.will_be_kept,
                        detail: (!fill.will_be_kept).then_some("not-kept"),
                        ..CacheStatus::default()
                    };
                    return Ok(Held::InFlight(fill, body, status));
                }
                Ready::Done(Ok(mut settled)) => {
                    if let Body::Growing(body) = &settled.body
                        && !body.holds_everything()
                    {
                        self.flights.remove(&flight);
                        continue;
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
                    return Ok(Held::Whole(settled));
                }
                Ready::Done(Err(fault)) if was_given_up(&fault) => {
                    self.flights.remove(&flight);
                    last = Some(fault);
                }
                Ready::Done(Err(fault)) => return Err(fault),
            }
        }
        Err(last.unwrap_or_else(|| crate::fault::internal("the download could not be joined")))
    }

    /// The running flight for this source, or a new one.
    pub(crate) fn flight(self: &Arc<Self>, wanted: &Arc<Target>, effort: Effort) -> Arc<Flight> {
        self.flight_or_join(wanted, effort).0
    }

    /// The same; `true` if it is a new one.
    pub(crate) fn flight_or_join(
        self: &Arc<Self>,
        wanted: &Arc<Target>,
        effort: Effort,
    ) -> (Arc<Flight>, bool) {
        let join_ended = !asks_again(wanted, effort) && !self.brought_a_folder(wanted);
        self.flights
            .join_or_start(&wanted.key, join_ended, |flight| {
                let (engine, wanted) = (Arc::clone(self), Arc::clone(wanted));
                // Boxed: whoever starts a flight would carry it.
                async move { Box::pin(engine.fly(flight, wanted, effort)).await }
            })
    }

    /// Whether a flight that has just ended brought a folder of which every request must ask the upstream (`mutable_ttl: 0`): the path
    /// alone does not tell.
    pub(crate) fn brought_a_folder(&self, wanted: &Target) -> bool {
        let asks_always = |class| {
            time_to_live(class, &wanted.entry.repository.cache).is_some_and(|ttl| ttl.is_zero())
        };
        wanted.format.profile().passes_folders_on
            && self
                .flights
                .running(&wanted.key)
                .and_then(|flight| flight.arrived())
                .is_some_and(|settled| asks_always(wanted.class_of(&settled.record)))
    }

    /// A held copy that may be served to somebody who came at `came`, without asking anyone.
    async fn held(
        self: &Arc<Self>,
        wanted: &Arc<Target>,
        came: Instant,
    ) -> Result<Option<Settled>, Fault> {
        if let Some(settled) = self.of_generation(wanted, came).await? {
            decided::tell(
                self.now(),
                wanted,
                Some(&settled.record),
                "serve",
                "the index that it belongs to is held",
            );
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
        let policy = &wanted.entry.repository.cache;
        let now = self.now();
        let Some(record) = record else {
            if !wanted.entry.repository_is_offline() {
                decided::tell(self.now(), wanted, None, "fetch", "nothing is held");
                return Ok(None);
            }
            decided::tell(
                self.now(),
                wanted,
                None,
                "serve what stands in, or nothing",
                "nothing is held, and the repository is offline",
            );
            let (record, body) = self
                .stand_in(wanted)
                .await
                .ok_or_else(|| crate::fault::offline(wanted))?;
            return Ok(Some(self.settled_copy(wanted, record, body, None)));
        };
        if wanted.spec.is_document
            && self.readings.is_exchanging(&wanted.key)
            && !self.readings.keeps(&wanted.key, Instant::now())
        {
            decided::tell(
                self.now(),
                wanted,
                Some(&record),
                "wait",
                "the index is being exchanged together with its files",
            );
            return Ok(None);
        }
        let offline = wanted.entry.repository_is_offline() && record.blob().is_some();
        let decision = match decide(Some(&record), wanted.class_of(&record), policy, now) {
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
        decided::tell(
            self.now(),
            wanted,
            Some(&record),
            done,
            if offline {
                "the repository is offline"
            } else {
                why
            },
        );
        match decision {
            Decision::ServeNegative(status) => Err(negative_fault(
                wanted,
                Remembered::of_record(wanted, status, &record),
                self.now(),
            )),
            Decision::Serve | Decision::ServeAndRefresh => {
                let Some(body) = self.catalog.open_held(wanted, &record).await else {
                    return Ok(None);
                };
                let Some(record) = self.still_claimed(wanted, record).await else {
                    return Ok(None);
                };
                count(&wanted.entry.counters.hits);
                let refreshing = decision == Decision::ServeAndRefresh;
                if refreshing {
                    self.flight(wanted, Effort::IfDue);
                }
                Ok(Some(self.settled_copy(
                    wanted,
                    record,
                    body,
                    refreshing.then_some("stale-revalidating"),
                )))
            }
            Decision::Revalidate(_) | Decision::Fetch { .. } => Ok(None),
        }
    }

    /// A copy as it is served: a hit.
    pub(crate) fn settled_copy(
        &self,
        wanted: &Target,
        record: Arc<ArtifactRecord>,
        body: Body,
        stale: Option<&'static str>,
    ) -> Settled {
        let ttl = remaining_seconds(&record, wanted, self.now());
        let status = CacheStatus {
            hit: true,
            ttl,
            detail: stale,
            ..CacheStatus::default()
        };
        Settled {
            record,
            body,
            status,
            source: Source::Cache,
            reusable: stale.is_none(),
            document: None,
        }
    }

    /// A file that was kept before its document could be read is checked when the document has been read. `None`: it was wrong, and is
    /// dropped.
    pub(super) async fn still_claimed(
        self: &Arc<Self>,
        wanted: &Arc<Target>,
        record: Arc<ArtifactRecord>,
    ) -> Option<Arc<ArtifactRecord>> {
        let named = wanted.facts.digest.clone();
        if record.verified
            || wanted.spec.is_document
            || (wanted.class.is_mutable() && named.is_none())
        {
            return Some(record);
        }
        let by_name = named.is_some();
        let stated = match named {
            Some(digest) => Some(Stated::Digests(vec![digest])),
            None => self
                .documents
                .held_claim(wanted)
                .await
                .and_then(|claim| claim.stated()),
        };
        let (Some(stated), Some(blob)) = (stated, record.blob()) else {
            return Some(record);
        };
        let right = self
            .documents
            .blob_is(wanted, &wanted.key.path, blob, &stated)
            .await;
        if !right && Self::keeps_contradicted(wanted) {
            Self::tell_contradicted(wanted, &stated);
        } else if !right {
            count(&wanted.entry.counters.digest_mismatches);
            in_request(|| {
                warn_once!(
                    wanted,
                    "held_mismatch",
                    "a held file is not what its index or its name says and is fetched again"
                );
            });
            self.catalog
                .drop_record(&wanted.entry, &wanted.key, &record)
                .await;
            return None;
        }
        // What is being committed may be a document that states something else, and drops the record.
        let _alone = self.catalog.exclusive().await;
        let is_held = self
            .catalog
            .record(&wanted.key)
            .await
            .ok()
            .flatten()
            .is_some_and(|now| now.blob() == record.blob());
        let is_stated = by_name
            || self
                .documents
                .held_claim(wanted)
                .await
                .and_then(|claim| claim.stated())
                == Some(stated);
        if !(is_held && is_stated) {
            return is_held.then_some(record);
        }
        let verified = Arc::new(ArtifactRecord {
            verified: true,
            ..ArtifactRecord::clone(&record)
        });
        // If this fails, it is compared again.
        let _ = self
            .catalog
            .remember(&wanted.key, Arc::clone(&verified))
            .await;
        Some(verified)
    }
}

/// Whether what a flight brought that has just ended is too old.
pub(super) fn asks_again(wanted: &Target, effort: Effort) -> bool {
    asks_always(wanted) || effort == Effort::Recheck
}

/// Whether every request must ask the upstream (`mutable_ttl: 0`).
pub(super) fn asks_always(wanted: &Target) -> bool {
    time_to_live(wanted.class, &wanted.entry.repository.cache).is_some_and(|ttl| ttl.is_zero())
}

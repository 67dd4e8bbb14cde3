//! Steps 3 and 4: look up, decide, and either serve what is held or join the one flight for it.

use std::sync::Arc;

use larder_core::{
    ArtifactRecord, CachePolicy, CacheStatus, Content, Decision, ErrorCode, Fault, ForwardReason,
    Revalidate, RevalidateWith, Source, UnixMillis, decide, fresh_until, time_to_live,
};
use larder_storage::{OpenBlob, StorageError, StorageErrorKind};
use larder_upstream::in_request;

use crate::admission::Wanted;
use crate::catalog::{Commit, Landing, RecordChange};
use crate::causes::warn_once;
use crate::claims::Stated;
use crate::counters::count;
use crate::decided::words;
use crate::engine::Engine;
use crate::fill::Attached;
use crate::flight::{Flight, Landed, Ready, Settled, SettledBody};
use crate::remembered::Remembered;
use crate::serve::storage_fault;

/// How a request's bytes were come by.
#[derive(Debug)]
pub(crate) enum Obtained {
    Held(Settled),
    InFlight(Attached, CacheStatus),
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

/// Times to start over when what was joined turned out to be of no use (a ring that has moved on, an interrupted flight).
const ATTEMPTS: usize = 3;

impl Engine {
    /// Obtains a source for a client: from what is held, or from the one flight for it.
    pub(crate) async fn obtain(
        self: &Arc<Self>,
        wanted: &Arc<Wanted>,
        whole: bool,
        force: bool,
    ) -> Result<Obtained, Fault> {
        if force {
            self.tell(wanted, None, "fetch", "the request asks for it anew");
        } else if let Some(settled) = self.held(wanted).await? {
            return Ok(Obtained::Held(settled));
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
            match flight.ready(whole).await {
                Ready::Filling(fill) => {
                    // Others may have read on meanwhile, with no room for what they have read.
                    let Some(attached) = fill.attach_at_start() else {
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
                    return Ok(Obtained::InFlight(attached, status));
                }
                Ready::Done(Ok(mut settled)) => {
                    if let SettledBody::Fill(fill) = &settled.body
                        && !fill.holds_everything()
                    {
                        self.flights.remove(&flight);
                        continue;
                    }
                    if is_held && settled.source == Source::Remote && !settled.for_once {
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
                    return Ok(Obtained::Held(settled));
                }
                Ready::Done(Err(fault)) if fault.code == ErrorCode::Interrupted => {
                    self.flights.remove(&flight);
                    last = Some(fault);
                }
                Ready::Done(Err(fault)) => return Err(fault),
            }
        }
        Err(last.unwrap_or_else(|| crate::serve::internal("the download could not be joined")))
    }

    /// The running flight for this source, or a new one.
    pub(crate) fn flight(self: &Arc<Self>, wanted: &Arc<Wanted>, effort: Effort) -> Arc<Flight> {
        self.flight_or_join(wanted, effort).0
    }

    /// The same; `true` if it is a new one.
    pub(crate) fn flight_or_join(
        self: &Arc<Self>,
        wanted: &Arc<Wanted>,
        effort: Effort,
    ) -> (Arc<Flight>, bool) {
        let join_ended = !asks_again(wanted, effort) && !self.brought_a_folder(wanted);
        self.flights
            .join_or_start(&wanted.key, join_ended, |flight| {
                let (engine, wanted) = (Arc::clone(self), Arc::clone(wanted));
                async move { engine.fly(flight, wanted, effort).await }
            })
    }

    /// A held copy that may be served now, without asking anyone.
    async fn held(self: &Arc<Self>, wanted: &Arc<Wanted>) -> Result<Option<Settled>, Fault> {
        if let Some(settled) = self.of_generation(wanted).await? {
            self.tell(
                wanted,
                Some(&settled.record),
                "serve",
                "the index that it belongs to is held",
            );
            return Ok(Some(settled));
        }
        let in_memory = self.catalog.peek(&wanted.key);
        if in_memory.is_none()
            && let Some(absence) = self.absence(wanted).await
        {
            let (decision, why) = words(Decision::ServeNegative(absence.status));
            self.tell(wanted, None, decision, why);
            return Err(self.negative_fault(wanted, absence));
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
                self.tell(wanted, None, "fetch", "nothing is held");
                return Ok(None);
            }
            self.tell(
                wanted,
                None,
                "serve what stands in, or nothing",
                "nothing is held, and the repository is offline",
            );
            let (record, body) = self
                .stand_in(wanted)
                .await
                .ok_or_else(|| crate::serve::offline(wanted))?;
            return Ok(Some(self.settled_copy(wanted, record, body, None)));
        };
        if wanted.spec.is_document
            && self.readings.is_exchanging(&wanted.key)
            && !self
                .readings
                .keeps(&wanted.key, tokio::time::Instant::now())
        {
            self.tell(
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
                    && self
                        .readings
                        .keeps(&wanted.key, tokio::time::Instant::now()) =>
            {
                Decision::ServeAndRefresh
            }
            decision => decision,
        };
        let (done, why) = words(decision);
        self.tell(
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
            Decision::ServeNegative(status) => {
                Err(self.negative_fault(wanted, Remembered::of_record(wanted, status, &record)))
            }
            Decision::Serve | Decision::ServeAndRefresh => {
                let Some(body) = self.open_held(wanted, &record).await else {
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
        wanted: &Wanted,
        record: Arc<ArtifactRecord>,
        body: OpenBlob,
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
            body: SettledBody::Blob(body),
            status,
            source: Source::Cache,
            for_once: stale.is_some(),
            document: None,
        }
    }

    /// Opens a record's blob; a record whose bytes are gone or damaged is dropped, so that they are fetched again.
    pub(crate) async fn open_held(
        &self,
        wanted: &Wanted,
        record: &ArtifactRecord,
    ) -> Option<OpenBlob> {
        let blob = record.blob()?;
        match self.blobs.open(blob) {
            Ok(open) => Some(open),
            Err(error) => {
                let error_text = error.to_string();
                in_request(|| {
                    warn_once!(
                        wanted,
                        "unreadable",
                        "a held copy cannot be read and is fetched again",
                        error = error_text
                    );
                });
                if matches!(
                    error.kind,
                    StorageErrorKind::NotFound | StorageErrorKind::Corrupt
                ) {
                    self.catalog
                        .drop_record(&wanted.entry, &wanted.key, record)
                        .await;
                }
                None
            }
        }
    }

    /// A file that was kept before its document could be read is checked when the document has been read. `None`: it was wrong, and is
    /// dropped.
    async fn still_claimed(
        self: &Arc<Self>,
        wanted: &Arc<Wanted>,
        record: Arc<ArtifactRecord>,
    ) -> Option<Arc<ArtifactRecord>> {
        let named = wanted.format.digest_in_name(&wanted.spec.key_path);
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
                .held_claim(wanted)
                .await
                .and_then(|claim| claim.stated()),
        };
        let (Some(stated), Some(blob)) = (stated, record.blob()) else {
            return Some(record);
        };
        let right = self.blob_is(wanted, &wanted.key.path, blob, &stated).await;
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

    /// The flight as who waits for a commit to become visible.
    pub(crate) fn landing(&self, flight: &Arc<Flight>) -> Arc<dyn Landing> {
        Arc::new(Landed {
            flights: Arc::clone(&self.flights),
            flight: Arc::clone(flight),
        })
    }

    /// The whole life of a flight: decide again (things may have changed while it was started), obtain, end, commit.
    async fn fly(self: Arc<Self>, flight: Arc<Flight>, wanted: Arc<Wanted>, effort: Effort) {
        let began = tokio::time::Instant::now();
        if wanted.spec.is_document {
            self.readings.begins(&wanted.key);
        }
        // What is to be committed is in the queue before anybody is told: the next request waits for the queue to be empty, and must
        // find the record of what was served just now.
        let flown = self.decide_and_fetch(&flight, &wanted, effort).await;
        match (
            if effort == Effort::Recheck {
                unless_news(flown)
            } else {
                flown
            },
            wanted.generation(),
        ) {
            (Ok(arrived), Some(generation)) => {
                self.land_generation(flight, wanted, generation, arrived, began)
                    .await;
            }
            (Ok(arrived), None) if arrived.0.document.is_some() => {
                self.land_document(flight, wanted, arrived).await;
            }
            (Ok((settled, Some(change), replaces)), None) => {
                self.catalog.enqueue(vec![Commit {
                    wanted,
                    landing: self.landing(&flight),
                    change,
                    replaces,
                }]);
                flight.finish(Ok(settled));
            }
            (Ok((settled, None, _)), None) => {
                flight.finish(Ok(settled));
                self.flights.remove(&flight);
            }
            (Err((fault, Some(change))), _) => {
                self.no_longer_vouched_for(&wanted).await;
                self.catalog.enqueue(vec![Commit {
                    wanted,
                    landing: self.landing(&flight),
                    change,
                    replaces: None,
                }]);
                flight.finish(Err(fault));
            }
            (Err((fault, None)), _) => {
                // A failure is for those who waited for it, and for nobody who comes afterwards.
                self.flights.remove(&flight);
                flight.finish(Err(fault));
            }
        }
    }

    async fn decide_and_fetch(
        self: &Arc<Self>,
        flight: &Arc<Flight>,
        wanted: &Arc<Wanted>,
        effort: Effort,
    ) -> Flown {
        if asks_again(wanted, effort) {
            // The flight before this one may have ended without its record being visible yet: what it served must not be missed.
            self.catalog.barrier().await;
        }
        let mut record = match self.catalog.record(&wanted.key).await {
            Ok(record) => record,
            Err(error) => return Err((storage_fault(&wanted.entry, &error), None)),
        };
        if effort == Effort::IfDue
            && record.is_none()
            && let Some(absence) = self.absence(wanted).await
        {
            return Err((self.negative_fault(wanted, absence), None));
        }
        let mut followed = None;
        if let Some(pointer) = &record
            && let Some((resolved, _)) = self.follow_pointer(wanted, pointer).await
        {
            followed = Some(RecordChange::Renew {
                record: Arc::clone(&resolved),
            });
            record = Some(resolved);
        }
        // What may be served while it is refreshed has been served; here it is refreshed.
        let policy = CachePolicy {
            stale_while_revalidate: std::time::Duration::ZERO,
            ..wanted.entry.repository.cache.clone()
        };
        let anew = Decision::Fetch {
            expired: record.as_ref().is_some_and(|r| r.blob().is_some()),
        };
        let may_compare = policy.revalidate != Some(Revalidate::Never)
            && record.as_ref().is_some_and(|r| r.has_validators());
        let mut decision = match effort {
            Effort::IfDue => {
                let class = record
                    .as_deref()
                    .map_or(wanted.class, |record| wanted.class_of(record));
                decide(record.as_deref(), class, &policy, self.now())
            }
            Effort::Recheck if may_compare => Decision::Revalidate(RevalidateWith::Get),
            Effort::Recheck | Effort::Anew => anew,
        };
        let mut copy = None;
        if let Some(record) = record.clone().filter(|record| record.blob().is_some()) {
            // An expired copy, too, is renewed or served stale only if it is what its index says by now.
            match (
                self.open_held(wanted, &record).await,
                self.still_claimed(wanted, record).await,
            ) {
                (Some(open), Some(record)) => copy = Some((record, open)),
                _ => decision = Decision::Fetch { expired: false },
            }
        }
        match (decision, copy) {
            (Decision::Serve | Decision::ServeAndRefresh, Some((record, open))) => Ok((
                self.settled_copy(wanted, record, open, None),
                followed,
                None,
            )),
            (Decision::ServeNegative(status), _) => {
                let absence = record.map_or(Remembered { status, over: None }, |r| {
                    Remembered::of_record(wanted, status, &r)
                });
                Err((self.negative_fault(wanted, absence), None))
            }
            (Decision::Revalidate(with), Some(copy)) => {
                self.revalidate(flight, wanted, copy, with).await
            }
            (_, copy) => {
                let prior =
                    record.filter(|record| !matches!(record.content, Content::Negative { .. }));
                let own = copy.is_some();
                let copy = if own {
                    copy
                } else {
                    self.stand_in(wanted).await
                };
                let flown = self.fetch(flight, wanted, prior, copy, false).await;
                if own { flown } else { flown.map(for_once) }
            }
        }
    }
}

/// What comes of a fetch that another variant's copy stood behind: that copy stays the other's, and is served once.
fn for_once((mut settled, change, _): Arrived) -> Arrived {
    if settled.source == Source::Cache {
        settled.for_once = true;
        return (settled, None, None);
    }
    settled.status.forward = Some(ForwardReason::UriMiss);
    (settled, change, None)
}

/// A copy that was only looked at again stays as it was unless something was learnt of it.
fn unless_news(flown: Flown) -> Flown {
    match flown {
        Ok((settled, _, _)) if settled.is_old() => Ok((settled, None, None)),
        Err((fault, _)) => Err((fault, None)),
        news => news,
    }
}

/// Whether what a flight brought that has just ended is too old.
fn asks_again(wanted: &Wanted, effort: Effort) -> bool {
    asks_always(wanted) || effort == Effort::Recheck
}

/// Whether every request must ask the upstream (`mutable_ttl: 0`).
fn asks_always(wanted: &Wanted) -> bool {
    time_to_live(wanted.class, &wanted.entry.repository.cache).is_some_and(|ttl| ttl.is_zero())
}

/// A flight's end: what is served, what is to be committed, and the record that is replaced.
pub(crate) type Flown = Result<Arrived, (Fault, Option<RecordChange>)>;

/// What is served, what is to be committed, and the record that is replaced.
pub(crate) type Arrived = (Settled, Option<RecordChange>, Option<Arc<ArtifactRecord>>);

/// Remaining life in whole seconds; `None` = unlimited.
pub(crate) fn remaining_seconds(
    record: &ArtifactRecord,
    wanted: &Wanted,
    now: UnixMillis,
) -> Option<i64> {
    let until = fresh_until(
        record,
        wanted.class_of(record),
        &wanted.entry.repository.cache,
    )?;
    Some((until.0.saturating_sub(now.0)).div_euclid(1000))
}

impl crate::repositories::Entry {
    pub(crate) fn repository_is_offline(&self) -> bool {
        self.repository
            .upstream()
            .is_some_and(|upstream| upstream.offline)
    }
}

/// Whether storage failed for want of space.
pub(crate) fn is_full(error: &StorageError) -> bool {
    error.kind == StorageErrorKind::Full
}

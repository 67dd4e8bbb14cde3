//! The life of one flight: decide again, obtain, end, commit.

use std::sync::Arc;

use larder_core::{
    ArtifactRecord, CachePolicy, Content, Decision, Fault, ForwardReason, Revalidate,
    RevalidateWith, Source, decide,
};

use super::Remote;
use crate::catalog::{Commit, RecordChange};
use crate::cluster::Turn;
use crate::fault::{Remembered, negative_fault, storage_fault};
use crate::origin::remote::obtain::asks_again;
use crate::target::Target;
use crate::transfer::flight::{Effort, Flight, Settled};

impl Remote {
    /// The whole life of a flight: decide again (things may have changed while it was started), obtain, end, commit.
    pub(super) async fn fly(
        self: Arc<Self>,
        flight: Arc<Flight>,
        wanted: Arc<Target>,
        effort: Effort,
    ) {
        let began = tokio::time::Instant::now();
        if wanted.spec.is_document {
            self.readings.begins(&wanted.key);
        }
        // What is to be committed is in the queue before anybody is told: the next request waits for the queue to be empty, and must
        // find the record of what was served just now.
        let result = self.decide_and_fetch(&flight, &wanted, effort).await;
        // What has arrived stays open until it is enqueued or committed.
        let is_new = matches!(&result, Ok((_, Some(RecordChange::Store { .. }), _)));
        let _place = is_new.then(|| self.catalog.spool_place_now(&wanted));
        match (
            if effort == Effort::Recheck {
                unless_news(result)
            } else {
                result
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
                    landing: self.transfers.landing(&flight),
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
                    landing: self.transfers.landing(&flight),
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
        wanted: &Arc<Target>,
        effort: Effort,
    ) -> FetchResult {
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
            && let Some(absence) = self.documents.absence(wanted).await
        {
            return Err((negative_fault(wanted, absence, self.now()), None));
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
                self.catalog.open_held(wanted, &record).await,
                self.still_claimed(wanted, record).await,
            ) {
                (Some(open), Some(record)) => copy = Some((record, open)),
                _ => decision = Decision::Fetch { expired: false },
            }
        }
        let asks = matches!(decision, Decision::Fetch { .. } | Decision::Revalidate(_));
        if asks {
            let may_look = effort == Effort::IfDue;
            match self.cluster.turn(flight, wanted, may_look).await {
                Turn::Ours => {}
                Turn::LookAgain => {
                    self.catalog.forget_in_memory(&wanted.key);
                    return Box::pin(self.decide_and_fetch(flight, wanted, effort)).await;
                }
                Turn::Relayed(response) => {
                    flight.relay(response);
                    decision = Decision::Fetch {
                        expired: copy.is_some(),
                    };
                }
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
                Err((negative_fault(wanted, absence, self.now()), None))
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
                let result = self.fetch(flight, wanted, prior, copy, false).await;
                if own {
                    result
                } else {
                    result.map(not_reusable)
                }
            }
        }
    }
}

/// What comes of a fetch that another variant's copy stood behind: that copy stays the other's, and is served once.
fn not_reusable((mut settled, change, _): Fetched) -> Fetched {
    if settled.source == Source::Cache {
        settled.reusable = false;
        return (settled, None, None);
    }
    settled.status.forward = Some(ForwardReason::UriMiss);
    (settled, change, None)
}

/// A copy that was only looked at again stays as it was unless something was learnt of it.
fn unless_news(result: FetchResult) -> FetchResult {
    match result {
        Ok((settled, _, _)) if settled.is_old() => Ok((settled, None, None)),
        Err((fault, _)) => Err((fault, None)),
        news => news,
    }
}

/// A flight's end: what is served, what is to be committed, and the record that is replaced.
pub(crate) type FetchResult = Result<Fetched, (Fault, Option<RecordChange>)>;

/// What is served, what is to be committed, and the record that is replaced.
pub(crate) type Fetched = (Settled, Option<RecordChange>, Option<Arc<ArtifactRecord>>);

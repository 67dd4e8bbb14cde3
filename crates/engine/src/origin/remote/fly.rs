//! The life of one flight: decide again, obtain, end, commit.

use std::sync::Arc;
use std::time::Duration;

use larder_core::{
    ArtifactRecord, CachePolicy, Content, Decision, Fault, ForwardReason, Revalidate,
    RevalidateWith, Source, decide, time_to_live,
};
use tokio::time::Instant;

use super::copies::Copy;
use super::fetch::Job;
use super::outcome::{FetchResult, Fetched};
use super::parts::Remote;
use crate::catalog::{Commit, RecordChange};
use crate::cluster::Turn;
use crate::document::inquiry::Inquiry;
use crate::fault::{Remembered, database_away, negative_fault, storage_fault};
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
        let began = Instant::now();
        if wanted.spec.is_document {
            self.readings.begins(&wanted.key);
        }
        let inquiry = self.inquiry();
        let job = Job {
            inquiry: &inquiry,
            flight: &flight,
            wanted: &wanted,
        };
        // What is to be committed is in the queue before anybody is told: the next request waits for the queue to be empty, and must
        // find the record of what was served just now.
        let mut result = Box::pin(self.decide_and_fetch(job, effort)).await;
        // What has arrived stays open until it is enqueued or committed.
        let is_new = matches!(&result, Ok((_, Some(RecordChange::Store { .. }), _)));
        let _place = is_new.then(|| self.catalog.spool_place_now(&wanted));
        if effort == Effort::Recheck {
            result = unless_news(result);
        }
        match result {
            Ok(arrived) => self.land(&inquiry, flight, wanted, arrived, began).await,
            Err((fault, Some(change))) => {
                self.landings.no_longer_vouched_for(&wanted).await;
                self.keep(&flight, wanted, change, None);
                flight.finish(Err(fault));
            }
            Err((fault, None)) => {
                // A failure is for those who waited for it, and for nobody who comes afterwards.
                self.transfers.flights.remove(&flight);
                flight.finish(Err(fault));
            }
        }
    }

    /// What came is kept, and becomes visible.
    async fn land(
        &self,
        inquiry: &Inquiry,
        flight: Arc<Flight>,
        wanted: Arc<Target>,
        arrived: Fetched,
        began: Instant,
    ) {
        if let Some(generation) = wanted.generation() {
            let (flight, document) = (&flight, (&wanted, &generation));
            let generations = &self.generations;
            let landed = generations.land_generation(inquiry, flight, document, arrived, began);
            // Boxed: few flights are of such documents, and every flight would carry it.
            return Box::pin(landed).await;
        }
        if arrived.0.document.is_some() {
            return self.landings.land_document(flight, wanted, arrived).await;
        }
        let (settled, change, replaces) = arrived;
        let path = &wanted.spec.key_path;
        if settled.source == Source::Remote && wanted.format.needs_what_it_names(path) {
            // Whoever reads it asks at once for what it names.
            wanted.entry.arrived();
        }
        let Some(change) = change else {
            flight.finish(Ok(settled));
            self.transfers.flights.remove(&flight);
            return;
        };
        if let RecordChange::Store {
            also: Some((key, record)),
            ..
        } = &change
        {
            let brought = Settled {
                record: Arc::clone(record),
                ..settled.clone()
            };
            self.transfers.flights.join_beside(&flight, key, brought);
        }
        if flight.followed().is_some() && replaces.is_none() && !asks_always(&wanted) {
            // Where nothing is replaced, whoever comes meanwhile joins the flight. It can be joined until the record is visible.
            let length = settled.record.blob().map_or(0, |blob| blob.size);
            flight.finish(Ok(settled));
            self.cluster.kept_elsewhere(&flight, length).await;
            self.keep(&flight, wanted, change, replaces);
        } else {
            self.keep(&flight, wanted, change, replaces);
            flight.finish(Ok(settled));
        }
    }

    fn keep(
        &self,
        flight: &Arc<Flight>,
        wanted: Arc<Target>,
        change: RecordChange,
        replaces: Option<Arc<ArtifactRecord>>,
    ) {
        self.catalog.enqueue(vec![Commit {
            wanted,
            landing: self.transfers.landing(flight),
            change,
            replaces,
        }]);
    }

    /// What is remembered of it, and, where that is a name for other bytes, the record of those.
    async fn remembered(
        &self,
        wanted: &Arc<Target>,
        effort: Effort,
    ) -> Result<(Option<Arc<ArtifactRecord>>, Option<RecordChange>), Fault> {
        if asks_again(wanted, effort) {
            // The flight before this one may have ended without its record being visible yet: what it served must not be missed.
            self.catalog.barrier().await;
        }
        let record = self.catalog.record(&wanted.key).await;
        let record = record.map_err(|error| storage_fault(&wanted.entry, &error))?;
        let Some(pointer) = &record else {
            // What must not go back is not replaced while nobody knows what there was.
            if wanted.entry.repository.cache.no_rollback && self.catalog.is_database_away() {
                return Err(database_away(&wanted.entry));
            }
            if effort == Effort::IfDue
                && let Some(absence) = self.documents.absence(wanted).await
            {
                return Err(negative_fault(wanted, absence, self.now()));
            }
            return Ok((None, None));
        };
        Ok(match self.copies.follow_pointer(wanted, pointer).await {
            Some((resolved, _)) => {
                let record = Arc::clone(&resolved);
                (Some(resolved), Some(RecordChange::Renew { record }))
            }
            None => (record, None),
        })
    }

    async fn decide_and_fetch(&self, job: Job<'_>, effort: Effort) -> FetchResult {
        let wanted = job.wanted;
        let remembered = self.remembered(wanted, effort).await;
        let (record, followed) = remembered.map_err(|fault| (fault, None))?;
        let mut decision = self.decide_anew(wanted, record.as_deref(), effort);
        let mut copy = None;
        if let Some(record) = record.clone().filter(|record| record.blob().is_some()) {
            // An expired copy, too, is renewed or served stale only if it is what its index says by now.
            match (
                self.catalog.open_held(wanted, &record).await,
                self.copies.still_claimed(wanted, record).await,
            ) {
                (Some(open), Some(record)) => copy = Some((record, open)),
                _ => decision = Decision::Fetch { expired: false },
            }
        }
        let asks = matches!(decision, Decision::Fetch { .. } | Decision::Revalidate(_));
        if asks {
            let may_look = effort == Effort::IfDue;
            match self.cluster.turn(job.flight, wanted, may_look).await {
                Turn::Ours => {}
                Turn::LookAgain => {
                    self.catalog.forget_in_memory(&wanted.key);
                    return Box::pin(self.decide_and_fetch(job, effort)).await;
                }
                Turn::Relayed(response) => {
                    job.flight.relay(response);
                    decision = Decision::Fetch {
                        expired: copy.is_some(),
                    };
                }
            }
        }
        match (decision, copy) {
            (Decision::Serve | Decision::ServeAndRefresh, Some((record, open))) => {
                let settled = self.copies.settled_copy(wanted, record, open, None);
                Ok((settled, followed, None))
            }
            (Decision::ServeNegative(status), _) => {
                let absence = record.map_or(Remembered { status, over: None }, |r| {
                    Remembered::of_record(wanted, status, &r)
                });
                Err((negative_fault(wanted, absence, self.now()), None))
            }
            (decision, copy) => self.fetch_or_stand_in(job, decision, record, copy).await,
        }
    }

    /// What is done about a record when its flight has its turn. What may be served while it is refreshed has been served; here it is
    /// refreshed.
    fn decide_anew(
        &self,
        wanted: &Target,
        record: Option<&ArtifactRecord>,
        effort: Effort,
    ) -> Decision {
        let policy = CachePolicy {
            stale_while_revalidate: Duration::ZERO,
            ..wanted.entry.repository.cache.clone()
        };
        let may_compare = policy.revalidate != Some(Revalidate::Never)
            && record.is_some_and(ArtifactRecord::has_validators);
        match effort {
            Effort::IfDue => {
                let class = record.map_or(wanted.class, |record| wanted.class_of(record));
                decide(record, class, &policy, self.now())
            }
            Effort::Recheck if may_compare => Decision::Revalidate(RevalidateWith::Get),
            Effort::Recheck | Effort::Anew => Decision::Fetch {
                expired: record.is_some_and(|record| record.blob().is_some()),
            },
        }
    }

    /// Asks the upstream. Where no copy is held under this name that may be served if nothing comes, one of another variant stands behind it.
    async fn fetch_or_stand_in(
        &self,
        job: Job<'_>,
        decision: Decision,
        record: Option<Arc<ArtifactRecord>>,
        copy: Option<Copy>,
    ) -> FetchResult {
        let prior = record.filter(|record| !matches!(record.content, Content::Negative { .. }));
        let is_copy_good = |(copy, _): &Copy| self.copies.may_serve(job.wanted, copy);
        let stand_in = if copy.as_ref().is_some_and(is_copy_good) {
            None
        } else {
            self.copies.stand_in(job.wanted).await
        };
        match (stand_in, decision, copy) {
            (None, Decision::Revalidate(with), Some(copy)) => {
                self.fetcher.revalidate(job, copy, with).await
            }
            (None, _, copy) => self.fetcher.fetch(job, prior, copy, false).await,
            (stand_in, _, own) => {
                let fetched = self.fetcher.fetch(job, prior, stand_in, false).await;
                fetched.map(|fetched| not_reusable(fetched, own))
            }
        }
    }
}

/// What comes of a fetch that another variant's copy stood behind: that copy stays the other's, and is served once.
fn not_reusable((mut settled, change, _): Fetched, own: Option<Copy>) -> Fetched {
    if settled.source == Source::Cache {
        settled.reusable = false;
        return (settled, None, None);
    }
    if own.is_none() {
        settled.status.forward = Some(ForwardReason::UriMiss);
    }
    (settled, change, own.map(|(record, _)| record))
}

/// A copy that was only looked at again stays as it was unless something was learnt of it.
fn unless_news(result: FetchResult) -> FetchResult {
    match result {
        Ok((settled, _, _)) if settled.is_old() => Ok((settled, None, None)),
        Err((fault, _)) => Err((fault, None)),
        news => news,
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

//! Files that are only right together: a document, its companions (a signature) and the files that it names (docs/adr/0023).
//!
//! A new generation is gathered behind the old one: its companions and the essential files are fetched and checked against
//! it, and only then is it exchanged for the old one, all records in one transaction (hazard W10). What fetches the files
//! stands in `companions.rs`.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use larder_core::{ArtifactRecord, CacheStatus, ForwardReason, HeadVerdict, Source, fresh_until};
use larder_formats::Generation;
use tokio::time::Instant;

use super::Generations;
use super::member::{Incomplete, Member, Others, as_settled};
use crate::catalog::{Commit, RecordChange};
use crate::causes::warn_once;
use crate::document::inquiry::Inquiry;
use crate::document::load::DocumentSource;
use crate::origin::remote::fetch::Job;
use crate::origin::remote::outcome::Fetched;
use crate::origin::remote::query::UpstreamQuery;
use crate::origin::remote::routes::elsewhere;
use crate::origin::remote::settle::head_verdict;
use crate::target::Target;
use crate::transfer::flight::{Flight, Settled};

/// Times to read the document again when the upstream changes it while the other files are fetched.
const ATTEMPTS: u32 = 5;
/// Pause before another attempt: publishers replace their files one after the other.
const PAUSE: Duration = Duration::from_millis(200);
/// Longest wait for the files of a generation before clients are answered.
const PATIENCE: Duration = Duration::from_secs(15);
/// The same where nothing older is there that could be served meanwhile: the client waits for the document itself.
const FIRST_PATIENCE: Duration = Duration::from_secs(5);
/// How long beyond its life an old generation is preferred to one that has lost its signature.
const UNSIGNED_GRACE: Duration = Duration::from_secs(60);

/// A document's arrival with what goes with it.
struct Gathered {
    arrived: Fetched,
    /// Other files, exchanged together with the document.
    members: Vec<Member>,
    /// Whether the document differs from the one before.
    changed: bool,
}

impl Gathered {
    /// Nothing is exchanged.
    fn unchanged(arrived: Fetched) -> Self {
        Self {
            arrived,
            members: Vec::new(),
            changed: false,
        }
    }
}

impl Generations {
    /// The end of a flight for a document that heads a generation.
    pub(in crate::origin::remote) async fn land_generation(
        self: &Arc<Self>,
        inquiry: &Inquiry,
        flight: &Arc<Flight>,
        (wanted, generation): (&Arc<Target>, &Generation),
        arrived: Fetched,
        began: Instant,
    ) {
        // Nothing was learnt from the upstream, or nothing can be kept: there is nothing to exchange.
        let is_news = arrived.0.status.forward.is_some() && arrived.1.is_some();
        let prior = self
            .catalog
            .record(&wanted.key)
            .await
            .ok()
            .flatten()
            .filter(|record| record.blob().is_some());
        let Gathered {
            arrived: (settled, change, replaces),
            members,
            changed,
        } = if is_news {
            let is_exchanged =
                flight.followed().is_some() && self.is_exchanged(wanted, &arrived.0).await;
            let document = (wanted, generation);
            Box::pin(self.gather(inquiry, document, arrived, (prior.as_ref(), is_exchanged))).await
        } else {
            Gathered::unchanged(arrived)
        };
        let Some(change) = change else {
            flight.finish(Ok(settled));
            self.transfers.flights.remove(flight);
            return;
        };
        let replaced = prior.filter(|_| changed);
        let mut restated = Vec::new();
        if let Some(prior) = &replaced {
            // The files of the new generation are visible before it is.
            self.catalog.barrier().await;
            let arrived: Vec<_> = members.iter().filter_map(as_settled).collect();
            restated = self
                .landings
                .restated_by_generation(wanted, prior, &settled, &arrived)
                .await;
            self.until_unread(wanted, prior, began).await;
        }
        let commit = |wanted, change, replaces| Commit {
            wanted,
            landing: self.transfers.landing(flight),
            change,
            replaces,
        };
        let mut commits = vec![commit(Arc::clone(wanted), change, replaces)];
        commits.extend(
            members
                .into_iter()
                .map(|(member, change)| commit(member, change, None)),
        );
        self.landings.exchange(wanted, commits, &restated).await;
        self.readings.landed(&wanted.key);
        if changed {
            self.catalog.supersede(&wanted.entry);
            self.documents.read_ahead(wanted, &settled.record);
            if let Some(prior) = replaced {
                self.retire(wanted, prior, Arc::clone(&settled.record));
            }
        }
        flight.finish(Ok(settled));
    }

    /// Whether another replica has exchanged this generation for the one before: then its other files stand in the database.
    async fn is_exchanged(&self, wanted: &Target, arrived: &Settled) -> bool {
        let stored = self.catalog.stored(&wanted.key).await;
        stored.is_some_and(|stored| stored.blob() == arrived.record.blob())
    }

    /// Lets nobody begin to read the old document any more, and waits for those who have.
    async fn until_unread(&self, wanted: &Target, prior: &ArtifactRecord, began: Instant) {
        let policy = &wanted.entry.repository.cache;
        let until = fresh_until(prior, wanted.class, policy)
            .map(|until| until.plus(policy.stale_while_revalidate));
        let now = Instant::now();
        self.readings.exchange(&wanted.key, now);
        // Had it expired, then all who came since the flight began have been waiting for its end.
        let began = if until.is_some_and(|until| until <= self.now()) {
            began
        } else {
            now
        };
        self.catalog.supersede(&wanted.entry);
        loop {
            let quiet = self.readings.quiet_after(&wanted.key, began);
            if quiet <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(quiet).await;
        }
    }

    /// Fetches what goes with a document that has just been fetched or found unchanged; `is_exchanged`: another replica has done so.
    async fn gather(
        &self,
        inquiry: &Inquiry,
        (wanted, generation): (&Arc<Target>, &Generation),
        mut arrived: Fetched,
        (prior, mut is_exchanged): (Option<&Arc<ArtifactRecord>>, bool),
    ) -> Gathered {
        let patience = prior.map_or(FIRST_PATIENCE, |_| PATIENCE);
        let until = Instant::now() + patience;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let changed = prior.is_none_or(|prior| prior.blob() != arrived.0.record.blob());
            let before = prior.filter(|_| changed);
            if let Some(before) = before
                && let Some(kept) = self.unless_rollback(wanted, before, &arrived.0).await
            {
                return Gathered::unchanged(kept);
            }
            let others = Others {
                is_other: before.is_some(),
                is_exchanged: std::mem::take(&mut is_exchanged),
            };
            let around = self
                .fetch_members(inquiry, (wanted, generation), &arrived.0, others, until)
                .await;
            let is_signed_anew =
                around.incomplete.is_none() && around.signed && changed && !others.is_exchanged;
            let incomplete = if is_signed_anew && self.has_moved_on(wanted, &arrived.0.record).await
            {
                Some(Incomplete::MissingFiles)
            } else {
                around.incomplete
            };
            let gathered = |arrived| Gathered {
                arrived,
                members: around.members,
                changed,
            };
            let Some(incomplete) = incomplete else {
                return gathered(arrived);
            };
            let is_last = attempt >= ATTEMPTS
                || matches!(incomplete, Incomplete::Unreachable)
                || Instant::now() >= until;
            if !is_last {
                let now = self.read_moved(inquiry, wanted, prior, &arrived.0).await;
                // An upstream that says the same twice means it.
                let means_it = incomplete == Incomplete::MissingFiles && attempt > 1;
                match now {
                    Some(now) => {
                        arrived = now;
                        continue;
                    }
                    None if !means_it => continue,
                    None => {}
                }
            }
            return match self.prefer(wanted, before, incomplete).await {
                Some(kept) => Gathered::unchanged(kept),
                None => gathered(arrived),
            };
        }
    }

    /// The generation before, where the upstream offers an older one than that and the operator forbids it.
    async fn unless_rollback(
        &self,
        wanted: &Arc<Target>,
        before: &Arc<ArtifactRecord>,
        now: &Settled,
    ) -> Option<Fetched> {
        if !self.is_rollback(wanted, before, now).await {
            return None;
        }
        let kept = self.keep(wanted, before, "rollback-refused", true).await?;
        warn_once!(
            wanted,
            "rollback",
            "the upstream offers an older revision than before; the newer one is kept (no_rollback)"
        );
        Some(kept)
    }

    /// The generation before, if it is better than one that is not complete.
    async fn prefer(
        &self,
        wanted: &Arc<Target>,
        before: Option<&Arc<ArtifactRecord>>,
        incomplete: Incomplete,
    ) -> Option<Fetched> {
        let before = before.filter(|before| self.prefers(wanted, before, incomplete))?;
        let kept = self.keep(wanted, before, "stale-generation", false).await?;
        Self::warn_of_incomplete(wanted, incomplete);
        Some(kept)
    }

    /// The document as the upstream has it a moment later, if it is another one by then.
    async fn read_moved(
        &self,
        inquiry: &Inquiry,
        wanted: &Arc<Target>,
        prior: Option<&Arc<ArtifactRecord>>,
        arrived: &Settled,
    ) -> Option<Fetched> {
        tokio::time::sleep(PAUSE).await;
        let now = self.read_again(inquiry, wanted, prior).await?;
        (now.0.record.blob() != arrived.record.blob()).then_some(now)
    }

    fn warn_of_incomplete(wanted: &Target, incomplete: Incomplete) {
        let why = match incomplete {
            Incomplete::MissingFiles => "generation_incomplete",
            Incomplete::Unsigned => "generation_unsigned",
            Incomplete::Unreachable => "generation_unreachable",
        };
        warn_once!(
            wanted,
            why,
            "the upstream's new generation is not complete yet; the one before is served",
            reason = why
        );
    }

    /// Whether the generation before is better than one with this doubt.
    fn prefers(&self, wanted: &Target, before: &ArtifactRecord, incomplete: Incomplete) -> bool {
        match incomplete {
            Incomplete::Unreachable => true,
            // The upstream has named files twice that it does not have: so be it.
            Incomplete::MissingFiles => false,
            Incomplete::Unsigned => {
                let until = fresh_until(before, wanted.class, &wanted.entry.repository.cache);
                until.is_none_or(|until| self.now() < until.plus(UNSIGNED_GRACE))
            }
        }
    }

    /// The copy that was held before, as what the flight came to.
    async fn keep(
        &self,
        wanted: &Arc<Target>,
        before: &Arc<ArtifactRecord>,
        detail: &'static str,
        renew: bool,
    ) -> Option<Fetched> {
        let open = self.catalog.open_held(wanted, before).await?;
        let now = self.now();
        let record = if renew {
            Arc::new(ArtifactRecord {
                fresh_since: now,
                contacted_at: now,
                ..ArtifactRecord::clone(before)
            })
        } else {
            Arc::clone(before)
        };
        let status = CacheStatus {
            forward: Some(ForwardReason::Stale),
            forward_status: Some(200),
            detail: Some(detail),
            ..CacheStatus::default()
        };
        let change = renew.then(|| RecordChange::Renew {
            record: Arc::clone(&record),
        });
        let settled = Settled {
            record,
            body: open,
            status,
            source: Source::Cache,
            reusable: renew,
            document: None,
        };
        Some((settled, change, None))
    }

    /// Whether a new document is older than the one held, and the operator forbids that.
    async fn is_rollback(
        &self,
        wanted: &Arc<Target>,
        before: &ArtifactRecord,
        now: &Settled,
    ) -> bool {
        if !wanted.entry.repository.cache.no_rollback {
            return false;
        }
        let Ok(old) = self
            .documents
            .held_source(wanted, &Arc::new(before.clone()))
            .await
        else {
            return false;
        };
        let new = DocumentSource::settled(wanted, now);
        let bytes = old.length() + new.length();
        let compared =
            self.documents
                .parse_blocking(&wanted.entry.repository.name, bytes, move || {
                    let revision = |source: DocumentSource| {
                        let document = source.load().ok()?;
                        document.wanted().format.revision(&document.view())
                    };
                    matches!((revision(old), revision(new)), (Some(old), Some(new)) if new < old)
                });
        compared.await.unwrap_or(false)
    }

    /// Whether the upstream's document has changed since: its signature may then be of the next generation.
    async fn has_moved_on(&self, wanted: &Arc<Target>, record: &ArtifactRecord) -> bool {
        if !record.has_validators() {
            return false;
        }
        // Of the very server that it came from: behind a redirector another one may be older or newer. That server may refuse, and
        // what came from a URL with a query is asked of whoever made that.
        let claimed = elsewhere(wanted, &record.source_url).filter(|url| url.query().is_none());
        let is_led = claimed.is_some();
        let mut ask = UpstreamQuery {
            method: Method::HEAD,
            claimed,
            unless_changed: Some(record),
            ..UpstreamQuery::default()
        };
        let mut answer = self.mirrors.ask(wanted, &ask).await;
        if is_led
            && !answer
                .as_ref()
                .is_ok_and(|arrival| matches!(arrival.response.status.as_u16(), 200 | 304))
        {
            ask.claimed = None;
            answer = self.mirrors.ask(wanted, &ask).await;
        }
        answer.is_ok_and(|arrival| {
            head_verdict(wanted, &arrival.response, record) == HeadVerdict::Changed
        })
    }

    /// The document as the upstream has it now.
    async fn read_again(
        &self,
        inquiry: &Inquiry,
        wanted: &Arc<Target>,
        prior: Option<&Arc<ArtifactRecord>>,
    ) -> Option<Fetched> {
        let flight = Arc::new(Flight::detached(wanted.key.clone()));
        let job = Job {
            inquiry,
            flight: &flight,
            wanted,
        };
        let arrived = self.fetcher.fetch(job, prior.cloned(), None, false).await;
        let (mut settled, change, _) = arrived.ok()?;
        if prior.is_some() {
            settled.status.forward = Some(ForwardReason::Stale);
        }
        change.is_some().then(|| (settled, change, prior.cloned()))
    }
}

//! Asking documents what they say of a file, where they may have to be obtained for it. Who obtains them is behind a port.

use std::fmt::Debug;
use std::mem;
use std::pin::pin;
use std::sync::Arc;

use larder_core::UnixMillis;
use larder_core::{ArtifactRecord, FaultKind, stale_allowed};
use tokio::time::{Instant, timeout_at};

use super::Documents;
use super::expectation::{Expectation, Lookup, Unread};
use super::known::Known;
use crate::claim::StoredClaim;
use crate::policy::admission;
use crate::target::Target;
use crate::transfer::flight::{Effort, Flight, Ready};

/// A document that is read for a file.
enum Read {
    /// As its flight brought it.
    Now(Ready),
    /// As it is held: its refresh takes too long.
    Held(Arc<ArtifactRecord>),
}

/// Whether the upstream does not have the document, or it is none.
fn is_without_document(lookup: &Lookup) -> bool {
    matches!(lookup, Lookup::NoDocument(Unread::Absent | Unread::Refused))
}

/// Who obtains documents.
pub(crate) trait Launch: Debug + Send + Sync {
    /// The running flight for this document, or a new one; `true` if it is a new one.
    fn launch(self: Arc<Self>, document: &Arc<Target>, effort: Effort) -> (Arc<Flight>, bool);
}

/// Documents, and who obtains them.
#[derive(Debug, Clone)]
pub(crate) struct Inquiry {
    pub(crate) documents: Arc<Documents>,
    pub(crate) port: Arc<dyn Launch>,
}

impl Inquiry {
    fn launch(&self, document: &Arc<Target>, effort: Effort) -> (Arc<Flight>, bool) {
        Arc::clone(&self.port).launch(document, effort)
    }

    /// Starts looking for what a document says of this file.
    pub(crate) async fn expect(&self, wanted: &Arc<Target>) -> Expectation {
        match self.documents.expect_of_held(wanted).await {
            Expectation::Unasked => {
                let (inquiry, wanted) = (self.clone(), Arc::clone(wanted));
                Expectation::Pending(larder_upstream::spawn(async move {
                    inquiry.learn(&wanted).await
                }))
            }
            expectation => expectation,
        }
    }

    /// The claim that is expected of a file, waiting for the document if need be.
    pub(crate) async fn resolve(
        &self,
        expectation: &mut Expectation,
        wanted: &Arc<Target>,
    ) -> Option<StoredClaim> {
        self.look_up(expectation, wanted, true).await.claim()
    }

    /// What the document says of a file, waiting for it if need be. `is_somebody_there`: an answer came of the file itself, so that a
    /// document that was not answered is worth another try (a breaker may have refused it, or an old copy is held).
    pub(crate) async fn look_up(
        &self,
        expectation: &mut Expectation,
        wanted: &Arc<Target>,
        is_somebody_there: bool,
    ) -> Lookup {
        let lookup = match mem::replace(expectation, Expectation::None) {
            Expectation::None => Lookup::NotNamed,
            Expectation::Known(claim) => Lookup::Claim(claim),
            Expectation::Unasked => self.learn(wanted).await,
            Expectation::Pending(lookup) => match lookup.await.unwrap_or(Lookup::NotNamed) {
                Lookup::NoDocument(Unread::Unanswered) if is_somebody_there => {
                    self.learn_first(wanted).await
                }
                lookup => lookup,
            },
        };
        if let Lookup::Claim(claim) = &lookup {
            *expectation = Expectation::Known(claim.clone());
        }
        lookup
    }

    /// Looks the file up in the document that may name it: it is obtained if it is not held or has expired, and read once more if it
    /// does not name the file, for then it may only be older than the file.
    async fn learn(&self, wanted: &Arc<Target>) -> Lookup {
        let Some(documents) = self.documents.naming_documents(wanted).await else {
            return Lookup::NotNamed;
        };
        match self.documents.known_claim(wanted, &documents).await {
            Known::Claim(claim) => Lookup::Claim(claim),
            Known::NotNamed { fresh: true } => self.learn_again(wanted).await,
            Known::NotNamed { fresh: false } | Known::NoDocument => self.learn_first(wanted).await,
            Known::NotAsked => match self.learn_first(wanted).await {
                lookup @ (Lookup::Claim(_) | Lookup::NoDocument(Unread::Unanswered)) => lookup,
                // What is held beside the first one may be older than the file.
                _ => self.learn_again(wanted).await,
            },
        }
    }

    /// The upstream no longer has a file that the held document of its generation names: the document is out of date. It is
    /// read anew behind the scenes; whoever asks then finds the generation that the upstream has now.
    pub(crate) async fn refresh_generation_of(&self, wanted: &Arc<Target>) {
        if wanted.stated.is_none()
            && let Some((document, _)) = self.documents.named_in_generation(wanted).await
        {
            tracing::info!(key = %wanted.key, "the upstream has no such file any more; the document that names it is read again");
            self.launch(&document, Effort::Anew);
        }
    }

    /// Obtains the document that is asked for first and looks the file up in it.
    async fn learn_first(&self, wanted: &Arc<Target>) -> Lookup {
        let documents = self.documents.naming_documents(wanted).await;
        let Some([document, ..]) = documents.as_deref() else {
            return Lookup::NotNamed;
        };
        let came = Instant::now();
        let mut lookup = self
            .learn_claim(wanted, document, Effort::IfDue, came)
            .await;
        let repository = &wanted.entry.repository;
        let naming = wanted.format.naming(repository, &wanted.name());
        for other in naming.otherwise {
            if !is_without_document(&lookup) {
                return lookup;
            }
            if let Some(other) = admission::naming_document(wanted, other) {
                let other = Arc::new(other);
                lookup = self.learn_claim(wanted, &other, Effort::IfDue, came).await;
            }
        }
        lookup
    }

    /// When the registry says that a file was published. The document that is held may be of a form that names the file and states no
    /// time: then the one that is asked for first is obtained.
    pub(crate) async fn stated_date(&self, wanted: &Arc<Target>) -> Option<UnixMillis> {
        let mut expectation = self.expect(wanted).await;
        let claim = self.resolve(&mut expectation, wanted).await?;
        if claim.published_at.is_some() {
            return claim.published_at;
        }
        let repository = &wanted.entry.repository;
        let naming = wanted.format.naming(repository, &wanted.name());
        let document = Arc::new(admission::naming_document(wanted, naming.document?)?);
        let (effort, came) = (Effort::IfDue, Instant::now());
        let lookup = self.learn_claim(wanted, &document, effort, came).await;
        lookup.claim()?.published_at
    }

    /// Reads those documents once more that are held and do not name the file. Many who ask share one reading, and who comes just
    /// after it takes what it brought (`rereadings.rs`).
    pub(crate) async fn learn_again(&self, wanted: &Arc<Target>) -> Lookup {
        let Some(documents) = self.documents.naming_documents(wanted).await else {
            return Lookup::NotNamed;
        };
        let (mut last, came) = (None, Instant::now());
        for document in &documents {
            // In this order: what has ended is held.
            let is_running = self.documents.flights.running(&document.key).is_some();
            let held = self
                .documents
                .catalog
                .record(&document.key)
                .await
                .ok()
                .flatten();
            if !is_running && held.is_none_or(|record| record.blob().is_none()) {
                continue;
            }
            let lookup = match self.reread(document) {
                Some((flight, started)) => {
                    let lookup = self.learn_from(wanted, document, &flight, came).await;
                    lookup.by(started)
                }
                None => match self
                    .documents
                    .known_claim(wanted, std::slice::from_ref(document))
                    .await
                {
                    Known::Claim(claim) => Lookup::Claim(claim),
                    Known::NotNamed { .. } | Known::NotAsked | Known::NoDocument => {
                        Lookup::NotNamedLately
                    }
                },
            };
            match lookup {
                Lookup::Claim(_) => return lookup,
                lookup if last.as_ref().is_none_or(Lookup::is_last_word) => last = Some(lookup),
                _ => {}
            }
        }
        last.unwrap_or(Lookup::NotNamedLately)
    }

    /// Obtains the document and looks the file up in it.
    async fn learn_claim(
        &self,
        wanted: &Arc<Target>,
        document: &Arc<Target>,
        effort: Effort,
        came: Instant,
    ) -> Lookup {
        let (flight, started) = self.launch(document, effort);
        let lookup = self.learn_from(wanted, document, &flight, came).await;
        lookup.by(started)
    }

    /// Waits for a document; not for ever if it is held, though it is older then than the file may be.
    async fn document_or_copy(
        &self,
        document: &Arc<Target>,
        flight: &Flight,
        came: Instant,
    ) -> Read {
        let policy = &document.entry.repository.cache;
        let mut ready = pin!(flight.ready(true));
        let until = came.min(flight.began) + policy.stale_wait;
        if let Ok(ready) = timeout_at(until, &mut ready).await {
            return Read::Now(ready);
        }
        let held = self.documents.catalog.record(&document.key).await;
        let now = self.documents.now();
        match held.ok().flatten() {
            Some(record) if stale_allowed(&record, policy, now) => Read::Held(record),
            _ => Read::Now(ready.await),
        }
    }

    /// What the held document says of the file while its refresh is overdue.
    async fn learn_from_held(
        &self,
        wanted: &Arc<Target>,
        document: &Arc<Target>,
        record: &Arc<ArtifactRecord>,
    ) -> Lookup {
        let claim = match self.documents.claim_table(document, record).await {
            Ok(table) => {
                let name = wanted.name();
                self.documents.claim_in(document, &table, &name).await
            }
            Err(_) => None,
        };
        claim.map_or(Lookup::NotNamedLately, Lookup::Claim)
    }

    /// `came`: when what the document is read for began to wait.
    async fn learn_from(
        &self,
        wanted: &Arc<Target>,
        document: &Arc<Target>,
        flight: &Flight,
        came: Instant,
    ) -> Lookup {
        let ready = match self.document_or_copy(document, flight, came).await {
            Read::Held(record) => return self.learn_from_held(wanted, document, &record).await,
            Read::Now(ready) => ready,
        };
        let settled = match ready {
            Ready::Done(Ok(settled)) => settled,
            Ready::Done(Err(fault)) => {
                return Lookup::NoDocument(match fault.kind {
                    FaultKind::Upstream(404 | 410) => Unread::Absent,
                    _ if fault.recovery.may_retry() => Unread::Unanswered,
                    _ => Unread::Refused,
                });
            }
            Ready::Filling(_) => return Lookup::NoDocument(Unread::Refused),
        };
        let Ok(table) = self.documents.arrived_claims(document, &settled).await else {
            return Lookup::NoDocument(Unread::Refused);
        };
        match self
            .documents
            .claim_in(document, &table, &wanted.name())
            .await
        {
            Some(claim) => Lookup::Claim(claim),
            None if settled.is_old() => Lookup::NotNamedLately,
            None => Lookup::NotNamed,
        }
    }

    /// After a mismatch: what does the document say now? Every variant that is held is read anew, or they would contradict each other.
    pub(crate) async fn refreshed_claim(&self, wanted: &Arc<Target>) -> Option<StoredClaim> {
        let documents = self.documents.naming_documents(wanted).await?;
        let (mut claim, mut any_held, came) = (None, false, Instant::now());
        for document in &documents {
            let held = self
                .documents
                .catalog
                .record(&document.key)
                .await
                .ok()
                .flatten()
                .is_some_and(|record| record.blob().is_some());
            if held {
                any_held = true;
                let learnt = self
                    .learn_claim(wanted, document, Effort::Anew, came)
                    .await
                    .claim();
                claim = claim.or(learnt);
            }
        }
        if any_held {
            claim
        } else {
            self.learn_claim(wanted, documents.first()?, Effort::Anew, came)
                .await
                .claim()
        }
    }

    /// The reading that is running, or a new one (`true`); `None` if the last one is over and was a moment ago.
    fn reread(&self, document: &Arc<Target>) -> Option<(Arc<Flight>, bool)> {
        let (documents, key) = (&self.documents, &document.key);
        let running = || {
            let running = documents.flights.running(key);
            let running = running.filter(|flight| !flight.is_done());
            running.map(|flight| (flight, false))
        };
        documents
            .rereadings
            .running_or_begun(key, documents.now(), running, || {
                tracing::debug!(document = %key, "a document that does not name a file is read once more");
                self.launch(document, Effort::Recheck)
            })
    }
}

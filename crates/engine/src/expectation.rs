//! What a file on its way should be: known already, being looked up, or unknown.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use larder_core::{Digest, DigestAlgorithm, ErrorCode, FaultKind, PackageType, StoredHeaders};
use tokio::task::JoinHandle;

use crate::admission::Wanted;
use crate::claims::StoredClaim;
use crate::engine::Engine;
use crate::flight::{Flight, Ready};
use crate::obtain::Effort;
use crate::remembered::Remembered;

/// What is known of a file's claim while it is being fetched.
#[derive(Debug)]
pub(crate) enum Expectation {
    /// Nothing states what it is, or it is a document itself.
    None,
    /// Its path, the upstream's head or a held document states it.
    Known(StoredClaim),
    /// The document that may name it is on its way.
    Pending(JoinHandle<Lookup>),
    /// No document that is held names it; others have not been asked for.
    Unasked,
}

/// What reading a document for one file came to.
#[derive(Debug)]
pub(crate) enum Lookup {
    Claim(StoredClaim),
    /// The document was read and does not name the file.
    NotNamed,
    /// The document does not name the file, but may be older than the file is.
    NotNamedLately,
    /// The document could not be read.
    NoDocument(Unread),
}

/// Why a document could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unread {
    /// There is none.
    Absent,
    /// No answer came, or none that could be understood: another try may help.
    Unanswered,
    /// An answer that says nothing of the file.
    Refused,
}

impl Lookup {
    fn claim(self) -> Option<StoredClaim> {
        match self {
            Self::Claim(claim) => Some(claim),
            Self::NotNamed | Self::NotNamedLately | Self::NoDocument(_) => None,
        }
    }

    /// The same where the reading may have begun before the file was asked for, and so before it was published.
    fn by(self, started: bool) -> Self {
        if !started && matches!(self, Self::NotNamed) {
            Self::NotNamedLately
        } else {
            self
        }
    }

    /// Whether the upstream could say nothing else of the file at present.
    pub(crate) fn is_last_word(&self) -> bool {
        matches!(
            self,
            Self::Claim(_) | Self::NotNamed | Self::NoDocument(Unread::Absent)
        )
    }
}

impl Expectation {
    /// A digest that is stated without a document; the file's URL is the usual one.
    fn of_digest(digest: Digest) -> Self {
        Self::Known(StoredClaim::of_digest(digest))
    }

    /// Takes up what the upstream's head states, unless more is known already.
    pub(crate) fn learn_from_head(&mut self, headers: &StoredHeaders) {
        if let (Self::None, Some(digest)) = (&self, &headers.digest) {
            *self = Self::of_digest(digest.clone());
        }
    }

    /// The claim, waiting for the document if need be.
    pub(crate) async fn resolve(
        &mut self,
        engine: &Arc<Engine>,
        wanted: &Arc<Wanted>,
    ) -> Option<StoredClaim> {
        self.look_up(engine, wanted, true).await.claim()
    }

    /// What the document says, waiting for it if need be. `is_somebody_there`: an answer came of the file itself, so that a document
    /// that was not answered is worth another try (a breaker may have refused it, or an old copy is held).
    pub(crate) async fn look_up(
        &mut self,
        engine: &Arc<Engine>,
        wanted: &Arc<Wanted>,
        is_somebody_there: bool,
    ) -> Lookup {
        let lookup = match std::mem::replace(self, Self::None) {
            Self::None => Lookup::NotNamed,
            Self::Known(claim) => Lookup::Claim(claim),
            Self::Unasked => engine.learn(wanted).await,
            Self::Pending(lookup) => match lookup.await.unwrap_or(Lookup::NotNamed) {
                Lookup::NoDocument(Unread::Unanswered) if is_somebody_there => {
                    engine.learn_first(wanted).await
                }
                lookup => lookup,
            },
        };
        if let Lookup::Claim(claim) = &lookup {
            *self = Self::Known(claim.clone());
        }
        lookup
    }

    /// Whether it is known what the bytes are.
    pub(crate) fn is_stated(&self) -> bool {
        matches!(self, Self::Known(claim) if claim.stated().is_some())
    }

    /// Algorithms worth computing while the body arrives; all that may be needed if it cannot be read again.
    pub(crate) fn algorithms(
        &self,
        package: PackageType,
        can_be_read_again: bool,
    ) -> Vec<DigestAlgorithm> {
        use DigestAlgorithm::{Md5, Sha1, Sha384, Sha512};
        match self {
            Self::Known(claim) => {
                let mut algorithms: Vec<_> = claim.digests.iter().map(Digest::algorithm).collect();
                algorithms.dedup();
                algorithms
            }
            Self::Pending(_) if !can_be_read_again => vec![Md5, Sha1, Sha384, Sha512],
            Self::Pending(_) if package == PackageType::Npm => vec![Sha1, Sha512],
            Self::None | Self::Unasked | Self::Pending(_) => Vec::new(),
        }
    }

    /// Whether a digest is or may be stated.
    pub(crate) fn expects_digest(&self) -> bool {
        matches!(self, Self::Pending(_) | Self::Unasked) || self.is_stated()
    }
}

impl Engine {
    /// Starts looking for what a document says of this file.
    pub(crate) async fn expect(self: &Arc<Self>, wanted: &Arc<Wanted>) -> Expectation {
        match self.expect_of_held(wanted).await {
            Expectation::Unasked => {
                let (engine, wanted) = (Arc::clone(self), Arc::clone(wanted));
                Expectation::Pending(larder_upstream::spawn(async move {
                    engine.learn(&wanted).await
                }))
            }
            expectation => expectation,
        }
    }

    /// What is held says of this file; no upstream contact.
    pub(crate) async fn expect_of_held(self: &Arc<Self>, wanted: &Arc<Wanted>) -> Expectation {
        if let Some(claim) = &wanted.stated {
            return Expectation::Known(StoredClaim::clone(claim));
        }
        if let Some(digest) = wanted.format.digest_in_name(&wanted.spec.key_path) {
            let url = self.url_in_generation(wanted).await;
            return Expectation::Known(StoredClaim {
                url,
                ..StoredClaim::of_digest(digest)
            });
        }
        let Some(documents) = self.naming_documents(wanted).await else {
            return Expectation::None;
        };
        match self.known_claim(wanted, &documents).await {
            Known::Claim(claim) => Expectation::Known(claim),
            Known::NotNamed { .. } | Known::NoDocument => Expectation::Unasked,
        }
    }

    /// Looks the file up in the document that may name it: it is obtained if it is not held or has expired, and read once more if it
    /// does not name the file, for then it may only be older than the file.
    async fn learn(self: &Arc<Self>, wanted: &Arc<Wanted>) -> Lookup {
        let Some(documents) = self.naming_documents(wanted).await else {
            return Lookup::NotNamed;
        };
        match self.known_claim(wanted, &documents).await {
            Known::Claim(claim) => Lookup::Claim(claim),
            Known::NotNamed { fresh: true } => self.learn_again(wanted).await,
            Known::NotNamed { fresh: false } | Known::NoDocument => self.learn_first(wanted).await,
        }
    }

    /// Where the document of the generation that is held says that a file of it is found; empty if it says nothing.
    async fn url_in_generation(self: &Arc<Self>, wanted: &Arc<Wanted>) -> String {
        match self.named_in_generation(wanted).await {
            Some((_, claim)) => claim.url,
            None => String::new(),
        }
    }

    /// The held document of a file's generation and what it says of the file.
    async fn named_in_generation(
        self: &Arc<Self>,
        wanted: &Arc<Wanted>,
    ) -> Option<(Arc<Wanted>, StoredClaim)> {
        let generation = wanted
            .format
            .generation(&wanted.spec.key_path)
            .filter(|_| !wanted.spec.is_document)?;
        let document = wanted.spelt_alike(generation.document);
        let document = Arc::new(Wanted::naming_document(
            &wanted.entry,
            wanted.format,
            document,
        ));
        let record = self
            .catalog
            .record(&document.key)
            .await
            .ok()?
            .filter(|record| record.blob().is_some())?;
        let claim = self
            .claim_table(&document, &record)
            .await
            .ok()?
            .find(&wanted.name())?;
        Some((document, claim))
    }

    /// The upstream no longer has a file that the held document of its generation names: the document is out of date. It is
    /// read anew behind the scenes; whoever asks then finds the generation that the upstream has now.
    pub(crate) async fn refresh_generation_of(self: &Arc<Self>, wanted: &Arc<Wanted>) {
        if wanted.stated.is_none()
            && let Some((document, _)) = self.named_in_generation(wanted).await
        {
            tracing::info!(key = %wanted.key, "the upstream has no such file any more; the document that names it is read again");
            self.flight(&document, Effort::Anew);
        }
    }

    /// The documents that may name a file, preferred first: those that are held, with those that are on their way before them; or else
    /// one key per variant in which the one that is asked for may be held.
    async fn naming_documents(&self, wanted: &Arc<Wanted>) -> Option<Vec<Arc<Wanted>>> {
        // What is stated already, or by the name itself, is not for a document to say.
        let stated = wanted.stated.is_some()
            || wanted
                .format
                .digest_in_name(&wanted.spec.key_path)
                .is_some();
        if wanted.spec.is_document || stated {
            return None;
        }
        let repository = &wanted.entry.repository;
        let (mut coming, mut held) = (Vec::new(), Vec::new());
        for spec in wanted
            .format
            .possibly_named_by(repository, &wanted.spec.key_path)
        {
            let document =
                Wanted::naming_document(&wanted.entry, wanted.format, wanted.spelt_alike(spec));
            if self.flights.running(&document.key).is_some() {
                coming.push(Arc::new(document));
            } else if self
                .catalog
                .record(&document.key)
                .await
                .ok()
                .flatten()
                .is_some_and(|record| record.blob().is_some())
            {
                held.push(Arc::new(document));
            }
        }
        if !(coming.is_empty() && held.is_empty()) {
            return Some([coming, held].concat());
        }
        let spec = wanted.format.named_by(repository, &wanted.spec.key_path)?;
        let mut all = vec![spec.clone()];
        for variant in wanted.format.document_variants() {
            if *variant != spec.variant {
                all.push(larder_formats::SourceSpec {
                    variant,
                    ..spec.clone()
                });
            }
        }
        let make = |spec| Arc::new(Wanted::naming_document(&wanted.entry, wanted.format, spec));
        Some(all.into_iter().map(make).collect())
    }

    /// What a document that is already held says of this file; no upstream contact.
    async fn known_claim(
        self: &Arc<Self>,
        wanted: &Arc<Wanted>,
        documents: &[Arc<Wanted>],
    ) -> Known {
        let mut best = Known::NoDocument;
        for document in documents {
            match self.just_claimed(wanted, document).await {
                Some(Some(claim)) => return Known::Claim(claim),
                Some(None) => {
                    best = Known::NotNamed { fresh: true };
                    continue;
                }
                None => {}
            }
            let Ok(Some(record)) = self.catalog.record(&document.key).await else {
                continue;
            };
            if record.blob().is_none() {
                continue;
            }
            let Ok(table) = self.claim_table(document, &record).await else {
                continue;
            };
            if let Some(claim) = self.claim_in(document, &table, &wanted.name()).await {
                return Known::Claim(claim);
            }
            let policy = &document.entry.repository.cache;
            let fresh = larder_core::fresh_until(&record, document.class, policy)
                .is_none_or(|until| self.now() < until);
            if fresh || matches!(best, Known::NoDocument) {
                best = Known::NotNamed { fresh };
            }
        }
        match best {
            // What is on its way may name it.
            Known::NotNamed { .. }
                if documents.first().is_some_and(|first| self.is_coming(first)) =>
            {
                Known::NotNamed { fresh: false }
            }
            best => best,
        }
    }

    /// What a document says that has arrived, and has been answered with, but is not held yet.
    async fn just_claimed(
        self: &Arc<Self>,
        wanted: &Arc<Wanted>,
        document: &Arc<Wanted>,
    ) -> Option<Option<StoredClaim>> {
        let settled = self.flights.running(&document.key)?.arrived()?;
        let table = self.arrived_claims(document, &settled).await.ok()?;
        Some(self.claim_in(document, &table, &wanted.name()).await)
    }

    fn is_coming(&self, document: &Wanted) -> bool {
        self.flights
            .running(&document.key)
            .is_some_and(|flight| !flight.is_done())
    }

    /// The claim of a held document for a file that is itself held, if there is one.
    pub(crate) async fn held_claim(self: &Arc<Self>, wanted: &Arc<Wanted>) -> Option<StoredClaim> {
        let documents = self.naming_documents(wanted).await?;
        match self.known_claim(wanted, &documents).await {
            Known::Claim(claim) => Some(claim),
            Known::NotNamed { .. } | Known::NoDocument => None,
        }
    }

    /// What the upstream has said is not there, unless a document that has arrived since then names it.
    pub(crate) async fn absence(self: &Arc<Self>, wanted: &Arc<Wanted>) -> Option<Remembered> {
        let entry = &wanted.entry;
        let absence = self.catalog.absence(entry, &wanted.key)?;
        let arrivals = entry.arrivals.load(Ordering::Acquire);
        if arrivals != absence.arrivals {
            if self.held_claim(wanted).await.is_some()
                || self.named_in_generation(wanted).await.is_some()
            {
                self.catalog.end_absence(&wanted.key);
                return None;
            }
            self.catalog.confirm_absence(&wanted.key, arrivals);
        }
        Some(Remembered {
            status: absence.status,
            over: Some(absence.at.plus(entry.repository.cache.negative_ttl)),
        })
    }

    /// Obtains the document that is asked for first and looks the file up in it.
    async fn learn_first(self: &Arc<Self>, wanted: &Arc<Wanted>) -> Lookup {
        let documents = self.naming_documents(wanted).await;
        let Some([document, ..]) = documents.as_deref() else {
            return Lookup::NotNamed;
        };
        let lookup = self.learn_claim(wanted, document, Effort::IfDue).await;
        if matches!(lookup, Lookup::NoDocument(Unread::Absent | Unread::Refused))
            && let Some(other) = wanted
                .format
                .else_named_by(&wanted.entry.repository, &wanted.name())
        {
            let other = Arc::new(Wanted::naming_document(&wanted.entry, wanted.format, other));
            return self.learn_claim(wanted, &other, Effort::IfDue).await;
        }
        lookup
    }

    /// Reads those documents once more that are held and do not name the file. Many who ask share one reading, and who comes just
    /// after it takes what it brought (`rereading.rs`).
    pub(crate) async fn learn_again(self: &Arc<Self>, wanted: &Arc<Wanted>) -> Lookup {
        let Some(documents) = self.naming_documents(wanted).await else {
            return Lookup::NotNamed;
        };
        let mut last = None;
        for document in &documents {
            // In this order: what has ended is held.
            let is_running = self.flights.running(&document.key).is_some();
            let held = self.catalog.record(&document.key).await.ok().flatten();
            if !is_running && held.is_none_or(|record| record.blob().is_none()) {
                continue;
            }
            let lookup = match self.reread(document) {
                Some((flight, started)) => {
                    self.learn_from(wanted, document, &flight).await.by(started)
                }
                None => match self
                    .known_claim(wanted, std::slice::from_ref(document))
                    .await
                {
                    Known::Claim(claim) => Lookup::Claim(claim),
                    Known::NotNamed { .. } | Known::NoDocument => Lookup::NotNamedLately,
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
        self: &Arc<Self>,
        wanted: &Arc<Wanted>,
        document: &Arc<Wanted>,
        effort: Effort,
    ) -> Lookup {
        let (flight, started) = self.flight_or_join(document, effort);
        self.learn_from(wanted, document, &flight).await.by(started)
    }

    async fn learn_from(
        self: &Arc<Self>,
        wanted: &Arc<Wanted>,
        document: &Arc<Wanted>,
        flight: &Flight,
    ) -> Lookup {
        let settled = match flight.ready(true).await {
            Ready::Done(Ok(settled)) => settled,
            Ready::Done(Err(fault)) => {
                return Lookup::NoDocument(match (fault.kind, fault.code) {
                    (FaultKind::Upstream(404 | 410), _) => Unread::Absent,
                    (
                        _,
                        ErrorCode::UpstreamUnreachable
                        | ErrorCode::UpstreamProtocol
                        | ErrorCode::UpstreamCut,
                    ) => Unread::Unanswered,
                    _ => Unread::Refused,
                });
            }
            Ready::Filling(_) => return Lookup::NoDocument(Unread::Refused),
        };
        let Ok(table) = self.arrived_claims(document, &settled).await else {
            return Lookup::NoDocument(Unread::Refused);
        };
        match self.claim_in(document, &table, &wanted.name()).await {
            Some(claim) => Lookup::Claim(claim),
            None if settled.is_old() => Lookup::NotNamedLately,
            None => Lookup::NotNamed,
        }
    }

    /// After a mismatch: what does the document say now? Every variant that is held is read anew, or they would contradict each other.
    pub(crate) async fn refreshed_claim(
        self: &Arc<Self>,
        wanted: &Arc<Wanted>,
    ) -> Option<StoredClaim> {
        let documents = self.naming_documents(wanted).await?;
        let mut claim = None;
        let mut any_held = false;
        for document in &documents {
            let held = self
                .catalog
                .record(&document.key)
                .await
                .ok()
                .flatten()
                .is_some_and(|record| record.blob().is_some());
            if held {
                any_held = true;
                let learnt = self
                    .learn_claim(wanted, document, Effort::Anew)
                    .await
                    .claim();
                claim = claim.or(learnt);
            }
        }
        if any_held {
            claim
        } else {
            self.learn_claim(wanted, documents.first()?, Effort::Anew)
                .await
                .claim()
        }
    }
}

enum Known {
    Claim(StoredClaim),
    NotNamed { fresh: bool },
    NoDocument,
}

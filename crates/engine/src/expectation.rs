//! What a file on its way should be: known already, being looked up, or unknown.

use std::sync::Arc;

use larder_core::{Digest, DigestAlgorithm, PackageType, StoredHeaders};
use tokio::task::JoinHandle;

use crate::admission::Wanted;
use crate::claims::StoredClaim;
use crate::engine::Engine;
use crate::flight::Ready;

/// What is known of a file's claim while it is being fetched.
#[derive(Debug)]
pub(crate) enum Expectation {
    /// Nothing states what it is, or it is a document itself.
    None,
    /// Its path, the upstream's head or a held document states it.
    Known(StoredClaim),
    /// The document that may name it is on its way.
    Pending(JoinHandle<Lookup>),
}

/// What reading a document for one file came to.
#[derive(Debug)]
pub(crate) enum Lookup {
    Claim(StoredClaim),
    /// The document was read and does not name the file.
    NotNamed,
    /// The document could not be read.
    NoDocument {
        /// No answer came, or none that could be understood: another try may help.
        unanswered: bool,
    },
}

impl Lookup {
    fn claim(self) -> Option<StoredClaim> {
        match self {
            Self::Claim(claim) => Some(claim),
            Self::NotNamed | Self::NoDocument { .. } => None,
        }
    }
}

impl Expectation {
    /// A digest that is stated without a document; the file's URL is the usual one.
    fn of_digest(digest: Digest) -> Self {
        Self::Known(StoredClaim { url: String::new(), size: None, published_at: None, digests: vec![digest], identity: None })
    }

    /// Takes up what the upstream's head states, unless more is known already.
    pub(crate) fn learn_from_head(&mut self, headers: &StoredHeaders) {
        if let (Self::None, Some(digest)) = (&self, &headers.digest) {
            *self = Self::of_digest(digest.clone());
        }
    }

    /// The claim, waiting for the document if need be.
    pub(crate) async fn resolve(&mut self, engine: &Arc<Engine>, wanted: &Arc<Wanted>) -> Option<StoredClaim> {
        let claim = match std::mem::replace(self, Self::None) {
            Self::None => None,
            Self::Known(claim) => Some(claim),
            Self::Pending(lookup) => match lookup.await.unwrap_or(Lookup::NotNamed) {
                // The file came, so somebody is there: a breaker may have refused the document, of which an old copy is held.
                Lookup::NoDocument { unanswered: true } => engine.learn_first(wanted).await.claim(),
                lookup => lookup.claim(),
            },
        };
        if let Some(claim) = &claim {
            *self = Self::Known(claim.clone());
        }
        claim
    }

    /// Algorithms worth computing while the body arrives; all that may be needed if it cannot be read again.
    pub(crate) fn algorithms(&self, package: PackageType, can_be_read_again: bool) -> Vec<DigestAlgorithm> {
        use DigestAlgorithm::{Md5, Sha1, Sha384, Sha512};
        match self {
            Self::Known(claim) => {
                let mut algorithms: Vec<_> = claim.digests.iter().map(Digest::algorithm).collect();
                algorithms.dedup();
                algorithms
            }
            Self::Pending(_) if !can_be_read_again => vec![Md5, Sha1, Sha384, Sha512],
            Self::Pending(_) if package == PackageType::Npm => vec![Sha1, Sha512],
            Self::None | Self::Pending(_) => Vec::new(),
        }
    }

    /// Whether a digest is or may be stated.
    pub(crate) fn expects_digest(&self) -> bool {
        match self {
            Self::None => false,
            Self::Known(claim) => claim.stated().is_some(),
            Self::Pending(_) => true,
        }
    }
}

impl Engine {
    /// Starts looking for what a document says of this file.
    pub(crate) async fn expect(self: &Arc<Self>, wanted: &Arc<Wanted>) -> Expectation {
        if let Some(claim) = &wanted.stated {
            return Expectation::Known(StoredClaim::clone(claim));
        }
        if let Some(digest) = wanted.format.digest_in_name(&wanted.spec.key_path) {
            let url = self.url_in_generation(wanted).await;
            return Expectation::Known(StoredClaim {
                url,
                size: None,
                published_at: None,
                digests: vec![digest],
                identity: None,
            });
        }
        let Some(document) = self.naming_documents(wanted).await else { return Expectation::None };
        match self.known_claim(wanted, &document).await {
            Known::Claim(claim) => Expectation::Known(claim),
            Known::NotNamed { fresh: true } => Expectation::None,
            Known::NotNamed { fresh: false } | Known::NoDocument => {
                let (engine, wanted) = (Arc::clone(self), Arc::clone(wanted));
                Expectation::Pending(tokio::spawn(async move { engine.learn_first(&wanted).await }))
            }
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
    async fn named_in_generation(self: &Arc<Self>, wanted: &Arc<Wanted>) -> Option<(Arc<Wanted>, StoredClaim)> {
        let generation = wanted.format.generation(&wanted.spec.key_path).filter(|_| !wanted.spec.is_document)?;
        let document = wanted.spelt_alike(generation.document);
        let document = Arc::new(Wanted::naming_document(&wanted.entry, wanted.format, document));
        let record = self.records.get(&document.key).await.ok()?.filter(|record| record.blob().is_some())?;
        let claim = self.claim_table(&document, &record).await.ok()?.find(&wanted.key.path)?;
        Some((document, claim))
    }

    /// The upstream no longer has a file that the held document of its generation names: the document is out of date. It is
    /// read anew behind the scenes; whoever asks then finds the generation that the upstream has now.
    pub(crate) async fn refresh_generation_of(self: &Arc<Self>, wanted: &Arc<Wanted>) {
        if wanted.stated.is_none()
            && let Some((document, _)) = self.named_in_generation(wanted).await
        {
            tracing::info!(key = %wanted.key, "the upstream has no such file any more; the document that names it is read again");
            self.flight(&document, true);
        }
    }

    /// The documents that may name a file, preferred first: those that are held, with those that are on their way before them; or else
    /// one key per variant in which the one that is asked for may be held.
    async fn naming_documents(&self, wanted: &Arc<Wanted>) -> Option<Vec<Arc<Wanted>>> {
        // What is stated already, or by the name itself, is not for a document to say.
        let stated = wanted.stated.is_some() || wanted.format.digest_in_name(&wanted.spec.key_path).is_some();
        if wanted.spec.is_document || stated {
            return None;
        }
        let repository = &wanted.entry.repository;
        let (mut coming, mut held) = (Vec::new(), Vec::new());
        for spec in wanted.format.possibly_named_by(repository, &wanted.spec.key_path) {
            let document = Wanted::naming_document(&wanted.entry, wanted.format, wanted.spelt_alike(spec));
            if self.flights.running(&document.key).is_some() {
                coming.push(Arc::new(document));
            } else if self.records.get(&document.key).await.ok().flatten().is_some_and(|record| record.blob().is_some()) {
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
                all.push(larder_formats::SourceSpec { variant, ..spec.clone() });
            }
        }
        let make = |spec| Arc::new(Wanted::naming_document(&wanted.entry, wanted.format, spec));
        Some(all.into_iter().map(make).collect())
    }

    /// What a document that is already held says of this file; no upstream contact.
    async fn known_claim(self: &Arc<Self>, wanted: &Arc<Wanted>, documents: &[Arc<Wanted>]) -> Known {
        let mut best = Known::NoDocument;
        for document in documents {
            let Ok(Some(record)) = self.records.get(&document.key).await else { continue };
            if record.blob().is_none() {
                continue;
            }
            let Ok(table) = self.claim_table(document, &record).await else { continue };
            if let Some(claim) = self.claim_in(document, &table, &wanted.key.path).await {
                return Known::Claim(claim);
            }
            let policy = &document.entry.repository.cache;
            let fresh = larder_core::fresh_until(&record, document.class, policy).is_none_or(|until| self.now() < until);
            if fresh || matches!(best, Known::NoDocument) {
                best = Known::NotNamed { fresh };
            }
        }
        match best {
            // What is on its way may name it.
            Known::NotNamed { .. } if documents.first().is_some_and(|first| self.flights.running(&first.key).is_some()) => {
                Known::NotNamed { fresh: false }
            }
            best => best,
        }
    }

    /// The claim of a held document for a file that is itself held, if there is one.
    pub(crate) async fn held_claim(self: &Arc<Self>, wanted: &Arc<Wanted>) -> Option<StoredClaim> {
        let documents = self.naming_documents(wanted).await?;
        match self.known_claim(wanted, &documents).await {
            Known::Claim(claim) => Some(claim),
            Known::NotNamed { .. } | Known::NoDocument => None,
        }
    }

    /// Obtains the document that is asked for first and looks the file up in it.
    async fn learn_first(self: &Arc<Self>, wanted: &Arc<Wanted>) -> Lookup {
        let documents = self.naming_documents(wanted).await;
        let Some([document, ..]) = documents.as_deref() else { return Lookup::NotNamed };
        let lookup = self.learn_claim(wanted, document, false).await;
        if matches!(lookup, Lookup::NoDocument { unanswered: false })
            && let Some(other) = wanted.format.else_named_by(&wanted.entry.repository, &wanted.key.path)
        {
            let other = Arc::new(Wanted::naming_document(&wanted.entry, wanted.format, other));
            return self.learn_claim(wanted, &other, false).await;
        }
        lookup
    }

    /// Obtains the document (afresh, if `refresh`) and looks the file up in it.
    async fn learn_claim(self: &Arc<Self>, wanted: &Arc<Wanted>, document: &Arc<Wanted>, refresh: bool) -> Lookup {
        let flight = self.flight(document, refresh);
        let settled = match flight.ready(true).await {
            Ready::Done(Ok(settled)) => settled,
            Ready::Done(Err(fault)) => {
                let unanswered = matches!(fault.code, "upstream_unreachable" | "upstream_protocol" | "upstream_cut");
                return Lookup::NoDocument { unanswered };
            }
            Ready::Filling(_) => return Lookup::NoDocument { unanswered: false },
        };
        match self.arrived_claims(document, &settled).await {
            Ok(table) => {
                let claim = self.claim_in(document, &table, &wanted.key.path).await;
                claim.map_or(Lookup::NotNamed, Lookup::Claim)
            }
            Err(_) => Lookup::NoDocument { unanswered: false },
        }
    }

    /// After a mismatch: what does the document say now? Every variant that is held is read anew, or they would contradict each other.
    pub(crate) async fn refreshed_claim(self: &Arc<Self>, wanted: &Arc<Wanted>) -> Option<StoredClaim> {
        let documents = self.naming_documents(wanted).await?;
        let mut claim = None;
        let mut any_held = false;
        for document in &documents {
            let held = self.records.get(&document.key).await.ok().flatten().is_some_and(|record| record.blob().is_some());
            if held {
                any_held = true;
                let learnt = self.learn_claim(wanted, document, true).await.claim();
                claim = claim.or(learnt);
            }
        }
        if any_held { claim } else { self.learn_claim(wanted, documents.first()?, true).await.claim() }
    }
}

enum Known {
    Claim(StoredClaim),
    NotNamed { fresh: bool },
    NoDocument,
}

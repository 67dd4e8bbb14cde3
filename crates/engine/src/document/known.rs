//! What the documents that are held say of a file, and what is remembered of its absence. Asks no upstream.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use larder_formats::Naming;

use super::Documents;
use super::expectation::Expectation;
use crate::claim::StoredClaim;
use crate::fault::Remembered;
use crate::policy::admission;
use crate::target::Target;

impl Documents {
    /// What is held says of this file; no upstream contact.
    pub(crate) async fn expect_of_held(self: &Arc<Self>, wanted: &Arc<Target>) -> Expectation {
        if let Some(claim) = &wanted.stated {
            return Expectation::Known(StoredClaim::clone(claim));
        }
        if let Some(digest) = wanted.facts.digest.clone() {
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
            Known::NotNamed { .. } | Known::NotAsked | Known::NoDocument => Expectation::Unasked,
        }
    }

    /// Where the document of the generation that is held says that a file of it is found; empty if it says nothing.
    pub(super) async fn url_in_generation(self: &Arc<Self>, wanted: &Arc<Target>) -> String {
        match self.named_in_generation(wanted).await {
            Some((_, claim)) => claim.url,
            None => String::new(),
        }
    }

    /// The held document of a file's generation and what it says of the file.
    pub(super) async fn named_in_generation(
        self: &Arc<Self>,
        wanted: &Arc<Target>,
    ) -> Option<(Arc<Target>, StoredClaim)> {
        let generation = wanted
            .format
            .generation(&wanted.spec.key_path)
            .filter(|_| !wanted.spec.is_document)?;
        let document = wanted.with_client_encoding(generation.document);
        let document = Arc::new(admission::document(wanted, document)?);
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

    /// The documents that may name a file: one key per variant in which the one that is asked for first may be held, and the others that are
    /// held, with those that are on their way before them. Where the first is one of those that may be held, it is there if nothing is held.
    pub(super) async fn naming_documents(&self, wanted: &Arc<Target>) -> Option<Vec<Arc<Target>>> {
        // What is stated already, or by the name itself, is not for a document to say.
        let stated = wanted.stated.is_some() || wanted.facts.digest.is_some();
        if wanted.spec.is_document || stated || wanted.facts.naming == Naming::Nobody {
            return None;
        }
        let repository = &wanted.entry.repository;
        let (mut coming, mut held) = (Vec::new(), Vec::new());
        let naming = wanted.format.naming(repository, &wanted.spec.key_path);
        let has_preferred = naming.document.as_ref().is_some_and(|document| {
            let mut possible = naming.possible.iter();
            possible.any(|spec| spec.key_path == document.key_path)
        });
        for spec in naming.possible {
            let spec = wanted.with_client_encoding(spec);
            let Some(document) = admission::document(wanted, spec) else {
                continue;
            };
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
        let possible = [coming, held].concat();
        let preferred = naming
            .document
            .filter(|_| possible.is_empty() || !has_preferred)
            .and_then(|document| admission::naming_document(wanted, document));
        let mut documents = Vec::new();
        if let Some(preferred) = preferred {
            let variants = wanted.format.profile().document_variants.iter();
            let others = variants
                .filter(|variant| **variant != preferred.spec.variant)
                .map(|variant| Arc::new(preferred.in_variant(variant)))
                .collect::<Vec<_>>();
            documents.push(Arc::new(preferred));
            documents.extend(others);
        }
        documents.extend(possible);
        (!documents.is_empty()).then_some(documents)
    }

    /// What a document that is already held says of this file; no upstream contact.
    pub(super) async fn known_claim(
        self: &Arc<Self>,
        wanted: &Arc<Target>,
        documents: &[Arc<Target>],
    ) -> Known {
        let mut best = Known::NoDocument;
        let mut is_first_known = false;
        let is_first = |document: &Target| {
            let mut first = documents.iter().take(1);
            first.any(|first| first.spec.key_path == document.spec.key_path)
        };
        for document in documents {
            match self.just_claimed(wanted, document).await {
                Some(Some(claim)) => return Known::Claim(claim),
                Some(None) => {
                    best = Known::NotNamed { fresh: true };
                    is_first_known |= is_first(document);
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
            is_first_known |= is_first(document);
            let policy = &document.entry.repository.cache;
            let fresh = larder_core::fresh_until(&record, document.class, policy)
                .is_none_or(|until| self.now() < until);
            if fresh || matches!(best, Known::NoDocument) {
                best = Known::NotNamed { fresh };
            }
        }
        match best {
            Known::NotNamed { .. } if !is_first_known => Known::NotAsked,
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
    pub(super) async fn just_claimed(
        self: &Arc<Self>,
        wanted: &Arc<Target>,
        document: &Arc<Target>,
    ) -> Option<Option<StoredClaim>> {
        let settled = self.flights.running(&document.key)?.arrived()?;
        let table = self.arrived_claims(document, &settled).await.ok()?;
        Some(self.claim_in(document, &table, &wanted.name()).await)
    }

    pub(super) fn is_coming(&self, document: &Target) -> bool {
        self.flights
            .running(&document.key)
            .is_some_and(|flight| !flight.is_done())
    }

    /// The claim of a held document for a file that is itself held, if there is one.
    pub(crate) async fn held_claim(self: &Arc<Self>, wanted: &Arc<Target>) -> Option<StoredClaim> {
        let documents = self.naming_documents(wanted).await?;
        match self.known_claim(wanted, &documents).await {
            Known::Claim(claim) => Some(claim),
            Known::NotNamed { .. } | Known::NotAsked | Known::NoDocument => None,
        }
    }

    /// What the upstream has said is not there, unless a document that has arrived since then names it.
    pub(crate) async fn absence(self: &Arc<Self>, wanted: &Arc<Target>) -> Option<Remembered> {
        let entry = &wanted.entry;
        let absence = self.catalog.absence(entry, &wanted.key)?;
        let arrivals = entry.arrivals.load(Ordering::Acquire);
        if arrivals != absence.arrivals {
            // Boxed: it is seldom asked, and every flight would carry it.
            if Box::pin(self.is_named_since(wanted)).await {
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

    /// Whether what has arrived in the meantime names a file, or may.
    async fn is_named_since(self: &Arc<Self>, wanted: &Arc<Target>) -> bool {
        // What names a file by its digest may be anything of the repository: the upstream is asked once more.
        if wanted.facts.digest.is_some() && wanted.facts.role.is_none() {
            return true;
        }
        // What clients have been answered with may not be held yet.
        self.catalog.barrier().await;
        self.held_claim(wanted).await.is_some() || self.named_in_generation(wanted).await.is_some()
    }
}

/// What a held document says of a file.
pub(super) enum Known {
    Claim(StoredClaim),
    /// It does not name it; whether it is fresh.
    NotNamed {
        fresh: bool,
    },
    /// It does not name it either, and the one that is asked for first is not held.
    NotAsked,
    NoDocument,
}

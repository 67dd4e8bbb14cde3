//! What documents say of the files they name: a sorted table per document, derived once, looked up by path.
//! No request parses a document to answer a file.

use std::sync::Arc;

use larder_core::{ArtifactRecord, Fault};
use larder_formats::{LinkBase, Links, Releases};
use larder_storage::{Change, DerivedRecord};

use crate::claim::StoredClaim;
use crate::document::Documents;
use crate::document::claim_table::ClaimTable;
use crate::document::claim_tables::Read;
use crate::document::coding::Coding;
use crate::document::load::{DocumentSource, tell};
use crate::document::named::Named;
use crate::fault::malformed;
use crate::policy::admission;
use crate::policy::visibility::Visibility;
use crate::target::Target;
use crate::transfer::flight::Settled;

impl Documents {
    /// The claims of a held document.
    pub(crate) async fn claim_table(
        self: &Arc<Self>,
        wanted: &Arc<Target>,
        record: &Arc<ArtifactRecord>,
    ) -> Result<Arc<ClaimTable>, Fault> {
        self.claims_of(wanted, record, None).await
    }

    /// The claims of a document that has just arrived: its blob may not be in the store yet.
    pub(crate) async fn arrived_claims(
        self: &Arc<Self>,
        wanted: &Arc<Target>,
        settled: &Settled,
    ) -> Result<Arc<ClaimTable>, Fault> {
        self.claims_of(wanted, &settled.record, Some(settled)).await
    }

    async fn claims_of(
        self: &Arc<Self>,
        wanted: &Arc<Target>,
        record: &Arc<ArtifactRecord>,
        arrived: Option<&Settled>,
    ) -> Result<Arc<ClaimTable>, Fault> {
        let base = LinkBase(String::new());
        // Claims are of all that the document names: whoever may not see a file is told so by the judge.
        let all = Visibility::default();
        let named = Named::of_document(wanted, record, &base, "claims", &all, true)?;
        let key = named.key(Coding::Identity);
        let load = async {
            if let Some(table) = self.stored_claims(&key).await {
                return Ok(Ok(table));
            }
            let source = match arrived {
                Some(settled) => DocumentSource::settled(wanted, settled),
                None => self.held_source(wanted, record).await?,
            };
            let read = self.read_claims(source).await?;
            if let Ok(table) = &read {
                self.keep_claims(key.clone(), wanted, record, table);
            }
            Ok::<_, Fault>(read)
        };
        self.claim_tables.0.get_or_insert_async(&key, load).await?
    }

    async fn stored_claims(&self, key: &str) -> Option<Arc<ClaimTable>> {
        let derived = self.catalog.derivation(key).await?;
        let bytes = self.transfers.read_blob(&derived.blob).await.ok()?;
        Some(Arc::new(ClaimTable::from_bytes(bytes)))
    }

    async fn read_claims(self: &Arc<Self>, source: DocumentSource) -> Result<Read, Fault> {
        let engine = Arc::clone(self);
        let (repository, bytes) = (source.repository().clone(), source.length());
        let parsed = self.parse_blocking(&repository, bytes, move || {
            let document = source.load()?;
            let links = engine.links_of(document.wanted());
            // What they weigh in all is bounded by the format's budget.
            let mut claims = Vec::new();
            let read = document
                .wanted()
                .format
                .claims(&document.view(), &links, &mut |claim| claims.push(claim));
            if let Err(error) = read {
                return Ok(Err(malformed(document.wanted(), &error)));
            }
            // Of a document itself this was told when it came.
            if !document.wanted().spec.is_document {
                tell(&document);
            }
            Ok(Ok(Arc::new(ClaimTable::build(claims))))
        });
        parsed.await?
    }

    /// Links of what a document names, without a client that they would be for.
    fn links_of<'t>(&self, wanted: &'t Target) -> Links<'t> {
        let base = LinkBase(String::new());
        Links::new(&wanted.entry.repository, &self.link_key, base)
            .asked_with(wanted.spec.query.as_deref())
    }

    /// What a document says of the versions of `name`; `None` where it does not tell its packages.
    pub(crate) async fn releases(
        self: &Arc<Self>,
        source: DocumentSource,
        name: String,
    ) -> Result<Option<Releases>, Fault> {
        let engine = Arc::clone(self);
        let (repository, bytes) = (source.repository().clone(), source.length());
        let read = self.parse_blocking(&repository, bytes, move || {
            let document = source.load()?;
            let wanted = document.wanted();
            let links = engine.links_of(wanted);
            let releases = wanted.format.releases(&document.view(), &name, &links);
            releases.map_err(|error| malformed(wanted, &error))
        });
        read.await?
    }

    fn keep_claims(
        self: &Arc<Self>,
        key: String,
        wanted: &Arc<Target>,
        record: &Arc<ArtifactRecord>,
        table: &Arc<ClaimTable>,
    ) {
        let Some(source) = record.blob().map(|blob| blob.digest.clone()) else {
            return;
        };
        let (engine, table) = (Arc::clone(self), Arc::clone(table));
        let repository = wanted.entry.repository.name.clone();
        larder_upstream::spawn(async move {
            let bytes = table.bytes().clone();
            let Ok(Some(info)) = engine.transfers.put_bytes(bytes).await else {
                return;
            };
            let derived = DerivedRecord {
                blob: info.descriptor.clone(),
                content_type: "text/tab-separated-values".to_owned(),
                made_at: engine.now(),
            };
            let change = Change::PutDerivation {
                key,
                repository,
                sources: vec![source],
                derived,
                blob: info,
            };
            if let Err(error) = engine.catalog.keep_derivation(change).await {
                tracing::warn!(%error, "a table of claims was not kept");
            }
        });
    }

    /// What a document, or one of the held documents that it names, says of a file.
    pub(crate) async fn claim_in(
        self: &Arc<Self>,
        document: &Arc<Target>,
        table: &ClaimTable,
        path: &str,
    ) -> Option<StoredClaim> {
        if let Some(claim) = table.find(path) {
            return Some(claim);
        }
        // A name in documents is a path with its query: neither is asked for with one where there are sidecars.
        let facts = document.facts_of(path);
        let subject = facts
            .subject(path)
            .filter(|_| !document.format.profile().names_sidecars);
        if let Some((claim, suffix)) =
            subject.and_then(|subject| Some((table.find(subject)?, path.strip_prefix(subject)?)))
        {
            return Some(claim.of_sidecar(suffix));
        }
        let mut found = None;
        for table in self.nested_tables(document, table).await {
            found = found.or_else(|| table.find(path));
        }
        found
    }

    /// The claims of those files that a document names and that name further files, as far as they are held.
    async fn nested_tables(
        self: &Arc<Self>,
        document: &Arc<Target>,
        table: &ClaimTable,
    ) -> Vec<Arc<ClaimTable>> {
        self.nested_claims(document, table, &[]).await
    }

    /// As [`nested_tables`](Self::nested_tables), of a generation some of whose files have arrived and are not held yet.
    pub(crate) async fn nested_claims(
        self: &Arc<Self>,
        document: &Arc<Target>,
        table: &ClaimTable,
        arrived: &[(Arc<Target>, Settled)],
    ) -> Vec<Arc<ClaimTable>> {
        let mut tables = Vec::new();
        for path in names_of_documents(document, table) {
            let arrived = arrived.iter().find(|(file, _)| file.spec.key_path == path);
            if let Some((file, settled)) = arrived {
                tables.extend(self.arrived_claims(file, settled).await.ok());
            } else if let Some((file, record)) = self.held_file(document, path).await {
                tables.extend(self.claim_table(&file, &record).await.ok());
            }
        }
        tables
    }

    /// Those files that a document names and that name further files, as far as they are held.
    pub(crate) async fn nested_documents(
        &self,
        document: &Arc<Target>,
        table: &ClaimTable,
    ) -> Vec<(Arc<Target>, Arc<ArtifactRecord>)> {
        let mut held = Vec::new();
        for path in names_of_documents(document, table) {
            held.extend(self.held_file(document, path).await);
        }
        held
    }

    /// A file of the same repository that a document names, if its bytes are held.
    async fn held_file(
        &self,
        document: &Target,
        path: &str,
    ) -> Option<(Arc<Target>, Arc<ArtifactRecord>)> {
        let file = admission::named_file(&document.entry, document.format, path)?;
        let record = self.catalog.record(&file.key).await.ok().flatten()?;
        let has_bytes = record.blob().is_some();
        has_bytes.then(|| (Arc::new(file), record))
    }

    /// Reads what a new document's files name, before the first client asks for one of them.
    pub(crate) fn read_ahead(
        self: &Arc<Self>,
        document: &Arc<Target>,
        record: &Arc<ArtifactRecord>,
    ) {
        let (engine, document, record) =
            (Arc::clone(self), Arc::clone(document), Arc::clone(record));
        larder_upstream::spawn(async move { engine.named_by_generation(&document, &record).await });
    }

    /// What the files of a held generation name. One that is not what its head states is of another: an import brings them page by page.
    pub(crate) async fn named_by_generation(
        self: &Arc<Self>,
        wanted: &Arc<Target>,
        record: &Arc<ArtifactRecord>,
    ) -> Vec<Arc<ClaimTable>> {
        let Ok(table) = self.claim_table(wanted, record).await else {
            return Vec::new();
        };
        let mut tables = Vec::new();
        for path in names_of_documents(wanted, &table) {
            let Some((file, held)) = self.held_file(wanted, path).await else {
                continue;
            };
            let stated = table.find(path).and_then(|claim| claim.stated());
            let is_another = match stated {
                Some(stated) => self.is_held_otherwise(wanted, &file.key, &stated).await,
                None => false,
            };
            if !is_another {
                tables.extend(self.claim_table(&file, &held).await.ok());
            }
        }
        tables
    }

    /// The claims of a document's predecessor and of its other variants, as far as they are held.
    pub(crate) async fn earlier_claims(
        self: &Arc<Self>,
        wanted: &Arc<Target>,
        old: Option<&Arc<ArtifactRecord>>,
    ) -> Vec<Arc<ClaimTable>> {
        let mut tables = Vec::new();
        if let Some(old) = old.filter(|old| old.blob().is_some()) {
            tables.extend(self.claim_table(wanted, old).await.ok());
        }
        for variant in wanted
            .format
            .profile()
            .document_variants
            .iter()
            .filter(|variant| **variant != wanted.spec.variant)
        {
            let other = Arc::new(wanted.in_variant(variant));
            if let Ok(Some(record)) = self.catalog.record(&other.key).await
                && record.blob().is_some()
            {
                tables.extend(self.claim_table(&other, &record).await.ok());
            }
        }
        tables
    }
}

/// The paths of those files that a document names and that name further files.
fn names_of_documents<'t>(
    document: &Target,
    table: &'t ClaimTable,
) -> impl Iterator<Item = &'t str> {
    // Most name files alone, and so many that nobody looks at all of them in vain.
    let heading = document.heads_generation().then_some(table).into_iter();
    let claims = heading.flat_map(ClaimTable::iter);
    claims.filter_map(|(path, claim)| claim.names_files.then_some(path))
}

//! What documents say of the files they name: a sorted table per document, derived once, looked up by path.
//! No request parses a document to answer a file.

use std::sync::Arc;

use bytes::Bytes;
use larder_core::{
    ArtifactRecord, BlobDescriptor, Digest, Fault, RepresentationInputs, RepresentationKey,
    SourceKey, UnixMillis,
};
use larder_formats::{Claim, Document, LinkBase, Links, Memo};
use larder_storage::{Change, DerivedRecord};
use url::Url;

use crate::admission::Wanted;
use crate::document::{DocumentSource, tell};
use crate::engine::Engine;
use crate::flight::Settled;
use crate::serve::{internal, malformed};

/// What is claimed of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredClaim {
    pub(crate) url: String,
    pub(crate) size: Option<u64>,
    pub(crate) published_at: Option<UnixMillis>,
    /// The bytes have one of these; the weaker ones that a document states of the same bytes are not among them.
    pub(crate) digests: Vec<Digest>,
    /// Or one of these, separated by spaces.
    pub(crate) identity: Option<String>,
}

/// What a document says that a file's bytes are. It may name a file more than once and say different things of it (an index that was
/// not cleaned up after a file was packed anew): any of them will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stated {
    Digests(Vec<Digest>),
    /// What the format's [`Identifier`](larder_formats::Identifier) has to compute of them (ADR 0026).
    Identities(Vec<String>),
}

impl std::fmt::Display for Stated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Digests(digests) => f.write_str(
                &digests
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(" or "),
            ),
            Self::Identities(identities) => f.write_str(&identities.join(" or ")),
        }
    }
}

impl StoredClaim {
    /// A file at its usual place, of which nothing is stated but a digest.
    pub(crate) fn of_digest(digest: Digest) -> Self {
        Self {
            url: String::new(),
            size: None,
            published_at: None,
            digests: vec![digest],
            identity: None,
        }
    }

    /// The sidecar of a file that is claimed: it stands beside the file, and nothing is stated of it.
    fn of_sidecar(self, suffix: &str) -> Self {
        let (path, query) = self
            .url
            .split_at(self.url.find('?').unwrap_or(self.url.len()));
        let url = if path.is_empty() {
            String::new()
        } else {
            format!("{path}{suffix}{query}")
        };
        Self {
            url,
            size: None,
            digests: Vec::new(),
            identity: None,
            ..self
        }
    }

    /// What the bytes are measured by: digests, else identities; `None` if nothing is stated of them.
    pub(crate) fn stated(&self) -> Option<Stated> {
        if !self.digests.is_empty() {
            return Some(Stated::Digests(self.digests.clone()));
        }
        let identities = self.identity.as_ref()?.split(' ').map(str::to_owned);
        Some(Stated::Identities(identities.collect()))
    }
}

/// The digests by which a claim is judged: those of its strongest algorithm.
fn strongest(digests: &mut Vec<Digest>) {
    if let Some(best) = digests.iter().map(Digest::algorithm).max() {
        digests.retain(|digest| digest.algorithm() == best);
    }
}

/// A claim for a path that another claim of the same document names too. The first one says where the file is.
fn merge(first: &mut Claim, later: &mut Claim) {
    for digest in later.digests.drain(..) {
        if !first.digests.contains(&digest) {
            first.digests.push(digest);
        }
    }
    if let Some(identity) = later.identity.take() {
        first.identity = Some(match first.identity.take() {
            Some(known) if known.split(' ').any(|one| one == identity) => known,
            Some(known) => format!("{known} {identity}"),
            None => identity,
        });
    }
    if first.size != later.size {
        first.size = None;
    }
    // Quarantine must not end before that of the newer file would.
    first.published_at = first.published_at.max(later.published_at);
}

/// Lines `path TAB url TAB size TAB published TAB digests`, and `TAB identity` if there is one, sorted by path.
#[derive(Debug)]
pub(crate) struct ClaimTable(Bytes);

impl ClaimTable {
    pub(crate) fn build(mut claims: Vec<Claim>) -> Self {
        claims.retain(|claim| {
            [Some(&claim.path), Some(&claim.url), claim.identity.as_ref()]
                .into_iter()
                .flatten()
                .all(|t| is_clean(t))
        });
        for claim in &mut claims {
            strongest(&mut claim.digests);
        }
        // Stable: of two claims for one path the first in the document says where the file is.
        claims.sort_by(|a, b| a.path.cmp(&b.path));
        claims.dedup_by(|later, first| {
            let same = later.path == first.path;
            if same {
                merge(first, later);
            }
            same
        });
        let mut text = String::with_capacity(claims.len() * 160);
        for claim in claims {
            use std::fmt::Write as _;
            let number = |n: Option<i64>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
            let size = number(claim.size.and_then(|size| i64::try_from(size).ok()));
            let published = number(claim.published_at.map(|at| at.0));
            let digests: Vec<String> = claim.digests.iter().map(ToString::to_string).collect();
            let _ = write!(
                text,
                "{}\t{}\t{size}\t{published}\t{}",
                claim.path,
                claim.url,
                digests.join(" ")
            );
            if let Some(identity) = claim.identity {
                let _ = write!(text, "\t{identity}");
            }
            text.push('\n');
        }
        // What was reserved and not used would be held as long as the table, and not be weighed.
        Self(text.into_boxed_str().into_boxed_bytes().into())
    }

    pub(crate) fn from_bytes(bytes: Bytes) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(&self) -> &Bytes {
        &self.0
    }

    pub(crate) fn find(&self, path: &str) -> Option<StoredClaim> {
        let table = &self.0[..];
        let (mut low, mut high) = (0, table.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let start = table[..middle]
                .iter()
                .rposition(|&b| b == b'\n')
                .map_or(0, |at| at + 1);
            let end = table[start..]
                .iter()
                .position(|&b| b == b'\n')
                .map_or(table.len(), |at| start + at);
            let line = std::str::from_utf8(&table[start..end]).ok()?;
            match line.split('\t').next()?.cmp(path) {
                std::cmp::Ordering::Equal => return parse(line).map(|(_, claim)| claim),
                std::cmp::Ordering::Less => low = end + 1,
                std::cmp::Ordering::Greater => high = start,
            }
        }
        None
    }

    /// All claims, sorted by path.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, StoredClaim)> {
        std::str::from_utf8(&self.0)
            .unwrap_or_default()
            .lines()
            .filter_map(parse)
    }
}

fn is_clean(text: &str) -> bool {
    !text.bytes().any(|b| b.is_ascii_control())
}

fn parse(line: &str) -> Option<(&str, StoredClaim)> {
    let mut fields = line.split('\t');
    let path = fields.next()?;
    let url = fields.next()?.to_owned();
    let size = fields.next()?.parse().ok();
    let published_at = fields.next()?.parse().ok().map(UnixMillis);
    let digests = fields
        .next()?
        .split(' ')
        .filter_map(|text| text.parse().ok())
        .collect();
    let identity = fields.next().map(str::to_owned);
    Some((
        path,
        StoredClaim {
            url,
            size,
            published_at,
            digests,
            identity,
        },
    ))
}

/// A document's bytes with what is needed to read it.
#[derive(Debug)]
pub(crate) struct LoadedDocument {
    body: Vec<u8>,
    content_type: String,
    url: Url,
    wanted: Arc<Wanted>,
    memo: Memo,
}

impl LoadedDocument {
    pub(crate) fn new(
        body: Vec<u8>,
        record: &ArtifactRecord,
        wanted: Arc<Wanted>,
    ) -> Result<Self, Fault> {
        let url = Url::parse(&record.source_url)
            .map_err(|_| internal("a document's URL was not kept"))?;
        Ok(Self {
            body,
            content_type: record.headers.content_type.clone().unwrap_or_default(),
            url,
            wanted,
            memo: Memo::default(),
        })
    }

    pub(crate) fn wanted(&self) -> &Arc<Wanted> {
        &self.wanted
    }

    pub(crate) fn view(&self) -> Document<'_> {
        Document {
            body: &self.body,
            content_type: &self.content_type,
            url: &self.url,
            key_path: &self.wanted.spec.key_path,
            variant: self.wanted.spec.variant,
            memo: Some(&self.memo),
        }
    }
}

/// Key of a derivation of one source document.
pub(crate) fn derivation_key(
    wanted: &Wanted,
    record: &ArtifactRecord,
    link_base: &str,
    form: &str,
    coding: &str,
) -> Option<String> {
    let key = RepresentationKey::new(&RepresentationInputs {
        sources: &[&record.blob()?.digest],
        // The path, too: what a link or a project's name means may depend on where the document is asked for.
        source_urls: &[&record.source_url, &wanted.key.path],
        rewriter_version: wanted.format.rewriter_version(),
        link_base,
        form,
        coding,
        rules_epoch: wanted.entry.repository.rules_epoch,
    });
    Some(key.to_hex())
}

impl Engine {
    /// The claims of a held document.
    pub(crate) async fn claim_table(
        self: &Arc<Self>,
        wanted: &Arc<Wanted>,
        record: &Arc<ArtifactRecord>,
    ) -> Result<Arc<ClaimTable>, Fault> {
        self.claims_of(wanted, record, None).await
    }

    /// The claims of a document that has just arrived: its blob may not be in the store yet.
    pub(crate) async fn arrived_claims(
        self: &Arc<Self>,
        wanted: &Arc<Wanted>,
        settled: &Settled,
    ) -> Result<Arc<ClaimTable>, Fault> {
        self.claims_of(wanted, &settled.record, Some(settled)).await
    }

    async fn claims_of(
        self: &Arc<Self>,
        wanted: &Arc<Wanted>,
        record: &Arc<ArtifactRecord>,
        arrived: Option<&Settled>,
    ) -> Result<Arc<ClaimTable>, Fault> {
        let Some(key) = derivation_key(wanted, record, "", "claims", "identity") else {
            return Err(internal("a document without bytes has no claims"));
        };
        let load = async {
            if let Some(table) = self.stored_claims(&key).await {
                return Ok(table);
            }
            let source = match arrived {
                Some(settled) => Self::settled_source(wanted, settled),
                None => self.held_source(wanted, record)?,
            };
            let table = self.read_claims(source).await?;
            self.keep_claims(key.clone(), wanted, record, &table);
            Ok(table)
        };
        self.claim_tables.0.get_or_insert_async(&key, load).await
    }

    async fn stored_claims(&self, key: &str) -> Option<Arc<ClaimTable>> {
        let derived = self.metadata.derivation(key).await.ok()??;
        let bytes = self.read_blob(&derived.blob).await.ok()?;
        Some(Arc::new(ClaimTable::from_bytes(bytes.into())))
    }

    async fn read_claims(
        self: &Arc<Self>,
        source: DocumentSource,
    ) -> Result<Arc<ClaimTable>, Fault> {
        let engine = Arc::clone(self);
        let parsed = self.parse_blocking(move || {
            let document = source.load()?;
            let repository = Arc::clone(&document.wanted.entry.repository);
            let query = document.wanted.spec.query.as_deref();
            let links = Links::new(&repository, engine.link_key(), LinkBase(String::new()))
                .asked_with(query);
            // What they weigh in all is bounded by the format's budget.
            let mut claims = Vec::new();
            let read = document
                .wanted
                .format
                .claims(&document.view(), &links, &mut |claim| claims.push(claim));
            if let Err(error) = read {
                return Err(malformed(&document.wanted, &error));
            }
            // Of a document itself this was told when it came.
            if !document.wanted.spec.is_document {
                tell(&document);
            }
            Ok(ClaimTable::build(claims))
        });
        parsed.await?.map(Arc::new)
    }

    fn keep_claims(
        self: &Arc<Self>,
        key: String,
        wanted: &Arc<Wanted>,
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
            let Ok(Some(info)) = engine.put_bytes(bytes).await else {
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
            if let Err(error) = engine.metadata.apply(vec![change]).await {
                tracing::warn!(%error, "a table of claims was not kept");
            }
        });
    }

    /// What a document, or one of the held documents that it names, says of a file.
    pub(crate) async fn claim_in(
        self: &Arc<Self>,
        document: &Arc<Wanted>,
        table: &ClaimTable,
        path: &str,
    ) -> Option<StoredClaim> {
        if let Some(claim) = table.find(path) {
            return Some(claim);
        }
        let subject = document
            .format
            .subject(path)
            .filter(|_| !document.format.names_sidecars());
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
        document: &Arc<Wanted>,
        table: &ClaimTable,
    ) -> Vec<Arc<ClaimTable>> {
        self.nested_claims(document, table, &[]).await
    }

    /// As [`nested_tables`](Self::nested_tables), of a generation some of whose files have arrived and are not held yet.
    pub(crate) async fn nested_claims(
        self: &Arc<Self>,
        document: &Arc<Wanted>,
        table: &ClaimTable,
        arrived: &[(Arc<Wanted>, Settled)],
    ) -> Vec<Arc<ClaimTable>> {
        let mut tables = Vec::new();
        if !document.heads_generation() {
            return tables;
        }
        for (path, _) in table
            .iter()
            .filter(|(path, _)| document.format.names_files(path))
        {
            if let Some((file, settled)) =
                arrived.iter().find(|(file, _)| file.spec.key_path == path)
            {
                tables.extend(self.arrived_claims(file, settled).await.ok());
                continue;
            }
            let Some(file) = Self::named_file(&document.entry, document.format, path).map(Arc::new)
            else {
                continue;
            };
            if let Ok(Some(record)) = self.records.get(&file.key).await
                && record.blob().is_some()
            {
                tables.extend(self.claim_table(&file, &record).await.ok());
            }
        }
        tables
    }

    /// Reads what a new document's files name, before the first client asks for one of them.
    pub(crate) fn read_ahead(
        self: &Arc<Self>,
        document: &Arc<Wanted>,
        record: &Arc<ArtifactRecord>,
    ) {
        let (engine, document, record) =
            (Arc::clone(self), Arc::clone(document), Arc::clone(record));
        larder_upstream::spawn(async move { engine.named_by_generation(&document, &record).await });
    }

    /// What the files of a held generation name.
    pub(crate) async fn named_by_generation(
        self: &Arc<Self>,
        wanted: &Arc<Wanted>,
        record: &Arc<ArtifactRecord>,
    ) -> Vec<Arc<ClaimTable>> {
        match self.claim_table(wanted, record).await {
            Ok(table) => self.nested_tables(wanted, &table).await,
            Err(_) => Vec::new(),
        }
    }

    /// The claims of a document's predecessor and of its other variants, as far as they are held.
    pub(crate) async fn earlier_claims(
        self: &Arc<Self>,
        wanted: &Arc<Wanted>,
        old: Option<&Arc<ArtifactRecord>>,
    ) -> Vec<Arc<ClaimTable>> {
        let mut tables = Vec::new();
        if let Some(old) = old.filter(|old| old.blob().is_some()) {
            tables.extend(self.claim_table(wanted, old).await.ok());
        }
        for variant in wanted
            .format
            .document_variants()
            .iter()
            .filter(|variant| **variant != wanted.spec.variant)
        {
            let other = Arc::new(wanted.in_variant(variant));
            if let Ok(Some(record)) = self.records.get(&other.key).await
                && record.blob().is_some()
            {
                tables.extend(self.claim_table(&other, &record).await.ok());
            }
        }
        tables
    }

    /// Whether bytes are held that are not what is stated of them.
    pub(crate) async fn is_held_otherwise(
        &self,
        document: &Wanted,
        key: &SourceKey,
        stated: &Stated,
    ) -> bool {
        let Ok(Some(record)) = self.records.get(key).await else {
            return false;
        };
        let Some(blob) = record.blob() else {
            return false;
        };
        !self.blob_is(document, &key.path, blob, stated).await
    }

    /// Whether the bytes held for a path are what is stated of them.
    pub(crate) async fn blob_is(
        &self,
        wanted: &Wanted,
        path: &str,
        blob: &BlobDescriptor,
        stated: &Stated,
    ) -> bool {
        match stated {
            Stated::Digests(stated) => self.blob_has(blob, stated).await,
            Stated::Identities(stated) => match wanted.format.identifier(path) {
                Some(identifier) => self
                    .identify(blob, identifier)
                    .await
                    .is_ok_and(|all| all.iter().any(|one| stated.contains(one))),
                None => false,
            },
        }
    }

    /// Whether held bytes have one of these digests. They are read once for each algorithm that is not the blob's own.
    async fn blob_has(&self, blob: &BlobDescriptor, stated: &[Digest]) -> bool {
        let mut measured = vec![blob.digest.clone()];
        for digest in stated {
            if !measured
                .iter()
                .any(|known| known.algorithm() == digest.algorithm())
            {
                measured.extend(self.rehash(blob, digest.algorithm()).await.ok());
            }
            if measured.contains(digest) {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests;

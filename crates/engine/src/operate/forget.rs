//! The flush of exactly one path (`DELETE` on a remote's path, docs/adr/0054): what is held under it, whichever form it is in and
//! whichever of the repository's upstreams it came from, what is remembered of its absence, and what cannot live without it. The page of a
//! path shows no queries, and flushes it with all of them.

use std::borrow::Cow;
use std::sync::Arc;

use http::Method;
use larder_core::{ArtifactPath, Fault, SourceKey};
use larder_formats::{Format, Operation, Read, RequestParts, Role};
use larder_storage::{KeyRange, StorageError, Unswept};

use crate::fault::storage_fault;
use crate::keys;
use crate::operate::operator::Operator;
use crate::policy::admission;
use crate::policy::admission::path_fault;
use crate::repositories::RepositoryState;
use crate::target::ArtifactRequest;

/// Rows that are looked at together.
const PAGE: u32 = 500;
/// Redirects to another spelling of a path that are followed.
const SPELLINGS: usize = 3;

/// Which of what is held under a path is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queries {
    /// What has the query of the request, or none as that.
    AsAsked,
    /// Whatever query it has.
    Any,
}

/// What a path names.
enum Named {
    /// Something that is read through the cache.
    Source(Box<Read>),
    /// A link to another host: it is kept under its own path.
    External(SourceKey),
    /// Nothing that is ever kept.
    Nothing,
}

impl Operator {
    /// Forgets what is held under the path of a request; gives whether there was anything. Access rules are not asked: what they no longer
    /// admit can be flushed as well. A download begun before serves its readers and commits nothing.
    pub(crate) async fn forget(
        &self,
        request: &ArtifactRequest<'_>,
        queries: Queries,
    ) -> Result<bool, Fault> {
        let entry = admission::entry(&self.registry, request.repository)?;
        let format = entry.format;
        let (keys, document) = match named(&entry, format, request)? {
            Named::Nothing => return Ok(false),
            Named::External(key) => (vec![key], None),
            Named::Source(read) => {
                let keys = keys_of(&entry, &read);
                let is_document = read.source.is_document;
                (keys, is_document.then_some(read.source.key_path))
            }
        };
        let names = match queries {
            Queries::AsAsked => keys::names_the_same,
            Queries::Any => keys::are_of_one_path,
        };
        let is_meant = |key: &SourceKey| keys.iter().any(|meant| names(meant, key));
        // What has arrived is held, to whoever asks, before its row is written.
        let landing = self.flights.flush(is_meant);
        self.catalog.begin_flush(&entry);
        self.remote.refusals.forget(is_meant);
        // What is being committed at this moment becomes visible first, so that it is found and dropped.
        self.catalog.barrier().await;
        self.note_ages_first(&entry).await?;
        let held = self.held_under(&keys, queries).await;
        let held = held.map_err(|error| storage_fault(&entry, &error))?;
        let held = held.into_iter().filter(is_meant).collect();
        let mut forgotten = landing + self.delete(&entry, held).await?;
        if let Some(document) = document.filter(|_| forgotten > 0) {
            self.doubt_what_it_names(&entry, format, &document).await?;
        }
        self.catalog.forget_absences(|key| {
            let meant = is_meant(key);
            forgotten += usize::from(meant);
            meant
        });
        self.catalog.end_flush(&entry);
        if forgotten > 0 {
            self.catalog.begin_freeing();
            let path = keys.first().map(ToString::to_string).unwrap_or_default();
            tracing::info!(repository = %entry.repository.name, key = path, entries = forgotten, "a path was flushed");
        }
        Ok(forgotten > 0)
    }

    /// The keys of all rows with the paths of these, in all variants, and those behind a question mark if any query will do.
    async fn held_under(
        &self,
        keys: &[SourceKey],
        queries: Queries,
    ) -> Result<Vec<SourceKey>, StorageError> {
        let mut held = Vec::new();
        for meant in keys {
            let of = |path: String, variant: String| SourceKey {
                repository: meant.repository.clone(),
                path: path.into(),
                variant: Cow::Owned(variant),
            };
            let (name, path) = (&meant.repository, &*meant.path);
            let variants = self.catalog.variants(name, path).await?;
            held.extend(variants.into_iter().map(|one| of(path.to_owned(), one)));
            if queries == Queries::AsAsked {
                continue;
            }
            let mut range = KeyRange::of_prefix(&format!("{path}?"));
            loop {
                let page = self
                    .catalog
                    .record_keys(name, &range, PAGE, Unswept::Nothing)
                    .await?;
                let Some(last) = page.last() else { break };
                range = range.behind(last);
                held.extend(page.into_iter().map(|(path, variant)| of(path, variant)));
            }
        }
        Ok(held)
    }

    /// Deletes the rows of these keys; gives their number.
    async fn delete(
        &self,
        entry: &RepositoryState,
        deleted: Vec<SourceKey>,
    ) -> Result<usize, Fault> {
        let count = deleted.len();
        self.catalog
            .delete(deleted)
            .await
            .map_err(|error| storage_fault(entry, &error))?;
        Ok(count)
    }

    /// The document that vouched for these files is gone: they are checked when the next one is read.
    async fn doubt_what_it_names(
        &self,
        entry: &RepositoryState,
        format: &dyn Format,
        document: &str,
    ) -> Result<(), Fault> {
        let (repository, name) = (&entry.repository, &entry.repository.name);
        let is_named = |path: &str| {
            let is_it = |spec: &larder_formats::SourceSpec| spec.key_path == document;
            let naming = format.naming(repository, path);
            naming.document.as_ref().is_some_and(is_it) || naming.possible.iter().any(is_it)
        };
        let mut after = (String::new(), String::new());
        loop {
            let page = self
                .catalog
                .rows(name, Some(&after), PAGE)
                .await
                .map_err(|error| storage_fault(entry, &error))?;
            let Some((path, variant, _)) = page.last() else {
                return Ok(());
            };
            after = (path.clone(), variant.clone());
            let doubted = page.into_iter().filter_map(|(path, variant, record)| {
                let record = record.filter(|record| record.verified && is_named(&path))?;
                Some((
                    SourceKey {
                        repository: name.clone(),
                        path: path.into(),
                        variant: variant.into(),
                    },
                    record,
                ))
            });
            self.catalog
                .doubt(doubted.collect())
                .await
                .map_err(|error| storage_fault(entry, &error))?;
        }
    }
}

/// The keys of what is read, and of what cannot be without it.
fn keys_of(entry: &RepositoryState, read: &Read) -> Vec<SourceKey> {
    let format = entry.format;
    let mut keys = vec![keys::key_of(entry, format, &read.source)];
    // What signs a document says nothing of another one, and is exchanged with it.
    let generation = (read.facts.role == Some(Role::Document))
        .then(|| format.generation(&read.source.key_path))
        .flatten();
    let companions = generation.map(|generation| generation.companions);
    keys.extend(
        companions
            .unwrap_or_default()
            .iter()
            .map(|companion| keys::key_of(entry, format, &companion.source)),
    );
    keys
}

/// What a request's path names, as GET reads it: encoded, folded, and in the spelling that GET is redirected to.
fn named(
    entry: &Arc<RepositoryState>,
    format: &'static dyn Format,
    request: &ArtifactRequest<'_>,
) -> Result<Named, Fault> {
    let (mut raw, mut query) = (
        request.raw_path.to_owned(),
        request.query.map(str::to_owned),
    );
    for _ in 0..SPELLINGS {
        let path = ArtifactPath::parse(&raw, format.profile().path_rules);
        let path = path.map_err(|error| path_fault(error).in_repository(&entry.repository.name))?;
        if format.profile().links_elsewhere && path.as_str().starts_with("_ext/") {
            return Ok(Named::External(keys::key_of_file(entry, path.as_str())));
        }
        let parts = RequestParts {
            repository: &entry.repository,
            method: &Method::GET,
            path: &path,
            query: query.as_deref(),
            headers: request.headers,
            key: &entry.link_key,
        };
        match format.operation(&parts) {
            Operation::Read(read) => {
                return Ok(Named::Source(Box::new(read)));
            }
            Operation::Redirect(to) => {
                let (path, after) = to
                    .split_once('?')
                    .map_or((&*to, None), |(path, query)| (path, Some(query)));
                (raw, query) = (path.to_owned(), after.map(str::to_owned));
            }
            Operation::Answer(_) | Operation::PassThrough(_) | Operation::Refuse(_) => break,
        }
    }
    Ok(Named::Nothing)
}

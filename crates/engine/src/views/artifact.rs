//! One path with all that is known of it: its copies, who else has the same bytes, what names it, and how it is classed.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::{HeaderMap, Method};
use larder_core::{
    ArtifactPath, ArtifactRecord, Content, Fault, Mount, Principal, RepositoryKind, UnixMillis,
};
use larder_formats::{PartOf, SourceSpec};
use larder_storage::{HeldRow, HolderRange, KeyRange, Unswept};
use url::Url;

use super::base::{Views, cached_at, expires, is_virtual, not_held};
use super::package::part_of;
use super::room::Room;
use super::search::SearchHit;
use crate::fault::storage_fault;
use crate::keys;
use crate::operate::storage_unavailable;
use crate::policy::addressed::path_fault;
use crate::policy::admission;
use crate::policy::explain::Explanation;
use crate::repositories::RepositoryState;
use crate::target::ArtifactRequest;

/// Copies of one path that are shown: forms, upstreams, queries.
const MOST_COPIES: u32 = 32;
/// Others with the same bytes that are shown.
const MOST_HOLDERS: usize = 50;
/// Manifests of one image that are asked what they name.
const MOST_MANIFESTS: u32 = 64;
/// Behind a path it sorts in front of everything longer.
const NEXT: char = '\u{1}';

/// What is known of a path.
#[derive(Debug, Clone)]
pub struct ArtifactView {
    /// The repository's name.
    pub repository: String,
    /// Decoded path below it, without a query.
    pub path: String,
    /// What is held of it: one for each form, upstream and query. Not empty.
    pub copies: Vec<HeldCopy>,
    /// There are more.
    pub has_more_copies: bool,
    /// Others that have the bytes of the first copy.
    pub same_bytes: Vec<SearchHit>,
    /// There are more of them.
    pub has_more_same: bool,
    /// The documents that may say what it is.
    pub naming: Vec<Naming>,
    /// Held documents that name it as a part of theirs.
    pub named_by: Vec<String>,
    /// What a held document states of it.
    pub stated: Option<Stated>,
    /// What it is a part of.
    pub part_of: Option<PartOf>,
    /// Whether it was uploaded: nobody else has it.
    pub is_local: bool,
    /// How it is classed, and what quarantine says; `None` where no request asks for it by this path.
    pub explanation: Option<Explanation>,
}

/// Something that is held under a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldCopy {
    /// The upstream's negotiated form, where there are several.
    pub form: String,
    /// Whether a client's query is part of its name. It is not shown: it may be a secret.
    pub has_query: bool,
    /// Whether it is the present upstream's: another one's is served no more.
    pub cached: bool,
    /// What it is: `bytes`, `pointer`, `absent` or `head`.
    pub holds: &'static str,
    /// The path that has the bytes, of a pointer.
    pub points_to: Option<String>,
    /// Bytes.
    pub size: Option<u64>,
    /// SHA-256 of the bytes, in hexadecimal digits.
    pub sha256: Option<String>,
    /// Whether the bytes were compared with a digest that the ecosystem states.
    pub verified: bool,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// The upstream's `ETag`.
    pub etag: Option<String>,
    /// The upstream's `Last-Modified`.
    pub last_modified: Option<String>,
    /// The host that the bytes came from.
    pub host: Option<String>,
    /// When these bytes were fetched or uploaded.
    pub cached_at: UnixMillis,
    /// When the upstream was last heard of it.
    pub contacted_at: UnixMillis,
    /// When it was first seen.
    pub first_seen_at: UnixMillis,
    /// When the upstream is asked again; `None`: never.
    pub fresh_until: Option<UnixMillis>,
    /// When it was last asked for, as far as is known.
    pub used_at: Option<UnixMillis>,
    /// How many answers had its bytes, or a part of them, since it is held or was uploaded, or since larder counts them.
    pub served: u64,
}

/// A document that may say what a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Naming {
    /// Its path.
    pub path: String,
    /// Whether it is held.
    pub is_held: bool,
}

/// What a document states of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stated {
    /// Digests, as `algorithm:hexadecimal digits`.
    pub digests: Vec<String>,
    /// Bytes.
    pub size: Option<u64>,
    /// When it was published.
    pub published_at: Option<UnixMillis>,
}

impl Views {
    /// What is known of a path.
    ///
    /// # Errors
    /// There is no such repository, nothing is held under the path (404), or storage fails.
    pub async fn artifact(&self, repository: &str, path: &str) -> Result<ArtifactView, Fault> {
        let entry = self.entry(repository)?;
        let is_local = entry.repository.kind() == RepositoryKind::Local;
        let nothing = || {
            let name = &entry.repository.name;
            not_held(&entry, format!("{name} holds nothing under this path"))
        };
        if is_virtual(&entry) {
            return Err(nothing());
        }
        let (copies, has_more_copies) = if is_local {
            (self.uploaded(&entry, path).await?, false)
        } else {
            self.copies(&entry, path).await?
        };
        let first = copies.first().ok_or_else(nothing)?;
        let (same_bytes, has_more_same) = match &first.sha256 {
            Some(digits) => self.same_bytes(&entry, path, digits).await?,
            None => (Vec::new(), false),
        };
        let (naming, named_by, stated) = if is_local {
            (Vec::new(), Vec::new(), None)
        } else {
            let naming = self.naming(&entry, path).await?;
            let named_by = self.named_by(&entry, path).await?;
            (naming, named_by, self.stated(&entry, path).await)
        };
        Ok(ArtifactView {
            repository: entry.repository.name.to_string(),
            path: path.to_owned(),
            has_more_copies,
            same_bytes,
            has_more_same,
            part_of: part_of(&entry, path, |index| {
                naming.iter().any(|one| one.is_held && one.path == index)
            }),
            naming,
            named_by,
            stated,
            is_local,
            explanation: self.explanation(&entry, path).await,
            copies,
        })
    }

    async fn uploaded(&self, entry: &RepositoryState, path: &str) -> Result<Vec<HeldCopy>, Fault> {
        let file = self.catalog.local_file(&entry.repository.name, path).await;
        let file = file.map_err(|error| storage_fault(entry, &error))?;
        let usage = self.catalog.upload_usage(&entry.repository.name, path);
        let usage = usage.await.map_err(|error| storage_fault(entry, &error))?;
        Ok(file
            .into_iter()
            .map(|file| HeldCopy {
                form: String::new(),
                has_query: false,
                cached: true,
                holds: "bytes",
                points_to: None,
                size: Some(file.blob.size),
                sha256: Some(file.blob.digest.to_hex()),
                verified: true,
                content_type: file.headers.content_type,
                etag: file.headers.etag,
                last_modified: file.headers.last_modified,
                host: None,
                cached_at: file.uploaded_at,
                contacted_at: file.uploaded_at,
                first_seen_at: file.uploaded_at,
                fresh_until: None,
                used_at: usage.used_at,
                served: usage.served,
            })
            .collect())
    }

    /// What is held under a path, in whichever form and with whichever query, and whether there is more; what has bytes comes first.
    async fn copies(
        &self,
        entry: &RepositoryState,
        path: &str,
    ) -> Result<(Vec<HeldCopy>, bool), Fault> {
        let name = &entry.repository.name;
        let ranges = [
            KeyRange::of_prefix(path),
            KeyRange::of_prefix(&format!("{path}?")),
        ];
        let mut copies = Vec::new();
        let mut has_more = false;
        for range in ranges {
            let rows = self.catalog.held_rows(name, &range, MOST_COPIES).await;
            let rows = rows.map_err(|error| storage_fault(entry, &error))?;
            let own = rows
                .into_iter()
                .filter(|row| keys::path_of(&row.path, &row.variant) == path);
            for row in own {
                let is_known = |(other, _): &(HeldRow, HeldCopy)| {
                    (&other.path, &other.variant) == (&row.path, &row.variant)
                };
                if copies.iter().any(is_known) {
                    continue;
                }
                has_more |= copies.len() >= MOST_COPIES as usize;
                if let Some(copy) = self.copy(entry, path, &row).await?.filter(|_| !has_more) {
                    copies.push((row, copy));
                }
            }
        }
        let mut copies: Vec<HeldCopy> = copies.into_iter().map(|(_, copy)| copy).collect();
        copies.sort_by_key(|copy| (!copy.cached, copy.holds != "bytes", copy.has_query));
        Ok((copies, has_more))
    }

    async fn copy(
        &self,
        entry: &RepositoryState,
        path: &str,
        row: &HeldRow,
    ) -> Result<Option<HeldCopy>, Fault> {
        let Some(record) = &row.record else {
            return Ok(None);
        };
        let usage = self
            .catalog
            .usage(&entry.repository.name, &row.path, &row.variant)
            .await
            .map_err(|error| storage_fault(entry, &error))?;
        let (holds, points_to) = match &record.content {
            Content::Blob(_) => ("bytes", None),
            Content::Pointer(to) => ("pointer", Some(to.clone())),
            Content::Negative { .. } => ("absent", None),
            Content::HeadOnly => ("head", None),
        };
        let ArtifactRecord { headers, .. } = record;
        let host = Url::parse(&record.source_url).ok();
        Ok(Some(HeldCopy {
            form: keys::format_variant(&row.variant).to_owned(),
            has_query: row.path.len() > path.len(),
            cached: keys::is_of_present_upstream(entry, &row.variant),
            holds,
            points_to,
            size: record.blob().map(|blob| blob.size).or(headers.length),
            sha256: record.blob().map(|blob| blob.digest.to_hex()),
            verified: record.verified,
            content_type: headers.content_type.clone(),
            etag: headers.etag.clone(),
            last_modified: headers.last_modified.clone(),
            host: host.and_then(|url| server_of(&url)),
            cached_at: cached_at(record),
            contacted_at: record.contacted_at,
            first_seen_at: record.first_seen_at,
            fresh_until: expires(entry, path, record),
            used_at: usage.used_at,
            served: usage.served,
        }))
    }

    /// Others that have the same bytes, and whether there are more.
    async fn same_bytes(
        &self,
        entry: &RepositoryState,
        path: &str,
        digits: &str,
    ) -> Result<(Vec<SearchHit>, bool), Fault> {
        let range = HolderRange {
            digits,
            ..HolderRange::default()
        };
        let holders = self.catalog.blob_holders(range, MOST_HOLDERS as u32).await;
        let holders = holders.map_err(|error| storage_unavailable(&error))?;
        let mut has_more = holders.len() >= MOST_HOLDERS;
        let (mut hits, mut seen) = (Vec::new(), BTreeSet::new());
        let mut room = Room::new(MOST_HOLDERS, path.matches('/').count());
        for holder in holders {
            if room.is_full() {
                has_more = true;
                break;
            }
            let Some(hit) = self.holder(&holder).await? else {
                continue;
            };
            let is_own = hit.repository == entry.repository.name.as_str() && hit.path == path;
            if !is_own && seen.insert((hit.repository.clone(), hit.path.clone())) {
                room.take(1, &[&hit.path]);
                hits.push(hit);
            }
        }
        Ok((hits, has_more))
    }

    /// The documents that may name a path, likeliest first.
    async fn naming(&self, entry: &RepositoryState, path: &str) -> Result<Vec<Naming>, Fault> {
        let naming = entry.format.naming(&entry.repository, path);
        let documents = naming.document.into_iter().chain(naming.otherwise);
        let mut found: Vec<Naming> = Vec::new();
        for SourceSpec { key_path, .. } in documents.chain(naming.possible) {
            if key_path == path || found.iter().any(|known| known.path == key_path) {
                continue;
            }
            let is_held = self.is_any_held(entry, &key_path).await?;
            found.push(Naming {
                path: key_path,
                is_held,
            });
        }
        // Where a path does not tell, there are many that it might be.
        let is_any_held = found.iter().any(|naming| naming.is_held);
        let first = found.first().map(|naming| naming.path.clone());
        found.retain(|naming| {
            naming.is_held || (!is_any_held && Some(&naming.path) == first.as_ref())
        });
        Ok(found)
    }

    /// Whether something is held under a path.
    async fn is_any_held(&self, entry: &RepositoryState, path: &str) -> Result<bool, Fault> {
        Ok(!self.records_at(entry, path).await?.is_empty())
    }

    /// The records of the present upstream under a path that hold something, in all forms.
    pub(super) async fn records_at(
        &self,
        entry: &RepositoryState,
        path: &str,
    ) -> Result<Vec<ArtifactRecord>, Fault> {
        let name = &entry.repository.name;
        let range = KeyRange::of_prefix(path).at(&(path.to_owned(), String::new()));
        let rows = self.catalog.held_rows(name, &range, MOST_COPIES).await;
        let rows = rows.map_err(|error| storage_fault(entry, &error))?;
        let own = rows
            .into_iter()
            .filter(|row| row.path == path && keys::is_of_present_upstream(entry, &row.variant));
        Ok(own
            .filter_map(|row| row.record)
            .filter(ArtifactRecord::has_body)
            .collect())
    }

    /// The held manifests of the same image that name a path.
    async fn named_by(
        &self,
        entry: &Arc<RepositoryState>,
        path: &str,
    ) -> Result<Vec<String>, Fault> {
        let Some(PartOf::Image { name, .. }) = entry.format.part_of(path) else {
            return Ok(Vec::new());
        };
        let Some(folder) = entry.format.manifests_of(&name) else {
            return Ok(Vec::new());
        };
        let keys = self
            .catalog
            .record_keys(
                &entry.repository.name,
                &KeyRange::of_prefix(&folder),
                MOST_MANIFESTS,
                Unswept::Nothing,
            )
            .await
            .map_err(|error| storage_fault(entry, &error))?;
        let mut found = Vec::new();
        let paths: BTreeSet<String> = keys.into_iter().map(|(path, _)| path).collect();
        for manifest in paths {
            let Some(target) = admission::named_file(entry, entry.format, &manifest) else {
                continue;
            };
            let target = Arc::new(target);
            let Some(record) = self.record(&target).await? else {
                continue;
            };
            if record.blob().is_some()
                && let Ok(table) = self.documents.claim_table(&target, &record).await
                && table.find(path).is_some()
            {
                found.push(manifest);
            }
        }
        Ok(found)
    }

    /// What a held document states of a path.
    async fn stated(&self, entry: &Arc<RepositoryState>, path: &str) -> Option<Stated> {
        let target = admission::named_file(entry, entry.format, path)?;
        let claim = self.documents.held_claim(&Arc::new(target)).await?;
        Some(Stated {
            digests: claim.digests.iter().map(ToString::to_string).collect(),
            size: claim.size,
            published_at: claim.published_at,
        })
    }

    /// How a request for a path would be seen; `None` if none asks for it by this path.
    async fn explanation(&self, entry: &RepositoryState, path: &str) -> Option<Explanation> {
        let path = ArtifactPath::from_decoded(path).map_err(path_fault).ok()?;
        let name = entry.repository.name.as_str();
        let headers = HeaderMap::new();
        let request = ArtifactRequest {
            repository: name,
            raw_path: path.encoded(),
            query: None,
            method: &Method::GET,
            headers: &headers,
            principal: Principal::Anonymous,
            mount: Mount::api("", entry.repository.kind(), name),
            body: bytes::Bytes::new(),
        };
        self.explainer.explain(&request).await.ok()
    }

    /// The paths behind a prefix whose records are held, each once; behind `after`, if that is given, and whether there are more.
    pub(super) async fn held_paths(
        &self,
        entry: &RepositoryState,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<(String, ArtifactRecord)>, bool), Fault> {
        let name = &entry.repository.name;
        let mut range = KeyRange::of_prefix(prefix);
        if let Some(after) = after {
            range = range.at(&(format!("{after}{NEXT}"), String::new()));
        }
        let mut found: Vec<(String, ArtifactRecord)> = Vec::new();
        loop {
            let rows = self.catalog.held_rows(name, &range, MOST_MANIFESTS).await;
            let rows = rows.map_err(|error| storage_fault(entry, &error))?;
            let is_last = (rows.len() as u32) < MOST_MANIFESTS;
            for row in rows {
                range = range.behind(&(row.path.clone(), row.variant.clone()));
                let record = row.record.filter(ArtifactRecord::has_body);
                let is_new = found.last().is_none_or(|(path, _)| *path != row.path);
                if let Some(record) = record.filter(|_| is_new) {
                    if found.len() >= limit {
                        return Ok((found, true));
                    }
                    found.push((row.path, record));
                }
            }
            if is_last {
                return Ok((found, false));
            }
        }
    }
}

/// The host and port of an address.
fn server_of(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    })
}

//! Rows of a remote: records again, with the keys and places that they have here. Whether they are what documents state of them is seen
//! when they are read: the document that vouched for them may be older than the one that is held here.

use std::collections::BTreeMap;
use std::sync::Arc;

use larder_core::{ArtifactPath, Digest, Fault, SafeUrl, SourceKey, fold_segments, fresh_until};
use larder_storage::BlobInfo;

use super::places::found_at;
use super::{Archive, ArchiveRow, ArchiveTaken};
use crate::catalog::Carried;
use crate::keys;
use crate::operate::ages::age_of;
use crate::origin::remote::Identified;
use crate::policy::admission;
use crate::repositories::RepositoryState;
use crate::target::Target;

/// What of an archive is left out, and why.
type LeftOut = (String, &'static str);

impl Archive {
    pub(super) async fn take_records(
        &self,
        entry: &Arc<RepositoryState>,
        rows: Vec<ArchiveRow>,
        blobs: &BTreeMap<Digest, BlobInfo>,
    ) -> Result<ArchiveTaken, Fault> {
        let mut taken = ArchiveTaken::default();
        let mut carried = Vec::with_capacity(rows.len());
        for row in rows {
            match self.identified(entry, row, blobs) {
                Ok(one) => carried.extend(one),
                Err((path, why)) => taken.leave(path, why),
            }
        }
        let came = self.remote.carry_in(entry, carried).await;
        let came = came.map_err(|error| self.storage_error(&error))?;
        (taken.written, taken.kept) = (came.written, came.kept);
        for key in came.no_room {
            let why = "there is no room for it (max_disk, limits.disk)";
            taken.leave(key.path.to_string(), why);
        }
        Ok(taken)
    }

    /// The record of a row; `None` if it has none.
    fn identified(
        &self,
        entry: &Arc<RepositoryState>,
        row: ArchiveRow,
        blobs: &BTreeMap<Digest, BlobInfo>,
    ) -> Result<Option<Identified>, LeftOut> {
        let blob = row.blob().and_then(|blob| blobs.get(&blob.digest)).cloned();
        let key = self.key_of(entry, &row)?;
        let Some(mut record) = row.record else {
            return Ok(None);
        };
        let target = target_of(entry, &key);
        if row.link.is_none() {
            let what = (&key, target.as_ref());
            let found = (row.below.as_deref(), &record);
            record.source_url = found_at(entry, what, row.of_index, found);
        }
        record.verified &= target
            .as_ref()
            .is_some_and(|target| target.spec.is_document);
        let class = entry.class_of_held(keys::path_of(&key.path, &key.variant), &record);
        let expires = class
            .filter(|_| blob.is_some())
            .and_then(|class| fresh_until(&record, class, &entry.repository.cache));
        let age = age_of(entry, &key.path, &key.variant, &record);
        let carried = Carried {
            key,
            record,
            blob,
            expires,
            age,
        };
        Ok(Some((target.map(Arc::new), carried)))
    }

    /// The key that a row has here.
    fn key_of(&self, entry: &RepositoryState, row: &ArchiveRow) -> Result<SourceKey, LeftOut> {
        let path = match &row.link {
            None if may_be_asked_for(entry, keys::path_of(&row.path, &row.form)) => {
                row.path.clone()
            }
            None => return Err((row.path.clone(), "no request can have this path")),
            Some(link) => {
                let Some(signed) = self.links(entry).sign(&link.url) else {
                    let why =
                        "the configuration does not let this repository carry links to that host";
                    return Err((SafeUrl(link.url.clone()).to_string(), why));
                };
                format!("{signed}{}", link.suffix)
            }
        };
        let origin = &entry.origins[usize::from(row.of_index)];
        Ok(SourceKey {
            repository: entry.repository.name.clone(),
            path: path.into(),
            variant: keys::with_origin(&row.form, origin).into(),
        })
    }
}

/// Whether a request for a file or document of this repository can come to have this path.
fn may_be_asked_for(entry: &RepositoryState, path: &str) -> bool {
    let is_root_kept = entry.format.profile().passes_folders_on;
    ArtifactPath::from_decoded(path).is_ok_and(|parsed| is_root_kept || !parsed.is_root())
        && fold_segments(path) == path
        && !keys::is_link(entry, path)
}

/// What a key is of, if the rules admit that.
fn target_of(entry: &Arc<RepositoryState>, key: &SourceKey) -> Option<Target> {
    let path = keys::path_of(&key.path, &key.variant);
    let usual = admission::named_file(entry, entry.format, path)?;
    if usual.key == *key {
        return Some(usual);
    }
    let forms = entry.format.profile().document_variants.iter();
    let mut forms = forms.map(|form| usual.in_variant(form));
    forms.find(|target| target.key == *key)
}

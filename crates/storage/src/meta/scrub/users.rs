//! Who refers to a blob that is not what it should be, and what is done about it.

use std::collections::BTreeMap;
use std::sync::Arc;

use larder_core::{BlobDescriptor, Digest, RepositoryName};

use super::failed;
use crate::blob::{BlobStore, Flaw};
use crate::error::StorageError;
use crate::meta::feed::{Notice, Writer};
use crate::meta::invalid::RecordKey;
use crate::meta::{Change, MetadataStore};

/// Of one blob so many names are told and seen to; what has more is looked at again by the next scrub.
const MOST: i64 = 10_000;

const RECORDS: &str = "SELECT repository, path, variant FROM artifacts WHERE blob = $1 LIMIT $2";
const FILES: &str = "SELECT repository, path FROM local_files WHERE blob = $1 LIMIT $2";
const DERIVED: &str = "SELECT repository, derivation FROM derivations WHERE blob = $1 LIMIT $2";

/// Who refers to a blob.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlobUsers {
    /// Records of what was fetched, by repository.
    pub records: BTreeMap<String, Vec<RecordKey>>,
    /// Uploaded files: repository and path.
    pub files: Vec<(String, String)>,
    /// Derived documents: repository and representation key.
    pub derived: Vec<(String, String)>,
}

impl BlobUsers {
    /// Whether nobody does.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.files.is_empty() && self.derived.is_empty()
    }
}

/// A blob that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedBlob {
    /// Which, with the length that it should have.
    pub blob: BlobDescriptor,
    /// What is wrong with it.
    pub flaw: Flaw,
    /// Who refers to it.
    pub users: BlobUsers,
}

impl MetadataStore {
    /// Who refers to a blob, as far as there are no more than a few thousand.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn users_of_blob(&self, digest: &Digest) -> Result<BlobUsers, StorageError> {
        let found = async {
            let mut users = BlobUsers::default();
            let values = || [digest.to_string().into(), MOST.into()];
            let db = self.db().patiently();
            for row in db.all(RECORDS, &values()).await? {
                let key = (row.get(1)?, row.get(2)?);
                users.records.entry(row.get(0)?).or_default().push(key);
            }
            for row in db.all(FILES, &values()).await? {
                users.files.push((row.get(0)?, row.get(1)?));
            }
            for row in db.all(DERIVED, &values()).await? {
                users.derived.push((row.get(0)?, row.get(1)?));
            }
            users.records.values_mut().for_each(|keys| keys.sort());
            users.files.sort();
            users.derived.sort();
            Ok(users)
        };
        found.await.map_err(failed)
    }

    /// Forgets what refers to a damaged blob and can be made or fetched again. Uploaded files stay as they are; but the blob's bytes are
    /// replaced as soon as somebody publishes the right ones here. Where nothing else refers to it, the file is due; `at_once`, or where
    /// other processes use the database, which know nothing of the doubt: it goes before this returns.
    ///
    /// # Errors
    /// The database or the blob store fails; what was forgotten stays so.
    pub async fn forget_damaged(
        &self,
        writer: Writer,
        damaged: &DamagedBlob,
        blobs: &Arc<dyn BlobStore>,
        at_once: bool,
    ) -> Result<(), StorageError> {
        let DamagedBlob { blob, users, .. } = damaged;
        // First of all, so that whoever publishes these bytes at this moment replaces what is there.
        blobs.doubt(&blob.digest);
        let (mut changes, mut notices) = (Vec::new(), Vec::new());
        let mut others: Vec<&str> = users.derived.iter().map(|(name, _)| &**name).collect();
        others.extend(users.files.iter().map(|(name, _)| &**name));
        for (repository, keys) in &users.records {
            let Ok(repository) = RepositoryName::parse(repository) else {
                continue;
            };
            notices.push(Notice::Superseded(repository.clone()));
            changes.push(Change::DeleteRecords {
                repository,
                keys: keys.clone(),
            });
        }
        for name in others {
            notices.extend(RepositoryName::parse(name).map(Notice::Superseded));
        }
        let derived = users.derived.iter();
        changes.extend(derived.map(|(_, key)| Change::DeleteDerivation { key: key.clone() }));
        self.apply_by(writer, changes, notices).await?;
        if users.files.is_empty() && (at_once || !self.db().is_file()) {
            self.collect_blob(blob, blobs).await?;
        }
        Ok(())
    }
}

//! Whether held bytes are what is stated of them.

use std::fs::File;
use std::sync::Arc;

use larder_core::{BlobDescriptor, Digest, SourceKey};
use larder_formats::Identifier;
use larder_storage::{Body, StorageError};

use crate::claim::Stated;
use crate::document::Documents;
use crate::target::Target;
use crate::transfer::files::measure;

impl Documents {
    /// Whether bytes are held that are not what is stated of them.
    pub(crate) async fn is_held_otherwise(
        &self,
        document: &Target,
        key: &SourceKey,
        stated: &Stated,
    ) -> bool {
        let Ok(Some(record)) = self.catalog.record(key).await else {
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
        wanted: &Target,
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
                measured.extend(self.transfers.rehash(blob, digest.algorithm()).await.ok());
            }
            if measured.contains(digest) {
                return true;
            }
        }
        false
    }

    /// The identities of a file's bytes, as the format computes them.
    pub(crate) async fn identify_file(
        &self,
        file: Arc<File>,
        length: u64,
        identifier: Box<dyn Identifier>,
    ) -> Result<Vec<String>, StorageError> {
        identify_body(Body::file(file, length), identifier).await
    }

    pub(crate) async fn identify(
        &self,
        blob: &BlobDescriptor,
        identifier: Box<dyn Identifier>,
    ) -> Result<Vec<String>, StorageError> {
        identify_body(self.blobs.open(blob).await?, identifier).await
    }
}

async fn identify_body(
    body: Body,
    mut identifier: Box<dyn Identifier>,
) -> Result<Vec<String>, StorageError> {
    measure(body, move |chunks| {
        chunks(&mut |chunk| identifier.update(chunk))?;
        Ok(identifier.finish())
    })
    .await
}

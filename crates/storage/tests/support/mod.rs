//! Samples for the tests of this crate.
#![expect(dead_code, reason = "every test file uses a part of it")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "called from tests only")]

pub(crate) mod place;

use std::io::Read as _;
use std::sync::Arc;

use larder_core::{
    ArtifactRecord, BlobDescriptor, Content, Hasher, RepositoryName, SourceKey, StoredHeaders,
    UnixMillis,
};
use larder_storage::{BlobInfo, BlobStore, Change, MetadataStore};

pub(crate) fn repository(name: &str) -> RepositoryName {
    RepositoryName::parse(name).unwrap()
}

pub(crate) fn key(repo: &str, path: &str) -> SourceKey {
    SourceKey {
        repository: repository(repo),
        path: path.into(),
        variant: "".into(),
    }
}

pub(crate) fn record(content: Content) -> ArtifactRecord {
    ArtifactRecord {
        content,
        headers: StoredHeaders {
            etag: Some("W/\"x\"".to_owned()),
            ..StoredHeaders::default()
        },
        source_url: "https://example.com/file".to_owned(),
        published_at: None,
        first_seen_at: UnixMillis(1),
        contacted_at: UnixMillis(2),
        fresh_since: UnixMillis(3),
        served_since: UnixMillis(4),
        verified: true,
    }
}

/// The change that records a blob just published.
pub(crate) fn put(key: &SourceKey, info: BlobInfo) -> Change {
    let record = record(Content::Blob(info.descriptor.clone()));
    Change::PutRecord {
        key: key.clone(),
        record,
        blob: Some(info),
    }
}

/// Publishes `bytes` and records them.
pub(crate) async fn store(
    meta: &MetadataStore,
    blobs: &Arc<dyn BlobStore>,
    key: &SourceKey,
    bytes: &[u8],
) -> BlobDescriptor {
    let info = blobs.put_bytes(bytes).await.unwrap();
    let blob = info.descriptor.clone();
    meta.apply(vec![put(key, info)]).await.unwrap();
    blob
}

pub(crate) async fn read(blobs: &dyn BlobStore, blob: &BlobDescriptor) -> Vec<u8> {
    let open = blobs.open(blob).await;
    let open = open.unwrap_or_else(|error| panic!("{error}"));
    open.read(blob.size).await.unwrap().to_vec()
}

/// Whether a blob opens and hashes to its own name.
pub(crate) async fn is_intact(blobs: &dyn BlobStore, blob: &BlobDescriptor) -> bool {
    let mut hasher = Hasher::new(&[]);
    hasher.update(&read(blobs, blob).await);
    hasher.finish_sha256() == blob.digest
}

/// All records of a repository, page by page.
pub(crate) async fn all(meta: &MetadataStore, repo: &str) -> Vec<(String, String, ArtifactRecord)> {
    let mut all = Vec::new();
    loop {
        let after = all
            .last()
            .map(|(path, variant, _): &(String, String, _)| (path.clone(), variant.clone()));
        let page = meta
            .page(&repository(repo), after.as_ref(), 100)
            .await
            .unwrap();
        let finished = page.len() < 100;
        all.extend(page);
        if finished {
            return all;
        }
    }
}

/// Random enough to spread kills over time.
pub(crate) fn random() -> u64 {
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")
        .unwrap()
        .read_exact(&mut bytes)
        .unwrap();
    u64::from_le_bytes(bytes)
}

/// A directory in memory if possible: for tests of the order of many acts, which a disk's speed would only make slower.
pub(crate) fn fast_directory() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    }
    .unwrap()
}

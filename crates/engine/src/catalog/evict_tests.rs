//! Room that is made in a store that takes its time to delete.

use std::time::Duration;

use futures_util::future::BoxFuture;
use larder_core::{ArtifactRecord, BlobDescriptor, Content, Digest, StoredHeaders, SystemClock};
use larder_storage::{
    BlobInfo, BlobStore, FsBlobStore, MetadataStore, Opening, SealedSpool, Space, Spool, StoredBlob,
};

use super::*;
use crate::budget::Budgets;
use crate::counters::Counters;

/// How long it takes to delete some files.
const PAUSE: Duration = Duration::from_millis(500);
const FILE: u64 = 1_000;

/// Files that are deleted slowly, as objects far away are.
#[derive(Debug)]
struct Slow(FsBlobStore);

impl BlobStore for Slow {
    fn spool(&self) -> Result<Spool, StorageError> {
        self.0.spool()
    }

    fn open<'a>(&'a self, blob: &'a BlobDescriptor) -> Opening<'a> {
        self.0.open(blob)
    }

    fn publish(
        &self,
        batch: Vec<SealedSpool>,
    ) -> BoxFuture<'static, Vec<Result<BlobInfo, StorageError>>> {
        self.0.publish(batch)
    }

    fn delete<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<bool, StorageError>> {
        self.0.delete(digest)
    }

    fn delete_all(
        &self,
        digests: Vec<Digest>,
        until: Instant,
    ) -> BoxFuture<'_, Vec<Option<Result<bool, StorageError>>>> {
        Box::pin(async move {
            tokio::time::sleep(PAUSE).await;
            self.0.delete_all(digests, until).await
        })
    }

    fn free_space(&self) -> Result<Space, StorageError> {
        self.0.free_space()
    }

    fn list<'a>(
        &'a self,
        after: Option<&'a Digest>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<StoredBlob>, StorageError>> {
        self.0.list(after, limit)
    }
}

fn repository() -> RepositoryName {
    RepositoryName::parse("r").unwrap()
}

async fn keep(catalog: &Catalog, number: u32) {
    let bytes = number.to_le_bytes().repeat(FILE as usize / 4);
    let info = catalog.blobs.put_bytes(&bytes).await.unwrap();
    let now = catalog.now();
    let record = ArtifactRecord {
        content: Content::Blob(info.descriptor.clone()),
        headers: StoredHeaders::default(),
        source_url: "https://example.com/file".to_owned(),
        published_at: None,
        first_seen_at: now,
        contacted_at: now,
        fresh_since: now,
        served_since: now,
        verified: true,
    };
    let key = larder_core::SourceKey {
        repository: repository(),
        path: number.to_string().into(),
        variant: "".into(),
    };
    let put = Change::PutRecord {
        key,
        record,
        blob: Some(info),
    };
    catalog.metadata.apply(vec![put]).await.unwrap();
}

/// All that is to go takes ten seconds; what is brought meanwhile waits a part of that, and is kept as soon as there is room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_who_brings_something_waits_until_all_that_is_to_go_has_gone() {
    const FILES: u32 = 1_000;
    let directory = tempfile::tempdir().unwrap();
    let files = FsBlobStore::open(directory.path()).unwrap();
    let database = directory.path().join("db");
    let catalog = Catalog::new(
        MetadataStore::open(&database).await.unwrap(),
        Arc::new(Slow(files)),
        Arc::new(SystemClock),
        Arc::new(Counters::default()),
        Arc::new(Budgets::default()),
    );
    for number in 0..FILES {
        keep(&catalog, number).await;
    }
    catalog.bound(Some(5 * FILE), Vec::new());
    let kept = async || catalog.metadata.cached_bytes().await.unwrap();
    let coming = [(repository(), FILE)];
    let since = Instant::now();
    assert_eq!(catalog.make_room_for(&coming).await, [false]);
    let took = since.elapsed();
    let left = kept().await;
    assert!(
        left > 200 * FILE && left < u64::from(FILES) * FILE,
        "{left} bytes are left after {took:?}"
    );
    // The rest goes behind the scenes, and who comes meanwhile is not kept waiting for it.
    let behind = Arc::clone(&catalog);
    let behind = tokio::spawn(async move { behind.see_to_bounds().await });
    tokio::time::sleep(PAUSE).await;
    let since = Instant::now();
    assert_eq!(catalog.make_room_for(&coming).await, [false]);
    assert!(!behind.is_finished(), "{:?}", since.elapsed());
    behind.await.unwrap();
    assert!(kept().await <= 5 * FILE);
    assert_eq!(catalog.make_room_for(&coming).await, [true]);
}

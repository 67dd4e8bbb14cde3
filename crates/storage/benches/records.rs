//! What it costs to keep a record and to read it back, beside JSON, which earlier versions wrote: `cargo bench -p larder-storage`.

#![expect(
    clippy::unwrap_used,
    reason = "a benchmark may stop at what must not happen"
)]

use larder_core::{
    ArtifactRecord, BlobDescriptor, Content, RepositoryName, SourceKey, StoredHeaders, UnixMillis,
    sha256,
};
use larder_storage::{Change, MetadataStore};

fn main() {
    let record = sample();
    let json = serde_json::to_string(&record).unwrap();
    println!(
        "a wheel's record: {} bytes, {} as JSON, {} in memory",
        record.to_stored().len(),
        json.len(),
        record.weight()
    );
    divan::main();
}

/// As it is kept of a wheel of PyPI.
fn sample() -> ArtifactRecord {
    ArtifactRecord {
        content: Content::Blob(BlobDescriptor {
            digest: sha256(b"a wheel"),
            size: 10_240,
        }),
        headers: StoredHeaders {
            content_type: Some("application/octet-stream".into()),
            etag: Some("\"6c1b8f2e3d4a5b6c7d8e9f0a1b2c3d4e\"".into()),
            last_modified: Some("Sun, 06 Nov 1994 08:49:37 GMT".into()),
            ..StoredHeaders::default()
        },
        source_url: "https://example.com/packages/12/34/56789/a_wheel-1.2.3-py3-none-any.whl"
            .into(),
        published_at: Some(UnixMillis(784_111_777_000)),
        first_seen_at: UnixMillis(1_800_000_000_000),
        contacted_at: UnixMillis(1_800_000_360_000),
        fresh_since: UnixMillis(1_800_000_360_000),
        served_since: UnixMillis(1_800_000_000_123),
        verified: true,
    }
}

#[divan::bench]
fn write_compact(bencher: divan::Bencher<'_, '_>) {
    let record = sample();
    bencher.bench(|| record.to_stored());
}

#[divan::bench]
fn write_json(bencher: divan::Bencher<'_, '_>) {
    let record = sample();
    bencher.bench(|| serde_json::to_string(&record).unwrap());
}

#[divan::bench]
fn read_compact(bencher: divan::Bencher<'_, '_>) {
    let stored = sample().to_stored();
    bencher.bench(|| ArtifactRecord::from_stored(divan::black_box(&stored)).unwrap());
}

#[divan::bench]
fn read_json(bencher: divan::Bencher<'_, '_>) {
    let stored = serde_json::to_string(&sample()).unwrap();
    bencher.bench(|| serde_json::from_str::<ArtifactRecord>(divan::black_box(&stored)).unwrap());
}

/// The whole way from the database, which is the same for both but for the last step.
#[divan::bench]
fn read_from_the_database(bencher: divan::Bencher<'_, '_>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let key = SourceKey {
        repository: RepositoryName::parse("pypi").unwrap(),
        path: "packages/a_wheel-1.2.3-py3-none-any.whl".into(),
        variant: "".into(),
    };
    let store = runtime.block_on(async {
        let store = MetadataStore::in_memory().await.unwrap();
        let record = ArtifactRecord {
            content: Content::HeadOnly,
            ..sample()
        };
        let put = Change::PutRecord {
            key: key.clone(),
            record,
            blob: None,
        };
        store.apply(vec![put]).await.unwrap();
        store
    });
    bencher.bench_local(|| runtime.block_on(store.record(&key)).unwrap().unwrap());
}

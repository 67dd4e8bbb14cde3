//! Two stores over one database file, as two processes have them: what one commits, the other hears of.
#![expect(
    clippy::unwrap_used,
    reason = "a test program: its helpers panic to report"
)]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_core::Content;
use larder_storage::{
    Bell, Change, Heard, Listener, MetadataStore, Notice, Notices, RedisAddress, RedisShared,
    Shared, Writer,
};
use larder_testkit::servers::RedisServer;

use support::{fast_directory, key, record};

/// How often a listener looks without being told.
const INTERVAL: Duration = Duration::from_secs(2);

struct Replica {
    store: MetadataStore,
    writer: Writer,
    listener: Listener,
    bell: Bell,
    shared: Arc<dyn Shared>,
    _notices: Notices,
}

impl Replica {
    async fn new(path: &std::path::Path, redis: &RedisServer) -> Self {
        let store = MetadataStore::open(path).await.unwrap();
        store.share();
        let address = RedisAddress::parse(&redis.url()).unwrap();
        let shared = RedisShared::connect(address, "test");
        assert!(shared.until_connected(Duration::from_secs(10)).await);
        let shared: Arc<dyn Shared> = Arc::new(shared);
        let writer = Writer::unique();
        let listener = store.listen(writer);
        listener.poll().await.unwrap();
        Self {
            bell: listener.bell(),
            _notices: Notices::between(&store, &shared),
            store,
            writer,
            listener,
            shared,
        }
    }

    async fn commit(&self, path: &str) {
        let change = Change::PutRecord {
            key: key("r", path),
            record: record(Content::HeadOnly),
            blob: None,
        };
        let told = self.store.apply_by(self.writer, vec![change], Vec::new());
        told.await.unwrap();
    }

    /// How long it takes until this replica has heard of `path`, looking as the engine does.
    async fn hears_of(&mut self, path: &str, since: Instant) -> Duration {
        loop {
            let _ = tokio::time::timeout(INTERVAL, self.bell.rung()).await;
            let Heard::Notices(notices) = self.listener.poll().await.unwrap() else {
                return since.elapsed();
            };
            let is_it = |notice: &Notice| matches!(notice, Notice::Record { key, .. } if &*key.path == path);
            if notices.iter().any(is_it) {
                return since.elapsed();
            }
            assert!(since.elapsed() < INTERVAL * 4, "never");
        }
    }

    /// Nothing rings any more: what rang when the subscription began is over.
    async fn until_quiet(&mut self) {
        let quiet = Duration::from_millis(300);
        while tokio::time::timeout(quiet, self.bell.rung()).await.is_ok() {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notice_is_faster_than_polling_and_polling_does_without() {
    let mut redis = RedisServer::start();
    let directory = fast_directory();
    let path = directory.path().join("larder.db");
    let one = Replica::new(&path, &redis).await;
    let mut other = Replica::new(&path, &redis).await;
    other.until_quiet().await;

    let mut times = Vec::new();
    for n in 0..20 {
        let path = format!("with/{n}");
        let since = Instant::now();
        one.commit(&path).await;
        times.push(other.hears_of(&path, since).await);
    }
    times.sort();
    println!(
        "with Redis: median {:?}, longest {:?}",
        times[10], times[19]
    );
    assert!(times[10] < Duration::from_millis(100), "{times:?}");
    assert!(times[19] < Duration::from_secs(1), "{times:?}");

    redis.stop();
    let since = Instant::now();
    one.commit("without").await;
    let took = other.hears_of("without", since).await;
    println!("without: {took:?}");
    assert!(took < INTERVAL + Duration::from_secs(1), "{took:?}");

    redis.start_again();
    while !one.shared.standing().ok || !other.shared.standing().ok {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    other.until_quiet().await;
    let since = Instant::now();
    one.commit("again").await;
    let took = other.hears_of("again", since).await;
    println!("with Redis again: {took:?}");
    assert!(took < Duration::from_millis(500), "{took:?}");
}

/// Whoever can write to Redis can make larder look, and no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_notices_cost_a_look_and_a_thousand_cost_few() {
    let redis = RedisServer::start();
    let directory = fast_directory();
    let mut replica = Replica::new(&directory.path().join("larder.db"), &redis).await;
    replica.until_quiet().await;
    let since = Instant::now();
    for n in 0..1_000 {
        redis.command(&["PUBLISH", "larder:test:topic:changes", &format!("junk {n}")]);
    }
    let mut looks = 0;
    while tokio::time::timeout(Duration::from_millis(300), replica.bell.rung())
        .await
        .is_ok()
    {
        looks += 1;
        let heard = replica.listener.poll().await.unwrap();
        assert_eq!(heard, Heard::Notices(Vec::new()));
    }
    // At most one in ten milliseconds.
    let most = since.elapsed().as_millis() / 10 + 2;
    assert!((1..=most).contains(&looks), "{looks} of {most}");
}

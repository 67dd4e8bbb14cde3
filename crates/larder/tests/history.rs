//! What the program writes down of known traffic, read as another program would: after its end, and after a restart.
#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "helpers of tests may fail loudly"
)]

mod support;

use larder_core::UnixMillis;
use larder_storage::{Figures, MetadataStore, PostgresOptions, SINCE_THE_BEGINNING, TlsMode};
use larder_testkit::servers::postgres::{PASSWORD, Postgres, USER};
use larder_testkit::{Origin, Resource};
use support::packages::entry;
use support::{Setup, TestLarder, get, send};

/// A database of its own, in the data directory: the test reads it.
fn config(origin: &Origin) -> String {
    let keys = "immutable_patterns: ['^files/']\nmutable_patterns: ['^index$']\nrevalidate: get\ncache: { mutable_ttl: 0 }";
    let files = entry("files", "generic", origin, keys);
    let other = entry("other", "generic", origin, "");
    format!("remotes:\n{files}{other}")
}

/// The database: on the server, or in the data directory.
async fn database(larder: &TestLarder, on_server: Option<&str>) -> MetadataStore {
    let Some(database) = on_server else {
        let path = larder.data_dir().join("larder.sqlite");
        return MetadataStore::open(&path).await.expect("the database");
    };
    let options = PostgresOptions {
        hosts: vec![("127.0.0.1".to_owned(), Postgres::shared().port())],
        user: USER.to_owned(),
        password: PASSWORD.to_owned(),
        database: database.to_owned(),
        tls: TlsMode::default(),
        ca_file: None,
    };
    let connected = MetadataStore::connect(&options).await;
    connected.expect("the database")
}

/// Of one repository, or of all together: since the beginning, and the sums of the points of both lengths.
async fn written(larder: &TestLarder, on_server: Option<&str>, name: &str) -> [Figures; 3] {
    let meta = database(larder, on_server).await;
    let mut sums = [Figures::default(); 3];
    for (sum, step) in sums.iter_mut().zip([SINCE_THE_BEGINNING, 300, 7_200]) {
        let rows = meta.figures(name, step, UnixMillis(0)).await;
        for row in rows.expect("rows") {
            *sum = sum.plus(row.figures);
        }
    }
    meta.close().await;
    sums
}

async fn ask(larder: &TestLarder, path: &str, status: u16) {
    let answer = get(&larder.artifact("files", path)).await;
    assert_eq!(answer.status, status, "{path}");
}

#[tokio::test(flavor = "multi_thread")]
async fn known_traffic_is_written_down_exactly_into_a_file() {
    known_traffic_is_written_down_exactly(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn known_traffic_is_written_down_exactly_on_a_server() {
    let database = Postgres::shared().database();
    known_traffic_is_written_down_exactly(Some(&database)).await;
}

/// And adds up over restarts.
async fn known_traffic_is_written_down_exactly(on_server: Option<&str>) {
    let origin = Origin::start().await;
    origin.put("/files/a", Resource::new(vec![1; 1_000]));
    origin.put("/files/b", Resource::new(vec![2; 3_000_000]));
    origin.put("/index", Resource::new(vec![3; 70]).etag("\"v1\""));
    let mut setup = Setup::new(&config(&origin));
    if let Some(database) = on_server {
        let port = Postgres::shared().port().to_string();
        for (name, value) in [
            ("DBHOST", "127.0.0.1"),
            ("DBPORT", &*port),
            ("DBUSER", USER),
            ("DBPASS", PASSWORD),
            ("DBNAME", database),
        ] {
            setup = setup.env(name, value);
        }
    }
    let mut larder = setup.start().await;
    // Three misses, one of them of a document that is asked about each time.
    for path in ["files/a", "files/b", "index"] {
        ask(&larder, path, 200).await;
    }
    larder.until_idle().await;
    // Eight hits, one without a body; from the hot set or not.
    for _ in 0..4 {
        ask(&larder, "files/a", 200).await;
    }
    for _ in 0..3 {
        ask(&larder, "files/b", 200).await;
    }
    let head = send("HEAD", &larder.artifact("files", "files/a"), &[]).await;
    assert_eq!(head.status, 200);
    ask(&larder, "index", 200).await;
    ask(&larder, "refused", 403).await;
    ask(&larder, "files/none", 404).await;
    origin.put("/files/broken", Resource::new("").status(500));
    ask(&larder, "files/broken", 500).await;
    get(&larder.url("/health")).await;
    get(&larder.artifact("other", "files/a")).await;
    larder.until_idle().await;
    assert!(larder.terminate().success());
    let files = Figures {
        requests: 3 + 8 + 1 + 3,
        hits: 8,
        misses: 3 + 1,
        stale: 0,
        errors: 1,
        refused: 1,
        served_bytes: 5 * 1_000 + 4 * 3_000_000 + 2 * 70,
        fetched_bytes: 1_000 + 3_000_000 + 70,
    };
    let [total, day, month] = written(&larder, on_server, "files").await;
    assert_eq!((total, day, month), (files, files, files));
    let other = Figures {
        requests: 1,
        misses: 1,
        served_bytes: 1_000,
        fetched_bytes: 1_000,
        ..Figures::default()
    };
    assert_eq!(written(&larder, on_server, "other").await, [other; 3]);
    assert_eq!(
        written(&larder, on_server, "").await,
        [files.plus(other); 3]
    );
    larder.restart().await;
    ask(&larder, "files/a", 200).await;
    assert!(larder.terminate().success());
    let hit = Figures {
        requests: 1,
        hits: 1,
        served_bytes: 1_000,
        ..Figures::default()
    };
    assert_eq!(
        written(&larder, on_server, "files").await,
        [files.plus(hit); 3]
    );
    assert_eq!(
        written(&larder, on_server, "").await,
        [files.plus(hit).plus(other); 3]
    );
}

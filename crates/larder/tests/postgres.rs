//! The program over PostgreSQL: a start that waits, a server that goes and comes back, and what is refused for good.
#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "helpers of tests may fail loudly"
)]

mod support;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use larder_testkit::servers::postgres::{Disk, PgBouncer, Postgres};
use larder_testkit::{Origin, Resource};
use rustix::process::Signal;
use support::client::client;
use support::packages::entry;
use support::{Answer, Setup, TestLarder, get, send};

async fn put(url: &str, body: &'static str) -> Answer {
    let response = client().put(url).body(body).send().await;
    let response = response.unwrap_or_else(|error| panic!("PUT {url}: {error:?}"));
    Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: response.bytes().await.expect("a body").to_vec(),
    }
}

fn config(origin: &Origin) -> String {
    format!(
        "remotes:\n{}  files: {{ type: local }}\n",
        entry("remote", "generic", origin, "immutable_patterns: ['.*']")
    )
}

async fn origin_with(paths: &[&str]) -> Origin {
    let origin = Origin::start().await;
    for path in paths {
        origin.put(path, Resource::new(format!("bytes of {path}").into_bytes()));
    }
    origin
}

fn upload(larder: &TestLarder, path: &str) -> String {
    larder.url(&format!("api/v1/remote/files/{path}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_is_there_after_a_restart_and_the_view_shows_no_secret() {
    let origin = origin_with(&["/a"]).await;
    let server = Postgres::shared();
    let setup = Setup::new(&config(&origin)).on_postgres(server);
    let mut larder = setup.start().await;
    let url = larder.artifact("remote", "a");
    assert_eq!(get(&url).await.body, b"bytes of /a");
    assert_eq!(put(&upload(&larder, "x/1"), "uploaded").await.status, 201);
    larder.until_idle().await;
    let view = get(&larder.url("config")).await.text();
    assert!(
        view.contains("127.0.0.1:") && !view.contains("for tests only"),
        "{view}"
    );
    let health = get(&larder.url("health")).await;
    assert_eq!(health.json()["backends"]["metadata"]["kind"], "postgresql");
    larder.terminate();
    let asked = origin.requests().len();
    let took = larder.restart().await;
    println!("restarted in {took:?}");
    let again = get(&larder.artifact("remote", "a")).await;
    assert_eq!((again.status, again.source()), (200, "cache"));
    assert_eq!(get(&upload(&larder, "x/1")).await.body, b"uploaded");
    assert_eq!(origin.requests().len(), asked, "nobody was asked");
    assert!(!larder.data_dir().join("larder.sqlite").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_in_transaction_mode_will_do() {
    let origin = origin_with(&["/a", "/b"]).await;
    let server = Postgres::shared();
    let pooler = PgBouncer::start(server);
    let setup = Setup::new(&config(&origin)).on_postgres(server);
    let larder = setup
        .env("DBPORT", &pooler.port().to_string())
        .start()
        .await;
    for path in ["a", "b"] {
        assert_eq!(get(&larder.artifact("remote", path)).await.status, 200);
        let file = upload(&larder, path);
        assert_eq!(put(&file, "uploaded").await.status, 201);
        assert_eq!(get(&file).await.body, b"uploaded");
        assert_eq!(send("DELETE", &file, &[]).await.status, 204);
    }
}

/// While there is no server larder lives, is not ready, and takes no request for granted; nobody has to start it again.
#[tokio::test(flavor = "multi_thread")]
async fn hazard_a8_a_start_waits_for_the_server_and_answers_probes() {
    let origin = origin_with(&["/a"]).await;
    let server = Postgres::start(Disk::Fast);
    let setup = Setup::new(&config(&origin)).on_postgres(&server);
    server.stop();
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.local_addr().expect("its address").to_string()
    };
    let mut larder = setup.env("LARDER_LISTEN", &address).spawned();
    larder.logged("waiting for it").await;
    let url = |path: &str| format!("http://{address}/{path}");
    let health = get(&url("health")).await.json();
    let said = health["backends"]["metadata"]["detail"].to_string();
    assert!(said.contains("Connection refused"), "{said}");
    // It is tried several times in this time.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let log = larder.log();
    assert_eq!(log.matches("waiting for it").count(), 1, "{log}");
    assert!(!log.contains("does not answer"), "{log}");
    assert_eq!(get(&url("live")).await.status, 200);
    assert_eq!(get(&url("ready")).await.status, 503);
    let refused = get(&url("api/v1/remote/remote/a")).await;
    assert_eq!(refused.status, 503);
    assert!(!refused.header("retry-after").is_empty());
    assert_eq!(put(&url("api/v1/remote/files/x"), "x").await.status, 503);
    assert_eq!(origin.requests(), []);
    server.start_again();
    let since = Instant::now();
    while get(&url("ready")).await.status != 200 {
        assert!(
            since.elapsed() < Duration::from_secs(10),
            "{}",
            larder.log()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("ready {:?} after the server's return", since.elapsed());
    assert_eq!(get(&url("api/v1/remote/remote/a")).await.status, 200);
    assert_eq!(larder.terminate().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_waits_can_be_ended() {
    let origin = origin_with(&[]).await;
    let setup = Setup::new(&config(&origin))
        .env("DBHOST", "127.0.0.1")
        .env("DBPORT", "1");
    let mut larder = setup.spawned();
    larder.logged("waiting for it").await;
    larder.signal(Signal::TERM);
    assert_eq!(larder.wait().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waiting_does_not_mend_ends_the_process_with_the_reason() {
    let origin = origin_with(&[]).await;
    let server = Postgres::shared();
    let first = Setup::new(&config(&origin)).on_postgres(server);
    let same = first.clone();
    let wrong = [
        ("DBPASS", "wrong", "password authentication failed"),
        ("DBNAME", "nowhere", "does not exist"),
    ];
    for (variable, value, words) in wrong {
        let setup = Setup::new(&config(&origin)).on_postgres(server);
        let (status, said) = setup.env(variable, value).run_to_end();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(
            said.contains(words) && !said.contains("for tests only"),
            "{said}"
        );
    }
    // Another data directory has other files than those that the database names.
    let larder = first.start().await;
    let (status, said) = same.run_to_end();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("files of another place"), "{said}");
    drop(larder);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_only_read_ends_the_process_with_the_reason() {
    let origin = origin_with(&[]).await;
    let server = Postgres::shared();
    let database = server.database();
    let setup = Setup::new(&config(&origin))
        .on_postgres(server)
        .env("DBNAME", &database);
    let mut owner = setup.clone().start().await;
    assert_eq!(owner.terminate().code(), Some(0));
    let user = format!("reader_of_{database}");
    server.sql(
        &database,
        &format!("CREATE USER {user} PASSWORD 'reader'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {user}"),
    );
    let reader = setup.env("DBUSER", &user).env("DBPASS", "reader");
    let (status, said) = reader.run_to_end();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(
        said.contains("permission denied for table secrets (SQLSTATE 42501)"),
        "{said}"
    );
    assert!(!said.contains("waiting for it"), "{said}");
}

/// The server goes and comes back: what is held is served, cold files pass through, writes are refused for a moment, and nothing has to
/// be started again.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_server_what_is_held_is_served_and_nothing_is_kept() {
    let origin = origin_with(&["/held", "/cold", "/colder"]).await;
    let server = Postgres::start(Disk::Fast);
    let larder = Setup::new(&config(&origin))
        .on_postgres(&server)
        .start()
        .await;
    let held = larder.artifact("remote", "held");
    get(&held).await;
    larder.until_idle().await;
    let file = upload(&larder, "x");
    assert_eq!(put(&file, "uploaded").await.status, 201);
    for crash in [false, true] {
        if crash {
            server.kill();
        } else {
            server.stop();
        }
        let since = Instant::now();
        let again = get(&held).await;
        assert_eq!((again.status, again.source()), (200, "cache"));
        for path in ["cold", "colder"] {
            let cold = get(&larder.artifact("remote", path)).await;
            assert_eq!(cold.body, format!("bytes of /{path}").as_bytes());
        }
        let refused = put(&file, "meanwhile").await;
        assert_eq!(refused.status, 503, "{}", refused.text());
        assert_eq!(refused.json()["code"], "storage_unavailable");
        assert!(!refused.header("retry-after").is_empty());
        assert_eq!(get(&larder.url("live")).await.status, 200);
        assert_eq!(get(&larder.url("ready")).await.status, 200);
        println!("answered without the server in {:?}", since.elapsed());
        assert!(since.elapsed() < Duration::from_secs(10));
        server.start_again();
        let since = Instant::now();
        while put(&file, "again").await.status != 200 {
            assert!(since.elapsed() < Duration::from_secs(5), "{}", larder.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        println!("the first upload {:?} after the return", since.elapsed());
        assert_eq!(get(&file).await.body, b"again");
    }
    // Now it is kept.
    let url = larder.artifact("remote", "cold");
    get(&url).await;
    larder.until_idle().await;
    assert_eq!(get(&url).await.source(), "cache");
}

/// A message to the server ends at the character zero, and what follows is answered as one more: no request may send it, or wait for that.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_the_character_zero_waits_for_nothing() {
    let origin = origin_with(&["/a"]).await;
    let setup = Setup::new(&config(&origin)).on_postgres(Postgres::shared());
    let larder = setup.start().await;
    get(&larder.artifact("remote", "a")).await;
    larder.until_idle().await;
    // A cursor as lists give them, in hexadecimal digits: repository, row and path.
    let cursor = |text: &str| {
        let digits: Vec<String> = text.bytes().map(|byte| format!("{byte:02x}")).collect();
        digits.concat()
    };
    let (of_remote, of_files) = (cursor("remote\x004\0a\0b"), cursor("files\x000\0a\0b"));
    for (method, target, status) in [
        (
            "GET",
            &*format!("api/v1/artifacts/remote?cursor={of_remote}"),
            400,
        ),
        (
            "GET",
            &*format!("api/v1/artifacts/files?cursor={of_files}"),
            400,
        ),
        (
            "GET",
            &*format!("api/v1/jobs?cursor={}", cursor("\x000\0x\0")),
            400,
        ),
        ("GET", "api/v1/artifacts/remote?pattern=%5E%5Cx00", 200),
        ("GET", "api/v1/artifacts?pattern=%5Ea%5Cx00b", 200),
        ("GET", "ui/search?q=a%00b&kind=prefix", 200),
        ("PUT", "cache/flush?pattern=%5E%5Cx00", 200),
        ("GET", "api/v1/artifacts/remote", 200),
    ] {
        let since = Instant::now();
        let answer = send(method, &larder.url(target), &[]).await;
        assert_eq!(answer.status, status, "{target}: {}", answer.text());
        let took = since.elapsed();
        assert!(took < Duration::from_secs(2), "{target} took {took:?}");
    }
    let listed = get(&larder.url("api/v1/artifacts/remote")).await.json();
    assert_eq!(listed["artifacts"][0]["path"], "a", "{listed}");
    assert!(
        !larder.log().contains("does not answer"),
        "{}",
        larder.log()
    );
}

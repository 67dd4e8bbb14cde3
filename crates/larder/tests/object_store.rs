//! The program with its blobs in a real store that speaks S3.
#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "helpers of tests may fail loudly"
)]

#[path = "support/store.rs"]
mod store;
mod support;

use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;
use larder_core::{Clock as _, SystemClock};
use larder_storage::S3Objects;
use larder_testkit::servers::postgres::Postgres;
use larder_testkit::servers::{Gate, S3Server};
use larder_testkit::{Behaviour, Origin, Payload, Resource};
use store::{store_below, store_of};
use support::client::{builder, client, try_send};
use support::{Answer, PATIENCE, Setup, TestLarder, get, send};

const STEP: usize = 1 << 20;

fn setup(origin: &Origin, endpoint: &str) -> Setup {
    setup_with(origin, endpoint, "")
}

/// The same with more lines of configuration, of repositories or behind them.
fn setup_with(origin: &Origin, endpoint: &str, more: &str) -> Setup {
    let config = format!(
        "remotes:\n  remote: {{ base_url: '{}', immutable_patterns: ['.'], cache: {{ immutable_ttl: 0 }} }}\n  own: {{ type: local }}\n{more}",
        origin.url("")
    );
    Setup::new(&config)
        .env("MINIO_ENDPOINT", endpoint)
        .env("MINIO_SECURE", "false")
        .env("MINIO_BUCKET", S3Server::BUCKET)
        .env("MINIO_ACCESS_KEY", S3Server::ACCESS_KEY)
        .env("MINIO_SECRET_KEY", S3Server::SECRET_KEY)
}

/// Waits until so many multipart uploads are under way; gives how long that took.
async fn until_uploads(store: &S3Objects, count: usize, bound: Duration) -> Duration {
    let since = Instant::now();
    loop {
        let now = store.count_uploads().await.expect("a list of uploads");
        if now == count {
            return since.elapsed();
        }
        assert!(
            since.elapsed() < bound,
            "{now} uploads instead of {count} after {bound:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Blocks of a MiB that come as fast as `pace` lets them, until `hold` says that no more come.
fn paced(
    blocks: Range<u64>,
    pace: Duration,
    hold: tokio::sync::watch::Receiver<u64>,
) -> reqwest::Body {
    let Range { start, end } = blocks;
    let stream =
        futures_util::stream::unfold((start, hold), move |(number, mut hold)| async move {
            if number == end {
                return None;
            }
            tokio::time::sleep(pace).await;
            // Nobody is left to let more of it go: the client stays silent.
            if hold.wait_for(|most| number < *most).await.is_err() {
                std::future::pending::<()>().await;
            }
            Some((std::io::Result::Ok(block(number)), (number + 1, hold)))
        });
    reqwest::Body::wrap_stream(stream)
}

fn block(number: u64) -> Bytes {
    let digits = larder_core::sha256(&number.to_le_bytes());
    Bytes::from(digits.as_bytes().repeat(STEP / 32))
}

/// The digest of these blocks.
fn digest_of_blocks(blocks: Range<u64>) -> larder_core::Digest {
    let mut hasher = larder_core::Hasher::new(&[]);
    blocks.for_each(|number| hasher.update(&block(number)));
    hasher.finish_sha256()
}

async fn put(url: &str, body: impl Into<reqwest::Body>) -> Answer {
    put_stating(url, body, None).await
}

/// The same with the digest stated beforehand.
async fn put_stating(
    url: &str,
    body: impl Into<reqwest::Body>,
    digest: Option<&larder_core::Digest>,
) -> Answer {
    let mut request = client()
        .put(url)
        .body(body)
        .timeout(Duration::from_secs(300));
    if let Some(digest) = digest {
        request = request.header("x-checksum-sha256", digest.to_hex());
    }
    let response = request.send().await.expect("an answer");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.bytes().await.expect("all of it").to_vec();
    Answer {
        status,
        headers,
        body,
    }
}

/// The process again, with its database and without what its tier had.
async fn with_an_empty_tier(larder: &mut TestLarder) {
    assert!(larder.terminate().success());
    std::fs::remove_dir_all(larder.data_dir().join("tier")).expect("a tier");
    larder.restart().await;
}

async fn until_status(larder: &TestLarder, path: &str, status: u16) -> Answer {
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = get(&larder.url(path)).await;
        if answer.status == status {
            return answer;
        }
        assert!(
            Instant::now() < until,
            "{path}: {} {}",
            answer.status,
            answer.text()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cold_warm_restarted_and_with_the_store_away() {
    let mut server = S3Server::start().await;
    let origin = Origin::start().await;
    let (big, small) = (Payload::generated(6 << 20, 1), Payload::generated(5_000, 2));
    origin.put("/big.bin", Resource::new(big.clone()));
    origin.put("/small.bin", Resource::new(small.clone()));
    let mut larder = setup(&origin, &server.endpoint()).start().await;
    let health = get(&larder.url("/health")).await.json();
    assert_eq!(health["backends"]["blobs"]["kind"], "s3");

    let files = [
        ("big.bin", big.slice(0, 6 << 20)),
        ("small.bin", small.slice(0, 5_000)),
    ];
    for (path, bytes) in &files {
        let cold = get(&larder.artifact("remote", path)).await;
        assert_eq!((cold.status, cold.source()), (200, "remote"), "{path}");
        assert!(cold.body == *bytes, "{path}");
    }
    larder.until_idle().await;
    for (path, bytes) in &files {
        let warm = larder.hit(&larder.artifact("remote", path)).await;
        assert!(warm.body == *bytes, "{path}");
    }
    let own = larder.artifact("own", "kept.txt");
    assert_eq!(put(&own, "uploaded").await.status, 201);
    let metric = |name: &'static str| larder.metric(name, "");
    assert!((metric("larder_object_store_up").await - 1.0).abs() < 0.1);
    assert!(metric("larder_tier_bytes").await > f64::from(6 << 20));

    // What the tier has lost comes from the store, and nobody else is asked.
    with_an_empty_tier(&mut larder).await;
    origin.reset_log();
    for (path, bytes) in &files {
        let answer = get(&larder.artifact("remote", path)).await;
        assert_eq!((answer.status, answer.source()), (200, "cache"), "{path}");
        assert!(answer.body == *bytes, "{path}");
    }
    assert_eq!(origin.requests().len(), 0, "nobody was asked");
    let own = larder.artifact("own", "kept.txt");
    assert_eq!(get(&own).await.text(), "uploaded");
    let own_cold = larder.artifact("own", "cold.txt");
    assert_eq!(put(&own_cold, "in the store alone").await.status, 201);
    with_an_empty_tier(&mut larder).await;
    let warm = get(&larder.artifact("remote", "small.bin")).await;
    assert_eq!(warm.status, 200);
    let since = Instant::now();
    while std::fs::read_dir(larder.data_dir().join("tier/blobs/sha256")).map_or(0, Iterator::count)
        == 0
    {
        assert!(since.elapsed() < PATIENCE, "it does not come into the tier");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    // The store is gone: what is here is served, the rest is said clearly and soon.
    server.kill();
    let here = get(&larder.artifact("remote", "small.bin")).await;
    assert_eq!((here.status, here.source()), (200, "cache"));
    let asked = Instant::now();
    let gone = get(&larder.artifact("own", "cold.txt")).await;
    assert!(
        asked.elapsed() < Duration::from_secs(10),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(gone.status, 503, "{}", gone.text());
    assert_eq!(gone.json()["code"], "storage_unavailable");
    assert!(!gone.header("retry-after").is_empty());
    let asked = Instant::now();
    let refused = put(&larder.artifact("own", "new.txt"), "new").await;
    assert!(
        asked.elapsed() < Duration::from_secs(10),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(refused.status, 503, "{}", refused.text());
    origin.put("/fresh.bin", Resource::new(small.clone()));
    let fresh = get(&larder.artifact("remote", "fresh.bin")).await;
    assert_eq!(
        (fresh.status, fresh.source()),
        (200, "remote"),
        "served and not kept"
    );
    assert_eq!(get(&larder.url("/live")).await.status, 200);
    assert_eq!(
        get(&larder.url("/ready")).await.status,
        200,
        "there is something to serve"
    );

    assert!(larder.metric("larder_object_store_up", "").await < 0.1);

    // It comes back, and nothing needs a restart.
    server.restart().await;
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        let back = get(&larder.artifact("own", "cold.txt")).await;
        if back.status == 200 {
            assert_eq!(back.text(), "in the store alone");
            break;
        }
        assert!(Instant::now() < until, "{}", back.text());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let absent = get(&larder.artifact("own", "new.txt")).await;
    assert_eq!(absent.status, 404, "what was refused is not there");
    assert_eq!(
        put(&larder.artifact("own", "new.txt"), "new").await.status,
        201
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_upload_takes_little_memory() {
    const BLOCKS: u64 = 256;
    let server = S3Server::start().await;
    let origin = Origin::start().await;
    let mut larder = setup(&origin, &server.endpoint()).start().await;
    let before = larder.peak_memory();
    let blocks = (0..BLOCKS).map(|number| std::io::Result::Ok(block(number)));
    let stream = futures_util::stream::iter(blocks);
    let url = larder.artifact("own", "large.bin");
    let answer = put(&url, reqwest::Body::wrap_stream(stream)).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let uploaded = larder.peak_memory();
    with_an_empty_tier(&mut larder).await;
    let response = client().get(larder.artifact("own", "large.bin"));
    let mut response = response
        .timeout(Duration::from_secs(300))
        .send()
        .await
        .expect("an answer");
    let mut hasher = larder_core::Hasher::new(&[]);
    let mut length = 0;
    while let Some(chunk) = response.chunk().await.expect("bytes") {
        hasher.update(&chunk);
        length += chunk.len() as u64;
    }
    let mut expected = larder_core::Hasher::new(&[]);
    (0..BLOCKS).for_each(|number| expected.update(&block(number)));
    assert_eq!(length, BLOCKS << 20);
    assert_eq!(hasher.finish_sha256(), expected.finish_sha256());
    let read = larder.peak_memory();
    eprintln!(
        "{BLOCKS} MiB: memory {before} MiB at first, {uploaded} after the upload, {read} after a cold read"
    );
    // Eight parts of eight MiB, and what else an upload takes.
    assert!(uploaded - before < 128, "{before} to {uploaded} MiB");
    assert!(read < before + 96, "{before} to {read} MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_ends_the_process_and_what_may_yet_does_not() {
    let mut server = S3Server::start().await;
    let origin = Origin::start().await;
    for (name, value, said) in [
        (
            "MINIO_BUCKET",
            "no-such-bucket",
            "has no bucket no-such-bucket",
        ),
        ("MINIO_SECRET_KEY", "canary", "credentials"),
    ] {
        let (status, log) = setup(&origin, &server.endpoint())
            .env(name, value)
            .run_to_end();
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.contains(said) && !log.contains("canary"), "{log}");
    }
    // What answers in its place says why in `/health`.
    origin.behave("*", Behaviour::Status(405));
    let store = origin.url("").replace("http://", "");
    let larder = setup(&origin, store.trim_end_matches('/')).start().await;
    let health = get(&larder.url("/health")).await.json();
    let detail = health["backends"]["blobs"]["detail"].as_str();
    assert!(detail.is_some_and(|why| why.contains("405")), "{health}");
    origin.clear("*");
    drop(larder);
    let gate = Gate::to(&server.endpoint()).await;
    server.kill();
    let larder = setup(&origin, &gate.endpoint()).start().await;
    assert_eq!(get(&larder.url("/live")).await.status, 200);
    assert_eq!(get(&larder.url("/ready")).await.status, 503);
    let health = get(&larder.url("/health")).await;
    assert_eq!(health.status, 503);
    server.restart().await;
    until_status(&larder, "/ready", 200).await;
    assert_eq!(put(&larder.artifact("own", "a"), "a").await.status, 201);
}

/// As for upstreams: loopback is reached directly, and `proxy: none` means that no variable counts.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_reached_by_the_proxies_of_upstreams_and_no_others() {
    let server = S3Server::start().await;
    let origin = Origin::start().await;
    for more in ["", "proxy: none\n"] {
        let setup = setup_with(&origin, &server.endpoint(), more);
        let setup = setup
            .env("HTTP_PROXY", "http://127.0.0.1:9")
            .env("ALL_PROXY", "socks5://127.0.0.1:9");
        let larder = setup.start().await;
        assert_eq!(put(&larder.artifact("own", "a"), "a").await.status / 100, 2);
    }
}

/// A replica that nobody asks for anything of the store says within seconds that it is away.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_replica_notices_that_the_store_is_away() {
    let server = S3Server::start().await;
    let origin = Origin::start().await;
    let gate = Gate::to(&server.endpoint()).await;
    let larder = setup(&origin, &gate.endpoint()).start().await;
    for (is_away, up) in [(true, 0.0), (false, 1.0)] {
        if is_away {
            gate.close();
        } else {
            gate.open();
        }
        let since = Instant::now();
        loop {
            let health = get(&larder.url("/health")).await.json();
            if health["backends"]["blobs"]["detail"].is_null() != is_away {
                break;
            }
            assert!(since.elapsed() < PATIENCE, "{health}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let told = larder.metric("larder_object_store_up", "").await;
        assert!((told - up).abs() < 0.1, "{told}");
        assert_eq!(get(&larder.url("/ready")).await.status, 200);
    }
}

/// Uploads that are files would not be found in the store, and nobody would say so.
#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_with_files_is_not_taken() {
    let origin = Origin::start().await;
    let mut files = Setup::new("remotes:\n  own: { type: local }\n")
        .start()
        .await;
    assert_eq!(put(&files.artifact("own", "a"), "a").await.status, 201);
    assert!(files.terminate().success());
    let data = files.data_dir().display().to_string();
    let (status, log) = setup(&origin, "127.0.0.1:1")
        .env("LARDER_DATA_DIR", &data)
        .run_to_end();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(
        log.contains("holds blobs as files") && log.contains("MINIO_ENDPOINT"),
        "{log}"
    );
}

/// The file of this number: most are small, each eighth goes up in parts.
fn numbered(number: u64) -> Bytes {
    let length = if number.is_multiple_of(8) {
        9 << 20
    } else {
        100_000
    };
    Payload::generated(length, number).slice(0, length)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_though_the_store_is_killed_again_and_again() {
    const CYCLES: u32 = 3;
    let mut server = S3Server::start().await;
    let origin = Origin::start().await;
    let mut larder = setup(&origin, &server.endpoint()).start().await;
    let root = larder.artifact("own", "");
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let uploads = tokio::spawn(async move {
        let (mut acknowledged, mut refused) = (Vec::new(), 0);
        for number in 1.. {
            if *stopped.borrow_and_update() {
                break;
            }
            let answer = put(&format!("{root}f{number}"), numbered(number)).await;
            match answer.status {
                201 => acknowledged.push(number),
                503 => refused += 1,
                other => panic!("{other}: {}", answer.text()),
            }
        }
        (acknowledged, refused)
    });
    for _ in 0..CYCLES {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        server.kill();
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.restart().await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    stop.send(true).expect("somebody uploads");
    let (acknowledged, refused) = uploads.await.expect("no other answers");
    with_an_empty_tier(&mut larder).await;
    for number in &acknowledged {
        let answer = get(&larder.artifact("own", &format!("f{number}"))).await;
        assert_eq!(answer.status, 200, "f{number}: {}", answer.text());
        assert!(answer.body == numbered(*number), "f{number}: other bytes");
    }
    let kept = acknowledged.len();
    eprintln!("{CYCLES} kills: {kept} uploads acknowledged and there, {refused} refused");
    assert!(kept > 10 && refused > 0, "{kept} {refused}");
}

/// TLS in front of a server, with a certificate that no system trusts. Gives host and port, and the certificate.
async fn behind_tls(target: String) -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]);
    let made = made.expect("a certificate");
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a certificate with its key");
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let endpoint = listener.local_addr().expect("its address").to_string();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (acceptor, target) = (acceptor.clone(), target.clone());
            tokio::spawn(async move {
                let mut client = acceptor.accept(client).await.ok()?;
                let mut server = tokio::net::TcpStream::connect(target).await.ok()?;
                tokio::io::copy_bidirectional(&mut client, &mut server)
                    .await
                    .ok()
            });
        }
    });
    (endpoint, made.cert.pem())
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_with_an_authority_of_its_own() {
    let server = S3Server::start().await;
    let (endpoint, pem) = behind_tls(server.endpoint()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, pem).expect("a file");
    let trusting = format!(
        "remotes:\n  own: {{ type: local }}\ns3: {{ ca_file: {}, prefix: tls }}\n",
        ca.display()
    );
    let with = |config: &str| {
        Setup::new(config)
            .env("MINIO_ENDPOINT", &format!("https://{endpoint}"))
            .env("MINIO_BUCKET", S3Server::BUCKET)
            .env("MINIO_ACCESS_KEY", S3Server::ACCESS_KEY)
            .env("MINIO_SECRET_KEY", S3Server::SECRET_KEY)
    };
    let mut larder = with(&trusting).start().await;
    let body = Payload::generated(20 << 20, 3).slice(0, 20 << 20);
    let own = larder.artifact("own", "large");
    assert_eq!(put(&own, body.clone()).await.status, 201);
    with_an_empty_tier(&mut larder).await;
    let back = get(&larder.artifact("own", "large")).await;
    assert!(back.status == 200 && back.body == body);

    // Who does not trust it is not served by it, and is told why.
    let strange = with("remotes:\n  own: { type: local }\n").start().await;
    assert_eq!(get(&strange.url("/ready")).await.status, 503);
    let log = strange.log().to_lowercase();
    assert!(
        log.contains("does not answer") && log.contains("certificate"),
        "{log}"
    );
}

/// Hazard L8: what a process has begun that was killed is aborted when its lease has ended; what lives is let be.
#[tokio::test(flavor = "multi_thread")]
async fn hazard_l8_what_a_killed_process_has_begun_is_aborted_when_its_lease_ends() {
    const LEASE: u64 = 4;
    let server = S3Server::start().await;
    let origin = Origin::start().await;
    let store = store_of(&server);
    let leased = format!("s3: {{ upload_lease: {LEASE} }}\n");
    let mut larder = setup_with(&origin, &server.endpoint(), &leased)
        .start()
        .await;
    let digest = digest_of_blocks(0..64);
    let (more, hold) = tokio::sync::watch::channel(40_u64);
    let url = larder.artifact("own", "large.bin");
    let body = paced(0..64, Duration::from_millis(5), hold);
    let uploading = tokio::spawn({
        let (client, digest) = (client(), digest.to_hex());
        async move {
            let request = client.put(url).header("x-checksum-sha256", digest);
            request
                .body(body)
                .timeout(Duration::from_secs(300))
                .send()
                .await
        }
    });
    until_uploads(&store, 1, PATIENCE).await;
    // It is under way for longer than its lease: that is renewed.
    tokio::time::sleep(Duration::from_secs(2 * LEASE)).await;
    assert_eq!(store.count_uploads().await.expect("a list"), 1);
    larder.kill9();
    assert!(uploading.await.expect("no panic").is_err());
    drop(more);
    assert_eq!(store.count_uploads().await.expect("a list"), 1);
    larder.restart().await;
    let took = until_uploads(&store, 0, Duration::from_secs(LEASE + 8)).await;
    eprintln!(
        "killed with kill -9 in an upload; its lease was {LEASE} s; nothing in ListMultipartUploads {took:?} after the restart"
    );
    let absent = get(&larder.artifact("own", "large.bin")).await;
    assert_eq!(absent.status, 404, "nothing of it is served");
    let url = larder.artifact("own", "large.bin");
    let whole = put_stating(
        &url,
        reqwest::Body::wrap_stream(futures_util::stream::iter(
            (0..64).map(|number| std::io::Result::Ok(block(number))),
        )),
        Some(&digest),
    );
    assert_eq!(whole.await.status, 201);
    until_uploads(&store, 0, PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_beforehand_flows_to_the_store_while_it_arrives() {
    const BLOCKS: u64 = 96;
    let server = S3Server::start().await;
    let origin = Origin::start().await;
    let store = store_of(&server);
    let mut larder = setup(&origin, &server.endpoint()).start().await;
    let digest = digest_of_blocks(0..BLOCKS);
    let key = format!("sha256/{}", digest.to_hex());
    for (name, stated, status) in [
        ("wrong.bin", digest_of_blocks(0..3), 400),
        ("right.bin", digest.clone(), 201),
    ] {
        let (more, hold) = tokio::sync::watch::channel(40_u64);
        let url = larder.artifact("own", name);
        let body = paced(0..BLOCKS, Duration::ZERO, hold);
        let uploading = tokio::spawn(async move { put_stating(&url, body, Some(&stated)).await });
        until_uploads(&store, 1, PATIENCE).await;
        let there = larder_storage::ObjectStore::head(&store, &key).await;
        assert_eq!(there.expect("an answer"), None, "no name before the end");
        more.send_replace(BLOCKS);
        let answer = uploading.await.expect("an answer");
        assert_eq!(answer.status, status, "{name}: {}", answer.text());
        until_uploads(&store, 0, PATIENCE).await;
    }
    assert_eq!(get(&larder.artifact("own", "wrong.bin")).await.status, 404);
    with_an_empty_tier(&mut larder).await;
    let back = get(&larder.artifact("own", "right.bin")).await;
    assert_eq!(larder_core::sha256(&back.body), digest);
}

/// A replica with nothing of its own gets what another one has downloaded from the store, and the upstream is not asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_replica_fills_its_tier_from_the_store() {
    let server = S3Server::start().await;
    let origin = Origin::start().await;
    let bytes = Payload::generated(3 << 20, 9).slice(0, 3 << 20);
    origin.put("/cold.bin", Resource::new(Payload::generated(3 << 20, 9)));
    let both = setup(&origin, &server.endpoint()).on_postgres(Postgres::shared());
    let first = both.clone().start().await;
    let answer = get(&first.artifact("remote", "cold.bin")).await;
    assert_eq!((answer.status, answer.source()), (200, "remote"));
    first.until_idle().await;
    first.hit(&first.artifact("remote", "cold.bin")).await;
    origin.reset_log();

    let second = both.start().await;
    assert_ne!(first.data_dir(), second.data_dir());
    let answer = get(&second.artifact("remote", "cold.bin")).await;
    assert_eq!((answer.status, answer.source()), (200, "cache"));
    assert!(answer.body == bytes);
    let since = Instant::now();
    while second.metric("larder_tier_bytes", "").await < 3_145_728.0 {
        assert!(since.elapsed() < PATIENCE, "it does not come into the tier");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let again = get(&second.artifact("remote", "cold.bin")).await;
    assert!(again.body == bytes);
    assert!((second.metric("larder_tier_fills_total", "").await - 1.0).abs() < 0.1);
    assert_eq!(origin.requests().len(), 0, "the upstream was not asked");
}

/// Repositories whose files may be had from the store itself, and some that are not to be.
fn presigning(server: &S3Server, origin: &Origin, endpoint: &str) -> Setup {
    let (port, upstream) = (
        server
            .endpoint()
            .rsplit_once(':')
            .expect("a port")
            .1
            .to_owned(),
        origin.url(""),
    );
    let index = origin.url("/simple");
    let more = format!(
        "  docs: {{ base_url: '{upstream}', mutable_patterns: ['.'] }}\n  \
           plain: {{ base_url: '{upstream}', immutable_patterns: ['.'], presign: off }}\n  \
           held: {{ base_url: '{upstream}', immutable_patterns: ['.'], quarantine_new: true }}\n  \
           apk: {{ base_url: '{upstream}', package: alpine }}\n  \
           py: {{ base_url: '{upstream}', index_url: '{index}', package: pypi }}\n\
         s3: {{ presign: on, public_endpoint: 'http://localhost:{port}' }}\n"
    );
    setup_with(origin, endpoint, &more)
}

/// Asks until the file is no longer in flight: then it is in the store.
async fn settled(larder: &TestLarder, url: &str) -> Answer {
    let first = get(url).await;
    larder.until_idle().await;
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = get(url).await;
        if answer.source() == "cache" || first.status != 200 {
            return answer;
        }
        assert!(Instant::now() < until, "{url} does not settle");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_files_are_had_from_the_store_by_presigned_redirects() {
    let server = S3Server::start().await;
    let origin = Origin::start().await;
    let gate = Gate::to(&server.endpoint()).await;
    let payload = Payload::generated(3 << 20, 11);
    let bytes = payload.slice(0, 3 << 20);
    let recent = SystemClock.now().to_http_date();
    for path in ["/big.bin", "/other.bin", "/docs.bin"] {
        origin.put(path, Resource::new(payload.clone()).etag("\"big\""));
    }
    origin.put(
        "/new.bin",
        Resource::new(payload.clone()).last_modified(&recent),
    );
    origin.put("/small.bin", Resource::new(Payload::generated(5_000, 2)));
    origin.put(
        "/v3.19/main/x86_64/big-1-r0.apk",
        Resource::new(payload.clone()),
    );
    let larder = presigning(&server, &origin, &gate.endpoint()).start().await;
    let url = larder.artifact("remote", "big.bin");

    let sent = settled(&larder, &url).await;
    assert_eq!(sent.status, 307, "{}", sent.text());
    let location = sent.header("location").to_owned();
    let (port, digest) = (
        server
            .endpoint()
            .rsplit_once(':')
            .expect("a port")
            .1
            .to_owned(),
        larder_core::sha256(&bytes).to_hex(),
    );
    let public = format!("http://localhost:{port}/artifacts/sha256/{digest}?");
    assert!(location.starts_with(&public), "{location}");
    assert!(location.contains("X-Amz-Expires=300&"), "{location}");
    assert_eq!(sent.header("cache-control"), "no-store");
    assert!(
        sent.cache_status().starts_with("larder; hit"),
        "{}",
        sent.cache_status()
    );
    assert!(
        sent.body.is_empty() && sent.header("etag").is_empty() && sent.header("age").is_empty()
    );
    assert!(get(&location).await.body == bytes, "the store gives it");
    let spoilt = location.replace(&digest, &larder_core::sha256(b"x").to_hex());
    assert_eq!(get(&spoilt).await.status, 403, "signed for this file alone");

    // Everything else is answered by larder.
    let head = send("HEAD", &url, &[]).await;
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, "3145728")
    );
    let etag = head.header("etag").to_owned();
    let part = send("GET", &url, &[("range", "bytes=5-9")]).await;
    assert!(
        part.status == 206 && part.body == bytes[5..10],
        "{}",
        part.status
    );
    let same = send("GET", &url, &[("if-none-match", &etag)]).await;
    assert_eq!((same.status, same.body.len()), (304, 0));
    let other = send("GET", &url, &[("if-match", "\"none\"")]).await;
    assert_eq!(other.status, 412);
    assert_eq!(get(&url).await.status, 307, "whatever was asked in between");
    for path in [
        larder.artifact("remote", "small.bin"),
        larder.artifact("docs", "docs.bin"),
        larder.artifact("plain", "other.bin"),
        larder.artifact("apk", "v3.19/main/x86_64/big-1-r0.apk"),
    ] {
        let answer = settled(&larder, &path).await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (200, ""),
            "{path}"
        );
    }
    for _ in 0..2 {
        let held = settled(&larder, &larder.artifact("held", "new.bin")).await;
        assert_eq!(
            (held.status, held.header("location")),
            (404, ""),
            "{}",
            held.text()
        );
    }
    let own = larder.artifact("own", "own.bin");
    assert_eq!(put(&own, bytes.clone()).await.status, 201);
    let own = get(&own).await;
    assert_eq!(own.status, 307, "{}", own.text());
    assert!(get(own.header("location")).await.body == bytes);

    // Who is sent along with credentials to the same host would hand them to the store, and be refused by it.
    let authorised = [("authorization", "Basic bGFyZGVyOmNhbmFyeQ==")];
    assert_eq!(
        send("GET", &url, &authorised).await.status,
        307,
        "another host"
    );
    let beside = url.replace("127.0.0.1", "localhost");
    assert_eq!(
        send("GET", &beside, &authorised).await.status,
        200,
        "the same host"
    );
    assert_eq!(send("GET", &beside, &[]).await.status, 307);

    // A store that does not answer is not where clients are sent: the tier has the file.
    for misbehave in [Gate::stall, Gate::close, Gate::refuse] {
        misbehave(&gate);
        let asked = Instant::now();
        let here = get(&url).await;
        assert!(here.status == 200 && here.body == bytes, "{}", here.status);
        assert!(
            asked.elapsed() < Duration::from_secs(5),
            "{:?}",
            asked.elapsed()
        );
        gate.open();
        let until = Instant::now() + Duration::from_secs(20);
        while get(&url).await.status != 307 {
            // It is the next request to the store that finds it answering again.
            assert!(Instant::now() < until, "it is back");
            put(&larder.artifact("own", "wakes"), "x").await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    // Nor to one that has lost it.
    let lost = server
        .ask("DELETE", &format!("/artifacts/sha256/{digest}"), "")
        .await;
    assert_eq!(lost, Some(204));
    let here = get(&url).await;
    assert!(here.status == 200 && here.body == bytes, "{}", here.status);

    let redirects = larder
        .metric("larder_object_store_redirects_total", "")
        .await;
    assert!(redirects >= 5.0, "{redirects}");
    let shown = get(&larder.url("/config")).await.text();
    let log = larder.log();
    assert!(
        shown.contains("\"presign\":true") && shown.contains("public_endpoint"),
        "{shown}"
    );
    for text in [&shown, &log] {
        assert!(
            !text.contains("X-Amz-") && !text.contains("canary"),
            "{text}"
        );
    }
}

/// What pip and curl do with such redirects.
#[tokio::test(flavor = "multi_thread")]
async fn real_clients_follow_presigned_redirects() {
    const WHEEL: &str = "bulky-1.0-py3-none-any.whl";
    let server = S3Server::start().await;
    let origin = Origin::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let run = |program: &std::path::Path, arguments: &[&str]| {
        let ran = std::process::Command::new(program)
            .args(arguments)
            .current_dir(folder.path())
            .env("HOME", folder.path())
            .env("PIP_CONFIG_FILE", "/dev/null")
            .env_remove("PIP_FIND_LINKS")
            .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
            .env("NO_PROXY", "*")
            .output()
            .expect("the program starts");
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&ran.stdout),
            String::from_utf8_lossy(&ran.stderr)
        );
        assert!(ran.status.success(), "{}: {said}", program.display());
        said
    };
    let script = format!(
        "import os, zipfile\n\
         z = zipfile.ZipFile('{WHEEL}', 'w')\n\
         z.writestr('bulky/data', os.urandom(2 << 20))\n\
         z.writestr('bulky-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: bulky\\nVersion: 1.0\\n')\n\
         z.writestr('bulky-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n\
         z.writestr('bulky-1.0.dist-info/RECORD', '')\n\
         z.close()\n"
    );
    run(std::path::Path::new("python3"), &["-c", &script]);
    let wheel = std::fs::read(folder.path().join(WHEEL)).expect("a wheel");
    std::fs::remove_file(folder.path().join(WHEEL)).expect("it goes");
    let digest = larder_core::sha256(&wheel).to_hex();
    let page = format!(
        "<!DOCTYPE html><html><body><a href=\"../../pool/{WHEEL}#sha256={digest}\">{WHEEL}</a></body></html>"
    );
    origin.put(
        "/simple/bulky/",
        Resource::new(page).content_type("text/html"),
    );
    origin.put(&format!("/pool/{WHEEL}"), Resource::new(wheel.clone()));
    let larder = presigning(&server, &origin, &server.endpoint())
        .start()
        .await;
    let redirects = || larder.metric("larder_object_store_redirects_total", "");
    let index = larder.artifact("py", "simple/");
    let pip = larder_testkit::servers::tool("pip");
    let download = [
        "download",
        "--no-deps",
        "--no-cache-dir",
        "-i",
        &index,
        "bulky",
    ];
    run(&pip, &download);
    larder.until_idle().await;
    for _ in 0..2 {
        let _ = std::fs::remove_file(folder.path().join(WHEEL));
        run(&pip, &download);
        let got = std::fs::read(folder.path().join(WHEEL)).expect("a wheel");
        assert!(got == wheel, "the very bytes");
    }
    assert!(redirects().await >= 1.0, "pip was sent to the store");

    let own = larder.artifact("own", "bulky.whl");
    assert_eq!(put(&own, wheel.clone()).await.status, 201);
    let before = redirects().await;
    let curl = std::path::Path::new("curl");
    for credentials in [
        &[][..],
        &["-u", "larder:canary"],
        &["-H", "Authorization: Bearer canary"],
    ] {
        let arguments = [&["-fsSL", "-o", "got", own.as_str()][..], credentials].concat();
        run(curl, &arguments);
        let got = std::fs::read(folder.path().join("got")).expect("a file");
        assert!(got == wheel, "{credentials:?}");
    }
    assert!(
        (redirects().await - before - 3.0).abs() < 0.1,
        "each by a redirect"
    );
    // What was cut goes on: larder has the rest.
    std::fs::write(folder.path().join("got"), &wheel[..1_000_000]).expect("a file");
    run(curl, &["-fsSL", "-C", "-", "-o", "got", &own]);
    assert!(std::fs::read(folder.path().join("got")).expect("a file") == wheel);
    run(curl, &["-fsSIL", &own]);
}

/// What came of a request behind a gate.
#[derive(Debug, Default)]
struct Tally {
    right: u32,
    refused: u32,
    broken: u32,
}

impl Tally {
    /// A body that has come to its end must be the right one.
    fn note(&mut self, outcome: reqwest::Result<Answer>, expected: &[u8], what: &str) {
        match outcome {
            Ok(answer) if answer.status == 200 => {
                assert!(answer.body == expected, "{what}: other bytes");
                self.right += 1;
            }
            Ok(answer) => {
                assert!(
                    matches!(answer.status, 500 | 502 | 503 | 504),
                    "{what}: {}",
                    answer.text()
                );
                self.refused += 1;
            }
            Err(_) => self.broken += 1,
        }
    }
}

/// Reads cold files, one after the other, until it is told to stop.
async fn read_on(root: String, stop: tokio::sync::watch::Receiver<bool>) -> Tally {
    let patient = builder()
        .timeout(Duration::from_mins(3))
        .build()
        .expect("a client");
    let mut tally = Tally::default();
    for number in (1..=12).cycle() {
        if *stop.borrow() {
            return tally;
        }
        let url = format!("{root}c{number}");
        let outcome = try_send(&patient, "GET", &url, &[]).await;
        tally.note(outcome, &numbered(number), &url);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tally
}

/// Uploads one file after the other; gives those that were acknowledged, and how many were not.
async fn upload_on(root: String, stop: tokio::sync::watch::Receiver<bool>) -> (Vec<u64>, u32) {
    let patient = builder()
        .timeout(Duration::from_mins(3))
        .build()
        .expect("a client");
    let (mut acknowledged, mut refused) = (Vec::new(), 0);
    for number in 100.. {
        if *stop.borrow() {
            break;
        }
        let request = patient
            .put(format!("{root}u{number}"))
            .body(numbered(number));
        match request.send().await.map(|answer| answer.status().as_u16()) {
            Ok(201) => acknowledged.push(number),
            Ok(503) => refused += 1,
            other => panic!("u{number}: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (acknowledged, refused)
}

/// Makes a gate misbehave.
type Misbehaviour = fn(&Gate);

/// Longer than a store is waited for before it counts as one that fails.
#[tokio::test(flavor = "multi_thread")]
async fn hazards_a4_l4_l8_w12_behind_a_gate_that_misbehaves() {
    behind_a_gate_that_misbehaves(17).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "more than a minute; part of make stress"]
async fn hazards_a4_l4_l8_w12_behind_a_gate_that_stalls_for_a_minute() {
    behind_a_gate_that_misbehaves(60).await;
}

/// A gate between larder and the store that resets in mid-body, says `SlowDown`, changes bytes, is shut, and stalls for so many seconds,
/// under reads of cold files and uploads: hazards A4, L4, L8, W12.
async fn behind_a_gate_that_misbehaves(stalled: u64) {
    let server = S3Server::start().await;
    let origin = Origin::start().await;
    let gate = Gate::to(&server.endpoint()).await;
    // Nothing fits into the tier, so that every read is one of the store.
    let more = "s3: { tier: 1, upload_lease: 4 }\n";
    let mut larder = setup_with(&origin, &gate.endpoint(), more).start().await;
    for number in 1..=12 {
        let url = larder.artifact("own", &format!("c{number}"));
        assert_eq!(put(&url, numbered(number)).await.status, 201);
    }
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let root = larder.artifact("own", "");
    let readers: Vec<_> = (0..3)
        .map(|_| tokio::spawn(read_on(root.clone(), stopped.clone())))
        .collect();
    let uploads = tokio::spawn(upload_on(root, stopped));
    let small = larder.artifact("own", "c1");
    let faults: [(&str, u64, Misbehaviour); 5] = [
        ("reset in mid-body", 5, |gate| gate.cut_after(300_000)),
        ("503 SlowDown", 6, Gate::refuse),
        ("wrong bytes", 5, |gate| gate.spoil_after(50_000)),
        ("closed", 6, Gate::close),
        ("stalled", stalled, Gate::stall),
    ];
    for (what, seconds, misbehave) in faults {
        let before = gate.resets();
        misbehave(&gate);
        let until = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < until {
            // Who asks whether larder is there is told at once: nobody asks the store for it.
            for path in ["/live", "/ready"] {
                let asked = Instant::now();
                let answer = get(&larder.url(path)).await;
                assert_eq!(answer.status, 200, "{path}, {what}");
                assert!(
                    asked.elapsed() < Duration::from_secs(2),
                    "{path}, {what}: {:?}",
                    asked.elapsed()
                );
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        if what == "stalled" || what == "closed" {
            let asked = Instant::now();
            let gone = get(&small).await;
            assert_eq!(gone.status, 503, "{what}: {}", gone.text());
            assert!(
                asked.elapsed() < Duration::from_secs(10),
                "{what}: {:?}",
                asked.elapsed()
            );
        }
        let resets = gate.resets() - before;
        // What was changed on its way is not let through by what comes now: connections begin anew.
        gate.close();
        tokio::time::sleep(Duration::from_millis(50)).await;
        gate.open();
        let opened = Instant::now();
        while get(&small).await.status != 200 {
            assert!(
                opened.elapsed() < Duration::from_secs(5),
                "{what}: it is back"
            );
        }
        eprintln!(
            "{what} for {seconds} s: {resets} connections reset, a cold file {:?} after its end",
            opened.elapsed()
        );
    }
    stop.send_replace(true);
    for reader in readers {
        let tally = reader.await.expect("no other bytes");
        eprintln!("a reader: {tally:?}");
        assert!(tally.right > 5, "{tally:?}");
    }
    let (acknowledged, refused) = uploads.await.expect("no other answers");
    let kept = acknowledged.len();
    eprintln!("{kept} uploads acknowledged, {refused} refused");
    assert!(kept > 5 && refused > 0, "{kept} {refused}");
    with_an_empty_tier(&mut larder).await;
    for number in acknowledged {
        let answer = get(&larder.artifact("own", &format!("u{number}"))).await;
        assert_eq!(answer.status, 200, "u{number}: {}", answer.text());
        assert!(answer.body == numbered(number), "u{number}: other bytes");
    }
    let took = until_uploads(&store_of(&server), 0, Duration::from_secs(20)).await;
    eprintln!("nothing in ListMultipartUploads after {took:?}");
}

/// A transfer has no time in which it must be over: a store that is slow is waited for as long as something moves.
#[tokio::test(flavor = "multi_thread")]
async fn hazard_a5_a_slow_store_is_waited_for() {
    const LENGTH: u64 = 24 << 20;
    let server = S3Server::start().await;
    let origin = Origin::start().await;
    let gate = Gate::to(&server.endpoint()).await;
    let mut larder = setup(&origin, &gate.endpoint()).start().await;
    let bytes = Payload::generated(LENGTH, 5).slice(0, LENGTH);
    // Four parts at a time take a quarter of a minute each, longer than any wait for an answer.
    gate.slow_down(500_000);
    let began = Instant::now();
    let url = larder.artifact("own", "slow.bin");
    assert_eq!(put(&url, bytes.clone()).await.status, 201);
    let put_in = began.elapsed();
    with_an_empty_tier(&mut larder).await;
    gate.slow_down(700_000);
    let began = Instant::now();
    let patient = builder()
        .timeout(Duration::from_mins(5))
        .build()
        .expect("a client");
    let url = larder.artifact("own", "slow.bin");
    let back = try_send(&patient, "GET", &url, &[])
        .await
        .expect("all of it");
    assert!(back.status == 200 && back.body == bytes);
    eprintln!(
        "{LENGTH} bytes: put in {put_in:?}, read in {:?}",
        began.elapsed()
    );
    assert!(put_in > Duration::from_secs(12) && began.elapsed() > Duration::from_secs(31));
}

/// A body that takes half a minute, longer than most of the faults. Each has bytes of its own: of those that are in the store already
/// nothing is sent.
#[derive(Debug, Clone, Copy)]
struct LongUpload(u64);

impl LongUpload {
    const BLOCKS: u64 = 60;
    const PACE: Duration = Duration::from_millis(500);

    fn blocks(self) -> Range<u64> {
        self.0 * Self::BLOCKS..(self.0 + 1) * Self::BLOCKS
    }

    fn digest(self) -> larder_core::Digest {
        digest_of_blocks(self.blocks())
    }

    fn url(self, larder: &TestLarder) -> String {
        larder.artifact("own", &format!("h{}", self.0))
    }

    /// Its blocks with their digest stated beforehand; the status of the answer, `None` if there was none.
    async fn run(self, url: String) -> Option<u16> {
        let (_all, hold) = tokio::sync::watch::channel(u64::MAX);
        let request = client()
            .put(url)
            .header("x-checksum-sha256", self.digest().to_hex())
            .timeout(Duration::from_mins(4))
            .body(paced(self.blocks(), Self::PACE, hold));
        let answer = request.send().await.ok()?;
        Some(answer.status().as_u16())
    }
}

/// What the store lists of uploads of these bytes.
async fn parts_of(server: &S3Server, digest: &larder_core::Digest) -> usize {
    let there = store_below(server, &format!("sha256/{}", digest.to_hex()));
    there.count_uploads().await.expect("a list")
}

/// What came of the uploads of an hour.
#[derive(Debug, Default)]
struct Hour {
    begun: u64,
    acknowledged: Vec<LongUpload>,
    refused: u32,
    kills: u32,
    /// The most that `ListMultipartUploads` had.
    most: usize,
}

impl Hour {
    /// Two uploads are begun, and when parts of each are on their way, the gate misbehaves for so many seconds. Without a fault larder is
    /// killed there instead.
    async fn round(
        &mut self,
        larder: &mut TestLarder,
        (server, gate): (&S3Server, &Gate),
        fault: Option<(u64, Misbehaviour)>,
    ) {
        let wakes = larder.artifact("own", "wakes");
        let since = Instant::now();
        while put(&wakes, "x").await.status >= 300 {
            assert!(since.elapsed() < PATIENCE, "the store is not back");
        }
        let pair = [LongUpload(self.begun), LongUpload(self.begun + 1)];
        self.begun += 2;
        let running = pair.map(|upload| tokio::spawn(upload.run(upload.url(larder))));
        let digests = pair.map(LongUpload::digest);
        for digest in &digests {
            while parts_of(server, digest).await == 0 {
                assert!(since.elapsed() < 2 * PATIENCE, "{pair:?}: no parts");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        let listed = store_of(server).count_uploads().await.expect("a list");
        self.most = self.most.max(listed);
        if let Some((seconds, misbehave)) = fault {
            misbehave(gate);
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            // What was changed for connections that stand is over.
            gate.close();
            tokio::time::sleep(Duration::from_millis(50)).await;
            gate.open();
        } else {
            larder.kill9();
            self.kills += 1;
            for digest in &digests {
                assert_eq!(parts_of(server, digest).await, 1, "a kill leaves parts");
            }
            larder.restart().await;
        }
        for (upload, outcome) in pair.into_iter().zip(running) {
            match outcome.await.expect("no panic") {
                Some(201) => self.acknowledged.push(upload),
                Some(503) | None => self.refused += 1,
                other => panic!("{upload:?}: {other:?}"),
            }
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a setting of the test, not of the program"
)]
fn minutes_of_faults() -> u64 {
    std::env::var("LARDER_GATE_MINUTES").map_or(30, |text| text.parse().expect("minutes"))
}

/// An hour with the lease that nobody has configured: for half of it the gate resets, refuses, stalls and is shut while large uploads go on,
/// and larder is killed in the midst of them again and again. In the end nothing of it is left in `ListMultipartUploads`.
/// `LARDER_GATE_MINUTES`: how long the faults go on.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "an hour; part of make stress"]
async fn hazard_l8_after_an_hour_behind_a_gate_no_upload_is_left() {
    const HOUR: Duration = Duration::from_hours(1);
    let server = S3Server::start().await;
    let origin = Origin::start().await;
    let store = store_of(&server);
    let gate = Gate::to(&server.endpoint()).await;
    let mut larder = setup(&origin, &gate.endpoint()).start().await;
    let faults: [Option<(u64, Misbehaviour)>; 5] = [
        Some((20, |gate| gate.cut_requests_after(9_000_000))),
        Some((20, Gate::refuse)),
        Some((60, Gate::stall)),
        Some((20, Gate::close)),
        None,
    ];
    let began = Instant::now();
    let mut hour = Hour::default();
    // The last round ends with a kill.
    while began.elapsed() < Duration::from_mins(minutes_of_faults()) {
        for fault in faults {
            hour.round(&mut larder, (&server, &gate), fault).await;
        }
    }
    let left = store.count_uploads().await.expect("a list");
    println!(
        "{:?}: {} uploads acknowledged, {} not, {} connections reset, {} kills, at most {} in ListMultipartUploads, {left} of them after the last kill",
        began.elapsed(),
        hour.acknowledged.len(),
        hour.refused,
        gate.resets(),
        hour.kills,
        hour.most
    );
    assert!(hour.acknowledged.len() > 1 && hour.refused > 1 && left > 0);
    until_uploads(&store, 0, HOUR.saturating_sub(began.elapsed())).await;
    println!("none is left after {:?}", began.elapsed());
    with_an_empty_tier(&mut larder).await;
    for upload in hour.acknowledged {
        let answer = get(&upload.url(&larder)).await;
        assert_eq!(answer.status, 200, "{upload:?}: {}", answer.text());
        assert!(
            larder_core::sha256(&answer.body) == upload.digest(),
            "{upload:?}: other bytes"
        );
    }
}

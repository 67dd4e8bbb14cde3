//! The program with its blobs in a real store that speaks S3.
#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "helpers of tests may fail loudly"
)]

mod support;

use std::time::{Duration, Instant};

use bytes::Bytes;
use larder_testkit::servers::{Gate, S3Server};
use larder_testkit::{Origin, Payload, Resource};
use support::client::client;
use support::{Answer, PATIENCE, Setup, TestLarder, get};

const STEP: usize = 1 << 20;

fn setup(origin: &Origin, endpoint: &str) -> Setup {
    let config = format!(
        "remotes:\n  remote: {{ base_url: '{}', immutable_patterns: ['.'], cache: {{ immutable_ttl: 0 }} }}\n  own: {{ type: local }}\n",
        origin.url("")
    );
    Setup::new(&config)
        .env("MINIO_ENDPOINT", endpoint)
        .env("MINIO_SECURE", "false")
        .env("MINIO_BUCKET", S3Server::BUCKET)
        .env("MINIO_ACCESS_KEY", S3Server::ACCESS_KEY)
        .env("MINIO_SECRET_KEY", S3Server::SECRET_KEY)
}

async fn put(url: &str, body: impl Into<reqwest::Body>) -> Answer {
    let request = client()
        .put(url)
        .body(body)
        .timeout(Duration::from_secs(300));
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
    let block = |number: u64| {
        let digits = larder_core::sha256(&number.to_le_bytes());
        Bytes::from(digits.as_bytes().repeat(STEP / 32))
    };
    let stream = futures_util::stream::iter((0..BLOCKS).map(move |number| {
        let block = block(number);
        std::io::Result::Ok(block)
    }));
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

//! Objects in a real store that speaks S3, with a gate in front of it that misbehaves.
#![expect(
    clippy::unwrap_used,
    reason = "a test program: its helpers panic to report"
)]

#[path = "support/s3.rs"]
mod settings;
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use larder_core::{BlobDescriptor, Secret, UnixMillis, sha256};
use larder_storage::{
    BlobStore, Body, ExpectedBlob, FsBlobStore, MultipartUpload, ObjectBlobStore, ObjectStore,
    Refused, S3Objects, S3Settings, SealedSpool, StorageErrorKind, UploadLeases, conformance,
};
use larder_testkit::servers::{Gate, S3Server};
use settings::settings;
use support::place::{Place, on_both_engines};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

struct Scene {
    server: S3Server,
    gate: Gate,
    objects: S3Objects,
    store: Arc<ObjectBlobStore>,
    _spools: tempfile::TempDir,
}

impl Scene {
    async fn set(prefix: &str) -> Self {
        let server = S3Server::start().await;
        let gate = Gate::to(&server.endpoint()).await;
        let objects = S3Objects::new(settings(gate.endpoint(), prefix), Arc::default()).unwrap();
        let spools = tempfile::tempdir().unwrap();
        let local = FsBlobStore::open(spools.path()).unwrap();
        let store = ObjectBlobStore::new(Arc::new(objects.clone()), local);
        Self {
            server,
            gate,
            objects,
            store: Arc::new(store),
            _spools: spools,
        }
    }

    async fn put(&self, bytes: &[u8]) -> BlobDescriptor {
        self.store.put_bytes(bytes).await.unwrap().descriptor
    }
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 31 % 251) as u8).collect()
}

async fn all(body: Body) -> Vec<u8> {
    let mut all = Vec::new();
    let mut chunks = body.chunks();
    while let Some(chunk) = chunks.next().await {
        all.extend_from_slice(&chunk.unwrap());
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms_with_a_prefix_and_without() {
    let scene = Scene::set("larder/one/").await;
    conformance::suite(Arc::clone(&scene.store) as _).await;
    let spools = tempfile::tempdir().unwrap();
    let objects = S3Objects::new(settings(scene.server.endpoint(), ""), Arc::default()).unwrap();
    let local = FsBlobStore::open(spools.path()).unwrap();
    let plain = ObjectBlobStore::new(Arc::new(objects), local);
    conformance::suite(Arc::new(plain)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_goes_up_in_parts_and_comes_back() {
    let scene = Scene::set("parts/").await;
    let bytes = content((40 << 20) + 12_345);
    let blob = scene.put(&bytes).await;
    assert_eq!(scene.objects.count_uploads().await.unwrap(), 0);
    let body = scene.store.open(&blob).await.unwrap();
    assert!(all(body.clone()).await == bytes);
    let part = body.range(20_000_000, 20_000_100).unwrap();
    assert!(all(part).await == bytes[20_000_000..20_000_100]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_breaks_off_goes_on_and_its_reader_does_not_notice() {
    let scene = Scene::set("").await;
    let bytes = content(8 << 20);
    let blob = scene.put(&bytes).await;
    let body = scene.store.open(&blob).await.unwrap();
    scene.gate.cut_after(1_500_000);
    assert!(all(body.clone()).await == bytes);
    assert!(scene.gate.resets() >= 5, "{} resets", scene.gate.resets());

    // A byte that is spoilt on its way is found, and fetched again.
    scene.gate.close();
    scene.gate.spoil_after(2_500_000);
    assert!(all(body.clone()).await == bytes);
    assert!(scene.store.report().mismatches > 0);

    // Once it has been replaced, the rest of another object is not taken for the rest of this one.
    scene.gate.open();
    let mut chunks = body.chunks();
    let first = chunks.next().await.unwrap().unwrap();
    assert!(bytes.starts_with(&first));
    scene.gate.close();
    tokio::time::sleep(Duration::from_millis(100)).await;
    scene.gate.open();
    let key = format!("sha256/{}", blob.digest.to_hex());
    let direct = S3Objects::new(settings(scene.server.endpoint(), ""), Arc::default()).unwrap();
    let mut other = bytes.clone();
    other.reverse();
    direct.put(&key, Body::Memory(other.into())).await.unwrap();
    let mut given = first.to_vec();
    let mut outcome = Ok(());
    while let Some(chunk) = chunks.next().await {
        match chunk {
            Ok(chunk) => given.extend_from_slice(&chunk),
            Err(error) => outcome = Err(error),
        }
    }
    assert!(bytes.starts_with(&given), "no byte of another object");
    assert!(outcome.is_err() && given.len() < bytes.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_is_told_soon_and_sooner_after_a_while() {
    let mut scene = Scene::set("").await;
    let blob = scene.put(b"here").await;
    let ask = || async {
        let asked = Instant::now();
        let error = scene.store.open(&blob).await.unwrap_err();
        assert_eq!(error.kind, StorageErrorKind::Unavailable, "{error}");
        asked.elapsed()
    };
    scene.gate.stall();
    assert!(ask().await < Duration::from_secs(10), "stalled");
    let asked = Instant::now();
    let error = scene.store.put_bytes(b"more").await.unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Unavailable, "{error}");
    assert!(asked.elapsed() < Duration::from_secs(10), "stalled put");
    scene.gate.close();
    assert!(ask().await < Duration::from_secs(10), "closed");
    tokio::time::sleep(Duration::from_secs(15)).await;
    let waited = ask().await;
    assert!(
        waited < Duration::from_secs(2),
        "closed for long: {waited:?}"
    );
    scene.gate.stall();
    let waited = ask().await;
    assert!(
        waited < Duration::from_secs(2),
        "stalled for long: {waited:?}"
    );
    assert!(scene.store.report().trouble.is_some());
    scene.gate.open();
    let since = Instant::now();
    while scene.store.open(&blob).await.is_err() {
        assert!(since.elapsed() < Duration::from_secs(5), "it is back");
    }
    assert_eq!(scene.store.report().trouble, None);

    // The process itself, gone and back: nothing is lost.
    scene.server.kill();
    let asked = Instant::now();
    let error = scene.store.open(&blob).await.unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Unavailable, "{error}");
    assert!(asked.elapsed() < Duration::from_secs(10));
    scene.server.restart().await;
    let body = scene.store.open(&blob).await.unwrap();
    assert_eq!(all(body).await, b"here");
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_l8_no_upload_is_left_behind() {
    let scene = Scene::set("u/").await;
    // What the process knows of it fails, so that nothing can be aborted.
    let bytes: Arc<[u8]> = content(64 << 20).into();
    let (store, sent) = (Arc::clone(&scene.store), Arc::clone(&bytes));
    let putting = tokio::spawn(async move { store.put_bytes(&sent).await.map(drop) });
    let direct = S3Objects::new(settings(scene.server.endpoint(), "u/"), Arc::default()).unwrap();
    while direct.count_uploads().await.unwrap() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // What is under way here is not swept, however old; what is under way elsewhere is too young.
    assert_eq!(
        scene.objects.sweep_uploads(Duration::ZERO).await.unwrap(),
        0
    );
    let hour = Duration::from_secs(3_600);
    assert_eq!(direct.sweep_uploads(hour).await.unwrap(), 0);
    scene.gate.close();
    let error = putting.await.unwrap().unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Unavailable, "{error}");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(
        direct.count_uploads().await.unwrap(),
        1,
        "it could not be aborted"
    );
    assert_eq!(
        direct.sweep_uploads(Duration::from_secs(2)).await.unwrap(),
        1
    );
    assert_eq!(direct.count_uploads().await.unwrap(), 0);

    // One that is given up is aborted at once.
    scene.gate.open();
    let (store, sent) = (Arc::clone(&scene.store), Arc::clone(&bytes));
    let putting = tokio::spawn(async move { store.put_bytes(&sent).await.map(drop) });
    while direct.count_uploads().await.unwrap() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    putting.abort();
    let since = Instant::now();
    while direct.count_uploads().await.unwrap() > 0 {
        assert!(since.elapsed() < Duration::from_secs(10), "it stays");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

on_both_engines!(
    leases_are_rows,
    hazard_l8_what_is_leased_is_let_be_until_the_lease_ends
);

async fn leases_are_rows(place: Place) {
    let (here, there) = (place.open().await, place.open().await);
    let upload = |key: &str, id: &str| MultipartUpload {
        key: key.to_owned(),
        id: id.to_owned(),
    };
    let (one, two) = (upload("p/sha256/a", "1"), upload("p/sha256/a", "2"));
    here.hold(&one, UnixMillis(100)).await.unwrap();
    here.hold(&two, UnixMillis(200)).await.unwrap();
    assert!(there.knows(&one).await.unwrap());
    assert!(!there.knows(&upload("p/sha256/b", "1")).await.unwrap());
    assert_eq!(there.ended(UnixMillis(99), 9).await.unwrap(), []);
    assert_eq!(
        there.ended(UnixMillis(100), 9).await.unwrap(),
        std::slice::from_ref(&one)
    );
    assert_eq!(
        there.ended(UnixMillis(300), 1).await.unwrap(),
        std::slice::from_ref(&one)
    );
    here.hold(&one, UnixMillis(250)).await.unwrap();
    assert_eq!(
        there.ended(UnixMillis(300), 9).await.unwrap(),
        [two.clone(), one.clone()],
        "the lease was prolonged"
    );
    let rivals = |at| there.rivals(&one, UnixMillis(at));
    assert_eq!(rivals(199).await.unwrap(), ["2"]);
    assert!(rivals(200).await.unwrap().is_empty(), "its lease has ended");
    there.forget(&two).await.unwrap();
    there.forget(&two).await.unwrap();
    assert_eq!(here.ended(UnixMillis(300), 9).await.unwrap(), [one]);
}

async fn hazard_l8_what_is_leased_is_let_be_until_the_lease_ends(place: Place) {
    const LIFE: Duration = Duration::from_secs(3);
    let scene = Scene::set("l/").await;
    let direct = S3Objects::new(settings(scene.server.endpoint(), "l/"), Arc::default()).unwrap();
    scene
        .objects
        .lease_uploads(Arc::new(place.open().await), LIFE);
    direct.lease_uploads(Arc::new(place.open().await), LIFE);
    scene.gate.slow_down(1_000_000);
    let store = Arc::clone(&scene.store);
    let putting = tokio::spawn(async move { store.put_bytes(&content(64 << 20)).await.map(drop) });
    while direct.count_uploads().await.unwrap() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(LIFE + Duration::from_secs(1)).await;
    assert_eq!(direct.sweep_ended().await.unwrap(), 0, "it is renewed");
    assert_eq!(direct.sweep_uploads(Duration::ZERO).await.unwrap(), 0);
    assert!(!putting.is_finished());
    // The process is as good as dead: it reaches the store no more.
    scene.gate.close();
    assert!(putting.await.unwrap().is_err());
    assert_eq!(direct.sweep_uploads(Duration::ZERO).await.unwrap(), 0);
    let since = Instant::now();
    while direct.sweep_ended().await.unwrap() == 0 {
        assert!(since.elapsed() < LIFE * 2, "its lease has ended");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(direct.count_uploads().await.unwrap(), 0);

    // One that is completed leaves no row.
    scene.gate.open();
    scene.put(&content(20 << 20)).await;
    let meta = place.open().await;
    let since = Instant::now();
    while !meta
        .ended(UnixMillis(i64::MAX), 9)
        .await
        .unwrap()
        .is_empty()
    {
        assert!(since.elapsed() < Duration::from_secs(5), "a row is left");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_beforehand_is_sent_while_it_comes() {
    const LENGTH: usize = 40 << 20;
    let scene = Scene::set("a/").await;
    let bytes = content(LENGTH);
    let digest = sha256(&bytes);
    let key = format!("sha256/{}", digest.to_hex());
    for (is_kept, length) in [(false, None), (true, Some(LENGTH as u64)), (true, None)] {
        let expected = ExpectedBlob {
            digest: digest.clone(),
            length,
        };
        let mut spool = scene.store.spool_for(&expected).unwrap();
        let (first, rest) = bytes.split_at(30 << 20);
        for chunk in first.chunks(100_000) {
            spool.append(chunk).unwrap();
        }
        let since = Instant::now();
        while scene.objects.count_uploads().await.unwrap() == 0 {
            assert!(since.elapsed() < Duration::from_secs(20), "it is sent");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        spool.append(rest).unwrap();
        assert_eq!(scene.objects.head(&key).await.unwrap(), None, "no name yet");
        if is_kept {
            let descriptor = BlobDescriptor {
                digest: digest.clone(),
                size: LENGTH as u64,
            };
            let sealed = SealedSpool {
                spool,
                descriptor: descriptor.clone(),
            };
            let info = scene.store.publish(vec![sealed]).await.pop().unwrap();
            assert_eq!(info.unwrap().descriptor, descriptor);
            let body = scene.store.open(&descriptor).await.unwrap();
            assert!(all(body).await == bytes);
            assert!(scene.store.delete(&digest).await.unwrap());
        } else {
            // It was not what it should have been.
            drop(spool);
        }
        let since = Instant::now();
        while scene.objects.count_uploads().await.unwrap() > 0 {
            assert!(since.elapsed() < Duration::from_secs(20), "it stays");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(scene.objects.head(&key).await.unwrap(), None);
    }
    // What breaks off on the way is sent again when it is complete.
    let expected = ExpectedBlob {
        digest: digest.clone(),
        length: None,
    };
    let mut spool = scene.store.spool_for(&expected).unwrap();
    spool.append(&bytes[..30 << 20]).unwrap();
    while scene.objects.count_uploads().await.unwrap() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    scene.gate.close();
    tokio::time::sleep(Duration::from_millis(300)).await;
    scene.gate.open();
    spool.append(&bytes[30 << 20..]).unwrap();
    let descriptor = BlobDescriptor {
        digest,
        size: LENGTH as u64,
    };
    let sealed = SealedSpool {
        spool,
        descriptor: descriptor.clone(),
    };
    scene
        .store
        .publish(vec![sealed])
        .await
        .pop()
        .unwrap()
        .unwrap();
    let body = scene.store.open(&descriptor).await.unwrap();
    assert!(all(body).await == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_presigned_url_is_given_for_what_is_there_alone() {
    let scene = Scene::set("s/").await;
    let blob = scene.put(&content(2 << 20)).await;
    let url = scene.store.presign(&blob).await.unwrap();
    assert!(!format!("{url:?}").contains("X-Amz"), "it is not printed");
    let start = format!("http://{}/artifacts/s/sha256/", scene.gate.endpoint());
    assert!(url.expose().starts_with(&start), "{}", url.expose());
    assert_eq!(url.host(), "127.0.0.1");
    let other = BlobDescriptor {
        size: blob.size + 1,
        ..blob.clone()
    };
    assert_eq!(scene.store.presign(&other).await, None, "another length");
    let absent = BlobDescriptor {
        digest: sha256(b"absent"),
        size: 6,
    };
    assert_eq!(scene.store.presign(&absent).await, None);
    assert_eq!(scene.store.report().presigned, 1);
    scene.gate.stall();
    let asked = Instant::now();
    assert_eq!(scene.store.presign(&blob).await, None, "it does not answer");
    assert!(asked.elapsed() < Duration::from_secs(2));
    let settings = S3Settings {
        public: Some(("store.example.com".to_owned(), true)),
        ..settings(scene.server.endpoint(), "s/")
    };
    let objects = S3Objects::new(settings, Arc::default()).unwrap();
    let url = objects
        .presign("x", Duration::from_secs(60))
        .await
        .unwrap()
        .unwrap();
    let start = "https://store.example.com/artifacts/s/x?X-Amz-Algorithm=AWS4-HMAC-SHA256&";
    assert!(url.expose().starts_with(start), "{}", url.expose());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_says_what_is_wrong() {
    let scene = Scene::set("p/").await;
    let conditional = scene.objects.probe().await.unwrap();
    assert!(conditional.is_empty(), "{conditional:?} missing");
    let never = |settings: S3Settings| async move {
        match S3Objects::new(settings, Arc::default())
            .unwrap()
            .probe()
            .await
        {
            Err(Refused::Never(why)) => why,
            other => panic!("{other:?}"),
        }
    };
    let right = settings(scene.server.endpoint(), "");
    let bucket = S3Settings {
        bucket: "no-such-bucket".to_owned(),
        ..right.clone()
    };
    let said = never(bucket).await;
    assert!(said.contains("no bucket no-such-bucket"), "{said}");
    for (access, secret) in [("larderaccess", "wrong-canary"), ("nobody", "wrong-canary")] {
        let keys = Some((
            Secret::new(access.to_owned()),
            Secret::new(secret.to_owned()),
        ));
        let said = never(S3Settings {
            keys,
            ..right.clone()
        });
        let said = said.await;
        assert!(
            said.contains("credentials") && !said.contains("canary"),
            "{said}"
        );
    }
    scene.gate.close();
    let later = scene.objects.probe().await;
    assert!(matches!(later, Err(Refused::Later(_))), "{later:?}");

    // A store that has lost its bucket has not lost a blob.
    scene.gate.open();
    let blob = scene.put(b"x").await;
    let status = scene
        .server
        .ask("DELETE", &format!("/{}", S3Server::BUCKET), "")
        .await;
    let error = scene.store.open(&blob).await;
    if status == Some(204) {
        let error = error.unwrap_err();
        assert_eq!(error.kind, StorageErrorKind::Unavailable, "{error}");
    } else {
        error.unwrap();
    }
}

/// A replica that has nothing to do with the store hears by asking that it is away, or will not have it.
#[tokio::test(flavor = "multi_thread")]
async fn who_asks_hears_of_a_store_that_is_away_or_refuses() {
    let scene = Scene::set("p/").await;
    let trouble = async |objects: &S3Objects| {
        objects.ping().await;
        objects.trouble().map(|(why, _)| why)
    };
    assert_eq!(trouble(&scene.objects).await, None);
    scene.gate.close();
    scene.store.ping().await;
    assert!(scene.store.report().trouble.is_some());
    scene.gate.open();
    assert_eq!(trouble(&scene.objects).await, None);
    scene.gate.refuse();
    assert!(trouble(&scene.objects).await.is_some());
    scene.gate.open();
    scene.store.ping().await;
    assert_eq!(scene.store.report().trouble, None);

    let right = settings(scene.server.endpoint(), "");
    let keys = ("larderaccess".to_owned(), "wrong-canary".to_owned());
    let stranger = S3Settings {
        keys: Some((Secret::new(keys.0), Secret::new(keys.1))),
        ..right.clone()
    };
    let elsewhere = S3Settings {
        bucket: "no-such-bucket".to_owned(),
        ..right
    };
    for (settings, words) in [
        (stranger, "refuses larder's credentials"),
        (elsewhere, "has no bucket no-such-bucket"),
    ] {
        let objects = S3Objects::new(settings, Arc::default()).unwrap();
        for _ in 0..2 {
            let said = trouble(&objects).await.unwrap();
            assert!(said.contains(words) && !said.contains("canary"), "{said}");
        }
    }
}

/// Answers as the instance metadata service of version 2 does, which gives nothing without a token.
async fn metadata_service() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).await.unwrap_or(0) == 0 {
                    break;
                }
                request.push(byte[0]);
            }
            let request = String::from_utf8_lossy(&request).to_ascii_lowercase();
            let has_token = request.contains("x-aws-ec2-metadata-token: of-the-instance");
            let path = request.split(' ').nth(1).unwrap_or_default();
            let role = "/latest/meta-data/iam/security-credentials/";
            let (status, body) = if request.starts_with("put /latest/api/token ") {
                (200, "of-the-instance".to_owned())
            } else if !has_token {
                (401, String::new())
            } else if path == role {
                (200, "the-role".to_owned())
            } else if path == format!("{role}the-role") {
                let (access, secret) = (S3Server::ACCESS_KEY, S3Server::SECRET_KEY);
                let body = format!(
                    r#"{{"Code": "Success", "AccessKeyId": "{access}", "SecretAccessKey": "{secret}", "Token": "", "Expiration": "2099-01-01T00:00:00Z"}}"#
                );
                (200, body)
            } else {
                (404, String::new())
            };
            let answer = format!(
                "HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn without_keys_the_platform_gives_credentials() {
    let server = S3Server::start().await;
    let of_the_platform = S3Settings {
        keys: None,
        platform: vec![("AWS_METADATA_ENDPOINT".to_owned(), metadata_service().await)],
        ..settings(server.endpoint(), "")
    };
    let objects = S3Objects::new(of_the_platform, Arc::default()).unwrap();
    objects.probe().await.unwrap();
    objects
        .put("x", Body::Memory("signed".into()))
        .await
        .unwrap();
    assert_eq!(objects.head("x").await.unwrap().unwrap().length, 6);

    let nowhere = vec![(
        "AWS_METADATA_ENDPOINT".to_owned(),
        "http://127.0.0.1:1".to_owned(),
    )];
    let lost = S3Settings {
        keys: None,
        platform: nowhere,
        ..settings(server.endpoint(), "")
    };
    match S3Objects::new(lost, Arc::default()).unwrap().probe().await {
        Err(Refused::Later(error)) => assert!(error.message.contains("credentials"), "{error}"),
        other => panic!("{other:?}"),
    }
}

//! HTTPS with a certificate of our own.

use std::path::Path;
use std::time::{Duration, Instant};

use larder_testkit::{Origin, Payload, Resource};
use reqwest::Certificate;
use rustix::process::Signal;

use crate::support::client::{builder, get_timeout, raw, raw_status, try_send};
use crate::support::packages::remote;
use crate::support::{PATIENCE, Setup, TestLarder, check};

/// Writes a certificate for the loopback address, and gives it as a client's root.
fn write_certificate(folder: &Path) -> Certificate {
    let made =
        rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned(), "localhost".to_owned()])
            .expect("a certificate");
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).expect("written");
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).expect("written");
    Certificate::from_pem(made.cert.pem().as_bytes()).expect("a root")
}

fn trusting(root: Certificate) -> reqwest::Client {
    builder().tls_certs_only([root]).build().expect("a client")
}

async fn start(origin: &Origin, folder: &Path) -> TestLarder {
    let tls = format!(
        "\ntls: {{ cert: '{0}/cert.pem', key: '{0}/key.pem' }}\n",
        folder.display()
    );
    Setup::new(&format!("{}{tls}", remote("npm", origin, "")))
        .start()
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn https_serves_documents_and_files_and_links_say_https() {
    let folder = tempfile::tempdir().expect("a directory");
    let client = trusting(write_certificate(folder.path()));
    let origin = Origin::start().await;
    let body = Payload::generated(3 << 20, 4);
    origin.put("/pantry/-/pantry-1.0.0.tgz", Resource::new(body.clone()));
    let tarball = origin.url("/pantry/-/pantry-1.0.0.tgz");
    let packument = serde_json::json!({"name": "pantry", "dist-tags": {"latest": "1.0.0"},
        "versions": {"1.0.0": {"name": "pantry", "version": "1.0.0", "dist": {"tarball": tarball}}}});
    origin.put(
        "/pantry",
        Resource::new(packument.to_string()).content_type("application/json"),
    );
    let larder = start(&origin, folder.path()).await;
    let get = async |url: &str| {
        try_send(&client, "GET", url, &[])
            .await
            .unwrap_or_else(|error| panic!("{url}: {error:?}"))
    };
    let document = get(&larder.artifact("npm", "pantry")).await;
    let link = document.json()["versions"]["1.0.0"]["dist"]["tarball"]
        .as_str()
        .expect("a link")
        .to_owned();
    assert_eq!(link, larder.artifact("npm", "pantry/-/pantry-1.0.0.tgz"));
    assert!(link.starts_with("https://"), "{link}");
    for _ in 0..2 {
        let file = get(&link).await;
        assert!(
            file.status == 200 && file.body == body.slice(0, 3 << 20),
            "{} {} bytes",
            file.status,
            file.body.len()
        );
    }
    let response = client
        .get(&link)
        .header("Range", "bytes=1000-1999")
        .send()
        .await
        .expect("an answer");
    assert_eq!(
        (response.status().as_u16(), response.version()),
        (206, reqwest::Version::HTTP_2),
        "by ALPN"
    );
    assert!(response.bytes().await.expect("a body") == body.slice(1_000, 1_000));
    // Nobody is served in the clear.
    let plain = raw(
        larder.address(),
        b"GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert_ne!(raw_status(&plain), 200, "{plain}");
    larder
        .logged("TLS handshake failed: the connection is closed")
        .await;
    // Somebody else's root does not do.
    let stranger = trusting(write_certificate(
        tempfile::tempdir().expect("a directory").path(),
    ));
    assert!(
        try_send(&stranger, "GET", &larder.url("/live"), &[])
            .await
            .is_err()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_taken_on_sighup_and_a_broken_one_is_not() {
    let folder = tempfile::tempdir().expect("a directory");
    let old = trusting(write_certificate(folder.path()));
    let origin = Origin::start().await;
    let larder = start(&origin, folder.path()).await;
    assert!(
        try_send(&old, "GET", &larder.url("/live"), &[])
            .await
            .is_ok()
    );
    let good = std::fs::read(folder.path().join("cert.pem")).expect("read");
    std::fs::write(folder.path().join("cert.pem"), "no certificate").expect("written");
    larder.signal(Signal::HUP);
    larder.logged("certificate cannot be used").await;
    std::fs::write(folder.path().join("cert.pem"), good).expect("written");
    let new = trusting(write_certificate(folder.path()));
    larder.signal(Signal::HUP);
    let until = Instant::now() + PATIENCE;
    while try_send(&new, "GET", &larder.url("/live"), &[])
        .await
        .is_err()
    {
        assert!(Instant::now() < until, "the new certificate is not used");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    larder
        .logged("a new certificate of larder's own is in force")
        .await;
}

/// Clients will refuse it, but larder serves: what answers can be looked at.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_has_expired_is_told_at_start_and_shown() {
    let folder = tempfile::tempdir().expect("a directory");
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params =
        rcgen::CertificateParams::new(["larder.example.com".to_owned(), "127.0.0.1".to_owned()])
            .expect("names");
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2020, 2, 1);
    let certificate = params.self_signed(&key).expect("a certificate");
    std::fs::write(folder.path().join("cert.pem"), certificate.pem()).expect("written");
    std::fs::write(folder.path().join("key.pem"), key.serialize_pem()).expect("written");
    let larder = start(&Origin::start().await, folder.path()).await;
    let told: Vec<serde_json::Value> = larder
        .log()
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let told: Vec<_> = told
        .iter()
        .filter(|line| {
            line["message"]
                .as_str()
                .is_some_and(|said| said.contains("has expired"))
        })
        .collect();
    assert_eq!(told.len(), 1, "{}", larder.log());
    assert_eq!(told[0]["level"], "ERROR");
    let shown = get_timeout(&larder.url("/health"))
        .await
        .expect("an answer")
        .json()["certificate"]
        .clone();
    assert_eq!(
        (&shown["not_after"], &shown["names"]),
        (
            &"2020-02-01T00:00:00Z".into(),
            &serde_json::json!(["larder.example.com", "127.0.0.1"])
        )
    );
    assert!(
        shown["expires_in_days"]
            .as_i64()
            .is_some_and(|days| days < 0),
        "{shown}"
    );
    // Midnight UTC of that day.
    let page = get_timeout(&larder.url("/metrics"))
        .await
        .expect("an answer")
        .text();
    let expiry = page
        .lines()
        .find_map(|line| line.strip_prefix("larder_certificate_expiry_timestamp_seconds "))
        .expect("a gauge");
    assert_eq!(expiry.parse::<f64>().ok(), Some(1_580_515_200.0));
}

#[test]
fn certificates_that_cannot_be_used_refuse_the_start() {
    let folder = tempfile::tempdir().expect("a directory");
    write_certificate(folder.path());
    let config = |cert: &str, key: &str| {
        let files = format!(
            "cert: '{0}/{cert}', key: '{0}/{key}'",
            folder.path().display()
        );
        format!("tls: {{ {files} }}\nremotes:\n  a: {{ base_url: 'http://a.example' }}\n")
    };
    std::fs::write(folder.path().join("empty.pem"), "").expect("written");
    for (cert, key) in [
        ("cert.pem", "empty.pem"),
        ("empty.pem", "key.pem"),
        ("key.pem", "cert.pem"),
    ] {
        let (status, said) = Setup::new(&config(cert, key)).run_to_end();
        assert_eq!(status.code(), Some(1), "{cert} {key}: {said}");
        assert!(said.contains(".pem"), "{cert} {key}: {said}");
    }
    let (good, said) = check(&config("cert.pem", "none.pem"));
    assert!(!good && said.contains("tls.key"), "{said}");
}

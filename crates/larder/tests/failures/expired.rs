//! Certificates that have expired: the upstream's, and larder's own.

use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::evidence::Cell::{Cannot, Says};
use crate::evidence::{Row, Wire, ask};
use crate::support::TestLarder;

/// A certificate for 127.0.0.1 that was valid in January of 2020, its key, and the authority that vouches for it, as PEM.
fn expired() -> (rcgen::Certificate, KeyPair, String) {
    let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key"))
        .expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let mut leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
    leaf.not_before = rcgen::date_time_ymd(2020, 1, 1);
    leaf.not_after = rcgen::date_time_ymd(2020, 2, 1);
    let leaf = leaf.signed_by(&key, &authority).expect("a certificate");
    (leaf, key, authority.pem())
}

/// An address where handshakes are made with this certificate. Nobody who looks at it goes further.
async fn https(certificate: &rcgen::Certificate, key: &KeyPair) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("a pair");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move { acceptor.accept(stream).await.is_ok() });
        }
    });
    address
}

#[tokio::test]
async fn the_upstream_s_certificate_has_expired() {
    let row = Row {
        failure: "expired certificate of the upstream",
        body: Says(&["TLS failed", "expired", "repository up"]),
        reason: Says(&[
            "upstream of repository up cannot be reached",
            "certificate has expired",
        ]),
        log: Says(&[
            "\"repository\":\"up\"",
            "\"code\":\"upstream_unreachable\"",
            "expired",
            "\"agent\":\"pip/26.2\"",
        ]),
        health: Says(&[
            "upstreams: ",
            "\"repository\":\"up\"",
            "\"state\":\"failing\"",
            "\"cause\":\"tls\"",
            "expired",
        ]),
        metrics: Says(&[
            "larder_upstream_failures_total{",
            "repository=\"up\"",
            "cause=\"tls\"",
            "} 1",
        ]),
    };
    let (certificate, key, authority) = expired();
    let address = https(&certificate, &key).await;
    let directory = tempfile::tempdir().expect("a directory");
    let ca_file = directory.path().join("ca.pem");
    std::fs::write(&ca_file, authority).expect("a file");
    let config = format!(
        "remotes:\n  up:\n    package: generic\n    base_url: https://{address}/\n    ca_file: {}\n",
        ca_file.display()
    );
    let larder = TestLarder::start(&config).await;
    let wire = ask(&larder, "/api/v1/remote/up/pkg/tool-1.0.zip").await;
    assert_eq!(wire.status, 502, "{wire:?}");
    row.is_told(&larder, &wire).await;
}

#[tokio::test]
async fn larder_s_own_certificate_has_expired() {
    let row = Row {
        failure: "expired certificate of larder",
        body: Cannot("clients end the handshake before there is a request"),
        reason: Cannot("clients end the handshake before there is a request"),
        log: Says(&[
            "\"level\":\"ERROR\"",
            "certificate has expired",
            "01 Feb 2020",
        ]),
        health: Says(&["certificate: ", "\"not_after\":\"2020-02-01T00:00:00Z\""]),
        // 2020-02-01, midnight UTC.
        metrics: Says(&["larder_certificate_expiry_timestamp_seconds 1580515200"]),
    };
    let (certificate, key, _) = expired();
    let directory = tempfile::tempdir().expect("a directory");
    let [cert_file, key_file] = ["cert.pem", "key.pem"].map(|name| directory.path().join(name));
    std::fs::write(&cert_file, certificate.pem()).expect("a file");
    std::fs::write(&key_file, key.serialize_pem()).expect("a file");
    let config = format!(
        "remotes: {{}}\ndrain: 0\ntls: {{ cert: '{}', key: '{}' }}\n",
        cert_file.display(),
        key_file.display()
    );
    let larder = TestLarder::start(&config).await;
    row.is_told(&larder, &Wire::default()).await;
}

//! A server whose own certificate stands in `ca_file`, as `openssl req -x509 -subj /CN=files.test -addext
//! subjectAltName=DNS:files.test,IP:127.0.0.1` makes it: an authority by its mark, signed by itself.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use larder_core::UpstreamSettings;
use larder_upstream::{Upstream, UpstreamErrorKind};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, SanType, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{get, repository, text};
use crate::tls::{serve, versions, with_authority};

const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood";

struct SelfSigned {
    certificate: CertificateDer<'static>,
    key: KeyPair,
    pem: String,
}

fn self_signed(change: impl FnOnce(&mut CertificateParams)) -> SelfSigned {
    let mut params = CertificateParams::new(vec!["files.test".to_owned()]).unwrap();
    params
        .subject_alt_names
        .push(SanType::IpAddress(Ipv4Addr::LOCALHOST.into()));
    params
        .distinguished_name
        .push(DnType::CommonName, "files.test");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    SelfSigned {
        certificate: certificate.der().clone(),
        pem: certificate.pem(),
        key,
    }
}

/// Shows one certificate and signs with whatever key it is given.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesServerCert for Shows {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

fn config(
    certificate: &SelfSigned,
    key: &KeyPair,
    allowed: &[&'static rustls::SupportedProtocolVersion],
) -> rustls::ServerConfig {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
    versions(allowed).with_cert_resolver(Arc::new(Shows(Arc::new(CertifiedKey::new(
        vec![certificate.certificate.clone()],
        key,
    )))))
}

async fn origin(certificate: &SelfSigned) -> SocketAddr {
    serve(
        config(certificate, &certificate.key, rustls::ALL_VERSIONS),
        GOOD,
    )
    .await
}

/// The refusal of `https://{host}` by a larder whose `ca_file` holds `pem`.
async fn refusal(addr: SocketAddr, pem: &str, host: &str) -> String {
    let (upstream, settings, mut url, _file) = with_authority(addr, pem);
    url.set_host(Some(host)).unwrap();
    let asked = repository(UpstreamSettings {
        base_urls: vec![url.clone()],
        ..settings
    });
    let error = upstream.send(get(&asked, url)).await.unwrap_err();
    assert_eq!(error.kind, UpstreamErrorKind::Unreachable, "{error}");
    error.message
}

#[tokio::test]
async fn the_server_s_own_certificate_in_ca_file_makes_it_trusted_for_its_names() {
    let (server, stranger) = (self_signed(|_| ()), self_signed(|_| ()));
    let addr = origin(&server).await;
    // Alone, and one of several.
    for pem in [
        server.pem.clone(),
        format!("{}{}", stranger.pem, server.pem),
    ] {
        for host in ["files.test", "127.0.0.1"] {
            let (upstream, settings, mut url, _file) = with_authority(addr, &pem);
            url.set_host(Some(host)).unwrap();
            let asked = repository(UpstreamSettings {
                base_urls: vec![url.clone()],
                ..settings
            });
            assert_eq!(text(&upstream, get(&asked, url)).await, "good", "{host}");
        }
    }
    let message = refusal(addr, &server.pem, "other.test").await;
    assert!(
        message.contains("is not for other.test but for files.test, 127.0.0.1;"),
        "{message}"
    );
}

/// As `openssl req -x509 -addext basicConstraints=CA:FALSE` makes it.
#[tokio::test]
async fn a_self_signed_certificate_that_is_no_authority_is_trusted_as_well() {
    let server = self_signed(|params| params.is_ca = IsCa::ExplicitNoCa);
    let (upstream, settings, url, _file) = with_authority(origin(&server).await, &server.pem);
    assert_eq!(
        text(&upstream, get(&repository(settings), url)).await,
        "good"
    );
}

#[tokio::test]
async fn another_self_signed_certificate_of_the_same_name_is_refused() {
    let (server, stranger, leaf) = (
        self_signed(|_| ()),
        self_signed(|_| ()),
        self_signed(|params| params.is_ca = IsCa::NoCa),
    );
    let message = refusal(origin(&stranger).await, &server.pem, "files.test").await;
    assert!(
        message.contains("ca_file does not hold this very certificate"),
        "{message}"
    );
    let message = refusal(origin(&leaf).await, &server.pem, "files.test").await;
    assert!(
        message.contains("is another authority of that name in ca_file?"),
        "{message}"
    );
}

#[tokio::test]
async fn a_listed_certificate_is_trusted_within_its_dates_only() {
    for (from, until, want) in [
        (2019, 2020, "expired on 2020-01-01T00:00:00Z"),
        (4000, 4001, "is not valid before 4000-01-01T00:00:00Z"),
    ] {
        let server = self_signed(|params| {
            (params.not_before, params.not_after) =
                (date_time_ymd(from, 1, 1), date_time_ymd(until, 1, 1));
        });
        let message = refusal(origin(&server).await, &server.pem, "files.test").await;
        assert!(message.contains(want), "{message}");
    }
}

#[tokio::test]
async fn who_shows_a_listed_certificate_without_its_key_is_refused() {
    let (server, impostor) = (self_signed(|_| ()), KeyPair::generate().unwrap());
    for version in rustls::ALL_VERSIONS {
        let own = serve(config(&server, &server.key, &[version]), GOOD).await;
        let (upstream, settings, url, _file) = with_authority(own, &server.pem);
        assert_eq!(
            text(&upstream, get(&repository(settings), url)).await,
            "good",
            "{version:?}"
        );
        let stolen = serve(config(&server, &impostor, &[version]), GOOD).await;
        let message = refusal(stolen, &server.pem, "files.test").await;
        assert!(message.contains("TLS failed"), "{version:?}: {message}");
    }
}

#[tokio::test]
async fn a_self_signed_certificate_is_refused_where_no_ca_file_lists_it() {
    let server = self_signed(|_| ());
    let (upstream, settings, url, _file) = with_authority(origin(&server).await, &server.pem);
    let error = upstream
        .send(get(
            &repository(UpstreamSettings {
                ca_file: None,
                ..settings
            }),
            url,
        ))
        .await
        .unwrap_err();
    assert!(error.message.contains("add it to ca_file"), "{error}");
}

/// A `ca_file` changes whom larder believes, and not what it speaks.
#[tokio::test]
async fn http_2_is_offered_with_a_ca_file_too() {
    let server = self_signed(|_| ());
    let (told, mut offered) = tokio::sync::mpsc::unbounded_channel();
    let mut config = versions(rustls::ALL_VERSIONS).with_cert_resolver(Arc::new(Listens(told)));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (upstream, settings, url, _file) = with_authority(serve(config, GOOD).await, &server.pem);
    upstream
        .send(get(&repository(settings), url))
        .await
        .unwrap_err();
    assert_eq!(
        offered.recv().await.unwrap(),
        [b"h2".to_vec(), b"http/1.1".to_vec()]
    );
}

/// Tells which protocols a client offers, and shows no certificate.
#[derive(Debug)]
struct Listens(tokio::sync::mpsc::UnboundedSender<Vec<Vec<u8>>>);

impl ResolvesServerCert for Listens {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let offered = hello
            .alpn()
            .map(|offered| offered.map(<[u8]>::to_vec).collect());
        self.0.send(offered.unwrap_or_default()).unwrap();
        None
    }
}

#[tokio::test]
async fn a_port_that_speaks_plain_http_is_named_as_such() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // What servers of plain HTTP say to bytes that are no request.
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream
                .write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
                .await;
        }
    });
    let message = refusal(addr, &self_signed(|_| ()).pem, "files.test").await;
    assert!(message.contains("does not speak TLS"), "{message}");
}

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use larder_core::UpstreamSettings;
use larder_upstream::{HttpUpstream, Upstream, UpstreamErrorKind};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use url::Url;

use crate::support::{Names, get, kind, repository, settings, text};

/// An https origin for `files.test` that answers everything with `reply`; and the PEM of the authority that vouches for it.
async fn https(reply: &'static str) -> (SocketAddr, String) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["files.test".to_owned()])
        .unwrap()
        .signed_by(&key, &authority)
        .unwrap();
    let config = versions(rustls::ALL_VERSIONS)
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    (serve(config, reply).await, authority.pem())
}

pub(crate) fn versions(
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> rustls::ConfigBuilder<rustls::ServerConfig, rustls::server::WantsServerCert> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
}

/// An https origin that answers everything with `reply`.
pub(crate) async fn serve(config: rustls::ServerConfig, reply: &'static str) -> SocketAddr {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                let mut buffer = [0; 4096];
                let _ = stream.read(&mut buffer).await;
                let _ = stream.write_all(reply.as_bytes()).await;
                // No shutdown: the connection ends without close_notify, as when it is cut.
                let _ = stream.flush().await;
            });
        }
    });
    addr
}

pub(crate) fn with_authority(
    addr: SocketAddr,
    pem: &str,
) -> (HttpUpstream, UpstreamSettings, Url, tempfile::NamedTempFile) {
    let (upstream, names): (HttpUpstream, Arc<Names>) = crate::support::upstream();
    names.set("files.test", &["127.0.0.1"]);
    names.set("other.test", &["127.0.0.1"]);
    let url = Url::parse(&format!("https://files.test:{}/", addr.port())).unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(pem.as_bytes()).unwrap();
    let mut settings = settings(&url);
    settings.ca_file = Some(file.path().to_owned());
    (upstream, settings, url, file)
}

#[tokio::test]
async fn a_ca_file_makes_an_upstream_trusted_and_only_for_its_names() {
    let (addr, pem) = https("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood").await;
    let (upstream, settings, url, _file) = with_authority(addr, &pem);
    let trusting = repository(settings.clone());
    assert_eq!(text(&upstream, get(&trusting, url.clone())).await, "good");

    let distrusting = repository(UpstreamSettings {
        ca_file: None,
        ..settings.clone()
    });
    let error = upstream
        .send(get(&distrusting, url.clone()))
        .await
        .unwrap_err();
    assert!(
        error.message.contains("signed by an authority") && error.message.contains("ca_file"),
        "{error}"
    );
    assert_eq!(
        (error.kind, error.cause),
        (
            UpstreamErrorKind::Unreachable,
            Some(larder_upstream::Cause::Tls)
        )
    );

    let mut other = url.clone();
    other.set_host(Some("other.test")).unwrap();
    let named = repository(UpstreamSettings {
        base_urls: vec![other.clone()],
        ..settings
    });
    let error = upstream.send(get(&named, other)).await.unwrap_err();
    assert!(
        error.message.contains(
            "TLS failed: the server's certificate is not for other.test but for files.test;"
        ),
        "{error}"
    );
}

#[tokio::test]
async fn what_does_not_speak_tls_is_told_as_that() {
    for (reply, word) in [
        (&b"HTTP/1.1 400 X\r\n\r\n"[..], "plain http"),
        (b"", "speak TLS"),
    ] {
        for resets in [false, true] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().unwrap();
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    // What is left unread makes of the end a reset.
                    let mut hello = vec![0; if resets { 8 } else { 4096 }];
                    let _ = stream.read(&mut hello).await;
                    let _ = stream.write_all(reply).await;
                }
            });
            let (upstream, _) = crate::support::upstream();
            let url = Url::parse(&format!("https://{addr}/")).unwrap();
            let repository = repository(settings(&url));
            let error = upstream.send(get(&repository, url)).await.unwrap_err();
            // A reset may overtake the reply.
            let is_told = error.message.contains(word) || resets && error.message.contains("TLS");
            assert!(is_told && !error.message.contains("other error"), "{error}");
            assert_eq!(error.cause, Some(larder_upstream::Cause::Tls));
            assert_eq!(error.brief, "the TLS handshake failed");
        }
    }
}

#[tokio::test]
async fn an_unusable_ca_file_says_so() {
    let (addr, _) = https("").await;
    for content in [Some(""), Some("not a certificate"), None] {
        let (upstream, mut settings, url, file) = with_authority(addr, content.unwrap_or_default());
        if content.is_none() {
            settings.ca_file = Some(file.path().with_extension("absent"));
        }
        let error = upstream
            .send(get(&repository(settings), url))
            .await
            .unwrap_err();
        assert!(error.message.contains("ca_file"), "{error}");
        assert_eq!(error.kind, UpstreamErrorKind::Protocol);
    }
}

#[tokio::test]
async fn reload_reads_a_ca_file_again() {
    let (addr, pem) = https("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood").await;
    let (_, stranger) = https("").await;
    let (upstream, settings, url, file) = with_authority(addr, &stranger);
    let repository = repository(settings);
    assert_eq!(
        kind(upstream.send(get(&repository, url.clone())).await),
        UpstreamErrorKind::Unreachable
    );
    std::fs::write(file.path(), &pem).unwrap();
    upstream.reload();
    assert_eq!(text(&upstream, get(&repository, url)).await, "good");
}

#[tokio::test]
async fn hazard_s6_https_is_never_left_for_http() {
    let (addr, pem) =
        https("HTTP/1.1 302 X\r\nLocation: http://files.test/\r\nContent-Length: 0\r\n\r\n").await;
    let (upstream, settings, url, _file) = with_authority(addr, &pem);
    assert_eq!(
        kind(upstream.send(get(&repository(settings), url)).await),
        UpstreamErrorKind::RefusedRedirect
    );
}

#[tokio::test]
async fn hazard_w2_a_tls_connection_cut_without_close_notify_is_a_cut_body() {
    let (addr, pem) = https("HTTP/1.1 200 OK\r\n\r\nhalf").await;
    let (upstream, settings, url, _file) = with_authority(addr, &pem);
    let response = upstream
        .send(get(&repository(settings), url))
        .await
        .unwrap();
    assert_eq!(
        crate::support::read(response).await,
        (b"half".to_vec(), Some(UpstreamErrorKind::Truncated))
    );
}

#[tokio::test]
async fn hazard_a5_a_handshake_that_hangs_ends_with_the_connect_time_out() {
    let origin = crate::origin::Origin::start(|_| vec![crate::origin::Act::Stall]).await;
    let (upstream, _) = crate::support::upstream();
    let url = Url::parse(&format!("https://{}/", origin.addr)).unwrap();
    let mut settings = settings(&url);
    settings.connect_timeout = std::time::Duration::from_millis(200);
    let error = upstream
        .send(get(&repository(settings), url))
        .await
        .unwrap_err();
    assert!(error.message.contains("timeouts.connect"), "{error}");
    assert_eq!(error.kind, UpstreamErrorKind::TimedOut);
}

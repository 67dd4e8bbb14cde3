//! HTTPS: both protocols by ALPN, files without `sendfile`, a new certificate without a restart.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use larder_server::{ServerSettings, TlsFiles, bind};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::harness::{Script, Server, Spec, etag, file_of, pattern, settings};

pub(crate) fn write_certificate(folder: &Path) -> (TlsFiles, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let files = TlsFiles {
        cert: folder.join("cert.pem"),
        key: folder.join("key.pem"),
    };
    std::fs::write(&files.cert, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    (files, made.cert.der().clone())
}

pub(crate) async fn connect(
    server: &Server,
    root: &CertificateDer<'static>,
    protocol: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let socket = TcpStream::connect(server.address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, socket)
        .await?;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol));
    Ok(stream)
}

async fn secure(folder: &Path) -> (Server, CertificateDer<'static>) {
    let (files, root) = write_certificate(folder);
    let server = Server::with(ServerSettings {
        tls: Some(files),
        ..settings()
    })
    .await;
    (server, root)
}

#[tokio::test]
async fn a_large_file_over_both_protocols() {
    let folder = tempfile::tempdir().unwrap();
    let (server, root) = secure(folder.path()).await;
    let content = pattern(3_000_000);
    let spec = Spec {
        representation: etag("v1"),
        ..Spec::default()
    };
    server.script(
        "big",
        Script::File(file_of(&content), content.len() as u64, spec),
    );
    let request = |uri: &str| {
        hyper::Request::builder()
            .uri(uri)
            .header("host", "localhost")
            .body(Empty::<Bytes>::new())
            .unwrap()
    };

    let stream = connect(&server, &root, b"h2").await.unwrap();
    let io = TokioIo::new(stream);
    let (mut sender, driver) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    let driver = tokio::spawn(driver);
    let response = sender
        .send_request(request("https://localhost/api/v1/remote/files/big"))
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.into_body().collect().await.unwrap().to_bytes() == content);
    let mismatch = sender
        .send_request(request("https://other.example/live"))
        .await
        .unwrap();
    assert_eq!(mismatch.status(), 400, "Host is not the authority");
    driver.abort();

    let stream = connect(&server, &root, b"http/1.1").await.unwrap();
    let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let driver = tokio::spawn(driver);
    let response = sender
        .send_request(request("/api/v1/remote/files/big"))
        .await
        .unwrap();
    assert!(response.into_body().collect().await.unwrap().to_bytes() == content);
    driver.abort();
    assert!(
        server
            .fake
            .asked
            .lock()
            .unwrap()
            .iter()
            .all(|asked| asked.base == "https://localhost")
    );
}

/// HTTP/2 has an authority in place of a Host, and cannot close a connection for one request: the stream ends.
#[tokio::test]
async fn over_http2_foreign_names_and_unwanted_bodies_are_refused_and_the_connection_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (server, root) = secure(folder.path()).await;
    let io = TokioIo::new(connect(&server, &root, b"h2").await.unwrap());
    let (mut sender, driver) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    let driver = tokio::spawn(driver);
    let body = || Full::new(Bytes::from(vec![b'x'; 1 << 20]));
    let request = |method: &str, uri: &str| hyper::Request::builder().method(method).uri(uri);
    let browser = request("GET", "https://evil.example/live")
        .header("user-agent", "Mozilla/5.0")
        .body(Full::default())
        .unwrap();
    assert_eq!(sender.send_request(browser).await.unwrap().status(), 421);
    let client = request("GET", "https://evil.example/live")
        .header("user-agent", "pip/26.2")
        .body(Full::default())
        .unwrap();
    assert_eq!(sender.send_request(client).await.unwrap().status(), 200);
    for (method, path, status) in [
        ("POST", "/api/v1/remote/absent/-/audit", 404),
        ("PUT", "/api/v1/remote/files/x", 405),
        ("POST", "/v2/hub/x/blobs/uploads/", 405),
        ("GET", "/api/v1/remote/files/x", 400),
    ] {
        let unwanted = request(method, &format!("https://localhost{path}"))
            .body(body())
            .unwrap();
        assert_eq!(
            sender.send_request(unwanted).await.unwrap().status(),
            status,
            "{method} {path}"
        );
    }
    server.script("-/audit", Script::Through("{}".into()));
    let wanted = request("POST", "https://localhost/api/v1/remote/npm/-/audit")
        .body(body())
        .unwrap();
    assert_eq!(sender.send_request(wanted).await.unwrap().status(), 200);
    assert_eq!(server.fake.asked.lock().unwrap()[0].body.len(), 1 << 20);
    driver.abort();
}

#[tokio::test]
async fn a_new_certificate_is_taken_and_a_bad_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (server, old) = secure(folder.path()).await;
    connect(&server, &old, b"http/1.1").await.unwrap();
    let (files, new) = write_certificate(folder.path());
    server.handle.reload_tls().unwrap();
    assert!(connect(&server, &old, b"http/1.1").await.is_err());
    connect(&server, &new, b"http/1.1").await.unwrap();
    std::fs::write(&files.key, "no key").unwrap();
    assert!(
        server
            .handle
            .reload_tls()
            .unwrap_err()
            .to_string()
            .contains("key.pem")
    );
    connect(&server, &new, b"http/1.1").await.unwrap();
}

#[tokio::test]
async fn hazard_r1_a_handshake_that_does_not_come_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let (files, _) = write_certificate(folder.path());
    let mut settings = settings();
    settings.limits.handshake_timeout = Duration::from_millis(300);
    let server = Server::with(ServerSettings {
        tls: Some(files),
        ..settings
    })
    .await;
    server.connect().await.expect_close().await;
}

#[tokio::test]
async fn files_that_are_missing_or_do_not_fit_stop_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let (files, _) = write_certificate(folder.path());
    let start = |files| {
        bind(ServerSettings {
            tls: Some(files),
            ..settings()
        })
    };
    let missing = TlsFiles {
        cert: folder.path().join("none.pem"),
        key: files.key.clone(),
    };
    assert!(
        start(missing)
            .await
            .unwrap_err()
            .to_string()
            .contains("none.pem")
    );
    let swapped = TlsFiles {
        cert: files.key.clone(),
        key: files.cert.clone(),
    };
    assert!(start(swapped).await.is_err());
}

/// One frame (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A request whose head is not the end of it, with literals that need no table.
fn begun(method: &str, path: &str, stream: u32) -> Vec<u8> {
    let mut block = vec![0x87];
    for (index, value) in [(2_u8, method), (4, path), (1, "localhost")] {
        block.extend([index, value.len() as u8]);
        block.extend(value.as_bytes());
    }
    frame(1, 4, stream, &block)
}

/// Kind, flags and payload of the next frame of a stream; windows do not matter here.
async fn next_of(from: &mut TlsStream<TcpStream>, stream: u32) -> (u8, u8, Vec<u8>) {
    loop {
        let mut head = [0; 9];
        from.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        from.read_exact(&mut payload).await.unwrap();
        if head[5..] == stream.to_be_bytes() && head[3] != 8 {
            return (head[3], head[4], payload);
        }
    }
}

/// Reset in the same moment as it is answered, a stream takes the answer with it in clients that have not looked at it yet (curl 7.88).
#[tokio::test]
async fn who_is_refused_in_the_midst_of_a_body_over_http2_gets_to_read_it() {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const RESET: u8 = 3;
    let folder = tempfile::tempdir().unwrap();
    let (server, root) = secure(folder.path()).await;
    let mut client = connect(&server, &root, b"h2").await.unwrap();
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    sent.extend(frame(4, 0, 0, &[]));
    // What a handler refuses, and what is refused before one is asked.
    for (method, stream) in [("PUT", 1), ("GET", 3)] {
        sent.extend(begun(method, "/nowhere", stream));
        sent.extend(frame(DATA, 0, stream, &[b'x'; 10_000]));
        client.write_all(&sent).await.unwrap();
        client.flush().await.unwrap();
        sent.clear();
        assert_eq!(next_of(&mut client, stream).await.0, HEADERS, "{method}");
        let (kind, flags, body) = next_of(&mut client, stream).await;
        assert_eq!((kind, flags), (DATA, 1), "the end of the answer");
        assert!(!body.is_empty(), "{method}");
        let answered = std::time::Instant::now();
        let (kind, _, code) = next_of(&mut client, stream).await;
        // NO_ERROR (RFC 9113 section 8.1).
        assert_eq!((kind, &*code), (RESET, &[0, 0, 0, 0][..]), "{method}");
        let after = answered.elapsed().as_millis();
        assert!((500..5_000).contains(&after), "{method}: {after} ms");
    }
    // Who ends the body need not be told.
    let mut sent = begun("PUT", "/nowhere", 5);
    sent.extend(frame(DATA, 1, 5, b"x"));
    client.write_all(&sent).await.unwrap();
    client.flush().await.unwrap();
    assert_eq!(next_of(&mut client, 5).await.0, HEADERS);
    assert_eq!(next_of(&mut client, 5).await.0, DATA);
    let more = tokio::time::timeout(Duration::from_millis(1_500), next_of(&mut client, 5)).await;
    assert!(more.is_err(), "{more:?}");
}

//! TLS and HTTP/2 by hand: clients that do not read, or do not even say hello.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::{Setup, TestLarder};

/// A larder that speaks TLS, and what its clients trust.
pub(crate) struct Secure {
    pub(crate) larder: TestLarder,
    root: CertificateDer<'static>,
}

impl Secure {
    pub(crate) async fn start(config: &str, folder: &Path) -> Self {
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        std::fs::write(folder.join("cert.pem"), made.cert.pem()).expect("written");
        std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).expect("written");
        let tls = format!(
            "\ntls: {{ cert: '{0}/cert.pem', key: '{0}/key.pem' }}\n",
            folder.display()
        );
        Self {
            larder: Setup::new(&format!("{config}{tls}")).start().await,
            root: made.cert.der().clone(),
        }
    }

    pub(crate) fn connector(&self, protocol: &[u8]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions");
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        TlsConnector::from(Arc::new(config))
    }

    pub(crate) async fn connect(&self, connector: &TlsConnector) -> TlsStream<TcpStream> {
        let socket = TcpStream::connect(self.larder.address()).await;
        let name = ServerName::try_from("localhost").expect("a name");
        connector
            .connect(name, socket.expect("connected"))
            .await
            .expect("a handshake")
    }
}

/// One frame (RFC 9113 section 4.1).
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The start of a connection of HTTP/2 whose streams have a window of one byte, and requests for `path` on `streams` of them.
pub(crate) fn one_byte_windows(path: &str, streams: u32) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[0, 4, 0, 0, 0, 1]));
    let mut block = vec![0x82, 0x87];
    for (index, value) in [(4_u8, path), (1, "localhost")] {
        block.extend([index, u8::try_from(value.len()).expect("short")]);
        block.extend(value.as_bytes());
    }
    for stream in 0..streams {
        bytes.extend(frame(1, 0x5, 2 * stream + 1, &block));
    }
    bytes
}

pub(crate) async fn send(stream: &mut TlsStream<TcpStream>, bytes: &[u8]) {
    stream.write_all(bytes).await.expect("sent");
    stream.flush().await.expect("flushed");
}

//! An upstream of raw sockets that answers one request on each connection: well, not at all, or a byte at a time.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// From byte to byte of a body that drips.
pub(crate) const DRIP: Duration = Duration::from_millis(100);
/// The media type of what [`Upstream::put_manifest`] puts.
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// How requests are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Well,
    /// The connection is accepted, the request read, and nothing said.
    Silent,
    /// The head comes at once, the body a byte at a time.
    Drips,
    /// The connection is accepted, and the TLS handshake not begun.
    NoHandshake,
}

#[derive(Debug, Clone)]
struct Resource {
    content_type: String,
    digest: Option<String>,
    body: String,
}

/// The state that all connections see: what changes takes effect for those, too, that wait.
#[derive(Debug, Default)]
struct State {
    resources: Mutex<HashMap<String, Resource>>,
}

pub(crate) struct Upstream {
    url: String,
    state: Arc<State>,
    manner: watch::Sender<HashMap<String, Manner>>,
    directory: Option<tempfile::TempDir>,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        Self::listen(None).await
    }

    /// By TLS, with a certificate that [`authority`](Self::authority) vouches for.
    pub(crate) async fn start_tls() -> Self {
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority =
            CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &authority).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let mut upstream = Self::listen(Some(acceptor)).await;
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), authority.pem()).unwrap();
        upstream.directory = Some(directory);
        upstream
    }

    async fn listen(acceptor: Option<tokio_rustls::TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if acceptor.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}/", listener.local_addr().unwrap());
        let state = Arc::new(State::default());
        let manner = watch::Sender::new(HashMap::new());
        let (shared, told) = (Arc::clone(&state), manner.subscribe());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, told) = (Arc::clone(&shared), told.clone());
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // Clients may leave at any time.
                    let _ = serve(stream, acceptor, &shared, told).await;
                });
            }
        });
        Self {
            url,
            state,
            manner,
            directory: None,
        }
    }

    /// The root, with a slash at the end.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The file with the certificate authority's certificate.
    pub(crate) fn authority(&self) -> PathBuf {
        self.directory
            .as_ref()
            .map_or_else(|| panic!("it speaks no TLS"), tempfile::TempDir::path)
            .join(Path::new("ca.pem"))
    }

    pub(crate) fn put(&self, path: &str, content_type: &str, body: &str) {
        self.insert(path, content_type, None, body.to_owned());
    }

    /// An image's manifest that says `note`.
    pub(crate) fn put_manifest(&self, path: &str, note: &str) {
        let body = format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"{MANIFEST}\",\"config\":{{}},\"layers\":[],\"annotations\":{{\"note\":\"{note}\"}}}}"
        );
        let digest = larder_core::sha256(body.as_bytes()).to_string();
        self.insert(path, MANIFEST, Some(digest), body);
    }

    fn insert(&self, path: &str, content_type: &str, digest: Option<String>, body: String) {
        let resource = Resource {
            content_type: content_type.to_owned(),
            digest,
            body,
        };
        let mut resources = self.state.resources.lock().unwrap();
        resources.insert(path.to_owned(), resource);
    }

    /// Behaves so from now on, on connections that wait as well.
    pub(crate) fn behave(&self, manner: Manner) {
        self.behave_at("", manner);
    }

    /// The same at one path only.
    pub(crate) fn behave_at(&self, path: &str, manner: Manner) {
        self.manner.send_modify(|all| {
            all.insert(path.to_owned(), manner);
        });
    }
}

type Told = watch::Receiver<HashMap<String, Manner>>;

fn manner_at(told: &Told, path: &str) -> Manner {
    let all = told.borrow();
    let at = all.get(path).or_else(|| all.get(""));
    at.copied().unwrap_or(Manner::Well)
}

async fn serve(
    stream: TcpStream,
    acceptor: Option<tokio_rustls::TlsAcceptor>,
    state: &State,
    mut told: Told,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let Some(acceptor) = acceptor else {
        return answer(stream, state, told).await;
    };
    let shakes = |all: &HashMap<String, Manner>| all.get("") != Some(&Manner::NoHandshake);
    if told.wait_for(shakes).await.is_err() {
        return Ok(());
    }
    answer(acceptor.accept(stream).await?, state, told).await
}

async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    state: &State,
    mut told: Told,
) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await?);
    }
    let line = String::from_utf8_lossy(&request).into_owned();
    let mut words = line.split_ascii_whitespace();
    let method = words.next().unwrap_or_default().to_owned();
    let path = words.next().unwrap_or_default().to_owned();
    while manner_at(&told, &path) == Manner::Silent {
        if told.changed().await.is_err() {
            return Ok(());
        }
    }
    let found = state.resources.lock().unwrap().get(&path).cloned();
    let Some(resource) = found else {
        let nothing = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        return stream.write_all(nothing).await;
    };
    let tag = larder_core::sha256(resource.body.as_bytes()).to_hex();
    let digest = resource.digest.map_or_else(String::new, |digest| {
        format!("docker-content-digest: {digest}\r\n")
    });
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {}\r\ncontent-length: {}\r\netag: \"{tag}\"\r\n{digest}connection: close\r\n\r\n",
        resource.content_type,
        resource.body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    if method != "HEAD" {
        for byte in resource.body.as_bytes() {
            stream.write_all(&[*byte]).await?;
            if manner_at(&told, &path) == Manner::Drips {
                stream.flush().await?;
                // Whoever is well again does not go on so.
                let well = |all: &HashMap<String, Manner>| {
                    all.get(&path).or_else(|| all.get("")) != Some(&Manner::Drips)
                };
                let _ = tokio::time::timeout(DRIP, told.wait_for(well)).await;
            }
        }
    }
    stream.flush().await?;
    stream.shutdown().await
}

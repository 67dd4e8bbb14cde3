//! HTTPS: the server's certificate, read from files and read again when they change.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::settings::TlsFiles;

/// Why a certificate cannot be used. Names the file; never shows its content.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or is no PEM file of the right kind.
    #[error("{file}: {reason}")]
    File {
        /// The file's path as configured.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// Certificate and key do not belong together, or the key's kind is not supported.
    #[error("the certificate {cert} and the key {key} cannot be used together: {reason}")]
    Pair {
        /// The certificate's path as configured.
        cert: String,
        /// The key's path as configured.
        key: String,
        /// What is wrong.
        reason: String,
    },
}

/// The certificate in force.
pub(crate) struct Tls {
    files: TlsFiles,
    current: Arc<Current>,
    acceptor: TlsAcceptor,
}

#[derive(Debug)]
struct Current {
    key: ArcSwap<CertifiedKey>,
    changed: ArcSwap<Changed>,
}

/// When the two files were last modified.
type Changed = [Option<SystemTime>; 2];

impl Tls {
    pub(crate) fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let current =
            Arc::new(Current { changed: ArcSwap::from_pointee(changed(&files)), key: ArcSwap::from_pointee(read(&files)?) });
        let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&versions)
            .map_err(|error| pair_error(&files, &error))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { files, current, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }

    /// Reads the files again. A bad file leaves the certificate in force.
    pub(crate) fn reload(&self) -> Result<(), TlsError> {
        let times = changed(&self.files);
        self.current.key.store(Arc::new(read(&self.files)?));
        self.current.changed.store(Arc::new(times));
        Ok(())
    }

    /// Reads the files again if they have been modified since. Says whether they have.
    pub(crate) fn reload_if_changed(&self) -> Result<bool, TlsError> {
        let times = changed(&self.files);
        if times == **self.current.changed.load() {
            return Ok(false);
        }
        // Once for each change: a bad file is reported once, not every minute.
        self.current.changed.store(Arc::new(times));
        self.reload().map(|()| true)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.files).finish()
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.key.load_full())
    }
}

fn changed(files: &TlsFiles) -> Changed {
    [&files.cert, &files.key].map(|path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok())
}

fn read(files: &TlsFiles) -> Result<CertifiedKey, TlsError> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect)
        .map_err(|error| file_error(&files.cert, &error.to_string()))?;
    if chain.is_empty() {
        return Err(file_error(&files.cert, "it holds no certificate"));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| file_error(&files.key, &error.to_string()))?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|error| pair_error(files, &error))
}

fn file_error(path: &Path, reason: &str) -> TlsError {
    TlsError::File { file: path.display().to_string(), reason: reason.to_owned() }
}

fn pair_error(files: &TlsFiles, error: &rustls::Error) -> TlsError {
    TlsError::Pair { cert: files.cert.display().to_string(), key: files.key.display().to_string(), reason: error.to_string() }
}

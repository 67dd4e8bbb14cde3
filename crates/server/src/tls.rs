//! HTTPS: the server's certificate, read from files and read again when they change.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use larder_core::UnixMillis;
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

/// Between which moments the server's own certificate is valid (RFC 5280 section 4.1.2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateDates {
    /// Before this moment clients refuse it.
    pub not_before: UnixMillis,
    /// After this moment clients refuse it.
    pub not_after: UnixMillis,
}

/// Reads certificate and key as a start does, without serving: both readable, of supported kinds, and a pair. Gives the dates of the
/// server's own certificate, the first of the chain; whether it has expired is the caller's to judge.
///
/// # Errors
/// Why they cannot be used, for the operator.
pub fn check_tls(files: &TlsFiles) -> Result<CertificateDates, TlsError> {
    let key = read(files)?;
    let dates = key.cert.first().and_then(|certificate| dates(certificate));
    dates.ok_or_else(|| file_error(&files.cert, "the dates of its first certificate cannot be read"))
}

fn dates(certificate: &CertificateDer<'_>) -> Option<CertificateDates> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let validity = parsed.validity();
    let millis = |time: x509_parser::time::ASN1Time| UnixMillis(time.timestamp().saturating_mul(1_000));
    Some(CertificateDates { not_before: millis(validity.not_before), not_after: millis(validity.not_after) })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dates_are_those_of_the_first_certificate() {
        let directory = tempfile::tempdir().unwrap();
        let files = TlsFiles { cert: directory.path().join("cert.pem"), key: directory.path().join("key.pem") };
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 2, 1);
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(&files.cert, certificate.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        // 2020-01-01 and 2020-02-01, midnight UTC.
        let expected = CertificateDates { not_before: UnixMillis(1_577_836_800_000), not_after: UnixMillis(1_580_515_200_000) };
        assert_eq!(check_tls(&files).unwrap(), expected);

        let other = rcgen::KeyPair::generate().unwrap();
        std::fs::write(&files.key, other.serialize_pem()).unwrap();
        assert!(matches!(check_tls(&files), Err(TlsError::Pair { .. })), "another key");
        std::fs::write(&files.cert, "").unwrap();
        assert!(matches!(check_tls(&files), Err(TlsError::File { .. })), "an empty file");
    }
}

//! Which servers are believed where a `ca_file` is configured: those that the system's roots vouch for, those that an authority of
//! the file vouches for, and a server whose own certificate stands in the file.
//!
//! The last is what `openssl req -x509` makes: a certificate that is marked as an authority and used as a server's. Chain building
//! refuses it in that place, though other clients take it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use rustls_platform_verifier::Verifier;

use crate::client::ClientError;

/// Whether a `ca_file` can be used: readable, and nothing but PEM certificates in it. Blocking.
///
/// # Errors
/// What is wrong with the file, without its path and content.
pub fn check_ca_file(path: &Path) -> Result<(), String> {
    let pem = std::fs::read(path).map_err(|error| format!("cannot be read: {error}"))?;
    let usable = Authorities::from_pem(&pem).map(drop);
    usable.ok_or_else(|| "holds no PEM certificate, or one that cannot be read".to_owned())
}

/// The certificates of a `ca_file`.
pub(crate) struct Authorities(Vec<CertificateDer<'static>>);

impl Authorities {
    pub(crate) async fn read(path: &Path) -> Result<Self, ClientError> {
        let reading = path.to_path_buf();
        let pem = tokio::task::spawn_blocking(move || std::fs::read(reading))
            .await
            .unwrap_or_else(|_| Err(std::io::ErrorKind::Interrupted.into()))
            .map_err(|error| ClientError::Unreadable {
                path: path.to_path_buf(),
                cause: error.kind(),
            })?;
        Self::from_pem(&pem).ok_or_else(|| ClientError::NoCertificate(PathBuf::from(path)))
    }

    /// `None` if there is no certificate, or one that cannot be understood.
    fn from_pem(pem: &[u8]) -> Option<Self> {
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .ok()?;
        let mut roots = RootCertStore::empty();
        certificates
            .iter()
            .try_for_each(|certificate| roots.add(certificate.clone()))
            .ok()?;
        (!certificates.is_empty()).then_some(Self(certificates))
    }

    /// TLS that believes these and the system's roots. Reads the system's roots: not for an async task.
    pub(crate) fn client_config(self) -> Result<ClientConfig, Error> {
        let provider: Arc<CryptoProvider> = Arc::new(aws_lc_rs::default_provider());
        let usual = Verifier::new_with_extra_roots(self.0.iter().cloned(), Arc::clone(&provider))?;
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Trust {
                usual,
                listed: self.0,
            }))
            .with_no_client_auth();
        // As the HTTP library has it where it makes the configuration itself.
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// The usual verification, with one exception.
#[derive(Debug)]
struct Trust {
    usual: Verifier,
    listed: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.usual.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        ) {
            // This gives away nothing: who holds the key of a listed authority could sign a certificate for any name with it.
            // The dates are checked before the verdict that the certificate is an authority's (a test holds that), so that an
            // expired one does not come here; the handshake's signature is verified as always, below.
            Err(error)
                if is_authority_as_server(&error)
                    && self.listed.iter().any(|listed| listed == end_entity) =>
            {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

/// Whether a server was refused because its certificate is marked as an authority.
pub(crate) fn is_authority_as_server(error: &Error) -> bool {
    let Error::InvalidCertificate(CertificateError::Other(other)) = error else {
        return false;
    };
    matches!(
        other.0.downcast_ref(),
        Some(webpki::Error::CaUsedAsEndEntity)
    )
}

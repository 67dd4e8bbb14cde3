//! Certificates and keys in PEM files: reads them, and says what somebody may have put there instead.

use std::path::Path;

use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// The private keys that the library can sign with.
const KEYS: &str = "larder takes RSA keys of 2048 bits and more, ECDSA keys on P-256, P-384 and P-521, and Ed25519 keys";

/// The certificates of a file, in the file's order; at least one.
///
/// # Errors
/// Why there is none, for the operator.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| damaged(path, &error))?;
    if !chain.is_empty() {
        return Ok(chain);
    }
    Err(match Held::at(path) {
        Held::Key => "it holds a key and no certificate: are `cert` and `key` exchanged?",
        Held::Request => "it holds a request for a certificate: the certificate is what the authority makes of it",
        Held::Nothing => "it is empty",
        Held::NoPem => {
            "it holds no certificate in PEM; `openssl x509 -inform DER` and `openssl pkcs12 -nokeys` make PEM of other forms"
        }
        Held::Certificate | Held::Encrypted | Held::Other => "it holds no certificate",
    }
    .to_owned())
}

/// The private key of a file.
///
/// # Errors
/// Why there is none, for the operator.
pub(crate) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let held = Held::at(path);
    if held == Held::Encrypted {
        return Err(
            "the key is encrypted, and larder asks for no passphrase: `openssl pkey -in FILE -out NEW` takes it off".to_owned()
        );
    }
    PrivateKeyDer::from_pem_file(path).map_err(|error| match (&error, held) {
        (pem::Error::NoItemsFound, Held::Certificate) => {
            "it holds a certificate and no key: are `cert` and `key` exchanged?".to_owned()
        }
        (pem::Error::NoItemsFound, Held::Nothing) => "it is empty".to_owned(),
        (pem::Error::NoItemsFound, Held::NoPem) => {
            "it holds no key in PEM; `openssl pkey -inform DER` and `openssl pkcs12 -nocerts -nodes` make PEM of other forms"
                .to_owned()
        }
        (pem::Error::NoItemsFound, _) => "it holds no private key".to_owned(),
        _ => damaged(path, &error),
    })
}

/// Puts a chain and its key together.
///
/// # Errors
/// Why they cannot be used together, for the operator.
pub(crate) fn pair(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, String> {
    let provider = aws_lc_rs::default_provider();
    let later = chain.get(1..).unwrap_or_default().to_vec();
    let kept = key.clone_key();
    CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            let belongs = |one: CertificateDer<'static>| CertifiedKey::from_der(vec![one], kept.clone_key(), &provider).is_ok();
            if later.into_iter().any(belongs) {
                "the key is that of a later certificate of the file: the server's own must be the first, its issuer's after it"
                    .to_owned()
            } else {
                "the key is another certificate's".to_owned()
            }
        }
        // What the library says of a key that it cannot load.
        rustls::Error::General(_) => format!("the key is of a kind that is not supported: {KEYS}"),
        other => other.to_string(),
    })
}

fn damaged(path: &Path, error: &pem::Error) -> String {
    match error {
        // Read again for the words of the operating system.
        pem::Error::Io(_) => std::fs::read(path).err().map_or_else(
            || error.to_string(),
            |error| format!("cannot be read: {error}"),
        ),
        _ => format!("it is damaged PEM ({error})"),
    }
}

/// What a file seems to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Nothing,
    NoPem,
    Certificate,
    Request,
    Key,
    Encrypted,
    Other,
}

impl Held {
    fn at(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let begins = |kind: &str| {
            text.lines()
                .any(|line| line.starts_with("-----BEGIN ") && line.contains(kind))
        };
        // RFC 1421 section 4.6.1.1 marks keys of the older form by a field.
        if begins("ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED") {
            Self::Encrypted
        } else if begins("PRIVATE KEY") {
            Self::Key
        } else if begins("CERTIFICATE REQUEST") {
            Self::Request
        } else if begins("CERTIFICATE") {
            Self::Certificate
        } else if begins("") {
            Self::Other
        } else if text.trim().is_empty() {
            Self::Nothing
        } else {
            Self::NoPem
        }
    }
}

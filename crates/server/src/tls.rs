//! HTTPS: the server's certificate, read from files and read again when they change.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use larder_core::{Clock as _, SystemClock, UnixMillis};
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use tokio_rustls::TlsAcceptor;
use x509_parser::extensions::GeneralName;

use crate::pem;
use crate::settings::TlsFiles;

/// From so long before its end on, the operator is reminded of a certificate, once a day.
const SOON: Duration = Duration::from_hours(30 * 24);
const BETWEEN_REMINDERS: Duration = Duration::from_hours(24);

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
    Ok(described(files, &read(files)?)?.dates)
}

/// The server's own certificate, as far as operators are told.
#[derive(Debug)]
pub(crate) struct Certificate {
    pub(crate) dates: CertificateDates,
    /// The host names and addresses that it is for.
    pub(crate) names: Vec<String>,
}

fn described(files: &TlsFiles, key: &CertifiedKey) -> Result<Certificate, TlsError> {
    let certificate = key.cert.first().and_then(|certificate| parsed(certificate));
    certificate.ok_or_else(|| {
        file_error(
            &files.cert,
            "the dates of its first certificate cannot be read",
        )
    })
}

fn parsed(certificate: &CertificateDer<'_>) -> Option<Certificate> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let validity = parsed.validity();
    let millis =
        |time: x509_parser::time::ASN1Time| UnixMillis(time.timestamp().saturating_mul(1_000));
    let dates = CertificateDates {
        not_before: millis(validity.not_before),
        not_after: millis(validity.not_after),
    };
    let alternatives = parsed.subject_alternative_name().ok().flatten();
    let names = alternatives
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => <[u8; 4]>::try_from(*bytes)
                .map(|bytes| IpAddr::from(bytes).to_string())
                .or_else(|_| {
                    <[u8; 16]>::try_from(*bytes).map(|bytes| IpAddr::from(bytes).to_string())
                })
                .ok(),
            _ => None,
        });
    Some(Certificate {
        dates,
        names: names.collect(),
    })
}

/// The certificate in force.
pub(crate) struct Tls {
    files: TlsFiles,
    current: Arc<Current>,
    acceptor: TlsAcceptor,
    /// When the operator was last told of a certificate that is about to expire.
    told: AtomicI64,
}

#[derive(Debug)]
struct Current {
    certificate: ArcSwap<Certificate>,
    key: ArcSwap<CertifiedKey>,
    changed: ArcSwap<Changed>,
}

/// When the two files were last modified.
type Changed = [Option<SystemTime>; 2];

impl Tls {
    pub(crate) fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let (changed, key) = (changed(&files), read(&files)?);
        let current = Arc::new(Current {
            certificate: ArcSwap::from_pointee(described(&files, &key)?),
            changed: ArcSwap::from_pointee(changed),
            key: ArcSwap::from_pointee(key),
        });
        let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
        let mut config =
            rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_protocol_versions(&versions)
                .map_err(|error| pair_error(&files, error.to_string()))?
                .with_no_client_auth()
                .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let tls = Self {
            files,
            current,
            acceptor: TlsAcceptor::from(Arc::new(config)),
            told: AtomicI64::new(0),
        };
        tls.tell_of_expiry(SystemClock.now());
        Ok(tls)
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }

    /// Reads the files again. A bad file leaves the certificate in force.
    pub(crate) fn reload(&self) -> Result<(), TlsError> {
        let (times, key) = (changed(&self.files), read(&self.files)?);
        let certificate = described(&self.files, &key)?;
        if self.current.key.load().cert != key.cert {
            tracing::info!(
                file = %self.files.cert.display(), not_after = certificate.dates.not_after.to_http_date(),
                "a new certificate of larder's own is in force"
            );
        }
        self.current.certificate.store(Arc::new(certificate));
        self.current.key.store(Arc::new(key));
        self.current.changed.store(Arc::new(times));
        self.tell_of_expiry(SystemClock.now());
        Ok(())
    }

    /// The certificate in force.
    pub(crate) fn certificate(&self) -> Arc<Certificate> {
        self.current.certificate.load_full()
    }

    /// Tells the operator once a day of a certificate that has to be renewed.
    pub(crate) fn remind(&self, now: UnixMillis) {
        let told = UnixMillis(self.told.load(Ordering::Relaxed));
        if told > now || now.since(told) >= BETWEEN_REMINDERS {
            self.tell_of_expiry(now);
        }
    }

    fn tell_of_expiry(&self, now: UnixMillis) {
        self.told.store(now.0, Ordering::Relaxed);
        let not_after = self.certificate().dates.not_after;
        match expiry(not_after, now) {
            Expiry::Far => {}
            Expiry::Soon { days } => tracing::warn!(
                file = %self.files.cert.display(), not_after = not_after.to_http_date(), days,
                "larder's own certificate expires soon: renew it; it is read again when the file changes"
            ),
            Expiry::Over => tracing::error!(
                file = %self.files.cert.display(), not_after = not_after.to_http_date(),
                "larder's own certificate has expired: clients refuse it; renew it; it is read again when the file changes"
            ),
        }
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

/// How far away the end of a certificate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expiry {
    Far,
    Soon { days: u64 },
    Over,
}

fn expiry(not_after: UnixMillis, now: UnixMillis) -> Expiry {
    // RFC 5280 section 4.1.2.5: the last moment belongs to the time of validity.
    if now > not_after {
        return Expiry::Over;
    }
    let left = not_after.since(now);
    if left < SOON {
        Expiry::Soon {
            days: left.as_secs() / 86_400,
        }
    } else {
        Expiry::Far
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
    [&files.cert, &files.key].map(|path| {
        std::fs::metadata(path)
            .and_then(|metadata| metadata.modified())
            .ok()
    })
}

fn read(files: &TlsFiles) -> Result<CertifiedKey, TlsError> {
    let chain =
        pem::certificates(&files.cert).map_err(|reason| file_error(&files.cert, &reason))?;
    let key = pem::key(&files.key).map_err(|reason| file_error(&files.key, &reason))?;
    pem::pair(chain, key).map_err(|reason| pair_error(files, reason))
}

fn file_error(path: &Path, reason: &str) -> TlsError {
    TlsError::File {
        file: path.display().to_string(),
        reason: reason.to_owned(),
    }
}

fn pair_error(files: &TlsFiles, reason: String) -> TlsError {
    TlsError::Pair {
        cert: files.cert.display().to_string(),
        key: files.key.display().to_string(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_spoken_of_from_thirty_days_before_its_end_on() {
        let end = UnixMillis(100 * 86_400_000);
        let days = |days: i64| expiry(end, UnixMillis(end.0 - days * 86_400_000));
        assert_eq!((days(31), days(30)), (Expiry::Far, Expiry::Far));
        assert_eq!(
            (days(29), days(0)),
            (Expiry::Soon { days: 29 }, Expiry::Soon { days: 0 })
        );
        assert_eq!(
            (days(-1), expiry(end, UnixMillis(end.0 + 1))),
            (Expiry::Over, Expiry::Over)
        );
    }

    #[test]
    fn the_dates_are_those_of_the_first_certificate() {
        let directory = tempfile::tempdir().unwrap();
        let files = TlsFiles {
            cert: directory.path().join("cert.pem"),
            key: directory.path().join("key.pem"),
        };
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 2, 1);
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(&files.cert, certificate.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        // 2020-01-01 and 2020-02-01, midnight UTC.
        let expected = CertificateDates {
            not_before: UnixMillis(1_577_836_800_000),
            not_after: UnixMillis(1_580_515_200_000),
        };
        assert_eq!(check_tls(&files).unwrap(), expected);

        let other = rcgen::KeyPair::generate().unwrap();
        std::fs::write(&files.key, other.serialize_pem()).unwrap();
        assert!(
            matches!(check_tls(&files), Err(TlsError::Pair { .. })),
            "another key"
        );
        std::fs::write(&files.cert, "").unwrap();
        assert!(
            matches!(check_tls(&files), Err(TlsError::File { .. })),
            "an empty file"
        );
    }
}

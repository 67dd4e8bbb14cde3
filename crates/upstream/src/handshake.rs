//! Why a TLS handshake failed, in words for users. The library's own are partly the names of its types.

use jiff::Timestamp;
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error};

use crate::trust::is_authority_as_server;

/// Names of a certificate that are shown.
const NAMES: usize = 5;

/// What is wrong, and what to do.
pub(crate) fn explained(error: &Error) -> String {
    match error {
        _ if is_authority_as_server(error) => {
            "the server's certificate is an authority's own, and ca_file does not hold this very certificate; if it is the right \
             one, add it to ca_file"
                .to_owned()
        }
        Error::InvalidCertificate(certificate) => of_certificate(certificate),
        Error::NoCertificatesPresented => "the server showed no certificate".to_owned(),
        Error::AlertReceived(alert) => of_alert(*alert),
        Error::PeerIncompatible(_) => "the server offers neither TLS 1.2 nor TLS 1.3 with a cipher that is safe".to_owned(),
        Error::InvalidMessage(_) | Error::InappropriateMessage { .. } => {
            "what answered does not speak TLS; is this a port for plain http://?".to_owned()
        }
        Error::FailedToGetCurrentTime => "this machine does not tell the time".to_owned(),
        _ => "the server broke the rules of the handshake".to_owned(),
    }
}

/// The same in a few words, none of which came from the server.
pub(crate) fn brief(error: &Error) -> &'static str {
    use CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
        NotValidYetContext, Revoked, UnknownIssuer,
    };
    let Error::InvalidCertificate(certificate) = error else {
        return "the TLS handshake failed";
    };
    match certificate {
        Expired | ExpiredContext { .. } => "its certificate has expired",
        NotValidYet | NotValidYetContext { .. } => "its certificate is not valid yet",
        NotValidForName | NotValidForNameContext { .. } => "its certificate is for another name",
        UnknownIssuer => "its certificate is not trusted; ca_file may name its authority",
        Revoked => "its certificate was revoked",
        _ => "its certificate cannot be accepted",
    }
}

fn of_certificate(error: &CertificateError) -> String {
    use CertificateError::{
        BadEncoding, BadSignature, Expired, ExpiredContext, InvalidPurpose, InvalidPurposeContext,
        NotValidForName, NotValidForNameContext, NotValidYet, NotValidYetContext, Revoked,
        UnknownIssuer, UnsupportedSignatureAlgorithmContext,
        UnsupportedSignatureAlgorithmForPublicKeyContext,
    };
    match error {
        UnknownIssuer => "the server's certificate is signed by an authority that neither this system nor ca_file vouches for; if it \
                          is an authority of your own, add its certificate to ca_file"
            .to_owned(),
        ExpiredContext { not_after, .. } => format!(
            "the server's certificate, or one that it depends on, expired on {}; it has to be renewed there",
            date(*not_after)
        ),
        Expired => "the server's certificate, or one that it depends on, has expired; it has to be renewed there".to_owned(),
        NotValidYetContext { not_before, .. } => {
            format!("the server's certificate is not valid before {}; is this machine's clock right?", date(*not_before))
        }
        NotValidYet => "the server's certificate is not valid yet; is this machine's clock right?".to_owned(),
        NotValidForNameContext { expected, presented } => format!(
            "the server's certificate is not for {} but for {}; use a name of the certificate, or one with this name",
            expected.to_str(),
            names(presented)
        ),
        NotValidForName => "the server's certificate is for another name; use a name of the certificate".to_owned(),
        Revoked => "the server's certificate was revoked".to_owned(),
        BadEncoding => "the server's certificate is malformed".to_owned(),
        BadSignature => {
            "the server's certificate, or the handshake, is not signed by who it says; is another authority of that name in ca_file?"
                .to_owned()
        }
        UnsupportedSignatureAlgorithmContext { .. } | UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "the server's certificate is signed in a way that is no longer taken for safe, or not known; it has to be renewed there"
                .to_owned()
        }
        InvalidPurpose | InvalidPurposeContext { .. } => "the server's certificate is not one for servers".to_owned(),
        _ => "the server's certificate is not fit for a server: look at its extensions with `openssl x509 -text`".to_owned(),
    }
}

fn of_alert(alert: AlertDescription) -> String {
    use AlertDescription::{
        AccessDenied, CertificateRequired, HandshakeFailure, InternalError, ProtocolVersion,
        UnrecognisedName,
    };
    match alert {
        HandshakeFailure | ProtocolVersion => {
            "the server refuses the handshake: it may know neither TLS 1.2 nor TLS 1.3, nor a cipher that is safe".to_owned()
        }
        UnrecognisedName => "the server has no site of this name".to_owned(),
        CertificateRequired => "the server asks for a certificate of the client, and larder has none".to_owned(),
        AccessDenied => "the server refuses larder".to_owned(),
        InternalError => "the server reports a fault of its own".to_owned(),
        other => format!("the server refuses the handshake (alert {})", u8::from(other)),
    }
}

fn date(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs())
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok());
    seconds.map_or_else(
        || "a date that cannot be told".to_owned(),
        |date| date.to_string(),
    )
}

/// The names of a certificate. They arrive as `DnsName("a.example")` and `IpAddress(192.0.2.1)`, and say what the server likes.
fn names(presented: &[String]) -> String {
    let is_plain = |name: &&str| {
        name.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._*:".contains(&byte))
    };
    let plain: Vec<&str> = presented
        .iter()
        .filter_map(|name| {
            let dns = name
                .strip_prefix("DnsName(\"")
                .and_then(|rest| rest.strip_suffix("\")"));
            dns.or_else(|| {
                name.strip_prefix("IpAddress(")
                    .and_then(|rest| rest.strip_suffix(')'))
            })
        })
        .filter(is_plain)
        .collect();
    let shown = plain
        .iter()
        .take(NAMES)
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    match plain.len() {
        0 => "no name or address (its subjectAltName names none)".to_owned(),
        all if all > NAMES => format!("{shown} and {} more", all - NAMES),
        _ => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_bare_and_a_few() {
        let names =
            |list: &[&str]| names(&list.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        assert_eq!(
            names(&[
                "DnsName(\"*.example.com\")",
                "IpAddress(192.0.2.1)",
                "IpAddress(::1)"
            ]),
            "*.example.com, 192.0.2.1, ::1"
        );
        assert_eq!(
            names(&[
                "DnsName(\"a\")",
                "DnsName(\"b\")",
                "DnsName(\"c\")",
                "DnsName(\"d\")",
                "DnsName(\"e\")",
                "DnsName(\"f\")"
            ]),
            "a, b, c, d, e and 1 more"
        );
        let nothing = "no name or address (its subjectAltName names none)";
        assert_eq!(
            names(&["DnsName(\"a\nb\")", "DirectoryName", "Unsupported(0x01)"]),
            nothing,
            "nothing that could forge a log"
        );
        assert_eq!(names(&[]), nothing);
    }

    #[test]
    fn an_explanation_names_no_type_of_the_library() {
        use CertificateError as C;
        let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_700_000_000));
        let certificates = [
            C::UnknownIssuer,
            C::Expired,
            C::ExpiredContext {
                time,
                not_after: time,
            },
            C::NotValidYetContext {
                time,
                not_before: time,
            },
            C::NotValidForName,
            C::Revoked,
            C::BadEncoding,
            C::BadSignature,
            C::InvalidPurpose,
            C::ApplicationVerificationFailure,
            C::UnhandledCriticalExtension,
        ];
        let alerts = (0..=u8::MAX).map(|code| Error::AlertReceived(AlertDescription::from(code)));
        let others = [
            Error::DecryptError,
            Error::NoCertificatesPresented,
            Error::General("CamelCase".to_owned()),
        ];
        for error in certificates
            .into_iter()
            .map(Error::InvalidCertificate)
            .chain(alerts)
            .chain(others)
        {
            let text = explained(&error);
            let camel = |word: &str| {
                word.chars()
                    .zip(word.chars().skip(1))
                    .any(|(a, b)| a.is_lowercase() && b.is_uppercase())
            };
            assert!(!text.split(' ').any(camel), "{text}");
        }
        let expired = Error::InvalidCertificate(C::ExpiredContext {
            time,
            not_after: time,
        });
        assert!(
            explained(&expired).contains("2023-11-14T22:13:20Z"),
            "{}",
            explained(&expired)
        );
    }
}

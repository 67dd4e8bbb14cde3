//! Whom a token may be fetched from, and whether user name and password may go there. Pure: names are not resolved here.
//!
//! A hostile or compromised registry can name any realm. That would be credential theft (hazard S7) and a way into the private
//! network (hazard S10), so the account's password goes to the registry's own registrable domain and to what the operator has listed.

use larder_core::UpstreamSettings;
use url::{Host, Url};

use crate::redirect::has_user_info;

/// A realm that may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Judged {
    /// User name and password, if there are any, and the repository's own `headers` may go there.
    pub(crate) trusted: bool,
    /// It may be private, by the operator's word.
    pub(crate) configured: bool,
}

/// Why a realm is not asked at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RefusedRealm {
    #[error("the registry names no usable token realm")]
    Unusable,
    #[error("the registry speaks https and its token realm http")]
    Downgrade,
    #[error(
        "the registry wants tokens from {0}, which is outside its own domain: user name and password were not sent; list the host in \
         token_hosts if it may have them"
    )]
    Foreign(String),
}

/// The realm as a URL.
///
/// # Errors
/// It is no http or https URL, or carries a user name.
pub(crate) fn realm_url(text: &str) -> Result<Url, RefusedRealm> {
    let mut url = Url::parse(text).map_err(|_| RefusedRealm::Unusable)?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() || has_user_info(&url) {
        return Err(RefusedRealm::Unusable);
    }
    url.set_fragment(None);
    Ok(url)
}

/// How `realm` may be asked, when the server at `challenger` has named it.
///
/// Only configured origins can make a realm trusted. Whoever a redirect leads to gets anonymous tokens from public realms.
///
/// # Errors
/// It may not be asked.
pub(crate) fn judge(
    challenger: &Url,
    realm: &Url,
    settings: &UpstreamSettings,
    token_hosts: &[String],
) -> Result<Judged, RefusedRealm> {
    if challenger.scheme() == "https" && realm.scheme() != "https" {
        return Err(RefusedRealm::Downgrade);
    }
    if !settings.is_configured_origin(challenger) {
        return Ok(Judged {
            trusted: false,
            configured: false,
        });
    }
    let configured = challenger.host() == realm.host()
        || token_hosts.iter().any(|entry| names_host(entry, realm));
    let trusted = configured || same_registrable_domain(challenger, realm);
    if !trusted && settings.credentials.is_some() {
        return Err(RefusedRealm::Foreign(
            realm.host_str().unwrap_or_default().to_owned(),
        ));
    }
    Ok(Judged {
        trusted,
        configured,
    })
}

/// Whether an entry of `token_hosts` (`host` or `host:port`) names the host of `url`.
fn names_host(entry: &str, url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default();
    entry == host
        || port.is_some_and(|port| {
            entry
                .strip_prefix(host)
                .and_then(|rest| rest.strip_prefix(':'))
                == Some(&port.to_string())
        })
}

/// Whether both names were registered by the same owner, by the Public Suffix List. Addresses and names below a suffix that the list
/// does not know have no registrable domain.
fn same_registrable_domain(one: &Url, other: &Url) -> bool {
    let registrable = |url: &Url| match url.host() {
        Some(Host::Domain(name)) => {
            let domain =
                psl::domain(name.as_bytes()).filter(|domain| domain.suffix().is_known())?;
            Some(domain.as_bytes().to_ascii_lowercase())
        }
        _ => None,
    };
    registrable(one).is_some_and(|domain| registrable(other) == Some(domain))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use larder_core::{Credentials, Secret, UpstreamAuth};
    use std::time::Duration;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    pub(in crate::auth) fn settings(base: &str, account: bool) -> UpstreamSettings {
        UpstreamSettings {
            base_urls: vec![url(base)],
            index_url: url(base),
            credentials: account.then(|| Credentials {
                username: "u".to_owned(),
                password: Secret::new("p".to_owned()),
            }),
            auth: UpstreamAuth::Challenge {
                token_hosts: Vec::new(),
            },
            default_namespace: None,
            headers: Vec::new(),
            connect_timeout: Duration::ZERO,
            read_timeout: Duration::ZERO,
            allow_private: Vec::new(),
            link_hosts: None,
            ca_file: None,
            proxy: None,
            offline: false,
            max_size: None,
            max_disk: None,
            limits: larder_core::RequestLimits::default(),
        }
    }

    fn judged(base: &str, realm: &str, token_hosts: &[&str]) -> Result<Judged, RefusedRealm> {
        let token_hosts: Vec<String> = token_hosts.iter().map(|&host| host.to_owned()).collect();
        judge(&url(base), &url(realm), &settings(base, true), &token_hosts)
    }

    #[test]
    fn hazard_s7_the_password_goes_to_the_registrys_own_domain() {
        for (base, realm, configured) in [
            (
                "https://registry.example.com/",
                "https://registry.example.com/token",
                true,
            ),
            (
                "https://registry.example.com/",
                "https://REGISTRY.example.com:8443/token",
                true,
            ),
            (
                "http://127.0.0.1:5000/",
                "http://127.0.0.1:5001/token",
                true,
            ),
            ("http://[::1]:5000/", "http://[::1]:5001/token", true),
            ("http://registry:5000/", "http://registry:5001/token", true),
            (
                "https://registry-1.example.com/",
                "https://auth.example.com/token",
                false,
            ),
            (
                "https://registry.example.com/",
                "https://example.com/token",
                false,
            ),
            (
                "https://example.com/",
                "https://auth.eu.example.com/token",
                false,
            ),
            (
                "https://registry.example.co.uk/",
                "https://auth.example.co.uk/token",
                false,
            ),
            (
                "http://registry.example.com/",
                "https://auth.example.com/token",
                false,
            ),
        ] {
            assert_eq!(
                judged(base, realm, &[]),
                Ok(Judged {
                    trusted: true,
                    configured
                }),
                "{base} {realm}"
            );
        }
    }

    #[test]
    fn hazard_s7_foreign_realms_do_not_get_it() {
        for (base, realm) in [
            (
                "https://registry.example.com/",
                "https://auth.example.net/token",
            ),
            (
                "https://registry.example.com/",
                "https://registry.example.com.evil.example.net/token",
            ),
            (
                "https://registry.example.com/",
                "https://evilexample.com/token",
            ),
            // Neighbours below a public suffix, of a country's registry or of a hosting provider.
            ("https://registry.co.uk/", "https://evil.co.uk/token"),
            ("https://one.github.io/", "https://two.github.io/token"),
            // Names that the list does not know have no owner in common.
            (
                "https://registry.one.svc.cluster.local/",
                "https://registry.two.svc.cluster.local/token",
            ),
            ("http://registry/", "http://auth/token"),
            ("http://127.0.0.1:5000/", "http://127.0.0.2:5000/token"),
            ("http://10.0.0.5/", "http://10.0.0.6/token"),
            ("http://localhost/", "http://127.0.0.1/token"),
        ] {
            let host = url(realm).host_str().unwrap().to_owned();
            assert_eq!(
                judged(base, realm, &[]),
                Err(RefusedRealm::Foreign(host)),
                "{base} {realm}"
            );
            // Without an account there is nothing to lose; the realm has to be public, though.
            let anonymous = judge(&url(base), &url(realm), &settings(base, false), &[]);
            assert_eq!(
                anonymous,
                Ok(Judged {
                    trusted: false,
                    configured: false
                })
            );
        }
    }

    #[test]
    fn token_hosts_are_the_operators_word_by_host_or_by_host_and_port() {
        let base = "https://registry.example.com/";
        let good = Ok(Judged {
            trusted: true,
            configured: true,
        });
        for (realm, entry, want) in [
            ("https://auth.example.net/t", "auth.example.net", true),
            ("https://auth.example.net:8443/t", "auth.example.net", true),
            ("https://auth.example.net/t", "auth.example.net:443", true),
            (
                "https://auth.example.net:8443/t",
                "auth.example.net:443",
                false,
            ),
            ("https://a.auth.example.net/t", "auth.example.net", false),
            ("https://[fd00::1]:8443/t", "[fd00::1]:8443", true),
        ] {
            assert_eq!(
                judged(base, realm, &[entry]) == good,
                want,
                "{realm} {entry}"
            );
        }
        // Beside the registry's own domain, not in its place.
        assert_eq!(
            judged(base, "https://auth.example.com/t", &["x.example.net"])
                .map(|judged| judged.trusted),
            Ok(true)
        );
    }

    #[test]
    fn hazard_s7_whoever_a_redirect_leads_to_makes_nothing_trusted() {
        let settings = settings("https://registry.example.com/", true);
        let anonymous = Ok(Judged {
            trusted: false,
            configured: false,
        });
        for challenger in [
            "https://cdn.example.net/",
            "https://registry.example.com:8443/",
            "https://other.example.com/",
        ] {
            for realm in [
                "https://cdn.example.net/t",
                "https://registry.example.com/t",
                "https://listed.example.org/t",
            ] {
                let hosts = ["listed.example.org".to_owned()];
                assert_eq!(
                    judge(&url(challenger), &url(realm), &settings, &hosts),
                    anonymous,
                    "{challenger} {realm}"
                );
            }
        }
    }

    #[test]
    fn hazard_s7_realms_that_nobody_asks() {
        assert_eq!(
            judged(
                "https://registry.example.com/",
                "http://registry.example.com/t",
                &[]
            ),
            Err(RefusedRealm::Downgrade)
        );
        for text in [
            "",
            "/token",
            "token",
            "file:///etc/passwd",
            "ftp://a.example.com/",
            "https://",
            "https://u@a.example.com/",
            "https://:p@a.example.com/",
            "data:,x",
        ] {
            assert_eq!(realm_url(text), Err(RefusedRealm::Unusable), "{text}");
        }
        assert_eq!(
            realm_url("HTTPS://A.example.com/t?x=1#y").unwrap().as_str(),
            "https://a.example.com/t?x=1"
        );
    }
}

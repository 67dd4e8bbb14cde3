//! Which proxy a request to an upstream goes through, by the words of `proxy:` and of `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`. Pure.
//!
//! Whoever asks must use the same answer for the connection and for judging the address: what is not proxied is resolved here.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use url::{Host, Url};

use crate::secret::SafeUrl;

/// Proxies by the scheme of the requested URL, and what is reached without them. `Debug` shows no credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyRules {
    http: Option<Url>,
    https: Option<Url>,
    bypass: Option<ProxyBypass>,
}

impl ProxyRules {
    /// This proxy for every request, whatever its host: a repository's own `proxy`.
    pub fn for_everything(proxy: Url) -> Self {
        Self {
            http: Some(proxy.clone()),
            https: Some(proxy),
            bypass: None,
        }
    }

    /// A proxy for each scheme, with exceptions. Loopback is always one: a proxy elsewhere has another.
    pub fn with_exceptions(http: Option<Url>, https: Option<Url>, bypass: ProxyBypass) -> Self {
        Self {
            http,
            https,
            bypass: Some(bypass),
        }
    }

    /// The proxy for a request to `url`; `None` = directly.
    ///
    /// ```
    /// use larder_core::{ProxyBypass, ProxyRules};
    /// use url::Url;
    ///
    /// let proxy = Url::parse("http://proxy.example.com:3128")?;
    /// let rules = ProxyRules::with_exceptions(Some(proxy.clone()), None, ProxyBypass::parse("intra.example.com")?);
    /// assert_eq!(rules.for_url(&Url::parse("http://files.example.com/")?), Some(&proxy));
    /// assert_eq!(rules.for_url(&Url::parse("http://files.intra.example.com/")?), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn for_url(&self, url: &Url) -> Option<&Url> {
        let proxy = if url.scheme() == "https" {
            self.https.as_ref()
        } else {
            self.http.as_ref()
        };
        proxy.filter(|_| {
            !self
                .bypass
                .as_ref()
                .is_some_and(|bypass| is_loopback(url) || bypass.covers(url))
        })
    }
}

impl fmt::Debug for ProxyRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let safe = |url: &Option<Url>| url.clone().map(SafeUrl);
        f.debug_struct("ProxyRules")
            .field("http", &safe(&self.http))
            .field("https", &safe(&self.https))
            .field("bypass", &self.bypass)
            .finish()
    }
}

/// `NO_PROXY`: what is reached directly.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxyBypass(Vec<Exception>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Exception {
    what: What,
    /// On this port only.
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Everything,
    Network(IpNet),
    /// This name and all below it, in lower case.
    Domain(String),
}

impl ProxyBypass {
    /// Reads a list that is separated by commas or spaces: `*`, domains (with or without a leading `.` or `*.`), addresses and
    /// networks, each with `:port` if it is about one port only.
    ///
    /// # Errors
    /// The entry that is none of these.
    pub fn parse(text: &str) -> Result<Self, String> {
        let entries = text
            .split([',', ' ', '\t', '\n'])
            .filter(|entry| !entry.is_empty());
        entries
            .map(|entry| exception(entry).ok_or_else(|| entry.to_owned()))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    fn covers(&self, url: &Url) -> bool {
        self.0.iter().any(|exception| {
            exception
                .port
                .is_none_or(|port| Some(port) == url.port_or_known_default())
                && exception.what.covers(url)
        })
    }
}

impl What {
    fn covers(&self, url: &Url) -> bool {
        match (self, url.host()) {
            (Self::Everything, _) => true,
            (Self::Network(network), Some(host)) => {
                address(&host).is_some_and(|address| network.contains(&address))
            }
            (Self::Domain(domain), Some(Host::Domain(name))) => {
                let name = name.strip_suffix('.').unwrap_or(name);
                let above = name.strip_suffix(domain.as_str());
                above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
            }
            _ => false,
        }
    }
}

fn exception(entry: &str) -> Option<Exception> {
    if entry == "*" {
        return Some(Exception {
            what: What::Everything,
            port: None,
        });
    }
    if let Some(network) = network(entry) {
        return Some(Exception {
            what: What::Network(network),
            port: None,
        });
    }
    let (host, port) = match entry.rsplit_once(':') {
        Some((host, port)) => (
            host,
            Some(port.parse::<u16>().ok().filter(|port| *port > 0)?),
        ),
        None => (entry, None),
    };
    let what = match network(host) {
        Some(network) => What::Network(network),
        None => What::Domain(domain(host)?),
    };
    Some(Exception { what, port })
}

/// An address with or without brackets, or a network.
fn network(text: &str) -> Option<IpNet> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    let address = bare
        .parse::<IpAddr>()
        .ok()
        .map(|address| IpNet::from(address.to_canonical()));
    address.or_else(|| text.parse::<IpNet>().ok().map(|network| network.trunc()))
}

fn domain(text: &str) -> Option<String> {
    let name = text
        .strip_prefix("*.")
        .or_else(|| text.strip_prefix('.'))
        .unwrap_or(text);
    let parsed = Url::parse(&format!("http://{name}/")).ok()?;
    // The parser takes more than names: what it took away (user, port, path) would be silently lost.
    let legal = !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'));
    match parsed.host() {
        Some(Host::Domain(name)) if legal => {
            Some(name.strip_suffix('.').unwrap_or(name).to_owned())
        }
        _ => None,
    }
}

fn address(host: &Host<&str>) -> Option<IpAddr> {
    match host {
        Host::Ipv4(address) => Some(IpAddr::V4(*address)),
        Host::Ipv6(address) => Some(IpAddr::V6(*address).to_canonical()),
        Host::Domain(_) => None,
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => {
            let name = name.strip_suffix('.').unwrap_or(name);
            name == "localhost" || name.ends_with(".localhost")
        }
        Some(host) => address(&host).is_some_and(|address| address.is_loopback()),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn is_proxied(no_proxy: &str, target: &str) -> bool {
        let proxy = Some(url("http://proxy.example.com:3128"));
        let rules = ProxyRules::with_exceptions(
            proxy.clone(),
            proxy,
            ProxyBypass::parse(no_proxy).unwrap(),
        );
        rules.for_url(&url(target)).is_some()
    }

    #[test]
    fn exceptions_are_domains_addresses_networks_ports_and_everything() {
        for (no_proxy, target, proxied) in [
            ("", "https://example.com/", true),
            ("*", "https://example.com/", false),
            ("example.com", "https://example.com/", false),
            ("example.com", "https://a.b.EXAMPLE.com./", false),
            ("example.com", "https://notexample.com/", true),
            (".example.com", "https://a.example.com/", false),
            ("*.example.com", "https://a.example.com/", false),
            ("other.example, example.com", "https://example.com/", false),
            ("other.example example.com", "https://example.com/", false),
            ("example.com:8443", "https://example.com:8443/", false),
            ("example.com:8443", "https://example.com/", true),
            ("example.com:443", "https://example.com/", false),
            ("192.0.2.7", "http://192.0.2.7/", false),
            ("192.0.2.0/24", "http://192.0.2.7/", false),
            ("192.0.2.0/24", "http://192.0.3.7/", true),
            ("192.0.2.7:81", "http://192.0.2.7:81/", false),
            ("192.0.2.7:81", "http://192.0.2.7/", true),
            ("2001:db8::1", "http://[2001:db8::1]/", false),
            ("[2001:db8::1]:81", "http://[2001:db8::1]:81/", false),
            ("2001:db8::/32", "http://[2001:db8:1::1]/", false),
            ("10.0.0.0/8", "http://ten.example/", true),
        ] {
            assert_eq!(
                is_proxied(no_proxy, target),
                proxied,
                "NO_PROXY={no_proxy} {target}"
            );
        }
        for wrong in [
            "http://example.com",
            "10.0.0.0/33",
            "a b@c",
            "example.com:0",
            "example.com:port",
            "a/b",
            "*x",
            "a.example;b.example",
            "\"a.example\"",
        ] {
            ProxyBypass::parse(wrong).expect_err(wrong);
        }
    }

    /// As Go's `httpproxy` has it: a proxy elsewhere has another loopback.
    #[test]
    fn loopback_is_proxied_only_by_a_repositorys_own_word() {
        let loopback = [
            "http://localhost:1/",
            "http://a.localhost/",
            "http://127.0.0.9/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
        ];
        for target in loopback {
            assert!(!is_proxied("", target), "{target}");
            let own = ProxyRules::for_everything(url("http://proxy.example.com:3128"));
            assert!(own.for_url(&url(target)).is_some(), "{target}");
        }
    }

    #[test]
    fn each_scheme_has_its_proxy() {
        let rules = ProxyRules::with_exceptions(
            Some(url("http://a.example")),
            None,
            ProxyBypass::default(),
        );
        assert_eq!(
            rules.for_url(&url("http://x.example/")),
            Some(&url("http://a.example"))
        );
        assert_eq!(rules.for_url(&url("https://x.example/")), None);
    }

    #[test]
    fn hazard_s17_debug_shows_no_password() {
        let rules = ProxyRules::for_everything(url("http://user:canary@proxy.example.com"));
        assert!(!format!("{rules:?}").contains("canary"));
    }
}

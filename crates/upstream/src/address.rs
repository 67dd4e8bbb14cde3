//! Which addresses may be contacted. Pure: knows addresses and a repository's `allow_private`; does not resolve names.
//!
//! Two reaches exist. A hop to a configured origin goes wherever the operator's name leads ([`Reach::Configured`]). Every other hop,
//! whether a redirect or a link from a document led there, may go to public addresses and to those that `allow_private` lists for the
//! hop's port ([`Reach::Public`]).

use std::net::IpAddr;

use ipnet::IpNet;
use larder_core::{AllowPrivate, UpstreamSettings, is_public};
use url::{Host, Url};

/// How far a connection may reach.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Reach {
    /// Anywhere: the operator named this origin.
    Configured,
    /// Public addresses and these.
    Public {
        /// What `allow_private` adds, for the port in question.
        allowed: Vec<IpNet>,
    },
}

impl Reach {
    /// The reach of a hop to `url`. `allow_private` entries with a port count only for that port, which is why the reach, and with it
    /// the HTTP client that enforces it, belongs to one port.
    pub(crate) fn of(settings: &UpstreamSettings, url: &Url) -> Self {
        if settings.is_configured_origin(url) {
            return Self::Configured;
        }
        let port = url.port_or_known_default();
        let mut allowed: Vec<IpNet> = settings
            .allow_private
            .iter()
            .filter_map(|entry| match entry {
                AllowPrivate::Network(network) => Some(*network),
                AllowPrivate::Socket(socket) => {
                    (Some(socket.port()) == port).then(|| IpNet::from(socket.ip().to_canonical()))
                }
            })
            .collect();
        allowed.sort();
        allowed.dedup();
        Self::Public { allowed }
    }

    /// Whether a connection to `address` is within this reach.
    pub(crate) fn admits(&self, address: IpAddr) -> bool {
        match self {
            Self::Configured => true,
            Self::Public { allowed } => {
                let address = address.to_canonical();
                is_public(address) || allowed.iter().any(|network| network.contains(&address))
            }
        }
    }

    /// Whether the host of `url`, if it is an address in any spelling, is within this reach. The `url` crate has already turned octal,
    /// hexadecimal, short and decimal IPv4 spellings into addresses. A name is not judged here but when it is resolved.
    pub(crate) fn admits_literal(&self, url: &Url) -> bool {
        match url.host() {
            Some(Host::Ipv4(address)) => self.admits(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => self.admits(IpAddr::V6(address)),
            Some(Host::Domain(_)) | None => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use larder_core::UpstreamAuth;

    const REFUSED: &[&str] = &[
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "10.255.255.255",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.1.2.3",
        "169.254.169.254",
        "169.254.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.2.1",
        "192.168.1.1",
        "192.88.99.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.7",
        "203.0.113.9",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "::10.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2002:a00:1::1",
        "2002:7f00:1::",
        "2002:c0a8:101::1",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd12:3456::1",
        "fe80::1",
        "febf::1",
        "fec0::1",
        "ff02::1",
        "ffff::1",
    ];
    const PUBLIC: &[&str] = &[
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.1",
        "100.63.255.255",
        "100.128.0.1",
        "126.255.255.255",
        "128.0.0.1",
        "151.101.0.223",
        "169.253.255.255",
        "169.255.0.1",
        "172.15.255.255",
        "172.32.0.1",
        "191.255.255.255",
        "192.0.1.1",
        "192.167.255.255",
        "192.169.0.1",
        "198.17.255.255",
        "198.20.0.1",
        "223.255.255.255",
        "2606:4700::1111",
        "2a04:4e42::223",
        "2001:4860:4860::8888",
        "2001:200::1",
        "::ffff:1.1.1.1",
        "64:ff9b::1.1.1.1",
        "2002:101:101::1",
    ];

    fn settings(allow: Vec<AllowPrivate>) -> UpstreamSettings {
        UpstreamSettings {
            base_urls: vec![Url::parse("https://files.example.com/pool/").unwrap()],
            index_url: Url::parse("https://index.example.com/simple/").unwrap(),
            credentials: None,
            auth: UpstreamAuth::Basic,
            default_namespace: None,
            headers: Vec::new(),
            connect_timeout: std::time::Duration::from_secs(5),
            read_timeout: std::time::Duration::from_secs(30),
            allow_private: allow,
            link_hosts: None,
            ca_file: None,
            proxy: None,
            offline: false,
            max_size: None,
            max_disk: None,
            limits: larder_core::RequestLimits::default(),
        }
    }

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn hazard_s10_special_purpose_addresses_are_not_public() {
        for text in REFUSED {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
        for text in PUBLIC {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn hazard_s10_every_spelling_of_a_literal_is_judged() {
        let reach = Reach::Public {
            allowed: Vec::new(),
        };
        for host in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f.1",
            "0x7f000001",
            "0177.0.0.1",
            "0",
            "0x0",
            "127.0.0.1.",
            "169.254.169.254",
            "0xa9fea9fe",
            "[::1]",
            "[::]",
            "[::ffff:10.0.0.1]",
            "[0:0:0:0:0:ffff:a00:1]",
            "[fd00::1]",
            "[64:ff9b::7f00:1]",
            "%31%32%37.0.0.1",
            "①②⑦.0.0.1",
            "127。0。0。1",
        ] {
            let url = url(&format!("http://{host}/x"));
            assert!(!reach.admits_literal(&url), "{host} -> {url}");
        }
        assert!(reach.admits_literal(&url("http://1.1.1.1/")));
        assert!(
            reach.admits_literal(&url("http://localhost/")),
            "names are judged when they are resolved"
        );
    }

    #[test]
    fn hazard_s10_configured_origins_are_the_operators_word_and_their_neighbours_are_not() {
        let mut s = settings(Vec::new());
        s.base_urls.push(url("http://10.0.0.5:8080/"));
        assert_eq!(
            Reach::of(&s, &url("http://10.0.0.5:8080/other/path?x=1")),
            Reach::Configured
        );
        assert_eq!(
            Reach::of(&s, &url("https://index.example.com/")),
            Reach::Configured
        );
        for neighbour in [
            "http://10.0.0.5:8081/",
            "https://10.0.0.5:8080/",
            "http://10.0.0.6:8080/",
        ] {
            assert!(
                !Reach::of(&s, &url(neighbour)).admits_literal(&url(neighbour)),
                "{neighbour}"
            );
        }
    }

    #[test]
    fn hazard_s10_allow_private_counts_for_its_port_only() {
        let s = settings(vec![
            AllowPrivate::Socket("10.1.2.3:8080".parse().unwrap()),
            AllowPrivate::Socket("[fd00::7]:443".parse().unwrap()),
            AllowPrivate::Network("172.16.0.0/12".parse().unwrap()),
        ]);
        for (text, admitted) in [
            ("http://10.1.2.3:8080/", true),
            ("http://[::ffff:10.1.2.3]:8080/", true),
            ("http://10.1.2.3/", false),
            ("http://10.1.2.4:8080/", false),
            ("https://[fd00::7]/", true),
            ("http://[fd00::7]/", false),
            ("http://172.20.0.1:9/", true),
            ("http://172.32.0.1:9/", true), // public anyway,
            ("http://192.168.0.1/", false),
        ] {
            assert_eq!(
                Reach::of(&s, &url(text)).admits_literal(&url(text)),
                admitted,
                "{text}"
            );
        }
    }
}

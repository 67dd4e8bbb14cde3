//! Who the client is and which address it used, when proxies may stand between (hazard S18): `X-Forwarded-*` counts only if the
//! peer is a configured proxy, and is read from the right, where the nearest proxy has written.

use std::net::{IpAddr, Ipv6Addr};

use http::HeaderMap;
use ipnet::IpNet;

/// The client as the outermost trusted hop saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) address: IpAddr,
    /// `http://host:port`, no trailing slash.
    pub(crate) base: String,
}

/// What the connection itself knows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Direct<'a> {
    pub(crate) peer: IpAddr,
    pub(crate) scheme: &'static str,
    /// The `Host` header, or HTTP/2's authority.
    pub(crate) host: &'a str,
}

/// Whether `peer` is one of the proxies.
pub(crate) fn is_trusted(peer: IpAddr, proxies: &[IpNet]) -> bool {
    let peer = peer.to_canonical();
    proxies.iter().any(|network| network.contains(&peer))
}

/// Whether any header that [`client`] would read is there.
pub(crate) fn is_forwarded(headers: &HeaderMap) -> bool {
    [FOR, HOST, PROTO]
        .iter()
        .any(|name| headers.contains_key(*name))
}

const FOR: &str = "x-forwarded-for";
const HOST: &str = "x-forwarded-host";
const PROTO: &str = "x-forwarded-proto";

/// The client's address and the base of the URLs it uses.
pub(crate) fn client(direct: Direct<'_>, headers: &HeaderMap, proxies: &[IpNet]) -> Client {
    let own = || Client {
        address: direct.peer.to_canonical(),
        base: format!("{}://{}", direct.scheme, direct.host),
    };
    if !is_trusted(direct.peer, proxies) {
        return own();
    }
    let chain: Vec<IpAddr> = values(headers, FOR)
        .into_iter()
        .rev()
        .map_while(parse_address)
        .collect();
    // The peer, and every proxy that a trusted one names as the sender before it.
    let trusted_hops = 1 + chain
        .iter()
        .take_while(|address| is_trusted(**address, proxies))
        .count();
    let address = chain
        .get(trusted_hops - 1)
        .or(chain.last())
        .copied()
        .unwrap_or(direct.peer)
        .to_canonical();
    let scheme = nth_from_right(&values(headers, PROTO), trusted_hops)
        .map(str::to_ascii_lowercase)
        .filter(|scheme| scheme == "http" || scheme == "https");
    let hosts = values(headers, HOST);
    let host = nth_from_right(&hosts, trusted_hops)
        .filter(|host| is_host(host))
        .unwrap_or(direct.host);
    Client {
        address,
        base: format!("{}://{host}", scheme.as_deref().unwrap_or(direct.scheme)),
    }
}

/// What the outermost trusted proxy has written: each one may have appended a value, or the last one has replaced them all.
fn nth_from_right<'v>(values: &[&'v str], hops: usize) -> Option<&'v str> {
    values.get(values.len().saturating_sub(hops)).copied()
}

/// All elements of a list header, over all its lines.
fn values<'h>(headers: &'h HeaderMap, name: &str) -> Vec<&'h str> {
    let lines = headers
        .get_all(name)
        .into_iter()
        .filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .filter(|value| !value.is_empty())
        .collect()
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn parse_address(text: &str) -> Option<IpAddr> {
    let socket = || {
        text.parse::<std::net::SocketAddr>()
            .ok()
            .map(|socket| socket.ip())
    };
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    text.parse().ok().or_else(socket).or_else(bracketed)
}

/// Whether a text can be the host of a URL, with a port or without: it goes into documents, so nothing else may pass (RFC 3986 section
/// 3.2.2; the form of IPvFuture has no addresses).
pub(crate) fn is_host(text: &str) -> bool {
    let is_name = |host: &str| {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        !host.is_empty() && host.bytes().all(legal)
    };
    // An empty port is the usual one.
    let is_port = |port: &str| {
        port.is_empty() || port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
    };
    let is_one = if let Some(rest) = text.strip_prefix('[') {
        rest.split_once(']').is_some_and(|(address, rest)| {
            address.parse::<Ipv6Addr>().is_ok()
                && rest.strip_prefix(':').map_or(rest.is_empty(), is_port)
        })
    } else {
        let (host, port) = text.split_once(':').unwrap_or((text, ""));
        is_name(host) && is_port(port)
    };
    is_one && text.len() <= 255
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn ask(peer: &str, headers: &[(&'static str, &'static str)]) -> (String, String) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        let proxies = [
            "10.0.0.0/8".parse().unwrap(),
            "2001:db8::/32".parse().unwrap(),
        ];
        let direct = Direct {
            peer: peer.parse().unwrap(),
            scheme: "http",
            host: "inner:8000",
        };
        let client = client(direct, &map, &proxies);
        (client.address.to_string(), client.base)
    }

    fn pair(address: &str, base: &str) -> (String, String) {
        (address.to_owned(), base.to_owned())
    }

    const ALL: [(&str, &str); 3] = [
        ("x-forwarded-for", "198.51.100.7"),
        ("x-forwarded-host", "larder.example"),
        ("x-forwarded-proto", "https"),
    ];

    #[test]
    fn hazard_s18_strangers_are_not_believed() {
        assert_eq!(
            ask("192.0.2.1", &ALL),
            pair("192.0.2.1", "http://inner:8000")
        );
    }

    #[test]
    fn hazard_s18_a_trusted_peer_is_believed() {
        assert_eq!(
            ask("10.1.1.1", &ALL),
            pair("198.51.100.7", "https://larder.example")
        );
        assert_eq!(
            ask("::ffff:10.1.1.1", &ALL),
            pair("198.51.100.7", "https://larder.example")
        );
    }

    #[test]
    fn hazard_s18_what_the_client_wrote_on_the_left_is_not_believed() {
        let headers = [
            ("x-forwarded-for", "203.0.113.99, 198.51.100.7"),
            ("x-forwarded-host", "evil.example, larder.example"),
            ("x-forwarded-proto", "ftp, https"),
        ];
        assert_eq!(
            ask("10.1.1.1", &headers),
            pair("198.51.100.7", "https://larder.example")
        );
    }

    #[test]
    fn hazard_s18_two_proxies_in_a_row() {
        let headers = [
            ("x-forwarded-for", "203.0.113.99"),
            ("x-forwarded-for", "198.51.100.7, [2001:db8::2]:443"),
            (
                "x-forwarded-host",
                "evil.example, larder.example, inner.example",
            ),
        ];
        assert_eq!(
            ask("10.1.1.1", &headers),
            pair("198.51.100.7", "http://larder.example")
        );
    }

    #[test]
    fn hazard_s18_a_host_that_is_none_is_ignored() {
        for host in ["larder.example/x", "a b", "user@larder.example", "x\"y", ""] {
            assert!(!is_host(host));
        }
        // A link with one of these is none.
        for host in [
            "[::1",
            "::1",
            "[::1]x",
            "[1.2.3.4]",
            "[larder.example]",
            "x]",
            "127.0.0.1:80:80",
            "larder.example:65536",
            "larder.example:80a",
            "larder.example:+80",
            ":80",
        ] {
            assert!(!is_host(host), "{host}");
        }
        for host in [
            "larder.example",
            "larder_1:8000",
            "127.0.0.1:65535",
            "[::1]",
            "[2001:db8::1]:443",
            "[::ffff:10.0.0.1]",
            "larder.example.:",
        ] {
            assert!(is_host(host), "{host}");
        }
        let headers = [
            ("x-forwarded-host", "evil.example/<script>"),
            ("x-forwarded-proto", "javascript"),
        ];
        assert_eq!(
            ask("10.1.1.1", &headers),
            pair("10.1.1.1", "http://inner:8000")
        );
    }
}

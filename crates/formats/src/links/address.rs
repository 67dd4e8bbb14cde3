//! Which hosts a document may send larder to: no private, loopback or otherwise special address unless the operator names it.
//!
//! Host names are not resolved here; the upstream client checks the address that it connects to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use larder_core::{AllowPrivate, is_public};
use url::Host;

/// Whether a link to `host` may be carried: a public address or name, or one that `allowed` covers.
pub(super) fn may_be_reached(host: &Host<&str>, port: u16, allowed: &[AllowPrivate]) -> bool {
    let ip = match host {
        Host::Domain(name) if is_local_name(name) => {
            return covers(allowed, IpAddr::V4(Ipv4Addr::LOCALHOST), port)
                || covers(allowed, IpAddr::V6(Ipv6Addr::LOCALHOST), port);
        }
        Host::Domain(_) => return true,
        Host::Ipv4(ip) => IpAddr::V4(*ip),
        // An IPv4 address inside an IPv6 literal is judged by what the connection reaches.
        Host::Ipv6(ip) => ip.to_ipv4_mapped().map_or(IpAddr::V6(*ip), IpAddr::V4),
    };
    let mapped = matches!(host, Host::Ipv6(v6) if v6.to_ipv4_mapped().is_some());
    covers(allowed, ip, port) || (!mapped && is_public(ip))
}

/// RFC 6761 section 6.3.
fn is_local_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name == "localhost" || name.ends_with(".localhost")
}

fn covers(allowed: &[AllowPrivate], ip: IpAddr, port: u16) -> bool {
    allowed.iter().any(|entry| match entry {
        AllowPrivate::Network(network) => network.contains(&ip),
        AllowPrivate::Socket(socket) => socket.ip() == ip && socket.port() == port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(url: &str, allowed: &[AllowPrivate]) -> bool {
        let url = url::Url::parse(url).unwrap();
        may_be_reached(
            &url.host().unwrap(),
            url.port_or_known_default().unwrap(),
            allowed,
        )
    }

    #[test]
    fn hazard_private_hosts_in_every_spelling() {
        for host in [
            "127.0.0.1",
            "0x7f.1",
            "2130706433",
            "127.1",
            "0",
            "0.0.0.0",
            "017700000001",
            "127.0.0.1.",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.127.255.255",
            "192.0.0.8",
            "198.18.0.1",
            "198.19.255.255",
            "224.0.0.1",
            "239.1.1.1",
            "255.255.255.255",
            "240.0.0.1",
            "[::]",
            "[::1]",
            "[::ffff:10.0.0.1]",
            "[::ffff:8.8.8.8]",
            "[::7f00:1]",
            "[fe80::1]",
            "[fec0::1]",
            "[fc00::1]",
            "[fd12::1]",
            "[ff02::1]",
            "[2002:7f00:1::]",
            "[64:ff9b::a00:1]",
            "[2001::1]",
            "localhost",
            "LOCALHOST",
            "localhost.",
            "a.localhost",
        ] {
            assert!(!reach(&format!("https://{host}/x"), &[]), "{host}");
        }
    }

    #[test]
    fn public_hosts_pass() {
        for host in [
            "charts.example.com",
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "[2606:4700::1111]",
            "[64:ff9b::808:808]",
            "notlocalhost",
            "192.0.3.1",
        ] {
            assert!(reach(&format!("https://{host}/x"), &[]), "{host}");
        }
    }

    #[test]
    fn allow_private_opens_exactly_what_it_names() {
        let network = [AllowPrivate::Network("10.0.0.0/8".parse().unwrap())];
        assert!(reach("http://10.1.2.3:99/", &network));
        assert!(reach("http://[::ffff:10.1.2.3]/", &network));
        assert!(!reach("http://192.168.0.1/", &network));
        let socket = [AllowPrivate::Socket("127.0.0.1:8080".parse().unwrap())];
        assert!(reach("http://127.0.0.1:8080/", &socket));
        assert!(reach("http://localhost:8080/", &socket));
        assert!(!reach("http://127.0.0.1:8081/", &socket));
    }
}

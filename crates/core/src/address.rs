//! Which addresses are public: where larder may be led to, and what a document's links may name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address belongs to the public Internet by the IANA special-purpose registries (RFC 6890). Addresses that embed an IPv4
/// address (mapped, 6to4, the NAT64 prefix of RFC 6052) are as public as what they embed.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !matches!(
        (a, b, c),
        (0 | 10 | 127 | 224..=255, _, _)        // this network, private, loopback, multicast, reserved, broadcast
            | (100, 64..=127, _)                // shared address space of carriers (RFC 6598)
            | (169, 254, _)                     // link-local: cloud metadata services live here
            | (172, 16..=31, _)                 // private
            | (192, 168, _)                     // private
            | (192, 0, 0 | 2)                   // protocol assignments, documentation
            | (192, 88, 99)                     // 6to4 relays (RFC 7526)
            | (198, 18..=19, _)                 // benchmarking
            | (198, 51, 100)                    // documentation
            | (203, 0, 113) // documentation
    )
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(mapped) = address.to_ipv4_mapped() {
        return is_public_v4(mapped);
    }
    match address.segments() {
        // NAT64 (RFC 6052) and 6to4 (RFC 3056) embed an IPv4 address.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            is_public_v4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
        }
        // Protocol assignments, Teredo among them (RFC 2928), and documentation (RFC 3849, RFC 9637).
        [0x2001, 0..=0x01ff | 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => false,
        // Only 2000::/3 is global unicast. Outside lie unspecified, loopback, IPv4-compatible, local-use NAT64, ULA, link-local,
        // site-local, multicast and whatever is reserved.
        [first, ..] => (0x2000..=0x3fff).contains(&first),
    }
}

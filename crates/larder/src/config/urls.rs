//! Addresses that a configuration names: upstream roots, public URL, proxies, listeners, private networks.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use larder_core::{AllowPrivate, REDACTED};
use url::Url;

/// An upstream root or the public URL: http or https, no user-info, no query, no fragment. Gets its final slash.
/// The message of an error does not repeat the text, which may hold a password.
pub(super) fn root_url(text: &str) -> Result<Url, String> {
    let mut url = absolute(text, "http:// or https://")?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!(
            "must be an http or https URL, not {}: (it begins with http:// or https://)",
            url.scheme()
        ));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "must not carry a user name or password: those for an upstream are its keys `username` and `password`"
                .to_owned(),
        );
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must not carry a query or a fragment".to_owned());
    }
    if text.contains(|c: char| c.is_control() || c == '\\' || c == ' ') {
        return Err("holds a space, a backslash or a control character".to_owned());
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

fn absolute(text: &str, beginnings: &str) -> Result<Url, String> {
    Url::parse(text).map_err(|error| match error {
        url::ParseError::RelativeUrlWithoutBase => {
            format!("is not an absolute URL: it must begin with {beginnings}")
        }
        error => format!("is not an absolute URL ({error})"),
    })
}

/// A proxy: http, https, socks5 or socks5h; user-info is allowed, for there is no other place for it.
pub(super) fn proxy_url(text: &str) -> Result<Url, String> {
    let url = absolute(text, "http://, https://, socks5:// or socks5h://")?;
    if !matches!(url.scheme(), "http" | "https" | "socks5" | "socks5h") {
        return Err(format!(
            "must be an http, https, socks5 or socks5h URL, not {}:",
            url.scheme()
        ));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err("names no host".to_owned());
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err(
            "must not carry a path or a query: a proxy is a host and a port, and files of proxy settings (PAC) are not read"
                .to_owned(),
        );
    }
    Ok(url)
}

/// A value as a message shows it. What stands before an `@` may be a password, also where no URL is wanted.
pub(super) fn shown(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((_, rest)) => format!("{:?}", format!("{REDACTED}@{rest}")),
        None => format!("{text:?}"),
    }
}

/// `127.0.0.1:8000`, `[::1]:8000`, `localhost:8000`, or `:8000` for every address.
pub(super) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    let numeric = match text.split_once(':') {
        Some(("", port)) => format!("0.0.0.0:{port}"),
        Some(("localhost", port)) => format!("127.0.0.1:{port}"),
        _ => text.to_owned(),
    };
    numeric.parse().map_err(|_| {
        format!(
            "{} is not an address and port such as 127.0.0.1:8000 or [::1]:8000",
            shown(text)
        )
    })
}

/// `10.0.0.0/8`, or one address.
pub(super) fn network(text: &str) -> Option<IpNet> {
    text.parse()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// `10.0.0.0/8`, `10.1.2.3`, `10.1.2.3:8080` or `[fd00::1]:8080`.
pub(super) fn private_address(text: &str) -> Result<AllowPrivate, String> {
    if let Some(network) = network(text) {
        return Ok(AllowPrivate::Network(network.trunc()));
    }
    let socket = text.parse::<SocketAddr>().map(AllowPrivate::Socket);
    socket.map_err(|_| {
        format!(
            "{} is not an address, a network (10.0.0.0/8) or an address with port (10.1.2.3:8080); names are not taken",
            shown(text)
        )
    })
}

/// A host name of a repository's own, in lower case: no address, no port, and not a name that is the machine's own.
pub(super) fn host_name(text: &str) -> Result<String, String> {
    let bad = || {
        format!(
            "{} is not a host name such as npm.example.com (no scheme, no port, no path, no address)",
            shown(text)
        )
    };
    let name = text.to_ascii_lowercase();
    let legal = |label: &str| {
        let inner = label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-');
        inner
            && !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let parsed = Url::parse(&format!("http://{name}/")).map_err(|_| bad())?;
    let is_name = matches!(parsed.host(), Some(url::Host::Domain(_)));
    if !is_name || name.len() > 253 || !name.split('.').all(legal) {
        return Err(bad());
    }
    if name == "localhost" || name.ends_with(".localhost") {
        return Err(format!(
            "{text:?} is the machine's own name, by which all repositories are reached"
        ));
    }
    Ok(name)
}

/// A host, with port or without, in lower case.
pub(super) fn link_host(text: &str) -> Result<String, String> {
    let bad = || {
        format!(
            "{} is not a host such as cdn.example.com or cdn.example.com:8443 (no scheme, no path)",
            shown(text)
        )
    };
    if text.contains(['/', '@', '?', '#', '\\', '*']) || text.is_empty() {
        return Err(bad());
    }
    let url = Url::parse(&format!("http://{text}/")).map_err(|_| bad())?;
    let host = url.host_str().filter(|h| !h.is_empty()).ok_or_else(bad)?;
    let port = text
        .rsplit_once(':')
        .filter(|(before, _)| !before.contains(':') || before.ends_with(']'))
        .map(|(_, port)| port);
    Ok(port.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots() {
        assert_eq!(
            root_url("https://Example.com").unwrap().as_str(),
            "https://example.com/"
        );
        assert_eq!(
            root_url("http://example.com:81/a/b").unwrap().as_str(),
            "http://example.com:81/a/b/"
        );
        for bad in [
            "example.com",
            "/a",
            "//example.com",
            "ftp://example.com",
            "file:///etc",
            "http://",
            "https://a.example/?x",
            "https://a.example/#x",
            "https://a.example/a b",
        ] {
            root_url(bad).expect_err(bad);
        }
    }

    #[test]
    fn hazard_s17_user_info_in_a_url_is_refused_without_repeating_it() {
        for bad in [
            "https://canary:pass@example.com/",
            "https://canary@example.com",
            "https://:canary@example.com/",
        ] {
            let said = root_url(bad).unwrap_err();
            assert!(
                said.contains("`password`") && !said.contains("canary"),
                "{said}"
            );
        }
    }

    #[test]
    fn addresses() {
        assert_eq!(
            listen_address("localhost:80").unwrap().to_string(),
            "127.0.0.1:80"
        );
        assert_eq!(listen_address(":80").unwrap().to_string(), "0.0.0.0:80");
        assert_eq!(listen_address("[::1]:0").unwrap().to_string(), "[::1]:0");
        for bad in ["8000", "127.0.0.1", "example.com:80", "127.0.0.1:99999", ""] {
            listen_address(bad).expect_err(bad);
        }
        let net = |text: &str| AllowPrivate::Network(text.parse().unwrap());
        assert_eq!(private_address("10.0.0.0/8"), Ok(net("10.0.0.0/8")));
        assert_eq!(private_address("10.1.2.3/8"), Ok(net("10.0.0.0/8")));
        assert_eq!(private_address("10.1.2.3"), Ok(net("10.1.2.3/32")));
        assert_eq!(private_address("::1"), Ok(net("::1/128")));
        assert_eq!(
            private_address("10.1.2.3:8080"),
            Ok(AllowPrivate::Socket("10.1.2.3:8080".parse().unwrap()))
        );
        for bad in ["intranet", "10.0.0.0/33", "10.0.0.0/8:80", "*"] {
            private_address(bad).expect_err(bad);
        }
    }

    #[test]
    fn link_hosts() {
        assert_eq!(
            link_host("CDN.Example.com"),
            Ok("cdn.example.com".to_owned())
        );
        assert_eq!(
            link_host("cdn.example.com:8443"),
            Ok("cdn.example.com:8443".to_owned())
        );
        assert_eq!(link_host("[::1]:8443"), Ok("[::1]:8443".to_owned()));
        for bad in [
            "https://cdn.example.com",
            "cdn.example.com/x",
            "a@b",
            "",
            "*.example.com",
            "a b",
            "a:b",
        ] {
            link_host(bad).expect_err(bad);
        }
    }
}

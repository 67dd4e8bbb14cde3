//! What web pages may not do through their visitors' browsers: change state (contract, section 6), and read by a name of their own that
//! leads to a loopback address. Who else reads is not its business.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::{AUTHORIZATION, ORIGIN, USER_AGENT};
use larder_core::{ErrorCode, Fault, FaultKind, Principal};
use url::{Host, Url};

use crate::settings::LiveSettings;

/// What a request that changes state is judged by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt<'a> {
    pub(crate) headers: &'a HeaderMap,
    pub(crate) scheme: &'a str,
    /// The `Host` header or HTTP/2's authority.
    pub(crate) host: &'a str,
    /// Whether the server listens on loopback addresses only.
    pub(crate) loopback_only: bool,
}

/// Lets a request pass that may change state.
///
/// With an admin token configured, the token decides. Without one, only a server that listens on loopback alone lets anyone
/// change state, unless a browser was talked into it by another site.
pub(crate) fn may_change_state(attempt: Attempt<'_>, settings: &LiveSettings) -> Result<(), Fault> {
    if settings.admin_token.is_some() {
        return match bearer(attempt.headers) {
            Some(_) if principal_of(attempt.headers, settings) == Principal::Admin => Ok(()),
            Some(_) => Err(unauthorized(
                "the bearer token is not the configured auth.admin_token",
            )),
            None => Err(unauthorized(
                "this changes state and needs 'Authorization: Bearer <token>' with the token of the setting auth.admin_token (LARDER_ADMIN_TOKEN)",
            )),
        };
    }
    if !attempt.loopback_only {
        return Err(unauthorized(
            "this changes state, and larder does not listen on loopback only: set auth.admin_token (LARDER_ADMIN_TOKEN) to open it, and send it as 'Authorization: Bearer <token>'",
        ));
    }
    let own = Url::parse(&format!("{}://{}", attempt.scheme, attempt.host)).ok();
    if !own
        .as_ref()
        .is_some_and(|url| is_loopback(url) || settings.public_urls.names_place_of(url))
    {
        return Err(forbidden(
            "the request's Host is neither a loopback address nor that of public_url: ask a loopback address, or set public_url \
             (LARDER_PUBLIC_URL) to the address that clients use",
        ));
    }
    let cross_site = attempt
        .headers
        .get_all("sec-fetch-site")
        .iter()
        .any(|site| site.as_bytes() == b"cross-site");
    let foreign = attempt.headers.get_all(ORIGIN).iter().any(|origin| {
        let origin = origin.to_str().ok().and_then(|text| Url::parse(text).ok());
        let is_own = |url: &Url| {
            own.iter()
                .chain(settings.public_urls.all())
                .any(|own| url.origin() == own.origin())
        };
        !origin.is_some_and(|url| is_own(&url))
    });
    if cross_site || foreign {
        return Err(forbidden(
            "a page of another site asked for this: use a client that is no browser, or set public_url (LARDER_PUBLIC_URL) if the page \
             is larder's own",
        ));
    }
    Ok(())
}

/// Lets a request pass that shows which rules there are: whoever asks, until there is an admin token.
pub(crate) fn may_see_configuration(
    principal: Principal,
    settings: &LiveSettings,
) -> Result<(), Fault> {
    if settings.admin_token.is_none() || principal == Principal::Admin {
        return Ok(());
    }
    Err(unauthorized(
        "this shows the rules of the configuration and needs 'Authorization: Bearer <token>' with the token of the setting auth.admin_token (LARDER_ADMIN_TOKEN)",
    ))
}

/// On whose behalf a request is made. Credentials that are not larder's own leave it anonymous: they may be meant for the upstream.
pub(crate) fn principal_of(headers: &HeaderMap, settings: &LiveSettings) -> Principal {
    let is_admin = settings.admin_token.as_ref().is_some_and(|token| {
        bearer(headers).is_some_and(|given| same(given.as_bytes(), token.expose().as_bytes()))
    });
    if is_admin {
        Principal::Admin
    } else {
        Principal::Anonymous
    }
}

/// Whether a browser asks. A page cannot change what it calls itself; package clients call themselves something else.
pub(crate) fn is_browser(headers: &HeaderMap) -> bool {
    headers
        .get_all(USER_AGENT)
        .iter()
        .any(|agent| agent.as_bytes().starts_with(b"Mozilla/"))
}

/// Refuses a browser's request on loopback by a name that larder does not know: a page whose own name has been made to lead here
/// (DNS rebinding) would read everything, as if it were larder's own. An address in the place of a name cannot be made to lead
/// elsewhere.
pub(crate) fn refuse_rebound(host: &str, settings: &LiveSettings) -> Result<(), Fault> {
    let url = Url::parse(&format!("http://{host}")).ok();
    let known = match url.as_ref().and_then(Url::host) {
        Some(Host::Domain(name)) => {
            is_localhost(name) || settings.host_names.contains(without_dot(name))
        }
        Some(Host::Ipv4(_) | Host::Ipv6(_)) => true,
        None => false,
    };
    if known {
        return Ok(());
    }
    let message = "larder listens on loopback and does not answer browsers under this host name, which any web page could have made \
                   lead here: set public_url (LARDER_PUBLIC_URL) to the address that browsers use, or ask http://localhost";
    Err(Fault::new(FaultKind::Misdirected, ErrorCode::Misdirected, message).by_rule("public_url"))
}

/// These names are the machine's own, whatever a name server says (RFC 6761 section 6.3).
fn is_localhost(name: &str) -> bool {
    let name = without_dot(name);
    name == "localhost" || name.ends_with(".localhost")
}

/// A dot at the end makes a name absolute (RFC 1034 section 3.1), and no other one.
fn without_dot(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => is_localhost(name),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).to_canonical().is_loopback(),
        None => false,
    }
}

/// The token of `Authorization: Bearer`; the scheme's name is not case-sensitive (RFC 9110 section 11.1).
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Compares in a time that depends on the lengths only.
pub(crate) fn same(given: &[u8], expected: &[u8]) -> bool {
    let difference = given
        .iter()
        .zip(expected)
        .fold(0, |difference, (a, b)| difference | (a ^ b));
    given.len() == expected.len() && !expected.is_empty() && std::hint::black_box(difference) == 0
}

fn unauthorized(message: &str) -> Fault {
    Fault::new(FaultKind::Unauthorized, ErrorCode::Unauthorized, message)
        .by_rule("auth.admin_token")
}

fn forbidden(message: &str) -> Fault {
    Fault::new(FaultKind::Forbidden, ErrorCode::CrossSite, message)
        .by_rule("requests that change state (safe defaults)")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use larder_core::{PublicUrls, Secret};

    use super::*;

    const SAME: &str = "http://127.0.0.1:8000";

    struct Row {
        loopback_only: bool,
        token: bool,
        host: &'static str,
        origin: Option<&'static str>,
        site: Option<&'static str>,
        authorization: Option<&'static str>,
        expected: Option<FaultKind>,
    }

    fn judge(row: &Row) -> Option<FaultKind> {
        let mut headers = HeaderMap::new();
        let all = [
            ("origin", row.origin),
            ("sec-fetch-site", row.site),
            ("authorization", row.authorization),
        ];
        for (name, value) in all {
            if let Some(value) = value {
                headers.insert(name, HeaderValue::from_static(value));
            }
        }
        let settings = LiveSettings {
            public_urls: PublicUrls::new(vec![
                Url::parse("https://other.example:8443/").unwrap(),
                Url::parse("https://larder.example/cache").unwrap(),
            ]),
            admin_token: row.token.then(|| Secret::new("s3cret".to_owned())),
            ..LiveSettings::default()
        };
        let attempt = Attempt {
            headers: &headers,
            scheme: "http",
            host: row.host,
            loopback_only: row.loopback_only,
        };
        may_change_state(attempt, &settings)
            .err()
            .map(|fault| fault.kind)
    }

    /// Contract, section 6, cell by cell.
    #[test]
    fn the_table_of_who_may_change_state() {
        let open = Row {
            loopback_only: true,
            token: false,
            host: "127.0.0.1:8000",
            origin: None,
            site: None,
            authorization: None,
            expected: None,
        };
        let no = Some(FaultKind::Forbidden);
        let login = Some(FaultKind::Unauthorized);
        let rows = [
            // Loopback, no token: everything works.
            Row { ..open },
            Row {
                host: "localhost:8000",
                ..open
            },
            Row {
                host: "[::1]:8000",
                ..open
            },
            Row {
                host: "larder.example",
                ..open
            },
            Row {
                host: "other.example:8443",
                ..open
            },
            Row {
                origin: Some("https://other.example:8443"),
                ..open
            },
            Row {
                origin: Some(SAME),
                ..open
            },
            Row {
                origin: Some("https://larder.example"),
                ..open
            },
            Row {
                site: Some("same-origin"),
                ..open
            },
            Row {
                site: Some("none"),
                ..open
            },
            // … but not for another site in the user's browser, or behind a rebound name.
            Row {
                host: "evil.example",
                expected: no,
                ..open
            },
            Row {
                host: "127.0.0.1.evil.example:8000",
                expected: no,
                ..open
            },
            Row {
                host: "larder.example:99",
                expected: no,
                ..open
            },
            Row {
                host: "192.0.2.1:8000",
                expected: no,
                ..open
            },
            Row {
                host: "",
                expected: no,
                ..open
            },
            Row {
                origin: Some("https://evil.example"),
                expected: no,
                ..open
            },
            Row {
                origin: Some("http://127.0.0.1:3000"),
                expected: no,
                ..open
            },
            Row {
                origin: Some("http://larder.example"),
                expected: no,
                ..open
            },
            Row {
                origin: Some("https://larder.example:8443"),
                expected: no,
                ..open
            },
            Row {
                origin: Some("null"),
                expected: no,
                ..open
            },
            Row {
                site: Some("cross-site"),
                expected: no,
                ..open
            },
            Row {
                origin: Some(SAME),
                site: Some("cross-site"),
                expected: no,
                ..open
            },
            // Loopback with a token: the token is asked for everywhere.
            Row {
                token: true,
                expected: login,
                ..open
            },
            Row {
                token: true,
                authorization: Some("Bearer s3cret"),
                ..open
            },
            Row {
                token: true,
                authorization: Some("bearer  s3cret"),
                ..open
            },
            Row {
                token: true,
                authorization: Some("Bearer s3cre"),
                expected: login,
                ..open
            },
            Row {
                token: true,
                authorization: Some("Bearer s3cret1"),
                expected: login,
                ..open
            },
            Row {
                token: true,
                authorization: Some("Bearer "),
                expected: login,
                ..open
            },
            Row {
                token: true,
                authorization: Some("Basic s3cret"),
                expected: login,
                ..open
            },
            // Elsewhere: only with a token.
            Row {
                loopback_only: false,
                expected: login,
                ..open
            },
            Row {
                loopback_only: false,
                authorization: Some("Bearer s3cret"),
                expected: login,
                ..open
            },
            Row {
                loopback_only: false,
                token: true,
                expected: login,
                ..open
            },
            Row {
                loopback_only: false,
                token: true,
                authorization: Some("Bearer s3cret"),
                host: "any.example",
                ..open
            },
        ];
        for (number, row) in rows.iter().enumerate() {
            assert_eq!(judge(row), row.expected, "row {number}");
        }
    }

    #[test]
    fn the_refusal_names_the_setting_that_opens_it() {
        let attempt = Attempt {
            headers: &HeaderMap::new(),
            scheme: "http",
            host: "a.example",
            loopback_only: false,
        };
        let fault = may_change_state(attempt, &LiveSettings::default()).unwrap_err();
        assert!(fault.message.contains("auth.admin_token"));
    }

    /// DNS rebinding, cell by cell: which hosts a browser may name on loopback.
    #[test]
    fn hazard_names_that_lead_a_browser_to_loopback() {
        let settings = LiveSettings {
            host_names: ["larder.example", "npm.example"].map(str::to_owned).into(),
            ..LiveSettings::default()
        };
        let own = [
            "localhost",
            "localhost:8000",
            "LocalHost.",
            "a.localhost:1",
            "larder.example",
            "LARDER.example:8443",
            "npm.example.",
        ];
        let addresses = [
            "127.0.0.1:8000",
            "127.8.9.10",
            "[::1]:8000",
            "192.0.2.1",
            "[2001:db8::1]",
            "2130706433",
            "0x7f.1",
        ];
        for host in own.into_iter().chain(addresses) {
            assert_eq!(refuse_rebound(host, &settings), Ok(()), "{host}");
        }
        let foreign = [
            "evil.example",
            "evil.example:8000",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "xlocalhost",
            "intranet",
        ];
        let near = [
            "larder.example.evil.example",
            "x.larder.example",
            "a:b:c",
            "[::1",
            "..",
            "-",
        ];
        for host in foreign.into_iter().chain(near) {
            let fault = refuse_rebound(host, &settings).expect_err(host);
            assert_eq!(fault.kind, FaultKind::Misdirected, "{host}");
            assert!(fault.message.contains("public_url"), "{host}");
        }
    }

    #[test]
    fn browsers_are_told_by_what_they_call_themselves() {
        let agent = |text: &'static str| {
            HeaderMap::from_iter([(USER_AGENT, HeaderValue::from_static(text))])
        };
        assert!(is_browser(&agent(
            "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
        )));
        for client in [
            "pip/26.2 {}",
            "npm/12.0.0 node/v24",
            "docker/28.0 go/go1.24",
            "curl/8.5.0",
            "x Mozilla/5.0",
            "",
        ] {
            assert!(!is_browser(&agent(client)), "{client}");
        }
        assert!(!is_browser(&HeaderMap::new()));
    }

    #[test]
    fn an_empty_configured_token_opens_nothing() {
        assert!(!same(b"", b""));
    }
}

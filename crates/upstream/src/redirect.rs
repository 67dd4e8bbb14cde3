//! Where a redirect leads, and whether it may be followed. Pure: addresses are judged elsewhere, credentials too.

use http::header::LOCATION;
use http::{HeaderMap, Method, StatusCode};
use url::Url;

/// How many redirects one request follows.
pub(crate) const MAX_HOPS: usize = 10;

/// Why a redirect is not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RefusedRedirect {
    #[error("more than {MAX_HOPS} redirects")]
    TooMany,
    #[error("a redirect answered a request that is neither GET nor HEAD")]
    Method,
    #[error("a redirect without a usable Location")]
    Location,
    #[error("a redirect from https down to http")]
    Downgrade,
    #[error("a redirect to something other than http or https")]
    Scheme,
    #[error("a redirect to a URL with a user name or password in it")]
    UserInfo,
}

/// Whether `status` is one of the redirects that are followed (RFC 9110 section 15.4). 300, 304 and 305 are answers.
pub(crate) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// The next URL, after `followed` redirects so far. `Location` is resolved against `current` (RFC 9110 section 10.2.2); its fragment
/// is dropped.
///
/// # Errors
/// The redirect is not followed.
pub(crate) fn next_hop(
    method: &Method,
    current: &Url,
    headers: &HeaderMap,
    followed: usize,
) -> Result<Url, RefusedRedirect> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(RefusedRedirect::Method);
    }
    if followed >= MAX_HOPS {
        return Err(RefusedRedirect::TooMany);
    }
    let mut locations = headers.get_all(LOCATION).iter();
    let (Some(location), None) = (locations.next(), locations.next()) else {
        return Err(RefusedRedirect::Location);
    };
    // Raw UTF-8 is not legal in Location, but servers send it; the URL parser encodes it.
    let location =
        std::str::from_utf8(location.as_bytes()).map_err(|_| RefusedRedirect::Location)?;
    if location.trim().is_empty() {
        return Err(RefusedRedirect::Location);
    }
    let mut next = current
        .join(location)
        .map_err(|_| RefusedRedirect::Location)?;
    next.set_fragment(None);
    match (current.scheme(), next.scheme()) {
        ("https", "http") => Err(RefusedRedirect::Downgrade),
        (_, "http" | "https") if has_user_info(&next) => Err(RefusedRedirect::UserInfo),
        (_, "http" | "https") if next.has_host() => Ok(next),
        _ => Err(RefusedRedirect::Scheme),
    }
}

/// Whether a URL carries a user name or password.
pub(crate) fn has_user_info(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn hop(current: &str, location: &[u8]) -> Result<String, RefusedRedirect> {
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, HeaderValue::from_bytes(location).unwrap());
        next_hop(&Method::GET, &Url::parse(current).unwrap(), &headers, 0).map(String::from)
    }

    #[test]
    fn locations_resolve_against_the_current_url() {
        // RFC 3986 section 5.4 and WHATWG URL.
        let base = "https://files.example.com/a/b?q=1";
        for (location, want) in [
            ("c", "https://files.example.com/a/c"),
            ("/c", "https://files.example.com/c"),
            ("?x", "https://files.example.com/a/b?x"),
            ("//cdn.example.net/c", "https://cdn.example.net/c"),
            ("\\\\cdn.example.net\\c", "https://cdn.example.net/c"),
            (
                "https://cdn.example.net/c?sig=%2B+#part",
                "https://cdn.example.net/c?sig=%2B+",
            ),
            ("/é", "https://files.example.com/%C3%A9"),
        ] {
            assert_eq!(hop(base, location.as_bytes()).unwrap(), want);
        }
    }

    #[test]
    fn hazard_s6_refused_redirects() {
        let https = "https://files.example.com/a";
        assert_eq!(
            hop(https, b"http://files.example.com/a"),
            Err(RefusedRedirect::Downgrade)
        );
        assert_eq!(
            hop(https, b"https://user@files.example.com/a"),
            Err(RefusedRedirect::UserInfo)
        );
        assert_eq!(
            hop(https, b"https://:pw@files.example.com/a"),
            Err(RefusedRedirect::UserInfo)
        );
        for other in [
            "file:///etc/passwd",
            "ftp://files.example.com/a",
            "data:,x",
            "javascript:x",
            "gopher://x/",
        ] {
            assert_eq!(
                hop(https, other.as_bytes()),
                Err(RefusedRedirect::Scheme),
                "{other}"
            );
        }
        for broken in [
            &b""[..],
            b" ",
            b"http://",
            b"https://[::1",
            b"\xff\xfe",
            b"https://a b/",
        ] {
            assert_eq!(
                hop(https, broken),
                Err(RefusedRedirect::Location),
                "{broken:?}"
            );
        }
        assert_eq!(
            hop("http://files.example.com/", b"https://files.example.com/").unwrap(),
            "https://files.example.com/"
        );
    }

    #[test]
    fn hazard_s6_two_locations_are_ambiguous() {
        let mut headers = HeaderMap::new();
        headers.append(LOCATION, HeaderValue::from_static("/a"));
        headers.append(LOCATION, HeaderValue::from_static("/b"));
        let url = Url::parse("http://files.example.com/").unwrap();
        assert_eq!(
            next_hop(&Method::GET, &url, &headers, 0),
            Err(RefusedRedirect::Location)
        );
        assert_eq!(
            next_hop(&Method::GET, &url, &HeaderMap::new(), 0),
            Err(RefusedRedirect::Location)
        );
    }

    #[test]
    fn only_reads_follow_and_only_ten_times() {
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, HeaderValue::from_static("/a"));
        let url = Url::parse("http://files.example.com/").unwrap();
        assert_eq!(
            next_hop(&Method::POST, &url, &headers, 0),
            Err(RefusedRedirect::Method)
        );
        assert!(next_hop(&Method::HEAD, &url, &headers, 9).is_ok());
        assert_eq!(
            next_hop(&Method::GET, &url, &headers, 10),
            Err(RefusedRedirect::TooMany)
        );
    }

    #[test]
    fn which_statuses_redirect() {
        let followed: Vec<u16> = (300..400)
            .filter(|s| is_redirect(StatusCode::from_u16(*s).unwrap()))
            .collect();
        assert_eq!(followed, [301, 302, 303, 307, 308]);
    }
}

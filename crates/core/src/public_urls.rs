//! The addresses under which clients reach larder (`public_url`), and which of them a request gets.

use url::Url;

/// The configured addresses, first choice first; each ends in a slash and may carry a path. Empty where none is configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublicUrls(Vec<Url>);

impl PublicUrls {
    /// In the order of the configuration.
    pub fn new(urls: Vec<Url>) -> Self {
        Self(urls)
    }

    /// All of them.
    pub fn all(&self) -> &[Url] {
        &self.0
    }

    /// Whether none is configured.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The one for a client that used `client_base` (`http://host:port`): the one with that host and port, best with that scheme too,
    /// else the first. Some clients take nothing that lies outside the address that they are configured with.
    pub fn of_client(&self, client_base: &str) -> Option<&Url> {
        let first = self.0.first()?;
        if self.0.len() == 1 {
            return Some(first);
        }
        let Ok(client) = Url::parse(client_base) else {
            return Some(first);
        };
        let fitting = || self.0.iter().filter(|url| is_same_place(url, &client));
        Some(
            fitting()
                .find(|url| url.scheme() == client.scheme())
                .or_else(|| fitting().next())
                .unwrap_or(first),
        )
    }

    /// Whether `url` has the host and port of one of them. The scheme may differ: a proxy may have taken TLS off.
    pub fn names_place_of(&self, url: &Url) -> bool {
        self.0.iter().any(|public| is_same_place(public, url))
    }

    /// Whether two clients may get links that differ, because they used different names; `absolute`: whether the links name a host.
    pub fn depend_on_client(&self, absolute: bool) -> bool {
        match self.0.as_slice() {
            [] => absolute,
            [first, others @ ..] => others
                .iter()
                .any(|other| absolute || other.path() != first.path()),
        }
    }
}

fn is_same_place(public: &Url, url: &Url) -> bool {
    url.has_host()
        && absolute_name(url) == absolute_name(public)
        && (url.port() == public.port()
            || url.port_or_known_default() == public.port_or_known_default())
}

/// The host without the dot that makes a name absolute (RFC 1034 section 3.1).
fn absolute_name(url: &Url) -> Option<&str> {
    let host = url.host_str()?;
    Some(host.strip_suffix('.').unwrap_or(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(texts: &[&str]) -> PublicUrls {
        PublicUrls::new(texts.iter().map(|text| text.parse().unwrap()).collect())
    }

    #[test]
    fn of_several_public_urls_the_one_with_the_requests_host_and_port_counts_else_the_first() {
        let several = urls(&[
            "https://a.example/",
            "http://b.example:8080/sub/",
            "http://c.example/",
            "https://c.example/tls/",
        ]);
        for (client, want) in [
            ("https://a.example", "https://a.example/"),
            // Behind a proxy that took TLS off.
            ("http://a.example", "https://a.example/"),
            ("http://A.example", "https://a.example/"),
            ("https://a.example:443", "https://a.example/"),
            ("http://b.example:8080", "http://b.example:8080/sub/"),
            ("http://b.example.:8080", "http://b.example:8080/sub/"),
            ("http://b.example", "https://a.example/"),
            ("http://c.example", "http://c.example/"),
            ("https://c.example", "https://c.example/tls/"),
            ("http://a.example.evil.example", "https://a.example/"),
            ("http://127.0.0.1:8000", "https://a.example/"),
            ("http://", "https://a.example/"),
        ] {
            assert_eq!(
                several.of_client(client).map(Url::as_str),
                Some(want),
                "{client}"
            );
        }
        assert_eq!(
            urls(&["https://a.example/"])
                .of_client("http://b.example")
                .map(Url::as_str),
            Some("https://a.example/")
        );
        assert_eq!(urls(&[]).of_client("http://b.example"), None);
    }

    #[test]
    fn links_depend_on_the_client_where_the_addresses_differ_in_what_stands_in_links() {
        for (texts, absolute, path_absolute) in [
            (&[][..], true, false),
            (&["https://a.example/x/"], false, false),
            (
                &["https://a.example/x/", "http://b.example/x/"],
                true,
                false,
            ),
            (&["https://a.example/x/", "http://b.example/"], true, true),
        ] {
            let urls = urls(texts);
            assert_eq!(
                (urls.depend_on_client(true), urls.depend_on_client(false)),
                (absolute, path_absolute),
                "{texts:?}"
            );
        }
    }
}

//! Upstream URLs: a base that the operator set and a path that a client or a document named.
//!
//! Knows how the two are put together so that nobody can leave the base. Knows nothing of redirects or links.

use url::Url;

use crate::path::{PathError, check_segments};

/// Appends an encoded path to `base`, which ends in a slash, and sets the query.
///
/// This is not RFC 3986 reference resolution, where `//host`, `http:…` and `..` lead elsewhere: the path can only lead below
/// the base, and that is checked once more on the result. A query of `base` is dropped.
///
/// ```
/// use larder_core::join_url;
///
/// let base = url::Url::parse("https://example.com/pub/")?;
/// assert_eq!(join_url(&base, "a%2Bb/c.tgz", Some("v=1"))?.as_str(), "https://example.com/pub/a%2Bb/c.tgz?v=1");
/// assert!(join_url(&base, "../secret", None).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn join_url(base: &Url, encoded_path: &str, query: Option<&str>) -> Result<Url, PathError> {
    if base.cannot_be_a_base() {
        return Err(PathError::LeavesBase);
    }
    let unescaped = encoded_path.replace("%2e", ".").replace("%2E", ".");
    check_segments(&unescaped)?;
    let mut path = base.path().to_owned();
    if !path.ends_with('/') {
        path.push('/');
    }
    let prefix = path.len();
    path.push_str(encoded_path);
    let mut url = base.clone();
    url.set_fragment(None);
    url.set_path(&path);
    url.set_query(query);
    let same_server =
        url.scheme() == base.scheme() && url.host() == base.host() && url.port() == base.port();
    if same_server && url.path().starts_with(&path[..prefix]) {
        Ok(url)
    } else {
        Err(PathError::LeavesBase)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::path::{ArtifactPath, PathRules};

    fn base() -> Url {
        Url::parse("https://example.com:8443/pub/").unwrap()
    }

    #[test]
    fn the_client_s_encoding_and_query_are_kept() {
        let joined = join_url(&base(), "a%2Bb/c+d/@s%2fn/%7Ex;v=1", Some("b=%20&a=1+2")).unwrap();
        assert_eq!(
            joined.as_str(),
            "https://example.com:8443/pub/a%2Bb/c+d/@s%2fn/%7Ex;v=1?b=%20&a=1+2"
        );
        assert_eq!(join_url(&base(), "", None).unwrap(), base());
        assert_eq!(join_url(&base(), "dir/", None).unwrap().path(), "/pub/dir/");
    }

    #[test]
    fn a_base_without_its_slash_is_still_a_folder() {
        let base = Url::parse("https://example.com/simple?x#y").unwrap();
        assert_eq!(
            join_url(&base, "six/", None).unwrap().as_str(),
            "https://example.com/simple/six/"
        );
    }

    #[test]
    fn what_looks_like_a_url_is_only_a_path() {
        for text in [
            "http:x",
            "@evil.example/x",
            ".evil.example/x",
            "evil.example:80/x",
            "file:etc",
        ] {
            let joined = join_url(&base(), text, None).unwrap();
            assert_eq!(
                joined.as_str(),
                format!("https://example.com:8443/pub/{text}")
            );
        }
        // A question mark or number sign cannot begin a query or fragment from within the path.
        assert_eq!(
            join_url(&base(), "a?b#c", None).unwrap().as_str(),
            "https://example.com:8443/pub/a%3Fb%23c"
        );
    }

    #[test]
    fn hazard_s10_joining_cannot_leave_the_base() {
        let rows = [
            ("//evil.example/x", PathError::EmptySegment),
            ("http://192.0.2.1/", PathError::EmptySegment),
            ("file:///etc/passwd", PathError::EmptySegment),
            ("/x", PathError::EmptySegment),
            ("..", PathError::DotSegment),
            ("a/%2e%2e/%2E%2E/z", PathError::DotSegment),
            ("a/.%2E/z", PathError::DotSegment),
            ("a/..;/b", PathError::DotSegment),
            ("a\\..\\b", PathError::Backslash),
            ("a/.\t./b", PathError::Control),
        ];
        for (path, expected) in rows {
            assert_eq!(join_url(&base(), path, None), Err(expected), "{path}");
        }
        let opaque = Url::parse("mailto:someone").unwrap();
        assert_eq!(join_url(&opaque, "a", None), Err(PathError::LeavesBase));
    }

    proptest! {
        #[test]
        fn an_accepted_path_reaches_the_upstream_letter_for_letter(raw in r"[a-zA-Z0-9%@;+ \[\]|^é`'?#:/.~-]{0,40}") {
            let rules = PathRules { encoded_scope_slash: true };
            if let Ok(path) = ArtifactPath::parse(&raw, rules) {
                let url = join_url(&base(), path.encoded(), None).unwrap();
                prop_assert_eq!(url.path(), format!("/pub/{}", path.encoded()));
                prop_assert_eq!(url.origin(), base().origin());
                prop_assert!(url.query().is_none() && url.fragment().is_none());
            }
        }

        #[test]
        fn no_text_at_all_leaves_the_base(raw in ".{0,40}", query in proptest::option::of(".{0,20}")) {
            if let Ok(url) = join_url(&base(), &raw, query.as_deref()) {
                prop_assert!(url.as_str().starts_with("https://example.com:8443/pub/"), "{}", url);
            }
        }
    }
}

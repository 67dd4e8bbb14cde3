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
    let same_server = url.scheme() == base.scheme() && url.host() == base.host() && url.port() == base.port();
    if same_server && url.path().starts_with(&path[..prefix]) { Ok(url) } else { Err(PathError::LeavesBase) }
}

//! `REPO/PATH`, or a URL that says the same: which path of which repository is meant.

use larder_core::SafeUrl;
use url::Url;

use super::Failure;
use super::shown::{self, escaped, meant};

/// Roots under which repositories are, below larder's address. Behind the last one begin the names of images.
const ROOTS: [&str; 3] = ["api/v1/remote/", "api/v1/virtual/", "v2/"];

/// A path of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) repository: String,
    /// Below the repository, encoded as in a URL; a query too, if there is one.
    encoded: String,
}

impl Place {
    /// From the argument of a command. A path is taken as `larder ls` prints it, and what is behind a `?` is a query; a URL as clients send
    /// it.
    ///
    /// # Errors
    /// It is neither, or a URL of another server than `base`.
    pub(super) fn parse(text: &str, base: &Url) -> Result<Self, Failure> {
        if is_url(text) {
            return Self::of_url(text, base);
        }
        refuse_control(text)?;
        let (path, query) = text
            .split_once('?')
            .map_or((text, None), |(path, query)| (path, Some(query)));
        let (repository, path) = path
            .trim_start_matches('/')
            .split_once('/')
            .filter(|(repository, _)| !matches!(*repository, "" | "." | ".."))
            .ok_or_else(|| {
                Failure::misused(format!(
                    "{text:?} names no path of a repository; it looks like REPO/PATH (larder ls lists both)"
                ))
            })?;
        if path.split('/').any(|segment| segment == "..") {
            let why = "a path in a repository has no `..`";
            return Err(Failure::misused(format!("{text:?}: {why}")));
        }
        // Encodes what has a meaning in URLs, `%` included.
        let mut url = base.clone();
        url.set_query(query);
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.clear().extend(meant(path).split('/'));
        }
        Ok(Self {
            repository: repository.to_owned(),
            encoded: behind(&url, 1),
        })
    }

    fn of_url(text: &str, base: &Url) -> Result<Self, Failure> {
        // Taken out, or for a slash, where URLs are read.
        if text.contains(|c: char| c.is_control() || c == '\\') || text.ends_with(' ') {
            let why = "the URL has a control character, a backslash or a blank at its end in it: they are written %XX";
            return Err(Failure::misused(why));
        }
        let url = Url::parse(text)
            .map_err(|_| Failure::misused("the URL cannot be understood".to_owned()))?;
        let (shown, own) = (SafeUrl(url.clone()), SafeUrl(base.clone()));
        if url.origin() != base.origin() {
            return Err(Failure::misused(format!(
                "{shown} is at another server than {own}: name that with --server or LARDER_URL"
            )));
        }
        let root = base.path().trim_end_matches('/');
        let below = url.path().strip_prefix(root).unwrap_or_default();
        let below = below.trim_start_matches('/');
        let found = ROOTS.iter().find_map(|root| {
            let below_root = below.strip_prefix(root)?;
            let (repository, _) = below_root.split_once('/').unwrap_or((below_root, ""));
            let start = url.path().len() - below.len() + root.len() + repository.len() + 1;
            (!repository.is_empty()).then(|| (repository.to_owned(), behind(&url, start)))
        });
        let (repository, encoded) = found.ok_or_else(|| {
            Failure::misused(format!(
                "{shown} is no path of a repository; those are below {}",
                ROOTS.map(|root| format!("/{root}REPO/")).join(", ")
            ))
        })?;
        Ok(Self {
            repository,
            encoded,
        })
    }

    /// `base`, then `root`, the repository and the path.
    pub(super) fn below(&self, base: &Url, root: &[&str]) -> Url {
        let mut url = base.clone();
        url.set_query(None);
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(root).push(&self.repository);
        }
        let (path, query) = self
            .encoded
            .split_once('?')
            .map_or((&*self.encoded, None), |(path, query)| (path, Some(query)));
        url.set_path(&format!("{}/{path}", url.path()));
        url.set_query(query);
        url
    }

    /// The same with `name` behind it.
    pub(super) fn joined(&self, name: &str, base: &Url) -> Result<Self, Failure> {
        let more = Self::parse(&format!("{}/{}", self.repository, escaped(name)), base)?;
        Ok(Self {
            encoded: format!("{}{}", self.encoded, more.encoded),
            ..more
        })
    }

    /// Whether it is a folder's: it ends in a slash, or is the repository itself.
    pub(super) fn is_folder(&self) -> bool {
        self.encoded.is_empty() || self.encoded.ends_with('/')
    }

    /// Whether a query is behind the path.
    pub(super) fn has_query(&self) -> bool {
        self.encoded.contains('?')
    }

    /// The last part of the path, decoded; `None` where that is no name of a file.
    pub(super) fn file_name(&self) -> Option<String> {
        let path = self.encoded.split('?').next().unwrap_or_default();
        let last = path.rsplit('/').next().unwrap_or_default();
        let name = decoded(last)?;
        let is_name = !name.is_empty()
            && name != "."
            && name != ".."
            && !name.contains(|c: char| c == '/' || c.is_control());
        is_name.then_some(name)
    }
}

fn is_url(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// The library would take line ends and tabs out of a URL without a word, and another path would be meant.
fn refuse_control(text: &str) -> Result<(), Failure> {
    if text.contains(char::is_control) {
        let why = "a path in a repository has no control character";
        return Err(Failure::misused(format!("{text:?}: {why}")));
    }
    Ok(())
}

/// A repository and the beginning of paths in it, decoded: of `REPO`, `REPO/PREFIX`, or a URL that says the same.
///
/// # Errors
/// It is a URL of something else.
pub(super) fn beginning(text: &str, base: &Url) -> Result<(String, String), Failure> {
    if is_url(text) {
        let place = Place::of_url(text, base)?;
        let path = place.encoded.split('?').next().unwrap_or_default();
        let path = decoded(path).unwrap_or_default();
        return Ok((place.repository, path));
    }
    refuse_control(text)?;
    let text = text.trim_start_matches('/');
    let (repository, prefix) = text.split_once('/').unwrap_or((text, ""));
    Ok((repository.to_owned(), meant(prefix)))
}

/// A repository alone, by its name or its URL.
///
/// # Errors
/// A path is behind it, or it is a URL of something else.
pub(super) fn whole(text: &str, base: &Url) -> Result<String, Failure> {
    match beginning(text, base)? {
        (repository, path) if path.is_empty() => Ok(repository),
        (repository, path) => Err(Failure::misused(format!(
            "{:?} is a path of a repository: name the repository alone",
            format!("{repository}/{path}")
        ))),
    }
}

/// A part of a URL's path as it is meant.
fn decoded(path: &str) -> Option<String> {
    // In a form, `+` is a space, and `&` and `=` divide; in a path they are themselves.
    let form = path
        .replace('+', "%2B")
        .replace('&', "%26")
        .replace('=', "%3D");
    let form = format!("n={form}");
    let decoded = url::form_urlencoded::parse(form.as_bytes()).next()?.1;
    Some(decoded.into_owned())
}

/// What of a URL's path and query is behind so many bytes of the path.
fn behind(url: &Url, start: usize) -> String {
    let path = url.path().get(start..).unwrap_or_default();
    url.query()
        .map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"))
}

impl std::fmt::Display for Place {
    /// As lists show it, and without the query, which may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.encoded.split('?').next().unwrap_or_default();
        let path = decoded(path).unwrap_or_else(|| path.to_owned());
        write!(f, "{}/{}", self.repository, shown::path(&path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Url {
        Url::parse("https://larder.example.com/cache/").unwrap()
    }

    fn url(text: &str) -> String {
        let place = Place::parse(text, &base()).unwrap();
        place.below(&base(), &["api", "v1", "remote"]).to_string()
    }

    #[test]
    fn a_path_is_taken_as_it_is_and_a_url_as_clients_send_it() {
        let root = "https://larder.example.com/cache/api/v1/remote/";
        for (text, want) in [
            ("files/a.txt", "files/a.txt"),
            ("/files/dir/", "files/dir/"),
            ("files/a b%20c#d", "files/a%20b%2520c%23d"),
            ("npm/@scope/name", "npm/@scope/name"),
            ("files/x?token=a", "files/x?token=a"),
            ("files/x%3Fy%253F?token=a", "files/x%3Fy%253F?token=a"),
            (
                "https://larder.example.com/cache/api/v1/virtual/all/a%20b?c=d",
                "all/a%20b?c=d",
            ),
            (
                "https://larder.example.com/cache/v2/hub/library/nginx/manifests/1.27",
                "hub/library/nginx/manifests/1.27",
            ),
        ] {
            assert_eq!(url(text), format!("{root}{want}"), "{text}");
        }
    }

    #[test]
    fn what_is_no_path_of_this_larder_is_a_mistake_of_the_command_line() {
        for text in [
            "files",
            "",
            "/",
            "//x",
            "files/../x",
            "../x",
            "./x",
            "files/rep\nort.txt",
            "files/report\t.txt",
            "files/x\ry",
            "files/x?a\tb",
            "fi\tles/x",
            "https://larder.example.com/cache/api/v1/remote/files/report\t.txt",
            "https://larder.example.com/cache/api/v1/remote/files/report.txt\n",
            "https://larder.example.com/cache/api/v1/remote/files/report.txt ",
            "https://larder.example.com/cache/api/v1/remote/files/a\\report.txt",
            "https://other.example.com/cache/api/v1/remote/files/a",
            "https://larder.example.com/cache/health",
            "https://",
        ] {
            let Err(Failure(code, _)) = Place::parse(text, &base()) else {
                panic!("{text} is taken")
            };
            assert_eq!(code, 2, "{text}");
        }
    }

    #[test]
    fn names_of_files() {
        for (text, want) in [
            ("files/dir/a+b c.txt", Some("a+b c.txt")),
            ("files/dir/", None),
            ("files/x?y=z", Some("x")),
            ("files/a=b&c=d;e", Some("a=b&c=d;e")),
            ("files/größe 100%.txt", Some("größe 100%.txt")),
            ("https://larder.example.com/cache/v2/a/..%2Fb", None),
        ] {
            let place = Place::parse(text, &base()).unwrap();
            assert_eq!(place.file_name().as_deref(), want, "{text}");
        }
        let place = Place::parse("files/dir/", &base()).unwrap();
        assert!(place.is_folder());
        let joined = place.joined("a b", &base()).unwrap();
        assert_eq!(joined.to_string(), "files/dir/a b");
        for name in ["rep\nort.txt", "report\t.txt", "report.txt\r"] {
            let joined = place.joined(name, &base());
            assert_eq!(joined.err().map(|failure| failure.0), Some(2), "{name:?}");
        }
        let odd = place.joined("x?y%25", &base()).unwrap();
        assert_eq!(odd.to_string(), "files/dir/x%3Fy%2525");
        assert_eq!(odd.file_name().as_deref(), Some("x?y%25"));
    }

    #[test]
    fn repositories_and_beginnings_may_be_urls() {
        let root = "https://larder.example.com/cache/api/v1/remote/files";
        for (text, repository, path) in [
            ("files".to_owned(), "files", ""),
            ("/files/".to_owned(), "files", ""),
            ("files/a%20b/x%3Fy".to_owned(), "files", "a%20b/x?y"),
            (root.to_owned(), "files", ""),
            (format!("{root}/"), "files", ""),
            (format!("{root}/a%20b/x%3Fy?z"), "files", "a b/x?y"),
            ("..".to_owned(), "..", ""),
        ] {
            let found = beginning(&text, &base());
            let wanted = (repository.to_owned(), path.to_owned());
            assert_eq!(found, Ok(wanted), "{text}");
            assert_eq!(whole(&text, &base()).is_ok(), path.is_empty(), "{text}");
        }
        for text in [
            "https://other.example.com/cache/api/v1/remote/files/",
            "https://larder.example.com/cache/health",
            "files/report\t.txt",
        ] {
            let code = beginning(text, &base()).err().map(|failure| failure.0);
            assert_eq!(code, Some(2), "{text}");
        }
    }
}

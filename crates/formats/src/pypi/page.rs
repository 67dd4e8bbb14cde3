//! What the two kinds of simple page have in common: which kind a document is, what a page says of itself, and the limits.

use std::borrow::Cow;

use crate::{Document, Malformed};

/// Longest page, in bytes.
const MAX_BYTES: usize = 64 << 20;

/// Most places that a page names for its project beside itself, of either kind (PEP 708): each is written out in full, so that a list of
/// empty ones would be as large as one likes.
pub(super) const MAX_LOCATIONS: usize = 1000;

/// The syntax of an upstream's page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Syntax {
    Json,
    Html,
}

/// What a page is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject<'a> {
    /// `simple/`.
    List,
    /// `simple/{project}/`, by its normal name.
    Project(&'a str),
}

/// What a page says of itself; all of it is optional.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Head<'a> {
    /// `meta.api-version`, `pypi:repository-version`.
    pub(super) api_version: Option<Cow<'a, str>>,
    /// PEP 708.
    pub(super) tracks: Vec<Cow<'a, str>>,
    /// PEP 708.
    pub(super) alternate_locations: Vec<Cow<'a, str>>,
    /// PEP 792.
    pub(super) status: Option<Cow<'a, str>>,
    /// PEP 792.
    pub(super) status_reason: Option<Cow<'a, str>>,
}

impl Head<'_> {
    /// The same without the page.
    pub(super) fn into_owned(self) -> Head<'static> {
        let own = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        Head {
            api_version: self.api_version.map(own),
            tracks: self.tracks.into_iter().map(own).collect(),
            alternate_locations: self.alternate_locations.into_iter().map(own).collect(),
            status: self.status.map(own),
            status_reason: self.status_reason.map(own),
        }
    }

    /// Whether the index says that none of the files may be offered, whatever else it lists (PEP 792).
    pub(super) fn withholds_files(&self) -> bool {
        let status = self.status.as_deref().unwrap_or_default();
        status.trim().eq_ignore_ascii_case("quarantined")
    }
}

/// The syntax that a document's `Content-Type` names. Bodies are not guessed at: clients do not either.
pub(super) fn syntax(document: &Document<'_>) -> Result<Syntax, Malformed> {
    if document.body.len() > MAX_BYTES {
        let length = document.body.len();
        return Err(Malformed(format!(
            "the simple page is {length} bytes long; larder reads pages of up to {MAX_BYTES} bytes"
        )));
    }
    let essence = document
        .content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    match essence.as_str() {
        "application/vnd.pypi.simple.v1+json"
        | "application/vnd.pypi.simple.latest+json"
        | "application/json" => Ok(Syntax::Json),
        "text/html"
        | "application/vnd.pypi.simple.v1+html"
        | "application/vnd.pypi.simple.latest+html"
        | "application/xhtml+xml" => Ok(Syntax::Html),
        _ => {
            let shown: String = essence.chars().take(80).collect();
            Err(Malformed(format!(
                "the simple page has the content type {shown:?}, which is neither JSON nor HTML of the Simple API"
            )))
        }
    }
}

/// What the page at `simple/` or `simple/{project}/` is about.
pub(super) fn subject(key_path: &str) -> Result<Subject<'_>, Malformed> {
    let project = key_path
        .strip_prefix("simple/")
        .map(|rest| rest.strip_suffix('/').unwrap_or(rest));
    match project {
        Some("") => Ok(Subject::List),
        Some(project) if !project.contains('/') => Ok(Subject::Project(project)),
        _ => Err(Malformed(format!(
            "{key_path:?} is not the path of a simple page"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    fn kind(content_type: &str, body: &[u8]) -> Result<Syntax, Malformed> {
        let url = Url::parse("https://index.example.com/simple/foo/").unwrap();
        syntax(&Document {
            body,
            content_type,
            url: &url,
            key_path: "simple/foo/",
            variant: "",
            memo: None,
        })
    }

    #[test]
    fn hazard_w11_other_content_types_are_no_index() {
        assert_eq!(
            kind("application/vnd.pypi.simple.v1+json", b""),
            Ok(Syntax::Json)
        );
        assert_eq!(
            kind("Application/JSON; charset=utf-8", b""),
            Ok(Syntax::Json)
        );
        assert_eq!(kind("text/html; charset=UTF-8", b""), Ok(Syntax::Html));
        assert_eq!(
            kind("application/vnd.pypi.simple.v1+html", b""),
            Ok(Syntax::Html)
        );
        for other in [
            "",
            "text/plain",
            "application/octet-stream",
            "application/vnd.pypi.simple.v2+json",
            "image/svg+xml",
        ] {
            assert!(kind(other, b"{}").is_err(), "{other}");
        }
    }

    #[test]
    fn pages_have_a_largest_size() {
        assert!(kind("text/html", &vec![b' '; MAX_BYTES]).is_ok());
        assert!(
            kind("text/html", &vec![b' '; MAX_BYTES + 1])
                .unwrap_err()
                .0
                .contains("67108865")
        );
    }

    #[test]
    fn paths_tell_what_a_page_is_about() {
        assert_eq!(subject("simple/"), Ok(Subject::List));
        assert_eq!(subject("simple/foo-bar/"), Ok(Subject::Project("foo-bar")));
        assert!(subject("simple/foo/bar/").is_err());
        assert!(subject("packages/foo").is_err());
    }
}

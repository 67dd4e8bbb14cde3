//! Repositories, documents and requests for the tests of this format.

use http::header::ACCEPT;
use http::{HeaderMap, Method};
use larder_core::{ArtifactPath, PackageType, PathRules, Repository};
use url::Url;

use super::Pypi;
use crate::{
    Claim, Derived, Document, DocumentFormat as _, Format as _, LinkBase, LinkKey, Links,
    Malformed, Operation, RequestParts, testing,
};

/// Where links of the tests' repository begin.
pub(super) const BASE: &str = "/api/v1/remote/py/";

/// A remote named `py`.
pub(super) fn repository(base_url: &str, index_url: &str) -> Repository {
    let mut repository = testing::remote("py", PackageType::Pypi, base_url);
    repository.upstream_mut().unwrap().index_url = index_url.parse().unwrap();
    repository
}

/// The remote of most tests: files and index on hosts of their own, links to no others.
pub(super) fn two_hosts() -> Repository {
    let mut repository = repository(
        "https://files.example.com/",
        "https://index.example.com/simple/",
    );
    repository.upstream_mut().unwrap().link_hosts = Some(vec!["cdn.example.net".to_owned()]);
    repository
}

/// Path-absolute links, as pypi has them.
pub(super) fn links_of(repository: &Repository) -> Links<'_> {
    Links::new(
        repository,
        &LinkKey::from_bytes([7; 32]),
        LinkBase::new(BASE),
    )
}

/// A request with this method, path, query and `Accept`.
pub(super) fn ask(
    method: &Method,
    path: &str,
    query: Option<&str>,
    accept: Option<&str>,
) -> Operation {
    ask_of(&two_hosts(), method, path, query, accept)
}

/// The same to `repository`.
pub(super) fn ask_of(
    repository: &Repository,
    method: &Method,
    path: &str,
    query: Option<&str>,
    accept: Option<&str>,
) -> Operation {
    let path = ArtifactPath::parse(path, PathRules::default()).unwrap();
    let mut headers = HeaderMap::new();
    if let Some(accept) = accept {
        headers.insert(ACCEPT, accept.parse().unwrap());
    }
    Pypi.operation(&RequestParts {
        repository,
        method,
        path: &path,
        query,
        headers: &headers,
        key: &LinkKey::from_bytes([7; 32]),
    })
}

/// A page of an upstream.
#[derive(Debug, Clone)]
pub(super) struct Page {
    pub(super) repository: Repository,
    pub(super) url: Url,
    pub(super) key_path: String,
    pub(super) content_type: &'static str,
    pub(super) body: Vec<u8>,
}

impl Page {
    /// A page of the usual remote: `simple/{project}/`, or the project list if `project` is empty.
    pub(super) fn new(project: &str, content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        let key_path = if project.is_empty() {
            "simple/".to_owned()
        } else {
            format!("simple/{project}/")
        };
        let url = Url::parse("https://index.example.com/")
            .unwrap()
            .join(&key_path)
            .unwrap();
        Self {
            repository: two_hosts(),
            url,
            key_path,
            content_type,
            body: body.into(),
        }
    }

    /// JSON.
    pub(super) fn json(project: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::new(project, "application/vnd.pypi.simple.v1+json", body)
    }

    /// HTML.
    pub(super) fn html(project: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::new(project, "text/html; charset=utf-8", body)
    }

    /// Found elsewhere, in another remote.
    pub(super) fn at(mut self, base_url: &str, index_url: &str, url: &str) -> Self {
        self.repository = repository(base_url, index_url);
        self.url = url.parse().unwrap();
        self
    }

    fn document(&self) -> Document<'_> {
        Document {
            body: &self.body,
            content_type: self.content_type,
            url: &self.url,
            key_path: &self.key_path,
            variant: "",
            memo: None,
        }
    }

    pub(super) fn check(&self) -> Result<(), Malformed> {
        Pypi.check(&self.repository, &self.document(), &crate::Meter::default())
    }

    /// The derivation, of a page that passes the check.
    pub(super) fn derive(&self, form: &'static str) -> Derived {
        self.check().unwrap();
        self.try_derive(form).unwrap()
    }

    pub(super) fn try_derive(&self, form: &'static str) -> Result<Derived, Malformed> {
        Pypi.derive(&self.document(), form, &links_of(&self.repository))
    }

    /// The derivation as text.
    pub(super) fn text(&self, form: &'static str) -> String {
        String::from_utf8(self.derive(form).body).unwrap()
    }

    /// The derivation as JSON, read by an independent reader.
    pub(super) fn value(&self) -> serde_json::Value {
        serde_json::from_slice(&self.derive(super::negotiate::JSON).body).unwrap()
    }

    pub(super) fn claims(&self) -> Vec<Claim> {
        let mut claims = Vec::new();
        Pypi.claims(
            &self.document(),
            &links_of(&self.repository),
            &mut |claim| claims.push(claim),
        )
        .unwrap();
        claims.sort_by(|a, b| a.path.cmp(&b.path));
        claims
    }
}

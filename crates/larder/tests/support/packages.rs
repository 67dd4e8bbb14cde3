//! What upstreams hold: files, and the indexes of each ecosystem that name them with their digests.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use larder_core::{DigestAlgorithm, Hasher};
use larder_testkit::{Origin, Payload, Resource};
use serde_json::json;

/// `Content-Type` of the JSON form of the Simple API (PEP 691).
pub(crate) const SIMPLE_JSON: &str = "application/vnd.pypi.simple.v1+json";

/// A configuration with one remote.
pub(crate) fn remote(package: &str, origin: &Origin, keys: &str) -> String {
    format!("remotes:\n{}", entry(package, package, origin, keys))
}

/// One entry of `remotes`; `keys` are further lines of it, separated by line ends.
pub(crate) fn entry(name: &str, package: &str, origin: &Origin, keys: &str) -> String {
    let keys = keys
        .lines()
        .map(|line| format!("    {}\n", line.trim()))
        .collect::<Vec<_>>()
        .concat();
    format!(
        "  {name}:\n    package: {package}\n    base_url: '{}'\n{keys}",
        origin.url("/")
    )
}

/// One remote of each built type, named after it, all with the same further keys.
pub(crate) fn one_of_each(origin: &Origin, keys: &str) -> String {
    let entries: String = ["generic", "pypi", "npm", "helm"]
        .map(|package| entry(package, package, origin, keys))
        .concat();
    format!("remotes:\n{entries}")
}

/// A file that an index names.
#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) body: Payload,
}

impl File {
    /// A file of pseudo-random bytes.
    pub(crate) fn generated(name: &str, version: &str, length: u64, seed: u64) -> Self {
        Self {
            name: name.to_owned(),
            version: version.to_owned(),
            body: Payload::generated(length, seed),
        }
    }

    /// All its bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.body.slice(0, self.body.length()).to_vec()
    }

    fn digest(&self, algorithm: DigestAlgorithm) -> larder_core::Digest {
        let mut hasher = Hasher::new(&[algorithm]);
        hasher.update(&self.bytes());
        hasher
            .finish()
            .into_iter()
            .find(|digest| digest.algorithm() == algorithm)
            .expect("the digest asked for")
    }

    fn sha256(&self) -> String {
        self.digest(DigestAlgorithm::Sha256).to_hex()
    }
}

/// A PyPI project whose page is JSON: `/simple/{project}/` names `/pool/{wheel}`. Gives the repository paths of the wheels.
pub(crate) fn pypi_json(origin: &Origin, project: &str, files: &[File]) -> Vec<String> {
    let listed: Vec<_> = files
        .iter()
        .map(|file| {
            json!({"filename": wheel(file), "url": format!("../../pool/{}", wheel(file)), "hashes": {"sha256": file.sha256()}, "size": file.body.length()})
        })
        .collect();
    let versions: Vec<_> = files.iter().map(|file| file.version.as_str()).collect();
    let page = json!({"meta": {"api-version": "1.1"}, "name": project, "versions": versions, "files": listed});
    origin.put(
        &format!("/simple/{project}/"),
        Resource::new(page.to_string())
            .content_type(SIMPLE_JSON)
            .etag("\"page-1\""),
    );
    put_wheels(origin, files)
}

/// The same with an HTML page.
pub(crate) fn pypi_html(origin: &Origin, project: &str, files: &[File]) -> Vec<String> {
    let link = |file: &File| {
        format!(
            "<a href=\"../../pool/{}#sha256={}\">{}</a>\n",
            wheel(file),
            file.sha256(),
            wheel(file)
        )
    };
    let links = files.iter().map(link).collect::<Vec<_>>().concat();
    let page = format!("<!DOCTYPE html><html><body>\n{links}</body></html>\n");
    origin.put(
        &format!("/simple/{project}/"),
        Resource::new(page).content_type("text/html"),
    );
    put_wheels(origin, files)
}

fn put_wheels(origin: &Origin, files: &[File]) -> Vec<String> {
    let put = |file: &File| {
        let path = format!("pool/{}", wheel(file));
        origin.put(
            &format!("/{path}"),
            Resource::new(file.body.clone()).content_type("application/octet-stream"),
        );
        path
    };
    files.iter().map(put).collect()
}

fn wheel(file: &File) -> String {
    format!(
        "{}-{}-py3-none-any.whl",
        file.name.replace('-', "_"),
        file.version
    )
}

/// An npm package: `/{package}` names `/{package}/-/{package}-{version}.tgz`. Gives the repository paths of the tarballs.
pub(crate) fn npm(origin: &Origin, package: &str, files: &[File]) -> Vec<String> {
    let path = |file: &File| {
        format!(
            "{package}/-/{}-{}.tgz",
            package.rsplit('/').next().unwrap_or(package),
            file.version
        )
    };
    let versions: serde_json::Map<_, _> = files
        .iter()
        .map(|file| {
            let integrity = format!(
                "sha512-{}",
                STANDARD.encode(file.digest(DigestAlgorithm::Sha512).as_bytes())
            );
            let dist = json!({"tarball": origin.url(&path(file)), "integrity": integrity});
            (
                file.version.clone(),
                json!({"name": package, "version": file.version, "dist": dist}),
            )
        })
        .collect();
    let latest = files.last().map(|file| file.version.as_str());
    let packument = json!({"name": package, "dist-tags": {"latest": latest}, "versions": versions});
    let target = format!("/{}", package.replace('/', "%2f"));
    origin.put(
        &target,
        Resource::new(packument.to_string())
            .content_type("application/json")
            .etag("\"packument-1\""),
    );
    let put = |file: &File| {
        origin.put(
            &format!("/{}", path(file)),
            Resource::new(file.body.clone()).content_type("application/octet-stream"),
        );
        path(file)
    };
    files.iter().map(put).collect()
}

/// A Helm repository: `/index.yaml` names `/charts/{chart}-{version}.tgz`. Gives the repository paths of the charts.
pub(crate) fn helm(origin: &Origin, files: &[File]) -> Vec<String> {
    let path = |file: &File| format!("charts/{}-{}.tgz", file.name, file.version);
    let chart = |file: &File| {
        let (name, version) = (&file.name, &file.version);
        format!(
            "  {name}:\n  - apiVersion: v2\n    name: {name}\n    version: {version}\n    digest: {}\n    urls:\n    - {}\n",
            file.sha256(),
            path(file)
        )
    };
    let charts = files.iter().map(chart).collect::<Vec<_>>().concat();
    let index = format!("apiVersion: v1\nentries:\n{charts}generated: \"2024-01-01T00:00:00Z\"\n");
    origin.put(
        "/index.yaml",
        Resource::new(index)
            .content_type("text/yaml")
            .etag("\"index-1\""),
    );
    let put = |file: &File| {
        origin.put(
            &format!("/{}", path(file)),
            Resource::new(file.body.clone()).content_type("application/gzip"),
        );
        path(file)
    };
    files.iter().map(put).collect()
}

/// Puts indexes of the three ecosystems at the upstream, each naming one file at `url`.
pub(crate) fn put_indexes(origin: &Origin, url: &str) {
    let page = json!({"meta": {"api-version": "1.0"}, "name": "pantry",
        "files": [{"filename": "pantry-1.0.tar.gz", "url": url, "hashes": {}}]});
    origin.put(
        "/simple/pantry/",
        Resource::new(page.to_string()).content_type(SIMPLE_JSON),
    );
    let html = format!(
        "<html><body><a href=\"{}\">pantry-1.0.tar.gz</a></body></html>",
        url.replace('"', "&quot;")
    );
    origin.put(
        "/simple/larder/",
        Resource::new(html).content_type("text/html"),
    );
    let version = json!({"name": "pantry", "version": "1.0.0", "dist": {"tarball": url}});
    let packument =
        json!({"name": "pantry", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}});
    origin.put(
        "/pantry",
        Resource::new(packument.to_string()).content_type("application/json"),
    );
    let index = json!({"apiVersion": "v1", "entries": {"pantry": [{"name": "pantry", "version": "1.0.0", "urls": [url]}]}});
    origin.put(
        "/index.yaml",
        Resource::new(index.to_string()).content_type("text/yaml"),
    );
}

/// Requests for these indexes: repository and path.
pub(crate) const INDEXES: [(&str, &str); 4] = [
    ("pypi", "simple/pantry/"),
    ("pypi", "simple/larder/"),
    ("npm", "pantry"),
    ("helm", "index.yaml"),
];

/// Every link of an index that leads to larder, as a path within the repository.
pub(crate) fn links_back(larder: &super::TestLarder, repository: &str, index: &str) -> Vec<String> {
    let root = format!("/api/v1/remote/{repository}/");
    let absolute = larder.artifact(repository, "");
    let ends = |c: char| matches!(c, '"' | '#' | '\'' | ' ' | '\n' | '<' | '>');
    let text = index.replace(&absolute, &root);
    text.split(&root)
        .skip(1)
        .filter_map(|rest| rest.split(ends).next())
        .map(str::to_owned)
        .collect()
}

//! A place learnt on the way is a hint, a document that does not name a file may only be older than the file, and a new document and
//! the loss of what it contradicts become visible together (docs/adr/0035, 0036).
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test program: its helpers panic to report"
)]

mod guesses;
mod newer;
mod pinned;
#[path = "../rpm/repo.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod repo;
#[path = "../support/mod.rs"]
mod support;
mod together;

use larder_core::{Digest, DigestAlgorithm, Fault, FaultKind, Hasher, sha256};
use larder_testkit::{Origin, Resource};
use support::{Bench, Got};

/// The package types whose documents name files with their places and digests.
const LINKING: [&str; 3] = ["pypi", "npm", "helm"];

/// The kind and code of a refusal.
#[track_caller]
fn refusal(result: Result<Got, Fault>) -> (FaultKind, &'static str) {
    match result {
        Err(fault) => (fault.kind, fault.code.as_str()),
        Ok(got) => panic!(
            "answered {} ({}) with {:?}",
            got.answer.status, got.answer.cache_status, got.body
        ),
    }
}

/// A version of the project `demo`, as each package type has it.
#[derive(Debug, Clone)]
struct Version {
    format: &'static str,
    /// Path within the repository.
    path: String,
    /// Path at the origin.
    at: String,
    bytes: Vec<u8>,
    /// What stands of it in the document.
    entry: String,
}

impl Version {
    /// Version `number`, with `bytes`, at its usual place.
    fn new(origin: &Origin, format: &'static str, number: &str, bytes: &str) -> Self {
        let path = match format {
            "pypi" => format!("packages/demo-{number}-py3-none-any.whl"),
            "npm" => format!("demo/-/demo-{number}.tgz"),
            _ => format!("charts/demo-{number}.tgz"),
        };
        Self::at(origin, format, number, bytes, &path.clone(), path)
    }

    /// Version `number`, with `bytes`, which the document places at `at`.
    fn at(
        origin: &Origin,
        format: &'static str,
        number: &str,
        bytes: &str,
        at: &str,
        path: String,
    ) -> Self {
        let (url, bytes) = (origin.url(at), bytes.as_bytes().to_vec());
        let entry = match format {
            "pypi" => format!(
                r#"{{"filename":"demo-{number}-py3-none-any.whl","url":"{url}","hashes":{{"sha256":"{}"}}}}"#,
                sha256(&bytes).to_hex()
            ),
            "npm" => format!(
                r#""{number}":{{"name":"demo","version":"{number}","dist":{{"tarball":"{url}","shasum":"{}"}}}}"#,
                sha1(&bytes).to_hex()
            ),
            _ => format!(
                "  - apiVersion: v2\n    digest: {}\n    name: demo\n    urls:\n    - {at}\n    version: {number}\n",
                sha256(&bytes).to_hex()
            ),
        };
        Self {
            format,
            path,
            at: format!("/{at}"),
            bytes,
            entry,
        }
    }

    fn put(&self, origin: &Origin) {
        origin.put(&self.at, resource(&self.bytes));
    }
}

fn sha1(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(&[DigestAlgorithm::Sha1]);
    hasher.update(bytes);
    hasher
        .finish()
        .into_iter()
        .find(|digest| digest.algorithm() == DigestAlgorithm::Sha1)
        .unwrap()
}

/// With the strong tag of its bytes.
fn resource(bytes: &[u8]) -> Resource {
    Resource::new(bytes.to_vec()).etag(&format!("\"{}\"", &sha256(bytes).to_hex()[..16]))
}

/// Where a package type's document is, for clients and at the origin.
fn document(format: &str) -> (&'static str, &'static str) {
    match format {
        "pypi" => ("simple/demo/", "/simple/demo/"),
        "npm" => ("demo", "/demo"),
        _ => ("index.yaml", "/index.yaml"),
    }
}

/// Puts a document at the origin that names these versions.
fn name(origin: &Origin, versions: &[&Version]) {
    let entries: Vec<&str> = versions
        .iter()
        .map(|version| version.entry.as_str())
        .collect();
    let format = versions[0].format;
    let (body, content_type) = match format {
        "pypi" => (
            format!(
                r#"{{"meta":{{"api-version":"1.1"}},"name":"demo","versions":[],"files":[{}]}}"#,
                entries.join(",")
            ),
            "application/vnd.pypi.simple.v1+json",
        ),
        "npm" => (
            format!(
                r#"{{"name":"demo","dist-tags":{{}},"versions":{{{}}}}}"#,
                entries.join(",")
            ),
            "application/vnd.npm.install-v1+json",
        ),
        _ => (
            format!(
                "apiVersion: v1\nentries:\n  demo:\n{}generated: \"2026-01-01T00:00:00Z\"\n",
                entries.concat()
            ),
            "application/yaml",
        ),
    };
    origin.put(
        document(format).1,
        resource(body.as_bytes()).content_type(content_type),
    );
}

/// The body of a file that is fetched or held.
async fn body(bench: &Bench, repository: &str, path: &str) -> Vec<u8> {
    let got = bench
        .get(repository, path)
        .await
        .unwrap_or_else(|fault| panic!("{path}: {} {}", fault.code.as_str(), fault.message));
    let bytes = got.bytes().to_vec();
    bench.settled().await;
    bytes
}

/// The file is held, found right by its document, and served from there.
#[track_caller]
fn assert_verified(record: Option<larder_core::ArtifactRecord>, what: &str) {
    assert!(
        record.expect("it is held").verified,
        "{what}: kept without having been compared with what the document states"
    );
}

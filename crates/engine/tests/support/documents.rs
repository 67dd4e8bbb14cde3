//! One file, published at an origin in each of the four formats, with the document that names it and states its digest.

pub(crate) use base64_of::base64;
use larder_core::{Digest, DigestAlgorithm, Hasher, sha256};
use larder_testkit::{Origin, Payload, Resource};

/// The repositories of a bench.
pub(crate) const FORMATS: [&str; 4] = ["generic", "pypi", "npm", "helm"];

/// Where a file and its document are.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    pub(crate) repository: &'static str,
    /// Path within the repository.
    pub(crate) path: String,
    /// Path at the origin.
    pub(crate) at: String,
    /// The document's path within the repository; empty for generic.
    pub(crate) document: &'static str,
    /// The document's path at the origin; empty for generic.
    pub(crate) document_at: &'static str,
    /// The variant of the document's record.
    pub(crate) document_variant: &'static str,
}

impl Published {
    pub(crate) fn has_document(&self) -> bool {
        !self.document.is_empty()
    }
}

/// Puts `body` and its document at the origin.
pub(crate) fn publish(origin: &Origin, repository: &str, body: &Payload, etag: &str) -> Published {
    let whole = body.slice(0, body.length());
    let (published, document) = match repository {
        "generic" => (place("generic", "files/demo.bin", "", "", ""), None),
        "pypi" => {
            let file = "packages/demo-1.0-py3-none-any.whl";
            let page = pypi_page(&origin.url(file), &sha256(&whole));
            (
                place("pypi", file, "simple/demo/", "/simple/demo/", ""),
                Some(page),
            )
        }
        "npm" => {
            let file = "demo/-/demo-1.0.0.tgz";
            let packument = npm_packument(&origin.url(file), &whole);
            (
                place("npm", file, "demo", "/demo", "abbreviated"),
                Some(packument),
            )
        }
        _ => {
            let file = "charts/demo-1.0.0.tgz";
            (
                place("helm", file, "index.yaml", "/index.yaml", ""),
                Some(helm_index(file, &sha256(&whole))),
            )
        }
    };
    if let Some(document) = document {
        origin.put(published.document_at, document);
    }
    origin.put(
        &published.at,
        Resource::new(body.clone())
            .etag(etag)
            .content_type("application/octet-stream"),
    );
    published
}

fn place(
    repository: &'static str,
    path: &str,
    document: &'static str,
    document_at: &'static str,
    document_variant: &'static str,
) -> Published {
    Published {
        repository,
        path: path.to_owned(),
        at: format!("/{path}"),
        document,
        document_at,
        document_variant,
    }
}

/// A JSON simple page (PEP 691) that names one wheel.
pub(crate) fn pypi_page(url: &str, digest: &Digest) -> Resource {
    let name = url.rsplit('/').next().unwrap_or_default();
    let body = format!(
        r#"{{"meta":{{"api-version":"1.1"}},"name":"demo","versions":["1.0"],"files":[{{"filename":"{name}","url":"{url}","hashes":{{"sha256":"{}"}}}}]}}"#,
        digest.to_hex()
    );
    Resource::new(body)
        .content_type("application/vnd.pypi.simple.v1+json")
        .etag(&format!("\"page-{}\"", &digest.to_hex()[..12]))
}

/// An abbreviated packument that names one tarball with its `integrity`.
pub(crate) fn npm_packument(url: &str, tarball: &[u8]) -> Resource {
    let mut hasher = Hasher::new(&[DigestAlgorithm::Sha512]);
    hasher.update(tarball);
    let sha512 = hasher
        .finish()
        .into_iter()
        .find(|digest| digest.algorithm() == DigestAlgorithm::Sha512)
        .unwrap();
    let integrity = base64(sha512.as_bytes());
    let body = format!(
        r#"{{"name":"demo","dist-tags":{{"latest":"1.0.0"}},"versions":{{"1.0.0":{{"name":"demo","version":"1.0.0","dist":{{"tarball":"{url}","integrity":"sha512-{integrity}"}}}}}}}}"#
    );
    let etag = format!("\"packument-{}\"", &sha512.to_hex()[..12]);
    Resource::new(body)
        .content_type("application/vnd.npm.install-v1+json")
        .etag(&etag)
}

/// A chart index that names one chart.
pub(crate) fn helm_index(url: &str, digest: &Digest) -> Resource {
    let body = format!(
        "apiVersion: v1\nentries:\n  demo:\n  - apiVersion: v2\n    digest: {}\n    name: demo\n    urls:\n    - {url}\n    version: 1.0.0\ngenerated: \"2026-01-01T00:00:00Z\"\n",
        digest.to_hex()
    );
    Resource::new(body)
        .content_type("application/yaml")
        .etag(&format!("\"index-{}\"", &digest.to_hex()[..12]))
}

/// Base 64 (RFC 4648 section 4), which no dependency of this crate brings.
mod base64_of {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    pub(crate) fn base64(bytes: &[u8]) -> String {
        let mut text = String::new();
        for group in bytes.chunks(3) {
            let word = group
                .iter()
                .fold(0_u32, |word, byte| word << 8 | u32::from(*byte))
                << (8 * (3 - group.len()));
            for place in 0..4 {
                let letter = ALPHABET[(word >> (18 - 6 * place)) as usize & 63];
                text.push(if place <= group.len() {
                    char::from(letter)
                } else {
                    '='
                });
            }
        }
        text
    }

    #[test]
    fn the_test_vectors_of_rfc_4648() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }
}

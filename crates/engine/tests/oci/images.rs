//! Images at an origin, made by hand: what a manifest is stands in the image specification.

use larder_core::sha256;
use larder_testkit::{Origin, Payload, Resource};

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const SCHEMA2: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

/// A body with its digest and media type.
#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    pub(crate) body: String,
    pub(crate) media_type: &'static str,
}

impl Manifest {
    pub(crate) fn digest(&self) -> String {
        sha256(self.body.as_bytes()).to_string()
    }

    pub(crate) fn resource(&self) -> Resource {
        Resource::new(self.body.clone())
            .content_type(self.media_type)
            .header("Docker-Content-Digest", &self.digest())
    }
}

/// A manifest of one image; `note` makes its bytes differ from others'. The spacing is unusual: written anew it would be lost.
pub(crate) fn image(media_type: &'static str, note: &str) -> Manifest {
    let body = format!(
        "{{ \"schemaVersion\":2,\n\"mediaType\" : \"{media_type}\",\"config\":{{}},\"layers\":[],\"annotations\":{{\"note\":\"{note}\"}} }}"
    );
    Manifest { body, media_type }
}

/// An index over manifests.
pub(crate) fn index(media_type: &'static str, of: &[&Manifest]) -> Manifest {
    let entries: Vec<String> = of
        .iter()
        .map(|manifest| format!("{{\"digest\":\"{}\"}}", manifest.digest()))
        .collect();
    let body = format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"{media_type}\",\n \"manifests\":[{}]}}",
        entries.join(",\n")
    );
    Manifest { body, media_type }
}

/// Puts a manifest at its digest.
pub(crate) fn put(origin: &Origin, name: &str, manifest: &Manifest) -> String {
    let path = format!("{name}/manifests/{}", manifest.digest());
    origin.put(&format!("/v2/{path}"), manifest.resource());
    path
}

/// Puts a manifest at its digest and lets a tag stand for it.
pub(crate) fn tag(origin: &Origin, path: &str, manifest: &Manifest) {
    let (name, _) = path.split_once("/manifests/").unwrap();
    put(origin, name, manifest);
    origin.put(&format!("/v2/{path}"), manifest.resource());
}

/// Puts a blob; gives its path in the repository.
pub(crate) fn blob(origin: &Origin, name: &str, body: &Payload) -> String {
    let digest = sha256(&body.slice(0, body.length()));
    let path = format!("{name}/blobs/{digest}");
    origin.put(
        &format!("/v2/{path}"),
        Resource::new(body.clone()).content_type("application/octet-stream"),
    );
    path
}

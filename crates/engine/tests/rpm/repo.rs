//! RPM repositories, made here as createrepo_c makes them. A signature is a text that names what it signs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

use larder_core::{Digest, DigestAlgorithm, Hasher, sha256};
use larder_testkit::{Origin, Resource};

/// A state of a repository: its metadata and its packages, by path below its root.
#[derive(Debug, Clone)]
pub(crate) struct Generation {
    pub(crate) metadata: BTreeMap<String, Vec<u8>>,
    pub(crate) packages: BTreeMap<String, Vec<u8>>,
    pub(crate) repomd: Vec<u8>,
}

/// How a generation is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    /// Whether metadata files are named by their digest.
    pub(crate) unique: bool,
    pub(crate) algorithm: DigestAlgorithm,
    pub(crate) signed: bool,
    pub(crate) revision: u64,
}

impl Style {
    pub(crate) fn revision(revision: u64) -> Self {
        Self {
            unique: true,
            algorithm: DigestAlgorithm::Sha256,
            signed: true,
            revision,
        }
    }
}

pub(crate) const MASTER: &str = "repodata/repomd.xml";
pub(crate) const SIGNATURE: &str = "repodata/repomd.xml.asc";

/// A generation with these packages.
pub(crate) fn generation(style: Style, packages: &[(&str, &str)]) -> Generation {
    let packages: BTreeMap<String, Vec<u8>> = packages
        .iter()
        .map(|(path, body)| ((*path).to_owned(), body.as_bytes().to_vec()))
        .collect();
    let primary = gzip(primary_xml(&packages).as_bytes());
    let kinds = [
        ("primary", primary),
        (
            "filelists",
            gzip(format!("<filelists revision=\"{}\"/>", style.revision).as_bytes()),
        ),
        (
            "other",
            gzip(format!("<otherdata revision=\"{}\"/>", style.revision).as_bytes()),
        ),
    ];
    let mut metadata = BTreeMap::new();
    let mut records = String::new();
    for (kind, body) in kinds {
        let digest = digest(style.algorithm, &body);
        let name = if style.unique {
            format!("{}-{kind}.xml.gz", digest.to_hex())
        } else {
            format!("{kind}.xml.gz")
        };
        write!(
            records,
            "  <data type=\"{kind}\">\n    <checksum type=\"{}\">{}</checksum>\n    <location href=\"repodata/{name}\"/>\n    \
             <timestamp>{}</timestamp>\n    <size>{}</size>\n  </data>\n",
            style.algorithm.as_str(),
            digest.to_hex(),
            style.revision,
            body.len()
        )
        .unwrap();
        metadata.insert(format!("repodata/{name}"), body);
    }
    let repomd = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<repomd xmlns=\"http://linux.duke.edu/metadata/repo\" \
         xmlns:rpm=\"http://linux.duke.edu/metadata/rpm\">\n  <revision>{}</revision>\n{records}</repomd>\n",
        style.revision
    )
    .into_bytes();
    if style.signed {
        metadata.insert(SIGNATURE.to_owned(), signature(&repomd));
    }
    Generation {
        metadata,
        packages,
        repomd,
    }
}

/// What stands for the signature of a master index.
pub(crate) fn signature(repomd: &[u8]) -> Vec<u8> {
    format!("signature of {}", sha256(repomd).to_hex()).into_bytes()
}

fn primary_xml(packages: &BTreeMap<String, Vec<u8>>) -> String {
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<metadata xmlns=\"http://linux.duke.edu/metadata/common\" \
         xmlns:rpm=\"http://linux.duke.edu/metadata/rpm\" packages=\"{}\">\n",
        packages.len()
    );
    for (path, body) in packages {
        writeln!(
            xml,
            "<package type=\"rpm\"><name>x</name><arch>x86_64</arch><version epoch=\"0\" ver=\"1\" rel=\"1\"/>\
             <checksum type=\"sha256\" pkgid=\"YES\">{}</checksum><summary>a &amp; b</summary>\
             <size package=\"{}\" installed=\"1\" archive=\"1\"/><location href=\"{path}\"/>\
             <format><rpm:license>MIT</rpm:license></format></package>",
            sha256(body).to_hex(),
            body.len()
        )
        .unwrap();
    }
    xml + "</metadata>\n"
}

pub(crate) fn digest(algorithm: DigestAlgorithm, body: &[u8]) -> Digest {
    let mut hasher = Hasher::new(&[algorithm]);
    hasher.update(body);
    hasher
        .finish()
        .into_iter()
        .find(|digest| digest.algorithm() == algorithm)
        .unwrap()
}

pub(crate) fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

impl Generation {
    /// Path below the root of the metadata of a kind.
    pub(crate) fn path_of(&self, kind: &str) -> String {
        self.metadata
            .keys()
            .find(|path| path.ends_with(&format!("{kind}.xml.gz")))
            .unwrap()
            .clone()
    }

    pub(crate) fn body_of(&self, kind: &str) -> &[u8] {
        &self.metadata[&self.path_of(kind)]
    }

    /// Puts everything at the origin below `root`; with `instead_of`, the metadata of that generation goes first.
    pub(crate) fn publish(&self, origin: &Origin, root: &str, instead_of: Option<&Generation>) {
        for path in instead_of.into_iter().flat_map(|old| old.metadata.keys()) {
            origin.remove(&format!("/{root}{path}"));
        }
        for (path, body) in self.packages.iter().chain(&self.metadata) {
            origin.put(&format!("/{root}{path}"), resource(body));
        }
        origin.put(&format!("/{root}{MASTER}"), resource(&self.repomd));
    }
}

pub(crate) fn resource(body: &[u8]) -> Resource {
    let tag = format!("\"{}\"", &sha256(body).to_hex()[..16]);
    Resource::new(body.to_vec())
        .etag(&tag)
        .content_type("application/octet-stream")
}

//! What a format has to show to people who look around: packages with their versions, images with their parts.

use larder_core::{Digest, UnixMillis};

use super::{Document, Malformed};
use crate::Links;

/// What a file is a part of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartOf {
    /// A package, project or chart.
    Package {
        /// Its name.
        name: String,
        /// Where there is an index for each folder, the one that names it: without slash at its end.
        folder: Option<String>,
    },
    /// An image.
    Image {
        /// Its name.
        name: String,
        /// The tag or digest that the file is the manifest of.
        reference: Option<String>,
    },
}

/// What an index says of the versions of a package beside what its claims say of files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Releases {
    /// Names that stand for versions (npm's `latest`), with the version.
    pub tags: Vec<(String, String)>,
    /// One for each file of a version.
    pub releases: Vec<Release>,
}

/// A file of a version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Release {
    /// The version.
    pub version: String,
    /// Decoded path below the repository with its query, as the index's claims have it; empty for a file that larder does not carry.
    pub path: String,
    /// When it was published.
    pub published: Option<UnixMillis>,
    /// It was withdrawn, and why; the reason may be empty.
    pub yanked: Option<String>,
    /// It is not to be used any more, and why; the reason may be empty.
    pub deprecated: Option<String>,
}

impl Release {
    /// The memory that it takes, in bytes.
    pub(crate) fn weight(&self) -> usize {
        let notes = [&self.yanked, &self.deprecated].into_iter().flatten();
        let texts = [&self.version, &self.path].into_iter().chain(notes);
        size_of::<Self>() + texts.map(String::len).sum::<usize>()
    }
}

/// What a manifest consists of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Its media type, as it says itself.
    pub media_type: Option<String>,
    /// What kind of artifact it is, where it says so.
    pub artifact_type: Option<String>,
    /// The digest of the manifest that it says something of.
    pub subject: Option<String>,
    /// The image's configuration.
    pub config: Option<Part>,
    /// Its layers, or the manifests of an index, in their order.
    pub parts: Vec<Part>,
    /// Whether the parts are manifests.
    pub is_index: bool,
    /// Parts beyond those that are given.
    pub left_out: usize,
    /// The bytes of all parts, those left out among them, as far as it states them.
    pub sum: u64,
}

/// A descriptor of a manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    /// Its digest.
    pub digest: String,
    /// Decoded path within the repository; empty if the digest is none.
    pub path: String,
    /// Its media type.
    pub media_type: String,
    /// What kind of artifact it is, where that is said.
    pub artifact_type: Option<String>,
    /// Bytes.
    pub size: Option<u64>,
    /// `os/architecture/variant`.
    pub platform: Option<String>,
}

/// What an image's configuration says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// `os/architecture/variant`.
    pub platform: Option<String>,
    /// When it was made, as it says itself.
    pub created: Option<String>,
    /// The command that it runs.
    pub command: Option<String>,
}

/// What a format knows for people. All functions are pure. The defaults are those of a format that has nothing of the kind.
pub trait Browsed: Send + Sync + std::fmt::Debug {
    /// What the file or document at a decoded path is a part of.
    fn part_of(&self, _path: &str) -> Option<PartOf> {
        None
    }

    /// What an index says of the versions of `name`; `None` of a document that does not tell its packages, so that only its files' own names
    /// do. What it takes is counted on the meter of `links`.
    ///
    /// # Errors
    /// What is wrong with the document.
    fn releases(
        &self,
        _document: &Document<'_>,
        _name: &str,
        _links: &Links<'_>,
    ) -> Result<Option<Releases>, Malformed> {
        Ok(None)
    }

    /// Where nothing else tells it: the version of the package `name` that the file at a decoded path is, by its own name; `None` if it is
    /// of another package.
    fn version_of<'p>(&self, _path: &'p str, _name: &str) -> Option<&'p str> {
        None
    }

    /// What a manifest consists of, `most` parts at the most; `None` if the document is none.
    ///
    /// # Errors
    /// What is wrong with the document.
    fn manifest(
        &self,
        _document: &Document<'_>,
        _most: usize,
    ) -> Result<Option<Manifest>, Malformed> {
        Ok(None)
    }

    /// What the bytes of an image's configuration say; `None` if they are none.
    fn image_config(&self, _body: &[u8]) -> Option<ImageConfig> {
        None
    }

    /// Where the manifests of an image stand: all that begin with this path. `None` where there are none, or that is no image's name.
    fn manifests_of(&self, _image: &str) -> Option<String> {
        None
    }

    /// Where the list of what refers to a manifest stands.
    fn referrers_of(&self, _image: &str, _digest: &Digest) -> Option<String> {
        None
    }
}

/// The name of a file whose path this is.
pub(crate) fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// The folder of a file, without the slash at its end; `None` at the root.
pub(crate) fn folder(path: &str) -> Option<String> {
    path.rsplit_once('/').map(|(folder, _)| folder.to_owned())
}

//! The repository that the tests of this format use.

use larder_core::{PackageType, Repository};

pub(super) use crate::testing::links;

/// An upstream root.
pub(super) const ROOT: &str = "https://registry.example.com/npm/";
/// One without TLS.
pub(super) const PLAIN_ROOT: &str = "http://registry.example.com:4873/";
/// Where links lead.
pub(super) const PUBLIC: &str = "https://larder.example/api/v1/remote/npm/";

/// A remote npm repository without patterns.
pub(super) fn remote(root: &str) -> Repository {
    crate::testing::remote("npm", PackageType::Npm, root)
}

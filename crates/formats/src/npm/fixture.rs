//! The repository that the tests of this format use.

use larder_core::{PackageType, Repository};
use url::Url;

use crate::{Document, Memo};

pub(super) use crate::testing::links;

/// An upstream root.
pub(super) const ROOT: &str = "https://registry.example.com/npm/";
/// One without TLS.
pub(super) const PLAIN_ROOT: &str = "http://registry.example.com:4873/";
/// Where links lead.
pub(super) const PUBLIC: &str = "https://larder.example/api/v1/remote/npm/";

/// [`ROOT`].
pub(super) fn root() -> Url {
    ROOT.parse().unwrap()
}

/// A document that came from `url`.
pub(super) fn document<'d>(body: &'d [u8], url: &'d Url, memo: Option<&'d Memo>) -> Document<'d> {
    Document {
        body,
        content_type: "application/json",
        url,
        key_path: "",
        variant: "",
        memo,
    }
}

/// A remote npm repository without patterns.
pub(super) fn remote(root: &str) -> Repository {
    crate::testing::remote("npm", PackageType::Npm, root)
}

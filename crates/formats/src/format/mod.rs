//! What the engine knows of a format: what a request means and a path is ([`Format`]), what holds for all of it ([`Profile`]), its
//! documents ([`DocumentFormat`]), what it adds to HTTP ([`Protocol`]), what it has to show to people ([`Browsed`]), and what it is where
//! clients upload ([`Hosted`]).

pub(crate) mod browsed;
mod document;
mod facts;
mod hosted;
mod offering;
mod profile;
mod protocol;
mod rewritten;

use larder_core::Repository;

pub use browsed::{Browsed, ImageConfig, Manifest, Part, PartOf, Release, Releases};
pub use document::{
    Claim, Companion, Derived, Document, DocumentFormat, Generation, Identifier, Malformed, Memo,
    NamingDocuments,
};
pub use facts::{Naming, PathFacts, Role};
pub use hosted::{Hosted, UploadHead};
pub use offering::{Offering, OfferingIndex};
pub use profile::Profile;
pub use protocol::{ErrorBody, Held, Protocol, standard_error_body};
pub use rewritten::{Pieces, Rewritten};

use crate::{Operation, RequestParts};

/// A package format. All functions are pure.
pub trait Format: DocumentFormat + Protocol + Browsed {
    /// Parses a request. Paths have passed [`larder_core::ArtifactPath::parse`]; `_ext/` paths never come here
    /// where documents [link elsewhere](Profile::links_elsewhere). What is read has its [facts](crate::Read::facts) from the same parse.
    fn operation(&self, request: &RequestParts<'_>) -> Operation;

    /// What a decoded path is, where it comes from no request: a file that a document names, a row that is held.
    fn facts(&self, repository: &Repository, path: &str) -> PathFacts;

    /// What holds for every path and document.
    fn profile(&self) -> &'static Profile;

    /// Whether a decoded path is asked for elsewhere than among the files, or as something that is no file: what a document links to as a file
    /// cannot have it.
    fn is_reserved(&self, _path: &str) -> bool {
        false
    }

    /// What this format knows of repositories that clients upload to; `None` if there are none of it yet.
    fn hosted(&self) -> Option<&dyn Hosted> {
        None
    }
}

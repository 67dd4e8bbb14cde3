//! Knowledge of each package format: pure functions over bytes. No I/O, no cache, no control flow.
//!
//! To add a format: a folder with an implementation of [`Format`], and a line in [`format_of`].
//! What a format says is acted on by the one pipeline in `larder-engine`; a format never serves anything itself.
#![cfg_attr(not(test), warn(clippy::too_many_lines))]

mod alpine;
mod budget;
mod client_lines;
mod format;
mod generic;
mod helm;
mod instant;
mod links;
mod merge;
mod npm;
mod oci;
mod operation;
mod pypi;
mod rpm;
mod splice;
#[cfg(test)]
mod testing;

use larder_core::PackageType;

pub use budget::{Budget, Meter};
pub use client_lines::{ClientLines, client_lines, repository_url};
pub use format::{
    Browsed, Claim, Companion, Derived, Document, DocumentFormat, ErrorBody, Format, Generation,
    Held, Hosted, Identifier, ImageConfig, Malformed, Manifest, Memo, Naming, NamingDocuments,
    Offering, OfferingIndex, Part, PartOf, PathFacts, Pieces, Profile, Protocol, Release, Releases,
    Rewritten, Role, UploadHead, standard_error_body,
};
pub use links::{ExternalLink, LeftOut, LinkBase, LinkKey, Links, Mark, SIDECAR_SUFFIXES};
pub use merge::{MergeFault, MergeMember, Merged};
pub use operation::{
    Form, Operation, PassThrough, Read, Refusal, RequestParts, SourceBase, SourceSpec, StaticAnswer,
};
pub use splice::Piece;

/// The format of a package type.
pub fn format_of(package: PackageType) -> &'static dyn Format {
    match package {
        PackageType::Generic => &generic::Generic,
        PackageType::Pypi => &pypi::Pypi,
        PackageType::Npm => &npm::Npm,
        PackageType::Helm => &helm::Helm,
        PackageType::Alpine => &alpine::Alpine,
        PackageType::Rpm => &rpm::Rpm,
        PackageType::Docker => &oci::Oci,
    }
}

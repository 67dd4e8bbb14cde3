//! An RPM repository at an upstream, with its metadata as the engine's own tests make it.
#![expect(
    dead_code,
    clippy::unwrap_used,
    reason = "it is shared with tests that use more of it"
)]

#[path = "../../../engine/tests/rpm/repo.rs"]
mod repo;

use larder_testkit::Origin;

/// A package that stands in every state of the repository.
pub(crate) const PACKAGE: &str = "Packages/pan-1.rpm";

/// Publishes the state with this revision below `root`, in which the package has these bytes.
pub(crate) fn publish_package(origin: &Origin, root: &str, revision: u64, body: &str) {
    let generation = repo::generation(repo::Style::revision(revision), &[(PACKAGE, body)]);
    generation.publish(origin, root, None);
}

/// The same, with metadata whose names do not say what it is.
pub(crate) fn publish_plainly(origin: &Origin, root: &str, revision: u64, body: &str) {
    let style = repo::Style {
        unique: false,
        ..repo::Style::revision(revision)
    };
    let generation = repo::generation(style, &[(PACKAGE, body)]);
    generation.publish(origin, root, None);
}

/// The path of the index.
pub(crate) const INDEX: &str = repo::MASTER;

/// Publishes a repository below `root`; gives the paths that a client asks for.
pub(crate) fn publish(origin: &Origin, root: &str) -> Vec<String> {
    let packages = [
        ("Packages/pan-1.rpm", "a package"),
        ("Packages/pot-1.rpm", "another"),
    ];
    let generation = repo::generation(repo::Style::revision(1), &packages);
    generation.publish(origin, root, None);
    let mut paths = vec![repo::MASTER.to_owned()];
    paths.extend(generation.metadata.keys().cloned());
    paths.extend(generation.packages.keys().cloned());
    paths
}

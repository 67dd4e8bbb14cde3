//! Repositories and requests for the tests of this crate.

use http::{HeaderMap, Method};
use larder_core::{
    AccessPolicy, ArtifactPath, CachePolicy, Kind, PackageType, PathRules, QuarantinePolicy,
    Repository, RepositoryName, UpstreamSettings,
};
use url::Url;

use crate::{Format, LinkBase, LinkKey, Links, Operation, Read, RequestParts};

/// A remote repository with nothing set but its root.
pub(crate) fn remote(name: &str, package: PackageType, base_url: &str) -> Repository {
    let base: Url = base_url.parse().unwrap();
    Repository {
        name: RepositoryName::parse(name).unwrap(),
        package,
        description: String::new(),
        kind: Kind::Remote(Box::new(UpstreamSettings::new(base))),
        access: AccessPolicy::default(),
        cache: CachePolicy::default(),
        quarantine: QuarantinePolicy::default(),
        authoritative: false,
        rules_epoch: 0,
    }
}

/// Links of `repository` below `https://larder.example/api/v1/remote/NAME/`.
pub(crate) fn links(repository: &Repository) -> Links<'_> {
    let base = LinkBase::new(format!(
        "https://larder.example/api/v1/remote/{}",
        repository.name
    ));
    Links::new(repository, &LinkKey::from_bytes([7; 32]), base)
}

/// What `format` makes of a GET, which must be a read.
pub(crate) fn read(
    format: &dyn Format,
    repository: &Repository,
    path: &str,
    query: Option<&str>,
) -> Read {
    let path = ArtifactPath::parse(path, PathRules::default()).unwrap();
    let headers = HeaderMap::new();
    let key = LinkKey::from_bytes([7; 32]);
    let request = RequestParts {
        repository,
        method: &Method::GET,
        path: &path,
        query,
        headers: &headers,
        key: &key,
    };
    match format.operation(&request) {
        Operation::Read(read) => read,
        other => panic!("not a read: {other:?}"),
    }
}

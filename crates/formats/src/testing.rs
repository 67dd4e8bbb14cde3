//! Repositories and requests for the tests of this crate.

use http::{HeaderMap, Method};
use larder_core::{
    AccessPolicy, ArtifactPath, CachePolicy, Kind, PackageType, PathRules, QuarantinePolicy,
    Repository, RepositoryName, UpstreamSettings,
};
use url::Url;

use crate::{
    Document, Format, LinkBase, LinkKey, Links, Naming, NamingDocuments, Operation, Read,
    RequestParts, SourceSpec,
};

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
        reserved: larder_core::ReservedNames::default(),
        rules_epoch: 0,
    }
}

/// What an upstream sent of a path, without a word of what it is.
pub(crate) fn document<'d>(body: &'d [u8], url: &'d Url, key_path: &'d str) -> Document<'d> {
    Document {
        body,
        content_type: "",
        url,
        key_path,
        variant: "",
        memo: None,
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
        Operation::Read(read) => {
            let of_path = format.facts(repository, &read.source.key_path);
            assert_eq!(read.facts, of_path, "{path:?} is parsed in two ways");
            read
        }
        other => panic!("not a read: {other:?}"),
    }
}

/// The document that names a file and is obtained for its sake; what is said of the path must agree with which documents there are.
pub(crate) fn named_by(
    format: &dyn Format,
    repository: &Repository,
    path: &str,
) -> Option<SourceSpec> {
    let documents = format.naming(repository, path);
    let expected = match &documents {
        NamingDocuments {
            document: Some(_), ..
        } => Naming::Obtained,
        NamingDocuments { possible, .. } if !possible.is_empty() => Naming::Held,
        _ => Naming::Nobody,
    };
    assert_eq!(format.facts(repository, path).naming, expected, "{path}");
    documents.document
}

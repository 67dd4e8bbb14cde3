//! Alpine's apk repositories: `APKINDEX.tar.gz` or `Packages.adb`, and the packages beside it (docs/reference/protocols/apk.md).
//!
//! Indexes and packages are signed, so nothing is rewritten: every path is served as it came. What this folder knows is which
//! paths change, and how an index names a package: by a hash of the part of it that names the rest, which is no digest of the file.
//!
//! | file | knows |
//! |---|---|
//! | `path` | which path is an index, which a package, and which index names which package |
//! | `apkindex` | the members of an `APKINDEX.tar.gz` and the records in it |
//! | `packages_adb` | the records of a `Packages.adb` |
//! | `record` | what a record says of a package, and under which paths clients ask for it |
//! | `tar` | the entries of a tar archive, as far as apk uses them |
//! | `adb` | the container of apk 3: its packing, its blocks, its tree of values |
//! | `identity` | the identities of a package, computed while it arrives: which version it is |
//! | `identity_v2`, `identity_v3` | the same of either version |
//! | `contents` | the files of a package of version 3, in the order in which their bytes come |

mod adb;
mod apkindex;
mod browsed;
mod contents;
mod identity;
mod identity_v2;
mod identity_v3;
mod packages_adb;
mod path;
mod record;
mod tar;

use larder_core::{ArtifactPath, BuiltIn, Repository};

use crate::generic::{file, subject};
use crate::{
    Claim, Document, DocumentFormat, Form, Format, Identifier, Links, Malformed, Meter, Naming,
    NamingDocuments, Offering, Operation, PathFacts, Profile, Protocol, Read, RequestParts,
    SourceBase, SourceSpec,
};

/// Alpine repositories.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Alpine;

impl Format for Alpine {
    fn operation(&self, request: &RequestParts<'_>) -> Operation {
        // No endpoint of an Alpine mirror has parameters.
        let source = SourceSpec {
            query: None,
            ..file(request)
        };
        let is_document = path::is_index(&source.key_path);
        let source = SourceSpec {
            is_document,
            ..source
        };
        Operation::Read(Read {
            facts: facts(&source.key_path),
            source,
            form: Form::Verbatim,
            bypass_cache: false,
        })
    }

    fn facts(&self, _repository: &Repository, path: &str) -> PathFacts {
        facts(path)
    }

    fn profile(&self) -> &'static Profile {
        const PROFILE: Profile = Profile {
            rewriter_version: 3,
            ..Profile::PLAIN
        };
        &PROFILE
    }
}

impl Protocol for Alpine {}

impl DocumentFormat for Alpine {
    fn naming(&self, _repository: &Repository, path: &str) -> NamingDocuments {
        NamingDocuments {
            document: path::index_of(path).and_then(|index| source(&index)),
            otherwise: path::v3_index_of(path)
                .and_then(|index| source(&index))
                .into_iter()
                .collect(),
            possible: path::indexes_of(path)
                .iter()
                .filter_map(|index| source(index))
                .collect(),
        }
    }

    fn check(
        &self,
        _repository: &Repository,
        document: &Document<'_>,
        meter: &Meter,
    ) -> Result<(), Malformed> {
        if path::is_v3_index(document.key_path) {
            return packages_adb::check(document, meter);
        }
        apkindex::read(document.body, meter, &mut |_| Ok(()))
    }

    fn claims(
        &self,
        document: &Document<'_>,
        links: &Links<'_>,
        sink: &mut dyn FnMut(Claim),
    ) -> Result<(), Malformed> {
        links.begin(document.body.len());
        if path::is_v3_index(document.key_path) {
            return packages_adb::claims(document, links, sink);
        }
        apkindex::claims(document, links, sink)
    }

    fn offering(&self, _repository: &Repository, name: Option<&str>) -> Offering {
        Offering::in_folder(name, &[path::INDEX, path::INDEX_V3])
    }

    fn is_offered(&self, index: &str, path: &str, is_named: &dyn Fn(&str) -> bool) -> bool {
        record::is_asked_for(index, path, is_named)
    }

    fn identifier(&self, path: &str) -> Option<Box<dyn Identifier>> {
        path::is_package(path)
            .then(|| Box::new(identity::PackageIdentifier::new()) as Box<dyn Identifier>)
    }
}

/// What a decoded path is.
fn facts(path: &str) -> PathFacts {
    let subject = subject(path);
    let built_in = if path::changes(subject.unwrap_or(path)) {
        BuiltIn::Mutable
    } else {
        BuiltIn::None
    };
    PathFacts {
        built_in,
        naming: if path::is_package(path) {
            Naming::Obtained
        } else {
            Naming::Nobody
        },
        ..PathFacts::default()
    }
    .beside(subject)
}

/// An index, by its decoded path.
fn source(path: &str) -> Option<SourceSpec> {
    let index = ArtifactPath::from_decoded(path).ok()?;
    Some(SourceSpec {
        base: SourceBase::Files,
        path: index.encoded().to_owned(),
        query: None,
        key_path: index.as_str().to_owned(),
        accept: None,
        variant: "",
        is_document: true,
    })
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_v3;

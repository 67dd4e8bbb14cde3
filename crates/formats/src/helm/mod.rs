//! Helm chart repositories: `index.yaml`, the charts it names, their provenance files (docs/reference/protocols/helm.md).
//!
//! | file | knows |
//! |---|---|
//! | `scan` | the events that an index consists of, whichever reader makes them |
//! | `lines` | the block style that Helm itself writes: a line at a time, very fast |
//! | `events` | any YAML, by a real parser |
//! | `json` | an index in JSON |
//! | `index` | where in an index the URLs, digests and dates stand |
//! | `names` | the names of all charts, those included of which nothing else can be read |
//! | `instant` | what a point in time may look like |
//! | `scalar` | what a scalar's text means, and how to write another in its place |
//! | `versions`, `entries`, `normal`, `shape`, `semver`, `merge` | the indexes of several repositories as one: each version's lines, and what Helm expects in them |
//! | `rewrite` | which URL leads where: derivation and claims |

mod browsed;
mod entries;
mod events;
mod index;
mod instant;
mod json;
mod lines;
mod merge;
mod names;
mod normal;
mod rewrite;
mod scalar;
mod scan;
mod semver;
mod shape;
mod versions;

use std::collections::HashSet;

use larder_core::{BuiltIn, Repository};

use crate::generic::{file, subject};
use crate::{
    Claim, Document, DocumentFormat, Form, Format, Links, Malformed, MergeFault, MergeMember,
    Merged, Meter, Naming, NamingDocuments, Offering, OfferingIndex, Operation, PathFacts, Pieces,
    Profile, Protocol, Read, RequestParts, Rewritten, SourceBase, SourceSpec,
};

/// Helm chart repositories.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Helm;

/// The one derived form: an index whose chart URLs lead to larder.
const INDEX: &str = "index";

impl Format for Helm {
    fn operation(&self, request: &RequestParts<'_>) -> Operation {
        let mut source = file(request);
        source.is_document = is_index(&source.key_path);
        let form = if source.is_document {
            Form::Derived(INDEX)
        } else {
            Form::Verbatim
        };
        Operation::Read(Read {
            facts: facts(&source.key_path),
            source,
            form,
            bypass_cache: false,
        })
    }

    fn facts(&self, _repository: &Repository, path: &str) -> PathFacts {
        facts(path)
    }

    fn profile(&self) -> &'static Profile {
        const PROFILE: Profile = Profile {
            absolute_links: true,
            links_elsewhere: true,
            merges: true,
            rewriter_version: 4,
            forwards_queries: true,
            ..Profile::PLAIN
        };
        &PROFILE
    }
}

impl Protocol for Helm {}

impl DocumentFormat for Helm {
    fn naming(&self, _repository: &Repository, path: &str) -> NamingDocuments {
        let index = || SourceSpec {
            base: SourceBase::Files,
            path: "index.yaml".to_owned(),
            query: None,
            key_path: "index.yaml".to_owned(),
            accept: None,
            variant: "",
            is_document: true,
        };
        NamingDocuments {
            document: (!is_index(path)).then(index),
            ..NamingDocuments::default()
        }
    }

    fn check(
        &self,
        _repository: &Repository,
        document: &Document<'_>,
        meter: &Meter,
    ) -> Result<(), Malformed> {
        index::of(document, meter).map(|_| ())
    }

    fn claims(
        &self,
        document: &Document<'_>,
        links: &Links<'_>,
        sink: &mut dyn FnMut(Claim),
    ) -> Result<(), Malformed> {
        rewrite::claims(document, links, sink)
    }

    /// A name is a chart's.
    fn offering(&self, _repository: &Repository, _name: Option<&str>) -> Offering {
        Offering::In(vec![OfferingIndex {
            path: "index.yaml".to_owned(),
            accept: None,
            in_folder: false,
            is_of_all: true,
        }])
    }

    fn rewrite<'d>(
        &self,
        document: &Document<'d>,
        form: &'static str,
        links: &Links<'_>,
    ) -> Result<Rewritten<'d>, Malformed> {
        match form {
            INDEX => rewrite::rewrite(document, links).map(|body| Rewritten {
                body: Pieces::spliced(body),
                content_type: "application/yaml",
            }),
            _ => Err(Malformed(format!("a Helm index has no form {form:?}"))),
        }
    }

    fn merge(
        &self,
        members: &[MergeMember<'_>],
        form: &'static str,
    ) -> Option<Result<Merged, MergeFault>> {
        (form == INDEX).then(|| merge::merge(members))
    }

    fn names(&self, document: &Document<'_>) -> Result<HashSet<String>, Malformed> {
        names::of(document.body)
    }

    /// Of `NAME-VERSION.tgz`, in which the version is what looks like one: `kube-1password-1.0.0.tgz` is of `kube-1password`.
    fn likely_name<'a>(&self, path: &'a str) -> Option<&'a str> {
        let file = path.rsplit('/').next().unwrap_or_default();
        let file = file.strip_suffix(".tgz").unwrap_or(file);
        let mut possible = file.match_indices('-').filter_map(|(at, _)| {
            let version = file.get(at + 1..)?;
            let number = version.strip_prefix('v').unwrap_or(version);
            let after = number.trim_start_matches(|c: char| c.is_ascii_digit());
            (after.len() < number.len()).then_some((file.get(..at)?, after))
        });
        let first = possible.next()?;
        let likely = std::iter::once(first)
            .chain(possible)
            .find(|(_, after)| after.starts_with('.'));
        Some(likely.unwrap_or(first).0)
    }
}

/// What a decoded path is.
fn facts(path: &str) -> PathFacts {
    let subject = subject(path);
    // The contract's `index\.yaml$`, unanchored at its start.
    let built_in = if subject.unwrap_or(path).ends_with("index.yaml") {
        BuiltIn::Mutable
    } else {
        BuiltIn::None
    };
    PathFacts {
        built_in,
        naming: if is_index(path) {
            Naming::Nobody
        } else {
            Naming::Obtained
        },
        ..PathFacts::default()
    }
    .beside(subject)
}

/// Whether a path is an index that Helm would ask for: `<repository URL>/index.yaml`.
fn is_index(path: &str) -> bool {
    path.strip_suffix("index.yaml")
        .is_some_and(|folder| folder.is_empty() || folder.ends_with('/'))
}

#[cfg(test)]
mod tests;

//! Python package indexes: the Simple Repository API (PEP 503, 691 and their successors) and the files it leads to.
//!
//! Knows what a request asks for ([`path`], [`negotiate`]), how pages are read ([`simple_json`], [`simple_html`], [`places`]), where
//! their links lead ([`target`]), and what is made of them ([`mod@derive`], [`mod@claims`]). Uploads are not part of it.

mod browsed;
mod claims;
mod derive;
mod escape;
mod json_value;
mod names;
mod negotiate;
mod page;
mod path;
mod places;
mod render;
mod simple_html;
mod simple_json;
mod target;
#[cfg(test)]
mod test_support;
#[cfg(test)]
mod tests;
mod version;

use larder_core::Repository;

use crate::{
    Claim, Document, DocumentFormat, Format, Links, Malformed, Meter, NamingDocuments, Offering,
    Operation, PathFacts, Profile, Protocol, RequestParts, Rewritten, SourceSpec,
};

/// Python package indexes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pypi;

impl Format for Pypi {
    fn operation(&self, request: &RequestParts<'_>) -> Operation {
        path::operation(request)
    }

    fn facts(&self, _repository: &Repository, path: &str) -> PathFacts {
        path::facts(path)
    }

    fn is_reserved(&self, path: &str) -> bool {
        path::is_reserved(path)
    }

    fn profile(&self) -> &'static Profile {
        const PROFILE: Profile = Profile {
            links_elsewhere: true,
            names_sidecars: true,
            rewriter_version: 4,
            states_publish_time: true,
            ..Profile::PLAIN
        };
        &PROFILE
    }
}

impl Protocol for Pypi {
    /// Mirrors that know no JSON answer 406, or look for a file of the type's name and answer 404.
    fn accept_otherwise(&self, source: &SourceSpec, status: u16) -> Option<&'static str> {
        (source.is_document && matches!(status, 404 | 406)).then_some("text/html")
    }
}

impl DocumentFormat for Pypi {
    fn naming(&self, repository: &Repository, path: &str) -> NamingDocuments {
        path::naming(repository, path)
    }

    fn check(
        &self,
        _repository: &Repository,
        document: &Document<'_>,
        meter: &Meter,
    ) -> Result<(), Malformed> {
        claims::check(document, meter)
    }

    fn claims(
        &self,
        document: &Document<'_>,
        links: &Links<'_>,
        sink: &mut dyn FnMut(Claim),
    ) -> Result<(), Malformed> {
        claims::claims(document, links, sink)
    }

    fn offering(&self, _repository: &Repository, name: Option<&str>) -> Offering {
        match name {
            None => Offering::Unnamed("a project"),
            Some(name) if !names::is_valid(name) => Offering::Misnamed("a project"),
            Some(name) => Offering::at(format!("simple/{}/", names::normalize(name))),
        }
    }

    fn rewrite<'d>(
        &self,
        document: &Document<'d>,
        form: &'static str,
        links: &Links<'_>,
    ) -> Result<Rewritten<'d>, Malformed> {
        derive::rewrite(document, form, links)
    }
}

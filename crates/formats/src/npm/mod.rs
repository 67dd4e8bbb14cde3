//! The npm registry, as a remote repository: packuments in both forms, manifests, tarballs, and the endpoints around them.
//!
//! | file | knows |
//! |---|---|
//! | `name`, `path` | package names, versions, endpoints |
//! | `request`, `accept` | what a request asks for |
//! | `json`, `document` | where things stand in a document, in one pass and without building a tree |
//! | `check`, `claims`, `derive` | what is done with that |
//! | `places` | where the tarballs stand, for what is derived from bytes that were checked |
//! | `tarball` | which links lead through larder, and where to |
//!
//! Publishing, virtual repositories and taking young versions out of packuments are not known here.

mod accept;
mod browsed;
mod check;
mod claims;
mod derive;
mod document;
#[cfg(test)]
mod fixture;
mod json;
mod name;
mod path;
mod places;
mod request;
mod tarball;

use larder_core::{BuiltIn, DigestAlgorithm, PathRules, Repository};

use crate::{
    Claim, Document, DocumentFormat, Format, Links, Malformed, Meter, Naming, NamingDocuments,
    Offering, OfferingIndex, Operation, PathFacts, Pieces, Profile, Protocol, RequestParts,
    Rewritten, SourceSpec,
};
use path::{Route, is_tarball};

/// The npm registry.
#[derive(Debug)]
pub(crate) struct Npm;

impl Format for Npm {
    fn operation(&self, request: &RequestParts<'_>) -> Operation {
        request::operation(request)
    }

    fn facts(&self, _repository: &Repository, path: &str) -> PathFacts {
        facts(Route::parse(path).ok(), path)
    }

    fn profile(&self) -> &'static Profile {
        const PROFILE: Profile = Profile {
            absolute_links: true,
            links_elsewhere: true,
            rewriter_version: 3,
            // Of packuments, that is: nothing else names tarballs for others.
            document_variants: &[request::ABBREVIATED, request::FULL],
            usual_digests: &[DigestAlgorithm::Sha1, DigestAlgorithm::Sha512],
            path_rules: PathRules {
                encoded_scope_slash: true,
            },
            states_publish_time: true,
            ..Profile::PLAIN
        };
        &PROFILE
    }
}

/// What a decoded path is that parses to this route.
fn facts(route: Option<Route<'_>>, path: &str) -> PathFacts {
    let built_in = if is_tarball(path) {
        BuiltIn::None
    } else {
        BuiltIn::MutableUnlessConfigured
    };
    let facts = PathFacts {
        built_in,
        ..PathFacts::default()
    };
    match route {
        Some(Route::Packument(_)) => PathFacts {
            vary: &["accept"],
            ..facts
        },
        Some(Route::Tarball(..)) => PathFacts {
            naming: Naming::Obtained,
            ..facts
        },
        _ => facts,
    }
}

impl Protocol for Npm {
    /// Whoever asks for the short form takes the long one, too.
    fn stands_in(&self, source: &SourceSpec, variant: &str, _content_type: &str) -> bool {
        source.variant == request::ABBREVIATED && variant == request::FULL
    }

    fn in_variant(&self, source: &SourceSpec, variant: &str) -> Option<SourceSpec> {
        let forms = [source.variant, variant].map(request::form);
        let [Some(_), Some((accept, variant))] = forms else {
            return None;
        };
        Some(SourceSpec {
            accept: Some(accept),
            variant,
            ..source.clone()
        })
    }

    /// npm itself asks for the full form where the abbreviated one is 404.
    fn accept_otherwise(&self, source: &SourceSpec, status: u16) -> Option<&'static str> {
        (source.variant == request::ABBREVIATED && status == 406).then_some("application/json")
    }
}

impl DocumentFormat for Npm {
    /// The abbreviated packument, which is the smaller one and usually there already; under quarantine the full one, since
    /// only that has publish times.
    fn naming(&self, repository: &Repository, path: &str) -> NamingDocuments {
        let Ok(Route::Tarball(package, _)) = Route::parse(path) else {
            return NamingDocuments::default();
        };
        let is_abbreviated = repository.quarantine.hold.is_none();
        NamingDocuments {
            document: Some(request::packument(
                Route::Packument(package),
                is_abbreviated,
            )),
            ..NamingDocuments::default()
        }
    }

    fn check(
        &self,
        _repository: &Repository,
        document: &Document<'_>,
        meter: &Meter,
    ) -> Result<(), Malformed> {
        match Route::parse(document.key_path) {
            Ok(Route::Packument(package)) => check::check_packument(
                document,
                package,
                document.variant == request::ABBREVIATED,
                meter,
            ),
            Ok(Route::Manifest(package, version)) => {
                check::check_manifest(document.body, package, version)
            }
            _ => check::check_other(document.body),
        }
    }

    fn claims(
        &self,
        document: &Document<'_>,
        links: &Links<'_>,
        sink: &mut dyn FnMut(Claim),
    ) -> Result<(), Malformed> {
        match Route::parse(document.key_path) {
            Ok(Route::Packument(package)) => {
                claims::claims_of_packument(document.body, document.url, package, links, sink)
            }
            Ok(Route::Manifest(package, _)) => {
                claims::claims_of_manifest(document.body, document.url, package, links, sink)
            }
            _ => Ok(()),
        }
    }

    /// As npm asks for it; under quarantine the full form, which alone states when a version was published.
    fn offering(&self, repository: &Repository, name: Option<&str>) -> Offering {
        let Some(name) = name else {
            return Offering::Unnamed("a package");
        };
        if !matches!(Route::parse(name), Ok(Route::Packument(_))) {
            return Offering::Misnamed("a package");
        }
        let is_abbreviated = repository.quarantine.hold.is_none();
        Offering::In(vec![OfferingIndex {
            path: name.to_owned(),
            accept: is_abbreviated.then_some(accept::ABBREVIATED),
            in_folder: false,
            is_of_all: false,
        }])
    }

    fn rewrite<'d>(
        &self,
        document: &Document<'d>,
        form: &'static str,
        links: &Links<'_>,
    ) -> Result<Rewritten<'d>, Malformed> {
        let body = match (Route::parse(document.key_path), form) {
            (Ok(Route::Packument(package)), request::FORM_PACKUMENT) => {
                derive::rewrite_packument(document, package, links)?
            }
            (Ok(Route::Manifest(package, _)), request::FORM_VERSION) => {
                derive::rewrite_manifest(document, package, links)?
            }
            _ => {
                return Err(Malformed(format!(
                    "there is no form {form:?} of {:?}",
                    document.key_path
                )));
            }
        };
        let is_abbreviated = document.variant == request::ABBREVIATED
            && accept::is_abbreviated(document.content_type);
        Ok(Rewritten {
            body: Pieces::spliced(body),
            content_type: if is_abbreviated {
                accept::ABBREVIATED
            } else {
                "application/json"
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use larder_core::{ErrorCode, Fault, FaultKind};
    use url::Url;

    use super::fixture::{PUBLIC, ROOT, links, remote};
    use super::*;
    use crate::Derived;
    use crate::testing::named_by;

    fn derive(
        body: &str,
        key_path: &str,
        variant: &str,
        content_type: &str,
        form: &'static str,
    ) -> Result<Derived, Malformed> {
        let repository = remote(ROOT);
        let url: Url = ROOT.parse().unwrap();
        let document = Document {
            body: body.as_bytes(),
            content_type,
            url: &url,
            key_path,
            variant,
            memo: None,
        };
        Npm.check(&repository, &document, &Meter::default())?;
        Npm.derive(&document, form, &links(&repository))
    }

    #[test]
    fn npm_3_each_form_has_its_own_type() {
        let install = "application/vnd.npm.install-v1+json";
        let full = include_str!("testdata/full.json");
        let abbreviated = include_str!("testdata/abbreviated.json");
        let of = |body, variant, content_type| {
            derive(body, "@babel/helper", variant, content_type, "packument")
                .unwrap()
                .content_type
        };
        assert_eq!(
            of(
                abbreviated,
                "abbreviated",
                "application/vnd.npm.install-v1+json; charset=utf-8"
            ),
            install
        );
        assert_eq!(of(full, "full", "application/json"), "application/json");
        // A registry without the abbreviated form answers with the full one.
        assert_eq!(
            of(full, "abbreviated", "application/json; charset=utf-8"),
            "application/json"
        );
        assert_eq!(of(full, "full", install), "application/json");
        let manifest = derive(
            include_str!("testdata/manifest.json"),
            "left-pad/latest",
            "version",
            "application/json",
            "version",
        )
        .unwrap();
        assert_eq!(manifest.content_type, "application/json");
        assert!(String::from_utf8(manifest.body).unwrap().contains(PUBLIC));
    }

    #[test]
    fn forms_belong_to_their_documents() {
        let manifest = include_str!("testdata/manifest.json");
        assert!(derive(manifest, "left-pad/latest", "version", "", "packument").is_err());
        assert!(derive("{}", "-/npm/v1/keys", "", "", "packument").is_err());
        assert!(
            derive(
                include_str!("testdata/full.json"),
                "@babel/helper",
                "full",
                "",
                "simple+html"
            )
            .is_err()
        );
    }

    #[test]
    fn npm_10_only_tarballs_are_immutable() {
        let repository = remote(ROOT);
        for path in [
            "express/-/express-4.18.2.tgz",
            "@babel/core/-/core-7.26.0.tgz",
        ] {
            assert_eq!(
                Npm.facts(&repository, path).built_in,
                BuiltIn::None,
                "{path}"
            );
        }
        for path in [
            "express",
            "@babel/core",
            "express/latest",
            "-/v1/search",
            "-/npm/v1/keys",
            "-/package/express/dist-tags",
            "x.tgz",
            "x/y.tgz",
        ] {
            assert_eq!(
                Npm.facts(&repository, path).built_in,
                BuiltIn::MutableUnlessConfigured,
                "{path}"
            );
        }
    }

    #[test]
    fn a_tarball_is_named_by_its_packument() {
        let mut repository = remote(ROOT);
        let source = named_by(&Npm, &repository, "@babel/core/-/core-7.26.0.tgz").unwrap();
        assert_eq!(
            (
                source.key_path.as_str(),
                source.path.as_str(),
                source.variant
            ),
            ("@babel/core", "@babel%2fcore", "abbreviated")
        );
        assert!(source.is_document);
        assert!(Npm.profile().document_variants.contains(&source.variant));
        repository.quarantine.hold = Some(Duration::from_hours(72));
        assert_eq!(
            named_by(&Npm, &repository, "n/-/n-1.0.0.tgz")
                .unwrap()
                .variant,
            "full"
        );
        for path in [
            "n",
            "n/1.0.0",
            "n/-/m-1.0.0.tgz",
            "-/npm/v1/keys",
            "_ext/mac/host/n-1.0.0.tgz",
        ] {
            assert_eq!(named_by(&Npm, &repository, path), None, "{path}");
        }
    }

    #[test]
    fn every_claim_is_for_a_path_that_can_be_asked_for() {
        let repository = remote(ROOT);
        let url: Url = ROOT.parse().unwrap();
        let body = include_bytes!("testdata/verdaccio.json");
        let document = Document {
            body,
            content_type: "application/json",
            url: &url,
            key_path: "left-pad",
            variant: "full",
            memo: None,
        };
        let mut claims = Vec::new();
        Npm.claims(&document, &links(&repository), &mut |claim| {
            claims.push(claim);
        })
        .unwrap();
        assert_eq!(claims.len(), 2);
        for claim in claims {
            assert_eq!(
                named_by(&Npm, &repository, &claim.path).unwrap().key_path,
                "left-pad"
            );
        }
    }

    #[test]
    fn only_packuments_vary() {
        assert_eq!(Npm.facts(&remote(ROOT), "@babel/core").vary, ["accept"]);
        assert_eq!(Npm.facts(&remote(ROOT), "express").vary, ["accept"]);
        for path in [
            "express/latest",
            "express/-/express-4.18.2.tgz",
            "-/v1/search",
            "",
        ] {
            assert!(Npm.facts(&remote(ROOT), path).vary.is_empty(), "{path}");
        }
    }

    #[test]
    fn npm_18_errors_are_printed_by_npm() {
        let mut fault = Fault::new(
            FaultKind::Upstream(404),
            ErrorCode::NotFound,
            "There is no \"x\".",
        )
        .by_rule("upstream");
        fault.repository = Some("npm".to_owned());
        let body = Npm.error_body(&fault);
        assert_eq!(body.content_type, "application/json");
        let expected = r#"{"error":"There is no \"x\".","code":"not_found","repository":"npm","rule":"upstream"}"#;
        assert_eq!(String::from_utf8(body.body).unwrap(), expected);
    }
}

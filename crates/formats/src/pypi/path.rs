//! The paths of a PyPI repository: which request asks for what, and where its bytes come from (docs/reference/protocols/pypi.md, section 1).
//!
//! Knows the address space and nothing of what the documents hold.

use larder_core::{BuiltIn, ErrorCode, Repository};

use super::names::Reading;
use super::{names, negotiate};
use crate::{
    Form, Naming, NamingDocuments, Operation, PathFacts, Read, Refusal, RequestParts, SourceBase,
    SourceSpec,
};

/// One source variant: JSON where the upstream has it, because it alone states sizes and upload times.
const ACCEPT: &str = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1";

/// What a path stands for.
#[derive(Debug, PartialEq, Eq)]
enum Place<'p> {
    /// `simple/`.
    List,
    /// `simple/{name}/`, the name as spelt.
    Project(&'p str),
    /// `simple` without its slash, `simple/{name}` without its slash, `simple/{name}/index.html`: the page that is meant. A name that ends
    /// as files do is no such page: some servers keep files beside the folders of their projects.
    Misspelt(&'p str),
    /// `integrity/…` and Warehouse's `pypi/{project}/json`: on the index host, changing, passed on as they are.
    IndexFile,
    /// Anything else.
    File,
}

fn place(path: &str) -> Place<'_> {
    if path == "simple" {
        return Place::Misspelt("");
    }
    if let Some(rest) = path.strip_prefix("simple/") {
        let page = rest
            .strip_suffix("/index.html")
            .or_else(|| (rest == "index.html").then_some(""));
        return match (page.unwrap_or(rest), page.is_some()) {
            ("", false) => Place::List,
            (name, true) if !name.contains('/') => Place::Misspelt(name),
            (name, _) => match name.split_once('/') {
                None if names::is_distribution(names::subject_of(name).unwrap_or(name)) => {
                    Place::File
                }
                None => Place::Misspelt(name),
                Some((name, "")) => Place::Project(name),
                Some(_) => Place::File,
            },
        };
    }
    let is_api = |rest: &str| {
        rest.strip_suffix("/json")
            .is_some_and(|rest| !rest.is_empty() && rest.split('/').count() <= 2)
    };
    if path.starts_with("integrity/") || path.strip_prefix("pypi/").is_some_and(is_api) {
        return Place::IndexFile;
    }
    Place::File
}

/// What a request asks for.
pub(super) fn operation(request: &RequestParts<'_>) -> Operation {
    if request.method != http::Method::GET && request.method != http::Method::HEAD {
        return Operation::Refuse(Refusal {
            status: 405,
            code: ErrorCode::MethodNotAllowed,
            message: format!(
                "{} is not possible here: {:?} is a copy of an upstream index, packages are uploaded to a local repository",
                request.method,
                request.repository.name.as_str()
            ),
        });
    }
    let page = |rest: &str| {
        let form = negotiate::form(request.headers, request.query);
        let source = page_source(request.repository, rest);
        Operation::Read(Read {
            facts: of_page(),
            source,
            form: Form::Derived(form),
            bypass_cache: false,
        })
    };
    match place(request.path.as_str()) {
        Place::List => page(""),
        Place::Misspelt("") => redirect("simple/", request.query),
        Place::Project(name) | Place::Misspelt(name) if !names::is_valid(name) => {
            Operation::Refuse(Refusal {
                status: 400,
                code: ErrorCode::InvalidName,
                message: format!(
                    "{:?} is not the name of a Python project: letters, digits, '.', '_' and '-' are allowed, a letter or digit at both ends",
                    larder_core::shown(name)
                ),
            })
        }
        Place::Project(name) if names::normalize(name) == name => page(&format!("{name}/")),
        Place::Project(name) | Place::Misspelt(name) => redirect(
            &format!("simple/{}/", names::normalize(name)),
            request.query,
        ),
        place => file(request, &place),
    }
}

fn redirect(path: &str, query: Option<&str>) -> Operation {
    Operation::Redirect(query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}")))
}

fn file(request: &RequestParts<'_>, place: &Place<'_>) -> Operation {
    let facts = facts_at(place, request.path.as_str());
    let source = SourceSpec {
        base: match place {
            Place::IndexFile => SourceBase::Index,
            _ => SourceBase::Files,
        },
        // `+` and `%2B` are one file, and servers that decode forms take a bare `+` for a space (docs/reference/protocols/pypi.md, section 4).
        path: request.path.encoded().replace('+', "%2B"),
        query: None,
        key_path: request.path.as_str().to_owned(),
        accept: None,
        variant: "",
        is_document: false,
    };
    Operation::Read(Read {
        source,
        facts,
        form: Form::Verbatim,
        bypass_cache: false,
    })
}

/// The source of `simple/` (`rest` empty) or `simple/{project}/`.
pub(super) fn page_source(repository: &Repository, rest: &str) -> SourceSpec {
    SourceSpec {
        base: SourceBase::Index,
        path: format!("{}{rest}", simple_root(repository)),
        query: None,
        key_path: format!("simple/{rest}"),
        accept: Some(ACCEPT),
        variant: "",
        is_document: true,
    }
}

/// The last segment of the simple root with its slash, percent-encoded: usually `simple/`, devpi's `+simple/`; empty if the
/// root of the host is the simple root.
fn simple_root(repository: &Repository) -> String {
    let Some(upstream) = repository.upstream() else {
        return "simple/".to_owned();
    };
    let path = upstream.index_url.path().trim_end_matches('/');
    match path.rsplit('/').next() {
        Some("") | None => String::new(),
        Some(segment) => format!("{segment}/"),
    }
}

/// What a decoded path is.
pub(super) fn facts(path: &str) -> PathFacts {
    facts_at(&place(path), path)
}

/// What a page is.
fn of_page() -> PathFacts {
    PathFacts {
        built_in: BuiltIn::Mutable,
        vary: &["accept"],
        ..PathFacts::default()
    }
}

/// What a path is that names this place.
fn facts_at(place: &Place<'_>, path: &str) -> PathFacts {
    match place {
        Place::List | Place::Project(_) | Place::Misspelt(_) => of_page(),
        Place::IndexFile => PathFacts {
            built_in: BuiltIn::Mutable,
            ..PathFacts::default()
        },
        Place::File => {
            let subject = names::subject_of(path);
            let file = subject.unwrap_or(path);
            // Some servers keep files beside their pages; files do not change, and quarantine must see them.
            let is_beside_pages = path.starts_with("simple/") && !names::is_distribution(file);
            PathFacts {
                built_in: if is_beside_pages {
                    BuiltIn::Mutable
                } else {
                    BuiltIn::None
                },
                naming: if names::project_of(file_at(path)).is_some() {
                    Naming::Obtained
                } else {
                    Naming::Nobody
                },
                ..PathFacts::default()
            }
            .beside(subject)
        }
    }
}

/// Whether a distribution file at a path would be taken for a document of the index.
pub(super) fn is_reserved(path: &str) -> bool {
    place(path) == Place::IndexFile && names::is_distribution(file_at(path))
}

/// The name of the file at a path, or of that which it stands beside.
fn file_at(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or_default();
    names::subject_of(file).unwrap_or(file)
}

/// The pages that may name a file: one for each project that its name may speak of.
pub(super) fn naming(repository: &Repository, path: &str) -> NamingDocuments {
    if place(path) != Place::File {
        return NamingDocuments::default();
    }
    let page = |reading: &Reading<'_>| {
        let project = names::normalize(reading.project);
        page_source(repository, &format!("{project}/"))
    };
    let readings = names::readings(file_at(path));
    let mut others = readings.iter();
    let document = others.next().map(page);
    NamingDocuments {
        document,
        otherwise: others
            .clone()
            .filter(|reading| reading.is_likely)
            .map(page)
            .collect(),
        possible: others.map(page).collect(),
    }
}

//! What a simple page says of its files: digests, sizes, upload times (claims), and whether it is a simple page at all.

use larder_core::{Digest, UnixMillis};

use super::derive::{listed_project, target_of_anchor, target_of_file, text_of, utf8};
use super::json_value::{CoreMetadata, Hashes};
use super::page::{Head, Subject, Syntax, subject, syntax};
use super::simple_html::{Anchor, Metadata, Signs, anchor_metadata};
use super::target::{Resolver, Target, fragment_digests, split_fragment};
use super::{names, places, simple_html, simple_json};
use crate::instant::instant;
use crate::links::percent_decode;
use crate::{Claim, Document, Links, Malformed, Meter};

/// Words in the titles that index servers give their pages.
const TITLES: [&str; 5] = [
    "links for",
    "simple index",
    "simple list",
    "simple repository",
    "index of",
];

/// Refuses a document that is no simple page.
pub(super) fn check(document: &Document<'_>, meter: &Meter) -> Result<(), Malformed> {
    match (syntax(document)?, subject(document.key_path)?) {
        (Syntax::Json, Subject::List) => {
            simple_json::read_list(utf8(document.body)?, meter, &mut |_| ()).map(|_| ())
        }
        (Syntax::Json, Subject::Project(_)) => places::find(document, meter),
        (Syntax::Html, subject) => check_html(&text_of(document), subject, meter),
    }
}

fn check_html(html: &str, subject: Subject<'_>, meter: &Meter) -> Result<(), Malformed> {
    simple_html::base(html)?;
    let mut entries = false;
    let (head, signs) = simple_html::read(html, meter, &mut |anchor| {
        entries = entries || is_entry(&anchor, subject);
    })?;
    let Signs { title, password } = signs;
    if password {
        return Err(Malformed(
            "the HTML page asks for a password: it is a login page, not a simple index".to_owned(),
        ));
    }
    // A project may have no files, but then its page says what it is.
    if entries || head.api_version.is_some() || TITLES.iter().any(|words| title.contains(words)) {
        return Ok(());
    }
    Err(Malformed(
        "the HTML page neither lists a package nor says that it is a simple index".to_owned(),
    ))
}

fn is_entry(anchor: &Anchor<'_>, subject: Subject<'_>) -> bool {
    match subject {
        Subject::List => listed_project(anchor).is_some(),
        Subject::Project(_) => {
            let path = anchor.href.split(['?', '#']).next().unwrap_or_default();
            percent_decode(path).is_some_and(|path| names::is_distribution(&path))
        }
    }
}

/// All files that a page names. Project lists name none.
pub(super) fn claims(
    document: &Document<'_>,
    links: &Links<'_>,
    sink: &mut dyn FnMut(Claim),
) -> Result<(), Malformed> {
    links.begin(document.body.len());
    // The head may stand last.
    let mut found = Vec::new();
    let mut keep = |claim: Claim| found.push(claim);
    let head = match (syntax(document)?, subject(document.key_path)?) {
        (_, Subject::List) => return links.end(),
        (Syntax::Json, Subject::Project(project)) => of_json(document, project, links, &mut keep)?,
        (Syntax::Html, Subject::Project(project)) => of_html(document, project, links, &mut keep)?,
    };
    if !head.withholds_files() {
        found.into_iter().for_each(sink);
    }
    links.end()
}

/// The files that a page in JSON names.
fn of_json<'d>(
    document: &Document<'d>,
    project: &str,
    links: &Links<'_>,
    sink: &mut dyn FnMut(Claim),
) -> Result<Head<'d>, Malformed> {
    let resolver = Resolver::new(links, document.url, None);
    places::read_project(document, links.meter(), &mut |file| {
        let Some(target) = target_of_file(&file, project, &resolver) else {
            return;
        };
        let fragment = split_fragment(&file.url).1.unwrap_or_default();
        let mut digests = known(&file.hashes);
        if file.hashes.0.is_empty() {
            digests.extend(fragment_digests(fragment).map(|(.., digest)| digest));
        }
        let metadata = file
            .core_metadata
            .as_ref()
            .and_then(|metadata| match metadata {
                CoreMetadata::Yes(hashes) => Some(known(hashes)),
                CoreMetadata::No => None,
            });
        let stated = Stated {
            digests,
            size: file.size,
            published_at: file.upload_time.as_deref().and_then(instant),
            metadata,
        };
        give(project, &target, stated, links, sink);
    })
}

/// The files that a page in HTML names.
fn of_html(
    document: &Document<'_>,
    project: &str,
    links: &Links<'_>,
    sink: &mut dyn FnMut(Claim),
) -> Result<Head<'static>, Malformed> {
    let html = text_of(document);
    let base = simple_html::base(&html)?;
    let resolver = Resolver::new(links, document.url, base.as_deref());
    let read = simple_html::read(&html, links.meter(), &mut |anchor| {
        let Some(target) = target_of_anchor(&anchor, project, &resolver) else {
            return;
        };
        let fragment = split_fragment(&anchor.href).1.unwrap_or_default();
        let digests = fragment_digests(fragment)
            .map(|(.., digest)| digest)
            .collect();
        let metadata = anchor_metadata(&anchor).map(|stated| match stated {
            Metadata::Hashed(name, hex) => digest((name, hex)).into_iter().collect(),
            Metadata::Present => Vec::new(),
        });
        let stated = Stated {
            digests,
            size: None,
            published_at: None,
            metadata,
        };
        give(project, &target, stated, links, sink);
    });
    read.map(|(head, _)| head.into_owned())
}

/// What a page states of one file.
struct Stated {
    digests: Vec<Digest>,
    size: Option<u64>,
    published_at: Option<UnixMillis>,
    /// The digests of the metadata file, if there is one.
    metadata: Option<Vec<Digest>>,
}

fn give(
    project: &str,
    target: &Target<'_>,
    stated: Stated,
    links: &Links<'_>,
    sink: &mut dyn FnMut(Claim),
) {
    // A page speaks for its own project's files only.
    if !names::may_belong_to(&target.file_name, project) {
        return;
    }
    let Some(path) = percent_decode(&target.path) else {
        return;
    };
    let Stated {
        digests,
        size,
        published_at,
        metadata,
    } = stated;
    if let Some(digests) = metadata {
        let url = target.sidecar_url(".metadata");
        let sidecar = Claim {
            path: format!("{path}.metadata"),
            url,
            digests,
            identity: None,
            package: None,
            size: None,
            published_at,
            names_files: false,
        };
        links.claim(sidecar, sink);
    }
    let file = Claim {
        path,
        url: target.url.clone().into_owned(),
        digests,
        identity: None,
        package: None,
        size,
        published_at,
        names_files: false,
    };
    links.claim(file, sink);
}

fn digest((name, hex): (&str, &str)) -> Option<Digest> {
    Digest::from_name_and_hex(name, hex).ok()
}

fn known(hashes: &Hashes<'_>) -> Vec<Digest> {
    hashes
        .0
        .iter()
        .filter_map(|(name, hex)| digest((name, hex)))
        .collect()
}

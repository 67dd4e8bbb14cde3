//! Making the pages that clients get of the page that an upstream sent: JSON or HTML of either, links leading back.
//!
//! JSON of JSON is the upstream's text with other links; everything else is written anew from what was read. A link that may
//! not be carried takes its entry with it.

use std::borrow::Cow;
use std::ops::Range;

use url::Url;

use super::json_value::CoreMetadata;
use super::negotiate;
use super::page::{Subject, Syntax, subject, syntax};
use super::render::{HtmlPage, Json, member, separate};
use super::simple_html::{Anchor, Metadata, anchor_metadata};
use super::simple_json::File;
use super::target::{Resolver, Target, fragment_digests, split_fragment};
use super::{names, places, simple_html, simple_json};
use crate::links::{NotCarried, percent_decode};
use crate::splice::{Splicer, json_escape_into};
use crate::{Document, Links, Malformed, Pieces, Rewritten};

/// Makes `form` of a document.
pub(super) fn rewrite<'d>(
    document: &Document<'d>,
    form: &str,
    links: &Links<'_>,
) -> Result<Rewritten<'d>, Malformed> {
    let content_type = negotiate::content_type(form)
        .ok_or_else(|| Malformed(format!("a simple page has no form {form:?}")))?;
    let subject = subject(document.key_path)?;
    links.begin(document.body.len());
    let wants_json = form == negotiate::JSON;
    let body: Pieces<'d> = match (syntax(document)?, subject) {
        (Syntax::Json, Subject::Project(project)) => {
            let resolver = Resolver::new(links, document.url, None);
            if wants_json {
                Pieces::spliced(json_of_json(document, project, &resolver, links)?)
            } else {
                anew(html_of_json(document, project, &resolver, links)?)
            }
        }
        (Syntax::Html, Subject::Project(project)) => {
            let html = text_of(document);
            let base = simple_html::base(&html)?;
            let resolver = Resolver::new(links, document.url, base.as_deref());
            anew(if wants_json {
                json_of_html(&html, project, &resolver, links)?
            } else {
                html_of_html(&html, project, &resolver, links)?
            })
        }
        (Syntax::Json, Subject::List) => {
            let text = utf8(document.body)?;
            anew(if wants_json {
                json_list_of_json(text, links)?
            } else {
                html_list_of_json(text, links)?
            })
        }
        (Syntax::Html, Subject::List) => anew(list_of_html(&text_of(document), wants_json, links)?),
    };
    links.end()?;
    Ok(Rewritten { body, content_type })
}

/// What was written anew.
fn anew<'d>(mut body: Vec<u8>) -> Pieces<'d> {
    // Room was made for the largest result; what is kept should not hold more than it needs.
    body.shrink_to_fit();
    body.into()
}

/// The text of a JSON document.
pub(super) fn utf8(body: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(body).map_err(|error| {
        Malformed(format!(
            "the JSON simple page is not UTF-8 at byte {}",
            error.valid_up_to()
        ))
    })
}

/// The text of an HTML document, read as clients read it: in the charset that its `Content-Type` names, else as UTF-8. What is no
/// character there is replaced, as browsers do.
pub(super) fn text_of<'d>(document: &Document<'d>) -> Cow<'d, str> {
    let encoding = charset(document.content_type)
        .and_then(|label| encoding_rs::Encoding::for_label(label.as_bytes()))
        .unwrap_or(encoding_rs::UTF_8);
    encoding.decode_without_bom_handling(document.body).0
}

/// The charset that a media type names.
fn charset(content_type: &str) -> Option<&str> {
    let mut parameters = content_type.split(';').skip(1);
    parameters.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let is_it = name.trim().eq_ignore_ascii_case("charset");
        is_it.then(|| value.trim().trim_matches(['"', '\'']))
    })
}

/// Where a file of a JSON page leads; `None` if it may not stand on the page.
pub(super) fn target_of_file<'f>(
    file: &'f File<'_>,
    project: &str,
    resolver: &Resolver<'_>,
) -> Option<Target<'f>> {
    let target = resolver.resolve(split_fragment(&file.url).0)?;
    // Some clients read name and version from the one, some from the other.
    let fits =
        target.file_name == file.filename && !names::is_planted_wheel(&file.filename, project);
    if !fits {
        resolver.leave_out(Url::parse(&target.url).ok().as_ref(), NotCarried::OtherFile);
    }
    fits.then_some(target)
}

/// Where an anchor of an HTML page leads; `None` if it may not stand on the page.
pub(super) fn target_of_anchor<'v>(
    anchor: &'v Anchor<'_>,
    project: &str,
    resolver: &Resolver<'_>,
) -> Option<Target<'v>> {
    let target = resolver.resolve(split_fragment(&anchor.href).0)?;
    let planted = names::is_planted_wheel(&target.file_name, project);
    if planted {
        resolver.leave_out(Url::parse(&target.url).ok().as_ref(), NotCarried::OtherFile);
    }
    (!planted).then_some(target)
}

fn json_of_json<'d>(
    document: &Document<'d>,
    project: &str,
    resolver: &Resolver<'_>,
    links: &Links<'_>,
) -> Result<Splicer<'d>, Malformed> {
    let (body, lost) = splice(document, project, resolver, links, None)?;
    if lost == Lost::None {
        return Ok(body);
    }
    // Seldom needed, so only now it is found out where the elements begin and end.
    links.begin(document.body.len());
    let elements = simple_json::element_spans(utf8(document.body)?, links.meter())?;
    if lost == Lost::All {
        let mut body = Splicer::new(document.body);
        if let (Some(first), Some(last)) = (elements.first(), elements.last()) {
            body.replace(first.start..last.end, "");
        }
        return Ok(body);
    }
    splice(document, project, resolver, links, Some(&elements)).map(|(body, _)| body)
}

/// Which files of a page are not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lost {
    None,
    Some,
    All,
}

/// The text with other links, and which files had to be dropped; some are cut out if `elements` says where they are.
fn splice<'d>(
    document: &Document<'d>,
    project: &str,
    resolver: &Resolver<'_>,
    links: &Links<'_>,
    elements: Option<&[Range<usize>]>,
) -> Result<(Splicer<'d>, Lost), Malformed> {
    let mut splicer = Splicer::new(document.body);
    let mut index = 0;
    let mut kept = false;
    let mut lost = Lost::None;
    let head = places::read_project(document, links.meter(), &mut |file| {
        if let Some(target) = target_of_file(&file, project, resolver) {
            kept = true;
            replace_values(&file, &target, links, &mut splicer);
        } else {
            lost = Lost::Some;
            if let Some(range) = elements.and_then(|elements| removal(elements, index, kept)) {
                splicer.replace(range, "");
            }
        }
        index += 1;
    })?;
    if head.withholds_files() {
        lost = Lost::All;
    }
    Ok((splicer, lost))
}

/// What to cut out so that element `index` and one comma go: from the end of the element before if one stays there, else
/// up to the element after.
fn removal(elements: &[Range<usize>], index: usize, kept_before: bool) -> Option<Range<usize>> {
    let element = elements.get(index)?;
    let before = index.checked_sub(1).and_then(|before| elements.get(before));
    match (kept_before, before, elements.get(index + 1)) {
        (true, Some(before), _) => Some(before.end..element.end),
        (_, _, Some(after)) => Some(element.start..after.start),
        _ => Some(element.clone()),
    }
}

fn replace_values(
    file: &File<'_>,
    target: &Target<'_>,
    links: &Links<'_>,
    splicer: &mut Splicer<'_>,
) {
    let mark_yanked = |splicer: &mut Splicer<'_>| {
        // Readers take an empty reason for "not yanked" as often as for "yanked".
        if file.yanked.as_deref() == Some("") {
            splicer.replace(file.yanked_span.clone(), "true");
        }
    };
    let yanked_first = file.yanked_span.start < file.url_span.start;
    if yanked_first {
        mark_yanked(splicer);
    }
    splicer.replace_with(file.url_span.clone(), |out| {
        out.push('"');
        out.push_str(&links.href(&target.path));
        if let Some(fragment) = split_fragment(&file.url).1 {
            out.push('#');
            json_escape_into(fragment, out);
        }
        out.push('"');
    });
    if !yanked_first {
        mark_yanked(splicer);
    }
}

fn html_of_json(
    document: &Document<'_>,
    project: &str,
    resolver: &Resolver<'_>,
    links: &Links<'_>,
) -> Result<Vec<u8>, Malformed> {
    let mut page = HtmlPage::with_capacity(document.body.len(), links.meter());
    let head = places::read_project(document, links.meter(), &mut |file| {
        let Some(target) = target_of_file(&file, project, resolver) else {
            return;
        };
        let href = links.href(&target.path);
        let metadata = file.core_metadata.as_ref().and_then(metadata_attribute);
        let metadata = metadata.as_deref();
        let gpg = file
            .gpg_sig
            .map(|signed| if signed { "true" } else { "false" });
        let attributes = [
            ("data-requires-python", file.requires_python.as_deref()),
            ("data-yanked", file.yanked.as_deref()),
            // Installers before PEP 714 know the second name only.
            ("data-core-metadata", metadata),
            ("data-dist-info-metadata", metadata),
            ("data-gpg-sig", gpg),
            ("data-provenance", file.provenance.as_deref()),
        ];
        let stated = attributes
            .into_iter()
            .filter_map(|(name, value)| value.map(|value| (name, value)));
        match fragment(&file) {
            Some(fragment) => page.anchor(&[&href, "#", &fragment], stated, &file.filename),
            None => page.anchor(&[&href], stated, &file.filename),
        }
    })?;
    Ok(page.finish(&head, Subject::Project(project)))
}

/// The fragment of a file's link in HTML: its own, and a digest if that has none. HTML has room for one digest.
fn fragment<'f>(file: &'f File<'_>) -> Option<Cow<'f, str>> {
    let own = split_fragment(&file.url).1;
    if own.is_some_and(|own| fragment_digests(own).next().is_some()) {
        return own.map(Cow::Borrowed);
    }
    let stated = |algorithm: &&str| file.hashes.0.iter().find(|(name, _)| name == algorithm);
    let best = ["sha256", "sha512", "sha384", "sha1", "md5"]
        .iter()
        .find_map(stated);
    let (name, hex) = best.filter(|(_, hex)| hex.bytes().all(|b| b.is_ascii_hexdigit()))?;
    Some(Cow::Owned(match own {
        Some(own) => format!("{own}&{name}={hex}"),
        None => format!("{name}={hex}"),
    }))
}

/// `true` or `sha256=…` (PEP 714).
fn metadata_attribute<'f>(metadata: &'f CoreMetadata<'_>) -> Option<Cow<'f, str>> {
    let CoreMetadata::Yes(hashes) = metadata else {
        return None;
    };
    let sha256 = hashes.0.iter().find(|(name, _)| name == "sha256");
    Some(
        sha256
            .or(hashes.0.first())
            .map_or(Cow::Borrowed("true"), |(name, hex)| {
                Cow::Owned(format!("{name}={hex}"))
            }),
    )
}

fn html_of_html(
    html: &str,
    project: &str,
    resolver: &Resolver<'_>,
    links: &Links<'_>,
) -> Result<Vec<u8>, Malformed> {
    let mut page = HtmlPage::with_capacity(html.len(), links.meter());
    let (head, _) = simple_html::read(html, links.meter(), &mut |anchor| {
        let Some(target) = target_of_anchor(&anchor, project, resolver) else {
            return;
        };
        let href = links.href(&target.path);
        let attributes = anchor
            .attributes
            .iter()
            .map(|(name, value)| (name.as_ref(), value.as_ref()));
        let text = if anchor.text.is_empty() {
            target.file_name.as_ref()
        } else {
            &anchor.text
        };
        match split_fragment(&anchor.href).1 {
            Some(fragment) => page.anchor(&[&href, "#", fragment], attributes, text),
            None => page.anchor(&[&href], attributes, text),
        }
    })?;
    Ok(page.finish(&head, Subject::Project(project)))
}

fn json_of_html(
    html: &str,
    project: &str,
    resolver: &Resolver<'_>,
    links: &Links<'_>,
) -> Result<Vec<u8>, Malformed> {
    const FILES: &str = "{\"files\":[";
    let mut out = String::with_capacity(html.len());
    out.push_str(FILES);
    let (head, _) = simple_html::read(html, links.meter(), &mut |anchor| {
        if let Some(target) = target_of_anchor(&anchor, project, resolver) {
            let most = out.len() + anchor.longest_written() + target.path.len();
            if links.meter().may_be_written(most) {
                separate(&mut out);
                json_file(&anchor, &target, links, &mut out);
            }
        }
    })?;
    if head.withholds_files() {
        out.truncate(FILES.len());
    }
    // `size` and `versions` cannot be had from HTML and are mandatory from 1.1 on.
    out.push_str("],\"meta\":{");
    member("api-version", Json::Text("1.0"), &mut out);
    if !head.tracks.is_empty() {
        member("tracks", Json::Array(&head.tracks), &mut out);
    }
    out.push('}');
    member("name", Json::Text(project), &mut out);
    if !head.alternate_locations.is_empty() {
        member(
            "alternate-locations",
            Json::Array(&head.alternate_locations),
            &mut out,
        );
    }
    if let Some(status) = &head.status {
        let reason = head
            .status_reason
            .as_deref()
            .map(|reason| ("reason", reason));
        let members: Vec<_> = [("status", status.as_ref())]
            .into_iter()
            .chain(reason)
            .collect();
        member("project-status", Json::Object(&members), &mut out);
    }
    out.push('}');
    Ok(out.into_bytes())
}

fn json_file(anchor: &Anchor<'_>, target: &Target<'_>, links: &Links<'_>, out: &mut String) {
    let fragment = split_fragment(&anchor.href).1.unwrap_or_default();
    let digests: Vec<_> = fragment_digests(fragment)
        .map(|(name, hex, _)| (name, hex))
        .collect();
    let mut url = links.href(&target.path);
    // Digests stand in `hashes`; a fragment that says more is kept.
    if digests.len() < fragment.split('&').filter(|part| !part.is_empty()).count() {
        url.push('#');
        url.push_str(fragment);
    }
    out.push('{');
    member("filename", Json::Text(&target.file_name), out);
    member("url", Json::Text(&url), out);
    member("hashes", Json::Object(&digests), out);
    if let Some(requirement) = anchor
        .attribute("data-requires-python")
        .filter(|text| !text.is_empty())
    {
        member("requires-python", Json::Text(requirement), out);
    }
    match anchor_metadata(anchor) {
        Some(Metadata::Hashed(name, hex)) => {
            member("core-metadata", Json::Object(&[(name, hex)]), out);
        }
        Some(Metadata::Present) => member("core-metadata", Json::Bool(true), out),
        None => {}
    }
    if let Some(signed) = anchor.attribute("data-gpg-sig") {
        member(
            "gpg-sig",
            Json::Bool(!signed.eq_ignore_ascii_case("false")),
            out,
        );
    }
    match anchor.attribute("data-yanked") {
        Some("") => member("yanked", Json::Bool(true), out),
        Some(reason) => member("yanked", Json::Text(reason), out),
        None => {}
    }
    if let Some(url) = anchor.attribute("data-provenance") {
        member("provenance", Json::Text(url), out);
    }
    out.push('}');
}

fn json_list_of_json(text: &str, links: &Links<'_>) -> Result<Vec<u8>, Malformed> {
    simple_json::read_list(text, links.meter(), &mut |_| ())?;
    Ok(text.as_bytes().to_vec())
}

fn html_list_of_json(text: &str, links: &Links<'_>) -> Result<Vec<u8>, Malformed> {
    let mut page = HtmlPage::with_capacity(text.len(), links.meter());
    let head = simple_json::read_list(text, links.meter(), &mut |name| {
        if names::is_valid(&name) {
            page.anchor(&[&project_href(&name, links)], [], &name);
        }
    })?;
    Ok(page.finish(&head, Subject::List))
}

fn list_of_html(html: &str, wants_json: bool, links: &Links<'_>) -> Result<Vec<u8>, Malformed> {
    if wants_json {
        let mut out = String::with_capacity(html.len());
        out.push_str("{\"meta\":{\"api-version\":\"1.0\"},\"projects\":[");
        simple_html::read(html, links.meter(), &mut |anchor| {
            if let Some(name) = listed_project(&anchor) {
                separate(&mut out);
                out.push('{');
                member("name", Json::Text(&name), &mut out);
                out.push('}');
            }
        })?;
        out.push_str("]}");
        return Ok(out.into_bytes());
    }
    let mut page = HtmlPage::with_capacity(html.len(), links.meter());
    let (head, _) = simple_html::read(html, links.meter(), &mut |anchor| {
        if let Some(name) = listed_project(&anchor) {
            let attributes = anchor
                .attributes
                .iter()
                .map(|(name, value)| (name.as_ref(), value.as_ref()));
            page.anchor(&[&project_href(&name, links)], attributes, &name);
        }
    })?;
    Ok(page.finish(&head, Subject::List))
}

/// The project that an anchor of a project list stands for: its text, else the last segment of its link.
pub(super) fn listed_project<'v>(anchor: &'v Anchor<'_>) -> Option<Cow<'v, str>> {
    let text = anchor.text.trim_end_matches('/');
    if names::is_valid(text) {
        return Some(Cow::Borrowed(text));
    }
    let path = anchor.href.split(['?', '#']).next()?.trim_end_matches('/');
    let last = percent_decode(path.rsplit('/').next()?)?;
    names::is_valid(&last).then_some(Cow::Owned(last))
}

fn project_href(name: &str, links: &Links<'_>) -> String {
    links.href(&format!("simple/{}/", names::normalize(name)))
}

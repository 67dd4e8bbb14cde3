//! A folder of a local repository: what is directly in it, as JSON, or as HTML for those who put that above JSON.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, CACHE_CONTROL, HeaderMap};
use http::{HeaderValue, StatusCode};
use larder_core::{ArtifactPath, CacheStatus, ErrorCode, Fault, FaultKind, Source, sha256};
use larder_storage::LocalChild;
use serde_json::{Value, json};

use super::place::{Local, Place};
use super::rules::etag;
use crate::answer::{Answer, Body, Freshness, Representation};
use crate::fault::storage_fault;
use crate::policy::clearance::clear_non_artifact;
use crate::target::ArtifactRequest;

/// May be kept, and is asked about each time: the next upload is seen at once.
pub(super) const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");

/// Names on one page, unless fewer are asked for.
const PAGE: usize = 1_000;

/// Which part of a folder is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    limit: usize,
    after: String,
}

/// Lists the folder at `place`.
pub(super) async fn folder(
    local: &Arc<Local>,
    place: &Place<'_>,
    request: &ArtifactRequest<'_>,
) -> Result<Answer, Fault> {
    let asked = asked(request.query.unwrap_or_default()).map_err(|message| {
        place
            .fault(FaultKind::BadRequest, ErrorCode::BadRequest, message)
            .by_rule("folder")
    })?;
    let folder = place.path.as_str();
    let mut children = readable(local, place, &asked).await?;
    if children.is_empty() && !folder.is_empty() && !is_there(local, place).await? {
        return Err(place.absent());
    }
    let is_last = children.len() <= asked.limit;
    children.truncate(asked.limit);
    let next = children.last().filter(|_| !is_last).map(position);
    let page = Page {
        repository: place.repository().as_str(),
        folder,
        children: &children,
        next: next.as_deref(),
        limit: asked.limit,
    };
    let (content_type, text) = if prefers_html(request.headers) {
        ("text/html; charset=utf-8", page.html())
    } else {
        ("application/json", page.json().to_string())
    };
    Ok(answer(local, content_type, text))
}

/// What is to be listed, and more than is asked for unless that is all: nothing that the rules keep from whoever follows its link.
async fn readable(
    local: &Local,
    place: &Place<'_>,
    asked: &Asked,
) -> Result<Vec<LocalChild>, Fault> {
    let (folder, limit) = (place.path.as_str(), asked.limit + 1);
    let is_admitted = |child: &LocalChild| {
        let path = format!("{folder}{}", position(child));
        place.entry.class_at(&path).is_some()
    };
    let (mut found, mut after) = (Vec::new(), asked.after.clone());
    loop {
        let children = local
            .catalog
            .local_children(place.repository(), folder, &after, limit)
            .await
            .map_err(|error| storage_fault(place.entry, &error))?;
        let is_last = children.len() < limit;
        after = children.last().map(position).unwrap_or_default();
        found.extend(children.into_iter().filter(is_admitted));
        if is_last || found.len() >= limit {
            return Ok(found);
        }
    }
}

/// Whether there is a folder that has nothing to list where it is asked for: what is in it stands before that, or may not be read.
async fn is_there(local: &Local, place: &Place<'_>) -> Result<bool, Fault> {
    let first = local
        .catalog
        .local_children(place.repository(), place.path.as_str(), "", 1);
    let first = first.await;
    let first = first.map_err(|error| storage_fault(place.entry, &error))?;
    Ok(!first.is_empty())
}

fn answer(local: &Local, content_type: &str, text: String) -> Answer {
    let mut extra = HeaderMap::new();
    extra.insert(CACHE_CONTROL, NO_CACHE);
    let representation = Representation {
        content_type: Some(content_type.to_owned()),
        etag: Some(etag(&sha256(text.as_bytes()))),
        length: Some(text.len() as u64),
        vary: &["accept"],
        extra,
        ..Representation::default()
    };
    Answer {
        status: StatusCode::OK,
        representation,
        body: clear_non_artifact(Body::Memory(text.into())),
        cache_status: CacheStatus {
            hit: true,
            ..CacheStatus::default()
        },
        source: Source::Cache,
        freshness: Freshness {
            contacted_at: local.now(),
            remaining: Some(Duration::ZERO),
            no_store: false,
        },
        location: None,
        hot: None,
        reading: None,
    }
}

/// Where a page ends: the name, a folder's with its slash.
fn position(child: &LocalChild) -> String {
    match child {
        LocalChild::File(name, _) => name.clone(),
        LocalChild::Folder(name) => format!("{name}/"),
    }
}

fn asked(query: &str) -> Result<Asked, String> {
    let mut asked = Asked {
        limit: PAGE,
        after: String::new(),
    };
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "limit" => {
                let limit = value.parse::<usize>().ok().filter(|limit| *limit > 0);
                asked.limit = limit
                    .ok_or_else(|| format!("limit is {value:?}; it can be 1 to {PAGE}"))?
                    .min(PAGE);
            }
            "cursor" => asked.after = value.into_owned(),
            // Whatever caches and clients add to an address chooses no other folder.
            _ => {}
        }
    }
    Ok(asked)
}

struct Page<'a> {
    repository: &'a str,
    folder: &'a str,
    children: &'a [LocalChild],
    next: Option<&'a str>,
    limit: usize,
}

impl Page<'_> {
    fn json(&self) -> Value {
        let (mut folders, mut files) = (Vec::new(), Vec::new());
        for child in self.children {
            match child {
                LocalChild::Folder(name) => folders.push(json!(name)),
                LocalChild::File(name, file) => files.push(json!({
                    "name": name,
                    "size": file.blob.size,
                    "sha256": file.blob.digest.to_hex(),
                    "content_type": file.headers.content_type,
                    "uploaded_at": file.uploaded_at.to_rfc3339(),
                })),
            }
        }
        json!({
            "repository": self.repository, "path": self.folder,
            "folders": folders, "files": files, "next": self.next,
        })
    }

    fn html(&self) -> String {
        let title = escaped(&format!("{}/{}", self.repository, self.folder));
        let mut page = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>{title}</title></head>\n<body>\n\
             <h1>{title}</h1>\n<table>\n<tr><th>Name</th><th>Bytes</th><th>Uploaded</th></tr>\n"
        );
        if !self.folder.is_empty() {
            page.push_str("<tr><td><a href=\"../\">../</a></td><td></td><td></td></tr>\n");
        }
        for child in self.children {
            let name = child.name();
            let link = link_to(name);
            let shown = escaped(name);
            let _ = match child {
                LocalChild::Folder(_) => writeln!(
                    page,
                    "<tr><td><a href=\"{link}/\">{shown}/</a></td><td></td><td></td></tr>"
                ),
                LocalChild::File(_, file) => writeln!(
                    page,
                    "<tr><td><a href=\"{link}\">{shown}</a></td><td>{}</td><td>{}</td></tr>",
                    file.blob.size,
                    file.uploaded_at.to_rfc3339()
                ),
            };
        }
        page.push_str("</table>\n");
        if let Some(next) = self.next {
            let query: String = url::form_urlencoded::Serializer::new(String::new())
                .append_pair("limit", &self.limit.to_string())
                .append_pair("cursor", next)
                .finish();
            let _ = writeln!(
                page,
                "<p><a href=\"?{}\">next page</a></p>",
                escaped(&query)
            );
        }
        page.push_str("</body>\n</html>\n");
        page
    }
}

/// A name as a relative reference: in front of it `./`, so that no colon in it makes a scheme, and what ends a path encoded.
fn link_to(name: &str) -> String {
    let encoded = ArtifactPath::from_decoded(name)
        .map_or_else(|_| String::new(), |path| path.encoded().to_owned());
    escaped(&format!("./{encoded}"))
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Whether `Accept` puts HTML above JSON (RFC 9110 section 12.5.1): browsers do; `*/*`, and no field at all, do not.
fn prefers_html(headers: &HeaderMap) -> bool {
    let fields: Vec<&str> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|line: &HeaderValue| line.to_str().ok())
        .collect();
    quality(&fields, ("text", "html")) > quality(&fields, ("application", "json"))
}

/// The quality of a media type, in thousandths, by the most specific range that names it.
fn quality(fields: &[&str], (kind, subtype): (&str, &str)) -> u32 {
    let ranges = fields
        .iter()
        .flat_map(|field| field.split(','))
        .filter_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            let (of_kind, of_subtype) = parts.next()?.split_once('/')?;
            let is = |of: &str, what: &str| of.eq_ignore_ascii_case(what);
            let specific = if is(of_kind, kind) && is(of_subtype, subtype) {
                2
            } else if is(of_kind, kind) && of_subtype == "*" {
                1
            } else if of_kind == "*" && of_subtype == "*" {
                0
            } else {
                return None;
            };
            let weight =
                parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            let weight = weight.map_or(Some(1.0), |weight| weight.parse::<f32>().ok())?;
            Some((specific, (weight.clamp(0.0, 1.0) * 1000.0) as u32))
        });
    ranges
        .max_by_key(|(specific, _)| *specific)
        .map_or(0, |(_, weight)| weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_is_for_those_who_put_it_above_json() {
        let prefers = |field: &'static str| {
            let mut headers = HeaderMap::new();
            headers.append(ACCEPT, HeaderValue::from_static(field));
            prefers_html(&headers)
        };
        for field in [
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "text/html",
            "application/json;q=0.5, text/*",
        ] {
            assert!(prefers(field), "{field}");
        }
        for field in [
            "*/*",
            "application/json",
            "text/html;q=0.5, application/json",
            "text/html, application/json",
            "text/plain",
        ] {
            assert!(!prefers(field), "{field}");
        }
        assert!(!prefers_html(&HeaderMap::new()));
    }

    #[test]
    fn hazard_s15_names_are_text_and_links_stay_where_they_are() {
        let name = "a:<b>\"?#%41.txt";
        assert_eq!(escaped(name), "a:&lt;b&gt;&quot;?#%41.txt");
        let link = link_to(name);
        assert!(link.starts_with("./a:"), "{link}");
        assert!(
            !link.contains(['<', '>', '"', '?', '#']),
            "nothing that ends a path or an attribute: {link}"
        );
    }

    #[test]
    fn the_parameters_of_a_listing() {
        let of = |limit, after: &str| {
            Ok(Asked {
                limit,
                after: after.to_owned(),
            })
        };
        assert_eq!(asked(""), of(PAGE, ""));
        assert_eq!(asked("limit=2&cursor=a%2F%C3%BC&x=1"), of(2, "a/ü"));
        assert_eq!(asked("limit=5000"), of(PAGE, ""));
        assert!(asked("limit=0").is_err() && asked("limit=x").is_err());
    }
}

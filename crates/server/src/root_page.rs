//! A repository's bare root: larder's own page, with what the repository is, how it does, and the lines that set each client up; HTML
//! for those who prefer it, else text. It asks no upstream and is never kept. Of generic repositories the root is the upstream's folder;
//! the page stands in where the upstream has none (docs/adr/0053).

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use http::header::{CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use larder_core::{PackageType, Pattern, Repository, RepositoryKind, SafeUrl, fold_segments};
use larder_engine::UpstreamStanding;
use larder_formats::{ClientLines, client_lines, repository_url};

use crate::accept::quality;
use crate::admin::text;
use crate::backend::Backend;
use crate::body::ResponseBody;
use crate::exchange::{Exchange, Handled};
use crate::metrics::RequestKind;
use crate::respond::insert_location;

const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// Whether a raw path below a repository is the repository's root, in any of its spellings, and is read.
pub(crate) fn is_root(method: &Method, rest: &str) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
        && fold_segments(rest).trim_start_matches('/').is_empty()
}

/// The page of the repository of that name; `None` if there is none of it, or if its root is a folder.
pub(crate) fn of<B: Backend>(exchange: &Exchange<'_, B>, name: &str) -> Option<Handled> {
    let repository = exchange.backend.repository(name)?;
    // The upstream's folder, or that of what was uploaded.
    let is_folder =
        repository.package == PackageType::Generic && repository.kind() != RepositoryKind::Virtual;
    (!is_folder || exchange.backend.not_built(name).is_some()).then(|| page(exchange, &repository))
}

/// The page of a virtual repository: only these are below `/api/v1/virtual`.
pub(crate) fn of_virtual<B: Backend>(exchange: &Exchange<'_, B>, name: &str) -> Option<Handled> {
    let repository = exchange
        .backend
        .repository(name)
        .filter(|repository| repository.kind() == RepositoryKind::Virtual)?;
    Some(page(exchange, &repository))
}

/// The answer at the root of a generic repository, after its upstream has answered: the page where there is no folder to show.
pub(crate) fn instead_of<B: Backend>(exchange: &Exchange<'_, B>, handled: Handled) -> Handled {
    let has_none = matches!(
        handled.response.status(),
        StatusCode::FORBIDDEN
            | StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::GONE
    );
    match handled.repository.as_ref().filter(|_| has_none) {
        Some(repository) => page(exchange, repository),
        None => handled,
    }
}

/// A folder's links are relative to its slash: a root that is asked for without any is redirected to the one with it.
pub(crate) fn with_slash<B: Backend>(
    exchange: &Exchange<'_, B>,
    name: &str,
    rest: &str,
) -> Option<Handled> {
    let uri = &exchange.head.uri;
    if !rest.is_empty() || uri.path().ends_with('/') {
        return None;
    }
    let repository = exchange.backend.repository(name)?;
    let query = uri
        .query()
        .map_or_else(String::new, |query| format!("?{query}"));
    let mut response = text(StatusCode::MOVED_PERMANENTLY, TEXT, "");
    insert_location(response.headers_mut(), &format!("{name}/{query}"));
    Some(Handled {
        response,
        kind: RequestKind::Other,
        repository: Some(repository),
    })
}

fn page<B: Backend>(exchange: &Exchange<'_, B>, repository: &Arc<Repository>) -> Handled {
    let live = exchange.shared.live.load();
    let base = live
        .public_urls
        .of_client(&exchange.client.base)
        .map_or(exchange.client.base.as_str(), |url| url.as_str());
    let facts = facts(exchange, repository, base);
    let lines = client_lines(base, repository);
    let response = if prefers_html(&exchange.head.headers) {
        text(StatusCode::OK, HTML, html(repository, &facts, &lines))
    } else {
        text(StatusCode::OK, TEXT, plain(repository, &facts, &lines))
    };
    Handled {
        response: varying(response),
        kind: RequestKind::Other,
        repository: Some(Arc::clone(repository)),
    }
}

fn varying(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    response
        .headers_mut()
        .insert(VARY, HeaderValue::from_static("Accept"));
    debug_assert!(response.headers().contains_key(CONTENT_TYPE));
    response
}

/// A word and what is to be said of it.
type Fact = (&'static str, String);

fn facts<B: Backend>(exchange: &Exchange<'_, B>, repository: &Repository, base: &str) -> Vec<Fact> {
    let mut facts: Vec<Fact> = vec![
        ("Type", repository.kind().as_str().to_owned()),
        ("Package", repository.package.as_str().to_owned()),
    ];
    if !repository.description.is_empty() {
        facts.push(("Description", repository.description.clone()));
    }
    facts.push(("Address", repository_url(base, repository)));
    let upstream = repository.upstream();
    if let Some(upstream) = upstream {
        facts.extend(
            upstream
                .base_urls
                .iter()
                .map(|url| ("Upstream", SafeUrl(url.clone()).to_string())),
        );
        if !upstream.base_urls.contains(&upstream.index_url) {
            facts.push(("Index", SafeUrl(upstream.index_url.clone()).to_string()));
        }
    }
    if !repository.members().is_empty() {
        let members: Vec<&str> = repository
            .members()
            .iter()
            .map(larder_core::RepositoryName::as_str)
            .collect();
        facts.push(("Members", members.join(", ")));
    }
    facts.push(("State", state(exchange, repository)));
    facts.extend(rules(repository));
    facts
}

/// What may be asked for, and what is held back.
fn rules(repository: &Repository) -> Vec<Fact> {
    let mut facts: Vec<Fact> = Vec::new();
    let rules = &repository.access;
    for (word, patterns) in [
        ("Denied paths", &rules.deny),
        ("Allowed paths", &rules.allow),
    ] {
        if !patterns.is_empty() {
            facts.push((word, listed(patterns)));
        }
    }
    if let Some(patterns) = &rules.immutable {
        let served = if patterns.is_empty() {
            "none but those that change".to_owned()
        } else {
            listed(patterns)
        };
        facts.push(("Files served", served));
    }
    if let Some(patterns) = rules
        .mutable
        .as_ref()
        .filter(|patterns| !patterns.is_empty())
    {
        facts.push(("Files that change", listed(patterns)));
    }
    if let Some(hold) = repository.quarantine.hold {
        let days = hold.as_secs() / 86_400;
        facts.push((
            "Quarantine",
            format!("files newer than {days} days are held back (quarantine_new)"),
        ));
    }
    facts
}

fn listed(patterns: &[Pattern]) -> String {
    patterns
        .iter()
        .map(Pattern::as_str)
        .collect::<Vec<_>>()
        .join("   ")
}

fn state<B: Backend>(exchange: &Exchange<'_, B>, repository: &Repository) -> String {
    if let Some(reason) = exchange.backend.not_built(repository.name.as_str()) {
        return format!("not served: {reason}; requests are answered 501");
    }
    if repository
        .upstream()
        .is_some_and(|upstream| upstream.offline)
    {
        return "offline: what is held is served, and the upstream is not asked (offline: true)"
            .to_owned();
    }
    let reports = exchange.backend.upstreams();
    let own: Vec<_> = reports
        .iter()
        .filter(|report| report.repository == repository.name.as_str())
        .collect();
    let failing: Vec<_> = own
        .iter()
        .filter(|report| report.standing == UpstreamStanding::Failing)
        .collect();
    let Some(last) = failing
        .iter()
        .filter_map(|report| report.last_error.as_ref())
        .max_by_key(|failure| failure.at)
    else {
        return "serving".to_owned();
    };
    let why = format!(
        "last failure: {} ({})",
        last.cause.as_str(),
        last.at.to_http_date()
    );
    if failing.len() == own.len() {
        return format!("the upstream fails, what is held is served; {why}; /health says more");
    }
    format!(
        "serving; {} of {} upstreams fail; {why}; /health says more",
        failing.len(),
        own.len()
    )
}

fn plain(repository: &Repository, facts: &[Fact], lines: &[ClientLines]) -> String {
    let mut page = format!("larder: repository {}\n\n", repository.name);
    for (word, said) in facts {
        // What an operator has written may have several lines.
        let _ = writeln!(
            page,
            "{:<18}{}",
            format!("{word}:"),
            said.replace(['\r', '\n'], " ")
        );
    }
    for ClientLines {
        client,
        place,
        text,
    } in lines
    {
        let _ = write!(page, "\n{client} ({place}):\n\n");
        for line in text.lines() {
            let indent = if line.is_empty() { "" } else { "    " };
            let _ = writeln!(page, "{indent}{line}");
        }
    }
    page
}

fn html(repository: &Repository, facts: &[Fact], lines: &[ClientLines]) -> String {
    let name = escaped(repository.name.as_str());
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>{name} - larder</title></head>\n<body>\n\
         <h1>Repository {name}</h1>\n<dl>\n"
    );
    for (word, said) in facts {
        let _ = writeln!(page, "<dt>{word}</dt><dd>{}</dd>", escaped(said));
    }
    page.push_str("</dl>\n<h2>To set a client up</h2>\n");
    for ClientLines {
        client,
        place,
        text,
    } in lines
    {
        let _ = writeln!(
            page,
            "<h3>{} ({})</h3>\n<pre>{}</pre>",
            escaped(client),
            escaped(place),
            escaped(text)
        );
    }
    page.push_str("</body>\n</html>\n");
    page
}

fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(['&', '<', '>', '"', '\'']) {
        return Cow::Borrowed(text);
    }
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
    Cow::Owned(escaped)
}

/// Whether `Accept` puts HTML above plain text: browsers do; `*/*`, and no field at all, do not.
fn prefers_html(headers: &HeaderMap) -> bool {
    quality(headers, "text", "html") > quality(headers, "text", "plain")
}

#[cfg(test)]
mod tests {
    use http::header::ACCEPT;

    use super::*;

    #[test]
    fn html_is_for_those_who_put_it_above_text() {
        let prefers = |fields: &[&str]| {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(ACCEPT, HeaderValue::from_str(field).unwrap());
            }
            prefers_html(&headers)
        };
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        for fields in [
            &[browser][..],
            &["text/html"],
            &["TEXT/HTML"],
            &["text/plain;q=0.5, text/*"],
            &["application/json", "text/html;q=0.1"],
        ] {
            assert!(prefers(fields), "{fields:?}");
        }
        for fields in [
            &[][..],
            &["*/*"],
            &["text/*"],
            &["text/plain"],
            &["text/html;q=0, */*"],
            &["text/html, text/plain"],
            &["application/json"],
            &["text/html;q=x"],
        ] {
            assert!(!prefers(fields), "{fields:?}");
        }
    }

    #[test]
    fn the_root_in_all_its_spellings_and_nothing_else() {
        for rest in ["", "/", "//", "./", ".", "/./"] {
            assert!(
                is_root(&Method::GET, rest) && is_root(&Method::HEAD, rest),
                "{rest}"
            );
            assert!(!is_root(&Method::POST, rest), "{rest}");
        }
        for rest in ["a", "/a", "..", "%2e", "a/.", "-/ping"] {
            assert!(!is_root(&Method::GET, rest), "{rest}");
        }
    }

    #[test]
    fn hazard_nothing_that_somebody_has_written_is_markup() {
        assert_eq!(
            escaped("<script>'a' & \"b\"</script>"),
            "&lt;script&gt;&#39;a&#39; &amp; &quot;b&quot;&lt;/script&gt;"
        );
    }
}

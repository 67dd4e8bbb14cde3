//! Which form of a simple page a client gets (PEP 691 "Content negotiation").
//!
//! Knows `Accept` and `?format=`. Whatever is asked, there is an answer: HTML where nothing else is acceptable.

use http::HeaderMap;
use http::header::ACCEPT;

use crate::links::percent_decode;

/// JSON.
pub(super) const JSON: &str = "simple+json";
/// HTML under its registered name.
pub(super) const V1_HTML: &str = "simple+v1html";
/// HTML as `text/html`.
pub(super) const HTML: &str = "simple+html";

/// The `Content-Type` of a form; `None` if there is no such form.
pub(super) fn content_type(form: &str) -> Option<&'static str> {
    match form {
        JSON => Some("application/vnd.pypi.simple.v1+json"),
        V1_HTML => Some("application/vnd.pypi.simple.v1+html"),
        HTML => Some("text/html"),
        _ => None,
    }
}

/// The form that a media type names. The meta version `latest` is answered as `v1`.
fn form_of(media_type: &str) -> Option<&'static str> {
    match media_type.to_ascii_lowercase().as_str() {
        "application/vnd.pypi.simple.v1+json" | "application/vnd.pypi.simple.latest+json" => {
            Some(JSON)
        }
        "application/vnd.pypi.simple.v1+html" | "application/vnd.pypi.simple.latest+html" => {
            Some(V1_HTML)
        }
        "text/html" => Some(HTML),
        _ => None,
    }
}

/// The form to answer with: `?format=` if it names one, else the most wanted of `Accept`, else HTML.
pub(super) fn form(headers: &HeaderMap, query: Option<&str>) -> &'static str {
    query
        .and_then(format_parameter)
        .or_else(|| accepted(headers))
        .unwrap_or(HTML)
}

fn format_parameter(query: &str) -> Option<&'static str> {
    let value = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("format="))?;
    // A `+` may arrive as itself, as `%2B`, or as the space that form decoding makes of it.
    form_of(percent_decode(value)?.replace(' ', "+").as_str())
}

/// How much a client wants a form: quality first, then how exactly it named it, then our own preference.
type Rank = (u16, u8, u8);

fn accepted(headers: &HeaderMap) -> Option<&'static str> {
    let mut best: Option<(Rank, &'static str)> = None;
    for form in [JSON, V1_HTML, HTML] {
        let Some(rank) = rank(headers, form) else {
            continue;
        };
        if best.is_none_or(|(other, _)| rank > other) {
            best = Some((rank, form));
        }
    }
    best.map(|(_, form)| form)
}

fn rank(headers: &HeaderMap, form: &'static str) -> Option<Rank> {
    let ranges = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    // The most specific range decides (RFC 9110 section 12.5.1); of equally specific ones the kindest.
    let (exactness, quality) = ranges.filter_map(|range| matches(range, form)).max()?;
    // Named by a client that knows it: the richer form first. Swept up by a wildcard: what any client reads.
    let preference = match (exactness == EXACT, form) {
        (true, JSON) | (false, HTML) => 2,
        (_, V1_HTML) => 1,
        _ => 0,
    };
    (quality > 0).then_some((quality, exactness, preference))
}

const EXACT: u8 = 2;

/// How exactly a media range names `form`, and its quality in thousandths.
fn matches(range: &str, form: &'static str) -> Option<(u8, u16)> {
    let mut parts = range.split(';').map(str::trim);
    let media_type = parts.next()?;
    let own_type = content_type(form)?.split_once('/')?.0;
    let exactness = match media_type.split_once('/') {
        Some(("*", "*")) => 0,
        Some((major, "*")) if major.eq_ignore_ascii_case(own_type) => 1,
        _ if form_of(media_type) == Some(form) => EXACT,
        _ => return None,
    };
    let quality = parts
        .filter_map(|part| part.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
    let quality = match quality {
        None => 1000,
        Some((_, value)) => value
            .trim()
            .parse::<f32>()
            .ok()
            .filter(|q| (0.0..=1.0).contains(q))
            .map(|q| (q * 1000.0) as u16)?,
    };
    Some((exactness, quality))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(accept: &[&str], query: Option<&str>) -> &'static str {
        let mut headers = HeaderMap::new();
        for value in accept {
            headers.append(ACCEPT, value.parse().unwrap());
        }
        form(&headers, query)
    }

    #[test]
    fn checklist_1_each_accept_gets_its_form() {
        assert_eq!(ask(&["application/vnd.pypi.simple.v1+json"], None), JSON);
        assert_eq!(ask(&["text/html"], None), HTML);
        assert_eq!(ask(&[], None), HTML);
        assert_eq!(ask(&["application/vnd.pypi.simple.v1+html"], None), V1_HTML);
        assert_eq!(
            content_type(JSON),
            Some("application/vnd.pypi.simple.v1+json")
        );
    }

    #[test]
    fn checklist_2_latest_is_answered_as_v1() {
        assert_eq!(
            ask(&["application/vnd.pypi.simple.latest+json"], None),
            JSON
        );
        assert_eq!(
            ask(&["application/vnd.pypi.simple.latest+html"], None),
            V1_HTML
        );
    }

    #[test]
    fn real_clients_get_what_they_prefer() {
        let pip = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01";
        assert_eq!(ask(&[pip], None), JSON);
        let uv = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01";
        assert_eq!(ask(&[uv], None), JSON);
        assert_eq!(
            ask(
                &["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"],
                None
            ),
            HTML
        );
        assert_eq!(ask(&["*/*"], None), HTML);
    }

    #[test]
    fn qualities_decide_across_header_lines() {
        assert_eq!(
            ask(
                &[
                    "application/vnd.pypi.simple.v1+json;q=0.3",
                    "text/html;q=0.4"
                ],
                None
            ),
            HTML
        );
        assert_eq!(
            ask(
                &["application/vnd.pypi.simple.v1+json; Q=0.9", "*/*;q=0.1"],
                None
            ),
            JSON
        );
        assert_eq!(
            ask(&["Application/Vnd.PyPI.simple.v1+JSON, text/html"], None),
            JSON
        );
        // The exact range decides over the wildcard.
        assert_eq!(ask(&["text/html;q=0, */*"], None), V1_HTML);
        assert_eq!(ask(&["application/*"], None), V1_HTML);
    }

    #[test]
    fn nothing_acceptable_gives_html() {
        assert_eq!(ask(&["application/json"], None), HTML);
        assert_eq!(ask(&["application/vnd.pypi.simple.v2+json"], None), HTML);
        assert_eq!(
            ask(&["application/vnd.pypi.simple.v1+json;q=0"], None),
            HTML
        );
        assert_eq!(ask(&[";;;,,q=1,/,*"], None), HTML);
        assert_eq!(
            ask(&["application/vnd.pypi.simple.v1+json;q=nan"], None),
            HTML
        );
    }

    #[test]
    fn the_format_parameter_wins() {
        let json = ["application/vnd.pypi.simple.v1+json"];
        assert_eq!(ask(&json, Some("format=text/html")), HTML);
        assert_eq!(
            ask(
                &[],
                Some("x=1&format=application%2Fvnd.pypi.simple.v1%2Bjson")
            ),
            JSON
        );
        assert_eq!(
            ask(&[], Some("format=application/vnd.pypi.simple.latest+json")),
            JSON
        );
        assert_eq!(
            ask(&[], Some("format=application/vnd.pypi.simple.v1%20html")),
            V1_HTML
        );
        assert_eq!(ask(&json, Some("format=unheard-of")), JSON);
    }
}

//! What an upstream gives at a folder's path: a listing of it, or a file for all that (docs/adr/0053). Many servers ignore a slash behind
//! a file's name, and a slash must open no way around patterns and quarantine.

use larder_core::StoredHeaders;

/// The types that listings have, and the endings of files of that type.
const TYPES: [(&str, &[&str]); 5] = [
    ("text/html", HTML),
    ("application/xhtml+xml", HTML),
    ("application/json", &["json"]),
    ("application/xml", XML),
    ("text/xml", XML),
];
const HTML: &[&str] = &["html", "htm", "shtml", "xhtml", "xht"];
const XML: &[&str] = &[
    "xml", "xhtml", "pom", "xsd", "xsl", "rss", "atom", "plist", "svg",
];

/// Whether what came from a folder's path is a listing. `length` is that of the body, if it is known: an empty one shows nothing of
/// any file. Plain text may be a script as well as a listing, and `x.json/` of type JSON is the file `x.json`.
pub(crate) fn is_one(path: &str, headers: &StoredHeaders, length: Option<u64>) -> bool {
    if length == Some(0) {
        return true;
    }
    let is_saved = headers
        .content_disposition
        .as_deref()
        .is_some_and(|value| !token(value).eq_ignore_ascii_case("inline"));
    let name = path
        .trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or_default();
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    let named = headers.content_type.as_deref().map_or("", token);
    let of_type = TYPES
        .iter()
        .find(|(known, _)| named.eq_ignore_ascii_case(known));
    !is_saved
        && of_type.is_some_and(|(_, endings)| {
            !endings
                .iter()
                .any(|known| ending.eq_ignore_ascii_case(known))
        })
}

/// A field's value without its parameters.
fn token(value: &str) -> &str {
    value.split(';').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(content_type: &str, disposition: &str) -> StoredHeaders {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        StoredHeaders {
            content_type: some(content_type),
            content_disposition: some(disposition),
            ..StoredHeaders::default()
        }
    }

    #[test]
    fn a_listing_is_html_json_or_xml_that_is_shown_and_named_like_a_folder() {
        for (path, content_type, disposition) in [
            ("", "text/html", ""),
            ("pub/", "Text/HTML; charset=utf-8", "inline"),
            ("v1.2/", "application/json", ""),
            ("node.js/", "text/xml", ""),
            (
                "conf.d/",
                "application/xml ;charset=utf-8",
                "Inline; filename=x",
            ),
            ("a.json/", "text/html", ""),
            ("a.json/b/", "application/xhtml+xml", ""),
        ] {
            assert!(
                is_one(path, &headers(content_type, disposition), Some(9)),
                "{path} {content_type} {disposition}"
            );
            assert!(
                is_one(path, &headers(content_type, disposition), None),
                "{path} {content_type} {disposition}"
            );
        }
    }

    #[test]
    fn hazard_a_file_behind_a_slash_is_no_listing() {
        for (path, content_type, disposition) in [
            ("tool.exe/", "application/octet-stream", ""),
            ("tool.exe/", "", ""),
            ("tool.zip/", "application/zip", ""),
            ("install.sh/", "text/plain", ""),
            ("tool/", "text/html", "attachment"),
            ("tool/", "text/html", "Attachment; filename=\"tool.exe\""),
            // RFC 6266 section 4.2: what is unknown is saved.
            ("tool/", "text/html", "download"),
            ("a/page.html/", "text/html; charset=utf-8", ""),
            ("package.JSON/", "application/json", ""),
            ("demo-1.0.pom/", "text/xml", ""),
            ("tool/", "application/jsonx", ""),
        ] {
            assert!(
                !is_one(path, &headers(content_type, disposition), Some(9)),
                "{path} {content_type} {disposition}"
            );
            assert!(
                !is_one(path, &headers(content_type, disposition), None),
                "{path} {content_type} {disposition}"
            );
        }
    }

    #[test]
    fn an_empty_body_shows_nothing_of_a_file() {
        assert!(is_one(
            "tool.exe/",
            &headers("application/octet-stream", ""),
            Some(0)
        ));
    }
}

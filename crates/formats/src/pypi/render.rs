//! Writing simple pages: HTML from what was read of a page of either kind, and JSON from HTML.
//!
//! Knows both syntaxes' escapes. All text that comes from an upstream is escaped here and nowhere else (hazard S15).

use std::borrow::Cow;

use super::escape::{escape_into, longest_escaped};
use super::page::{Head, Subject};
use crate::Meter;
use crate::splice::json_escape_into;

/// An HTML page in the making. Its head is written last, because upstreams may state it last.
#[derive(Debug)]
pub(super) struct HtmlPage<'m> {
    anchors: String,
    /// What the page may grow to.
    meter: &'m Meter,
}

impl<'m> HtmlPage<'m> {
    /// An empty page, with room for `capacity` bytes. Beyond the budget of `meter` nothing is added.
    pub(super) fn with_capacity(capacity: usize, meter: &'m Meter) -> Self {
        Self {
            anchors: String::with_capacity(capacity),
            meter,
        }
    }

    /// Adds an anchor. `href` is given in parts that follow each other.
    pub(super) fn anchor<'v>(
        &mut self,
        href: &[&str],
        attributes: impl IntoIterator<Item = (&'v str, &'v str)> + Clone,
        text: &str,
    ) {
        let stated = attributes.clone().into_iter();
        let stated = stated.map(|(name, value)| name.len() + longest_escaped(value));
        let parts = href.iter().map(|part| longest_escaped(part));
        let most = parts.chain(stated).sum::<usize>() + longest_escaped(text);
        if !self.meter.may_be_written(self.anchors.len() + most) {
            return;
        }
        let out = &mut self.anchors;
        out.push_str("<a href=\"");
        for part in href {
            escape_into(part, out);
        }
        out.push('"');
        for (name, value) in attributes {
            if is_harmless(name) {
                attribute(name, value, out);
            }
        }
        out.push('>');
        escape_into(text, out);
        out.push_str("</a><br>\n");
    }

    /// The whole page.
    pub(super) fn finish(mut self, head: &Head<'_>, subject: Subject<'_>) -> Vec<u8> {
        if matches!(subject, Subject::Project(_)) && head.withholds_files() {
            self.anchors.clear();
        }
        let mut top = String::from("<!DOCTYPE html>\n<html>\n<head>\n<meta charset=\"utf-8\">\n");
        let version = head.api_version.as_deref().unwrap_or("1.0");
        let named = [
            ("pypi:project-status", &head.status),
            ("pypi:project-status-reason", &head.status_reason),
        ];
        let own = [("pypi:repository-version", version)].into_iter();
        let named = named
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.as_deref()?)));
        let all = own.chain(named);
        let tracks = head.tracks.iter().map(|url| ("pypi:tracks", &**url));
        let elsewhere = head.alternate_locations.iter();
        let elsewhere = elsewhere.map(|url| ("pypi:alternate-locations", &**url));
        for (name, value) in all.chain(tracks).chain(elsewhere) {
            let most = longest_escaped(value);
            if self
                .meter
                .may_be_written(self.anchors.len() + top.len() + most)
            {
                meta(name, value, &mut top);
            }
        }
        let mut title = String::new();
        match subject {
            Subject::List => title.push_str("Simple index"),
            Subject::Project(project) => {
                title.push_str("Links for ");
                escape_into(project, &mut title);
            }
        }
        for part in [
            "<title>",
            &title,
            "</title>\n</head>\n<body>\n<h1>",
            &title,
            "</h1>\n",
        ] {
            top.push_str(part);
        }
        let mut page = self.anchors;
        page.push_str("</body>\n</html>\n");
        page.insert_str(0, &top);
        page.into_bytes()
    }
}

fn meta(name: &str, content: &str, out: &mut String) {
    out.push_str("<meta");
    attribute("name", name, out);
    attribute("content", content, out);
    out.push_str(">\n");
}

fn attribute(name: &str, value: &str, out: &mut String) {
    out.push(' ');
    out.push_str(name);
    out.push_str("=\"");
    escape_into(value, out);
    out.push('"');
}

/// Whether an upstream's attribute may be repeated: a plain name, and none that runs a script, restyles the page or sends
/// requests of its own.
fn is_harmless(name: &str) -> bool {
    let plain =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(plain)
        && !name.starts_with("on")
        && !matches!(name, "href" | "style" | "ping" | "attributionsrc")
}

/// A value of a JSON member.
#[derive(Debug, Clone, Copy)]
pub(super) enum Json<'v> {
    Text(&'v str),
    Bool(bool),
    /// An object of strings.
    Object(&'v [(&'v str, &'v str)]),
    /// An array of strings.
    Array(&'v [Cow<'v, str>]),
}

/// Appends `"name":value` and, before it, a comma where `out` does not end in an opening bracket.
pub(super) fn member(name: &str, value: Json<'_>, out: &mut String) {
    separate(out);
    string(name, out);
    out.push(':');
    match value {
        Json::Text(text) => string(text, out),
        Json::Bool(value) => out.push_str(if value { "true" } else { "false" }),
        Json::Object(members) => {
            out.push('{');
            for (name, value) in members {
                member(name, Json::Text(value), out);
            }
            out.push('}');
        }
        Json::Array(texts) => {
            out.push('[');
            for text in texts {
                separate(out);
                string(text, out);
            }
            out.push(']');
        }
    }
}

/// Appends a comma where `out` does not end in an opening bracket.
pub(super) fn separate(out: &mut String) {
    if !out.ends_with(['{', '[']) {
        out.push(',');
    }
}

fn string(text: &str, out: &mut String) {
    out.push('"');
    json_escape_into(text, out);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(attributes: &[(&str, &str)], text: &str) -> String {
        let meter = Meter::default();
        let mut page = HtmlPage::with_capacity(0, &meter);
        page.anchor(
            &["/r/", "x.whl", "#", "sha256=a&b"],
            attributes.iter().copied(),
            text,
        );
        String::from_utf8(page.finish(&Head::default(), Subject::Project("x"))).unwrap()
    }

    #[test]
    fn hazard_s15_attributes_that_act_are_left_out() {
        let acting = [
            "onclick",
            "onmouseover",
            "style",
            "ping",
            "href",
            "xlink:href",
            "a\"b",
            "<img",
            "=x",
            "",
            "\u{e9}",
        ];
        let attributes: Vec<_> = acting
            .iter()
            .map(|name| (*name, "javascript:alert(1)"))
            .collect();
        assert!(
            page(&attributes, "x.whl").contains("<a href=\"/r/x.whl#sha256=a&amp;b\">x.whl</a>")
        );
    }

    #[test]
    fn checklist_6_attributes_are_kept_and_escaped_again() {
        let html = page(
            &[
                ("data-requires-python", ">=3.8"),
                ("data-yanked", ""),
                ("rel", "internal"),
                ("data-new_1.x", "\"'"),
            ],
            "<b>",
        );
        assert!(html.contains(
            "data-requires-python=\"&gt;=3.8\" data-yanked=\"\" rel=\"internal\" data-new_1.x=\"&quot;'\">&lt;b&gt;</a>"
        ));
    }

    #[test]
    fn members_are_separated_and_escaped() {
        let mut out = String::from("{");
        member("a\"", Json::Text("\n\u{e9}"), &mut out);
        member("b", Json::Bool(false), &mut out);
        member(
            "c",
            Json::Object(&[("sha256", "00"), ("md5", "11")]),
            &mut out,
        );
        member("d", Json::Array(&["[".into(), "{".into()]), &mut out);
        member("e", Json::Object(&[]), &mut out);
        out.push('}');
        assert_eq!(
            out,
            "{\"a\\\"\":\"\\n\u{e9}\",\"b\":false,\"c\":{\"sha256\":\"00\",\"md5\":\"11\"},\"d\":[\"[\",\"{\"],\"e\":{}}"
        );
    }
}

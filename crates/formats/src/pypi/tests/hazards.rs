//! Hostile and broken documents.

use super::super::negotiate::{HTML, JSON, V1_HTML};
use super::super::test_support::Page;

const ATTACK: &str = "\"'><script>alert(1)</script>&lt;img src=x onerror=alert(1)&gt;";

/// All markup in a rendered page, by a scanner that knows nothing of ours: every `<` starts one of the tags we write.
fn assert_only_our_markup(html: &str) {
    for tag in html.split('<').skip(1) {
        let name: String = tag
            .chars()
            .take_while(|c| !c.is_whitespace() && *c != '>')
            .collect();
        assert!(
            matches!(
                name.as_str(),
                "!DOCTYPE"
                    | "html"
                    | "/html"
                    | "head"
                    | "/head"
                    | "meta"
                    | "title"
                    | "/title"
                    | "body"
                    | "/body"
                    | "h1"
                    | "/h1"
                    | "a"
                    | "/a"
                    | "br"
            ),
            "<{tag}"
        );
        let inside = tag.split('>').next().unwrap();
        assert_eq!(inside.matches('"').count() % 2, 0, "<{inside}>");
        let outside_values: String = inside.split('"').step_by(2).collect();
        assert!(
            !outside_values.contains(" on")
                && !outside_values.contains("style")
                && !outside_values.contains("ping"),
            "<{inside}>"
        );
        assert!(
            !inside.contains("href=") || inside.contains(" href=\"/api/v1/remote/py/"),
            "<{inside}>"
        );
    }
}

#[test]
fn hazard_s15_publishers_text_in_json_cannot_become_markup() {
    let text = serde_json::to_string(ATTACK).unwrap();
    let body = format!(
        "{{\"meta\":{{\"api-version\":{text},\"tracks\":[{text}]}},\"alternate-locations\":[{text}],\"project-status\":{{\"status\":{text},\"reason\":{text}}},\
         \"files\":[{{\"filename\":\"foo-1.zip\",\"url\":\"https://files.example.com/foo-1.zip#\\\"><script>\",\"requires-python\":{text},\"yanked\":{text},\
         \"core-metadata\":{{{text}:{text}}},\"provenance\":{text},\"hashes\":{{\"sha256\":{text}}}}}]}}"
    );
    let page = Page::json("foo", body);
    for form in [HTML, V1_HTML] {
        let html = page.text(form);
        assert_only_our_markup(&html);
        assert!(
            html.contains("data-yanked=\"&quot;'&gt;&lt;script&gt;"),
            "{html}"
        );
    }
}

#[test]
fn hazard_s15_scripts_and_acting_attributes_of_html_are_dropped() {
    let body = format!(
        "<title>Links for foo<script>alert(1)</script></title><meta name='pypi:repository-version' content='{0}'><meta http-equiv=refresh content='0;url=https://evil.example.net'>\
         <script>alert(1)</script><svg onload=alert(1)><img src=x onerror=alert(1)></svg><iframe src=javascript:alert(1)></iframe>\
         <a href='https://files.example.com/foo-1.zip#x&quot;&gt;&lt;script&gt;' onclick=alert(1) OnMouseOver=alert(1) style='x:expression(1)' data-yanked='{0}' \"><script=1 ping=https://evil.example.net>foo<script>alert(1)</script>-1.zip</a>\
         <a href='javascript:alert(1)'>x</a><a href='JAVASCRIPT&colon;alert(1)'>y</a><a href=' data:text/html,x'>z</a>",
        ATTACK.replace('\'', "&#39;").replace('<', "&lt;")
    );
    let page = Page::html("foo", body);
    let html = page.text(HTML);
    assert_only_our_markup(&html);
    assert_eq!(html.matches("<a ").count(), 1, "{html}");
    for word in ["http-equiv", "svg", "iframe", "evil"] {
        assert!(!html.contains(word), "{word}: {html}");
    }
    serde_json::from_slice::<serde_json::Value>(&page.derive(JSON).body).unwrap();
}

#[test]
fn hazard_s15_names_in_lists_cannot_become_markup() {
    let name = serde_json::to_string(ATTACK).unwrap();
    let html = Page::json(
        "",
        format!("{{\"projects\":[{{\"name\":{name}}},{{\"name\":\"ok\"}}]}}"),
    )
    .text(HTML);
    assert_only_our_markup(&html);
    assert_eq!(html.matches("<a ").count(), 1);
    let html = Page::html(
        "",
        format!(
            "<a href=/simple/ok/ onclick=x title='{}'>{ATTACK}</a>",
            ATTACK.replace('\'', "")
        ),
    )
    .text(HTML);
    assert_only_our_markup(&html);
    assert!(html.contains("simple/ok/"), "{html}");
}

#[test]
fn hazard_w11_login_pages_are_no_index() {
    for html in [
        "<!DOCTYPE html><html><head><title>Sign in</title></head><body><form><input name=user><input type=password></form><a href=/forgot>Forgot?</a></body></html>",
        "<html><head><title>Sign in - Links for you</title></head><body><input type=\"PASSWORD\"><a href='x-1.0.zip'>x</a></body></html>",
        "<html><body><h1>503 Service Unavailable</h1></body></html>",
        "<html><body>Please <a href=\"https://sso.example.net/login\">sign in</a></body></html>",
        "<script>location='/login'</script>",
        "",
    ] {
        assert!(Page::html("foo", html).check().is_err(), "{html}");
    }
    assert!(
        Page::html("", "<html><title>Sign in</title><form><input type=password></form><a href=/register>register</a></html>")
            .check()
            .is_err()
    );
}

#[test]
fn json_that_is_no_simple_page_is_refused_with_a_reason() {
    let deep = format!(
        "{{\"files\":[],\"x\":{}{}}}",
        "[".repeat(64),
        "]".repeat(64)
    );
    let deep_in_file = format!(
        "{{\"files\":[{{\"filename\":\"a\",\"url\":\"b\",\"x\":{}{}}}]}}",
        "[".repeat(62),
        "]".repeat(62)
    );
    let file =
        |members: &str| format!("{{\"files\":[{{\"filename\":\"a\",\"url\":\"b\",{members}}}]}}");
    for (body, reason) in [
        ("", "EOF"),
        ("[]", "expected an object"),
        ("null", "expected an object"),
        ("{}", "missing field `files`"),
        ("{\"projects\":[]}", "missing field `files`"),
        ("{\"files\":{}}", "expected an array of files"),
        ("{\"files\":[1]}", "expected a file"),
        ("{\"files\":[{\"url\":\"x\"}]}", "missing field `filename`"),
        ("{\"files\":[{\"filename\":\"x\"}]}", "missing field `url`"),
        (
            "{\"files\":[{\"filename\":1,\"url\":\"x\"}]}",
            "expected a string",
        ),
        (
            "{\"files\":[{\"filename\":\"x\",\"url\":null}]}",
            "`url` is not a string",
        ),
        ("{\"files\":[],\"files\":[]}", "duplicate field `files`"),
        (
            "{\"files\":[{\"filename\":\"x\",\"url\":\"a\",\"u\\u0072l\":\"b\"}]}",
            "duplicate field `url`",
        ),
        ("{\"files\":[]} trailing", "trailing characters"),
        ("{\"files\":[],}", "trailing comma"),
        ("{\"files\":[],\"meta\":7}", "`meta` is not an object"),
        ("{\"files\":[],\"x\":\"\u{1}\"}", "control character"),
        (&file("\"yanked\":1"), "`yanked` is neither"),
        (&file("\"hashes\":[]"), "expected an object of hashes"),
        (&file("\"hashes\":{\"sha256\":1}"), "expected a string"),
        (&file("\"requires-python\":3"), "expected a string"),
        (
            &file("\"core-metadata\":\"x\""),
            "expected a boolean or an object",
        ),
        (&file("\"gpg-sig\":\"x\""), "expected a boolean"),
        (&deep, "nests more than 64"),
        (&deep_in_file, "nests more than 64"),
    ] {
        let page = Page::json("foo", body);
        let error = page.check().unwrap_err().0;
        assert!(error.contains(reason), "{body}: {error}");
        for form in [JSON, HTML] {
            assert_eq!(page.try_derive(form).unwrap_err().0, error, "{body}");
        }
    }
    assert!(Page::json("", "{\"files\":[]}").check().is_err());
    assert!(
        Page::json("", "{\"projects\":[{\"name\":1}]}")
            .check()
            .is_err()
    );
    assert!(
        Page::json("", "{\"projects\":[{\"name\":\"a\",\"name\":\"b\"}]}")
            .check()
            .is_err()
    );
    assert!(
        Page::json("foo", b"{\"files\":[],\"x\":\"\xff\"}")
            .check()
            .unwrap_err()
            .0
            .contains("byte 17")
    );
}

#[test]
fn hazard_r3_a_million_levels_cost_no_stack() {
    let deep = format!("{{\"files\":[],\"x\":{}", "[".repeat(1_000_000));
    assert!(Page::json("foo", deep).check().is_err());
    let deep = format!(
        "{{\"files\":[{{\"filename\":{}",
        "{\"a\":".repeat(1_000_000)
    );
    assert!(Page::json("foo", deep).check().is_err());
    let deep = format!("<title>Links for foo</title>{}", "<b>".repeat(1_000_000));
    let page = Page::html("foo", deep);
    assert_eq!(page.check().is_err(), page.try_derive(HTML).is_err());
}

#[test]
fn pages_of_too_many_entries_are_refused() {
    let body = format!(
        "{{\"projects\":[{}{{\"name\":\"a\"}}]}}",
        "{\"name\":\"a\"},".repeat(1_000_000)
    );
    assert!(
        Page::json("", body)
            .check()
            .unwrap_err()
            .0
            .contains("more than 1000000 entries")
    );
    assert!(
        Page::html("", "<a href=a>a</a>".repeat(1_000_001))
            .check()
            .unwrap_err()
            .0
            .contains("more than")
    );
}

/// Each is written out in full in HTML, where a list of empty ones takes three bytes of JSON for each.
#[test]
fn hazard_x2_a_page_that_names_many_other_places_is_refused() {
    let many = |count: usize| vec!["\"\""; count].join(",");
    let tracks = |count| format!("{{\"meta\":{{\"tracks\":[{}]}},\"files\":[]}}", many(count));
    let elsewhere = |count| format!("{{\"alternate-locations\":[{}],\"files\":[]}}", many(count));
    for page in [&tracks as &dyn Fn(usize) -> String, &elsewhere] {
        let html = Page::json("foo", page(1000)).text(HTML);
        assert_eq!(html.matches("<meta name=\"pypi:").count(), 1001, "{html}");
        for count in [1001, 2_000_000] {
            let error = Page::json("foo", page(count)).check().unwrap_err().0;
            assert!(error.contains("more than 1000 other places"), "{error}");
        }
    }
    // Of another type they say nothing, as before.
    let page = Page::json("foo", "{\"alternate-locations\":[1],\"files\":[]}");
    assert!(page.check().is_ok());
}

/// A byte of a text can become six of a page, and a digest of metadata stands there twice.
#[test]
fn hazard_x4_texts_that_grow_when_they_are_written_have_a_budget() {
    let quotes = "\u{1}".repeat(4 << 20);
    let ampersands = "&".repeat(8 << 20);
    let file = |members: &str| {
        format!("{{\"files\":[{{\"filename\":\"foo-1.zip\",\"url\":\"foo-1.zip\",{members}}}]}}")
    };
    let reason = format!("{{\"files\":[],\"project-status\":{{\"reason\":\"{ampersands}\"}}}}");
    for body in [
        file(&format!(
            "\"core-metadata\":{{\"sha256\":\"{ampersands}\"}}"
        )),
        file(&format!("\"yanked\":\"{ampersands}\"")),
        reason,
    ] {
        let page = Page::json("foo", body);
        assert!(page.check().is_ok());
        let error = page.try_derive(HTML).unwrap_err().0;
        assert!(error.contains("what clients would get of it"), "{error}");
        assert!(page.try_derive(JSON).is_ok());
    }
    let anchor = format!("<a href=foo-1.zip data-yanked='{quotes}{quotes}'>foo-1.zip</a>");
    let page = Page::html("foo", anchor);
    let error = page.try_derive(JSON).unwrap_err().0;
    assert!(error.contains("what clients would get of it"), "{error}");
    // What grows little is served, however long it is.
    let long = "y".repeat(8 << 20);
    let page = Page::json("foo", file(&format!("\"yanked\":\"{long}\"")));
    assert!(page.text(HTML).contains(&long));
}

#[test]
fn there_are_no_other_forms() {
    assert!(
        Page::json("foo", "{\"files\":[]}")
            .try_derive("packument")
            .is_err()
    );
}

#[test]
fn html_that_is_not_utf8_is_read_as_far_as_it_goes() {
    let page = Page::html(
        "foo",
        b"<title>Links for f\xff</title><a href='https://files.example.com/foo-1.zip' data-yanked='\xe9'>foo-1.zip</a>",
    );
    assert!(page.text(HTML).contains("data-yanked=\"\u{fffd}\""));
}

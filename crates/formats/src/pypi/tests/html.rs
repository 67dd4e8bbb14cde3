//! HTML upstreams.

use serde_json::json;

use super::super::negotiate::{HTML, JSON};
use super::super::test_support::Page;

const WAREHOUSE: &str = include_str!("../testdata/warehouse.html");

fn devpi() -> Page {
    let root = "https://devpi.example.com/root/dev/";
    Page::html("sample-project", include_str!("../testdata/devpi.html")).at(
        root,
        &format!("{root}+simple/"),
        &format!("{root}+simple/sample-project/"),
    )
}

fn nexus() -> Page {
    let root = "https://nexus.example.com/repository/py/";
    Page::html("sample-project", include_str!("../testdata/nexus.html")).at(
        root,
        &format!("{root}simple/"),
        &format!("{root}simple/sample-project/"),
    )
}

#[test]
fn checklist_6_fragments_and_attributes_are_unchanged() {
    let html = Page::html("sample-project", WAREHOUSE).text(HTML);
    let expected = "<a href=\"/api/v1/remote/py/packages/aa/bb/ccdd/sample_project-2.0-py2.py3-none-any.whl#sha256=60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752\" \
        data-requires-python=\"&gt;=2.7, !=3.0.*, &lt;4\" \
        data-dist-info-metadata=\"sha256=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\" \
        data-core-metadata=\"sha256=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\" \
        data-yanked=\"broken &lt;metadata&gt; &amp; &quot;quotes&quot;\" \
        data-provenance=\"https://index.example.com/integrity/sample-project/2.0/sample_project-2.0-py2.py3-none-any.whl/provenance\">\
        sample_project-2.0-py2.py3-none-any.whl</a>";
    assert!(html.contains(expected), "{html}");
    assert!(html.contains(
        "sample_project-2.1.tar.gz#sha256=d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35\" data-yanked=\"\">"
    ));
    assert!(html.contains("<meta name=\"pypi:repository-version\" content=\"1.4\">"));
    assert!(html.contains("<meta name=\"pypi:project-status\" content=\"active\">"));
    assert_eq!(html.matches("<a ").count(), 3);
    assert!(!html.contains("files.example.com"));
}

#[test]
fn json_of_html_claims_no_more_than_html_tells() {
    let page = Page::html("sample-project", WAREHOUSE).value();
    assert_eq!(page["meta"], json!({"api-version": "1.0"}));
    assert_eq!(page["name"], json!("sample-project"));
    assert_eq!(page["project-status"], json!({"status": "active"}));
    assert!(page.get("versions").is_none());
    assert_eq!(
        page["files"][1],
        json!({
            "filename": "sample_project-2.0-py2.py3-none-any.whl",
            "url": "/api/v1/remote/py/packages/aa/bb/ccdd/sample_project-2.0-py2.py3-none-any.whl",
            "hashes": {"sha256": "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752"},
            "requires-python": ">=2.7, !=3.0.*, <4",
            "core-metadata": {"sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
            "yanked": "broken <metadata> & \"quotes\"",
            "provenance": "https://index.example.com/integrity/sample-project/2.0/sample_project-2.0-py2.py3-none-any.whl/provenance",
        })
    );
    // Checklist 9: an empty reason becomes a plain yes.
    assert_eq!(page["files"][2]["yanked"], json!(true));
    assert_eq!(page["files"].as_array().unwrap().len(), 3);
}

#[test]
fn named_references_mean_what_they_mean_to_browsers() {
    let page = Page::html(
        "foo",
        "<title>Links for foo</title><a href='https://files.example.com/foo-1.zip' data-yanked='l&uuml;ckenhaft &ndash; &unknown;'>x</a>",
    );
    assert_eq!(
        page.value()["files"][0]["yanked"],
        json!("l\u{fc}ckenhaft \u{2013} &unknown;")
    );
    let html = page.text(HTML);
    assert!(
        html.contains("data-yanked=\"l\u{fc}ckenhaft \u{2013} &amp;unknown;\""),
        "{html}"
    );
}

#[test]
fn relative_links_of_devpi_and_nexus_are_resolved_against_the_page() {
    let html = devpi().text(HTML);
    assert!(html.contains("<a href=\"/api/v1/remote/py/+f/9f8/6d081884c7d65/sample_project-1.0-py3-none-any.whl#sha256=9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" data-requires-python=\"&gt;=3.8\">sample_project-1.0-py3-none-any.whl</a>"), "{html}");
    assert!(html.contains(
        "sample_project-0.9.tar.gz#md5=d41d8cd98f00b204e9800998ecf8427e&amp;egg=sample\">"
    ));
    let devpi = devpi().value();
    // A fragment that says more than digests is kept beside `hashes`.
    assert_eq!(
        devpi["files"][1]["url"],
        json!(
            "/api/v1/remote/py/+f/603/03ae22b998861/sample_project-0.9.tar.gz#md5=d41d8cd98f00b204e9800998ecf8427e&egg=sample"
        )
    );
    assert_eq!(
        devpi["files"][1]["hashes"],
        json!({"md5": "d41d8cd98f00b204e9800998ecf8427e"})
    );

    let html = nexus().text(HTML);
    assert!(html.contains("<a href=\"/api/v1/remote/py/packages/sample-project/1.0/sample_project-1.0-py3-none-any.whl#sha256=9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" rel=\"internal\" data-requires-python=\"&gt;=3.9\">"), "{html}");
}

#[test]
fn host_relative_links_and_local_versions_survive() {
    let page = Page::html(
        "sample-project",
        include_str!("../testdata/pypiserver.html"),
    )
    .at(
        "https://pypi.example.com/",
        "https://pypi.example.com/simple/",
        "https://pypi.example.com/simple/sample-project/",
    );
    assert!(page.text(HTML).contains("<a href=\"/api/v1/remote/py/packages/sample_project-1.0.zip#md5=0cc175b9c0f1b6a831c399e269772661\">sample_project-1.0.zip</a>"));

    let page = Page::html("torch", include_str!("../testdata/wheelhouse.html")).at(
        "https://wheels.example.com/",
        "https://wheels.example.com/whl/cpu/",
        "https://wheels.example.com/whl/cpu/torch/",
    );
    let html = page.text(HTML);
    assert!(html.contains("href=\"/api/v1/remote/py/whl/cpu/torch-2.4.0%2Bcpu-cp312-cp312-linux_x86_64.whl#sha256="), "{html}");
    assert!(html.contains(">torch-2.4.0+cpu-cp312-cp312-linux_x86_64.whl</a>"));
    assert_eq!(
        page.value()["files"][0]["filename"],
        json!("torch-2.4.0+cpu-cp312-cp312-linux_x86_64.whl")
    );
}

#[test]
fn a_base_is_followed_and_removed() {
    let page = Page::html(
        "foo",
        "<title>Links for foo</title><base href='https://files.example.com/deep/'><a href=foo-1.zip>foo-1.zip</a>",
    );
    let html = page.text(HTML);
    assert!(
        html.contains("<a href=\"/api/v1/remote/py/deep/foo-1.zip\">"),
        "{html}"
    );
    assert!(!html.contains("<base"));
}

#[test]
fn checklist_13_no_foreign_base_or_scheme_is_reachable() {
    let links = "<a href=foo-1.zip>foo-1.zip</a><a href='/foo-2.zip'>2</a><a href='javascript:alert(1)//foo-3.zip'>3</a>\
        <a href='file:///srv/foo-4.zip'>4</a><a href='https://evil.example.net/foo-5.zip'>5</a><a href='java&#10;script&colon;alert(1)'>6</a>";
    for base in [
        "https://evil.example.net/",
        "file:///srv/",
        "javascript:alert(1)//",
    ] {
        let page = Page::html(
            "foo",
            format!("<title>Links for foo</title><base href=\"{base}\">{links}"),
        );
        let html = page.text(HTML);
        assert!(!html.contains("<a "), "{base}: {html}");
        assert_eq!(page.value()["files"], json!([]));
        assert!(page.claims().is_empty());
    }
}

#[test]
fn checklist_12_html_lists_stay_inside() {
    let page = Page::html("", include_str!("../testdata/list.html"));
    let html = page.text(HTML);
    for link in [
        "<a href=\"/api/v1/remote/py/simple/0/\">0</a>",
        "<a href=\"/api/v1/remote/py/simple/zope-interface/\">Zope.Interface</a>",
        "<a href=\"/api/v1/remote/py/simple/requests/\">requests</a>",
        "<a href=\"/api/v1/remote/py/simple/odd-name/\">odd_name</a>",
    ] {
        assert!(html.contains(link), "{link}: {html}");
    }
    assert_eq!(html.matches("<a ").count(), 4);
    assert_eq!(
        page.value()["projects"],
        json!([{"name": "0"}, {"name": "Zope.Interface"}, {"name": "requests"}, {"name": "odd_name"}])
    );
    assert_eq!(page.value()["meta"], json!({"api-version": "1.0"}));
}

#[test]
fn an_empty_project_is_legal_where_the_page_says_what_it_is() {
    for html in [
        "<!DOCTYPE html><html><head><title>Links for foo</title></head><body><h1>Links for foo</h1></body></html>",
        "<!DOCTYPE html><html><head><meta name=\"pypi:repository-version\" content=\"1.0\"></head><body></body></html>",
    ] {
        let page = Page::html("foo", html);
        assert_eq!(page.value()["files"], json!([]));
        assert!(!page.text(HTML).contains("<a "));
    }
}

#[test]
fn checklist_1_the_two_forms_name_the_same_files() {
    for page in [
        Page::html("sample-project", WAREHOUSE),
        devpi(),
        nexus(),
        Page::json("sample-project", include_str!("../testdata/warehouse.json")),
    ] {
        let (json, html) = (page.derive(JSON), page.text(HTML));
        let value: serde_json::Value = serde_json::from_slice(&json.body).unwrap();
        let files = value["files"].as_array().unwrap();
        assert!(!files.is_empty());
        for file in files {
            assert!(
                html.contains(&format!("\">{}</a>", file["filename"].as_str().unwrap())),
                "{file}"
            );
        }
        assert_eq!(html.matches("<a ").count(), files.len());
    }
}

#[test]
fn a_page_is_read_in_the_charset_that_its_content_type_names() {
    let page = |content_type, reason: &[u8]| {
        let head = b"<title>Links for foo</title><a href=foo-1.zip data-yanked='caf".as_slice();
        Page::new(
            "foo",
            content_type,
            [head, reason, b"'>foo-1.zip</a>"].concat(),
        )
    };
    for (content_type, reason, shown) in [
        (
            "text/html; charset=ISO-8859-1",
            b"\xe9".as_slice(),
            "caf\u{e9}",
        ),
        ("Text/HTML;x=y; Charset=\"latin1\"", b"\xe9", "caf\u{e9}"),
        ("text/html; charset=windows-1252", b"\x80", "caf\u{20ac}"),
        ("text/html; charset=utf-8", "\u{e9}".as_bytes(), "caf\u{e9}"),
        ("text/html", "\u{e9}".as_bytes(), "caf\u{e9}"),
        (
            "text/html; charset=nobody-knows",
            "\u{e9}".as_bytes(),
            "caf\u{e9}",
        ),
        ("text/html", b"\xe9", "caf\u{fffd}"),
    ] {
        let page = page(content_type, reason);
        let html = page.text(HTML);
        assert!(
            html.contains(&format!("data-yanked=\"{shown}\"")),
            "{content_type}: {html}"
        );
        assert_eq!(page.value()["files"][0]["yanked"], json!(shown));
    }
}

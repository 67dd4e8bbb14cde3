//! JSON upstreams.

use serde_json::{Value, json};

use super::super::negotiate::{HTML, JSON, V1_HTML};
use super::super::test_support::{BASE, Page};

const WAREHOUSE: &str = include_str!("../testdata/warehouse.json");

/// One file of a small page.
fn file(name: &str, url: &str) -> String {
    format!("{{\"filename\":\"{name}\",\"url\":\"{url}\",\"hashes\":{{}}}}")
}

fn page_of(files: &str) -> Page {
    Page::json(
        "foo",
        format!("{{\"meta\":{{\"api-version\":\"1.0\"}},\"name\":\"foo\",\"files\":[{files}]}}"),
    )
}

fn file_names(page: &Page) -> Vec<String> {
    page.value()["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["filename"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn checklist_19_json_is_the_upstreams_text_but_for_the_links() {
    let derived = Page::json("sample-project", WAREHOUSE).derive(JSON);
    assert_eq!(derived.content_type, "application/vnd.pypi.simple.v1+json");
    // Provenance stands on the index host, so this changes files' links and nothing else.
    let expected = WAREHOUSE.replace("https://files.example.com/", BASE);
    assert_ne!(expected, WAREHOUSE);
    assert_eq!(String::from_utf8(derived.body).unwrap(), expected);
}

#[test]
fn checklist_19_unknown_keys_nulls_and_later_versions_pass() {
    let body = "{ \"meta\" : {\"api-version\":\"1.9\"}, \"files\":[ {\"url\":\"https:\\/\\/files.example.com\\/f-1.zip#a\\\"b\" , \
        \"filename\" : \"f-1.zip\",\"hashes\":{},\"new\":[1e400,-0.0,{}],\"provenance\":null} ]\n,\"more\": \"\\ud800\" }";
    let expected = body.replace("https:\\/\\/files.example.com\\/", BASE);
    assert_eq!(Page::json("f", body).text(JSON), expected);
}

#[test]
fn checklist_9_an_empty_reason_is_still_a_yank() {
    let yanked = |value: &str| {
        format!(
            "{{\"yanked\":{value},\"filename\":\"foo-1.zip\",\"url\":\"https://files.example.com/foo-1.zip\"}}"
        )
    };
    for (value, html, truth) in [
        ("\"\"", Some("data-yanked=\"\""), json!(true)),
        ("true", Some("data-yanked=\"\""), json!(true)),
        (
            "\"bad <b>\"",
            Some("data-yanked=\"bad &lt;b&gt;\""),
            json!("bad <b>"),
        ),
        ("false", None, json!(false)),
    ] {
        let page = page_of(&yanked(value));
        assert_eq!(page.value()["files"][0]["yanked"], truth, "{value}");
        match html {
            Some(mark) => assert!(page.text(HTML).contains(mark), "{value}"),
            None => assert!(!page.text(HTML).contains("yanked"), "{value}"),
        }
    }
    // The order of keys does not matter.
    let page = page_of(
        "{\"url\":\"https://files.example.com/foo-1.zip\",\"filename\":\"foo-1.zip\",\"yanked\":\"\"}",
    );
    assert_eq!(page.value()["files"][0]["yanked"], json!(true));
    assert_eq!(
        page.value()["files"][0]["url"],
        json!(format!("{BASE}foo-1.zip"))
    );
}

#[test]
fn checklist_6_html_of_json_has_every_attribute() {
    let page = Page::json("sample-project", WAREHOUSE);
    let html = page.text(HTML);
    assert_eq!(page.derive(HTML).content_type, "text/html");
    assert_eq!(
        page.derive(V1_HTML).content_type,
        "application/vnd.pypi.simple.v1+html"
    );
    let second = "<a href=\"/api/v1/remote/py/packages/d0/32/a277f2ee09894ea93bfa811f237b49c45579d82e48948e0e46e332867ceb/\
        sample_project-2.0-py2.py3-none-any.whl#sha256=bc29beebd0c457ebdc48f1ef9896ea437b9ca14e6a90e6afa2c780c92fe42c30\" \
        data-requires-python=\"&gt;=2.7, !=3.0.*, &lt;4\" data-yanked=\"broken &lt;metadata&gt; &amp; &quot;quotes&quot;\" \
        data-core-metadata=\"sha256=29c1b289e7522195b362e44f54e05470b69ad20540ab60a18a05e5bf6951f13d\" \
        data-dist-info-metadata=\"sha256=29c1b289e7522195b362e44f54e05470b69ad20540ab60a18a05e5bf6951f13d\">\
        sample_project-2.0-py2.py3-none-any.whl</a>";
    assert!(html.contains(second), "{html}");
    let fourth = "sample_project-3.0%2Blocal.1-py3-none-any.whl#sha256=6cb3f4ed59f9c2beeb50f98cd6f7f0528f05d87c94a0296807b25286e9101262\" \
        data-requires-python=\"&gt;=3.8\" data-core-metadata=\"true\" data-dist-info-metadata=\"true\" data-gpg-sig=\"true\" \
        data-provenance=\"https://index.example.com/integrity/sample-project/3.0/sample_project-3.0-py3-none-any.whl/provenance\">\
        sample_project-3.0+local.1-py3-none-any.whl</a>";
    assert!(html.contains(fourth), "{html}");
    for meta in [
        "<meta name=\"pypi:repository-version\" content=\"1.4\">",
        "<meta name=\"pypi:project-status\" content=\"active\">",
        "<meta name=\"pypi:tracks\" content=\"https://upstream.example.org/simple/sample-project/\">",
        "<meta name=\"pypi:alternate-locations\" content=\"https://mirror.example.org/simple/sample-project/\">",
    ] {
        assert!(html.contains(meta), "{meta}");
    }
    assert_eq!(html.matches("<a ").count(), 4);
}

#[test]
fn the_best_digest_stands_in_the_fragment() {
    let html = |hashes: &str, url: &str| {
        page_of(&format!(
            "{{\"filename\":\"foo-1.zip\",\"url\":\"{url}\",\"hashes\":{hashes}}}"
        ))
        .text(HTML)
    };
    let url = "https://files.example.com/foo-1.zip";
    assert!(
        html(
            "{\"md5\":\"00\",\"sha256\":\"11\",\"blake2b_256\":\"22\"}",
            url
        )
        .contains("foo-1.zip#sha256=11\"")
    );
    assert!(html("{\"md5\":\"00\"}", url).contains("foo-1.zip#md5=00\""));
    assert!(html("{}", url).contains("foo-1.zip\">"));
    assert!(html("{\"sha256\":\"x\\\"y\"}", url).contains("foo-1.zip\">"));
    assert!(
        html("{\"sha256\":\"11\"}", &format!("{url}#egg=foo"))
            .contains("foo-1.zip#egg=foo&amp;sha256=11\"")
    );
    let md5 = "d41d8cd98f00b204e9800998ecf8427e";
    assert!(
        html("{\"sha256\":\"11\"}", &format!("{url}#md5={md5}"))
            .contains(&format!("foo-1.zip#md5={md5}\""))
    );
}

#[test]
fn former_names_of_core_metadata_count() {
    for key in [
        "core-metadata",
        "dist-info-metadata",
        "data-dist-info-metadata",
    ] {
        let page = page_of(&format!(
            "{{\"filename\":\"foo-1.zip\",\"url\":\"https://files.example.com/foo-1.zip\",\"{key}\":{{\"sha256\":\"ab\"}}}}"
        ));
        assert!(
            page.text(HTML).contains("data-core-metadata=\"sha256=ab\""),
            "{key}"
        );
    }
    let page = page_of(
        "{\"data-dist-info-metadata\":false,\"filename\":\"foo-1.zip\",\"core-metadata\":true,\"dist-info-metadata\":false,\"url\":\"https://files.example.com/foo-1.zip\"}",
    );
    assert!(page.text(HTML).contains("data-core-metadata=\"true\""));
}

#[test]
fn checklist_14_links_that_may_not_be_carried_take_their_entry_with_them() {
    let good = |n: u8| {
        file(
            &format!("foo-{n}.zip"),
            &format!("https://files.example.com/foo-{n}.zip"),
        )
    };
    let bad = |n: u8| {
        file(
            &format!("foo-{n}.zip"),
            &format!("https://evil.example.net/foo-{n}.zip"),
        )
    };
    for pattern in 0_u8..32 {
        let files: Vec<_> = (0..5)
            .map(|n| {
                if pattern >> n & 1 == 1 {
                    good(n)
                } else {
                    bad(n)
                }
            })
            .collect();
        let kept: Vec<_> = (0..5)
            .filter(|n| pattern >> n & 1 == 1)
            .map(|n| format!("foo-{n}.zip"))
            .collect();
        for separator in [",", " ,\n  "] {
            let page = page_of(&files.join(separator));
            assert_eq!(file_names(&page), kept, "{pattern:05b}");
            let text = page.text(JSON);
            assert!(!text.contains("evil"), "{text}");
            assert_eq!(page.text(HTML).matches("<a ").count(), kept.len());
        }
    }
}

#[test]
fn hosts_that_may_be_linked_are_signed() {
    let page = page_of(&file("foo-1.zip", "https://cdn.example.net/d/foo-1.zip"));
    let url = page.value()["files"][0]["url"].as_str().unwrap().to_owned();
    assert!(
        url.starts_with("/api/v1/remote/py/_ext/") && url.ends_with("/cdn.example.net/d/foo-1.zip"),
        "{url}"
    );
}

#[test]
fn entries_whose_name_and_link_disagree_are_left_out() {
    for (name, url) in [
        ("foo-1.zip", "https://files.example.com/foo-2.zip"),
        ("a/foo-1.zip", "https://files.example.com/a/foo-1.zip"),
        (".foo-1.zip", "https://files.example.com/.foo-1.zip"),
        ("foo-1.zip", "https://files.example.com/foo-1.zip/"),
        (
            "requests-9.0-py3-none-any.whl",
            "https://files.example.com/requests-9.0-py3-none-any.whl",
        ),
    ] {
        assert!(
            file_names(&page_of(&file(name, url))).is_empty(),
            "{name} {url}"
        );
    }
    let escaped = file("foo-1+x.zip", "https://files.example.com/foo-1%2Bx.zip");
    assert_eq!(file_names(&page_of(&escaped)), ["foo-1+x.zip"]);
}

#[test]
fn checklist_26_a_quarantined_project_shows_no_files() {
    let page = Page::json(
        "foo",
        "{\"meta\":{\"api-version\":\"1.4\"},\"name\":\"foo\",\"project-status\":{\"status\":\"quarantined\",\"reason\":\"mal<ware\"},\"files\":[],\"versions\":[]}",
    );
    assert_eq!(
        page.value()["project-status"]["status"],
        json!("quarantined")
    );
    let html = page.text(HTML);
    assert!(html.contains("<meta name=\"pypi:project-status\" content=\"quarantined\">"));
    assert!(html.contains("<meta name=\"pypi:project-status-reason\" content=\"mal&lt;ware\">"));
    assert!(!html.contains("<a "));
}

/// Whatever the upstream still lists, in either syntax, and wherever it says so.
#[test]
fn checklist_26_what_a_quarantined_project_still_lists_is_withheld() {
    let files = [
        file("foo-1.0.zip", "https://files.example.com/foo-1.0.zip"),
        file("foo-1.1.zip", "https://files.example.com/foo-1.1.zip"),
    ]
    .join(", ");
    let status = "\"project-status\":{\"status\":\"quarantined\"}";
    let html = |head: &str, foot: &str| {
        format!(
            "<html><head><title>Links for foo</title>{head}</head><body><a href=\"https://files.example.com/foo-1.0.zip\">x</a>{foot}</body></html>"
        )
    };
    let meta = "<meta name=\"pypi:project-status\" content=\"quarantined\">";
    for page in [
        Page::json(
            "foo",
            format!("{{{status},\"files\":[{files}],\"more\":[1]}}"),
        ),
        Page::json(
            "foo",
            format!("{{\"files\":[{files}],\"more\":[1],{status}}}"),
        ),
        Page::html("foo", html(meta, "")),
        Page::html("foo", html("", meta)),
    ] {
        assert!(file_names(&page).is_empty(), "{page:?}");
        assert_eq!(
            page.value()["project-status"],
            json!({"status": "quarantined"})
        );
        assert!(!page.text(HTML).contains("<a "), "{page:?}");
        assert!(page.claims().is_empty(), "{page:?}");
        if page.content_type.contains("json") {
            assert_eq!(page.value()["more"], json!([1]));
        }
    }
    let archived = status.replace("quarantined", "archived");
    let page = Page::json("foo", format!("{{{archived},\"files\":[{files}]}}"));
    assert_eq!((file_names(&page).len(), page.claims().len()), (2, 2));
}

#[test]
fn checklist_12_the_project_list_stays_inside() {
    let list = include_str!("../testdata/list.json");
    let page = Page::json("", list);
    assert_eq!(page.text(JSON), list);
    let html = page.text(HTML);
    assert!(html.contains("<a href=\"/api/v1/remote/py/simple/0/\">0</a>"));
    assert!(
        html.contains("<a href=\"/api/v1/remote/py/simple/zope-interface/\">Zope.Interface</a>")
    );
    assert_eq!(
        html.matches("<a ").count(),
        2,
        "a name outside the grammar is no link: {html}"
    );
}

#[test]
fn links_are_read_relative_to_the_final_url() {
    let page = Page::json(
        "foo",
        format!(
            "{{\"files\":[{}]}}",
            file("foo-1.zip", "../../files/foo-1.zip")
        ),
    );
    let page = page.at(
        "https://host.example.com/pypi/",
        "https://host.example.com/pypi/simple/",
        "https://host.example.com/pypi/simple/foo/",
    );
    assert_eq!(
        page.value()["files"][0]["url"],
        Value::from("/api/v1/remote/py/files/foo-1.zip")
    );
}

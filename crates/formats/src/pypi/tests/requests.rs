//! What requests ask for.

use http::Method;
use larder_core::BuiltIn;

use super::super::Pypi;
use super::super::test_support::{ask, ask_of, repository, two_hosts};
use crate::{DocumentFormat as _, Form, Format as _, Operation, Read, SourceBase};

fn read(path: &str, accept: Option<&str>) -> Read {
    match ask(&Method::GET, path, None, accept) {
        Operation::Read(read) => {
            let of_path = Pypi.facts(&two_hosts(), &read.source.key_path);
            assert_eq!(read.facts, of_path, "{path}");
            read
        }
        other => panic!("{path}: {other:?}"),
    }
}

fn status(operation: Operation) -> u16 {
    match operation {
        Operation::Refuse(refusal) => refusal.status,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn checklist_1_and_2_forms_share_one_source() {
    let json = read(
        "simple/foo-bar/",
        Some("application/vnd.pypi.simple.v1+json"),
    );
    let latest = read(
        "simple/foo-bar/",
        Some("application/vnd.pypi.simple.latest+json"),
    );
    let html = read("simple/foo-bar/", None);
    assert_eq!(json.form, Form::Derived("simple+json"));
    assert_eq!(latest.form, Form::Derived("simple+json"));
    assert_eq!(html.form, Form::Derived("simple+html"));
    assert_eq!(json.source, html.source);
    assert!(json.source.is_document && json.source.variant.is_empty());
    assert!(
        json.source
            .accept
            .is_some_and(|accept| accept.starts_with("application/vnd.pypi.simple.v1+json,"))
    );
    assert_eq!(Pypi.facts(&two_hosts(), "simple/foo-bar/").vary, ["accept"]);
    assert!(
        Pypi.facts(&two_hosts(), "packages/x-1.0.whl")
            .vary
            .is_empty()
    );
}

#[test]
fn checklist_3_pages_come_from_the_index_and_files_from_base_url() {
    let page = read("simple/foo-bar/", None).source;
    assert_eq!(
        (page.base, page.path.as_str(), page.key_path.as_str()),
        (SourceBase::Index, "simple/foo-bar/", "simple/foo-bar/")
    );
    let list = read("simple/", None).source;
    assert_eq!(
        (list.base, list.path.as_str(), list.is_document),
        (SourceBase::Index, "simple/", true)
    );
    let file = read("packages/aa/x-1.0.tar.gz", None);
    assert_eq!(
        (&file.source.base, file.source.is_document, file.form),
        (&SourceBase::Files, false, Form::Verbatim)
    );
    let provenance = read("integrity/foo/1.0/foo-1.0.tar.gz/provenance", None);
    assert_eq!(
        (provenance.source.base, provenance.form),
        (SourceBase::Index, Form::Verbatim)
    );
    for api in ["pypi/foo/json", "pypi/foo/1.0/json"] {
        assert_eq!(read(api, None).source.base, SourceBase::Index);
        assert_eq!(Pypi.facts(&two_hosts(), api).built_in, BuiltIn::Mutable);
    }
}

#[test]
fn the_simple_root_may_have_another_name() {
    for (index_url, path) in [
        (
            "https://devpi.example.com/root/dev/+simple/",
            "+simple/foo/",
        ),
        (
            "https://host.example.com/api/packages/me/pypi/simple/",
            "simple/foo/",
        ),
        ("https://host.example.com/my%20index/", "my%20index/foo/"),
        ("https://host.example.com/", "foo/"),
    ] {
        let repository = repository("https://host.example.com/", index_url);
        let Operation::Read(read) = ask_of(&repository, &Method::GET, "simple/foo/", None, None)
        else {
            panic!()
        };
        assert_eq!(
            (read.source.path.as_str(), read.source.key_path.as_str()),
            (path, "simple/foo/"),
            "{index_url}"
        );
    }
}

#[test]
fn checklist_4_other_spellings_are_redirected_with_their_query() {
    for (path, query, location) in [
        ("simple/Foo.Bar", None, "simple/foo-bar/"),
        (
            "simple/Foo_Bar/",
            Some("format=text%2Fhtml"),
            "simple/foo-bar/?format=text%2Fhtml",
        ),
        ("simple/foo-bar", Some("a=1"), "simple/foo-bar/?a=1"),
        ("simple/foo--bar/", None, "simple/foo-bar/"),
        ("simple", None, "simple/"),
        ("simple/index.html", None, "simple/"),
        ("simple/Foo/index.html", None, "simple/foo/"),
    ] {
        assert_eq!(
            ask(&Method::GET, path, query, None),
            Operation::Redirect(location.to_owned()),
            "{path}"
        );
    }
}

#[test]
fn names_outside_the_grammar_are_bad_requests() {
    for path in [
        "simple/-foo/",
        "simple/foo-/",
        "simple/foo%20bar/",
        "simple/f%C3%B6%C3%B6/",
        "simple/a~b",
        "simple/..a/",
    ] {
        assert_eq!(status(ask(&Method::GET, path, None, None)), 400, "{path}");
    }
}

#[test]
fn only_reading_is_offered() {
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
        for path in ["", "legacy/", "simple/foo/", "packages/x.whl"] {
            assert_eq!(
                status(ask(&method, path, None, None)),
                405,
                "{method} {path}"
            );
        }
    }
    assert_eq!(
        ask(&Method::HEAD, "simple/foo/", None, None),
        ask(&Method::GET, "simple/foo/", None, None)
    );
}

#[test]
fn checklist_15_plus_and_its_escape_are_one_key_and_go_upstream_escaped() {
    let plain = read("whl/torch-2.4.0+cu121-cp312-cp312-linux_x86_64.whl", None).source;
    let escaped = read("whl/torch-2.4.0%2Bcu121-cp312-cp312-linux_x86_64.whl", None).source;
    assert_eq!(plain.key_path, escaped.key_path);
    for source in [&plain, &escaped] {
        assert_eq!(
            source.path,
            "whl/torch-2.4.0%2Bcu121-cp312-cp312-linux_x86_64.whl"
        );
    }
}

#[test]
fn queries_do_not_travel() {
    let Operation::Read(read) = ask(&Method::GET, "packages/x-1.0.whl", Some("a=1"), None) else {
        panic!()
    };
    assert_eq!(read.source.query, None);
}

#[test]
fn pages_are_mutable_and_files_are_not() {
    let repository = two_hosts();
    for path in [
        "simple/",
        "simple/foo/",
        "integrity/foo/1.0/foo-1.0.tar.gz/provenance",
    ] {
        assert_eq!(
            Pypi.facts(&repository, path).built_in,
            BuiltIn::Mutable,
            "{path}"
        );
    }
    for path in [
        "packages/foo-1.0.whl",
        "foo-1.0.whl.metadata",
        "simple/foo/foo-1.0.whl",
        "simple/foo/foo-1.0.whl.metadata",
        "simpleton/x",
        "",
    ] {
        assert_eq!(
            Pypi.facts(&repository, path).built_in,
            BuiltIn::None,
            "{path}"
        );
    }
}

#[test]
fn sidecars_follow_their_files() {
    let subject = |path: &'static str| Pypi.facts(&two_hosts(), path).subject(path);
    assert_eq!(
        subject("packages/foo-1.0-py3-none-any.whl.metadata"),
        Some("packages/foo-1.0-py3-none-any.whl")
    );
    assert_eq!(
        subject("packages/foo-1.0.tar.gz.asc"),
        Some("packages/foo-1.0.tar.gz")
    );
    assert_eq!(subject("packages/foo-1.0.tar.gz"), None);
    assert_eq!(subject("simple/foo.whl.asc/"), None);
}

#[test]
fn files_are_named_by_their_projects_page() {
    let repository = two_hosts();
    let page = read("simple/foo-bar/", None).source;
    for path in [
        "packages/aa/Foo_Bar-1.0-py3-none-any.whl",
        "packages/aa/foo.bar-1.0.tar.gz",
        "Foo_Bar-1.0-py3-none-any.whl.metadata",
        "_ext/mac/host/foo_bar-1.0.zip",
    ] {
        assert_eq!(
            crate::testing::named_by(&Pypi, &repository, path).as_ref(),
            Some(&page),
            "{path}"
        );
    }
    for path in [
        "simple/foo-bar/",
        "simple/",
        "integrity/foo/1.0/foo-1.0.tar.gz",
        "packages/readme.txt",
        "",
    ] {
        assert_eq!(
            crate::testing::named_by(&Pypi, &repository, path),
            None,
            "{path}"
        );
    }
}

#[test]
fn a_name_with_several_dashes_may_be_named_by_several_pages() {
    let pages = |file: &str| {
        let naming = Pypi.naming(&two_hosts(), file);
        let paths = |specs: Vec<crate::SourceSpec>| -> Vec<_> {
            specs.into_iter().map(|spec| spec.key_path).collect()
        };
        (
            naming.document.map(|spec| spec.key_path),
            paths(naming.otherwise),
            paths(naming.possible),
        )
    };
    let page = |project: &str| format!("simple/{project}/");
    assert_eq!(
        pages("packages/Foo_Bar-2-1.0.tar.gz.asc"),
        (
            Some(page("foo-bar-2")),
            vec![page("foo-bar")],
            vec![page("foo-bar")]
        )
    );
    assert_eq!(
        pages("foo-bar-1.0.tar.gz"),
        (Some(page("foo-bar")), vec![], vec![page("foo")])
    );
    assert_eq!(
        pages("foo_bar-1.0-1-py3-none-any.whl"),
        (Some(page("foo-bar")), vec![], vec![])
    );
}

/// Some servers keep files beside the folders of their projects, and link to them as `../demo-1.0.tar.gz`.
#[test]
fn what_ends_as_files_do_is_a_file_directly_below_simple_too() {
    let page = read("simple/foo-bar/", None).source;
    for path in [
        "simple/foo_bar-1.0-py3-none-any.whl",
        "simple/Foo.Bar-1.0.tar.gz",
        "simple/foo_bar-1.0-py3-none-any.whl.metadata",
        "simple/foo_bar-1.0.zip.asc",
    ] {
        let file = read(path, None);
        assert_eq!(
            (file.source.base, file.source.path.as_str(), file.form),
            (SourceBase::Files, path, Form::Verbatim)
        );
        assert_eq!(file.facts.built_in, BuiltIn::None, "{path}");
        assert_eq!(
            crate::testing::named_by(&Pypi, &two_hosts(), path).as_ref(),
            Some(&page),
            "{path}"
        );
    }
    // With a slash it is a project, whatever it is called.
    assert_eq!(
        ask(&Method::GET, "simple/zip.zip/", None, None),
        Operation::Redirect("simple/zip-zip/".to_owned())
    );
}

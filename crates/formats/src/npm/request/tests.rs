use http::HeaderMap;
use http::header::ACCEPT;
use larder_core::{ArtifactPath, PathRules};

use super::super::Npm;
use super::super::fixture::{ROOT, remote};
use super::*;
use crate::Format as _;

fn ask_with(method: &Method, path: &str, query: Option<&str>, accept: Option<&str>) -> Operation {
    let repository = remote(ROOT);
    let path = ArtifactPath::parse(
        path,
        PathRules {
            encoded_scope_slash: true,
        },
    )
    .unwrap();
    let mut headers = HeaderMap::new();
    if let Some(accept) = accept {
        headers.insert(ACCEPT, accept.parse().unwrap());
    }
    operation(&RequestParts {
        repository: &repository,
        method,
        path: &path,
        query,
        headers: &headers,
        key: &crate::LinkKey::from_bytes([7; 32]),
    })
}

fn ask(path: &str) -> Operation {
    ask_with(&Method::GET, path, None, None)
}

#[track_caller]
fn read(operation: Operation) -> Read {
    match operation {
        Operation::Read(read) => {
            let of_path = Npm.facts(&remote(ROOT), &read.source.key_path);
            assert_eq!(read.facts, of_path, "{}", read.source.key_path);
            read
        }
        other => panic!("no read: {other:?}"),
    }
}

#[track_caller]
fn refused(operation: Operation) -> u16 {
    match operation {
        Operation::Refuse(refusal) => refusal.status,
        other => panic!("not refused: {other:?}"),
    }
}

const INSTALL: &str = "application/vnd.npm.install-v1+json; q=1.0, application/json; q=0.8, */*";

#[test]
fn npm_2_all_spellings_of_a_scope_are_one_source() {
    let expected = read(ask("@babel/core"));
    assert_eq!(expected.source.key_path, "@babel/core");
    assert_eq!(expected.source.path, "@babel%2fcore");
    for path in [
        "@babel%2fcore",
        "@babel%2Fcore",
        "%40babel%2fcore",
        "%40babel/core",
        "@babel/core/",
        "@b%61bel/core",
    ] {
        assert_eq!(read(ask(path)), expected, "{path}");
    }
    for rest in ["/latest", "/-/core-7.26.0.tgz"] {
        assert_eq!(
            read(ask(&format!("@babel%2fcore{rest}"))),
            read(ask(&format!("@babel/core{rest}")))
        );
    }
    assert_eq!(
        read(ask("-/package/@babel%2fcore/dist-tags")),
        read(ask("-/package/@babel/core/dist-tags"))
    );
    assert_eq!(
        read(ask("-/npm/v1/attestations/@babel%2fcore@7.26.0")),
        read(ask("-/npm/v1/attestations/@babel/core@7.26.0"))
    );
}

#[test]
fn npm_3_each_form_has_its_own_source() {
    let full = read(ask_with(&Method::GET, "x", None, Some("application/json")));
    let abbreviated = read(ask_with(&Method::GET, "x", None, Some(INSTALL)));
    assert_eq!(
        (full.source.variant, full.source.accept),
        ("full", Some("application/json"))
    );
    assert_eq!(
        (abbreviated.source.variant, abbreviated.source.accept),
        ("abbreviated", Some(INSTALL))
    );
    assert_eq!(full.source.key_path, abbreviated.source.key_path);
    assert_eq!(
        (full.form, abbreviated.form),
        (Form::Derived("packument"), Form::Derived("packument"))
    );
    assert!(full.source.is_document && abbreviated.source.is_document);
    assert_eq!(read(ask("x")), full);
    assert_eq!(
        read(ask_with(&Method::HEAD, "x", None, Some(INSTALL))),
        abbreviated
    );
}

#[test]
fn tarballs_are_plain_files_of_their_package() {
    let tarball = read(ask_with(
        &Method::GET,
        "@s/n/-/n-1.0.0.tgz",
        Some("cache=0"),
        Some(INSTALL),
    ));
    assert_eq!(
        tarball,
        Read {
            source: SourceSpec {
                base: SourceBase::Files,
                path: "@s/n/-/n-1.0.0.tgz".to_owned(),
                query: None,
                key_path: "@s/n/-/n-1.0.0.tgz".to_owned(),
                accept: None,
                variant: "",
                is_document: false,
            },
            facts: crate::PathFacts {
                naming: crate::Naming::Obtained,
                ..crate::PathFacts::default()
            },
            form: Form::Verbatim,
            bypass_cache: false,
        }
    );
    assert_eq!(refused(ask("n/-/m-1.0.0.tgz")), 404);
    assert_eq!(refused(ask("@s/n/-/s-1.0.0.tgz")), 404);
}

#[test]
fn npm_13_versions_and_tags_are_documents() {
    for (path, upstream) in [("n/1.0.0", "n/1.0.0"), ("@s/n/latest", "@s%2fn/latest")] {
        let manifest = read(ask(path));
        assert_eq!(
            (
                manifest.source.variant,
                manifest.source.path.as_str(),
                manifest.form
            ),
            ("version", upstream, Form::Derived("version"))
        );
        assert!(manifest.source.is_document);
    }
}

#[test]
fn npm_25_write_true_asks_for_the_live_document() {
    for query in ["write=true", "a=b&write=true"] {
        let live = read(ask_with(&Method::GET, "n", Some(query), None));
        assert!(live.bypass_cache);
        assert_eq!(
            live.source,
            read(ask("n")).source,
            "the key is that of the cached copy"
        );
    }
    for query in ["write=false", "write", "rewrite=true", "writes=true", ""] {
        assert!(
            !read(ask_with(&Method::GET, "n", Some(query), None)).bypass_cache,
            "{query}"
        );
    }
}

#[test]
fn search_passes_on_only_what_npm_names() {
    let query = |raw| {
        read(ask_with(&Method::GET, "-/v1/search", raw, None))
            .source
            .query
    };
    assert_eq!(
        query(Some("from=20&text=left+pad%26&size=20&ns=x&token=secret")).as_deref(),
        Some("text=left+pad%26&size=20&from=20")
    );
    assert_eq!(
        query(Some("quality=0.5&popularity=0&maintenance=1&text=")).as_deref(),
        Some("text=&quality=0.5&popularity=0&maintenance=1")
    );
    assert_eq!(query(Some("text=a&text=b")).as_deref(), Some("text=a"));
    assert_eq!(query(Some("other=1")), None);
    assert_eq!(query(None), None);
}

#[test]
fn hazard_s16_page_sizes_are_bounded() {
    let query = |raw| {
        read(ask_with(&Method::GET, "-/v1/search", Some(raw), None))
            .source
            .query
    };
    assert_eq!(query("size=1000").as_deref(), Some("size=1000"));
    assert_eq!(query("size=1001").as_deref(), Some("size=1000"));
    assert_eq!(
        query("size=99999999999999999999").as_deref(),
        Some("size=1000")
    );
}

#[test]
fn other_documents_go_through_as_they_are() {
    for path in [
        "-/npm/v1/keys",
        "-/package/n/dist-tags",
        "-/npm/v1/attestations/n@1.0.0",
        "-/v1/search",
    ] {
        let other = read(ask(path));
        assert_eq!(
            (other.form, other.source.path.as_str(), other.source.variant),
            (Form::Verbatim, path, "")
        );
        assert!(
            other.source.is_document,
            "{path}: checked before it is stored"
        );
    }
}

#[test]
fn npm_7_audits_pass_through_with_their_coding() {
    for path in [
        "-/npm/v1/security/advisories/bulk",
        "-/npm/v1/security/audits/quick",
        "-/npm/v1/security/audits",
    ] {
        let Operation::PassThrough(pass) = ask_with(&Method::POST, path, Some("x=1"), None) else {
            panic!("{path}")
        };
        assert_eq!(
            (pass.path.as_str(), pass.query.as_deref(), pass.max_body),
            (path, None, 10_485_760)
        );
        assert_eq!(pass.request_headers, ["content-type", "content-encoding"]);
        assert_eq!(pass.response_headers, ["content-type", "content-encoding"]);
        assert_eq!(refused(ask(path)), 405);
    }
}

#[test]
fn ping_is_answered_here() {
    let Operation::Answer(answer) = ask_with(&Method::GET, "-/ping", Some("write=true"), None)
    else {
        panic!()
    };
    assert_eq!(
        (answer.status, answer.content_type, &answer.body[..]),
        (200, "application/json", &b"{}"[..])
    );
}

#[test]
fn npm_20_accounts_never_reach_the_upstream() {
    for method in [Method::GET, Method::POST] {
        for path in [
            "-/whoami",
            "-/npm/v1/user",
            "-/npm/v1/tokens",
            "-/npm/v1/tokens/token/abc",
        ] {
            assert_eq!(
                refused(ask_with(&method, path, None, None)),
                401,
                "{method} {path}"
            );
        }
        for path in [
            "-/v1/login",
            "-/user/org.couchdb.user:me",
            "-/user/token/abc",
        ] {
            assert_eq!(
                refused(ask_with(&method, path, None, None)),
                404,
                "{method} {path}"
            );
        }
    }
}

#[test]
fn a_remote_is_read_only() {
    for method in [Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS] {
        for path in [
            "n",
            "n/-rev/1",
            "-/user/org.couchdb.user:me",
            "-/package/n/dist-tags/latest",
            "n/-/n-1.0.0.tgz",
        ] {
            assert_eq!(
                refused(ask_with(&method, path, None, None)),
                405,
                "{method} {path}"
            );
        }
    }
    for path in [
        "n",
        "n/1.0.0",
        "n/-/n-1.0.0.tgz",
        "-/ping",
        "-/npm/v1/keys",
        "-/v1/search",
    ] {
        assert_eq!(
            refused(ask_with(&Method::POST, path, None, None)),
            405,
            "{path}"
        );
    }
}

#[test]
fn npm_19_bad_names_are_refused() {
    let long = "a".repeat(215);
    for path in [
        long.as_str(),
        "@a",
        "@a%20b/c",
        "_x",
        ".x",
        "a b",
        "%C3%A4",
        "n/a%20b",
    ] {
        assert_eq!(refused(ask(path)), 400, "{path}");
    }
    for path in [
        "",
        "@a/b/c/d",
        "a/b/c",
        "-/all",
        "-/nothing",
        "n/-/n-1.0.0.tgz/x",
        "n/-rev/1",
    ] {
        assert_eq!(refused(ask(path)), 404, "{path}");
    }
    let rules = PathRules {
        encoded_scope_slash: true,
    };
    for path in [
        "a%2fb",
        "%2e%2e/x",
        "n/-/..%2f..%2fx.tgz",
        "@a%2fb%2fc",
        "@a/b%2fc",
        "@a%252fb",
    ] {
        assert!(ArtifactPath::parse(path, rules).is_err(), "{path}");
    }
}

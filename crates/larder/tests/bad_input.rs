//! Bad input from clients: everything here ends in a 4xx before any upstream is contacted (contract, section 1, "Paths"; hazards S1,
//! S11, S14, S21). What upstreams send stands in `bad_documents.rs`.
#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "helpers of tests may fail loudly"
)]

mod support;

use std::time::{Duration, Instant};

use larder_testkit::{Origin, Resource};
use support::client::raw_status;
use support::packages::{entry, one_of_each, remote};
use support::{PATIENCE, Setup, TestLarder, check, get, raw, send};

const REPOSITORIES: [&str; 4] = ["generic", "pypi", "npm", "helm"];

/// A GET for exactly this target.
fn request(target: &[u8]) -> Vec<u8> {
    [
        b"GET ",
        target,
        b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    ]
    .concat()
}

/// Sends each request on a connection of its own: 4xx, the one given if any; then: nobody upstream was contacted, and larder is well.
async fn all_refused(
    larder: &TestLarder,
    origin: &Origin,
    cases: &[(String, Vec<u8>, Option<u16>)],
) {
    for (name, bytes, want) in cases {
        let answer = raw(larder.address(), bytes).await;
        let status = raw_status(&answer);
        match want {
            Some(want) => assert_eq!(status, *want, "{name}: {answer}"),
            None => assert!((400..500).contains(&status), "{name}: {answer}"),
        }
        assert_eq!(
            answer.matches("HTTP/1.1 ").count(),
            1,
            "{name}: one answer and no more: {answer}"
        );
    }
    assert_eq!(
        origin.connections(),
        0,
        "an upstream was contacted: {:?}",
        origin.requests()
    );
    assert_eq!(get(&larder.url("/live")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_s1_traversal_in_every_encoding_is_refused_in_every_format() {
    let origin = Origin::start().await;
    let larder = TestLarder::start(&one_of_each(&origin, "")).await;
    let paths: &[&str] = &[
        "..",
        "../secret",
        "a/../b",
        "a/..",
        "./../a",
        "a/.//../b",
        "%2e%2e/secret",
        "%2E%2e/secret",
        ".%2e/secret",
        "%2e./secret",
        "a/%2e%2e/%2E%2E/z",
        "%2e/a",
        "a/%2e",
        "./%2e/a",
        "..%2fsecret",
        "a/..%2F..%2fb",
        "%2e%2e%2fsecret",
        "%2e%2e%5csecret",
        "..%5csecret",
        "a%5c..%5cb",
        "%252e%252e/secret",
        "%252e%252e%252fsecret",
        "a%252fb",
        "a%252Fb",
        "a%255cb",
        "a%2500b",
        "a%2525b",
        "a%25%32%65b",
        "a/b%2fc",
        "a/b%2Fc",
        "%2fetc/passwd",
        "%2Fetc%2Fpasswd",
        "a%2f%2fb",
        "a%2f/b",
        "a/%2fb",
        "/%2e%2e/secret",
        "simple/%2e%2e/secret",
        "charts/..%2findex.yaml",
        "@scope%2f..%2fname",
        "@scope/%2e%2e",
    ];
    let mut cases = Vec::new();
    for repository in REPOSITORIES {
        for path in paths {
            let target = format!("/api/v1/remote/{repository}/{path}");
            cases.push((target.clone(), request(target.as_bytes()), Some(400)));
        }
    }
    all_refused(&larder, &origin, &cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_s14_backslashes_nul_and_control_bytes_are_refused() {
    let origin = Origin::start().await;
    let larder = TestLarder::start(&one_of_each(&origin, "")).await;
    let mut paths: Vec<Vec<u8>> = [
        &b"a\\b"[..],
        b"\\\\evil.example\\x",
        b"a%5cb",
        b"a%5Cb",
        b"a%00b",
        b"%00",
        b"a.tgz%00.txt",
        b"a%0d%0aX-Injected:%20yes",
        b"a%0ab",
        b"a%09b",
        b"a%1bb",
        b"a%7fb",
        b"a//\\b",
        b"./%00",
    ]
    .map(<[u8]>::to_vec)
    .to_vec();
    // Every control character, raw and encoded; a raw line feed, carriage return or space ends the target, which is malformed too.
    for byte in (0..0x20).chain([0x7f]) {
        paths.push([b"a", &[byte][..], b"b"].concat());
        paths.push(format!("a%{byte:02x}b").into_bytes());
    }
    let mut cases = Vec::new();
    for repository in REPOSITORIES {
        for path in &paths {
            let target = [format!("/api/v1/remote/{repository}/").as_bytes(), path].concat();
            cases.push((
                String::from_utf8_lossy(&target).into_owned(),
                request(&target),
                None,
            ));
        }
    }
    all_refused(&larder, &origin, &cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_that_are_no_path_are_refused() {
    let origin = Origin::start().await;
    let larder = TestLarder::start(&one_of_each(&origin, "")).await;
    let own = larder.artifact("generic", "a");
    let other = origin.url("/a");
    let line = |line: &str| {
        (
            line.to_owned(),
            format!("{line}\r\nHost: localhost\r\nConnection: close\r\n\r\n").into_bytes(),
            None,
        )
    };
    let cases = [
        line(&format!("GET {own} HTTP/1.1")),
        line(&format!("GET {other} HTTP/1.1")),
        line("GET http://evil.example/ HTTP/1.1"),
        line("GET https://evil.example/api/v1/remote/generic/a HTTP/1.1"),
        line("GET file:///etc/passwd HTTP/1.1"),
        line("GET //evil.example/x HTTP/1.1"),
        line("GET //evil.example/api/v1/remote/generic/a HTTP/1.1"),
        line("GET evil.example/x HTTP/1.1"),
        line(&format!("CONNECT {} HTTP/1.1", origin.address())),
        line("CONNECT evil.example:443 HTTP/1.1"),
        line("OPTIONS * HTTP/1.1"),
        line("GET * HTTP/1.1"),
        line("GET ?x HTTP/1.1"),
        line("GET /api/v1/remote/generic/a b HTTP/1.1"),
        line("GET"),
    ];
    all_refused(&larder, &origin, &cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_s11_ambiguous_framing_is_refused_and_the_connection_closed() {
    let origin = Origin::start().await;
    let larder = TestLarder::start(&one_of_each(&origin, "")).await;
    // The smuggled second request would show as a second answer.
    let hidden = "GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let target = "/api/v1/remote/generic/a";
    let mut cases = Vec::new();
    for (method, path) in [
        ("GET", target),
        (
            "POST",
            "/api/v1/remote/npm/-/npm/v1/security/advisories/bulk",
        ),
        ("PUT", "/cache/flush"),
    ] {
        for (name, fields, body) in [
            (
                "both lengths",
                "Content-Length: 4\r\nTransfer-Encoding: chunked",
                "0\r\n\r\n",
            ),
            (
                "both lengths, other order",
                "Transfer-Encoding: chunked\r\nContent-Length: 4",
                "0\r\n\r\n",
            ),
            (
                "two lengths",
                "Content-Length: 0\r\nContent-Length: 4",
                "abcd",
            ),
            ("two lengths in one line", "Content-Length: 0, 4", "abcd"),
            ("negative length", "Content-Length: -1", ""),
            ("signed length", "Content-Length: +4", "abcd"),
            ("hexadecimal length", "Content-Length: 0x4", "abcd"),
            ("another coding", "Transfer-Encoding: gzip", ""),
            (
                "gzip and chunked",
                "Transfer-Encoding: gzip, chunked",
                "0\r\n\r\n",
            ),
            (
                "chunked twice",
                "Transfer-Encoding: chunked, chunked",
                "0\r\n\r\n",
            ),
            (
                "chunked not last",
                "Transfer-Encoding: chunked, identity",
                "0\r\n\r\n",
            ),
            (
                "two codings",
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
                "0\r\n\r\n",
            ),
            ("almost chunked", "Transfer-Encoding: xchunked", "0\r\n\r\n"),
            (
                "a space before the colon",
                "Transfer-Encoding : chunked",
                "0\r\n\r\n",
            ),
            (
                "a folded line",
                "Transfer-Encoding:\r\n chunked",
                "0\r\n\r\n",
            ),
        ] {
            let bytes = format!(
                "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n{body}{hidden}"
            );
            cases.push((format!("{method} with {name}"), bytes.into_bytes(), None));
        }
    }
    for (name, head) in [
        (
            "GET with a body",
            format!(
                "GET {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{hidden}",
                hidden.len()
            ),
        ),
        (
            "no Host",
            format!("GET {target} HTTP/1.1\r\nConnection: close\r\n\r\n"),
        ),
        (
            "two Hosts",
            format!(
                "GET {target} HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
            ),
        ),
        (
            "a Host with a path",
            format!("GET {target} HTTP/1.1\r\nHost: localhost/evil\r\nConnection: close\r\n\r\n"),
        ),
        (
            "a Host with user info",
            format!("GET {target} HTTP/1.1\r\nHost: a@localhost\r\nConnection: close\r\n\r\n"),
        ),
        (
            "a NUL in a header",
            format!(
                "GET {target} HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\nConnection: close\r\n\r\n"
            ),
        ),
        (
            "a bare CR in a header",
            format!(
                "GET {target} HTTP/1.1\r\nHost: localhost\r\nX: a\rb\r\nConnection: close\r\n\r\n"
            ),
        ),
    ] {
        cases.push((name.to_owned(), head.into_bytes(), None));
    }
    all_refused(&larder, &origin, &cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_s21_long_paths_are_414_and_the_longest_legal_one_is_served() {
    let origin = Origin::start().await;
    let larder = TestLarder::start(&one_of_each(&origin, "")).await;
    let mut cases = Vec::new();
    for repository in REPOSITORIES {
        let prefix = format!("/api/v1/remote/{repository}/");
        for (name, path) in [
            ("one byte too long", "a".repeat(2_049)),
            ("9 KB", "a".repeat(9_000)),
            ("9 KB of segments", "ab/".repeat(3_000) + "x"),
            ("9 KB of escapes", "%61".repeat(3_000)),
            ("a 9 KB query", format!("a?{}", "q".repeat(9_000))),
        ] {
            let target = format!("{prefix}{path}");
            cases.push((
                format!("{repository}: {name}"),
                request(target.as_bytes()),
                Some(414),
            ));
        }
        // So long that no server reads it to its end: 414, or 431 for the head as a whole.
        let target = format!("{prefix}{}", "a".repeat(200_000));
        cases.push((
            format!("{repository}: 200 KB"),
            request(target.as_bytes()),
            None,
        ));
    }
    all_refused(&larder, &origin, &cases).await;

    let longest = "a/".repeat(1_023) + "bb";
    assert_eq!(
        longest.len(),
        2_048,
        "the longest path that the specification allows"
    );
    origin.put(&format!("/{longest}"), Resource::new("reached"));
    assert_eq!(
        get(&larder.artifact("generic", &longest)).await.text(),
        "reached"
    );
    // The limit is one of the decoded path: 6,144 bytes of escapes are the same name.
    let encoded = longest.replace('a', "%61").replace('b', "%62");
    let again = larder.hit(&larder.artifact("generic", &encoded)).await;
    assert_eq!(
        (again.status, again.text().as_str(), origin.requests().len()),
        (200, "reached", 1)
    );
}

/// Contract, section 1: a lone `%` is legal, empty and plain `.` segments are folded, npm scopes may encode their slash.
#[tokio::test(flavor = "multi_thread")]
async fn legal_oddities_are_served_from_the_configured_upstream() {
    let origin = Origin::start().await;
    let larder = TestLarder::start(&one_of_each(&origin, "")).await;
    for (path, upstream) in [
        ("/evil.example/x", "/evil.example/x"),
        ("//evil.example/y", "/evil.example/y"),
        ("./a//b/./c", "/a/b/c"),
        ("d/.?", "/d/"),
        ("@evil.example/x", "/@evil.example/x"),
        (".evil.example/x", "/.evil.example/x"),
        ("http:evil.example/x", "/http:evil.example/x"),
        ("a..b/...", "/a..b/..."),
        ("100%/a", "/100%/a"),
        ("caf%C3%A9/%E2%82%AC", "/café/€"),
        ("a;v=1/b", "/a;v=1/b"),
        ("%3Cscript%3E", "/<script>"),
    ] {
        origin.put(upstream, Resource::new(upstream));
        let answer = raw(
            larder.address(),
            &request(format!("/api/v1/remote/generic/{path}").as_bytes()),
        )
        .await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with(upstream),
            "{path}: {answer}"
        );
    }
    let package = r#"{"name":"@scope/name","dist-tags":{},"versions":{}}"#;
    origin.put(
        "/@scope%2fname",
        Resource::new(package).content_type("application/json"),
    );
    for path in [
        "@scope/name",
        "@scope%2fname",
        "@scope%2Fname",
        "%40scope%2fname",
    ] {
        let answer = get(&larder.artifact("npm", path)).await;
        assert_eq!(
            (answer.status, &answer.json()["name"]),
            (200, &"@scope/name".into()),
            "{path}"
        );
    }
    assert_eq!(
        origin.count("GET", "/@scope/name"),
        1,
        "one document under all its spellings"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn unmatched_paths_are_403_without_contact() {
    let origin = Origin::start().await;
    let keys = "immutable_patterns: ['\\.tgz$']\ndeny_patterns: ['^secret/']";
    let larder = TestLarder::start(&remote("generic", &origin, keys)).await;
    for path in [
        "a.zip",
        "a.tgz/x",
        "a.tgz%20",
        "secret/a.tgz",
        "a?.tgz",
        "%73ecret/a.tgz",
    ] {
        for method in ["GET", "HEAD"] {
            let answer = send(method, &larder.artifact("generic", path), &[]).await;
            assert_eq!(answer.status, 403, "{method} {path:?}");
        }
        let error = get(&larder.artifact("generic", path)).await.json();
        assert_eq!(
            (&error["code"], &error["repository"]),
            (&"pattern_denied".into(), &"generic".into()),
            "{path:?}"
        );
        let rule = if path.contains("ecret") {
            "deny_patterns"
        } else {
            "immutable_patterns"
        };
        assert_eq!(error["rule"], rule, "{path:?}");
    }
    assert_eq!(origin.connections(), 0);
}

/// `(a|b|ab)*` before an atomic group that never matches: each step doubles the ways (fancy-regex documents it as one that runs into its limit).
const EXPLODING: &str = "^(?:a|b|ab)*(?>c)$";

#[tokio::test(flavor = "multi_thread")]
async fn hazard_r6_exploding_patterns_end_in_a_bounded_deny_and_a_metric() {
    let origin = Origin::start().await;
    let entries: String = [
        "immutable_patterns",
        "mutable_patterns",
        "allow_patterns",
        "deny_patterns",
    ]
    .map(|key| {
        entry(
            &key.replace('_', "-"),
            "generic",
            &origin,
            &format!(
                "{key}: ['{EXPLODING}']\n{}",
                if key == "mutable_patterns" {
                    "immutable_patterns: []"
                } else {
                    ""
                }
            ),
        )
    })
    .concat();
    let larder = TestLarder::start(&format!("remotes:\n{entries}")).await;
    let path = "ab".repeat(40);
    for repository in [
        "immutable-patterns",
        "mutable-patterns",
        "allow-patterns",
        "deny-patterns",
    ] {
        let mut quickest = PATIENCE;
        for round in 1..=3 {
            let began = Instant::now();
            let answer = get(&larder.artifact(repository, &path)).await;
            quickest = quickest.min(began.elapsed());
            assert_eq!(answer.status, 403, "{repository}: {}", answer.text());
            let counted = larder
                .metric(
                    "larder_repository_pattern_limits_total",
                    &format!("\"{repository}\""),
                )
                .await;
            assert!(counted >= f64::from(round), "{repository}: {counted}");
        }
        eprintln!("{repository}: denied in {quickest:?}");
        // 50 ms is the bound of a release build; this one is not optimised.
        assert!(
            quickest < Duration::from_millis(500),
            "{repository}: {quickest:?}"
        );
    }
    assert_eq!(origin.connections(), 0);
    // And the operator's own pattern, in a flush.
    let began = Instant::now();
    let flush = larder.url("/cache/flush?pattern=%5E(%3F%3Aa%7Cb%7Cab)*(%3F%3Ec)%24");
    assert_eq!(send("PUT", &flush, &[]).await.status, 200);
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_r6_patterns_that_cannot_be_compiled_within_bounds_refuse_the_start() {
    let nested = "(".repeat(100_000) + "a" + &")".repeat(100_000);
    for (name, pattern) in [
        (
            "a product of repetitions",
            "'((a{1000}){1000}){1000}'".to_owned(),
        ),
        ("100,000 groups", format!("'{nested}'")),
        (
            "a large repetition behind a look-ahead",
            "'(?!x)((a{1000}){1000}){1000}'".to_owned(),
        ),
        ("an open group", "'(a'".to_owned()),
        ("a control character", "\"\\b\\.tgz$\"".to_owned()),
    ] {
        let config = format!(
            "remotes:\n  files:\n    base_url: 'http://files.example'\n    immutable_patterns:\n      - {pattern}\n"
        );
        let began = Instant::now();
        let (good, said) = check(&config);
        assert!(!good, "{name}: {}", &said[..said.len().min(500)]);
        assert!(
            said.contains("larder.yaml:5:") && said.contains("immutable_patterns"),
            "{name}: {}",
            &said[..said.len().min(500)]
        );
        assert!(
            said.len() < 20_000,
            "{name}: {} bytes of message",
            said.len()
        );
        let (status, log) = Setup::new(&config).run_to_end();
        assert_eq!(
            status.code(),
            Some(1),
            "{name}: {}",
            &log[..log.len().min(500)]
        );
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "{name}: {:?}",
            began.elapsed()
        );
    }
}

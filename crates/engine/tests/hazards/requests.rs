//! What goes upstream, what names mean, and what a slow reader costs: hazards S9, S12, S21, S22, R5, A1.

use std::time::Duration;

use http::Method;
use larder_core::{Credentials, FaultKind, Secret};
use larder_testkit::{Origin, Payload, Resource};
use tokio::sync::watch;

use crate::support::{Bench, FORMATS, Peak, alone, publish, upstream};
use crate::{KIB, MIB, refusal, text};

/// Everything that a client may send and that is nobody else's business.
const PRIVATE: [(&str, &str); 14] = [
    ("authorization", "Bearer canary"),
    ("cookie", "session=canary"),
    ("proxy-authorization", "Basic canary"),
    ("x-forwarded-for", "192.0.2.1"),
    ("x-forwarded-host", "evil.example.com"),
    ("forwarded", "for=192.0.2.1"),
    ("x-api-key", "canary"),
    ("referer", "https://intranet.example.com/canary"),
    ("origin", "https://intranet.example.com"),
    ("user-agent", "canary/1.0"),
    ("accept-language", "de"),
    ("npm-session", "canary"),
    ("x-http-method-override", "DELETE"),
    ("range", "bytes=0-0"),
];

fn request_for_full(request: &larder_testkit::RecordedRequest) -> bool {
    request.header("accept") == Some("application/json")
}

#[tokio::test]
async fn hazard_s9_exactly_these_headers_go_upstream() {
    for format in FORMATS {
        let bench = Bench::new().await;
        let file = publish(
            &bench.origin,
            format,
            &Payload::generated(100, 1),
            "\"tag\"",
        );
        for method in [Method::HEAD, Method::GET] {
            bench
                .ask(method, format, &file.path, &PRIVATE)
                .await
                .unwrap();
        }
        if file.has_document() {
            bench
                .ask(Method::GET, format, file.document, &PRIVATE)
                .await
                .unwrap();
        }
        for request in bench.origin.requests() {
            let mut headers: Vec<(String, &str)> = request
                .headers
                .iter()
                .map(|(name, value)| (name.to_lowercase(), value.as_str()))
                .collect();
            headers.sort();
            // Which larder it comes from, and nothing of what a client says that it has passed.
            let via = headers
                .iter()
                .position(|(name, value)| name == "via" && value.len() == "1.1 larder-".len() + 32);
            headers.remove(via.expect("Via"));
            let host = bench.origin.address().to_string();
            let accept = match (format, request.target == file.document_at) {
                ("pypi", true) => {
                    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
                }
                // What npm itself sends, for the abbreviated form; a client that names no form gets the full one.
                ("npm", true) if request_for_full(&request) => "application/json",
                ("npm", true) => {
                    "application/vnd.npm.install-v1+json; q=1.0, application/json; q=0.8, */*"
                }
                _ => "*/*",
            };
            let expected = [
                ("accept", accept),
                ("accept-encoding", "identity"),
                ("host", &host),
                ("user-agent", "larder/test"),
            ];
            let expected: Vec<(String, &str)> = expected
                .iter()
                .map(|(name, value)| ((*name).to_owned(), *value))
                .collect();
            assert_eq!(headers, expected, "{format} {}", request.target);
            assert_eq!(request.body, "");
        }
    }
}

#[tokio::test]
async fn hazard_s9_credentials_go_to_the_configured_origin_only() {
    let other = Origin::start().await;
    let bench = Bench::with(|r| {
        let settings = upstream(r);
        settings.credentials = Some(Credentials {
            username: "user".to_owned(),
            password: Secret::new("canary".to_owned()),
        });
        settings.headers = vec![("x-token".to_owned(), Secret::new("canary".to_owned()))];
        settings.allow_private = vec![larder_core::AllowPrivate::Socket(other.address())];
    })
    .await;
    other.put("/f", text("elsewhere"));
    let location = other.url("/f");
    bench.origin.behave(
        "/f",
        larder_testkit::Behaviour::Redirect {
            status: 302,
            location,
        },
    );
    assert_eq!(bench.get("generic", "f").await.unwrap().text(), "elsewhere");
    let own = &bench.origin.requests()[0];
    // RFC 7617: base 64 of "user:canary".
    assert_eq!(
        (own.header("authorization"), own.header("x-token")),
        (Some("Basic dXNlcjpjYW5hcnk="), Some("canary"))
    );
    let foreign = &other.requests()[0];
    assert!(
        foreign
            .headers
            .iter()
            .all(|(_, value)| !value.contains("canary") && !value.contains("dXNl")),
        "{foreign:?}"
    );
}

#[tokio::test]
async fn hazard_s9_the_upstreams_cookies_stay_outside() {
    let bench = Bench::new().await;
    let cookie = text("body")
        .header("Set-Cookie", "session=canary")
        .header("X-Upstream", "canary")
        .header("Vary", "Cookie");
    bench.origin.put("/f", cookie);
    for _ in 0..2 {
        let got = bench.get("generic", "f").await.unwrap();
        assert!(!format!("{:?}", got.answer.representation).contains("canary"));
        bench.settled().await;
    }
}

#[tokio::test]
async fn hazard_s12_no_header_of_a_client_changes_what_another_gets() {
    for format in FORMATS {
        let bench = Bench::new().await;
        let body = Payload::generated(1000, 1);
        let file = publish(&bench.origin, format, &body, "\"tag\"");
        // Oversized, meta-character and method-override headers of the cache-poisoning catalogue; conditions and ranges.
        let long = "x".repeat(7000);
        for headers in [
            &PRIVATE[..],
            &[("x-oversized", long.as_str())],
            &[("x-http-method-override", "POST")],
            &[("x-original-url", "/admin"), ("x-rewrite-url", "/admin")],
            &[("if-none-match", "\"tag\"")],
            &[("if-modified-since", "Fri, 01 Jan 2100 00:00:00 GMT")],
            &[("range", "bytes=0-0"), ("if-range", "\"tag\"")],
            &[("accept", "text/html"), ("accept-encoding", "br")],
        ] {
            bench.flush().await;
            let _ = bench
                .ask(Method::GET, format, &file.path, headers)
                .await
                .unwrap();
            bench.settled().await;
            let hit = bench.get(format, &file.path).await.unwrap();
            assert_eq!(
                (hit.answer.status, hit.bytes(), hit.is_hit()),
                (200, &body.slice(0, 1000), true),
                "{format} {headers:?}"
            );
        }
        let strange = bench
            .origin
            .requests()
            .into_iter()
            .find(|request| request.headers.len() > 5);
        assert_eq!(strange, None);
    }
}

#[tokio::test]
async fn hazard_s12_the_key_is_repository_path_and_what_the_format_names() {
    let bench = Bench::new().await;
    bench.origin.put("/f", text("plain"));
    bench.origin.put("/f?v=1", text("one"));
    bench.origin.put("/f?v=2", text("two"));
    for _ in 0..2 {
        for (target, body) in [
            ("f", "plain"),
            ("f?v=1", "one"),
            ("f?v=2", "two"),
            ("f?ns=registry.example", "plain"),
        ] {
            assert_eq!(bench.get("generic", target).await.unwrap().text(), body);
            bench.settled().await;
        }
    }
    assert_eq!(bench.origin.requests().len(), 3);
    // One path, two repositories: two entries.
    bench.get("helm", "f").await.unwrap();
    assert_eq!(bench.origin.count("GET", "/f"), 4);
    // pypi names no parameter of a file.
    bench.origin.put("/packages/x.whl", text("wheel"));
    for target in ["packages/x.whl", "packages/x.whl?a=1", "packages/x.whl?b=2"] {
        assert_eq!(bench.get("pypi", target).await.unwrap().text(), "wheel");
        bench.settled().await;
    }
    assert_eq!(
        bench
            .origin
            .requests()
            .iter()
            .filter(|request| request.target.contains("x.whl"))
            .count(),
        1
    );
}

#[tokio::test]
async fn hazard_s13_what_follows_an_answer_is_not_the_next_one() {
    let bench = Bench::new().await;
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    for surplus in ["#", evil] {
        for round in 0..30 {
            let (a, b) = (format!("a{round}"), format!("b{round}"));
            bench.origin.put(&format!("/{a}"), text("first"));
            bench.origin.put(&format!("/{b}"), text("second"));
            bench.origin.behave(
                &format!("/{a}"),
                larder_testkit::Behaviour::Surplus(surplus.into()),
            );
            assert_eq!(bench.get("generic", &a).await.unwrap().text(), "first");
            assert_eq!(bench.get("generic", &b).await.unwrap().text(), "second");
        }
        bench.flush().await;
    }
}

#[tokio::test]
async fn hazard_s21_nuls_and_tricks_are_refused_before_anyone_is_asked() {
    for format in FORMATS {
        let bench = Bench::new().await;
        for path in [
            "a%00b", "a%01", "a%7f", "a%0d%0aX", "../a", "a/../b", "%2e%2e/a", "a/%2E./b", "a\\b",
            "a%5cb", "a%252e", "a%255c", "a%2500", "a%2f/b", "./../a", "a/%2e/b", "a%2525",
        ] {
            assert_eq!(
                refusal(bench.get(format, path).await).0,
                FaultKind::BadRequest,
                "{format} {path}"
            );
            assert_eq!(
                refusal(bench.ask(Method::HEAD, format, path, &[]).await).0,
                FaultKind::BadRequest,
                "{format} {path}"
            );
        }
        assert_eq!(
            refusal(bench.get(format, &"a".repeat(2049)).await).0,
            FaultKind::UriTooLong
        );
        assert_eq!(
            refusal(bench.get(format, &"%61".repeat(2049)).await).0,
            FaultKind::UriTooLong
        );
        assert_eq!(bench.origin.requests(), []);
    }
}

#[tokio::test]
async fn hazard_s21_long_names_are_kept_like_any_other() {
    let bench = Bench::new().await;
    for length in [255, 256, 2000] {
        let path = "n".repeat(length);
        bench.origin.put(&format!("/{path}"), text("long"));
        bench.get("generic", &path).await.unwrap();
        bench.settled().await;
        assert!(
            bench.get("generic", &path).await.unwrap().is_hit(),
            "{length}"
        );
    }
}

#[tokio::test]
async fn hazard_s22_names_never_collide() {
    let bench = Bench::new().await;
    let names = [
        "a",
        "a/b",
        "a/b/c",
        "A",
        "a%20",
        "ä",
        "a%CC%88",
        "a?b",
        "a%3Fb",
        "con",
        "a/index.html",
        "a%7E",
        "a.",
        "a/",
    ];
    for name in names {
        bench.origin.put(
            &format!("/{name}"),
            Resource::new(format!("body of {name}")),
        );
    }
    for _ in 0..2 {
        for name in names.iter().filter(|name| name.is_ascii()) {
            assert_eq!(
                bench.get("generic", name).await.unwrap().text(),
                format!("body of {name}")
            );
            bench.settled().await;
        }
    }
    assert_eq!(
        bench.origin.requests().len(),
        names.len() - 1,
        "each was fetched once"
    );
}

/// A reader that takes next to nothing of a large file costs a buffer, not the file.
#[test]
fn hazard_r5_a_slow_reader_costs_a_buffer() {
    alone(
        "requests::hazard_r5_a_slow_reader_costs_a_buffer",
        || async {
            let bench = Bench::new().await;
            let body = Payload::generated(200 * MIB, 1);
            let file = publish(&bench.origin, "generic", &body, "\"tag\"");
            bench.origin.put("/warm", text("warm"));
            bench.get("generic", "warm").await.unwrap();
            let peak = Peak::watch();
            let (_hurry, hurried) = watch::channel(false);
            let slow: Vec<_> = (0..8)
                .map(|_| {
                    tokio::spawn(
                        bench
                            .client("generic", &file.path)
                            .slow(10_000, hurried.clone())
                            .leave_after(100 * KIB)
                            .run(),
                    )
                })
                .collect();
            // The download goes on beside them to its end.
            bench.settled_within(Duration::from_secs(60)).await;
            assert!(slow.iter().all(|reader| !reader.is_finished()));
            for reader in slow {
                reader.abort();
            }
            let growth = peak.growth();
            println!(
                "= 8 slow readers of 200 MiB: {} KiB more memory",
                growth / KIB
            );
            assert!(growth < 24 * MIB, "memory grew by {} KiB", growth / KIB);
        },
    );
}

#[tokio::test]
async fn hazard_a1_a_request_in_the_tail_of_a_transfer_joins_it() {
    // Between the last byte and the visible record there must be no second fetch.
    let bench = Bench::new().await;
    for round in 0..40 {
        let path = format!("f{round}");
        bench.origin.put(
            &format!("/{path}"),
            Resource::new(Payload::generated(20 * KIB, round)),
        );
        bench.get("generic", &path).await.unwrap();
        for _ in 0..5 {
            bench.get("generic", &path).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(bench.origin.count("GET", &format!("/{path}")), 1);
    }
}

//! What larder carries where: credentials (hazard S6), the client's headers and the upstream's (S9), and links that follow the wrong
//! Host (S12).
#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "helpers of tests may fail loudly"
)]

mod support;

use larder_testkit::{Behaviour, Origin, Resource};
use support::packages::{INDEXES, links_back, one_of_each, put_indexes};
use support::{TestLarder, get, send};

/// A word that must not turn up where it does not belong.
const CANARY: &str = "c4n4ry";

#[tokio::test(flavor = "multi_thread")]
async fn hazard_s6_credentials_go_to_the_configured_origin_and_nowhere_else() {
    let (origin, elsewhere) = (Origin::start().await, Origin::start().await);
    let keys = format!(
        "username: reader\npassword: pass-{CANARY}\nheaders: {{ X-Secret: 'token-{CANARY}' }}\nallow_private: [127.0.0.0/8]\nnegative_ttl: 0"
    );
    elsewhere.put("/pantry-1.0.tar.gz", Resource::new("elsewhere"));
    let mut larder = TestLarder::start(&one_of_each(&origin, &keys)).await;
    // RFC 7617: Basic, user name and password with a colon between them, in base64.
    let basic = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(format!("reader:pass-{CANARY}"))
    };
    for status in [301, 302, 303, 307, 308] {
        origin.behave(
            &format!("/r{status}"),
            Behaviour::Redirect {
                status,
                location: elsewhere.url("/pantry-1.0.tar.gz"),
            },
        );
        for method in ["HEAD", "GET"] {
            let answer = send(
                method,
                &larder.artifact("generic", &format!("r{status}")),
                &[],
            )
            .await;
            assert_eq!(answer.status, 200, "{method} {status}: {}", answer.text());
        }
    }
    // There and back: the hop to the configured origin may have them again.
    elsewhere.behave(
        "/back",
        Behaviour::Redirect {
            status: 302,
            location: origin.url("/home"),
        },
    );
    origin.behave(
        "/round",
        Behaviour::Redirect {
            status: 302,
            location: elsewhere.url("/back"),
        },
    );
    origin.put("/home", Resource::new("home"));
    assert_eq!(
        get(&larder.artifact("generic", "round")).await.text(),
        "home"
    );
    put_indexes(&origin, &elsewhere.url("/pantry-1.0.tar.gz"));
    for (repository, path) in INDEXES {
        let index = get(&larder.artifact(repository, path)).await.text();
        for link in links_back(&larder, repository, &index) {
            get(&larder.artifact(repository, &link)).await;
        }
    }
    // And when it fails, or is asked for credentials that it does not have.
    elsewhere.put(
        "/denied",
        Resource::new("who?")
            .status(401)
            .header("WWW-Authenticate", "Basic realm=\"x\""),
    );
    origin.behave(
        "/denied",
        Behaviour::Redirect {
            status: 302,
            location: elsewhere.url("/denied"),
        },
    );
    let denied = get(&larder.artifact("generic", "denied")).await;
    assert_eq!(denied.status, 502, "{}", denied.text());

    assert!(
        elsewhere.requests().len() >= 10,
        "{:?}",
        elsewhere.requests()
    );
    for request in elsewhere.requests() {
        assert_eq!(request.header("authorization"), None, "{request:?}");
        assert!(
            !format!("{request:?}").contains(CANARY) && !format!("{request:?}").contains(&basic),
            "{request:?}"
        );
    }
    for request in origin.requests() {
        assert_eq!(
            request.header("authorization"),
            Some(&*format!("Basic {basic}")),
            "{request:?}"
        );
        assert_eq!(
            request.header("x-secret"),
            Some(&*format!("token-{CANARY}")),
            "{request:?}"
        );
    }
    // Nor do they show in what clients and operators read.
    for path in ["/config", "/metrics", "/health", "/"] {
        let text = get(&larder.url(path)).await.text();
        assert!(
            !text.contains(CANARY) && !text.contains(&basic),
            "{path}: {text}"
        );
    }
    assert!(!denied.text().contains(CANARY) && !denied.text().contains(&basic));
    larder.terminate();
    assert!(
        !larder.log().contains(CANARY) && !larder.log().contains(&basic),
        "in the log"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_s9_nothing_of_the_client_s_headers_goes_upstream() {
    let origin = Origin::start().await;
    put_indexes(&origin, &origin.url("/pantry-1.0.tar.gz"));
    origin.put("/pantry-1.0.tar.gz", Resource::new("file"));
    let larder = TestLarder::start(&one_of_each(&origin, "negative_ttl: 0")).await;
    let canary: Vec<(&str, String)> = [
        "Authorization",
        "Proxy-Authorization",
        "Cookie",
        "User-Agent",
        "Referer",
        "Accept-Language",
        "Forwarded",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Real-IP",
        "X-Amz-Security-Token",
        "X-Http-Method-Override",
        "Via",
        "Cache-Control",
        "Pragma",
        "From",
        "X-Request-Id",
        "npm-auth-type",
        "If-None-Match",
    ]
    .iter()
    .map(|name| {
        (
            *name,
            if name.starts_with("If-") {
                format!("\"{CANARY}\"")
            } else {
                CANARY.to_owned()
            },
        )
    })
    .collect();
    let mut headers: Vec<(&str, &str)> = canary
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    headers.extend([
        ("Range", "bytes=1-2"),
        ("Accept-Encoding", "br;q=0.5, gzip"),
        ("Accept", "application/c4n4ry, */*;q=0.1"),
    ]);
    for method in ["HEAD", "GET"] {
        for (repository, path) in INDEXES.into_iter().chain([
            ("generic", "pantry-1.0.tar.gz"),
            ("generic", "none"),
            ("npm", "-/v1/search?text=x"),
        ]) {
            send(method, &larder.artifact(repository, path), &headers).await;
        }
    }
    let asked = origin.requests();
    assert!(asked.len() >= 6, "{asked:?}");
    for request in asked {
        for (name, value) in &request.headers {
            let known = [
                "host",
                "accept",
                "accept-encoding",
                "user-agent",
                "connection",
                "via",
            ];
            assert!(
                known.contains(&name.to_lowercase().as_str()),
                "{name}: {value} in {request:?}"
            );
            assert!(!value.contains(CANARY), "{name}: {value} in {request:?}");
        }
        assert_eq!(
            request.header("host"),
            Some(&*origin.address().to_string()),
            "{request:?}"
        );
        assert_eq!(
            request.header("accept-encoding"),
            Some("identity"),
            "{request:?}"
        );
        assert!(
            request
                .header("user-agent")
                .is_some_and(|agent| agent.starts_with("larder/")),
            "{request:?}"
        );
        assert!(
            request
                .header("via")
                .is_some_and(|via| via.starts_with("1.1 larder-") && !via.contains(',')),
            "{request:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_s9_nothing_but_what_describes_the_body_comes_back() {
    let origin = Origin::start().await;
    put_indexes(&origin, &origin.url("/pantry-1.0.tar.gz"));
    let larder = TestLarder::start(&one_of_each(&origin, "")).await;
    let drop = [
        ("Set-Cookie", "session=c4n4ry"),
        ("Link", "<http://evil.example/c4n4ry>; rel=preload"),
        ("Alt-Svc", "h3=\":443\"; c4n4ry"),
        ("Strict-Transport-Security", "max-age=1; c4n4ry"),
        ("Content-Location", "/c4n4ry"),
        ("Refresh", "0; url=http://evil.example/c4n4ry"),
        ("Content-Security-Policy", "default-src c4n4ry"),
        ("Clear-Site-Data", "\"c4n4ry\""),
        ("Server", "c4n4ry"),
        ("X-Powered-By", "c4n4ry"),
        ("Access-Control-Allow-Origin", "http://c4n4ry.example"),
        ("WWW-Authenticate", "Basic realm=c4n4ry"),
        ("Cache-Control", "no-store, c4n4ry"),
        ("Expires", "c4n4ry"),
        // One that is a number counts (RFC 9111, section 4.2.3).
        ("Age", "c4n4ry"),
        ("Last-Modified", "c4n4ry"),
        ("Via", "1.1 c4n4ry"),
    ];
    for (name, value) in drop {
        origin.behave("*", Behaviour::Header(name.to_owned(), value.to_owned()));
    }
    for (name, value) in [
        ("Content-Disposition", "attachment; filename=it.tgz"),
        ("Content-Language", "da"),
        ("ETag", "\"mine\""),
    ] {
        origin.behave(
            "/pantry-1.0.tar.gz",
            Behaviour::Header(name.to_owned(), value.to_owned()),
        );
    }
    origin.put(
        "/pantry-1.0.tar.gz",
        Resource::new("file").content_type("application/gzip"),
    );
    let mut targets: Vec<(&str, &str)> = INDEXES.to_vec();
    targets.extend([("generic", "pantry-1.0.tar.gz"), ("generic", "none")]);
    for (repository, path) in targets {
        for method in ["HEAD", "GET", "GET"] {
            let answer = send(method, &larder.artifact(repository, path), &[]).await;
            let case = format!("{method} {repository}/{path}: {:?}", answer.headers);
            assert!(!format!("{:?}", answer.headers).contains(CANARY), "{case}");
            assert_eq!(
                answer.headers.get_all("set-cookie").iter().count(),
                0,
                "{case}"
            );
            assert_eq!(
                (
                    answer.header("x-content-type-options"),
                    answer.header("content-security-policy")
                ),
                ("nosniff", "sandbox"),
                "{case}"
            );
        }
    }
    let file = get(&larder.artifact("generic", "pantry-1.0.tar.gz")).await;
    for (name, want) in [
        ("content-type", "application/gzip"),
        ("content-disposition", "attachment; filename=it.tgz"),
        ("content-language", "da"),
        ("etag", "\"mine\""),
        ("last-modified", ""),
    ] {
        assert_eq!(file.header(name), want, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_s12_links_follow_the_host_of_their_own_request_only() {
    let origin = Origin::start().await;
    put_indexes(&origin, &origin.url("/pantry-1.0.tar.gz"));
    let larder = TestLarder::start(&one_of_each(&origin, "")).await;
    for (repository, path) in [("npm", "pantry"), ("helm", "index.yaml")] {
        let url = larder.artifact(repository, path);
        for round in 0..2 {
            for host in ["one.example", "two.example:8443", "three.example"] {
                let forged = [
                    ("Host", host),
                    ("X-Forwarded-Host", "evil.example"),
                    ("X-Forwarded-Proto", "https"),
                    ("X-Forwarded-Prefix", "/evil"),
                    ("Forwarded", "host=evil.example;proto=https"),
                    ("X-Original-URL", "/evil"),
                ];
                let answer = send("GET", &url, &forged).await;
                let text = answer.text();
                assert_eq!(answer.status, 200, "{text}");
                assert!(
                    text.contains(&format!("http://{host}/api/v1/remote/{repository}/")),
                    "{round} {host}: {text}"
                );
                assert!(!text.contains("evil"), "{round} {host}: {text}");
                for other in ["one.example", "two.example", "three.example"]
                    .iter()
                    .filter(|other| !host.starts_with(**other))
                {
                    assert!(!text.contains(other), "{round} {host}: {text}");
                }
            }
        }
    }
    // PyPI's links name no host at all.
    let page = send(
        "GET",
        &larder.artifact("pypi", "simple/pantry/"),
        &[("Host", "one.example")],
    )
    .await
    .text();
    assert!(
        page.contains("\"/api/v1/remote/pypi/pantry-1.0.tar.gz\"") && !page.contains("one.example"),
        "{page}"
    );
}

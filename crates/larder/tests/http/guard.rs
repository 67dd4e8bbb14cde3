//! Who may change state (contract, section 6), and that reading is nobody's business but the reader's.

use base64::Engine as _;
use larder_testkit::{Origin, Resource};

use crate::support::packages::{entry, remote};
use crate::support::{Setup, TestLarder, get, send};

/// A cell of the table: the request's headers, and whether it may change state.
type Cell<'a> = (&'a [(&'a str, &'a str)], bool);

async fn assert_cells(larder: &TestLarder, cells: &[Cell<'_>]) {
    let flush = larder.url("/cache/flush?cache_type=metrics");
    for (headers, allowed) in cells {
        let answer = send("PUT", &flush, headers).await;
        assert_eq!(
            answer.status,
            if *allowed { 200 } else { 403 },
            "{headers:?}: {}",
            answer.text()
        );
        if !allowed {
            assert!(answer.json()["error"].is_string(), "{headers:?}");
        }
        // Reading works all the same.
        for path in [
            "/live",
            "/config",
            "/metrics",
            "/",
            "/api/v1/remote/generic/a",
        ] {
            assert_eq!(
                send("GET", &larder.url(path), headers).await.status,
                200,
                "GET {path} {headers:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_loopback_without_a_token_only_other_sites_are_kept_out() {
    let origin = Origin::start().await;
    origin.put("/a", Resource::new("a"));
    let larder = TestLarder::start(&remote("generic", &origin, "")).await;
    let port = larder.address().port();
    let own = format!("http://127.0.0.1:{port}");
    let by_name = format!("http://localhost:{port}");
    let (host, host_v6) = (format!("localhost:{port}"), format!("[::1]:{port}"));
    let other_port = format!("http://127.0.0.1:{}", port ^ 1);
    let secure = format!("https://127.0.0.1:{port}");
    let cells: &[Cell<'_>] = &[
        (&[], true),
        (&[("Host", &host)], true),
        (&[("Host", &host_v6)], true),
        (&[("Host", "localhost")], true),
        (&[("Host", "127.0.0.1")], true),
        (&[("Host", "127.8.9.10:1")], true),
        (&[("Host", "larder.localhost")], true),
        (&[("Host", "evil.example")], false),
        (&[("Host", "localhost.evil.example")], false),
        (&[("Host", "127.0.0.1.evil.example")], false),
        (&[("Host", "192.168.1.1")], false),
        (&[("Host", "0.0.0.0")], false),
        (&[("Origin", &own)], true),
        (&[("Origin", &by_name), ("Host", &host)], true),
        (&[("Origin", &other_port)], false),
        (&[("Origin", &secure)], false),
        (&[("Origin", "http://evil.example")], false),
        (&[("Origin", "null")], false),
        (&[("Origin", "")], false),
        (&[("Origin", "file://")], false),
        (
            &[("Origin", &own), ("Origin", "http://evil.example")],
            false,
        ),
        (&[("Sec-Fetch-Site", "cross-site")], false),
        (&[("Sec-Fetch-Site", "cross-site"), ("Origin", &own)], false),
        (&[("Sec-Fetch-Site", "same-origin")], true),
        (&[("Sec-Fetch-Site", "none")], true),
        (
            &[
                ("Sec-Fetch-Site", "same-origin"),
                ("Origin", "http://evil.example"),
            ],
            false,
        ),
        (
            &[("Host", "evil.example"), ("Origin", "http://evil.example")],
            false,
        ),
        (
            &[("Host", "evil.example"), ("X-Forwarded-Host", &host)],
            false,
        ),
        (&[("X-Forwarded-Host", "evil.example")], true),
    ];
    assert_cells(&larder, cells).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_public_url_s_host_is_larder_s_own() {
    let origin = Origin::start().await;
    origin.put("/a", Resource::new("a"));
    let larder = TestLarder::start(&format!(
        "public_url: https://larder.example/sub\n{}",
        remote("generic", &origin, "")
    ))
    .await;
    let cells: &[Cell<'_>] = &[
        (&[], true),
        (&[("Host", "larder.example")], true),
        (
            &[
                ("Host", "larder.example"),
                ("Origin", "https://larder.example"),
            ],
            true,
        ),
        (&[("Host", "larder.example:8443")], false),
        (
            &[
                ("Host", "larder.example"),
                ("Origin", "https://evil.example"),
            ],
            false,
        ),
        (&[("Host", "larder.example.evil.example")], false),
        (&[("Host", "sub.larder.example")], false),
        (&[("Host", "evil.example")], false),
    ];
    assert_cells(&larder, cells).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_token_the_token_decides() {
    let origin = Origin::start().await;
    origin.put("/a", Resource::new("a"));
    let token = "t0ken-of-the-operator";
    let larder = Setup::new(&remote("generic", &origin, ""))
        .env("LARDER_ADMIN_TOKEN", token)
        .start()
        .await;
    let flush = larder.url("/cache/flush");
    let bearer = |text: &str| format!("Bearer {text}");
    for (authorization, want) in [
        (None, 401),
        (Some(bearer("")), 401),
        (Some(bearer("wrong")), 401),
        (Some(bearer(&token[1..])), 401),
        (Some(bearer(&format!("{token}x"))), 401),
        (Some(bearer(&token.to_uppercase())), 401),
        (Some(format!("Basic {token}")), 401),
        (Some(token.to_owned()), 401),
        (Some(bearer(token)), 200),
        (Some(format!("bearer {token}")), 200),
    ] {
        let headers: Vec<(&str, &str)> = authorization
            .iter()
            .map(|value| ("Authorization", value.as_str()))
            .collect();
        let answer = send("PUT", &flush, &headers).await;
        assert_eq!(answer.status, want, "{authorization:?}: {}", answer.text());
        assert!(!answer.text().contains(token));
        if want == 401 {
            assert!(
                answer.header("www-authenticate").starts_with("Bearer"),
                "{:?}",
                answer.headers
            );
            assert!(
                answer.text().contains("auth.admin_token"),
                "the setting that opens it: {}",
                answer.text()
            );
        }
    }
    // What is not built is no way round, and reading needs nothing.
    for (method, path) in [
        ("PUT", "/api/v1/remote/generic/a"),
        ("DELETE", "/api/v1/remote/generic/a"),
        ("POST", "/api/v1/artifacts/generic/cache"),
    ] {
        assert_eq!(
            send(method, &larder.url(path), &[]).await.status,
            401,
            "{method} {path}"
        );
    }
    for path in [
        "/live",
        "/health",
        "/config",
        "/metrics",
        "/",
        "/api/v1/remote/generic/a",
    ] {
        assert_eq!(get(&larder.url(path)).await.status, 200, "{path}");
    }
    for path in ["/config", "/metrics", "/health"] {
        assert!(
            !get(&larder.url(path)).await.text().contains(token),
            "{path}"
        );
    }
    assert!(!larder.log().contains(token));
}

/// Who would publish to a copy of an upstream needs no token, but another repository.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_refused_names_its_repository_and_whether_a_token_would_help() {
    let origin = Origin::start().await;
    let config = format!(
        "remotes:\n{}{}",
        entry("files", "generic", &origin, ""),
        entry("hub", "docker", &origin, "")
    );
    let larder = Setup::new(&config)
        .env("LARDER_ADMIN_TOKEN", "t0ken-of-the-operator")
        .start()
        .await;
    for (method, path, repository, is_upload) in [
        ("PUT", "api/v1/remote/files/a", Some("files"), true),
        ("DELETE", "api/v1/remote/files/a", Some("files"), false),
        ("POST", "v2/hub/a/blobs/uploads/", Some("hub"), true),
        ("PUT", "hub/v2/a/manifests/1", Some("hub"), true),
        ("PUT", "api/v1/remote/nobody/a", None, false),
        ("PUT", "cache/flush", None, false),
    ] {
        let answer = send(method, &larder.url(path), &[]).await;
        assert_eq!(answer.status, 401, "{method} {path}: {}", answer.text());
        let body = answer.json();
        let detail = if body["errors"].is_array() {
            &body["errors"][0]["detail"]
        } else {
            &body
        };
        assert_eq!(
            detail["repository"].as_str(),
            repository,
            "{method} {path}: {body}"
        );
        assert_eq!(
            answer.text().contains("takes no uploads"),
            is_upload,
            "{method} {path}: {body}"
        );
        assert!(answer.text().contains("auth.admin_token"), "{body}");
    }
    assert_eq!(
        larder
            .metric(
                "larder_refusals_total",
                "repository=\"hub\",code=\"unauthorized\""
            )
            .await as u64,
        2
    );
}

/// Nothing is built in that would open anything: no password, no token, no key that two installations share.
#[tokio::test(flavor = "multi_thread")]
async fn hazard_s5_no_default_password_or_key() {
    let origin = Origin::start().await;
    let index = "apiVersion: v1\nentries:\n  a:\n  - name: a\n    version: 1.0.0\n    urls: [https://other.example.com/a-1.0.0.tgz]\n";
    origin.put(
        "/index.yaml",
        Resource::new(index).content_type("text/yaml"),
    );
    let start = || {
        Setup::new(&remote("helm", &origin, ""))
            .env("LARDER_LISTEN", "0.0.0.0:0")
            .start()
    };
    let (one, other) = (start().await, start().await);
    let host = format!("127.0.0.1:{}", one.address().port());
    let flush = format!("http://{host}/cache/flush");
    let basic = |pair: &str| {
        format!(
            "Basic {}",
            base64::engine::general_purpose::STANDARD.encode(pair)
        )
    };
    let tried = [
        "Bearer ",
        "Bearer admin",
        "Bearer larder",
        "Bearer changeme",
        "Bearer null",
        "Bearer undefined",
    ];
    let logins = [
        "admin:",
        "admin:admin",
        "admin:password",
        "admin:Harbor12345",
        "larder:larder",
        ":",
    ]
    .map(basic);
    let refused = send("PUT", &flush, &[]).await;
    assert!(matches!(refused.status, 401 | 403), "{}", refused.text());
    for authorization in tried
        .iter()
        .copied()
        .chain(logins.iter().map(String::as_str))
    {
        let answer = send("PUT", &flush, &[("Authorization", authorization)]).await;
        assert!(
            matches!(answer.status, 401 | 403),
            "{authorization}: {} {}",
            answer.status,
            answer.text()
        );
    }
    let mut signatures = Vec::new();
    for larder in [&one, &other] {
        let url = format!(
            "http://127.0.0.1:{}/api/v1/remote/helm/index.yaml",
            larder.address().port()
        );
        let text = get(&url).await.text();
        let signed = text
            .split_once("/_ext/")
            .and_then(|(_, rest)| rest.split_once('/'));
        signatures.push(
            signed
                .expect("a link to another host is signed")
                .0
                .to_owned(),
        );
    }
    assert_ne!(
        signatures[0], signatures[1],
        "each installation has made a key of its own"
    );
}

//! The URL table, the guard of what changes state, forwarded addresses, health.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use larder_core::{Principal, PublicUrls, Secret};
use larder_engine::CacheType;
use larder_server::{LiveSettings, ServerSettings};
use url::Url;

use crate::harness::{Script, Server, Spec, settings};

#[tokio::test]
async fn what_is_not_built_yet_says_so() {
    let server = Server::start().await;
    for (method, target, status) in [
        ("GET", "/api/v1/virtual/all/index.yaml", 501),
        ("GET", "/api/v1/virtual/files/index.yaml", 404),
        ("GET", "/api/v1/virtual/unknown/index.yaml", 404),
        ("GET", "/api/v1/artifacts?source=upstream", 400),
        ("POST", "/api/v1/artifacts/files/cache", 400),
        ("GET", "/api/v1/jobs/1", 501),
        ("PUT", "/api/v1/remote/uploads/x", 501),
        ("PUT", "/api/v1/remote/unknown/x", 404),
    ] {
        let answer = server.ask(method, target, &[]).await;
        assert_eq!(answer.status, status, "{method} {target}");
        assert!(answer.json()["error"].is_string(), "{method} {target}");
    }
    assert_eq!(server.questions(), 0);
}

#[tokio::test]
async fn other_methods_and_other_paths() {
    let server = Server::start().await;
    for (method, target, allow) in [
        ("PUT", "/api/v1/remote/files/x", "GET, HEAD, DELETE"),
        ("PATCH", "/api/v1/remote/files/x", "GET, HEAD, DELETE"),
        ("OPTIONS", "/api/v1/remote/files/x", "GET, HEAD, DELETE"),
        ("PUT", "/api/v1/remote/npm/x", "GET, HEAD, POST, DELETE"),
        ("OPTIONS", "/api/v1/remote/npm/x", "GET, HEAD, POST, DELETE"),
        ("DELETE", "/api/v1/remote/all/x", "GET, HEAD"),
        ("OPTIONS", "/api/v1/virtual/all/x", "GET, HEAD"),
        ("GET", "/cache/flush", "PUT"),
        ("POST", "/config", "GET, HEAD"),
        ("OPTIONS", "/", "GET, HEAD"),
    ] {
        let answer = server.ask(method, target, &[]).await;
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, Some(allow)),
            "{method} {target}"
        );
    }
    for method in ["OPTIONS", "PATCH", "PUT"] {
        for target in ["/api/v1/remote/nobody/x", "/api/v1/virtual/nobody/x"] {
            let answer = server.ask(method, target, &[]).await;
            assert_eq!(answer.status, 404, "{method} {target}");
            assert_eq!(
                answer.json()["code"],
                "unknown_repository",
                "{method} {target}"
            );
        }
    }
    for target in [
        "/nothing",
        "/api/v1/remote",
        "/api/v2/remote/files/x",
        "/config/",
        "/.git/config",
        "/cache",
    ] {
        let answer = server.ask("GET", target, &[]).await;
        assert_eq!(answer.status, 404, "{target}");
        assert_eq!(answer.json()["code"], "not_found", "{target}");
    }
    assert_eq!(server.questions(), 0);
}

#[tokio::test]
async fn flush_passes_its_parameters_on() {
    let server = Server::start().await;
    let answer = server
        .ask(
            "PUT",
            "/cache/flush?remote=files&cache_type=index&pattern=%5C.yaml%24",
            &[],
        )
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.json(),
        serde_json::json!({"flushed": {"index": 2, "files": 3, "metrics": true}})
    );
    {
        let flushed = server.fake.flushed.lock().unwrap();
        assert_eq!(flushed[0].remote.as_deref(), Some("files"));
        assert_eq!(flushed[0].pattern.as_deref(), Some("\\.yaml$"));
        assert_eq!(flushed[0].cache_type, CacheType::Index);
    }
    for query in [
        "cache_type=everything",
        "remote=a&remote=b",
        "repository=files",
    ] {
        assert_eq!(
            server
                .ask("PUT", &format!("/cache/flush?{query}"), &[])
                .await
                .status,
            400,
            "{query}"
        );
    }
    assert_eq!(server.fake.flushed.lock().unwrap().len(), 1);
}

const CHANGES: [(&str, &str); 12] = [
    ("PUT", "/cache/flush"),
    ("PUT", "/api/v1/remote/uploads/x"),
    ("DELETE", "/api/v1/remote/uploads/x"),
    ("POST", "/api/v1/artifacts/files/cache"),
    ("POST", "/api/v1/artifacts/cache"),
    ("PUT", "/v2/hub/alpine/manifests/latest"),
    ("POST", "/api/v1/gc"),
    ("POST", "/api/v1/scrub"),
    ("DELETE", "/api/v1/scrub"),
    ("DELETE", "/api/v1/jobs/1"),
    ("POST", "/api/v1/archive/files"),
    (
        "PUT",
        "/api/v1/blobs/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    ),
];

/// The rows themselves are tested beside the guard; here, that every route which changes state asks it.
#[tokio::test]
async fn everything_that_changes_state_is_guarded() {
    let server = Server::start().await;
    for (method, target) in CHANGES {
        for (name, value) in [
            ("Origin", "https://evil.example"),
            ("Sec-Fetch-Site", "cross-site"),
            ("Host", "evil.example"),
        ] {
            assert_eq!(
                server.ask(method, target, &[(name, value)]).await.status,
                403,
                "{method} {target} {name}"
            );
        }
        // 400: it is let in, and says what its body has to be.
        let answer = server.ask(method, target, &[]).await;
        assert!(
            matches!(answer.status, 200 | 400 | 405 | 501),
            "{method} {target}: {}",
            answer.status
        );
    }
    assert_eq!(server.fake.flushed.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn with_a_token_the_token_decides() {
    let live = LiveSettings {
        admin_token: Some(Secret::new("s3cret".to_owned())),
        ..settings().live
    };
    let server = Server::with(ServerSettings { live, ..settings() }).await;
    for (method, target) in CHANGES {
        let answer = server.ask(method, target, &[]).await;
        assert_eq!(answer.status, 401, "{method} {target}");
        assert!(answer.text().contains("auth.admin_token"));
        assert!(
            answer
                .header("www-authenticate")
                .is_some_and(|value| value.starts_with("Bearer"))
        );
        assert_eq!(
            server
                .ask(method, target, &[("Authorization", "Bearer wrong")])
                .await
                .status,
            401,
            "{method} {target}"
        );
    }
    assert_eq!(
        server
            .ask("PUT", "/cache/flush", &[("Authorization", "Bearer s3cret")])
            .await
            .status,
        200
    );
    // Reading and what a format passes through need none.
    server.script("-/audit", Script::Through("{}".into()));
    assert_eq!(
        server
            .ask(
                "POST",
                "/api/v1/remote/npm/-/audit",
                &[("Content-Length", "0")]
            )
            .await
            .status,
        200
    );
    assert_eq!(server.ask("GET", "/config", &[]).await.status, 200);
}

#[tokio::test]
async fn hazard_s5_a_server_beyond_loopback_changes_nothing_without_a_token() {
    let listen = vec!["127.0.0.1:0".parse().unwrap(), "0.0.0.0:0".parse().unwrap()];
    let server = Server::with(ServerSettings {
        listen,
        ..settings()
    })
    .await;
    let answer = server.ask("PUT", "/cache/flush", &[]).await;
    assert_eq!(answer.status, 401);
    assert!(answer.text().contains("LARDER_ADMIN_TOKEN"));
    server.script("x", Script::Bytes("body".into(), Spec::default()));
    assert_eq!(
        server
            .ask("GET", "/api/v1/remote/files/x", &[])
            .await
            .status,
        200
    );
    let live = LiveSettings {
        admin_token: Some(Secret::new("s3cret".to_owned())),
        ..LiveSettings::default()
    };
    server.handle.replace_live(live);
    assert_eq!(
        server
            .ask("PUT", "/cache/flush", &[("Authorization", "Bearer s3cret")])
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn hazard_s17_the_token_is_shown_nowhere() {
    let live = LiveSettings {
        admin_token: Some(Secret::new("c4nary".to_owned())),
        ..settings().live
    };
    let settings = ServerSettings { live, ..settings() };
    assert!(!format!("{settings:?}").contains("c4nary"));
    let server = Server::with(settings).await;
    assert!(!format!("{:?}", server.handle).contains("c4nary"));
    for (method, target) in [
        ("GET", "/config"),
        ("GET", "/metrics"),
        ("GET", "/"),
        ("GET", "/health"),
        ("PUT", "/cache/flush"),
    ] {
        assert!(
            !server
                .ask(method, target, &[])
                .await
                .text()
                .contains("c4nary"),
            "{target}"
        );
    }
}

#[tokio::test]
async fn hazard_s18_forwarded_addresses_count_from_trusted_peers_only() {
    let forwarded = [
        ("Host", "inner.example"),
        ("X-Forwarded-Host", "larder.example"),
        ("X-Forwarded-Proto", "https"),
    ];
    let server = Server::start().await;
    server.ask("GET", "/api/v1/remote/npm/x", &forwarded).await;
    assert_eq!(
        server.fake.asked.lock().unwrap()[0].base,
        "http://inner.example"
    );
    let mut trusting = settings();
    trusting.live.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    let server = Server::with(trusting).await;
    server.ask("GET", "/api/v1/remote/npm/x", &forwarded).await;
    assert_eq!(
        server.fake.asked.lock().unwrap()[0].base,
        "https://larder.example"
    );
}

#[tokio::test]
async fn the_pipeline_is_told_on_whose_behalf_it_is_asked() {
    let mut with_token = settings();
    with_token.live.admin_token = Some(Secret::new("c4nary".to_owned()));
    let server = Server::with(with_token).await;
    for (authorization, principal) in [
        ("Bearer c4nary", Principal::Admin),
        ("bearer  c4nary ", Principal::Admin),
        ("Bearer of-the-upstream", Principal::Anonymous),
        ("Basic YTpjNG5hcnk=", Principal::Anonymous),
        ("Bearer ", Principal::Anonymous),
    ] {
        let headers = [("Authorization", authorization)];
        server.ask("GET", "/api/v1/remote/npm/x", &headers).await;
        let asked = server.fake.asked.lock().unwrap().pop().unwrap();
        assert_eq!(asked.principal, principal, "{authorization}");
    }
}

#[tokio::test]
async fn hazard_a4_liveness_asks_nobody_and_health_asks_for_verdicts() {
    let server = Server::start().await;
    assert_eq!(server.ask("GET", "/live", &[]).await.status, 200);
    assert_eq!(server.fake.health_questions.load(Ordering::SeqCst), 0);
    let answer = server.ask("GET", "/health", &[]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.json()["backends"]["metadata"],
        serde_json::json!({"kind": "sqlite", "status": "ok"})
    );
    server.fake.unhealthy.store(true, Ordering::SeqCst);
    let answer = server.ask("GET", "/health", &[]).await;
    assert_eq!(
        (
            answer.status,
            answer.json()["backends"]["metadata"]["detail"].as_str()
        ),
        (503, Some("locked"))
    );
    assert_eq!(answer.json()["backends"]["blobs"]["status"], "ok");
    assert_eq!(server.ask("GET", "/ready", &[]).await.status, 503);
    assert_eq!(server.ask("GET", "/live", &[]).await.status, 200);
}

#[tokio::test]
async fn the_root_lists_the_repositories() {
    let server = Server::start().await;
    let answer = server
        .ask("GET", "/", &[("Host", "larder.example:8000")])
        .await
        .json();
    assert_eq!(
        (answer["name"].as_str(), answer["version"].as_str()),
        (Some("larder"), Some("0.0.0-test"))
    );
    let expected = serde_json::json!({
        "type": "remote", "package": "npm", "description": "about npm", "url": "http://larder.example:8000/api/v1/remote/npm",
    });
    assert_eq!(answer["remotes"]["npm"], expected);
    assert_eq!(
        answer["remotes"]["all"]["url"],
        "http://larder.example:8000/api/v1/virtual/all"
    );
    let public_urls = PublicUrls::new(vec![Url::parse("https://larder.example/cache/").unwrap()]);
    server.handle.replace_live(LiveSettings {
        public_urls,
        ..LiveSettings::default()
    });
    let answer = server.ask("GET", "/", &[]).await.json();
    assert_eq!(
        answer["remotes"]["npm"]["url"],
        "https://larder.example/cache/api/v1/remote/npm"
    );
}

#[tokio::test]
async fn configuration_and_description_are_served() {
    let server = Server::start().await;
    assert_eq!(
        server.ask("GET", "/config", &[]).await.json(),
        serde_json::json!({"remotes": {}})
    );
    assert!(
        server.ask("GET", "/api/openapi.json", &[]).await.json()["paths"]["/cache/flush"]["put"]
            .is_object()
    );
    let live = LiveSettings {
        config_view: serde_json::json!({"listen": "elsewhere"}),
        config_lines: Arc::default(),
        ..LiveSettings::default()
    };
    server.handle.replace_live(live);
    assert_eq!(
        server.ask("GET", "/config", &[]).await.json()["listen"],
        "elsewhere"
    );
}

#[tokio::test]
async fn every_answer_but_a_hot_one_names_its_request() {
    let server = Server::start().await;
    let first = server
        .ask("GET", "/nothing", &[("X-Request-Id", "mine")])
        .await;
    let second = server.ask("GET", "/nothing", &[]).await;
    let id = |answer: &crate::harness::Answer| answer.header("x-request-id").unwrap().to_owned();
    assert_ne!(id(&first), id(&second));
    assert_ne!(id(&first), "mine");
}

//! `/v2/`: which repository is meant, what every answer carries, errors in the registries' form.

use larder_core::{Fault, FaultKind};
use larder_engine::Representation;
use larder_server::LiveSettings;

use crate::harness::{Answer, Script, Server, Spec, etag, settings};

const MANIFEST: &str = "library/alpine/manifests/latest";
const VERSION: &str = "docker-distribution-api-version";

async fn with_default(default: Option<&str>) -> Server {
    let live = LiveSettings {
        docker_default_remote: default.map(str::to_owned),
        ..settings().live
    };
    let server = Server::with(larder_server::ServerSettings { live, ..settings() }).await;
    server.script(MANIFEST, Script::Bytes("manifest".into(), Spec::default()));
    server.script(
        "hub/app/manifests/1",
        Script::Bytes("default".into(), Spec::default()),
    );
    server
}

fn asked(server: &Server) -> Vec<(String, String)> {
    let mut asked = server.fake.asked.lock().unwrap();
    asked
        .drain(..)
        .map(|asked| (asked.repository, asked.path))
        .collect()
}

#[track_caller]
fn assert_error(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    let error = &answer.json()["errors"][0];
    assert_eq!(error["code"], code, "{answer:?}");
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|message| !message.is_empty())
    );
    assert_eq!(answer.header(VERSION), Some("registry/2.0"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn oci_01_the_ping() {
    let server = with_default(None).await;
    for target in ["/v2/", "/v2", "/hub/v2/", "/hub/v2"] {
        let answer = server.ask("GET", target, &[]).await;
        assert_eq!((answer.status, answer.text()), (200, "{}"), "{target}");
        assert_eq!(answer.header(VERSION), Some("registry/2.0"), "{target}");
        assert_eq!(
            server.ask("HEAD", target, &[]).await.status,
            200,
            "{target}"
        );
    }
    assert_eq!(
        server.ask("GET", "/v2/_catalog", &[]).await.json(),
        serde_json::json!({"repositories": []})
    );
    assert!(asked(&server).is_empty());
}

/// RFC 3986 section 5.2.4, as everywhere else: a mirror's address that ends in a slash makes `//`.
#[tokio::test]
async fn idle_segments_do_not_hide_which_repository_is_meant() {
    let server = with_default(Some("hub")).await;
    for target in [
        format!("/v2//hub/{MANIFEST}"),
        format!("/v2/./hub//{MANIFEST}"),
        format!("/hub/v2//{MANIFEST}"),
        format!("/hub/v2/./{MANIFEST}"),
        format!("/v2//{MANIFEST}"),
        format!("/v2/.//{MANIFEST}"),
    ] {
        assert_eq!(
            server.ask("GET", &target, &[]).await.text(),
            "manifest",
            "{target}"
        );
        let (repository, path) = asked(&server).remove(0);
        assert_eq!(
            (repository.as_str(), path.trim_start_matches('/')),
            ("hub", MANIFEST),
            "{target}"
        );
    }
    for target in ["/v2//", "/v2/.", "/v2/./", "/hub/v2//", "/hub/v2/."] {
        assert_eq!(
            server.ask("GET", target, &[]).await.text(),
            "{}",
            "{target}"
        );
    }
}

#[tokio::test]
async fn images_are_asked_of_the_repository_that_their_name_begins_with() {
    let server = with_default(None).await;
    for target in [format!("/v2/hub/{MANIFEST}"), format!("/hub/v2/{MANIFEST}")] {
        let answer = server.ask("GET", &target, &[]).await;
        assert_eq!(
            (answer.status, answer.text()),
            (200, "manifest"),
            "{target}"
        );
        assert_eq!(answer.header(VERSION), Some("registry/2.0"));
        assert_eq!(asked(&server), [("hub".to_owned(), MANIFEST.to_owned())]);
    }
    for target in [
        format!("/v2/{MANIFEST}"),
        format!("/v2/files/{MANIFEST}"),
        "/v2/h%75b/x".to_owned(),
    ] {
        assert_error(
            &server.ask("GET", &target, &[]).await,
            404,
            "unknown_repository",
        );
    }
    let generic = server
        .ask("GET", &format!("/files/v2/{MANIFEST}"), &[])
        .await;
    assert_eq!(
        (generic.status, generic.json()["code"].as_str()),
        (404, Some("not_found"))
    );
    assert!(asked(&server).is_empty());
}

#[tokio::test]
async fn names_without_a_repository_are_the_default_remote_s() {
    let server = with_default(Some("hub")).await;
    assert_eq!(
        server
            .ask("GET", &format!("/v2/{MANIFEST}"), &[])
            .await
            .text(),
        "manifest"
    );
    // A first component that is a docker repository's name always means that.
    assert_eq!(
        server
            .ask("GET", &format!("/v2/hub/{MANIFEST}"), &[])
            .await
            .text(),
        "manifest"
    );
    // One that is another repository's name is an image's.
    server.ask("GET", "/v2/files/app/manifests/1", &[]).await;
    let hub = |path: &str| ("hub".to_owned(), path.to_owned());
    assert_eq!(
        asked(&server),
        [hub(MANIFEST), hub(MANIFEST), hub("files/app/manifests/1")]
    );
}

#[tokio::test]
async fn the_registry_that_a_client_names_chooses_among_configured_repositories() {
    let registries = [
        ("registry.example.com", "hub"),
        ("other.example.com:5000", "hub"),
    ];
    let docker_registries = registries
        .map(|(host, name)| (host.to_owned(), name.to_owned()))
        .into();
    let live = LiveSettings {
        docker_registries,
        ..settings().live
    };
    let server = Server::with(larder_server::ServerSettings { live, ..settings() }).await;
    server.script(MANIFEST, Script::Bytes("manifest".into(), Spec::default()));
    for query in [
        "ns=registry.example.com",
        "x=1&ns=Registry.example.com&ns=y",
        "ns=other.example.com%3A5000",
    ] {
        let answer = server
            .ask("GET", &format!("/v2/{MANIFEST}?{query}"), &[])
            .await;
        assert_eq!((answer.status, answer.text()), (200, "manifest"), "{query}");
        assert_eq!(asked(&server), [("hub".to_owned(), MANIFEST.to_owned())]);
    }
    for query in [
        "ns=",
        "ns=hub",
        "ns=other.example.com",
        "ns=evil.example",
        "ns=http://registry.example.com/",
        "ms=registry.example.com",
    ] {
        assert_error(
            &server
                .ask("GET", &format!("/v2/{MANIFEST}?{query}"), &[])
                .await,
            404,
            "unknown_repository",
        );
    }
    assert!(asked(&server).is_empty());
    // A repository's name in front decides, whatever registry the client names.
    server
        .ask("GET", &format!("/v2/hub/{MANIFEST}?ns=evil.example"), &[])
        .await;
    assert_eq!(asked(&server), [("hub".to_owned(), MANIFEST.to_owned())]);
    assert_error(
        &server
            .ask(
                "PUT",
                &format!("/v2/{MANIFEST}?ns=registry.example.com"),
                &[],
            )
            .await,
        405,
        "read_only",
    );
}

/// An image of another registry may have the same name.
#[tokio::test]
async fn the_default_remote_answers_for_no_other_registry_than_its_own() {
    let live = LiveSettings {
        docker_default_remote: Some("hub".to_owned()),
        docker_registries: [("registry.example.com".to_owned(), "hub".to_owned())].into(),
        ..settings().live
    };
    let server = Server::with(larder_server::ServerSettings { live, ..settings() }).await;
    server.script(MANIFEST, Script::Bytes("manifest".into(), Spec::default()));
    for query in [
        "",
        "?ns=",
        "?ns=registry.example.com",
        "?x=other.example.com",
    ] {
        let answer = server
            .ask("GET", &format!("/v2/{MANIFEST}{query}"), &[])
            .await;
        assert_eq!((answer.status, answer.text()), (200, "manifest"), "{query}");
        assert_eq!(asked(&server), [("hub".to_owned(), MANIFEST.to_owned())]);
    }
    for registry in ["other.example.com", "registry.example.com:5000"] {
        let target = format!("/v2/{MANIFEST}?ns={registry}");
        let answer = server.ask("GET", &target, &[]).await;
        assert_error(&answer, 404, "unknown_repository");
        let message = answer.json()["errors"][0]["message"].to_string();
        assert!(message.contains(registry), "{message}");
        let head = server.ask("HEAD", &target, &[]).await;
        assert_eq!(head.status, 404, "{target}");
    }
    assert!(asked(&server).is_empty());
}

#[tokio::test]
async fn a_remote_takes_no_writes() {
    let server = with_default(Some("hub")).await;
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        for target in [
            "/v2/hub/app/blobs/uploads/",
            "/v2/app/blobs/uploads/",
            "/hub/v2/app/blobs/uploads/",
        ] {
            let answer = server.ask(method, target, &[]).await;
            assert_error(&answer, 405, "read_only");
            assert_eq!(answer.header("allow"), Some("GET, HEAD"));
        }
    }
    assert_error(
        &server.ask("OPTIONS", "/v2/hub/x", &[]).await,
        405,
        "method_not_allowed",
    );
    assert!(asked(&server).is_empty());
}

#[tokio::test]
async fn errors_are_in_the_registries_form() {
    let server = with_default(None).await;
    assert_error(
        &server.ask("GET", "/v2/hub/app/manifests/none", &[]).await,
        404,
        "not_found",
    );
    let fault = Fault::new(
        FaultKind::Upstream(429),
        larder_core::ErrorCode::RateLimited,
        "the upstream is busy",
    );
    let fault = fault.retry_after(Some(std::time::Duration::from_secs(60)));
    server.script("busy", Script::Refuse(fault));
    let answer = server.ask("GET", "/v2/hub/busy", &[]).await;
    assert_error(&answer, 429, "rate_limited");
    assert_eq!(answer.header("retry-after"), Some("60"));
    server.script("blob", Script::Bytes("0123456789".into(), Spec::default()));
    assert_error(
        &server
            .ask("GET", "/v2/hub/blob", &[("Range", "bytes=10-")])
            .await,
        416,
        "range_not_satisfiable",
    );
    let foreign = server
        .ask(
            "PUT",
            "/v2/hub/app/manifests/1",
            &[("Origin", "https://evil.example")],
        )
        .await;
    assert_eq!(
        (foreign.status, foreign.header(VERSION)),
        (403, Some("registry/2.0"))
    );
    assert!(foreign.json()["errors"][0]["code"].is_string());
}

/// One line for each media type, as podman and skopeo send it; containerd's one line is another request.
#[tokio::test]
async fn hits_come_out_of_the_hot_set_whatever_lines_accept_has() {
    let server = with_default(None).await;
    let representation = Representation {
        vary: &["accept"],
        ..etag("v1")
    };
    let hot = |representation| Spec {
        representation,
        hot: true,
        ..Spec::default()
    };
    server.script(
        "app/manifests/1",
        Script::Bytes("tag".into(), hot(representation)),
    );
    let lines = [("Accept", "a/1"), ("Accept", "a/2"), ("Accept", "a/3")];
    for (headers, questions) in [
        (&lines[..], 1),
        (&lines, 1),
        (&lines[..2], 2),
        (&[("Accept", "a/1, a/2, a/3")], 3),
        (&lines, 3),
    ] {
        for method in ["GET", "HEAD"] {
            let answer = server.ask(method, "/v2/hub/app/manifests/1", headers).await;
            assert_eq!(
                (answer.status, answer.header("content-length")),
                (200, Some("3"))
            );
            assert_eq!(answer.header(VERSION), Some("registry/2.0"));
            assert_eq!(answer.header("etag"), Some("\"v1\""));
        }
        assert_eq!(server.questions(), questions, "{headers:?}");
    }
}

#[tokio::test]
async fn the_pipeline_is_told_where_the_client_sees_the_repository() {
    let server = with_default(Some("hub")).await;
    for (target, prefix) in [
        ("/v2/hub/library/alpine/manifests/latest", "/v2/hub"),
        ("/v2/library/alpine/manifests/latest", "/v2"),
        ("/hub/v2/library/alpine/manifests/latest", "/hub/v2"),
        (
            "/api/v1/remote/hub/library/alpine/manifests/latest",
            "/api/v1/remote/hub",
        ),
    ] {
        server.ask("GET", target, &[("Host", "a.example")]).await;
        let asked = server.fake.asked.lock().unwrap().pop().unwrap();
        assert_eq!(
            (
                asked.base.as_str(),
                asked.prefix.as_str(),
                asked.path.as_str()
            ),
            ("http://a.example", prefix, MANIFEST),
            "{target}"
        );
    }
}

//! The hot set over HTTP: what is answered without the pipeline, and when the pipeline is asked again.

use std::sync::atomic::Ordering;
use std::time::Duration;

use larder_engine::Representation;
use larder_server::LiveSettings;

use crate::harness::{Script, Server, Spec, etag, file_of, pattern, settings};

const X: &str = "/api/v1/remote/files/x";

fn hot(representation: Representation, remaining: Option<u64>) -> Spec {
    Spec {
        representation,
        remaining: remaining.map(Duration::from_secs),
        age: Duration::from_secs(5),
        hot: true,
        not_for_anyone: false,
    }
}

#[tokio::test]
async fn a_hit_asks_nobody_and_carries_the_present_times() {
    let server = Server::start().await;
    server.script("x", Script::Bytes("body".into(), hot(etag("v1"), Some(60))));
    let first = server.ask("GET", X, &[]).await;
    assert_eq!(
        (first.header("age"), first.header("cache-control")),
        (Some("5"), Some("max-age=65"))
    );
    server.fake.now.fetch_add(10_500, Ordering::SeqCst);
    for (method, header) in [
        ("GET", ("Accept", "*/*")),
        ("HEAD", ("Accept", "*/*")),
        ("GET", ("If-None-Match", "\"v1\"")),
    ] {
        let answer = server.ask(method, X, &[header]).await;
        // RFC 9111 section 4.2.3: all three speak of the same moment, that of the contact with the upstream.
        assert_eq!(answer.header("age"), Some("15"), "{method} {header:?}");
        assert_eq!(
            answer.header("cache-control"),
            Some("max-age=64"),
            "15 of them gone, 49 whole seconds left"
        );
        assert_eq!(
            answer.header("date"),
            first.header("date"),
            "{method} {header:?}"
        );
    }
    let answer = server.ask("GET", X, &[]).await;
    assert_eq!((answer.status, answer.text()), (200, "body"));
    assert_eq!(answer.header("cache-status"), Some("larder; hit; ttl=49"));
    assert_eq!(answer.header("x-artifact-source"), Some("cache"));
    assert_eq!(server.questions(), 1);
}

#[tokio::test]
async fn a_hit_answers_conditions_and_ranges() {
    let server = Server::start().await;
    let content = pattern(200_000);
    server.script(
        "x",
        Script::Bytes("0123456789".into(), hot(etag("v1"), None)),
    );
    server.script(
        "file",
        Script::File(file_of(&content), 200_000, hot(etag("v2"), None)),
    );
    let file = "/api/v1/remote/files/file";
    server.ask("GET", X, &[]).await;
    server.ask("HEAD", file, &[]).await;
    assert_eq!(
        server
            .ask("GET", X, &[("If-None-Match", "\"v1\"")])
            .await
            .status,
        304
    );
    assert_eq!(
        server.ask("GET", X, &[("Range", "bytes=-3")]).await.text(),
        "789"
    );
    let answer = server
        .ask("GET", file, &[("Range", "bytes=5-150000")])
        .await;
    assert!(answer.body == content[5..=150_000]);
    assert!(server.ask("GET", file, &[]).await.body == content);
    assert_eq!(server.questions(), 2);
    // What needs an error body goes the long way.
    assert_eq!(
        server.ask("GET", X, &[("Range", "bytes=10-")]).await.status,
        416
    );
    assert_eq!(server.questions(), 3);
}

/// Somebody shortens a file that is held open: whoever asks next, and however, gets what the pipeline has by then.
#[tokio::test]
async fn hazard_a_shortened_file_is_not_answered_from_the_hot_set() {
    let file = "/api/v1/remote/files/file";
    let range = ("Range", "bytes=70000-150000");
    for (headers, length) in [
        (&[][..], 0),
        (&[], 100_000),
        (&[range][..], 149_999),
        (&[range], 0),
    ] {
        let server = Server::start().await;
        let (old, new) = (pattern(200_000), pattern(190_000));
        let held = file_of(&old);
        server.script(
            "file",
            Script::File(std::sync::Arc::clone(&held), 200_000, hot(etag("v1"), None)),
        );
        server.ask("GET", file, &[]).await;
        assert!(
            server.ask("GET", file, &[]).await.body == old,
            "out of the hot set"
        );
        assert_eq!(server.questions(), 1);
        held.set_len(length).unwrap();
        server.script(
            "file",
            Script::File(file_of(&new), 190_000, hot(etag("v2"), None)),
        );
        for _ in 0..2 {
            let answer = server.ask("GET", file, headers).await;
            assert!(answer.complete);
            let expected = if headers.is_empty() {
                &new[..]
            } else {
                &new[70_000..=150_000]
            };
            assert!(
                answer.body == expected,
                "{} of {} bytes",
                answer.body.len(),
                expected.len()
            );
        }
        assert_eq!(server.questions(), 2, "asked once more, and remembered");
    }
}

#[tokio::test]
async fn the_life_of_a_copy_ends_its_place_in_the_hot_set() {
    let server = Server::start().await;
    server.script("x", Script::Bytes("old".into(), hot(etag("v1"), Some(60))));
    server.ask("GET", X, &[]).await;
    server.script("x", Script::Bytes("new".into(), hot(etag("v2"), Some(60))));
    server.fake.now.fetch_add(59_999, Ordering::SeqCst);
    assert_eq!(server.ask("GET", X, &[]).await.text(), "old");
    server.fake.now.fetch_add(1, Ordering::SeqCst);
    assert_eq!(server.ask("GET", X, &[]).await.text(), "new");
    assert_eq!(server.ask("GET", X, &[]).await.text(), "new");
    assert_eq!(server.questions(), 2);
}

#[tokio::test]
async fn a_new_epoch_ends_it_at_once() {
    let server = Server::start().await;
    server.script("x", Script::Bytes("old".into(), hot(etag("v1"), None)));
    server.ask("GET", X, &[]).await;
    server.script("x", Script::Bytes("new".into(), hot(etag("v2"), None)));
    assert_eq!(server.ask("GET", X, &[]).await.text(), "old");
    server.fake.epoch.fetch_add(1, Ordering::SeqCst);
    assert_eq!(server.ask("GET", X, &[]).await.text(), "new");
}

#[tokio::test]
async fn forms_are_kept_apart() {
    let server = Server::start().await;
    let negotiated = Representation {
        vary: &["accept"],
        ..etag("json")
    };
    server.script("x", Script::Bytes("json".into(), hot(negotiated, None)));
    server
        .ask("GET", X, &[("Accept", "application/json")])
        .await;
    server.script(
        "x",
        Script::Bytes(
            "html".into(),
            hot(
                Representation {
                    vary: &["accept"],
                    ..etag("html")
                },
                None,
            ),
        ),
    );
    assert_eq!(
        server
            .ask("GET", X, &[("Accept", "text/html")])
            .await
            .text(),
        "html"
    );
    assert_eq!(
        server
            .ask("GET", X, &[("Accept", "application/json")])
            .await
            .text(),
        "json"
    );
    assert_eq!(
        server
            .ask("GET", X, &[("Accept", "text/html")])
            .await
            .text(),
        "html"
    );
    assert_eq!(server.questions(), 2);
    assert_eq!(
        server
            .ask("GET", &format!("{X}?a"), &[("Accept", "text/html")])
            .await
            .text(),
        "html"
    );
    assert_eq!(server.questions(), 3, "the query is part of the target");
}

#[tokio::test]
async fn links_of_one_host_are_not_given_to_another() {
    let mut settings = settings();
    settings.live.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let server = Server::with(settings).await;
    let linked = || Representation {
        vary: &["host"],
        ..etag("v1")
    };
    server.script("x", Script::Bytes("links to a".into(), hot(linked(), None)));
    server.ask("GET", X, &[("Host", "a.example")]).await;
    assert_eq!(
        server.ask("GET", X, &[("Host", "a.example")]).await.text(),
        "links to a"
    );
    assert_eq!(server.questions(), 1);
    server.script(
        "x",
        Script::Bytes("links to others".into(), hot(linked(), None)),
    );
    for headers in [
        vec![("Host", "b.example")],
        vec![("Host", "a.example:8000")],
        vec![("Host", "a.example"), ("X-Forwarded-Host", "c.example")],
        vec![("Host", "a.example"), ("X-Forwarded-Proto", "https")],
    ] {
        assert_eq!(
            server.ask("GET", X, &headers).await.text(),
            "links to others",
            "{headers:?}"
        );
    }
    let same = [("Host", "inner.example"), ("X-Forwarded-Host", "a.example")];
    assert_eq!(
        server.ask("GET", X, &same).await.text(),
        "links to a",
        "the same base by another way"
    );
}

#[tokio::test]
async fn only_whole_answers_with_permission_are_remembered() {
    let server = Server::start().await;
    server.script("x", Script::Bytes("body".into(), Spec::default()));
    let through = "/api/v1/remote/files/through";
    server.script("through", Script::Through("x".into()));
    for _ in 0..2 {
        server.ask("GET", X, &[]).await;
        server.ask("GET", through, &[]).await;
    }
    assert_eq!(server.questions(), 4);
    let unusual = Representation {
        vary: &["user-agent"],
        ..etag("v1")
    };
    server.script("x", Script::Bytes("body".into(), hot(unusual, None)));
    server.ask("GET", X, &[]).await;
    server.ask("GET", X, &[]).await;
    assert_eq!(server.questions(), 6);
}

#[tokio::test]
async fn new_settings_and_a_flush_empty_it() {
    let server = Server::start().await;
    server.script("x", Script::Bytes("body".into(), hot(etag("v1"), None)));
    server.ask("GET", X, &[]).await;
    server.handle.replace_live(LiveSettings::default());
    server.ask("GET", X, &[]).await;
    assert_eq!(server.questions(), 2);
    assert_eq!(server.ask("PUT", "/cache/flush", &[]).await.status, 200);
    server.ask("GET", X, &[]).await;
    assert_eq!(server.questions(), 3);
}

#[tokio::test]
async fn a_hit_is_checked_like_every_request() {
    let server = Server::start().await;
    server.script("x", Script::Bytes("body".into(), hot(etag("v1"), None)));
    server.ask("GET", X, &[]).await;
    let doubled = format!(
        "GET {X} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n"
    );
    assert_eq!(server.raw(doubled.as_bytes()).await.status, 400);
    let hostless = format!("GET {X} HTTP/1.1\r\n\r\n");
    assert_eq!(server.raw(hostless.as_bytes()).await.status, 400);
}

#[tokio::test]
async fn pipelined_hits_come_back_in_order() {
    let server = Server::start().await;
    server.script("x", Script::Bytes("hot".into(), hot(etag("v1"), None)));
    server.script("y", Script::Bytes("cold".into(), Spec::default()));
    let mut client = server.connect().await;
    client.ask("GET", X, &[]).await;
    let request =
        |path| format!("GET /api/v1/remote/files/{path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client
        .send(format!("{}{}{}", request("x"), request("y"), request("x")).as_bytes())
        .await;
    for expected in ["hot", "cold", "hot"] {
        assert_eq!(client.answer(false).await.text(), expected);
    }
}

#[tokio::test]
async fn the_metrics_tell_hot_answers_from_others() {
    let server = Server::start().await;
    server.script("x", Script::Bytes("body".into(), hot(etag("v1"), None)));
    for _ in 0..3 {
        server.ask("GET", X, &[]).await;
    }
    server.ask("GET", "/api/v1/remote/nonsense/x", &[]).await;
    let answer = server.ask("GET", "/metrics", &[]).await;
    for line in [
        r#"larder_requests_total{repository="files",kind="hit",status="2xx"} 1"#,
        r#"larder_requests_total{repository="files",kind="hot",status="2xx"} 2"#,
        r#"larder_requests_total{repository="",kind="refused",status="4xx"} 1"#,
        r#"larder_repository_misses_total{repository="files"} 5"#,
        r#"larder_sent_bytes_total{repository="files",source="cache"} 12"#,
        "larder_hot_set_entries 1",
    ] {
        assert!(
            answer.text().lines().any(|found| found == line),
            "{line} is not in\n{}",
            answer.text()
        );
    }
    assert!(
        !answer.text().contains("nonsense"),
        "names that strangers invent become labels"
    );
}

#[tokio::test]
async fn what_not_everybody_may_read_is_asked_for_each_time() {
    let server = Server::start().await;
    let spec = Spec {
        not_for_anyone: true,
        ..hot(etag("v1"), None)
    };
    server.script("x", Script::Bytes("body".into(), spec));
    for _ in 0..3 {
        assert_eq!(server.ask("GET", X, &[]).await.status, 200);
    }
    assert_eq!(server.questions(), 3);
}

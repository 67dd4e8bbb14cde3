//! Reason phrases (RFC 9112 section 4), and the body of errors: what happened, in the shapes that clients print.

use larder_core::{Fault, FaultKind};

use crate::harness::{Answer, Script, Server, Spec};

async fn refused(server: &Server, target: &str, fault: Fault) -> Answer {
    server.script("x", Script::Refuse(fault));
    server.ask("GET", target, &[]).await
}

fn fault(message: &str) -> Fault {
    Fault::new(
        FaultKind::Forbidden,
        larder_core::ErrorCode::PatternDenied,
        message,
    )
}

/// Nothing but printable ASCII, and no more than the specification allows.
#[track_caller]
fn assert_plain(answer: &Answer) {
    assert!(
        !answer.reason.is_empty() && answer.reason.len() <= 120,
        "{answer:?}"
    );
    assert!(
        answer
            .reason
            .bytes()
            .all(|byte| (0x20..0x7f).contains(&byte)),
        "{answer:?}"
    );
}

#[tokio::test]
async fn the_reason_phrase_carries_the_sentence_and_the_rule() {
    let server = Server::start().await;
    for target in [
        "/api/v1/remote/files/x",
        "/api/v1/remote/npm/x",
        "/v2/hub/x",
        "/hub/v2/x",
    ] {
        let held = fault("Quarantined until 2026-12-01").by_rule("quarantine_new");
        let answer = refused(&server, target, held).await;
        assert_eq!(
            answer.reason, "Quarantined until 2026-12-01 (rule quarantine_new)",
            "{target}"
        );
        let head = server.ask("HEAD", target, &[]).await;
        assert_eq!(
            (head.status, &head.reason),
            (403, &answer.reason),
            "{target}"
        );
    }
    // What succeeds has the usual one.
    server.script("there", Script::Bytes("there".into(), Spec::default()));
    assert_eq!(
        server
            .ask("GET", "/api/v1/remote/files/there", &[])
            .await
            .reason,
        "OK"
    );
}

#[tokio::test]
async fn every_error_has_one_whoever_makes_it() {
    let server = Server::start().await;
    for (method, target, status, word) in [
        ("GET", "/nothing/here", 404, "nothing at this address"),
        ("PATCH", "/cache/flush", 405, "PATCH"),
        ("GET", "/api/v1/remote/nobody/x", 404, "nobody"),
        (
            "GET",
            "/api/v1/virtual/files/x",
            404,
            "/api/v1/remote/files",
        ),
        ("PUT", "/api/v1/remote/files/x", 405, "files"),
        ("GET", "/api/v1/jobs/1", 501, "not built"),
        ("GET", "/v2/nobody/x/manifests/1", 404, "nobody"),
        ("PUT", "/v2/hub/x/manifests/1", 405, "hub"),
        ("PUT", "/cache/flush?colour=red", 400, "colour"),
    ] {
        let answer = server.ask(method, target, &[("Connection", "close")]).await;
        assert_eq!(answer.status, status, "{method} {target}: {answer:?}");
        assert!(
            answer.reason.contains(word),
            "{method} {target}: {}",
            answer.reason
        );
        assert_plain(&answer);
    }
    let framing = b"GET /live HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n";
    let answer = server.raw(framing).await;
    assert_eq!(
        (answer.status, answer.reason.as_str()),
        (400, "the request has more than one Host")
    );
    assert!(
        answer.header("x-request-id").is_some(),
        "the log's line has the same"
    );
    server.script("f", Script::Bytes("abc".into(), Spec::default()));
    let range = server
        .ask("GET", "/api/v1/remote/files/f", &[("Range", "bytes=7-")])
        .await;
    assert_eq!(range.status, 416);
    assert!(range.reason.contains("3 bytes"), "{}", range.reason);
    let condition = server
        .ask(
            "GET",
            "/api/v1/remote/files/f",
            &[("If-Match", "\"other\"")],
        )
        .await;
    assert_eq!(condition.status, 412);
    assert!(
        condition.reason.contains("condition"),
        "{}",
        condition.reason
    );
}

#[tokio::test]
async fn hazard_s11_no_message_splits_a_response() {
    let server = Server::start().await;
    for hostile in [
        "x\r\nSet-Cookie: stolen=1\r\n\r\n<script>",
        "x\nX-Injected: 1",
        "x\r",
        "tab\there",
        "nul\0 bell\u{7} del\u{7f} csi\u{9b}31m",
        "ünïcödé ☃ \u{2028}\u{85}",
        "\u{1b}]0;title\u{7}",
    ] {
        for message in [
            hostile.to_owned(),
            format!("{}{hostile}", "y".repeat(110)),
            hostile.repeat(40),
        ] {
            let answer = refused(
                &server,
                "/api/v1/remote/files/x",
                fault(&message).by_rule("deny_patterns"),
            )
            .await;
            assert_eq!(answer.status, 403);
            assert_plain(&answer);
            assert!(
                answer.header("set-cookie").is_none() && answer.header("x-injected").is_none(),
                "{answer:?}"
            );
            // The body says it as it is: JSON escapes.
            assert_eq!(answer.json()["error"], message.as_str());
        }
    }
    // What a client itself writes into its request comes back as harmlessly.
    for target in [
        "/api/v1/remote/a%0d%0aX-Injected:%201/x",
        "/%0d%0aX-Injected:%201",
        "/v2/%0d%0aX-Injected:%201/manifests/x",
    ] {
        let answer = server.ask("GET", target, &[]).await;
        assert_plain(&answer);
        assert!(answer.header("x-injected").is_none(), "{answer:?}");
    }
}

#[tokio::test]
async fn a_long_message_is_cut_after_a_word_and_still_names_its_rule() {
    let server = Server::start().await;
    for length in 1..60 {
        let message = "words ".repeat(length);
        let answer = refused(
            &server,
            "/api/v1/remote/files/x",
            fault(message.trim()).by_rule("deny_patterns"),
        )
        .await;
        assert_plain(&answer);
        assert!(
            answer.reason.ends_with(" (rule deny_patterns)"),
            "{}",
            answer.reason
        );
        let words = answer.reason.trim_end_matches(" (rule deny_patterns)");
        let whole = message.trim().len() + " (rule deny_patterns)".len() <= 120;
        assert_eq!(words.ends_with("words..."), !whole, "{length}: {words}");
        assert!(
            whole || answer.reason.len() > 110,
            "{length}: {}",
            answer.reason
        );
    }
}

#[tokio::test]
async fn npm_18_error_is_a_string_for_every_type_and_without_one() {
    let server = Server::start().await;
    for (target, repository) in [
        ("/api/v1/remote/files/x", Some("files")),
        ("/api/v1/remote/npm/x", Some("npm")),
        ("/api/v1/remote/hub/x", Some("hub")),
        ("/api/v1/virtual/nobody/x", Some("nobody")),
        ("/api/v1/remote/nobody/x", Some("nobody")),
        ("/nothing", None),
        ("/api/v1/jobs/1", None),
    ] {
        let answer = server.ask("GET", target, &[]).await;
        let body = answer.json();
        assert!(
            body["error"].as_str().is_some_and(|text| !text.is_empty()),
            "{target}: {body}"
        );
        assert!(body["code"].is_string(), "{target}: {body}");
        assert_eq!(body["repository"].as_str(), repository, "{target}: {body}");
    }
}

#[tokio::test]
async fn a_name_that_is_nearly_right_is_told_the_right_one() {
    let server = Server::start().await;
    for (target, word) in [
        ("/api/v1/remote/nmp/x", "npm"),
        ("/api/v1/remote/file/x", "files"),
        ("/api/v1/remote/npm-remote/x", "npm"),
        ("/api/v1/virtual/al/index.yaml", "all"),
        ("/api/v1/virtual/npm/x", "/api/v1/remote/npm"),
        ("/api/v1/virtual/hub/x", "/v2/hub"),
    ] {
        let answer = server.ask("GET", target, &[]).await;
        let said = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(
            answer.status == 404 && said.contains(word),
            "{target}: {said}"
        );
    }
    for (target, word) in [
        ("/v2/hubb/x/manifests/1", "hub"),
        ("/v2/files/x/manifests/1", "/api/v1/remote/files"),
    ] {
        let answer = server.ask("GET", target, &[]).await;
        let said = answer.json()["errors"][0]["message"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(
            answer.status == 404 && said.contains(word),
            "{target}: {said}"
        );
    }
    let other = server
        .ask("GET", "/api/v1/remote/maven-central/x", &[])
        .await;
    assert!(
        !other.text().contains("nearest"),
        "what differs widely is not offered: {}",
        other.text()
    );
    let docker = server.ask("GET", "/v2/npmm/x/manifests/1", &[]).await;
    assert!(
        !docker.text().contains("nearest"),
        "nor what holds no images: {}",
        docker.text()
    );
}

#[tokio::test]
async fn refusals_are_counted_by_repository_and_code() {
    let server = Server::start().await;
    for _ in 0..3 {
        refused(&server, "/api/v1/remote/files/x", fault("no")).await;
    }
    refused(&server, "/v2/hub/x", fault("no")).await;
    for n in 0..2 {
        server
            .ask("GET", &format!("/api/v1/remote/nobody{n}/x"), &[])
            .await;
    }
    server
        .raw(b"GET /live HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        .await;
    let metrics = server.ask("GET", "/metrics", &[]).await;
    for line in [
        "larder_refusals_total{repository=\"files\",code=\"pattern_denied\"} 3",
        "larder_refusals_total{repository=\"hub\",code=\"pattern_denied\"} 1",
        "larder_refusals_total{repository=\"\",code=\"unknown_repository\"} 2",
        "larder_refusals_total{repository=\"\",code=\"bad_request\"} 1",
    ] {
        assert!(
            metrics.text().lines().any(|found| found == line),
            "{line}\n{}",
            metrics.text()
        );
    }
    assert!(
        !metrics.text().contains("nobody"),
        "strangers make no series"
    );
    let health = server.ask("GET", "/health", &[]).await.json();
    let files = health["refusals"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["repository"] == "files")
        .unwrap()
        .clone();
    // The scripted clock.
    let expected = serde_json::json!({"repository": "files", "code": "pattern_denied", "count": 3, "last": "2023-11-14T22:13:20Z"});
    assert_eq!(files, expected);
}

/// Whoever has opened a page that larder fails at reads so, and goes on with the same connection.
#[tokio::test]
async fn a_defect_of_larder_is_an_answer_and_no_closed_connection() {
    let server = Server::start().await;
    server.script("broken", Script::Defect);
    server.script("whole", Script::Bytes("whole".into(), Spec::default()));
    let mut client = server.connect().await;
    for target in ["/api/v1/remote/files/broken", "/v2/hub/broken"] {
        let answer = client.ask("GET", target, &[]).await;
        assert_eq!(answer.status, 500, "{target}");
        assert!(
            answer.text().contains("a fault of larder's own"),
            "{answer:?}"
        );
        assert!(!answer.text().contains("as scripted"), "{answer:?}");
    }
    let answer = client.ask("GET", "/api/v1/remote/files/whole", &[]).await;
    assert_eq!((answer.status, answer.text()), (200, "whole"));
}

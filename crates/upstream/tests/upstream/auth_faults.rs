//! Token servers that fail, and challenges that make no sense.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use larder_core::UpstreamSettings;
use larder_upstream::{BreakerState, Upstream, UpstreamErrorKind};

use crate::origin::{Act, Origin, ok, redirect, send, unauthorized};
use crate::support::{
    CANARY, get, kind, registry, repository, settings, text, upstream, with_secrets,
};

/// A registry whose token server answers like this.
async fn answering(answer: impl Fn() -> Vec<Act> + Send + Sync + 'static) -> Origin {
    Origin::start(move |seen| {
        if seen.target().starts_with("/token") {
            return answer();
        }
        if seen.field("authorization").is_some() {
            return ok("content");
        }
        unauthorized(&format!(
            r#"Bearer realm="http://{}/token",service="r""#,
            seen.field("host").unwrap()
        ))
    })
    .await
}

const PATH: &str = "/v2/a/manifests/latest";

#[tokio::test]
async fn answers_that_are_no_tokens_are_errors_that_say_so() {
    let long = format!(r#"{{"token":"a","x":"{}"}}"#, "y".repeat(300_000));
    for (answer, want) in [
        (ok("<html>Sign in</html>"), "not the JSON of a token"),
        (ok(r#"{"token":"a""#), "not the JSON of a token"),
        (ok(r#"{"detail":"welcome"}"#), "holds no token"),
        (ok(r#"{"token":"a b"}"#), "blanks or control characters"),
        (ok(&long), "longer than 262144 bytes"),
        (
            send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
            "not the JSON of a token",
        ),
        (
            send("HTTP/1.1 300 Choices\r\nContent-Length: 0\r\n\r\n"),
            "answers 300",
        ),
    ] {
        let origin = answering(move || answer.clone()).await;
        let (upstream, _) = upstream();
        let images = repository(registry(with_secrets(&origin.url("/"))));
        let error = upstream
            .send(get(&images, origin.url(PATH)))
            .await
            .unwrap_err();
        assert!(
            error.message.contains(want) && error.message.contains("/token"),
            "{error}"
        );
        assert_eq!(kind(Err(error)), UpstreamErrorKind::Unauthorized);
        assert_eq!(origin.seen().len(), 2, "asked once");
    }
}

#[tokio::test]
async fn a_token_server_that_is_busy_refuses_or_fails() {
    let head = |line: &str| {
        send(format!(
            "HTTP/1.1 {line}\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\n{{}}"
        ))
    };
    // Its 429 and 5xx stand for the registry's.
    for status in [429, 500, 503] {
        let origin = answering(move || head(&format!("{status} No"))).await;
        let (upstream, _) = upstream();
        let images = repository(registry(settings(&origin.url("/"))));
        let response = upstream.send(get(&images, origin.url(PATH))).await.unwrap();
        assert_eq!(
            (response.status.as_u16(), response.header("retry-after")),
            (status, Some("7"))
        );
        assert_eq!(response.final_url, origin.url(PATH));
        assert_eq!(crate::support::read(response).await, (vec![], None));
    }
    // Without a token for anybody, what the registry said stands.
    for status in [400, 401, 403, 404] {
        let origin = answering(move || head(&format!("{status} No"))).await;
        let (upstream, _) = upstream();
        let images = repository(registry(settings(&origin.url("/"))));
        assert_eq!(
            upstream
                .send(get(&images, origin.url(PATH)))
                .await
                .unwrap()
                .status,
            401
        );
        assert_eq!(origin.seen().len(), 2);
    }
    // A wrong password is the operator's business.
    let origin = answering(move || head("401 No")).await;
    let (upstream, _) = upstream();
    let images = repository(registry(with_secrets(&origin.url("/"))));
    let error = upstream
        .send(get(&images, origin.url(PATH)))
        .await
        .unwrap_err();
    assert!(
        error
            .message
            .contains("does not accept this repository's username and password"),
        "{error}"
    );
    assert_eq!(kind(Err(error)), UpstreamErrorKind::Unauthorized);
}

#[tokio::test]
async fn a_token_server_that_cannot_be_reached_is_an_upstream_that_cannot_be_reached() {
    let dead = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let origin =
        Origin::start(move |_| unauthorized(&format!(r#"Bearer realm="http://{dead}/token""#)))
            .await;
    let (upstream, _) = upstream();
    let images = repository(registry(settings(&origin.url("/"))));
    let error = upstream
        .send(get(&images, origin.url(PATH)))
        .await
        .unwrap_err();
    assert!(
        error.message.contains(&format!(
            "no token from http://{dead}/token: cannot connect"
        )),
        "{error}"
    );
    assert_eq!(kind(Err(error)), UpstreamErrorKind::Unreachable);
    assert_eq!(
        upstream.health(&images.name),
        BreakerState::Closed,
        "the registry itself is well"
    );
}

#[tokio::test]
async fn hazard_a5_a_slow_token_server_is_given_up() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";
    let drip = move || {
        let mut acts = send(head);
        for _ in 0..100 {
            acts.extend([
                Act::Pause(Duration::from_millis(100)),
                Act::Send(b" ".to_vec()),
            ]);
        }
        acts
    };
    for answer in [
        Box::new(drip) as Box<dyn Fn() -> Vec<Act> + Send + Sync>,
        Box::new(|| vec![Act::Stall]),
    ] {
        let origin = answering(answer).await;
        let (upstream, _) = upstream();
        let limits = UpstreamSettings {
            connect_timeout: Duration::from_millis(300),
            read_timeout: Duration::from_millis(500),
            ..settings(&origin.url("/"))
        };
        let images = repository(registry(limits));
        let began = Instant::now();
        assert_eq!(
            kind(upstream.send(get(&images, origin.url(PATH))).await),
            UpstreamErrorKind::TimedOut
        );
        assert!(
            began.elapsed() < Duration::from_secs(3),
            "{:?}",
            began.elapsed()
        );
    }
}

#[tokio::test]
async fn challenges_that_nobody_can_answer_leave_the_401_as_it_is() {
    for challenge in [
        "",
        "Bearer",
        "Bearer realm=\"",
        "Digest realm=\"x\"",
        "Bearer realm=\"\",service=\"x\"",
        "\"\\",
        ",=,",
    ] {
        let origin = Origin::start(move |_| unauthorized(challenge)).await;
        let (upstream, _) = upstream();
        let images = repository(registry(with_secrets(&origin.url("/"))));
        let response = upstream.send(get(&images, origin.url(PATH))).await.unwrap();
        // Once as it was asked, and once at the root of the API, where another challenge may stand.
        assert_eq!(
            (response.status.as_u16(), origin.seen().len()),
            (401, 2),
            "{challenge}"
        );
    }
}

#[tokio::test]
async fn a_registry_that_wants_another_token_each_time_is_given_up() {
    let origin = Origin::start(|seen| {
        if seen.target().starts_with("/token") {
            return ok(r#"{"token":"a"}"#);
        }
        unauthorized(&format!(
            r#"Bearer realm="http://{}/token",scope="{}""#,
            seen.field("host").unwrap(),
            seen.nth
        ))
    })
    .await;
    let (upstream, _) = upstream();
    let images = repository(registry(settings(&origin.url("/"))));
    assert_eq!(
        upstream
            .send(get(&images, origin.url(PATH)))
            .await
            .unwrap()
            .status,
        401
    );
    let asked = origin
        .seen()
        .iter()
        .filter(|seen| seen.target() == PATH)
        .count();
    assert_eq!(asked, 3);
}

#[tokio::test]
async fn a_token_server_may_redirect_but_not_for_ever() {
    let origin = Origin::start(|seen| match seen.target().split('?').next().unwrap() {
        "/token" => redirect(302, "/token/"),
        "/token/" => ok(r#"{"token":"a"}"#),
        "/loop" => redirect(302, "/loop"),
        _ if seen.field("authorization") == Some("Bearer a") => ok("content"),
        target => {
            let realm = if target.contains("/loop/") {
                "loop"
            } else {
                "token"
            };
            unauthorized(&format!(
                r#"Bearer realm="http://{}/{realm}""#,
                seen.field("host").unwrap()
            ))
        }
    })
    .await;
    let (upstream, _) = upstream();
    let images = repository(registry(with_secrets(&origin.url("/"))));
    assert_eq!(
        text(&upstream, get(&images, origin.url(PATH))).await,
        "content"
    );
    assert_eq!(
        kind(
            upstream
                .send(get(&images, origin.url("/v2/loop/tags/list")))
                .await
        ),
        UpstreamErrorKind::RefusedRedirect
    );
    assert!(!format!("{upstream:?}").contains(CANARY));
}

#[tokio::test]
async fn a_registry_may_move_its_token_server() {
    let old = Origin::start(|_| {
        let mut acts = ok(r#"{"token":"old","expires_in":0}"#);
        acts.push(Act::Close);
        acts
    })
    .await;
    let new = Origin::start(|_| ok(r#"{"token":"new","expires_in":0}"#)).await;
    let realms = [old.url("/token"), new.url("/token")];
    let moved = Arc::new(AtomicBool::new(false));
    let origin = Origin::start({
        let moved = Arc::clone(&moved);
        move |seen| match (moved.load(Ordering::SeqCst), seen.field("authorization")) {
            (false, Some("Bearer old")) | (true, Some("Bearer new")) => ok("content"),
            (moved, _) => {
                unauthorized(&format!(r#"Bearer realm="{}""#, realms[usize::from(moved)]))
            }
        }
    })
    .await;
    let (upstream, _) = upstream();
    let images = repository(registry(settings(&origin.url("/"))));
    assert_eq!(
        text(&upstream, get(&images, origin.url(PATH))).await,
        "content"
    );
    moved.store(true, Ordering::SeqCst);
    assert_eq!(
        text(&upstream, get(&images, origin.url(PATH))).await,
        "content",
        "while the old one still answers"
    );
    moved.store(false, Ordering::SeqCst);
    assert_eq!(
        text(&upstream, get(&images, origin.url(PATH))).await,
        "content"
    );
    moved.store(true, Ordering::SeqCst);
    drop(old);
    // Nobody knows yet that it has moved.
    assert_eq!(
        kind(upstream.send(get(&images, origin.url(PATH))).await),
        UpstreamErrorKind::Unreachable
    );
    assert_eq!(
        text(&upstream, get(&images, origin.url(PATH))).await,
        "content"
    );
}

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use larder_core::{ManualClock, UnixMillis};
use larder_upstream::{
    BreakerState, HttpUpstream, Options, Upstream, UpstreamErrorKind, UpstreamRequest,
};

use crate::origin::{Act, Origin, ok};
use crate::support::{get, kind, repository, settings, text, upstream};

/// A port that nobody listens on.
fn dead() -> url::Url {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    url::Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap()
}

fn timed() -> (HttpUpstream, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(UnixMillis(1_700_000_000_000)));
    (
        HttpUpstream::new(Options {
            clock: Arc::clone(&clock) as _,
            ..Options::new("larder/0.0-test")
        }),
        clock,
    )
}

/// A repository whose origin is given little time.
fn hasty(url: &url::Url) -> Arc<larder_core::Repository> {
    let mut settings = settings(url);
    (settings.connect_timeout, settings.read_timeout) =
        (Duration::from_millis(50), Duration::from_millis(50));
    repository(settings)
}

/// A request of somebody who has a copy to serve.
fn has_stale_fallback(repository: &Arc<larder_core::Repository>, url: url::Url) -> UpstreamRequest {
    UpstreamRequest {
        has_stale_fallback: true,
        ..get(repository, url)
    }
}

/// `/stall` never answers.
async fn half_dead() -> Origin {
    Origin::start(|seen| {
        if seen.target() == "/stall" {
            vec![Act::Stall]
        } else {
            ok("good")
        }
    })
    .await
}

async fn stall_three_times(upstream: &HttpUpstream, origin: &Origin) {
    let hasty = hasty(&origin.url("/"));
    for _ in 0..3 {
        assert_eq!(
            kind(upstream.send(get(&hasty, origin.url("/stall"))).await),
            UpstreamErrorKind::TimedOut
        );
    }
}

#[tokio::test]
async fn an_origin_that_hangs_is_left_alone_by_those_who_have_a_copy_and_found_again() {
    let (upstream, clock) = timed();
    let origin = half_dead().await;
    let repository = repository(settings(&origin.url("/")));
    stall_three_times(&upstream, &origin).await;
    // Health is told by the name of the repository that made the last request.
    let asked = origin.seen().len();
    assert_eq!(
        kind(
            upstream
                .send(has_stale_fallback(&repository, origin.url("/")))
                .await
        ),
        UpstreamErrorKind::Unreachable
    );
    assert_eq!(upstream.health(&repository.name), BreakerState::Open);
    assert_eq!(origin.seen().len(), asked);
    clock.advance(Duration::from_secs(5));
    assert_eq!(upstream.health(&repository.name), BreakerState::HalfOpen);
    assert_eq!(
        text(&upstream, has_stale_fallback(&repository, origin.url("/"))).await,
        "good"
    );
    assert_eq!(upstream.health(&repository.name), BreakerState::Closed);
}

/// One path that hangs must not take its whole origin away from those who have nothing else.
#[tokio::test]
async fn whoever_has_nothing_to_fall_back_on_is_let_through() {
    let (upstream, _) = timed();
    let origin = half_dead().await;
    let repository = repository(settings(&origin.url("/")));
    stall_three_times(&upstream, &origin).await;
    assert_eq!(
        kind(
            upstream
                .send(has_stale_fallback(&repository, origin.url("/")))
                .await
        ),
        UpstreamErrorKind::Unreachable
    );
    assert_eq!(
        text(&upstream, get(&repository, origin.url("/"))).await,
        "good"
    );
    assert_eq!(
        upstream.health(&repository.name),
        BreakerState::Closed,
        "somebody is there"
    );
    assert_eq!(
        text(&upstream, has_stale_fallback(&repository, origin.url("/"))).await,
        "good"
    );
}

/// A refused connection costs nobody any time, so there is no reason not to ask again.
#[tokio::test]
async fn an_origin_that_refuses_is_asked_each_time() {
    let (upstream, _) = timed();
    let url = dead();
    let repository = repository(settings(&url));
    for _ in 0..5 {
        assert_eq!(
            kind(
                upstream
                    .send(has_stale_fallback(&repository, url.clone()))
                    .await
            ),
            UpstreamErrorKind::Unreachable
        );
    }
    assert_eq!(
        upstream.health(&repository.name),
        BreakerState::Open,
        "its state is told all the same"
    );
    let origin = Origin::start_at(
        format!("127.0.0.1:{}", url.port().unwrap())
            .parse()
            .unwrap(),
        |_| ok("back"),
    )
    .await;
    assert_eq!(
        text(&upstream, has_stale_fallback(&repository, url.clone())).await,
        "back"
    );
    assert_eq!(
        (origin.connections(), upstream.health(&repository.name)),
        (1, BreakerState::Closed)
    );
}

#[tokio::test]
async fn hazard_a7_a_dropped_probe_does_not_wedge() {
    let (upstream, clock) = timed();
    let origin = half_dead().await;
    let patient = repository(settings(&origin.url("/")));
    stall_three_times(&upstream, &origin).await;
    assert_eq!(
        kind(
            upstream
                .send(has_stale_fallback(&patient, origin.url("/")))
                .await
        ),
        UpstreamErrorKind::Unreachable
    );
    clock.advance(Duration::from_secs(5));
    {
        let probe = upstream.send(has_stale_fallback(&patient, origin.url("/stall")));
        let cut = tokio::time::timeout(Duration::from_millis(100), probe).await;
        assert!(
            cut.is_err(),
            "the probe was under way when its future was dropped"
        );
    }
    assert_eq!(
        text(&upstream, has_stale_fallback(&patient, origin.url("/"))).await,
        "good"
    );
}

#[tokio::test]
async fn exactly_one_of_many_probes_goes_through() {
    let (upstream, clock) = timed();
    let origin = Origin::start(|seen| {
        if seen.target() == "/stall" {
            return vec![Act::Stall];
        }
        let mut acts = vec![Act::Pause(Duration::from_millis(100))];
        acts.extend(ok("back"));
        acts
    })
    .await;
    let repository = repository(settings(&origin.url("/")));
    stall_three_times(&upstream, &origin).await;
    let before = origin.seen().len();
    clock.advance(Duration::from_secs(5));
    let asked = (0..20).map(|_| upstream.send(has_stale_fallback(&repository, origin.url("/"))));
    let answers = futures_util::future::join_all(asked).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    assert_eq!(origin.seen().len(), before + 1);
}

#[tokio::test]
async fn answers_of_any_status_and_cut_bodies_do_not_open_it() {
    let (upstream, _) = timed();
    let origin =
        Origin::start(|_| crate::origin::send("HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n")).await;
    let repository = repository(settings(&origin.url("/")));
    for _ in 0..10 {
        assert_eq!(
            upstream
                .send(get(&repository, origin.url("/")))
                .await
                .unwrap()
                .status,
            503
        );
    }
    assert_eq!(upstream.health(&repository.name), BreakerState::Closed);
}

/// An origin that answers each connection's first request, then resets the connection on the next.
async fn forgetful() -> Origin {
    Origin::start(|seen| {
        if seen.nth == 0 && seen.connection != 1 {
            ok("good")
        } else {
            vec![Act::Reset]
        }
    })
    .await
}

#[tokio::test]
async fn hazard_a9_a_stale_connection_is_tried_once_more_and_never_twice() {
    for method in [Method::GET, Method::HEAD] {
        let origin = Origin::start(|seen| {
            if seen.nth == 0 {
                ok("good")
            } else {
                vec![Act::Reset]
            }
        })
        .await;
        let (upstream, _) = upstream();
        let repository = repository(settings(&origin.url("/")));
        assert_eq!(
            text(&upstream, get(&repository, origin.url("/1"))).await,
            "good"
        );
        let again = UpstreamRequest {
            method,
            ..get(&repository, origin.url("/2"))
        };
        assert_eq!(upstream.send(again).await.unwrap().status, 200);
        assert_eq!((origin.seen().len(), origin.connections()), (3, 2));
    }
    let origin = forgetful().await;
    let (upstream, _) = upstream();
    let repository = repository(settings(&origin.url("/")));
    assert_eq!(
        text(&upstream, get(&repository, origin.url("/1"))).await,
        "good"
    );
    assert_eq!(
        kind(upstream.send(get(&repository, origin.url("/2"))).await),
        UpstreamErrorKind::Unreachable
    );
    assert_eq!(origin.seen().len(), 3, "one try, one retry");
}

#[tokio::test]
async fn hazard_a9_a_closed_kept_connection_counts_as_stale_too() {
    let origin = Origin::start(|seen| {
        if seen.nth == 0 {
            ok("good")
        } else {
            vec![Act::Close]
        }
    })
    .await;
    let (upstream, _) = upstream();
    let repository = repository(settings(&origin.url("/")));
    assert_eq!(
        text(&upstream, get(&repository, origin.url("/1"))).await,
        "good"
    );
    assert_eq!(
        text(&upstream, get(&repository, origin.url("/2"))).await,
        "good"
    );
    assert_eq!(origin.seen().len(), 3);
}

#[tokio::test]
async fn hazard_a9_a_fresh_connection_that_is_reset_is_not_tried_again_nor_is_a_post() {
    let origin = Origin::start(|_| vec![Act::Reset]).await;
    let (upstream, _) = upstream();
    let repo = repository(settings(&origin.url("/")));
    assert_eq!(
        kind(upstream.send(get(&repo, origin.url("/"))).await),
        UpstreamErrorKind::Unreachable
    );
    assert_eq!(origin.seen().len(), 1);

    let origin = Origin::start(|seen| {
        if seen.nth == 0 {
            ok("good")
        } else {
            vec![Act::Reset]
        }
    })
    .await;
    let repo = repository(settings(&origin.url("/")));
    assert_eq!(text(&upstream, get(&repo, origin.url("/1"))).await, "good");
    let post = UpstreamRequest {
        method: Method::POST,
        body: Some("x".into()),
        ..get(&repo, origin.url("/2"))
    };
    assert_eq!(
        kind(upstream.send(post).await),
        UpstreamErrorKind::Unreachable
    );
    assert_eq!(origin.seen().len(), 2);
}

#[tokio::test]
async fn an_unknown_name_is_unreachable() {
    let (upstream, _) = upstream();
    let url = url::Url::parse("http://nowhere.test/").unwrap();
    let error = upstream
        .send(get(&repository(settings(&url)), url))
        .await
        .unwrap_err();
    assert!(error.message.contains("cannot be resolved"), "{error}");
    assert_eq!(error.kind, UpstreamErrorKind::Unreachable);
}

//! Registries that say less than they should of what they want: challenges without a scope, refusals without a challenge. What is right is
//! what clients do that ask such registries themselves: containerd and containers/image ask for `repository:NAME:pull` whatever the
//! challenge says, and containers/image begins with `GET /v2/`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use larder_core::{ManualClock, UnixMillis, UpstreamSettings};
use larder_upstream::{HttpUpstream, Options, Upstream, UpstreamRequest};

use crate::origin::{Act, Origin, Seen, ok, send, unauthorized};
use crate::support::{get, registry, repository, settings, text, upstream, with_secrets};

/// "user:c4n4ry" in Base64 (RFC 4648), computed apart from larder.
const ACCOUNT: &str = "Basic dXNlcjpjNG40cnk=";

fn status(code: u16) -> Vec<Act> {
    send(format!(
        "HTTP/1.1 {code} No\r\nContent-Length: 2\r\n\r\n{{}}"
    ))
}

/// A challenge as it stands at `/v2/`: it names no image.
fn wants_any_token(seen: &Seen) -> Vec<Act> {
    unauthorized(&format!(
        r#"Bearer realm="http://{}/token",service="r""#,
        seen.field("host").unwrap()
    ))
}

fn asked(origin: &Origin, start: &str) -> Vec<String> {
    origin
        .seen()
        .iter()
        .map(|seen| seen.target().to_owned())
        .filter(|target| target.starts_with(start))
        .collect()
}

/// What the `Authorization` of the requests was that did not go to the token server.
fn shown(origin: &Origin) -> Vec<String> {
    let seen = origin.seen();
    let own = seen
        .iter()
        .filter(|seen| !seen.target().starts_with("/token"));
    own.map(|seen| seen.field("authorization").unwrap_or("-").to_owned())
        .collect()
}

#[tokio::test]
async fn a_challenge_without_scope_is_met_with_a_token_to_pull_the_image() {
    for (base, path, scope) in [
        ("/", "/v2/b/c/manifests/latest", "repository%3Ab%2Fc%3Apull"),
        ("/", "/v2/b/c/blobs/sha256:00", "repository%3Ab%2Fc%3Apull"),
        ("/", "/v2/b/c/tags/list?n=2", "repository%3Ab%2Fc%3Apull"),
        (
            "/",
            "/v2/b/c/referrers/sha256:00",
            "repository%3Ab%2Fc%3Apull",
        ),
        (
            "/v2/mirror/",
            "/v2/mirror/b/manifests/1",
            "repository%3Amirror%2Fb%3Apull",
        ),
        ("/hub/", "/hub/v2/b/manifests/1", "repository%3Ab%3Apull"),
    ] {
        for method in [Method::GET, Method::HEAD] {
            // A token for nothing in particular gets in nowhere.
            let origin = Origin::start(|seen| match seen.field("authorization") {
                _ if seen.target().starts_with("/token") && seen.target().contains("scope=") => {
                    ok(r#"{"token":"t"}"#)
                }
                _ if seen.target().starts_with("/token") => ok(r#"{"token":"worthless"}"#),
                Some("Bearer t") => ok("content"),
                _ => wants_any_token(seen),
            })
            .await;
            let (upstream, _) = upstream();
            let below = UpstreamSettings {
                base_urls: vec![origin.url(base)],
                ..settings(&origin.url("/"))
            };
            let request = UpstreamRequest {
                method,
                ..get(&repository(registry(below)), origin.url(path))
            };
            assert_eq!(upstream.send(request).await.unwrap().status, 200, "{path}");
            assert_eq!(
                asked(&origin, "/token"),
                [format!("/token?service=r&scope={scope}")]
            );
        }
    }
}

/// A registry that has forgotten its first token, and says so with this status and without a challenge.
async fn forgetful(code: u16, admits: impl Fn(usize) -> bool + Send + Sync + 'static) -> Origin {
    let issued = AtomicUsize::new(0);
    Origin::start(move |seen| {
        if seen.target().starts_with("/token") {
            return ok(&format!(
                r#"{{"token":"t-{}","expires_in":300}}"#,
                issued.fetch_add(1, Ordering::SeqCst) + 1
            ));
        }
        match seen
            .field("authorization")
            .and_then(|value| value.strip_prefix("Bearer t-"))
        {
            Some(number) if admits(number.parse().unwrap()) => ok("content"),
            Some(_) => status(code),
            None => wants_any_token(seen),
        }
    })
    .await
}

#[tokio::test]
async fn a_kept_token_that_is_refused_without_a_challenge_is_exchanged_once() {
    for code in [400, 401, 403] {
        for account in [false, true] {
            let youngest = Arc::new(AtomicUsize::new(1));
            let admits = Arc::clone(&youngest);
            let origin =
                forgetful(code, move |number| number >= admits.load(Ordering::SeqCst)).await;
            let (upstream, _) = upstream();
            let base = origin.url("/");
            let images = repository(registry(if account {
                with_secrets(&base)
            } else {
                settings(&base)
            }));
            let request = |path: &str| get(&images, origin.url(path));
            assert_eq!(
                text(&upstream, request("/v2/a/manifests/1")).await,
                "content"
            );
            youngest.store(2, Ordering::SeqCst);
            let paths: Vec<String> = (0..8).map(|n| format!("/v2/a/blobs/sha256:{n}")).collect();
            let all = paths.iter().map(|path| text(&upstream, request(path)));
            assert!(
                futures_util::future::join_all(all)
                    .await
                    .iter()
                    .all(|body| body == "content"),
                "{code}"
            );
            let head = UpstreamRequest {
                method: Method::HEAD,
                ..request("/v2/a/manifests/1")
            };
            assert_eq!(upstream.send(head).await.unwrap().status, 200);
            assert_eq!(asked(&origin, "/token").len(), 2, "{code}: one for all");
            assert_eq!(shown(&origin).last().unwrap(), "Bearer t-2");
        }
    }
}

#[tokio::test]
async fn a_refusal_of_a_fresh_token_is_the_registrys_last_word() {
    for (code, last) in [(400, 400), (401, 401), (403, 403)] {
        let origin = forgetful(code, |number| number == 1).await;
        let (upstream, _) = upstream();
        let images = repository(registry(with_secrets(&origin.url("/"))));
        let request = |path: &str| get(&images, origin.url(path));
        assert_eq!(
            text(&upstream, request("/v2/a/manifests/1")).await,
            "content"
        );
        let origin_of_none = forgetful(code, |_| false).await;
        let none = repository(registry(with_secrets(&origin_of_none.url("/"))));
        let fresh = upstream
            .send(get(&none, origin_of_none.url("/v2/a/manifests/1")))
            .await
            .unwrap();
        assert_eq!(
            (fresh.status.as_u16(), shown(&origin_of_none)),
            (last, vec!["-".to_owned(), "Bearer t-1".to_owned()])
        );
        let kept = upstream
            .send(get(&none, origin_of_none.url("/v2/a/manifests/1")))
            .await
            .unwrap();
        assert_eq!(kept.status.as_u16(), last);
        assert!(
            asked(&origin_of_none, "/token").len() <= 2,
            "no more than one fresh token for one request"
        );
    }
}

#[tokio::test]
async fn a_403_to_an_anonymous_token_says_not_without_a_login() {
    let origin = forgetful(403, |_| false).await;
    let (upstream, _) = upstream();
    let images = repository(registry(settings(&origin.url("/"))));
    let request = || get(&images, origin.url("/v2/a/manifests/1"));
    assert_eq!(upstream.send(request()).await.unwrap().status, 401);
    // A HEAD may be refused because it is one.
    assert_eq!(
        upstream
            .send(UpstreamRequest {
                method: Method::HEAD,
                ..request()
            })
            .await
            .unwrap()
            .status,
        403
    );
    // Without any token it is a 403 like any other.
    let bare = Origin::start(|_| status(403)).await;
    let images = repository(registry(settings(&bare.url("/"))));
    assert_eq!(
        upstream
            .send(get(&images, bare.url("/v2/a/manifests/1")))
            .await
            .unwrap()
            .status,
        403
    );
    assert_eq!(shown(&bare), ["-"]);
}

/// Manifests are denied like this to strangers; only `/v2/` says what is wanted.
async fn speaks_at_its_root(
    code: u16,
    root: impl Fn(&Seen) -> Vec<Act> + Send + Sync + 'static,
) -> Origin {
    Origin::start(
        move |seen| match (seen.target(), seen.field("authorization")) {
            (token, Some(ACCOUNT))
                if token.starts_with("/token?") && token.contains("scope=repository") =>
            {
                ok(r#"{"token":"t","expires_in":300}"#)
            }
            ("/v2/", None) => root(seen),
            (path, Some("Bearer t" | ACCOUNT)) if !path.contains("missing") => ok("content"),
            (_, Some("Bearer t" | ACCOUNT)) => status(404),
            _ => status(code),
        },
    )
    .await
}

#[tokio::test]
async fn a_registry_that_challenges_at_its_root_alone_is_asked_there_once() {
    for code in [401, 403, 404] {
        for kind in ["basic", "bearer", "example"] {
            let origin = speaks_at_its_root(code, move |seen| match kind {
                "basic" => unauthorized(r#"Basic realm="r""#),
                "bearer" => wants_any_token(seen),
                // What stands at the root of a large public registry.
                _ => {
                    let host = seen.field("host").unwrap();
                    unauthorized(&format!(r#"Bearer realm="http://{host}/token",service="r",scope="repository:user/image:pull""#))
                }
            })
            .await;
            let clock = Arc::new(ManualClock::new(UnixMillis(1_700_000_000_000)));
            let upstream = HttpUpstream::new(Options {
                clock: Arc::clone(&clock) as _,
                ..Options::new("larder/0.0-test")
            });
            let images = repository(registry(with_secrets(&origin.url("/"))));
            for (path, want) in [
                ("a/manifests/1", 200),
                ("a/blobs/sha256:00", 200),
                ("b/manifests/1", 200),
                ("missing/tags/list", 404),
            ] {
                for method in [Method::HEAD, Method::GET] {
                    let request = UpstreamRequest {
                        method,
                        ..get(&images, origin.url(&format!("/v2/{path}")))
                    };
                    assert_eq!(
                        upstream.send(request).await.unwrap().status,
                        want,
                        "{code} {path}"
                    );
                }
            }
            let tokens = asked(&origin, "/token");
            assert!(
                tokens
                    .iter()
                    .all(|target| target.matches("scope=").count() == 1
                        && !target.contains("user%2F")),
                "{tokens:?}"
            );
            assert_eq!(
                asked(&origin, "/v2/")
                    .iter()
                    .filter(|target| *target == "/v2/")
                    .count(),
                1,
                "{code}"
            );
            clock.advance(Duration::from_mins(6));
            assert_eq!(
                text(&upstream, get(&images, origin.url("/v2/c/manifests/1"))).await,
                "content"
            );
            assert_eq!(
                asked(&origin, "/v2/")
                    .iter()
                    .filter(|target| *target == "/v2/")
                    .count(),
                2,
                "it may want something else by now"
            );
        }
    }
}

#[tokio::test]
async fn what_a_registry_lacks_is_not_asked_of_its_root_without_need() {
    // An open registry, with an account: its root wants nothing, and that is known from then on.
    let origin = speaks_at_its_root(404, |_| ok("{}")).await;
    let (upstream, _) = upstream();
    let images = repository(registry(with_secrets(&origin.url("/"))));
    for n in 0..5 {
        assert_eq!(
            upstream
                .send(get(&images, origin.url(&format!("/v2/a/manifests/{n}"))))
                .await
                .unwrap()
                .status,
            404
        );
    }
    assert_eq!(
        (shown(&origin).len(), asked(&origin, "/token").len()),
        (6, 0)
    );
    // Without an account there is nothing to be shown.
    let origin = speaks_at_its_root(404, wants_any_token).await;
    let images = repository(registry(settings(&origin.url("/"))));
    assert_eq!(
        upstream
            .send(get(&images, origin.url("/v2/a/manifests/1")))
            .await
            .unwrap()
            .status,
        404
    );
    assert_eq!(shown(&origin), ["-"]);
    // A root that gives no answer is let alone for a while.
    let origin = speaks_at_its_root(404, |_| status(503)).await;
    let images = repository(registry(with_secrets(&origin.url("/"))));
    for n in 0..5 {
        assert_eq!(
            upstream
                .send(get(&images, origin.url(&format!("/v2/a/manifests/{n}"))))
                .await
                .unwrap()
                .status,
            404
        );
    }
    assert_eq!(shown(&origin).len(), 6);
}

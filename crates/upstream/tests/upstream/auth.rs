//! Getting into registries: what is asked, in which order, and how often.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use larder_core::{ManualClock, Repository, Secret, UnixMillis, UpstreamSettings};
use larder_upstream::{HttpUpstream, Options, Upstream, UpstreamRequest};

use crate::origin::{Act, Origin, Seen, ok, redirect, unauthorized};
use crate::support::{
    allow, get, named, registry, repository, settings, text, upstream, with_secrets,
};

/// "user:c4n4ry" in Base64 (RFC 4648), computed apart from larder.
const ACCOUNT: &str = "Basic dXNlcjpjNG40cnk=";

/// The image of `/v2/{image}/manifests/…` and the like.
fn image(seen: &Seen) -> &str {
    seen.target()
        .strip_prefix("/v2/")
        .unwrap()
        .split("/manifests/")
        .next()
        .unwrap()
        .split("/blobs/")
        .next()
        .unwrap()
}

/// 401 with a realm on the same server.
fn wants_token(seen: &Seen) -> Vec<Act> {
    let (host, image) = (seen.field("host").unwrap(), image(seen));
    unauthorized(&format!(
        r#"Bearer realm="http://{host}/token",service="r.example",scope="repository:{image}:pull""#
    ))
}

/// A registry with its token server. Tokens are `t-1`, `t-2`, …; `admits` says which get in.
async fn token_registry(admits: impl Fn(usize) -> bool + Send + Sync + 'static) -> Origin {
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
            _ => wants_token(seen),
        }
    })
    .await
}

/// Target and `Authorization` of all requests.
fn talk(origin: &Origin) -> Vec<(String, String)> {
    let authorization = |seen: &Seen| seen.field("authorization").unwrap_or("-").to_owned();
    origin
        .seen()
        .iter()
        .map(|seen| (seen.target().to_owned(), authorization(seen)))
        .collect()
}

fn tokens(origin: &Origin) -> usize {
    origin
        .seen()
        .iter()
        .filter(|seen| seen.target().starts_with("/token"))
        .count()
}

fn pairs<'a>(pairs: &[(&'a str, &'a str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
        .collect()
}

const TOKEN_A: &str = "/token?service=r.example&scope=repository%3Aa%3Apull";
const TOKEN_B: &str = "/token?service=r.example&scope=repository%3Ab%2Fc%3Apull";

fn images(
    base: &Origin,
    change: impl FnOnce(UpstreamSettings) -> UpstreamSettings,
) -> Arc<Repository> {
    repository(registry(change(settings(&base.url("/")))))
}

#[tokio::test]
async fn without_login_an_anonymous_token_is_fetched_once_for_an_image_and_sent_at_once_from_then_on()
 {
    let origin = token_registry(|_| true).await;
    let (upstream, _) = upstream();
    let images = images(&origin, |settings| settings);
    for path in [
        "/v2/a/manifests/latest",
        "/v2/a/blobs/sha256:00",
        "/v2/a/manifests/latest",
        "/v2/b/c/manifests/1",
    ] {
        assert_eq!(
            text(&upstream, get(&images, origin.url(path))).await,
            "content",
            "{path}"
        );
    }
    let want = pairs(&[
        ("/v2/a/manifests/latest", "-"),
        (TOKEN_A, "-"),
        ("/v2/a/manifests/latest", "Bearer t-1"),
        ("/v2/a/blobs/sha256:00", "Bearer t-1"),
        ("/v2/a/manifests/latest", "Bearer t-1"),
        ("/v2/b/c/manifests/1", "-"),
        (TOKEN_B, "-"),
        ("/v2/b/c/manifests/1", "Bearer t-2"),
    ]);
    assert_eq!(talk(&origin), want);
    assert_eq!(
        origin.connections(),
        1,
        "a 401 does not cost the connection"
    );
}

#[tokio::test]
async fn with_login_the_password_goes_to_the_token_server_and_not_to_the_registry() {
    let origin = token_registry(|_| true).await;
    let (upstream, _) = upstream();
    let images = repository(registry(with_secrets(&origin.url("/"))));
    let head = UpstreamRequest {
        method: Method::HEAD,
        ..get(&images, origin.url("/v2/a/manifests/latest"))
    };
    assert_eq!(upstream.send(head).await.unwrap().status, 200);
    let want = pairs(&[
        ("/v2/a/manifests/latest", "-"),
        (TOKEN_A, ACCOUNT),
        ("/v2/a/manifests/latest", "Bearer t-1"),
    ]);
    assert_eq!(talk(&origin), want);
    let methods: Vec<_> = origin
        .seen()
        .iter()
        .map(|seen| seen.method().to_owned())
        .collect();
    assert_eq!(methods, ["HEAD", "GET", "HEAD"]);
    let token = &origin.seen()[1];
    assert_eq!(token.field("accept"), Some("application/json"));
    assert_eq!(
        token.field("x-own-token"),
        Some("c4n4ry-own"),
        "the realm is at the configured origin, where `headers` belong"
    );
}

#[tokio::test]
async fn basic_is_sent_when_it_is_asked_for_and_from_then_on() {
    let origin = Origin::start(|seen| match seen.field("authorization") {
        Some(ACCOUNT) => ok("content"),
        _ => unauthorized(r#"basic realm="r""#),
    })
    .await;
    let (upstream, _) = upstream();
    let member = repository(registry(with_secrets(&origin.url("/"))));
    for _ in 0..2 {
        assert_eq!(
            text(&upstream, get(&member, origin.url("/v2/a/blobs/sha256:00"))).await,
            "content"
        );
    }
    let stranger = named("other", registry(settings(&origin.url("/"))));
    assert_eq!(
        upstream
            .send(get(&stranger, origin.url("/v2/a/blobs/sha256:00")))
            .await
            .unwrap()
            .status,
        401
    );
    let sent: Vec<_> = talk(&origin)
        .into_iter()
        .map(|(_, authorization)| authorization)
        .collect();
    assert_eq!(sent, ["-", ACCOUNT, ACCOUNT, "-"]);
}

#[tokio::test]
async fn a_refused_password_is_the_registrys_last_word() {
    let origin = Origin::start(|_| unauthorized(r#"Basic realm="r""#)).await;
    let (upstream, _) = upstream();
    let images = repository(registry(with_secrets(&origin.url("/"))));
    for _ in 0..2 {
        assert_eq!(
            upstream
                .send(get(&images, origin.url("/v2/a/tags/list")))
                .await
                .unwrap()
                .status,
            401
        );
    }
    let sent: Vec<_> = talk(&origin)
        .into_iter()
        .map(|(_, authorization)| authorization)
        .collect();
    assert_eq!(sent, ["-", ACCOUNT, "-", ACCOUNT]);
}

#[tokio::test]
async fn each_entry_of_the_scope_is_a_parameter_and_the_realms_own_query_stays() {
    let origin = Origin::start(|seen| {
        if seen.target().starts_with("/auth") {
            return ok(r#"{"access_token":"x"}"#);
        }
        if seen.field("authorization").is_some() {
            return ok("content");
        }
        let host = seen.field("host").unwrap();
        let scope = "repository:b/c:pull,push registry:catalog:* repository:b/c:pull,push";
        unauthorized(&format!(
            r#"Negotiate, Bearer scope="{scope}",service="a&b=c",realm=http://{host}/auth?x=1#f, Basic realm="r""#
        ))
    })
    .await;
    let (upstream, _) = upstream();
    let images = images(&origin, |settings| settings);
    assert_eq!(
        text(&upstream, get(&images, origin.url("/v2/b/c/tags/list"))).await,
        "content"
    );
    let asked = url::Url::parse(&format!("http://r.example{}", origin.seen()[1].target())).unwrap();
    let query: Vec<(String, String)> = asked.query_pairs().into_owned().collect();
    let want = pairs(&[
        ("x", "1"),
        ("service", "a&b=c"),
        ("scope", "registry:catalog:*"),
        ("scope", "repository:b/c:pull,push"),
    ]);
    assert_eq!((asked.path(), query), ("/auth", want));
}

#[tokio::test]
async fn oci_10_requests_that_need_one_scope_cause_one_token_request() {
    let origin = Origin::start(|seen| {
        if seen.target().starts_with("/token") {
            let mut acts = vec![Act::Pause(Duration::from_millis(300))];
            acts.extend(ok(r#"{"token":"t-1"}"#));
            return acts;
        }
        if seen.field("authorization") == Some("Bearer t-1") {
            ok("content")
        } else {
            wants_token(seen)
        }
    })
    .await;
    let (upstream, _) = upstream();
    let images = images(&origin, |settings| settings);
    let paths: Vec<String> = (0..16).map(|n| format!("/v2/a/blobs/sha256:{n}")).collect();
    let all = paths
        .iter()
        .map(|path| text(&upstream, get(&images, origin.url(path))));
    assert!(
        futures_util::future::join_all(all)
            .await
            .iter()
            .all(|body| body == "content")
    );
    assert_eq!((tokens(&origin), origin.seen().len()), (1, 33));
}

#[tokio::test]
async fn oci_10_an_expired_token_is_renewed_once() {
    let youngest = Arc::new(AtomicUsize::new(1));
    let origin = token_registry({
        let youngest = Arc::clone(&youngest);
        move |number| number >= youngest.load(Ordering::SeqCst)
    })
    .await;
    let (upstream, _) = upstream();
    let images = images(&origin, |settings| settings);
    assert_eq!(
        text(
            &upstream,
            get(&images, origin.url("/v2/a/manifests/latest"))
        )
        .await,
        "content"
    );
    // The registry no longer takes the token, though larder has no reason to think so.
    youngest.store(2, Ordering::SeqCst);
    let paths: Vec<String> = (0..8).map(|n| format!("/v2/a/blobs/sha256:{n}")).collect();
    let all = paths
        .iter()
        .map(|path| text(&upstream, get(&images, origin.url(path))));
    assert!(
        futures_util::future::join_all(all)
            .await
            .iter()
            .all(|body| body == "content")
    );
    assert_eq!(tokens(&origin), 2);
    assert_eq!(
        text(
            &upstream,
            get(&images, origin.url("/v2/a/manifests/latest"))
        )
        .await,
        "content"
    );
    assert_eq!(talk(&origin).last().unwrap().1, "Bearer t-2");
}

#[tokio::test]
async fn a_token_is_renewed_before_it_expires() {
    let origin = token_registry(|_| true).await;
    let clock = Arc::new(ManualClock::new(UnixMillis(1_700_000_000_000)));
    let upstream = HttpUpstream::new(Options {
        clock: Arc::clone(&clock) as _,
        ..Options::new("larder/0.0-test")
    });
    let images = images(&origin, |settings| settings);
    let url = origin.url("/v2/a/manifests/latest");
    // It lasts 300 s.
    for (wait, sent) in [
        (0, "Bearer t-1"),
        (269, "Bearer t-1"),
        (2, "Bearer t-2"),
        (1, "Bearer t-2"),
    ] {
        clock.advance(Duration::from_secs(wait));
        let before = origin.seen().len();
        assert_eq!(text(&upstream, get(&images, url.clone())).await, "content");
        let talk = talk(&origin);
        assert_eq!(talk.last().unwrap().1, sent);
        let bare = talk[before..]
            .iter()
            .filter(|(target, sent)| target.starts_with("/v2/") && sent == "-")
            .count();
        assert_eq!(bare, usize::from(before == 0), "only the first meets a 401");
    }
    assert_eq!(tokens(&origin), 2);
    upstream.reload();
    assert_eq!(text(&upstream, get(&images, url)).await, "content");
    assert_eq!(tokens(&origin), 3, "accounts may have changed");
}

#[tokio::test]
async fn a_token_that_allows_less_is_a_401_after_one_try() {
    let strict = Arc::new(AtomicUsize::new(usize::MAX));
    let origin = token_registry({
        let strict = Arc::clone(&strict);
        move |number| number >= strict.load(Ordering::SeqCst)
    })
    .await;
    let (upstream, _) = upstream();
    let images = images(&origin, |settings| settings);
    let request = || get(&images, origin.url("/v2/a/manifests/latest"));
    let response = upstream.send(request()).await.unwrap();
    assert_eq!(
        (response.status.as_u16(), origin.seen().len()),
        (401, 3),
        "bare, token, with token"
    );
    // The next one has the token still, is refused with it, fetches one more, and that is all.
    assert_eq!(upstream.send(request()).await.unwrap().status, 401);
    let want = ["-", "-", "Bearer t-1", "-", "Bearer t-1", "-", "Bearer t-2"];
    let sent: Vec<_> = talk(&origin)
        .into_iter()
        .map(|(_, authorization)| authorization)
        .collect();
    assert_eq!(sent, want);
    // Rights were granted meanwhile.
    strict.store(3, Ordering::SeqCst);
    assert_eq!(text(&upstream, request()).await, "content");
}

#[tokio::test]
async fn oci_07_nothing_goes_to_a_cdn_and_a_redirected_registry_is_asked_what_it_wants() {
    let cdn = Origin::start(|_| ok("layer")).await;
    let other = token_registry(|_| true).await;
    let (layer, manifest) = (
        cdn.url("/blob?signature=1"),
        other.url("/v2/x/a/manifests/latest"),
    );
    let home = Origin::start(move |seen| match seen.field("authorization") {
        _ if seen.target().starts_with("/token") => ok(r#"{"token":"home","expires_in":300}"#),
        Some("Bearer home") if seen.target().contains("/blobs/") => redirect(307, layer.as_str()),
        Some("Bearer home") => redirect(302, manifest.as_str()),
        _ => wants_token(seen),
    })
    .await;
    let (upstream, _) = upstream();
    let images = repository(registry(allow(with_secrets(&home.url("/")), "127.0.0.0/8")));
    assert_eq!(
        text(&upstream, get(&images, home.url("/v2/a/blobs/sha256:00"))).await,
        "layer"
    );
    assert_eq!(talk(&cdn), pairs(&[("/blob?signature=1", "-")]));
    for _ in 0..2 {
        assert_eq!(
            text(&upstream, get(&images, home.url("/v2/a/manifests/latest"))).await,
            "content"
        );
    }
    let want = pairs(&[
        ("/v2/x/a/manifests/latest", "-"),
        (
            "/token?service=r.example&scope=repository%3Ax%2Fa%3Apull",
            "-",
        ),
        ("/v2/x/a/manifests/latest", "Bearer t-1"),
        ("/v2/x/a/manifests/latest", "Bearer t-1"),
    ]);
    assert_eq!(talk(&other), want, "the account is home's alone");
    assert!(
        other
            .seen()
            .iter()
            .all(|seen| seen.field("x-own-token").is_none())
    );
    assert_eq!(talk(&home)[1].1, ACCOUNT);
}

#[tokio::test]
async fn hazard_s8_repositories_do_not_share_tokens() {
    let origin = Origin::start(|seen| match seen.field("authorization") {
        Some(ACCOUNT) if seen.target().starts_with("/token") => {
            ok(r#"{"token":"of-the-account","expires_in":300}"#)
        }
        _ if seen.target().starts_with("/token") => ok(r#"{"token":"of-nobody","expires_in":300}"#),
        Some("Bearer of-the-account") => ok("private"),
        Some("Bearer of-nobody") => ok("public"),
        _ => wants_token(seen),
    })
    .await;
    let (upstream, _) = upstream();
    let url = origin.url("/v2/a/manifests/latest");
    let member = named("member", registry(with_secrets(&url)));
    let stranger = named("stranger", registry(settings(&url)));
    for _ in 0..2 {
        assert_eq!(text(&upstream, get(&member, url.clone())).await, "private");
        assert_eq!(text(&upstream, get(&stranger, url.clone())).await, "public");
    }
    // The same name after a reload, with another account.
    let renamed = named("member", registry(settings(&url)));
    assert_eq!(text(&upstream, get(&renamed, url)).await, "public");
}

#[tokio::test]
async fn other_package_types_and_own_authorization_get_the_401_as_it_came() {
    let origin = token_registry(|_| true).await;
    let (upstream, _) = upstream();
    let files = repository(with_secrets(&origin.url("/")));
    assert_eq!(
        upstream
            .send(get(&files, origin.url("/v2/a/manifests/latest")))
            .await
            .unwrap()
            .status,
        401
    );
    let own = images(&origin, |settings| UpstreamSettings {
        headers: vec![(
            "authorization".to_owned(),
            Secret::new("Basic own".to_owned()),
        )],
        ..settings
    });
    assert_eq!(
        upstream
            .send(get(&own, origin.url("/v2/a/manifests/latest")))
            .await
            .unwrap()
            .status,
        401
    );
    let want = pairs(&[
        ("/v2/a/manifests/latest", ACCOUNT),
        ("/v2/a/manifests/latest", "Basic own"),
    ]);
    assert_eq!(talk(&origin), want);
}

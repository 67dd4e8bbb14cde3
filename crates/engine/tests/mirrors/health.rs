//! Mirrors that are put aside and come back, and what each of them is told.

use larder_core::{AllowPrivate, Credentials, FaultKind, Revalidate, Secret, UnixMillis};
use larder_engine::UpstreamStanding;
use larder_testkit::{Behaviour, Origin, Payload, Resource};
use larder_upstream::Cause;
use url::Url;

use crate::support::{Bench, START, eventually, upstream};
use crate::{asked, counter, get, mirror, publish_both, two};

#[tokio::test]
async fn a_mirror_put_aside_is_probed_behind_the_scenes_and_comes_back_to_its_place() {
    let second = Origin::start().await;
    let bench = two(&second).await;
    let file = publish_both(
        &bench,
        &second,
        "generic",
        &Payload::generated(10, 1),
        ["\"a\"", "\"a\""],
    );
    bench.origin.behave(&file.at, Behaviour::ResetHead);
    get(&bench, &file).await;
    let aside = async |expected: bool| {
        eventually("the mirror's state changes", async || {
            mirror(&bench, "generic", &bench.origin).healthy != expected
        })
        .await;
    };
    assert!(!mirror(&bench, "generic", &bench.origin).healthy);
    let report = |origin: &Origin| {
        let all = bench.engine.upstream_reports();
        all.into_iter()
            .find(|report| report.repository == "generic" && report.upstream == origin.url("/"))
            .unwrap()
    };
    let failed = report(&bench.origin);
    assert_eq!(
        (failed.standing, failed.since, failed.failures),
        (UpstreamStanding::Failing, Some(START), 1)
    );
    assert_eq!(failed.last_error.map(|error| error.cause), Some(Cause::Cut));
    assert_eq!(report(&second).standing, UpstreamStanding::Ok);
    bench.origin.reset_log();
    bench.flush().await;
    get(&bench, &file).await;
    assert!(
        bench.origin.requests().is_empty(),
        "left alone during its pause"
    );

    // Still down: the probe fails, and no client has waited for it.
    bench.wait(6);
    bench.flush().await;
    get(&bench, &file).await;
    eventually("it is probed", async || {
        counter(&mirror(&bench, "generic", &bench.origin), "probes") > 0
    })
    .await;
    assert_eq!(asked(&bench.origin, &file.at), 0, "probes are HEAD");
    assert_eq!(asked(&second, &file.at), 3);

    // Back again.
    bench.origin.clear_all();
    bench.wait(60);
    bench.flush().await;
    get(&bench, &file).await;
    aside(false).await;
    bench.flush().await;
    get(&bench, &file).await;
    assert_eq!(
        (asked(&bench.origin, &file.at), asked(&second, &file.at)),
        (1, 4)
    );
    let back = report(&bench.origin);
    assert_eq!((back.standing, back.failures), (UpstreamStanding::Ok, 0));
    assert!(
        back.last_error.is_some(),
        "what was wrong can still be looked up"
    );
}

#[tokio::test]
async fn with_every_mirror_put_aside_they_are_asked_all_the_same() {
    let second = Origin::start().await;
    let bench = two(&second).await;
    let file = publish_both(
        &bench,
        &second,
        "generic",
        &Payload::generated(10, 1),
        ["\"a\"", "\"a\""],
    );
    for origin in [&bench.origin, &second] {
        origin.behave_times(&file.at, 2, Behaviour::ResetHead);
    }
    assert_eq!(
        bench.get("generic", &file.path).await.unwrap_err().kind,
        FaultKind::BadGateway
    );
    for origin in [&bench.origin, &second] {
        origin.clear_all();
    }
    assert_eq!(get(&bench, &file).await.bytes().len(), 10);
}

/// A copy's date means something to the server that gave it. A tag may travel.
#[tokio::test]
async fn a_date_is_told_only_to_the_mirror_that_gave_it() {
    let second = Origin::start().await;
    let url = Url::parse(&second.url("/")).unwrap();
    let bench = Bench::with(|repository| {
        upstream(repository).base_urls.push(url.clone());
        repository.cache.revalidate = Some(Revalidate::Get);
    })
    .await;
    let date = UnixMillis(START.0 - 86_400_000).to_http_date();
    let index = || {
        Resource::new("apiVersion: v1\nentries: {}\n")
            .etag("\"one\"")
            .last_modified(&date)
    };
    for origin in [&bench.origin, &second] {
        origin.put("/index.yaml", index());
    }
    bench.get("helm", "index.yaml").await.unwrap();
    bench.settled().await;
    bench.wait(100_000);
    bench.get("helm", "index.yaml").await.unwrap();
    bench.settled().await;
    let last = bench.origin.requests().pop().unwrap();
    assert_eq!(
        (
            last.header("if-none-match"),
            last.header("if-modified-since")
        ),
        (Some("\"one\""), Some(date.as_str()))
    );
    bench.origin.behave("/index.yaml", Behaviour::ResetHead);
    bench.wait(100_000);
    bench.get("helm", "index.yaml").await.unwrap();
    let last = second.requests().pop().unwrap();
    assert_eq!(
        (
            last.header("if-none-match"),
            last.header("if-modified-since")
        ),
        (Some("\"one\""), None)
    );
}

/// Hazard S10, for mirrors: what is meant for the configured origins does not follow a mirror's redirect elsewhere.
#[tokio::test]
async fn hazard_s10_credentials_reach_mirrors_and_nobody_whom_a_mirror_names() {
    let (second, elsewhere) = (Origin::start().await, Origin::start().await);
    let url = Url::parse(&second.url("/")).unwrap();
    let allowed = AllowPrivate::Socket(elsewhere.address());
    let bench = Bench::with(|repository| {
        let settings = upstream(repository);
        settings.base_urls.push(url.clone());
        settings.credentials = Some(Credentials {
            username: "u".into(),
            password: Secret::new("canary".into()),
        });
        settings.headers = vec![("X-Token".into(), Secret::new("canary".into()))];
        settings.allow_private = vec![allowed.clone()];
    })
    .await;
    bench.origin.behave("/f", Behaviour::ResetHead);
    second.behave(
        "/f",
        Behaviour::Redirect {
            status: 302,
            location: elsewhere.url("/f"),
        },
    );
    elsewhere.put("/f", Resource::new("f"));
    assert_eq!(bench.get("generic", "f").await.unwrap().text(), "f");
    for origin in [&bench.origin, &second] {
        assert!(
            origin
                .requests()
                .iter()
                .all(|request| request.header("authorization").is_some())
        );
    }
    let strangers = elsewhere.requests();
    assert_eq!(strangers.len(), 1);
    assert!(
        strangers[0].header("authorization").is_none() && strangers[0].header("x-token").is_none()
    );
}

/// A private address in a mirror's redirect is refused like any other, and the next mirror is asked.
#[tokio::test]
async fn hazard_s10_a_mirror_cannot_lead_into_the_private_network() {
    let (second, inside) = (Origin::start().await, Origin::start().await);
    let bench = two(&second).await;
    bench.origin.behave(
        "/f",
        Behaviour::Redirect {
            status: 302,
            location: inside.url("/f"),
        },
    );
    inside.put("/f", Resource::new("secret"));
    second.put("/f", Resource::new("f"));
    assert_eq!(bench.get("generic", "f").await.unwrap().text(), "f");
    assert!(inside.requests().is_empty());
}

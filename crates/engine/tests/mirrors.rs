//! `base_url` as a list: one of two mirrors is dead, slow, wrong, or dies in mid-body, and the client does not notice (ADR 0027).
//!
//! The first mirror of each bench is `bench.origin`; the second is given beside it.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test program")]

mod support;

use std::time::{Duration, Instant};

use http::Method;
use larder_core::{Content, Credentials, FaultKind, Revalidate, Secret, UnixMillis, sha256};
use larder_testkit::{Behaviour, Origin, Payload, Resource};
use url::Url;

use support::{Bench, FORMATS, Got, Published, publish, upstream};

const MIB: u64 = 1 << 20;
const KIB: u64 = 1 << 10;

/// A bench whose repositories have `second` as their second mirror.
async fn two(second: &Origin) -> Bench {
    let url = Url::parse(&second.url("/")).unwrap();
    Bench::with(|repository| {
        upstream(repository).base_urls.push(url.clone());
        repository.cache.mutable_ttl = Duration::from_secs(600);
    })
    .await
}

/// The same file at both mirrors; what is said of it is the first's.
fn publish_both(bench: &Bench, second: &Origin, format: &str, body: &Payload, tags: [&str; 2]) -> Published {
    publish(second, format, body, tags[1]);
    publish(&bench.origin, format, body, tags[0])
}

async fn get(bench: &Bench, file: &Published) -> Got {
    let got = bench.get(file.repository, &file.path).await.unwrap();
    bench.settled().await;
    got
}

fn asked(origin: &Origin, path: &str) -> usize {
    origin.count("GET", path)
}

/// What is kept of the file is `body`.
async fn assert_kept(bench: &Bench, file: &Published, body: &Payload) {
    bench.settled().await;
    let record = bench.record(file.repository, &file.path, "").await.expect("kept");
    assert_eq!(record.blob().unwrap().digest, sha256(&body.slice(0, body.length())), "{}", file.repository);
}

fn mirror(bench: &Bench, repository: &str, origin: &Origin) -> larder_engine::MirrorReport {
    let url = origin.url("/");
    let all = bench.engine.mirror_reports();
    all.into_iter().find(|report| report.repository == repository && report.mirror == url).unwrap()
}

fn counter(report: &larder_engine::MirrorReport, name: &str) -> u64 {
    report.counters.iter().find(|(known, _)| *known == name).unwrap().1
}

#[tokio::test]
async fn mirrors_are_asked_in_their_order() {
    for format in FORMATS {
        let second = Origin::start().await;
        let bench = two(&second).await;
        let body = Payload::generated(1000, 1);
        let file = publish_both(&bench, &second, format, &body, ["\"a\"", "\"a\""]);
        assert_eq!(get(&bench, &file).await.bytes(), &body.slice(0, 1000));
        assert!(second.requests().is_empty(), "{format}: the first had everything");
        assert_eq!(counter(&mirror(&bench, format, &bench.origin), "failures"), 0);
    }
}

#[tokio::test]
async fn a_dead_mirror_is_not_noticed() {
    for format in FORMATS {
        let second = Origin::start().await;
        let bench = two(&second).await;
        let body = Payload::generated(2 * MIB, 1);
        let file = publish_both(&bench, &second, format, &body, ["\"a\"", "\"b\""]);
        for path in [file.at.as_str(), file.document_at] {
            bench.origin.behave(path, Behaviour::ResetHead);
        }
        if file.has_document() {
            bench.get(format, file.document).await.unwrap();
        }
        assert_eq!(get(&bench, &file).await.bytes(), &body.slice(0, 2 * MIB), "{format}");
        assert_kept(&bench, &file, &body).await;
        assert!(!mirror(&bench, format, &bench.origin).healthy);
        assert!(mirror(&bench, format, &second).healthy);
    }
    // Nobody listens at all.
    let gone = Origin::start().await;
    let url = Url::parse(&gone.url("/")).unwrap();
    drop(gone);
    let bench = Bench::with(|repository| upstream(repository).base_urls.insert(0, url.clone())).await;
    let file = publish(&bench.origin, "generic", &Payload::generated(1000, 1), "\"a\"");
    assert_eq!(get(&bench, &file).await.bytes(), &Payload::generated(1000, 1).slice(0, 1000));
}

#[tokio::test]
async fn a_slow_mirror_is_left_for_another_and_then_put_aside() {
    for format in FORMATS {
        let second = Origin::start().await;
        let bench = two(&second).await;
        let body = Payload::generated(1000, 1);
        let file = publish_both(&bench, &second, format, &body, ["\"a\"", "\"a\""]);
        for path in [file.at.as_str(), file.document_at] {
            bench.origin.behave(path, Behaviour::StallHead(Duration::from_mins(2)));
        }
        assert_eq!(get(&bench, &file).await.bytes(), &body.slice(0, 1000), "{format}");
        assert!(!mirror(&bench, format, &bench.origin).healthy);
        bench.flush().await;
        let begun = Instant::now();
        get(&bench, &file).await;
        assert!(begun.elapsed() < Duration::from_millis(1200), "{format}: nobody waits for it a second time");
    }
}

/// A mirror that sends, but hardly anything: the rest comes from the next one.
#[tokio::test]
async fn a_trickling_mirror_is_left_in_mid_body() {
    let run = async |format: &str, tags: [&str; 2]| {
        let second = Origin::start().await;
        let bench = two(&second).await;
        let body = Payload::generated(2 * MIB, 1);
        let file = publish_both(&bench, &second, format, &body, tags);
        bench.origin.behave(&file.at, Behaviour::Throttle { bytes_per_second: 8 * KIB });
        let got = tokio::time::timeout(Duration::from_secs(60), get(&bench, &file)).await.expect("not at 8 KiB a second");
        assert_eq!(sha256(got.bytes()), sha256(&body.slice(0, 2 * MIB)), "{format}");
        assert_kept(&bench, &file, &body).await;
        assert_eq!((asked(&bench.origin, &file.at), asked(&second, &file.at)), (1, 1), "{format}");
    };
    tokio::join!(run("generic", ["\"a\"", "\"a\""]), run("pypi", ["\"a\"", "\"b\""]), run("npm", ["W/\"a\"", "W/\"a\""]));
}

/// Where nobody else can go on with what has been sent, slow is better than nothing.
#[tokio::test]
async fn a_trickling_mirror_is_kept_if_no_other_can_go_on_with_its_body() {
    let second = Origin::start().await;
    let bench = two(&second).await;
    let body = Payload::generated(100 * KIB, 1);
    publish(&second, "generic", &Payload::generated(100 * KIB, 2), "\"b\"");
    let file = publish(&bench.origin, "generic", &body, "\"a\"");
    bench.origin.behave(&file.at, Behaviour::Throttle { bytes_per_second: 10 * KIB });
    assert_eq!(sha256(get(&bench, &file).await.bytes()), sha256(&body.slice(0, 100 * KIB)));
    assert_eq!(asked(&second, &file.at), 1, "it was asked for the rest");
    assert_kept(&bench, &file, &body).await;
}

/// Whoever is last in the list has all the time that the operator gives.
#[tokio::test]
async fn the_last_mirror_is_given_timeouts_read() {
    let second = Origin::start().await;
    let slow = Url::parse(&second.url("/")).unwrap();
    let bench = Bench::with(|repository| {
        upstream(repository).base_urls.push(slow.clone());
        upstream(repository).read_timeout = Duration::from_secs(20);
    })
    .await;
    let file = publish_both(&bench, &second, "generic", &Payload::generated(10, 1), ["\"a\"", "\"a\""]);
    bench.origin.behave(&file.at, Behaviour::ResetHead);
    second.behave(&file.at, Behaviour::StallHead(Duration::from_secs(6)));
    assert_eq!(get(&bench, &file).await.bytes(), &Payload::generated(10, 1).slice(0, 10));
}

#[tokio::test]
async fn wrong_bytes_are_not_noticed_and_never_kept() {
    for format in ["pypi", "npm", "helm"] {
        for document_first in [false, true] {
            let second = Origin::start().await;
            let bench = two(&second).await;
            let body = Payload::generated(MIB, 1);
            let file = publish_both(&bench, &second, format, &body, ["\"a\"", "\"a\""]);
            if document_first {
                bench.get(format, file.document).await.unwrap();
            }
            bench.origin.behave(&file.at, Behaviour::Body(Payload::generated(MIB, 2).slice(0, MIB)));
            let got = get(&bench, &file).await;
            assert_eq!(sha256(got.bytes()), sha256(&body.slice(0, MIB)), "{format}");
            assert_kept(&bench, &file, &body).await;
            assert_eq!(asked(&second, &file.at), 1);
            assert!(!mirror(&bench, format, &bench.origin).healthy);
        }
    }
}

/// What has left cannot be taken back: the connection is cut. But the right bytes are there when the client asks again.
#[tokio::test]
async fn large_wrong_bytes_end_in_an_error_and_the_next_client_gets_the_right_ones() {
    for format in ["pypi", "npm", "helm"] {
        let second = Origin::start().await;
        let bench = two(&second).await;
        let body = Payload::generated(3 * MIB, 1);
        let file = publish_both(&bench, &second, format, &body, ["\"a\"", "\"a\""]);
        bench.origin.behave(&file.at, Behaviour::Body(Payload::generated(3 * MIB, 2).slice(0, 3 * MIB)));
        let cut = bench.get(format, &file.path).await;
        assert!(cut.is_err() || cut.unwrap().body.is_err(), "{format}");
        assert_kept(&bench, &file, &body).await;
        assert_eq!(get(&bench, &file).await.bytes(), &body.slice(0, 3 * MIB));
        assert_eq!((asked(&bench.origin, &file.at), asked(&second, &file.at)), (1, 1), "{format}");
    }
}

#[tokio::test]
async fn both_wrong_is_a_502_and_nothing_is_kept() {
    for format in ["pypi", "npm", "helm"] {
        let second = Origin::start().await;
        let bench = two(&second).await;
        let file = publish_both(&bench, &second, format, &Payload::generated(1000, 1), ["\"a\"", "\"a\""]);
        for origin in [&bench.origin, &second] {
            origin.behave(&file.at, Behaviour::Body(Payload::generated(1000, 2).slice(0, 1000)));
        }
        let fault = bench.get(format, &file.path).await.unwrap_err();
        assert_eq!((fault.kind, fault.code), (FaultKind::BadGateway, "digest_mismatch"));
        bench.settled().await;
        assert!(bench.record(format, &file.path, "").await.is_none());
        assert!(bench.files_of_size(1000).is_empty());
    }
}

#[tokio::test]
async fn a_mirror_that_dies_in_mid_body_is_not_noticed() {
    for format in FORMATS {
        for behaviour in [
            Behaviour::Truncate { after: 2 * MIB },
            Behaviour::ResetBody { after: 2 * MIB },
            Behaviour::StallBody { after: 2 * MIB, pause: Duration::from_mins(2) },
        ] {
            let second = Origin::start().await;
            let bench = two(&second).await;
            let body = Payload::generated(3 * MIB, 1);
            let file = publish_both(&bench, &second, format, &body, ["\"same\"", "\"same\""]);
            bench.origin.behave(&file.at, behaviour.clone());
            let clients: Vec<_> = (0..8).map(|_| tokio::spawn(bench.client(format, &file.path).run())).collect();
            for client in clients {
                let got = client.await.unwrap().unwrap();
                assert_eq!(sha256(got.bytes()), sha256(&body.slice(0, 3 * MIB)), "{format} {behaviour:?}");
            }
            assert_kept(&bench, &file, &body).await;
            assert_eq!((asked(&bench.origin, &file.at), asked(&second, &file.at)), (1, 1), "{format} {behaviour:?}");
            let rest = second.requests().into_iter().find(|request| request.path() == file.at).unwrap();
            assert!(rest.header("range").is_some(), "{format}: only the rest is asked for");
            // A digest vouches for the whole; without one the tag has to be the same.
            assert_eq!(rest.header("if-range"), (format == "generic").then_some("\"same\""), "{format}");
        }
    }
}

#[tokio::test]
async fn mirrors_whose_tags_differ_are_joined_by_digest_or_by_comparison() {
    for format in FORMATS {
        for tags in [["\"a\"", "\"b\""], ["W/\"a\"", "W/\"a\""]] {
            let second = Origin::start().await;
            let bench = two(&second).await;
            let body = Payload::generated(3 * MIB, 1);
            let file = publish_both(&bench, &second, format, &body, tags);
            bench.origin.behave(&file.at, Behaviour::Truncate { after: 2 * MIB + 7 });
            let got = get(&bench, &file).await;
            assert_eq!(sha256(got.bytes()), sha256(&body.slice(0, 3 * MIB)), "{format} {tags:?}");
            assert_kept(&bench, &file, &body).await;
            let record = bench.record(format, &file.path, "").await.unwrap();
            if tags[0] != tags[1] {
                assert_eq!(record.headers.etag, None, "{format}: of whose bytes would it be the tag?");
            }
        }
    }
}

/// Without a digest the second mirror's body counts only if it begins with what has been sent already.
#[tokio::test]
async fn parts_of_different_bodies_are_never_joined() {
    for (tags, length) in [(["\"a\"", "\"b\""], 3 * MIB), (["W/\"a\"", "W/\"a\""], 3 * MIB), (["\"a\"", "\"b\""], 3 * MIB + 1)] {
        let second = Origin::start().await;
        let bench = two(&second).await;
        let other = Payload::generated(length, 2);
        publish(&second, "generic", &other, tags[1]);
        let file = publish(&bench.origin, "generic", &Payload::generated(3 * MIB, 1), tags[0]);
        bench.origin.behave(&file.at, Behaviour::Truncate { after: 2 * MIB });
        let cut = bench.get("generic", &file.path).await;
        assert!(cut.is_err() || cut.unwrap().body.is_err(), "{tags:?} {length}");
        // The second's own body is whole, and is what the next client gets.
        assert_kept(&bench, &file, &other).await;
    }
}

#[tokio::test]
async fn small_bodies_that_cannot_be_joined_are_fetched_anew_elsewhere() {
    let second = Origin::start().await;
    let bench = two(&second).await;
    let other = Payload::generated(900 * KIB, 2);
    publish(&second, "generic", &other, "\"b\"");
    let file = publish(&bench.origin, "generic", &Payload::generated(900 * KIB, 1), "\"a\"");
    bench.origin.behave(&file.at, Behaviour::Truncate { after: 500 * KIB });
    assert_eq!(sha256(get(&bench, &file).await.bytes()), sha256(&other.slice(0, 900 * KIB)), "nothing of the first had left");
    assert_kept(&bench, &file, &other).await;
}

#[tokio::test]
async fn statuses_that_say_nothing_of_the_file_are_asked_again_elsewhere() {
    for status in [401, 403, 404, 410, 429, 500, 502, 503] {
        for format in FORMATS {
            let second = Origin::start().await;
            let bench = two(&second).await;
            let body = Payload::generated(1000, 1);
            let file = publish_both(&bench, &second, format, &body, ["\"a\"", "\"a\""]);
            for path in [file.at.as_str(), file.document_at] {
                bench.origin.behave(path, Behaviour::Status(status));
            }
            assert_eq!(get(&bench, &file).await.bytes(), &body.slice(0, 1000), "{format} {status}");
            let head = bench.ask(Method::HEAD, format, &file.path, &[]).await.unwrap();
            assert_eq!(head.answer.representation.length, Some(1000), "{format} {status}");
        }
    }
}

#[tokio::test]
async fn head_of_what_is_not_held_is_asked_of_the_next_mirror_too() {
    for behaviour in [Behaviour::Status(503), Behaviour::Status(404), Behaviour::ResetHead] {
        let second = Origin::start().await;
        let bench = two(&second).await;
        let file = publish_both(&bench, &second, "generic", &Payload::generated(1000, 1), ["\"a\"", "\"a\""]);
        bench.origin.behave(&file.at, behaviour.clone());
        let head = bench.ask(Method::HEAD, "generic", &file.path, &[]).await.unwrap();
        assert_eq!(head.answer.representation.length, Some(1000), "{behaviour:?}");
    }
}

#[tokio::test]
async fn of_answers_that_bring_nothing_the_one_that_says_most_is_given() {
    for (first, other, expected) in [
        (Behaviour::Status(404), Behaviour::Status(404), FaultKind::Upstream(404)),
        (Behaviour::Status(503), Behaviour::Status(404), FaultKind::Upstream(404)),
        (Behaviour::ResetHead, Behaviour::Status(404), FaultKind::Upstream(404)),
        (Behaviour::Status(404), Behaviour::ResetHead, FaultKind::Upstream(404)),
        (Behaviour::Status(403), Behaviour::Status(503), FaultKind::Upstream(403)),
        (Behaviour::Status(503), Behaviour::ResetHead, FaultKind::Upstream(503)),
        (Behaviour::ResetHead, Behaviour::ResetHead, FaultKind::BadGateway),
    ] {
        let second = Origin::start().await;
        let bench = two(&second).await;
        let file = publish_both(&bench, &second, "generic", &Payload::generated(10, 1), ["\"a\"", "\"a\""]);
        bench.origin.behave(&file.at, first.clone());
        second.behave(&file.at, other.clone());
        let fault = bench.get("generic", &file.path).await.unwrap_err();
        assert_eq!(fault.kind, expected, "{first:?} {other:?}");
    }
}

/// A mirror that lags behind says 404 while the one that knows is down: that must not cost the copy.
#[tokio::test]
async fn a_404_of_one_mirror_while_another_is_down_keeps_the_copy() {
    let second = Origin::start().await;
    let bench = two(&second).await;
    bench.origin.put("/v1/index.yaml", Resource::new("apiVersion: v1\nentries: {}\n"));
    bench.get("helm", "v1/index.yaml").await.unwrap();
    bench.settled().await;
    bench.wait(100_000);
    bench.origin.behave("/v1/index.yaml", Behaviour::ResetHead);
    assert_eq!(bench.get("helm", "v1/index.yaml").await.unwrap().text(), "apiVersion: v1\nentries: {}\n");
    bench.settled().await;
    assert!(matches!(bench.record("helm", "v1/index.yaml", "").await.unwrap().content, Content::Blob(_)));
}

#[tokio::test]
async fn a_document_that_cannot_be_used_is_looked_for_elsewhere() {
    for format in ["pypi", "npm", "helm"] {
        let second = Origin::start().await;
        let bench = two(&second).await;
        let body = Payload::generated(1000, 1);
        let file = publish_both(&bench, &second, format, &body, ["\"a\"", "\"a\""]);
        bench.origin.behave(file.document_at, Behaviour::LoginPage);
        bench.get(format, file.document).await.unwrap();
        bench.settled().await;
        assert_eq!(get(&bench, &file).await.bytes(), &body.slice(0, 1000), "{format}");
    }
}

#[tokio::test]
async fn a_mirror_put_aside_is_probed_behind_the_scenes_and_comes_back_to_its_place() {
    let second = Origin::start().await;
    let bench = two(&second).await;
    let file = publish_both(&bench, &second, "generic", &Payload::generated(10, 1), ["\"a\"", "\"a\""]);
    bench.origin.behave(&file.at, Behaviour::ResetHead);
    get(&bench, &file).await;
    let aside = async |expected: bool| {
        let changed = async {
            while mirror(&bench, "generic", &bench.origin).healthy == expected {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), changed).await.expect("the mirror's state changes");
    };
    assert!(!mirror(&bench, "generic", &bench.origin).healthy);
    bench.origin.reset_log();
    bench.flush().await;
    get(&bench, &file).await;
    assert!(bench.origin.requests().is_empty(), "left alone during its pause");

    // Still down: the probe fails, and no client has waited for it.
    bench.wait(6);
    bench.flush().await;
    get(&bench, &file).await;
    let probed = async {
        while counter(&mirror(&bench, "generic", &bench.origin), "probes") == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), probed).await.unwrap();
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
    assert_eq!((asked(&bench.origin, &file.at), asked(&second, &file.at)), (1, 4));
}

#[tokio::test]
async fn with_every_mirror_put_aside_they_are_asked_all_the_same() {
    let second = Origin::start().await;
    let bench = two(&second).await;
    let file = publish_both(&bench, &second, "generic", &Payload::generated(10, 1), ["\"a\"", "\"a\""]);
    for origin in [&bench.origin, &second] {
        origin.behave_times(&file.at, 2, Behaviour::ResetHead);
    }
    assert_eq!(bench.get("generic", &file.path).await.unwrap_err().kind, FaultKind::BadGateway);
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
    let date = UnixMillis(support::START.0 - 86_400_000).to_http_date();
    let index = || Resource::new("apiVersion: v1\nentries: {}\n").etag("\"one\"").last_modified(&date);
    for origin in [&bench.origin, &second] {
        origin.put("/index.yaml", index());
    }
    bench.get("helm", "index.yaml").await.unwrap();
    bench.settled().await;
    bench.wait(100_000);
    bench.get("helm", "index.yaml").await.unwrap();
    bench.settled().await;
    let last = bench.origin.requests().pop().unwrap();
    assert_eq!((last.header("if-none-match"), last.header("if-modified-since")), (Some("\"one\""), Some(date.as_str())));
    bench.origin.behave("/index.yaml", Behaviour::ResetHead);
    bench.wait(100_000);
    bench.get("helm", "index.yaml").await.unwrap();
    let last = second.requests().pop().unwrap();
    assert_eq!((last.header("if-none-match"), last.header("if-modified-since")), (Some("\"one\""), None));
}

/// Hazard S10, for mirrors: what is meant for the configured origins does not follow a mirror's redirect elsewhere.
#[tokio::test]
async fn hazard_s10_credentials_reach_mirrors_and_nobody_whom_a_mirror_names() {
    let (second, elsewhere) = (Origin::start().await, Origin::start().await);
    let url = Url::parse(&second.url("/")).unwrap();
    let allowed = larder_core::AllowPrivate::Socket(elsewhere.address());
    let bench = Bench::with(|repository| {
        let settings = upstream(repository);
        settings.base_urls.push(url.clone());
        settings.credentials = Some(Credentials { username: "u".into(), password: Secret::new("canary".into()) });
        settings.headers = vec![("X-Token".into(), Secret::new("canary".into()))];
        settings.allow_private = vec![allowed.clone()];
    })
    .await;
    bench.origin.behave("/f", Behaviour::ResetHead);
    second.behave("/f", Behaviour::Redirect { status: 302, location: elsewhere.url("/f") });
    elsewhere.put("/f", Resource::new("f"));
    assert_eq!(bench.get("generic", "f").await.unwrap().text(), "f");
    for origin in [&bench.origin, &second] {
        assert!(origin.requests().iter().all(|request| request.header("authorization").is_some()));
    }
    let strangers = elsewhere.requests();
    assert_eq!(strangers.len(), 1);
    assert!(strangers[0].header("authorization").is_none() && strangers[0].header("x-token").is_none());
}

/// A private address in a mirror's redirect is refused like any other, and the next mirror is asked.
#[tokio::test]
async fn hazard_s10_a_mirror_cannot_lead_into_the_private_network() {
    let (second, inside) = (Origin::start().await, Origin::start().await);
    let bench = two(&second).await;
    bench.origin.behave("/f", Behaviour::Redirect { status: 302, location: inside.url("/f") });
    inside.put("/f", Resource::new("secret"));
    second.put("/f", Resource::new("f"));
    assert_eq!(bench.get("generic", "f").await.unwrap().text(), "f");
    assert!(inside.requests().is_empty());
}

#[tokio::test]
async fn sixty_four_clients_and_a_mirror_that_dies_are_one_download() {
    let second = Origin::start().await;
    let bench = two(&second).await;
    let body = Payload::generated(8 * MIB, 1);
    let file = publish_both(&bench, &second, "generic", &body, ["\"same\"", "\"same\""]);
    bench.origin.behave(&file.at, Behaviour::ResetBody { after: 5 * MIB });
    let whole = body.slice(0, 8 * MIB);
    let clients: Vec<_> = (0..64).map(|_| tokio::spawn(bench.client("generic", &file.path).expect(&whole).run())).collect();
    for client in clients {
        client.await.unwrap().unwrap().body.unwrap();
    }
    bench.settled().await;
    assert_eq!((asked(&bench.origin, &file.at), asked(&second, &file.at)), (1, 1));
}

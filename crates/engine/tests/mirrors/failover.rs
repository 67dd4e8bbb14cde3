//! Before the first byte: a mirror that is dead, slow, wrong or refuses is not noticed.

use std::time::{Duration, Instant};

use http::Method;
use larder_core::{Content, FaultKind, sha256};
use larder_testkit::{Behaviour, Origin, Payload, Resource};
use url::Url;

use crate::support::{Bench, FORMATS, publish, upstream};
use crate::{MIB, asked, assert_kept, counter, get, mirror, publish_both, two, two_held_back};

#[tokio::test]
async fn mirrors_are_asked_in_their_order() {
    for format in FORMATS {
        let second = Origin::start().await;
        let bench = two(&second).await;
        let body = Payload::generated(1000, 1);
        let file = publish_both(&bench, &second, format, &body, ["\"a\"", "\"a\""]);
        assert_eq!(get(&bench, &file).await.bytes(), &body.slice(0, 1000));
        assert!(
            second.requests().is_empty(),
            "{format}: the first had everything"
        );
        assert_eq!(
            counter(&mirror(&bench, format, &bench.origin), "failures"),
            0
        );
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
        assert_eq!(
            get(&bench, &file).await.bytes(),
            &body.slice(0, 2 * MIB),
            "{format}"
        );
        assert_kept(&bench, &file, &body).await;
        assert!(!mirror(&bench, format, &bench.origin).healthy);
        assert!(mirror(&bench, format, &second).healthy);
    }
    // Nobody listens at all.
    let gone = Origin::start().await;
    let url = Url::parse(&gone.url("/")).unwrap();
    drop(gone);
    let bench =
        Bench::with(|repository| upstream(repository).base_urls.insert(0, url.clone())).await;
    let file = publish(
        &bench.origin,
        "generic",
        &Payload::generated(1000, 1),
        "\"a\"",
    );
    assert_eq!(
        get(&bench, &file).await.bytes(),
        &Payload::generated(1000, 1).slice(0, 1000)
    );
}

#[tokio::test]
async fn a_slow_mirror_is_left_for_another_and_then_put_aside() {
    for format in FORMATS {
        let second = Origin::start().await;
        let bench = two(&second).await;
        let body = Payload::generated(1000, 1);
        let file = publish_both(&bench, &second, format, &body, ["\"a\"", "\"a\""]);
        for path in [file.at.as_str(), file.document_at] {
            bench
                .origin
                .behave(path, Behaviour::StallHead(Duration::from_mins(2)));
        }
        assert_eq!(
            get(&bench, &file).await.bytes(),
            &body.slice(0, 1000),
            "{format}"
        );
        assert!(!mirror(&bench, format, &bench.origin).healthy);
        bench.flush().await;
        let begun = Instant::now();
        get(&bench, &file).await;
        assert!(
            begun.elapsed() < Duration::from_millis(1200),
            "{format}: nobody waits for it a second time"
        );
    }
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
    let file = publish_both(
        &bench,
        &second,
        "generic",
        &Payload::generated(10, 1),
        ["\"a\"", "\"a\""],
    );
    bench.origin.behave(&file.at, Behaviour::ResetHead);
    second.behave(&file.at, Behaviour::StallHead(Duration::from_secs(6)));
    assert_eq!(
        get(&bench, &file).await.bytes(),
        &Payload::generated(10, 1).slice(0, 10)
    );
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
            bench.origin.behave(
                &file.at,
                Behaviour::Body(Payload::generated(MIB, 2).slice(0, MIB)),
            );
            let got = get(&bench, &file).await;
            assert_eq!(sha256(got.bytes()), sha256(&body.slice(0, MIB)), "{format}");
            assert_kept(&bench, &file, &body).await;
            assert_eq!(asked(&second, &file.at), 1);
            assert!(!mirror(&bench, format, &bench.origin).healthy);
        }
    }
}

/// While the whole has not been verified the first byte waits (as long as `held_back` says), so that nobody sees a wrong body of a
/// mirror that is quick enough, whatever its size.
#[tokio::test]
async fn large_wrong_bytes_are_not_noticed_while_they_are_held_back() {
    for format in ["pypi", "npm", "helm"] {
        let second = Origin::start().await;
        let bench = two_held_back(&second, Duration::from_mins(1)).await;
        let body = Payload::generated(24 * MIB, 1);
        let file = publish_both(&bench, &second, format, &body, ["\"a\"", "\"a\""]);
        bench.origin.behave(
            &file.at,
            Behaviour::Body(Payload::generated(24 * MIB, 2).slice(0, 24 * MIB)),
        );
        let whole = body.slice(0, 24 * MIB);
        let clients: Vec<_> = (0..4)
            .map(|_| tokio::spawn(bench.client(format, &file.path).expect(&whole).run()))
            .collect();
        for client in clients {
            client.await.unwrap().unwrap().body.unwrap();
        }
        assert_kept(&bench, &file, &body).await;
        assert_eq!(
            (asked(&bench.origin, &file.at), asked(&second, &file.at)),
            (1, 1),
            "{format}"
        );
    }
}

/// A body that takes longer than `held_back` is streamed: followers have bytes while it is in flight.
#[tokio::test]
async fn a_body_that_takes_long_is_not_held_back_to_its_end() {
    let second = Origin::start().await;
    let bench = two_held_back(&second, Duration::from_millis(200)).await;
    let body = Payload::generated(3 * MIB, 1);
    let file = publish_both(&bench, &second, "pypi", &body, ["\"a\"", "\"a\""]);
    let pause = Duration::from_secs(4);
    bench.origin.behave(
        &file.at,
        Behaviour::StallBody {
            after: 2 * MIB,
            pause,
        },
    );
    let asked_at = std::time::Instant::now();
    bench
        .client("pypi", &file.path)
        .leave_after(1 << 10)
        .run()
        .await
        .unwrap();
    assert!(
        asked_at.elapsed() < pause,
        "bytes came while the body was in flight"
    );
}

/// What has left cannot be taken back: the connection is cut. But the right bytes are there when the client asks again.
#[tokio::test]
async fn large_wrong_bytes_that_have_left_end_in_an_error_and_the_next_client_gets_the_right_ones()
{
    for format in ["pypi", "npm", "helm"] {
        let second = Origin::start().await;
        let bench = two_held_back(&second, Duration::ZERO).await;
        let body = Payload::generated(3 * MIB, 1);
        let file = publish_both(&bench, &second, format, &body, ["\"a\"", "\"a\""]);
        bench.origin.behave(
            &file.at,
            Behaviour::Body(Payload::generated(3 * MIB, 2).slice(0, 3 * MIB)),
        );
        let cut = bench.get(format, &file.path).await;
        assert!(cut.is_err() || cut.unwrap().body.is_err(), "{format}");
        assert_kept(&bench, &file, &body).await;
        assert_eq!(get(&bench, &file).await.bytes(), &body.slice(0, 3 * MIB));
        assert_eq!(
            (asked(&bench.origin, &file.at), asked(&second, &file.at)),
            (1, 1),
            "{format}"
        );
    }
}

#[tokio::test]
async fn both_wrong_is_a_502_and_nothing_is_kept() {
    for format in ["pypi", "npm", "helm"] {
        let second = Origin::start().await;
        let bench = two(&second).await;
        let file = publish_both(
            &bench,
            &second,
            format,
            &Payload::generated(1000, 1),
            ["\"a\"", "\"a\""],
        );
        for origin in [&bench.origin, &second] {
            origin.behave(
                &file.at,
                Behaviour::Body(Payload::generated(1000, 2).slice(0, 1000)),
            );
        }
        let fault = bench.get(format, &file.path).await.unwrap_err();
        assert_eq!(
            (fault.kind, fault.code.as_str()),
            (FaultKind::BadGateway, "digest_mismatch")
        );
        bench.settled().await;
        assert!(bench.record(format, &file.path, "").await.is_none());
        assert!(bench.files_of_size(1000).is_empty());
    }
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
            assert_eq!(
                get(&bench, &file).await.bytes(),
                &body.slice(0, 1000),
                "{format} {status}"
            );
            let head = bench
                .ask(Method::HEAD, format, &file.path, &[])
                .await
                .unwrap();
            assert_eq!(
                head.answer.representation.length,
                Some(1000),
                "{format} {status}"
            );
        }
    }
}

#[tokio::test]
async fn head_of_what_is_not_held_is_asked_of_the_next_mirror_too() {
    for behaviour in [
        Behaviour::Status(503),
        Behaviour::Status(404),
        Behaviour::ResetHead,
    ] {
        let second = Origin::start().await;
        let bench = two(&second).await;
        let file = publish_both(
            &bench,
            &second,
            "generic",
            &Payload::generated(1000, 1),
            ["\"a\"", "\"a\""],
        );
        bench.origin.behave(&file.at, behaviour.clone());
        let head = bench
            .ask(Method::HEAD, "generic", &file.path, &[])
            .await
            .unwrap();
        assert_eq!(
            head.answer.representation.length,
            Some(1000),
            "{behaviour:?}"
        );
    }
}

#[tokio::test]
async fn of_answers_that_bring_nothing_the_one_that_says_most_is_given() {
    for (first, other, expected) in [
        (
            Behaviour::Status(404),
            Behaviour::Status(404),
            FaultKind::Upstream(404),
        ),
        (
            Behaviour::Status(503),
            Behaviour::Status(404),
            FaultKind::Upstream(404),
        ),
        (
            Behaviour::ResetHead,
            Behaviour::Status(404),
            FaultKind::Upstream(404),
        ),
        (
            Behaviour::Status(404),
            Behaviour::ResetHead,
            FaultKind::Upstream(404),
        ),
        (
            Behaviour::Status(403),
            Behaviour::Status(503),
            FaultKind::Upstream(403),
        ),
        (
            Behaviour::Status(503),
            Behaviour::ResetHead,
            FaultKind::Upstream(503),
        ),
        (
            Behaviour::ResetHead,
            Behaviour::ResetHead,
            FaultKind::BadGateway,
        ),
    ] {
        let second = Origin::start().await;
        let bench = two(&second).await;
        let file = publish_both(
            &bench,
            &second,
            "generic",
            &Payload::generated(10, 1),
            ["\"a\"", "\"a\""],
        );
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
    bench.origin.put(
        "/v1/index.yaml",
        Resource::new("apiVersion: v1\nentries: {}\n"),
    );
    bench.get("helm", "v1/index.yaml").await.unwrap();
    bench.settled().await;
    bench.wait(100_000);
    bench.origin.behave("/v1/index.yaml", Behaviour::ResetHead);
    assert_eq!(
        bench.get("helm", "v1/index.yaml").await.unwrap().text(),
        "apiVersion: v1\nentries: {}\n"
    );
    bench.settled().await;
    assert!(matches!(
        bench
            .record("helm", "v1/index.yaml", "")
            .await
            .unwrap()
            .content,
        Content::Blob(_)
    ));
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
        assert_eq!(
            get(&bench, &file).await.bytes(),
            &body.slice(0, 1000),
            "{format}"
        );
    }
}

/// A registry answers 401 to a mistyped name when nobody has logged in. That says nothing of the mirror.
#[tokio::test]
async fn names_that_nobody_gets_put_no_mirror_aside() {
    let second = Origin::start().await;
    let bench = two(&second).await;
    for origin in [&bench.origin, &second] {
        origin.behave("*", Behaviour::Status(401));
    }
    for number in 0..5 {
        let fault = bench
            .get("docker", &format!("mistyped/manifests/{number}"))
            .await
            .unwrap_err();
        assert_eq!(
            (fault.kind, fault.code.as_str()),
            (FaultKind::NotFound, "name_unknown")
        );
    }
    for origin in [&bench.origin, &second] {
        assert_eq!(counter(&mirror(&bench, "docker", origin), "failures"), 0);
        assert!(mirror(&bench, "docker", origin).healthy);
    }
}

/// One mirror's word binds nobody else: only where all say so is nobody asked.
#[tokio::test]
async fn hazard_a9_one_mirrors_retry_after_does_not_keep_the_others_from_being_asked() {
    let second = Origin::start().await;
    let bench = two(&second).await;
    let busy = |origin: &Origin, path: &str, after: &str| {
        origin.behave(path, Behaviour::Status(429));
        origin.behave(
            path,
            Behaviour::Header("Retry-After".to_owned(), after.to_owned()),
        );
    };
    busy(&bench.origin, "/one", "30");
    second.behave("/one", Behaviour::Status(500));
    for times in [1, 2] {
        bench.get("generic", "one").await.unwrap_err();
        bench.settled().await;
        assert_eq!(
            asked(&second, "/one"),
            times,
            "the second has not said when to come back"
        );
    }
    busy(&bench.origin, "/both", "30");
    busy(&second, "/both", "10");
    for _ in 0..3 {
        let fault = bench.get("generic", "both").await.unwrap_err();
        assert_eq!(fault.kind, larder_core::FaultKind::Upstream(429));
        bench.settled().await;
    }
    assert_eq!(
        (asked(&bench.origin, "/both"), asked(&second, "/both")),
        (1, 1)
    );
    bench.wait(10);
    bench.get("generic", "both").await.unwrap_err();
    assert_eq!(
        asked(&second, "/both"),
        2,
        "the first that may be asked again is"
    );
}

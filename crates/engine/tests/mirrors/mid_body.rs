//! After the first byte: the rest of a body comes from another mirror, or the body is fetched anew.

use std::time::Duration;

use larder_core::sha256;
use larder_testkit::{Behaviour, Origin, Payload};

use crate::support::{FORMATS, publish};
use crate::{KIB, MIB, asked, assert_kept, get, publish_both, two};

/// A mirror that sends, but hardly anything: the rest comes from the next one.
#[tokio::test]
async fn a_trickling_mirror_is_left_in_mid_body() {
    let run = async |format: &str, tags: [&str; 2]| {
        let second = Origin::start().await;
        let bench = two(&second).await;
        let body = Payload::generated(2 * MIB, 1);
        let file = publish_both(&bench, &second, format, &body, tags);
        bench.origin.behave(
            &file.at,
            Behaviour::Throttle {
                bytes_per_second: 8 * KIB,
            },
        );
        let got = tokio::time::timeout(Duration::from_secs(60), get(&bench, &file))
            .await
            .expect("not at 8 KiB a second");
        assert_eq!(
            sha256(got.bytes()),
            sha256(&body.slice(0, 2 * MIB)),
            "{format}"
        );
        assert_kept(&bench, &file, &body).await;
        assert_eq!(
            (asked(&bench.origin, &file.at), asked(&second, &file.at)),
            (1, 1),
            "{format}"
        );
    };
    tokio::join!(
        run("generic", ["\"a\"", "\"a\""]),
        run("pypi", ["\"a\"", "\"b\""]),
        run("npm", ["W/\"a\"", "W/\"a\""])
    );
}

/// Where nobody else can go on with what has been sent, slow is better than nothing.
#[tokio::test]
async fn a_trickling_mirror_is_kept_if_no_other_can_go_on_with_its_body() {
    let second = Origin::start().await;
    let bench = two(&second).await;
    let body = Payload::generated(100 * KIB, 1);
    publish(
        &second,
        "generic",
        &Payload::generated(100 * KIB, 2),
        "\"b\"",
    );
    let file = publish(&bench.origin, "generic", &body, "\"a\"");
    bench.origin.behave(
        &file.at,
        Behaviour::Throttle {
            bytes_per_second: 10 * KIB,
        },
    );
    assert_eq!(
        sha256(get(&bench, &file).await.bytes()),
        sha256(&body.slice(0, 100 * KIB))
    );
    assert_eq!(asked(&second, &file.at), 1, "it was asked for the rest");
    assert_kept(&bench, &file, &body).await;
}

#[tokio::test]
async fn a_mirror_that_dies_in_mid_body_is_not_noticed() {
    for format in FORMATS {
        for behaviour in [
            Behaviour::Truncate { after: 2 * MIB },
            Behaviour::ResetBody { after: 2 * MIB },
            Behaviour::StallBody {
                after: 2 * MIB,
                pause: Duration::from_mins(2),
            },
        ] {
            let second = Origin::start().await;
            let bench = two(&second).await;
            let body = Payload::generated(3 * MIB, 1);
            let file = publish_both(&bench, &second, format, &body, ["\"same\"", "\"same\""]);
            bench.origin.behave(&file.at, behaviour.clone());
            let clients: Vec<_> = (0..8)
                .map(|_| tokio::spawn(bench.client(format, &file.path).run()))
                .collect();
            for client in clients {
                let got = client.await.unwrap().unwrap();
                assert_eq!(
                    sha256(got.bytes()),
                    sha256(&body.slice(0, 3 * MIB)),
                    "{format} {behaviour:?}"
                );
            }
            assert_kept(&bench, &file, &body).await;
            assert_eq!(
                (asked(&bench.origin, &file.at), asked(&second, &file.at)),
                (1, 1),
                "{format} {behaviour:?}"
            );
            let rest = second
                .requests()
                .into_iter()
                .find(|request| request.path() == file.at)
                .unwrap();
            assert!(
                rest.header("range").is_some(),
                "{format}: only the rest is asked for"
            );
            // A digest vouches for the whole; without one the tag has to be the same.
            assert_eq!(
                rest.header("if-range"),
                (format == "generic").then_some("\"same\""),
                "{format}"
            );
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
            bench
                .origin
                .behave(&file.at, Behaviour::Truncate { after: 2 * MIB + 7 });
            let got = get(&bench, &file).await;
            assert_eq!(
                sha256(got.bytes()),
                sha256(&body.slice(0, 3 * MIB)),
                "{format} {tags:?}"
            );
            assert_kept(&bench, &file, &body).await;
            let record = bench.record(format, &file.path, "").await.unwrap();
            if tags[0] != tags[1] {
                assert_eq!(
                    record.headers.etag, None,
                    "{format}: of whose bytes would it be the tag?"
                );
            }
        }
    }
}

/// Without a digest the second mirror's body counts only if it begins with what has been sent already.
#[tokio::test]
async fn parts_of_different_bodies_are_never_joined() {
    for (tags, length) in [
        (["\"a\"", "\"b\""], 3 * MIB),
        (["W/\"a\"", "W/\"a\""], 3 * MIB),
        (["\"a\"", "\"b\""], 3 * MIB + 1),
    ] {
        let second = Origin::start().await;
        let bench = two(&second).await;
        let other = Payload::generated(length, 2);
        publish(&second, "generic", &other, tags[1]);
        let file = publish(
            &bench.origin,
            "generic",
            &Payload::generated(3 * MIB, 1),
            tags[0],
        );
        bench
            .origin
            .behave(&file.at, Behaviour::Truncate { after: 2 * MIB });
        let cut = bench.get("generic", &file.path).await;
        assert!(
            cut.is_err() || cut.unwrap().body.is_err(),
            "{tags:?} {length}"
        );
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
    let file = publish(
        &bench.origin,
        "generic",
        &Payload::generated(900 * KIB, 1),
        "\"a\"",
    );
    bench
        .origin
        .behave(&file.at, Behaviour::Truncate { after: 500 * KIB });
    assert_eq!(
        sha256(get(&bench, &file).await.bytes()),
        sha256(&other.slice(0, 900 * KIB)),
        "nothing of the first had left"
    );
    assert_kept(&bench, &file, &other).await;
}

#[tokio::test]
async fn sixty_four_clients_and_a_mirror_that_dies_are_one_download() {
    let second = Origin::start().await;
    let bench = two(&second).await;
    let body = Payload::generated(8 * MIB, 1);
    let file = publish_both(&bench, &second, "generic", &body, ["\"same\"", "\"same\""]);
    bench
        .origin
        .behave(&file.at, Behaviour::ResetBody { after: 5 * MIB });
    let whole = body.slice(0, 8 * MIB);
    let clients: Vec<_> = (0..64)
        .map(|_| tokio::spawn(bench.client("generic", &file.path).expect(&whole).run()))
        .collect();
    for client in clients {
        client.await.unwrap().unwrap().body.unwrap();
    }
    bench.settled().await;
    assert_eq!(
        (asked(&bench.origin, &file.at), asked(&second, &file.at)),
        (1, 1)
    );
}

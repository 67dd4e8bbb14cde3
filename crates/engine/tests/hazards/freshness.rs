//! Contract, section 3: time-to-live, revalidation, stale copies, negative answers, offline.

use std::time::Duration;

use larder_core::{Clock as _, FaultKind, Pattern, Repository, Revalidate, Source};
use larder_testkit::Behaviour;

use crate::support::{Bench, upstream};
use crate::{refusal, text};

fn idx_is_mutable(repository: &mut Repository) {
    repository.access.mutable = Some(vec![Pattern::compile("idx$").unwrap()]);
}

/// A bench with an expired copy of `idx`.
async fn expired(change: impl Fn(&mut Repository)) -> Bench {
    let bench = Bench::with(|r| {
        idx_is_mutable(r);
        change(r);
    })
    .await;
    bench.origin.put("/idx", text("one"));
    bench.get("generic", "idx").await.unwrap();
    bench.settled().await;
    bench.wait(3601);
    bench.origin.reset_log();
    bench
}

fn asked(bench: &Bench) -> Vec<(String, bool)> {
    let conditional =
        |request: &larder_testkit::RecordedRequest| request.header("if-none-match").is_some();
    bench
        .origin
        .requests()
        .iter()
        .map(|request| (request.method.clone(), conditional(request)))
        .collect()
}

fn requests(expected: &[(&str, bool)]) -> Vec<(String, bool)> {
    expected
        .iter()
        .map(|(method, conditional)| ((*method).to_owned(), *conditional))
        .collect()
}

#[tokio::test]
async fn each_way_of_revalidation_asks_as_it_says() {
    for (revalidate, check, unchanged, changed) in [
        (None, false, &[("GET", false)][..], &[("GET", false)][..]),
        (
            None,
            true,
            &[("HEAD", true)],
            &[("HEAD", true), ("GET", false)],
        ),
        (
            Some(Revalidate::Head),
            false,
            &[("HEAD", true)],
            &[("HEAD", true), ("GET", false)],
        ),
        (
            Some(Revalidate::Get),
            false,
            &[("GET", true)],
            &[("GET", true)],
        ),
        (
            Some(Revalidate::Never),
            true,
            &[("GET", false)],
            &[("GET", false)],
        ),
    ] {
        let bench =
            expired(|r| (r.cache.revalidate, r.cache.check_mutable_updates) = (revalidate, check))
                .await;
        let got = bench.get("generic", "idx").await.unwrap();
        let renewed = unchanged != [("GET", false)];
        assert_eq!(
            got.answer.source,
            if renewed {
                Source::Cache
            } else {
                Source::Remote
            },
            "{revalidate:?} {check}"
        );
        assert_eq!(
            (got.text().as_str(), asked(&bench)),
            ("one", requests(unchanged)),
            "{revalidate:?} {check}"
        );
        bench.settled().await;
        assert!(
            bench.get("generic", "idx").await.unwrap().is_hit(),
            "its life has started anew"
        );
        bench.wait(3601);
        bench.origin.reset_log();
        bench.origin.put("/idx", text("two"));
        let got = bench.get("generic", "idx").await.unwrap();
        assert_eq!(
            (got.text().as_str(), got.answer.source),
            ("two", Source::Remote)
        );
        assert_eq!(asked(&bench), requests(changed), "{revalidate:?} {check}");
    }
}

#[tokio::test]
async fn a_head_that_is_not_supported_becomes_a_conditional_get() {
    for status in [400, 403, 405, 501] {
        let bench = expired(|r| r.cache.revalidate = Some(Revalidate::Head)).await;
        bench.origin.behave_once("/idx", Behaviour::Status(status));
        let got = bench.get("generic", "idx").await.unwrap();
        assert_eq!(
            (got.text().as_str(), got.answer.source),
            ("one", Source::Cache),
            "{status}"
        );
        assert_eq!(asked(&bench), requests(&[("HEAD", true), ("GET", true)]));
    }
}

#[tokio::test]
async fn built_in_documents_are_fetched_again_and_revalidated_only_if_that_is_set() {
    for (revalidate, conditional) in [(None, false), (Some(Revalidate::Get), true)] {
        let bench = Bench::with(|r| {
            (r.cache.revalidate, r.cache.check_mutable_updates) = (revalidate, true);
        })
        .await;
        let file = crate::support::publish(
            &bench.origin,
            "helm",
            &larder_testkit::Payload::generated(10, 1),
            "\"f\"",
        );
        bench.get("helm", file.document).await.unwrap();
        bench.settled().await;
        bench.wait(3601);
        bench.origin.reset_log();
        bench.get("helm", file.document).await.unwrap();
        assert_eq!(asked(&bench), requests(&[("GET", conditional)]));
    }
}

#[tokio::test]
async fn an_expired_immutable_file_follows_the_same_rules() {
    let ttl = |r: &mut Repository| r.cache.immutable_ttl = Some(Duration::from_secs(100));
    let mut bench = Bench::with(ttl).await;
    bench.origin.put("/a.tgz", text("one"));
    bench.get("generic", "a.tgz").await.unwrap();
    bench.settled().await;
    bench.wait(99);
    let hit = bench.get("generic", "a.tgz").await.unwrap();
    assert_eq!(
        (hit.is_hit(), hit.answer.freshness.remaining),
        (true, Some(Duration::from_secs(1)))
    );
    bench.wait(1);
    bench.origin.put("/a.tgz", text("two"));
    assert_eq!(bench.get("generic", "a.tgz").await.unwrap().text(), "two");
    bench.settled().await;
    bench.wait(101);
    bench.origin.stop().await;
    assert_eq!(
        bench.get("generic", "a.tgz").await.unwrap().text(),
        "two",
        "stale for want of an upstream"
    );
    bench.settled().await;
    assert!(
        bench.get("generic", "a.tgz").await.unwrap().is_hit(),
        "renewed"
    );
    bench.wait(101);
    bench.origin.restart();
    bench.origin.remove("/a.tgz");
    assert_eq!(
        refusal(bench.get("generic", "a.tgz").await).0,
        FaultKind::Upstream(404)
    );
}

#[tokio::test]
async fn network_failures_renew_the_copy_and_statuses_do_not() {
    for (failure, renewed) in [
        (Behaviour::ResetHead, true),
        (Behaviour::StallHead(Duration::from_secs(60)), true),
        (Behaviour::Garbage("nonsense\r\n\r\n".into()), false),
        (Behaviour::Truncate { after: 0 }, false),
    ] {
        let bench = expired(|_| {}).await;
        bench.origin.behave("/idx", failure.clone());
        let stale = bench.get("generic", "idx").await.unwrap();
        assert_eq!(
            (stale.text().as_str(), stale.answer.source),
            ("one", Source::Cache),
            "{failure:?}"
        );
        bench.settled().await;
        bench.origin.clear("/idx");
        bench.origin.put("/idx", text("two"));
        let next = bench.get("generic", "idx").await.unwrap().text();
        assert_eq!(next, if renewed { "one" } else { "two" }, "{failure:?}");
    }
}

#[tokio::test]
async fn statuses_are_passed_on_and_the_copy_waits_for_a_network_failure() {
    for (status, kind) in [
        (401, FaultKind::BadGateway),
        (403, FaultKind::Upstream(403)),
        (429, FaultKind::Upstream(429)),
        (451, FaultKind::Upstream(451)),
        (500, FaultKind::Upstream(500)),
        (503, FaultKind::Upstream(503)),
    ] {
        let mut bench = expired(|_| {}).await;
        bench.origin.behave("/idx", Behaviour::Status(status));
        bench.origin.behave(
            "/idx",
            Behaviour::Header("Retry-After".to_owned(), "17".to_owned()),
        );
        let fault = bench.get("generic", "idx").await.unwrap_err();
        assert_eq!(fault.kind, kind);
        if status == 429 {
            assert_eq!(fault.retry_after, Some(Duration::from_secs(17)));
        }
        bench.settled().await;
        // Until then nobody asks.
        bench.wait(17);
        bench.origin.stop().await;
        assert_eq!(
            bench.get("generic", "idx").await.unwrap().text(),
            "one",
            "{status}: the copy stayed"
        );
    }
    for status in [404, 410] {
        let mut bench = expired(|_| {}).await;
        bench.origin.behave("/idx", Behaviour::Status(status));
        assert_eq!(
            refusal(bench.get("generic", "idx").await).0,
            FaultKind::Upstream(status)
        );
        bench.settled().await;
        bench.wait(11);
        bench.origin.stop().await;
        assert_eq!(
            refusal(bench.get("generic", "idx").await).0,
            FaultKind::BadGateway,
            "{status}: the copy is dropped"
        );
    }
}

#[tokio::test]
async fn stale_on_status_serves_the_copy_for_the_statuses_that_it_lists() {
    let bench = expired(|r| r.cache.stale_on_status = vec![429, 503]).await;
    for (status, stale) in [(503, true), (429, true), (500, false), (404, false)] {
        bench.origin.behave("/idx", Behaviour::Status(status));
        match bench.get("generic", "idx").await {
            Ok(got) => {
                assert!(stale, "{status}");
                assert_eq!(got.text(), "one");
                assert_eq!(
                    got.answer.freshness.remaining,
                    Some(Duration::ZERO),
                    "its life is not renewed"
                );
            }
            Err(fault) => assert_eq!((stale, fault.kind), (false, FaultKind::Upstream(status))),
        }
        bench.settled().await;
        bench.origin.clear("/idx");
    }
}

/// A rotated password stops no build where the operator says so: for what changes and for a file whose `immutable_ttl` is over.
#[tokio::test]
async fn refused_logins_serve_the_copy_where_they_are_listed() {
    for (status, listed, served) in [
        (401, vec![401], true),
        (403, vec![403], true),
        (407, vec![407], true),
        (401, vec![403], false),
        (403, vec![], false),
    ] {
        let bench = expired(|r| {
            r.cache.stale_on_status.clone_from(&listed);
            r.cache.immutable_ttl = Some(Duration::from_secs(60));
        })
        .await;
        bench.origin.put("/file.zip", text("kept"));
        assert_eq!(
            bench.get("generic", "file.zip").await.unwrap().text(),
            "kept"
        );
        bench.settled().await;
        bench.wait(61);
        for (path, held) in [("idx", "one"), ("file.zip", "kept")] {
            bench
                .origin
                .behave(&format!("/{path}"), Behaviour::Status(status));
            match bench.get("generic", path).await {
                Ok(got) => {
                    assert!(served, "{status} {listed:?} {path}");
                    assert_eq!(got.text(), held);
                    assert_eq!(
                        got.answer.freshness.remaining,
                        Some(Duration::ZERO),
                        "its life is not renewed"
                    );
                }
                Err(fault) => assert!(!served, "{status} {listed:?} {path}: {fault:?}"),
            }
            bench.settled().await;
        }
    }
}

#[tokio::test]
async fn stale_max_age_counts_from_the_last_good_contact() {
    let mut bench = expired(|r| r.cache.stale_max_age = Some(Duration::from_secs(10_000))).await;
    bench.origin.stop().await;
    // Stale renewals are no contact: 3601 s have passed, then twice 3601 s more.
    assert_eq!(bench.get("generic", "idx").await.unwrap().text(), "one");
    bench.settled().await;
    bench.wait(3601);
    assert_eq!(bench.get("generic", "idx").await.unwrap().text(), "one");
    bench.settled().await;
    bench.wait(3601);
    assert_eq!(
        refusal(bench.get("generic", "idx").await).0,
        FaultKind::BadGateway
    );
    bench.origin.restart();
    bench.wait(60);
    assert_eq!(bench.get("generic", "idx").await.unwrap().text(), "one");
}

#[tokio::test]
async fn stale_while_revalidate_answers_at_once_and_refreshes_behind_the_scenes() {
    let bench = expired(|r| r.cache.stale_while_revalidate = Duration::from_secs(60)).await;
    bench.origin.put("/idx", text("two"));
    bench.origin.hold("/idx");
    let at_once = tokio::time::timeout(Duration::from_secs(1), bench.get("generic", "idx"))
        .await
        .expect("nobody is waited for");
    let at_once = at_once.unwrap();
    assert_eq!(
        (at_once.text().as_str(), at_once.answer.source),
        ("one", Source::Cache)
    );
    assert_eq!(at_once.answer.freshness.remaining, Some(Duration::ZERO));
    bench.origin.release("/idx");
    bench.settled().await;
    assert_eq!(bench.get("generic", "idx").await.unwrap().text(), "two");
    // Later than that, the client waits.
    bench.wait(3600 + 61);
    bench.origin.put("/idx", text("three"));
    assert_eq!(bench.get("generic", "idx").await.unwrap().text(), "three");
}

#[tokio::test]
async fn offline_serves_what_is_held_however_old_and_asks_nobody() {
    let mut bench = expired(|_| {}).await;
    bench.origin.put("/other", text("other"));
    bench.reload(|r| upstream(r).offline = true);
    assert_eq!(bench.get("generic", "idx").await.unwrap().text(), "one");
    for method in [http::Method::GET, http::Method::HEAD] {
        assert_eq!(
            refusal(bench.ask(method, "generic", "other", &[]).await),
            (FaultKind::BadGateway, "offline")
        );
    }
    assert_eq!(
        refusal(bench.get("npm", "demo/-/demo-1.0.0.tgz").await),
        (FaultKind::BadGateway, "offline")
    );
    assert_eq!(bench.origin.requests(), []);
}

#[tokio::test]
async fn a_mutable_ttl_of_zero_asks_on_every_request() {
    let bench = Bench::with(|r| {
        idx_is_mutable(r);
        r.cache.mutable_ttl = Duration::ZERO;
    })
    .await;
    for body in ["one", "two", "three"] {
        bench.origin.put("/idx", text(body));
        assert_eq!(bench.get("generic", "idx").await.unwrap().text(), body);
    }
    assert_eq!(bench.origin.count("GET", "/idx"), 3);
}

/// The clock was ahead by an hour or a year when things were fetched, and is right when larder is started again. Whatever its life, a
/// copy has had it: it is asked for anew, and an absence is no longer believed.
#[tokio::test]
async fn hazard_a_clock_that_went_back_between_two_runs_makes_nothing_immortal() {
    for ahead in [3_600, 365 * 86_400] {
        let mut bench = Bench::with(|r| {
            idx_is_mutable(r);
            r.cache.mutable_ttl = Duration::from_secs(60);
            r.cache.immutable_ttl = Some(Duration::from_secs(60));
        })
        .await;
        let right = bench.clock.now();
        bench.wait(ahead);
        for path in ["/idx", "/file"] {
            bench.origin.put(path, text("one"));
            bench.get("generic", &path[1..]).await.unwrap();
        }
        assert_eq!(
            refusal(bench.get("generic", "absent").await).0,
            FaultKind::Upstream(404)
        );
        bench.settled().await;
        bench.clock.set(right);
        bench.restart().await;
        bench.origin.put("/absent", text("here"));
        for path in ["/idx", "/file"] {
            bench.origin.put(path, text("two"));
        }
        for (path, body) in [("idx", "two"), ("file", "two"), ("absent", "here")] {
            let got = bench.get("generic", path).await.unwrap();
            assert_eq!(
                (got.text().as_str(), got.answer.source),
                (body, Source::Remote),
                "{path}, {ahead} s ahead"
            );
        }
        bench.settled().await;
        bench.wait(59);
        assert!(bench.get("generic", "idx").await.unwrap().is_hit());
        bench.wait(1);
        assert!(
            !bench.get("generic", "idx").await.unwrap().is_hit(),
            "its life is measured from now on"
        );
    }
}

#[tokio::test]
async fn hazard_a6_an_absence_is_forgotten_in_time_and_by_a_flush() {
    for (forget, ttl) in [("time", 10), ("flush", 10), ("at once", 0)] {
        let bench = Bench::with(|r| r.cache.negative_ttl = Duration::from_secs(ttl)).await;
        for status in [404, 410] {
            let path = format!("f{status}");
            bench
                .origin
                .behave(&format!("/{path}"), Behaviour::Status(status));
            for _ in 0..2 {
                assert_eq!(
                    refusal(bench.get("generic", &path).await).0,
                    FaultKind::Upstream(status)
                );
                bench.settled().await;
            }
            let asked = bench.origin.count("GET", &format!("/{path}"));
            assert_eq!(asked, if ttl == 0 { 2 } else { 1 }, "{forget}");
            bench.origin.clear(&format!("/{path}"));
            bench.origin.put(&format!("/{path}"), text("there"));
            match forget {
                "time" => bench.wait(10),
                "flush" => drop(bench.flush().await),
                _ => {}
            }
            assert_eq!(
                bench.get("generic", &path).await.unwrap().text(),
                "there",
                "{forget}"
            );
        }
    }
}

#[tokio::test]
async fn hazard_a6_no_other_failure_is_remembered() {
    let bench = Bench::new().await;
    bench.origin.put("/f", text("there"));
    for failure in [
        Behaviour::Status(401),
        Behaviour::Status(403),
        Behaviour::Status(429),
        Behaviour::Status(451),
        Behaviour::Status(500),
        Behaviour::Status(502),
        Behaviour::ResetHead,
        Behaviour::Truncate { after: 1 },
    ] {
        bench.flush().await;
        bench.origin.behave("/f", failure.clone());
        refusal(bench.get("generic", "f").await);
        bench.settled().await;
        bench.origin.clear("/f");
        bench.wait(60);
        assert_eq!(
            bench.get("generic", "f").await.unwrap().text(),
            "there",
            "{failure:?}"
        );
        bench.settled().await;
    }
}

#[tokio::test]
async fn hazard_a5_a_transfer_may_take_long_and_must_not_stand_still() {
    let bench = Bench::new().await;
    let body = larder_testkit::Payload::generated(1_500_000, 1);
    bench
        .origin
        .put("/slow", larder_testkit::Resource::new(body.clone()));
    // Three seconds, twice the time that it may stand still.
    bench.origin.behave(
        "/slow",
        Behaviour::Throttle {
            bytes_per_second: 500_000,
        },
    );
    assert_eq!(
        bench.get("generic", "slow").await.unwrap().bytes(),
        &body.slice(0, 1_500_000)
    );
    bench
        .origin
        .put("/stuck", larder_testkit::Resource::new(body));
    bench.origin.behave(
        "/stuck",
        Behaviour::StallBody {
            after: 1_200_000,
            pause: Duration::from_secs(60),
        },
    );
    let stuck = tokio::time::timeout(Duration::from_secs(10), bench.get("generic", "stuck"))
        .await
        .expect("time-out on progress");
    assert!(stuck.unwrap().body.is_err());
    bench.origin.put("/small", text("small"));
    bench.origin.behave(
        "/small",
        Behaviour::StallBody {
            after: 1,
            pause: Duration::from_secs(60),
        },
    );
    assert_eq!(
        refusal(bench.get("generic", "small").await).0,
        FaultKind::GatewayTimeout
    );
}

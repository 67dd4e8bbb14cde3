//! A repository is read as of one generation, whatever the upstream does meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use larder_core::{Fault, FaultKind};
use larder_testkit::Behaviour;

use crate::repo::{Generation, MASTER, SIGNATURE, Style, generation, resource, signature};
use crate::support::{Bench, eventually, pass, while_time_passes};
use crate::{EXPIRED, body, refusal};

const ONE: &[(&str, &str)] = &[("Packages/x-1.x86_64.rpm", "one")];
const TWO: &[(&str, &str)] = &[
    ("Packages/x-1.x86_64.rpm", "one"),
    ("Packages/x-2.x86_64.rpm", "two"),
];

/// Nobody who has read a signature asks for the master index any more.
async fn no_longer_read() {
    pass(Duration::from_millis(800)).await;
}

/// Waits until the upstream has seen so many requests for the master index.
async fn is_asked(bench: &Bench, times: usize) {
    let asked = bench
        .origin
        .wait_for("GET", "/el9/repodata/repomd.xml", times);
    tokio::time::timeout(Duration::from_secs(20), asked)
        .await
        .unwrap();
}

async fn published(first: &Generation) -> Bench {
    let bench = Bench::new().await;
    first.publish(&bench.origin, "el9/", None);
    bench
}

fn states() -> (Generation, Generation) {
    (
        generation(Style::revision(1), ONE),
        generation(Style::revision(2), TWO),
    )
}

#[tokio::test]
async fn rpm_02_the_signature_is_of_the_master_index_that_was_served_before_it() {
    let (one, two) = states();
    let bench = published(&one).await;
    assert_eq!(body(&bench, "el9/repodata/repomd.xml").await, one.repomd);
    two.publish(&bench.origin, "el9/", Some(&one));
    bench.wait(EXPIRED);
    // Between the two requests of this client the upstream has moved on and the copies have expired.
    assert_eq!(
        body(&bench, "el9/repodata/repomd.xml.asc").await,
        signature(&one.repomd)
    );
    // zypper reads the signature first: it gets the master index that belongs to it.
    assert_eq!(body(&bench, "el9/repodata/repomd.xml").await, one.repomd);
    // It had expired, so the upstream is asked now; what it has is exchanged when nobody reads the old generation any more.
    is_asked(&bench, 2).await;
    no_longer_read().await;
    assert_eq!(body(&bench, "el9/repodata/repomd.xml").await, two.repomd);
    assert_eq!(
        body(&bench, "el9/repodata/repomd.xml.asc").await,
        signature(&two.repomd)
    );
    assert!(
        bench
            .get("rpm", "el9/repodata/repomd.xml.asc")
            .await
            .unwrap()
            .is_hit()
    );
    assert_eq!(bench.origin.count("GET", "/el9/repodata/repomd.xml.asc"), 2);
}

/// `mutable_ttl: 0` is "check on every request" (the contract), for those too who ask while others read the same generation.
#[tokio::test]
async fn rpm_02_a_master_index_that_is_being_read_is_checked_on_every_request_that_must_be() {
    let (one, _) = states();
    let bench = Bench::with(|repository| repository.cache.mutable_ttl = Duration::ZERO).await;
    one.publish(&bench.origin, "el9/", None);
    body(&bench, "el9/repodata/repomd.xml").await;
    for _ in 0..4 {
        // Each reader of a signature opens the window in which the master index is kept for it.
        assert_eq!(
            body(&bench, "el9/repodata/repomd.xml.asc").await,
            signature(&one.repomd)
        );
        let asked = bench.origin.count("GET", "/el9/repodata/repomd.xml");
        assert_eq!(body(&bench, "el9/repodata/repomd.xml").await, one.repomd);
        is_asked(&bench, asked + 1).await;
        bench.settled().await;
    }
}

/// createrepo_c first puts `repomd.xml` in place, then gpg writes its signature.
#[tokio::test]
async fn rpm_02_a_master_index_that_is_not_signed_yet_waits_for_its_signature() {
    let (one, two) = states();
    let bench = published(&one).await;
    body(&bench, "el9/repodata/repomd.xml").await;
    let unsigned = Generation {
        metadata: without(&two, SIGNATURE),
        ..two.clone()
    };
    unsigned.publish(&bench.origin, "el9/", Some(&one));
    bench.wait(EXPIRED);
    // It does not come for now: the generation before is served, whole.
    assert_eq!(body(&bench, "el9/repodata/repomd.xml").await, one.repomd);
    assert_eq!(
        body(&bench, "el9/repodata/repomd.xml.asc").await,
        signature(&one.repomd)
    );
    assert_eq!(
        body(&bench, &format!("el9/{}", one.path_of("primary"))).await,
        one.body_of("primary")
    );
    no_longer_read().await;
    let signing = async {
        tokio::time::sleep(Duration::from_millis(250)).await;
        two.publish(&bench.origin, "el9/", None);
    };
    let asking = async { tokio::join!(bench.get("rpm", "el9/repodata/repomd.xml"), signing) };
    let (got, ()) = while_time_passes(asking).await;
    assert_eq!(got.unwrap().bytes(), &two.repomd);
    bench.settled().await;
    assert_eq!(
        body(&bench, "el9/repodata/repomd.xml.asc").await,
        signature(&two.repomd)
    );
}

/// A refresh that a package caused, long before the copy expires: who has just read the old master index gets its signature.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rpm_02_a_refresh_out_of_turn_lets_readers_finish() {
    let (one, two) = states();
    let bench = Arc::new(published(&one).await);
    body(&bench, "el9/repodata/repomd.xml").await;
    two.publish(&bench.origin, "el9/", Some(&one));
    let gone = format!("el9/{}", one.path_of("other"));
    let cause = tokio::spawn({
        let bench = Arc::clone(&bench);
        async move { refusal(bench.get("rpm", &gone).await).0 }
    });
    let mut seen = 0;
    for _ in 0..200 {
        let master = bench
            .get("rpm", "el9/repodata/repomd.xml")
            .await
            .unwrap()
            .bytes()
            .to_vec();
        // A client on a thread of its own reads what it has got: real time, since so is that of the refresh on another thread.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let signed = bench
            .get("rpm", "el9/repodata/repomd.xml.asc")
            .await
            .unwrap()
            .bytes()
            .to_vec();
        assert_eq!(signed, signature(&master));
        seen += usize::from(master == two.repomd);
        if seen > 3 {
            break;
        }
    }
    assert!(seen > 3, "the new generation was never seen");
    assert_eq!(cause.await.unwrap(), FaultKind::Upstream(404));
}

#[tokio::test]
async fn rpm_02_a_repository_that_is_no_longer_signed_is_served_after_a_while() {
    let (one, two) = states();
    let bench = published(&one).await;
    body(&bench, "el9/repodata/repomd.xml").await;
    Generation {
        metadata: without(&two, SIGNATURE),
        ..two.clone()
    }
    .publish(&bench.origin, "el9/", Some(&one));
    bench.wait(EXPIRED + 60);
    assert_eq!(body(&bench, "el9/repodata/repomd.xml").await, two.repomd);
    assert_eq!(
        refusal(bench.get("rpm", "el9/repodata/repomd.xml.asc").await).0,
        FaultKind::Upstream(404)
    );
}

/// The upstream publishes between larder's request for the master index and that for the signature.
#[tokio::test]
async fn rpm_02_a_signature_of_the_next_generation_is_noticed() {
    let (one, two) = states();
    let bench = published(&one).await;
    bench.origin.hold("/el9/repodata/repomd.xml.asc");
    let publishing = async {
        bench
            .origin
            .wait_for("GET", "/el9/repodata/repomd.xml.asc", 1)
            .await;
        // All of the first generation stays: only the signature tells.
        two.publish(&bench.origin, "el9/", None);
        bench.origin.release("/el9/repodata/repomd.xml.asc");
    };
    let (got, ()) = tokio::join!(bench.get("rpm", "el9/repodata/repomd.xml"), publishing);
    assert_eq!(got.unwrap().bytes(), &two.repomd);
    bench.settled().await;
    assert_eq!(
        body(&bench, "el9/repodata/repomd.xml.asc").await,
        signature(&two.repomd)
    );
}

/// The key is the same for every generation: that is no sign of anything.
#[tokio::test]
async fn rpm_02_a_key_beside_the_master_index_changes_nothing() {
    let (one, two) = states();
    let bench = published(&one).await;
    bench
        .origin
        .put("/el9/repodata/repomd.xml.key", resource(b"the key"));
    body(&bench, "el9/repodata/repomd.xml").await;
    assert_eq!(
        body(&bench, "el9/repodata/repomd.xml.key").await,
        b"the key"
    );
    two.publish(&bench.origin, "el9/", Some(&one));
    bench.wait(EXPIRED);
    no_longer_read().await;
    assert_eq!(body(&bench, "el9/repodata/repomd.xml").await, two.repomd);
    assert_eq!(bench.origin.count("GET", "/el9/repodata/repomd.xml"), 2);
    assert_eq!(
        body(&bench, "el9/repodata/repomd.xml.key").await,
        b"the key"
    );
}

fn without(generation: &Generation, path: &str) -> std::collections::BTreeMap<String, Vec<u8>> {
    generation
        .metadata
        .iter()
        .filter(|(other, _)| *other != path)
        .map(|(path, body)| (path.clone(), body.clone()))
        .collect()
}

#[tokio::test]
async fn rpm_03_what_a_client_has_read_in_the_master_index_is_there_though_the_upstream_has_deleted_it()
 {
    let (one, two) = states();
    let bench = published(&one).await;
    body(&bench, "el9/repodata/repomd.xml").await;
    two.publish(&bench.origin, "el9/", Some(&one));
    for kind in ["primary", "filelists"] {
        assert_eq!(
            body(&bench, &format!("el9/{}", one.path_of(kind))).await,
            one.body_of(kind)
        );
    }
    // And after the exchange: the generation before stays readable (hazard W10).
    bench.wait(EXPIRED);
    assert_eq!(body(&bench, "el9/repodata/repomd.xml").await, two.repomd);
    bench.wait(24 * 3600);
    for (state, kind) in [
        (&one, "primary"),
        (&two, "primary"),
        (&one, "filelists"),
        (&two, "filelists"),
    ] {
        assert_eq!(
            body(&bench, &format!("el9/{}", state.path_of(kind))).await,
            state.body_of(kind)
        );
    }
}

#[tokio::test]
async fn hazard_w10_the_files_of_a_generation_stay_for_a_day_after_it() {
    let states: Vec<Generation> = (1..=4)
        .map(|n| {
            generation(
                Style::revision(n),
                &[(&format!("Packages/x-{n}.x86_64.rpm"), "x")],
            )
        })
        .collect();
    let bench = published(&states[0]).await;
    body(&bench, "el9/repodata/repomd.xml").await;
    let held = async |state: &Generation| {
        let path = format!("el9/{}", state.path_of("primary"));
        bench
            .record("rpm", &path, "")
            .await
            .is_some_and(|record| record.blob().is_some())
    };
    // How old the files are matters not, but how long their generation is past.
    for (n, hours) in [(1, 100), (2, 12), (3, 13)] {
        bench.wait(hours * 3_600);
        states[n].publish(&bench.origin, "el9/", Some(&states[n - 1]));
        no_longer_read().await;
        assert_eq!(
            body(&bench, "el9/repodata/repomd.xml").await,
            states[n].repomd
        );
        if n == 3 {
            eventually("the first one goes", async || !held(&states[0]).await).await;
        }
        bench.let_others_go().await;
        assert!(held(&states[n - 1]).await && held(&states[n]).await);
        assert_eq!(held(&states[0]).await, n < 3, "after {n} exchanges");
    }
    assert!(held(&states[1]).await, "past for 13 hours");
}

#[tokio::test]
async fn rpm_03_a_generation_whose_files_are_not_to_be_had_does_not_replace_a_whole_one() {
    let (one, two) = states();
    let bench = published(&one).await;
    body(&bench, "el9/repodata/repomd.xml").await;
    two.publish(&bench.origin, "el9/", Some(&one));
    let primary = format!("/el9/{}", two.path_of("primary"));
    bench.origin.behave(&primary, Behaviour::ResetHead);
    bench.wait(EXPIRED);
    let got = bench.get("rpm", "el9/repodata/repomd.xml").await.unwrap();
    assert_eq!(got.bytes(), &one.repomd);
    bench.settled().await;
    bench.origin.clear(&primary);
    bench.wait(60);
    assert_eq!(body(&bench, "el9/repodata/repomd.xml").await, two.repomd);
}

#[tokio::test]
async fn rpm_04_a_named_file_that_is_gone_refreshes_the_unit_once() {
    let (one, two) = states();
    let bench = published(&one).await;
    body(&bench, "el9/repodata/repomd.xml").await;
    two.publish(&bench.origin, "el9/", Some(&one));
    // Change logs are not fetched ahead: this client comes too late.
    let gone = format!("el9/{}", one.path_of("other"));
    for _ in 0..3 {
        assert_eq!(
            refusal(bench.get("rpm", &gone).await).0,
            FaultKind::Upstream(404)
        );
        bench.settled().await;
    }
    assert_eq!(
        bench.origin.count("GET", "/el9/repodata/repomd.xml"),
        2,
        "read once more, long before it expires"
    );
    // The client's retry.
    assert_eq!(body(&bench, "el9/repodata/repomd.xml").await, two.repomd);
    assert_eq!(
        body(&bench, &format!("el9/{}", two.path_of("other"))).await,
        two.body_of("other")
    );
    assert_eq!(bench.origin.count("GET", "/el9/repodata/repomd.xml"), 2);
}

#[tokio::test]
async fn rpm_07_metadata_without_a_digest_in_its_name_changes_with_the_master_index() {
    let style = |revision| Style {
        unique: false,
        ..Style::revision(revision)
    };
    let (one, two) = (generation(style(1), ONE), generation(style(2), TWO));
    let bench = published(&one).await;
    assert_eq!(body(&bench, "el9/repodata/repomd.xml").await, one.repomd);
    two.publish(&bench.origin, "el9/", Some(&one));
    bench.wait(EXPIRED);
    // It has expired too, but it is right only with the master index that was served.
    assert_eq!(
        body(&bench, "el9/repodata/primary.xml.gz").await,
        one.body_of("primary")
    );
    assert_eq!(body(&bench, "el9/repodata/repomd.xml").await, two.repomd);
    assert_eq!(
        body(&bench, "el9/repodata/primary.xml.gz").await,
        two.body_of("primary")
    );
    assert_eq!(bench.origin.count("GET", "/el9/repodata/primary.xml.gz"), 2);
}

#[tokio::test]
async fn rpm_12_with_no_rollback_an_older_revision_does_not_replace_a_newer_one() {
    let (older, newer) = states();
    for no_rollback in [true, false] {
        let bench = Bench::with(|repository| repository.cache.no_rollback = no_rollback).await;
        newer.publish(&bench.origin, "el9/", None);
        body(&bench, "el9/repodata/repomd.xml").await;
        older.publish(&bench.origin, "el9/", Some(&newer));
        bench.wait(EXPIRED);
        let (kept, companion) = if no_rollback {
            (&newer, &newer)
        } else {
            (&older, &older)
        };
        assert_eq!(
            body(&bench, "el9/repodata/repomd.xml").await,
            kept.repomd,
            "no_rollback: {no_rollback}"
        );
        assert_eq!(
            body(&bench, "el9/repodata/repomd.xml.asc").await,
            signature(&companion.repomd)
        );
        let hit = bench.get("rpm", "el9/repodata/repomd.xml").await.unwrap();
        assert!(
            hit.is_hit(),
            "its life has started anew: {}",
            hit.answer.cache_status
        );
    }
}

#[tokio::test]
async fn rpm_13_metadata_and_packages_are_there_when_the_upstream_is_not() {
    let (one, _) = states();
    let mut bench = published(&one).await;
    body(&bench, "el9/repodata/repomd.xml").await;
    body(&bench, "el9/Packages/x-1.x86_64.rpm").await;
    bench.origin.stop().await;
    bench.wait(EXPIRED);
    assert_eq!(body(&bench, "el9/repodata/repomd.xml").await, one.repomd);
    assert_eq!(
        body(&bench, "el9/repodata/repomd.xml.asc").await,
        signature(&one.repomd)
    );
    for path in one.metadata.keys().filter(|path| !path.contains("other")) {
        assert_eq!(
            &body(&bench, &format!("el9/{path}")).await,
            &one.metadata[path],
            "{path}"
        );
    }
    assert_eq!(body(&bench, "el9/Packages/x-1.x86_64.rpm").await, b"one");
    // Companions that the upstream did not have stay a plain 404.
    assert_eq!(
        refusal(bench.get("rpm", "el9/repodata/repomd.xml.key").await).0,
        FaultKind::Upstream(404)
    );
}

#[tokio::test]
async fn rpm_14_a_503_is_passed_on_unless_the_operator_lists_it() {
    for listed in [false, true] {
        let (one, _) = states();
        let bench = Bench::with(|repository| {
            repository.cache.stale_on_status = if listed { vec![503] } else { Vec::new() }
        })
        .await;
        one.publish(&bench.origin, "el9/", None);
        body(&bench, "el9/repodata/repomd.xml").await;
        bench.origin.behave("*", Behaviour::Status(503));
        bench.wait(EXPIRED);
        let got = bench.get("rpm", "el9/repodata/repomd.xml").await;
        if listed {
            assert_eq!(got.unwrap().bytes(), &one.repomd);
        } else {
            assert_eq!(refusal(got).0, FaultKind::Upstream(503));
        }
        assert_eq!(
            body(&bench, "el9/repodata/repomd.xml.asc").await,
            signature(&one.repomd),
            "as of what is held"
        );
    }
}

/// nexus-apt#46, nexus-public#538: metadata and what it names were cached independently of each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hazard_w10_no_client_sees_two_generations_while_the_upstream_publishes() {
    let bench =
        Arc::new(Bench::with(|repository| repository.cache.mutable_ttl = Duration::ZERO).await);
    let mut last = generation(Style::revision(0), ONE);
    last.publish(&bench.origin, "el9/", None);
    let left = Arc::new(AtomicUsize::new(4));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (bench, left) = (Arc::clone(&bench), Arc::clone(&left));
            tokio::spawn(async move {
                let mut seen = std::collections::BTreeSet::new();
                while left.load(Ordering::Relaxed) > 0 {
                    if seen.insert(read_as_a_client_does(&bench).await.unwrap()) && seen.len() == 3
                    {
                        left.fetch_sub(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    for revision in 1..=75 {
        if left.load(Ordering::Relaxed) == 0
            || clients.iter().any(tokio::task::JoinHandle::is_finished)
        {
            break;
        }
        // The clients run on threads of their own, in real time.
        tokio::time::sleep(Duration::from_millis(400)).await;
        let name = format!("Packages/x-{revision}.x86_64.rpm");
        let next = generation(Style::revision(revision), &[(&name, "x")]);
        next.publish(&bench.origin, "el9/", Some(&last));
        last = next;
    }
    let unlucky = left.swap(0, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(
        unlucky, 0,
        "clients that saw fewer than three generations in half a minute"
    );
}

/// The master index, its signature and all that it names but the change log; gives the master index.
async fn read_as_a_client_does(bench: &Bench) -> Result<Vec<u8>, Fault> {
    let master = bench
        .get("rpm", &format!("el9/{MASTER}"))
        .await?
        .bytes()
        .to_vec();
    let signed = bench
        .get("rpm", &format!("el9/{SIGNATURE}"))
        .await?
        .bytes()
        .to_vec();
    assert_eq!(
        signed,
        signature(&master),
        "the signature is of another master index"
    );
    let text = String::from_utf8(master.clone()).unwrap();
    for href in text
        .split("href=\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
    {
        if !href.contains("other") {
            let digest =
                larder_core::sha256(bench.get("rpm", &format!("el9/{href}")).await?.bytes())
                    .to_hex();
            assert!(href.contains(&digest), "{href} has the digest {digest}");
        }
    }
    Ok(master)
}

//! Files that are newer than the held document: a lock file is made where the new version is known already.

use http::Method;
use larder_core::FaultKind;
use larder_testkit::{Behaviour, Resource};

use crate::repo::{MASTER, Style, generation};
use crate::support::Bench;
use crate::{LINKING, Version, assert_verified, body, document, name, refusal};

/// Version 1.0.0 is published and its document held, fresh; then 2.0.0 is published.
async fn behind(format: &'static str) -> (Bench, Version) {
    let bench = Bench::new().await;
    let old = Version::new(&bench.origin, format, "1.0.0", "old");
    old.put(&bench.origin);
    name(&bench.origin, &[&old]);
    body(&bench, format, document(format).0).await;
    let new = Version::new(&bench.origin, format, "2.0.0", "brand new");
    new.put(&bench.origin);
    name(&bench.origin, &[&old, &new]);
    bench.origin.reset_log();
    (bench, new)
}

/// The document as every client of a lock file knows it: named and found right.
#[tokio::test]
async fn a_file_that_a_fresh_document_does_not_name_is_right_by_the_document_of_now() {
    for format in LINKING {
        let (bench, new) = behind(format).await;
        assert_eq!(body(&bench, format, &new.path).await, new.bytes, "{format}");
        assert_verified(bench.record(format, &new.path, "").await, format);
        let asked: Vec<_> = bench
            .origin
            .requests()
            .into_iter()
            .filter(|r| r.target == document(format).1)
            .collect();
        assert_eq!(asked.len(), 1, "{format}: {asked:?}");
        assert!(
            asked[0].header("if-none-match").is_some(),
            "{format}: read conditionally, for validators are held"
        );
    }
}

#[tokio::test]
async fn wrong_bytes_of_a_file_that_a_fresh_document_does_not_name_are_refused() {
    for format in LINKING {
        let (bench, new) = behind(format).await;
        bench.origin.put(&new.at, Resource::new("evil bytes"));
        assert_eq!(
            refusal(bench.get(format, &new.path).await),
            (FaultKind::BadGateway, "digest_mismatch"),
            "{format}"
        );
        bench.settled().await;
        assert_eq!(bench.record(format, &new.path, "").await, None, "{format}");
    }
}

#[tokio::test]
async fn a_new_file_that_is_elsewhere_is_found_by_get_by_head_and_by_range() {
    for method in [Method::HEAD, Method::GET] {
        let bench = Bench::new().await;
        let place = |number: &str, bytes| {
            let at = format!("files/demo-{number}.tgz");
            Version::at(
                &bench.origin,
                "npm",
                number,
                bytes,
                &at,
                format!("demo/-/demo-{number}.tgz"),
            )
        };
        let (old, new) = (place("1.0.0", "old"), place("2.0.0", "brand new"));
        name(&bench.origin, &[&old]);
        body(&bench, "npm", "demo").await;
        new.put(&bench.origin);
        name(&bench.origin, &[&old, &new]);
        let got = bench
            .ask(method.clone(), "npm", &new.path, &[("range", "bytes=6-8")])
            .await
            .unwrap();
        if method == Method::GET {
            assert_eq!((got.answer.status, got.text().as_str()), (206, "new"));
        } else {
            assert_eq!(
                (got.answer.status, got.answer.representation.length),
                (200, Some(9))
            );
        }
    }
}

#[tokio::test]
async fn many_who_ask_for_what_a_fresh_document_does_not_name_share_one_reading_of_it() {
    for format in LINKING {
        let (bench, new) = behind(format).await;
        let mut clients = tokio::task::JoinSet::new();
        for number in 0..200 {
            let made_up = Version::new(&bench.origin, format, &format!("3.0.{number}"), "");
            clients.spawn(bench.client(format, &made_up.path).run());
            clients.spawn(bench.client(format, &new.path).run());
        }
        while let Some(got) = clients.join_next().await {
            match got.unwrap() {
                Ok(got) => assert_eq!(got.bytes(), &new.bytes, "{format}"),
                Err(fault) => assert_eq!(fault.kind, FaultKind::Upstream(404), "{format}"),
            }
        }
        bench.settled().await;
        for number in 0..50 {
            let made_up = Version::new(&bench.origin, format, &format!("4.0.{number}"), "");
            assert_eq!(
                refusal(bench.get(format, &made_up.path).await).0,
                FaultKind::Upstream(404),
                "{format}"
            );
        }
        assert_eq!(
            bench.origin.count("*", document(format).1),
            1,
            "{format}: one reading, however many names"
        );
        bench.wait(1);
        let made_up = Version::new(&bench.origin, format, "5.0.0", "");
        refusal(bench.get(format, &made_up.path).await);
        assert_eq!(
            bench.origin.count("*", document(format).1),
            2,
            "{format}: and another one when its time is over"
        );
    }
}

/// The reading that was shared may have begun before the file was published.
#[tokio::test]
async fn an_absence_by_a_reading_of_a_moment_ago_is_not_remembered() {
    for format in LINKING {
        let (bench, new) = behind(format).await;
        body(&bench, format, &new.path).await;
        let newest = Version::new(&bench.origin, format, "3.0.0", "newest");
        assert_eq!(
            refusal(bench.get(format, &newest.path).await).0,
            FaultKind::Upstream(404),
            "{format}"
        );
        bench.settled().await;
        newest.put(&bench.origin);
        name(&bench.origin, &[&newest]);
        bench.wait(1);
        assert_eq!(
            body(&bench, format, &newest.path).await,
            newest.bytes,
            "{format}"
        );
        assert_verified(bench.record(format, &newest.path, "").await, format);
    }
}

#[tokio::test]
async fn an_unnamed_file_is_served_as_before_and_a_document_that_cannot_be_read_again_stays() {
    for format in LINKING {
        for behaviour in [
            None,
            Some(Behaviour::Status(404)),
            Some(Behaviour::Status(503)),
            Some(Behaviour::ResetHead),
        ] {
            let (bench, _) = behind(format).await;
            let unnamed = Version::new(&bench.origin, format, "9.0.0", "not in the document");
            unnamed.put(&bench.origin);
            if let Some(behaviour) = &behaviour {
                bench.origin.behave(document(format).1, behaviour.clone());
            }
            assert_eq!(
                body(&bench, format, &unnamed.path).await,
                unnamed.bytes,
                "{format} {behaviour:?}"
            );
            assert!(
                !bench
                    .record(format, &unnamed.path, "")
                    .await
                    .unwrap()
                    .verified,
                "{format} {behaviour:?}"
            );
            let held = bench.get(format, document(format).0).await.unwrap();
            assert!(
                held.is_hit(),
                "{format} {behaviour:?}: {}",
                held.answer.cache_status
            );
        }
    }
}

/// A chart's provenance is in no index: it stands beside the chart, and no reading of the index would say more of it.
#[tokio::test]
async fn a_sidecar_of_a_named_file_causes_no_reading_and_one_of_a_new_file_does() {
    let (bench, new) = behind("helm").await;
    bench
        .origin
        .put("/charts/demo-1.0.0.tgz.prov", Resource::new("signed"));
    assert_eq!(
        body(&bench, "helm", "charts/demo-1.0.0.tgz.prov").await,
        b"signed"
    );
    assert_eq!(bench.origin.count("*", "/index.yaml"), 0);
    bench
        .origin
        .put(&format!("{}.prov", new.at), Resource::new("signed too"));
    assert_eq!(
        body(&bench, "helm", &format!("{}.prov", new.path)).await,
        b"signed too"
    );
    assert_eq!(bench.origin.count("*", "/index.yaml"), 1);
}

/// The document was read a moment before the file was published: its flight has ended and nothing of it is kept yet.
#[tokio::test]
async fn a_reading_that_has_just_ended_is_not_taken_for_another_one() {
    for format in LINKING {
        let bench = Bench::new().await;
        let (old, new) = (
            Version::new(&bench.origin, format, "1.0.0", "old"),
            Version::new(&bench.origin, format, "2.0.0", "brand new"),
        );
        name(&bench.origin, &[&old]);
        // Nothing is waited for between these: on one thread the document is committed after the file has been asked for.
        bench.get(format, document(format).0).await.unwrap();
        bench.origin.put(&new.at, Resource::new("evil bytes"));
        name(&bench.origin, &[&old, &new]);
        assert_eq!(
            refusal(bench.get(format, &new.path).await),
            (FaultKind::BadGateway, "digest_mismatch"),
            "{format}"
        );
    }
}

/// A client that has newer metadata than larder: from another mirror, or from before a flush.
#[tokio::test]
async fn a_package_that_a_fresh_rpm_generation_does_not_name_is_right_by_the_generation_of_now() {
    for right in [true, false] {
        let bench = Bench::new().await;
        let old = ("Packages/x-1.x86_64.rpm", "one");
        let one = generation(Style::revision(1), &[old]);
        one.publish(&bench.origin, "el9/", None);
        body(&bench, "rpm", &format!("el9/{MASTER}")).await;
        body(&bench, "rpm", &format!("el9/{}", one.path_of("primary"))).await;
        let new = "Packages/x-2.x86_64.rpm";
        generation(Style::revision(2), &[old, (new, "two")]).publish(&bench.origin, "el9/", None);
        if right {
            assert_eq!(body(&bench, "rpm", &format!("el9/{new}")).await, b"two");
            assert_verified(bench.record("rpm", &format!("el9/{new}"), "").await, "rpm");
        } else {
            bench
                .origin
                .put(&format!("/el9/{new}"), Resource::new("evil"));
            assert_eq!(
                refusal(bench.get("rpm", &format!("el9/{new}")).await),
                (FaultKind::BadGateway, "digest_mismatch")
            );
        }
    }
}

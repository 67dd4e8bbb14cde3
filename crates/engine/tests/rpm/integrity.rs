//! Nothing is kept that is not what its name or its index says.

use larder_core::{
    ArtifactRecord, BlobDescriptor, Content, DigestAlgorithm, FaultKind, RepositoryName, SourceKey,
    StoredHeaders,
};
use larder_storage::Change;
use larder_testkit::{Behaviour, Resource};

use crate::repo::{Generation, MASTER, Style, digest, generation, gzip, resource};
use crate::support::{Bench, START};
use crate::{EXPIRED, body, refusal};

const PACKAGE: &str = "el9/Packages/x-1.x86_64.rpm";
const PACKAGES: &[(&str, &str)] = &[("Packages/x-1.x86_64.rpm", "the package")];

#[tokio::test]
async fn rpm_05_metadata_named_by_its_digest_is_renewed_without_contact() {
    for algorithm in [
        DigestAlgorithm::Sha256,
        DigestAlgorithm::Sha512,
        DigestAlgorithm::Sha1,
        DigestAlgorithm::Md5,
    ] {
        let bench = Bench::new().await;
        let one = generation(
            Style {
                algorithm,
                ..Style::revision(1)
            },
            PACKAGES,
        );
        one.publish(&bench.origin, "el9/", None);
        // Without its master index, too.
        let path = format!("el9/{}", one.path_of("other"));
        assert_eq!(
            body(&bench, &path).await,
            one.body_of("other"),
            "{algorithm:?}"
        );
        bench.wait(100 * EXPIRED);
        bench.origin.reset_log();
        let got = bench.get("rpm", &path).await.unwrap();
        assert!(
            got.is_hit() && got.bytes() == one.body_of("other"),
            "{algorithm:?}: {}",
            got.answer.cache_status
        );
        assert_eq!(bench.origin.count("*", "*"), 0, "{algorithm:?}");
    }
}

/// Clients may compare sizes themselves; what its digest proves is served.
#[tokio::test]
async fn a_size_that_alone_differs_from_the_metadata_s_refuses_no_file() {
    let bench = Bench::new().await;
    let mut one = generation(
        Style {
            signed: false,
            ..Style::revision(1)
        },
        PACKAGES,
    );
    let of_metadata = format!("<size>{}</size>", one.body_of("primary").len());
    let text = String::from_utf8(one.repomd.clone()).unwrap();
    assert!(text.contains(&of_metadata));
    one.repomd = text.replace(&of_metadata, "<size>7</size>").into_bytes();
    one.publish(&bench.origin, "el9/", None);
    let path = format!("el9/{}", one.path_of("primary"));
    body(&bench, "el9/repodata/repomd.xml").await;
    assert_eq!(body(&bench, &path).await, one.body_of("primary"));
    assert_eq!(body(&bench, PACKAGE).await, b"the package");
}

#[tokio::test]
async fn rpm_06_bytes_that_do_not_match_their_name_are_dropped_and_fetched_again() {
    let bench = Bench::new().await;
    let one = generation(Style::revision(1), PACKAGES);
    one.publish(&bench.origin, "el9/", None);
    let path = format!("el9/{}", one.path_of("primary"));
    // As a larder kept it that took this for plain files.
    let info = bench.blobs.put_bytes(b"something else").await.unwrap();
    let record = ArtifactRecord {
        content: Content::Blob(BlobDescriptor {
            digest: larder_core::sha256(b"something else"),
            size: 14,
        }),
        headers: StoredHeaders::default(),
        source_url: bench.origin.url(&path),
        published_at: None,
        first_seen_at: START,
        contacted_at: START,
        fresh_since: START,
        served_since: START,
        verified: false,
    };
    let key = SourceKey {
        repository: RepositoryName::parse("rpm").unwrap(),
        path: path.as_str().into(),
        variant: "".into(),
    };
    bench
        .metadata
        .apply(vec![Change::PutRecord {
            key,
            record,
            blob: Some(info),
        }])
        .await
        .unwrap();
    assert_eq!(body(&bench, &path).await, one.body_of("primary"));
    assert_eq!(bench.origin.count("GET", &format!("/{path}")), 1);
}

#[tokio::test]
async fn rpm_06_an_upstream_that_sends_other_bytes_than_the_name_says_is_refused() {
    let bench = Bench::new().await;
    let one = generation(Style::revision(1), PACKAGES);
    one.publish(&bench.origin, "el9/", None);
    let path = one.path_of("other");
    bench
        .origin
        .put(&format!("/el9/{path}"), resource(b"something else"));
    for _ in 0..2 {
        assert_eq!(
            refusal(bench.get("rpm", &format!("el9/{path}")).await),
            (FaultKind::BadGateway, "digest_mismatch")
        );
        bench.settled().await;
        assert!(
            bench
                .record("rpm", &format!("el9/{path}"), "")
                .await
                .is_none_or(|record| record.blob().is_none())
        );
    }
}

#[tokio::test]
async fn rpm_16_a_package_that_differs_from_primary_costs_one_refresh_and_is_refused() {
    let bench = Bench::new().await;
    let one = generation(Style::revision(1), PACKAGES);
    one.publish(&bench.origin, "el9/", None);
    bench
        .origin
        .put(&format!("/{PACKAGE}"), resource(b"another package"));
    body(&bench, "el9/repodata/repomd.xml").await;
    assert_eq!(
        refusal(bench.get("rpm", PACKAGE).await),
        (FaultKind::BadGateway, "digest_mismatch")
    );
    bench.settled().await;
    assert_eq!(
        bench.origin.count("GET", "/el9/repodata/repomd.xml"),
        2,
        "asked once more"
    );
    assert!(
        bench
            .record("rpm", PACKAGE, "")
            .await
            .is_none_or(|record| record.blob().is_none())
    );
    // What it should be is taken at once.
    bench
        .origin
        .put(&format!("/{PACKAGE}"), resource(b"the package"));
    assert_eq!(body(&bench, PACKAGE).await, b"the package");
    assert!(bench.record("rpm", PACKAGE, "").await.unwrap().verified);
}

#[tokio::test]
async fn rpm_16_a_package_that_is_newer_than_the_held_primary_is_right_after_one_refresh() {
    let bench = Bench::new().await;
    let (one, two) = (
        generation(Style::revision(1), PACKAGES),
        generation(
            Style::revision(2),
            &[("Packages/x-1.x86_64.rpm", "signed anew")],
        ),
    );
    one.publish(&bench.origin, "el9/", None);
    body(&bench, "el9/repodata/repomd.xml").await;
    two.publish(&bench.origin, "el9/", Some(&one));
    assert_eq!(body(&bench, PACKAGE).await, b"signed anew");
    assert_eq!(body(&bench, "el9/repodata/repomd.xml").await, two.repomd);
}

#[tokio::test]
async fn rpm_16_a_package_that_was_signed_anew_replaces_the_one_that_is_held() {
    for unique in [true, false] {
        let style = |revision| Style {
            unique,
            ..Style::revision(revision)
        };
        let bench = Bench::new().await;
        let (one, gap) = (generation(style(1), PACKAGES), generation(style(2), &[]));
        let two = generation(style(3), &[("Packages/x-1.x86_64.rpm", "signed anew")]);
        one.publish(&bench.origin, "el9/", None);
        body(&bench, "el9/repodata/repomd.xml").await;
        assert_eq!(body(&bench, PACKAGE).await, b"the package");
        // A generation that does not name it at all must not hide the change.
        gap.publish(&bench.origin, "el9/", Some(&one));
        bench.wait(EXPIRED);
        body(&bench, "el9/repodata/repomd.xml").await;
        assert_eq!(body(&bench, PACKAGE).await, b"the package");
        two.publish(&bench.origin, "el9/", Some(&gap));
        bench.wait(EXPIRED);
        body(&bench, "el9/repodata/repomd.xml").await;
        assert_eq!(
            body(&bench, PACKAGE).await,
            b"signed anew",
            "unique names: {unique}"
        );
    }
}

#[tokio::test]
async fn rpm_16_a_package_kept_before_its_metadata_was_known_is_checked_when_it_is() {
    let bench = Bench::new().await;
    let one = generation(Style::revision(1), PACKAGES);
    one.publish(&bench.origin, "el9/", None);
    bench
        .origin
        .put(&format!("/{PACKAGE}"), resource(b"another package"));
    assert_eq!(
        body(&bench, PACKAGE).await,
        b"another package",
        "nothing is known of it yet"
    );
    body(&bench, "el9/repodata/repomd.xml").await;
    bench
        .origin
        .put(&format!("/{PACKAGE}"), resource(b"the package"));
    assert_eq!(body(&bench, PACKAGE).await, b"the package");
}

#[tokio::test]
async fn rpm_18_a_coding_label_on_compressed_metadata_is_dropped() {
    for label in ["gzip", "x-gzip"] {
        let bench = Bench::new().await;
        let one = generation(Style::revision(1), PACKAGES);
        one.publish(&bench.origin, "el9/", None);
        for path in one.metadata.keys().filter(|path| path.contains(".xml.gz")) {
            bench.origin.behave(
                &format!("/el9/{path}"),
                Behaviour::LabelEncoding(label.to_owned()),
            );
        }
        body(&bench, "el9/repodata/repomd.xml").await;
        for (path, bytes) in one
            .metadata
            .iter()
            .filter(|(path, _)| path.contains(".xml.gz"))
        {
            let got = bench.get("rpm", &format!("el9/{path}")).await.unwrap();
            assert_eq!(got.bytes(), bytes, "{path}");
            assert_eq!(got.answer.representation.content_encoding, None, "{path}");
        }
    }
}

/// "Billion laughs", an external entity, a plain document type, endless depth, a token without end.
#[tokio::test]
async fn rpm_24_a_master_index_with_a_document_type_is_refused_within_limits() {
    let entity = "<!DOCTYPE repomd [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;\">]><repomd>&b;</repomd>";
    let external = "<!DOCTYPE repomd [<!ENTITY x SYSTEM \"file:///etc/passwd\">]><repomd><revision>&x;</revision></repomd>";
    let deep = "<repomd>".to_owned() + &"<a>".repeat(100_000);
    let undefined = "<repomd><revision>&nobody;</revision></repomd>".to_owned();
    let large = format!("<repomd><!-- {} --></repomd>", "x".repeat(2 << 20));
    for bomb in [
        entity.to_owned(),
        external.to_owned(),
        "<!DOCTYPE html><html/>".to_owned(),
        deep,
        undefined,
        large,
    ] {
        let bench = Bench::new().await;
        bench
            .origin
            .put("/el9/repodata/repomd.xml", Resource::new(bomb.clone()));
        let refused = bench.get("rpm", "el9/repodata/repomd.xml").await;
        assert_eq!(
            refusal(refused),
            (FaultKind::BadGateway, "malformed_document"),
            "{}",
            &bomb[..bomb.len().min(60)]
        );
        bench.settled().await;
        assert!(
            bench
                .record("rpm", "el9/repodata/repomd.xml", "")
                .await
                .is_none()
        );
    }
}

#[tokio::test]
async fn rpm_24_a_primary_that_is_a_bomb_says_nothing_and_stops_nobody() {
    let bench = Bench::new().await;
    // 400 MiB of spaces in a few hundred kilobytes.
    let mut bomb = b"<metadata>".to_vec();
    bomb.resize(400 << 20, b' ');
    let bomb = gzip(&bomb);
    let digest = digest(DigestAlgorithm::Sha256, &bomb).to_hex();
    let repomd = format!(
        "<repomd><data type=\"primary\"><checksum type=\"sha256\">{digest}</checksum><location href=\"repodata/{digest}-primary.xml.gz\"/></data></repomd>"
    );
    bench
        .origin
        .put("/el9/repodata/repomd.xml", resource(repomd.as_bytes()));
    bench.origin.put(
        &format!("/el9/repodata/{digest}-primary.xml.gz"),
        resource(&bomb),
    );
    bench
        .origin
        .put(&format!("/{PACKAGE}"), resource(b"the package"));
    assert_eq!(
        body(&bench, "el9/repodata/repomd.xml").await,
        repomd.as_bytes()
    );
    assert_eq!(body(&bench, PACKAGE).await, b"the package");
}

/// A server that answers something else than what was asked for (a page, a metalink in place of the package).
#[tokio::test]
async fn hazard_w6_another_kind_of_document_is_not_taken_for_the_one_asked_for() {
    let bench = Bench::new().await;
    let one = generation(Style::revision(1), PACKAGES);
    one.publish(&bench.origin, "el9/", None);
    bench
        .origin
        .behave_once("/el9/repodata/repomd.xml", Behaviour::LoginPage);
    assert_eq!(
        refusal(bench.get("rpm", "el9/repodata/repomd.xml").await),
        (FaultKind::BadGateway, "malformed_document")
    );
    bench.settled().await;
    assert_eq!(body(&bench, "el9/repodata/repomd.xml").await, one.repomd);
    let metalink = Resource::new("<metalink/>").content_type("application/metalink+xml");
    bench.origin.put(&format!("/{PACKAGE}"), metalink);
    assert_eq!(
        refusal(bench.get("rpm", PACKAGE).await),
        (FaultKind::BadGateway, "digest_mismatch")
    );
}

/// An error page in the place of one of them was kept for as long as the master index stayed the same.
#[tokio::test]
async fn hazard_w5_metadata_whose_name_says_nothing_is_what_the_master_index_states() {
    for (algorithm, kind) in [
        (DigestAlgorithm::Sha256, "other"),
        (DigestAlgorithm::Sha256, "filelists"),
        (DigestAlgorithm::Sha256, "primary"),
        (DigestAlgorithm::Sha512, "other"),
        (DigestAlgorithm::Sha1, "other"),
    ] {
        let bench = Bench::new().await;
        let one = plainly_named(1, algorithm);
        one.publish(&bench.origin, "el9/", None);
        let path = format!("el9/{}", one.path_of(kind));
        bench
            .origin
            .put(&format!("/{path}"), resource(b"<html>one moment</html>"));
        body(&bench, "el9/repodata/repomd.xml").await;
        for _ in 0..2 {
            assert_eq!(
                refusal(bench.get("rpm", &path).await),
                (FaultKind::BadGateway, "digest_mismatch"),
                "{kind}"
            );
            bench.settled().await;
            assert!(
                bench
                    .record("rpm", &path, "")
                    .await
                    .is_none_or(|record| record.blob().is_none())
            );
        }
        // The upstream is itself again.
        bench
            .origin
            .put(&format!("/{path}"), resource(one.body_of(kind)));
        for _ in 0..2 {
            assert_eq!(body(&bench, &path).await, one.body_of(kind), "{kind}");
        }
        assert!(bench.record("rpm", &path, "").await.unwrap().verified);
    }
}

#[tokio::test]
async fn hazard_w5_metadata_that_was_kept_before_the_master_index_is_checked_when_that_is_known() {
    let bench = Bench::new().await;
    let one = plainly_named(1, DigestAlgorithm::Sha256);
    one.publish(&bench.origin, "el9/", None);
    let path = format!("el9/{}", one.path_of("other"));
    bench.origin.remove(&format!("/el9/{MASTER}"));
    bench
        .origin
        .put(&format!("/{path}"), resource(b"<html>one moment</html>"));
    assert_eq!(body(&bench, &path).await, b"<html>one moment</html>");
    one.publish(&bench.origin, "el9/", None);
    // Its absence is forgotten.
    bench.wait(11);
    body(&bench, "el9/repodata/repomd.xml").await;
    for _ in 0..2 {
        assert_eq!(body(&bench, &path).await, one.body_of("other"));
    }
    assert_eq!(bench.origin.count("GET", &format!("/{path}")), 2);
}

/// Change logs are fetched when they are asked for, not with the master index.
#[tokio::test]
async fn rpm_07_what_is_not_fetched_ahead_changes_with_the_master_index_too() {
    let bench = Bench::new().await;
    let (one, two) = (
        plainly_named(1, DigestAlgorithm::Sha256),
        plainly_named(2, DigestAlgorithm::Sha256),
    );
    let path = format!("el9/{}", one.path_of("other"));
    one.publish(&bench.origin, "el9/", None);
    body(&bench, "el9/repodata/repomd.xml").await;
    assert_eq!(body(&bench, &path).await, one.body_of("other"));
    two.publish(&bench.origin, "el9/", Some(&one));
    assert_eq!(body(&bench, &path).await, one.body_of("other"), "as held");
    bench.wait(EXPIRED);
    assert_eq!(body(&bench, "el9/repodata/repomd.xml").await, two.repomd);
    for _ in 0..2 {
        assert_eq!(body(&bench, &path).await, two.body_of("other"));
    }
    assert_eq!(bench.origin.count("GET", &format!("/{path}")), 2);
    assert_eq!(
        bench.counter("rpm", "digest_mismatches"),
        0,
        "it was right in its time"
    );
}

/// The upstream has moved on since the master index was read: it is read once more, and what comes is of one generation.
#[tokio::test]
async fn hazard_w10_metadata_of_the_next_generation_brings_its_master_index() {
    let bench = Bench::new().await;
    let (one, two) = (
        plainly_named(1, DigestAlgorithm::Sha256),
        plainly_named(2, DigestAlgorithm::Sha256),
    );
    one.publish(&bench.origin, "el9/", None);
    body(&bench, "el9/repodata/repomd.xml").await;
    two.publish(&bench.origin, "el9/", Some(&one));
    let path = format!("el9/{}", two.path_of("other"));
    assert_eq!(body(&bench, &path).await, two.body_of("other"));
    assert_eq!(bench.origin.count("GET", "/el9/repodata/repomd.xml"), 2);
    assert_eq!(body(&bench, "el9/repodata/repomd.xml").await, two.repomd);
    assert_eq!(
        body(&bench, "el9/repodata/filelists.xml.gz").await,
        two.body_of("filelists")
    );
}

/// The master index says what lists the packages, not a name.
#[tokio::test]
async fn rpm_16_a_list_of_packages_under_another_name_states_what_packages_are() {
    let bench = Bench::new().await;
    let mut one = plainly_named(1, DigestAlgorithm::Sha256);
    let (usual, odd) = ("repodata/primary.xml.gz", "repodata/packages.xml.gz");
    one.repomd = String::from_utf8(one.repomd)
        .unwrap()
        .replace(usual, odd)
        .into_bytes();
    let list = one.metadata.remove(usual).unwrap();
    one.metadata.insert(odd.to_owned(), list);
    one.publish(&bench.origin, "el9/", None);
    let other = resource(b"another package");
    bench.origin.put(&format!("/{PACKAGE}"), other);
    body(&bench, "el9/repodata/repomd.xml").await;
    assert_eq!(
        refusal(bench.get("rpm", PACKAGE).await),
        (FaultKind::BadGateway, "digest_mismatch")
    );
}

/// A generation whose files have no digest in their names.
fn plainly_named(revision: u64, algorithm: DigestAlgorithm) -> Generation {
    let style = Style {
        unique: false,
        algorithm,
        ..Style::revision(revision)
    };
    generation(style, PACKAGES)
}

//! A new document and the dropping of the held files that it contradicts become visible together.
//!
//! These tests run on one thread, and a hit waits for nothing: whatever the engine does after it has answered it does after the next
//! request, too. A file that is still a hit then was a hit while the new document was visible.

use http::Method;
use larder_core::Fault;
use larder_testkit::Behaviour;

use crate::repo::{MASTER, Style, generation};
use crate::support::{Bench, Got};
use crate::{LINKING, Version, assert_verified, body, document, name};

const EXPIRED: u64 = 3_601;

/// Version 1.0.0 and its document are held; then other bytes are published under the same name.
async fn replaced(format: &'static str) -> (Bench, Version, Version) {
    let bench = Bench::new().await;
    let old = Version::new(&bench.origin, format, "1.0.0", "old bytes");
    let new = Version::new(&bench.origin, format, "1.0.0", "new bytes");
    old.put(&bench.origin);
    name(&bench.origin, &[&old]);
    assert_eq!(body(&bench, format, &old.path).await, old.bytes);
    assert!(bench.get(format, &old.path).await.unwrap().is_hit());
    bench.wait(EXPIRED);
    (bench, old, new)
}

/// Whoever installs from npm asks for abbreviated packuments.
const ACCEPT: &str = "application/vnd.npm.install-v1+json";

/// The variant in which a document is held that was asked for so.
fn variant(format: &str) -> &'static str {
    if format == "npm" { "abbreviated" } else { "" }
}

/// Asks for the document that names the files.
async fn read(bench: &Bench, format: &str) -> Result<Got, Fault> {
    bench
        .ask(
            Method::GET,
            format,
            document(format).0,
            &[("accept", ACCEPT)],
        )
        .await
}

#[tokio::test]
async fn who_has_a_new_document_never_gets_the_old_file_as_a_hit() {
    for format in LINKING {
        let (bench, old, new) = replaced(format).await;
        new.put(&bench.origin);
        name(&bench.origin, &[&new]);
        // What the server's hot set would hold of the file.
        let remembered = bench
            .client(format, &old.path)
            .answer()
            .await
            .unwrap()
            .hot
            .expect("a verified file may be remembered");
        assert!(remembered.is_good(bench.engine.now()));
        read(&bench, format).await.unwrap();
        assert!(
            !remembered.is_good(bench.engine.now()),
            "{format}: the hot set still has the old file"
        );
        let got = bench.get(format, &old.path).await.unwrap();
        assert_eq!(
            got.bytes(),
            &new.bytes,
            "{format}: {}",
            got.answer.cache_status
        );
    }
}

/// Whoever does not wait for the flight sees what is held: the document only when the file is gone.
#[tokio::test]
async fn a_new_document_is_not_held_before_the_old_file_is_gone() {
    for format in LINKING {
        let (bench, old, new) = replaced(format).await;
        new.put(&bench.origin);
        name(&bench.origin, &[&new]);
        let reader = tokio::spawn(
            bench
                .client(format, document(format).0)
                .header("accept", ACCEPT)
                .run(),
        );
        let seen = async {
            loop {
                // A document that is a hit is fresh, and so is the new one.
                let document = bench
                    .record(format, document(format).0, variant(format))
                    .await;
                let file = bench.record(format, &old.path, "").await;
                if document.is_some_and(|record| record.fresh_since == bench.engine.now()) {
                    assert!(
                        file.is_none_or(
                            |file| file.blob().unwrap().digest != larder_core::sha256(b"old bytes")
                        ),
                        "{format}"
                    );
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), seen)
            .await
            .expect("the document is kept");
        reader.await.unwrap().unwrap();
    }
}

/// A download that has begun before serves its readers, and is no hit for those who come after the document.
#[tokio::test]
async fn a_download_of_the_old_file_that_ends_after_the_new_document_came_is_no_hit() {
    for format in LINKING {
        let bench = Bench::new().await;
        let old = Version::new(&bench.origin, format, "1.0.0", "old bytes");
        let new = Version::new(&bench.origin, format, "1.0.0", "new bytes");
        old.put(&bench.origin);
        name(&bench.origin, &[&old]);
        read(&bench, format).await.unwrap();
        bench.settled().await;
        bench.origin.hold_body(&old.at, 3);
        let early = tokio::spawn(bench.client(format, &old.path).run());
        bench.origin.wait_for("GET", &old.at, 1).await;
        new.put(&bench.origin);
        name(&bench.origin, &[&new]);
        bench.wait(EXPIRED);
        read(&bench, format).await.unwrap();
        let late = tokio::spawn(bench.client(format, &old.path).run());
        bench.origin.wait_for("GET", &old.at, 2).await;
        bench.origin.release(&old.at);
        assert_eq!(
            early.await.unwrap().unwrap().bytes(),
            &old.bytes,
            "{format}: began before"
        );
        assert_eq!(
            late.await.unwrap().unwrap().bytes(),
            &new.bytes,
            "{format}: began after"
        );
        bench.settled().await;
        assert_eq!(body(&bench, format, &old.path).await, new.bytes, "{format}");
        assert_verified(bench.record(format, &old.path, "").await, format);
    }
}

/// With a full disk the document is not kept; what it contradicts goes all the same.
#[tokio::test]
async fn a_document_that_is_not_kept_takes_the_old_file_with_it() {
    for format in LINKING {
        let (bench, old, new) = replaced(format).await;
        new.put(&bench.origin);
        name(&bench.origin, &[&new]);
        // Nothing marks the end of it, so it is served once and not kept.
        bench
            .origin
            .behave(document(format).1, Behaviour::UntilClose);
        read(&bench, format).await.unwrap();
        let got = bench.get(format, &old.path).await.unwrap();
        assert_eq!(
            got.bytes(),
            &new.bytes,
            "{format}: {}",
            got.answer.cache_status
        );
    }
}

/// A document that was gone for a while comes back with other digests.
#[tokio::test]
async fn what_a_document_vouched_for_is_compared_with_the_next_one() {
    for format in LINKING {
        let (bench, old, new) = replaced(format).await;
        bench.origin.remove(document(format).1);
        crate::refusal(read(&bench, format).await);
        bench.settled().await;
        let hit = bench.get(format, &old.path).await.unwrap();
        assert!(
            hit.is_hit() && !hit.answer.hot,
            "{format}: served, for nobody says otherwise, but never past the pipeline"
        );
        bench.wait(EXPIRED);
        new.put(&bench.origin);
        name(&bench.origin, &[&new]);
        read(&bench, format).await.unwrap();
        let got = bench.get(format, &old.path).await.unwrap();
        assert_eq!(
            got.bytes(),
            &new.bytes,
            "{format}: {}",
            got.answer.cache_status
        );
    }
}

/// The packages of a generation are named by a file that comes with it.
#[tokio::test]
async fn who_has_a_new_generation_never_gets_the_old_package_as_a_hit() {
    for unique in [true, false] {
        let bench = Bench::new().await;
        let style = |revision| Style {
            unique,
            ..Style::revision(revision)
        };
        let package = "Packages/x-1.x86_64.rpm";
        let (one, two) = (
            generation(style(1), &[(package, "one")]),
            generation(style(2), &[(package, "two")]),
        );
        one.publish(&bench.origin, "el9/", None);
        body(&bench, "rpm", &format!("el9/{MASTER}")).await;
        body(&bench, "rpm", &format!("el9/{}", one.path_of("primary"))).await;
        assert_eq!(body(&bench, "rpm", &format!("el9/{package}")).await, b"one");
        two.publish(&bench.origin, "el9/", Some(&one));
        bench.wait(EXPIRED);
        assert_eq!(
            bench
                .get("rpm", &format!("el9/{MASTER}"))
                .await
                .unwrap()
                .bytes(),
            &two.repomd
        );
        let got = bench.get("rpm", &format!("el9/{package}")).await.unwrap();
        assert_eq!(
            got.bytes(),
            "two",
            "unique: {unique}, {}",
            got.answer.cache_status
        );
    }
}

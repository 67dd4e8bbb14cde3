//! Alpine repositories through the pipeline: the lines of the acceptance checklist of apk that need no client and no HTTP server.
//!
//! The packages and indexes are those of the format's own tests: apk made the indexes.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test program")]

mod support;

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use larder_core::{FaultKind, Pattern, Source};
use larder_testkit::{Behaviour, Resource};

use support::{Bench, Got, eventually, upstream};

const INDEX: &[u8] = include_bytes!("../../formats/src/alpine/testdata/APKINDEX.tar.gz");
const INDEX_REBUILT: &[u8] =
    include_bytes!("../../formats/src/alpine/testdata/APKINDEX.rebuilt.tar.gz");
const INDEX_V3: &[u8] = include_bytes!("../../formats/src/alpine/testdata/v3/Packages.adb");
const DEFLATED: &[u8] = include_bytes!("../../formats/src/alpine/testdata/v3/deflated-1.0-r0.apk");
/// Of the architecture `noarch`.
const PLAIN: &[u8] = include_bytes!("../../formats/src/alpine/testdata/v3/plain-1.0-r0.apk");
const DEMO: &[u8] = include_bytes!("../../formats/src/alpine/testdata/demo-1.0-r0.apk");
const DEMO_REBUILT: &[u8] =
    include_bytes!("../../formats/src/alpine/testdata/demo-1.0-r0.rebuilt.apk");
const LIBSTDCPP: &[u8] =
    include_bytes!("../../formats/src/alpine/testdata/libstdc++-13.2.1_git20240309-r0.apk");

const INDEX_AT: &str = "v3.23/main/x86_64/APKINDEX.tar.gz";
const DEMO_AT: &str = "v3.23/main/x86_64/demo-1.0-r0.apk";

fn at(path: &str) -> String {
    format!("/{path}")
}

fn publish(bench: &Bench, index: &'static [u8], demo: &'static [u8]) {
    bench.origin.put(
        &at(INDEX_AT),
        Resource::new(index).etag(&format!("\"{}\"", index.len())),
    );
    bench.origin.put(&at(DEMO_AT), Resource::new(demo));
    bench.origin.put(
        "/v3.23/main/x86_64/libstdc++-13.2.1_git20240309-r0.apk",
        Resource::new(LIBSTDCPP),
    );
}

async fn bench() -> Bench {
    let bench = Bench::new().await;
    publish(&bench, INDEX, DEMO);
    bench
}

async fn get(bench: &Bench, path: &str) -> Got {
    let got = bench.get("alpine", path).await.unwrap();
    bench.settled().await;
    got
}

async fn refused(bench: &Bench, path: &str) -> (FaultKind, &'static str) {
    let fault = bench.get("alpine", path).await.expect_err(path);
    bench.settled().await;
    (fault.kind, fault.code.as_str())
}

#[tokio::test]
async fn apk_02_a_package_is_held_after_its_first_request() {
    let bench = bench().await;
    let first = get(&bench, DEMO_AT).await;
    assert_eq!(
        (first.answer.source, &first.bytes()[..]),
        (Source::Remote, DEMO)
    );
    let second = get(&bench, DEMO_AT).await;
    assert_eq!(
        (second.answer.source, &second.bytes()[..]),
        (Source::Cache, DEMO)
    );
    assert!(
        second.answer.hot,
        "a verified package may enter the hot set"
    );
    assert!(bench.record("alpine", DEMO_AT, "").await.unwrap().verified);
}

#[tokio::test]
async fn apk_03_plus_and_its_escape_are_one_object_and_one_request() {
    let bench = bench().await;
    for path in [
        "libstdc++-13.2.1_git20240309-r0.apk",
        "libstdc%2B%2b-13.2.1_git20240309-r0.apk",
    ] {
        assert_eq!(
            &get(&bench, &format!("v3.23/main/x86_64/{path}"))
                .await
                .bytes()[..],
            LIBSTDCPP
        );
    }
    let asked: Vec<_> = bench
        .origin
        .requests()
        .into_iter()
        .filter(|r| r.path().contains("libstdc"))
        .collect();
    assert_eq!(asked.len(), 1);
    assert_eq!(
        asked[0].path(),
        "/v3.23/main/x86_64/libstdc++-13.2.1_git20240309-r0.apk",
        "as received"
    );
    bench.forget("alpine").await;
    get(
        &bench,
        "v3.23/main/x86_64/libstdc%2B%2b-13.2.1_git20240309-r0.apk",
    )
    .await;
    let escaped = "/v3.23/main/x86_64/libstdc%2B%2b-13.2.1_git20240309-r0.apk";
    assert!(
        bench.origin.requests().iter().any(|r| r.path() == escaped),
        "as received, though the index names it"
    );
}

#[tokio::test]
async fn apk_04_a_coding_label_on_the_index_is_dropped_and_its_bytes_are_not_touched() {
    let bench = bench().await;
    for path in [INDEX_AT, DEMO_AT] {
        bench
            .origin
            .behave(&at(path), Behaviour::LabelEncoding("gzip".to_owned()));
    }
    for (path, body) in [(INDEX_AT, INDEX), (DEMO_AT, DEMO)] {
        let got = get(&bench, path).await;
        assert_eq!(
            (
                &got.bytes()[..],
                got.answer.representation.content_encoding.as_deref()
            ),
            (body, None),
            "{path}"
        );
    }
}

/// In between the client may have had the body before: its date says nothing of this one.
#[tokio::test]
async fn apk_05_apk_06_a_client_s_date_gives_304_only_for_the_body_that_larder_served_then() {
    let bench =
        Bench::with(|repository| repository.cache.mutable_ttl = Duration::from_secs(60)).await;
    let published = support::days_ago(2);
    bench.origin.put(
        &at(INDEX_AT),
        Resource::new(INDEX).last_modified(&support::days_ago(3)),
    );
    get(&bench, INDEX_AT).await;
    bench.wait(600);
    // Published upstream long ago, seen by larder from now on.
    bench.origin.put(
        &at(INDEX_AT),
        Resource::new(INDEX_REBUILT).last_modified(&published),
    );
    let status = async |date: &str| {
        let got = bench
            .client("alpine", INDEX_AT)
            .header("if-modified-since", date)
            .run()
            .await
            .unwrap();
        bench.settled().await;
        got.answer.status
    };
    let before_the_switch = larder_core::UnixMillis(support::START.0 + 300_000).to_http_date();
    let after_the_switch = larder_core::UnixMillis(support::START.0 + 605_000).to_http_date();
    assert_eq!(status(&before_the_switch).await, 200);
    assert_eq!(
        status(&published).await,
        304,
        "equal to the Last-Modified served"
    );
    assert_eq!(status(&before_the_switch).await, 200);
    assert_eq!(status(&after_the_switch).await, 304);
    // Renewed, not replaced: what was true of this body stays true.
    bench.wait(600);
    assert_eq!(status(&after_the_switch).await, 304);
    assert_eq!(status(&before_the_switch).await, 200);
}

#[tokio::test]
async fn apk_08_a_last_modified_that_is_no_date_is_dropped() {
    let bench = bench().await;
    for path in [INDEX_AT, DEMO_AT] {
        bench.origin.put(
            &at(path),
            Resource::new(if path == INDEX_AT { INDEX } else { DEMO }).last_modified("garbage"),
        );
        assert_eq!(
            get(&bench, path).await.answer.representation.last_modified,
            None,
            "{path}"
        );
        assert_eq!(
            get(&bench, path).await.answer.representation.last_modified,
            None,
            "{path}, held"
        );
    }
}

#[tokio::test]
async fn apk_09_an_expired_index_is_fetched_again_and_packages_are_not() {
    let bench =
        Bench::with(|repository| repository.cache.mutable_ttl = Duration::from_secs(60)).await;
    publish(&bench, INDEX, DEMO);
    for _ in 0..2 {
        get(&bench, INDEX_AT).await;
        get(&bench, DEMO_AT).await;
    }
    assert_eq!(
        (
            bench.origin.count("GET", &at(INDEX_AT)),
            bench.origin.count("GET", &at(DEMO_AT))
        ),
        (1, 1)
    );
    bench.wait(61);
    get(&bench, INDEX_AT).await;
    get(&bench, DEMO_AT).await;
    assert_eq!(
        (
            bench.origin.count("GET", &at(INDEX_AT)),
            bench.origin.count("GET", &at(DEMO_AT))
        ),
        (2, 1)
    );
}

#[tokio::test]
async fn apk_10_with_the_upstream_gone_the_expired_index_and_the_packages_are_served() {
    let bench = bench().await;
    get(&bench, INDEX_AT).await;
    get(&bench, DEMO_AT).await;
    bench.wait(100_000);
    for path in [INDEX_AT, DEMO_AT] {
        bench.origin.behave(&at(path), Behaviour::ResetHead);
    }
    assert_eq!(&get(&bench, INDEX_AT).await.bytes()[..], INDEX);
    assert_eq!(&get(&bench, DEMO_AT).await.bytes()[..], DEMO);
}

#[tokio::test]
async fn apk_11_a_503_is_passed_on_unless_the_operator_lists_it() {
    for listed in [false, true] {
        let bench = Bench::with(|repository| {
            repository.cache.stale_on_status = if listed { vec![503] } else { Vec::new() };
        })
        .await;
        publish(&bench, INDEX, DEMO);
        get(&bench, INDEX_AT).await;
        bench.wait(100_000);
        bench.origin.behave(&at(INDEX_AT), Behaviour::Status(503));
        if listed {
            assert_eq!(&get(&bench, INDEX_AT).await.bytes()[..], INDEX);
        } else {
            assert_eq!(refused(&bench, INDEX_AT).await.0, FaultKind::Upstream(503));
        }
    }
}

#[tokio::test]
async fn apk_12_a_package_that_is_not_what_the_index_says_is_refused_after_one_more_look() {
    for index_first in [false, true] {
        let bench = bench().await;
        if index_first {
            get(&bench, INDEX_AT).await;
        }
        bench.origin.put(&at(DEMO_AT), Resource::new(DEMO_REBUILT));
        assert_eq!(
            refused(&bench, DEMO_AT).await,
            (FaultKind::BadGateway, "digest_mismatch")
        );
        let looks = bench.origin.count("GET", &at(INDEX_AT));
        // An index that came at the same time as the package is new enough.
        assert!(
            if index_first { looks == 2 } else { looks <= 2 },
            "{looks} requests for the index"
        );
        assert!(
            bench.record("alpine", DEMO_AT, "").await.is_none(),
            "nothing is kept"
        );
        assert!(bench.files_of_size(DEMO_REBUILT.len() as u64).is_empty());
        bench.origin.put(&at(DEMO_AT), Resource::new(DEMO));
        assert_eq!(&get(&bench, DEMO_AT).await.bytes()[..], DEMO);
    }
}

/// The index with another size of `demo` in it (`S:`), everything else as it was.
fn with_another_size() -> Vec<u8> {
    let mut rest = INDEX;
    let mut signature = Vec::new();
    flate2::bufread::GzDecoder::new(&mut rest)
        .read_to_end(&mut signature)
        .unwrap();
    let (signed, mut text) = (&INDEX[..INDEX.len() - rest.len()], Vec::new());
    flate2::bufread::GzDecoder::new(rest)
        .read_to_end(&mut text)
        .unwrap();
    let stated = format!("\nS:{}\n", DEMO.len()).into_bytes();
    let at = text
        .windows(stated.len())
        .position(|window| window == stated)
        .expect("demo's size");
    // The last digit.
    let digit = &mut text[at + stated.len() - 2];
    *digit = b'0' + (*digit - b'0' + 3) % 10;
    let mut packed = flate2::write::GzEncoder::new(signed.to_vec(), flate2::Compression::default());
    packed.write_all(&text).unwrap();
    packed.finish().unwrap()
}

/// apk installs it (tried with apk 3: `C:` decides).
#[tokio::test]
async fn a_size_that_alone_differs_from_the_index_s_refuses_no_package() {
    for index_first in [false, true] {
        let bench = bench().await;
        bench
            .origin
            .put(&at(INDEX_AT), Resource::new(with_another_size()));
        if index_first {
            get(&bench, INDEX_AT).await;
        }
        let head = bench
            .ask(Method::HEAD, "alpine", DEMO_AT, &[])
            .await
            .unwrap();
        assert_eq!(head.answer.representation.length, Some(DEMO.len() as u64));
        assert_eq!(&get(&bench, DEMO_AT).await.bytes()[..], DEMO);
        assert!(get(&bench, DEMO_AT).await.is_hit());
        let record = bench
            .record("alpine", DEMO_AT, "")
            .await
            .expect("it is kept");
        assert!(record.verified, "by its identity");
        // A new index that states another size again drops nothing.
        bench.wait(3601);
        bench.origin.put(&at(INDEX_AT), Resource::new(INDEX));
        get(&bench, INDEX_AT).await;
        bench.origin.reset_log();
        assert!(get(&bench, DEMO_AT).await.is_hit());
        // Other bytes of the right size are refused as ever.
        bench.forget("alpine").await;
        let mut wrong = DEMO.to_vec();
        *wrong.last_mut().unwrap() ^= 1;
        bench.origin.put(&at(DEMO_AT), Resource::new(wrong));
        assert_eq!(
            refused(&bench, DEMO_AT).await,
            (FaultKind::BadGateway, "digest_mismatch")
        );
    }
}

#[tokio::test]
async fn apk_12_a_package_newer_than_the_held_index_is_right_by_the_newer_index() {
    let bench = bench().await;
    get(&bench, INDEX_AT).await;
    publish(&bench, INDEX_REBUILT, DEMO_REBUILT);
    assert_eq!(&get(&bench, DEMO_AT).await.bytes()[..], DEMO_REBUILT);
    assert_eq!(
        &get(&bench, INDEX_AT).await.bytes()[..],
        INDEX_REBUILT,
        "and clients get the index that goes with it"
    );
}

#[tokio::test]
async fn a_new_index_drops_the_packages_that_it_no_longer_means() {
    let bench =
        Bench::with(|repository| repository.cache.mutable_ttl = Duration::from_secs(60)).await;
    publish(&bench, INDEX, DEMO);
    get(&bench, INDEX_AT).await;
    get(&bench, DEMO_AT).await;
    publish(&bench, INDEX_REBUILT, DEMO_REBUILT);
    bench.wait(61);
    get(&bench, INDEX_AT).await;
    eventually("the old package is dropped", async || {
        bench.record("alpine", DEMO_AT, "").await.is_none()
    })
    .await;
    assert_eq!(&get(&bench, DEMO_AT).await.bytes()[..], DEMO_REBUILT);
}

#[tokio::test]
async fn a_package_that_came_before_its_index_is_checked_when_the_index_comes() {
    let bench = bench().await;
    bench.origin.behave(&at(INDEX_AT), Behaviour::Status(500));
    bench.origin.put(&at(DEMO_AT), Resource::new(DEMO_REBUILT));
    let unverified = get(&bench, DEMO_AT).await;
    assert_eq!(
        (&unverified.bytes()[..], unverified.answer.hot),
        (DEMO_REBUILT, false)
    );
    bench.origin.clear(&at(INDEX_AT));
    publish(&bench, INDEX, DEMO);
    get(&bench, INDEX_AT).await;
    assert_eq!(&get(&bench, DEMO_AT).await.bytes()[..], DEMO);
}

/// Index and packages change at different moments. Whichever a client has, it gets what goes with it, as long as that can be had.
#[tokio::test]
async fn hazard_w10_an_index_newer_or_older_than_its_packages_leaves_no_window() {
    let bench =
        Bench::with(|repository| repository.cache.mutable_ttl = Duration::from_secs(60)).await;
    publish(&bench, INDEX, DEMO);
    let held = "v3.23/main/x86_64/libstdc++-13.2.1_git20240309-r0.apk";
    get(&bench, INDEX_AT).await;
    get(&bench, held).await;
    // The upstream moves on: a client with the old index still gets the package that was held.
    publish(&bench, INDEX_REBUILT, DEMO_REBUILT);
    bench.origin.remove(&at(held));
    bench.wait(61);
    get(&bench, INDEX_AT).await;
    assert_eq!(&get(&bench, held).await.bytes()[..], LIBSTDCPP);
    // A client with a newer index than larder's asks for what larder's does not name: it is served, and not vouched for.
    bench
        .origin
        .put("/v3.23/main/x86_64/new-1.0-r0.apk", Resource::new("new"));
    assert_eq!(
        get(&bench, "v3.23/main/x86_64/new-1.0-r0.apk").await.text(),
        "new"
    );
    assert!(
        !bench
            .record("alpine", "v3.23/main/x86_64/new-1.0-r0.apk", "")
            .await
            .unwrap()
            .verified
    );
}

/// Where no copy can be kept, the identity is computed on the way.
#[tokio::test]
async fn a_package_that_is_too_large_to_be_kept_is_verified_all_the_same() {
    let bench = Bench::with(|repository| upstream(repository).max_size = Some(100)).await;
    publish(&bench, INDEX, DEMO);
    assert_eq!(&get(&bench, DEMO_AT).await.bytes()[..], DEMO);
    assert!(bench.record("alpine", DEMO_AT, "").await.is_none());
    bench.origin.put(&at(DEMO_AT), Resource::new(DEMO_REBUILT));
    assert_eq!(
        refused(&bench, DEMO_AT).await,
        (FaultKind::BadGateway, "digest_mismatch")
    );
}

#[tokio::test]
async fn apk_13_a_package_gone_from_the_upstream_is_404_and_the_index_is_read_once_more() {
    let bench = bench().await;
    get(&bench, INDEX_AT).await;
    bench.origin.remove(&at(DEMO_AT));
    for _ in 0..3 {
        assert_eq!(
            refused(&bench, DEMO_AT).await,
            (FaultKind::Upstream(404), "not_found")
        );
    }
    assert_eq!(bench.origin.count("GET", &at(INDEX_AT)), 2);
    assert_eq!(
        bench.origin.count("GET", &at(DEMO_AT)),
        1,
        "the absence is remembered for a moment"
    );
}

#[tokio::test]
async fn apk_14_a_path_that_no_pattern_admits_is_403_without_a_word_to_the_upstream() {
    let bench = Bench::with(|repository| {
        repository.access.immutable = Some(vec![Pattern::compile(r"/x86_64/.*\.apk$").unwrap()]);
    })
    .await;
    publish(&bench, INDEX, DEMO);
    get(&bench, DEMO_AT).await;
    bench.origin.reset_log();
    assert_eq!(
        refused(&bench, "v3.23/main/aarch64/demo-1.0-r0.apk").await,
        (FaultKind::Forbidden, "pattern_denied")
    );
    assert!(bench.origin.requests().is_empty());
}

#[tokio::test]
async fn apk_15_the_index_of_version_3_is_served_and_changes() {
    let bench = Bench::with(|repository| {
        repository.access.immutable = Some(vec![Pattern::compile(r"\.apk$").unwrap()]);
        repository.cache.mutable_ttl = Duration::from_secs(60);
    })
    .await;
    bench
        .origin
        .put("/v3/x86_64/Packages.adb", Resource::new(INDEX_V3));
    for (passed, asked) in [(0, 1), (30, 1), (31, 2)] {
        bench.wait(passed);
        assert_eq!(
            &get(&bench, "v3/x86_64/Packages.adb").await.bytes()[..],
            INDEX_V3
        );
        assert_eq!(bench.origin.count("GET", "/v3/x86_64/Packages.adb"), asked);
    }
}

/// A package of version 3 that is not what its index says: refused and not kept, after one more look at the index. So is one in
/// `noarch/`, where apk looks for what its index says to be without an architecture.
#[tokio::test]
async fn apk_12_packages_of_version_3_are_verified_against_their_index() {
    for (package, body, index_first) in [
        ("v3/x86_64/deflated-1.0-r0.apk", DEFLATED, true),
        ("v3/x86_64/deflated-1.0-r0.apk", DEFLATED, false),
        ("v3/noarch/plain-1.0-r0.apk", PLAIN, true),
    ] {
        let bench = Bench::new().await;
        bench
            .origin
            .put("/v3/x86_64/Packages.adb", Resource::new(INDEX_V3));
        if index_first {
            get(&bench, "v3/x86_64/Packages.adb").await;
        }
        let mut wrong = body.to_vec();
        // A byte of the tree of the one, and of the packed bytes of the other.
        wrong[100] ^= 1;
        bench.origin.put(&at(package), Resource::new(wrong));
        assert_eq!(
            refused(&bench, package).await,
            (FaultKind::BadGateway, "digest_mismatch"),
            "{package}"
        );
        let looks = bench.origin.count("GET", "/v3/x86_64/Packages.adb");
        // An index that came at the same time as the package is new enough.
        assert!(
            if index_first { looks == 2 } else { looks <= 2 },
            "{looks} requests for the index of {package}"
        );
        assert!(
            bench.record("alpine", package, "").await.is_none(),
            "nothing is kept of {package}"
        );
        assert!(
            bench.files_of_size(body.len() as u64).is_empty(),
            "{package}"
        );
        bench.origin.put(&at(package), Resource::new(body));
        assert_eq!(&get(&bench, package).await.bytes()[..], body);
        assert!(
            bench.record("alpine", package, "").await.unwrap().verified,
            "{package}"
        );
    }
}

/// Which index names a package cannot be told from its path: all that are held are asked.
#[tokio::test]
async fn apk_12_a_repository_may_have_indexes_of_both_versions() {
    let bench = Bench::new().await;
    bench
        .origin
        .put("/x86_64/APKINDEX.tar.gz", Resource::new(INDEX));
    bench
        .origin
        .put("/x86_64/Packages.adb", Resource::new(INDEX_V3));
    for index in ["x86_64/APKINDEX.tar.gz", "x86_64/Packages.adb"] {
        get(&bench, index).await;
    }
    for (package, right, wrong) in [
        ("x86_64/demo-1.0-r0.apk", DEMO, DEMO_REBUILT),
        ("x86_64/deflated-1.0-r0.apk", DEFLATED, PLAIN),
    ] {
        bench.origin.put(&at(package), Resource::new(wrong));
        assert_eq!(
            refused(&bench, package).await,
            (FaultKind::BadGateway, "digest_mismatch"),
            "{package}"
        );
        bench.origin.put(&at(package), Resource::new(right));
        get(&bench, package).await;
        assert!(
            bench.record("alpine", package, "").await.unwrap().verified,
            "{package}"
        );
    }
}

/// apk asks for packages as soon as it has read the index, which larder may not have put away yet.
#[tokio::test]
async fn apk_12_a_package_is_measured_by_an_index_that_is_on_its_way() {
    let bench = Bench::new().await;
    bench
        .origin
        .put("/x86_64/Packages.adb", Resource::new(INDEX_V3));
    bench
        .origin
        .put("/x86_64/deflated-1.0-r0.apk", Resource::new(PLAIN));
    bench.origin.hold("/x86_64/Packages.adb");
    let index = tokio::spawn(bench.client("alpine", "x86_64/Packages.adb").run());
    bench
        .origin
        .wait_for("GET", "/x86_64/Packages.adb", 1)
        .await;
    let package = tokio::spawn(bench.client("alpine", "x86_64/deflated-1.0-r0.apk").run());
    bench.until_asked("alpine", 2).await;
    bench.origin.release("/x86_64/Packages.adb");
    assert_eq!(&index.await.unwrap().unwrap().bytes()[..], INDEX_V3);
    assert_eq!(package.await.unwrap().unwrap_err().code, "digest_mismatch");
}

/// A package that was there before its index is held to what the index says as soon as that has come.
#[tokio::test]
async fn a_package_of_version_3_that_came_before_its_index_is_checked_when_the_index_comes() {
    let bench = Bench::new().await;
    let package = "x86_64/deflated-1.0-r0.apk";
    bench
        .origin
        .behave("/x86_64/Packages.adb", Behaviour::Status(500));
    bench.origin.put(&at(package), Resource::new(PLAIN));
    assert_eq!(&get(&bench, package).await.bytes()[..], PLAIN);
    bench.origin.clear("/x86_64/Packages.adb");
    bench
        .origin
        .put("/x86_64/Packages.adb", Resource::new(INDEX_V3));
    get(&bench, "x86_64/Packages.adb").await;
    bench.origin.put(&at(package), Resource::new(DEFLATED));
    assert_eq!(&get(&bench, package).await.bytes()[..], DEFLATED);
}

#[tokio::test]
async fn apk_16_equal_file_names_in_two_branches_are_two_objects() {
    let bench = Bench::new().await;
    bench
        .origin
        .put("/v3.20/main/x86_64/a-1-r0.apk", Resource::new("main"));
    bench.origin.put(
        "/v3.20/community/x86_64/a-1-r0.apk",
        Resource::new("community"),
    );
    for _ in 0..2 {
        for branch in ["main", "community"] {
            assert_eq!(
                get(&bench, &format!("v3.20/{branch}/x86_64/a-1-r0.apk"))
                    .await
                    .text(),
                branch
            );
        }
    }
}

#[tokio::test]
async fn apk_22_a_hundred_clients_at_once_are_one_index_request() {
    let bench = bench().await;
    bench.origin.hold(&at(INDEX_AT));
    let clients: Vec<_> = (0..100)
        .map(|_| tokio::spawn(bench.client("alpine", INDEX_AT).run()))
        .collect();
    bench.until_asked("alpine", 100).await;
    bench.origin.release(&at(INDEX_AT));
    for client in clients {
        assert_eq!(&client.await.unwrap().unwrap().bytes()[..], INDEX);
    }
    assert_eq!(bench.origin.count("GET", &at(INDEX_AT)), 1);
}

#[tokio::test]
async fn apk_23_head_of_a_held_package_states_its_length_and_brings_no_body() {
    let bench = bench().await;
    get(&bench, DEMO_AT).await;
    bench.origin.reset_log();
    let head = bench
        .ask(Method::HEAD, "alpine", DEMO_AT, &[])
        .await
        .unwrap();
    assert_eq!(head.answer.representation.length, Some(DEMO.len() as u64));
    assert!(bench.origin.requests().is_empty());
}

#[tokio::test]
async fn a_log_in_page_in_the_place_of_an_index_is_refused_and_the_copy_goes_on_being_served() {
    let bench = Bench::new().await;
    let bench = Arc::new(bench);
    for (path, body) in [(INDEX_AT, INDEX), ("v3/x86_64/Packages.adb", INDEX_V3)] {
        bench.origin.put(&at(path), Resource::new(body));
        bench.origin.behave(&at(path), Behaviour::LoginPage);
        assert_eq!(
            refused(&bench, path).await,
            (FaultKind::BadGateway, "malformed_document"),
            "{path}"
        );
        bench.origin.clear(&at(path));
        get(&bench, path).await;
        bench.wait(100_000);
        bench.origin.behave(&at(path), Behaviour::LoginPage);
        assert_eq!(&get(&bench, path).await.bytes()[..], body, "{path}");
    }
}

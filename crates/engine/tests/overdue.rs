//! Who waits for the refresh of something that is held waits no longer than `stale.wait` (hazard X5): the copy is served then, and the
//! refresh goes on and is kept. The upstream's time-out is far away in all of these.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test program: its helpers panic to report"
)]

#[path = "oci/images.rs"]
#[expect(dead_code, reason = "a part of it is used here")]
mod images;
#[path = "rpm/repo.rs"]
#[expect(dead_code, reason = "a part of it is used here")]
mod repo;
#[path = "support/mod.rs"]
mod support;

use std::pin::Pin;
use std::time::Duration;

use http::Method;
use larder_core::{Fault, FaultKind, Pattern, Repository, Revalidate, Source};
use larder_testkit::{Behaviour, Payload, Resource};
use support::{Bench, Got, eventually, publish, some_time, upstream, while_time_passes};
use tokio::time::Instant;

/// `stale.wait` of the repositories of these tests.
const WAIT: Duration = Duration::from_millis(400);
/// Beyond it, on a machine that does other things too.
const LATE: Duration = Duration::from_secs(3);
/// Beyond the default time-to-live of mutable files, in seconds.
const EXPIRED: u64 = 3_601;

fn patient(repository: &mut Repository) {
    repository.cache.stale_wait = WAIT;
    upstream(repository).read_timeout = Duration::from_mins(2);
    if repository.package == larder_core::PackageType::Generic {
        repository.access.mutable = Some(vec![Pattern::compile("idx$").unwrap()]);
    }
}

async fn bench(change: impl Fn(&mut Repository)) -> Bench {
    Bench::with(|repository| {
        patient(repository);
        change(repository);
    })
    .await
}

fn text(body: &str) -> Resource {
    Resource::new(body.to_owned())
        .content_type("text/plain")
        .etag(&format!("\"{body}\""))
}

/// A bench whose generic repository holds an expired copy of `idx`, which is "one"; its upstream has "two".
async fn expired(change: impl Fn(&mut Repository)) -> Bench {
    let bench = bench(change).await;
    bench.origin.put("/idx", text("one"));
    bench.get("generic", "idx").await.unwrap();
    bench.settled().await;
    bench.wait(EXPIRED);
    bench.origin.put("/idx", text("two"));
    bench.origin.reset_log();
    bench
}

/// What came, and after how long.
type Timed = (Result<Got, Fault>, Duration);

fn timed<'a>(
    asking: impl Future<Output = Result<Got, Fault>> + 'a,
) -> Pin<Box<dyn Future<Output = Timed> + 'a>> {
    Box::pin(async move {
        let began = Instant::now();
        let got = tokio::time::timeout(Duration::from_secs(20), asking)
            .await
            .unwrap_or_else(|_| panic!("no answer"));
        (got, began.elapsed())
    })
}

#[track_caller]
fn is_the_copy((got, took): Timed, body: &str, waited: bool) {
    let got = got.unwrap();
    assert_eq!(got.text(), body);
    let answer = &got.answer;
    assert!(
        answer.cache_status.contains("fwd=stale")
            && answer.cache_status.contains("detail=stale-timeout"),
        "{}",
        answer.cache_status
    );
    assert_eq!(answer.source, Source::Cache);
    assert_eq!(answer.freshness.remaining, Some(Duration::ZERO));
    assert!(!answer.hot, "no further answer is made of it");
    assert_eq!(took >= WAIT, waited, "{took:?}");
    assert!(took < WAIT + LATE, "{took:?}");
}

/// The upstream goes on: what it has is kept, and was asked for once.
async fn is_refreshed(bench: &Bench) {
    bench.settled().await;
    let got = bench.get("generic", "idx").await.unwrap();
    assert_eq!(got.text(), "two");
    assert!(got.is_hit(), "{}", got.answer.cache_status);
    assert_eq!(bench.origin.count("GET", "/idx"), 1);
}

#[tokio::test]
async fn hazard_x5_the_copy_comes_after_the_wait_and_the_refresh_goes_on() {
    for revalidate in [None, Some(Revalidate::Get), Some(Revalidate::Head)] {
        let bench = expired(|r| r.cache.revalidate = revalidate).await;
        bench.origin.hold("/idx");
        is_the_copy(timed(bench.get("generic", "idx")).await, "one", true);
        // It is overdue already.
        is_the_copy(timed(bench.get("generic", "idx")).await, "one", false);
        let head = bench.ask(Method::HEAD, "generic", "idx", &[]);
        is_the_copy(timed(head).await, "", false);
        bench.origin.release("/idx");
        is_refreshed(&bench).await;
    }
}

#[tokio::test]
async fn hazard_x5_a_body_that_drips_is_kept_when_it_ends() {
    let bench = expired(|_| {}).await;
    bench.origin.hold_body("/idx", 1);
    is_the_copy(timed(bench.get("generic", "idx")).await, "one", true);
    bench.origin.release("/idx");
    is_refreshed(&bench).await;
}

#[tokio::test]
async fn a_refresh_in_time_is_waited_for() {
    let bench = expired(|_| {}).await;
    let stall = Behaviour::StallHead(WAIT / 4);
    bench.origin.behave("/idx", stall);
    let got = bench.get("generic", "idx").await.unwrap();
    assert_eq!(
        (got.text().as_str(), got.answer.source),
        ("two", Source::Remote)
    );
}

#[tokio::test]
async fn what_the_upstream_says_in_the_end_holds() {
    let bench = expired(|_| {}).await;
    bench.origin.remove("/idx");
    bench.origin.hold("/idx");
    is_the_copy(timed(bench.get("generic", "idx")).await, "one", true);
    bench.origin.release("/idx");
    bench.settled().await;
    let fault = bench.get("generic", "idx").await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Upstream(404));
}

#[tokio::test]
async fn with_no_wait_at_all_the_copy_comes_at_once() {
    let bench = expired(|r| r.cache.stale_wait = Duration::ZERO).await;
    bench.origin.hold("/idx");
    is_the_copy(timed(bench.get("generic", "idx")).await, "one", false);
    bench.origin.release("/idx");
    is_refreshed(&bench).await;
}

#[tokio::test]
async fn where_no_copy_may_be_served_the_upstream_is_waited_for() {
    // One is too old for it, of the other there is none.
    for (max_age, path) in [(Some(60), "idx"), (None, "other.idx")] {
        let bench = expired(|r| r.cache.stale_max_age = max_age.map(Duration::from_secs)).await;
        bench.origin.put("/other.idx", text("two"));
        let at = format!("/{path}");
        bench.origin.hold(&at);
        let asking = async {
            let release = async {
                tokio::time::sleep(WAIT * 3).await;
                bench.origin.release(&at);
            };
            tokio::join!(bench.get("generic", path), release).0
        };
        let (got, took) = while_time_passes(timed(asking)).await;
        assert_eq!(got.unwrap().text(), "two");
        assert!(took >= WAIT * 3, "{took:?}");
    }
}

#[tokio::test]
async fn a_large_body_is_handed_on_only_if_it_flows() {
    let large = |seed| Payload::generated(3 << 20, seed);
    for (arrives, flows) in [(64 << 10, false), (2 << 20, true)] {
        let bench = expired(|_| {}).await;
        bench.origin.put("/idx", Resource::new(large(7)));
        bench.origin.hold_body("/idx", arrives);
        let asking = async {
            let release = async {
                tokio::time::sleep(WAIT * 3).await;
                bench.origin.release("/idx");
            };
            tokio::join!(timed(bench.get("generic", "idx")), release).0
        };
        let (got, took) = while_time_passes(asking).await;
        if flows {
            let got = got.unwrap();
            assert!(got.answer.in_flight);
            assert!(*got.bytes() == large(7).slice(0, 3 << 20));
        } else {
            is_the_copy((got, took), "one", true);
            assert!(took < WAIT * 3, "{took:?}");
        }
        bench.settled().await;
        let got = bench.get("generic", "idx").await.unwrap();
        assert!(got.is_hit() && *got.bytes() == large(7).slice(0, 3 << 20));
    }
}

#[tokio::test]
async fn hazard_x5_files_that_a_document_names_do_not_wait_for_it() {
    for repository in ["pypi", "npm", "helm"] {
        let bench = bench(|_| {}).await;
        let body = Payload::generated(1000, 1);
        let published = publish(&bench.origin, repository, &body, "\"1\"");
        let at = published.document_at;
        let bodies = [bench.get(repository, published.document).await.unwrap()];
        bench.settled().await;
        bench.wait(EXPIRED);
        bench.origin.hold(at);
        let page = timed(bench.get(repository, published.document)).await;
        is_the_copy(page, &bodies[0].text(), true);
        // It is named by the held document, which is all that is asked.
        let (got, took) = timed(bench.get(repository, &published.path)).await;
        assert!(*got.unwrap().bytes() == body.slice(0, 1000), "{repository}");
        assert!(took < WAIT, "{repository}: {took:?}");
        assert_eq!(bench.origin.count("GET", at), 2);
        eventually("the file is held", async || {
            let record = bench.record(repository, &published.path, "").await;
            record.is_some()
        })
        .await;
        let (got, took) = timed(bench.get(repository, &published.path)).await;
        assert!(got.unwrap().is_hit(), "{repository}");
        assert!(took < WAIT, "{repository}: {took:?}");
        bench.origin.release(at);
        bench.settled().await;
    }
}

#[tokio::test]
async fn hazard_x5_a_file_that_the_held_document_does_not_name_waits_no_longer_than_the_document() {
    let bench = bench(|_| {}).await;
    let body = Payload::generated(1000, 1);
    let published = publish(&bench.origin, "pypi", &body, "\"1\"");
    let page = bench.get("pypi", published.document).await.unwrap().text();
    bench.settled().await;
    bench.wait(EXPIRED);
    let new = "packages/demo-2.0-py3-none-any.whl";
    bench
        .origin
        .put(&format!("/{new}"), Resource::new(body.clone()));
    bench.origin.hold(published.document_at);
    let (got, took) = timed(bench.get("pypi", new)).await;
    assert!(*got.unwrap().bytes() == body.slice(0, 1000));
    assert!(took < WAIT + LATE, "{took:?}");
    // The page has been asked for on its account: nobody waits for that any more.
    is_the_copy(
        timed(bench.get("pypi", published.document)).await,
        &page,
        false,
    );
    bench.origin.release(published.document_at);
    bench.settled().await;
}

#[tokio::test]
async fn hazard_x5_a_generation_is_served_as_one_while_the_next_does_not_come() {
    use repo::{MASTER, SIGNATURE, Style, generation, signature};
    let one = generation(Style::revision(1), &[("Packages/x-1.rpm", "one")]);
    let two = generation(Style::revision(2), &[("Packages/x-2.rpm", "two")]);
    // What does not come: the document, its signature, or a file that it names.
    for held in [
        MASTER.to_owned(),
        SIGNATURE.to_owned(),
        two.path_of("primary"),
    ] {
        for first in [MASTER, SIGNATURE] {
            let bench = bench(|_| {}).await;
            one.publish(&bench.origin, "", None);
            let primary = one.path_of("primary");
            for path in [MASTER, SIGNATURE, &primary] {
                bench.get("rpm", path).await.unwrap();
            }
            bench.settled().await;
            bench.wait(EXPIRED);
            two.publish(&bench.origin, "", Some(&one));
            // Nobody is in the middle of reading any more.
            some_time(Duration::from_millis(600)).await;
            let at = format!("/{held}");
            bench.origin.hold(&at);
            let of_one = |path| {
                if path == MASTER {
                    String::from_utf8(one.repomd.clone()).unwrap()
                } else {
                    String::from_utf8(signature(&one.repomd)).unwrap()
                }
            };
            let second = if first == MASTER { SIGNATURE } else { MASTER };
            // Another document is given with its companion, or a companion with its document: of one generation in either case.
            bench.wait(60);
            is_the_copy(timed(bench.get("rpm", first)).await, &of_one(first), true);
            let (got, took) = timed(bench.get("rpm", second)).await;
            assert_eq!(got.unwrap().text(), of_one(second), "{held}, {first}");
            assert!(took < WAIT, "{held}, {first}: {took:?}");
            let (got, took) = timed(bench.get("rpm", &primary)).await;
            assert!(got.is_ok() && took < WAIT, "{held}, {first}: {took:?}");
            bench.origin.release(&at);
            bench.settled().await;
            let master = bench.get("rpm", MASTER).await.unwrap();
            assert_eq!(*master.bytes(), two.repomd, "{held}, {first}");
            let signed = bench.get("rpm", SIGNATURE).await.unwrap();
            assert_eq!(*signed.bytes(), signature(&two.repomd), "{held}, {first}");
        }
    }
}

#[tokio::test]
async fn hazard_x5_a_tag_that_another_client_brought_stands_in_meanwhile() {
    use images::{OCI_INDEX, OCI_MANIFEST, image, tag};
    const TAG: &str = "app/manifests/1.0";
    const AT: &str = "/v2/app/manifests/1.0";
    let narrow: &[(&str, &str)] = &[("accept", OCI_MANIFEST)];
    let wide: &[(&str, &str)] = &[("accept", OCI_MANIFEST), ("accept", OCI_INDEX)];
    let manifest = image(OCI_MANIFEST, "one");
    for method in [Method::HEAD, Method::GET] {
        let bench = bench(|_| {}).await;
        tag(&bench.origin, TAG, &manifest);
        bench.ask(Method::GET, "docker", TAG, narrow).await.unwrap();
        bench.settled().await;
        bench.wait(EXPIRED);
        bench.origin.hold(AT);
        let body = if method == Method::GET {
            &*manifest.body
        } else {
            ""
        };
        // The tag's own copy is refreshed.
        let own = timed(bench.ask(method.clone(), "docker", TAG, narrow)).await;
        is_the_copy(own, body, true);
        let other = timed(bench.ask(method, "docker", TAG, wide)).await;
        is_the_copy(other, body, true);
        bench.origin.release(AT);
        bench.settled().await;
    }
}

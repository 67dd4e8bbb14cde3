//! Alpine repositories on the wire: what apk's own HTTP client is strict about (docs/reference/protocols/apk.md, section 1).

use std::time::{Duration, SystemTime};

use larder_testkit::{Behaviour, Origin, Resource};

use crate::artifacts::{httpdate, now_seconds};
use crate::support::packages::remote;
use crate::support::{TestLarder, get, send};

const INDEX: &[u8] = include_bytes!("../../../formats/src/alpine/testdata/APKINDEX.tar.gz");
const INDEX_REBUILT: &[u8] =
    include_bytes!("../../../formats/src/alpine/testdata/APKINDEX.rebuilt.tar.gz");
const DEMO: &[u8] = include_bytes!("../../../formats/src/alpine/testdata/demo-1.0-r0.apk");
const INDEX_AT: &str = "v3.23/main/x86_64/APKINDEX.tar.gz";
const DEMO_AT: &str = "v3.23/main/x86_64/demo-1.0-r0.apk";
const PUBLISHED: &str = "Wed, 01 Jan 2020 00:00:00 GMT";

async fn origin() -> Origin {
    let origin = Origin::start().await;
    origin.put(
        &format!("/{INDEX_AT}"),
        Resource::new(INDEX)
            .last_modified(PUBLISHED)
            .content_type("application/gzip"),
    );
    origin.put(
        &format!("/{DEMO_AT}"),
        Resource::new(DEMO).last_modified(PUBLISHED),
    );
    origin
}

fn seconds_from_now(offset: i64) -> String {
    httpdate(
        SystemTime::UNIX_EPOCH + Duration::from_secs(now_seconds().saturating_add_signed(offset)),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn apk_05_the_date_served_gives_304_without_a_body() {
    let origin = origin().await;
    let larder = TestLarder::start(&remote("alpine", &origin, "")).await;
    let url = larder.artifact("alpine", INDEX_AT);
    let first = get(&url).await;
    assert_eq!(
        (first.status, first.header("last-modified"), &first.body[..]),
        (200, PUBLISHED, INDEX)
    );
    let again = send("GET", &url, &[("If-Modified-Since", PUBLISHED)]).await;
    assert_eq!((again.status, again.body.len()), (304, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn apk_06_a_date_between_the_upstream_s_and_larder_s_switch_gives_200() {
    let origin = origin().await;
    let larder = TestLarder::start(&remote("alpine", &origin, "cache: { mutable_ttl: 0 }")).await;
    let url = larder.artifact("alpine", INDEX_AT);
    get(&url).await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    // What apk has then: the time of its own copy.
    let fetched = seconds_from_now(0);
    origin.put(
        &format!("/{INDEX_AT}"),
        Resource::new(INDEX_REBUILT).last_modified("Thu, 02 Jan 2020 00:00:00 GMT"),
    );
    let answer = send("GET", &url, &[("If-Modified-Since", &fetched)]).await;
    assert_eq!((answer.status, &answer.body[..]), (200, INDEX_REBUILT));
    let later = send("GET", &url, &[("If-Modified-Since", &seconds_from_now(5))]).await;
    assert_eq!(later.status, 304);
}

/// apk follows 301, 302 and 303 only, and larder has no reason to send any.
#[tokio::test(flavor = "multi_thread")]
async fn apk_07_no_answer_is_a_redirect() {
    let origin = origin().await;
    for status in [301, 302, 303, 307, 308] {
        let from = format!("/v3.23/main/x86_64/moved-{status}-r0.apk");
        origin.behave(
            &from,
            Behaviour::Redirect {
                status,
                location: origin.url(DEMO_AT),
            },
        );
    }
    let larder = TestLarder::start(&remote("alpine", &origin, "")).await;
    for status in [301, 302, 303, 307, 308] {
        let url = larder.artifact(
            "alpine",
            &format!("v3.23/main/x86_64/moved-{status}-r0.apk"),
        );
        assert_eq!(
            (get(&url).await.status, &get(&url).await.body[..]),
            (200, DEMO),
            "followed inside: {status}"
        );
    }
    for path in [
        INDEX_AT,
        DEMO_AT,
        "",
        "v3.23",
        "v3.23/main/x86_64/",
        "v3.23/main//x86_64/x.apk",
        "/v3.23/main/x86_64/x.apk",
        "a/../b",
    ] {
        let status = get(&larder.artifact("alpine", path)).await.status;
        assert!(!(300..400).contains(&status), "{path:?}: {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn apk_23_head_of_a_held_package_has_its_length_and_no_body() {
    let origin = origin().await;
    let larder = TestLarder::start(&remote("alpine", &origin, "")).await;
    let url = larder.artifact("alpine", DEMO_AT);
    get(&url).await;
    larder.hit(&url).await;
    let head = send("HEAD", &url, &[]).await;
    assert_eq!(
        (head.status, head.header("content-length"), head.body.len()),
        (200, &*DEMO.len().to_string(), 0)
    );
    assert_eq!(head.source(), "cache");
}

//! Signals: SIGTERM finishes what is running and refuses what is new; SIGHUP reloads without dropping anything.
#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "helpers of tests may fail loudly"
)]

mod support;

use std::time::{Duration, Instant};

use larder_testkit::{Origin, Payload, Resource};
use rustix::process::Signal;
use support::client::client;
use support::packages::{entry, remote};
use support::{PATIENCE, Setup, TestLarder, get};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Large enough to be streamed, and more than all buffers on the way hold.
const LENGTH: u64 = 12 << 20;
/// Where the upstream pauses until it is told to go on.
const HELD_AT: u64 = 3 << 20;

/// An upstream whose `/slow` pauses in the middle.
async fn slow_origin() -> (Origin, Payload) {
    let origin = Origin::start().await;
    let body = Payload::generated(LENGTH, 7);
    origin.put("/slow", Resource::new(body.clone()));
    origin.hold_body("/slow", HELD_AT);
    (origin, body)
}

/// Starts a download, and gives it back once its first bytes have come.
async fn running(url: &str) -> JoinHandle<Vec<u8>> {
    let mut response = client().get(url).send().await.expect("a head");
    assert_eq!(response.status(), 200);
    let mut body = response
        .chunk()
        .await
        .expect("a first piece")
        .expect("not the end")
        .to_vec();
    tokio::spawn(async move {
        while let Some(piece) = response.chunk().await.expect("the body goes on") {
            body.extend_from_slice(&piece);
        }
        body
    })
}

async fn whole(download: JoinHandle<Vec<u8>>, body: &Payload) {
    let got = tokio::time::timeout(PATIENCE, download)
        .await
        .expect("in time")
        .expect("without a break");
    assert!(
        got == body.slice(0, LENGTH),
        "{} of {LENGTH} bytes, or other ones",
        got.len()
    );
}

async fn refused(larder: &TestLarder) {
    let until = Instant::now() + Duration::from_secs(3);
    while TcpStream::connect(larder.address()).await.is_ok() {
        assert!(Instant::now() < until, "new connections are still taken");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_a_running_download_end_and_refuses_new_connections() {
    let (origin, body) = slow_origin().await;
    let mut larder = TestLarder::start(&remote("generic", &origin, "")).await;
    let url = larder.artifact("generic", "slow");
    let (first, second) = (running(&url).await, running(&url).await);
    larder.signal(Signal::TERM);
    refused(&larder).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(larder.ended(), None, "somebody is still reading");
    origin.release("/slow");
    whole(first, &body).await;
    whole(second, &body).await;
    assert_eq!(larder.wait().code(), Some(0));
    assert_eq!(origin.count("GET", "/slow"), 1);
    // What was finished was kept, too.
    larder.restart().await;
    let again = get(&larder.artifact("generic", "slow")).await;
    assert_eq!((again.status, again.source()), (200, "cache"));
    assert!(again.body == body.slice(0, LENGTH), "other bytes");
    assert_eq!(origin.count("GET", "/slow"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_a_slow_reader_of_a_held_file_end() {
    let (origin, body) = slow_origin().await;
    origin.release("/slow");
    let mut larder = TestLarder::start(&remote("generic", &origin, "")).await;
    let url = larder.artifact("generic", "slow");
    get(&url).await;
    larder.hit(&url).await;
    let mut response = client().get(&url).send().await.expect("a head");
    let mut got = response
        .chunk()
        .await
        .expect("a first piece")
        .expect("not the end")
        .to_vec();
    larder.signal(Signal::TERM);
    refused(&larder).await;
    // Slowly at first, then all of it.
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        got.extend_from_slice(
            &response
                .chunk()
                .await
                .expect("the body goes on")
                .expect("not the end"),
        );
    }
    while let Some(piece) = response.chunk().await.expect("the body goes on") {
        got.extend_from_slice(&piece);
    }
    assert!(
        got == body.slice(0, LENGTH),
        "{} of {LENGTH} bytes, or other ones",
        got.len()
    );
    assert_eq!(larder.wait().code(), Some(0));
}

/// Connections on which no request is being answered: kept alive after an answer, silent from the start, in the middle of a head
/// (which may go on until the deadline for heads, ten seconds).
#[tokio::test(flavor = "multi_thread")]
async fn sigterm_does_not_wait_for_connections_without_a_request() {
    let origin = Origin::start().await;
    for (case, sent, seconds) in [
        (
            "kept alive",
            "GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n",
            3,
        ),
        ("silent", "", 3),
        ("half a head", "GET /live HTTP/1.1\r\nHost: loc", 12),
    ] {
        let mut larder = TestLarder::start(&remote("generic", &origin, "")).await;
        let mut socket = TcpStream::connect(larder.address())
            .await
            .expect("a connection");
        socket.write_all(sent.as_bytes()).await.expect("written");
        if case == "kept alive" {
            assert!(socket.read(&mut [0; 1024]).await.expect("an answer") > 0);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let began = Instant::now();
        assert_eq!(larder.terminate().code(), Some(0));
        assert!(
            began.elapsed() < Duration::from_secs(seconds),
            "{case}: {:?}",
            began.elapsed()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_does_not_wait_for_a_download_that_nobody_reads() {
    let (origin, _) = slow_origin().await;
    let mut larder = TestLarder::start(&remote("generic", &origin, "")).await;
    let mut gone = client()
        .get(larder.artifact("generic", "slow"))
        .send()
        .await
        .expect("a head");
    gone.chunk().await.expect("a first piece");
    drop(gone);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let began = Instant::now();
    assert_eq!(larder.terminate().code(), Some(0));
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    larder.restart().await;
    origin.release("/slow");
    assert_eq!(
        get(&larder.artifact("generic", "slow")).await.source(),
        "remote",
        "half a file is no file"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_with_nothing_to_do_is_quick() {
    let origin = Origin::start().await;
    let mut larder = TestLarder::start(&remote("generic", &origin, "")).await;
    assert_eq!(get(&larder.url("/live")).await.status, 200);
    let began = Instant::now();
    assert_eq!(larder.terminate().code(), Some(0));
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
}

/// Far longer than anybody waits here: what ends in time was ended by what the test did.
const LONG_DRAIN: &str = "drain: 3600\n";

async fn until_not_ready(larder: &TestLarder) {
    let until = Instant::now() + PATIENCE;
    while get(&larder.url("/ready")).await.status != 503 {
        assert!(Instant::now() < until, "it is still ready");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_fails_ready_first_and_everything_else_is_served_until_drain_is_over() {
    let origin = Origin::start().await;
    origin.put("/f", Resource::new("content"));
    let mut larder =
        TestLarder::start(&format!("{LONG_DRAIN}{}", remote("generic", &origin, ""))).await;
    assert_eq!(get(&larder.url("/ready")).await.status, 200);
    larder.signal(Signal::TERM);
    until_not_ready(&larder).await;
    for path in ["/live", "/health", "/metrics", "/api/v1/remote/generic/f"] {
        assert_eq!(get(&larder.url(path)).await.status, 200, "{path}");
    }
    assert_eq!(larder.ended(), None);
    larder.signal(Signal::TERM);
    refused(&larder).await;
    assert_eq!(
        larder.wait().code(),
        Some(0),
        "a second signal ends the wait, not the stop"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_drain_time_ends_by_itself_and_a_reload_changes_it() {
    let origin = Origin::start().await;
    let config = remote("generic", &origin, "");
    let mut larder = TestLarder::start(&format!("{LONG_DRAIN}{config}")).await;
    larder.write_config(&format!("drain: 1\n{config}"));
    larder.signal(Signal::HUP);
    larder.logged("the new configuration is in force").await;
    let began = Instant::now();
    larder.signal(Signal::INT);
    assert_eq!(larder.wait().code(), Some(0));
    assert!(
        began.elapsed() >= Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn drain_is_five_seconds_where_nothing_is_said() {
    let larder = support::Setup::without_config().start().await;
    assert_eq!(get(&larder.url("/config")).await.json()["drain"], 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn user_signals_do_nothing_but_a_line_in_the_log() {
    let origin = Origin::start().await;
    let mut larder = TestLarder::start(&remote("generic", &origin, "")).await;
    for (signal, name) in [(Signal::USR1, "SIGUSR1"), (Signal::USR2, "SIGUSR2")] {
        larder.signal(signal);
        larder.logged(name).await;
        assert_eq!(get(&larder.url("/ready")).await.status, 200);
    }
    assert_eq!(larder.ended(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_reloads_without_dropping_a_running_download() {
    let (origin, body) = slow_origin().await;
    origin.put("/quick", Resource::new("quick"));
    let keep = entry("keep", "generic", &origin, "");
    let gone = entry("gone", "generic", &origin, "");
    let new = entry("new", "generic", &origin, "");
    let mut larder = TestLarder::start(&format!("remotes:\n{keep}{gone}")).await;
    let download = running(&larder.artifact("gone", "slow")).await;
    let other = running(&larder.artifact("keep", "slow")).await;
    larder.write_config(&format!("remotes:\n{keep}{new}"));
    larder.signal(Signal::HUP);
    larder.logged("the new configuration is in force").await;
    assert_eq!(get(&larder.artifact("new", "quick")).await.text(), "quick");
    assert_eq!(get(&larder.artifact("gone", "quick")).await.status, 404);
    assert_eq!(get(&larder.artifact("keep", "quick")).await.text(), "quick");
    origin.release("/slow");
    whole(download, &body).await;
    whole(other, &body).await;
    assert_eq!(origin.count("GET", "/slow"), 2, "one for each repository");
    let listed = get(&larder.url("/")).await.json();
    let names: Vec<&String> = listed["remotes"]
        .as_object()
        .expect("an object")
        .keys()
        .collect();
    assert_eq!(names, ["keep", "new"]);
    // The files of a repository that is back are still there.
    larder.write_config(&format!("remotes:\n{keep}{gone}"));
    larder.signal(Signal::HUP);
    let until = Instant::now() + PATIENCE;
    while get(&larder.artifact("gone", "quick")).await.status == 404 {
        assert!(Instant::now() < until, "not reloaded");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let held = get(&larder.artifact("keep", "slow")).await;
    assert_eq!((held.status, held.source()), (200, "cache"));
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_of_a_reloaded_repository_hold_at_once_for_what_is_held_too() {
    let origin = Origin::start().await;
    origin.put("/a.tgz", Resource::new("a"));
    let mut larder = TestLarder::start(&remote("generic", &origin, "")).await;
    let url = larder.artifact("generic", "a.tgz");
    get(&url).await;
    larder.hit(&url).await;
    larder.write_config(&remote("generic", &origin, "deny_patterns: ['^a']"));
    larder.signal(Signal::HUP);
    larder.logged("the new configuration is in force").await;
    assert_eq!(get(&url).await.status, 403);
    assert_eq!(origin.count("GET", "/a.tgz"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_new_file_leaves_the_old_configuration_in_force() {
    let (origin, body) = slow_origin().await;
    origin.put("/quick", Resource::new("quick"));
    let old = remote("generic", &origin, "");
    // Elsewhere the variable for Redis goes before the key that is wrong.
    let mut larder = Setup::new(&old).embedded().start().await;
    let download = running(&larder.artifact("generic", "slow")).await;
    let before = get(&larder.url("/config")).await.json();
    for (bad, said) in [
        ("remotes: [".to_owned(), "not valid YAML"),
        (old.replace("base_url", "base_ulr"), "base_ulr"),
        (
            "remotes:\n  generic:\n    base_url: 'http://x'\n    immutable_patterns: ['(']\n"
                .to_owned(),
            "immutable_patterns",
        ),
        (format!("{old}redis: {{ url: 'http://x' }}\n"), "redis.url"),
    ] {
        larder.write_config(&bad);
        larder.signal(Signal::HUP);
        larder.logged(said).await;
        larder.logged("the old one stays in force").await;
        assert_eq!(
            get(&larder.artifact("generic", "quick")).await.text(),
            "quick",
            "{said}"
        );
        assert_eq!(get(&larder.url("/config")).await.json(), before, "{said}");
    }
    std::fs::remove_file(larder.config_path()).expect("removed");
    larder.signal(Signal::HUP);
    larder.logged("cannot read the configuration file").await;
    assert_eq!(
        get(&larder.artifact("generic", "quick")).await.text(),
        "quick"
    );
    origin.release("/slow");
    whole(download, &body).await;
    larder.write_config(&format!("{old}{}", entry("second", "generic", &origin, "")));
    larder.signal(Signal::HUP);
    larder.logged("the new configuration is in force").await;
    assert_eq!(
        get(&larder.artifact("second", "quick")).await.text(),
        "quick"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_is_noticed_without_a_signal() {
    let origin = Origin::start().await;
    origin.put("/quick", Resource::new("quick"));
    let mut larder = TestLarder::start(&remote("generic", &origin, "")).await;
    larder.write_config(&format!(
        "remotes:\n{}",
        entry("other", "generic", &origin, "")
    ));
    larder.logged("the new configuration is in force").await;
    assert_eq!(
        get(&larder.artifact("other", "quick")).await.text(),
        "quick"
    );
    assert_eq!(get(&larder.artifact("generic", "quick")).await.status, 404);
}

//! A deletion among replicas: the one that has condemned blobs is killed before it has deleted them, and another goes on (docs/adr/0101).

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use larder_core::sha256;
use larder_testkit::Resource;
use larder_testkit::servers::{Gate, S3Server};

use super::fixture::{Backends, until_ready};
use super::support::{PATIENCE, TestLarder, get, send};

/// What a killed process had begun is over within this.
const OVER: Duration = Duration::from_mins(2);
const FILES: usize = 60;

fn text(number: usize) -> String {
    format!("the bytes of file {number}")
}

/// Blobs that wait for their deletion.
fn condemned(backends: &Backends) -> usize {
    let asked = "SELECT count(*) FROM blobs WHERE condemned_by IS NOT NULL";
    let count = backends.postgres.sql(&backends.database, asked);
    count.parse().expect("a number")
}

/// How many of the files the store has.
async fn stored(backends: &Backends) -> usize {
    let there = join_all((0..FILES).map(|number| async move {
        let digest = sha256(text(number).as_bytes()).to_hex();
        let path = format!("/{}/sha256/{digest}", S3Server::BUCKET);
        backends.objects.ask("HEAD", &path, "").await
    }));
    let there = there.await;
    assert!(
        there.iter().all(|status| matches!(status, Some(200 | 404))),
        "{there:?}"
    );
    there.iter().filter(|status| **status == Some(200)).count()
}

/// Two replicas, of which one has condemned all files of `files`, and was killed before the store had heard of any; and since when.
struct Scene {
    backends: Backends,
    survivor: TestLarder,
    since: Instant,
}

async fn one_is_killed() -> Scene {
    let backends = Backends::start().await;
    let gate = Gate::to(&backends.objects.endpoint()).await;
    let behind = backends.replica().env("MINIO_ENDPOINT", &gate.endpoint());
    let mut killed = behind.start().await;
    let survivor = backends.replica().start().await;
    until_ready(&killed).await;
    until_ready(&survivor).await;
    for number in 0..FILES {
        let path = format!("{number}.bin");
        backends
            .origin
            .put(&format!("/{path}"), Resource::new(text(number)));
        let answer = get(&killed.artifact("files", &path)).await;
        assert_eq!((answer.status, answer.text()), (200, text(number)));
    }
    killed.until_idle().await;
    assert_eq!(stored(&backends).await, FILES);
    // The store hears nothing of what is to be deleted.
    gate.stall();
    let flushed = send("PUT", &killed.url("cache/flush?remote=files"), &[]).await;
    assert_eq!(
        flushed.json()["flushed"]["files"],
        FILES,
        "{}",
        flushed.text()
    );
    let began = Instant::now();
    while condemned(&backends) < FILES {
        assert!(began.elapsed() < PATIENCE, "{}", condemned(&backends));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    killed.kill9();
    let since = Instant::now();
    drop(gate);
    assert_eq!(stored(&backends).await, FILES, "nothing was deleted yet");
    Scene {
        backends,
        survivor,
        since,
    }
}

/// Nobody waits for a blob that is being deleted: what is wanted of them is served, though it cannot be kept (docs/adr/0065), and what is
/// wanted at the same time is kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_condemned_keeps_nothing_else_from_being_kept() {
    let Scene {
        backends, survivor, ..
    } = one_is_killed().await;
    let others = FILES..2 * FILES;
    for number in others.clone() {
        backends
            .origin
            .put(&format!("/{number}.bin"), Resource::new(text(number)));
    }
    let wanted = (0..2 * FILES).map(|number| {
        let url = survivor.artifact("files", &format!("{number}.bin"));
        async move {
            let answer = get(&url).await;
            assert_eq!((answer.status, answer.text()), (200, text(number)));
        }
    });
    join_all(wanted).await;
    survivor.until_idle().await;
    assert_eq!(
        condemned(&backends),
        FILES,
        "they were condemned all the time"
    );
    let asked = "SELECT count(*) FROM artifacts";
    let kept = backends.postgres.sql(&backends.database, asked);
    assert_eq!(kept, others.len().to_string(), "all others");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "two minutes; part of make stress"]
async fn what_a_killed_replica_has_condemned_is_gone_within_two_minutes() {
    let Scene {
        backends,
        survivor,
        since,
    } = one_is_killed().await;
    let wanted = survivor.artifact("files", "0.bin");
    while condemned(&backends) > 0 {
        let answer = get(&wanted).await;
        assert_eq!((answer.status, answer.text()), (200, text(0)));
        assert!(
            since.elapsed() < OVER,
            "{} of {FILES} are condemned, {} in the store",
            condemned(&backends),
            stored(&backends).await
        );
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    println!(
        "{FILES} condemned blobs are gone {:?} after the kill",
        since.elapsed()
    );
    assert_eq!(stored(&backends).await, 0);
    // From now on it is as if there had been none.
    let later = get(&survivor.artifact("files", "1.bin")).await;
    assert_eq!((later.status, later.text()), (200, text(1)));
    survivor.until_idle().await;
    assert_eq!(stored(&backends).await, 1, "it is kept");
}

//! Jobs on both engines: one process at a time works on the oldest, and what has been done is not done again.
#![expect(clippy::unwrap_used, reason = "tests may fail loudly")]

mod support;

use larder_core::UnixMillis;
use larder_storage::{JobClaim, JobCounts, JobItem, JobStore};
use support::place::{Place, on_both_engines};

fn paths(of: &[&str]) -> Vec<String> {
    of.iter().map(|path| (*path).to_owned()).collect()
}

fn done(path: &str) -> JobItem {
    JobItem {
        path: path.to_owned(),
        state: "cached".to_owned(),
        bytes: 7,
        reason: String::new(),
    }
}

fn claim(id: &str) -> JobClaim {
    JobClaim {
        id: id.to_owned(),
        repository: "files".to_owned(),
    }
}

async fn take(meta: &JobStore, runner: &str, now: i64) -> Option<JobClaim> {
    let (now, until) = (UnixMillis(now), UnixMillis(now + 20));
    meta.claim_job(runner, now, until).await.unwrap()
}

async fn counts(meta: &JobStore, id: &str) -> JobCounts {
    meta.job(id).await.unwrap().unwrap().1
}

async fn files_are_fetched_in_order_once_and_bring_others(place: Place) {
    let meta = place.open().await.job_store();
    let wanted = paths(&["b", "a", "c", "a"]);
    meta.create_job("1", "files", &wanted, UnixMillis(5))
        .await
        .unwrap();
    assert_eq!(take(&meta, "me", 10).await, Some(claim("1")));
    assert_eq!(meta.begin_job_items("1", 2).await.unwrap(), ["a", "b"]);
    // A file that is there already is not added once more.
    let more = paths(&["d", "b"]);
    meta.end_job_item("1", &done("a"), &more).await.unwrap();
    let expected = JobCounts {
        queued: 2,
        running: 1,
        cached: 1,
        ..JobCounts::default()
    };
    assert_eq!((counts(&meta, "1").await, expected.all()), (expected, 4));
    // Whoever takes it up again begins anew with what was under way.
    assert_eq!(take(&meta, "me", 11).await, Some(claim("1")));
    assert_eq!(meta.begin_job_items("1", 9).await.unwrap(), ["b", "c", "d"]);
    for path in ["b", "c", "d"] {
        meta.end_job_item("1", &done(path), &[]).await.unwrap();
    }
    let end = meta.end_job("1", "me", ("done", ""), UnixMillis(12));
    assert!(end.await.unwrap());
    assert_eq!(take(&meta, "me", 13).await, None, "it has ended");
    let first = meta.job_items("1", "", 3).await.unwrap();
    assert_eq!(first, ["a", "b", "c"].map(done));
    assert_eq!(meta.job_items("1", "c", 3).await.unwrap(), [done("d")]);
    let (job, _) = meta.job("1").await.unwrap().unwrap();
    assert_eq!((&*job.state, job.ended_at), ("done", Some(UnixMillis(12))));
}

async fn a_cancelled_job_stays_as_it_is(place: Place) {
    let meta = place.open().await.job_store();
    let wanted = paths(&["a", "b", "c"]);
    meta.create_job("1", "files", &wanted, UnixMillis(5))
        .await
        .unwrap();
    meta.create_job("2", "files", &wanted[..1], UnixMillis(6))
        .await
        .unwrap();
    assert_eq!(
        take(&meta, "me", 10).await,
        Some(claim("1")),
        "the oldest first"
    );
    meta.begin_job_items("1", 2).await.unwrap();
    meta.end_job_item("1", &done("a"), &[]).await.unwrap();
    assert!(meta.cancel_job("1", UnixMillis(11)).await.unwrap());
    assert!(!meta.cancel_job("1", UnixMillis(12)).await.unwrap());
    assert!(!meta.renew_job("1", "me", UnixMillis(99)).await.unwrap());
    // What was under way comes too late.
    meta.end_job_item("1", &done("b"), &paths(&["x"]))
        .await
        .unwrap();
    assert!(
        !meta
            .end_job("1", "me", ("done", ""), UnixMillis(13))
            .await
            .unwrap()
    );
    let expected = JobCounts {
        cached: 1,
        skipped: 2,
        ..JobCounts::default()
    };
    assert_eq!(counts(&meta, "1").await, expected);
    let skipped = meta.job_items("1", "a", 1).await.unwrap();
    assert_eq!(
        (&*skipped[0].state, &*skipped[0].reason),
        ("skipped", "cancelled")
    );
    assert_eq!(take(&meta, "me", 14).await, Some(claim("2")));
    let ids =
        |jobs: Vec<larder_storage::JobRow>| jobs.into_iter().map(|job| job.id).collect::<Vec<_>>();
    assert_eq!(ids(meta.jobs(None, 9).await.unwrap()), ["2", "1"]);
    assert_eq!(ids(meta.jobs(Some("2"), 9).await.unwrap()), ["1"]);
    meta.forget_jobs(UnixMillis(12), 9).await.unwrap();
    assert_eq!(ids(meta.jobs(None, 9).await.unwrap()), ["2"]);
    assert_eq!(meta.job_items("1", "", 9).await.unwrap(), []);
}

async fn a_job_is_one_process_s_until_its_lease_ends(place: Place) {
    let meta = place.open().await.job_store();
    meta.create_job("1", "files", &paths(&["a"]), UnixMillis(5))
        .await
        .unwrap();
    assert_eq!(take(&meta, "one", 10).await, Some(claim("1")));
    meta.begin_job_items("1", 1).await.unwrap();
    // A file has one user: whoever held it before is gone.
    let other = take(&meta, "other", 20).await;
    assert_eq!(
        other,
        if place.is_postgres() {
            None
        } else {
            Some(claim("1"))
        }
    );
    assert_eq!(
        take(&meta, "other", 30).await,
        Some(claim("1")),
        "the lease has ended"
    );
    assert!(!meta.renew_job("1", "one", UnixMillis(99)).await.unwrap());
    assert!(meta.renew_job("1", "other", UnixMillis(99)).await.unwrap());
    assert_eq!(
        meta.begin_job_items("1", 9).await.unwrap(),
        ["a"],
        "once more"
    );
}

on_both_engines!(
    files_are_fetched_in_order_once_and_bring_others,
    a_cancelled_job_stays_as_it_is,
    a_job_is_one_process_s_until_its_lease_ends,
);

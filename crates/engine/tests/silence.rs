//! Time-outs are of silence and never of a whole transfer (hazard A5): an engine over a scripted upstream, while tokio's time is moved by
//! hand. Disk and database take the real time that they need; nothing here waits for a clock.

#[path = "support/mod.rs"]
mod support;

use std::sync::Arc;
use std::time::Duration;

use larder_core::*;
use larder_upstream::ScriptedReply;
use support::{Got, Scene};
use tokio::sync::Notify;

/// `timeouts.read` of the repositories of these tests.
const READ_TIMEOUT: Duration = Duration::from_millis(1500);
/// One step short of it.
const ALMOST: Duration = Duration::from_millis(1400);

/// A generic repository whose upstream answers these, one after the other.
async fn scene(replies: impl IntoIterator<Item = ScriptedReply>) -> Scene {
    Scene::of(&["generic"], READ_TIMEOUT, 512, replies).await
}

/// What a client gets that asks for the file, and after how long.
async fn get(scene: &Scene) -> (Result<Got, Fault>, Duration) {
    scene.answer(scene.asking("generic", "file.bin")).await
}

fn reply(status: u16, length: u64) -> ScriptedReply {
    ScriptedReply::status(status)
        .header("content-length", &length.to_string())
        .header("etag", "\"strong\"")
}

#[tokio::test]
async fn hazard_a5_a_transfer_may_take_as_long_as_it_likes_while_something_comes() {
    let drip = (0..40).fold(reply(200, 40), |reply, _| reply.pause(ALMOST).chunk("x"));
    let scene = scene([drip]).await;
    let (got, elapsed) = get(&scene).await;
    assert_eq!(got.unwrap().text(), "x".repeat(40));
    assert!(elapsed >= ALMOST * 40, "{elapsed:?}");
    assert_eq!(scene.upstream.requests().len(), 1, "not taken up again");
}

#[tokio::test]
async fn hazard_a5_a_silent_transfer_is_taken_up_where_it_stopped() {
    let never = Arc::new(Notify::new());
    let silent = reply(200, 10).chunk("abcde").wait(&never);
    let rest = reply(206, 5)
        .header("content-range", "bytes 5-9/10")
        .chunk("fghij");
    let scene = scene([silent, rest]).await;
    let (got, elapsed) = get(&scene).await;
    assert_eq!(got.unwrap().text(), "abcdefghij");
    assert!(elapsed >= READ_TIMEOUT, "{elapsed:?}");
    let asked: Vec<Option<u64>> = scene
        .upstream
        .requests()
        .iter()
        .map(|request| request.resume.as_ref().map(|resume| resume.offset))
        .collect();
    assert_eq!(asked, [None, Some(5)]);
}

#[tokio::test]
async fn hazard_a5_an_upstream_that_stays_silent_is_a_time_out_and_leaves_nothing() {
    let never = Arc::new(Notify::new());
    let silent = || ScriptedReply::status(200).header("content-length", "10");
    let scene = scene((0..8).map(|_| silent().chunk("abc").wait(&never))).await;
    let (got, elapsed) = get(&scene).await;
    let fault = got.unwrap_err();
    assert_eq!(fault.code, "upstream_timeout", "{fault:?}");
    assert!(elapsed >= READ_TIMEOUT, "{elapsed:?}");
    let key = SourceKey {
        repository: RepositoryName::parse("generic").unwrap(),
        path: "file.bin".into(),
        variant: String::new().into(),
    };
    assert_eq!(scene.metadata.record(&key).await.unwrap(), None);
}

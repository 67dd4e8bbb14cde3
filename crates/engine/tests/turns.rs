//! Who waits for a turn, and who gives one up: an engine over a scripted upstream with one place for downloads, while tokio's time is
//! moved by hand.
#![expect(
    clippy::unwrap_used,
    reason = "a test program: what it cannot have, it cannot judge"
)]

#[path = "support/mod.rs"]
mod support;

use std::sync::Arc;
use std::time::Duration;

use larder_core::*;
use larder_upstream::ScriptedReply;
use support::{Scene, some_time};
use tokio::sync::Notify;

/// Two generic repositories, `slow` and `other`, each with an upstream of its own, and one place for all downloads.
async fn one_place(replies: impl IntoIterator<Item = ScriptedReply>) -> Scene {
    Scene::of(&["slow", "other"], Duration::from_mins(60), 1, replies).await
}

/// A file whose head comes, and nothing else.
fn endless(never: &Arc<Notify>) -> ScriptedReply {
    ScriptedReply::status(200)
        .header("content-length", "4000000")
        .chunk("x")
        .wait(never)
}

fn file(text: &'static str) -> ScriptedReply {
    ScriptedReply::ok(text).header("content-length", &text.len().to_string())
}

#[tokio::test]
async fn who_waits_too_long_for_a_turn_is_told_when_to_come_back() {
    let scene = one_place([endless(&Arc::new(Notify::new())), file("late")]).await;
    let _reading = scene.client("slow", "endless.bin").await;
    let waiting = scene.client("other", "file.bin").await;
    let (answer, elapsed) = scene.answer(waiting).await;
    let fault = answer.unwrap_err();
    assert_eq!(
        (fault.kind, fault.code),
        (FaultKind::Unavailable, ErrorCode::Busy),
        "{fault:?}"
    );
    assert!(fault.retry_after.is_some() && fault.rule.as_deref() == Some("limits"));
    assert_eq!(fault.repository.as_deref(), Some("other"));
    assert!(
        elapsed > Duration::from_secs(28) && elapsed < Duration::from_secs(32),
        "{elapsed:?}"
    );
    assert_eq!(scene.asked().len(), 1, "{:?}", scene.asked());
    let used = scene.downloads();
    assert_eq!((used.held, used.waiting, used.refused), (1, 0, 1));
}

#[tokio::test]
async fn who_waits_too_long_gets_the_copy_that_is_held() {
    let scene = one_place([
        file("held"),
        endless(&Arc::new(Notify::new())),
        file("late"),
    ])
    .await;
    let client = scene.client("other", "folder/").await;
    assert_eq!(scene.answer(client).await.0.unwrap().text(), "held");
    some_time(Duration::from_secs(1)).await;
    let _reading = scene.client("slow", "endless.bin").await;
    // A folder is asked for again once it is old.
    scene.clock.advance(Duration::from_hours(48));
    let waiting = scene.client("other", "folder/").await;
    let got = scene.answer(waiting).await.0.unwrap();
    assert_eq!(got.text(), "held");
    assert_eq!(scene.asked().len(), 2, "{:?}", scene.asked());
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_is_not_begun() {
    let end = Arc::new(Notify::new());
    let first = ScriptedReply::status(200)
        .header("content-length", "2")
        .chunk("x")
        .wait(&end)
        .chunk("y");
    let scene = one_place([first, file("wanted")]).await;
    let reading = scene.client("slow", "first.bin").await;
    let given_up = scene.client("other", "given-up.bin").await;
    let waiting = scene.client("other", "wanted.bin").await;
    assert_eq!(scene.downloads().waiting, 2);
    given_up.abort();
    some_time(Duration::from_millis(200)).await;
    assert_eq!(scene.downloads().waiting, 1);
    end.notify_one();
    assert_eq!(scene.answer(reading).await.0.unwrap().text(), "xy");
    assert_eq!(scene.answer(waiting).await.0.unwrap().text(), "wanted");
    assert!(
        scene.asked().iter().all(|url| !url.contains("given-up")),
        "{:?}",
        scene.asked()
    );
}

#[tokio::test]
async fn a_slow_download_that_nobody_reads_makes_room_for_others() {
    let scene = one_place([endless(&Arc::new(Notify::new())), file("soon")]).await;
    let reading = scene.client("slow", "endless.bin").await;
    some_time(Duration::from_secs(5)).await;
    reading.abort();
    some_time(Duration::from_secs(5)).await;
    assert_eq!(scene.downloads().held, 1, "nobody else wants the place");
    let waiting = scene.client("other", "file.bin").await;
    let (answer, elapsed) = scene.answer(waiting).await;
    assert_eq!(answer.unwrap().text(), "soon");
    assert!(elapsed < Duration::from_secs(3), "{elapsed:?}");
}

#[tokio::test]
async fn a_slow_download_that_somebody_reads_keeps_its_place() {
    let scene = one_place([endless(&Arc::new(Notify::new()))]).await;
    let reading = scene.client("slow", "endless.bin").await;
    let second = scene.client("slow", "endless.bin").await;
    second.abort();
    let waiting = scene.client("other", "file.bin").await;
    some_time(Duration::from_secs(10)).await;
    assert!(!waiting.is_finished() && !reading.is_finished());
    assert_eq!(scene.downloads().held, 1);
}

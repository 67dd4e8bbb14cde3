//! Who waits for a turn, and who gives one up: an engine over a scripted upstream with one place for downloads, while tokio's time is
//! moved by hand.

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

/// Repositories of upstreams that bring nothing, and one that is fine.
const NAMES: [&str; 5] = ["slow0", "slow1", "slow2", "slow3", "other"];
/// What each of them gets of 16 places, one after the other: all, between them.
const TAKEN: [usize; 4] = [11, 3, 1, 1];

#[tokio::test]
async fn where_many_are_slow_who_has_more_than_its_part_gives_way_to_who_has_nothing() {
    let never = Arc::new(Notify::new());
    let replies = (0..16).map(|_| endless(&never)).chain([file("soon")]);
    let scene = Scene::of(&NAMES, Duration::from_mins(60), 16, replies).await;
    let mut readers = Vec::new();
    for (name, places) in NAMES.into_iter().zip(TAKEN) {
        for n in 0..places {
            let path: &str = format!("{n}.bin").leak();
            readers.push((name, path, scene.asking(name, path)));
        }
        some_time(Duration::from_millis(500)).await;
    }
    some_time(Duration::from_secs(10)).await;
    assert_eq!((scene.downloads().held, scene.downloads().waiting), (16, 0));
    assert!(readers.iter().all(|(.., reader)| !reader.is_finished()));

    let (answer, elapsed) = scene.answer(scene.asking("other", "file.bin")).await;
    assert_eq!(answer.unwrap().text(), "soon");
    assert!(elapsed < Duration::from_secs(3), "{elapsed:?}");
    assert_eq!(scene.downloads().yielded, 1, "as many as were needed");
    // The one that reads it is told, and nothing of it is kept.
    let (ended, going_on): (Vec<_>, Vec<_>) = readers
        .into_iter()
        .partition(|(.., reader)| reader.is_finished());
    assert_eq!((ended.len(), going_on.len()), (1, 15));
    for (name, path, reader) in ended {
        assert_eq!(name, "slow0");
        assert!(reader.await.unwrap().unwrap().body.is_err());
        let key = SourceKey {
            repository: RepositoryName::parse(name).unwrap(),
            path: path.into(),
            variant: "".into(),
        };
        assert_eq!(scene.metadata.record(&key).await.unwrap(), None);
        // It can be had later, when its upstream is well.
        scene.upstream.push(file("whole"));
        for (.., reader) in &going_on {
            reader.abort();
        }
        let (answer, _) = scene.answer(scene.asking(name, path)).await;
        assert_eq!(answer.unwrap().text(), "whole");
    }
}

#[tokio::test]
async fn where_many_do_not_answer_heads_one_gives_way_to_who_has_nothing() {
    let never = Arc::new(Notify::new());
    let silent = || ScriptedReply::ok("x").head_behind(&never);
    let replies = (0..16).map(|_| silent()).chain([file("soon")]);
    // Of places for HEADs there are 16 at least.
    let scene = Scene::of(&NAMES, Duration::from_mins(60), 1, replies).await;
    let head = |name: &'static str, n: usize| {
        let engine = Arc::clone(&scene.engine);
        let asking = async move {
            let path = format!("{n}.bin");
            support::ask(&engine, http::Method::HEAD, name, &path, &[]).await
        };
        tokio::spawn(asking)
    };
    let mut waiting = Vec::new();
    for (name, places) in NAMES.into_iter().zip(TAKEN) {
        waiting.extend((0..places).map(|n| head(name, n)));
        some_time(Duration::from_millis(500)).await;
    }
    some_time(Duration::from_secs(10)).await;
    assert!(waiting.iter().all(|asking| !asking.is_finished()));
    let (answer, elapsed) = scene.answer(head("other", 0)).await;
    assert_eq!(answer.unwrap().answer.representation.length, Some(4));
    assert!(elapsed < Duration::from_secs(3), "{elapsed:?}");
    let ended: Vec<_> = waiting
        .into_iter()
        .filter(tokio::task::JoinHandle::is_finished)
        .collect();
    assert_eq!(ended.len(), 1);
    for asking in ended {
        let fault = asking.await.unwrap().unwrap_err();
        assert_eq!(
            (fault.kind, fault.code),
            (FaultKind::Unavailable, ErrorCode::Busy)
        );
        assert!(fault.retry_after.is_some() && fault.repository.as_deref() == Some("slow0"));
    }
}

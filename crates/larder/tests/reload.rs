//! Reloading (contract, section 2): on SIGHUP and on change, a bad file leaves the old configuration in force.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests may fail loudly"
)]
#![expect(
    dead_code,
    reason = "the common helpers are used by several test files, each in part"
)]

mod common;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use common::{directory, load_text, sources};
use larder::config::{Settings, load, watch};
use tokio::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(20);

fn names(settings: &Settings) -> Vec<String> {
    settings
        .repositories
        .iter()
        .map(|r| r.name.to_string())
        .collect()
}

fn write(path: &Path, names: &[&str]) {
    let mut text = String::from("remotes:\n");
    for name in names {
        writeln!(text, "  {name}: {{base_url: 'http://{name}.example'}}").unwrap();
    }
    std::fs::write(path, text).unwrap();
}

async fn next(applied: &mut mpsc::UnboundedReceiver<Settings>) -> Vec<String> {
    names(
        &tokio::time::timeout(PATIENCE, applied.recv())
            .await
            .expect("reloads in time")
            .expect("goes on watching"),
    )
}

#[tokio::test]
async fn changed_files_and_sighup_reload_and_bad_files_do_not() {
    let directory = directory(&[("a.yaml", "remotes: {}\n")]);
    let (a, b) = (
        directory.path().join("a.yaml"),
        directory.path().join("b.yml"),
    );
    write(&a, &["one"]);
    let sources = sources(directory.path());
    let first = load(&sources).unwrap();
    assert_eq!(names(&first), ["one"]);
    let (send, mut applied) = mpsc::unbounded_channel();
    let watching = tokio::spawn(watch(sources, first, move |loaded| {
        if let Ok(settings) = loaded {
            send.send(settings).unwrap();
        }
    }));

    // Waits until the signal handler is there: before, SIGHUP would end this process.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let pid = std::process::id().to_string();
    assert!(
        std::process::Command::new("kill")
            .args(["-HUP", &pid])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(
        next(&mut applied).await,
        ["one"],
        "SIGHUP reloads even without a change"
    );

    write(&b, &["two", "three"]);
    assert_eq!(
        next(&mut applied).await,
        ["one", "three", "two"],
        "a new file in the directory"
    );

    std::fs::write(&b, "remotes: [broken").unwrap();
    let nothing = tokio::time::timeout(Duration::from_secs(5), applied.recv()).await;
    assert!(nothing.is_err(), "the old configuration stays in force");

    write(&b, &["four"]);
    assert_eq!(
        next(&mut applied).await,
        ["four", "one"],
        "and the next good file is read"
    );

    std::fs::remove_file(&b).unwrap();
    assert_eq!(next(&mut applied).await, ["one"]);
    watching.abort();
}

#[test]
fn drain_is_a_whole_number_of_seconds_up_to_an_hour() {
    let drain = |text: &str| {
        load_text(&format!("{text}remotes: {{}}\n"))
            .map(|settings| settings.drain.as_secs())
            .ok()
    };
    assert_eq!(
        (drain(""), drain("drain: 0\n"), drain("drain: 3600\n")),
        (Some(5), Some(0), Some(3_600))
    );
    for bad in ["-1", "3601", "5s", "1.5", "soon"] {
        assert_eq!(drain(&format!("drain: {bad}\n")), None, "{bad}");
    }
}

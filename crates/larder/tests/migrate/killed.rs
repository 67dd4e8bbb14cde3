//! kill -9 while it is copied.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use crate::installation::{BACKENDS, EMBEDDED, Installation, check, contents};
use crate::support::client::client;

/// Files beside those of the installation, so that there is something to be in the middle of.
const MORE: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn hazard_l1_a_copy_that_is_killed_again_and_again_goes_on_and_is_whole() {
    let mut all = Installation::new().await;
    let data = all.directory("data");
    let mut larder = all.setup(&data, EMBEDDED).start().await;
    let served = all.fill(&larder).await;
    let put = |number: usize| {
        let url = larder.artifact("own", &format!("more/{number}"));
        async move {
            let sent = client()
                .put(url)
                .body(format!("body {number}"))
                .send()
                .await;
            assert_eq!(sent.expect("an answer").status(), 201);
        }
    };
    for number in 0..MORE {
        put(number).await;
    }
    assert!(larder.terminate().success());
    let before = contents(&data);
    all.stop_upstreams().await;

    let there = kill_until_done(&all, &data, "backends").await;
    assert_eq!(contents(&data), before, "the source is as it was");
    let target = all.directory("target");
    let mut larder = all.setup(&target, BACKENDS).start().await;
    check(&larder, &served).await;
    check_more(&larder).await;
    assert!(larder.terminate().success());

    let back = all.directory("back");
    let and_back = kill_until_done(&all, &back, "embedded").await;
    let larder = all.setup(&back, EMBEDDED).start().await;
    check(&larder, &served).await;
    check_more(&larder).await;
    eprintln!("killed {there} times on the way there, {and_back} times on the way back");
}

async fn check_more(larder: &crate::support::TestLarder) {
    for number in 0..MORE {
        let answer = crate::support::get(&larder.artifact("own", &format!("more/{number}"))).await;
        assert_eq!(answer.text(), format!("body {number}"));
    }
}

/// Kills it after longer and longer times, until it comes to its end. Gives how often it was killed.
async fn kill_until_done(all: &Installation, directory: &std::path::Path, to: &str) -> u32 {
    let mut kills = 0;
    for attempt in 1_u32.. {
        // Later and later, and at other moments of a step each time; soon enough at first for a quick machine.
        let life = match attempt {
            1..=4 => attempt * 40,
            _ => (attempt - 2) * 83,
        };
        let life = Duration::from_millis(u64::from(life));
        let mut child = all.begin(directory, BACKENDS, &["--to", to, "--yes"]);
        tokio::time::sleep(life).await;
        let _ = child.kill();
        let status = child.wait().expect("its end");
        if status.signal() == Some(9) {
            kills += 1;
            assert!(attempt < 300, "it does not come to its end");
        } else {
            assert_eq!(status.code(), Some(0), "{}", all.said());
            break;
        }
    }
    assert!(kills > 2, "it was over too soon to be killed: {kills}");
    let done = all.migrate(directory, BACKENDS, &["--to", to, "--yes", "--json"]);
    assert_eq!(done.ended(0).json()["blobs"]["copied"], 0);
    kills
}

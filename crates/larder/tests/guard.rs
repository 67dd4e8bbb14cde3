//! What keeps a data directory from being mixed up: one process at a time, copies of one upstream at a time, and a database that is
//! what it was.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests may fail loudly"
)]

mod support;

use larder_testkit::{Origin, Resource};
use support::{Setup, TestLarder, get, send};

fn config(origins: &[&Origin], more: &str) -> String {
    let urls: Vec<String> = origins
        .iter()
        .map(|origin| format!("'{}'", origin.url("/")))
        .collect();
    format!(
        "remotes:\n  files:\n    base_url: [{}]\n    package: generic\n{more}",
        urls.join(", ")
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_in_one_data_directory_is_refused_with_the_firsts_pid() {
    let mut first = Setup::without_config().start().await;
    let data = first.data_dir().display().to_string();
    let (status, said) = Setup::without_config()
        .argument("--data-dir")
        .argument(&data)
        .run_to_end();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(
        said.contains(&format!("process {}", first.pid()))
            && said.contains("in use by another larder"),
        "{said}"
    );
    assert_eq!(
        send("GET", &first.url("/live"), &[]).await.status,
        200,
        "the first goes on"
    );
    // Neither a crash nor an orderly end leaves a refusal behind.
    first.kill9();
    first.restart().await;
    assert!(first.terminate().success());
    first.restart().await;
}

/// `larder check` asks nothing of the data directory.
#[tokio::test(flavor = "multi_thread")]
async fn checking_a_configuration_needs_no_lock() {
    let larder = Setup::without_config().start().await;
    let checked = std::process::Command::new(env!("CARGO_BIN_EXE_larder"))
        .args(["check", "--data-dir"])
        .arg(larder.data_dir())
        .env_clear()
        .output()
        .unwrap();
    assert!(checked.status.success(), "{checked:?}");
}

async fn body(larder: &TestLarder, path: &str) -> (String, String) {
    let answer = get(&larder.artifact("files", path)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    (answer.text(), answer.source().to_owned())
}

async fn two_servers() -> (Origin, Origin) {
    let (old, new) = (Origin::start().await, Origin::start().await);
    for (origin, text) in [(&old, "of the old server"), (&new, "of the new server")] {
        for path in ["/a", "/b"] {
            origin.put(path, Resource::new(text));
        }
    }
    (old, new)
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_of_another_server_are_not_served_after_a_restart() {
    let (old, new) = two_servers().await;
    let mut larder = TestLarder::start(&config(&[&old], "")).await;
    for path in ["a", "b"] {
        larder.hit(&larder.artifact("files", path)).await;
    }
    assert!(larder.terminate().success());
    larder.write_config(&config(&[&new], ""));
    larder.restart().await;
    assert_eq!(
        body(&larder, "a").await,
        ("of the new server".to_owned(), "remote".to_owned())
    );
    larder.logged("leads to another server").await;
    let log = larder.log();
    let line = log
        .lines()
        .find(|line| line.contains("leads to another server"))
        .unwrap();
    assert!(
        line.contains("files") && line.contains('2') && line.contains("/cache/flush?remote=files"),
        "{line}"
    );
    // Back again: its copies are still its copies.
    assert!(larder.terminate().success());
    larder.write_config(&config(&[&old], ""));
    larder.restart().await;
    old.reset_log();
    assert_eq!(
        body(&larder, "b").await,
        ("of the old server".to_owned(), "cache".to_owned())
    );
    assert_eq!(old.requests(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_of_another_server_are_not_served_after_a_reload() {
    let (old, new) = two_servers().await;
    let mut larder = TestLarder::start(&config(&[&old], "")).await;
    // One is asked for again, and replaced, perhaps before anybody counts; the other one stays what it was.
    for path in ["a", "b"] {
        larder.hit(&larder.artifact("files", path)).await;
    }
    larder.write_config(&config(&[&new], ""));
    larder.signal(rustix::process::Signal::HUP);
    larder.logged("the new configuration is in force").await;
    assert_eq!(
        body(&larder, "a").await,
        ("of the new server".to_owned(), "remote".to_owned())
    );
    larder.logged("leads to another server").await;
    assert_eq!(
        send("PUT", &larder.url("/cache/flush?remote=files"), &[])
            .await
            .status,
        200
    );
    assert!(larder.terminate().success());
    larder.restart().await;
    assert!(
        !larder.log().contains("leads to another server"),
        "the flush took the old copies along"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_come_and_go_without_making_copies_void() {
    let (one, two) = two_servers().await;
    let mut larder = TestLarder::start(&config(&[&one], "")).await;
    larder.hit(&larder.artifact("files", "a")).await;
    for mirrors in [&[&one, &two][..], &[&two], &[&two, &one]] {
        assert!(larder.terminate().success());
        larder.write_config(&config(mirrors, ""));
        larder.restart().await;
        assert_eq!(
            body(&larder, "a").await,
            ("of the old server".to_owned(), "cache".to_owned())
        );
    }
}

/// Whatever became of the database file while larder was stopped: it starts, says so, and serves what the upstream has.
#[tokio::test(flavor = "multi_thread")]
async fn hazard_w12_a_damaged_database_is_no_outage() {
    let origin = Origin::start().await;
    for n in 0..40 {
        origin.put(
            &format!("/f{n}"),
            Resource::new(format!("the bytes of {n}")),
        );
    }
    let mut larder = Setup::new(&config(&[&origin], "")).embedded().start().await;
    let database = larder.data_dir().join("larder.sqlite");
    for damage in ["header", "every tenth byte", "cut", "text", "empty page"] {
        for n in 0..40 {
            assert_eq!(
                body(&larder, &format!("f{n}")).await.0,
                format!("the bytes of {n}"),
                "before {damage}"
            );
        }
        assert!(larder.terminate().success());
        let mut bytes = std::fs::read(&database).unwrap();
        match damage {
            "header" => bytes[..32].fill(0),
            "every tenth byte" => bytes
                .iter_mut()
                .skip(100)
                .step_by(10)
                .for_each(|byte| *byte ^= 0x10),
            "cut" => bytes.truncate(bytes.len() / 2),
            "text" => bytes = b"this is no database ".repeat(500),
            _ => {
                // Where a record says what its source is.
                let record = bytes
                    .windows(16)
                    .position(|window| window == b"http://127.0.0.1")
                    .unwrap();
                bytes[record / 4096 * 4096..][..4096].fill(0);
            }
        }
        std::fs::write(&database, &bytes).unwrap();
        larder.restart().await;
        for n in 0..40 {
            assert_eq!(
                body(&larder, &format!("f{n}")).await.0,
                format!("the bytes of {n}"),
                "after {damage}"
            );
        }
        let told = larder.metric("larder_metadata_put_aside_total", "").await
            + larder
                .metric("larder_metadata_damaged_rows_total", "")
                .await;
        assert!(told > 0.0, "{damage}: the metrics say so");
        assert!(larder.log().contains("ERROR"), "{damage}: the log says so");
    }
}

/// Damage while larder runs: the program goes on, and an operator sees it in all three places.
#[tokio::test(flavor = "multi_thread")]
async fn hazard_w12_damage_while_running_is_seen_and_got_over() {
    let origin = Origin::start().await;
    for n in 0..400 {
        origin.put(
            &format!("/f{n}"),
            Resource::new(format!("the bytes of {n}")),
        );
    }
    let mut larder = Setup::new(&config(&[&origin], "")).embedded().start().await;
    for n in 0..400 {
        assert_eq!(
            body(&larder, &format!("f{n}")).await.0,
            format!("the bytes of {n}")
        );
    }
    // So that nothing is in memory.
    assert!(larder.terminate().success());
    larder.restart().await;
    let database = larder.data_dir().join("larder.sqlite");
    let file = std::fs::File::options()
        .write(true)
        .open(&database)
        .unwrap();
    let length = file.metadata().unwrap().len();
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![0xa5; (length - 8192) as usize], 8192)
        .unwrap();
    for n in 0..400 {
        assert_eq!(
            body(&larder, &format!("f{n}")).await.0,
            format!("the bytes of {n}")
        );
    }
    larder.logged("put aside").await;
    let until = std::time::Instant::now() + support::PATIENCE;
    while larder.metric("larder_metadata_put_aside_total", "").await < 1.0 {
        assert!(std::time::Instant::now() < until, "the metrics say nothing");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    while get(&larder.url("/health")).await.json()["backends"]["metadata"]["detail"]
        .as_str()
        .is_none()
    {
        assert!(std::time::Instant::now() < until, "/health says nothing");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(
        get(&larder.url("/health")).await.status,
        200,
        "it can serve"
    );
    // What is fetched now is kept in the new one.
    origin.put("/later", Resource::new("later"));
    larder.hit(&larder.artifact("files", "later")).await;
    assert!(larder.terminate().success());
    larder.restart().await;
    assert_eq!(
        body(&larder, "later").await,
        ("later".to_owned(), "cache".to_owned())
    );
}

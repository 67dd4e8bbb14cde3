//! Zero configuration (contract, section 2): larder starts with a useful set of remotes, quickly, and says so.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests may fail loudly"
)]

mod support;

use std::time::Duration;

use rustix::process::Signal;
use support::packages::{File, npm, one_of_each};
use support::{Setup, TestLarder, get, send};

/// In a development build on a busy machine.
const QUICK: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn without_configuration_the_built_in_repositories_are_there() {
    let larder = Setup::without_config().start().await;
    let root = get(&larder.url("/")).await;
    assert_eq!(
        (root.status, root.header("content-type")),
        (200, "application/json")
    );
    let listed = root.json();
    assert_eq!(listed["name"], "larder");
    assert_eq!(listed["version"], env!("CARGO_PKG_VERSION"));
    let package = |name: &str| {
        listed["remotes"][name]["package"]
            .as_str()
            .map(str::to_owned)
    };
    for (name, want) in [
        ("pypi", "pypi"),
        ("npm", "npm"),
        ("github", "generic"),
        ("dockerhub", "docker"),
        ("ghcr", "docker"),
        ("quay", "docker"),
        ("alpine", "alpine"),
        ("almalinux", "rpm"),
    ] {
        assert_eq!(package(name).as_deref(), Some(want), "{name}");
        assert_eq!(listed["remotes"][name]["type"], "remote", "{name}");
        assert_eq!(
            listed["remotes"][name]["url"],
            larder.artifact(name, "").trim_end_matches('/'),
            "{name}"
        );
        assert!(
            listed["remotes"][name]["description"]
                .as_str()
                .is_some_and(|text| !text.is_empty()),
            "{name}"
        );
    }
    let remotes = listed["remotes"].as_object().expect("an object");
    assert!(
        remotes
            .values()
            .filter(|remote| remote["package"] == "helm")
            .count()
            >= 2,
        "two Helm repositories"
    );
    for path in [
        "/live",
        "/ready",
        "/health",
        "/config",
        "/metrics",
        "/api/openapi.json",
    ] {
        assert_eq!(get(&larder.url(path)).await.status, 200, "{path}");
    }
    let config = get(&larder.url("/config")).await.json();
    assert!(config["remotes"]["pypi"].is_object(), "{config}");
    // What is not built answers so; nobody is asked for it.
    assert_eq!(get(&larder.url("/v2/")).await.text(), "{}");
    // What the built-in rules do not admit never reaches an upstream.
    for name in ["github", "alpine"] {
        let denied = get(&larder.artifact(name, "etc/passwd")).await;
        assert_eq!(denied.status, 403, "{}", denied.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_answer_comes_within_a_second() {
    let mut larder = Setup::without_config().start().await;
    let mut times = Vec::new();
    for _ in 0..5 {
        assert!(larder.terminate().success());
        times.push(larder.restart().await);
    }
    eprintln!("start to first answer: {times:?}");
    assert!(times.iter().all(|time| *time < QUICK), "{times:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_and_a_start_lose_nothing() {
    let origin = larder_testkit::Origin::start().await;
    let files = [File::generated("pantry", "1.0.0", 70_000, 1)];
    let paths = npm(&origin, "pantry", &files);
    let mut larder = TestLarder::start(&one_of_each(&origin, "")).await;
    for path in ["pantry", &paths[0]] {
        assert_eq!(
            get(&larder.artifact("npm", path)).await.status,
            200,
            "{path}"
        );
    }
    assert!(larder.terminate().success());
    larder.restart().await;
    origin.reset_log();
    let tarball = get(&larder.artifact("npm", &paths[0])).await;
    assert_eq!((tarball.status, tarball.source()), (200, "cache"));
    assert!(tarball.body == files[0].bytes(), "other bytes");
    assert_eq!(
        get(&larder.artifact("npm", "pantry")).await.source(),
        "cache"
    );
    assert_eq!(origin.requests(), [], "nobody was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_do_not_share_a_port() {
    let first = Setup::without_config().start().await;
    let address = first.address().to_string();
    let (status, said) = Setup::without_config()
        .argument("--listen")
        .argument(&address)
        .run_to_end();
    assert!(!status.success());
    assert!(said.contains(&address), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn backends_that_are_not_built_are_refused_and_never_replaced() {
    for variable in ["REDIS_URL", "MINIO_ENDPOINT"] {
        let (status, said) = Setup::without_config()
            .env(variable, "backend.example:1")
            .run_to_end();
        assert_eq!(status.code(), Some(1), "{variable}");
        assert!(said.contains(variable), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupt_ends_it_like_terminate() {
    let mut larder = Setup::without_config().start().await;
    assert_eq!(send("GET", &larder.url("/live"), &[]).await.status, 200);
    larder.signal(Signal::INT);
    assert_eq!(larder.wait().code(), Some(0));
}

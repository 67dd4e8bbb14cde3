//! What is held, as people look around in it: folders, searches, single paths, packages and images (contract, section 9). What the pages
//! show is read in their JSON form; what they look like in a browser is shown by tests/e2e/ui.py.
#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "helpers of tests may fail loudly"
)]

#[path = "../support/mod.rs"]
mod support;

mod files;
mod packages;

use std::time::{Duration, Instant};

use larder_testkit::{Origin, Resource};
use serde_json::Value;
use support::{Answer, PATIENCE, TestLarder, get, send};

const TOKEN: &str = "a-token-for-tests";

/// A page's JSON form.
async fn json(larder: &TestLarder, path: &str) -> Value {
    let answer = send("GET", &larder.url(path), &[("accept", "application/json")]).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

/// A page as a browser asks for it.
async fn page(larder: &TestLarder, path: &str) -> Answer {
    send("GET", &larder.url(path), &[("accept", "text/html")]).await
}

/// What a list has under this name.
fn each<'v>(list: &'v Value, name: &str) -> Vec<&'v str> {
    let list = list.as_array().expect("a list");
    list.iter()
        .map(|one| one[name].as_str().unwrap_or_default())
        .collect()
}

/// Asks for a file as a client does, and waits until pages show it: it is sent before it is written down.
async fn fetch(larder: &TestLarder, repository: &str, path: &str) {
    let answer = get(&larder.artifact(repository, path)).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    shown(larder, repository, path).await;
}

/// Waits until a path has a page.
async fn shown(larder: &TestLarder, repository: &str, path: &str) {
    let address = format!("ui/repositories/{repository}/artifact/{path}");
    let until = Instant::now() + PATIENCE;
    while page(larder, &address).await.status != 200 {
        assert!(Instant::now() < until, "{path} is not shown");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

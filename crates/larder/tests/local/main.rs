//! Local generic repositories, asked of the real program over loopback: what is uploaded is what is served, whole, to everybody, and
//! stays.
#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "helpers of tests may fail loudly"
)]

#[path = "../support/mod.rs"]
mod support;

mod bulk;
mod crash;
mod dates;
mod disk;
mod files;
mod folders;
mod operate;
mod races;
mod refused;
mod secure;
mod sidecars;

use support::client::client;
use support::{Answer, TestLarder, send};

/// A repository `files` as it is by default, `fixed` that does not allow overwriting, and `small` with its bounds.
const CONFIG: &str = "remotes:
  files: { type: local }
  fixed: { type: local, allow_overwrite: false, description: 'Releases' }
  small: { type: local, max_size: 1000, quota: 1500 }
  ruled: { type: local, allow_patterns: ['^pub/'], deny_patterns: ['\\.exe$'] }
";

async fn start() -> TestLarder {
    TestLarder::start(CONFIG).await
}

/// PUT with a body of known length.
async fn put(url: &str, body: impl Into<reqwest::Body>, headers: &[(&str, &str)]) -> Answer {
    try_put(&client(), url, body, headers)
        .await
        .unwrap_or_else(|error| panic!("PUT {url}: {error:?}"))
}

async fn try_put(
    client: &reqwest::Client,
    url: &str,
    body: impl Into<reqwest::Body>,
    headers: &[(&str, &str)],
) -> reqwest::Result<Answer> {
    let mut request = client.put(url).body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Ok(Answer {
        status,
        headers,
        body: response.bytes().await?.to_vec(),
    })
}

async fn delete(url: &str) -> Answer {
    send("DELETE", url, &[]).await
}

/// The files below `blobs`, those in the spool folder included.
fn stored(larder: &TestLarder) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![larder.blob_dir()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found
}

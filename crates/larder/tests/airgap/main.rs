//! `larder export` and `larder import`, from one running larder to another that has no upstream: what was served there is served here,
//! and of an archive that is not what was exported nothing comes in.
#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "helpers of tests may fail loudly"
)]

#[path = "../support/mod.rs"]
mod support;

mod contradicted;
mod damaged;
mod elsewhere;
mod killed;
mod many;
mod newer;
mod refused;
mod rpm;
mod stopped;
mod uploaded;
mod whole;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use support::client::client;
use support::{TestLarder, get};

/// What a command has come to.
#[derive(Debug)]
struct Done {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Done {
    fn of(output: &Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// With this exit status.
    fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.out, self.err);
        self
    }

    /// What it printed with `--json`.
    fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {}\n{}", self.out, self.err))
    }
}

/// A command that asks this larder.
fn command(larder: &TestLarder, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    command
        .args(arguments)
        .env_clear()
        .env("LARDER_URL", larder.url(""))
        .stdin(Stdio::null());
    command
}

/// Runs it to its end, while the test's own servers go on.
async fn run(larder: &TestLarder, arguments: &[&str]) -> Done {
    let mut command = command(larder, arguments);
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    Done::of(&output.expect("a task").expect("the larder program"))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of plain characters")
}

/// How many files there are below a directory.
fn files_below(directory: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return 0;
    };
    entries
        .map(|entry| entry.expect("an entry").path())
        .map(|path| if path.is_dir() { files_below(&path) } else { 1 })
        .sum()
}

async fn put(larder: &TestLarder, repository: &str, path: &str, body: impl Into<reqwest::Body>) {
    let request = client().put(larder.artifact(repository, path)).body(body);
    let answer = request
        .header("content-type", "text/x-larder")
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 201, "{repository}/{path}");
}

/// The paths that a larder holds, with their repositories.
async fn listed(larder: &TestLarder) -> Vec<(String, String)> {
    let page = get(&larder.url("api/v1/artifacts?limit=1000")).await.text();
    let page: Value = serde_json::from_str(&page).expect("JSON");
    let all = page["artifacts"].as_array().expect("artifacts");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let mut all: Vec<_> = all
        .iter()
        .map(|one| (text(&one["repository"]), text(&one["path"])))
        .collect();
    all.sort();
    all
}

//! The command line against the real program: what its commands print, write and end with.
#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "helpers of tests may fail loudly"
)]

#[path = "../support/mod.rs"]
mod support;

mod ask;
mod doctor;
mod files;
mod pages;
mod programs;
mod stopped;
mod warm;
mod warm_virtual;

use std::path::Path;
use std::process::{Command, Output, Stdio};

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

    /// It has done what it was asked for.
    fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    /// It ended with this code, printed nothing, and said all of this.
    fn refused(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        for word in words {
            assert!(self.err.contains(word), "{word:?} is not said: {self:?}");
        }
        assert!(self.out.is_empty(), "{self:?}");
    }
}

/// `larder` in a directory, with nothing in its environment but this.
fn larder(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    command
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .current_dir(directory)
        .stdin(Stdio::null());
    command
}

/// Runs it to its end, while the test's own servers go on.
async fn run(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Done {
    let mut command = larder(directory, arguments, environment);
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    Done::of(&output.expect("a task").expect("the larder program"))
}

/// The names of what is in a directory.
fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        let name = entry.expect("an entry").file_name();
        name.to_string_lossy().into_owned()
    };
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}

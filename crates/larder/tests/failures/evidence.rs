//! What can be read after a failure, and what must be found there.

use serde_json::Value;

use crate::support::client::{builder, try_send};
use crate::support::{TestLarder, raw};

/// What one place must say of a failure.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cell {
    /// All of these.
    Says(&'static [&'static str]),
    /// Nothing: why that cannot be otherwise.
    Cannot(&'static str),
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) failure: &'static str,
    /// The body's `error`.
    pub(crate) body: Cell,
    /// The reason phrase of HTTP/1.1.
    pub(crate) reason: Cell,
    /// One line of the log, as JSON.
    pub(crate) log: Cell,
    /// The page `/health`.
    pub(crate) health: Cell,
    /// One sample of `/metrics`, with its value.
    pub(crate) metrics: Cell,
}

/// An answer as its bytes stand on the connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wire {
    pub(crate) status: u16,
    pub(crate) reason: String,
    pub(crate) body: String,
}

/// Asks with HTTP/1.1 and reads the status line as it stands.
pub(crate) async fn ask(larder: &TestLarder, target: &str) -> Wire {
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: {}\r\nUser-Agent: pip/26.2\r\nConnection: close\r\n\r\n",
        larder.address()
    );
    let answer = raw(larder.address(), request.as_bytes()).await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let line = head
        .lines()
        .next()
        .expect("a status line")
        .strip_prefix("HTTP/1.1 ")
        .expect("HTTP/1.1");
    let (status, reason) = line.split_once(' ').expect("a status and a reason phrase");
    Wire {
        status: status.parse().expect("a status"),
        reason: reason.to_owned(),
        body: body.to_owned(),
    }
}

impl Row {
    /// Compares the row with what can be read now. `wire` is the answer to the client that met the failure.
    pub(crate) async fn is_told(self, larder: &TestLarder, wire: &Wire) {
        let error = serde_json::from_str::<Value>(&wire.body)
            .ok()
            .and_then(|body| Some(body.get("error")?.as_str()?.to_owned()));
        self.check("body", self.body, [error.unwrap_or_default()]);
        assert!(
            wire.reason.is_ascii() && wire.reason.len() <= 120,
            "{}: {:?}",
            self.failure,
            wire.reason
        );
        self.check("reason phrase", self.reason, [wire.reason.clone()]);
        let health: Value = serde_json::from_str(&page(larder, "/health").await).expect("JSON");
        self.check("/health", self.health, entries(&health));
        let metrics = page(larder, "/metrics").await;
        self.check("/metrics", self.metrics, metrics.lines().map(str::to_owned));
        // Standard error of another process: what was written before its answer may still be on the way.
        if let Cell::Says(words) = self.log
            && !larder.log().lines().any(|line| holds(line, words))
        {
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
        self.check("log", self.log, larder.log().lines().map(str::to_owned));
    }

    fn check(self, place: &str, cell: Cell, found: impl IntoIterator<Item = String>) {
        let found: Vec<String> = found.into_iter().collect();
        match cell {
            Cell::Says(words) => {
                assert!(!words.is_empty());
                let said = found.iter().any(|one| holds(one, words));
                assert!(
                    said,
                    "{}: {place} does not say {words:?}:\n{}",
                    self.failure,
                    found.join("\n")
                );
            }
            Cell::Cannot(why) => assert!(!why.is_empty()),
        }
    }
}

/// A page of larder's own, whatever its certificate is.
async fn page(larder: &TestLarder, path: &str) -> String {
    let client = builder()
        .tls_danger_accept_invalid_certs(true)
        .build()
        .expect("a client");
    try_send(&client, "GET", &larder.url(path), &[])
        .await
        .expect("an answer")
        .text()
}

fn holds(text: &str, words: &[&str]) -> bool {
    words.iter().all(|word| text.contains(word))
}

/// Each member of the page, and each entry of its lists, as one text: words must be found together.
fn entries(health: &Value) -> Vec<String> {
    let members = health.as_object().expect("an object").iter();
    members
        .flat_map(|(name, value)| match value {
            Value::Array(list) => list
                .iter()
                .map(|entry| format!("{name}: {entry}"))
                .collect(),
            other => vec![format!("{name}: {other}")],
        })
        .collect()
}

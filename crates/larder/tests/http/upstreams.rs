//! How failing upstreams are told: one line in the log, the cause in `/health` and in the metrics, and that it is over.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use larder_testkit::{Behaviour, Origin, Resource};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::packages::{File, entry, pypi_json, remote};
use crate::support::{PATIENCE, TestLarder, get};

/// Lines of the log with this message about this repository.
fn told(larder: &TestLarder, repository: &str, message: &str) -> Vec<Value> {
    let log = larder.log();
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let is_it = |line: &Value| {
        line["repository"] == repository
            && line["message"]
                .as_str()
                .is_some_and(|said| said.starts_with(message))
    };
    lines.filter(is_it).collect()
}

/// What `/health` says of a repository's upstream.
async fn shown(larder: &TestLarder, repository: &str) -> Value {
    let health = get(&larder.url("/health")).await;
    assert_eq!(
        health.status,
        200,
        "upstreams in trouble make nothing unavailable: {}",
        health.text()
    );
    let body = health.json();
    let upstreams = body["upstreams"].as_array().expect("a list").clone();
    upstreams
        .into_iter()
        .find(|one| one["repository"] == repository)
        .unwrap_or_else(|| panic!("{repository}: {body}"))
}

/// One repository for each cause: its name, how it fails, and whether the upstream as a whole counts as failing.
struct Case {
    cause: &'static str,
    config: String,
    path: String,
    state: &'static str,
    _origin: Option<Origin>,
}

impl Case {
    async fn behaving(cause: &'static str, behaviour: Behaviour) -> Self {
        let origin = Origin::start().await;
        origin.put("/f", Resource::new("content"));
        origin.behave("/f", behaviour);
        let config = entry(
            cause,
            "generic",
            &origin,
            "timeouts: { connect: 1, read: 1 }",
        );
        Self {
            cause,
            config,
            path: "f".to_owned(),
            state: "failing",
            _origin: Some(origin),
        }
    }

    fn at(cause: &'static str, base_url: &str) -> Self {
        let config = format!("  {cause}:\n    package: generic\n    base_url: '{base_url}'\n");
        Self {
            cause,
            config,
            path: "f".to_owned(),
            state: "failing",
            _origin: None,
        }
    }

    async fn wrong_bytes() -> Self {
        let origin = Origin::start().await;
        let paths = pypi_json(
            &origin,
            "pantry",
            &[File::generated("pantry", "1.0", 1_000, 1)],
        );
        origin.put(&format!("/{}", paths[0]), Resource::new("other bytes"));
        let config = entry("wrong_bytes", "pypi", &origin, "");
        Self {
            cause: "wrong_bytes",
            config,
            path: paths[0].clone(),
            state: "ok",
            _origin: Some(origin),
        }
    }

    async fn malformed() -> Self {
        let origin = Origin::start().await;
        origin.put("/index.yaml", Resource::new("entries: ["));
        let config = entry("malformed", "helm", &origin, "");
        Self {
            cause: "malformed",
            config,
            path: "index.yaml".to_owned(),
            state: "ok",
            _origin: Some(origin),
        }
    }

    async fn all() -> Vec<Self> {
        let (mut gone, inside) = (Origin::start().await, Origin::start().await);
        gone.stop().await;
        let redirect = |location: String| Behaviour::Redirect {
            status: 302,
            location,
        };
        vec![
            Self::at("dns", "http://nowhere.invalid/"),
            Self::at("refused", &gone.url("/")),
            Self::at("tls", &format!("https://{}/", no_tls().await)),
            Self::behaving("timeout", Behaviour::StallHead(Duration::from_secs(60))).await,
            Self::behaving("protocol", Behaviour::Garbage("SSH-2.0-OpenSSH\r\n".into())).await,
            Self::behaving("cut", Behaviour::ResetHead).await,
            Self::behaving("redirect_refused", redirect("/f".to_owned())).await,
            Self::behaving("address_refused", redirect(inside.url("/f"))).await,
            Self::behaving("unauthorized", Behaviour::Status(401)).await,
            Self::behaving("forbidden", Behaviour::Status(403)).await,
            Self::behaving("rate_limited", Behaviour::Status(429)).await,
            Self::behaving("server_error", Behaviour::Status(503)).await,
            Self::wrong_bytes().await,
            Self::malformed().await,
        ]
    }
}

/// A server that answers a TLS handshake with HTTP, as a port for plain HTTP does.
async fn no_tls() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let read = socket.read(&mut [0; 4096]).await;
                let written = socket
                    .write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
                    .await;
                // Whether the other side is still there does not matter.
                drop((read, written));
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cause_is_told_once_in_the_log_and_shown_in_health_and_metrics() {
    let cases = Case::all().await;
    let config: String = cases.iter().map(|case| case.config.as_str()).collect();
    let larder = TestLarder::start(&format!("remotes:\n{config}")).await;
    for Case { cause, path, .. } in &cases {
        assert_eq!(shown(&larder, cause).await["state"], "unknown", "{cause}");
        for _ in 0..3 {
            let status = get(&larder.artifact(cause, path)).await.status;
            assert!(status >= 400, "{cause}: {status}");
        }
    }
    for Case {
        cause, path, state, ..
    } in &cases
    {
        let shown = shown(&larder, cause).await;
        assert_eq!(shown["state"], *state, "{shown}");
        assert!(
            shown["failures"]
                .as_u64()
                .is_some_and(|failures| failures >= 1)
                && shown["since"].is_string(),
            "{shown}"
        );
        let error = &shown["last_error"];
        assert_eq!(
            (&error["cause"], &error["key"]),
            (&Value::from(*cause), &Value::from(path.as_str())),
            "{shown}"
        );
        assert!(
            error["at"].is_string()
                && error["reason"]
                    .as_str()
                    .is_some_and(|reason| reason.len() > 10),
            "{shown}"
        );
        let label = format!("repository=\"{cause}\",cause=\"{cause}\"");
        assert!(
            larder
                .metric("larder_upstream_failures_total", &label)
                .await
                >= 1.0,
            "{label}"
        );
        let up = larder
            .metric("larder_upstream_up", &format!("repository=\"{cause}\""))
            .await;
        assert_eq!(up > 0.5, *state == "ok", "{cause}");
        let lines = told(&larder, cause, "the upstream fails");
        let warnings: Vec<&Value> = lines
            .iter()
            .filter(|line| line["level"] == "WARN")
            .collect();
        assert_eq!(warnings.len(), 1, "{cause}: once: {lines:?}");
        assert_eq!(
            (&warnings[0]["cause"], &warnings[0]["reason"]),
            (&error["cause"], &error["reason"]),
            "{cause}"
        );
        assert_eq!(warnings[0]["upstream"], shown["upstream"], "{cause}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_answers_again_is_told_once_and_its_last_error_stays() {
    let origin = Origin::start().await;
    origin.put("/f", Resource::new("content"));
    origin.behave("/f", Behaviour::Status(503));
    let larder = TestLarder::start(&remote("generic", &origin, "")).await;
    for _ in 0..4 {
        assert_eq!(get(&larder.artifact("generic", "f")).await.status, 503);
    }
    assert_eq!(shown(&larder, "generic").await["failures"], 4);
    origin.clear_all();
    assert_eq!(get(&larder.artifact("generic", "f")).await.status, 200);
    assert_eq!(
        get(&larder.artifact("generic", "none")).await.status,
        404,
        "absence is no failure"
    );
    let after = shown(&larder, "generic").await;
    assert_eq!(
        (&after["state"], &after["failures"]),
        (&"ok".into(), &0.into()),
        "{after}"
    );
    assert_eq!(after["last_error"]["cause"], "server_error", "{after}");
    let back = told(&larder, "generic", "the upstream answers again");
    assert_eq!(back.len(), 1, "{back:?}");
    assert_eq!(
        (&back[0]["level"], &back[0]["failures"]),
        (&"INFO".into(), &4.into())
    );
    assert_eq!(told(&larder, "generic", "the upstream fails").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_copy_is_spoken_of_once_though_it_is_served_many_times() {
    let mut origin = Origin::start().await;
    origin.put("/list.txt", Resource::new("list"));
    let keys = "mutable_patterns: ['list']\ncache: { mutable_ttl: 0 }";
    let larder = TestLarder::start(&remote("generic", &origin, keys)).await;
    let url = larder.artifact("generic", "list.txt");
    assert_eq!(get(&url).await.status, 200);
    origin.stop().await;
    let until = Instant::now() + PATIENCE;
    while larder
        .metric("larder_repository_stale_served_total", "\"generic\"")
        .await
        < 5.0
    {
        assert!(Instant::now() < until, "{}", larder.log());
        assert_eq!(get(&url).await.status, 200);
    }
    assert_eq!(
        larder.log().matches("expired copy is served").count(),
        1,
        "{}",
        larder.log()
    );
}

//! What an operator is told of the node itself: its start, its reloads, flushes, the disk, and its certificate.

use larder_testkit::{Origin, Resource};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::packages::{entry, remote};
use crate::support::{Setup, TestLarder, get, send};

const IN_FORCE: &str = "the new configuration is in force";

/// The lines of the log with this in their message.
fn lines(larder: &TestLarder, message: &str) -> Vec<Value> {
    let log = larder.log();
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines
        .filter(|line| {
            line["message"]
                .as_str()
                .is_some_and(|said| said.contains(message))
        })
        .collect()
}

async fn health(larder: &TestLarder) -> Value {
    get(&larder.url("/health")).await.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_is_one_line_that_says_what_this_larder_is() {
    let origin = Origin::start().await;
    for (token, said) in [(Some("0123456789abcdef"), "yes"), (None, "no")] {
        let setup = Setup::new(&format!(
            "limits: {{ connections: 99 }}\n{}",
            remote("generic", &origin, "")
        ));
        let setup = token.map_or(setup.clone(), |token| {
            setup.env("LARDER_ADMIN_TOKEN", token)
        });
        let larder = setup.start().await;
        let start = lines(&larder, "listening on");
        assert_eq!(start.len(), 1, "{start:?}");
        let start = &start[0];
        assert_eq!(
            start["message"],
            format!("listening on http://{}", larder.address())
        );
        assert_eq!(
            (&start["level"], &start["version"]),
            (&"INFO".into(), &env!("CARGO_PKG_VERSION").into())
        );
        assert_eq!(start["data_dir"], larder.data_dir().display().to_string());
        assert_eq!(start["config"], larder.config_path().display().to_string());
        assert_eq!(
            (&start["repositories"], &start["connections"]),
            (&1.into(), &99.into()),
            "{start}"
        );
        assert_eq!(start["admin_token"], said);
        assert!(
            start["open_files"].as_u64().is_some_and(|files| files > 0)
                && start["downloads"].is_u64(),
            "{start}"
        );
        assert!(!larder.log().contains("0123456789abcdef"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_tells_version_start_disk_and_that_nothing_was_reloaded_yet() {
    let origin = Origin::start().await;
    let larder = TestLarder::start(&remote("generic", &origin, "")).await;
    let page = health(&larder).await;
    assert_eq!(page["version"], env!("CARGO_PKG_VERSION"));
    assert!(
        page["started"]
            .as_str()
            .is_some_and(|started| started.starts_with("20") && started.ends_with('Z')),
        "{page}"
    );
    let disk = &page["disk"];
    let number = |name: &str| {
        disk[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{name}: {page}"))
    };
    assert!(
        number("free_bytes") <= number("total_bytes")
            && number("reserve_bytes") <= number("total_bytes") / 20,
        "{page}"
    );
    assert_eq!(
        disk["keeping"],
        number("free_bytes") >= number("reserve_bytes")
    );
    assert_eq!(
        (&page["reload"], &page["certificate"]),
        (&Value::Null, &Value::Null)
    );
    let upstream = json!({"repository": "generic", "upstream": origin.url("/"), "state": "unknown", "since": null, "failures": 0,
        "last_error": null, "last_answer": null, "first_byte_ms": null,
        "index_lag": {"seconds": null, "unknown": "there is no other mirror"}});
    assert_eq!(page["upstreams"], json!([upstream]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_says_by_name_what_has_changed_and_health_keeps_its_result() {
    let origin = Origin::start().await;
    let login = |password: &str| format!("username: u\npassword: {password}");
    let repository = |name: &str, keys: &str| entry(name, "generic", &origin, keys);
    let before = [
        repository("same", ""),
        repository("gone", ""),
        repository("login", &login("old-secret")),
    ]
    .concat();
    let mut larder = TestLarder::start(&format!("remotes:\n{before}")).await;
    let after = [
        repository("same", ""),
        repository("new", ""),
        repository("login", &login("new-secret")),
    ]
    .concat();
    let good = format!("drain: 1\nremotes:\n{after}");
    larder.write_config(&good);
    larder.signal(Signal::HUP);
    larder.logged(IN_FORCE).await;
    let line = &lines(&larder, IN_FORCE)[0];
    assert_eq!(line["level"], "INFO");
    for (field, names) in [
        ("added", "new"),
        ("removed", "gone"),
        ("changed", "login"),
        ("keys", "drain"),
    ] {
        assert_eq!(line[field], names, "{line}");
    }
    let reload = health(&larder).await["reload"].clone();
    assert_eq!(
        (&reload["ok"], &reload["error"]),
        (&true.into(), &Value::Null),
        "{reload}"
    );
    assert_eq!(
        reload["changed"],
        json!(["remotes.new", "remotes.gone", "remotes.login", "drain"])
    );
    assert!(reload["at"].is_string());

    larder.write_config(&format!("{good}hot_sett: 1\n"));
    larder.signal(Signal::HUP);
    larder.logged("the old one stays in force").await;
    let reload = health(&larder).await["reload"].clone();
    assert_eq!(
        (&reload["ok"], &reload["changed"]),
        (&false.into(), &json!([])),
        "{reload}"
    );
    assert!(
        reload["error"]
            .as_str()
            .is_some_and(|error| error.contains("hot_sett")),
        "{reload}"
    );
    assert!(larder.metric("larder_config_reload_success", "").await < 0.5);
    assert_eq!(
        get(&larder.url("/health")).await.status,
        200,
        "the old configuration serves"
    );

    larder.write_config(&good);
    larder.signal(Signal::HUP);
    larder.logged("nothing has changed").await;
    let reload = health(&larder).await["reload"].clone();
    assert_eq!(
        (&reload["ok"], &reload["changed"]),
        (&true.into(), &json!([])),
        "{reload}"
    );
    assert!(larder.metric("larder_config_reload_success", "").await > 0.5);
    let seen = larder.log() + &health(&larder).await.to_string();
    assert!(
        !seen.contains("old-secret") && !seen.contains("new-secret"),
        "{seen}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_is_told_with_what_was_asked_by_whom_and_what_it_dropped() {
    let origin = Origin::start().await;
    origin.put("/a.bin", Resource::new("content"));
    let larder = TestLarder::start(&remote("generic", &origin, "")).await;
    let url = larder.artifact("generic", "a.bin");
    get(&url).await;
    larder.hit(&url).await;
    assert_eq!(
        send(
            "PUT",
            &larder.url("cache/flush?remote=generic&cache_type=files&pattern=%5Ea"),
            &[]
        )
        .await
        .status,
        200
    );
    assert_eq!(
        send("PUT", &larder.url("cache/flush"), &[]).await.status,
        200
    );
    let flushes = lines(&larder, "flushed");
    assert_eq!(flushes.len(), 2, "{flushes:?}");
    let first = &flushes[0];
    assert_eq!(
        (&first["level"], &first["client"]),
        (&"INFO".into(), &"127.0.0.1".into()),
        "{first}"
    );
    assert_eq!(
        (&first["repository"], &first["cache_type"]),
        (&"generic".into(), &"files".into()),
        "{first}"
    );
    assert_eq!(
        (&first["pattern"], &first["index"], &first["files"]),
        (&"^a".into(), &0.into(), &1.into()),
        "{first}"
    );
    assert_eq!(
        (&flushes[1]["repository"], &flushes[1]["cache_type"]),
        (&"all".into(), &"all".into()),
        "{flushes:?}"
    );
}

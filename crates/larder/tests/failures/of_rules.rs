//! Refusals by larder's own rules, and bodies that are not what their index states.

use larder_core::{Clock as _, SystemClock, UnixMillis};
use larder_testkit::{Behaviour, Origin, Resource};

use crate::evidence::Cell::Says;
use crate::evidence::{Row, ask};
use crate::support::TestLarder;
use crate::support::packages::{File, entry, pypi_json};

#[tokio::test]
async fn a_body_with_another_digest_than_its_index_states() {
    let row = Row {
        failure: "wrong digest",
        body: Says(&["sha256 is ", "… is stated", "repository py"]),
        reason: Says(&["other bytes than are stated"]),
        log: Says(&[
            "\"level\":\"WARN\"",
            "\"repository\":\"py\"",
            "\"cause\":\"wrong_bytes\"",
            "\"id\":\"",
        ]),
        health: Says(&["\"repository\":\"py\"", "wrong_bytes"]),
        metrics: Says(&[
            "larder_repository_digest_mismatches_total{",
            "repository=\"py\"",
            "} 1",
        ]),
    };
    let origin = Origin::start().await;
    let file = File::generated("demo", "1.0", 2_000, 7);
    let paths = pypi_json(&origin, "demo", &[file]);
    let path = paths.first().expect("a wheel");
    origin.behave(&format!("/{path}"), Behaviour::Body("not this".into()));
    let larder =
        TestLarder::start(&format!("remotes:\n{}", entry("py", "pypi", &origin, ""))).await;
    let wire = ask(&larder, &format!("/api/v1/remote/py/{path}")).await;
    assert_eq!(wire.status, 502, "{wire:?}");
    row.is_told(&larder, &wire).await;
}

#[tokio::test]
async fn a_pattern_that_does_not_admit_the_path() {
    let row = Row {
        failure: "pattern",
        body: Says(&[
            "deny_patterns",
            "remove or narrow",
            "secret-.*",
            "repository up",
        ]),
        reason: Says(&["deny_patterns"]),
        log: Says(&[
            "\"level\":\"WARN\"",
            "\"repository\":\"up\"",
            "\"rule\":\"deny_patterns\"",
            "\"id\":\"",
        ]),
        health: Says(&[
            "refusals: ",
            "\"repository\":\"up\"",
            "pattern",
            "\"count\":1",
        ]),
        metrics: Says(&[
            "larder_refusals_total{",
            "repository=\"up\"",
            "pattern",
            "} 1",
        ]),
    };
    let origin = Origin::start().await;
    let config = format!(
        "remotes:\n{}",
        entry("up", "generic", &origin, "deny_patterns: ['secret-.*']")
    );
    let larder = TestLarder::start(&config).await;
    let wire = ask(&larder, "/api/v1/remote/up/pkg/secret-1.0.zip").await;
    assert_eq!(wire.status, 403, "{wire:?}");
    row.is_told(&larder, &wire).await;
    assert!(origin.requests().is_empty());
}

#[tokio::test]
async fn a_file_that_is_too_new() {
    let row = Row {
        failure: "quarantine",
        body: Says(&["quarantine_days", "repository up"]),
        reason: Says(&["Quarantined until 20", "quarantine_new"]),
        log: Says(&[
            "\"level\":\"WARN\"",
            "\"repository\":\"up\"",
            "\"rule\":\"quarantine_new\"",
            "\"id\":\"",
        ]),
        health: Says(&[
            "refusals: ",
            "\"repository\":\"up\"",
            "quarantined",
            "\"count\":1",
        ]),
        metrics: Says(&[
            "larder_repository_quarantined_total{",
            "repository=\"up\"",
            "} 1",
        ]),
    };
    let origin = Origin::start().await;
    let yesterday = UnixMillis(SystemClock.now().0 - 86_400_000).to_http_date();
    origin.put("/pkg/tool-1.0.zip", Resource::new("tool"));
    origin.behave("*", Behaviour::Header("Last-Modified".into(), yesterday));
    let keys = "quarantine_new: true\nquarantine_days: 3";
    let larder = TestLarder::start(&format!(
        "remotes:\n{}",
        entry("up", "generic", &origin, keys)
    ))
    .await;
    let wire = ask(&larder, "/api/v1/remote/up/pkg/tool-1.0.zip").await;
    assert_eq!(wire.status, 404, "{wire:?}");
    row.is_told(&larder, &wire).await;
}

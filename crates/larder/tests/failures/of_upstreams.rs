//! Upstreams that cannot be reached, refuse, or fail.

use larder_testkit::{Behaviour, Origin, Resource};

use crate::evidence::Cell::Says;
use crate::evidence::{Row, ask};
use crate::support::TestLarder;
use crate::support::packages::entry;

const TARGET: &str = "/api/v1/remote/up/pkg/tool-1.0.tar.gz";

fn config(origin: &Origin, keys: &str) -> String {
    format!("remotes:\n{}", entry("up", "generic", origin, keys))
}

/// One file is asked for, and the upstream does this.
async fn answered(row: Row, status: u16, behaviour: Behaviour, keys: &str) {
    let origin = Origin::start().await;
    origin.put("/pkg/tool-1.0.tar.gz", Resource::new("tool"));
    origin.behave("*", behaviour);
    let larder = TestLarder::start(&config(&origin, keys)).await;
    let wire = ask(&larder, TARGET).await;
    assert_eq!(wire.status, status, "{}: {wire:?}", row.failure);
    row.is_told(&larder, &wire).await;
}

#[tokio::test]
async fn a_host_name_that_cannot_be_resolved() {
    let row = Row {
        failure: "DNS",
        body: Says(&["host name cannot be resolved", "repository up"]),
        reason: Says(&[
            "upstream of repository up cannot be reached",
            "host name cannot be resolved",
        ]),
        log: Says(&[
            "\"repository\":\"up\"",
            "\"code\":\"upstream_unreachable\"",
            "resolved",
            "\"agent\":\"pip/26.2\"",
            "\"key\":\"up/pkg/tool-1.0.tar.gz\"",
        ]),
        health: Says(&[
            "upstreams: ",
            "\"repository\":\"up\"",
            "\"state\":\"failing\"",
            "\"cause\":\"dns\"",
            "resolved",
        ]),
        metrics: Says(&[
            "larder_upstream_failures_total{",
            "repository=\"up\"",
            "cause=\"dns\"",
            "} 1",
        ]),
    };
    // RFC 6761 section 6.4: names below .invalid never exist.
    let config = "remotes:\n  up:\n    package: generic\n    base_url: http://files.invalid/\n";
    let larder = TestLarder::start(config).await;
    let wire = ask(&larder, TARGET).await;
    assert_eq!(wire.status, 502, "{wire:?}");
    row.is_told(&larder, &wire).await;
}

#[tokio::test]
async fn a_connection_that_is_refused() {
    let row = Row {
        failure: "connection refused",
        body: Says(&["cannot connect: connection refused", "repository up"]),
        reason: Says(&[
            "upstream of repository up cannot be reached",
            "refuses connections",
        ]),
        log: Says(&[
            "\"repository\":\"up\"",
            "\"code\":\"upstream_unreachable\"",
            "connection refused",
            "\"agent\":\"pip/26.2\"",
        ]),
        health: Says(&[
            "upstreams: ",
            "\"repository\":\"up\"",
            "\"state\":\"failing\"",
            "\"cause\":\"refused\"",
            "connection refused",
        ]),
        metrics: Says(&[
            "larder_upstream_failures_total{",
            "repository=\"up\"",
            "cause=\"refused\"",
            "} 1",
        ]),
    };
    let mut origin = Origin::start().await;
    origin.stop().await;
    let larder = TestLarder::start(&config(&origin, "")).await;
    let wire = ask(&larder, TARGET).await;
    assert_eq!(wire.status, 502, "{wire:?}");
    row.is_told(&larder, &wire).await;
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_in_time() {
    let row = Row {
        failure: "time-out",
        body: Says(&["timeouts.read", "repository up"]),
        reason: Says(&["in time"]),
        log: Says(&[
            "\"repository\":\"up\"",
            "\"code\":\"upstream_timeout\"",
            "\"status\":504",
            "\"agent\":\"pip/26.2\"",
        ]),
        health: Says(&[
            "upstreams: ",
            "\"repository\":\"up\"",
            "\"state\":\"failing\"",
            "\"cause\":\"timeout\"",
        ]),
        metrics: Says(&[
            "larder_upstream_failures_total{",
            "repository=\"up\"",
            "cause=\"timeout\"",
            "} 1",
        ]),
    };
    let stall = Behaviour::StallHead(std::time::Duration::from_mins(1));
    answered(row, 504, stall, "timeouts: { read: 1 }").await;
}

#[tokio::test]
async fn a_401_of_the_upstream() {
    let row = Row {
        failure: "401",
        body: Says(&["answered 401", "username and password", "repository up"]),
        reason: Says(&["401", "username and password"]),
        log: Says(&[
            "\"repository\":\"up\"",
            "\"code\":\"upstream_unauthorized\"",
            "\"upstream\":\"401\"",
            "\"status\":502",
        ]),
        health: Says(&[
            "upstreams: ",
            "\"repository\":\"up\"",
            "\"cause\":\"unauthorized\"",
            "401",
        ]),
        metrics: Says(&[
            "larder_upstream_failures_total{",
            "repository=\"up\"",
            "cause=\"unauthorized\"",
            "} 1",
        ]),
    };
    answered(row, 502, Behaviour::Status(401), "").await;
}

#[tokio::test]
async fn a_403_of_the_upstream() {
    let row = Row {
        failure: "403",
        body: Says(&["answered 403", "repository up"]),
        reason: Says(&["403"]),
        log: Says(&[
            "\"repository\":\"up\"",
            "\"code\":\"upstream_status\"",
            "\"upstream\":\"403\"",
            "\"status\":403",
        ]),
        health: Says(&[
            "upstreams: ",
            "\"repository\":\"up\"",
            "\"cause\":\"forbidden\"",
            "403",
        ]),
        metrics: Says(&[
            "larder_upstream_failures_total{",
            "repository=\"up\"",
            "cause=\"forbidden\"",
            "} 1",
        ]),
    };
    answered(row, 403, Behaviour::Status(403), "").await;
}

#[tokio::test]
async fn a_429_of_the_upstream() {
    let row = Row {
        failure: "429",
        body: Says(&["answered 429", "repository up"]),
        reason: Says(&["429"]),
        log: Says(&[
            "\"repository\":\"up\"",
            "\"code\":\"rate_limited\"",
            "\"upstream\":\"429\"",
            "\"status\":429",
        ]),
        health: Says(&[
            "upstreams: ",
            "\"repository\":\"up\"",
            "\"cause\":\"rate_limited\"",
            "429",
        ]),
        metrics: Says(&[
            "larder_upstream_failures_total{",
            "repository=\"up\"",
            "cause=\"rate_limited\"",
            "} 1",
        ]),
    };
    answered(row, 429, Behaviour::Status(429), "").await;
}

#[tokio::test]
async fn a_5xx_of_the_upstream() {
    let row = Row {
        failure: "5xx",
        body: Says(&["answered 500", "repository up"]),
        reason: Says(&["500"]),
        log: Says(&[
            "\"repository\":\"up\"",
            "\"code\":\"upstream_status\"",
            "\"upstream\":\"500\"",
            "\"status\":500",
        ]),
        health: Says(&[
            "upstreams: ",
            "\"repository\":\"up\"",
            "\"state\":\"failing\"",
            "\"cause\":\"server_error\"",
            "500",
        ]),
        metrics: Says(&[
            "larder_upstream_failures_total{",
            "repository=\"up\"",
            "cause=\"server_error\"",
            "} 1",
        ]),
    };
    answered(row, 500, Behaviour::Status(500), "").await;
}

/// The upstream is well; whoever looks there finds nothing.
#[tokio::test]
async fn a_proxy_that_cannot_be_reached() {
    let row = Row {
        failure: "proxy down",
        body: Says(&[
            "repository up",
            "cannot connect",
            "through the proxy http://127.0.0.1:",
        ]),
        reason: Says(&[
            "upstream of repository up cannot be reached",
            "no connection through its proxy",
        ]),
        log: Says(&[
            "\"repository\":\"up\"",
            "\"code\":\"upstream_unreachable\"",
            "through the proxy http://127.0.0.1:",
        ]),
        health: Says(&[
            "upstreams: ",
            "\"repository\":\"up\"",
            "\"cause\":\"refused\"",
            "through the proxy",
        ]),
        metrics: Says(&[
            "larder_upstream_failures_total{",
            "repository=\"up\"",
            "cause=\"refused\"",
            "} 1",
        ]),
    };
    let origin = Origin::start().await;
    let mut proxy = Origin::start().await;
    let address = proxy.url("/").replace("://", "://ci:c4n4ry@");
    proxy.stop().await;
    let larder = TestLarder::start(&config(&origin, &format!("proxy: '{address}'"))).await;
    let wire = ask(&larder, TARGET).await;
    assert_eq!(wire.status, 502, "{wire:?}");
    row.is_told(&larder, &wire).await;
    assert!(!wire.body.contains("c4n4ry") && !larder.log().contains("c4n4ry"));
    assert!(origin.requests().is_empty());
}

use std::time::Duration;

use super::super::RequestKind;
use super::*;
use http::StatusCode;
use larder_budget::{BudgetKind, BudgetUse};
use larder_core::Source;
use larder_engine::{IndexLag, LatencyReport, MirrorReport, UpstreamStanding};

fn node() -> Node {
    let report = |upstream: &str, standing| UpstreamReport {
        repository: "pypi".into(),
        upstream: upstream.into(),
        standing,
        since: None,
        failures: 0,
        last_error: None,
        last_answer: None,
        latency: None,
        lag: IndexLag::Unknown("there is no other mirror"),
    };
    Node {
        version: "1.2.3",
        connections_limit: 10_000,
        hot_set_limit: 77,
        disk: Some(DiskSpace {
            free: 30,
            total: 100,
            reserve: 5,
            failing: false,
        }),
        disk_use: DiskUse {
            limit: Some(60),
            kept: Some(40),
            repositories: vec![("npm".into(), 9)],
        },
        store: store::sample(),
        reload: (false, UnixMillis(1_500)),
        certificate_expiry: Some(UnixMillis(9_000)),
        upstreams: vec![
            report("https://up.example.com/", UpstreamStanding::Ok),
            report("https://down.example.com/", UpstreamStanding::Failing),
            report("https://new.example.com/", UpstreamStanding::Unknown),
        ],
        process: Process {
            threads: Some(3),
            ..Process::default()
        },
        cluster: None,
    }
}

fn engine() -> CounterSnapshot {
    CounterSnapshot {
        process: vec![("gc_blobs_deleted", 7)],
        repositories: vec![
            ("npm".into(), vec![("misses", 3)]),
            ("pypi".into(), vec![("misses", 4)]),
        ],
        mirrors: vec![MirrorReport {
            repository: "pypi".into(),
            mirror: "https://mirror.example.com/".into(),
            counters: vec![("requests", 5), ("failures", 1)],
            healthy: false,
            latency: LatencyReport {
                buckets: vec![(0.1, 4), (f64::INFINITY, 1)],
                sum: 2.5,
            },
            lag: Some(std::time::Duration::from_secs(5_400)),
        }],
        quotas: vec![("hub".into(), vec![("upstream_quota_remaining", 76)])],
        held: Vec::new(),
        failures: vec![("pypi".into(), vec![("dns", 2)])],
        flights_active: 2,
        downloads_limit: 512,
        budgets: vec![BudgetUse {
            kind: BudgetKind::Heads,
            limit: 256,
            held: 192,
            waiting: 12,
            refused: 3,
            yielded: 2,
        }],
    }
}

#[test]
fn a_scrape_shows_what_was_counted() {
    let metrics = Metrics::new();
    let pypi = metrics.repository("pypi");
    pypi.count(RequestKind::Miss, StatusCode::OK);
    pypi.count_hot(StatusCode::NOT_MODIFIED);
    pypi.sent(Source::Cache).add(1_234);
    pypi.sent(Source::Remote).add(56);
    metrics.observe(RequestKind::Miss, Duration::from_millis(3));
    let text = render(
        &metrics,
        engine(),
        HotSetSize {
            entries: 1,
            bytes: 99,
        },
        node(),
    )
    .unwrap();
    for line in [
        r#"larder_requests_total{repository="pypi",kind="miss",status="2xx"} 1"#,
        r#"larder_requests_total{repository="pypi",kind="hot",status="3xx"} 1"#,
        r#"larder_sent_bytes_total{repository="pypi",source="cache"} 1234"#,
        r#"larder_sent_bytes_total{repository="pypi",source="remote"} 56"#,
        "larder_gc_blobs_deleted_total 7",
        r#"larder_repository_upstream_quota_remaining{repository="hub"} 76"#,
        r#"larder_repository_misses_total{repository="npm"} 3"#,
        r#"larder_repository_misses_total{repository="pypi"} 4"#,
        r#"larder_mirror_requests_total{repository="pypi",mirror="https://mirror.example.com/"} 5"#,
        r#"larder_mirror_failures_total{repository="pypi",mirror="https://mirror.example.com/"} 1"#,
        r#"larder_mirror_first_byte_seconds_sum{repository="pypi",mirror="https://mirror.example.com/"} 2.5"#,
        r#"larder_mirror_first_byte_seconds_count{repository="pypi",mirror="https://mirror.example.com/"} 5"#,
        r#"larder_mirror_first_byte_seconds_bucket{le="+Inf",repository="pypi",mirror="https://mirror.example.com/"} 5"#,
        r#"larder_mirror_index_lag_seconds{repository="pypi",mirror="https://mirror.example.com/"} 5400"#,
        r#"larder_mirror_healthy{repository="pypi",mirror="https://mirror.example.com/"} 0"#,
        r#"larder_upstream_failures_total{repository="pypi",cause="dns"} 2"#,
        r#"larder_upstream_up{repository="pypi",upstream="https://up.example.com/"} 1"#,
        r#"larder_upstream_up{repository="pypi",upstream="https://down.example.com/"} 0"#,
        "larder_downloads_in_flight 2",
        "larder_downloads_limit 512",
        r#"larder_budget_limit{kind="heads"} 256"#,
        r#"larder_budget_held{kind="heads"} 192"#,
        r#"larder_budget_waiting{kind="heads"} 12"#,
        r#"larder_budget_refused_total{kind="heads"} 3"#,
        r#"larder_budget_yielded_total{kind="heads"} 2"#,
        "larder_connections_limit 10000",
        "larder_hot_set_bytes 99",
        "larder_hot_set_limit_bytes 77",
        r#"larder_build_info{version="1.2.3"} 1"#,
        "larder_disk_free_bytes 30",
        "larder_disk_total_bytes 100",
        "larder_disk_reserve_bytes 5",
        "larder_object_store_up 0",
        "larder_object_store_mismatches_total 3",
        "larder_object_store_redirects_total 4",
        "larder_tier_bytes 40",
        "larder_tier_limit_bytes 50",
        "larder_tier_fills_total 6",
        "larder_tier_evicted_blobs_total 2",
        "larder_tier_spoilt_blobs_total 1",
        "larder_config_reload_success 0",
        "larder_config_last_reload_timestamp_seconds 1.5",
        "larder_certificate_expiry_timestamp_seconds 9.0",
        "process_threads 3",
        r#"larder_request_duration_seconds_count{kind="miss"} 1"#,
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is not in\n{text}"
        );
    }
    assert!(
        !text.contains("new.example.com")
            && text.matches("# EOF").count() == 1
            && text.ends_with("# EOF\n"),
        "{text}"
    );
    metrics.reset(None);
    let text = render(
        &metrics,
        CounterSnapshot::default(),
        HotSetSize::default(),
        Node::default(),
    )
    .unwrap();
    assert!(
        text.lines()
            .all(|line| !line.contains("pypi") || line.ends_with(" 0")),
        "{text}"
    );
}

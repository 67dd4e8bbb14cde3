//! The page of `/metrics` beside the guide, and what can be computed from it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::time::Instant;

use larder_core::{Clock as _, SystemClock};
use larder_testkit::{Origin, Payload, Resource};

use crate::support::packages::one_of_each;
use crate::support::{PATIENCE, TestLarder, get, send};

/// Name, type and sentence of each metric in the guide's tables.
fn documented() -> BTreeMap<String, (String, String)> {
    let text = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/operate/metrics.md"
    ))
    .expect("the guide");
    let row = |line: &str| {
        let cells: Vec<&str> = line
            .strip_prefix("| `")?
            .strip_suffix(" |")?
            .splitn(3, " | ")
            .collect();
        let [name, kind, sentence] = cells[..] else {
            return None;
        };
        let name = name.strip_suffix('`')?.split('{').next()?;
        let is_metric = name.starts_with("larder_") || name.starts_with("process_");
        is_metric.then(|| {
            (
                name.to_owned(),
                (kind.to_owned(), sentence.replace('`', "")),
            )
        })
    };
    text.lines().filter_map(row).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_has_the_metrics_of_the_guide_with_its_sentences_and_no_others() {
    const OF_BACKENDS: [&str; 3] = ["larder_object_store_", "larder_tier_", "larder_cluster_"];
    let origin = Origin::start().await;
    origin.put("/a", Resource::new("content"));
    let repositories = one_of_each(&origin, "max_disk: 1GiB");
    let config = format!("limits: {{ disk: 1GiB }}\n{repositories}");
    let larder = TestLarder::start(&config).await;
    get(&larder.artifact("generic", "a")).await;
    // What is held is counted after a scrape has asked for it, and what is kept within seconds.
    let until = Instant::now() + PATIENCE;
    let mut page = String::new();
    while !page.contains("larder_repository_held_bytes") || !page.contains("larder_kept_bytes") {
        assert!(
            Instant::now() < until,
            "what is held is not counted:\n{page}"
        );
        page = get(&larder.url("/metrics")).await.text();
    }
    let said = |word: &str| -> BTreeMap<String, String> {
        let lines = page
            .lines()
            .filter_map(|line| line.strip_prefix(word)?.split_once(' '));
        lines
            .map(|(name, rest)| (name.to_owned(), rest.to_owned()))
            .collect()
    };
    let (sentences, types) = (said("# HELP "), said("# TYPE "));
    let documented = documented();
    for (name, sentence) in &sentences {
        let (kind, known) = documented
            .get(name)
            .unwrap_or_else(|| panic!("{name} has no row in the guide"));
        assert_eq!((types.get(name), sentence), (Some(kind), known), "{name}");
    }
    // Without TLS there is no certificate, without `s3` no store of objects, and without Redis no cluster.
    let is_of_a_backend = |name: &str| OF_BACKENDS.iter().any(|begin| name.starts_with(begin));
    let missing: BTreeSet<&String> = documented
        .keys()
        .filter(|name| !sentences.contains_key(*name) && !is_of_a_backend(name))
        .collect();
    assert_eq!(
        missing,
        BTreeSet::from([&"larder_certificate_expiry_timestamp_seconds".to_owned()]),
        "in the guide only"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_and_its_process_are_seen() {
    let origin = Origin::start().await;
    let config = format!(
        "hot_set: 1MiB\nlimits: {{ connections: 77, downloads: 5 }}\n{}",
        one_of_each(&origin, "")
    );
    let larder = TestLarder::start(&config).await;
    assert!(
        larder
            .metric(
                "larder_build_info",
                &format!("version=\"{}\"", env!("CARGO_PKG_VERSION"))
            )
            .await
            > 0.5
    );
    let value = async |name: &str| larder.metric(name, "").await;
    for (name, want) in [
        ("larder_connections_limit", 77.0),
        ("larder_downloads_limit", 5.0),
        ("larder_hot_set_limit_bytes", 1_048_576.0),
        ("larder_config_reload_success", 1.0),
    ] {
        assert!((value(name).await - want).abs() < 0.5, "{name}");
    }
    let (free, total) = (
        value("larder_disk_free_bytes").await,
        value("larder_disk_total_bytes").await,
    );
    assert!(
        free > 0.0
            && total >= free
            && value("larder_disk_reserve_bytes").await <= total / 20.0 + 1.0,
        "{free} {total}"
    );
    let files = std::fs::read_dir(format!("/proc/{}/fd", larder.pid()))
        .expect("its files")
        .count() as f64;
    assert!((value("process_open_fds").await - files).abs() <= 5.0);
    assert!(value("process_max_fds").await >= files && value("process_threads").await >= 2.0);
    assert!(
        value("process_resident_memory_bytes").await > 1e6
            && value("process_virtual_memory_bytes").await > 1e6
    );
    let now = SystemClock.now().0 as f64 / 1_000.0;
    let started = value("process_start_time_seconds").await;
    assert!(
        started <= now + 2.0 && started > now - 600.0,
        "{started} {now}"
    );
    assert!(value("process_cpu_seconds_total").await >= 0.0);
}

/// Of 1,000 bytes each: what came from upstream, and what did not, with the hot set.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_sent_are_told_by_repository_and_source() {
    let origin = Origin::start().await;
    origin.put("/a", Resource::new(Payload::generated(1_000, 1)));
    let larder = TestLarder::start(&one_of_each(&origin, "")).await;
    let url = larder.artifact("generic", "a");
    let sent = async |source: &str| {
        larder
            .metric(
                "larder_sent_bytes_total",
                &format!("repository=\"generic\",source=\"{source}\""),
            )
            .await
            .round() as u64
    };
    get(&url).await;
    larder.hit(&url).await;
    let (cache, remote) = (sent("cache").await, sent("remote").await);
    assert!(
        cache >= 1_000 && cache % 1_000 == 0 && remote >= 1_000 && remote % 1_000 == 0,
        "{cache} {remote}"
    );
    for _ in 0..5 {
        get(&url).await;
    }
    assert!(
        larder
            .metric(
                "larder_requests_total",
                "repository=\"generic\",kind=\"hot\""
            )
            .await
            >= 1.0,
        "some of them were hot"
    );
    assert_eq!(
        (sent("cache").await, sent("remote").await),
        (cache + 5_000, remote)
    );
    send("HEAD", &url, &[]).await;
    assert_eq!(
        send("GET", &url, &[("Range", "bytes=0-99")]).await.status,
        206
    );
    assert_eq!(
        sent("cache").await,
        cache + 5_100,
        "bytes of bodies, and no others"
    );
    assert!(
        larder
            .metric("larder_sent_bytes_total", "repository=\"npm\"")
            .await
            < 0.5
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_compressed_for_who_takes_that() {
    let origin = Origin::start().await;
    let larder = TestLarder::start(&one_of_each(&origin, "")).await;
    let plain = get(&larder.url("/metrics")).await;
    assert_eq!(plain.header("content-encoding"), "");
    let coded = send(
        "GET",
        &larder.url("/metrics"),
        &[("Accept-Encoding", "gzip")],
    )
    .await;
    assert_eq!(
        (coded.status, coded.header("content-encoding")),
        (200, "gzip")
    );
    assert!(coded.header("vary").contains("Accept-Encoding"));
    let mut text = String::new();
    flate2::read::GzDecoder::new(coded.body.as_slice())
        .read_to_string(&mut text)
        .expect("gzip");
    assert!(
        text.starts_with("# HELP larder_") && text.contains("\nprocess_threads "),
        "{text}"
    );
    assert!(
        coded.body.len() * 3 < text.len(),
        "{} of {}",
        coded.body.len(),
        text.len()
    );
}

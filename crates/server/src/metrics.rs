//! What `/metrics` shows of the server: requests by repository, kind and status class, bytes, connections, latencies. The
//! engine's counters are rendered beside them. Counting on the path of hits takes no lock.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::StatusCode;
use larder_core::{CacheStatus, ForwardReason};
use larder_engine::MirrorReport;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::backend::CounterSnapshot;
use crate::held_gauges::HeldGauges;
use crate::striped::Striped;

/// How a request was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestKind {
    Hit,
    Miss,
    Collapsed,
    Stale,
    Revalidated,
    Bypass,
    Refused,
    /// Everything that is no artifact.
    Other,
}

const KINDS: [(RequestKind, &str); 8] = [
    (RequestKind::Hit, "hit"),
    (RequestKind::Miss, "miss"),
    (RequestKind::Collapsed, "collapsed"),
    (RequestKind::Stale, "stale"),
    (RequestKind::Revalidated, "revalidated"),
    (RequestKind::Bypass, "bypass"),
    (RequestKind::Refused, "refused"),
    (RequestKind::Other, "other"),
];

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

impl RequestKind {
    pub(crate) fn of(status: &CacheStatus) -> Self {
        match status {
            CacheStatus { detail: Some(detail), .. } if detail.starts_with("stale") => Self::Stale,
            CacheStatus { hit: true, .. } => Self::Hit,
            CacheStatus { collapsed: true, .. } => Self::Collapsed,
            CacheStatus { forward_status: Some(304), .. } | CacheStatus { detail: Some(CacheStatus::UNCHANGED), .. } => {
                Self::Revalidated
            }
            CacheStatus { forward: None | Some(ForwardReason::Method | ForwardReason::Bypass), .. } => Self::Bypass,
            _ => Self::Miss,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        KINDS[self as usize].1
    }
}

/// Request counters of one repository.
#[derive(Debug, Default)]
pub(crate) struct RepositoryRequests {
    cells: [[AtomicU64; CLASSES.len()]; KINDS.len()],
    /// Answers out of the hot set, by whether they had a body (200 and 206, or 304 and the like).
    hot: [Striped; CLASSES.len()],
    /// Requests of larder's own that have come back to it.
    loops: AtomicU64,
}

impl RepositoryRequests {
    pub(crate) fn count(&self, kind: RequestKind, status: StatusCode) {
        self.cells[kind as usize][class(status)].fetch_add(1, Relaxed);
    }

    pub(crate) fn count_hot(&self, status: StatusCode) {
        self.hot[class(status)].add(1);
    }

    pub(crate) fn count_loop(&self) {
        self.loops.fetch_add(1, Relaxed);
    }

    fn reset(&self) {
        self.loops.store(0, Relaxed);
        self.cells.iter().flatten().for_each(|cell| cell.store(0, Relaxed));
        self.hot.iter().for_each(Striped::reset);
    }
}

fn class(status: StatusCode) -> usize {
    usize::from(status.as_u16() / 100).clamp(1, CLASSES.len()) - 1
}

/// The server's own counters.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// Grows with the configuration only: a name that is no repository is counted under the empty name.
    repositories: RwLock<BTreeMap<String, Arc<RepositoryRequests>>>,
    bytes_sent: BytesSent,
    connections: AtomicI64,
    connections_refused: AtomicU64,
    in_flight: AtomicI64,
    latency: Family<[(&'static str, &'static str); 1], Histogram>,
}

/// Adds to the bytes sent.
#[derive(Debug, Clone, Default)]
pub(crate) struct BytesSent(Arc<Striped>);

impl BytesSent {
    pub(crate) fn add(&self, count: u64) {
        self.0.add(count);
    }
}

/// Counts something as present until it is dropped.
#[derive(Debug)]
pub(crate) struct Present(Arc<Metrics>, fn(&Metrics) -> &AtomicI64);

impl Drop for Present {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Relaxed);
    }
}

impl Metrics {
    pub(crate) fn new() -> Arc<Self> {
        // From a cached document to a slow upstream's first byte.
        let buckets = || Histogram::new([0.0005, 0.002, 0.01, 0.05, 0.2, 1.0, 5.0, 30.0]);
        Arc::new(Self {
            repositories: RwLock::default(),
            bytes_sent: BytesSent::default(),
            connections: AtomicI64::new(0),
            connections_refused: AtomicU64::new(0),
            in_flight: AtomicI64::new(0),
            latency: Family::new_with_constructor(buckets),
        })
    }

    pub(crate) fn bytes_sent(&self) -> &BytesSent {
        &self.bytes_sent
    }

    /// The counters of a configured repository; of none with the empty name.
    pub(crate) fn repository(&self, name: &str) -> Arc<RepositoryRequests> {
        let known = self.repositories.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        known.unwrap_or_else(|| {
            let mut all = self.repositories.write().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(name.to_owned()).or_default())
        })
    }

    /// The time to the head of an answer that did not come out of the hot set.
    pub(crate) fn observe(&self, kind: RequestKind, elapsed: Duration) {
        self.latency.get_or_create(&[("kind", kind.as_str())]).observe(elapsed.as_secs_f64());
    }

    pub(crate) fn connection(self: &Arc<Self>) -> Present {
        self.connections.fetch_add(1, Relaxed);
        Present(Arc::clone(self), |metrics| &metrics.connections)
    }

    pub(crate) fn request(self: &Arc<Self>) -> Present {
        self.in_flight.fetch_add(1, Relaxed);
        Present(Arc::clone(self), |metrics| &metrics.in_flight)
    }

    /// The connection could not be taken on (handshake failed).
    pub(crate) fn connection_failed(&self) {
        self.connections_refused.fetch_add(1, Relaxed);
    }

    /// Sets the counters to zero (`PUT /cache/flush?cache_type=metrics`).
    pub(crate) fn reset(&self) {
        let all = self.repositories.read().unwrap_or_else(PoisonError::into_inner);
        all.values().for_each(|requests| requests.reset());
        self.bytes_sent.0.reset();
        self.connections_refused.store(0, Relaxed);
        self.latency.clear();
    }

    /// Everything in Prometheus' text format.
    pub(crate) fn render(self: &Arc<Self>, engine: CounterSnapshot, hot: HotSetSize) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix("larder");
        let help = "Seconds from a request's head to the head of its answer, the hot set's answers left out";
        registry.register("request_duration_seconds", help, self.latency.clone());
        registry.register_collector(Box::new(HeldGauges(engine.held.clone())));
        registry.register_collector(Box::new(Scrape { metrics: Arc::clone(self), engine, hot }));
        let mut text = String::new();
        text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

/// What the hot set holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct HotSetSize {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
}

/// One scrape: the counters as they stand.
#[derive(Debug)]
struct Scrape {
    metrics: Arc<Metrics>,
    engine: CounterSnapshot,
    hot: HotSetSize,
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        self.requests(&mut encoder)?;
        self.loops(&mut encoder)?;
        let metrics = &self.metrics;
        let counters = [
            ("sent_bytes", "Body bytes handed to connections", metrics.bytes_sent.0.sum()),
            ("connections_failed", "Connections that failed in their TLS handshake", metrics.connections_refused.load(Relaxed)),
        ];
        for (name, help, value) in counters {
            encoder
                .encode_descriptor(name, help, None, MetricType::Counter)?
                .encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        let gauges = [
            ("connections", "Open connections", metrics.connections.load(Relaxed)),
            ("requests_in_flight", "Requests that wait for the head of their answer", metrics.in_flight.load(Relaxed)),
            ("downloads_in_flight", "Downloads from upstreams that are running", self.engine.flights_active as i64),
            ("hot_set_entries", "Request targets in the hot set", self.hot.entries as i64),
            ("hot_set_bytes", "Weight of the hot set", self.hot.bytes as i64),
        ];
        for (name, help, value) in gauges {
            encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)?;
        }
        self.engine_counters(&mut encoder)?;
        self.mirrors(&mut encoder)
    }
}

impl Scrape {
    fn requests(&self, encoder: &mut DescriptorEncoder) -> Result<(), fmt::Error> {
        let help = "Requests answered, by repository (empty: none), kind and status class";
        let mut family = encoder.encode_descriptor("requests", help, None, MetricType::Counter)?;
        let all = self.metrics.repositories.read().unwrap_or_else(PoisonError::into_inner);
        for (name, requests) in all.iter() {
            for (kind, kind_name) in KINDS {
                for (class, class_name) in CLASSES.iter().enumerate() {
                    let value = requests.cells[kind as usize][class].load(Relaxed);
                    encode_request(&mut family, [name, kind_name, class_name], value)?;
                }
            }
            for (class_name, hot) in CLASSES.iter().zip(&requests.hot) {
                encode_request(&mut family, [name, "hot", class_name], hot.sum())?;
            }
        }
        Ok(())
    }

    /// Those that have never counted are left out.
    fn loops(&self, encoder: &mut DescriptorEncoder) -> Result<(), fmt::Error> {
        let help = "Requests of larder's own that came back to it and were refused with 508, by repository (empty: none)";
        let mut family = encoder.encode_descriptor("loops_refused", help, None, MetricType::Counter)?;
        let all = self.metrics.repositories.read().unwrap_or_else(PoisonError::into_inner);
        for (name, count) in
            all.iter().map(|(name, requests)| (name, requests.loops.load(Relaxed))).filter(|(_, count)| *count > 0)
        {
            let labels = [("repository", name.as_str())];
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }

    /// One metric for each counter of a mirror, with all mirrors under it, and whether each is healthy.
    fn mirrors(&self, encoder: &mut DescriptorEncoder) -> Result<(), fmt::Error> {
        let mirrors = &self.engine.mirrors;
        let labels = |mirror: &MirrorReport| [("repository", mirror.repository.clone()), ("mirror", mirror.mirror.clone())];
        let names: BTreeSet<&str> = mirrors.iter().flat_map(|mirror| mirror.counters.iter().map(|(name, _)| *name)).collect();
        for name in names {
            let full_name = format!("mirror_{name}");
            let mut family = encoder.encode_descriptor(&full_name, &words(name), None, MetricType::Counter)?;
            for mirror in mirrors {
                let Some((_, value)) = mirror.counters.iter().find(|(known, _)| *known == name) else { continue };
                family.encode_family(&labels(mirror))?.encode_counter::<NoLabelSet, _, u64>(value, None)?;
            }
        }
        let help = "Whether a mirror is asked at its place in the list (1), or put aside after a failure (0)";
        let mut family = encoder.encode_descriptor("mirror_healthy", help, None, MetricType::Gauge)?;
        for mirror in mirrors {
            family.encode_family(&labels(mirror))?.encode_gauge(&i64::from(mirror.healthy))?;
        }
        Ok(())
    }

    /// What upstreams said of their rate limits.
    fn quotas(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let quotas = [
            ("upstream_quota_limit", "Requests that the upstream allows in its window, as it last said"),
            ("upstream_quota_remaining", "Requests that the upstream still allows in its window, as it last said"),
        ];
        for (name, help) in quotas {
            let said = |(repository, numbers): &(String, Vec<(&'static str, u64)>)| {
                numbers.iter().find(|(said, _)| *said == name).map(|(_, number)| (repository.clone(), *number))
            };
            let values: Vec<(String, u64)> = self.engine.quotas.iter().filter_map(said).collect();
            if values.is_empty() {
                continue;
            }
            let full_name = format!("repository_{name}");
            let mut family = encoder.encode_descriptor(&full_name, help, None, MetricType::Gauge)?;
            for (repository, value) in values {
                let labels = [("repository", repository.as_str())];
                family.encode_family(&labels)?.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX))?;
            }
        }
        Ok(())
    }

    /// One metric for each of the engine's names, with all repositories under it.
    fn engine_counters(&self, encoder: &mut DescriptorEncoder) -> Result<(), fmt::Error> {
        for (name, value) in &self.engine.process {
            let mut metric = encoder.encode_descriptor(name, &words(name), None, MetricType::Counter)?;
            metric.encode_counter::<NoLabelSet, _, u64>(value, None)?;
        }
        let mut by_name: BTreeMap<&str, Vec<(&str, u64)>> = BTreeMap::new();
        for (repository, counters) in &self.engine.repositories {
            for (name, value) in counters {
                by_name.entry(name).or_default().push((repository, *value));
            }
        }
        self.quotas(encoder)?;
        for (name, values) in by_name {
            let full_name = format!("repository_{name}");
            let mut family = encoder.encode_descriptor(&full_name, &words(name), None, MetricType::Counter)?;
            for (repository, value) in values {
                let labels = [("repository", repository)];
                family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
            }
        }
        Ok(())
    }
}

/// Cells that have never counted are left out: most repositories see few kinds.
fn encode_request(
    family: &mut prometheus_client::encoding::MetricEncoder<'_>,
    [repository, kind, class]: [&str; 3],
    value: u64,
) -> Result<(), fmt::Error> {
    if value == 0 {
        return Ok(());
    }
    let labels = [("repository", repository), ("kind", kind), ("status", class)];
    family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
}

fn words(name: &str) -> String {
    let mut words = name.replace('_', " ");
    if let Some(first) = words.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_stands_at_its_own_place_in_the_table() {
        for (position, (kind, _)) in KINDS.iter().enumerate() {
            assert_eq!(*kind as usize, position);
        }
    }

    #[test]
    fn a_scrape_shows_what_was_counted() {
        let metrics = Metrics::new();
        metrics.repository("pypi").count(RequestKind::Miss, StatusCode::OK);
        metrics.repository("pypi").count_hot(StatusCode::NOT_MODIFIED);
        metrics.bytes_sent().add(1_234);
        metrics.observe(RequestKind::Miss, Duration::from_millis(3));
        let engine = CounterSnapshot {
            process: vec![("gc_blobs_deleted", 7)],
            repositories: vec![("npm".into(), vec![("misses", 3)]), ("pypi".into(), vec![("misses", 4)])],
            mirrors: vec![MirrorReport {
                repository: "pypi".into(),
                mirror: "https://mirror.example.com/".into(),
                counters: vec![("requests", 5), ("failures", 1)],
                healthy: false,
            }],
            quotas: vec![("hub".into(), vec![("upstream_quota_remaining", 76)])],
            held: Vec::new(),
            flights_active: 2,
        };
        let text = metrics.render(engine, HotSetSize { entries: 1, bytes: 99 }).unwrap();
        for line in [
            r#"larder_requests_total{repository="pypi",kind="miss",status="2xx"} 1"#,
            r#"larder_requests_total{repository="pypi",kind="hot",status="3xx"} 1"#,
            "larder_sent_bytes_total 1234",
            "larder_gc_blobs_deleted_total 7",
            r#"larder_repository_upstream_quota_remaining{repository="hub"} 76"#,
            r#"larder_repository_misses_total{repository="npm"} 3"#,
            r#"larder_repository_misses_total{repository="pypi"} 4"#,
            r#"larder_mirror_requests_total{repository="pypi",mirror="https://mirror.example.com/"} 5"#,
            r#"larder_mirror_failures_total{repository="pypi",mirror="https://mirror.example.com/"} 1"#,
            r#"larder_mirror_healthy{repository="pypi",mirror="https://mirror.example.com/"} 0"#,
            "larder_downloads_in_flight 2",
            "larder_hot_set_bytes 99",
            r#"larder_request_duration_seconds_count{kind="miss"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        metrics.reset();
        let text = metrics.render(CounterSnapshot::default(), HotSetSize::default()).unwrap();
        assert!(!text.contains("pypi"), "{text}");
    }
}

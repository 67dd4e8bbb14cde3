//! The page of `/metrics`, in Prometheus' text format: the counters as they stand, and the state of the node beside them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use larder_core::UnixMillis;
use larder_engine::{ClusterReport, DiskSpace, DiskUse, StoreReport, UpstreamReport};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeMetric as _, MetricEncoder,
    NoLabelSet, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::cluster;
use super::help::sentence;
use super::process::Process;
use super::store;
use super::{CLASSES, HotSetSize, KINDS, Metrics, SOURCES};
use crate::backend::CounterSnapshot;

/// What else the page shows: the state of the node at this moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Node {
    pub(crate) version: &'static str,
    pub(crate) connections_limit: u64,
    pub(crate) hot_set_limit: u64,
    pub(crate) disk: Option<DiskSpace>,
    pub(crate) store: StoreReport,
    pub(crate) disk_use: DiskUse,
    /// Whether the last load of the configuration went well, and when it was.
    pub(crate) reload: (bool, UnixMillis),
    pub(crate) certificate_expiry: Option<UnixMillis>,
    pub(crate) upstreams: Vec<UpstreamReport>,
    pub(crate) process: Process,
    /// `None`: this is none of several replicas.
    pub(crate) cluster: Option<ClusterReport>,
}

/// Everything in the text format of OpenMetrics.
pub(super) fn render(
    metrics: &Arc<Metrics>,
    engine: CounterSnapshot,
    hot: HotSetSize,
    node: Node,
) -> Result<String, fmt::Error> {
    let process = node.process;
    let mut own = Registry::with_prefix("larder");
    own.register_collector(Box::new(Scrape {
        metrics: Arc::clone(metrics),
        engine,
        hot,
        node,
    }));
    let mut of_the_process = Registry::with_prefix("process");
    of_the_process.register_collector(Box::new(process));
    let mut text = String::new();
    text::encode_registry(&mut text, &own)?;
    text::encode_registry(&mut text, &of_the_process)?;
    text::encode_eof(&mut text)?;
    Ok(text)
}

/// One scrape: the counters as they stand.
#[derive(Debug)]
pub(super) struct Scrape {
    metrics: Arc<Metrics>,
    pub(super) engine: CounterSnapshot,
    hot: HotSetSize,
    pub(super) node: Node,
}

/// Describes metrics by the sentences of the guide.
pub(super) struct Page<'a, 'e> {
    encoder: &'a mut DescriptorEncoder<'e>,
    prefix: &'static str,
}

impl Page<'_, '_> {
    pub(super) fn counters<'s>(
        &'s mut self,
        name: &'s str,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        let help = sentence(&format!("{}_{name}_total", self.prefix));
        self.encoder
            .encode_descriptor(name, &help, None, MetricType::Counter)
    }

    pub(super) fn gauges<'s>(&'s mut self, name: &'s str) -> Result<MetricEncoder<'s>, fmt::Error> {
        let help = sentence(&format!("{}_{name}", self.prefix));
        self.encoder
            .encode_descriptor(name, &help, None, MetricType::Gauge)
    }

    pub(super) fn histograms<'s>(
        &'s mut self,
        name: &'s str,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        let help = sentence(&format!("{}_{name}", self.prefix));
        self.encoder
            .encode_descriptor(name, &help, None, MetricType::Histogram)
    }

    pub(super) fn counter(&mut self, name: &str, value: &impl EncodeCounterValue) -> fmt::Result {
        self.counters(name)?
            .encode_counter::<NoLabelSet, _, u64>(value, None)
    }

    pub(super) fn gauge(&mut self, name: &str, value: &impl EncodeGaugeValue) -> fmt::Result {
        self.gauges(name)?.encode_gauge(value)
    }

    /// Nothing at all where there is no value.
    pub(super) fn gauge_if(
        &mut self,
        name: &str,
        value: Option<impl EncodeGaugeValue>,
    ) -> fmt::Result {
        value.map_or(Ok(()), |value| self.gauge(name, &value))
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let page = &mut Page {
            encoder: &mut encoder,
            prefix: "larder",
        };
        self.requests(page)?;
        self.sent(page)?;
        self.latency(page)?;
        self.loops(page)?;
        self.refusals(page)?;
        self.held(page)?;
        let metrics = &self.metrics;
        page.counter(
            "connections_failed",
            &metrics.connections_refused.load(Relaxed),
        )?;
        page.counter(
            "connections_stalled",
            &metrics.connections_stalled.load(Relaxed),
        )?;
        page.gauge("connections", &metrics.connections.load(Relaxed))?;
        page.gauge("connections_limit", &self.node.connections_limit)?;
        page.gauge("requests_in_flight", &metrics.in_flight.load(Relaxed))?;
        page.gauge("downloads_in_flight", &self.engine.flights_active)?;
        page.gauge("downloads_limit", &self.engine.downloads_limit)?;
        self.budgets(page)?;
        page.gauge("hot_set_entries", &self.hot.entries)?;
        page.gauge("hot_set_bytes", &self.hot.bytes)?;
        page.gauge("hot_set_limit_bytes", &self.node.hot_set_limit)?;
        self.engine_counters(page)?;
        self.quotas(page)?;
        self.failures(page)?;
        self.upstreams(page)?;
        self.mirrors(page)?;
        self.node(page)
    }
}

impl Scrape {
    fn requests(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let mut family = page.counters("requests")?;
        for (name, requests) in self.metrics.repositories.load().iter() {
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

    /// Of repositories only: what addresses none sends no artifact.
    fn sent(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let mut family = page.counters("sent_bytes")?;
        for (name, requests) in self
            .metrics
            .repositories
            .load()
            .iter()
            .filter(|(name, _)| !name.is_empty())
        {
            for (source, sent) in SOURCES.iter().zip(&requests.sent) {
                let labels = [("repository", name.as_str()), ("source", *source)];
                family
                    .encode_family(&labels)?
                    .encode_counter::<NoLabelSet, _, u64>(&sent.sum(), None)?;
            }
        }
        Ok(())
    }

    fn latency(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let encoder = page.histograms("request_duration_seconds")?;
        self.metrics.latency.encode(encoder)
    }

    /// Those that have never counted are left out.
    fn loops(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let mut family = page.counters("loops_refused")?;
        let all = self.metrics.repositories.load();
        for (name, count) in all
            .iter()
            .map(|(name, requests)| (name, requests.loops.load(Relaxed)))
            .filter(|(_, count)| *count > 0)
        {
            let labels = [("repository", name.as_str())];
            family
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }

    fn refusals(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let mut family = page.counters("refusals")?;
        for ((repository, code), count) in self.metrics.refused.counts() {
            let labels = [("repository", repository.as_str()), ("code", code.as_str())];
            family
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }

    /// What each repository holds, as it was last counted: a scrape waits for no count.
    fn held(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let held = &self.engine.held;
        if held.is_empty() {
            return Ok(());
        }
        let mut bytes = page.gauges("repository_held_bytes")?;
        for size in held {
            bytes
                .encode_family(&[("repository", &*size.repository)])?
                .encode_gauge(&size.bytes)?;
        }
        let mut files = page.gauges("repository_held_files")?;
        for size in held {
            files
                .encode_family(&[("repository", &*size.repository)])?
                .encode_gauge(&size.files)?;
        }
        Ok(())
    }

    /// One metric for each of the engine's names, with all repositories under it.
    fn engine_counters(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        for (name, value) in &self.engine.process {
            page.counter(name, value)?;
        }
        let mut by_name: BTreeMap<&str, Vec<(&str, u64)>> = BTreeMap::new();
        for (repository, counters) in &self.engine.repositories {
            for (name, value) in counters {
                by_name.entry(name).or_default().push((repository, *value));
            }
        }
        for (name, values) in by_name {
            let full_name = format!("repository_{name}");
            let mut family = page.counters(&full_name)?;
            for (repository, value) in values {
                let labels = [("repository", repository)];
                family
                    .encode_family(&labels)?
                    .encode_counter::<NoLabelSet, _, u64>(&value, None)?;
            }
        }
        Ok(())
    }

    fn node(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let node = &self.node;
        page.gauges("build_info")?
            .encode_family(&[("version", node.version)])?
            .encode_gauge(&1_i64)?;
        page.gauge_if("disk_free_bytes", node.disk.map(|disk| disk.free))?;
        page.gauge_if("disk_total_bytes", node.disk.map(|disk| disk.total))?;
        page.gauge_if("disk_reserve_bytes", node.disk.map(|disk| disk.reserve))?;
        store::write(page, &node.store)?;
        store::bounds(page, &node.disk_use)?;
        let (went_well, at) = node.reload;
        page.gauge("config_reload_success", &i64::from(went_well))?;
        page.gauge("config_last_reload_timestamp_seconds", &seconds(at))?;
        page.gauge_if(
            "certificate_expiry_timestamp_seconds",
            node.certificate_expiry.map(seconds),
        )?;
        node.cluster
            .as_ref()
            .map_or(Ok(()), |report| cluster::encode(page, report))
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let page = &mut Page {
            encoder: &mut encoder,
            prefix: "process",
        };
        if let Some(cpu) = self.cpu {
            page.counter("cpu_seconds", &cpu.as_secs_f64())?;
        }
        page.gauge_if("resident_memory_bytes", self.resident)?;
        page.gauge_if("virtual_memory_bytes", self.virtual_memory)?;
        page.gauge_if("open_fds", self.open_files)?;
        page.gauge_if("max_fds", self.most_open_files)?;
        page.gauge_if("threads", self.threads)?;
        page.gauge_if("start_time_seconds", self.started)
    }
}

fn seconds(time: UnixMillis) -> f64 {
    time.0 as f64 / 1_000.0
}

/// Cells that have never counted are left out: most repositories see few kinds.
fn encode_request(
    family: &mut MetricEncoder<'_>,
    [repository, kind, class]: [&str; 3],
    value: u64,
) -> fmt::Result {
    if value == 0 {
        return Ok(());
    }
    let labels = [
        ("repository", repository),
        ("kind", kind),
        ("status", class),
    ];
    family
        .encode_family(&labels)?
        .encode_counter::<NoLabelSet, _, u64>(&value, None)
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;

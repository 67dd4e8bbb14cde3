//! What several pages show: what is held and asked for, how repositories and upstreams do.

use std::collections::{BTreeMap, HashMap};

use larder_core::{Repository, RepositoryKind};
use larder_engine::{
    DiskSpace, Figures, HeldSize, HeldSummary, IndexLag, MirrorReport, TrafficSource as _,
    UpstreamReport, UpstreamStanding,
};
use larder_ui::pages::{Disk, Lag, Live, Mirror, RepositoryHead, RepositoryRow};
use larder_ui::{Bytes, Count, Moment, Share, Span};

use super::visit::Visit;
use crate::backend::{Backend, CounterSnapshot};
use crate::metrics::Metrics;

/// The counters that pages show, as they stand.
pub(crate) struct Numbers {
    pub(crate) engine: CounterSnapshot,
    pub(crate) requests: BTreeMap<String, Figures>,
    pub(crate) upstreams: Vec<UpstreamReport>,
}

impl Numbers {
    pub(crate) fn read<B: Backend>(visit: &Visit<'_, B>) -> Self {
        Self {
            engine: visit.backend().counters(),
            requests: traffic(&visit.exchange.shared.metrics),
            upstreams: visit.backend().upstreams(),
        }
    }

    /// What moves while one looks.
    pub(crate) fn live(&self) -> Live {
        live(&self.engine, &self.requests)
    }

    /// A counter of a repository, by its name.
    pub(crate) fn counter(&self, repository: &str, name: &str) -> u64 {
        counter(&self.engine, repository, name)
    }

    pub(crate) fn of(&self, repository: &str) -> Figures {
        self.requests.get(repository).copied().unwrap_or_default()
    }

    /// How a repository is, in a word.
    fn state<B: Backend>(
        visit: &Visit<'_, B>,
        repository: &Repository,
        standing: Standing,
    ) -> &'static str {
        let name = repository.name.as_str();
        if visit.backend().not_built(name).is_some() {
            return "not served";
        }
        let Some(upstream) = repository.upstream() else {
            return "ok";
        };
        if upstream.offline {
            return "offline";
        }
        match (standing.answering, standing.failing) {
            (true, false) => "ok",
            (true, true) => "degraded",
            (false, true) => "failing",
            (false, false) => "unknown",
        }
    }

    /// What every page about a repository begins with.
    pub(crate) fn head<B: Backend>(
        &self,
        visit: &Visit<'_, B>,
        repository: &Repository,
    ) -> RepositoryHead {
        RepositoryHead {
            name: repository.name.to_string(),
            kind: repository.kind().as_str(),
            package: repository.package.as_str(),
            description: repository.description.clone(),
            state: Self::state(visit, repository, {
                let name = repository.name.as_str();
                let own = self.upstreams.iter().filter(|r| r.repository == name);
                own.fold(Standing::default(), Standing::with)
            }),
        }
    }

    /// All repositories, each as a row of a table. What belongs to one is looked up, not searched: there may be thousands.
    pub(crate) fn rows<B: Backend>(
        &self,
        visit: &Visit<'_, B>,
        held: &HeldSummary,
    ) -> Vec<RepositoryRow> {
        let sizes = held.repositories.iter();
        let sizes: HashMap<&str, &HeldSize> = sizes.map(|size| (&*size.repository, size)).collect();
        let mut standings: HashMap<&str, Standing> = HashMap::new();
        for report in &self.upstreams {
            let standing = standings.entry(&report.repository).or_default();
            *standing = standing.with(report);
        }
        let all = visit.backend().repositories();
        let row = |repository: &std::sync::Arc<Repository>| {
            let name = repository.name.as_str();
            let standing = standings.get(name).copied().unwrap_or_default();
            self.row(visit, repository, sizes.get(name).copied(), standing)
        };
        all.iter().map(row).collect()
    }

    fn row<B: Backend>(
        &self,
        visit: &Visit<'_, B>,
        repository: &Repository,
        size: Option<&HeldSize>,
        standing: Standing,
    ) -> RepositoryRow {
        let name = repository.name.as_str();
        let has_files = repository.kind() != RepositoryKind::Virtual;
        let requests = self.of(name);
        RepositoryRow {
            name: name.to_owned(),
            kind: repository.kind().as_str(),
            package: repository.package.as_str(),
            description: repository.description.clone(),
            state: Self::state(visit, repository, standing),
            files: has_files.then(|| Count(size.map_or(0, |size| size.files))),
            bytes: has_files.then(|| Bytes(size.map_or(0, |size| size.bytes))),
            requests: Count(requests.requests),
            hit_ratio: requests.hit_ratio().map(Share),
        }
    }
}

/// What the places of a repository's upstream do, taken together.
#[derive(Debug, Clone, Copy, Default)]
struct Standing {
    answering: bool,
    failing: bool,
}

impl Standing {
    fn with(self, report: &UpstreamReport) -> Self {
        Self {
            answering: self.answering || report.standing == UpstreamStanding::Ok,
            failing: self.failing || report.standing == UpstreamStanding::Failing,
        }
    }
}

/// What was asked of each repository since the start, by name. What names none is none of it.
pub(crate) fn traffic(metrics: &Metrics) -> BTreeMap<String, Figures> {
    let all = metrics.traffic().into_iter();
    all.filter(|(name, _)| !name.is_empty()).collect()
}

/// What moves while one looks.
pub(crate) fn live(engine: &CounterSnapshot, requests: &BTreeMap<String, Figures>) -> Live {
    let all = requests.values();
    let all = all.fold(Figures::default(), |all, one| all.plus(*one));
    let fetched = engine.repositories.iter();
    let fetched = fetched.map(|(_, counters)| value_of(counters, "upstream_bytes"));
    Live {
        flights: Count(engine.flights_active),
        requests: Count(all.requests),
        hit_ratio: all.hit_ratio().map(Share),
        sent: Bytes(all.served_bytes),
        fetched: Bytes(fetched.sum()),
    }
}

fn counter(engine: &CounterSnapshot, repository: &str, name: &str) -> u64 {
    let mut all = engine.repositories.iter();
    let counters = all.find(|(known, _)| known == repository);
    counters.map_or(0, |(_, counters)| value_of(counters, name))
}

fn value_of(counters: &[(&'static str, u64)], name: &str) -> u64 {
    let found = counters.iter().find(|(known, _)| *known == name);
    found.map_or(0, |(_, value)| *value)
}

/// The room there is.
pub(crate) fn disk<B: Backend>(backend: &B, space: Option<DiskSpace>) -> Option<Disk> {
    let space = space?;
    let used = backend.disk_use();
    Some(Disk {
        free: Bytes(space.free),
        total: Bytes(space.total),
        reserve: Bytes(space.reserve),
        keeping: space.is_keeping(),
        limit: used.limit.map(Bytes),
        kept: used.kept.map(Bytes),
        full_in_days: None,
    })
}

/// What is counted of each mirror, by repository and address.
pub(crate) type Mirrors<'a> = HashMap<(&'a str, &'a str), &'a MirrorReport>;

/// Those that are counted.
pub(crate) fn mirrors(engine: &CounterSnapshot) -> Mirrors<'_> {
    let all = engine.mirrors.iter();
    all.map(|mirror| ((&*mirror.repository, &*mirror.mirror), mirror))
        .collect()
}

/// A place of an upstream. What is counted of each mirror is added where there are several.
pub(crate) fn mirror(report: &UpstreamReport, mirrors: &Mirrors<'_>) -> Mirror {
    let own = mirrors
        .get(&(&*report.repository, &*report.upstream))
        .copied();
    let counter = |name: &str| {
        let mut counters = own?.counters.iter();
        let (_, value) = counters.find(|(known, _)| *known == name)?;
        Some(Count(*value))
    };
    let last = report.last_error.as_ref();
    Mirror {
        upstream: report.upstream.clone(),
        state: report.standing.as_str(),
        since: report.since.map(Moment),
        requests: counter("requests"),
        failures: counter("failures"),
        in_order: own.is_none_or(|mirror| mirror.healthy),
        last_error: last.map(|failure| failure.reason.clone()),
        last_error_at: last.map(|failure| Moment(failure.at)),
        last_answer_at: report.last_answer.map(Moment),
        first_byte_ms: report.latency.map(|time| time.as_secs_f64() * 1_000.0),
        lag: lag(&report.lag),
    }
}

fn lag(lag: &IndexLag) -> Lag {
    match lag {
        IndexLag::Known { behind, index, at } => Lag {
            behind: Some(Span(behind.as_secs())),
            unknown: None,
            index: Some(index.clone()),
            seen_at: Some(Moment(*at)),
        },
        IndexLag::Unknown(why) => Lag {
            behind: None,
            unknown: Some(why),
            index: None,
            seen_at: None,
        },
    }
}

//! The hot set: answers that are sent again without asking anybody (mechanics, section 1). Found by the raw request target, then
//! by the few headers that chose between forms; bounded by weight; holds an answer only as long as its ticket is good.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use larder_core::{CacheStatus, Source, UnixMillis};
use larder_engine::{Body, Cleared, HotTicket};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::metrics::{HotSetSize, RepositoryRequests};
use crate::respond::{Prepared, Timing};
use crate::selector::Selector;

/// Bodies up to this length are held in memory, longer ones as open files.
pub(crate) const MAX_IN_MEMORY: u64 = 64 << 10;

/// What an open file weighs at least: with the default of 64 MiB at most 4,096 stay open.
const FILE_WEIGHT: u64 = 16 << 10;

/// How many files a hot set of so many bytes holds open at most, where descriptors are plenty.
#[must_use]
pub fn hot_files(bytes: u64) -> usize {
    usize::try_from(bytes / FILE_WEIGHT).unwrap_or(usize::MAX)
}

/// What an entry weighs beside its body and its texts: tables, bookkeeping.
const ENTRY_WEIGHT: u64 = 1_024;

/// Forms of one target that are held at once.
const MAX_VARIANTS: usize = 8;

/// Answers by request target.
pub(crate) struct HotSet {
    cache: Option<Cache<Box<str>, Arc<HotTarget>, ByWeight>>,
}

/// All forms of one target.
#[derive(Debug)]
pub(crate) struct HotTarget {
    variants: Vec<Arc<HotVariant>>,
}

/// One answer.
#[derive(Debug)]
pub(crate) struct HotVariant {
    pub(crate) selector: Selector,
    pub(crate) prepared: Prepared,
    pub(crate) body: HotBody,
    pub(crate) ticket: HotTicket,
    pub(crate) requests: Arc<RepositoryRequests>,
}

/// Bytes that can be sent any number of times.
#[derive(Debug, Clone)]
pub(crate) enum HotBody {
    Bytes(Bytes),
    File { file: Arc<File>, length: u64 },
}

impl HotTarget {
    /// The answer for a request, if there is one and it still holds. `is_base` tells whether the client used that base URL.
    pub(crate) fn find(
        &self,
        headers: &HeaderMap,
        is_base: impl Fn(&str) -> bool,
        now: UnixMillis,
    ) -> Option<&HotVariant> {
        let fitting = self
            .variants
            .iter()
            .find(|variant| variant.selector.fits(headers, &is_base))?;
        fitting.ticket.is_good(now).then_some(fitting)
    }

    fn weight(&self, file_weight: u64) -> u64 {
        self.variants
            .iter()
            .map(|variant| variant.weight(file_weight))
            .sum()
    }
}

impl HotVariant {
    fn weight(&self, file_weight: u64) -> u64 {
        ENTRY_WEIGHT
            + (self.selector.weight() + self.prepared.weight()) as u64
            + match &self.body {
                HotBody::Bytes(bytes) => bytes.len() as u64,
                HotBody::File { .. } => file_weight,
            }
    }

    /// The age and remaining life at `now`.
    pub(crate) fn timing(&self, now: UnixMillis) -> Timing {
        timing(&self.ticket, now)
    }
}

/// The age and remaining life at `now` of an answer with this ticket.
pub(crate) fn timing(ticket: &HotTicket, now: UnixMillis) -> Timing {
    let remaining = ticket.fresh_until.map(|until| until.since(now));
    let ttl = remaining.map(|remaining| remaining.as_secs() as i64);
    Timing {
        age: now.since(ticket.contacted_at),
        remaining,
        no_store: false,
        cache_status: CacheStatus {
            hit: true,
            ttl,
            ..CacheStatus::default()
        },
        source: Source::Cache,
    }
}

impl HotBody {
    /// What is kept of an answer's body: what has been read of it, else where it is. Only bodies that can be sent again may come here;
    /// of any other nothing is kept.
    pub(crate) fn new(body: Cleared<Body>, loaded: Option<Bytes>) -> Self {
        match (loaded, body.into_inner()) {
            (Some(bytes), _) | (None, Body::Memory(bytes)) => Self::Bytes(bytes),
            (
                None,
                Body::File {
                    file,
                    length,
                    offset: 0,
                },
            ) => Self::File { file, length },
            (None, Body::Empty | Body::File { .. } | Body::Growing(_) | Body::Stream(_)) => {
                Self::Bytes(Bytes::new())
            }
        }
    }

    pub(crate) fn is_file(&self) -> bool {
        matches!(self, Self::File { .. })
    }

    /// Whether the file still has all its bytes: whoever shortens it behind larder's back must not break every answer from now on.
    pub(crate) fn is_intact(&self) -> bool {
        match self {
            Self::Bytes(_) => true,
            Self::File { file, length } => file
                .metadata()
                .is_ok_and(|metadata| metadata.len() == *length),
        }
    }

    /// Whether its space on the disk comes back when it is let go only: its file is deleted, since it was read long ago as far as the
    /// store knows.
    fn is_deleted(&self) -> bool {
        match self {
            Self::Bytes(_) => false,
            Self::File { file, .. } => file.metadata().is_ok_and(|metadata| metadata.nlink() == 0),
        }
    }

    pub(crate) fn body(&self) -> Body {
        match self.clone() {
            Self::Bytes(bytes) => Body::Memory(bytes),
            Self::File { file, length } => Body::file(file, length),
        }
    }
}

impl HotSet {
    /// A set of at most `bytes` with at most `files` of them open; 0 bytes hold nothing.
    pub(crate) fn new(bytes: u64, files: usize) -> Self {
        let items = hot_files(bytes).clamp(16, 65_536);
        let file_weight = FILE_WEIGHT.max(bytes.div_ceil(files.max(1) as u64));
        Self {
            cache: (bytes > 0)
                .then(|| Cache::with_weighter(items, bytes, ByWeight { file_weight })),
        }
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.cache.is_some()
    }

    pub(crate) fn get(&self, target: &str) -> Option<Arc<HotTarget>> {
        self.cache.as_ref()?.get(target)
    }

    /// Remembers an answer beside those of the same target that still hold. Of two that come at the same moment one may be
    /// lost: it is made again.
    pub(crate) fn insert(&self, target: &str, variant: HotVariant, now: UnixMillis) {
        let Some(cache) = &self.cache else { return };
        let held = cache.peek(target);
        let held = held.iter().flat_map(|target| &target.variants);
        let still_good = held
            .filter(|other| other.ticket.is_good(now) && other.selector != variant.selector)
            .map(Arc::clone);
        let mut variants: Vec<_> = still_good.collect();
        if variants.len() >= MAX_VARIANTS {
            variants.remove(0);
        }
        variants.push(Arc::new(variant));
        cache.insert(target.into(), Arc::new(HotTarget { variants }));
    }

    /// Forgets all forms of a target.
    pub(crate) fn remove(&self, target: &str) {
        if let Some(cache) = &self.cache {
            cache.remove(target);
        }
    }

    /// Drops what no longer holds, and with it open files whose blobs may be gone from the disk.
    pub(crate) fn sweep(&self, now: UnixMillis) {
        if let Some(cache) = &self.cache {
            cache.retain(|_, target| {
                target
                    .variants
                    .iter()
                    .any(|variant| variant.ticket.is_good(now) && !variant.body.is_deleted())
            });
        }
    }

    pub(crate) fn clear(&self) {
        if let Some(cache) = &self.cache {
            cache.clear();
        }
    }

    pub(crate) fn size(&self) -> HotSetSize {
        self.cache
            .as_ref()
            .map_or_else(HotSetSize::default, |cache| HotSetSize {
                entries: cache.len() as u64,
                bytes: cache.weight(),
            })
    }
}

impl fmt::Debug for HotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HotSet").field(&self.size()).finish()
    }
}

#[derive(Debug, Clone)]
struct ByWeight {
    file_weight: u64,
}

impl Weighter<Box<str>, Arc<HotTarget>> for ByWeight {
    fn weight(&self, target: &Box<str>, value: &Arc<HotTarget>) -> u64 {
        target.len() as u64 + value.weight(self.file_weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    use http::HeaderValue;
    use larder_engine::{Representation, scripted};

    use crate::metrics::Metrics;

    const NOW: UnixMillis = UnixMillis(1_000_000);

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    fn variant(
        vary: &[&str],
        request: &HeaderMap,
        body: &[u8],
        fresh_until: Option<UnixMillis>,
    ) -> HotVariant {
        HotVariant {
            selector: Selector::new(vary, request, "http://a").unwrap(),
            prepared: Prepared::new(http::StatusCode::OK, Representation::default(), None),
            body: HotBody::Bytes(Bytes::copy_from_slice(body)),
            ticket: scripted::ticket(
                &Arc::new(AtomicU64::new(7)),
                fresh_until,
                UnixMillis(990_000),
            ),
            requests: Metrics::new().repository("r"),
        }
    }

    fn body_of(set: &HotSet, request: &HeaderMap, base: &str, now: UnixMillis) -> Option<Vec<u8>> {
        let target = set.get("/t")?;
        let found = target.find(request, |wanted| wanted == base, now)?;
        let HotBody::Bytes(bytes) = &found.body else {
            panic!("not in memory")
        };
        Some(bytes.to_vec())
    }

    #[test]
    fn forms_are_told_apart_by_the_raw_headers_they_vary_by() {
        let set = HotSet::new(1 << 20, 4_096);
        let json = headers(&[("accept", "application/json")]);
        let html = headers(&[("accept", "text/html"), ("accept-encoding", "gzip")]);
        set.insert(
            "/t",
            variant(&["accept", "accept-encoding"], &json, b"json", None),
            NOW,
        );
        set.insert(
            "/t",
            variant(&["accept", "accept-encoding"], &html, b"html", None),
            NOW,
        );
        assert_eq!(body_of(&set, &json, "x", NOW).unwrap(), b"json");
        assert_eq!(body_of(&set, &html, "x", NOW).unwrap(), b"html");
        for other in [
            headers(&[]),
            headers(&[("accept", "text/html")]),
            headers(&[("accept", "application/json"), ("accept-encoding", "gzip")]),
            headers(&[
                ("accept", "application/json"),
                ("accept", "application/json"),
            ]),
        ] {
            assert_eq!(body_of(&set, &other, "x", NOW), None, "{other:?}");
        }
    }

    #[test]
    fn absolute_links_belong_to_one_base() {
        let set = HotSet::new(1 << 20, 4_096);
        set.insert(
            "/t",
            variant(&["host"], &headers(&[]), b"links to a", None),
            NOW,
        );
        assert!(body_of(&set, &headers(&[]), "http://a", NOW).is_some());
        assert!(body_of(&set, &headers(&[]), "http://b", NOW).is_none());
    }

    /// A tier of files in front of a store has its own idea of what was read long ago.
    #[test]
    fn the_sweep_lets_files_go_that_are_deleted_and_no_others() {
        let set = HotSet::new(1 << 20, 4_096);
        let directory = tempfile::tempdir().unwrap();
        for name in ["stays", "goes"] {
            let path = directory.path().join(name);
            std::fs::write(&path, b"bytes").unwrap();
            let file = Arc::new(File::open(&path).unwrap());
            let variant = HotVariant {
                body: HotBody::File { file, length: 5 },
                ..variant(&[], &headers(&[]), b"", None)
            };
            set.insert(name, variant, NOW);
        }
        std::fs::remove_file(directory.path().join("goes")).unwrap();
        set.sweep(NOW);
        assert!(set.get("goes").is_none(), "its space comes back");
        assert!(set.get("stays").is_some());
    }

    #[test]
    fn an_answer_holds_until_its_ticket_ends() {
        let set = HotSet::new(1 << 20, 4_096);
        set.insert(
            "/t",
            variant(&[], &headers(&[]), b"x", Some(UnixMillis(1_005_000))),
            NOW,
        );
        let target = set.get("/t").unwrap();
        let timing = target
            .find(&headers(&[]), |_| false, NOW)
            .unwrap()
            .timing(NOW);
        assert_eq!(
            (timing.age.as_secs(), timing.remaining.unwrap().as_secs()),
            (10, 5)
        );
        assert!(body_of(&set, &headers(&[]), "", UnixMillis(1_004_999)).is_some());
        assert!(body_of(&set, &headers(&[]), "", UnixMillis(1_005_000)).is_none());
        set.sweep(UnixMillis(1_005_000));
        assert_eq!(set.size().entries, 0);
    }

    #[test]
    fn the_newest_eight_forms_are_held() {
        let set = HotSet::new(1 << 20, 4_096);
        let requests: Vec<HeaderMap> = (0..9)
            .map(|n| {
                let mut map = HeaderMap::new();
                map.insert(
                    "accept",
                    HeaderValue::from_str(&format!("type/{n}")).unwrap(),
                );
                map
            })
            .collect();
        for request in &requests {
            set.insert("/t", variant(&["accept"], request, b"x", None), NOW);
        }
        let held: Vec<bool> = requests
            .iter()
            .map(|request| body_of(&set, request, "", NOW).is_some())
            .collect();
        assert_eq!(
            held,
            [false, true, true, true, true, true, true, true, true]
        );
    }

    fn tempfile() -> File {
        File::open("/dev/null").unwrap()
    }

    #[test]
    fn the_set_is_bounded_by_weight_and_zero_holds_nothing() {
        let set = HotSet::new(1 << 20, 4_096);
        for n in 0..200 {
            set.insert(
                &format!("/{n}"),
                variant(&[], &headers(&[]), &vec![0; 60_000], None),
                NOW,
            );
        }
        assert!(set.size().bytes <= 1 << 20, "{:?}", set.size());
        assert!(set.size().entries > 0);
        let few = HotSet::new(64 << 20, 128);
        for n in 0..1000 {
            let file = HotBody::File {
                file: Arc::new(tempfile()),
                length: 1 << 20,
            };
            few.insert(
                &format!("/{n}"),
                HotVariant {
                    body: file,
                    ..variant(&[], &headers(&[]), b"", None)
                },
                NOW,
            );
        }
        assert!((64..=128).contains(&few.size().entries), "{:?}", few.size());
        assert_eq!(
            (hot_files(64 << 20), hot_files(1 << 30)),
            (4_096, 65_536),
            "a larger set has room for more files"
        );
        let none = HotSet::new(0, 4_096);
        none.insert("/t", variant(&[], &headers(&[]), b"x", None), NOW);
        assert!(none.get("/t").is_none());
    }

    #[test]
    fn hazard_x2_an_entry_weighs_what_it_keeps_of_request_and_answer() {
        let (mut request, mut long) = (HeaderMap::new(), HeaderMap::new());
        request.insert("accept", HeaderValue::from_static("a"));
        long.insert("accept", HeaderValue::from_str(&"a".repeat(1_000)).unwrap());
        let weight = |request: &HeaderMap, disposition: usize| {
            let representation = Representation {
                content_disposition: Some("d".repeat(disposition)),
                ..Representation::default()
            };
            let prepared = Prepared::new(http::StatusCode::OK, representation, None);
            HotVariant {
                prepared,
                ..variant(&["accept"], request, b"x", None)
            }
            .weight(FILE_WEIGHT)
        };
        assert_eq!(weight(&long, 1) - weight(&request, 1), 999);
        assert_eq!(weight(&request, 4_000) - weight(&request, 1), 3_999);
    }
}

//! What an operator would alert on, counted without locks. Rendered by the server's `/metrics`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use larder_core::UnixMillis;
use larder_upstream::{UpstreamResponse, retry_after};

use crate::news::{News, NewsDesk, millis};

/// The most that `Retry-After` is heeded.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);
/// An allowance of which no more than one in so many requests is left is kept for what is not held.
const KEPT_FOR_MISSES: u64 = 10;
/// What was said of an allowance longer ago does not hold any more: it grows again.
const SAID_LONG_AGO: Duration = Duration::from_mins(10);

macro_rules! counters {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub struct $name { $($(#[$field_doc])* pub $field: AtomicU64,)+ }

        impl $name {
            /// Every counter with its name and value.
            pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($field), self.$field.load(Ordering::Relaxed)),)+]
            }

            /// Sets every counter to zero (`PUT /cache/flush?cache_type=metrics`).
            pub fn reset(&self) {
                $(self.$field.store(0, Ordering::Relaxed);)+
            }
        }
    };
}

counters! {
    /// Of one repository.
    RepositoryCounters {
        /// Answers from a held copy (those of the hot set are counted by the server).
        hits,
        /// Requests that started a download.
        misses,
        /// Requests that joined a running download.
        collapsed,
        /// Expired copies served because the upstream failed or took longer than `stale.wait`.
        stale_served,
        /// Copies renewed without a download.
        revalidated,
        /// Requests answered 429 or 503 without asking, because the upstream has said when to come back.
        told_to_wait,
        /// Requests sent upstream.
        upstream_requests,
        /// Requests upstream that brought no usable answer.
        upstream_errors,
        /// Body bytes received.
        upstream_bytes,
        /// Bodies whose digest was not the stated one.
        digest_mismatches,
        /// Files that were kept although their index states another digest (`verify: warn`).
        mismatches_kept,
        /// Links of indexes that are not carried, counted whenever a form of such an index is made.
        links_not_carried,
        /// Times that this member was left out of a merged index because it had none to give.
        members_skipped,
        /// Documents that could not be used.
        malformed_documents,
        /// Patterns that ran into their step limit.
        pattern_limits,
        /// Requests refused by access patterns.
        denied,
        /// Requests answered 404 by quarantine.
        quarantined,
        /// Downloads kept.
        fills_committed,
        /// Downloads that failed.
        fills_failed,
        /// Downloads served but not kept (disk nearly full, `max_size`, flush).
        fills_not_kept,
        /// Downloads taken up again after a cut.
        fills_resumed,
        /// Held copies that went to make room.
        evicted_files,
        /// Their bytes.
        evicted_bytes,
    }
}

counters! {
    /// Of one mirror of a repository's upstream.
    MirrorCounters {
        /// Requests sent to it.
        requests,
        /// Failures: no answer, 5xx, 429, refused credentials, a body that was cut or wrong.
        failures,
        /// Requests behind the scenes that asked whether it is back.
        probes,
    }
}

/// A histogram of times, as Prometheus has them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LatencyReport {
    /// Upper end in seconds (the last: infinity), and how many answers took no longer, and longer than the bucket before.
    pub buckets: Vec<(f64, u64)>,
    /// All of them, in seconds.
    pub sum: f64,
}

impl LatencyReport {
    /// How many answers there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }
}

/// One mirror as `/metrics` shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct MirrorReport {
    /// The repository's name.
    pub repository: String,
    /// The mirror's address, without secrets.
    pub mirror: String,
    /// Its counters, by name.
    pub counters: Vec<(&'static str, u64)>,
    /// Whether it is asked at its place in the list, rather than put aside after a failure.
    pub healthy: bool,
    /// How long its answers took to begin.
    pub latency: LatencyReport,
    /// How far its index is behind the newest among the mirrors, as far as that is known.
    pub lag: Option<Duration>,
}

counters! {
    /// Of the whole process.
    Counters {
        /// Unreferenced blobs deleted.
        gc_blobs_deleted,
        /// Bytes freed by that.
        gc_bytes_freed,
        /// Held copies that went to make room.
        evicted_files,
        /// Their bytes.
        evicted_bytes,
        /// Stored blobs that scrubs have read again.
        scrub_blobs,
        /// Their bytes.
        scrub_bytes,
        /// Those of them that were not what they should be.
        scrub_damaged,
        /// Names of damaged blobs that were fetched again at once.
        scrub_refetched,
        /// Uploaded files that scrubs have found damaged, each time that they did.
        scrub_local_damaged,
        /// Derivations made.
        derivations,
        /// Rows of the metadata database that were not what had been put there; since the start.
        metadata_damaged_rows,
        /// Statements that failed because the metadata database is damaged; since the start.
        metadata_damage_failures,
        /// Damaged metadata databases put aside; since the start.
        metadata_put_aside,
    }
}

/// What an upstream last said, here or on another replica, of its rate limit, in the fields that Docker Hub and other registries send.
#[derive(Debug, Default)]
pub struct UpstreamQuota {
    /// A mark of upstream and account.
    account: String,
    news: Arc<NewsDesk>,
    limit: AtomicOptionU64,
    remaining: AtomicOptionU64,
    /// Until when it wants to be left alone, in milliseconds.
    busy_until: AtomicI64,
    /// When it said so.
    busy_since: AtomicI64,
    /// When it last said something, in milliseconds.
    said_at: AtomicI64,
}

/// A number that may never have been said: 0 is "not yet", everything else is one more than the number.
#[derive(Debug, Default)]
struct AtomicOptionU64(AtomicU64);

impl AtomicOptionU64 {
    /// What a field says; `100;w=21600`: so many in a window of so many seconds.
    fn read(headers: &HeaderMap, name: &str) -> Option<u64> {
        headers.get(name).and_then(|value| {
            value
                .to_str()
                .ok()?
                .split([';', ','])
                .next()?
                .trim()
                .parse::<u64>()
                .ok()
        })
    }

    fn set(&self, number: Option<u64>) {
        if let Some(number) = number {
            self.0.store(number.saturating_add(1), Ordering::Relaxed);
        }
    }

    fn get(&self) -> Option<u64> {
        self.0.load(Ordering::Relaxed).checked_sub(1)
    }
}

impl UpstreamQuota {
    /// Of the account with this mark.
    pub(crate) fn new(account: &str, news: &Arc<NewsDesk>) -> Self {
        Self {
            account: account.to_owned(),
            news: Arc::clone(news),
            ..Self::default()
        }
    }

    /// What an answer says of the allowance, and when to come back if it was 429; an answer that says nothing changes nothing. Other
    /// replicas are told.
    pub(crate) fn record_rate_limit(&self, response: &UpstreamResponse, now: UnixMillis) {
        let refused = response.status == StatusCode::TOO_MANY_REQUESTS;
        let limit = AtomicOptionU64::read(&response.headers, "ratelimit-limit");
        let remaining = AtomicOptionU64::read(&response.headers, "ratelimit-remaining");
        let pause = retry_after(&response.headers, now).filter(|_| refused);
        if limit.is_none() && remaining.is_none() && pause.is_none() {
            return;
        }
        self.heard(limit, remaining, pause, now);
        self.news.say(|| News::Allowance {
            account: self.account.clone(),
            limit,
            remaining,
            pause_ms: pause.map(millis),
        });
    }

    /// Something was said of it a moment ago.
    pub(crate) fn heard(
        &self,
        limit: Option<u64>,
        remaining: Option<u64>,
        pause: Option<Duration>,
        now: UnixMillis,
    ) {
        self.limit.set(limit);
        self.remaining.set(remaining);
        self.said_at.store(now.0, Ordering::Relaxed);
        if let Some(pause) = pause {
            let until = now.plus(pause.min(LONGEST_PAUSE));
            self.busy_until.store(until.0, Ordering::Relaxed);
            self.busy_since.store(now.0, Ordering::Relaxed);
        }
    }

    /// How long ago it said that it wants to be left alone.
    pub(crate) fn busy_since(&self, now: UnixMillis) -> Duration {
        now.since(UnixMillis(self.busy_since.load(Ordering::Relaxed)))
    }

    /// Whether the upstream counts requests, and says how many are left.
    pub(crate) fn is_counted(&self) -> bool {
        self.remaining.get().is_some()
    }

    /// Whether so little is left that it is kept for what is not held.
    pub(crate) fn is_scarce(&self, now: UnixMillis) -> bool {
        let (limit, Some(remaining)) = (self.limit.get(), self.remaining.get()) else {
            return false;
        };
        let said_at = UnixMillis(self.said_at.load(Ordering::Relaxed));
        let is_current = said_at <= now && now.since(said_at) < SAID_LONG_AGO;
        is_current && remaining <= limit.unwrap_or(0) / KEPT_FOR_MISSES
    }

    /// [`snapshot`](Self::snapshot), and for how many seconds it still wants to be left alone.
    pub fn snapshot_at(&self, now: UnixMillis) -> Vec<(&'static str, u64)> {
        let pause = self.busy_for(now);
        let pause = pause.map(|pause| ("upstream_quota_retry_in_seconds", pause.as_secs()));
        self.snapshot().into_iter().chain(pause).collect()
    }

    /// How long it still wants to be left alone. Longer than `Retry-After` may be is the mark of a clock that was set back.
    pub(crate) fn busy_for(&self, now: UnixMillis) -> Option<Duration> {
        let until = UnixMillis(self.busy_until.load(Ordering::Relaxed));
        (now < until)
            .then(|| until.since(now))
            .filter(|pause| *pause <= LONGEST_PAUSE)
    }

    /// Every number that was said, with its name.
    pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
        let said = [
            ("upstream_quota_limit", self.limit.get()),
            ("upstream_quota_remaining", self.remaining.get()),
        ];
        said.into_iter()
            .filter_map(|(name, number)| Some((name, number?)))
            .collect()
    }
}

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

//! Who is told to come back later comes back later: an upstream's 429 or 503 with `Retry-After` (RFC 9110 section 10.2.3) is the answer to
//! everybody who asks for that path until that time is over, and nobody asks. An expired copy stays meanwhile, and is the answer where
//! `stale.on_status` lists the status. In memory only; a flush forgets it. Other replicas are told.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use larder_core::{Fault, SourceKey, UnixMillis};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::query::Arrival;
use crate::counters::count;
use crate::fault::passed_on;
use crate::news::{Named, News, NewsDesk, millis};
use crate::target::Target;

/// After this an upstream is asked again, whatever it said.
const LONGEST: Duration = Duration::from_secs(60);
/// Memory for all of them, in bytes.
const BUDGET: u64 = 2 << 20;
/// What an entry weighs beside its key: the table's own place for it.
const ENTRY_WEIGHT: u64 = 160;

/// What an upstream said of a path.
#[derive(Debug, Clone, Copy)]
struct Refusal {
    status: u16,
    /// When it wants to be asked again.
    over: UnixMillis,
    /// When it is asked again.
    asked_again: UnixMillis,
}

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<SourceKey, Refusal> for ByBytes {
    fn weight(&self, key: &SourceKey, _: &Refusal) -> u64 {
        ENTRY_WEIGHT + key.weight()
    }
}

/// The refusals that are still in force.
#[derive(Debug)]
pub(crate) struct Refusals {
    known: Cache<SourceKey, Refusal, ByBytes>,
    news: Arc<NewsDesk>,
}

impl Refusals {
    /// None yet; what comes is handed in at `news`.
    pub(crate) fn new(news: Arc<NewsDesk>) -> Self {
        Self {
            known: Cache::with_weighter(256, BUDGET, ByBytes),
            news,
        }
    }

    /// Another replica was refused a moment ago.
    pub(crate) fn heard(&self, key: &SourceKey, status: u16, pause: Duration, now: UnixMillis) {
        if matches!(status, 429 | 503) && !pause.is_zero() {
            self.note(key, status, pause, now);
        }
    }

    fn note(&self, key: &SourceKey, status: u16, pause: Duration, now: UnixMillis) {
        let refusal = Refusal {
            status,
            over: now.plus(pause),
            asked_again: now.plus(pause.min(LONGEST)),
        };
        self.known.insert(key.clone(), refusal);
    }

    /// The status, and how long the upstream still wants to be left alone.
    fn standing(&self, key: &SourceKey, now: UnixMillis) -> Option<(u16, Duration)> {
        let refusal = self.known.get(key)?;
        // Further away than it can be is the mark of a clock that was set back.
        if now < refusal.asked_again && refusal.asked_again.since(now) <= LONGEST {
            return Some((refusal.status, refusal.over.since(now)));
        }
        self.known.remove(key);
        None
    }

    pub(crate) fn forget(&self, which: impl Fn(&SourceKey) -> bool) {
        self.known.retain(|key, _| !which(key));
    }

    /// Whether the upstream has refused this path and said when to come back.
    pub(super) fn stands(&self, wanted: &Target, now: UnixMillis) -> bool {
        self.standing(&wanted.key, now).is_some()
    }

    /// The answer in place of asking, if the upstream has refused and said when to come back.
    pub(super) fn told_to_wait(&self, wanted: &Target, now: UnixMillis) -> Option<Fault> {
        let of_path = self.standing(&wanted.key, now);
        let (status, pause) = of_path.or_else(|| of_account(wanted, now))?;
        count(&wanted.entry.counters.told_to_wait);
        let what = if of_path.is_some() {
            "(a flush forgets it)"
        } else {
            "(it counts the requests of the account)"
        };
        let message = format!(
            "the upstream of repository {} answered {status} and said when to come back; {} is not asked for again before that, nor for \
             more than {} s {what}",
            wanted.entry.repository.name,
            larder_core::shown(&wanted.spec.key_path),
            LONGEST.as_secs()
        );
        Some(Fault {
            message,
            rule: Some("retry_after".to_owned()),
            ..passed_on(wanted, status, Some(pause))
        })
    }

    /// Takes note of a refusal that says when to come back, unless a flush has come since the upstream was asked in `epoch`.
    pub(super) fn note_refusal(
        &self,
        wanted: &Target,
        arrival: &Arrival,
        epoch: u64,
        now: UnixMillis,
    ) {
        let flushed = wanted.entry.flushes.load(Ordering::Acquire) != epoch;
        if let Some(pause) = arrival.come_back_in.filter(|_| !flushed) {
            let status = arrival.response.status.as_u16();
            self.note(&wanted.key, status, pause, now);
            self.news.say(|| News::Refusal {
                of: Named::of(&wanted.key),
                status,
                pause_ms: millis(pause),
            });
        }
    }
}

/// What an upstream that counts requests has said to all that this account asks for, where it is of a kind that is counted: what has
/// variants by type, as manifests have. Where there is somebody else to ask, that one is asked.
fn of_account(wanted: &Target, now: UnixMillis) -> Option<(u16, Duration)> {
    let quota = &wanted.entry.quota;
    let is_counted = quota.is_counted() && wanted.spec.accept.is_some();
    if !is_counted || wanted.entry.mirrors.len() > 1 {
        return None;
    }
    let (pause, since) = (quota.busy_for(now)?, quota.busy_since(now));
    (since < LONGEST).then_some((429, pause))
}

#[cfg(test)]
mod tests {
    use super::*;
    use larder_core::RepositoryName;

    const NOW: UnixMillis = UnixMillis(1_000_000_000);

    fn key(path: &str) -> SourceKey {
        SourceKey {
            repository: RepositoryName::parse("r").unwrap(),
            path: path.into(),
            variant: "".into(),
        }
    }

    #[test]
    fn a_refusal_stands_for_its_time_and_no_longer_than_a_minute() {
        let refusals = Refusals::new(Arc::default());
        refusals.note(&key("short"), 429, Duration::from_secs(7), NOW);
        refusals.note(&key("long"), 503, Duration::from_secs(3600), NOW);
        let standing = |path: &str, after: u64| {
            refusals
                .standing(&key(path), NOW.plus(Duration::from_secs(after)))
                .map(|(status, pause)| (status, pause.as_secs()))
        };
        assert_eq!(standing("short", 0), Some((429, 7)));
        assert_eq!(standing("short", 5), Some((429, 2)));
        assert_eq!(standing("short", 7), None);
        assert_eq!(
            standing("long", 59),
            Some((503, 3541)),
            "the upstream's own word, to the client"
        );
        assert_eq!(standing("long", 60), None);
        assert_eq!(standing("other", 0), None);
        refusals.note(&key("back"), 429, Duration::from_secs(60), NOW);
        assert!(
            refusals
                .standing(&key("back"), UnixMillis(NOW.0 - 600_000))
                .is_none(),
            "a clock that was set back"
        );
    }

    /// Paths are up to 2,048 bytes, and strangers choose them.
    #[test]
    fn any_number_of_refusals_takes_no_more_than_their_budget() {
        let refusals = Refusals::new(Arc::default());
        for n in 0..20_000 {
            refusals.note(
                &key(&format!("{n}{}", "x".repeat(2_000))),
                429,
                Duration::from_secs(60),
                NOW,
            );
        }
        assert!(
            refusals.known.weight() <= BUDGET && refusals.known.len() <= 1_000,
            "{} of {}",
            refusals.known.weight(),
            refusals.known.len()
        );
        assert!(refusals.known.len() > 100);
    }
}

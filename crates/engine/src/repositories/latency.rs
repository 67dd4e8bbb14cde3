//! How long a place takes to begin its answers, and when it last gave one. Counted where an answer arrives: a hit has none.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use larder_core::UnixMillis;

use crate::counters::LatencyReport;

/// Upper ends of the histogram's buckets, in milliseconds; one more bucket has what is longer.
const ENDS_MS: [u64; 10] = [5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000];
/// An answer's weight in the mean is one of so many.
const WEIGHT: u64 = 8;

/// The time to the first byte of a place's answers, since the start of the process.
#[derive(Debug, Default)]
pub(crate) struct Latency {
    buckets: [AtomicU64; ENDS_MS.len() + 1],
    sum_us: AtomicU64,
    /// An exponentially weighted mean, in microseconds; 0: no answer yet.
    mean_us: AtomicU64,
    /// When the last answer came, in milliseconds; 0: none yet.
    last: AtomicI64,
}

impl Latency {
    /// An answer has begun at `now`, so long after it was asked for. Two at once may count as one in the mean.
    pub(crate) fn note(&self, took: Duration, now: UnixMillis) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let bucket = ENDS_MS.iter().position(|end| took_us <= end * 1_000);
        self.buckets[bucket.unwrap_or(ENDS_MS.len())].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(took_us, Relaxed);
        let mean = match self.mean_us.load(Relaxed) {
            0 => took_us,
            mean => mean - mean / WEIGHT + took_us / WEIGHT,
        };
        self.mean_us.store(mean.max(1), Relaxed);
        self.last.store(now.0, Relaxed);
    }

    /// What answers take at present; `None`: there was none yet.
    pub(crate) fn mean(&self) -> Option<Duration> {
        let mean = self.mean_us.load(Relaxed);
        (mean > 0).then(|| Duration::from_micros(mean))
    }

    /// When the last answer came.
    pub(crate) fn last(&self) -> Option<UnixMillis> {
        let last = self.last.load(Relaxed);
        (last > 0).then_some(UnixMillis(last))
    }

    pub(crate) fn report(&self) -> LatencyReport {
        let ends = ENDS_MS.iter().map(|end| *end as f64 / 1_000.0);
        let ends = ends.chain([f64::INFINITY]);
        let counts = self.buckets.iter().map(|count| count.load(Relaxed));
        LatencyReport {
            buckets: ends.zip(counts).collect(),
            sum: self.sum_us.load(Relaxed) as f64 / 1_000_000.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_follows_what_answers_take_and_the_histogram_has_them_all() {
        let latency = Latency::default();
        assert_eq!((latency.mean(), latency.last()), (None, None));
        latency.note(Duration::from_millis(40), UnixMillis(1_000));
        assert_eq!(latency.mean(), Some(Duration::from_millis(40)));
        for second in 0..60 {
            latency.note(Duration::from_millis(800), UnixMillis(2_000 + second));
        }
        let mean = latency.mean().unwrap().as_millis();
        assert!((750..=800).contains(&mean), "{mean} ms");
        latency.note(Duration::from_secs(9), UnixMillis(3_000));
        assert_eq!(latency.last(), Some(UnixMillis(3_000)));
        let report = latency.report();
        assert_eq!(report.count(), 62);
        assert!((report.sum - 57.04).abs() < 1e-6, "{}", report.sum);
        let of = |end: f64| {
            let mut all = report.buckets.iter();
            all.find(|(known, _)| *known >= end).unwrap().1
        };
        assert_eq!((of(0.05), of(1.0), of(f64::INFINITY)), (1, 60, 1));
    }
}

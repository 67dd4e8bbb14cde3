//! What was counted, as the engine writes it down: the same counters that `/metrics` shows.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;

use larder_core::ErrorCode;
use larder_engine::{Figures, TrafficSource};

use super::{CLASSES, KINDS, Metrics, RepositoryRequests, RequestKind};

/// The codes of what rules and quarantine refuse.
const BY_RULES: [ErrorCode; 3] = [
    ErrorCode::LinkForged,
    ErrorCode::PatternDenied,
    ErrorCode::Quarantined,
];
/// The place of `5xx`.
const FAILED: usize = CLASSES.len() - 1;

impl TrafficSource for Metrics {
    fn traffic(&self) -> Vec<(String, Figures)> {
        let mut refused: HashMap<String, u64> = HashMap::new();
        for ((repository, code), count) in self.refused.counts() {
            if BY_RULES.contains(&code) {
                *refused.entry(repository).or_default() += count;
            }
        }
        let all = self.repositories.load();
        let of_one = |(name, requests): (&String, &std::sync::Arc<RepositoryRequests>)| {
            let figures = Figures {
                refused: refused.get(name).copied().unwrap_or(0),
                ..requests.figures()
            };
            (name.clone(), figures)
        };
        all.iter().map(of_one).collect()
    }
}

impl RepositoryRequests {
    fn figures(&self) -> Figures {
        let mut figures = Figures::default();
        for (kind, _) in KINDS {
            for (class, cell) in self.cells[kind as usize].iter().enumerate() {
                let count = cell.load(Relaxed);
                figures.requests += count;
                figures.errors += if class == FAILED { count } else { 0 };
                match kind {
                    RequestKind::Hit => figures.hits += count,
                    RequestKind::Miss | RequestKind::Collapsed | RequestKind::Revalidated => {
                        figures.misses += count;
                    }
                    RequestKind::Stale => figures.stale += count,
                    RequestKind::Bypass | RequestKind::Refused | RequestKind::Other => {}
                }
            }
        }
        for hot in &self.hot {
            let count = hot.sum();
            figures.requests += count;
            figures.hits += count;
        }
        figures.served_bytes = self.sent.iter().map(super::BytesSent::sum).sum();
        figures
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use larder_core::{Fault, FaultKind, Source, UnixMillis};

    use super::*;

    #[test]
    fn requests_are_told_apart_by_how_they_were_answered() {
        let metrics = Metrics::new();
        let files = metrics.repository("files");
        files.count(RequestKind::Hit, StatusCode::OK);
        files.count_hot(StatusCode::NOT_MODIFIED);
        files.count(RequestKind::Miss, StatusCode::OK);
        files.count(RequestKind::Collapsed, StatusCode::OK);
        files.count(RequestKind::Revalidated, StatusCode::OK);
        files.count(RequestKind::Stale, StatusCode::OK);
        files.count(RequestKind::Bypass, StatusCode::OK);
        files.count(RequestKind::Refused, StatusCode::BAD_GATEWAY);
        files.count(RequestKind::Refused, StatusCode::FORBIDDEN);
        for code in [ErrorCode::PatternDenied, ErrorCode::NotFound] {
            let fault = Fault::new(FaultKind::Forbidden, code, "no");
            metrics
                .refused()
                .note("files", &fault, false, UnixMillis(1));
        }
        files.sent(Source::Cache).add(70);
        files.sent(Source::Remote).add(7);
        let expected = Figures {
            requests: 9,
            hits: 2,
            misses: 3,
            stale: 1,
            errors: 1,
            refused: 1,
            served_bytes: 77,
            fetched_bytes: 0,
        };
        assert_eq!(metrics.traffic(), [("files".to_owned(), expected)]);
    }
}

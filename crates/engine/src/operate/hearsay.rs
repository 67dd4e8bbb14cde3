//! What other replicas have learnt of upstreams, taken over here as if it had been learnt here.

use std::time::Duration;

use super::operator::Operator;
use crate::catalog::Foreign as _;
use crate::cluster::Hears;
use crate::news::News;

impl Hears for Operator {
    fn heard(&self, news: News) {
        let now = self.catalog.now();
        match news {
            News::Allowance {
                account,
                limit,
                remaining,
                pause_ms,
            } => {
                let repositories = self.registry.load();
                if let Some(quota) = repositories.allowance(&account) {
                    let pause = pause_ms.map(Duration::from_millis);
                    quota.heard(limit, remaining, pause, now);
                }
            }
            News::Refusal {
                of,
                status,
                pause_ms,
            } => {
                let Some(key) = of.key().filter(|key| self.entry(&key.repository).is_some()) else {
                    return;
                };
                let pause = Duration::from_millis(pause_ms);
                self.remote.refusals.heard(&key, status, pause, now);
            }
            News::Absence {
                of,
                origins,
                status,
            } => {
                let Some(key) = of.key() else { return };
                let entry = self.entry(&key.repository);
                let asks_the_same = |own: &[std::sync::Arc<str>; 2]| {
                    own.iter()
                        .zip(&origins)
                        .all(|(own, other)| **own == **other)
                };
                if let Some(entry) = entry.filter(|entry| asks_the_same(&entry.origins))
                    && matches!(status, 404 | 410)
                {
                    self.catalog.heard_absent(&entry, &key, status);
                }
            }
        }
    }
}

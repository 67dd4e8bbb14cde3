//! What upstreams allow: one for all repositories that ask the same upstream with the same account.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use larder_core::{Repository, sha256};

use crate::counters::UpstreamQuota;
use crate::news::NewsDesk;

/// All of them, by the mark of upstream and account. Outlives a reload.
#[derive(Debug, Default)]
pub(crate) struct Allowances {
    by_account: Mutex<HashMap<String, Weak<UpstreamQuota>>>,
    news: Arc<NewsDesk>,
}

impl Allowances {
    pub(crate) fn new(news: &Arc<NewsDesk>) -> Arc<Self> {
        Arc::new(Self {
            by_account: Mutex::default(),
            news: Arc::clone(news),
        })
    }

    fn by_account(&self) -> MutexGuard<'_, HashMap<String, Weak<UpstreamQuota>>> {
        self.by_account
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// That of a repository. One without an upstream has one of its own, of which nothing is ever said.
    pub(crate) fn of(&self, repository: &Repository) -> Arc<UpstreamQuota> {
        let Some(account) = mark(repository) else {
            return Arc::default();
        };
        let mut known = self.by_account();
        if let Some(quota) = known.get(&account).and_then(Weak::upgrade) {
            return quota;
        }
        let quota = Arc::new(UpstreamQuota::new(&account, &self.news));
        known.insert(account, Arc::downgrade(&quota));
        quota
    }

    /// Forgets those that no repository has any more.
    pub(crate) fn forget_unused(&self) {
        self.by_account()
            .retain(|_, quota| quota.strong_count() > 0);
    }

    /// That with this mark, if a repository has it.
    pub(crate) fn known(&self, account: &str) -> Option<Arc<UpstreamQuota>> {
        self.by_account().get(account)?.upgrade()
    }
}

/// What tells upstream and account from others, on every replica. It says nothing of the account.
fn mark(repository: &Repository) -> Option<String> {
    let upstream = repository.upstream()?;
    let origin = upstream.base_urls.first()?.origin().ascii_serialization();
    let user = upstream
        .credentials
        .as_ref()
        .map_or("", |credentials| credentials.username.as_str());
    let mut mark = sha256(format!("{origin}\n{user}").as_bytes()).to_hex();
    mark.truncate(32);
    Some(mark)
}

//! Places for uploads that are being received: a number in all, of which no repository gets the last quarter, nor more than a quarter
//! while others wait. Whoever sends slowly takes a place for a long time, and must not keep others from theirs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use larder_core::{ErrorCode, Fault, FaultKind};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// When a client that found no place should ask again.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// All places.
#[derive(Debug)]
pub(crate) struct Uploads {
    most: usize,
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct State {
    taken: usize,
    by: HashMap<String, Use>,
}

/// What one repository has of them.
#[derive(Debug, Default, Clone, Copy)]
struct Use {
    taken: usize,
    waiting: usize,
}

/// A place, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct UploadPlace {
    uploads: Arc<Uploads>,
    repository: String,
}

impl Uploads {
    /// So many places.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most: most.max(1),
            state: Mutex::default(),
            freed: Notify::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for an upload to a repository, waiting for one as long as `patience`.
    ///
    /// # Errors
    /// 503 if there is none until then.
    pub(crate) async fn take(
        self: &Arc<Self>,
        repository: &str,
        patience: Duration,
    ) -> Result<UploadPlace, Fault> {
        let until = Instant::now() + patience;
        if let Some(place) = self.try_take(repository) {
            return Ok(place);
        }
        let _waiting = Waiting::begin(self, repository);
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable();
            if let Some(place) = self.try_take(repository) {
                return Ok(place);
            }
            if timeout_at(until, freed).await.is_err() {
                let message = "as many uploads as larder takes at once are being received; send it again in a moment";
                let fault = Fault::new(FaultKind::Unavailable, ErrorCode::Busy, message);
                return Err(fault.retry_after(Some(ASK_AGAIN)));
            }
        }
    }

    fn try_take(self: &Arc<Self>, repository: &str) -> Option<UploadPlace> {
        let mut state = self.state();
        let quarter = (self.most / 4).max(1);
        let share = if state.others_wait(repository, quarter) {
            quarter
        } else {
            self.most - self.most / 4
        };
        let own = state.by.get(repository).copied().unwrap_or_default();
        if state.taken >= self.most || own.taken >= share {
            return None;
        }
        state.taken += 1;
        state.by.entry(repository.to_owned()).or_default().taken += 1;
        Some(UploadPlace {
            uploads: Arc::clone(self),
            repository: repository.to_owned(),
        })
    }

    fn change(&self, repository: &str, change: impl FnOnce(&mut State, &mut Use)) {
        let mut state = self.state();
        let mut own = state.by.remove(repository).unwrap_or_default();
        change(&mut state, &mut own);
        if own.taken > 0 || own.waiting > 0 {
            state.by.insert(repository.to_owned(), own);
        }
    }
}

impl State {
    /// Whether another repository waits that has less than its quarter.
    fn others_wait(&self, repository: &str, quarter: usize) -> bool {
        let mut others = self.by.iter().filter(|(name, _)| *name != repository);
        others.any(|(_, other)| other.waiting > 0 && other.taken < quarter)
    }
}

impl UploadPlace {
    /// Whether others wait for a place, be it this one or another.
    pub(crate) fn is_wanted(&self) -> bool {
        let state = self.uploads.state();
        state.by.values().any(|one| one.waiting > 0)
    }
}

impl Drop for UploadPlace {
    fn drop(&mut self) {
        self.uploads.change(&self.repository, |state, own| {
            state.taken -= 1;
            own.taken -= 1;
        });
        self.uploads.freed.notify_waiters();
    }
}

/// One more waits, until it is dropped.
struct Waiting<'a>(&'a Uploads, &'a str);

impl<'a> Waiting<'a> {
    fn begin(uploads: &'a Uploads, repository: &'a str) -> Self {
        uploads.change(repository, |_, own| own.waiting += 1);
        Self(uploads, repository)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.change(self.1, |_, own| own.waiting -= 1);
        // Those whose share was smaller because of it.
        self.0.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn one_repository_leaves_a_quarter_and_takes_no_more_while_another_waits() {
        let uploads = Uploads::new(8);
        let mut first: Vec<_> = (0..6).filter_map(|_| uploads.try_take("a")).collect();
        assert_eq!(first.len(), 6);
        let refused = uploads.take("a", PATIENCE).await.unwrap_err();
        assert_eq!(
            (refused.code, refused.kind),
            (ErrorCode::Busy, FaultKind::Unavailable)
        );
        let second = [(); 2].map(|()| uploads.try_take("b").unwrap());
        let waiting = tokio::spawn({
            let uploads = Arc::clone(&uploads);
            async move { uploads.take("c", PATIENCE).await }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(uploads.try_take("a").is_none());
        first.truncate(4);
        assert!(
            uploads.try_take("a").is_none(),
            "it has its quarter, and c waits"
        );
        let third = waiting.await.unwrap().unwrap();
        assert!(uploads.try_take("a").is_some(), "nobody waits any more");
        drop((first, second, third));
        assert!(uploads.state().by.is_empty() && uploads.state().taken == 0);
    }
}

//! Files that are open because a body has arrived and waits to be committed. Committing takes a disk's time: a quick upstream would fill
//! the queue with open files until nobody can open one (hazard R5). So what waits in the queue has a place, and a download waits for room
//! in the queue before its upstream is asked. How many downloads are under way is bounded by their own places (`budget/`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use larder_core::RepositoryName;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::target::Target;

/// So long a download waits for others to be committed. Then it begins all the same: a document may be waited for by the one that it
/// waits for.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a spool is for. Files wait for their documents, so documents do not wait for files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Document,
    File,
}

/// Places for spools in the queue: so many for documents, and as many for files. No repository has the last quarter.
#[derive(Debug)]
pub(crate) struct Spools {
    most: usize,
    documents: Mutex<Taken>,
    files: Mutex<Taken>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by: HashMap<RepositoryName, usize>,
}

/// A place, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct SpoolPlace {
    spools: Arc<Spools>,
    kind: Kind,
    repository: RepositoryName,
}

impl Spools {
    /// For so many downloads of files at once, and as many of documents.
    pub(crate) fn new(downloads: usize) -> Arc<Self> {
        Arc::new(Self {
            most: downloads.max(1),
            documents: Mutex::default(),
            files: Mutex::default(),
            freed: Notify::new(),
        })
    }

    /// Waits for room in the queue for the body of this source, and not for ever.
    pub(crate) async fn room(&self, wanted: &Target) {
        self.wait_for(kind_of(wanted), &wanted.key.repository).await;
    }

    /// A place for a body that has arrived: it waits for nobody.
    pub(crate) fn take_now(self: &Arc<Self>, wanted: &Target) -> SpoolPlace {
        self.take_anyway(kind_of(wanted), &wanted.key.repository)
    }

    async fn wait_for(&self, kind: Kind, repository: &RepositoryName) {
        let until = Instant::now() + PATIENCE;
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable();
            if self.has_room(kind, repository) || timeout_at(until, freed).await.is_err() {
                return;
            }
        }
    }

    fn has_room(&self, kind: Kind, repository: &RepositoryName) -> bool {
        let share = self.most - self.most / 4;
        let taken = self.taken(kind);
        let own = taken.by.get(repository).copied().unwrap_or_default();
        taken.all < self.most && own < share
    }

    fn take_anyway(self: &Arc<Self>, kind: Kind, repository: &RepositoryName) -> SpoolPlace {
        let mut taken = self.taken(kind);
        taken.all += 1;
        *taken.by.entry(repository.clone()).or_default() += 1;
        drop(taken);
        SpoolPlace {
            spools: Arc::clone(self),
            kind,
            repository: repository.clone(),
        }
    }

    fn taken(&self, kind: Kind) -> MutexGuard<'_, Taken> {
        let taken = match kind {
            Kind::Document => &self.documents,
            Kind::File => &self.files,
        };
        taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SpoolPlace {
    fn drop(&mut self) {
        let mut taken = self.spools.taken(self.kind);
        taken.all -= 1;
        if let Some(own) = taken.by.get_mut(&self.repository) {
            *own -= 1;
            if *own == 0 {
                taken.by.remove(&self.repository);
            }
        }
        drop(taken);
        self.spools.freed.notify_waiters();
    }
}

fn kind_of(wanted: &Target) -> Kind {
    if wanted.spec.is_document || wanted.facts.role.is_some() {
        Kind::Document
    } else {
        Kind::File
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(name: &str) -> RepositoryName {
        RepositoryName::parse(name).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_download_waits_for_what_is_queued_and_not_for_ever() {
        let spools = Spools::new(2);
        let (one, other) = (repository("one"), repository("other"));
        let queued = [&one, &other].map(|name| spools.take_anyway(Kind::File, name));
        let began = Instant::now();
        spools.wait_for(Kind::Document, &one).await;
        assert_eq!(
            began.elapsed(),
            Duration::ZERO,
            "documents wait for no file"
        );
        let waiting = tokio::spawn({
            let (spools, one) = (Arc::clone(&spools), one.clone());
            async move {
                spools.wait_for(Kind::File, &one).await;
                Instant::now()
            }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!waiting.is_finished());
        drop(queued);
        assert_eq!(waiting.await.unwrap() - began, Duration::from_secs(1));
        let _more = [&one, &other].map(|name| spools.take_anyway(Kind::File, name));
        let began = Instant::now();
        spools.wait_for(Kind::File, &other).await;
        assert_eq!(began.elapsed(), PATIENCE);
        assert_eq!(spools.taken(Kind::File).all, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn no_repository_has_the_last_quarter() {
        let spools = Spools::new(8);
        let (one, other) = (repository("one"), repository("other"));
        let mut places = Vec::new();
        for _ in 0..6 {
            places.push(spools.take_anyway(Kind::Document, &one));
        }
        assert!(!spools.has_room(Kind::Document, &one));
        assert!(spools.has_room(Kind::Document, &other));
        places.clear();
        assert!(spools.has_room(Kind::Document, &one));
        assert!(
            spools.taken(Kind::Document).by.is_empty(),
            "nobody is remembered"
        );
    }
}

//! Name look-ups are leased: a resolver that says nothing keeps its look-ups for many seconds, on threads of the blocking pool that files
//! are read on, too. So no more than a few are under way at once, no repository has more than its share of them, many who ask for one
//! name share one look-up, and nobody waits for ever. What a name leads to is not judged here.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use larder_budget::{BudgetKind, Budgets, Lease};
use tokio::sync::watch;

use crate::resolver::NameLookup;

/// On whose behalf a name is looked up, and which.
type Asked = (Arc<str>, String);

/// What the resolver said: addresses, or the kind and the text of its error.
type Found = Result<Arc<[IpAddr]>, (io::ErrorKind, String)>;

/// The resolver has not answered in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the host name {name} cannot be resolved: no answer from the resolver for {} s", .waited.as_secs_f32())]
pub(crate) struct Unresolved {
    name: String,
    waited: Duration,
}

/// The look-ups of the whole process.
#[derive(Debug)]
pub(crate) struct Lookups {
    lookup: Arc<dyn NameLookup>,
    budgets: Arc<Budgets>,
    running: Mutex<HashMap<Asked, Arc<watch::Sender<Option<Found>>>>>,
}

impl Lookups {
    pub(crate) fn new(lookup: Arc<dyn NameLookup>, budgets: Arc<Budgets>) -> Arc<Self> {
        Arc::new(Self {
            lookup,
            budgets,
            running: Mutex::default(),
        })
    }

    fn running(&self) -> MutexGuard<'_, HashMap<Asked, Arc<watch::Sender<Option<Found>>>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The addresses of `name`, looked up for `owner` (a repository), waiting no longer than `wait`.
    ///
    /// # Errors
    /// The name does not exist, or the resolver has not answered in time, be it because it answers none of this repository's names.
    pub(crate) async fn addresses(
        self: &Arc<Self>,
        owner: &Arc<str>,
        name: &str,
        wait: Duration,
    ) -> Result<Arc<[IpAddr]>, Box<dyn Error + Send + Sync>> {
        let mut coming = self.join_or_begin((Arc::clone(owner), name.to_ascii_lowercase()));
        let came = tokio::time::timeout(wait, coming.wait_for(Option::is_some)).await;
        let Ok(found) = came else {
            let name = name.to_owned();
            return Err(Box::new(Unresolved { name, waited: wait }));
        };
        let found = found.ok().and_then(|found| found.clone());
        match found {
            Some(Ok(addresses)) => Ok(addresses),
            Some(Err((kind, text))) => Err(Box::new(io::Error::new(kind, text))),
            None => Err("as many names as may be are being looked up for this repository: its resolver may be slow".into()),
        }
    }

    /// The look-up that is under way, or a new one.
    fn join_or_begin(self: &Arc<Self>, asked: Asked) -> watch::Receiver<Option<Found>> {
        let mut all = self.running();
        if let Some(running) = all.get(&asked) {
            return running.subscribe();
        }
        let sender = Arc::new(watch::Sender::new(None));
        let receiver = sender.subscribe();
        all.insert(asked.clone(), Arc::clone(&sender));
        drop(all);
        let running = Running {
            lookups: Arc::clone(self),
            asked,
            sender,
        };
        // It goes on when nobody waits any more: the resolver cannot be called off.
        crate::spawn(running.run());
        receiver
    }
}

/// A look-up that others may join.
struct Running {
    lookups: Arc<Lookups>,
    asked: Asked,
    sender: Arc<watch::Sender<Option<Found>>>,
}

impl Running {
    async fn run(self) {
        let Some(_place) = self.place().await else {
            return;
        };
        let found = self.lookups.lookup.addresses(&self.asked.1).await;
        let found = found
            .map(Arc::from)
            .map_err(|error| (error.kind(), error.to_string()));
        self.sender.send_replace(Some(found));
    }

    /// A place. `None`: nobody waits for it any more, or too much of the repository waits.
    async fn place(&self) -> Option<Lease> {
        let place = self
            .lookups
            .budgets
            .place(BudgetKind::Lookups, &self.asked.0);
        let mut place = std::pin::pin!(place);
        loop {
            tokio::select! {
                biased;
                () = self.sender.closed() => {
                    let mut all = self.lookups.running();
                    // Somebody may have joined at the last moment.
                    if self.sender.receiver_count() == 0 {
                        all.remove(&self.asked);
                        return None;
                    }
                }
                place = &mut place => return place.ok(),
            }
        }
    }
}

impl Drop for Running {
    /// Who comes from now on begins anew, however this has ended.
    fn drop(&mut self) {
        let mut all = self.lookups.running();
        if all
            .get(&self.asked)
            .is_some_and(|running| Arc::ptr_eq(running, &self.sender))
        {
            all.remove(&self.asked);
        }
    }
}

//! What one replica has learnt of an upstream and the others may know without asking: what it still allows, when it wants to be left
//! alone, what it has not got. Said once, to whoever listens; nothing depends on its being heard. Times are spans, for clocks differ.

use std::sync::OnceLock;
use std::time::Duration;

use larder_core::{RepositoryName, SourceKey};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// How many may wait to be told; more are not told.
const MOST_WAITING: usize = 1_024;

/// Something learnt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum News {
    /// What an upstream allows an account.
    Allowance {
        /// A mark of upstream and account.
        account: String,
        limit: Option<u64>,
        remaining: Option<u64>,
        /// How long it wants to be left alone, in milliseconds.
        pause_ms: Option<u64>,
    },
    /// An upstream refuses one path for a while.
    Refusal {
        of: Named,
        status: u16,
        pause_ms: u64,
    },
    /// An upstream has not got something: 404 or 410.
    Absence {
        of: Named,
        /// Marks of the repository's upstreams: where another replica asks others, it means nothing.
        origins: [String; 2],
        status: u16,
    },
}

/// A source, as it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Named {
    repository: String,
    path: String,
    variant: String,
}

impl Named {
    pub(crate) fn of(key: &SourceKey) -> Self {
        Self {
            repository: key.repository.to_string(),
            path: key.path.to_string(),
            variant: key.variant.to_string(),
        }
    }

    /// `None` if it is none of a repository.
    pub(crate) fn key(self) -> Option<SourceKey> {
        Some(SourceKey {
            repository: RepositoryName::parse(&self.repository).ok()?,
            path: self.path.into(),
            variant: self.variant.into(),
        })
    }
}

/// A span, as it is told.
pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Where news are handed in. Until somebody asks for them, there are none.
#[derive(Debug, Default)]
pub(crate) struct NewsDesk(OnceLock<mpsc::Sender<News>>);

impl NewsDesk {
    /// Tells the others, if there are any. Nothing is waited for.
    pub(crate) fn say(&self, news: impl FnOnce() -> News) {
        if let Some(sender) = self.0.get() {
            // What is not told is found out by asking.
            let _ = sender.try_send(news());
        }
    }

    /// What is said from now on; `None` if somebody has it already.
    pub(crate) fn open(&self) -> Option<mpsc::Receiver<News>> {
        let (sender, receiver) = mpsc::channel(MOST_WAITING);
        self.0.set(sender).ok().map(|()| receiver)
    }
}

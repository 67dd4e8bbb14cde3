//! What is found out about a repository's upstream while it is used. All of it is a hint, forgotten at a reload and a restart.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use larder_core::UnixMillis;

use crate::causes::Causes;

/// Documents of which it is remembered that something was said of their links.
const MOST_TOLD: usize = 1024;
/// How long it is believed that an upstream takes a media type, or does not.
const BELIEVED: Duration = Duration::from_hours(1);

/// Of one repository.
#[derive(Debug, Default)]
pub(crate) struct Learnt {
    /// Documents of whose links the log has spoken.
    told: Mutex<HashSet<String>>,
    /// What has been warned of.
    pub(crate) causes: Causes,
    /// Until when the usual `Accept` is known to be answered, in milliseconds.
    usual_until: AtomicI64,
    /// Until when it is known not to be.
    other_until: AtomicI64,
}

/// What is known of an upstream and the usual `Accept` of its documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tongue {
    /// It answers that.
    Usual,
    /// It has only answered the other one.
    Other,
    Unknown,
}

impl Learnt {
    /// Whether this document has not been spoken of before. Of more documents than are remembered the log speaks again.
    pub(crate) fn is_news(&self, document: &str) -> bool {
        let Ok(mut told) = self.told.lock() else {
            return false;
        };
        if told.len() >= MOST_TOLD {
            told.clear();
        }
        told.insert(document.to_owned())
    }

    pub(crate) fn tongue(&self, now: UnixMillis) -> Tongue {
        match () {
            () if now.0 < self.other_until.load(Ordering::Relaxed) => Tongue::Other,
            () if now.0 < self.usual_until.load(Ordering::Relaxed) => Tongue::Usual,
            () => Tongue::Unknown,
        }
    }

    pub(crate) fn answers_usual(&self, now: UnixMillis) {
        self.usual_until.store(until(now), Ordering::Relaxed);
    }

    pub(crate) fn answers_other(&self, now: UnixMillis) {
        self.other_until.store(until(now), Ordering::Relaxed);
    }
}

fn until(now: UnixMillis) -> i64 {
    now.0
        .saturating_add(i64::try_from(BELIEVED.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_upstream_answers_is_believed_for_a_while() {
        let learnt = Learnt::default();
        assert_eq!(learnt.tongue(UnixMillis(0)), Tongue::Unknown);
        learnt.answers_usual(UnixMillis(0));
        assert_eq!(learnt.tongue(UnixMillis(3_599_999)), Tongue::Usual);
        assert_eq!(learnt.tongue(UnixMillis(3_600_000)), Tongue::Unknown);
        learnt.answers_other(UnixMillis(0));
        assert_eq!(learnt.tongue(UnixMillis(1)), Tongue::Other);
    }

    #[test]
    fn a_document_is_news_once_and_what_is_remembered_is_bounded() {
        let learnt = Learnt::default();
        assert!(
            learnt.is_news("index.yaml")
                && !learnt.is_news("index.yaml")
                && learnt.is_news("sub/index.yaml")
        );
        for number in 0..3 * MOST_TOLD {
            learnt.is_news(&number.to_string());
        }
        assert!(learnt.told.lock().unwrap().len() <= MOST_TOLD);
    }
}

//! Names for requests in logs and in `X-Request-Id`: unique within a process, and very probably among processes.
//!
//! Most requests are answered at their first poll and log nothing. They have no span, which would cost more than the answer; whoever
//! has something to say of them after all finds here which request is being answered.

use std::cell::Cell;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

thread_local! {
    /// 0: none.
    static CURRENT: Cell<u64> = const { Cell::new(0) };
}

/// Prints as 8 hexadecimal digits of the process, a hyphen, and the request's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId(u64);

impl RequestId {
    /// The next one, from 1.
    pub fn next() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        Self(COUNT.fetch_add(1, Ordering::Relaxed))
    }

    /// The request that this thread is answering at this moment.
    pub fn current() -> Option<Self> {
        Some(CURRENT.get()).filter(|id| *id != 0).map(Self)
    }

    /// Does `work`, which is no more than one poll of an answer, as this request.
    pub fn while_current<R>(self, work: impl FnOnce() -> R) -> R {
        struct Before(u64);
        impl Drop for Before {
            fn drop(&mut self) {
                CURRENT.set(self.0);
            }
        }
        let _before = Before(CURRENT.replace(self.0));
        work()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        static PROCESS: OnceLock<u32> = OnceLock::new();
        let process = PROCESS.get_or_init(|| RandomState::new().hash_one(0_u8) as u32);
        write!(f, "{process:08x}-{:x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_answers_one_request_at_a_time_and_then_none() {
        assert_eq!(RequestId::current(), None);
        let (outer, inner) = (RequestId::next(), RequestId::next());
        let seen = outer.while_current(|| {
            (
                inner.while_current(RequestId::current),
                RequestId::current(),
            )
        });
        assert_eq!(
            (seen, RequestId::current()),
            ((Some(inner), Some(outer)), None)
        );
        assert_ne!(outer.to_string(), inner.to_string());
    }
}

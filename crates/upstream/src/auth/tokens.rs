//! Tokens in memory, and who fetches them. Knows that two requests which need the same token cause one request for it; does not know
//! how it is fetched.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{HeaderValue, StatusCode};
use larder_core::{RepositoryName, UnixMillis};
use url::{Origin, Url};

use super::token::Token;
use crate::error::UpstreamError;

/// At most about this many tokens are kept.
const MAX_TOKENS: usize = 4096;

/// Everything that makes two tokens differ. A token is never sent for another repository or account, nor to another origin than the
/// one whose challenge it was fetched for (hazard S8).
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct TokenKey {
    pub(crate) repository: RepositoryName,
    /// Who wants the token.
    pub(crate) audience: Origin,
    pub(crate) realm: Url,
    pub(crate) service: Option<String>,
    pub(crate) scopes: Vec<String>,
    /// The `Authorization` that the realm is shown; `None` for anonymous tokens.
    pub(crate) account: Option<HeaderValue>,
}

/// What a token server said.
#[derive(Debug, Clone)]
pub(crate) enum Grant {
    /// A token. It may allow less than was asked for.
    Token(Token),
    /// None for you: a 4xx status.
    Refused(StatusCode),
    /// Not now: 408, 429 or 5xx, with its `Retry-After`.
    Busy(StatusCode, Option<HeaderValue>),
}

/// An outcome, and whether it is news: made after the request for it came.
#[derive(Debug, Clone)]
pub(crate) struct Obtained {
    pub(crate) grant: Grant,
    pub(crate) fresh: bool,
}

type Outcome = Result<Grant, UpstreamError>;

/// The place of one token.
#[derive(Default)]
struct Slot {
    last: tokio::sync::Mutex<Option<Outcome>>,
    /// How many fetches have ended, whatever came of them.
    ended: AtomicU64,
}

/// All tokens.
#[derive(Default)]
pub(crate) struct Tokens {
    slots: Mutex<HashMap<TokenKey, Arc<Slot>>>,
}

impl Tokens {
    /// A good token that is not `rejected`, or else what `fetch` gives. Of many callers one fetches; those who came before the fetch
    /// ended share what came of it, failures too. If the one that fetches is dropped, the next takes over.
    pub(crate) async fn obtain(
        &self,
        key: &TokenKey,
        rejected: Option<u64>,
        now: UnixMillis,
        fetch: impl Future<Output = Outcome>,
    ) -> Result<Obtained, UpstreamError> {
        let slot = self.slot(key, now);
        let before = slot.ended.load(Ordering::Acquire);
        let mut last = slot.last.lock().await;
        let fresh = slot.ended.load(Ordering::Acquire) != before;
        match &*last {
            Some(Ok(Grant::Token(token))) if Some(token.number) == rejected => {}
            Some(Ok(grant @ Grant::Token(token))) if fresh || token.is_good(now) => {
                return Ok(Obtained {
                    grant: grant.clone(),
                    fresh,
                });
            }
            Some(outcome) if fresh => {
                return outcome.clone().map(|grant| Obtained { grant, fresh });
            }
            _ => {}
        }
        let outcome = fetch.await;
        *last = Some(outcome.clone());
        slot.ended.fetch_add(1, Ordering::Release);
        outcome.map(|grant| Obtained { grant, fresh: true })
    }

    /// Forgets every token.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    fn slot(&self, key: &TokenKey, now: UnixMillis) -> Arc<Slot> {
        let mut slots = self.lock();
        if let Some(slot) = slots.get(key) {
            return Arc::clone(slot);
        }
        if slots.len() >= MAX_TOKENS {
            let good = |slot: &Slot| {
                slot.last
                    .try_lock()
                    .is_ok_and(|last| matches!(&*last, Some(Ok(Grant::Token(t))) if t.is_good(now)))
            };
            slots.retain(|_, slot| Arc::strong_count(slot) > 1 || good(slot));
        }
        if slots.len() >= MAX_TOKENS {
            slots.clear();
        }
        Arc::clone(slots.entry(key.clone()).or_default())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TokenKey, Arc<Slot>>> {
        // Nothing above leaves a half-made change behind if it panics.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("kept", &self.lock().len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::UpstreamErrorKind;
    use std::time::Duration;

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

    fn key(scope: &str) -> TokenKey {
        let realm = Url::parse("https://auth.example.com/token").unwrap();
        TokenKey {
            repository: RepositoryName::parse("images").unwrap(),
            audience: Url::parse("https://registry.example.com/")
                .unwrap()
                .origin(),
            realm,
            service: None,
            scopes: vec![scope.to_owned()],
            account: None,
        }
    }

    fn token(number: u64, expires_in: u64) -> Grant {
        let body = format!("{{\"token\":\"t{number}\",\"expires_in\":{expires_in}}}");
        Grant::Token(Token::read(body.as_bytes(), None, NOW, number).unwrap())
    }

    fn number(obtained: Result<Obtained, UpstreamError>) -> (u64, bool) {
        match obtained.unwrap() {
            Obtained {
                grant: Grant::Token(token),
                fresh,
            } => (token.number, fresh),
            Obtained { grant, .. } => panic!("{grant:?}"),
        }
    }

    fn never() -> impl Future<Output = Outcome> {
        std::future::poll_fn(|_| panic!("nobody needed a token"))
    }

    #[tokio::test]
    async fn good_tokens_are_used_again_and_rejected_or_old_ones_are_not() {
        let tokens = Tokens::default();
        let a = key("a");
        assert_eq!(
            number(
                tokens
                    .obtain(&a, None, NOW, async { Ok(token(1, 300)) })
                    .await
            ),
            (1, true)
        );
        assert_eq!(
            number(tokens.obtain(&a, None, NOW, never()).await),
            (1, false)
        );
        assert_eq!(
            number(
                tokens
                    .obtain(&key("b"), None, NOW, async { Ok(token(2, 300)) })
                    .await
            ),
            (2, true)
        );
        assert_eq!(
            number(
                tokens
                    .obtain(&a, Some(1), NOW, async { Ok(token(3, 300)) })
                    .await
            ),
            (3, true)
        );
        assert_eq!(
            number(tokens.obtain(&a, Some(1), NOW, never()).await),
            (3, false),
            "somebody has renewed it meanwhile"
        );
        let later = NOW.plus(Duration::from_secs(271));
        assert_eq!(
            number(
                tokens
                    .obtain(&a, None, later, async { Ok(token(4, 300)) })
                    .await
            ),
            (4, true)
        );
        tokens.clear();
        assert_eq!(
            number(
                tokens
                    .obtain(&a, None, NOW, async { Ok(token(5, 300)) })
                    .await
            ),
            (5, true)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn oci_10_two_who_need_one_token_cause_one_fetch_and_share_what_came_of_it() {
        let slow = |outcome: Outcome| async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            outcome
        };
        let refused = || {
            let url = Url::parse("https://auth.example.com/").unwrap();
            Err(UpstreamError::at(
                UpstreamErrorKind::TimedOut,
                &RepositoryName::parse("images").unwrap(),
                &url,
                "late",
            ))
        };
        let tokens = Tokens::default();
        let key = key("a");
        // A token that lasts no time at all is still good for all who waited for it.
        let first = tokens.obtain(&key, None, NOW, slow(Ok(token(1, 0))));
        let (first, second) = tokio::join!(first, tokens.obtain(&key, None, NOW, never()));
        assert_eq!((number(first), number(second)), ((1, true), (1, true)));
        let first = tokens.obtain(&key, None, NOW, slow(refused()));
        let (first, second) = tokio::join!(first, tokens.obtain(&key, None, NOW, never()));
        assert!(first.is_err() && second.is_err());
        assert_eq!(
            number(
                tokens
                    .obtain(&key, None, NOW, async { Ok(token(2, 300)) })
                    .await
            ),
            (2, true),
            "a failure is not remembered"
        );
        // The first leaves; the second takes over.
        let left = tokio::time::timeout(
            Duration::from_millis(1),
            tokens.obtain(&key, Some(2), NOW, slow(Ok(token(3, 300)))),
        )
        .await;
        assert!(left.is_err());
        assert_eq!(
            number(
                tokens
                    .obtain(&key, Some(2), NOW, async { Ok(token(4, 300)) })
                    .await
            ),
            (4, true)
        );
    }

    #[tokio::test]
    async fn the_number_of_tokens_is_bounded() {
        let tokens = Tokens::default();
        for n in 0..2 * MAX_TOKENS as u64 {
            let _ = tokens
                .obtain(&key(&n.to_string()), None, NOW, async {
                    Ok(token(n, if n % 2 == 0 { 300 } else { 0 }))
                })
                .await;
            assert!(tokens.lock().len() <= MAX_TOKENS);
        }
    }
}

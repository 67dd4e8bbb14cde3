//! Wrong admin tokens, counted for each address that sends them and in all: whoever guesses has to wait, and the wait grows. Nothing sleeps
//! for it: the answer is 429 at once, with the time in `Retry-After`. Other addresses are never made to wait for it.
//!
//! Only tokens that differ count: a client that is set up with a wrong one sends the same again and again, and guesses nothing.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use larder_core::{ErrorCode, Fault, FaultKind};
use tokio::time::Instant;

use crate::origin_guard::{bearer, same};
use crate::places::Peer;
use crate::state::Shared;

/// So many wrong tokens an address may send before it has to wait for the next.
const FREE: u32 = 10;
/// So many while wrong tokens come from everywhere.
const FREE_UNDER_ATTACK: u32 = 2;
/// More than this in a minute, of all addresses together, is an attack.
const MANY: u32 = 300;
const MINUTE: Duration = Duration::from_mins(1);
/// The first wait; each further wrong token doubles it.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_mins(5);
/// An address that has sent no wrong token for so long begins anew.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(15);
/// Addresses that are remembered.
const MOST_PEERS: usize = 4_096;
/// Wrong tokens of one address that are known again.
const KNOWN: usize = 8;

/// Who has sent wrong tokens lately.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    inner: Mutex<Inner>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Inner {
    peers: HashMap<Peer, Wrong>,
    /// Wrong tokens of all since this moment, a minute at most.
    counted_since: Option<Instant>,
    in_all: u32,
}

/// What one address has sent.
#[derive(Debug)]
struct Wrong {
    count: u32,
    last: Instant,
    /// Until when it has to wait.
    until: Instant,
    /// Fingerprints of the last ones; 0 is nobody's.
    tokens: [u64; KNOWN],
}

impl Attempts {
    /// Whether this address may try a token now.
    ///
    /// # Errors
    /// It has to wait: 429 with `Retry-After`, whether the token is right or not.
    pub(crate) fn admit(&self, peer: Peer, now: Instant) -> Result<(), Fault> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let until = inner.peers.get(&peer).map(|wrong| wrong.until);
        match until.map(|until| until.saturating_duration_since(now)) {
            Some(wait) if !wait.is_zero() => Err(refused(wait)),
            _ => Ok(()),
        }
    }

    /// This address has sent a wrong token. Whether it has to wait from now on, and did not before.
    pub(crate) fn wrong(&self, peer: Peer, token: &str, now: Instant) -> bool {
        let token = self.hasher.hash_one(token) | 1;
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = inner
            .peers
            .get(&peer)
            .is_some_and(|wrong| !wrong.is_forgotten(now) && wrong.tokens.contains(&token));
        if is_known {
            return false;
        }
        let free = if inner.count(now) > MANY {
            FREE_UNDER_ATTACK
        } else {
            FREE
        };
        let wrong = inner.of(peer, now);
        wrong.tokens[wrong.count as usize % KNOWN] = token;
        wrong.count = wrong.count.saturating_add(1);
        wrong.last = now;
        let Some(doublings) = wrong.count.checked_sub(free) else {
            return false;
        };
        let wait = FIRST_WAIT.saturating_mul(1 << doublings.min(16));
        wrong.until = now + wait.min(LONGEST_WAIT);
        doublings == 0
    }
}

/// Looks at the bearer token of a request that needs the admin token, where there is one: an address that has sent too many wrong ones has to
/// wait. Not for requests that need none: their tokens may be meant for an upstream.
pub(crate) fn try_bearer(
    headers: &HeaderMap,
    client: IpAddr,
    shared: &Shared,
) -> Result<(), Fault> {
    let settings = shared.live.load();
    let Some(given) = settings.admin_token.as_ref().and_then(|_| bearer(headers)) else {
        return Ok(());
    };
    try_token(given, client, shared).map(drop)
}

/// Whether this is the admin token.
///
/// # Errors
/// This client has to wait before it may try another.
pub(crate) fn try_token(given: &str, client: IpAddr, shared: &Shared) -> Result<bool, Fault> {
    let (peer, now) = (Peer::new(client), Instant::now());
    shared.attempts.admit(peer, now)?;
    let settings = shared.live.load();
    let expected = settings.admin_token.as_ref();
    let is_right = expected.is_some_and(|token| same(given.as_bytes(), token.expose().as_bytes()));
    if !is_right && shared.attempts.wrong(peer, given, now) {
        tracing::warn!(%client, "too many wrong admin tokens came from this address: it has to wait before it may try another");
    }
    Ok(is_right)
}

impl Inner {
    /// Counts one more of all; gives how many there were in this minute.
    fn count(&mut self, now: Instant) -> u32 {
        let since = *self.counted_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= MINUTE {
            self.counted_since = Some(now);
            self.in_all = 0;
        }
        self.in_all = self.in_all.saturating_add(1);
        self.in_all
    }

    /// What is known of an address. Where there is no room for another, one that was wrong long ago gives way.
    fn of(&mut self, peer: Peer, now: Instant) -> &mut Wrong {
        if self.peers.len() >= MOST_PEERS && !self.peers.contains_key(&peer) {
            self.peers.retain(|_, wrong| !wrong.is_forgotten(now));
            let oldest = self.peers.iter().min_by_key(|(_, wrong)| wrong.last);
            if let Some(oldest) = oldest.map(|(peer, _)| *peer)
                && self.peers.len() >= MOST_PEERS
            {
                self.peers.remove(&oldest);
            }
        }
        let nothing = || Wrong {
            count: 0,
            last: now,
            until: now,
            tokens: [0; KNOWN],
        };
        let wrong = self.peers.entry(peer).or_insert_with(nothing);
        if wrong.is_forgotten(now) {
            *wrong = nothing();
        }
        wrong
    }
}

impl Wrong {
    fn is_forgotten(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) >= FORGOTTEN_AFTER
    }
}

fn refused(wait: Duration) -> Fault {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    let message = format!(
        "too many wrong tokens came from this address: no token is looked at for {seconds} s, then try again with the one of \
         auth.admin_token (LARDER_ADMIN_TOKEN)"
    );
    let fault = Fault::new(
        FaultKind::TooManyRequests,
        ErrorCode::TooManyAttempts,
        message,
    );
    Fault {
        retry_after: Some(wait),
        ..fault.by_rule("auth.admin_token")
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn v4(last: u8) -> Peer {
        Peer::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)))
    }

    fn wait_of(attempts: &Attempts, peer: Peer, now: Instant) -> u64 {
        let refused = attempts.admit(peer, now).err();
        refused.map_or(0, |fault| fault.retry_after.unwrap().as_secs())
    }

    #[test]
    fn hazard_whoever_guesses_waits_longer_each_time_and_nobody_else_does() {
        let (attempts, start) = (Attempts::default(), Instant::now());
        for number in 0..9 {
            assert!(!attempts.wrong(v4(1), &format!("guess {number}"), start));
            assert_eq!(wait_of(&attempts, v4(1), start), 0, "{number}");
        }
        assert!(attempts.wrong(v4(1), "guess 9", start));
        assert_eq!(wait_of(&attempts, v4(1), start), 1);
        let (mut now, mut waits) = (start, Vec::new());
        for number in 10..22 {
            now += Duration::from_secs(wait_of(&attempts, v4(1), now));
            assert!(attempts.admit(v4(1), now).is_ok());
            attempts.wrong(v4(1), &format!("guess {number}"), now);
            waits.push(wait_of(&attempts, v4(1), now));
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300]);
        assert!(attempts.admit(v4(2), now).is_ok(), "another address");
        let refused = attempts.admit(v4(1), now).unwrap_err();
        assert_eq!(refused.kind, FaultKind::TooManyRequests);
        // Who has been quiet begins anew.
        now += FORGOTTEN_AFTER;
        attempts.wrong(v4(1), "another guess", now);
        assert!(attempts.admit(v4(1), now).is_ok());
    }

    #[test]
    fn a_client_that_is_set_up_wrongly_guesses_nothing() {
        let (attempts, start) = (Attempts::default(), Instant::now());
        for second in 0..1_000 {
            let now = start + Duration::from_secs(second);
            for token in ["an old token", "that of another larder"] {
                assert!(attempts.admit(v4(1), now).is_ok(), "{second}");
                attempts.wrong(v4(1), token, now);
            }
        }
    }

    #[test]
    fn hazard_an_address_of_ipv6_is_a_network_of_64_bits() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        let network = |host: u128| {
            let prefix = u128::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 0));
            Peer::new(IpAddr::V6(Ipv6Addr::from(prefix + host)))
        };
        for host in 0..10 {
            attempts.wrong(network(host), &format!("guess {host}"), now);
        }
        assert!(attempts.admit(network(77), now).is_err());
        assert!(attempts.admit(network(1 << 64), now).is_ok());
    }

    #[test]
    fn hazard_many_who_guess_have_few_tries_each_and_take_bounded_memory() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        let of = |n: u32| Peer::new(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n)));
        for n in 0..20_000 {
            attempts.wrong(of(n), "a guess", now);
        }
        let peers = attempts.inner.lock().unwrap().peers.len();
        assert!(peers <= MOST_PEERS, "{peers}");
        // A new address still gets to try: the right token is never locked out elsewhere.
        assert!(attempts.admit(v4(9), now).is_ok());
        attempts.wrong(v4(9), "one", now);
        assert!(attempts.admit(v4(9), now).is_ok());
        attempts.wrong(v4(9), "two", now);
        assert!(attempts.admit(v4(9), now).is_err());
        // A quiet minute later there is no attack.
        let later = now + MINUTE;
        attempts.wrong(v4(10), "one", later);
        attempts.wrong(v4(10), "two", later);
        assert!(attempts.admit(v4(10), later).is_ok());
    }
}

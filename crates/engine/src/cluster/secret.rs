//! How replicas know each other: every request carries the time, a number used once, and an HMAC-SHA-256 of both with what is asked,
//! under the secret that all of them have.

use std::collections::hash_map::RandomState;
use std::collections::{HashSet, VecDeque};
use std::fmt::{self, Write as _};
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::{Mutex, PoisonError};

use hmac::{Hmac, KeyInit as _, Mac as _};
use larder_core::{Secret, UnixMillis};
use sha2::Sha256;

/// The request field that says who asks.
pub const CLUSTER_HEADER: &str = "larder-cluster";

/// Clocks of replicas may differ by this much, and a request may take it to arrive.
const SKEW_MS: i64 = 15_000;
/// Numbers that are remembered at most; the oldest are forgotten first.
const MOST_NONCES: usize = 100_000;
const FORM: &str = "v1";

/// The secret that replicas share, and what has been said under it lately.
pub struct ClusterSecret {
    secret: Secret<String>,
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    known: HashSet<String>,
    order: VecDeque<(i64, String)>,
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret(..)")
    }
}

impl ClusterSecret {
    /// From `cluster.secret`.
    pub fn new(secret: Secret<String>) -> Self {
        Self {
            secret,
            heard: Mutex::default(),
        }
    }

    /// The value of [`CLUSTER_HEADER`] for a GET of `target` (path and query) at this time.
    pub fn sign(&self, target: &str, now: UnixMillis) -> String {
        let nonce = nonce();
        let mac = self.mac(target, now.0, &nonce).finalize().into_bytes();
        format!("{FORM} {} {nonce} {}", now.0, hex(&mac))
    }

    /// Whether a replica has signed a GET of `target`, just now and for the first time.
    pub fn knows(&self, signature: &str, target: &str, now: UnixMillis) -> bool {
        let parts: Vec<&str> = signature.split(' ').collect();
        let [form, at, nonce, mac] = parts[..] else {
            return false;
        };
        let (Ok(at), Some(mac)) = (at.parse::<i64>(), unhex(mac)) else {
            return false;
        };
        form == FORM
            && nonce.len() <= 64
            && now.0.abs_diff(at) <= SKEW_MS.unsigned_abs()
            && self.mac(target, at, nonce).verify_slice(&mac).is_ok()
            && self.is_first(nonce, now.0)
    }

    fn mac(&self, target: &str, at: i64, nonce: &str) -> Hmac<Sha256> {
        let mut mac = keyed(self.secret.expose().as_bytes());
        // No part may hold a line's end: where one ends and the next begins is beyond doubt.
        mac.update(format!("larder cluster {FORM}\nGET\n{target}\n{at}\n{nonce}").as_bytes());
        mac
    }

    fn is_first(&self, nonce: &str, now: i64) -> bool {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        // What is older than that is refused for its time.
        while let Some((at, _)) = heard.order.front()
            && (now.saturating_sub(*at) > 2 * SKEW_MS || heard.order.len() >= MOST_NONCES)
        {
            if let Some((_, old)) = heard.order.pop_front() {
                heard.known.remove(&old);
            }
        }
        let is_first = heard.known.insert(nonce.to_owned());
        if is_first {
            heard.order.push_back((now, nonce.to_owned()));
        }
        is_first
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    // HMAC takes keys of every length.
    Hmac::new_from_slice(key)
        .unwrap_or_else(|_| Hmac::new(&hmac::digest::Key::<Hmac<Sha256>>::default()))
}

/// 32 hexadecimal digits that nobody has used before.
pub(super) fn nonce() -> String {
    let mut nonce = String::with_capacity(32);
    for _ in 0..2 {
        let _ = write!(nonce, "{:016x}", RandomState::new().build_hasher().finish());
    }
    nonce
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() || text.len() > 128 {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> ClusterSecret {
        ClusterSecret::new(Secret::new(text.to_owned()))
    }

    #[test]
    fn a_request_is_known_once_for_its_target_and_its_time() {
        let (ours, theirs) = (secret("a shared secret"), secret("another secret!"));
        let (now, target) = (UnixMillis(1_000_000), "/internal/v1/flight?x=1");
        let later = |ms: i64| UnixMillis(now.0 + ms);
        let signed = ours.sign(target, now);
        assert!(!theirs.knows(&signed, target, now));
        assert!(!ours.knows(&signed, "/internal/v1/flight?x=2", now));
        assert!(!ours.knows(&signed, target, later(15_001)));
        assert!(!ours.knows(&signed, target, later(-15_001)));
        assert!(ours.knows(&signed, target, later(15_000)));
        assert!(!ours.knows(&signed, target, later(15_000)), "a replay");
        assert!(ours.knows(&ours.sign(target, now), target, now));
        for broken in [
            "",
            "v1",
            "v1 x y z",
            &signed[..signed.len() - 2],
            &format!("{signed} "),
        ] {
            assert!(!ours.knows(broken, target, now), "{broken}");
        }
        let moved = signed.replacen("1000000", "1000001", 1);
        assert!(!secret("a shared secret").knows(&moved, target, now));
    }

    /// RFC 4231, test case 2.
    #[test]
    fn the_mac_is_hmac_sha_256() {
        let mut mac = keyed(b"Jefe");
        mac.update(b"what do ya want for nothing?");
        let want = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hex(&mac.finalize().into_bytes()), want);
    }
}

//! The cookie of who has signed in. Nothing is remembered of it: it carries its end and a number used once under an HMAC whose key comes
//! from the admin token. So it is good on every replica, and no longer than the token is.

use std::collections::hash_map::RandomState;
use std::fmt::Write as _;
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use http::HeaderMap;
use http::header::COOKIE;
use larder_core::{Secret, UnixMillis};
use sha2::Sha256;

use crate::origin_guard::same;

/// The cookie's name.
const NAME: &str = "larder_session";
/// How long a session lasts.
const LIFE: Duration = Duration::from_hours(12);

/// A visitor who has signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    /// What each form of this session must bring.
    pub(crate) csrf: String,
}

/// The session of a request; `None` if there is none that is still good.
pub(crate) fn of(headers: &HeaderMap, token: &Secret<String>, now: UnixMillis) -> Option<Session> {
    let lines = headers
        .get_all(COOKIE)
        .into_iter()
        .filter_map(|line| line.to_str().ok());
    let values = lines.flat_map(|line| line.split(';')).filter_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == NAME).then_some(value)
    });
    // Another page of this host may have set one of the same name: the one that is good counts.
    values
        .into_iter()
        .take(4)
        .find_map(|value| read(value, token, now))
}

fn read(value: &str, token: &Secret<String>, now: UnixMillis) -> Option<Session> {
    let (said, mac) = value.rsplit_once('.')?;
    let (end, nonce) = said.split_once('.')?;
    if !same(mac.as_bytes(), mac_of(token, "session", said)?.as_bytes()) || nonce.is_empty() {
        return None;
    }
    let left = UnixMillis(end.parse().ok()?).since(now);
    (!left.is_zero() && left <= LIFE).then_some(())?;
    Some(Session {
        csrf: mac_of(token, "form", said)?,
    })
}

/// `Set-Cookie` for a new session. It goes to pages only: without `Path` a browser sends it below the folder of the page that set it, which
/// is `/ui`, behind whatever path a proxy puts in front.
pub(crate) fn begin(token: &Secret<String>, now: UnixMillis, is_https: bool) -> Option<String> {
    let said = format!("{}.{}", now.plus(LIFE).0, nonce());
    let mac = mac_of(token, "session", &said)?;
    Some(cookie(&format!("{said}.{mac}"), LIFE.as_secs(), is_https))
}

/// `Set-Cookie` that ends one.
pub(crate) fn end(is_https: bool) -> String {
    cookie("", 0, is_https)
}

fn cookie(value: &str, seconds: u64, is_https: bool) -> String {
    let secure = if is_https { "; Secure" } else { "" };
    format!("{NAME}={value}; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
}

/// What makes two sessions that begin in the same millisecond differ. Nothing hangs on nobody's guessing it: the HMAC is the secret.
fn nonce() -> String {
    let half = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", half(), half())
}

/// In hexadecimal digits. `purpose` keeps what is made for one thing from being taken for another.
fn mac_of(token: &Secret<String>, purpose: &str, said: &str) -> Option<String> {
    let mut key = Hmac::<Sha256>::new_from_slice(token.expose().as_bytes()).ok()?;
    key.update(b"larder web interface, version 1");
    let mut mac = Hmac::<Sha256>::new_from_slice(&key.finalize().into_bytes()).ok()?;
    mac.update(purpose.as_bytes());
    mac.update(b"\0");
    mac.update(said.as_bytes());
    let bytes = mac.finalize().into_bytes();
    Some(
        bytes
            .iter()
            .fold(String::with_capacity(64), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            }),
    )
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

    fn token(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    fn value_of(cookie: &str) -> &str {
        let pair = cookie.split(';').next().unwrap();
        pair.strip_prefix("larder_session=").unwrap()
    }

    fn asked(value: &str, token: &Secret<String>, now: UnixMillis) -> Option<Session> {
        let mut headers = HeaderMap::new();
        let line = format!("a=b; larder_session={value}; c=d");
        headers.insert(COOKIE, HeaderValue::from_str(&line).unwrap());
        of(&headers, token, now)
    }

    #[test]
    fn a_session_lasts_as_long_as_it_says_and_its_token_does() {
        let secret = token("s3cret");
        let cookie = begin(&secret, NOW, true).unwrap();
        for part in ["HttpOnly", "SameSite=Strict", "Secure", "Max-Age=43200"] {
            assert!(cookie.contains(part), "{cookie}");
        }
        assert!(!cookie.contains("s3cret"));
        assert!(!begin(&secret, NOW, false).unwrap().contains("Secure"));
        let value = value_of(&cookie);
        let session = asked(value, &secret, NOW).unwrap();
        assert_eq!(
            asked(value, &secret, NOW.plus(Duration::from_secs(43_199))),
            Some(session)
        );
        assert_eq!(asked(value, &secret, NOW.plus(LIFE)), None, "it has ended");
        assert_eq!(
            asked(value, &token("other"), NOW),
            None,
            "the token was changed"
        );
        assert_ne!(value_of(&begin(&secret, NOW, true).unwrap()), value);
    }

    #[test]
    fn hazard_nobody_makes_a_session_or_lengthens_one() {
        let secret = token("s3cret");
        let cookie = begin(&secret, NOW, true).unwrap();
        let value = value_of(&cookie);
        let (said, mac) = value.rsplit_once('.').unwrap();
        let (end, nonce) = said.split_once('.').unwrap();
        let longer = end.parse::<i64>().unwrap() + 1;
        for forged in [
            String::new(),
            "..".to_owned(),
            said.to_owned(),
            format!("{longer}.{nonce}.{mac}"),
            format!("{end}.{nonce}0.{mac}"),
            format!("{end}.{nonce}.{}", "0".repeat(64)),
            format!("{end}.{nonce}."),
            // What a form brings is no session.
            format!("{said}.{}", mac_of(&secret, "form", said).unwrap()),
        ] {
            assert_eq!(asked(&forged, &secret, NOW), None, "{forged}");
        }
    }

    /// A cookie of the same name that something else on this host has set hides no good one.
    #[test]
    fn the_good_one_of_several_counts() {
        let secret = token("s3cret");
        let cookie = begin(&secret, NOW, true).unwrap();
        let mut headers = HeaderMap::new();
        let line = format!("larder_session=x; larder_session={}", value_of(&cookie));
        headers.insert(COOKIE, HeaderValue::from_str(&line).unwrap());
        assert!(of(&headers, &secret, NOW).is_some());
    }
}

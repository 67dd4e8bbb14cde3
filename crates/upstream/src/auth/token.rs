//! What a token server answers (the token specification of container registries), and how long it is good for. Pure.

use std::fmt;
use std::time::Duration;

use http::HeaderValue;
use jiff::Timestamp;
use larder_core::UnixMillis;
use serde::Deserialize;
use serde_json::Value;

/// Of a token that does not say how long it lasts.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// Nothing is kept longer, whatever it says.
const LONGEST_LIFE: Duration = Duration::from_hours(24);
/// Longer ones would not fit into a request that servers take, and thousands of them would fill the memory.
const MAX_TOKEN: usize = 16 * 1024;
/// Tokens are renewed this long before their end, so that they do not expire on the way; short-lived ones after three quarters.
const EARLY: Duration = Duration::from_secs(30);

/// A token as it is sent.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// `Bearer …`, marked as sensitive.
    pub(crate) authorization: HeaderValue,
    /// Tells it from those before and after it.
    pub(crate) number: u64,
    obtained: UnixMillis,
    good_for: Duration,
}

impl Token {
    /// Whether it may still be sent at `now`. (A clock that was set back makes it unusable rather than everlasting.)
    pub(crate) fn is_good(&self, now: UnixMillis) -> bool {
        let early = EARLY.min(self.good_for / 4);
        now >= self.obtained && now.since(self.obtained) < self.good_for.saturating_sub(early)
    }

    /// Reads the answer that came at `now`; `date` is its `Date` field, by which `issued_at` is understood, so that the clocks of
    /// other machines do not matter.
    ///
    /// # Errors
    /// What is wrong with it, for users.
    pub(crate) fn read(
        body: &[u8],
        date: Option<&str>,
        now: UnixMillis,
        number: u64,
    ) -> Result<Self, &'static str> {
        let answer: Answer = serde_json::from_slice(body)
            .map_err(|_| "the token server's answer is not the JSON of a token")?;
        let given = [answer.token, answer.access_token]
            .into_iter()
            .flatten()
            .find(|token| !token.is_empty());
        let token = given.ok_or("the token server's answer holds no token")?;
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(
                "the token server's answer holds a token with blanks or control characters",
            );
        }
        if token.len() > MAX_TOKEN {
            return Err("the token server's answer holds a token that is too long to be sent");
        }
        let mut authorization = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| "the token server's answer holds no usable token")?;
        authorization.set_sensitive(true);
        let life = seconds(&answer.expires_in)
            .unwrap_or(DEFAULT_LIFE)
            .min(LONGEST_LIFE);
        let age = age(&answer.issued_at, date, now)
            .filter(|age| date.is_some() || *age < life)
            .unwrap_or_default();
        Ok(Self {
            authorization,
            number,
            obtained: now,
            good_for: life.saturating_sub(age),
        })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("number", &self.number)
            .field("good_for", &self.good_for)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Value,
    #[serde(default)]
    issued_at: Value,
}

/// A life in seconds; servers write it as a whole number, with a fraction, or as text. `None` if absent or nonsense.
fn seconds(expires_in: &Value) -> Option<Duration> {
    let seconds = match expires_in {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    (seconds >= 0.0).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST_LIFE))
}

/// How long before the answer the token was issued: caches between here and the token server may have held it.
fn age(issued_at: &Value, date: Option<&str>, now: UnixMillis) -> Option<Duration> {
    let issued: Timestamp = issued_at.as_str()?.parse().ok()?;
    let answered = date.and_then(UnixMillis::from_http_date).unwrap_or(now);
    // `Date` has whole seconds only.
    Some(answered.since(UnixMillis(issued.as_second().saturating_mul(1000))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// 2009-11-10T23:00:00Z, the moment in the token specification's example.
    const NOW: UnixMillis = UnixMillis(1_257_894_000_000);

    fn read(answer: &Value) -> Result<Token, &'static str> {
        Token::read(answer.to_string().as_bytes(), None, NOW, 1)
    }

    /// For how many seconds it is sent.
    fn sent_for(token: &Token) -> u64 {
        (0..100_000)
            .find(|&second| !token.is_good(NOW.plus(Duration::from_secs(second))))
            .unwrap()
    }

    #[test]
    fn token_or_access_token() {
        for (answer, want) in [
            (
                json!({"token": "a.b-c_d~e+f/g=="}),
                "Bearer a.b-c_d~e+f/g==",
            ),
            (json!({"access_token": "x"}), "Bearer x"),
            (
                json!({"token": "a", "access_token": "b", "scope": [1], "refresh_token": null}),
                "Bearer a",
            ),
            (json!({"token": "", "access_token": "b"}), "Bearer b"),
            (json!({"token": null, "access_token": "b"}), "Bearer b"),
        ] {
            assert_eq!(read(&answer).unwrap().authorization, want, "{answer}");
        }
    }

    #[test]
    fn answers_without_a_usable_token_are_refused() {
        for answer in [
            json!({}),
            json!({"token": ""}),
            json!({"token": 7}),
            json!({"token": {"a": 1}}),
            json!({"token": "a b"}),
            json!({"token": "a\r\nX-Evil: 1"}),
            json!({"token": "ä"}),
            json!({"token": "x".repeat(MAX_TOKEN + 1)}),
            json!(["token"]),
            json!("token"),
            json!(null),
        ] {
            assert!(read(&answer).is_err(), "{answer}");
        }
        for body in [
            &b""[..],
            b"<html>",
            b"{\"token\":\"a\"",
            b"{\"token\":\"a\"} x",
            b"\xff",
        ] {
            assert!(Token::read(body, None, NOW, 1).is_err());
        }
        let deep = format!("{{\"token\":\"a\",\"x\":{}", "[".repeat(30_000));
        assert!(Token::read(deep.as_bytes(), None, NOW, 1).is_err());
    }

    #[test]
    fn a_token_is_renewed_early_and_lasts_a_minute_if_it_says_nothing() {
        for (expires_in, want) in [
            (Value::Null, 45),
            (json!(300), 270),
            (json!("300"), 270),
            (json!(300.5), 271),
            (json!(4), 3),
            (json!(0), 0),
            (json!(-5), 45),
            (json!("soon"), 45),
            (json!([1]), 45),
            (json!(1e300), 86_370),
            (json!(u64::MAX), 86_370),
        ] {
            assert_eq!(
                sent_for(&read(&json!({"token": "a", "expires_in": expires_in})).unwrap()),
                want,
                "{expires_in}"
            );
        }
        let token = read(&json!({"token": "a", "expires_in": 300})).unwrap();
        assert!(
            !token.is_good(UnixMillis(NOW.0 - 1)),
            "the clock was set back"
        );
    }

    #[test]
    fn issued_at_counts_by_the_servers_own_clock() {
        let body = json!({"token": "a", "expires_in": 300, "issued_at": "2009-11-10T22:58:20Z"})
            .to_string();
        let read = |date| sent_for(&Token::read(body.as_bytes(), date, NOW, 1).unwrap());
        assert_eq!(
            read(Some("Tue, 10 Nov 2009 23:00:00 GMT")),
            170,
            "it was issued 100 s before it was sent"
        );
        assert_eq!(
            read(Some("Tue, 10 Nov 2009 22:58:20 GMT")),
            270,
            "the server's clock goes after ours"
        );
        assert_eq!(read(Some("Tue, 10 Nov 2009 20:00:00 GMT")), 270, "nonsense");
        assert_eq!(
            read(Some("Tue, 10 Nov 2009 23:30:00 GMT")),
            0,
            "a cache gave out what has long expired"
        );
        assert_eq!(read(None), 170);
        let old = json!({"token": "a", "expires_in": 300, "issued_at": "2009-11-10T12:00:00Z"})
            .to_string();
        assert_eq!(
            sent_for(&Token::read(old.as_bytes(), None, NOW, 1).unwrap()),
            270,
            "a clock far off says nothing"
        );
        let odd = json!({"token": "a", "expires_in": 300, "issued_at": 12}).to_string();
        assert_eq!(
            sent_for(&Token::read(odd.as_bytes(), None, NOW, 1).unwrap()),
            270
        );
    }
}

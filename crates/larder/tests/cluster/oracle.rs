//! What has become of every upload, kept outside of what is tested, and what a read may therefore find.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use larder_testkit::Payload;

use super::fixture::MIB;

/// One upload in so many is so long that it goes to the store in parts.
const LONG_ONE_IN: u64 = 256;
const LONG: u64 = 9 * MIB;

/// All uploads, by path.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    paths: Mutex<HashMap<String, Vec<Attempt>>>,
    next: AtomicU64,
}

#[derive(Debug, Clone, Copy)]
struct Attempt {
    number: u64,
    began: Instant,
    /// When its answer, or the end of its connection, was seen.
    ended: Option<Instant>,
    is_acknowledged: bool,
}

impl Attempt {
    /// Whether it was over before the other one began: then it cannot be what remains of the two.
    fn is_before(&self, other: &Self) -> bool {
        self.ended.is_some_and(|ended| ended < other.began)
    }
}

/// The body of an upload: its number, and bytes that only it has.
fn body(number: u64) -> Bytes {
    let length = match number % LONG_ONE_IN {
        0 => LONG,
        _ => number * 7_919 % 60_000,
    };
    let mut body = BytesMut::with_capacity(length as usize + 8);
    body.put_u64_le(number);
    body.put(Payload::generated(length, number).slice(0, length));
    body.freeze()
}

impl Oracle {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Attempt>>> {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An upload to this path begins: its number and its body.
    pub(crate) fn begin(&self, path: &str) -> (u64, Bytes) {
        let number = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        self.lock()
            .entry(path.to_owned())
            .or_default()
            .push(Attempt {
                number,
                began: Instant::now(),
                ended: None,
                is_acknowledged: false,
            });
        (number, body(number))
    }

    /// Its answer has come, or it is known that none will.
    pub(crate) fn end(&self, path: &str, number: u64, is_acknowledged: bool) {
        let mut paths = self.lock();
        let attempts = paths.get_mut(path).into_iter().flatten();
        for attempt in attempts.filter(|attempt| attempt.number == number) {
            attempt.ended = Some(Instant::now());
            attempt.is_acknowledged = is_acknowledged;
        }
    }

    /// The paths that have an acknowledged upload.
    pub(crate) fn acknowledged(&self) -> Vec<String> {
        let paths = self.lock();
        let is_there = |attempts: &[Attempt]| attempts.iter().any(|one| one.is_acknowledged);
        let kept = paths.iter().filter(|(_, attempts)| is_there(attempts));
        kept.map(|(path, _)| path.clone()).collect()
    }

    /// Judges what was read of a path (`None`: that nothing is there) by a request that began at `began`. What had been acknowledged
    /// `grace` before must be there, or what came after it.
    ///
    /// # Errors
    /// What is wrong.
    pub(crate) fn judge(
        &self,
        path: &str,
        found: Option<&[u8]>,
        began: Instant,
        grace: Duration,
    ) -> Result<(), String> {
        let attempts = self.lock().get(path).cloned().unwrap_or_default();
        let must_be_seen = |one: &&Attempt| {
            let is_old = one.ended.is_some_and(|ended| ended + grace < began);
            one.is_acknowledged && is_old
        };
        let last = attempts
            .iter()
            .filter(must_be_seen)
            .max_by_key(|one| one.began);
        let Some(found) = found else {
            return last.map_or(Ok(()), |last| {
                Err(format!("{path}: upload {} is lost", last.number))
            });
        };
        let number = found.first_chunk().map(|first| u64::from_le_bytes(*first));
        let seen = attempts.iter().find(|one| Some(one.number) == number);
        let Some(seen) = seen.filter(|seen| body(seen.number) == found) else {
            let length = found.len();
            return Err(format!("{path}: {length} bytes that nobody uploaded there"));
        };
        let newer = attempts
            .iter()
            .filter(must_be_seen)
            .find(|one| seen.is_before(one));
        newer.map_or(Ok(()), |newer| {
            let (old, new) = (seen.number, newer.number);
            Err(format!(
                "{path}: upload {old}, though {new} was acknowledged after it"
            ))
        })
    }
}

/// The oracle tells what it is there to tell.
#[test]
fn an_oracle_knows_lost_old_and_wrong_bytes() {
    let oracle = Oracle::default();
    let judged = |found: Option<&[u8]>| oracle.judge("p", found, Instant::now(), Duration::ZERO);
    assert!(judged(None).is_ok());
    let (first, one) = oracle.begin("p");
    assert!(judged(None).is_ok() && judged(Some(&one)).is_ok());
    oracle.end("p", first, true);
    std::thread::sleep(Duration::from_millis(2));
    assert!(judged(None).unwrap_err().contains("lost"));
    assert!(judged(Some(&one[1..])).unwrap_err().contains("nobody"));
    assert!(
        judged(Some(&one[..one.len() - 1]))
            .unwrap_err()
            .contains("nobody")
    );
    // One that was refused may have come through, and may not have.
    let (second, two) = oracle.begin("p");
    oracle.end("p", second, false);
    assert!(judged(Some(&one)).is_ok() && judged(Some(&two)).is_ok());
    let (third, three) = oracle.begin("p");
    std::thread::sleep(Duration::from_millis(2));
    oracle.end("p", third, true);
    std::thread::sleep(Duration::from_millis(2));
    for old in [&one, &two] {
        assert!(judged(Some(old)).unwrap_err().contains("after it"));
    }
    assert!(judged(Some(&three)).is_ok());
    let (_, elsewhere) = oracle.begin("q");
    assert!(judged(Some(&elsewhere)).is_err());
    assert_eq!(oracle.acknowledged(), ["p"]);
}

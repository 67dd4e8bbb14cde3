//! Who else is there: each replica says now and then which configuration it has and what time it is, and hears the others. What one hears
//! is for people: alarms and metrics. One thing is decided by it: how large a part of a common bound a replica keeps to while it cannot ask.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use larder_core::Clock;
use larder_storage::{Shared, Told};
use serde::{Deserialize, Serialize};
use tokio::task::AbortHandle;
use tokio::time::{Instant, interval};

const TOPIC: &str = "replicas";
/// How often a replica says that it is there.
const BEAT: Duration = Duration::from_secs(2);
/// After this without a word a replica is not there any more.
const GONE: Duration = Duration::from_secs(10);
/// Clocks that differ by more are an alarm.
const SKEW_MS: u64 = 5_000;
/// Replicas that are remembered, and the longest thing that one says, in bytes: anybody who can write to Redis can say something.
const MOST: usize = 256;
const LONGEST: usize = 1_024;

/// What a replica says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Word {
    replica: String,
    address: String,
    version: String,
    /// A digest of its configuration.
    config: String,
    /// Its time, milliseconds since 1970.
    at: i64,
}

/// Another replica, as it was last heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaReport {
    /// `host:port`; empty if it cannot be reached.
    pub address: String,
    /// Of larder.
    pub version: String,
    /// A digest of its configuration.
    pub config: String,
    /// How far its clock is from this one's, in milliseconds; what it takes to arrive counts.
    pub skew_ms: u64,
}

impl ReplicaReport {
    /// Whether its clock is too far from this one's.
    pub fn is_skewed(&self) -> bool {
        self.skew_ms > SKEW_MS
    }
}

#[derive(Debug)]
struct Heard {
    report: ReplicaReport,
    when: Instant,
    /// What the log has spoken of: another configuration, another time.
    told: (bool, bool),
}

/// All that are there.
#[derive(Debug)]
pub(super) struct Roster {
    own: Mutex<Word>,
    clock: Arc<dyn Clock>,
    heard: Mutex<BTreeMap<String, Heard>>,
    /// How many there were, this one included, the last time that they could be heard; 0: never yet.
    last_seen: AtomicU32,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Roster {
    /// Begins to speak and to listen, as long as it is there.
    pub(super) fn start(
        shared: &Arc<dyn Shared>,
        clock: Arc<dyn Clock>,
        (replica, address, version): (String, String, &str),
    ) -> Arc<Self> {
        let roster = Arc::new(Self {
            own: Mutex::new(Word {
                replica,
                address,
                version: version.to_owned(),
                config: String::new(),
                at: 0,
            }),
            clock,
            heard: Mutex::default(),
            last_seen: AtomicU32::new(0),
            tasks: Mutex::default(),
        });
        let speaking = tokio::spawn(speak(Arc::downgrade(&roster), Arc::clone(shared)));
        let listening = tokio::spawn(listen(Arc::downgrade(&roster), Arc::clone(shared)));
        *lock(&roster.tasks) = vec![speaking.abort_handle(), listening.abort_handle()];
        roster
    }

    /// From now on says that this is the configuration.
    pub(super) fn configured(&self, config: &str) {
        config.clone_into(&mut lock(&self.own).config);
    }

    /// The digest of the own configuration.
    pub(super) fn config(&self) -> String {
        lock(&self.own).config.clone()
    }

    /// How many replicas there were, this one included, the last time that they could be heard; 1 if they never could.
    pub(super) fn last_seen(&self) -> u32 {
        self.last_seen.load(Ordering::Relaxed).max(1)
    }

    /// What is sent arrives: so would what others say.
    fn note_seen(&self) {
        let others = u32::try_from(self.others().len()).unwrap_or(u32::MAX);
        self.last_seen
            .store(others.saturating_add(1), Ordering::Relaxed);
    }

    /// The other replicas that are there, by address.
    pub(super) fn others(&self) -> Vec<ReplicaReport> {
        let mut heard = lock(&self.heard);
        heard.retain(|_, heard| heard.when.elapsed() < GONE);
        let mut others: Vec<_> = heard.values().map(|heard| heard.report.clone()).collect();
        others.sort_by(|a, b| a.address.cmp(&b.address));
        others
    }

    fn word(&self) -> Word {
        Word {
            at: self.clock.now().0,
            ..lock(&self.own).clone()
        }
    }

    fn hear(&self, message: &[u8]) {
        if message.len() > LONGEST {
            return;
        }
        let own = self.word();
        let Ok(word) = serde_json::from_slice::<Word>(message) else {
            return;
        };
        if word.replica == own.replica {
            return;
        }
        let report = ReplicaReport {
            address: word.address,
            version: word.version,
            config: word.config,
            skew_ms: own.at.abs_diff(word.at),
        };
        let mut heard = lock(&self.heard);
        let is_known = heard.contains_key(&word.replica);
        if !is_known && heard.len() >= MOST {
            heard.retain(|_, heard| heard.when.elapsed() < GONE);
            if heard.len() >= MOST {
                return;
            }
        }
        let before = heard
            .get(&word.replica)
            .map_or((false, false), |heard| heard.told);
        let now = (report.config != own.config, report.is_skewed());
        let replica = &report.address;
        if now.0 && !before.0 {
            tracing::warn!(%replica, "another replica has another configuration: all of them should have the same");
        }
        if now.1 && !before.1 {
            tracing::warn!(%replica, skew_ms = report.skew_ms, "the clock of another replica differs from this one's by more than five seconds");
        }
        let when = Instant::now();
        let told = now;
        heard.insert(word.replica, Heard { report, when, told });
        drop(heard);
        self.note_seen();
    }
}

impl Drop for Roster {
    fn drop(&mut self) {
        lock(&self.tasks).iter().for_each(AbortHandle::abort);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn speak(roster: std::sync::Weak<Roster>, shared: Arc<dyn Shared>) {
    let mut beats = interval(BEAT);
    loop {
        beats.tick().await;
        let Some(word) = roster.upgrade().map(|roster| roster.word()) else {
            return;
        };
        // Before it is configured there is nothing to compare.
        if !word.config.is_empty()
            && let Ok(text) = serde_json::to_vec(&word)
        {
            let is_sent = shared.publish(TOPIC, &text).await;
            if is_sent && let Some(roster) = roster.upgrade() {
                roster.note_seen();
            }
        }
    }
}

async fn listen(roster: std::sync::Weak<Roster>, shared: Arc<dyn Shared>) {
    let mut subscription = shared.subscribe(TOPIC);
    loop {
        let told = subscription.next().await;
        let Some(roster) = roster.upgrade() else {
            return;
        };
        if let Told::Message(message) = told {
            roster.hear(&message);
        }
    }
}

#[cfg(test)]
mod tests {
    use larder_core::{ManualClock, UnixMillis};
    use larder_storage::MemoryShared;

    use super::*;

    fn start(shared: &Arc<dyn Shared>, name: &str, time: i64) -> Arc<Roster> {
        let clock = Arc::new(ManualClock::new(UnixMillis(time)));
        let own = (name.to_owned(), format!("{name}:80"), "1.2.3");
        let roster = Roster::start(shared, clock, own);
        roster.configured("same");
        roster
    }

    #[tokio::test(start_paused = true)]
    async fn replicas_hear_of_each_other_of_drift_and_of_skew_and_forget_who_is_gone() {
        let shared: Arc<dyn Shared> = Arc::new(MemoryShared::new());
        let (a, b) = (start(&shared, "a", 10_000), start(&shared, "b", 15_000));
        tokio::time::sleep(BEAT * 2).await;
        let others = a.others();
        assert_eq!(others.len(), 1, "{others:?}");
        assert_eq!((&*others[0].address, &*others[0].config), ("b:80", "same"));
        assert_eq!((others[0].skew_ms, others[0].is_skewed()), (5_000, false));
        assert_eq!(b.others()[0].address, "a:80");
        assert_eq!((a.last_seen(), b.last_seen()), (2, 2));
        let c = start(&shared, "c", 15_001);
        c.configured("another");
        tokio::time::sleep(BEAT * 2).await;
        let others = a.others();
        assert_eq!(others.len(), 2);
        assert!(others[1].is_skewed() && others[1].config == "another");
        drop(c);
        tokio::time::sleep(GONE + BEAT).await;
        assert_eq!(a.others().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_strangers_say_is_bounded() {
        let shared: Arc<dyn Shared> = Arc::new(MemoryShared::new());
        let roster = start(&shared, "a", 0);
        for junk in [&b"{}"[..], b"\xff", &[b'x'; 5_000]] {
            roster.hear(junk);
        }
        for n in 0..2_000 {
            let word = Word {
                replica: n.to_string(),
                ..roster.word()
            };
            roster.hear(&serde_json::to_vec(&word).unwrap());
        }
        assert_eq!(roster.others().len(), MOST);
    }
}

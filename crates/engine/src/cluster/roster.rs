//! Who else is there: each replica says now and then which configuration it has and what time it is, and hears the others. What one hears
//! is for people: alarms and metrics. One thing is decided by it: how large a part of a common bound a replica keeps to while it cannot ask.
//!
//! It is said through the service that replicas share, and through the database: there rarely while the service answers, so that one
//! which is cut off from it is seen all the same, and often while it does not (docs/adr/0091).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use larder_core::Clock;
use larder_storage::{Heartbeat, Heartbeats, Shared, Told};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, interval, timeout};

const TOPIC: &str = "replicas";
/// How often a replica says that it is there.
const BEAT: Duration = Duration::from_secs(2);
/// How often it writes so into the database: while the service does not answer, or there is none, and while it does.
const WRITE: Duration = Duration::from_secs(1);
const WRITE_RARELY: Duration = Duration::from_secs(4);
/// Where the database takes longer, the next one tells.
const WRITING: Duration = Duration::from_secs(5);
/// After this without a word a replica is not there any more.
const GONE: Duration = Duration::from_secs(10);
/// Clocks that differ by more are an alarm.
const SKEW_MS: u64 = 5_000;
/// What two words one after the other say of a clock differs by less, if it is the clock. Words that have waited, because this process
/// or that one was stopped, or the machine slept, differ by the time that lies between them.
const STEADY_MS: u64 = 1_000;
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
    /// What the last word alone would make of the clock, in milliseconds.
    last_skew: u64,
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
    /// Whether the service took what was said last.
    is_published: AtomicBool,
    /// There is something new to say.
    news: Arc<Notify>,
    /// Counts the times that others were read to have taken another configuration into use.
    reloads: watch::Sender<u64>,
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
            is_published: AtomicBool::new(false),
            news: Arc::default(),
            reloads: watch::Sender::new(0),
            last_seen: AtomicU32::new(0),
            tasks: Mutex::default(),
        });
        let speaking = tokio::spawn(speak(Arc::downgrade(&roster), Arc::clone(shared)));
        let listening = tokio::spawn(listen(Arc::downgrade(&roster), Arc::clone(shared)));
        *lock(&roster.tasks) = vec![speaking.abort_handle(), listening.abort_handle()];
        roster
    }

    /// Also writes into the database that this replica is there, and reads who else is.
    pub(super) fn write_into(self: &Arc<Self>, heartbeats: Heartbeats) {
        let writing = tokio::spawn(write(Arc::downgrade(self), heartbeats));
        lock(&self.tasks).push(writing.abort_handle());
    }

    /// From now on says that this is the configuration.
    pub(super) fn configured(&self, config: &str) {
        config.clone_into(&mut lock(&self.own).config);
        self.news.notify_one();
    }

    /// Changes when another replica was read to have taken another configuration into use, and no service could say so.
    pub(super) fn reloads(&self) -> watch::Receiver<u64> {
        self.reloads.subscribe()
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
        let Ok(word) = serde_json::from_slice::<Word>(message) else {
            return;
        };
        let skew = Skew::Heard(self.clock.now().0.abs_diff(word.at));
        self.note(word, skew, Instant::now());
    }

    /// Hears what others have written. One whose configuration has changed has been reloaded.
    fn read(&self, beats: Vec<Heartbeat>) {
        for beat in beats.into_iter().filter(|beat| beat.word.len() <= LONGEST) {
            let Ok(word) = serde_json::from_str::<Word>(&beat.word) else {
                continue;
            };
            let when = Instant::now();
            let when = when.checked_sub(beat.age).unwrap_or(when);
            let is_other = word.config != lock(&self.own).config;
            let before = self.note(word, Skew::Compared(beat.ahead_ms.unsigned_abs()), when);
            if before == Noted::Changed && is_other && !self.is_published.load(Ordering::Relaxed) {
                self.reloads.send_modify(|count| *count += 1);
            }
        }
    }

    /// Takes down what a replica was heard to say at a time; whether its configuration is another than before.
    fn note(&self, word: Word, skew: Skew, when: Instant) -> Noted {
        let (own, own_config) = {
            let own = lock(&self.own);
            (own.replica.clone(), own.config.clone())
        };
        if word.replica == own {
            return Noted::Same;
        }
        let mut heard = lock(&self.heard);
        let before = heard.get(&word.replica);
        if before.is_some_and(|before| before.when > when) {
            // What was heard since is newer.
            return Noted::Same;
        }
        if before.is_none() && heard.len() >= MOST {
            heard.retain(|_, heard| heard.when.elapsed() < GONE);
            if heard.len() >= MOST {
                return Noted::Same;
            }
        }
        let before = heard.get(&word.replica);
        let report = ReplicaReport {
            address: word.address,
            version: word.version,
            config: word.config,
            skew_ms: skew.believed(before),
        };
        let is_changed = before.is_some_and(|before| before.report.config != report.config);
        let before = before.map_or((false, false), |heard| heard.told);
        let told = (report.config != own_config, report.is_skewed());
        let replica = &report.address;
        if told.0 && !before.0 {
            tracing::warn!(%replica, "another replica has another configuration: all of them should have the same");
        }
        if told.1 && !before.1 {
            tracing::warn!(%replica, skew_ms = report.skew_ms, "the clock of another replica differs from this one's by more than five seconds");
        }
        let heard_now = Heard {
            report,
            last_skew: skew.ms(),
            when,
            told,
        };
        heard.insert(word.replica, heard_now);
        drop(heard);
        self.note_seen();
        if is_changed {
            Noted::Changed
        } else {
            Noted::Same
        }
    }
}

/// By how much the clocks of two replicas differ, in milliseconds.
#[derive(Debug, Clone, Copy)]
enum Skew {
    /// Through the clock of the database, however long the word has been there.
    Compared(u64),
    /// What a word of another one said when it arrived.
    Heard(u64),
}

impl Skew {
    const fn ms(self) -> u64 {
        match self {
            Self::Compared(ms) | Self::Heard(ms) => ms,
        }
    }

    /// What is to be believed after a word. One that is heard may only have been late, so an alarm takes two that agree.
    fn believed(self, before: Option<&Heard>) -> u64 {
        match self {
            Self::Heard(ms) if ms > SKEW_MS => match before {
                Some(before) if before.last_skew.abs_diff(ms) <= STEADY_MS => ms,
                _ => before.map_or(0, |before| before.report.skew_ms),
            },
            Self::Heard(ms) | Self::Compared(ms) => ms,
        }
    }
}

/// What a replica was heard to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Noted {
    /// The configuration that it had before, or it was not known.
    Same,
    /// Another configuration than before.
    Changed,
}

impl Drop for Roster {
    fn drop(&mut self) {
        lock(&self.tasks).iter().for_each(AbortHandle::abort);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn speak(roster: Weak<Roster>, shared: Arc<dyn Shared>) {
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
            let is_published = shared.publish(TOPIC, &text).await;
            if let Some(roster) = roster.upgrade() {
                roster.is_published.store(is_published, Ordering::Relaxed);
                if is_published {
                    roster.note_seen();
                }
            }
        }
    }
}

async fn write(roster: Weak<Roster>, heartbeats: Heartbeats) {
    loop {
        let Some(current) = roster.upgrade() else {
            return;
        };
        let word = current.word();
        if !word.config.is_empty()
            && let Ok(text) = serde_json::to_string(&word)
        {
            let now = current.clock.now();
            let beat = heartbeats.beat(&word.replica, &text, now);
            match timeout(WRITING, beat).await {
                Ok(Ok(beats)) => current.read(beats),
                Ok(Err(error)) => tracing::debug!(%error, "the other replicas were not read"),
                Err(_) => tracing::debug!("the other replicas were not read: no answer in time"),
            }
        }
        let pause = if current.is_published.load(Ordering::Relaxed) {
            WRITE_RARELY
        } else {
            WRITE
        };
        let news = Arc::clone(&current.news);
        drop(current);
        // A new configuration is told at once.
        let _ = timeout(pause, news.notified()).await;
    }
}

async fn listen(roster: Weak<Roster>, shared: Arc<dyn Shared>) {
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
    use larder_storage::{MemoryShared, Unshared};

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

    /// What is read in the database: clocks are compared already, and what is old is as old as it says.
    #[tokio::test(start_paused = true)]
    async fn what_is_read_counts_as_what_is_heard_and_tells_of_reloads() {
        let shared: Arc<dyn Shared> = Arc::new(Unshared::new());
        let roster = start(&shared, "a", 10_000);
        tokio::time::sleep(GONE).await;
        let reloads = roster.reloads();
        let beat = |config: &str, ahead_ms: i64, age: u64| {
            let word = Word {
                replica: "b".to_owned(),
                config: config.to_owned(),
                at: 0,
                ..roster.word()
            };
            Heartbeat {
                replica: "b".to_owned(),
                word: serde_json::to_string(&word).unwrap(),
                ahead_ms,
                age: Duration::from_secs(age),
            }
        };
        roster.read(vec![beat("same", -5_001, 6)]);
        assert_eq!(roster.others()[0].skew_ms, 5_001);
        assert!(roster.others()[0].is_skewed());
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(roster.others(), [], "eleven seconds ago");
        roster.read(vec![beat("other", 0, 0)]);
        assert_eq!(
            *reloads.borrow(),
            0,
            "it was gone, and may have had it before"
        );
        roster.read(vec![beat("same", 0, 0)]);
        assert_eq!(*reloads.borrow(), 0, "it has come round to this one's");
        roster.read(vec![beat("newer", 0, 0)]);
        roster.read(vec![beat("newer", 0, 0)]);
        assert_eq!(*reloads.borrow(), 1);
        // What a service tells in time is not read out of the database.
        roster.is_published.store(true, Ordering::Relaxed);
        roster.read(vec![beat("newest", 0, 0)]);
        assert_eq!(*reloads.borrow(), 1);
        assert_eq!(roster.others()[0].config, "newest");
    }

    /// A process that was stopped for half a minute hears at once what it has missed.
    #[tokio::test(start_paused = true)]
    async fn words_that_have_waited_are_no_alarm_and_a_clock_that_is_wrong_is() {
        let shared: Arc<dyn Shared> = Arc::new(Unshared::new());
        let roster = start(&shared, "a", 100_000);
        let hear = |at: i64| {
            let word = Word {
                replica: "b".to_owned(),
                at,
                ..roster.word()
            };
            roster.hear(&serde_json::to_vec(&word).unwrap());
            let others = roster.others();
            (others[0].skew_ms, others[0].is_skewed())
        };
        assert_eq!(hear(100_000), (0, false));
        for late in [70_000, 72_000, 74_000, 94_000] {
            assert_eq!(hear(late), (0, false), "{late}");
        }
        assert_eq!(hear(99_000), (1_000, false));
        // It is a minute behind.
        assert_eq!(hear(40_000), (1_000, false));
        assert_eq!(hear(40_700), (59_300, true));
        // One word of it was late.
        assert_eq!(hear(37_000), (59_300, true));
        assert_eq!(hear(100_100), (100, false));
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

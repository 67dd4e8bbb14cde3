//! A database that is damaged: noticed on any statement, put aside, and begun anew. What larder holds can be fetched again, so that a
//! cold cache is better than one that nobody can trust (docs/adr/0044).

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use larder_core::{Clock as _, SystemClock};

use super::MetadataStore;
use crate::error::{StorageError, StorageErrorKind};

/// Files put aside that are kept; the oldest beyond them goes, so that a bad disk does not fill itself.
const KEPT_ASIDE: usize = 3;
/// Pause before another try, where a damaged database could not be put aside.
const RETRY: Duration = Duration::from_secs(5);
/// Statements that were running when the database was exchanged may still tell of the old one.
const LATE_NEWS: Duration = Duration::from_secs(1);

/// What to do with a database that turns out to be damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDamage {
    /// Refuse to start, and keep the file: it names uploads that nobody else has.
    #[default]
    Refuse,
    /// Rename it and begin anew: everything that it names can be fetched again.
    PutAside,
}

/// How much damage has been met with since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DamageReport {
    /// Rows that were not what had been put there, or not under their key. Each counted as absent.
    pub rows: u64,
    /// Databases put aside.
    pub put_aside: u64,
    /// Statements that failed because the database file is damaged.
    pub failures: u64,
    /// Whether one is being replaced at this moment.
    pub is_replacing: bool,
}

/// How the database file is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum State {
    Sound = 0,
    Replacing = 1,
    JustReplaced = 2,
}

#[derive(Debug, Default)]
pub(super) struct Damage {
    rows: AtomicU64,
    put_aside: AtomicU64,
    failures: AtomicU64,
    state: AtomicU8,
}

impl Damage {
    /// A row is not what it should be.
    pub(super) fn note_row(&self, what: &str, key: &str) {
        self.rows.fetch_add(1, Ordering::Relaxed);
        tracing::error!(what, key, "a row of the metadata database is damaged and counts as absent: check the disk and the memory");
    }

    pub(super) fn note_put_aside(&self) {
        self.put_aside.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn is_replacing(&self) -> bool {
        self.state.load(Ordering::Acquire) == State::Replacing as u8
    }

    fn set(&self, state: State) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// Whether the caller is the one to replace the database.
    fn begin(&self) -> bool {
        let (sound, replacing) = (State::Sound as u8, State::Replacing as u8);
        self.state.compare_exchange(sound, replacing, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl MetadataStore {
    /// How much damage has been met with since the start.
    pub fn damage(&self) -> DamageReport {
        let damage = &self.shared.damage;
        DamageReport {
            rows: damage.rows.load(Ordering::Relaxed),
            put_aside: damage.put_aside.load(Ordering::Relaxed),
            failures: damage.failures.load(Ordering::Relaxed),
            is_replacing: damage.is_replacing(),
        }
    }

    /// Every result of a statement goes through here: damage to the file begins its replacement.
    pub(super) fn noticed<T>(&self, result: Result<T, StorageError>) -> Result<T, StorageError> {
        if let Err(error) = &result
            && error.kind == StorageErrorKind::Corrupt
        {
            self.shared.damage.failures.fetch_add(1, Ordering::Relaxed);
            self.begin_replacement(error);
        }
        result
    }

    /// As [`noticed`](Self::noticed), for reading one thing: while the database is damaged or being replaced there is none.
    pub(super) fn absent_if_damaged<T>(&self, result: Result<Option<T>, StorageError>) -> Result<Option<T>, StorageError> {
        match self.noticed(result) {
            Err(error) if error.kind == StorageErrorKind::Corrupt || self.shared.damage.is_replacing() => Ok(None),
            other => other,
        }
    }

    fn begin_replacement(&self, error: &StorageError) {
        let cause = error.source.as_ref().map(ToString::to_string);
        if self.shared.on_damage == OnDamage::Refuse || self.shared.file.is_none() {
            tracing::error!(%error, cause, "the metadata database is damaged: what it cannot tell is asked of the upstreams");
            return;
        }
        if self.shared.damage.begin() {
            tracing::error!(%error, cause, "the metadata database is damaged: it is put aside, and the cache begins anew");
            let store = self.clone();
            tokio::spawn(async move { store.replace().await });
        }
    }

    async fn replace(&self) {
        let Some(file) = self.shared.file.clone() else { return };
        self.close().await;
        loop {
            let begun = match put_aside(&file) {
                Ok(_) => self.begin_anew(&file).await,
                Err(error) => Err(StorageError::from_io("put the damaged metadata database aside", error)),
            };
            match begun {
                Ok(()) => break,
                Err(error) => tracing::error!(%error, "nothing is kept until the damaged metadata database can be replaced"),
            }
            tokio::time::sleep(RETRY).await;
        }
        self.shared.damage.note_put_aside();
        self.shared.damage.set(State::JustReplaced);
        tokio::time::sleep(LATE_NEWS).await;
        self.shared.damage.set(State::Sound);
    }
}

/// Renames the database at `path` and its logs; gives the new name, if there was a file. Of those put aside before, the newest stay.
pub(super) fn put_aside(path: &Path) -> io::Result<Option<PathBuf>> {
    let seconds = SystemClock.now().0 / 1000;
    let mut aside = (seconds..).map(|stamp| with_suffix(path, &format!(".damaged-{stamp}")));
    let free = |candidate: &PathBuf| !candidate.exists();
    let Some(aside) = aside.find(free) else { return Ok(None) };
    let mut moved = None;
    for log in ["-wal", "-shm", ""] {
        match fs::rename(with_suffix(path, log), with_suffix(&aside, log)) {
            Ok(()) if log.is_empty() => moved = Some(aside.clone()),
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let directory = path.parent().unwrap_or(Path::new("."));
    forget_older(path, directory)?;
    File::open(directory)?.sync_all()?;
    Ok(moved)
}

fn forget_older(path: &Path, directory: &Path) -> io::Result<()> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Ok(()) };
    let prefix = format!("{name}.damaged-");
    let mut aside: Vec<PathBuf> = fs::read_dir(directory)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let stamp = path.file_name().and_then(|name| name.to_str()?.strip_prefix(&prefix));
            stamp.is_some_and(|stamp| stamp.bytes().all(|byte| byte.is_ascii_digit()))
        })
        .collect();
    // Ten digits each, for the next two hundred years.
    aside.sort();
    let surplus = aside.len().saturating_sub(KEPT_ASIDE);
    for old in aside.iter().take(surplus) {
        for log in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(with_suffix(old, log));
        }
    }
    Ok(())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

//! A database that is damaged: noticed on any statement, put aside, and begun anew. What larder holds can be fetched again, so that a
//! cold cache is better than one that nobody can trust (docs/adr/0044).

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use larder_core::{Clock as _, SystemClock};

use super::MetadataStore;
use super::db::{About, DbError};
use crate::error::{StorageError, StorageErrorKind};

/// Files put aside that are kept; the oldest beyond them goes, so that a bad disk does not fill itself.
const KEPT_ASIDE: usize = 3;
/// Pause before another try, where a damaged database could not be put aside.
const RETRY: Duration = Duration::from_secs(5);
/// Pauses between looks at whether a replacement is over, and how many of them before it is given up.
const LOOK: Duration = Duration::from_millis(10);
const MOST_LOOKS: u32 = 1000;
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
        // A query may be a signature.
        let key = key.split('?').next().unwrap_or_default();
        tracing::error!(
            what,
            key,
            "a row of the metadata database is damaged and counts as absent: check the disk and the memory"
        );
    }

    pub(super) fn note_put_aside(&self) {
        self.put_aside.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn is_replacing(&self) -> bool {
        self.state.load(Ordering::Acquire) == State::Replacing as u8
    }

    /// Whether statements may still fail because of a database that is gone.
    fn is_unsettled(&self) -> bool {
        self.state.load(Ordering::Acquire) != State::Sound as u8
    }

    fn set(&self, state: State) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// Whether the caller is the one to replace the database.
    fn begin(&self) -> bool {
        let (sound, replacing) = (State::Sound as u8, State::Replacing as u8);
        self.state
            .compare_exchange(sound, replacing, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
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

    /// One row, or none where it is damaged, or the database is or was a moment ago, or is a server that does not answer.
    pub(super) fn row_or_none<T>(
        &self,
        doing: &str,
        key: &str,
        result: Result<Option<T>, DbError>,
    ) -> Result<Option<T>, StorageError> {
        if let Err(error) = &result
            && error.about == About::Value
        {
            self.shared.damage.note_row(doing, key);
            return Ok(None);
        }
        match self.noticed(result.map_err(|error| StorageError::from_sql(doing, error))) {
            Err(error)
                if error.kind == StorageErrorKind::Corrupt
                    || self.shared.damage.is_unsettled()
                    || (error.kind == StorageErrorKind::Unavailable && self.is_away()) =>
            {
                Ok(None)
            }
            other => other,
        }
    }

    /// Waits until a replacement that has begun is over; whether there was one.
    pub(super) async fn replaced(&self) -> bool {
        let was_unsettled = self.shared.damage.is_unsettled();
        for _ in 0..MOST_LOOKS {
            if !self.shared.damage.is_replacing() {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        was_unsettled
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
        let Some(file) = self.shared.file.clone() else {
            return;
        };
        loop {
            self.close().await;
            let begun = match put_aside(&file) {
                Ok(_) => self.begin_anew(&file).await,
                Err(error) => Err(StorageError::from_io(
                    "put the damaged metadata database aside",
                    error,
                )),
            };
            match begun {
                Ok(()) => break,
                Err(error) => {
                    tracing::error!(%error, "nothing is kept until the damaged metadata database can be replaced");
                }
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
    let directory = path.parent().unwrap_or(Path::new("."));
    let before = stamps(path, directory)?;
    let stamp = (SystemClock.now().0 / 1000).max(before.last().map_or(0, |last| last + 1));
    let aside = named(path, stamp);
    let mut moved = None;
    for log in ["-wal", "-shm", ""] {
        match fs::rename(with_suffix(path, log), with_suffix(&aside, log)) {
            Ok(()) if log.is_empty() => moved = Some(aside.clone()),
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let surplus = (before.len() + 1).saturating_sub(KEPT_ASIDE);
    for old in before.into_iter().take(surplus) {
        for log in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(with_suffix(&named(path, old), log));
        }
    }
    File::open(directory)?.sync_all()?;
    Ok(moved)
}

/// Every file that the database at `path` has, or that was a database of it: with its logs, its spare space, and those put aside.
pub(super) fn files_of(path: &Path) -> Vec<PathBuf> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let aside = stamps(path, directory)
        .unwrap_or_default()
        .into_iter()
        .map(|stamp| named(path, stamp));
    let databases = aside.chain([path.to_owned()]);
    let files =
        databases.flat_map(|database| ["", "-wal", "-shm"].map(|log| with_suffix(&database, log)));
    files.chain([path.with_extension("spare")]).collect()
}

/// When databases were put aside, in seconds since 1970, oldest first.
fn stamps(path: &Path, directory: &Path) -> io::Result<Vec<i64>> {
    let prefix = format!(
        "{}.damaged-",
        path.file_name().unwrap_or_default().to_string_lossy()
    );
    let mut stamps: Vec<i64> = fs::read_dir(directory)?
        .filter_map(|entry| {
            entry
                .ok()?
                .file_name()
                .to_str()?
                .strip_prefix(&prefix)?
                .parse()
                .ok()
        })
        .collect();
    stamps.sort_unstable();
    Ok(stamps)
}

fn named(path: &Path, stamp: i64) -> PathBuf {
    with_suffix(path, &format!(".damaged-{stamp}"))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

//! Free space, and the reserve that keeps a full disk from being an outage (contract, section 3, hazard R7).

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{StorageError, StorageErrorKind};

/// How long a measurement holds.
const MAX_AGE: Duration = Duration::from_secs(1);
/// The reserve is a twentieth of the file system, but at most this.
const MAX_RESERVE: u64 = 5 << 30;

/// Space of the file system that holds the blobs, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Size of the file system.
    pub total: u64,
    /// What larder may still write.
    pub available: u64,
    /// Below this nothing more is kept: 5 %, at most 5 GiB.
    pub reserve: u64,
}

impl Space {
    /// Applies the reserve rule.
    pub(crate) fn new(total: u64, available: u64) -> Self {
        Self {
            total,
            available,
            reserve: (total / 20).min(MAX_RESERVE),
        }
    }

    /// Of the file system that `directory` is on, now.
    ///
    /// # Errors
    /// The directory is not there, or the system does not say.
    pub fn of(directory: &Path) -> Result<Self, StorageError> {
        let stat = rustix::fs::statvfs(directory)
            .map_err(|e| StorageError::from_io("measure free space", e.into()))?;
        Ok(Self::new(
            stat.f_blocks.saturating_mul(stat.f_frsize),
            stat.f_bavail.saturating_mul(stat.f_frsize),
        ))
    }

    /// Whether the reserve has been reached.
    pub fn is_low(&self) -> bool {
        self.available < self.reserve
    }
}

/// Measures at most once a second, and again when what was written since then may have used up the rest.
#[derive(Debug)]
pub(in crate::blob) struct SpaceGauge {
    directory: PathBuf,
    state: Mutex<Option<Measurement>>,
}

#[derive(Debug, Clone, Copy)]
struct Measurement {
    at: Instant,
    space: Space,
    spent: u64,
}

impl SpaceGauge {
    pub(in crate::blob) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            state: Mutex::new(None),
        }
    }

    /// The last measurement, renewed if it is older than a second.
    pub(in crate::blob) fn space(&self) -> Result<Space, StorageError> {
        self.after_writing(0)
    }

    /// `Full` if `coming` more bytes would reach into the reserve.
    pub(in crate::blob) fn admit(&self, coming: u64) -> Result<(), StorageError> {
        let space = self.after_writing(coming)?;
        if space.available < space.reserve.saturating_add(coming) {
            return Err(StorageError::new(
                StorageErrorKind::Full,
                "the data directory's free space is down to its reserve",
            ));
        }
        Ok(())
    }

    fn after_writing(&self, coming: u64) -> Result<Space, StorageError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = state.as_mut()
            && last.at.elapsed() < MAX_AGE
        {
            last.spent = last.spent.saturating_add(coming);
            let space = last.space;
            // Without writes in between a new look within the second would show the same.
            if last.spent == 0 || space.available >= space.reserve.saturating_add(last.spent) {
                return Ok(space);
            }
        }
        let space = Space::of(&self.directory)?;
        // What is refused is not written.
        let spent = if space.available >= space.reserve.saturating_add(coming) {
            coming
        } else {
            0
        };
        *state = Some(Measurement {
            at: Instant::now(),
            space,
            spent,
        });
        Ok(space)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hazard_r7_reserve_is_five_percent_and_at_most_five_gib() {
        assert_eq!(Space::new(64 << 20, 0).reserve, 3_355_443); // 64 MiB / 20
        assert_eq!(Space::new(100 << 30, 0).reserve, 5 << 30); // exactly the bound
        assert_eq!(Space::new(8 << 40, 0).reserve, 5 << 30);
        assert!(Space::new(1000, 49).is_low());
        assert!(!Space::new(1000, 50).is_low());
    }

    #[test]
    fn a_measurement_is_kept_until_writes_may_have_used_it_up() {
        let gauge = SpaceGauge::new(&std::env::temp_dir());
        let set = |space| {
            *gauge.state.lock().unwrap() = Some(Measurement {
                at: Instant::now(),
                space,
                spent: 0,
            });
        };
        let made_up = Space::new(1000, 60);
        set(made_up);
        assert_eq!(gauge.space().unwrap(), made_up, "younger than a second");
        gauge.admit(6).unwrap();
        gauge.admit(4).unwrap();
        assert_eq!(
            gauge.space().unwrap(),
            made_up,
            "60 - 10 is the reserve exactly"
        );
        let _ = gauge.admit(1);
        assert_ne!(
            gauge.space().unwrap(),
            made_up,
            "measured anew: the reserve would be touched"
        );
        set(Space::new(1000, 10));
        assert_eq!(gauge.admit(0).unwrap_err().kind, StorageErrorKind::Full);
    }
}

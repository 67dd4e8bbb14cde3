//! How far a migration is: one line that is drawn anew at a terminal, else a line of the log now and then.

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

const DRAW_EVERY: Duration = Duration::from_millis(200);
const LOG_EVERY: Duration = Duration::from_secs(10);
/// Back to the beginning of the line, and nothing behind.
const ANEW: &str = "\r\x1b[2K";

/// How far it is. Dropped, it says nothing more.
#[derive(Debug)]
pub(super) struct Progress {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    phase: Mutex<Phase>,
    items: AtomicU64,
    bytes: AtomicU64,
    is_terminal: bool,
}

/// What is being done, and how much of it there is.
#[derive(Debug, Clone, Copy)]
struct Phase {
    what: &'static str,
    items: u64,
    bytes: u64,
    since: Instant,
}

impl Progress {
    /// Begins to tell, on standard error.
    pub(super) fn start() -> Self {
        let shared = Arc::new(Shared {
            phase: Mutex::new(Phase {
                what: "looking",
                items: 0,
                bytes: 0,
                since: Instant::now(),
            }),
            items: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            is_terminal: std::io::stderr().is_terminal(),
        });
        let telling = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            let every = if telling.is_terminal {
                DRAW_EVERY
            } else {
                LOG_EVERY
            };
            loop {
                tokio::time::sleep(every).await;
                telling.tell();
            }
        });
        Self { shared, task }
    }

    /// Something else is done from now on: `items` of what the words name, with so many bytes.
    pub(super) fn begin(&self, what: &'static str, items: u64, bytes: u64) {
        let phase = Phase {
            what,
            items,
            bytes,
            since: Instant::now(),
        };
        *lock(&self.shared.phase) = phase;
        self.shared.items.store(0, Ordering::Relaxed);
        self.shared.bytes.store(0, Ordering::Relaxed);
        if !self.shared.is_terminal {
            self.shared.tell();
        }
    }

    /// So much more has been done.
    pub(super) fn add(&self, items: u64, bytes: u64) {
        self.shared.items.fetch_add(items, Ordering::Relaxed);
        self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes the line away, so that something else can be written.
    pub(super) fn clear(&self) {
        if self.shared.is_terminal {
            let _ = write!(std::io::stderr(), "{ANEW}");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.task.abort();
        self.clear();
    }
}

impl Shared {
    fn tell(&self) {
        let phase = *lock(&self.phase);
        let (items, bytes) = (
            self.items.load(Ordering::Relaxed),
            self.bytes.load(Ordering::Relaxed),
        );
        let line = phase.line(items, bytes, phase.since.elapsed());
        if self.is_terminal {
            let _ = write!(std::io::stderr(), "{ANEW}{line}");
        } else {
            tracing::info!("{line}");
        }
    }
}

impl Phase {
    fn line(&self, items: u64, bytes: u64, took: Duration) -> String {
        if self.items == 0 && items == 0 {
            return self.what.to_owned();
        }
        let seconds = took.as_secs_f64().max(0.001);
        let mut parts = vec![format!(
            "{}: {items} of {}",
            self.what,
            self.items.max(items)
        )];
        let share = if self.bytes > 0 {
            let rate = (bytes as f64 / seconds) as u64;
            parts.push(format!("{} of {}", size(bytes), size(self.bytes)));
            parts.push(format!("{}/s", size(rate)));
            bytes as f64 / self.bytes as f64
        } else {
            parts.push(format!("{:.0}/s", items as f64 / seconds));
            items as f64 / self.items.max(1) as f64
        };
        if share > 0.0 && share < 1.0 && took > Duration::from_secs(2) {
            parts.push(format!("{:.0} s left", seconds / share * (1.0 - share)));
        }
        parts.join(", ")
    }
}

fn lock(phase: &Mutex<Phase>) -> std::sync::MutexGuard<'_, Phase> {
    phase.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number of bytes, for people.
pub(super) fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = "bytes";
    for larger in units {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    if unit == "bytes" {
        format!("{bytes} bytes")
    } else {
        format!("{value:.1} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_how_fast_and_how_long() {
        let phase = Phase {
            what: "copying blobs",
            items: 300,
            bytes: 40 << 20,
            since: Instant::now(),
        };
        assert_eq!(
            phase.line(120, 10 << 20, Duration::from_secs(5)),
            "copying blobs: 120 of 300, 10.0 MiB of 40.0 MiB, 2.0 MiB/s, 15 s left"
        );
        let rows = Phase {
            what: "comparing rows",
            bytes: 0,
            ..phase
        };
        assert_eq!(
            rows.line(300, 0, Duration::from_secs(3)),
            "comparing rows: 300 of 300, 100/s"
        );
        let before = Phase { items: 0, ..rows };
        assert_eq!(before.line(0, 0, Duration::from_secs(9)), "comparing rows");
        assert_eq!(size(1023), "1023 bytes");
        assert_eq!(size(3 << 40), "3.0 TiB");
    }
}

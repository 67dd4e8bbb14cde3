//! How far it is: one line that is drawn anew at a terminal, else a line now and then, on standard error.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use super::super::shown::size;

const DRAW_EVERY: Duration = Duration::from_millis(200);
const WRITE_EVERY: Duration = Duration::from_secs(10);
/// Back to the beginning of the line, and nothing behind.
const ANEW: &str = "\r\x1b[2K";

/// Tells how far it is. Dropped, its line is gone.
pub(super) struct Progress {
    is_terminal: bool,
    what: &'static str,
    bytes: u64,
    of: u64,
    last: Instant,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            is_terminal: std::io::stderr().is_terminal(),
            what: "",
            bytes: 0,
            of: 0,
            last: Instant::now(),
        }
    }

    /// Something else is done from now on, with so many bytes; zero if that is not known.
    pub(super) fn begin(&mut self, what: &'static str, of: u64) {
        (self.what, self.bytes, self.of) = (what, 0, of);
        self.tell();
    }

    /// So many bytes more are done.
    pub(super) fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        let every = if self.is_terminal {
            DRAW_EVERY
        } else {
            WRITE_EVERY
        };
        if self.last.elapsed() >= every {
            self.tell();
        }
    }

    fn tell(&mut self) {
        self.last = Instant::now();
        let line = match self.of {
            0 => format!("{}: {}", self.what, size(self.bytes)),
            of => format!("{}: {} of {}", self.what, size(self.bytes), size(of)),
        };
        // Who cannot read it misses nothing else.
        let _ = if self.is_terminal {
            write!(std::io::stderr(), "{ANEW}{line}")
        } else {
            writeln!(std::io::stderr(), "{line}")
        };
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_terminal {
            let _ = write!(std::io::stderr(), "{ANEW}");
        }
    }
}

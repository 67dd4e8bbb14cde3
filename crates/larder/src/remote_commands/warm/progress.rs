//! How far jobs have come: a bar at a terminal, a line now and then elsewhere.

use std::io::Write;
use std::time::{Duration, Instant};

use super::Failure;

/// Characters of the bar.
const WIDTH: u64 = 30;
/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// What is shown.
#[derive(Debug)]
pub(super) struct Progress {
    all: u64,
    is_terminal: bool,
    is_silent: bool,
    shown: String,
    told: Instant,
}

/// How many files have come to their end, and how many of these are not held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) all: u64,
    pub(super) ended: u64,
    pub(super) failed: u64,
}

impl Progress {
    /// Of so many files. Nothing is shown where programs read.
    pub(super) fn new(all: u64, is_terminal: bool, is_silent: bool) -> Self {
        Self {
            all,
            is_terminal,
            is_silent,
            shown: String::new(),
            told: Instant::now(),
        }
    }

    /// The jobs have been made.
    pub(super) fn begun(&mut self, jobs: &[&str], err: &mut impl Write) -> Result<(), Failure> {
        if self.is_silent || jobs.is_empty() {
            return Ok(());
        }
        let (jobs, files) = (jobs.join(", "), self.all);
        writeln!(err, "job {jobs}: {files} to fetch")?;
        Ok(err.flush()?)
    }

    /// So much has come to its end.
    pub(super) fn show(&mut self, done: Done, err: &mut impl Write) -> Result<(), Failure> {
        if self.is_silent {
            return Ok(());
        }
        let line = line(done, self.is_terminal);
        if self.is_terminal {
            if line != self.shown {
                let blank = self.shown.len().saturating_sub(line.len());
                write!(err, "\r{line}{:blank$}", "")?;
                err.flush()?;
                self.shown = line;
            }
        } else if self.told.elapsed() >= LINE_EVERY {
            self.told = Instant::now();
            writeln!(err, "{line}")?;
            err.flush()?;
        }
        Ok(())
    }

    /// Takes the bar away.
    pub(super) fn clear(&mut self, err: &mut impl Write) -> Result<(), Failure> {
        let width = std::mem::take(&mut self.shown).len();
        if width > 0 {
            write!(err, "\r{:width$}\r", "")?;
            err.flush()?;
        }
        Ok(())
    }
}

fn line(done: Done, with_bar: bool) -> String {
    use std::fmt::Write as _;

    let Done { all, ended, failed } = done;
    let whole = all.max(1);
    let mut line = String::new();
    if with_bar {
        let full = (ended.min(whole) * WIDTH / whole) as usize;
        let (full, rest) = ("#".repeat(full), ".".repeat(WIDTH as usize - full));
        line = format!("[{full}{rest}] {:>3} %  ", ended.min(whole) * 100 / whole);
    }
    let _ = write!(line, "{ended} of {all} files");
    if failed > 0 {
        let _ = write!(line, ", {failed} failed");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_at_a_terminal_and_lines_elsewhere() {
        let done = |ended, failed| Done {
            all: 200,
            ended,
            failed,
        };
        assert_eq!(
            line(done(100, 0), true),
            "[###############...............]  50 %  100 of 200 files"
        );
        assert_eq!(line(done(200, 3), false), "200 of 200 files, 3 failed");
        assert!(line(done(0, 0), true).starts_with("[......"));
        assert!(line(Done::default(), true).contains("  0 %"));
    }

    #[test]
    fn a_bar_is_written_over_and_taken_away() {
        let mut out = Vec::new();
        let mut progress = Progress::new(2, true, false);
        let done = |ended| Done {
            all: 2,
            ended,
            failed: 0,
        };
        progress.show(done(1), &mut out).unwrap();
        progress.show(done(1), &mut out).unwrap();
        progress.clear(&mut out).unwrap();
        let written = String::from_utf8(out).unwrap();
        assert_eq!(written.matches('\r').count(), 3, "{written:?}");
        assert!(
            written.ends_with("   \r") && !written.contains('\n'),
            "{written:?}"
        );
    }
}

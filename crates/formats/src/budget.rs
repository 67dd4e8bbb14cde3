//! What reading one document may cost, whatever it says of itself.
//!
//! A small document can ask for much: a base multiplied by its links, a record named a million times, gigabytes of spaces that pack
//! into kilobytes. So every reader of documents counts on a [`Meter`] what it keeps and makes, and a document that asks for more than
//! its [`Budget`] is [`Malformed`]. Knows no format.

use std::cell::Cell;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::Malformed;

/// Longest URL that links may be relative to, and longest name or path that is put together from parts, in bytes.
pub(crate) const MAX_URL: usize = 2048;
/// How many entries are counted between two looks at the clock.
const STRIDE: u32 = 256;

/// The most that one reading of one document may take. Real documents stay far below all of it: what they cost grows with their length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Bytes of the links that are resolved and written, beside four times the document's length.
    pub output: usize,
    /// Bytes that are kept while it is read (claims above all), beside four times the document's length.
    pub held: usize,
    /// The most of [`held`](Self::held), however long the document is.
    pub most_held: usize,
    /// Entries: files, packages, versions, tags.
    pub entries: usize,
    /// Time of the processor. A machine that is busy with something else does not make a document malformed.
    pub time: Duration,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            output: 12 << 20,
            held: 12 << 20,
            most_held: 256 << 20,
            // PyPI's list of projects has more than half a million.
            entries: 1_000_000,
            time: Duration::from_secs(10),
        }
    }
}

/// What of a budget ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spent {
    Output(usize),
    Written(usize),
    Held(usize),
    Entries(usize),
    Time(Duration),
}

/// Counts what one reading of one document takes of its [`Budget`]. Once something has run out it stays so.
#[derive(Debug, Clone)]
pub struct Meter {
    budget: Budget,
    output: Cell<usize>,
    /// What `output` was at the start.
    most_output: Cell<usize>,
    held: Cell<usize>,
    entries: Cell<usize>,
    until_look: Cell<u32>,
    /// The thread's processor time at which the budget ends.
    deadline: Cell<Duration>,
    spent: Cell<Option<Spent>>,
}

impl Default for Meter {
    fn default() -> Self {
        Self::new(Budget::default(), 0)
    }
}

impl Meter {
    /// For a document of `length` bytes, read from now on and on this thread.
    pub fn new(budget: Budget, length: usize) -> Self {
        let meter = Self {
            budget,
            output: Cell::new(0),
            most_output: Cell::new(0),
            held: Cell::new(0),
            entries: Cell::new(0),
            until_look: Cell::new(STRIDE),
            deadline: Cell::new(Duration::ZERO),
            spent: Cell::new(None),
        };
        meter.begin(length);
        meter
    }

    /// Counts anew, for a document of `length` bytes that is read from now on and on this thread.
    pub(crate) fn begin(&self, length: usize) {
        let scaled = length.saturating_mul(4);
        let most_output = self.budget.output.saturating_add(scaled);
        self.output.set(most_output);
        self.most_output.set(most_output);
        self.held.set(
            self.budget
                .held
                .saturating_add(scaled)
                .min(self.budget.most_held),
        );
        self.entries.set(self.budget.entries);
        self.deadline
            .set(processor_time().saturating_add(self.budget.time));
        self.spent.set(None);
    }

    /// Takes room for a link that is resolved or written; false once there is none left.
    pub(crate) fn output(&self, bytes: usize) -> bool {
        self.take(&self.output, bytes, || Spent::Output(self.budget.output))
    }

    /// Whether all that is written of the document may be this long: its links are only a part of that.
    pub(crate) fn may_be_written(&self, length: usize) -> bool {
        if length > self.most_output.get() {
            self.run_out(Spent::Written(self.budget.output));
        }
        self.spent.get().is_none()
    }

    /// Takes room for what is kept; false once there is none left.
    pub(crate) fn hold(&self, bytes: usize) -> bool {
        self.take(&self.held, bytes, || Spent::Held(self.budget.held))
    }

    /// Counts an entry, and looks at the clock from time to time; false once there are too many, or it took too long.
    pub(crate) fn entry(&self) -> bool {
        let counted = self.take(&self.entries, 1, || Spent::Entries(self.budget.entries));
        counted && self.tick()
    }

    /// Looks at the clock from time to time; false once it took too long.
    pub(crate) fn tick(&self) -> bool {
        let left = self.until_look.get();
        if left > 0 {
            self.until_look.set(left - 1);
        } else {
            self.until_look.set(STRIDE);
            if processor_time() > self.deadline.get() {
                self.run_out(Spent::Time(self.budget.time));
            }
        }
        self.spent.get().is_none()
    }

    /// As [`entry`](Self::entry), for readers that can stop.
    ///
    /// # Errors
    /// Something has run out.
    pub(crate) fn count(&self) -> Result<(), Malformed> {
        self.entry();
        self.end()
    }

    /// As [`hold`](Self::hold), for readers that can stop.
    ///
    /// # Errors
    /// Something has run out.
    pub(crate) fn keep(&self, bytes: usize) -> Result<(), Malformed> {
        self.hold(bytes);
        self.end()
    }

    /// Whether the document kept within its budget.
    ///
    /// # Errors
    /// Something has run out; the sentence says what.
    pub fn end(&self) -> Result<(), Malformed> {
        let Some(spent) = self.spent.get() else {
            return Ok(());
        };
        Err(Malformed(match spent {
            Spent::Output(bytes) => format!(
                "its links are so many, or relative to an address so long, that they would take more than {} MiB beside four times its length",
                bytes >> 20
            ),
            Spent::Written(bytes) => format!(
                "what clients would get of it takes more than {} MiB beside four times its length",
                bytes >> 20
            ),
            Spent::Held(bytes) => format!(
                "what it says of the files it names takes more than {} MiB beside four times its length",
                bytes >> 20
            ),
            Spent::Entries(count) => format!("it has more than {count} entries"),
            Spent::Time(time) => format!(
                "reading it takes more than {} seconds of a processor's time",
                time.as_secs()
            ),
        }))
    }

    fn take(&self, left: &Cell<usize>, amount: usize, spent: impl FnOnce() -> Spent) -> bool {
        if let Some(rest) = left.get().checked_sub(amount) {
            left.set(rest);
        } else {
            left.set(0);
            self.run_out(spent());
        }
        self.spent.get().is_none()
    }

    fn run_out(&self, spent: Spent) {
        if self.spent.get().is_none() {
            self.spent.set(Some(spent));
        }
    }
}

/// What this thread has had of a processor.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Budget = Budget {
        output: 10,
        held: 20,
        most_held: 50,
        entries: 3,
        time: Duration::from_millis(50),
    };

    #[test]
    fn what_runs_out_first_is_told_and_stays_so() {
        let meter = Meter::new(SMALL, 0);
        assert!(meter.output(10) && meter.hold(20));
        assert_eq!(meter.end(), Ok(()));
        assert!(!meter.output(1) && !meter.hold(1) && !meter.entry());
        assert!(
            meter
                .end()
                .unwrap_err()
                .0
                .contains("relative to an address")
        );
        meter.begin(0);
        assert!((0..3).all(|_| meter.entry()));
        assert!(meter.count().unwrap_err().0.contains("more than 3 entries"));
    }

    #[test]
    fn longer_documents_may_take_more_up_to_a_point() {
        let meter = Meter::new(SMALL, 5);
        assert!(meter.output(30) && !meter.output(1));
        meter.begin(1000);
        assert!(meter.hold(50) && !meter.hold(1));
    }

    #[test]
    fn all_that_is_written_has_a_bound_whatever_its_links_take() {
        let meter = Meter::new(SMALL, 5);
        assert!(meter.output(30) && meter.may_be_written(30));
        assert!(!meter.may_be_written(31) && !meter.may_be_written(1));
        assert!(meter.end().unwrap_err().0.contains("clients would get"));
    }

    #[test]
    fn a_document_that_takes_too_long_is_stopped() {
        let meter = Meter::new(SMALL, 0);
        let begun = std::time::Instant::now();
        let mut ticks = 0_u64;
        while meter.tick() {
            ticks += 1;
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "after {ticks} ticks"
            );
        }
        assert!(meter.end().unwrap_err().0.contains("seconds"));
    }
}

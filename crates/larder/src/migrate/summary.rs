//! What came of a migration, for people and for programs.

use std::io::{self, Write};

use larder_storage::{CopyCounts, LeftOut, RowsCopied};
use serde::Serialize;

use super::progress::size;

/// Problems that are named; the others are counted.
const NAMED: usize = 1_000;

/// What came of it.
#[derive(Debug, Default, Serialize)]
pub(super) struct Summary {
    /// Where it was copied from.
    pub(super) from: String,
    /// Where to.
    pub(super) to: String,
    pub(super) dry_run: bool,
    /// Whether all that is copied is at the target, so that larder may start there.
    pub(super) complete: bool,
    /// Whether the target has all that the source has: then the exit status is 0.
    pub(super) verified: bool,
    /// What was verified: `sizes` or `full`.
    pub(super) verify: &'static str,
    pub(super) tables: Vec<Table>,
    pub(super) blobs: Blobs,
    /// Files of remotes that are damaged at the source, and left out.
    pub(super) cached_left_out: u64,
    /// Uploaded files that are damaged at the source.
    pub(super) uploaded_damaged: u64,
    pub(super) problems: Vec<Problem>,
    pub(super) seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    /// What is to be done now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) next: Vec<String>,
}

/// A table of the database.
#[derive(Debug, Serialize)]
pub(super) struct Table {
    table: &'static str,
    rows: u64,
    written: u64,
    deleted: u64,
    left_out: u64,
}

/// All blobs.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Blobs {
    pub(super) blobs: u64,
    pub(super) bytes: u64,
    pub(super) copied: u64,
    pub(super) copied_bytes: u64,
}

/// A file that could not be copied.
#[derive(Debug, Serialize)]
pub(super) struct Problem {
    pub(super) repository: String,
    pub(super) path: String,
    /// Of its bytes; empty where its row is what is wrong.
    pub(super) digest: String,
    pub(super) why: String,
    pub(super) uploaded: bool,
}

impl Summary {
    /// Adds what a look has counted.
    pub(super) fn counted(&mut self, counts: &CopyCounts) {
        let table = |(table, rows): &(&'static str, u64)| Table {
            table,
            rows: *rows,
            written: 0,
            deleted: 0,
            left_out: 0,
        };
        self.tables = counts.rows.iter().map(table).collect();
        self.blobs.blobs = counts.blobs;
        self.blobs.bytes = counts.bytes;
    }

    /// Adds what became of the rows.
    pub(super) fn copied(&mut self, rows: &RowsCopied) {
        let tables = rows.tables.iter().map(|tally| Table {
            table: tally.table,
            rows: tally.rows,
            written: tally.written,
            deleted: tally.deleted,
            left_out: tally.left_out,
        });
        self.tables = tables.collect();
        self.uploaded_damaged += rows.local_left_out;
        // What is only too long for the target is no damage: larder does not keep it there.
        self.cached_left_out += rows.damaged;
        for left in &rows.left_out {
            self.problem(problem_of(left));
        }
    }

    /// Notes and tells a problem.
    pub(super) fn problem(&mut self, problem: Problem) {
        let Problem {
            repository,
            path,
            why,
            digest,
            uploaded,
        } = &problem;
        if *uploaded {
            tracing::error!(repository, path, digest, "an uploaded file {why}");
        } else {
            tracing::warn!(
                repository,
                path,
                digest,
                "a cached file {why}: it is left out, and fetched anew when it is asked for"
            );
        }
        if self.problems.len() < NAMED {
            self.problems.push(problem);
        }
    }

    /// Writes it for people, or as JSON.
    ///
    /// # Errors
    /// `out` cannot be written.
    pub(super) fn write(&self, is_json: bool, out: &mut impl Write) -> io::Result<()> {
        if is_json {
            serde_json::to_writer_pretty(&mut *out, self)?;
            return writeln!(out);
        }
        writeln!(out, "from     {}", self.from)?;
        writeln!(out, "to       {}", self.to)?;
        for table in &self.tables {
            write!(out, "rows     {} {}", table.rows, table.table)?;
            if !self.dry_run {
                write!(out, ": {} written", table.written)?;
                if table.deleted > 0 {
                    write!(out, ", {} deleted", table.deleted)?;
                }
                if table.left_out > 0 {
                    write!(out, ", {} left out", table.left_out)?;
                }
            }
            writeln!(out)?;
        }
        let Blobs {
            blobs,
            bytes,
            copied,
            copied_bytes,
        } = self.blobs;
        let done = if self.dry_run { "to copy" } else { "copied" };
        writeln!(
            out,
            "blobs    {blobs} ({}): {copied} {done} ({})",
            size(bytes),
            size(copied_bytes)
        )?;
        for problem in &self.problems {
            let whose = if problem.uploaded {
                "uploaded"
            } else {
                "cached"
            };
            writeln!(
                out,
                "{whose:<8} {}/{} {} {}",
                problem.repository, problem.path, problem.why, problem.digest
            )?;
        }
        writeln!(out, "took     {:.1} s", self.seconds)?;
        writeln!(out, "{}", self.verdict())?;
        for next in &self.next {
            writeln!(out, "next     {next}")?;
        }
        Ok(())
    }

    fn verdict(&self) -> String {
        if let Some(error) = &self.error {
            return format!("NOT complete: {error}");
        }
        if self.dry_run {
            return "nothing was copied: this was a dry run".to_owned();
        }
        // A database that stays is not compared with itself.
        let rows = if self.tables.is_empty() {
            ""
        } else {
            "all rows compared, "
        };
        let blobs = match self.verify {
            "full" => "all blobs read and hashed",
            _ => "all blobs there with their lengths",
        };
        let how = format!("{rows}{blobs}");
        if self.verified {
            return format!("complete and verified: {how}");
        }
        format!(
            "complete but for {} cached files that are damaged at the source, which are fetched anew when they are asked for; the rest \
             is verified: {how}",
            self.cached_left_out
        )
    }
}

fn problem_of(left: &LeftOut) -> Problem {
    Problem {
        repository: left.repository.clone(),
        path: left.path.clone(),
        digest: String::new(),
        why: format!("cannot be copied: {}", left.why),
        uploaded: left.is_local,
    }
}

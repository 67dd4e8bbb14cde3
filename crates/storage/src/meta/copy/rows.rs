//! The walk through both databases: what differs is written, or counted.

use std::cmp::Ordering;
use std::collections::{BTreeSet, VecDeque};

use larder_core::Digest;

use super::tables::{BLOBS, Cells, Fault, LOCAL_FILES, TABLES, Table};
use crate::error::StorageError;
use crate::meta::db::{Db, DbError, Durability, Sql, Value};
use crate::meta::patience::{Obstacle, Patience};
use crate::meta::{MetadataStore, parse_digest};

/// Rows that are read at once.
const PAGE: i64 = 500;
/// Rows, and bytes of them, that are written in one transaction.
const MOST_ROWS: usize = 400;
const MOST_BYTES: usize = 2 << 20;
/// Rows that are left out and named; the others are counted.
const NAMED: usize = 1_000;
const DOING: &str = "copy rows";

/// What became of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowTally {
    /// The table's name.
    pub table: &'static str,
    /// Rows that both databases have to have.
    pub rows: u64,
    /// Rows that were missing or different, and were written; in a look: that would have been.
    pub written: u64,
    /// Rows that the source does not have, and were deleted; in a look: that would have been.
    pub deleted: u64,
    /// Rows that are not copied: those of damaged blobs, and those that are damaged themselves.
    pub left_out: u64,
}

/// A row that is not copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// The table.
    pub table: &'static str,
    /// The repository; of a secret its name.
    pub repository: String,
    /// The path; empty where there is none.
    pub path: String,
    /// For the operator: what is wrong with it.
    pub why: &'static str,
    /// Whether nobody else has what it names: it was uploaded.
    pub is_local: bool,
}

/// What became of all tables.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RowsCopied {
    /// By table.
    pub tables: Vec<RowTally>,
    /// The first of the rows that are not copied for something that is wrong with the row itself.
    pub left_out: Vec<LeftOut>,
    /// How many rows are damaged that were not uploaded.
    pub damaged: u64,
    /// How many rows are not copied for something that is wrong with the row itself, and were uploaded.
    pub local_left_out: u64,
}

impl RowsCopied {
    /// Whether the other database has exactly the rows that it should have, as far as a look has found.
    pub fn is_same(&self) -> bool {
        self.tables
            .iter()
            .all(|table| table.written == 0 && table.deleted == 0)
    }
}

/// A table's rows, in order.
struct Pages<'t> {
    db: Db,
    table: &'t Table,
    query: &'static str,
    buffer: VecDeque<Cells>,
    after: Vec<Value<'static>>,
    is_last: bool,
}

impl<'t> Pages<'t> {
    fn new(db: Db, table: &'t Table, query: &'static str) -> Self {
        Self {
            db,
            table,
            query,
            buffer: VecDeque::new(),
            after: vec![Value::from(""); table.keys],
            is_last: false,
        }
    }

    /// The next row, which stays the next one.
    async fn peek(&mut self) -> Result<Option<&Cells>, DbError> {
        if self.buffer.is_empty() && !self.is_last {
            let mut values = self.after.clone();
            values.push(PAGE.into());
            let rows = self.db.all(self.query, &values).await?;
            self.is_last = (rows.len() as i64) < PAGE;
            for row in &rows {
                self.buffer.push_back(self.table.cells(row)?);
            }
            if let Some(last) = self.buffer.back() {
                self.after = last.key_values(self.table);
            }
        }
        Ok(self.buffer.front())
    }

    fn take(&mut self) -> Option<Cells> {
        self.buffer.pop_front()
    }
}

/// Statements that are yet to be run.
struct Writes<'t> {
    target: &'t MetadataStore,
    /// Whether anything is written at all.
    may_write: bool,
    statements: Vec<(Sql, Vec<Value<'static>>)>,
    bytes: usize,
}

impl Writes<'_> {
    async fn push(
        &mut self,
        statement: &'static str,
        values: Vec<Value<'static>>,
        weight: usize,
    ) -> Result<(), StorageError> {
        if !self.may_write {
            return Ok(());
        }
        self.statements.push((statement.into(), values));
        self.bytes += weight;
        if self.statements.len() >= MOST_ROWS || self.bytes >= MOST_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), StorageError> {
        if self.statements.is_empty() {
            return Ok(());
        }
        let mut patience = Patience::default();
        loop {
            let written = async {
                let tx = self.target.db().begin(Durability::Grouped).await?;
                tx.commit_with(&self.statements).await
            };
            match written.await {
                Ok(()) => break,
                Err(error) => patience.after(Obstacle::of(DOING, error), DOING).await?,
            }
        }
        self.statements.clear();
        self.bytes = 0;
        Ok(())
    }
}

/// What of a table is changed at the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    All,
    /// Rows are written, and none deleted.
    Put,
    /// Rows are deleted, and none written.
    Delete,
}

/// One walk.
struct Walk<'w> {
    source: &'w MetadataStore,
    target: &'w MetadataStore,
    leave_out: &'w BTreeSet<Digest>,
    may_write: bool,
    progress: &'w (dyn Fn(u64) + Send + Sync),
    copied: RowsCopied,
}

impl MetadataStore {
    /// Makes the rows of `target` those of this database: what is missing or different is written, what is not here is deleted, in
    /// transactions of a few hundred rows. What names one of the blobs of `leave_out`, or is damaged, is not copied. Whatever was copied
    /// before is left alone, so that a copy that was broken off goes on. `progress` hears how many rows have been compared. Nobody else
    /// may use either database meanwhile.
    ///
    /// # Errors
    /// One of the databases fails; what was written stays.
    pub async fn copy_rows(
        &self,
        target: &Self,
        leave_out: &BTreeSet<Digest>,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<RowsCopied, StorageError> {
        let mut walk = Walk::new(self, target, leave_out, progress);
        walk.may_write = true;
        for table in TABLES {
            let part = if table.name == BLOBS.name {
                Part::Put
            } else {
                Part::All
            };
            walk.table(table, part).await?;
        }
        // Nothing refers to them any more.
        walk.table(&BLOBS, Part::Delete).await?;
        Ok(walk.copied)
    }

    /// As [`copy_rows`](Self::copy_rows), and writes nothing: tells how the databases differ.
    ///
    /// # Errors
    /// One of the databases fails.
    pub async fn compare_rows(
        &self,
        target: &Self,
        leave_out: &BTreeSet<Digest>,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<RowsCopied, StorageError> {
        let mut walk = Walk::new(self, target, leave_out, progress);
        for table in TABLES {
            walk.table(table, Part::All).await?;
        }
        Ok(walk.copied)
    }
}

impl<'w> Walk<'w> {
    fn new(
        source: &'w MetadataStore,
        target: &'w MetadataStore,
        leave_out: &'w BTreeSet<Digest>,
        progress: &'w (dyn Fn(u64) + Send + Sync),
    ) -> Self {
        Self {
            source,
            target,
            leave_out,
            may_write: false,
            progress,
            copied: RowsCopied::default(),
        }
    }

    async fn table(&mut self, table: &Table, part: Part) -> Result<(), StorageError> {
        let failed = |error| StorageError::from_sql(DOING, error);
        let mut tally = RowTally {
            table: table.name,
            ..RowTally::default()
        };
        let mut here = Pages::new(self.source.db().patiently(), table, table.source_page);
        let mut there = Pages::new(self.target.db().patiently(), table, table.page);
        let mut writes = Writes {
            target: self.target,
            may_write: self.may_write,
            statements: Vec::new(),
            bytes: 0,
        };
        loop {
            let next = here.peek().await.map_err(failed)?;
            if let Some(row) = next
                && self.leaves_out(table, row, part, &mut tally)
            {
                here.take();
                continue;
            }
            let other = there.peek().await.map_err(failed)?;
            let order = match (next, other) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(row), Some(other)) => row.key(table).cmp(&other.key(table)),
            };
            // A row of the source, a row of the target, or both have the next key.
            let row = order.is_le().then(|| here.take()).flatten();
            let other = order.is_ge().then(|| there.take()).flatten();
            match row {
                Some(row) => {
                    tally.rows += 1;
                    if part != Part::Delete {
                        (self.progress)(1);
                    }
                    if part != Part::Delete && other.as_ref() != Some(&row) {
                        tally.written += 1;
                        let weight = row.weight();
                        writes.push(table.put, row.0, weight).await?;
                    }
                }
                None => {
                    if let Some(other) = other.filter(|_| part != Part::Put) {
                        tally.deleted += 1;
                        let values = other.key_values(table);
                        writes.push(table.delete, values, other.weight()).await?;
                    }
                }
            }
        }
        writes.flush().await?;
        self.add(tally, part);
        Ok(())
    }

    fn add(&mut self, tally: RowTally, part: Part) {
        let tables = &mut self.copied.tables;
        match tables.iter_mut().find(|other| other.table == tally.table) {
            Some(other) if part == Part::Delete => other.deleted += tally.deleted,
            _ => tables.push(tally),
        }
    }

    /// Whether a row of the source is not copied. Says so once.
    fn leaves_out(&mut self, table: &Table, row: &Cells, part: Part, tally: &mut RowTally) -> bool {
        let is_local = table.name == LOCAL_FILES.name;
        let blob = table.blob.map(|index| row.text(index)).unwrap_or_default();
        let of_damaged = !blob.is_empty()
            && parse_digest(blob).is_ok_and(|digest| self.leave_out.contains(&digest));
        if of_damaged {
            tally.left_out += 1;
            return true;
        }
        let Some(fault) = self.fault(table, row) else {
            return false;
        };
        tally.left_out += 1;
        if part == Part::Delete {
            return true;
        }
        let why = match fault {
            Fault::Damaged => "its row in the database is damaged",
            Fault::TooLong => "its path is longer than PostgreSQL can index",
        };
        self.copied.damaged += u64::from(fault == Fault::Damaged && !is_local);
        self.copied.local_left_out += u64::from(is_local);
        if self.copied.left_out.len() < NAMED {
            let has_path = table.keys > 1;
            self.copied.left_out.push(LeftOut {
                table: table.name,
                repository: row.text(0).to_owned(),
                path: row.text(usize::from(has_path)).to_owned(),
                why,
                is_local,
            });
        }
        true
    }

    fn fault(&self, table: &Table, row: &Cells) -> Option<Fault> {
        if !table.is_intact(row) {
            return Some(Fault::Damaged);
        }
        let length: usize = row.key(table).iter().map(|text| text.len()).sum();
        (!self.target.db().takes_key(length)).then_some(Fault::TooLong)
    }
}

//! A row of either engine, and what its columns can be read as.

use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;

use super::{DbError, postgres};

/// What a column can be read as.
pub(crate) trait Column: Sized {
    /// The column `index` of a row, counted from 0.
    fn read(row: &Row, index: usize) -> Result<Self, DbError>;
}

/// A row that was read.
#[derive(Debug)]
pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    /// The column `index`, counted from 0.
    pub(crate) fn get<T: Column>(&self, index: usize) -> Result<T, DbError> {
        T::read(self, index)
    }
}

macro_rules! columns {
    ($($type:ty),*) => {$(
        impl Column for $type {
            fn read(row: &Row, index: usize) -> Result<Self, DbError> {
                match row {
                    Row::Sqlite(row) => Ok(sqlx::Row::try_get(row, index)?),
                    Row::Postgres(row) => Ok(sqlx::Row::try_get(row, index)?),
                }
            }
        }
    )*};
}
columns!(i64, String, Option<i64>, Option<String>);

/// Bytes are what a column of bytes or of text holds.
impl Column for Vec<u8> {
    fn read(row: &Row, index: usize) -> Result<Self, DbError> {
        match row {
            Row::Sqlite(row) => Ok(sqlx::Row::try_get(row, index)?),
            Row::Postgres(row) => postgres::bytes(row, index),
        }
    }
}

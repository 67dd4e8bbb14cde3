//! The seam to the database engine. Above it are statements (constants with `$n` places, in SQL that PostgreSQL reads too), values
//! and rows; below it the engine: its connections, its settings, its log and its error codes. Nothing above names an engine.
//!
//! There is one engine, [`sqlite`]: what a second one must offer is what [`Db`] and [`Tx`] have.

use std::borrow::Cow;
use std::error::Error as StdError;

use crate::error::StorageErrorKind;

mod codes;
mod sqlite;
mod upkeep;

pub(crate) use sqlite::{Db, Row, Tx};

/// What a commit promises when it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// The change is visible and survives the end of the process. A power cut may take it back together with everything that was
    /// committed after it: for what can be fetched again.
    #[default]
    Grouped,
    /// The change, and all that was committed before it, is on stable storage: for what only larder has.
    Durable,
}

/// What stands in the place `$n` of a statement.
#[derive(Debug, Clone)]
pub(crate) enum Value<'a> {
    Null,
    Integer(i64),
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
}

/// What a column can be read as.
pub(crate) trait Column: Sized {
    /// The column `index` of a row, counted from 0.
    fn read(row: &Row, index: usize) -> Result<Self, DbError>;
}

/// What makes a statement fail.
#[derive(Debug)]
pub(crate) struct DbError {
    pub(crate) kind: StorageErrorKind,
    /// For users; completes "cannot …: ".
    pub(crate) reason: &'static str,
    pub(crate) about: About,
    /// For logs.
    pub(crate) source: Box<dyn StdError + Send + Sync>,
}

/// What a failure is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum About {
    /// A column holds another type than it should.
    Value,
    /// The engine does not know what the statement names, such as a table.
    Statement,
    Other,
}

/// A file that may be a database: its tables and indexes as the engine lists them.
pub(crate) type Schema = Vec<(String, String, String, String)>;

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(Cow::Borrowed(bytes))
    }
}

impl From<Vec<u8>> for Value<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(Cow::Owned(bytes))
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

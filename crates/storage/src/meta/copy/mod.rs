//! Copies of what is remembered, from one database into another: row by row as they stand, with their seals.
//!
//! No note says how far a copy has come that was broken off: both databases give their rows in the order of their keys, and what differs
//! is written. So a copy that is begun again goes on where it was, also if its source has changed meanwhile, and a look that writes
//! nothing tells whether the copy is one (docs/adr/0085). What is derived is not copied: it is made again.

mod marker;
mod open;
mod references;
mod rows;
mod tables;

pub use marker::Migration;
pub use references::{BlobName, CopyCounts, NamedBlobs};
pub use rows::{LeftOut, RowTally, RowsCopied};

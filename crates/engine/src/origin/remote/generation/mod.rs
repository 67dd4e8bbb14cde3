//! Files that are only right together (docs/adr/0023): what stands around a document, who is reading it, its exchange for the next one,
//! and what becomes of the files of the one before.

pub(crate) mod companions;
pub(crate) mod exchange;
pub(crate) mod readers;
pub(crate) mod retire;

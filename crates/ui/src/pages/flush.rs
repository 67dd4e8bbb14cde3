//! Forgetting copies of a repository: the question, and what came of it.

use serde::Serialize;

use super::view::page;
use crate::pages::RepositoryHead;
use crate::values::Count;

/// The form, and when it is sent for the first time the question whether it is meant.
#[derive(Debug, Clone, Serialize)]
pub struct Flush {
    /// The repository.
    pub repository: RepositoryHead,
    /// `all`, `index` or `files`.
    pub cache_type: String,
    /// The regular expression that was given; empty stands for everything.
    pub pattern: String,
    /// Whether this is the question.
    pub confirm: bool,
    /// What is wrong with the pattern.
    pub refused: Option<String>,
}

page!(Flush, "flush.html", crate::Section::Repositories);

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Flushed {
    /// The repository.
    pub repository: RepositoryHead,
    /// Documents that were forgotten.
    pub index: Count,
    /// Files that were forgotten.
    pub files: Count,
}

page!(Flushed, "flushed.html", crate::Section::Repositories);

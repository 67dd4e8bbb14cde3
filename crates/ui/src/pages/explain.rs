//! Why a path is answered as it is.

use serde::Serialize;

use super::view::page;
use crate::values::Moment;

/// The form, and the answer to what was asked.
#[derive(Debug, Clone, Serialize)]
pub struct Explain {
    /// What was pasted.
    pub url: String,
    /// The answer; `None` if nothing was asked, or there is none.
    pub explained: Option<Explained>,
    /// Why there is none.
    pub refused: Option<String>,
}

page!(Explain, "explain.html", crate::Section::Explain);

/// The answer.
#[derive(Debug, Clone, Serialize)]
pub struct Explained {
    /// The repository.
    pub repository: String,
    /// The path below it.
    pub path: String,
    /// What a GET would come to at present, in a sentence.
    pub verdict: String,
    /// Step by step.
    pub steps: Vec<Step>,
}

/// One thing that is so.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    /// What it is about.
    pub name: &'static str,
    /// What is so; `None`: not known, or it does not apply.
    pub value: Option<String>,
    /// Until when.
    pub until: Option<Moment>,
    /// Why, in a sentence.
    pub because: String,
    /// The key of the configuration that decided.
    pub decided_by: Option<String>,
    /// Where it stands (`file:line`).
    pub line: Option<String>,
}

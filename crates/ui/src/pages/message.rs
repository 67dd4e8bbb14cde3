//! What is said instead of a page: nothing is here, this may not be done, something went wrong.

use serde::Serialize;

use super::view::page;

/// A message in place of a page.
#[derive(Debug, Clone, Serialize)]
pub struct Message {
    /// A few words: `Not found`.
    #[serde(skip)]
    pub title: String,
    /// What happened and what to do.
    pub error: String,
    /// The stable word for it.
    pub code: String,
    /// The repository concerned.
    pub repository: Option<String>,
    /// The rule that decided.
    pub rule: Option<String>,
    /// Whether signing in would help.
    #[serde(skip)]
    pub sign_in: bool,
}

page!(Message, "message.html", crate::Section::Other);

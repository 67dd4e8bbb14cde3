//! The configuration as loaded.

use serde::Serialize;

use crate::page::page;

/// The page. Nothing in it is secret.
#[derive(Debug, Clone, Serialize)]
pub struct Configuration {
    /// What loading it had to say.
    pub warnings: Vec<Warning>,
    /// Its keys with their values, in the order of the file; those of repositories under `remotes.NAME`.
    pub sections: Vec<(String, Vec<Key>)>,
}

page!(
    Configuration,
    "configuration.html",
    crate::Section::Configuration
);

/// A warning or a note.
#[derive(Debug, Clone, Serialize)]
pub struct Warning {
    /// `file:line: …`, as `larder check` prints it.
    pub message: String,
}

/// A key.
#[derive(Debug, Clone, Serialize)]
pub struct Key {
    /// Its name within the section.
    pub key: String,
    /// Its value as JSON; secrets are replaced.
    pub value: String,
    /// Where it stands (`file:line`), as far as it is written down.
    pub line: Option<String>,
}

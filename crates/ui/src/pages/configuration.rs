//! The configuration as loaded.

use serde::Serialize;

use super::view::page;

/// The page. Nothing in it is secret.
#[derive(Debug, Clone, Serialize)]
pub struct Configuration {
    /// What loading it had to say.
    pub warnings: Vec<Warning>,
    /// What is general, and the repositories of this page, each as `remotes.NAME`.
    pub sections: Vec<Keys>,
    /// Behind which repository the next page begins; `None`: there is none.
    pub next: Option<String>,
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

/// Keys that belong together.
#[derive(Debug, Clone, Serialize)]
pub struct Keys {
    /// What they are about.
    pub name: String,
    /// The keys.
    pub keys: Vec<Key>,
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
    /// Whether this value takes effect only when larder is started again, and another one is in force until then.
    pub is_waiting: bool,
}

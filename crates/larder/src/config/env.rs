//! The only reader of the process environment.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// The environment variables as they were at start. `Debug` shows names only: values may be secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<String, String>);

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Environment {
    /// The environment of this process. Variables that are not UTF-8 are left out.
    pub fn of_process() -> Self {
        Self(
            std::env::vars_os()
                .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
                .collect(),
        )
    }

    /// An environment of these variables, for tests.
    pub fn of<'v>(variables: impl IntoIterator<Item = (&'v str, &'v str)>) -> Self {
        Self(
            variables
                .into_iter()
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect(),
        )
    }

    /// The value of a variable; an empty one counts as absent, as compose files leave them.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// Whether what is written to a terminal may move its cursor: not if `TERM` says that it is dumb.
    pub fn takes_escapes(&self) -> bool {
        self.get("TERM") != Some("dumb")
    }

    /// Whether what is written to a terminal may have colours: not with `NO_COLOR` either.
    pub fn takes_colours(&self) -> bool {
        self.takes_escapes() && self.get("NO_COLOR").is_none()
    }

    /// The variables with this prefix that are set and not empty.
    pub(super) fn named<'e>(&'e self, prefix: &'e str) -> impl Iterator<Item = (&'e str, &'e str)> {
        let pairs = self
            .0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        pairs.filter(move |(name, value)| name.starts_with(prefix) && !value.is_empty())
    }

    /// `$XDG_DATA_HOME/larder`, else `~/.local/share/larder`; `None` without a home.
    pub(super) fn default_data_dir(&self) -> Option<PathBuf> {
        let xdg = self
            .get("XDG_DATA_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute());
        let home = || {
            self.get("HOME")
                .map(|home| PathBuf::from(home).join(".local/share"))
        };
        xdg.or_else(home).map(|base| base.join("larder"))
    }
}

//! What a reload has changed, by name: for the log and `/health`.

use larder_core::{Repository, Secret};

use super::settings::Settings;

/// The differences between two configurations. Holds names only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Repositories that are new.
    pub added: Vec<String>,
    /// Repositories that are gone.
    pub removed: Vec<String>,
    /// Repositories with other settings.
    pub changed: Vec<String>,
    /// Top-level keys with other values, whether by the file, a flag or the environment.
    pub keys: Vec<String>,
}

impl Changes {
    /// Compares the configuration in force with the next one.
    pub fn between(old: &Settings, new: &Settings) -> Self {
        let find = |settings: &Settings, name: &str| {
            settings
                .repositories
                .iter()
                .find(|repository| repository.name.as_str() == name)
                .cloned()
        };
        let mut changes = Self {
            keys: keys(old, new),
            ..Self::default()
        };
        for repository in &new.repositories {
            let name = repository.name.to_string();
            match find(old, &name) {
                None => changes.added.push(name),
                Some(before) if !is_same(&before, repository) => changes.changed.push(name),
                Some(_) => {}
            }
        }
        let gone = old
            .repositories
            .iter()
            .map(|repository| repository.name.to_string());
        changes.removed = gone.filter(|name| find(new, name).is_none()).collect();
        changes
    }

    /// All names in one list, repositories as `remotes.NAME`.
    pub fn names(&self) -> Vec<String> {
        let repositories = self.added.iter().chain(&self.removed).chain(&self.changed);
        repositories
            .map(|name| format!("remotes.{name}"))
            .chain(self.keys.iter().cloned())
            .collect()
    }
}

fn keys(old: &Settings, new: &Settings) -> Vec<String> {
    let (Some(before), Some(after)) = (old.config_view.as_object(), new.config_view.as_object())
    else {
        return Vec::new();
    };
    let mut keys: Vec<String> = before
        .keys()
        .chain(after.keys())
        .filter(|key| before.get(*key) != after.get(*key))
        .cloned()
        .collect();
    // The view shows that there is a token, and not which.
    if old.admin_token != new.admin_token {
        keys.push("auth".to_owned());
    }
    keys.retain(|key| key != "remotes");
    keys.sort();
    keys.dedup();
    keys
}

/// Secrets are compared as well. They are not in the `Debug` form, which holds everything else.
fn is_same(one: &Repository, other: &Repository) -> bool {
    secrets(one) == secrets(other) && format!("{one:?}") == format!("{other:?}")
}

fn secrets(repository: &Repository) -> Vec<&Secret<String>> {
    let Some(upstream) = repository.upstream() else {
        return Vec::new();
    };
    let password = upstream
        .credentials
        .iter()
        .map(|credentials| &credentials.password);
    password
        .chain(upstream.headers.iter().map(|(_, value)| value))
        .collect()
}

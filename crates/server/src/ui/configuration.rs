//! `/ui/configuration`: the configuration as loaded.

use larder_ui::pages::{self, Key, Keys, Warning};
use serde_json::{Map, Value};

use super::visit::{Outcome, Visit};
use crate::backend::Backend;

/// Repositories on a page. They are in the order of their names: that is how the view of the configuration has them.
const PAGE: usize = 30;

pub(crate) fn show<B: Backend>(visit: &Visit<'_, B>) -> Outcome {
    visit.may_see_configuration()?;
    let warnings = visit.live.config_warnings.iter();
    let empty = Map::new();
    let view = visit.live.config_view.as_object().unwrap_or(&empty);
    let general = view.iter().filter(|(key, _)| *key != "remotes");
    let general = general.map(|(key, value)| shown(visit, "", key, value));
    let general = general.map(|key| Key {
        is_waiting: visit.live.config_waiting.contains(&key.key),
        ..key
    });
    let general = Keys {
        name: "General".to_owned(),
        keys: general.collect(),
    };
    let after = visit.parameter("after");
    let mut sections = Vec::new();
    if after.is_empty() {
        sections.push(general);
    }
    let remotes = view.get("remotes").and_then(Value::as_object);
    let remotes = remotes.unwrap_or(&empty).iter();
    let mut coming = remotes.filter(|(name, _)| **name > after).peekable();
    let mut last = None;
    for (name, keys) in coming.by_ref().take(PAGE) {
        let keys = keys.as_object().unwrap_or(&empty).iter();
        let section = format!("remotes.{name}");
        let keys = keys.map(|(key, value)| shown(visit, &section, key, value));
        sections.push(Keys {
            keys: keys.collect(),
            name: section.clone(),
        });
        last = Some(name.clone());
    }
    visit.page(&pages::Configuration {
        warnings: warnings
            .map(|message| Warning {
                message: message.clone(),
            })
            .collect(),
        sections,
        next: last.filter(|_| coming.peek().is_some()),
    })
}

fn shown<B: Backend>(visit: &Visit<'_, B>, section: &str, key: &str, value: &Value) -> Key {
    let line = visit.live.config_lines.get(&format!("{section}.{key}"));
    Key {
        key: key.to_owned(),
        value: match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        },
        line: line.cloned(),
        is_waiting: false,
    }
}

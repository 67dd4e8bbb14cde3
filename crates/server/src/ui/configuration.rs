//! `/ui/configuration`: the configuration as loaded.

use larder_ui::pages::{self, Key, Warning};
use serde_json::{Map, Value};

use super::visit::{Outcome, Visit};
use crate::backend::Backend;

pub(crate) fn show<B: Backend>(visit: &Visit<'_, B>) -> Outcome {
    visit.may_see_configuration()?;
    let warnings = visit.live.config_warnings.iter();
    let empty = Map::new();
    let view = visit.live.config_view.as_object().unwrap_or(&empty);
    let general = view.iter().filter(|(key, _)| *key != "remotes");
    let general = general.map(|(key, value)| shown(visit, "", key, value));
    let mut sections = vec![("General".to_owned(), general.collect())];
    let remotes = view.get("remotes").and_then(Value::as_object);
    for (name, keys) in remotes.unwrap_or(&empty) {
        let keys = keys.as_object().unwrap_or(&empty).iter();
        let section = format!("remotes.{name}");
        let keys = keys
            .map(|(key, value)| shown(visit, &section, key, value))
            .collect();
        sections.push((section, keys));
    }
    visit.page(&pages::Configuration {
        warnings: warnings
            .map(|message| Warning {
                message: message.clone(),
            })
            .collect(),
        sections,
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
    }
}

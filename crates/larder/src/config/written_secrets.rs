//! Which secrets stand in the files themselves, for whoever asks who may read those files (`larder doctor`).

use super::diagnostic::{Place, Report};
use super::file;
use super::node::{Entry, Node, Value};
use super::schema;
use super::settings::Sources;

/// Each key whose value is a secret that is written down, rather than taken from the environment, and where it stands. Never the secret.
/// What of the files cannot be read or understood has none.
pub fn written_secrets(sources: &Sources) -> Vec<(String, Place)> {
    let loaded = file::read(sources.config_path().as_deref(), &mut Report::default());
    let mut found = Vec::new();
    for entry in &loaded.document.top {
        look(entry, &entry.key, false, &mut found);
    }
    for entry in &loaded.document.remotes {
        // A repository may be called like a key.
        let above = format!("remotes.{}", entry.key);
        for below in entry.node.entries() {
            look(below, &format!("{above}.{}", below.key), false, &mut found);
        }
    }
    found
}

fn look(entry: &Entry, key: &str, secret: bool, found: &mut Vec<(String, Place)>) {
    let secret = secret || schema::is_secret(&entry.key) || entry.key == "headers";
    values(&entry.node, key, secret, found);
}

fn values(node: &Node, key: &str, secret: bool, found: &mut Vec<(String, Place)>) {
    match &node.value {
        Value::Null => {}
        Value::Scalar { text, .. } => {
            let is_written = !text.is_empty() && !text.contains("${");
            if is_written && (secret || has_password(text)) {
                found.push((key.to_owned(), node.place.clone()));
            }
        }
        Value::List(items) => {
            for item in items {
                values(item, key, secret, found);
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                look(entry, &format!("{key}.{}", entry.key), secret, found);
            }
        }
    }
}

/// Whether it is a URL with a password in it.
fn has_password(text: &str) -> bool {
    url::Url::parse(text).is_ok_and(|url| url.password().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_that_are_written_down_and_no_others() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("larder.yaml");
        let text = "\
auth: {admin_token: 'canary-1'}
redis:
  url: redis://user:canary-2@redis.example.com
remotes:
  secret:
    base_url: http://a.example.com
  a:
    base_url: http://a.example.com
    username: u
    password: canary-3
    headers: {X-Key: 'canary-4'}
  b:
    base_url: http://a.example.com
    username: u
    password: ${OF_THE_ENVIRONMENT}
    proxy: http://proxy.example.com
";
        std::fs::write(&path, text).unwrap();
        let sources = Sources {
            config: Some(path),
            ..Sources::default()
        };
        let found = written_secrets(&sources);
        let shown: Vec<(&str, usize)> = found
            .iter()
            .map(|(key, place)| (key.as_str(), place.line))
            .collect();
        let expected = [
            ("auth.admin_token", 1),
            ("redis.url", 3),
            ("remotes.a.password", 10),
            ("remotes.a.headers.X-Key", 11),
        ];
        assert_eq!(shown, expected);
        assert!(!format!("{found:?}").contains("canary"));
    }
}

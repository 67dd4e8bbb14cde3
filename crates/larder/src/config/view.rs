//! `GET /config`: the loaded configuration in the shape of the file, with every secret replaced (hazard S17).
//!
//! A secret's presence is shown, its value never. That goes for credentials inside URLs as well, wherever they stand.

use larder_core::{MemberUrls, REDACTED, Repository};
use serde_json::{Map, Value as Json, json};

use super::bounds::DiskLimit;
use super::database;
use super::merge::Document;
use super::node::{Node, Value};
use super::schema;
use super::settings::{S3, Settings};

/// The files' content, completed by what flags, environment and defaults say.
pub(super) fn config_view(document: &Document, settings: &Settings) -> Json {
    // What stood in that directory is among the repositories, so that the whole is one file again.
    let top = document
        .top
        .iter()
        .filter(|entry| entry.key != "config_dir");
    let mut view: Map<String, Json> = top
        .map(|entry| {
            (
                entry.key.clone(),
                to_json(&entry.node, schema::is_secret(&entry.key)),
            )
        })
        .collect();
    let listen: Vec<String> = settings.listen.iter().map(ToString::to_string).collect();
    view.insert("listen".to_owned(), json!(listen));
    view.insert("data_dir".to_owned(), json!(settings.data_dir));
    view.insert("drain".to_owned(), json!(settings.drain.as_secs()));
    if let Some(s3) = &settings.s3 {
        view.insert("s3".to_owned(), s3_view(s3));
    }
    view.insert("hot_set".to_owned(), json!(settings.hot_set));
    let limits = limits_view(settings, view.get("limits"));
    view.insert("limits".to_owned(), limits);
    if let Some(options) = &settings.database {
        view.insert("database".to_owned(), database::view(options));
    }
    match settings.public_urls.all() {
        [] => {}
        [one] => drop(view.insert("public_url".to_owned(), json!(one))),
        several => drop(view.insert("public_url".to_owned(), json!(several))),
    }
    if settings.admin_token.is_some() {
        view.insert("auth".to_owned(), json!({"admin_token": REDACTED}));
    }
    of_replicas_and_traces(settings, &mut view);
    let remotes = document.remotes.iter().map(|entry| {
        let shown = to_json(&entry.node, false);
        let repository = settings
            .repositories
            .iter()
            .find(|r| r.name.as_str() == entry.key);
        (
            entry.key.clone(),
            repository.map_or(shown.clone(), |repository| complete(shown, repository)),
        )
    });
    let remotes: Map<String, Json> = remotes.collect();
    view.insert("remotes".to_owned(), Json::Object(remotes));
    Json::Object(view)
}

/// What is in force of `redis`, `advertise`, `cluster` and `tracing`, wherever it was said.
fn of_replicas_and_traces(settings: &Settings, view: &mut Map<String, Json>) {
    let cluster = &settings.cluster;
    if let Some(redis) = &cluster.redis {
        // Credentials may stand in more than one place of it.
        let mut shown = json!({"url": redis.to_string()});
        if let Some(file) = &cluster.redis_ca_file {
            shown["ca_file"] = json!(file);
        }
        view.insert("redis".to_owned(), shown);
    }
    if let Some(advertise) = &cluster.advertise {
        view.insert("advertise".to_owned(), json!(advertise));
    }
    if cluster.secret.is_some() {
        view.insert("cluster".to_owned(), json!({"secret": REDACTED}));
    }
    if let Some(tracing) = &settings.tracing {
        let shown = json!({"otlp": tracing.otlp.as_str(), "sample": tracing.sample});
        view.insert("tracing".to_owned(), shown);
    }
}

/// The bounds in force; those on requests to upstreams as they were `said`.
fn limits_view(settings: &Settings, said: Option<&Json>) -> Json {
    let limits = settings.limits;
    let mut view = json!({
        "document_size": limits.document_size,
        "connections": limits.connections,
        "downloads": limits.downloads,
    });
    if let Some(disk) = limits.disk {
        view["disk"] = match disk {
            DiskLimit::Bytes(bytes) => json!(bytes),
            DiskLimit::Percent(percent) => json!(format!("{percent}%")),
        };
    }
    let said = said.and_then(|said| said.get("upstream"));
    if let Some(said) = said.filter(|said| !said.is_null()) {
        view["upstream"] = said.clone();
    }
    view
}

/// What is in force of `s3`, wherever it was said.
fn s3_view(s3: &S3) -> Json {
    let store = &s3.store;
    let mut view = json!({
        "endpoint": store.endpoint,
        "bucket": store.bucket,
        "secure": store.secure,
        "region": store.region,
        "path_style": store.path_style,
        "prefix": store.prefix,
        "tier": s3.tier,
        "upload_lease": s3.upload_lease.as_secs(),
        "presign": s3.presign,
    });
    if let Some((host, is_secure)) = &store.public {
        let scheme = if *is_secure { "https" } else { "http" };
        view["public_endpoint"] = json!(format!("{scheme}://{host}"));
    }
    if store.keys.is_some() {
        view["access_key"] = json!(REDACTED);
        view["secret_key"] = json!(REDACTED);
    }
    view
}

/// Adds the defaults that users ask about most.
fn complete(shown: Json, repository: &Repository) -> Json {
    let Json::Object(mut shown) = shown else {
        return shown;
    };
    let mut fill = |key: &str, value: Json| {
        let slot = shown.entry(key).or_insert(Json::Null);
        if slot.is_null() {
            *slot = value;
        }
    };
    fill("type", json!(repository.kind().as_str()));
    fill("package", json!(repository.package.as_str()));
    if let Some(upstream) = repository.upstream() {
        fill("base_url", json!(upstream.base_urls.first()));
        if repository.package == larder_core::PackageType::Pypi {
            fill("index_url", json!(upstream.index_url));
        }
    }
    if let Some(settings) = repository.virtual_settings() {
        let member_urls = match settings.member_urls {
            MemberUrls::Member => "member",
            MemberUrls::Virtual => "virtual",
        };
        fill("fail_closed", json!(settings.fail_closed));
        fill("member_urls", json!(member_urls));
        if let Some(local) = &settings.default_local {
            fill("default_local", json!(local.as_str()));
        }
    }
    if repository.redirects_to_store() {
        fill("presign", json!(true));
    }
    if repository.authoritative {
        fill("authoritative", json!(true));
    }
    if !repository.reserved.is_empty() {
        fill("reserved", json!(repository.reserved.globs()));
    }
    if let Some(local) = repository.local() {
        fill("allow_overwrite", json!(local.allow_overwrite));
    }
    if repository.upstream().is_some() {
        let cache = &repository.cache;
        if let Json::Object(stale) = shown.entry("stale").or_insert_with(|| json!({})) {
            stale.insert("wait".to_owned(), json!(cache.stale_wait.as_secs()));
        }
        let immutable_ttl = cache.immutable_ttl.map_or(0, |ttl| ttl.as_secs());
        shown.insert(
            "cache".to_owned(),
            json!({"immutable_ttl": immutable_ttl, "mutable_ttl": cache.mutable_ttl.as_secs()}),
        );
    }
    Json::Object(shown)
}

/// A tree as JSON; `secret` hides every value in it. Plain numbers and truth values keep their type.
fn to_json(node: &Node, secret: bool) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Scalar { .. } if secret => json!(REDACTED),
        Value::Scalar { text, plain } => scalar(text, *plain),
        Value::List(items) => items.iter().map(|item| to_json(item, secret)).collect(),
        Value::Map(entries) => {
            let member = |entry: &super::node::Entry| {
                let hidden = secret || schema::is_secret(&entry.key) || entry.key == "headers";
                (entry.key.clone(), to_json(&entry.node, hidden))
            };
            Json::Object(entries.iter().map(member).collect())
        }
    }
}

fn scalar(text: &str, plain: bool) -> Json {
    match text {
        "true" | "True" | "TRUE" if plain => Json::Bool(true),
        "false" | "False" | "FALSE" if plain => Json::Bool(false),
        _ => match text.parse::<u64>() {
            // `007` is a number to nobody but us.
            Ok(number) if plain && number.to_string() == text => json!(number),
            _ => json!(without_user_info(text)),
        },
    }
}

/// Replaces what stands between `://` and `@` in any text.
fn without_user_info(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        // The authority ends at `/`, `?`, `#` or a space; a password may hold `@`, so that the last one counts.
        let end = after
            .find(['/', '?', '#', ' ', '"', '\''])
            .unwrap_or(after.len());
        match after[..end].rfind('@') {
            Some(user_info) => {
                shown.push_str(REDACTED);
                rest = &after[user_info..];
            }
            None => rest = after,
        }
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hazard_s17_user_info_disappears_from_any_text() {
        for (text, want) in [
            ("http://a:b@example.com/x", "http://***@example.com/x"),
            (
                "see socks5://tok@h:1 and redis://:p@ss@h",
                "see socks5://***@h:1 and redis://***@h",
            ),
            (
                "https://example.com/@scope/x",
                "https://example.com/@scope/x",
            ),
            ("me@example.com", "me@example.com"),
            ("://", "://"),
        ] {
            assert_eq!(without_user_info(text), want);
        }
    }
}

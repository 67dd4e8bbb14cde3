//! `larder rm`, `larder flush` and `larder explain`.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::Value;

use super::place::{Place, whole};
use super::server::{Described, Server};
use super::shown::{plain, text};
use super::{Failure, FlushFlags, complain};

/// Deletes files of local repositories, and flushes paths of remote ones. One that cannot be is said, and the rest goes on.
pub(super) async fn rm(
    server: &Server,
    places: &[String],
    out: &mut impl Write,
    err: &mut impl Write,
) -> Result<(), Failure> {
    let places = places.iter().map(|text| Place::parse(text, &server.base));
    let places = places.collect::<Result<Vec<Place>, Failure>>()?;
    let repositories = server.repositories().await?;
    let all = places.len();
    let mut failed = 0;
    for place in places {
        match remove(server, &repositories, &place).await? {
            Some(Failure(_, why)) if all > 1 => {
                failed += 1;
                complain(&format!("{place}: {why}"), err);
            }
            Some(failure) => return Err(failure),
            None if server.json => {
                writeln!(out, "{}", serde_json::json!({"removed": place.to_string()}))?;
            }
            None => writeln!(out, "removed {place}")?,
        }
    }
    match failed {
        0 => Ok(()),
        failed => Err(Failure::failed(format!(
            "{failed} of {all} are not removed"
        ))),
    }
}

/// Removes one; gives why larder refuses to.
///
/// # Errors
/// Larder does not answer.
async fn remove(
    server: &Server,
    repositories: &BTreeMap<String, Described>,
    place: &Place,
) -> Result<Option<Failure>, Failure> {
    let Some(repository) = repositories.get(&place.repository) else {
        // Says which there are.
        return Ok(server.repository(&place.repository).await.err());
    };
    if repository.kind() == "virtual" {
        return Ok(Some(Failure::failed(format!(
            "{} is a virtual repository and holds nothing itself: name the path in one of its members",
            place.repository
        ))));
    }
    // Below /v2/ it would mean that the image is deleted from its registry.
    let root: &[&str] = match repository.root() {
        ["v2"] => &["api", "v1", "remote"],
        other => other,
    };
    let url = place.below(&server.base, root);
    let answer = server.send("DELETE", url, &[], None).await?;
    match answer.status() {
        200 | 204 => Ok(None),
        _ => Ok(Some(server.refusal(answer).await)),
    }
}

/// Forgets copies, and prints how many.
pub(super) async fn flush(
    server: &Server,
    flags: &FlushFlags,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let repository = flags.repository.as_deref();
    let repository = repository
        .map(|name| whole(name, &server.base))
        .transpose()?;
    let named = [
        ("remote", &repository),
        ("pattern", &flags.pattern),
        ("cache_type", &flags.kind),
    ];
    let query: Vec<(&str, &str)> = named
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.as_deref()?)))
        .collect();
    let url = server.url(&["cache", "flush"], &query);
    let answer = server.ask("PUT", url).await?;
    if server.json {
        return Ok(writeln!(out, "{answer}")?);
    }
    if let Some(name) = &repository
        && server.repository(name).await?.kind() == "local"
    {
        let why = "is a local repository: a flush leaves its files, and larder rm deletes them";
        return Ok(writeln!(out, "{name} {why}")?);
    }
    let counts = answer.get("flushed").and_then(Value::as_object);
    for (name, count) in counts.into_iter().flatten() {
        writeln!(out, "{name:<8} {:>9}", count.as_u64().unwrap_or_default())?;
    }
    Ok(())
}

/// Says why a path is answered as it is: each step with what decided it.
pub(super) async fn explain(
    server: &Server,
    place: &str,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let place = Place::parse(place, &server.base)?;
    let url = place.below(&server.base, &["api", "v1", "explain"]);
    let answer = server.ask("GET", url).await?;
    if server.json {
        return Ok(writeln!(out, "{answer}")?);
    }
    let steps = [
        "repository",
        "path",
        "verdict",
        "pattern",
        "class",
        "ttl",
        "freshness",
        "quarantine",
        "member",
        "digest",
    ];
    for step in steps {
        let Some(found) = answer.get(step) else {
            continue;
        };
        if let Some(text) = found.as_str() {
            writeln!(out, "{step:<10}  {}", plain(text))?;
            continue;
        }
        let value = match found.get("value") {
            None | Some(Value::Null) => "-".to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(seconds)) => format!("{seconds} s"),
            Some(other) => other.to_string(),
        };
        let until = found.get("until").and_then(Value::as_str);
        let until = until.map_or_else(String::new, |until| format!(" until {until}"));
        let because = text(found, "because");
        writeln!(
            out,
            "{step:<10}  {}{until}: {}",
            plain(&value),
            plain(because)
        )?;
        let by = [text(found, "decided_by"), text(found, "line")];
        let by: Vec<&str> = by.into_iter().filter(|by| !by.is_empty()).collect();
        if !by.is_empty() {
            writeln!(out, "{:<10}  by {}", "", by.join(", "))?;
        }
    }
    Ok(())
}

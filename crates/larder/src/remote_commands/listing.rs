//! `larder ls` and `larder du`: what is held, how much, and what upstreams offer.

use std::io::Write;

use serde_json::Value;

use super::place::{beginning, whole};
use super::server::Server;
use super::shown::{self, items, number, size, text};
use super::{Failure, LsFlags};

/// What one page of a list holds.
const PAGE: &str = "1000";

pub(super) async fn du(
    server: &Server,
    repository: Option<&str>,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let repository = repository
        .map(|name| whole(name, &server.base))
        .transpose()?;
    let repository = repository.as_deref();
    let answer = server.artifacts(repository, &[("summary", "true")]).await?;
    if server.json {
        return Ok(writeln!(out, "{answer}")?);
    }
    let repositories = items(&answer, "repositories");
    let width = repositories
        .iter()
        .map(|repository| text(repository, "repository").len())
        .max()
        .unwrap_or_default();
    for repository in repositories {
        let (name, files, bytes) = (
            text(repository, "repository"),
            number(repository, "files"),
            size(number(repository, "bytes")),
        );
        writeln!(out, "{name:<width$}  {files:>9} files  {bytes:>10}")?;
    }
    if let Some(stored) = answer.get("stored") {
        let (blobs, bytes) = (number(stored, "blobs"), size(number(stored, "bytes")));
        writeln!(
            out,
            "\n{bytes} on disk in {blobs} blobs: bytes that several names share once, derived forms and what is to be collected included"
        )?;
    }
    Ok(())
}

pub(super) async fn ls(
    server: &Server,
    flags: &LsFlags,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let place = flags.place.as_deref().unwrap_or_default();
    let (repository, prefix) = beginning(place, &server.base)?;
    if repository.is_empty() {
        return names(server, out).await;
    }
    let pattern = format!("^{}", regex::escape(&prefix));
    let mut cursor: Option<String> = None;
    loop {
        let mut query = vec![("limit", PAGE)];
        if !prefix.is_empty() {
            query.push(("pattern", &pattern));
        }
        if flags.upstream {
            query.push(("source", "upstream"));
        }
        query.extend(flags.name.as_deref().map(|name| ("name", name)));
        query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let page = server.artifacts(Some(&repository), &query).await?;
        for artifact in items(&page, "artifacts") {
            if server.json {
                writeln!(out, "{artifact}")?;
                continue;
            }
            // An index need not say how long a file is.
            let bytes = artifact.get("size").and_then(Value::as_u64);
            let bytes = bytes.map_or_else(|| "-".to_owned(), size);
            let path = shown::path(text(artifact, "path"));
            if flags.upstream {
                let is_held = artifact.get("cached").and_then(Value::as_bool) == Some(true);
                let held = if is_held { "held" } else { "-" };
                writeln!(out, "{bytes:>10}  {held:<4}  {repository}/{path}")?;
                continue;
            }
            let at = text(artifact, "cached_at");
            writeln!(out, "{bytes:>10}  {at}  {repository}/{path}")?;
        }
        match page.get("next").and_then(Value::as_str) {
            Some(next) => cursor = Some(next.to_owned()),
            None => return Ok(()),
        }
    }
}

async fn names(server: &Server, out: &mut impl Write) -> Result<(), Failure> {
    let answer = server.artifacts(None, &[("summary", "true")]).await?;
    for repository in items(&answer, "repositories") {
        if server.json {
            writeln!(out, "{repository}")?;
        } else {
            writeln!(out, "{}", text(repository, "repository"))?;
        }
    }
    Ok(())
}

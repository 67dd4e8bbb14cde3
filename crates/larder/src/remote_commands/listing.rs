//! `larder ls` and `larder du`: what is held, and how much.

use std::io::Write;

use serde_json::Value;

use super::Failure;
use super::server::Server;
use super::shown::{items, number, plain, size, text};

/// What one page of a list holds.
const PAGE: &str = "1000";

pub(super) async fn du(
    server: &Server,
    repository: Option<&str>,
    out: &mut impl Write,
) -> Result<(), Failure> {
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

pub(super) async fn ls(server: &Server, place: &str, out: &mut impl Write) -> Result<(), Failure> {
    let place = place.trim_start_matches('/');
    if place.is_empty() {
        return names(server, out).await;
    }
    let (repository, prefix) = place.split_once('/').unwrap_or((place, ""));
    let pattern = format!("^{}", regex::escape(prefix));
    let mut cursor: Option<String> = None;
    loop {
        let mut query = vec![("limit", PAGE)];
        if !prefix.is_empty() {
            query.push(("pattern", &pattern));
        }
        query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let page = server.artifacts(Some(repository), &query).await?;
        for artifact in items(&page, "artifacts") {
            if server.json {
                writeln!(out, "{artifact}")?;
                continue;
            }
            let (bytes, at, path) = (
                size(number(artifact, "size")),
                text(artifact, "cached_at"),
                plain(text(artifact, "path")),
            );
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

//! `larder gc` and `larder scrub`, and how what they tell is shown.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::Value;

use super::server::Server;
use super::shown::{self, items, number, size, text};
use super::{Failure, GcFlags, ScrubFlags};

/// How often a scrub is asked how far it has come.
const LOOK: Duration = Duration::from_millis(500);
const PAGE: &str = "1000";

pub(super) async fn gc(
    server: &Server,
    flags: &GcFlags,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let dry_run = if flags.dry_run { "true" } else { "false" };
    let url = server.url(&["api", "v1", "gc"], &[("dry_run", dry_run)]);
    let garbage = server.ask("POST", url).await?;
    write_garbage(&garbage, server.json, out)?;
    match undeleted(&garbage) {
        0 => Ok(()),
        blobs => Err(Failure::failed(format!(
            "{blobs} blobs could not be deleted: see who owns the data directory's files; the log names them"
        ))),
    }
}

/// How many blobs could not be deleted.
fn undeleted(garbage: &Value) -> u64 {
    garbage
        .get("undeleted")
        .map_or(0, |heap| number(heap, "blobs"))
}

/// Begins a scrub and waits for its end, or does what else is asked for.
pub(super) async fn scrub(
    server: &Server,
    flags: &ScrubFlags,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let path = ["api", "v1", "scrub"];
    if flags.cancel {
        server.ask("DELETE", server.url(&path, &[])).await?;
        let scrub = whole(server).await?;
        return Ok(write_scrub(&scrub, server.json, out)?);
    }
    if !flags.status {
        let rate = flags.rate.map(|rate| rate.to_string());
        let query: Vec<(&str, &str)> = rate.iter().map(|rate| ("rate", &**rate)).collect();
        let begun = server.ask("POST", server.url(&path, &query)).await?;
        let is_its = |scrub: &Value| text(scrub, "id") == text(&begun, "id");
        loop {
            let query = [("limit", "1")];
            let scrub = server.ask("GET", server.url(&path, &query)).await?;
            if text(&scrub, "state") != "running" || !is_its(&scrub) {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
    let scrub = whole(server).await?;
    write_scrub(&scrub, server.json, out)?;
    match complaint(&scrub) {
        Some(complaint) if !flags.status => Err(Failure::failed(complaint)),
        _ => Ok(()),
    }
}

/// The last scrub, with all that it has found.
async fn whole(server: &Server) -> Result<Value, Failure> {
    let path = ["api", "v1", "scrub"];
    let mut findings: Vec<Value> = Vec::new();
    let mut after = "0".to_owned();
    loop {
        let query = [("limit", PAGE), ("after", &*after)];
        let mut scrub = server.ask("GET", server.url(&path, &query)).await?;
        findings.extend(items(&scrub, "findings").iter().cloned());
        let next = scrub.get("next").and_then(Value::as_u64);
        let Some(next) = next else {
            if let Some(keys) = scrub.as_object_mut() {
                keys.insert("findings".to_owned(), Value::from(findings));
                keys.remove("next");
            }
            return Ok(scrub);
        };
        after = next.to_string();
    }
}

/// What is wrong with a scrub's end, if anything is: then the exit code tells.
fn complaint(scrub: &Value) -> Option<String> {
    let kept = |finding: &&Value| text(finding, "outcome") == "kept";
    let local = items(scrub, "findings").iter().filter(kept).count();
    if local > 0 {
        return Some(format!(
            "{local} uploaded files are damaged, and larder has no other copy of them: upload them again, or restore them from a backup"
        ));
    }
    match text(scrub, "state") {
        "cancelled" => Some("the scrub was cancelled".to_owned()),
        "failed" => Some(
            "the scrub was given up, for it could not go on for an hour; the server's log says why"
                .to_owned(),
        ),
        _ => None,
    }
}

/// What the collector has deleted, or would delete: as JSON, or a line for each reason.
fn write_garbage(garbage: &Value, json: bool, out: &mut impl Write) -> io::Result<()> {
    if json {
        return writeln!(out, "{garbage}");
    }
    let is_dry = garbage.get("dry_run").and_then(Value::as_bool) == Some(true);
    let done = if is_dry {
        "would be deleted"
    } else {
        "deleted"
    };
    let deleted = garbage.get("deleted").unwrap_or(&Value::Null);
    let mut line = |heap: Option<&Value>, what: &str| {
        let heap = heap.unwrap_or(&Value::Null);
        let (blobs, bytes) = (number(heap, "blobs"), size(number(heap, "bytes")));
        writeln!(out, "{blobs:>9} blobs  {bytes:>10}  {what}")
    };
    for (reason, what) in [
        ("unreferenced", "that nothing refers to any more"),
        ("left_behind", "whose deletion had begun"),
        ("orphans", "that no row knows"),
    ] {
        line(deleted.get(reason), &format!("{what}: {done}"))?;
    }
    if undeleted(garbage) > 0 {
        line(garbage.get("undeleted"), "that could not be deleted")?;
    }
    line(
        garbage.get("waiting"),
        "that nothing refers to: kept for a day, in case something does again",
    )?;
    let superseded = number(garbage, "superseded");
    writeln!(
        out,
        "{superseded:>9} forms of replaced documents: {}",
        if is_dry {
            "would be forgotten"
        } else {
            "forgotten"
        }
    )
}

/// How far a scrub has come and what it has found: as JSON, or a line for each finding.
fn write_scrub(scrub: &Value, json: bool, out: &mut impl Write) -> io::Result<()> {
    if json {
        return writeln!(out, "{scrub}");
    }
    for finding in items(scrub, "findings") {
        let path = match text(finding, "path") {
            "" => "(a derived document)",
            path => path,
        };
        writeln!(
            out,
            "{:<10}  {:<9}  {}/{}  {}",
            text(finding, "flaw"),
            text(finding, "outcome"),
            text(finding, "repository"),
            shown::path(path),
            text(finding, "digest"),
        )?;
    }
    writeln!(
        out,
        "{}: {} of {} blobs read, {} of {}; {} damaged",
        text(scrub, "state"),
        number(scrub, "blobs"),
        number(scrub, "total_blobs"),
        size(number(scrub, "bytes")),
        size(number(scrub, "total_bytes")),
        number(scrub, "damaged"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_is_lost_or_unfinished_is_a_complaint() {
        let of = |state: &str, outcome: &str| {
            complaint(&json!({"state": state, "findings": [{"outcome": outcome}]}))
        };
        assert_eq!(of("done", "refetched"), None);
        assert_eq!(of("done", "restored"), None);
        assert!(of("done", "kept").is_some());
        assert!(of("cancelled", "refetched").is_some());
        assert!(of("failed", "refetched").is_some());
    }

    #[test]
    fn garbage_for_people() {
        let heap = |blobs: u64, bytes: u64| json!({"blobs": blobs, "bytes": bytes});
        let garbage = json!({
            "dry_run": true, "superseded": 2, "waiting": heap(0, 0), "undeleted": heap(2, 7),
            "deleted": {"unreferenced": heap(3, 2_048), "left_behind": heap(0, 0), "orphans": heap(1, 5)},
        });
        let mut out = Vec::new();
        write_garbage(&garbage, false, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.contains("3 blobs     2.0 KiB  that nothing refers to any more: would be deleted"),
            "{text}"
        );
        assert!(
            text.contains("2 blobs         7 B  that could not be deleted"),
            "{text}"
        );
    }
}

//! `larder warm`: what lock files and lists name is fetched beforehand, by a job of the larder that is asked.
//!
//! | file | knows |
//! |---|---|
//! | `mod.rs` | the steps, and how they are told |
//! | `read.rs` | files and what they include, and how each is written |
//! | `places.rs` | which path of the repository a URL means |
//! | `members.rs` | whose the files of a virtual repository are |
//! | `resolve.rs` | the paths of what is named |
//! | `follow.rs` | the job: made, followed, cancelled |
//! | `progress.rs` | how far it has come, for people |

mod follow;
mod members;
mod places;
mod progress;
mod read;
mod resolve;

use std::io::{IsTerminal as _, Write};
use std::pin::pin;

use serde_json::json;

use super::place::whole;
use super::server::Server;
use super::shown::{self, plain, size};
use super::{Failure, WarmFlags, interrupted};
use crate::lockfiles::Format;
use follow::{Job, Outcome, begin, cancel, follow, ids};
use members::shares;
use places::Places;
use progress::Progress;
use read::Source;

/// Lines that say what is not held, before the rest is counted only.
const MOST_LINES: usize = 100;

/// Something that is not fetched, or could not be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Unheld {
    /// Where it is named: `FILE:LINE`, or the path of a job.
    at: String,
    /// What it is.
    what: String,
    /// Why.
    why: String,
}

/// What is to be fetched.
#[derive(Debug, Default)]
struct Plan {
    /// Decoded paths below the repository, each once.
    paths: std::collections::BTreeSet<String>,
    /// What an installation needs and cannot be fetched.
    missing: Vec<Unheld>,
    /// What comes from elsewhere.
    left_out: Vec<Unheld>,
}

pub(super) async fn warm(
    server: &Server,
    flags: &WarmFlags,
    is_dumb: bool,
    out: &mut impl Write,
    err: &mut impl Write,
) -> Result<(), Failure> {
    let input = read::standard_input(&flags.files)?;
    let mut stopped = pin!(interrupted());
    let name = &*whole(&flags.repository, &server.base)?;
    let (mut plan, is_virtual) = tokio::select! {
        plan = planned(server, flags, name, &input) => plan?,
        () = &mut stopped => return Err(Failure::failed("interrupted; nothing was begun")),
    };
    // A project that depends on nothing lacks nothing.
    let is_elsewhere = plan.missing.is_empty() && !plan.left_out.is_empty();
    if plan.paths.is_empty() && is_elsewhere {
        tell_left_out(&plan, err)?;
        return Err(Failure::failed(format!(
            "nothing that is named there comes from {name}"
        )));
    }
    if flags.dry_run {
        return tell_plan(server, name, &plan, out, err);
    }
    tell_left_out(&plan, err)?;
    let paths = std::mem::take(&mut plan.paths);
    let is_terminal = !server.json && !is_dumb && std::io::stderr().is_terminal();
    let mut progress = Progress::new(paths.len() as u64, is_terminal, server.json);
    // Not interrupted here: a job that is made would go on without anybody who knows of it.
    let jobs = begin(server, &shares(name, is_virtual, paths)).await?;
    progress.begun(&ids(&jobs), err)?;
    let outcome = tokio::select! {
        outcome = follow(server, &jobs, &mut progress, err) => Some(outcome),
        () = &mut stopped => None,
    };
    let Some(outcome) = outcome else {
        progress.clear(err)?;
        return Err(cancel(server, &jobs).await);
    };
    progress.clear(err)?;
    tell(server, name, (&jobs, &outcome?), &plan, (out, err))
}

/// Reads the files and finds the paths of what they name; says whether the repository is a virtual one.
async fn planned(
    server: &Server,
    flags: &WarmFlags,
    name: &str,
    input: &str,
) -> Result<(Plan, bool), Failure> {
    let repository = server.repository(name).await?;
    let is_virtual = repository.kind() == "virtual";
    if !is_virtual && repository.kind() != "remote" {
        return Err(Failure::misused(format!(
            "{name} is a {} repository: only remote ones fetch anything",
            repository.kind()
        )));
    }
    let package = repository.package();
    let sources = read::read(&flags.files, input, flags.format, package, read::fetched).await?;
    if let Some((source, package)) = sources.iter().find_map(|source| {
        let package = source.format.package()?;
        (package != repository.package()).then_some((source, package))
    }) {
        return Err(Failure::misused(format!(
            "{} names {package} packages, and {name} is a repository of {} ones",
            source.name,
            repository.package()
        )));
    }
    // Its merged index says whose each chart is; of other things nothing does.
    let is_no_lock = |source: &&Source| is_virtual && source.format != Format::Chart;
    if let Some(source) = sources.iter().find(is_no_lock) {
        return Err(Failure::misused(format!(
            "{name} is a virtual repository, and {} is no Chart.lock: name the member that shall hold what it names",
            source.name
        )));
    }
    let places = Places::of(server, name, is_virtual).await;
    let plan = resolve::resolve(server, &places, &sources).await?;
    Ok((plan, is_virtual))
}

/// Where something is named.
fn place(source: &Source, line: usize) -> String {
    match line {
        0 => source.name.clone(),
        line => format!("{}:{line}", source.name),
    }
}

fn list(out: &mut impl Write, begin: &str, of: &[Unheld]) -> Result<(), Failure> {
    for Unheld { at, what, why } in of.iter().take(MOST_LINES) {
        let colon = if at.is_empty() { "" } else { ": " };
        writeln!(out, "{begin} {at}{colon}{}: {}", plain(what), plain(why))?;
    }
    if of.len() > MOST_LINES {
        writeln!(out, "{begin}: {} more", of.len() - MOST_LINES)?;
    }
    Ok(())
}

fn tell_left_out(plan: &Plan, err: &mut impl Write) -> Result<(), Failure> {
    list(err, "left out", &plan.left_out)
}

fn told_json(of: &[Unheld]) -> Vec<serde_json::Value> {
    let one = |one: &Unheld| json!({"at": one.at, "what": one.what, "reason": one.why});
    of.iter().map(one).collect()
}

/// Of a dry run.
fn tell_plan(
    server: &Server,
    name: &str,
    plan: &Plan,
    out: &mut impl Write,
    err: &mut impl Write,
) -> Result<(), Failure> {
    if server.json {
        let told = json!({
            "repository": name, "paths": plan.paths, "failed": told_json(&plan.missing), "left_out": told_json(&plan.left_out),
        });
        writeln!(out, "{told}")?;
    } else {
        tell_left_out(plan, err)?;
        for path in &plan.paths {
            writeln!(out, "{name}/{}", shown::path(path))?;
        }
        list(err, "not found", &plan.missing)?;
    }
    judged(plan.missing.len(), plan.paths.len() + plan.missing.len())
}

fn tell(
    server: &Server,
    name: &str,
    (jobs, outcome): (&[Job], &Outcome),
    plan: &Plan,
    (out, err): (&mut impl Write, &mut impl Write),
) -> Result<(), Failure> {
    let failed: Vec<Unheld> = [&plan.missing[..], &outcome.failed].concat();
    if server.json {
        let told = json!({
            "repository": name, "jobs": ids(jobs), "cached": outcome.cached, "bytes": outcome.bytes,
            "failed": told_json(&failed), "left_out": told_json(&plan.left_out),
        });
        writeln!(out, "{told}")?;
    } else {
        let (count, bytes) = (outcome.cached, size(outcome.bytes));
        let files = if count == 1 { "file" } else { "files" };
        writeln!(out, "{name}: {count} {files} held, {bytes}")?;
        out.flush()?;
        list(err, "failed", &failed)?;
    }
    judged(failed.len(), failed.len() + outcome.cached as usize)
}

fn judged(failed: usize, all: usize) -> Result<(), Failure> {
    match failed {
        0 => Ok(()),
        failed => Err(Failure::failed(format!(
            "{failed} of {all} are not held: an installation without the upstream may fail"
        ))),
    }
}

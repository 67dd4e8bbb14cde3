//! `/ui/jobs` and `/ui/jobs/{id}`: jobs, and cancelling one.

use http::Method;
use hyper::body::Incoming;
use larder_core::{ErrorCode, Fault, FaultKind};
use larder_engine::{HeldCursor, JobCounts, JobRow, Room};
use larder_ui::pages::{self, JobItem, JobSummary};
use larder_ui::{Bytes, Count, Moment};

use super::visit::{Outcome, Visit};
use super::{guard, nothing};
use crate::backend::Backend;
use crate::discovery::{cursor_of, cursor_text};

/// Jobs, or files of one, on a page.
const PAGE: u32 = 100;

pub(crate) async fn list<B: Backend>(visit: &Visit<'_, B>) -> Outcome {
    let before = cursor(visit, "")?;
    let page = visit.backend().jobs(before.as_deref(), PAGE).await?;
    let jobs = page.jobs.iter();
    visit.page(&pages::Jobs {
        jobs: jobs.map(|(job, counts)| summary(job, counts)).collect(),
        next: page.next.map(|id| cursor_to(String::new(), id)),
    })
}

/// `below`: the raw path behind `/ui/jobs/`.
pub(crate) async fn route<B: Backend>(
    visit: &Visit<'_, B>,
    below: &str,
    body: &mut Incoming,
) -> Outcome {
    let is_post = visit.method() == Method::POST;
    match below.split_once('/') {
        None if !is_post => show(visit, below).await,
        Some((id, "cancel")) if is_post => {
            guard::change(visit, body).await?;
            visit.backend().cancel_job(id).await?;
            tracing::info!(
                client = %visit.exchange.client.address, job = &*larder_core::shown(id),
                "job cancelled from the web interface"
            );
            Ok(visit.redirect(&format!("/ui/jobs/{id}")))
        }
        Some((id, "cancel")) => Ok(visit.redirect(&format!("/ui/jobs/{id}"))),
        _ => Err(nothing(visit)),
    }
}

async fn show<B: Backend>(visit: &Visit<'_, B>, id: &str) -> Outcome {
    let after = cursor(visit, id)?;
    let report = visit.backend().job(id, after.as_deref(), PAGE).await?;
    let (mut room, mut items) = (Room::new(PAGE as usize, 0), Vec::new());
    let mut all = report.items.into_iter();
    while !room.is_full()
        && let Some(item) = all.next()
    {
        room.take(1, &[&item.path, &item.reason]);
        items.push(JobItem {
            bytes: (item.state == "cached").then_some(Bytes(item.bytes)),
            path: item.path,
            state: item.state,
            reason: Some(item.reason).filter(|reason| !reason.is_empty()),
        });
    }
    let last = items.last().map(|item| item.path.clone());
    let next = all.next().map_or(report.next, |_| last);
    visit.page(&pages::Job {
        items,
        next: next.map(|path| cursor_to(report.job.id.clone(), path)),
        job: summary(&report.job, &report.counts),
    })
}

fn summary(job: &JobRow, counts: &JobCounts) -> JobSummary {
    JobSummary {
        id: job.id.clone(),
        repository: job.repository.clone(),
        state: job.state.clone(),
        reason: Some(job.reason.clone()).filter(|reason| !reason.is_empty()),
        created_at: Moment(job.created_at),
        ended_at: job.ended_at.map(Moment),
        queued: Count(counts.queued),
        running: Count(counts.running),
        cached: Count(counts.cached),
        skipped: Count(counts.skipped),
        failed: Count(counts.failed),
    }
}

/// The cursors of the API: `of` tells one list from another.
fn cursor_to(of: String, path: String) -> String {
    cursor_text(&HeldCursor {
        repository: of,
        row: 0,
        path,
    })
}

fn cursor<B: Backend>(visit: &Visit<'_, B>, of: &str) -> Result<Option<String>, Fault> {
    let text = visit.parameter("cursor");
    if text.is_empty() {
        return Ok(None);
    }
    let read = cursor_of(&text).filter(|cursor| cursor.repository == of);
    let read = read.ok_or_else(|| {
        let message = "the cursor is of another list: begin without one";
        Fault::new(FaultKind::BadRequest, ErrorCode::BadRequest, message)
    })?;
    Ok(Some(read.path))
}

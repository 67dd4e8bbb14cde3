//! `/ui/repositories/{repo}/outage`: what would be answered if the upstream died now, and fetching what is missing.

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::body::Incoming;
use larder_core::{ErrorCode, Fault, FaultKind, Repository};
use larder_engine::{JobRequest, Room};
use larder_ui::pages::{Missing, Outage};
use larder_ui::{Count, Moment, Share};

use super::guard;
use super::numbers::Numbers;
use super::visit::{Outcome, Visit};
use crate::backend::Backend;

/// Paths on a page.
const PAGE: u32 = 100;
/// Paths that are asked for at a time when all are wanted, and that one job fetches.
const AT_ONCE: u32 = 1_000;
const MOST: usize = 10_000;
/// What the upstream has said not to have, and what is never kept: no job would bring it.
const IN_VAIN: [&str; 2] = ["absent", "passed_through"];

pub(crate) async fn show<B: Backend>(
    visit: &Visit<'_, B>,
    repository: &Arc<Repository>,
) -> Outcome {
    let name = repository.name.as_str();
    let after = Some(visit.parameter("after")).filter(|after| !after.is_empty());
    let outage = visit.backend().outage(name, after.as_deref(), PAGE).await?;
    let (mut room, mut missing) = (Room::new(PAGE as usize, 0), Vec::new());
    let (mut all, mut last) = (outage.missing.into_iter(), None);
    while !room.is_full()
        && let Some(one) = all.next()
    {
        room.take(1, &[&one.path]);
        last = Some(one.place());
        missing.push(Missing {
            repository: one.repository,
            path: one.path,
            requests: Count(one.requests),
            last: Moment(one.last_asked),
            has_query: one.has_query,
            why: one.why,
        });
    }
    visit.page(&Outage {
        repository: Numbers::read(visit).head(visit, repository),
        since: Moment(outage.since),
        requests: Count(outage.requests),
        missing_requests: Count(outage.missing_requests),
        answered: outage.share.map(Share),
        missing_paths: Count(outage.missing_paths),
        missing,
        next: all.next().map_or(outage.next, |_| last),
    })
}

/// Makes a job of everything that is missing; of a virtual repository one for each member.
pub(crate) async fn warm<B: Backend>(
    visit: &Visit<'_, B>,
    repository: &Arc<Repository>,
    body: &mut Incoming,
) -> Outcome {
    guard::change(visit, body).await?;
    let name = repository.name.as_str();
    let mut wanted: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let (mut after, mut count): (Option<String>, usize) = (None, 0);
    loop {
        let page = visit.backend().outage(name, after.as_deref(), AT_ONCE);
        let page = page.await?;
        let fetchable = page.missing.into_iter();
        // A query is part of what such a path is kept under, and none is told to jobs, which are shown.
        let fetchable = fetchable.filter(|path| !path.has_query && !IN_VAIN.contains(&&*path.why));
        for missing in fetchable.take(MOST - count) {
            wanted
                .entry(missing.repository)
                .or_default()
                .push(missing.path);
            count += 1;
        }
        after = page.next;
        if after.is_none() || count >= MOST {
            break;
        }
    }
    if wanted.is_empty() {
        let message = "nothing is missing that the upstream has and clients ask for without a query: there is nothing to fetch";
        let fault = Fault::new(FaultKind::BadRequest, ErrorCode::BadRequest, message);
        return Err(fault.in_repository(&repository.name));
    }
    let mut made = Vec::new();
    for (repository, paths) in wanted {
        let request = JobRequest {
            repository,
            paths: Some(paths),
            ..JobRequest::default()
        };
        made.push(visit.backend().create_job(request).await?.job.id);
    }
    Ok(match &*made {
        [only] => visit.redirect(&format!("/ui/jobs/{only}")),
        _ => visit.redirect("/ui/jobs"),
    })
}

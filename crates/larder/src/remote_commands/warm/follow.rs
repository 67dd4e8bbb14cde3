//! The jobs of a larder: made, followed to their end, cancelled.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::server::Server;
use super::super::shown::{items, number, text};
use super::members::Share;
use super::progress::{Done, Progress};
use super::{Failure, Unheld};

/// Files of one job, and bytes of their paths: a job takes more, but one that is smaller is soon seen.
const MOST_FILES: usize = 20_000;
const MOST_BYTES: usize = 4 << 20;
/// How often it is asked how far a job is; more often at first.
const LOOK: Duration = Duration::from_millis(500);
const FIRST_LOOK: Duration = Duration::from_millis(50);
/// How long a larder may be away meanwhile: jobs survive a restart.
const AWAY: Duration = Duration::from_secs(120);
const MOST_ITEMS: &str = "1000";

/// A job of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) id: String,
    /// What stands before its paths in those of the repository that was named.
    before: String,
}

/// What has come of all jobs.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Files that are held.
    pub(super) cached: u64,
    /// Their bytes.
    pub(super) bytes: u64,
    /// Those that are not.
    pub(super) failed: Vec<Unheld>,
}

/// Makes jobs for these paths.
///
/// # Errors
/// Larder refuses, or does not answer. Jobs that were made by then are cancelled.
pub(super) async fn begin(server: &Server, shares: &[Share]) -> Result<Vec<Job>, Failure> {
    let mut jobs: Vec<Job> = Vec::new();
    let all = shares.iter().flat_map(|share| {
        let parts = parts(&share.paths).into_iter();
        parts.map(move |paths| (share, paths))
    });
    for (share, paths) in all {
        let url = server.url(&["api", "v1", "artifacts", &share.repository, "cache"], &[]);
        match server.post(url, &json!({"paths": paths})).await {
            Ok(job) => jobs.push(Job {
                id: text(&job, "id").to_owned(),
                before: share.before.clone(),
            }),
            Err(failure) => {
                for job in &jobs {
                    let _ = cancel_one(server, &job.id).await;
                }
                return Err(failure);
            }
        }
    }
    Ok(jobs)
}

/// In order, and none larger than what one job is given.
fn parts(paths: &[String]) -> Vec<&[String]> {
    let (mut parts, mut rest) = (Vec::new(), paths);
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take(MOST_FILES).take_while(|path| {
            bytes += path.len() + 4;
            bytes <= MOST_BYTES
        });
        let (part, more) = rest.split_at(fits.count().max(1));
        parts.push(part);
        rest = more;
    }
    parts
}

/// Follows jobs until all have ended.
///
/// # Errors
/// Larder stays away, refuses, or no longer knows one.
pub(super) async fn follow(
    server: &Server,
    jobs: &[Job],
    progress: &mut Progress,
    err: &mut impl Write,
) -> Result<Outcome, Failure> {
    let mut outcome = Outcome::default();
    let mut states: Vec<Option<Done>> = vec![None; jobs.len()];
    for (place, job) in jobs.iter().enumerate() {
        let id = &*job.id;
        let (mut pause, mut answered) = (FIRST_LOOK, Instant::now());
        loop {
            match asked(server, id, &[("limit", "1")]).await {
                Ok(Some(found)) => {
                    answered = Instant::now();
                    states[place] = Some(done(&found));
                    progress.show(sum(&states), err)?;
                    if found.get("ended_at").is_some_and(Value::is_string) {
                        break;
                    }
                }
                Ok(None) if answered.elapsed() < AWAY => {}
                Ok(None) => {
                    return Err(Failure::failed(format!(
                        "larder no longer answers; the job {id} goes on when it is back"
                    )));
                }
                Err(failure) => return Err(failure),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK);
        }
        gather(server, job, &mut outcome).await?;
    }
    Ok(outcome)
}

fn done(job: &Value) -> Done {
    let counts = job.get("counts").unwrap_or(&Value::Null);
    let [queued, running, cached, skipped, failed] =
        ["queued", "running", "cached", "skipped", "failed"].map(|state| number(counts, state));
    let ended = cached + skipped + failed;
    Done {
        all: queued + running + ended,
        ended,
        failed: failed + skipped,
    }
}

fn sum(states: &[Option<Done>]) -> Done {
    let mut sum = Done::default();
    for done in states.iter().flatten() {
        sum.all += done.all;
        sum.ended += done.ended;
        sum.failed += done.failed;
    }
    sum
}

/// What has become of each file of a job that has ended.
async fn gather(server: &Server, job: &Job, outcome: &mut Outcome) -> Result<(), Failure> {
    let Job { id, before } = job;
    let (mut cursor, mut begun) = (None::<String>, Instant::now());
    loop {
        let mut query = vec![("limit", MOST_ITEMS)];
        query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let Some(page) = asked(server, id, &query).await? else {
            if begun.elapsed() > AWAY {
                return Err(Failure::failed("larder no longer answers"));
            }
            tokio::time::sleep(LOOK).await;
            continue;
        };
        begun = Instant::now();
        if cursor.is_none() && text(&page, "state") == "failed" {
            outcome.failed.push(Unheld {
                at: String::new(),
                what: format!("job {id}"),
                why: text(&page, "reason").to_owned(),
            });
        }
        for item in items(&page, "items") {
            if text(item, "state") == "cached" {
                outcome.cached += 1;
                outcome.bytes += number(item, "bytes");
                continue;
            }
            outcome.failed.push(Unheld {
                at: String::new(),
                what: format!("{before}{}", text(item, "path")),
                why: match text(item, "reason") {
                    "" => text(item, "state").to_owned(),
                    reason => reason.to_owned(),
                },
            });
        }
        match page.get("next").and_then(Value::as_str) {
            Some(next) => cursor = Some(next.to_owned()),
            None => return Ok(()),
        }
    }
}

/// A job; `None`: larder is away for now.
async fn asked(
    server: &Server,
    id: &str,
    query: &[(&str, &str)],
) -> Result<Option<Value>, Failure> {
    let accept = [("accept", "application/json".to_owned())];
    let url = server.url(&["api", "v1", "jobs", id], query);
    let Ok(answer) = server.send("GET", url, &accept, None).await else {
        return Ok(None);
    };
    let status = answer.status();
    if matches!(status, 500..=599) {
        return Ok(None);
    }
    let Ok(body) = answer.whole().await else {
        return Ok(None);
    };
    let body: Option<Value> = serde_json::from_slice(&body).ok().filter(Value::is_object);
    match body {
        Some(job) if status == 200 => Ok(Some(job)),
        body => Err(server.refused(status, body.as_ref()).await),
    }
}

async fn cancel_one(server: &Server, id: &str) -> Result<Value, Failure> {
    let url = server.url(&["api", "v1", "jobs", id], &[]);
    server.ask("DELETE", url).await
}

/// What jobs are called.
pub(super) fn ids(jobs: &[Job]) -> Vec<&str> {
    jobs.iter().map(|job| &*job.id).collect()
}

/// Cancels the jobs; gives what is said of it.
pub(super) async fn cancel(server: &Server, jobs: &[Job]) -> Failure {
    let mut goes_on = Vec::new();
    for Job { id, .. } in jobs {
        if let Err(Failure(_, why)) = cancel_one(server, id).await {
            goes_on.push(format!("{id} ({why})"));
        }
    }
    let jobs = ids(jobs).join(", ");
    Failure::failed(if goes_on.is_empty() {
        format!("interrupted: the job {jobs} is cancelled; what it has fetched is kept")
    } else {
        let jobs = goes_on.join(", ");
        format!("interrupted, and a job could not be cancelled, and goes on: {jobs}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_given_no_more_than_it_takes() {
        let paths: Vec<String> = (0..45_000).map(|number| format!("f/{number}")).collect();
        let sizes: Vec<usize> = parts(&paths).iter().map(|part| part.len()).collect();
        assert_eq!(sizes, [20_000, 20_000, 5_000]);
        let long = vec!["x".repeat(3 << 20); 3];
        assert_eq!(parts(&long).len(), 3);
        assert!(parts(&[]).is_empty());
    }
}

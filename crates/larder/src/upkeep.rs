//! `larder gc` and `larder scrub` in a data directory that no larder runs on: its lock is held meanwhile.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use larder::remote_commands::upkeep::{complaint, write_garbage, write_scrub};
use larder::remote_commands::{GcFlags, ScrubFlags};
use larder_core::{Clock as _, SystemClock};
use larder_engine::{SCRUB_RATE, ScrubReport};
use larder_storage::{
    BlobStore, DamagedBlob, DataDirectoryLock, FsBlobStore, Mend, MetadataStore, Named,
    StorageError, Writer,
};
use serde_json::Value;

use crate::blobs::explained;

/// As the collector of a running larder has it.
const GRACE: Duration = Duration::from_hours(24);
/// Findings that are read at once.
const PAGE: u32 = 1_000;
const DATABASE: &str = "larder.sqlite";

/// A data directory that is this process's own.
struct Own {
    _lock: DataDirectoryLock,
    metadata: MetadataStore,
    blobs: Arc<dyn BlobStore>,
}

impl Own {
    async fn open(directory: &Path) -> Result<Self, String> {
        let shown = directory.display();
        let database = directory.join(DATABASE);
        if !database.is_file() {
            return Err(format!(
                "{shown} holds no {DATABASE}: name the data directory of a larder that keeps its records there; where they are in PostgreSQL, or files in S3, ask a running larder (without --data-dir)"
            ));
        }
        let said = |error: StorageError| format!("{shown}: {}", explained(&error));
        let lock = DataDirectoryLock::take(directory).map_err(|error| {
            format!("{shown}: {error}; or ask that one: without --data-dir, with --server")
        })?;
        let metadata = MetadataStore::open(&database).await.map_err(said)?;
        let blobs = FsBlobStore::open(directory).map_err(said)?;
        Ok(Self {
            _lock: lock,
            metadata,
            blobs: Arc::new(blobs),
        })
    }
}

/// Runs the collector, or says what it would delete.
pub(crate) fn gc(directory: &Path, flags: &GcFlags) -> ExitCode {
    let collected = run(async {
        let own = Own::open(directory).await?;
        let now = SystemClock.now();
        let garbage = if flags.dry_run {
            own.metadata.look_for_garbage(now, GRACE, &own.blobs).await
        } else {
            // Rows of what was flushed, which a larder had not come to.
            let swept = own.metadata.sweep_invalid().await;
            swept.map_err(|error| explained(&error))?;
            own.metadata.collect_garbage(now, GRACE, &own.blobs).await
        };
        let garbage = garbage.map_err(|error| explained(&error))?;
        own.metadata.close().await;
        Ok(larder_server::garbage_json(&garbage, flags.dry_run))
    });
    match collected {
        Ok(garbage) => {
            let mut out = std::io::stdout().lock();
            let written = write_garbage(&garbage, flags.asked.json(), &mut out);
            ended(written.is_ok(), None)
        }
        Err(message) => ended(true, Some(&message)),
    }
}

/// Reads all that is stored again.
pub(crate) fn scrub(directory: &Path, flags: &ScrubFlags) -> ExitCode {
    let scrubbed = run(async {
        let own = Own::open(directory).await?;
        let scrub = scrub_all(&own, flags.rate.unwrap_or(SCRUB_RATE)).await;
        let scrub = scrub.map_err(|error| explained(&error))?;
        own.metadata.close().await;
        Ok(scrub)
    });
    match scrubbed {
        Ok(scrub) => {
            let mut out = std::io::stdout().lock();
            let written = write_scrub(&scrub, flags.asked.json(), &mut out);
            ended(written.is_ok(), complaint(&scrub).as_deref())
        }
        Err(message) => ended(true, Some(&message)),
    }
}

async fn scrub_all(own: &Own, rate: u64) -> Result<Value, StorageError> {
    let (metadata, now) = (&own.metadata, SystemClock.now());
    // One that a larder had begun here is gone on with, and that is all.
    metadata
        .begin_scrub(&format!("{:012x}", now.0.max(0)), rate, now)
        .await?;
    metadata
        .run_scrub(&own.blobs, "larder scrub", &SystemClock, &Dropping(own))
        .await?;
    let Some(scrub) = metadata.last_scrub().await? else {
        return Ok(Value::Null);
    };
    let mut findings = Vec::new();
    loop {
        let after = findings
            .last()
            .map_or(0, |finding: &larder_storage::ScrubFinding| finding.number);
        let page = metadata.scrub_findings(&scrub.id, after, PAGE).await?;
        let is_last = page.len() < PAGE as usize;
        findings.extend(page);
        if is_last {
            break;
        }
    }
    let mut shown = larder_server::scrub_json(&ScrubReport {
        scrub,
        findings,
        next: None,
    });
    if let Some(keys) = shown.as_object_mut() {
        keys.remove("next");
    }
    Ok(shown)
}

/// Forgets what is damaged and can be had again: it is fetched when it is asked for.
struct Dropping<'o>(&'o Own);

impl Mend for Dropping<'_> {
    fn looked_at(&self, _: u64) {}

    fn mend<'a>(
        &'a self,
        damaged: &'a DamagedBlob,
    ) -> BoxFuture<'a, Result<Vec<Named>, StorageError>> {
        let own = self.0;
        async move {
            let writer = Writer::unique();
            own.metadata
                .forget_damaged(writer, damaged, &own.blobs, true)
                .await?;
            Ok(Named::all_of(damaged))
        }
        .boxed()
    }
}

fn run(work: impl Future<Output = Result<Value, String>>) -> Result<Value, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    runtime.map_err(|error| error.to_string())?.block_on(work)
}

/// The exit code tells what standard error may not be able to.
fn ended(was_written: bool, complaint: Option<&str>) -> ExitCode {
    if let Some(message) = complaint {
        let _ = writeln!(std::io::stderr(), "larder: {message}");
    }
    if was_written && complaint.is_none() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

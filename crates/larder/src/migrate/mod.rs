//! `larder migrate`: copies an installation from SQLite and files to PostgreSQL and S3, or back, and verifies the copy.
//!
//! The source is read and never changed. The target is marked as an unfinished copy before anything is written to it, and larder does not
//! start on it until it is complete. What has been copied is not copied again, so that a run that was broken off at any moment is
//! resumed by running it again: blobs are looked for by their digests, rows are compared in the order of their keys (docs/adr/0085).

mod blobs;
mod ends;
mod failure;
mod mark;
mod plan;
mod progress;
mod summary;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use larder::cli::{MigrateFlags, MigrateTo, MigrateVerify, write_findings};
use larder::config::{Settings, Sources, load};
use larder::logging;
use larder_core::Digest;
use larder_storage::NamedBlobs;

use self::blobs::{Carried, Freight};
use self::ends::{Source, Target, shown};
use self::failure::Failure;
use self::mark::Mark;
use self::plan::{At, Plan, plan};
use self::progress::Progress;
use self::summary::{Problem, Summary};

/// Names of one damaged blob that are told.
const NAMES: u32 = 20;
const FAILED: u8 = 1;
const MISUSED: u8 = 2;

/// Does what the command line says; gives the exit status.
pub(crate) fn run(flags: MigrateFlags, sources: &Sources) -> ExitCode {
    let mut err = std::io::stderr();
    if let Err(error) = logging::start(sources) {
        let _ = writeln!(err, "larder: {error}");
        return ExitCode::from(FAILED);
    }
    let settings = match load(sources) {
        Ok(settings) => settings,
        Err(found) => {
            let _ = write_findings(&found, &mut err);
            return ExitCode::from(FAILED);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = writeln!(err, "larder: {error}");
            return ExitCode::from(FAILED);
        }
    };
    let began = Instant::now();
    let mut summary = Summary {
        dry_run: flags.dry_run,
        verify: match flags.verify {
            MigrateVerify::Sizes => "sizes",
            MigrateVerify::Full => "full",
        },
        ..Summary::default()
    };
    let result = runtime.block_on(migrate(flags, &settings, &mut summary));
    summary.seconds = began.elapsed().as_secs_f64();
    let (status, why) = match result {
        Ok(()) if summary.verified || flags.dry_run => (0, None),
        Ok(()) => (FAILED, None),
        Err(Failure::Usage(why)) => (MISUSED, Some(why)),
        Err(Failure::Failed(why)) => (FAILED, Some(why)),
    };
    summary.error.clone_from(&why);
    // Before anything was looked at there is nothing to sum up, but for programs.
    let has_begun = !summary.from.is_empty();
    let written = if has_begun || flags.json {
        summary.write(flags.json, &mut std::io::stdout().lock())
    } else {
        Ok(())
    };
    if let Some(why) = why {
        let _ = writeln!(err, "larder: {why}");
    }
    match written {
        Ok(()) => ExitCode::from(status),
        // Nobody has read the verdict.
        Err(_) => ExitCode::from(FAILED),
    }
}

/// Whether the files of the data directory are those of a migration that is not complete: what was uploaded would seem lost.
///
/// # Errors
/// They are, for the operator.
pub(crate) fn refuse_unfinished_files(settings: &Settings) -> Result<(), String> {
    if settings.s3.is_some() {
        return Ok(());
    }
    let directory = &settings.data_dir;
    match Mark::read_file(directory) {
        Some(begun) if !begun.is_done => Err(format!(
            "{} is the unfinished copy of {}: run `larder migrate` again, as it was run, until it says that the copy is complete, and \
             start larder then",
            directory.join("blobs").display(),
            begun.from
        )),
        _ => Ok(()),
    }
}

async fn migrate(
    flags: MigrateFlags,
    settings: &Settings,
    summary: &mut Summary,
) -> Result<(), Failure> {
    let plan = plan(flags, settings).await?;
    let source = Source::open(plan, settings, flags.dry_run, flags.yes).await?;
    summary.from = shown(plan.database, plan.blobs, settings);
    summary.to = shown(plan.database_then(), plan.blobs_then(), settings);
    let copied = if flags.dry_run {
        look(plan, settings, &source, summary).await
    } else {
        copy(flags, plan, settings, &source, summary).await
    };
    source.rows.close().await;
    copied
}

/// Which blobs are copied: derived documents are made again, but where the database stays that knows them.
fn which(plan: Plan) -> NamedBlobs {
    if plan.moves_database {
        NamedBlobs::Copied
    } else {
        NamedBlobs::All
    }
}

async fn look(
    plan: Plan,
    settings: &Settings,
    source: &Source,
    summary: &mut Summary,
) -> Result<(), Failure> {
    let target = Target::look(plan, settings, source).await?;
    let progress = Progress::start();
    let counts = source.rows.copy_counts(which(plan)).await?;
    progress.begin("looking for blobs", counts.blobs, counts.bytes);
    summary.counted(&counts);
    if !plan.moves_database {
        summary.tables.clear();
    }
    let freight = freight(plan, false, source, &target, &progress);
    let looked = freight.look().await?;
    if plan.moves_blobs {
        summary.blobs.copied = looked.copied;
        summary.blobs.copied_bytes = looked.copied_bytes;
    }
    target.close().await;
    Ok(())
}

fn freight<'f>(
    plan: Plan,
    reads_all: bool,
    source: &'f Source,
    target: &'f Target,
    progress: &'f Progress,
) -> Freight<'f> {
    Freight {
        rows: &source.rows,
        which: which(plan),
        from: &source.blobs,
        to: &target.blobs,
        stays: !plan.moves_blobs,
        reads_all,
        progress,
    }
}

/// Copies blobs, then the rows that name them, and verifies both.
async fn copy(
    flags: MigrateFlags,
    plan: Plan,
    settings: &Settings,
    source: &Source,
    summary: &mut Summary,
) -> Result<(), Failure> {
    let progress = Progress::start();
    let target = Target::open(plan, settings, source).await?;
    let counts = source.rows.copy_counts(which(plan)).await?;
    let rows: u64 = counts.rows.iter().map(|(_, rows)| rows).sum();
    let reads_all = flags.verify == MigrateVerify::Full;
    let freight = freight(plan, reads_all, source, &target, &progress);
    progress.begin("copying blobs", counts.blobs, counts.bytes);
    let carried = freight.carry().await?;
    summary.blobs.blobs = carried.blobs;
    summary.blobs.bytes = carried.bytes;
    summary.blobs.copied = carried.copied;
    summary.blobs.copied_bytes = carried.copied_bytes;
    progress.clear();
    tell_of_lost(source, &carried, summary).await?;
    let left_out = carried.left_out();
    let is_same = copy_rows(source, &target, &left_out, rows, &progress, summary).await?;
    progress.begin("verifying blobs", counts.blobs, counts.bytes);
    let wrong = freight.verify(&left_out).await?;
    // What others have written meanwhile explains whatever differs.
    source.is_unchanged().await?;
    judge(is_same, &wrong, summary)?;
    target.finish(plan, settings, source).await?;
    target.close().await;
    summary.complete = true;
    summary.verified = summary.cached_left_out == 0;
    summary.next = next(plan, settings);
    Ok(())
}

/// Copies the rows, if the database does not stay, and compares them once more. Gives whether they are the same.
async fn copy_rows(
    source: &Source,
    target: &Target,
    left_out: &BTreeSet<Digest>,
    rows: u64,
    progress: &Progress,
    summary: &mut Summary,
) -> Result<bool, Failure> {
    let Some(to) = &target.rows else {
        return Ok(true);
    };
    let count = |rows| progress.add(rows, 0);
    progress.begin("copying rows", rows, 0);
    let copied = source.rows.copy_rows(to, left_out, &count).await?;
    progress.clear();
    summary.copied(&copied);
    progress.begin("comparing rows", rows, 0);
    let compared = source.rows.compare_rows(to, left_out, &count).await?;
    Ok(compared.is_same())
}

/// Whether the copy is complete, as far as it can be with what is damaged at the source.
fn judge(is_same: bool, wrong: &[(Digest, String)], summary: &Summary) -> Result<(), Failure> {
    if !is_same {
        let why = "the rows of the copy are not those of the source, though they were written: run this again";
        return Err(why.to_owned().into());
    }
    if let Some((digest, why)) = wrong.first() {
        return Err(format!(
            "{} blobs of the copy are not what they should be, such as {digest}, which {why}; those with other bytes were deleted there: \
             run this again",
            wrong.len()
        )
        .into());
    }
    if summary.uploaded_damaged > 0 {
        return Err(format!(
            "{} uploaded files are damaged at the source, and nobody else has them: put their bytes there again from a backup, or delete \
             these files with the larder that has them, and run this again",
            summary.uploaded_damaged
        )
        .into());
    }
    Ok(())
}

/// Names the files whose bytes the source does not have.
async fn tell_of_lost(
    source: &Source,
    carried: &Carried,
    summary: &mut Summary,
) -> Result<(), Failure> {
    for (digest, why) in &carried.lost {
        let names = source.rows.names_of_blob(digest, NAMES).await?;
        if names.is_empty() {
            tracing::info!(%digest, "the bytes of a derived document are left out: it is made again");
        }
        for name in names {
            if name.is_local {
                summary.uploaded_damaged += 1;
            } else {
                summary.cached_left_out += 1;
            }
            summary.problem(problem(
                digest,
                why,
                name.repository,
                name.path,
                name.is_local,
            ));
        }
    }
    Ok(())
}

fn problem(
    digest: &Digest,
    why: &str,
    repository: String,
    path: String,
    uploaded: bool,
) -> Problem {
    Problem {
        repository,
        path,
        digest: digest.to_string(),
        why: format!("{why} at the source"),
        uploaded,
    }
}

/// What the operator does now.
fn next(plan: Plan, settings: &Settings) -> Vec<String> {
    let directory = settings.data_dir.display();
    let mut steps = Vec::new();
    match plan.to {
        MigrateTo::Backends => {
            if plan.moves_blobs {
                steps.push(format!(
                    "mv {directory}/blobs {directory}/blobs.old (with an S3 store larder does not start while blobs are there)"
                ));
            }
            steps.push("start larder with this configuration".to_owned());
        }
        MigrateTo::Embedded => {
            let unset: Vec<&str> = [
                (plan.moves_database, "DBHOST (`database`)"),
                (plan.moves_blobs, "MINIO_ENDPOINT (`s3`)"),
            ]
            .into_iter()
            .filter_map(|(moves, name)| moves.then_some(name))
            .collect();
            steps.push(format!(
                "unset {}, and start larder with the data directory {directory}",
                unset.join(" and ")
            ));
        }
    }
    if plan.blobs_then() == At::Directory && plan.database_then() == At::Backend {
        steps.push(format!(
            "keep {directory}/larder.id: the database knows the directory by it"
        ));
    }
    steps
}

//! Where blobs are kept: files of the data directory, or a store that speaks S3 with a local tier in front of it.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use larder::config::{S3, Settings, Severity};
use larder_budget::Budgets;
use larder_storage::{
    BlobStore, FsBlobStore, MetadataStore, Refused, S3Objects, StorageError, TieredBlobStore,
};

use crate::cluster::Member;

/// The folder of the tier, in the data directory.
pub(crate) const TIER: &str = "tier";
/// A store that does not answer at a start is asked again so often.
const AGAIN: Duration = Duration::from_secs(2);
/// How often the store is asked for multipart uploads that nobody knows.
const LIST_EVERY: Duration = Duration::from_mins(10);
/// Those that were begun so long ago are aborted.
const UNKNOWN_FOR: Duration = Duration::from_hours(1);
/// The longest time between two looks for uploads whose lease has ended.
const SWEEP_EVERY: Duration = Duration::from_mins(1);

/// The store, and what is to be done for it while larder runs.
pub(crate) struct Blobs {
    pub(crate) store: Arc<dyn BlobStore>,
    upkeep: Option<Upkeep>,
}

struct Upkeep {
    objects: S3Objects,
    tier: Arc<TieredBlobStore>,
    /// Whether the store has answered, and as it should.
    is_probed: bool,
}

/// Opens the store that the settings name. `within` says of a failure that it is of the data directory.
///
/// # Errors
/// For the operator: what kept the files, or the settings of the store, from being used.
pub(crate) async fn open(
    settings: &Settings,
    open_files: usize,
    budgets: &Arc<Budgets>,
    within: impl Fn(StorageError) -> String,
) -> Result<Blobs, Box<dyn Error>> {
    let directory = &settings.data_dir;
    let Some(s3) = &settings.s3 else {
        let files = FsBlobStore::keeping_open(directory, open_files).map_err(within)?;
        return Ok(Blobs {
            store: Arc::new(files),
            upkeep: None,
        });
    };
    refuse_files(settings, &within).await?;
    let objects = S3Objects::new(s3.store.clone(), Arc::clone(budgets));
    let objects = objects.map_err(|error| explained(&error))?;
    let tier = TieredBlobStore::open(
        Arc::new(objects.clone()),
        &directory.join(TIER),
        s3.tier,
        open_files,
    );
    let tier = Arc::new(tier.map_err(within)?);
    let is_probed = match objects.probe().await {
        Ok(missing) => {
            tell(s3, &missing);
            true
        }
        Err(Refused::Never(why)) => return Err(why.into()),
        Err(Refused::Later(error)) => {
            let (error, endpoint) = (explained(&error), &s3.store.endpoint);
            tracing::warn!(
                error,
                endpoint,
                "the object store does not answer: larder is not ready, and asks again"
            );
            tier.set_waiting(Some(error));
            false
        }
    };
    Ok(Blobs {
        store: Arc::clone(&tier) as Arc<dyn BlobStore>,
        upkeep: Some(Upkeep {
            objects,
            tier,
            is_probed,
        }),
    })
}

/// Blobs that are files would not be found any more: what was uploaded would seem lost, and what is cached would be fetched again.
async fn refuse_files(
    settings: &Settings,
    within: &impl Fn(StorageError) -> String,
) -> Result<(), Box<dyn Error>> {
    let directory = &settings.data_dir;
    if !directory.join("blobs/sha256").is_dir() {
        return Ok(());
    }
    let files = FsBlobStore::open(directory).map_err(within)?;
    if files.list(None, 1).await.map_err(within)?.is_empty() {
        return Ok(());
    }
    Err(format!(
        "the data directory {} holds blobs as files, and with `s3` they would not be found: run `larder migrate --to backends` with this configuration, which copies them, and then move {} away; or unset MINIO_ENDPOINT (`s3.endpoint`), or use another data directory",
        directory.display(),
        directory.join("blobs").display()
    )
    .into())
}

/// With the innermost cause, which says most.
pub(crate) fn explained(error: &StorageError) -> String {
    let mut cause: &dyn Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    let (error, cause) = (error.to_string(), cause.to_string());
    // What rustls says of bytes that are no TLS.
    let hint = if cause.contains("InvalidContentType") {
        "; no TLS is spoken there: set MINIO_SECURE (`s3.secure`) to false"
    } else {
        ""
    };
    if error == cause {
        error
    } else {
        format!("{error} ({cause}{hint})")
    }
}

/// What `larder check` finds of the store: what would end a start, or what would keep it from being ready. Changes nothing.
pub(crate) async fn look(settings: &Settings) -> Result<(), (Severity, String)> {
    let Some(s3) = &settings.s3 else {
        return Ok(());
    };
    let error = |message: String| (Severity::Error, message);
    refuse_files(settings, &|error| error.to_string())
        .await
        .map_err(|refused| error(refused.to_string()))?;
    let objects = S3Objects::new(s3.store.clone(), Arc::default());
    let objects = objects.map_err(|failed| error(explained(&failed)))?;
    objects.look().await.map_err(|refused| match refused {
        Refused::Never(why) => error(why),
        Refused::Later(failed) => {
            let why = explained(&failed);
            let message = format!("{why}: larder would start, and not be ready until it answers");
            (Severity::Warning, message)
        }
    })
}

fn tell(s3: &S3, missing: &[&str]) {
    let (endpoint, bucket) = (&s3.store.endpoint, &s3.store.bucket);
    tracing::info!(
        endpoint,
        bucket,
        prefix = s3.store.prefix,
        "blobs are kept in an object store"
    );
    for what in missing {
        tracing::warn!(
            endpoint,
            "the object store does not have {what}; larder does without"
        );
    }
}

impl Blobs {
    /// From now on multipart uploads to the store are leased in the database.
    pub(crate) fn lease_uploads(&self, settings: &Settings, metadata: &MetadataStore) {
        if let (Some(upkeep), Some(s3)) = (&self.upkeep, &settings.s3) {
            let book = Arc::new(metadata.clone());
            upkeep.objects.lease_uploads(book, s3.upload_lease);
        }
    }

    /// What is done for the store until the task is dropped: it is asked until it answers, and what dead processes have begun is taken
    /// away, by one of several replicas.
    pub(crate) async fn keep_up(self, settings: Settings, member: Option<Arc<Member>>) {
        let (Some(mut upkeep), Some(s3)) = (self.upkeep, settings.s3) else {
            return;
        };
        while !upkeep.is_probed {
            tokio::time::sleep(AGAIN).await;
            match upkeep.objects.probe().await {
                Ok(missing) => {
                    tell(&s3, &missing);
                    upkeep.tier.set_waiting(None);
                    upkeep.is_probed = true;
                }
                Err(Refused::Later(error)) => {
                    tracing::debug!(%error, "the object store was asked again");
                    upkeep.tier.set_waiting(Some(explained(&error)));
                }
                Err(Refused::Never(why)) => {
                    tracing::error!(
                        why,
                        "the object store cannot be used as it is: larder stays not ready, and asks again"
                    );
                    upkeep.tier.set_waiting(Some(why));
                }
            }
        }
        let pause = SWEEP_EVERY.min(s3.upload_lease / 2);
        let mut listed: Option<Instant> = None;
        loop {
            if member.as_ref().is_none_or(|member| member.does_chores()) {
                tell_swept(upkeep.objects.sweep_ended().await);
                if listed.is_none_or(|at| at.elapsed() >= LIST_EVERY) {
                    listed = Some(Instant::now());
                    tell_swept(upkeep.objects.sweep_uploads(UNKNOWN_FOR).await);
                }
            }
            tokio::time::sleep(pause).await;
        }
    }
}

fn tell_swept(swept: Result<usize, StorageError>) {
    match swept {
        Ok(0) => {}
        Ok(uploads) => tracing::info!(
            uploads,
            "multipart uploads that nobody was at any more were aborted"
        ),
        Err(error) => {
            tracing::warn!(%error, "abandoned multipart uploads were not looked for; it is tried again");
        }
    }
}

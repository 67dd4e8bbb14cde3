//! The stores at both ends: opened, and asked whether they may be copied from and into.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use larder::cli::MigrateTo;
use larder::config::Settings;
use larder_storage::{
    BlobStore, DataDirectoryLock, FsBlobStore, MetadataStore, Migration, ObjectBlobStore, OnDamage,
    S3Objects, StorageErrorKind,
};

use super::failure::Failure;
use super::mark::Mark;
use super::plan::{At, Plan};
use crate::metadata::{Files, IDENTITY, OWNER};
use crate::prepare::{DATABASE, make_directory};

/// So long a server is not asked before it is asked who else has asked it: a larder that runs asks several times a second.
const SILENCE: Duration = Duration::from_secs(3);

/// What is copied from. Nothing in it is changed.
pub(super) struct Source {
    _lock: Option<DataDirectoryLock>,
    pub(super) rows: MetadataStore,
    pub(super) blobs: Arc<dyn BlobStore>,
    /// What the target notes.
    pub(super) migration: Migration,
    /// What users of the database had noted for each other.
    noted_changes: i64,
}

/// What is copied into.
pub(super) struct Target {
    /// `None` if the database stays.
    pub(super) rows: Option<MetadataStore>,
    /// The source's, if blobs stay.
    pub(super) blobs: Arc<dyn BlobStore>,
    mark: Option<Mark>,
}

impl Source {
    /// Opens the source, which nobody else may use. `is_look`: nothing at all is written, not even a lock.
    pub(super) async fn open(
        plan: Plan,
        settings: &Settings,
        is_look: bool,
        may_be_used: bool,
    ) -> Result<Self, Failure> {
        let directory = &settings.data_dir;
        let lock = lock(directory, is_look)?;
        let rows = open_rows(plan, settings).await?;
        let blobs: Arc<dyn BlobStore> = match plan.blobs {
            At::Directory => Arc::new(FsBlobStore::to_read(directory)),
            At::Backend => {
                let objects = objects(settings)?;
                objects.look().await?;
                of_objects(&objects, directory)
            }
        };
        if plan.database == At::Backend {
            of_this_place(&rows, plan, settings).await?;
            if !may_be_used {
                alone(&rows).await?;
            }
        }
        let Some(installation) = rows.installation().await? else {
            let what = "the database has never been used by a larder: there is nothing to copy";
            return Err(what.to_owned().into());
        };
        let noted_changes = rows.noted_changes().await?;
        Ok(Self {
            _lock: lock,
            rows,
            blobs,
            migration: Migration {
                source: installation,
                from: shown(plan.database, plan.blobs, settings),
                is_done: false,
            },
            noted_changes,
        })
    }

    /// Whether nobody has written while it was read, as far as larders tell each other.
    pub(super) async fn is_unchanged(&self) -> Result<(), Failure> {
        if self.rows.noted_changes().await? == self.noted_changes {
            return Ok(());
        }
        let why = "another larder has written to the database while it was copied: stop all larders that use it, and run this again";
        Err(why.to_owned().into())
    }
}

fn lock(directory: &Path, is_look: bool) -> Result<Option<DataDirectoryLock>, Failure> {
    if is_look {
        if !directory.is_dir() {
            return Ok(None);
        }
        return match DataDirectoryLock::holder(directory)? {
            None => Ok(None),
            Some(process) => Err(format!(
                "the data directory {} is in use by a running larder ({process}): stop it first",
                directory.display()
            )
            .into()),
        };
    }
    make_directory(directory)?;
    Ok(Some(DataDirectoryLock::take(directory)?))
}

async fn open_rows(plan: Plan, settings: &Settings) -> Result<MetadataStore, Failure> {
    if let (Some(options), At::Backend) = (&settings.database, plan.database) {
        let rows = MetadataStore::connect_to_copy(options).await?;
        return rows.ok_or_else(|| {
            let name = &options.database;
            format!("the database {name} has no tables of larder: there is nothing to copy").into()
        });
    }
    let path = settings.data_dir.join(DATABASE);
    let opened = MetadataStore::open_to_copy(&path).await;
    opened.map_err(|error| {
        let why = crate::blobs::explained(&error);
        Failure::Failed(format!("{}: {why}", path.display()))
    })
}

/// A server's database names files of one place: whoever looks for them elsewhere finds none.
async fn of_this_place(
    rows: &MetadataStore,
    plan: Plan,
    settings: &Settings,
) -> Result<(), Failure> {
    let Some(owner) = rows.stored_secret_bytes(OWNER).await? else {
        return Ok(());
    };
    // A directory that has no identity is not the one, and is not given any by a look.
    let is_known = plan.blobs == At::Backend || settings.data_dir.join(IDENTITY).is_file();
    if is_known && owner == files_at(plan.blobs, settings)?.identity {
        return Ok(());
    }
    Err(format!(
        "the metadata database names files of another place than {}: set the data directory, or bucket and prefix, that larder used with it",
        blobs_shown(plan.blobs, settings)
    )
    .into())
}

/// Where files are, and what that place is known by.
fn files_at(at: At, settings: &Settings) -> Result<Files, Failure> {
    let mut settings = settings.clone();
    if at == At::Directory {
        settings.s3 = None;
    }
    Ok(Files::of(&settings)?)
}

async fn alone(rows: &MetadataStore) -> Result<(), Failure> {
    tokio::time::sleep(SILENCE).await;
    let others = rows.others_at_work().await?;
    if others.is_empty() {
        return Ok(());
    }
    Err(format!(
        "the database is being used from {}: stop all larders that use it; if these are none, and nothing of larder's is written there, \
         say so with --yes",
        others.join(", ")
    )
    .into())
}

fn objects(settings: &Settings) -> Result<S3Objects, Failure> {
    let Some(s3) = &settings.s3 else {
        return Err("no S3 store is configured".to_owned().into());
    };
    Ok(S3Objects::new(s3.store.clone(), Arc::default())?)
}

/// What needs no spool: blobs are put as the files that they are.
fn of_objects(objects: &S3Objects, directory: &Path) -> Arc<dyn BlobStore> {
    let spools = FsBlobStore::to_read(directory);
    Arc::new(ObjectBlobStore::new(Arc::new(objects.clone()), spools))
}

/// For operators.
pub(super) fn shown(database: At, blobs: At, settings: &Settings) -> String {
    let directory = settings.data_dir.display();
    let database = match (&settings.database, database) {
        (Some(options), At::Backend) => format!("the PostgreSQL database {}", options.database),
        _ => format!("{directory}/{DATABASE}"),
    };
    format!("{database} with {}", blobs_shown(blobs, settings))
}

fn blobs_shown(at: At, settings: &Settings) -> String {
    match (&settings.s3, at) {
        (Some(s3), At::Backend) => format!(
            "the bucket {} (prefix {:?})",
            s3.store.bucket, s3.store.prefix
        ),
        _ => settings.data_dir.join("blobs").display().to_string(),
    }
}

impl Target {
    /// Looks at the target without changing it; it must hold nothing, or a copy of this source.
    pub(super) async fn look(
        plan: Plan,
        settings: &Settings,
        source: &Source,
    ) -> Result<Self, Failure> {
        let rows = look_at_rows(plan, settings).await?;
        if let Some(rows) = &rows {
            accept_rows(rows, &source.migration, settings, plan.to).await?;
        }
        let (blobs, mark) = match (plan.moves_blobs, plan.to) {
            (false, _) => (Arc::clone(&source.blobs), None),
            (true, MigrateTo::Backends) => {
                let objects = objects(settings)?;
                objects.look().await?;
                let blobs = of_objects(&objects, &settings.data_dir);
                (blobs, Some(Mark::Object(objects)))
            }
            (true, MigrateTo::Embedded) => {
                let files = FsBlobStore::to_read(&settings.data_dir);
                let mark = Mark::in_directory(&settings.data_dir);
                (Arc::new(files) as Arc<dyn BlobStore>, Some(mark))
            }
        };
        if let Some(mark) = &mark {
            accept_blobs(&*blobs, mark, &source.migration, settings, plan.to).await?;
        }
        Ok(Self { rows, blobs, mark })
    }

    /// Opens the target for a copy of this source, and marks it as an unfinished one.
    pub(super) async fn open(
        plan: Plan,
        settings: &Settings,
        source: &Source,
    ) -> Result<Self, Failure> {
        let looked = Self::look(plan, settings, source).await?;
        if let Some(rows) = &looked.rows {
            rows.close().await;
        }
        let blobs = match (plan.moves_blobs, plan.to, &looked.mark) {
            (true, MigrateTo::Embedded, _) => {
                Arc::new(FsBlobStore::open(&settings.data_dir)?) as Arc<dyn BlobStore>
            }
            (true, MigrateTo::Backends, Some(Mark::Object(objects))) => {
                for lacked in objects.probe().await? {
                    tracing::warn!("the object store does not have {lacked}; larder does without");
                }
                looked.blobs
            }
            _ => looked.blobs,
        };
        let rows = match (plan.moves_database, plan.to, &settings.database) {
            (true, MigrateTo::Backends, Some(options)) => {
                Some(MetadataStore::connect(options).await?)
            }
            (true, MigrateTo::Embedded, _) => {
                let path = settings.data_dir.join(DATABASE);
                Some(MetadataStore::open_with(&path, OnDamage::Refuse).await?)
            }
            _ => None,
        };
        let opened = Self {
            rows,
            blobs,
            mark: looked.mark,
        };
        opened.note(&source.migration).await?;
        Ok(opened)
    }

    async fn note(&self, migration: &Migration) -> Result<(), Failure> {
        if let Some(mark) = &self.mark {
            mark.write(migration).await?;
        }
        if let Some(rows) = &self.rows {
            rows.note_migration(migration).await?;
        }
        Ok(())
    }

    /// The copy is complete: the database knows whose files it names, and may be taken into use.
    pub(super) async fn finish(
        &self,
        plan: Plan,
        settings: &Settings,
        source: &Source,
    ) -> Result<(), Failure> {
        if plan.database_then() == At::Backend {
            let identity = files_at(plan.blobs_then(), settings)?.identity;
            match (&self.rows, &settings.database) {
                (Some(rows), _) => rows.put_secret_bytes(OWNER, &identity).await?,
                (None, Some(options)) => {
                    let rows = MetadataStore::connect(options).await?;
                    rows.put_secret_bytes(OWNER, &identity).await?;
                    rows.close().await;
                }
                (None, None) => {}
            }
        }
        let done = Migration {
            is_done: true,
            ..source.migration.clone()
        };
        self.note(&done).await
    }

    /// Writes back what is to be written, and closes the database.
    pub(super) async fn close(&self) {
        if let Some(rows) = &self.rows {
            rows.close().await;
        }
    }
}

/// The database that is copied into, if it is there already.
async fn look_at_rows(plan: Plan, settings: &Settings) -> Result<Option<MetadataStore>, Failure> {
    if !plan.moves_database {
        return Ok(None);
    }
    match (plan.to, &settings.database) {
        (MigrateTo::Backends, Some(options)) => Ok(MetadataStore::connect_to_copy(options).await?),
        (MigrateTo::Backends, None) => Ok(None),
        (MigrateTo::Embedded, _) => {
            let path = settings.data_dir.join(DATABASE);
            match MetadataStore::open_to_copy(&path).await {
                Ok(rows) => Ok(Some(rows)),
                Err(error) if error.kind == StorageErrorKind::NotFound => Ok(None),
                Err(error) => Err(format!(
                    "{} is there, and cannot be used: {}: move it away, or use another data directory",
                    path.display(),
                    crate::blobs::explained(&error)
                )
                .into()),
            }
        }
    }
}

async fn accept_rows(
    rows: &MetadataStore,
    migration: &Migration,
    settings: &Settings,
    to: MigrateTo,
) -> Result<(), Failure> {
    let what = match (&settings.database, to) {
        (Some(options), MigrateTo::Backends) => format!("the database {}", options.database),
        _ => settings.data_dir.join(DATABASE).display().to_string(),
    };
    match rows.migration().await? {
        Some(begun) if begun.source == migration.source => return Ok(()),
        Some(begun) => {
            return Err(format!(
                "{what} holds a copy of another installation ({}): use another one",
                begun.from
            )
            .into());
        }
        None => {}
    }
    match rows.holds().await? {
        None => Ok(()),
        Some(table) => Err(format!(
            "{what} holds other data already (its table {table} has rows): nothing was copied, for that would overwrite it. Use an empty \
             database{}",
            match to {
                MigrateTo::Backends =>
                    ", or --only blobs if this database is the one that larder uses already",
                MigrateTo::Embedded => ": move the file away, or use another data directory",
            }
        )
        .into()),
    }
}

async fn accept_blobs(
    blobs: &dyn BlobStore,
    mark: &Mark,
    migration: &Migration,
    settings: &Settings,
    to: MigrateTo,
) -> Result<(), Failure> {
    let what = blobs_shown(
        match to {
            MigrateTo::Backends => At::Backend,
            MigrateTo::Embedded => At::Directory,
        },
        settings,
    );
    match mark.read().await? {
        Some(begun) if begun.source == migration.source => Ok(()),
        Some(begun) => Err(format!(
            "{what} holds blobs of another installation ({}): use another one",
            begun.from
        )
        .into()),
        None if blobs.list(None, 1).await?.is_empty() => Ok(()),
        None => Err(format!(
            "{what} holds blobs already that are not of this migration: nothing was copied, for whoever uses them would delete the \
             new ones. Use an empty {}",
            match to {
                MigrateTo::Backends => "bucket, or another prefix",
                MigrateTo::Embedded => "data directory",
            }
        )
        .into()),
    }
}

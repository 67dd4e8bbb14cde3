//! What is copied from where: out of the command line, the configuration, and what there is.

use std::path::Path;

use larder::cli::{MigrateFlags, MigrateOnly, MigrateTo};
use larder::config::Settings;
use larder_storage::{BlobStore as _, FsBlobStore, MetadataStore};

use super::failure::Failure;
use crate::prepare::DATABASE;

/// One of the two places that each of database and blobs may be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    /// SQLite's file, or the files below `blobs`.
    Directory,
    /// PostgreSQL, or the S3 store.
    Backend,
}

/// What is copied, and where the source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) to: MigrateTo,
    /// Whether the database is copied. Else it stays where it is, and says which blobs there are.
    pub(super) moves_database: bool,
    /// Whether blobs are copied. Else they stay where they are, and are looked for there.
    pub(super) moves_blobs: bool,
    pub(super) database: At,
    pub(super) blobs: At,
}

impl Plan {
    /// Where blobs are when all is done.
    pub(super) fn blobs_then(self) -> At {
        match (self.moves_blobs, self.to) {
            (false, _) => self.blobs,
            (true, MigrateTo::Backends) => At::Backend,
            (true, MigrateTo::Embedded) => At::Directory,
        }
    }

    /// Where the database is when all is done.
    pub(super) fn database_then(self) -> At {
        match (self.moves_database, self.to) {
            (false, _) => self.database,
            (true, MigrateTo::Backends) => At::Backend,
            (true, MigrateTo::Embedded) => At::Directory,
        }
    }
}

/// What the data directory has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    database: bool,
    blobs: bool,
    /// Whether the configured PostgreSQL holds an installation that is in use.
    server_in_use: bool,
}

/// Looks what there is, and decides.
pub(super) async fn plan(flags: MigrateFlags, settings: &Settings) -> Result<Plan, Failure> {
    let directory = &settings.data_dir;
    let blobs = FsBlobStore::to_read(directory).list(None, 1).await?;
    let database = has_database(directory);
    // Only then is it not plain which of the two is the one that is used.
    let asks_server = flags.only == Some(MigrateOnly::Blobs) && database;
    let found = Found {
        database,
        blobs: !blobs.is_empty(),
        server_in_use: asks_server && is_in_use(settings).await?,
    };
    decide(flags, settings, found)
}

fn has_database(directory: &Path) -> bool {
    std::fs::metadata(directory.join(DATABASE)).is_ok_and(|file| file.len() > 0)
}

async fn is_in_use(settings: &Settings) -> Result<bool, Failure> {
    let Some(options) = &settings.database else {
        return Ok(false);
    };
    let Some(server) = MetadataStore::connect_to_copy(options).await? else {
        return Ok(false);
    };
    let is_in_use = server.installation().await?.is_some() && server.migration().await?.is_none();
    server.close().await;
    Ok(is_in_use)
}

fn decide(flags: MigrateFlags, settings: &Settings, found: Found) -> Result<Plan, Failure> {
    let wants_database = settings.database.is_some() && flags.only != Some(MigrateOnly::Blobs);
    let wants_blobs = settings.s3.is_some() && flags.only != Some(MigrateOnly::Database);
    if !wants_database && !wants_blobs {
        return Err(Failure::Usage(nothing_configured(flags)));
    }
    let backend = |is_configured: bool| {
        if is_configured {
            At::Backend
        } else {
            At::Directory
        }
    };
    if flags.to == MigrateTo::Embedded {
        return Ok(Plan {
            to: flags.to,
            moves_database: wants_database,
            moves_blobs: wants_blobs,
            database: backend(settings.database.is_some()),
            blobs: backend(settings.s3.is_some()),
        });
    }
    let moves_database = wants_database && found.database;
    let moves_blobs = wants_blobs && found.blobs;
    let directory = settings.data_dir.display();
    if settings.database.is_none() && !found.database {
        return Err(format!("{directory} holds no {DATABASE}: nothing says what there is to copy; set --data-dir to the data directory that larder has used").into());
    }
    if !moves_database && !moves_blobs {
        return Err(format!("{directory} holds neither {DATABASE} nor blobs that would have to be copied: set --data-dir to the data directory that larder has used").into());
    }
    let stays_in_file =
        found.database && !found.server_in_use && flags.only == Some(MigrateOnly::Blobs);
    Ok(Plan {
        to: flags.to,
        moves_database,
        moves_blobs,
        database: if moves_database || stays_in_file || settings.database.is_none() {
            At::Directory
        } else {
            At::Backend
        },
        blobs: if found.blobs {
            At::Directory
        } else {
            backend(settings.s3.is_some())
        },
    })
}

fn nothing_configured(flags: MigrateFlags) -> String {
    let what = match flags.only {
        None => {
            "neither PostgreSQL (DBHOST, `database`) nor an S3 store (MINIO_ENDPOINT, `s3`), one of which is"
        }
        Some(MigrateOnly::Database) => "no PostgreSQL (DBHOST, `database`), which is",
        Some(MigrateOnly::Blobs) => "no S3 store (MINIO_ENDPOINT, `s3`), which is",
    };
    let how = match flags.to {
        MigrateTo::Backends => "what to copy to",
        MigrateTo::Embedded => "what to copy from",
    };
    format!("the configuration names {what} {how}")
}

#[cfg(test)]
mod tests {
    use larder::cli::MigrateVerify;
    use larder::config::{Environment, Sources, load};

    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Settings {
        let variables = variables.iter().copied();
        let environment = Environment::of(variables.chain([("LARDER_DATA_DIR", "/d")]));
        load(&Sources {
            environment,
            ..Sources::default()
        })
        .unwrap()
    }

    const SERVER: (&str, &str) = ("DBHOST", "db.example.com");
    const STORE: [(&str, &str); 4] = [
        ("MINIO_ENDPOINT", "https://s3.example.com"),
        ("MINIO_BUCKET", "b"),
        ("MINIO_ACCESS_KEY", "a"),
        ("MINIO_SECRET_KEY", "s"),
    ];

    fn flags(to: MigrateTo, only: Option<MigrateOnly>) -> MigrateFlags {
        MigrateFlags {
            to,
            only,
            dry_run: false,
            verify: MigrateVerify::Sizes,
            yes: false,
            json: false,
        }
    }

    /// Whether database and blobs are copied, and where they are before.
    fn decided(
        (to, only): (MigrateTo, Option<MigrateOnly>),
        settings: &Settings,
        (database, blobs, server_in_use): (bool, bool, bool),
    ) -> Option<(bool, bool, At, At)> {
        let found = Found {
            database,
            blobs,
            server_in_use,
        };
        let plan = decide(flags(to, only), settings, found).ok()?;
        Some((
            plan.moves_database,
            plan.moves_blobs,
            plan.database,
            plan.blobs,
        ))
    }

    #[test]
    fn what_is_configured_and_there_is_copied() {
        use At::{Backend, Directory};
        use MigrateOnly::{Blobs, Database};
        use MigrateTo::{Backends, Embedded};
        let all: Vec<_> = std::iter::once(SERVER).chain(STORE).collect();
        let (both, server, store) = (settings(&all), settings(&[SERVER]), settings(&STORE));
        let none = settings(&[]);
        let everything = (true, true, false);
        let cases = [
            (
                (Backends, None),
                &both,
                everything,
                Some((true, true, Directory, Directory)),
            ),
            (
                (Backends, None),
                &server,
                everything,
                Some((true, false, Directory, Directory)),
            ),
            (
                (Backends, None),
                &store,
                everything,
                Some((false, true, Directory, Directory)),
            ),
            (
                (Backends, Some(Database)),
                &both,
                everything,
                Some((true, false, Directory, Directory)),
            ),
            (
                (Backends, Some(Blobs)),
                &both,
                everything,
                Some((false, true, Directory, Directory)),
            ),
            // The file was copied before, and the server is what is used.
            (
                (Backends, Some(Blobs)),
                &both,
                (true, true, true),
                Some((false, true, Backend, Directory)),
            ),
            (
                (Backends, None),
                &both,
                (false, true, false),
                Some((false, true, Backend, Directory)),
            ),
            (
                (Backends, None),
                &both,
                (true, false, false),
                Some((true, false, Directory, Backend)),
            ),
            ((Backends, None), &both, (false, false, false), None),
            ((Backends, None), &store, (false, true, false), None),
            ((Backends, None), &none, everything, None),
            ((Backends, Some(Blobs)), &server, everything, None),
            (
                (Embedded, None),
                &both,
                (false, false, false),
                Some((true, true, Backend, Backend)),
            ),
            (
                (Embedded, None),
                &server,
                (false, true, false),
                Some((true, false, Backend, Directory)),
            ),
            (
                (Embedded, None),
                &store,
                (true, false, false),
                Some((false, true, Directory, Backend)),
            ),
            (
                (Embedded, Some(Database)),
                &store,
                (true, false, false),
                None,
            ),
        ];
        for (which, settings, found, expected) in cases {
            assert_eq!(
                decided(which, settings, found),
                expected,
                "{which:?} {found:?}"
            );
        }
    }
}

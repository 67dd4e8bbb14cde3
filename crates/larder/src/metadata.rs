//! Opens what larder remembers: SQLite's file in the data directory, or a database on a server, which may be away when larder starts.

use std::error::Error;
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use larder::config::Settings;
use larder_core::sha256;
use larder_formats::LinkKey;
use larder_server::{BoundServer, Starting, Waiting};
use larder_storage::{
    ConnectError, MetadataStore, Migration, PostgresOptions, StorageError, StorageErrorKind,
};

use crate::blobs::explained;

/// Pause between attempts to reach the server.
const PAUSE: Duration = Duration::from_millis(500);
/// For so long nobody is answered yet: where the database is there, whoever comes first waits in the listener's queue and is served. A 503
/// would end an upload that a balancer has begun to pass on, and can pass on to no other replica.
const AT_ONCE: Duration = Duration::from_secs(1);
/// How often waiting is told of.
const TELL_EVERY: Duration = Duration::from_secs(30);
/// The file by which a data directory is known, where the database on a server names its files.
pub(crate) const IDENTITY: &str = "larder.id";
/// Under this name the database keeps whose files it names.
pub(crate) const OWNER: &str = "files";

/// The open database, and the key that signs links to other hosts: made once, kept in the database.
pub(crate) type Metadata = (MetadataStore, LinkKey);

/// Waits for the server that `options` name, and answers meanwhile as a larder does that is starting.
///
/// # Errors
/// What waiting does not mend, for the operator.
pub(crate) async fn on_server(
    options: &PostgresOptions,
    settings: &Settings,
    server: &BoundServer,
) -> Result<Metadata, Box<dyn Error>> {
    let waiting = Waiting::default();
    let starting = Starting::new(settings.repositories.clone(), waiting.clone());
    let files = Files::of(settings)?;
    let mut connecting = Box::pin(connected(options, &files, &waiting));
    if let Ok(done) = tokio::time::timeout(AT_ONCE, connecting.as_mut()).await {
        return done;
    }
    server.answer_until(starting, connecting).await
}

/// Where the files are that a database names, and what tells that place from others.
pub(crate) struct Files {
    pub(crate) identity: Vec<u8>,
    /// For users.
    place: String,
}

impl Files {
    /// Those of the store that the settings name. Makes the identity of a data directory that has none yet.
    ///
    /// # Errors
    /// The data directory cannot be written.
    pub(crate) fn of(settings: &Settings) -> Result<Self, Box<dyn Error>> {
        let directory = &settings.data_dir;
        Ok(match &settings.s3 {
            // One store may be reached under several addresses.
            Some(s3) => Self {
                identity: sha256(format!("s3 {} {}", s3.store.bucket, s3.store.prefix).as_bytes())
                    .as_bytes()
                    .to_vec(),
                place: format!(
                    "the bucket {} (prefix {:?})",
                    s3.store.bucket, s3.store.prefix
                ),
            },
            None => Self {
                identity: identity(directory)?,
                place: format!("the data directory {}", directory.display()),
            },
        })
    }
}

async fn connected(
    options: &PostgresOptions,
    files: &Files,
    waiting: &Waiting,
) -> Result<Metadata, Box<dyn Error>> {
    let mut told: Option<Instant> = None;
    loop {
        let why = match try_to_connect(options, files).await {
            Ok(metadata) => {
                if told.is_some() {
                    tracing::info!("the metadata database answers: larder starts");
                }
                return Ok(metadata);
            }
            Err(Trouble::ForGood(error)) => return Err(error),
            Err(Trouble::Away(why)) => why,
        };
        if told.is_none_or(|at| at.elapsed() > TELL_EVERY) {
            tracing::warn!("{why}: waiting for it; /ready is 503 until then");
            told = Some(Instant::now());
        }
        waiting.because(why);
        tokio::time::sleep(PAUSE).await;
    }
}

enum Trouble {
    /// Another try may succeed.
    Away(String),
    ForGood(Box<dyn Error>),
}

impl From<ConnectError> for Trouble {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Unreachable(why) => Self::Away(why),
            ConnectError::Refused(why) => Self::ForGood(why.into()),
        }
    }
}

impl From<StorageError> for Trouble {
    fn from(error: StorageError) -> Self {
        match error.kind {
            _ if error.is_refusal() => {
                let why = explained(&error);
                Self::ForGood(format!("{why}: look at the rights of the database's user").into())
            }
            StorageErrorKind::Unavailable => Self::Away(error.to_string()),
            _ => Self::ForGood(error.into()),
        }
    }
}

async fn try_to_connect(options: &PostgresOptions, files: &Files) -> Result<Metadata, Trouble> {
    let metadata = MetadataStore::connect(options).await?;
    // The files that the database names are in one place: whoever has another one would take them all for lost.
    if metadata.secret_bytes(OWNER, &files.identity).await? != files.identity {
        let message = format!(
            "the metadata database {} names files of another place than {}: two larders cannot share a database without sharing \
             their files, so several need an S3 store; give this one a database of its own, or the data directory or bucket that it \
             had before. If the files are lost for good, run in the database: DELETE FROM secrets WHERE name = '{OWNER}'",
            options.database, files.place
        );
        return Err(Trouble::ForGood(message.into()));
    }
    take_over(&metadata).await?;
    let candidate = random().map_err(Trouble::ForGood)?;
    let stored = metadata.secret_bytes("link_key", &candidate).await?;
    Ok((metadata, key_of(&stored).map_err(Trouble::ForGood)?))
}

/// What the data directory is known by: made once.
fn identity(directory: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    let path = directory.join(IDENTITY);
    let failed = |error: std::io::Error| format!("cannot use {}: {error}", path.display());
    match std::fs::read(&path) {
        Ok(bytes) if bytes.len() == 32 => return Ok(bytes),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error).into()),
    }
    let made = random()?;
    let new = directory.join(format!("{IDENTITY}.new"));
    std::fs::write(&new, made)
        .and_then(|()| std::fs::File::open(&new)?.sync_all())
        .and_then(|()| std::fs::rename(&new, &path))
        .and_then(|()| std::fs::File::open(directory)?.sync_all())
        .map_err(failed)?;
    Ok(made.to_vec())
}

/// Bytes that nobody can guess.
pub(crate) fn random() -> Result<[u8; 32], Box<dyn Error>> {
    let mut bytes = [0_u8; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The key that signs links of a database in the data directory.
///
/// # Errors
/// The database does not take or give it.
pub(crate) async fn link_key(metadata: &MetadataStore) -> Result<LinkKey, Box<dyn Error>> {
    take_over(metadata).await.map_err(|trouble| match trouble {
        Trouble::Away(why) => why.into(),
        Trouble::ForGood(error) => error,
    })?;
    let stored = metadata.secret_bytes("link_key", &random()?).await?;
    key_of(&stored)
}

/// A database that `larder migrate` has made is taken into use when it is complete: from now on it is the one that is written, and no
/// migration overwrites it any more. One that is not complete would seem to have lost what was uploaded.
async fn take_over(metadata: &MetadataStore) -> Result<(), Trouble> {
    match metadata.migration().await? {
        None => Ok(()),
        Some(copy) if copy.is_done => Ok(metadata.end_migration().await?),
        Some(copy) => Err(Trouble::ForGood(unfinished(&copy).into())),
    }
}

fn unfinished(copy: &Migration) -> String {
    format!(
        "the metadata database is the unfinished copy of {}: run `larder migrate` again, as it was run, until it says that the copy is \
         complete, and start larder then",
        copy.from
    )
}

/// Whether a start would take this database, or else the file at `path`, into use. Changes nothing.
///
/// # Errors
/// It is the unfinished copy of another one, for the operator. What keeps it from being opened at all is not told.
pub(crate) async fn look(server: Option<&PostgresOptions>, path: &Path) -> Result<(), String> {
    let opened = match server {
        Some(options) => MetadataStore::connect_to_copy(options).await.ok().flatten(),
        None => MetadataStore::open_to_copy(path).await.ok(),
    };
    let Some(metadata) = opened else {
        return Ok(());
    };
    let copy = metadata.migration().await;
    metadata.close().await;
    match copy {
        Ok(Some(copy)) if !copy.is_done => Err(unfinished(&copy)),
        _ => Ok(()),
    }
}

fn key_of(stored: &[u8]) -> Result<LinkKey, Box<dyn Error>> {
    let key = <[u8; 32]>::try_from(stored)
        .map_err(|_| "the link key in the metadata database is damaged")?;
    Ok(LinkKey::from_bytes(key))
}

//! What a start needs before it serves: the data directory, its lock, the stores, the certificate and the addresses.
//!
//! [`prepare`] takes them for a start. [`rehearse`] goes through the same steps for `larder check`, with the same functions where they
//! change nothing and with their counterparts that only look where they do (the lock, the database), and goes on after a failure.

use std::error::Error;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use larder::config::{Diagnostic, Settings, Severity};
use larder_budget::Budgets;
use larder_core::{Clock as _, Pseudonym, RepositoryKind, SystemClock};
use larder_formats::LinkKey;
use larder_server::{BindError, BoundServer, CertificateDates, bind, check_tls};
use larder_storage::{
    ConnectError, DataDirectoryLock, FsBlobStore, MetadataStore, OnDamage, PostgresOptions,
    StorageError, StorageErrorKind,
};

use crate::blobs::{self, Blobs};
use crate::descriptors::Shares;
use crate::metadata;
use crate::wire::{server_settings, tls_files, wanted_shares};

pub(crate) const DATABASE: &str = "larder.sqlite";
const LOCK: &str = "larder.lock";
/// A certificate that expires within this time is worth a warning.
const SOON: Duration = Duration::from_hours(30 * 24);
/// How long a running larder may take to say that it is one.
const ANSWER: Duration = Duration::from_secs(2);

/// All that a start has taken.
pub(crate) struct Prepared {
    pub(crate) _lock: DataDirectoryLock,
    pub(crate) blobs: Blobs,
    pub(crate) metadata: MetadataStore,
    pub(crate) link_key: LinkKey,
    pub(crate) server: BoundServer,
}

/// Takes everything, or says what cannot be had. `on_damage`: what becomes of a database in the data directory that cannot be read.
///
/// # Errors
/// What kept larder from starting, for the operator.
pub(crate) async fn prepare(
    settings: &Settings,
    shares: Shares,
    pseudonym: Pseudonym,
    budgets: &Arc<Budgets>,
    on_damage: OnDamage,
) -> Result<Prepared, Box<dyn Error>> {
    let directory = &settings.data_dir;
    make_directory(directory)?;
    let within = |error| of_directory(&error, directory);
    let lock = DataDirectoryLock::take(directory).map_err(within)?;
    let blobs = blobs::open(settings, shares.blobs, budgets, within).await?;
    let server = || {
        bind(server_settings(
            settings,
            shares,
            pseudonym,
            Arc::clone(budgets),
        ))
    };
    let (metadata, link_key, server) = match &settings.database {
        None => {
            let path = directory.join(DATABASE);
            let opened = MetadataStore::open_with(&path, on_damage).await;
            let metadata = opened.map_err(|error| in_directory(&error, directory))?;
            let link_key = metadata::link_key(&metadata).await?;
            // The lock says that whoever was about to delete something is dead.
            let inherited = metadata.inherit_deletions(SystemClock.now(), &blobs.store);
            if let Err(error) = inherited.await {
                tracing::warn!(%error, "what was being deleted when larder ended is deleted later");
            }
            (metadata, link_key, server().await?)
        }
        Some(options) => {
            // What probes ask is answered while the server is waited for.
            let server = server().await?;
            let (metadata, link_key) = metadata::on_server(options, settings, &server).await?;
            (metadata, link_key, server)
        }
    };
    blobs.lease_uploads(settings, &metadata);
    Ok(Prepared {
        _lock: lock,
        blobs,
        metadata,
        link_key,
        server,
    })
}

/// What of a start a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    DataDirectory,
    Database,
    ObjectStore,
    Certificate,
    Addresses,
}

/// Everything that would keep [`prepare`] from succeeding, and what is worth knowing. Leaves nothing behind.
pub(crate) fn rehearse(settings: &Settings) -> Vec<(Part, Diagnostic)> {
    let mut found = Findings {
        part: Part::DataDirectory,
        found: Vec::new(),
    };
    let is_held = data_directory(settings, &mut found);
    found.part = Part::ObjectStore;
    match in_runtime(blobs::look(settings)) {
        Ok(Ok(())) => {}
        Ok(Err((severity, message))) => found.push(severity, message),
        Err(error) => found.error(error.to_string()),
    }
    found.part = Part::Certificate;
    if let Some(tls) = tls_files(settings) {
        match check_tls(&tls) {
            Ok(dates) => certificate_dates(dates, &mut found),
            Err(error) => found.error(error.to_string()),
        }
    }
    found.part = Part::Addresses;
    addresses(settings, is_held, &mut found);
    found.found
}

struct Findings {
    /// What is being looked at.
    part: Part,
    found: Vec<(Part, Diagnostic)>,
}

impl Findings {
    fn error(&mut self, message: String) {
        self.push(Severity::Error, message);
    }

    fn push(&mut self, severity: Severity, message: String) {
        let found = Diagnostic {
            severity,
            place: None,
            message,
        };
        self.found.push((self.part, found));
    }
}

/// Makes the data directory, if it is not there.
///
/// # Errors
/// Why it cannot be made, for the operator.
pub(crate) fn make_directory(directory: &Path) -> Result<(), String> {
    std::fs::create_dir_all(directory).map_err(|error| {
        let leads_nowhere = directory.is_symlink() && !directory.exists();
        let why = if leads_nowhere {
            "it is a link that leads nowhere".to_owned()
        } else {
            error.to_string()
        };
        format!(
            "the data directory {} cannot be made: {why}{}",
            directory.display(),
            strangers(directory)
        )
    })
}

/// A failure in the data directory, with the directory and whose it is.
fn of_directory(error: &StorageError, directory: &Path) -> String {
    // Whoever holds the lock is named already.
    if error.kind == StorageErrorKind::Unavailable {
        return error.to_string();
    }
    in_directory(error, directory)
}

fn in_directory(error: &StorageError, directory: &Path) -> String {
    format!(
        "{error} (in the data directory {}{})",
        directory.display(),
        strangers(directory)
    )
}

/// Says what of a data directory belongs to another user than the one that larder runs as: the one that it would be made in, itself, or
/// what somebody (often root, once) has left in it.
fn strangers(directory: &Path) -> String {
    let user = |path: &Path| std::fs::metadata(path).ok().map(|metadata| metadata.uid());
    let Some(own) = user(Path::new("/proc/self")).filter(|own| *own != 0) else {
        return String::new();
    };
    let log = format!("{DATABASE}-wal");
    let index = format!("{DATABASE}-shm");
    let within = [LOCK, DATABASE, &log, &index, "blobs"].map(|name| directory.join(name));
    let foreign = std::iter::once(nearest(directory))
        .chain(within.iter().map(PathBuf::as_path))
        .find_map(|path| {
            let owner = user(path).filter(|owner| *owner != own)?;
            Some((path, owner))
        });
    match foreign {
        None => String::new(),
        Some((path, owner)) if path == directory => {
            format!(", which belongs to user {owner}, and larder runs as user {own}")
        }
        Some((path, owner)) => format!(
            "; {} belongs to user {owner}, and larder runs as user {own}",
            path.display()
        ),
    }
}

/// What is there of a path: itself, or the nearest above it. Above the first part of a relative one is the directory that larder was started in.
pub(crate) fn nearest(path: &Path) -> &Path {
    let mut above = path.ancestors();
    above.find(|path| path.exists()).unwrap_or(Path::new("."))
}

/// Looks at the data directory; says whether a running larder has it.
fn data_directory(settings: &Settings, found: &mut Findings) -> bool {
    let directory = &settings.data_dir;
    let made = missing(directory);
    if let Err(error) = make_directory(directory) {
        found.error(error);
        unmake(&made);
        return false;
    }
    let is_held = match DataDirectoryLock::holder(directory) {
        Ok(None) => false,
        Ok(Some(process)) => {
            found.push(
                Severity::Note,
                format!("the data directory is in use by a running larder ({process})"),
            );
            true
        }
        Err(error) => {
            found.error(of_directory(&error, directory));
            false
        }
    };
    match FsBlobStore::check(directory) {
        Ok(()) => {}
        // What is held can be served from a full disk; only a database that is not there yet cannot be made.
        Err(error) if error.is_full() && directory.join(DATABASE).exists() => {
            found.push(
                Severity::Warning,
                format!("{error}: larder would serve, and keep nothing"),
            );
        }
        Err(error) => found.error(of_directory(&error, directory)),
    }
    // A running larder has it open, and knows more of it than a second look can.
    found.part = Part::Database;
    if !is_held {
        database(settings, found);
        let path = directory.join(DATABASE);
        let looked = in_runtime(metadata::look(settings.database.as_ref(), &path));
        if let Ok(Err(unfinished)) = looked {
            found.error(unfinished);
        }
    }
    unmake(&made);
    is_held
}

fn database(settings: &Settings, found: &mut Findings) {
    if let Some(options) = &settings.database {
        return server_database(options, found);
    }
    let path = settings.data_dir.join(DATABASE);
    let looked = in_runtime(MetadataStore::check(&path));
    match looked {
        Err(error) => found.error(error.to_string()),
        Ok(Ok(())) => {}
        Ok(Err(error))
            if error.kind == StorageErrorKind::Corrupt
                && on_damage(settings) == OnDamage::PutAside =>
        {
            found.push(
                Severity::Warning,
                format!("{error}; a start would put it aside and begin with an empty cache"),
            );
        }
        Ok(Err(error)) => found.error(of_directory(&error, &settings.data_dir)),
    }
}

fn server_database(options: &PostgresOptions, found: &mut Findings) {
    match in_runtime(MetadataStore::check_server(options)) {
        Err(error) => found.error(error.to_string()),
        Ok(Ok(())) => {}
        Ok(Err(ConnectError::Unreachable(why))) => {
            found.push(
                Severity::Warning,
                format!("{why}; a start would wait for it"),
            );
        }
        Ok(Err(ConnectError::Refused(why))) => found.error(why),
    }
}

/// Runs what needs a runtime, in one that ends with it.
fn in_runtime<T>(task: impl Future<Output = T>) -> std::io::Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(task))
}

fn certificate_dates(dates: CertificateDates, found: &mut Findings) {
    let now = SystemClock.now();
    let day = |moment: larder_core::UnixMillis| moment.to_http_date();
    let warning = if now < dates.not_before {
        format!(
            "the certificate of `tls` is not valid before {}: clients refuse it",
            day(dates.not_before)
        )
    } else if now > dates.not_after {
        format!(
            "the certificate of `tls` expired on {}: clients refuse it",
            day(dates.not_after)
        )
    } else if dates.not_after.since(now) < SOON {
        format!(
            "the certificate of `tls` expires on {}",
            day(dates.not_after)
        )
    } else {
        return;
    };
    found.push(Severity::Warning, warning);
}

/// Listens on all addresses as a start does, and stops at once. One that a running larder has is no fault.
fn addresses(settings: &Settings, is_held: bool, found: &mut Findings) {
    // The certificate is looked at by itself.
    let mut open = Settings {
        tls: None,
        ..settings.clone()
    };
    while !open.listen.is_empty() {
        let shares = wanted_shares(&open);
        let bound = in_runtime(async {
            let pseudonym = Pseudonym::random();
            bind(server_settings(&open, shares, pseudonym, Arc::default()))
                .await
                .map(drop)
        });
        match bound {
            Ok(Ok(())) => return,
            Ok(Err(BindError::Address { address, source })) => {
                open.listen.retain(|other| *other != address);
                let in_use = source.kind() == std::io::ErrorKind::AddrInUse;
                if in_use && is_held && settings.tls.is_none() && !answers_as_larder(address) {
                    let why = "and what listens there does not answer as a larder: if it is none, a start would fail";
                    found.push(Severity::Warning, format!("{address} is in use, {why}"));
                } else if in_use && is_held {
                    found.push(
                        Severity::Note,
                        format!("{address} is in use, as it is by a running larder"),
                    );
                } else if in_use && settings.tls.is_none() && answers_as_larder(address) {
                    let why = "with another data directory: this one could not start beside it";
                    found.push(
                        Severity::Warning,
                        format!("{address} is in use by a running larder, {why}"),
                    );
                } else {
                    found.error(BindError::Address { address, source }.to_string());
                }
            }
            Ok(Err(error)) => return found.error(error.to_string()),
            Err(error) => return found.error(error.to_string()),
        }
    }
}

/// Whether what listens there calls itself larder in `GET /`.
fn answers_as_larder(address: SocketAddr) -> bool {
    let mut target = address;
    if target.ip().is_unspecified() {
        target.set_ip(if target.is_ipv4() {
            Ipv4Addr::LOCALHOST.into()
        } else {
            Ipv6Addr::LOCALHOST.into()
        });
    }
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&target, ANSWER)?;
        stream.set_read_timeout(Some(ANSWER))?;
        write!(
            stream,
            "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = Vec::new();
        stream.take(64 << 10).read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    ask().is_ok_and(|answer| answer.contains("\"name\":\"larder\""))
}

/// The directories that have to be made for `path`, the outermost first.
fn missing(path: &Path) -> Vec<PathBuf> {
    let mut missing: Vec<PathBuf> = path
        .ancestors()
        .take_while(|path| !path.as_os_str().is_empty() && !path.exists())
        .map(Path::to_path_buf)
        .collect();
    missing.reverse();
    missing
}

/// Removes directories that were made for the look, as far as they are still empty.
fn unmake(made: &[PathBuf]) {
    for directory in made.iter().rev() {
        // Whatever else is in it now is not ours to remove.
        let _ = std::fs::remove_dir(directory);
    }
}

/// What remotes hold can be fetched again; what was uploaded cannot, and only the database knows its names.
pub(crate) fn on_damage(settings: &Settings) -> OnDamage {
    let has_uploads = settings
        .repositories
        .iter()
        .any(|repository| repository.kind() == RepositoryKind::Local);
    if has_uploads {
        OnDamage::Refuse
    } else {
        OnDamage::PutAside
    }
}

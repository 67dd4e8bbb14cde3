//! `larder doctor`: what is wrong with this machine's larder and what it depends on, each with where it is and what to do. It looks at the
//! configuration, the data directory and whatever they name, needs no running larder, and changes nothing; a running one that is named
//! is asked as well.

mod clock;
mod descriptors;
mod disk;
mod permissions;
mod running;
mod upstreams;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use larder::config::{Diagnostic, Settings, Severity, Sources, load};
use larder::logging;
use larder::remote_commands::{self, Asked};
use larder_storage::{RedisShared, Shared as _};
use serde_json::json;

use crate::migrate;
use crate::prepare::{self, Part};
use clock::Clocks;

/// How long Redis may take to answer.
const REDIS: Duration = Duration::from_secs(3);

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    /// What kind of fault, in a word that programs can compare.
    kind: &'static str,
    /// The key with its file and line, the path or the address that it is about.
    place: String,
    what: String,
    /// What to do about it.
    remedy: String,
}

impl Finding {
    fn new(
        kind: &'static str,
        place: impl Into<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            place: place.into(),
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}

/// What was looked at.
#[derive(Debug, Default)]
struct Examined {
    repositories: usize,
    upstreams: usize,
    found: Vec<Finding>,
}

/// Looks, prints what it finds, and gives the exit status: 1 if anything is wrong.
pub(crate) fn run(sources: &Sources, asked: &Asked) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "larder: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut examined = Examined::default();
    if let Err(error) = logging::check(sources) {
        examined.found.push(Finding::new(
            "configuration",
            "flags and environment",
            error.to_string(),
            "correct it: larder does not start with it",
        ));
    }
    match load(sources) {
        // Has a runtime of its own for what it needs one for.
        Ok(settings) => {
            examined.found.extend(rehearsed(&settings));
            examined.found.extend(unfinished(&settings));
            runtime.block_on(examine(&settings, sources, asked, &mut examined));
        }
        Err(found) => examined.found.extend(found.iter().filter_map(of_file)),
    }
    let health = runtime.block_on(remote_commands::health(asked, &sources.environment));
    examined.found.extend(running::findings(health));
    // A look-up of a name that hangs must not keep anybody waiting.
    runtime.shutdown_background();
    match write(&examined, asked.json(), &mut std::io::stdout().lock()) {
        Ok(()) if examined.found.is_empty() => ExitCode::SUCCESS,
        // Also when standard output cannot be written: nobody has read the findings.
        _ => ExitCode::FAILURE,
    }
}

fn of_file(found: &Diagnostic) -> Option<Finding> {
    let place = found.place.as_ref();
    (found.severity == Severity::Error).then(|| {
        Finding::new(
            "configuration",
            place.map_or_else(|| "flags and environment".to_owned(), ToString::to_string),
            found.message.clone(),
            "correct it: larder does not start with this configuration, and nothing behind it could be looked at",
        )
    })
}

/// Files that a copy to another place has left half done.
fn unfinished(settings: &Settings) -> Option<Finding> {
    let what = migrate::refuse_unfinished_files(settings).err()?;
    let place = format!("data_dir {}", settings.data_dir.display());
    let remedy = "run larder migrate again until it is complete, and start larder then";
    Some(Finding::new("data_directory", place, what, remedy))
}

/// What a start would meet.
fn rehearsed(settings: &Settings) -> Vec<Finding> {
    let found = prepare::rehearse(settings).into_iter();
    let faults = found.filter(|(_, found)| found.severity != Severity::Note);
    let told = faults.map(|(part, found)| {
        let directory = settings.data_dir.display();
        let (kind, place, remedy) = match part {
            Part::DataDirectory => (
                "data_directory",
                format!("data_dir {directory}"),
                "make it a directory that the user who runs larder may write to, or name another (data_dir, LARDER_DATA_DIR)",
            ),
            Part::Database => match &settings.database {
                Some(_) => (
                    "backend",
                    "database (DBHOST)".to_owned(),
                    "start the server, and see that its address and account are right (docs/operate/postgresql.md)",
                ),
                None => (
                    "data_directory",
                    format!("{directory}/{}", prepare::DATABASE),
                    "make the file readable and writable for the user who runs larder, or restore it (docs/operate/backup.md)",
                ),
            },
            Part::ObjectStore => (
                "backend",
                "s3 (MINIO_ENDPOINT)".to_owned(),
                "start the store, and see that endpoint, bucket and keys are right (docs/operate/s3.md)",
            ),
            Part::Certificate => (
                "certificate",
                "tls.cert, tls.key".to_owned(),
                "put a certificate that is valid, and its key, where `tls` names them; larder reads them again by itself",
            ),
            Part::Addresses => (
                "address",
                "listen".to_owned(),
                "end what has the address, or listen on another one (listen, LARDER_LISTEN)",
            ),
        };
        Finding::new(kind, place, found.message, remedy)
    });
    told.collect()
}

async fn examine(settings: &Settings, sources: &Sources, asked: &Asked, examined: &mut Examined) {
    examined.repositories = settings.repositories.len();
    examined.found.extend(disk::findings(&settings.data_dir));
    examined.found.extend(descriptors::findings(settings));
    examined
        .found
        .extend(permissions::findings(settings, sources, asked));
    examined.found.extend(redis(settings).await);
    let mut clocks = Clocks::default();
    let (probed, found) = upstreams::findings(settings, &mut clocks).await;
    examined.upstreams = probed;
    examined.found.extend(found);
    examined.found.extend(clocks.findings());
}

async fn redis(settings: &Settings) -> Option<Finding> {
    let address = settings.cluster.redis.as_ref()?;
    let redis = RedisShared::connect(address.clone(), "doctor");
    (!redis.until_connected(REDIS).await).then(|| {
        let why = redis.standing().detail;
        let why = why.unwrap_or_else(|| format!("no answer within {} s", REDIS.as_secs()));
        Finding::new(
            "backend",
            "redis.url (REDIS_URL)",
            format!("Redis at {address} cannot be used: {why}"),
            "start it, and see that address, account and ca_file are right; until then replicas share nothing (docs/operate/replicas.md)",
        )
    })
}

fn write(examined: &Examined, as_json: bool, out: &mut impl Write) -> std::io::Result<()> {
    let Examined {
        repositories,
        upstreams,
        found,
    } = examined;
    if as_json {
        let shown: Vec<_> = found
            .iter()
            .map(|one| json!({"kind": one.kind, "where": one.place, "what": one.what, "do": one.remedy}))
            .collect();
        let shown =
            json!({"findings": shown, "repositories": repositories, "upstreams": upstreams});
        return writeln!(out, "{shown}");
    }
    for one in found {
        writeln!(out, "{}: {}: {}", one.kind, one.place, one.what)?;
        writeln!(out, "    do: {}", one.remedy)?;
    }
    let count = match found.len() {
        0 => "nothing is wrong".to_owned(),
        1 => "1 thing is wrong".to_owned(),
        number => format!("{number} things are wrong"),
    };
    writeln!(
        out,
        "{count}; looked at: repositories {repositories}, upstreams {upstreams}"
    )
}

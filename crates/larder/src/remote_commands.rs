//! Commands that ask a running larder over HTTP: `ls`, `du`, `get`, `put`, `rm`, `flush`, `warm`, `explain`, `gc`, `scrub`, `export` and `import`.
//!
//! Knows their flags, and what each asks. Exit codes: 0, 1 where the answer is an error or there is none, 2 where the command line cannot
//! be understood.

mod archive;
mod get;
mod listing;
mod place;
mod put;
mod server;
mod shown;
mod steer;
pub mod upkeep;
mod warm;

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Environment;
use crate::lockfiles::Format;
use server::Server;

pub use archive::{ExportFlags, ImportFlags};
pub use server::Asked;

const FAILED: u8 = 1;
const MISUSED: u8 = 2;

/// `larder du`.
#[derive(Debug, Clone, Args)]
pub struct DuFlags {
    /// One repository; all without it
    #[arg(value_name = "REPO")]
    repository: Option<String>,
    #[command(flatten)]
    asked: Asked,
}

/// `larder ls`.
#[derive(Debug, Clone, Args)]
pub struct LsFlags {
    /// A repository, and the beginning of paths in it; the repositories' names without it
    #[arg(value_name = "REPO[/PREFIX]")]
    place: Option<String>,
    #[command(flatten)]
    asked: Asked,
}

/// `larder get`.
#[derive(Debug, Clone, Args)]
pub struct GetFlags {
    /// A path of a repository, or its URL
    #[arg(value_name = "REPO/PATH")]
    place: String,
    /// Where to write it; - is standard output [default: the path's last part, in the current directory]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The SHA-256 that it must have, in hexadecimal digits
    #[arg(long, value_name = "DIGEST")]
    sha256: Option<String>,
    #[command(flatten)]
    asked: Asked,
}

/// `larder put`.
#[derive(Debug, Clone, Args)]
pub struct PutFlags {
    /// The file to send; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where it shall be: a path of a local repository, or its URL; the file's name is added behind a slash
    #[arg(value_name = "REPO/PATH")]
    place: String,
    /// Refuse to replace a file that is there
    #[arg(long)]
    new: bool,
    #[command(flatten)]
    asked: Asked,
}

/// `larder rm`.
#[derive(Debug, Clone, Args)]
pub struct RmFlags {
    /// Paths of repositories, or their URLs
    #[arg(value_name = "REPO/PATH", required = true)]
    places: Vec<String>,
    #[command(flatten)]
    asked: Asked,
}

/// `larder flush`.
#[derive(Debug, Clone, Args)]
pub struct FlushFlags {
    /// The repository whose copies are forgotten
    #[arg(value_name = "REPO", required_unless_present = "all")]
    repository: Option<String>,
    /// The copies of all repositories
    #[arg(long, conflicts_with = "repository")]
    all: bool,
    /// Only paths in which this regular expression is found
    #[arg(long, value_name = "REGEX")]
    pattern: Option<String>,
    /// What is forgotten: all, index, files or metrics [default: all]
    #[arg(long = "type", value_name = "TYPE", value_parser = ["all", "index", "files", "metrics"], hide_possible_values = true)]
    kind: Option<String>,
    #[command(flatten)]
    asked: Asked,
}

/// `larder warm`.
#[derive(Debug, Clone, Args)]
pub struct WarmFlags {
    /// The remote repository that shall hold it
    #[arg(short, long, value_name = "REPO")]
    repository: String,
    /// Lock files (requirements.txt, uv.lock, pylock.toml, package-lock.json, pnpm-lock.yaml, yarn.lock, Chart.lock), or lists of images or of URLs; - is standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// How the files are written: requirements, uv, pylock, npm, pnpm, yarn, chart, images or urls [default: what their names say]
    #[arg(long, value_name = "FORMAT", value_enum, hide_possible_values = true)]
    format: Option<Format>,
    /// Print the paths that would be fetched, and fetch nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    asked: Asked,
}

/// `larder explain`.
#[derive(Debug, Clone, Args)]
pub struct ExplainFlags {
    /// A path of a repository, or the URL that a client asked for
    #[arg(value_name = "URL|REPO/PATH")]
    place: String,
    #[command(flatten)]
    asked: Asked,
}

/// `larder gc`.
#[derive(Debug, Clone, Args)]
pub struct GcFlags {
    /// Say what would be deleted, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Look after this data directory, with SQLite and files, on which no larder runs; else a running larder is asked
    #[arg(long, value_name = "PATH", conflicts_with_all = ["server", "token_file"])]
    pub data_dir: Option<PathBuf>,
    /// Which larder is asked.
    #[command(flatten)]
    pub asked: Asked,
}

/// `larder scrub`.
#[derive(Debug, Clone, Args)]
pub struct ScrubFlags {
    /// How much is read each second: bytes, or with a unit, such as 200MiB [default: 50MiB]
    #[arg(long, value_name = "BYTES", value_parser = crate::config::parse_rate, conflicts_with_all = ["status", "cancel"])]
    pub rate: Option<u64>,
    /// Show how far the last one has come, and what it has found; begin none
    #[arg(long, conflicts_with_all = ["cancel", "data_dir"])]
    pub status: bool,
    /// Cancel the one that is under way; what it has found stays
    #[arg(long, conflicts_with = "data_dir")]
    pub cancel: bool,
    /// Look after this data directory, with SQLite and files, on which no larder runs; else a running larder is asked
    #[arg(long, value_name = "PATH", conflicts_with_all = ["server", "token_file"])]
    pub data_dir: Option<PathBuf>,
    /// Which larder is asked.
    #[command(flatten)]
    pub asked: Asked,
}

/// A command that asks a running larder.
#[derive(Debug, Clone)]
pub enum RemoteCommand {
    /// How much is held.
    Du(DuFlags),
    /// What is held.
    Ls(LsFlags),
    /// Fetch a file.
    Get(GetFlags),
    /// Upload a file.
    Put(PutFlags),
    /// Delete files of local repositories, flush paths of remote ones.
    Rm(RmFlags),
    /// Forget copies.
    Flush(FlushFlags),
    /// Fetch beforehand.
    Warm(WarmFlags),
    /// Say why a path is answered as it is.
    Explain(ExplainFlags),
    /// Run the collector.
    Gc(GcFlags),
    /// Read all that is stored again.
    Scrub(ScrubFlags),
    /// Put what repositories hold into an archive.
    Export(ExportFlags),
    /// Read an archive in.
    Import(ImportFlags),
}

impl RemoteCommand {
    fn asked(&self) -> &Asked {
        match self {
            Self::Du(DuFlags { asked, .. })
            | Self::Ls(LsFlags { asked, .. })
            | Self::Get(GetFlags { asked, .. })
            | Self::Put(PutFlags { asked, .. })
            | Self::Rm(RmFlags { asked, .. })
            | Self::Flush(FlushFlags { asked, .. })
            | Self::Export(ExportFlags { asked, .. })
            | Self::Import(ImportFlags { asked, .. })
            | Self::Warm(WarmFlags { asked, .. })
            | Self::Explain(ExplainFlags { asked, .. })
            | Self::Gc(GcFlags { asked, .. })
            | Self::Scrub(ScrubFlags { asked, .. }) => asked,
        }
    }
}

/// Why a command ends early: the exit code, and what is said.
#[derive(Debug, PartialEq, Eq)]
struct Failure(u8, String);

impl Failure {
    /// The answer is an error, or there is none.
    fn failed(message: impl Into<String>) -> Self {
        Self(FAILED, message.into())
    }

    /// The command line cannot be understood.
    fn misused(message: impl Into<String>) -> Self {
        Self(MISUSED, message.into())
    }
}

impl From<std::io::Error> for Failure {
    /// Whoever reads standard output has left: there is nobody to tell.
    fn from(_: std::io::Error) -> Self {
        Self(FAILED, String::new())
    }
}

/// Runs a command and gives its exit code. The answer goes to `out`, what is wrong to `err`.
pub fn run(
    command: &RemoteCommand,
    environment: &Environment,
    out: &mut impl Write,
    err: &mut impl Write,
) -> u8 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(async {
            tokio::select! {
                result = execute(command, environment, out, err) => result,
                // Who has begun something elsewhere ends it first.
                () = interrupted(), if !matches!(command, RemoteCommand::Warm(_)) => Err(Failure::failed("interrupted")),
            }
        }),
        Err(error) => Err(Failure::failed(error.to_string())),
    };
    let Err(Failure(code, message)) = result.and_then(|()| Ok(out.flush()?)) else {
        return 0;
    };
    // What was said before may be needed to understand it.
    let _ = out.flush();
    if !message.is_empty() {
        // The exit code tells if standard error cannot be written.
        let _ = writeln!(err, "larder: {}", shown::plain(&message));
    }
    code
}

/// Ends when the process is asked to: what is half written is then taken away.
async fn interrupted() {
    let (interrupt, terminate) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    );
    let (Ok(mut interrupt), Ok(mut terminate)) = (interrupt, terminate) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// What `GET /health` of a running larder says, and what its clock shows (`Date`).
#[derive(Debug)]
pub struct Health {
    /// The answer, of status 200 or 503.
    pub page: serde_json::Value,
    /// The `Date` field.
    pub date: Option<String>,
    /// Its address, without what could be a secret.
    pub address: String,
}

/// Asks the larder that `--server` or `LARDER_URL` names how it is; `None` if neither does.
///
/// # Errors
/// Why there is no answer, for people.
pub async fn health(asked: &Asked, environment: &Environment) -> Option<Result<Health, String>> {
    if !asked.names_server(environment) {
        return None;
    }
    let health = async {
        let server = Server::new(asked, environment)?;
        server.health().await
    };
    Some(health.await.map_err(|Failure(_, message)| message))
}

async fn execute(
    command: &RemoteCommand,
    environment: &Environment,
    out: &mut impl Write,
    err: &mut impl Write,
) -> Result<(), Failure> {
    let server = Server::new(command.asked(), environment)?;
    match command {
        RemoteCommand::Du(DuFlags { repository, .. }) => {
            listing::du(&server, repository.as_deref(), out).await
        }
        RemoteCommand::Ls(LsFlags { place, .. }) => {
            listing::ls(&server, place.as_deref().unwrap_or_default(), out).await
        }
        RemoteCommand::Get(flags) => get::get(&server, flags, out).await,
        RemoteCommand::Put(flags) => put::put(&server, flags, out).await,
        RemoteCommand::Rm(RmFlags { places, .. }) => steer::rm(&server, places, out).await,
        RemoteCommand::Flush(flags) => steer::flush(&server, flags, out).await,
        RemoteCommand::Warm(flags) => {
            let is_dumb = environment.get("TERM") == Some("dumb");
            warm::warm(&server, flags, is_dumb, out, err).await
        }
        RemoteCommand::Explain(ExplainFlags { place, .. }) => {
            steer::explain(&server, place, out).await
        }
        RemoteCommand::Gc(flags) => upkeep::gc(&server, flags, out).await,
        RemoteCommand::Scrub(flags) => upkeep::scrub(&server, flags, out).await,
        RemoteCommand::Export(flags) => archive::export(&server, flags, out).await,
        RemoteCommand::Import(flags) => archive::import(&server, flags, out).await,
    }
}

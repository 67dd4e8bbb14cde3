//! Commands that ask a larder over HTTP: `ls`, `du`, `get`, `put`, `rm`, `flush`, `warm`, `explain`, `gc`, `scrub`, `export` and `import`.
//! The larder runs somewhere, or is one that the program starts over a data directory for this command alone.
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
mod upkeep;
mod warm;

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Environment;
use crate::lockfiles::Format;
use server::Server;

pub use archive::{ExportFlags, ImportFlags};
pub use server::{Asked, OwnLarder, Target};

const FAILED: u8 = 1;
const MISUSED: u8 = 2;

/// `larder du`.
#[derive(Debug, Clone, Args)]
pub struct DuFlags {
    /// One repository; all without it
    #[arg(value_name = "REPO")]
    repository: Option<String>,
    #[command(flatten)]
    target: Target,
}

/// `larder ls`.
#[derive(Debug, Clone, Args)]
pub struct LsFlags {
    /// A repository, and the beginning of paths in it; the repositories' names without it
    #[arg(value_name = "REPO[/PREFIX]")]
    place: Option<String>,
    /// List what the upstream's own index offers, and whether it is held
    #[arg(long, requires = "place")]
    upstream: bool,
    /// With --upstream: of which project, package, chart or image; of which folder of an rpm or alpine repository
    #[arg(long, value_name = "NAME", requires = "upstream")]
    name: Option<String>,
    #[command(flatten)]
    target: Target,
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
    target: Target,
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
    target: Target,
}

/// `larder rm`.
#[derive(Debug, Clone, Args)]
pub struct RmFlags {
    /// Paths of repositories, or their URLs; one that cannot be removed does not keep the others
    #[arg(value_name = "REPO/PATH", required = true)]
    places: Vec<String>,
    #[command(flatten)]
    target: Target,
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
    target: Target,
}

/// `larder warm`.
#[derive(Debug, Clone, Args)]
pub struct WarmFlags {
    /// The remote repository that shall hold it; for a Chart.lock also a virtual one, whose members shall
    #[arg(short, long, value_name = "REPO")]
    repository: String,
    /// Lock files (requirements.txt, uv.lock, pylock.toml, poetry.lock, pdm.lock, Pipfile.lock, package-lock.json, pnpm-lock.yaml, yarn.lock, bun.lock, Chart.lock), or lists of images or of URLs; - is standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// How the files are written: requirements, uv, pylock, poetry, pdm, pipfile, npm, pnpm, yarn, bun, chart, images or urls [default: what their names say]
    #[arg(long, value_name = "FORMAT", value_enum, hide_possible_values = true)]
    format: Option<Format>,
    /// Print the paths that would be fetched, and fetch nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    target: Target,
}

/// `larder explain`.
#[derive(Debug, Clone, Args)]
pub struct ExplainFlags {
    /// A path of a repository, or the URL that a client asked for
    #[arg(value_name = "URL|REPO/PATH")]
    place: String,
    #[command(flatten)]
    target: Target,
}

/// `larder gc`.
#[derive(Debug, Clone, Args)]
pub struct GcFlags {
    /// Say what would be deleted, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    target: Target,
}

/// `larder scrub`.
#[derive(Debug, Clone, Args)]
pub struct ScrubFlags {
    /// How much is read each second: bytes, or with a unit, such as 200MiB [default: 50MiB]
    #[arg(long, value_name = "BYTES", value_parser = crate::config::parse_rate, conflicts_with_all = ["status", "cancel"])]
    rate: Option<u64>,
    /// Show how far the last one has come, and what it has found; begin none
    #[arg(long, conflicts_with = "cancel")]
    status: bool,
    /// Cancel the one that is under way; what it has found stays
    #[arg(long)]
    cancel: bool,
    #[command(flatten)]
    target: Target,
}

/// A command that asks a larder.
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
    /// Which larder it asks.
    pub fn target(&self) -> &Target {
        match self {
            Self::Du(DuFlags { target, .. })
            | Self::Ls(LsFlags { target, .. })
            | Self::Get(GetFlags { target, .. })
            | Self::Put(PutFlags { target, .. })
            | Self::Rm(RmFlags { target, .. })
            | Self::Flush(FlushFlags { target, .. })
            | Self::Export(ExportFlags { target, .. })
            | Self::Import(ImportFlags { target, .. })
            | Self::Warm(WarmFlags { target, .. })
            | Self::Explain(ExplainFlags { target, .. })
            | Self::Gc(GcFlags { target, .. })
            | Self::Scrub(ScrubFlags { target, .. }) => target,
        }
    }

    /// What a larder that is started over a data directory for this command does.
    pub fn needs(&self) -> Needs {
        let online = self.target().online();
        match self {
            Self::Warm(_) => Needs {
                upstreams: true,
                jobs: true,
                makes_directory: true,
                ..Needs::default()
            },
            Self::Ls(LsFlags { upstream, .. }) => Needs {
                upstreams: *upstream || online,
                ..Needs::default()
            },
            // It asks nobody, and says of each repository what its configuration says.
            Self::Explain(_) => Needs {
                upstreams: true,
                ..Needs::default()
            },
            Self::Put(_) | Self::Import(_) => Needs {
                upstreams: online,
                makes_directory: true,
                ..Needs::default()
            },
            Self::Scrub(ScrubFlags { status, cancel, .. }) => Needs {
                upstreams: online,
                scrubs: !status && !cancel,
                ..Needs::default()
            },
            _ => Needs {
                upstreams: online,
                ..Needs::default()
            },
        }
    }

    /// Whether JSON is asked for, and standard output is not for a file's bytes.
    fn prints_json(&self) -> bool {
        let is_bytes = match self {
            Self::Get(GetFlags { output, .. }) => output
                .as_deref()
                .is_some_and(|path| path.as_os_str() == "-"),
            _ => false,
        };
        self.target().json() && !is_bytes
    }
}

/// What a larder is started with that is there for one command alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// It asks upstreams; else every remote repository is offline.
    pub upstreams: bool,
    /// It works on jobs.
    pub jobs: bool,
    /// It works on scrubs.
    pub scrubs: bool,
    /// A directory in which no larder has been yet is made one.
    pub makes_directory: bool,
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
    /// Of standard output. Where whoever reads it has left, there is nobody to tell.
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self(FAILED, String::new());
        }
        Self(FAILED, format!("cannot write standard output: {error}"))
    }
}

/// Runs a command and gives its exit code. The answer goes to `out`, what is wrong to `err`. `own`: the larder that was started for it;
/// without it the one is asked that flags and environment name.
pub fn run(
    command: &RemoteCommand,
    environment: &Environment,
    own: Option<&OwnLarder>,
    out: &mut impl Write,
    err: &mut impl Write,
) -> u8 {
    let mut out = Counted::new(out);
    let out = &mut out;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(async {
            tokio::select! {
                result = execute(command, environment, own, out, err) => result,
                // Who has begun something elsewhere ends it first.
                () = interrupted(), if !matches!(command, RemoteCommand::Warm(_)) => Err(Failure::failed("interrupted")),
            }
        }),
        Err(error) => Err(Failure::failed(error.to_string())),
    };
    let Err(Failure(code, message)) = result.and_then(|()| Ok(out.flush()?)) else {
        return 0;
    };
    // Whoever reads JSON gets some, whatever happens.
    if command.prints_json() && !out.has_any && !message.is_empty() {
        let _ = writeln!(out, "{}", serde_json::json!({"error": message}));
    }
    // What was said before may be needed to understand it.
    let _ = out.flush();
    complain(&message, err);
    code
}

/// Says why a command was not done, which never reached a larder; gives its exit code.
pub fn refuse(
    command: &RemoteCommand,
    message: &str,
    out: &mut impl Write,
    err: &mut impl Write,
) -> u8 {
    if command.prints_json() {
        let _ = writeln!(out, "{}", serde_json::json!({"error": message}));
    }
    complain(message, err);
    FAILED
}

/// The exit code tells if standard error cannot be written.
fn complain(message: &str, err: &mut impl Write) {
    if !message.is_empty() {
        let _ = writeln!(err, "larder: {}", shown::plain(message));
    }
}

/// Knows whether anything was written.
struct Counted<'w, W> {
    to: &'w mut W,
    has_any: bool,
}

impl<'w, W> Counted<'w, W> {
    fn new(to: &'w mut W) -> Self {
        Self { to, has_any: false }
    }
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.has_any = true;
        self.to.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
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
    own: Option<&OwnLarder>,
    out: &mut impl Write,
    err: &mut impl Write,
) -> Result<(), Failure> {
    let asked = command.target().asked();
    let server = match own {
        Some(own) => Server::own(own, asked.json())?,
        None => Server::new(asked, environment)?,
    };
    match command {
        RemoteCommand::Du(DuFlags { repository, .. }) => {
            listing::du(&server, repository.as_deref(), out).await
        }
        RemoteCommand::Ls(flags) => listing::ls(&server, flags, out).await,
        RemoteCommand::Get(flags) => get::get(&server, flags, out).await,
        RemoteCommand::Put(flags) => put::put(&server, flags, out).await,
        RemoteCommand::Rm(RmFlags { places, .. }) => steer::rm(&server, places, out, err).await,
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

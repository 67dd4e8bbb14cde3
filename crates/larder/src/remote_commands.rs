//! Commands that ask a running larder over HTTP: `larder du` and `larder ls`.
//!
//! Knows the API of `GET /api/v1/artifacts` and how sizes are shown to people. Exit codes: 0, 1 where the answer is an error or there is
//! none, 2 where the command line cannot be understood.

use std::io::Write;

use clap::Args;
use larder_upstream::ask;
use serde_json::Value;
use url::Url;

use crate::config::Environment;

const DEFAULT_SERVER: &str = "http://127.0.0.1:8000";
const FAILED: u8 = 1;
const MISUSED: u8 = 2;

/// Which larder is asked, and how its answer is shown.
#[derive(Debug, Clone, Args)]
pub struct Asked {
    /// Address of the larder to ask [env: LARDER_URL; a token in LARDER_TOKEN] [default: http://127.0.0.1:8000]
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

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

/// A command that asks a running larder.
#[derive(Debug, Clone)]
pub enum RemoteCommand {
    /// How much is held.
    Du(DuFlags),
    /// What is held.
    Ls(LsFlags),
}

/// Why a command ends early: the exit code, and what is said.
#[derive(Debug, PartialEq, Eq)]
struct Failure(u8, String);

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
        Ok(runtime) => runtime.block_on(execute(command, environment, out)),
        Err(error) => Err(Failure(FAILED, error.to_string())),
    };
    let Err(Failure(code, message)) = result.and_then(|()| Ok(out.flush()?)) else {
        return 0;
    };
    if !message.is_empty() {
        // The exit code tells if standard error cannot be written.
        let _ = writeln!(err, "larder: {message}");
    }
    code
}

async fn execute(
    command: &RemoteCommand,
    environment: &Environment,
    out: &mut impl Write,
) -> Result<(), Failure> {
    match command {
        RemoteCommand::Du(DuFlags { repository, asked }) => {
            let answer = Server::new(asked, environment)?
                .get(repository.as_deref(), &[("summary", "true")])
                .await?;
            if asked.json {
                return Ok(writeln!(out, "{answer}")?);
            }
            Ok(du(&answer, out)?)
        }
        RemoteCommand::Ls(LsFlags { place, asked })
            if place
                .as_deref()
                .is_none_or(|place| place.trim_matches('/').is_empty()) =>
        {
            let answer = Server::new(asked, environment)?
                .get(None, &[("summary", "true")])
                .await?;
            for repository in items(&answer, "repositories") {
                if asked.json {
                    writeln!(out, "{repository}")?;
                } else {
                    writeln!(out, "{}", text(repository, "repository"))?;
                }
            }
            Ok(())
        }
        RemoteCommand::Ls(LsFlags { place, asked }) => {
            let place = place.as_deref().unwrap_or_default().trim_start_matches('/');
            ls(&Server::new(asked, environment)?, place, asked.json, out).await
        }
    }
}

fn du(answer: &Value, out: &mut impl Write) -> std::io::Result<()> {
    let repositories = items(answer, "repositories");
    let width = repositories
        .iter()
        .map(|repository| text(repository, "repository").len())
        .max()
        .unwrap_or_default();
    let line = |name: &str, files: u64, bytes: u64| {
        format!("{name:<width$}  {files:>9} files  {:>10}", size(bytes))
    };
    for repository in repositories {
        let line = line(
            text(repository, "repository"),
            number(repository, "files"),
            number(repository, "bytes"),
        );
        writeln!(out, "{line}")?;
    }
    if let Some(stored) = answer.get("stored") {
        let (blobs, bytes) = (number(stored, "blobs"), size(number(stored, "bytes")));
        writeln!(
            out,
            "\n{bytes} on disk in {blobs} blobs: bytes that several names share once, derived forms and what is to be collected included"
        )?;
    }
    Ok(())
}

async fn ls(server: &Server, place: &str, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let (repository, prefix) = place.split_once('/').unwrap_or((place, ""));
    let pattern = format!("^{}", regex::escape(prefix));
    let mut cursor: Option<String> = None;
    loop {
        let mut query = vec![("limit", "1000"), ("pattern", &*pattern)];
        query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let page = server.get(Some(repository), &query).await?;
        for artifact in items(&page, "artifacts") {
            if json {
                writeln!(out, "{artifact}")?;
                continue;
            }
            let (bytes, at, path) = (
                size(number(artifact, "size")),
                text(artifact, "cached_at"),
                text(artifact, "path"),
            );
            writeln!(out, "{bytes:>10}  {at}  {repository}/{path}")?;
        }
        match page.get("next").and_then(Value::as_str) {
            Some(next) => cursor = Some(next.to_owned()),
            None => return Ok(()),
        }
    }
}

/// The larder that is asked.
struct Server {
    base: Url,
    token: Option<String>,
}

impl Server {
    fn new(asked: &Asked, environment: &Environment) -> Result<Self, Failure> {
        let named = asked
            .server
            .as_deref()
            .or_else(|| environment.get("LARDER_URL"))
            .unwrap_or(DEFAULT_SERVER);
        let base = Url::parse(named)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let no_address = || {
            Failure(
                MISUSED,
                format!("{named:?} is no address of a larder; it looks like {DEFAULT_SERVER}"),
            )
        };
        Ok(Self {
            base: base.ok_or_else(no_address)?,
            token: environment.get("LARDER_TOKEN").map(str::to_owned),
        })
    }

    /// `GET /api/v1/artifacts[/REPO]`.
    async fn get(
        &self,
        repository: Option<&str>,
        query: &[(&str, &str)],
    ) -> Result<Value, Failure> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments
                .pop_if_empty()
                .extend(["api", "v1", "artifacts"])
                .extend(repository);
        }
        url.query_pairs_mut().clear().extend_pairs(query);
        let shown = larder_core::SafeUrl(self.base.clone());
        let answer = ask(url, self.token.as_deref()).await;
        let (status, body) = answer
            .map_err(|error| Failure(FAILED, format!("no larder answers at {shown}: {error}")))?;
        let body: Option<Value> = serde_json::from_slice(&body).ok().filter(Value::is_object);
        match (status, body) {
            (200, Some(answer)) => Ok(answer),
            (_, Some(answer)) if answer.get("error").is_some() => {
                Err(Failure(FAILED, told(&answer)))
            }
            _ => Err(Failure(
                FAILED,
                format!(
                    "what answers at {shown} (status {status}) is no larder, or one that has no lists yet"
                ),
            )),
        }
    }
}

/// The sentence of an error's body.
fn told(answer: &Value) -> String {
    let error = answer.get("error").unwrap_or(answer);
    error
        .as_str()
        .or_else(|| error.get("message")?.as_str())
        .unwrap_or("larder refused and did not say why")
        .to_owned()
}

fn items<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value
        .get(name)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn number(value: &Value, name: &str) -> u64 {
    value.get(name).and_then(Value::as_u64).unwrap_or_default()
}

/// Bytes for people: in steps of 1,024, with one digit behind the point.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1_024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1_024.0;
    let mut units = UNITS.iter();
    let mut unit = units.next().unwrap_or(&"");
    // What would be shown as 1024.0 is one of the next unit.
    while value >= 1_023.95
        && let Some(next) = units.next()
    {
        value /= 1_024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_for_people() {
        for (bytes, shown) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (1_536, "1.5 KiB"),
            (1_048_575, "1.0 MiB"),
            (1 << 20, "1.0 MiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), shown, "{bytes}");
        }
    }

    #[test]
    fn errors_of_both_shapes_are_told() {
        assert_eq!(
            told(&serde_json::json!({"error": "a sentence", "code": "x"})),
            "a sentence"
        );
        assert_eq!(
            told(&serde_json::json!({"error": {"message": "a sentence"}})),
            "a sentence"
        );
    }

    #[test]
    fn an_address_that_is_none_is_a_mistake_of_the_command_line() {
        let asked = Asked {
            server: Some("larder.example.com:8000".into()),
            json: false,
        };
        let code = Server::new(&asked, &Environment::default())
            .err()
            .map(|failure| failure.0);
        assert_eq!(code, Some(MISUSED));
        let of_environment = Environment::of([("LARDER_URL", "https://larder.example.com/cache/")]);
        let server = Server::new(
            &Asked {
                server: None,
                json: false,
            },
            &of_environment,
        );
        assert_eq!(
            server.ok().map(|server| server.base.to_string()).as_deref(),
            Some("https://larder.example.com/cache/")
        );
    }
}

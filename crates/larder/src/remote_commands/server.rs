//! The larder that is asked: its address and token, and what is said where it refuses or is not there.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use larder_core::{RepositoryName, SafeUrl, Secret};
use larder_upstream::{Asked as Answer, Asker, NoAnswer, Sent};
use serde_json::Value;
use url::Url;

use super::place::Place;
use super::shown::text;
use super::{Failure, Health};
use crate::config::Environment;

const DEFAULT_SERVER: &str = "http://127.0.0.1:8000";
const TOKEN: &str = "LARDER_TOKEN";
const TOKEN_FILE: &str = "LARDER_TOKEN_FILE";
/// Most names of repositories that a refusal lists.
const MOST_NAMES: usize = 20;

/// Which running larder is asked, and how its answer is shown.
#[derive(Debug, Clone, Args)]
pub struct Asked {
    /// Address of the larder to ask [env: LARDER_URL] [default: http://127.0.0.1:8000]
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// File with the token that is shown to it [env: LARDER_TOKEN holds the token itself, LARDER_TOKEN_FILE names the file]
    #[arg(long, value_name = "PATH")]
    token_file: Option<PathBuf>,
    /// Print JSON: an object, or one a line where there may be many
    #[arg(long)]
    json: bool,
}

impl Asked {
    /// Whether it is said which larder is asked.
    pub(super) fn names_server(&self, environment: &Environment) -> bool {
        self.server.is_some() || environment.get("LARDER_URL").is_some()
    }

    /// Whether JSON is asked for.
    pub fn json(&self) -> bool {
        self.json
    }

    /// `--token-file`.
    pub fn token_file(&self) -> Option<&Path> {
        self.token_file.as_deref()
    }
}

/// Which larder a command is for: one that runs, or one that is there for this command alone.
#[derive(Debug, Clone, Args)]
pub struct Target {
    #[command(flatten)]
    asked: Asked,
    /// Do it in this data directory, on which no larder runs: one is started for this command alone [default: a running larder is asked]
    #[arg(long, value_name = "PATH", conflicts_with_all = ["server", "token_file"])]
    data_dir: Option<PathBuf>,
    /// With --data-dir: configuration file, or directory of *.yaml files [env: CONFIG_PATH] [default: built-in repositories]
    #[arg(short, long, value_name = "PATH", requires = "data_dir")]
    config: Option<PathBuf>,
    /// With --data-dir: ask upstreams, as a running larder does [default: only warm and ls --upstream do]
    #[arg(long, requires = "data_dir")]
    online: bool,
}

impl Target {
    /// Which running larder is asked, if it is one.
    pub(super) fn asked(&self) -> &Asked {
        &self.asked
    }

    /// Whether JSON is asked for.
    pub fn json(&self) -> bool {
        self.asked.json
    }

    /// The data directory in which the command is done; `None`: a running larder is asked.
    pub fn data_dir(&self) -> Option<&Path> {
        self.data_dir.as_deref()
    }

    /// The configuration of the larder that is started there.
    pub fn config(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// Whether it asks upstreams whatever the command is.
    pub(super) fn online(&self) -> bool {
        self.online
    }
}

/// A larder that this program has started, for one command alone.
#[derive(Debug)]
pub struct OwnLarder {
    /// Where it listens.
    pub address: SocketAddr,
    /// The token that opens what changes state.
    pub token: Secret<String>,
    /// Its data directory: what it is called in messages.
    pub directory: PathBuf,
}

/// A repository, as `GET /` describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Described {
    pub(super) kind: String,
    pub(super) package: String,
}

impl Described {
    /// `remote`, `local` or `virtual`.
    pub(super) fn kind(&self) -> &str {
        &self.kind
    }

    /// `generic`, `pypi` …
    pub(super) fn package(&self) -> &str {
        &self.package
    }

    /// Where its paths are, below larder's address.
    pub(super) fn root(&self) -> &'static [&'static str] {
        match (&*self.package, &*self.kind) {
            ("docker", _) => &["v2"],
            (_, "virtual") => &["api", "v1", "virtual"],
            _ => &["api", "v1", "remote"],
        }
    }
}

/// The larder that is asked.
pub(super) struct Server {
    pub(super) base: Url,
    pub(super) json: bool,
    token: Option<String>,
    asker: Asker,
    /// What it is called in messages, without what could be a secret.
    shown: String,
    /// Whether it is there for this command alone.
    is_own: bool,
}

impl Server {
    pub(super) fn new(asked: &Asked, environment: &Environment) -> Result<Self, Failure> {
        let named = asked
            .server
            .as_deref()
            .or_else(|| environment.get("LARDER_URL"))
            .unwrap_or(DEFAULT_SERVER);
        let base = Url::parse(named)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let base = base.ok_or_else(|| {
            // What is in front of an @ may be a password.
            let shown = named.rsplit('@').next().unwrap_or_default();
            Failure::misused(format!(
                "{shown:?} is no address of a larder; it looks like {DEFAULT_SERVER}"
            ))
        })?;
        Ok(Self {
            asker: asker(&base)?,
            shown: SafeUrl(base.clone()).to_string(),
            base,
            json: asked.json,
            token: token(asked, environment)?,
            is_own: false,
        })
    }

    /// One that was started for this command.
    pub(super) fn own(own: &OwnLarder, json: bool) -> Result<Self, Failure> {
        let base = Url::parse(&format!("http://{}/", own.address));
        let base = base.map_err(|error| Failure::failed(error.to_string()))?;
        Ok(Self {
            asker: asker(&base)?,
            base,
            json,
            token: Some(own.token.expose().clone()),
            shown: own.directory.display().to_string(),
            is_own: true,
        })
    }

    /// Sends a request to any address; the token goes to this server only.
    pub(super) async fn send(
        &self,
        method: &str,
        url: Url,
        headers: &[(&'static str, String)],
        body: Option<Sent>,
    ) -> Result<Answer, Failure> {
        let method = method
            .parse()
            .map_err(|_| Failure::misused(format!("{method} is no method")))?;
        let is_own = url.origin() == self.base.origin();
        let token = self.token.as_deref().filter(|_| is_own);
        let asker = if url.scheme() == self.base.scheme() {
            self.asker.clone()
        } else {
            asker(&url)?
        };
        let shown = if is_own {
            self.shown.clone()
        } else {
            SafeUrl(url.clone()).to_string()
        };
        let answer = asker.send(method, url, token, headers, body).await;
        answer.map_err(|error| {
            let hint = if self.is_own {
                ""
            } else {
                " (--server or LARDER_URL names another address)"
            };
            Failure::failed(format!("no larder answers at {shown}: {error}{hint}"))
        })
    }

    /// The URL of an endpoint.
    pub(super) fn url(&self, path: &[&str], query: &[(&str, &str)]) -> Url {
        let mut url = self.base.clone();
        url.set_query(None);
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    /// Asks an endpoint whose answer is JSON.
    pub(super) async fn ask(&self, method: &str, url: Url) -> Result<Value, Failure> {
        let accept = [("accept", "application/json".to_owned())];
        let answer = self.send(method, url, &accept, None).await?;
        let status = answer.status();
        let body = answer.whole().await?;
        let body: Option<Value> = serde_json::from_slice(&body).ok().filter(Value::is_object);
        match body {
            Some(answer) if matches!(status, 200 | 202) => Ok(answer),
            body => Err(self.refused(status, body.as_ref()).await),
        }
    }

    /// Sends JSON to an endpoint that answers with JSON.
    pub(super) async fn post(&self, url: Url, body: &Value) -> Result<Value, Failure> {
        let headers = [
            ("accept", "application/json".to_owned()),
            ("content-type", "application/json".to_owned()),
        ];
        let body = body.to_string().into_bytes();
        let sent = Sent {
            length: Some(body.len() as u64),
            from: Box::new(std::io::Cursor::new(body)),
            seen: Box::new(|_| {}),
        };
        let answer = self.send("POST", url, &headers, Some(sent)).await?;
        let status = answer.status();
        let body = answer.whole().await?;
        let body: Option<Value> = serde_json::from_slice(&body).ok().filter(Value::is_object);
        match body {
            Some(answer) if matches!(status, 200..=202) => Ok(answer),
            body => Err(self.refused(status, body.as_ref()).await),
        }
    }

    /// `GET /health`, whatever it comes to.
    pub(super) async fn health(&self) -> Result<Health, Failure> {
        let accept = [("accept", "application/json".to_owned())];
        let url = self.url(&["health"], &[]);
        let answer = self.send("GET", url, &accept, None).await?;
        let (status, date) = (answer.status(), answer.header("date").map(str::to_owned));
        let body = answer.whole().await?;
        let body: Option<Value> = serde_json::from_slice(&body).ok();
        match body {
            Some(page) if page.get("backends").is_some() => Ok(Health {
                page,
                date,
                address: self.shown.clone(),
            }),
            body => Err(self.refused(status, body.as_ref()).await),
        }
    }

    /// `GET /api/v1/artifacts[/REPO]`.
    pub(super) async fn artifacts(
        &self,
        repository: Option<&str>,
        query: &[(&str, &str)],
    ) -> Result<Value, Failure> {
        if let Some(name) = repository.filter(|name| RepositoryName::parse(name).is_err()) {
            // In a URL `.` and `..` would mean something else. Says which there are.
            self.repository(name).await?;
        }
        let path: Vec<&str> = ["api", "v1", "artifacts"]
            .into_iter()
            .chain(repository)
            .collect();
        self.ask("GET", self.url(&path, query)).await
    }

    /// All repositories by name.
    pub(super) async fn repositories(&self) -> Result<BTreeMap<String, Described>, Failure> {
        let root = self.ask("GET", self.url(&[""], &[])).await?;
        let all = root.get("remotes").and_then(Value::as_object);
        let described = |value: &Value| Described {
            kind: text(value, "type").to_owned(),
            package: text(value, "package").to_owned(),
        };
        let all = all.into_iter().flatten();
        Ok(all
            .map(|(name, value)| (name.clone(), described(value)))
            .collect())
    }

    /// The repository of this name; if there is none, what is said names those that there are.
    pub(super) async fn repository(&self, name: &str) -> Result<Described, Failure> {
        let mut all = self.repositories().await?;
        all.remove(name).ok_or_else(|| {
            let names: Vec<&str> = all.keys().map(String::as_str).collect();
            let (at, hint) = (&self.shown, self.hint());
            Failure::failed(format!(
                "there is no repository {name:?} at {at}; it has {}{hint}",
                listed(&names)
            ))
        })
    }

    /// Where the bytes of a path are.
    pub(super) async fn artifact(&self, place: &Place) -> Result<Url, Failure> {
        let repository = self.repository(&place.repository).await?;
        Ok(place.below(&self.base, repository.root()))
    }

    /// Why the answer of this status is none that was asked for, and what to do.
    pub(super) async fn refused(&self, status: u16, answer: Option<&Value>) -> Failure {
        let at = &self.shown;
        let said =
            answer.filter(|answer| answer.get("error").is_some() || answer.get("errors").is_some());
        let Some(answer) = said else {
            return Failure::failed(format!(
                "what answers at {at} (status {status}) is no larder, or one that does not know this request"
            ));
        };
        let mut message = told(answer);
        if status == 401 {
            message.push_str(match self.token {
                None => "; set LARDER_TOKEN to a token, or name its file with --token-file",
                Some(_) => "; the token in LARDER_TOKEN (or --token-file) was refused",
            });
        }
        if self.is_own && text(answer, "code") == "offline" {
            message.push_str("; with --online the upstream is asked");
        }
        if text(answer, "code") == "unknown_repository"
            && let Ok(all) = Box::pin(self.repositories()).await
        {
            let names: Vec<&str> = all.keys().map(String::as_str).collect();
            let hint = self.hint();
            message = format!("{message}; this larder has {}{hint}", listed(&names));
        }
        Failure::failed(message)
    }

    /// What to do where a repository is not there.
    fn hint(&self) -> &'static str {
        if self.is_own {
            " (--config names the configuration)"
        } else {
            ""
        }
    }

    /// As [`refused`](Self::refused), of an answer whose body is still to be read.
    pub(super) async fn refusal(&self, answer: Answer) -> Failure {
        let status = answer.status();
        match answer.whole().await {
            Ok(body) => {
                let body: Option<Value> = serde_json::from_slice(&body).ok();
                self.refused(status, body.as_ref()).await
            }
            Err(error) => error.into(),
        }
    }
}

impl From<NoAnswer> for Failure {
    /// Of an answer whose head has arrived.
    fn from(error: NoAnswer) -> Self {
        Self::failed(format!("the answer broke off: {error}"))
    }
}

fn asker(of: &Url) -> Result<Asker, Failure> {
    Asker::new(of).map_err(|error| Failure::failed(error.to_string()))
}

fn listed(names: &[&str]) -> String {
    match names {
        [] => "no repositories".to_owned(),
        names if names.len() > MOST_NAMES => format!(
            "{} and {} more",
            names[..MOST_NAMES].join(", "),
            names.len() - MOST_NAMES
        ),
        names => names.join(", "),
    }
}

/// The token that is shown: never on the command line, where every user of the machine could read it.
fn token(asked: &Asked, environment: &Environment) -> Result<Option<String>, Failure> {
    let variable = environment.get(TOKEN_FILE);
    let (path, whence) = match (&asked.token_file, variable) {
        (Some(path), _) => (path.clone(), "--token-file"),
        (None, Some(_)) if environment.get(TOKEN).is_some() => {
            return Err(Failure::misused(format!(
                "{TOKEN} and {TOKEN_FILE} are both set: which of them counts? Unset one"
            )));
        }
        (None, Some(path)) => (PathBuf::from(path), TOKEN_FILE),
        (None, None) => return usable(environment.get(TOKEN).map(str::to_owned), TOKEN),
    };
    let text = std::fs::read_to_string(&path).map_err(|error| {
        Failure::misused(format!("{whence}: cannot read {}: {error}", path.display()))
    })?;
    usable(Some(text.trim().to_owned()), whence)
}

/// RFC 6750 section 2.1: what may follow `Bearer`.
fn usable(token: Option<String>, whence: &str) -> Result<Option<String>, Failure> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
    match token {
        Some(token) if token.is_empty() || !token.bytes().all(legal) => Err(Failure::misused(
            format!("{whence} holds no token: that is letters, digits and - . _ ~ + / ="),
        )),
        token => Ok(token),
    }
}

/// The sentence of an error's body: larder's own, or the OCI form.
fn told(answer: &Value) -> String {
    let first = answer.pointer("/errors/0");
    let error = first.or_else(|| answer.get("error")).unwrap_or(answer);
    error
        .as_str()
        .or_else(|| error.get("message")?.as_str())
        .unwrap_or("larder refused and did not say why")
        .to_owned()
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;

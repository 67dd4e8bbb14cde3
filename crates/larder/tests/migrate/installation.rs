//! An installation that is copied: upstreams, a configuration, what clients have got of it, and the backends that it may be copied to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use larder_core::sha256;
use larder_testkit::servers::S3Server;
use larder_testkit::servers::postgres::{PASSWORD, Postgres, USER};
use larder_testkit::{Origin, Payload, Resource};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::client::client;
use crate::support::packages::{File, entry, npm, pypi_json};
use crate::support::{Setup, TestLarder, get};

/// Which backends are configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct With {
    pub(crate) database: bool,
    pub(crate) objects: bool,
}

pub(crate) const EMBEDDED: With = With {
    database: false,
    objects: false,
};
pub(crate) const BACKENDS: With = With {
    database: true,
    objects: true,
};

/// Everything that a test has to do with.
pub(crate) struct Installation {
    pub(crate) origin: Origin,
    cdn: Origin,
    pub(crate) postgres: &'static Postgres,
    pub(crate) database: String,
    pub(crate) objects: S3Server,
    home: TempDir,
}

/// What a client has got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Served {
    status: u16,
    etag: String,
    content_type: String,
    pub(crate) body: Vec<u8>,
}

/// What clients have got, by repository and path.
pub(crate) type All = BTreeMap<(String, String), Served>;

fn bytes(length: u64, seed: u64) -> Vec<u8> {
    Payload::generated(length, seed).slice(0, length).to_vec()
}

/// The uploaded files: one goes up to a store in parts, two have the same bytes, one has none.
pub(crate) fn uploads() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("a/small.txt", b"uploaded".to_vec()),
        ("a/again.txt", b"uploaded".to_vec()),
        ("big.bin", bytes(9 << 20, 7)),
        ("empty", Vec::new()),
        ("it's (a) name.txt", bytes(3_000, 8)),
    ]
}

impl Installation {
    pub(crate) async fn new() -> Self {
        let (origin, cdn) = (Origin::start().await, Origin::start().await);
        let wheels: Vec<File> = (1..=3)
            .map(|n| File::generated("pantry", &format!("1.{n}"), 100_000 * n, n))
            .collect();
        pypi_json(&origin, "pantry", &wheels);
        npm(
            &origin,
            "pan",
            &[File::generated("pan", "1.0.0", 50_000, 4)],
        );
        let (own, far) = (bytes(20_000, 5), bytes(30_000, 6));
        let version = |body: &[u8], url: String| json!([{"name": "chart", "version": "1.0.0", "digest": sha256(body).to_hex(), "urls": [url]}]);
        let index = json!({"apiVersion": "v1", "entries": {
            "own": version(&own, "charts/own-1.0.0.tgz".to_owned()),
            "far": version(&far, cdn.url("/far-1.0.0.tgz")),
        }});
        let index = Resource::new(index.to_string()).content_type("text/yaml");
        origin.put("/index.yaml", index.etag("\"index-1\""));
        origin.put("/charts/own-1.0.0.tgz", Resource::new(own));
        cdn.put("/far-1.0.0.tgz", Resource::new(far));
        let postgres = Postgres::shared();
        Self {
            database: postgres.database(),
            objects: S3Server::start().await,
            origin,
            cdn,
            postgres,
            home: tempfile::tempdir().expect("a directory"),
        }
    }

    /// A data directory of this installation.
    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn config(&self) -> String {
        let keys = "allow_private: [127.0.0.0/8]";
        let remotes =
            ["pypi", "npm", "helm"].map(|package| entry(package, package, &self.origin, keys));
        format!("remotes:\n{}  own: {{ type: local }}\n", remotes.concat())
    }

    /// The variables of these backends; the others are set to nothing.
    fn variables(&self, with: With) -> Vec<(&'static str, String)> {
        let when = |is_there: bool, value: &str| {
            if is_there {
                value.to_owned()
            } else {
                String::new()
            }
        };
        let port = self.postgres.port().to_string();
        vec![
            ("LARDER_PUBLIC_URL", "http://larder.example.com".to_owned()),
            ("DBHOST", when(with.database, "127.0.0.1")),
            ("DBPORT", when(with.database, &port)),
            ("DBUSER", when(with.database, USER)),
            ("DBPASS", when(with.database, PASSWORD)),
            ("DBNAME", when(with.database, &self.database)),
            (
                "MINIO_ENDPOINT",
                when(with.objects, &self.objects.endpoint()),
            ),
            ("MINIO_SECURE", when(with.objects, "false")),
            ("MINIO_BUCKET", when(with.objects, S3Server::BUCKET)),
            ("MINIO_ACCESS_KEY", when(with.objects, S3Server::ACCESS_KEY)),
            ("MINIO_SECRET_KEY", when(with.objects, S3Server::SECRET_KEY)),
        ]
    }

    /// A larder over these backends, with this data directory.
    pub(crate) fn setup(&self, directory: &Path, with: With) -> Setup {
        let variables = self.variables(with);
        let setup = variables
            .iter()
            .fold(Setup::new(&self.config()), |setup, (name, value)| {
                setup.env(name, value)
            });
        setup.env("LARDER_DATA_DIR", &directory.display().to_string())
    }

    fn command(&self, directory: &Path, with: With, name: &str, arguments: &[&str]) -> Command {
        let config = self.home.path().join("larder.yaml");
        std::fs::write(&config, self.config()).expect("a configuration file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
        command
            .arg(name)
            .args(arguments)
            .env_clear()
            .envs(self.variables(with))
            .env("HOME", self.home.path())
            .env("CONFIG_PATH", config)
            .env("LARDER_DATA_DIR", directory)
            .stdin(Stdio::null());
        command
    }

    /// Migrates to the end.
    pub(crate) fn migrate(&self, directory: &Path, with: With, arguments: &[&str]) -> Migrated {
        let output = self.command(directory, with, "migrate", arguments).output();
        Migrated::of(&output.expect("the larder program"))
    }

    /// Asks whether a larder would start.
    pub(crate) fn check(&self, directory: &Path, with: With) -> Migrated {
        let mut command = self.command(directory, with, "check", &[]);
        command.env("LARDER_LISTEN", "127.0.0.1:0");
        Migrated::of(&command.output().expect("the larder program"))
    }

    /// Starts to migrate.
    pub(crate) fn begin(&self, directory: &Path, with: With, arguments: &[&str]) -> Child {
        let mut command = self.command(directory, with, "migrate", arguments);
        let said = std::fs::File::create(self.said_path()).expect("a file");
        command.stdout(Stdio::null()).stderr(said);
        command.spawn().expect("the larder program")
    }

    fn said_path(&self) -> PathBuf {
        self.home.path().join("said")
    }

    /// What the last one that was begun has said.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(self.said_path()).unwrap_or_default()
    }

    /// Fills a larder: every file of every remote is asked for, and files are uploaded. Gives what clients got.
    pub(crate) async fn fill(&self, larder: &TestLarder) -> All {
        for (path, body) in uploads() {
            let request = client().put(larder.artifact("own", path)).body(body);
            let answer = request.header("content-type", "text/x-larder").send().await;
            assert_eq!(answer.expect("an answer").status(), 201, "{path}");
        }
        let index = get(&larder.artifact("helm", "index.yaml")).await.text();
        let far = index.find("_ext/").expect("a signed link");
        let far = index[far..].split(['"', '\n', ' ']).next();
        let mut paths = vec![
            ("pypi", "simple/pantry/".to_owned()),
            ("npm", "pan".to_owned()),
            ("npm", "pan/-/pan-1.0.0.tgz".to_owned()),
            ("helm", "index.yaml".to_owned()),
            ("helm", "charts/own-1.0.0.tgz".to_owned()),
            ("helm", far.expect("a link").to_owned()),
        ];
        paths.extend((1..=3).map(|n| ("pypi", format!("pool/pantry-1.{n}-py3-none-any.whl"))));
        paths.extend(
            uploads()
                .iter()
                .map(|(path, _)| ("own", (*path).to_owned())),
        );
        for (repository, path) in &paths {
            let first = get(&larder.artifact(repository, path)).await;
            assert_eq!(first.status, 200, "{repository}/{path}: {}", first.text());
        }
        larder.until_idle().await;
        let all = paths
            .iter()
            .map(|(repository, path)| ((*repository).to_owned(), path.clone()));
        ask(larder, all).await
    }

    /// Ends the upstreams: what is served from now on is what is held.
    pub(crate) async fn stop_upstreams(&mut self) {
        self.origin.stop().await;
        self.cdn.stop().await;
    }
}

/// Asks for what was asked for before, and compares.
pub(crate) async fn check(larder: &TestLarder, all: &All) {
    let now = ask(larder, all.keys().cloned()).await;
    for (key, served) in all {
        let (was, is) = (served, &now[key]);
        assert_eq!(
            (was.status, &was.etag, &was.content_type),
            (is.status, &is.etag, &is.content_type),
            "{key:?}: {}",
            String::from_utf8_lossy(&is.body)
        );
        assert!(was.body == is.body, "{key:?}: other bytes");
    }
}

async fn ask(larder: &TestLarder, keys: impl Iterator<Item = (String, String)>) -> All {
    let mut all = All::new();
    for (repository, path) in keys {
        let answer = get(&larder.artifact(&repository, &path)).await;
        let served = Served {
            status: answer.status,
            etag: answer.header("etag").to_owned(),
            content_type: answer.header("content-type").to_owned(),
            body: answer.body,
        };
        all.insert((repository, path), served);
    }
    all
}

/// What came of a migration.
#[derive(Debug)]
pub(crate) struct Migrated {
    pub(crate) status: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Migrated {
    fn of(output: &Output) -> Self {
        Self {
            status: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// With this exit status.
    pub(crate) fn ended(self, status: i32) -> Self {
        assert_eq!(self.status, Some(status), "{}\n{}", self.out, self.err);
        self
    }

    /// The summary.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {}\n{}", self.out, self.err))
    }

    /// How many rows of a table the summary says that there are, and that were written.
    pub(crate) fn rows(&self, table: &str) -> (u64, u64) {
        let json = self.json();
        let tables = json["tables"].as_array().expect("tables");
        let found = tables.iter().find(|row| row["table"] == table);
        let found = found.unwrap_or_else(|| panic!("{table}: {json}"));
        let number = |name: &str| found[name].as_u64().expect("a number");
        (number("rows"), number("written"))
    }
}

/// All files below a directory with their digests, but for the lock.
pub(crate) fn contents(directory: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(folder) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.file_name().is_some_and(|name| name != "larder.lock") {
                let name = path.strip_prefix(directory).expect("below it");
                let bytes = std::fs::read(&path).expect("a file");
                found.insert(name.display().to_string(), sha256(&bytes).to_hex());
            }
        }
    }
    found
}

/// Where the blob with these bytes is.
pub(crate) fn blob(directory: &Path, body: &[u8]) -> PathBuf {
    let hex = sha256(body).to_hex();
    directory
        .join("blobs/sha256")
        .join(&hex[..2])
        .join(&hex[2..4])
        .join(&hex)
}

/// Flips a bit of a file.
pub(crate) fn spoil(path: &Path) {
    let mut bytes =
        std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).expect("written");
}

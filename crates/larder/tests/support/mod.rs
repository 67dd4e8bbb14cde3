//! The real program, driven from outside: as a process, over loopback, by what operators have (files, environment, signals).
//!
//! [`TestLarder`] is one such process with its own data directory. [`client`] asks it, [`packages`] fills the upstreams behind it.
//! Knows nothing of larder's insides.
#![allow(
    dead_code,
    unused_imports,
    reason = "each test file uses its own part of this"
)]

pub(crate) mod client;
pub(crate) mod packages;

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(crate) use client::{Answer, get, raw, send};
use larder_testkit::servers::postgres::{PASSWORD, Postgres, USER};
use rustix::process::{Pid, Signal};

/// How long anything that must happen may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The program that the tests start; by default the one of this build.
const PROGRAM: &str = "LARDER_TEST_PROGRAM";

fn program() -> PathBuf {
    let built = || env!("CARGO_BIN_EXE_larder").into();
    std::env::var_os(PROGRAM).map_or_else(built, PathBuf::from)
}

/// Set to `postgresql`, it runs every test over PostgreSQL that does not ask for a database of its own.
const DATABASE: &str = "LARDER_TEST_DATABASE";

/// `NAME=VALUE` pairs with spaces between them, for every test that names no backend of its own: where Redis and an S3 store are
/// (`tests/over_backends.py` starts them). Each larder has a folder of the bucket to itself.
const BACKENDS: &str = "LARDER_TEST_BACKENDS";

/// What a process is started with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Setup {
    config: Option<String>,
    environment: Vec<(String, String)>,
    arguments: Vec<String>,
    open_files: Option<u32>,
    /// What the file has beside `config`.
    more: String,
    program: Option<PathBuf>,
    is_embedded: bool,
}

impl Setup {
    /// With this configuration file.
    pub(crate) fn new(config: &str) -> Self {
        Self {
            config: Some(config.to_owned()),
            ..Self::default()
        }
    }

    /// Without any.
    pub(crate) fn without_config() -> Self {
        Self::default()
    }

    /// One more environment variable.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// One more argument.
    pub(crate) fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// With no more open files than this.
    pub(crate) fn open_files(mut self, most: u32) -> Self {
        self.open_files = Some(most);
        self
    }

    /// With another program than the one of this build: an older one.
    pub(crate) fn program(mut self, program: PathBuf) -> Self {
        self.program = Some(program);
        self
    }

    /// With all that it keeps in its data directory, whatever [`DATABASE`] and [`BACKENDS`] say: for tests of what stands in there.
    pub(crate) fn embedded(mut self) -> Self {
        self.is_embedded = true;
        self
    }

    /// Starts it, and waits until it answers.
    pub(crate) async fn start(self) -> TestLarder {
        let mut larder = self.prepare();
        larder.launch().await;
        larder
    }

    /// Starts it, and does not wait for anything.
    pub(crate) fn spawned(self) -> TestLarder {
        let mut larder = self.prepare();
        larder.spawn();
        larder
    }

    /// Starts it and waits for its end: for configurations that it must refuse.
    pub(crate) fn run_to_end(self) -> (ExitStatus, String) {
        let mut larder = self.prepare();
        larder.spawn();
        let status = larder.wait();
        (status, larder.log())
    }

    /// With a database of its own on PostgreSQL.
    pub(crate) fn on_postgres(self, server: &Postgres) -> Self {
        let database = server.database();
        self.env("DBHOST", "127.0.0.1")
            .env("DBPORT", &server.port().to_string())
            .env("DBUSER", USER)
            .env("DBPASS", PASSWORD)
            .env("DBNAME", &database)
    }

    /// Over the servers that [`BACKENDS`] names, unless the test has chosen.
    fn on_backends(mut self) -> Self {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let chosen = ["DBHOST", "REDIS_URL", "MINIO_ENDPOINT"];
        let is_placed = self.is_embedded
            || self
                .environment
                .iter()
                .any(|(name, _)| chosen.contains(&&**name));
        let Some(pairs) = std::env::var_os(BACKENDS) else {
            return self;
        };
        let pairs = pairs.to_string_lossy();
        let own = self.config.as_deref().unwrap_or_default();
        if is_placed || own.starts_with("s3:") || own.contains("\ns3:") {
            return self;
        }
        let has_file = self.config.is_some();
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        self.more = format!(
            "s3: {{ prefix: 'tests/{}/{number}/' }}\n",
            std::process::id()
        );
        let pairs = pairs
            .split_whitespace()
            .filter_map(|pair| pair.split_once('='));
        // The folder is named in the file: without one only Redis is shared.
        let pairs = pairs.filter(|(name, _)| has_file || !name.starts_with("MINIO_"));
        self.environment
            .extend(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
        self
    }

    /// The configuration as it is written: with the wait before a stop left out, which tests that are not about it need not sit through.
    fn completed(&self, config: &str) -> String {
        let end = if config.ends_with('\n') { "" } else { "\n" };
        let drain = if config.starts_with("drain:") || config.contains("\ndrain:") {
            ""
        } else {
            "drain: 0\n"
        };
        format!("{config}{end}{drain}{}", self.more)
    }

    fn prepare(self) -> TestLarder {
        let mut setup = self.on_backends();
        let is_placed =
            setup.is_embedded || setup.environment.iter().any(|(name, _)| name == "DBHOST");
        if !is_placed && std::env::var_os(DATABASE).is_some_and(|kind| kind == "postgresql") {
            setup = setup.on_postgres(Postgres::shared());
        }
        let home = tempfile::tempdir().expect("a temporary directory");
        if let Some(config) = &setup.config {
            std::fs::write(home.path().join("larder.yaml"), setup.completed(config))
                .expect("a configuration file");
        }
        TestLarder {
            setup,
            home,
            child: None,
            address: None,
            launches: 0,
            started: Instant::now(),
        }
    }
}

/// A larder process on a free loopback port. Dropping it ends the process, and shows its log if the test fails.
#[derive(Debug)]
pub(crate) struct TestLarder {
    setup: Setup,
    home: tempfile::TempDir,
    child: Option<Child>,
    address: Option<SocketAddr>,
    launches: u32,
    started: Instant,
}

impl TestLarder {
    /// Starts with this configuration file, and waits until it answers.
    pub(crate) async fn start(config: &str) -> Self {
        Setup::new(config).start().await
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address.expect("started")
    }

    /// The absolute URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        let scheme = if self
            .setup
            .config
            .as_deref()
            .is_some_and(|config| config.contains("\ntls:"))
        {
            "https"
        } else {
            "http"
        };
        format!(
            "{scheme}://{}/{}",
            self.address(),
            path.trim_start_matches('/')
        )
    }

    /// The URL of a path in a repository.
    pub(crate) fn artifact(&self, repository: &str, path: &str) -> String {
        self.url(&format!("api/v1/remote/{repository}/{path}"))
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("running").id()
    }

    /// The configuration file.
    pub(crate) fn config_path(&self) -> PathBuf {
        self.home.path().join("larder.yaml")
    }

    /// Where it keeps files and database.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// Where the files of its blobs are: all of them, or those that its tier holds of the ones in an S3 store.
    pub(crate) fn blob_dir(&self) -> PathBuf {
        let folder = if self.has_objects() { "tier" } else { "blobs" };
        self.data_dir().join(folder)
    }

    /// Whether its blobs are in an S3 store.
    pub(crate) fn has_objects(&self) -> bool {
        let environment = &self.setup.environment;
        environment.iter().any(|(name, _)| name == "MINIO_ENDPOINT")
    }

    /// Its directory, with room for files that a configuration names.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Writes the configuration file anew.
    pub(crate) fn write_config(&mut self, config: &str) {
        std::fs::write(self.config_path(), self.setup.completed(config))
            .expect("a configuration file");
        self.setup.config = Some(config.to_owned());
    }

    /// Kills it as a power cut would: nothing is finished, nothing is told.
    pub(crate) fn kill9(&mut self) {
        let mut child = self.child.take().expect("running");
        child.kill().expect("SIGKILL");
        let status = child.wait().expect("its end");
        assert_eq!(
            status.signal(),
            Some(9),
            "it had ended before: {status}\n{}",
            self.log()
        );
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().cast_signed()).expect("a process id");
        rustix::process::kill_process(pid, signal).expect("a signal");
    }

    /// Asks it to end, and waits.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Whether it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child
            .as_mut()
            .expect("started")
            .try_wait()
            .expect("its state")
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = self.ended() {
                self.child = None;
                return status;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("larder does not end:\n{}", self.log());
    }

    /// Starts it again on the same data directory; gives the time from its start to its first answer.
    pub(crate) async fn restart(&mut self) -> Duration {
        assert!(self.child.is_none(), "end it first");
        self.launch().await;
        self.started.elapsed()
    }

    /// Starts the process, and does not wait for anything.
    pub(crate) fn spawn(&mut self) {
        self.launches += 1;
        self.address = None;
        let log = std::fs::File::create(self.log_path()).expect("a log file");
        let program = self.setup.program.clone().unwrap_or_else(program);
        let mut command = match self.setup.open_files {
            None => Command::new(&program),
            Some(most) => {
                let mut shell = Command::new("/bin/sh");
                let line = format!("ulimit -n {most} && exec \"$0\" \"$@\"");
                shell.args(["-c", &line]).arg(&program);
                shell
            }
        };
        command
            .args(&self.setup.arguments)
            .env_clear()
            .current_dir(self.home.path());
        command
            .env("HOME", self.home.path())
            .env("LARDER_LISTEN", "127.0.0.1:0")
            .env("LARDER_DATA_DIR", self.data_dir());
        if self.setup.config.is_some() {
            command.env("CONFIG_PATH", self.config_path());
        }
        command.envs(
            self.setup
                .environment
                .iter()
                .map(|(name, value)| (name, value)),
        );
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        self.started = Instant::now();
        self.child = Some(command.spawn().expect("the larder program"));
    }

    async fn launch(&mut self) {
        self.spawn();
        let until = self.started + PATIENCE;
        loop {
            if let Some(status) = self.ended() {
                self.child = None;
                panic!("larder did not start ({status}):\n{}", self.log());
            }
            self.address = listening(&self.log());
            if self.address.is_some()
                && client::get_timeout(&self.url("/live"))
                    .await
                    .is_some_and(|answer| answer.status == 200)
            {
                return;
            }
            assert!(
                Instant::now() < until,
                "larder does not answer:\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// What the present process has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Waits until the log says this.
    pub(crate) async fn logged(&self, text: &str) {
        let until = Instant::now() + PATIENCE;
        while !self.log().contains(text) {
            assert!(Instant::now() < until, "not logged: {text}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn log_path(&self) -> PathBuf {
        self.home.path().join(format!("{}.log", self.launches))
    }

    /// The most memory that the process has had resident so far, in MiB.
    pub(crate) fn peak_memory(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// The memory that the process has resident now, in MiB.
    pub(crate) fn resident_memory(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// A line of the kernel's status of the process, in MiB.
    pub(crate) fn memory(&self, line: &str) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("its status");
        let rest = status
            .lines()
            .find_map(|l| l.strip_prefix(line))
            .expect("a line of memory");
        rest.trim()
            .trim_end_matches(" kB")
            .parse::<u64>()
            .expect("a number")
            / 1024
    }

    /// GET until the answer comes from the cache: right after a download the same request may still join it, whose commit is
    /// under way (contract, section 3, "Durability").
    pub(crate) async fn hit(&self, url: &str) -> Answer {
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = get(url).await;
            if answer.source() != "remote" || Instant::now() > until {
                assert_eq!(
                    answer.source(),
                    "cache",
                    "{url}: {} {}",
                    answer.status,
                    answer.text()
                );
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A counter of `/metrics`: the sum over all samples of this name whose labels hold `label`.
    pub(crate) async fn metric(&self, name: &str, label: &str) -> f64 {
        let text = get(&self.url("/metrics")).await.text();
        let samples = text
            .lines()
            .filter(|line| line.split(['{', ' ']).next() == Some(name) && line.contains(label));
        samples
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Waits until no download is running, nor on its way to the disk.
    pub(crate) async fn until_idle(&self) {
        let until = Instant::now() + PATIENCE;
        while self.metric("larder_downloads_in_flight", "").await > 0.0 {
            assert!(Instant::now() < until, "downloads do not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until a repository's counter has reached `least`.
    pub(crate) async fn until_metric(&self, name: &str, repository: &str, least: f64) {
        let until = Instant::now() + PATIENCE;
        let label = format!("repository=\"{repository}\"");
        while self.metric(name, &label).await < least {
            assert!(
                Instant::now() < until,
                "{name} of {repository} does not reach {least}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for TestLarder {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself; what matters is that nothing is left.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<String> = log
                .lines()
                .map(|line| line.chars().take(400).collect())
                .collect();
            eprintln!(
                "the last lines of larder's log:\n{}",
                lines[lines.len().saturating_sub(30)..].join("\n")
            );
        }
    }
}

/// The address in the line that larder logs once it listens.
fn listening(log: &str) -> Option<SocketAddr> {
    let rest = log.split("listening on http").nth(1)?;
    let rest = rest.trim_start_matches("s://").trim_start_matches("://");
    rest.split(['"', ' ']).next()?.trim().parse().ok()
}

/// Runs `larder check` on a configuration text: whether it may start, and what was said.
pub(crate) fn check(config: &str) -> (bool, String) {
    let home = tempfile::tempdir().expect("a temporary directory");
    let path = home.path().join("larder.yaml");
    std::fs::write(&path, config).expect("a configuration file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    command
        .env_clear()
        .env("HOME", home.path())
        .env("LARDER_LISTEN", "127.0.0.1:0")
        .args(["check", "--config"])
        .arg(&path);
    let output = command.output().expect("the larder program");
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

//! One set-up: files, environment and flags in a directory of its own, and the program run on it.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long anything that must happen may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What stands for the directory of a set-up in its texts.
pub(crate) const HOME: &str = "@HOME@";

/// A set-up, and the words that must be said of it.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    config: Option<String>,
    files: Vec<(&'static str, Vec<u8>)>,
    directories: Vec<&'static str>,
    environment: Vec<(&'static str, String)>,
    arguments: Vec<String>,
    user: Option<u32>,
    pub(crate) words: Vec<&'static str>,
}

impl Case {
    /// With this configuration file, or with none if it is empty.
    pub(crate) fn new(name: &'static str, config: &str, words: &[&'static str]) -> Self {
        let config = (!config.is_empty()).then(|| config.to_owned());
        let (files, directories, environment, arguments) = Default::default();
        Self {
            name,
            config,
            files,
            directories,
            environment,
            arguments,
            user: None,
            words: words.to_vec(),
        }
    }

    /// One repository with these keys.
    pub(crate) fn repository(name: &'static str, keys: &str, words: &[&'static str]) -> Self {
        Self::new(
            name,
            &format!("remotes:\n  files:\n    base_url: http://files.example.com\n    {keys}\n"),
            words,
        )
    }

    pub(crate) fn file(mut self, name: &'static str, content: impl Into<Vec<u8>>) -> Self {
        self.files.push((name, content.into()));
        self
    }

    pub(crate) fn directory(mut self, name: &'static str) -> Self {
        self.directories.push(name);
        self
    }

    pub(crate) fn env(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    pub(crate) fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments
            .extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// Runs larder as this user, which only root may.
    pub(crate) fn user(mut self, user: u32) -> Self {
        self.user = Some(user);
        self
    }

    /// Puts it on the disk.
    pub(crate) fn lay_out(&self) -> tempfile::TempDir {
        let home = tempfile::tempdir().expect("a temporary directory");
        if let Some(config) = &self.config {
            std::fs::write(
                home.path().join("larder.yaml"),
                self.filled(config, home.path()),
            )
            .expect("written");
        }
        for name in &self.directories {
            std::fs::create_dir_all(home.path().join(name)).expect("a directory");
        }
        for (name, content) in &self.files {
            let path = home.path().join(name);
            std::fs::create_dir_all(path.parent().expect("within")).expect("directories");
            std::fs::write(path, content).expect("written");
        }
        home
    }

    #[expect(clippy::unused_self, reason = "reads like the rest")]
    fn filled(&self, text: &str, home: &Path) -> String {
        text.replace(HOME, &home.display().to_string())
    }

    fn command(&self, home: &Path, command: &str) -> Command {
        let mut larder = Command::new(env!("CARGO_BIN_EXE_larder"));
        larder
            .env_clear()
            .current_dir(home)
            .env("HOME", home)
            .stdin(Stdio::null())
            .arg(command);
        if let Some(user) = self.user {
            larder.uid(user).gid(user);
        }
        let config = self.config.clone().unwrap_or_default();
        let says = |key: &str, flag: &str| {
            config.contains(key) || self.arguments.iter().any(|argument| argument == flag)
        };
        if self.config.is_some() {
            larder.arg("--config").arg(home.join("larder.yaml"));
        }
        if !says("listen:", "--listen") {
            larder.args(["--listen", "127.0.0.1:0"]);
        }
        if !says("data_dir:", "--data-dir") {
            larder.arg("--data-dir").arg(home.join("data"));
        }
        larder.args(
            self.arguments
                .iter()
                .map(|argument| self.filled(argument, home)),
        );
        larder.envs(
            self.environment
                .iter()
                .map(|(name, value)| (name, self.filled(value, home))),
        );
        larder
    }

    /// `larder check`: whether it finds nothing, its exit status, and what it says.
    pub(crate) fn check(&self, home: &Path) -> (Option<i32>, String) {
        let output = self
            .command(home, "check")
            .output()
            .expect("the larder program");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    }

    /// `larder serve`, until it listens or ends.
    pub(crate) fn start(&self, home: &Path) -> Started {
        let log = home.join("start.log");
        let stderr = std::fs::File::create(&log).expect("a log file");
        let child = self
            .command(home, "serve")
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("the larder program");
        let mut started = Started {
            child,
            log,
            ended: None,
        };
        let until = Instant::now() + PATIENCE;
        while started.ended.is_none() && !started.log().contains("listening on http") {
            assert!(
                Instant::now() < until,
                "{}: it neither listens nor ends: {}",
                self.name,
                started.log()
            );
            std::thread::sleep(Duration::from_millis(5));
            started.ended = started.child.try_wait().expect("its state");
        }
        started
    }
}

/// A process that listens, or has ended. Dropping it ends it.
pub(crate) struct Started {
    child: Child,
    log: PathBuf,
    pub(crate) ended: Option<ExitStatus>,
}

impl Started {
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The address that it listens on.
    pub(crate) fn address(&self) -> String {
        let log = self.log();
        let after = log
            .split("listening on http")
            .nth(1)
            .expect("it listens")
            .trim_start_matches("s://")
            .trim_start_matches("://");
        after
            .split(['"', ' ', '\n'])
            .next()
            .expect("an address")
            .to_owned()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // It may have ended by itself; what matters is that nothing is left.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every file and directory below this one, with the files' lengths.
pub(crate) fn listing(directory: &Path) -> BTreeSet<(PathBuf, u64)> {
    let mut found = BTreeSet::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory)
            .expect("a directory")
            .map(|entry| entry.expect("an entry"))
        {
            let metadata = entry.metadata().expect("its metadata");
            if metadata.is_dir() {
                open.push(entry.path());
            }
            found.insert((
                entry.path(),
                if metadata.is_dir() { 0 } else { metadata.len() },
            ));
        }
    }
    found
}

/// A certificate for loopback between these years, and its key, in PEM.
pub(crate) fn certificate(from: i32, to: i32) -> (String, String) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("parameters");
    params.not_before = rcgen::date_time_ymd(from, 1, 1);
    params.not_after = rcgen::date_time_ymd(to, 1, 1);
    (
        params.self_signed(&key).expect("a certificate").pem(),
        key.serialize_pem(),
    )
}

//! A Redis or Valkey server of the test's own.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "called from tests only: it panics to report"
)]

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::free_port;

/// Where distributions have the program.
const PROGRAMS: [&str; 4] = [
    "/usr/bin/redis-server",
    "/usr/bin/valkey-server",
    "/usr/local/bin/redis-server",
    "/usr/local/bin/valkey-server",
];
/// How long a start may take on a busy machine.
const START: Duration = Duration::from_secs(20);

/// A server on a loopback port, which keeps nothing on disk; ended when this is dropped.
#[derive(Debug)]
pub struct RedisServer {
    port: u16,
    arguments: Vec<String>,
    directory: TempDir,
    running: Option<Child>,
}

impl RedisServer {
    /// Starts one that asks for no password.
    ///
    /// # Panics
    /// The program is not there, or does not start.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with more arguments (`--requirepass`, `secret`).
    ///
    /// # Panics
    /// The program is not there, or does not start.
    pub fn start_with(arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|&text| text.to_owned()).collect();
        Self::begin(arguments)
    }

    /// Starts a sentinel that watches `server` under `name`, alone.
    ///
    /// # Panics
    /// The program is not there, or does not start.
    pub fn sentinel_of(server: &Self, name: &str) -> Self {
        let configuration = format!(
            "sentinel monitor {name} 127.0.0.1 {} 1\nsentinel down-after-milliseconds {name} 1000\n",
            server.port
        );
        Self::begin(vec!["--sentinel".to_owned(), configuration])
    }

    fn begin(arguments: Vec<String>) -> Self {
        let mut server = Self {
            port: free_port(),
            arguments,
            directory: tempfile::tempdir().expect("a directory"),
            running: None,
        };
        server.start_again();
        server
    }

    /// Starts it again on its port, empty.
    ///
    /// # Panics
    /// It does not start.
    pub fn start_again(&mut self) {
        let port = self.port.to_string();
        let mut command = Command::new(program());
        if let [mode, configuration] = &self.arguments[..]
            && mode == "--sentinel"
        {
            let file = self.directory.path().join("sentinel.conf");
            let text = format!("port {port}\nbind 127.0.0.1\n{configuration}");
            std::fs::write(&file, text).expect("the sentinel's configuration");
            command.arg(file).arg(mode);
        } else {
            command.args(["--port", &port, "--bind", "127.0.0.1"]);
            command.args(["--save", "", "--appendonly", "no"]);
            command.args(&self.arguments);
        }
        let child = command
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server starts");
        self.running = Some(child);
        let begun = Instant::now();
        while !self.answers() {
            assert!(begun.elapsed() < START, "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The port that it listens to on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its URL, without credentials.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Kills it.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.running.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stops it from doing anything: connections are taken, and nothing is answered.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Sends a command and gives the beginning of the answer as it is on the wire (`+OK`, `$3`, `-ERR …`).
    ///
    /// # Panics
    /// It does not answer.
    pub fn command(&self, words: &[&str]) -> String {
        let answer = self.try_command(words);
        answer.unwrap_or_else(|error| panic!("redis-server does not answer {words:?}: {error}"))
    }

    fn answers(&self) -> bool {
        // One that asks for a password says so, and that it is there.
        self.try_command(&["PING"])
            .is_ok_and(|said| said.starts_with("+PONG") || said.starts_with("-NOAUTH"))
    }

    fn try_command(&self, words: &[&str]) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            let _ = write!(request, "${}\r\n{word}\r\n", word.len());
        }
        stream.write_all(request.as_bytes())?;
        let mut answer = [0; 4_096];
        let length = stream.read(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
    }

    fn signal(&self, signal: Signal) {
        let pid = self.running.as_ref().and_then(|child| {
            let id = i32::try_from(child.id()).ok()?;
            Pid::from_raw(id)
        });
        kill_process(pid.expect("it runs"), signal).expect("a signal");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The program: the one that `LARDER_TEST_REDIS` names, else the first that is installed.
fn program() -> PathBuf {
    if let Some(named) = std::env::var_os("LARDER_TEST_REDIS") {
        return named.into();
    }
    let found = PROGRAMS
        .iter()
        .map(PathBuf::from)
        .find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!(
            "redis-server is not installed, and this test needs a real one: \
             `apt-get install redis-server`, or tests/install/clients.sh, which installs all that tests need"
        )
    })
}

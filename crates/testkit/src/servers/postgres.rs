//! PostgreSQL, and PgBouncer in front of it.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test whose server does not start can only fail, and say why"
)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::free_port;

/// The superuser of every server.
pub const USER: &str = "larder";
/// Its password.
pub const PASSWORD: &str = "for tests only";
/// Where Debian and its kin keep the server's programs, by version.
const DEBIAN: &str = "/usr/lib/postgresql";
const HOST: &str = "127.0.0.1";
/// How long it may take to recover on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// What looks after the server, and goes when its standard input is closed, which the end of the test program does in any case.
const KEEPER: &str = include_str!("postgres.sh");
const POOLER: &str = include_str!("pgbouncer.sh");

/// Whether what has been committed must survive the end of the machine. Tests that do not ask for it are faster without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// Nothing is synchronised.
    Fast,
    /// As a server is usually run.
    Safe,
}

/// A running server.
#[derive(Debug)]
pub struct Postgres {
    port: u16,
    programs: PathBuf,
    keeper: Mutex<Keeper>,
}

/// A running PgBouncer in transaction mode.
#[derive(Debug)]
pub struct PgBouncer {
    port: u16,
    _keeper: Mutex<Keeper>,
}

#[derive(Debug)]
struct Keeper {
    _child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Postgres {
    /// The server of this test program, started at the first call.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(Disk::Fast))
    }

    /// A server of the caller's own.
    ///
    /// # Panics
    /// PostgreSQL is not installed, or does not start.
    pub fn start(disk: Disk) -> Self {
        Self::start_as(disk, None)
    }

    /// A standby of this server, which follows it until it is promoted.
    ///
    /// # Panics
    /// It does not start.
    pub fn standby(&self) -> Self {
        Self::start_as(Disk::Fast, Some(self.port))
    }

    fn start_as(disk: Disk, primary: Option<u16>) -> Self {
        let programs = programs();
        let port = free_port();
        let settings = match disk {
            Disk::Fast => "-c fsync=off -c full_page_writes=off",
            Disk::Safe => "-c fsync=on",
        };
        let arguments = [
            programs.display().to_string(),
            port.to_string(),
            settings.to_owned(),
            USER.to_owned(),
            PASSWORD.to_owned(),
            primary.map(|port| port.to_string()).unwrap_or_default(),
        ];
        let mut keeper = Keeper::start(KEEPER, &arguments);
        keeper.hear("ready");
        Self {
            port,
            programs,
            keeper: Mutex::new(keeper),
        }
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Makes an empty database; gives its name.
    pub fn database(&self) -> String {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let name = format!("d{}", MADE.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        name
    }

    /// Runs a statement with the server's own client, and gives what it prints: rows as lines, columns with `|` between them.
    ///
    /// # Panics
    /// The statement fails.
    pub fn sql(&self, database: &str, statement: &str) -> String {
        let said = self.try_sql(database, statement);
        said.unwrap_or_else(|said| panic!("{statement}: {said}"))
    }

    /// As [`sql`](Self::sql), for a server that may be away.
    ///
    /// # Errors
    /// What the client says of it.
    pub fn try_sql(&self, database: &str, statement: &str) -> Result<String, String> {
        let output = Command::new(self.programs.join("psql"))
            .env("PGPASSWORD", PASSWORD)
            .args(["-h", HOST, "-p", &self.port.to_string(), "-U", USER])
            .args(["-d", database, "-X", "-q", "-t", "-A"])
            .args(["-v", "ON_ERROR_STOP=1", "-c", statement])
            .stdin(Stdio::null())
            .output()
            .expect("psql runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stderr))
        }
    }

    /// Ends all of larder's sessions, as an operator does who wants them gone; gives how many there were.
    ///
    /// # Panics
    /// The server is away.
    pub fn end_sessions(&self) -> usize {
        let said = self.sql(
            "postgres",
            "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'larder'",
        );
        said.parse().expect("a number")
    }

    /// Kills the process of one of larder's sessions, as the kernel does when memory is short: the server then ends all sessions, and
    /// recovers by itself. Gives whether there was one.
    ///
    /// # Panics
    /// The server is away.
    pub fn kill_session(&self) -> bool {
        let said = self.sql(
            "postgres",
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'larder' ORDER BY random() LIMIT 1",
        );
        let pid = said.parse().ok().and_then(Pid::from_raw);
        // It may have ended meanwhile.
        pid.is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok())
    }

    /// Waits until it answers.
    ///
    /// # Panics
    /// It does not for half a minute.
    pub fn until_it_answers(&self) {
        let since = Instant::now();
        while let Err(said) = self.try_sql("postgres", "SELECT 1") {
            assert!(since.elapsed() < PATIENCE, "PostgreSQL: {said}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Shuts the server down; sessions are ended.
    pub fn stop(&self) {
        self.tell("stop");
    }

    /// Kills the postmaster as a crash would. Its sessions end by themselves.
    pub fn kill(&self) {
        self.tell("kill");
    }

    /// Starts it again, on the same port and data.
    pub fn start_again(&self) {
        self.tell("start");
    }

    /// Makes a standby take writes.
    pub fn promote(&self) {
        self.tell("promote");
    }

    fn tell(&self, word: &str) {
        let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        keeper.say(word);
        keeper.hear(word);
    }
}

impl PgBouncer {
    /// Starts one in front of a server, with few connections to it, so that clients get another one for each transaction.
    ///
    /// # Panics
    /// PgBouncer is not installed, or does not start.
    pub fn start(server: &Postgres) -> Self {
        let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"]
            .map(Path::new)
            .into_iter()
            .find(|path| path.exists());
        let program = program.expect(
            "PgBouncer is not installed: run tests/install/clients.sh, or install the package pgbouncer",
        );
        let port = free_port();
        let arguments = [
            program.display().to_string(),
            port.to_string(),
            server.port.to_string(),
            USER.to_owned(),
            PASSWORD.to_owned(),
        ];
        let mut keeper = Keeper::start(POOLER, &arguments);
        keeper.hear("ready");
        Self {
            port,
            _keeper: Mutex::new(keeper),
        }
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Keeper {
    /// Runs a script, as the user `postgres` where this is root: the server refuses to be root's.
    fn start(script: &str, arguments: &[String]) -> Self {
        let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| {
            use std::os::unix::fs::MetadataExt as _;
            own.uid() == 0
        });
        let mut command = if is_root {
            let mut command = Command::new("setpriv");
            command.args([
                "--reuid=postgres",
                "--regid=postgres",
                "--clear-groups",
                "sh",
            ]);
            command
        } else {
            Command::new("sh")
        };
        let mut child = command
            .args(["-c", script, "sh"])
            .args(arguments)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell runs");
        let input = child.stdin.take().expect("it is piped");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        Self {
            _child: child,
            input,
            output,
        }
    }

    fn say(&mut self, word: &str) {
        writeln!(self.input, "{word}").expect("the server's keeper listens");
    }

    /// Waits for the word that says that all is well.
    fn hear(&mut self, word: &str) {
        let mut said = String::new();
        loop {
            let mut line = String::new();
            let length = self.output.read_line(&mut line).expect("it speaks UTF-8");
            if line.trim() == word {
                return;
            }
            said.push_str(&line);
            assert!(length > 0, "the server did not start: {said}");
        }
    }
}

/// The folder with the programs of the newest server that is installed.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir(DEBIAN).into_iter().flatten();
    let number = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("bin/initdb").exists())
        .max_by_key(|path| number(path));
    newest.map(|path| path.join("bin")).expect(
        "PostgreSQL is not installed: run tests/install/clients.sh, or install the package postgresql",
    )
}

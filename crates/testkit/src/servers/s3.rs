//! A store that speaks S3: SeaweedFS, all of it in one process.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Process, free_port_pair, tool};

/// How long a start may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(90);

/// A running store with one bucket.
#[derive(Debug)]
pub struct S3Server {
    directory: TempDir,
    ports: [u16; 4],
    process: Option<Process>,
}

impl S3Server {
    /// The access key that it accepts.
    pub const ACCESS_KEY: &str = "larderaccess";
    /// The secret key that belongs to it.
    pub const SECRET_KEY: &str = "lardersecret0123456789";
    /// The bucket that there is.
    pub const BUCKET: &str = "artifacts";

    /// Starts an empty one.
    ///
    /// # Panics
    /// The program is not installed, or does not start.
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let identities = format!(
            r#"{{"identities": [
                {{"name": "larder", "credentials": [{{"accessKey": "{}", "secretKey": "{}"}}],
                  "actions": ["Admin", "Read", "Write", "List", "Tagging"]}},
                {{"name": "anonymous", "actions": ["Admin", "Read", "Write", "List"]}}
            ]}}"#,
            Self::ACCESS_KEY,
            Self::SECRET_KEY
        );
        fs::write(directory.path().join("s3.json"), identities).expect("a file");
        fs::create_dir(directory.path().join("data")).expect("a directory");
        let mut server = Self {
            directory,
            ports: std::array::from_fn(|_| free_port_pair()),
            process: None,
        };
        server.run();
        server.ready().await;
        server
    }

    /// Host and port.
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.ports[3])
    }

    /// Ends the process at once, as a power cut does. What it has stored stays.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it again with what it had stored, on the same ports.
    ///
    /// # Panics
    /// It does not start.
    pub async fn restart(&mut self) {
        self.process = None;
        self.run();
        self.ready().await;
    }

    fn run(&mut self) {
        let home = self.directory.path();
        let [master, volume, filer, s3] = self.ports;
        let log = fs::File::create(home.join("log")).expect("a log file");
        let arguments = [
            "-logtostderr=true".to_owned(),
            "server".to_owned(),
            format!("-dir={}", home.join("data").display()),
            "-ip=127.0.0.1".to_owned(),
            "-ip.bind=127.0.0.1".to_owned(),
            format!("-master.port={master}"),
            format!("-volume.port={volume}"),
            "-filer".to_owned(),
            format!("-filer.port={filer}"),
            "-s3".to_owned(),
            format!("-s3.port={s3}"),
            format!("-s3.config={}", home.join("s3.json").display()),
            "-s3.port.iceberg=0".to_owned(),
            "-s3.port.lance=0".to_owned(),
            "-s3.iam=false".to_owned(),
            "-iam=false".to_owned(),
            "-master.telemetry=false".to_owned(),
            "-master.volumeSizeLimitMB=512".to_owned(),
            "-master.volumePreallocate=false".to_owned(),
            "-volume.max=50".to_owned(),
            format!("-filer.localSocket={}", home.join("filer.sock").display()),
            format!("-s3.localSocket={}", home.join("s3.sock").display()),
        ];
        let child = Command::new(tool("weed"))
            .args(arguments)
            .env_clear()
            .env("HOME", home)
            .current_dir(home)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the program weed starts");
        self.process = Some(Process::new(child));
    }

    /// Waits until it takes an object.
    async fn ready(&mut self) {
        let until = Instant::now() + PATIENCE;
        loop {
            let ended = self.process.as_mut().is_none_or(Process::has_ended);
            let is_late = Instant::now() > until;
            assert!(
                !ended && !is_late,
                "the store did not start:\n{}",
                fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
            );
            let bucket = Self::BUCKET;
            if matches!(
                self.ask("PUT", &format!("/{bucket}"), "").await,
                Some(200 | 409)
            ) && self.ask("PUT", &format!("/{bucket}/.ready"), "ok").await == Some(200)
                && self.ask("DELETE", &format!("/{bucket}/.ready"), "").await == Some(204)
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The status of a request that nobody has signed.
    pub async fn ask(&self, method: &str, path: &str, body: &str) -> Option<u16> {
        let asked = tokio::time::timeout(Duration::from_secs(5), async {
            let mut stream = TcpStream::connect(self.endpoint()).await.ok()?;
            let request = format!(
                "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                self.endpoint(),
                body.len()
            );
            stream.write_all(request.as_bytes()).await.ok()?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.ok()?;
            let line = answer.split(|byte| *byte == b'\r').next()?;
            let line = std::str::from_utf8(line).ok()?;
            line.split(' ').nth(1)?.parse().ok()
        });
        asked.await.ok()?
    }

    /// The id of its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }
}

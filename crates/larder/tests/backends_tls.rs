//! PostgreSQL and Redis over TLS: who is believed, and what is said of who is not. The servers are real, their certificates made here.
#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "helpers of tests may fail loudly"
)]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use larder_testkit::servers::postgres::{Disk, Postgres};
use larder_testkit::servers::{RedisServer, free_port};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use support::{PATIENCE, Setup, TestLarder, get};

/// An authority, and a folder with its certificate and those that it has issued.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

/// A certificate of a server and its key, as files.
struct Issued {
    cert: PathBuf,
    key: PathBuf,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("written");
        Self { issuer, folder }
    }

    /// The file that is given to whoever shall trust it.
    fn file(&self) -> String {
        self.path("ca.pem").display().to_string()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A certificate for a server of these names or addresses.
    fn issue(&self, names: &[&str]) -> Issued {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let (cert_file, key_file) = (
            self.path(&format!("{}.pem", names[0])),
            self.path(&format!("{}.key", names[0])),
        );
        let params = CertificateParams::new(names).expect("names");
        let cert = params.signed_by(&key, &self.issuer).expect("signed");
        std::fs::write(&cert_file, cert.pem()).expect("written");
        std::fs::write(&key_file, key.serialize_pem()).expect("written");
        Issued {
            cert: cert_file,
            key: key_file,
        }
    }
}

/// Gives a server a certificate, by the server's own means: its folder belongs to another user than the tests'.
fn encrypt(server: &Postgres, issued: &Issued) {
    for (file, name) in [(&issued.cert, "server.crt"), (&issued.key, "server.key")] {
        let pem = STANDARD.encode(std::fs::read(file).expect("read"));
        let write = format!("umask 077; base64 -d > {name}");
        server.sql(
            "postgres",
            &format!("COPY (SELECT '{pem}') TO PROGRAM '{write}'"),
        );
    }
    server.sql("postgres", "ALTER SYSTEM SET ssl = on");
    server.sql("postgres", "SELECT pg_reload_conf()");
    let own = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let began = Instant::now();
    while server.sql("postgres", own) != "t" {
        assert!(
            began.elapsed() < PATIENCE,
            "the server does not take its certificate"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// How many of larder's sessions there are in the server, and how many of them are encrypted.
fn sessions(server: &Postgres) -> (u32, u32) {
    let counted = server.sql(
        "postgres",
        "SELECT COUNT(*), COUNT(*) FILTER (WHERE s.ssl) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) WHERE a.application_name = 'larder'",
    );
    let (all, encrypted) = counted.split_once('|').expect("two columns");
    (
        all.parse().expect("a number"),
        encrypted.parse().expect("a number"),
    )
}

const CONFIG: &str = "remotes:\n  files: { type: local }\n";

fn on(server: &Postgres, variables: &[(&str, &str)]) -> Setup {
    let setup = Setup::new(CONFIG).on_postgres(server);
    variables
        .iter()
        .fold(setup, |setup, (name, value)| setup.env(name, value))
}

/// Starts, and stores something; whether larder's sessions are encrypted.
async fn is_encrypted(server: &Postgres, variables: &[(&str, &str)]) -> bool {
    let mut larder = on(server, variables).start().await;
    let put = support::client::client()
        .put(larder.artifact("files", "a"))
        .body("a")
        .send()
        .await;
    assert_eq!(put.expect("an answer").status(), 201, "{variables:?}");
    let (all, encrypted) = sessions(server);
    assert!(
        all > 0 && (encrypted == 0 || encrypted == all),
        "{all} {encrypted}"
    );
    larder.terminate();
    let began = Instant::now();
    while sessions(server).0 > 0 {
        assert!(began.elapsed() < PATIENCE, "sessions end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    encrypted > 0
}

/// A start that ends, with the reason.
fn refused(server: &Postgres, variables: &[(&str, &str)], why: &str) {
    let (status, said) = on(server, variables).run_to_end();
    assert_eq!(status.code(), Some(1), "{variables:?}: {said}");
    assert!(said.contains(why), "{variables:?}: {why}: {said}");
    assert!(!said.contains("for tests only"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_is_believed_as_far_as_sslmode_says() {
    let (right, wrong) = (Authority::new("right"), Authority::new("wrong"));
    let server = Postgres::start(Disk::Fast);
    // The name only: 127.0.0.1 is another one.
    encrypt(&server, &right.issue(&["localhost"]));
    let (ca, other_ca) = (right.file(), wrong.file());
    let by_name = ("DBHOST", "localhost");
    let table: [(&[(&str, &str)], bool); 8] = [
        (&[], true),
        (&[("DBSSLMODE", "prefer")], true),
        (&[("DBSSLMODE", "require")], true),
        (&[("DBSSLMODE", "disable")], false),
        (&[("DBSSLMODE", "allow")], false),
        (&[("DBSSLMODE", "verify-ca"), ("DBCAFILE", &ca)], true),
        (
            &[("DBSSLMODE", "verify-full"), ("DBCAFILE", &ca), by_name],
            true,
        ),
        // As without a mode.
        (&[("DBCAFILE", &ca), by_name], true),
    ];
    for (variables, want) in table {
        assert_eq!(
            is_encrypted(&server, variables).await,
            want,
            "{variables:?}"
        );
    }

    let issuer = "certificate";
    let verify = |mode: &'static str| ("DBSSLMODE", mode);
    // An authority that has not signed it, none, and a name that it is not for.
    refused(
        &server,
        &[verify("verify-full"), ("DBCAFILE", &other_ca), by_name],
        issuer,
    );
    refused(
        &server,
        &[verify("verify-ca"), ("DBCAFILE", &other_ca)],
        issuer,
    );
    refused(
        &server,
        &[verify("require"), ("DBCAFILE", &other_ca)],
        issuer,
    );
    refused(&server, &[verify("verify-full"), by_name], issuer);
    refused(
        &server,
        &[verify("verify-full"), ("DBCAFILE", &ca)],
        "127.0.0.1",
    );
    // What is no certificate is told of before anything is tried.
    let empty = right.path("empty.pem");
    std::fs::write(&empty, "nothing").expect("written");
    let empty = empty.display().to_string();
    refused(&server, &[("DBCAFILE", &empty)], "holds no PEM certificate");
    refused(&server, &[("DBCAFILE", "/nowhere")], "not a file");
    refused(&server, &[verify("verify")], "must be one of disable");

    // A server that lets in nobody who does not encrypt.
    let rule = STANDARD.encode("hostssl all all 127.0.0.1/32 scram-sha-256\n");
    server.sql(
        "postgres",
        &format!("COPY (SELECT '{rule}') TO PROGRAM 'base64 -d > pg_hba.conf'"),
    );
    server.sql("postgres", "SELECT pg_reload_conf()");
    assert!(is_encrypted(&server, &[verify("allow")]).await);
    refused(&server, &[verify("disable")], "no pg_hba.conf entry");

    // One that does not encrypt.
    let plain = Postgres::shared();
    assert!(!is_encrypted(plain, &[verify("prefer")]).await);
    for mode in ["require", "verify-ca", "verify-full"] {
        refused(
            plain,
            &[verify(mode), ("DBCAFILE", &ca)],
            "does not support TLS",
        );
    }
}

/// A Redis that speaks TLS on a port beside its own.
struct Encrypted {
    server: RedisServer,
    port: u16,
}

fn redis(issued: &Issued, more: &[&str]) -> Encrypted {
    let port = free_port();
    let (tls_port, cert, key) = (
        port.to_string(),
        issued.cert.display().to_string(),
        issued.key.display().to_string(),
    );
    let mut arguments = vec![
        "--tls-port",
        &tls_port,
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-auth-clients",
        "no",
    ];
    arguments.extend(more);
    Encrypted {
        server: RedisServer::start_with(&arguments),
        port,
    }
}

async fn shared(larder: &TestLarder) -> serde_json::Value {
    get(&larder.url("/health")).await.json()["cluster"]["shared"].clone()
}

/// Waits until `/health` says that of Redis.
async fn until(larder: &TestLarder, status: &str) -> String {
    let began = Instant::now();
    loop {
        let shared = shared(larder).await;
        // What has not been tried yet says so.
        let detail = shared["detail"].as_str().unwrap_or_default();
        if shared["status"] == status && detail != "not reached yet" {
            return detail.to_owned();
        }
        assert!(began.elapsed() < PATIENCE, "{status}: {shared}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn with_redis(url: &str, ca: Option<&str>) -> TestLarder {
    let setup = Setup::without_config().env("REDIS_URL", url);
    match ca {
        Some(ca) => setup.env("REDISCAFILE", ca),
        None => setup,
    }
    .start()
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_believed_whose_certificate_a_trusted_authority_has_signed() {
    let (right, wrong) = (Authority::new("right"), Authority::new("wrong"));
    let (ca, other_ca) = (right.file(), wrong.file());
    let Encrypted { server, port } = redis(&right.issue(&["localhost"]), &[]);
    // The user that the guide names.
    let rights = "on >p@ss ~larder:* &larder:* -@all +@connection +@scripting +@pubsub +get +set +pttl +pexpire +del +time";
    let words: Vec<&str> = ["ACL", "SETUSER", "larder"]
        .into_iter()
        .chain(rights.split(' '))
        .collect();
    assert!(server.command(&words).starts_with("+OK"));
    assert!(
        server
            .command(&["ACL", "SETUSER", "default", "off"])
            .starts_with("+OK")
    );

    let url = format!("rediss://larder:p%40ss@localhost:{port}");
    let larder = with_redis(&url, Some(&ca)).await;
    until(&larder, "ok").await;
    let view = get(&larder.url("/config")).await.json();
    assert_eq!(view["redis"]["ca_file"], ca.as_str());
    assert_eq!(
        view["redis"]["url"],
        format!("rediss://***@localhost:{port}")
    );
    drop(larder);

    let by_address = url.replace("localhost", "127.0.0.1");
    let plain = format!("rediss://127.0.0.1:{}", server.port());
    for (url, ca, why) in [
        (&url, Some(&*other_ca), "certificate"),
        (&url, None, "certificate"),
        (&by_address, Some(&*ca), "127.0.0.1"),
        (&plain, Some(&*ca), ""),
    ] {
        let larder = with_redis(url, ca).await;
        let said = until(&larder, "unavailable").await;
        assert!(
            said.contains(why) && !said.contains("p%40ss"),
            "{why}: {said}"
        );
        // It makes nothing unavailable.
        assert_eq!(get(&larder.url("/ready")).await.status, 200);
    }
    for (url, file, why) in [
        (&*url, "/nowhere", "cannot be read"),
        ("redis://localhost", &*ca, "does not speak TLS"),
    ] {
        let setup = Setup::without_config()
            .env("REDIS_URL", url)
            .env("REDISCAFILE", file);
        let (status, said) = setup.run_to_end();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(
            said.contains("REDISCAFILE") && said.contains(why) && !said.contains("p%40ss"),
            "{why}: {said}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_believed_by_the_same_rules() {
    let authority = Authority::new("right");
    let ca = authority.file();
    let issued = authority.issue(&["127.0.0.1"]);
    let Encrypted { server, port } = redis(
        &issued,
        &[
            "--cluster-enabled",
            "yes",
            "--tls-cluster",
            "yes",
            "--tls-ca-cert-file",
            &ca,
        ],
    );
    let said = server.command(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    assert!(said.starts_with("+OK"), "{said}");
    let began = Instant::now();
    while !server
        .command(&["CLUSTER", "INFO"])
        .contains("cluster_state:ok")
    {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for scheme in ["rediss-cluster", "rediss"] {
        let url = format!("{scheme}://127.0.0.1:{port}");
        until(&with_redis(&url, Some(&ca)).await, "ok").await;
        until(&with_redis(&url, None).await, "unavailable").await;
    }
}

/// A process that ends with its owner.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A sentinel that speaks TLS, to its clients and to the server that it watches.
fn sentinel(folder: &Path, issued: &Issued, ca: &str, server: u16, port: u16) -> Process {
    let text = format!(
        "port 0\nbind 127.0.0.1\ntls-port {port}\ntls-cert-file {}\ntls-key-file {}\ntls-ca-cert-file {ca}\n\
         tls-auth-clients no\ntls-replication yes\nsentinel monitor mymaster 127.0.0.1 {server} 1\n",
        issued.cert.display(),
        issued.key.display()
    );
    let file = folder.join("sentinel.conf");
    std::fs::write(&file, text).expect("written");
    let child = Command::new("redis-server")
        .arg(&file)
        .arg("--sentinel")
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server is installed");
    Process(child)
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_and_their_server_are_believed_by_the_same_rules() {
    let (authority, wrong) = (Authority::new("right"), Authority::new("wrong"));
    let (ca, other_ca) = (authority.file(), wrong.file());
    let issued = authority.issue(&["127.0.0.1"]);
    let Encrypted {
        server: _server,
        port,
    } = redis(&issued, &[]);
    let sentinel_port = free_port();
    let _sentinel = sentinel(authority.folder.path(), &issued, &ca, port, sentinel_port);
    let url = format!("rediss-sentinel://127.0.0.1:{sentinel_port}/mymaster");
    until(&with_redis(&url, Some(&ca)).await, "ok").await;
    until(&with_redis(&url, Some(&other_ca)).await, "unavailable").await;
}

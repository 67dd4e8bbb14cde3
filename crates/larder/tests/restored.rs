//! The guide's backup of PostgreSQL and an S3 store, taken while larder serves and restored elsewhere: the same bytes, and nobody is
//! asked for what was held.
#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "helpers of tests may fail loudly"
)]

mod support;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use larder_testkit::servers::S3Server;
use larder_testkit::servers::postgres::{Disk, PASSWORD, Postgres, USER};
use larder_testkit::{Origin, Payload, Resource};
use support::client::client;
use support::packages::entry;
use support::{Setup, get};

fn over(origin: &Origin, postgres: &Postgres, database: &str, objects: &S3Server) -> Setup {
    let files = entry("files", "generic", origin, "immutable_patterns: ['.*']");
    Setup::new(&format!("remotes:\n{files}  own: {{ type: local }}\n"))
        .env("DBHOST", "127.0.0.1")
        .env("DBPORT", &postgres.port().to_string())
        .env("DBUSER", USER)
        .env("DBPASS", PASSWORD)
        .env("DBNAME", database)
        .env("MINIO_ENDPOINT", &objects.endpoint())
        .env("MINIO_SECURE", "false")
        .env("MINIO_BUCKET", S3Server::BUCKET)
        .env("MINIO_ACCESS_KEY", S3Server::ACCESS_KEY)
        .env("MINIO_SECRET_KEY", S3Server::SECRET_KEY)
}

/// Runs one of PostgreSQL's programs as an operator does.
fn run(program: &str, server: &Postgres, arguments: &[&str]) {
    let output = Command::new(program)
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", server.port().to_string())
        .env("PGUSER", USER)
        .env("PGPASSWORD", PASSWORD)
        .args(arguments)
        .output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {said}");
}

/// The keys of a bucket. The test's stores let anybody in.
async fn keys(objects: &S3Server) -> Vec<String> {
    let url = format!(
        "http://{}/{}?list-type=2&max-keys=1000",
        objects.endpoint(),
        S3Server::BUCKET
    );
    let listed = get(&url).await.text();
    assert!(!listed.contains("<IsTruncated>true"), "{listed}");
    let keys = listed.split("<Key>").skip(1);
    keys.filter_map(|rest| Some(rest.split_once("</Key>")?.0.to_owned()))
        .collect()
}

/// What `aws s3 sync` does with a bucket that has nothing yet.
async fn copy(from: &S3Server, to: &S3Server) -> usize {
    let url = |server: &S3Server, key: &str| {
        format!("http://{}/{}/{key}", server.endpoint(), S3Server::BUCKET)
    };
    let keys = keys(from).await;
    for key in &keys {
        let object = get(&url(from, key)).await;
        assert_eq!(object.status, 200, "{key}");
        let put = client().put(url(to, key)).body(object.body).send().await;
        assert!(put.expect("an answer").status().is_success(), "{key}");
    }
    keys.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_taken_while_larder_serves_is_served_elsewhere() {
    let origin = Origin::start().await;
    let (first, second) = (S3Server::start().await, S3Server::start().await);
    let (old, new) = (Postgres::start(Disk::Fast), Postgres::start(Disk::Fast));
    let database = old.database();
    let larder = over(&origin, &old, &database, &first).start().await;
    let cached = Payload::generated(3 << 20, 1);
    origin.put("/cached.bin", Resource::new(cached.clone()));
    let cached = cached.slice(0, 3 << 20);
    assert!(get(&larder.artifact("files", "cached.bin")).await.body == cached);
    let uploads = |n: u64| Payload::generated(40_000 + n, n).slice(0, 40_000 + n);
    let put = async |url: String, n: u64| {
        let sent = client().put(url).body(uploads(n)).send().await;
        sent.expect("an answer").status().as_u16()
    };
    for n in 0..20 {
        let url = larder.artifact("own", &format!("before/{n}"));
        assert_eq!(put(url, n).await, 201);
    }
    larder.until_idle().await;

    // Others go on uploading while the backup is made: what comes after the dump may be in the bucket, and is in no row.
    let is_over = Arc::new(AtomicBool::new(false));
    let busy = {
        let (is_over, root) = (Arc::clone(&is_over), larder.artifact("own", "during/"));
        tokio::spawn(async move {
            let mut n = 100;
            while !is_over.load(Ordering::Relaxed) {
                n += 1;
                let body = Payload::generated(40_000 + n, n).slice(0, 40_000 + n);
                let sent = client().put(format!("{root}{n}")).body(body).send().await;
                assert_eq!(sent.expect("an answer").status(), 201);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
    };
    let directory = tempfile::tempdir().expect("a directory");
    let dump = directory.path().join("larder.dump").display().to_string();
    let file = format!("--file={dump}");
    run("pg_dump", &old, &["--format=custom", &file, &database]);
    let copied = copy(&first, &second).await;
    is_over.store(true, Ordering::Relaxed);
    busy.await.expect("uploads went on");
    println!("{copied} objects were copied");
    assert!(copied >= 21);
    drop(larder);

    run(
        "createdb",
        &new,
        &["--encoding=UTF8", "--template=template0", "larder"],
    );
    run(
        "pg_restore",
        &new,
        &["--no-owner", "--dbname=larder", &dump],
    );
    let asked = origin.requests().len();
    let larder = over(&origin, &new, "larder", &second).start().await;
    let again = get(&larder.artifact("files", "cached.bin")).await;
    assert!(again.body == cached && again.source() == "cache");
    for n in 0..20 {
        let answer = get(&larder.artifact("own", &format!("before/{n}"))).await;
        assert_eq!(answer.status, 200);
        assert!(answer.body == uploads(n), "{n}");
    }
    // Whatever the restored database names is there whole.
    let named = new.sql(
        "larder",
        "SELECT path FROM local_files WHERE path LIKE 'during/%'",
    );
    println!(
        "{} uploads of meanwhile are in the dump",
        named.lines().count()
    );
    for path in named.lines() {
        let n = path
            .trim_start_matches("during/")
            .parse()
            .expect("a number");
        let answer = get(&larder.artifact("own", path)).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.body == uploads(n), "{path}");
    }
    assert_eq!(origin.requests().len(), asked, "nobody was asked");
    let url = larder.artifact("own", "after");
    assert_eq!(put(url, 7).await, 201, "and it takes what comes");
}

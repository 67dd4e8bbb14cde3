//! Every command in a data directory that no larder runs on: it does what it does over the network, asks no upstream that it was not told
//! to ask, and leaves the directory for the larder that runs there next.

use std::path::Path;

use larder_core::sha256;
use larder_testkit::{Origin, Resource};
use serde_json::Value;

use crate::support::packages::entry;
use crate::support::{Setup, TestLarder, get};
use crate::{Done, names, run};

/// A remote `a` of the origin, a local repository `files`; `a/held.txt` and `files/up.txt` are there, and larder has ended.
async fn stopped(origin: &Origin) -> TestLarder {
    for path in ["/held.txt", "/absent.txt", "/more.txt"] {
        origin.put(path, Resource::new(path));
    }
    let local = "  files: { type: local }\n";
    let config = format!(
        "auth: {{admin_token: 'a-token-of-the-admin'}}\nremotes:\n{}{local}",
        entry("a", "generic", origin, "")
    );
    let mut larder = Setup::new(&config).embedded().start().await;
    assert_eq!(get(&larder.artifact("a", "held.txt")).await.status, 200);
    assert!(larder.terminate().success());
    origin.reset_log();
    larder
}

/// A command in its directory, with its configuration, and nothing in the environment.
async fn within(larder: &TestLarder, home: &Path, arguments: &[&str]) -> Done {
    let (data, config) = (larder.data_dir(), larder.config_path());
    let place = [
        "--data-dir",
        data.to_str().expect("a text"),
        "--config",
        config.to_str().expect("a text"),
    ];
    run(home, &[arguments, &place].concat(), &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_works_in_a_data_directory() {
    let origin = Origin::start().await;
    let mut larder = stopped(&origin).await;
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    let write = |name: &str, text: &str| std::fs::write(home.join(name), text).expect("a file");
    write("up.txt", "uploaded");
    write("urls.txt", "more.txt\n");
    let doing = async |arguments: &[&str]| within(&larder, home, arguments).await;
    let asked = || origin.requests().len();

    // Standard output has what the command prints, and nothing of a larder that starts.
    assert_eq!(doing(&["ls"]).await.ok(), "a\nfiles\n");
    let put = doing(&["put", "up.txt", "files/dir/", "--json"]).await;
    assert_eq!(put.err, "");
    let put: Value = serde_json::from_str(&put.ok()).expect("one object");
    assert_eq!(put["sha256"], sha256(b"uploaded").to_hex());
    let again = doing(&["put", "up.txt", "files/dir/up.txt", "--new"]).await;
    again.refused(1, &["condition"]);
    let listed = doing(&["ls", "files", "--json"]).await.ok();
    let listed: Value = serde_json::from_str(&listed).expect("one line");
    assert_eq!(listed["path"], "dir/up.txt");
    let sizes = doing(&["du", "--json"]).await.ok();
    let sizes: Value = serde_json::from_str(&sizes).expect("one object");
    assert_eq!(sizes["repositories"][0]["files"], 1, "{sizes}");
    assert_eq!(
        doing(&["get", "a/held.txt", "-o", "-"]).await.ok(),
        "/held.txt"
    );
    assert_eq!(
        doing(&["get", "files/dir/up.txt", "-o", "-"]).await.ok(),
        "uploaded"
    );
    // What is not held is not fetched, and it is said how it would be.
    let absent = doing(&["get", "a/absent.txt"]).await;
    absent.refused(1, &["offline", "--online"]);
    let said = doing(&["explain", "a/absent.txt", "--json"]).await.ok();
    assert!(
        !said.contains("offline"),
        "as the configuration says: {said}"
    );
    doing(&["export", "all.tar"]).await.ok();
    doing(&["import", "all.tar"]).await.ok();
    let scrubbed = doing(&["scrub", "--rate", "1GiB"]).await.ok();
    assert!(
        scrubbed.starts_with("done: 2 of 2 blobs read"),
        "{scrubbed}"
    );
    let last = doing(&["scrub", "--status"]).await.ok();
    assert_eq!(last, scrubbed);
    doing(&["gc", "--dry-run"]).await.ok();
    assert_eq!(asked(), 0, "{:?}", origin.requests());

    // Those that are told to ask.
    assert_eq!(
        doing(&["get", "a/absent.txt", "--online", "-o", "-"])
            .await
            .ok(),
        "/absent.txt"
    );
    assert_eq!(asked(), 1);
    let warmed = doing(&["warm", "-r", "a", "urls.txt"]).await.ok();
    assert!(warmed.starts_with("a: 1 file held"), "{warmed}");
    assert_eq!(asked(), 2);
    let unlisted = doing(&["ls", "a", "--upstream"]).await;
    unlisted.refused(1, &["upstream of a", "no index"]);

    doing(&["rm", "a/more.txt"]).await.ok();
    let flushed = doing(&["flush", "a", "--pattern", "absent", "--json"])
        .await
        .ok();
    let flushed: Value = serde_json::from_str(&flushed).expect("one object");
    assert_eq!(flushed["flushed"]["files"], 1, "{flushed}");
    assert_eq!(
        names(home),
        ["all.tar", "up.txt", "urls.txt"],
        "nothing else is left"
    );

    // The larder that runs there next has all of it.
    larder.restart().await;
    let up = get(&larder.artifact("files", "dir/up.txt")).await;
    assert_eq!((up.status, &*up.body), (200, &b"uploaded"[..]));
    for (path, source) in [
        ("held.txt", "cache"),
        ("absent.txt", "remote"),
        ("more.txt", "remote"),
    ] {
        assert_eq!(
            get(&larder.artifact("a", path)).await.source(),
            source,
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_not_for_it_is_refused() {
    let origin = Origin::start().await;
    let mut larder = stopped(&origin).await;
    larder.restart().await;
    let home = tempfile::tempdir().expect("a directory");
    let pid = larder.pid().to_string();
    for arguments in [&["ls"][..], &["put", "x", "files/x"], &["gc"]] {
        let done = within(&larder, home.path(), arguments).await;
        done.refused(1, &["in use by another larder", &pid, "--server"]);
    }
    assert!(larder.terminate().success());

    // One that is not there is made by what brings something, and by nothing else.
    let nowhere = home.path().join("nowhere");
    let at = nowhere.to_str().expect("a text");
    for command in ["ls", "du", "gc", "scrub"] {
        let done = run(home.path(), &[command, "--data-dir", at], &[]).await;
        done.refused(1, &["holds no larder.sqlite"]);
    }
    assert_eq!(names(home.path()), [""; 0]);
    // Where the records are in PostgreSQL.
    let server = [
        ("DBHOST", "127.0.0.1"),
        ("DBUSER", "u"),
        ("DBPASS", "canary"),
    ];
    let data = larder.data_dir();
    let data = data.to_str().expect("a text");
    let done = run(home.path(), &["ls", "--data-dir", data], &server).await;
    done.refused(1, &["PostgreSQL", "without --data-dir"]);
    assert!(!done.err.contains("canary"), "{done:?}");
    // Two places, and a configuration of none.
    for arguments in [
        &["ls", "--data-dir", data, "--server", "http://127.0.0.1:1/"][..],
        &["ls", "--config", "x.yaml"],
        &["ls", "--online"],
    ] {
        let done = run(home.path(), arguments, &[]).await;
        done.refused(2, &["--data-dir"]);
    }
    let absent = ["ls", "--data-dir", data, "--config", "absent.yaml"];
    run(home.path(), &absent, &[])
        .await
        .refused(1, &["absent.yaml"]);
    // A repository that another configuration has.
    let done = run(home.path(), &["ls", "files", "--data-dir", data], &[]).await;
    done.refused(1, &["files", "--config"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_database_is_never_put_aside() {
    let origin = Origin::start().await;
    let larder = stopped(&origin).await;
    let home = tempfile::tempdir().expect("a directory");
    let database = larder.data_dir().join("larder.sqlite");
    for beside in ["larder.sqlite-wal", "larder.sqlite-shm"] {
        let _ = std::fs::remove_file(larder.data_dir().join(beside));
    }
    let damaged = vec![7; 65_536];
    std::fs::write(&database, &damaged).expect("a file");
    let before = names(&larder.data_dir());
    // The built-in repositories, which are all remote: a start with them would begin anew.
    let data = larder.data_dir();
    let data = data.to_str().expect("a text");
    let done = run(home.path(), &["ls", "--data-dir", data], &[]).await;
    assert_eq!(done.code, Some(1), "{done:?}");
    let kept = std::fs::read(&database).expect("the file");
    assert!(kept == damaged, "the file is another one");
    assert_eq!(names(&larder.data_dir()), before);
}

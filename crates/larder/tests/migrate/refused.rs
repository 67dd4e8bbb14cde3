//! What is not copied from, or into.

use std::path::Path;

use crate::installation::{BACKENDS, EMBEDDED, Installation, With, contents};
use crate::support::client::client;

async fn upload(larder: &crate::support::TestLarder, path: &str) {
    let sent = client()
        .put(larder.artifact("own", path))
        .body(path.to_owned())
        .send()
        .await;
    assert_eq!(sent.expect("an answer").status(), 201);
}

fn refused(all: &Installation, directory: &Path, with: With, arguments: &[&str], why: &str) {
    let migrated = all.migrate(directory, with, arguments).ended(1);
    assert!(migrated.err.contains(why), "{why}: {}", migrated.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_what_is_in_use_nor_what_holds_other_data_is_touched() {
    let mut all = Installation::new().await;
    let (data, other) = (all.directory("data"), all.directory("other"));
    let to_backends = ["--to", "backends"];
    let mut larder = all.setup(&data, EMBEDDED).start().await;
    upload(&larder, "mine.txt").await;
    for arguments in [&to_backends[..], &["--to", "backends", "--dry-run"]] {
        refused(&all, &data, BACKENDS, arguments, "in use by a");
    }
    assert!(larder.terminate().success());

    // Another installation over the backends.
    let mut running = all.setup(&other, BACKENDS).start().await;
    upload(&running, "theirs.txt").await;
    let fresh = all.directory("fresh");
    let back = ["--to", "embedded"];
    refused(&all, &fresh, BACKENDS, &back, "being used from 127.0.0.1");
    assert!(!fresh.join("larder.sqlite").exists());
    // Whoever says that these are none is told if they were.
    let root = running.artifact("own", "");
    let writing = tokio::spawn(async move {
        for number in 0.. {
            let sent = client().put(format!("{root}w{number}")).body("x").send();
            assert_eq!(sent.await.expect("an answer").status(), 201);
        }
    });
    let yes = ["--to", "embedded", "--yes"];
    tokio::task::block_in_place(|| {
        refused(&all, &fresh, BACKENDS, &yes, "has written to the database");
    });
    writing.abort();
    let _ = writing.await;
    for row in all
        .postgres
        .sql(&all.database, "SELECT path FROM local_files")
        .lines()
    {
        if row.starts_with('w') {
            let gone = crate::support::send("DELETE", &running.artifact("own", row), &[]).await;
            assert_eq!(gone.status, 204, "{row}");
        }
    }
    assert!(running.terminate().success());
    let before = contents(&data);
    refused(
        &all,
        &data,
        BACKENDS,
        &to_backends,
        "holds other data already",
    );
    let files = "SELECT path FROM local_files";
    assert_eq!(all.postgres.sql(&all.database, files), "theirs.txt");
    // An empty database, and a bucket that is not.
    let theirs = std::mem::replace(&mut all.database, all.postgres.database());
    refused(&all, &data, BACKENDS, &to_backends, "holds blobs already");
    let tables = "SELECT COUNT(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(all.postgres.sql(&all.database, tables), "0");
    // The other installation, into a directory that is not empty.
    all.database = theirs;
    refused(&all, &data, BACKENDS, &back, "holds other data already");
    assert_eq!(contents(&data), before);
    // A server's database, of which the files are elsewhere.
    let only = With {
        database: true,
        objects: false,
    };
    refused(&all, &fresh, only, &back, "files of another place");
    assert!(!fresh.join("larder.id").exists(), "nothing is made");

    // And once nobody is in the way, both can be had.
    all.migrate(&fresh, BACKENDS, &back).ended(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_says_nothing_to_do_is_a_wrong_command_line() {
    let all = Installation::new().await;
    let data = all.directory("data");
    let cases: [(&[&str], With); 5] = [
        (&[], BACKENDS),
        (&["--to", "nowhere"], BACKENDS),
        (&["--to", "backends"], EMBEDDED),
        (&["--to", "embedded"], EMBEDDED),
        (
            &["--to", "backends", "--only", "blobs"],
            With {
                database: true,
                objects: false,
            },
        ),
    ];
    for (arguments, with) in cases {
        let migrated = all.migrate(&data, with, arguments).ended(2);
        assert!(migrated.out.is_empty(), "{}", migrated.out);
        assert!(!data.exists(), "{arguments:?}");
    }
    let nothing = all.migrate(&data, BACKENDS, &["--to", "backends"]).ended(1);
    assert!(nothing.err.contains("larder.sqlite"), "{}", nothing.err);
}

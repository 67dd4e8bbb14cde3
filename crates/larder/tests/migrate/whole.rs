//! Everything to the backends, and back.

use larder_core::sha256;

use crate::installation::{
    BACKENDS, EMBEDDED, Installation, blob, check, contents, spoil, uploads,
};
use crate::support::get;

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_served_as_before_over_the_backends_and_back_again() {
    let mut all = Installation::new().await;
    let (first, second, third) = (
        all.directory("first"),
        all.directory("second"),
        all.directory("third"),
    );
    let mut larder = all.setup(&first, EMBEDDED).start().await;
    let served = all.fill(&larder).await;
    assert!(larder.terminate().success());
    let before = contents(&first);

    // A look says what there is, and changes nothing anywhere.
    let look = all.migrate(
        &first,
        BACKENDS,
        &["--to", "backends", "--dry-run", "--json"],
    );
    let look = look.ended(0);
    let local = uploads().len() as u64;
    assert_eq!(look.rows("local_files"), (local, 0));
    let blobs = look.json()["blobs"].clone();
    assert_eq!(blobs["blobs"], blobs["copied"], "all are to be copied");
    assert!(blobs["bytes"].as_u64() > Some(9 << 20), "{blobs}");
    assert_eq!(contents(&first), before);
    let tables = "SELECT COUNT(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(all.postgres.sql(&all.database, tables), "0");

    let migrated = all.migrate(&first, BACKENDS, &["--to", "backends", "--json"]);
    let migrated = migrated.ended(0);
    assert_eq!(migrated.json()["verified"], true);
    assert_eq!(migrated.rows("local_files"), (local, local));
    assert_eq!(migrated.json()["blobs"]["copied"], blobs["copied"]);
    assert_eq!(contents(&first), before, "the source is as it was");
    let count = |table: &str| {
        let statement = format!("SELECT COUNT(*) FROM {table}");
        all.postgres.sql(&all.database, &statement)
    };
    assert_eq!(count("local_files"), local.to_string());
    assert_eq!(count("artifacts"), migrated.rows("artifacts").0.to_string());

    // Once more: there is nothing to do, and each blob is read again.
    let again = ["--to", "backends", "--verify", "full", "--json"];
    let again = all.migrate(&first, BACKENDS, &again).ended(0);
    assert_eq!(again.json()["blobs"]["copied"], 0);
    assert_eq!(again.rows("artifacts").1, 0);

    // Over the backends, with another data directory and nobody to ask.
    all.stop_upstreams().await;
    let mut larder = all.setup(&second, BACKENDS).start().await;
    check(&larder, &served).await;
    let health = get(&larder.url("/health")).await.json();
    assert_eq!(health["backends"]["metadata"]["kind"], "postgresql");
    assert_eq!(health["backends"]["blobs"]["kind"], "s3");
    let request = crate::support::client::client().put(larder.artifact("own", "later.txt"));
    let answer = request.body("uploaded later").send().await;
    assert_eq!(answer.expect("an answer").status(), 201);
    assert!(larder.terminate().success());

    // What has been taken into use is not overwritten by what it was copied from.
    let late = all
        .migrate(&first, BACKENDS, &["--to", "backends"])
        .ended(1);
    assert!(
        late.err.contains("holds other data already"),
        "{}",
        late.err
    );

    let back = all.migrate(&third, BACKENDS, &["--to", "embedded", "--json"]);
    let back = back.ended(0);
    assert_eq!(back.rows("local_files"), (local + 1, local + 1));

    // A bit of the copy flips: only who reads all bytes sees it, and the next run makes it good.
    spoil(&blob(&third, b"uploaded later"));
    let sizes = all.migrate(&third, BACKENDS, &["--to", "embedded"]);
    assert!(sizes.ended(0).out.contains("complete and verified"));
    let full = ["--to", "embedded", "--verify", "full"];
    let seen = all.migrate(&third, BACKENDS, &full).ended(1);
    let digest = sha256(b"uploaded later").to_string();
    assert!(seen.err.contains(&digest), "{}", seen.err);
    let (status, log) = all.setup(&third, EMBEDDED).run_to_end();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("unfinished copy"), "{log}");
    let checked = all.check(&third, EMBEDDED).ended(1);
    // The database and the files.
    let found = checked.out.matches("unfinished copy").count();
    assert_eq!(found, 2, "{}", checked.out);
    all.migrate(&third, BACKENDS, &full).ended(0);
    all.check(&third, EMBEDDED).ended(0);
    let larder = all.setup(&third, EMBEDDED).start().await;
    check(&larder, &served).await;
    let later = get(&larder.artifact("own", "later.txt")).await;
    assert_eq!(later.text(), "uploaded later");
    let health = get(&larder.url("/health")).await.json();
    assert_eq!(health["backends"]["metadata"]["kind"], "sqlite");
    assert_eq!(health["backends"]["blobs"]["kind"], "filesystem");
}

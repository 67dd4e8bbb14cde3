//! Database and blobs one after the other.

use crate::installation::{BACKENDS, EMBEDDED, Installation, With, check};

const DATABASE: With = With {
    database: true,
    objects: false,
};
const OBJECTS: With = With {
    database: false,
    objects: true,
};

#[tokio::test(flavor = "multi_thread")]
async fn database_and_blobs_move_each_on_its_own_and_in_any_order() {
    let mut all = Installation::new().await;
    let data = all.directory("data");
    let mut larder = all.setup(&data, EMBEDDED).start().await;
    let served = all.fill(&larder).await;
    assert!(larder.terminate().success());
    all.stop_upstreams().await;

    // The database: files stay where they are.
    let rows = all.migrate(&data, DATABASE, &["--to", "backends", "--json"]);
    let rows = rows.ended(0);
    assert_eq!(rows.json()["blobs"]["copied"], 0);
    let mut larder = all.setup(&data, DATABASE).start().await;
    check(&larder, &served).await;
    assert!(larder.terminate().success());

    // Then the blobs, under the database that is used by now, though the old one is still there.
    let refused = all.setup(&data, BACKENDS).run_to_end();
    assert_eq!(refused.0.code(), Some(1));
    assert!(
        refused.1.contains("larder migrate --to backends"),
        "{}",
        refused.1
    );
    let blobs = ["--to", "backends", "--only", "blobs", "--json"];
    let blobs = all.migrate(&data, BACKENDS, &blobs).ended(0);
    assert!(blobs.json()["blobs"]["copied"].as_u64() > Some(10));
    std::fs::rename(data.join("blobs"), data.join("blobs.old")).expect("moved away");
    let mut larder = all.setup(&data, BACKENDS).start().await;
    check(&larder, &served).await;
    assert!(larder.terminate().success());

    // Back: the database into another directory, which then has the bucket's blobs.
    let other = all.directory("other");
    let rows = ["--to", "embedded", "--only", "database"];
    all.migrate(&other, BACKENDS, &rows).ended(0);
    let mut larder = all.setup(&other, OBJECTS).start().await;
    check(&larder, &served).await;
    assert!(larder.terminate().success());
    let blobs = all.migrate(&other, OBJECTS, &["--to", "embedded", "--json"]);
    assert_eq!(blobs.ended(0).json()["tables"], serde_json::json!([]));
    let larder = all.setup(&other, EMBEDDED).start().await;
    check(&larder, &served).await;
}

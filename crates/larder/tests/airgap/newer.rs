//! What was heard of last stays, whichever side it is on; and what a larder has remembered before an import is void after it.

use larder_testkit::{Origin, Resource};

use super::{run, text};
use crate::support::packages::entry;
use crate::support::{TestLarder, get};

/// Two larders with the same upstream, at which a document changes between their requests.
#[tokio::test(flavor = "multi_thread")]
async fn newer_is_not_replaced_by_older() {
    let mut origin = Origin::start().await;
    let keys = "allow_private: [127.0.0.0/8]\nmutable_patterns: ['^latest$']\ncache: { mutable_ttl: 3600 }";
    let config = format!("remotes:\n{}", entry("files", "generic", &origin, keys));
    let (first, second) = (
        TestLarder::start(&config).await,
        TestLarder::start(&config).await,
    );
    let home = tempfile::tempdir().expect("a directory");
    let (old, new) = (home.path().join("old.tar"), home.path().join("new.tar"));
    origin.put("/latest", Resource::new("old"));
    assert_eq!(get(&first.artifact("files", "latest")).await.text(), "old");
    first.until_idle().await;
    run(&first, &["export", text(&old)]).await.ended(0);
    origin.put("/latest", Resource::new("new"));
    origin.put("/only", Resource::new("only"));
    for (path, body) in [("latest", "new"), ("only", "only")] {
        assert_eq!(get(&second.artifact("files", path)).await.text(), body);
    }
    second.until_idle().await;
    run(&second, &["export", text(&new)]).await.ended(0);
    origin.stop().await;
    // Remembered at every level: in the hot set, and that something could not be had.
    for _ in 0..3 {
        assert_eq!(
            first.hit(&first.artifact("files", "latest")).await.text(),
            "old"
        );
    }
    assert_ne!(get(&first.artifact("files", "only")).await.status, 200);
    let done = run(&first, &["import", text(&new), "--json"])
        .await
        .ended(0)
        .json();
    assert_eq!(
        (&done["written"], &done["kept"]),
        (&2.into(), &0.into()),
        "{done}"
    );
    let done = run(&first, &["import", text(&old), "--json"])
        .await
        .ended(0)
        .json();
    assert_eq!(
        (&done["written"], &done["kept"]),
        (&0.into(), &1.into()),
        "{done}"
    );
    for _ in 0..3 {
        assert_eq!(get(&first.artifact("files", "latest")).await.text(), "new");
        assert_eq!(get(&first.artifact("files", "only")).await.text(), "only");
    }
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bounds_of_the_target_hold() {
    let origin = Origin::start().await;
    origin.put("/large", Resource::new(vec![1; 2 << 20]));
    origin.put("/small", Resource::new("small"));
    let keys = "allow_private: [127.0.0.0/8]";
    let files = |more: &str| {
        let keys = format!("{keys}{more}");
        format!("remotes:\n{}", entry("files", "generic", &origin, &keys))
    };
    let source = TestLarder::start(&files("")).await;
    for path in ["large", "small"] {
        assert_eq!(get(&source.artifact("files", path)).await.status, 200);
    }
    source.until_idle().await;
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("a.tar");
    run(&source, &["export", text(&path)]).await.ended(0);
    let target = TestLarder::start(&files("\nmax_disk: 1MiB")).await;
    let done = run(&target, &["import", text(&path), "--json"])
        .await
        .ended(1)
        .json();
    assert_eq!(done["written"], 1, "{done}");
    assert_eq!(done["left"][0]["path"], "large", "{done}");
    assert!(
        done["left"][0]["why"]
            .as_str()
            .is_some_and(|why| why.contains("max_disk")),
        "{done}"
    );
    let small = target.hit(&target.artifact("files", "small")).await;
    assert_eq!(small.text(), "small");
}

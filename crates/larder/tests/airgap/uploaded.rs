//! Uploaded files follow the rules of the repository that they come into.

use super::{put, run, text};
use crate::support::{TestLarder, get};

#[tokio::test(flavor = "multi_thread")]
async fn another_file_stays_unless_it_is_to_be_replaced() {
    let config =
        "remotes:\n  own: { type: local }\n  fixed: { type: local, allow_overwrite: false }\n";
    let source = TestLarder::start(config).await;
    for repository in ["own", "fixed"] {
        put(&source, repository, "a", "theirs").await;
        put(&source, repository, "b", "the same").await;
        put(&source, repository, "c", "new").await;
    }
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("a.tar");
    run(&source, &["export", text(&path)]).await.ended(0);
    let target = TestLarder::start(config).await;
    for repository in ["own", "fixed"] {
        put(&target, repository, "a", "ours").await;
        put(&target, repository, "b", "the same").await;
    }
    let done = run(&target, &["import", text(&path), "--json"])
        .await
        .ended(1);
    let told = done.json();
    assert_eq!(
        (&told["written"], &told["kept"]),
        (&2.into(), &2.into()),
        "{told}"
    );
    let left = told["left"].as_array().expect("a list");
    assert_eq!(left.len(), 2, "{told}");
    assert_eq!(
        (&left[0]["repository"], &left[0]["path"]),
        (&"fixed".into(), &"a".into())
    );
    assert!(
        left[0]["why"]
            .as_str()
            .is_some_and(|why| why.contains("--overwrite")),
        "{told}"
    );
    for repository in ["own", "fixed"] {
        assert_eq!(get(&target.artifact(repository, "a")).await.text(), "ours");
        let (was, is) = (
            get(&source.artifact(repository, "c")).await,
            get(&target.artifact(repository, "c")).await,
        );
        assert_eq!(is.text(), "new");
        // Not by its date: clients here compare that with the moment at which it took its place here.
        for name in ["etag", "content-type"] {
            assert_eq!(was.header(name), is.header(name), "{name}");
        }
    }
    run(&target, &["import", text(&path), "--overwrite"])
        .await
        .ended(1);
    assert_eq!(get(&target.artifact("own", "a")).await.text(), "theirs");
    assert_eq!(get(&target.artifact("fixed", "a")).await.text(), "ours");
    let only = ["import", text(&path), "--repository", "own"];
    run(&target, &only).await.ended(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_rules_refuse_is_left_out_and_named() {
    let source = TestLarder::start("remotes:\n  own: { type: local }\n").await;
    put(&source, "own", "ok/small", "x").await;
    put(&source, "own", "ok/large", vec![1; 2_000]).await;
    put(&source, "own", "no/small", "y").await;
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("a.tar");
    run(&source, &["export", text(&path)]).await.ended(0);
    let target = TestLarder::start(
        "remotes:\n  own: { type: local, max_size: 1000, allow_patterns: ['^ok/'] }\n",
    )
    .await;
    let done = run(&target, &["import", text(&path)]).await.ended(1);
    assert!(
        done.out.contains("left out: own/ok/large: ")
            && done.out.contains("left out: own/no/small: "),
        "{done:?}"
    );
    assert_eq!(get(&target.artifact("own", "ok/small")).await.text(), "x");
    assert_eq!(get(&target.artifact("own", "ok/large")).await.status, 404);
}

//! Many files: more than one page of rows, and of blobs.

use futures_util::StreamExt as _;

use super::{listed, put, run, text};
use crate::support::{TestLarder, get};

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_files_come_in() {
    let config = "remotes:\n  own: { type: local }\n";
    let source = TestLarder::start(config).await;
    let larder = &source;
    let all = (0..1_000).map(|n| async move {
        put(
            larder,
            "own",
            &format!("d{}/{n}", n % 7),
            format!("file {n}"),
        )
        .await;
    });
    futures_util::stream::iter(all)
        .buffer_unordered(16)
        .collect::<Vec<()>>()
        .await;
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("a.tar");
    let exported = run(&source, &["export", text(&path), "--json"])
        .await
        .ended(0)
        .json();
    assert_eq!(
        (&exported["rows"], &exported["blobs"]),
        (&1_000.into(), &1_000.into())
    );
    let target = TestLarder::start(config).await;
    let imported = run(&target, &["import", text(&path), "--json"])
        .await
        .ended(0)
        .json();
    assert_eq!(
        (&imported["written"], &imported["sent_blobs"]),
        (&1_000.into(), &1_000.into())
    );
    assert_eq!(listed(&target).await, listed(&source).await);
    for n in [0, 99, 100, 101, 998, 999] {
        let answer = get(&target.artifact("own", &format!("d{}/{n}", n % 7))).await;
        assert_eq!((answer.status, answer.text()), (200, format!("file {n}")));
    }
}

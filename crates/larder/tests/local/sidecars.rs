//! Signatures beside uploaded files: contract, section 3, "Sidecars". They take class, access and clearance of their subject.

use larder_core::sha256;

use crate::support::client::client;
use crate::support::{TestLarder, get};
use crate::{delete, put};

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_is_admitted_where_its_subject_is() {
    let config = "remotes:
  some: { type: local, immutable_patterns: ['\\.tgz$'] }
  allowed: { type: local, allow_patterns: ['\\.tgz$'] }
  denied: { type: local, deny_patterns: ['\\.tgz$'] }
";
    let larder = TestLarder::start(config).await;
    for repository in ["some", "allowed"] {
        let at = |path: &str| larder.artifact(repository, path);
        for path in ["a.tgz", "a.tgz.asc", "a.tgz.sig", "a.tgz.prov"] {
            let taken = put(&at(path), path, &[]).await;
            assert_eq!(taken.status, 201, "{repository} {path}: {}", taken.text());
            assert_eq!(get(&at(path)).await.text(), path, "{repository}");
        }
        let why = get(&larder.url(&format!("api/v1/explain/{repository}/a.tgz.asc"))).await;
        assert_eq!(why.json()["verdict"]["value"], "serve", "{}", why.text());
        assert_eq!(delete(&at("a.tgz.asc")).await.status, 204, "{repository}");
        for path in ["a.zip", "a.zip.asc", "a.tgz.txt", ".asc"] {
            assert_eq!(
                put(&at(path), "x", &[]).await.status,
                403,
                "{repository} {path}"
            );
        }
    }
    for path in ["a.tgz", "a.tgz.asc"] {
        let refused = put(&larder.artifact("denied", path), "x", &[]).await;
        assert_eq!(refused.status, 403, "{path}");
    }
}

/// What is signed years later is not held back for it, and nobody gets the signature of what is held.
#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_is_held_as_long_as_its_subject() {
    let config = "remotes:\n  held: { type: local, quarantine_new: true, quarantine_days: 3 }\n";
    let larder = TestLarder::start(config).await;
    let at = |path: &str| larder.artifact("held", path);
    // A file that was uploaded long ago, as an archive brings it.
    let digest = sha256(b"right");
    let blob = larder.url(&format!("api/v1/blobs/{digest}?size=5"));
    assert_eq!(put(&blob, "right", &[]).await.status, 204);
    let rows = format!(
        r#"{{"rows": [{{"path": "old.tgz", "file": {{"blob": {{"digest": "{digest}", "size": 5}}, "headers": {{}}, "uploaded_at": 1}}}}]}}"#
    );
    let carried = client().post(larder.url("api/v1/archive/held")).body(rows);
    assert_eq!(carried.send().await.expect("an answer").status(), 200);
    for path in ["old.tgz.asc", "new.tgz", "new.tgz.asc", "alone.tgz.asc"] {
        assert_eq!(put(&at(path), path, &[]).await.status, 201, "{path}");
    }
    for (path, status) in [
        ("old.tgz", 200),
        ("old.tgz.asc", 200),
        ("new.tgz", 404),
        ("new.tgz.asc", 404),
        ("alone.tgz.asc", 404),
    ] {
        let answer = get(&at(path)).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        let why = get(&larder.url(&format!("api/v1/explain/held/{path}"))).await;
        let verdict = if status == 200 { "serve" } else { "hold back" };
        assert_eq!(why.json()["verdict"]["value"], verdict, "{}", why.text());
        for text in [answer.text(), why.text()] {
            assert!(!text.contains("the registry states"), "{text}");
            assert!(
                status == 200 || text.contains(": uploaded 20") || text.contains("\"uploaded 20"),
                "{text}"
            );
        }
    }
}

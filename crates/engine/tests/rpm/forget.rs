//! The flush of one path (`DELETE` on a remote's path) where files are only right together.

use bytes::Bytes;
use http::{HeaderMap, Method};
use larder_core::{Mount, Principal, RepositoryKind};
use larder_engine::{ArtifactRequest, Queries};

use crate::body;
use crate::repo::{MASTER, SIGNATURE, Style, generation};
use crate::support::Bench;

async fn forget(bench: &Bench, path: &str) -> bool {
    let request = ArtifactRequest {
        repository: "rpm",
        raw_path: path,
        query: None,
        method: &Method::DELETE,
        headers: &HeaderMap::new(),
        principal: Principal::Anonymous,
        mount: Mount::api("http://127.0.0.1:8000", RepositoryKind::Remote, "rpm"),
        body: Bytes::new(),
    };
    bench
        .engine
        .forget(&request, Queries::AsAsked)
        .await
        .unwrap()
}

/// A signature says nothing of another master index, so it goes with its own; what is named by its digest stays right.
#[tokio::test]
async fn a_master_index_takes_its_signature_along_and_nothing_that_is_named_by_its_digest() {
    let package = "Packages/x-1.x86_64.rpm";
    let one = generation(Style::revision(1), &[(package, "one")]);
    let bench = Bench::new().await;
    one.publish(&bench.origin, "el9/", None);
    let (master, signature) = (format!("el9/{MASTER}"), format!("el9/{SIGNATURE}"));
    body(&bench, &master).await;
    body(&bench, &format!("el9/{package}")).await;
    assert!(
        bench
            .record("rpm", &format!("el9/{package}"), "")
            .await
            .is_some_and(|record| record.verified)
    );
    assert!(forget(&bench, &master).await);
    assert_eq!(bench.record("rpm", &master, "").await, None);
    assert_eq!(bench.record("rpm", &signature, "").await, None);
    let primary = one
        .metadata
        .keys()
        .find(|path| path.contains("primary"))
        .unwrap();
    assert!(
        bench
            .record("rpm", &format!("el9/{primary}"), "")
            .await
            .is_some()
    );
    assert!(
        bench
            .record("rpm", &format!("el9/{package}"), "")
            .await
            .is_some()
    );
    assert!(!forget(&bench, &master).await, "there is nothing left");
    assert_eq!(body(&bench, &master).await, one.repomd);
    assert_eq!(body(&bench, &signature).await, one.metadata[SIGNATURE]);
}

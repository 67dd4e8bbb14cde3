//! `DELETE` on a remote's path (contract, section 1): the flush of exactly that path, by whoever may flush.

use larder_core::sha256;
use larder_testkit::{Origin, Resource};

use crate::support::packages::{File, entry, helm, npm, pypi_json, remote};
use crate::support::{Setup, TestLarder, get, send};

const INDEX: &[u8] = include_bytes!("../../../formats/src/alpine/testdata/APKINDEX.tar.gz");
const MANIFEST: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[]}"#;
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

async fn delete(larder: &TestLarder, repository: &str, path: &str) -> u16 {
    send("DELETE", &larder.artifact(repository, path), &[])
        .await
        .status
}

/// One remote of each type, and in each of them paths that are held: documents, what is derived, and files.
async fn filled() -> (Origin, TestLarder, Vec<(&'static str, String)>) {
    let origin = Origin::start().await;
    let file = |name: &str| [File::generated(name, "1.0.0", 2_000, 1)];
    let mut paths = vec![
        ("pypi", "simple/pantry/".to_owned()),
        ("npm", "shelf".to_owned()),
        ("helm", "index.yaml".to_owned()),
    ];
    paths.extend(
        pypi_json(&origin, "pantry", &file("pantry"))
            .into_iter()
            .map(|path| ("pypi", path)),
    );
    paths.extend(
        npm(&origin, "shelf", &file("shelf"))
            .into_iter()
            .map(|path| ("npm", path)),
    );
    paths.extend(
        helm(&origin, &file("chart"))
            .into_iter()
            .map(|path| ("helm", path)),
    );
    for (repository, path, resource) in [
        ("generic", "dir/a b.tgz", Resource::new("generic")),
        ("generic", "dir/", Resource::new("listing")),
        ("rpm", "Packages/a-1.rpm", Resource::new("rpm")),
        (
            "alpine",
            "v3.23/main/x86_64/APKINDEX.tar.gz",
            Resource::new(INDEX),
        ),
        (
            "docker",
            "team/app/manifests/1.0",
            Resource::new(MANIFEST).content_type(MANIFEST_TYPE),
        ),
    ] {
        let at = if repository == "docker" {
            format!("/v2/{path}")
        } else {
            format!("/{path}")
        };
        origin.put(&at, resource);
        paths.push((repository, path.replace(' ', "%20")));
    }
    let blob = sha256(b"layer");
    origin.put(
        &format!("/v2/team/app/blobs/{blob}"),
        Resource::new("layer"),
    );
    paths.push(("docker", format!("team/app/blobs/{blob}")));
    let types = ["generic", "pypi", "npm", "helm", "rpm", "alpine", "docker"];
    let larder = TestLarder::start(&format!(
        "remotes:\n{}",
        types
            .map(|package| entry(package, package, &origin, ""))
            .concat()
    ))
    .await;
    for (repository, path) in &paths {
        let url = larder.artifact(repository, path);
        let answer = get(&url).await;
        assert_eq!(answer.status, 200, "{repository}/{path}: {}", answer.text());
        larder.hit(&url).await;
    }
    (origin, larder, paths)
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_that_path_of_every_type_is_fetched_anew_and_nothing_else() {
    let (origin, larder, paths) = filled().await;
    for (repository, path) in &paths {
        origin.reset_log();
        assert_eq!(
            delete(&larder, repository, path).await,
            204,
            "{repository}/{path}"
        );
        assert_eq!(
            delete(&larder, repository, path).await,
            404,
            "{repository}/{path}: there is nothing left"
        );
        for (other, others_path) in paths
            .iter()
            .filter(|(other, others_path)| (other, others_path) != (repository, path))
        {
            let answer = get(&larder.artifact(other, others_path)).await;
            assert_eq!(
                (answer.status, answer.source()),
                (200, "cache"),
                "{other}/{others_path} after {repository}/{path}"
            );
        }
        let answer = get(&larder.artifact(repository, path)).await;
        assert_eq!(
            (answer.status, answer.source()),
            (200, "remote"),
            "{repository}/{path}: {}",
            answer.text()
        );
        larder.hit(&larder.artifact(repository, path)).await;
    }
    larder.logged("a path was flushed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_spelling_that_get_reads_is_that_path() {
    let (_origin, larder, _) = filled().await;
    for (repository, held, spelling) in [
        ("generic", "dir/a%20b.tgz", "dir//./a%20b%2Etgz"),
        ("generic", "dir/a%20b.tgz", "/dir/%61%20b.tgz"),
        ("pypi", "simple/pantry/", "simple/Pantry"),
        ("pypi", "simple/pantry/", "simple/PANTRY/"),
    ] {
        let url = larder.artifact(repository, held);
        get(&url).await;
        larder.hit(&url).await;
        assert_eq!(
            delete(&larder, repository, spelling).await,
            204,
            "{repository}/{spelling}"
        );
        assert_eq!(
            get(&url).await.source(),
            "remote",
            "{repository}/{spelling}"
        );
    }
    for (repository, path, status) in [
        ("generic", "dir", 404),
        ("generic", "dir/a", 404),
        ("generic", "", 404),
        ("npm", "-/ping", 404),
        ("generic", "a%2f..%2fb", 400),
        ("nobody", "x", 404),
    ] {
        assert_eq!(
            delete(&larder, repository, path).await,
            status,
            "{repository}/{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_is_part_of_the_path_where_it_is_forwarded() {
    let origin = Origin::start().await;
    for target in ["/a", "/a?v=1", "/a?v=2"] {
        origin.put(target, Resource::new(target));
    }
    let larder = TestLarder::start(&remote("generic", &origin, "")).await;
    for path in ["a", "a?v=1", "a?v=2"] {
        get(&larder.artifact("generic", path)).await;
        larder.hit(&larder.artifact("generic", path)).await;
    }
    assert_eq!(delete(&larder, "generic", "a?v=1").await, 204);
    for (path, source) in [("a", "cache"), ("a?v=2", "cache"), ("a?v=1", "remote")] {
        assert_eq!(
            get(&larder.artifact("generic", path)).await.source(),
            source,
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remembered_absence_goes_too() {
    let origin = Origin::start().await;
    let larder = TestLarder::start(&remote("generic", &origin, "negative_ttl: 600")).await;
    let url = larder.artifact("generic", "new.tgz");
    assert_eq!(get(&url).await.status, 404);
    origin.put("/new.tgz", Resource::new("here"));
    assert_eq!(get(&url).await.status, 404);
    assert_eq!(delete(&larder, "generic", "new.tgz").await, 204);
    assert_eq!(get(&url).await.text(), "here");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_rules_no_longer_admit_can_still_be_flushed() {
    let origin = Origin::start().await;
    origin.put("/a.tgz", Resource::new("a"));
    let mut larder = TestLarder::start(&remote("generic", &origin, "")).await;
    get(&larder.artifact("generic", "a.tgz")).await;
    larder.hit(&larder.artifact("generic", "a.tgz")).await;
    larder.terminate();
    larder.write_config(&remote("generic", &origin, "deny_patterns: ['tgz']"));
    larder.restart().await;
    assert_eq!(get(&larder.artifact("generic", "a.tgz")).await.status, 403);
    assert_eq!(delete(&larder, "generic", "a.tgz").await, 204);
    assert_eq!(delete(&larder, "generic", "a.tgz").await, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_needs_what_a_flush_needs_and_images_are_not_deleted_below_v2() {
    let origin = Origin::start().await;
    origin.put("/a", Resource::new("a"));
    let config = format!(
        "remotes:\n{}{}",
        entry("files", "generic", &origin, ""),
        entry("images", "docker", &origin, "")
    );
    let larder = Setup::new(&config)
        .env("LARDER_ADMIN_TOKEN", "a-long-enough-token")
        .start()
        .await;
    let url = larder.artifact("files", "a");
    get(&url).await;
    larder.hit(&url).await;
    for headers in [&[][..], &[("Authorization", "Bearer wrong")]] {
        assert_eq!(send("DELETE", &url, headers).await.status, 401);
    }
    let token = ("Authorization", "Bearer a-long-enough-token");
    larder.hit(&url).await;
    assert_eq!(send("DELETE", &url, &[token]).await.status, 204);
    for path in [
        "v2/images/team/app/manifests/1.0",
        "images/v2/team/app/manifests/1.0",
    ] {
        assert_eq!(
            send("DELETE", &larder.url(path), &[token]).await.status,
            405,
            "{path}"
        );
    }
}

//! Who may not, and what cannot be: said, and nothing changes.

use larder_core::sha256;
use larder_testkit::{Origin, Resource};

use super::{command, files_below, listed, put, run, text};
use crate::support::client::client;
use crate::support::packages::entry;
use crate::support::{Setup, TestLarder, get};

#[tokio::test(flavor = "multi_thread")]
async fn a_target_without_the_repositories_takes_nothing() {
    let source =
        TestLarder::start("remotes:\n  own: { type: local }\n  more: { type: local }\n").await;
    put(&source, "own", "a", "a").await;
    put(&source, "more", "b", "b").await;
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("a.tar");
    run(&source, &["export", text(&path)]).await.ended(0);
    let target =
        TestLarder::start("remotes:\n  own: { type: local }\n  other: { type: local }\n").await;
    let refused = run(&target, &["import", text(&path)]).await.ended(1);
    for words in [
        "no repository more",
        "more: {type: local, package: generic}",
        "nothing was imported",
    ] {
        assert!(refused.err.contains(words), "{refused:?}");
    }
    let remote = TestLarder::start(
        "remotes:\n  own: { type: local }\n  more: { package: npm, base_url: 'https://npm.example.com/' }\n",
    )
    .await;
    let refused = run(&remote, &["import", text(&path)]).await.ended(1);
    assert!(refused.err.contains("more is a local repository of type generic in the archive, and a remote one of type npm here"), "{refused:?}");
    for larder in [&target, &remote] {
        assert_eq!(listed(larder).await, []);
        assert_eq!(files_below(&larder.blob_dir().join("sha256")), 0);
    }
    let unknown = ["import", text(&path), "--repository", "none"];
    let refused = run(&target, &unknown).await.ended(1);
    assert!(refused.err.contains("more, own"), "{refused:?}");
    let other = home.path().join("b.tar");
    let refused = run(&source, &["export", text(&other), "--repository", "none"])
        .await
        .ended(1);
    assert!(
        refused.err.contains("\"none\"") && !other.exists(),
        "{refused:?}"
    );
    run(&target, &["import", text(&other)]).await.ended(2);
    let one = ["export", text(&other), "--repository", "own", "--json"];
    assert_eq!(run(&source, &one).await.ended(0).json()["rows"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_a_file() {
    let larder = TestLarder::start("remotes:\n  own: { type: local }\n").await;
    let home = tempfile::tempdir().expect("a directory");
    let absent = home.path().join("absent.tar");
    for path in [text(home.path()), text(&absent)] {
        for arguments in [&["import", path][..], &["import", "--check", path]] {
            run(&larder, arguments).await.ended(2);
        }
    }
    for arguments in [["import", "-"], ["export", "-"]] {
        let refused = run(&larder, &arguments).await.ended(2);
        assert!(refused.err.contains("not a pipe"), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_for_those_who_may_change_state() {
    let larder = Setup::new("remotes:\n  own: { type: local }\n  more: { type: local }\n")
        .env("LARDER_ADMIN_TOKEN", "canary-token")
        .start()
        .await;
    let digest = sha256(b"x");
    let blob = format!("api/v1/blobs/{digest}?size=1");
    for (method, path) in [
        ("GET", "api/v1/archive/own"),
        ("POST", "api/v1/archive/own"),
        ("GET", &blob),
        ("HEAD", &blob),
        ("PUT", &blob),
    ] {
        let answer = crate::support::send(method, &larder.url(path), &[]).await;
        assert_eq!(answer.status, 401, "{method} {path}");
    }
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("a.tar");
    let refused = run(&larder, &["export", text(&path)]).await.ended(1);
    assert!(refused.err.contains("LARDER_TOKEN"), "{refused:?}");
    // Before a long archive is read.
    let damaged = home.path().join("damaged.tar");
    std::fs::write(&damaged, "no archive").expect("a file");
    let refused = run(&larder, &["import", text(&damaged)]).await.ended(1);
    assert!(
        refused.err.contains("LARDER_TOKEN") && !refused.err.contains("verifying"),
        "{refused:?}"
    );
    let checked = ["import", "--check", text(&damaged)];
    let checked = run(&larder, &checked).await.ended(1);
    assert!(checked.err.contains("is no archive"), "{checked:?}");
    // What was refused had listed nothing that would have to be gone on with.
    let mut allowed = command(&larder, &["export", text(&path), "--repository", "own"]);
    allowed.env("LARDER_TOKEN", "canary-token");
    let output = tokio::task::spawn_blocking(move || allowed.output()).await;
    let output = output.expect("a task").expect("the larder program");
    assert!(output.status.success(), "{output:?}");
    let bytes = std::fs::read(&path).expect("the archive");
    assert!(!String::from_utf8_lossy(&bytes).contains("canary"));
}

/// A request that is wrong: 4xx, and nothing changes.
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_changes_nothing() {
    let larder = TestLarder::start("remotes:\n  own: { type: local }\n").await;
    let digest = sha256(b"right");
    let put = |path: String, body: &'static str| {
        let request = client().put(larder.url(&path)).body(body);
        async move { request.send().await.expect("an answer").status().as_u16() }
    };
    for (size, body) in [
        (5, "wrong"),
        (4, "righ"),
        (6, "right"),
        (4, "right"),
        (5, ""),
    ] {
        let path = format!("api/v1/blobs/{digest}?size={size}");
        assert_eq!(put(path, body).await, 400, "{size} {body}");
    }
    for path in [
        format!("api/v1/blobs/{digest}"),
        format!("api/v1/blobs/{digest}?size=x"),
        format!("api/v1/blobs/{digest}?size=5&size=5"),
        "api/v1/blobs/sha256:0?size=5".to_owned(),
        format!("api/v1/blobs/sha512:{}?size=5", "0".repeat(128)),
    ] {
        assert_eq!(put(path.clone(), "right").await, 400, "{path}");
        assert_eq!(get(&larder.url(&path)).await.status, 400, "{path}");
    }
    assert_eq!(files_below(&larder.blob_dir().join("sha256")), 0);
    assert_eq!(
        get(&larder.url(&format!("api/v1/blobs/{digest}?size=5")))
            .await
            .status,
        404
    );
    let file = |path: &str, digest: &str| {
        format!(
            r#"{{"rows": [{{"path": "{path}", "file": {{"blob": {{"digest": "{digest}", "size": 5}}, "headers": {{}}, "uploaded_at": 1}}}}]}}"#
        )
    };
    for body in [
        String::new(),
        "[]".to_owned(),
        r#"{"rows": 1}"#.to_owned(),
        r#"{"rows": [], "more": 1}"#.to_owned(),
        r#"{"rows": [{"path": "a"}]}"#.to_owned(),
        r#"{"rows": [{"path": "a", "colour": "red"}]}"#.to_owned(),
        file("absent", &digest.to_string()),
        file("odd", &format!("sha1:{}", "0".repeat(40))),
    ] {
        let request = client()
            .post(larder.url("api/v1/archive/own"))
            .body(body.clone());
        let status = request.send().await.expect("an answer").status();
        assert_eq!(status, 400, "{body}");
    }
    let path = format!("api/v1/blobs/{digest}?size=5");
    assert_eq!(put(path.clone(), "right").await, 204);
    assert_eq!(get(&larder.url(&path)).await.text(), "right");
    assert_eq!(
        get(&larder.url(&format!("api/v1/blobs/{digest}?size=4")))
            .await
            .status,
        500
    );
    // A path that leads out is refused like that of an upload, and named.
    let body = file("a/../../b", &digest.to_string());
    let request = client().post(larder.url("api/v1/archive/own")).body(body);
    let answer = request.send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let told: serde_json::Value =
        serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("JSON");
    assert_eq!(
        (&told["written"], told["left"].as_array().map(Vec::len)),
        (&0.into(), Some(1)),
        "{told}"
    );
    assert_eq!(listed(&larder).await, []);
    for path in [
        "api/v1/archive/none",
        "api/v1/archive/own?cursor=zz",
        "api/v1/archive/own?limit=1",
    ] {
        let status = get(&larder.url(path)).await.status;
        assert!(matches!(status, 400 | 404), "{path}: {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_that_no_request_can_have_stay_out_and_are_named() {
    let origin = Origin::start().await;
    origin.put("/a", Resource::new("a"));
    let config = entry("files", "generic", &origin, "allow_private: [127.0.0.0/8]");
    let larder = TestLarder::start(&format!("remotes:\n{config}")).await;
    larder.hit(&larder.artifact("files", "a")).await;
    let rows = get(&larder.url("api/v1/archive/files")).await.json();
    let mut row = rows["rows"][0].clone();
    assert_eq!(row["path"], "a", "{rows}");
    let long = "a".repeat(3_000);
    for path in [
        "../../etc/x",
        "/a",
        "a//b",
        "./c",
        "x\\y",
        "%2e%2e/q",
        &long,
    ] {
        row["path"] = path.into();
        let body = serde_json::json!({"rows": [row]}).to_string();
        let url = larder.url("api/v1/archive/files");
        let answer = client().post(url).body(body).send().await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), 200, "{path}");
        let told: serde_json::Value =
            serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("JSON");
        assert_eq!(
            (&told["written"], &told["left"][0]["path"]),
            (&0.into(), &path.into()),
            "{told}"
        );
    }
    let held = listed(&larder).await;
    assert_eq!(held, [("files".to_owned(), "a".to_owned())]);
}

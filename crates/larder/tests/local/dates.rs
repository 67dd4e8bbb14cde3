//! `Last-Modified` of uploaded files, and what clients compare with it.

use std::time::Instant;

use larder_core::sha256;

use crate::support::client::client;
use crate::support::{PATIENCE, get, send};
use crate::{put, start};

/// The date of a file, once it is told.
async fn dated(url: &str) -> String {
    let until = Instant::now() + PATIENCE;
    loop {
        let date = get(url).await.header("last-modified").to_owned();
        if !date.is_empty() {
            return date;
        }
        assert!(Instant::now() < until, "{url} has no date");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// A date is told once no other upload can have it: a few seconds later.
#[tokio::test(flavor = "multi_thread")]
async fn hazard_w9_two_uploads_in_one_second_are_told_apart_by_whoever_has_a_date() {
    let larder = start().await;
    let url = larder.artifact("files", "a");
    let mut date = String::new();
    for number in 0..12 {
        let text = format!("body {number}");
        put(&url, text.clone(), &[]).await;
        let headers: Vec<(&str, &str)> = [("If-Modified-Since", &*date)]
            .into_iter()
            .filter(|(_, date)| !date.is_empty())
            .collect();
        let answer = send("GET", &url, &headers).await;
        assert_eq!((answer.status, answer.text()), (200, text));
        let told = answer.header("last-modified").to_owned();
        if !told.is_empty() {
            date = told;
        }
        tokio::time::sleep(std::time::Duration::from_millis(120)).await;
    }
    let date = dated(&url).await;
    assert_eq!(
        send("GET", &url, &[("If-Modified-Since", &date)])
            .await
            .status,
        304
    );
}

/// An import replaces a file now, whenever its bytes were uploaded elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn an_imported_file_is_not_older_than_the_one_that_it_replaces() {
    let larder = start().await;
    let url = larder.artifact("files", "a");
    put(&url, "ours", &[]).await;
    let ours = dated(&url).await;
    let digest = sha256(b"theirs");
    let blob = larder.url(&format!("api/v1/blobs/{digest}?size=6"));
    assert_eq!(put(&blob, "theirs", &[]).await.status, 204);
    let rows = format!(
        r#"{{"rows": [{{"path": "a", "file": {{"blob": {{"digest": "{digest}", "size": 6}}, "headers": {{}}, "uploaded_at": 1}}}}]}}"#
    );
    let archive = larder.url("api/v1/archive/files?overwrite=true");
    let carried = client().post(archive).body(rows);
    assert_eq!(carried.send().await.expect("an answer").status(), 200);
    let asked = send("GET", &url, &[("If-Modified-Since", &ours)]).await;
    assert_eq!((asked.status, asked.text().as_str()), (200, "theirs"));
    let range = [("If-Range", &*ours), ("Range", "bytes=2-3")];
    assert_eq!(send("GET", &url, &range).await.status, 200);
    let unless_newer = [("If-Unmodified-Since", &*ours)];
    assert_eq!(put(&url, "ours again", &unless_newer).await.status, 412);
    // Lists say when the bytes were uploaded.
    let listed = get(&larder.artifact("files", "")).await.json();
    assert_eq!(listed["files"][0]["uploaded_at"], "1970-01-01T00:00:00Z");
    let theirs = dated(&url).await;
    assert_eq!(
        put(&url, "ours again", &[("If-Unmodified-Since", &theirs)])
            .await
            .status,
        200
    );
}

//! The stream that keeps an open page up to date.

use std::time::Instant;

use super::support::PATIENCE;
use super::*;

/// Reads a stream until this is in it; gives what was read.
async fn until(response: &mut reqwest::Response, wanted: &str) -> String {
    let (began, mut read) = (Instant::now(), String::new());
    while !read.contains(wanted) {
        assert!(began.elapsed() < PATIENCE, "{read}");
        let chunk = response.chunk().await.expect("more");
        read.push_str(&String::from_utf8_lossy(&chunk.expect("no end yet")));
    }
    read
}

#[tokio::test]
async fn an_open_page_is_told_what_moves_and_keeps_nobody_from_stopping() {
    let (_origin, mut larder) = with_a_file().await;
    let client = builder().build().expect("a client");
    let response = client.get(larder.url("ui/events")).send().await;
    let mut response = response.expect("an answer");
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let first = until(&mut response, "\n\n").await;
    let data = first.strip_prefix("data: ").expect("an event");
    let event: serde_json::Value = serde_json::from_str(data.trim_end()).expect("JSON");
    let keys: Vec<&str> = event
        .as_object()
        .expect("texts")
        .keys()
        .map(|key| &**key)
        .collect();
    // What it names is in the page.
    let text = page(&larder, "ui/").await.text();
    for key in keys {
        assert!(text.contains(&format!("data-live=\"{key}\"")), "{key}");
    }
    get(&larder.artifact("files", "dir/a.bin")).await;
    get(&larder.artifact("files", "dir/a.bin")).await;
    until(&mut response, "\"hit_ratio\":\"50.0").await;
    let began = Instant::now();
    let status = larder.terminate();
    assert!(status.success(), "{status}");
    assert!(began.elapsed() < PATIENCE);
}

/// Each stream holds a connection: there is only so much of them, and who finds no place is told so.
#[tokio::test]
async fn streams_are_bounded() {
    let (_origin, larder) = with_a_file().await;
    let client = builder().build().expect("a client");
    let (mut open, mut refused) = (Vec::new(), 0);
    while refused == 0 {
        assert!(open.len() < 200, "no bound");
        let response = client.get(larder.url("ui/events")).send().await;
        let response = response.expect("an answer");
        match response.status().as_u16() {
            200 => open.push(response),
            503 => refused += 1,
            other => panic!("{other}"),
        }
    }
    assert!(open.len() >= 16, "{}", open.len());
    assert_eq!(page(&larder, "ui/").await.status, 200, "pages go on");
    drop(open);
    let began = Instant::now();
    loop {
        let response = client.get(larder.url("ui/events")).send().await;
        if response.expect("an answer").status() == 200 {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "places are given back");
    }
}

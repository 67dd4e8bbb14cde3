//! How often files were served: counted wherever the answer comes from, and kept over a restart.

use super::*;

const PATH: &str = "dir/a.bin";

async fn downloads(larder: &TestLarder, repository: &str) -> serde_json::Value {
    let shown = json(
        larder,
        &format!("ui/repositories/{repository}/artifact/{PATH}"),
    )
    .await;
    shown["copies"][0]["downloads"].clone()
}

/// Answers with bytes: six, of which one is a part. What has none counts for nothing.
async fn ask(larder: &TestLarder, repository: &str) {
    let url = larder.artifact(repository, PATH);
    let mut tag = String::new();
    for _ in 0..5 {
        let answer = get(&url).await;
        assert_eq!(answer.status, 200);
        answer.header("etag").clone_into(&mut tag);
        larder.until_idle().await;
    }
    assert_eq!(
        send("GET", &url, &[("range", "bytes=0-3")]).await.status,
        206
    );
    assert_eq!(send("HEAD", &url, &[]).await.status, 200);
    let known = send("GET", &url, &[("if-none-match", &*tag)]).await;
    assert_eq!(known.status, 304);
    assert_eq!(
        send("GET", &url, &[("range", "bytes=99-")]).await.status,
        416
    );
}

#[tokio::test]
async fn what_is_served_is_counted_and_kept_over_a_restart() {
    let (_origin, mut larder) = with_a_file().await;
    ask(&larder, "files").await;
    assert_eq!(downloads(&larder, "files").await, 6);
    let text = page(&larder, &format!("ui/repositories/files/artifact/{PATH}"))
        .await
        .text();
    assert!(text.contains("<dt>Downloads</dt>"), "{text}");
    assert!(larder.terminate().success());
    larder.restart().await;
    assert_eq!(downloads(&larder, "files").await, 6);
    ask(&larder, "files").await;
    assert_eq!(downloads(&larder, "files").await, 12);
}

#[tokio::test]
async fn an_uploads_downloads_are_counted_too() {
    let (_origin, mut larder) = with_a_file().await;
    let url = larder.artifact("uploads", PATH);
    let request = client().put(&url).bearer_auth(TOKEN).body("the bytes of b");
    assert_eq!(request.send().await.expect("an answer").status(), 201);
    ask(&larder, "uploads").await;
    assert_eq!(downloads(&larder, "uploads").await, 6);
    assert!(larder.terminate().success());
    larder.restart().await;
    assert_eq!(downloads(&larder, "uploads").await, 6);
}

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use larder_upstream::{ScriptedReply, ScriptedUpstream, Upstream, UpstreamErrorKind};
use tokio::sync::Notify;
use url::Url;

use crate::support::{get, kind, read, repository, settings};

#[tokio::test(start_paused = true)]
async fn a_script_is_followed_and_remembered() {
    let url = Url::parse("https://files.example.com/a").unwrap();
    let repository = repository(settings(&url));
    let upstream =
        ScriptedUpstream::answering(|request| ScriptedReply::ok(request.url.path().to_owned()));
    let gate = Arc::new(Notify::new());
    upstream.push(ScriptedReply::error(UpstreamErrorKind::TimedOut));
    upstream.push(
        ScriptedReply::status(200)
            .header("content-length", "6")
            .head_after(Duration::from_secs(2))
            .chunk("ab")
            .pause(Duration::from_secs(3))
            .wait(&gate)
            .chunk("cd")
            .fail(UpstreamErrorKind::Truncated),
    );
    assert_eq!(
        kind(upstream.send(get(&repository, url.clone())).await),
        UpstreamErrorKind::TimedOut
    );
    let start = tokio::time::Instant::now();
    let mut response = upstream.send(get(&repository, url.clone())).await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(2));
    assert_eq!(response.body.declared_length(), Some(6));
    assert_eq!(response.body.next().await.unwrap().unwrap(), "ab");
    gate.notify_one();
    assert_eq!(response.body.next().await.unwrap().unwrap(), "cd");
    assert_eq!(start.elapsed(), Duration::from_secs(5));
    assert_eq!(
        response.body.next().await.unwrap().unwrap_err().kind,
        UpstreamErrorKind::Truncated
    );
    assert!(response.body.next().await.is_none());
    let third = upstream.send(get(&repository, url.clone())).await.unwrap();
    assert_eq!(read(third).await, (b"/a".to_vec(), None));
    assert_eq!(upstream.requests().len(), 3);
    assert_eq!(upstream.requests()[2].url, url);
}

#[tokio::test(start_paused = true)]
async fn scripted_bodies_obey_the_same_rules() {
    let url = Url::parse("https://files.example.com/a").unwrap();
    let repository = repository(settings(&url));
    let upstream = ScriptedUpstream::new();
    upstream.push(
        ScriptedReply::status(200)
            .header("content-length", "3")
            .chunk("ab"),
    );
    upstream.push(
        ScriptedReply::status(200)
            .chunk("ab")
            .wait(&Arc::new(Notify::new())),
    );
    for (bytes, end) in [
        (b"ab", UpstreamErrorKind::Truncated),
        (b"ab", UpstreamErrorKind::TimedOut),
    ] {
        assert_eq!(
            read(upstream.send(get(&repository, url.clone())).await.unwrap()).await,
            (bytes.to_vec(), Some(end))
        );
    }
    assert_eq!(
        kind(upstream.send(get(&repository, url)).await),
        UpstreamErrorKind::Unreachable
    );
}

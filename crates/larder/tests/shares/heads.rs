//! HEAD: each is a question to the upstream.

use crate::bystander::Bystander;
use crate::support::{TestLarder, send};
use crate::upstream::{Manner, Upstream};
use crate::{ask, until};

/// Fifteen hundred HEADs to an upstream that does not answer.
#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_not_answered_leave_room_for_others() {
    let (mut bystander, bad) = (
        Bystander::new().await,
        Upstream::start(Manner::Silent).await,
    );
    let larder = TestLarder::start(&format!(
        "remotes:\n{}{}",
        bystander.entries(),
        bad.entry("bad", "generic", "")
    ))
    .await;
    let before = larder.resident_memory();
    let mut clients = Vec::new();
    for n in 0..1_500 {
        clients.push(ask(&larder, "HEAD", "bad", &format!("file-{n}.bin")).await);
    }
    until("the upstream is asked", async || bad.asked() >= 100).await;
    bystander.measure(&larder, "1,500 HEADs wait").await;
    bystander.measure(&larder, "1,500 HEADs still wait").await;
    let (open, grown) = (bad.open(), larder.resident_memory().saturating_sub(before));
    eprintln!("1,500 HEADs: {open} connections upstream, memory grew by {grown} MiB");
    // Of 256 places.
    assert!(open <= 192, "{open} connections to one upstream");
    // A thousand wait; the others are told when to come back, and so is whoever comes now.
    let answer = send("HEAD", &larder.artifact("bad", "one-more.bin"), &[]).await;
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").parse::<u32>().is_ok());
    assert!(larder.metric("larder_budget_refused_total", "heads").await > 1.0);
    let waiting = larder.metric("larder_budget_waiting", "heads").await;
    assert!((1_023.5..1_024.5).contains(&waiting), "{waiting}");
    drop(clients);
}

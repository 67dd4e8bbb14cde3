//! Downloads: those that drip, and those that were given up.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::bystander::Bystander;
use crate::support::TestLarder;
use crate::upstream::{Manner, Upstream};
use crate::{ask, until};

/// Every download place there is, and more, for an upstream that sends a byte a second.
#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_drips_leaves_room_for_others() {
    for downloads in [512, 600] {
        let (mut bystander, bad) = (Bystander::new().await, Upstream::start(Manner::Drips).await);
        let larder = TestLarder::start(&format!(
            "remotes:\n{}{}",
            bystander.entries(),
            bad.entry("bad", "generic", "")
        ))
        .await;
        let before = larder.resident_memory();
        let mut clients = Vec::new();
        for n in 0..downloads {
            clients.push(ask(&larder, "GET", "bad", &format!("file-{n}.bin")).await);
        }
        until("the upstream drips on many", async || bad.asked() >= 300).await;
        bystander
            .measure(&larder, &format!("{downloads} downloads drip"))
            .await;
        bystander
            .measure(&larder, &format!("{downloads} downloads still drip"))
            .await;
        eprintln!(
            "{downloads} downloads: {} connections upstream, memory {before} -> {} MiB",
            bad.open(),
            larder.resident_memory()
        );
        drop(clients);
    }
}

/// Ten thousand requests for files and pages whose clients wait no longer than a moment, to an upstream that says nothing.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_were_given_up_leave_room_for_others() {
    let (mut bystander, bad) = (
        Bystander::new().await,
        Upstream::start(Manner::Silent).await,
    );
    let larder = TestLarder::start(&format!(
        "remotes:\n{}{}",
        bystander.entries(),
        bad.entry("bad", "generic", "") + &bad.entry("bad-pages", "pypi", "")
    ))
    .await;
    bystander.measure(&larder, "nothing else").await;
    let before = larder.resident_memory();
    let larder = std::sync::Arc::new(larder);
    let mut clients = JoinSet::new();
    for client in 0..100 {
        let larder = std::sync::Arc::clone(&larder);
        clients.spawn(async move {
            for n in 0..100 {
                let (repository, path) = if n % 2 == 0 {
                    ("bad", format!("file-{client}-{n}.bin"))
                } else {
                    ("bad-pages", format!("simple/page-{client}-{n}/"))
                };
                let socket = ask(&larder, "GET", repository, &path).await;
                tokio::time::sleep(Duration::from_millis(50)).await;
                drop(socket);
            }
        });
    }
    bystander.measure(&larder, "requests are given up").await;
    while clients.join_next().await.is_some() {}
    bystander
        .measure(&larder, "10,000 requests were given up")
        .await;
    let (open, grown) = (bad.open(), larder.resident_memory().saturating_sub(before));
    eprintln!("10,000 requests: {open} connections upstream, memory grew by {grown} MiB");
    // Of 512 places for files and 256 for documents.
    assert!(open <= 384 + 192, "{open} connections to one upstream");
    assert!(grown < 128, "{grown} MiB");
}

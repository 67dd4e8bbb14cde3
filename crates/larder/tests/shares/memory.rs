//! Bytes in memory: large documents, and files that are not kept for readers that do not read.

use std::fmt::Write as _;
use std::time::Duration;

use larder_testkit::{Origin, Resource};

use crate::bystander::Bystander;
use crate::support::client::{client, try_send};
use crate::support::packages::entry;
use crate::support::{PATIENCE, TestLarder};
use crate::upstream::{Manner, Upstream};
use crate::{ask, until};

/// How long a large document is, in MiB: as long as the longest that are met, but where nothing is optimised.
const LARGE: usize = if cfg!(debug_assertions) { 10 } else { 40 };

/// A packument of that length.
fn packument(name: &str) -> String {
    let mut text = format!(r#"{{"name":"{name}","dist-tags":{{"latest":"1.0.0"}},"versions":{{"#);
    let filler = "x".repeat(2_000);
    for n in 0.. {
        let comma = if n == 0 { "" } else { "," };
        write!(
            text,
            r#"{comma}"1.0.{n}":{{"name":"{name}","version":"1.0.{n}","description":"{filler}","dist":{{"tarball":"https://registry.example.com/{name}/-/{name}-1.0.{n}.tgz","shasum":"da39a3ee5e6b4b0d3255bfef95601890afd80709"}}}}"#
        )
        .unwrap();
        if text.len() > LARGE << 20 {
            break;
        }
    }
    text + "}}"
}

/// Six of them at once from one repository.
#[tokio::test(flavor = "multi_thread")]
async fn six_large_documents_leave_room_for_others() {
    let (mut bystander, large) = (Bystander::new().await, Origin::start().await);
    for n in 0..6 {
        let name = format!("large{n}");
        let document = Resource::new(packument(&name)).content_type("application/json");
        large.put(&format!("/{name}"), document);
    }
    let larder = TestLarder::start(&format!(
        "remotes:\n{}{}",
        bystander.entries(),
        entry("large", "npm", &large, "")
    ))
    .await;
    bystander.measure(&larder, "nothing else").await;
    let before = larder.resident_memory();
    let mut clients = Vec::new();
    for n in 0..6 {
        let url = larder.artifact("large", &format!("large{n}"));
        clients.push(tokio::spawn(async move {
            let answer = try_send(&client(), "GET", &url, &[]).await.unwrap();
            (answer.status, answer.body.len())
        }));
    }
    bystander
        .measure(&larder, &format!("six documents of {LARGE} MiB are read"))
        .await;
    for client in clients {
        let (status, length) = client.await.unwrap();
        assert!(
            status == 200 && length > LARGE << 20,
            "{status}, {length} bytes"
        );
    }
    let grown = larder.peak_memory().saturating_sub(before);
    eprintln!("six documents of {LARGE} MiB: memory grew by {grown} MiB");
    // Two at a time, of which each takes a few times its length.
    assert!(grown < 2 * 5 * LARGE as u64 + 64, "{grown} MiB");
}

/// Readers that take nothing of files that the repository does not keep: their bytes have nowhere to go.
#[tokio::test(flavor = "multi_thread")]
async fn readers_that_do_not_read_leave_room_for_others() {
    let (mut bystander, bad) = (
        Bystander::new().await,
        Upstream::start(Manner::Sends(64 << 20)).await,
    );
    let larder = TestLarder::start(&format!(
        "remotes:\n{}{}",
        bystander.entries(),
        bad.entry("bad", "generic", "    max_size: 1MiB\n")
    ))
    .await;
    bystander.measure(&larder, "nothing else").await;
    let before = larder.resident_memory();
    let mut clients = Vec::new();
    for n in 0..100 {
        clients.push(ask(&larder, "GET", "bad", &format!("file-{n}.bin")).await);
    }
    until("the upstream is asked", async || bad.asked() >= 60).await;
    bystander.measure(&larder, "100 readers do not read").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    bystander
        .measure(&larder, "100 readers still do not read")
        .await;
    let grown = larder.peak_memory().saturating_sub(before);
    eprintln!("100 readers that do not read: memory grew by {grown} MiB");
    // Room for what is not kept, and what each connection has under way.
    assert!(grown < 256 + 128, "{grown} MiB");
    drop(clients);
}

/// The same, few enough that all have room: they are cut off, though their connections stay.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_nothing_is_cut_off() {
    let bad = Upstream::start(Manner::Sends(64 << 20)).await;
    let larder = TestLarder::start(&format!(
        "remotes:\n{}",
        bad.entry("bad", "generic", "    max_size: 1MiB\n")
    ))
    .await;
    let mut clients = Vec::new();
    for n in 0..10 {
        clients.push(ask(&larder, "GET", "bad", &format!("file-{n}.bin")).await);
    }
    until("the upstream is asked", async || bad.asked() == 10).await;
    let ended = tokio::time::timeout(2 * PATIENCE, async {
        while bad.open() > 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    assert!(ended.await.is_ok(), "{} downloads go on", bad.open());
    let held = larder.metric("larder_budget_held", "unkept_bytes").await;
    assert!(held < 1.0, "{held} bytes");
    drop(clients);
}

//! One client that asks several repositories of one bad upstream.

use crate::bystander::Bystander;
use crate::support::TestLarder;
use crate::upstream::{Manner, Upstream};
use crate::{ask, until};

const REPOSITORIES: usize = 8;

/// Downloads that drip and HEADs that are not answered, through more repositories than would each be held to their own share.
#[tokio::test(flavor = "multi_thread")]
async fn several_repositories_of_one_upstream_leave_room_for_others() {
    let (mut bystander, drips, silent) = (
        Bystander::new().await,
        Upstream::start(Manner::Drips).await,
        Upstream::start(Manner::Silent).await,
    );
    let mut config = format!("remotes:\n{}", bystander.entries());
    for n in 0..REPOSITORIES {
        config += &drips.entry(&format!("drips{n}"), "generic", "");
        config += &silent.entry(&format!("silent{n}"), "generic", "");
        config += &silent.entry(&format!("pages{n}"), "pypi", "");
    }
    let larder = TestLarder::start(&config).await;
    let before = larder.resident_memory();
    let mut clients = Vec::new();
    for file in 0..80 {
        for n in 0..REPOSITORIES {
            let path = format!("file-{file}.bin");
            clients.push(ask(&larder, "GET", &format!("drips{n}"), &path).await);
            clients.push(ask(&larder, "HEAD", &format!("silent{n}"), &path).await);
            let page = format!("simple/page-{file}/");
            clients.push(ask(&larder, "GET", &format!("pages{n}"), &page).await);
        }
    }
    until("the upstreams are asked", async || {
        drips.asked() >= 300 && silent.asked() >= 300
    })
    .await;
    let meanwhile = "640 downloads drip, 640 HEADs and 640 pages wait";
    bystander.measure(&larder, meanwhile).await;
    bystander.measure(&larder, meanwhile).await;
    eprintln!(
        "{meanwhile}: {} + {} connections upstream, memory {before} -> {} MiB",
        drips.open(),
        silent.open(),
        larder.resident_memory()
    );
    assert!(drips.open() <= 384, "{} of 512 places", drips.open());
    assert!(silent.open() <= 384, "{} of 512 places", silent.open());
    drop(clients);
}

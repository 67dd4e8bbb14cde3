//! Many upstreams that drip, between them on every place there is.

use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::bystander::Bystander;
use crate::support::client::{client, try_send};
use crate::support::{TestLarder, send};
use crate::upstream::{Manner, Upstream};
use crate::{ask, until};

/// All places for downloads.
const PLACES: usize = 512;

/// How long the first new file waits: five seconds until what drips counts as slow, one until it looks around, one to spare.
const FIRST: Duration = Duration::from_secs(if cfg!(debug_assertions) { 10 } else { 7 });

/// One that reads what drips.
struct Reader {
    url: String,
    socket: TcpStream,
}

impl Reader {
    /// Whether its answer has ended, or there is none and the connection is closed; what it says then.
    async fn ended(&mut self) -> Option<String> {
        let mut answer = Vec::new();
        let read = async {
            while self
                .socket
                .read_buf(&mut answer)
                .await
                .is_ok_and(|read| read > 0)
            {
                if answer.windows(4).any(|window| window == b"busy") {
                    return;
                }
            }
        };
        let ended = tokio::time::timeout(Duration::from_millis(2), read).await;
        ended
            .ok()
            .map(|()| String::from_utf8_lossy(&answer).into_owned())
    }
}

/// Six or eight upstreams drip on 512 downloads that clients read; then somebody wants a file of another repository.
#[tokio::test(flavor = "multi_thread")]
async fn upstreams_that_hold_all_places_between_them_give_some_up() {
    for upstreams in [6, 8] {
        dripping_on_all_places(upstreams).await;
    }
}

async fn dripping_on_all_places(upstreams: usize) {
    let mut bystander = Bystander::new().await;
    let mut config = format!("remotes:\n{}", bystander.entries());
    let mut bad = Vec::new();
    for n in 0..upstreams {
        let upstream = Upstream::start(Manner::Drips).await;
        config += &upstream.entry(&format!("drips{n}"), "generic", "");
        bad.push(upstream);
    }
    let larder = TestLarder::start(&config).await;
    let mut readers = Vec::new();
    for (n, upstream) in bad.iter().enumerate() {
        take_what_there_is(&larder, &format!("drips{n}"), upstream, &mut readers).await;
    }
    // But for a rest that none of those who wait may have, and that is not always the same.
    until("every place is taken", async || {
        held(&larder).await >= PLACES - upstreams
    })
    .await;
    let meanwhile = format!("{upstreams} upstreams drip on {PLACES} downloads");

    let began = Instant::now();
    let url = larder.artifact("files", "files/199.bin");
    let answer = try_send(&client(), "GET", &url, &[]).await.unwrap();
    eprintln!(
        "{meanwhile}: the first new file after {:?}",
        began.elapsed()
    );
    assert_eq!((answer.status, &*answer.text()), (200, "file 199"));
    assert!(began.elapsed() < FIRST, "{:?}", began.elapsed());
    // By now all that drips counts as slow.
    bystander.measure(&larder, &meanwhile).await;
    let yielded = larder
        .metric("larder_budget_yielded_total", "downloads")
        .await;
    assert!(yielded > 0.5, "{yielded} were given up");
    assert!(held(&larder).await > PLACES / 2, "most go on");

    // Whoever reads what was given up is told, and whoever is not yet let in waits.
    let mut ended = Vec::new();
    for mut reader in readers {
        if reader.ended().await.is_some() {
            ended.push(reader.url);
        }
    }
    eprintln!(
        "{yielded} downloads were given up, {} answers ended",
        ended.len()
    );
    assert!(!ended.is_empty());

    // Nothing of them is kept, and the same files come whole from upstreams that no longer drip.
    bad.iter().for_each(Upstream::cure);
    until("no download is left", async || held(&larder).await == 0).await;
    let listed = send("GET", &larder.url("api/v1/artifacts?limit=1000"), &[]).await;
    assert!(listed.status == 200 && listed.text().contains("files/199.bin"));
    assert!(!listed.text().contains("drips"), "{}", listed.text());
    for url in ended.iter().take(20) {
        // What broke off has opened the breaker, which lets nobody through for a moment.
        let mut body = Vec::new();
        until("it comes", async || {
            let answer = try_send(&client(), "GET", url, &[]).await.unwrap();
            body = answer.body;
            answer.status == 200
        })
        .await;
        assert_eq!(body.len(), Upstream::WHOLE, "{url}");
        assert!(body.iter().all(|byte| *byte == b'y'), "{url}");
    }
}

async fn held(larder: &TestLarder) -> usize {
    larder.metric("larder_budget_held", "downloads").await as usize
}

/// Asks one upstream for more than there are places, until it gets no more.
async fn take_what_there_is(
    larder: &TestLarder,
    repository: &str,
    upstream: &Upstream,
    readers: &mut Vec<Reader>,
) {
    let before = held(larder).await;
    for file in 0..(PLACES - before).max(16) {
        let path = format!("file-{file}.bin");
        readers.push(Reader {
            url: larder.artifact(repository, &path),
            socket: ask(larder, "GET", repository, &path).await,
        });
    }
    let mut last = before;
    until("it has what it gets", async || {
        tokio::time::sleep(Duration::from_millis(150)).await;
        let now = held(larder).await;
        let is_steady = std::mem::replace(&mut last, now) == now;
        is_steady && upstream.asked() > 0
    })
    .await;
}

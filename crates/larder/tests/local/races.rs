//! Many at once on one path: whole files, one winner.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use larder_core::sha256;

use crate::support::client::{client, try_send};
use crate::support::{get, send};
use crate::{put, start, stored, try_put};

const WRITERS: usize = 64;
const READS: usize = 10_000;

/// A body that says of which writer it is in every byte but is of its own length.
fn body(writer: usize) -> Vec<u8> {
    vec![writer as u8; 20_000 + writer * 1_000]
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_l5_sixty_four_writers_and_ten_thousand_reads() {
    let larder = start().await;
    let url = Arc::new(larder.artifact("files", "contested"));
    assert_eq!(put(&url, body(WRITERS), &[]).await.status, 201);
    let whole: Arc<HashSet<String>> = Arc::new(
        (0..=WRITERS)
            .map(|writer| sha256(&body(writer)).to_hex())
            .collect(),
    );
    let (reads, done) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let readers: Vec<_> = (0..16)
        .map(|_| {
            let (url, whole, reads, done) = (
                Arc::clone(&url),
                Arc::clone(&whole),
                Arc::clone(&reads),
                Arc::clone(&done),
            );
            tokio::spawn(async move {
                let client = client();
                while reads.fetch_add(1, Ordering::Relaxed) < READS || !done.load(Ordering::Acquire)
                {
                    let answer = try_send(&client, "GET", &url, &[])
                        .await
                        .expect("an answer");
                    let digest = sha256(&answer.body).to_hex();
                    assert_eq!(answer.status, 200);
                    assert!(
                        whole.contains(&digest),
                        "{} bytes of no writer",
                        answer.body.len()
                    );
                    assert_eq!(answer.header("etag"), format!("\"sha256-{digest}\""));
                }
            })
        })
        .collect();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let url = Arc::clone(&url);
            tokio::spawn(async move { put(&url, body(writer), &[]).await.status })
        })
        .collect();
    for writer in writers {
        assert_eq!(writer.await.expect("a writer"), 200);
    }
    done.store(true, Ordering::Release);
    let winner = get(&url).await.header("etag").to_owned();
    for reader in readers {
        reader.await.expect("a reader");
    }
    assert!(reads.load(Ordering::Relaxed) >= READS);
    let answer = get(&url).await;
    assert_eq!(
        (answer.header("etag"), sha256(&answer.body).to_hex()),
        (
            &*winner,
            winner
                .trim_matches('"')
                .trim_start_matches("sha256-")
                .to_owned()
        )
    );
    let list = send("GET", &larder.url("api/v1/artifacts/files"), &[])
        .await
        .json();
    assert_eq!(list["artifacts"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        list["artifacts"][0]["size"].as_u64(),
        Some(answer.body.len() as u64)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_l5_of_those_who_want_to_be_first_one_is() {
    let larder = start().await;
    for (repository, fields, lost) in [
        ("files", &[("If-None-Match", "*")][..], 412),
        ("fixed", &[], 409),
    ] {
        let url = Arc::new(larder.artifact(repository, "once"));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let url = Arc::clone(&url);
                let fields = fields.to_vec();
                tokio::spawn(async move {
                    (
                        writer,
                        try_put(&client(), &url, body(writer), &fields)
                            .await
                            .expect("an answer")
                            .status,
                    )
                })
            })
            .collect();
        let mut winners = Vec::new();
        for writer in writers {
            match writer.await.expect("a writer") {
                (writer, 201) => winners.push(writer),
                (_, status) => assert_eq!(status, lost),
            }
        }
        let [winner] = winners[..] else {
            panic!("{winners:?}")
        };
        assert!(get(&url).await.body == body(winner));
    }
    let files = stored(&larder);
    assert!(
        files.len() <= 2,
        "those who lost left {} files",
        files.len()
    );
}

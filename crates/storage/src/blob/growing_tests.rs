use futures_util::StreamExt as _;

use super::*;

const TAIL: Withheld = Withheld {
    tail: 10,
    of_parts: false,
};

fn spool(total: Option<u64>, withheld: Withheld) -> Arc<GrowingSpool> {
    let spool = GrowingSpool::new(total, withheld, 100);
    spool.start_ring(0);
    Arc::new(spool)
}

async fn push(spool: &GrowingSpool, bytes: &'static [u8], available: u64) {
    spool.push_ring(Bytes::from_static(bytes)).await.unwrap();
    spool.publish(available);
}

#[tokio::test]
async fn the_last_bytes_wait_for_the_word_on_all() {
    let spool = spool(Some(26), TAIL);
    let mut chunks = spool.body().chunks();
    push(&spool, b"abcdefghijklmnopqrstuvwxyz", 26).await;
    assert_eq!(chunks.next().await.unwrap().unwrap(), "abcdefghijklmnop");
    let waiting = tokio::time::timeout(Duration::from_millis(20), chunks.next());
    assert!(waiting.await.is_err(), "withheld");
    let mut part = spool.body().range(18, 20).chunks();
    assert_eq!(part.next().await.unwrap().unwrap(), "st", "a part is not");
    spool.verified(26);
    assert_eq!(chunks.next().await.unwrap().unwrap(), "qrstuvwxyz");
    assert!(chunks.next().await.is_none());
}

#[tokio::test]
async fn where_bytes_must_have_a_digest_parts_wait_too() {
    let withheld = Withheld {
        tail: 10,
        of_parts: true,
    };
    let spool = spool(Some(26), withheld);
    push(&spool, b"abcdefghijklmnopqrstuvwxyz", 26).await;
    let mut part = spool.body().range(2, 15).chunks();
    assert_eq!(part.next().await.unwrap().unwrap(), "cde");
    let fault = Fault::new(FaultKind::BadGateway, ErrorCode::UpstreamCut, "cut");
    spool.fail(fault);
    let error = part.next().await.unwrap().unwrap_err();
    assert!(error.to_string().contains("cut"), "{error}");
}

#[tokio::test]
async fn the_ring_lets_go_of_what_all_have_read() {
    let spool = spool(None, Withheld::default());
    let mut first = spool.body().chunks();
    push(&spool, &[b'a'; 80], 80).await;
    let full = spool.push_ring(Bytes::from_static(&[b'b'; 80]));
    let full = tokio::time::timeout(Duration::from_millis(20), full);
    assert!(full.await.is_err(), "nobody has read the first chunk");
    assert_eq!(first.next().await.unwrap().unwrap(), &[b'a'; 80][..]);
    push(&spool, &[b'b'; 80], 160).await;
    assert!(!spool.holds_everything());
    assert!(spool.body_from_start().is_none());
    assert_eq!(first.next().await.unwrap().unwrap(), &[b'b'; 80][..]);
    assert!(spool.holds_at(80, &[b'b'; 80]) && !spool.holds_at(80, b"x"));
    assert!(spool.read_arrived(160).is_err(), "the first bytes are gone");
    drop(first);
    assert_eq!(spool.readers(), 0);
}

#[tokio::test]
async fn the_length_of_an_endless_looking_body_is_known_at_its_end() {
    let spool = spool(None, Withheld::default());
    let body = spool.body();
    assert_eq!(body.length(), None);
    let waiting = body.clone();
    let length = tokio::spawn(async move { waiting.wait_length().await });
    push(&spool, b"abc", 3).await;
    spool.verified(3);
    assert_eq!(length.await.unwrap().unwrap(), 3);
    assert_eq!(body.length(), Some(3));
    let failed = Arc::new(GrowingSpool::new(None, TAIL, 1));
    let fault = Fault::new(FaultKind::BadGateway, ErrorCode::UpstreamCut, "cut");
    failed.fail(fault);
    assert_eq!(
        failed.body().wait_length().await.unwrap_err().code,
        ErrorCode::UpstreamCut
    );
}

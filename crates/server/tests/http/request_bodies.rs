//! Bodies of requests (hazards X3, R5, S11): nobody reads what nobody wants, all together have bounds, and whoever is told to stop
//! gets to read it.

use std::sync::Arc;
use std::time::Duration;

use larder_budget::{Budgets, Totals};

use crate::harness::{Script, Server, settings};

const AUDIT: &str = "/api/v1/remote/npm/-/audit";

/// Every way to send a body to something that takes none, with the status that the request has without one.
const UNWANTED: &[(&str, &str, u16)] = &[
    ("POST", "/api/v1/remote/absent/-/audit", 404),
    ("PUT", "/api/v1/remote/absent/x", 404),
    ("PUT", "/api/v1/remote/files/x", 405),
    ("DELETE", "/api/v1/remote/files/x", 404),
    ("PATCH", "/api/v1/remote/npm/x", 405),
    ("PUT", "/api/v1/remote/uploads/x", 501),
    ("POST", "/api/v1/virtual/all/x", 405),
    ("POST", "/v2/hub/x/blobs/uploads/", 405),
    ("PATCH", "/v2/hub/x/blobs/uploads/1", 405),
    ("PUT", "/v2/hub/x/manifests/latest", 405),
    ("POST", "/v2/", 405),
    ("POST", "/hub/v2/x/blobs/uploads/", 405),
    ("PUT", "/cache/flush", 400),
    ("POST", "/cache/flush", 405),
    ("POST", "/health", 405),
    ("POST", "/", 405),
    ("PUT", "/nowhere", 404),
    ("BREW", "/nowhere", 404),
    ("GET", "/api/v1/remote/files/x", 400),
    ("HEAD", "/live", 400),
];

const FRAMINGS: &[&str] = &["Content-Length: 10000000", "Transfer-Encoding: chunked"];

/// Of the body nothing is ever sent: who waited for it would wait for ever. The connection is closed, for what came next could not be
/// told from the body (hazard S11).
#[tokio::test]
async fn hazard_x3_what_takes_no_body_is_answered_before_any_of_it_has_come() {
    let server = Server::start().await;
    for (method, path, status) in UNWANTED {
        for framing in FRAMINGS {
            let mut client = server.connect().await;
            client
                .send(
                    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n")
                        .as_bytes(),
                )
                .await;
            let answer = client.answer(*method == "HEAD").await;
            assert_eq!(answer.status, *status, "{method} {path} {framing}");
            assert_eq!(
                answer.header("connection"),
                Some("close"),
                "{method} {path} {framing}"
            );
            client.expect_close().await;
        }
    }
    assert_eq!(server.questions(), 0);
}

/// Many clients look for an answer only when they have sent all. The kernel would answer their bytes with a reset, and the answer
/// would be lost with it, if the connection were closed at once.
#[tokio::test]
async fn hazard_s11_who_sends_a_whole_unwanted_body_first_still_reads_the_answer() {
    let server = Server::start().await;
    let body = vec![b'x'; 9 << 20];
    for (method, path, status) in UNWANTED {
        let mut client = server.connect().await;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        client.send(head.as_bytes()).await;
        client.send(&body).await;
        assert_eq!(
            client.answer(*method == "HEAD").await.status,
            *status,
            "{method} {path}"
        );
        client.expect_close().await;
    }
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused_by_its_length_or_as_soon_as_it_is() {
    let mut settings = settings();
    settings.limits.body_bytes = 1_000;
    let server = Server::with(settings).await;
    for rest in [
        "Content-Length: 1001\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n3e8\r\n",
    ] {
        let chunk = if rest.contains("chunked") {
            format!("{}\r\n1\r\nx", "a".repeat(1_000))
        } else {
            String::new()
        };
        let answer = server
            .raw(format!("POST {AUDIT} HTTP/1.1\r\nHost: localhost\r\n{rest}{chunk}").as_bytes())
            .await;
        assert_eq!(answer.status, 413, "{rest:?}");
        assert!(answer.text().contains("1000 bytes"), "{}", answer.text());
    }
    assert_eq!(server.questions(), 0);
}

/// RFC 9110 section 10.1.1: a client that asks whether it may send its body is told so only if it may.
#[tokio::test]
async fn who_asks_before_sending_is_told_to_go_on_only_where_the_body_is_wanted() {
    let server = Server::start().await;
    server.script("-/audit", Script::Through("{}".into()));
    let head = |path: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n").into_bytes()
    };
    let mut client = server.connect().await;
    client.send(&head("/api/v1/remote/absent/-/audit")).await;
    assert_eq!(client.answer(false).await.status, 404);
    let mut client = server.connect().await;
    client.send(&head(AUDIT)).await;
    assert_eq!(client.answer(true).await.status, 100);
    client.send(b"abc").await;
    assert_eq!(client.answer(false).await.status, 200);
}

/// Room for so many bytes.
fn bodies_of(request_bytes: usize) -> Arc<Budgets> {
    Arc::new(Budgets::new(Totals {
        request_bytes,
        ..Totals::default()
    }))
}

/// The room is leased by length, in the order of arrival; who finds none in time is told when to come back; it is free again when
/// the one who had it has gone.
#[tokio::test]
async fn hazard_r5_all_bodies_together_have_a_bound() {
    let mut settings = settings();
    settings.budgets = bodies_of(64 << 10);
    settings.limits.body_patience = Duration::from_millis(200);
    let server = Server::with(settings).await;
    server.script("-/audit", Script::Through("{}".into()));
    // Of 64 KiB, of which one repository has 48.
    let body = vec![b'x'; 40_000];
    let head = format!(
        "POST {AUDIT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut first = server.connect().await;
    first.send(head.as_bytes()).await;
    let answered = async {
        loop {
            let mut second = server.connect().await;
            second.send(head.as_bytes()).await;
            second.send(&body).await;
            let answer = second.answer(false).await;
            // Until the first has been looked at, the second has the room for a moment.
            if answer.status != 200 {
                return answer;
            }
        }
    };
    let answer = tokio::time::timeout(Duration::from_secs(20), answered)
        .await
        .expect("never refused");
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (503, Some("5"))
    );
    let small = format!("POST {AUDIT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc");
    let mut third = server.connect().await;
    third.send(small.as_bytes()).await;
    assert_eq!(
        third.answer(false).await.status,
        200,
        "there is room for a short one"
    );
    first.send(&body).await;
    assert_eq!(first.answer(false).await.status, 200);
    let mut fourth = server.connect().await;
    fourth.send(head.as_bytes()).await;
    fourth.send(&body).await;
    assert_eq!(
        fourth.answer(false).await.status,
        200,
        "the room is free again"
    );
}

/// A body that does not say its length takes its room as it grows.
#[tokio::test]
async fn hazard_r5_chunked_bodies_are_counted_as_they_come() {
    let mut settings = settings();
    settings.budgets = bodies_of(64 << 10);
    settings.limits.body_patience = Duration::from_millis(200);
    let server = Server::with(settings).await;
    server.script("-/audit", Script::Through("{}".into()));
    let chunk = format!("8000\r\n{}\r\n", "x".repeat(0x8000));
    let request = |chunks: usize| {
        let head = format!(
            "POST {AUDIT} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        format!("{head}{}0\r\n\r\n", chunk.repeat(chunks))
    };
    for (chunks, status) in [(1, 200), (3, 503), (1, 200)] {
        let mut client = server.connect().await;
        client.send(request(chunks).as_bytes()).await;
        assert_eq!(client.answer(false).await.status, status, "{chunks} chunks");
    }
    assert_eq!(server.fake.asked.lock().unwrap()[0].body.len(), 0x8000);
}

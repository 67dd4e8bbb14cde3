use std::time::Duration;

use futures_util::StreamExt;
use larder_upstream::{Framing, Upstream, UpstreamErrorKind, UpstreamRequest};

use crate::origin::{Act, Origin, ok, send};
use crate::support::{get, kind, read, repository, settings, text, upstream};

type Ended = (Vec<u8>, Option<UpstreamErrorKind>);

/// What a client reads when the origin does `acts`.
async fn body(acts: Vec<Act>) -> Ended {
    let origin = Origin::start(move |_| acts.clone()).await;
    let (upstream, _) = upstream();
    let mut settings = settings(&origin.url("/"));
    settings.read_timeout = Duration::from_millis(300);
    read(
        upstream
            .send(get(&repository(settings), origin.url("/")))
            .await
            .unwrap(),
    )
    .await
}

fn then(mut acts: Vec<Act>, act: Act) -> Vec<Act> {
    acts.push(act);
    acts
}

#[tokio::test]
async fn hazard_w1_a_short_body_ends_in_an_error() {
    let truncated = Some(UpstreamErrorKind::Truncated);
    for end in [Act::Close, Act::Reset] {
        let (bytes, error) = body(then(
            send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"),
            end.clone(),
        ))
        .await;
        assert_eq!(error, truncated, "{end:?}");
        assert!(b"abc".starts_with(&bytes), "{end:?}");
    }
    assert_eq!(
        body(then(
            send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"),
            Act::Close
        ))
        .await,
        (vec![], truncated)
    );
    assert_eq!(body(ok("whole")).await, (b"whole".to_vec(), None));
    assert_eq!(body(ok("")).await, (vec![], None));
}

#[tokio::test]
async fn hazard_w2_a_chunked_body_without_its_last_chunk_ends_in_an_error() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let cut = Some(UpstreamErrorKind::Truncated);
    for (sent, end) in [
        ("5\r\nhello\r\n", cut),
        ("5\r\nhello", cut),
        ("5\r\nhel", cut),
        ("5\r\nhello\r\n0\r\n", cut),
        ("", cut),
        ("5\r\nhello\r\n0\r\n\r\n", None),
        ("5\r\nhello\r\nzz\r\n", Some(UpstreamErrorKind::Protocol)),
    ] {
        let (bytes, error) = body(then(send(format!("{head}{sent}")), Act::Close)).await;
        assert_eq!(error, end, "{sent:?}");
        assert!(b"hello".starts_with(&bytes));
    }
}

#[tokio::test]
async fn hazard_w2_how_the_end_is_known_is_said() {
    for (fields, framing, length) in [
        ("Content-Length: 2\r\n\r\nab", Framing::Length, Some(2)),
        (
            "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
            Framing::EndMark,
            None,
        ),
        ("\r\nab", Framing::ConnectionClose, None),
    ] {
        let reply = format!("HTTP/1.1 200 OK\r\n{fields}");
        let origin = Origin::start(move |_| then(send(reply.clone()), Act::Close)).await;
        let (upstream, _) = upstream();
        let response = upstream
            .send(get(
                &repository(settings(&origin.url("/"))),
                origin.url("/"),
            ))
            .await
            .unwrap();
        assert_eq!(
            (response.body.framing(), response.body.declared_length()),
            (framing, length),
            "{fields:?}"
        );
        assert_eq!(read(response).await, (b"ab".to_vec(), None));
    }
}

#[tokio::test]
async fn hazard_a5_no_byte_for_the_read_time_out_ends_the_body_and_slow_bytes_do_not() {
    let (bytes, error) = body(then(
        send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"),
        Act::Stall,
    ))
    .await;
    assert_eq!(
        (bytes, error),
        (b"abc".to_vec(), Some(UpstreamErrorKind::TimedOut))
    );
    let mut slow = send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n");
    for _ in 0..8 {
        slow.extend([
            Act::Pause(Duration::from_millis(100)),
            Act::Send(b"x".to_vec()),
        ]);
    }
    assert_eq!(
        body(slow).await,
        (b"xxxxxxxx".to_vec(), None),
        "800 ms in all, never 300 ms without a byte"
    );
}

#[tokio::test]
async fn hazard_a5_a_head_that_does_not_come_times_out() {
    for acts in [
        vec![Act::Stall],
        then(send("HTTP/1.1 200 OK\r\nContent-"), Act::Stall),
    ] {
        let origin = Origin::start(move |_| acts.clone()).await;
        let (upstream, _) = upstream();
        let mut settings = settings(&origin.url("/"));
        (settings.connect_timeout, settings.read_timeout) =
            (Duration::from_millis(100), Duration::from_millis(200));
        assert_eq!(
            kind(
                upstream
                    .send(get(&repository(settings), origin.url("/")))
                    .await
            ),
            UpstreamErrorKind::TimedOut
        );
        assert_eq!(origin.connections(), 1, "a time-out is not tried again");
    }
}

#[tokio::test]
async fn hazard_s13_surplus_bytes_are_never_the_next_answer() {
    let poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    for first in [
        format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood{poison}"),
        format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n{poison}"
        ),
        format!("HTTP/1.1 304 Not Modified\r\n\r\n{poison}"),
        format!("HTTP/1.1 204 No Content\r\n\r\n{poison}"),
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngoodX".to_owned(),
    ] {
        for method in [http::Method::GET, http::Method::HEAD] {
            let reply = first.clone();
            let origin = Origin::start(move |seen| {
                if seen.nth == 0 && seen.connection == 0 {
                    send(reply.clone())
                } else {
                    ok("next")
                }
            })
            .await;
            let (upstream, _) = upstream();
            let repository = repository(settings(&origin.url("/")));
            let request = UpstreamRequest {
                method: method.clone(),
                ..get(&repository, origin.url("/1"))
            };
            let _ = read(upstream.send(request).await.unwrap()).await;
            assert_eq!(
                text(&upstream, get(&repository, origin.url("/2"))).await,
                "next",
                "{method} {first:?}"
            );
            assert_eq!(origin.seen()[1].connection, 1, "{method} {first:?}");
        }
    }
}

#[tokio::test]
async fn hazard_s13_surplus_bytes_that_come_later_close_the_connection() {
    let origin = Origin::start(|seen| match seen.connection {
        0 => vec![
            Act::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood".to_vec()),
            Act::Pause(Duration::from_millis(30)),
            Act::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison".to_vec()),
        ],
        _ => ok("next"),
    })
    .await;
    let (upstream, _) = upstream();
    let repository = repository(settings(&origin.url("/")));
    assert_eq!(
        text(&upstream, get(&repository, origin.url("/1"))).await,
        "good"
    );
    tokio::time::sleep(Duration::from_millis(120)).await;
    assert_eq!(
        text(&upstream, get(&repository, origin.url("/2"))).await,
        "next"
    );
}

#[tokio::test]
async fn hazard_s13_a_connection_with_an_unread_body_is_not_used_again() {
    let origin = Origin::start(|seen| match seen.connection {
        0 => {
            let mut bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n".to_vec();
            bytes.resize(1_000_000, b'x');
            vec![Act::Send(bytes), Act::Stall]
        }
        _ => ok("next"),
    })
    .await;
    let (upstream, _) = upstream();
    let repository = repository(settings(&origin.url("/")));
    let mut response = upstream
        .send(get(&repository, origin.url("/1")))
        .await
        .unwrap();
    response.body.next().await.unwrap().unwrap();
    drop(response);
    assert_eq!(
        text(&upstream, get(&repository, origin.url("/2"))).await,
        "next"
    );
    assert_eq!(origin.connections(), 2);
}

#[tokio::test]
async fn whole_bodies_leave_a_connection_that_is_used_again() {
    let origin = Origin::start(|_| ok("good")).await;
    let (upstream, _) = upstream();
    let repository = repository(settings(&origin.url("/")));
    for _ in 0..10 {
        assert_eq!(
            text(&upstream, get(&repository, origin.url("/"))).await,
            "good"
        );
    }
    assert_eq!(origin.connections(), 1);
}

/// That an answer with these fields is none that can be read.
async fn assert_refused(origin: &Origin, fields: &str) {
    let (upstream, _) = upstream();
    let request = get(&repository(settings(&origin.url("/"))), origin.url("/"));
    let result = upstream.send(request).await;
    assert_eq!(kind(result), UpstreamErrorKind::Protocol, "{fields:?}");
}

#[tokio::test]
async fn hazard_s11_contradictory_framing_is_refused() {
    for fields in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n4\r\ngood\r\n0\r\n\r\n",
        "Content-Length: 4\r\nContent-Length: 5\r\n\r\ngood",
        "Content-Length: -4\r\n\r\ngood",
        "Content-Length: 4x\r\n\r\ngood",
    ] {
        let reply = format!("HTTP/1.1 200 OK\r\n{fields}");
        let origin = Origin::start(move |_| send(reply.clone())).await;
        assert_refused(&origin, fields).await;
    }
}

/// What ends such a body is not known, and none of these codings was asked for.
#[tokio::test]
async fn hazard_w2_s11_transfer_codings_other_than_chunked_are_refused() {
    for (fields, body) in [
        ("Transfer-Encoding: gzip", "good"),
        ("Transfer-Encoding: xchunked", "good"),
        ("Transfer-Encoding: identity", "good"),
        ("Transfer-Encoding:", "good"),
        ("Transfer-Encoding: chunked, gzip", "4\r\ngood\r\n0\r\n\r\n"),
        ("Transfer-Encoding: gzip, chunked", "4\r\ngood\r\n0\r\n\r\n"),
        (
            "Transfer-Encoding: identity, chunked",
            "4\r\ngood\r\n0\r\n\r\n",
        ),
        (
            "Transfer-Encoding: chunked, chunked",
            "4\r\ngood\r\n0\r\n\r\n",
        ),
        (
            "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
            "4\r\ngood\r\n0\r\n\r\n",
        ),
    ] {
        let reply = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{body}");
        let origin = Origin::start(move |_| then(send(reply.clone()), Act::Close)).await;
        assert_refused(&origin, fields).await;
    }
    let spelt = "HTTP/1.1 200 OK\r\ntransfer-encoding:  Chunked \r\n\r\n4\r\ngood\r\n0\r\n\r\n";
    assert_eq!(body(send(spelt)).await, (b"good".to_vec(), None));
}

#[tokio::test]
async fn garbage_is_a_protocol_error() {
    for garbage in [
        "SSH-2.0-OpenSSH_9.6\r\n\r\n",
        "HTTP/9.9 200 OK\r\n\r\n",
        "\0\0\0\0\0\0\0\0\r\n\r\n",
        "HTTP/1.1 abc\r\n\r\n",
    ] {
        let origin = Origin::start(move |_| then(send(garbage), Act::Close)).await;
        let (upstream, _) = upstream();
        let result = upstream
            .send(get(
                &repository(settings(&origin.url("/"))),
                origin.url("/"),
            ))
            .await;
        assert_eq!(kind(result), UpstreamErrorKind::Protocol, "{garbage:?}");
        assert_eq!(origin.connections(), 1);
    }
}

#[tokio::test]
async fn statuses_and_labels_come_as_they_are() {
    let (upstream, _) = upstream();
    for (status, fields) in [
        (206, "Content-Range: bytes 0-3/10\r\n"),
        (404, ""),
        (429, "Retry-After: 7\r\n"),
        (503, ""),
        (401, "WWW-Authenticate: Basic\r\n"),
    ] {
        let reply = format!("HTTP/1.1 {status} X\r\n{fields}Content-Length: 4\r\n\r\nbody");
        let origin = Origin::start(move |_| send(reply.clone())).await;
        let response = upstream
            .send(get(
                &repository(settings(&origin.url("/"))),
                origin.url("/"),
            ))
            .await
            .unwrap();
        assert_eq!(response.status, status);
        assert_eq!(read(response).await.0, b"body");
        assert_eq!(
            origin.seen().len(),
            1,
            "hazard A9: no status is tried again"
        );
    }
    // A body that is labelled gzip but is not: nothing is decoded.
    let origin = Origin::start(|_| {
        send("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nbody")
    })
    .await;
    let response = upstream
        .send(get(
            &repository(settings(&origin.url("/"))),
            origin.url("/"),
        ))
        .await
        .unwrap();
    assert_eq!(response.header("content-encoding"), Some("gzip"));
    assert_eq!(read(response).await, (b"body".to_vec(), None));
}

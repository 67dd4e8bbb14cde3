//! Requests that are refused before the pipeline hears of them: 4xx, and the connection is closed.

use crate::harness::{Script, Server, Spec};

/// Sends `request`; it must be refused with `status`, the connection closed, the pipeline not asked.
async fn refused(server: &Server, request: &str, status: u16) {
    let answer = server.raw(request.as_bytes()).await;
    assert_eq!(answer.status, status, "{request:?}: {answer:?}");
    assert_eq!(server.questions(), 0, "{request:?} reached the pipeline");
}

const POST: &str = "POST /api/v1/remote/npm/-/audit HTTP/1.1\r\nHost: localhost\r\n";

#[tokio::test]
async fn hazard_s11_ambiguous_framing_is_refused() {
    let server = Server::start().await;
    let smuggled = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for headers in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 5, 5\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity\r\n",
    ] {
        refused(&server, &format!("{POST}{headers}\r\n{smuggled}"), 400).await;
    }
    refused(
        &server,
        &format!("POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n{smuggled}"),
        400,
    )
    .await;
}

#[tokio::test]
async fn hazard_s11_a_smuggled_head_behind_a_good_request_is_refused_too() {
    let server = Server::start().await;
    let good = "GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let bad = format!("{POST}Content-Length: 1\r\nContent-Length: 1\r\n\r\nx");
    let mut client = server.connect().await;
    client.send(format!("{good}{bad}{good}").as_bytes()).await;
    assert_eq!(client.answer(false).await.status, 200);
    assert_eq!(client.answer(false).await.status, 400);
    client.expect_close().await;
    assert_eq!(server.questions(), 0);
}

#[tokio::test]
async fn hazard_s11_bodies_of_reads_are_refused() {
    let server = Server::start().await;
    for method in ["GET", "HEAD"] {
        let body = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let mut client = server.connect().await;
        let length = body.len();
        let head = format!(
            "{method} /api/v1/remote/files/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
        );
        client.send(format!("{head}{body}").as_bytes()).await;
        assert_eq!(client.answer(method == "HEAD").await.status, 400);
        client.expect_close().await;
    }
    assert_eq!(server.questions(), 0);
}

#[tokio::test]
async fn an_error_closes_a_connection_with_an_unread_body() {
    let server = Server::start().await;
    let body = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let head = format!(
        "PUT /api/v1/remote/files/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
        body.len() + 9
    );
    let answer = server.raw(format!("{head}{body}").as_bytes()).await;
    assert_eq!(answer.status, 405);
    assert_eq!(answer.header("connection"), Some("close"));
}

#[tokio::test]
async fn hazard_s11_an_upgrade_is_ignored_and_what_follows_is_a_request() {
    let server = Server::start().await;
    let upgrade =
        "GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    let mut client = server.connect().await;
    client
        .send(format!("{upgrade}GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())
        .await;
    assert_eq!(client.answer(false).await.status, 200);
    assert_eq!(client.answer(false).await.status, 404);
}

#[tokio::test]
async fn addresses_that_are_no_paths_are_refused() {
    let server = Server::start().await;
    for target in [
        "http://localhost/api/v1/remote/files/x",
        "http://evil.example/api/v1/remote/files/x",
        "*",
        "//evil.example/api/v1/remote/files/x",
        "/api/v1/remote/files/a\\b",
    ] {
        refused(
            &server,
            &format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            400,
        )
        .await;
    }
    refused(
        &server,
        "CONNECT localhost:443 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        400,
    )
    .await;
    refused(
        &server,
        "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
        400,
    )
    .await;
}

#[tokio::test]
async fn a_target_over_eight_kilobytes_is_414() {
    let server = Server::start().await;
    let long = "a".repeat(9_000);
    refused(
        &server,
        &format!("GET /api/v1/remote/files/{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        414,
    )
    .await;
    refused(
        &server,
        &format!("GET /api/v1/remote/files/a?{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        414,
    )
    .await;
    refused(
        &server,
        &format!(
            "GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "a".repeat(66_000)
        ),
        431,
    )
    .await;
}

/// The HTTP library would end these with an answer of its own, which has no words.
#[tokio::test]
async fn heads_that_the_library_cannot_read_are_refused_in_words() {
    let server = Server::start().await;
    let get =
        |target: &str| format!("GET /api/v1/remote/files/{target} HTTP/1.1\r\nHost: a\r\n\r\n");
    let put =
        |lines: &str| format!("PUT /api/v1/remote/files/x HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n");
    for (request, said) in [
        (get("a b"), "percent-encoded"),
        (get("<b>"), "percent-encoded"),
        (get("a`b"), "percent-encoded"),
        (get("a?q=\"b\""), "percent-encoded"),
        (put("Content-Length: abc"), "not a number"),
        (put("Content-Length:"), "not a number"),
        (put("Content-Length: -1"), "not a number"),
        (
            put("Content-Length: 3\r\nContent-Length: 4"),
            "more than one",
        ),
    ] {
        let answer = server.raw(request.as_bytes()).await;
        assert_eq!(answer.status, 400, "{request:?}");
        assert!(answer.text().contains(said), "{request:?}: {answer:?}");
        assert_eq!(answer.header("connection"), Some("close"), "{request:?}");
    }
    let latin = b"GET /api/v1/remote/files/\xe9 HTTP/1.1\r\nHost: a\r\n\r\n";
    let answer = server.raw(latin).await;
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("UTF-8"), "{answer:?}");
    assert_eq!(server.questions(), 0);
}

/// Behind a `#` nothing is read: the file of another name would be written.
#[tokio::test]
async fn a_change_behind_a_number_sign_is_refused() {
    let server = Server::start().await;
    for method in ["PUT", "DELETE"] {
        let head = format!(
            "{method} /api/v1/remote/files/C#/a.zip HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
        );
        let answer = server.raw(head.as_bytes()).await;
        assert_eq!(answer.status, 400, "{method}");
        assert!(answer.text().contains("%23"), "{answer:?}");
    }
    assert_eq!(server.questions(), 0);
}

/// However the network cuts it, it is the service that says it.
#[tokio::test]
async fn a_length_that_is_too_long_is_refused_in_words_wherever_it_is_cut() {
    let server = Server::start().await;
    let length = "184467440737095516160";
    for cut in [0, 1, 17, 18, 19, 20] {
        let (first, second) = length.split_at(cut);
        let mut client = server.connect().await;
        let head =
            format!("PUT /api/v1/remote/files/x HTTP/1.1\r\nHost: a\r\nContent-Length: {first}");
        client.send(head.as_bytes()).await;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        client.send(format!("{second}\r\n\r\n").as_bytes()).await;
        let answer = client.answer(false).await;
        assert_eq!(answer.status, 413, "{cut}: {answer:?}");
        assert!(
            answer.text().contains("Content-Length"),
            "{cut}: {answer:?}"
        );
        client.expect_close().await;
    }
}

#[tokio::test]
async fn hosts_that_are_none_or_several_are_refused() {
    let server = Server::start().await;
    let start = "GET /api/v1/remote/files/x HTTP/1.1\r\n";
    for hosts in [
        "",
        "Host: a.example\r\nHost: a.example\r\n",
        "Host: \r\n",
        "Host: user@a.example\r\n",
        "Host: a.example/path\r\n",
        "Host: a\"><script>\r\n",
        "Host: a b\r\n",
    ] {
        refused(&server, &format!("{start}{hosts}\r\n"), 400).await;
    }
}

#[tokio::test]
async fn hazard_s14_control_bytes_are_refused() {
    let server = Server::start().await;
    for request in [
        "GET /api/v1/remote/files/a\0b HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /api/v1/remote/files/a\x01b HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /api/v1/remote/files/a\x7fb HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /api/v1/remote/files/a HTTP/1.1\r\nHost: localhost\r\nAccept: a\0b\r\n\r\n",
        "GET /api/v1/remote/files/a HTTP/1.1\r\nHost: localhost\r\nAccept: a\rSet-Cookie: b\r\n\r\n",
        "GET /api/v1/remote/files/a HTTP/1.1\r\nHost: localhost\r\nAccept : a\r\n\r\n",
        "GET /api/v1/remote/files/a HTTP/1.1\r\nHost: localhost\r\n folded: a\r\n\r\n",
        "GE\x01T / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
    ] {
        refused(&server, request, 400).await;
    }
}

#[tokio::test]
async fn hazard_s14_what_an_upstream_says_cannot_add_headers() {
    let server = Server::start().await;
    let representation = larder_engine::Representation {
        content_type: Some("text/plain\r\nSet-Cookie: a=b".to_owned()),
        content_disposition: Some("attachment; filename=\"a\nb\"".to_owned()),
        etag: Some("\"good\"".to_owned()),
        ..Default::default()
    };
    server.script(
        "x",
        Script::Bytes(
            "body".into(),
            Spec {
                representation,
                ..Spec::default()
            },
        ),
    );
    let answer = server.ask("GET", "/api/v1/remote/files/x", &[]).await;
    assert_eq!((answer.status, answer.text()), (200, "body"));
    for name in ["set-cookie", "content-type", "content-disposition"] {
        assert_eq!(answer.header(name), None);
    }
    assert_eq!(answer.header("etag"), Some("\"good\""));
}

#[tokio::test]
async fn too_many_or_too_large_headers_are_431() {
    let server = Server::start().await;
    let start = "GET /live HTTP/1.1\r\nHost: localhost\r\n";
    let fields = |count: usize| "X: a\r\n".repeat(count);
    assert_eq!(
        server
            .ask("GET", "/live", &[("Connection", "close")])
            .await
            .status,
        200
    );
    let mut client = server.connect().await;
    client
        .send(format!("{start}{}\r\n", fields(99)).as_bytes())
        .await;
    assert_eq!(client.answer(false).await.status, 200);
    refused(&server, &format!("{start}{}\r\n", fields(100)), 431).await;
    refused(
        &server,
        &format!("{start}X: {}\r\n\r\n", "a".repeat(65 << 10)),
        431,
    )
    .await;
}

#[tokio::test]
async fn a_post_body_is_bounded() {
    let mut settings = crate::harness::settings();
    settings.limits.body_bytes = 1_000;
    let server = Server::with(settings).await;
    server.script("-/audit", Script::Through("{}".into()));
    let answer = server
        .raw(format!("{POST}Content-Length: 1001\r\n\r\n{}", "a".repeat(1_001)).as_bytes())
        .await;
    assert_eq!(answer.status, 413);
    assert_eq!(server.questions(), 0);
    let mut client = server.connect().await;
    client
        .send(format!("{POST}Content-Length: 1000\r\n\r\n{}", "a".repeat(1_000)).as_bytes())
        .await;
    let answer = client.answer(false).await;
    assert_eq!((answer.status, answer.text()), (200, "{}"));
    assert_eq!(server.fake.asked.lock().unwrap()[0].body.len(), 1_000);
}

#[tokio::test]
async fn a_chunked_post_is_answered_and_ends_its_connection() {
    let server = Server::start().await;
    server.script("-/audit", Script::Through("{}".into()));
    let answer = server
        .raw(format!("{POST}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").as_bytes())
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(server.fake.asked.lock().unwrap()[0].body, "abc");
}

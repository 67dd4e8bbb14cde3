//! Answers as responses: headers, conditions, ranges, HEAD, errors, bodies that break off.

use std::time::Duration;

use bytes::Bytes;
use larder_core::{Fault, FaultKind, UnixMillis};
use larder_engine::Representation;

use crate::harness::{Answer, Script, Server, Spec, etag, file_of, pattern};

const FILES: &str = "/api/v1/remote/files/";

async fn get(server: &Server, path: &str, headers: &[(&str, &str)]) -> Answer {
    server.ask("GET", &format!("{FILES}{path}"), headers).await
}

fn spec(representation: Representation) -> Spec {
    Spec {
        representation,
        ..Spec::default()
    }
}

#[tokio::test]
async fn the_headers_of_the_specification() {
    let server = Server::start().await;
    let representation = Representation {
        content_type: Some("application/vnd.example+json".to_owned()),
        content_encoding: Some("gzip".to_owned()),
        last_modified: Some("Tue, 14 Nov 2023 22:13:20 GMT".to_owned()),
        vary: &["accept", "accept-encoding", "host"],
        ..etag("v1")
    };
    let aged = Spec {
        representation,
        age: Duration::from_secs(77),
        remaining: Some(Duration::from_secs(23)),
        hot: false,
        not_for_anyone: false,
    };
    server.script("x", Script::Bytes("body".into(), aged));
    server.script("forever", Script::Bytes("body".into(), spec(etag("v2"))));
    let answer = get(&server, "x", &[]).await;
    // The moment from which both are counted.
    let httpdate = UnixMillis(server.fake.now.load(std::sync::atomic::Ordering::SeqCst) - 77_000)
        .to_http_date();
    for (name, value) in [
        ("x-artifact-source", "cache"),
        ("age", "77"),
        // RFC 9111 section 4.2: what is left is the life less the age.
        ("cache-control", "max-age=100"),
        ("date", httpdate.as_str()),
        ("cache-status", "larder; hit; ttl=23"),
        ("accept-ranges", "bytes"),
        ("vary", "Accept, Accept-Encoding"),
        ("etag", "\"v1\""),
        ("last-modified", "Tue, 14 Nov 2023 22:13:20 GMT"),
        ("content-type", "application/vnd.example+json"),
        ("content-encoding", "gzip"),
        ("content-length", "4"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    let answer = get(&server, "forever", &[]).await;
    assert_eq!(
        answer.header("cache-control"),
        Some("public, max-age=31536000, immutable")
    );
    assert_eq!(answer.header("vary"), None);
}

#[tokio::test]
async fn hazard_s15_no_artifact_may_act_as_a_page_of_larder_s() {
    let server = Server::start().await;
    let html = Representation {
        content_type: Some("text/html".to_owned()),
        ..Representation::default()
    };
    server.script(
        "x.html",
        Script::Bytes(
            "<script>alert(1)</script>".into(),
            Spec {
                hot: true,
                ..spec(html)
            },
        ),
    );
    server.script("through", Script::Through("<script>".into()));
    server.script(
        "refused",
        Script::Refuse(Fault::new(
            FaultKind::Forbidden,
            larder_core::ErrorCode::PatternDenied,
            "<script>",
        )),
    );
    for path in ["x.html", "x.html", "through", "refused", "nothing"] {
        let answer = get(&server, path, &[]).await;
        assert_eq!(
            answer.header("content-security-policy"),
            Some("sandbox"),
            "{path}"
        );
        assert_eq!(
            answer.header("x-content-type-options"),
            Some("nosniff"),
            "{path}"
        );
    }
    for path in ["/config", "/", "/metrics", "/health", "/%3Cscript%3E"] {
        let answer = server.ask("GET", path, &[]).await;
        assert_eq!(
            answer.header("content-security-policy"),
            Some("sandbox"),
            "{path}"
        );
        assert_ne!(answer.header("content-type"), Some("text/html"), "{path}");
    }
}

#[tokio::test]
async fn conditions_on_the_entity_tag_and_the_date() {
    let server = Server::start().await;
    let representation = Representation {
        last_modified: Some("Tue, 14 Nov 2023 22:13:20 GMT".to_owned()),
        served_since: Some(UnixMillis(1_700_003_600_000)),
        content_type: Some("text/plain".to_owned()),
        ..etag("v1")
    };
    server.script("x", Script::Bytes("body".into(), spec(representation)));
    for (name, value, status) in [
        ("If-None-Match", "\"v1\"", 304),
        ("If-None-Match", "\"v0\", W/\"v1\"", 304),
        ("If-None-Match", "*", 304),
        ("If-None-Match", "\"v0\"", 200),
        ("If-Modified-Since", "Tue, 14 Nov 2023 22:13:20 GMT", 304),
        // An hour later larder began to serve this body.
        ("If-Modified-Since", "Tue, 14 Nov 2023 23:13:20 GMT", 304),
        ("If-Modified-Since", "Tue, 14 Nov 2023 23:13:19 GMT", 200),
        ("If-Match", "\"v1\"", 200),
        ("If-Match", "\"v0\"", 412),
        ("If-Unmodified-Since", "Tue, 14 Nov 2023 22:13:19 GMT", 412),
    ] {
        let answer = get(&server, "x", &[(name, value)]).await;
        assert_eq!(answer.status, status, "{name}: {value}");
        if status == 304 {
            assert_eq!(answer.header("etag"), Some("\"v1\""));
            assert_eq!(answer.header("content-type"), None);
            assert_eq!(answer.header("content-length"), None);
        }
    }
    let answer = get(
        &server,
        "x",
        &[("If-None-Match", "\"v0\""), ("If-None-Match", "\"v1\"")],
    )
    .await;
    assert_eq!(answer.status, 304, "a list over two lines");
}

#[tokio::test]
async fn single_ranges_of_memory_files_and_running_downloads() {
    let server = Server::start().await;
    let content = pattern(300_000);
    let frames: Vec<Option<Bytes>> = content
        .chunks(50_000)
        .map(|chunk| Some(Bytes::copy_from_slice(chunk)))
        .collect();
    server.script(
        "memory",
        Script::Bytes(content.clone().into(), spec(etag("v1"))),
    );
    server.script(
        "file",
        Script::File(file_of(&content), 300_000, spec(etag("v1"))),
    );
    server.script("known", Script::Frames(frames.clone(), Some(300_000)));
    server.script("unknown", Script::Frames(frames, None));
    server.script(
        "fetched",
        Script::Fetched(content.clone().into(), spec(etag("v1"))),
    );
    for path in ["memory", "file", "known", "unknown", "fetched"] {
        for (range, from, to) in [
            ("bytes=0-0", 0, 0),
            ("bytes=100-200099", 100, 200_099),
            ("bytes=250000-", 250_000, 299_999),
            ("bytes=-10", 299_990, 299_999),
            ("bytes=299999-999999", 299_999, 299_999),
        ] {
            let answer = get(&server, path, &[("Range", range)]).await;
            assert_eq!(answer.status, 206, "{path} {range}");
            assert_eq!(
                answer.header("content-range"),
                Some(format!("bytes {from}-{to}/300000").as_str()),
                "{path} {range}"
            );
            assert_eq!(
                answer.header("content-length"),
                Some((to - from + 1).to_string().as_str()),
                "{path} {range}"
            );
            assert!(answer.body == content[from..=to], "{path} {range}");
        }
        let answer = get(&server, path, &[("Range", "bytes=300000-")]).await;
        assert_eq!(
            (answer.status, answer.header("content-range")),
            (416, Some("bytes */300000")),
            "{path}"
        );
        assert_eq!(answer.json()["code"], "range_not_satisfiable");
        let answer = get(&server, path, &[("Range", "lines=1-2")]).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.body == content, "{path}");
    }
}

#[tokio::test]
async fn hazard_w8_suffix_range_overflow() {
    let server = Server::start().await;
    server.script("x", Script::Bytes("0123456789".into(), spec(etag("v1"))));
    for range in [
        "bytes=-9223372036854775808",
        "bytes=-18446744073709551615",
        "bytes=-99999999999999999999999999",
    ] {
        let answer = get(&server, "x", &[("Range", range)]).await;
        assert_eq!(
            (answer.status, answer.text()),
            (206, "0123456789"),
            "{range}"
        );
    }
    let answer = get(
        &server,
        "x",
        &[("Range", "bytes=18446744073709551615-18446744073709551616")],
    )
    .await;
    assert_eq!(answer.status, 416);
}

#[tokio::test]
async fn if_range_decides_between_part_and_whole() {
    let server = Server::start().await;
    server.script("x", Script::Bytes("0123456789".into(), spec(etag("v1"))));
    let answer = get(
        &server,
        "x",
        &[("Range", "bytes=2-4"), ("If-Range", "\"v1\"")],
    )
    .await;
    assert_eq!((answer.status, answer.text()), (206, "234"));
    for validator in ["\"v0\"", "W/\"v1\"", "Tue, 14 Nov 2023 22:13:20 GMT"] {
        let answer = get(
            &server,
            "x",
            &[("Range", "bytes=2-4"), ("If-Range", validator)],
        )
        .await;
        assert_eq!(
            (answer.status, answer.text()),
            (200, "0123456789"),
            "{validator}"
        );
    }
}

/// Reads `multipart/byteranges` as RFC 2046 and RFC 9110 section 14.6 define it.
fn parts(answer: &Answer) -> Vec<(String, Vec<u8>)> {
    let boundary = answer
        .header("content-type")
        .unwrap()
        .strip_prefix("multipart/byteranges; boundary=")
        .unwrap();
    let text: String = answer.body.iter().map(|byte| *byte as char).collect();
    let delimiter = format!("\r\n--{boundary}");
    let mut pieces = text.split(&delimiter);
    assert_eq!(pieces.next(), Some(""));
    let mut found = Vec::new();
    for piece in pieces {
        if piece == "--\r\n" {
            return found;
        }
        let (head, body) = piece
            .strip_prefix("\r\n")
            .unwrap()
            .split_once("\r\n\r\n")
            .unwrap();
        let range = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Range: "))
            .unwrap();
        found.push((range.to_owned(), body.chars().map(|c| c as u8).collect()));
    }
    panic!("no closing boundary");
}

#[tokio::test]
async fn several_ranges_are_parts_of_one_answer() {
    let server = Server::start().await;
    let content = pattern(300_000);
    let typed = Representation {
        content_type: Some("application/x-thing".to_owned()),
        ..etag("v1")
    };
    let frames: Vec<Option<Bytes>> = content
        .chunks(70_000)
        .map(|chunk| Some(Bytes::copy_from_slice(chunk)))
        .collect();
    server.script(
        "memory",
        Script::Bytes(content.clone().into(), spec(typed.clone())),
    );
    server.script(
        "file",
        Script::File(file_of(&content), 300_000, spec(typed.clone())),
    );
    server.script(
        "fetched",
        Script::Fetched(content.clone().into(), spec(typed)),
    );
    server.script("flight", Script::Frames(frames, Some(300_000)));
    for path in ["memory", "file", "flight", "fetched"] {
        let answer = get(&server, path, &[("Range", "bytes=0-9, 150000-249999, -1")]).await;
        assert_eq!(answer.status, 206, "{path}");
        assert_eq!(
            answer.header("content-length"),
            Some(answer.body.len().to_string().as_str())
        );
        let expected = [
            ("bytes 0-9/300000".to_owned(), content[..10].to_vec()),
            (
                "bytes 150000-249999/300000".to_owned(),
                content[150_000..250_000].to_vec(),
            ),
            (
                "bytes 299999-299999/300000".to_owned(),
                content[299_999..].to_vec(),
            ),
        ];
        assert!(parts(&answer) == expected, "{path}");
        assert_eq!(
            path == "flight",
            !answer
                .body
                .windows(19)
                .any(|window| window == b"application/x-thing")
        );
    }
    let answer = get(
        &server,
        "memory",
        &[("Range", "bytes=0-99999,50000-149999")],
    )
    .await;
    assert_eq!(
        answer.header("content-range"),
        Some("bytes 0-149999/300000"),
        "overlaps are merged"
    );
    let many = (0..300)
        .map(|n| format!("{}-{}", n * 10, n * 10))
        .collect::<Vec<_>>()
        .join(",");
    let answer = get(&server, "memory", &[("Range", &format!("bytes={many}"))]).await;
    assert_eq!(
        (answer.status, answer.body.len()),
        (200, 300_000),
        "more than 256 ranges are one whole"
    );
}

#[tokio::test]
async fn large_files_arrive_whole_over_kept_alive_connections() {
    let server = Server::start().await;
    let content = pattern(40_000_000);
    server.script(
        "big",
        Script::File(
            file_of(&content),
            content.len() as u64,
            Spec {
                hot: true,
                ..spec(etag("v1"))
            },
        ),
    );
    let mut client = server.connect().await;
    for _ in 0..2 {
        let answer = client.ask("GET", &format!("{FILES}big"), &[]).await;
        assert!(answer.body == content);
        let answer = client
            .ask(
                "GET",
                &format!("{FILES}big"),
                &[("Range", "bytes=33000001-")],
            )
            .await;
        assert!(answer.body == content[33_000_001..]);
    }
    assert_eq!(server.questions(), 1);
}

#[tokio::test]
async fn a_file_shorter_than_its_record_breaks_the_connection() {
    let server = Server::start().await;
    server.script(
        "short",
        Script::File(file_of(&pattern(20_000_000)), 40_000_000, spec(etag("v1"))),
    );
    server.script(
        "small",
        Script::File(file_of(&pattern(100)), 200, spec(etag("v1"))),
    );
    let answer = get(&server, "short", &[]).await;
    assert!(!answer.complete);
    assert_eq!(get(&server, "small", &[]).await.status, 500);
}

#[tokio::test]
async fn a_download_that_fails_never_ends_well() {
    let server = Server::start().await;
    let frames = vec![
        Some(Bytes::from_static(b"first")),
        Some(Bytes::from_static(b"second")),
        None,
    ];
    server.script("known", Script::Frames(frames.clone(), Some(100)));
    server.script("unknown", Script::Frames(frames, None));
    server.script(
        "short",
        Script::Frames(vec![Some(Bytes::from_static(b"first"))], Some(100)),
    );
    server.script(
        "long",
        Script::Frames(vec![Some(Bytes::from_static(b"0123456789"))], Some(5)),
    );
    for path in ["known", "unknown", "short", "long"] {
        let answer = get(&server, path, &[]).await;
        assert_eq!(answer.status, 200);
        assert!(!answer.complete, "{path}: {answer:?}");
    }
    // HTTP/1.0 knows neither chunks nor, here, the length: only a reset tells the client.
    let mut client = server.connect().await;
    client
        .send(format!("GET {FILES}unknown HTTP/1.0\r\n\r\n").as_bytes())
        .await;
    let answer = client.answer(false).await;
    assert!(!answer.complete, "{answer:?}");
}

#[tokio::test]
async fn head_is_get_without_its_body() {
    let server = Server::start().await;
    let content = pattern(300_000);
    server.script(
        "memory",
        Script::Bytes(
            content[..1_000].to_vec().into(),
            Spec {
                hot: true,
                ..spec(etag("v1"))
            },
        ),
    );
    server.script(
        "file",
        Script::File(
            file_of(&content),
            300_000,
            Spec {
                hot: true,
                ..spec(etag("v1"))
            },
        ),
    );
    server.script("flight", Script::Frames(vec![Some("x".into())], Some(1)));
    let mut client = server.connect().await;
    // The second time out of the hot set.
    for path in ["memory", "file", "flight", "memory", "file", "nothing"] {
        let head = client
            .ask("HEAD", &format!("{FILES}{path}"), &[("Range", "bytes=0-1")])
            .await;
        let get = client.ask("GET", &format!("{FILES}{path}"), &[]).await;
        assert_eq!(
            (head.status, head.header("content-length")),
            (get.status, get.header("content-length")),
            "{path}"
        );
        assert_eq!(head.header("etag"), get.header("etag"), "{path}");
    }
    for path in ["/live", "/", "/metrics"] {
        let head = client.ask("HEAD", path, &[]).await;
        assert_eq!(head.status, 200);
        assert!(
            head.header("content-length")
                .is_some_and(|length| length != "0"),
            "{path}"
        );
    }
    assert_eq!(
        client.ask("GET", "/live", &[]).await.status,
        200,
        "the connection is still in step"
    );
}

#[tokio::test]
async fn redirects_and_passed_through_answers() {
    let server = Server::start().await;
    server.script(
        "simple/A",
        Script::Redirect("/api/v1/remote/files/simple/a/"),
    );
    server.script("through", Script::Through("{}".into()));
    let answer = get(&server, "simple/A", &[]).await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (301, Some("/api/v1/remote/files/simple/a/"))
    );
    let answer = get(&server, "through", &[("Range", "bytes=0-0")]).await;
    assert_eq!(
        (answer.status, answer.text(), answer.complete),
        (200, "{}", true)
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("accept-ranges"), None);
}

#[tokio::test]
async fn errors_have_the_format_s_shape_and_are_not_stored() {
    let server = Server::start().await;
    let limited = Fault::new(
        FaultKind::Upstream(429),
        larder_core::ErrorCode::RateLimited,
        "come back later",
    );
    let limited = limited.retry_after(Some(Duration::from_millis(1_500)));
    let held = Fault {
        held_until: Some(UnixMillis(1_700_000_000_000)),
        ..Fault::new(
            FaultKind::NotFound,
            larder_core::ErrorCode::Quarantined,
            "too young",
        )
        .by_rule("quarantine_days")
    };
    server.script("limited", Script::Refuse(limited));
    server.script("held", Script::Refuse(held));
    let answer = get(&server, "limited", &[]).await;
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (429, Some("2"))
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let answer = get(&server, "held", &[]).await;
    assert_eq!(answer.status, 404);
    assert_eq!(
        answer.header("x-larder-quarantine"),
        Some("until=2023-11-14T22:13:20Z")
    );
    assert_eq!(answer.json()["rule"], "quarantine_days");
    let answer = server.ask("GET", "/api/v1/remote/npm/held", &[]).await;
    assert_eq!(answer.json()["error"], "too young");
}

#[tokio::test]
async fn the_pipeline_hears_the_path_as_it_was_sent() {
    let server = Server::start().await;
    server
        .ask(
            "GET",
            "/api/v1/remote/npm/@a%2fb/-/c.tgz?x=%2F..&y",
            &[("Host", "larder.example:8000")],
        )
        .await;
    let asked = server.fake.asked.lock().unwrap();
    assert_eq!(
        (asked[0].repository.as_str(), asked[0].path.as_str()),
        ("npm", "@a%2fb/-/c.tgz")
    );
    assert_eq!(asked[0].query.as_deref(), Some("x=%2F..&y"));
    assert_eq!(asked[0].base, "http://larder.example:8000");
}

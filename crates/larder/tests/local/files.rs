//! Upload, read, overwrite, delete: contract, sections 1 and 7.

use std::path::Path;

use base64::Engine as _;
use larder_core::sha256;

use crate::support::client::{raw, raw_status};
use crate::support::{Setup, get, send};
use crate::{delete, put, start};

#[tokio::test(flavor = "multi_thread")]
async fn a_file_goes_up_comes_down_is_replaced_and_deleted() {
    let larder = start().await;
    let url = larder.artifact("files", "dir/tool%201.0.bin");
    assert_eq!(get(&url).await.status, 404);
    let first = put(
        &url,
        "first",
        &[("Content-Type", "text/x-tool; charset=utf-8")],
    )
    .await;
    let tag = |bytes: &[u8]| format!("\"sha256-{}\"", sha256(bytes).to_hex());
    assert_eq!(
        (first.status, first.header("etag"), first.header("location")),
        (
            201,
            &*tag(b"first"),
            "/api/v1/remote/files/dir/tool%201.0.bin"
        ),
        "{}",
        first.text()
    );
    let told = first.json();
    assert_eq!(told["path"], "dir/tool 1.0.bin");
    assert_eq!(
        (told["size"].as_u64(), told["sha256"].as_str()),
        (Some(5), Some(&*sha256(b"first").to_hex()))
    );
    for method in ["GET", "HEAD"] {
        // Twice: the second answer is out of the hot set.
        for _ in 0..2 {
            let answer = send(method, &url, &[]).await;
            assert_eq!(answer.status, 200);
            assert_eq!(answer.text(), if method == "GET" { "first" } else { "" });
            for (name, value) in [
                ("etag", &*tag(b"first")),
                ("content-type", "text/x-tool; charset=utf-8"),
                ("content-length", "5"),
                ("x-artifact-source", "cache"),
                ("cache-control", "no-cache"),
                ("accept-ranges", "bytes"),
                ("x-content-type-options", "nosniff"),
                ("content-security-policy", "sandbox"),
                ("age", ""),
                ("cache-status", "larder; hit"),
            ] {
                // While the second of the upload lasts, the answer is remembered until its end, and says so.
                let said = answer.header(name);
                let said = if name == "cache-status" {
                    said.split("; ttl").next().unwrap_or_default()
                } else {
                    said
                };
                assert_eq!(said, value, "{method} {name}");
            }
            let encoded =
                base64::engine::general_purpose::STANDARD.encode(sha256(b"first").as_bytes());
            assert_eq!(answer.header("repr-digest"), format!("sha-256=:{encoded}:"));
        }
    }
    let second = put(&url, "the second", &[]).await;
    assert_eq!(
        (second.status, second.header("etag")),
        (200, &*tag(b"the second"))
    );
    let answer = get(&url).await;
    assert_eq!(
        (answer.text().as_str(), answer.header("etag")),
        ("the second", &*tag(b"the second"))
    );
    assert_eq!(
        answer.header("content-type"),
        "application/octet-stream",
        "the old type went with the old bytes"
    );
    assert_eq!(delete(&url).await.status, 204);
    assert_eq!(get(&url).await.status, 404);
    assert_eq!(delete(&url).await.status, 404);
    // A path is free again after a deletion.
    assert_eq!(put(&url, "first", &[]).await.status, 201);
    assert_eq!(get(&url).await.text(), "first");
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_and_conditions_of_reads() {
    let larder = start().await;
    let url = larder.artifact("files", "a");
    put(&url, "0123456789", &[]).await;
    let tag = get(&url).await.header("etag").to_owned();
    let answer = send("GET", &url, &[("Range", "bytes=2-4")]).await;
    assert_eq!(
        (
            answer.status,
            answer.text().as_str(),
            answer.header("content-range")
        ),
        (206, "234", "bytes 2-4/10")
    );
    assert_eq!(
        send("GET", &url, &[("If-None-Match", &tag)]).await.status,
        304
    );
    assert_eq!(
        send("GET", &url, &[("If-Match", "\"other\"")]).await.status,
        412
    );
    let stale = send(
        "GET",
        &url,
        &[("Range", "bytes=2-4"), ("If-Range", "\"other\"")],
    )
    .await;
    assert_eq!((stale.status, stale.body.len()), (200, 10));
    assert_eq!(
        send("GET", &url, &[("Range", "bytes=10-")]).await.status,
        416
    );
    // Empty files are files.
    let empty = larder.artifact("files", "empty");
    assert_eq!(put(&empty, "", &[]).await.status, 201);
    let answer = get(&empty).await;
    assert_eq!((answer.status, answer.header("content-length")), (200, "0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn chunked_bodies_and_those_that_wait_for_leave() {
    let larder = start().await;
    let head = |path: &str, fields: &str| {
        format!(
            "PUT /api/v1/remote/{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n"
        )
    };
    let chunked = head("files/chunked", "Transfer-Encoding: chunked\r\n")
        + "3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nTrailer: x\r\n\r\n";
    let answer = raw(larder.address(), chunked.as_bytes()).await;
    assert_eq!(raw_status(&answer), 201, "{answer}");
    assert_eq!(
        get(&larder.artifact("files", "chunked")).await.text(),
        "abcdefg"
    );
    // Leave is given once the request is admitted …
    let expecting = head(
        "files/expected",
        "Content-Length: 5\r\nExpect: 100-continue\r\n",
    );
    let answer = raw(larder.address(), format!("{expecting}hello").as_bytes()).await;
    assert!(
        answer.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 "),
        "{answer}"
    );
    assert_eq!(
        get(&larder.artifact("files", "expected")).await.text(),
        "hello"
    );
    // … and what will be refused is refused instead: no byte of the body is asked for.
    for (path, fields, status) in [
        ("small/large", "Content-Length: 1001\r\n", 413),
        ("ruled/elsewhere", "Content-Length: 5\r\n", 403),
        (
            "files/expected",
            "Content-Length: 5\r\nIf-None-Match: *\r\n",
            412,
        ),
        ("files/dir/", "Content-Length: 5\r\n", 400),
        ("nobody/x", "Content-Length: 5\r\n", 404),
        (
            "files/x",
            "Content-Length: 5\r\nRepr-Digest: sha-256=x\r\n",
            400,
        ),
        (
            "files/x",
            "Content-Length: 5\r\nContent-Range: bytes 0-4/10\r\n",
            400,
        ),
        (
            "files/x",
            "Content-Length: 5\r\nOrigin: https://evil.example.com\r\n",
            403,
        ),
    ] {
        let answer = raw(
            larder.address(),
            head(path, &format!("{fields}Expect: 100-continue\r\n")).as_bytes(),
        )
        .await;
        assert_eq!(raw_status(&answer), status, "{path}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_of_writes() {
    let larder = start().await;
    let url = larder.artifact("files", "a");
    let absent = [("If-Match", "*")];
    assert_eq!(put(&url, "x", &absent).await.status, 412);
    assert_eq!(
        put(&url, "one", &[("If-None-Match", "*")]).await.status,
        201
    );
    let refused = put(&url, "two", &[("If-None-Match", "*")]).await;
    assert_eq!(
        (refused.status, refused.json()["code"].as_str()),
        (412, Some("precondition_failed"))
    );
    let tag = get(&url).await.header("etag").to_owned();
    assert_eq!(
        put(&url, "two", &[("If-Match", "\"other\"")]).await.status,
        412
    );
    assert_eq!(get(&url).await.text(), "one");
    assert_eq!(put(&url, "two", &[("If-Match", &tag)]).await.status, 200);
    assert_eq!(
        put(&url, "three", &[("If-Match", &tag)]).await.status,
        412,
        "that was before"
    );
    // Taken for none, a condition that cannot be read would let through what it was to prevent.
    let twice = [("If-None-Match", "*"), ("If-None-Match", "*")];
    assert_eq!(put(&url, "three", &twice).await.status, 412);
    for field in [
        ("If-None-Match", "\"x"),
        ("If-Match", "x"),
        ("If-Unmodified-Since", "soon"),
    ] {
        for method in ["PUT", "DELETE"] {
            let refused = send(method, &url, &[field]).await;
            assert_eq!(
                refused.status,
                400,
                "{method} {field:?}: {}",
                refused.text()
            );
        }
    }
    assert_eq!(get(&url).await.text(), "two");
    assert_eq!(
        send("DELETE", &url, &[("If-Match", &tag)]).await.status,
        412
    );
    let tag = get(&url).await.header("etag").to_owned();
    assert_eq!(
        send("DELETE", &url, &[("If-Match", &tag)]).await.status,
        204
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_overwritten() {
    let larder = start().await;
    let url = larder.artifact("fixed", "tool-1.0.zip");
    assert_eq!(put(&url, "bytes", &[]).await.status, 201);
    let refused = put(&url, "other", &[]).await;
    assert_eq!(refused.status, 409);
    let body = refused.json();
    assert_eq!(
        (
            body["code"].as_str(),
            body["rule"].as_str(),
            body["repository"].as_str()
        ),
        (
            Some("already_exists"),
            Some("allow_overwrite"),
            Some("fixed")
        )
    );
    assert_eq!(
        put(&url, "bytes", &[]).await.status,
        200,
        "the same bytes again"
    );
    let answer = get(&url).await;
    assert_eq!(answer.text(), "bytes");
    assert_eq!(
        answer.header("cache-control"),
        "public, max-age=31536000, immutable"
    );
    assert_eq!(delete(&url).await.status, 204);
    assert_eq!(put(&url, "other", &[]).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_describes_the_bytes_comes_back() {
    let larder = start().await;
    let url = larder.artifact("files", "a.gz");
    let sent = [
        ("Content-Encoding", "gzip"),
        ("Content-Disposition", "attachment; filename=\"b.txt\""),
        ("Content-Language", "de"),
        ("Content-Type", "text/plain"),
    ];
    put(&url, "no gzip at all", &sent).await;
    let answer = get(&url).await;
    for (name, value) in sent {
        assert_eq!(answer.header(&name.to_ascii_lowercase()), value);
    }
    assert_eq!(answer.text(), "no gzip at all", "as it came");
    // The same bytes with another type are another representation.
    assert_eq!(
        put(&url, "no gzip at all", &[("Content-Type", "text/html")])
            .await
            .status,
        200
    );
    let answer = get(&url).await;
    assert_eq!(
        (
            answer.header("content-type"),
            answer.header("content-encoding")
        ),
        ("text/html", "")
    );
    // Lines of one field are one list (RFC 9110 section 5.3).
    let lines = [("Content-Encoding", "gzip"), ("Content-Encoding", "br")];
    put(&url, "coded twice", &lines).await;
    let answer = get(&url).await;
    assert_eq!(answer.header("content-encoding"), "gzip, br");
    // curl -d and forms say this of everything.
    put(
        &url,
        "x",
        &[("Content-Type", "application/x-www-form-urlencoded")],
    )
    .await;
    assert_eq!(
        get(&url).await.header("content-type"),
        "application/octet-stream"
    );
}

/// Until the last byte of a new one has come, and has been acknowledged, the old file is there for everybody.
#[tokio::test(flavor = "multi_thread")]
async fn hazard_w4_a_file_that_is_being_replaced_is_read_as_it_was() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let larder = start().await;
    let url = larder.artifact("files", "a");
    assert_eq!(put(&url, "old", &[]).await.status, 201);
    let mut socket = tokio::net::TcpStream::connect(larder.address())
        .await
        .expect("a connection");
    let head = "PUT /api/v1/remote/files/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 6\r\n\r\n";
    socket.write_all(head.as_bytes()).await.expect("sent");
    for part in ["n", "ew", "er"] {
        socket.write_all(part.as_bytes()).await.expect("sent");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        let there = get(&url).await;
        assert_eq!((there.status, there.text().as_str()), (200, "old"));
        let listed = get(&larder.artifact("files", "")).await.json();
        assert_eq!(listed["files"][0]["size"], 3);
    }
    socket.write_all(b"!").await.expect("sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("an answer");
    assert_eq!(raw_status(&answer), 200, "{answer}");
    assert_eq!(get(&url).await.text(), "newer!");
}

/// The example of the configuration's contract: a local repository with `immutable_patterns`.
#[tokio::test(flavor = "multi_thread")]
async fn patterns_say_what_may_be_uploaded_and_folders_stay_readable() {
    let config = "remotes:\n  uploads: { type: local, package: generic, immutable_patterns: ['.*\\.tar\\.gz$'] }\n";
    let larder = crate::support::TestLarder::start(config).await;
    let at = |path: &str| larder.artifact("uploads", path);
    assert_eq!(put(&at("dir/a.tar.gz"), "x", &[]).await.status, 201);
    let denied = put(&at("dir/a.zip"), "x", &[]).await;
    assert_eq!(
        (denied.status, denied.json()["rule"].as_str()),
        (403, Some("immutable_patterns"))
    );
    assert_eq!(get(&at("")).await.json()["folders"][0], "dir");
    assert_eq!(
        get(&at("dir/")).await.json()["files"][0]["name"],
        "a.tar.gz"
    );
}

/// Behind a proxy that takes a path away, a path without it leads nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn the_place_of_a_new_file_has_the_path_of_the_public_address() {
    let config =
        "public_url: https://larder.example.com/below\nremotes:\n  files: { type: local }\n";
    let larder = crate::support::TestLarder::start(config).await;
    let host = [
        ("Host", "larder.example.com"),
        ("X-Forwarded-Proto", "https"),
    ];
    let first = put(&larder.artifact("files", "a%20b"), "x", &host).await;
    assert_eq!(
        (first.status, first.header("location")),
        (201, "/below/api/v1/remote/files/a%20b"),
        "{}",
        first.text()
    );
}

/// Asking again in a moment does not help.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_whose_bytes_are_gone_is_said_to_be_lost() {
    let larder = Setup::new(crate::CONFIG).embedded().start().await;
    // None at all, or of another length.
    for (name, said, left) in [
        ("gone", "missing", None),
        ("cut", "damaged", Some(4)),
        ("lengthened", "damaged", Some(40)),
    ] {
        let url = larder.artifact("files", name);
        assert_eq!(put(&url, format!("bytes {name}"), &[]).await.status, 201);
        for blob in crate::stored(&larder) {
            harm(&blob, left);
        }
        for method in ["GET", "HEAD"] {
            let lost = send(method, &url, &[]).await;
            assert_eq!(
                (lost.status, lost.header("retry-after")),
                (500, ""),
                "{name}"
            );
        }
        let lost = get(&url).await;
        assert_eq!(lost.json()["code"], "storage", "{name}");
        let text = lost.text();
        assert!(
            text.contains(said) && text.contains("upload the file again"),
            "{name}: {text}"
        );
        // And that helps.
        assert_eq!(put(&url, format!("bytes {name}"), &[]).await.status, 200);
        assert_eq!(get(&url).await.text(), format!("bytes {name}"));
        assert_eq!(delete(&url).await.status, 204);
    }
}

fn harm(blob: &Path, left: Option<u64>) {
    let harmed = match left {
        Some(length) => {
            let file = std::fs::OpenOptions::new().write(true).open(blob);
            file.and_then(|file| file.set_len(length))
        }
        None => std::fs::remove_file(blob),
    };
    harmed.expect("a blob");
}

/// A URI is ASCII (RFC 3986 section 2): what a client sends undecoded is told percent-encoded, and leads to the file.
#[tokio::test(flavor = "multi_thread")]
async fn the_place_of_a_new_file_is_a_uri_whatever_the_client_sent() {
    let larder = start().await;
    for (sent, told) in [
        ("\u{e9}0", "%C3%A90"),
        ("\u{8d44}/\u{1f4e6}|x", "%E8%B5%84/%F0%9F%93%A6%7Cx"),
        ("a%20b+c", "a%20b+c"),
    ] {
        let target = format!("/api/v1/remote/files/{sent}");
        let head = |method: &str, target: &str, more: &str| {
            format!(
                "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}\r\n"
            )
        };
        let request = head("PUT", &target, "Content-Length: 5\r\n") + "bytes";
        let answer = raw(larder.address(), request.as_bytes()).await;
        assert_eq!(raw_status(&answer), 201, "{answer}");
        let location = format!("\r\nlocation: /api/v1/remote/files/{told}\r\n");
        assert!(answer.contains(&location), "{answer}");
        let answer = get(&larder.artifact("files", told)).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "bytes"));
    }
}

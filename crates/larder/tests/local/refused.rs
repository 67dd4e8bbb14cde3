//! What leaves nothing: wrong digests, sizes, rules, bodies that end early or stall.

use std::time::Duration;

use larder_core::{Digest, DigestAlgorithm, Hasher};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::client::{raw, raw_status};
use crate::support::{PATIENCE, Setup, TestLarder, get, send};
use crate::{CONFIG, delete, put, start, stored};

/// A field, and how its value is made of the digests of a body.
type Field = (
    &'static str,
    fn(&dyn Fn(DigestAlgorithm) -> Digest) -> String,
);

fn digest(algorithm: DigestAlgorithm, bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(&[algorithm]);
    hasher.update(bytes);
    let all = hasher.finish();
    let of_kind = all
        .into_iter()
        .find(|digest| digest.algorithm() == algorithm);
    of_kind.expect("the digest asked for")
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_w5_stated_digests_are_enforced() {
    use DigestAlgorithm::{Md5, Sha1, Sha256, Sha384, Sha512};
    let larder = start().await;
    let of = |algorithm, bytes: &[u8]| digest(algorithm, bytes);
    let fields: [Field; 12] = [
        ("X-Checksum-Sha256", |of| of(Sha256).to_hex()),
        ("X-Checksum-SHA-256", |of| of(Sha256).to_hex()),
        ("X-Checksum-Sha384", |of| of(Sha384).to_hex()),
        ("X-Checksum-Sha1", |of| of(Sha1).to_hex()),
        ("X-Checksum-Md5", |of| of(Md5).to_hex().to_uppercase()),
        ("Content-MD5", |of| of(Md5).to_base64()),
        ("Digest", |of| format!("SHA-256={}", of(Sha256).to_base64())),
        ("Digest", |of| {
            format!("sha-512={},UNIXsum=1", of(Sha512).to_base64())
        }),
        ("Repr-Digest", |of| {
            format!("sha-256=:{}:", of(Sha256).to_base64())
        }),
        ("Repr-Digest", |of| {
            format!("sha-256 = :{}:", of(Sha256).to_base64())
        }),
        ("Content-Digest", |of| {
            format!("sha-512=:{}:", of(Sha512).to_base64())
        }),
        ("Repr-Digest", |of| {
            format!(
                "sha-256=:{}:, sha-512=:{}:",
                of(Sha256).to_base64(),
                of(Sha512).to_base64()
            )
        }),
    ];
    for (number, (field, value)) in fields.into_iter().enumerate() {
        let url = larder.artifact("files", &format!("{number}"));
        let wrong = value(&|algorithm| of(algorithm, b"other"));
        let refused = put(&url, "bytes", &[(field, &wrong)]).await;
        assert_eq!(
            (refused.status, refused.json()["code"].as_str()),
            (400, Some("checksum_mismatch")),
            "{field}: {wrong}"
        );
        assert_eq!(get(&url).await.status, 404, "{field}");
        let right = value(&|algorithm| of(algorithm, b"bytes"));
        let taken = put(&url, "bytes", &[(field, &right)]).await;
        assert_eq!(taken.status, 201, "{field}: {right}: {}", taken.text());
        // What is there stays where the next one is wrong.
        assert_eq!(put(&url, "newer", &[(field, &right)]).await.status, 400);
        assert_eq!(get(&url).await.text(), "bytes");
    }
    assert_eq!(
        stored(&larder).len(),
        1,
        "one blob for all of them, and nothing else: {:?}",
        stored(&larder)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_and_quotas() {
    let larder = start().await;
    let at = |path: &str| larder.artifact("small", path);
    assert_eq!(put(&at("a"), vec![1; 1000], &[]).await.status, 201);
    for chunked in [false, true] {
        let body = if chunked {
            chunks(&[1; 1001])
        } else {
            vec![1; 1001].into()
        };
        let refused = put(&at("a"), body, &[]).await;
        let json = refused.json();
        assert_eq!(
            (refused.status, json["code"].as_str(), json["rule"].as_str()),
            (413, Some("body_too_large"), Some("max_size")),
            "{json}"
        );
        let body = if chunked {
            chunks(&[2; 501])
        } else {
            vec![2; 501].into()
        };
        let refused = put(&at("b"), body, &[]).await;
        let json = refused.json();
        assert_eq!(
            (refused.status, json["code"].as_str(), json["rule"].as_str()),
            (507, Some("quota_exceeded"), Some("quota")),
            "{json}"
        );
    }
    assert_eq!(
        put(&at("b"), vec![2; 500], &[]).await.status,
        201,
        "exactly the quota"
    );
    assert_eq!(put(&at("c"), vec![3; 1], &[]).await.status, 507);
    assert_eq!(
        put(&at("b"), vec![4; 500], &[]).await.status,
        200,
        "in place of as much"
    );
    assert_eq!(delete(&at("a")).await.status, 204);
    assert_eq!(put(&at("c"), vec![3; 1000], &[]).await.status, 201);
    assert_eq!(get(&at("b")).await.body, vec![4; 500]);
}

/// Nothing is passed over in silence: neither a name without a digest, nor one that comes behind the bytes and that nobody knew of.
#[tokio::test(flavor = "multi_thread")]
async fn hazard_w5_digests_that_cannot_be_enforced_are_refused() {
    let larder = start().await;
    let url = larder.artifact("files", "a");
    for field in ["Repr-Digest", "Content-Digest", "Digest"] {
        let refused = put(&url, "bytes", &[(field, "sha-256")]).await;
        let json = refused.json();
        assert_eq!(
            (refused.status, json["rule"].as_str()),
            (400, Some(&*field.to_ascii_lowercase())),
            "{json}"
        );
    }
    let sha1 = digest(DigestAlgorithm::Sha1, b"bytes").to_hex();
    for (field, said) in [
        ("Repr-Digest: sha-256=:AAAA:", "malformed"),
        (&*format!("X-Checksum-Sha1: {sha1}"), "`Trailer`"),
    ] {
        let answer = put_with_trailer(&larder, "a", "", field).await;
        assert_eq!(raw_status(&answer), 400, "{field}: {answer}");
        assert!(answer.contains(said), "{answer}");
    }
    assert_eq!(get(&url).await.status, 404);
    assert_eq!(stored(&larder).len(), 0, "{:?}", stored(&larder));
}

/// Uploads `bytes` in a chunk, with a field behind it.
async fn put_with_trailer(larder: &TestLarder, path: &str, head: &str, field: &str) -> String {
    let fields = format!("Transfer-Encoding: chunked\r\nConnection: close\r\n{head}");
    let body = format!("5\r\nbytes\r\n0\r\n{field}\r\n\r\n");
    rest(begin(larder, path, &fields, &body).await).await
}

/// RFC 9530 section 2: a digest may come in the trailer section, where who sends it knows it only at the end.
#[tokio::test(flavor = "multi_thread")]
async fn digests_behind_the_body_are_enforced() {
    let larder = start().await;
    for (path, announced, algorithm) in [
        ("sha-256", "", DigestAlgorithm::Sha256),
        (
            "sha-512",
            "Trailer: Repr-Digest\r\n",
            DigestAlgorithm::Sha512,
        ),
        (
            "md5",
            "Trailer: X-Note, repr-digest\r\n",
            DigestAlgorithm::Md5,
        ),
    ] {
        let field = |bytes: &[u8]| {
            let digest = digest(algorithm, bytes).to_base64();
            format!("Repr-Digest: {path}=:{digest}:")
        };
        let wrong = put_with_trailer(&larder, path, announced, &field(b"other")).await;
        assert_eq!(raw_status(&wrong), 400, "{path}: {wrong}");
        assert!(wrong.contains("checksum_mismatch"), "{wrong}");
        assert_eq!(get(&larder.artifact("files", path)).await.status, 404);
        let right = put_with_trailer(&larder, path, announced, &field(b"bytes")).await;
        assert_eq!(raw_status(&right), 201, "{path}: {right}");
        assert_eq!(get(&larder.artifact("files", path)).await.text(), "bytes");
    }
}

/// What may be kept is what may be kept now, not when the upload began.
#[tokio::test(flavor = "multi_thread")]
async fn room_that_is_made_during_an_upload_counts() {
    let larder = start().await;
    let at = |path: &str| larder.artifact("small", path);
    assert_eq!(put(&at("a"), vec![1; 1000], &[]).await.status, 201);
    let mut socket = TcpStream::connect(larder.address())
        .await
        .expect("a connection");
    let head = "PUT /api/v1/remote/small/b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n";
    socket.write_all(head.as_bytes()).await.expect("sent");
    // With this the upload has begun.
    let mut leave = [0; 25];
    socket.read_exact(&mut leave).await.expect("leave");
    assert_eq!(&leave, b"HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(delete(&at("a")).await.status, 204);
    let chunk = format!("190\r\n{}\r\n", "b".repeat(400));
    for part in [&*chunk, &*chunk, "0\r\n\r\n"] {
        socket.write_all(part.as_bytes()).await.expect("sent");
    }
    let answer = rest(socket).await;
    assert_eq!(raw_status(&answer), 201, "{answer}");
    assert_eq!(get(&at("b")).await.body.len(), 800);
}

#[tokio::test(flavor = "multi_thread")]
async fn lengths_that_nothing_can_have_are_refused_by_what_is_wrong_with_them() {
    let larder = start().await;
    for (repository, length, status, code) in [
        ("files", "99999999999999", 507, "storage_full"),
        ("files", "9223372036854775807", 507, "storage_full"),
        ("small", "9223372036854775807", 413, "body_too_large"),
        ("files", "9223372036854775808", 413, "body_too_large"),
        ("files", "18446744073709551615", 413, "body_too_large"),
        ("small", "18446744073709551615", 413, "body_too_large"),
        ("files", "18446744073709551616", 413, "body_too_large"),
    ] {
        let head = format!(
            "PUT /api/v1/remote/{repository}/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
        );
        let answer = raw(larder.address(), head.as_bytes()).await;
        assert_eq!(raw_status(&answer), status, "{length}: {answer}");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
        let told: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(told["code"], code, "{length}: {body}");
        if status == 507 {
            let why = told["error"].as_str().expect("a text");
            assert!(
                why.contains("has room for") && why.contains(length),
                "{why}"
            );
        }
    }
}

fn chunks(bytes: &[u8]) -> reqwest::Body {
    // A body whose length nobody knows before its end.
    let parts: Vec<Result<Vec<u8>, std::io::Error>> =
        bytes.chunks(100).map(|part| Ok(part.to_vec())).collect();
    reqwest::Body::wrap_stream(futures_util::stream::iter(parts))
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_have_the_rules_of_all_repositories() {
    let larder = start().await;
    for (path, status) in [
        ("pub/a.zip", 201),
        ("a.zip", 403),
        ("pub/a.exe", 403),
        ("pub/", 403),
        ("pub/..%2fb", 400),
        ("pub/%5cb", 400),
        ("pub/%00", 400),
        (&format!("pub/{}", "x".repeat(2_100)), 414),
    ] {
        let answer = put(&larder.artifact("ruled", path), "x", &[]).await;
        let expected = if path == "pub/" { 400 } else { status };
        assert_eq!(answer.status, expected, "{path}: {}", answer.text());
        assert_eq!(answer.status < 300, status < 300);
    }
    assert_eq!(get(&larder.artifact("ruled", "a.zip")).await.status, 403);
    assert_eq!(delete(&larder.artifact("ruled", "a.zip")).await.status, 403);
    // Two spellings of a path are one file.
    assert_eq!(
        get(&larder.artifact("ruled", "pub//a%2Ezip")).await.text(),
        "x"
    );
    for (method, url, status, allow) in [
        ("PUT", larder.artifact("files", ""), 400, ""),
        ("DELETE", larder.artifact("files", "dir/"), 400, ""),
        (
            "POST",
            larder.artifact("files", "a"),
            405,
            "GET, HEAD, PUT, DELETE",
        ),
        (
            "PATCH",
            larder.artifact("files", "a"),
            405,
            "GET, HEAD, PUT, DELETE",
        ),
        (
            "OPTIONS",
            larder.artifact("files", "a"),
            405,
            "GET, HEAD, PUT, DELETE",
        ),
    ] {
        let answer = send(method, &url, &[]).await;
        assert_eq!(
            (answer.status, answer.header("allow")),
            (status, allow),
            "{method} {url}: {}",
            answer.text()
        );
    }
}

/// Section 6: on loopback no page of a stranger, elsewhere nobody without the token.
#[tokio::test(flavor = "multi_thread")]
async fn who_may_write() {
    let larder = start().await;
    let url = larder.artifact("files", "a");
    for field in [
        ("Origin", "https://evil.example.com"),
        ("Origin", "null"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Host", "evil.example.com"),
    ] {
        assert_eq!(put(&url, "x", &[field]).await.status, 403, "{field:?}");
        assert_eq!(
            send("DELETE", &url, &[field]).await.status,
            403,
            "{field:?}"
        );
    }
    assert_eq!(get(&url).await.status, 404);
    // A dot at the end makes the name absolute, and no other one.
    for host in ["localhost.", "LOCALHOST.:8000"] {
        let taken = put(&url, host, &[("Host", host)]).await;
        assert!(taken.status < 300, "{host}: {}", taken.text());
    }
    let closed = Setup::new(CONFIG)
        .env("LARDER_ADMIN_TOKEN", "s3cret-token")
        .start()
        .await;
    let url = closed.artifact("files", "a");
    let refused = put(&url, "x", &[]).await;
    assert_eq!(
        (refused.status, refused.header("www-authenticate")),
        (401, "Bearer realm=\"larder\"")
    );
    assert_eq!(
        put(&url, "x", &[("Authorization", "Bearer wrong")])
            .await
            .status,
        401
    );
    assert_eq!(delete(&url).await.status, 401);
    let token = [("Authorization", "Bearer s3cret-token")];
    assert_eq!(put(&url, "x", &token).await.status, 201);
    assert_eq!(get(&url).await.text(), "x", "reading needs nothing");
    assert_eq!(send("DELETE", &url, &token).await.status, 204);
}

/// Sends a head and a part of the body that it announces.
async fn begin(larder: &TestLarder, path: &str, fields: &str, part: &str) -> TcpStream {
    let mut socket = TcpStream::connect(larder.address())
        .await
        .expect("a connection");
    let head = format!(
        "PUT /api/v1/remote/files/{path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n{part}"
    );
    socket.write_all(head.as_bytes()).await.expect("sent");
    socket
}

async fn rest(mut socket: TcpStream) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE * 4, socket.read_to_end(&mut answer)).await;
    let _ = read.expect("an end");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_w1_w2_bodies_that_end_early_leave_nothing() {
    let larder = start().await;
    put(&larder.artifact("files", "held"), "held", &[]).await;
    for (number, (fields, part)) in [
        ("Content-Length: 10\r\n", "12345"),
        ("Transfer-Encoding: chunked\r\n", "5\r\n12345\r\n"),
        ("Transfer-Encoding: chunked\r\n", "5\r\n123"),
        ("Content-Length: 10\r\n", ""),
    ]
    .into_iter()
    .enumerate()
    {
        for path in ["held", &format!("{number}")] {
            let mut socket = begin(&larder, path, fields, part).await;
            tokio::time::sleep(Duration::from_millis(30)).await;
            socket.shutdown().await.expect("closed");
            let answer = rest(socket).await;
            assert!(
                !matches!(raw_status(&answer), 200 | 201),
                "{fields}{part}: {answer}"
            );
        }
        assert_eq!(
            get(&larder.artifact("files", &format!("{number}")))
                .await
                .status,
            404
        );
    }
    // And what is malformed in the middle.
    let socket = begin(
        &larder,
        "bad",
        "Transfer-Encoding: chunked\r\n",
        "5\r\n12345\r\nzz\r\n",
    )
    .await;
    assert_eq!(raw_status(&rest(socket).await), 400);
    assert_eq!(get(&larder.artifact("files", "held")).await.text(), "held");
    assert_eq!(stored(&larder).len(), 1, "{:?}", stored(&larder));
}

/// A minute of silence ends an upload; drops that come in time do not.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "it waits for a minute; part of make stress"]
async fn hazard_r1_an_upload_that_stalls_is_given_up() {
    let larder = start().await;
    let begun = std::time::Instant::now();
    let stalled = begin(&larder, "stalled", "Content-Length: 10\r\n", "12345").await;
    let mut slow = begin(
        &larder,
        "slow",
        "Content-Length: 10\r\nConnection: close\r\n",
        "12345",
    )
    .await;
    let dripping = async {
        for part in ["6", "7", "8", "9", "0"] {
            tokio::time::sleep(Duration::from_secs(20)).await;
            slow.write_all(part.as_bytes()).await.expect("sent");
        }
        rest(slow).await
    };
    let silent = async {
        let answer = rest(stalled).await;
        (answer, begun.elapsed())
    };
    let (slow, (answer, after)) = tokio::join!(dripping, silent);
    assert_eq!(
        raw_status(&slow),
        201,
        "100 seconds, and never silent for long: {slow}"
    );
    assert_eq!(raw_status(&answer), 408, "{answer}");
    assert!((59..75).contains(&after.as_secs()), "{after:?}");
    assert_eq!(get(&larder.artifact("files", "stalled")).await.status, 404);
    assert_eq!(
        get(&larder.artifact("files", "slow")).await.text(),
        "1234567890"
    );
}

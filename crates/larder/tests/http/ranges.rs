//! `Range` and `If-Range` (RFC 9110 section 14; hazard W8).

use std::time::Duration;

use larder_testkit::{Origin, Payload, Resource};

use crate::support::client::client;
use crate::support::packages::remote;
use crate::support::{Answer, PATIENCE, TestLarder, get, send};

const LENGTH: u64 = 10_000;
const MODIFIED: &str = "Wed, 01 Jan 2020 00:00:00 GMT";

async fn held() -> (Origin, TestLarder, String, Vec<u8>) {
    let origin = Origin::start().await;
    let body = Payload::generated(LENGTH, 5);
    origin.put(
        "/a.bin",
        Resource::new(body.clone())
            .etag("\"r-1\"")
            .last_modified(MODIFIED)
            .content_type("text/x"),
    );
    let larder = TestLarder::start(&remote("generic", &origin, "")).await;
    let url = larder.artifact("generic", "a.bin");
    get(&url).await;
    larder.hit(&url).await;
    (origin, larder, url, body.slice(0, LENGTH).to_vec())
}

/// The parts of a `multipart/byteranges` body: `Content-Range` and bytes.
fn parts(answer: &Answer) -> Vec<(String, Vec<u8>)> {
    let boundary = answer
        .header("content-type")
        .strip_prefix("multipart/byteranges; boundary=")
        .expect("a boundary");
    let delimiter = format!("\r\n--{}", boundary.trim_matches('"'));
    let body = [b"\r\n", &answer.body[..]].concat();
    let mut parts = Vec::new();
    let mut rest = &body[..];
    let find =
        |text: &[u8], what: &[u8]| text.windows(what.len()).position(|window| window == what);
    while let Some(at) = find(rest, delimiter.as_bytes()) {
        rest = &rest[at + delimiter.len()..];
        if rest.starts_with(b"--") {
            return parts;
        }
        let head_end = find(rest, b"\r\n\r\n").expect("a part's head");
        let head = String::from_utf8_lossy(&rest[..head_end]).to_lowercase();
        let range = head
            .lines()
            .find_map(|line| line.strip_prefix("content-range: "))
            .expect("its range")
            .to_owned();
        assert!(head.contains("content-type: text/x"), "{head}");
        let content = &rest[head_end + 4..];
        let end = find(content, delimiter.as_bytes()).expect("its end");
        parts.push((range, content[..end].to_vec()));
        rest = &content[end..];
    }
    panic!("no final delimiter");
}

#[tokio::test(flavor = "multi_thread")]
async fn single_ranges_of_a_held_file() {
    let (_origin, _larder, url, body) = held().await;
    for (range, start, end) in [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=9999-9999", 9_999, 10_000),
        ("bytes=9000-", 9_000, 10_000),
        ("bytes=9000-99999", 9_000, 10_000),
        ("bytes=9000-18446744073709551615", 9_000, 10_000),
        ("bytes=-100", 9_900, 10_000),
        ("bytes=-10000", 0, 10_000),
        ("bytes=-99999", 0, 10_000),
        ("bytes=-18446744073709551615", 0, 10_000),
        ("bytes= 5-6", 5, 7),
        ("BYTES=5-6", 5, 7),
        ("bytes=20000-30000, 5-6", 5, 7),
    ] {
        let answer = send("GET", &url, &[("Range", range)]).await;
        assert_eq!(answer.status, 206, "{range}");
        assert!(
            answer.body == body[start..end],
            "{range}: {} bytes, or other ones",
            answer.body.len()
        );
        assert_eq!(
            answer.header("content-range"),
            format!("bytes {start}-{}/{LENGTH}", end - 1),
            "{range}"
        );
        assert_eq!(
            answer.header("content-length"),
            (end - start).to_string(),
            "{range}"
        );
        assert_eq!(
            (answer.header("content-type"), answer.header("etag")),
            ("text/x", "\"r-1\""),
            "{range}"
        );
    }
}

/// CVE-2017-7529 leaked what lies before a file by a suffix that overflowed.
#[tokio::test(flavor = "multi_thread")]
async fn hazard_w8_ranges_that_overflow_or_make_no_sense_show_the_file_and_nothing_else() {
    let (_origin, _larder, url, body) = held().await;
    for range in [
        "bytes=18446744073709551616-",
        "bytes=-18446744073709551616",
        "bytes=-9223372036854775809",
        "bytes=0-18446744073709551616",
        "bytes=99999999999999999999999-99999999999999999999999999",
        "bytes=-0",
        "bytes=5-4",
        "bytes=a-b",
        "bytes=",
        "bytes=-",
        "bytes=,",
        "bytes=1",
        "bytes=0x1-2",
        "bytes=+1-2",
        "lines=1-2",
        "0-99",
        "bytes 0-99",
        "bytes=10000-",
        "bytes=10000-10001",
    ] {
        let answer = send("GET", &url, &[("Range", range)]).await;
        match answer.status {
            200 => assert!(answer.body == body, "{range}"),
            206 => {
                let shown = answer
                    .header("content-range")
                    .strip_prefix("bytes ")
                    .and_then(|rest| rest.strip_suffix("/10000"));
                let (start, end) = shown
                    .and_then(|range| range.split_once('-'))
                    .expect("a range");
                let (start, end): (usize, usize) = (
                    start.parse().expect("a number"),
                    end.parse().expect("a number"),
                );
                assert!(answer.body == body[start..=end], "{range}");
            }
            416 => assert_eq!(answer.header("content-range"), "bytes */10000", "{range}"),
            other => panic!("{range}: {other}"),
        }
    }
    for range in [
        "bytes=10000-",
        "bytes=10000-10001",
        "bytes=20000-30000, 40000-",
    ] {
        let answer = send("GET", &url, &[("Range", range)]).await;
        assert_eq!(
            (answer.status, answer.header("content-range")),
            (416, "bytes */10000"),
            "{range}"
        );
        assert_eq!(
            answer.json()["repository"],
            "generic",
            "{range}: {}",
            answer.text()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_ranges_come_as_multipart() {
    let (_origin, _larder, url, body) = held().await;
    let answer = send("GET", &url, &[("Range", "bytes=0-9, 500-509,-10")]).await;
    assert_eq!(answer.status, 206, "{}", answer.text());
    assert_eq!(answer.header("content-range"), "", "each part has its own");
    assert_eq!(
        answer.header("content-length"),
        answer.body.len().to_string()
    );
    let want = [(0, 9), (500, 509), (9_990, 9_999)].map(|(first, last)| {
        (
            format!("bytes {first}-{last}/10000"),
            body[first..=last].to_vec(),
        )
    });
    assert!(parts(&answer) == want, "{:?}", parts(&answer));
    // librepo asks for up to 256 at once.
    let many: Vec<String> = (0..256)
        .map(|n| format!("{}-{}", n * 39, n * 39 + 5))
        .collect();
    let answer = send(
        "GET",
        &url,
        &[("Range", &format!("bytes={}", many.join(",")))],
    )
    .await;
    assert_eq!(answer.status, 206);
    let got = parts(&answer);
    assert_eq!(got.len(), 256);
    for (n, (_, bytes)) in got.iter().enumerate() {
        assert!(bytes[..] == body[n * 39..n * 39 + 6], "part {n}");
    }
}

/// librepo fetches the chunks of zchunk metadata so, and gives ranges up if it gets no multipart answer.
#[tokio::test(flavor = "multi_thread")]
async fn rpm_08_two_hundred_ranges_of_zchunk_metadata_come_in_one_answer_and_rpm_09_too_many_as_the_whole()
 {
    let origin = Origin::start().await;
    let body = Payload::generated(1 << 20, 8).slice(0, 1 << 20).to_vec();
    let path = format!(
        "el9/repodata/{}-primary.xml.zck",
        larder_core::sha256(&body).to_hex()
    );
    origin.put(
        &format!("/{path}"),
        Resource::new(body.clone()).content_type("text/x"),
    );
    let larder = TestLarder::start(&remote("rpm", &origin, "")).await;
    let url = larder.artifact("rpm", &path);
    let header = send("GET", &url, &[("Range", "bytes=0-499")]).await;
    assert_eq!(
        (header.status, &header.body[..]),
        (206, &body[..500]),
        "cold: the header of the file alone"
    );
    larder.hit(&url).await;
    let spans = |count: usize| {
        (0..count)
            .map(|n| (n * 3_000, n * 3_000 + 1_999 + n % 7))
            .collect::<Vec<_>>()
    };
    let range = |count| {
        format!(
            "bytes={}",
            spans(count)
                .iter()
                .map(|(a, b)| format!("{a}-{b}"))
                .collect::<Vec<_>>()
                .join(",")
        )
    };
    let answer = send("GET", &url, &[("Range", &range(200))]).await;
    assert_eq!(answer.status, 206, "{}", answer.text());
    let want: Vec<_> = spans(200)
        .into_iter()
        .map(|(a, b)| {
            (
                format!("bytes {a}-{b}/{}", body.len()),
                body[a..=b].to_vec(),
            )
        })
        .collect();
    assert!(parts(&answer) == want, "{} parts", parts(&answer).len());
    let many = send("GET", &url, &[("Range", &range(300))]).await;
    assert_eq!(many.status, 200);
    assert!(many.body == body);
    assert_eq!(origin.count("GET", "*"), 1, "{:?}", origin.requests());
}

/// CVE-2011-3192: many overlapping ranges must not make an answer larger than the file.
#[tokio::test(flavor = "multi_thread")]
async fn hazard_w8_overlapping_ranges_cost_no_more_than_the_file() {
    let (_origin, _larder, url, body) = held().await;
    for range in [
        format!("bytes={}", vec!["0-"; 1_000].join(",")),
        format!(
            "bytes={}",
            (0..1_000)
                .map(|n| format!("{n}-"))
                .collect::<Vec<_>>()
                .join(",")
        ),
        format!(
            "bytes={}",
            (0..700)
                .map(|n| format!("{n}-9999"))
                .collect::<Vec<_>>()
                .join(",")
        ),
        format!("bytes={}", vec!["-10000"; 500].join(",")),
        format!(
            "bytes={}",
            (0..1_300)
                .map(|n| format!("{}-{}", n * 2, n * 2))
                .collect::<Vec<_>>()
                .join(",")
        ),
    ] {
        if range.len() > 7_000 {
            continue;
        }
        let answer = send("GET", &url, &[("Range", &range)]).await;
        let shown = &range[..range.len().min(40)];
        assert!(
            matches!(answer.status, 200 | 206),
            "{shown}: {}",
            answer.status
        );
        let single = answer.header("content-range").starts_with("bytes ");
        let bytes = if answer.status == 200 || single {
            answer.body.len()
        } else {
            parts(&answer).iter().map(|(_, b)| b.len()).sum()
        };
        assert!(
            bytes <= body.len(),
            "{shown}: {bytes} bytes of a file of {}",
            body.len()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn if_range_gives_the_part_only_of_the_very_same_body() {
    let (_origin, _larder, url, body) = held().await;
    for (condition, want) in [
        ("\"r-1\"", 206),
        (MODIFIED, 206),
        ("\"r-0\"", 200),
        ("W/\"r-1\"", 200),
        ("r-1", 200),
        ("*", 200),
        ("Tue, 31 Dec 2019 00:00:00 GMT", 200),
        ("Thu, 02 Jan 2020 00:00:00 GMT", 200),
    ] {
        let answer = send(
            "GET",
            &url,
            &[("Range", "bytes=10-19"), ("If-Range", condition)],
        )
        .await;
        assert_eq!(answer.status, want, "{condition}");
        assert!(
            answer.body
                == if want == 206 {
                    &body[10..20]
                } else {
                    &body[..]
                },
            "{condition}"
        );
    }
    // A weak tag proves nothing about bytes.
    let (origin, larder, ..) = held().await;
    origin.put("/weak", Resource::new("0123456789").etag("W/\"w\""));
    let url = larder.artifact("generic", "weak");
    get(&url).await;
    larder.hit(&url).await;
    assert_eq!(
        send(
            "GET",
            &url,
            &[("Range", "bytes=1-2"), ("If-Range", "W/\"w\"")]
        )
        .await
        .status,
        200
    );
    assert_eq!(
        send("GET", &url, &[("Range", "bytes=1-2")]).await.text(),
        "12"
    );
    assert_eq!(
        send("HEAD", &url, &[("Range", "bytes=1-2")]).await.status,
        200,
        "ranges are GET's"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_of_a_missing_file_fetches_and_keeps_the_whole() {
    let origin = Origin::start().await;
    let body = Payload::generated(3 << 20, 6);
    let larder = TestLarder::start(&remote("generic", &origin, "")).await;
    for (number, range, start, length) in [
        (0, "bytes=100-199", 100, 100),
        (1, "bytes=-50", (3 << 20) - 50, 50),
        (2, "bytes=3000000-", 3_000_000, (3 << 20) - 3_000_000),
    ] {
        let path = format!("/f{number}");
        origin.put(&path, Resource::new(body.clone()).etag("\"f\""));
        let url = larder.artifact("generic", &path[1..]);
        let part = send("GET", &url, &[("Range", range)]).await;
        assert_eq!((part.status, part.source()), (206, "remote"), "{range}");
        assert!(part.body == body.slice(start, length), "{range}");
        let whole = larder.hit(&url).await;
        assert!(whole.body == body.slice(0, 3 << 20), "{range}");
        assert_eq!(origin.count("*", &path), 1, "{range}");
    }
    assert!(
        origin
            .requests()
            .iter()
            .all(|request| request.header("range").is_none()),
        "the whole file was asked for"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_ahead_of_the_fill_wait_for_it_and_those_behind_do_not() {
    let origin = Origin::start().await;
    let body = Payload::generated(6 << 20, 8);
    origin.put("/f", Resource::new(body.clone()));
    origin.hold_body("/f", 3 << 20);
    let larder = TestLarder::start(&remote("generic", &origin, "")).await;
    let url = larder.artifact("generic", "f");
    let running = client().get(&url).send().await.expect("a head");
    let behind = tokio::time::timeout(PATIENCE, send("GET", &url, &[("Range", "bytes=1000-1999")]))
        .await
        .expect("no wait");
    assert!(behind.status == 206 && behind.body == body.slice(1_000, 1_000));
    let ahead = tokio::spawn({
        let url = url.clone();
        async move { send("GET", &url, &[("Range", "bytes=-1000")]).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!ahead.is_finished());
    origin.release("/f");
    let ahead = ahead.await.expect("an answer");
    assert!(ahead.status == 206 && ahead.body == body.slice((6 << 20) - 1_000, 1_000));
    assert!(running.bytes().await.expect("the rest") == body.slice(0, 6 << 20));
    assert_eq!(origin.requests().len(), 1);
}

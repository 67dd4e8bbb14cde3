//! What real servers send in the fields of their answers: many, long ones, and octets above 127 (RFC 9110 section 5.5).

use larder_testkit::{Origin, Resource};

use crate::support::packages::remote;
use crate::support::{Answer, TestLarder, get, send};

const NAME: &str = "attachment; filename=\"资.zip\"";
const TAG: &str = "\"资-1\"";

fn bytes<'a>(answer: &'a Answer, name: &str) -> &'a [u8] {
    answer
        .headers
        .get(name)
        .map_or(&[], |value| value.as_bytes())
}

/// Without larder a client sees the very octets that the server has sent.
#[tokio::test(flavor = "multi_thread")]
async fn fields_of_any_octets_are_served_byte_for_byte_and_go_back_as_validators() {
    let origin = Origin::start().await;
    let resource = Resource::new("bytes")
        .header("Content-Disposition", NAME)
        .header("ETag", TAG);
    origin.put("/f.zip", resource.clone());
    origin.put("/latest", resource);
    let keys = "mutable_patterns: ['^latest$']\nrevalidate: get\ncache: { mutable_ttl: 0 }";
    let mut larder = TestLarder::start(&remote("generic", &origin, keys)).await;
    let url = larder.artifact("generic", "f.zip");
    let check = |answer: &Answer, what: &str| {
        assert_eq!(
            bytes(answer, "content-disposition"),
            NAME.as_bytes(),
            "{what}"
        );
        assert_eq!(bytes(answer, "etag"), TAG.as_bytes(), "{what}");
    };
    check(&send("HEAD", &url, &[]).await, "a forwarded HEAD");
    check(&get(&url).await, "a miss");
    for _ in 0..3 {
        check(&larder.hit(&url).await, "a hit");
        check(&send("HEAD", &url, &[]).await, "HEAD of a hit");
        check(
            &send("GET", &url, &[("Range", "bytes=1-2"), ("If-Range", TAG)]).await,
            "a range",
        );
        let unchanged = send("GET", &url, &[("If-None-Match", TAG)]).await;
        assert_eq!(
            (unchanged.status, bytes(&unchanged, "etag")),
            (304, TAG.as_bytes())
        );
        assert_eq!(
            send("GET", &url, &[("If-None-Match", "\"资-2\"")])
                .await
                .status,
            200
        );
    }
    assert_eq!(
        send("GET", &url, &[("Range", "bytes=1-2"), ("If-Range", TAG)])
            .await
            .status,
        206
    );
    larder.terminate();
    larder.restart().await;
    check(
        &get(&larder.artifact("generic", "f.zip")).await,
        "from the database",
    );
    let latest = larder.artifact("generic", "latest");
    get(&latest).await;
    get(&latest).await;
    let asked = origin
        .requests()
        .into_iter()
        .rfind(|request| request.path() == "/latest")
        .expect("asked again");
    assert!(asked.header("if-none-match").is_some(), "{asked:?}");
}

/// curl takes 5,000 fields; RFC 9110 section 5.4 lets a server refuse long requests, and says nothing of answers.
#[tokio::test(flavor = "multi_thread")]
async fn many_or_long_fields_are_served_without_what_is_too_long_to_be_kept() {
    let origin = Origin::start().await;
    let mut many = Resource::new("many").etag("\"m\"");
    for n in 0..1_000 {
        many = many.header(&format!("X-{n}"), "v");
    }
    origin.put("/many", many);
    origin.put(
        "/long",
        Resource::new("long")
            .header("X-Long", &"v".repeat(12_000))
            .header("Content-Language", &"l".repeat(12_000)),
    );
    origin.put(
        "/fits",
        Resource::new("fits").header("Content-Disposition", &"d".repeat(4 << 10)),
    );
    let over = |length: usize| "d".repeat(length);
    origin.put(
        "/over",
        Resource::new("over").header("Content-Disposition", &over((4 << 10) + 1)),
    );
    let larder = TestLarder::start(&remote("generic", &origin, "")).await;
    for (path, language, disposition) in [
        ("many", 0, 0),
        ("long", 0, 0),
        ("fits", 0, 4 << 10),
        ("over", 0, 0),
    ] {
        let url = larder.artifact("generic", path);
        for method in ["HEAD", "GET", "GET"] {
            let answer = send(method, &url, &[]).await;
            assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
            assert_eq!(
                bytes(&answer, "content-language").len(),
                language,
                "{method} {path}"
            );
            assert_eq!(
                bytes(&answer, "content-disposition").len(),
                disposition,
                "{method} {path}"
            );
        }
    }
}

/// Lines of one field are one list (RFC 9110 section 5.3), and a coding that is left out makes other bytes of the same ones.
#[tokio::test(flavor = "multi_thread")]
async fn lists_in_several_lines_are_kept_whole() {
    let origin = Origin::start().await;
    let resource = Resource::new("coded twice")
        .header("Content-Encoding", "gzip")
        .header("Content-Encoding", "br")
        .header("Content-Language", "de")
        .header("Content-Language", "en");
    origin.put("/f", resource);
    let larder = TestLarder::start(&remote("generic", &origin, "")).await;
    let url = larder.artifact("generic", "f");
    let check = |answer: &Answer| {
        assert_eq!(bytes(answer, "content-encoding"), b"gzip, br");
        assert_eq!(bytes(answer, "content-language"), b"de, en");
    };
    check(&send("HEAD", &url, &[]).await);
    check(&get(&url).await);
    check(&larder.hit(&url).await);
}

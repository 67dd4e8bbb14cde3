//! Contract, section 1, "HEAD on a remote".

use http::Method;
use larder_core::{FaultKind, Source};
use larder_testkit::{Behaviour, Payload};

use crate::support::{Bench, FORMATS, publish};
use crate::{assert_hit, refusal};

#[tokio::test]
async fn a_head_of_a_file_that_is_not_held_is_forwarded_and_stores_nothing() {
    for format in FORMATS {
        let bench = Bench::new().await;
        let body = Payload::generated(5000, 1);
        let file = publish(&bench.origin, format, &body, "\"tag\"");
        let head = bench
            .ask(Method::HEAD, format, &file.path, &[])
            .await
            .unwrap();
        let of = &head.answer.representation;
        assert_eq!(
            (head.answer.status, of.length, of.etag.as_deref()),
            (200, Some(5000), Some("\"tag\""))
        );
        assert_eq!(head.answer.source, Source::Remote);
        bench.settled().await;
        assert_eq!(bench.record(format, &file.path, "").await, None);
        assert_eq!(
            (
                bench.origin.count("HEAD", &file.at),
                bench.origin.count("GET", &file.at)
            ),
            (1, 0)
        );
        bench.get(format, &file.path).await.unwrap();
        assert_hit(&bench, &file, &body).await;
        let head = bench
            .ask(Method::HEAD, format, &file.path, &[])
            .await
            .unwrap();
        let of = &head.answer.representation;
        assert_eq!(
            (of.length, of.etag.as_deref(), head.answer.source),
            (Some(5000), Some("\"tag\""), Source::Cache)
        );
        assert_eq!(bench.origin.count("*", &file.at), 2);
    }
}

#[tokio::test]
async fn where_head_is_not_supported_a_get_is_closed_after_its_head() {
    for status in [400, 403, 405, 501] {
        let bench = Bench::new().await;
        let body = Payload::generated(64 << 20, 1);
        let file = publish(&bench.origin, "generic", &body, "\"tag\"");
        bench
            .origin
            .behave_once(&file.at, Behaviour::Status(status));
        bench.origin.hold_body(&file.at, 1 << 20);
        let head = tokio::time::timeout(
            std::time::Duration::from_secs(5),
            bench.ask(Method::HEAD, "generic", &file.path, &[]),
        );
        let head = head.await.expect("no body is waited for").unwrap();
        assert_eq!(
            (head.answer.status, head.answer.representation.length),
            (200, Some(64 << 20)),
            "{status}"
        );
        let methods: Vec<_> = bench
            .origin
            .requests()
            .into_iter()
            .map(|request| request.method)
            .collect();
        assert_eq!(methods, ["HEAD", "GET"]);
        bench.settled().await;
        assert_eq!(bench.record("generic", &file.path, "").await, None);
    }
    let bench = Bench::new().await;
    let file = publish(
        &bench.origin,
        "generic",
        &Payload::generated(10, 1),
        "\"tag\"",
    );
    bench.origin.behave(&file.at, Behaviour::Status(404));
    assert_eq!(
        refusal(bench.ask(Method::HEAD, "generic", &file.path, &[]).await).0,
        FaultKind::Upstream(404)
    );
    assert_eq!(bench.origin.requests().len(), 1);
}

#[tokio::test]
async fn a_head_of_a_document_has_the_length_of_what_get_gives() {
    for format in ["pypi", "npm", "helm"] {
        let bench = Bench::new().await;
        let file = publish(&bench.origin, format, &Payload::generated(10, 1), "\"tag\"");
        let head = bench
            .ask(Method::HEAD, format, file.document, &[])
            .await
            .unwrap();
        bench.settled().await;
        let get = bench.get(format, file.document).await.unwrap();
        assert_eq!(
            head.answer.representation.length,
            Some(get.bytes().len() as u64)
        );
        assert_eq!(
            head.answer.representation.etag,
            get.answer.representation.etag
        );
        assert_eq!(
            bench
                .origin
                .requests()
                .iter()
                .filter(|request| request.method != "GET")
                .count(),
            0
        );
    }
}

/// After an absence that is forgotten, HEAD asks as if nothing had been remembered.
#[tokio::test]
async fn a_head_after_an_expired_absence_is_forwarded() {
    let bench = Bench::new().await;
    refusal(bench.get("generic", "f").await);
    bench.settled().await;
    bench.origin.put("/f", crate::text("there"));
    assert_eq!(
        refusal(bench.ask(Method::HEAD, "generic", "f", &[]).await).0,
        FaultKind::Upstream(404),
        "still remembered"
    );
    bench.wait(11);
    bench.origin.reset_log();
    bench.ask(Method::HEAD, "generic", "f", &[]).await.unwrap();
    assert_eq!(
        (
            bench.origin.count("HEAD", "/f"),
            bench.origin.count("GET", "/f")
        ),
        (1, 0)
    );
}

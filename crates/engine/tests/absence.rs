//! What is not there is remembered in memory only (hazards R7, X6), for its time (hazard A6); what strangers make up leaves nothing
//! behind that grows with what they send.
#![expect(
    clippy::unwrap_used,
    reason = "a test program: its helpers panic to report"
)]

mod support;

use http::Method;
use larder_core::FaultKind;
use larder_engine::{CacheType, FlushRequest};
use larder_testkit::{Payload, Resource};
use support::{Bench, FORMATS, Published, helm_index, npm_packument, publish, pypi_page};

const MISSING: [(&str, &str); 7] = [
    ("generic", "no/file.bin"),
    ("pypi", "packages/absent-1.0-py3-none-any.whl"),
    ("npm", "absent/-/absent-1.0.0.tgz"),
    ("helm", "charts/absent-1.0.0.tgz"),
    ("alpine", "v3/main/x86_64/absent-1.0-r0.apk"),
    ("rpm", "Packages/absent-1.0-1.x86_64.rpm"),
    ("docker", "library/absent/manifests/latest"),
];

#[tokio::test]
async fn hazard_x6_what_is_not_there_leaves_no_row() {
    let mut bench = Bench::new().await;
    for (repository, path) in MISSING {
        for method in [Method::GET, Method::GET, Method::HEAD] {
            let fault = bench.ask(method, repository, path, &[]).await.unwrap_err();
            assert_eq!(fault.kind, FaultKind::Upstream(404), "{repository}");
        }
        bench.settled().await;
    }
    let asked = bench.origin.requests().len();
    for (repository, path) in MISSING {
        for method in [Method::GET, Method::HEAD] {
            let fault = bench.ask(method, repository, path, &[]).await.unwrap_err();
            assert_eq!(
                (fault.kind, fault.rule.as_deref()),
                (FaultKind::Upstream(404), Some("negative_ttl")),
                "{repository}"
            );
        }
    }
    assert_eq!(bench.origin.requests().len(), asked, "remembered");
    assert_eq!(
        bench.metadata.counts().await.unwrap().records,
        0,
        "but not written"
    );
    bench.restart().await;
    assert_eq!(bench.metadata.counts().await.unwrap().records, 0);
}

/// A copy that its upstream no longer has goes, and nothing takes its place in the database.
#[tokio::test]
async fn hazard_x6_a_copy_that_is_gone_upstream_leaves_no_row() {
    let bench = Bench::with(|repository| {
        repository.cache.immutable_ttl = Some(std::time::Duration::from_secs(60));
    })
    .await;
    bench.origin.put("/f", Resource::new("one").etag("\"1\""));
    bench.get("generic", "f").await.unwrap();
    bench.settled().await;
    assert!(bench.record("generic", "f", "").await.is_some());
    bench.wait(61);
    bench.origin.remove("/f");
    for _ in 0..2 {
        assert_eq!(
            bench.get("generic", "f").await.unwrap_err().kind,
            FaultKind::Upstream(404)
        );
        bench.settled().await;
    }
    assert_eq!(
        bench.origin.count("GET", "/f"),
        2,
        "the absence is remembered"
    );
    assert_eq!(bench.metadata.counts().await.unwrap().records, 0);
}

async fn flush(bench: &Bench, remote: Option<&str>, cache_type: CacheType, pattern: Option<&str>) {
    let request = FlushRequest {
        remote: remote.map(Into::into),
        cache_type,
        pattern: pattern.map(Into::into),
    };
    bench.engine.flush(request).await.unwrap();
}

#[tokio::test]
async fn hazard_a6_a_flush_forgets_absences_by_remote_type_and_pattern() {
    let bench = Bench::new().await;
    let (file, index) = ("charts/absent-1.0.0.tgz", "index.yaml");
    let asked = |path: &str| bench.origin.count("GET", &format!("/{path}"));
    let ask = async || {
        for path in [file, index] {
            let kind = bench.get("helm", path).await.unwrap_err().kind;
            assert!(
                matches!(kind, FaultKind::Upstream(404) | FaultKind::BadGateway),
                "{path}: {kind:?}"
            );
            bench.settled().await;
        }
        let counted = (asked(file), asked(index));
        bench.origin.reset_log();
        counted
    };
    ask().await;
    assert_eq!(ask().await, (0, 0), "both are remembered");
    flush(&bench, Some("generic"), CacheType::All, None).await;
    assert_eq!(ask().await, (0, 0), "another repository");
    flush(&bench, Some("helm"), CacheType::Metrics, None).await;
    assert_eq!(ask().await, (0, 0), "nothing but counters");
    flush(&bench, Some("helm"), CacheType::All, Some("^other/")).await;
    assert_eq!(ask().await, (0, 0), "other paths");
    flush(&bench, Some("helm"), CacheType::Files, None).await;
    let (files, _) = ask().await;
    assert_eq!(files, 1, "what is immutable");
    flush(&bench, Some("helm"), CacheType::All, Some("^charts/")).await;
    let (files, _) = ask().await;
    assert_eq!(files, 1, "these paths");
    flush(&bench, None, CacheType::Index, None).await;
    let (files, indexes) = ask().await;
    assert!(
        files == 0 && indexes >= 1,
        "what is mutable: {files} {indexes}"
    );
}

/// A publisher uploads; a build that asked a moment too early must not wait for `negative_ttl` once the index names the file.
#[tokio::test]
async fn hazard_a6_a_new_document_that_names_a_file_ends_its_absence() {
    for mutable_ttl in [5, 0] {
        named_by_a_new_document(mutable_ttl, 1, true).await;
    }
}

/// An image is pushed part by part, its manifest last: whoever asked a moment too early must not wait for `negative_ttl` once that is there.
#[tokio::test]
async fn hazard_a6_a_manifest_that_arrives_ends_the_absence_of_what_it_names() {
    for is_held in [true, false] {
        let bench = Bench::with(|repository| {
            repository.cache.negative_ttl = std::time::Duration::from_hours(1);
        })
        .await;
        let layer = larder_core::sha256(b"layer");
        let image = format!(
            "{{\"schemaVersion\":2,\"config\":{{}},\"layers\":[{{\"digest\":\"{layer}\",\"size\":5}}]}}"
        );
        let parts = [
            format!(
                "library/app/manifests/{}",
                larder_core::sha256(image.as_bytes())
            ),
            format!("library/app/blobs/{layer}"),
        ];
        for part in &parts {
            bench.get("docker", part).await.unwrap_err();
            bench.settled().await;
        }
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = || Resource::new(image.clone()).content_type(media_type);
        bench.origin.put(&format!("/v2/{}", parts[0]), manifest());
        bench
            .origin
            .put(&format!("/v2/{}", parts[1]), Resource::new("layer"));
        let rule = bench.get("docker", &parts[1]).await.unwrap_err().rule;
        assert_eq!(rule.as_deref(), Some("negative_ttl"), "nothing has arrived");
        let tag = "library/app/manifests/latest";
        bench.origin.put(&format!("/v2/{tag}"), manifest());
        bench.get("docker", tag).await.unwrap();
        if is_held {
            bench.settled().await;
        }
        for part in &parts {
            let got = bench.get("docker", part).await;
            assert!(got.is_ok(), "{part} {is_held}: {:?}", got.err());
        }
        bench.settled().await;
    }
}

/// Clients ask for what they have just read of at once: the document may not be committed by then, and others may ask for it again.
#[tokio::test]
async fn hazard_a6_a_document_that_was_answered_with_and_is_not_held_yet_ends_absences_too() {
    for (mutable_ttl, reads) in [(5, 1), (0, 1), (0, 2)] {
        named_by_a_new_document(mutable_ttl, reads, false).await;
    }
}

/// A file was absent, and is fetched as soon as so many reads of its document have named it, which may be held by then or not.
async fn named_by_a_new_document(mutable_ttl: u64, reads: u32, is_held: bool) {
    for format in FORMATS.into_iter().filter(|format| *format != "generic") {
        let bench = Bench::with(|repository| {
            repository.cache.negative_ttl = std::time::Duration::from_hours(1);
            repository.cache.mutable_ttl = std::time::Duration::from_secs(mutable_ttl);
        })
        .await;
        let body = Payload::generated(5000, 1);
        let (path, document) = unpublished(&bench, format, &body).await;
        publish(&bench.origin, format, &body, "\"1\"");
        bench.wait(6);
        for _ in 0..reads {
            bench.get(format, document).await.unwrap();
        }
        if is_held {
            bench.settled().await;
        }
        let got = bench
            .get(format, &path)
            .await
            .map_err(|fault| format!("{format} {mutable_ttl} {reads}: {fault:?}"))
            .unwrap();
        assert_eq!(got.bytes(), &body.slice(0, 5000), "{format}");
        bench.settled().await;
    }
}

/// Of a file that is not there yet, whose absence is remembered, and whose document names another one: its path, and the document's.
async fn unpublished(bench: &Bench, format: &str, body: &Payload) -> (String, &'static str) {
    let Published {
        path,
        at,
        document,
        document_at,
        ..
    } = publish(&bench.origin, format, body, "\"1\"");
    bench.origin.remove(&at);
    let other = larder_core::sha256(b"other");
    let earlier = match format {
        "pypi" => pypi_page(
            &bench.origin.url("/packages/demo-0.9-py3-none-any.whl"),
            &other,
        ),
        "npm" => npm_packument(&bench.origin.url("/demo/-/demo-0.9.0.tgz"), b"other"),
        _ => helm_index("charts/demo-0.9.0.tgz", &other),
    };
    bench.origin.put(document_at, earlier);
    bench.get(format, document).await.unwrap();
    bench.settled().await;
    for _ in 0..2 {
        assert_eq!(
            bench.get(format, &path).await.unwrap_err().kind,
            FaultKind::Upstream(404),
            "{format}"
        );
        bench.settled().await;
    }
    (path, document)
}

/// 200s with queries that somebody makes up: what is written for each does not grow with the query, and no two of them are one.
#[tokio::test]
async fn hazard_x6_long_queries_are_keyed_by_their_digest() {
    let bench = Bench::new().await;
    let long = |end: &str| format!("q={}{end}", "x".repeat(6000));
    let hashed = larder_core::sha256(long("a").as_bytes()).to_hex();
    let queries = [
        long("a"),
        long("b"),
        "q=1".to_owned(),
        hashed.clone(),
        format!("sha256:{hashed}"),
    ];
    for (n, query) in queries.iter().enumerate() {
        bench
            .origin
            .put(&format!("/f?{query}"), Resource::new(format!("answer {n}")));
    }
    for round in 0..2 {
        for (n, query) in queries.iter().enumerate() {
            let got = bench
                .client("generic", &format!("f?{query}"))
                .run()
                .await
                .unwrap();
            assert_eq!(
                (got.text(), got.is_hit()),
                (format!("answer {n}"), round == 1),
                "{}",
                &query[..4.min(query.len())]
            );
            bench.settled().await;
        }
    }
    let name = larder_core::RepositoryName::parse("generic").unwrap();
    let rows = bench.metadata.rows(&name, None, 100).await.unwrap();
    assert_eq!(rows.len(), queries.len());
    assert!(
        rows.iter()
            .all(|(path, variant, _)| path.len() + variant.len() < 300),
        "{rows:?}"
    );
    flush(&bench, Some("generic"), CacheType::All, Some("^f$")).await;
    assert_eq!(
        bench.metadata.counts().await.unwrap().records,
        0,
        "a pattern sees the path"
    );
}

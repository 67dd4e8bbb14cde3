//! Traces to a collector that the test plays: what is told of a miss, of a hit, and when nobody asked for it.
#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "helpers of tests may fail loudly"
)]

mod support;

use std::time::{Duration, Instant};

use larder_testkit::{Origin, Resource};
use serde_json::Value;
use support::packages::entry;
use support::{PATIENCE, Setup, TestLarder, get, send};

/// The example of W3C Trace Context.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

async fn collector() -> Origin {
    let collector = Origin::start().await;
    collector.put(
        "/otlp/v1/traces",
        Resource::new("{}").content_type("application/json"),
    );
    collector
}

/// All spans that a collector was sent.
fn spans(collector: &Origin) -> Vec<Value> {
    let mut all = Vec::new();
    for request in collector.requests() {
        assert_eq!(
            (&*request.method, request.path()),
            ("POST", "/otlp/v1/traces")
        );
        assert_eq!(request.header("content-type"), Some("application/json"));
        let document: Value = serde_json::from_slice(&request.body).expect("JSON");
        let resource = &document["resourceSpans"][0];
        let service = &resource["resource"]["attributes"][0];
        assert_eq!(service["key"], "service.name");
        assert_eq!(service["value"]["stringValue"], "larder");
        let spans = resource["scopeSpans"][0]["spans"].as_array();
        all.extend(spans.expect("spans").iter().cloned());
    }
    all
}

fn attribute<'s>(span: &'s Value, key: &str) -> &'s str {
    let attributes = span["attributes"].as_array().expect("attributes");
    let found = attributes.iter().find(|attribute| attribute["key"] == key);
    let value = &found.unwrap_or_else(|| panic!("no {key}: {span}"))["value"];
    let text = value["stringValue"].as_str();
    text.or(value["intValue"].as_str()).expect("a value")
}

fn named<'s>(spans: &'s [Value], name: &str) -> Vec<&'s Value> {
    spans.iter().filter(|span| span["name"] == name).collect()
}

async fn until(what: &str, collector: &Origin, is_so: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let began = Instant::now();
    loop {
        let spans = spans(collector);
        if is_so(&spans) {
            return spans;
        }
        assert!(began.elapsed() < PATIENCE, "{what}: {spans:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn config(origin: &Origin, tracing: &str) -> String {
    let files = entry("files", "generic", origin, "immutable_patterns: ['.*']");
    format!("remotes:\n{files}  own: {{ type: local }}\n{tracing}")
}

async fn traced(origin: &Origin, collector: &Origin, more: &str) -> TestLarder {
    let url = collector.url("/otlp");
    let tracing = format!("tracing: {{ otlp: '{url}'{more} }}\n");
    TestLarder::start(&config(origin, &tracing)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_miss_is_told_with_all_that_was_asked_for_it_and_a_hit_is_not() {
    let (origin, collector) = (Origin::start().await, collector().await);
    origin.put("/a.bin", Resource::new("bytes"));
    let mut larder = traced(&origin, &collector, "").await;
    let url = larder.artifact("files", "a.bin");
    let parent = format!("00-{TRACE}-{PARENT}-01");
    let asked = [
        ("traceparent", &*parent),
        ("authorization", "Bearer canary"),
    ];
    assert_eq!(send("GET", &url, &asked).await.status, 200);
    larder.until_idle().await;
    let of_trace = |spans: &[Value]| -> Vec<Value> {
        let ours = spans.iter().filter(|span| span["traceId"] == TRACE);
        ours.cloned().collect()
    };
    let told = until("a miss", &collector, |spans| {
        let ours = of_trace(spans);
        !named(&ours, "GET files").is_empty() && !named(&ours, "GET").is_empty()
    })
    .await;
    let ours = of_trace(&told);
    let request = named(&ours, "GET files")[0];
    assert_eq!(request["parentSpanId"], PARENT);
    assert_eq!(request["kind"], 2);
    assert_eq!(attribute(request, "http.response.status_code"), "200");
    assert_eq!(attribute(request, "url.path"), "/api/v1/remote/files/a.bin");
    assert!(attribute(request, "larder.cache_status").contains("fwd="));
    let upstream = named(&ours, "GET")[0];
    assert_eq!(upstream["parentSpanId"], request["spanId"]);
    assert_eq!(upstream["kind"], 3);
    assert_eq!(attribute(upstream, "url.path"), "/a.bin");
    assert_eq!(attribute(upstream, "server.address"), "127.0.0.1");
    let times = |span: &Value| {
        let time = |key: &str| -> u128 {
            let text = span[key].as_str().expect("a text");
            text.parse().expect("a number")
        };
        (time("startTimeUnixNano"), time("endTimeUnixNano"))
    };
    assert!(times(request).0 <= times(upstream).0);
    assert!(times(upstream).0 <= times(upstream).1);
    assert!(
        !named(&ours, "database").is_empty(),
        "it asked what is held"
    );
    // The upstream is told which span asks.
    let sent = origin.requests().pop().expect("asked");
    let context = format!(
        "00-{TRACE}-{}-01",
        upstream["spanId"].as_str().expect("an id")
    );
    assert_eq!(sent.header("traceparent"), Some(&*context));

    // Hits, probes and metrics are told of nobody. An upload is.
    let before = named(&told, "GET files").len();
    for _ in 0..3 {
        assert_eq!(
            send("GET", &url, &[("traceparent", &parent)])
                .await
                .source(),
            "cache"
        );
        get(&larder.url("/live")).await;
        get(&larder.url("/metrics")).await;
    }
    let own = larder.artifact("own", "b");
    let put = support::client::client().put(own).body("b").send().await;
    assert_eq!(put.expect("an answer").status(), 201);
    // What waits is sent before the process ends.
    larder.terminate();
    let told = spans(&collector);
    assert_eq!(named(&told, "GET files").len(), before);
    assert_eq!(named(&told, "PUT own").len(), 1);
    let request_spans = told.iter().filter(|span| span["kind"] == 2).count();
    assert_eq!(request_spans, before + 1, "{told:#?}");
    assert!(!Value::from(told).to_string().contains("canary"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_says_so_and_what_is_not_sampled_is_not_told() {
    let (origin, collector) = (Origin::start().await, collector().await);
    let larder = traced(&origin, &collector, ", sample: 0").await;
    // Chance has decided against this one, and the client against the next.
    origin.put("/a", Resource::new("a"));
    assert_eq!(get(&larder.artifact("files", "a")).await.status, 200);
    origin.put("/b", Resource::new("b"));
    let silent = format!("00-{TRACE}-{PARENT}-00");
    let silent = [("traceparent", &*silent)];
    send("GET", &larder.artifact("files", "b"), &silent).await;
    let sent = origin.requests().pop().expect("asked");
    let said = sent.header("traceparent").expect("it goes on");
    assert!(said.contains(TRACE) && said.ends_with("-00"), "{said}");

    origin.behave("/c", larder_testkit::Behaviour::Status(500));
    let parent = format!("00-{TRACE}-{PARENT}-01");
    let asked = [("traceparent", &*parent)];
    let failed = send("GET", &larder.artifact("files", "c"), &asked).await;
    assert_eq!(failed.status, 500);
    let told = until("a failure", &collector, |spans| {
        !named(spans, "GET files").is_empty()
    })
    .await;
    let request = named(&told, "GET files")[0];
    assert_eq!(request["status"]["code"], 2);
    assert_eq!(attribute(request, "http.response.status_code"), "500");
    assert!(
        told.iter().all(|span| span["traceId"] == TRACE),
        "{told:#?}"
    );
    let statuses = named(&told, "GET");
    let statuses = statuses
        .iter()
        .map(|span| attribute(span, "http.response.status_code"));
    assert!(statuses.into_iter().all(|status| status == "500"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_or_silent_delays_nobody() {
    let (origin, collector) = (Origin::start().await, collector().await);
    collector.hold("/otlp/v1/traces");
    let mut larder = traced(&origin, &collector, "").await;
    for n in 0..20 {
        let path = format!("/{n}");
        origin.put(&path, Resource::new(path.clone()));
        let began = Instant::now();
        let answer = get(&larder.artifact("files", &n.to_string())).await;
        assert_eq!(answer.text(), path);
        assert!(began.elapsed() < Duration::from_secs(2));
    }
    larder.logged("spans of traces are dropped").await;
    let began = Instant::now();
    assert_eq!(larder.terminate().code(), Some(0));
    // `drain` is 0 in tests; the last spans are waited for two seconds.
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_setting_nothing_is_sent_and_nothing_goes_on() {
    let origin = Origin::start().await;
    origin.put("/a", Resource::new("a"));
    let larder = TestLarder::start(&config(&origin, "")).await;
    let parent = format!("00-{TRACE}-{PARENT}-01");
    let asked = [("traceparent", &*parent)];
    send("GET", &larder.artifact("files", "a"), &asked).await;
    let sent = origin.requests().pop().expect("asked");
    assert_eq!(sent.header("traceparent"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_says_where_and_what_cannot_be_is_refused() {
    let (origin, collector) = (Origin::start().await, collector().await);
    let larder = Setup::new(&config(
        &origin,
        "tracing: { otlp: 'http://127.0.0.1:1' }\n",
    ))
    .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url("/otlp"))
    .start()
    .await;
    get(&larder.artifact("files", "absent")).await;
    until("a miss", &collector, |spans| !spans.is_empty()).await;
    let shown = get(&larder.url("/config")).await.json();
    let root = format!("{}/", collector.url("/otlp"));
    assert_eq!(shown["tracing"]["otlp"], root);
    for (tracing, why) in [
        ("{ otlp: 'grpc://h:4317' }", "must be an http or https URL"),
        ("{ otlp: 'http://u:p@h' }", "user name or password"),
        ("{ otlp: 'http://h', sample: 10% }", "a number from 0 to 1"),
    ] {
        let config = config(&origin, &format!("tracing: {tracing}\n"));
        let (status, said) = Setup::new(&config).run_to_end();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains(why), "{why}: {said}");
    }
}

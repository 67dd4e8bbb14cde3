//! One download per file, whoever asks and however they read (contract, section 3, "One download per file", hazards A1, A2, R5).
//!
//! What is measured runs in a process of its own: see `support/memory.rs`.
#![expect(
    clippy::unwrap_used,
    reason = "a test program: its helpers panic to report"
)]

mod support;

use std::time::{Duration, Instant};

use bytes::Bytes;
use larder_testkit::{Behaviour, Payload};
use support::{
    Bench, Client, FORMATS, Got, Peak, Published, alone, eventually, publish, some_time, too_slow,
};
use tokio::sync::watch;
use tokio::task::JoinSet;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const TEN_MB_PER_SECOND: u64 = 10_000_000;

/// The disturbances of a crowd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    /// The client that caused the download leaves after a hundredth of the body.
    FirstLeaves,
    /// One client reads 10 KB/s.
    OneIsSlow,
    /// The upstream cuts the body once, in the middle.
    Cut,
}

struct Scene {
    bench: Bench,
    file: Published,
    body: Bytes,
}

impl Scene {
    async fn set(format: &str, size: u64) -> Self {
        let bench = Bench::new().await;
        let payload = Payload::generated(size, 7);
        let file = publish(&bench.origin, format, &payload, "\"strong\"");
        bench.origin.behave(
            &file.at,
            Behaviour::Throttle {
                bytes_per_second: TEN_MB_PER_SECOND,
            },
        );
        Self {
            bench,
            file,
            body: payload.slice(0, size),
        }
    }

    fn client(&self) -> Client {
        self.bench.client(self.file.repository, &self.file.path)
    }

    /// Everything that is made on first use is made before memory is measured.
    async fn warm_up(&self) {
        let payload = Payload::generated(100, 1);
        self.bench
            .origin
            .put("/warm", larder_testkit::Resource::new(payload));
        self.bench.get("generic", "warm").await.unwrap();
        self.bench.settled().await;
    }

    fn assert_one_download(&self, trouble: Trouble) {
        let gets: Vec<_> = self
            .bench
            .origin
            .requests()
            .into_iter()
            .filter(|request| request.target == self.file.at)
            .collect();
        let ranges = gets
            .iter()
            .filter(|request| request.header("range").is_some())
            .count();
        assert!(
            gets.iter().all(|request| request.method == "GET"),
            "{gets:?}"
        );
        assert_eq!(
            (gets.len() - ranges, ranges),
            (1, usize::from(trouble == Trouble::Cut)),
            "{gets:?}"
        );
        if self.file.has_document() {
            assert_eq!(self.bench.origin.count("*", self.file.document_at), 1);
        }
    }
}

/// `readers` clients ask at once for one cold file; every body is right, and everything is asked of the upstream once.
async fn crowd(format: &str, size: u64, readers: usize, trouble: Trouble, most_growth: u64) {
    let scene = Scene::set(format, size).await;
    scene.warm_up().await;
    if trouble == Trouble::Cut {
        scene
            .bench
            .origin
            .behave_once(&scene.file.at, Behaviour::Truncate { after: size / 2 });
    }
    let (hurry, hurried) = watch::channel(false);
    let peak = Peak::watch();
    let began = Instant::now();
    let first = if trouble == Trouble::FirstLeaves {
        // Alone at first, so that the download is surely its own.
        let first = tokio::spawn(
            scene
                .client()
                .expect(&scene.body)
                .leave_after((size / 100).max(1))
                .run(),
        );
        tokio::time::timeout(
            Duration::from_secs(5),
            scene.bench.origin.wait_for("GET", &scene.file.at, 1),
        )
        .await
        .unwrap();
        Some(first)
    } else {
        None
    };
    let slow = (trouble == Trouble::OneIsSlow).then(|| {
        tokio::spawn(
            scene
                .client()
                .expect(&scene.body)
                .slow(10_000, hurried)
                .run(),
        )
    });
    let mut clients = JoinSet::new();
    for _ in 0..readers - usize::from(slow.is_some()) {
        clients.spawn(scene.client().expect(&scene.body).run());
    }
    let mut firsts = Vec::with_capacity(readers);
    while let Some(done) = clients.join_next().await {
        let got: Got = done.unwrap().unwrap();
        got.body.unwrap();
        firsts.push(got.first_byte);
    }
    let took = began.elapsed();
    let growth = peak.growth();
    if let Some(first) = first {
        assert_eq!(first.await.unwrap().unwrap().body.unwrap_err(), "left");
    }
    if let Some(slow) = slow {
        // At 10 KB/s it is still near its start; from here on it may hurry, and gets the right bytes to the end.
        assert!(
            size < MIB || !slow.is_finished(),
            "the slow reader was as fast as the others"
        );
        hurry.send_replace(true);
        slow.await.unwrap().unwrap().body.unwrap();
    }
    scene.assert_one_download(trouble);
    let (earliest, latest) = (firsts.iter().min().unwrap(), firsts.iter().max().unwrap());
    let spread = *latest - *earliest;
    println!(
        "= {format} {size} B, {readers} readers, {trouble:?}: took {took:?}, first bytes within {spread:?}, {} KiB more memory",
        growth / KIB
    );
    assert!(growth <= most_growth, "memory grew by {} KiB", growth / KIB);
    // Of 512 readers each takes its turn; the promise about time is one about 64.
    if readers <= 64 && spread > Duration::from_millis(100) {
        too_slow(&format!(
            "the last reader's first byte came {spread:?} after the first reader's"
        ));
    }
    let ideal = Duration::from_secs_f64(size as f64 / TEN_MB_PER_SECOND as f64);
    if readers <= 64 && took > ideal * 2 + Duration::from_secs(1) {
        too_slow(&format!("{took:?} for what takes the upstream {ideal:?}"));
    }
    scene.bench.settled().await;
    let hit = scene.client().expect(&scene.body).run().await.unwrap();
    assert!(
        hit.answer.cache_status.contains("hit"),
        "{}",
        hit.answer.cache_status
    );
    let record = scene
        .bench
        .record(scene.file.repository, &scene.file.path, "")
        .await
        .unwrap();
    assert_eq!(
        record.verified,
        scene.file.has_document(),
        "kept as verified if and only if a digest was stated"
    );
}

macro_rules! crowds {
    ($($name:ident: $format:literal, $size:expr, $readers:literal, $trouble:ident, $growth:expr;)+) => {
        $(#[test]
        fn $name() {
            alone(stringify!($name), || crowd($format, $size, $readers, Trouble::$trouble, $growth));
        })+
    };
}

crowds! {
    hazard_a1_generic_64_readers_1_kib: "generic", KIB, 64, None, 32 * MIB;
    hazard_a1_generic_64_readers_10_mib: "generic", 10 * MIB, 64, None, 32 * MIB;
    hazard_a1_pypi_64_readers_1_kib: "pypi", KIB, 64, None, 32 * MIB;
    hazard_a1_pypi_64_readers_10_mib: "pypi", 10 * MIB, 64, None, 32 * MIB;
    hazard_a1_npm_64_readers_1_kib: "npm", KIB, 64, None, 32 * MIB;
    hazard_a1_npm_64_readers_10_mib: "npm", 10 * MIB, 64, None, 32 * MIB;
    hazard_a1_helm_64_readers_1_kib: "helm", KIB, 64, None, 32 * MIB;
    hazard_a1_helm_64_readers_10_mib: "helm", 10 * MIB, 64, None, 32 * MIB;
    hazard_r5_generic_512_readers_10_mib: "generic", 10 * MIB, 512, None, 64 * MIB;
    hazard_r5_generic_512_readers_1_kib: "generic", KIB, 512, None, 64 * MIB;
    hazard_r5_pypi_512_readers_1_kib: "pypi", KIB, 512, None, 64 * MIB;
    hazard_r5_pypi_512_readers_10_mib: "pypi", 10 * MIB, 512, None, 64 * MIB;
    hazard_r5_npm_512_readers_1_kib: "npm", KIB, 512, None, 64 * MIB;
    hazard_r5_npm_512_readers_10_mib: "npm", 10 * MIB, 512, None, 64 * MIB;
    hazard_r5_helm_512_readers_1_kib: "helm", KIB, 512, None, 64 * MIB;
    hazard_r5_helm_512_readers_10_mib: "helm", 10 * MIB, 512, None, 64 * MIB;
    hazard_w3_generic_the_first_reader_leaves: "generic", 10 * MIB, 64, FirstLeaves, 32 * MIB;
    hazard_w3_pypi_the_first_reader_leaves: "pypi", 10 * MIB, 64, FirstLeaves, 32 * MIB;
    hazard_w3_npm_the_first_reader_leaves: "npm", 10 * MIB, 64, FirstLeaves, 32 * MIB;
    hazard_w3_helm_the_first_reader_leaves: "helm", 10 * MIB, 64, FirstLeaves, 32 * MIB;
    hazard_a2_generic_one_reader_is_slow: "generic", 10 * MIB, 64, OneIsSlow, 32 * MIB;
    hazard_a2_pypi_one_reader_is_slow: "pypi", 10 * MIB, 64, OneIsSlow, 32 * MIB;
    hazard_a2_npm_one_reader_is_slow: "npm", 10 * MIB, 64, OneIsSlow, 32 * MIB;
    hazard_a2_helm_one_reader_is_slow: "helm", 10 * MIB, 64, OneIsSlow, 32 * MIB;
    hazard_w1_generic_the_upstream_cuts_once: "generic", 10 * MIB, 64, Cut, 32 * MIB;
    hazard_w1_pypi_the_upstream_cuts_once: "pypi", 10 * MIB, 64, Cut, 32 * MIB;
    hazard_w1_npm_the_upstream_cuts_once: "npm", 10 * MIB, 64, Cut, 32 * MIB;
    hazard_w1_helm_the_upstream_cuts_once: "helm", 10 * MIB, 64, Cut, 32 * MIB;
    hazard_w1_generic_a_small_body_is_cut_once: "generic", KIB, 64, Cut, 32 * MIB;
    hazard_w1_npm_a_small_body_is_cut_once: "npm", KIB, 64, Cut, 32 * MIB;
}

#[tokio::test]
async fn hazard_w3_a_client_that_leaves_before_the_head_takes_nothing_with_it() {
    for format in FORMATS {
        let scene = Scene::set(format, 3 * MIB).await;
        scene.bench.origin.hold(&scene.file.at);
        let first = tokio::spawn(scene.client().run());
        scene.bench.origin.wait_for("GET", &scene.file.at, 1).await;
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        scene.bench.origin.release(&scene.file.at);
        scene.bench.settled().await;
        let hit = scene.client().expect(&scene.body).run().await.unwrap();
        assert!(
            hit.answer.cache_status.contains("hit"),
            "{format}: {}",
            hit.answer.cache_status
        );
        scene.assert_one_download(Trouble::None);
    }
}

#[tokio::test]
async fn every_form_and_coding_of_a_page_comes_from_one_download() {
    const ACCEPT: [&str; 3] = [
        "application/vnd.pypi.simple.v1+json",
        "application/vnd.pypi.simple.v1+html",
        "text/html",
    ];
    let bench = Bench::new().await;
    let file = publish(&bench.origin, "pypi", &Payload::generated(KIB, 3), "\"f\"");
    let links: Vec<String> = (0..500)
        .map(|n| format!(r#"{{"filename":"demo-1.{n}.tar.gz","url":"../../packages/demo-1.{n}.tar.gz","hashes":{{}}}}"#))
        .collect();
    let page = format!(
        r#"{{"meta":{{"api-version":"1.0"}},"name":"demo","files":[{}]}}"#,
        links.join(",")
    );
    bench.origin.put(
        file.document_at,
        larder_testkit::Resource::new(page).content_type(ACCEPT[0]),
    );
    bench.origin.behave(
        file.document_at,
        Behaviour::Throttle {
            bytes_per_second: 1_000_000,
        },
    );
    let ask = |accept: &str, coding: &str| {
        bench
            .client("pypi", file.document)
            .header("accept", accept)
            .header("accept-encoding", coding)
    };
    let mut clients = JoinSet::new();
    for accept in ACCEPT {
        for coding in ["identity", "gzip"] {
            for _ in 0..8 {
                clients.spawn(ask(accept, coding).run());
            }
        }
    }
    while let Some(got) = clients.join_next().await {
        check_page(&got.unwrap().unwrap());
    }
    assert_eq!(bench.origin.count("*", file.document_at), 1);
    // The coded forms are made by now, or soon.
    for accept in ACCEPT {
        eventually("a compressed form is made", async || {
            let got = ask(accept, "gzip").run().await.unwrap();
            check_page(&got);
            got.answer.representation.content_encoding.as_deref() == Some("gzip")
        })
        .await;
    }
    assert_eq!(bench.origin.count("*", file.document_at), 1);
}

/// Whole, in the form that its label says, with every link leading back.
fn check_page(got: &Got) {
    let of = &got.answer.representation;
    let text = match of.content_encoding.as_deref() {
        None => got.text(),
        Some("gzip") => {
            let mut text = String::new();
            std::io::Read::read_to_string(
                &mut flate2::read::GzDecoder::new(&got.bytes()[..]),
                &mut text,
            )
            .unwrap();
            text
        }
        other => unreachable!("not asked for: {other:?}"),
    };
    let links = text.matches("/api/v1/remote/pypi/packages/demo-1.").count();
    assert_eq!(links, 500, "{:?}", of.content_type);
    let is_json = serde_json::from_str::<serde_json::Value>(&text).is_ok();
    assert_eq!(
        is_json,
        of.content_type.as_deref() == Some("application/vnd.pypi.simple.v1+json")
    );
    assert_eq!(of.vary, ["accept", "accept-encoding"]);
}

#[tokio::test]
async fn ranges_ahead_of_the_download_wait_for_it_and_cause_no_other() {
    let scene = Scene::set("generic", 5 * MIB).await;
    scene.bench.origin.hold_body(&scene.file.at, 2 * MIB);
    let ranged = |range: &str| tokio::spawn(scene.client().header("range", range).run());
    let first = ranged("bytes=0-99");
    let behind = ranged("bytes=1048576-1048675");
    let ahead = ranged("bytes=4194304-4194403");
    let suffix = ranged("bytes=-100");
    let open = ranged("bytes=5242780-");
    let whole = tokio::spawn(scene.client().run());
    // What has arrived is given while the rest is held back.
    for (client, start) in [(first, 0), (behind, MIB)] {
        let got = tokio::time::timeout(Duration::from_secs(5), client)
            .await
            .expect("waits for nothing")
            .unwrap()
            .unwrap();
        assert_eq!(
            (got.answer.status, got.bytes()),
            (206, &scene.body.slice(start as usize..start as usize + 100))
        );
        assert!(got.answer.in_flight);
    }
    assert!(
        !ahead.is_finished()
            && !suffix.is_finished()
            && !open.is_finished()
            && !whole.is_finished()
    );
    scene.bench.origin.release(&scene.file.at);
    for (client, start) in [
        (ahead, 4 * MIB),
        (suffix, 5 * MIB - 100),
        (open, 5 * MIB - 100),
    ] {
        let got = client.await.unwrap().unwrap();
        assert_eq!(
            (got.answer.status, got.bytes()),
            (206, &scene.body.slice(start as usize..start as usize + 100))
        );
    }
    assert_eq!(whole.await.unwrap().unwrap().bytes(), &scene.body);
    scene.assert_one_download(Trouble::None);
}

#[tokio::test]
async fn a_suffix_of_an_unknown_length_waits_for_the_end() {
    for format in FORMATS {
        let scene = Scene::set(format, 3 * MIB).await;
        scene
            .bench
            .origin
            .behave(&scene.file.at, Behaviour::Chunked);
        scene.bench.origin.hold_body(&scene.file.at, 2 * MIB);
        let suffix = tokio::spawn(scene.client().header("range", "bytes=-1000").run());
        let whole = tokio::spawn(scene.client().run());
        scene.bench.until_asked(format, 2).await;
        scene.bench.until_come(format, 2 * MIB).await;
        some_time(Duration::from_millis(300)).await;
        assert!(!suffix.is_finished());
        scene.bench.origin.release(&scene.file.at);
        let got = suffix.await.unwrap().unwrap();
        assert_eq!(
            (got.answer.status, got.bytes()),
            (206, &scene.body.slice(scene.body.len() - 1000..)),
            "{format}"
        );
        assert_eq!(
            whole.await.unwrap().unwrap().bytes(),
            &scene.body,
            "{format}"
        );
        scene.assert_one_download(Trouble::None);
    }
}

#[tokio::test]
async fn a_head_joins_a_running_download() {
    let scene = Scene::set("generic", 3 * MIB).await;
    scene.bench.origin.hold_body(&scene.file.at, MIB);
    let whole = tokio::spawn(scene.client().run());
    scene.bench.origin.wait_for("GET", &scene.file.at, 1).await;
    let head = tokio::time::timeout(
        Duration::from_secs(5),
        scene.client().method(http::Method::HEAD).run(),
    );
    let head = head.await.expect("a head waits for no body").unwrap();
    assert_eq!(
        (head.answer.representation.length, head.answer.source),
        (Some(3 * MIB), larder_core::Source::Remote)
    );
    assert_eq!(
        head.answer.representation.etag.as_deref(),
        Some("\"strong\"")
    );
    scene.bench.origin.release(&scene.file.at);
    assert_eq!(whole.await.unwrap().unwrap().bytes(), &scene.body);
    scene.assert_one_download(Trouble::None);
}

#[tokio::test]
async fn heads_of_what_is_not_held_are_forwarded_once_for_all_who_wait() {
    let scene = Scene::set("generic", 5000).await;
    let (origin, at) = (&scene.bench.origin, &scene.file.at);
    origin.hold(at);
    let heads: Vec<_> = (0..16)
        .map(|_| tokio::spawn(scene.client().method(http::Method::HEAD).run()))
        .collect();
    origin.wait_for("HEAD", at, 1).await;
    scene.bench.let_others_go().await;
    origin.release(at);
    let mut collapsed = 0;
    for head in heads {
        let head = head.await.unwrap().unwrap();
        assert_eq!(head.answer.representation.length, Some(5000));
        collapsed += usize::from(head.answer.cache_status.contains("; collapsed"));
    }
    assert_eq!((origin.count("HEAD", at), collapsed), (1, 15));
    scene
        .client()
        .method(http::Method::HEAD)
        .run()
        .await
        .unwrap();
    assert_eq!(origin.count("HEAD", at), 2, "nothing is remembered of it");
    assert_eq!(origin.count("GET", at), 0);
}

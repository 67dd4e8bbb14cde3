//! Upstreams that are silent or drip, on the real program (hazard X5): who asks for something that is held gets the copy within the wait
//! that is the default, 2 seconds; other repositories do not notice; and what the upstream has in the end is served then.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests may fail loudly"
)]

#[path = "../support/mod.rs"]
mod support;
mod upstream;

use std::time::{Duration, Instant};

use larder_testkit::{Origin, Resource};
use support::packages::entry;
use support::{Answer, TestLarder, get, send};
use upstream::{Manner, Upstream};

/// `stale.wait`, as it is unless configured.
const WAIT: Duration = Duration::from_secs(2);
/// What may be added by a machine that does other things too.
const MORE: Duration = Duration::from_millis(500);
const OTHERS: Duration = Duration::from_secs(1);

/// One entry of the configuration, whose upstreams are these. Every request asks them.
fn remote(name: &str, package: &str, upstreams: &[&Upstream], keys: &str) -> String {
    let urls: Vec<String> = upstreams
        .iter()
        .map(|upstream| format!("'{}'", upstream.url()))
        .collect();
    let mut entry = format!(
        "  {name}:\n    package: {package}\n    base_url: [{}]\n    cache: {{ mutable_ttl: 0 }}\n    timeouts: {{ connect: 60, read: 60 }}\n",
        urls.join(", ")
    );
    for line in keys.lines() {
        entry.push_str("    ");
        entry.push_str(line);
        entry.push('\n');
    }
    entry
}

async fn timed(url: &str, headers: &[(&str, &str)]) -> (Answer, Duration) {
    let began = Instant::now();
    let answer = send("GET", url, headers).await;
    (answer, began.elapsed())
}

/// Asks until the answer is this.
async fn becomes(url: &str, headers: &[(&str, &str)], want: &str) {
    let until = Instant::now() + support::PATIENCE;
    loop {
        let answer = send("GET", url, headers).await;
        if answer.status == 200 && answer.text().contains(want) {
            return;
        }
        assert!(
            Instant::now() < until,
            "{url} is {} {}, not {want}",
            answer.status,
            answer.text()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Another repository's new pages, while something goes on.
async fn bystander(larder: &TestLarder, from: usize, meanwhile: impl Future<Output = ()>) {
    let mut meanwhile = std::pin::pin!(meanwhile);
    let mut slowest = Duration::ZERO;
    for n in from.. {
        let url = larder.artifact("bystander", &format!("simple/b{n}/"));
        let (answer, took) = timed(&url, &[]).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        slowest = slowest.max(took);
        let pause = Duration::from_millis(100);
        if tokio::time::timeout(pause, &mut meanwhile).await.is_ok() {
            break;
        }
    }
    println!("another repository's new page: at most {slowest:?}");
    assert!(slowest <= OTHERS, "{slowest:?}");
}

async fn bystanding() -> Origin {
    let origin = Origin::start().await;
    for n in 0..500 {
        let page = format!(
            "<!DOCTYPE html><title>b{n}</title><a href=\"b{n}-1.0.tar.gz\">b{n}-1.0.tar.gz</a>"
        );
        origin.put(
            &format!("/simple/b{n}/"),
            Resource::new(page).content_type("text/html"),
        );
    }
    origin
}

/// A simple page that names these files, of the project `demo`.
fn page(files: &[&str]) -> String {
    let link = |file: &&str| format!("<a href=\"../../pool/{file}\">{file}</a>\n");
    let links = files.iter().map(link).collect::<Vec<_>>().concat();
    format!("<!DOCTYPE html><html><body>\n{links}</body></html>\n")
}

/// A text that takes ten seconds to drip.
fn long(text: &str) -> String {
    text.to_owned() + &".".repeat(100)
}

/// One way in which an upstream keeps others waiting.
struct Case<'a> {
    what: &'static str,
    upstreams: Vec<&'a Upstream>,
    manner: Manner,
    /// Where the client asks.
    url: String,
    headers: &'static [(&'static str, &'static str)],
}

impl Case<'_> {
    fn behave(&self, manner: Manner) {
        for upstream in &self.upstreams {
            upstream.behave(manner);
        }
    }

    /// The copy comes in time, first and later; and the new content when the upstream is well again.
    async fn run(&self) {
        let Self {
            what, url, headers, ..
        } = self;
        let (answer, took) = timed(url, headers).await;
        println!("{what}: the copy after {took:?}; {}", answer.cache_status());
        assert_eq!(answer.status, 200, "{what}: {}", answer.text());
        assert!(answer.text().contains("one"), "{what}: {}", answer.text());
        assert!(
            answer.cache_status().contains("detail=stale-timeout"),
            "{what}: {}",
            answer.cache_status()
        );
        assert_eq!(answer.source(), "cache", "{what}");
        assert!(took >= WAIT && took <= WAIT + MORE, "{what}: {took:?}");
        let (answer, took) = timed(url, headers).await;
        assert!(
            answer.text().contains("one") && took <= MORE,
            "{what}: once more, after {took:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_x5_whatever_keeps_an_upstream_the_copy_comes_in_time() {
    let (silent, drips, conditional, head) = (
        Upstream::start().await,
        Upstream::start().await,
        Upstream::start().await,
        Upstream::start().await,
    );
    let (tls, first, second, pages, tags) = (
        Upstream::start_tls().await,
        Upstream::start().await,
        Upstream::start().await,
        Upstream::start().await,
        Upstream::start().await,
    );
    let generic = |name, upstreams: &[&Upstream], keys: &str| {
        let keys = format!("mutable_patterns: ['^live$']\n{keys}");
        remote(name, "generic", upstreams, &keys)
    };
    let others = bystanding().await;
    let config = [
        "remotes:\n".to_owned(),
        generic("silent", &[&silent], ""),
        generic("drips", &[&drips], ""),
        generic("conditional", &[&conditional], "revalidate: get"),
        generic("head", &[&head], "revalidate: head"),
        generic(
            "tls",
            &[&tls],
            &format!("ca_file: '{}'", tls.authority().display()),
        ),
        generic("mirrors", &[&first, &second], ""),
        remote("pages", "pypi", &[&pages], ""),
        remote("tags", "docker", &[&tags], ""),
        entry("bystander", "pypi", &others, ""),
    ]
    .concat();
    let larder = TestLarder::start(&config).await;
    let tag = larder.url("v2/tags/app/manifests/live");
    let case = |what, name: &str, upstreams: &[_], manner| Case {
        what,
        upstreams: upstreams.to_vec(),
        manner,
        url: larder.artifact(name, "live"),
        headers: &[],
    };
    let cases = [
        case(
            "accepts and is silent",
            "silent",
            &[&silent],
            Manner::Silent,
        ),
        case("sends a head and drips", "drips", &[&drips], Manner::Drips),
        case(
            "a conditional GET hangs",
            "conditional",
            &[&conditional],
            Manner::Silent,
        ),
        case(
            "a revalidating HEAD hangs",
            "head",
            &[&head],
            Manner::Silent,
        ),
        case("a TLS handshake hangs", "tls", &[&tls], Manner::NoHandshake),
        case(
            "mirrors hang in turn",
            "mirrors",
            &[&first, &second],
            Manner::Silent,
        ),
        Case {
            url: larder.artifact("pages", "simple/demo/"),
            ..case("a simple page drips", "pages", &[&pages], Manner::Drips)
        },
        Case {
            url: tag,
            headers: &[("accept", upstream::MANIFEST)],
            ..case("the HEAD of a tag hangs", "tags", &[&tags], Manner::Silent)
        },
    ];
    for case in &cases {
        for upstream in &case.upstreams {
            upstream.put("/live", "text/plain", &long("one"));
            upstream.put("/simple/demo/", "text/html", &page(&["demo-one.tar.gz"]));
            upstream.put_manifest("/v2/app/manifests/live", "one");
        }
        let answer = send("GET", &case.url, case.headers).await;
        assert_eq!(answer.status, 200, "{}: {}", case.what, answer.text());
    }
    // What has just been fetched is on its way to the disk.
    tokio::time::sleep(Duration::from_secs(1)).await;
    for case in &cases {
        for upstream in &case.upstreams {
            upstream.put("/live", "text/plain", &long("two"));
            upstream.put("/simple/demo/", "text/html", &page(&["demo-two.tar.gz"]));
            upstream.put_manifest("/v2/app/manifests/live", "two");
        }
        case.behave(case.manner);
    }
    let all = async {
        futures_util::future::join_all(cases.iter().map(Case::run)).await;
    };
    bystander(&larder, 0, all).await;
    let log = larder.log();
    let warned = |name: &str| {
        let about = format!("\"repository\":\"{name}\"");
        log.lines()
            .filter(|line| line.contains("stale.wait") && line.contains(&about))
            .count()
    };
    assert_eq!(warned("silent"), 1, "once for each repository:\n{log}");
    for case in &cases {
        case.behave(Manner::Well);
        becomes(&case.url, case.headers, "two").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_x5_what_drips_and_ends_is_kept() {
    let upstream = Upstream::start().await;
    let config = format!(
        "remotes:\n{}",
        remote(
            "drips",
            "generic",
            &[&upstream],
            "mutable_patterns: ['^live$']"
        )
    );
    let larder = TestLarder::start(&config).await;
    let url = larder.artifact("drips", "live");
    upstream.put("/live", "text/plain", "one");
    assert_eq!(get(&url).await.text(), "one");
    tokio::time::sleep(Duration::from_secs(1)).await;
    // A byte each 100 ms: it ends after 4 s.
    let new = "two, which takes four seconds to arrive.";
    upstream.put("/live", "text/plain", new);
    upstream.behave(Manner::Drips);
    let (answer, took) = timed(&url, &[]).await;
    assert_eq!(answer.text(), "one");
    assert!(took <= WAIT + MORE, "{took:?}");
    tokio::time::sleep(upstream::DRIP * 40).await;
    // From here on the upstream says nothing more: what is served is what was kept.
    upstream.behave(Manner::Silent);
    let (answer, took) = timed(&url, &[]).await;
    assert_eq!(answer.text(), new);
    assert!(answer.cache_status().contains("stale-timeout"));
    assert!(took <= WAIT + MORE, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_x5_files_of_a_page_that_does_not_come_are_served() {
    let (upstream, others) = (Upstream::start().await, bystanding().await);
    let config = format!(
        "remotes:\n{}{}",
        remote("pages", "pypi", &[&upstream], ""),
        entry("bystander", "pypi", &others, "")
    );
    let larder = TestLarder::start(&config).await;
    let (old, named, new) = ("demo-1.tar.gz", "demo-2.tar.gz", "demo-3.tar.gz");
    upstream.put("/simple/demo/", "text/html", &page(&[old, named]));
    for file in [old, named, new] {
        upstream.put(&format!("/pool/{file}"), "application/gzip", file);
    }
    let of = |file: &str| larder.artifact("pages", &format!("pool/{file}"));
    assert_eq!(
        get(&larder.artifact("pages", "simple/demo/")).await.status,
        200
    );
    assert_eq!(get(&of(old)).await.text(), old);
    tokio::time::sleep(Duration::from_secs(1)).await;
    for manner in [Manner::Drips, Manner::Silent] {
        upstream.behave_at("/simple/demo/", manner);
        let all = async {
            // Held; named by the held page; named by neither: nobody waits for the page longer than who asks for the page itself.
            for (file, most) in [(old, MORE), (named, MORE), (new, WAIT + MORE)] {
                let (answer, took) = timed(&of(file), &[]).await;
                println!("{manner:?}, {file}: {} after {took:?}", answer.status);
                assert_eq!((answer.status, answer.text().as_str()), (200, file));
                assert!(took <= most, "{manner:?}, {file}: {took:?}");
            }
        };
        bystander(&larder, 100, all).await;
        upstream.behave_at("/simple/demo/", Manner::Well);
    }
}

//! What the log says of requests (docs/LOGGING.md): one line each, and why where it was refused; warnings once for each repository and
//! cause, with the id that the client has.

use std::time::Instant;

use larder_testkit::{Behaviour, Origin, Payload, Resource};
use serde_json::Value;

use crate::support::packages::{File, entry, helm, remote};
use crate::support::{PATIENCE, Setup, TestLarder, get, raw, send};

/// The lines of the log that say this of which `about` holds.
fn lines(larder: &TestLarder, message: &str, about: impl Fn(&Value) -> bool) -> Vec<Value> {
    let log = larder.log();
    let parsed = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    parsed
        .filter(|line| {
            line["message"]
                .as_str()
                .is_some_and(|said| said.starts_with(message))
                && about(line)
        })
        .collect()
}

/// The request line with this id, once it is written.
async fn line_of(larder: &TestLarder, id: &str) -> Value {
    assert!(!id.is_empty(), "no X-Request-Id");
    let until = Instant::now() + PATIENCE;
    loop {
        if let [line] = &lines(larder, "request", |line| {
            line["id"] == id && !line["status"].is_null()
        })[..]
        {
            return line.clone();
        }
        assert!(Instant::now() < until, "no line of {id}:\n{}", larder.log());
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refused_or_failed_request_says_why_in_one_line() {
    let mut down = Origin::start().await;
    let origin = Origin::start().await;
    origin.put("/there", Resource::new("there"));
    origin.behave("/broken", Behaviour::Status(503));
    let config = format!(
        "remotes:\n{}{}{}",
        entry(
            "files",
            "generic",
            &origin,
            "deny_patterns: ['^secret/']\nnegative_ttl: 60"
        ),
        entry("down", "generic", &down, ""),
        entry("hub", "docker", &origin, "")
    );
    down.stop().await;
    let larder = TestLarder::start(&config).await;
    for (method, path, status, code, rule, repository, key, upstream) in [
        (
            "GET",
            "api/v1/remote/files/secret/x?token=c4n4ry",
            403,
            "pattern_denied",
            "deny_patterns",
            "files",
            "files/secret/x",
            "",
        ),
        (
            "GET",
            "api/v1/remote/files/none",
            404,
            "not_found",
            "upstream",
            "files",
            "files/none",
            "404",
        ),
        (
            "GET",
            "api/v1/remote/files/none",
            404,
            "not_found",
            "negative_ttl",
            "files",
            "files/none",
            "404 (remembered)",
        ),
        (
            "GET",
            "api/v1/remote/files/broken",
            503,
            "upstream_status",
            "upstream",
            "files",
            "files/broken",
            "503",
        ),
        (
            "GET",
            "api/v1/remote/down/x",
            502,
            "upstream_unreachable",
            "upstream",
            "down",
            "down/x",
            "it refuses connections",
        ),
        (
            "GET",
            "api/v1/remote/files/a%5cb",
            400,
            "invalid_path",
            "paths",
            "files",
            "",
            "",
        ),
        (
            "GET",
            "api/v1/remote/nobody/x",
            404,
            "unknown_repository",
            "",
            "nobody",
            "",
            "",
        ),
        (
            "PUT",
            "api/v1/remote/files/x",
            405,
            "read_only",
            "",
            "files",
            "",
            "",
        ),
        (
            "GET",
            "v2/hub/x/manifests/1",
            404,
            "manifest_unknown",
            "upstream",
            "hub",
            "hub/x/manifests/1",
            "404",
        ),
        (
            "GET",
            "hub/v2/UPPER/manifests/1",
            400,
            "name_invalid",
            "",
            "hub",
            "",
            "",
        ),
        (
            "PUT",
            "cache/flush?colour=red",
            400,
            "bad_request",
            "PUT /cache/flush",
            "",
            "",
            "",
        ),
        (
            "PATCH",
            "cache/flush",
            405,
            "method_not_allowed",
            "",
            "",
            "",
            "",
        ),
        ("GET", "nowhere", 404, "not_found", "", "", "", ""),
    ] {
        let answer = send(method, &larder.url(path), &[("User-Agent", "a-client/1.0")]).await;
        let case = format!("{method} {path}: {} {}", answer.status, answer.text());
        assert_eq!(answer.status, status, "{case}");
        let line = line_of(&larder, answer.header("x-request-id")).await;
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        // Behind a blank stands the variant of a document.
        let named = text("key").split(' ').next().unwrap_or_default().to_owned();
        let found = (
            text("code"),
            text("rule"),
            text("repository"),
            named,
            text("upstream"),
        );
        let expected = (
            code.to_owned(),
            rule.to_owned(),
            repository.to_owned(),
            key.to_owned(),
            upstream.to_owned(),
        );
        assert_eq!(found, expected, "{case}\n{line}");
        let body = answer.json();
        let sentence = body["errors"][0]["message"]
            .as_str()
            .or(body["error"].as_str());
        assert_eq!(Some(text("reason").as_str()), sentence, "{case}");
        assert_eq!(
            line["bytes"].as_u64(),
            Some(answer.body.len() as u64),
            "{case}"
        );
        assert_eq!(
            (text("client").as_str(), text("agent").as_str()),
            ("127.0.0.1", "a-client/1.0"),
            "{case}"
        );
        assert_eq!(
            (line["status"].as_u64(), text("level").as_str()),
            (Some(u64::from(status)), "INFO"),
            "{case}"
        );
    }
    for (headers, status, code) in [
        ("Range: bytes=90-\r\n", 416, "range_not_satisfiable"),
        ("If-Match: \"no\"\r\n", 412, "precondition_failed"),
    ] {
        get(&larder.artifact("files", "there")).await;
        let request = format!(
            "GET /api/v1/remote/files/there HTTP/1.1\r\nHost: localhost\r\n{headers}Connection: close\r\n\r\n"
        );
        let answer = raw(larder.address(), request.as_bytes()).await;
        let id = answer
            .lines()
            .find_map(|line| line.strip_prefix("x-request-id: "))
            .unwrap_or_default()
            .to_owned();
        let line = line_of(&larder, &id).await;
        assert_eq!(
            (line["status"].as_u64(), line["code"].as_str()),
            (Some(status), Some(code)),
            "{line}"
        );
    }
    let answer = send("HEAD", &larder.artifact("files", "secret/x"), &[]).await;
    assert_eq!(
        line_of(&larder, answer.header("x-request-id")).await["bytes"],
        0,
        "HEAD has no body"
    );
    // Refused before anything has looked at it.
    let answer = raw(
        larder.address(),
        b"GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\nUser-Agent: odd\r\n\r\n",
    )
    .await;
    let id = answer
        .lines()
        .find_map(|line| line.strip_prefix("x-request-id: "))
        .unwrap_or_default()
        .to_owned();
    let line = line_of(&larder, &id).await;
    assert_eq!(
        (line["code"].as_str(), line["agent"].as_str()),
        (Some("bad_request"), Some("odd")),
        "{line}"
    );
    assert!(!larder.log().contains("c4n4ry"), "queries are not logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn larder_s_own_causes_are_warned_of_once_and_then_counted() {
    let origin = Origin::start().await;
    origin.behave("/broken", Behaviour::Status(500));
    let keys = "deny_patterns: ['^secret/']\nnegative_ttl: 0";
    let config = format!(
        "remotes:\n{}{}",
        entry("one", "generic", &origin, keys),
        entry("two", "generic", &origin, keys)
    );
    let larder = TestLarder::start(&config).await;
    let mut first = String::new();
    for n in 0..5 {
        let answer = get(&larder.artifact("one", &format!("secret/{n}"))).await;
        first = if n == 0 {
            answer.header("x-request-id").to_owned()
        } else {
            first
        };
        get(&larder.artifact("two", "secret/x")).await;
        get(&larder.artifact("one", "none")).await;
        let last = get(&larder.artifact("one", "broken")).await;
        line_of(&larder, last.header("x-request-id")).await;
    }
    let warned = lines(&larder, "", |line| {
        line["level"] == "WARN" && line["code"] == "pattern_denied"
    });
    let of = |name: &str| {
        warned
            .iter()
            .filter(|line| line["repository"] == name)
            .count()
    };
    assert_eq!(
        (of("one"), of("two"), warned.len()),
        (1, 1, 2),
        "{warned:?}"
    );
    let one = warned
        .iter()
        .find(|line| line["repository"] == "one")
        .unwrap();
    assert_eq!(
        (one["id"].as_str(), one["rule"].as_str()),
        (Some(&*first), Some("deny_patterns")),
        "{one}"
    );
    // An ordinary 404, and what an upstream answers, are no warnings of a request.
    assert!(
        lines(&larder, "requests are refused", |line| line["code"]
            != "pattern_denied")
        .is_empty(),
        "{}",
        larder.log()
    );
    assert_eq!(
        larder
            .metric(
                "larder_refusals_total",
                "repository=\"one\",code=\"pattern_denied\""
            )
            .await as u64,
        5
    );
    assert_eq!(
        larder
            .metric(
                "larder_refusals_total",
                "repository=\"one\",code=\"not_found\""
            )
            .await as u64,
        5
    );
    let health = get(&larder.url("health")).await.json();
    let found = health["refusals"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["repository"] == "two")
        .unwrap();
    assert_eq!(
        (&found["code"], &found["count"]),
        (&"pattern_denied".into(), &5.into()),
        "{health}"
    );
    assert!(
        found["last"]
            .as_str()
            .is_some_and(|last| last.len() == 20 && last.ends_with('Z')),
        "RFC 3339: {health}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_has_a_line_with_the_request_s_id_and_the_cause() {
    let origin = Origin::start().await;
    let chart = File {
        name: "pantry".into(),
        version: "1.0.0".into(),
        body: Payload::generated(4 << 20, 1),
    };
    let path = helm(&origin, &[chart]).remove(0);
    origin.put(
        &format!("/{path}"),
        Resource::new(Payload::generated(4 << 20, 2)),
    );
    origin.put("/cut", Resource::new(Payload::generated(4 << 20, 3)));
    origin.behave("/cut", Behaviour::Truncate { after: 2 << 20 });
    let larder = TestLarder::start(&format!(
        "remotes:\n{}{}",
        entry("helm", "helm", &origin, ""),
        entry("files", "generic", &origin, "")
    ))
    .await;
    get(&larder.artifact("helm", "index.yaml")).await;
    for (repository, path, code) in [
        ("helm", path.as_str(), "digest_mismatch"),
        ("files", "cut", "upstream_cut"),
    ] {
        let request = reqwest::Client::new()
            .get(larder.artifact(repository, path))
            .header("User-Agent", "a-client/1.0");
        let response = request.send().await.unwrap();
        let id = response.headers()["x-request-id"]
            .to_str()
            .unwrap()
            .to_owned();
        assert_eq!(response.status().as_u16(), 200, "the head was good");
        assert!(
            response.bytes().await.is_err(),
            "{repository}: nothing wrong ends well"
        );
        larder.logged("answer broken off").await;
        let until = Instant::now() + PATIENCE;
        let line = loop {
            if let [line] = &lines(&larder, "answer broken off", |line| {
                line["id"] == id.as_str()
            })[..]
            {
                break line.clone();
            }
            assert!(Instant::now() < until, "{id}:\n{}", larder.log());
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        };
        assert_eq!(
            (line["code"].as_str(), line["repository"].as_str()),
            (Some(code), Some(repository)),
            "{line}"
        );
        assert_eq!(
            (line["client"].as_str(), line["agent"].as_str()),
            (Some("127.0.0.1"), Some("a-client/1.0")),
            "{line}"
        );
        assert!(
            line["reason"]
                .as_str()
                .is_some_and(|reason| !reason.is_empty())
                && line["bytes"].as_u64() > Some(0),
            "{line}"
        );
        assert!(
            larder
                .metric(
                    "larder_refusals_total",
                    &format!("repository=\"{repository}\",code=\"{code}\"")
                )
                .await
                >= 1.0
        );
        // The failure of the upstream is the one warning.
        let warned = lines(&larder, "", |line| {
            line["level"] == "WARN" && line["repository"] == repository
        });
        assert!(
            matches!(&warned[..], [one] if one["cause"].is_string()),
            "{warned:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn warnings_about_files_carry_the_id_of_the_request_that_began_the_download() {
    let origin = Origin::start().await;
    let chart = File::generated("pantry", "1.0.0", 1000, 1);
    let path = helm(&origin, &[chart]).remove(0);
    origin.put(&format!("/{path}"), Resource::new("other bytes"));
    origin.put(
        "/bad/index.yaml",
        Resource::new("entries: 7").content_type("text/yaml"),
    );
    // Whatever is filtered out, warnings have the id.
    let config = remote("helm", &origin, "negative_ttl: 0");
    let larder = Setup::new(&config)
        .env("LARDER_LOG", "info,larder_engine=warn,larder_server=info")
        .start()
        .await;
    get(&larder.artifact("helm", "index.yaml")).await;
    let answer = get(&larder.artifact("helm", &path)).await;
    assert_eq!(answer.status, 502, "{}", answer.text());
    larder.logged("\"cause\":\"wrong_bytes\"").await;
    let warned = lines(&larder, "the upstream fails", |line| {
        line["level"] == "WARN"
    });
    assert!(!warned.is_empty(), "{}", larder.log());
    assert!(
        warned
            .iter()
            .all(|line| line["span"]["id"] == answer.header("x-request-id")),
        "{warned:?}"
    );
    assert!(
        lines(&larder, "requests are refused", |_| true).is_empty(),
        "it is said once:\n{}",
        larder.log()
    );
    let larder = Setup::new(&config).env("LARDER_LOG", "info").start().await;
    origin.put(
        "/index.yaml",
        Resource::new("entries: 7").content_type("text/yaml"),
    );
    let answer = get(&larder.artifact("helm", "index.yaml")).await;
    assert_eq!(answer.status, 502);
    larder.logged("\"cause\":\"malformed\"").await;
    let warned = lines(&larder, "the upstream fails", |line| {
        line["level"] == "WARN"
    });
    assert!(
        !warned.is_empty()
            && warned
                .iter()
                .all(|line| line["span"]["id"] == answer.header("x-request-id")),
        "{warned:?}"
    );
    assert!(
        lines(&larder, "requests are refused", |_| true).is_empty(),
        "it is said once:\n{}",
        larder.log()
    );
}

/// There is no request to speak of, but a client that has failed, and somebody who looks for the reason.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_as_a_request_has_a_line_and_is_counted() {
    let larder = TestLarder::start("remotes: {}\n").await;
    let fields = "X-Field: c4n4ry\r\n".repeat(200);
    let many = format!("GET /live HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
    // RFC 8446 section 5.1: how a client that says https:// begins.
    let hello: &[u8] = b"\x16\x03\x01\x00\x05c4n4ry";
    for (sent, status, words) in [
        (hello, 400, "https://"),
        (many.as_bytes(), 431, "no request that can be read"),
    ] {
        let answer = raw(larder.address(), sent).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        larder.logged(&format!("\"status\":{status}")).await;
        let said = lines(&larder, "unreadable request", |line| {
            line["status"] == status
        });
        let [line] = &said[..] else {
            panic!("{said:?}")
        };
        assert_eq!(
            (line["code"].as_str(), line["client"].as_str()),
            (Some("bad_request"), Some("127.0.0.1")),
            "{line}"
        );
        assert!(
            line["reason"]
                .as_str()
                .is_some_and(|reason| reason.contains(words)),
            "{line}"
        );
    }
    // Who only connects and goes is none of them.
    drop(tokio::net::TcpStream::connect(larder.address()).await);
    assert_eq!(
        larder
            .metric(
                "larder_refusals_total",
                "repository=\"\",code=\"bad_request\""
            )
            .await as u64,
        2
    );
    assert!(!larder.log().contains("c4n4ry"));
}

/// A chart repository whose index is made anew may state other digests of all its charts.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_an_index_states_anew_are_one_warning_with_their_number() {
    let origin = Origin::start().await;
    let charts =
        |seed| ["pantry", "cellar", "attic"].map(|name| File::generated(name, "1.0.0", 1000, seed));
    let paths = helm(&origin, &charts(1));
    let larder = TestLarder::start(&remote("helm", &origin, "cache: { mutable_ttl: 0 }")).await;
    get(&larder.artifact("helm", "index.yaml")).await;
    for path in &paths {
        assert_eq!(
            get(&larder.artifact("helm", path)).await.status,
            200,
            "{path}"
        );
        larder.until_held(path).await;
    }
    helm(&origin, &charts(2));
    get(&larder.artifact("helm", "index.yaml")).await;
    larder.logged("states another digest").await;
    let warned = lines(&larder, "", |line| line["level"] == "WARN");
    let [one] = &warned[..] else {
        panic!("{warned:?}")
    };
    assert_eq!(
        (one["repository"].as_str(), one["files"].as_u64()),
        (Some("helm"), Some(3)),
        "{one}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_monitoring_asks_is_logged_at_debug_unless_it_is_bad_news() {
    let quiet = TestLarder::start("remotes: {}\n").await;
    let loud = Setup::new("remotes: {}\n")
        .env("LARDER_LOG", "info,larder_server=debug")
        .start()
        .await;
    for path in ["live", "ready", "health", "metrics"] {
        assert_eq!(get(&loud.url(path)).await.status, 200);
        let answer = get(&quiet.url(path)).await;
        assert_eq!(answer.status, 200);
    }
    // A line that comes after theirs.
    let answer = get(&quiet.url("config")).await;
    line_of(&quiet, answer.header("x-request-id")).await;
    let answer = get(&loud.url("config")).await;
    line_of(&loud, answer.header("x-request-id")).await;
    for path in ["/live", "/ready", "/health", "/metrics"] {
        assert!(
            lines(&quiet, "request", |line| line["path"] == path).is_empty(),
            "{path}"
        );
        let said = lines(&loud, "request", |line| line["path"] == path);
        assert!(
            !said.is_empty() && said.iter().all(|line| line["level"] == "DEBUG"),
            "{path}: {said:?}"
        );
    }
    let refused = send("PATCH", &quiet.url("health"), &[]).await;
    assert_eq!(
        line_of(&quiet, refused.header("x-request-id")).await["level"],
        "INFO"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn at_debug_each_decision_is_one_line_with_the_request_s_id() {
    let origin = Origin::start().await;
    origin.put("/file.bin", Resource::new("file"));
    origin.put("/index", Resource::new("index").etag("\"1\""));
    let keys = "mutable_patterns: ['index$']\nnegative_ttl: 60\nrevalidate: get\ncache: { mutable_ttl: 0 }";
    crate::support::packages::put_indexes(&origin, &origin.url("pantry-1.0.tar.gz"));
    let config = format!(
        "hot_set: 0\n{}{}",
        remote("generic", &origin, keys),
        entry("pypi", "pypi", &origin, "")
    );
    let larder = Setup::new(&config)
        .env("LARDER_LOG", "info,larder_engine=debug,larder_server=debug")
        .start()
        .await;
    for (method, path, class, held, decision) in [
        ("GET", "file.bin", "immutable", false, "fetch"),
        ("GET", "file.bin", "immutable", true, "serve"),
        ("GET", "index", "mutable (mutable_patterns)", false, "fetch"),
        (
            "GET",
            "index",
            "mutable (mutable_patterns)",
            true,
            "revalidate with GET",
        ),
        ("HEAD", "other.bin", "immutable", false, "forward"),
        ("GET", "gone", "immutable", false, "fetch"),
        ("GET", "gone", "immutable", false, "refuse"),
        (
            "GET",
            "pypi simple/pantry/",
            "mutable (built in)",
            false,
            "fetch",
        ),
    ] {
        let (repository, path) = path.split_once(' ').unwrap_or(("generic", path));
        let url = larder.artifact(repository, path);
        if held {
            larder.until_held(path).await;
        }
        let answer = send(method, &url, &[]).await;
        let id = answer.header("x-request-id").to_owned();
        line_of(&larder, &id).await;
        let said = lines(&larder, "decision", |line| {
            line["span"]["id"] == id.as_str()
        });
        let [line] = &said[..] else {
            panic!("{method} {path}: {said:?}\n{}", larder.log())
        };
        assert_eq!(
            (line["class"].as_str(), line["held"].as_bool()),
            (Some(class), Some(held)),
            "{line}"
        );
        let key = line["key"].as_str().and_then(|key| key.split(' ').next());
        assert_eq!(
            (line["decision"].as_str(), key),
            (Some(decision), Some(&*format!("{repository}/{path}"))),
            "{line}"
        );
        assert!(
            line["why"].as_str().is_some_and(|why| !why.is_empty()),
            "{line}"
        );
        assert_eq!(line["age"].is_u64(), held, "{line}");
    }
}

impl TestLarder {
    /// Waits until a download is committed: until then requests join it.
    async fn until_held(&self, path: &str) {
        let until = Instant::now() + PATIENCE;
        while self.metric("larder_downloads_in_flight", "").await > 0.0 {
            assert!(Instant::now() < until, "{path} is still on its way");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

//! What refusals say (contract, section 1): what happened, which repository and rule decided, and what to do, for every package type.

use std::time::{Duration, Instant};

use larder_testkit::{Behaviour, Origin, Resource};
use serde_json::Value;

use crate::support::packages::{entry, remote};
use crate::support::{Answer, TestLarder, get, raw, send};

/// A document and a file of each type.
const PATHS: [(&str, &str, &str); 7] = [
    ("generic", "pool/index", "pool/x.bin"),
    ("pypi", "simple/x/", "pool/x-1.0-py3-none-any.whl"),
    ("npm", "x", "x/-/x-1.0.0.tgz"),
    ("helm", "index.yaml", "charts/x-1.0.0.tgz"),
    (
        "alpine",
        "v3/main/x86_64/APKINDEX.tar.gz",
        "v3/main/x86_64/x-1.0-r0.apk",
    ),
    ("rpm", "repodata/repomd.xml", "Packages/x-1.0.rpm"),
    ("docker", "library/x/manifests/latest", BLOB),
];

/// The digest of nothing (FIPS 180-4).
const BLOB: &str =
    "library/x/blobs/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn all(origin: &Origin, keys: &str) -> String {
    let entries: String = PATHS
        .iter()
        .map(|(package, ..)| entry(package, package, origin, keys))
        .collect();
    format!("remotes:\n{entries}")
}

fn url(larder: &TestLarder, repository: &str, path: &str) -> String {
    match repository {
        "docker" => larder.url(&format!("v2/docker/{path}")),
        _ => larder.artifact(repository, path),
    }
}

/// The sentence and the rule of an error, in whichever shape it has.
fn said(answer: &Answer) -> (String, String) {
    let body = answer.json();
    let (sentence, rule) = match &body["errors"] {
        Value::Array(errors) => (
            errors[0]["message"].clone(),
            errors[0]["detail"]["rule"].clone(),
        ),
        _ => (body["error"].clone(), body["rule"].clone()),
    };
    (
        sentence.as_str().expect("a sentence").to_owned(),
        rule.as_str().unwrap_or_default().to_owned(),
    )
}

/// The status line's reason phrase.
async fn reason(larder: &TestLarder, url: &str) -> String {
    let path = url
        .split(&larder.address().to_string())
        .nth(1)
        .expect("a path");
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        larder.address()
    );
    let answer = raw(larder.address(), request.as_bytes()).await;
    let line = answer.lines().next().expect("a status line");
    line.splitn(3, ' ').nth(2).unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn deny_patterns_say_which_pattern_to_remove_or_narrow() {
    let origin = Origin::start().await;
    let larder =
        TestLarder::start(&all(&origin, "deny_patterns: ['^nothing$', '[a-z]', 'x']")).await;
    for (repository, document, file) in PATHS {
        for path in [document, file] {
            let url = url(&larder, repository, path);
            let answer = get(&url).await;
            let (sentence, rule) = said(&answer);
            assert_eq!(
                (answer.status, rule.as_str()),
                (403, "deny_patterns"),
                "{repository}/{path}: {sentence}"
            );
            for word in [repository, "'[a-z]'", "remove or narrow"] {
                assert!(
                    sentence.contains(word),
                    "{repository}/{path}: {word}: {sentence}"
                );
            }
            assert!(
                !sentence.contains("add a pattern") && !sentence.contains("nothing"),
                "{repository}/{path}: {sentence}"
            );
            let reason = reason(&larder, &url).await;
            assert!(
                reason.contains("'[a-z]'")
                    && reason.ends_with("(rule deny_patterns)")
                    && reason.len() <= 120,
                "{repository}/{path}: {reason}"
            );
        }
    }
    assert_eq!(origin.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_no_pattern_admits_is_told_which_lists_were_tried() {
    let origin = Origin::start().await;
    let keys = "immutable_patterns: ['one$', 'two$', 'three$', 'four$', 'five$']\nmutable_patterns: ['changes$']";
    let larder = TestLarder::start(&all(&origin, keys)).await;
    let empty = TestLarder::start(&all(&origin, "immutable_patterns: []")).await;
    let allowed = TestLarder::start(&all(&origin, "allow_patterns: ['^team/']")).await;
    for (repository, _, file) in PATHS {
        let answer = get(&url(&larder, repository, file)).await;
        let (sentence, rule) = said(&answer);
        assert_eq!(
            (answer.status, rule.as_str()),
            (403, "immutable_patterns"),
            "{repository}: {sentence}"
        );
        for word in [
            repository,
            "mutable_patterns ('changes$')",
            "immutable_patterns ('one$', 'two$', 'three$' and 2 more)",
            "add a pattern",
        ] {
            assert!(sentence.contains(word), "{repository}: {word}: {sentence}");
        }
        let (sentence, rule) = said(&get(&url(&empty, repository, file)).await);
        assert_eq!(rule, "immutable_patterns");
        assert!(
            sentence.contains("immutable_patterns (none)"),
            "{repository}: {sentence}"
        );
        let (sentence, rule) = said(&get(&url(&allowed, repository, file)).await);
        assert_eq!(rule, "allow_patterns");
        assert!(
            sentence.contains("allow_patterns ('^team/')") && sentence.contains("add a pattern"),
            "{repository}: {sentence}"
        );
    }
    assert_eq!(origin.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remembered_404_says_for_how_long_and_what_forgets_it() {
    let origin = Origin::start().await;
    let larder = TestLarder::start(&all(&origin, "negative_ttl: 600")).await;
    for (repository, document, file) in PATHS {
        for path in [document, file] {
            let first = get(&url(&larder, repository, path)).await;
            let (sentence, _) = said(&first);
            assert_eq!(first.status, 404, "{repository}/{path}: {sentence}");
            assert!(
                !sentence.contains("remembered"),
                "{repository}/{path}: {sentence}"
            );
            // Until it is written down, whoever comes shares the answer of the one who asked.
            let since = Instant::now();
            let (sentence, rule) = loop {
                let (sentence, rule) = said(&get(&url(&larder, repository, path)).await);
                if rule == "negative_ttl" || since.elapsed() > Duration::from_secs(10) {
                    break (sentence, rule);
                }
            };
            assert_eq!(rule, "negative_ttl", "{repository}/{path}: {sentence}");
            let seconds = sentence
                .split("remembered for ")
                .nth(1)
                .and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
            // It has been remembered for some of these seconds already, on a slow machine for many.
            assert!(
                seconds.is_some_and(|seconds| (300..=600).contains(&seconds)),
                "{repository}/{path}: {sentence}"
            );
            assert!(
                sentence.contains("flush") && sentence.contains("404"),
                "{repository}/{path}: {sentence}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn quarantine_says_until_when_by_which_date_and_which_key_changes_it() {
    let origin = Origin::start().await;
    // Six days before the first of December 2099, at noon.
    let young = || Resource::new("young").last_modified("Wed, 25 Nov 2099 12:00:00 GMT");
    let keys = "quarantine_new: true\nquarantine_days: 36500\nnegative_ttl: 0";
    let larder = TestLarder::start(&all(&origin, keys)).await;
    let now = httpdate::fmt_http_date(
        std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_600_000_000),
    );
    for (repository, _, file) in PATHS
        .into_iter()
        .filter(|(package, ..)| *package != "docker")
    {
        origin.put(
            &format!("/{file}"),
            Resource::new("old").last_modified(&now),
        );
        let url = url(&larder, repository, file);
        let answer = get(&url).await;
        let (sentence, rule) = said(&answer);
        assert_eq!(
            (answer.status, rule.as_str()),
            (404, "quarantine_new"),
            "{repository}: {sentence}"
        );
        // 1,600,000,000 s is 2020-09-13T12:26:40Z; 36,500 days later is 2120-08-20.
        for word in [
            "until 2120-08-20T12:26:40Z",
            "2020-09-13T12:26:40Z",
            "Last-Modified",
            "36500 days",
            "quarantine_days",
            repository,
        ] {
            assert!(sentence.contains(word), "{repository}: {word}: {sentence}");
        }
        assert_eq!(
            reason(&larder, &url).await,
            "Quarantined until 2120-08-20 (rule quarantine_new)",
            "{repository}"
        );
    }
    origin.put("/later", young());
    let (sentence, _) = said(&get(&larder.artifact("generic", "later")).await);
    assert!(
        sentence.contains("saw it first") && sentence.contains("2099-11-25T12:00:00Z"),
        "a date to come: {sentence}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_of_upstreams_say_what_failed_and_which_keys_matter() {
    let mut down = Origin::start().await;
    down.stop().await;
    let larder = TestLarder::start(&all(&down, "negative_ttl: 0")).await;
    let offline = TestLarder::start(&all(&down, "offline: true")).await;
    for (repository, document, file) in PATHS {
        for path in [document, file] {
            let url_down = url(&larder, repository, path);
            let answer = get(&url_down).await;
            let (sentence, _) = said(&answer);
            assert_eq!(answer.status, 502, "{repository}/{path}: {sentence}");
            for word in [repository, "base_url", "127.0.0.1"] {
                assert!(
                    sentence.contains(word),
                    "{repository}/{path}: {word}: {sentence}"
                );
            }
            let reason = reason(&larder, &url_down).await;
            assert_eq!(
                reason,
                format!(
                    "the upstream of repository {repository} cannot be reached: it refuses connections"
                ),
                "{path}"
            );
            let answer = get(&url(&offline, repository, path)).await;
            let (sentence, rule) = said(&answer);
            assert_eq!(
                (answer.status, rule.as_str()),
                (502, "offline"),
                "{repository}/{path}: {sentence}"
            );
            assert!(
                sentence.contains("offline: false") && sentence.contains(repository),
                "{repository}/{path}: {sentence}"
            );
        }
    }
    let origin = Origin::start().await;
    let larder = TestLarder::start(&all(&origin, "negative_ttl: 0")).await;
    for (behaviour, status, words, rule, phrase) in [
        (
            Behaviour::Status(401),
            502,
            &["401", "username", "password"][..],
            "upstream",
            "wants a login",
        ),
        (
            Behaviour::Status(403),
            403,
            &["403", "username", "missing_status"],
            "upstream",
            "answered 403",
        ),
        (
            Behaviour::Status(429),
            429,
            &["429", "later"],
            "upstream",
            "answered 429",
        ),
        (
            Behaviour::Status(407),
            502,
            &["407", "proxy"],
            "upstream",
            "the proxy on the way wants a login",
        ),
        (
            Behaviour::Status(418),
            502,
            &["418"],
            "upstream",
            "answered 418",
        ),
        (
            Behaviour::Status(500),
            500,
            &["500", "later", "stale.on_status"],
            "upstream",
            "answered 500",
        ),
        (
            Behaviour::Redirect {
                status: 302,
                location: "http://10.1.2.3/x".into(),
            },
            502,
            &["10.1.2.3", "allow_private"],
            "allow_private",
            "private address",
        ),
        (
            Behaviour::Redirect {
                status: 302,
                location: "ftp://example.com/x".into(),
            },
            502,
            &["http"],
            "upstream",
            "redirects",
        ),
        (
            Behaviour::Garbage("nonsense <h1>upstream</h1>\r\n\r\n".into()),
            502,
            &["HTTP"],
            "upstream",
            "HTTP",
        ),
    ] {
        origin.behave("*", behaviour.clone());
        send("PUT", &larder.url("cache/flush"), &[]).await;
        for (repository, _, file) in PATHS
            .into_iter()
            .filter(|(package, ..)| *package != "docker")
        {
            let url = url(&larder, repository, file);
            let answer = get(&url).await;
            let (sentence, decided) = said(&answer);
            assert_eq!(
                (answer.status, decided.as_str()),
                (status, rule),
                "{behaviour:?} {repository}: {sentence}"
            );
            for word in words.iter().chain(&[repository]) {
                assert!(
                    sentence.contains(word),
                    "{behaviour:?} {repository}: {word}: {sentence}"
                );
            }
            let reason = reason(&larder, &url).await;
            assert!(
                reason.contains(phrase) && !reason.contains("h1"),
                "{behaviour:?} {repository}: {reason}"
            );
        }
    }
}

/// One reason is shown; that it is not the only one keeps its reader from mending one mirror and wondering.
#[tokio::test(flavor = "multi_thread")]
async fn mirrors_that_all_fail_are_told_as_such() {
    let mut gone = [
        Origin::start().await,
        Origin::start().await,
        Origin::start().await,
    ];
    let list = gone
        .iter()
        .map(|origin| format!("'{}'", origin.url("/")))
        .collect::<Vec<_>>()
        .join(", ");
    for origin in &mut gone {
        origin.stop().await;
    }
    let larder = TestLarder::start(&format!("remotes:\n  files:\n    base_url: [{list}]\n")).await;
    let answer = get(&larder.artifact("files", "x")).await;
    let (sentence, _) = said(&answer);
    assert_eq!(answer.status, 502, "{sentence}");
    assert!(
        sentence.contains("connection refused") && sentence.contains("2 other mirrors"),
        "{sentence}"
    );
}

/// What looks like an absence may be a store that refuses: whoever looks for the reason needs to know that it is read so.
#[tokio::test(flavor = "multi_thread")]
async fn an_absence_that_missing_status_makes_is_told_as_one() {
    let origin = Origin::start().await;
    origin.behave("*", Behaviour::Status(403));
    let larder = TestLarder::start(&remote(
        "generic",
        &origin,
        "missing_status: [403]\nnegative_ttl: 60",
    ))
    .await;
    for rule in ["upstream", "negative_ttl"] {
        let answer = get(&larder.artifact("generic", "absent.bin")).await;
        let (sentence, decided) = said(&answer);
        assert_eq!((answer.status, decided.as_str()), (404, rule), "{sentence}");
        assert!(
            sentence.contains("404") && sentence.contains("403, which missing_status reads"),
            "{sentence}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_s_wrong_name_is_told_the_right_one_wherever_it_stands() {
    let origin = Origin::start().await;
    let config = format!(
        "{}  all: {{ type: virtual, package: helm, members: [helm] }}\n",
        all(&origin, "")
    );
    let larder = TestLarder::start(&config).await;
    for (method, path, status, word) in [
        ("GET", "api/v1/remote/nmp/express", 404, "npm"),
        ("GET", "api/v1/remote/pypi-remote/simple/x/", 404, "pypi"),
        ("GET", "v2/dockr/library/x/manifests/1", 404, "docker"),
        (
            "GET",
            "v2/npm/library/x/manifests/1",
            404,
            "/api/v1/remote/npm",
        ),
        ("PUT", "cache/flush?remote=genric", 404, "generic"),
        ("PUT", "api/v1/remote/genric/x", 404, "generic"),
        ("GET", "api/v1/virtual/npm/x", 404, "/api/v1/remote/npm"),
        (
            "GET",
            "api/v1/remote/all/index.yaml",
            404,
            "/api/v1/virtual/all",
        ),
    ] {
        let answer = send(method, &larder.url(path), &[]).await;
        let (sentence, _) = said(&answer);
        assert_eq!(answer.status, status, "{method} {path}: {sentence}");
        assert!(
            sentence.contains(word),
            "{method} {path}: {word}: {sentence}"
        );
    }
    let (sentence, _) = said(&get(&larder.url("api/v1/remote/maven-central/x")).await);
    assert!(
        !sentence.contains("nearest"),
        "what differs widely is not offered: {sentence}"
    );
    assert_eq!(origin.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_link_names_its_host_and_where_right_ones_are() {
    let origin = Origin::start().await;
    let larder = TestLarder::start(&all(&origin, "")).await;
    for repository in ["pypi", "npm", "helm"] {
        let answer = get(&larder.artifact(
            repository,
            "_ext/0000000000000000/files.example.com/x-1.0.tgz",
        ))
        .await;
        let (sentence, rule) = said(&answer);
        assert_eq!(
            (answer.status, rule.as_str()),
            (403, "_ext"),
            "{repository}: {sentence}"
        );
        for word in [repository, "files.example.com", "index"] {
            assert!(sentence.contains(word), "{repository}: {word}: {sentence}");
        }
    }
}

//! Errors: their status, their shape, what they say and what they do not (contract, section 1).

use std::time::{Duration, Instant};

use larder_testkit::{Behaviour, Origin, Resource};

use crate::support::packages::{entry, one_of_each, remote};
use crate::support::{Answer, TestLarder, get, send};

/// Checks the shape of an error, and gives its message.
fn message(answer: &Answer, repository: &str) -> String {
    assert_eq!(
        answer.header("content-type"),
        "application/json",
        "{}",
        answer.text()
    );
    assert_eq!(
        answer.header("cache-control"),
        "no-store",
        "errors are not for caches"
    );
    let body = answer.json();
    // npm prints the member `error` wherever it lands.
    for name in ["code", "rule"] {
        assert!(
            body[name].as_str().is_some_and(|text| !text.is_empty()),
            "{name} in {body}"
        );
    }
    assert_eq!(body["repository"], repository, "{body}");
    assert_eq!(
        body.as_object().map(serde_json::Map::len),
        Some(4),
        "{body}"
    );
    body["error"]
        .as_str()
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| panic!("no message: {body}"))
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_of_the_upstream_are_kept_where_they_mean_something() {
    let origin = Origin::start().await;
    let page = "<html><body><h1>internal upstream page</h1></body></html>";
    let larder = TestLarder::start(&one_of_each(&origin, "negative_ttl: 0")).await;
    for (status, want) in [
        (201, 502),
        (202, 502),
        (203, 502),
        (204, 502),
        (206, 502),
        (304, 502),
        (400, 400),
        (401, 502),
        (402, 502),
        (403, 403),
        (404, 404),
        (405, 405),
        (407, 502),
        (408, 408),
        (409, 409),
        (410, 410),
        (414, 414),
        (416, 416),
        (418, 502),
        (421, 421),
        (425, 425),
        (426, 426),
        (428, 428),
        (429, 429),
        (431, 431),
        (451, 451),
        (500, 500),
        (501, 501),
        (502, 502),
        (503, 503),
        (504, 504),
    ] {
        // A refusal that says when to come back stands for that time.
        send("PUT", &larder.url("cache/flush"), &[]).await;
        let resource = Resource::new(page)
            .status(status)
            .content_type("text/html")
            .header("Retry-After", "7");
        for (repository, path) in [
            ("generic", "x.bin"),
            ("pypi", "simple/x/"),
            ("pypi", "x.whl"),
            ("npm", "x"),
            ("helm", "index.yaml"),
            ("helm", "x-1.tgz"),
        ] {
            origin.put(&format!("/{path}"), resource.clone());
            // The document that could name the file has nothing to say.
            let answer = get(&larder.artifact(repository, path)).await;
            let case = format!("{repository}/{path}: {status}: {}", answer.text());
            assert_eq!(answer.status, want, "{case}");
            let said = message(&answer, repository);
            assert!(
                !said.contains('<') && !said.contains("internal upstream page"),
                "{case}"
            );
            let retry = answer.header("retry-after");
            let later = matches!(status, 408 | 425 | 429);
            assert!(
                if later {
                    retry == "7"
                } else {
                    status >= 500 || retry.is_empty()
                },
                "{case}: {retry:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_cannot_be_used_is_502_and_one_that_is_slow_504() {
    for (behaviour, want) in [
        (Some(Behaviour::StallHead(Duration::from_secs(20))), 504),
        (Some(Behaviour::ResetHead), 502),
        (Some(Behaviour::Garbage("SSH-2.0-OpenSSH\r\n".into())), 502),
        (
            Some(Behaviour::Garbage(
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef".into(),
            )),
            502,
        ),
        (None, 502),
    ] {
        // An upstream for each: one that failed several times in a row is left alone for a while.
        let paths = [
            ("generic", "x.bin"),
            ("pypi", "simple/x/"),
            ("npm", "x"),
            ("helm", "index.yaml"),
        ];
        let mut origins = Vec::new();
        let mut config = String::from("remotes:\n");
        for (package, _) in paths {
            let mut origin = Origin::start().await;
            config.push_str(&entry(
                package,
                package,
                &origin,
                "negative_ttl: 0\ntimeouts: { connect: 1, read: 1 }",
            ));
            match &behaviour {
                Some(behaviour) => origin.behave("*", behaviour.clone()),
                None => origin.stop().await,
            }
            origins.push(origin);
        }
        let larder = TestLarder::start(&config).await;
        let began = Instant::now();
        for (repository, path) in paths {
            let answer = get(&larder.artifact(repository, path)).await;
            assert_eq!(
                answer.status,
                want,
                "{repository} {behaviour:?}: {}",
                answer.text()
            );
            let said = message(&answer, repository);
            assert!(!said.contains("SSH-2.0"), "{said}");
        }
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "{behaviour:?}: {:?}",
            began.elapsed()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_404_is_remembered_for_negative_ttl_and_a_flush_forgets_it() {
    let origin = Origin::start().await;
    let config = [
        entry("brief", "generic", &origin, "negative_ttl: 1"),
        entry("long", "generic", &origin, "negative_ttl: 600"),
    ];
    let larder = TestLarder::start(&format!("remotes:\n{}", config.concat())).await;
    let ask = async |repository: &str| get(&larder.artifact(repository, "late")).await.status;
    for _ in 0..3 {
        assert_eq!((ask("brief").await, ask("long").await), (404, 404));
    }
    assert_eq!(origin.count("GET", "/late"), 2, "once for each");
    origin.put("/late", Resource::new("there"));
    tokio::time::sleep(Duration::from_millis(1_300)).await;
    assert_eq!(
        (ask("brief").await, ask("long").await),
        (200, 404),
        "hazard A6: no longer than it says"
    );
    assert_eq!(
        send("PUT", &larder.url("/cache/flush?remote=long"), &[])
            .await
            .status,
        200
    );
    assert_eq!(ask("long").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_repositories_are_404_and_say_so() {
    let origin = Origin::start().await;
    let larder = TestLarder::start(&remote("generic", &origin, "")).await;
    for path in [
        "nobody/x",
        "Generic/x",
        "gener%69c/x",
        "generic.x/x",
        "nobody",
        "nobody/",
        "nobody//x",
    ] {
        let answer = get(&larder.url(&format!("api/v1/remote/{path}"))).await;
        assert_eq!(answer.status, 404, "{path}: {}", answer.text());
    }
    // Bad paths are refused before anything else, so before the repository is looked for.
    for path in [
        "generic%2f/x",
        "%00/x",
        "../x",
        "./generic/x",
        "%2e%2e/x",
        "nobody/../x",
        "nobody/a%5cb",
        "nobody/a%2fb",
    ] {
        let request = format!(
            "GET /api/v1/remote/{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        );
        let answer = crate::support::raw(larder.address(), request.as_bytes()).await;
        assert!(
            answer.starts_with("HTTP/1.1 400 ") && answer.contains("invalid_path"),
            "{path}: {answer}"
        );
    }
    for url in ["api/v1/remote/nobody/x", "api/v1/virtual/nobody/index.yaml"] {
        let answer = get(&larder.url(url)).await;
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (404, &"unknown_repository".into()),
            "{url}"
        );
        assert_eq!(answer.json()["repository"], "nobody", "{url}");
    }
    // The kinds do not mix.
    assert_eq!(
        get(&larder.url("api/v1/virtual/generic/x")).await.status,
        404
    );
    for path in [
        "/nothing",
        "/api/v1/remote",
        "/api/v2/remote/generic/x",
        "/API/v1/remote/generic/x",
        "/live/",
        "/config/x",
    ] {
        assert_eq!(get(&larder.url(path)).await.status, 404, "{path}");
    }
    assert_eq!(origin.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn remotes_take_no_uploads() {
    let origin = Origin::start().await;
    let larder = TestLarder::start(&one_of_each(&origin, "")).await;
    for repository in ["generic", "pypi", "npm", "helm"] {
        for (method, path) in [("PUT", "a.tgz"), ("PATCH", "a.tgz"), ("OPTIONS", "a.tgz")] {
            let answer = send(method, &larder.artifact(repository, path), &[]).await;
            assert_eq!(
                answer.status,
                405,
                "{method} {repository}: {}",
                answer.text()
            );
            // RFC 9110 section 15.5.6: an origin server must say what is allowed.
            let allow = answer.header("allow");
            assert!(
                allow.contains("GET") && allow.contains("HEAD"),
                "{method} {repository}: {allow:?}"
            );
            assert!(
                method == "PATCH" || method == "OPTIONS" || !allow.contains(method),
                "{method} {repository}: {allow:?}"
            );
        }
    }
    for (repository, path) in [
        ("generic", "a"),
        ("pypi", "legacy/"),
        ("helm", "api/charts"),
    ] {
        for method in ["POST", "PUT", "PATCH", "OPTIONS"] {
            let answer = send(method, &larder.artifact(repository, path), &[]).await;
            assert_eq!(
                answer.status,
                405,
                "{method} {repository}: {}",
                answer.text()
            );
            // DELETE flushes the path.
            assert_eq!(
                answer.header("allow"),
                "GET, HEAD, DELETE",
                "{method} {repository}"
            );
        }
    }
    assert_eq!(origin.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_built_loads_with_a_warning_and_answers_501() {
    let origin = Origin::start().await;
    let url = origin.url("/");
    let config = format!(
        "remotes:\n\
         \x20 images: {{ package: docker, type: local }}\n\
         \x20 wheels: {{ type: local, package: pypi }}\n\
         \x20 charts: {{ package: helm, base_url: '{url}' }}\n\
         \x20 node: {{ package: npm, base_url: '{url}' }}\n\
         \x20 all: {{ type: virtual, package: npm, members: [node] }}\n"
    );
    let larder = TestLarder::start(&config).await;
    for (method, path) in [
        ("GET", "v2/images/app/manifests/1.0"),
        ("PUT", "v2/images/app/manifests/1.0"),
        ("PUT", "api/v1/remote/wheels/x"),
        ("DELETE", "api/v1/remote/wheels/x"),
        ("GET", "api/v1/remote/wheels/simple/x/"),
        ("GET", "api/v1/virtual/all/index.yaml"),
        ("GET", "api/v1/remote/all/index.yaml"),
        ("GET", "v2/images/library/alpine/manifests/latest"),
        ("HEAD", "v2/images/library/alpine/blobs/sha256:00"),
        ("POST", "v2/images/x/blobs/uploads/"),
    ] {
        let answer = send(method, &larder.url(path), &[]).await;
        assert_eq!(answer.status, 501, "{method} {path}: {}", answer.text());
        if method == "HEAD" {
            continue;
        }
        let body = answer.json();
        let said = if path.starts_with("v2/") {
            &body["errors"][0]["message"]
        } else {
            &body["error"]
        };
        assert!(
            said.as_str().is_some_and(|text| text.contains("not built")),
            "{path}: {body}"
        );
        assert!(
            !path.starts_with("v2/") || body["errors"][0]["code"].is_string(),
            "{path}: {body}"
        );
    }
    assert_eq!(origin.connections(), 0);
    for name in ["images", "wheels", "all"] {
        assert!(
            larder
                .log()
                .contains(&format!("repository `{name}` answers 501")),
            "{name}: {}",
            larder.log()
        );
    }
    assert!(!larder.log().contains("repository `charts` answers 501"));
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_show_neither_paths_nor_credentials() {
    let mut origin = Origin::start().await;
    let keys = "username: reader\npassword: c4n4ry\nheaders: { X-Token: c4n4ry }\nnegative_ttl: 0";
    let larder = TestLarder::start(&one_of_each(&origin, keys)).await;
    let mut answers = Vec::new();
    for path in ["none", "x?token=c4n4ry"] {
        answers.push(get(&larder.artifact("generic", path)).await);
    }
    origin.behave(
        "*",
        Behaviour::Redirect {
            status: 302,
            location: "http://10.0.0.1/x?X-Amz-Signature=c4n4ry".to_owned(),
        },
    );
    answers.push(get(&larder.artifact("generic", "signed")).await);
    origin.stop().await;
    for (repository, path) in [
        ("generic", "y"),
        ("pypi", "simple/x/"),
        ("npm", "x"),
        ("helm", "index.yaml"),
    ] {
        answers.push(get(&larder.artifact(repository, path)).await);
    }
    for answer in answers {
        let text = answer.text();
        assert!(!text.contains("c4n4ry"), "{text}");
        assert!(
            !text.contains(larder.home().to_str().expect("in UTF-8")) && !text.contains(".rs:"),
            "{text}"
        );
    }
    assert!(
        !larder.log().contains("c4n4ry"),
        "signed queries and secrets stay out of the log"
    );
}

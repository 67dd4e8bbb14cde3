//! What operators and monitoring ask: health, configuration, metrics, the list of repositories, the API's description.

use std::collections::{BTreeMap, BTreeSet};

use larder_testkit::{Origin, Resource};

use crate::support::packages::{one_of_each, remote};
use crate::support::{Setup, TestLarder, get, send};

#[tokio::test(flavor = "multi_thread")]
async fn health_ready_and_live() {
    let origin = Origin::start().await;
    let larder = TestLarder::start(&remote("generic", &origin, "")).await;
    let health = get(&larder.url("/health")).await;
    assert_eq!(
        (
            health.status,
            health.header("content-type"),
            health.header("cache-control")
        ),
        (200, "application/json", "no-store")
    );
    let body = health.json();
    assert_eq!(body["status"], "ok");
    for role in ["metadata", "blobs"] {
        assert_eq!(body["backends"][role]["status"], "ok", "{body}");
    }
    for path in ["/ready", "/live"] {
        let answer = get(&larder.url(path)).await;
        assert_eq!(
            (answer.status, &answer.json()["status"]),
            (200, &"ok".into()),
            "{path}"
        );
        let head = send("HEAD", &larder.url(path), &[]).await;
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
    }
    // Upstreams are nobody's health but their own (hazard A4).
    assert_eq!(origin.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_lists_the_repositories() {
    let origin = Origin::start().await;
    let config = format!(
        "{}  all:\n    type: virtual\n    package: helm\n    members: [helm]\n",
        one_of_each(&origin, "description: 'it''s \"it\"'")
    );
    let larder = TestLarder::start(&config).await;
    // A browser is sent to the pages.
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let sent = send("GET", &larder.url("/"), &[("Accept", browser)]).await;
    assert_eq!((sent.status, sent.header("location")), (303, "/ui/"));
    for accept in ["*/*", "application/json"] {
        let answer = send("GET", &larder.url("/"), &[("Accept", accept)]).await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, "application/json"),
            "{accept}"
        );
        let body = answer.json();
        assert_eq!(
            (&body["name"], &body["version"]),
            (&"larder".into(), &env!("CARGO_PKG_VERSION").into())
        );
        assert_eq!(
            body["remotes"].as_object().map(serde_json::Map::len),
            Some(5),
            "{body}"
        );
        for package in ["generic", "pypi", "npm", "helm"] {
            let want = serde_json::json!({"type": "remote", "package": package, "description": "it's \"it\"",
                "url": larder.artifact(package, "").trim_end_matches('/')});
            assert_eq!(body["remotes"][package], want);
        }
        assert_eq!(
            body["remotes"]["all"]["url"],
            larder.url("/api/v1/virtual/all")
        );
    }
    let named = send("GET", &larder.url("/"), &[("Host", "larder.example:81")])
        .await
        .json();
    assert_eq!(
        named["remotes"]["npm"]["url"],
        "http://larder.example:81/api/v1/remote/npm"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn public_url_stands_in_every_link() {
    let origin = Origin::start().await;
    let larder = Setup::new(&remote("npm", &origin, ""))
        .env("LARDER_PUBLIC_URL", "https://larder.example/sub")
        .start()
        .await;
    let packument = r#"{"name":"a","dist-tags":{},"versions":{"1.0.0":{"name":"a","version":"1.0.0","dist":{"tarball":"ORIGINa/-/a-1.0.0.tgz"}}}}"#;
    origin.put(
        "/a",
        Resource::new(packument.replace("ORIGIN", &origin.url("/")))
            .content_type("application/json"),
    );
    assert_eq!(
        get(&larder.url("/")).await.json()["remotes"]["npm"]["url"],
        "https://larder.example/sub/api/v1/remote/npm"
    );
    let tarball =
        get(&larder.artifact("npm", "a")).await.json()["versions"]["1.0.0"]["dist"]["tarball"]
            .clone();
    assert_eq!(
        tarball,
        "https://larder.example/sub/api/v1/remote/npm/a/-/a-1.0.0.tgz"
    );
}

/// npm 12 refuses a tarball that does not lie below the registry URL that it is configured with, so each name gets links of its own.
#[tokio::test(flavor = "multi_thread")]
async fn of_several_public_urls_the_one_of_the_requests_host_stands_in_links_redirects_and_the_root()
 {
    let origin = Origin::start().await;
    let config = "public_url: ['https://first.example/sub', 'http://second.example:81']\n";
    let config = format!(
        "{config}{}",
        one_of_each(&origin, "index_url: ORIGINsimple").replace("ORIGIN", &origin.url("/"))
    );
    let larder = Setup::new(&config).start().await;
    let packument = r#"{"name":"a","dist-tags":{},"versions":{"1.0.0":{"name":"a","version":"1.0.0","dist":{"tarball":"ORIGINa/-/a-1.0.0.tgz"}}}}"#;
    origin.put(
        "/a",
        Resource::new(packument.replace("ORIGIN", &origin.url("/")))
            .content_type("application/json"),
    );
    let page = format!(
        "<title>Links for b</title><a href=\"{}b-1.0.tar.gz\">b-1.0.tar.gz</a>",
        origin.url("/")
    );
    origin.put("/simple/b/", Resource::new(page).content_type("text/html"));
    for (host, absolute, path) in [
        ("second.example:81", "http://second.example:81", ""),
        ("first.example", "https://first.example/sub", "/sub"),
        ("second.example", "https://first.example/sub", "/sub"),
        ("elsewhere.example", "https://first.example/sub", "/sub"),
        // Out of the hot set, too.
        ("second.example:81", "http://second.example:81", ""),
        ("first.example", "https://first.example/sub", "/sub"),
    ] {
        let ask = async |path: &str| send("GET", &larder.url(path), &[("Host", host)]).await;
        assert_eq!(
            ask("/").await.json()["remotes"]["npm"]["url"],
            format!("{absolute}/api/v1/remote/npm"),
            "{host}"
        );
        let tarball =
            ask("/api/v1/remote/npm/a").await.json()["versions"]["1.0.0"]["dist"]["tarball"]
                .clone();
        assert_eq!(
            tarball,
            format!("{absolute}/api/v1/remote/npm/a/-/a-1.0.0.tgz"),
            "{host}"
        );
        let page = ask("/api/v1/remote/pypi/simple/b/").await.text();
        assert!(
            page.contains(&format!("href=\"{path}/api/v1/remote/pypi/b-1.0.tar.gz\"")),
            "{host}: {page}"
        );
        let redirect = ask("/api/v1/remote/pypi/simple/B/").await;
        assert_eq!(
            redirect.header("location"),
            format!("{path}/api/v1/remote/pypi/simple/b/"),
            "{host}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_s17_the_configuration_is_shown_without_its_secrets() {
    let origin = Origin::start().await;
    let config = format!(
        "auth: {{ admin_token: c4n4ry-admin-token }}\n\
         s3: {{ access_key: c4n4ry-access, secret_key: c4n4ry-secret, bucket: shown }}\n\
         database: {{ password: c4n4ry-database, user: shown }}\n\
         {}\
         \x20 proxied:\n    base_url: http://proxied.example\n    proxy: 'http://user:c4n4ry-proxy@127.0.0.1:9'\n\
         \x20 from-environment:\n    base_url: http://files.example\n    username: u\n    password: '${{SECRET_PASSWORD}}'\n",
        one_of_each(
            &origin,
            "username: shown\npassword: c4n4ry-password\nheaders: { X-Token: c4n4ry-header }"
        )
    );
    let larder = Setup::new(&config)
        .env("SECRET_PASSWORD", "c4n4ry-variable")
        .start()
        .await;
    let shown = get(&larder.url("/config")).await;
    assert_eq!(
        (shown.status, shown.header("content-type")),
        (200, "application/json")
    );
    let body = shown.json();
    for pointer in [
        "/auth/admin_token",
        "/s3/secret_key",
        "/database/password",
        "/remotes/generic/password",
        "/remotes/generic/headers/X-Token",
        "/remotes/from-environment/password",
    ] {
        let value = body
            .pointer(pointer)
            .unwrap_or_else(|| panic!("{pointer}: its presence is shown: {body}"));
        assert!(
            !value.as_str().unwrap_or_default().is_empty(),
            "{pointer}: {value}"
        );
    }
    assert_eq!(body["remotes"]["generic"]["base_url"], origin.url("/"));
    for path in [
        "/config",
        "/metrics",
        "/health",
        "/ready",
        "/",
        "/api/openapi.json",
        "/nothing",
        "/api/v1/remote/proxied/x",
    ] {
        let text = get(&larder.url(path)).await.text();
        assert!(!text.contains("c4n4ry"), "{path}: {text}");
    }
    assert!(!larder.log().contains("c4n4ry"), "in the log");
    // A configuration that is refused does not say them either.
    let (status, said) = Setup::new(&config.replace(
        "base_url: http://proxied.example",
        "base_url: 'http://u:c4n4ry-url@p.example'",
    ))
    .run_to_end();
    assert!(
        !status.success() && said.contains("base_url") && !said.contains("c4n4ry"),
        "{said}"
    );
}

/// A sample of the text format: name, labels as they stand, value.
fn sample(line: &str) -> (String, String, f64) {
    let (series, value) = line
        .rsplit_once(' ')
        .unwrap_or_else(|| panic!("no value: {line}"));
    let (name, labels) = series.split_once('{').map_or((series, ""), |(name, rest)| {
        (name, rest.strip_suffix('}').expect("labels end"))
    });
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    assert!(
        !name.is_empty()
            && name.chars().all(legal)
            && !name.starts_with(|c: char| c.is_ascii_digit()),
        "{line}"
    );
    let mut rest = labels;
    while !rest.is_empty() {
        let (label, after) = rest
            .split_once("=\"")
            .unwrap_or_else(|| panic!("no label: {line}"));
        assert!(
            label.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'),
            "{line}"
        );
        let end = after
            .find('"')
            .unwrap_or_else(|| panic!("no end of {label}: {line}"));
        rest = after[end + 1..].trim_start_matches(',');
    }
    (
        name.to_owned(),
        labels.to_owned(),
        value
            .parse()
            .unwrap_or_else(|_| panic!("no number: {line}")),
    )
}

/// The text format 0.0.4: <https://prometheus.io/docs/instrumenting/exposition_formats/>.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_prometheus_text_with_a_type_for_every_sample() {
    let origin = Origin::start().await;
    origin.put("/a", Resource::new("content"));
    let larder = TestLarder::start(&one_of_each(&origin, "")).await;
    let url = larder.artifact("generic", "a");
    get(&url).await;
    larder.hit(&url).await;
    get(&larder.artifact("generic", "none")).await;
    let answer = get(&larder.url("/metrics")).await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, "text/plain; version=0.0.4; charset=utf-8")
    );
    let text = answer.text();
    assert!(text.ends_with('\n'));
    let mut types: BTreeMap<String, String> = BTreeMap::new();
    let mut helped = BTreeSet::new();
    let mut series = BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a kind");
            assert!(
                ["counter", "gauge", "histogram", "summary", "untyped"].contains(&kind),
                "{line}"
            );
            assert!(
                types.insert(name.to_owned(), kind.to_owned()).is_none(),
                "twice: {line}"
            );
        } else if let Some(rest) = line.strip_prefix("# HELP ") {
            assert!(
                helped.insert(rest.split(' ').next().expect("a name").to_owned()),
                "twice: {line}"
            );
        } else if !line.starts_with('#') && !line.is_empty() {
            let (name, labels, _) = sample(line);
            assert!(series.insert((name.clone(), labels)), "twice: {line}");
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix));
            let typed = types.contains_key(&name)
                || base.is_some_and(|base| types.get(base).is_some_and(|kind| kind == "histogram"));
            assert!(typed, "no type: {line}");
            assert!(
                helped.contains(&name) || base.is_some_and(|base| helped.contains(base)),
                "no help: {line}"
            );
        }
    }
    let has = |name: &str| series.iter().any(|(known, _)| known == name);
    for name in [
        "larder_requests_total",
        "larder_sent_bytes_total",
        "larder_connections",
        "larder_downloads_in_flight",
        "larder_repository_hits_total",
        "larder_repository_misses_total",
        "larder_repository_upstream_errors_total",
        "larder_repository_digest_mismatches_total",
        "larder_repository_pattern_limits_total",
        "larder_request_duration_seconds_bucket",
    ] {
        assert!(has(name), "{name}\n{text}");
    }
    assert_eq!(
        types.get("larder_requests_total").map(String::as_str),
        Some("counter")
    );
    assert!(
        larder
            .metric("larder_repository_misses_total", "repository=\"generic\"")
            .await
            >= 1.0
    );

    let open = send(
        "GET",
        &larder.url("/metrics"),
        &[("Accept", "application/openmetrics-text; version=1.0.0")],
    )
    .await;
    assert!(
        open.header("content-type")
            .starts_with("application/openmetrics-text; version=1.0.0")
    );
    assert!(open.text().ends_with("# EOF\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_describes_itself() {
    let origin = Origin::start().await;
    let larder = TestLarder::start(&remote("generic", &origin, "")).await;
    let answer = get(&larder.url("/api/openapi.json")).await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, "application/json")
    );
    let body = answer.json();
    assert!(
        body["openapi"]
            .as_str()
            .is_some_and(|version| version.starts_with("3.")),
        "{}",
        body["openapi"]
    );
    assert!(body["info"]["title"].is_string() && body["info"]["version"].is_string());
    for (path, method) in [
        ("/api/v1/remote/{repo}/{path}", "get"),
        ("/api/v1/remote/{repo}/{path}", "put"),
        ("/cache/flush", "put"),
        ("/health", "get"),
        ("/config", "get"),
        ("/metrics", "get"),
    ] {
        assert!(
            body["paths"][path][method]["responses"].is_object(),
            "{method} {path}"
        );
    }
    // Every reference leads somewhere.
    let text = answer.text();
    for reference in text.split("\"$ref\":").skip(1) {
        let target = reference
            .trim_start()
            .trim_start_matches('"')
            .split('"')
            .next()
            .expect("a target");
        assert!(
            body.pointer(target.trim_start_matches('#')).is_some(),
            "{target}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_has_an_id_that_the_log_knows() {
    let origin = Origin::start().await;
    let larder = TestLarder::start(&remote("generic", &origin, "")).await;
    let answer = get(&larder.artifact("generic", "none")).await;
    let id = answer.header("x-request-id").to_owned();
    assert!(!id.is_empty(), "{:?}", answer.headers);
    larder.logged(&id).await;
    assert_ne!(get(&larder.url("/live")).await.header("x-request-id"), id);
}

//! Roots of repositories (contract, section 3, "Folders and roots"): larder's own page for every type; of generic ones the upstream's folder,
//! where it has one.

use larder_testkit::{Origin, Resource};

use crate::support::packages::{entry, remote};
use crate::support::{Setup, TestLarder, get, send};

/// Package type, and a line that its clients are set up with, below the address of the repository or of larder.
const TYPES: [(&str, &str); 7] = [
    ("generic", "curl -fLO {root}/PATH"),
    ("alpine", "{root}/vVERSION/main"),
    ("rpm", "baseurl={root}/FOLDER/"),
    (
        "docker",
        "podman pull --tls-verify=false {host}/docker/IMAGE:TAG",
    ),
    ("pypi", "pip config set global.index-url {root}/simple/"),
    ("npm", "npm config set registry {root}/"),
    ("helm", "helm repo add helm {root}"),
];
const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

/// One remote of each type in front of an upstream that has a page of its own at its root.
async fn all() -> (Origin, TestLarder) {
    let origin = Origin::start().await;
    origin.put(
        "/",
        Resource::new("the upstream's own root").content_type("text/html"),
    );
    let entries: String = TYPES
        .map(|(package, _)| entry(package, package, &origin, "description: 'for <b>all</b>'"))
        .concat();
    let larder = TestLarder::start(&format!("remotes:\n{entries}")).await;
    (origin, larder)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_of_every_type_but_generic_is_larder_s_own_page() {
    let (origin, larder) = all().await;
    for (package, line) in TYPES
        .into_iter()
        .filter(|(package, _)| *package != "generic")
    {
        let root = larder
            .artifact(package, "")
            .trim_end_matches('/')
            .to_owned();
        let line = line
            .replace("{root}", &root)
            .replace("{host}", &larder.address().to_string());
        for spelling in ["", "/", "//", "/./", "?write=true"] {
            let answer = get(&format!("{root}{spelling}")).await;
            assert_eq!(
                (answer.status, answer.header("content-type")),
                (200, "text/plain; charset=utf-8"),
                "{root}{spelling}"
            );
            for said in [
                &*line,
                &format!("{package}\n"),
                "remote",
                "for <b>all</b>",
                &origin.url("/"),
                "serving",
            ] {
                assert!(
                    answer.text().contains(said),
                    "{said:?} is missing:\n{}",
                    answer.text()
                );
            }
            assert!(!answer.text().contains("the upstream's own root"));
        }
        let page = send("GET", &format!("{root}/"), &[("Accept", BROWSER)]).await;
        assert_eq!(
            (page.status, page.header("content-type")),
            (200, "text/html; charset=utf-8")
        );
        assert!(
            page.text().contains("&lt;b&gt;all&lt;/b&gt;") && !page.text().contains("<b>"),
            "{}",
            page.text()
        );
        assert!(
            page.text().contains(&line.replace('\'', "&#39;")) && !page.text().contains("<script"),
            "{}",
            page.text()
        );
        let fields = [
            ("vary", "Accept"),
            ("cache-control", "no-store"),
            ("content-security-policy", "sandbox"),
            ("x-content-type-options", "nosniff"),
        ];
        for (name, value) in fields {
            assert_eq!(page.header(name), value, "{package} {name}");
        }
        let head = send("HEAD", &format!("{root}/"), &[("Accept", BROWSER)]).await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(head.header("content-length"), page.body.len().to_string());
    }
    assert_eq!(origin.connections(), 0, "nobody was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn below_v2_a_registry_s_root_is_the_page_too_and_the_version_check_stays() {
    let (origin, larder) = all().await;
    for path in ["v2/docker", "v2/docker/", "v2/docker//"] {
        let answer = get(&larder.url(path)).await;
        assert_eq!(
            (
                answer.status,
                answer.header("docker-distribution-api-version")
            ),
            (200, "registry/2.0"),
            "{path}"
        );
        assert!(
            answer.text().contains("skopeo inspect"),
            "{}",
            answer.text()
        );
    }
    for path in ["v2/", "docker/v2/"] {
        assert_eq!(get(&larder.url(path)).await.text(), "{}", "{path}");
    }
    // Names of other types are none of images.
    assert_eq!(get(&larder.url("v2/npm/")).await.status, 404);
    assert_eq!(origin.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lines_have_the_address_that_the_client_uses() {
    let origin = Origin::start().await;
    let larder = TestLarder::start(&remote("pypi", &origin, "")).await;
    let answer = send(
        "GET",
        &larder.artifact("pypi", ""),
        &[("Host", "localhost:81")],
    )
    .await;
    assert!(
        answer
            .text()
            .contains("index-url http://localhost:81/api/v1/remote/pypi/simple/"),
        "{}",
        answer.text()
    );
    let config = remote("pypi", &origin, "");
    let larder = Setup::new(&config)
        .env("LARDER_PUBLIC_URL", "https://larder.example.com/cache")
        .start()
        .await;
    let answer = get(&larder.artifact("pypi", "")).await;
    let line = "pip config set global.index-url https://larder.example.com/cache/api/v1/remote/pypi/simple/\n";
    assert!(answer.text().contains(line), "{}", answer.text());
    assert!(!answer.text().contains("trusted-host"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_tells_rules_and_state_and_no_secret() {
    let origin = Origin::start().await;
    let keys = "username: reader\npassword: c4n4ry\noffline: true\nquarantine_new: true\nquarantine_days: 5\ndeny_patterns: ['^evil']\nimmutable_patterns: ['\\.tgz$']";
    let larder = TestLarder::start(&remote("npm", &origin, keys)).await;
    let text = get(&larder.artifact("npm", "")).await.text();
    for said in ["^evil", "\\.tgz$", "newer than 5 days", "offline"] {
        assert!(text.contains(said), "{said:?} is missing:\n{text}");
    }
    assert!(
        !text.contains("c4n4ry") && !text.contains("reader"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_tells_that_the_upstream_fails_and_that_it_is_back() {
    let mut origin = Origin::start().await;
    origin.put(
        "/simple/demo/",
        Resource::new("<a href='demo-1.0.tar.gz'>demo</a>").content_type("text/html"),
    );
    origin.stop().await;
    let larder = TestLarder::start(&remote("pypi", &origin, "negative_ttl: 0")).await;
    let page = || async { get(&larder.artifact("pypi", "")).await.text() };
    assert!(
        page().await.contains("State:            serving\n"),
        "nobody has asked it yet"
    );
    assert_eq!(
        get(&larder.artifact("pypi", "simple/demo/")).await.status,
        502
    );
    let failing = page().await;
    assert!(
        failing.contains("State:            the upstream fails")
            && failing.contains("last failure: refused"),
        "{failing}"
    );
    origin.restart();
    assert_eq!(
        get(&larder.artifact("pypi", "simple/demo/")).await.status,
        200
    );
    assert!(page().await.contains("State:            serving\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_built_has_a_page_that_says_so() {
    let origin = Origin::start().await;
    let charts = entry("charts", "pypi", &origin, "");
    let config = format!(
        "remotes:\n{charts}  all: {{ type: virtual, package: pypi, members: [charts] }}\n  uploads: {{ type: local, package: pypi }}\n"
    );
    let larder = TestLarder::start(&config).await;
    for (path, word) in [
        ("api/v1/virtual/all/", "virtual"),
        ("api/v1/remote/uploads/", "local"),
        ("api/v1/remote/uploads", "local"),
    ] {
        let answer = get(&larder.url(path)).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert!(
            answer.text().contains("501") && answer.text().contains(word),
            "{path}: {}",
            answer.text()
        );
    }
    // What is below them is refused as before, and so is what is not there.
    assert_eq!(
        get(&larder.url("api/v1/virtual/all/index.yaml"))
            .await
            .status,
        501
    );
    for path in [
        "api/v1/remote/nobody/",
        "api/v1/virtual/nobody/",
        "api/v1/virtual/charts/",
    ] {
        assert_eq!(get(&larder.url(path)).await.status, 404, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generic_root_is_the_upstream_s_folder_and_changes() {
    let origin = Origin::start().await;
    origin.put(
        "/",
        Resource::new("<a href=\"a.txt\">a.txt</a>").content_type("text/html"),
    );
    let larder = TestLarder::start(&remote(
        "generic",
        &origin,
        "cache: { mutable_ttl: 0 }\nimmutable_patterns: []",
    ))
    .await;
    let root = larder.artifact("generic", "");
    assert_eq!(get(&root).await.text(), "<a href=\"a.txt\">a.txt</a>");
    origin.put("/", Resource::new("another").content_type("text/html"));
    assert_eq!(
        send("GET", &root, &[("Accept", BROWSER)]).await.text(),
        "another"
    );
    // Without its slash relative links would lead elsewhere.
    let bare = get(&format!("{}?C=M", root.trim_end_matches('/'))).await;
    assert_eq!(
        (bare.status, bare.header("location")),
        (301, "generic/?C=M")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generic_upstream_without_a_folder_at_its_root_leaves_it_to_the_page() {
    let origin = Origin::start().await;
    let larder = TestLarder::start(&remote("generic", &origin, "negative_ttl: 0")).await;
    let root = larder.artifact("generic", "");
    for status in [403, 404, 405, 410] {
        origin.put("/", Resource::new("no").status(status));
        let answer = get(&root).await;
        assert_eq!(
            (answer.status, answer.header("cache-control")),
            (200, "no-store"),
            "{status}: {}",
            answer.text()
        );
        assert!(
            answer.text().contains("curl -fLO") && answer.text().contains(&origin.url("/")),
            "{}",
            answer.text()
        );
        assert_eq!(send("HEAD", &root, &[]).await.status, 200, "{status}");
    }
    // A page in place of a folder that cannot be had at the moment would tell mirroring clients that it is empty.
    for status in [500, 503] {
        origin.put("/", Resource::new("no").status(status));
        assert_eq!(get(&root).await.status, status);
    }
    // The rules may close it.
    let denied = TestLarder::start(&remote("generic", &origin, "deny_patterns: ['(^|/)$']")).await;
    let asked = origin.requests().len();
    assert!(
        get(&denied.artifact("generic", ""))
            .await
            .text()
            .contains("curl -fLO")
    );
    assert_eq!(get(&denied.artifact("generic", "dir/")).await.status, 403);
    assert_eq!(origin.requests().len(), asked);
}

//! What every page has: both forms, the headers that bind it, one heading; and nothing that somebody else has written as markup.

use super::*;

/// Every page that there is without signing in.
const OPEN: &[&str] = &[
    "ui/",
    "ui/repositories",
    "ui/repositories/files",
    "ui/repositories/uploads",
    "ui/repositories/files/flush",
    "ui/repositories/files/outage",
    "ui/jobs",
    "ui/health",
    "ui/login",
];
/// Those that show the rules of the configuration.
const CLOSED: &[&str] = &[
    "ui/configuration",
    "ui/explain",
    "ui/explain?url=files%2Fdir%2Fa.bin",
];

/// What a page is made of, as far as it binds the browser.
fn check(path: &str, answer: &Answer) {
    let text = answer.text();
    assert_eq!(
        answer.header("content-type"),
        "text/html; charset=utf-8",
        "{path}"
    );
    assert_eq!(answer.header("vary"), "Accept", "{path}");
    assert_eq!(answer.header("cache-control"), "no-store", "{path}");
    assert_eq!(answer.header("referrer-policy"), "same-origin", "{path}");
    assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
    assert_eq!(
        answer.header("cross-origin-opener-policy"),
        "same-origin",
        "{path}"
    );
    let policy = answer.header("content-security-policy");
    for part in [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(part), "{path}: {policy}");
    }
    assert!(
        !policy.contains("unsafe") && !policy.contains("data:"),
        "{path}: {policy}"
    );
    assert_eq!(text.matches("<h1").count(), 1, "{path}");
    assert_eq!(text.matches("<main").count(), 1, "{path}");
    for inline in ["<style", " style=", " onclick=", "<script>", "javascript:"] {
        assert!(!text.contains(inline), "{path} has {inline}");
    }
    for (at, _) in text.match_indices("<script") {
        let tag = &text[at..at + text[at..].find('>').expect("its end")];
        assert!(tag.contains(" src=\"../"), "{path}: {tag}");
    }
    assert!(
        answer.body.len() <= 150_000,
        "{path}: {} bytes",
        answer.body.len()
    );
}

#[tokio::test]
async fn every_page_is_html_and_json_at_one_address() {
    let (_origin, larder) = with_a_file().await;
    get(&larder.artifact("files", "dir/a.bin")).await;
    for path in OPEN {
        let answer = page(&larder, path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        check(path, &answer);
        // Whoever takes anything gets the page, too: readers without a browser's list of types.
        let any = get(&larder.url(path)).await;
        assert_eq!(
            any.header("content-type"),
            "text/html; charset=utf-8",
            "{path}"
        );
        assert!(json(&larder, path).await.is_object(), "{path}");
    }
    let visitor = sign_in(&larder).await;
    for path in CLOSED {
        let refused = page(&larder, path).await;
        assert_eq!(refused.status, 401, "{path}");
        check(path, &refused);
        let headers = [("accept", BROWSER), ("cookie", &*visitor.cookie)];
        let answer = send("GET", &larder.url(path), &headers).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        check(path, &answer);
        // A script needs no cookie: it has the token itself.
        let bearer = format!("Bearer {TOKEN}");
        let headers = [("accept", "application/json"), ("authorization", &*bearer)];
        let answer = send("GET", &larder.url(path), &headers).await;
        assert_eq!(
            (answer.status, answer.json().is_object()),
            (200, true),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_browser_at_the_root_is_sent_to_the_pages_and_others_are_not() {
    let (_origin, larder) = with_a_file().await;
    let answer = page(&larder, "").await;
    assert_eq!((answer.status, answer.header("location")), (303, "/ui/"));
    assert_eq!(answer.header("vary"), "Accept");
    for accept in [
        "*/*",
        "application/json",
        "application/json, text/html;q=0.5",
    ] {
        let answer = send("GET", &larder.url(""), &[("accept", accept)]).await;
        assert_eq!(answer.status, 200, "{accept}");
        assert_eq!(answer.json()["name"], "larder", "{accept}");
        assert_eq!(answer.header("vary"), "Accept", "{accept}");
    }
    let bare = page(&larder, "ui").await;
    assert_eq!((bare.status, bare.header("location")), (303, "./ui/"));
}

#[tokio::test]
async fn what_is_not_there_is_said_as_a_page_and_as_json() {
    let (_origin, larder) = with_a_file().await;
    for path in [
        "ui/nothing",
        "ui/jobs/none",
        "ui/repositories/none",
        "ui/repositories/files/nothing/deeper",
        "ui/static/larder.css",
    ] {
        let answer = page(&larder, path).await;
        assert_eq!(answer.status, 404, "{path}");
        check(path, &answer);
        let headers = [("accept", "application/json")];
        let answer = send("GET", &larder.url(path), &headers).await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.json()["error"].is_string(), "{path}");
        assert_eq!(answer.header("vary"), "Accept", "{path}");
    }
    let answer = form(&larder, "ui/health", &[], &[]).await;
    assert_eq!((answer.status, answer.header("allow")), (405, "GET, HEAD"));
    let answer = send("PUT", &larder.url("ui/health"), &[]).await;
    assert_eq!(
        (answer.status, answer.header("allow")),
        (405, "GET, HEAD, POST")
    );
}

/// Style sheet and scripts are named after their content and may be kept for ever; everything that a page names is there.
#[tokio::test]
async fn what_pages_are_made_of_is_there_and_may_be_kept() {
    let (_origin, larder) = with_a_file().await;
    let text = page(&larder, "ui/").await.text();
    let names = text.match_indices("/ui/static/").map(|(at, _)| {
        let rest = &text[at + 1..];
        rest[..rest.find('"').expect("its end")].to_owned()
    });
    let names: Vec<String> = names.collect();
    assert!(names.len() >= 4, "{names:?}");
    for name in names {
        let answer = get(&larder.url(&name)).await;
        assert_eq!(answer.status, 200, "{name}");
        let cached = answer.header("cache-control");
        assert_eq!(cached, "public, max-age=31536000, immutable", "{name}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{name}");
    }
}

#[tokio::test]
async fn hazard_s15_nothing_that_somebody_has_written_is_markup() {
    let (origin, larder) = with_a_file().await;
    let evil = "<img src=x onerror=alert(1)>.bin";
    origin.put(
        "/%3Cimg%20src=x%20onerror=alert(1)%3E.bin",
        Resource::new("x"),
    );
    let encoded = "%3Cimg%20src=x%20onerror=alert(1)%3E.bin";
    get(&larder.artifact("files", encoded)).await;
    get(&larder.artifact("files", "%22%3E%3Cscript%3Ealert(1)%3C/script%3E")).await;
    let visitor = sign_in(&larder).await;
    let headers = [("accept", BROWSER), ("cookie", &*visitor.cookie)];
    for path in [
        "ui/".to_owned(),
        "ui/repositories".to_owned(),
        "ui/repositories/files".to_owned(),
        "ui/configuration".to_owned(),
        format!("ui/explain?url=files/{encoded}"),
        "ui/explain?url=%22%3E%3Cscript%3Ealert(1)%3C/script%3E".to_owned(),
        "ui/repositories/files/flush?pattern=%22%3E%3Cscript%3Ealert(1)%3C/script%3E".to_owned(),
        "ui/repositories/%3Cscript%3E".to_owned(),
        "ui/login?to=%22%3E%3Cscript%3Ealert(1)%3C/script%3E".to_owned(),
    ] {
        let text = send("GET", &larder.url(&path), &headers).await.text();
        assert!(text.contains("<h1"), "{path}: {text}");
        for markup in ["<script>", "<img src=x", "<script>alert"] {
            assert!(!text.contains(markup), "{path} has {markup}");
        }
    }
    let text = page(&larder, "ui/repositories/files").await.text();
    assert!(
        text.contains("&#60;script&#62;") || text.contains("&lt;script&gt;"),
        "the description is shown as text"
    );
    let answer = json(&larder, "ui/repositories/files").await;
    let description = answer["repository"]["description"].as_str().expect("text");
    assert!(
        description.contains("<script>"),
        "JSON needs no escaping for HTML"
    );
    let shown = send(
        "GET",
        &larder.url(&format!("ui/explain?url=files/{encoded}")),
        &headers,
    )
    .await;
    assert!(!shown.text().contains(evil));
}

/// Where public names are configured, pages are shown under these and under addresses only.
#[tokio::test]
async fn hazard_a_name_that_leads_here_shows_no_page() {
    let larder = TestLarder::start("public_url: https://larder.example.com/\nremotes: {}\n").await;
    for (host, status) in [
        ("larder.example.com", 200),
        ("evil.example.net", 421),
        ("localhost", 200),
        ("127.0.0.1", 200),
    ] {
        let headers = [("accept", BROWSER), ("host", host)];
        let answer = send("GET", &larder.url("ui/"), &headers).await;
        assert_eq!(answer.status, status, "{host}");
    }
}

#[tokio::test]
async fn the_lines_for_clients_have_the_address_that_the_visitor_used() {
    let (_origin, larder) = with_a_file().await;
    let shown = json(&larder, "ui/repositories/files").await;
    let address = format!("http://{}/api/v1/remote/files", larder.address());
    assert_eq!(shown["address"], address);
    assert!(
        shown["set_up"][0]["text"]
            .as_str()
            .expect("lines")
            .contains(&address)
    );
    // Where the configuration is, is nobody's business who has not signed in.
    assert!(!shown.to_string().contains("larder.yaml"), "{shown}");
    let visitor = sign_in(&larder).await;
    let headers = [("cookie", &*visitor.cookie)];
    let text = send("GET", &larder.url("ui/repositories/files"), &headers)
        .await
        .text();
    assert!(text.contains("larder.yaml:"), "{text}");
    let text = page(&larder, "ui/repositories/files").await.text();
    assert!(text.contains(&address) && text.contains("data-copy=\"set-up-1\""));
}

/// Whatever somebody has at hand of an address is understood.
#[tokio::test]
async fn an_address_is_explained_however_it_is_written() {
    let (origin, larder) = with_a_file().await;
    let visitor = sign_in(&larder).await;
    let headers = [("accept", "application/json"), ("cookie", &*visitor.cookie)];
    let asked = async |address: &str| {
        let query: String = url::form_urlencoded::byte_serialize(address.as_bytes()).collect();
        let path = format!("ui/explain?url={query}");
        send("GET", &larder.url(&path), &headers).await.json()
    };
    for address in [
        "files/dir/a.bin",
        "/api/v1/remote/files/dir/a.bin",
        &larder.artifact("files", "dir/a.bin"),
        "https://larder.example.com/cache/api/v1/remote/files/dir/a.bin?x=y",
        &origin.url("/dir/a.bin"),
    ] {
        let shown = asked(address).await;
        let explained = &shown["explained"];
        assert_eq!(explained["repository"], "files", "{address}: {shown}");
        assert_eq!(explained["path"], "dir/a.bin", "{address}");
        let steps = explained["steps"].as_array().expect("steps");
        let pattern = steps.iter().find(|step| step["name"] == "Pattern");
        let pattern = pattern.expect("the pattern's step");
        assert_eq!(pattern["value"], "\\.bin$", "{address}");
        let line = pattern["line"].as_str().expect("a line of the file");
        assert!(line.contains("larder.yaml:"), "{line}");
    }
    for address in ["https://elsewhere.example.net/x", "nobody/x", "%%%"] {
        let shown = asked(address).await;
        assert!(shown["explained"].is_null(), "{address}: {shown}");
        assert!(shown["refused"].is_string(), "{address}");
    }
}

#[tokio::test]
async fn what_was_counted_and_refused_is_shown() {
    let (_origin, larder) = with_a_file().await;
    for _ in 0..3 {
        get(&larder.artifact("files", "dir/a.bin")).await;
    }
    assert_eq!(
        get(&larder.artifact("files", "tools/setup.exe"))
            .await
            .status,
        403
    );
    let shown = json(&larder, "ui/repositories/files").await;
    assert_eq!(shown["facts"]["requests"], 4);
    let refused = &shown["refused"][0];
    assert_eq!(refused["examples"][0], "tools/setup.exe");
    let pattern = refused["pattern"].as_str().expect("a pattern");
    assert!(
        regex::Regex::new(pattern)
            .expect("one")
            .is_match("tools/setup.exe")
    );
    assert_eq!(refused["add_to"][0], "immutable_patterns");
    for path in ["ui/", "ui/repositories/files"] {
        let shown = json(&larder, path).await;
        for trend in shown["trends"]["rows"].as_array().expect("rows") {
            let points = |span: &str| trend[span].as_array().expect("points").len();
            assert_eq!((points("day"), points("month")), (288, 360), "{trend}");
        }
    }
    let text = page(&larder, "ui/repositories/files").await.text();
    assert!(text.contains("tools/setup.exe") && text.contains("<svg class=\"spark\""));
}

/// Folders may be called like larder's own roots, and like repositories.
#[tokio::test]
async fn what_a_path_has_in_it_is_neither_a_root_nor_a_repository() {
    let origin = Origin::start().await;
    let config = format!(
        "auth: {{ admin_token: {TOKEN} }}\nremotes:\n  gen: {{ package: generic, base_url: '{}' }}\n  h2: {{ package: helm, base_url: '{}' }}\n  \
         np: {{ package: npm, base_url: '{}' }}\n  dk: {{ package: docker, base_url: '{}' }}\n",
        origin.url("/gen"),
        origin.url("/helm"),
        origin.url("/npm"),
        origin.url("/")
    );
    let larder = TestLarder::start(&config).await;
    let visitor = sign_in(&larder).await;
    let headers = [("accept", "application/json"), ("cookie", &*visitor.cookie)];
    for (address, repository, path) in [
        ("gen/v2/h2/index.yaml", "gen", "v2/h2/index.yaml"),
        ("gen/foo-v2/h2/x", "gen", "foo-v2/h2/x"),
        ("/gen/v2/manual.pdf", "gen", "v2/manual.pdf"),
        ("gen/api/v1/remote/h2/x", "gen", "api/v1/remote/h2/x"),
        ("np/@sc/v2/-/v2-1.0.0.tgz", "np", "@sc/v2/-/v2-1.0.0.tgz"),
        (
            "/v2/dk/library/app/manifests/1",
            "dk",
            "library/app/manifests/1",
        ),
        ("/api/v1/virtual/h2/index.yaml", "h2", "index.yaml"),
        (
            &*larder.artifact("gen", "v2/h2/index.yaml"),
            "gen",
            "v2/h2/index.yaml",
        ),
        (
            &*larder.url("v2/dk/team/app/manifests/1"),
            "dk",
            "team/app/manifests/1",
        ),
        (
            "https://proxy.example.com/x/api/v1/remote/gen/v2/a",
            "gen",
            "v2/a",
        ),
        (&*origin.url("/gen/v2/a.txt"), "gen", "v2/a.txt"),
        (&*origin.url("/helm/v2/a.tgz"), "h2", "v2/a.tgz"),
        (
            &*origin.url("/v2/library/app/manifests/1"),
            "dk",
            "library/app/manifests/1",
        ),
    ] {
        let query: String = url::form_urlencoded::byte_serialize(address.as_bytes()).collect();
        let page = larder.url(&format!("ui/explain?url={query}"));
        let shown = send("GET", &page, &headers).await.json();
        let explained = &shown["explained"];
        assert_eq!(explained["repository"], repository, "{address}: {shown}");
        assert_eq!(explained["path"], path, "{address}");
        let api = larder.url(&format!("api/v1/explain/{repository}/{path}"));
        let bearer = format!("Bearer {TOKEN}");
        let api = send("GET", &api, &[("authorization", &bearer)])
            .await
            .json();
        assert_eq!(api["path"], path, "{address}: {api}");
    }
    for address in [
        larder.url("v2/gen/a.txt"),
        larder.url("foo/v2/dk/library/app"),
        "https://elsewhere.example.net/foo-v2/dk/x".to_owned(),
        "foo/v2/dk/x".to_owned(),
    ] {
        let query: String = url::form_urlencoded::byte_serialize(address.as_bytes()).collect();
        let page = larder.url(&format!("ui/explain?url={query}"));
        let shown = send("GET", &page, &headers).await.json();
        assert!(shown["refused"].is_string(), "{address}: {shown}");
    }
}

/// Images are found by whatever leads clients to them, and what is keyed by a query is explained by it.
#[tokio::test]
async fn addresses_are_explained_as_they_are_served() {
    let origin = Origin::start().await;
    for target in ["/gen/list?page=1", "/gen/list"] {
        origin.put(target, Resource::new(target));
    }
    let packument = Resource::new(r#"{"name":"jam","versions":{}}"#);
    origin.put("/npm/jam", packument.content_type("application/json"));
    let config = format!(
        "auth: {{ admin_token: {TOKEN} }}\ndocker_default_remote: dk\nremotes:\n  gen: {{ package: generic, base_url: '{}' }}\n  \
         np: {{ package: npm, base_url: '{}' }}\n  dk: {{ package: docker, base_url: '{}' }}\n  \
         other: {{ package: docker, base_url: 'https://registry.example.com' }}\n",
        origin.url("/gen"),
        origin.url("/npm"),
        origin.url("/")
    );
    let larder = TestLarder::start(&config).await;
    let visitor = sign_in(&larder).await;
    let asked = async |accept: &str, address: &str| {
        let query: String = url::form_urlencoded::byte_serialize(address.as_bytes()).collect();
        let path = larder.url(&format!("ui/explain?url={query}"));
        let headers = [("accept", accept), ("cookie", &*visitor.cookie)];
        send("GET", &path, &headers).await
    };
    for (address, repository, path) in [
        (
            "/v2/library/odd/manifests/1",
            "dk",
            "library/odd/manifests/1",
        ),
        (&*larder.url("v2/odd/manifests/1"), "dk", "odd/manifests/1"),
        ("/v2/other/a/manifests/1", "other", "a/manifests/1"),
        ("/other/v2/a/manifests/1", "other", "a/manifests/1"),
        (&*larder.url("dk/v2/a/manifests/1"), "dk", "a/manifests/1"),
        (
            &*larder.url("v2/a/b/manifests/1?ns=registry.example.com"),
            "other",
            "a/b/manifests/1",
        ),
    ] {
        let shown = asked("application/json", address).await.json();
        let explained = &shown["explained"];
        assert_eq!(explained["repository"], repository, "{address}: {shown}");
        assert_eq!(explained["path"], path, "{address}");
    }
    let list = larder.artifact("gen", "list");
    assert_eq!(get(&format!("{list}?page=1")).await.status, 200);
    let short = [("accept", "application/vnd.npm.install-v1+json")];
    let packument = larder.artifact("np", "jam");
    assert_eq!(send("GET", &packument, &short).await.status, 200);
    larder.until_idle().await;
    for (address, verdict) in [
        ("gen/list?page=1", "serve"),
        (&*format!("{list}?page=1"), "serve"),
        ("gen/list?page=2", "fetch"),
        ("gen/list", "fetch"),
        // In the form that is held.
        ("np/jam", "serve"),
    ] {
        let text = asked(BROWSER, address).await.text();
        assert!(text.contains(&format!("{verdict}: ")), "{address}: {text}");
    }
    let of = json(&larder, "ui/repositories/np/artifact/jam").await;
    let verdict = of["verdict"].as_str().expect("a verdict");
    assert!(verdict.starts_with("serve: "), "{verdict}");
}

#[tokio::test]
async fn the_page_of_signing_in_leads_where_it_was_asked_for() {
    let (_origin, larder) = with_a_file().await;
    for (asked, leads) in [
        ("ui/login", "%2Fui%2F"),
        ("ui/login?to=%2Fui%2Fjobs", "%2Fui%2Fjobs"),
        ("ui/login?to=%2Fui%2F%252e%252e%2Fapi", "%2Fui%2F"),
        ("ui/jobs", "%2Fui%2Fjobs"),
    ] {
        let text = page(&larder, asked).await.text();
        let link = format!("/ui/login?to={leads}\"");
        assert!(text.contains(&link), "{asked}: {text}");
    }
    let fields = [
        ("token", TOKEN),
        ("to", "/ui/%2e%2e/api/v1/remote/files/dir/a.bin"),
    ];
    let answer = form(&larder, "ui/login", &fields, &[]).await;
    assert_eq!((answer.status, answer.header("location")), (303, "../ui/"));
}

/// What is configured and cannot be served has a page that says so, and no link that ends in an error.
#[tokio::test]
async fn what_is_not_served_has_a_page_and_no_dead_links() {
    let origin = Origin::start().await;
    let larder = TestLarder::start(&format!(
        "remotes:\n  wheels: {{ package: pypi, base_url: '{}' }}\n  uploads: {{ type: local, package: pypi }}\n  \
         all: {{ type: virtual, package: pypi, members: [wheels] }}\n",
        origin.url("/")
    ))
    .await;
    for name in ["uploads", "all"] {
        let address = format!("ui/repositories/{name}");
        let text = page(&larder, &address).await.text();
        assert!(text.contains("Not served: "), "{text}");
        assert_eq!(
            json(&larder, &address).await["repository"]["state"],
            "not served"
        );
        for link in text.split("href=\"").skip(1) {
            let link = link.split('"').next().expect("its end");
            let Some(below) = link.strip_prefix("../../ui/") else {
                continue;
            };
            let answer = page(&larder, &format!("ui/{below}")).await;
            assert!(answer.status < 500, "{name}: {below}: {}", answer.status);
        }
    }
    let form = json(&larder, "ui/search").await;
    assert_eq!(form["repositories"], serde_json::json!(["wheels"]));
}

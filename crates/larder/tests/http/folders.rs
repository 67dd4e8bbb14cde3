//! Folders of generic repositories (contract, section 3, "Folders and roots"): a path that ends in a slash, and what a redirect to such a path
//! gave, is mutable, and the redirect is passed on.

use std::process::Command;
use std::time::{Duration, SystemTime};

use larder_testkit::{Origin, Resource};

use crate::support::packages::{entry, remote};
use crate::support::{Setup, TestLarder, get, send};

const ALWAYS: &str = "cache: { mutable_ttl: 0 }";

fn leads_to(location: &str, status: u16) -> Resource {
    Resource::new("moved")
        .status(status)
        .header("Location", location)
}

fn listing(body: &'static str) -> Resource {
    Resource::new(body).content_type("text/html; charset=utf-8")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_ends_in_a_slash_is_mutable_whatever_the_patterns_say() {
    let origin = Origin::start().await;
    origin.put("/dir/", listing("one"));
    origin.put("/dir/x.tgz", Resource::new("file"));
    let larder = TestLarder::start(&remote(
        "generic",
        &origin,
        &format!("{ALWAYS}\nimmutable_patterns: ['\\.tgz$']"),
    ))
    .await;
    let folder = larder.artifact("generic", "dir/");
    assert_eq!(get(&folder).await.text(), "one");
    origin.put("/dir/", listing("two"));
    let answer = get(&folder).await;
    assert_eq!((answer.text().as_str(), answer.source()), ("two", "remote"));
    assert!(
        !answer.header("cache-control").contains("immutable"),
        "{:?}",
        answer.headers
    );
    // A slash behind a file's name opens no way around the patterns, and what they do not name stays closed.
    for (path, status) in [("dir/x.tgz", 200), ("dir/x.tgz/", 403), ("dir/x.exe", 403)] {
        assert_eq!(
            get(&larder.artifact("generic", path)).await.status,
            status,
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_kept_for_mutable_ttl_and_outlives_its_upstream() {
    let mut origin = Origin::start().await;
    origin.put("/dir/", Resource::new("one"));
    origin.put("/dir", leads_to("/dir/", 301));
    let larder =
        TestLarder::start(&remote("generic", &origin, "cache: { mutable_ttl: 600 }")).await;
    let (folder, bare) = (
        larder.artifact("generic", "dir/"),
        larder.artifact("generic", "dir"),
    );
    get(&folder).await;
    assert_eq!(larder.hit(&folder).await.text(), "one");
    assert_eq!(get(&bare).await.status, 301);
    let kept = larder.hit(&bare).await;
    assert_eq!(
        (kept.status, kept.header("location")),
        (301, "/api/v1/remote/generic/dir/")
    );
    assert!(
        kept.header("cache-control").contains("max-age="),
        "{:?}",
        kept.headers
    );
    assert!(
        !kept.header("cache-control").contains("immutable"),
        "{:?}",
        kept.headers
    );
    origin.stop().await;
    assert_eq!(get(&bare).await.status, 301);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_a_folder_is_passed_on_with_its_status_and_query() {
    let origin = Origin::start().await;
    origin.put("/dir/", Resource::new("listing"));
    origin.put("/1.2/", Resource::new("listing of 1.2"));
    let larder = TestLarder::start(&remote("generic", &origin, ALWAYS)).await;
    for status in [301, 302, 303, 307, 308] {
        origin.put("/dir", leads_to("/dir/?C=M&O=D", status));
        for method in ["GET", "HEAD"] {
            let answer = send(method, &larder.artifact("generic", "dir"), &[]).await;
            let expected = "/api/v1/remote/generic/dir/?C=M&O=D";
            assert_eq!(
                (answer.status, answer.header("location"), answer.body.len()),
                (status, expected, 0),
                "{method}"
            );
        }
    }
    // Another folder, an absolute address, and a file behind the folder.
    origin.put("/latest", leads_to(&origin.url("/1.2/"), 302));
    assert_eq!(
        get(&larder.artifact("generic", "latest"))
            .await
            .header("location"),
        "/api/v1/remote/generic/1.2/"
    );
    origin.put("/docs", leads_to("docs/", 301));
    origin.put("/docs/", leads_to("index.html", 302));
    origin.put("/docs/index.html", Resource::new("the index"));
    assert_eq!(
        get(&larder.artifact("generic", "docs"))
            .await
            .header("location"),
        "/api/v1/remote/generic/docs/"
    );
    assert_eq!(
        get(&larder.artifact("generic", "docs/")).await.text(),
        "the index"
    );
    // A range is of a body, and there is none.
    let ranged = send(
        "GET",
        &larder.artifact("generic", "latest"),
        &[("Range", "bytes=0-1")],
    )
    .await;
    assert_eq!(
        (ranged.status, ranged.header("location")),
        (302, "/api/v1/remote/generic/1.2/")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_a_folder_may_become_a_file_and_the_other_way_round() {
    let origin = Origin::start().await;
    origin.put("/a/", Resource::new("listing"));
    origin.put("/a", leads_to("/a/", 301));
    let larder = TestLarder::start(&remote(
        "generic",
        &origin,
        &format!("{ALWAYS}\nmutable_patterns: ['^a$']"),
    ))
    .await;
    let url = larder.artifact("generic", "a");
    assert_eq!(get(&url).await.status, 301);
    origin.put("/a", Resource::new("a file"));
    let file = get(&url).await;
    assert_eq!(
        (file.status, file.text().as_str(), file.header("location")),
        (200, "a file", "")
    );
    origin.put("/a", leads_to("/a/", 301));
    assert_eq!(get(&url).await.status, 301);
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_to_files_and_to_other_hosts_are_followed_as_ever() {
    let (origin, other) = (Origin::start().await, Origin::start().await);
    other.put("/mirror/dir/", Resource::new("one"));
    origin.put("/file", leads_to("/real/file", 302));
    origin.put("/real/file", Resource::new("bytes"));
    origin.put("/dir", leads_to(&other.url("/mirror/dir/"), 302));
    let keys = format!("{ALWAYS}\nallow_private: ['127.0.0.0/8']");
    let larder = TestLarder::start(&remote("generic", &origin, &keys)).await;
    let file = get(&larder.artifact("generic", "file")).await;
    assert_eq!((file.status, file.text().as_str()), (200, "bytes"));
    assert!(
        file.header("cache-control").contains("immutable"),
        "{:?}",
        file.headers
    );
    // A folder elsewhere has no address below the repository; it changes all the same.
    let folder = get(&larder.artifact("generic", "dir")).await;
    assert_eq!((folder.status, folder.text().as_str()), (200, "one"));
    other.put("/mirror/dir/", Resource::new("two"));
    assert_eq!(get(&larder.artifact("generic", "dir")).await.text(), "two");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_below_a_path_and_larder_below_one() {
    let origin = Origin::start().await;
    origin.put("/pub/dir/", Resource::new("listing"));
    origin.put("/pub/dir", leads_to("/pub/dir/", 301));
    origin.put("/pub/out", leads_to("/elsewhere/", 301));
    origin.put("/elsewhere/", Resource::new("elsewhere"));
    let config = format!(
        "remotes:\n  files:\n    package: generic\n    base_url: '{}'\n",
        origin.url("/pub")
    );
    let larder = Setup::new(&config)
        .env("LARDER_PUBLIC_URL", "https://larder.example.com/cache")
        .start()
        .await;
    let answer = get(&larder.artifact("files", "dir")).await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (301, "/cache/api/v1/remote/files/dir/")
    );
    assert_eq!(
        get(&larder.artifact("files", "out")).await.text(),
        "elsewhere"
    );
}

/// Quarantine is for artifacts; a listing is none (contract, section 5: index pages stay available).
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_not_held_back() {
    let origin = Origin::start().await;
    let now = crate::artifacts::httpdate(
        SystemTime::UNIX_EPOCH + Duration::from_secs(crate::artifacts::now_seconds()),
    );
    origin.put("/dir/", listing("listing").last_modified(&now));
    origin.put("/dir", leads_to("/dir/", 301));
    origin.put("/dir/new.tgz", Resource::new("new").last_modified(&now));
    // Not every path that ends in a slash is a folder: what is fetched from another host is what its own path says.
    let other = Origin::start().await;
    other.put(
        "/get/?file=new.tgz",
        Resource::new("new").last_modified(&now),
    );
    origin.put("/new.tgz", leads_to(&other.url("/get/?file=new.tgz"), 302));
    let keys = "quarantine_new: true\nquarantine_days: 3\nallow_private: ['127.0.0.0/8']";
    let larder = TestLarder::start(&remote("generic", &origin, keys)).await;
    for (path, status) in [
        ("dir/", 200),
        ("dir", 301),
        ("dir", 301),
        ("dir/new.tgz", 404),
        ("new.tgz", 404),
        ("new.tgz", 404),
    ] {
        assert_eq!(
            get(&larder.artifact("generic", path)).await.status,
            status,
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_mirror_s_redirect_is_passed_on_too() {
    let (mut down, up) = (Origin::start().await, Origin::start().await);
    up.put("/dir/", Resource::new("listing"));
    up.put("/dir", leads_to("/dir/", 301));
    let config = format!(
        "remotes:\n  files:\n    package: generic\n    base_url: ['{}', '{}']\n    cache: {{ mutable_ttl: 0 }}\n",
        down.url("/"),
        up.url("/")
    );
    let larder = TestLarder::start(&config).await;
    down.stop().await;
    let answer = get(&larder.artifact("files", "dir")).await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (301, "/api/v1/remote/files/dir/")
    );
}

fn has(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
}

#[tokio::test(flavor = "multi_thread")]
async fn relative_links_of_listings_work_for_curl_and_wget() {
    let origin = Origin::start().await;
    origin.put("/dir", leads_to("/dir/", 301));
    origin.put(
        "/dir/",
        Resource::new("<a href=\"../\">..</a> <a href=\"a.txt\">a</a> <a href=\"sub\">sub</a>")
            .content_type("text/html"),
    );
    origin.put("/dir/a.txt", Resource::new("a"));
    origin.put("/dir/sub", leads_to("/dir/sub/", 301));
    origin.put(
        "/dir/sub/",
        Resource::new("<a href=\"b.txt\">b</a>").content_type("text/html"),
    );
    origin.put("/dir/sub/b.txt", Resource::new("b"));
    let larder = TestLarder::start(&format!(
        "remotes:\n{}",
        entry("files", "generic", &origin, "")
    ))
    .await;
    let url = larder.artifact("files", "dir");
    let home = larder.home().join("fetched");
    std::fs::create_dir_all(&home).expect("a directory");
    if has("curl") {
        let mut curl = Command::new("curl");
        curl.args([
            "-q",
            "-fsSL",
            "-o",
            "/dev/null",
            "-w",
            "%{url_effective}",
            &url,
        ])
        .env_remove("http_proxy");
        let output = tokio::task::spawn_blocking(move || curl.output())
            .await
            .expect("a task")
            .expect("curl");
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            larder.artifact("files", "dir/"),
            "{output:?}"
        );
    }
    if has("wget") {
        let mut wget = Command::new("wget");
        wget.args([
            "--no-config",
            "--no-proxy",
            "-q",
            "-r",
            "-np",
            "-nH",
            "-e",
            "robots=off",
            &url,
        ])
        .current_dir(&home);
        let output = tokio::task::spawn_blocking(move || wget.output())
            .await
            .expect("a task")
            .expect("wget");
        let read = |path: &str| {
            std::fs::read_to_string(home.join("api/v1/remote/files").join(path)).unwrap_or_default()
        };
        assert_eq!(
            (read("dir/a.txt").as_str(), read("dir/sub/b.txt").as_str()),
            ("a", "b"),
            "{output:?}"
        );
    }
}

/// The root is a folder as any other.
#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_the_upstream_s_root_is_passed_on() {
    let origin = Origin::start().await;
    origin.put("/root/", listing("the root"));
    origin.put("/root/deep/old", leads_to("/root/", 301));
    let config = remote("generic", &origin, ALWAYS);
    let larder = TestLarder::start(&config.replace(&origin.url("/"), &origin.url("/root/"))).await;
    let answer = get(&larder.artifact("generic", "deep/old")).await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (301, "/api/v1/remote/generic/"),
        "{}",
        answer.text()
    );
    let root = get(&larder.artifact("generic", "")).await;
    assert_eq!(root.text(), "the root");
}

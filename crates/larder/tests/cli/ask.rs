//! Commands that ask a running larder: what they print for people and for programs, and what they say where they are refused.

use larder_testkit::{Origin, Resource};

use crate::run;
use crate::support::packages::entry;
use crate::support::{PATIENCE, Setup, TestLarder, get};

const TOKEN: &str = "a-token-of-the-admin";

async fn start(origin: &Origin) -> TestLarder {
    let keys = "deny_patterns: ['\\.exe$']";
    let config = format!(
        "auth: {{admin_token: '{TOKEN}'}}\nremotes:\n{}{}",
        entry("a", "generic", origin, keys),
        entry("b", "generic", origin, "")
    );
    Setup::new(&config).start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn rm_and_flush_make_larder_fetch_anew() {
    let origin = Origin::start().await;
    for path in ["/one.txt", "/two.txt", "/three.bin"] {
        origin.put(path, Resource::new(path));
    }
    let larder = start(&origin).await;
    let server = larder.url("/");
    let home = tempfile::tempdir().expect("a directory");
    let env = [("LARDER_URL", server.as_str()), ("LARDER_TOKEN", TOKEN)];
    let urls = ["one.txt", "two.txt", "three.bin"].map(|path| larder.artifact("a", path));
    for url in &urls {
        assert_eq!(get(url).await.status, 200);
        larder.hit(url).await;
    }
    let said = run(home.path(), &["rm", "a/one.txt", "--json"], &env)
        .await
        .ok();
    assert_eq!(said, "{\"removed\":\"a/one.txt\"}\n");
    assert_eq!(get(&urls[0]).await.source(), "remote");
    run(home.path(), &["rm", "a/none.txt"], &env)
        .await
        .refused(1, &["nothing to flush"]);

    let said = run(
        home.path(),
        &["flush", "a", "--pattern", "\\.txt$", "--type", "files"],
        &env,
    );
    let said = said.await.ok();
    let files: Vec<&str> = said
        .lines()
        .filter(|line| line.starts_with("files"))
        .collect();
    assert!(files.len() == 1 && files[0].ends_with(" 2"), "{said}");
    assert_eq!(get(&urls[1]).await.source(), "remote");
    assert_eq!(get(&urls[2]).await.source(), "cache");
    let said = run(home.path(), &["flush", "--all", "--json"], &env)
        .await
        .ok();
    let said: serde_json::Value = serde_json::from_str(&said).expect("one object");
    assert!(said["flushed"]["files"].is_u64(), "{said}");

    for (arguments, words) in [
        (&["flush"][..], "REPO"),
        (&["flush", "a", "--all"], "--all"),
        (&["flush", "a", "--type", "some"], "--type"),
        (&["rm", "a"], "REPO/PATH"),
        (&["get", "a/../b/x"], ".."),
        (
            &["get", "http://elsewhere.example.com/api/v1/remote/a/x"],
            "--server",
        ),
        (&["get", "a/dir/"], "--output"),
        (&["get", "a/x", "--sha256", "beef"], "--sha256"),
    ] {
        run(home.path(), arguments, &env).await.refused(2, &[words]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_takes_paths_and_urls() {
    let origin = Origin::start().await;
    let larder = start(&origin).await;
    let server = larder.url("/");
    let home = tempfile::tempdir().expect("a directory");
    let env = [("LARDER_URL", server.as_str()), ("LARDER_TOKEN", TOKEN)];
    for place in ["a/setup.exe", &larder.artifact("a", "setup.exe")] {
        let said = run(home.path(), &["explain", place], &env).await.ok();
        let verdict = said
            .lines()
            .find(|line| line.starts_with("verdict"))
            .expect("a verdict");
        assert!(verdict.contains("deny"), "{said}");
        assert!(
            said.contains("remotes.a.deny_patterns") && said.contains("larder.yaml:"),
            "{said}"
        );
        assert!(!said.contains('\u{1b}'), "{said:?}");
    }
    let said = run(home.path(), &["explain", "a/x", "--json"], &env)
        .await
        .ok();
    let said: serde_json::Value = serde_json::from_str(&said).expect("one object");
    assert_eq!(said["path"], "x");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_what_to_do_and_no_secret() {
    let origin = Origin::start().await;
    let larder = start(&origin).await;
    let server = larder.url("/");
    let home = tempfile::tempdir().expect("a directory");
    let url = ("LARDER_URL", server.as_str());
    for arguments in [&["flush", "a"][..], &["explain", "a/x"], &["rm", "a/x"]] {
        let done = run(home.path(), arguments, &[url]).await;
        done.refused(1, &["LARDER_TOKEN", "--token-file"]);
        let wrong = ("LARDER_TOKEN", "canary-canary-canary");
        let done = run(home.path(), arguments, &[url, wrong]).await;
        done.refused(1, &["was refused"]);
        assert!(!done.err.contains("canary"), "{done:?}");
    }
    for arguments in [
        &["get", "c/x"][..],
        &["rm", "c/x"],
        &["ls", "c"],
        &["du", "c"],
    ] {
        let env = [url, ("LARDER_TOKEN", TOKEN)];
        run(home.path(), arguments, &env)
            .await
            .refused(1, &["c", "a, b"]);
    }
    // An option that there is not, for good reasons, and a password in an address.
    for arguments in [
        &["ls", "--token", "canary"][..],
        &["ls", "--token=canary"],
        &["ls", "--server", "ftp://user:canary@larder.example.com"],
        &["get", "http://user:canary@larder.example.com/x?canary"],
        &["get", "a/x", "--server", "http://user:canary@127.0.0.1:1/"],
    ] {
        let done = run(home.path(), arguments, &[]).await;
        assert!(done.code == Some(2) || done.code == Some(1), "{done:?}");
        assert!(
            !done.err.contains("canary") && done.out.is_empty(),
            "{done:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_is_named_by_its_name_or_its_url_alone() {
    let origin = Origin::start().await;
    origin.put("/dir/one.txt", Resource::new("one"));
    let larder = start(&origin).await;
    let server = larder.url("/");
    let home = tempfile::tempdir().expect("a directory");
    let env = [("LARDER_URL", server.as_str()), ("LARDER_TOKEN", TOKEN)];
    let file = larder.artifact("a", "dir/one.txt");
    assert_eq!(get(&file).await.status, 200);
    larder.hit(&file).await;
    // A hit may be answered before the list has the record.
    let list = larder.url("api/v1/artifacts/a");
    let began = std::time::Instant::now();
    while !get(&list).await.text().contains("dir/one.txt") {
        assert!(began.elapsed() < PATIENCE, "it is not listed");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let root = larder.artifact("a", "");
    let folder = larder.artifact("a", "dir/");
    let none = larder.artifact("a", "other/");
    for (place, is_there) in [
        ("a", true),
        ("a/", true),
        (root.trim_end_matches('/'), true),
        (&root, true),
        (&folder, true),
        (&none, false),
    ] {
        let listed = run(home.path(), &["ls", place], &env).await.ok();
        assert_eq!(listed.ends_with("  a/dir/one.txt\n"), is_there, "{place}");
    }
    for place in ["a", "a/", &root] {
        let said = run(home.path(), &["du", place], &env).await.ok();
        assert!(said.contains("1 files"), "{said}");
    }
    for arguments in [["du", &folder], ["flush", &folder], ["flush", "a/dir"]] {
        let done = run(home.path(), &arguments, &env).await;
        done.refused(2, &["\"a/dir", "alone"]);
    }
    let said = run(home.path(), &["flush", &root], &env).await.ok();
    let files = said.lines().find(|line| line.starts_with("files"));
    assert!(files.is_some_and(|line| line.ends_with(" 1")), "{said}");
    for arguments in [
        ["ls", ".."],
        ["ls", "."],
        ["ls", "../x"],
        ["du", ".."],
        ["du", "."],
    ] {
        let done = run(home.path(), &arguments, &env).await;
        done.refused(1, &["no repository", "a, b"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_reads_json_gets_some_of_a_wrong_command_line_too() {
    let home = tempfile::tempdir().expect("a directory");
    for arguments in [
        &["scrub", "--rate", "x", "--json"][..],
        &["ls", "--json", "--name", "x"],
        &["put", "-", "--json"],
        &["flush", "--json"],
    ] {
        let done = run(home.path(), arguments, &[]).await;
        assert_eq!(done.code, Some(2), "{done:?}");
        let told: serde_json::Value = serde_json::from_str(&done.out).expect("one object");
        let error = told["error"].as_str().expect("a text");
        assert!(!error.is_empty() && done.err.contains(error), "{done:?}");
    }
    // Standard output is for the file.
    let get = ["get", "a/x", "--json", "-o", "-", "--nothing"];
    run(home.path(), &get, &[]).await.refused(2, &["--nothing"]);
    let help = run(home.path(), &["ls", "--json", "--help"], &[])
        .await
        .ok();
    assert!(help.contains("Usage:"), "{help}");
}

//! What is held: `GET /api/v1/artifacts` (contract, section 9 has its shape), `larder du`, `larder ls`, and the gauges.

use std::collections::BTreeSet;
use std::process::{Command, Output};
use std::time::Instant;

use larder_core::sha256;
use larder_testkit::{Origin, Resource};
use serde_json::Value;

use crate::support::packages::{File, entry, npm};
use crate::support::{PATIENCE, TestLarder, get};

/// Two generic repositories that share a file, and one of npm with a document and a tarball.
async fn filled() -> (Origin, TestLarder) {
    let origin = Origin::start().await;
    let tarball = npm(
        &origin,
        "shelf",
        &[File::generated("shelf", "1.0.0", 3_000, 1)],
    )
    .concat();
    for path in ["dir/a.tgz", "dir/b.tgz", "z.txt"] {
        origin.put(&format!("/{path}"), Resource::new(format!("{path:>100}")));
    }
    origin.put("/signed?token=s3cret", Resource::new("signed"));
    let config = [
        entry("a", "generic", &origin, ""),
        entry("b", "generic", &origin, ""),
        entry("npm", "npm", &origin, ""),
    ];
    let larder = TestLarder::start(&format!("remotes:\n{}", config.concat())).await;
    for (repository, path) in [
        ("a", "dir/a.tgz"),
        ("a", "dir/b.tgz"),
        ("a", "z.txt"),
        ("a", "signed?token=s3cret"),
        ("b", "z.txt"),
        ("npm", "shelf"),
        ("npm", &tarball),
    ] {
        let url = larder.artifact(repository, path);
        assert_eq!(get(&url).await.status, 200, "{url}");
        larder.hit(&url).await;
    }
    for (repository, fills) in [("a", 4.0), ("b", 1.0), ("npm", 2.0)] {
        larder
            .until_metric("larder_repository_fills_committed_total", repository, fills)
            .await;
    }
    // What is not there is not held.
    get(&larder.artifact("b", "absent")).await;
    (origin, larder)
}

async fn list(larder: &TestLarder, target: &str) -> Value {
    let answer = get(&larder.url(&format!("api/v1/artifacts{target}"))).await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, "application/json"),
        "{target}: {}",
        answer.text()
    );
    answer.json()
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name]
        .as_str()
        .unwrap_or_else(|| panic!("no text {name}: {value}"))
}

fn number(value: &Value, name: &str) -> u64 {
    value[name]
        .as_u64()
        .unwrap_or_else(|| panic!("no number {name}: {value}"))
}

fn names(page: &Value) -> Vec<String> {
    let artifacts = page["artifacts"].as_array().expect("artifacts");
    artifacts
        .iter()
        .map(|one| format!("{}/{}", text(one, "repository"), text(one, "path")))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_held_artifact_with_size_digest_and_times() {
    let (_origin, larder) = filled().await;
    let page = list(&larder, "").await;
    let expected = [
        "a/dir/a.tgz",
        "a/dir/b.tgz",
        "a/signed",
        "a/z.txt",
        "b/z.txt",
        "npm/shelf",
        "npm/shelf/-/shelf-1.0.0.tgz",
    ];
    assert_eq!(
        names(&page),
        expected,
        "documents as they came; what is derived from them is none of these"
    );
    assert_eq!(page["next"], Value::Null);
    let first = &page["artifacts"][0];
    let keys: BTreeSet<&str> = first
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        keys,
        [
            "repository",
            "path",
            "size",
            "sha256",
            "cached",
            "cached_at",
            "fresh_until"
        ]
        .into()
    );
    assert_eq!(
        (first["size"].as_u64(), first["cached"].as_bool()),
        (Some(100), Some(true))
    );
    assert_eq!(
        first["sha256"],
        sha256(format!("{:>100}", "dir/a.tgz").as_bytes()).to_hex()
    );
    assert_eq!(
        first["fresh_until"],
        Value::Null,
        "immutable_ttl 0 is for ever"
    );
    let document = &page["artifacts"][5];
    let (at, until) = (text(document, "cached_at"), text(document, "fresh_until"));
    assert!(
        at.ends_with('Z') && until.ends_with('Z') && at < until,
        "{at} {until}"
    );
    assert!(
        !page.to_string().contains("s3cret"),
        "queries may be secrets"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_and_pages() {
    let (_origin, larder) = filled().await;
    for (target, expected) in [
        ("/b", &["b/z.txt"][..]),
        ("/a?pattern=%5C.tgz%24", &["a/dir/a.tgz", "a/dir/b.tgz"]),
        ("?pattern=%5Ez", &["a/z.txt", "b/z.txt"]),
        ("/a?pattern=s3cret", &[]),
        ("/a?cached=false", &[]),
        ("/b?cached=true&limit=5000&source=held", &["b/z.txt"]),
    ] {
        assert_eq!(names(&list(&larder, target).await), expected, "{target}");
    }
    for limit in [1, 2, 3] {
        let (mut all, mut target) = (Vec::new(), format!("?limit={limit}"));
        loop {
            let page = list(&larder, &target).await;
            assert!(names(&page).len() <= limit);
            all.extend(names(&page));
            let Some(next) = page["next"].as_str() else {
                break;
            };
            assert!(!next.contains("s3cret"));
            target = format!("?limit={limit}&cursor={next}");
        }
        assert_eq!(all, names(&list(&larder, "").await), "limit {limit}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_malformed_or_unknown() {
    let (_origin, larder) = filled().await;
    for (target, status) in [
        ("?limit=0", 400),
        ("?limit=x", 400),
        ("?cursor=x", 400),
        ("?cached=maybe", 400),
        ("?pattern=(", 400),
        ("?patern=a", 400),
        ("/nobody", 404),
        ("?source=upstream", 400),
        ("/a?source=upstream", 501),
        ("/npm?source=upstream&summary=true", 400),
    ] {
        let answer = get(&larder.url(&format!("api/v1/artifacts{target}"))).await;
        assert_eq!(answer.status, status, "{target}: {}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_whose_row_is_gone_goes_on_behind_it() {
    let (_origin, larder) = filled().await;
    let page = list(&larder, "/a?limit=1").await;
    let next = page["next"].as_str().expect("a next page").to_owned();
    assert_eq!(
        crate::support::send("DELETE", &larder.artifact("a", "dir/a.tgz"), &[])
            .await
            .status,
        204
    );
    let rest = list(&larder, &format!("/a?cursor={next}")).await;
    assert_eq!(names(&rest), ["a/dir/b.tgz", "a/signed", "a/z.txt"]);
}

/// Whatever is added between two pages: what was there is listed, and nothing twice.
#[tokio::test(flavor = "multi_thread")]
async fn pages_over_five_thousand_files_while_files_are_added() {
    const FILES: usize = 5_000;
    let origin = Origin::start().await;
    let larder =
        TestLarder::start(&format!("remotes:\n{}", entry("a", "generic", &origin, ""))).await;
    let client = crate::support::client::client();
    let fetch = async |path: String| {
        origin.put(&format!("/{path}"), Resource::new("x"));
        let url = larder.artifact("a", &path);
        let answer = client.get(&url).send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "{url}");
        answer.bytes().await.expect("a body");
    };
    let paths: Vec<String> = (0..FILES).map(|number| format!("f/{number:04}")).collect();
    for some in paths.chunks(50) {
        futures_util::future::join_all(some.iter().map(|path| fetch(path.clone()))).await;
    }
    let fills = "larder_repository_fills_committed_total";
    larder.until_metric(fills, "a", FILES as f64).await;
    let (mut listed, mut target, mut added) = (Vec::new(), "?limit=100".to_owned(), 0);
    loop {
        let page = list(&larder, &target).await;
        listed.extend(names(&page));
        // Before, at and behind the place where the next page begins.
        for place in [0, listed.len() / 2, listed.len(), FILES - 1] {
            fetch(format!("f/{:04}-added-{added}", place.min(FILES - 1))).await;
            added += 1;
        }
        match page["next"].as_str() {
            Some(next) => target = format!("?limit=100&cursor={next}"),
            None => break,
        }
    }
    let distinct: BTreeSet<&String> = listed.iter().collect();
    assert_eq!(distinct.len(), listed.len(), "something is listed twice");
    for path in &paths {
        assert!(distinct.contains(&format!("a/{path}")), "{path} is lost");
    }
    assert!(
        listed.len() > FILES,
        "files that were added behind the place are listed, too"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn how_much_each_repository_holds() {
    let (_origin, larder) = filled().await;
    let summary = list(&larder, "?summary=true").await;
    let of = |name: &str| {
        let all = summary["repositories"].as_array().expect("repositories");
        let one = all
            .iter()
            .find(|one| one["repository"] == name)
            .expect("the repository");
        (number(one, "files"), number(one, "bytes"))
    };
    // Three files of 100 bytes and one of 6; the one that both have is counted with each.
    assert_eq!((of("a"), of("b")), ((4, 306), (1, 100)));
    assert_eq!(of("npm").0, 2);
    assert!(of("npm").1 > 3_000);
    let stored = summary["stored"]["bytes"].as_u64().expect("bytes");
    assert!(stored >= 306 + of("npm").1, "{summary}");
    let one = list(&larder, "/b?summary=true").await;
    assert_eq!(
        one,
        serde_json::json!({"repositories": [{"repository": "b", "files": 1, "bytes": 100}]})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn gauges_follow_what_is_held() {
    let (_origin, larder) = filled().await;
    let until = Instant::now() + PATIENCE;
    let label = |name: &str| format!("repository=\"{name}\"");
    for (repository, files, bytes) in [("a", 4.0, 306.0), ("b", 1.0, 100.0)] {
        loop {
            let held = larder
                .metric("larder_repository_held_bytes", &label(repository))
                .await;
            let count = larder
                .metric("larder_repository_held_files", &label(repository))
                .await;
            if (held, count) == (bytes, files) {
                break;
            }
            assert!(
                Instant::now() < until,
                "{repository}: {count} files, {held} bytes"
            );
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}

async fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    command
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied());
    tokio::task::spawn_blocking(move || command.output())
        .await
        .expect("a task")
        .expect("the larder program")
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn du_and_ls_ask_a_running_larder() {
    let (_origin, larder) = filled().await;
    let server = larder.url("/");
    let from_environment = [("LARDER_URL", server.as_str())];
    // On a busy machine a count that a scrape began before the last file was there is given again for a while.
    let until = Instant::now() + PATIENCE;
    loop {
        let du = run(&["du"], &from_environment).await;
        assert_eq!(du.status.code(), Some(0), "{}", said(&du.stderr));
        let stdout = said(&du.stdout);
        let first = stdout.lines().next().unwrap_or_default();
        let first: Vec<&str> = first.split_whitespace().collect();
        if first == ["a", "4", "files", "306", "B"] {
            break;
        }
        assert!(Instant::now() < until, "{stdout}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let du = run(&["du", "b", "--json", "--server", &server], &[]).await;
    assert_eq!(
        said(&du.stdout),
        "{\"repositories\":[{\"bytes\":100,\"files\":1,\"repository\":\"b\"}]}\n"
    );
    let ls = run(&["ls"], &from_environment).await;
    assert_eq!(said(&ls.stdout), "a\nb\nnpm\n");
    for root in ["/", ""] {
        assert_eq!(
            said(&run(&["ls", root], &from_environment).await.stdout),
            "a\nb\nnpm\n",
            "{root:?}"
        );
    }
    let ls = run(&["ls", "a/dir/"], &from_environment).await;
    let stdout = said(&ls.stdout);
    let paths: Vec<&str> = stdout
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .collect();
    assert_eq!(
        paths,
        ["a/dir/a.tgz", "a/dir/b.tgz"],
        "{}",
        said(&ls.stderr)
    );
    let ls = run(&["ls", "a/z.", "--json"], &from_environment).await;
    let line: Value = serde_json::from_str(said(&ls.stdout).trim()).expect("one line of JSON");
    assert_eq!(
        (&line["repository"], &line["path"]),
        (&"a".into(), &"z.txt".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn du_and_ls_say_what_is_wrong_in_a_sentence() {
    let (origin, larder) = filled().await;
    let server = larder.url("/");
    let stopped = {
        let origin = Origin::start().await;
        origin.url("/")
    };
    let stranger = origin.url("/");
    for (arguments, code, sentence) in [
        (&["du", "nobody", "--server", &server][..], 1, "nobody"),
        (&["ls", "nobody/x", "--server", &server], 1, "nobody"),
        (&["du", "--server", &stopped], 1, "no larder answers at"),
        (&["ls", "--server", &stranger], 1, "is no larder"),
        (
            &["du", "--server", "localhost:8000"],
            2,
            "no address of a larder",
        ),
        (&["ls", "--sever", "x"], 2, "--sever"),
    ] {
        let output = run(arguments, &[]).await;
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {}",
            said(&output.stderr)
        );
        assert!(
            said(&output.stderr).contains(sentence),
            "{arguments:?}: {}",
            said(&output.stderr)
        );
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

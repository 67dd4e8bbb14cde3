//! What is held of one path in several forms, and of several upstreams: lists and searches show it once, and pages lose nothing.

use larder_testkit::{Origin, Resource};
use serde_json::Value;

use crate::support::packages::{File, entry, npm};
use crate::support::{TestLarder, get, send};

const PLAIN: [&str; 6] = ["b", "b-1", "b.txt", "b/1", "c", "e"];
const QUERIES: [&str; 4] = ["b?q=1", "b?q=2", "d?q=1", "d?q=2"];

fn config(files: &Origin, packages: &Origin) -> String {
    let entries = [
        entry("a", "generic", files, ""),
        entry("npm", "npm", packages, ""),
    ];
    format!("remotes:\n{}", entries.concat())
}

async fn upstream() -> Origin {
    let origin = Origin::start().await;
    let file = File::generated("shelf", "1.0.0", 3_000, 1);
    npm(&origin, "shelf", &[file]);
    for path in PLAIN.iter().chain(&QUERIES) {
        origin.put(&format!("/{path}"), Resource::new(*path));
    }
    origin
}

/// Fetches a packument in both forms.
async fn packument(larder: &TestLarder) {
    let url = larder.artifact("npm", "shelf");
    for accept in ["application/vnd.npm.install-v1+json", "application/json"] {
        let answer = send("GET", &url, &[("accept", accept)]).await;
        assert_eq!(answer.status, 200, "{accept}: {}", answer.text());
    }
}

/// A packument in both forms, and answers to several queries of a path that sorts between others.
async fn filled() -> (Origin, TestLarder) {
    let origin = upstream().await;
    let larder = TestLarder::start(&config(&origin, &origin)).await;
    let paths: Vec<&str> = PLAIN.into_iter().chain(QUERIES).collect();
    for path in &paths {
        larder.hit(&larder.artifact("a", path)).await;
    }
    packument(&larder).await;
    let tarball = larder.artifact("npm", "shelf/-/shelf-1.0.0.tgz");
    larder.hit(&tarball).await;
    larder.until_idle().await;
    (origin, larder)
}

async fn list(larder: &TestLarder, target: &str) -> Value {
    let answer = get(&larder.url(&format!("api/v1/artifacts{target}"))).await;
    assert_eq!(answer.status, 200, "{target}: {}", answer.text());
    answer.json()
}

fn names(page: &Value) -> Vec<String> {
    let artifacts = page["artifacts"].as_array().expect("artifacts").iter();
    artifacts
        .map(|one| {
            let text = |key: &str| one[key].as_str().expect("a text").to_owned();
            format!("{}/{}", text("repository"), text("path"))
        })
        .collect()
}

/// All that is listed, in pages of `limit`.
async fn all(larder: &TestLarder, query: &str, limit: usize) -> Vec<String> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = list(larder, &format!("?limit={limit}{query}{cursor}")).await;
        assert!(names(&page).len() <= limit, "{page}");
        all.extend(names(&page));
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

/// The forms of a document have one path: it is listed once, however the pages are cut. Answers to queries are files of their own.
#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_is_held_in_several_forms_is_listed_once() {
    let (_origin, larder) = filled().await;
    let expected = [
        "a/b",
        "a/b-1",
        "a/b.txt",
        "a/b/1",
        "a/b",
        "a/b",
        "a/c",
        "a/d",
        "a/d",
        "a/e",
        "npm/shelf",
        "npm/shelf/-/shelf-1.0.0.tgz",
    ];
    for limit in [1, 2, 3, 9, 10, 11, 12, 13, 100] {
        assert_eq!(all(&larder, "", limit).await, expected, "limit {limit}");
        let cached = all(&larder, "&cached=true", limit).await;
        assert_eq!(cached, expected, "limit {limit}");
        let others = all(&larder, "&cached=false", limit).await;
        assert_eq!(others, [""; 0], "limit {limit}");
    }
}

/// Of one path that two upstreams have had the present one's copy stands for both, and `cached` says so.
#[tokio::test(flavor = "multi_thread")]
async fn the_present_upstream_s_copy_stands_for_those_of_others() {
    let (first, mut larder) = filled().await;
    let other = upstream().await;
    other.put("/c", Resource::new("other"));
    larder.terminate();
    larder.write_config(&config(&other, &other));
    larder.restart().await;
    larder.hit(&larder.artifact("a", "c")).await;
    packument(&larder).await;
    larder.until_idle().await;
    drop(first);
    for limit in [1, 2, 100] {
        let listed = all(&larder, "&pattern=%5E(c%7Ce%7Cshelf)%24", limit).await;
        assert_eq!(listed, ["a/c", "a/e", "npm/shelf"], "limit {limit}");
        let cached = all(&larder, "&cached=true", limit).await;
        assert_eq!(cached, ["a/c", "npm/shelf"], "limit {limit}");
        let others = all(
            &larder,
            "&cached=false&pattern=%5E(c%7Ce%7Cshelf)%24",
            limit,
        )
        .await;
        assert_eq!(others, ["a/e"], "limit {limit}");
    }
    let page = list(&larder, "/a?pattern=%5Ec%24").await;
    let shown = &page["artifacts"][0];
    assert_eq!(
        (shown["size"].as_u64(), shown["cached"].as_bool()),
        (Some(5), Some(true)),
        "{page}"
    );
    let url = larder.url("ui/search?q=c&kind=prefix");
    let found = send("GET", &url, &[("accept", "application/json")]).await;
    let hits = found.json()["hits"].clone();
    assert_eq!(hits.as_array().map(Vec::len), Some(1), "{hits}");
    assert_eq!(
        (hits[0]["size"].as_u64(), hits[0]["cached"].as_bool()),
        (Some(5), Some(true)),
        "{hits}"
    );
}

/// Between two pages the row that the cursor names goes: nothing is lost, and no path is listed that was on a page before.
#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_whose_row_is_gone_goes_on_where_it_was() {
    let (_origin, larder) = filled().await;
    let whole = all(&larder, "", 100).await;
    for (limit, last) in [(1, "b"), (5, "b?q=1"), (9, "d?q=2")] {
        let page = list(&larder, &format!("?limit={limit}")).await;
        assert_eq!(names(&page), whole[..limit]);
        let next = page["next"].as_str().expect("a next page").to_owned();
        let url = larder.artifact("a", last);
        assert_eq!(send("DELETE", &url, &[]).await.status, 204, "{url}");
        let rest = list(&larder, &format!("?cursor={next}")).await;
        // A cursor names no query: of a path whose answer to one is gone the others are listed again.
        let own = format!("a/{}", last.split('?').next().expect("a path"));
        let is_other = |name: &&String| **name != own;
        let (rest, expected) = (names(&rest), &whole[limit..]);
        let others: Vec<&String> = rest.iter().filter(is_other).collect();
        let expected: Vec<&String> = expected.iter().filter(is_other).collect();
        assert_eq!(others, expected, "behind {last}");
        larder.hit(&url).await;
        larder.until_idle().await;
    }
}

/// A cursor is good for the list that it came from.
#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_of_another_list_is_refused() {
    let (_origin, larder) = filled().await;
    let page = list(&larder, "/a?limit=1").await;
    let next = page["next"].as_str().expect("a next page");
    for (target, status) in [
        ("artifacts/a?", 200),
        // The list of all repositories goes on there.
        ("artifacts?", 200),
        ("artifacts/npm?", 400),
        ("jobs?", 400),
    ] {
        let answer = get(&larder.url(&format!("api/v1/{target}cursor={next}"))).await;
        assert_eq!(answer.status, status, "{target}: {}", answer.text());
    }
    // Forms of what was on the page are not listed on the next one.
    let page = list(&larder, "/npm?limit=1").await;
    let next = page["next"].as_str().expect("a next page");
    let rest = list(&larder, &format!("/npm?limit=1&cursor={next}")).await;
    assert_eq!(names(&rest), ["npm/shelf/-/shelf-1.0.0.tgz"]);
}

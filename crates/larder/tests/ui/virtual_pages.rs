//! The pages of a virtual repository: what its members hold, want and refuse, together.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use larder_core::sha256;

use super::*;

/// Charts of one member: its index, and the archives.
fn put_charts(origin: &Origin, of: &str, charts: &[(&str, &str)]) {
    let mut index = "apiVersion: v1\nentries:\n".to_owned();
    for (name, version) in charts {
        let body = format!("{name} {version} of {of}");
        let digest = sha256(body.as_bytes()).to_hex();
        let _ = write!(
            index,
            "  {name}:\n  - apiVersion: v2\n    digest: {digest}\n    name: {name}\n    urls:\n    - sub/{name}-{version}.tgz\n    \
             version: {version}\n"
        );
        origin.put(&format!("/sub/{name}-{version}.tgz"), Resource::new(body));
    }
    origin.put(
        "/index.yaml",
        Resource::new(index).content_type("text/yaml"),
    );
}

/// Two members with these charts, the second one's names not its own.
async fn two(one: &[(&str, &str)], other: &[(&str, &str)]) -> ([Origin; 2], TestLarder) {
    let origins = [Origin::start().await, Origin::start().await];
    put_charts(&origins[0], "one", one);
    put_charts(&origins[1], "two", other);
    let [first, second] = origins.each_ref().map(|origin| origin.url("/"));
    let larder = TestLarder::start(&format!(
        "auth: {{ admin_token: {TOKEN} }}\nremotes:\n  one:\n    package: helm\n    base_url: '{first}'\n  two:\n    package: helm\n    \
         base_url: '{second}'\n    deny_patterns: ['secret']\n  all:\n    type: virtual\n    package: helm\n    members: [one, two]\n    \
         deny_patterns: ['hidden']\n  beside:\n    package: helm\n    base_url: '{first}'\n"
    ))
    .await;
    (origins, larder)
}

fn names(list: &serde_json::Value, key: &str) -> Vec<String> {
    let all = list.as_array().expect("a list").iter();
    all.map(|one| one[key].as_str().expect("a text").to_owned())
        .collect()
}

#[tokio::test]
async fn a_virtual_repository_shows_what_its_members_hold() {
    let charts: &[(&str, &str)] = &[("jam", "1.0.0"), ("odd", "1.0.0")];
    let others: &[(&str, &str)] = &[("jam", "1.0.0"), ("jar", "2.0.0")];
    let (_origins, larder) = two(charts, others).await;
    let of_all = |path: &str| larder.url(&format!("api/v1/virtual/all/{path}"));
    assert_eq!(get(&of_all("index.yaml")).await.status, 200);
    for path in [
        "one/sub/jam-1.0.0.tgz",
        "two/sub/jam-1.0.0.tgz",
        "two/sub/jar-2.0.0.tgz",
        "beside/sub/odd-1.0.0.tgz",
    ] {
        let (repository, path) = path.split_once('/').expect("two parts");
        assert_eq!(get(&larder.artifact(repository, path)).await.status, 200);
    }
    until_held(&larder, "two", 3).await;
    until_held(&larder, "one", 2).await;

    let shown = json(&larder, "ui/repositories/all/browse/").await;
    assert_eq!(shown["folders"], serde_json::json!(["sub"]));
    assert_eq!(shown["holders"]["sub/"], serde_json::json!(["one", "two"]));
    assert_eq!(names(&shown["files"], "name"), ["index.yaml"]);
    let shown = json(&larder, "ui/repositories/all/browse/sub/").await;
    assert_eq!(
        names(&shown["files"], "name"),
        ["jam-1.0.0.tgz", "jar-2.0.0.tgz"]
    );
    assert_eq!(
        shown["holders"]["jam-1.0.0.tgz"],
        serde_json::json!(["one", "two"])
    );
    assert_eq!(
        shown["holders"]["jar-2.0.0.tgz"],
        serde_json::json!(["two"])
    );
    let text = page(&larder, "ui/repositories/all/browse/sub/")
        .await
        .text();
    assert!(
        text.contains("repositories/one/artifact/sub/jam-1.0.0.tgz"),
        "{text}"
    );
    assert!(
        text.contains("repositories/two/artifact/sub/jar-2.0.0.tgz"),
        "{text}"
    );
    let missing = page(&larder, "ui/repositories/all/browse/none/").await;
    assert_eq!(missing.status, 404);

    // A path of it is its member's.
    let led = page(&larder, "ui/repositories/all/artifact/sub/jar-2.0.0.tgz").await;
    assert_eq!(
        (led.status, led.header("location")),
        (
            303,
            "../../../../../ui/repositories/two/artifact/sub/jar-2.0.0.tgz"
        )
    );
    let none = page(&larder, "ui/repositories/all/artifact/sub/none.tgz").await;
    assert_eq!(none.status, 404);

    let found = json(&larder, "ui/search?q=1.0.0&repository=all").await;
    assert_eq!(names(&found["hits"], "repository"), ["one", "two"]);
    let digest = sha256(b"jar 2.0.0 of two").to_hex();
    let found = json(&larder, &format!("ui/search?q={digest}&repository=all")).await;
    assert_eq!(names(&found["hits"], "repository"), ["two"]);

    // Of one version in two members the first one's stays, as in the merged index.
    let shown = json(&larder, "ui/repositories/all/package?name=jam").await;
    assert_eq!(names(&shown["files"], "repository"), ["one"]);
    assert_eq!(names(&shown["members"], "member"), ["one", "two"]);
    let shown = json(&larder, "ui/repositories/all/package?name=jar").await;
    assert_eq!(names(&shown["files"], "repository"), ["two"]);
    assert_eq!(
        page(&larder, "ui/repositories/all/package?name=none")
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn a_virtual_repository_shows_what_is_refused_and_missing_of_its_members() {
    let (origins, larder) = two(&[("jam", "1.0.0")], &[("jar", "2.0.0")]).await;
    origins[0].put("/sub/none.tgz", Resource::new("").status(500));
    for path in ["hidden/a.tgz", "sub/secret.tgz", "sub/none.tgz"] {
        get(&larder.url(&format!("api/v1/virtual/all/{path}"))).await;
    }
    let shown = json(&larder, "ui/repositories/all").await;
    let address = format!("http://{}/api/v1/virtual/all", larder.address());
    assert!(
        shown["set_up"][0]["text"]
            .as_str()
            .expect("lines")
            .contains(&address)
    );
    assert!(shown["trends"]["rows"].is_array());
    let of: BTreeSet<String> = names(&shown["refused"], "repository").into_iter().collect();
    assert_eq!(
        of,
        BTreeSet::from(["all".to_owned(), "two".to_owned()]),
        "{shown}"
    );
    let text = page(&larder, "ui/repositories/all").await.text();
    assert!(text.contains("sub/secret.tgz") && text.contains("If the upstreams died"));

    let shown = json(&larder, "ui/repositories/all/outage").await;
    let missing = shown["missing"].as_array().expect("a list");
    assert!(
        missing
            .iter()
            .any(|one| one["path"] == "sub/none.tgz" && one["repository"] == "one"),
        "{shown}"
    );
    // What is missing is fetched by a job of the member.
    origins[0].put("/sub/none.tgz", Resource::new("there by now"));
    let visitor = sign_in(&larder).await;
    let headers = [("cookie", &*visitor.cookie)];
    let fields = [("csrf", &*visitor.csrf)];
    let warmed = form(&larder, "ui/repositories/all/warm", &fields, &headers).await;
    assert_eq!(warmed.status, 303, "{}", warmed.text());
    let location = warmed.header("location");
    assert!(location.starts_with("../../../ui/jobs/"), "{location}");
    let began = std::time::Instant::now();
    let is_missing = async || {
        let shown = json(&larder, "ui/repositories/one/outage").await;
        names(&shown["missing"], "path").contains(&"sub/none.tgz".to_owned())
    };
    while is_missing().await {
        assert!(began.elapsed() < support::PATIENCE, "it is not fetched");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// Members that hold many files side by side, some of them the same: every one of them is on one page, and on no other.
#[tokio::test]
async fn the_pages_of_a_merged_folder_follow_each_other() {
    let named = |range: std::ops::Range<u32>| -> Vec<String> {
        range.map(|n| format!("a{n:03}")).collect()
    };
    let (ours, theirs) = (named(0..130), named(100..240));
    let charts = |names: &'_ [String]| -> Vec<(String, &'static str)> {
        names.iter().map(|name| (name.clone(), "1.0.0")).collect()
    };
    let (ours, theirs) = (charts(&ours), charts(&theirs));
    let one: Vec<(&str, &str)> = ours.iter().map(|(n, v)| (n.as_str(), *v)).collect();
    let other: Vec<(&str, &str)> = theirs.iter().map(|(n, v)| (n.as_str(), *v)).collect();
    let (_origins, larder) = two(&one, &other).await;
    for (repository, charts) in [("one", &one), ("two", &other)] {
        for (name, version) in charts {
            let path = format!("sub/{name}-{version}.tgz");
            assert_eq!(get(&larder.artifact(repository, &path)).await.status, 200);
        }
        let began = std::time::Instant::now();
        let files = async || {
            let shown = json(&larder, &format!("ui/repositories/{repository}")).await;
            shown["facts"]["files"].as_u64().expect("a number")
        };
        while files().await < charts.len() as u64 {
            assert!(began.elapsed() < support::PATIENCE, "not held");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let shown = json(
            &larder,
            &format!("ui/repositories/all/browse/sub/?after={after}"),
        )
        .await;
        seen.extend(names(&shown["files"], "name"));
        match shown["next"].as_str() {
            Some(next) => next.clone_into(&mut after),
            None => break,
        }
        assert!(seen.len() < 1_000, "it never ends");
    }
    let expected: Vec<String> = (0..240).map(|n| format!("a{n:03}-1.0.0.tgz")).collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_virtual_repository_of_charts_has_no_images() {
    let (_origins, larder) = two(&[], &[]).await;
    for name in ["one", "all"] {
        let answer = page(&larder, &format!("ui/repositories/{name}/image?name=x")).await;
        assert_eq!(answer.status, 400, "{name}: {}", answer.text());
    }
}

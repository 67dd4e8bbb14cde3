//! What upstreams offer: `GET /api/v1/artifacts/{repo}?source=upstream` (contract, section 9), of each type.

use std::time::{Duration, Instant};

use larder_core::sha256;
use larder_testkit::{Origin, Resource};
use serde_json::{Value, json};

use crate::support::packages::{File, SIMPLE_JSON, entry, helm, npm, pypi_json, remote};
use crate::support::{Answer, PATIENCE, TestLarder, get};

const APKINDEX: &[u8] = include_bytes!("../../../formats/src/alpine/testdata/APKINDEX.tar.gz");
const DEMO: &[u8] = include_bytes!("../../../formats/src/alpine/testdata/demo-1.0-r0.apk");
const DAY: u64 = 86_400;

async fn ask(larder: &TestLarder, target: &str) -> Answer {
    get(&larder.url(&format!("api/v1/artifacts/{target}"))).await
}

async fn offers(larder: &TestLarder, target: &str) -> Vec<Value> {
    let answer = ask(larder, target).await;
    assert_eq!(answer.status, 200, "{target}: {}", answer.text());
    let page = answer.json();
    assert_eq!(page["next"], Value::Null, "{page}");
    page["artifacts"].as_array().expect("artifacts").clone()
}

fn paths(offers: &[Value]) -> Vec<&str> {
    let path = |one: &'_ Value| one["path"].as_str().map(str::to_owned);
    assert!(offers.iter().all(|one| path(one).is_some()), "{offers:?}");
    offers
        .iter()
        .filter_map(|one| one["path"].as_str())
        .collect()
}

/// Waits until so many of what is offered are held: an answer may come a moment before its record.
async fn until_held(larder: &TestLarder, target: &str, count: usize) -> Vec<Value> {
    let begun = Instant::now();
    loop {
        let offered = offers(larder, target).await;
        let held = offered.iter().filter(|one| one["cached"] == true).count();
        if held == count {
            return offered;
        }
        assert!(begun.elapsed() < PATIENCE, "{held} of {count}: {offered:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn refused(larder: &TestLarder, target: &str, status: u16, words: &str) {
    let answer = ask(larder, target).await;
    let body = answer.json();
    assert_eq!(answer.status, status, "{target}: {body}");
    let said = body["error"].as_str().unwrap_or_default();
    assert!(said.contains(words), "{target}: {body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pypi_project_s_files_with_what_is_held_of_them() {
    let origin = Origin::start().await;
    let files = [("1.0", 1), ("2.0", 2)]
        .map(|(version, seed)| File::generated("shelf", version, 900, seed));
    let wheels = pypi_json(&origin, "shelf", &files);
    let larder = TestLarder::start(&remote("pypi", &origin, "")).await;
    let offered = offers(&larder, "pypi?source=upstream&name=Shelf").await;
    assert_eq!(paths(&offered), wheels);
    for (one, file) in offered.iter().zip(&files) {
        assert_eq!(one["size"], 900, "{one}");
        assert_eq!(one["sha256"], sha256(&file.bytes()).to_hex(), "{one}");
        assert_eq!(
            (&one["cached"], &one["cached_at"]),
            (&json!(false), &Value::Null),
            "{one}"
        );
        assert_eq!(one["fresh_until"], Value::Null, "{one}");
        assert_eq!(one["repository"], "pypi");
    }
    larder.hit(&larder.artifact("pypi", &wheels[1])).await;
    let offered = until_held(&larder, "pypi?source=upstream&name=shelf", 1).await;
    let cached: Vec<&Value> = offered.iter().map(|one| &one["cached"]).collect();
    assert_eq!(cached, [&json!(false), &json!(true)]);
    assert!(offered[1]["cached_at"].is_string(), "{offered:?}");
    let missing = offers(&larder, "pypi?source=upstream&name=shelf&cached=false").await;
    assert_eq!(paths(&missing), [&*wheels[0]]);
    let matching = offers(&larder, "pypi?source=upstream&name=shelf&pattern=2%5C.0").await;
    assert_eq!(paths(&matching), [&*wheels[1]]);
    assert_eq!(
        origin.count("GET", "/simple/shelf/"),
        1,
        "the page is cached as for a client"
    );
    // A page of one, and the next.
    let first = ask(&larder, "pypi?source=upstream&name=shelf&limit=1")
        .await
        .json();
    let next = first["next"].as_str().expect("a cursor");
    let target = format!("pypi?source=upstream&name=shelf&limit=1&cursor={next}");
    let second = ask(&larder, &target).await.json();
    let both = [
        &first["artifacts"][0]["path"],
        &second["artifacts"][0]["path"],
    ];
    assert_eq!(both, [&*wheels[0], &*wheels[1]]);
    refused(&larder, "pypi?source=upstream", 400, "name=").await;
    refused(&larder, "pypi?source=upstream&name=a%2Fb", 400, "a project").await;
    refused(
        &larder,
        "pypi?source=upstream&name=shelf&limit=0",
        400,
        "limit",
    )
    .await;
    assert_eq!(
        ask(&larder, "pypi?source=upstream&name=absent")
            .await
            .status,
        404
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_npm_package_s_tarballs_in_a_scope_and_without() {
    let origin = Origin::start().await;
    let one = [
        File::generated("x", "1.0.0", 500, 1),
        File::generated("x", "1.1.0", 500, 2),
    ];
    let plain = npm(&origin, "shelf", &one);
    let scoped = npm(&origin, "@team/shelf", &one[..1]);
    let larder = TestLarder::start(&remote("npm", &origin, "")).await;
    assert_eq!(
        paths(&offers(&larder, "npm?source=upstream&name=shelf").await),
        plain
    );
    for name in ["@team/shelf", "%40team%2Fshelf"] {
        let target = format!("npm?source=upstream&name={name}");
        assert_eq!(paths(&offers(&larder, &target).await), scoped);
    }
    refused(&larder, "npm?source=upstream", 400, "name=").await;
    refused(
        &larder,
        "npm?source=upstream&name=a%2Fb%2Fc",
        400,
        "a package",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_charts_of_a_helm_index_all_or_of_one_name() {
    let origin = Origin::start().await;
    let files = [("jam", "1.0.0"), ("tea", "2.0.0")]
        .map(|(name, version)| File::generated(name, version, 700, 3));
    let charts = helm(&origin, &files);
    let larder = TestLarder::start(&remote("helm", &origin, "")).await;
    let offered = offers(&larder, "helm?source=upstream").await;
    assert_eq!(paths(&offered), charts);
    assert_eq!(offered[0]["sha256"], sha256(&files[0].bytes()).to_hex());
    assert_eq!(
        offered[0]["size"],
        Value::Null,
        "a Helm index states no sizes"
    );
    assert_eq!(
        paths(&offers(&larder, "helm?source=upstream&name=tea").await),
        [&*charts[1]]
    );
}

/// A name is that of an index's entries, whatever their files are called.
#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_a_chart_are_those_that_its_entries_name() {
    let origin = Origin::start().await;
    let index = "apiVersion: v1\nentries:\n  app:\n  - {name: app, version: 1.0.0, urls: [rel/v1/chart.tgz]}\n  - {name: app, version: 2.0.0, urls: [rel/v2/chart.tgz]}\n  kube:\n  - {name: kube, version: 1.0.0, urls: [kube-1.0.0.tgz]}\n  kube-1password:\n  - {name: kube-1password, version: 1.0.0, urls: [kube-1password-1.0.0.tgz]}\n";
    origin.put("/index.yaml", Resource::new(index));
    let larder = TestLarder::start(&remote("helm", &origin, "")).await;
    for (name, expected) in [
        ("app", &["rel/v1/chart.tgz", "rel/v2/chart.tgz"][..]),
        ("kube", &["kube-1.0.0.tgz"]),
        ("kube-1password", &["kube-1password-1.0.0.tgz"]),
        ("chart", &[]),
    ] {
        let offered = offers(&larder, &format!("helm?source=upstream&name={name}")).await;
        assert_eq!(paths(&offered), expected, "{name}");
    }
    let first = ask(&larder, "helm?source=upstream&name=app&limit=1").await;
    let next = first.json()["next"].as_str().map(str::to_owned);
    let cursor = next.expect("a cursor");
    let target = format!("helm?source=upstream&name=app&cursor={cursor}");
    assert_eq!(paths(&offers(&larder, &target).await), ["rel/v2/chart.tgz"]);
}

/// A repository as createrepo_c writes it (`repomd.xml`, `primary.xml`).
fn rpm(origin: &Origin, folder: &str) -> String {
    let package = b"not a package, and long enough";
    let primary = format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<metadata xmlns="http://linux.duke.edu/metadata/common" packages="1"><package type="rpm"><name>jam</name>
<checksum type="sha256" pkgid="YES">{}</checksum><size package="{}" installed="1" archive="1"/>
<location href="Packages/jam-1-1.x86_64.rpm"/></package></metadata>"#,
        sha256(package).to_hex(),
        package.len()
    );
    let sum = sha256(primary.as_bytes()).to_hex();
    let repomd = format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<repomd xmlns="http://linux.duke.edu/metadata/repo"><revision>7</revision><data type="primary"><checksum type="sha256">{sum}</checksum>
<location href="repodata/{sum}-primary.xml"/><timestamp>7</timestamp><size>{}</size></data></repomd>"#,
        primary.len()
    );
    origin.put(
        &format!("/{folder}repodata/{sum}-primary.xml"),
        Resource::new(primary),
    );
    origin.put(
        &format!("/{folder}repodata/repomd.xml"),
        Resource::new(repomd),
    );
    origin.put(
        &format!("/{folder}Packages/jam-1-1.x86_64.rpm"),
        Resource::new(&package[..]),
    );
    sha256(package).to_hex()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_packages_of_an_rpm_repository_in_a_folder_or_at_the_root() {
    let origin = Origin::start().await;
    let sum = rpm(&origin, "9/BaseOS/");
    let other = Origin::start().await;
    rpm(&other, "");
    let config = [
        entry("rpm", "rpm", &origin, ""),
        entry("flat", "rpm", &other, ""),
    ];
    let larder = TestLarder::start(&format!("remotes:\n{}", config.concat())).await;
    let path = "9/BaseOS/Packages/jam-1-1.x86_64.rpm";
    for name in ["9/BaseOS", "9/BaseOS/", "/9/BaseOS"] {
        let offered = offers(&larder, &format!("rpm?source=upstream&name={name}")).await;
        assert_eq!(paths(&offered), [path]);
        assert_eq!(
            (&offered[0]["sha256"], &offered[0]["size"]),
            (&json!(sum), &json!(30))
        );
    }
    larder.hit(&larder.artifact("rpm", path)).await;
    until_held(&larder, "rpm?source=upstream&name=9/BaseOS", 1).await;
    refused(&larder, "rpm?source=upstream", 400, "folder").await;
    let offered = offers(&larder, "flat?source=upstream").await;
    assert_eq!(paths(&offered), ["Packages/jam-1-1.x86_64.rpm"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_rpm_repository_whose_list_of_packages_cannot_be_read_is_not_empty() {
    let origin = Origin::start().await;
    let master = |folder: &str, kind: &str, name: &str| {
        let repomd = format!(
            r#"<repomd xmlns="http://linux.duke.edu/metadata/repo"><revision>7</revision><data type="{kind}"><location href="repodata/{name}"/></data></repomd>"#
        );
        origin.put(
            &format!("/{folder}/repodata/repomd.xml"),
            Resource::new(repomd),
        );
    };
    master("zchunk", "primary_zck", "primary.xml.zck");
    origin.put("/zchunk/repodata/primary.xml.zck", Resource::new("zck"));
    master("old", "primary_db", "primary.sqlite.bz2");
    master("absent", "primary", "primary.xml");
    master("named", "primary", "packages.xml");
    let list = r#"<metadata xmlns="http://linux.duke.edu/metadata/common" packages="1"><package type="rpm"><name>jam</name><location href="jam.rpm"/></package></metadata>"#;
    origin.put("/named/repodata/packages.xml", Resource::new(list));
    let larder = TestLarder::start(&remote("rpm", &origin, "")).await;
    for folder in ["zchunk", "old"] {
        let target = format!("rpm?source=upstream&name={folder}");
        refused(&larder, &target, 501, "names no list of packages").await;
    }
    let target = "rpm?source=upstream&name=absent";
    let words = "absent/repodata/repomd.xml of the upstream names absent/repodata/primary.xml";
    refused(&larder, target, 502, words).await;
    let offered = offers(&larder, "rpm?source=upstream&name=named").await;
    assert_eq!(paths(&offered), ["named/jam.rpm"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_packages_of_an_apk_index() {
    let origin = Origin::start().await;
    origin.put(
        "/v3.23/main/x86_64/APKINDEX.tar.gz",
        Resource::new(APKINDEX),
    );
    origin.put("/v3.23/main/x86_64/demo-1.0-r0.apk", Resource::new(DEMO));
    let larder = TestLarder::start(&remote("alpine", &origin, "")).await;
    let offered = offers(&larder, "alpine?source=upstream&name=v3.23/main/x86_64").await;
    let demo = offered
        .iter()
        .find(|one| one["path"] == "v3.23/main/x86_64/demo-1.0-r0.apk");
    let demo = demo.unwrap_or_else(|| panic!("not offered: {offered:?}"));
    assert_eq!(demo["size"], DEMO.len());
    assert_eq!(
        demo["sha256"],
        Value::Null,
        "an apk index states a hash of a part of the package only"
    );
    assert!(
        paths(&offered)
            .iter()
            .all(|path| path.starts_with("v3.23/main/x86_64/"))
    );
    let folded = offers(&larder, "alpine?source=upstream&name=v3.23//main/./x86_64").await;
    assert_eq!(paths(&folded), paths(&offered));
    refused(&larder, "alpine?source=upstream", 400, "folder").await;
    assert_eq!(
        ask(&larder, "alpine?source=upstream&name=v0").await.status,
        404
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tags_of_an_image_over_all_pages_of_the_list() {
    let origin = Origin::start().await;
    let tags = |tags: &str| {
        Resource::new(format!(r#"{{"name":"team/app","tags":{tags}}}"#))
            .content_type("application/json")
    };
    let link = r#"</v2/team/app/tags/list?n=2&last=1.1>; rel="next""#;
    origin.put(
        "/v2/team/app/tags/list",
        tags(r#"["1.0","1.1"]"#).header("Link", link),
    );
    origin.put(
        "/v2/team/app/tags/list?n=2&last=1.1",
        tags(r#"["latest", "not a tag"]"#),
    );
    let larder = TestLarder::start(&remote("docker", &origin, "")).await;
    let expected = ["1.0", "1.1", "latest"].map(|tag| format!("team/app/manifests/{tag}"));
    let offered = offers(&larder, "docker?source=upstream&name=team/app").await;
    assert_eq!(paths(&offered), expected);
    let manifest = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[]}"#;
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    origin.put(
        "/v2/team/app/manifests/1.1",
        Resource::new(manifest).content_type(manifest_type),
    );
    larder
        .hit(&larder.url("v2/docker/team/app/manifests/1.1"))
        .await;
    let target = "docker?source=upstream&name=team/app&cached=true";
    let offered = until_held(&larder, target, 1).await;
    assert_eq!(paths(&offered), [&*expected[1]]);
    assert!(
        offered[0]["fresh_until"].is_string(),
        "a tag moves: {offered:?}"
    );
    let first = ask(&larder, "docker?source=upstream&name=team/app&limit=1").await;
    let cursor = first.json()["next"].as_str().expect("a cursor").to_owned();
    let next = format!("docker?source=upstream&name=team/app&cursor={cursor}");
    assert_eq!(paths(&offers(&larder, &next).await), expected[1..]);
    for other in ["name=team/other", "name=team"] {
        let other = format!("docker?source=upstream&{other}&cursor={cursor}");
        refused(&larder, &other, 400, "cursor").await;
    }
    refused(&larder, "docker?source=upstream", 400, "an image").await;
    refused(
        &larder,
        "docker?source=upstream&name=Team/App",
        400,
        "an image",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_no_index_is_said_and_nobody_is_asked() {
    let origin = Origin::start().await;
    let config = format!(
        "remotes:\n{}{}  mine: {{ type: local, package: generic }}\n  all: {{ type: virtual, package: helm, members: [charts] }}\n",
        entry("files", "generic", &origin, ""),
        entry("charts", "helm", &origin, "")
    );
    let larder = TestLarder::start(&config).await;
    refused(&larder, "files?source=upstream", 501, "no index").await;
    refused(&larder, "files?source=upstream&name=a", 501, "no index").await;
    refused(&larder, "mine?source=upstream", 501, "no upstream").await;
    refused(&larder, "all?source=upstream", 400, "its members").await;
    refused(&larder, "absent?source=upstream", 404, "absent").await;
    let answer = get(&larder.url("api/v1/artifacts?source=upstream")).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert_eq!(origin.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_would_not_get_is_not_listed() {
    let origin = Origin::start().await;
    let at = |days: u64| {
        let seconds = crate::artifacts::now_seconds() - days * DAY;
        larder_core::UnixMillis(i64::try_from(seconds * 1_000).expect("a time")).to_rfc3339()
    };
    let file = |name: &str, days: u64| json!({"filename": name, "url": format!("../../pool/{name}"), "hashes": {}, "upload-time": at(days)});
    let names = ["shelf-1.0.tar.gz", "shelf-2.0.tar.gz", "shelf-3.0.zip"];
    let page = json!({"meta": {"api-version": "1.1"}, "name": "shelf", "versions": ["1.0", "2.0", "3.0"],
        "files": [file(names[0], 9), file(names[1], 1), file(names[2], 9)]});
    origin.put(
        "/simple/shelf/",
        Resource::new(page.to_string()).content_type(SIMPLE_JSON),
    );
    let keys = "quarantine_new: true\nquarantine_days: 3\ndeny_patterns: ['\\.zip$']";
    let larder = TestLarder::start(&remote("pypi", &origin, keys)).await;
    let offered = offers(&larder, "pypi?source=upstream&name=shelf").await;
    assert_eq!(
        paths(&offered),
        ["pool/shelf-1.0.tar.gz"],
        "one is too young, one is denied"
    );
}

/// The upstream's index is a document like any other: its copy is listed when the upstream is down.
#[tokio::test(flavor = "multi_thread")]
async fn with_the_upstream_stopped_the_copy_of_its_index_is_listed() {
    let origin = Origin::start().await;
    let charts = helm(&origin, &[File::generated("jam", "1.0.0", 700, 3)]);
    let larder = TestLarder::start(&remote("helm", &origin, "cache: { mutable_ttl: 0 }")).await;
    assert_eq!(
        paths(&offers(&larder, "helm?source=upstream").await),
        charts
    );
    drop(origin);
    assert_eq!(
        paths(&offers(&larder, "helm?source=upstream").await),
        charts
    );
}

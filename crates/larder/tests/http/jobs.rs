//! Jobs that fetch many files beforehand: `POST /api/v1/artifacts/{repo}/cache` and `/api/v1/jobs` (contract, section 9).

use std::time::Instant;

use larder_core::sha256;
use larder_testkit::{Origin, Resource};
use serde_json::{Value, json};

use crate::support::client::client;
use crate::support::packages::{File, entry, helm, remote};
use crate::support::{Answer, PATIENCE, TestLarder, get, send};

const INDEX_V3: &[u8] = include_bytes!("../../../formats/src/alpine/testdata/v3/Packages.adb");
/// Of the architecture `noarch`.
const PLAIN: &[u8] = include_bytes!("../../../formats/src/alpine/testdata/v3/plain-1.0-r0.apk");

/// A generic upstream with so many files, and their paths.
async fn filled(count: usize) -> (Origin, Vec<String>) {
    let origin = Origin::start().await;
    let paths: Vec<String> = (0..count)
        .map(|number| format!("f/{number:03}.bin"))
        .collect();
    for path in &paths {
        origin.put(
            &format!("/{path}"),
            Resource::new(format!("the bytes of {path}")),
        );
    }
    (origin, paths)
}

async fn post(larder: &TestLarder, target: &str, body: &Value) -> Answer {
    let url = larder.url(&format!("api/v1/artifacts/{target}"));
    let request = client().post(&url).body(body.to_string());
    let response = request.send().await.expect("an answer");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.bytes().await.expect("a body").to_vec();
    Answer {
        status,
        headers,
        body,
    }
}

/// Makes a job; gives its address.
async fn begin(larder: &TestLarder, repository: &str, body: &Value) -> String {
    let answer = post(larder, &format!("{repository}/cache"), body).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let job = answer.json();
    let id = job["id"].as_str().expect("an id");
    assert_eq!(answer.header("location"), format!("/api/v1/jobs/{id}"));
    assert!(["queued", "running", "done"].contains(&job["state"].as_str().expect("a state")));
    format!("api/v1/jobs/{id}")
}

/// Waits until a job is as it should be; gives it.
async fn until(larder: &TestLarder, job: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let answer = get(&larder.url(job)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let shown = answer.json();
        if is_so(&shown) {
            return shown;
        }
        assert!(begun.elapsed() < 4 * PATIENCE, "{shown}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

async fn until_ended(larder: &TestLarder, job: &str) -> Value {
    until(larder, job, |job| job["ended_at"].is_string()).await
}

fn counts(job: &Value) -> [u64; 5] {
    ["queued", "running", "cached", "skipped", "failed"]
        .map(|state| job["counts"][state].as_u64().expect("a count"))
}

/// All files of a job, over all pages.
async fn items(larder: &TestLarder, job: &str) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = get(&larder.url(&format!("{job}?limit=150{cursor}")))
            .await
            .json();
        all.extend(page["items"].as_array().expect("items").iter().cloned());
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_files_are_fetched_once_each_and_served_without_the_upstream() {
    let (origin, paths) = filled(500).await;
    let larder = TestLarder::start(&remote("generic", &origin, "")).await;
    let job = begin(&larder, "generic", &json!({"paths": paths})).await;
    let ended = until_ended(&larder, &job).await;
    assert_eq!(
        (ended["state"].as_str(), counts(&ended)),
        (Some("done"), [0, 0, 500, 0, 0])
    );
    let all = items(&larder, &job).await;
    let listed: Vec<&str> = all
        .iter()
        .filter_map(|item| item["path"].as_str())
        .collect();
    assert_eq!(listed, paths);
    assert!(
        all.iter()
            .all(|item| item["state"] == "cached" && item["bytes"] == 22),
        "{:?}",
        all[0]
    );
    for path in &paths {
        assert_eq!(origin.count("GET", &format!("/{path}")), 1, "{path}");
    }
    drop(origin);
    for path in &paths {
        let answer = get(&larder.artifact("generic", path)).await;
        let expected = format!("the bytes of {path}");
        assert_eq!(
            (answer.status, answer.text(), answer.source()),
            (200, expected, "cache")
        );
    }
    let jobs = get(&larder.url("api/v1/jobs")).await.json();
    assert_eq!(jobs["jobs"].as_array().map(Vec::len), Some(1), "{jobs}");
    assert_eq!(jobs["jobs"][0]["counts"], ended["counts"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_on_after_a_kill_and_fetches_nothing_twice_that_was_kept() {
    let (origin, paths) = filled(200).await;
    let mut larder = TestLarder::start(&remote("generic", &origin, "")).await;
    // All places are taken by these when the first hundred are there.
    let held = &paths[100..104];
    for path in held {
        origin.hold(&format!("/{path}"));
    }
    let job = begin(&larder, "generic", &json!({"paths": paths})).await;
    until(&larder, &job, |job| counts(job)[2] == 100).await;
    larder.kill9();
    for path in held {
        origin.release(&format!("/{path}"));
    }
    larder.restart().await;
    let ended = until_ended(&larder, &job).await;
    assert_eq!(
        (ended["state"].as_str(), counts(&ended)),
        (Some("done"), [0, 0, 200, 0, 0])
    );
    for path in &paths {
        let asked = origin.count("GET", &format!("/{path}"));
        let most = if held.contains(path) { 2 } else { 1 };
        assert!(
            (1..=most).contains(&asked),
            "{path} was fetched {asked} times"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_skips_the_rest() {
    let (origin, paths) = filled(50).await;
    let larder = TestLarder::start(&remote("generic", &origin, "")).await;
    for path in &paths[10..14] {
        origin.hold(&format!("/{path}"));
    }
    let job = begin(&larder, "generic", &json!({"paths": paths})).await;
    until(&larder, &job, |job| counts(job)[2] == 10).await;
    let answer = send("DELETE", &larder.url(&job), &[]).await;
    assert_eq!(
        (answer.status, answer.json()["state"].as_str()),
        (200, Some("cancelled"))
    );
    for path in &paths[10..14] {
        origin.release(&format!("/{path}"));
    }
    // The next one has its turn, and the cancelled one stays as it is.
    let next = begin(&larder, "generic", &json!({"paths": [paths[49]]})).await;
    until_ended(&larder, &next).await;
    let cancelled = get(&larder.url(&job)).await.json();
    assert_eq!(counts(&cancelled), [0, 0, 10, 40, 0], "{cancelled}");
    let skipped = &cancelled["items"][20];
    assert_eq!(
        (&skipped["state"], &skipped["reason"]),
        (&json!("skipped"), &json!("cancelled"))
    );
    for path in &paths[14..49] {
        assert_eq!(origin.count("GET", &format!("/{path}")), 0, "{path}");
    }
    let again = send("DELETE", &larder.url(&job), &[]).await;
    assert_eq!(
        (again.status, again.json()["state"].as_str()),
        (200, Some("cancelled"))
    );
    let jobs = get(&larder.url("api/v1/jobs?limit=1")).await.json();
    assert!(
        jobs["jobs"][0]["id"]
            .as_str()
            .is_some_and(|id| next.ends_with(id)),
        "{jobs}"
    );
    let cursor = jobs["next"].as_str().expect("a cursor");
    let rest = get(&larder.url(&format!("api/v1/jobs?limit=1&cursor={cursor}")))
        .await
        .json();
    assert!(
        rest["jobs"][0]["id"]
            .as_str()
            .is_some_and(|id| job.ends_with(id)),
        "{rest}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_brings_its_manifests_config_and_layers() {
    let origin = Origin::start().await;
    let put = |kind: &str, body: &str, content_type: &str| {
        let digest = sha256(body.as_bytes()).to_string();
        let resource = Resource::new(body.to_owned()).content_type(content_type);
        let path = format!("team/app/{kind}/{digest}");
        origin.put(&format!("/v2/{path}"), resource);
        (
            path,
            json!({"mediaType": content_type, "digest": digest, "size": body.len()}),
        )
    };
    let (layer_at, layer) = put("blobs", "a layer", "application/vnd.oci.image.layer.v1.tar");
    let (config_at, config) = put("blobs", "{}", "application/vnd.oci.image.config.v1+json");
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": [layer]});
    let (manifest_at, manifest) = put("manifests", &manifest.to_string(), manifest_type);
    let index_type = "application/vnd.oci.image.index.v1+json";
    let index =
        json!({"schemaVersion": 2, "mediaType": index_type, "manifests": [manifest]}).to_string();
    origin.put(
        "/v2/team/app/manifests/1.0",
        Resource::new(index).content_type(index_type),
    );
    let larder = TestLarder::start(&remote("docker", &origin, "")).await;
    let job = begin(
        &larder,
        "docker",
        &json!({"paths": ["team/app/manifests/1.0"]}),
    )
    .await;
    let ended = until_ended(&larder, &job).await;
    assert_eq!(counts(&ended), [0, 0, 4, 0, 0], "{ended}");
    drop(origin);
    for path in [
        "team/app/manifests/1.0",
        &manifest_at,
        &config_at,
        &layer_at,
    ] {
        let answer = get(&larder.url(&format!("v2/docker/{path}"))).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pattern_fetches_what_the_upstream_offers_and_it_matches() {
    let origin = Origin::start().await;
    let files = ["1.0.0", "1.1.0", "2.0.0"].map(|version| File::generated("jam", version, 700, 3));
    let charts = helm(&origin, &files);
    let larder = TestLarder::start(&remote("helm", &origin, "")).await;
    let body = json!({"remote": "helm", "pattern": r"jam-1\."});
    let answer = post(&larder, "cache", &body).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let job = format!(
        "api/v1/jobs/{}",
        answer.json()["id"].as_str().expect("an id")
    );
    let ended = until_ended(&larder, &job).await;
    assert_eq!(counts(&ended), [0, 0, 2, 0, 0], "{ended}");
    let asked = charts
        .iter()
        .map(|chart| origin.count("GET", &format!("/{chart}")));
    assert_eq!(asked.collect::<Vec<_>>(), [1, 1, 0]);
}

/// Lists show paths without queries. Helm keeps the query of an absolute link (`repo.ResolveReferenceURL`): so does a job.
#[tokio::test(flavor = "multi_thread")]
async fn charts_whose_links_have_queries_are_fetched_by_their_paths() {
    let origin = Origin::start().await;
    let (plain, queried) = (["z.tgz"], ["t.tgz?v=1", "t.tgz?v=2", "u.tgz?sig=a%2Fb"]);
    let links = plain.iter().chain(&queried).enumerate();
    let entries: Vec<String> = links
        .map(|(number, link)| {
            origin.put(&format!("/{link}"), Resource::new(*link));
            let digest = sha256(link.as_bytes()).to_hex();
            let url = origin.url(link);
            format!("  - {{name: t, version: 1.0.{number}, urls: ['{url}'], digest: {digest}}}\n")
        })
        .collect();
    let index = format!("apiVersion: v1\nentries:\n  t:\n{}", entries.concat());
    origin.put("/index.yaml", Resource::new(index));
    let larder = TestLarder::start(&remote("helm", &origin, "")).await;
    for body in [
        json!({"pattern": "tgz"}),
        json!({"paths": ["t.tgz", "u.tgz", "z.tgz"]}),
    ] {
        let job = begin(&larder, "helm", &body).await;
        let ended = until_ended(&larder, &job).await;
        assert_eq!(counts(&ended), [0, 0, 3, 0, 0], "{ended}");
        assert_eq!(
            (&ended["items"][0]["path"], &ended["items"][0]["bytes"]),
            (&json!("t.tgz"), &json!(18)),
            "both of it"
        );
    }
    for link in plain.iter().chain(&queried) {
        assert_eq!(origin.count("GET", &format!("/{link}")), 1, "{link}");
    }
    drop(origin);
    for link in queried {
        let answer = get(&larder.artifact("helm", link)).await;
        assert_eq!((answer.status, answer.text()), (200, link.to_owned()));
    }
}

/// apk asks for a package in the folder of the package's own architecture.
#[tokio::test(flavor = "multi_thread")]
async fn packages_without_an_architecture_are_fetched_where_apk_asks_for_them() {
    let origin = Origin::start().await;
    origin.put("/v3/x86_64/Packages.adb", Resource::new(INDEX_V3));
    origin.put("/v3/noarch/plain-1.0-r0.apk", Resource::new(PLAIN));
    let larder = TestLarder::start(&remote("alpine", &origin, "")).await;
    let body = json!({"pattern": "plain", "name": "v3/x86_64"});
    let job = begin(&larder, "alpine", &body).await;
    let ended = until_ended(&larder, &job).await;
    let items = items(&larder, &job).await;
    assert_eq!(counts(&ended), [0, 0, 1, 0, 0], "{items:?}");
    assert_eq!(items[0]["path"], "v3/noarch/plain-1.0-r0.apk");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_says_why_and_what_is_malformed_makes_no_job() {
    let (origin, paths) = filled(2).await;
    let config = format!(
        "remotes:\n{}{}  mine: {{ type: local, package: generic }}\n  all: {{ type: virtual, package: helm, members: [helm] }}\n",
        entry("generic", "generic", &origin, "deny_patterns: ['secret']"),
        entry("helm", "helm", &origin, ""),
    );
    let larder = TestLarder::start(&config).await;
    let wanted = json!({"paths": [paths[0], "absent", "secret.bin"]});
    let job = begin(&larder, "generic", &wanted).await;
    let ended = until_ended(&larder, &job).await;
    assert_eq!(
        (ended["state"].as_str(), counts(&ended)),
        (Some("done"), [0, 0, 1, 0, 2])
    );
    let reasons: Vec<&str> = ended["items"]
        .as_array()
        .expect("items")
        .iter()
        .filter_map(|item| item["reason"].as_str())
        .collect();
    assert!(
        reasons.len() == 2 && reasons[1].contains("deny_patterns"),
        "{reasons:?}"
    );
    for (target, body, status) in [
        ("generic/cache", json!({}), 400),
        (
            "generic/cache",
            json!({"paths": ["a"], "pattern": "a"}),
            400,
        ),
        ("generic/cache", json!({"paths": ["../a"]}), 400),
        ("generic/cache", json!({"paths": [""]}), 400),
        ("generic/cache", json!({"patern": "a"}), 400),
        ("generic/cache", json!({"pattern": "a"}), 501),
        ("mine/cache", json!({"paths": ["a"]}), 400),
        ("all/cache", json!({"paths": ["index.yaml"]}), 400),
        ("absent/cache", json!({"paths": ["a"]}), 404),
        ("cache", json!({"paths": ["a"]}), 400),
    ] {
        let answer = post(&larder, target, &body).await;
        assert_eq!(answer.status, status, "{target} {body}: {}", answer.text());
    }
    let jobs = get(&larder.url("api/v1/jobs")).await.json();
    assert_eq!(jobs["jobs"].as_array().map(Vec::len), Some(1), "{jobs}");
    for (path, status) in [
        ("api/v1/jobs/1", 404),
        ("api/v1/jobs?limit=0", 400),
        ("api/v1/jobs?state=done", 400),
    ] {
        assert_eq!(get(&larder.url(path)).await.status, status, "{path}");
    }
}

/// A file that clients cannot find is of no use to them: the index comes along, though the file itself is held already.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_held_brings_its_index_where_that_is_forgotten() {
    let origin = Origin::start().await;
    let files = ["1.0.0", "1.1.0"].map(|version| File::generated("jam", version, 700, 3));
    let charts = helm(&origin, &files);
    let larder = TestLarder::start(&remote("helm", &origin, "")).await;
    let wanted = json!({"paths": charts});
    let first = begin(&larder, "helm", &wanted).await;
    assert_eq!(counts(&until_ended(&larder, &first).await), [0, 0, 2, 0, 0]);
    assert_eq!(origin.count("GET", "/index.yaml"), 1, "with the first file");
    let flush = larder.url("cache/flush?remote=helm&cache_type=index");
    assert_eq!(send("PUT", &flush, &[]).await.status, 200);
    let second = begin(&larder, "helm", &wanted).await;
    assert_eq!(
        counts(&until_ended(&larder, &second).await),
        [0, 0, 2, 0, 0]
    );
    assert_eq!(origin.count("GET", "/index.yaml"), 2);
    for chart in &charts {
        assert_eq!(origin.count("GET", &format!("/{chart}")), 1, "{chart}");
    }
    drop(origin);
    let index = get(&larder.artifact("helm", "index.yaml")).await;
    assert_eq!(index.status, 200, "{}", index.text());
}

/// A flush voids what is under way: the job fetches it again, and does not say that there was no room for it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_flushed_while_it_is_fetched_is_fetched_again() {
    let (origin, paths) = filled(1).await;
    let larder = TestLarder::start(&remote("generic", &origin, "")).await;
    let path = format!("/{}", paths[0]);
    origin.hold(&path);
    let job = begin(&larder, "generic", &json!({"paths": paths})).await;
    origin.wait_for("GET", &path, 1).await;
    let flush = larder.url("cache/flush?remote=generic");
    assert_eq!(send("PUT", &flush, &[]).await.status, 200);
    origin.release(&path);
    let ended = until_ended(&larder, &job).await;
    assert_eq!(counts(&ended), [0, 0, 1, 0, 0], "{ended}");
    assert_eq!(origin.count("GET", &path), 2);
}

/// The jobs behind one wait for it: it waits for no upstream that does not say that it is soon ready.
#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_does_not_say_when_to_ask_again_holds_no_job_up() {
    let (origin, paths) = filled(2).await;
    let refused = format!("/{}", paths[0]);
    origin.put(&refused, Resource::new("slower").status(429));
    let larder = TestLarder::start(&remote("generic", &origin, "")).await;
    let first = begin(&larder, "generic", &json!({"paths": [paths[0]]})).await;
    let second = begin(&larder, "generic", &json!({"paths": [paths[1]]})).await;
    let ended = until_ended(&larder, &second).await;
    assert_eq!(counts(&ended), [0, 0, 1, 0, 0], "{ended}");
    let failed = get(&larder.url(&first)).await.json();
    assert_eq!(counts(&failed), [0, 0, 0, 0, 1], "{failed}");
    let reason = failed["items"][0]["reason"].as_str().expect("a reason");
    assert!(reason.contains("429"), "{reason}");
    assert_eq!(origin.count("GET", &refused), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_of_a_job_are_folded_as_those_of_clients() {
    let (origin, paths) = filled(1).await;
    let larder = TestLarder::start(&remote("generic", &origin, "")).await;
    let wanted = json!({"paths": ["./f/000.bin", "f//000.bin", "/f/./000.bin"]});
    let job = begin(&larder, "generic", &wanted).await;
    let ended = until_ended(&larder, &job).await;
    assert_eq!(counts(&ended), [0, 0, 1, 0, 0], "{ended}");
    assert_eq!(ended["items"][0]["path"], paths[0], "{ended}");
}

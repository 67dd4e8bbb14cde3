//! A larder behind a larder: what the headers of the one behind become at the one in front.

use larder_testkit::Origin;
use larder_testkit::servers::free_port;

use super::*;
use support::packages::{self, File};
use support::{Answer, TestLarder};

/// Repositories of all types over one origin, and over those the ones that clients ask.
struct Chain {
    origin: Origin,
    behind: TestLarder,
    front: TestLarder,
}

const TYPES: [&str; 7] = ["generic", "alpine", "rpm", "docker", "pypi", "npm", "helm"];

async fn chain(behind: &str, front: &str, further: impl FnOnce(&Origin) -> String) -> Chain {
    let origin = Origin::start().await;
    let one_of_each = |base: &dyn Fn(&str) -> String, keys: &str| -> String {
        let entry = |name: &&str| {
            let url = base(name);
            format!("  {name}: {{ package: {name}, base_url: '{url}', {keys} }}\n")
        };
        TYPES.iter().map(entry).collect()
    };
    let remotes = one_of_each(&|_| origin.url("/"), behind);
    let config = format!("remotes:\n{remotes}{}", further(&origin));
    let behind = TestLarder::start(&config).await;
    let over = |name: &str| match name {
        "docker" => behind.url("v2/docker/"),
        _ => behind.artifact(name, ""),
    };
    let skipping = format!(
        "  charts: {{ package: helm, base_url: '{}' }}\n  merged: {{ package: helm, type: virtual, members: [charts] }}\n",
        behind.url("api/v1/virtual/charts/")
    );
    let remotes = one_of_each(&over, front);
    let front = TestLarder::start(&format!("remotes:\n{remotes}{skipping}")).await;
    Chain {
        origin,
        behind,
        front,
    }
}

fn url(larder: &TestLarder, name: &str, path: &str) -> String {
    match name {
        "docker" => larder.url(&format!("v2/docker/{path}")),
        _ => larder.artifact(name, path),
    }
}

/// A file of each type, and a document of those that have one which larder writes anew.
fn fill(origin: &Origin) -> Vec<(&'static str, String)> {
    let file = |seed| File::generated("pantry", "1.0.0", 3_000, seed);
    let mut paths: Vec<(&str, String)> = vec![
        ("generic", "a/file.bin".to_owned()),
        ("alpine", "v3/main/x86_64/pantry-1.0-r0.apk".to_owned()),
        ("rpm", "Packages/p/pantry-1.0-1.noarch.rpm".to_owned()),
    ];
    for (seed, (_, path)) in (1..).zip(&paths) {
        let resource = Resource::new(Payload::generated(3_000, seed));
        origin.put(
            &format!("/{path}"),
            resource.etag(&format!("\"file-{seed}\"")),
        );
    }
    let manifest = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[]}"#;
    let manifest = Resource::new(manifest)
        .content_type("application/vnd.oci.image.manifest.v1+json")
        .etag("\"manifest\"");
    origin.put("/v2/team/app/manifests/1.0", manifest);
    paths.push(("docker", "team/app/manifests/1.0".to_owned()));
    paths.push(("pypi", "simple/pantry/".to_owned()));
    paths.push(("npm", "pantry".to_owned()));
    paths.push(("helm", "index.yaml".to_owned()));
    let wheels = packages::pypi_json(origin, "pantry", &[file(10)]);
    let tarballs = packages::npm(origin, "pantry", &[file(11)]);
    let charts = packages::helm(origin, &[file(12)]);
    for (name, of) in [("pypi", wheels), ("npm", tarballs), ("helm", charts)] {
        paths.extend(of.into_iter().map(|path| (name, path)));
    }
    paths
}

fn seconds(answer: &Answer, field: &str) -> u64 {
    let value = answer.header(field);
    value
        .parse()
        .unwrap_or_else(|_| panic!("{field}: {value:?}"))
}

/// RFC 9111 section 4.2.3: an age that the answer had counts. RFC 9211 section 2: the cache nearest to the client comes last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ages_add_up_and_each_cache_says_what_it_did() {
    let chain = chain(
        "cache: { mutable_ttl: 100 }",
        "cache: { mutable_ttl: 100 }",
        |_| String::new(),
    )
    .await;
    let paths = fill(&chain.origin);
    for (name, path) in &paths {
        let (behind, front) = (
            url(&chain.behind, name, path),
            url(&chain.front, name, path),
        );
        let what = format!("{name} {path}");
        assert_eq!(get(&behind).await.status, 200, "{what}");
        tokio::time::sleep(Duration::from_millis(2_100)).await;
        let held = get(&behind).await;
        assert!(seconds(&held, "age") >= 2, "{what}");
        let asked = chain.origin.requests().len();
        let first = get(&front).await;
        assert_eq!(first.status, 200, "{what}: {}", first.text());
        let members: Vec<&str> = first.cache_status().split(", ").collect();
        assert_eq!(members.len(), 2, "{what}: {members:?}");
        assert!(members[0].starts_with("larder; hit"), "{what}: {members:?}");
        assert!(
            members[1].starts_with("larder; fwd=uri-miss"),
            "{what}: {members:?}"
        );
        let age = seconds(&first, "age");
        assert!((2..30).contains(&age), "{what}: {age}");
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        let hit = get(&front).await;
        assert!(
            hit.cache_status().starts_with("larder; hit"),
            "{what}: {}",
            hit.cache_status()
        );
        assert!(
            !hit.cache_status().contains(", "),
            "{what}: the request came to no other"
        );
        assert!(seconds(&hit, "age") > age, "{what}");
        let date = |answer: &Answer| httpdate::parse_http_date(answer.header("date")).unwrap();
        // Both speak of when the origin was heard.
        let apart = date(&held)
            .max(date(&hit))
            .duration_since(date(&held).min(date(&hit)));
        assert!(apart.unwrap() <= Duration::from_secs(1), "{what}");
        let head = send("HEAD", &front, &[]).await;
        assert_eq!(head.header("etag"), hit.header("etag"), "{what}");
        assert!(seconds(&head, "age") > age, "{what}");
        assert_eq!(chain.origin.requests().len(), asked, "{what}");
        // Remembered heads and the hot set say the same.
        for _ in 0..3 {
            let hot = get(&front).await;
            assert!(seconds(&hot, "age") > age, "{what}");
            assert!(!hot.cache_status().contains(", "), "{what}");
        }
    }
    // Cold in both: each says that it asked.
    chain.origin.put("/cold.bin", Resource::new("cold"));
    let cold = get(&url(&chain.front, "generic", "cold.bin")).await;
    let members: Vec<&str> = cold.cache_status().split(", ").collect();
    assert_eq!(members.len(), 2, "{members:?}");
    for member in members {
        assert!(
            member.starts_with("larder; fwd=uri-miss; fwd-status=200"),
            "{member}"
        );
    }
    assert_eq!(cold.header("age"), "", "it comes straight from the origin");
    println!("{} answers of seven types through two larders", paths.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_304_goes_through_both_and_no_body_is_sent_twice() {
    let keys = "revalidate: get, immutable_patterns: ['.'], mutable_patterns: ['bin$', '^pantry$'], cache: { mutable_ttl: 1 }";
    let chain = chain(keys, keys, |_| String::new()).await;
    let paths = fill(&chain.origin);
    let documents = ["file.bin", "manifests/1.0", "simple/pantry/", "index.yaml"];
    for (name, path) in paths.iter().filter(|(name, path)| {
        documents.iter().any(|end| path.ends_with(end)) || (*name, &**path) == ("npm", "pantry")
    }) {
        let front = url(&chain.front, name, path);
        let what = format!("{name} {path}");
        let first = get(&front).await;
        assert_eq!(first.status, 200, "{what}: {}", first.text());
        let tag = first.header("etag").to_owned();
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        chain.origin.reset_log();
        let again = send("GET", &front, &[("If-None-Match", &tag)]).await;
        assert_eq!(again.status, 304, "{what}: {}", again.text());
        assert_eq!(again.header("etag"), tag, "{what}");
        let members: Vec<&str> = again.cache_status().split(", ").collect();
        assert_eq!(members.len(), 2, "{what}: {members:?}");
        for member in &members {
            assert!(
                member.starts_with("larder; fwd=stale; fwd-status=304"),
                "{what}: {member}"
            );
        }
        let asked = chain.origin.requests();
        let conditional: Vec<_> = asked
            .iter()
            .filter(|request| request.header("if-none-match").is_some())
            .collect();
        assert_eq!(
            conditional.len(),
            1,
            "{what}: one question, with the origin's tag: {asked:?}"
        );
        // `Via` names both larders, the one that clients ask first.
        let via = conditional[0].header("via").expect("Via").to_owned();
        let names: Vec<&str> = via.split(", ").collect();
        assert_eq!(names.len(), 2, "{what}: {via}");
        assert!(names.iter().all(|name| name.starts_with("1.1 larder-")) && names[0] != names[1]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_absences_and_what_is_left_out_are_seen_through() {
    let further = |origin: &Origin| {
        let url = origin.url("/");
        let dead = format!("http://127.0.0.1:{}/", free_port());
        format!(
            "  good: {{ package: helm, base_url: '{url}' }}\n  dead: {{ package: helm, base_url: '{dead}' }}\n  \
             charts: {{ package: helm, type: virtual, members: [good, dead] }}\n  \
             new: {{ package: generic, base_url: '{url}', quarantine_new: true }}\n"
        )
    };
    let chain = chain("negative_ttl: 10", "negative_ttl: 10", further).await;
    fill(&chain.origin);
    for (name, path, at) in [
        ("generic", "wait.bin", "/wait.bin"),
        (
            "docker",
            "team/app/manifests/wait",
            "/v2/team/app/manifests/wait",
        ),
        ("npm", "wait", "/wait"),
    ] {
        for status in [429_u16, 503] {
            let wait = Resource::new("wait").header("Retry-After", "37");
            chain.origin.put(at, wait.status(status));
            chain.origin.reset_log();
            for _ in 0..2 {
                let answer = get(&url(&chain.front, name, path)).await;
                assert_eq!(answer.status, status, "{name}: {}", answer.text());
                let seconds = seconds(&answer, "retry-after");
                assert!((30..=37).contains(&seconds), "{name}: {seconds}");
            }
            assert_eq!(chain.origin.requests().len(), 1, "{name} {status}");
            for larder in [&chain.behind, &chain.front] {
                send("PUT", &larder.url("cache/flush"), &[]).await;
            }
        }
    }
    // The first answer, one from the cache, and one of a merge: none of them outlives the hole by more than the one behind would.
    let merged = chain.front.url("api/v1/virtual/merged/index.yaml");
    let remote = chain.front.artifact("charts", "index.yaml");
    for url in [&remote, &remote, &merged, &merged] {
        let skipped = get(url).await;
        assert_eq!(skipped.status, 200, "{}", skipped.text());
        assert_eq!(skipped.header("x-larder-skipped"), "dead", "{url}");
        let control = skipped.header("cache-control");
        let life = control.split_once("max-age=").and_then(|(_, life)| {
            let digits = life.split(',').next()?;
            digits.parse::<u64>().ok()
        });
        let age = skipped.header("age").parse::<u64>().unwrap_or(0);
        assert!(
            life.is_some_and(|life| life <= 30 + age),
            "{url}: {control}"
        );
    }
    let absent = get(&url(&chain.front, "generic", "absent.bin")).await;
    assert_eq!(absent.status, 404);
}

/// What the one behind holds back is not there for the one in front, and comes when it is let through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quarantine_behind_is_an_absence_in_front() {
    let origin = Origin::start().await;
    let fresh = larder_core::Clock::now(&larder_core::SystemClock).to_http_date();
    let resource = Resource::new("new").last_modified(&fresh);
    origin.put("/new.bin", resource);
    let keys = |days: u32| {
        format!(
            "remotes:\n  files: {{ package: generic, base_url: '{}', quarantine_new: {}, quarantine_days: {days} }}\n",
            origin.url("/"),
            days > 0
        )
    };
    let mut behind = TestLarder::start(&keys(3)).await;
    let config = format!(
        "remotes:\n  files: {{ package: generic, base_url: '{}', negative_ttl: 1 }}\n",
        behind.artifact("files", "")
    );
    let front = TestLarder::start(&config).await;
    let url = front.artifact("files", "new.bin");
    let own = get(&behind.artifact("files", "new.bin")).await;
    let held = get(&url).await;
    assert_eq!((held.status, own.status), (404, 404), "{}", held.text());
    behind.write_config(&keys(0));
    behind.signal(Signal::HUP);
    let is_there = |answer: &Answer| answer.status == 200 && answer.text() == "new";
    until(&url, is_there, PATIENCE).await;
}

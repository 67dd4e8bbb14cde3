//! Pages of a large installation stay small.

use std::fmt::Write as _;

use super::*;

#[tokio::test]
async fn pages_stay_small_with_a_hundred_repositories() {
    let origin = Origin::start().await;
    let mut config = format!("auth: {{ admin_token: {TOKEN} }}\nremotes:\n");
    for number in 0..100 {
        let _ = write!(
            config,
            "  repository-number-{number:03}:\n    package: generic\n    base_url: [{}, {}]\n    \
             description: a repository with a description that says what it is for and who asks for it\n    \
             immutable_patterns: ['\\.bin$', '\\.tar\\.gz$', '^releases/']\n    mutable_patterns: ['^index']\n    \
             deny_patterns: ['^private/']\n",
            origin.url(&format!("/{number}/a")),
            origin.url(&format!("/{number}/b")),
        );
    }
    let larder = TestLarder::start(&config).await;
    for number in 0..100 {
        let path = format!("repository-number-{number:03}");
        get(&larder.artifact(&path, "private/x.bin")).await;
        get(&larder.artifact(&path, "missing.bin")).await;
    }
    let visitor = sign_in(&larder).await;
    let headers = [("accept", BROWSER), ("cookie", &*visitor.cookie)];
    for path in [
        "ui/",
        "ui/repositories",
        "ui/repositories/repository-number-050",
        "ui/health",
        "ui/configuration",
        "ui/configuration?after=repository-number-050",
    ] {
        let answer = send("GET", &larder.url(path), &headers).await;
        assert_eq!(answer.status, 200, "{path}");
        println!(
            "{path}: {} bytes, {}",
            answer.body.len(),
            answer.header("server-timing")
        );
        assert!(
            answer.body.len() <= 150_000,
            "{path}: {} bytes",
            answer.body.len()
        );
    }
    let answer = super::json(&larder, "ui/repositories").await;
    assert_eq!(
        answer["repositories"].as_array().expect("a list").len(),
        100
    );
}

/// What belongs to a repository is looked up: with a search of all for each, these pages took many seconds. And they are no longer than
/// others.
#[tokio::test]
async fn pages_are_soon_there_and_short_with_five_thousand_repositories() {
    const FAILING: usize = 200;
    let mut config = String::from("remotes:\n");
    for number in 0..5_000 {
        let _ = writeln!(
            config,
            "  r{number}: {{ package: generic, base_url: [\"http://127.0.0.1:9/{number}\", \"http://127.0.0.1:9/m{number}\"] }}"
        );
    }
    let larder = TestLarder::start(&config).await;
    for number in 0..FAILING {
        let path = larder.artifact(&format!("r{}", 4_999 - number), "x.bin");
        assert_eq!(get(&path).await.status, 502);
    }
    for path in ["ui/", "ui/repositories", "ui/health", "ui/search"] {
        let mut soonest = f64::INFINITY;
        for _ in 0..4 {
            let answer = page(&larder, path).await;
            assert_eq!(answer.status, 200, "{path}");
            assert!(
                answer.body.len() <= 150_000,
                "{path}: {} bytes",
                answer.body.len()
            );
            let took = answer.header("server-timing").rsplit_once('=');
            let took = took.and_then(|(_, took)| took.parse::<f64>().ok());
            soonest = soonest.min(took.expect("how long it took"));
        }
        println!("{path}: {soonest} ms");
        assert!(soonest < 3_000.0, "{path} took {soonest} ms");
    }

    // What is not shown is counted, and what fails comes first.
    let overview = json(&larder, "ui/").await;
    assert_eq!(overview["problems"].as_array().expect("a list").len(), 30);
    assert!(overview["problems_in_all"].as_u64() >= Some(FAILING as u64));
    let health = json(&larder, "ui/health").await;
    assert_eq!(health["upstreams_in_all"], 10_000);
    let shown = health["upstreams"].as_array().expect("a list");
    assert!(shown.len() < 1_000 && shown.iter().all(|row| row["state"] == "failing"));

    // Pages follow each other, and together they are all of them.
    let mut seen = std::collections::BTreeSet::new();
    let mut next = Some("ui/repositories".to_owned());
    while let Some(path) = next {
        let list = json(&larder, &path).await;
        assert_eq!(list["repositories_in_all"], 5_000);
        for row in list["repositories"].as_array().expect("a list") {
            let name = row["name"].as_str().expect("a name").to_owned();
            assert!(seen.insert(name), "twice: {row}");
        }
        let last = list["next"].as_str();
        next = last.map(|last| format!("ui/repositories?after={last}"));
    }
    assert_eq!(seen.len(), 5_000);
}

/// Reasons of a page's length do not make it one; the JSON has them whole.
#[tokio::test]
async fn long_reasons_of_a_package_are_cut() {
    let origin = Origin::start().await;
    let reason = "no longer kept up, see <the next one> ö ".repeat(120);
    let versions: Vec<String> = (0..130)
        .map(|number| {
            let tarball = origin.url(&format!("/long/-/long-1.0.{number}.tgz"));
            format!(
                r#""1.0.{number}": {{"name": "long", "version": "1.0.{number}", "deprecated": "{reason}", "dist": {{"tarball": "{tarball}"}}}}"#
            )
        })
        .collect();
    let packument = format!(
        r#"{{"name": "long", "dist-tags": {{"latest": "1.0.0"}}, "versions": {{{}}}}}"#,
        versions.join(",")
    );
    let packument = Resource::new(packument).content_type("application/json");
    origin.put("/long", packument);
    let base = origin.url("");
    let config = format!("remotes: {{ npm: {{ package: npm, base_url: \"{base}\" }} }}\n");
    let larder = TestLarder::start(&config).await;
    assert_eq!(get(&larder.artifact("npm", "long")).await.status, 200);
    until_held(&larder, "npm", 1).await;
    let path = "ui/repositories/npm/package?name=long";
    let answer = page(&larder, path).await;
    assert_eq!(answer.status, 200);
    let text = answer.text();
    assert!(text.len() <= 150_000, "{} bytes", text.len());
    assert!(text.contains("no longer kept up") && text.contains(" …</bdi>"));
    let whole = json(&larder, path).await;
    assert_eq!(whole["files"][0]["deprecated"], reason);
}

/// What a stranger may call something, with its number in front.
fn wordy(number: usize) -> String {
    format!("{number}-{}", "<&> long ".repeat(400))
}

/// The document of a package whose tags and versions have long names.
fn wordy_package(origin: &Origin) -> Resource {
    let tags = (0..120).map(|of| format!(r#""{}": "1.0.{of}""#, wordy(of)));
    let tags: Vec<String> = tags.collect();
    let versions = (0..120).map(|of| {
        let version = format!("1.0.{of}-{}", "long".repeat(900));
        let tarball = origin.url(&format!("/wordy/-/wordy-{version}.tgz"));
        format!(
            r#""{version}": {{"name": "wordy", "version": "{version}", "dist": {{"tarball": "{tarball}"}}}}"#
        )
    });
    let versions: Vec<String> = versions.collect();
    let document = format!(
        r#"{{"name": "wordy", "dist-tags": {{{}}}, "versions": {{{}}}}}"#,
        tags.join(","),
        versions.join(",")
    );
    Resource::new(document).content_type("application/json")
}

const IMAGE_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// A manifest of 190 layers of long types, that says something of what is no digest.
fn wordy_manifest() -> Resource {
    let part = |of: usize| {
        let digest = larder_core::sha256(of.to_string().as_bytes());
        let kind = wordy(of);
        format!(r#"{{"mediaType": "{kind}", "digest": "{digest}", "size": 1}}"#)
    };
    let layers: Vec<String> = (0..190).map(part).collect();
    let manifest = format!(
        r#"{{"schemaVersion": 2, "mediaType": "{IMAGE_TYPE}", "artifactType": "{0}", "subject": {{"mediaType": "{0}", "digest": "{0}", "size": 1}}, "config": {1}, "layers": [{2}]}}"#,
        wordy(0).repeat(20),
        part(0),
        layers.join(",")
    );
    Resource::new(manifest).content_type(IMAGE_TYPE)
}

/// Names of tags and versions, and types of layers, have no length that a registry must keep to.
#[tokio::test]
async fn hazard_pages_of_packages_and_images_stay_short_whatever_is_in_them() {
    let origin = Origin::start().await;
    origin.put("/wordy", wordy_package(&origin));
    origin.put("/v2/", Resource::new("{}"));
    origin.put("/v2/wordy/manifests/1.0", wordy_manifest());
    let base = origin.url("");
    let larder = TestLarder::start(&format!(
        "remotes:\n  npm: {{ package: npm, base_url: \"{base}\" }}\n  images: {{ package: docker, base_url: \"{base}\" }}\n"
    ))
    .await;
    let package = larder.artifact("npm", "wordy");
    let manifest = larder.url("v2/images/wordy/manifests/1.0");
    let image = "ui/repositories/images/image?name=wordy&reference=1.0";
    for (address, repository, path) in [
        (package, "npm", "ui/repositories/npm/package?name=wordy"),
        (manifest, "images", image),
    ] {
        let answer = send("GET", &address, &[("accept", IMAGE_TYPE)]).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let began = std::time::Instant::now();
        while held(&larder, repository).await == 0 {
            assert!(began.elapsed() < support::PATIENCE, "{path}: not held");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let answer = page(&larder, path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let text = answer.text();
        assert!(text.len() <= 150_000, "{path}: {} bytes", text.len());
        assert!(text.contains("0-&#60;&#38;&#62; long"), "{path}: {text}");
    }
    let manifest = json(&larder, image).await["manifest"].take();
    let shown = manifest["parts"].as_array().expect("a list").len() as u64;
    assert_eq!(manifest["left_out"].as_u64(), Some(190 - shown), "{shown}");
    assert!(shown > 50, "{shown}");
}

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

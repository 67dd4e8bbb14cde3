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

/// What belongs to a repository is looked up: with a search of all for each, these pages took many seconds.
#[tokio::test]
async fn pages_are_soon_there_with_five_thousand_repositories() {
    let mut config = String::from("remotes:\n");
    for number in 0..5_000 {
        let _ = writeln!(
            config,
            "  r{number}: {{ package: generic, base_url: [\"http://127.0.0.1:9/{number}\", \"http://127.0.0.1:9/m{number}\"] }}"
        );
    }
    let larder = TestLarder::start(&config).await;
    for path in ["ui/", "ui/repositories", "ui/health"] {
        let mut soonest = f64::INFINITY;
        for _ in 0..4 {
            let answer = page(&larder, path).await;
            assert_eq!(answer.status, 200, "{path}");
            let took = answer.header("server-timing").rsplit_once('=');
            let took = took.and_then(|(_, took)| took.parse::<f64>().ok());
            soonest = soonest.min(took.expect("how long it took"));
        }
        println!("{path}: {soonest} ms");
        assert!(soonest < 3_000.0, "{path} took {soonest} ms");
    }
}

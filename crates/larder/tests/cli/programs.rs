//! What programs that call the commands meet: JSON whatever happens, standard output that takes no more, and what an upstream offers.

use std::process::Stdio;

use larder_testkit::{Origin, Resource};
use serde_json::Value;

use crate::support::packages::entry;
use crate::support::{TestLarder, get};
use crate::{Done, larder, run};

/// An index of one chart in two versions.
const CHARTS: &str = "apiVersion: v1\nentries:\n  jam:\n  - {name: jam, version: 1.0.0, urls: [jam-1.0.0.tgz]}\n  \
    - {name: jam, version: 2.0.0, urls: [jam-2.0.0.tgz]}\n  tea:\n  - {name: tea, version: 1.0.0, urls: [tea-1.0.0.tgz]}\n";

async fn start(origin: &Origin) -> TestLarder {
    origin.put("/big.bin", Resource::new(vec![7; 1 << 20]));
    origin.put("/index.yaml", Resource::new(CHARTS));
    origin.put("/jam-1.0.0.tgz", Resource::new("a chart"));
    let config = format!(
        "remotes:\n{}{}  files: {{ type: local }}\n",
        entry("a", "generic", origin, "deny_patterns: ['secret']"),
        entry("charts", "helm", origin, ""),
    );
    TestLarder::start(&config).await
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_json_whatever_happens() {
    let origin = Origin::start().await;
    let running = start(&origin).await;
    let server = running.url("/");
    let home = tempfile::tempdir().expect("a directory");
    std::fs::write(home.path().join("x"), "x").expect("a file");
    std::fs::write(home.path().join("urls.txt"), "absent.bin\n").expect("a file");
    let nobody = "http://127.0.0.1:1/";
    for (arguments, at) in [
        (&["ls", "none"][..], &*server),
        (&["du", "none"], &server),
        (&["get", "a/secret"], &server),
        (&["put", "x", "a/x"], &server),
        (&["put", "absent", "files/x"], &server),
        (&["rm", "files/none"], &server),
        (&["flush", "none"], &server),
        (&["flush", "a", "--pattern", "("], &server),
        (&["explain", "none/x"], &server),
        (&["warm", "-r", "none", "urls.txt"], &server),
        (&["warm", "-r", "a", "urls.txt"], &server),
        (&["warm", "-r", "a", "absent.txt"], &server),
        (&["export", "x"], &server),
        (&["import", "x"], &server),
        (&["scrub", "--status"], &server),
        (&["ls"], nobody),
        (&["gc"], nobody),
    ] {
        let done = run(
            home.path(),
            &[arguments, &["--json"]].concat(),
            &[("LARDER_URL", at)],
        )
        .await;
        assert!(matches!(done.code, Some(1 | 2)), "{arguments:?}: {done:?}");
        let said: Value = serde_json::from_str(&done.out)
            .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {done:?}"));
        let is_told = said["error"]
            .as_str()
            .is_some_and(|error| done.err.contains(error));
        let is_listed = said["failed"][0]["reason"].is_string();
        assert!(is_told || is_listed, "{arguments:?}: {done:?}");
    }
    // Where standard output is for a file's bytes, there is nothing else.
    let bytes = ["get", "a/secret", "-o", "-", "--json"];
    let done = run(home.path(), &bytes, &[("LARDER_URL", &*server)]).await;
    done.refused(1, &["deny_patterns"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_output_that_takes_no_more_ends_a_command() {
    let origin = Origin::start().await;
    let running = start(&origin).await;
    let server = running.url("/");
    let home = tempfile::tempdir().expect("a directory");
    let env = [("LARDER_URL", server.as_str())];
    for arguments in [
        &["get", "a/big.bin", "-o", "-"][..],
        &["ls"],
        &["du", "--json"],
    ] {
        // A disk that is full is said.
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
        let mut command = larder(home.path(), arguments, &env);
        command.stdout(full.expect("/dev/full"));
        let output = tokio::task::spawn_blocking(move || command.output()).await;
        let done = Done::of(&output.expect("a task").expect("the larder program"));
        done.refused(1, &["standard output", "No space left"]);
        // A reader that has gone is nobody to tell.
        let mut command = larder(home.path(), arguments, &env);
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        command.stdout(writer).stderr(Stdio::piped());
        let child = command.spawn().expect("the larder program");
        drop(command);
        let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await;
        let done = Done::of(&output.expect("a task").expect("its end"));
        assert_eq!((done.code, &*done.err), (Some(1), ""), "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_kind_of_repository_does_not_do_is_said() {
    let origin = Origin::start().await;
    let charts = entry("charts", "helm", &origin, "");
    let all =
        "  all: { type: virtual, package: helm, members: [charts] }\n  files: { type: local }\n";
    let running = TestLarder::start(&format!("remotes:\n{charts}{all}")).await;
    let server = running.url("/");
    let home = tempfile::tempdir().expect("a directory");
    let env = [("LARDER_URL", server.as_str())];
    let done = run(home.path(), &["rm", "all/jam-1.0.0.tgz"], &env).await;
    done.refused(1, &["all is a virtual repository", "members"]);
    let said = run(home.path(), &["flush", "files"], &env).await.ok();
    assert!(
        said.contains("local repository") && said.contains("larder rm"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_upstream_offers_is_listed() {
    let origin = Origin::start().await;
    let running = start(&origin).await;
    let server = running.url("/");
    let home = tempfile::tempdir().expect("a directory");
    let env = [("LARDER_URL", server.as_str())];
    let chart = running.artifact("charts", "jam-1.0.0.tgz");
    assert_eq!(get(&chart).await.status, 200);
    running.until_idle().await;
    let ls = async |more: &[&str]| run(home.path(), &[&["ls"], more].concat(), &env).await;
    let said = ls(&["charts", "--upstream", "--name", "jam"]).await.ok();
    let lines: Vec<Vec<&str>> = said
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let lines: Vec<(&str, &str)> = lines.iter().map(|words| (words[1], words[2])).collect();
    assert_eq!(
        lines,
        [
            ("held", "charts/jam-1.0.0.tgz"),
            ("-", "charts/jam-2.0.0.tgz")
        ]
    );
    let all = ls(&["charts", "--upstream", "--json"]).await.ok();
    let all: Vec<Value> = all
        .lines()
        .map(|line| serde_json::from_str(line).expect("an object"))
        .collect();
    let held: Vec<_> = all
        .iter()
        .map(|one| (one["path"].as_str(), one["cached"].as_bool()))
        .collect();
    assert_eq!(
        held,
        [
            (Some("jam-1.0.0.tgz"), Some(true)),
            (Some("jam-2.0.0.tgz"), Some(false)),
            (Some("tea-1.0.0.tgz"), Some(false)),
        ]
    );
    let some = ls(&["charts/tea", "--upstream"]).await.ok();
    assert!(
        some.lines().count() == 1 && some.contains("charts/tea-1.0.0.tgz"),
        "{some}"
    );
    ls(&["a", "--upstream"])
        .await
        .refused(1, &["upstream of a", "no index"]);
    ls(&["files", "--upstream"]).await.refused(1, &["files"]);
    ls(&["--upstream"]).await.refused(2, &["REPO"]);
    ls(&["charts", "--name", "jam"])
        .await
        .refused(2, &["--upstream"]);
}

//! The larder that imports has another upstream than the one that exported.

use larder_testkit::Origin;

use super::{rpm, run, text};
use crate::support::client::client;
use crate::support::packages::{File, entry, pypi_json};
use crate::support::{TestLarder, get};

/// An upstream with a project and, below `root`, an RPM repository; gives the paths of both, and the configuration.
fn publish(origin: &Origin, root: &str) -> (Vec<String>, Vec<String>, String) {
    let wheels = ["1.0", "2.0"].map(|version| File::generated("pantry", version, 900, 7));
    let wheels = pypi_json(origin, "pantry", &wheels);
    let packages = rpm::publish(origin, root);
    let keys = "allow_private: [127.0.0.0/8]";
    let rpm = entry("rpm", "rpm", origin, keys);
    let rpm = rpm.replace(&origin.url("/"), &origin.url(&format!("/{root}")));
    let pypi = entry("pypi", "pypi", origin, keys);
    (wheels, packages, format!("remotes:\n{rpm}{pypi}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn its_own_upstream_is_asked_and_relative_links_lead_there() {
    let (theirs, ours) = (Origin::start().await, Origin::start().await);
    let (wheels, packages, config) = publish(&theirs, "pub/");
    let source = TestLarder::start(&config).await;
    let page = get(&source.artifact("pypi", "simple/pantry/")).await;
    assert_eq!(page.status, 200, "{}", page.text());
    assert!(page.text().contains(&wheels[1]), "{}", page.text());
    let (package, metadata) = packages.split_last().expect("paths");
    for path in metadata {
        assert_eq!(get(&source.artifact("rpm", path)).await.status, 200);
    }
    source.until_idle().await;
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("a.tar");
    run(&source, &["export", text(&path)]).await.ended(0);
    let (.., config) = publish(&ours, "a/mirror/");
    let target = TestLarder::start(&config).await;
    run(&target, &["import", text(&path)]).await.ended(0);
    theirs.reset_log();
    let here = get(&target.artifact("pypi", "simple/pantry/")).await;
    assert_eq!((here.source(), here.text()), ("cache", page.text()));
    // Nor does a row lead there that does not say where below its upstream it was found.
    let mut rows = get(&source.url("api/v1/archive/pypi")).await.json()["rows"].take();
    for row in rows.as_array_mut().expect("rows") {
        assert!(row["below"].is_string(), "{row}");
        row["below"].take();
        let record = &mut row["record"];
        record["contacted_at"] = (record["contacted_at"].as_i64().expect("a time") + 1).into();
    }
    let request = client().post(target.url("api/v1/archive/pypi"));
    let body = serde_json::json!({"rows": rows}).to_string();
    let answer = request.body(body).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let here = get(&target.artifact("pypi", "simple/pantry/")).await;
    assert_eq!(here.text(), page.text());
    for (repository, path) in [("pypi", &wheels[1]), ("rpm", package)] {
        let answer = get(&target.artifact(repository, path)).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }
    assert_eq!(ours.count("GET", &format!("/a/mirror/{package}")), 1);
    assert_eq!(theirs.count("*", "*"), 0, "{:?}", theirs.requests());
}

//! `warm` through a virtual repository: each chart is fetched for the member that its merged index takes it from.

use larder_core::sha256;
use larder_testkit::{Origin, Resource};

use crate::support::packages::entry;
use crate::support::{TestLarder, get};
use crate::{Done, run};

/// A Helm repository with these charts, whose archives name `of`.
async fn charts(of: &str, charts: &[(&str, &str)]) -> Origin {
    let origin = Origin::start().await;
    let mut index = "apiVersion: v1\nentries:\n".to_owned();
    for (name, version) in charts {
        let body = format!("{name} of {of}");
        let digest = sha256(body.as_bytes()).to_hex();
        let more = format!(
            "  {name}:\n  - apiVersion: v2\n    digest: {digest}\n    name: {name}\n    version: {version}\n    urls: [{name}-{version}.tgz]\n"
        );
        index.push_str(&more);
        origin.put(&format!("/{name}-{version}.tgz"), Resource::new(body));
    }
    origin.put("/index.yaml", Resource::new(index));
    origin
}

/// `all` has both, and `outer` has `all`.
async fn start(one: &Origin, two: &Origin, keys: &str) -> TestLarder {
    let config = format!(
        "public_url: https://larder.example.com/cache\nremotes:\n{}{}  all: {{type: virtual, package: helm, members: [one, two]{keys}}}\n  \
         outer: {{type: virtual, package: helm, members: [all]}}\n",
        entry("one", "helm", one, ""),
        entry("two", "helm", two, ""),
    );
    TestLarder::start(&config).await
}

fn lock(virtual_: &str, charts: &[(&str, &str)]) -> String {
    let at = format!("https://larder.example.com/cache/api/v1/virtual/{virtual_}/");
    let one = |(name, version): &(&str, &str)| {
        format!("- name: {name}\n  repository: {at}\n  version: {version}\n")
    };
    format!(
        "dependencies:\n{}",
        charts.iter().map(one).collect::<String>()
    )
}

async fn warm(
    larder: &TestLarder,
    home: &tempfile::TempDir,
    repository: &str,
    more: &[&str],
) -> Done {
    let server = larder.url("/");
    let arguments = [&["warm", "-r", repository], more].concat();
    run(home.path(), &arguments, &[("LARDER_URL", &server)]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn charts_are_held_by_the_members_that_a_merged_index_takes_them_from() {
    for keys in ["", ", member_urls: virtual"] {
        let mut one = charts("one", &[("odd", "1.0.0")]).await;
        let mut two = charts("two", &[("odd", "1.0.0"), ("jam", "2.0.0")]).await;
        let larder = start(&one, &two, keys).await;
        let home = tempfile::tempdir().expect("a directory");
        let file = home.path().join("Chart.lock");
        std::fs::write(&file, lock("all", &[("odd", "1.0.0"), ("jam", "2.0.0")])).expect("a file");
        let planned = warm(&larder, &home, "all", &["Chart.lock", "--dry-run"]).await;
        let paths = "all/_m/one/odd-1.0.0.tgz\nall/_m/two/jam-2.0.0.tgz\n";
        assert_eq!(planned.ok(), paths, "{keys}");
        let done = warm(&larder, &home, "all", &["Chart.lock"]).await;
        assert_eq!(done.ok(), "all: 2 files held, 20 B\n", "{keys}");
        assert_eq!(one.count("GET", "/odd-1.0.0.tgz"), 1);
        assert_eq!(
            two.count("GET", "/odd-1.0.0.tgz"),
            0,
            "it is hidden by the first member's"
        );
        assert_eq!(two.count("GET", "/jam-2.0.0.tgz"), 1);
        // What is around it has the same, by the names of the same members.
        std::fs::write(&file, lock("outer", &[("odd", "1.0.0"), ("jam", "2.0.0")]))
            .expect("a file");
        let done = warm(&larder, &home, "outer", &["Chart.lock"]).await;
        assert_eq!(done.ok(), "outer: 2 files held, 20 B\n", "{keys}");
        one.stop().await;
        two.stop().await;
        for path in ["index.yaml", "_m/one/odd-1.0.0.tgz", "_m/two/jam-2.0.0.tgz"] {
            let answer = get(&larder.url(&format!("api/v1/virtual/all/{path}"))).await;
            assert_eq!((answer.status, answer.source()), (200, "cache"), "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_virtual_repository_does_not_give_is_said() {
    let one = charts("one", &[("odd", "1.0.0")]).await;
    let two = charts("two", &[("jam", "2.0.0"), ("pan", "1.0.0")]).await;
    two.remove("/jam-2.0.0.tgz");
    let larder = start(&one, &two, "").await;
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("Chart.lock");
    let wanted = [("odd", "1.0.0"), ("odd", "3.0.0"), ("jam", "2.0.0")];
    std::fs::write(&file, lock("all", &wanted)).expect("a file");
    let done = warm(&larder, &home, "all", &["Chart.lock"]).await;
    assert_eq!(
        (done.code, &*done.out),
        (Some(1), "all: 1 file held, 10 B\n"),
        "{done:?}"
    );
    for words in [
        "failed Chart.lock:5: odd 3.0.0: the merged index has no odd 3.0.0",
        "failed _m/two/jam-2.0.0.tgz: ",
    ] {
        assert!(done.err.contains(words), "{words}: {done:?}");
    }
    // Nothing but a merged index says whose something is.
    std::fs::write(home.path().join("urls.txt"), "odd-1.0.0.tgz\n").expect("a file");
    let list = warm(&larder, &home, "all", &["urls.txt"]).await;
    list.refused(2, &["urls.txt is no Chart.lock", "name the member"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_a_merged_index_lacks_is_named() {
    let one = charts("one", &[("odd", "1.0.0")]).await;
    let mut two = charts("two", &[("jam", "2.0.0")]).await;
    let larder = start(&one, &two, "").await;
    two.stop().await;
    let home = tempfile::tempdir().expect("a directory");
    std::fs::write(
        home.path().join("Chart.lock"),
        lock("all", &[("jam", "2.0.0")]),
    )
    .expect("a file");
    let done = warm(&larder, &home, "all", &["Chart.lock"]).await;
    let why = "the merged index, which lacks two just now, has no jam 2.0.0";
    assert!(done.code == Some(1) && done.err.contains(why), "{done:?}");
}

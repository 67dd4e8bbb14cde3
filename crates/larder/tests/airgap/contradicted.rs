//! An index and files that it contradicts are never served together, whichever of them an archive has brought.

use larder_testkit::{Origin, Resource};

use super::{listed, rpm, run, text};
use crate::support::packages::{File, entry, helm, npm, pypi_json};
use crate::support::{TestLarder, get};

const APK_INDEXES: [&[u8]; 2] = [
    include_bytes!("../../../formats/src/alpine/testdata/APKINDEX.tar.gz"),
    include_bytes!("../../../formats/src/alpine/testdata/APKINDEX.rebuilt.tar.gz"),
];
const APKS: [&[u8]; 2] = [
    include_bytes!("../../../formats/src/alpine/testdata/demo-1.0-r0.apk"),
    include_bytes!("../../../formats/src/alpine/testdata/demo-1.0-r0.rebuilt.apk"),
];

/// A file of an upstream, and the index that names it.
struct Named {
    repository: &'static str,
    index: &'static str,
    path: String,
    bytes: Vec<u8>,
}

/// One of two states of upstreams of all types that have an index: other bytes under the same names.
fn publish(origin: &Origin, state: usize) -> Vec<Named> {
    let seed = state as u64;
    let file = |name| File::generated(name, "1.0.0", 900 + seed, seed);
    let (wheel, tarball, chart) = (file("pantry"), file("pan"), file("pot"));
    let apk = "v3.23/main/x86_64/demo-1.0-r0.apk";
    let apk_index = "v3.23/main/x86_64/APKINDEX.tar.gz";
    origin.put(&format!("/{apk}"), Resource::new(APKS[state]));
    origin.put(&format!("/{apk_index}"), Resource::new(APK_INDEXES[state]));
    let package = format!("the package of state {state}");
    rpm::publish_package(origin, "rpm/", seed, &package);
    let named = |repository, index, path: &str, bytes: Vec<u8>| Named {
        repository,
        index,
        path: path.to_owned(),
        bytes,
    };
    let wheels = pypi_json(origin, "pantry", std::slice::from_ref(&wheel));
    let tarballs = npm(origin, "pan", std::slice::from_ref(&tarball));
    let charts = helm(origin, std::slice::from_ref(&chart));
    vec![
        named("pypi", "simple/pantry/", &wheels[0], wheel.bytes()),
        named("npm", "pan", &tarballs[0], tarball.bytes()),
        named("helm", "index.yaml", &charts[0], chart.bytes()),
        named("alpine", apk_index, apk, APKS[state].to_vec()),
        named(
            "rpm",
            "repodata/repomd.xml",
            rpm::PACKAGE,
            package.into_bytes(),
        ),
    ]
}

fn config(origin: &Origin) -> String {
    let keys = "allow_private: [127.0.0.0/8]";
    let remotes = ["pypi", "npm", "helm", "alpine"].map(|it| entry(it, it, origin, keys));
    let rpm = entry("rpm", "rpm", origin, keys);
    let rpm = rpm.replace(&origin.url("/"), &origin.url("/rpm/"));
    format!("remotes:\n{}{rpm}", remotes.concat())
}

/// Reads indexes, and the files that they name if these are to be held, too.
async fn read(larder: &TestLarder, all: &[Named], with_files: bool) {
    for one in all {
        let index = get(&larder.artifact(one.repository, one.index)).await;
        assert_eq!(index.status, 200, "{}: {}", one.repository, index.text());
        if with_files {
            // Until it is remembered at every level.
            for _ in 0..3 {
                let url = larder.artifact(one.repository, &one.path);
                let file = larder.hit(&url).await;
                assert!(file.body == one.bytes, "{}: {}", one.repository, one.path);
            }
        }
    }
    larder.until_idle().await;
}

/// Whoever has the second index gets the files that it names.
async fn has(larder: &TestLarder, all: &[Named]) {
    for one in all {
        let file = get(&larder.artifact(one.repository, &one.path)).await;
        assert_eq!(file.status, 200, "{}: {}", one.repository, file.text());
        assert!(file.body == one.bytes, "{}: {}", one.repository, one.path);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_index_comes_in_and_the_files_that_it_contradicts_go() {
    let origin = Origin::start().await;
    let config = config(&origin);
    let target = TestLarder::start(&config).await;
    read(&target, &publish(&origin, 0), true).await;
    let now = publish(&origin, 1);
    let source = TestLarder::start(&config).await;
    read(&source, &now, false).await;
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("a.tar");
    run(&source, &["export", text(&path)]).await.ended(0);
    run(&target, &["import", text(&path)]).await.ended(0);
    let held = listed(&target).await;
    for one in &now {
        let key = (one.repository.to_owned(), one.path.clone());
        assert!(!held.contains(&key), "{key:?} is held beside that index");
    }
    has(&target, &now).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_a_newer_index_contradicts_come_in_and_are_not_served() {
    let origin = Origin::start().await;
    let config = config(&origin);
    let source = TestLarder::start(&config).await;
    read(&source, &publish(&origin, 0), true).await;
    let now = publish(&origin, 1);
    let target = TestLarder::start(&config).await;
    read(&target, &now, false).await;
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("a.tar");
    run(&source, &["export", text(&path)]).await.ended(0);
    run(&target, &["import", text(&path)]).await.ended(0);
    has(&target, &now).await;
}

/// The list of an RPM repository's packages is the last of one page of an import, and the index that states it the first of the next.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_comes_a_page_after_its_list_is_the_list_s() {
    let origin = Origin::start().await;
    let config = format!("remotes:\n{}", entry("rpm", "rpm", &origin, ""));
    let (target, source) = (
        TestLarder::start(&config).await,
        TestLarder::start(&config).await,
    );
    let of = |larder: &TestLarder, path: &str| larder.artifact("rpm", path);
    rpm::publish_plainly(&origin, "", 0, "the package of before");
    for path in [rpm::INDEX, rpm::PACKAGE] {
        assert_eq!(target.hit(&of(&target, path)).await.status, 200, "{path}");
    }
    target.until_idle().await;
    rpm::publish_plainly(&origin, "", 1, "the package of now");
    assert_eq!(source.hit(&of(&source, rpm::INDEX)).await.status, 200);
    source.until_idle().await;
    let held = listed(&source).await.into_iter();
    let before = held.filter(|(_, path)| &**path < rpm::INDEX).count();
    for number in before..100 {
        let path = format!("Packages/filler-{number:03}.rpm");
        origin.put(&format!("/{path}"), Resource::new(path.clone()));
        assert_eq!(get(&of(&source, &path)).await.status, 200, "{path}");
    }
    source.until_idle().await;
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("a.tar");
    run(&source, &["export", text(&path)]).await.ended(0);
    let archived = std::fs::read(&path).expect("the archive");
    let archived = String::from_utf8_lossy(&archived);
    let (first, second) = archived
        .split_once("records/rpm/000001.json")
        .expect("two pages");
    assert!(first.contains("primary.xml.gz") && !first.contains("\"repodata/repomd.xml\""));
    assert!(second.contains("repodata/repomd.xml"));
    run(&target, &["import", text(&path)]).await.ended(0);
    let held = listed(&target).await;
    let key = ("rpm".to_owned(), rpm::PACKAGE.to_owned());
    assert!(!held.contains(&key), "it is held beside that index");
    let file = get(&of(&target, rpm::PACKAGE)).await;
    assert_eq!(
        (file.status, file.text()),
        (200, "the package of now".to_owned())
    );
}

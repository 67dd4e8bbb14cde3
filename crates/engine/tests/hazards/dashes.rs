//! Files of Python whose names hold several dashes: the page that names them says what they are, wherever in the name the version begins.

use larder_core::{Digest, sha256};
use larder_testkit::Resource;

use crate::quarantine::{assert_held, three_days};
use crate::support::{Bench, days_ago};
use crate::{FaultKind, refusal};

const BAD_GATEWAY: FaultKind = FaultKind::BadGateway;
/// A file's name, and the project whose page names it.
const FILES: [(&str, &str); 9] = [
    ("app-1.2.3-45.tar.gz", "app"),
    ("foo-1.0-1.tar.gz", "foo"),
    ("foo-2004b-1.tar.gz", "foo"),
    ("foo-1.0-beta-2.zip", "foo"),
    ("x-1-1.0-1.tar.gz", "x-1"),
    ("foo-2-1.0.tar.gz", "foo-2"),
    // Either of two projects.
    ("foo-2-1.tar.gz", "foo"),
    ("foo-2-1.tar.gz", "foo-2"),
    ("python-3parclient-4.2.tar.gz", "python-3parclient"),
];

fn at(file: &str) -> String {
    format!("packages/{file}")
}

/// Puts a page that names a file of these bytes, published a day ago.
fn put_page(bench: &Bench, project: &str, file: &str, digest: &Digest) {
    let (url, digest) = (bench.origin.url(&at(file)), digest.to_hex());
    let page = format!(
        r#"{{"meta":{{"api-version":"1.1"}},"name":"{project}","versions":[],"files":[{{"filename":"{file}","url":"{url}","hashes":{{"sha256":"{digest}"}},"upload-time":"2026-05-27T20:26:40"}}]}}"#
    );
    bench.origin.put(
        &format!("/simple/{project}/"),
        Resource::new(page).content_type("application/vnd.pypi.simple.v1+json"),
    );
}

fn put_file(bench: &Bench, file: &str, body: &'static str) {
    let resource = Resource::new(body).last_modified(&days_ago(1000));
    bench.origin.put(&format!("/{}", at(file)), resource);
}

async fn hold_page(bench: &Bench, project: &str) {
    let page = format!("simple/{project}/");
    bench.get("pypi", &page).await.unwrap();
    bench.settled().await;
}

#[tokio::test]
async fn wrong_bytes_are_refused_whether_the_page_is_held_or_not() {
    for (file, project) in FILES {
        for is_page_held in [true, false] {
            let bench = Bench::new().await;
            put_page(&bench, project, file, &sha256(b"good"));
            put_file(&bench, file, "evil");
            if is_page_held {
                hold_page(&bench, project).await;
            }
            assert_eq!(
                refusal(bench.get("pypi", &at(file)).await),
                (BAD_GATEWAY, "digest_mismatch"),
                "{file} of {project}, page held: {is_page_held}"
            );
            bench.settled().await;
            let record = bench.record("pypi", &at(file), "").await;
            assert!(
                record.is_none_or(|record| record.blob().is_none()),
                "{file}"
            );
            // And the right ones are taken.
            put_file(&bench, file, "good");
            assert_eq!(bench.get("pypi", &at(file)).await.unwrap().text(), "good");
        }
    }
}

#[tokio::test]
async fn a_young_file_is_held_back_whether_the_page_is_held_or_not() {
    for (file, project) in FILES {
        for is_page_held in [true, false] {
            let bench = Bench::with(three_days).await;
            put_page(&bench, project, file, &sha256(b"good"));
            put_file(&bench, file, "good");
            if is_page_held {
                hold_page(&bench, project).await;
            }
            assert_held(bench.get("pypi", &at(file)).await);
        }
    }
}

#[tokio::test]
async fn what_was_kept_before_there_was_a_page_is_compared_with_it() {
    for (file, project) in FILES {
        let bench = Bench::new().await;
        put_file(&bench, file, "evil");
        assert_eq!(bench.get("pypi", &at(file)).await.unwrap().text(), "evil");
        bench.settled().await;
        put_page(&bench, project, file, &sha256(b"good"));
        bench.wait(86_400);
        hold_page(&bench, project).await;
        assert_eq!(
            refusal(bench.get("pypi", &at(file)).await),
            (BAD_GATEWAY, "digest_mismatch"),
            "{file} of {project}"
        );
    }
}

#[tokio::test]
async fn a_held_page_of_another_project_does_not_stand_in_for_the_files_own() {
    let bench = Bench::new().await;
    let file = "foo-bar-1.0.tar.gz";
    put_page(&bench, "foo", "foo-1.0.tar.gz", &sha256(b"other"));
    put_page(&bench, "foo-bar", file, &sha256(b"good"));
    put_file(&bench, file, "evil");
    hold_page(&bench, "foo").await;
    assert_eq!(
        refusal(bench.get("pypi", &at(file)).await),
        (BAD_GATEWAY, "digest_mismatch")
    );
}

/// The page of the likeliest project is not there, and the one that is held is older than the file.
#[tokio::test]
async fn a_page_that_is_older_than_the_file_is_read_again() {
    let bench = Bench::new().await;
    let file = "foo-2-1.tar.gz";
    put_page(&bench, "foo-2", "foo-2-0.9.tar.gz", &sha256(b"old"));
    bench.get("pypi", "simple/foo-2/").await.unwrap();
    bench.settled().await;
    bench.wait(60);
    put_page(&bench, "foo-2", file, &sha256(b"good"));
    put_file(&bench, file, "evil");
    assert_eq!(
        refusal(bench.get("pypi", &at(file)).await),
        (BAD_GATEWAY, "digest_mismatch")
    );
}

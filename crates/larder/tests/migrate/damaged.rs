//! Bytes that are not what they were.

use crate::installation::{BACKENDS, EMBEDDED, Installation, blob, check, spoil, uploads};
use crate::support::get;

#[tokio::test(flavor = "multi_thread")]
async fn hazard_w12_damaged_bytes_are_named_and_never_copied() {
    let all = Installation::new().await;
    let data = all.directory("data");
    let mut larder = all.setup(&data, EMBEDDED).start().await;
    let mut served = all.fill(&larder).await;
    assert!(larder.terminate().success());
    let wheel = "pool/pantry-1.1-py3-none-any.whl";
    let cached = get_body(&served, "pypi", wheel);
    spoil(&blob(&data, &cached));
    let uploaded = &uploads()[0].1;
    let uploaded = blob(&data, uploaded);
    spoil(&uploaded);

    let migrated = all.migrate(&data, BACKENDS, &["--to", "backends", "--json"]);
    let migrated = migrated.ended(1);
    let summary = migrated.json();
    assert_eq!(summary["complete"], false);
    assert_eq!(summary["cached_left_out"], 1);
    assert_eq!(summary["uploaded_damaged"], 2, "two files have these bytes");
    for named in ["a/small.txt", "a/again.txt", wheel] {
        let problems = summary["problems"].as_array().expect("problems");
        assert!(
            problems.iter().any(|problem| problem["path"] == named),
            "{named}: {summary}"
        );
    }
    // Nobody takes it for the whole.
    let (status, log) = all.setup(&all.directory("target"), BACKENDS).run_to_end();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("unfinished copy"), "{log}");
    let checked = all.check(&all.directory("target"), BACKENDS).ended(1);
    assert!(checked.out.contains("unfinished copy"), "{}", checked.out);

    // The uploaded bytes come from the backup: the rest is complete, and what is cached is fetched anew.
    spoil(&uploaded);
    let migrated = all.migrate(&data, BACKENDS, &["--to", "backends", "--json"]);
    let summary = migrated.ended(1).json();
    assert_eq!(
        (
            summary["complete"].clone(),
            summary["verified"].clone(),
            summary["uploaded_damaged"].clone(),
            summary["cached_left_out"].clone()
        ),
        (true.into(), false.into(), 0.into(), 1.into())
    );
    let target = all.directory("target");
    let larder = all.setup(&target, BACKENDS).start().await;
    all.origin.reset_log();
    let again = get(&larder.artifact("pypi", wheel)).await;
    assert_eq!((again.status, again.source()), (200, "remote"));
    assert!(again.body == cached);
    assert_eq!(all.origin.count("GET", &format!("/{wheel}")), 1);
    served.remove(&("pypi".to_owned(), wheel.to_owned()));
    check(&larder, &served).await;
}

fn get_body(served: &crate::installation::All, repository: &str, path: &str) -> Vec<u8> {
    served[&(repository.to_owned(), path.to_owned())]
        .body
        .clone()
}

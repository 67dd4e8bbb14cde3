//! Files whose documents say that they are elsewhere than where their path tells: until the document has been read, that is a guess.

use http::Method;
use larder_core::FaultKind;
use larder_testkit::Behaviour;

use crate::support::Bench;
use crate::{LINKING, Version, assert_verified, body, document, name, refusal};

/// The path by which every npm client asks, and another one in the packument, as registries have it that keep their tarballs elsewhere.
fn elsewhere(bench: &Bench, number: &str, bytes: &str) -> Version {
    Version::at(
        &bench.origin,
        "npm",
        number,
        bytes,
        &format!("files/demo-{number}.tgz"),
        format!("demo/-/demo-{number}.tgz"),
    )
}

fn guess(version: &Version) -> String {
    format!("/{}", version.path)
}

fn failures() -> Vec<Behaviour> {
    let statuses = [
        400, 401, 403, 404, 405, 407, 410, 416, 429, 451, 500, 502, 503,
    ];
    let mut all: Vec<Behaviour> = statuses.into_iter().map(Behaviour::Status).collect();
    all.extend([
        Behaviour::ResetHead,
        Behaviour::NotModified,
        Behaviour::LoginPage,
        Behaviour::Body("wrong".into()),
        Behaviour::Truncate { after: 1 },
        Behaviour::UnaskedPartial { length: 1 },
        Behaviour::Redirect {
            status: 302,
            location: "http://10.0.0.1/".to_owned(),
        },
    ]);
    all
}

#[tokio::test]
async fn whatever_comes_of_a_guess_the_document_is_waited_for() {
    for failure in failures() {
        for method in [Method::GET, Method::HEAD] {
            let bench = Bench::new().await;
            let file = elsewhere(&bench, "1.0.0", "the tarball");
            file.put(&bench.origin);
            name(&bench.origin, &[&file]);
            bench
                .origin
                .put(&guess(&file), crate::resource(b"something"));
            bench.origin.behave(&guess(&file), failure.clone());
            let got = bench.ask(method.clone(), "npm", &file.path, &[]).await;
            let got = got.unwrap_or_else(|fault| {
                panic!(
                    "{method} {failure:?}: {} {}",
                    fault.code.as_str(),
                    fault.message
                )
            });
            if method == Method::GET {
                assert_eq!(got.bytes(), &file.bytes, "{failure:?}");
                bench.settled().await;
                assert_verified(bench.record("npm", &file.path, "").await, "the tarball");
                assert!(
                    bench.get("npm", &file.path).await.unwrap().is_hit(),
                    "{failure:?}"
                );
                assert_eq!(bench.origin.count("GET", &file.at), 1, "{failure:?}");
            } else {
                bench.settled().await;
                assert_eq!(
                    bench.record("npm", &file.path, "").await,
                    None,
                    "{failure:?}: a HEAD stores nothing"
                );
            }
        }
    }
}

#[tokio::test]
async fn the_range_of_a_file_that_is_elsewhere_is_a_range_of_that_file() {
    let bench = Bench::new().await;
    let file = elsewhere(&bench, "1.0.0", "the tarball");
    file.put(&bench.origin);
    name(&bench.origin, &[&file]);
    bench.origin.behave(&guess(&file), Behaviour::Status(410));
    let got = bench
        .client("npm", &file.path)
        .header("range", "bytes=4-6")
        .run()
        .await
        .unwrap();
    assert_eq!((got.answer.status, got.text().as_str()), (206, "tar"));
}

/// RFC 9110 15.5.11 speaks of a resource that is gone: of this one only the place that the document names can say that.
#[tokio::test]
async fn the_failure_of_a_guess_is_never_remembered() {
    for guessed in [404, 410] {
        for there in [403, 429, 500, 503] {
            let bench = Bench::new().await;
            let file = elsewhere(&bench, "1.0.0", "the tarball");
            name(&bench.origin, &[&file]);
            bench
                .origin
                .behave(&guess(&file), Behaviour::Status(guessed));
            bench.origin.behave(&file.at, Behaviour::Status(there));
            assert_eq!(
                refusal(bench.get("npm", &file.path).await).0,
                FaultKind::Upstream(there),
                "{guessed}"
            );
            bench.settled().await;
            bench.origin.clear(&file.at);
            file.put(&bench.origin);
            assert_eq!(
                body(&bench, "npm", &file.path).await,
                file.bytes,
                "{guessed} and {there} are over"
            );
        }
    }
}

#[tokio::test]
async fn an_absence_where_the_document_could_not_be_read_is_not_remembered() {
    for format in LINKING {
        for unread in [
            Behaviour::Status(403),
            Behaviour::Status(503),
            Behaviour::ResetHead,
            Behaviour::LoginPage,
        ] {
            let bench = Bench::new().await;
            let file = Version::new(&bench.origin, format, "1.0.0", "the file");
            bench.origin.behave(document(format).1, unread.clone());
            assert_eq!(
                refusal(bench.get(format, &file.path).await).0,
                FaultKind::Upstream(404),
                "{format} {unread:?}"
            );
            bench.settled().await;
            file.put(&bench.origin);
            assert_eq!(
                body(&bench, format, &file.path).await,
                file.bytes,
                "{format} {unread:?}"
            );
        }
    }
}

#[tokio::test]
async fn an_absence_is_remembered_where_the_place_that_counts_has_said_so() {
    for format in LINKING {
        // The document names another file only; or there is none at all.
        for is_there in [true, false] {
            let bench = Bench::new().await;
            let file = Version::new(&bench.origin, format, "1.0.0", "the file");
            if is_there {
                name(
                    &bench.origin,
                    &[&Version::new(&bench.origin, format, "9.0.0", "another")],
                );
            }
            assert_eq!(
                refusal(bench.get(format, &file.path).await).0,
                FaultKind::Upstream(404),
                "{format}"
            );
            bench.settled().await;
            file.put(&bench.origin);
            assert_eq!(
                refusal(bench.get(format, &file.path).await).0,
                FaultKind::Upstream(404),
                "{format}"
            );
            assert_eq!(
                bench.origin.count("GET", &file.at),
                1,
                "{format}: asked once in negative_ttl"
            );
        }
    }
    let bench = Bench::new().await;
    let file = elsewhere(&bench, "1.0.0", "the tarball");
    name(&bench.origin, &[&file]);
    for _ in 0..2 {
        assert_eq!(
            refusal(bench.get("npm", &file.path).await).0,
            FaultKind::Upstream(404)
        );
        bench.settled().await;
    }
    assert_eq!(
        bench.origin.count("GET", &file.at),
        1,
        "the place that the document names has said it"
    );
}

/// The document is held, the file has moved since, and its old place refuses it.
#[tokio::test]
async fn a_place_that_a_held_document_names_and_that_refuses_makes_larder_read_it_again() {
    for status in [400, 401, 403, 404, 410] {
        let bench = Bench::new().await;
        let before = elsewhere(&bench, "1.0.0", "the tarball");
        name(&bench.origin, &[&before]);
        body(&bench, "npm", "demo").await;
        bench.origin.behave(&before.at, Behaviour::Status(status));
        let moved = Version::at(
            &bench.origin,
            "npm",
            "1.0.0",
            "the tarball",
            "new/demo-1.0.0.tgz",
            before.path.clone(),
        );
        moved.put(&bench.origin);
        name(&bench.origin, &[&moved]);
        assert_eq!(
            body(&bench, "npm", &before.path).await,
            moved.bytes,
            "{status}"
        );
    }
}

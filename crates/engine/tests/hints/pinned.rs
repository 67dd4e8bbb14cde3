//! rpm repositories behind redirects: where one file has led is a hint for the others.

use http::Method;
use larder_core::{AllowPrivate, FaultKind, sha256};
use larder_testkit::{Behaviour, Origin, Resource};

use crate::repo::{Generation, MASTER, SIGNATURE, Style, generation, signature};
use crate::support::{Bench, upstream};
use crate::{body, refusal};

const PACKAGE: &str = "Packages/x-1.x86_64.rpm";

fn one() -> Generation {
    generation(Style::revision(1), &[(PACKAGE, "one")])
}

/// A store of which clients are told by redirects.
async fn bench_with_store() -> (Bench, Origin) {
    let store = Origin::start().await;
    let bench = Bench::with(|repository| {
        upstream(repository).allow_private = vec![AllowPrivate::Socket(store.address())];
    })
    .await;
    (bench, store)
}

fn redirect(location: String) -> Behaviour {
    Behaviour::Redirect {
        status: 302,
        location,
    }
}

/// As in front of S3 or a CDN with signed URLs: each file is a redirect with a signature of its own, and without it the store answers
/// 403. dnf, which knows nothing of where it was led, installs from such a repository.
#[tokio::test]
async fn a_repository_of_which_each_file_is_a_signed_redirect() {
    let (bench, store) = bench_with_store().await;
    let one = one();
    let master = (MASTER.to_owned(), one.repomd.clone());
    for (path, bytes) in one
        .metadata
        .iter()
        .chain(&one.packages)
        .chain([(&master.0, &master.1)])
    {
        let signed = format!("s/{path}?sig={}", &sha256(path.as_bytes()).to_hex()[..8]);
        bench
            .origin
            .behave(&format!("/el9/{path}"), redirect(store.url(&signed)));
        store.put(&format!("/{signed}"), Resource::new(bytes.clone()));
        store.put(
            &format!("/s/{path}"),
            Resource::new("AccessDenied").status(403),
        );
    }
    assert_eq!(
        body(&bench, "rpm", &format!("el9/{MASTER}")).await,
        one.repomd
    );
    assert_eq!(
        body(&bench, "rpm", &format!("el9/{SIGNATURE}")).await,
        signature(&one.repomd)
    );
    for (path, bytes) in &one.metadata {
        assert_eq!(
            &body(&bench, "rpm", &format!("el9/{path}")).await,
            bytes,
            "{path}"
        );
    }
    let head = bench
        .ask(Method::HEAD, "rpm", &format!("el9/{PACKAGE}"), &[])
        .await
        .unwrap();
    assert_eq!(
        (head.answer.status, head.answer.representation.length),
        (200, Some(3))
    );
    assert_eq!(body(&bench, "rpm", &format!("el9/{PACKAGE}")).await, b"one");
    let unsigned: Vec<_> = store
        .requests()
        .into_iter()
        .filter(|request| !request.target.contains("?sig="))
        .collect();
    assert!(
        unsigned.is_empty(),
        "a URL with a query is of one file, and is not asked for without it: {unsigned:?}"
    );
}

/// Everything that a place may do instead of giving the right bytes.
fn refusals() -> Vec<Behaviour> {
    let statuses = [
        400, 401, 403, 404, 405, 407, 410, 416, 429, 451, 500, 502, 503,
    ];
    let mut all: Vec<Behaviour> = statuses.into_iter().map(Behaviour::Status).collect();
    all.extend([
        Behaviour::ResetHead,
        Behaviour::NotModified,
        Behaviour::LoginPage,
        Behaviour::Body("wrong".into()),
        redirect("http://10.0.0.1/".to_owned()),
        redirect("file:///etc/passwd".to_owned()),
    ]);
    all
}

/// The token may stand in the path: nothing shows then that the place is for one file only.
#[tokio::test]
async fn whatever_a_place_refuses_to_which_a_redirect_has_led_is_asked_of_the_usual_one_once() {
    for behaviour in refusals() {
        for method in [Method::GET, Method::HEAD] {
            let (bench, store) = bench_with_store().await;
            let one = one();
            one.publish(&store, "pub/el9/", None);
            bench.origin.behave(
                &format!("/el9/{MASTER}"),
                redirect(store.url(&format!("pub/el9/{MASTER}"))),
            );
            body(&bench, "rpm", &format!("el9/{MASTER}")).await;
            body(&bench, "rpm", &format!("el9/{}", one.path_of("primary"))).await;
            store.behave(&format!("/pub/el9/{PACKAGE}"), behaviour.clone());
            bench
                .origin
                .put(&format!("/el9/{PACKAGE}"), Resource::new("one"));
            let got = bench
                .ask(method.clone(), "rpm", &format!("el9/{PACKAGE}"), &[])
                .await;
            let got = got.unwrap_or_else(|fault| {
                panic!(
                    "{method} {behaviour:?}: {} {}",
                    fault.code.as_str(),
                    fault.message
                )
            });
            // Of a HEAD that is answered nobody can tell that the bytes would be wrong.
            let answered =
                [Behaviour::LoginPage, Behaviour::Body("wrong".into())].contains(&behaviour);
            if method == Method::GET {
                assert_eq!(got.bytes(), "one", "{behaviour:?}");
                bench.settled().await;
                assert!(
                    bench
                        .record("rpm", &format!("el9/{PACKAGE}"), "")
                        .await
                        .unwrap()
                        .verified,
                    "{behaviour:?}"
                );
            }
            if method == Method::GET || !answered {
                assert_eq!(
                    bench
                        .origin
                        .count(method.as_str(), &format!("/el9/{PACKAGE}")),
                    1,
                    "{method} {behaviour:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_place_that_is_gone_altogether_is_left_for_the_usual_one() {
    let (bench, mut store) = bench_with_store().await;
    let one = one();
    one.publish(&store, "pub/el9/", None);
    bench.origin.behave(
        &format!("/el9/{MASTER}"),
        redirect(store.url(&format!("pub/el9/{MASTER}"))),
    );
    body(&bench, "rpm", &format!("el9/{MASTER}")).await;
    store.stop().await;
    one.publish(&bench.origin, "el9/", None);
    assert_eq!(
        body(&bench, "rpm", &format!("el9/{}", one.path_of("filelists"))).await,
        one.body_of("filelists")
    );
    assert_eq!(body(&bench, "rpm", &format!("el9/{PACKAGE}")).await, b"one");
}

/// Only what the usual place says of a file counts, and is remembered.
#[tokio::test]
async fn the_usual_place_has_the_last_word_on_what_a_redirect_has_led_to() {
    for (usual, kind, is_remembered) in [
        (404, FaultKind::Upstream(404), true),
        (410, FaultKind::Upstream(410), true),
        (503, FaultKind::Upstream(503), false),
        (403, FaultKind::Upstream(403), false),
    ] {
        for hinted in [404, 410, 403, 429, 503] {
            let (bench, store) = bench_with_store().await;
            one().publish(&store, "pub/el9/", None);
            bench.origin.behave(
                &format!("/el9/{MASTER}"),
                redirect(store.url(&format!("pub/el9/{MASTER}"))),
            );
            body(&bench, "rpm", &format!("el9/{MASTER}")).await;
            store.behave(&format!("/pub/el9/{PACKAGE}"), Behaviour::Status(hinted));
            bench
                .origin
                .behave(&format!("/el9/{PACKAGE}"), Behaviour::Status(usual));
            assert_eq!(
                refusal(bench.get("rpm", &format!("el9/{PACKAGE}")).await).0,
                kind,
                "{hinted}, then {usual}"
            );
            bench.settled().await;
            let asked = || bench.origin.count("*", &format!("/el9/{PACKAGE}"));
            let before = asked();
            assert_eq!(
                refusal(bench.get("rpm", &format!("el9/{PACKAGE}")).await).0,
                kind,
                "{hinted}, then {usual}"
            );
            assert_eq!(asked() == before, is_remembered, "{hinted}, then {usual}");
        }
    }
}

#[tokio::test]
async fn a_signature_that_is_refused_beside_its_document_is_asked_of_the_usual_place() {
    for status in [400, 401, 403, 404, 410, 429, 500, 503] {
        let (bench, store) = bench_with_store().await;
        let one = one();
        one.publish(&store, "pub/el9/", None);
        store.behave(&format!("/pub/el9/{SIGNATURE}"), Behaviour::Status(status));
        bench.origin.behave(
            &format!("/el9/{MASTER}"),
            redirect(store.url(&format!("pub/el9/{MASTER}"))),
        );
        bench.origin.put(
            &format!("/el9/{SIGNATURE}"),
            Resource::new(signature(&one.repomd)),
        );
        bench
            .origin
            .put(&format!("/el9/{MASTER}.key"), Resource::new("the key"));
        assert_eq!(
            body(&bench, "rpm", &format!("el9/{MASTER}")).await,
            one.repomd,
            "{status}"
        );
        assert_eq!(
            body(&bench, "rpm", &format!("el9/{SIGNATURE}")).await,
            signature(&one.repomd),
            "{status}"
        );
        assert_eq!(
            body(&bench, "rpm", &format!("el9/{MASTER}.key")).await,
            b"the key",
            "{status}"
        );
    }
}

/// A token that has run out in the middle of a body.
#[tokio::test]
async fn a_body_that_is_cut_where_a_redirect_has_led_goes_on_at_the_usual_place() {
    let (bench, store) = bench_with_store().await;
    let large = "0123456789abcdef".repeat(3 << 16);
    let state = generation(Style::revision(1), &[(PACKAGE, &large)]);
    state.publish(&store, "pub/el9/", None);
    bench.origin.behave(
        &format!("/el9/{MASTER}"),
        redirect(store.url(&format!("pub/el9/{MASTER}"))),
    );
    body(&bench, "rpm", &format!("el9/{MASTER}")).await;
    let (there, usual) = (format!("/pub/el9/{PACKAGE}"), format!("/el9/{PACKAGE}"));
    state.publish(&bench.origin, "el9/", None);
    store.behave_once(&there, Behaviour::Truncate { after: 2 << 20 });
    store.hold_body(&there, 1 << 20);
    let reader = tokio::spawn(bench.client("rpm", &usual[1..]).run());
    store.wait_for("GET", &there, 1).await;
    store.behave(&there, Behaviour::Status(403));
    store.release(&there);
    assert_eq!(reader.await.unwrap().unwrap().bytes(), &large);
    let asked = bench
        .origin
        .requests()
        .into_iter()
        .filter(|request| request.target == usual)
        .collect::<Vec<_>>();
    assert_eq!(asked.len(), 1, "the rest of it, once: {asked:?}");
    assert!(asked[0].header("range").is_some(), "{asked:?}");
}

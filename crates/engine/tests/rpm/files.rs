//! Paths, rules, headers and ranges of single files.

use larder_core::{FaultKind, Pattern};
use larder_testkit::{Payload, Resource};

use crate::repo::{MASTER, SIGNATURE, Style, generation, resource, signature};
use crate::support::Bench;
use crate::{EXPIRED, body, refusal};

#[tokio::test]
async fn rpm_10_what_zypper_says_it_accepts_does_not_reach_the_upstream() {
    let bench = Bench::new().await;
    bench.origin.put("/el9/x.rpm", resource(b"rpm"));
    let headers = [
        (
            "accept",
            "*/*, application/metalink+xml, application/x-zsync",
        ),
        ("x-zypp-anonymousid", "0e6c"),
        ("x-zypp-distributionflavor", "dvd"),
        ("cache-control", "no-cache"),
    ];
    let got = bench
        .ask(http::Method::GET, "rpm", "el9/x.rpm", &headers)
        .await
        .unwrap();
    assert_eq!(got.bytes(), &b"rpm"[..]);
    let requests = bench.origin.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].header("accept"), Some("*/*"));
    assert!(
        requests[0]
            .headers
            .iter()
            .all(|(name, _)| !name.to_ascii_lowercase().starts_with("x-zypp")),
        "{:?}",
        requests[0]
    );
}

#[tokio::test]
async fn rpm_15_every_spelling_of_a_name_is_one_file_and_reaches_the_upstream_as_the_client_has_it()
{
    for (name, spellings) in [
        (
            "libstdc++-13.rpm",
            [
                "libstdc%2b%2b-13.rpm",
                "libstdc%2B+-13.rpm",
                "libstdc++-13.rpm",
            ],
        ),
        (
            "x-1.0~rc1.rpm",
            ["x-1.0%7Erc1.rpm", "x-1.0%7erc1.rpm", "x-1.0~rc1.rpm"],
        ),
        (
            "x-1^git1.rpm",
            ["x-1%5Egit1.rpm", "x-1%5egit1.rpm", "x-1^git1.rpm"],
        ),
    ] {
        for first in spellings {
            let bench = Bench::new().await;
            bench
                .origin
                .put(&format!("/Packages/{name}"), resource(name.as_bytes()));
            for spelling in std::iter::once(first).chain(spellings) {
                assert_eq!(
                    body(&bench, &format!("Packages/{spelling}")).await,
                    name.as_bytes(),
                    "{spelling}"
                );
            }
            let asked: Vec<String> = bench
                .origin
                .requests()
                .iter()
                .map(|request| request.target.clone())
                .collect();
            // RFC 3986 has no plain ^ in a path.
            assert_eq!(asked, [format!("/Packages/{}", first.replace('^', "%5E"))]);
        }
    }
}

/// Servers that do not decode what is asked for; and stores that speak S3, which read a plain `+` as a space.
#[tokio::test]
async fn rpm_15_an_upstream_that_knows_one_spelling_only_is_served_to_clients_that_use_it() {
    let (package, gone) = ("Packages/g++-1~rc1.x86_64.rpm", "Packages/gone.rpm");
    for (root, package_there, others) in [
        ("c++/", "Packages/g++-1~rc1.x86_64.rpm", "%2B"),
        ("c%2b%2b/", "Packages/g%2b%2b-1%7Erc1.x86_64.rpm", "+"),
    ] {
        let bench = Bench::new().await;
        let one = generation(Style::revision(1), &[(package, "one"), (gone, "gone")]);
        let two = generation(Style::revision(2), &[(package, "two"), (gone, "gone")]);
        for (state, instead_of, what) in [(&one, None, "one"), (&two, Some(&one), "two")] {
            // Under their raw names, which an origin finds only if they are asked for as they are written.
            state.publish(&bench.origin, root, instead_of);
            bench.origin.put(
                &format!("/{root}{package_there}"),
                resource(what.as_bytes()),
            );
            bench.origin.remove(&format!("/{root}{gone}"));
            assert_eq!(
                body(&bench, &format!("{root}{SIGNATURE}")).await,
                signature(&state.repomd),
                "{root}"
            );
            assert_eq!(
                body(&bench, &format!("{root}{MASTER}")).await,
                state.repomd,
                "{root}"
            );
            for (path, bytes) in &state.metadata {
                assert_eq!(
                    &body(&bench, &format!("{root}{path}")).await,
                    bytes,
                    "{root}{path}"
                );
            }
            assert_eq!(
                body(&bench, &format!("{root}{package_there}")).await,
                what.as_bytes(),
                "{root}"
            );
            assert!(!body(&bench, &format!("{root}metalink")).await.is_empty());
            // Long enough for the signature to lead to a new generation.
            bench.wait(EXPIRED + 60);
        }
        // A package that is gone makes larder read the document once more.
        let read = format!("/{root}{MASTER}");
        let before = bench.origin.count("*", &read);
        assert_eq!(
            refusal(bench.get("rpm", &format!("{root}{gone}")).await),
            (FaultKind::Upstream(404), "not_found")
        );
        bench.settled().await;
        assert!(bench.origin.count("*", &read) > before, "{root}");
        let odd: Vec<_> = bench
            .origin
            .requests()
            .into_iter()
            .filter(|request| request.target.contains(others))
            .collect();
        assert!(odd.is_empty(), "{root}: {odd:?}");
        assert!(
            bench
                .origin
                .requests()
                .iter()
                .all(|request| request.target.starts_with(&format!("/{root}")))
        );
    }
}

#[tokio::test]
async fn rpm_17_what_the_patterns_do_not_admit_is_refused_and_metadata_is_not() {
    let bench = Bench::with(|r| {
        r.access.immutable = Some(vec![Pattern::compile(r".*/x86_64/.*\.rpm$").unwrap()]);
    })
    .await;
    for path in [
        "9/BaseOS/x86_64/os/Packages/a.noarch.rpm",
        "9/BaseOS/x86_64/os/repodata/repomd.xml.asc",
        "9/BaseOS/x86_64/os/.treeinfo",
    ] {
        bench
            .origin
            .put(&format!("/{path}"), resource(path.as_bytes()));
        assert_eq!(body(&bench, path).await, path.as_bytes());
    }
    bench.origin.reset_log();
    for path in [
        "9/BaseOS/aarch64/os/Packages/a.rpm",
        "copr/fedora-40-x86_64/a.rpm",
        "RPM-GPG-KEY-Vendor",
        "9/x86_64/os/images/boot.iso",
    ] {
        bench.origin.put(&format!("/{path}"), resource(b"x"));
        assert_eq!(
            refusal(bench.get("rpm", path).await),
            (FaultKind::Forbidden, "pattern_denied"),
            "{path}"
        );
    }
    assert_eq!(bench.origin.count("*", "*"), 0);
}

/// zypper asks for these first, and takes anything but a 404 for a broken repository.
#[tokio::test]
async fn rpm_01_what_zypper_probes_for_is_a_plain_404() {
    let bench =
        Bench::with(|r| r.access.immutable = Some(vec![Pattern::compile(r"\.rpm$").unwrap()]))
            .await;
    generation(Style::revision(1), &[]).publish(&bench.origin, "el9/", None);
    body(&bench, "el9/repodata/repomd.xml").await;
    for path in [
        "el9/media.1/media",
        "el9/repodata/repomd.xml.key",
        "el9/media.1/products",
    ] {
        assert_eq!(
            refusal(bench.get("rpm", path).await),
            (FaultKind::Upstream(404), "not_found"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn rpm_20_countme_and_other_queries_do_not_make_another_file() {
    let bench = Bench::new().await;
    let one = generation(Style::revision(1), &[]);
    one.publish(&bench.origin, "el9/", None);
    for query in ["", "?countme=3", "?countme=1", "?repo=x&arch=y&countme=2"] {
        assert_eq!(
            body(&bench, &format!("el9/repodata/repomd.xml{query}")).await,
            one.repomd
        );
        assert!(
            !body(&bench, &format!("el9/metalink{query}"))
                .await
                .is_empty()
        );
    }
    assert_eq!(bench.origin.count("GET", "/el9/repodata/repomd.xml"), 1);
    assert!(
        bench
            .origin
            .requests()
            .iter()
            .all(|request| !request.target.contains('?'))
    );
}

/// A resumed download: the rest from the offset, of the same bytes.
#[tokio::test]
async fn rpm_26_an_interrupted_client_gets_the_rest() {
    let bench = Bench::new().await;
    let package = Payload::generated(3 << 20, 26);
    bench
        .origin
        .put("/x.rpm", Resource::new(package.clone()).etag("\"x\""));
    let left = bench
        .client("rpm", "x.rpm")
        .leave_after(1 << 20)
        .run()
        .await
        .unwrap();
    assert_eq!(left.body.unwrap_err(), "left");
    bench.settled().await;
    let rest = bench
        .ask(
            http::Method::GET,
            "rpm",
            "x.rpm",
            &[("range", "bytes=1048576-")],
        )
        .await
        .unwrap();
    assert_eq!(rest.answer.status, 206);
    assert_eq!(rest.bytes(), &package.slice(1 << 20, 2 << 20));
    assert_eq!(
        bench.origin.count("*", "/x.rpm"),
        1,
        "the download went on without its first client"
    );
}

#[tokio::test]
async fn a_head_of_a_signature_is_of_the_generation_that_is_held() {
    let bench = Bench::new().await;
    let one = generation(Style::revision(1), &[]);
    one.publish(&bench.origin, "el9/", None);
    body(&bench, "el9/repodata/repomd.xml").await;
    bench.wait(EXPIRED);
    bench.origin.reset_log();
    let head = bench
        .ask(
            http::Method::HEAD,
            "rpm",
            "el9/repodata/repomd.xml.asc",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(
        head.answer.representation.length,
        Some(crate::repo::signature(&one.repomd).len() as u64)
    );
    assert_eq!(bench.origin.count("*", "/el9/repodata/repomd.xml.asc"), 0);
}

#[tokio::test]
async fn a_cold_pull_by_many_clients_asks_for_each_file_once() {
    let bench = Bench::new().await;
    let packages = [("Packages/x-1.x86_64.rpm", "one")];
    let one = generation(Style::revision(1), &packages);
    one.publish(&bench.origin, "el9/", None);
    let paths: Vec<String> = std::iter::once("repodata/repomd.xml".to_owned())
        .chain(one.metadata.keys().cloned())
        .chain(one.packages.keys().cloned())
        .collect();
    for path in &paths {
        let path = format!("el9/{path}");
        let clients = (0..64).map(async |_| bench.get("rpm", &path).await.unwrap().bytes().len());
        futures_util::future::join_all(clients).await;
    }
    bench.settled().await;
    for path in &paths {
        assert_eq!(
            bench.origin.count("GET", &format!("/el9/{path}")),
            1,
            "{path}"
        );
    }
}

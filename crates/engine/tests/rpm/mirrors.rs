//! Redirectors, and the lists of mirrors that larder answers itself.

use larder_core::{AllowPrivate, FaultKind, sha256};
use larder_testkit::{Behaviour, Origin, Resource};

use crate::repo::{MASTER, SIGNATURE, Style, generation, signature};
use crate::support::{Bench, upstream};
use crate::{EXPIRED, body, refusal};

fn to(mirror: &Origin, path: &str) -> Behaviour {
    Behaviour::Redirect {
        status: 302,
        location: mirror.url(path),
    }
}

#[tokio::test]
async fn rpm_11_hazard_w10_a_generation_comes_from_one_mirror_though_the_redirector_has_two() {
    let (ahead, lagging) = (Origin::start().await, Origin::start().await);
    let bench = Bench::with(|repository| {
        let mirrors = [ahead.address(), lagging.address()];
        upstream(repository).allow_private =
            mirrors.into_iter().map(AllowPrivate::Socket).collect();
    })
    .await;
    let package = "Packages/g++-1^git.x86_64.rpm";
    let old = generation(Style::revision(1), &[(package, "old")]);
    let new = generation(Style::revision(2), &[(package, "new")]);
    old.publish(&lagging, "pub/el9/", None);
    new.publish(&ahead, "pub/el9/", None);
    // The redirector's next choice is always the other one.
    bench.origin.behave(
        &format!("/el9/{MASTER}"),
        to(&ahead, &format!("pub/el9/{MASTER}")),
    );
    for path in new
        .metadata
        .keys()
        .chain(old.metadata.keys())
        .map(String::as_str)
        .chain([package])
    {
        bench.origin.behave(
            &format!("/el9/{path}"),
            to(
                &lagging,
                &format!("pub/el9/{}", path.replace('+', "%2B").replace('^', "%5E")),
            ),
        );
    }
    assert_eq!(body(&bench, &format!("el9/{MASTER}")).await, new.repomd);
    assert_eq!(
        body(&bench, &format!("el9/{SIGNATURE}")).await,
        signature(&new.repomd)
    );
    for (path, bytes) in &new.metadata {
        assert_eq!(&body(&bench, &format!("el9/{path}")).await, bytes, "{path}");
    }
    assert_eq!(body(&bench, &format!("el9/{package}")).await, b"new");
    assert_eq!(lagging.requests().len(), 0, "{:?}", lagging.requests());
    assert!(
        ahead
            .requests()
            .iter()
            .any(|request| request.target == "/pub/el9/Packages/g%2B%2B-1%5Egit.x86_64.rpm")
    );
}

#[tokio::test]
async fn rpm_11_a_mirror_that_has_lost_a_file_is_left_for_the_redirector() {
    let mirror = Origin::start().await;
    let bench =
        Bench::with(|r| upstream(r).allow_private = vec![AllowPrivate::Socket(mirror.address())])
            .await;
    let package = "Packages/x-1.x86_64.rpm";
    let one = generation(Style::revision(1), &[(package, "one")]);
    one.publish(&mirror, "pub/el9/", None);
    bench.origin.behave(
        &format!("/el9/{MASTER}"),
        to(&mirror, &format!("pub/el9/{MASTER}")),
    );
    body(&bench, &format!("el9/{MASTER}")).await;
    mirror.remove(&format!("/pub/el9/{package}"));
    one.publish(&bench.origin, "el9/", None);
    assert_eq!(body(&bench, &format!("el9/{package}")).await, b"one");
    assert_eq!(mirror.count("GET", &format!("/pub/el9/{package}")), 1);
}

#[tokio::test]
async fn rpm_15_a_mirror_that_knows_a_plain_plus_only_is_asked_for_that_by_the_redirector() {
    let mirror = Origin::start().await;
    let bench =
        Bench::with(|r| upstream(r).allow_private = vec![AllowPrivate::Socket(mirror.address())])
            .await;
    let package = "Packages/g++-1.x86_64.rpm";
    let one = generation(Style::revision(1), &[(package, "one")]);
    one.publish(&mirror, "pub/el9/", None);
    mirror.put(
        "/pub/el9/Packages/g%2B%2B-1.x86_64.rpm",
        Resource::new("not here").status(404),
    );
    for path in [MASTER, package] {
        bench.origin.behave(
            &format!("/el9/{path}"),
            to(&mirror, &format!("pub/el9/{path}")),
        );
    }
    body(&bench, &format!("el9/{MASTER}")).await;
    assert_eq!(body(&bench, &format!("el9/{package}")).await, b"one");
    assert!(
        bench
            .origin
            .requests()
            .iter()
            .any(|request| request.target == format!("/el9/{package}"))
    );
}

/// A file leads to a mirror only because the redirector led there: a private address is refused as any other redirect is.
#[tokio::test]
async fn rpm_11_mirrors_at_private_addresses_are_refused_unless_allowed() {
    let mirror = Origin::start().await;
    let bench = Bench::new().await;
    generation(Style::revision(1), &[]).publish(&mirror, "pub/el9/", None);
    bench.origin.behave(
        &format!("/el9/{MASTER}"),
        to(&mirror, &format!("pub/el9/{MASTER}")),
    );
    assert_eq!(
        refusal(bench.get("rpm", &format!("el9/{MASTER}")).await),
        (FaultKind::BadGateway, "address_refused")
    );
    assert_eq!(mirror.connections(), 0);
}

#[tokio::test]
async fn rpm_19_a_metalink_names_larder_alone_and_the_master_index_that_it_serves() {
    let bench = Bench::new().await;
    let (one, two) = (
        generation(Style::revision(41), &[]),
        generation(Style::revision(42), &[]),
    );
    let root = "9/Base%20OS/g%2B%2B/";
    one.publish(&bench.origin, "9/Base OS/g++/", None);
    for (state, instead_of) in [(&one, None), (&two, Some(&one))] {
        state.publish(&bench.origin, "9/Base OS/g++/", instead_of);
        let metalink =
            String::from_utf8(body(&bench, &format!("{root}metalink?repo=x&arch=y")).await)
                .unwrap();
        assert_eq!(body(&bench, &format!("{root}{MASTER}")).await, state.repomd);
        assert!(
            metalink.contains(&format!(
                "<hash type=\"sha256\">{}</hash>",
                sha256(&state.repomd).to_hex()
            )),
            "{metalink}"
        );
        assert!(
            metalink.contains(&format!("<size>{}</size>", state.repomd.len())),
            "{metalink}"
        );
        let revision = if instead_of.is_none() { 41 } else { 42 };
        assert!(
            metalink.contains(&format!("<mm0:timestamp>{revision}</mm0:timestamp>")),
            "{metalink}"
        );
        let urls: Vec<&str> = metalink
            .split("<url")
            .skip(1)
            .filter_map(|rest| rest.split(['>', '<']).nth(1))
            .collect();
        assert_eq!(
            urls,
            [format!(
                "http://larder.test/api/v1/remote/rpm/9/Base%20OS/g++/{MASTER}"
            )]
        );
        bench.wait(EXPIRED);
    }
    let list = body(&bench, &format!("{root}mirrorlist?countme=1")).await;
    assert_eq!(
        String::from_utf8(list).unwrap(),
        "http://larder.test/api/v1/remote/rpm/9/Base%20OS/g++/\n"
    );
    assert!(
        bench
            .origin
            .requests()
            .iter()
            .all(|request| !request.path().ends_with("metalink")
                && !request.path().ends_with("mirrorlist"))
    );
}

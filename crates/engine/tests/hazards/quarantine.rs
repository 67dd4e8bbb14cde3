//! Contract, section 5: the rule holds on every way in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use larder_core::{
    AllowPrivate, Fault, FaultKind, Kind, MissingDate, PackageType, PublicUrls, Repository,
    RepositoryName, UnixMillis, VirtualSettings,
};
use larder_testkit::{Origin, Payload, Resource};

use crate::support::{Bench, FORMATS, Got, START, days_ago, publish, pypi_page, upstream};

const THREE_DAYS: u64 = 3 * 86_400;

pub(crate) fn three_days(repository: &mut Repository) {
    repository.quarantine.hold = Some(Duration::from_secs(THREE_DAYS));
}

#[track_caller]
pub(crate) fn assert_held(result: Result<Got, Fault>) {
    match result {
        Err(fault) => {
            assert_eq!(
                (fault.kind, fault.code.as_str(), fault.rule.as_deref()),
                (FaultKind::NotFound, "quarantined", Some("quarantine_new"))
            );
            assert_eq!(
                fault.held_until,
                Some(UnixMillis(START.0 + 2 * 86_400_000)),
                "published a day ago, held for three"
            );
        }
        Ok(got) => panic!("served: {got:?}"),
    }
}

/// Every way to ask for a file.
async fn ask_every_way(bench: &Bench, repository: &str, path: &str) -> Vec<Result<Got, Fault>> {
    let mut all = Vec::new();
    for (method, headers) in [
        (Method::GET, &[][..]),
        (Method::HEAD, &[]),
        (Method::GET, &[("range", "bytes=0-0")]),
        (Method::GET, &[("if-none-match", "\"tag\"")]),
        (Method::GET, &[("if-none-match", "*")]),
        (
            Method::HEAD,
            &[("if-modified-since", "Fri, 01 Jan 2100 00:00:00 GMT")],
        ),
        (Method::GET, &[("accept-encoding", "gzip")]),
    ] {
        all.push(bench.ask(method, repository, path, headers).await);
        bench.settled().await;
    }
    all
}

fn young(size: u64) -> Resource {
    Resource::new(Payload::generated(size, 1))
        .etag("\"tag\"")
        .last_modified(&days_ago(1))
}

#[tokio::test]
async fn a_young_file_is_held_however_it_is_asked_for() {
    for format in FORMATS {
        for size in [100, 3 << 20] {
            let mut bench = Bench::with(three_days).await;
            let body = Payload::generated(size, 1);
            let file = publish(&bench.origin, format, &body, "\"tag\"");
            bench.origin.put(&file.at, young(size));
            for way in ask_every_way(&bench, format, &file.path).await {
                assert_held(way);
            }
            assert!(
                bench.origin.count("*", &file.at) <= 1,
                "a held file is not asked for again"
            );
            if file.has_document() {
                bench
                    .get(format, file.document)
                    .await
                    .expect("index pages stay available");
            }
            bench.restart().await;
            for way in ask_every_way(&bench, format, &file.path).await {
                assert_held(way);
            }
            bench.flush().await;
            for way in ask_every_way(&bench, format, &file.path).await {
                assert_held(way);
            }
            bench.wait(2 * 86_400 - 1);
            assert!(
                bench.get(format, &file.path).await.is_err(),
                "a second too early"
            );
            bench.settled().await;
            bench.wait(1);
            assert_eq!(
                bench.get(format, &file.path).await.unwrap().bytes(),
                &body.slice(0, size),
                "{format}"
            );
        }
    }
}

#[tokio::test]
async fn a_file_that_is_held_already_is_held_back_too() {
    for format in FORMATS {
        let mut bench = Bench::new().await;
        let file = publish(
            &bench.origin,
            format,
            &Payload::generated(100, 1),
            "\"tag\"",
        );
        bench.origin.put(&file.at, young(100));
        bench.get(format, &file.path).await.unwrap();
        bench.settled().await;
        let remembered = crate::remembered(&bench, format, &file.path).await;
        bench.reload(three_days);
        assert!(
            !remembered.is_good(bench.engine.now()),
            "what was remembered under the old rules is void"
        );
        for way in ask_every_way(&bench, format, &file.path).await {
            assert_held(way);
        }
        bench.restart().await;
        assert_held(bench.get(format, &file.path).await);
    }
}

#[tokio::test]
async fn sidecars_take_the_clearance_of_their_subject() {
    for (repository, subject, sidecars) in [
        (
            "pypi",
            "packages/demo-1.0-py3-none-any.whl",
            &[".metadata", ".asc"][..],
        ),
        ("helm", "charts/demo-1.0.0.tgz", &[".prov"]),
        ("generic", "tool-1.0.tar.gz", &[".asc", ".sig"]),
    ] {
        for subject_first in [true, false] {
            let bench = Bench::with(three_days).await;
            bench.origin.put(&format!("/{subject}"), young(100));
            if subject_first {
                assert_held(bench.get(repository, subject).await);
                bench.settled().await;
            }
            for suffix in sidecars {
                let path = format!("{subject}{suffix}");
                // Old itself: its own date does not count.
                bench.origin.put(
                    &format!("/{path}"),
                    Resource::new("sidecar").last_modified(&days_ago(1000)),
                );
                for way in ask_every_way(&bench, repository, &path).await {
                    assert_held(way);
                }
                assert_eq!(bench.origin.count("*", &format!("/{path}")), 0, "{path}");
            }
            bench.wait(2 * 86_400);
            for suffix in sidecars {
                assert_eq!(
                    bench
                        .get(repository, &format!("{subject}{suffix}"))
                        .await
                        .unwrap()
                        .text(),
                    "sidecar"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_sidecar_that_is_held_already_is_held_back_too() {
    let mut bench = Bench::new().await;
    let subject = "packages/demo-1.0-py3-none-any.whl";
    bench.origin.put(&format!("/{subject}"), young(100));
    bench
        .origin
        .put(&format!("/{subject}.metadata"), Resource::new("m"));
    bench.get("pypi", subject).await.unwrap();
    bench
        .get("pypi", &format!("{subject}.metadata"))
        .await
        .unwrap();
    bench.settled().await;
    bench.reload(three_days);
    for way in ask_every_way(&bench, "pypi", &format!("{subject}.metadata")).await {
        assert_held(way);
    }
}

#[tokio::test]
async fn every_spelling_of_a_file_is_held() {
    let bench = Bench::with(three_days).await;
    bench
        .origin
        .put("/packages/demo-1.0+local-py3-none-any.whl", young(100));
    for spelling in [
        "demo-1.0+local",
        "demo-1.0%2Blocal",
        "demo-1.0%2blocal",
        "d%65mo-1.0+local",
    ] {
        assert_held(
            bench
                .get("pypi", &format!("packages/{spelling}-py3-none-any.whl"))
                .await,
        );
        bench.settled().await;
        assert_held(
            bench
                .get(
                    "pypi",
                    &format!("packages/{spelling}-py3-none-any.whl.metadata"),
                )
                .await,
        );
        bench.settled().await;
    }
    assert_eq!(
        bench
            .origin
            .requests()
            .iter()
            .filter(|r| r.target.starts_with("/packages/"))
            .count(),
        1,
        "one file, one contact"
    );
}

#[tokio::test]
async fn a_link_to_another_host_is_held_too() {
    let other = Origin::start().await;
    let bench = Bench::with(|r| {
        three_days(r);
        upstream(r).allow_private = vec![AllowPrivate::Socket(other.address())];
    })
    .await;
    let body = Payload::generated(100, 1);
    let name = "demo-1.0-py3-none-any.whl";
    bench.origin.put(
        "/simple/demo/",
        pypi_page(&other.url(name), &larder_core::sha256(&body.slice(0, 100))),
    );
    other.put(&format!("/{name}"), young(100));
    other.put(&format!("/{name}.metadata"), Resource::new("m"));
    let page = bench
        .client("pypi", "simple/demo/")
        .header("accept", "application/vnd.pypi.simple.v1+json")
        .run()
        .await
        .unwrap();
    let page: serde_json::Value = serde_json::from_slice(page.bytes()).unwrap();
    let link = page["files"][0]["url"]
        .as_str()
        .unwrap()
        .strip_prefix("/api/v1/remote/pypi/")
        .unwrap()
        .to_owned();
    assert!(link.starts_with("_ext/"), "{link}");
    for path in [link.clone(), format!("{link}.metadata")] {
        for way in ask_every_way(&bench, "pypi", &path).await {
            assert_held(way);
        }
    }
    bench.wait(2 * 86_400);
    assert_eq!(
        bench.get("pypi", &link).await.unwrap().bytes(),
        &body.slice(0, 100)
    );
    assert_eq!(
        bench
            .get("pypi", &format!("{link}.metadata"))
            .await
            .unwrap()
            .text(),
        "m"
    );
    let forged = link.replace(name, "other-1.0-py3-none-any.whl");
    assert_eq!(
        crate::refusal(bench.get("pypi", &forged).await),
        (FaultKind::Forbidden, "link_forged")
    );
}

#[tokio::test]
async fn without_a_date_the_operator_decides() {
    for (missing, served_now, served_later) in [
        (MissingDate::Allow, true, true),
        (MissingDate::FirstSeen, false, true),
        (MissingDate::Deny, false, false),
    ] {
        let bench = Bench::with(|r| {
            three_days(r);
            r.quarantine.missing_date = missing;
        })
        .await;
        bench.origin.put("/f.tgz", Resource::new("undated"));
        assert_eq!(
            bench.get("generic", "f.tgz").await.is_ok(),
            served_now,
            "{missing:?}"
        );
        bench.settled().await;
        bench.wait(THREE_DAYS);
        assert_eq!(
            bench.get("generic", "f.tgz").await.is_ok(),
            served_later,
            "{missing:?}"
        );
    }
}

#[tokio::test]
async fn a_refetch_of_the_same_bytes_moves_no_date_and_other_bytes_begin_anew() {
    for size in [100, 3 << 20] {
        let bench = Bench::with(|r| {
            three_days(r);
            r.cache.immutable_ttl = Some(Duration::from_secs(100));
        })
        .await;
        let old = Payload::generated(size, 1);
        let dated =
            |body: &Payload, days| Resource::new(body.clone()).last_modified(&days_ago(days));
        bench.origin.put("/f.tgz", dated(&old, 10));
        bench.get("generic", "f.tgz").await.unwrap();
        bench.settled().await;
        // A mirror that stamps its files anew.
        bench.wait(101);
        bench.origin.put("/f.tgz", dated(&old, 0));
        assert_eq!(
            bench.get("generic", "f.tgz").await.unwrap().bytes(),
            &old.slice(0, size),
            "the same bytes are as old as before"
        );
        bench.settled().await;
        bench.wait(101);
        bench
            .origin
            .put("/f.tgz", dated(&Payload::generated(size, 2), 0));
        let held = bench.get("generic", "f.tgz").await.unwrap_err();
        assert_eq!(
            held.code.as_str(),
            "quarantined",
            "other bytes are new, even under a known name"
        );
    }
}

#[tokio::test]
async fn mutable_paths_are_never_held() {
    let bench = Bench::with(|r| {
        three_days(r);
        r.access.mutable = Some(vec![larder_core::Pattern::compile("idx$").unwrap()]);
    })
    .await;
    bench.origin.put("/idx", young(100));
    bench.get("generic", "idx").await.unwrap();
}

/// A simple page that states when its one wheel was uploaded.
pub(crate) fn dated_page(bench: &Bench, body: &Payload, uploaded: &str) {
    let file = "packages/demo-1.0-py3-none-any.whl";
    let digest = larder_core::sha256(&body.slice(0, body.length())).to_hex();
    let page = format!(
        r#"{{"meta":{{"api-version":"1.1"}},"name":"demo","versions":["1.0"],"files":[{{"filename":"demo-1.0-py3-none-any.whl","url":"{}","hashes":{{"sha256":"{digest}"}},"upload-time":"{uploaded}"}}]}}"#,
        bench.origin.url(file)
    );
    let page = Resource::new(page).content_type("application/vnd.pypi.simple.v1+json");
    bench.origin.put("/simple/demo/", page);
}

/// A time before [`START`] as indexes state it.
pub(crate) fn stated(days: i64) -> String {
    UnixMillis(START.0 - days * 86_400_000).to_rfc3339()
}

/// Contract, section 5: what the registry states is used instead of the file's own date, on every way in, and stays.
#[tokio::test]
async fn the_registry_s_date_counts_and_is_kept() {
    let wheel = "packages/demo-1.0-py3-none-any.whl";
    let at = format!("/{wheel}");
    for size in [100, 3 << 20] {
        let mut bench = Bench::with(three_days).await;
        let body = Payload::generated(size, 1);
        dated_page(&bench, &body, &stated(1));
        // A file server that copied the file with an old date.
        let old = Resource::new(body.clone()).etag("\"tag\"");
        bench.origin.put(&at, old.last_modified(&days_ago(1000)));
        for way in ask_every_way(&bench, "pypi", wheel).await {
            assert_held(way);
        }
        let fault = bench.get("pypi", wheel).await.unwrap_err();
        assert!(
            fault.message.contains("(as the registry states)"),
            "{}",
            fault.message
        );
        // The date that counted does not go with the index that stated it.
        bench
            .origin
            .put("/simple/demo/", Resource::new("").status(503));
        bench.restart().await;
        for way in ask_every_way(&bench, "pypi", wheel).await {
            assert_held(way);
        }
        bench.wait(2 * 86_400);
        let got = bench.get("pypi", wheel).await.unwrap();
        assert_eq!(got.bytes(), &body.slice(0, size));
    }
}

#[tokio::test]
async fn a_head_that_comes_first_asks_for_the_registry_s_date_too() {
    let wheel = "packages/demo-1.0-py3-none-any.whl";
    let bench = Bench::with(three_days).await;
    let body = Payload::generated(100, 1);
    dated_page(&bench, &body, &stated(1));
    let old = Resource::new(body).last_modified(&days_ago(1000));
    bench.origin.put(&format!("/{wheel}"), old);
    assert_held(bench.ask(Method::HEAD, "pypi", wheel, &[]).await);
    // A sidecar is held with its subject, whose date is found out for it.
    let bench = Bench::with(three_days).await;
    let body = Payload::generated(100, 1);
    dated_page(&bench, &body, &stated(1));
    let old = Resource::new(body).last_modified(&days_ago(1000));
    bench.origin.put(&format!("/{wheel}"), old);
    bench
        .origin
        .put(&format!("/{wheel}.metadata"), Resource::new("m"));
    assert_held(bench.get("pypi", &format!("{wheel}.metadata")).await);
}

#[tokio::test]
async fn a_mirror_that_stamps_its_files_anew_makes_no_old_release_new() {
    let wheel = "packages/demo-1.0-py3-none-any.whl";
    let serve = |bench: &Bench| {
        let body = Payload::generated(100, 1);
        dated_page(bench, &body, &stated(1000));
        bench.origin.put(&format!("/{wheel}"), young(100));
    };
    let bench = Bench::with(three_days).await;
    serve(&bench);
    bench.get("pypi", wheel).await.expect("released long ago");
    // The letter of the contract.
    let letter = Bench::with(|r| {
        three_days(r);
        r.quarantine.date = larder_core::DateSource::LastModified;
    })
    .await;
    serve(&letter);
    assert_held(letter.get("pypi", wheel).await);
    // What states nothing has its own date.
    let bench = Bench::with(three_days).await;
    bench.origin.put(&format!("/{wheel}"), young(100));
    assert_held(bench.get("pypi", wheel).await);
}

/// The packument that clients ask for is the abbreviated one, which states no times: the full one is asked for them.
#[tokio::test]
async fn a_packument_without_times_is_not_the_last_word() {
    let bench = Bench::with(three_days).await;
    let tarball = Payload::generated(100, 1);
    let file = publish(&bench.origin, "npm", &tarball, "\"tag\"");
    let old = Resource::new(tarball.clone()).last_modified(&days_ago(1000));
    bench.origin.put(&file.at, old);
    let short = [("accept", "application/vnd.npm.install-v1+json")];
    let got = bench.ask(Method::GET, "npm", "demo", &short).await.unwrap();
    assert!(got.text().contains("integrity") && !got.text().contains("\"time\""));
    bench.settled().await;
    let full = format!(
        r#"{{"name":"demo","dist-tags":{{"latest":"1.0.0"}},"versions":{{"1.0.0":{{"name":"demo","version":"1.0.0","dist":{{"tarball":"{}"}}}}}},"time":{{"1.0.0":"{}"}}}}"#,
        bench.origin.url("demo/-/demo-1.0.0.tgz"),
        stated(1)
    );
    let full = Resource::new(full).content_type("application/json");
    bench.origin.put("/demo", full);
    for way in ask_every_way(&bench, "npm", &file.path).await {
        assert_held(way);
    }
}

/// Contract hazard S20: what a publisher writes into a chart's index may be any date.
#[tokio::test]
async fn hazard_s20_a_publisher_s_own_date_opens_nothing() {
    let bench = Bench::with(three_days).await;
    let body = Payload::generated(100, 1);
    let digest = larder_core::sha256(&body.slice(0, 100)).to_hex();
    let index = format!(
        "apiVersion: v1\nentries:\n  demo:\n  - apiVersion: v2\n    created: \"{}\"\n    digest: {digest}\n    name: demo\n    urls:\n    - charts/demo-1.0.0.tgz\n    version: 1.0.0\n",
        stated(1000)
    );
    bench.origin.put(
        "/index.yaml",
        Resource::new(index).content_type("application/yaml"),
    );
    bench.origin.put("/charts/demo-1.0.0.tgz", young(100));
    bench.get("helm", "index.yaml").await.unwrap();
    assert_held(bench.get("helm", "charts/demo-1.0.0.tgz").await);
}

/// What is hidden in a document bounds how long an answer is remembered, by larder and by clients; and what is hidden at two moments is two
/// documents.
#[tokio::test]
async fn what_is_hidden_bounds_how_long_an_answer_holds() {
    let bench = Bench::new().await;
    let entry = |version: &str, days| {
        format!(
            "  - apiVersion: v2\n    created: \"{}\"\n    name: demo\n    urls:\n    - demo-{version}.tgz\n    version: {version}\n",
            stated(days)
        )
    };
    let index = format!(
        "apiVersion: v1\nentries:\n  demo:\n{}{}",
        entry("2.0.0", 1),
        entry("1.0.0", 10)
    );
    let index = Resource::new(index).content_type("application/yaml");
    bench.origin.put("/index.yaml", index);
    let configure = |hold: Option<Duration>| {
        let mut member = crate::support::repository(PackageType::Helm, &bench.origin.url("/"));
        member.quarantine.hold = hold;
        let all = Repository {
            name: RepositoryName::parse("all").unwrap(),
            kind: Kind::Virtual(VirtualSettings {
                members: vec![member.name.clone()],
                ..VirtualSettings::default()
            }),
            ..member.clone()
        };
        bench.engine.replace_repositories(
            vec![Arc::new(member), Arc::new(all)],
            &BTreeMap::new(),
            PublicUrls::default(),
        );
    };
    configure(None);
    let ticket = crate::remembered(&bench, "all", "index.yaml").await;
    let hour = Some(UnixMillis(START.0 + 3_600_000));
    assert_eq!(ticket.fresh_until, hour, "nothing is hidden");
    let open = bench.get("all", "index.yaml").await.unwrap();
    assert!(open.text().contains("2.0.0"));

    configure(Some(Duration::from_secs(THREE_DAYS)));
    assert!(!ticket.is_good(bench.engine.now()));
    let hidden = bench.get("all", "index.yaml").await.unwrap();
    assert!(!hidden.text().contains("2.0.0") && hidden.text().contains("1.0.0"));
    assert_ne!(
        hidden.answer.representation.etag,
        open.answer.representation.etag
    );
    let ticket = crate::remembered(&bench, "all", "index.yaml").await;
    let until = ticket.fresh_until.unwrap();
    let least = UnixMillis(START.0 + 600_000);
    assert!(
        until <= least,
        "looked at anew within ten minutes: {until:?}"
    );
    let remaining = hidden.answer.freshness.remaining.unwrap();
    assert!(remaining <= Duration::from_mins(10), "{remaining:?}");
    bench.wait(600);
    assert!(!ticket.is_good(bench.engine.now()));

    bench.wait(2 * 86_400);
    let matured = bench.get("all", "index.yaml").await.unwrap();
    assert!(matured.text().contains("2.0.0"));
    assert_ne!(
        matured.answer.representation.etag,
        hidden.answer.representation.etag
    );
}

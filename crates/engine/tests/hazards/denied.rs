//! Rules hold for whatever larder asks the upstream, not for what clients ask alone: a document that the patterns keep out is not read
//! for the sake of a file that they admit, and what is passed through meets them as well.

use http::Method;
use larder_core::{FaultKind, Pattern, Repository};
use larder_testkit::{Payload, Resource};

use crate::refusal;
use crate::support::{Bench, publish, upstream};

const AUDIT: &str = "-/npm/v1/security/advisories/bulk";

type Change = fn(&mut Repository);

/// A file of a format, with the document that states what it is.
struct Named {
    format: &'static str,
    file: &'static str,
    /// The document as a client asks for it, and where it is at the origin.
    document: &'static str,
    document_at: &'static str,
    deny: &'static str,
}

const NAMED: [Named; 5] = [
    Named {
        format: "pypi",
        file: "packages/demo-1.0-py3-none-any.whl",
        document: "simple/demo/",
        document_at: "/simple/demo/",
        deny: "^simple/",
    },
    Named {
        format: "npm",
        file: "demo/-/demo-1.0.0.tgz",
        document: "demo",
        document_at: "/demo",
        deny: "^demo$",
    },
    Named {
        format: "helm",
        file: "charts/demo-1.0.0.tgz",
        document: "index.yaml",
        document_at: "/index.yaml",
        deny: r"index\.yaml$",
    },
    Named {
        format: "alpine",
        file: "v3/main/x86_64/a-1-r0.apk",
        document: "v3/main/x86_64/APKINDEX.tar.gz",
        document_at: "/v3/main/x86_64/APKINDEX.tar.gz",
        deny: r"APKINDEX|\.adb$",
    },
    // The packages of an RPM repository are looked up in what is held only; its metadata is served as of its master index.
    Named {
        format: "rpm",
        file: "el9/repodata/filelists.xml.gz",
        document: "el9/repodata/repomd.xml",
        document_at: "/el9/repodata/repomd.xml",
        deny: r"repomd\.xml$",
    },
];

/// Publishes the file, with a document that states other bytes where `is_wrong`.
fn publish_named(bench: &Bench, named: &Named, is_wrong: bool) {
    let body = Payload::generated(1000, 1);
    if matches!(named.format, "pypi" | "npm" | "helm") {
        let stated = Payload::generated(1000, if is_wrong { 2 } else { 1 });
        let file = publish(&bench.origin, named.format, &stated, "\"f\"");
        assert_eq!(
            (&*file.path, file.document_at),
            (named.file, named.document_at)
        );
    }
    let at = format!("/{}", named.file);
    bench.origin.put(&at, Resource::new(body).etag("\"f\""));
}

#[tokio::test]
async fn a_document_that_the_rules_keep_out_is_not_read_for_a_file_s_sake() {
    for named in &NAMED {
        let Named { format, file, .. } = named;
        // Without the rule it is asked for, and what it states counts.
        let open = Bench::new().await;
        publish_named(&open, named, true);
        let got = open.get(format, file).await;
        open.settled().await;
        assert!(
            open.origin.count("*", named.document_at) > 0,
            "{format}: {:?}",
            open.origin.requests()
        );
        if matches!(*format, "pypi" | "npm" | "helm") {
            assert_eq!(refusal(got).1, "digest_mismatch", "{format}");
        }

        let bench = Bench::with(|repository| {
            repository.access.deny = vec![Pattern::compile(named.deny).unwrap()];
        })
        .await;
        publish_named(&bench, named, true);
        assert_eq!(
            refusal(bench.get(format, named.document).await),
            (FaultKind::Forbidden, "pattern_denied"),
            "{format}"
        );
        let first = bench.get(format, file).await.unwrap();
        assert_eq!(first.bytes(), &Payload::generated(1000, 1).slice(0, 1000));
        bench.settled().await;
        let second = bench.get(format, file).await.unwrap();
        assert!(
            second.is_hit() && (second.answer.hot || *format == "rpm"),
            "{format}: {}",
            second.answer.cache_status
        );
        let asked: Vec<_> = bench.origin.requests();
        let others: Vec<_> = asked
            .iter()
            .filter(|request| request.path() != format!("/{file}"))
            .collect();
        assert!(others.is_empty(), "{format}: {others:?}");
    }
}

/// What was read before the rule came is not asked for again, and says nothing any more.
#[tokio::test]
async fn a_document_that_is_held_when_the_rules_come_to_keep_it_out_is_not_renewed() {
    for named in NAMED.iter().filter(|named| named.format != "alpine") {
        let Named { format, file, .. } = named;
        let mut bench = Bench::new().await;
        publish_named(&bench, named, false);
        let _ = bench.get(format, named.document).await;
        bench.settled().await;
        bench.origin.reset_log();
        bench.reload(|repository| {
            repository.access.deny = vec![Pattern::compile(named.deny).unwrap()];
        });
        bench.wait(7200);
        let got = bench.get(format, file).await.unwrap();
        assert_eq!(got.bytes().len(), 1000, "{format}");
        bench.settled().await;
        assert_eq!(bench.origin.count("*", named.document_at), 0, "{format}");
    }
}

#[tokio::test]
async fn what_is_passed_through_meets_the_rules_before_the_upstream() {
    let put = |bench: &Bench| {
        bench.origin.put(
            &format!("/{AUDIT}"),
            Resource::new("{}").content_type("application/json"),
        );
    };
    let open = Bench::new().await;
    put(&open);
    let got = open.ask(Method::POST, "npm", AUDIT, &[]).await.unwrap();
    assert_eq!(got.answer.status, 200);
    assert_eq!(open.origin.count("POST", &format!("/{AUDIT}")), 1);

    let rules: [(&str, &str, Change); 4] = [
        ("pattern_denied", "deny_patterns", |repository| {
            repository.access.deny = vec![Pattern::compile("^-/npm/v1/security/").unwrap()];
        }),
        ("pattern_denied", "allow_patterns", |repository| {
            repository.access.allow = vec![Pattern::compile("^demo").unwrap()];
        }),
        ("pattern_denied", "immutable_patterns", |repository| {
            repository.access.immutable = Some(vec![Pattern::compile(r"\.tgz$").unwrap()]);
        }),
        ("offline", "offline", |repository| {
            upstream(repository).offline = true;
        }),
    ];
    for (code, rule, change) in rules {
        let bench = Bench::with(change).await;
        put(&bench);
        for path in [AUDIT.to_owned(), format!("{AUDIT}/"), format!("./{AUDIT}")] {
            let fault = bench
                .ask(Method::POST, "npm", &path, &[])
                .await
                .map(|got| got.answer.status)
                .unwrap_err();
            assert_eq!(
                (fault.code.as_str(), fault.rule.as_deref()),
                (code, Some(rule)),
                "{path}"
            );
        }
        assert_eq!(bench.origin.requests().len(), 0, "{rule}");
    }
}

//! What an answer says of itself: from when its copy is, how it came about, and what a later answer of the upstream changes of it.

use std::time::Duration;

use http::Method;
use larder_core::{Clock as _, FaultKind, Pattern, Repository, Revalidate, Source};
use larder_testkit::{Behaviour, Payload, Resource};

use crate::support::{Bench, FORMATS, publish};
use crate::{refusal, text};

fn mutable(repository: &mut Repository) {
    repository.access.mutable = Some(vec![Pattern::compile("idx").unwrap()]);
}

/// A bench with a copy of `idx` that was renewed as `revalidate` says, once it has expired.
async fn expired(resource: Resource, revalidate: Revalidate) -> Bench {
    let bench = Bench::with(|repository| {
        mutable(repository);
        repository.cache.revalidate = Some(revalidate);
    })
    .await;
    bench.origin.put("/idx", resource);
    bench.get("generic", "idx").await.unwrap();
    bench.settled().await;
    bench.wait(3601);
    bench.origin.reset_log();
    bench
}

/// RFC 9111 sections 4.2.1 and 4.2.3: the life is counted from the contact with the upstream, as is the age. A renewal after a network
/// failure is no contact, but a copy that larder takes for fresh is fresh for its clients, too.
#[tokio::test]
async fn age_and_life_are_counted_from_the_last_contact() {
    let mut bench = Bench::with(mutable).await;
    bench.origin.put("/idx", text("one"));
    let of = async |bench: &Bench, method| {
        let freshness = bench
            .ask(method, "generic", "idx", &[])
            .await
            .unwrap()
            .answer
            .freshness;
        (
            bench.clock.now().since(freshness.contacted_at).as_secs(),
            freshness.remaining.unwrap().as_secs(),
        )
    };
    assert_eq!(of(&bench, Method::HEAD).await, (0, 3600), "not held");
    assert_eq!(of(&bench, Method::GET).await, (0, 3600));
    bench.settled().await;
    bench.wait(3000);
    for method in [Method::GET, Method::HEAD] {
        assert_eq!(of(&bench, method).await, (3000, 600));
    }
    bench.wait(601);
    bench.origin.stop().await;
    assert_eq!(
        of(&bench, Method::GET).await,
        (3601, 3600),
        "nobody was reached"
    );
    bench.settled().await;
    bench.wait(10);
    assert_eq!(of(&bench, Method::GET).await, (3611, 3590));
    bench.wait(3600);
    bench.origin.restart();
    bench.wait(60);
    assert_eq!(of(&bench, Method::GET).await, (0, 3600));
}

/// RFC 9111 section 4.3.4 for a 304, 4.3.5 for a HEAD; validators are those of the answer that carried the body.
#[tokio::test]
async fn a_304_or_an_unchanged_head_renews_what_describes_the_copy() {
    for (revalidate, conditions) in [
        (Revalidate::Get, true),
        (Revalidate::Head, true),
        (Revalidate::Head, false),
    ] {
        let bench = expired(text("one"), revalidate).await;
        bench.origin.put(
            "/idx",
            Resource::new("one")
                .etag("\"one\"")
                .last_modified("Fri, 02 Jan 2026 00:00:00 GMT")
                .content_type("text/x-new")
                .header("Content-Disposition", "attachment; filename=new")
                .header("Content-Language", "tlh"),
        );
        if !conditions {
            bench.origin.behave("/idx", Behaviour::IgnoreConditions);
        }
        let case = format!("{revalidate:?} {conditions}");
        for asked in [1, 0] {
            bench.origin.reset_log();
            let got = bench.get("generic", "idx").await.unwrap();
            bench.settled().await;
            let of = got.answer.representation;
            assert_eq!(bench.origin.requests().len(), asked, "{case}");
            assert_eq!(of.content_type.as_deref(), Some("text/x-new"), "{case}");
            assert_eq!(
                of.content_disposition.as_deref(),
                Some("attachment; filename=new"),
                "{case}"
            );
            assert_eq!(of.content_language.as_deref(), Some("tlh"), "{case}");
            assert_eq!(
                of.last_modified.as_deref(),
                Some("Thu, 01 Jan 2026 00:00:00 GMT"),
                "{case}: came with the body"
            );
            assert_eq!(got.answer.source, Source::Cache);
        }
    }
}

/// RFC 9111 section 4.3.4: no stored answer has that validator, so the 304 updates none; the body itself must be asked for.
#[tokio::test]
async fn a_304_with_another_strong_tag_is_no_renewal() {
    for (revalidate, methods) in [
        (Revalidate::Get, ["GET", "GET"]),
        (Revalidate::Head, ["HEAD", "GET"]),
    ] {
        let bench = expired(text("one"), revalidate).await;
        bench.origin.put("/idx", text("two"));
        bench.origin.behave_once("/idx", Behaviour::NotModified);
        assert_eq!(
            bench.get("generic", "idx").await.unwrap().text(),
            "two",
            "{revalidate:?}"
        );
        let requests = bench.origin.requests();
        assert_eq!(
            requests
                .iter()
                .map(|request| request.method.as_str())
                .collect::<Vec<_>>(),
            methods
        );
        let conditions =
            ["if-none-match", "if-modified-since"].map(|name| requests[1].header(name));
        assert_eq!(conditions, [None, None], "asked without conditions");
    }
    // An upstream that says nothing else leaves the copy expired, and is asked again.
    let bench = expired(text("one"), Revalidate::Get).await;
    bench.origin.put("/idx", text("two"));
    bench.origin.behave_times("/idx", 2, Behaviour::NotModified);
    assert_eq!(bench.get("generic", "idx").await.unwrap().text(), "one");
    bench.settled().await;
    assert_eq!(bench.get("generic", "idx").await.unwrap().text(), "two");
}

/// What a server puts in place of an entity tag is the client's to read, and the server's to get back.
#[tokio::test]
async fn entity_tags_that_are_not_well_formed_pass_as_they_came() {
    for tag in [
        "one",
        "\"one\"x",
        "\"one",
        "W/one",
        "w/\"one\"",
        "'one'",
        "\"a\"b\"",
        "one two, three",
    ] {
        let bench = expired(Resource::new("one").etag(tag), Revalidate::Get).await;
        for status in [200, 304] {
            let headers: &[_] = if status == 304 {
                &[("if-none-match", tag)]
            } else {
                &[]
            };
            let got = bench
                .ask(Method::GET, "generic", "idx", headers)
                .await
                .unwrap();
            bench.settled().await;
            assert_eq!(
                (got.answer.status, got.answer.representation.etag.as_deref()),
                (status, Some(tag))
            );
        }
        let sent: Vec<_> = bench
            .origin
            .requests()
            .iter()
            .map(|request| request.header("if-none-match").map(str::to_owned))
            .collect();
        assert_eq!(sent, [Some(tag.to_owned())]);
    }
}

/// RFC 9110 section 13.1.5: only a well formed strong validator can say that two parts belong together.
#[tokio::test]
async fn a_cut_body_with_a_malformed_tag_is_not_put_together() {
    let bench = Bench::new().await;
    let body = Payload::generated(3 << 20, 1);
    bench.origin.put("/f", Resource::new(body).etag("\"one\"x"));
    bench
        .origin
        .behave("/f", Behaviour::Truncate { after: 2 << 20 });
    let _ = bench
        .get("generic", "f")
        .await
        .map(|got| assert!(got.body.is_err()));
    bench.settled().await;
    assert!(
        bench
            .origin
            .requests()
            .iter()
            .all(|request| request.header("if-range").is_none())
    );
}

/// RFC 9211 section 2: what the header says is what happened.
#[tokio::test]
async fn cache_status_says_what_happened() {
    let status = async |bench: &Bench, method: Method| {
        bench
            .ask(method, "generic", "idx", &[])
            .await
            .unwrap()
            .answer
            .cache_status
    };
    for (revalidate, behaviour, expected) in [
        (Revalidate::Get, None, "larder; fwd=stale; fwd-status=304"),
        (Revalidate::Head, None, "larder; fwd=stale; fwd-status=304"),
        (
            Revalidate::Head,
            Some(Behaviour::IgnoreConditions),
            "larder; fwd=stale; fwd-status=200; detail=unchanged",
        ),
        (
            Revalidate::Never,
            None,
            "larder; fwd=stale; fwd-status=200; stored",
        ),
        (
            Revalidate::Get,
            Some(Behaviour::ResetHead),
            "larder; fwd=stale; detail=stale-error",
        ),
        (
            Revalidate::Get,
            Some(Behaviour::Truncate { after: 0 }),
            "larder; fwd=stale; fwd-status=304",
        ),
        (
            Revalidate::Never,
            Some(Behaviour::Truncate { after: 0 }),
            "larder; fwd=stale; detail=stale-error",
        ),
    ] {
        let bench = expired(text("one"), revalidate).await;
        if let Some(behaviour) = behaviour.clone() {
            bench.origin.behave("/idx", behaviour);
        }
        assert_eq!(
            status(&bench, Method::GET).await,
            expected,
            "{revalidate:?} {behaviour:?}"
        );
    }
    let bench = Bench::with(|repository| {
        mutable(repository);
        repository.cache.stale_on_status = vec![503];
    })
    .await;
    bench.origin.put("/idx", text("one"));
    assert_eq!(
        status(&bench, Method::HEAD).await,
        "larder; fwd=method; fwd-status=200"
    );
    assert_eq!(
        status(&bench, Method::GET).await,
        "larder; fwd=uri-miss; fwd-status=200; stored"
    );
    bench.settled().await;
    assert_eq!(status(&bench, Method::HEAD).await, "larder; hit; ttl=3600");
    bench.wait(3601);
    bench.origin.behave("/idx", Behaviour::Status(503));
    assert_eq!(
        status(&bench, Method::HEAD).await,
        "larder; fwd=stale; fwd-status=503; detail=stale-error"
    );
}

/// A long body is on its way when its answer is made: what was held before decides between a miss and an expired copy.
#[tokio::test]
async fn cache_status_of_a_body_in_flight_knows_of_the_copy_before_it() {
    let bench = Bench::with(mutable).await;
    for (expected, seed) in [
        ("larder; fwd=uri-miss; fwd-status=200; stored", 1),
        ("larder; fwd=stale; fwd-status=200; stored", 2),
    ] {
        bench
            .origin
            .put("/idx", Resource::new(Payload::generated(3 << 20, seed)));
        bench.origin.hold_body("/idx", 2 << 20);
        let answer = bench.client("generic", "idx").answer().await.unwrap();
        assert_eq!(answer.cache_status.to_string(), expected);
        bench.origin.release("/idx");
        bench.settled().await;
        bench.wait(3601);
    }
}

/// An answer of larder's own making was neither held nor forwarded.
#[tokio::test]
async fn cache_status_of_a_redirect_claims_no_upstream() {
    let bench = Bench::new().await;
    let got = bench.get("pypi", "simple/Some_Project/").await.unwrap();
    assert_eq!(
        (got.answer.status, got.answer.cache_status.as_str()),
        (301, "larder")
    );
    assert!(bench.origin.requests().is_empty());
}

/// HEAD has GET's header fields (RFC 9110 section 9.3.2).
#[tokio::test]
async fn a_head_of_what_is_not_held_says_how_long_get_s_answer_lives() {
    for format in FORMATS {
        for ttl in [None, Some(Duration::from_secs(100))] {
            let bench = Bench::with(|repository| repository.cache.immutable_ttl = ttl).await;
            let file = publish(
                &bench.origin,
                format,
                &Payload::generated(5000, 1),
                "\"tag\"",
            );
            let head = bench
                .ask(Method::HEAD, format, &file.path, &[])
                .await
                .unwrap()
                .answer
                .freshness;
            let get = bench
                .get(format, &file.path)
                .await
                .unwrap()
                .answer
                .freshness;
            assert_eq!((head.remaining, head.no_store), (ttl, false), "{format}");
            assert_eq!(head, get, "{format}");
        }
    }
    let bench =
        Bench::with(|repository| crate::support::upstream(repository).max_size = Some(10)).await;
    let file = publish(
        &bench.origin,
        "generic",
        &Payload::generated(5000, 1),
        "\"tag\"",
    );
    let head = bench
        .ask(Method::HEAD, "generic", &file.path, &[])
        .await
        .unwrap()
        .answer
        .freshness;
    assert_eq!(
        head.remaining,
        Some(Duration::ZERO),
        "it is not kept, so each GET is an answer of its own"
    );
}

/// RFC 9110 section 7.6.1: what `Connection` names is for the next hop only.
#[tokio::test]
async fn fields_that_the_upstream_s_connection_names_are_not_kept() {
    let bench = Bench::new().await;
    let resource = text("one")
        .header("Content-Disposition", "attachment")
        .header("Content-Language", "en");
    bench.origin.put(
        "/f",
        resource.header("Connection", "keep-alive, Content-Disposition, etag"),
    );
    for (method, held) in [
        (Method::HEAD, false),
        (Method::GET, false),
        (Method::GET, true),
    ] {
        let got = bench
            .ask(method.clone(), "generic", "f", &[])
            .await
            .unwrap();
        bench.settled().await;
        let of = got.answer.representation;
        assert_eq!(
            (of.content_disposition, of.content_language.as_deref()),
            (None, Some("en")),
            "{method} {held}"
        );
        assert_ne!(of.etag.as_deref(), Some("\"one\""), "{method} {held}");
    }
}

/// Stores like S3 say 403 for what they do not have: with `missing_status` that is a 404 wherever an absence matters.
#[tokio::test]
async fn missing_status_is_absence_in_every_format_and_way() {
    let missing = |repository: &mut Repository| repository.cache.missing_status = vec![403];
    for format in FORMATS {
        let bench = Bench::with(missing).await;
        let file = publish(&bench.origin, format, &Payload::generated(10, 1), "\"f\"");
        bench.origin.behave(&file.at, Behaviour::Status(403));
        for method in [Method::HEAD, Method::GET] {
            let answer = bench.ask(method.clone(), format, &file.path, &[]).await;
            assert_eq!(
                refusal(answer).0,
                FaultKind::Upstream(404),
                "{format} {method}"
            );
        }
        bench.settled().await;
        bench.origin.reset_log();
        assert_eq!(
            refusal(bench.get(format, &file.path).await).0,
            FaultKind::Upstream(404),
            "{format}"
        );
        assert_eq!(bench.origin.count("*", &file.at), 0, "{format}: remembered");
        bench.origin.clear(&file.at);
        bench.wait(11);
        assert_eq!(
            bench.get(format, &file.path).await.unwrap().bytes().len(),
            10,
            "{format}"
        );
    }
    for revalidate in [Revalidate::Get, Revalidate::Head, Revalidate::Never] {
        let mut bench = expired(text("one"), revalidate).await;
        bench.reload(missing);
        bench.origin.behave("/idx", Behaviour::Status(403));
        assert_eq!(
            refusal(bench.get("generic", "idx").await).0,
            FaultKind::Upstream(404)
        );
        bench.settled().await;
        bench.wait(11);
        bench.origin.stop().await;
        assert_eq!(
            refusal(bench.get("generic", "idx").await).0,
            FaultKind::BadGateway,
            "{revalidate:?}: the copy is gone"
        );
    }
}

/// Without the key, and for a status that is not listed, nothing is read as an absence.
#[tokio::test]
async fn missing_status_holds_for_what_it_lists_only() {
    for (listed, status, seen) in [
        (vec![], 403, 403),
        (vec![400], 403, 403),
        (vec![403], 400, 400),
        (vec![403, 400], 400, 404),
    ] {
        let bench =
            Bench::with(|repository| repository.cache.missing_status.clone_from(&listed)).await;
        bench.origin.put("/f", text("there"));
        bench.origin.behave("/f", Behaviour::Status(status));
        assert_eq!(
            refusal(bench.get("generic", "f").await).0,
            FaultKind::Upstream(seen),
            "{listed:?} {status}"
        );
    }
}

/// A signature may be for GET only, so a HEAD that is refused says nothing of the file.
#[tokio::test]
async fn missing_status_of_a_head_is_asked_for_with_get() {
    let bench = Bench::with(|repository| repository.cache.missing_status = vec![403]).await;
    bench.origin.put("/f", text("there"));
    bench.origin.behave_once("/f", Behaviour::Status(403));
    let head = bench.ask(Method::HEAD, "generic", "f", &[]).await.unwrap();
    assert_eq!(
        (head.answer.status, head.answer.representation.length),
        (200, Some(5))
    );
}

//! Members: nested ones, those whose names are their own, and what becomes of a merge that lacks one.

use larder_testkit::{Behaviour, Origin, Resource};

use crate::support::packages::entry;
use crate::support::{Setup, TestLarder, get, send};
use crate::{all, archives, index, of, put_charts, two, urls};

#[tokio::test(flavor = "multi_thread")]
async fn members_of_virtual_members_stand_in_their_place() {
    let (one, other, third) = (
        Origin::start().await,
        Origin::start().await,
        Origin::start().await,
    );
    put_charts(&one, "/", "one", &[("a", "1.0.0")]);
    put_charts(&other, "/", "two", &[("a", "1.0.0"), ("b", "1.0.0")]);
    put_charts(&third, "/", "three", &[("b", "1.0.0"), ("c", "1.0.0")]);
    let config = format!(
        "remotes:\n{}{}{}{}{}",
        entry("one", "helm", &one, ""),
        entry("two", "helm", &other, ""),
        entry("three", "helm", &third, ""),
        all("inner", &["two", "one"], ""),
        all("all", &["inner", "three"], "")
    );
    let larder = TestLarder::start(&config).await;
    assert_eq!(
        urls(&index(&larder).await),
        [
            larder.artifact("two", "a-1.0.0.tgz"),
            larder.artifact("two", "b-1.0.0.tgz"),
            larder.artifact("three", "c-1.0.0.tgz")
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authoritative_member_s_names_are_its_own_wherever_it_stands() {
    let (public, own) = (Origin::start().await, Origin::start().await);
    put_charts(
        &public,
        "/",
        "public",
        &[("acme", "9.9.9"), ("redis", "1.0.0")],
    );
    put_charts(&own, "/", "own", &[("acme", "1.0.0")]);
    let config = format!(
        "remotes:\n{}{}{}",
        entry("public", "helm", &public, ""),
        entry("own", "helm", &own, "authoritative: true"),
        all("all", &["public", "own"], "")
    );
    let larder = TestLarder::start(&config).await;
    assert_eq!(
        archives(&index(&larder).await),
        ["acme-1.0.0", "redis-1.0.0"]
    );
    // Nor is a file of that name anybody else's, by a link of before either.
    for path in ["acme-9.9.9.tgz", "_m/public/acme-9.9.9.tgz"] {
        let file = get(&of(&larder, "all", path)).await;
        assert_eq!(file.status, 404, "{path}: {}", file.text());
    }
    for path in ["_m/own/acme-1.0.0.tgz", "_m/public/redis-1.0.0.tgz"] {
        let file = get(&of(&larder, "all", path)).await;
        assert_eq!(file.status, 200, "{path}: {}", file.text());
    }
    assert_eq!(public.count("GET", "/acme-9.9.9.tgz"), 0);
    assert_eq!(
        get(&of(&larder, "all", "redis-1.0.0.tgz")).await.status,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn fail_closed_an_authoritative_member_without_a_copy_is_502() {
    let (public, mut own) = (Origin::start().await, Origin::start().await);
    put_charts(&public, "/", "public", &[("acme", "9.9.9")]);
    put_charts(&own, "/", "own", &[("acme", "1.0.0")]);
    own.stop().await;
    let config = |keys: &str| {
        format!(
            "remotes:\n{}{}{}",
            entry("public", "helm", &public, ""),
            entry("own", "helm", &own, "authoritative: true"),
            all("all", &["public", "own"], keys)
        )
    };
    let open = TestLarder::start(&config("")).await;
    assert_eq!(
        archives(&index(&open).await),
        ["acme-9.9.9"],
        "the base rule skips it"
    );
    let closed = TestLarder::start(&config("fail_closed: true")).await;
    let answer = index(&closed).await;
    assert_eq!(answer.status, 502, "{}", answer.text());
    let body = answer.json();
    assert_eq!(
        (&body["code"], &body["rule"]),
        (&"members_unavailable".into(), &"fail_closed".into())
    );
    assert!(
        body["error"]
            .as_str()
            .expect("a text")
            .contains("member own"),
        "{body}"
    );
    let file = get(&of(&closed, "all", "acme-9.9.9.tgz")).await;
    assert_eq!(file.status, 502, "{}", file.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_cannot_be_merged_is_skipped_with_the_reason() {
    let (one, other) = (Origin::start().await, Origin::start().await);
    put_charts(&one, "/", "one", &[("vault", "0.27.0")]);
    for (body, content_type) in [
        ("<html>log in</html>", "text/html"),
        ("apiVersion: v1\nentries: {a: [\n", "text/yaml"),
        ("", "text/yaml"),
    ] {
        other.put(
            "/index.yaml",
            Resource::new(body).content_type(content_type),
        );
        let larder = TestLarder::start(&two(&one, &other, "", "")).await;
        let answer = index(&larder).await;
        assert_eq!(archives(&answer), ["vault-0.27.0"], "{body}");
        assert_eq!(answer.header("x-larder-skipped"), "two", "{body}");
        larder.logged("malformed_document").await;
    }
    other.remove("/index.yaml");
    let larder = TestLarder::start(&two(&one, &other, "", "")).await;
    assert_eq!(
        index(&larder).await.header("x-larder-skipped"),
        "two",
        "a 404"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_helm_would_refuse_are_told_once() {
    let (one, other) = (Origin::start().await, Origin::start().await);
    put_charts(&one, "/", "one", &[("vault", "0.27.0")]);
    let odd = "apiVersion: v1\nentries:\n  a:\n  - name: a\n    unknown: 1\n    urls: [a.tgz]\n    version: 1.0.0\n  - name: a\n    appVersion: 1.10\n    urls: [b.tgz]\n    version: 0.9.0\n";
    other.put("/index.yaml", Resource::new(odd));
    let larder = TestLarder::start(&two(&one, &other, "", "")).await;
    let answer = index(&larder).await;
    assert_eq!(archives(&answer), ["b", "vault-0.27.0"]);
    assert!(
        answer.text().contains("appVersion: \"1.10\"\n"),
        "{}",
        answer.text()
    );
    larder.logged("Helm does not know the key").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_member_has_no_index_yet_and_is_skipped() {
    let one = Origin::start().await;
    put_charts(&one, "/", "one", &[("vault", "0.27.0")]);
    let config = format!(
        "remotes:\n{}  own: {{ type: local, package: helm }}\n{}",
        entry("one", "helm", &one, ""),
        all("all", &["own", "one"], "")
    );
    let larder = TestLarder::start(&config).await;
    let answer = index(&larder).await;
    assert_eq!(archives(&answer), ["vault-0.27.0"]);
    assert_eq!(answer.header("x-larder-skipped"), "own");
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_asked_at_once_and_with_their_own_rules() {
    let (one, other) = (Origin::start().await, Origin::start().await);
    put_charts(&one, "/", "one", &[("vault", "0.27.0")]);
    put_charts(&other, "/", "two", &[("redis", "20.1.0")]);
    for origin in [&one, &other] {
        origin.behave(
            "/index.yaml",
            Behaviour::StallHead(std::time::Duration::from_millis(1500)),
        );
    }
    let config = two(&one, &other, "", "").replacen(
        "  all:",
        &format!(
            "{}  all:",
            entry("closed", "helm", &other, "deny_patterns: ['index']")
        ),
        1,
    );
    let larder = TestLarder::start(&config.replace("[one, two]", "[one, two, closed]")).await;
    let start = std::time::Instant::now();
    let answer = index(&larder).await;
    assert_eq!(archives(&answer), ["redis-20.1.0", "vault-0.27.0"]);
    assert!(
        start.elapsed() < std::time::Duration::from_millis(2900),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(answer.header("x-larder-skipped"), "closed");
    // Many clients at once are one question to each member.
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let url = of(&larder, "all", "index.yaml");
        clients.spawn(async move { get(&url).await.status });
    }
    assert!(clients.join_all().await.iter().all(|status| *status == 200));
    assert_eq!(
        (
            one.count("GET", "/index.yaml"),
            other.count("GET", "/index.yaml")
        ),
        (1, 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn public_url_stands_in_every_link() {
    let (one, other) = (Origin::start().await, Origin::start().await);
    put_charts(&one, "/", "one", &[("vault", "0.27.0")]);
    put_charts(&other, "/", "two", &[("redis", "20.1.0")]);
    let larder = Setup::new(&two(&one, &other, "", ""))
        .env("LARDER_PUBLIC_URL", "https://larder.example/sub")
        .start()
        .await;
    assert_eq!(
        urls(&index(&larder).await),
        [
            "https://larder.example/sub/api/v1/remote/two/redis-20.1.0.tgz",
            "https://larder.example/sub/api/v1/remote/one/vault-0.27.0.tgz"
        ]
    );
    assert_eq!(
        send("PUT", &larder.url("cache/flush?remote=all"), &[])
            .await
            .status,
        200
    );
}

/// How many derivations larder has made.
async fn derivations(larder: &TestLarder) -> u64 {
    let page = get(&larder.url("metrics")).await.text();
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix("larder_derivations_total "));
    line.and_then(|number| number.trim().parse().ok())
        .unwrap_or_else(|| panic!("larder_derivations_total in {page}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_x3_another_name_with_each_request_is_no_new_merge() {
    for keys in ["", "member_urls: virtual"] {
        let (one, other) = (Origin::start().await, Origin::start().await);
        put_charts(&one, "/", "one", &[("vault", "0.27.0")]);
        put_charts(&other, "/", "two", &[("redis", "20.1.0")]);
        let larder = TestLarder::start(&two(&one, &other, "", keys)).await;
        let known = index(&larder).await;
        let before = derivations(&larder).await;
        let here = larder.url("");
        let here = here.trim_end_matches('/').to_owned();
        let mut tags = std::collections::BTreeSet::from([known.header("etag").to_owned()]);
        for n in 0..40 {
            let host = format!("h{n}.example.com");
            let url = of(&larder, "all", "index.yaml");
            let answer = send("GET", &url, &[("host", &host)]).await;
            let expected = known.text().replace(&here, &format!("http://{host}"));
            assert_eq!(answer.text(), expected, "{host}");
            assert!(expected.contains(&host), "{expected}");
            tags.insert(answer.header("etag").to_owned());
        }
        assert_eq!(tags.len(), 41, "each name has a document of its own");
        assert_eq!(derivations(&larder).await, before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn virtual_13_a_reserved_name_is_asked_of_nobody_else() {
    let (public, own) = (Origin::start().await, Origin::start().await);
    put_charts(
        &public,
        "/",
        "public",
        &[("acme-web", "9.9.9"), ("redis", "20.1.0")],
    );
    put_charts(&own, "/", "own", &[("acme-api", "1.0.0")]);
    for keys in ["", "member_urls: virtual"] {
        let config = format!(
            "remotes:\n{}{}{}",
            entry("public", "helm", &public, ""),
            entry("own", "helm", &own, "reserved: ['acme-*']"),
            all("all", &["public", "own"], keys)
        );
        let larder = TestLarder::start(&config).await;
        assert_eq!(
            archives(&index(&larder).await),
            ["acme-api-1.0.0", "redis-20.1.0"]
        );
        for path in ["acme-web-9.9.9.tgz", "_m/public/acme-web-9.9.9.tgz"] {
            let answer = get(&of(&larder, "all", path)).await;
            assert_eq!(answer.status, 404, "{path}: {}", answer.text());
        }
        for path in ["acme-api-1.0.0.tgz", "redis-20.1.0.tgz"] {
            assert_eq!(get(&of(&larder, "all", path)).await.status, 200, "{path}");
        }
        // Not even while the one that it is reserved for has nothing to say.
        own.behave("/index.yaml", Behaviour::Status(500));
        let flush = larder.url("cache/flush?remote=own");
        assert_eq!(send("PUT", &flush, &[]).await.status, 200);
        assert_eq!(archives(&index(&larder).await), ["redis-20.1.0"]);
        own.clear("/index.yaml");
    }
    assert_eq!(public.count("GET", "/acme-web-9.9.9.tgz"), 0);
}

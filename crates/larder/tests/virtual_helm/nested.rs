//! Virtual repositories within each other: the inner one decides among its members, and is one member of the outer one.

use std::time::Duration;

use larder_testkit::{Origin, Resource};
use serde_json::json;

use crate::support::packages::entry;
use crate::support::{TestLarder, get, send};
use crate::{all, archive, archives, index, of, put_charts, two, urls};

/// `one` and `own` are in `inner`, which is in `mid`, which is in `all` before `two`. All three have `vault`.
async fn three_vaults(origins: [&Origin; 3], own: &str, inner: &str) -> TestLarder {
    let [one, two, mine] = origins;
    put_charts(one, "/", "one", &[("vault", "0.1.0"), ("redis", "20.1.0")]);
    put_charts(two, "/", "two", &[("vault", "9.0.0")]);
    put_charts(mine, "/", "own", &[("vault", "0.0.1")]);
    let config = format!(
        "remotes:\n{}{}{}{}{}{}",
        entry("one", "helm", one, ""),
        entry("two", "helm", two, ""),
        entry("own", "helm", mine, own),
        all("inner", &["one", "own"], inner),
        all("mid", &["inner"], ""),
        all("all", &["mid", "two"], "")
    );
    TestLarder::start(&config).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_of_a_name_keeps_it_on_every_level() {
    let rights = ["authoritative: true", "reserved: [vault]"];
    for own in rights {
        for inner in ["", rights[0], rights[1]] {
            let (one, two, mine) = (
                Origin::start().await,
                Origin::start().await,
                Origin::start().await,
            );
            let larder = three_vaults([&one, &two, &mine], own, inner).await;
            let what = format!("{own}, {inner}");
            let listed = ["redis-20.1.0", "vault-0.0.1"];
            for name in ["inner", "mid", "all"] {
                let answer = get(&of(&larder, name, "index.yaml")).await;
                assert_eq!(archives(&answer), listed, "{name}: {what}");
                for (file, status) in [
                    ("vault-0.0.1.tgz", 200),
                    ("redis-20.1.0.tgz", 200),
                    ("vault-0.1.0.tgz", 404),
                    ("vault-9.0.0.tgz", 404),
                ] {
                    let answer = get(&of(&larder, name, file)).await;
                    assert_eq!(answer.status, status, "{name}/{file}: {what}");
                }
            }
            assert_eq!(one.count("GET", "/vault-0.1.0.tgz"), 0, "{what}");
            assert_eq!(two.count("GET", "/vault-9.0.0.tgz"), 0, "{what}");
            larder.until_idle().await;
            let page = larder.url("ui/repositories/all/package?name=vault");
            let page = send("GET", &page, &[("accept", "application/json")]).await;
            let members = &page.json()["members"];
            assert_eq!(members.as_array().map(Vec::len), Some(1), "{members}");
            assert_eq!(members[0]["member"], "own", "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_inner_repository_owns_it_owns_as_one_member() {
    for inner in ["authoritative: true", "reserved: ['vau*']"] {
        let (one, two, mine) = (
            Origin::start().await,
            Origin::start().await,
            Origin::start().await,
        );
        let larder = three_vaults([&one, &two, &mine], "", inner).await;
        let listed = ["redis-20.1.0", "vault-0.1.0", "vault-0.0.1"];
        assert_eq!(archives(&index(&larder).await), listed, "{inner}");
        for (file, status) in [
            ("vault-0.0.1.tgz", 200),
            ("vault-0.1.0.tgz", 200),
            ("vault-9.0.0.tgz", 404),
        ] {
            let answer = get(&of(&larder, "all", file)).await;
            assert_eq!(answer.status, status, "{file}: {inner}");
        }
        assert_eq!(two.count("GET", "/vault-9.0.0.tgz"), 0, "{inner}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inner_repository_that_fails_closed_is_skipped_whole() {
    let (one, other, mut own) = (
        Origin::start().await,
        Origin::start().await,
        Origin::start().await,
    );
    put_charts(&one, "/", "one", &[("vault", "0.1.0")]);
    put_charts(&other, "/", "two", &[("redis", "1.0.0")]);
    own.stop().await;
    let config = |keys: &str| {
        format!(
            "remotes:\n{}{}{}{}{}{}",
            entry("one", "helm", &one, ""),
            entry("two", "helm", &other, ""),
            entry("own", "helm", &own, "authoritative: true"),
            all("inner", &["one", "own"], "fail_closed: true"),
            all("mid", &["inner"], ""),
            all("all", &["mid", "two"], keys)
        )
    };
    let open = TestLarder::start(&config("")).await;
    assert_eq!(get(&of(&open, "inner", "index.yaml")).await.status, 502);
    let answer = index(&open).await;
    assert_eq!(archives(&answer), ["redis-1.0.0"]);
    assert_eq!(answer.header("x-larder-skipped"), "one,own");
    let file = get(&of(&open, "all", "vault-0.1.0.tgz")).await;
    assert_eq!(file.status, 502, "{}", file.text());
    let body = file.json();
    assert_eq!(
        (&body["code"], &body["rule"], &body["repository"]),
        (
            &json!("members_unavailable"),
            &json!("fail_closed"),
            &json!("inner")
        )
    );
    let theirs = get(&of(&open, "all", "redis-1.0.0.tgz")).await;
    assert_eq!(theirs.status, 200, "{}", theirs.text());
    assert_eq!(one.count("GET", "/vault-0.1.0.tgz"), 0);
    // What is reserved in it stays so.
    put_charts(&other, "/", "two", &[("acme", "9.0.0"), ("redis", "1.0.0")]);
    let reserving = config("").replace(
        "authoritative: true",
        "authoritative: true\n    reserved: [acme]",
    );
    let reserving = TestLarder::start(&reserving).await;
    assert_eq!(archives(&index(&reserving).await), ["redis-1.0.0"]);
    assert_ne!(
        get(&of(&reserving, "all", "acme-9.0.0.tgz")).await.status,
        200
    );
    let closed = TestLarder::start(&config("fail_closed: true")).await;
    for path in ["index.yaml", "vault-0.1.0.tgz", "redis-1.0.0.tgz"] {
        assert_eq!(get(&of(&closed, "all", path)).await.status, 502, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rules_of_an_inner_repository_hold_on_the_way_through_it() {
    let (one, other) = (Origin::start().await, Origin::start().await);
    put_charts(&one, "/", "one", &[("redis", "20.1.0"), ("vault", "0.1.0")]);
    put_charts(&other, "/", "two", &[("minio", "1.0.0")]);
    let urls = "member_urls: virtual";
    let config = format!(
        "remotes:\n{}{}{}{}{}{}{}",
        entry("one", "helm", &one, ""),
        entry("two", "helm", &other, ""),
        all(
            "inner",
            &["one"],
            &format!("{urls}\ndeny_patterns: ['^redis-']")
        ),
        all("all", &["inner", "two"], urls),
        all("also", &["inner", "one"], urls),
        all("unread", &["one"], "deny_patterns: ['index']"),
        all("outer", &["unread", "two"], "")
    );
    let larder = TestLarder::start(&config).await;
    for (name, path, status) in [
        ("inner", "redis-20.1.0.tgz", 403),
        ("all", "redis-20.1.0.tgz", 404),
        ("all", "_m/one/redis-20.1.0.tgz", 403),
        ("all", "vault-0.1.0.tgz", 200),
        ("all", "_m/one/vault-0.1.0.tgz", 200),
        ("all", "minio-1.0.0.tgz", 200),
    ] {
        let answer = get(&of(&larder, name, path)).await;
        assert_eq!(answer.status, status, "{name}/{path}: {}", answer.text());
    }
    assert_eq!(one.count("GET", "/redis-20.1.0.tgz"), 0);
    let denied = get(&of(&larder, "all", "_m/one/redis-20.1.0.tgz")).await;
    assert_eq!(denied.json()["repository"], "inner");
    let explained = larder.url("api/v1/explain/all/_m/one/redis-20.1.0.tgz");
    let verdict = &get(&explained).await.json()["verdict"];
    assert_eq!(verdict["value"], "deny", "{verdict}");
    // Another way to the same member does not lead through it.
    for path in ["redis-20.1.0.tgz", "_m/one/redis-20.1.0.tgz"] {
        assert_eq!(get(&of(&larder, "also", path)).await.status, 200, "{path}");
    }
    let outer = get(&of(&larder, "outer", "index.yaml")).await;
    assert_eq!(archives(&outer), ["minio-1.0.0"]);
    assert_eq!(outer.header("x-larder-skipped"), "one");
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_asked_about_the_path_at_another_host() {
    let (one, other) = (Origin::start().await, Origin::start().await);
    let link = other.url("/secret-1.0.0.tgz");
    let entries =
        format!("  secret:\n  - name: secret\n    version: 1.0.0\n    urls:\n    - {link}\n");
    let body = format!("apiVersion: v1\nentries:\n{entries}");
    one.put("/index.yaml", Resource::new(body).content_type("text/yaml"));
    other.put("/secret-1.0.0.tgz", Resource::new("bytes"));
    let keys = "member_urls: virtual\ndeny_patterns: ['^secret']";
    let larder =
        TestLarder::start(&two(&one, &other, "allow_private: ['127.0.0.0/8']", keys)).await;
    let links = urls(&index(&larder).await);
    assert!(links[0].contains("/_m/one/_ext/"), "{links:?}");
    let answer = get(&links[0]).await;
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert_eq!(answer.json()["repository"], "all");
    assert_eq!(other.count("GET", "/secret-1.0.0.tgz"), 0);
}

/// What a publisher wrote of a name without being able to offer anything of it is as much its own for files as it is for the index.
#[tokio::test(flavor = "multi_thread")]
async fn index_and_files_agree_on_whose_a_name_is() {
    let (public, own) = (Origin::start().await, Origin::start().await);
    put_charts(&public, "/", "public", &[("vault", "9.9.9")]);
    for (versions, listed, status) in [
        (" []\n", &["vault-9.9.9"][..], 200),
        (
            "\n  - {name: vault, version: ~, urls: [v.tgz]}\n",
            &[][..],
            404,
        ),
        (
            "\n  - {name: vault, version: 1.0.0, urls: [v.tgz], odd: 1}\n",
            &[][..],
            404,
        ),
    ] {
        let body = format!("apiVersion: v1\nentries:\n  vault:{versions}");
        own.put("/index.yaml", Resource::new(body).content_type("text/yaml"));
        let config = format!(
            "remotes:\n{}{}{}",
            entry("public", "helm", &public, ""),
            entry("own", "helm", &own, "authoritative: true"),
            all("all", &["public", "own"], "")
        );
        let larder = TestLarder::start(&config).await;
        assert_eq!(archives(&index(&larder).await), listed, "{versions}");
        let file = get(&of(&larder, "all", "vault-9.9.9.tgz")).await;
        assert_eq!(file.status, status, "{versions}: {}", file.text());
    }
}

/// An answer from memory says no longer whose a file is than the indexes that said so.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_its_owner_takes_is_no_longer_served_from_memory() {
    let (public, own) = (Origin::start().await, Origin::start().await);
    put_charts(&public, "/", "public", &[("vault", "9.9.9")]);
    put_charts(&own, "/", "own", &[("other", "1.0.0")]);
    let config = format!(
        "remotes:\n{}{}{}",
        entry("public", "helm", &public, ""),
        entry(
            "own",
            "helm",
            &own,
            "authoritative: true\ncache: { mutable_ttl: 2 }"
        ),
        all("all", &["public", "own"], "")
    );
    let larder = TestLarder::start(&config).await;
    let url = of(&larder, "all", "vault-9.9.9.tgz");
    assert_eq!(get(&url).await.text(), archive("vault", "9.9.9", "public"));
    larder.hit(&url).await;
    larder.hit(&url).await;
    put_charts(&own, "/", "own", &[("other", "1.0.0"), ("vault", "1.0.0")]);
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let answer = get(&url).await;
    assert_eq!(answer.status, 404, "{}", answer.text());
}

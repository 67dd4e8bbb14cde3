//! The acceptance list, 1 to 10 and 26.

use std::time::{Duration, Instant};

use larder_core::{Clock as _, SystemClock};
use larder_testkit::{Behaviour, Origin};

use crate::support::packages::entry;
use crate::support::{TestLarder, check, get, send};
use crate::{
    all, archive, archives, index, of, put_charts, put_charts_with, two, until_there, urls,
};

#[tokio::test(flavor = "multi_thread")]
async fn virtual_1_disjoint_charts_are_all_there_and_can_be_pulled() {
    let (one, other) = (Origin::start().await, Origin::start().await);
    put_charts(&one, "/", "one", &[("vault", "0.27.0")]);
    put_charts(&other, "/", "two", &[("redis", "20.1.0")]);
    let larder = TestLarder::start(&two(&one, &other, "", "")).await;
    let answer = index(&larder).await;
    assert_eq!(
        urls(&answer),
        [
            larder.artifact("two", "redis-20.1.0.tgz"),
            larder.artifact("one", "vault-0.27.0.tgz")
        ]
    );
    assert_eq!(answer.header("content-type"), "application/yaml");
    assert_eq!(answer.source(), "remote");
    assert_eq!(answer.header("x-larder-skipped"), "");
    for (url, body) in urls(&answer).iter().zip([
        archive("redis", "20.1.0", "two"),
        archive("vault", "0.27.0", "one"),
    ]) {
        assert_eq!(get(url).await.text(), body, "{url}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn virtual_2_of_equal_versions_the_first_member_s_stays() {
    let (one, other) = (Origin::start().await, Origin::start().await);
    put_charts(
        &one,
        "/",
        "one",
        &[("redis", "20.1.0"), ("redis", "19.0.0")],
    );
    put_charts(
        &other,
        "/",
        "two",
        &[("redis", "20.1.0"), ("redis", "20.2.0")],
    );
    let larder = TestLarder::start(&two(&one, &other, "", "")).await;
    assert_eq!(
        urls(&index(&larder).await),
        [
            larder.artifact("two", "redis-20.2.0.tgz"),
            larder.artifact("one", "redis-20.1.0.tgz"),
            larder.artifact("one", "redis-19.0.0.tgz")
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn virtual_3_a_member_that_is_down_is_skipped_and_comes_back_within_seconds() {
    let (one, mut other) = (Origin::start().await, Origin::start().await);
    put_charts(&one, "/", "one", &[("vault", "0.27.0")]);
    put_charts(&other, "/", "two", &[("redis", "20.1.0")]);
    let larder = TestLarder::start(&two(&one, &other, "", "")).await;
    other.stop().await;
    let answer = index(&larder).await;
    assert_eq!(archives(&answer), ["vault-0.27.0"]);
    assert_eq!(answer.header("x-larder-skipped"), "two");
    let life: u64 = answer
        .header("cache-control")
        .split("max-age=")
        .nth(1)
        .and_then(|rest| rest.split(',').next()?.parse().ok())
        .expect("max-age");
    assert!(life <= 30, "{}", answer.header("cache-control"));
    larder
        .logged("a member is not in a virtual repository's index")
        .await;
    // The header stands on remembered answers and on compressed ones, too.
    let again = send(
        "GET",
        &of(&larder, "all", "index.yaml"),
        &[("Accept-Encoding", "gzip")],
    )
    .await;
    assert_eq!(again.header("x-larder-skipped"), "two");
    assert_eq!(
        larder.log().matches("a member is not in a virtual").count(),
        1,
        "once for each cause"
    );
    assert!(
        larder
            .metric("larder_repository_members_skipped_total", "\"two\"")
            .await
            >= 1.0
    );
    other.restart();
    let took = until_there(&larder, "redis-20.1.0").await;
    assert!(took <= Duration::from_secs(35), "{took:?}");
    assert_eq!(index(&larder).await.header("x-larder-skipped"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn virtual_4_a_member_that_is_down_or_broken_contributes_its_copy() {
    let (one, mut other) = (Origin::start().await, Origin::start().await);
    put_charts(&one, "/", "one", &[("vault", "0.27.0")]);
    put_charts(&other, "/", "two", &[("redis", "20.1.0")]);
    let larder = TestLarder::start(&two(&one, &other, "cache: { mutable_ttl: 1 }", "")).await;
    let both = ["redis-20.1.0", "vault-0.27.0"];
    let before = index(&larder).await;
    assert_eq!(archives(&before), both);
    larder.until_idle().await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    other.behave("/index.yaml", Behaviour::Status(500));
    let broken = index(&larder).await;
    assert_eq!(archives(&broken), both, "a 500");
    assert_eq!(broken.header("x-larder-skipped"), "");
    assert_eq!(broken.header("etag"), before.header("etag"));
    other.stop().await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(archives(&index(&larder).await), both, "nobody listens");
}

#[tokio::test(flavor = "multi_thread")]
async fn virtual_5_without_any_member_it_is_502() {
    let (mut one, mut other) = (Origin::start().await, Origin::start().await);
    put_charts(&one, "/", "one", &[("vault", "0.27.0")]);
    one.stop().await;
    other.stop().await;
    let larder = TestLarder::start(&two(&one, &other, "", "")).await;
    let answer = index(&larder).await;
    assert_eq!(answer.status, 502, "{}", answer.text());
    let body = answer.json();
    assert_eq!(body["code"], "members_unavailable");
    assert_eq!(body["repository"], "all");
    let sentence = body["error"].as_str().expect("a text");
    assert!(
        sentence.contains("one: ") && sentence.contains("two: "),
        "{sentence}"
    );
    one.restart();
    assert!(until_there(&larder, "vault-0.27.0").await < Duration::from_secs(15));
}

#[tokio::test(flavor = "multi_thread")]
async fn virtual_6_the_merged_index_is_as_old_as_its_shortest_life() {
    let (one, other) = (Origin::start().await, Origin::start().await);
    put_charts(&one, "/", "one", &[("vault", "0.27.0")]);
    put_charts(&other, "/", "two", &[("redis", "20.1.0")]);
    let config = format!(
        "remotes:\n{}{}{}",
        entry("one", "helm", &one, "cache: { mutable_ttl: 3600 }"),
        entry("two", "helm", &other, "cache: { mutable_ttl: 2 }"),
        all("all", &["one", "two"], "")
    );
    let larder = TestLarder::start(&config).await;
    let answer = index(&larder).await;
    // Whole seconds of what is left.
    let life = answer.header("cache-control");
    assert!(["max-age=1", "max-age=2"].contains(&life), "{life}");
    put_charts(&one, "/", "one", &[("vault", "0.28.0")]);
    put_charts(&other, "/", "two", &[("redis", "20.2.0")]);
    larder.hit(&of(&larder, "all", "index.yaml")).await;
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert_eq!(
        archives(&index(&larder).await),
        ["redis-20.2.0", "vault-0.27.0"]
    );
    assert_eq!(
        (
            one.count("GET", "/index.yaml"),
            other.count("GET", "/index.yaml")
        ),
        (1, 2)
    );
}

/// 7 speaks of uploads to local members; of remote ones, a flush is what brings a new document before its time.
#[tokio::test(flavor = "multi_thread")]
async fn virtual_7_a_member_s_new_index_is_in_the_next_answer() {
    let (one, other) = (Origin::start().await, Origin::start().await);
    put_charts(&one, "/", "one", &[("vault", "0.27.0")]);
    put_charts(&other, "/", "two", &[("redis", "20.1.0")]);
    let larder = TestLarder::start(&two(&one, &other, "", "")).await;
    let url = of(&larder, "all", "index.yaml");
    index(&larder).await;
    let before = larder.hit(&url).await;
    put_charts(
        &other,
        "/",
        "two",
        &[("redis", "20.1.0"), ("redis", "20.2.0")],
    );
    assert_eq!(
        send("PUT", &larder.url("cache/flush?remote=two"), &[])
            .await
            .status,
        200
    );
    let after = index(&larder).await;
    assert_eq!(
        archives(&after),
        ["redis-20.2.0", "redis-20.1.0", "vault-0.27.0"]
    );
    assert_ne!(after.header("etag"), before.header("etag"));
    assert_eq!(
        one.count("GET", "/index.yaml"),
        1,
        "the other member is as it was"
    );
    // What the member's own address brings is in the next merged index as well.
    put_charts(&one, "/", "one", &[("vault", "0.28.0")]);
    assert_eq!(
        send("DELETE", &larder.artifact("one", "index.yaml"), &[])
            .await
            .status,
        204
    );
    get(&larder.artifact("one", "index.yaml")).await;
    assert_eq!(
        archives(&index(&larder).await),
        ["redis-20.2.0", "redis-20.1.0", "vault-0.28.0"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn virtual_8_wrong_members_are_refused_at_start() {
    let remote = "  h: { package: helm, base_url: 'https://charts.example.com/' }\n  n: { package: npm, base_url: 'https://npm.example.com/' }\n";
    let nested = |depth: usize| -> String {
        (1..=depth)
            .map(|level| {
                let member = if level == 1 {
                    "h".to_owned()
                } else {
                    format!("v{}", level - 1)
                };
                all(&format!("v{level}"), &[&member], "")
            })
            .collect()
    };
    for (entries, said) in [
        (all("v", &["g"], ""), "member `g` of `v` does not exist"),
        (
            all("v", &["h", "n"], ""),
            "member `n` of `v` is of package npm, not helm",
        ),
        (
            all("v", &["w"], "") + &all("w", &["v"], ""),
            "contains itself",
        ),
        (nested(5), "more than 4 deep"),
    ] {
        let (may_start, text) = check(&format!("remotes:\n{remote}{entries}"));
        assert!(!may_start && text.contains(said), "{said}: {text}");
    }
    let (may_start, text) = check(&format!("remotes:\n{remote}{}", nested(4)));
    assert!(may_start, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn virtual_9_equal_inputs_give_equal_bytes() {
    let (one, other) = (Origin::start().await, Origin::start().await);
    put_charts(&one, "/", "one", &[("vault", "0.27.0"), ("a", "1.0.0")]);
    put_charts(&other, "/", "two", &[("redis", "20.1.0"), ("a", "1.0.0")]);
    let mut larder = TestLarder::start(&two(&one, &other, "", "")).await;
    let named = &[("Host", "larder.example:81")];
    let url = of(&larder, "all", "index.yaml");
    let first = send("GET", &url, named).await;
    assert_eq!(
        send("PUT", &larder.url("cache/flush"), &[]).await.status,
        200
    );
    let second = send("GET", &url, named).await;
    larder.terminate();
    larder.restart().await;
    let third = send("GET", &of(&larder, "all", "index.yaml"), named).await;
    for again in [second, third] {
        assert_eq!(again.text(), first.text());
        assert_eq!(again.header("etag"), first.header("etag"));
    }
    assert!(first.header("etag").starts_with('"'), "a strong tag");
}

#[tokio::test(flavor = "multi_thread")]
async fn virtual_10_relative_links_below_a_sub_path_lead_to_the_charts() {
    let (one, other) = (Origin::start().await, Origin::start().await);
    put_charts(&one, "/deep/charts/", "one", &[("vault", "0.27.0")]);
    put_charts(&other, "/", "two", &[("redis", "20.1.0")]);
    let config = two(&one, &other, "", "").replacen(&one.url("/"), &one.url("/deep/charts/"), 1);
    let larder = TestLarder::start(&config).await;
    let answer = index(&larder).await;
    let vault = larder.artifact("one", "vault-0.27.0.tgz");
    assert!(urls(&answer).contains(&vault), "{}", answer.text());
    assert_eq!(get(&vault).await.text(), archive("vault", "0.27.0", "one"));
}

#[tokio::test(flavor = "multi_thread")]
async fn virtual_26_a_held_version_is_nobody_else_s_to_fill_in_for() {
    let (one, other) = (Origin::start().await, Origin::start().await);
    let now = jiff_now();
    let young = format!("    created: \"{now}\"\n");
    put_charts_with(&one, "/", "one", &[("vault", "0.27.0")], &young);
    let old = "    created: \"2020-01-01T00:00:00Z\"\n";
    put_charts_with(
        &other,
        "/",
        "two",
        &[("vault", "0.27.0"), ("vault", "0.26.0")],
        old,
    );
    let config = format!(
        "remotes:\n{}{}{}",
        entry(
            "one",
            "helm",
            &one,
            "quarantine_new: true\nquarantine_days: 3"
        ),
        entry("two", "helm", &other, ""),
        all("all", &["one", "two"], "")
    );
    let larder = TestLarder::start(&config).await;
    assert_eq!(archives(&index(&larder).await), ["vault-0.26.0"]);
    assert_eq!(
        archives(&index(&larder).await),
        ["vault-0.26.0"],
        "remembered"
    );
}

/// `quarantine_index: false`: held versions stay listed, and their files answer 404 as they do from the member's own index.
#[tokio::test(flavor = "multi_thread")]
async fn held_versions_stay_in_the_merged_index_where_it_is_said_so() {
    let one = Origin::start().await;
    let young = format!("    created: \"{}\"\n", jiff_now());
    put_charts_with(&one, "/", "one", &[("vault", "0.27.0")], &young);
    for (rule, listed) in [
        ("", &[][..]),
        ("\nquarantine_index: false", &["vault-0.27.0"]),
    ] {
        let rules = format!("quarantine_new: true\nquarantine_days: 3{rule}");
        let config = format!(
            "remotes:\n{}{}",
            entry("one", "helm", &one, &rules),
            all("all", &["one"], "")
        );
        let larder = TestLarder::start(&config).await;
        assert_eq!(archives(&index(&larder).await), listed, "{rule}");
    }
}

/// The present time as an index states it.
fn jiff_now() -> String {
    let date = SystemClock.now().to_http_date();
    // `Sun, 06 Nov 1994 08:49:37 GMT`
    let parts: Vec<&str> = date.split(' ').collect();
    let months = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let month = months
        .iter()
        .position(|name| *name == parts[2])
        .expect("a month")
        + 1;
    format!("{}-{month:02}-{}T{}Z", parts[3], parts[1], parts[4])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_member_with_a_copy_holds_nobody_up_for_ever() {
    let (one, other) = (Origin::start().await, Origin::start().await);
    put_charts(&one, "/", "one", &[("vault", "0.27.0")]);
    put_charts(&other, "/", "two", &[("redis", "20.1.0")]);
    let larder = TestLarder::start(&two(
        &one,
        &other,
        "timeouts: { read: 2 }\ncache: { mutable_ttl: 1 }",
        "",
    ))
    .await;
    index(&larder).await;
    larder.until_idle().await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    other.behave("/index.yaml", Behaviour::StallHead(Duration::from_secs(60)));
    let start = Instant::now();
    assert_eq!(
        archives(&index(&larder).await),
        ["redis-20.1.0", "vault-0.27.0"]
    );
    assert!(
        start.elapsed() < Duration::from_secs(31),
        "{:?}",
        start.elapsed()
    );
}

//! What operators see and do: flush, lists, sums, `/`, `/health`, `/config`, reload.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{PATIENCE, get, send};
use crate::{CONFIG, put, start};

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_touches_no_upload() {
    let larder = start().await;
    put(&larder.artifact("files", "a"), "kept", &[]).await;
    for query in [
        "",
        "?remote=files",
        "?cache_type=files",
        "?pattern=.*",
        "?cache_type=metrics",
    ] {
        let answer = send("PUT", &larder.url(&format!("cache/flush{query}")), &[]).await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
        assert_eq!(answer.json()["flushed"]["files"], 0, "{query}");
        let requests = larder.metric("larder_requests_total", "repository=\"files\"");
        let is_reset = requests.await < 1.0;
        assert_eq!(is_reset, query.contains("metrics"), "{query}");
        assert_eq!(
            get(&larder.artifact("files", "a")).await.text(),
            "kept",
            "{query}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_sums_have_uploads() {
    let larder = start().await;
    for (repository, path, body) in [
        ("files", "a", "1"),
        ("files", "b/c", "22"),
        ("fixed", "d", "333"),
    ] {
        put(&larder.artifact(repository, path), body, &[]).await;
    }
    let list = async |query: &str| {
        get(&larder.url(&format!("api/v1/artifacts{query}")))
            .await
            .json()
    };
    let all = list("").await;
    let shown: Vec<String> = all["artifacts"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|item| {
            format!(
                "{}/{} {}",
                item["repository"].as_str().unwrap_or(""),
                item["path"].as_str().unwrap_or(""),
                item["size"]
            )
        })
        .collect();
    assert_eq!(shown, ["files/a 1", "files/b/c 2", "fixed/d 3"]);
    let first = &all["artifacts"][0];
    assert!(
        first["cached"] == true && first["fresh_until"].is_null() && first["cached_at"].is_string(),
        "{first}"
    );
    assert_eq!(
        list("/files?pattern=c$").await["artifacts"]
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    assert_eq!(
        list("/files?cached=false").await["artifacts"]
            .as_array()
            .map(Vec::len),
        Some(0)
    );
    let page = list("?limit=2").await;
    let next = page["next"].as_str().expect("a next page").to_owned();
    let rest = list(&format!("?cursor={next}")).await;
    assert_eq!(
        (
            rest["artifacts"][0]["path"].as_str(),
            rest["artifacts"].as_array().map(Vec::len)
        ),
        (Some("d"), Some(1))
    );
    let sums = list("?summary=true").await;
    let of = |name: &str| {
        sums["repositories"]
            .as_array()
            .and_then(|all| all.iter().find(|one| one["repository"] == name))
            .cloned()
    };
    assert_eq!(
        of("files").map(|one| (one["files"].as_u64(), one["bytes"].as_u64())),
        Some((Some(2), Some(3)))
    );
    assert_eq!(of("small").map(|one| one["bytes"].as_u64()), Some(Some(0)));
    let until = Instant::now() + PATIENCE;
    while larder
        .metric("larder_repository_held_bytes", "repository=\"files\"")
        .await
        < 3.0
    {
        assert!(
            Instant::now() < until,
            "{}",
            get(&larder.url("metrics")).await.text()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let root = get(&larder.url("")).await.json();
    assert_eq!(root["remotes"]["fixed"]["type"], "local");
    assert_eq!(
        root["remotes"]["fixed"]["url"],
        larder.url("api/v1/remote/fixed")
    );
    let config = get(&larder.url("config")).await.json();
    assert_eq!(config["remotes"]["files"]["allow_overwrite"], true);
    assert_eq!(config["remotes"]["fixed"]["allow_overwrite"], false);
    assert_eq!(config["remotes"]["small"]["quota"], 1500);
    assert_eq!(get(&larder.url("health")).await.status, 200);
    let requests = larder
        .metric("larder_requests_total", "repository=\"fixed\"")
        .await;
    assert!((0.5..1.5).contains(&requests), "one upload: {requests}");
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_outlive_a_restart_and_their_repository_s_absence() {
    let mut larder = start().await;
    put(
        &larder.artifact("files", "a"),
        "kept",
        &[("Content-Type", "text/x-a")],
    )
    .await;
    assert!(larder.terminate().success());
    larder.restart().await;
    let answer = get(&larder.artifact("files", "a")).await;
    assert_eq!(
        (answer.text().as_str(), answer.header("content-type")),
        ("kept", "text/x-a")
    );
    larder.write_config("remotes:\n  other: { type: local }\n");
    larder.signal(Signal::HUP);
    let until = Instant::now() + PATIENCE;
    while get(&larder.artifact("files", "a")).await.status != 404 {
        assert!(Instant::now() < until, "no reload");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(larder.terminate().success());
    larder.write_config(CONFIG);
    larder.restart().await;
    assert_eq!(get(&larder.artifact("files", "a")).await.text(), "kept");
}

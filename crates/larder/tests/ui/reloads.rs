//! What pages say of a configuration that was read again.

use rustix::process::Signal;

use super::*;

/// What only a start puts in force is told from what is in force.
#[tokio::test]
async fn keys_that_wait_for_the_next_start_are_marked() {
    let with = |keys: &str| format!("{keys}auth: {{ admin_token: {TOKEN} }}\nremotes: {{}}\n");
    let first = with("hot_set: 1MiB\n");
    let mut larder = TestLarder::start(&first).await;
    let before = told(&larder).await;
    assert_eq!(before, (String::new(), vec![]), "it has just started");
    larder.write_config(&with("hot_set: 2MiB\ndrain: 1\n"));
    larder.signal(Signal::HUP);
    larder.logged("the new configuration is in force").await;
    assert_eq!(
        told(&larder).await,
        ("hot_set".to_owned(), vec!["hot_set".to_owned()])
    );
    let text = asked(&larder, "ui/configuration", BROWSER).await.text();
    let row = text.split("<tr>").find(|row| row.contains("hot_set"));
    assert!(
        row.is_some_and(|row| row.contains("from the next start on")),
        "{text}"
    );
    assert_eq!(text.matches("from the next start on").count(), 1, "{text}");
    let health = json(&larder, "ui/health").await["reload"].take();
    assert_eq!(health["waiting"], serde_json::json!(["hot_set"]));
    assert_eq!(health["changed"], serde_json::json!(["drain", "hot_set"]));
    let health = get(&larder.url("health")).await.json()["reload"].take();
    assert_eq!(
        health["waiting_for_restart"],
        serde_json::json!(["hot_set"])
    );
    larder.write_config(&first);
    larder.signal(Signal::HUP);
    let began = std::time::Instant::now();
    while told(&larder).await != before {
        assert!(began.elapsed() < support::PATIENCE, "it still waits");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

async fn asked(larder: &TestLarder, path: &str, accept: &str) -> Answer {
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("accept", accept), ("authorization", &*bearer)];
    send("GET", &larder.url(path), &headers).await
}

/// The keys that `/config` and the page of the configuration say not to be in force yet.
async fn told(larder: &TestLarder) -> (String, Vec<String>) {
    let config = asked(larder, "config", "application/json").await;
    let header = config.header("x-larder-waiting-for-restart").to_owned();
    let page = asked(larder, "ui/configuration", "application/json")
        .await
        .json();
    let keys = page["sections"][0]["keys"].as_array().expect("keys");
    let waiting = keys.iter().filter(|key| key["is_waiting"] == true);
    let names = waiting.map(|key| key["key"].as_str().unwrap_or_default().to_owned());
    (header, names.collect())
}

//! How mirrors do: how long they take, and how far they are behind each other.

use super::*;

const NEW: &str = "Tue, 02 Jan 2024 03:04:05 GMT";
const TWO_HOURS_OLDER: &str = "Tue, 02 Jan 2024 01:04:05 GMT";
const INDEX: &str = "apiVersion: v1\nentries: {}\n";

async fn two_mirrors() -> ([Origin; 2], TestLarder) {
    let mirrors = [Origin::start().await, Origin::start().await];
    for (mirror, date) in mirrors.iter().zip([NEW, TWO_HOURS_OLDER]) {
        let index = Resource::new(INDEX).content_type("text/yaml");
        mirror.put("/index.yaml", index.last_modified(date));
    }
    let [first, second] = mirrors.each_ref().map(|mirror| mirror.url("/"));
    let larder = TestLarder::start(&format!(
        "auth: {{ admin_token: {TOKEN} }}\nremotes:\n  charts:\n    package: helm\n    base_url: ['{first}', '{second}']\n  \
         one:\n    package: helm\n    base_url: '{first}'\n"
    ))
    .await;
    (mirrors, larder)
}

async fn shown(larder: &TestLarder) -> [serde_json::Value; 2] {
    let page = json(larder, "ui/repositories/charts").await;
    [page["mirrors"][0].clone(), page["mirrors"][1].clone()]
}

#[tokio::test]
async fn latency_and_lag_are_shown_or_why_they_are_not_known() {
    let (mirrors, larder) = two_mirrors().await;
    let [first, second] = shown(&larder).await;
    for mirror in [&first, &second] {
        assert!(mirror["first_byte_ms"].is_null(), "{mirror}");
        let why = mirror["lag"]["unknown"].as_str().expect("why");
        assert!(why.contains("gave no index"), "{why}");
    }
    let compare = async |visitor: &SignedIn| {
        let headers = [("cookie", &*visitor.cookie)];
        let fields = [("csrf", &*visitor.csrf)];
        form(&larder, "ui/repositories/charts/mirrors", &fields, &headers).await
    };
    let visitor = sign_in(&larder).await;
    let early = compare(&visitor).await;
    assert_eq!(early.status, 400, "{}", early.text());

    get(&larder.artifact("charts", "index.yaml")).await;
    let [first, second] = shown(&larder).await;
    assert!(
        first["first_byte_ms"].as_f64().expect("a time") > 0.0,
        "{first}"
    );
    assert!(first["last_answer_at"].is_string(), "{first}");
    let why = first["lag"]["unknown"].as_str().expect("why");
    assert!(why.contains("no other mirror gave the same index"), "{why}");
    assert!(
        second["first_byte_ms"].is_null(),
        "nobody has asked it: {second}"
    );

    // Only an operator's word makes larder ask mirrors that it needs not.
    assert_eq!(mirrors[1].count("HEAD", "/index.yaml"), 0);
    let asked = compare(&visitor).await;
    assert_eq!(
        (asked.status, asked.header("location")),
        (303, "../../../ui/repositories/charts#upstream")
    );
    let [first, second] = shown(&larder).await;
    assert_eq!(first["lag"]["behind"], 0, "{first}");
    assert_eq!(second["lag"]["behind"], 7_200, "{second}");
    assert_eq!(second["lag"]["index"], "index.yaml");
    assert!(second["first_byte_ms"].as_f64().expect("a time") > 0.0);
    let text = page(&larder, "ui/repositories/charts").await.text();
    assert!(
        text.contains("<td class=\"words\">2 h<br>") && text.contains("up to date"),
        "{text}"
    );

    let metrics = get(&larder.url("metrics")).await.text();
    let url = mirrors[1].url("/");
    let labels = format!("{{repository=\"charts\",mirror=\"{url}\"}}");
    assert!(
        metrics.contains(&format!("larder_mirror_index_lag_seconds{labels} 7200")),
        "{metrics}"
    );
    assert!(
        metrics.contains(&format!("larder_mirror_first_byte_seconds_count{labels} 1")),
        "{metrics}"
    );
    let health = get(&larder.url("health")).await.json();
    let upstreams = health["upstreams"].as_array().expect("a list");
    let own = upstreams.iter().find(|one| one["upstream"] == *url);
    let own = own.expect("the second mirror");
    assert_eq!(own["index_lag"]["seconds"], 7_200, "{own}");
    assert!(
        own["first_byte_ms"].as_f64().expect("a time") > 0.0,
        "{own}"
    );
}

#[tokio::test]
async fn hazard_nobody_makes_larder_ask_mirrors_who_may_not() {
    let (mirrors, larder) = two_mirrors().await;
    get(&larder.artifact("charts", "index.yaml")).await;
    let refused = form(&larder, "ui/repositories/charts/mirrors", &[], &[]).await;
    assert_eq!(refused.status, 401);
    let visitor = sign_in(&larder).await;
    let headers = [("cookie", &*visitor.cookie)];
    let fields = [("csrf", &*visitor.csrf)];
    let only = form(&larder, "ui/repositories/one/mirrors", &fields, &headers).await;
    assert_eq!(only.status, 400, "{}", only.text());
    assert_eq!(mirrors[1].requests().len(), 0);
}

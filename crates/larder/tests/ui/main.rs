//! The web interface as browsers and scripts meet it: pages and their JSON form, headers, signing in, forms (contract, section 9).
#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "helpers of tests may fail loudly"
)]

#[path = "../support/mod.rs"]
mod support;

mod attempts;
mod changes;
mod downloads;
mod live;
mod mirrors;
mod pages;
mod reloads;
mod sessions;
mod sizes;
mod virtual_pages;

use larder_testkit::{Origin, Resource};

use support::client::{builder, client};
use support::{Answer, TestLarder, get, send};

const TOKEN: &str = "a-token-for-tests";
/// What a browser sends for a page.
const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

/// A page as a browser asks for it.
async fn page(larder: &TestLarder, path: &str) -> Answer {
    send("GET", &larder.url(path), &[("accept", BROWSER)]).await
}

/// The same page's JSON form.
async fn json(larder: &TestLarder, path: &str) -> serde_json::Value {
    let answer = send("GET", &larder.url(path), &[("accept", "application/json")]).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    assert_eq!(answer.header("content-type"), "application/json", "{path}");
    answer.json()
}

/// Sends a form, with these header fields beside it.
async fn form(
    larder: &TestLarder,
    path: &str,
    fields: &[(&str, &str)],
    headers: &[(&str, &str)],
) -> Answer {
    let mut encoded = url::form_urlencoded::Serializer::new(String::new());
    let body = encoded.extend_pairs(fields).finish();
    let mut request = client()
        .post(larder.url(path))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.expect("an answer");
    Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: response.bytes().await.expect("a body").to_vec(),
    }
}

/// A visitor who has signed in: the cookie, and the token that forms must bring.
struct SignedIn {
    cookie: String,
    csrf: String,
}

async fn sign_in(larder: &TestLarder) -> SignedIn {
    let answer = form(
        larder,
        "ui/login",
        &[("token", TOKEN), ("to", "/ui/jobs")],
        &[],
    )
    .await;
    assert_eq!(answer.status, 303, "{}", answer.text());
    let cookie = answer.header("set-cookie");
    let cookie = cookie.split(';').next().expect("a pair").to_owned();
    let headers = [("accept", BROWSER), ("cookie", &*cookie)];
    let shown = send("GET", &larder.url("ui/"), &headers).await.text();
    let csrf = shown
        .split("name=\"csrf\" value=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    SignedIn {
        csrf: csrf.expect("a form with a token").to_owned(),
        cookie,
    }
}

/// An upstream with one file, and a larder with an admin token in front of it.
async fn with_a_file() -> (Origin, TestLarder) {
    let origin = Origin::start().await;
    origin.put("/dir/a.bin", Resource::new("the bytes of a"));
    let larder = TestLarder::start(&config(&origin)).await;
    (origin, larder)
}

fn config(origin: &Origin) -> String {
    format!(
        "auth: {{ admin_token: {TOKEN} }}\n\
         remotes:\n  files:\n    package: generic\n    base_url: {}\n    immutable_patterns: ['\\.bin$']\n    \
         description: 'Files <script>document.body.id=\"owned\"</script> & \"more\"'\n  \
         uploads:\n    package: generic\n    type: local\n",
        origin.url("/")
    )
}

/// Waits until a repository holds so many artifacts: a file is kept a moment after it has been sent.
async fn until_held(larder: &TestLarder, repository: &str, count: usize) {
    let began = std::time::Instant::now();
    while held(larder, repository).await != count {
        assert!(began.elapsed() < support::PATIENCE, "not held");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// How many artifacts a repository holds.
async fn held(larder: &TestLarder, repository: &str) -> usize {
    let answer = get(&larder.url(&format!("api/v1/artifacts/{repository}"))).await;
    answer.json()["artifacts"].as_array().expect("a list").len()
}

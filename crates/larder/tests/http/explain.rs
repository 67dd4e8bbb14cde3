//! Why a path is answered as it is: `GET /api/v1/explain/{repo}/{path}`.

use larder_core::sha256;
use larder_testkit::{Origin, Resource};
use serde_json::{Value, json};

use crate::support::packages::entry;
use crate::support::{Setup, TestLarder, get, send};

const STEPS: [&str; 9] = [
    "repository",
    "verdict",
    "pattern",
    "class",
    "ttl",
    "freshness",
    "quarantine",
    "member",
    "digest",
];

async fn explain(larder: &TestLarder, path: &str) -> Value {
    let answer = get(&larder.url(&format!("api/v1/explain/{path}"))).await;
    assert_eq!(
        (
            answer.status,
            answer.header("content-type"),
            answer.header("cache-control")
        ),
        (200, "application/json", "no-store"),
        "{path}: {}",
        answer.text()
    );
    let made = answer.json();
    for step in STEPS {
        for part in ["value", "until", "decided_by", "line", "because"] {
            assert!(made[step].get(part).is_some(), "{step}.{part}: {made}");
        }
        assert!(made[step]["because"].is_string(), "{step}: {made}");
    }
    made
}

fn said(made: &Value, step: &str) -> (Value, Value) {
    (
        made[step]["value"].clone(),
        made[step]["decided_by"].clone(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn each_step_has_the_line_that_decided() {
    let origin = Origin::start().await;
    origin.put("/a b.txt", Resource::new("abc"));
    let keys = "immutable_patterns: ['\\.txt$']\ncache: { immutable_ttl: 0, mutable_ttl: 60 }";
    let config = format!("remotes:\n{}", entry("files", "generic", &origin, keys));
    let larder = TestLarder::start(&config).await;
    let made = explain(&larder, "files/a%20b.txt").await;
    assert_eq!(said(&made, "verdict"), (json!("fetch"), Value::Null));
    assert_eq!(made["path"], "a b.txt");
    assert_eq!(origin.connections(), 0, "nobody is asked");

    get(&larder.artifact("files", "a%20b.txt")).await;
    larder.until_idle().await;
    let made = explain(&larder, "files/a%20b.txt").await;
    let ttl = json!("remotes.files.cache.immutable_ttl");
    assert_eq!(
        said(&made, "repository"),
        (json!("files"), json!("remotes.files"))
    );
    assert_eq!(
        said(&made, "pattern"),
        (
            json!("\\.txt$"),
            json!("remotes.files.immutable_patterns[0]")
        )
    );
    assert_eq!(said(&made, "ttl"), (json!("unlimited"), ttl.clone()));
    assert_eq!(said(&made, "freshness"), (json!("fresh"), ttl.clone()));
    assert_eq!(said(&made, "verdict"), (json!("serve"), ttl));
    assert_eq!(
        made["digest"]["value"],
        json!(sha256(b"abc").to_string()),
        "{made}"
    );
    assert_eq!(made["member"]["value"], Value::Null);
    // Where a line stands that holds the key, counted in the text itself.
    let line_with = |key: &str| {
        let above = config.lines().take_while(|line| !line.contains(key));
        format!("larder.yaml:{}", above.count() + 1)
    };
    for (step, key) in [
        ("repository", "files:"),
        ("pattern", "immutable_patterns"),
        ("ttl", "immutable_ttl"),
    ] {
        let (line, expected) = (&made[step]["line"], line_with(key));
        let line = line.as_str().unwrap_or_default();
        assert!(line.ends_with(&expected), "{step}: {line}, {expected}");
    }

    let made = explain(&larder, "files/a.exe").await;
    let rule = json!("remotes.files.immutable_patterns");
    assert_eq!(said(&made, "verdict"), (json!("deny"), rule.clone()));
    assert_eq!(said(&made, "pattern"), (Value::Null, rule));
}

#[tokio::test(flavor = "multi_thread")]
async fn other_kinds_of_repositories() {
    let (one, other) = (Origin::start().await, Origin::start().await);
    let index = |name: &str| {
        let body = format!("archive of {name}");
        let digest = sha256(body.as_bytes()).to_hex();
        let index = format!(
            "apiVersion: v1\nentries:\n  {name}:\n  - apiVersion: v2\n    digest: {digest}\n    name: {name}\n    urls:\n    - \
             {name}-1.0.0.tgz\n    version: 1.0.0\n"
        );
        (
            Resource::new(index).content_type("text/yaml"),
            Resource::new(body),
        )
    };
    for (origin, name) in [(&one, "vault"), (&other, "redis")] {
        let (index, archive) = index(name);
        origin.put("/index.yaml", index);
        origin.put(&format!("/{name}-1.0.0.tgz"), archive);
    }
    let config = format!(
        "remotes:\n{}{}  all: {{ type: virtual, package: helm, members: [one, two], deny_patterns: ['secret'] }}\n  up: {{ type: local }}\n",
        entry("one", "helm", &one, "cache: { mutable_ttl: 90 }"),
        entry("two", "helm", &other, "cache: { mutable_ttl: 60 }"),
    );
    let larder = TestLarder::start(&config).await;
    let members = json!("remotes.all.members");
    let made = explain(&larder, "all/redis-1.0.0.tgz").await;
    assert_eq!(said(&made, "member"), (json!("one"), members.clone()));
    assert!(
        made["member"]["because"]
            .as_str()
            .expect("a text")
            .contains("found out when it is asked for"),
        "{made}"
    );
    let all = larder.url("api/v1/virtual/all/index.yaml");
    assert_eq!(get(&all).await.status, 200);
    larder.until_idle().await;
    let made = explain(&larder, "all/redis-1.0.0.tgz").await;
    assert_eq!(said(&made, "member"), (json!("two"), members.clone()));
    assert_eq!(made["repository"]["value"], "all");
    assert_eq!(
        made["digest"]["value"],
        json!(sha256(b"archive of redis").to_string())
    );
    let made = explain(&larder, "all/_m/one/redis-1.0.0.tgz").await;
    assert_eq!(made["member"]["value"], "one");
    let made = explain(&larder, "all/_m/none/redis-1.0.0.tgz").await;
    assert_eq!(said(&made, "verdict"), (json!("refuse"), members.clone()));
    let made = explain(&larder, "all/index.yaml").await;
    assert_eq!(said(&made, "verdict"), (json!("merge"), members.clone()));
    assert_eq!(said(&made, "member"), (json!("one, two"), members));
    assert_eq!(
        said(&made, "ttl"),
        (json!(60), json!("remotes.two.cache.mutable_ttl"))
    );
    let made = explain(&larder, "all/secret-1.0.0.tgz").await;
    assert_eq!(
        said(&made, "verdict"),
        (json!("deny"), json!("remotes.all.deny_patterns[0]"))
    );

    let made = explain(&larder, "up/a.bin").await;
    assert_eq!(made["verdict"]["value"], "refuse");
    let put = reqwest::Client::new()
        .put(larder.artifact("up", "a.bin"))
        .body("abc")
        .send()
        .await
        .expect("an answer");
    assert_eq!(put.status(), 201);
    let made = explain(&larder, "up/a.bin").await;
    assert_eq!(made["verdict"]["value"], "serve");
    assert_eq!(made["digest"]["value"], json!(sha256(b"abc").to_string()));
}

/// Whose a name is, by what is held, and whom the rules of one's own member keep out.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_a_virtual_repository_answers_as_explained() {
    let (one, other) = (Origin::start().await, Origin::start().await);
    let entries = |charts: &[&str]| {
        let of = |name: &&str| {
            format!(
                "  {name}:\n  - name: {name}\n    version: 1.0.0\n    urls:\n    - {name}-1.0.0.tgz\n"
            )
        };
        let all: String = charts.iter().map(of).collect();
        Resource::new(format!("apiVersion: v1\nentries:\n{all}")).content_type("text/yaml")
    };
    one.put("/index.yaml", entries(&["mine"]));
    other.put("/index.yaml", entries(&["acme-web", "mine", "old"]));
    let config = format!(
        "remotes:\n{}{}  all: {{ type: virtual, package: helm, members: [one, two], deny_patterns: ['secret'] }}\n",
        entry(
            "one",
            "helm",
            &one,
            "authoritative: true\nreserved: ['acme-*']"
        ),
        entry("two", "helm", &other, "deny_patterns: ['^old']"),
    );
    let larder = TestLarder::start(&config).await;
    let (members, virtual_) = (
        json!("remotes.all.members"),
        larder.url("api/v1/virtual/all"),
    );
    assert_eq!(get(&format!("{virtual_}/index.yaml")).await.status, 200);
    larder.until_idle().await;
    let asked = one.connections() + other.connections();
    for (path, why) in [
        ("_m/two/acme-web-1.0.0.tgz", "reserved for member one"),
        ("_m/two/mine-1.0.0.tgz", "another member's"),
    ] {
        let made = explain(&larder, &format!("all/{path}")).await;
        assert_eq!(
            said(&made, "verdict"),
            (json!("refuse"), members.clone()),
            "{path}"
        );
        assert_eq!(made["member"]["value"], Value::Null, "{path}");
        let because = made["verdict"]["because"].as_str().expect("a text");
        assert!(because.contains(why), "{path}: {because}");
    }
    for path in ["acme-web-1.0.0.tgz", "mine-1.0.0.tgz"] {
        let made = explain(&larder, &format!("all/{path}")).await;
        assert_eq!(
            said(&made, "member"),
            (json!("one"), members.clone()),
            "{path}"
        );
    }
    let made = explain(&larder, "all/old-1.0.0.tgz").await;
    assert_eq!(said(&made, "member"), (json!("two"), members.clone()));
    let rule = json!("remotes.two.deny_patterns[0]");
    assert_eq!(said(&made, "verdict"), (json!("deny"), rule));
    let made = explain(&larder, "all/secret-1.0.0.tgz").await;
    assert_eq!(made["member"]["because"], "no member is asked");
    assert_eq!(
        one.connections() + other.connections(),
        asked,
        "nobody is asked"
    );
    for (path, status) in [
        ("_m/two/acme-web-1.0.0.tgz", 404),
        ("_m/two/mine-1.0.0.tgz", 404),
        ("old-1.0.0.tgz", 403),
        ("secret-1.0.0.tgz", 403),
    ] {
        let answer = get(&format!("{virtual_}/{path}")).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_those_of_other_addresses() {
    let origin = Origin::start().await;
    let config = format!("remotes:\n{}", entry("files", "generic", &origin, ""));
    let larder = TestLarder::start(&config).await;
    for (path, status, code) in [
        ("api/v1/explain/nobody/a", 404, "unknown_repository"),
        ("api/v1/explain/files/a/..%2fb", 400, "invalid_path"),
        ("api/v1/explain/files/a%00", 400, "invalid_path"),
    ] {
        let answer = get(&larder.url(path)).await;
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (status, &json!(code)),
            "{path}"
        );
    }
    let answer = send("PUT", &larder.url("api/v1/explain/files/a"), &[]).await;
    assert_eq!((answer.status, answer.header("allow")), (405, "GET, HEAD"));
    let answer = send("HEAD", &larder.url("api/v1/explain/files/a"), &[]).await;
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert!(
        !answer.header("content-length").is_empty(),
        "the length of GET's"
    );
}

/// The rules of the configuration are the operator's once there is a token.
#[tokio::test(flavor = "multi_thread")]
async fn with_an_admin_token_it_is_asked_for() {
    let origin = Origin::start().await;
    let config = format!("remotes:\n{}", entry("files", "generic", &origin, ""));
    let token = "a-long-enough-token";
    let larder = Setup::new(&config)
        .env("LARDER_ADMIN_TOKEN", token)
        .start()
        .await;
    let url = larder.url("api/v1/explain/files/a");
    for headers in [&[][..], &[("Authorization", "Bearer another-token")]] {
        for url in [&url, &larder.url("api/v1/explain/nobody/a")] {
            let answer = send("GET", url, headers).await;
            assert_eq!(answer.status, 401, "{headers:?}: {}", answer.text());
            assert_eq!(answer.json()["rule"], "auth.admin_token");
        }
    }
    let bearer = format!("Bearer {token}");
    let answer = send("GET", &url, &[("Authorization", &bearer)]).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

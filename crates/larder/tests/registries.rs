//! Getting into container registries: the program in front of a registry and a token server.
#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "helpers of tests may fail loudly"
)]

mod support;

use std::time::{Duration, Instant};

use larder_core::sha256;
use larder_testkit::{Behaviour, Origin, Resource};
use rustix::process::Signal;
use support::packages::remote;
use support::{Answer, PATIENCE, Setup, TestLarder, get, send};

/// The password; it must be seen nowhere but where it belongs.
const CANARY: &str = "c4n4ry";
/// "user:c4n4ry" in Base64 (RFC 4648), computed apart from larder.
const ACCOUNT: &str = "Basic dXNlcjpjNG40cnk=";
const LOGIN: &str = "username: user\npassword: c4n4ry\n";
const TAG: &str = "v2/images/pantry/app/manifests/1";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// An image with one layer.
struct Image {
    manifest: String,
    digest: String,
    layer: &'static str,
    layer_digest: String,
}

impl Image {
    fn new() -> Self {
        let layer = "the layer's bytes";
        let (config, layer_digest) = (sha256(b"{}"), sha256(layer.as_bytes()).to_string());
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":2}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{layer_digest}","size":{}}}]}}"#,
            layer.len()
        );
        let digest = sha256(manifest.as_bytes()).to_string();
        Self {
            manifest,
            digest,
            layer,
            layer_digest,
        }
    }

    /// Puts it into a registry; gives the paths of its files there.
    fn put(&self, origin: &Origin) -> [String; 3] {
        let name = "/v2/pantry/app";
        let paths = [
            format!("{name}/manifests/1"),
            format!("{name}/manifests/{}", self.digest),
            format!("{name}/blobs/{}", self.layer_digest),
        ];
        for path in &paths[..2] {
            let manifest = Resource::new(self.manifest.clone()).content_type(MANIFEST_TYPE);
            origin.put(path, manifest.header("Docker-Content-Digest", &self.digest));
        }
        origin.put(
            &paths[2],
            Resource::new(self.layer).content_type("application/octet-stream"),
        );
        paths
    }

    /// Pulls it as clients do, and compares.
    async fn pull(&self, larder: &TestLarder) {
        let head = send("HEAD", &larder.url(TAG), &[("accept", MANIFEST_TYPE)]).await;
        assert_eq!(
            (head.status, head.header("docker-content-digest")),
            (200, self.digest.as_str())
        );
        let by_digest = format!("v2/images/pantry/app/manifests/{}", self.digest);
        for path in [TAG, &by_digest] {
            let answer = send("GET", &larder.url(path), &[("accept", MANIFEST_TYPE)]).await;
            assert_eq!(
                (answer.status, answer.text().as_str()),
                (200, self.manifest.as_str()),
                "{path}"
            );
        }
        let layer =
            get(&larder.url(&format!("v2/images/pantry/app/blobs/{}", self.layer_digest))).await;
        assert_eq!((layer.status, layer.text().as_str()), (200, self.layer));
    }
}

fn docker(origin: &Origin, keys: &str) -> String {
    remote("docker", origin, keys).replacen("  docker:", "  images:", 1)
}

fn bearer(realm: &str) -> String {
    format!(
        r#"Bearer realm="{realm}",service="registry.example",scope="repository:pantry/app:pull""#
    )
}

fn token(name: &str) -> Resource {
    Resource::new(format!(r#"{{"token":"{name}","expires_in":300}}"#))
        .content_type("application/json")
}

/// From now on, `token` gets in.
fn admits(origin: &Origin, realm: &str, token: &str) {
    origin.clear_all();
    origin.behave(
        "*",
        Behaviour::Challenge {
            challenge: bearer(realm),
            unless: format!("Bearer {token}"),
        },
    );
}

/// The registry's own error, in the form of the specification; gives code and message.
fn error(answer: &Answer) -> (String, String) {
    assert_eq!(
        answer.header("www-authenticate"),
        "",
        "an upstream's challenge is not the client's"
    );
    assert!(!answer.text().contains(CANARY), "{}", answer.text());
    let error = answer.json()["errors"][0].clone();
    let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
    (text("code"), text("message"))
}

/// `Authorization` of all requests, each kind once, in order.
fn shown(origin: &Origin) -> Vec<String> {
    let mut shown: Vec<String> = origin
        .requests()
        .iter()
        .map(|request| request.header("authorization").unwrap_or("-").to_owned())
        .collect();
    shown.dedup();
    shown
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_work_without_login_with_basic_and_with_tokens_and_a_warm_pull_asks_nobody() {
    let image = Image::new();
    for (login, challenge, asked_at_realm, sent) in [
        ("", None, vec![], vec!["-"]),
        (LOGIN, Some("Basic"), vec![], vec!["-", ACCOUNT]),
        ("", Some("Bearer"), vec!["-"], vec!["-", "Bearer token-1"]),
        (
            LOGIN,
            Some("Bearer"),
            vec![ACCOUNT],
            vec!["-", "Bearer token-1"],
        ),
    ] {
        let (origin, realm) = (Origin::start().await, Origin::start().await);
        let paths = image.put(&origin);
        realm.put("/token", token("token-1"));
        match challenge {
            Some("Basic") => {
                let challenge = r#"Basic realm="registry""#.to_owned();
                origin.behave(
                    "*",
                    Behaviour::Challenge {
                        challenge,
                        unless: ACCOUNT.to_owned(),
                    },
                );
            }
            Some(_) => admits(&origin, &realm.url("/token"), "token-1"),
            None => {}
        }
        let larder = Setup::new(&docker(&origin, login))
            .env("LARDER_LOG", "debug")
            .start()
            .await;
        image.pull(&larder).await;
        assert_eq!(
            (shown(&realm), shown(&origin)),
            (to_strings(&asked_at_realm), to_strings(&sent)),
            "{login} {challenge:?}"
        );
        let token = realm
            .requests()
            .first()
            .map(|request| request.target.clone());
        let want = "/token?service=registry.example&scope=repository%3Apantry%2Fapp%3Apull";
        assert!(token.is_none_or(|target| target == want));
        let layers = origin.count("GET", &paths[2]);
        larder
            .hit(&larder.url(&format!(
                "v2/images/pantry/app/blobs/{}",
                image.layer_digest
            )))
            .await;
        larder.hit(&larder.url(TAG)).await;
        let before = origin.requests().len();
        image.pull(&larder).await;
        assert_eq!(
            (origin.count("GET", &paths[2]), origin.requests().len()),
            (layers, before),
            "warm"
        );
        for text in [
            larder.log(),
            get(&larder.url("config")).await.text(),
            get(&larder.url("metrics")).await.text(),
        ] {
            assert!(
                !text.contains(CANARY) && !text.contains("dXNlcj") && !text.contains("token-1"),
                "{text}"
            );
        }
    }
}

fn to_strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn oci_10_64_cold_clients_cause_one_token_request_and_an_expired_token_is_renewed_once() {
    let image = Image::new();
    let (origin, realm) = (Origin::start().await, Origin::start().await);
    let paths = image.put(&origin);
    realm.put("/token", token("t-1"));
    admits(&origin, &realm.url("/token"), "t-1");
    let larder = TestLarder::start(&docker(
        &origin,
        &format!("{LOGIN}cache: {{ mutable_ttl: 0 }}"),
    ))
    .await;
    realm.behave("/token", Behaviour::StallHead(Duration::from_millis(300)));
    let layer = larder.url(&format!(
        "v2/images/pantry/app/blobs/{}",
        image.layer_digest
    ));
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..64 {
        let url = if number % 2 == 0 {
            larder.url(TAG)
        } else {
            layer.clone()
        };
        clients.spawn(async move { send("GET", &url, &[("accept", MANIFEST_TYPE)]).await.status });
    }
    assert!(clients.join_all().await.iter().all(|status| *status == 200));
    assert_eq!(realm.count("GET", "/token"), 1);
    // One bare request and one with the token, for as many flights as the clients made.
    assert_eq!(origin.count("GET", &paths[2]), 2);
    // The registry has forgotten the token.
    realm.put("/token", token("t-2"));
    admits(&origin, &realm.url("/token"), "t-2");
    for _ in 0..3 {
        assert_eq!(get(&larder.url(TAG)).await.status, 200);
    }
    assert_eq!(realm.count("GET", "/token"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn oci_09_a_realm_elsewhere_gets_no_password_and_the_client_a_502_that_says_why() {
    let image = Image::new();
    let (origin, realm) = (Origin::start().await, Origin::start().await);
    image.put(&origin);
    realm.put("/token", token("t-1"));
    admits(&origin, &realm.url("/token"), "t-1");
    // The upstream by another name than the realm's.
    let (url, other) = (
        origin.url("/"),
        format!("http://localhost:{}/", origin.address().port()),
    );
    let named = |keys: &str| docker(&origin, keys).replace(&url, &other);
    for (keys, word) in [
        (LOGIN.to_owned(), "token_hosts"),
        (
            format!("{LOGIN}allow_private: [127.0.0.0/8]"),
            "token_hosts",
        ),
        (
            format!("{LOGIN}token_hosts: [auth.example.com]"),
            "token_hosts",
        ),
        (String::new(), "allow_private"),
    ] {
        let larder = TestLarder::start(&named(&keys)).await;
        for path in [
            TAG.to_owned(),
            format!("v2/images/pantry/app/blobs/{}", image.layer_digest),
        ] {
            let answer = get(&larder.url(&path)).await;
            let (_, message) = error(&answer);
            assert_eq!(answer.status, 502, "{keys} {message}");
            assert!(
                message.contains(word) && message.contains("127.0.0.1"),
                "{keys} {message}"
            );
        }
        assert!(!larder.log().contains(CANARY), "{}", larder.log());
    }
    assert_eq!(realm.connections(), 0, "{:?}", realm.requests());
    let listed = named(&LOGIN.replace(
        "user\n",
        &format!("user\ntoken_hosts: ['{}']\n", realm.address()),
    ));
    image.pull(&TestLarder::start(&listed).await).await;
    assert_eq!(shown(&realm), [ACCOUNT]);
}

#[tokio::test(flavor = "multi_thread")]
async fn oci_07_redirects_take_neither_account_nor_token_along() {
    let image = Image::new();
    let (origin, cdn, realm) = (
        Origin::start().await,
        Origin::start().await,
        Origin::start().await,
    );
    let paths = image.put(&origin);
    cdn.put("/layer", Resource::new(image.layer));
    realm.put("/token", token("t-1"));
    admits(&origin, &realm.url("/token"), "t-1");
    // Of two behaviours the later replaces: nobody is sent on before showing the token.
    let larder = TestLarder::start(&docker(
        &origin,
        &format!("{LOGIN}allow_private: ['{}']", cdn.address()),
    ))
    .await;
    origin.behave(
        &paths[2],
        Behaviour::Redirect {
            status: 307,
            location: cdn.url("/layer?signature=1"),
        },
    );
    origin.behave(
        &paths[2],
        Behaviour::Challenge {
            challenge: bearer(&realm.url("/token")),
            unless: "Bearer t-1".to_owned(),
        },
    );
    image.pull(&larder).await;
    assert_eq!(shown(&cdn), ["-"]);
    let request = cdn.requests().remove(0);
    assert!(!format!("{request:?}").contains(CANARY));
    assert_eq!(request.target, "/layer?signature=1");
}

/// A registry does not tell a private image from one that is not there, and clients of a mirror act on a 404; a challenge that larder
/// cannot meet is between larder and the registry.
#[tokio::test(flavor = "multi_thread")]
async fn oci_20_a_private_image_without_login_is_a_404_without_the_registrys_challenge() {
    let image = Image::new();
    let (origin, realm) = (Origin::start().await, Origin::start().await);
    image.put(&origin);
    let larder = TestLarder::start(&docker(&origin, "")).await;
    let paths = [
        TAG.to_owned(),
        format!("v2/images/pantry/app/manifests/{}", image.digest),
        format!("v2/images/pantry/app/blobs/{}", image.layer_digest),
        "v2/images/pantry/app/tags/list".to_owned(),
        format!("v2/images/pantry/app/referrers/{}", image.digest),
        "images/v2/pantry/app/manifests/1".to_owned(),
    ];
    let refused = async |name: &str| {
        for path in &paths {
            for method in ["HEAD", "GET"] {
                let answer = send(method, &larder.url(path), &[("accept", MANIFEST_TYPE)]).await;
                assert_eq!(
                    answer.status,
                    404,
                    "{name}: {method} {path}: {}",
                    answer.text()
                );
                assert_eq!(
                    answer.header("www-authenticate"),
                    "",
                    "{name}: {method} {path}"
                );
                assert_eq!(
                    answer.header("content-type"),
                    "application/json",
                    "{name}: {method} {path}"
                );
                if method == "GET" {
                    let (code, message) = error(&answer);
                    assert_eq!(code, "NAME_UNKNOWN", "{name}: {path}: {message}");
                    assert!(
                        message.contains("repository images"),
                        "{name}: {path}: {message}"
                    );
                    assert!(
                        message.contains("username and password")
                            && message.contains("absent or private"),
                        "{name}: {path}: {message}"
                    );
                    assert!(
                        !answer.text().contains("registry.example"),
                        "{name}: the upstream's challenge in {}",
                        answer.text()
                    );
                }
            }
        }
    };
    // The token server gives out tokens that allow nothing, then none at all; then the registry wants a password.
    realm.put("/token", token("worthless"));
    admits(&origin, &realm.url("/token"), "t-1");
    refused("worthless").await;
    for status in [401, 403] {
        realm.behave("/token", Behaviour::Status(status));
        refused("none").await;
    }
    // A token that anybody gets, refused in other words.
    realm.clear_all();
    origin.clear_all();
    origin.behave("*", Behaviour::Status(403));
    origin.behave(
        "*",
        Behaviour::Challenge {
            challenge: bearer(&realm.url("/token")),
            unless: "Bearer worthless".to_owned(),
        },
    );
    refused("denied").await;
    origin.clear_all();
    origin.behave(
        "*",
        Behaviour::Challenge {
            challenge: r#"Basic realm="registry.example""#.to_owned(),
            unless: ACCOUNT.to_owned(),
        },
    );
    refused("password").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_a_502_that_names_it() {
    let (origin, realm) = (Origin::start().await, Origin::start().await);
    admits(&origin, &realm.url("/token"), "t-1");
    realm.behave("/token", Behaviour::Status(401));
    let larder = TestLarder::start(&docker(&origin, LOGIN)).await;
    let answer = get(&larder.url(TAG)).await;
    let (_, message) = error(&answer);
    assert_eq!(answer.status, 502, "{message}");
    assert!(
        message.contains("username and password") && message.contains("/token"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn oci_16_a_busy_token_server_is_a_429_with_its_retry_after() {
    let (origin, realm) = (Origin::start().await, Origin::start().await);
    admits(&origin, &realm.url("/token"), "t-1");
    realm.behave("/token", Behaviour::Status(429));
    realm.behave(
        "/token",
        Behaviour::Header("Retry-After".to_owned(), "17".to_owned()),
    );
    let larder = TestLarder::start(&docker(&origin, "")).await;
    let answer = get(&larder.url(TAG)).await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, "17"));
    assert_eq!(error(&answer).0, "TOOMANYREQUESTS");
}

#[tokio::test(flavor = "multi_thread")]
async fn oci_18_a_copy_is_served_when_the_token_server_is_gone() {
    let image = Image::new();
    let (origin, mut realm) = (Origin::start().await, Origin::start().await);
    image.put(&origin);
    realm.put("/token", Resource::new(r#"{"token":"t-1","expires_in":1}"#));
    admits(&origin, &realm.url("/token"), "t-1");
    let larder = TestLarder::start(&docker(&origin, "cache: { mutable_ttl: 1 }")).await;
    assert_eq!(get(&larder.url(TAG)).await.text(), image.manifest);
    larder.hit(&larder.url(TAG)).await;
    realm.stop().await;
    let until = Instant::now() + PATIENCE;
    // Copy and token expire; the copy is then served for want of a token.
    loop {
        let answer = get(&larder.url(TAG)).await;
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, image.manifest.as_str())
        );
        if answer.cache_status().contains("stale") {
            break;
        }
        assert!(
            Instant::now() < until,
            "never stale: {}",
            answer.cache_status()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_s8_another_account_after_a_reload_gets_another_token() {
    let image = Image::new();
    let (origin, realm) = (Origin::start().await, Origin::start().await);
    image.put(&origin);
    admits(&origin, &realm.url("/token"), "t-1");
    realm.put("/token", token("t-1"));
    let only_members = Behaviour::Challenge {
        challenge: r#"Basic realm="tokens""#.to_owned(),
        unless: ACCOUNT.to_owned(),
    };
    realm.behave("/token", only_members);
    let manifest = |larder: &TestLarder| larder.url(TAG);
    let mut larder = TestLarder::start(&docker(&origin, &LOGIN.replace(CANARY, "mistyped"))).await;
    assert_eq!(get(&manifest(&larder)).await.status, 502);
    reload(&mut larder, &docker(&origin, LOGIN), "corrected").await;
    let answer = get(&manifest(&larder)).await;
    assert_eq!(answer.text(), image.manifest, "{}", larder.log());
    // Without account nothing more is had, though the account's token is still good.
    reload(&mut larder, &docker(&origin, ""), "anonymous").await;
    let layer = larder.url(&format!(
        "v2/images/pantry/app/blobs/{}",
        image.layer_digest
    ));
    let answer = get(&layer).await;
    assert_ne!(answer.status, 200, "{}", answer.text());
    let last = origin.requests().pop().expect("it was asked");
    assert_eq!(last.header("authorization"), None);
}

/// Gives it another configuration, whose description is `word`, and waits until it is in force.
async fn reload(larder: &mut TestLarder, config: &str, word: &str) {
    larder.write_config(&format!("{config}    description: {word}\n"));
    larder.signal(Signal::HUP);
    let until = Instant::now() + PATIENCE;
    while !get(&larder.url("config")).await.text().contains(word) {
        assert!(Instant::now() < until, "not reloaded:\n{}", larder.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

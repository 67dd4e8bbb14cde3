//! Where larder may be led: redirects and links to private addresses, and forged links (hazard S10).
#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "helpers of tests may fail loudly"
)]

mod support;

use std::time::{Duration, Instant};

use larder_testkit::{Behaviour, Origin, Resource};
use support::packages::{INDEXES, entry, links_back, one_of_each, put_indexes, remote};
use support::{Answer, TestLarder, get, send};

/// Every way to write the loopback address with this port, and other places where nobody should be sent.
fn forbidden(port: u16) -> Vec<String> {
    let with_port = [
        "127.0.0.1",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "127.1",
        "127.0.1",
        "127.255.255.254",
        "0x7f.1",
        "0x7f000001",
        "0x7F.0x0.0x0.0x1",
        "2130706433",
        "017700000001",
        "0177.0.0.1",
        "0",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "%31%32%37.0.0.1",
        "１２７.0.0.1",
        "127。0。0。1",
        "files.example@127.0.0.1",
        "10.0.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.168.0.1",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "[fd00::1]",
        "[fe80::1]",
        "[ff02::1]",
        "[::ffff:10.0.0.1]",
        "[::ffff:169.254.169.254]",
    ];
    let mut all: Vec<String> = with_port
        .iter()
        .map(|host| format!("http://{host}:{port}/pantry-1.0.tar.gz"))
        .collect();
    all.extend([
        format!("//127.0.0.1:{port}/pantry-1.0.tar.gz"),
        format!("\\\\127.0.0.1:{port}\\pantry-1.0.tar.gz"),
        format!("/\\127.0.0.1:{port}/pantry-1.0.tar.gz"),
        format!("http:\\\\127.0.0.1:{port}\\pantry-1.0.tar.gz"),
        format!("HTTP://127.0.0.1:{port}/pantry-1.0.tar.gz"),
        format!("http:////127.0.0.1:{port}/pantry-1.0.tar.gz"),
        format!("https://127.0.0.1:{port}/pantry-1.0.tar.gz"),
        format!("ht\ttp://127.0.0.1:{port}/pantry-1.0.tar.gz"),
        format!("ftp://127.0.0.1:{port}/pantry-1.0.tar.gz"),
        format!("gopher://127.0.0.1:{port}/pantry-1.0.tar.gz"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "http://metadata/computeMetadata/v1/".to_owned(),
        "file:///etc/passwd".to_owned(),
        "data:text/plain,secret".to_owned(),
        "javascript:alert(1)".to_owned(),
        "unix:/run/docker.sock".to_owned(),
    ]);
    all
}

async fn victim() -> Origin {
    let victim = Origin::start().await;
    victim.put("/pantry-1.0.tar.gz", Resource::new("secret"));
    victim
}

/// A refusal: a 502 that came at once, with the secret nowhere.
fn assert_refused(answer: &Answer, took: Duration, case: &str) {
    assert_eq!(answer.status, 502, "{case}: {}", answer.text());
    assert!(
        !answer.text().contains("\"secret\""),
        "{case}: {}",
        answer.text()
    );
    // A connection attempt to an address that does not answer would take its time-out.
    assert!(took < Duration::from_secs(3), "{case}: {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_s10_redirects_to_private_addresses_are_refused_in_every_spelling() {
    let (origin, victim) = (Origin::start().await, victim().await);
    let larder = TestLarder::start(&remote("generic", &origin, "negative_ttl: 0")).await;
    for (number, location) in forbidden(victim.address().port()).into_iter().enumerate() {
        let status = [301, 302, 303, 307, 308][number % 5];
        origin.behave(
            "/a.tgz",
            Behaviour::Redirect {
                status,
                location: location.clone(),
            },
        );
        for method in ["GET", "HEAD"] {
            let began = Instant::now();
            let answer = send(method, &larder.artifact("generic", "a.tgz"), &[]).await;
            assert_refused(&answer, began.elapsed(), &format!("{method} {location:?}"));
        }
        origin.clear_all();
    }
    assert_eq!(victim.connections(), 0, "{:?}", victim.requests());
    // The refusals have left nothing behind, and have not been held against the upstream.
    origin.put("/a.tgz", Resource::new("good"));
    assert_eq!(
        get(&larder.artifact("generic", "a.tgz")).await.text(),
        "good"
    );
}

/// Another port of the upstream's own host is another service: no index leads clients there through larder, and it is told.
#[tokio::test(flavor = "multi_thread")]
async fn hazard_s10_links_to_another_port_of_a_private_upstream_are_not_carried() {
    let (origin, victim) = (Origin::start().await, victim().await);
    put_indexes(&origin, &victim.url("/pantry-1.0.tar.gz"));
    let larder = TestLarder::start(&one_of_each(&origin, "")).await;
    for (repository, path) in INDEXES {
        let index = get(&larder.artifact(repository, path)).await;
        let links = links_back(&larder, repository, &index.text());
        assert!(links.is_empty(), "{repository}: {links:?}");
        let counted = larder
            .metric(
                "larder_repository_links_not_carried_total",
                &format!("repository=\"{repository}\""),
            )
            .await;
        assert!(counted >= 1.0, "{repository}: {counted}");
    }
    larder.logged("links of this index are not carried").await;
    assert_eq!(victim.connections(), 0, "{:?}", victim.requests());
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_s10_the_refusal_names_repository_rule_and_remedy() {
    let (origin, victim) = (Origin::start().await, victim().await);
    let larder = TestLarder::start(&remote("generic", &origin, "")).await;
    origin.behave(
        "*",
        Behaviour::Redirect {
            status: 302,
            location: victim.url("/pantry-1.0.tar.gz"),
        },
    );
    let error = get(&larder.artifact("generic", "a.tgz")).await.json();
    assert_eq!(error["repository"], "generic", "{error}");
    let message = error["error"].as_str().unwrap_or_default();
    assert!(
        message.contains("allow_private") && message.contains("127.0.0.1"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_s10_the_hop_after_an_allowed_hop_is_checked_too() {
    let (origin, middle, victim) = (Origin::start().await, Origin::start().await, victim().await);
    let allow = format!("allow_private: ['{}']", middle.address());
    let larder = TestLarder::start(&remote("generic", &origin, &allow)).await;
    origin.behave(
        "/a.tgz",
        Behaviour::Redirect {
            status: 302,
            location: middle.url("/b.tgz"),
        },
    );
    middle.behave(
        "/b.tgz",
        Behaviour::Redirect {
            status: 302,
            location: victim.url("/pantry-1.0.tar.gz"),
        },
    );
    assert_eq!(get(&larder.artifact("generic", "a.tgz")).await.status, 502);
    assert_eq!(
        (middle.count("GET", "/b.tgz"), victim.connections()),
        (1, 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_within_the_origin_are_followed_and_endless_ones_are_not() {
    let origin = Origin::start().await;
    let larder = TestLarder::start(&remote("generic", &origin, "negative_ttl: 0")).await;
    origin.put("/d/c.tgz", Resource::new("there").etag("\"t\""));
    for (path, location) in [
        ("a", "/b"),
        ("b", "d/c.tgz"),
        ("e", &origin.url("/d/c.tgz")),
        ("f", "d/./c.tgz"),
    ] {
        origin.behave(
            &format!("/{path}"),
            Behaviour::Redirect {
                status: 302,
                location: location.to_owned(),
            },
        );
    }
    for path in ["b", "a", "e", "f"] {
        let answer = get(&larder.artifact("generic", path)).await;
        assert_eq!(
            (answer.status, answer.text().as_str(), answer.header("etag")),
            (200, "there", "\"t\""),
            "{path}"
        );
        assert_eq!(
            answer.header("location"),
            "",
            "redirects are followed, never passed on"
        );
    }
    origin.behave(
        "/loop",
        Behaviour::Redirect {
            status: 302,
            location: "/loop".to_owned(),
        },
    );
    let answer = get(&larder.artifact("generic", "loop")).await;
    assert_eq!(answer.status, 502, "{}", answer.text());
    assert!(
        origin.count("GET", "/loop") <= 11,
        "{} hops",
        origin.count("GET", "/loop")
    );
    assert!(answer.text().contains("redirect"), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_s10_links_to_private_addresses_are_never_followed() {
    let (origin, victim) = (Origin::start().await, victim().await);
    let larder = TestLarder::start(&one_of_each(
        &origin,
        "cache: { mutable_ttl: 0 }\nnegative_ttl: 0",
    ))
    .await;
    for url in forbidden(victim.address().port()) {
        put_indexes(&origin, &url);
        for (repository, path) in INDEXES {
            let index = get(&larder.artifact(repository, path)).await;
            // An index that names an unusable link may be refused as a whole, or served without leading there.
            assert!(
                matches!(index.status, 200 | 502),
                "{repository} {url:?}: {} {}",
                index.status,
                index.text()
            );
            let mut paths = links_back(&larder, repository, &index.text());
            // Clients that have the link from elsewhere ask for the file under its usual name.
            paths.extend(["pantry/-/pantry-1.0.0.tgz", "pantry-1.0.tar.gz"].map(str::to_owned));
            for file in paths {
                let answer = get(&larder.artifact(repository, &file)).await;
                assert_ne!(answer.text(), "secret", "{repository} {url:?} {file}");
                assert_ne!(
                    answer.status,
                    200,
                    "{repository} {url:?} {file}: {}",
                    answer.text()
                );
            }
        }
        assert_eq!(victim.connections(), 0, "{url:?}: {:?}", victim.requests());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_s10_allow_private_opens_exactly_what_it_names() {
    let (origin, named, other) = (Origin::start().await, victim().await, victim().await);
    let socket = format!(
        "negative_ttl: 0\ncache: {{ mutable_ttl: 0 }}\nallow_private: ['{}']",
        named.address()
    );
    let config = one_of_each(&origin, &socket);
    let network = entry(
        "network",
        "generic",
        &origin,
        "allow_private: [127.0.0.0/8]",
    );
    let foreign = entry(
        "foreign",
        "generic",
        &origin,
        "allow_private: [10.0.0.0/8, '127.0.0.2']",
    );
    let larder = TestLarder::start(&format!("{config}{network}{foreign}")).await;
    origin.behave(
        "/to-named",
        Behaviour::Redirect {
            status: 302,
            location: named.url("/pantry-1.0.tar.gz"),
        },
    );
    origin.behave(
        "/to-other",
        Behaviour::Redirect {
            status: 302,
            location: other.url("/pantry-1.0.tar.gz"),
        },
    );
    for (repository, path, want) in [
        ("generic", "to-named", 200),
        ("generic", "to-other", 502),
        ("foreign", "to-named", 502),
        ("foreign", "to-other", 502),
    ] {
        let answer = get(&larder.artifact(repository, path)).await;
        assert_eq!(
            answer.status,
            want,
            "{repository}/{path}: {}",
            answer.text()
        );
    }
    // Links: the named one is carried and followed, the other is not.
    for (target, follows) in [(&named, true), (&other, false)] {
        put_indexes(&origin, &target.url("/pantry-1.0.tar.gz"));
        // npm's tarball has the same path wherever it comes from.
        assert_eq!(
            send("PUT", &larder.url("/cache/flush"), &[]).await.status,
            200
        );
        for (repository, path) in INDEXES {
            let index = get(&larder.artifact(repository, path)).await;
            let links: Vec<String> = links_back(&larder, repository, &index.text())
                .into_iter()
                .filter(|link| link.starts_with("_ext/"))
                .collect();
            let mut bodies = Vec::new();
            for link in &links {
                bodies.push(get(&larder.artifact(repository, link)).await.text());
            }
            // npm clients are led to the tarball under its package.
            if repository == "npm" {
                bodies.push(
                    get(&larder.artifact("npm", "pantry/-/pantry-1.0.0.tgz"))
                        .await
                        .text(),
                );
            }
            assert_eq!(
                bodies.iter().any(|body| body == "secret"),
                follows,
                "{repository} {path}: {links:?} {}",
                index.text()
            );
        }
    }
    assert_eq!(other.connections(), 0, "{:?}", other.requests());
    for path in ["to-named", "to-other"] {
        assert_eq!(
            get(&larder.artifact("network", path)).await.text(),
            "secret",
            "a whole network is open: {path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_s10_link_hosts_restrict_and_open_nothing_by_themselves() {
    let (origin, listed, unlisted) = (Origin::start().await, victim().await, victim().await);
    let both = "allow_private: [127.0.0.0/8]\nnegative_ttl: 0\ncache: { mutable_ttl: 0 }";
    let only = |more: &str| format!("link_hosts: ['{}']\n{more}", listed.address());
    let config = [
        entry("restricted", "helm", &origin, &only(both)),
        entry(
            "closed",
            "helm",
            &origin,
            &only("negative_ttl: 0\ncache: { mutable_ttl: 0 }"),
        ),
        entry(
            "none",
            "helm",
            &origin,
            &format!("link_hosts: [cdn.example.com]\n{both}"),
        ),
    ];
    // The upstream by another name than the links' hosts: its own host is the operator's word, whatever `link_hosts` says.
    let config = config.concat().replace(
        &origin.url("/"),
        &format!("http://localhost:{}/", origin.address().port()),
    );
    let larder = TestLarder::start(&format!("remotes:\n{config}")).await;
    for (repository, target, follows) in [
        ("restricted", &listed, true),
        ("restricted", &unlisted, false),
        ("closed", &listed, false),
        ("closed", &unlisted, false),
        ("none", &listed, false),
    ] {
        put_indexes(&origin, &target.url("/pantry-1.0.tar.gz"));
        let before = target.connections();
        let index = get(&larder.artifact(repository, "index.yaml")).await;
        let mut followed = false;
        for link in links_back(&larder, repository, &index.text()) {
            followed |= get(&larder.artifact(repository, &link)).await.text() == "secret";
        }
        assert_eq!(followed, follows, "{repository}: {}", index.text());
        assert_eq!(
            target.connections() > before,
            follows,
            "{repository}: {:?}",
            target.requests()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_s10_forged_links_are_403_without_contact() {
    let (origin, cdn, victim) = (Origin::start().await, victim().await, victim().await);
    cdn.put("/other.tgz", Resource::new("other"));
    let keys = "allow_private: [127.0.0.0/8]";
    let second = entry("second", "helm", &origin, keys);
    let larder = TestLarder::start(&format!("{}{second}", one_of_each(&origin, keys))).await;
    put_indexes(&origin, &cdn.url("/pantry-1.0.tar.gz"));
    let index = get(&larder.artifact("helm", "index.yaml")).await.text();
    let good = links_back(&larder, "helm", &index)
        .into_iter()
        .find(|link| link.starts_with("_ext/"))
        .expect("a signed link");
    let [_, mac, host, _] = good.split('/').collect::<Vec<_>>()[..] else {
        panic!("_ext/mac/host/path: {good}")
    };
    assert_eq!(host, cdn.address().to_string());
    let other_mac = if mac.starts_with('A') {
        mac.replacen('A', "B", 1)
    } else {
        format!("A{}", &mac[1..])
    };
    let victim_host = victim.address();
    let forged = [
        format!("_ext/{mac}/{victim_host}/pantry-1.0.tar.gz"),
        format!("_ext/{mac}/{host}/other.tgz"),
        format!("_ext/{mac}/{host}/pantry-1.0.tar.gz/x"),
        format!("_ext/{mac}/{host}/Pantry-1.0.tar.gz"),
        format!("_ext/{mac}/{host}:80/pantry-1.0.tar.gz"),
        format!("_ext/{mac}/x@{host}/pantry-1.0.tar.gz"),
        format!("_ext/{other_mac}/{host}/pantry-1.0.tar.gz"),
        format!("_ext/{}/{host}/pantry-1.0.tar.gz", &mac[..mac.len() - 1]),
        format!("_ext/{mac}AA/{host}/pantry-1.0.tar.gz"),
        format!("_ext/{mac}.L3g/{host}/pantry-1.0.tar.gz"),
        format!("_ext/{}/{host}/pantry-1.0.tar.gz", "A".repeat(mac.len())),
        format!("_ext/{host}/pantry-1.0.tar.gz"),
        format!("_ext//{host}/pantry-1.0.tar.gz"),
        format!("_ext/{mac}/{host}"),
        format!("_ext/{mac}"),
        "_ext/".to_owned(),
        "_ext".to_owned(),
    ];
    let (connections, asked) = (cdn.connections(), origin.requests().len());
    for path in &forged {
        for method in ["GET", "HEAD"] {
            let answer = send(method, &larder.artifact("helm", path), &[]).await;
            // `//` is folded before anything looks at the path, so that no spelling is judged differently.
            assert_eq!(answer.status, 403, "{method} {path}: {}", answer.text());
        }
    }
    // The mac is one of the repository that named the link.
    for repository in ["second", "npm", "pypi"] {
        let answer = get(&larder.artifact(repository, &good)).await;
        assert_eq!(answer.status, 403, "{repository}: {}", answer.text());
    }
    assert_eq!(
        (
            cdn.connections(),
            victim.connections(),
            origin.requests().len()
        ),
        (connections, 0, asked)
    );
    // To a type without links it is a path like any other, of its own upstream.
    assert_eq!(get(&larder.artifact("generic", &good)).await.status, 404);
    assert_eq!(
        (cdn.connections(), origin.count("GET", &format!("/{good}"))),
        (connections, 1)
    );
    assert_eq!(
        get(&larder.artifact("helm", &good)).await.text(),
        "secret",
        "the true one works"
    );
}

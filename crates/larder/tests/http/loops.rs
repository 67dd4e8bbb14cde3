//! Upstreams that lead back to larder (RFC 9110 section 7.6.3; 508 is RFC 5842 section 7.2).

use std::time::{Duration, Instant};

use larder_testkit::{Origin, Resource};

use crate::support::packages::remote;
use crate::support::{TestLarder, get, send};

/// Far less than any time-out: nobody has waited for anybody.
const AT_ONCE: Duration = Duration::from_secs(10);

fn entry(name: &str, package: &str, base: &str) -> String {
    format!("  {name}: {{ package: {package}, base_url: '{base}' }}\n")
}

/// A larder that knows its own address before it is configured: a reload tells it.
async fn knowing_itself(config: impl Fn(&TestLarder) -> String) -> TestLarder {
    let mut larder = TestLarder::start(
        "remotes:\n  first: { package: generic, base_url: 'http://127.0.0.1:9/' }\n",
    )
    .await;
    let config = config(&larder);
    larder.write_config(&config);
    larder.signal(rustix::process::Signal::HUP);
    larder.logged("the new configuration is in force").await;
    larder
}

#[tokio::test(flavor = "multi_thread")]
async fn loop_a_remote_that_leads_to_itself_is_508_at_once_in_every_type() {
    let larder = knowing_itself(|larder| {
        let own = |name: &str| larder.artifact(name, "");
        let entries = [
            entry("self", "generic", &own("self")),
            entry("longer", "generic", &larder.artifact("longer", "x/")),
            entry("there", "generic", &own("back")),
            entry("back", "generic", &own("there")),
            entry("pypi", "pypi", &own("pypi")),
            entry("npm", "npm", &own("npm")),
            entry("helm", "helm", &own("helm")),
            entry("rpm", "rpm", &own("rpm")),
            entry("alpine", "alpine", &own("alpine")),
            entry("hub", "docker", &larder.url("")),
        ];
        format!("remotes:\n{}", entries.concat())
    })
    .await;
    for (repository, path) in [
        ("self", "f.bin"),
        ("longer", "f.bin"),
        ("there", "f.bin"),
        ("pypi", "simple/x/"),
        ("pypi", "x-1-py3-none-any.whl"),
        ("npm", "x"),
        ("npm", "x/-/x-1.0.0.tgz"),
        ("helm", "index.yaml"),
        ("rpm", "repodata/repomd.xml"),
        ("alpine", "x86_64/APKINDEX.tar.gz"),
    ] {
        for method in ["GET", "HEAD"] {
            let began = Instant::now();
            let answer = send(method, &larder.artifact(repository, path), &[]).await;
            assert_eq!(
                answer.status,
                508,
                "{method} {repository}/{path}: {}",
                answer.text()
            );
            assert!(
                began.elapsed() < AT_ONCE,
                "{method} {repository}/{path}: {:?}",
                began.elapsed()
            );
            if method == "GET" {
                let text = answer.text();
                assert!(
                    text.contains("loop_detected")
                        && text.contains(&format!("repository {repository} ")),
                    "{text}"
                );
            }
        }
    }
    let image = get(&larder.url("v2/hub/library/x/manifests/latest")).await;
    assert_eq!(image.status, 508, "{}", image.text());
    assert!(
        image.json()["errors"][0]["message"]
            .as_str()
            .is_some_and(|text| text.contains("hub")),
        "{}",
        image.text()
    );
    // Each request went round once: none was tried again, and no later one was kept from asking.
    assert!(
        larder
            .metric("larder_loops_refused_total", "repository=\"self\"")
            .await
            >= 2.0
    );
    assert!(
        larder.log().contains("\"repository\":\"self\""),
        "the log names the repository"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn loop_over_two_larders_is_found_by_the_one_that_it_comes_back_to() {
    let far = TestLarder::start(
        "remotes:\n  first: { package: generic, base_url: 'http://127.0.0.1:9/' }\n",
    )
    .await;
    let near = TestLarder::start(&format!(
        "remotes:\n{}",
        entry("near", "generic", &far.artifact("far", ""))
    ))
    .await;
    let mut far = far;
    far.write_config(&format!(
        "remotes:\n{}",
        entry("far", "generic", &near.artifact("near", ""))
    ));
    far.signal(rustix::process::Signal::HUP);
    far.logged("the new configuration is in force").await;
    for (larder, repository) in [(&near, "near"), (&far, "far")] {
        for n in 0..5 {
            let began = Instant::now();
            let answer = get(&larder.artifact(repository, &format!("{repository}-{n}"))).await;
            assert_eq!(answer.status, 508, "{}", answer.text());
            assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
        }
    }
    assert_eq!(
        near.metric("larder_loops_refused_total", "repository=\"near\"")
            .await as u64,
        5
    );
    assert_eq!(
        far.metric("larder_loops_refused_total", "repository=\"far\"")
            .await as u64,
        5
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn loop_what_carries_larders_own_via_is_refused_from_the_hot_set_too() {
    let origin = Origin::start().await;
    origin.put("/f", Resource::new("there").etag("\"f\""));
    let larder = TestLarder::start(&remote("generic", &origin, "")).await;
    let url = larder.artifact("generic", "f");
    assert_eq!(get(&url).await.text(), "there");
    let own = origin.requests()[0]
        .header("via")
        .expect("Via goes upstream")
        .to_owned();
    larder.hit(&url).await;
    larder.hit(&url).await;
    for method in ["GET", "HEAD"] {
        let carried = format!("1.0 fred (a, b), {own}, HTTP/2 cdn.example");
        assert_eq!(send(method, &url, &[("Via", &carried)]).await.status, 508);
        assert_eq!(
            send(
                method,
                &url,
                &[(
                    "Via",
                    "1.1 fred, 1.1 larder-00000000000000000000000000000000"
                )]
            )
            .await
            .status,
            200
        );
    }
    let two_lines = send("GET", &url, &[("Via", "1.1 fred"), ("Via", &own)]).await;
    assert_eq!(
        (two_lines.status, two_lines.json()["repository"].as_str()),
        (508, Some("generic"))
    );
    // Another process is another larder.
    let other = TestLarder::start(&remote("generic", &origin, "")).await;
    assert_eq!(
        send("GET", &other.artifact("generic", "f"), &[("Via", &own)])
            .await
            .status,
        200
    );
}

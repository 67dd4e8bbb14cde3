//! Links of indexes through the whole program: each leads to the right bytes, its digest is enforced where it leads, and what is not carried
//! is told (hazards X4, X8).
#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "helpers of tests may fail loudly"
)]

mod support;

use larder_core::sha256;
use larder_testkit::{Behaviour, Origin, Resource};
use serde_json::json;
use support::packages::{SIMPLE_JSON, entry, links_back, remote};
use support::{TestLarder, get, send};

/// The file that all indexes name.
const FILE: &str = "the bytes of the file";
/// A repository that asks its upstream each time.
const ALWAYS: &str = "negative_ttl: 0\ncache: { mutable_ttl: 0 }";

/// An index of each ecosystem below `/root/` that names one file by `link`, with the digest of `body`; and where it stands.
fn put_index(origin: &Origin, package: &str, link: &str, body: &str) -> &'static str {
    let digest = sha256(body.as_bytes()).to_hex();
    let (at, document, content_type) = match package {
        "pypi" => {
            let file =
                json!({"filename": "pantry-1.0.tar.gz", "url": link, "hashes": {"sha256": digest}});
            let page = json!({"meta": {"api-version": "1.0"}, "name": "pantry", "files": [file]});
            ("simple/pantry/", page.to_string(), SIMPLE_JSON)
        }
        "npm" => {
            use base64::Engine as _;
            let mut hasher = larder_core::Hasher::new(&[larder_core::DigestAlgorithm::Sha512]);
            hasher.update(body.as_bytes());
            let digests = hasher.finish();
            let sha512 = digests
                .iter()
                .find(|digest| digest.algorithm() == larder_core::DigestAlgorithm::Sha512);
            let bytes = sha512.expect("computed").as_bytes();
            let integrity = format!(
                "sha512-{}",
                base64::engine::general_purpose::STANDARD.encode(bytes)
            );
            let version = json!({"name": "pantry", "version": "1.0.0", "dist": {"tarball": link, "integrity": integrity}});
            (
                "pantry",
                json!({"name": "pantry", "dist-tags": {}, "versions": {"1.0.0": version}})
                    .to_string(),
                "application/json",
            )
        }
        _ => {
            let version =
                json!({"name": "pantry", "version": "1.0.0", "urls": [link], "digest": digest});
            (
                "index.yaml",
                json!({"apiVersion": "v1", "entries": {"pantry": [version]}}).to_string(),
                "text/yaml",
            )
        }
    };
    origin.put(
        &format!("/root/{at}"),
        Resource::new(document).content_type(content_type),
    );
    at
}

/// `base_url` with a path, as links may climb out of it.
fn below_root(package: &str, origin: &Origin, keys: &str) -> String {
    remote(package, origin, keys).replace(&origin.url("/"), &origin.url("/root/"))
}

/// Spellings of one and the same file, with the request target that a client sends for it without larder (WHATWG URL).
fn spellings(origin: &Origin) -> Vec<(String, &'static str)> {
    let root = origin.url("/root");
    vec![
        (
            format!("{root}/a/pantry-1.0.tar.gz"),
            "/root/a/pantry-1.0.tar.gz",
        ),
        (
            format!("{root}/a b/pantry-1.0.tar.gz"),
            "/root/a%20b/pantry-1.0.tar.gz",
        ),
        (
            format!("{root}//a//pantry-1.0.tar.gz"),
            "/root//a//pantry-1.0.tar.gz",
        ),
        (
            format!("{root}/x/../a/./pantry-1.0.tar.gz"),
            "/root/a/pantry-1.0.tar.gz",
        ),
        (
            format!("{root}/../elsewhere/pantry-1.0.tar.gz"),
            "/elsewhere/pantry-1.0.tar.gz",
        ),
        (
            format!("{root}/a%2Fb/pantry-1.0.tar.gz"),
            "/root/a%2Fb/pantry-1.0.tar.gz",
        ),
        (
            format!("{root}\\a\\pantry-1.0.tar.gz"),
            "/root/a/pantry-1.0.tar.gz",
        ),
        (
            format!("{}/a/pan\ttry-1.0\n.tar.gz", root.replace("http:", "HTTP:")),
            "/root/a/pantry-1.0.tar.gz",
        ),
        (
            "//ORIGIN/root/a/pantry-1.0.tar.gz".replace("ORIGIN", &origin.address().to_string()),
            "/root/a/pantry-1.0.tar.gz",
        ),
        (
            format!("{root}/a/pantry-1.0.tar.gz#egg=pantry"),
            "/root/a/pantry-1.0.tar.gz",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_x8_every_spelling_of_a_link_leads_to_its_file_and_its_digest_is_enforced_there() {
    for package in ["pypi", "npm", "helm"] {
        let origin = Origin::start().await;
        let larder = TestLarder::start(&below_root(package, &origin, ALWAYS)).await;
        for (link, target) in spellings(&origin) {
            let case = format!("{package} {link:?}");
            // Nothing at the places of the others: a guess that finds the right bytes is right, too.
            for (_, other) in spellings(&origin) {
                origin.remove(other);
            }
            let at = put_index(&origin, package, &link, FILE);
            let accept = [("accept", "application/vnd.pypi.simple.v1+json, */*;q=0.1")];
            for (body, status) in [("not what the index states", 502), (FILE, 200)] {
                origin.put(target, Resource::new(body));
                assert_eq!(
                    send("PUT", &larder.url("/cache/flush"), &[]).await.status,
                    200
                );
                let index = send("GET", &larder.artifact(package, at), &accept)
                    .await
                    .text();
                let [path] = links_back(&larder, package, &index)
                    .try_into()
                    .unwrap_or_else(|_| panic!("{case}: {index}"));
                origin.reset_log();
                let answer = get(&larder.artifact(package, &path)).await;
                assert_eq!(answer.status, status, "{case} by {path}: {}", answer.text());
                assert!(
                    status == 502 || answer.text() == FILE,
                    "{case} by {path}: {}",
                    answer.text()
                );
                assert!(
                    origin.count("GET", target) >= 1,
                    "{case} by {path}: {:?}",
                    origin.requests()
                );
            }
        }
    }
}

/// A relative link that stayed would be resolved against larder, where it is a path of another repository.
#[tokio::test(flavor = "multi_thread")]
async fn hazard_x8_what_is_not_carried_is_never_relative_and_is_told_once() {
    for (package, absolute) in [("helm", true), ("npm", true), ("pypi", false)] {
        let origin = Origin::start().await;
        let larder = TestLarder::start(&below_root(package, &origin, ALWAYS)).await;
        let at = put_index(
            &origin,
            package,
            "//user:c4n4ry@10.1.2.3/pantry-1.0.tar.gz",
            FILE,
        );
        for _ in 0..2 {
            // Other bytes, so that the form is made anew.
            let index = get(&larder.artifact(package, at)).await.text();
            assert_eq!(
                index.contains("http://user:c4n4ry@10.1.2.3/pantry-1.0.tar.gz"),
                absolute,
                "{package}: {index}"
            );
            assert!(!index.contains("\"//user"), "{package}: {index}");
            put_index(
                &origin,
                package,
                "//user:c4n4ry@10.1.2.3/pantry-1.0.tar.gz",
                "other",
            );
        }
        larder.logged("links of this index are not carried").await;
        let told = larder
            .log()
            .matches("links of this index are not carried")
            .count();
        assert_eq!(told, 1, "{package}: {}", larder.log());
        assert!(
            larder.log().contains("http://10.1.2.3") && !larder.log().contains("c4n4ry"),
            "{}",
            larder.log()
        );
        let counted = larder
            .metric(
                "larder_repository_links_not_carried_total",
                &format!("repository=\"{package}\""),
            )
            .await;
        assert!(counted >= 2.0, "{package}: {counted}");
    }
}

/// Helm 3 and 4 ask below the repository that they are configured with; pip and uv below the page that they were led to.
#[tokio::test(flavor = "multi_thread")]
async fn relative_links_behind_a_redirect_lead_from_where_the_client_takes_them() {
    for (package, at, link, target) in [
        (
            "helm",
            "/root/index.yaml",
            "../other/pantry-1.0.tar.gz",
            "/other/pantry-1.0.tar.gz",
        ),
        (
            "helm",
            "/root/index.yaml",
            "pantry-1.0.tar.gz",
            "/root/pantry-1.0.tar.gz",
        ),
        (
            "pypi",
            "/root/simple/pantry/",
            "../pantry-1.0.tar.gz",
            "/root/deep/pantry-1.0.tar.gz",
        ),
    ] {
        let origin = Origin::start().await;
        let larder = TestLarder::start(&below_root(package, &origin, ALWAYS)).await;
        let path = put_index(&origin, package, link, FILE);
        let digest = sha256(FILE.as_bytes()).to_hex();
        let moved = "/root/deep/place/index";
        let document = match package {
            "helm" => {
                json!({"apiVersion": "v1", "entries": {"pantry": [{"name": "pantry", "version": "1.0.0", "urls": [link], "digest": digest}]}})
            }
            _ => json!({"meta": {"api-version": "1.0"}, "name": "pantry",
                "files": [{"filename": "pantry-1.0.tar.gz", "url": link, "hashes": {"sha256": digest}}]}),
        };
        let content_type = if package == "pypi" {
            SIMPLE_JSON
        } else {
            "text/yaml"
        };
        origin.put(
            moved,
            Resource::new(document.to_string()).content_type(content_type),
        );
        origin.behave(
            at,
            Behaviour::Redirect {
                status: 302,
                location: moved.to_owned(),
            },
        );
        origin.put(target, Resource::new(FILE));
        let index = get(&larder.artifact(package, path)).await.text();
        let links = links_back(&larder, package, &index);
        assert_eq!(
            get(&larder.artifact(package, &links[0])).await.text(),
            FILE,
            "{package} {link}: {index}"
        );
        assert_eq!(
            origin.count("GET", target),
            1,
            "{package}: {:?}",
            origin.requests()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_digests_that_an_index_states_of_a_file_any_will_do() {
    let origin = Origin::start().await;
    let larder = TestLarder::start(&one_of_three(&origin, ALWAYS)).await;
    let (right, wrong) = (
        sha256(FILE.as_bytes()).to_hex(),
        sha256(b"of an earlier file").to_hex(),
    );
    let version = |digest: &str| json!({"name": "pantry", "version": "1.0.0", "urls": ["pantry-1.0.0.tgz"], "digest": digest});
    for digests in [[&wrong, &right], [&right, &wrong]] {
        let index = json!({"apiVersion": "v1", "entries": {"pantry": digests.map(|digest| version(digest))}});
        origin.put(
            "/index.yaml",
            Resource::new(index.to_string()).content_type("text/yaml"),
        );
        let anchors = digests
            .map(|digest| {
                format!("<a href=\"/pantry-1.0.tar.gz#sha256={digest}\">pantry-1.0.tar.gz</a>")
            })
            .concat();
        origin.put(
            "/simple/pantry/",
            Resource::new(format!("<title>Links for pantry</title>{anchors}"))
                .content_type("text/html"),
        );
        for (package, path, at) in [
            ("helm", "index.yaml", "pantry-1.0.0.tgz"),
            ("pypi", "simple/pantry/", "pantry-1.0.tar.gz"),
        ] {
            assert_eq!(
                send("PUT", &larder.url("/cache/flush"), &[]).await.status,
                200
            );
            assert_eq!(get(&larder.artifact(package, path)).await.status, 200);
            origin.put(&format!("/{at}"), Resource::new("neither"));
            assert_eq!(
                get(&larder.artifact(package, at)).await.status,
                502,
                "{package}"
            );
            origin.put(&format!("/{at}"), Resource::new(FILE));
            let answer = get(&larder.artifact(package, at)).await;
            assert_eq!(
                (answer.status, answer.text().as_str()),
                (200, FILE),
                "{package}"
            );
        }
    }
}

fn one_of_three(origin: &Origin, keys: &str) -> String {
    let entries = ["pypi", "npm", "helm"]
        .map(|package| entry(package, package, origin, keys))
        .concat();
    format!("remotes:\n{entries}")
}

#[tokio::test(flavor = "multi_thread")]
async fn with_verify_warn_a_file_that_contradicts_its_index_is_kept_served_counted_and_logged() {
    for package in ["pypi", "npm", "helm"] {
        for (verify, status) in [("enforce", 502), ("warn", 200)] {
            let origin = Origin::start().await;
            let larder = TestLarder::start(&below_root(
                package,
                &origin,
                &format!("verify: {verify}\nnegative_ttl: 0"),
            ))
            .await;
            let link = origin.url(if package == "npm" {
                "/root/pantry/-/pantry-1.0.0.tgz"
            } else {
                "/root/pantry-1.0.tar.gz"
            });
            let at = put_index(&origin, package, &link, "what the index states");
            let target = link.strip_prefix(&origin.url("/")).expect("of the origin");
            origin.put(&format!("/{target}"), Resource::new(FILE));
            assert_eq!(get(&larder.artifact(package, at)).await.status, 200);
            let url = larder.artifact(
                package,
                target.strip_prefix("root/").expect("below the root"),
            );
            let answer = get(&url).await;
            assert_eq!(
                answer.status,
                status,
                "{package} {verify}: {}",
                answer.text()
            );
            let label = format!("repository=\"{package}\"");
            let kept = larder
                .metric("larder_repository_mismatches_kept_total", &label)
                .await;
            let refused = larder
                .metric("larder_repository_digest_mismatches_total", &label)
                .await;
            assert_eq!(
                (kept, refused >= 1.0),
                if status == 200 {
                    (1.0, false)
                } else {
                    (0.0, true)
                },
                "{package} {verify}"
            );
            if status == 200 {
                assert_eq!(answer.text(), FILE, "{package}");
                larder.logged("verify: warn").await;
                let again = larder.hit(&url).await;
                assert_eq!(
                    (again.status, again.text().as_str()),
                    (200, FILE),
                    "{package}"
                );
                assert_eq!(
                    origin.count("GET", &format!("/{target}")),
                    1,
                    "{package}: it is kept"
                );
            }
        }
    }
}

/// Mirrors that know only HTML: what pip gets from them without larder is the page.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_refuses_who_mentions_json_is_asked_for_html_and_then_at_once() {
    for status in [404, 406] {
        let origin = Origin::start().await;
        let larder = TestLarder::start(&remote("pypi", &origin, ALWAYS)).await;
        origin.behave(
            "*",
            Behaviour::RefuseType {
                mentions: "json".to_owned(),
                status,
            },
        );
        for project in ["one", "two"] {
            let page = format!(
                "<title>Links for {project}</title><a href=\"/{project}-1.0.tar.gz\">{project}-1.0.tar.gz</a>"
            );
            origin.put(
                &format!("/simple/{project}/"),
                Resource::new(page).content_type("text/html"),
            );
        }
        for (project, requests) in [("one", 2), ("two", 1), ("absent", 1)] {
            let answer = get(&larder.artifact("pypi", &format!("simple/{project}/"))).await;
            assert_eq!(
                answer.status,
                if project == "absent" { 404 } else { 200 },
                "{status} {project}: {}",
                answer.text()
            );
            assert_eq!(
                origin.count("GET", &format!("/simple/{project}/")),
                requests,
                "{status} {project}"
            );
        }
    }
    // Where JSON has been answered, what is missing is missing.
    let origin = Origin::start().await;
    let larder = TestLarder::start(&remote("pypi", &origin, ALWAYS)).await;
    put_index(&origin, "pypi", "/pantry-1.0.tar.gz", FILE);
    let page = json!({"meta": {"api-version": "1.0"}, "name": "pantry", "files": []});
    origin.put(
        "/simple/pantry/",
        Resource::new(page.to_string()).content_type(SIMPLE_JSON),
    );
    assert_eq!(
        get(&larder.artifact("pypi", "simple/pantry/")).await.status,
        200
    );
    assert_eq!(
        get(&larder.artifact("pypi", "simple/absent/")).await.status,
        404
    );
    assert_eq!(origin.count("GET", "/simple/absent/"), 1);
}

/// As the public registry answers; pnpm tries again for 45 s after a 502.
#[tokio::test(flavor = "multi_thread")]
async fn an_unpublished_package_is_200_as_it_came_and_the_package_named_dash_is_one_like_any_other()
{
    let origin = Origin::start().await;
    let larder = TestLarder::start(&remote("npm", &origin, "negative_ttl: 0")).await;
    let abbreviated = "application/vnd.npm.install-v1+json";
    let gone = r#"{"name":"gone","modified":"2020-01-01T00:00:00.000Z"}"#;
    origin.put("/gone", Resource::new(gone).content_type(abbreviated));
    let answer = send(
        "GET",
        &larder.artifact("npm", "gone"),
        &[("accept", abbreviated)],
    )
    .await;
    assert_eq!((answer.status, answer.text().as_str()), (200, gone));
    let dash = json!({"name": "-", "dist-tags": {"latest": "0.0.1"}, "versions": {"0.0.1": {"name": "-", "version": "0.0.1",
        "dist": {"tarball": origin.url("/-/-/--0.0.1.tgz")}}}});
    origin.put(
        "/-",
        Resource::new(dash.to_string()).content_type(abbreviated),
    );
    origin.put("/-/-/--0.0.1.tgz", Resource::new(FILE));
    let answer = send(
        "GET",
        &larder.artifact("npm", "-"),
        &[("accept", abbreviated)],
    )
    .await;
    let tarball = answer.json()["versions"]["0.0.1"]["dist"]["tarball"].clone();
    assert_eq!(tarball, larder.artifact("npm", "-/-/--0.0.1.tgz"));
    assert_eq!(
        get(&larder.artifact("npm", "-/-/--0.0.1.tgz")).await.text(),
        FILE
    );
    assert_eq!(
        get(&larder.artifact("npm", "-/ping")).await.text(),
        "{}",
        "endpoints stay what they are"
    );
}

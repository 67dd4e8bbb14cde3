//! A slash behind a file's name opens no way around patterns and quarantine (docs/adr/0053): what an upstream gives at a folder's path
//! and is no listing is judged as the file that the path names without its slash.

use std::time::{Duration, SystemTime};

use larder_testkit::{Origin, Resource};

use crate::artifacts::{httpdate, now_seconds};
use crate::support::packages::{entry, remote};
use crate::support::{Answer, TestLarder, get, send};

const SECRET: &str = "what no rule lets out";

fn file(content_type: &str) -> Resource {
    let resource = Resource::new(SECRET);
    if content_type.is_empty() {
        resource
    } else {
        resource.content_type(content_type)
    }
}

fn refused(answer: &Answer, rule: &str, what: &str) {
    assert_eq!(
        (answer.status, answer.header("content-length").is_empty()),
        (403, false),
        "{what}: {}",
        answer.text()
    );
    assert!(!answer.text().contains(SECRET), "{what}");
    if !answer.body.is_empty() {
        let said = answer.json();
        assert_eq!(
            (&said["code"], &said["rule"]),
            (&"pattern_denied".into(), &rule.into()),
            "{what}: {said}"
        );
        assert!(
            said["error"]
                .as_str()
                .is_some_and(|error| error.contains("slash")),
            "{what}: {said}"
        );
    }
}

async fn holds_nothing(larder: &TestLarder) {
    larder.until_idle().await;
    let held = get(&larder.url("api/v1/artifacts")).await.json();
    assert_eq!(
        held["artifacts"].as_array().map(Vec::len),
        Some(0),
        "{held}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_a_file_behind_a_slash_is_refused_by_the_pattern_that_refuses_the_file() {
    let origin = Origin::start().await;
    let files = [
        ("secret.exe/", file("application/octet-stream")),
        ("untyped.exe/", file("")),
        ("script.sh/", file("text/plain; charset=utf-8")),
        (
            "saved/",
            file("text/html").header("Content-Disposition", "attachment; filename=\"secret.exe\""),
        ),
        ("page.html/", file("text/html")),
        ("a/package.json/", file("application/json")),
        ("", file("application/octet-stream")),
        // A slash may be followed by a redirect to the file.
        (
            "moved.exe/",
            Resource::new("moved")
                .status(302)
                .header("Location", "/secret.exe"),
        ),
    ];
    origin.put("/secret.exe", file("application/octet-stream"));
    for (path, resource) in &files {
        origin.put(&format!("/{path}"), resource.clone());
    }
    let patterns = [
        ("immutable_patterns", "\\.zip$"),
        ("allow_patterns", "/$"),
        ("deny_patterns", "(exe|sh|saved|html|json|^)$"),
    ];
    for (rule, pattern) in patterns {
        let larder = TestLarder::start(&remote(
            "generic",
            &origin,
            &format!("{rule}: ['{pattern}']"),
        ))
        .await;
        for (path, _) in files.iter().filter(|(path, _)| !path.is_empty()) {
            for method in ["GET", "HEAD", "GET"] {
                refused(
                    &send(method, &larder.artifact("generic", path), &[]).await,
                    rule,
                    &format!("{rule} {method} {path}"),
                );
            }
        }
        // At the root larder's own page stands in for what the rules keep in.
        let root = get(&larder.artifact("generic", "")).await;
        assert!(
            root.status == 200 && !root.text().contains(SECRET),
            "{rule}: {}",
            root.text()
        );
        holds_nothing(&larder).await;
    }
    // Where every path is admitted, such a file is one of them.
    let larder = TestLarder::start(&remote("generic", &origin, "")).await;
    for (path, _) in &files {
        assert_eq!(
            get(&larder.artifact("generic", path)).await.text(),
            SECRET,
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_is_let_in_whatever_the_patterns_of_files_say() {
    let origin = Origin::start().await;
    let larder = TestLarder::start(&remote(
        "generic",
        &origin,
        "immutable_patterns: ['\\.zip$', '^open/']",
    ))
    .await;
    for (path, resource) in [
        (
            "html/",
            Resource::new("listing").content_type("text/html;charset=UTF-8"),
        ),
        (
            "json/",
            Resource::new("listing").content_type("application/json"),
        ),
        (
            "xml/",
            Resource::new("listing")
                .content_type("application/xml")
                .header("Content-Disposition", "inline"),
        ),
        (
            "1.2.exe/",
            Resource::new("listing").content_type("text/xml"),
        ),
        // What the patterns admit without its slash may be text, too.
        (
            "open/notes/",
            Resource::new("listing").content_type("text/plain"),
        ),
        ("empty/", Resource::new("")),
    ] {
        origin.put(&format!("/{path}"), resource.clone());
        for method in ["HEAD", "GET"] {
            let answer = send(method, &larder.artifact("generic", path), &[]).await;
            assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_a_file_behind_a_slash_is_held_back_by_its_own_date() {
    let origin = Origin::start().await;
    let date = |days: u64| {
        httpdate(SystemTime::UNIX_EPOCH + Duration::from_secs(now_seconds() - days * 86_400))
    };
    let dated = |content_type: &str, days| file(content_type).last_modified(&date(days));
    origin.put("/tool-1.0.zip/", dated("application/zip", 0));
    origin.put("/install.sh/", dated("text/plain", 0));
    origin.put("/tool-0.9.zip/", dated("application/zip", 30));
    origin.put("/dir/", dated("text/html", 0));
    let larder = TestLarder::start(&remote(
        "generic",
        &origin,
        "quarantine_new: true\nquarantine_days: 3",
    ))
    .await;
    for path in ["tool-1.0.zip/", "install.sh/"] {
        for method in ["HEAD", "GET", "HEAD", "GET"] {
            let answer = send(method, &larder.artifact("generic", path), &[]).await;
            assert_eq!(
                (
                    answer.status,
                    answer.header("x-larder-quarantine").is_empty()
                ),
                (404, false),
                "{method} {path}"
            );
            assert!(!answer.text().contains(SECRET), "{method} {path}");
        }
    }
    for path in ["tool-0.9.zip/", "dir/"] {
        assert_eq!(
            get(&larder.artifact("generic", path)).await.text(),
            SECRET,
            "{path}"
        );
    }
    // A folder that has become a file: the listing's date is not the file's.
    let changing = TestLarder::start(&remote(
        "generic",
        &origin,
        "quarantine_new: true\nquarantine_days: 3\ncache: { mutable_ttl: 0 }",
    ))
    .await;
    origin.put("/changing/", dated("text/html", 30));
    assert_eq!(
        get(&changing.artifact("generic", "changing/")).await.status,
        200
    );
    origin.put(
        "/changing/",
        Resource::new("a new file")
            .content_type("application/zip")
            .last_modified(&date(0)),
    );
    for _ in 0..2 {
        let answer = get(&changing.artifact("generic", "changing/")).await;
        assert_eq!(
            (answer.status, answer.text().contains("a new file")),
            (404, false),
            "{}",
            answer.text()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_a_copy_kept_before_there_was_a_rule_is_judged_by_it() {
    let origin = Origin::start().await;
    let now = httpdate(SystemTime::UNIX_EPOCH + Duration::from_secs(now_seconds()));
    origin.put(
        "/secret.exe/",
        file("application/octet-stream").last_modified(&now),
    );
    let config = |keys: &str| remote("generic", &origin, keys);
    let mut larder = TestLarder::start(&config("")).await;
    let path = "secret.exe/";
    assert_eq!(get(&larder.artifact("generic", path)).await.text(), SECRET);
    larder.hit(&larder.artifact("generic", path)).await;
    let rules = [
        ("immutable_patterns: ['\\.zip$']", 403),
        ("deny_patterns: ['\\.exe$']", 403),
        ("quarantine_new: true\nquarantine_days: 3", 404),
        ("", 200),
    ];
    for (keys, status) in rules {
        assert!(larder.terminate().success());
        larder.write_config(&config(keys));
        larder.restart().await;
        for method in ["GET", "HEAD", "GET"] {
            let answer = send(method, &larder.artifact("generic", path), &[]).await;
            assert_eq!(
                (answer.status, answer.text().contains(SECRET)),
                (status, status == 200 && method == "GET"),
                "{keys}"
            );
        }
    }
}

/// Every type that serves files under the upstream's own names; docker's and npm's paths do not end in a slash.
#[tokio::test(flavor = "multi_thread")]
async fn hazard_a_slash_opens_no_way_around_a_denied_file_of_any_type() {
    let origin = Origin::start().await;
    let types = [
        ("generic", "a.bin"),
        ("alpine", "v3/main/x86_64/a-1-r0.apk"),
        ("rpm", "Packages/a.rpm"),
        ("helm", "a-1.0.0.tgz"),
        ("pypi", "a-1.0-py3-none-any.whl"),
    ];
    let keys = "deny_patterns: ['\\.(bin|apk|rpm|tgz|whl)$']";
    let entries = types
        .map(|(package, _)| entry(package, package, &origin, keys))
        .concat();
    let larder = TestLarder::start(&format!("remotes:\n{entries}")).await;
    for (package, path) in types {
        origin.put(&format!("/{path}/"), file("application/octet-stream"));
        for (method, slash) in [
            ("GET", ""),
            ("GET", "/"),
            ("HEAD", "/"),
            ("GET", "//"),
            ("GET", "/."),
        ] {
            let url = larder.artifact(package, &format!("{path}{slash}"));
            let answer = send(method, &url, &[]).await;
            assert_eq!(
                (answer.status, answer.text().contains(SECRET)),
                (403, false),
                "{method} {url}: {}",
                answer.text()
            );
        }
    }
    holds_nothing(&larder).await;
}

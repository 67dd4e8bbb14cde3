//! Folders: what is directly in them, as JSON or HTML, a page at a time.

use crate::support::client::{raw, raw_status};
use crate::support::{Answer, TestLarder, get, send};
use crate::{delete, put, start};

async fn fill(larder: &TestLarder) {
    for path in [
        "a.txt",
        "dir/b.txt",
        "dir/sub/c.txt",
        "dir/sub/d.txt",
        "zé %25.txt",
        "x:y/<b>",
    ] {
        let answer = put(
            &larder.artifact("files", &path.replace(' ', "%20")),
            path.to_owned(),
            &[],
        )
        .await;
        assert_eq!(answer.status, 201, "{path}: {}", answer.text());
    }
}

fn names(answer: &Answer, kind: &str) -> Vec<String> {
    let json = answer.json();
    let list = json[kind].as_array().expect("a list").iter();
    list.map(|item| {
        item["name"]
            .as_str()
            .or(item.as_str())
            .expect("a name")
            .to_owned()
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_lists_what_is_directly_in_it() {
    let larder = start().await;
    let root = get(&larder.artifact("files", "")).await;
    assert_eq!(
        (root.status, names(&root, "files").len()),
        (200, 0),
        "the root is always there"
    );
    fill(&larder).await;
    let root = get(&larder.artifact("files", "")).await;
    assert_eq!(root.header("content-type"), "application/json");
    assert_eq!(
        (root.header("cache-control"), root.header("vary")),
        ("no-cache", "Accept")
    );
    assert_eq!(names(&root, "folders"), ["dir", "x:y"]);
    assert_eq!(names(&root, "files"), ["a.txt", "zé %.txt"]);
    let folder = get(&larder.artifact("files", "dir/")).await;
    let json = folder.json();
    assert_eq!(
        (json["repository"].as_str(), json["path"].as_str()),
        (Some("files"), Some("dir/"))
    );
    assert_eq!(names(&folder, "folders"), ["sub"]);
    let file = &json["files"][0];
    assert_eq!(
        (file["name"].as_str(), file["size"].as_u64()),
        (Some("b.txt"), Some(9))
    );
    assert_eq!(file["sha256"].as_str().map(str::len), Some(64));
    // What is told at once is true at once, and unchanged otherwise.
    let tag = folder.header("etag").to_owned();
    assert_eq!(
        send(
            "GET",
            &larder.artifact("files", "dir/"),
            &[("If-None-Match", &tag)]
        )
        .await
        .status,
        304
    );
    delete(&larder.artifact("files", "dir/b.txt")).await;
    let folder = get(&larder.artifact("files", "dir/")).await;
    assert_eq!(names(&folder, "files"), Vec::<String>::new());
    assert_ne!(folder.header("etag"), tag);
    for path in ["dir/sub/c.txt", "dir/sub/d.txt"] {
        delete(&larder.artifact("files", path)).await;
    }
    assert_eq!(get(&larder.artifact("files", "dir/")).await.status, 404);
    // Without its slash a folder is no file: clients that look whether one is there must not be told yes.
    assert_eq!(get(&larder.artifact("files", "x:y")).await.status, 404);
    assert_eq!(
        send("HEAD", &larder.artifact("files", "x:y/"), &[])
            .await
            .status,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_get_html_with_links_that_work() {
    let larder = start().await;
    fill(&larder).await;
    let browser = [("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")];
    let root = send("GET", &larder.artifact("files", ""), &browser).await;
    assert_eq!(
        (root.status, root.header("content-type")),
        (200, "text/html; charset=utf-8")
    );
    let base = url::Url::parse(&larder.artifact("files", "")).expect("a URL");
    let links: Vec<String> = root
        .text()
        .split("href=\"")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once('"')?.0.replace("&amp;", "&")))
        .collect();
    assert_eq!(links.len(), 4, "{links:?}");
    for link in &links {
        let target = base.join(link).expect("a link");
        assert_eq!(get(target.as_str()).await.status, 200, "{link}");
    }
    let inner = send("GET", &larder.artifact("files", "x:y/"), &browser)
        .await
        .text();
    assert!(
        inner.contains("&lt;b&gt;") && !inner.contains("<b>"),
        "hazard S15: {inner}"
    );
    let bare = send("GET", &larder.url("api/v1/remote/files"), &[]).await;
    assert_eq!((bare.status, bare.header("location")), (301, "files/"));
    // Links are relative to these, too (RFC 3986 section 5.2.4).
    for dots in ["/.", "/./.", "//.", "/./", "/"] {
        let head = format!(
            "GET /api/v1/remote/files{dots} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        );
        let answer = raw(larder.address(), head.as_bytes()).await;
        assert_eq!(raw_status(&answer), 200, "{dots}: {answer}");
        assert!(answer.contains("a.txt"), "{dots}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn long_folders_come_in_pages() {
    let larder = start().await;
    for number in 0..7 {
        put(
            &larder.artifact("files", &format!("many/f{number}")),
            "x",
            &[],
        )
        .await;
        put(
            &larder.artifact("files", &format!("many/d{number}/f")),
            "x",
            &[],
        )
        .await;
    }
    let (mut all, mut query) = (Vec::new(), "?limit=3".to_owned());
    loop {
        let page = get(&larder.artifact("files", &format!("many/{query}"))).await;
        all.extend(names(&page, "folders"));
        all.extend(names(&page, "files"));
        let json = page.json();
        let Some(next) = json["next"].as_str() else {
            break;
        };
        let next: String = url::form_urlencoded::byte_serialize(next.as_bytes()).collect();
        query = format!("?limit=3&cursor={next}");
    }
    let expected: Vec<String> = ["d", "f"]
        .iter()
        .flat_map(|kind| (0..7).map(move |number| format!("{kind}{number}")))
        .collect();
    assert_eq!(all, expected);
    for (path, status) in [
        ("many/?limit=0", 400),
        ("many/?cursor=f9", 200),
        ("?cursor=z", 200),
        ("nope/?cursor=x", 404),
        ("nope/", 404),
    ] {
        let answer = get(&larder.artifact("files", path)).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        if status == 404 {
            assert!(
                answer.text().contains("no folder nope/"),
                "{}",
                answer.text()
            );
        }
    }
}

/// What may be neither read nor deleted is not listed, and takes no room on a page.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_rules_keep_in_is_not_listed() {
    let mut larder = start().await;
    for path in ["a.exe", "b.exe", "c", "d.exe", "e", "f", "hidden/x.exe"] {
        let url = larder.artifact("files", &format!("dir/{path}"));
        assert_eq!(put(&url, "x", &[]).await.status, 201, "{path}");
    }
    larder.terminate();
    larder.write_config("remotes:\n  files: { type: local, deny_patterns: ['\\.exe$'] }\n");
    larder.restart().await;
    let dir = larder.artifact("files", "dir/");
    let all = get(&dir).await;
    assert_eq!(names(&all, "files"), ["c", "e", "f"]);
    assert!(all.json()["next"].is_null());
    for file in ["a.exe", "c"] {
        let status = get(&format!("{dir}{file}")).await.status;
        assert_eq!(status, if file == "c" { 200 } else { 403 });
    }
    let page = get(&format!("{dir}?limit=2")).await;
    assert_eq!(names(&page, "files"), ["c", "e"]);
    let json = page.json();
    let next = json["next"].as_str().expect("a next page");
    let rest = get(&format!("{dir}?limit=2&cursor={next}")).await;
    assert_eq!(names(&rest, "files"), ["f"]);
    let emptied = get(&larder.artifact("files", "dir/hidden/")).await;
    assert_eq!((emptied.status, names(&emptied, "files").len()), (200, 0));
}

//! Folders, searches and single paths.

use super::*;

const PATHS: [&str; 7] = [
    "a/b/deep/one.txt",
    "a/b/two-1.2.3.txt",
    "a/b-c.txt",
    "a/b0.txt",
    "a/z.txt",
    "big/11.2.3.txt",
    "top.txt",
];

/// Bytes of a page.
const MOST_BYTES: usize = 150_000;

async fn with_files() -> (Origin, TestLarder) {
    let origin = Origin::start().await;
    let config = format!(
        "auth: {{ admin_token: {TOKEN} }}\nremotes:\n  \
         files: {{ package: generic, base_url: '{}', immutable_patterns: ['.*'] }}\n  \
         other: {{ package: generic, base_url: '{}', immutable_patterns: ['.*'] }}\n  \
         uploads: {{ package: generic, type: local }}\n",
        origin.url("/"),
        origin.url("/")
    );
    let larder = TestLarder::start(&config).await;
    for path in PATHS {
        origin.put(
            &format!("/{path}"),
            Resource::new(format!("bytes of {path}")).etag("\"e\""),
        );
        fetch(&larder, "files", path).await;
    }
    (origin, larder)
}

/// What the pages of a folder have in all: a page may be short where the machine is busy.
async fn walked(larder: &TestLarder, folder: &str) -> (Vec<String>, Vec<String>) {
    let (mut folders, mut files) = (Vec::new(), Vec::new());
    let mut after = String::new();
    loop {
        let address = format!("ui/repositories/files/browse/{folder}?after={after}");
        let shown = json(larder, &address).await;
        let list = shown["folders"].as_array().expect("a list").iter();
        folders.extend(list.map(|name| name.as_str().expect("a name").to_owned()));
        let names = each(&shown["files"], "name").into_iter();
        files.extend(names.map(str::to_owned));
        match shown["next"].as_str() {
            Some(next) => next.clone_into(&mut after),
            None => return (folders, files),
        }
    }
}

#[tokio::test]
async fn one_level_has_what_is_directly_in_it() {
    let (origin, larder) = with_files().await;
    let text = |list: &[&str]| {
        list.iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        walked(&larder, "").await,
        (text(&["a", "big"]), text(&["top.txt"]))
    );
    assert_eq!(
        walked(&larder, "a/").await,
        (text(&["b"]), text(&["b-c.txt", "b0.txt", "z.txt"]))
    );
    assert_eq!(
        walked(&larder, "a/b/").await,
        (text(&["deep"]), text(&["two-1.2.3.txt"]))
    );
    let missing = page(&larder, "ui/repositories/files/browse/nowhere/").await;
    assert_eq!(missing.status, 404, "{}", missing.text());
    let asked = origin.requests().len();
    page(&larder, "ui/repositories/files/artifact/not/held.txt").await;
    assert_eq!(origin.requests().len(), asked, "looking asks no upstream");
    // A folder's address ends in a slash.
    let bare = support::client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .expect("a client");
    let answer = bare.get(larder.url("ui/repositories/files/browse/a"));
    assert_eq!(answer.send().await.expect("an answer").status(), 303);
}

#[tokio::test]
async fn a_long_folder_has_pages_that_miss_nothing_and_repeat_nothing() {
    let (origin, larder) = with_files().await;
    let names: Vec<String> = (0..130).map(|number| format!("{number:03}")).collect();
    let path = |(number, name): (usize, &String)| match number % 2 {
        0 => format!("many/{name}/x"),
        _ => format!("many/{name}"),
    };
    let paths: Vec<String> = names.iter().enumerate().map(path).collect();
    for path in &paths {
        origin.put(&format!("/{path}"), Resource::new("x"));
        assert_eq!(get(&larder.artifact("files", path)).await.status, 200);
    }
    for path in &paths {
        shown(&larder, "files", path).await;
    }
    let first = json(&larder, "ui/repositories/files/browse/many/").await;
    assert!(first["next"].is_string(), "a hundred are one page");
    let (folders, files) = walked(&larder, "many/").await;
    let mut seen = [folders, files].concat();
    seen.sort_unstable();
    assert_eq!(seen, names);
}

#[tokio::test]
async fn a_search_finds_names_versions_prefixes_and_digests() {
    let (_origin, larder) = with_files().await;
    let put = support::client::client()
        .put(larder.artifact("uploads", "mine.txt"))
        .header("authorization", format!("Bearer {TOKEN}"))
        .body("bytes of top.txt");
    assert_eq!(put.send().await.expect("an answer").status(), 201);
    let search = async |query: &str| {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let shown = json(&larder, &format!("ui/search?{query}&cursor={cursor}")).await;
            let paths = each(&shown["hits"], "path").into_iter();
            found.extend(paths.map(str::to_owned));
            match shown["next"].as_str() {
                Some(next) => next.clone_into(&mut cursor),
                None => return found,
            }
        }
    };
    assert_eq!(search("q=TWO").await, ["a/b/two-1.2.3.txt"]);
    assert_eq!(search("q=1.2.3&kind=version").await, ["a/b/two-1.2.3.txt"]);
    assert_eq!(search("q=b/&kind=prefix").await, [""; 0]);
    assert_eq!(
        search("q=a/b&kind=prefix").await,
        [
            "a/b-c.txt",
            "a/b/deep/one.txt",
            "a/b/two-1.2.3.txt",
            "a/b0.txt"
        ]
    );
    // printf 'bytes of top.txt' | sha256sum
    let digest = larder_core::sha256(b"bytes of top.txt").to_hex();
    assert_eq!(
        search(&format!("q={}&kind=digest", &digest[..8])).await,
        ["top.txt", "mine.txt"]
    );
    assert_eq!(
        search(&format!("q=sha256:{digest}")).await,
        ["top.txt", "mine.txt"]
    );
    assert_eq!(
        search(&format!("q={digest}&repository=uploads")).await,
        ["mine.txt"]
    );
    assert_eq!(search("q=.txt&repository=other").await, [""; 0]);
    assert_eq!(
        page(&larder, "ui/search?q=a&repository=none").await.status,
        404
    );
    assert_eq!(page(&larder, "ui/search?q=a&cursor=zz").await.status, 400);
}

#[tokio::test]
async fn a_path_s_page_says_where_its_bytes_are_from_and_who_else_has_them() {
    let (origin, larder) = with_files().await;
    origin.put("/twin.txt", Resource::new("bytes of top.txt"));
    fetch(&larder, "other", "twin.txt").await;
    let shown = json(&larder, "ui/repositories/files/artifact/top.txt").await;
    let copy = &shown["copies"][0];
    assert_eq!(copy["size"], 16);
    assert_eq!(copy["etag"], "\"e\"");
    assert_eq!(
        copy["sha256"],
        larder_core::sha256(b"bytes of top.txt").to_hex()
    );
    let host = format!("{}", origin.address());
    assert_eq!(copy["host"], host.as_str());
    assert_eq!(each(&shown["same_bytes"], "path"), ["twin.txt"]);
    assert_eq!(each(&shown["same_bytes"], "repository"), ["other"]);
    // A query may be a secret: it is neither shown nor part of an address.
    let secret = larder.artifact("files", "top.txt?token=s3cr3t");
    get(&secret).await;
    let text = page(&larder, "ui/repositories/files/browse/").await.text();
    assert!(!text.contains("s3cr3t"), "{text}");
    let missing = page(&larder, "ui/repositories/files/artifact/nothing").await;
    assert_eq!(missing.status, 404);
}

#[tokio::test]
async fn dropping_a_path_needs_a_session_and_its_token() {
    let (_origin, larder) = with_files().await;
    let post = async |cookie: &str, csrf: &str| {
        let request = support::client::client()
            .post(larder.url("ui/repositories/files/artifact/top.txt"))
            .header("content-type", "application/x-www-form-urlencoded")
            .header("cookie", cookie)
            .body(format!("action=drop&csrf={csrf}"));
        request.send().await.expect("an answer")
    };
    assert_eq!(post("", "").await.status(), 401);
    let login = support::client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .expect("a client")
        .post(larder.url("ui/login"))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(format!("token={TOKEN}"));
    let login = login.send().await.expect("an answer");
    let cookie = login.headers()["set-cookie"].to_str().expect("text");
    let cookie = cookie.split(';').next().expect("a pair");
    let headers = [("accept", "text/html"), ("cookie", cookie)];
    let address = larder.url("ui/repositories/files/artifact/top.txt");
    let form = send("GET", &address, &headers).await.text();
    let csrf = form.split("name=\"csrf\" value=\"").nth(1);
    let csrf = csrf
        .and_then(|rest| rest.split('"').next())
        .expect("a token");
    assert_eq!(post(cookie, "wrong").await.status(), 403);
    assert_eq!(
        page(&larder, "ui/repositories/files/artifact/top.txt")
            .await
            .status,
        200
    );
    assert_eq!(post(cookie, csrf).await.status(), 303, "to its folder");
    assert_eq!(
        page(&larder, "ui/repositories/files/artifact/top.txt")
            .await
            .status,
        404
    );
    assert_eq!(
        page(&larder, "ui/repositories/files/artifact/a/z.txt")
            .await
            .status,
        200
    );
}

/// All that a search finds, and how many pages that was.
async fn searched(larder: &TestLarder, query: &str) -> (Vec<(String, String)>, usize) {
    let (mut found, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let address = format!("ui/search?{query}&cursor={cursor}");
        let shown = json(larder, &address).await;
        let long = page(larder, &address).await;
        assert!(long.body.len() <= MOST_BYTES, "{} bytes", long.body.len());
        pages += 1;
        for hit in shown["hits"].as_array().expect("a list") {
            let text = |name: &str| hit[name].as_str().expect("a text").to_owned();
            found.push((text("repository"), text("path")));
        }
        match shown["next"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return (found, pages),
        }
    }
}

/// Whoever else has the same bytes, a search finds what one repository has of them, and by the page all of it.
#[tokio::test]
async fn a_search_for_a_digest_finds_all_and_what_one_repository_has() {
    let (origin, larder) = with_files().await;
    let digest = larder_core::sha256(b"the same").to_hex();
    let names: Vec<String> = (0..105).map(|number| format!("same/{number:03}")).collect();
    let client = support::client::client();
    for name in &names {
        origin.put(&format!("/{name}"), Resource::new("the same"));
        assert_eq!(get(&larder.artifact("files", name)).await.status, 200);
        let put = client
            .put(larder.artifact("uploads", name))
            .header("authorization", format!("Bearer {TOKEN}"))
            .body("the same");
        assert_eq!(put.send().await.expect("an answer").status(), 201);
    }
    fetch(&larder, "other", &names[0]).await;
    larder.until_idle().await;
    let of = |repository: &str, names: &[String]| {
        names
            .iter()
            .map(|name| (repository.to_owned(), name.clone()))
            .collect::<Vec<_>>()
    };
    let all = [
        of("files", &names),
        of("other", &names[..1]),
        of("uploads", &names),
    ]
    .concat();
    for query in [
        format!("q={digest}&kind=digest"),
        format!("q={}&kind=digest", &digest[..8]),
        format!("q={digest}"),
    ] {
        let (mut found, pages) = searched(&larder, &query).await;
        assert!(pages >= 3, "{query}: {pages} pages");
        found.sort_unstable();
        assert_eq!(found, all, "{query}");
        for (name, expected) in [
            ("files", &all[..105]),
            ("other", &all[105..106]),
            ("uploads", &all[106..]),
        ] {
            let (mut found, _) = searched(&larder, &format!("{query}&repository={name}")).await;
            found.sort_unstable();
            assert_eq!(found, expected, "{query} in {name}");
        }
    }
}

#[tokio::test]
async fn pages_of_deep_folders_and_long_names_stay_short() {
    let (_origin, larder) = with_files().await;
    let client = support::client::client();
    let put = async |path: &str| {
        let put = client
            .put(larder.artifact("uploads", path))
            .header("authorization", format!("Bearer {TOKEN}"))
            .body("deep");
        assert_eq!(put.send().await.expect("an answer").status(), 201, "{path}");
    };
    let deep = "a/".repeat(1_000);
    let mut names: Vec<String> = (0..30).map(|number| format!("f{number:02}")).collect();
    for name in &names {
        put(&format!("{deep}{name}")).await;
    }
    let short = async |address: &str| {
        let answer = page(&larder, address).await;
        let (status, length) = (answer.status, answer.body.len());
        assert!(
            status == 200 && length <= MOST_BYTES,
            "{status}, {length} bytes"
        );
        answer.text()
    };
    let folder = format!("ui/repositories/uploads/browse/{deep}");
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let address = format!("{folder}?after={after}");
        short(&address).await;
        let shown = json(&larder, &address).await;
        seen.extend(each(&shown["files"], "name").into_iter().map(str::to_owned));
        match shown["next"].as_str() {
            Some(next) => next.clone_into(&mut after),
            None => break,
        }
    }
    assert_eq!(seen, names, "in pages that repeat nothing");
    let text = short(&format!("ui/repositories/uploads/artifact/{deep}f00")).await;
    assert!(text.contains("The same bytes elsewhere"), "{text}");
    let above = "a/".repeat(20);
    let text = short(&format!("ui/repositories/uploads/browse/{above}")).await;
    assert!(text.contains("<a href=\"../\"><bdi>a</bdi></a>"), "{text}");
    assert!(
        text.contains("<a href=\"./a/\"><bdi>a</bdi>/</a>"),
        "{text}"
    );

    names = (0..120)
        .map(|number| format!("long/{number:03}{}", "&".repeat(240)))
        .collect();
    for name in &names {
        let encoded: String = name.replace('&', "%26");
        put(&encoded).await;
    }
    short("ui/repositories/uploads/browse/long/").await;
    let (found, pages) = searched(&larder, "q=long/&repository=uploads").await;
    let paths: Vec<&String> = found.iter().map(|(_, path)| path).collect();
    assert_eq!(paths, names.iter().collect::<Vec<_>>());
    assert!(pages > 2, "{pages}");
}

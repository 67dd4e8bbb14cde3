//! Packages and images, by the indexes and manifests that are held.

use super::*;

async fn larder(origin: &Origin, package: &str, more: &str) -> TestLarder {
    let config = format!(
        "remotes:\n  all: {{ package: {package}, base_url: '{}'{more} }}\n",
        origin.url("/")
    );
    TestLarder::start(&config).await
}

#[tokio::test]
async fn a_package_has_its_versions_tags_and_deprecations() {
    let origin = Origin::start().await;
    let tarball = |version: &str| origin.url(&format!("/jam/-/jam-{version}.tgz"));
    let document = serde_json::json!({
        "name": "jam", "dist-tags": {"latest": "1.10.0"},
        "time": {"1.2.0": "2020-01-01T00:00:00.000Z"},
        "versions": {
            "1.2.0": {"name": "jam", "version": "1.2.0", "deprecated": "too sweet", "dist": {"tarball": tarball("1.2.0")}},
            "1.10.0": {"name": "jam", "version": "1.10.0", "dist": {"tarball": tarball("1.10.0")}},
        },
    });
    let document = Resource::new(document.to_string()).content_type("application/json");
    origin.put("/jam", document);
    origin.put("/jam/-/jam-1.2.0.tgz", Resource::new("a tarball"));
    let larder = larder(&origin, "npm", "").await;
    let address = "ui/repositories/all/package?name=jam";
    assert_eq!(
        page(&larder, address).await.status,
        404,
        "nobody has asked for it yet"
    );
    fetch(&larder, "all", "jam").await;
    fetch(&larder, "all", "jam/-/jam-1.2.0.tgz").await;
    let asked = origin.requests().len();
    let shown = json(&larder, address).await;
    assert_eq!(origin.requests().len(), asked, "looking asks no upstream");
    assert_eq!(each(&shown["files"], "version"), ["1.10.0", "1.2.0"]);
    assert_eq!(each(&shown["tags"], "version"), ["1.10.0"]);
    let old = &shown["files"][1];
    assert_eq!(old["deprecated"], "too sweet");
    assert_eq!(old["published_at"], "2020-01-01T00:00:00Z");
    assert!(old["cached_at"].is_string(), "{old}");
    assert_eq!(shown["files"][0]["cached_at"], Value::Null);
    let of = json(&larder, "ui/repositories/all/artifact/jam/-/jam-1.2.0.tgz").await;
    assert_eq!(of["package"]["name"], "jam");
    assert_eq!(each(&of["naming"], "path"), ["jam"]);
    let wrong = page(&larder, "ui/repositories/all/package?name=a%2Fb%2Fc").await;
    assert_eq!(wrong.status, 400);
    assert_eq!(
        page(&larder, "ui/repositories/all/package").await.status,
        400
    );
}

/// Whatever the registry calls its files: each version is held under the path that clients have it by.
#[tokio::test]
async fn tarballs_of_any_name_are_those_of_their_versions() {
    let origin = Origin::start().await;
    let version = |version: &str, path: &str| {
        origin.put(path, Resource::new(format!("tarball of {version}")));
        serde_json::json!({"name": "jam", "version": version, "dist": {"tarball": origin.url(path)}})
    };
    let document = serde_json::json!({
        "name": "jam", "dist-tags": {"latest": "1.2.0"},
        "versions": {
            "1.0.0": version("1.0.0", "/jam/1.0.0/package.tgz"),
            "1.1.0": version("1.1.0", "/jam/1.1.0/package.tgz"),
            "1.2.0": version("1.2.0", "/download/jam/1.2.0/0123abcd"),
            "1.3.0+b": version("1.3.0+b", "/jam/-/jam-1.3.0%2Bb.tgz"),
        },
    });
    let document = Resource::new(document.to_string()).content_type("application/json");
    origin.put("/jam", document);
    let larder = larder(&origin, "npm", "").await;
    fetch(&larder, "all", "jam").await;
    for version in ["1.0.0", "1.2.0", "1.3.0+b"] {
        fetch(&larder, "all", &format!("jam/-/jam-{version}.tgz")).await;
    }
    let shown = json(&larder, "ui/repositories/all/package?name=jam").await;
    let files = &shown["files"];
    assert_eq!(
        each(files, "version"),
        ["1.3.0+b", "1.2.0", "1.1.0", "1.0.0"]
    );
    let paths = ["1.3.0+b", "1.2.0", "1.1.0", "1.0.0"].map(|of| format!("jam/-/jam-{of}.tgz"));
    assert_eq!(each(files, "path"), paths);
    let held = [0, 1, 2, 3].map(|at| files[at]["cached_at"].is_string());
    assert_eq!(held, [true, true, false, true]);
}

#[tokio::test]
async fn charts_are_told_by_the_index_and_not_by_their_files_names() {
    let origin = Origin::start().await;
    let far = origin.url("/dl/app-3.0.0.tgz");
    let index = format!(
        "apiVersion: v1\nentries:\n  app:\n  - {{name: app, version: v1.2.3, urls: [app-1.2.3.tgz]}}\n  - {{name: app, version: 2.0.0+b, urls: [rel/v2/chart.tgz]}}\n  - {{name: app, version: 3.0.0, urls: ['{far}']}}\n  - {{name: app, version: 4.0.0, urls: ['oci://charts.example.com/app']}}\n  app-1more:\n  - {{name: app-1more, version: 1.0.0, urls: [app-1more-1.0.0.tgz]}}\n"
    );
    origin.put("/index.yaml", Resource::new(index));
    let files = ["app-1.2.3.tgz", "rel/v2/chart.tgz", "dl/app-3.0.0.tgz"];
    let larder = larder(&origin, "helm", "").await;
    fetch(&larder, "all", "index.yaml").await;
    for path in files {
        origin.put(&format!("/{path}"), Resource::new("a chart"));
        fetch(&larder, "all", path).await;
    }
    let shown = json(&larder, "ui/repositories/all/package?name=app").await;
    assert_eq!(
        each(&shown["files"], "version"),
        ["4.0.0", "3.0.0", "2.0.0+b", "v1.2.3"]
    );
    assert_eq!(
        each(&shown["files"], "path"),
        ["", files[2], files[1], files[0]]
    );
    let held = [0, 1, 2, 3].map(|at| shown["files"][at]["cached_at"].is_string());
    assert_eq!(held, [false, true, true, true]);
    let none = page(&larder, "ui/repositories/all/package?name=chart").await;
    assert_eq!(none.status, 404);
}

#[tokio::test]
async fn files_that_quarantine_holds_back_say_so() {
    let origin = Origin::start().await;
    let body = larder_core::sha256(b"a wheel").to_hex();
    let index = serde_json::json!({
        "meta": {"api-version": "1.1"}, "name": "jam", "versions": ["1.0", "2.0"],
        "files": [
            {"filename": "jam-1.0-py3-none-any.whl", "url": origin.url("/packages/jam-1.0-py3-none-any.whl"), "hashes": {"sha256": body},
             "size": 7, "upload-time": "2020-01-01T00:00:00Z", "yanked": "broken <on> purpose"},
            {"filename": "jam-2.0-py3-none-any.whl", "url": origin.url("/packages/jam-2.0-py3-none-any.whl"), "hashes": {"sha256": body},
             "size": 7, "upload-time": "2999-01-01T00:00:00Z", "yanked": false},
        ],
    });
    let index = Resource::new(index.to_string()).content_type(support::packages::SIMPLE_JSON);
    origin.put("/simple/jam/", index);
    let larder = larder(
        &origin,
        "pypi",
        ", quarantine_new: true, quarantine_days: 3",
    )
    .await;
    let address = larder.artifact("all", "simple/jam/");
    let headers = [("accept", support::packages::SIMPLE_JSON)];
    assert_eq!(send("GET", &address, &headers).await.status, 200);
    shown(&larder, "all", "simple/jam/").await;
    let shown = json(&larder, "ui/repositories/all/package?name=Jam").await;
    assert_eq!(each(&shown["files"], "version"), ["2.0", "1.0"]);
    let held: Vec<_> = shown["files"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|file| file["is_held_back"].as_bool())
        .collect();
    assert_eq!(held, [Some(true), Some(false)]);
    assert_eq!(shown["files"][1]["yanked"], "broken <on> purpose");
    let html = page(&larder, "ui/repositories/all/package?name=jam")
        .await
        .text();
    assert!(html.contains("broken &#60;on&#62; purpose"), "{html}");
}

#[tokio::test]
async fn an_image_has_platforms_layers_and_tags() {
    let origin = Origin::start().await;
    let put = |kind: &str, name: &str, media_type: &str, body: &str| {
        let digest = larder_core::sha256(body.as_bytes()).to_string();
        for name in [name, &digest].into_iter().filter(|name| !name.is_empty()) {
            let resource = Resource::new(body.to_owned()).content_type(media_type);
            let resource = resource.header("docker-content-digest", &digest);
            origin.put(&format!("/v2/app/{kind}/{name}"), resource);
        }
        digest
    };
    origin.put("/v2/", Resource::new("{}"));
    let binary = "application/octet-stream";
    let config = put(
        "blobs",
        "",
        binary,
        r#"{"os":"linux","architecture":"arm64","config":{"Cmd":["/bin/jam"]}}"#,
    );
    let layer = put("blobs", "", binary, "a layer");
    let image_type = "application/vnd.oci.image.manifest.v1+json";
    let image = put(
        "manifests",
        "",
        image_type,
        &format!(
            r#"{{"schemaVersion":2,"mediaType":"{image_type}","config":{{"mediaType":"c","digest":"{config}","size":5}},"layers":[{{"mediaType":"l","digest":"{layer}","size":7}}]}}"#
        ),
    );
    let index_type = "application/vnd.oci.image.index.v1+json";
    put(
        "manifests",
        "1.0",
        index_type,
        &format!(
            r#"{{"schemaVersion":2,"mediaType":"{index_type}","manifests":[{{"mediaType":"{image_type}","digest":"{image}","size":9,"platform":{{"os":"linux","architecture":"arm64"}}}}]}}"#
        ),
    );
    let larder = larder(&origin, "docker", "").await;
    let accept = format!("{index_type}, {image_type}");
    for path in [
        "manifests/1.0".to_owned(),
        format!("manifests/{image}"),
        format!("blobs/{config}"),
    ] {
        let address = larder.url(&format!("v2/all/app/{path}"));
        let answer = send("GET", &address, &[("accept", &*accept)]).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        super::shown(&larder, "all", &format!("app/{path}")).await;
    }
    let shown = json(&larder, "ui/repositories/all/image?name=app&reference=1.0").await;
    let references = each(&shown["references"], "reference");
    assert!(
        references.contains(&"1.0") && references.contains(&&*image),
        "{references:?}"
    );
    let manifest = &shown["manifest"];
    assert_eq!(manifest["is_index"], true);
    assert_eq!(each(&manifest["parts"], "platform"), ["linux/arm64"]);
    assert_eq!(manifest["parts"][0]["is_held"], true);
    let address = format!("ui/repositories/all/image?name=app&reference={image}");
    let manifest = json(&larder, &address).await["manifest"].take();
    assert_eq!(manifest["parts"][0]["digest"], layer.as_str());
    assert_eq!(
        manifest["parts"][0]["is_held"], false,
        "nobody has asked for the layer"
    );
    assert_eq!(manifest["command"], "/bin/jam");
    assert_eq!(manifest["config"]["is_held"], true);
    let of = json(
        &larder,
        &format!("ui/repositories/all/artifact/app/blobs/{config}"),
    )
    .await;
    let named_by = of["named_by"].as_array().expect("a list");
    assert!(
        named_by.contains(&Value::from(format!("app/manifests/{image}"))),
        "{named_by:?}"
    );
    let none = page(&larder, "ui/repositories/all/image?name=other").await;
    assert_eq!(none.status, 404);
}

#[tokio::test]
async fn all_tags_of_a_package_are_shown_and_the_latest_first() {
    let origin = Origin::start().await;
    let mut tags: serde_json::Map<String, Value> = (0..129)
        .map(|number| (format!("a{number:03}"), "1.0.0".into()))
        .collect();
    tags.insert("latest".to_owned(), "1.0.0".into());
    let tarball = origin.url("/jam/-/jam-1.0.0.tgz");
    let document = serde_json::json!({
        "name": "jam", "dist-tags": tags,
        "versions": {"1.0.0": {"name": "jam", "version": "1.0.0", "dist": {"tarball": tarball}}},
    });
    let document = Resource::new(document.to_string()).content_type("application/json");
    origin.put("/jam", document);
    let larder = larder(&origin, "npm", "").await;
    fetch(&larder, "all", "jam").await;
    let address = "ui/repositories/all/package?name=jam";
    let first = json(&larder, address).await;
    let second = json(&larder, &format!("{address}&page=2")).await;
    assert_eq!(first["tags"][0]["tag"], "latest");
    assert_eq!(
        (&first["has_next"], &second["has_next"]),
        (&Value::from(true), &Value::from(false))
    );
    let both = [each(&first["tags"], "tag"), each(&second["tags"], "tag")];
    assert_eq!((both[0].len(), both[1].len()), (100, 30));
    let all: std::collections::BTreeSet<&str> = both.concat().into_iter().collect();
    assert_eq!(all.len(), 130);
    let text = page(&larder, address).await.text();
    assert!(text.contains("100 of 130"), "{text}");
}

/// The index of a package is about it, though it has no file.
#[tokio::test]
async fn a_package_without_files_has_a_page() {
    let origin = Origin::start().await;
    let put = |path: &str, kind: &str, body: &str| {
        origin.put(path, Resource::new(body.to_owned()).content_type(kind));
    };
    let json_type = "application/json";
    put("/empty", json_type, r#"{"name":"empty","versions":{}}"#);
    put(
        "/gone",
        json_type,
        r#"{"name":"gone","time":{"unpublished":{"time":"2020-01-01T00:00:00.000Z"}}}"#,
    );
    put(
        "/simple/empty/",
        "text/html",
        r#"<!DOCTYPE html><html><head><meta name="pypi:repository-version" content="1.0"></head><body></body></html>"#,
    );
    put(
        "/index.yaml",
        "text/yaml",
        "apiVersion: v1\nentries:\n  jam:\n  - apiVersion: v2\n    name: jam\n    urls:\n    - jam-1.0.0.tgz\n    version: 1.0.0\n",
    );
    for (package, name, index) in [
        ("npm", "empty", "empty"),
        ("npm", "gone", "gone"),
        ("pypi", "empty", "simple/empty/"),
    ] {
        let larder = larder(&origin, package, "").await;
        fetch(&larder, "all", index).await;
        let of = json(&larder, &format!("ui/repositories/all/artifact/{index}")).await;
        assert_eq!(of["package"]["name"], name, "{package}");
        let shown = json(&larder, &format!("ui/repositories/all/package?name={name}")).await;
        assert_eq!(shown["total"], 0, "{shown}");
        assert_eq!(shown["index"], index, "{shown}");
    }
    // An index of many names those that there are.
    let larder = larder(&origin, "helm", "").await;
    fetch(&larder, "all", "index.yaml").await;
    for (name, status) in [("jam", 200), ("empty", 404)] {
        let answer = page(&larder, &format!("ui/repositories/all/package?name={name}")).await;
        assert_eq!(answer.status, status, "{name}: {}", answer.text());
    }
}

/// Packages of openSUSE stand in a folder of their own beside `repodata/`, and others are called as their servers like.
#[tokio::test]
async fn packages_are_found_by_the_index_that_is_held_wherever_they_stand() {
    let origin = Origin::start().await;
    let package = |name: &str, path: &str| {
        origin.put(&format!("/oss/{path}"), Resource::new(path.to_owned()));
        let digest = larder_core::sha256(path.as_bytes()).to_hex();
        format!(
            r#"<package type="rpm"><name>{name}</name><version epoch="0" ver="1.0" rel="2"/><checksum type="sha256" pkgid="YES">{digest}</checksum><time file="1700000000" build="1600000000"/><size package="{}"/><location href="{path}"/></package>"#,
            path.len()
        )
    };
    let jam = package("jam", "x86_64/jam-1.0-2.x86_64.rpm");
    let odd = package("odd", "getPackage/odd.rpm");
    let primary = format!(r#"<metadata packages="2">{jam}{odd}</metadata>"#);
    let digest = larder_core::sha256(primary.as_bytes()).to_hex();
    let of_primary = format!("oss/repodata/{digest}-primary.xml");
    let repomd = format!(
        r#"<repomd><revision>1</revision><data type="primary"><checksum type="sha256">{digest}</checksum><location href="repodata/{digest}-primary.xml"/><size>{}</size></data></repomd>"#,
        primary.len()
    );
    origin.put("/oss/repodata/repomd.xml", Resource::new(repomd));
    origin.put(&format!("/{of_primary}"), Resource::new(primary));
    let larder = larder(&origin, "rpm", "").await;
    let path = "oss/x86_64/jam-1.0-2.x86_64.rpm";
    for path in ["oss/repodata/repomd.xml", &of_primary, path] {
        fetch(&larder, "all", path).await;
    }
    let of = json(&larder, &format!("ui/repositories/all/artifact/{path}")).await;
    assert_eq!(of["package"]["folder"], "oss", "{of}");
    for (name, path) in [("jam", path), ("odd", "oss/getPackage/odd.rpm")] {
        let address = format!("ui/repositories/all/package?name={name}&folder=oss");
        let shown = json(&larder, &address).await;
        assert_eq!(each(&shown["files"], "path"), [path]);
        assert_eq!(each(&shown["files"], "version"), ["1.0-2"]);
        let published = each(&shown["files"], "published_at");
        assert_eq!(published, ["2023-11-14T22:13:20Z"]);
    }
}

//! What one larder got from its upstreams, another one serves without any.

use std::collections::BTreeMap;

use larder_core::sha256;
use larder_testkit::{Origin, Payload, Resource};
use serde_json::json;

use super::{listed, put, rpm, run, text};
use crate::support::packages::{File, entry, npm, pypi_html, pypi_json};
use crate::support::{Setup, TestLarder, get};

const INDEX: &[u8] = include_bytes!("../../../formats/src/alpine/testdata/APKINDEX.tar.gz");
const DEMO: &[u8] = include_bytes!("../../../formats/src/alpine/testdata/demo-1.0-r0.apk");

/// What a client reads in an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Served {
    status: u16,
    fields: BTreeMap<&'static str, String>,
    body: Vec<u8>,
}

/// Fields that say what a body is.
const FIELDS: &[&str] = &[
    "etag",
    "last-modified",
    "content-type",
    "content-length",
    "content-disposition",
    "docker-content-digest",
    "repr-digest",
];

async fn ask(url: &str) -> Served {
    let answer = get(url).await;
    let field = |name: &&'static str| (*name, answer.header(name).to_owned());
    Served {
        status: answer.status,
        fields: FIELDS.iter().map(field).collect(),
        body: answer.body.clone(),
    }
}

/// Upstreams of all types, and the paths that clients ask for.
struct World {
    origin: Origin,
    cdn: Origin,
    urls: Vec<String>,
}

impl World {
    async fn new() -> Self {
        let (origin, cdn) = (Origin::start().await, Origin::start().await);
        let mut urls: Vec<String> = Vec::new();
        let mut add = |repository: &str, paths: Vec<String>| {
            let url = |path| format!("api/v1/remote/{repository}/{path}");
            urls.extend(paths.into_iter().map(url));
        };
        let wheels: Vec<File> = (1..=2)
            .map(|n| File::generated("pantry", &format!("1.{n}"), 90_000 * n, n))
            .collect();
        add("pypi", vec!["simple/pantry/".to_owned()]);
        add("pypi", pypi_json(&origin, "pantry", &wheels));
        let old = [File::generated("larder", "2.0", 3_000, 9)];
        add("pypi", vec!["simple/larder/".to_owned()]);
        add("pypi", pypi_html(&origin, "larder", &old));
        let tarballs = [File::generated("pan", "1.0.0", 50_000, 4)];
        add("npm", vec!["pan".to_owned()]);
        add("npm", npm(&origin, "pan", &tarballs));
        let scoped = [File::generated("pan", "2.0.0", 5_000, 5)];
        add("npm", vec!["@kitchen%2fpan".to_owned()]);
        add("npm", npm(&origin, "@kitchen/pan", &scoped));
        let file = Resource::new(Payload::generated(2_000_000, 6))
            .content_type("application/x-tool")
            .etag("\"tool-1\"")
            .header("Content-Disposition", "attachment; filename=tool");
        origin.put(
            "/tools/tool%20%231.bin",
            file.last_modified("Wed, 01 Jan 2020 00:00:00 GMT"),
        );
        origin.put("/empty", Resource::new(""));
        add(
            "generic",
            vec!["tools/tool%20%231.bin".to_owned(), "empty".to_owned()],
        );
        origin.put(
            "/v3.23/main/x86_64/APKINDEX.tar.gz",
            Resource::new(INDEX).content_type("application/gzip"),
        );
        origin.put("/v3.23/main/x86_64/demo-1.0-r0.apk", Resource::new(DEMO));
        add(
            "alpine",
            ["APKINDEX.tar.gz", "demo-1.0-r0.apk"]
                .map(|name| format!("v3.23/main/x86_64/{name}"))
                .to_vec(),
        );
        add("rpm", rpm::publish(&origin, "rpm/"));
        urls.extend(image(&origin));
        chart(&origin, &cdn);
        Self { origin, cdn, urls }
    }

    fn setup(&self) -> Setup {
        let keys = "allow_private: [127.0.0.0/8]";
        let remotes = ["pypi", "npm", "generic", "alpine", "helm", "docker"]
            .map(|package| entry(package, package, &self.origin, keys))
            .concat();
        let rpm = entry("rpm", "rpm", &self.origin, keys);
        let rpm = rpm.replace(&self.origin.url("/"), &self.origin.url("/rpm/"));
        let config = format!("remotes:\n{remotes}{rpm}  own: {{ type: local }}\n");
        Setup::new(&config).env("LARDER_PUBLIC_URL", "http://larder.example.com")
    }
}

/// An image at a registry; gives what its clients ask for.
fn image(origin: &Origin) -> Vec<String> {
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let (config, layer) = (
        b"{}".to_vec(),
        Payload::generated(300_000, 7).slice(0, 300_000),
    );
    let described = |media: &str, body: &[u8]| json!({"mediaType": media, "digest": sha256(body).to_string(), "size": body.len()});
    let manifest = json!({"schemaVersion": 2, "mediaType": kind,
        "config": described("application/vnd.oci.image.config.v1+json", &config),
        "layers": [described("application/vnd.oci.image.layer.v1.tar+gzip", &layer)]})
    .to_string();
    let digest = sha256(manifest.as_bytes()).to_string();
    let served = Resource::new(manifest.clone())
        .content_type(kind)
        .header("Docker-Content-Digest", &digest);
    let mut urls = Vec::new();
    for name in ["1.0", &digest] {
        origin.put(&format!("/v2/team/app/manifests/{name}"), served.clone());
        urls.push(format!("v2/docker/team/app/manifests/{name}"));
    }
    for body in [config, layer.to_vec()] {
        let digest = sha256(&body);
        origin.put(&format!("/v2/team/app/blobs/{digest}"), Resource::new(body));
        urls.push(format!("v2/docker/team/app/blobs/{digest}"));
    }
    urls
}

/// A chart of the upstream's own, and one on another host.
fn chart(origin: &Origin, cdn: &Origin) {
    let (own, far) = (vec![1_u8; 20_000], vec![2_u8; 30_000]);
    let version = |body: &[u8], url: String| json!([{"name": "chart", "version": "1.0.0", "digest": sha256(body).to_hex(), "urls": [url]}]);
    let index = json!({"apiVersion": "v1", "entries": {
        "own": version(&own, "charts/own-1.0.0.tgz".to_owned()),
        "far": version(&far, cdn.url("/far-1.0.0.tgz?token=x")),
    }});
    let index = Resource::new(index.to_string()).content_type("text/yaml");
    origin.put("/index.yaml", index.etag("\"index-1\""));
    origin.put("/charts/own-1.0.0.tgz", Resource::new(own));
    cdn.put("/far-1.0.0.tgz?token=x", Resource::new(far));
}

/// The charts that a larder's own index names: where, and the bytes.
async fn charts(larder: &TestLarder) -> (Vec<String>, Vec<Vec<u8>>) {
    let index = get(&larder.artifact("helm", "index.yaml")).await;
    assert_eq!(index.status, 200, "{}", index.text());
    let index = index.text();
    let root = "http://larder.example.com/api/v1/remote/helm/";
    let mut paths: Vec<String> = index
        .split(root)
        .skip(1)
        .filter_map(|rest| rest.split(['"', '\n', ' ', '\'']).next())
        .map(str::to_owned)
        .collect();
    paths.sort();
    assert_eq!(paths.len(), 2, "{index}");
    let mut bodies = Vec::new();
    for path in &paths {
        let chart = get(&larder.artifact("helm", path)).await;
        assert_eq!(chart.status, 200, "{path}: {}", chart.text());
        bodies.push(chart.body);
    }
    bodies.sort();
    (paths, bodies)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_upstreams_gave_is_served_without_them() {
    let mut world = World::new().await;
    let source = world.setup().start().await;
    put(&source, "own", "a/it's (a) name.txt", "uploaded").await;
    let mut urls = world.urls.clone();
    urls.push("api/v1/remote/own/a/it's%20(a)%20name.txt".to_owned());
    for url in &urls {
        let first = get(&source.url(url)).await;
        assert_eq!(first.status, 200, "{url}: {}", first.text());
    }
    let (links, sent) = charts(&source).await;
    source.until_idle().await;
    let mut before = BTreeMap::new();
    for url in &urls {
        before.insert(url, ask(&source.url(url)).await);
    }
    let home = tempfile::tempdir().expect("a directory");
    let archive = home.path().join("kitchen.tar");
    let exported = run(&source, &["export", text(&archive), "--json"])
        .await
        .ended(0);
    let exported = exported.json();
    assert_eq!(
        (&exported["left_out_rows"], &exported["left_out_blobs"]),
        (&0.into(), &0.into()),
        "{exported}"
    );
    let held = listed(&source).await;
    drop(source);
    world.origin.stop().await;
    world.cdn.stop().await;

    let target = world.setup().start().await;
    let sum = exported["sha256"].as_str().expect("a digest");
    let arguments = ["import", text(&archive), "--sha256", sum, "--json"];
    let imported = run(&target, &arguments).await.ended(0).json();
    assert_eq!(imported["written"], exported["rows"], "{imported}");
    for url in &urls {
        let answer = get(&target.url(url)).await;
        assert!(
            url.contains("/own/") || answer.cache_status().starts_with("larder; hit"),
            "{url}: {} {}",
            answer.status,
            answer.cache_status()
        );
        let (mut was, mut is) = (before[url].clone(), ask(&target.url(url)).await);
        if url.contains("/own/") {
            // What was uploaded is dated by when it took its place.
            was.fields.remove("last-modified");
            is.fields.remove("last-modified");
        }
        assert_eq!((was.status, was.fields), (is.status, is.fields), "{url}");
        assert!(was.body == is.body, "{url}: other bytes");
    }
    // Their links are signed with another key here.
    let (own_links, got) = charts(&target).await;
    assert_ne!(links, own_links);
    assert!(sent == got, "other charts");
    let count = |all: &[(String, String)]| all.len();
    assert_eq!(count(&held), count(&listed(&target).await));

    let again = run(&target, &arguments).await.ended(0).json();
    assert_eq!(
        (&again["written"], &again["sent_blobs"]),
        (&0.into(), &0.into()),
        "{again}"
    );
}

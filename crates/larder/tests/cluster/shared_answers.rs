//! What one replica has found out the others do not ask for: the head of a cold file, and the files that stand around an index.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use futures_util::future::join_all;
use larder_core::sha256;
use larder_testkit::{Origin, Resource};

use super::fixture::{Cluster, until};
use super::support::{Answer, PATIENCE, send};

/// A held request is let go when all replicas have had time to come to wait for it.
const GATHERING: Duration = Duration::from_millis(700);

/// Asks all replicas at the same moment, with so many clients each, and holds the upstream's answer until all have come.
async fn together(
    cluster: &Cluster,
    (method, repository, path): (&str, &str, &str),
    upstream: &str,
    each: usize,
) -> Vec<Answer> {
    let urls = cluster.urls(repository, path);
    let origin = &cluster.backends.origin;
    origin.hold(upstream);
    let before = origin.count(method, upstream);
    let urls = urls.iter().cycle().take(each * urls.len());
    let asked = join_all(urls.map(|url| send(method, url, &[])));
    let let_go = async {
        origin.wait_for(method, upstream, before + 1).await;
        tokio::time::sleep(GATHERING).await;
        origin.release(upstream);
    };
    tokio::join!(asked, let_go).0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_head_of_a_cold_file_is_asked_for_once() {
    let mut cluster = Cluster::start(3).await;
    let resource = Resource::new("some text").content_type("text/x-some");
    let resource = resource.etag("\"one\"").header("X-Checksum-Sha1", "abc");
    for name in ["first.bin", "second.bin"] {
        cluster
            .backends
            .origin
            .put(&format!("/{name}"), resource.clone());
    }
    let upstream = "/first.bin";
    let heads = together(&cluster, ("HEAD", "files", "first.bin"), upstream, 5).await;
    for answer in &heads {
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-length"), "9");
        assert_eq!(answer.header("content-type"), "text/x-some");
        assert_eq!(answer.header("etag"), heads[0].header("etag"));
    }
    let count = |name: &str| cluster.backends.origin.count("HEAD", &format!("/{name}"));
    println!(
        "asked for a head {} time, for {} clients",
        count("first.bin"),
        heads.len()
    );
    assert_eq!(count("first.bin"), 1);
    // It was for those who waited: the upstream is asked again, and at once.
    cluster
        .backends
        .origin
        .put(upstream, Resource::new("another text").etag("\"two\""));
    for url in cluster.urls("files", "first.bin") {
        assert_eq!(send("HEAD", &url, &[]).await.header("content-length"), "12");
    }
    assert_eq!(count("first.bin"), 4);
    cluster.backends.redis.stop();
    let heads = together(&cluster, ("HEAD", "files", "second.bin"), "/second.bin", 5).await;
    assert!(heads.iter().all(|answer| answer.status == 200));
    let asked = cluster.backends.origin.count("HEAD", "/second.bin");
    assert_eq!(asked, 3, "without Redis each asks for itself");
}

/// The files of an RPM repository's metadata, in folders whose names are of a digest and in one whose are not.
struct Metadata {
    folder: &'static str,
    is_unique: bool,
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).expect("memory");
    encoder.finish().expect("memory")
}

impl Metadata {
    fn master(&self) -> String {
        format!("{}/repodata/repomd.xml", self.folder)
    }

    /// Serves a generation, signed and without a key; gives its files by path.
    fn publish(&self, origin: &Origin, revision: u64) -> BTreeMap<String, Vec<u8>> {
        let primary = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<metadata xmlns=\"http://linux.duke.edu/metadata/common\" \
             packages=\"0\"><!-- {revision} --></metadata>\n"
        );
        let filelists = format!("<filelists revision=\"{revision}\"/>");
        let (mut files, mut records) = (BTreeMap::new(), String::new());
        for (kind, body) in [("primary", gzip(&primary)), ("filelists", gzip(&filelists))] {
            let digest = sha256(&body).to_hex();
            let name = if self.is_unique {
                format!("{digest}-{kind}.xml.gz")
            } else {
                format!("{kind}.xml.gz")
            };
            write!(
                records,
                "<data type=\"{kind}\"><checksum type=\"sha256\">{digest}</checksum><location href=\"repodata/{name}\"/>\
                 <timestamp>{revision}</timestamp><size>{}</size></data>",
                body.len()
            )
            .expect("memory");
            files.insert(format!("{}/repodata/{name}", self.folder), body);
        }
        let master = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<repomd xmlns=\"http://linux.duke.edu/metadata/repo\">\
             <revision>{revision}</revision>{records}</repomd>\n"
        );
        let signature = format!("signature of {}", sha256(master.as_bytes()).to_hex());
        files.insert(format!("{}.asc", self.master()), signature.into_bytes());
        files.insert(self.master(), master.into_bytes());
        for (path, body) in &files {
            let tag = format!("\"{}\"", sha256(body).to_hex());
            origin.put(&format!("/{path}"), Resource::new(body.clone()).etag(&tag));
        }
        files
    }
}

/// The upstream's requests by method and path, since its log was begun anew.
fn asked(origin: &Origin) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for request in origin.requests() {
        let name = format!("{} {}", request.method, request.path());
        *counts.entry(name).or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_files_of_a_generation_are_fetched_once() {
    let rpm = |origin: &Origin| {
        let url = origin.url("");
        format!("  packages: {{ package: rpm, base_url: '{url}', cache: {{ mutable_ttl: 2 }} }}\n")
    };
    let cluster = Cluster::start_with_remotes(3, "", rpm).await;
    let origin = &cluster.backends.origin;
    let mut more = Vec::new();
    for metadata in [
        Metadata {
            folder: "named",
            is_unique: true,
        },
        Metadata {
            folder: "plain",
            is_unique: false,
        },
    ] {
        let master = metadata.master();
        for revision in 1..=3 {
            let files = metadata.publish(origin, revision);
            if revision > 1 {
                // What was there before is no longer fresh.
                tokio::time::sleep(Duration::from_millis(2_200)).await;
            }
            origin.reset_log();
            let upstream = format!("/{master}");
            let answers = together(&cluster, ("GET", "packages", &master), &upstream, 2).await;
            assert!(answers.iter().all(|answer| answer.status == 200));
            for replica in &cluster.replicas {
                replica.until_idle().await;
            }
            // What is read afterwards may have to be asked for anew.
            let asked = asked(origin);
            for (path, body) in &files {
                for url in cluster.urls("packages", path) {
                    until(&url, |answer| answer.body == *body, PATIENCE).await;
                }
            }
            println!("{}, revision {revision}: {asked:#?}", metadata.folder);
            // On a busy machine the index may be old again before all have it: each look at it also looks for the key that is not there.
            let looks = asked[&format!("GET {upstream}")];
            let most = |name: &str| match name.strip_prefix("GET ") {
                Some(path) if path == upstream || path == format!("{upstream}.key") => looks,
                _ => 1,
            };
            more.extend(
                asked
                    .into_iter()
                    .filter(|(name, count)| *count > most(name)),
            );
        }
    }
    assert!(more.is_empty(), "asked for more than once: {more:?}");
}

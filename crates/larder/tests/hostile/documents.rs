//! Documents that are small and ask for much.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use larder_core::sha256;
use larder_testkit::{Behaviour, Origin, Resource};

use super::support::packages::{SIMPLE_JSON, entry};
use super::support::{TestLarder, get};
use super::{Bystander, Memory, SLOWER};

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::best());
    packer.write_all(plain).unwrap();
    packer.finish().unwrap()
}

/// A repository of each kind whose upstream is hostile, and one whose upstream is not.
async fn larder(hostile: &Origin, good: &Origin) -> TestLarder {
    Bystander::prepare(good);
    let hostile_ones: String = ["pypi", "npm", "helm", "rpm", "alpine", "docker"]
        .map(|package| entry(package, package, hostile, ""))
        .concat();
    let config = format!(
        "remotes:\n{hostile_ones}{}",
        entry("bystander", "pypi", good, "")
    );
    TestLarder::start(&config).await
}

/// Asks for a document and for a file that it names, and looks at what that does to larder and to others.
async fn ask(
    larder: &TestLarder,
    name: &str,
    repository: &str,
    document: &str,
    file: &str,
    said: &[&str],
) {
    let memory = Memory::of(larder);
    let bystander = Bystander::start(larder);
    let began = Instant::now();
    let answer = get(&larder.artifact(repository, document)).await;
    let took = began.elapsed();
    let of_file = get(&larder.artifact(repository, file)).await;
    let (all, rise, slowest) = (began.elapsed(), memory.rise(), bystander.end().await.0);
    let text = answer.text();
    let shown: String = text.chars().take(160).collect();
    println!(
        "{name:<24} {} in {took:?}, its file {} in {:?}; memory +{rise} MiB; others {slowest:?}; {shown}",
        answer.status,
        of_file.status,
        all.saturating_sub(took)
    );
    assert!(
        matches!(answer.status, 200 | 502),
        "{name}: {} {text}",
        answer.status
    );
    assert!(
        of_file.status >= 200 && of_file.status < 505,
        "{name}: {}",
        of_file.status
    );
    if answer.status == 502 {
        assert!(
            said.iter().any(|part| text.contains(part)),
            "{name}: {text}"
        );
    }
    assert!(all < Duration::from_secs(5) * SLOWER, "{name}: {all:?}");
    assert!(rise <= 64, "{name}: {rise} MiB");
    assert!(
        slowest < Duration::from_secs(1) * SLOWER,
        "{name}: {slowest:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_x4_a_small_page_does_not_stop_others() {
    let (hostile, good) = (Origin::start().await, Origin::start().await);
    let page = |name: &str, base: usize, links: usize| {
        let body = format!(
            "<title>Links for {name}</title><base href=\"{}\">{}",
            hostile.url(&"b".repeat(base)),
            (0..links)
                .map(|n| format!("<a href={n}>"))
                .collect::<String>()
        );
        hostile.put(
            &format!("/simple/{name}/"),
            Resource::new(body).content_type("text/html"),
        );
    };
    page("far", 100_000, 11_000);
    page("near", 1_900, 18_000);
    let links: String = (0..11_000).map(|n| format!("<a href={n}>")).collect();
    hostile.put(
        "/elsewhere",
        Resource::new(format!("<title>Links for led</title>{links}")).content_type("text/html"),
    );
    let long = format!("/elsewhere?{}", "q".repeat(60_000));
    hostile.behave(
        "/simple/led/",
        Behaviour::Redirect {
            status: 302,
            location: hostile.url(&long),
        },
    );
    let larder = larder(&hostile, &good).await;
    let said = [
        "takes more than",
        "would take more than",
        "redirect",
        "too long",
        "cannot be used",
        "answered",
    ];
    for name in ["far", "near", "led"] {
        let path = format!("simple/{name}/");
        ask(
            &larder,
            name,
            "pypi",
            &path,
            &format!("simple/{name}/{name}-1.tar.gz"),
            &said,
        )
        .await;
    }
}

/// `Packages.adb` with one package in it, a million times.
fn packages_adb() -> Vec<u8> {
    let mut tree: Vec<u8> = vec![0; 8];
    let text = |tree: &mut Vec<u8>, text: &str| {
        let at = u32::try_from(tree.len()).unwrap();
        tree.push(u8::try_from(text.len()).unwrap());
        tree.extend_from_slice(text.as_bytes());
        0x8000_0000 | at
    };
    let slots = |tree: &mut Vec<u8>, kind: u32, values: &[u32]| {
        tree.resize(tree.len().next_multiple_of(4), 0);
        let at = u32::try_from(tree.len()).unwrap();
        tree.extend_from_slice(&u32::try_from(values.len() + 1).unwrap().to_le_bytes());
        for value in values {
            tree.extend_from_slice(&value.to_le_bytes());
        }
        kind | at
    };
    let (name, version) = (text(&mut tree, "a"), text(&mut tree, "1-r0"));
    let arch = text(&mut tree, "x86_64");
    let package = slots(&mut tree, 0xe000_0000, &[name, version, 0, 0, arch]);
    let packages = slots(&mut tree, 0xd000_0000, &vec![package; 1_000_000]);
    let root = slots(&mut tree, 0xe000_0000, &[0, packages]);
    tree[4..8].copy_from_slice(&root.to_le_bytes());
    let mut plain = b"ADB.indx".to_vec();
    plain.extend_from_slice(&(u32::try_from(tree.len()).unwrap() + 4).to_le_bytes());
    plain.extend_from_slice(&tree);
    plain.resize(plain.len().next_multiple_of(8), 0);
    let mut packed = b"ADBc\x02\x00".to_vec();
    packed.extend(zstd::encode_all(&plain[..], 3).unwrap());
    packed
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_x2_a_small_index_of_packages_does_not_stop_others() {
    let (hostile, good) = (Origin::start().await, Origin::start().await);
    hostile.put("/x86_64/Packages.adb", Resource::new(packages_adb()));
    hostile.put("/x86_64/a-1-r0.apk", Resource::new("a package"));
    let larder = larder(&hostile, &good).await;
    ask(
        &larder,
        "adb",
        "alpine",
        "x86_64/Packages.adb",
        "x86_64/a-1-r0.apk",
        &[],
    )
    .await;
}

/// A repository of packages whose `primary.xml.gz` is this.
fn rpm(origin: &Origin, root: &str, primary: Vec<u8>) {
    let digest = sha256(&primary).to_hex();
    let repomd = format!(
        "<repomd xmlns=\"http://linux.duke.edu/metadata/repo\"><revision>1</revision><data type=\"primary\"><checksum type=\"sha256\">{digest}</checksum><location href=\"repodata/primary.xml.gz\"/><size>{}</size></data></repomd>",
        primary.len()
    );
    origin.put(
        &format!("/{root}/repodata/repomd.xml"),
        Resource::new(repomd),
    );
    origin.put(
        &format!("/{root}/repodata/primary.xml.gz"),
        Resource::new(primary),
    );
    origin.put(&format!("/{root}/a.rpm"), Resource::new("a package"));
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_x2_packed_metadata_does_not_stop_others() {
    let (hostile, good) = (Origin::start().await, Origin::start().await);
    let package = "<package><location href=\"a.rpm\"/></package>";
    // So many packages that a URL of 2,000 bytes for each would be a gigabyte.
    let many = gzip(format!("<metadata>{}</metadata>", package.repeat(500_000)).as_bytes());
    rpm(&hostile, &"m".repeat(1_000), many);
    // 3 MiB that unpack to 4 GiB.
    let member = gzip(format!("<x>{}</x>", " ".repeat(3 << 20)).as_bytes());
    let bomb = [
        gzip(b"<metadata>"),
        member.repeat(1_366),
        gzip(b"</metadata>"),
    ]
    .concat();
    assert!(bomb.len() < 5 << 20, "{}", bomb.len());
    rpm(&hostile, "bomb", bomb);
    let larder = larder(&hostile, &good).await;
    let long = "m".repeat(1_000);
    for (name, root) in [("primary, many", long.as_str()), ("primary, bomb", "bomb")] {
        let document = format!("{root}/repodata/repomd.xml");
        ask(
            &larder,
            name,
            "rpm",
            &document,
            &format!("{root}/a.rpm"),
            &["a.rpm", "cannot be used"],
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_r3_indexes_with_many_names_do_not_stop_others() {
    let (hostile, good) = (Origin::start().await, Origin::start().await);
    let mut bomb = String::from("apiVersion: v1\nentries: {}\na0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for n in 1..12 {
        let all = vec![format!("*a{}", n - 1); 10].join(",");
        let _ = writeln!(bomb, "a{n}: &a{n} [{all}]");
    }
    hostile.put("/index.yaml", Resource::new(bomb));
    let versions: Vec<String> = (0..100_000)
        .map(|n| format!("\"{n}.0.0\":{{\"dist\":{{\"tarball\":\"a\"}}}}"))
        .collect();
    hostile.put(
        "/many",
        Resource::new(format!(
            "{{\"name\":\"many\",\"versions\":{{{}}}}}",
            versions.join(",")
        ))
        .content_type("application/json"),
    );
    let tags = vec!["\"a\""; 2_000_000].join(",");
    hostile.put(
        "/v2/library/many/tags/list",
        Resource::new(format!("{{\"name\":\"library/many\",\"tags\":[{tags}]}}"))
            .content_type("application/json"),
    );
    let larder = larder(&hostile, &good).await;
    ask(
        &larder,
        "helm, aliases",
        "helm",
        "index.yaml",
        "a-1.0.0.tgz",
        &["aliases"],
    )
    .await;
    ask(
        &larder,
        "npm, versions",
        "npm",
        "many",
        "many/-/many-1.0.0.tgz",
        &["takes more than"],
    )
    .await;
    ask(
        &larder,
        "oci, tags",
        "docker",
        "library/many/tags/list",
        "library/many/tags/list",
        &["entries", "cannot be used"],
    )
    .await;
}

/// Whatever the format, larder unpacks a body that it is told is compressed.
#[tokio::test(flavor = "multi_thread")]
async fn hazard_r4_bodies_that_were_compressed_unasked_do_not_stop_others() {
    let (hostile, good) = (Origin::start().await, Origin::start().await);
    let blanks = gzip(&vec![b' '; 16 << 20]);
    // 4 GiB in 4 MiB, and what is small enough to be allowed.
    let bomb = |head: &str, count: usize| {
        let ends = [gzip(head.as_bytes()), gzip(b"}")];
        Resource::new([&ends[0][..], &blanks.repeat(count), &ends[1]].concat())
            .header("content-encoding", "gzip")
    };
    let page = |name: &str| {
        format!("{{\"meta\":{{\"api-version\":\"1.0\"}},\"name\":\"{name}\",\"files\":[]")
    };
    let packument = |name: &str| format!("{{\"name\":\"{name}\",\"versions\":{{}}");
    let image = "application/vnd.oci.image.index.v1+json";
    for (name, count) in [("bomb", 256), ("large", 3)] {
        hostile.put(
            &format!("/simple/{name}/"),
            bomb(&page(name), count).content_type(SIMPLE_JSON),
        );
        hostile.put(
            &format!("/{name}"),
            bomb(&packument(name), count).content_type("application/json"),
        );
        hostile.put(
            &format!("/v2/library/{name}/manifests/latest"),
            bomb("{\"manifests\":[]", count).content_type(image),
        );
    }
    let larder = larder(&hostile, &good).await;
    let said = ["unpack to more than"];
    for name in ["bomb", "large"] {
        for (repository, document) in [
            ("pypi", format!("simple/{name}/")),
            ("npm", name.to_owned()),
            ("docker", format!("library/{name}/manifests/latest")),
        ] {
            let case = format!("{repository}, {name}");
            ask(&larder, &case, repository, &document, &document, &said).await;
        }
    }
}

/// Names of other places, of which each takes three bytes and is written out in full.
#[tokio::test(flavor = "multi_thread")]
async fn hazard_x2_a_page_of_many_other_places_does_not_stop_others() {
    let (hostile, good) = (Origin::start().await, Origin::start().await);
    let many = vec!["\"\""; 2_000_000].join(",");
    let page = format!(
        "{{\"meta\":{{\"api-version\":\"1.0\",\"tracks\":[{many}]}},\"name\":\"many\",\"files\":[]}}"
    );
    hostile.put(
        "/simple/many/",
        Resource::new(page).content_type(SIMPLE_JSON),
    );
    let larder = larder(&hostile, &good).await;
    let said = ["other places"];
    let page = "simple/many/";
    ask(&larder, "pypi, tracks", "pypi", page, page, &said).await;
}

/// What took long to be found out once is known when the next package is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn hazard_x2_metadata_that_cannot_be_read_is_read_once() {
    let (hostile, good) = (Origin::start().await, Origin::start().await);
    rpm(&hostile, "spoilt", gzip(b"<metadata><package>"));
    for name in ["b", "c", "d"] {
        hostile.put(&format!("/spoilt/{name}.rpm"), Resource::new("a package"));
    }
    let larder = larder(&hostile, &good).await;
    for path in ["repodata/repomd.xml", "repodata/primary.xml.gz", "a.rpm"] {
        let answer = get(&larder.artifact("rpm", &format!("spoilt/{path}"))).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }
    let readings = async || {
        let name = "larder_repository_malformed_documents_total";
        larder.metric(name, "\"rpm\"").await
    };
    let before = readings().await;
    assert!(before >= 1.0, "{before}");
    for name in ["b", "c", "d"] {
        let answer = get(&larder.artifact("rpm", &format!("spoilt/{name}.rpm"))).await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
    }
    assert!(
        (readings().await - before).abs() < f64::EPSILON,
        "read again"
    );
}

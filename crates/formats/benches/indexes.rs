//! What it costs to read the index of a large repository: time, and memory at the most (`max alloc`).
//! `cargo bench -p larder-formats --bench indexes`
//!
//! The lists of packages are generated, with as much text for each as a large public distribution has.

#![expect(
    clippy::unwrap_used,
    reason = "a benchmark may stop at what must not happen"
)]

use std::fmt::Write as _;
use std::io::Write as _;

use divan::Bencher;
use larder_core::PackageType;
use larder_formats::{Claim, Document};

use common::{hex, over, remote};

mod common;

#[global_allocator]
static ALLOCATIONS: divan::AllocProfiler = divan::AllocProfiler::system();

const ROOT: &str = "https://mirror.example.com/";

fn main() {
    divan::main();
}

/// Collects the claims of a document, as the engine does.
fn claims(bencher: Bencher, package: PackageType, key_path: &str, body: &[u8], count: usize) {
    let repository = remote(package, ROOT);
    let url = format!("{ROOT}{key_path}").parse().unwrap();
    let document = Document {
        body,
        content_type: "",
        url: &url,
        key_path,
        variant: "",
        memo: None,
    };
    over(
        bencher,
        &repository,
        &document,
        |format, document, links| {
            let mut all: Vec<Claim> = Vec::new();
            format
                .claims(document, links, &mut |claim| all.push(claim))
                .unwrap();
            assert_eq!(all.len(), count);
            all
        },
    );
}

/// `primary.xml` of 60,000 packages: about 150 MB.
#[divan::bench(args = ["plain", "gz", "xz", "bz2", "zst"], sample_count = 3, sample_size = 1)]
fn rpm_primary(bencher: Bencher, packing: &str) {
    const PACKAGES: u64 = 60_000;
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<metadata xmlns=\"http://linux.duke.edu/metadata/common\" xmlns:rpm=\"http://linux.duke.edu/metadata/rpm\" packages=\"{PACKAGES}\">\n"
    );
    for n in 0..PACKAGES {
        let (name, digest) = (format!("package-{}-libs{n}", hex(n, 6)), hex(n, 64));
        let _ = write!(
            text,
            "<package type=\"rpm\">\n  <name>{name}</name>\n  <arch>x86_64</arch>\n  <version epoch=\"0\" ver=\"{n}.2\" rel=\"3.fc41\"/>\n  <checksum type=\"sha256\" pkgid=\"YES\">{digest}</checksum>\n  <summary>Libraries of {name} &amp; more</summary>\n  <description>The package {name} holds the libraries that programs need to do what its name says,\nand nothing else. It is described at some length, as most packages are.</description>\n  <packager>Example Project</packager>\n  <url>https://www.example.com/{name}</url>\n  <time file=\"1700000000\" build=\"1700000000\"/>\n  <size package=\"{n}\" installed=\"123456\" archive=\"123999\"/>\n  <location href=\"Packages/p/{name}-{n}.2-3.fc41.x86_64.rpm\"/>\n  <format>\n    <rpm:license>MIT</rpm:license>\n    <rpm:vendor>Example Project</rpm:vendor>\n    <rpm:group>Unspecified</rpm:group>\n    <rpm:header-range start=\"4504\" end=\"23981\"/>\n    <rpm:provides>\n"
        );
        for entry in 0..6 {
            let _ = writeln!(
                text,
                "      <rpm:entry name=\"lib{name}.so.{entry}()(64bit)\" flags=\"EQ\" epoch=\"0\" ver=\"{n}.2\" rel=\"3.fc41\"/>"
            );
        }
        text.push_str("    </rpm:provides>\n    <rpm:requires>\n");
        for entry in 0..10 {
            let _ = writeln!(
                text,
                "      <rpm:entry name=\"lib{}.so.{entry}(GLIBC_2.{entry})(64bit)\"/>",
                hex(n + entry, 5)
            );
        }
        let _ = write!(
            text,
            "    </rpm:requires>\n    <file>/usr/lib64/lib{name}.so</file>\n  </format>\n</package>\n"
        );
    }
    text.push_str("</metadata>\n");
    let packed = match packing {
        "gz" => gzip(text.as_bytes()),
        "xz" => {
            let mut packer = liblzma::write::XzEncoder::new(Vec::new(), 3);
            packer.write_all(text.as_bytes()).unwrap();
            packer.finish().unwrap()
        }
        "bz2" => {
            let mut packer = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
            packer.write_all(text.as_bytes()).unwrap();
            packer.finish().unwrap()
        }
        "zst" => zstd::encode_all(text.as_bytes(), 3).unwrap(),
        _ => text.into_bytes(),
    };
    claims(
        bencher,
        PackageType::Rpm,
        "x86_64/os/repodata/primary.xml",
        &packed,
        60_000,
    );
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    packer.write_all(plain).unwrap();
    packer.finish().unwrap()
}

/// `APKINDEX.tar.gz` of 30,000 packages: about 15 MB of records.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn alpine_apkindex(bencher: Bencher) {
    let mut records = String::new();
    for n in 0..30_000_u64 {
        let name = format!("package-{}-libs{n}", hex(n, 6));
        let _ = write!(
            records,
            "C:Q1{}=\nP:{name}\nV:{n}.2.1-r0\nA:x86_64\nS:{n}\nI:123456\nT:Libraries of {name} and more\nU:https://www.example.com/{name}\nL:MIT\no:{name}\nm:Example Maintainer <maintainer@example.com>\nt:1700000000\nc:{}\nD:",
            hex(n, 27),
            hex(n, 40)
        );
        for entry in 0..6 {
            let _ = write!(records, "so:lib{}.so.{entry} ", hex(n + entry, 6));
        }
        let _ = write!(
            records,
            "\np:so:lib{name}.so.1=1.{n} cmd:{name}={n}.2.1-r0\n\n"
        );
    }
    let mut header = vec![0; 512];
    header[..8].copy_from_slice(b"APKINDEX");
    header[124..135].copy_from_slice(format!("{:011o}", records.len()).as_bytes());
    header[148..156].fill(b' ');
    header[156] = b'0';
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut archive = [&header, records.as_bytes()].concat();
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    claims(
        bencher,
        PackageType::Alpine,
        "v3.23/main/x86_64/APKINDEX.tar.gz",
        &gzip(&archive),
        30_000,
    );
}

/// Two Helm indexes of 20 MB each, half of whose versions are in both, as one.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn helm_merge(bencher: Bencher) {
    let index = |seed: usize| {
        let mut text = "apiVersion: v1\nentries:\n".to_owned();
        for chart in 0..400 {
            let name = format!("chart-{}", chart + seed);
            let _ = writeln!(text, "  {name}:");
            for version in 0..80 {
                let _ = write!(
                    text,
                    "  - apiVersion: v2\n    appVersion: 1.{version}\n    created: \"2024-01-02T03:04:05.123456789Z\"\n    \
                     description: A chart that is as long as those of large repositories are, with a sentence on what it installs\n    \
                     digest: {}\n    home: https://charts.example.com/{name}\n    keywords:\n    - storage\n    - cache\n    \
                     maintainers:\n    - email: nobody@example.com\n      name: nobody\n    name: {name}\n    sources:\n    \
                     - https://git.example.com/{name}\n    urls:\n    - {name}-{version}.0.0.tgz\n    version: {version}.0.0\n",
                    hex((chart * 100 + version) as u64, 64)
                );
            }
        }
        text.push_str("generated: \"2024-01-02T03:04:05Z\"\n");
        text
    };
    let bodies = [index(0), index(200)];
    let repository = remote(PackageType::Helm, ROOT);
    let url = format!("{ROOT}index.yaml").parse().unwrap();
    let format = larder_formats::format_of(PackageType::Helm);
    let base = larder_formats::LinkBase::new("https://larder.example/api/v1/remote/bench/");
    let key = larder_formats::LinkKey::from_bytes([7; 32]);
    let links = larder_formats::Links::new(&repository, &key, base);
    let members = bodies.each_ref().map(|body| larder_formats::MergeMember {
        document: Document {
            body: body.as_bytes(),
            content_type: "",
            url: &url,
            key_path: "index.yaml",
            variant: "",
            memo: None,
        },
        links: &links,
        is_anothers: None,
        is_held: None,
    });
    println!("{} and {} bytes", bodies[0].len(), bodies[1].len());
    bencher.bench_local(|| format.merge(&members, "index").unwrap().unwrap());
}

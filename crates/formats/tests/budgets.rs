//! Documents that are small and ask for much: whatever the type, reading one gives an answer or a clear error within seconds and within
//! 64 MiB. Sizes are measured from outside, as the system sees them.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests may fail loudly"
)]
#![expect(clippy::format_collect, reason = "inputs are made once")]

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, Instant};

use larder_core::{
    AccessPolicy, CachePolicy, Kind, PackageType, QuarantinePolicy, Repository, RepositoryName,
    UpstreamSettings,
};
use larder_formats::{Document, LinkBase, LinkKey, Links, Malformed, format_of};
use rustix::time::{ClockId, clock_gettime};
use url::Url;

/// The most memory that one reading may take, in MiB.
const MOST_MEMORY: u64 = 64;
/// The most time of the processor. Unoptimised code is several times as slow as what is shipped.
const MOST_TIME: Duration = Duration::from_secs(if cfg!(debug_assertions) { 30 } else { 5 });

fn remote(package: PackageType) -> Repository {
    let base: Url = "https://mirror.example.com/".parse().unwrap();
    Repository {
        name: RepositoryName::parse("hostile").unwrap(),
        package,
        description: String::new(),
        kind: Kind::Remote(Box::new(UpstreamSettings::new(base))),
        access: AccessPolicy::default(),
        cache: CachePolicy::default(),
        quarantine: QuarantinePolicy::default(),
        authoritative: false,
        reserved: larder_core::ReservedNames::default(),
        rules_epoch: 0,
    }
}

/// A document, and what is made of it.
struct Case {
    name: &'static str,
    package: PackageType,
    key_path: &'static str,
    content_type: &'static str,
    url: String,
    body: Vec<u8>,
    form: Option<&'static str>,
    expected: Expected,
}

/// What must come of it.
enum Expected {
    /// So many claims.
    Claims(usize),
    /// A sentence with this in it, from one of the readings.
    Refused(&'static str),
    /// An answer or a sentence.
    Either,
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.cast_unsigned(),
        u32::try_from(time.tv_nsec).unwrap(),
    )
}

/// A line of the process's own status, in KiB.
fn status(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let rest = status.lines().find_map(|l| l.strip_prefix(line)).unwrap();
    rest.trim().trim_end_matches(" kB").trim().parse().unwrap()
}

/// Runs one reading and says what it took: how far memory rose above what was there before, in MiB, and time of the processor.
fn measured<T>(run: impl FnOnce() -> T) -> (T, u64, Duration) {
    std::fs::write("/proc/self/clear_refs", "5").expect("to forget the former peak");
    let (before, began) = (status("VmRSS:"), processor_time());
    let result = run();
    let took = processor_time().saturating_sub(began);
    (result, status("VmHWM:").saturating_sub(before) >> 10, took)
}

impl Case {
    fn run(&self) {
        let repository = remote(self.package);
        let format = format_of(self.package);
        let url: Url = self.url.parse().unwrap();
        let document = Document {
            body: &self.body,
            content_type: self.content_type,
            url: &url,
            key_path: self.key_path,
            variant: "",
            memo: None,
        };
        let links = || {
            let base = LinkBase::new("https://larder.example/api/v1/remote/hostile/");
            Links::new(&repository, &LinkKey::from_bytes([7; 32]), base)
        };
        let is_document = !self.key_path.contains("primary");
        let (checked, memory, time) = measured(|| {
            if is_document {
                format.check(&repository, &document, &document.meter())
            } else {
                Ok(())
            }
        });
        self.judge("check", memory, time, checked.as_ref().err());
        let (claimed, memory, time) = measured(|| {
            // Kept, as whoever makes a table of them keeps them.
            let mut all = Vec::new();
            format
                .claims(&document, &links(), &mut |claim| all.push(claim))
                .map(|()| all.len())
        });
        self.judge("claims", memory, time, claimed.as_ref().err());
        let mut outcomes = vec![checked.err(), claimed.as_ref().err().cloned()];
        if let Some(form) = self.form {
            let (derived, memory, time) = measured(|| format.derive(&document, form, &links()));
            self.judge("derive", memory, time, derived.as_ref().err());
            outcomes.push(derived.err());
        }
        let said: Vec<String> = outcomes
            .into_iter()
            .flatten()
            .map(|Malformed(text)| text)
            .collect();
        match self.expected {
            Expected::Claims(count) => {
                assert!(said.is_empty(), "{}: {said:?}", self.name);
                assert_eq!(claimed.unwrap(), count, "{}", self.name);
            }
            Expected::Refused(part) => {
                assert!(
                    said.iter().any(|text| text.contains(part)),
                    "{}: {said:?}",
                    self.name
                );
            }
            Expected::Either => {}
        }
        for text in said {
            assert!(
                text.len() < 300 && !text.contains('\n'),
                "{}: {text}",
                self.name
            );
        }
    }

    fn judge(&self, what: &str, memory: u64, time: Duration, error: Option<&Malformed>) {
        println!(
            "{:<28} {what:<7} {:>8} bytes {memory:>5} MiB {:>6} ms  {}",
            self.name,
            self.body.len(),
            time.as_millis(),
            error.map_or("fine", |Malformed(text)| text)
        );
        // Of a document that is itself large, a few copies beside.
        let most = MOST_MEMORY + 4 * (self.body.len() as u64 >> 22 << 2);
        assert!(memory <= most, "{} {what}: {memory} MiB", self.name);
        assert!(time <= MOST_TIME, "{} {what}: {time:?}", self.name);
    }
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(plain).unwrap();
    packer.finish().unwrap()
}

/// Gzip of a text, then of another that many times, then of a third: in as many members, so that it is quickly made.
fn gzip_repeated(before: &str, repeated: &str, times: usize, after: &str) -> Vec<u8> {
    let mut packed = gzip(before.as_bytes());
    packed.extend(gzip(repeated.as_bytes()).repeat(times));
    packed.extend(gzip(after.as_bytes()));
    packed
}

/// `Packages.adb` with one package in it, that many times.
fn packages_adb(times: usize) -> Vec<u8> {
    let mut tree: Vec<u8> = vec![0; 8];
    let text = |tree: &mut Vec<u8>, text: &str| {
        let at = tree.len() as u32;
        tree.push(text.len() as u8);
        tree.extend_from_slice(text.as_bytes());
        0x8000_0000 | at
    };
    let (name, version, arch) = (
        text(&mut tree, "a"),
        text(&mut tree, "1-r0"),
        text(&mut tree, "x86_64"),
    );
    let slots = |tree: &mut Vec<u8>, kind: u32, values: &[u32]| {
        while !tree.len().is_multiple_of(4) {
            tree.push(0);
        }
        let at = tree.len() as u32;
        tree.extend_from_slice(&(values.len() as u32 + 1).to_le_bytes());
        for value in values {
            tree.extend_from_slice(&value.to_le_bytes());
        }
        kind | at
    };
    let package = slots(&mut tree, 0xe000_0000, &[name, version, 0, 0, arch]);
    let packages = slots(&mut tree, 0xd000_0000, &vec![package; times]);
    let root = slots(&mut tree, 0xe000_0000, &[0, packages]);
    tree[4..8].copy_from_slice(&root.to_le_bytes());
    let mut plain = b"ADB.indx".to_vec();
    plain.extend_from_slice(&(tree.len() as u32 + 4).to_le_bytes());
    plain.extend_from_slice(&tree);
    while !plain.len().is_multiple_of(8) {
        plain.push(0);
    }
    let mut packed = b"ADBc\x02\x00".to_vec();
    packed.extend(zstd::encode_all(&plain[..], 3).unwrap());
    packed
}

fn apkindex(records: &str) -> Vec<u8> {
    let mut header = [0_u8; 512];
    header[..8].copy_from_slice(b"APKINDEX");
    header[124..136].copy_from_slice(format!("{:011o}\0", records.len()).as_bytes());
    header[156] = b'0';
    header[148..156].copy_from_slice(b"        ");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = header.to_vec();
    archive.extend_from_slice(records.as_bytes());
    archive.resize(archive.len().next_multiple_of(512), 0);
    gzip(&archive)
}

fn case(name: &'static str, package: PackageType, key_path: &'static str, body: Vec<u8>) -> Case {
    Case {
        name,
        package,
        key_path,
        content_type: "",
        url: format!("https://mirror.example.com/{key_path}"),
        body,
        form: None,
        expected: Expected::Either,
    }
}

const PRIMARY: &str = "repodata/primary.xml.gz";

fn simple_pages() -> Vec<Case> {
    let page = |name, content_type, body: String| Case {
        content_type,
        form: Some("simple+json"),
        ..case(name, PackageType::Pypi, "simple/foo/", body.into_bytes())
    };
    let links = |count: usize| "<a href=a>".repeat(count);
    let base = |length: usize| {
        format!(
            "<base href=https://mirror.example.com/{}/>",
            "b".repeat(length)
        )
    };
    let json_file = |url: &str| format!("{{\"filename\":\"a\",\"url\":\"{url}\",\"hashes\":{{}}}}");
    let json = |url: &str, count: usize| {
        format!(
            "{{\"meta\":{{\"api-version\":\"1.0\"}},\"name\":\"foo\",\"files\":[{}]}}",
            vec![json_file(url); count].join(",")
        )
    };
    vec![
        page(
            "page, base of 100 KB",
            "text/html",
            format!(
                "<title>Links for foo</title>{}{}",
                base(100_000),
                links(15_500)
            ),
        ),
        page(
            "page, base of 2 KB",
            "text/html",
            format!(
                "<title>Links for foo</title>{}{}",
                base(2000),
                links(25_000)
            ),
        ),
        page(
            "page, 300,000 anchors",
            "text/html",
            format!("<title>Links for foo</title>{}", links(300_000)),
        ),
        page(
            "page, nested anchors",
            "text/html",
            format!(
                "<title>Links for foo</title>{}",
                "<a href=a><b>".repeat(50_000)
            ),
        ),
        page(
            "page, attributes",
            "text/html",
            format!(
                "<title>Links for foo</title>{}",
                format!(
                    "<a href=a {}>",
                    (0..60).map(|n| format!("a{n} ")).collect::<String>()
                )
                .repeat(3000)
            ),
        ),
        Case {
            url: format!("https://mirror.example.com/{}", "u".repeat(60_000)),
            ..page(
                "page, redirect to 60 KB",
                "text/html",
                format!("<title>Links for foo</title>{}", links(20_000)),
            )
        },
        page(
            "JSON page, dots",
            "application/vnd.pypi.simple.v1+json",
            json(&"../".repeat(2000), 400),
        ),
        Case {
            url: format!("https://mirror.example.com/{}", "u/".repeat(1000)),
            ..page(
                "JSON page, long URL",
                "application/vnd.pypi.simple.v1+json",
                json("a", 20_000),
            )
        },
        page(
            "JSON page, depth",
            "application/vnd.pypi.simple.v1+json",
            "[".repeat(500_000),
        ),
    ]
}

fn rpm() -> Vec<Case> {
    let package = |href: &str| format!("<package><location href=\"{href}\"/></package>");
    let primary = |name, body: String| {
        case(
            name,
            PackageType::Rpm,
            PRIMARY,
            gzip(format!("<metadata>{body}</metadata>").as_bytes()),
        )
    };
    let long = |name, length: usize, packages: usize| Case {
        url: format!(
            "https://cdn.example.net/{}/repodata/primary.xml.gz",
            "u".repeat(length)
        ),
        ..primary(name, package("a.rpm").repeat(packages))
    };
    vec![
        long("primary, URL of 60 KB", 60_000, 300_000),
        Case {
            expected: Expected::Refused("takes more than"),
            ..long("primary, URL of 2 KB", 2000, 300_000)
        },
        primary("primary, 300,000 packages", package("a").repeat(300_000)),
        Case {
            expected: Expected::Refused("unpacks to far more"),
            ..case(
                "primary, 4 GiB",
                PackageType::Rpm,
                PRIMARY,
                gzip_repeated(
                    "<metadata>",
                    &format!("<x>{}</x>", " ".repeat(3 << 20)),
                    1366,
                    "</metadata>",
                ),
            )
        },
        primary(
            "primary, names of 3 MiB",
            format!("<{}>", "n".repeat(3 << 20)).repeat(20),
        ),
        primary(
            "primary, endless text",
            format!(
                "<package><checksum>{}",
                "<![CDATA[aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa]]>".repeat(500_000)
            ),
        ),
        primary("primary, depth", "<a>".repeat(1_000_000)),
        case(
            "repomd, records",
            PackageType::Rpm,
            "repodata/repomd.xml",
            format!(
                "<repomd>{}</repomd>",
                "<data><location href=\"repodata/a\"/></data>".repeat(24_000)
            )
            .into_bytes(),
        ),
    ]
}

fn alpine() -> Vec<Case> {
    let mut records = String::new();
    for n in 0..150_000 {
        let _ = write!(records, "P:a{n}\nV:1\n\n");
    }
    let long = "x".repeat(1000);
    let long_names: String = (0..20_000)
        .map(|n| format!("P:{long}{n}\nV:{long}\n\n"))
        .collect();
    let index = |name, body| case(name, PackageType::Alpine, "x86_64/APKINDEX.tar.gz", body);
    vec![
        Case {
            expected: Expected::Claims(1),
            ..case(
                "adb, one package a million times",
                PackageType::Alpine,
                "x86_64/Packages.adb",
                packages_adb(1_000_000),
            )
        },
        case(
            "adb, more than a million",
            PackageType::Alpine,
            "x86_64/Packages.adb",
            packages_adb(2_000_000),
        ),
        index("apkindex, 150,000 records", apkindex(&records)),
        index("apkindex, long names", apkindex(&long_names)),
        Case {
            expected: Expected::Claims(1),
            ..index(
                "apkindex, one record",
                apkindex(&"P:a\nV:1\nA:x86_64\n\n".repeat(300_000)),
            )
        },
        index("apkindex, one line", apkindex(&"P".repeat(20 << 20))),
        index(
            "apkindex, four gigabytes",
            gzip_repeated("", &" ".repeat(4 << 20), 1024, ""),
        ),
        index("apkindex, tar headers", {
            let mut header = apkindex("");
            let mut plain = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&header[..]), &mut plain)
                .unwrap();
            plain.truncate(512);
            plain[0] = b'B';
            plain[148..156].copy_from_slice(b"        ");
            let sum: u32 = plain.iter().map(|byte| u32::from(*byte)).sum();
            plain[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            header = gzip(&plain.repeat(40_000));
            header
        }),
    ]
}

fn helm() -> Vec<Case> {
    let index = |name, body: String| Case {
        form: Some("index"),
        ..case(name, PackageType::Helm, "index.yaml", body.into_bytes())
    };
    let bomb = {
        let mut text = String::from("apiVersion: v1\nentries: {}\na0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for n in 1..12 {
            let _ = writeln!(
                text,
                "a{n}: &a{n} [{}]",
                vec![format!("*a{}", n - 1); 10].join(",")
            );
        }
        text
    };
    let versions = |count: usize| {
        format!(
            "apiVersion: v1\nentries:\n  a:\n{}",
            "  - urls:\n    - a\n".repeat(count)
        )
    };
    vec![
        Case {
            expected: Expected::Refused("aliases"),
            ..index("helm, aliases", bomb)
        },
        Case {
            expected: Expected::Refused("recursion limit"),
            ..index(
                "helm, depth",
                format!("apiVersion: v1\nentries: {}", "[".repeat(100_000)),
            )
        },
        index(
            "helm, flow",
            format!(
                "apiVersion: v1\nentries: {{a: [{}]}}",
                "{urls: [a]},".repeat(20_000)
            ),
        ),
        index("helm, versions", versions(100_000)),
        index(
            "helm, anchored versions",
            format!("x: &x y\n{}", versions(50_000)),
        ),
        index(
            "helm, long scalar",
            format!(
                "apiVersion: v1\nentries: {{}}\nx: &x {}",
                "y".repeat(4 << 20)
            ),
        ),
        Case {
            key_path: LONG_FOLDER.get_or_init(|| format!("{}/index.yaml", "f".repeat(900))),
            ..index("helm, long folder", versions(100_000))
        },
    ]
}

static LONG_FOLDER: std::sync::OnceLock<String> = std::sync::OnceLock::new();

fn npm_and_oci() -> Vec<Case> {
    let packument = |name, body: String| Case {
        form: Some("packument"),
        ..case(name, PackageType::Npm, "foo", body.into_bytes())
    };
    let versions = |count: usize, name: &str, dist: &str| {
        let mut text = String::from("{\"name\":\"foo\",\"versions\":{");
        for n in 0..count {
            let comma = if n == 0 { "" } else { "," };
            let _ = write!(text, "{comma}\"{n}.0.0{name}\":{{{dist}}}");
        }
        text + "}}"
    };
    let tags = |items: String| {
        case(
            "oci, tags",
            PackageType::Docker,
            "library/foo/tags/list",
            format!("{{\"name\":\"foo\",\"tags\":[{items}]}}").into_bytes(),
        )
    };
    vec![
        packument("npm, 200,000 versions", versions(200_000, "", "")),
        packument(
            "npm, 100,000 with tarballs",
            versions(100_000, "", "\"dist\":{\"tarball\":\"a\"}"),
        ),
        packument(
            "npm, 100,000 of long names",
            versions(
                100_000,
                &format!("-{}", "n".repeat(200)),
                "\"dist\":{\"tarball\":\"https://mirror.example.com/a\"}",
            ),
        ),
        Case {
            url: format!("https://mirror.example.com/{}/foo", "u".repeat(2000)),
            ..packument(
                "npm, long URL",
                versions(50_000, "", "\"dist\":{\"tarball\":\"a\"}"),
            )
        },
        packument(
            "npm, times",
            format!(
                "{{\"name\":\"foo\",\"versions\":{{}},\"time\":{{{}}}}}",
                vec!["\"a\":\"b\""; 500_000].join(",")
            ),
        ),
        packument("npm, depth", format!("{{\"a\":{}", "[".repeat(1_000_000))),
        Case {
            expected: Expected::Refused("entries"),
            ..tags(vec!["\"a\""; 3_000_000].join(","))
        },
        tags("[".repeat(1_000_000)),
        Case {
            content_type: "application/vnd.oci.image.index.v1+json",
            expected: Expected::Refused("blobs"),
            ..case(
                "oci, manifests",
                PackageType::Docker,
                "library/foo/manifests/latest",
                format!("{{\"manifests\":[{}]}}", vec!["{}"; 2_000_000].join(",")).into_bytes(),
            )
        },
    ]
}

/// One after the other: memory is the whole process's.
#[test]
fn hazard_x4_small_documents_stay_within_their_budgets() {
    let began = Instant::now();
    let mut failed = Vec::new();
    for cases in [simple_pages, rpm, alpine, helm, npm_and_oci] {
        for case in cases() {
            let name = case.name;
            failed.extend(
                std::panic::catch_unwind(move || case.run())
                    .err()
                    .map(|_| name),
            );
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
    println!("all of it: {:?}", began.elapsed());
}

//! One function for each parser of hostile input. None may panic, and what is made of an input must itself be good.

use std::io::Write as _;

use larder_core::{
    AccessPolicy, ArtifactPath, CachePolicy, Conditions, Current, Kind, PackageType, PathRules,
    QuarantinePolicy, RangeAnswer, Repository, RepositoryName, UpstreamAuth, UpstreamSettings,
    evaluate_range, parse_range,
};
use larder_formats::{Document, Format, LinkBase, LinkKey, Links, format_of};
use url::Url;

const ROOT: &str = "https://mirror.example.com/root/";

fn remote(package: PackageType) -> Option<Repository> {
    let base: Url = ROOT.parse().ok()?;
    let second = std::time::Duration::from_secs(1);
    Some(Repository {
        name: RepositoryName::parse("fuzz").ok()?,
        package,
        description: String::new(),
        kind: Kind::Remote(Box::new(UpstreamSettings {
            max_disk: None,
            base_urls: vec![base.clone()],
            index_url: base,
            credentials: None,
            auth: UpstreamAuth::Basic,
            default_namespace: None,
            headers: Vec::new(),
            connect_timeout: second,
            read_timeout: second,
            allow_private: Vec::new(),
            link_hosts: None,
            ca_file: None,
            proxy: None,
            offline: false,
            max_size: None,
            limits: larder_core::RequestLimits::default(),
        })),
        access: AccessPolicy::default(),
        cache: CachePolicy::default(),
        quarantine: QuarantinePolicy::default(),
        authoritative: false,
        reserved: larder_core::ReservedNames::default(),
        rules_epoch: 0,
    })
}

/// A document, read in every way.
struct Reading<'a> {
    package: PackageType,
    key_path: &'a str,
    content_type: &'a str,
    variant: &'a str,
    forms: &'a [&'static str],
}

impl Reading<'_> {
    /// Reads `body`, and gives what is made of it to `judge`.
    fn run(&self, body: &[u8], judge: impl Fn(&'static dyn Format, &str, &[u8])) {
        let format = format_of(self.package);
        let (Some(repository), Ok(url)) = (
            remote(self.package),
            Url::parse(&format!("{ROOT}{}", self.key_path)),
        ) else {
            return;
        };
        let document = Document {
            body,
            content_type: self.content_type,
            url: &url,
            key_path: self.key_path,
            variant: self.variant,
            memo: None,
        };
        let links = || {
            let base = LinkBase::new("https://larder.example/api/v1/remote/fuzz/");
            Links::new(&repository, &LinkKey::from_bytes([7; 32]), base)
        };
        let checked = format.check(&repository, &document, &document.meter());
        let claimed = format.claims(&document, &links(), &mut |claim| {
            assert!(
                ArtifactPath::from_decoded(claim.path.split('?').next().unwrap_or_default())
                    .is_ok(),
                "a claim for a path that nobody can ask for: {:?}",
                claim.path
            );
            assert!(
                claim.url.is_empty() || Url::parse(&claim.url).is_ok(),
                "a claim for no URL: {:?}",
                claim.url
            );
        });
        show(format, &document, &links());
        for form in self.forms {
            let derived = format.derive(&document, form, &links());
            // What was checked is refused later for its budget only.
            if checked.is_err() {
                continue;
            }
            match derived {
                Ok(derived) => judge(format, form, &derived.body),
                Err(error) => assert!(error.0.contains("more than"), "checked, and yet: {error}"),
            }
        }
        if let (Ok(()), Err(error)) = (checked, claimed) {
            let is_nested = self.key_path.contains("primary");
            assert!(
                is_nested || error.0.contains("more than"),
                "checked, and yet: {error}"
            );
        }
    }
}

/// Reads what people are shown of a document.
fn show(format: &'static dyn Format, document: &Document<'_>, links: &Links<'_>) {
    let _ = format.releases(document, "jam", links);
    let _ = format.image_config(document.body);
    let Ok(Some(manifest)) = format.manifest(document, 20) else {
        return;
    };
    assert!(manifest.parts.len() <= 20, "more parts than were asked for");
    for part in manifest.parts {
        assert!(
            ArtifactPath::from_decoded(&part.path).is_ok(),
            "a part under a path that nobody can ask for: {:?}",
            part.path
        );
    }
}

fn is_json(_: &'static dyn Format, form: &str, body: &[u8]) {
    if form.ends_with("json") || form == "packument" || form == "version" {
        assert!(
            serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok(),
            "{form} is no JSON"
        );
    } else {
        assert!(std::str::from_utf8(body).is_ok(), "{form} is no text");
    }
}

/// Packuments and manifests.
pub fn npm_json(data: &[u8]) {
    for (key_path, variant, form) in [
        ("n", "full", "packument"),
        ("n/latest", "version", "version"),
    ] {
        let reading = Reading {
            package: PackageType::Npm,
            key_path,
            content_type: "application/json",
            variant,
            forms: &[form],
        };
        reading.run(data, is_json);
    }
}

fn simple(data: &[u8], content_type: &str) {
    for key_path in ["simple/foo/", "simple/"] {
        let reading = Reading {
            package: PackageType::Pypi,
            key_path,
            content_type,
            variant: "",
            forms: &["simple+json", "simple+html"],
        };
        reading.run(data, is_json);
    }
}

/// HTML simple pages.
pub fn pypi_simple_html(data: &[u8]) {
    simple(data, "text/html");
}

/// JSON simple pages.
pub fn pypi_simple_json(data: &[u8]) {
    simple(data, "application/vnd.pypi.simple.v1+json");
}

/// Helm's indexes, in YAML of any style and in JSON.
pub fn helm_index(data: &[u8]) {
    let reading = Reading {
        package: PackageType::Helm,
        key_path: "index.yaml",
        content_type: "",
        variant: "",
        forms: &["index"],
    };
    reading.run(data, |format, _, body| {
        let (Some(repository), Ok(url)) = (remote(PackageType::Helm), Url::parse(ROOT)) else {
            return;
        };
        let again = Document {
            body,
            content_type: "",
            url: &url,
            key_path: "index.yaml",
            variant: "",
            memo: None,
        };
        let checked = format.check(&repository, &again, &again.meter());
        assert_eq!(checked, Ok(()), "a rewritten index is none");
    });
}

fn rpm(data: &[u8], key_path: &str, forms: &[&'static str]) {
    let reading = Reading {
        package: PackageType::Rpm,
        key_path,
        content_type: "",
        variant: "",
        forms,
    };
    reading.run(data, |_, _, body| {
        assert!(std::str::from_utf8(body).is_ok());
    });
}

/// `primary.xml`, packed in any way or not.
pub fn rpm_primary(data: &[u8]) {
    rpm(data, "repodata/primary.xml", &[]);
}

/// `repomd.xml`.
pub fn rpm_repomd(data: &[u8]) {
    rpm(data, "repodata/repomd.xml", &["metalink", "mirrorlist"]);
}

fn alpine(data: &[u8], key_path: &str) {
    let reading = Reading {
        package: PackageType::Alpine,
        key_path,
        content_type: "",
        variant: "",
        forms: &[],
    };
    reading.run(data, |_, _, _| ());
}

/// The identities of a package must not depend on how its bytes are cut.
fn identities(data: &[u8]) {
    let format = format_of(PackageType::Alpine);
    let of = |step: usize| {
        let mut identifier = format.identifier("x86_64/a-1-r0.apk")?;
        data.chunks(step).for_each(|chunk| identifier.update(chunk));
        Some(identifier.finish())
    };
    assert_eq!(
        of(7),
        of(usize::MAX),
        "identities that depend on how the bytes came"
    );
}

/// `Packages.adb` and packages of version 3.
pub fn alpine_adb(data: &[u8]) {
    alpine(data, "x86_64/Packages.adb");
    identities(data);
}

/// Packs with as little work as may be: inputs are made by the thousand.
fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    let _ = packer.write_all(plain);
    packer.finish().unwrap_or_default()
}

/// Tar archives within `APKINDEX.tar.gz`, and packages of version 2.
pub fn alpine_tar(data: &[u8]) {
    let packed = gzip(data);
    alpine(&packed, "x86_64/APKINDEX.tar.gz");
    identities(&packed);
}

/// The records of an `APKINDEX`.
pub fn alpine_apkindex(data: &[u8]) {
    let mut archive = vec![0; 512];
    archive[..8].copy_from_slice(b"APKINDEX");
    archive[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
    archive[148..156].copy_from_slice(b"        ");
    archive[156] = b'0';
    let sum: u32 = archive.iter().map(|byte| u32::from(*byte)).sum();
    archive[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    archive.extend_from_slice(data);
    archive.resize(archive.len().next_multiple_of(512), 0);
    alpine(&gzip(&archive), "x86_64/APKINDEX.tar.gz");
}

/// Manifests, indexes, signed manifests and lists of tags.
pub fn oci_manifest(data: &[u8]) {
    for (key_path, content_type) in [
        (
            "library/a/manifests/latest",
            "application/vnd.oci.image.manifest.v1+json",
        ),
        (
            "library/a/manifests/latest",
            "application/vnd.oci.image.index.v1+json",
        ),
        ("library/a/tags/list", "application/json"),
    ] {
        let reading = Reading {
            package: PackageType::Docker,
            key_path,
            content_type,
            variant: "",
            forms: &[],
        };
        reading.run(data, |_, _, _| ());
    }
    let signed = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    let format = format_of(PackageType::Docker);
    let part = format.digested_part("library/a/manifests/latest", signed, data);
    assert!(part.is_none_or(|part| part.len() <= data.len() + 1024));
}

/// `Range`.
pub fn core_range(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let _ = parse_range(text);
    for length in [0, 1, 1000, u64::MAX] {
        let asked = Conditions {
            range: Some(text),
            ..Conditions::default()
        };
        let ranges = match evaluate_range(&asked, &Current::default(), length) {
            RangeAnswer::Single(range) => vec![range],
            RangeAnswer::Multiple(ranges) => ranges,
            RangeAnswer::Whole | RangeAnswer::NotSatisfiable => continue,
        };
        assert!(ranges.len() <= 256);
        let mut sum: u128 = 0;
        for range in ranges {
            assert!(
                range.start <= range.end && range.end < length,
                "{range:?} of {length}"
            );
            sum += u128::from(range.end - range.start) + 1;
        }
        assert!(sum <= u128::from(length), "more than there is");
    }
}

/// Paths of requests.
pub fn core_path(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    for encoded_scope_slash in [false, true] {
        let rules = PathRules {
            encoded_scope_slash,
        };
        let Ok(path) = ArtifactPath::parse(text, rules) else {
            continue;
        };
        let decoded = path.as_str();
        assert!(!decoded.starts_with('/') && decoded.len() <= larder_core::MAX_PATH_BYTES);
        assert!(
            !decoded
                .split('/')
                .any(|segment| matches!(segment, "." | "..")),
            "{decoded:?}"
        );
        assert!(!decoded.contains(['\\', '\0']), "{decoded:?}");
        let again = ArtifactPath::parse(path.encoded(), rules);
        assert_eq!(
            again.as_ref(),
            Ok(&path),
            "what is encoded means something else"
        );
        if let Ok(root) = Url::parse(ROOT)
            && let Ok(url) = larder_core::join_url(&root, path.encoded(), None)
        {
            assert!(
                url.as_str().starts_with(ROOT),
                "{url} leads out of the root"
            );
        }
    }
}

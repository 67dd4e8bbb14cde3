//! The files of `testdata` were made by apk-tools 3.0.8 (indexes, and the records in them) and by `tests/e2e/alpine_packages.py`
//! (packages): the identities in the indexes are apk's own arithmetic.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use larder_core::{BuiltIn, PackageType, Repository};
use proptest::prelude::*;
use url::Url;

use super::*;
use crate::testing::{links, read, remote};

const INDEX: &[u8] = include_bytes!("testdata/APKINDEX.tar.gz");
const INDEX_V3: &[u8] = include_bytes!("testdata/Packages.adb");
const DEMO: &[u8] = include_bytes!("testdata/demo-1.0-r0.apk");
const LIBSTDCPP: &[u8] = include_bytes!("testdata/libstdc++-13.2.1_git20240309-r0.apk");
/// `C:` and `S:` of the two packages, as `gzip -dc APKINDEX.tar.gz` shows them.
const DEMO_IS: &str = "Q1aLu5NkVposCFUqh3HKivnCuaRXQ=";
const LIBSTDCPP_IS: &str = "Q1FHdWypjZVn18gcM+IoWdG7ywhlM=";
const PLACE: &str = "v3.23/main/x86_64/APKINDEX.tar.gz";

fn repository() -> Repository {
    remote(
        "alpine",
        PackageType::Alpine,
        "https://mirror.example.com/alpine/",
    )
}

fn claims(body: &[u8], key_path: &str) -> Result<Vec<Claim>, Malformed> {
    let repository = repository();
    let url = Url::parse("https://mirror.example.com/alpine/")
        .unwrap()
        .join(key_path)
        .unwrap();
    let document = crate::testing::document(body, &url, key_path);
    let verdict = Alpine.check(&repository, &document, &crate::Meter::default());
    let mut all = Vec::new();
    let claimed = Alpine.claims(&document, &links(&repository), &mut |claim| all.push(claim));
    assert_eq!(
        verdict, claimed,
        "check refuses whatever claims would refuse"
    );
    claimed.map(|()| all)
}

fn identity(bytes: &[u8], step: usize) -> Option<String> {
    let mut identifier = Alpine.identifier("x86_64/a-1.apk").unwrap();
    bytes
        .chunks(step)
        .for_each(|chunk| identifier.update(chunk));
    let mut all = identifier.finish();
    assert!(
        all.len() < 2,
        "a package of version 2 has one identity: {all:?}"
    );
    all.pop()
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// A tar entry with its padding (POSIX ustar).
fn entry(name: &str, content: &[u8]) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    block[148..156].fill(b' ');
    block[156] = b'0';
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block.extend_from_slice(content);
    block.resize(block.len().next_multiple_of(512), 0);
    block
}

fn index(text: &str) -> Vec<u8> {
    gzip(
        &[
            entry("DESCRIPTION", b"v1"),
            entry("APKINDEX", text.as_bytes()),
            vec![0; 1024],
        ]
        .concat(),
    )
}

fn why(body: &[u8]) -> String {
    claims(body, PLACE).unwrap_err().0
}

#[test]
fn apk_03_plus_is_a_letter_and_goes_upstream_as_it_came() {
    for (path, sent) in [
        ("v3.23/main/x86_64/g++-14.apk", "g++-14.apk"),
        ("v3.23/main/x86_64/g%2B%2b-14.apk", "g%2B%2b-14.apk"),
    ] {
        let read = read(&Alpine, &repository(), path, Some("x=1"));
        assert_eq!(read.source.key_path, "v3.23/main/x86_64/g++-14.apk");
        assert_eq!(read.source.path, format!("v3.23/main/x86_64/{sent}"));
        assert_eq!(
            (read.source.query, read.form, read.source.is_document),
            (None, Form::Verbatim, false)
        );
    }
}

#[test]
fn apk_15_indexes_of_both_versions_and_helpers_are_mutable_and_packages_are_not() {
    for (path, mutable, document) in [
        ("v3.23/main/x86_64/APKINDEX.tar.gz", true, true),
        ("APKINDEX.tar.gz", true, true),
        ("edge/x86_64/Packages.adb", true, true),
        ("last-updated", true, false),
        ("MIRRORS.txt", true, false),
        ("v3.23/releases/x86_64/latest-releases.yaml", true, false),
        ("v3.23/main/x86_64/demo-1.0-r0.apk", false, false),
        ("keys/builder.rsa.pub", false, false),
        ("x86_64/apkindex.tar.gz", false, false),
        ("x86_64/APKINDEX.tar.gz.old", false, false),
        ("last-updated/x", false, false),
        // The contract's pattern is not anchored at its start.
        ("x86_64/old-APKINDEX.tar.gz", true, false),
    ] {
        assert_eq!(
            Alpine.facts(&repository(), path).built_in == BuiltIn::Mutable,
            mutable,
            "{path}"
        );
        assert_eq!(
            read(&Alpine, &repository(), path, None).source.is_document,
            document,
            "{path}"
        );
    }
}

#[test]
fn apk_16_a_package_is_named_by_the_index_of_its_own_folder() {
    let named =
        |path| crate::testing::named_by(&Alpine, &repository(), path).map(|spec| spec.key_path);
    assert_eq!(
        named("v3.20/main/x86_64/a-1.apk").as_deref(),
        Some("v3.20/main/x86_64/APKINDEX.tar.gz")
    );
    assert_eq!(
        named("v3.20/community/x86_64/a-1.apk").as_deref(),
        Some("v3.20/community/x86_64/APKINDEX.tar.gz")
    );
    assert_eq!(named("a-1.apk").as_deref(), Some("APKINDEX.tar.gz"));
    for path in [
        "x86_64/APKINDEX.tar.gz",
        "x86_64/Packages.adb",
        "x86_64/.apk",
        "x86_64/a.tar.gz",
        "x86_64/a-1.apk.asc",
    ] {
        assert_eq!(named(path), None, "{path}");
    }
}

#[test]
fn apk_12_an_index_names_packages_by_what_their_bytes_are() {
    let claims = claims(INDEX, PLACE).unwrap();
    let said: Vec<_> = claims
        .iter()
        .map(|c| (c.path.as_str(), c.identity.as_deref(), c.size))
        .collect();
    let folder = "v3.23/main/x86_64";
    assert_eq!(
        said,
        [
            (
                &*format!("{folder}/demo-1.0-r0.apk"),
                Some(DEMO_IS),
                Some(907)
            ),
            (
                &*format!("{folder}/libstdc++-13.2.1_git20240309-r0.apk"),
                Some(LIBSTDCPP_IS),
                Some(939)
            ),
        ]
    );
    assert!(
        claims
            .iter()
            .all(|claim| claim.url.is_empty() && claim.digests.is_empty())
    );
    for step in [1, 7, 512, 4096] {
        assert_eq!(identity(DEMO, step).as_deref(), Some(DEMO_IS), "{step}");
        assert_eq!(
            identity(LIBSTDCPP, step).as_deref(),
            Some(LIBSTDCPP_IS),
            "{step}"
        );
    }
}

#[test]
fn apk_12_no_bit_of_control_or_data_can_change_unseen() {
    let mut unseen = Vec::new();
    for at in 0..DEMO.len() * 8 {
        let mut changed = DEMO.to_vec();
        changed[at / 8] ^= 1 << (at % 8);
        if identity(&changed, 4096).as_deref() == Some(DEMO_IS) {
            unseen.push(at / 8);
        }
    }
    // The signature is not part of the identity; the client checks it.
    assert!(unseen.iter().all(|&at| at < control_begins()), "{unseen:?}");
    for length in 0..DEMO.len() {
        assert_ne!(
            identity(&DEMO[..length], 4096).as_deref(),
            Some(DEMO_IS),
            "cut after {length} bytes"
        );
    }
    assert_ne!(
        identity(&[DEMO, &[0]].concat(), 4096).as_deref(),
        Some(DEMO_IS),
        "something follows"
    );
    assert_ne!(
        identity(&[DEMO, DEMO].concat(), 4096).as_deref(),
        Some(DEMO_IS)
    );
}

/// Where the control member begins: at the second gzip header.
fn control_begins() -> usize {
    let headers = DEMO
        .windows(3)
        .enumerate()
        .filter(|(_, three)| *three == [0x1f, 0x8b, 8]);
    let starts: Vec<_> = headers.map(|(at, _)| at).collect();
    assert_eq!(starts.len(), 3, "signature, control, data: {starts:?}");
    starts[1]
}

#[test]
fn what_is_no_package_has_no_identity() {
    let bomb = gzip(&vec![0; 300 << 20]);
    for (what, body) in [
        ("nothing", &b""[..]),
        ("a page", b"<!doctype html><title>log in</title>"),
        ("a package of apk 3", b"ADB.\0\0\0\0"),
        ("a gzip file that is no tar", &gzip(b"hello")),
        ("a gzip bomb", &bomb),
    ] {
        assert_eq!(identity(body, 4096), None, "{what}");
    }
    assert!(Alpine.identifier("x86_64/APKINDEX.tar.gz").is_none());
}

#[test]
fn two_records_for_one_file_claim_nothing() {
    let record = |identity: &str| format!("C:{identity}\nP:a\nV:1\nS:5\n\n");
    let both = index(&(record("Q1AAAA=") + &record("Q1BBBB=")));
    let claims = |body: &[u8]| claims(body, "x/APKINDEX.tar.gz").unwrap();
    assert_eq!(claims(&both).len(), 1);
    assert_eq!(
        (claims(&both)[0].identity.clone(), claims(&both)[0].size),
        (None, None)
    );
    let twice = index(&(record("Q1AAAA=") + &record("Q1AAAA=")));
    assert_eq!(claims(&twice)[0].identity.as_deref(), Some("Q1AAAA="));
}

#[test]
fn records_are_read_as_apk_writes_them_and_hostile_names_make_no_paths() {
    let text = "C:Q1AAAA=\nP:a\nV:1~2f_git3\nS:5\nx:unknown\nD:so:b c>1\n\n\n\
                P:../../etc/passwd\nV:1\nS:1\nC:Q1A\n\nP:b/c\nV:1\n\nP:d\nV:\n\nP:e\nV:2\nC:X9AA\nS:1\n\nP:f\nV:3\nC:Q1A\nS:x";
    let said: Vec<_> = claims(&index(text), "r/APKINDEX.tar.gz")
        .unwrap()
        .into_iter()
        .map(|c| (c.path, c.identity))
        .collect();
    assert_eq!(
        said,
        [
            ("r/a-1~2f_git3.apk".to_owned(), Some("Q1AAAA=".to_owned())),
            // What is not understood of them is not held against them.
            ("r/e-2.apk".to_owned(), None),
            // Without a size the identity is all there is, and all that is needed.
            ("r/f-3.apk".to_owned(), Some("Q1A".to_owned())),
        ]
    );
    assert_eq!(claims(&index(""), PLACE).unwrap(), []);
}

#[test]
fn a_package_is_named_in_the_folder_of_its_own_architecture_too() {
    let text = "C:Q1AAAA=\nP:a\nV:1\nA:noarch\nS:5\n\nC:Q1BBBB=\nP:b\nV:2\nA:x86_64\nS:6\n\nC:Q1CCCC=\nP:c\nV:3\nA:../etc\nS:7\n";
    let paths = |place| -> Vec<_> {
        claims(&index(text), place)
            .unwrap()
            .into_iter()
            .map(|claim| claim.path)
            .collect()
    };
    assert_eq!(
        paths("v3.23/main/x86_64/APKINDEX.tar.gz"),
        [
            "v3.23/main/noarch/a-1.apk",
            "v3.23/main/x86_64/a-1.apk",
            "v3.23/main/x86_64/b-2.apk"
        ]
    );
    assert_eq!(
        paths("x86_64/APKINDEX.tar.gz"),
        ["noarch/a-1.apk", "x86_64/a-1.apk", "x86_64/b-2.apk"]
    );
    assert_eq!(paths("APKINDEX.tar.gz"), ["a-1.apk", "b-2.apk"]);
}

#[test]
fn what_is_no_index_is_refused() {
    for (body, expected) in [
        (
            &b"<!doctype html><title>log in</title>"[..],
            "no gzip-compressed tar",
        ),
        (b"", "ends too early"),
        (&INDEX[..INDEX.len() - 9], "ends too early"),
        (&gzip(b"hello"), "ends too early"),
        (&gzip(&[b'x'; 2048]), "no gzip-compressed tar"),
        (&gzip(&entry("README", b"x")), "no file named APKINDEX"),
        (&[INDEX, INDEX].concat(), "something follows"),
        (&index("no field\n"), "line 1"),
        (&index(&format!("D:{}", "x".repeat(2 << 20))), "longer than"),
        (
            &gzip(&entry(".SIGN.RSA.k", b"x")).repeat(40),
            "more than 16 signatures",
        ),
        (&gzip(&entry(".SIGN.RSA.k", b"x")), "no file named APKINDEX"),
    ] {
        let why = why(body);
        assert!(why.contains(expected), "{why}");
    }
    for at in 0..INDEX.len() {
        let mut damaged = INDEX.to_vec();
        damaged[at] ^= 0x40;
        // Nothing but the result matters: no panic, and no endless loop.
        drop(claims(&damaged, PLACE));
    }
}

#[test]
fn apk_15_an_index_of_version_3_is_told_from_a_log_in_page() {
    let paths: Vec<_> = claims(INDEX_V3, "x86_64/Packages.adb")
        .unwrap()
        .into_iter()
        .map(|claim| claim.path)
        .collect();
    assert_eq!(paths, ["x86_64/third-1.0-r0.apk"]);
    assert!(claims(b"<!doctype html>", "x86_64/Packages.adb").is_err());
    assert!(claims(b"", "x86_64/Packages.adb").is_err());
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_have_one_identity_or_none(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0..900_usize, step in 1..600_usize) {
        // Random bytes alone, and in the place of a package's own.
        prop_assert_eq!(identity(&bytes, step), None);
        let mut package = DEMO.to_vec();
        let end = (at + bytes.len()).min(package.len());
        bytes.truncate(end - at.min(end));
        package.splice(at.min(end)..end, bytes);
        prop_assert_eq!(identity(&package, step), identity(&package, package.len()));
        let _ = claims(&package, PLACE);
    }
}

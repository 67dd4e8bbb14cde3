//! The files of `testdata/v3` were made by apk-tools 3.0.8 (`mkpkg`, `mkndx`). The hashes below are what its `adbdump` prints of the
//! indexes, and of the packages for the identifiers that they carry themselves.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::DeflateEncoder;
use larder_core::{PackageType, Repository};
use proptest::prelude::*;
use std::io::Write as _;
use url::Url;

use super::*;
use crate::Memo;
use crate::testing::{links, remote};

/// Packed with deflate, as `mkpkg` does unasked.
const DEFLATED: &[u8] = include_bytes!("testdata/v3/deflated-1.0-r0.apk");
/// Not packed, and of the architecture `noarch`.
const PLAIN: &[u8] = include_bytes!("testdata/v3/plain-1.0-r0.apk");
/// Of version 2, and named by `mixed.adb`.
const DEMO: &[u8] = include_bytes!("testdata/demo-1.0-r0.apk");
const INDEX: &[u8] = include_bytes!("testdata/v3/Packages.adb");
/// `mkndx --hash sha256-160 --compression none`
const SHORT: &[u8] = include_bytes!("testdata/v3/short.adb");
const MIXED: &[u8] = include_bytes!("testdata/v3/mixed.adb");
/// `mkndx --pkgname-spec 'https://files.example.com/${arch}/${name}-${version}.apk'`
const ABSOLUTE: &[u8] = include_bytes!("testdata/v3/absolute.adb");
/// `mkndx --pkgname-spec 'pool/${name:3}/${name}-${version}.apk'`
const POOL: &[u8] = include_bytes!("testdata/v3/pool.adb");

const DEFLATED_HASH: &str = "6f75070b37bab16864e8e75aecb85c959d2e9156f3ef62197a37fe8e7949c0cb";
const DEFLATED_9_HASH: &str = "eab5906126bb0245c46a889e22109f91f7525e453a11c89dda4439777abf1d81";
const PLAIN_HASH: &str = "f3cbb9553077eeb8704774475f7980f2b55971133126901ac4b25b17159f7935";
const PLAIN_UNIQUE: &str = "0c7d7b39bea3246b426526b6c3aea4ce2dcd410e";
const DEMO_HASH: &str = "68bbb9364569a2c08552a8771ca8af9c2b9a4574";

/// The identity that an index states with this hash (`Q1`: 20 bytes, `Q2`: 32).
fn is(hash: &str) -> String {
    let bytes: Vec<u8> = (0..hash.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hash[at..at + 2], 16).unwrap())
        .collect();
    format!(
        "Q{}{}",
        if bytes.len() == 32 { 2 } else { 1 },
        STANDARD.encode(bytes)
    )
}

fn repository() -> Repository {
    remote(
        "alpine",
        PackageType::Alpine,
        "https://mirror.example.com/alpine/",
    )
}

fn read(body: &[u8], key_path: &str) -> (Result<Vec<Claim>, Malformed>, Option<String>) {
    let repository = repository();
    let url = Url::parse("https://mirror.example.com/alpine/")
        .unwrap()
        .join(key_path)
        .unwrap();
    let memo = Memo::default();
    let document = Document {
        body,
        content_type: "",
        url: &url,
        key_path,
        variant: "",
        memo: Some(&memo),
    };
    let verdict = Alpine.check(&repository, &document, &crate::Meter::default());
    let mut all = Vec::new();
    let claimed = Alpine.claims(&document, &links(&repository), &mut |claim| all.push(claim));
    assert_eq!(
        verdict, claimed,
        "check refuses whatever claims would refuse"
    );
    (claimed.map(|()| all), memo.remarked().map(str::to_owned))
}

fn said(body: &[u8], key_path: &str) -> Vec<(String, Option<String>)> {
    let (claims, remark) = read(body, key_path);
    assert_eq!(remark, None);
    let claims = claims.unwrap();
    assert!(
        claims
            .iter()
            .all(|claim| claim.url.is_empty() && claim.digests.is_empty() && claim.size.is_some())
    );
    claims
        .into_iter()
        .map(|claim| (claim.path, claim.identity))
        .collect()
}

fn identities(bytes: &[u8], step: usize) -> Vec<String> {
    let mut identifier = Alpine.identifier("x86_64/a-1.apk").unwrap();
    bytes
        .chunks(step)
        .for_each(|chunk| identifier.update(chunk));
    identifier.finish()
}

#[test]
fn apk_12_an_index_of_version_3_names_packages_by_the_hash_of_their_tree() {
    let at = |name: &str| format!("v3.24/main/x86_64/{name}-1.0-r0.apk");
    let hash = |hash: &str| Some(is(hash));
    assert_eq!(
        said(INDEX, "v3.24/main/x86_64/Packages.adb"),
        [
            // apk takes a package's folder from its own architecture, but for an index that is named by its own URL.
            (
                "v3.24/main/noarch/plain-1.0-r0.apk".to_owned(),
                hash(PLAIN_HASH)
            ),
            (at("deflated"), hash(DEFLATED_HASH)),
            (at("deflated9"), hash(DEFLATED_9_HASH)),
            (at("plain"), hash(PLAIN_HASH)),
        ]
    );
    for step in [1, 2, 7, 512, 4096] {
        assert!(
            identities(DEFLATED, step).contains(&is(DEFLATED_HASH)),
            "{step}"
        );
        assert!(identities(PLAIN, step).contains(&is(PLAIN_HASH)), "{step}");
    }
}

#[test]
fn apk_12_hashes_of_20_bytes_are_the_beginning_of_the_same_or_the_package_s_own_identifier() {
    let short: Vec<_> = said(SHORT, "x86_64/Packages.adb")
        .into_iter()
        .map(|(_, identity)| identity.unwrap())
        .collect();
    assert_eq!(
        short,
        [
            is(&PLAIN_HASH[..40]),
            is(&DEFLATED_HASH[..40]),
            is(&DEFLATED_9_HASH[..40]),
            is(&PLAIN_HASH[..40])
        ]
    );
    assert!(identities(DEFLATED, 512).contains(&is(&DEFLATED_HASH[..40])));
    let plain = identities(PLAIN, 512);
    assert_eq!(
        plain,
        [is(PLAIN_HASH), is(&PLAIN_HASH[..40]), is(PLAIN_UNIQUE)]
    );
    // The identifier in the package is not believed if it is not right.
    let mut forged = PLAIN.to_vec();
    let unique = is(PLAIN_UNIQUE);
    let bytes = STANDARD.decode(&unique[2..30]).unwrap();
    let at = forged
        .windows(20)
        .position(|window| window == bytes)
        .unwrap();
    forged[at] ^= 1;
    assert_eq!(identities(&forged, 512).len(), 2);
}

#[test]
fn apk_12_a_package_of_version_2_is_named_by_an_index_of_version_3_too() {
    let said = said(MIXED, "x86_64/Packages.adb");
    assert!(
        said.contains(&("x86_64/demo-1.0-r0.apk".to_owned(), Some(is(DEMO_HASH)))),
        "{said:?}"
    );
    assert_eq!(identities(DEMO, 512), [is(DEMO_HASH)]);
}

#[test]
fn apk_12_no_bit_of_the_tree_or_of_a_file_can_change_unseen() {
    // As `adbdump` shows it: a tree of 576 bytes, a signature, and two blocks of data (57 and 6 bytes behind their positions).
    let tree = 12..12 + 576;
    let files: [&[u8]; 2] = [
        b"a longer text of no meaning, a longer text of no meaning\n",
        b"third\n",
    ];
    let places = files.map(|file| {
        PLAIN
            .windows(file.len())
            .position(|window| window == file)
            .unwrap()
    });
    let mut unseen = Vec::new();
    for at in 0..PLAIN.len() * 8 {
        let mut changed = PLAIN.to_vec();
        changed[at / 8] ^= 1 << (at % 8);
        if identities(&changed, 4096).contains(&is(PLAIN_HASH)) {
            unseen.push(at / 8);
        }
    }
    assert!(unseen.iter().all(|at| !tree.contains(at)), "{unseen:?}");
    for (place, file) in places.into_iter().zip(files) {
        assert!(
            unseen
                .iter()
                .all(|at| !(place - 8..place + file.len()).contains(at)),
            "{unseen:?}"
        );
    }
    for length in 0..PLAIN.len() {
        assert_eq!(
            identities(&PLAIN[..length], 4096),
            [""; 0],
            "cut after {length} bytes"
        );
    }
    for length in 0..DEFLATED.len() {
        assert!(
            !identities(&DEFLATED[..length], 4096).contains(&is(DEFLATED_HASH)),
            "cut after {length} bytes"
        );
    }
    assert_eq!(
        identities(&[PLAIN, &[0; 8]].concat(), 4096),
        [""; 0],
        "something follows"
    );
    assert_eq!(
        identities(&[DEFLATED, &[0; 8]].concat(), 4096),
        [""; 0],
        "something follows"
    );
}

#[test]
fn packages_and_indexes_may_be_packed_in_every_way_that_apk_knows() {
    let deflated = |plain: &[u8]| {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::new(9));
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    };
    let packed = |plain: &[u8]| {
        [
            [b"ADBd".to_vec(), deflated(plain)].concat(),
            [b"ADBc\x00\x00".to_vec(), plain.to_vec()].concat(),
            [b"ADBc\x01\x09".to_vec(), deflated(plain)].concat(),
            [
                b"ADBc\x02\x03".to_vec(),
                zstd::encode_all(plain, 3).unwrap(),
            ]
            .concat(),
        ]
    };
    for package in packed(PLAIN) {
        assert!(
            identities(&package, 7).contains(&is(PLAIN_HASH)),
            "{:?}",
            &package[..6]
        );
    }
    for index in packed(SHORT) {
        assert_eq!(
            said(&index, "r/x86_64/Packages.adb"),
            said(SHORT, "r/x86_64/Packages.adb")
        );
    }
    let unknown = [b"ADBc\x03\x01".to_vec(), PLAIN.to_vec()].concat();
    assert_eq!(identities(&unknown, 7), [""; 0]);
    assert!(read(&unknown, "r/x86_64/Packages.adb").0.is_err());
}

#[test]
fn an_index_may_have_folders_of_its_own_and_its_packages_find_it() {
    let paths: Vec<_> = said(POOL, "edge/x86_64/Packages.adb")
        .into_iter()
        .map(|(path, _)| path)
        .collect();
    let expected = [
        "edge/pool/def/deflated-1.0-r0.apk",
        "edge/pool/def/deflated9-1.0-r0.apk",
        "edge/pool/pla/plain-1.0-r0.apk",
    ];
    assert_eq!(paths[..3], expected);
    let below = [
        "edge/x86_64/pool/def/deflated-1.0-r0.apk",
        "edge/x86_64/pool/def/deflated9-1.0-r0.apk",
        "edge/x86_64/pool/pla/plain-1.0-r0.apk",
    ];
    assert_eq!(paths[3..], below);
    let possible = Alpine.naming(&repository(), below[0]).possible;
    assert!(
        possible
            .iter()
            .any(|index| index.key_path == "edge/x86_64/Packages.adb"),
        "{possible:?}"
    );
}

#[test]
fn an_index_that_leads_past_larder_is_remarked_upon() {
    let (claims, remark) = read(ABSOLUTE, "edge/x86_64/Packages.adb");
    assert_eq!(claims, Ok(Vec::new()));
    let remark = remark.unwrap();
    assert!(
        remark.contains("from https://files.example.com by itself"),
        "{remark}"
    );
}

#[test]
fn packages_without_an_architecture_are_looked_for_in_the_indexes_of_all() {
    let possible = |path| -> Vec<_> {
        Alpine
            .naming(&repository(), path)
            .possible
            .into_iter()
            .map(|index| index.key_path)
            .collect()
    };
    let of_noarch = possible("v3.23/main/noarch/plain-1.0-r0.apk");
    for index in [
        "x86_64/APKINDEX.tar.gz",
        "x86_64/Packages.adb",
        "aarch64/APKINDEX.tar.gz",
        "noarch/APKINDEX.tar.gz",
    ] {
        assert!(
            of_noarch.contains(&format!("v3.23/main/{index}")),
            "{index} is not in {of_noarch:?}"
        );
    }
    let of_one = possible("v3.23/main/x86_64/plain-1.0-r0.apk");
    assert_eq!(
        of_one[..2],
        [
            "v3.23/main/x86_64/APKINDEX.tar.gz",
            "v3.23/main/x86_64/Packages.adb"
        ]
    );
    assert!(
        of_one.iter().all(|index| !index.contains("aarch64")),
        "{of_one:?}"
    );
    assert_eq!(possible("noarch/a-1.apk")[2], "x86_64/APKINDEX.tar.gz");
    assert_eq!(possible("x86_64/APKINDEX.tar.gz"), [""; 0]);
}

/// 200 MiB in a few kilobytes.
fn bomb() -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(b"ADBc\x02\x13".to_vec(), 19).unwrap();
    let zeros = vec![0; 1 << 20];
    (0..200).for_each(|_| encoder.write_all(&zeros).unwrap());
    encoder.finish().unwrap()
}

#[test]
fn what_is_no_index_of_version_3_is_refused() {
    for (body, expected) in [
        (
            &b"<!doctype html><title>log in</title>"[..],
            "does not begin",
        ),
        (b"", "does not begin"),
        (b"ADB.", "no index"),
        (PLAIN, "no index"),
        (&SHORT[..SHORT.len() - 9], "damaged"),
        (&INDEX[..INDEX.len() / 2], "compression"),
        (&[SHORT, SHORT].concat(), "damaged"),
        (&bomb(), "far more than its size"),
    ] {
        let why = read(body, "x86_64/Packages.adb").0.unwrap_err().0;
        assert!(why.contains(expected), "{expected}: {why}");
    }
}

#[test]
fn a_tree_that_holds_one_list_many_times_is_given_up() {
    // A root whose folders, 65,535 times the same, hold 65,535 times the same empty file: four thousand million steps.
    let word = |kind: u32, low: usize| (kind << 28 | low as u32).to_le_bytes();
    let many = 65_536_usize;
    let (file, files) = (8, 12);
    let folder = files + many * 4;
    let folders = folder + 16;
    let root = folders + many * 4;
    let mut tree = vec![0, 0, 0, 0];
    tree.extend(word(0xe, root));
    tree.extend(1_u32.to_le_bytes());
    let array = |count: usize, item: [u8; 4]| {
        [
            (count as u32).to_le_bytes().to_vec(),
            item.repeat(count - 1),
        ]
        .concat()
    };
    tree.extend(array(many, word(0xe, file)));
    tree.extend([4_u32.to_le_bytes(), [0; 4], [0; 4], word(0xd, files)].concat());
    tree.extend(array(many, word(0xe, folder)));
    tree.extend([3_u32.to_le_bytes(), [0; 4], word(0xd, folders)].concat());
    let size = (tree.len() + 4) as u32;
    let package = [b"ADB.pckg".to_vec(), size.to_le_bytes().to_vec(), tree].concat();
    assert_eq!(identities(&package, 4096), [""; 0]);
}

#[test]
fn a_package_that_unpacks_to_far_more_than_its_size_has_no_identity() {
    assert_eq!(identities(&bomb(), 4096), [""; 0]);
}

proptest! {
    #[test]
    fn damage_is_never_more_than_an_error(flips in proptest::collection::vec((0..680_usize, any::<u8>()), 1..8), step in 1..99_usize) {
        let damaged = |body: &[u8]| {
            let mut body = body.to_vec();
            for (at, with) in &flips {
                if let Some(byte) = body.get_mut(*at) {
                    *byte ^= with;
                }
            }
            body
        };
        let package = damaged(PLAIN);
        prop_assert_eq!(identities(&package, step), identities(&package, package.len()));
        let _ = read(&damaged(SHORT), "x86_64/Packages.adb");
        let _ = read(&damaged(INDEX), "x86_64/Packages.adb");
    }
}

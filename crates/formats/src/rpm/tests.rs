//! `testdata/` was written by createrepo_c 0.17.3; digests and sizes of the packages in it by `sha256sum` and `stat`.

use std::io::Write as _;

use larder_core::{BuiltIn, DigestAlgorithm, PackageType, Repository};
use proptest::prelude::*;
use url::Url;

use super::*;
use crate::testing::{links, read, remote};
use crate::{Claim, Document};

const REPOMD: &[u8] = include_bytes!("testdata/createrepo_c.repomd.xml");
const PRIMARY: &[u8] = include_bytes!("testdata/createrepo_c.primary.xml");
const MASTER: &str = "el9/repodata/repomd.xml";

fn mirror() -> Repository {
    remote("rpms", PackageType::Rpm, "https://mirror.example.com/pub/")
}

fn claims_of(key_path: &str, url: &str, body: &[u8]) -> Result<Vec<Claim>, Malformed> {
    let (repository, url) = (mirror(), Url::parse(url).unwrap());
    let document = crate::testing::document(body, &url, key_path);
    let mut claims = Vec::new();
    Rpm.claims(&document, &links(&repository), &mut |claim| {
        claims.push(claim);
    })?;
    Ok(claims)
}

fn primary(body: &[u8]) -> Result<Vec<Claim>, Malformed> {
    let path = "el9/repodata/primary.xml.gz";
    claims_of(
        path,
        &format!("https://mirror.example.com/pub/{path}"),
        body,
    )
}

fn check(body: &[u8]) -> Result<(), Malformed> {
    let url = Url::parse("https://mirror.example.com/pub/el9/repodata/repomd.xml").unwrap();
    Rpm.check(
        &mirror(),
        &crate::testing::document(body, &url, MASTER),
        &crate::Meter::default(),
    )
}

fn hex(byte: char, length: usize) -> String {
    byte.to_string().repeat(length)
}

#[test]
fn every_path_has_its_class() {
    let (sha256, sha512, sha1, md5) = (hex('a', 64), hex('B', 128), hex('0', 40), hex('f', 32));
    let by_digest = [
        format!("repodata/{sha256}-primary.xml.gz"),
        format!("9/AppStream/x86_64/os/repodata/{sha512}-filelists.xml.zst"),
        format!("x/repodata/{sha1}-comps.xml"),
        format!("x/repodata/{md5}-productid"),
        format!("x/repodata/{sha256}-primary.xml.zck"),
        format!("x/repodata/{sha256}-modules.yaml.xz"),
    ];
    let mutable = [
        "repodata/repomd.xml".to_owned(),
        "x/repodata/repomd.xml.asc".to_owned(),
        "x/repodata/repomd.xml.key".to_owned(),
        "x/repodata/primary.xml.gz".to_owned(),
        "x/repodata/primary.sqlite.bz2".to_owned(),
        "x/.treeinfo".to_owned(),
        "x/Packages.gz".to_owned(),
        "x/media.1/media".to_owned(),
        "media.12/products".to_owned(),
        // No digest: its length is no algorithm's, a letter is none of its digits, nothing follows.
        format!("x/repodata/{}-primary.xml.gz", hex('a', 63)),
        format!("x/repodata/{}g-primary.xml.gz", hex('a', 63)),
        format!("x/repodata/{sha256}-"),
        format!("x/repodata/{sha256}"),
    ];
    let neither = [
        "x/Packages/b/bash-5.2-1.x86_64.rpm".to_owned(),
        "x/repodata/odd.rpm".to_owned(),
        "x/RPM-GPG-KEY-vendor".to_owned(),
        "x/images/boot.iso".to_owned(),
        "repodata".to_owned(),
        "x/repodata/".to_owned(),
        "x/media.one/media".to_owned(),
        "x/media./media".to_owned(),
        "x/oldrepodata/primary.xml.gz".to_owned(),
        format!("x/Packages/{sha256}-x"),
    ];
    let classes = [
        (&by_digest[..], BuiltIn::MutableNamedByDigest),
        (&mutable[..], BuiltIn::Mutable),
        (&neither[..], BuiltIn::None),
    ];
    for (paths, class) in classes {
        for path in paths {
            assert_eq!(Rpm.facts(&mirror(), path).built_in, class, "{path}");
        }
    }
    for (path, algorithm) in by_digest.iter().zip([
        DigestAlgorithm::Sha256,
        DigestAlgorithm::Sha512,
        DigestAlgorithm::Sha1,
        DigestAlgorithm::Md5,
        DigestAlgorithm::Sha256,
    ]) {
        assert_eq!(
            Rpm.facts(&mirror(), path).digest.unwrap().algorithm(),
            algorithm,
            "{path}"
        );
    }
}

#[test]
fn a_generation_is_the_master_index_with_its_companions() {
    for path in [
        MASTER,
        "el9/repodata/repomd.xml.asc",
        "el9/repodata/repomd.xml.key",
        "el9/repodata/primary.xml.gz",
    ] {
        let generation = Rpm.generation(path).unwrap();
        assert_eq!(generation.document.key_path, MASTER, "{path}");
        let heads = Rpm.facts(&mirror(), path).role == Some(Role::Document);
        assert_eq!(heads, path == MASTER, "{path}");
        assert!(generation.document.is_document);
        let companions: Vec<&str> = generation
            .companions
            .iter()
            .map(|companion| companion.source.key_path.as_str())
            .collect();
        assert_eq!(
            companions,
            ["el9/repodata/repomd.xml.asc", "el9/repodata/repomd.xml.key"]
        );
        assert!(generation.companions[0].signs && !generation.companions[1].signs);
    }
    assert_eq!(
        Rpm.generation("repodata/x").unwrap().document.key_path,
        "repodata/repomd.xml"
    );
    for path in [
        "el9/Packages/x.rpm",
        "el9/.treeinfo",
        "el9/repodata/x.rpm",
        "repomd.xml",
    ] {
        assert_eq!(Rpm.generation(path), None, "{path}");
        assert_eq!(Rpm.facts(&mirror(), path).role, None, "{path}");
    }
}

#[test]
fn what_is_fetched_ahead() {
    let digest = hex('a', 64);
    for (name, essential) in [
        ("primary.xml.gz", true),
        ("primary.xml", true),
        ("primary.xml.zck", true),
        ("filelists.xml.gz", true),
        ("comps-BaseOS.x86_64.xml", true),
        ("modules.yaml.gz", true),
        ("updateinfo.xml.gz", true),
        ("other.xml.gz", false),
        ("other.xml.zck", false),
        ("primary.sqlite.bz2", false),
    ] {
        for path in [
            format!("x/repodata/{digest}-{name}"),
            format!("x/repodata/{name}"),
        ] {
            let facts = Rpm.facts(&mirror(), &path);
            assert_eq!(facts.is_essential(), essential, "{path}");
        }
    }
}

#[test]
fn a_package_may_be_named_by_any_folder_above_it() {
    let documents = |path: &str| -> Vec<String> {
        assert_eq!(crate::testing::named_by(&Rpm, &mirror(), path), None);
        Rpm.naming(&mirror(), path)
            .possible
            .into_iter()
            .map(|spec| spec.key_path)
            .collect()
    };
    assert_eq!(
        documents("9/os/Packages/x.rpm"),
        [
            "9/os/Packages/repodata/repomd.xml",
            "9/os/repodata/repomd.xml",
            "9/repodata/repomd.xml",
            "repodata/repomd.xml"
        ]
    );
    assert_eq!(documents("x.rpm"), ["repodata/repomd.xml"]);
    assert_eq!(documents("9/os/images/boot.iso"), [""; 0]);
    assert_eq!(
        documents(&format!("{}x.rpm", "a/".repeat(900))).len(),
        16,
        "bounded"
    );
}

#[test]
fn metadata_is_stated_by_the_master_index_of_its_folder_unless_its_name_says_what_it_is() {
    let documents = |path: &str| -> Vec<String> {
        assert_eq!(crate::testing::named_by(&Rpm, &mirror(), path), None);
        let naming = Rpm.naming(&mirror(), path);
        naming.possible.into_iter().map(|it| it.key_path).collect()
    };
    for name in [
        "primary.xml.gz",
        "other.xml.gz",
        "comps.xml",
        "modules.yaml",
        "x-productid.gz",
        "primary.sqlite.bz2",
        "repomd.xml.zck",
    ] {
        assert_eq!(documents(&format!("el9/repodata/{name}")), [MASTER]);
        assert_eq!(
            documents(&format!("repodata/{name}")),
            ["repodata/repomd.xml"]
        );
    }
    let digest = hex('a', 64);
    for name in [
        "repomd.xml",
        "repomd.xml.asc",
        "repomd.xml.key",
        &format!("{digest}-other.xml.gz"),
    ] {
        assert_eq!(documents(&format!("el9/repodata/{name}")), [""; 0]);
    }
    assert_eq!(documents("el9/.treeinfo"), [""; 0]);
}

#[test]
fn requests_are_read_as_files_whatever_their_query_and_spelling() {
    for spelling in [
        "Packages/g%2b%2B%2b-1%7Erc%5E1.rpm",
        "Packages/g+++-1~rc%5e1.rpm",
    ] {
        let source = read(&Rpm, &mirror(), spelling, Some("countme=3")).source;
        assert_eq!(
            (source.key_path.as_str(), source.path.as_str()),
            ("Packages/g+++-1~rc^1.rpm", spelling)
        );
        assert_eq!(
            (source.query, source.accept, source.is_document),
            (None, None, false)
        );
    }
    let listing = read(&Rpm, &mirror(), "el9/metalink", Some("repo=x"));
    assert_eq!(
        (listing.source.key_path.as_str(), listing.form),
        (MASTER, Form::Derived("metalink"))
    );
    let listing = read(&Rpm, &mirror(), "c%2b+/mirrorlist", None).source;
    assert_eq!(
        (listing.key_path.as_str(), listing.path.as_str()),
        ("c++/repodata/repomd.xml", "c%2b+/repodata/repomd.xml")
    );
    assert_eq!(
        read(&Rpm, &mirror(), "mirrorlist", None).source.key_path,
        "repodata/repomd.xml"
    );
    assert_eq!(
        read(&Rpm, &mirror(), "el9/metalink.xml", None).form,
        Form::Verbatim
    );
    assert!(read(&Rpm, &mirror(), MASTER, None).source.is_document);
}

#[test]
fn the_master_index_of_createrepo_c() {
    check(REPOMD).unwrap();
    let repomd = repomd::read(REPOMD, &crate::Meter::default()).unwrap();
    assert_eq!(
        (repomd.revision(), repomd.timestamp()),
        (Some(1_795_394_310), Some(1_795_394_310))
    );
    let claims = claims_of(
        MASTER,
        "https://mirror.example.com/pub/el9/repodata/repomd.xml",
        REPOMD,
    )
    .unwrap();
    assert_eq!(claims.len(), 6);
    let first = &claims[0];
    let digest = "2353aa318e3f205b348ce3eff3606f0f6bea8bdae8a991ca51d8b694e58f440c";
    assert_eq!(first.path, format!("el9/repodata/{digest}-primary.xml.gz"));
    assert_eq!(
        (first.url.as_str(), first.size),
        ("", Some(848)),
        "where it would be looked for anyway"
    );
    assert_eq!(
        first.digests,
        [larder_core::Digest::from_hex(DigestAlgorithm::Sha256, digest).unwrap()]
    );
    assert_eq!(claims[3].path.rsplit('-').next(), Some("comps.xml"));
    let names_files: Vec<bool> = claims.iter().map(|claim| claim.names_files).collect();
    assert_eq!(names_files, [true, false, false, false, false, false]);
}

#[test]
fn the_list_of_packages_is_what_the_master_index_calls_so_whatever_its_name() {
    let data = |kind: &str, name: &str| {
        format!("<data type=\"{kind}\"><location href=\"repodata/{name}\"/></data>")
    };
    let body = [
        data("primary", "packages.xml.gz"),
        data("primary_zck", "primary.xml.zck"),
        data("primary_db", "primary.sqlite.bz2"),
        data("filelists", "primary.xml"),
    ];
    let body = format!("<repomd>{}</repomd>", body.concat());
    let url = "https://mirror.example.com/pub/el9/repodata/repomd.xml";
    let claims = claims_of(MASTER, url, body.as_bytes()).unwrap();
    let lists: Vec<&str> = claims
        .iter()
        .filter(|claim| claim.names_files)
        .map(|claim| claim.path.as_str())
        .collect();
    assert_eq!(lists, ["el9/repodata/packages.xml.gz"]);
}

fn packed() -> [(&'static str, Vec<u8>); 5] {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(PRIMARY).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 6);
    xz.write_all(PRIMARY).unwrap();
    let zstd = zstd::stream::encode_all(PRIMARY, 10).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
    bzip2.write_all(PRIMARY).unwrap();
    let bzip2 = bzip2.finish().unwrap();
    [
        ("bzip2", bzip2),
        ("plain", PRIMARY.to_vec()),
        ("gzip", gzip.finish().unwrap()),
        ("xz", xz.finish().unwrap()),
        ("zstd", zstd),
    ]
}

#[test]
fn the_primary_of_createrepo_c_in_every_compression() {
    let want = [
        (
            "pantry-data-1.0-1.noarch.rpm",
            "139a58620d141a8165a3c6284493bcbbd862767d963e55bbce4ccbdcb2f783e8",
            7_419,
        ),
        (
            "pantry-jam-1.0-1.x86_64.rpm",
            "ba06b64fac9ca8cfc6913e3d4bccd5f48ac0262f61ab66e40eefbc768d8f3b6f",
            7_469,
        ),
        (
            "pantry-libstdc++-2.0~rc1^git1-1.x86_64.rpm",
            "8b801be1132bca2cc6dac0b4ca8b3e35b565d2ba45295d1866629df9f0dc8066",
            3_007_656,
        ),
    ];
    for (name, body) in packed() {
        let claims = primary(&body).unwrap();
        let got: Vec<_> = claims
            .iter()
            .map(|c| (c.path.as_str(), c.digests[0].to_hex(), c.size))
            .collect();
        let want: Vec<_> = want
            .iter()
            .map(|(file, digest, size)| {
                (
                    format!("el9/Packages/{file}"),
                    (*digest).to_owned(),
                    Some(*size),
                )
            })
            .collect();
        let want: Vec<_> = want
            .iter()
            .map(|(path, digest, size)| (path.as_str(), digest.clone(), *size))
            .collect();
        assert_eq!(got, want, "{name}");
    }
}

#[test]
fn what_is_cut_or_damaged_is_refused() {
    for (name, body) in packed() {
        for length in [0, 1, body.len() / 2, body.len() - 20] {
            assert!(
                primary(&body[..length]).is_err(),
                "{name}, the first {length} bytes"
            );
        }
    }
}

#[test]
fn the_files_of_a_generation_are_in_the_folder_that_its_document_is_in_as_that_is_spelt() {
    let xml = br#"<repomd><data type="primary"><location href="repodata/primary.xml.gz"/></data></repomd>"#;
    let url = |document_url: &str| {
        claims_of("c++/repodata/repomd.xml", document_url, xml).unwrap()[0]
            .url
            .clone()
    };
    assert_eq!(
        url("https://mirror.example.com/pub/c++/repodata/repomd.xml"),
        ""
    );
    assert_eq!(
        url("https://mirror.example.com/pub/c%2b%2B/repodata/repomd.xml"),
        "https://mirror.example.com/pub/c%2b%2B/repodata/primary.xml.gz"
    );
}

#[test]
fn a_document_from_a_mirror_leads_to_that_mirror_and_others_to_the_usual_place() {
    let xml = br#"<metadata><package><checksum type="sha256" pkgid="YES">x</checksum><location href="Packages/g++-1^2 b.rpm"/></package></metadata>"#;
    let url = |document_url: &str| {
        claims_of("el9/repodata/primary.xml", document_url, xml).unwrap()[0]
            .url
            .clone()
    };
    assert_eq!(
        url("https://other.example.net/a/repodata/primary.xml"),
        "https://other.example.net/a/Packages/g%2B%2B-1%5E2%20b.rpm"
    );
    for usual in [
        "https://mirror.example.com/pub/el9/repodata/primary.xml",
        "https://mirror.example.com/pub/el%39/repodata/primary.xml",
        // Where files are stored under names of the server's own, nothing is known of the others' places.
        "https://store.example.net/objects/4711",
        "https://store.example.net/repodata/4711",
    ] {
        assert_eq!(url(usual), "", "{usual}");
    }
}

#[test]
fn hazard_s10_a_location_that_leads_elsewhere_is_no_claim() {
    for href in [
        "../x.rpm",
        "a/../../x.rpm",
        "https://other.example.net/x.rpm",
        "a\\x.rpm",
        "%2e%2e/x.rpm",
        "a%2fx.rpm",
        "x.rpm?y",
        "x.rpm#y",
        "",
    ] {
        let xml = format!(r#"<metadata><package><location href="{href}"/></package></metadata>"#);
        assert_eq!(primary(xml.as_bytes()).unwrap(), [], "{href}");
        let xml =
            format!(r#"<repomd><data type="primary"><location href="{href}"/></data></repomd>"#);
        let url = "https://mirror.example.com/pub/el9/repodata/repomd.xml";
        assert_eq!(
            claims_of(MASTER, url, xml.as_bytes()).unwrap(),
            [],
            "{href}"
        );
    }
    let xml = br#"<metadata><package><location xml:base="https://other.example.net/" href="x.rpm"/></package></metadata>"#;
    assert_eq!(primary(xml).unwrap(), [], "clients go there by themselves");
    let xml = br#"<repomd><data type="primary"><location href="Packages/x.rpm"/></data></repomd>"#;
    assert_eq!(
        claims_of(
            MASTER,
            "https://mirror.example.com/pub/el9/repodata/repomd.xml",
            xml
        )
        .unwrap(),
        [],
        "a master index names metadata"
    );
}

/// Expected values: what dnf asks for, which appends the location to the root and has curl resolve dots.
#[test]
fn hazard_x8_a_location_is_read_as_clients_read_it() {
    for (href, path) in [
        ("./x.rpm", "el9/x.rpm"),
        ("a//x.rpm", "el9/a/x.rpm"),
        ("/x.rpm", "el9/x.rpm"),
        ("a/../b/./x.rpm", "el9/b/x.rpm"),
        ("a b/x.rpm", "el9/a b/x.rpm"),
    ] {
        let xml = format!(r#"<metadata><package><location href="{href}"/></package></metadata>"#);
        let claims = primary(xml.as_bytes()).unwrap();
        assert_eq!(
            claims
                .iter()
                .map(|claim| claim.path.as_str())
                .collect::<Vec<_>>(),
            [path],
            "{href}"
        );
    }
    let outside = "<metadata><package><location href='../x.rpm'/></package></metadata>";
    assert!(
        remark("el9/repodata/primary.xml", outside.as_bytes())
            .is_some_and(|said| said.contains("not checked"))
    );
}

/// What is said to the operator of a document.
fn remark(key_path: &str, body: &[u8]) -> Option<String> {
    let (repository, memo) = (mirror(), crate::Memo::default());
    let url = Url::parse("https://mirror.example.com/pub/")
        .unwrap()
        .join(key_path)
        .unwrap();
    let document = Document {
        body,
        content_type: "",
        url: &url,
        key_path,
        variant: "",
        memo: Some(&memo),
    };
    if key_path == MASTER {
        Rpm.check(&repository, &document, &crate::Meter::default())
            .unwrap();
    }
    Rpm.claims(&document, &links(&repository), &mut |_| ())
        .unwrap();
    memo.remarked().map(str::to_owned)
}

#[test]
fn metadata_that_leads_past_larder_is_remarked_upon_without_secrets() {
    let primary = |base: &str| {
        format!(
            "<metadata><package><location href='a.rpm'/></package><package><location{base} href='b.rpm'/></package></metadata>"
        )
    };
    let repomd = |base: &str| {
        format!(
            "<repomd><data type='primary'><location{base} href='repodata/primary.xml'/></data></repomd>"
        )
    };
    let base = " xml:base='https://user:secret@other.example.net:8443/pub/?token=secret'";
    for (path, with, without) in [
        ("el9/repodata/primary.xml", primary(base), primary("")),
        (MASTER, repomd(base), repomd("")),
    ] {
        let said = remark(path, with.as_bytes()).unwrap();
        assert!(
            said.contains("https://other.example.net:8443)") && !said.contains("secret"),
            "{said}"
        );
        assert_eq!(remark(path, without.as_bytes()), None);
    }
    assert!(
        remark(MASTER, repomd(" xml:base='media:///x'").as_bytes())
            .unwrap()
            .contains("another place")
    );
}

#[test]
fn text_attributes_and_old_names_of_algorithms() {
    let sha1 = hex('a', 40);
    let xml = format!(
        "<metadata><package><checksum type='sha'> {sha1}\n</checksum><location href='a&amp;b&#x2d;1.rpm'/><size package='7'/></package>\
         <package><checksum type='sha224'>{}</checksum><location href='c.rpm'/></package></metadata>",
        hex('a', 56)
    );
    let claims = primary(xml.as_bytes()).unwrap();
    assert_eq!(
        (claims[0].path.as_str(), claims[0].size),
        ("el9/a&b-1.rpm", Some(7))
    );
    assert_eq!(
        claims[0].digests,
        [larder_core::Digest::from_hex(DigestAlgorithm::Sha1, &sha1).unwrap()]
    );
    assert_eq!(
        (claims[1].path.as_str(), claims[1].digests.len()),
        ("el9/c.rpm", 0),
        "an algorithm that is not known here"
    );
}

#[test]
fn the_revision_is_a_number_or_the_newest_time() {
    let revision = |xml: &str| {
        repomd::read(xml.as_bytes(), &crate::Meter::default())
            .unwrap()
            .revision()
    };
    assert_eq!(
        revision("<repomd><revision>17</revision><data><timestamp>99</timestamp></data></repomd>"),
        Some(17)
    );
    let words = "<repomd><revision>9.4</revision><data><timestamp>5.25</timestamp></data><data><timestamp>7</timestamp></data></repomd>";
    assert_eq!(revision(words), Some(7));
    assert_eq!(revision("<repomd/>"), None);
}

#[test]
fn rpm_24_hazard_r3_documents_that_try_to_exhaust_are_refused() {
    let repeated = |text: &str, times| text.repeat(times);
    for (what, xml) in [
        ("a document type", "<!DOCTYPE repomd><repomd/>".to_owned()),
        (
            "entities",
            "<!DOCTYPE r [<!ENTITY a \"aaaa\">]><repomd>&a;</repomd>".to_owned(),
        ),
        (
            "an undefined entity",
            "<repomd>&nobody;</repomd>".to_owned(),
        ),
        (
            "an undefined entity in an attribute",
            "<repomd><data><location href='&nobody;'/></data></repomd>".to_owned(),
        ),
        (
            "depth",
            repeated("<a>", 65).replacen("<a>", "<repomd>", 1)
                + &repeated("</a>", 64)
                + "</repomd>",
        ),
        (
            "size",
            format!("<repomd>{}</repomd>", repeated(" ", 1 << 20)),
        ),
        ("another document", "<html/>".to_owned()),
        ("two roots", "<repomd/><repomd/>".to_owned()),
        ("no end", "<repomd>".to_owned()),
        ("crossed tags", "<repomd><a></repomd></a>".to_owned()),
        ("nothing", String::new()),
        ("no XML", "not here\n".to_owned()),
    ] {
        assert!(check(xml.as_bytes()).is_err(), "{what}");
    }
    let allowed =
        repeated("<a>", 64).replacen("<a>", "<repomd>", 1) + &repeated("</a>", 63) + "</repomd>";
    check(allowed.as_bytes()).unwrap();
    let token = format!("<metadata><!-- {} --></metadata>", repeated("x", 5 << 20));
    assert!(primary(token.as_bytes()).is_err(), "a token without end");
}

#[test]
fn hazard_r4_what_unpacks_to_far_more_than_its_size_is_refused() {
    let bomb = |packed: &mut dyn std::io::Write| {
        packed.write_all(b"<metadata>").unwrap();
        let comment = format!("<!--{}-->", " ".repeat(1 << 20));
        (0..80).for_each(|_| packed.write_all(comment.as_bytes()).unwrap());
        packed.write_all(b"</metadata>").unwrap();
    };
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    bomb(&mut gzip);
    let mut zstd = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    bomb(&mut zstd);
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bomb(&mut bzip2);
    for (name, body) in [
        ("gzip", gzip.finish().unwrap()),
        ("bzip2", bzip2.finish().unwrap()),
        ("zstd", zstd.finish().unwrap()),
    ] {
        let refused = primary(&body).unwrap_err();
        assert!(
            refused.0.contains("far more than its size"),
            "{name}: {refused}"
        );
    }
    // A window larger than the limit: frame header descriptor 0, window 1 GiB (RFC 8878 section 3.1.1.1.2).
    let wide = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa0, 0x01, 0x00, 0x00];
    assert!(primary(&wide).is_err());
}

proptest! {
    #[test]
    fn nothing_makes_the_readers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), cut in 0..900_usize) {
        let _ = primary(&bytes);
        let _ = check(&bytes);
        let mut damaged = REPOMD[..cut.min(REPOMD.len())].to_vec();
        damaged.extend_from_slice(&bytes);
        let _ = check(&damaged);
        let _ = claims_of(MASTER, "https://mirror.example.com/pub/el9/repodata/repomd.xml", &damaged);
    }

    #[test]
    fn a_claim_always_stays_below_its_root(href in "[a-z./%\\\\25eEfF:+^~ ]{0,24}") {
        let xml = format!(r#"<metadata><package><location href="{href}"/></package></metadata>"#);
        for claim in primary(xml.as_bytes()).unwrap_or_default() {
            prop_assert!(claim.path.starts_with("el9/"));
            prop_assert!(larder_core::ArtifactPath::from_decoded(&claim.path).is_ok());
        }
    }
}

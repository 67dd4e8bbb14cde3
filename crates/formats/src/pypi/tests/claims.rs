//! What pages say of files.

use larder_core::{Digest, UnixMillis};

use super::super::Pypi;
use super::super::test_support::{Page, links_of};
use crate::{Document, DocumentFormat as _};

fn sha256(hex: &str) -> Digest {
    format!("sha256:{hex}").parse().unwrap()
}

#[test]
fn checklist_7_json_claims_digests_sizes_and_times_of_files_and_sidecars() {
    let claims = Page::json("sample-project", include_str!("../testdata/warehouse.json")).claims();
    let directory = "packages/d0/32/a277f2ee09894ea93bfa811f237b49c45579d82e48948e0e46e332867ceb/";
    let wheel = claims
        .iter()
        .find(|claim| claim.path == format!("{directory}sample_project-2.0-py2.py3-none-any.whl"))
        .unwrap();
    assert_eq!(
        wheel.url,
        format!("https://files.example.com/{directory}sample_project-2.0-py2.py3-none-any.whl")
    );
    assert_eq!(
        wheel.digests,
        [sha256(
            "bc29beebd0c457ebdc48f1ef9896ea437b9ca14e6a90e6afa2c780c92fe42c30"
        )]
    );
    assert_eq!(wheel.size, Some(39_000));
    // 2024-01-17T16:53:12.779164Z, by date(1).
    assert_eq!(wheel.published_at, Some(UnixMillis(1_705_510_392_779)));
    let metadata = claims
        .iter()
        .find(|claim| claim.path == format!("{}.metadata", wheel.path))
        .unwrap();
    assert_eq!(metadata.url, format!("{}.metadata", wheel.url));
    assert_eq!(
        metadata.digests,
        [sha256(
            "29c1b289e7522195b362e44f54e05470b69ad20540ab60a18a05e5bf6951f13d"
        )]
    );
    assert_eq!(
        (metadata.size, metadata.published_at),
        (None, wheel.published_at)
    );
    // Four files; metadata beside the two wheels.
    assert_eq!(claims.len(), 6);
}

#[test]
fn checklist_15_claims_are_by_the_decoded_path() {
    let claims = Page::json("sample-project", include_str!("../testdata/warehouse.json")).claims();
    let wheel = claims
        .iter()
        .find(|claim| {
            claim
                .path
                .ends_with("/sample_project-3.0+local.1-py3-none-any.whl")
        })
        .unwrap();
    assert!(
        wheel
            .url
            .ends_with("/sample_project-3.0%2Blocal.1-py3-none-any.whl")
    );
}

#[test]
fn html_claims_digests_of_fragments_and_attributes() {
    let claims = Page::html("sample-project", include_str!("../testdata/warehouse.html")).claims();
    let paths: Vec<_> = claims.iter().map(|claim| claim.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "packages/aa/bb/ccdd/sample_project-2.0-py2.py3-none-any.whl",
            "packages/aa/bb/ccdd/sample_project-2.0-py2.py3-none-any.whl.metadata",
            "packages/c1/8a/0d2d/sample_project-1.0.tar.gz",
            "packages/ee/ff/0011/sample_project-2.1.tar.gz",
        ]
    );
    assert_eq!(
        claims[0].digests,
        [sha256(
            "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752"
        )]
    );
    assert_eq!(
        claims[1].digests,
        [sha256(
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        )]
    );
    assert_eq!((claims[0].size, claims[0].published_at), (None, None));
}

#[test]
fn every_known_algorithm_counts_and_the_others_are_skipped() {
    let page = Page::json(
        "foo",
        "{\"files\":[{\"filename\":\"foo-1.zip\",\"url\":\"https://files.example.com/foo-1.zip\",\"hashes\":{\"md5\":\"D41D8CD98F00B204E9800998ECF8427E\",\
         \"blake2b_256\":\"00\",\"sha256\":\"short\",\"sha1\":\"da39a3ee5e6b4b0d3255bfef95601890afd80709\"},\"size\":null,\"upload-time\":\"yesterday\"}]}",
    );
    let claims = page.claims();
    let digests: Vec<_> = claims[0].digests.iter().map(ToString::to_string).collect();
    assert_eq!(
        digests,
        [
            "md5:d41d8cd98f00b204e9800998ecf8427e",
            "sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709"
        ]
    );
    assert_eq!((claims[0].size, claims[0].published_at), (None, None));
}

#[test]
fn a_fragment_counts_where_json_states_no_hashes() {
    let md5 = "d41d8cd98f00b204e9800998ecf8427e";
    let page = Page::json(
        "foo",
        format!(
            "{{\"files\":[{{\"filename\":\"foo-1.zip\",\"url\":\"https://files.example.com/foo-1.zip#md5={md5}\",\"hashes\":{{}}}}]}}"
        ),
    );
    assert_eq!(
        page.claims()[0].digests,
        [format!("md5:{md5}").parse().unwrap()]
    );
}

#[test]
fn times_with_offsets_and_second_precision_are_read() {
    for (text, millis) in [
        ("1970-01-01T00:00:01Z", 1_000),
        ("1970-01-01T01:00:00.5+01:00", 500),
        ("1970-01-01T00:00:01", 1_000),
        ("1970-01-01T00:00:00.5", 500),
        ("1970-01-01 00:00:01", 1_000),
        ("Thu, 01 Jan 1970 00:00:01 GMT", 1_000),
    ] {
        let page = Page::json(
            "foo",
            format!(
                "{{\"files\":[{{\"filename\":\"foo-1.zip\",\"url\":\"https://files.example.com/foo-1.zip\",\"upload-time\":\"{text}\"}}]}}"
            ),
        );
        assert_eq!(
            page.claims()[0].published_at,
            Some(UnixMillis(millis)),
            "{text}"
        );
    }
}

#[test]
fn a_page_speaks_for_its_own_project_only() {
    let file = |name: &str| {
        format!("{{\"filename\":\"{name}\",\"url\":\"https://files.example.com/{name}\"}}")
    };
    let page = Page::json(
        "evil",
        format!(
            "{{\"files\":[{},{},{}]}}",
            file("requests-9.0.tar.gz"),
            file("requests-9.0-py3-none-any.whl"),
            file("evil-1.0.tar.gz")
        ),
    );
    let paths: Vec<_> = page.claims().into_iter().map(|claim| claim.path).collect();
    assert_eq!(paths, ["evil-1.0.tar.gz"]);
}

#[test]
fn files_on_other_hosts_are_claimed_by_their_signed_path() {
    let page = Page::json(
        "foo",
        "{\"files\":[{\"filename\":\"foo-1.zip\",\"url\":\"https://cdn.example.net/d/foo-1.zip\",\"core-metadata\":true}]}",
    );
    let claims = page.claims();
    assert!(
        claims[0].path.starts_with("_ext/")
            && claims[0].path.ends_with("/cdn.example.net/d/foo-1.zip")
    );
    assert_eq!(claims[1].path, format!("{}.metadata", claims[0].path));
    assert_eq!(
        claims[1].url,
        "https://cdn.example.net/d/foo-1.zip.metadata"
    );
}

#[test]
fn lists_claim_nothing() {
    assert!(
        Page::json("", include_str!("../testdata/list.json"))
            .claims()
            .is_empty()
    );
}

#[test]
fn derived_links_and_claims_name_the_same_paths() {
    let page = Page::json("sample-project", include_str!("../testdata/warehouse.json"));
    let links = links_of(&page.repository);
    let mut paths = Vec::new();
    let document = Document {
        body: &page.body,
        content_type: page.content_type,
        url: &page.url,
        key_path: &page.key_path,
        variant: "",
        memo: None,
    };
    Pypi.claims(&document, &links, &mut |claim| {
        paths.push(links.href(&claim.path.replace('+', "%2B")));
    })
    .unwrap();
    for file in page.value()["files"].as_array().unwrap() {
        assert!(
            paths.iter().any(|path| file["url"] == path.as_str()),
            "{file}"
        );
    }
}

//! What links of an index mean (hazards X4, X8).

use super::*;

/// Expected values by the URL standard: what `new URL(reference, "https://charts.example.com/stable/")` gives.
#[test]
fn hazard_x8_links_are_read_as_clients_read_them_and_never_left_relative() {
    for (reference, path, url) in [
        (
            "a b-1.tgz",
            "a%20b-1.tgz",
            "https://charts.example.com/stable/a%20b-1.tgz",
        ),
        (
            "./b.tgz",
            "b.tgz",
            "https://charts.example.com/stable/b.tgz",
        ),
        (
            "x/../b.tgz",
            "b.tgz",
            "https://charts.example.com/stable/b.tgz",
        ),
        (
            "../stable/b.tgz",
            "b.tgz",
            "https://charts.example.com/stable/b.tgz",
        ),
        (
            "b.tgz#part",
            "b.tgz",
            "https://charts.example.com/stable/b.tgz",
        ),
        (
            "a//b.tgz",
            "a/b.tgz",
            "https://charts.example.com/stable/a//b.tgz",
        ),
        (
            "a\\b.tgz",
            "a/b.tgz",
            "https://charts.example.com/stable/a/b.tgz",
        ),
        (
            "HTTPS://Charts.example.com/stable/b.tgz",
            "b.tgz",
            "https://charts.example.com/stable/b.tgz",
        ),
        (
            "http://charts.example.com/stable/b.tgz",
            "b.tgz",
            "https://charts.example.com/stable/b.tgz",
        ),
        (
            "//charts.example.com/stable/b.tgz",
            "b.tgz",
            "https://charts.example.com/stable/b.tgz",
        ),
        (
            "https://charts.example.com/stable/x/%2e%2E/b.tgz",
            "b.tgz",
            "https://charts.example.com/stable/b.tgz",
        ),
        (
            "../charts/b.tgz",
            "_ext/MAC/charts.example.com/charts/b.tgz",
            "https://charts.example.com/charts/b.tgz",
        ),
        (
            "../../../b.tgz",
            "_ext/MAC/charts.example.com/b.tgz",
            "https://charts.example.com/b.tgz",
        ),
        (
            "a%2Fb.tgz",
            "_ext/MAC/charts.example.com/stable/a/b.tgz",
            "https://charts.example.com/stable/a%2Fb.tgz",
        ),
        (
            "https://cdn.example.net//a b.tgz?x=%2F",
            "_ext/MAC/cdn.example.net/a%20b.tgz",
            "https://cdn.example.net//a%20b.tgz?x=%2F",
        ),
    ] {
        let body = index_of(&format!("    urls:\n    - '{reference}'"));
        let text = derive(&body);
        assert_eq!(
            without_macs(&text),
            body.replace(&format!("'{reference}'"), &format!("'{LARDER}{path}'")),
            "{reference}"
        );
        let [claim] = claims(&body).try_into().unwrap();
        assert_eq!(claim.url, url, "{reference}");
        if let Some(signed) = carried(&text)[0].strip_prefix("_ext/") {
            let (repository, path) = (
                stable(),
                larder_core::ArtifactPath::parse(
                    &format!("_ext/{signed}"),
                    larder_core::PathRules::default(),
                )
                .unwrap(),
            );
            assert_eq!(claim.path, path.as_str());
            assert_eq!(
                links(&repository)
                    .resolve_external(&path, &[])
                    .unwrap()
                    .url
                    .as_str(),
                url,
                "{reference}"
            );
            let beside = larder_core::ArtifactPath::parse(
                &format!("_ext/{signed}.prov"),
                larder_core::PathRules::default(),
            )
            .unwrap();
            let beside = links(&repository)
                .resolve_external(&beside, crate::SIDECAR_SUFFIXES)
                .unwrap()
                .url;
            assert_eq!(
                beside.as_str(),
                url.replace(".tgz", ".tgz.prov"),
                "{reference}"
            );
        }
    }
}

/// What a merge key brings, and what is written in another case, is the version's own to Helm.
#[test]
fn links_that_a_merge_key_brings_are_links_of_the_version() {
    let digests = ["1", "2", "3"].map(|digit| digit.repeat(64));
    let [one, two, three] = &digests;
    let body = format!(
        "apiVersion: v1\nentries:\n  foo:\n  - <<: {{urls: [a.tgz], digest: {one}}}\n    name: foo\n  - digest: {two}\n    <<:\n    - urls:\n      - b.tgz\n      digest: {one}\n    - <<: {{URLs: ['c.tgz']}}\n  - Digest: {three}\n    Urls: [d.tgz]\n    annotations: {{<<: {{urls: [e.tgz]}}}}\n  - \"<<\": {{urls: [f.tgz]}}\n"
    );
    let mut want = body.clone();
    for name in ["a.tgz", "b.tgz", "c.tgz", "d.tgz"] {
        want = want.replace(name, &format!("{LARDER}{name}"));
    }
    assert_eq!(derive(&body), want);
    let found: Vec<_> = claims(&body)
        .iter()
        .map(|claim| (claim.path.clone(), claim.digests[0].to_hex()))
        .collect();
    let expected = [
        ("a.tgz", one),
        ("b.tgz", two),
        ("c.tgz", two),
        ("d.tgz", three),
    ]
    .map(|(path, digest)| (path.to_owned(), digest.clone()));
    assert_eq!(found, expected);
}

/// Helm reads them as one line: so does larder, whoever writes them.
#[test]
fn a_link_over_several_lines_is_a_link() {
    let digest = "3".repeat(64);
    let (first, second) = digest.split_at(30);
    for (link, written) in [
        ("\"charts/\\\n      foo.tgz\"", "\"{LARDER}charts/foo.tgz\""),
        (
            "'charts/foo\n      bar.tgz'",
            "'{LARDER}charts/foo%20bar.tgz'",
        ),
        ("charts/foo\n      bar.tgz", "{LARDER}charts/foo%20bar.tgz"),
    ] {
        let fields = format!("    digest: \"{first}\\\n      {second}\"\n    urls:\n    - ");
        let body = index_of(&format!("{fields}{link}"));
        let want = body.replace(link, &written.replace("{LARDER}", LARDER));
        assert_eq!(derive(&body), want, "{link}");
        let [claim] = claims(&body).try_into().unwrap();
        assert_eq!(claim.digests[0].to_hex(), digest, "{link}");
        assert_eq!(claim.package.as_deref(), Some("foo"));
    }
    let body = index_of("    urls:\n    - |-\n      a\n      b.tgz");
    with_document(
        "https://charts.example.com/stable/index.yaml",
        &body,
        |document| {
            let repository = stable();
            let links = links(&repository);
            let derived = Helm.derive(document, "index", &links).unwrap();
            assert_eq!(derived.body, body.as_bytes());
            assert_eq!(
                links.left_out().count,
                1,
                "it has no text that a link could have"
            );
        },
    );
}

/// Helm follows them past larder.
#[test]
fn aliases_of_what_is_no_link_are_counted() {
    let body = "apiVersion: v1\nentries:\n  foo:\n  - &v {name: foo, home: &h 'https://cdn.example.net/a.tgz', urls: &u [&a a.tgz]}\n  - <<: *v\n    version: 1.0.1\n  - urls: *u\n  - urls: [*a]\n  - home: *a\n  - urls: [b.tgz, *h]\n  - {keywords: &k [x.tgz], urls: *k}\n";
    with_document(
        "https://charts.example.com/stable/index.yaml",
        body,
        |document| {
            let repository = stable();
            let links = links(&repository);
            let derived = Helm.derive(document, "index", &links).unwrap();
            let want = body
                .replace("[&a a.tgz", &format!("[&a {LARDER}a.tgz"))
                .replace("b.tgz", &format!("{LARDER}b.tgz"));
            assert_eq!(String::from_utf8(derived.body).unwrap(), want);
            let left = links.left_out();
            assert_eq!(left.count, 2);
            assert!(left.first.unwrap().1.contains("alias"));
        },
    );
}

/// Helm would resolve them against larder's address, where they lead into another repository.
#[test]
fn hazard_x8_what_may_not_be_carried_is_written_as_the_url_that_it_means() {
    let mut repository = remote(
        "stable",
        PackageType::Helm,
        "https://charts.example.com/stable/",
    );
    repository.upstream_mut().unwrap().link_hosts = Some(Vec::new());
    for (reference, want) in [
        ("//cdn.example.net/a.tgz", "https://cdn.example.net/a.tgz"),
        (
            "a%2F..%2F..%2Fb.tgz",
            "https://charts.example.com/stable/a%2F..%2F..%2Fb.tgz",
        ),
        (
            "https://cdn.example.net/a b.tgz",
            "https://cdn.example.net/a b.tgz",
        ),
        (
            "oci://registry.example.com/charts/nginx:18.2.5",
            "oci://registry.example.com/charts/nginx:18.2.5",
        ),
    ] {
        let body = index_of(&format!("    urls:\n    - '{reference}'"));
        let text = derive_from(
            &repository,
            "https://charts.example.com/stable/index.yaml",
            &body,
        )
        .unwrap();
        assert_eq!(text, body.replace(reference, want));
        assert_eq!(
            claims_from(
                &repository,
                "https://charts.example.com/stable/index.yaml",
                &body
            ),
            []
        );
    }
    with_document(
        "https://charts.example.com/stable/index.yaml",
        &index_of("    urls: ['//u:p@cdn.example.net/a', 'x://y', b]"),
        |document| {
            let links = links(&repository);
            Helm.derive(document, "index", &links).unwrap();
            let left = links.left_out();
            assert_eq!(
                (left.count, left.first.unwrap().0.as_str()),
                (2, "https://cdn.example.net")
            );
        },
    );
}

#[test]
fn hazard_x4_short_links_are_not_multiplied_by_a_long_base_without_end() {
    let repository = remote(
        "stable",
        PackageType::Helm,
        &format!("https://charts.example.com/{}/", "b".repeat(1900)),
    );
    let body = index_of(&format!("    urls:\n{}", "    - ./a\n".repeat(40_000)));
    with_document("https://charts.example.com/index.yaml", &body, |document| {
        assert!(
            Helm.derive(document, "index", &links(&repository))
                .unwrap_err()
                .0
                .contains("more than 12 MiB")
        );
        assert!(
            Helm.claims(document, &links(&repository), &mut |_| {})
                .unwrap_err()
                .0
                .contains("more than 12 MiB")
        );
    });
}

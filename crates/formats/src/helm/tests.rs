//! The acceptance list of docs/reference/protocols/helm.md, as far as it is about what an index says. Names carry its numbers.

use std::fmt::Write as _;

use larder_core::{AllowPrivate, BuiltIn, PackageType, Repository, UnixMillis};

use super::*;
use crate::testing::{links, named_by, read, remote};

const LARDER: &str = "https://larder.example/api/v1/remote/stable/";
const HELM_STYLE: &str = include_str!("testdata/helm-repo-index.yaml");
/// Written by `helm repo index` of Helm 4.1.4.
const HELM_4: &str = include_str!("testdata/helm-4-repo-index.yaml");
const RELEASER: &str = include_str!("testdata/chart-releaser.yaml");
const MUSEUM: &str = include_str!("testdata/chartmuseum.yaml");
const HANDWRITTEN: &str = include_str!("testdata/handwritten.yaml");

/// The repository `stable` at `https://charts.example.com/stable/`.
fn stable() -> Repository {
    remote(
        "stable",
        PackageType::Helm,
        "https://charts.example.com/stable/",
    )
}

/// An index with one version of one chart.
fn index_of(urls: &str) -> String {
    format!("apiVersion: v1\nentries:\n  foo:\n  - name: foo\n{urls}\n    version: 1.0.0\n")
}

fn with_document<T>(url: &str, body: &str, then: impl FnOnce(&Document<'_>) -> T) -> T {
    let url = url.parse().unwrap();
    then(&Document {
        body: body.as_bytes(),
        content_type: "text/yaml",
        url: &url,
        key_path: "index.yaml",
        variant: "",
        memo: None,
    })
}

fn derive_from(repository: &Repository, url: &str, body: &str) -> Result<String, Malformed> {
    with_document(url, body, |document| {
        let links = links(repository);
        let derived = Helm.derive(document, "index", &links)?;
        assert_eq!(
            Helm.check(repository, document, &crate::Meter::default()),
            Ok(())
        );
        Ok(String::from_utf8(derived.body).unwrap())
    })
}

fn derive(body: &str) -> String {
    derive_from(
        &stable(),
        "https://charts.example.com/stable/index.yaml",
        body,
    )
    .unwrap()
}

fn claims_from(repository: &Repository, url: &str, body: &str) -> Vec<Claim> {
    with_document(url, body, |document| {
        let mut claims = Vec::new();
        Helm.claims(document, &links(repository), &mut |claim| {
            claims.push(claim);
        })
        .unwrap();
        claims
    })
}

fn claims(body: &str) -> Vec<Claim> {
    claims_from(
        &stable(),
        "https://charts.example.com/stable/index.yaml",
        body,
    )
}

/// The error of `check`, `claims` and `derive`, which must be one and the same.
fn refusal(body: &[u8]) -> String {
    let repository = stable();
    let url = "https://charts.example.com/stable/index.yaml"
        .parse()
        .unwrap();
    let document = Document {
        body,
        content_type: "text/yaml",
        url: &url,
        key_path: "index.yaml",
        variant: "",
        memo: None,
    };
    let error = Helm
        .check(&repository, &document, &crate::Meter::default())
        .unwrap_err();
    assert_eq!(
        Helm.derive(&document, "index", &links(&repository))
            .unwrap_err(),
        error
    );
    assert_eq!(
        Helm.claims(&document, &links(&repository), &mut |_| {})
            .unwrap_err(),
        error
    );
    error.0
}

/// The links of a derived index that lead to larder.
fn carried(text: &str) -> Vec<&str> {
    text.split(['"', '\'', ' ', '\n', '[', ']', ','])
        .filter_map(|word| word.strip_prefix(LARDER))
        .collect()
}

/// `text` with the signed part of every external link replaced by `MAC`.
fn without_macs(text: &str) -> String {
    let mut parts = text.split("/_ext/");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (mac, rest) = part.split_once('/').unwrap();
        assert_eq!(mac.split('.').next().unwrap().len(), 22);
        out.extend(["/_ext/MAC/", rest]);
    }
    out
}

#[test]
fn index_is_a_derived_document_and_charts_are_files() {
    let repository = stable();
    let index = read(&Helm, &repository, "index.yaml", Some("token=a"));
    assert_eq!(
        (index.form, index.source.is_document),
        (Form::Derived("index"), true)
    );
    assert_eq!(
        (index.source.path.as_str(), index.source.query.as_deref()),
        ("index.yaml", Some("token=a"))
    );
    assert_eq!(
        read(&Helm, &repository, "sub/index.yaml", None).form,
        Form::Derived("index")
    );
    for path in ["foo-1.0.0.tgz", "foo-1.0.0.tgz.prov", "myindex.yaml"] {
        let file = read(&Helm, &repository, path, None);
        assert_eq!(
            (file.form, file.source.is_document),
            (Form::Verbatim, false),
            "{path}"
        );
    }
    assert_eq!(
        Helm.facts(&repository, "index.yaml").built_in,
        BuiltIn::Mutable
    );
    assert_eq!(
        Helm.facts(&repository, "a/myindex.yaml").built_in,
        BuiltIn::Mutable
    );
    assert_eq!(
        Helm.facts(&repository, "index.yaml.bak").built_in,
        BuiltIn::None
    );
    assert_eq!(
        Helm.facts(&repository, "charts/foo-1.0.0.tgz.prov")
            .subject("charts/foo-1.0.0.tgz.prov"),
        Some("charts/foo-1.0.0.tgz")
    );
    assert_eq!(
        named_by(&Helm, &repository, "charts/foo-1.0.0.tgz").map(|source| source.key_path),
        Some("index.yaml".to_owned())
    );
    assert_eq!(named_by(&Helm, &repository, "index.yaml"), None);
    assert!(Helm.profile().absolute_links);
}

#[test]
fn helm_02_relative_url_with_sub_directory() {
    let text = derive(&index_of("    urls:\n    - charts/foo-1.0.0.tgz"));
    assert_eq!(carried(&text), ["charts/foo-1.0.0.tgz"]);
}

#[test]
fn helm_03_root_relative_url_below_and_beside_a_base_path() {
    let text = derive(&index_of(
        "    urls:\n    - /stable/a/foo-1.0.0.tgz\n    - /other/foo-1.0.0.tgz\n    - //charts.example.com/stable/b.tgz",
    ));
    let carried = carried(&text);
    assert_eq!((carried[0], carried[2]), ("a/foo-1.0.0.tgz", "b.tgz"));
    assert!(
        carried[1].starts_with("_ext/")
            && carried[1].ends_with("/charts.example.com/other/foo-1.0.0.tgz")
    );
}

#[test]
fn helm_03_relative_urls_follow_the_repository_url_whatever_redirects_the_index_took() {
    let body = index_of("    urls:\n    - foo-1.0.0.tgz\n    - ../bar-1.0.0.tgz");
    for url in [
        "https://charts.example.com/stable/v2/index.yaml",
        "https://cdn.example.net/i/index.yaml?sig=s",
    ] {
        let text = derive_from(&stable(), url, &body).unwrap();
        assert_eq!(carried(&text)[0], "foo-1.0.0.tgz", "{url}");
        assert!(
            without_macs(&text).contains(&format!(
                "{LARDER}_ext/MAC/charts.example.com/bar-1.0.0.tgz\n"
            )),
            "{text}"
        );
        // The signature of a redirect is not for others.
        assert!(!text.contains("sig="), "{text}");
        let urls: Vec<_> = claims_from(&stable(), url, &body)
            .into_iter()
            .map(|claim| claim.url)
            .collect();
        assert_eq!(
            urls,
            [
                "https://charts.example.com/stable/foo-1.0.0.tgz",
                "https://charts.example.com/bar-1.0.0.tgz"
            ]
        );
    }
}

#[test]
fn helm_04_other_hosts_are_carried_and_signed() {
    let text = derive(RELEASER);
    let expected = RELEASER.replace(
        "https://releases.example.net/",
        &format!("{LARDER}_ext/MAC/releases.example.net/"),
    );
    assert_eq!(without_macs(&text), expected);
    for claim in claims(RELEASER) {
        let path = larder_core::ArtifactPath::parse(
            &claim.path.replace('+', "%2B"),
            larder_core::PathRules::default(),
        )
        .unwrap();
        let repository = stable();
        let link = links(&repository)
            .resolve_external(&path, crate::SIDECAR_SUFFIXES)
            .unwrap();
        assert_eq!(link.url.as_str(), claim.url);
        let other = remote(
            "other",
            PackageType::Helm,
            "https://charts.example.com/stable/",
        );
        assert_eq!(links(&other).resolve_external(&path, &[]), None);
    }
}

#[test]
fn helm_05_oci_and_other_schemes_are_left_alone() {
    let urls = "    urls:\n    - oci://registry.example.com/charts/nginx:18.2.5\n    - s3://bucket/x.tgz\n    - file:///etc/passwd\n    - data:text/plain,x\n    - oci://registry.example.com/x-0.1.40.tgz\n    - foo-1.0.0.tgz";
    let text = derive(&index_of(urls));
    assert_eq!(
        text,
        index_of(urls).replace("- foo-1.0.0.tgz", &format!("- {LARDER}foo-1.0.0.tgz"))
    );
    assert_eq!(claims(&index_of(urls)).len(), 1);
}

#[test]
fn helm_06_07_only_url_text_differs() {
    let expected = HELM_STYLE
        .replace(
            "    - https://charts.example.com/stable/alpine-",
            &format!("    - {LARDER}alpine-"),
        )
        .replace("    - charts/nginx", &format!("    - {LARDER}charts/nginx"))
        .replace(
            "    - https://mirror.example.org/",
            &format!("    - {LARDER}_ext/MAC/mirror.example.org/"),
        );
    assert_eq!(without_macs(&derive(HELM_STYLE)), expected);

    let expected = HANDWRITTEN
        .replace(
            "\"https://charts.example.com/stable/tool-1e3.tgz\"",
            &format!("\"{LARDER}tool-1e3.tgz\""),
        )
        .replace("'tool-1e3.tgz'", &format!("'{LARDER}tool-1e3.tgz'"))
        .replace(
            "https://charts.example.com/stable/long/",
            &format!("{LARDER}long/"),
        );
    assert_eq!(derive(HANDWRITTEN), expected);
    assert_eq!(
        derive(HELM_4),
        HELM_4.replace(
            "- https://charts.example.com/stable/demo",
            &format!("- {LARDER}demo")
        )
    );
    assert_eq!(
        derive(MUSEUM),
        MUSEUM.replace("- charts/", &format!("- {LARDER}charts/"))
    );
}

#[test]
fn helm_07_every_way_to_write_a_list() {
    for (urls, expected) in [
        (
            "    urls: [a.tgz, \"b.tgz\", 'c.tgz']",
            format!("    urls: [{LARDER}a.tgz, \"{LARDER}b.tgz\", '{LARDER}c.tgz']"),
        ),
        (
            "    urls:\n      - a.tgz  # c\n\n      - é/b.tgz",
            format!("    urls:\n      - {LARDER}a.tgz  # c\n\n      - {LARDER}%C3%A9/b.tgz"),
        ),
        (
            "    \"urls\": [ &x a.tgz, !!str b.tgz ]",
            format!("    \"urls\": [ &x {LARDER}a.tgz, !!str {LARDER}b.tgz ]"),
        ),
        (
            "    urls:\n    - !!str # c\n      &x \"a.tgz\" # d",
            format!("    urls:\n    - !!str # c\n      &x \"{LARDER}a.tgz\" # d"),
        ),
        (
            "    urls:\n    - !!str |-\n      a.tgz",
            format!("    urls:\n    - !!str |-\n      {LARDER}a.tgz"),
        ),
        (
            "    urls:\n    - \"a\\x2Btgz\"",
            format!("    urls:\n    - \"{LARDER}a+tgz\""),
        ),
        (
            "    urls:\n    - |-\n      a.tgz",
            format!("    urls:\n    - |-\n      {LARDER}a.tgz"),
        ),
        ("    urls: []", "    urls: []".to_owned()),
        ("    urls:", "    urls:".to_owned()),
        ("    urls: a.tgz", "    urls: a.tgz".to_owned()),
    ] {
        assert_eq!(derive(&index_of(urls)), index_of(&expected), "{urls}");
    }
    let crlf = index_of("    description: \"ü\"\n    urls:\n    - a.tgz").replace('\n', "\r\n");
    assert_eq!(
        derive(&crlf),
        crlf.replace("- a.tgz", &format!("- {LARDER}a.tgz"))
    );
    let marked = format!("\u{feff}{}", index_of("    urls:\n    - a.tgz"));
    assert_eq!(
        derive(&marked),
        marked.replace("- a.tgz", &format!("- {LARDER}a.tgz"))
    );
}

#[test]
fn helm_07_what_is_not_a_chart_url_stays() {
    let body = "apiVersion: v1\nurls:\n- a.tgz\nentries:\n  urls:\n  - urls: [b.tgz]\n    home: https://charts.example.com/stable/\n    annotations:\n      urls: [c.tgz]\n    dependencies:\n    - repository: https://charts.example.com/stable\n      urls:\n      - d.tgz\n";
    assert_eq!(
        derive(body),
        body.replace("b.tgz", &format!("{LARDER}b.tgz"))
    );
}

#[test]
fn helm_08_json_index() {
    let body = r#"{"apiVersion":"v1", "generated":"x\ud83d\ude00","entries":{"foo":[null,{"name":"foo","digest":null,
        "urls":["https:\/\/charts.example.com\/stable\/foo-1.0.0.tgz","b.tgz"],"version":"1.0.0"}]}}"#;
    let expected = body
        .replace(
            r"https:\/\/charts.example.com\/stable\/foo-1.0.0.tgz",
            &format!("{LARDER}foo-1.0.0.tgz"),
        )
        .replace("\"b.tgz", &format!("\"{LARDER}b.tgz"));
    assert_eq!(derive(body), expected);
    assert_eq!(claims(body).len(), 2);
    let flow = "{apiVersion: v1, entries: {foo: [{urls: [a.tgz]}]}}";
    assert_eq!(
        derive(flow),
        flow.replace("a.tgz", &format!("{LARDER}a.tgz"))
    );
}

#[test]
fn helm_09_no_key_is_added() {
    let keys = |text: &str| {
        text.lines()
            .filter_map(|line| {
                line.trim_start_matches(['-', ' '])
                    .split_once(": ")
                    .map(|(key, _)| key.to_owned())
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(&derive(HELM_STYLE)), keys(HELM_STYLE));
}

#[test]
fn helm_10_claims_carry_digest_and_date() {
    let claims = claims(HELM_STYLE);
    let found: Vec<_> = claims
        .iter()
        .map(|claim| {
            (
                without_macs(&format!("/{}", claim.path)),
                claim.digests.len(),
                claim.published_at,
            )
        })
        .collect();
    // Seconds by `date -d 2024-03-06T16:23:20-06:00 +%s` and the day before.
    let (newest, older) = (UnixMillis(1_709_763_800_499), UnixMillis(1_709_677_400_499));
    assert_eq!(
        found,
        [
            ("/alpine-0.2.0.tgz".to_owned(), 1, Some(newest)),
            ("/alpine-0.1.0.tgz".to_owned(), 1, Some(older)),
            (
                "/_ext/MAC/mirror.example.org/alpine-0.1.0.tgz".to_owned(),
                1,
                Some(older)
            ),
            (
                "/charts/nginx-1.0.0+build.4.tgz".to_owned(),
                1,
                Some(newest)
            ),
        ]
    );
    assert_eq!(
        claims[0].digests[0].to_string(),
        "sha256:99c76e403d752c84ead610644d4b1c2f2b453a74b921f422b9dcb8a7c8b559cd"
    );
    assert_eq!(
        claims[0].url,
        "https://charts.example.com/stable/alpine-0.2.0.tgz"
    );
    assert_eq!(claims[0].size, None);
}

#[test]
fn helm_11_digest_with_prefix_missing_or_malformed() {
    assert_eq!(
        claims(HELM_STYLE)[1].digests[0].to_hex(),
        "515c58e5f79d8b2913a10cb400ebb6fa9c77fe813287afbacf1a0b897cd78727"
    );
    assert!(
        claims(HANDWRITTEN)
            .iter()
            .all(|claim| claim.digests.is_empty() && claim.published_at.is_none())
    );
    let body = index_of("    digest: 1234\n    created: yesterday\n    urls: [a.tgz]");
    assert_eq!(
        (
            claims(&body)[0].digests.len(),
            claims(&body)[0].published_at
        ),
        (0, None)
    );
}

#[test]
fn helm_11_each_version_that_names_a_path_states_its_digest() {
    let body = format!(
        "apiVersion: v1\nentries:\n  foo:\n  - digest: {}\n    urls: [a.tgz]\n  - digest: {}\n    urls: [a.tgz, ./b.tgz]\n",
        "1".repeat(64),
        "2".repeat(64)
    );
    let claims = claims(&body);
    let found: Vec<_> = claims
        .iter()
        .map(|claim| (claim.path.as_str(), claim.digests[0].to_hex()))
        .collect();
    assert_eq!(
        found,
        [
            ("a.tgz", "1".repeat(64)),
            ("a.tgz", "2".repeat(64)),
            ("b.tgz", "2".repeat(64))
        ]
    );
}

#[test]
fn helm_12_provenance_is_fetched_beside_its_chart() {
    let repository = stable();
    let claim = &claims(RELEASER)[0];
    let path = larder_core::ArtifactPath::parse(
        &format!("{}.prov", claim.path),
        larder_core::PathRules::default(),
    )
    .unwrap();
    let link = links(&repository)
        .resolve_external(&path, crate::SIDECAR_SUFFIXES)
        .unwrap();
    assert_eq!(link.url.as_str(), format!("{}.prov", claim.url));
    assert_eq!(links(&repository).resolve_external(&path, &[]), None);
}

#[test]
fn helm_13_percent_encoding_is_kept_as_found() {
    let text = derive(&index_of(
        "    urls: [foo-1.0.0+build.tgz, foo-1.0.0%2Bbuild.tgz, a%20b.tgz]",
    ));
    assert_eq!(
        carried(&text),
        ["foo-1.0.0+build.tgz", "foo-1.0.0%2Bbuild.tgz", "a%20b.tgz"]
    );
    assert_eq!(
        claims(&index_of("    urls: [foo-1.0.0%2Bbuild.tgz]"))[0].path,
        "foo-1.0.0+build.tgz"
    );
}

#[test]
fn helm_17_bombs_are_refused_quickly() {
    let started = std::time::Instant::now();
    let mut bomb = "apiVersion: v1\na: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (name, previous) in "bcdefghi".chars().zip("abcdefgh".chars()) {
        let aliases = vec![format!("*{previous}"); 10].join(", ");
        let _ = writeln!(bomb, "{name}: &{name} [{aliases}]");
    }
    assert!(refusal(bomb.as_bytes()).contains("aliases"));
    assert!(
        refusal(format!("apiVersion: v1\na: &a b\nc: [{}]\n", "*a, ".repeat(1001)).as_bytes())
            .contains("aliases")
    );
    assert!(refusal(b"apiVersion: v1\na: &a [*a]\n").contains("alias"));

    assert!(
        refusal(format!("apiVersion: v1\na: {}\n", "[".repeat(10_000)).as_bytes())
            .contains("recursion limit")
    );
    let block: String = (0..1000)
        .flat_map(|depth| [" ".repeat(depth), "a:\n".to_owned()])
        .collect();
    assert!(refusal(block.as_bytes()).contains("nest"));
    assert!(refusal(format!("a: {}", "- ".repeat(10_000)).as_bytes()).contains("index.yaml"));
    assert!(refusal(format!("{}x", "- ".repeat(10_000)).as_bytes()).contains("nest"));
    assert!(
        refusal(format!("{{\"a\":{}1{}}}", "[".repeat(100), "]".repeat(100)).as_bytes())
            .contains("nest")
    );
    assert!(refusal("{\"a\":".repeat(10_000).as_bytes()).contains("recursion limit"));
    assert!(
        refusal(format!("apiVersion: v1\na:\n  [{}]\n", "1,".repeat(200_000)).as_bytes())
            .contains("characters")
    );
    assert!(
        started.elapsed().as_secs() < 20,
        "took {:?}",
        started.elapsed()
    );
}

#[test]
fn helm_17_a_few_aliases_are_not_a_bomb() {
    let body = format!(
        "apiVersion: v1\na: &a b\nc: [{}]\nentries: {{foo: [{{urls: [*a, x.tgz]}}]}}\n",
        "*a, ".repeat(900)
    );
    assert_eq!(
        derive(&body),
        body.replace("x.tgz", &format!("{LARDER}x.tgz"))
    );
}

#[test]
fn helm_17_what_is_no_index_is_refused() {
    for (body, word) in [
        (
            &b"<!DOCTYPE html><html><body>log in</body></html>"[..],
            "HTML",
        ),
        (b"\n  <html>", "HTML"),
        (b"", "mapping"),
        (b"just text", "mapping"),
        (b"- apiVersion: v1\n", "mapping"),
        (b"[]", "mapping"),
        (b"entries: {}\n", "apiVersion"),
        (b"apiVersion:\nentries: {}\n", "apiVersion"),
        (b"{\"entries\": {}}", "apiVersion"),
        (b"apiVersion: v1\nentries: []\n", "entries"),
        (b"apiVersion: v1\nentries: text\n", "entries"),
        (b"apiVersion: v1\n\xff\n", "UTF-8"),
        (b"apiVersion: v1\nentries: {\n", "YAML"),
        (b"apiVersion: v1\n  entries: x: y\n", "YAML"),
        (b"{\"apiVersion\": \"v1\", \"entries\": {", "YAML"),
    ] {
        let error = refusal(body);
        assert!(error.contains(word), "{error}");
    }
    assert_eq!(derive("apiVersion: v1\n"), "apiVersion: v1\n");
    assert_eq!(
        derive("apiVersion: v1\nentries:\n"),
        "apiVersion: v1\nentries:\n"
    );
}

#[test]
fn helm_18_private_addresses_are_left_alone_and_never_claimed() {
    for url in [
        "http://169.254.169.254/x.tgz",
        "https://169.254.169.254/x.tgz",
        "https://127.0.0.1/x.tgz",
        "https://0x7f.1/x.tgz",
        "https://2130706433/x.tgz",
        "'https://[::ffff:10.0.0.1]/x.tgz'",
        "https://localhost/x.tgz",
        "http://public.example.org/x.tgz",
        "https://user:password@charts.example.com/stable/x.tgz",
        "foo:1.0.tgz",
        "https://charts.example.com/stable/",
    ] {
        let body = index_of(&format!("    urls:\n    - {url}"));
        assert_eq!(derive(&body), body, "{url}");
        assert_eq!(claims(&body), [], "{url}");
    }
    let mut repository = stable();
    repository
        .upstream_mut()
        .unwrap()
        .allow_private
        .push(AllowPrivate::Network("10.0.0.0/8".parse().unwrap()));
    let text = derive_from(
        &repository,
        "https://charts.example.com/stable/index.yaml",
        &index_of("    urls: ['https://10.1.2.3/x.tgz']"),
    )
    .unwrap();
    assert!(without_macs(&text).contains("_ext/MAC/10.1.2.3/x.tgz"));
}

#[test]
fn helm_24_queries_reach_index_and_charts() {
    let repository = stable();
    let links = links(&repository).asked_with(Some("token=a%2Fb"));
    // Helm gives a relative link the repository URL's query in place of its own.
    let body = index_of(
        "    urls: [foo-1.0.0.tgz, 'bar.tgz?x=1', 'https://charts.example.com/stable/c.tgz?x=1']",
    );
    let want = [
        "foo-1.0.0.tgz?token=a%2Fb",
        "bar.tgz?token=a%2Fb",
        "c.tgz?x=1",
    ];
    // Wherever a redirect led to.
    for url in [
        "https://charts.example.com/stable/index.yaml?token=a%2Fb",
        "https://cdn.example.net/x?signature=s",
    ] {
        with_document(url, &body, |document| {
            let text =
                String::from_utf8(Helm.derive(document, "index", &links).unwrap().body).unwrap();
            assert_eq!(carried(&text), want);
            let mut paths = Vec::new();
            Helm.claims(document, &links, &mut |claim| paths.push(claim.path))
                .unwrap();
            assert_eq!(paths, want);
        });
    }
}

#[test]
fn helm_25_null_entries_and_invalid_versions_survive() {
    let body = "apiVersion: v1\nentries:\n  gone: null\n  odd: text\n  foo:\n  - null\n  -\n  - version: not a version\n    urls:\n    - a.tgz\n    -\n    - ~\n    - [b.tgz]\n  - text\n  - urls: {a: b}\n  - version: 1.0.0\n    urls:\n    - c.tgz\n";
    assert_eq!(
        derive(body),
        body.replace("- a.tgz", &format!("- {LARDER}a.tgz"))
            .replace("- c.tgz", &format!("- {LARDER}c.tgz"))
    );
    assert_eq!(claims(body).len(), 2);
}

#[test]
fn what_the_check_found_out_serves_the_derivations_of_the_same_bytes() {
    let index =
        "apiVersion: v1\nentries:\n  a:\n  - urls:\n    - https://charts.example.com/a-1.0.0.tgz\n";
    let url = url::Url::parse("https://charts.example.com/index.yaml").unwrap();
    let memo = crate::Memo::default();
    let document = |memo| Document {
        body: index.as_bytes(),
        content_type: "",
        url: &url,
        key_path: "index.yaml",
        variant: "",
        memo,
    };
    assert!(memo.get::<std::sync::Arc<super::index::Index>>().is_none());
    let found = |memo| {
        super::index::of(&document(memo), &crate::Meter::default())
            .unwrap()
            .1
    };
    let first = found(Some(&memo));
    assert!(
        std::sync::Arc::ptr_eq(&first, &found(Some(&memo))),
        "read once"
    );
    assert_eq!(found(None).urls.len(), first.urls.len());
}

mod links;
mod merge;

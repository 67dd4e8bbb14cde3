use proptest::prelude::*;

use super::super::test_support::{links_of, repository};
use super::*;

fn resolve(base: Option<&str>, reference: &str) -> Option<String> {
    let repository = repository(
        "https://files.example.com/",
        "https://index.example.com/simple/",
    );
    let links = links_of(&repository);
    let page = Url::parse("https://index.example.com/simple/foo/").unwrap();
    Resolver::new(&links, &page, base)
        .resolve(reference)
        .map(|target| target.path.into_owned())
}

#[test]
fn links_to_the_file_host_become_paths() {
    assert_eq!(
        resolve(None, "https://files.example.com/packages/x-1.0.whl").as_deref(),
        Some("packages/x-1.0.whl")
    );
    assert_eq!(
        resolve(None, "https://files.example.com/whl/x-1.0%2Bcpu.whl").as_deref(),
        Some("whl/x-1.0%2Bcpu.whl")
    );
    assert_eq!(
        resolve(None, " //files.example.com/x-1.0.whl\n").as_deref(),
        Some("x-1.0.whl")
    );
    assert_eq!(
        resolve(Some("https://files.example.com/a/b/"), "../x-1.0.whl").as_deref(),
        Some("a/x-1.0.whl")
    );
}

#[test]
fn links_to_other_hosts_are_signed() {
    let path = resolve(None, "https://cdn.example.net/x-1.0.whl").unwrap();
    assert!(
        path.starts_with("_ext/") && path.ends_with("/cdn.example.net/x-1.0.whl"),
        "{path}"
    );
    let path = resolve(None, "../../packages/x-1.0.whl").unwrap();
    assert!(
        path.ends_with("/index.example.com/packages/x-1.0.whl"),
        "{path}"
    );
}

#[test]
fn files_below_the_paths_of_documents_are_signed() {
    for path in [
        "integrity/x-1.0.whl",
        "integrity/a/x-1.0.tar.gz",
        "integrity/x-1.0.whl.metadata",
        "%69ntegrity/x-1.0.whl",
    ] {
        for link in [
            format!("https://files.example.com/{path}"),
            format!("//files.example.com/{path}"),
        ] {
            let told = resolve(None, &link).unwrap_or_default();
            assert!(told.starts_with("_ext/"), "{link}: {told}");
        }
        let told = resolve(Some("https://files.example.com/"), path).unwrap_or_default();
        assert!(told.starts_with("_ext/"), "{path}: {told}");
    }
    assert_eq!(
        resolve(
            None,
            "https://files.example.com/packages/integrity/x-1.0.whl"
        )
        .as_deref(),
        Some("packages/integrity/x-1.0.whl")
    );
    // What is no file stays the document that it is.
    assert_eq!(
        resolve(None, "https://files.example.com/pypi/x/json").as_deref(),
        Some("pypi/x/json")
    );
}

#[test]
fn checklist_13_a_foreign_base_and_other_schemes_are_not_reachable() {
    for reference in [
        "x-1.0.whl",
        "/x-1.0.whl",
        "//evil.example.net/x-1.0.whl",
        "../x-1.0.whl",
    ] {
        assert_eq!(
            resolve(Some("https://evil.example.net/"), reference),
            None,
            "{reference}"
        );
    }
    for base in [
        "javascript:alert(1)",
        "data:text/html,x",
        "file:///etc/",
        "https://",
    ] {
        assert_eq!(resolve(Some(base), "x-1.0.whl"), None, "{base}");
    }
    for reference in [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)//x.whl",
        "file:///etc/x-1.0.whl",
        "data:,x.whl",
        "ftp://files.example.com/x.whl",
    ] {
        assert_eq!(resolve(None, reference), None, "{reference}");
    }
    // A foreign base does not touch links that name their host.
    assert!(
        resolve(
            Some("https://evil.example.net/"),
            "https://files.example.com/x-1.0.whl"
        )
        .is_some()
    );
}

/// Expected values by the URL standard: what `new URL(reference, page)` gives, and uv, whose parser larder shares.
#[test]
fn links_are_read_as_the_url_standard_says() {
    for (reference, path) in [
        ("https://files.example.com/a b-1.0.whl", "a%20b-1.0.whl"),
        ("https://files.example.com/a//x-1.0.whl", "a/x-1.0.whl"),
        ("https://files.example.com//x-1.0.whl", "x-1.0.whl"),
        ("https://files.example.com/a/../x-1.0.whl", "x-1.0.whl"),
        ("https://files.example.com/a/./x-1.0.whl", "a/x-1.0.whl"),
        ("https://files.example.com/a/%2e%2E/x-1.0.whl", "x-1.0.whl"),
        ("https://files.example.com\\a\\x-1.0.whl", "a/x-1.0.whl"),
        ("https://files.exa\tmple.com/x-\n1.0.whl", "x-1.0.whl"),
        ("HTTPS://FILES.example.com:443/x-1.0.whl", "x-1.0.whl"),
        ("//files.example.com/x-1.0.whl", "x-1.0.whl"),
        ("http://files.example.com/x-1.0.whl", "x-1.0.whl"),
    ] {
        assert_eq!(
            resolve(None, reference).as_deref(),
            Some(path),
            "{reference:?}"
        );
    }
    let base = Some("https://files.example.com/a/b/");
    for (reference, path) in [
        ("x-1.0.whl", "a/b/x-1.0.whl"),
        ("c/../x-1.0.whl", "a/b/x-1.0.whl"),
        ("./x-1.0.whl", "a/b/x-1.0.whl"),
        ("../../../x-1.0.whl", "x-1.0.whl"),
        ("..\\x-1.0.whl", "a/x-1.0.whl"),
        ("/x-1.0.whl", "x-1.0.whl"),
    ] {
        assert_eq!(
            resolve(base, reference).as_deref(),
            Some(path),
            "{reference:?}"
        );
    }
}

#[test]
fn what_names_no_file_or_climbs_once_it_is_decoded_is_dropped() {
    for reference in [
        "",
        "/",
        "a/",
        "java\nscript:x",
        "https://files.example.com/a%2f..%2fx.whl",
        "https://files.example.com/a%2f..%2fb/x.whl",
        "https://files.example.com/%252e%252e/x.whl",
        "https://files.example.com/a%00/x.whl",
        "https://u:p@files.example.com/x.whl",
        "https://files.example.com/.hidden",
    ] {
        assert_eq!(resolve(None, reference), None, "{reference:?}");
    }
}

#[test]
fn hazard_x4_relative_links_are_not_multiplied_by_a_long_base() {
    let long = format!("https://files.example.com/{}/", "a".repeat(MAX_URL));
    assert_eq!(resolve(Some(&long), "x-1.0.whl"), None);
    assert!(resolve(Some(&long), "https://files.example.com/x-1.0.whl").is_some());
}

#[test]
fn hazard_x8_dropped_files_are_counted_and_other_links_of_a_page_are_not() {
    let repository = repository(
        "https://files.example.com/",
        "https://index.example.com/simple/",
    );
    let links = links_of(&repository);
    let resolver = Resolver::new(
        &links,
        &Url::parse("https://index.example.com/simple/foo/").unwrap(),
        None,
    );
    for other in [
        "../",
        "?C=N;O=D",
        "mailto:me@example.com",
        "https://example.com/",
        "#top",
        "",
    ] {
        assert_eq!(resolver.resolve(other), None, "{other}");
    }
    assert_eq!(links.left_out(), crate::LeftOut::default());
    for dropped in [
        "ftp://user:secret@h.example/foo-1.0.tar.gz",
        "https://10.1.2.3/foo-1.0.whl",
    ] {
        assert_eq!(resolver.resolve(dropped), None, "{dropped}");
    }
    let left = links.left_out();
    assert_eq!(
        (left.count, left.first.unwrap().0.as_str()),
        (2, "ftp://h.example")
    );
}

proptest! {
    #[test]
    fn resolving_by_letters_gives_what_resolving_gives(
        start in "(https://(files|host)\\.example\\.com(:443)?/|\\.\\./|\\./|/|){0,3}",
        rest in "([a-z.:_~%+-]|%2[BbFf]|/|_ext/|\\.\\.|\\?|packages/){0,8}",
    ) {
        for (base_url, page) in [
            ("https://files.example.com/", "https://index.example.com/simple/foo/"),
            ("https://host.example.com/", "https://host.example.com/simple/foo/"),
            ("https://host.example.com/pypi/", "https://host.example.com/pypi/simple/foo/"),
            ("https://host.example.com/pypi/simple/foo/", "https://host.example.com/pypi/simple/foo/"),
        ] {
            let repository = repository(base_url, "https://host.example.com/simple/");
            let links = links_of(&repository);
            let resolver = Resolver::new(&links, &Url::parse(page).unwrap(), None);
            let reference = format!("{start}{rest}");
            // Twice: the second time, the directory is known.
            for _ in 0..2 {
                if let Some(target) = resolver.resolve_plain(&reference) {
                    prop_assert_eq!(Ok(Some(target)), resolver.resolve_any(&reference));
                }
            }
        }
    }
}

#[test]
fn the_links_of_real_pages_are_resolved_by_letters() {
    let repository = repository(
        "https://host.example.com/",
        "https://host.example.com/simple/",
    );
    let links = links_of(&repository);
    let resolver = Resolver::new(
        &links,
        &Url::parse("https://host.example.com/simple/foo/").unwrap(),
        None,
    );
    for (reference, path) in [
        (
            "https://host.example.com/packages/aa/foo-1.0%2Bcpu.whl",
            "packages/aa/foo-1.0%2Bcpu.whl",
        ),
        ("../../packages/foo-1.0.whl", "packages/foo-1.0.whl"),
        ("/packages/foo-1.0.whl", "packages/foo-1.0.whl"),
        ("foo-1.0.whl", "simple/foo/foo-1.0.whl"),
    ] {
        assert_eq!(
            resolver.resolve_plain(reference).unwrap().path,
            path,
            "{reference}"
        );
    }
}

#[test]
fn sidecars_stand_before_the_query() {
    let target = |url| Target {
        path: "x".into(),
        url: Cow::Borrowed(url),
        file_name: "x".into(),
    };
    assert_eq!(
        target("https://h.example.com/x.whl").sidecar_url(".metadata"),
        "https://h.example.com/x.whl.metadata"
    );
    assert_eq!(
        target("https://h.example.com/x.whl?a=/").sidecar_url(".metadata"),
        "https://h.example.com/x.whl.metadata?a=/"
    );
}

#[test]
fn fragments_keep_their_bytes_and_tell_digests() {
    assert_eq!(split_fragment("a#b#c"), ("a", Some("b#c")));
    assert_eq!(split_fragment("a"), ("a", None));
    let md5 = "d41d8cd98f00b204e9800998ecf8427e";
    let fragment = format!("egg=x&md5={md5}&sha256=short&crc=1");
    let found: Vec<_> = fragment_digests(&fragment).collect();
    assert_eq!(found, [("md5", md5, format!("md5:{md5}").parse().unwrap())]);
}

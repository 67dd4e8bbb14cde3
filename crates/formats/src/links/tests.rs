use larder_core::{AllowPrivate, ArtifactPath, PackageType};

use super::*;
use crate::SIDECAR_SUFFIXES;
use crate::testing::{links, remote};

fn pypi() -> Repository {
    remote(
        "pypi",
        PackageType::Pypi,
        "https://files.example.com/packages/",
    )
}

fn path_of(repository: &Repository, url: &str) -> Option<String> {
    links(repository)
        .carry(url.parse().unwrap())
        .ok()
        .map(|carried| carried.path)
}

fn resolve(repository: &Repository, path: &str) -> Option<String> {
    let path = ArtifactPath::parse(path, PathRules::default()).unwrap();
    links(repository)
        .resolve_external(&path, SIDECAR_SUFFIXES)
        .map(|link| link.url.into())
}

#[test]
fn below_the_root_it_is_the_rest_of_the_path() {
    let repository = pypi();
    for (url, path) in [
        (
            "https://files.example.com/packages/a/b%2Bc.whl",
            "a/b%2Bc.whl",
        ),
        (
            "https://files.example.com:443/packages/a/b+c.whl#sha256=x",
            "a/b+c.whl",
        ),
        ("https://files.example.com/packages/", ""),
    ] {
        assert_eq!(path_of(&repository, url).as_deref(), Some(path), "{url}");
    }
    assert_eq!(
        links(&repository).href("x"),
        "https://larder.example/api/v1/remote/pypi/x"
    );
}

#[test]
fn elsewhere_it_is_signed_and_comes_back_as_the_same_url() {
    let repository = pypi();
    for url in [
        "https://cdn.example.net/a/b%2Bc.whl",
        "https://cdn.example.net/a/b+c.whl",
        "https://cdn.example.net:8443/a",
        "https://files.example.com/other/a",
        "https://files.example.com:444/packages/a",
        "https://files.example.com/packages/a?sig=x%2Fy&b=%20",
        "https://files.example.com/packages/_ext/a",
        "https://cdn.example.net/",
        "https://cdn.example.net/a?",
        "https://[2606:4700::1111]/a",
        "https://xn--bcher-kva.example/%C3%A9/100%25",
    ] {
        let path = path_of(&repository, url).unwrap_or_else(|| panic!("{url} is not carried"));
        assert!(path.starts_with("_ext/"), "{path}");
        assert_eq!(resolve(&repository, &path).as_deref(), Some(url));
    }
}

#[test]
fn the_last_segment_and_the_shape_of_a_signed_path() {
    let path = path_of(&pypi(), "https://cdn.example.net/a/b.whl?x=1").unwrap();
    let segments: Vec<_> = path.split('/').collect();
    assert_eq!(
        (segments[0], segments[2], segments[3], segments[4]),
        ("_ext", "cdn.example.net", "a", "b.whl")
    );
    // "x=1" in base64url.
    assert_eq!(segments[1].split_once('.').unwrap().1, "eD0x");
}

#[test]
fn hazard_forged_or_changed_links_do_not_resolve() {
    let repository = pypi();
    let path = path_of(&repository, "https://cdn.example.net/a/b.whl?x=1").unwrap();
    assert!(resolve(&repository, &path).is_some());
    for at in 0..path.len() {
        let mut changed = path.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert_eq!(resolve(&repository, &changed), None, "{changed}");
    }
    for forged in [
        "_ext/",
        "_ext/AAAA/cdn.example.net/a",
        "_ext//",
        "_ext/AAAAAAAAAAAAAAAAAAAAAA/cdn.example.net/a",
        "_ext",
        "_ext/x",
    ] {
        let Ok(forged) = ArtifactPath::parse(forged, PathRules::default()) else {
            continue;
        };
        assert_eq!(
            links(&repository).resolve_external(&forged, SIDECAR_SUFFIXES),
            None
        );
    }
}

#[test]
fn hazard_a_link_is_bound_to_repository_and_key() {
    let repository = pypi();
    let path = path_of(&repository, "https://cdn.example.net/a/b.whl").unwrap();
    assert_eq!(
        resolve(
            &remote(
                "other",
                PackageType::Pypi,
                "https://files.example.com/packages/"
            ),
            &path
        ),
        None
    );
    let parsed = ArtifactPath::parse(&path, PathRules::default()).unwrap();
    let other_key = Links::new(
        &repository,
        &LinkKey::from_bytes([8; 32]),
        LinkBase::new("/"),
    );
    assert_eq!(other_key.resolve_external(&parsed, &[]), None);
    let other_base = Links::new(
        &repository,
        &LinkKey::from_bytes([7; 32]),
        LinkBase::new("/"),
    );
    assert!(other_base.resolve_external(&parsed, &[]).is_some());
}

#[test]
fn a_client_may_encode_the_path_anew() {
    let repository = pypi();
    let path = path_of(&repository, "https://cdn.example.net/t-1+cpu.whl").unwrap();
    assert_eq!(
        resolve(&repository, &path.replace('+', "%2B")).as_deref(),
        Some("https://cdn.example.net/t-1%2Bcpu.whl")
    );
}

#[test]
fn plain_http_only_where_the_root_is_plain() {
    assert_eq!(path_of(&pypi(), "http://cdn.example.net/a"), None);
    let plain = remote(
        "plain",
        PackageType::Pypi,
        "http://files.example.com/packages/",
    );
    let path = path_of(&plain, "http://cdn.example.net/a").unwrap();
    assert_eq!(
        resolve(&plain, &path).as_deref(),
        Some("http://cdn.example.net/a")
    );
    let path = path_of(&plain, "https://cdn.example.net/a").unwrap();
    assert_eq!(
        resolve(&plain, &path).as_deref(),
        Some("https://cdn.example.net/a")
    );
    // Signed while the root was plain, asked for after it became https.
    let secured = remote(
        "plain",
        PackageType::Pypi,
        "https://files.example.com/packages/",
    );
    let path = path_of(&plain, "http://cdn.example.net/a").unwrap();
    assert_eq!(resolve(&secured, &path), None);
}

#[test]
fn links_that_are_not_carried() {
    for url in [
        "ftp://cdn.example.net/a",
        "oci://cdn.example.net/a:1",
        "https://user@cdn.example.net/a",
        "https://user:password@files.example.com/packages/a",
        "https://cdn.example.net/a%00b",
        "https://cdn.example.net/a%0d%0ab",
        "https://cdn.example.net/a%2f..%2f..%2fb",
        "https://cdn.example.net/..%5Cb",
        "https://cdn.example.net/a%252e%252e/b",
        "https://cdn.example.net/a/..;/b",
        "https://127.0.0.1/a",
        "https://0x7f.1/a",
        "https://2130706433/a",
        "https://[::ffff:10.0.0.1]/a",
        "https://localhost/a",
        "data:text/plain,a",
    ] {
        assert_eq!(path_of(&pypi(), url), None, "{url}");
    }
}

/// What clients ask larder for must lead back to the URL byte for byte, whatever larder would make of its path.
#[test]
fn hazard_x8_spellings_that_larder_would_refuse_or_change_come_back_as_they_were() {
    let repository = pypi();
    for (url, path) in [
        ("https://cdn.example.net/a%2fb.whl", "a/b.whl"),
        ("https://cdn.example.net/a%5Cb.whl", "a/b.whl"),
        ("https://cdn.example.net//a///b.whl?x=a%2Fb", "a/b.whl"),
        ("https://cdn.example.net/%FFb.whl", "\u{fffd}b.whl"),
        (
            "https://files.example.com/packages/a%2Fb.whl?",
            "packages/a/b.whl",
        ),
    ] {
        let signed = path_of(&repository, url).unwrap_or_else(|| panic!("{url} is not carried"));
        let parsed = ArtifactPath::parse(&signed, PathRules::default()).unwrap();
        let link = links(&repository)
            .resolve_external(&parsed, SIDECAR_SUFFIXES)
            .unwrap();
        assert_eq!(
            (link.url.as_str(), link.original_path.as_str()),
            (url, path)
        );
        let beside = resolve(&repository, &format!("{signed}.metadata")).unwrap();
        assert_eq!(beside, url.replace(".whl", ".whl.metadata"));
        // Nothing of it can be changed.
        for at in 0..signed.len() {
            let mut changed = signed.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let Ok(changed) =
                ArtifactPath::parse(&String::from_utf8(changed).unwrap(), PathRules::default())
            else {
                continue;
            };
            assert!(
                changed == parsed
                    || links(&repository)
                        .resolve_external(&changed, SIDECAR_SUFFIXES)
                        .is_none(),
                "{changed}"
            );
        }
    }
}

#[test]
fn hazard_x8_a_root_with_escapes_is_one_root_in_every_spelling() {
    let repository = remote(
        "files",
        PackageType::Pypi,
        "https://files.example.com/my%20files/a%2Fb/%7Eme/",
    );
    for url in [
        "https://files.example.com/my%20files/a%2Fb/%7Eme/c/x.whl",
        "https://files.example.com/my files/a%2fb/~me/c/x.whl",
        "https://files.example.com//my%20files/a%2Fb//%7Eme/c//x.whl",
        "http://files.example.com/my%20files/a%2Fb/~me/c/./x.whl",
    ] {
        assert_eq!(
            path_of(&repository, url).as_deref(),
            Some("c/x.whl"),
            "{url}"
        );
    }
    for url in [
        "https://files.example.com/my%20files/a/b/~me/x.whl",
        "https://files.example.com/my%20files/a%2Fb%2F~me/x.whl",
    ] {
        assert!(
            path_of(&repository, url).is_some_and(|path| path.starts_with("_ext/")),
            "{url}"
        );
    }
}

/// The issue of mixed content: an application behind a proxy that took TLS off writes http of its own host.
#[test]
fn http_on_a_host_that_the_operator_named_as_https_is_read_as_https() {
    for package in [PackageType::Pypi, PackageType::Helm, PackageType::Npm] {
        let repository = remote("files", package, "https://files.example.com:8443/packages/");
        let carry = |url: &str| {
            links(&repository)
                .carry(url.parse().unwrap())
                .map(|carried| (carried.path, carried.url.to_string()))
        };
        let own = "https://files.example.com:8443/packages/a.tgz".to_owned();
        assert_eq!(
            carry("http://files.example.com:8443/packages/a.tgz"),
            Ok(("a.tgz".to_owned(), own))
        );
        let (path, url) = carry("http://files.example.com/b.tgz").unwrap();
        assert!(
            path.starts_with("_ext/") && url == "https://files.example.com/b.tgz",
            "{path} {url}"
        );
        assert_eq!(
            carry("http://cdn.example.net/a.tgz"),
            Err(NotCarried::PlainHttp)
        );
    }
    // Named as both, it is what it says.
    let mut both = pypi();
    both.upstream_mut()
        .unwrap()
        .base_urls
        .push("http://files.example.com/packages/".parse().unwrap());
    assert_eq!(
        links(&both)
            .carry("http://files.example.com/packages/a".parse().unwrap())
            .unwrap()
            .url
            .scheme(),
        "http"
    );
}

#[test]
fn the_operators_own_hosts_may_be_private() {
    let mut repository = remote("local", PackageType::Pypi, "http://127.0.0.1:8080/files/");
    assert_eq!(
        path_of(&repository, "http://127.0.0.1:8080/files/a").as_deref(),
        Some("a")
    );
    assert!(path_of(&repository, "http://127.0.0.1:8080/other/a").is_some());
    // Another port is another service.
    for neighbour in ["http://127.0.0.1:8081/files/a", "http://127.0.0.1/files/a"] {
        assert_eq!(path_of(&repository, neighbour), None, "{neighbour}");
    }
    assert_eq!(path_of(&repository, "http://127.0.0.2/a"), None);
    repository
        .upstream_mut()
        .unwrap()
        .allow_private
        .push(AllowPrivate::Socket("127.0.0.2:80".parse().unwrap()));
    let path = path_of(&repository, "http://127.0.0.2/a").unwrap();
    assert!(resolve(&repository, &path).is_some());
    // The operator took the address off the list.
    repository.upstream_mut().unwrap().allow_private.clear();
    assert_eq!(resolve(&repository, &path), None);
}

#[test]
fn link_hosts_limits_other_hosts_but_not_the_own() {
    let mut repository = pypi();
    repository.upstream_mut().unwrap().link_hosts = Some(vec![
        "cdn.example.net".to_owned(),
        "b.example:8443".to_owned(),
    ]);
    for (url, carried) in [
        ("https://cdn.example.net/a", true),
        ("https://cdn.example.net:99/a", true),
        ("https://cdn.example.net.evil.example/a", false),
        ("https://b.example:8443/a", true),
        ("https://b.example/a", false),
        ("https://files.example.com/other", true),
    ] {
        assert_eq!(path_of(&repository, url).is_some(), carried, "{url}");
    }
}

#[test]
fn sidecars_are_reached_by_their_subjects_mac() {
    let repository = pypi();
    let path = path_of(&repository, "https://cdn.example.net/a/b.whl?x=1").unwrap();
    for suffix in SIDECAR_SUFFIXES {
        assert_eq!(
            resolve(&repository, &format!("{path}{suffix}")).as_deref(),
            Some(format!("https://cdn.example.net/a/b.whl{suffix}?x=1").as_str())
        );
    }
    assert_eq!(resolve(&repository, &format!("{path}.exe")), None);
    assert_eq!(resolve(&repository, &format!("{path}.metadata.asc")), None);
}

#[test]
fn package_types_that_forward_queries_keep_them_in_place() {
    let helm = remote(
        "charts",
        PackageType::Helm,
        "https://files.example.com/packages/",
    );
    assert_eq!(
        path_of(&helm, "https://files.example.com/packages/a.tgz?x=1").as_deref(),
        Some("a.tgz?x=1")
    );
    assert!(
        path_of(&pypi(), "https://files.example.com/packages/a.tgz?x=1")
            .unwrap()
            .starts_with("_ext/")
    );
}

#[test]
fn original_path_is_what_patterns_see() {
    let repository = pypi();
    let path = path_of(&repository, "https://cdn.example.net/a/b%2B.whl").unwrap();
    let link = links(&repository)
        .resolve_external(
            &ArtifactPath::parse(&path, PathRules::default()).unwrap(),
            &[],
        )
        .unwrap();
    assert_eq!(link.original_path, "a/b+.whl");
}

#[test]
fn no_secret_is_printed() {
    let (repository, key) = (pypi(), LinkKey::from_bytes([42; 32]));
    assert_eq!(format!("{key:?}"), "LinkKey(..)");
    let text = format!("{:?}", Links::new(&repository, &key, LinkBase::new("/x")));
    assert!(!text.contains("42") && text.contains("pypi"), "{text}");
}

use super::*;

fn places(upstream: &str) -> Places {
    Places {
        repository: "files".to_owned(),
        own: ["http://127.0.0.1:8000/", "https://larder.example.com/"]
            .map(|own| Url::parse(own).unwrap())
            .to_vec(),
        upstreams: vec![Url::parse(upstream).unwrap()],
        registries: None,
        within: BTreeSet::from(["all".to_owned()]),
        is_virtual: false,
    }
}

#[test]
fn a_url_of_the_repository_or_of_its_upstream_is_a_path() {
    let places = places("https://files.example.com/pool/");
    for (url, path) in [
        ("a/b.bin", "a/b.bin"),
        ("/a b%20c", "a b%20c"),
        ("a%3Fb%25c", "a?b%c"),
        ("./a.deb", "a.deb"),
        ("pool/./x.deb", "pool/x.deb"),
        ("/a//c", "a/c"),
        ("https://files.example.com/pool/a//./c", "a/c"),
        ("http://127.0.0.1:8000/api/v1/virtual/all/x/y", "x/y"),
        ("http://127.0.0.1:8000/api/v1/virtual/all/_m/files/x", "x"),
        ("https://files.example.com/pool/a%20b/c", "a b/c"),
        ("http://user:x@files.example.com:443/pool/c", "c"),
        ("http://127.0.0.1:8000/api/v1/remote/files/x/y", "x/y"),
        // Under another of larder's names, and behind a path.
        (
            "https://larder.example.com/cache/api/v1/remote/files/@a%2fb",
            "@a/b",
        ),
        (
            "http://127.0.0.1:8000/v2/files/app/manifests/1",
            "app/manifests/1",
        ),
        (
            "https://larder.example.com/v2/files/app/manifests/1",
            "app/manifests/1",
        ),
    ] {
        assert_eq!(places.path_of(url).as_deref(), Ok(path), "{url}");
    }
}

#[test]
fn what_is_elsewhere_or_cannot_be_asked_for_is_none() {
    let places = places("https://files.example.com/pool/");
    for (url, word) in [
        ("https://other.example.com/pool/c", "other.example.com"),
        ("https://files.example.com/poolside/c", "neither"),
        ("http://127.0.0.1:8000/api/v1/remote/other/x", "neither"),
        (
            "http://127.0.0.1:8000/api/v1/virtual/all/_m/other/x",
            "another member",
        ),
        (
            "http://127.0.0.1:8000/api/v1/virtual/all/_m/filesx/x",
            "another member",
        ),
        ("https://files.example.com/pool/c?token=canary", "query"),
        ("https://files.example.com/pool/", "itself"),
        ("https://files.example.com/pool/a%2fb", "slash"),
        ("https://files.example.com/pool/a\tb", "control"),
        ("a\tb", "control"),
        ("", "empty"),
    ] {
        let astray = places.path_of(url).expect_err(url);
        let is_elsewhere = matches!(astray, Astray::Elsewhere(_));
        assert_eq!(
            is_elsewhere,
            ["other", "neither", "another"]
                .iter()
                .any(|of| word.contains(of))
        );
        let why = astray.why();
        assert!(
            why.contains(word) && !why.contains("canary"),
            "{url}: {why}"
        );
    }
    // What a lock file names is no path of a list.
    for file in [
        "file:f.tgz",
        "file:///f.tgz",
        "../f.tgz",
        "git+ssh://files.example.com/pool/f",
    ] {
        let found = places.path_of_url(file);
        assert!(
            matches!(found, Err(Astray::Elsewhere(_))),
            "{file}: {found:?}"
        );
    }
    let tarball = places.path_of_tarball("@s%2fa/-/a-1.tgz");
    assert_eq!(tarball.as_deref(), Ok("@s/a/-/a-1.tgz"));
}

#[test]
fn images_may_begin_with_the_names_of_larder_and_of_the_upstream() {
    let places = places("https://registry-1.hub.example.com/");
    for (name, image) in [
        ("team/app", "team/app"),
        ("app", "app"),
        ("127.0.0.1:8000/files/team/app", "team/app"),
        ("larder.example.com/files/team/app", "team/app"),
        ("hub.example.com/library/app", "library/app"),
        ("registry-1.hub.example.com/app", "app"),
        ("registry-1.hub.example.com:443/app", "app"),
        ("Registry-1.Hub.example.com/app", "app"),
        ("larder.example.com:443/files/app", "app"),
    ] {
        assert_eq!(places.image(name), Ok(image), "{name}");
    }
    for name in [
        "127.0.0.1:8000/other/app",
        "127.0.0.1:8000/files",
        "larder.example.com/team/app",
        "ub.example.com/app",
        "registry-1.hub.example.com:80/app",
        "example.org/app",
    ] {
        places.image(name).expect_err(name);
    }
}

#[test]
fn docker_hub_is_known_by_all_its_names() {
    let hosts = docker_hub_hosts();
    assert!(hosts.len() > 1);
    let places = places(&format!("https://{}/", hosts[0]));
    for host in hosts {
        let name = format!("{host}/library/nginx");
        assert_eq!(places.image(&name), Ok("library/nginx"));
    }
    places.image("hub.example.com/nginx").expect_err("another");
}

#[test]
fn the_part_of_a_registry_is_no_part_of_the_names_in_it() {
    let places = places("http://hub.example.com:5000/v2/org/");
    assert_eq!(places.image("hub.example.com:5000/org/tool"), Ok("tool"));
    assert_eq!(places.image("hub.example.com:5000/org/a/b"), Ok("a/b"));
    assert_eq!(places.image("tool"), Ok("tool"));
    for other in [
        "hub.example.com:5000/tool",
        "hub.example.com:5000/organ/tool",
    ] {
        let why = places.image(other).expect_err(other);
        assert!(why.contains("hub.example.com:5000/org,"), "{why}");
    }
}

#[test]
fn images_of_the_default_repository_need_not_name_it() {
    let mut places = places("https://hub.example.com/");
    let registries = ["files", "other"].map(str::to_owned);
    places.registries = Some(BTreeSet::from(registries));
    for (name, image) in [
        ("127.0.0.1:8000/app", "app"),
        ("larder.example.com/team/app", "team/app"),
        ("larder.example.com/files/team/app", "team/app"),
    ] {
        assert_eq!(places.image(name), Ok(image), "{name}");
    }
    for name in ["larder.example.com/other/app", "larder.example.com/files"] {
        places.image(name).expect_err(name);
    }
}

#[test]
fn a_chart_repository_is_known_by_its_address() {
    let places = places("https://charts.example.com/stable");
    for own in [
        "https://charts.example.com/stable/",
        "https://charts.example.com/stable",
        "https://larder.example.com/api/v1/remote/files",
        "https://larder.example.com/api/v1/virtual/all/",
    ] {
        assert!(places.is_root(own), "{own}");
        assert_eq!(places.is_wider(own), own.contains("/all"), "{own}");
    }
    for other in [
        "https://charts.example.com/other",
        "https://larder.example.com/api/v1/virtual/others",
    ] {
        assert!(!places.is_root(other), "{other}");
    }
}

#[test]
fn virtual_repositories_within_each_other_have_it_too() {
    let config = serde_json::json!({
        "a": {"type": "remote"}, "b": {"type": "remote"},
        "inner": {"type": "virtual", "members": ["a"]}, "outer": {"type": "virtual", "members": ["b", "inner"]},
        "other": {"type": "virtual", "members": ["b"]},
    });
    let found = containing(config.as_object(), "a");
    assert_eq!(found, BTreeSet::from(["inner", "outer"].map(str::to_owned)));
    assert!(containing(None, "a").is_empty());
}

//! Names and settings of repositories.

use super::*;

#[test]
fn names_keep_to_their_grammar() {
    let longest = "a".repeat(128);
    for name in [
        "pypi",
        "a",
        "Docker-Hub_2.x",
        "_",
        "-",
        "a.",
        longest.as_str(),
    ] {
        assert_eq!(
            RepositoryName::parse(name)
                .map(|n| n.to_string())
                .as_deref(),
            Ok(name)
        );
    }
    let too_long = "a".repeat(129);
    for name in [
        "",
        ".",
        "..",
        ".hidden",
        "a/b",
        "a b",
        "a%2f",
        "ä",
        "a\0",
        "a:b",
        too_long.as_str(),
    ] {
        assert!(RepositoryName::parse(name).is_err(), "{name:?}");
    }
    assert!(serde_json::from_str::<RepositoryName>("\"../x\"").is_err());
    let name: RepositoryName = serde_json::from_str("\"npm\"").unwrap();
    assert_eq!(serde_json::to_string(&name).unwrap(), "\"npm\"");
}

#[test]
fn words_are_those_of_the_configuration() {
    let words: Vec<_> = PackageType::ALL
        .iter()
        .map(|package| package.as_str())
        .collect();
    assert_eq!(
        words,
        ["generic", "alpine", "rpm", "docker", "pypi", "npm", "helm"]
    );
    let kinds = [
        RepositoryKind::Remote,
        RepositoryKind::Local,
        RepositoryKind::Virtual,
    ]
    .map(RepositoryKind::as_str);
    assert_eq!(kinds, ["remote", "local", "virtual"]);
}

#[test]
fn hazard_s10_credentials_go_to_scheme_host_and_port_of_a_configured_root_only() {
    let url = |text: &str| Url::parse(text).unwrap();
    let upstream = UpstreamSettings {
        base_urls: vec![
            url("https://files.example.com/pub/"),
            url("http://mirror.example.com:8080/"),
        ],
        index_url: url("https://index.example.com/simple/"),
        credentials: Some(Credentials {
            username: "u".into(),
            password: Secret::new("canary".into()),
        }),
        auth: UpstreamAuth::Basic,
        default_namespace: None,
        headers: vec![("X-Token".into(), Secret::new("canary".into()))],
        connect_timeout: Duration::from_secs(5),
        read_timeout: Duration::from_secs(30),
        allow_private: vec![],
        link_hosts: None,
        ca_file: None,
        proxy: Some(ProxyRules::for_everything(url(
            "http://user:canary@proxy.example.com:3128/",
        ))),
        offline: false,
        max_size: None,
        max_disk: None,
        limits: crate::RequestLimits::default(),
    };
    for text in [
        "https://files.example.com/other",
        "https://FILES.example.com:443/",
        "http://mirror.example.com:8080/x",
        "https://index.example.com/simple/six/",
    ] {
        assert!(upstream.is_configured_origin(&url(text)), "{text}");
    }
    for text in [
        "http://files.example.com/pub/",
        "https://files.example.com:8443/pub/",
        "https://files.example.com.evil.example/",
        "https://evil.example/files.example.com/",
        "http://mirror.example.com/",
        "https://sub.files.example.com/",
    ] {
        assert!(!upstream.is_configured_origin(&url(text)), "{text}");
    }
    assert!(!format!("{upstream:?}").contains("canary"));
}

//! Mistakes that people make who come from elsewhere: other programs' words, YAML by hand, files that are almost the right ones. Each is
//! told what helps, by `check` as by a start.

use crate::broken::assert_broken;
use crate::case::{Case, certificate};

const TLS: &str = "tls: {cert: '@HOME@/cert.pem', key: '@HOME@/key.pem'}\nremotes: {a: {base_url: 'http://a.example.com'}}\n";
const PLAIN: &str = "remotes: {a: {base_url: 'http://a.example.com'}}\n";

#[test]
fn yaml_by_hand() {
    assert_broken(&[
        Case::new(
            "tabs",
            "remotes:\n\ta:\n\t\tpackage: npm\n",
            &["larder.yaml:2", "no tabs"],
        ),
        Case::new(
            "a pattern that reads as an alias",
            "remotes:\n  a:\n    deny_patterns: [*.json]\n",
            &["larder.yaml:3", "quotation marks"],
        ),
        Case::new(
            "another language's comment",
            "{\n// mine\n\"remotes\": {}}\n",
            &["comments begin with `#`"],
        ),
        Case::new(
            "TOML",
            "[remotes.a]\nbase_url = 'http://a.example.com'\n",
            &["looks like TOML"],
        ),
        Case::new(
            "an open quotation mark",
            "remotes:\n  a:\n    base_url: \"http://a.example.com\n",
            &["is not closed"],
        ),
        Case::new(
            "no space",
            "remotes:\n  a:\n    base_url:http://a.example.com\n",
            &["a space must stand behind the colon: `base_url: …`"],
        ),
        Case::new(
            "anchors of their own",
            "x-all: &all {cache: {mutable_ttl: 5}}\nremotes: {a: {<<: *all, package: npm}}\n",
            &["first repository that uses it"],
        ),
        Case::new(
            "a tilde",
            "data_dir: ~/cache\nremotes: {}\n",
            &["larder.yaml:1", "`~` is no home directory"],
        ),
        Case::new(
            "a host and a port",
            "remotes: {a: {base_url: 'localhost:8080'}}\n",
            &["it begins with http:// or https://"],
        ),
        Case::repository(
            "a unit",
            "cache: {mutable_ttl: 10m}",
            &["a whole number of seconds", "10m is 600"],
        ),
        Case::repository(
            "another program's for ever",
            "cache: {immutable_ttl: -1}",
            &["for ever is 0"],
        ),
    ]);
}

#[test]
fn words_of_other_programs() {
    assert_broken(&[
        Case::repository(
            "Nexus",
            "contentMaxAge: 1440",
            &["`contentMaxAge`", "`cache: {immutable_ttl: 0"],
        ),
        Case::repository(
            "Artifactory",
            "missedRetrievalCachePeriodSecs: 60",
            &["`negative_ttl`"],
        ),
        Case::repository("devpi", "mirror_cache_expiry: 1800", &["mutable_ttl"]),
        Case::repository(
            "nginx",
            "proxy_pass: 'http://a.example.com'",
            &["the upstream's address is `base_url`"],
        ),
        Case::repository(
            "a type without support",
            "type: deb",
            &["docs/guide/generic.md"],
        ),
        Case::new(
            "Verdaccio",
            "packages: {'**': {proxy: npmjs}}\n",
            &["under `remotes`, by name"],
        ),
        Case::new(
            "no scheme",
            "remotes: {a: {base_url: files.example.com}}\n",
            &["must begin with http:// or https://"],
        ),
        Case::repository(
            "a file of proxy settings",
            "proxy: 'http://wpad.example.com/wpad.dat'",
            &["PAC"],
        ),
        Case::new(
            "the configuration in a variable of another name",
            PLAIN,
            &["did you mean CONFIG_PATH?"],
        )
        .env("LARDER_CONFIG", "/x"),
        Case::new(
            "an env file with quotation marks",
            PLAIN,
            &["LARDER_DATA_DIR", "in quotation marks"],
        )
        .env("LARDER_DATA_DIR", "\"/srv\""),
        Case::new(
            "semicolons",
            PLAIN,
            &["NO_PROXY", "a.example.com;b.example.com"],
        )
        .env("HTTP_PROXY", "http://proxy.example.com:3128")
        .env("NO_PROXY", "a.example.com;b.example.com"),
        Case::new(
            "a token of the environment",
            PLAIN,
            &["LARDER_ADMIN_TOKEN: the admin token must be"],
        )
        .env("LARDER_ADMIN_TOKEN", "a b"),
    ]);
}

#[test]
fn certificates_and_keys_that_are_almost_right() {
    let (cert, key) = certificate(2020, 2090);
    let (other, _) = certificate(2020, 2090);
    // Only the first line counts: nothing of it is ever decoded.
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIFHDBO\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let older = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nMIIF\n-----END RSA PRIVATE KEY-----\n";
    let der = [0x30_u8, 0x82, 0x01, 0x0a, 0x02, 0x82];
    assert_broken(&[
        Case::new(
            "an encrypted key",
            TLS,
            &["key.pem", "the key is encrypted"],
        )
        .file("cert.pem", cert.clone())
        .file("key.pem", encrypted),
        Case::new(
            "an encrypted key of the older form",
            TLS,
            &["the key is encrypted"],
        )
        .file("cert.pem", cert.clone())
        .file("key.pem", older),
        Case::new(
            "a key in DER",
            TLS,
            &["key.pem: it holds no key in PEM", "-inform DER"],
        )
        .file("cert.pem", cert.clone())
        .file("key.pem", der),
        Case::new(
            "a certificate in DER",
            TLS,
            &["cert.pem: it holds no certificate in PEM"],
        )
        .file("cert.pem", der)
        .file("key.pem", key.clone()),
        Case::new("exchanged", TLS, &["are `cert` and `key` exchanged?"])
            .file("cert.pem", key.clone())
            .file("key.pem", cert.clone()),
        Case::new(
            "no key beside the certificate",
            TLS,
            &["key.pem", "are `cert` and `key` exchanged?"],
        )
        .file("cert.pem", cert.clone())
        .file("key.pem", cert.clone()),
        Case::new(
            "the issuer first",
            TLS,
            &["the server's own must be the first"],
        )
        .file("cert.pem", format!("{other}{cert}"))
        .file("key.pem", key.clone()),
        Case::new("another key", TLS, &["the key is another certificate's"])
            .file("cert.pem", other)
            .file("key.pem", key),
    ]);
}

/// A link that leads nowhere is a file that was meant to be read, as one that cannot be read is.
#[test]
fn links_that_lead_nowhere() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().display().to_string();
    std::fs::create_dir(folder.path().join("conf.d")).expect("a directory");
    std::fs::write(folder.path().join("conf.d/a.yaml"), PLAIN).expect("written");
    std::os::unix::fs::symlink("none.yaml", folder.path().join("conf.d/b.yaml")).expect("a link");
    std::os::unix::fs::symlink("none", folder.path().join("data")).expect("a link");
    assert_broken(&[
        Case::new(
            "in a directory of configurations",
            "",
            &["cannot read the configuration file", "b.yaml"],
        )
        .arguments(&["--config", &format!("{path}/conf.d")]),
        Case::new(
            "as the data directory",
            PLAIN,
            &["a link that leads nowhere"],
        )
        .arguments(&["--data-dir", &format!("{path}/data")]),
    ]);
}

#[test]
fn a_token_that_get_config_has_hidden_is_one_mistake() {
    let case = Case::new("hidden", "auth: {admin_token: '***'}\nremotes: {}\n", &[]);
    let (status, said) = case.check(case.lay_out().path());
    assert!(
        status == Some(1) && said.contains("holds `***`") && said.contains("1 error"),
        "{said}"
    );
}

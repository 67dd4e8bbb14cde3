//! What `s3` and `MINIO_…` mean.
#![expect(
    clippy::unwrap_used,
    reason = "a test program: its helpers panic to report"
)]

use std::sync::OnceLock;

use larder::config::{Environment, S3, Settings, Sources, load};

/// A certificate in PEM.
fn authority() -> &'static str {
    static PEM: OnceLock<String> = OnceLock::new();
    PEM.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(vec!["store.example.com".to_owned()]);
        made.unwrap().cert.pem()
    })
}

fn loaded(variables: &[(&str, &str)], file: &str) -> Result<Option<S3>, String> {
    settings(variables, file).map(|settings| settings.s3)
}

fn settings(variables: &[(&str, &str)], file: &str) -> Result<Settings, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f.yaml");
    std::fs::write(&path, format!("remotes: {{}}\n{file}")).unwrap();
    std::fs::write(directory.path().join("ca.pem"), authority()).unwrap();
    let home = [("HOME", "/h")];
    let sources = Sources {
        config: Some(path),
        environment: Environment::of(home.iter().chain(variables).copied()),
        ..Sources::default()
    };
    let said = |found: Vec<larder::config::Diagnostic>| {
        let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
        lines.join("\n")
    };
    load(&sources).map_err(said)
}

const ALL: [(&str, &str); 4] = [
    ("MINIO_ENDPOINT", "minio:9000"),
    ("MINIO_BUCKET", "artifacts"),
    ("MINIO_ACCESS_KEY", "access"),
    ("MINIO_SECRET_KEY", "canary-secret"),
];

#[test]
fn the_environment_alone_is_enough() {
    let s3 = loaded(&ALL, "").unwrap().unwrap();
    let store = &s3.store;
    assert_eq!(
        (store.endpoint.as_str(), store.secure),
        ("minio:9000", false)
    );
    assert_eq!(
        (store.bucket.as_str(), store.region.as_str()),
        ("artifacts", "us-east-1")
    );
    assert!(store.path_style && !store.checksums && store.prefix.is_empty());
    let (access, secret) = store.keys.as_ref().unwrap();
    assert_eq!(
        (access.expose().as_str(), secret.expose().as_str()),
        ("access", "canary-secret")
    );
    assert_eq!(s3.tier, None);
    assert_eq!((s3.upload_lease.as_secs(), s3.presign), (900, false));
    assert_eq!(
        loaded(&ALL[1..], "").unwrap(),
        None,
        "without an endpoint blobs are files"
    );
    let empty = loaded(
        &[("MINIO_ENDPOINT", "")],
        "s3: {endpoint: '', bucket: b, secure: false}\n",
    );
    assert_eq!(empty.unwrap(), None, "an empty endpoint is none");
}

#[test]
fn the_file_says_the_rest_and_the_environment_wins() {
    let file = "s3:\n  endpoint: https://store.example.com/\n  bucket: of-file\n  region: eu-x-1\n  path_style: false\n  ca_file: ca.pem\n  prefix: /one/two/\n  tier: 2GiB\n  upload_lease: 60\n  presign: off\n  public_endpoint: store.example.org:8443\n";
    let s3 = loaded(&[("MINIO_BUCKET", "of-environment")], file)
        .unwrap()
        .unwrap();
    let store = &s3.store;
    assert_eq!(
        (store.endpoint.as_str(), store.secure),
        ("store.example.com", true)
    );
    assert_eq!(
        (store.bucket.as_str(), store.region.as_str()),
        ("of-environment", "eu-x-1")
    );
    assert!(!store.path_style);
    assert_eq!(
        (store.prefix.as_str(), store.ca.as_deref()),
        ("one/two/", Some(authority().as_bytes()))
    );
    assert_eq!(s3.tier, Some(2 << 30));
    assert_eq!((s3.upload_lease.as_secs(), s3.presign), (60, false));
    let public = Some(("store.example.org:8443".to_owned(), true));
    assert_eq!(store.public, public, "over TLS as the endpoint");
    assert_eq!(store.keys, None, "the platform's own");
}

/// What a file of variables with line ends of Windows gives. Requests are signed with it: larder ended in a panic at its first one.
#[test]
fn keys_and_regions_that_no_request_can_be_signed_with_are_refused() {
    for (name, text) in [
        ("MINIO_ACCESS_KEY", "access\r"),
        ("MINIO_SECRET_KEY", "canary-secret\r"),
        ("AWS_REGION", "eu\nwest"),
    ] {
        let mut variables = ALL.to_vec();
        variables.retain(|(known, _)| *known != name);
        variables.push((name, text));
        let said = loaded(&variables, "").unwrap_err();
        assert!(
            said.contains(name)
                && said.contains("control character")
                && !said.contains("canary")
                && !said.contains('\r'),
            "{said:?}"
        );
    }
    for key in ["access_key: \"a\\tb\", secret_key: s", "region: \"a\\rb\""] {
        let file = format!("s3: {{endpoint: 'minio:9000', bucket: b, {key}}}\n");
        let said = loaded(&[], &file).unwrap_err();
        let place = format!("f.yaml:2: `s3.{}`", key.split(':').next().unwrap());
        assert!(said.contains(&place), "{said}");
    }
}

#[test]
fn authorities_that_nobody_asks_are_warned_of() {
    let warned = |variables: &[(&str, &str)], file: &str| {
        let settings = settings(variables, file).unwrap();
        let warnings = settings.warnings.iter().map(ToString::to_string);
        warnings.collect::<Vec<_>>().join("\n")
    };
    let said = warned(&ALL, "s3: {ca_file: ca.pem}\n");
    assert!(said.contains("`s3.ca_file` has no effect"), "{said}");
    for file in [
        "s3: {ca_file: ca.pem, secure: true}\n",
        "s3: {secure: false}\n",
    ] {
        assert!(!warned(&ALL, file).contains("ca_file"), "{file}");
    }
    // Credentials of the platform are asked for over TLS, too.
    let platform = warned(&ALL[..2], "s3: {ca_file: ca.pem}\n");
    assert!(!platform.contains("ca_file"), "{platform}");
}

#[test]
fn aws_is_known_by_its_hosts() {
    let aws = ["s3.eu-central-1.amazonaws", "com"].join(".");
    let variables = [
        ("MINIO_ENDPOINT", aws.as_str()),
        ("MINIO_BUCKET", "b"),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/r"),
        ("AWS_SECRET_ACCESS_KEY", "canary"),
    ];
    let store = loaded(&variables, "").unwrap().unwrap().store;
    assert!(store.secure && store.checksums && !store.path_style);
    assert_eq!(store.region, "eu-central-1");
    let role = (
        "AWS_ROLE_ARN".to_owned(),
        "arn:aws:iam::1:role/r".to_owned(),
    );
    assert_eq!(store.platform, [role]);
}

#[test]
fn secrets_may_be_in_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    std::fs::write(&path, "of the file \n").unwrap();
    let path = path.display().to_string();
    let by_file = [ALL[0], ALL[1], ALL[2], ("MINIO_SECRET_KEY_FILE", &path)];
    let store = loaded(&by_file, "").unwrap().unwrap().store;
    assert_eq!(
        store.keys.unwrap().1.expose(),
        "of the file ",
        "only the line's end is left out"
    );
    let both: Vec<_> = by_file.into_iter().chain([ALL[3]]).collect();
    let said = loaded(&both, "").unwrap_err();
    assert!(
        said.contains("MINIO_SECRET_KEY and MINIO_SECRET_KEY_FILE are both set"),
        "{said}"
    );
    let missing = [
        ALL[0],
        ALL[1],
        ALL[2],
        ("MINIO_SECRET_KEY_FILE", "/nowhere/x"),
    ];
    assert!(
        loaded(&missing, "")
            .unwrap_err()
            .contains("/nowhere/x cannot be read")
    );
    std::fs::write(directory.path().join("secret"), "\n").unwrap();
    let said = loaded(&by_file, "").unwrap_err();
    assert!(
        said.contains("MINIO_SECRET_KEY_FILE: ") && said.contains("is empty"),
        "{said}"
    );
    let database = [("DBHOST", "h"), ("DBPASS_FILE", path.as_str())];
    let said = loaded(&database, "").unwrap_err();
    assert!(
        said.contains("DBPASS_FILE: ") && said.contains("is empty"),
        "{said}"
    );
}

#[test]
fn mistakes_are_told_and_secrets_are_not() {
    let with = |name, value| {
        let mut variables = ALL.to_vec();
        variables.retain(|(other, _)| *other != name);
        variables.push((name, value));
        variables
    };
    for (variables, file, expected) in [
        (with("MINIO_BUCKET", ""), "", "without a bucket"),
        (with("MINIO_ACCESS_KEY", ""), "", "the other key is not"),
        (
            with("MINIO_SECURE", "maybe"),
            "",
            "MINIO_SECURE must be true or false",
        ),
        (
            with("MINIO_ENDPOINT", "ftp://x"),
            "",
            "MINIO_ENDPOINT must be a host",
        ),
        (
            with("MINIO_ENDPOINT", "minio:9000/path"),
            "",
            "must be a host",
        ),
        (
            ALL.to_vec(),
            "s3: {prefix: ../x}\n",
            "f.yaml:2: `s3.prefix`",
        ),
        (
            ALL.to_vec(),
            "s3: {ca_file: none.pem}\n",
            "none.pem, which cannot be read",
        ),
        (
            ALL.to_vec(),
            "s3: {ca_file: f.yaml}\n",
            "f.yaml, which holds no PEM certificate",
        ),
        (
            ALL.to_vec(),
            "s3: {public_endpoint: 'https://x/y'}\n",
            "`s3.public_endpoint` must be a host",
        ),
        (ALL.to_vec(), "s3: {upload_lease: 1}\n", "`s3.upload_lease`"),
        (ALL.to_vec(), "s3: {buckte: x}\n", "bucket"),
    ] {
        let said = loaded(&variables, file).unwrap_err();
        assert!(
            said.contains(expected) && !said.contains("canary"),
            "{said}"
        );
    }
    let clash = with("MINIO_SECURE", "false");
    let said = loaded(&clash, "s3: {endpoint: 'https://x'}\n");
    assert!(
        said.is_ok(),
        "the environment's endpoint wins, which has no scheme"
    );
    let mut clash = with("MINIO_ENDPOINT", "https://minio:9000");
    clash.push(("MINIO_SECURE", "false"));
    assert!(
        loaded(&clash, "")
            .unwrap_err()
            .contains("something else than the scheme")
    );
}

/// Who is sent to the store: nobody by default, whoever says so, and never apk.
#[test]
fn repositories_are_told_whether_they_redirect() {
    let redirecting = |variables: &[(&str, &str)], file: &str| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f.yaml");
        std::fs::write(&path, file).unwrap();
        let home = [("HOME", "/h")];
        let loaded = load(&Sources {
            config: Some(path),
            environment: Environment::of(home.iter().chain(variables).copied()),
            ..Sources::default()
        });
        let settings = loaded.map_err(|found| format!("{found:?}"))?;
        let warned: Vec<String> = settings.warnings.iter().map(ToString::to_string).collect();
        let redirecting = settings
            .repositories
            .iter()
            .filter(|one| one.redirects_to_store());
        let names: Vec<String> = redirecting.map(|one| one.name.to_string()).collect();
        Ok::<_, String>((names.join(" "), warned.join("\n")))
    };
    let remotes = "remotes:\n  a: {type: local}\n  b: {type: local, presign: on}\n  c: {type: local, presign: off}\n  \
                   d: {package: alpine, base_url: 'https://example.com'}\n";
    let (names, _) = redirecting(&ALL, remotes).unwrap();
    assert_eq!(names, "b");
    let all = format!("{remotes}s3: {{presign: on}}\n");
    assert_eq!(redirecting(&ALL, &all).unwrap().0, "a b");
    let (names, warned) = redirecting(&[], remotes).unwrap();
    assert_eq!(names, "");
    assert!(
        warned.contains("`remotes.b.presign` has no effect"),
        "{warned}"
    );
    let apk = "remotes:\n  d: {package: alpine, base_url: 'https://example.com', presign: on}\n";
    let said = redirecting(&ALL, apk).unwrap_err();
    assert!(
        said.contains("`remotes.d.presign`: apk does not follow"),
        "{said}"
    );
}

#[test]
fn the_view_shows_what_is_in_force_and_no_key() {
    let sources = Sources {
        environment: Environment::of([("HOME", "/h")].iter().chain(&ALL).copied()),
        ..Sources::default()
    };
    let view = load(&sources).unwrap().config_view;
    assert_eq!(view["s3"]["endpoint"], "minio:9000");
    assert_eq!(view["s3"]["secret_key"], "***");
    assert_eq!(
        (&view["s3"]["presign"], &view["s3"]["upload_lease"]),
        (&false.into(), &900.into())
    );
    assert!(!view.to_string().contains("canary"));
}

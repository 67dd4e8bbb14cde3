//! Set-ups that larder starts with: `check` ends with status 0, whatever it warns of, and leaves nothing behind.

use crate::case::{Case, certificate, listing};

const TLS: &str = "tls: {cert: '@HOME@/cert.pem', key: '@HOME@/key.pem'}\nremotes: {a: {base_url: 'http://a.example.com'}}\n";
const PLAIN: &str = "remotes: {a: {base_url: 'http://a.example.com'}}\n";

fn cases() -> Vec<Case> {
    let (cert, key) = certificate(2020, 2090);
    let (expired, old_key) = certificate(2020, 2021);
    let (early, early_key) = certificate(2080, 2090);
    vec![
        Case::new(
            "no configuration",
            "",
            &["configuration is valid: 10 repositories"],
        ),
        Case::new(
            "no repositories",
            "remotes: {}\n",
            &["warning: ", "names no repositories"],
        ),
        Case::new("a certificate", TLS, &["0 warnings"])
            .file("cert.pem", cert)
            .file("key.pem", key),
        Case::new(
            "an expired certificate",
            TLS,
            &[
                "warning: the certificate of `tls` expired on Fri, 01 Jan 2021",
                "1 warning",
            ],
        )
        .file("cert.pem", expired)
        .file("key.pem", old_key),
        Case::new(
            "a certificate that is not valid yet",
            TLS,
            &["warning: ", "is not valid before"],
        )
        .file("cert.pem", early)
        .file("key.pem", early_key),
        Case::new(
            "a damaged database of what can be fetched again",
            PLAIN,
            &["warning: ", "would put it aside"],
        )
        .file(
            "data/larder.sqlite",
            "this is no database, and longer than a header of one ".repeat(200),
        ),
        Case::new("an empty database file", PLAIN, &["0 warnings"]).file("data/larder.sqlite", ""),
        Case::repository(
            "patterns that end in a dollar",
            r"immutable_patterns: ['\.tgz$', '(a$|b$)', '^\$HOME/${1}']",
            &["0 warnings"],
        ),
        Case::repository(
            "a path that reads as a glob",
            "mutable_patterns: ['pool/*']",
            &["looks like a glob", "1 warning"],
        ),
        Case::repository(
            "patterns that match nothing",
            "allow_patterns: ['^/pool/', '^https?://files', '^pool/|^/x']",
            &[
                "no path begins with a slash here",
                "no path holds a scheme",
                "2 warnings",
            ],
        ),
        Case::repository(
            "references",
            "headers: {Authorization: 'Bearer ${TOKEN}'}",
            &["0 warnings"],
        )
        .env("TOKEN", "canary"),
        Case::repository(
            "a dollar",
            "username: u\n    password: 'a$$b$'",
            &["note: ", "read as one `$`"],
        ),
        Case::repository(
            "refused logins that copies bridge",
            "stale: {on_status: [401, 403, 407]}",
            &["0 warnings"],
        ),
        Case::repository("no proxy", "proxy: none", &["0 warnings"]),
        Case::new(
            "a proxy of the environment",
            PLAIN,
            &["http://proxy.example.com:3128/ (HTTPS_PROXY)", "0 warnings"],
        )
        .env("HTTPS_PROXY", "http://user:canary@proxy.example.com:3128"),
        Case::new("variables that are empty", PLAIN, &["0 warnings"])
            .env("LARDER_LISTN", "")
            .env("HTTP_PROXY", ""),
        Case::new("a service that is called larder", PLAIN, &["0 warnings"])
            .env("LARDER_SERVICE_HOST", "10.0.0.1")
            .env("LARDER_PORT", "tcp://10.0.0.1:8000")
            .env("LARDER_PORT_8000_TCP_ADDR", "10.0.0.1"),
        Case::new("a level in another spelling", PLAIN, &["0 warnings"])
            .env("LARDER_LOG", "Info,sqlx=warning"),
    ]
}

#[test]
fn what_larder_starts_with_passes_the_check() {
    let mut wrong = Vec::new();
    for case in cases() {
        let home = case.lay_out();
        let before = listing(home.path());
        let (status, said) = case.check(home.path());
        if listing(home.path()) != before {
            wrong.push(format!(
                "{}: check has left something behind: {:?}",
                case.name,
                listing(home.path())
            ));
        }
        let started = case.start(home.path());
        if status != Some(0) || started.ended.is_some() {
            wrong.push(format!(
                "{}: check {status:?}, start {:?}\n{said}\n{}",
                case.name,
                started.ended,
                started.log()
            ));
        }
        if said.contains("canary") || started.log().contains("canary") {
            wrong.push(format!(
                "{}: a secret is shown:\n{said}\n{}",
                case.name,
                started.log()
            ));
        }
        wrong.extend(
            case.words
                .iter()
                .filter(|word| !said.contains(**word))
                .map(|word| format!("{}: check does not say {word:?}:\n{said}", case.name)),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The file that `config default` prints says what larder does without a file.
#[test]
fn the_printed_default_loads_to_what_is_built_in() {
    let larder = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_larder"))
            .args(arguments)
            .env_clear()
            .output();
        output.expect("the larder program")
    };
    let printed = larder(&["config", "default"]);
    assert!(printed.status.success());
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("larder.yaml");
    std::fs::write(&path, printed.stdout).expect("written");
    let load = |config: Option<std::path::PathBuf>| {
        let environment = larder::config::Environment::of([("HOME", "/home/user")]);
        larder::config::load(&larder::config::Sources {
            config,
            environment,
            ..Default::default()
        })
        .expect("it loads")
    };
    let (built_in, from_file) = (load(None), load(Some(path)));
    assert_eq!(built_in.repositories.len(), 10);
    // Everything that a repository is, defaults and compiled patterns too.
    assert_eq!(
        format!("{:?}", built_in.repositories),
        format!("{:?}", from_file.repositories)
    );
    assert_eq!(built_in.config_view, from_file.config_view);
}

/// What `GET /config` shows is a configuration file once its secrets are put back; that they are missing is said.
#[test]
fn what_get_config_shows_loads_to_the_same() {
    let environment = larder::config::Environment::of([("HOME", "/home/user")]);
    let load = |config: &std::path::Path| {
        let config = Some(config.to_owned());
        let sources = larder::config::Sources {
            config,
            environment: environment.clone(),
            ..Default::default()
        };
        larder::config::load(&sources).map_err(|found| format!("{found:?}"))
    };
    let folder = tempfile::tempdir().expect("a directory");
    let (main, more) = (folder.path().join("main.yaml"), folder.path().join("more"));
    let contract = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/contract.yaml");
    std::fs::create_dir(&more).expect("a directory");
    std::fs::copy(contract, more.join("contract.yaml")).expect("copied");
    let own = "config_dir: more\npublic_url: https://larder.example.com/sub\nhot_set: 16MiB\nremotes:\n  numbered:\n    \
               base_url: http://a.example.com\n    username: 007\n    description: yes\n";
    std::fs::write(&main, own).expect("written");
    let first = load(&main).expect("it loads");
    let shown = folder.path().join("shown.yaml");
    let text = first.config_view.to_string();
    std::fs::write(&shown, &text).expect("written");
    assert!(
        load(&shown).is_err_and(|said| said.contains("`remotes.dockerhub.password` holds `***`"))
    );
    std::fs::write(&shown, text.replace("\"***\"", "\"put back\"")).expect("written");
    let second = load(&shown).expect("it loads");
    assert!(
        first.repositories.len() > 10,
        "{}",
        first.repositories.len()
    );
    assert_eq!(
        format!("{:?}", first.repositories),
        format!("{:?}", second.repositories)
    );
    assert_eq!(first.config_view, second.config_view);
    assert_eq!(
        (first.public_urls.all(), first.hot_set),
        (second.public_urls.all(), second.hot_set)
    );
}

#[test]
fn a_wrong_command_line_ends_with_status_2() {
    for arguments in [
        &["--confg", "x"][..],
        &["chek"],
        &["check", "a", "b"],
        &["config"],
    ] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_larder"))
            .args(arguments)
            .env_clear()
            .output();
        assert_eq!(
            output.expect("the larder program").status.code(),
            Some(2),
            "{arguments:?}"
        );
    }
}

#[test]
fn check_prints_all_findings_and_counts_them() {
    let contract = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/contract.yaml");
    let case = Case::new("the contract", "", &[]).arguments(&["--config", contract]);
    let (status, said) = case.check(case.lay_out().path());
    assert!(
        status == Some(0) && said.contains("configuration is valid: 10 repositories, 4 warnings"),
        "{said}"
    );
    assert_eq!(
        said.lines()
            .filter(|line| line.contains(": warning: "))
            .count(),
        4
    );
    let case = Case::new(
        "two errors",
        "a: 1\nb: 2\nremotes:\n  x: {type: local, package: npm}\n",
        &[],
    );
    let (status, said) = case.check(case.lay_out().path());
    assert!(
        status == Some(1) && said.contains("configuration cannot be used: 2 errors, 1 warning\n"),
        "{said}"
    );
    assert!(
        said.contains("larder.yaml:1: unknown key `a`")
            && said.contains("larder.yaml:2: unknown key `b`"),
        "{said}"
    );
}

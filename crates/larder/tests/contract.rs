//! The original contract: existing configuration files load unchanged, and mean what they meant (contract, section 2, [base]).
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests may fail loudly"
)]

mod common;

use std::time::Duration;

use common::{data, directory, lines, loaded, refused, repository, sources};
use larder::config::{Environment, Severity, Sources, load};
use larder_core::{BuiltIn, Mutability, PackageType, RepositoryKind};

fn contract() -> larder::config::Settings {
    load(&sources(&data("contract.yaml"))).unwrap_or_else(|found| panic!("{}", lines(&found)))
}

#[test]
fn every_base_key_loads_in_the_form_users_have_today() {
    let settings = contract();
    assert_eq!(settings.repositories.len(), 10);
    let github = repository(&settings, "github");
    assert_eq!(
        (github.kind(), github.package, &*github.description),
        (
            RepositoryKind::Remote,
            PackageType::Generic,
            "Release files"
        )
    );
    assert_eq!(
        github.upstream().unwrap().base_urls[0].as_str(),
        "https://git.example.com/",
        "gets its slash"
    );
    assert!(github.cache.check_mutable_updates);
    assert_eq!(
        (github.cache.immutable_ttl, github.cache.mutable_ttl),
        (None, Duration::from_hours(2))
    );
    let docker = repository(&settings, "dockerhub");
    let credentials = docker.upstream().unwrap().credentials.as_ref().unwrap();
    assert_eq!(
        (
            &*credentials.username,
            credentials.password.expose().as_str()
        ),
        ("pull-bot", "s3cret")
    );
    let charts = repository(&settings, "all-charts");
    let members = charts.members();
    assert_eq!(
        members
            .iter()
            .map(larder_core::RepositoryName::as_str)
            .collect::<Vec<_>>(),
        ["charts", "more-charts"],
        "first = highest priority"
    );
    assert_eq!(
        repository(&settings, "uploads").kind(),
        RepositoryKind::Local
    );
}

#[test]
fn absent_keys_have_the_contracts_defaults() {
    let charts = repository(&contract(), "more-charts");
    assert_eq!(
        (charts.cache.immutable_ttl, charts.cache.mutable_ttl),
        (None, Duration::from_hours(1)),
        "absent = 0 / 3600"
    );
    assert!(charts.access.immutable.is_none() && charts.access.mutable.is_none());
    assert!(
        !charts.cache.check_mutable_updates
            && charts.cache.revalidate.is_none()
            && charts.quarantine.hold.is_none()
    );
    assert!(charts.upstream().unwrap().credentials.is_none());
}

#[test]
fn illegal_yaml_escapes_and_look_ahead_behave_as_written() {
    let settings = contract();
    let npm = repository(&settings, "npm");
    let class = |path: &str| {
        npm.access
            .classify(path, BuiltIn::None)
            .unwrap()
            .mutability()
    };
    assert_eq!(class("express/-/express-4.18.2.tgz"), Mutability::Immutable);
    for path in ["express", "@babel/core", "-/npm/v1/keys"] {
        assert!(class(path).is_mutable(), "{path}");
    }
    let pypi = repository(&settings, "pypi");
    assert!(
        pypi.access
            .classify("packages/x.whl", BuiltIn::None)
            .is_ok()
    );
    assert!(
        pypi.access
            .classify("packages/xXwhl", BuiltIn::None)
            .is_err(),
        "the dot is a literal dot"
    );
    let warned = lines(&settings.warnings);
    let source = std::fs::read_to_string(data("contract.yaml")).unwrap();
    for (written, corrected) in [
        (r#""\.tgz$""#, r#""\\.tgz$""#),
        (r#""^(?!.*\.tgz$).*""#, r#""^(?!.*\\.tgz$).*""#),
    ] {
        let line = source.lines().position(|l| l.contains(written)).unwrap() + 1;
        let want = format!(
            "contract.yaml:{line}: warning: `\\.` in {written} is not a YAML escape: read as {corrected}"
        );
        assert!(warned.contains(&want), "{want}\nin\n{warned}");
    }
    assert_eq!(
        warned.matches("is not a YAML escape").count(),
        4,
        "legal escapes are not warned of"
    );
}

#[test]
fn absent_patterns_admit_everything_and_an_empty_list_only_mutable_paths() {
    let text = "remotes:\n  a: {base_url: 'http://example.com'}\n  b: {base_url: 'http://example.com', immutable_patterns: [], mutable_patterns: [x]}\n";
    let settings = loaded(text);
    let (a, b) = (repository(&settings, "a"), repository(&settings, "b"));
    assert!(a.access.classify("any", BuiltIn::None).is_ok());
    assert_eq!(
        b.access.classify("any", BuiltIn::None).unwrap_err().rule,
        "immutable_patterns"
    );
    assert!(
        b.access
            .classify("x", BuiltIn::None)
            .unwrap()
            .mutability()
            .is_mutable()
    );
    let said =
        refused("remotes:\n  a:\n    base_url: 'http://example.com'\n    immutable_patterns:\n");
    assert!(
        said.contains("f.yaml:4: `remotes.a.immutable_patterns` must be a list, but is nothing"),
        "{said}"
    );
}

#[test]
fn quarantine_days_count_only_with_the_switch() {
    let settings = loaded(
        "remotes:
  on: {base_url: 'http://example.com', quarantine_new: true, quarantine_days: 5}
  default: {base_url: 'http://example.com', quarantine_new: yes}
  off: {base_url: 'http://example.com', quarantine_new: false, quarantine_days: 5}
  forgotten: {base_url: 'http://example.com', quarantine_days: 5}
",
    );
    let hold = |name| {
        repository(&settings, name)
            .quarantine
            .hold
            .map(|hold| hold.as_secs() / 86_400)
    };
    assert_eq!(
        (hold("on"), hold("default"), hold("off"), hold("forgotten")),
        (Some(5), Some(3), None, None)
    );
    let warned = lines(&settings.warnings);
    assert!(
        warned.contains("f.yaml:5: warning: `remotes.forgotten.quarantine_days` has no effect"),
        "{warned}"
    );
    assert!(!warned.contains("remotes.off"), "{warned}");
}

#[test]
fn what_is_not_built_loads_with_a_warning_and_says_why() {
    assert!(contract().not_built.is_empty());
    let settings = loaded(
        "remotes:\n  a: {type: local, package: npm}\n  b: {type: virtual, package: npm, members: [a]}\n",
    );
    let names: Vec<&str> = settings.not_built.keys().map(String::as_str).collect();
    assert_eq!(names, ["a", "b"]);
    for (name, why) in &settings.not_built {
        let warned = settings.warnings.iter().any(|d| {
            d.severity == Severity::Warning && d.message.contains(why) && d.message.contains(name)
        });
        assert!(warned && why.contains("not built"), "{name}: {why}");
    }
}

#[test]
fn a_base_url_may_be_a_list_of_mirrors_in_their_order() {
    let mirrors = loaded(
        "remotes:\n  a:\n    base_url: ['http://a.example', 'http://b.example/x']\n    package: pypi\n",
    );
    assert!(mirrors.not_built.is_empty() && mirrors.warnings.is_empty());
    let upstream = repository(&mirrors, "a").upstream().cloned().unwrap();
    let shown = |urls: &[url::Url]| urls.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        shown(&upstream.base_urls),
        ["http://a.example/", "http://b.example/x/"]
    );
    assert_eq!(
        shown(&upstream.index_urls()),
        ["http://a.example/simple/", "http://b.example/x/simple/"]
    );
    let apart = loaded(
        "remotes:\n  a:\n    base_url: ['http://a.example', 'http://b.example']\n    index_url: http://i.example/simple\n    package: pypi\n",
    );
    let upstream = repository(&apart, "a").upstream().cloned().unwrap();
    assert_eq!(
        shown(&upstream.index_urls()),
        ["http://i.example/simple/"],
        "an index of its own has no mirrors"
    );
    let one = loaded("remotes:\n  a: {base_url: ['http://a.example']}\n");
    assert!(one.not_built.is_empty());
}

#[test]
fn a_backend_that_is_not_built_refuses_the_start() {
    let directory = directory(&[("f.yaml", "remotes: {}\n")]);
    for variable in ["REDIS_URL", "MINIO_ENDPOINT"] {
        let environment = Environment::of([("HOME", "/h"), (variable, "canary:9000")]);
        let sources = Sources {
            config: Some(directory.path().join("f.yaml")),
            environment,
            ..Sources::default()
        };
        let said = lines(&load(&sources).unwrap_err());
        assert!(
            said.contains(variable) && said.contains("not built") && !said.contains("canary"),
            "{said}"
        );
        let empty = Environment::of([("HOME", "/h"), (variable, "")]);
        load(&Sources {
            environment: empty,
            ..sources
        })
        .expect("an empty variable is an absent one");
    }
    for (section, key) in [("redis", "url"), ("s3", "endpoint")] {
        let said = refused(&format!("remotes: {{}}\n{section}:\n  {key}: canary\n"));
        assert!(
            said.contains(&format!("f.yaml:3: `{section}.{key}` is set"))
                && !said.contains("canary"),
            "{said}"
        );
    }
}

#[test]
fn the_second_form_merges_a_directory_and_later_files_win() {
    let directory = directory(&[
        (
            "10-a.yaml",
            "listen: 127.0.0.1:1\nremotes:\n  x: {base_url: 'http://a.example', mutable_patterns: [m], description: first}\n",
        ),
        (
            "20-b.yml",
            "listen: 127.0.0.1:2\nremotes:\n  x: {base_url: 'http://b.example'}\n  y: {base_url: 'http://y.example'}\n",
        ),
        ("30-c.txt", "not: [yaml"),
        (".hidden.yaml", "not: [yaml"),
        (
            "sub/z.yaml",
            "remotes:\n  z: {base_url: 'http://z.example'}\n",
        ),
    ]);
    let settings = load(&sources(directory.path())).unwrap();
    let names: Vec<String> = settings
        .repositories
        .iter()
        .map(|r| r.name.to_string())
        .collect();
    assert_eq!(names, ["x", "y"]);
    let x = repository(&settings, "x");
    assert_eq!(
        x.upstream().unwrap().base_urls[0].as_str(),
        "http://b.example/"
    );
    assert!(
        x.access.mutable.is_none() && x.description.is_empty(),
        "an entry is replaced whole"
    );
    assert_eq!(settings.listen[0].port(), 2);
    let told = lines(&settings.warnings);
    assert!(
        told.contains("20-b.yml:3: note: repository `x` replaces the one of ")
            && told.contains("10-a.yaml:3"),
        "{told}"
    );
    assert!(
        settings
            .warnings
            .iter()
            .all(|d| d.severity == Severity::Note)
    );
}

#[test]
fn the_third_form_takes_remotes_from_config_dir_relative_or_absolute() {
    let elsewhere = directory(&[(
        "a.yaml",
        "remotes:\n  abs: {base_url: 'http://abs.example'}\n",
    )]);
    let main = directory(&[
        (
            "main.yaml",
            "config_dir: conf.d\nlisten: 127.0.0.1:1\nremotes:\n  x: {base_url: 'http://main.example'}\n  m: {base_url: 'http://m.example'}\n",
        ),
        (
            "conf.d/b.yaml",
            "remotes:\n  x: {base_url: 'http://dir.example'}\n",
        ),
        (
            "conf.d/a.yaml",
            "remotes:\n  x: {base_url: 'http://early.example'}\nlisten: 127.0.0.1:2\n",
        ),
        (
            "absolute.yaml",
            &format!("config_dir: {}\n", elsewhere.path().display()),
        ),
    ]);
    let settings = load(&sources(&main.path().join("main.yaml"))).unwrap();
    assert_eq!(
        repository(&settings, "x").upstream().unwrap().base_urls[0].as_str(),
        "http://dir.example/"
    );
    assert_eq!(
        repository(&settings, "m").upstream().unwrap().base_urls[0].as_str(),
        "http://m.example/"
    );
    assert_eq!(
        settings.listen[0].port(),
        1,
        "the files of config_dir contribute remotes only"
    );
    let told = lines(&settings.warnings);
    assert!(
        told.contains("a.yaml:3: warning: `listen` is not used here"),
        "{told}"
    );
    assert!(
        told.contains("b.yaml:2: note: repository `x` replaces"),
        "{told}"
    );
    assert_eq!(settings.watched.len(), 2);
    let settings = load(&sources(&main.path().join("absolute.yaml"))).unwrap();
    repository(&settings, "abs");
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let directory = directory(&[
        (
            "f.yaml",
            "listen: 127.0.0.1:1\ndata_dir: from-file\npublic_url: http://file.example\nauth: {admin_token: file-token-0123456}\n",
        ),
        ("token", "flag-token-0123456\n"),
    ]);
    let file = directory.path().join("f.yaml");
    let settings = load(&sources(&file)).unwrap();
    assert_eq!(
        (settings.listen[0].port(), settings.data_dir.clone()),
        (1, directory.path().join("from-file"))
    );
    assert_eq!(settings.admin_token.unwrap().expose(), "file-token-0123456");
    let environment = Environment::of([
        ("CONFIG_PATH", file.to_str().unwrap()),
        ("LARDER_LISTEN", "127.0.0.1:2, [::1]:2"),
        ("LARDER_DATA_DIR", "/env"),
        (
            "LARDER_PUBLIC_URL",
            "http://env.example/larder, https://env.example",
        ),
        ("LARDER_ADMIN_TOKEN", "env-token-0123456"),
    ]);
    let from_environment = Sources {
        environment,
        ..Sources::default()
    };
    let settings = load(&from_environment).unwrap();
    assert_eq!((settings.listen.len(), settings.listen[1].port()), (2, 2));
    assert_eq!(settings.data_dir.to_str(), Some("/env"));
    let public_urls: Vec<_> = settings
        .public_urls
        .all()
        .iter()
        .map(url::Url::as_str)
        .collect();
    assert_eq!(
        public_urls,
        ["http://env.example/larder/", "https://env.example/"]
    );
    assert_eq!(settings.admin_token.unwrap().expose(), "env-token-0123456");
    let flags = Sources {
        listen: vec!["127.0.0.1:3".to_owned()],
        data_dir: Some("/flag".into()),
        public_url: vec!["https://flag.example".to_owned()],
        admin_token_file: Some(directory.path().join("token")),
        ..from_environment
    };
    let settings = load(&flags).unwrap();
    assert_eq!(
        (settings.listen[0].port(), settings.data_dir.to_str()),
        (3, Some("/flag"))
    );
    assert_eq!(
        settings.public_urls.all()[0].as_str(),
        "https://flag.example/"
    );
    assert_eq!(settings.admin_token.unwrap().expose(), "flag-token-0123456");
}

#[test]
fn without_any_configuration_there_is_a_useful_set() {
    let environment = Environment::of([("HOME", "/home/user")]);
    let settings = load(&Sources {
        environment,
        ..Sources::default()
    })
    .unwrap();
    for name in [
        "pypi",
        "npm",
        "github",
        "dockerhub",
        "ghcr",
        "quay",
        "alpine",
        "almalinux",
    ] {
        repository(&settings, name);
    }
    assert_eq!(
        settings
            .repositories
            .iter()
            .filter(|r| r.package == PackageType::Helm)
            .count(),
        2,
        "two Helm repositories"
    );
    assert_eq!(settings.listen, ["127.0.0.1:8000".parse().unwrap()]);
    assert_eq!(
        settings.data_dir.to_str(),
        Some("/home/user/.local/share/larder")
    );
    let pypi = repository(&settings, "pypi");
    let upstream = pypi.upstream().unwrap();
    assert_ne!(
        upstream.index_url.host(),
        upstream.base_urls[0].host(),
        "pages and files live on two hosts"
    );
    let github = &repository(&settings, "github").access;
    assert!(
        github
            .classify("o/r/releases/download/v1/x.tgz", BuiltIn::None)
            .is_ok()
    );
    assert!(
        github
            .classify("o/r/archive/refs/tags/v1.0.tar.gz", BuiltIn::None)
            .is_ok()
    );
    assert!(github.classify("o/r/settings", BuiltIn::None).is_err());
    assert!(
        settings
            .warnings
            .iter()
            .all(|d| d.severity == Severity::Note),
        "{}",
        lines(&settings.warnings)
    );
    let xdg = Environment::of([("HOME", "/home/user"), ("XDG_DATA_HOME", "/data")]);
    assert_eq!(
        load(&Sources {
            environment: xdg,
            ..Sources::default()
        })
        .unwrap()
        .data_dir
        .to_str(),
        Some("/data/larder")
    );
    let homeless = load(&Sources::default()).unwrap_err();
    assert!(lines(&homeless).contains("no data directory"));
}

#[test]
fn the_example_of_the_guide_loads() {
    let guide = include_str!("../../../docs/guide/configuration.md");
    let (_, rest) = guide.split_once("```yaml\n").expect("an example");
    let (example, _) = rest.split_once("```").expect("its end");
    let directory = directory(&[("f.yaml", example)]);
    let environment = Environment::of([("HOME", "/h"), ("ADMIN_TOKEN", "0123456789abcdef")]);
    let settings = load(&Sources {
        config: Some(directory.path().join("f.yaml")),
        environment,
        ..Sources::default()
    })
    .unwrap();
    assert!(
        settings.warnings.is_empty(),
        "{}",
        lines(&settings.warnings)
    );
    assert_eq!(settings.admin_token.unwrap().expose(), "0123456789abcdef");
}

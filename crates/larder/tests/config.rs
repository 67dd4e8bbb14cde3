//! What is refused, what is warned of, and the keys that are ours (contract, section 2, [plus]).
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests may fail loudly"
)]

mod common;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use common::{data, directory, lines, load_text, loaded, refused, repository, sources};
use larder::config::{DiskLimit, Environment, Sources, load};
use larder_core::{AllowPrivate, BuiltIn, DateSource, MissingDate, Revalidate, UpstreamAuth};

fn one(keys: &str) -> String {
    format!("remotes:\n  a:\n    base_url: http://example.com\n    {keys}\n")
}

#[test]
fn all_errors_are_told_at_once_with_file_line_and_nearest_key() {
    let text = "\
listn: 127.0.0.1:1
remotes:
  a:
    base_url: ftp://example.com
    mutable_paterns: []
    cache: {mutable_tll: 1}
    mutable_ttl: 5
  b:
    package: pipy
    base_url: example.com
  'c d': {base_url: http://example.com}
  e: {base_url: 'http://example.com', cache: {mutable_ttl: 30s}, quarantine_days: -1, offline: maybe}
  f: [x]
  g: {package: generic}
limits: {downloads: 0}
";
    let said = refused(text);
    for want in [
        "f.yaml:1: unknown key `listn`: the nearest known key is `listen`",
        "f.yaml:4: `remotes.a.base_url` must be an http or https URL, not ftp:",
        "f.yaml:5: unknown key `mutable_paterns` in `remotes.a`: the nearest known key is `mutable_patterns`",
        "f.yaml:6: unknown key `mutable_tll` in `remotes.a.cache`: the nearest known key is `mutable_ttl`",
        "f.yaml:7: unknown key `mutable_ttl` in `remotes.a`: it belongs under `cache:`",
        "f.yaml:9: `remotes.b.package` is one of",
        "did you mean pypi?",
        "f.yaml:11: \"c d\" is not a repository name",
        "f.yaml:12: `remotes.e.cache.mutable_ttl` must be a whole number of seconds",
        "f.yaml:12: `remotes.e.quarantine_days` must be a whole number",
        "f.yaml:12: `remotes.e.offline` must be true or false",
        "f.yaml:13: `remotes.f` must be a mapping, but is a list",
        "f.yaml:14: `remotes.g.base_url` is missing: generic has no single public registry",
        "f.yaml:15: `limits.downloads` must be a whole number from 1",
    ] {
        assert!(said.contains(want), "{want}\nin\n{said}");
    }
}

#[test]
fn errors_of_several_files_come_together() {
    let directory = directory(&[
        ("a.yaml", "remotes: [x]\n"),
        ("b.yaml", "bogus: 1\n"),
        ("c.yaml", "a: [\n"),
    ]);
    let said = lines(&load(&sources(directory.path())).unwrap_err());
    for want in [
        "a.yaml:1: `remotes` must be a mapping",
        "b.yaml:1: unknown key `bogus`",
        "c.yaml:2: not valid YAML",
    ] {
        assert!(said.contains(want), "{want}\nin\n{said}");
    }
    let missing = lines(&load(&sources(&directory.path().join("none.yaml"))).unwrap_err());
    assert!(
        missing.contains("cannot read the configuration file"),
        "{missing}"
    );
}

#[test]
fn every_plus_key_of_a_remote_is_read() {
    let settings = loaded(
        "remotes:
  a:
    package: pypi
    base_url: https://files.example.com/x
    index_url: https://index.example.com/simple
    allow_patterns: ['^ok/']
    deny_patterns: [bad]
    revalidate: get
    stale: { on_status: [503, 429], max_age: 60, while_revalidate: 5, wait: 7 }
    negative_ttl: 0
    missing_status: [403, 400, 403]
    timeouts: { connect: 2, read: 7 }
    allow_private: ['10.1.2.3:8080', 10.0.0.0/8]
    link_hosts: [CDN.example.com]
    headers: { X-Team: build }
    proxy: http://proxy.example.com:3128
    offline: true
    max_size: 2GiB
    quarantine_missing_date: first_seen
",
    );
    let a = repository(&settings, "a");
    assert_eq!(a.cache.revalidate, Some(Revalidate::Get));
    assert_eq!(a.cache.stale_on_status, [429, 503]);
    assert_eq!(
        (a.cache.stale_max_age, a.cache.stale_while_revalidate),
        (Some(Duration::from_mins(1)), Duration::from_secs(5))
    );
    assert_eq!(a.cache.stale_wait, Duration::from_secs(7));
    assert_eq!(a.cache.negative_ttl, Duration::ZERO);
    assert_eq!(a.cache.missing_status, [400, 403]);
    assert_eq!(a.quarantine.missing_date, MissingDate::FirstSeen);
    assert_eq!(
        a.access.classify("ok/bad", BuiltIn::None).unwrap_err().rule,
        "deny_patterns"
    );
    assert_eq!(
        a.access.classify("other", BuiltIn::None).unwrap_err().rule,
        "allow_patterns"
    );
    let upstream = a.upstream().unwrap();
    assert_eq!(
        upstream.base_urls[0].as_str(),
        "https://files.example.com/x/"
    );
    assert_eq!(
        upstream.index_url.as_str(),
        "https://index.example.com/simple/"
    );
    assert_eq!(
        (upstream.connect_timeout, upstream.read_timeout),
        (Duration::from_secs(2), Duration::from_secs(7))
    );
    let private = [
        AllowPrivate::Socket("10.1.2.3:8080".parse().unwrap()),
        AllowPrivate::Network("10.0.0.0/8".parse().unwrap()),
    ];
    assert_eq!(upstream.allow_private, private);
    assert_eq!(
        upstream.link_hosts.as_deref(),
        Some(&["cdn.example.com".to_owned()][..])
    );
    assert_eq!(
        (
            upstream.headers[0].0.as_str(),
            upstream.headers[0].1.expose().as_str()
        ),
        ("X-Team", "build")
    );
    let proxy = upstream.proxy_for(&url::Url::parse("https://localhost/").unwrap());
    assert_eq!(
        proxy.map(url::Url::as_str),
        Some("http://proxy.example.com:3128/")
    );
    assert!(upstream.offline);
    assert_eq!(upstream.max_size, Some(2 << 30));
}

#[test]
fn what_is_kept_is_bounded_in_bytes_or_as_a_part_of_the_file_system() {
    let of = |limits: &str| loaded(&format!("{limits}remotes: {{}}\n")).limits.disk;
    assert_eq!(of(""), None);
    assert_eq!(
        of("limits: {disk: 500GiB}\n"),
        Some(DiskLimit::Bytes(500 << 30))
    );
    assert_eq!(of("limits: {disk: '80%'}\n"), Some(DiskLimit::Percent(80)));
    let settings = loaded(
        "limits: {disk: 80%}\nremotes:\n  a: {base_url: 'http://example.com', max_disk: 64GiB}\n",
    );
    let found = repository(&settings, "a");
    assert_eq!(found.upstream().unwrap().max_disk, Some(64 << 30));
    assert_eq!(settings.config_view["limits"]["disk"], "80%");
    for bad in ["0%", "101%", "12.5%", "half", "-1", "100", "1023KiB", "[1]"] {
        let said = refused(&format!("limits:\n  disk: {bad}\nremotes: {{}}\n"));
        assert!(
            said.contains("f.yaml:2: `limits.disk` must be"),
            "{bad}: {said}"
        );
    }
    for bad in ["50%", "0", "many"] {
        let remote = "remotes:\n  a:\n    base_url: http://example.com\n    max_disk: ";
        let said = refused(&format!("{remote}'{bad}'\n"));
        let wanted = "f.yaml:4: `remotes.a.max_disk` must be a number of bytes";
        assert!(said.contains(wanted), "{bad}: {said}");
    }
    let store = "s3: {endpoint: '127.0.0.1:1', bucket: b, access_key: a, secret_key: s}\n";
    let said = refused(&format!("{store}limits: {{disk: 80%}}\nremotes: {{}}\n"));
    assert!(
        said.contains("f.yaml:2: `limits.disk`: with `s3`"),
        "{said}"
    );
    let local = load_text("remotes:\n  own: {type: local, max_disk: 1GiB}\n").unwrap();
    let said = lines(&local.warnings);
    assert!(
        said.contains("`remotes.own.max_disk` has no effect"),
        "{said}"
    );
}

#[test]
fn only_docker_upstreams_are_asked_what_they_want() {
    let settings = loaded(
        "remotes:
  images: {package: docker, base_url: 'https://registry.example.com', token_hosts: ['Auth.example.net', '10.1.2.3:8443']}
  files: {base_url: 'https://files.example.com', token_hosts: [auth.example.net]}
",
    );
    let auth = |name| repository(&settings, name).upstream().unwrap().auth.clone();
    let token_hosts = vec!["auth.example.net".to_owned(), "10.1.2.3:8443".to_owned()];
    assert_eq!(auth("images"), UpstreamAuth::Challenge { token_hosts });
    assert_eq!(auth("files"), UpstreamAuth::Basic);
    assert!(
        lines(&settings.warnings).contains("`remotes.files.token_hosts` has no effect"),
        "{}",
        lines(&settings.warnings)
    );
}

#[test]
fn every_top_level_key_is_read() {
    let files = [
        ("cert.pem", "x"),
        ("key.pem", "x"),
        (
            "f.yaml",
            "
listen: ['127.0.0.1:1', '[::1]:2']
data_dir: /d
public_url: [https://larder.example/sub, 'http://192.0.2.1:8000']
trusted_proxies: [10.0.0.0/8, '::1']
tls: {cert: cert.pem, key: key.pem}
auth: {admin_token: 0123456789abcdef}
docker_default_remote: images
hot_set: 16MiB
limits: {document_size: 1GiB, connections: 5, downloads: 6}
remotes:
  images: {package: docker}
",
        ),
    ];
    let directory = directory(&files);
    let settings = load(&sources(&directory.path().join("f.yaml"))).unwrap();
    assert_eq!(
        settings
            .listen
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["127.0.0.1:1", "[::1]:2"]
    );
    assert_eq!(
        public_urls(&settings),
        ["https://larder.example/sub/", "http://192.0.2.1:8000/"]
    );
    assert_eq!(
        settings.trusted_proxies,
        ["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]
    );
    assert_eq!(
        settings.tls.unwrap().cert,
        directory.path().join("cert.pem")
    );
    assert_eq!(settings.docker_default_remote.as_deref(), Some("images"));
    assert_eq!(settings.hot_set, 16 << 20);
    assert_eq!(
        (
            settings.limits.document_size,
            settings.limits.connections,
            settings.limits.downloads
        ),
        (1 << 30, 5, 6)
    );
}

#[test]
fn bounds_on_requests_to_upstreams() {
    let text = "limits: {upstream: {concurrency: 8, rate: 50}}
remotes:
  all: {base_url: 'http://example.com'}
  own: {base_url: 'http://example.com', limits: {rate: 0.5}}
";
    let directory = directory(&[("f.yaml", text)]);
    let settings = load(&sources(&directory.path().join("f.yaml"))).unwrap();
    let of = |name: &str| repository(&settings, name).upstream().unwrap().limits;
    let all = larder_core::RequestLimits {
        concurrency: Some(8),
        apart: Some(Duration::from_millis(20)),
        is_own: false,
    };
    assert_eq!(of("all"), all);
    let own = larder_core::RequestLimits {
        apart: Some(Duration::from_secs(2)),
        is_own: true,
        ..all
    };
    assert_eq!(of("own"), own);
    let shown = &settings.config_view;
    assert_eq!(shown["limits"]["upstream"]["concurrency"], 8);
    assert_eq!(shown["limits"]["downloads"], 512);
    assert_eq!(shown["remotes"]["own"]["limits"]["rate"], "0.5");
    for (text, want) in [
        (
            "limits: {upstream: {concurrency: 0}}",
            "`limits.upstream.concurrency` must be a whole number from 1",
        ),
        (
            "limits: {upstream: {rate: 0}}",
            "`limits.upstream.rate` must be a number of requests in a second",
        ),
        ("limits: {upstream: {rate: 1e3}}", "from 0.02 to 10000"),
        ("limits: {upstream: {rate: .inf}}", "from 0.02 to 10000"),
        (
            "limits: {upstream: {burst: 3}}",
            "unknown key `burst` in `limits.upstream`",
        ),
        (
            "remotes: {a: {base_url: 'http://example.com', limits: {downloads: 3}}}",
            "unknown key `downloads` in `remotes.a.limits`",
        ),
    ] {
        let said = refused(&format!("{text}\n"));
        assert!(said.contains(want), "{want}\nin\n{said}");
    }
}

fn public_urls(settings: &larder::config::Settings) -> Vec<&str> {
    settings
        .public_urls
        .all()
        .iter()
        .map(url::Url::as_str)
        .collect()
}

#[test]
fn values_that_make_no_sense_are_refused() {
    for (keys, want) in [
        ("base_url: x", "stands twice"),
        ("stale: {on_status: [404]}", "must not hold 404"),
        (
            "stale: {on_status: [200]}",
            "takes 401, 403, 407, 408, 425, 429 and 500 to 599",
        ),
        (
            "stale: {wait: 3601}",
            "stale.wait` must be a whole number of seconds from 0 to 3600",
        ),
        ("stale: {wait: 0.5}", "from 0 to 3600"),
        ("missing_status: [401]", "must not hold 401"),
        ("missing_status: [403, 429]", "must not hold 429"),
        ("missing_status: [503]", "must not hold 503"),
        ("missing_status: [200]", "takes statuses from 400 to 499"),
        (
            "missing_status: [forbidden]",
            "takes statuses from 400 to 499",
        ),
        ("missing_status: 403", "must be a list"),
        ("timeouts: {read: 0}", "from 1"),
        ("allow_private: [intranet]", "names are not taken"),
        ("link_hosts: ['https://x.example']", "no scheme, no path"),
        (
            "token_hosts: ['https://x.example/token']",
            "no scheme, no path",
        ),
        ("headers: {Host: x}", "set by larder itself"),
        ("headers: {'a b': x}", "not the name of a header"),
        ("headers: {X-A: \"x\\r\\nY: z\"}", "control character"),
        ("ca_file: none.pem", "is not a file"),
        ("proxy: gopher://x", "must be an http, https, socks5"),
        ("max_size: lots", "a number of bytes"),
        ("password: canary", "without `username`"),
        ("revalidate: always", "one of head, get, never"),
        ("verify: warning", "did you mean warn?"),
        ("cache: {immutable_ttl: 1.5}", "whole number of seconds"),
        ("immutable_patterns: x", "must be a list"),
        ("type: vrtual", "did you mean virtual?"),
        ("description: {a: b}", "must be a single value"),
    ] {
        let said = refused(&one(keys));
        assert!(
            said.contains(want) && !said.contains("canary"),
            "{keys}: {said}"
        );
    }
    for (text, want) in [
        ("docker_default_remote: x\n", "there is no repository `x`"),
        ("tls: {cert: f.yaml}\n", "`key` is missing"),
        (
            "auth: {admin_token: 'a b'}\n",
            "admin token must be letters",
        ),
        ("listen: []\n", "empty list"),
        ("listen: 8000\n", "is not an address and port"),
        ("public_url: larder.example\n", "not an absolute URL"),
        ("public_url: []\n", "empty list"),
        (
            "public_url: [https://a.example/x, 'https://a.example:443/']\n",
            "twice",
        ),
        ("trusted_proxies: [proxy]\n", "not an address or a network"),
        ("hot_set: -1\n", "number of bytes"),
        (
            "config_dir: none\n",
            "cannot read the configuration directory",
        ),
        ("just text\n", "a configuration file is a mapping"),
    ] {
        let said = refused(text);
        assert!(said.contains(want), "{text}: {said}");
    }
}

#[test]
fn virtual_members_exist_match_and_do_not_go_in_circles() {
    let said = refused(
        "remotes:
  h: {package: helm, base_url: 'http://h.example'}
  n: {package: npm, base_url: 'http://n.example'}
  v: {type: virtual, package: helm, members: [h, n, hh]}
  w: {type: virtual, package: helm, members: [x, h, h]}
  x: {type: virtual, package: helm, members: [w]}
  y: {type: virtual, package: helm}
  z: {type: virtual, package: helm, members: []}
",
    );
    for want in [
        "f.yaml:4: member `n` of `v` is of package npm, not helm",
        "f.yaml:4: member `hh` of `v` does not exist: did you mean `h`?",
        "f.yaml:5: virtual repository `w` contains itself",
        "f.yaml:5: `h` stands twice",
        "f.yaml:6: virtual repository `x` contains itself",
        "f.yaml:7: a virtual repository needs `remotes.y.members`",
        "f.yaml:8: a virtual repository needs `remotes.z.members`",
    ] {
        assert!(said.contains(want), "{want}\nin\n{said}");
    }
    assert!(!said.contains("`v` contains itself"));
}

/// Its members' count: nobody is to believe that files are held back which are not.
#[test]
fn quarantine_and_cache_of_a_virtual_repository_are_told_to_have_no_effect() {
    let keys = "quarantine_new: true, quarantine_days: 3, quarantine_missing_date: deny, quarantine_date: last_modified, \
         quarantine_index: false, quarantine_exclude: ['^a'], cache: {mutable_ttl: 5}";
    let said = |kind: &str| {
        let entries = format!(
            "remotes:\n  h: {{package: helm, base_url: 'http://h.example'}}\n  v: {{{kind}, package: helm, {keys}}}\n"
        );
        lines(&loaded(&entries).warnings)
    };
    let (idle, busy) = (
        said("type: virtual, members: [h]"),
        said("base_url: 'http://v.example'"),
    );
    for key in ["new", "days", "missing_date", "date", "index", "exclude"]
        .map(|key| format!("quarantine_{key}"))
        .into_iter()
        .chain(["cache".to_owned()])
    {
        let want = format!("`remotes.v.{key}` has no effect: this is a virtual repository");
        assert!(idle.contains(&want), "{want}\nin\n{idle}");
        assert!(!busy.contains("has no effect"), "{busy}");
    }
    // Once each, and without advice that does not help.
    let days = said("type: virtual, members: [h], verify: warn")
        .lines()
        .filter(|line| line.contains(".quarantine_days`") || line.contains(".verify`"))
        .count();
    assert_eq!(days, 2);
    let days = "remotes:\n  h: {package: helm, base_url: 'http://h.example'}\n  v: {type: virtual, package: helm, members: [h], quarantine_days: 3}\n";
    let said = lines(&loaded(days).warnings);
    assert!(!said.contains("add `quarantine_new: true`"), "{said}");
}

#[test]
fn pypi_index_and_files_may_live_on_two_hosts() {
    let public = loaded("remotes:\n  absent: {package: pypi}\n");
    let absent = repository(&public, "absent");
    let public = absent.upstream().unwrap();
    let (index, files) = (public.index_url.as_str(), public.base_urls[0].as_str());
    assert_ne!(index, files);
    // Either public address, with or without a path, means both.
    for base in [index, files] {
        let settings = loaded(&format!(
            "remotes:\n  a: {{package: pypi, base_url: '{base}'}}\n"
        ));
        let a = repository(&settings, "a");
        let upstream = a.upstream().unwrap();
        assert_eq!(
            (upstream.index_url.as_str(), upstream.base_urls[0].as_str()),
            (index, files)
        );
    }
    // Two hosts are no mirror: nothing of a list is dropped silently.
    for list in [
        format!("['https://devpi.example', '{files}']"),
        format!("['{index}', 'https://devpi.example']"),
    ] {
        let said = refused(&format!(
            "remotes:\n  a:\n    package: pypi\n    base_url: {list}\n"
        ));
        assert!(said.contains("f.yaml:4: `remotes.a.base_url`: PyPI's public hosts cannot be one of several mirrors"), "{said}");
    }
    let own =
        loaded("remotes:\n  a: {package: pypi, base_url: 'https://devpi.example/root/dev'}\n");
    let a = repository(&own, "a");
    assert_eq!(
        a.upstream().unwrap().index_url.as_str(),
        "https://devpi.example/root/dev/simple/"
    );
    let simple =
        loaded("remotes:\n  a: {package: pypi, base_url: 'https://devpi.example/simple'}\n");
    assert!(lines(&simple.warnings).contains("leave `/simple` out of base_url, or set index_url"));
    let mirror = loaded(&format!(
        "remotes:\n  a: {{package: pypi, base_url: '{files}', index_url: 'http://own.example/s'}}\n"
    ));
    assert_eq!(
        repository(&mirror, "a")
            .upstream()
            .unwrap()
            .index_url
            .as_str(),
        "http://own.example/s/",
        "explicit wins"
    );
}

#[test]
fn what_comes_later_is_warned_of() {
    let settings = loaded(&one(
        "quarantine_new: true\n    quarantine_date: ecosystem\n    quarantine_index: true\n    quarantine_exclude: [x]",
    ));
    let warned = lines(&settings.warnings);
    for key in [
        "f.yaml:6: warning: `remotes.a.quarantine_index`",
        "quarantine_exclude",
    ] {
        assert!(warned.contains(key), "{key} in {warned}");
    }
    let quarantine = |date: &str| {
        let quiet = loaded(&one(&format!(
            "quarantine_new: true\n    quarantine_index: false{date}"
        )));
        assert!(quiet.warnings.is_empty(), "{}", lines(&quiet.warnings));
        let repository = &quiet.repositories[0];
        (repository.quarantine.date, repository.rules_epoch)
    };
    let (date, epoch) = quarantine("");
    assert_eq!(date, DateSource::Ecosystem, "where one is stated");
    assert_eq!(
        quarantine("\n    quarantine_date: ecosystem"),
        (date, epoch)
    );
    let (letter, other) = quarantine("\n    quarantine_date: last_modified");
    assert_eq!(letter, DateSource::LastModified);
    assert_ne!(other, epoch);
    let open = loaded("listen: 0.0.0.0:1\nremotes: {}\n");
    assert!(
        lines(&open.warnings)
            .contains("auth.admin_token, LARDER_ADMIN_TOKEN or --admin-token-file opens it")
    );
    let npm = loaded("remotes:\n  a: {package: npm, immutable_patterns: ['\\.tgz$']}\n");
    assert!(lines(&npm.warnings).contains("admits no package documents"));
    let idle = loaded("remotes:\n  a: {type: local, base_url: 'http://example.com'}\n");
    assert!(
        lines(&idle.warnings)
            .contains("`remotes.a.base_url` has no effect: this is a local repository")
    );
}

/// Whoever describes a server and forgets to name it is told that larder keeps what it keeps in files.
#[test]
fn a_backend_without_an_address_is_told_to_have_no_effect() {
    let secure = lines(&loaded("s3: {secure: maybe}\nremotes: {}\n").warnings);
    assert!(
        secure.contains("f.yaml:1: warning: `s3.secure` has no effect without an endpoint"),
        "{secure}"
    );
    let settings = loaded("database: {user: u, password: p}\ns3: {bucket: b}\nremotes: {}\n");
    let said = lines(&settings.warnings);
    for want in [
        "f.yaml:1: warning: `database.user` has no effect without a host: metadata is kept in SQLite",
        "f.yaml:2: warning: `s3.bucket` has no effect without an endpoint: blobs are files",
    ] {
        assert!(said.contains(want), "{want}\nin\n{said}");
    }
    assert_eq!((settings.database, settings.s3), (None, None));
    let empty = "database: {host: '', user: u}\ns3: {endpoint: '', bucket: b}\nremotes: {}\n";
    let said = lines(&loaded(empty).warnings);
    assert!(!said.contains("has no effect"), "{said}");
    let rollback = loaded(&one("no_rollback: true"));
    assert!(
        lines(&rollback.warnings)
            .contains("f.yaml:4: warning: `remotes.a.no_rollback` has no effect"),
        "{}",
        lines(&rollback.warnings)
    );
}

#[test]
fn the_keys_of_local_repositories() {
    let settings = loaded(
        "remotes:\n  a: {type: local}\n  b: {type: local, allow_overwrite: false, max_size: 1MiB, quota: 2 GB}\n\
         \x20 c: {type: local, package: pypi}\n",
    );
    let of = |name: &str| repository(&settings, name).local().cloned().unwrap();
    let (open, closed, other) = (of("a"), of("b"), of("c"));
    assert!(open.allow_overwrite, "the default of generic repositories");
    assert_eq!((open.max_size, open.quota), (None, None));
    assert!(!closed.allow_overwrite);
    assert_eq!(
        (closed.max_size, closed.quota),
        (Some(1 << 20), Some(2_000_000_000))
    );
    assert!(!other.allow_overwrite, "the default of all others");
    let unbuilt: Vec<&str> = settings.not_built.keys().map(String::as_str).collect();
    assert_eq!(unbuilt, ["c"]);
    let said = lines(&settings.warnings);
    assert!(
        said.contains("local repositories of the package type pypi are not built")
            && !said.contains("max_size"),
        "{said}"
    );
    let remote = loaded(
        "remotes:\n  a: {base_url: 'http://example.com', allow_overwrite: true, quota: 1GB, max_size: 1GB}\n",
    );
    let said = lines(&remote.warnings);
    for key in ["allow_overwrite", "quota"] {
        assert!(
            said.contains(&format!(
                "`remotes.a.{key}` has no effect: this is a remote repository"
            )),
            "{said}"
        );
    }
    assert!(!said.contains("max_size"), "{said}");
    let idle = loaded("remotes:\n  a:\n    type: local\n    cache: {immutable_ttl: 60}\n");
    let said = lines(&idle.warnings);
    assert!(
        said.contains(
            "f.yaml:4: warning: `remotes.a.cache` has no effect: this is a local repository"
        ),
        "{said}"
    );
    let wrong = refused("remotes:\n  a: {type: local, quota: lots, allow_overwrite: maybe}\n");
    assert!(
        wrong.contains("`remotes.a.quota` must be a number of bytes")
            && wrong.contains("`remotes.a.allow_overwrite` must be true or false"),
        "{wrong}"
    );
}

#[test]
fn hazard_r6_config_patterns_that_explode_are_refused_or_bounded() {
    for (pattern, want) in [
        ("((a{1000}){1000}){10}", "too large once compiled"),
        ("[", "does not compile"),
        ("a\\", "does not compile"),
        (&"a".repeat(5000), "longer than 4096 bytes"),
    ] {
        let said = refused(&one(&format!("immutable_patterns: ['{pattern}']")));
        assert!(
            said.contains("f.yaml:4: `remotes.a.immutable_patterns`") && said.contains(want),
            "{pattern}: {said}"
        );
    }
    for control in ["\\b", "\\t", "\\e", "\\x07"] {
        let said = refused(&one(&format!("immutable_patterns: [\"{control}x\"]")));
        assert!(said.contains("control character"), "{control}: {said}");
    }
    let settings = loaded(&one("immutable_patterns: ['^(?=(a+)+$)(a|a)*b']"));
    let path = "a".repeat(2000);
    let began = Instant::now();
    let denied = repository(&settings, "a")
        .access
        .classify(&path, BuiltIn::None)
        .unwrap_err();
    assert!(
        denied.rule == "immutable_patterns" && began.elapsed() < Duration::from_secs(2),
        "{denied:?} {:?}",
        began.elapsed()
    );
}

const CANARIES: &str = "
auth: {admin_token: canary-admin-0123}
database: {user: u, password: canary-database}
s3: {access_key: canary-access, secret_key: canary-s3}
remotes:
  a:
    base_url: http://example.com
    username: visible-user
    password: canary-password
    headers: {Authorization: Bearer canary-header}
    proxy: http://u:canary-proxy@proxy.example.com:3128
    description: see https://u:canary-description@example.com/
  b:
    base_url: http://example.com
    username: u
    password: \"canary\\.escape\"
    headers: {X-Key: '${FROM_ENVIRONMENT}'}
    mutable_patterns: [\"\\.x\"]
";

#[test]
fn hazard_s17_config_view_and_messages_show_no_secret() {
    let directory = directory(&[("f.yaml", CANARIES)]);
    let environment = Environment::of([
        ("HOME", "/h"),
        ("FROM_ENVIRONMENT", "canary-environment"),
        ("LARDER_ADMIN_TOKEN", "canary-admin-from-env"),
        ("DBPASS", "canary-dbpass"),
    ]);
    let sources = Sources {
        config: Some(directory.path().join("f.yaml")),
        environment,
        ..Sources::default()
    };
    let settings = load(&sources).unwrap();
    let a = repository(&settings, "a");
    assert_eq!(
        a.upstream()
            .unwrap()
            .credentials
            .as_ref()
            .unwrap()
            .password
            .expose(),
        "canary-password",
        "really loaded"
    );
    let b = repository(&settings, "b");
    assert_eq!(
        b.upstream().unwrap().headers[0].1.expose(),
        "canary-environment"
    );
    assert_eq!(
        b.upstream()
            .unwrap()
            .credentials
            .as_ref()
            .unwrap()
            .password
            .expose(),
        "canary\\.escape"
    );
    for (name, text) in [
        ("/config", settings.config_view.to_string()),
        ("warnings", lines(&settings.warnings)),
        ("sources", format!("{sources:?}")),
        ("token", format!("{:?}", settings.admin_token)),
        (
            "credentials",
            format!("{:?}", a.upstream().unwrap().credentials),
        ),
    ] {
        assert!(!text.contains("canary"), "{name}: {text}");
    }
    let view = &settings.config_view;
    assert_eq!(view["remotes"]["a"]["password"], "***", "presence shows");
    assert_eq!(view["remotes"]["a"]["headers"]["Authorization"], "***");
    assert_eq!(view["remotes"]["a"]["username"], "visible-user");
    assert_eq!(
        view["remotes"]["a"]["proxy"],
        "http://***@proxy.example.com:3128"
    );
    assert_eq!(
        (
            &view["auth"]["admin_token"],
            &view["s3"]["secret_key"],
            &view["database"]["password"]
        ),
        (&"***".into(), &"***".into(), &"***".into())
    );
    assert!(
        lines(&settings.warnings).contains("f.yaml:16: warning: the text holds a backslash"),
        "{}",
        lines(&settings.warnings)
    );
    // The same secrets in a file that fails in every section: the messages stay clean.
    let broken = format!("{CANARIES}\n    offline: canary\nlisten: [x\n");
    assert!(!refused(&broken).contains("canary"));
    let wrong = CANARIES
        .replace("proxy: http://", "proxy: bad://")
        .replace("base_url: http://", "base_url: http://u:canary-base@")
        .replace("username", "usrname");
    let said = refused(&wrong);
    assert!(
        said.contains("user name or password") && !said.contains("canary"),
        "{said}"
    );
}

/// Who takes one setting for another writes whole addresses where names are wanted.
#[test]
fn hazard_s17_no_message_repeats_what_stands_before_an_at_sign() {
    for text in [
        "listen: 'u:canary@h.example:80'\n".to_owned(),
        "trusted_proxies: ['http://u:canary@h.example:3128']\n".to_owned(),
        "advertise: 'u:canary@h.example'\n".to_owned(),
        one("link_hosts: ['https://u:canary@h.example']"),
        one("token_hosts: ['u:canary@h.example']\n    package: docker"),
        one("allow_private: ['http://u:c@canary@h.example']"),
        one("hostnames: ['u:canary@h.example']"),
    ] {
        let said = refused(&text);
        assert!(
            said.contains("h.example") && !said.contains("canary"),
            "{text}{said}"
        );
    }
}

/// The first error is all that `/health` shows of a reload that failed.
#[test]
fn a_misspelt_base_url_is_one_error() {
    for key in ["base_ulr", "baseurl", "Base-URL"] {
        let said = refused(&format!("remotes:\n  a:\n    {key}: https://example.com\n"));
        assert!(
            said.contains("f.yaml:3: unknown key") && !said.contains("missing"),
            "{said}"
        );
    }
}

/// What it shows of a repository that keeps no copies is loaded again without a warning.
#[test]
fn the_view_shows_what_has_an_effect() {
    let text = "\
remotes:
  files: {type: local}
  h: {package: helm, base_url: 'https://h.example'}
  v: {type: virtual, package: helm, members: [h]}
";
    let view = loaded(text).config_view;
    assert_eq!(view["remotes"]["h"]["cache"]["mutable_ttl"], 3600);
    for name in ["files", "v"] {
        assert!(view["remotes"][name]["cache"].is_null(), "{name}");
    }
    let again = loaded(&view.to_string());
    assert_eq!(lines(&again.warnings), "");
    assert_eq!(again.config_view, view);
}

#[test]
fn the_view_has_the_shape_of_the_file() {
    let settings = load(&sources(&data("contract.yaml"))).unwrap();
    let github = &settings.config_view["remotes"]["github"];
    assert_eq!(github["base_url"], "https://git.example.com");
    assert_eq!(
        (
            &github["check_mutable_updates"],
            &github["cache"]["mutable_ttl"]
        ),
        (&true.into(), &7200.into())
    );
    assert_eq!(github["mutable_patterns"][0], "latest\\.json$");
    assert_eq!(
        settings.config_view["remotes"]["more-charts"]["cache"]["mutable_ttl"], 3600,
        "defaults are filled in"
    );
    assert_eq!(settings.config_view["listen"][0], "127.0.0.1:8000");
}

#[test]
fn the_rules_epoch_follows_the_rules_and_nothing_else() {
    let epoch = |keys: &str| repository(&loaded(&one(keys)), "a").rules_epoch;
    let plain = epoch("description: x");
    assert_eq!(
        plain,
        epoch("description: y"),
        "the same on every replica and after every restart"
    );
    assert_eq!(
        plain,
        epoch("username: u\n    password: p"),
        "credentials do not count"
    );
    let mut all = vec![plain];
    for keys in [
        "immutable_patterns: []",
        "mutable_patterns: []",
        "allow_patterns: [x]",
        "deny_patterns: [x]",
        "cache: {mutable_ttl: 1}",
        "cache: {immutable_ttl: 1}",
        "quarantine_new: true",
        "quarantine_missing_date: deny",
        "revalidate: get",
        "link_hosts: []",
        "offline: true",
        "max_size: 1",
        "package: helm",
        "check_mutable_updates: true",
        "negative_ttl: 1",
    ] {
        let epoch = epoch(keys);
        assert!(!all.contains(&epoch), "{keys}");
        all.push(epoch);
    }
}

#[test]
fn hazard_r3_config_a_yaml_bomb_is_refused() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..10 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(bomb, "a{level}: &a{level} [{aliases}]").unwrap();
    }
    let began = Instant::now();
    let said = lines(&load_text(&bomb).unwrap_err());
    assert!(
        said.contains("after expanding anchors") && began.elapsed() < Duration::from_secs(10),
        "{said}"
    );
}

/// Contract, section 4: `library/` belongs to the public hub, whose address is the default.
#[test]
fn a_docker_repository_stands_for_the_registry_that_it_pulls_from() {
    let settings = loaded(
        "remotes:\n\
         \x20 one: {package: docker, base_url: 'https://Registry.example.com'}\n\
         \x20 port: {package: docker, base_url: ['http://127.0.0.1:5000/v2', 'https://mirror.example.com/']}\n\
         \x20 part: {package: docker, base_url: 'https://part.example.com/v2/team'}\n\
         \x20 twin-a: {package: docker, base_url: 'https://twin.example.com'}\n\
         \x20 twin-b: {package: docker, base_url: 'https://twin.example.com/'}\n\
         \x20 files: {package: generic, base_url: 'https://files.example.com'}\n",
    );
    let named: Vec<_> = settings
        .docker_registries
        .iter()
        .map(|(host, name)| (host.as_str(), name.as_str()))
        .collect();
    assert_eq!(
        named,
        [
            ("127.0.0.1:5000", "port"),
            ("mirror.example.com", "port"),
            ("registry.example.com", "one")
        ]
    );
    let hub = loaded("remotes:\n\x20 hub: {package: docker}\n");
    let upstream = repository(&hub, "hub").upstream().unwrap().base_urls[0]
        .host_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        hub.docker_registries.get(&upstream).map(String::as_str),
        Some("hub")
    );
    assert!(hub.docker_registries.len() > 1, "the hub has several names");
}

#[test]
fn of_several_repositories_with_one_registry_the_default_remote_stands_for_it() {
    let settings = loaded(
        "docker_default_remote: c\n\
         remotes:\n\
         \x20 a: {package: docker, base_url: 'https://one.example.com'}\n\
         \x20 b: {package: docker, base_url: 'https://one.example.com'}\n\
         \x20 c: {package: docker, base_url: 'https://one.example.com'}\n\
         \x20 d: {package: docker, base_url: ['https://one.example.com', 'https://two.example.com']}\n\
         \x20 e: {package: docker, base_url: 'https://two.example.com'}\n",
    );
    let of_one = ("one.example.com".to_owned(), "c".to_owned());
    assert_eq!(
        settings.docker_registries,
        std::collections::BTreeMap::from([of_one])
    );
}

/// A mirror of the hub has its images under the same names, wherever in the list it stands.
#[test]
fn oci_11_the_hub_is_the_hub_at_any_place_of_a_list() {
    let alone = loaded("remotes:\n\x20 hub: {package: docker}\n");
    let registry = repository(&alone, "hub").upstream().unwrap().base_urls[0].clone();
    let mirror: url::Url = "https://mirror.example.com/".parse().unwrap();
    for name in alone.docker_registries.keys() {
        for is_first in [true, false] {
            let mut list = [format!("https://{name}"), mirror.to_string()];
            let mut expected = [registry.clone(), mirror.clone()];
            if !is_first {
                list.reverse();
                expected.reverse();
            }
            let [one, other] = list;
            let settings = loaded(&format!(
                "remotes:\n\x20 hub: {{package: docker, base_url: ['{one}', '{other}']}}\n"
            ));
            let hub = repository(&settings, "hub");
            let upstream = hub.upstream().unwrap();
            assert_eq!(upstream.base_urls, expected, "{name} {is_first}");
            assert_eq!(upstream.index_url, expected[0], "{name} {is_first}");
            assert_eq!(upstream.default_namespace.as_deref(), Some("library"));
            let mut registries = alone.docker_registries.clone();
            registries.insert("mirror.example.com".to_owned(), "hub".to_owned());
            assert_eq!(settings.docker_registries, registries, "{name} {is_first}");
        }
    }
}

#[test]
fn oci_11_only_the_public_hub_has_a_namespace_for_short_names() {
    let settings = loaded(
        "remotes:\n\
         \x20 hub: {package: docker}\n\
         \x20 other: {package: docker, base_url: 'https://registry.example.com'}\n\
         \x20 files: {package: generic, base_url: 'https://example.com'}\n",
    );
    let namespace = |name| {
        repository(&settings, name)
            .upstream()
            .unwrap()
            .default_namespace
            .clone()
    };
    assert_eq!(namespace("hub").as_deref(), Some("library"));
    assert_eq!((namespace("other"), namespace("files")), (None, None));
}

/// The key is accepted and checked; what it will do one day is said not to be done yet.
#[test]
fn host_names_are_names_of_one_repository_each() {
    let settings = loaded(
        "remotes:\n\
         \x20 npm: {package: npm, base_url: 'https://example.com', hostnames: [NPM.example.com, n.example.com]}\n\
         \x20 pypi: {package: pypi, base_url: 'https://example.com', hostnames: []}\n",
    );
    let owners: Vec<_> = settings
        .hostnames
        .iter()
        .map(|(name, owner)| (name.as_str(), owner.as_str()))
        .collect();
    assert_eq!(
        owners,
        [("n.example.com", "npm"), ("npm.example.com", "npm")]
    );
    let said = lines(&settings.warnings);
    assert!(
        said.contains("hostnames") && said.contains("not built in this version"),
        "{said}"
    );
    let twice = refused(
        "remotes:\n\
         \x20 a: {base_url: 'https://example.com', hostnames: [files.example.com]}\n\
         \x20 b: {base_url: 'https://example.com', hostnames: [Files.example.com]}\n",
    );
    assert!(
        twice.contains("f.yaml:3") && twice.contains("`a`") && twice.contains("`b`"),
        "{twice}"
    );
    let wrong = "https://x.example x.example:8000 x.example/ 127.0.0.1 '[::1]' localhost a.localhost '*.example' -a.example ''";
    for wrong in wrong.split(' ') {
        let said = refused(&format!(
            "remotes:\n  a: {{base_url: 'https://example.com', hostnames: [{wrong}]}}\n"
        ));
        assert!(said.contains("hostnames"), "{wrong}: {said}");
    }
}

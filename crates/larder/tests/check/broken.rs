//! Set-ups that larder cannot start with: `check` and a start both end with status 1 and say the same words.

use std::net::TcpListener;

use crate::case::{Case, certificate, listing};

const TLS: &str = "tls: {cert: '@HOME@/cert.pem', key: '@HOME@/key.pem'}\nremotes: {a: {base_url: 'http://a.example.com'}}\n";
const PLAIN: &str = "remotes: {a: {base_url: 'http://a.example.com'}}\n";

/// Files and YAML.
fn files() -> Vec<Case> {
    vec![
        Case::new(
            "an unknown key",
            "listn: 127.0.0.1:0\n",
            &["larder.yaml:1", "nearest known key is `listen`"],
        ),
        Case::new(
            "no YAML",
            "remotes: [\n",
            &["larder.yaml:", "not valid YAML"],
        ),
        Case::new("no text", "", &["file is not UTF-8"])
            .file("larder.yaml", [0xff, 0xfe])
            .arguments(&["--config", "larder.yaml"]),
        Case::new("no file", "", &["cannot read the configuration file"])
            .env("CONFIG_PATH", "@HOME@/none.yaml"),
        Case::new(
            "a directory that is none",
            "config_dir: none.d\n",
            &["cannot read the configuration directory"],
        ),
        Case::new(
            "a key twice",
            "hot_set: 0\nhot_set: 1\n",
            &["larder.yaml:2", "stands twice"],
        ),
        Case::new(
            "a list in place of repositories",
            "remotes: [a]\n",
            &["must be a mapping of names to repositories"],
        ),
        Case::new(
            "keys beside their repository",
            "remotes:\n  pypi:\n  package: pypi\n",
            &["larder.yaml:3", "beside `pypi`, not below it"],
        ),
        Case::new(
            "a repository at the top",
            "pypi:\n  package: pypi\n",
            &["larder.yaml:1", "put `remotes:` above it"],
        ),
        Case::new(
            "a repository's key at the top",
            "remotes:\nbase_url: http://a.example.com\n",
            &["indent it below the repository's name"],
        ),
    ]
}

/// Keys and values of repositories.
fn repositories() -> Vec<Case> {
    vec![
        Case::new(
            "no base_url",
            "remotes: {a: {package: helm}}\n",
            &["`remotes.a.base_url` is missing"],
        ),
        Case::new(
            "another scheme",
            "remotes: {a: {base_url: 'ftp://a.example.com'}}\n",
            &["must be an http or https URL"],
        ),
        Case::repository(
            "another program's package",
            "package: deb",
            &["docs/guide/generic.md"],
        ),
        Case::repository(
            "another program's type",
            "type: proxy",
            &["did you mean remote?"],
        ),
        Case::repository(
            "a glob",
            "immutable_patterns: ['*.tar.gz']",
            &["`*.tar.gz`", "looks like a glob", r"'\.tar\.gz$'"],
        ),
        Case::repository(
            "an open group",
            "deny_patterns: ['a(b']",
            &["`a(b`", "unclosed group", "at character 2"],
        ),
        Case::repository("a password alone", "password: x", &["without `username`"]),
        Case::repository(
            "a status that is final",
            "stale: {on_status: [404]}",
            &["must not hold 404"],
        ),
        Case::repository(
            "a ca_file that is not there",
            "ca_file: none.pem",
            &["ca_file", "is not a file"],
        ),
        Case::repository(
            "a ca_file without certificates",
            "ca_file: ca.pem",
            &["ca_file", "holds no PEM certificate"],
        )
        .file("ca.pem", "x"),
        Case::repository(
            "a proxy of another kind",
            "proxy: 'gopher://x'",
            &["http, https, socks5 or socks5h"],
        ),
        Case::new(
            "no such member",
            "remotes: {v: {type: virtual, package: npm, members: [npn]}, npm: {package: npm}}\n",
            &["did you mean `npm`?"],
        ),
        Case::new(
            "no such default",
            "docker_default_remote: x\nremotes: {}\n",
            &["there is no repository `x`"],
        ),
    ]
}

/// What is taken from the environment.
fn environment() -> Vec<Case> {
    vec![
        Case::repository(
            "a variable that is not set",
            "username: u\n    password: '${NONE}'",
            &["NONE, which is not set"],
        ),
        Case::repository(
            "a variable without braces",
            "username: u\n    password: $PASS",
            &["`${NAME}`", "`$$`"],
        ),
        Case::repository(
            "a default",
            "headers: {Authorization: 'Bearer ${A:-x}'}",
            &["defaults and other operators", "`${NAME}`"],
        ),
        Case::repository(
            "no end",
            "headers: {Authorization: 'Bearer ${A'}",
            &["has no `}`"],
        ),
        Case::repository(
            "no name",
            "headers: {Authorization: '${}'}",
            &["holds no name"],
        ),
        Case::new(
            "a variable elsewhere",
            "remotes: {a: {base_url: 'https://${HOST}/'}}\n",
            &["takes nothing from the environment"],
        ),
        Case::repository(
            "what GET /config shows for a secret",
            "username: u\n    password: '***'",
            &["holds `***`"],
        ),
        Case::new(
            "a misspelt variable",
            PLAIN,
            &["LARDER_LISTN", "did you mean LARDER_LISTEN?"],
        )
        .env("LARDER_LISTN", ":1"),
        Case::new(
            "an address for replicas that anybody could ask",
            PLAIN,
            &["advertise", "cluster.secret"],
        )
        .env("LARDER_ADVERTISE", "a:1"),
        Case::new(
            "an address that Redis does not have",
            PLAIN,
            &["REDIS_URL", "redis-sentinel"],
        )
        .env("REDIS_URL", "http://cache.example.com"),
        Case::new("a database's address", PLAIN, &["DBHOST", "host name"])
            .env("DBHOST", "postgres://db.example.com/larder"),
        Case::new(
            "a database's ports",
            PLAIN,
            &["DBPORT", "one for each host"],
        )
        .env("DBHOST", "a.example.com,b.example.com,c.example.com")
        .env("DBPORT", "5432,5433"),
        Case::new(
            "a database's encryption",
            PLAIN,
            &["DBSSLMODE", "verify-full"],
        )
        .env("DBHOST", "db.example.com")
        .env("DBSSLMODE", "on"),
        Case::new(
            "a secret in a file",
            PLAIN,
            &["DBPASS_FILE", "cannot be read"],
        )
        .env("DBHOST", "db.example.com")
        .env("DBPASS_FILE", "/nonexistent/db"),
        Case::new("a secret twice", PLAIN, &["DBPASS_FILE", "both set"])
            .env("DBHOST", "db.example.com")
            .env("DBPASS", "a")
            .env("DBPASS_FILE", "/nonexistent/db"),
        Case::new(
            "a malformed proxy variable",
            PLAIN,
            &["HTTPS_PROXY", "must be an http"],
        )
        .env("HTTPS_PROXY", "gopher://x:1"),
        Case::new(
            "a malformed exception",
            PLAIN,
            &["NO_PROXY", "\"10.0.0.0/33\""],
        )
        .env("http_proxy", "proxy.example.com:3128")
        .env("NO_PROXY", "localhost,10.0.0.0/33"),
        Case::new(
            "a log level that is none",
            PLAIN,
            &["LARDER_LOG", "\"verbose\"", "no level"],
        )
        .env("LARDER_LOG", "verbose"),
        Case::new(
            "a log format that is none",
            PLAIN,
            &["LARDER_LOG_FORMAT", "json or text"],
        )
        .env("LARDER_LOG_FORMAT", "xml"),
        Case::new(
            "a flag's level that is none",
            PLAIN,
            &["--log holds", "did you mean info?"],
        )
        .arguments(&["--log", "inof"]),
    ]
}

/// What the machine has to have. Runs as root too: nothing here depends on permissions.
fn machine(held: &str) -> Vec<Case> {
    let (cert, key) = certificate(2020, 2090);
    let (other, _) = certificate(2020, 2090);
    let local = "remotes: {mine: {type: local}}\n";
    vec![
        Case::new(
            "a data directory that is a file",
            PLAIN,
            &["data directory", "cannot be made"],
        )
        .file("data", "x"),
        Case::new(
            "a data directory that cannot be made",
            PLAIN,
            &["/proc/larder", "cannot be made"],
        )
        .arguments(&["--data-dir", "/proc/larder/data"]),
        Case::new("blobs that are a file", PLAIN, &["blob directory"]).file("data/blobs", "x"),
        Case::new(
            "a lock that is a directory",
            PLAIN,
            &["cannot lock the data directory"],
        )
        .directory("data/larder.lock"),
        Case::new(
            "a database that is a directory",
            PLAIN,
            &["metadata database"],
        )
        .directory("data/larder.sqlite"),
        Case::new(
            "a damaged database that names uploads",
            local,
            &["metadata database", "damaged"],
        )
        .file(
            "data/larder.sqlite",
            "this is no database, and longer than a header of one ".repeat(200),
        ),
        Case::new("an address that another program has", PLAIN, &[]).arguments(&["--listen", held]),
        Case::new(
            "an address of another machine",
            PLAIN,
            &["cannot listen on 192.0.2.1:8000"],
        )
        .arguments(&["--listen", "192.0.2.1:8000"]),
        Case::new(
            "no address",
            "listen: 8000\n",
            &["is not an address and port"],
        ),
        Case::new(
            "an address twice",
            "listen: ['127.0.0.1:8123', '127.0.0.1:8123']\nremotes: {}\n",
            &["stands twice"],
        ),
        Case::new(
            "no key",
            "tls: {cert: larder.yaml}\n",
            &["`key` is missing"],
        ),
        Case::new(
            "a certificate that is not there",
            TLS,
            &["tls.cert", "is not a file"],
        )
        .file("key.pem", key.clone()),
        Case::new(
            "a certificate file without one",
            TLS,
            &["cert.pem", "holds no certificate"],
        )
        .file("cert.pem", "x")
        .file("key.pem", key.clone()),
        Case::new("a key file without one", TLS, &["key.pem"])
            .file("cert.pem", cert)
            .file("key.pem", "x"),
        Case::new(
            "another certificate's key",
            TLS,
            &["cannot be used together"],
        )
        .file("cert.pem", other)
        .file("key.pem", key),
        Case::new(
            "a token file that is not there",
            PLAIN,
            &["--admin-token-file", "cannot read"],
        )
        .arguments(&["--admin-token-file", "@HOME@/none"]),
        Case::new(
            "a token that no header carries",
            PLAIN,
            &["admin token must be letters"],
        )
        .env("LARDER_ADMIN_TOKEN", "a b"),
        Case::new(
            "a public URL without a scheme",
            "public_url: larder.example.com\n",
            &["not an absolute URL"],
        ),
    ]
}

#[test]
fn what_keeps_larder_from_starting_is_found_by_check() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let held = listener.local_addr().expect("its address").to_string();
    let cases: Vec<Case> = [files(), repositories(), environment(), machine(&held)]
        .into_iter()
        .flatten()
        .collect();
    assert!(cases.len() >= 30, "{}", cases.len());
    assert_broken(&cases);
}

/// `check` and a start both end with status 1 and say the words of each case, and `check` leaves nothing behind.
pub(crate) fn assert_broken(cases: &[Case]) {
    let mut wrong = Vec::new();
    for case in cases {
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
        let ended = started.ended.and_then(|ended| ended.code());
        let log = started.log();
        if (status, ended) != (Some(1), Some(1)) {
            wrong.push(format!(
                "{}: check {status:?}, start {ended:?}\n{said}\n{log}",
                case.name
            ));
        }
        for word in &case.words {
            // In a JSON line of the log quotation marks are escaped.
            for (who, text) in [("check", &said), ("start", &log.replace("\\\"", "\""))] {
                if !text.contains(word) {
                    wrong.push(format!(
                        "{}: {who} does not say {word:?}:\n{text}",
                        case.name
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

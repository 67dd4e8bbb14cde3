//! What the words of other programs are called here: keys and values by their meaning, before anything is guessed by spelling.

mod values;

pub(super) use values::{KINDS, PACKAGES, SERVED_AS_FILES};

/// Words, in lower case with `_`, and what to say to whoever writes one of them.
type Synonyms = &'static [(&'static [&'static str], &'static str)];

/// Keys of a repository.
pub(super) const REPOSITORY: Synonyms = &[
    (
        &[
            "url",
            "uri",
            "upstream",
            "upstreams",
            "upstream_url",
            "remote_url",
            "remoteurl",
            "registry",
            "registry_url",
            "mirror",
            "mirrors",
            "mirror_url",
            "origin",
            "origin_url",
            "source",
            "endpoint",
            "host",
            "server",
            "address",
            "root",
            "baseurl",
            "remote_storage",
            "proxy_pass",
        ],
        "the upstream's address is `base_url`",
    ),
    (
        &["user", "user_name", "login", "account"],
        "the upstream's login is `username` and `password`",
    ),
    (
        &["pass", "passwd", "pwd", "secret", "api_key", "apikey"],
        "the upstream's login is `username` and `password`",
    ),
    (
        &[
            "token",
            "auth",
            "authorization",
            "bearer",
            "bearer_token",
            "auth_token",
            "authtoken",
            "_authtoken",
            "credentials",
        ],
        "a token goes into `headers`, as `headers: {Authorization: \"Bearer ${TOKEN}\"}`; a login is `username` and `password`",
    ),
    (
        &[
            "ttl",
            "expire",
            "expires",
            "expiry",
            "lifetime",
            "max_age",
            "maxage",
            "cache_ttl",
            "cache_time",
            "metadata_ttl",
            "content_max_age",
            "metadata_max_age",
            "retrieval_cache_period_secs",
            "metadata_age",
            "mirror_cache_expiry",
            "proxy_cache_valid",
        ],
        "how long copies are good is `cache: {immutable_ttl: 0, mutable_ttl: 3600}`, in seconds",
    ),
    (
        &[
            "negative_cache",
            "negative_cache_ttl",
            "not_found_ttl",
            "missed_cache_ttl",
            "missing_ttl",
            "missed_retrieval_cache_period_secs",
        ],
        "how long a 404 is remembered is `negative_ttl`",
    ),
    (
        &[
            "format",
            "package_type",
            "packagetype",
            "ecosystem",
            "protocol",
            "repo_type",
            "layout",
        ],
        "the kind of packages is `package`",
    ),
    (
        &["kind", "mode", "class", "rclass", "recipe"],
        "whether it is a remote, local or virtual repository is `type`",
    ),
    (
        &[
            "include",
            "includes",
            "include_patterns",
            "includes_pattern",
            "whitelist",
            "allow",
            "allowed",
            "allowlist",
        ],
        "which paths are let in is `allow_patterns`, a list of regular expressions",
    ),
    (
        &[
            "exclude",
            "excludes",
            "exclude_patterns",
            "excludes_pattern",
            "blacklist",
            "block",
            "blocked",
            "denied",
            "deny",
            "denylist",
            "blocklist",
        ],
        "which paths are kept out is `deny_patterns`, a list of regular expressions",
    ),
    (
        &[
            "ca",
            "cacert",
            "ca_cert",
            "ca_bundle",
            "cafile",
            "ca_path",
            "certificate",
            "cert",
            "ssl_ca",
            "tls_ca",
            "trust",
        ],
        "certificates to trust are given in a PEM file as `ca_file`",
    ),
    (
        &[
            "insecure",
            "tls_verify",
            "verify_ssl",
            "ssl_verify",
            "strict_ssl",
            "insecure_skip_verify",
            "skip_tls_verify",
        ],
        "certificates are always verified: name those to trust in a PEM file as `ca_file`",
    ),
    (
        &[
            "timeout",
            "connect_timeout",
            "read_timeout",
            "connection_timeout",
            "socket_timeout",
        ],
        "time-outs are `timeouts: {connect: 5, read: 30}`, in seconds",
    ),
    (
        &["http_proxy", "https_proxy", "all_proxy", "proxy_url"],
        "a proxy is given as `proxy`",
    ),
    (
        &["no_proxy"],
        "`proxy: none` reaches this upstream directly; the variable NO_PROXY names others",
    ),
    (
        &[
            "quarantine",
            "cooldown",
            "min_age",
            "minimum_age",
            "minimum_release_age",
            "delay",
            "hold",
        ],
        "to hold new files back, set `quarantine_new: true` and `quarantine_days`",
    ),
    (
        &["repositories", "repos", "remotes", "sources", "children"],
        "the repositories that a virtual one merges are its `members`",
    ),
    (
        &["name", "id", "key"],
        "a repository's name is the key under which it stands in `remotes`",
    ),
    (
        &["size_limit", "max_file_size", "maxsize"],
        "larger files are not kept with `max_size`",
    ),
    (
        &["serve_stale", "stale_if_error"],
        "on which statuses an expired copy is served is `stale: {on_status: […]}`",
    ),
    (
        &[
            "header",
            "extra_headers",
            "request_headers",
            "custom_headers",
        ],
        "extra request headers are `headers`",
    ),
    (
        &[
            "auto_block",
            "assumed_offline_period_secs",
            "max_fails",
            "fail_timeout",
        ],
        "larder leaves alone by itself, for 5 to 30 seconds, what does not answer; `offline: true` never asks",
    ),
    (
        &["proxy_cache_use_stale", "proxy_cache_background_update"],
        "when expired copies are served is `stale: {on_status: […], while_revalidate: 60}`",
    ),
    (
        &["proxy_cache_revalidate"],
        "a conditional request on expiry is `revalidate: get`",
    ),
    (
        &["comment", "desc", "title", "label"],
        "free text is `description`",
    ),
];

/// Keys of the top level.
pub(super) const TOP: Synonyms = &[
    (
        &[
            "port",
            "host",
            "bind",
            "addr",
            "address",
            "bind_address",
            "listen_address",
            "http",
            "server",
            "listeners",
            "http_port",
        ],
        "where larder listens is `listen: 127.0.0.1:8000`, an address with its port",
    ),
    (
        &[
            "url",
            "external_url",
            "base_uri",
            "server_url",
            "hostname",
            "public_address",
            "root_url",
        ],
        "the address under which clients reach larder is `public_url`",
    ),
    (
        &[
            "repositories",
            "repos",
            "repository",
            "registries",
            "upstreams",
            "uplinks",
            "proxies",
            "mirrors",
            "sources",
            "remote_repositories",
            "packages",
        ],
        "repositories stand under `remotes`, by name",
    ),
    (
        &[
            "storage",
            "cache_dir",
            "cache",
            "path",
            "datadir",
            "data",
            "data_path",
            "storage_dir",
            "cachedir",
            "directory",
        ],
        "where files and the database live is `data_dir`",
    ),
    (
        &[
            "ssl",
            "https",
            "cert",
            "certificate",
            "key",
            "tls_cert",
            "tls_key",
        ],
        "HTTPS is `tls: {cert: …, key: …}`, two PEM files",
    ),
    (
        &[
            "token",
            "admin",
            "password",
            "admin_password",
            "api_key",
            "secret",
        ],
        "the token of administrators is `auth: {admin_token: …}`",
    ),
    (
        &[
            "log",
            "logs",
            "logging",
            "log_level",
            "loglevel",
            "log_format",
            "debug",
            "verbose",
        ],
        "what is logged is set by --log and --log-format, or LARDER_LOG and LARDER_LOG_FORMAT",
    ),
    (
        &["include", "includes", "conf_dir", "configs"],
        "a directory of further files is `config_dir`",
    ),
    (
        &["http_proxy", "https_proxy", "all_proxy", "outbound_proxy"],
        "a proxy for all upstreams is `proxy`",
    ),
    (
        &["no_proxy"],
        "what is reached without a proxy is in the variable NO_PROXY",
    ),
    (
        &["max_connections", "connections", "max_downloads"],
        "bounds are `limits: {connections: …, downloads: …}`",
    ),
    (
        &["rate_limit", "rate_limits", "max_concurrency"],
        "bounds on requests to upstreams are `limits: {upstream: {concurrency: …, rate: …}}`",
    ),
    (
        &["memory", "memory_cache", "hotset", "ram"],
        "memory for small files is `hot_set`",
    ),
];

/// What a table says of a word.
pub(super) fn look_up(table: Synonyms, word: &str) -> Option<&'static str> {
    table
        .iter()
        .find(|(words, _)| words.contains(&word))
        .map(|(_, said)| *said)
}

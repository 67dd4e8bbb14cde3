//! Every key that a configuration may hold (contract, section 2).

/// Top level of the main file.
pub(super) const TOP: &[&str] = &[
    "remotes",
    "config_dir",
    "s3",
    "redis",
    "database",
    "listen",
    "data_dir",
    "public_url",
    "trusted_proxies",
    "tls",
    "auth",
    "docker_default_remote",
    "proxy",
    "hot_set",
    "limits",
    "drain",
    "advertise",
    "cluster",
    "tracing",
];
/// `s3`.
pub(super) const S3: &[&str] = &[
    "endpoint",
    "access_key",
    "secret_key",
    "bucket",
    "secure",
    "region",
    "path_style",
    "ca_file",
    "prefix",
    "tier",
    "upload_lease",
    "presign",
    "public_endpoint",
];
/// `redis`.
pub(super) const REDIS: &[&str] = &["url", "ca_file"];
/// `cluster`.
pub(super) const CLUSTER: &[&str] = &["secret"];
/// `tracing`.
pub(super) const TRACING: &[&str] = &["otlp", "sample"];
/// `database`.
pub(super) const DATABASE: &[&str] = &[
    "host", "port", "user", "password", "name", "sslmode", "ca_file",
];
/// `tls`.
pub(super) const TLS: &[&str] = &["cert", "key"];
/// `auth`.
pub(super) const AUTH: &[&str] = &["admin_token"];
/// `limits`.
pub(super) const LIMITS: &[&str] = &[
    "document_size",
    "connections",
    "downloads",
    "disk",
    "upstream",
];
/// `limits.upstream`, and `limits` of a remote.
pub(super) const UPSTREAM: &[&str] = &["concurrency", "rate"];
/// An entry of `remotes`.
pub(super) const REPOSITORY: &[&str] = &[
    "base_url",
    "type",
    "package",
    "description",
    "immutable_patterns",
    "mutable_patterns",
    "check_mutable_updates",
    "username",
    "password",
    "quarantine_new",
    "quarantine_days",
    "members",
    "authoritative",
    "reserved",
    "presign",
    "fail_closed",
    "member_urls",
    "default_local",
    "hostnames",
    "cache",
    "index_url",
    "allow_patterns",
    "deny_patterns",
    "revalidate",
    "stale",
    "negative_ttl",
    "missing_status",
    "timeouts",
    "limits",
    "allow_private",
    "link_hosts",
    "token_hosts",
    "headers",
    "ca_file",
    "proxy",
    "offline",
    "max_size",
    "max_disk",
    "allow_overwrite",
    "quota",
    "no_rollback",
    "verify",
    "quarantine_date",
    "quarantine_index",
    "quarantine_missing_date",
    "quarantine_exclude",
];
/// `cache` of a repository.
pub(super) const CACHE: &[&str] = &["immutable_ttl", "mutable_ttl"];
/// `stale` of a repository.
pub(super) const STALE: &[&str] = &["on_status", "max_age", "while_revalidate", "wait"];
/// `timeouts` of a repository.
pub(super) const TIMEOUTS: &[&str] = &["connect", "read"];

/// Keys of a repository that have a meaning for a remote only.
pub(super) const REMOTE_ONLY: &[&str] = &[
    "base_url",
    "index_url",
    "username",
    "password",
    "check_mutable_updates",
    "revalidate",
    "stale",
    "negative_ttl",
    "missing_status",
    "timeouts",
    "limits",
    "allow_private",
    "link_hosts",
    "token_hosts",
    "headers",
    "ca_file",
    "proxy",
    "offline",
    "max_size",
    "max_disk",
    "no_rollback",
    "verify",
];

/// Keys of a repository that have no meaning for a virtual one: its members' count.
pub(super) const NOT_VIRTUAL: &[&str] = &[
    "cache",
    "quarantine_new",
    "quarantine_days",
    "quarantine_date",
    "quarantine_index",
    "quarantine_missing_date",
    "quarantine_exclude",
];

/// Keys of a repository that have no meaning for a local one: nothing of it expires.
pub(super) const NOT_LOCAL: &[&str] = &["cache"];

/// Keys of a repository that have a meaning for a local one only.
pub(super) const LOCAL_ONLY: &[&str] = &["allow_overwrite", "quota"];

/// Keys of a repository that have a meaning for a virtual one only.
pub(super) const VIRTUAL_ONLY: &[&str] =
    &["members", "fail_closed", "member_urls", "default_local"];

/// Whether the value of a key is a secret, wherever the key stands.
pub(super) fn is_secret(key: &str) -> bool {
    matches!(
        key,
        "password" | "secret_key" | "access_key" | "admin_token" | "secret"
    )
}

/// Whether a key's value, and all below it, may refer to the environment: secrets and what belongs to them.
pub(super) fn takes_references(key: &str) -> bool {
    is_secret(key) || matches!(key, "username" | "proxy" | "headers" | "url")
}

/// Whether a key's value may hold any `$`: regular expressions and text for people.
pub(super) fn is_free_text(key: &str) -> bool {
    key.ends_with("_patterns") || matches!(key, "quarantine_exclude" | "description")
}

/// Sections whose keys people put one level too high or too low.
pub(super) const NESTED: &[(&str, &[&str])] = &[
    ("cache", CACHE),
    ("stale", STALE),
    ("timeouts", TIMEOUTS),
    ("auth", AUTH),
    ("limits", LIMITS),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_describes_every_key() {
        let guide = include_str!("../../../../docs/guide/configuration.md");
        let under = |section: &str, keys: &[&str]| {
            keys.iter()
                .map(|key| format!("{section}.{key}"))
                .collect::<Vec<_>>()
        };
        let plain = TOP.iter().chain(REPOSITORY).filter(|key| {
            !matches!(
                **key,
                "tls"
                    | "auth"
                    | "database"
                    | "limits"
                    | "cache"
                    | "stale"
                    | "timeouts"
                    | "redis"
                    | "cluster"
                    | "tracing"
            )
        });
        let mut keys: Vec<String> = plain.map(|key| (*key).to_owned()).collect();
        for (section, known) in [
            ("tls", TLS),
            ("s3", S3),
            ("auth", AUTH),
            ("database", DATABASE),
            ("limits", LIMITS),
            ("limits.upstream", UPSTREAM),
            ("limits", UPSTREAM),
            ("redis", REDIS),
            ("cluster", CLUSTER),
            ("tracing", TRACING),
            ("cache", CACHE),
            ("stale", STALE),
            ("timeouts", TIMEOUTS),
        ] {
            keys.extend(under(section, known));
        }
        for key in keys {
            assert!(
                guide.contains(&format!("`{key}`")),
                "{key} is not in docs/guide/configuration.md"
            );
        }
    }
}

//! A number that changes whenever anything changes that decides what a repository serves.
//!
//! It is the same on every replica and after every restart, for it depends on the validated entry alone: derived documents
//! stay valid. Credentials, descriptions and time-outs do not count, since they do not change what an upstream's file means.

use larder_core::{
    AccessPolicy, CachePolicy, MemberUrls, Pattern, QuarantinePolicy, Repository, UpstreamSettings,
    sha256,
};
use serde_json::{Value, json};

/// The first eight bytes of the SHA-256 of a canonical text of the rules.
pub(super) fn rules_epoch(repository: &Repository) -> u64 {
    let members: Vec<&str> = repository
        .members()
        .iter()
        .map(larder_core::RepositoryName::as_str)
        .collect();
    let mut rules = json!({
        "kind": repository.kind().as_str(),
        "package": repository.package.as_str(),
        "upstream": repository.upstream().map(upstream),
        "access": access(&repository.access),
        "cache": cache(&repository.cache),
        "quarantine": quarantine(&repository.quarantine),
        "members": members,
    });
    // Only of those that have it: what was derived from others stays valid.
    if let Some(settings) = repository.virtual_settings() {
        rules["member_urls"] = match settings.member_urls {
            MemberUrls::Member => json!("member"),
            MemberUrls::Virtual => json!("virtual"),
        };
    }
    let digest = sha256(rules.to_string().as_bytes());
    digest
        .as_bytes()
        .iter()
        .take(8)
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn upstream(upstream: &UpstreamSettings) -> Value {
    let base_urls: Vec<&str> = upstream.base_urls.iter().map(url::Url::as_str).collect();
    let headers: Vec<&String> = upstream.headers.iter().map(|(name, _)| name).collect();
    let private = upstream.allow_private.iter().map(|entry| match entry {
        larder_core::AllowPrivate::Network(network) => network.to_string(),
        larder_core::AllowPrivate::Socket(socket) => socket.to_string(),
    });
    let private: Vec<String> = private.collect();
    json!({
        "base_urls": base_urls, "index_url": upstream.index_url.as_str(), "headers": headers, "allow_private": private,
        "link_hosts": upstream.link_hosts, "offline": upstream.offline, "max_size": upstream.max_size,
    })
}

fn access(access: &AccessPolicy) -> Value {
    let texts = |patterns: &[Pattern]| {
        patterns
            .iter()
            .map(|p| p.as_str().to_owned())
            .collect::<Vec<_>>()
    };
    json!({
        "allow": texts(&access.allow), "deny": texts(&access.deny),
        "mutable": access.mutable.as_deref().map(texts), "immutable": access.immutable.as_deref().map(texts),
    })
}

fn cache(cache: &CachePolicy) -> Value {
    let revalidate = cache.revalidate.map(|method| match method {
        larder_core::Revalidate::Head => "head",
        larder_core::Revalidate::Get => "get",
        larder_core::Revalidate::Never => "never",
    });
    json!({
        "immutable_ttl": cache.immutable_ttl.map(|ttl| ttl.as_secs()), "mutable_ttl": cache.mutable_ttl.as_secs(),
        "check_mutable_updates": cache.check_mutable_updates, "revalidate": revalidate,
        "stale_on_status": cache.stale_on_status, "stale_max_age": cache.stale_max_age.map(|age| age.as_secs()),
        "stale_while_revalidate": cache.stale_while_revalidate.as_secs(), "negative_ttl": cache.negative_ttl.as_secs(),
        "missing_status": cache.missing_status, "no_rollback": cache.no_rollback,
        "verify_warns": cache.verify == larder_core::Verify::Warn,
    })
}

fn quarantine(quarantine: &QuarantinePolicy) -> Value {
    let missing_date = match quarantine.missing_date {
        larder_core::MissingDate::Allow => "allow",
        larder_core::MissingDate::Deny => "deny",
        larder_core::MissingDate::FirstSeen => "first_seen",
    };
    let mut rules =
        json!({"hold": quarantine.hold.map(|hold| hold.as_secs()), "missing_date": missing_date});
    // Only where it is not what it is by itself: what was derived for others stays valid.
    if quarantine.date == larder_core::DateSource::LastModified {
        rules["date"] = json!("last_modified");
    }
    rules
}

//! Which docker repository stands for which registry, for clients that name the registry (`?ns=`) and no repository.

use std::collections::{BTreeMap, BTreeSet};

use larder_core::{PackageType, Repository, RepositoryKind, UpstreamSettings};
use url::Url;

use super::defaults;

/// Names of repositories by the registry's host. Where several stand for one host, the default remote is meant, if it is among them; else
/// a client has to say which it means.
pub(super) fn by_host<'r>(
    repositories: impl Iterator<Item = &'r Repository>,
    default: Option<&str>,
) -> BTreeMap<String, String> {
    let mut found: BTreeMap<String, Option<&str>> = BTreeMap::new();
    for repository in repositories
        .filter(|r| r.package == PackageType::Docker && r.kind() == RepositoryKind::Remote)
    {
        for host in repository.upstream().into_iter().flat_map(hosts) {
            let name = repository.name.as_str();
            let meant = found.entry(host).and_modify(|meant| {
                let is_one = [*meant, Some(name)].contains(&default);
                *meant = default.filter(|_| is_one);
            });
            meant.or_insert(Some(name));
        }
    }
    found
        .into_iter()
        .filter_map(|(host, name)| Some((host, name?.to_owned())))
        .collect()
}

/// The hosts of an upstream, of the public hub all names; none where its address is a part of a registry only.
fn hosts(upstream: &UpstreamSettings) -> BTreeSet<String> {
    let of_hub = upstream
        .default_namespace
        .iter()
        .flat_map(|_| defaults::docker_hub_hosts())
        .map(|host| (*host).to_owned());
    let whole = upstream
        .base_urls
        .iter()
        .filter(|url| matches!(url.path(), "/" | "/v2/"));
    whole.filter_map(authority).chain(of_hub).collect()
}

fn authority(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(
        url.port()
            .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")),
    )
}

//! Which docker repository stands for which registry, for clients that name the registry (`?ns=`) and no repository.

use std::collections::{BTreeMap, BTreeSet};

use larder_core::{PackageType, Repository, RepositoryKind, UpstreamSettings};
use url::Url;

use super::defaults;

/// Names of repositories by the registry's host. Where several stand for one host, a client has to say which it means.
pub(super) fn by_host<'r>(
    repositories: impl Iterator<Item = &'r Repository>,
) -> BTreeMap<String, String> {
    let mut found: BTreeMap<String, Option<String>> = BTreeMap::new();
    for repository in repositories
        .filter(|r| r.package == PackageType::Docker && r.kind() == RepositoryKind::Remote)
    {
        for host in repository.upstream().into_iter().flat_map(hosts) {
            found
                .entry(host)
                .and_modify(|name| *name = None)
                .or_insert_with(|| Some(repository.name.to_string()));
        }
    }
    found
        .into_iter()
        .filter_map(|(host, name)| Some((host, name?)))
        .collect()
}

/// The hosts of an upstream, all names of the public hub; none where its address is a part of a registry only.
fn hosts(upstream: &UpstreamSettings) -> BTreeSet<String> {
    if upstream.default_namespace.is_some() {
        return defaults::docker_hub_hosts()
            .iter()
            .map(|host| (*host).to_owned())
            .collect();
    }
    let whole = upstream
        .base_urls
        .iter()
        .filter(|url| matches!(url.path(), "/" | "/v2/"));
    whole.filter_map(authority).collect()
}

fn authority(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(
        url.port()
            .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")),
    )
}

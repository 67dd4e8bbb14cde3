//! Name resolution that gives out admitted addresses only. The HTTP client connects to exactly what it is given here and resolves no
//! second time, so that a name which changes its mind (DNS rebinding) gains nothing.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::address::Reach;
use crate::connect_watch::ConnectWatch;
use crate::lookups::Lookups;

/// Turns a host name into addresses, once per connection.
#[async_trait]
pub trait NameLookup: Send + Sync + fmt::Debug {
    /// All addresses of `name`, in the order of preference.
    ///
    /// # Errors
    /// The name does not exist or the resolver does not answer.
    async fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// The operating system's resolver (`getaddrinfo`).
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemLookup;

#[async_trait]
impl NameLookup for SystemLookup {
    async fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((name, 0))
            .await?
            .map(|socket| socket.ip())
            .collect())
    }
}

/// A name led to no address within reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the name leads to no public address")]
pub(crate) struct OutOfReach;

/// The resolver of one HTTP client: everything it resolves is within `reach`, but for the proxy's own name.
#[derive(Debug)]
pub(crate) struct CheckedResolver {
    pub(crate) lookups: Arc<Lookups>,
    pub(crate) reach: Reach,
    /// How long a name is waited for.
    pub(crate) wait: Duration,
    /// The host of the configured proxy, which is the operator's word.
    pub(crate) proxy_host: Option<String>,
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (lookups, wait) = (Arc::clone(&self.lookups), self.wait);
        let is_proxy = self
            .proxy_host
            .as_deref()
            .is_some_and(|host| host.eq_ignore_ascii_case(name.as_str()));
        let reach = if is_proxy {
            Reach::Configured
        } else {
            self.reach.clone()
        };
        Box::pin(async move {
            let owner = ConnectWatch::owner();
            let found = lookups.addresses(&owner, name.as_str(), wait).await?;
            let admitted = within(&reach, &found)?;
            Ok(Box::new(admitted.into_iter().map(|ip| SocketAddr::new(ip, 0))) as Addrs)
        })
    }
}

/// The admitted ones of `found`.
fn within(reach: &Reach, found: &[IpAddr]) -> Result<Vec<IpAddr>, OutOfReach> {
    let admitted: Vec<IpAddr> = found
        .iter()
        .copied()
        .filter(|ip| reach.admits(*ip))
        .collect();
    if admitted.is_empty() && !found.is_empty() {
        Err(OutOfReach)
    } else {
        Ok(admitted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    }

    #[test]
    fn hazard_s10_of_mixed_addresses_only_the_admitted_are_used() {
        let public = Reach::Public {
            allowed: vec!["10.0.0.0/8".parse().unwrap()],
        };
        let found = ips(&[
            "127.0.0.1",
            "1.1.1.1",
            "::ffff:192.168.0.1",
            "10.9.9.9",
            "fd00::1",
            "2606:4700::1111",
        ]);
        assert_eq!(
            within(&public, &found),
            Ok(ips(&["1.1.1.1", "10.9.9.9", "2606:4700::1111"]))
        );
        assert_eq!(
            within(&public, &ips(&["127.0.0.1", "169.254.169.254"])),
            Err(OutOfReach)
        );
        assert_eq!(
            within(&public, &[]),
            Ok(Vec::new()),
            "no address at all is a DNS failure, not a refusal"
        );
        assert_eq!(
            within(&Reach::Configured, &ips(&["127.0.0.1"])),
            Ok(ips(&["127.0.0.1"]))
        );
    }
}

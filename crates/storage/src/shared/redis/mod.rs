//! What is shared through Redis or Valkey (6 and later).

mod address;
mod link;
mod plaintext;
mod scripts;
mod subscriber;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use larder_core::sha256;
use redis::RedisResult;

pub use self::address::RedisAddress;
use self::link::{Asks, Link};
use super::ration::LONGEST_PACE_MICROS;
use super::{
    AbortOnDrop, Attempt, Fence, Holder, LONGEST_LEASE, Lease, PATIENCE, Pace, RationClaim,
    Renewal, Shared, SharedStanding, Subscription, millis, pace_micros, token,
};

/// What the value of a lease begins with.
const FORM: &str = "larder1";

/// Shared by all who connect with the same prefix.
pub struct RedisShared {
    link: Arc<Link>,
    prefix: String,
    _keeper: AbortOnDrop,
}

impl fmt::Debug for RedisShared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisShared")
            .field("address", &self.link.address)
            .finish_non_exhaustive()
    }
}

impl RedisShared {
    /// Begins to connect, and goes on as long as it is there; everything is [`Attempt::Unknown`] until it has. `cluster` tells this
    /// cluster's keys from those of others on the same server. Must be called within a Tokio runtime.
    pub fn connect(address: RedisAddress, cluster: &str) -> Self {
        let link = Link::new(address);
        let keeper = tokio::spawn(Arc::clone(&link).keep());
        Self {
            link,
            prefix: format!("larder:{cluster}"),
            _keeper: AbortOnDrop(keeper.abort_handle()),
        }
    }

    /// Waits until it is connected, no longer than `patience`; whether it is.
    pub async fn until_connected(&self, patience: Duration) -> bool {
        self.link.until_had(patience).await
    }

    /// The key of a lease, and that of its last fence.
    fn keys(&self, key: &str) -> [String; 2] {
        // Names of leases may be long, and hold braces, which mean something to a cluster.
        let name = sha256(key.as_bytes());
        let lease = format!("{}:lease:{{{}}}", self.prefix, name.to_hex());
        let fence = format!("{lease}:fence");
        [lease, fence]
    }

    /// The one key of a thing of this kind.
    fn key(&self, kind: &str, key: &str) -> String {
        let name = sha256(key.as_bytes()).to_hex();
        format!("{}:{kind}:{{{name}}}", self.prefix)
    }

    fn topic(&self, topic: &str) -> String {
        format!("{}:topic:{topic}", self.prefix)
    }

    async fn take(&self, key: &str, data: &str, ttl: Duration, over: Option<Fence>) -> Attempt {
        let [lease_key, fence_key] = self.keys(key);
        let token = token();
        let over = over.map_or_else(String::new, |fence| fence.0.to_string());
        let mut call = scripts::TAKE.prepare_invoke();
        call.key(lease_key).key(fence_key).arg(&token).arg(data);
        call.arg(millis(ttl)).arg(over).arg(millis(LONGEST_LEASE));
        let said: Option<Vec<String>> = self
            .link
            .call(Asks::Keep, |mut wire| async move {
                call.invoke_async(&mut wire).await
            })
            .await;
        let said = said.unwrap_or_default();
        match said.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["1", fence] => {
                self.link.kept();
                fence.parse().map_or(Attempt::Unknown, |fence| {
                    Attempt::Taken(Lease {
                        key: key.to_owned(),
                        token,
                        data: data.to_owned(),
                        fence: Fence(fence),
                    })
                })
            }
            ["0", value, left] => left
                .parse()
                .ok()
                .and_then(|left| holder(value, left))
                .map_or(Attempt::Unknown, Attempt::Held),
            _ => Attempt::Unknown,
        }
    }
}

/// The value under which a lease is held.
fn value(lease: &Lease) -> String {
    let Lease {
        token, data, fence, ..
    } = lease;
    format!("{FORM} {} {token} {data}", fence.0)
}

fn holder(value: &str, left: u64) -> Option<Holder> {
    let mut parts = value.splitn(4, ' ');
    let form = parts.next()?;
    let fence = parts.next()?.parse().ok()?;
    let _token = parts.next()?;
    let data = parts.next()?;
    (form == FORM).then(|| Holder {
        data: data.to_owned(),
        fence: Fence(fence),
        left: Duration::from_millis(left),
    })
}

impl Shared for RedisShared {
    fn lease<'a>(
        &'a self,
        key: &'a str,
        data: &'a str,
        ttl: Duration,
        over: Option<Fence>,
    ) -> BoxFuture<'a, Attempt> {
        self.take(key, data, ttl, over).boxed()
    }

    fn renew<'a>(&'a self, lease: &'a Lease, ttl: Duration) -> BoxFuture<'a, Renewal> {
        async move {
            let [lease_key, fence_key] = self.keys(&lease.key);
            let mut call = scripts::RENEW.prepare_invoke();
            call.key(lease_key).key(fence_key).arg(value(lease));
            call.arg(lease.fence.0).arg(millis(ttl));
            let said: Option<i64> = self
                .link
                .call(Asks::Keep, |mut wire| async move {
                    call.invoke_async(&mut wire).await
                })
                .await;
            match said {
                Some(1) => Renewal::Kept,
                Some(_) => Renewal::Lost,
                None => Renewal::Unknown,
            }
        }
        .boxed()
    }

    fn release<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, ()> {
        async move {
            let [lease_key, _] = self.keys(&lease.key);
            let mut call = scripts::RELEASE.prepare_invoke();
            call.key(lease_key).arg(value(lease));
            let _: Option<i64> = self
                .link
                .call(Asks::Keep, |mut wire| async move {
                    call.invoke_async(&mut wire).await
                })
                .await;
        }
        .boxed()
    }

    fn holder<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Option<Holder>> {
        async move {
            let [lease_key, _] = self.keys(key);
            let (value, left): (Option<String>, i64) = self
                .link
                .call(Asks::Read, |mut wire| async move {
                    let value: RedisResult<Option<String>> = redis::cmd("GET")
                        .arg(&lease_key)
                        .query_async(&mut wire)
                        .await;
                    let left = redis::cmd("PTTL")
                        .arg(&lease_key)
                        .query_async(&mut wire)
                        .await?;
                    Ok((value?, left))
                })
                .await?;
            // Without an end it is nobody's.
            let left = u64::try_from(left).ok()?;
            holder(&value?, left)
        }
        .boxed()
    }

    fn ration<'a>(
        &'a self,
        key: &'a str,
        claim: &'a RationClaim<'a>,
    ) -> BoxFuture<'a, Option<u32>> {
        async move {
            let mut call = scripts::RATION.prepare_invoke();
            call.key(self.key("ration", key)).arg(claim.holder);
            call.arg(claim.limit)
                .arg(claim.held)
                .arg(claim.wanted.max(claim.held));
            call.arg(millis(claim.ttl)).arg(millis(LONGEST_LEASE));
            let said: Option<i64> = self
                .link
                .call(Asks::Keep, |mut wire| async move {
                    call.invoke_async(&mut wire).await
                })
                .await;
            let granted = said?;
            if claim.wanted.max(claim.held) > 0 {
                self.link.kept();
            }
            u32::try_from(granted).ok()
        }
        .boxed()
    }

    fn pace<'a>(
        &'a self,
        key: &'a str,
        apart: Duration,
        patience: Duration,
    ) -> BoxFuture<'a, Option<Pace>> {
        async move {
            let mut call = scripts::PACE.prepare_invoke();
            call.key(self.key("pace", key)).arg(pace_micros(apart));
            call.arg(pace_micros(patience)).arg(LONGEST_PACE_MICROS);
            let said: Option<(i64, u64)> = self
                .link
                .call(Asks::Keep, |mut wire| async move {
                    call.invoke_async(&mut wire).await
                })
                .await;
            let (is_taken, micros) = said?;
            let wait = Duration::from_micros(micros);
            if is_taken != 1 {
                return Some(Pace::TooLong(wait));
            }
            self.link.kept();
            Some(Pace::After(wait))
        }
        .boxed()
    }

    fn publish<'a>(&'a self, topic: &'a str, message: &'a [u8]) -> BoxFuture<'a, bool> {
        async move {
            let mut publish = redis::cmd("PUBLISH");
            publish.arg(self.topic(topic)).arg(message);
            let sent: Option<i64> = self
                .link
                .call(Asks::Publish, |mut wire| async move {
                    publish.query_async(&mut wire).await
                })
                .await;
            sent.is_some()
        }
        .boxed()
    }

    fn subscribe(&self, topic: &str) -> Subscription {
        subscriber::subscribe(self.link.address.clone(), self.topic(topic))
    }

    fn standing(&self) -> SharedStanding {
        let detail = self.link.trouble();
        SharedStanding {
            kind: "redis",
            ok: detail.is_none(),
            detail,
        }
    }
}

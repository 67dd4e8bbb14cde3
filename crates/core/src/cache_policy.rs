//! How long copies are good and what happens afterwards, in the words of RFC 9111 and RFC 5861.

use std::time::Duration;

/// What the operator set for one repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachePolicy {
    /// Life of an immutable file; `None` (written 0) = for ever.
    pub immutable_ttl: Option<Duration>,
    /// Life of a mutable file; zero = ask on every request.
    pub mutable_ttl: Duration,
    /// The contract's `check_mutable_updates`: HEAD revalidation of *user-defined* mutable paths.
    pub check_mutable_updates: bool,
    /// `revalidate`; `None` = the contract's behaviour.
    pub revalidate: Option<Revalidate>,
    /// `stale.on_status`: upstream statuses on which an expired copy is served.
    pub stale_on_status: Vec<u16>,
    /// `stale.max_age`: longest time since the last good upstream contact that a stale copy may serve; `None` (written 0) = no
    /// bound.
    pub stale_max_age: Option<Duration>,
    /// `stale.while_revalidate`: how long after expiry a copy is served while it is refreshed behind the scenes.
    pub stale_while_revalidate: Duration,
    /// `stale.wait`: how long a client waits for a refresh where a copy is held that may serve; then it gets the copy, and the refresh
    /// goes on. Zero = it waits for none.
    pub stale_wait: Duration,
    /// How long an upstream 404 or 410 is remembered; zero = not at all.
    pub negative_ttl: Duration,
    /// `missing_status`: upstream statuses other than 404 and 410 that say of a file that it is not there.
    pub missing_status: Vec<u16>,
    /// `no_rollback`: an index that states a lower revision than the one held does not replace it.
    pub no_rollback: bool,
    /// `verify`: what becomes of a file that contradicts the digest that an index states of it.
    pub verify: Verify,
    /// `presign`: whether the object store gives whole immutable files itself, by redirects to it.
    pub presign: bool,
}

/// `verify` of a repository. A digest that is a file's own name (OCI, repository metadata) is enforced in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verify {
    /// It is neither kept nor served.
    #[default]
    Enforce,
    /// It is kept and served, counted and logged: for repositories whose index is wrong.
    Warn,
}

impl CachePolicy {
    /// What [`stale_wait`](Self::stale_wait) is unless it is configured.
    pub const STALE_WAIT: Duration = Duration::from_secs(2);
    /// The longest [`stale_wait`](Self::stale_wait) that may be configured.
    pub const LONGEST_STALE_WAIT: Duration = Duration::from_hours(1);
}

impl Default for CachePolicy {
    fn default() -> Self {
        Self {
            immutable_ttl: None,
            mutable_ttl: Duration::from_hours(1),
            check_mutable_updates: false,
            revalidate: None,
            stale_on_status: Vec::new(),
            stale_max_age: None,
            stale_while_revalidate: Duration::ZERO,
            stale_wait: Self::STALE_WAIT,
            negative_ttl: Duration::from_secs(10),
            missing_status: Vec::new(),
            no_rollback: false,
            verify: Verify::Enforce,
            presign: false,
        }
    }
}

/// How an expired copy is compared with the upstream's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revalidate {
    /// Conditional HEAD, then GET if it changed.
    Head,
    /// Conditional GET.
    Get,
    /// Plain GET.
    Never,
}

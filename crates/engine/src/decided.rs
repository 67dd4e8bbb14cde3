//! The line that the log has at `debug` of each request that came to the pipeline: what was decided, from what, and why.

use larder_core::{ArtifactRecord, Decision, Mutability, RevalidateWith, UnixMillis};
use larder_upstream::in_request;

use crate::target::{Target, remaining_seconds};

/// Says a decision. Costs a look at a flag where nobody wants to know.
pub(crate) fn tell(
    now: UnixMillis,
    wanted: &Target,
    record: Option<&ArtifactRecord>,
    decision: &'static str,
    why: &'static str,
) {
    if !tracing::enabled!(tracing::Level::DEBUG) {
        return;
    }
    let class = match wanted.class {
        Mutability::Immutable => "immutable",
        Mutability::Mutable {
            user_defined: true, ..
        } => "mutable (mutable_patterns)",
        Mutability::Mutable { .. } => "mutable (built in)",
    };
    let held = record.is_some_and(|record| record.blob().is_some());
    let age = record.map(|record| now.since(record.contacted_at).as_secs());
    let ttl = record.and_then(|record| remaining_seconds(record, wanted, now));
    in_request(
        || tracing::debug!(key = %wanted.key, class, held, age, ttl, decision, why, "decision"),
    );
}

/// A decision in words: what is done, and why.
pub(crate) fn words(decision: Decision) -> (&'static str, &'static str) {
    match decision {
        Decision::Serve => ("serve", "the copy is fresh"),
        Decision::ServeAndRefresh => (
            "serve and refresh",
            "the copy has expired and may be served meanwhile",
        ),
        Decision::ServeNegative(_) => (
            "refuse",
            "the upstream's absence is remembered (negative_ttl)",
        ),
        Decision::Revalidate(RevalidateWith::Head) => {
            ("revalidate with HEAD", "the copy has expired")
        }
        Decision::Revalidate(RevalidateWith::Get) => {
            ("revalidate with GET", "the copy has expired")
        }
        Decision::Fetch { expired: true } => {
            ("fetch", "the copy has expired and is not revalidated")
        }
        Decision::Fetch { expired: false } => ("fetch", "nothing is held"),
    }
}

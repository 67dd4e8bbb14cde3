//! What is held of a path under another variant (an OCI tag that another client's `Accept` brought, the long form of an npm packument):
//! it stands in where the upstream cannot be asked and nothing that may be served is held under the variant that is asked for. Which
//! variants do is the format's knowledge (`Format::stands_in`).

use std::sync::Arc;

use larder_core::{CacheStatus, Fault, Source};

use super::copies::{Copies, Copy};
use crate::causes::warn_once;
use crate::counters::count;
use crate::keys::{format_variant, same_origin};
use crate::target::Target;
use crate::transfer::flight::Settled;

/// No path has more variants: a tag has one for each set of manifest types that clients take.
const VARIANTS: u32 = 32;

impl Copies {
    /// The copy of another variant that was heard of last, and that may be served if nobody answers.
    pub(crate) async fn stand_in(&self, wanted: &Target) -> Option<Copy> {
        if wanted.spec.variant.is_empty() {
            return None;
        }
        let start = (wanted.key.path.to_string(), String::new());
        let rows = self
            .catalog
            .page(&wanted.key.repository, Some(&start), VARIANTS)
            .await
            .ok()?;
        let mut best: Option<Copy> = None;
        for (_, variant, record) in rows.into_iter().take_while(|(path, ..)| *path == start.0) {
            let content_type = record.headers.content_type.as_deref().unwrap_or_default();
            let newer = best
                .as_ref()
                .is_none_or(|(best, _)| best.contacted_at < record.contacted_at);
            let is_other =
                *variant != *wanted.key.variant && same_origin(&variant, &wanted.key.variant);
            if !(newer
                && is_other
                && wanted
                    .format
                    .stands_in(&wanted.spec, format_variant(&variant), content_type))
            {
                continue;
            }
            let held = match self.follow_pointer(wanted, &record).await {
                Some(held) => Some(held),
                None => match record.blob() {
                    Some(blob) => self.blobs.open(blob).await.ok(),
                    None => None,
                }
                .map(|open| (Arc::new(record), open)),
            };
            let offline = wanted.entry.repository_is_offline();
            best = held
                .filter(|(record, _)| offline || self.may_serve(wanted, record))
                .or(best);
        }
        best
    }

    /// A stand-in for what nobody could be asked for; any other fault stands.
    pub(crate) async fn lent_instead(
        &self,
        wanted: &Target,
        fault: Fault,
    ) -> Result<Settled, Fault> {
        if !fault.recovery.may_use_copy() {
            return Err(fault);
        }
        let (record, body) = self.stand_in(wanted).await.ok_or(fault)?;
        warn_once!(wanted, "stand_in", "another variant's copy is served");
        count(&wanted.entry.counters.stale_served);
        let status = CacheStatus {
            hit: true,
            detail: Some("stale-error"),
            ..CacheStatus::default()
        };
        Ok(Settled {
            record,
            body,
            status,
            source: Source::Cache,
            reusable: false,
            document: None,
        })
    }
}

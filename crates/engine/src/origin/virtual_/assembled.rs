//! What a merged document is made of, what it is named by, and how long it holds.

use std::time::Duration;

use larder_core::{CacheStatus, Digest, INCOMPLETE, RepositoryName, Source, UnixMillis};
use larder_formats::{Format, LinkBase};

use super::given::{Contribution, Given, earlier};
use super::tree::Place;
use crate::answer::Dependency;
use crate::document::named::{Named, source_urls};
use crate::policy::visibility::Visibility;

/// What quarantine holds back is looked at anew this often.
const HELD_STEP: Duration = Duration::from_mins(10);

/// A date is told as `Last-Modified` this long after it only: by then the other replicas serve this body, too.
const SETTLED: Duration = Duration::from_secs(3);

/// What a merged document is made of, and how long it holds. Keeps no file open, and no document in memory.
#[derive(Debug)]
pub(super) struct Assembled {
    /// Of each member that is in it: its name, the digest of its document, and all else that its part depends on.
    parts: Vec<Part>,
    /// How they stand within each other, and whose names are their own.
    shape: String,
    /// Of the virtual repository's own rules.
    pub(super) rules_epoch: u64,
    /// What quarantine takes out of it.
    pub(super) visibility: Visibility,
    /// The members that are not, those included that another larder left out of what a member gave.
    pub(super) skipped: Vec<String>,
    /// `None` = for ever.
    pub(super) fresh_until: Option<UnixMillis>,
    /// When the least recent of the members was heard of.
    pub(super) contacted_at: UnixMillis,
    /// When larder began to serve this body.
    pub(super) served_since: UnixMillis,
    /// The second that stands for that: no two bodies have the same, and no other was sent with it as its `Date`.
    dated: UnixMillis,
    /// The virtual repository first, and all members with their documents: whoever reads it uses them.
    pub(super) depends_on: Vec<Dependency>,
    /// How it came about.
    pub(super) status: CacheStatus,
    pub(super) source: Source,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    digest: Digest,
    /// What its links and its versions depend on, beside its bytes.
    depends_on: Vec<String>,
}

impl Assembled {
    /// From what the members gave by `now`, as they stand in `root`.
    pub(super) fn new(
        given: &[Given],
        root: &Place,
        depends_on: Vec<Dependency>,
        now: UnixMillis,
    ) -> Self {
        let (mut parts, mut skipped) = (Vec::new(), Vec::new());
        let mut until: Option<UnixMillis> = None;
        let (mut contacted_at, mut source) = (now, Source::Cache);
        let (mut forwarded, shape) = (None, root.shape());
        for one in given {
            let Ok(contribution) = &one.document else {
                skipped.push(one.leaf.entry.repository.name.to_string());
                until = earlier(until, Some(now.plus(INCOMPLETE)));
                continue;
            };
            skipped.extend(contribution.lacks().map(str::to_owned));
            until = earlier(until, contribution.holds_until(now));
            let settled = &contribution.settled;
            contacted_at = contacted_at.min(settled.record.said_at());
            if settled.source == Source::Remote {
                source = Source::Remote;
            }
            if settled.status.forward.is_some() {
                forwarded.get_or_insert(settled.status);
            }
            parts.extend(Part::of(one));
        }
        let visibility = visibility(given, now);
        let until = visibility.bound(until);
        let status = forwarded.unwrap_or(CacheStatus {
            hit: true,
            ttl: until.map(|until| seconds(until, now)),
            ..CacheStatus::default()
        });
        Self {
            parts,
            shape,
            rules_epoch: root.entry.repository.rules_epoch,
            visibility,
            skipped,
            fresh_until: until,
            contacted_at,
            served_since: now,
            dated: second_after(now),
            depends_on,
            status,
            source,
        }
    }

    /// The same, served from `now` on in the place of `before`.
    pub(super) fn following(mut self, before: Option<&Self>, now: UnixMillis) -> Self {
        (self.served_since, self.dated) = match before {
            Some(before) if before.has_body_of(&self) => (before.served_since, before.dated),
            Some(before) => {
                let next = before.dated.plus(Duration::from_secs(1));
                (now, second_after(now).max(next))
            }
            None => (now, second_after(now)),
        };
        self
    }

    fn has_body_of(&self, other: &Self) -> bool {
        self.rules_epoch == other.rules_epoch
            && (&self.parts, &self.visibility, &self.shape)
                == (&other.parts, &other.visibility, &other.shape)
    }

    /// From when on its date may be told.
    pub(super) fn is_settled_at(&self) -> UnixMillis {
        self.dated.plus(SETTLED)
    }

    /// `Last-Modified`; `None` as long as it may not be told.
    pub(super) fn last_modified(&self, now: UnixMillis) -> Option<String> {
        (self.is_settled_at() <= now).then(|| self.dated.to_http_date())
    }

    /// Whether it still holds: no member has another document, and none has expired.
    pub(super) fn is_good(&self, now: UnixMillis) -> bool {
        self.fresh_until.is_none_or(|until| now < until)
            && self.depends_on.iter().all(Dependency::holds)
    }

    /// It is asked for at `now`.
    pub(super) fn touch(&self, now: UnixMillis) {
        let uses = self.depends_on.iter().filter_map(|one| one.used.as_ref());
        uses.for_each(|used| used.touch(now));
    }

    /// For whoever asks while it holds: nobody was asked.
    pub(super) fn status_of_hit(&self, now: UnixMillis) -> CacheStatus {
        CacheStatus {
            hit: true,
            ttl: self.fresh_until.map(|until| seconds(until, now)),
            ..CacheStatus::default()
        }
    }

    /// What the merged document is named by.
    pub(super) fn named(
        &self,
        owner: &RepositoryName,
        rules_epoch: u64,
        format: &dyn Format,
        form: &'static str,
        base: &LinkBase,
        persist: bool,
    ) -> Named {
        Named {
            repository: owner.clone(),
            sources: self.parts.iter().map(|part| part.digest.clone()).collect(),
            source_urls: std::iter::once(&self.shape)
                .chain(self.parts.iter().flat_map(|part| &part.depends_on))
                .cloned()
                .collect(),
            rewriter_version: format.profile().rewriter_version,
            link_base: base.0.clone(),
            form,
            rules_epoch,
            visibility: self.visibility.clone(),
            persist,
        }
    }

    /// About how much memory it takes.
    pub(super) fn weight(&self) -> usize {
        let of_part = |part: &Part| {
            160 + part
                .depends_on
                .iter()
                .map(|text| text.len() + 24)
                .sum::<usize>()
        };
        512 + self.shape.len()
            + self.parts.iter().map(of_part).sum::<usize>()
            + self.depends_on.len() * size_of::<Dependency>()
    }
}

impl Part {
    fn of(given: &Given) -> Option<Self> {
        let Contribution {
            wanted, settled, ..
        } = given.document.as_ref().ok()?;
        let repository = &given.leaf.entry.repository;
        let mut depends_on = vec![
            repository.name.to_string(),
            repository.rules_epoch.to_string(),
        ];
        depends_on.extend(source_urls(wanted, &settled.record));
        Some(Self {
            digest: settled.record.blob()?.digest.clone(),
            depends_on,
        })
    }
}

/// The first full second after a moment.
fn second_after(moment: UnixMillis) -> UnixMillis {
    UnixMillis((moment.0.div_euclid(1000) + 1).saturating_mul(1000))
}

fn seconds(until: UnixMillis, now: UnixMillis) -> i64 {
    i64::try_from(until.since(now).as_secs()).unwrap_or(i64::MAX)
}

/// What the members' quarantine takes out of a merge. Which versions these are is found out where the indexes are read; here stands all
/// that decides it: whose index, the moment, and when larder first had the index.
fn visibility(given: &[Given], now: UnixMillis) -> Visibility {
    let decided = given.iter().filter_map(|one| {
        let repository = &one.leaf.entry.repository;
        if !repository.quarantine.hides_in_merges() {
            return None;
        }
        let record = &one.document.as_ref().ok()?.settled.record;
        let (name, moment) = (&repository.name, step_of(now).0);
        let first_seen_at = record.first_seen_at.0;
        Some(format!("{name} as of {moment}, first seen {first_seen_at}"))
    });
    Visibility::hiding(decided.collect(), Some(step_of(now).plus(HELD_STEP)))
}

/// The moment that quarantine is judged by: the same for all merges of ten minutes.
pub(super) fn step_of(now: UnixMillis) -> UnixMillis {
    let step = i64::try_from(HELD_STEP.as_millis()).unwrap_or(i64::MAX);
    UnixMillis(now.0 - now.0.rem_euclid(step))
}

//! The merged document as a derivation: what it is made of, how long it holds, and how it is made.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use larder_core::{
    CacheStatus, Dates, Digest, Fault, Mutability, RepositoryName, Source, UnixMillis, Verdict,
    fresh_until,
};
use larder_formats::{Format, LinkBase, Links, Malformed, MergeMember};

use super::Epoch;
use super::Virtual;
use super::members::{Contribution, Given, Leaf, reserved_for};
use crate::causes::warn_once;
use crate::document::derive::{Made, tell_left_out};
use crate::document::load::DocumentSource;
use crate::document::marking::Marking;
use crate::document::named::{Named, source_urls};
use crate::fault::{internal, malformed};
use crate::policy::ruling::{Facts, judge_admitted};
use crate::policy::visibility::Visibility;

/// A merge that lacks a member, or that has a copy in the place of one that failed, holds no longer than this.
const INCOMPLETE: Duration = Duration::from_secs(30);
/// What quarantine holds back is looked at anew this often.
const HELD_STEP: Duration = Duration::from_mins(10);

/// What a merged document is made of, and how long it holds. Keeps no file open, and no document in memory.
#[derive(Debug)]
pub(super) struct Assembled {
    /// Of each member that is in it: its name, the digest of its document, and all else that its part depends on.
    parts: Vec<Part>,
    /// What quarantine takes out of it.
    pub(super) visibility: Visibility,
    /// The members that are not.
    pub(super) skipped: Vec<RepositoryName>,
    /// `None` = for ever.
    pub(super) fresh_until: Option<UnixMillis>,
    /// When the least recent of the members was heard of.
    pub(super) contacted_at: UnixMillis,
    /// When larder began to serve this body.
    pub(super) served_since: UnixMillis,
    /// Of the virtual repository and of all members.
    pub(super) epochs: Vec<Epoch>,
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
    /// From what the members gave. `before` is what the last merge was made of.
    pub(super) fn new(
        engine: &Virtual,
        given: &[Given],
        epochs: Vec<Epoch>,
        before: Option<&Self>,
    ) -> Self {
        let now = engine.now();
        let (mut parts, mut skipped) = (Vec::new(), Vec::new());
        let mut until: Option<UnixMillis> = None;
        let mut limit = |at: UnixMillis| until = Some(until.map_or(at, |until| until.min(at)));
        let (mut contacted_at, mut source) = (now, Source::Cache);
        let mut forwarded = None;
        for one in given {
            let Ok(Contribution {
                wanted,
                settled,
                stands_in,
            }) = &one.document
            else {
                skipped.push(one.leaf.entry.repository.name.clone());
                limit(now.plus(INCOMPLETE));
                continue;
            };
            let repository = &wanted.entry.repository;
            let expires = fresh_until(
                &settled.record,
                wanted.class_of(&settled.record),
                &repository.cache,
            );
            match expires {
                _ if *stands_in || !settled.reusable => limit(now.plus(INCOMPLETE)),
                Some(at) => limit(at),
                None => {}
            }
            contacted_at = contacted_at.min(settled.record.said_at());
            if settled.source == Source::Remote {
                source = Source::Remote;
            }
            if settled.status.forward.is_some() {
                forwarded.get_or_insert(settled.status);
            }
            parts.extend(Part::of(one, given));
        }
        let visibility = visibility(given, now);
        let until = visibility.bound(until);
        let served_since = before
            .filter(|before| before.parts == parts && before.visibility == visibility)
            .map_or(now, |before| before.served_since);
        let status = forwarded.unwrap_or(CacheStatus {
            hit: true,
            ttl: until.map(|until| seconds(until, now)),
            ..CacheStatus::default()
        });
        Self {
            parts,
            visibility,
            skipped,
            fresh_until: until,
            contacted_at,
            served_since,
            epochs,
            status,
            source,
        }
    }

    /// Whether it still holds: no member has another document, and none has expired.
    pub(super) fn is_good(&self, now: UnixMillis) -> bool {
        self.fresh_until.is_none_or(|until| now < until)
            && self
                .epochs
                .iter()
                .all(|(epoch, value)| epoch.load(std::sync::atomic::Ordering::Acquire) == *value)
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
            source_urls: self
                .parts
                .iter()
                .flat_map(|part| part.depends_on.iter().cloned())
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
        512 + self.parts.iter().map(of_part).sum::<usize>() + self.epochs.len() * 16
    }
}

impl Part {
    fn of(given: &Given, all: &[Given]) -> Option<Self> {
        let Contribution {
            wanted, settled, ..
        } = given.document.as_ref().ok()?;
        let repository = &given.leaf.entry.repository;
        let mut depends_on = vec![
            repository.name.to_string(),
            repository.rules_epoch.to_string(),
            given.leaf.owns_names.to_string(),
        ];
        depends_on.extend(source_urls(wanted, &settled.record));
        for other in all {
            let whose = other.leaf.entry.repository.name.as_str();
            let globs = other.leaf.reserved_globs();
            depends_on.extend(globs.map(|glob| format!("reserved for {whose}: {glob}")));
        }
        Some(Self {
            digest: settled.record.blob()?.digest.clone(),
            depends_on,
        })
    }
}

fn seconds(until: UnixMillis, now: UnixMillis) -> i64 {
    i64::try_from(until.since(now).as_secs()).unwrap_or(i64::MAX)
}

/// What the members' quarantine takes out of a merge. Which versions these are is found out where the indexes are read; here stands all
/// that decides it: whose index, the moment, and when larder first had the index.
fn visibility(given: &[Given], now: UnixMillis) -> Visibility {
    let decided = given.iter().filter_map(|one| {
        let repository = &one.leaf.entry.repository;
        repository.quarantine.hold?;
        let record = &one.document.as_ref().ok()?.settled.record;
        let (name, moment) = (&repository.name, step_of(now).0);
        let first_seen_at = record.first_seen_at.0;
        Some(format!("{name} as of {moment}, first seen {first_seen_at}"))
    });
    Visibility::hiding(decided.collect(), Some(step_of(now).plus(HELD_STEP)))
}

/// The moment that quarantine is judged by: the same for all merges of ten minutes.
fn step_of(now: UnixMillis) -> UnixMillis {
    let step = i64::try_from(HELD_STEP.as_millis()).unwrap_or(i64::MAX);
    UnixMillis(now.0 - now.0.rem_euclid(step))
}

/// One member's part of a merge, ready for the parser.
struct Input {
    document: Arc<crate::loaded::LoadedDocument>,
    leaf: Leaf,
    base: LinkBase,
    /// When larder first had the document.
    first_seen_at: UnixMillis,
    /// All members.
    leaves: Arc<[Leaf]>,
}

impl Input {
    /// How links of this member are written.
    fn links<'a>(&'a self, engine: &'a Virtual) -> Links<'a> {
        let query = self.document.wanted().spec.query.as_deref();
        let (repository, key) = (&self.leaf.entry.repository, &engine.registry.link_key);
        Links::new(repository, key, self.base.clone()).asked_with(query)
    }

    fn is_anothers(&self, name: &str) -> bool {
        reserved_for(&self.leaves, &self.leaf, name).is_some()
    }

    /// A version is dated by what the index says of it; where that says nothing, larder first saw it when it first had the index.
    fn is_held(&self, created: Option<UnixMillis>, now: UnixMillis) -> bool {
        let dates = Dates {
            stated: None,
            last_modified: created,
            first_seen_at: created.map_or(self.first_seen_at, |_| now),
        };
        let repository = &self.leaf.entry.repository;
        judge_admitted(repository, Mutability::Immutable, &Facts { dates, now })
            .is_some_and(|ruling| ruling.verdict != Verdict::Clear)
    }
}

/// Makes the merged document of what the members gave. A member whose document cannot be read is written into `unusable`, and the merge
/// is to be made without it.
pub(super) async fn make(
    engine: &Arc<Virtual>,
    given: &[Given],
    form: &'static str,
    base_of: impl Fn(&Leaf) -> LinkBase,
    marking: Option<Marking>,
    unusable: &Arc<OnceLock<(RepositoryName, Malformed)>>,
) -> Result<Made, Fault> {
    let sources: Vec<(DocumentSource, Leaf, LinkBase, UnixMillis)> = given
        .iter()
        .filter_map(|one| {
            let Contribution {
                wanted, settled, ..
            } = one.document.as_ref().ok()?;
            let source = DocumentSource::settled(wanted, settled);
            let base = base_of(&one.leaf);
            Some((source, one.leaf.clone(), base, settled.record.first_seen_at))
        })
        .collect();
    let leaves: Arc<[Leaf]> = given.iter().map(|one| one.leaf.clone()).collect();
    let (of, unusable) = (Arc::clone(engine), Arc::clone(unusable));
    // Whoever waits for the merge is one of them: it is made on account of the first.
    let owner = sources
        .first()
        .map(|(source, ..)| source.repository().clone());
    let owner = owner.ok_or_else(|| internal("nothing to merge"))?;
    let bytes = sources.iter().map(|(source, ..)| source.length()).sum();
    let merged = engine.documents.parse_blocking(&owner, bytes, move || {
        let mut inputs = Vec::with_capacity(sources.len());
        for (source, leaf, base, first_seen_at) in sources {
            inputs.push(Input {
                document: source.load()?,
                base,
                first_seen_at,
                leaf,
                leaves: Arc::clone(&leaves),
            });
        }
        let Some(first) = inputs.first() else {
            return Err(internal("nothing to merge"));
        };
        let (body, content_type) = merge(&of, &inputs, form, &unusable)
            .map_err(|error| malformed(first.document.wanted(), &error))?;
        let body = body.into();
        Ok(of.documents.made(body, content_type, marking.as_ref()))
    });
    merged.await?
}

fn merge(
    engine: &Virtual,
    inputs: &[Input],
    form: &'static str,
    unusable: &OnceLock<(RepositoryName, Malformed)>,
) -> Result<(Vec<u8>, String), Malformed> {
    let now = step_of(engine.now());
    let links: Vec<Links<'_>> = inputs.iter().map(|input| input.links(engine)).collect();
    let held: Vec<_> = inputs
        .iter()
        .map(|input| move |created| input.is_held(created, now))
        .collect();
    let anothers: Vec<_> = inputs
        .iter()
        .map(|input| move |name: &str| input.is_anothers(name))
        .collect();
    let members: Vec<MergeMember<'_>> = inputs
        .iter()
        .zip(&links)
        .zip(held.iter().zip(&anothers))
        .map(|((input, links), (is_held, is_anothers))| MergeMember {
            document: input.document.view(),
            links,
            owns_names: input.leaf.owns_names,
            is_anothers: Some(is_anothers),
            is_held: input
                .leaf
                .entry
                .repository
                .quarantine
                .hold
                .is_some()
                .then_some(is_held as &dyn Fn(Option<UnixMillis>) -> bool),
        })
        .collect();
    let Some(format) = inputs.first().map(|input| input.document.wanted().format) else {
        return Err(Malformed("there is nothing to merge".to_owned()));
    };
    let merged = format.merge(&members, form).unwrap_or_else(|| {
        let malformed = Malformed(format!("there is no merged form {form:?}"));
        Err(larder_formats::MergeFault {
            member: usize::MAX,
            malformed,
        })
    });
    let merged = merged.map_err(|fault| {
        if let Some(input) = inputs.get(fault.member) {
            let name = input.leaf.entry.repository.name.clone();
            let _ = unusable.set((name, fault.malformed.clone()));
        }
        fault.malformed
    })?;
    for (input, links) in inputs.iter().zip(&links) {
        tell_left_out(input.document.wanted(), links.left_out());
    }
    warn_of(inputs, &merged.remarks);
    Ok((merged.derived.body, merged.derived.content_type.to_owned()))
}

/// Tells the operator what of the members is not in the merged document, by the member's place among them.
fn warn_of(inputs: &[Input], remarks: &[(usize, String)]) {
    for (member, remark) in remarks {
        if let Some(input) = inputs.get(*member) {
            let wanted = input.document.wanted();
            warn_once!(
                wanted,
                "merge_left_out",
                "entries of this index are not in the merged one",
                remark = remark.as_str()
            );
        }
    }
}

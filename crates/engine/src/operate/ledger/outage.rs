//! What nobody would get if an upstream were away from now on. How the share is made is said in docs/operate/history.md.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use larder_core::{
    ErrorCode, Fault, FaultKind, RepositoryKind, SourceKey, UnixMillis, stale_allowed,
};
use larder_storage::{AskedRow, StorageError};

use super::figures::Span;
use crate::catalog::NotHeld;
use crate::keys;
use crate::operate::operator::{Operator, storage_unavailable};
use crate::policy::admission;
use crate::repositories::RepositoryState;

/// Expired documents that are looked at.
const EXPIRED: u32 = 1_000;
/// The word for those that are held and too old to be served.
const TOO_OLD: &str = "too_old";

/// What would be answered if a repository's upstream were away.
#[derive(Debug, Clone, PartialEq)]
pub struct Outage {
    /// The repository's name.
    pub repository: String,
    /// Requests are counted from here on.
    pub since: UnixMillis,
    /// Requests of that time.
    pub requests: u64,
    /// Of them those for paths that would not be answered.
    pub missing_requests: u64,
    /// Which part would be answered, from 0 to 1; `None`: nothing was asked for.
    pub share: Option<f64>,
    /// How many paths would not be answered.
    pub missing_paths: u64,
    /// Some of them, those first that were asked for most.
    pub missing: Vec<MissingPath>,
    /// Where the next page begins; `None`: there is none.
    pub next: Option<String>,
}

/// A path that was asked for and would not be answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MissingPath {
    /// The repository whose upstream has it: of a virtual one's list a member.
    pub repository: String,
    /// The path below the repository, decoded.
    pub path: String,
    /// How often it was asked for while it was not held; 0: that was not counted.
    pub requests: u64,
    /// When it was asked for last, as far as is known.
    pub last_asked: UnixMillis,
    /// Whether every client that asked for it had a query, which is part of what it is kept under. Queries may be secrets: none is told.
    pub has_query: bool,
    /// Why it is not to be had, in a word: `not_kept` (served and not kept), `absent` (the upstream said that it is not there), `failed` (it
    /// could not be had), `passed_through` (the format keeps no such thing), `evicted`, `flushed`, `too_old` (held, and older than
    /// `stale.max_age` allows).
    pub why: String,
}

impl MissingPath {
    /// Without what is known of its requests.
    fn of_key(entry: &RepositoryState, (path, variant): (&str, &str)) -> Self {
        let own = keys::path_of(path, variant);
        Self {
            repository: entry.repository.name.to_string(),
            path: own.to_owned(),
            has_query: own.len() < path.len(),
            ..Self::default()
        }
    }

    fn rank(&self) -> (Reverse<u64>, Reverse<UnixMillis>, &str, &str) {
        let often = Reverse(self.requests);
        (
            often,
            Reverse(self.last_asked),
            &self.repository,
            &self.path,
        )
    }

    /// Where a page that begins behind it begins.
    pub fn place(&self) -> String {
        let (requests, at) = (self.requests, self.last_asked.0);
        format!("{requests}-{at}-{}/{}", self.repository, self.path)
    }

    /// What stands at such a place.
    fn at(place: &str) -> Option<Self> {
        let mut parts = place.splitn(3, '-');
        Some(Self {
            requests: parts.next()?.parse().ok()?,
            last_asked: UnixMillis(parts.next()?.parse().ok()?),
            ..parts
                .next()?
                .split_once('/')
                .map(|(repository, path)| Self {
                    repository: repository.to_owned(),
                    path: path.to_owned(),
                    ..Self::default()
                })?
        })
    }
}

/// Of a repository that was asked so often, with a page: of a virtual one `holders` are its members.
pub(super) async fn of(
    operator: &Operator,
    (entry, holders): (&RepositoryState, &[Arc<RepositoryState>]),
    requests: u64,
    (after, limit): (Option<&str>, u32),
) -> Result<Outage, Fault> {
    let name = &entry.repository.name;
    let is_remote = |one: &&Arc<RepositoryState>| one.repository.kind() == RepositoryKind::Remote;
    let remotes: Vec<_> = holders.iter().filter(is_remote).collect();
    if remotes.is_empty() {
        let message = format!(
            "{name} has no upstream of its own: an outage is one of a remote repository's upstream"
        );
        return Err(bad(message).in_repository(name));
    }
    let after = match after {
        None => None,
        Some(place) => Some(MissingPath::at(place).ok_or_else(|| {
            bad("\"after\" is not the end of a page of this list".to_owned()).in_repository(name)
        })?),
    };
    let since = Span::Month.first_of(operator.catalog.now());
    let failed = |error: StorageError| storage_unavailable(&error);
    let mut all = Vec::new();
    for remote in remotes {
        all.extend(missing(operator, remote, since).await.map_err(failed)?);
    }
    let mut missing = all;
    missing.sort_by(|one, other| one.rank().cmp(&other.rank()));
    let missing_requests: u64 = missing.iter().map(|path| path.requests).sum();
    // Virtual repositories ask, too, and are not counted here as requests.
    let of = requests.max(missing_requests);
    let is_behind = |path: &MissingPath| match &after {
        Some(after) => path.rank() > after.rank(),
        None => true,
    };
    let missing_paths = missing.len() as u64;
    let limit = limit.max(1) as usize;
    let mut page: Vec<MissingPath> = missing
        .into_iter()
        .filter(is_behind)
        .take(limit + 1)
        .collect();
    let has_more = page.len() > limit;
    page.truncate(limit);
    Ok(Outage {
        repository: name.to_string(),
        since,
        requests: of,
        missing_requests,
        share: (of > 0).then(|| (of - missing_requests) as f64 / of as f64),
        missing_paths,
        next: page.last().filter(|_| has_more).map(MissingPath::place),
        missing: page,
    })
}

/// What would not be answered, each path once.
async fn missing(
    operator: &Operator,
    entry: &Arc<RepositoryState>,
    since: UnixMillis,
) -> Result<Vec<MissingPath>, StorageError> {
    let now = operator.catalog.now();
    let name = &entry.repository.name;
    let asked = operator.catalog.asked(name, since).await?;
    let mut all: HashMap<String, MissingPath> = HashMap::new();
    for row in asked {
        let of_present = keys::is_of_present_upstream(entry, &row.variant);
        if !of_present || is_answered(entry, &row, now) {
            continue;
        }
        // What is not there in this form is seldom there in another one that would do.
        let is_absent = row.why == NotHeld::Absent.as_str();
        if !is_absent && is_lent(operator, entry, (&row.path, &row.variant)).await {
            continue;
        }
        let requests = within(&row, since, now);
        let found = MissingPath::of_key(entry, (&row.path, &row.variant));
        let found = MissingPath {
            requests,
            last_asked: row.last_at,
            why: row.why,
            ..found
        };
        add(&mut all, found);
    }
    for found in too_old(operator, entry, since).await? {
        add(&mut all, found);
    }
    Ok(all.into_values().collect())
}

fn add(all: &mut HashMap<String, MissingPath>, found: MissingPath) {
    match all.get_mut(&found.path) {
        Some(known) => {
            known.requests += found.requests;
            known.last_asked = known.last_asked.max(found.last_asked);
            known.has_query &= found.has_query;
        }
        None => {
            all.insert(found.path.clone(), found);
        }
    }
}

/// Whether it is answered though it has no bytes of its own: a name whose content is held by its digest.
fn is_answered(entry: &RepositoryState, row: &AskedRow, now: UnixMillis) -> bool {
    let record = row.record.as_ref();
    record.is_some_and(|record| stale_allowed(record, &entry.repository.cache, now))
}

/// Whether another form of the same path is held, and given to whoever asks for this one.
async fn is_lent(
    operator: &Operator,
    entry: &Arc<RepositoryState>,
    (path, variant): (&str, &str),
) -> bool {
    if keys::format_variant(variant).is_empty() {
        return false;
    }
    let wanted = admission::named_file(entry, entry.format, path);
    match wanted.and_then(|wanted| wanted.as_variant(variant)) {
        Some(wanted) => operator.remote.copies.stand_in(&wanted).await.is_some(),
        None => false,
    }
}

/// How often it was asked for in the time that is looked at: if it is known for longer, the part of it that falls into that time.
fn within(row: &AskedRow, since: UnixMillis, now: UnixMillis) -> u64 {
    let (known, looked_at) = (now.since(row.first_at), now.since(since));
    if known <= looked_at {
        return row.requests;
    }
    let part = looked_at.as_secs_f64() / known.as_secs_f64();
    ((row.requests as f64 * part).round() as u64).max(1)
}

/// Documents that are held, and older than an expired one may be.
async fn too_old(
    operator: &Operator,
    entry: &Arc<RepositoryState>,
    since: UnixMillis,
) -> Result<Vec<MissingPath>, StorageError> {
    let catalog = &operator.catalog;
    let policy = &entry.repository.cache;
    if policy.stale_max_age.is_none() {
        return Ok(Vec::new());
    }
    let (name, now) = (&entry.repository.name, catalog.now());
    let mut found = Vec::new();
    for row in catalog.expired(name, now, EXPIRED).await? {
        let (path, variant) = row.key;
        let key = SourceKey {
            repository: name.clone(),
            path: path.into(),
            variant: variant.into(),
        };
        if !keys::is_of_present_upstream(entry, &key.variant) {
            continue;
        }
        let Some(record) = catalog.record(&key).await? else {
            continue;
        };
        let last_asked = row.used_at.max(record.contacted_at);
        let key = (&*key.path, &*key.variant);
        if last_asked < since || stale_allowed(&record, policy, now) {
            continue;
        }
        if !is_lent(operator, entry, key).await {
            found.push(MissingPath {
                last_asked,
                why: TOO_OLD.to_owned(),
                ..MissingPath::of_key(entry, key)
            });
        }
    }
    Ok(found)
}

fn bad(message: String) -> Fault {
    Fault::new(FaultKind::BadRequest, ErrorCode::BadRequest, message).by_rule("outage")
}

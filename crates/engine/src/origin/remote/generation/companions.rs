//! The files around a document that heads a generation: fetched with it, served as of its generation.

use std::sync::Arc;

use futures_util::future::join_all;
use larder_core::{ArtifactRecord, Content, Fault, FaultKind, Recovery, fresh_until};
use larder_formats::{Companion, Generation};
use tokio::time::Instant;
use url::Url;

use crate::catalog::RecordChange;
use crate::claim::StoredClaim;
use crate::fault::{Remembered, negative_fault};
use crate::origin::remote::Remote;
use crate::origin::remote::patience::Waited;
use crate::origin::remote::settle::negative;
use crate::policy::admission;
use crate::target::Target;
use crate::transfer::flight::{Effort, Flight, Ready, Settled};

/// A generation whose document has expired for longer than this is refreshed when one of its other files is asked for.
const LEFT_BEHIND: std::time::Duration = std::time::Duration::from_secs(60);

/// A file that is exchanged together with its document.
pub(crate) type Member = (Arc<Target>, RecordChange);

/// Why a generation should not be exchanged for the one before yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Incomplete {
    /// Files of it are missing, or are not what the document states: it may be in the middle of being published.
    MissingFiles,
    /// The one before had a signature, and this one has none, or the same.
    Unsigned,
    /// Nobody answers, or not in time.
    Unreachable,
}

/// What stands around a document.
#[derive(Debug, Default)]
pub(crate) struct Companions {
    pub(crate) members: Vec<Member>,
    /// Whether a companion was found.
    pub(crate) signed: bool,
    pub(crate) incomplete: Option<Incomplete>,
}

/// What came of fetching one file.
enum MemberFetch {
    /// It is there already, or on its way to the store by itself.
    There,
    /// It arrived and is to be exchanged together with the document.
    Came(Member),
    /// The upstream does not have it.
    Missing(Member),
    /// It has other bytes than the document states.
    Wrong,
    Unreachable,
    /// An answer that says nothing of the file.
    Refused,
}

impl Remote {
    /// Fetches the companions of a document and the essential files that it names. `before` is the document of another
    /// generation that this one would replace.
    pub(crate) async fn fetch_members(
        self: &Arc<Self>,
        wanted: &Arc<Target>,
        generation: &Generation,
        settled: &Settled,
        before: Option<&Arc<ArtifactRecord>>,
        until: Instant,
    ) -> Companions {
        let is_other = before.is_some();
        let companions = join_all(
            generation
                .companions
                .iter()
                .map(|companion| self.companion(wanted, companion, settled, is_other)),
        );
        let files = tokio::time::timeout_at(until, self.essential_files(wanted, settled));
        let (companions, files) = tokio::join!(companions, files);
        let mut around = Companions::default();
        for (fetched, had_one, same) in companions {
            match fetched {
                MemberFetch::Came(member) => {
                    around.signed = true;
                    if is_other && same {
                        around.incomplete = Some(Incomplete::Unsigned);
                    }
                    around.members.push(member);
                }
                MemberFetch::Missing(member) => {
                    if had_one {
                        around.incomplete = Some(Incomplete::Unsigned);
                    }
                    around.members.push(member);
                }
                MemberFetch::Unreachable if had_one => {
                    around.incomplete = Some(Incomplete::Unreachable);
                }
                // Some stores refuse what they do not have.
                MemberFetch::Unreachable
                | MemberFetch::There
                | MemberFetch::Wrong
                | MemberFetch::Refused => {}
            }
        }
        let Ok(files) = files else {
            return Companions {
                incomplete: Some(Incomplete::Unreachable),
                ..around
            };
        };
        for file in files {
            match file {
                MemberFetch::There | MemberFetch::Refused => {}
                MemberFetch::Came(member) => around.members.push(member),
                MemberFetch::Missing(_) | MemberFetch::Wrong => {
                    around.incomplete = around.incomplete.or(Some(Incomplete::MissingFiles));
                }
                MemberFetch::Unreachable => {
                    around.incomplete = Some(Incomplete::Unreachable);
                }
            }
        }
        around
    }

    /// A companion; whether there was a signature before, and whether it is the same.
    async fn companion(
        self: &Arc<Self>,
        document: &Arc<Target>,
        Companion { source, signs }: &Companion,
        settled: &Settled,
        is_other: bool,
    ) -> (MemberFetch, bool, bool) {
        let Some(member) =
            admission::document(document, document.with_client_encoding(source.clone()))
        else {
            return (MemberFetch::Refused, false, false);
        };
        let held = self.catalog.record(&member.key).await.ok().flatten();
        let had_one = held.as_ref().is_some_and(|record| record.blob().is_some());
        if let Some(held) = held.as_ref().filter(|_| had_one && !is_other) {
            return (
                MemberFetch::Came((Arc::new(member), renewed(held, &settled.record))),
                had_one && *signs,
                false,
            );
        }
        let url = beside(
            &settled.record.source_url,
            &document.spec.path,
            &source.path,
        );
        let claim = StoredClaim {
            url,
            size: None,
            published_at: None,
            digests: Vec::new(),
            identity: None,
        };
        let fetched = self
            .member(Arc::new(member.stating(claim)), held.clone(), settled)
            .await;
        let same = match (&fetched, &held) {
            (MemberFetch::Came((_, RecordChange::Store { record, .. })), Some(held)) => {
                record.blob() == held.blob()
            }
            _ => false,
        };
        (fetched, had_one && *signs, same && *signs)
    }

    /// The files that clients of this generation ask for as a matter of course.
    async fn essential_files(
        self: &Arc<Self>,
        document: &Arc<Target>,
        settled: &Settled,
    ) -> Vec<MemberFetch> {
        let Ok(table) = self.documents.arrived_claims(document, settled).await else {
            return Vec::new();
        };
        let essential = |(path, _): &(&str, StoredClaim)| {
            document.facts_of(path).is_essential() && *path != document.spec.key_path
        };
        let files = table
            .iter()
            .filter(essential)
            .map(|(path, claim)| self.essential_file(document, path, claim, settled));
        join_all(files).await
    }

    async fn essential_file(
        self: &Arc<Self>,
        document: &Arc<Target>,
        path: &str,
        claim: StoredClaim,
        settled: &Settled,
    ) -> MemberFetch {
        let Some(file) = admission::named_file(&document.entry, document.format, path) else {
            return MemberFetch::Refused;
        };
        let file = file.spelt_as(document);
        let held = self.catalog.record(&file.key).await.ok().flatten();
        let named_by_digest = file.facts.digest.is_some();
        let stated = claim.stated();
        if let Some((held, blob)) = held.as_ref().and_then(|held| Some((held, held.blob()?))) {
            let right = match (&stated, named_by_digest) {
                (_, true) => held.verified,
                (Some(stated), false) => self.documents.blob_is(&file, path, blob, stated).await,
                (None, false) => false,
            };
            match (right, named_by_digest) {
                (true, true) => return MemberFetch::There,
                (true, false) => {
                    return MemberFetch::Came((Arc::new(file), renewed(held, &settled.record)));
                }
                (false, _) => {}
            }
        }
        let file = Arc::new(file.stating(claim));
        if !named_by_digest {
            return self.member(file, held, settled).await;
        }
        // Its name says which generation it is of: it needs no exchange, and may be kept as soon as it is there.
        match self.flight(&file, Effort::IfDue).ready(true).await {
            Ready::Done(Ok(_)) => MemberFetch::There,
            Ready::Done(Err(fault)) => {
                fetched_of(&fault, || (Arc::clone(&file), RecordChange::Drop))
            }
            Ready::Filling(_) => MemberFetch::Unreachable,
        }
    }

    /// Fetches a file that is to be exchanged together with its document.
    async fn member(
        self: &Arc<Self>,
        member: Arc<Target>,
        held: Option<Arc<ArtifactRecord>>,
        settled: &Settled,
    ) -> MemberFetch {
        let flight = Arc::new(Flight::detached(member.key.clone()));
        let prior = held.filter(|record| !matches!(record.content, Content::Negative { .. }));
        match self.fetch(&flight, &member, prior, None, false).await {
            Ok((_, Some(change), _)) => MemberFetch::Came((member, change)),
            Ok((_, None, _)) => MemberFetch::Refused,
            Err((fault, _)) => fetched_of(&fault, || {
                let absent = negative(&member, 404, settled.record.fresh_since);
                (
                    Arc::clone(&member),
                    RecordChange::Renew {
                        record: Arc::new(absent),
                    },
                )
            }),
        }
    }

    /// A companion, or another file of a generation whose name says nothing, is served as of the document that is held:
    /// whoever asks for it has read that document (docs/adr/0023). `None` if this is no such file.
    pub(crate) async fn of_generation(
        self: &Arc<Self>,
        wanted: &Arc<Target>,
        came: Instant,
    ) -> Result<Option<Settled>, Fault> {
        let path = &wanted.spec.key_path;
        let Some(generation) = wanted.member_of() else {
            return Ok(None);
        };
        let is_companion = generation
            .companions
            .iter()
            .any(|companion| companion.source.key_path == *path);
        let document = wanted.with_client_encoding(generation.document);
        let Some(document) = admission::document(wanted, document).map(Arc::new) else {
            return Ok(None);
        };
        let storage = |error| crate::fault::storage_fault(&wanted.entry, &error);
        let held = self.catalog.record(&document.key).await.map_err(storage)?;
        let now = self.now();
        let is_current = held
            .filter(|held| held.blob().is_some())
            .is_some_and(|held| {
                let until = fresh_until(&held, document.class, &document.entry.repository.cache);
                until.is_none_or(|until| now < until.plus(LEFT_BEHIND))
            });
        let mut arrived = None;
        if !is_current {
            let flight = self.flight(&document, Effort::IfDue);
            let until = Self::patience(&document, &flight, came);
            match self.ready_or_copy(&document, &flight, true, until).await {
                Waited::Ready(Ready::Done(Ok(settled))) | Waited::Overdue(settled) => {
                    arrived = Some(settled);
                }
                // Without its document a file stands for itself.
                Waited::Ready(Ready::Done(Err(_)) | Ready::Filling(_)) => return Ok(None),
            }
        }
        let Some(record) = self.catalog.record(&wanted.key).await.map_err(storage)? else {
            return Ok(None);
        };
        if let Content::Negative { status } = record.content {
            return Err(negative_fault(
                wanted,
                Remembered { status, over: None },
                self.now(),
            ));
        }
        let Some(open) = self.catalog.open_held(wanted, &record).await else {
            return Ok(None);
        };
        if is_companion {
            self.readings.note(&document.key, Instant::now());
        }
        let mut settled = self.settled_copy(wanted, record, open, None);
        if let Some(document) = arrived {
            (settled.status, settled.source, settled.reusable) =
                (document.status, document.source, document.reusable);
        }
        Ok(Some(settled))
    }
}

fn fetched_of(fault: &Fault, missing: impl FnOnce() -> Member) -> MemberFetch {
    match (fault.kind, fault.recovery) {
        (FaultKind::Upstream(404 | 410), _) => MemberFetch::Missing(missing()),
        (_, Recovery::Elsewhere) => MemberFetch::Wrong,
        (_, Recovery::Retry | Recovery::Copy | Recovery::RetryOrCopy) => MemberFetch::Unreachable,
        (_, Recovery::Final) => MemberFetch::Refused,
    }
}

/// The member lives as long as its document.
fn renewed(held: &ArtifactRecord, document: &ArtifactRecord) -> RecordChange {
    let record = ArtifactRecord {
        fresh_since: document.fresh_since,
        contacted_at: document.contacted_at,
        ..ArtifactRecord::clone(held)
    };
    RecordChange::Renew {
        record: Arc::new(record),
    }
}

/// The URL of a companion on the server that the document came from, if the document has its own name there; else empty. What a URL
/// with a query leads to is one file, and says nothing of the next.
fn beside(document_url: &str, document_path: &str, companion_path: &str) -> String {
    let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let has_its_name = |url: &Url| url.query().is_none() && name(url.path()) == name(document_path);
    let joined = Url::parse(document_url).ok().filter(has_its_name);
    joined
        .and_then(|url| url.join(&name(companion_path)).ok())
        .map_or_else(String::new, String::from)
}

//! The files around a document that heads a generation, fetched with it.

use std::sync::Arc;

use futures_util::future::join_all;
use larder_core::{ArtifactRecord, Content, Fault, FaultKind, Recovery};
use larder_formats::{Companion, Generation};
use tokio::time::Instant;
use url::Url;

use super::Generations;
use super::member::{Incomplete, Member, Others};
use crate::catalog::RecordChange;
use crate::claim::StoredClaim;
use crate::document::inquiry::Inquiry;
use crate::origin::remote::fetch::Job;
use crate::origin::remote::settle::negative;
use crate::policy::admission;
use crate::target::Target;
use crate::transfer::flight::{Effort, Flight, Ready, Settled};

/// What stands around a document.
#[derive(Debug, Default)]
pub(super) struct Companions {
    pub(super) members: Vec<Member>,
    /// Whether a companion was found.
    pub(super) signed: bool,
    pub(super) incomplete: Option<Incomplete>,
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

impl Companions {
    /// Takes in a companion. `had_one`: there was a signature before; `same`: this is the same, for another document.
    fn take_companion(&mut self, fetched: MemberFetch, had_one: bool, same: bool) {
        match fetched {
            MemberFetch::Came(member) => {
                self.signed = true;
                if same {
                    self.incomplete = Some(Incomplete::Unsigned);
                }
                self.members.push(member);
            }
            MemberFetch::Missing(member) => {
                if had_one {
                    self.incomplete = Some(Incomplete::Unsigned);
                }
                self.members.push(member);
            }
            MemberFetch::Unreachable if had_one => {
                self.incomplete = Some(Incomplete::Unreachable);
            }
            // Some stores refuse what they do not have.
            MemberFetch::Unreachable
            | MemberFetch::There
            | MemberFetch::Wrong
            | MemberFetch::Refused => {}
        }
    }

    /// Takes in a file that the document names.
    fn take_file(&mut self, fetched: MemberFetch) {
        match fetched {
            MemberFetch::There | MemberFetch::Refused => {}
            MemberFetch::Came(member) => self.members.push(member),
            MemberFetch::Missing(_) | MemberFetch::Wrong => {
                self.incomplete = self.incomplete.or(Some(Incomplete::MissingFiles));
            }
            MemberFetch::Unreachable => {
                self.incomplete = Some(Incomplete::Unreachable);
            }
        }
    }
}

impl Generations {
    /// Fetches the companions of a document and the essential files that it names.
    pub(super) async fn fetch_members(
        &self,
        inquiry: &Inquiry,
        (wanted, generation): (&Arc<Target>, &Generation),
        settled: &Settled,
        others: Others,
        until: Instant,
    ) -> Companions {
        let companions = join_all(
            generation
                .companions
                .iter()
                .map(|companion| self.companion(inquiry, wanted, companion, settled, others)),
        );
        let files = tokio::time::timeout_at(
            until,
            self.essential_files(inquiry, wanted, settled, others),
        );
        let (companions, files) = tokio::join!(companions, files);
        let mut around = Companions::default();
        for (fetched, had_one, same) in companions {
            around.take_companion(fetched, had_one, others.is_other && same);
        }
        match files {
            Ok(files) => files.into_iter().for_each(|file| around.take_file(file)),
            Err(_) => around.incomplete = Some(Incomplete::Unreachable),
        }
        around
    }

    /// A companion; whether there was a signature before, and whether it is the same.
    async fn companion(
        &self,
        inquiry: &Inquiry,
        document: &Arc<Target>,
        Companion { source, signs }: &Companion,
        settled: &Settled,
        others: Others,
    ) -> (MemberFetch, bool, bool) {
        let Some(member) =
            admission::document(document, document.with_client_encoding(source.clone()))
        else {
            return (MemberFetch::Refused, false, false);
        };
        let held = self.held_member(&member, others).await;
        let is_absent =
            |held: &Arc<ArtifactRecord>| matches!(held.content, Content::Negative { .. });
        if others.is_exchanged && held.as_ref().is_some_and(is_absent) {
            let missing = absent(&Arc::new(member), settled);
            return (MemberFetch::Missing(missing), false, false);
        }
        let had_one = held.as_ref().is_some_and(|record| record.blob().is_some());
        let is_of_it = !others.is_other || others.is_exchanged;
        if let Some(held) = held.as_ref().filter(|_| had_one && is_of_it) {
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
            packages: Vec::new(),
            names_files: false,
        };
        let fetched = self
            .member(
                inquiry,
                Arc::new(member.stating(claim)),
                held.clone(),
                settled,
            )
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
        &self,
        inquiry: &Inquiry,
        document: &Arc<Target>,
        settled: &Settled,
        others: Others,
    ) -> Vec<MemberFetch> {
        let Ok(table) = self.documents.arrived_claims(document, settled).await else {
            return Vec::new();
        };
        let essential = |(path, _): &(&str, StoredClaim)| {
            document.facts_of(path).is_essential() && *path != document.spec.key_path
        };
        let files = table.iter().filter(essential).map(|(path, claim)| {
            let of = (settled, others);
            self.essential_file(inquiry, document, (path, claim), of)
        });
        join_all(files).await
    }

    async fn essential_file(
        &self,
        inquiry: &Inquiry,
        document: &Arc<Target>,
        (path, claim): (&str, StoredClaim),
        (settled, others): (&Settled, Others),
    ) -> MemberFetch {
        let Some(file) = admission::named_file(&document.entry, document.format, path) else {
            return MemberFetch::Refused;
        };
        let file = file.spelt_as(document);
        let held = self.held_member(&file, others).await;
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
            return self.member(inquiry, file, held, settled).await;
        }
        // Its name says which generation it is of: it needs no exchange, and may be kept as soon as it is there.
        let (flight, _) = Arc::clone(&inquiry.port).launch(&file, Effort::IfDue);
        match flight.ready(true).await {
            Ready::Done(Ok(_)) => MemberFetch::There,
            Ready::Done(Err(fault)) => {
                fetched_of(&fault, || (Arc::clone(&file), RecordChange::Drop))
            }
            Ready::Filling(_) => MemberFetch::Unreachable,
        }
    }

    /// Fetches a file that is to be exchanged together with its document.
    async fn member(
        &self,
        inquiry: &Inquiry,
        member: Arc<Target>,
        held: Option<Arc<ArtifactRecord>>,
        settled: &Settled,
    ) -> MemberFetch {
        let flight = Arc::new(Flight::detached(member.key.clone()));
        let job = Job {
            inquiry,
            flight: &flight,
            wanted: &member,
        };
        let prior = held.filter(|record| !matches!(record.content, Content::Negative { .. }));
        match self.fetcher.fetch(job, prior, None, false).await {
            Ok((_, Some(change), _)) => MemberFetch::Came((member, change)),
            Ok((_, None, _)) => MemberFetch::Refused,
            Err((fault, _)) => fetched_of(&fault, || absent(&member, settled)),
        }
    }

    /// What is held of a file. What another replica has exchanged is not in memory here before its notice has come, and is left to the
    /// exchange to bring there.
    async fn held_member(&self, member: &Target, others: Others) -> Option<Arc<ArtifactRecord>> {
        if others.is_exchanged {
            return self.catalog.stored(&member.key).await;
        }
        self.catalog.known(&member.key).await
    }
}

/// A companion that the upstream does not have: known for as long as its document lives.
fn absent(member: &Arc<Target>, document: &Settled) -> Member {
    let record = Arc::new(negative(member, 404, document.record.fresh_since));
    (Arc::clone(member), RecordChange::Renew { record })
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

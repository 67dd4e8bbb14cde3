//! A request for something in a virtual repository: what all of its answers have in common.

use std::sync::Arc;

use larder_core::{
    AccessDenied, ArtifactPath, BuiltIn, ErrorCode, Fault, FaultKind, Mount, RepositoryName,
};
use larder_formats::Format;

use super::given::{self, Given, Leaf};
use super::state::{Answering, Virtual};
use super::tree::Place;
use crate::answer::Dependency;
use crate::policy::admission::classify;
use crate::policy::denied;
use crate::policy::ruling::judge;
use crate::repositories::RepositoryState;
use crate::target::ArtifactRequest;

/// In front of a member's name, in the links of a merged document that lead below the virtual repository.
pub(super) const MEMBER: &str = "_m/";

/// The member that a path names, and the path there as the client sent it; `None` if it names none.
pub(crate) fn member_and_path(path: &ArtifactPath) -> Option<(&str, &str)> {
    let (member, _) = path.as_str().strip_prefix(MEMBER)?.split_once('/')?;
    // Both spellings have the same segments.
    let own = path.encoded().splitn(3, '/').nth(2)?;
    Some((member, own))
}

/// A request for something in a virtual repository.
pub(super) struct Reading<'e> {
    pub(super) engine: &'e Arc<Virtual>,
    pub(super) port: &'e dyn Answering,
    pub(super) owner: &'e Arc<RepositoryState>,
    pub(super) format: &'static dyn Format,
    pub(super) request: &'e ArtifactRequest<'e>,
    pub(super) leaves: Vec<Leaf>,
    /// The members as they stand within each other.
    pub(super) root: Place,
    /// The virtual repository first, then each of `leaves`. Read before anything else is: what changes meanwhile voids the answer.
    pub(super) depends_on: Vec<Dependency>,
}

impl Reading<'_> {
    /// Where the same client sees a member.
    pub(super) fn mount_of(&self, leaf: &Leaf) -> Mount<'_> {
        given::mount_of(leaf, &self.request.mount)
    }

    /// The members as they stand for a merge of what they gave. What has no place any more has given nothing.
    pub(super) fn standing(&self, given: &mut [Given], index: &str) -> Result<Place, Fault> {
        let known: &[Given] = given;
        let fault_of = |leaf: usize| known.get(leaf)?.document.as_ref().err();
        let (root, out) = self.without_failed(index, &fault_of)?;
        for (leaf, fault) in out {
            if let Some(one) = given.get_mut(leaf).filter(|one| one.document.is_ok()) {
                one.document = Err(fault);
            }
        }
        if given.iter().any(|one| one.document.is_ok()) {
            return Ok(root);
        }
        Err(self.none_left(given))
    }

    /// The members without the virtual ones that have no index to give, because their rules keep it out or because they fail closed; and
    /// the leaves of these that have no other place, each with the reason.
    pub(super) fn without_failed<'f>(
        &self,
        index: &str,
        fault_of: &dyn Fn(usize) -> Option<&'f Fault>,
    ) -> Result<(Place, Vec<(usize, Fault)>), Fault> {
        let mut root = self.root.clone();
        let mut out = prune_unread(&mut root, index);
        let fault_of = |leaf: usize| {
            let kept_out = || out.iter().find(|(of, _)| *of == leaf).map(|(_, why)| why);
            fault_of(leaf).or_else(kept_out)
        };
        let closed = |place: &Place| {
            let leaf = place.closed_by(&|leaf| fault_of(leaf).is_some())?;
            Some(self.closed(place, leaf, fault_of(leaf)?))
        };
        if let Some(fault) = closed(&self.root) {
            return Err(fault);
        }
        let failed = root.prune(&closed);
        out.extend(failed);
        Ok((root, out))
    }

    /// What a virtual repository that fails closed says while a member whose names are its own has given nothing.
    fn closed(&self, place: &Place, leaf: usize, fault: &Fault) -> Fault {
        let name = &place.entry.repository.name;
        let member = self
            .leaves
            .get(leaf)
            .map_or("", |leaf| leaf.entry.repository.name.as_str());
        let message = format!(
            "member {member} of virtual repository {name} is authoritative and has no index to give ({}); without it another \
             member's charts would take the place of its own, which fail_closed: true forbids",
            fault.message
        );
        failed(name, message, "fail_closed")
    }

    pub(super) fn none_left(&self, given: &[Given]) -> Fault {
        let name = &self.owner.repository.name;
        let reasons: Vec<String> = given
            .iter()
            .filter_map(|one| {
                let fault = one.document.as_ref().err()?;
                Some(format!(
                    "{}: {}",
                    one.leaf.entry.repository.name, fault.message
                ))
            })
            .collect();
        let reasons = if reasons.is_empty() {
            "it has no members".to_owned()
        } else {
            reasons.join("; ")
        };
        let message =
            format!("no member of virtual repository {name} has an index to give: {reasons}");
        failed(name, message, "members")
    }

    pub(super) fn nowhere(&self, message: &str) -> Fault {
        Fault::new(FaultKind::NotFound, ErrorCode::NotFound, message)
            .in_repository(&self.owner.repository.name)
            .by_rule("members")
    }
}

/// Where the index stands by which files are somebody's.
pub(super) fn index_of_files(owner: &RepositoryState) -> String {
    let naming = owner.format.naming(&owner.repository, "file");
    let source = naming.document.map(|source| source.path);
    source.unwrap_or_default()
}

/// Takes out the virtual repositories whose rules keep the index out; gives their leaves that have no other place.
pub(super) fn prune_unread(root: &mut Place, index: &str) -> Vec<(usize, Fault)> {
    root.prune(&|place| {
        let denied = refusal(&place.entry, index)?;
        Some(denied::fault(&place.entry, index, &denied))
    })
}

fn failed(name: &RepositoryName, message: String, rule: &'static str) -> Fault {
    Fault::new(
        FaultKind::BadGateway,
        ErrorCode::MembersUnavailable,
        message,
    )
    .in_repository(name)
    .by_rule(rule)
    .briefly(format!(
        "members of virtual repository {name} have no index to give"
    ))
}

/// Whether the rules of a virtual repository let a path of its members through. Who asked for it is told why not, and it is counted.
pub(super) fn check_rules(entry: &RepositoryState, path: &str) -> Result<(), Fault> {
    let (path, built_in) = judged(entry, path);
    classify(entry, &path, built_in).map(drop)
}

/// The same of a path that goes through it on the way to a member: why it does not, if so.
pub(super) fn refusal(entry: &RepositoryState, path: &str) -> Option<AccessDenied> {
    let (path, built_in) = judged(entry, path);
    let ruling = judge(&entry.repository, &path, built_in, None);
    ruling.admitted().err()
}

/// The virtual repository whose rules keep a leaf from having a path, `root` or one within it; `None` if there is a way on which none does.
pub(super) fn denier(root: &Place, leaf: usize, path: &str) -> Option<Arc<RepositoryState>> {
    let admits = |of: &RepositoryState| refusal(of, path).is_none();
    let admitted = root.givers(None, &|_| false, &admits).leaves;
    let mut through = std::iter::once(&root.entry).chain(root.above(leaf));
    let denier = through.find(|of| !admitted.contains(&leaf) && !admits(of));
    denier.cloned()
}

/// What of a path the rules are asked about: of a link to another host, the path there.
fn judged(entry: &RepositoryState, path: &str) -> (String, BuiltIn) {
    let original = path
        .strip_prefix("_ext/")
        .filter(|_| entry.format.profile().links_elsewhere)
        .and_then(|external| external.splitn(3, '/').nth(2));
    let path = original.unwrap_or(path);
    let facts = entry.facts(path);
    (facts.policy_path(path).to_owned(), facts.built_in)
}

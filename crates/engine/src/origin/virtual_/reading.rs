//! A request for something in a virtual repository: what all of its answers have in common.

use std::sync::Arc;

use larder_core::{ErrorCode, Fault, FaultKind, Mount};
use larder_formats::Format;

use super::assembled::Epoch;
use super::given::{self, Given, Leaf};
use super::state::{Answering, Virtual};
use crate::repositories::RepositoryState;
use crate::target::ArtifactRequest;

/// In front of a member's name, in the links of a merged document that lead below the virtual repository.
pub(super) const MEMBER: &str = "_m/";

/// A request for something in a virtual repository.
pub(super) struct Reading<'e> {
    pub(super) engine: &'e Arc<Virtual>,
    pub(super) port: &'e dyn Answering,
    pub(super) owner: &'e Arc<RepositoryState>,
    pub(super) format: &'static dyn Format,
    pub(super) request: &'e ArtifactRequest<'e>,
    pub(super) leaves: Vec<Leaf>,
    /// Read before anything else is: what changes meanwhile voids the answer.
    pub(super) epochs: Vec<Epoch>,
}

impl Reading<'_> {
    /// Where the same client sees a member.
    pub(super) fn mount_of(&self, leaf: &Leaf) -> Mount<'_> {
        given::mount_of(leaf, &self.request.mount)
    }

    /// Whether what the members gave is enough for a merge.
    pub(super) fn check(&self, given: &[Given]) -> Result<(), Fault> {
        self.check_authorities(given)?;
        if given.iter().any(|one| one.document.is_ok()) {
            return Ok(());
        }
        Err(self.none_left(given))
    }

    /// Whether a member whose names are its own has given nothing, although `fail_closed` says that it must.
    pub(super) fn check_authorities(&self, given: &[Given]) -> Result<(), Fault> {
        let fails_closed = self
            .owner
            .repository
            .virtual_settings()
            .is_some_and(|settings| settings.fail_closed);
        let closed = given
            .iter()
            .filter(|_| fails_closed)
            .find(|one| one.leaf.owns_names && one.document.is_err());
        if let Some(Given {
            leaf,
            document: Err(fault),
        }) = closed
        {
            let (name, member) = (&self.owner.repository.name, &leaf.entry.repository.name);
            let message = format!(
                "member {member} of virtual repository {name} is authoritative and has no index to give ({}); without it another \
                 member's charts would take the place of its own, which fail_closed: true forbids",
                fault.message
            );
            return Err(self.failed(message, "fail_closed"));
        }
        Ok(())
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
        self.failed(message, "members")
    }

    fn failed(&self, message: String, rule: &'static str) -> Fault {
        let name = &self.owner.repository.name;
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

    pub(super) fn nowhere(&self, message: &str) -> Fault {
        Fault::new(FaultKind::NotFound, ErrorCode::NotFound, message)
            .in_repository(&self.owner.repository.name)
            .by_rule("members")
    }
}

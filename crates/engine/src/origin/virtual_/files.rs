//! Files below a virtual repository: whose they are, and their answers.

use std::collections::HashSet;
use std::sync::Arc;

use http::Method;
use larder_core::{ArtifactPath, Fault, FaultKind, RepositoryKind};

use super::given::{self, Contribution, Given, Leaf};
use super::members;
use super::reading::{MEMBER, Reading};
use crate::answer::Answer;
use crate::document::load::DocumentSource;
use crate::fault::{internal, malformed};
use crate::policy::admission::{classify, path_fault};
use crate::target::ArtifactRequest;

impl Reading<'_> {
    /// `_m/{member}/{path}`: a link that a merged document has.
    pub(super) async fn of_member(&self, rest: &str) -> Result<Answer, Fault> {
        let name = rest.split('/').next().unwrap_or_default();
        let Some(leaf) = self
            .leaves
            .iter()
            .find(|leaf| leaf.entry.repository.name.as_str() == name)
        else {
            return Err(self.nowhere(&format!(
                "{name:?} is no member of virtual repository {}",
                self.owner.repository.name
            )));
        };
        // The path as it was sent, without what was in front of the member's own.
        let raw = self.request.raw_path.trim_start_matches('/');
        let raw = raw
            .strip_prefix(MEMBER)
            .and_then(|raw| raw.strip_prefix(name))
            .and_then(|raw| raw.strip_prefix('/'))
            .ok_or_else(|| self.nowhere("a member's path is written as it stands in the index"))?;
        self.check_rules(raw)?;
        let path =
            ArtifactPath::parse(raw, self.format.profile().path_rules).map_err(path_fault)?;
        let facts = self.owner.facts(path.as_str());
        if let Some(owner) = self.reserved_for(leaf, facts.policy_path(path.as_str())) {
            return Err(self.nowhere(&format!(
                "names like that of {} are reserved for member {} of virtual repository {}",
                larder_core::shown(path.as_str()),
                owner.entry.repository.name,
                self.owner.repository.name
            )));
        }
        self.from(leaf, raw).await
    }

    /// The member for which the name of a file's package is reserved, if `leaf` is to have no such file.
    fn reserved_for(&self, leaf: &Leaf, path: &str) -> Option<&Leaf> {
        let mut names = self.format.possible_names(path).into_iter();
        names.find_map(|name| given::reserved_for(&self.leaves, leaf, name))
    }

    /// The rules of the virtual repository itself hold for its members' files, too.
    fn check_rules(&self, raw: &str) -> Result<(), Fault> {
        let path = ArtifactPath::parse(raw, self.format.profile().path_rules)
            .map_err(|error| path_fault(error).in_repository(&self.owner.repository.name))?;
        if path.as_str().starts_with("_ext/") {
            return Ok(());
        }
        let facts = self.owner.facts(path.as_str());
        let policy_path = facts.policy_path(path.as_str());
        classify(self.owner, policy_path, facts.built_in).map(drop)
    }

    /// A file: of the member whose index names it; of one that no index names, of the first member that has it.
    pub(super) async fn file(&self, path: &ArtifactPath) -> Result<Answer, Fault> {
        let facts = self.owner.facts(path.as_str());
        let subject = facts.policy_path(path.as_str());
        let owners = self.owners_of(subject).await?;
        let asked = || {
            self.leaves.iter().filter(|leaf| {
                let own = |owner: &&Leaf| owner.entry.repository.name == leaf.entry.repository.name;
                let is_theirs = owners.is_empty() || owners.iter().any(own);
                is_theirs && self.reserved_for(leaf, subject).is_none()
            })
        };
        for leaf in asked() {
            if self.names(leaf, subject).await {
                return self.from(leaf, self.request.raw_path).await;
            }
        }
        let mut failed = None;
        for leaf in asked() {
            match self.from(leaf, self.request.raw_path).await {
                Ok(answer) => return Ok(answer),
                Err(fault) if is_absence(&fault) => {}
                Err(fault) => {
                    failed.get_or_insert(fault);
                }
            }
        }
        Err(failed.unwrap_or_else(|| {
            self.nowhere(&format!(
                "no member of virtual repository {} has {}",
                self.owner.repository.name,
                larder_core::shown(path.as_str())
            ))
        }))
    }

    /// The members whose names are their own and that have the package that a file is of.
    async fn owners_of(&self, path: &str) -> Result<Vec<&Leaf>, Fault> {
        let mut owners = Vec::new();
        for leaf in self.leaves.iter().filter(|leaf| leaf.owns_names) {
            match self.index_of(leaf).await {
                Ok(contribution) => {
                    let names = self.names_in(&contribution).await?;
                    if names.iter().any(|name| self.format.is_named(path, name)) {
                        owners.push(leaf);
                    }
                }
                // Without `fail_closed` it has no names while it has no index.
                Err(fault) => self.check_authorities(&[Given {
                    leaf: leaf.clone(),
                    document: Err(fault),
                }])?,
            }
        }
        Ok(owners)
    }

    async fn index_of(&self, leaf: &Leaf) -> Result<Contribution, Fault> {
        let index = self
            .format
            .naming(&self.owner.repository, "file")
            .document
            .map(|source| source.path)
            .unwrap_or_default();
        let of_index = ArtifactRequest {
            raw_path: &index,
            query: None,
            method: &Method::GET,
            ..self.request.clone()
        };
        members::obtain(self.engine, leaf, &of_index).await
    }

    /// All names in a member's index, read once for its bytes.
    async fn names_in(&self, contribution: &Contribution) -> Result<Arc<HashSet<String>>, Fault> {
        let digest = contribution
            .settled
            .record
            .blob()
            .map(|blob| blob.digest.to_string())
            .unwrap_or_default();
        let read = async {
            let source = DocumentSource::settled(&contribution.wanted, &contribution.settled);
            let (repository, bytes) = (source.repository().clone(), source.length());
            let parse = move || {
                let document = source.load()?;
                let wanted = document.wanted();
                wanted
                    .format
                    .names(&document.view())
                    .map_err(|error| malformed(wanted, &error))
            };
            let documents = &self.engine.documents;
            let names = documents.parse_blocking(&repository, bytes, parse);
            names.await?.map(Arc::new)
        };
        self.engine.names.get_or_insert_async(&digest, read).await
    }

    /// Whether a member's index names a file.
    async fn names(&self, leaf: &Leaf, path: &str) -> bool {
        let Ok(contribution) = self.index_of(leaf).await else {
            return false;
        };
        let table = self
            .engine
            .documents
            .claim_table(&contribution.wanted, &contribution.settled.record)
            .await;
        table.is_ok_and(|table| table.find(path).is_some())
    }

    /// A member's answer. Whatever changes in any of the members may change whose it is.
    async fn from(&self, leaf: &Leaf, raw_path: &str) -> Result<Answer, Fault> {
        if leaf.entry.repository.kind() == RepositoryKind::Virtual {
            return Err(internal("a virtual member was not taken apart"));
        }
        let request = ArtifactRequest {
            repository: leaf.entry.repository.name.as_str(),
            mount: self.mount_of(leaf),
            raw_path,
            ..self.request.clone()
        };
        let mut answer = Box::pin(self.port.answer_member(request)).await?;
        if let Some(hot) = &mut answer.hot {
            hot.others.extend(self.epochs.iter().cloned());
        }
        Ok(answer)
    }
}

/// Whether a member says that it has no such file, or that its rules do not let it have one.
fn is_absence(fault: &Fault) -> bool {
    matches!(
        fault.kind,
        FaultKind::NotFound
            | FaultKind::Forbidden
            | FaultKind::Upstream(404 | 410)
            | FaultKind::NotImplemented
    )
}

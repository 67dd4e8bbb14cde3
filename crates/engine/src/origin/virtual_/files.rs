//! Files below a virtual repository: whose they are, and their answers.

use std::collections::HashMap;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesOrdered;
use http::Method;
use larder_core::{ArtifactPath, Fault, FaultKind, INCOMPLETE, RepositoryKind, UnixMillis};

use super::given::{Contribution, Leaf, earlier};
use super::members;
use super::reading::{Reading, check_rules, denier, index_of_files, member_and_path};
use super::whose::{FileName, Names, Whose, names_in, packages};
use crate::answer::Answer;
use crate::claim::StoredClaim;
use crate::document::load::DocumentSource;
use crate::fault::internal;
use crate::policy::admission::path_fault;
use crate::target::ArtifactRequest;

impl Reading<'_> {
    /// `_m/{member}/{path}`: a link that a merged document has.
    pub(super) async fn of_member(&self, path: &ArtifactPath) -> Result<Answer, Fault> {
        let (name, raw) = member_and_path(path)
            .ok_or_else(|| self.nowhere("a member's path is written as it stands in the index"))?;
        let path = ArtifactPath::parse(raw, self.format.profile().path_rules)
            .map_err(|error| path_fault(error).in_repository(&self.owner.repository.name))?;
        if path.as_str().is_empty() {
            return Err(self.nowhere("a member's path names a file: its root is no file"));
        }
        let (number, leaf) = self.member_with(name, path.as_str())?;
        let until = self.unless_anothers(number, leaf, &path).await?;
        self.from(leaf, raw, until).await
    }

    /// The member of this name, if the rules of the virtual repositories that it is in let it have a file.
    fn member_with(&self, name: &str, path: &str) -> Result<(usize, &Leaf), Fault> {
        let is_named = |(_, leaf): &(usize, &Leaf)| leaf.entry.repository.name.as_str() == name;
        let found = self.leaves.iter().enumerate().find(is_named);
        let (number, leaf) = found.ok_or_else(|| {
            self.nowhere(&format!(
                "{name:?} is no member of virtual repository {}",
                self.owner.repository.name
            ))
        })?;
        if let Some(of) = denier(&self.root, number, path) {
            check_rules(&of, path)?;
        }
        Ok((number, leaf))
    }

    /// That what a member is asked for is no other's, and until when that holds: a link of before is no way around an owner.
    async fn unless_anothers(
        &self,
        number: usize,
        leaf: &Leaf,
        path: &ArtifactPath,
    ) -> Result<Option<UnixMillis>, Fault> {
        if !self.root.has_owners() {
            return Ok(None);
        }
        let (whose, until, failed) = self.whose().await?;
        let file = FileName::of(self.owner, self.request, path);
        let (claim, its_until) = match self.index_of(leaf).await {
            Ok(index) => {
                let until = index.holds_until(self.engine.now());
                (self.claimed(&index, &file).await, until)
            }
            Err(_) => (None, Some(self.engine.now().plus(INCOMPLETE))),
        };
        let packages = packages(self.owner, claim.as_ref(), file.subject);
        match whose.objection(number, &packages, path.as_str()) {
            None => Ok(earlier(until, its_until)),
            Some(why) => Err(failed.unwrap_or_else(|| self.nowhere(&why))),
        }
    }

    /// A file: of the member whose index names it; of one that no index names, of the first member that has it.
    pub(super) async fn file(&self, path: &ArtifactPath) -> Result<Answer, Fault> {
        let file = FileName::of(self.owner, self.request, path);
        let subject = file.subject;
        let (whose, mut until, mut failed) = self.whose().await?;
        let asked = whose.givers(self.format.likely_name(subject), path.as_str());
        let mut unnamed = Vec::new();
        // All at once, so that those that do not answer take the time of one; but the first whose index names it gives it.
        let of = |number: usize| Some((number, self.leaves.get(number)?));
        let mut indexes: FuturesOrdered<_> = asked
            .into_iter()
            .filter_map(of)
            .map(|(number, leaf)| async move { (number, leaf, self.index_of(leaf).await) })
            .collect();
        while let Some((number, leaf, index)) = indexes.next().await {
            let Ok(index) = index else {
                until = earlier(until, Some(self.engine.now().plus(INCOMPLETE)));
                unnamed.push(leaf);
                continue;
            };
            until = earlier(until, index.holds_until(self.engine.now()));
            let Some(claim) = self.claimed(&index, &file).await else {
                unnamed.push(leaf);
                continue;
            };
            let packages = packages(self.owner, Some(&claim), subject);
            // What its own index calls by another's name is nothing that it gives.
            if whose.objection(number, &packages, path.as_str()).is_none() {
                return self.from(leaf, self.request.raw_path, until).await;
            }
        }
        for leaf in unnamed {
            match self.from(leaf, self.request.raw_path, until).await {
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

    /// Whose names are, by the owners' indexes; until when that holds; and why members are not asked that might have a file.
    async fn whose(&self) -> Result<(Whose, Option<UnixMillis>, Option<Fault>), Fault> {
        let read = self.names_of_owners().await;
        let fault_of = |leaf: usize| read.get(&leaf)?.as_ref().err();
        let (root, out) = self.without_failed(&index_of_files(self.owner), &fault_of)?;
        let (mut names, mut until) = (HashMap::new(), None);
        for (leaf, known) in read {
            let holds = match known {
                Ok((known, holds)) => {
                    names.insert(leaf, known);
                    holds
                }
                Err(_) => Some(self.engine.now().plus(INCOMPLETE)),
            };
            until = earlier(until, holds);
        }
        let mut failed = out.into_iter().map(|(_, why)| why);
        let failed = failed.find(|why| !is_absence(why));
        Ok((Whose { root, names }, until, failed))
    }

    /// Of each member whose names decide what others give: the names in its index, and until when these hold; or why it has none.
    async fn names_of_owners(&self) -> HashMap<usize, Result<(Names, Option<UnixMillis>), Fault>> {
        let owners = self.leaves.iter().enumerate();
        let owners = owners.filter(|(_, leaf)| leaf.owns_names);
        let read = owners.map(|(at, leaf)| async move { (at, self.names_of(leaf).await) });
        join_all(read).await.into_iter().collect()
    }

    async fn names_of(&self, leaf: &Leaf) -> Result<(Names, Option<UnixMillis>), Fault> {
        let index = self.index_of(leaf).await?;
        let until = index.holds_until(self.engine.now());
        let source = DocumentSource::settled(&index.wanted, &index.settled);
        let names = names_in(self.engine, &index.settled.record, source).await?;
        Ok((names, until))
    }

    async fn index_of(&self, leaf: &Leaf) -> Result<Contribution, Fault> {
        let index = index_of_files(self.owner);
        let of_index = ArtifactRequest {
            raw_path: &index,
            query: None,
            method: &Method::GET,
            ..self.request.clone()
        };
        members::obtain(self.engine, leaf, &of_index).await
    }

    /// What a member's index says of a file.
    async fn claimed(&self, index: &Contribution, file: &FileName<'_>) -> Option<StoredClaim> {
        let documents = &self.engine.documents;
        // It may have come just now, and not be in the store yet.
        let table = documents.arrived_claims(&index.wanted, &index.settled);
        file.claim_in(&*table.await.ok()?)
    }

    /// A member's answer. Whatever changes in any of the members may change whose it is; what was found out of that holds `until` then.
    async fn from(
        &self,
        leaf: &Leaf,
        raw_path: &str,
        until: Option<UnixMillis>,
    ) -> Result<Answer, Fault> {
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
            hot.others.extend(self.depends_on.iter().cloned());
            hot.whose_until = earlier(hot.whose_until, until);
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

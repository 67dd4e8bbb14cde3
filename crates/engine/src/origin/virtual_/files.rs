//! Files below a virtual repository: whose they are, and their answers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::future::join_all;
use http::Method;
use larder_core::{ArtifactPath, Fault, FaultKind, RepositoryKind, RepositoryName, UnixMillis};

use super::given::{Contribution, INCOMPLETE, Leaf, earlier};
use super::members;
use super::reading::{MEMBER, Reading, check_rules, denier, refusal};
use crate::answer::Answer;
use crate::document::load::DocumentSource;
use crate::fault::{internal, malformed};
use crate::policy::admission::path_fault;
use crate::repositories::RepositoryState;
use crate::target::ArtifactRequest;

/// All names in an index.
type Names = Arc<HashSet<String>>;

impl Reading<'_> {
    /// `_m/{member}/{path}`: a link that a merged document has.
    pub(super) async fn of_member(&self, rest: &str) -> Result<Answer, Fault> {
        let name = rest.split('/').next().unwrap_or_default();
        // The path as it was sent, without what was in front of the member's own.
        let raw = self.request.raw_path.trim_start_matches('/');
        let raw = raw
            .strip_prefix(MEMBER)
            .and_then(|raw| raw.strip_prefix(name))
            .and_then(|raw| raw.strip_prefix('/'))
            .ok_or_else(|| self.nowhere("a member's path is written as it stands in the index"))?;
        let path = ArtifactPath::parse(raw, self.format.profile().path_rules)
            .map_err(|error| path_fault(error).in_repository(&self.owner.repository.name))?;
        let leaf = self.member_with(name, path.as_str())?;
        let until = self.unless_owned(leaf, path.as_str()).await?;
        self.from(leaf, raw, until).await
    }

    /// That no other member owns what `leaf` is asked for, and until when that holds: a link of before is no way around an owner.
    async fn unless_owned(&self, leaf: &Leaf, path: &str) -> Result<Option<UnixMillis>, Fault> {
        if !self.leaves.iter().any(|one| one.owns_names) {
            return Ok(None);
        }
        let subject = self.owner.facts(path);
        let (asked, until, failed) = self.asked(path, subject.policy_path(path)).await?;
        if asked.iter().any(|one| std::ptr::eq(*one, leaf)) {
            return Ok(until);
        }
        Err(failed.unwrap_or_else(|| {
            self.nowhere(&format!(
                "names like that of {} are another member's of virtual repository {}",
                larder_core::shown(path),
                self.owner.repository.name
            ))
        }))
    }

    /// The member of this name, if the virtual repositories that it is in let it have a file: their rules, and what is reserved for others.
    fn member_with(&self, name: &str, path: &str) -> Result<&Leaf, Fault> {
        let is_named = |leaf: &Leaf| leaf.entry.repository.name.as_str() == name;
        let number = self.leaves.iter().position(is_named);
        let Some((number, leaf)) = number.and_then(|at| Some((at, self.leaves.get(at)?))) else {
            return Err(self.nowhere(&format!(
                "{name:?} is no member of virtual repository {}",
                self.owner.repository.name
            )));
        };
        if let Some(of) = denier(&self.root, number, path) {
            check_rules(&of, path)?;
        }
        let admits = |of: &RepositoryState| refusal(of, path).is_none();
        let facts = self.owner.facts(path);
        for name in self.format.possible_names(facts.policy_path(path)) {
            let givers = self.root.givers(Some(name), &|_| false, &admits).leaves;
            if !givers.contains(&number) {
                let owner = self.root.reserver(name);
                return Err(self.nowhere(&format!(
                    "names like that of {} are reserved for member {} of virtual repository {}",
                    larder_core::shown(path),
                    owner.map_or("", RepositoryName::as_str),
                    self.owner.repository.name
                )));
            }
        }
        Ok(leaf)
    }

    /// A file: of the member whose index names it; of one that no index names, of the first member that has it.
    pub(super) async fn file(&self, path: &ArtifactPath) -> Result<Answer, Fault> {
        let facts = self.owner.facts(path.as_str());
        let subject = facts.policy_path(path.as_str());
        let (asked, mut until, mut failed) = self.asked(path.as_str(), subject).await?;
        for leaf in &asked {
            let Ok(index) = self.index_of(leaf).await else {
                until = earlier(until, Some(self.engine.now().plus(INCOMPLETE)));
                continue;
            };
            until = earlier(until, index.holds_until(self.engine.now()));
            if self.names(&index, subject).await {
                return self.from(leaf, self.request.raw_path, until).await;
            }
        }
        for leaf in asked {
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

    /// The members that may have a file, in the order of priority; until when that holds; and why others are not asked that might have it.
    async fn asked(
        &self,
        path: &str,
        subject: &str,
    ) -> Result<(Vec<&Leaf>, Option<UnixMillis>, Option<Fault>), Fault> {
        let owners = self.owners().await;
        let fault_of = |leaf: usize| owners.get(&leaf)?.as_ref().err();
        let (root, out) = self.without_failed(&self.index_path(), &fault_of)?;
        let admits = |of: &RepositoryState| refusal(of, path).is_none();
        let mut asked = root.givers(None, &|_| false, &admits).leaves;
        let mut owned: Option<Vec<usize>> = None;
        for name in self.format.possible_names(subject) {
            let free = root.givers(Some(name), &|_| false, &admits).leaves;
            asked.retain(|leaf| free.contains(leaf));
            let has = |leaf: usize| {
                let known = owners.get(&leaf).and_then(|known| known.as_ref().ok());
                known.is_some_and(|(names, _)| names.contains(name))
            };
            let givers = root.givers(Some(name), &has, &admits);
            if givers.is_owned {
                owned.get_or_insert_default().extend(givers.leaves);
            }
        }
        asked.retain(|leaf| owned.as_ref().is_none_or(|owned| owned.contains(leaf)));
        let now = self.engine.now();
        let until = owners.values().fold(None, |until, known| match known {
            Ok((_, at)) => earlier(until, *at),
            Err(_) => earlier(until, Some(now.plus(INCOMPLETE))),
        });
        let asked = asked.into_iter().filter_map(|leaf| self.leaves.get(leaf));
        let mut failed = out.into_iter().map(|(_, why)| why);
        Ok((asked.collect(), until, failed.find(|why| !is_absence(why))))
    }

    /// Of each member whose names decide what others give: the names in its index, and until when these hold; or why it has none.
    async fn owners(&self) -> HashMap<usize, Result<(Names, Option<UnixMillis>), Fault>> {
        let owners = self.leaves.iter().enumerate();
        let owners = owners.filter(|(_, leaf)| leaf.owns_names);
        let read = owners.map(|(at, leaf)| async move { (at, self.names_of(leaf).await) });
        join_all(read).await.into_iter().collect()
    }

    async fn names_of(&self, leaf: &Leaf) -> Result<(Names, Option<UnixMillis>), Fault> {
        let index = self.index_of(leaf).await?;
        let until = index.holds_until(self.engine.now());
        Ok((self.names_in(&index).await?, until))
    }

    async fn index_of(&self, leaf: &Leaf) -> Result<Contribution, Fault> {
        let index = self.index_path();
        let of_index = ArtifactRequest {
            raw_path: &index,
            query: None,
            method: &Method::GET,
            ..self.request.clone()
        };
        members::obtain(self.engine, leaf, &of_index).await
    }

    /// All names in a member's index, read once for its bytes.
    async fn names_in(&self, contribution: &Contribution) -> Result<Names, Fault> {
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
    async fn names(&self, index: &Contribution, path: &str) -> bool {
        let documents = &self.engine.documents;
        let table = documents.claim_table(&index.wanted, &index.settled.record);
        table.await.is_ok_and(|table| table.find(path).is_some())
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
            hot.others.extend(self.epochs.iter().cloned());
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

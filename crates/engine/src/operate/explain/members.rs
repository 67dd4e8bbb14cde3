//! Which member of a virtual repository answers, and what is said of it.

use std::sync::Arc;

use larder_core::{Access, ArtifactPath, Fault, shown};
use larder_formats::Form;

use super::explainer::{Explainer, Known, blank, parse, refused};
use crate::origin::virtual_;
use crate::policy::admission::consider;
use crate::policy::explain::{self, Explanation, Point, PointValue, key_of};
use crate::policy::ruling::Ruling;
use crate::repositories::RepositoryState;
use crate::target::ArtifactRequest;

impl Explainer {
    pub(super) async fn of_virtual(
        &self,
        owner: &Arc<RepositoryState>,
        request: &ArtifactRequest<'_>,
        path: &ArtifactPath,
    ) -> Result<Explanation, Fault> {
        let members = virtual_::members_of(&self.virtuals, owner);
        let raw = request.raw_path.trim_start_matches('/');
        if let Some((name, raw)) = raw
            .strip_prefix(virtual_::MEMBER)
            .and_then(|rest| rest.split_once('/'))
        {
            let named = members
                .iter()
                .find(|member| member.repository.name.as_str() == name);
            let Some(member) = named else {
                let because = format!("{} is no member of this repository", shown(name));
                let verdict = Point::new("refuse", because.clone()).by(members_key(owner));
                return Ok(Explanation {
                    verdict,
                    member: Point::none(because).by(members_key(owner)),
                    ..blank(owner, path)
                });
            };
            let why = "the path names the member";
            return Ok(self.of_leaf(owner, member, request, raw, why).await?.0);
        }
        if let Some(considered) = consider(&self.registry, owner, request, path)? {
            if let Ruling::Denied(denied) = &considered.ruling {
                return Ok(refused(owner, path, denied));
            }
            if let (Form::Derived(_), Ruling::Admitted { access, .. }) =
                (considered.form, &considered.ruling)
            {
                return Ok(merged(owner, path, *access, &members));
            }
        }
        self.of_a_member(owner, &members, request, path).await
    }

    /// The member that a file is of, as far as what is held tells.
    async fn of_a_member(
        &self,
        owner: &Arc<RepositoryState>,
        members: &[Arc<RepositoryState>],
        request: &ArtifactRequest<'_>,
        path: &ArtifactPath,
    ) -> Result<Explanation, Fault> {
        let mut best: Option<(Explanation, Rank)> = None;
        for member in members {
            let raw = request.raw_path;
            let (made, rank) = self.of_leaf(owner, member, request, raw, "").await?;
            if best.as_ref().is_none_or(|(_, known)| rank > *known) {
                best = Some((made, rank));
            }
        }
        let Some((mut made, rank)) = best else {
            let none = Point::none("the repository has no members").by(members_key(owner));
            return Ok(Explanation {
                verdict: Point::new("refuse", "the repository has no members"),
                member: none,
                ..blank(owner, path)
            });
        };
        let because = match rank {
            Rank::Named => "its index, as it is held, names the file",
            Rank::Held => "it holds the file",
            Rank::Admitted => {
                "it is the first whose rules admit the path; whose index names the file is found out when it is asked for"
            }
            Rank::Refused => "no member's rules admit the path; this is what the first one says",
        };
        because.clone_into(&mut made.member.because);
        Ok(made)
    }

    /// The explanation of one member, as that of the virtual repository.
    async fn of_leaf(
        &self,
        owner: &Arc<RepositoryState>,
        member: &Arc<RepositoryState>,
        request: &ArtifactRequest<'_>,
        raw_path: &str,
        because: &str,
    ) -> Result<(Explanation, Rank), Fault> {
        let name = member.repository.name.as_str();
        let of_member = ArtifactRequest {
            repository: name,
            raw_path,
            ..request.clone()
        };
        let path = parse(member, raw_path)?;
        let found = Point::new(name, because).by(members_key(owner));
        let above = virtual_::denier_of(
            &self.virtuals,
            owner,
            &member.repository.name,
            path.as_str(),
        );
        if let Some((of, denied)) = above {
            let made = Explanation {
                repository: explain::repository(&owner.repository),
                member: found,
                ..refused(&of, &path, &denied)
            };
            return Ok((made, Rank::Refused));
        }
        let (made, rank) = if member.repository.local().is_some() {
            let made = self.of_local(member, &path).await?;
            let is_held = made.digest.value != PointValue::None;
            let rank = rank_of(&made, is_held, is_held);
            (made, rank)
        } else {
            let made = self.of_remote(member, &of_member, &path).await?;
            let target = consider(&self.registry, member, &of_member, &path)?
                .and_then(|considered| considered.target);
            let known = match &target {
                Some(target) => self.known(target).await?,
                None => Known::default(),
            };
            let rank = rank_of(&made, known.claim.is_some(), known.is_held());
            (made, rank)
        };
        let made = Explanation {
            repository: explain::repository(&owner.repository),
            member: found,
            ..made
        };
        Ok((made, rank))
    }
}

/// How good a reason there is to take a member for the one that a file is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Refused,
    Admitted,
    Held,
    Named,
}

fn rank_of(made: &Explanation, is_named: bool, is_held: bool) -> Rank {
    if made.verdict.value == PointValue::Text("deny".to_owned()) {
        Rank::Refused
    } else if is_named {
        Rank::Named
    } else if is_held {
        Rank::Held
    } else {
        Rank::Admitted
    }
}

fn members_key(owner: &RepositoryState) -> String {
    key_of(&owner.repository, "members")
}

/// A merged document.
fn merged(
    owner: &RepositoryState,
    path: &ArtifactPath,
    access: Access,
    members: &[Arc<RepositoryState>],
) -> Explanation {
    let repository = &owner.repository;
    let names: Vec<&str> = members
        .iter()
        .map(|member| member.repository.name.as_str())
        .collect();
    let soonest = members
        .iter()
        .filter(|member| member.repository.upstream().is_some())
        .min_by_key(|member| member.repository.cache.mutable_ttl);
    let ttl = match soonest {
        Some(member) => Point {
            value: PointValue::Seconds(member.repository.cache.mutable_ttl.as_secs()),
            ..Point::none("a merged document holds for as long as the shortest of its members'")
        }
        .by(key_of(&member.repository, "cache.mutable_ttl")),
        None => Point::none("no member has an upstream"),
    };
    let because = "it is merged of what the members have, in this order";
    Explanation {
        verdict: Point::new("merge", because).by(members_key(owner)),
        pattern: explain::pattern(repository, access),
        class: explain::class(repository, access, access.mutability()),
        ttl,
        freshness: Point::none("it is as fresh as the members' documents"),
        quarantine: Point::none("each member's quarantine takes out what it holds back"),
        member: Point::new(names.join(", "), because).by(members_key(owner)),
        digest: Point::none("it is made when it is asked for"),
        ..blank(owner, path)
    }
}

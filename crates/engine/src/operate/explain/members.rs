//! Which member of a virtual repository answers, and what is said of it.

use std::sync::Arc;

use larder_core::{Access, ArtifactPath, Fault, shown};
use larder_formats::Form;

use super::explainer::{Explainer, Known, blank, parse, refused};
use crate::origin::virtual_::{self, Standing};
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
        if let Some((name, raw)) = virtual_::member_and_path(path) {
            let link = (path, name, raw);
            return self.of_link(owner, &members, request, link).await;
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

    /// A link that a merged document has: the member that it names, and the path there.
    async fn of_link(
        &self,
        owner: &Arc<RepositoryState>,
        members: &[Arc<RepositoryState>],
        request: &ArtifactRequest<'_>,
        (path, name, raw): (&ArtifactPath, &str, &str),
    ) -> Result<Explanation, Fault> {
        let own = parse(owner, raw)?;
        let standings = self.standings(owner, request, &own, true).await;
        let is_named = |(member, _): &(&Arc<RepositoryState>, Standing)| {
            member.repository.name.as_str() == name
        };
        let Some((member, standing)) = members.iter().zip(standings).find(is_named) else {
            let because = format!("{} is no member of this repository", shown(name));
            return Ok(no_member(owner, path, because));
        };
        let why = "the path names the member";
        let made = self.of_leaf(owner, member, request, (raw, &standing), why);
        Ok(made.await?.0)
    }

    /// How each member stands to a file.
    async fn standings(
        &self,
        owner: &Arc<RepositoryState>,
        request: &ArtifactRequest<'_>,
        path: &ArtifactPath,
        is_link: bool,
    ) -> Vec<Standing> {
        virtual_::standings(&self.virtuals, owner, request, path, is_link).await
    }

    /// The member that a file is of, as far as what is held tells.
    async fn of_a_member(
        &self,
        owner: &Arc<RepositoryState>,
        members: &[Arc<RepositoryState>],
        request: &ArtifactRequest<'_>,
        path: &ArtifactPath,
    ) -> Result<Explanation, Fault> {
        let standings = self.standings(owner, request, path, false).await;
        let mut best: Option<(Explanation, Rank)> = None;
        for (member, standing) in members.iter().zip(&standings) {
            let (raw, because) = (request.raw_path, "");
            let made = self.of_leaf(owner, member, request, (raw, standing), because);
            let (made, rank) = made.await?;
            if best.as_ref().is_none_or(|(_, known)| rank > *known) {
                best = Some((made, rank));
            }
        }
        let Some((mut made, rank)) = best else {
            let because = "the repository has no members".to_owned();
            return Ok(no_member(owner, path, because));
        };
        let because = match rank {
            Rank::Named => "its index, as it is held, names the file",
            Rank::Held => "it holds the file",
            Rank::Admitted => {
                "it is the first whose rules admit the path; whose index names the file is found out when it is asked for"
            }
            Rank::Refused => "no member's rules admit the path; this is what the first one says",
            Rank::Anothers => return Ok(made),
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
        (raw_path, standing): (&str, &Standing),
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
        if let Some(objection) = &standing.objection {
            return Ok((no_member(owner, &path, objection.clone()), Rank::Anothers));
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
            let is_named = standing.is_named || known.claim.is_some();
            let rank = rank_of(&made, is_named, known.is_held());
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

/// How good a reason there is to take a member for the one that a file is of. Whose index names it is asked, and nobody after it, whatever
/// its rules say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Another member owns the name.
    Anothers,
    Refused,
    Admitted,
    Held,
    Named,
}

fn rank_of(made: &Explanation, is_named: bool, is_held: bool) -> Rank {
    let is_denied = made.verdict.value == PointValue::Text("deny".to_owned());
    match (is_named, is_denied, is_held) {
        (true, ..) => Rank::Named,
        (_, true, _) => Rank::Refused,
        (_, _, true) => Rank::Held,
        _ => Rank::Admitted,
    }
}

/// No member answers, and why.
fn no_member(owner: &RepositoryState, path: &ArtifactPath, because: String) -> Explanation {
    Explanation {
        verdict: Point::new("refuse", because.clone()).by(members_key(owner)),
        member: Point::none(because).by(members_key(owner)),
        ..blank(owner, path)
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

//! The rules between repositories: members exist, share the package type, and do not go in circles.

use std::collections::{HashMap, HashSet};

use super::diagnostic::Report;
use super::hints;
use super::repository::Built;

/// Most virtual repositories within each other, the outermost included.
const DEEPEST: usize = 4;

/// Checks the members of every virtual repository.
pub(super) fn check_members(built: &[Built], report: &mut Report) {
    let by_name: HashMap<&str, &Built> = built
        .iter()
        .map(|built| (built.repository.name.as_str(), built))
        .collect();
    for owner in built {
        let own = &owner.repository;
        for (member, place) in own.members().iter().zip(&owner.member_places) {
            let Some(found) = by_name.get(member.as_str()) else {
                let near = hints::nearest(
                    member.as_str(),
                    by_name
                        .keys()
                        .copied()
                        .filter(|name| *name != own.name.as_str()),
                );
                let near =
                    near.map_or_else(String::new, |near| format!(": did you mean `{near}`?"));
                report.error(
                    place,
                    format!("member `{member}` of `{}` does not exist{near}", own.name),
                );
                continue;
            };
            let (theirs, ours) = (found.repository.package, own.package);
            if theirs != ours {
                let (theirs, ours) = (theirs.as_str(), ours.as_str());
                report.error(
                    place,
                    format!(
                        "member `{member}` of `{}` is of package {theirs}, not {ours}",
                        own.name
                    ),
                );
            }
        }
        if let Some(local) = own
            .virtual_settings()
            .and_then(|own| own.default_local.as_ref())
        {
            check_default_local(owner, local.as_str(), &by_name, report);
        }
        if reaches(own.name.as_str(), own.name.as_str(), &by_name) {
            report.error(
                &owner.place,
                format!(
                    "virtual repository `{}` contains itself through its members",
                    own.name
                ),
            );
        } else if depth(own.name.as_str(), &by_name) > DEEPEST {
            report.error(
                &owner.place,
                format!(
                    "virtual repository `{}` has virtual members within virtual members more than {DEEPEST} deep, itself counted: \
                     make it of their members instead",
                    own.name
                ),
            );
        }
    }
}

/// How many virtual repositories stand within each other below this one, itself included; one more than is allowed stands for all that
/// are more.
fn depth(name: &str, by_name: &HashMap<&str, &Built>) -> usize {
    let is_virtual = |name: &str| {
        by_name
            .get(name)
            .is_some_and(|b| b.repository.virtual_settings().is_some())
    };
    let mut level: HashSet<&str> = HashSet::from([name]);
    let mut depth = 0;
    loop {
        level.retain(|name| is_virtual(name));
        if level.is_empty() || depth > DEEPEST {
            return depth;
        }
        depth += 1;
        level = level
            .iter()
            .filter_map(|name| by_name.get(name))
            .flat_map(|built| built.repository.members())
            .map(larder_core::RepositoryName::as_str)
            .collect();
    }
}

/// What is published to a virtual repository must be seen in it: it goes to a local one that is among its members, or theirs.
fn check_default_local(
    owner: &Built,
    local: &str,
    by_name: &HashMap<&str, &Built>,
    report: &mut Report,
) {
    let own = owner.repository.name.as_str();
    let is_local = by_name
        .get(local)
        .is_some_and(|built| built.repository.local().is_some());
    if !is_local || !reaches(own, local, by_name) {
        report.error(
            &owner.place,
            format!(
                "`default_local: {local}` of `{own}` must name a local repository among its members: what is published to `{own}` goes \
                 there, and is to be seen in `{own}`"
            ),
        );
    }
}

/// Whether a repository can be reached from another through members. Visits each repository once.
fn reaches(start: &str, end: &str, by_name: &HashMap<&str, &Built>) -> bool {
    let mut seen = HashSet::new();
    let mut open = vec![start];
    while let Some(name) = open.pop() {
        for member in by_name
            .get(name)
            .iter()
            .flat_map(|built| built.repository.members())
        {
            if member.as_str() == end {
                return true;
            }
            if seen.insert(member.as_str()) {
                open.push(member.as_str());
            }
        }
    }
    false
}

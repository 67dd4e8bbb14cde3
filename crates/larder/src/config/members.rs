//! The rules between repositories: members exist, share the package type, and do not go in circles.

use std::collections::{HashMap, HashSet};

use super::diagnostic::Report;
use super::hints;
use super::repository::Built;

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
        if reaches(own.name.as_str(), &by_name) {
            report.error(
                &owner.place,
                format!(
                    "virtual repository `{}` contains itself through its members",
                    own.name
                ),
            );
        }
    }
}

/// Whether a repository can be reached from itself. Visits each repository once.
fn reaches(start: &str, by_name: &HashMap<&str, &Built>) -> bool {
    let mut seen = HashSet::new();
    let mut open = vec![start];
    while let Some(name) = open.pop() {
        for member in by_name
            .get(name)
            .iter()
            .flat_map(|built| built.repository.members())
        {
            if member.as_str() == start {
                return true;
            }
            if seen.insert(member.as_str()) {
                open.push(member.as_str());
            }
        }
    }
    false
}

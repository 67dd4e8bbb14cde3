//! What the rules of a repository have refused, and which pattern would admit it.

use larder_core::{Pattern, Repository, UnixMillis};

use crate::policy::denied;
use crate::policy::ruling::{Ruling, judge};
use crate::repositories::RepositoryState;
use crate::repositories::refused::{Group, Shape};

/// Most groups that are shown.
const SHOWN: usize = 100;

/// Paths that were refused, and that one pattern would admit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedGroup {
    /// How often such a path was refused.
    pub count: u64,
    /// When that was last.
    pub last: UnixMillis,
    /// Up to three of the paths, the last first; below the repository, without a leading slash.
    pub examples: Vec<String>,
    /// The rule that refused them: `allow_patterns`, `deny_patterns` or `immutable_patterns`.
    pub rule: String,
    /// The pattern of `deny_patterns` that matches them; or one that took too many steps.
    pub refused_by: Option<String>,
    /// A regular expression that would admit the examples; `None`: adding a pattern does not, the one of `refused_by` would have to go.
    pub pattern: Option<String>,
    /// The settings of the repository to which that pattern is to be added: all of them.
    pub add_to: Vec<String>,
}

/// Those of a repository, those first of which there was most.
pub(super) fn of(entry: &RepositoryState, now: UnixMillis) -> Vec<RefusedGroup> {
    let groups = entry.refused.most(SHOWN).into_iter();
    groups
        .map(|(shape, group)| shown(entry, &shape, group, now))
        .collect()
}

fn shown(entry: &RepositoryState, shape: &Shape, group: Group, now: UnixMillis) -> RefusedGroup {
    let ago = i64::try_from(group.last.elapsed().as_millis()).unwrap_or(i64::MAX);
    let by = || denied::list(&entry.repository.access, shape.rule).get(shape.by?);
    let pattern = shape.pattern();
    let add_to = match shape.by {
        None => admitting(entry, &pattern, &group.examples),
        Some(_) => None,
    };
    RefusedGroup {
        count: group.count,
        last: UnixMillis(now.0.saturating_sub(ago)),
        examples: group.examples,
        rule: shape.rule.to_owned(),
        refused_by: by().map(|pattern| pattern.as_str().to_owned()),
        pattern: add_to.is_some().then_some(pattern),
        add_to: add_to.unwrap_or_default(),
    }
}

/// The lists to which a pattern is to be added for these paths to be admitted; `None`: nothing that is added admits them.
fn admitting(entry: &RepositoryState, pattern: &str, paths: &[String]) -> Option<Vec<String>> {
    let pattern = Pattern::compile(pattern).ok()?;
    let mut repository = Repository::clone(&entry.repository);
    let mut added = Vec::new();
    // Each list is added to once at most.
    for _ in 0..3 {
        let refusal = paths.iter().find_map(|path| {
            let built_in = entry.facts(path).built_in;
            match judge(&repository, path, built_in, None) {
                Ruling::Denied(denied) => Some(denied),
                Ruling::Admitted { .. } => None,
            }
        });
        let Some(denied) = refusal else {
            return Some(added);
        };
        let list = match denied.rule {
            _ if denied.pattern.is_some() => return None,
            "allow_patterns" => &mut repository.access.allow,
            "immutable_patterns" => repository.access.immutable.get_or_insert_default(),
            _ => return None,
        };
        list.push(pattern.clone());
        added.push(denied.rule.to_owned());
    }
    None
}

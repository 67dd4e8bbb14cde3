//! What is said of a path that the rules do not let in: which list decided, by which pattern, and what an operator would change.

use larder_core::{
    AccessDenied, AccessPolicy, ArtifactPath, ErrorCode, Fault, FaultKind, Pattern, Repository,
    SourceKey, shown,
};

use crate::repositories::RepositoryState;

/// Most patterns of a list that are quoted.
const QUOTED: usize = 3;

/// A path that no pattern lets in, or that one keeps out.
pub(crate) fn fault(entry: &RepositoryState, path: &str, denied: &AccessDenied) -> Fault {
    let repository = &entry.repository;
    let (name, access, rule) = (&repository.name, &repository.access, denied.rule);
    let list = list(access, rule);
    let decider = || {
        let pattern = denied.pattern.and_then(|place| list.get(place));
        pattern.map_or_else(String::new, quoted)
    };
    let (brief, message) = if denied.pattern_limit {
        let pattern = decider();
        let brief = format!("a pattern of repository {name} takes too many steps on this path");
        let remedy = format!("the path is refused; simplify the pattern {pattern} of {rule}");
        (brief.clone(), format!("{brief}: {remedy}"))
    } else if rule == "deny_patterns" {
        let pattern = decider();
        let what = format!(
            "a pattern of repository {name} refuses this path: it matches {pattern} of deny_patterns"
        );
        (
            String::new(),
            format!("{what}; remove or narrow that pattern if the path should be served"),
        )
    } else {
        let brief = format!("no pattern of repository {name} admits this path");
        let tried = if rule == "allow_patterns" {
            said(rule, Some(list))
        } else {
            classes_tried(repository, rule, list)
        };
        let also = if rule == "immutable_patterns" {
            " (or to mutable_patterns, if what is there changes)"
        } else {
            ""
        };
        (
            brief.clone(),
            format!(
                "{brief}: tried were {tried}; add a pattern to {rule}{also} if the path should be served"
            ),
        )
    };
    let fault = Fault::new(FaultKind::Forbidden, ErrorCode::PatternDenied, message)
        .in_repository(name)
        .by_rule(rule)
        .about(&key(entry, path));
    // A reason phrase has room for the pattern that matched, but not for the lists that were tried.
    if brief.is_empty() {
        fault
    } else {
        fault.briefly(brief)
    }
}

/// The patterns of a rule.
pub(crate) fn list<'a>(access: &'a AccessPolicy, rule: &str) -> &'a [Pattern] {
    match rule {
        "deny_patterns" => &access.deny,
        "allow_patterns" => &access.allow,
        "mutable_patterns" => access.mutable.as_deref().unwrap_or_default(),
        _ => access.immutable.as_deref().unwrap_or_default(),
    }
}

/// The lists by which a path has a class, in the order in which they are tried.
fn classes_tried(repository: &Repository, rule: &str, immutable: &[Pattern]) -> String {
    let access = &repository.access;
    let allow = if access.allow.is_empty() {
        String::new()
    } else {
        said("allow_patterns (which admit it)", None) + ", "
    };
    let mutable = said(
        "mutable_patterns",
        Some(access.mutable.as_deref().unwrap_or_default()),
    );
    let built_in = repository.package.as_str();
    format!(
        "{allow}the built-in patterns of {built_in} repositories, {mutable} and {}",
        said(rule, Some(immutable))
    )
}

/// A link to another host that this repository has not made, or not with its present key.
pub(crate) fn forged(entry: &RepositoryState, path: &ArtifactPath) -> Fault {
    let name = &entry.repository.name;
    // `_ext/<mac>/<host>/…`
    let host = path
        .as_str()
        .split('/')
        .nth(2)
        .filter(|host| !host.is_empty())
        .unwrap_or("another host");
    let message = format!(
        "this link to {} was not made by repository {name}: links of that kind lead only where an index of the repository leads; read \
         the index again and follow the link that stands there now",
        shown(host)
    );
    Fault::new(FaultKind::Forbidden, ErrorCode::LinkForged, message)
        .in_repository(name)
        .by_rule("_ext")
        .briefly(format!("this link was not made by repository {name}"))
        .about(&key(entry, path.as_str()))
}

fn key(entry: &RepositoryState, path: &str) -> SourceKey {
    SourceKey {
        repository: entry.repository.name.clone(),
        path: path.into(),
        variant: "".into(),
    }
}

/// A list with its first patterns.
fn said(rule: &str, patterns: Option<&[Pattern]>) -> String {
    let Some(patterns) = patterns else {
        return rule.to_owned();
    };
    let first: Vec<String> = patterns.iter().take(QUOTED).map(quoted).collect();
    match patterns.len().checked_sub(QUOTED) {
        _ if patterns.is_empty() => format!("{rule} (none)"),
        Some(more @ 1..) => format!("{rule} ({} and {more} more)", first.join(", ")),
        _ => format!("{rule} ({})", first.join(", ")),
    }
}

fn quoted(pattern: &Pattern) -> String {
    format!("'{}'", shown(pattern.as_str()))
}

//! Step 6: may these bytes leave? The only maker of [`Cleared`], and nothing can be served without one.

use larder_core::{
    CountedFrom, ErrorCode, Fault, FaultKind, Mutability, QuarantineRuling, Repository, UnixMillis,
    Verdict,
};

use crate::policy::ruling::{Facts, judge_admitted};

/// Proof that the rules let these bytes out. Its constructors are private to this file.
#[derive(Debug)]
pub struct Cleared<T>(T);

impl<T> Cleared<T> {
    /// What was cleared.
    pub fn into_inner(self) -> T {
        self.0
    }

    /// A look at what was cleared.
    pub fn get(&self) -> &T {
        &self.0
    }
}

/// Clears an artifact that the access rules have let in with this class, or says until when quarantine holds it.
pub(crate) fn clear<T>(
    repository: &Repository,
    class: Mutability,
    facts: &Facts,
    what: T,
) -> Result<Cleared<T>, Fault> {
    match judge_admitted(repository, class, facts) {
        Some(ruling) if ruling.verdict != Verdict::Clear => {
            Err(held(repository, &ruling, facts.now))
        }
        _ => Ok(Cleared(what)),
    }
}

/// Clears something that is no artifact: a redirect, larder's own answer, an uncached pass-through, a derived index.
pub(crate) fn clear_non_artifact<T>(what: T) -> Cleared<T> {
    Cleared(what)
}

/// What is given with bytes that the rules have let out, and is void as soon as the rules change.
pub(crate) trait Pass {}

/// Clears bytes for which there is a pass that is still good.
pub(crate) fn clear_again<T>(_pass: &impl Pass, what: T) -> Cleared<T> {
    Cleared(what)
}

/// What is said of an artifact that quarantine holds.
pub(crate) fn held(repository: &Repository, ruling: &QuarantineRuling, now: UnixMillis) -> Fault {
    let name = &repository.name;
    let until = match ruling.verdict {
        Verdict::Held { until } => until,
        Verdict::Clear => None,
    };
    let fault = Fault::new(FaultKind::NotFound, ErrorCode::Quarantined, "")
        .in_repository(name)
        .retry_after(until.map(|until| until.since(now)));
    let (Some(until), Some((from, at))) = (until, ruling.counted) else {
        let message = format!(
            "Quarantined: it states no publish date, and repository {name} holds back what has none; \
             quarantine_missing_date: first_seen counts from when larder saw it first, allow lets it through"
        );
        return Fault { message, ..fault }
            .by_rule("quarantine_missing_date")
            .briefly("Quarantined: it states no publish date");
    };
    let days = repository.quarantine.hold.unwrap_or_default().as_secs() / 86_400;
    let message = format!(
        "Quarantined until {}: {}, and repository {name} holds new files back for {days} days; ask again then, or change \
         quarantine_days or quarantine_new",
        until.to_rfc3339(),
        counted(repository, from, at)
    );
    let brief = format!("Quarantined until {}", until.to_date());
    let mut fault = Fault { message, ..fault }
        .by_rule("quarantine_new")
        .briefly(brief);
    fault.held_until = Some(until);
    fault
}

/// What a hold is counted from, in words.
pub(crate) fn counted(repository: &Repository, from: CountedFrom, at: UnixMillis) -> String {
    let at = at.to_rfc3339();
    match from {
        // Nobody states anything of what was uploaded.
        _ if repository.local().is_some() => format!("uploaded {at}"),
        CountedFrom::Stated => format!("published {at} (as the registry states)"),
        CountedFrom::LastModified => format!("published {at} (Last-Modified)"),
        CountedFrom::FirstSeen {
            instead_of: Some(published),
        } => format!(
            "larder saw it first {at}, for its publish date {} was still to come then",
            published.to_rfc3339()
        ),
        CountedFrom::FirstSeen { instead_of: None } => {
            format!("larder saw it first {at}, for it states no publish date")
        }
    }
}

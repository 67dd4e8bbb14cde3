//! Step 6: may these bytes leave? The only maker of [`Cleared`], and nothing can be served without one.

use larder_core::{Fault, FaultKind, Mutability, Repository, UnixMillis, Verdict};

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

/// When an artifact was published and first seen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dates {
    pub(crate) published_at: Option<UnixMillis>,
    pub(crate) first_seen_at: UnixMillis,
}

/// Clears an artifact, or says until when quarantine holds it. Mutable paths are never held ([base], spec section 5).
pub(crate) fn clear<T>(
    repository: &Repository,
    class: Mutability,
    dates: Dates,
    now: UnixMillis,
    what: T,
) -> Result<Cleared<T>, Fault> {
    if class.is_mutable() {
        return Ok(Cleared(what));
    }
    match repository.quarantine.verdict(dates.published_at, dates.first_seen_at, now) {
        Verdict::Clear => Ok(Cleared(what)),
        Verdict::Held { until } => Err(held(repository, until, now)),
    }
}

/// Clears something that is no artifact: a redirect, larder's own answer, an uncached pass-through, a derived index.
pub(crate) fn clear_non_artifact<T>(what: T) -> Cleared<T> {
    Cleared(what)
}

fn held(repository: &Repository, until: Option<UnixMillis>, now: UnixMillis) -> Fault {
    let message = match until {
        Some(until) => {
            format!("this artifact is newer than the repository's minimum age and is held back until {}", until.to_http_date())
        }
        None => "this artifact states no publish date and the repository holds back what has none".to_owned(),
    };
    let mut fault = Fault::new(FaultKind::NotFound, "quarantined", message)
        .in_repository(&repository.name)
        .by_rule("quarantine_new")
        .retry_after(until.map(|until| until.since(now)));
    fault.held_until = until;
    fault
}

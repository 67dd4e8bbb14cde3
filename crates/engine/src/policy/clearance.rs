//! Step 6: may these bytes leave? The only maker of [`Cleared`], and nothing can be served without one.

use larder_core::{ErrorCode, Fault, FaultKind, Mutability, Repository, UnixMillis, Verdict};

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

/// Clears an artifact, or says until when quarantine holds it. Mutable paths are never held ([base], contract, section 5).
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
    match repository
        .quarantine
        .verdict(dates.published_at, dates.first_seen_at, now)
    {
        Verdict::Clear => Ok(Cleared(what)),
        Verdict::Held { until } => Err(held(repository, dates, until, now)),
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

fn held(
    repository: &Repository,
    dates: Dates,
    until: Option<UnixMillis>,
    now: UnixMillis,
) -> Fault {
    let name = &repository.name;
    let fault = Fault::new(FaultKind::NotFound, ErrorCode::Quarantined, "")
        .in_repository(name)
        .retry_after(until.map(|until| until.since(now)));
    let Some(until) = until else {
        let message = format!(
            "Quarantined: it states no publish date, and repository {name} holds back what has none; \
             quarantine_missing_date: first_seen counts from when larder saw it first, allow lets it through"
        );
        return Fault { message, ..fault }
            .by_rule("quarantine_missing_date")
            .briefly("Quarantined: it states no publish date");
    };
    let days = repository.quarantine.hold.unwrap_or_default().as_secs() / 86_400;
    let counted = match dates.published_at {
        Some(published) if published <= dates.first_seen_at => {
            format!("published {} (Last-Modified)", published.to_rfc3339())
        }
        Some(published) => format!(
            "larder saw it first {}, for its publish date {} was still to come then",
            dates.first_seen_at.to_rfc3339(),
            published.to_rfc3339()
        ),
        None => format!(
            "larder saw it first {}, for it states no publish date",
            dates.first_seen_at.to_rfc3339()
        ),
    };
    let message = format!(
        "Quarantined until {}: {counted}, and repository {name} holds new files back for {days} days; ask again then, or change \
         quarantine_days or quarantine_new",
        until.to_rfc3339()
    );
    let brief = format!("Quarantined until {}", until.to_date());
    let mut fault = Fault { message, ..fault }
        .by_rule("quarantine_new")
        .briefly(brief);
    fault.held_until = Some(until);
    fault
}

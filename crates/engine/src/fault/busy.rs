//! Too much is under way: what a client is told.

use std::time::Duration;

use larder_core::{ErrorCode, Fault, FaultKind, RepositoryName};

/// When to ask again for what was not to be had because too much is under way.
const UNTIL_LESS_IS_UNDER_WAY: Duration = Duration::from_secs(5);

/// Too much is under way for a repository, and there is no copy: 503 with `Retry-After`.
pub(crate) fn busy(name: &RepositoryName, message: &str) -> Fault {
    // A fault on its way through a failed download has its sentence already.
    let message = if message.starts_with("repository ") {
        message.to_owned()
    } else {
        format!("repository {name} has too much under way: {message}")
    };
    Fault::new(FaultKind::Unavailable, ErrorCode::Busy, message)
        .in_repository(name)
        .by_rule("limits")
        .briefly(format!("repository {name} has too much under way"))
        .retry_after(Some(UNTIL_LESS_IS_UNDER_WAY))
}

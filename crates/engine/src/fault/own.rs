//! Faults of larder's own: its storage, its documents, its memory of absences.

use std::time::Duration;

use larder_core::{
    ArtifactRecord, ErrorCode, Fault, FaultKind, Recovery, RepositoryName, UnixMillis,
};
use larder_formats::{Malformed, Refusal};
use larder_storage::{StorageError, StorageErrorKind};
use larder_upstream::in_request;

use super::fetch::{FetchError, passed_on};
use crate::budget::{Refused, Usage};
use crate::counters::count;
use crate::repositories::RepositoryState;
use crate::target::Target;

/// An absence that still holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Remembered {
    /// The upstream's status, 404 or 410.
    pub(crate) status: u16,
    /// When the upstream is asked again; `None`: when the index that the file belongs to is exchanged.
    pub(crate) over: Option<UnixMillis>,
}

impl Remembered {
    /// The absence that a record tells of (that of a generation's companion).
    pub(crate) fn of_record(wanted: &Target, status: u16, record: &ArtifactRecord) -> Self {
        Self {
            status,
            over: Some(
                record
                    .contacted_at
                    .plus(wanted.entry.repository.cache.negative_ttl),
            ),
        }
    }
}

/// Storage did not do what was asked: the gate stays closed. Said once a minute for each repository: every request meets it.
pub(crate) fn storage_fault(entry: &RepositoryState, error: &StorageError) -> Fault {
    let repository = &entry.repository.name;
    in_request(|| {
        if let Some(times) = entry.learnt.causes.trouble_due("storage") {
            tracing::error!(%repository, %error, times, "storage failed");
        } else {
            tracing::debug!(%repository, %error, "storage failed again");
        }
    });
    let message =
        "larder's own storage did not answer; ask again in a moment (/health and the log say more)";
    Fault::new(
        FaultKind::Unavailable,
        ErrorCode::StorageUnavailable,
        message,
    )
    .in_repository(&entry.repository.name)
    .retry_after(Some(Duration::from_secs(2)))
}

/// What decides is in a database that does not answer.
pub(crate) fn database_away(entry: &RepositoryState) -> Fault {
    let error = StorageError::new(
        StorageErrorKind::Unavailable,
        "the metadata database does not answer",
    );
    storage_fault(entry, &error)
}

/// Something scarce was not to be had.
pub(crate) fn too_much_under_way(refused: Refused) -> FetchError {
    let Refused {
        kind,
        limit,
        waited,
    } = refused;
    let kind = kind.as_str();
    let message = match waited {
        None => format!(
            "more of it is under way already than may wait for its turn ({kind}, {limit} in all); ask again in a moment"
        ),
        Some(waited) => format!(
            "it had no turn within {} seconds ({kind}, {limit} in all, of which other repositories have their part); ask again in a moment",
            waited.as_secs()
        ),
    };
    FetchError::unusable(ErrorCode::Busy, message)
}

/// Something ended whose place others needed more.
pub(crate) fn gave_way(usage: Usage) -> FetchError {
    let (code, message) = if usage == Usage::Idle {
        let message = "nobody waited for this slow download any more, and it ended to make room for others; ask again";
        (ErrorCode::Interrupted, message)
    } else {
        let message = "its upstream is slow and had more under way than its part, so this ended to make room for other repositories; ask again later";
        (ErrorCode::Busy, message)
    };
    FetchError::unusable(code, message)
}

/// What a format refuses without asking anyone.
pub(crate) fn refused(repository: &RepositoryName, refusal: Refusal) -> Fault {
    let kind = match refusal.status {
        401 => FaultKind::Unauthorized,
        403 => FaultKind::Forbidden,
        404 => FaultKind::NotFound,
        405 => FaultKind::MethodNotAllowed,
        413 => FaultKind::TooLarge,
        _ => FaultKind::BadRequest,
    };
    Fault::new(kind, refusal.code, refusal.message).in_repository(repository)
}

/// `offline: true` and nothing held.
pub(crate) fn offline(wanted: &Target) -> Fault {
    let message = format!(
        "repository {} is offline and does not hold {}; set offline: false to let larder ask the upstream",
        wanted.entry.repository.name,
        larder_core::shown(&wanted.spec.key_path)
    );
    Fault::new(FaultKind::BadGateway, ErrorCode::Offline, message)
        .recoverable(Recovery::Copy)
        .in_repository(&wanted.entry.repository.name)
        .by_rule("offline")
        .briefly(format!(
            "repository {} is offline and does not hold this",
            wanted.entry.repository.name
        ))
}

/// A document that passed its check but cannot be derived from.
pub(crate) fn malformed(wanted: &Target, error: &Malformed) -> Fault {
    count(&wanted.entry.counters.malformed_documents);
    let path = larder_core::shown(&wanted.spec.key_path);
    let name = &wanted.entry.repository.name;
    let message = format!("the document {path} of repository {name} cannot be used: {error}");
    Fault::new(FaultKind::BadGateway, ErrorCode::MalformedDocument, message)
        .briefly(format!("a document of repository {name} cannot be used"))
        .in_repository(&wanted.entry.repository.name)
        .by_rule("upstream")
}

/// A fault of larder's own.
pub(crate) fn internal(message: &str) -> Fault {
    Fault::new(FaultKind::Internal, ErrorCode::Internal, message)
}

pub(crate) fn stopped(fault: Fault) -> FetchError {
    FetchError::unusable(fault.code, fault.message)
}

pub(crate) fn unusable_document(wanted: &Target, reason: &str) -> FetchError {
    // The log warns of it with the upstream's other failures (`upstreams.rs`).
    tracing::debug!(key = %wanted.key, reason, "the upstream sent a document that cannot be used");
    let message = format!(
        "the upstream of repository {} sent something that cannot be used: {reason}",
        wanted.entry.repository.name
    );
    FetchError::unusable(ErrorCode::MalformedDocument, message)
}

/// The upstream's 404 once more.
pub(crate) fn negative_fault(wanted: &Target, absence: Remembered, now: UnixMillis) -> Fault {
    let fault = passed_on(wanted, absence.status, None);
    let name = &wanted.entry.repository.name;
    let holds = absence.over.map_or_else(
        || "as long as the index that it belongs to is the same".to_owned(),
        |over| {
            let left = over.since(now);
            let seconds = left.as_secs() + u64::from(left > Duration::from_secs(left.as_secs()));
            format!("for {seconds} more seconds (negative_ttl of repository {name})")
        },
    );
    let message = format!(
        "{}; that is remembered {holds}, and a flush forgets it",
        fault.message
    );
    Fault { message, ..fault }
        .by_rule("negative_ttl")
        .upstream_said(format!("{} (remembered)", absence.status))
}

/// Whether it is a fault of larder's own or a failure of an upstream. What the operator has set up to be refused is neither.
pub(crate) fn is_failure(fault: &Fault) -> bool {
    let failed = match fault.kind {
        FaultKind::Upstream(status) => status == 429 || status >= 500,
        FaultKind::BadGateway
        | FaultKind::GatewayTimeout
        | FaultKind::InsufficientStorage
        | FaultKind::LoopDetected
        | FaultKind::Unavailable
        | FaultKind::Internal => true,
        _ => false,
    };
    failed && fault.code != ErrorCode::Offline
}

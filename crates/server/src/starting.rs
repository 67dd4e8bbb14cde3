//! What is answered while larder waits for what it needs to serve: `/live` says that it lives, `/ready` that it does not serve yet, and
//! every artifact is a 503.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use larder_core::{
    Clock as _, ErrorCode, Fault, FaultKind, PackageType, Repository, SystemClock, UnixMillis,
};
use larder_engine::{
    Answer, ArtifactRequest, BackendHealth, FlushReport, FlushRequest, Health, HeldPage,
    HeldRequest, HeldSummary, Queries, Written,
};
use larder_formats::{ErrorBody, standard_error_body};

use crate::backend::{Backend, CounterSnapshot, UploadBody};

/// When to ask again.
const SOON: Duration = Duration::from_secs(2);

/// Why the last try to have what is waited for has failed. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Waiting(Arc<Mutex<Option<String>>>);

impl Waiting {
    /// A try has failed.
    pub fn because(&self, why: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }

    fn told(&self) -> String {
        let why = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let why = why.as_deref().unwrap_or("it has not answered yet");
        format!("larder waits for it to start: {why}")
    }
}

/// A larder that is about to serve these repositories.
#[derive(Debug)]
pub struct Starting {
    repositories: Vec<Arc<Repository>>,
    waiting: Waiting,
}

impl Starting {
    /// The repositories as configured.
    pub fn new(repositories: Vec<Arc<Repository>>, waiting: Waiting) -> Self {
        Self {
            repositories,
            waiting,
        }
    }
}

fn not_yet() -> Fault {
    let message = "larder is starting and waits for its metadata database; ask again in a moment (/health and the log say more)";
    Fault::new(
        FaultKind::Unavailable,
        ErrorCode::StorageUnavailable,
        message,
    )
    .retry_after(Some(SOON))
}

impl Backend for Starting {
    fn now(&self) -> UnixMillis {
        SystemClock.now()
    }

    fn repository(&self, name: &str) -> Option<Arc<Repository>> {
        let found = self
            .repositories
            .iter()
            .find(|repository| repository.name.as_str() == name);
        found.cloned()
    }

    fn repositories(&self) -> Vec<Arc<Repository>> {
        self.repositories.clone()
    }

    fn body_limit(&self, _request: &ArtifactRequest<'_>) -> Result<Option<u64>, Fault> {
        Err(not_yet())
    }

    async fn read(&self, _request: ArtifactRequest<'_>) -> Result<Answer, Fault> {
        Err(not_yet())
    }

    async fn flush(&self, _request: FlushRequest) -> Result<FlushReport, Fault> {
        Err(not_yet())
    }

    async fn forget(&self, _request: ArtifactRequest<'_>, _of: Queries) -> Result<bool, Fault> {
        Err(not_yet())
    }

    async fn write(
        &self,
        _request: ArtifactRequest<'_>,
        _length: Option<u64>,
        _body: UploadBody<'_>,
    ) -> Result<Written, Fault> {
        Err(not_yet())
    }

    async fn delete_file(&self, _request: ArtifactRequest<'_>) -> Result<(), Fault> {
        Err(not_yet())
    }

    async fn held_artifacts(&self, _request: HeldRequest) -> Result<HeldPage, Fault> {
        Err(not_yet())
    }

    async fn held_summary(&self, _repository: Option<&str>) -> Result<HeldSummary, Fault> {
        Err(not_yet())
    }

    async fn health(&self) -> Health {
        let state = |ok, kind, detail: &str| BackendHealth {
            ok,
            kind,
            detail: Some(detail.to_owned()),
        };
        Health {
            metadata: state(false, "postgresql", &self.waiting.told()),
            // Until then nothing is served.
            blobs: state(false, "filesystem", "not looked at yet"),
            disk: None,
        }
    }

    fn counters(&self) -> CounterSnapshot {
        CounterSnapshot::default()
    }

    fn error_body(&self, fault: &Fault, _package: Option<PackageType>) -> ErrorBody {
        standard_error_body(fault)
    }
}

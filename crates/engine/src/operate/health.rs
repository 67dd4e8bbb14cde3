//! The state of the backends, asked at most every few seconds: a probe must never wait for a slow store.

use std::sync::PoisonError;
use std::time::Duration;

use larder_storage::StorageErrorKind;
use tokio::time::Instant;

use crate::operate::condition::{BackendHealth, DiskSpace, Health, SERVER};
use crate::operate::operator::Operator;

const MAX_AGE: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(2);
/// What a server says decides nothing about what this node can serve, and probes give up after a second.
const PATIENCE_WITH_SERVER: Duration = Duration::from_millis(500);

impl Operator {
    /// The backends' state, at most five seconds old.
    pub(crate) async fn health(&self) -> Health {
        let last = self
            .cache
            .health
            .last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some((at, health)) = last
            && at.elapsed() < MAX_AGE
        {
            return health;
        }
        // At once: who asks waits for a silent database or store a single time.
        let (metadata, damaged, ()) = tokio::join!(
            self.metadata_health(),
            self.told_of_scrubs(),
            self.ping_blobs()
        );
        let (mut blobs, disk) = self.blob_health();
        let detail = blobs.detail.or(damaged);
        blobs.detail = detail.or_else(|| self.told_of_undeleted());
        let health = Health {
            metadata,
            blobs,
            disk,
        };
        *self
            .cache
            .health
            .last
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), health.clone()));
        health
    }

    /// The room that there was when [`health`](Self::health) last looked.
    pub(crate) fn disk(&self) -> Option<DiskSpace> {
        self.cache
            .health
            .last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()?
            .1
            .disk
    }

    async fn metadata_health(&self) -> BackendHealth {
        let patience = match self.catalog.database_kind() {
            SERVER => PATIENCE_WITH_SERVER,
            _ => PATIENCE,
        };
        let (ok, detail) = match tokio::time::timeout(patience, self.catalog.ping()).await {
            Ok(Ok(())) => (true, self.told_of_damage()),
            // What cannot be looked up is asked of the upstreams.
            Ok(Err(error))
                if error.kind == StorageErrorKind::Corrupt
                    || self.catalog.damage().is_replacing =>
            {
                (
                    true,
                    Some("damaged: files are served from the upstreams and not kept".to_owned()),
                )
            }
            Ok(Err(error)) => (false, Some(error.to_string())),
            Err(_) => (false, Some(format!("no answer within {patience:?}"))),
        };
        BackendHealth {
            ok,
            kind: self.catalog.database_kind(),
            detail,
        }
    }

    /// Damage that has been met with and got over.
    fn told_of_damage(&self) -> Option<String> {
        let damage = self.catalog.damage();
        (damage.rows + damage.put_aside > 0).then(|| {
            let (rows, put_aside) = (damage.rows, damage.put_aside);
            format!("since the start {rows} damaged rows were dropped and {put_aside} damaged databases put aside: check disk and memory")
        })
    }

    /// What nothing refers to any more, and stays.
    fn told_of_undeleted(&self) -> Option<String> {
        let undeleted = self.catalog.undeleted();
        let why = undeleted.why?;
        let (blobs, bytes) = (undeleted.blobs, undeleted.bytes);
        Some(format!(
            "{blobs} blobs of {bytes} bytes could not be deleted and take up room: {why}; the log names them"
        ))
    }

    /// What scrubs have found of which larder has no other copy.
    async fn told_of_scrubs(&self) -> Option<String> {
        let damaged = tokio::time::timeout(PATIENCE_WITH_SERVER, self.catalog.damaged_files());
        let files = damaged.await.ok()?.ok()?;
        (files > 0).then(|| {
            format!("{files} uploaded files are damaged, as a scrub has found: GET /api/v1/scrub names them; upload them again, or restore them from a backup")
        })
    }

    /// A replica that has nothing to do with the store notices only so that it is away. An answer that comes later is noted when it comes.
    async fn ping_blobs(&self) {
        let asking = tokio::spawn(self.blobs.ping());
        let _ = tokio::time::timeout(PATIENCE_WITH_SERVER, asking).await;
    }

    fn blob_health(&self) -> (BackendHealth, Option<DiskSpace>) {
        let report = self.blobs.report();
        let kind = report.kind;
        match self.blobs.free_space() {
            Ok(space) => {
                let unwritten = self.catalog.trouble().unwritten();
                let failing = unwritten.is_some();
                let disk = DiskSpace {
                    free: space.available,
                    total: space.total,
                    reserve: space.reserve,
                    failing,
                };
                let detail = match unwritten {
                    _ if report.trouble.is_some() => report.trouble,
                    _ if space.is_low() => {
                        Some("nearly full: downloads are served but not kept".to_owned())
                    }
                    Some(why) => Some(format!("the last download was served but not kept: {why}")),
                    None => None,
                };
                (
                    BackendHealth {
                        // A store that fails later leaves what is here to serve.
                        ok: !report.is_waiting,
                        kind,
                        detail,
                    },
                    Some(disk),
                )
            }
            Err(error) => (
                BackendHealth {
                    ok: false,
                    kind,
                    detail: Some(error.to_string()),
                },
                None,
            ),
        }
    }
}

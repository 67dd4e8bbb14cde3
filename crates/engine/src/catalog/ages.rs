//! How old the files are that quarantine judges, whether they are held or not (docs/adr/0110).

use std::time::Duration;

use larder_core::{ArtifactRecord, Content, RepositoryName, StoredHeaders, UnixMillis, believed};
use larder_storage::{Age, StorageError, StorageErrorKind};
use tokio::time::timeout;

use super::noted::is_judged;
use super::state::Catalog;
use crate::target::Target;

/// So long a server is waited for that did not answer the last time.
const WAIT_WHILE_AWAY: Duration = Duration::from_millis(500);
/// What nobody has asked an upstream for this long, and the longest hold beside, is forgotten unless it is held: beyond a year even what is used
/// once a year.
const KEPT: Duration = Duration::from_hours(400 * 24);

impl Catalog {
    /// What is known of how old a file is that is not held, as the record that it would have; `None` also where quarantine does not ask.
    ///
    /// # Errors
    /// The database does not answer: then the file may be younger than its upstream says.
    pub(crate) async fn age(
        &self,
        wanted: &Target,
    ) -> Result<Option<ArtifactRecord>, StorageError> {
        if !is_judged(wanted, wanted.class) {
            return Ok(None);
        }
        let read = self.metadata.age(&wanted.key);
        let age = if self.metadata.is_away() {
            let away = |_| {
                let message = "the metadata database does not answer";
                Err(StorageError::new(StorageErrorKind::Unavailable, message))
            };
            timeout(WAIT_WHILE_AWAY, read).await.unwrap_or_else(away)?
        } else {
            read.await?
        };
        let now = self.now();
        Ok(age.map(|age| believed(of_age(age, now), now)))
    }

    /// Writes down how old files of a repository are of which that is not known yet.
    ///
    /// # Errors
    /// The database does not take it.
    pub(crate) async fn add_ages(
        &self,
        repository: &RepositoryName,
        ages: &[(String, String, Age)],
    ) -> Result<(), StorageError> {
        self.metadata.add_ages(repository, ages).await
    }

    /// Forgets how old files are that nobody has asked for in more than a year, where none is held for longer than `longest_hold`.
    ///
    /// # Errors
    /// The database does not take it.
    pub(crate) async fn forget_ages(&self, longest_hold: Duration) -> Result<(), StorageError> {
        let now = self.now();
        let kept = KEPT.saturating_add(longest_hold).as_millis();
        let kept = i64::try_from(kept).unwrap_or(i64::MAX);
        let before = UnixMillis(now.0.saturating_sub(kept));
        self.metadata.forget_ages(before, now).await
    }
}

fn of_age(age: Age, now: UnixMillis) -> ArtifactRecord {
    ArtifactRecord {
        content: age.blob.map_or(Content::HeadOnly, Content::Blob),
        headers: StoredHeaders::default(),
        source_url: String::new(),
        published_at: age.published_at,
        first_seen_at: age.first_seen_at,
        contacted_at: age.contacted_at,
        fresh_since: age.contacted_at,
        served_since: now,
        verified: false,
    }
}

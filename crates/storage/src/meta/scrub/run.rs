//! The work of a scrub: blob after blob in the order of digests, so that it goes on where it was when a process ends.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use larder_core::{BlobDescriptor, Clock, Digest, UnixMillis};
use tokio::time::{MissedTickBehavior, interval};

use super::{DamagedBlob, failed};
use crate::blob::{BlobStore, Rate, check};
use crate::error::StorageError;
use crate::meta::copy::NamedBlobs;
use crate::meta::db::{DbError, Durability, Sql, locking};
use crate::meta::{MetadataStore, parse_digest};

/// Blobs that are written down together when they have been read, and at most so many bytes of them, so that it shows how far it has come.
const PAGE: u32 = 200;
const PAGE_BYTES: u64 = 128 << 20;
/// Blobs that are read at once.
const AT_ONCE: usize = 8;
/// How long a scrub is left to a process that is not heard of, and how often one is heard of.
const LEASE: Duration = Duration::from_secs(20);
const RENEW: Duration = Duration::from_secs(2);

const OLDEST: &str = "SELECT id FROM scrubs WHERE ended_at IS NULL ORDER BY id LIMIT 1";
const LOCK: Sql = locking!(
    "SELECT rate, place, runner, lease_until FROM scrubs WHERE id = $1 AND ended_at IS NULL"
);
const TAKE: &str = "UPDATE scrubs SET runner = $2, lease_until = $3 WHERE id = $1";
const RENEWED: &str =
    "UPDATE scrubs SET lease_until = $3 WHERE id = $1 AND runner = $2 AND ended_at IS NULL";
const GOT_ON: &str = "UPDATE scrubs SET place = $3, blobs = blobs + $4, bytes = bytes + $5 \
     WHERE id = $1 AND runner = $2 AND ended_at IS NULL";
/// One that is found once more, because a process ended before it had written down how far it had come, keeps its number.
const FOUND: &str = "INSERT INTO scrub_findings (scrub, number, digest, repository, path, kind, flaw, outcome) \
     SELECT $1, COALESCE(MAX(number), 0) + 1, $2, $3, $4, $5, $6, $7 FROM scrub_findings WHERE scrub = $1 \
     ON CONFLICT (scrub, digest, repository, path, kind) DO UPDATE SET flaw = excluded.flaw, outcome = excluded.outcome";
const END: &str = "UPDATE scrubs SET state = 'done', ended_at = $3, runner = '', lease_until = 0 \
     WHERE id = $1 AND runner = $2 AND ended_at IS NULL";
/// One that has come to its end has looked at all that earlier ones have found.
const FORGET_FINDINGS: &str = "DELETE FROM scrub_findings WHERE scrub < $1";
const FORGET: &str = "DELETE FROM scrubs WHERE id < $1";

/// What became of one name of a damaged blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The repository.
    pub repository: String,
    /// Decoded path below it, without a query; empty for a derived document.
    pub path: String,
    /// `local`, `cached` or `derived`.
    pub kind: &'static str,
    /// `kept`, `restored`, `forgotten` or `refetched`.
    pub outcome: &'static str,
}

impl Named {
    /// The names of a damaged blob, as they are when what can be had again is forgotten. `path_of` finds the path in the key of a record.
    pub fn all_of(damaged: &DamagedBlob, path_of: PathOf) -> Vec<Self> {
        let users = &damaged.users;
        let name = |repository: &str, path: &str, kind, outcome| Self {
            repository: repository.to_owned(),
            path: path.to_owned(),
            kind,
            outcome,
        };
        let files = users.files.iter();
        let mut all: Vec<Self> = files
            .map(|(repository, path)| name(repository, path, "local", "kept"))
            .collect();
        for (repository, keys) in &users.records {
            // Variants of a path are one name, and so are queries.
            let paths = keys.iter().map(|(path, variant)| path_of(path, variant));
            let paths: BTreeSet<&str> = paths.collect();
            let paths = paths.into_iter();
            all.extend(paths.map(|path| name(repository, path, "cached", "forgotten")));
        }
        let derived = users.derived.iter();
        all.extend(derived.map(|(repository, _)| name(repository, "", "derived", "forgotten")));
        all
    }
}

/// Finds the path in a record's path, which may have a query, and variant.
pub type PathOf = for<'p> fn(&'p str, &str) -> &'p str;

/// Who sees to what a scrub finds.
pub trait Mend: Send + Sync {
    /// What finds the path in the key of a record.
    fn path_of(&self) -> PathOf;

    /// A blob has been read, of so many bytes.
    fn looked_at(&self, bytes: u64);

    /// A blob is not what it should be: what can be had again is to be forgotten. Gives what became of all its names.
    ///
    /// # Errors
    /// Storage fails; the blob will be looked at again.
    fn mend<'a>(
        &'a self,
        damaged: &'a DamagedBlob,
    ) -> BoxFuture<'a, Result<Vec<Named>, StorageError>>;
}

/// A scrub that this process works on.
struct Claim<'c> {
    id: String,
    runner: &'c str,
    rate: Rate,
    place: Option<Digest>,
    /// Held while a finding is numbered.
    numbering: tokio::sync::Mutex<()>,
}

impl MetadataStore {
    /// Works on the scrub that is under way until it has ended, is cancelled, or is another process's; `false` if there is none, or another
    /// process works on it. Files are read and hashed on the pool for blocking work, a few at a time. `runner` is a name that no other
    /// process has.
    ///
    /// # Errors
    /// Storage fails: the next call goes on.
    pub async fn run_scrub(
        &self,
        blobs: &Arc<dyn BlobStore>,
        runner: &str,
        clock: &dyn Clock,
        mend: &dyn Mend,
    ) -> Result<bool, StorageError> {
        let claimed = self.claim_scrub(runner, clock.now()).await;
        let Some(mut claim) = self.noticed(claimed.map_err(failed))? else {
            return Ok(false);
        };
        loop {
            let page = self.named_blobs(NamedBlobs::All, claim.place.as_ref(), PAGE);
            let page = short(page.await?);
            let Some(last) = page.last().map(|blob| blob.digest.clone()) else {
                let ended = self.end_scrub(&claim, clock.now()).await;
                self.noticed(ended.map_err(failed))?;
                return Ok(true);
            };
            let has_looked = self.look_in_time(&claim, &page, clock, blobs, mend).await?;
            let got_on = self.got_on(&claim, &page, &last).await;
            if !has_looked || !self.noticed(got_on.map_err(failed))? {
                return Ok(true);
            }
            claim.place = Some(last);
        }
    }

    /// Looks at some blobs, and keeps the lease meanwhile; `false` if the scrub is not this process's to work on any more.
    async fn look_in_time(
        &self,
        claim: &Claim<'_>,
        page: &[BlobDescriptor],
        clock: &dyn Clock,
        blobs: &Arc<dyn BlobStore>,
        mend: &dyn Mend,
    ) -> Result<bool, StorageError> {
        let mut renewal = interval(RENEW);
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Polled beside the work and not in its place: the work may hold the one connection that writes, and go on only if it is polled.
        let renew = async {
            loop {
                renewal.tick().await;
                let renewed = self.renew_scrub(claim, clock.now()).await;
                if !self.noticed(renewed.map_err(failed))? {
                    return Ok(false);
                }
            }
        };
        tokio::select! {
            looked = self.look_at(claim, page, blobs, mend) => looked.map(|()| true),
            lost = renew => lost,
        }
    }

    async fn claim_scrub<'c>(
        &self,
        runner: &'c str,
        now: UnixMillis,
    ) -> Result<Option<Claim<'c>>, DbError> {
        let Some(oldest) = self.db().optional(OLDEST, &[]).await? else {
            return Ok(None);
        };
        let id: String = oldest.get(0)?;
        let mut tx = self.db().begin(Durability::Grouped).await?;
        let row = tx.optional(LOCK, &[(&*id).into()]).await?;
        let Some(row) = row else { return Ok(None) };
        let (holder, lease): (String, i64) = (row.get(2)?, row.get(3)?);
        // A file is one process's own: whoever held a lease there is gone.
        let is_free = self.db().is_file() || holder == runner || lease <= now.0;
        if !is_free {
            return Ok(None);
        }
        let values = [(&*id).into(), runner.into(), now.plus(LEASE).0.into()];
        tx.execute(TAKE, &values).await?;
        tx.commit().await?;
        Ok(Some(Claim {
            rate: Rate::new(row.get::<i64>(0)?.unsigned_abs()),
            place: parse_digest(&row.get::<String>(1)?).ok(),
            id,
            runner,
            numbering: tokio::sync::Mutex::default(),
        }))
    }

    async fn renew_scrub(&self, claim: &Claim<'_>, now: UnixMillis) -> Result<bool, DbError> {
        let values = [
            (&*claim.id).into(),
            claim.runner.into(),
            now.plus(LEASE).0.into(),
        ];
        Ok(self.db().execute(RENEWED, &values).await? > 0)
    }

    async fn look_at(
        &self,
        claim: &Claim<'_>,
        page: &[BlobDescriptor],
        blobs: &Arc<dyn BlobStore>,
        mend: &dyn Mend,
    ) -> Result<(), StorageError> {
        // Boxed, so that what is awaited does not depend on the lifetime of an item.
        let looks = page.iter().map(|blob| {
            Box::pin(self.look_at_one(claim, blob, blobs, mend))
                as BoxFuture<'_, Result<(), StorageError>>
        });
        let looks: Vec<_> = looks.collect();
        let mut looks = futures_util::stream::iter(looks).buffer_unordered(AT_ONCE);
        while let Some(looked) = looks.next().await {
            looked?;
        }
        Ok(())
    }

    async fn look_at_one(
        &self,
        claim: &Claim<'_>,
        blob: &BlobDescriptor,
        blobs: &Arc<dyn BlobStore>,
        mend: &dyn Mend,
    ) -> Result<(), StorageError> {
        let mut flaw = check(&**blobs, blob, &claim.rate).await?;
        if flaw.is_some() {
            // Memory and cables err too, and not twice in the same way.
            flaw = check(&**blobs, blob, &claim.rate).await?;
        }
        mend.looked_at(blob.size);
        let Some(flaw) = flaw else { return Ok(()) };
        let users = self.users_of_blob(&blob.digest).await?;
        if users.is_empty() {
            // It has been let go meanwhile.
            return Ok(());
        }
        let damaged = DamagedBlob {
            blob: blob.clone(),
            flaw,
            users,
        };
        // Before anything is forgotten, so that it is told whatever happens.
        let names = Named::all_of(&damaged, mend.path_of());
        self.note_found(claim, &damaged, &names).await?;
        let mended = mend.mend(&damaged).await?;
        if mended != names {
            self.note_found(claim, &damaged, &mended).await?;
        }
        Ok(())
    }

    async fn note_found(
        &self,
        claim: &Claim<'_>,
        damaged: &DamagedBlob,
        names: &[Named],
    ) -> Result<(), StorageError> {
        let _alone = claim.numbering.lock().await;
        let noted = async {
            let mut tx = self.db().begin(Durability::Grouped).await?;
            for name in names {
                let values = [
                    (&*claim.id).into(),
                    damaged.blob.digest.to_string().into(),
                    (&*name.repository).into(),
                    (&*name.path).into(),
                    name.kind.into(),
                    damaged.flaw.as_str().into(),
                    name.outcome.into(),
                ];
                tx.execute(FOUND, &values).await?;
            }
            tx.commit().await
        };
        self.noticed(noted.await.map_err(failed))
    }

    /// Writes down how far it has come; `false` if it is not this process's to work on any more.
    async fn got_on(
        &self,
        claim: &Claim<'_>,
        page: &[BlobDescriptor],
        last: &Digest,
    ) -> Result<bool, DbError> {
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let bytes = page.iter().map(|blob| blob.size).sum();
        let values = [
            (&*claim.id).into(),
            claim.runner.into(),
            last.to_string().into(),
            number(page.len() as u64).into(),
            number(bytes).into(),
        ];
        Ok(self.db().execute(GOT_ON, &values).await? > 0)
    }

    async fn end_scrub(&self, claim: &Claim<'_>, now: UnixMillis) -> Result<(), DbError> {
        let mut tx = self.db().begin(Durability::Grouped).await?;
        let values = [(&*claim.id).into(), claim.runner.into(), now.0.into()];
        if tx.execute(END, &values).await? > 0 {
            tx.execute(FORGET_FINDINGS, &[(&*claim.id).into()]).await?;
            tx.execute(FORGET, &[(&*claim.id).into()]).await?;
        }
        tx.commit().await
    }
}

/// As many of the blobs as are not too long together, and one at least.
fn short(mut page: Vec<BlobDescriptor>) -> Vec<BlobDescriptor> {
    let mut bytes = 0_u64;
    let most = page.iter().take_while(|blob| {
        bytes = bytes.saturating_add(blob.size);
        bytes <= PAGE_BYTES
    });
    let most = most.count().max(1);
    page.truncate(most);
    page
}

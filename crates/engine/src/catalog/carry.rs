//! Records that come out of an archive: written as they were where nothing newer is known, together with the dropping of what they
//! contradict, in one transaction.

use larder_core::{ArtifactRecord, SourceKey, UnixMillis};
use larder_storage::{Age, BlobInfo, Change, Expected, StorageError};

use super::bounds::Coming;
use super::commit::Exclusive;
use super::state::{Catalog, bytes_of, superseded};
use crate::repositories::RepositoryState;

/// A record that comes out of an archive.
#[derive(Debug)]
pub(crate) struct Carried {
    pub(crate) key: SourceKey,
    pub(crate) record: ArtifactRecord,
    /// Its bytes, which are in the store.
    pub(crate) blob: Option<BlobInfo>,
    /// When it expires, if it does.
    pub(crate) expires: Option<UnixMillis>,
    /// How old it is, where quarantine judges it by that.
    pub(crate) age: Option<Age>,
}

/// What became of records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct CarriedIn {
    pub(crate) written: u64,
    /// What is known of these is as new, or newer.
    pub(crate) kept: u64,
    /// For these there is no room within the bounds.
    pub(crate) no_room: Vec<SourceKey>,
}

impl Exclusive<'_> {
    /// Writes the records of one repository, drops the held files that documents among them contradict, tells downloads of such files so by
    /// `restate`, and makes what was served of it before void.
    ///
    /// # Errors
    /// The database does not take them: nothing is written or dropped then.
    pub(crate) async fn carry_in(
        &self,
        entry: &RepositoryState,
        carried: Vec<Carried>,
        contradicted: &[SourceKey],
        restate: &(dyn Fn() -> bool + Send + Sync),
    ) -> Result<CarriedIn, StorageError> {
        let catalog = self.catalog;
        let mut came = CarriedIn::default();
        let mut news = Vec::with_capacity(carried.len());
        for one in carried {
            // What is dropped is not newer than anything.
            let is_dropped = contradicted.contains(&one.key);
            let held = catalog.metadata.record(&one.key).await?;
            let held = held.filter(|_| !is_dropped);
            if held.is_some_and(|held| held.contacted_at >= one.record.contacted_at) {
                came.kept += 1;
            } else {
                news.push(one);
            }
        }
        let news = catalog.with_room(news, &mut came).await;
        if news.is_empty() && contradicted.is_empty() {
            return Ok(came);
        }
        let keys: Vec<SourceKey> = news.iter().map(|one| one.key.clone()).collect();
        let drops = contradicted.iter().cloned();
        let drops = drops.map(|key| Change::DeleteRecord { key });
        let changes = drops.chain(news.into_iter().flat_map(changes_of));
        let applied =
            catalog
                .metadata
                .apply_by(catalog.writer, changes.collect(), superseded(entry));
        let left = applied.await?.left.len() as u64;
        came.kept += left;
        came.written = keys.len() as u64 - left;
        for key in keys.iter().chain(contradicted) {
            catalog.absences.remove(key);
            catalog.records.remove(key);
        }
        // Answers from downloads that are told so carry the epoch of before.
        restate();
        entry.arrived();
        entry.bump();
        Ok(came)
    }
}

impl Catalog {
    /// Those that may be kept, for which room is made.
    async fn with_room(&self, news: Vec<Carried>, came: &mut CarriedIn) -> Vec<Carried> {
        let of_one = |one: &Carried| -> Coming {
            let size = one.blob.as_ref().map_or(0, |blob| blob.descriptor.size);
            (one.key.repository.clone(), size)
        };
        let coming: Vec<Coming> = news.iter().map(of_one).collect();
        let mut fits = self.make_room_for(&coming).await.into_iter();
        let mut kept = news;
        kept.retain(|one| {
            let fits = fits.next().unwrap_or(true) || one.blob.is_none();
            if !fits {
                came.no_room.push(one.key.clone());
            }
            fits
        });
        kept
    }
}

fn changes_of(one: Carried) -> impl Iterator<Item = Change> {
    let Carried {
        key,
        record,
        blob,
        expires,
        age,
    } = one;
    let expected = Expected::NotLater {
        heard_of: record.contacted_at,
        but: bytes_of(&record),
    };
    let expires = expires.map(|at| Change::Expires {
        key: key.clone(),
        at,
    });
    let age = age.map(|age| Change::NoteAge {
        key: key.clone(),
        age,
    });
    let put = Change::PutRecord { key, record, blob };
    let put = Change::If {
        expected,
        change: Box::new(put),
    };
    std::iter::once(put).chain(expires).chain(age)
}

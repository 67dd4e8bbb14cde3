//! How old files of quarantined repositories are, apart from their records: neither a flush nor an eviction makes them older or younger
//! (docs/adr/0110).

use larder_core::{ArtifactRecord, BlobDescriptor, Content, RepositoryName, SourceKey, UnixMillis};

use super::artifacts::key_length;
use super::db::{DbError, Durability, Row, Sql, Value};
use super::{MetadataStore, Tx};
use crate::error::{StorageError, StorageErrorKind};

/// Dates of equal bytes never move, and what is known without bytes takes no bytes' place.
const NOTE: &str = "INSERT INTO ages (repository, path, variant, digest, size, published_at, first_seen_at, contacted_at) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (repository, path, variant) DO UPDATE SET \
     published_at = CASE WHEN excluded.digest = ages.digest THEN ages.published_at ELSE excluded.published_at END, \
     first_seen_at = CASE WHEN excluded.digest = ages.digest THEN ages.first_seen_at ELSE excluded.first_seen_at END, \
     digest = excluded.digest, size = excluded.size, contacted_at = excluded.contacted_at \
     WHERE excluded.digest IS NOT NULL OR ages.digest IS NULL";
/// Those of a list `[[path, variant, digest, size, published, first seen, last contact], …]` that are not there yet.
const ADD: Sql = Sql {
    sqlite: "INSERT INTO ages (repository, path, variant, digest, size, published_at, first_seen_at, contacted_at) \
         SELECT $1, json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'), json_extract(value, '$[3]'), \
         json_extract(value, '$[4]'), json_extract(value, '$[5]'), json_extract(value, '$[6]') FROM json_each($2) WHERE TRUE \
         ON CONFLICT (repository, path, variant) DO NOTHING",
    postgres: "INSERT INTO ages (repository, path, variant, digest, size, published_at, first_seen_at, contacted_at) \
         SELECT $1, k ->> 0, k ->> 1, k ->> 2, (k ->> 3)::bigint, (k ->> 4)::bigint, (k ->> 5)::bigint, (k ->> 6)::bigint \
         FROM json_array_elements($2::json) AS k ON CONFLICT (repository, path, variant) DO NOTHING",
};
const GET: &str = "SELECT digest, size, published_at, first_seen_at, contacted_at FROM ages \
     WHERE repository = $1 AND path = $2 AND variant = $3";
const OLD: &str = "SELECT repository, path, variant FROM ages WHERE contacted_at < $1 ORDER BY contacted_at LIMIT $2";
/// What is still held is looked at again when it would be old once more.
const STILL_HELD: &str = "UPDATE ages SET contacted_at = $4 WHERE repository = $1 AND path = $2 AND variant = $3 \
     AND EXISTS (SELECT 1 FROM artifacts AS a WHERE a.repository = $1 AND a.path = $2 AND a.variant = $3)";
const FORGET: &str =
    "DELETE FROM ages WHERE repository = $1 AND path = $2 AND variant = $3 AND contacted_at < $4";

/// Rows that are looked at in one transaction.
const TOGETHER: u32 = 200;

/// How old a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Age {
    /// The bytes whose dates these are; `None`: none have been had yet.
    pub blob: Option<BlobDescriptor>,
    /// When they were published, if anybody stated it.
    pub published_at: Option<UnixMillis>,
    /// When they were seen first.
    pub first_seen_at: UnixMillis,
    /// When the upstream was asked last.
    pub contacted_at: UnixMillis,
}

impl Age {
    /// That of the file that a record is about; `None` if it is about none of its own.
    pub fn of(record: &ArtifactRecord) -> Option<Self> {
        let blob = match &record.content {
            Content::Blob(blob) => Some(blob.clone()),
            Content::HeadOnly => None,
            Content::Pointer(_) | Content::Negative { .. } => return None,
        };
        Some(Self {
            blob,
            published_at: record.published_at,
            first_seen_at: record.first_seen_at,
            contacted_at: record.contacted_at,
        })
    }

    fn digest(&self) -> Option<String> {
        self.blob.as_ref().map(|blob| blob.digest.to_string())
    }

    fn size(&self) -> Option<i64> {
        self.blob.as_ref().map(|blob| blob.size as i64)
    }

    /// `None` for a row that is not what was written.
    fn read(row: &Row) -> Result<Option<Self>, DbError> {
        let (digest, size): (Option<String>, Option<i64>) = (row.get(0)?, row.get(1)?);
        let blob = match digest.map(|digest| digest.parse()).transpose() {
            Ok(digest) => digest.zip(size).map(|(digest, size)| BlobDescriptor {
                digest,
                size: size.unsigned_abs(),
            }),
            Err(_) => return Ok(None),
        };
        Ok(Some(Self {
            blob,
            published_at: row.get::<Option<i64>>(2)?.map(UnixMillis),
            first_seen_at: UnixMillis(row.get(3)?),
            contacted_at: UnixMillis(row.get(4)?),
        }))
    }
}

impl MetadataStore {
    /// How old a file is, as far as that is known apart from its record. A row in a damaged part of the database counts as absent.
    ///
    /// # Errors
    /// The database does not answer: then nothing is known of the age, and not that there is none.
    pub async fn age(&self, key: &SourceKey) -> Result<Option<Age>, StorageError> {
        let row = self.db().optional(GET, &names(key)).await;
        let age = row.and_then(|row| Ok(row.as_ref().map(Age::read).transpose()?.flatten()));
        match self.noticed(age.map_err(failed)) {
            Err(error) if error.kind == StorageErrorKind::Corrupt => Ok(None),
            read => read,
        }
    }

    /// Writes down ages of a repository's files, by path and variant, of which none is known yet.
    ///
    /// # Errors
    /// The database does not take them.
    pub async fn add_ages(
        &self,
        repository: &RepositoryName,
        ages: &[(String, String, Age)],
    ) -> Result<(), StorageError> {
        let mut rows: Vec<_> = ages
            .iter()
            .map(|(path, variant, age)| {
                let published = age.published_at.map(|at| at.0);
                let times = (published, age.first_seen_at.0, age.contacted_at.0);
                let (digest, size) = (age.digest(), age.size());
                (path, variant, digest, size, times.0, times.1, times.2)
            })
            .collect();
        // Whoever locks several rows does so in their order.
        rows.sort_unstable();
        // Texts and numbers are all that is in it, and those can be written.
        let list = serde_json::to_string(&rows).unwrap_or_default();
        let values = [repository.as_str().into(), list.into()];
        let added = self.db().execute(ADD, &values).await;
        self.noticed(added.map(drop).map_err(failed))
    }

    /// Forgets the ages of files that no upstream was asked for since `before`, unless they are held.
    ///
    /// # Errors
    /// The database does not take it; the next call goes on.
    pub async fn forget_ages(
        &self,
        before: UnixMillis,
        now: UnixMillis,
    ) -> Result<(), StorageError> {
        let forgotten = async {
            let few = [before.0.into(), i64::from(TOGETHER).into()];
            loop {
                let rows = self.db().all(OLD, &few).await?;
                let mut tx = self.db().begin(Durability::Grouped).await?;
                for row in &rows {
                    let place: [String; 3] = [row.get(0)?, row.get(1)?, row.get(2)?];
                    let at = |time: UnixMillis| -> [Value<'_>; 4] {
                        let [repository, path, variant] = place.each_ref().map(|text| &**text);
                        let time = time.0.max(before.0);
                        [repository.into(), path.into(), variant.into(), time.into()]
                    };
                    tx.execute(STILL_HELD, &at(now)).await?;
                    tx.execute(FORGET, &at(before)).await?;
                }
                tx.commit().await?;
                if rows.len() < TOGETHER as usize {
                    return Ok(());
                }
            }
        };
        self.noticed(forgotten.await.map_err(failed))
    }
}

/// Writes down the age of a file that an upstream was asked for.
pub(super) async fn note(tx: &mut Tx, key: &SourceKey, age: &Age) -> Result<(), DbError> {
    if !tx.takes_key(key_length(key)) {
        return Ok(());
    }
    let [repository, path, variant] = names(key);
    let values = [
        repository,
        path,
        variant,
        age.digest().into(),
        age.size().into(),
        age.published_at.map(|at| at.0).into(),
        age.first_seen_at.0.into(),
        age.contacted_at.0.into(),
    ];
    tx.execute(NOTE, &values).await.map(drop)
}

fn names(key: &SourceKey) -> [Value<'_>; 3] {
    [
        key.repository.as_str().into(),
        (*key.path).into(),
        (*key.variant).into(),
    ]
}

fn failed(error: DbError) -> StorageError {
    StorageError::from_sql("look up or keep how old a file is", error)
}

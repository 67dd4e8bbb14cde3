//! What a database knows of being copied: whether it is the unfinished copy of another one, which one that is, and who else is at work.

use larder_core::sha256;
use serde::{Deserialize, Serialize};

use super::tables::TABLES;
use crate::error::{StorageError, StorageErrorKind};
use crate::meta::MetadataStore;
use crate::meta::db::{DbError, Durability, Sql};
use crate::meta::seal::{Unsealed, seal, unseal};
use crate::meta::secrets::{from_hex, to_hex};

/// The row among the secrets that says of which database this one is a copy.
const NAME: &str = "migration";
/// The secret that is another one in each installation, and the same in its copies.
const LINK_KEY: &str = "link_key";
const GET: &str = "SELECT value FROM secrets WHERE name = $1";
const PUT: &str = "INSERT INTO secrets (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
const DELETE: &str = "DELETE FROM secrets WHERE name = $1";
const HAS_DERIVATIONS: &str = "SELECT COUNT(*) FROM (SELECT 1 FROM derivations LIMIT 1) AS d";
/// Changes that were noted for other users; SQLite's file has none.
const POSITION: Sql = Sql {
    sqlite: "SELECT 0",
    postgres: "SELECT COALESCE(MAX(sequence), 0) FROM feed",
};
/// Sessions of the same user that have asked something of late: a larder that runs asks several times a second. Those of other users
/// (monitoring, backup) do not show.
const OTHERS: Sql = Sql {
    sqlite: "SELECT '' WHERE 0",
    postgres: "SELECT DISTINCT COALESCE(host(client_addr), 'a local socket') FROM pg_stat_activity \
         WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid() \
         AND (state <> 'idle' OR state_change > clock_timestamp() - interval '2 seconds') ORDER BY 1",
};

/// A copy into a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migration {
    /// What tells the source's installation from others: [`MetadataStore::installation`].
    pub source: String,
    /// Where the source is, for operators.
    pub from: String,
    /// Whether it is complete and verified.
    pub is_done: bool,
}

impl MetadataStore {
    /// The copy that this database is, unless a larder has taken it into use since it was complete.
    ///
    /// # Errors
    /// The database fails, or the row is damaged.
    pub async fn migration(&self) -> Result<Option<Migration>, StorageError> {
        let Some(text) = self.sealed(NAME).await? else {
            return Ok(None);
        };
        let parsed = serde_json::from_str(&text).map_err(|error| StorageError {
            kind: StorageErrorKind::Corrupt,
            message: "what the metadata database says of its migration cannot be read".to_owned(),
            source: Some(Box::new(error)),
        });
        parsed.map(Some)
    }

    /// Notes that this database is a copy. On stable storage, with all that was written before, when this returns.
    ///
    /// # Errors
    /// The database fails.
    pub async fn note_migration(&self, migration: &Migration) -> Result<(), StorageError> {
        let text = serde_json::to_string(migration).map_err(|error| StorageError {
            kind: StorageErrorKind::Io,
            message: "cannot note a migration".to_owned(),
            source: Some(Box::new(error)),
        })?;
        self.put_sealed(NAME, &text).await
    }

    /// The copy is complete, and from now on a database like any other.
    ///
    /// # Errors
    /// The database fails.
    pub async fn end_migration(&self) -> Result<(), StorageError> {
        let deleted = self.db().execute(DELETE, &[NAME.into()]).await;
        deleted
            .map(drop)
            .map_err(|error| StorageError::from_sql("end a migration", error))
    }

    /// What tells this installation, and its copies, from others; `None` for a database that no larder has used yet. It says nothing of
    /// the secret that it is made of.
    ///
    /// # Errors
    /// The database fails, or the secret is damaged.
    pub async fn installation(&self) -> Result<Option<String>, StorageError> {
        let key = self.stored_secret_bytes(LINK_KEY).await?;
        Ok(key.map(|key| {
            let text = format!("larder installation {}", to_hex(&key));
            sha256(text.as_bytes()).to_hex().chars().take(32).collect()
        }))
    }

    /// A table that holds something, if any does.
    ///
    /// # Errors
    /// The database fails.
    pub async fn holds(&self) -> Result<Option<&'static str>, StorageError> {
        let db = self.db().patiently();
        let counts = TABLES.map(|table| (table.name, table.count));
        for (table, statement) in counts.into_iter().chain([("derivations", HAS_DERIVATIONS)]) {
            let count = db.one(statement, &[]).await;
            let count: i64 = count.and_then(|row| row.get(0)).map_err(looking)?;
            if count > 0 {
                return Ok(Some(table));
            }
        }
        Ok(None)
    }

    /// A secret, if there is one. Unlike [`secret_bytes`](Self::secret_bytes) this changes nothing.
    ///
    /// # Errors
    /// The database fails, or the secret is damaged.
    pub async fn stored_secret_bytes(&self, name: &str) -> Result<Option<Vec<u8>>, StorageError> {
        let text = self.sealed(name).await?;
        text.map(|text| from_hex(&text)).transpose()
    }

    /// Puts a secret in place of what there may be, on stable storage.
    ///
    /// # Errors
    /// The database fails.
    pub async fn put_secret_bytes(&self, name: &str, secret: &[u8]) -> Result<(), StorageError> {
        self.put_sealed(name, &to_hex(secret)).await
    }

    /// How many changes its users have noted for each other: another number later on means that somebody has written.
    ///
    /// # Errors
    /// The database fails.
    pub async fn noted_changes(&self) -> Result<i64, StorageError> {
        let row = self.db().one(POSITION, &[]).await;
        row.and_then(|row| row.get(0)).map_err(looking)
    }

    /// From where else the database is being used: a server's sessions of the same user that have asked something within the last two
    /// seconds. For this to tell others from this process, it must have been silent for longer.
    ///
    /// # Errors
    /// The database fails.
    pub async fn others_at_work(&self) -> Result<Vec<String>, StorageError> {
        let rows = self.db().all(OTHERS, &[]).await;
        let rows = rows.and_then(|rows| rows.iter().map(|row| row.get(0)).collect());
        rows.map_err(looking)
    }

    async fn sealed(&self, name: &str) -> Result<Option<String>, StorageError> {
        let row = self.db().optional(GET, &[name.into()]).await;
        let stored = row.and_then(|row| row.map(|row| row.get::<Vec<u8>>(0)).transpose());
        let Some(stored) = stored.map_err(looking)? else {
            return Ok(None);
        };
        match unseal(&[name], &String::from_utf8_lossy(&stored)) {
            Unsealed::Intact(text) | Unsealed::Bare(text) => Ok(Some(text.to_owned())),
            Unsealed::Damaged => Err(StorageError::new(
                StorageErrorKind::Corrupt,
                format!("the row {name:?} of the metadata database's secrets is damaged"),
            )),
        }
    }

    async fn put_sealed(&self, name: &str, text: &str) -> Result<(), StorageError> {
        let written = async {
            let tx = self.db().begin(Durability::Durable).await?;
            let values = vec![name.to_owned().into(), seal(&[name], text).into()];
            tx.commit_with(&[(PUT.into(), values)]).await
        };
        written
            .await
            .map_err(|error| StorageError::from_sql("note a migration", error))
    }
}

fn looking(error: DbError) -> StorageError {
    StorageError::from_sql("look into the metadata database", error)
}

//! Secrets that larder makes for itself, such as the key that signs links: chosen once, then the same for every start and replica.

use sqlx::Row as _;

use super::MetadataStore;
use crate::error::{StorageError, StorageErrorKind};

const OFFER: &str = "INSERT INTO secrets (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
const GET: &str = "SELECT value FROM secrets WHERE name = $1";

impl MetadataStore {
    /// The secret called `name`: `candidate` if there was none yet, else the one that was stored first.
    pub async fn secret_bytes(&self, name: &str, candidate: &[u8]) -> Result<Vec<u8>, StorageError> {
        let failed = |error| StorageError::from_sql("read a stored secret", error);
        if let Some(row) = sqlx::query(GET).bind(name).fetch_optional(&self.reader).await.map_err(failed)? {
            return from_hex(row.try_get(0).map_err(failed)?);
        }
        sqlx::query(OFFER).bind(name).bind(to_hex(candidate)).execute(&self.writer).await.map_err(failed)?;
        let row = sqlx::query(GET).bind(name).fetch_one(&self.writer).await.map_err(failed)?;
        from_hex(row.try_get(0).map_err(failed)?)
    }
}

fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn from_hex(text: &str) -> Result<Vec<u8>, StorageError> {
    let damaged = || StorageError::new(StorageErrorKind::Corrupt, "a stored secret cannot be read");
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return Err(damaged());
    }
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).map_err(|_| damaged())).collect()
}

//! Secrets that larder makes for itself, such as the key that signs links: chosen once, then the same for every start and replica.

use std::sync::PoisonError;

use super::MetadataStore;
use super::seal::{Unsealed, seal, unseal};
use crate::error::{StorageError, StorageErrorKind};

const OFFER: &str =
    "INSERT INTO secrets (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
const REPLACE: &str = "UPDATE secrets SET value = $2 WHERE name = $1";
const GET: &str = "SELECT value FROM secrets WHERE name = $1";

impl MetadataStore {
    /// The secret called `name`: `candidate` if there was none yet, or one that is damaged; else the one that was stored first.
    pub async fn secret_bytes(
        &self,
        name: &str,
        candidate: &[u8],
    ) -> Result<Vec<u8>, StorageError> {
        let result = self.stored_secret(name, candidate).await;
        let secret = match self.noticed(result) {
            // Larder cannot serve without: it waits for the database that takes the damaged one's place.
            Err(_) if self.replaced().await => self.stored_secret(name, candidate).await?,
            other => other?,
        };
        self.shared
            .secrets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.to_owned(), secret.clone());
        Ok(secret)
    }

    async fn stored_secret(&self, name: &str, candidate: &[u8]) -> Result<Vec<u8>, StorageError> {
        let failed = |error| StorageError::from_sql("read a stored secret", error);
        let offered = seal(&[name], &to_hex(candidate));
        let mut tx = self.begin().await.map_err(failed)?;
        let values = [name.into(), (&*offered).into()];
        tx.execute(OFFER, &values).await.map_err(failed)?;
        let stored = tx.optional(GET, &[name.into()]).await.map_err(failed)?;
        let stored: Vec<u8> = stored
            .map(|row| row.get(0))
            .transpose()
            .map_err(failed)?
            .unwrap_or_default();
        let stored = String::from_utf8_lossy(&stored);
        let (secret, replacement) = match unseal(&[name], &stored) {
            Unsealed::Intact(text) => (from_hex(text)?, None),
            // Of a version that knew no checksums.
            Unsealed::Bare(text) if from_hex(text).is_ok() => {
                (from_hex(text)?, Some(seal(&[name], text)))
            }
            Unsealed::Bare(_) | Unsealed::Damaged => {
                self.shared.damage.note_row("secret", name);
                (candidate.to_vec(), Some(offered))
            }
        };
        if let Some(replacement) = replacement {
            let values = [name.into(), replacement.into()];
            tx.execute(REPLACE, &values).await.map_err(failed)?;
        }
        tx.commit().await.map_err(failed)?;
        Ok(secret)
    }

    /// Puts the secrets that this process uses into a database that has been begun anew, so that links made before stay good.
    pub(super) async fn restore_secrets(&self) -> Result<(), StorageError> {
        let secrets = self
            .shared
            .secrets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for (name, secret) in secrets {
            self.stored_secret(&name, &secret).await?;
        }
        Ok(())
    }
}

pub(super) fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub(super) fn from_hex(text: &str) -> Result<Vec<u8>, StorageError> {
    let damaged = || StorageError::new(StorageErrorKind::Corrupt, "a stored secret cannot be read");
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return Err(damaged());
    }
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).map_err(|_| damaged()))
        .collect()
}

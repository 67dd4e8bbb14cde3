//! Names that stand for bytes which another name states by digest: an OCI tag and its manifest. Knows how the one is answered from
//! the other; which names these are is the format's knowledge (`Protocol::by_digest`).

use std::sync::Arc;

use larder_core::{
    ArtifactRecord, CacheStatus, Content, Digest, Fault, ForwardReason, Source, SourceKey,
    StoredHeaders, UnixMillis,
};
use larder_storage::StorageError;

use super::copies::{Copies, Copy};
use crate::catalog::Epoch;
use crate::target::Target;
use crate::transfer::flight::Settled;

impl Target {
    /// The source that names the bytes by `digest`.
    fn by_digest(&self, digest: &Digest) -> Option<Self> {
        if !self.facts.has_name_by_digest {
            return None;
        }
        let spec = self.format.by_digest(&self.spec, digest)?;
        Some(self.same_bytes(spec))
    }
}

impl Copies {
    /// The name by digest under which new bytes are to be remembered too, unless they are already, and what is to be remembered: they are as
    /// old there as they have been under that name.
    pub(super) async fn unheld_by_digest(
        &self,
        wanted: &Target,
        record: &ArtifactRecord,
    ) -> Option<(SourceKey, Arc<ArtifactRecord>)> {
        let blob = record.blob()?;
        // The name that clients are told: the upstream's, where it states one.
        let named = wanted.by_digest(record.headers.digest.as_ref().unwrap_or(&blob.digest))?;
        let held = self.catalog.known(&named.key).await;
        if held.is_some_and(|held| held.blob().is_some()) {
            return None;
        }
        let mut also = ArtifactRecord {
            verified: true,
            ..record.clone()
        };
        if let Some(age) = self.catalog.age(&named).await.ok()? {
            (also.published_at, also.first_seen_at) = (age.published_at, age.first_seen_at);
        }
        Some((named.key, Arc::new(also)))
    }

    /// The bytes with that digest, if they are held under their name by digest.
    async fn held_by_digest(&self, wanted: &Target, digest: &Digest) -> Option<Copy> {
        let named = wanted.by_digest(digest)?;
        let record = self.catalog.known(&named.key).await?;
        let open = self.catalog.open_held(&named, &record).await?;
        Some((record, open))
    }

    /// The upstream says that a name stands for other bytes than before, which are held: they need not be fetched.
    pub(super) async fn switch_to(
        &self,
        wanted: &Target,
        digest: &Digest,
        prior: &ArtifactRecord,
    ) -> Option<Settled> {
        let (held, open) = self.held_by_digest(wanted, digest).await?;
        let now = self.now();
        let served_since = if held.blob() == prior.blob() {
            prior.served_since
        } else {
            now
        };
        let record = Arc::new(named(&held, digest, [now, now, served_since]));
        let status = CacheStatus {
            forward: Some(ForwardReason::Stale),
            forward_status: Some(200),
            ..CacheStatus::default()
        };
        Some(Settled {
            record,
            body: open,
            status,
            source: Source::Cache,
            reusable: true,
            document: None,
        })
    }

    /// What is held of a target, by its own name or by that of its bytes.
    ///
    /// # Errors
    /// The database does not answer.
    pub(crate) async fn held(
        &self,
        target: &Target,
    ) -> Result<Option<Arc<ArtifactRecord>>, StorageError> {
        let record = self.catalog.record(&target.key).await?;
        if let Some(pointer) = &record
            && let Some((held, _)) = self.follow_pointer(target, pointer).await
        {
            return Ok(Some(held));
        }
        Ok(record)
    }

    /// A name of which a forwarded HEAD has told the digest only: its record with the bytes, if they are held by now.
    pub(crate) async fn follow_pointer(
        &self,
        wanted: &Target,
        pointer: &ArtifactRecord,
    ) -> Option<Copy> {
        let (Content::Pointer(_), Some(digest)) = (&pointer.content, &pointer.headers.digest)
        else {
            return None;
        };
        let (held, open) = self.held_by_digest(wanted, digest).await?;
        let times = [
            pointer.contacted_at,
            pointer.fresh_since,
            pointer.served_since,
        ];
        Some((Arc::new(named(&held, digest, times)), open))
    }

    /// Remembers which digest a forwarded HEAD told, so that the next request needs no other. `epoch` is that of before the HEAD: what a
    /// flush has overtaken is not remembered.
    pub(super) async fn remember_digest(
        &self,
        wanted: &Target,
        told: &ArtifactRecord,
        epoch: &Epoch,
    ) -> Result<(), Fault> {
        let Some(named) = told
            .headers
            .digest
            .as_ref()
            .and_then(|digest| wanted.by_digest(digest))
        else {
            return Ok(());
        };
        let storage = |error| crate::fault::storage_fault(&wanted.entry, &error);
        // A GET that came meanwhile knows more.
        let overtaken = self.flights.running(&wanted.key).is_some()
            || self
                .catalog
                .record(&wanted.key)
                .await
                .map_err(storage)?
                .is_some_and(|record| record.blob().is_some());
        if overtaken || !epoch.still_holds() {
            return Ok(());
        }
        let record = Arc::new(ArtifactRecord {
            content: Content::Pointer(named.spec.key_path),
            ..told.clone()
        });
        self.catalog.remember(wanted, record).await.map_err(storage)
    }
}

/// The record of a name that stands for bytes held under their digest: last contact, renewal and beginning are its own.
fn named(
    held: &ArtifactRecord,
    digest: &Digest,
    [contacted_at, fresh_since, served_since]: [UnixMillis; 3],
) -> ArtifactRecord {
    let headers = StoredHeaders {
        digest: Some(digest.clone()),
        ..held.headers.clone()
    };
    ArtifactRecord {
        contacted_at,
        fresh_since,
        served_since,
        headers,
        ..held.clone()
    }
}

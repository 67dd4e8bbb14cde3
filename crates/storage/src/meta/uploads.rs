//! Multipart uploads to the object store, one row each for as long as they are under way (docs/adr/0087).

use futures_util::future::BoxFuture;
use larder_core::UnixMillis;

use super::MetadataStore;
use super::db::{DbError, Row};
use crate::blob::{MultipartUpload, UploadLeases};
use crate::error::StorageError;

const HOLD: &str = "INSERT INTO multipart_uploads (object_key, upload_id, lease_until) VALUES ($1, $2, $3) \
     ON CONFLICT (object_key, upload_id) DO UPDATE SET lease_until = excluded.lease_until";
const FORGET: &str = "DELETE FROM multipart_uploads WHERE object_key = $1 AND upload_id = $2";
const ENDED: &str = "SELECT object_key, upload_id FROM multipart_uploads WHERE lease_until <= $1 ORDER BY lease_until LIMIT $2";
const KNOWS: &str =
    "SELECT COUNT(*) FROM multipart_uploads WHERE object_key = $1 AND upload_id = $2";
const RIVALS: &str = "SELECT upload_id FROM multipart_uploads WHERE object_key = $1 AND upload_id <> $2 AND lease_until > $3";

impl UploadLeases for MetadataStore {
    fn hold<'a>(
        &'a self,
        upload: &'a MultipartUpload,
        until: UnixMillis,
    ) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(async move {
            let values = [(&*upload.key).into(), (&*upload.id).into(), until.0.into()];
            let held = self.db().execute(HOLD, &values).await;
            self.noticed(held.map(drop).map_err(failed))
        })
    }

    fn forget<'a>(
        &'a self,
        upload: &'a MultipartUpload,
    ) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(async move {
            let values = [(&*upload.key).into(), (&*upload.id).into()];
            let forgotten = self.db().execute(FORGET, &values).await;
            self.noticed(forgotten.map(drop).map_err(failed))
        })
    }

    fn ended(
        &self,
        now: UnixMillis,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<MultipartUpload>, StorageError>> {
        Box::pin(async move {
            let values = [now.0.into(), (limit as i64).into()];
            let rows = self.db().all(ENDED, &values).await;
            let uploads = rows.and_then(|rows| rows.iter().map(upload).collect());
            self.noticed(uploads.map_err(failed))
        })
    }

    fn knows<'a>(
        &'a self,
        upload: &'a MultipartUpload,
    ) -> BoxFuture<'a, Result<bool, StorageError>> {
        Box::pin(async move {
            let values = [(&*upload.key).into(), (&*upload.id).into()];
            let rows = self.db().one(KNOWS, &values).await;
            let rows = rows.and_then(|row| row.get::<i64>(0));
            self.noticed(rows.map(|rows| rows > 0).map_err(failed))
        })
    }

    fn rivals<'a>(
        &'a self,
        upload: &'a MultipartUpload,
        now: UnixMillis,
    ) -> BoxFuture<'a, Result<Vec<String>, StorageError>> {
        Box::pin(async move {
            let values = [(&*upload.key).into(), (&*upload.id).into(), now.0.into()];
            let rows = self.db().all(RIVALS, &values).await;
            let ids = rows.and_then(|rows| rows.iter().map(|row| row.get(0)).collect());
            self.noticed(ids.map_err(failed))
        })
    }
}

fn upload(row: &Row) -> Result<MultipartUpload, DbError> {
    Ok(MultipartUpload {
        key: row.get(0)?,
        id: row.get(1)?,
    })
}

fn failed(error: DbError) -> StorageError {
    StorageError::from_sql("keep the leases of multipart uploads", error)
}

//! Bodies on their way to the store: small ones as they are, large ones in parts, a few at a time. Whatever becomes of an upload, its
//! parts do not stay.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use object_store::multipart::{MultipartStore as _, PartId};
use object_store::path::Path;
use object_store::{ObjectStoreExt as _, PutPayload};
use tokio::sync::OwnedSemaphorePermit;

use super::{S3, failed, info, no_answer};
use crate::blob::object::ObjectInfo;
use crate::body::{Body, Chunks};
use crate::error::{StorageError, StorageErrorKind};

/// Length of a part, and of the longest body that goes up as it is.
const PART: u64 = 8 << 20;
/// Parts of one body that are on their way.
const PARTS_AT_ONCE: usize = 4;
/// A store takes 10,000 parts (AWS, "Amazon S3 multipart upload limits"); longer bodies have longer parts.
const MOST_PARTS: u64 = 9_000;
/// While an upload is under way, the store is asked that often whether it is alive.
const LOOK: Duration = Duration::from_secs(4);
const DOING: &str = "put an object";

/// Puts a body of known length. It may take its time for as long as the store is alive.
pub(super) async fn put(s3: &Arc<S3>, path: Path, body: Body) -> Result<ObjectInfo, StorageError> {
    let mut putting = pin!(put_all(s3, &path, body));
    loop {
        if let Ok(put) = tokio::time::timeout(LOOK, &mut putting).await {
            return put;
        }
        // A store that is busy takes long for a part, or to put parts together; one that is gone is given up soon.
        s3.head(&path).await?;
    }
}

async fn put_all(s3: &Arc<S3>, path: &Path, body: Body) -> Result<ObjectInfo, StorageError> {
    let Some(length) = body.length() else {
        let message = "only a body of known length can be put into the object store";
        return Err(StorageError::new(StorageErrorKind::Io, message));
    };
    let mut bytes = Parts {
        chunks: body.chunks(),
        rest: Bytes::new(),
    };
    if length <= PART {
        let _memory = memory(s3, length).await?;
        let payload = bytes.next(length).await?;
        let put = s3.store.put(path, payload).await;
        put.map_err(|error| failed(DOING, error))?;
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        return Ok(ObjectInfo {
            length,
            modified_ns: i64::try_from(now.as_nanos()).unwrap_or(i64::MAX),
        });
    }
    in_parts(s3, path, length, bytes).await?;
    // What parts have become is looked at: an answer with status 200 may still have been an error.
    let found = s3.head(path).await?.as_ref().map(info);
    found.filter(|found| found.length == length).ok_or_else(|| {
        let message = "cannot put an object: the object store has not kept all of it";
        StorageError::new(StorageErrorKind::Unavailable, message)
    })
}

async fn memory(s3: &S3, length: u64) -> Result<OwnedSemaphorePermit, StorageError> {
    let mib = length
        .div_ceil(1 << 20)
        .clamp(1, u64::from(super::UPLOADS_MIB)) as u32;
    let permit = Arc::clone(&s3.uploads).acquire_many_owned(mib).await;
    permit.map_err(|_| no_answer(DOING))
}

/// The bytes of a body, in pieces of any length.
struct Parts {
    chunks: Chunks,
    rest: Bytes,
}

impl Parts {
    /// The next `length` bytes, uncopied.
    async fn next(&mut self, length: u64) -> Result<PutPayload, StorageError> {
        let mut taken = Vec::new();
        let mut missing = length as usize;
        while missing > 0 {
            if self.rest.is_empty() {
                let chunk = self.chunks.next().await;
                let chunk = chunk.unwrap_or_else(|| Err(std::io::ErrorKind::UnexpectedEof.into()));
                self.rest = chunk.map_err(|error| StorageError::from_io(DOING, error))?;
                continue;
            }
            let piece = self.rest.split_to(self.rest.len().min(missing));
            missing -= piece.len();
            taken.push(piece);
        }
        Ok(taken.into_iter().collect())
    }
}

/// An upload that has been begun: dropped before it is complete, it is taken back.
struct Begun {
    s3: Arc<S3>,
    path: Path,
    id: String,
    is_complete: bool,
}

impl Drop for Begun {
    fn drop(&mut self) {
        if self.is_complete {
            self.s3.own().remove(&self.id);
            return;
        }
        let (s3, path, id) = (Arc::clone(&self.s3), self.path.clone(), self.id.clone());
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            self.s3.own().remove(&self.id);
            return;
        };
        runtime.spawn(async move {
            let aborted = s3
                .within("abort an upload", s3.store.abort_multipart(&path, &id))
                .await;
            if !matches!(aborted, Ok(Ok(()))) {
                tracing::debug!(?aborted, "an upload was not aborted; a sweep will do it");
            }
            s3.own().remove(&id);
        });
    }
}

async fn in_parts(
    s3: &Arc<S3>,
    path: &Path,
    length: u64,
    mut bytes: Parts,
) -> Result<(), StorageError> {
    let begun = s3.within(DOING, s3.store.create_multipart(path)).await?;
    let id = begun.map_err(|error| failed(DOING, error))?;
    s3.own().insert(id.clone());
    let mut begun = Begun {
        s3: Arc::clone(s3),
        path: path.clone(),
        id,
        is_complete: false,
    };
    let part = PART.max(length.div_ceil(MOST_PARTS).next_multiple_of(1 << 20));
    let count = length.div_ceil(part) as usize;
    let mut done: Vec<Option<PartId>> = std::iter::repeat_with(|| None).take(count).collect();
    let mut running = FuturesUnordered::new();
    for index in 0..count {
        if running.len() == PARTS_AT_ONCE {
            note(&mut done, running.next().await)?;
        }
        let memory = memory(s3, part).await?;
        let payload = bytes.next(part.min(length - index as u64 * part)).await?;
        let (store, id) = (&s3.store, &begun.id);
        running.push(async move {
            let put = store.put_part(path, id, index, payload).await;
            drop(memory);
            (index, put)
        });
    }
    while let Some(put) = running.next().await {
        note(&mut done, Some(put))?;
    }
    drop(running);
    let parts: Vec<PartId> = done.into_iter().flatten().collect();
    assemble(s3, path, &begun.id, parts).await?;
    begun.is_complete = true;
    Ok(())
}

fn note(
    done: &mut [Option<PartId>],
    put: Option<(usize, object_store::Result<PartId>)>,
) -> Result<(), StorageError> {
    if let Some((index, put)) = put {
        done[index] = Some(put.map_err(|error| failed(DOING, error))?);
    }
    Ok(())
}

async fn assemble(
    s3: &S3,
    path: &Path,
    id: &String,
    parts: Vec<PartId>,
) -> Result<(), StorageError> {
    match s3.store.complete_multipart(path, id, parts).await {
        Ok(_) => Ok(()),
        // An answer that was lost on its way makes the repeated request fail: what is there decides.
        Err(error @ object_store::Error::NotFound { .. }) => match s3.head(path).await? {
            Some(_) => Ok(()),
            None => Err(failed(DOING, error)),
        },
        Err(error) => Err(failed(DOING, error)),
    }
}

//! Bodies on their way to the store: small ones as they are, large ones in parts, a few at a time. Whatever becomes of an upload, its
//! parts do not stay.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use larder_budget::{BudgetKind, Lease};
use object_store::multipart::{MultipartStore as _, PartId};
use object_store::path::Path;
use object_store::{ObjectStoreExt as _, PutPayload};

use super::multipart::Multipart;
use super::{S3, failed, info};
use crate::blob::object::{ObjectInfo, Source, Staged};
use crate::body::Body;
use crate::error::{StorageError, StorageErrorKind};

/// Length of a part, and of the longest body that goes up as it is.
const PART: u64 = 8 << 20;
/// Bytes of one body that are on their way.
const AT_ONCE: u64 = 4 * PART;
/// A store takes 10,000 parts (AWS, "Amazon S3 multipart upload limits"); longer bodies have longer parts.
const MOST_PARTS: u64 = 9_000;
/// While an upload is under way, the store is asked that often whether it is alive.
const LOOK: Duration = Duration::from_secs(4);
/// Who leases memory for parts: what comes here has had its turn among repositories.
const HOLDER: &str = "object store";
const DOING: &str = "put an object";

/// Puts a body of known length. It may take its time for as long as the store is alive.
pub(super) async fn put(s3: &Arc<S3>, path: Path, body: Body) -> Result<ObjectInfo, StorageError> {
    while_alive(s3, &path, put_all(s3, &path, body)).await
}

/// Sends a body in parts and does not put them together; `None` if it is too short for that.
pub(super) async fn stage(
    s3: &Arc<S3>,
    path: Path,
    source: Source,
) -> Result<Option<Box<dyn Staged>>, StorageError> {
    if matches!(&source, Source::Whole(body) if body.length().is_some_and(|length| length <= PART))
    {
        return Ok(None);
    }
    let sent = while_alive(s3, &path, send(s3, path.clone(), source)).await?;
    Ok(sent.map(|sent| Box::new(sent) as Box<dyn Staged>))
}

/// A store that is busy takes long for a part, or to put parts together; one that is gone is given up soon.
async fn while_alive<T>(
    s3: &Arc<S3>,
    path: &Path,
    work: impl Future<Output = Result<T, StorageError>>,
) -> Result<T, StorageError> {
    let mut work = pin!(work);
    loop {
        if let Ok(done) = tokio::time::timeout(LOOK, &mut work).await {
            return done;
        }
        s3.head(path).await?;
    }
}

async fn put_all(s3: &Arc<S3>, path: &Path, body: Body) -> Result<ObjectInfo, StorageError> {
    let Some(length) = body.length() else {
        let message = "only a body of known length can be put into the object store";
        return Err(StorageError::new(StorageErrorKind::Io, message));
    };
    if length > PART {
        let sent = send(s3, path.clone(), Source::Whole(body)).await?;
        let lost = || StorageError::from_io(DOING, std::io::ErrorKind::UnexpectedEof.into());
        return sent.ok_or_else(lost)?.put_together().await;
    }
    let _memory = memory(s3, length).await?;
    let put = s3.store.put(path, payload(body).await?).await;
    put.map_err(|error| failed(DOING, error))?;
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    Ok(ObjectInfo {
        length,
        modified_ns: i64::try_from(now.as_nanos()).unwrap_or(i64::MAX),
    })
}

async fn memory(s3: &S3, length: u64) -> Result<Lease, StorageError> {
    let leased = s3.budgets.lease(BudgetKind::StoreParts, HOLDER, length);
    leased.await.map_err(|_| {
        let message = "cannot put an object: too much is on its way to the object store already";
        StorageError::new(StorageErrorKind::Unavailable, message)
    })
}

/// All bytes of a body, uncopied.
async fn payload(body: Body) -> Result<PutPayload, StorageError> {
    let length = body.length();
    let (mut taken, mut read) = (Vec::new(), 0);
    let mut chunks = body.chunks();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| StorageError::from_io(DOING, error))?;
        read += chunk.len() as u64;
        taken.push(chunk);
    }
    if length.is_some_and(|length| length != read) {
        let short = std::io::ErrorKind::UnexpectedEof.into();
        return Err(StorageError::from_io(DOING, short));
    }
    Ok(taken.into_iter().collect())
}

/// The bytes of an upload in parts.
struct Parts {
    source: Source,
    length: u64,
    at: u64,
}

impl Parts {
    fn of(source: Source) -> Self {
        let total = match &source {
            Source::Whole(body) => body.length(),
            Source::Growing(_, total) => *total,
        };
        let length = PART.max(
            total
                .unwrap_or_default()
                .div_ceil(MOST_PARTS)
                .next_multiple_of(1 << 20),
        );
        Self {
            source,
            length,
            at: 0,
        }
    }

    /// The next part, once it is there; the last one may be shorter. `None` behind the last one.
    async fn next(&mut self) -> Result<Option<Body>, StorageError> {
        let (from, to) = (self.at, self.at + self.length);
        let (to, part) = match &mut self.source {
            Source::Whole(body) => {
                let to = to.min(body.length().unwrap_or_default());
                (to, body.range(from, to))
            }
            Source::Growing(growth, _) => {
                let to = growth.reach(to).await?;
                (to, Some(growth.part(from, to)))
            }
        };
        if to <= from {
            return Ok(None);
        }
        if from / self.length >= MOST_PARTS {
            let message =
                "cannot put an object: it is longer than was said, and has too many parts";
            return Err(StorageError::new(StorageErrorKind::Io, message));
        }
        self.at = to;
        let unreadable = || StorageError::from_io(DOING, std::io::ErrorKind::UnexpectedEof.into());
        part.ok_or_else(unreadable).map(Some)
    }
}

/// An upload all of whose parts the store has.
#[derive(Debug)]
struct Sent {
    upload: Multipart,
    parts: Vec<PartId>,
    length: u64,
}

/// `None` where somebody else sends bytes that are still coming: what they put is looked for at the end.
async fn send(s3: &Arc<S3>, path: Path, source: Source) -> Result<Option<Sent>, StorageError> {
    let mut parts = Parts::of(source);
    let most = (AT_ONCE / parts.length).max(1) as usize;
    let upload = Multipart::begin(s3, path).await?;
    if matches!(parts.source, Source::Growing(..)) && upload.gives_way().await {
        return Ok(None);
    }
    let mut sent: Vec<(usize, PartId)> = Vec::new();
    let mut running = FuturesUnordered::new();
    loop {
        if running.len() == most
            && let Some(part) = running.next().await
        {
            sent.push(part?);
        }
        // What is under way goes on while the next part comes.
        let next = tokio::select! {
            biased;
            next = parts.next() => next?,
            Some(part) = running.next() => {
                sent.push(part?);
                continue;
            }
        };
        let Some(part) = next else { break };
        let index = sent.len() + running.len();
        running.push(put_part(s3, &upload, index, part));
    }
    while let Some(part) = running.next().await {
        sent.push(part?);
    }
    drop(running);
    sent.sort_unstable_by_key(|(index, _)| *index);
    Ok(Some(Sent {
        upload,
        parts: sent.into_iter().map(|(_, part)| part).collect(),
        length: parts.at,
    }))
}

/// Memory comes first, then the bytes.
async fn put_part(
    s3: &S3,
    upload: &Multipart,
    index: usize,
    part: Body,
) -> Result<(usize, PartId), StorageError> {
    let _memory = memory(s3, part.length().unwrap_or(PART)).await?;
    let payload = payload(part).await?;
    let put = s3
        .store
        .put_part(upload.path(), upload.id(), index, payload)
        .await;
    Ok((index, put.map_err(|error| failed(DOING, error))?))
}

impl Sent {
    async fn put_together(mut self) -> Result<ObjectInfo, StorageError> {
        let (s3, path) = (Arc::clone(self.upload.s3()), self.upload.path().clone());
        let parts = std::mem::take(&mut self.parts);
        let put = s3.store.complete_multipart(&path, self.upload.id(), parts);
        match put.await {
            Ok(_) => {}
            // An answer that was lost on its way makes the repeated request fail: what is there decides.
            Err(error @ object_store::Error::NotFound { .. }) => {
                if s3.head(&path).await?.is_none() {
                    return Err(failed(DOING, error));
                }
            }
            Err(error) => return Err(failed(DOING, error)),
        }
        self.upload.is_over();
        // What parts have become is looked at: an answer with status 200 may still have been an error.
        let found = s3.head(&path).await?.as_ref().map(info);
        found
            .filter(|found| found.length == self.length)
            .ok_or_else(|| {
                let message = "cannot put an object: the object store has not kept all of it";
                StorageError::new(StorageErrorKind::Unavailable, message)
            })
    }
}

impl Staged for Sent {
    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<ObjectInfo, StorageError>> {
        Box::pin(async move {
            let (s3, path) = (Arc::clone(self.upload.s3()), self.upload.path().clone());
            while_alive(&s3, &path, self.put_together()).await
        })
    }
}

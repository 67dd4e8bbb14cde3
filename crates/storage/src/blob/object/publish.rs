//! From bytes that are complete to an object under its digest.

use std::any::Any;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use larder_core::BlobDescriptor;

use super::ahead::Ahead;
use super::sums::{Sums, has_sums};
use super::{ObjectInfo, Shared, Source, key_of};
use crate::blob::pins::{Place, Published};
use crate::blob::{BlobInfo, SealedSpool, check_length};
use crate::body::Body;
use crate::error::StorageError;

/// Objects of a batch that are put at the same time.
const AT_ONCE: usize = 16;

/// Bytes on their way to be an object.
#[derive(Debug)]
pub(in crate::blob) struct ToPut {
    descriptor: BlobDescriptor,
    /// How many there really are.
    length: u64,
    body: Body,
    /// What has been sent of them already.
    ahead: Option<Box<Ahead>>,
}

impl ToPut {
    /// The bytes of a spool, which stays where it is.
    pub(in crate::blob) fn of(sealed: &mut SealedSpool) -> Self {
        let ahead = sealed.spool.take_follower().and_then(|follower| {
            let follower: Box<dyn Any> = follower;
            follower.downcast().ok()
        });
        Self {
            descriptor: sealed.descriptor.clone(),
            length: sealed.spool.len(),
            body: sealed.body(),
            ahead,
        }
    }
}

impl Shared {
    pub(super) async fn put_all(
        self: &Arc<Self>,
        batch: Vec<ToPut>,
    ) -> Vec<Result<BlobInfo, StorageError>> {
        // Boxed, so that what is awaited does not depend on the lifetime of an item.
        let puts: Vec<BoxFuture<'_, _>> = batch
            .into_iter()
            .map(|bytes| Box::pin(self.put(bytes)) as BoxFuture<'_, _>)
            .collect();
        futures_util::stream::iter(puts)
            .buffered(AT_ONCE)
            .collect()
            .await
    }

    async fn put(self: &Arc<Self>, bytes: ToPut) -> Result<BlobInfo, StorageError> {
        let ToPut {
            descriptor,
            length,
            body,
            ahead,
        } = bytes;
        check_length(&descriptor, length)?;
        let digest = &descriptor.digest;
        let key = key_of(digest)?;
        let pin = {
            let _turn = self.turn(digest).lock().await;
            self.pins.pin(digest, None)
        };
        let present = self.objects.head(&key).await?;
        if present.is_some() {
            // Another replica may have condemned what is there, and delete it after this look. What is absent nobody will delete: its row
            // has to go before there can be a new one.
            pin.stands(Place::Object(Box::new(Found {
                shared: Arc::clone(self),
                descriptor: descriptor.clone(),
                body: body.clone(),
            })));
        }
        let is_good =
            |info: &ObjectInfo| info.length == descriptor.size && !self.damaged().contains(digest);
        let info = match present.filter(is_good) {
            Some(info) => info,
            None => match self.commit_sent(&descriptor, ahead).await {
                Some(info) => info,
                None => self.put_anew(&descriptor, body, &key).await?,
            },
        };
        Ok(BlobInfo {
            modified_ns: info.modified_ns,
            descriptor,
            pin: Some(pin),
        })
    }

    /// Puts what has been sent while it came under its key. `None`: all of it is to be sent now.
    async fn commit_sent(
        &self,
        descriptor: &BlobDescriptor,
        ahead: Option<Box<Ahead>>,
    ) -> Option<ObjectInfo> {
        let sent = ahead?.finish(descriptor).await?;
        let committed = async {
            self.keep_sums(descriptor, sent.sums).await?;
            sent.staged.commit().await
        };
        match committed.await {
            Ok(info) if info.length == descriptor.size => {
                self.damaged().remove(&descriptor.digest);
                Some(info)
            }
            Ok(_) => None,
            Err(error) => {
                tracing::debug!(%error, "what had been sent of a body was not put in place; it is sent again");
                None
            }
        }
    }

    /// The sums come first: where the object is, they are.
    pub(super) async fn put_anew(
        &self,
        descriptor: &BlobDescriptor,
        body: Body,
        key: &str,
    ) -> Result<ObjectInfo, StorageError> {
        let info = if has_sums(descriptor.size) {
            let staged = self.objects.stage(key, Source::Whole(body.clone()));
            let (staged, sums) = tokio::try_join!(staged, Sums::of(body.clone()))?;
            self.keep_sums(descriptor, sums).await?;
            match staged {
                Some(staged) => staged.commit().await?,
                None => self.objects.put(key, body).await?,
            }
        } else {
            self.objects.put(key, body).await?
        };
        self.damaged().remove(&descriptor.digest);
        Ok(info)
    }
}

/// A blob whose object was there when it was to be put, and the bytes that were not needed.
#[derive(Debug)]
struct Found {
    shared: Arc<Shared>,
    descriptor: BlobDescriptor,
    body: Body,
}

impl Published for Found {
    fn is_in_place(&self) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let Ok(key) = key_of(&self.descriptor.digest) else {
                return false;
            };
            let found = self.shared.objects.head(&key).await;
            found.is_ok_and(|found| found.is_some_and(|info| info.length == self.descriptor.size))
        })
    }

    fn put_back(&self) -> BoxFuture<'_, Result<(), StorageError>> {
        Box::pin(async move {
            let key = key_of(&self.descriptor.digest)?;
            let put = self
                .shared
                .put_anew(&self.descriptor, self.body.clone(), &key);
            put.await.map(drop)
        })
    }
}

//! Objects in a store that speaks S3.
//!
//! The crate `object_store` signs, and knows the requests and credentials. What is decided here: how long is waited ([`transport`],
//! [`patience`]), how a broken read goes on ([`read`]), how a large body goes up ([`upload`]) and what becomes of it when that fails
//! ([`multipart`]), what is left behind ([`sweep`]), and whether a store can do what is needed ([`probe`]).

mod ask;
mod multipart;
mod patience;
mod probe;
mod read;
mod settings;
mod sweep;
mod transport;
mod upload;

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use http::Method;
use larder_budget::Budgets;
use object_store::aws::{AmazonS3, AmazonS3Builder, Checksum};
use object_store::client::{HttpClient, HttpConnector as _};
use object_store::path::Path;
use object_store::signer::Signer as _;
use object_store::{
    BackoffConfig, ClientOptions, Error, GetOptions, ObjectMeta, ObjectStore as _,
    ObjectStoreExt as _, RetryConfig,
};

use self::multipart::Leases;
use self::patience::Patience;
use self::read::Reading;
use self::transport::Transport;
use super::{ObjectInfo, ObjectStore, Source, Staged, UploadLeases};
use crate::blob::PresignedUrl;
use crate::body::{Body, Chunks};
use crate::error::{StorageError, StorageErrorKind};

pub use self::probe::Refused;
pub use self::settings::S3Settings;

/// Failed requests are tried again for so long, but for those that stood still.
const RETRY_FOR: Duration = Duration::from_secs(3);

/// The objects below a prefix of a bucket. Clones are the same.
#[derive(Debug, Clone)]
pub struct S3Objects(Arc<S3>);

struct S3 {
    store: AmazonS3,
    /// The same as clients reach it. Nothing is asked of it.
    of_clients: AmazonS3,
    /// For the requests that `object_store` does not know.
    client: HttpClient,
    settings: S3Settings,
    bucket_url: String,
    patience: Arc<Patience>,
    /// Where memory for parts is leased.
    budgets: Arc<Budgets>,
    /// Where multipart uploads are leased.
    leases: OnceLock<Leases>,
    /// Uploads in parts that are under way here: no sweep touches them.
    own: Mutex<HashSet<String>>,
    /// Held by who asks for the bucket.
    asking: tokio::sync::Mutex<()>,
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("S3").field(&self.bucket_url).finish()
    }
}

impl S3Objects {
    /// Objects where `settings` say, with memory for parts out of `budgets`. Asks nobody yet: see [`probe`](Self::probe).
    ///
    /// # Errors
    /// Endpoint, certificates or keys cannot be used.
    pub fn new(settings: S3Settings, budgets: Arc<Budgets>) -> Result<Self, StorageError> {
        let patience = Arc::new(Patience::default());
        let transport = Transport::new(&settings, Arc::clone(&patience))?;
        let bucket_url = settings.bucket_url()?;
        let client = transport.connect(&ClientOptions::new()).map_err(unusable)?;
        let of_clients = settings.of_clients();
        let of_clients = builder(&of_clients, &of_clients.bucket_url()?, transport.clone())
            .build()
            .map_err(unusable)?;
        let store = builder(&settings, &bucket_url, transport)
            .build()
            .map_err(unusable)?;
        Ok(Self(Arc::new(S3 {
            store,
            of_clients,
            client,
            settings,
            bucket_url,
            patience,
            budgets,
            leases: OnceLock::new(),
            own: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        })))
    }

    /// From now on each multipart upload is written down in `book`, for `life` at a time. The first call counts.
    pub fn lease_uploads(&self, book: Arc<dyn UploadLeases>, life: Duration) {
        let _ = self.0.leases.set(Leases { book, life });
    }
}

fn builder(settings: &S3Settings, bucket_url: &str, transport: Transport) -> AmazonS3Builder {
    let mut builder = AmazonS3Builder::new()
        .with_http_connector(transport)
        // With the bucket in it, whichever form it has.
        .with_endpoint(bucket_url)
        .with_virtual_hosted_style_request(true)
        .with_bucket_name(&settings.bucket)
        .with_region(&settings.region)
        .with_allow_http(!settings.secure)
        // TLS keeps the bytes of a request together; else the signature covers them.
        .with_unsigned_payload(settings.secure)
        .with_disable_tagging(true)
        // Not every store knows the deletion of many at once.
        .with_disable_bulk_delete(true)
        .with_retry(RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(100),
                max_backoff: Duration::from_secs(1),
                base: 2.0,
            },
            max_retries: 5,
            retry_timeout: RETRY_FOR,
        });
    if settings.checksums {
        builder = builder.with_checksum_algorithm(Checksum::CRC64NVME);
    }
    if let Some((access, secret)) = &settings.keys {
        builder = builder
            .with_access_key_id(access.expose())
            .with_secret_access_key(secret.expose());
    } else {
        for (name, value) in &settings.platform {
            if let Ok(key) = name.to_ascii_lowercase().parse() {
                builder = builder.with_config(key, value);
            }
        }
    }
    builder
}

fn unusable(error: Error) -> StorageError {
    StorageError {
        kind: StorageErrorKind::Io,
        message: "the settings of the object store cannot be used".to_owned(),
        source: Some(Box::new(error)),
    }
}

/// A failure of the store; `doing` completes the sentence "cannot …". A missing object is not among what it says.
fn failed(doing: &str, error: Error) -> StorageError {
    let why = match &error {
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            "the object store refuses larder's credentials"
        }
        Error::NotFound { .. } => "the object store has no such bucket",
        Error::Precondition { .. } | Error::NotModified { .. } => {
            "the object has been replaced meanwhile"
        }
        _ => "the object store does not answer as it should",
    };
    tracing::debug!(%error, doing, "the object store failed");
    StorageError {
        kind: StorageErrorKind::Unavailable,
        message: format!("cannot {doing}: {why}"),
        source: Some(Box::new(error)),
    }
}

fn no_answer(doing: &str) -> StorageError {
    StorageError::new(
        StorageErrorKind::Unavailable,
        format!("cannot {doing}: the object store does not answer"),
    )
}

impl S3 {
    fn path(&self, key: &str) -> Path {
        Path::from(format!("{}{key}", self.settings.prefix))
    }

    fn own(&self) -> MutexGuard<'_, HashSet<String>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for an answer without a body, and no longer than the store deserves.
    async fn within<T>(
        &self,
        doing: &str,
        asking: impl Future<Output = object_store::Result<T>>,
    ) -> Result<object_store::Result<T>, StorageError> {
        tokio::time::timeout(self.patience.limit(), asking)
            .await
            .map_err(|_| no_answer(doing))
    }

    async fn head(&self, path: &Path) -> Result<Option<ObjectMeta>, StorageError> {
        const DOING: &str = "look for an object";
        match self.within(DOING, self.store.head(path)).await? {
            Ok(meta) => Ok(Some(meta)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed(DOING, error)),
        }
    }

    /// An answer to HEAD has no body that says what is missing: the object, the bucket, or the store itself behind some other server.
    async fn is_really_absent(&self, path: &Path) -> Result<(), StorageError> {
        const DOING: &str = "look for an object";
        let asked = self.store.get_opts(path, GetOptions::default());
        match self.within(DOING, asked).await? {
            Err(Error::NotFound { source, .. }) if source.to_string().contains("NoSuchKey") => {
                Ok(())
            }
            Ok(_) => Err(no_answer(DOING)),
            Err(error) => Err(failed(DOING, error)),
        }
    }
}

fn info(meta: &ObjectMeta) -> ObjectInfo {
    ObjectInfo {
        length: meta.size,
        modified_ns: meta.last_modified.timestamp_nanos_opt().unwrap_or(0),
    }
}

impl ObjectStore for S3Objects {
    fn head<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<ObjectInfo>, StorageError>> {
        Box::pin(async move {
            let found = self.0.head(&self.0.path(key)).await?;
            Ok(found.as_ref().map(info))
        })
    }

    fn confirm_absent<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(async move { self.0.is_really_absent(&self.0.path(key)).await })
    }

    fn trouble(&self) -> Option<(String, Duration)> {
        self.0.patience.trouble()
    }

    fn ping(&self) -> BoxFuture<'static, ()> {
        let s3 = Arc::clone(&self.0);
        Box::pin(async move { s3.ping().await })
    }

    fn get(&self, key: &str, range: Range<u64>) -> Chunks {
        Reading::new(Arc::clone(&self.0), self.0.path(key), range).chunks()
    }

    fn put<'a>(
        &'a self,
        key: &'a str,
        body: Body,
    ) -> BoxFuture<'a, Result<ObjectInfo, StorageError>> {
        Box::pin(upload::put(&self.0, self.0.path(key), body))
    }

    fn stage<'a>(
        &'a self,
        key: &'a str,
        source: Source,
    ) -> BoxFuture<'a, Result<Option<Box<dyn Staged>>, StorageError>> {
        Box::pin(upload::stage(&self.0, self.0.path(key), source))
    }

    fn presign<'a>(
        &'a self,
        key: &'a str,
        life: Duration,
    ) -> BoxFuture<'a, Result<Option<PresignedUrl>, StorageError>> {
        const DOING: &str = "sign a URL";
        Box::pin(async move {
            let (s3, path) = (&self.0, self.0.path(key));
            let signing = s3.of_clients.signed_url(Method::GET, &path, life);
            let signed = s3.within(DOING, signing).await?;
            let url = signed.map_err(|error| failed(DOING, error))?;
            Ok(Some(PresignedUrl::new(url)))
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(), StorageError>> {
        const DOING: &str = "delete an object";
        Box::pin(async move {
            let path = self.0.path(key);
            match self.0.within(DOING, self.0.store.delete(&path)).await? {
                Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
                // An answer, and of this object: one that is held, say. Who may do nothing at all has not come so far.
                Err(error @ (Error::PermissionDenied { .. } | Error::Precondition { .. })) => {
                    let kind = StorageErrorKind::Io;
                    let refused = failed(DOING, error);
                    Err(StorageError { kind, ..refused })
                }
                Err(error) => Err(failed(DOING, error)),
            }
        })
    }

    fn list<'a>(
        &'a self,
        after: &'a str,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(String, ObjectInfo)>, StorageError>> {
        const DOING: &str = "list objects";
        Box::pin(async move {
            // Only what lies in the same folder as `after` is asked for.
            let folder = after
                .rsplit_once('/')
                .map(|(folder, _)| self.0.path(folder));
            let offset = Path::from(format!("{}{after}", self.0.settings.prefix));
            let mut listed = self.0.store.list_with_offset(folder.as_ref(), &offset);
            let mut found = Vec::new();
            while found.len() < limit {
                let next = async { Ok(listed.next().await) };
                let meta = match self.0.within(DOING, next).await? {
                    Ok(Some(Ok(meta))) => meta,
                    Ok(None) => break,
                    Ok(Some(Err(error))) | Err(error) => return Err(failed(DOING, error)),
                };
                let key = meta.location.as_ref();
                if let Some(key) = key.strip_prefix(&self.0.settings.prefix)
                    && key > after
                {
                    found.push((key.to_owned(), info(&meta)));
                }
            }
            Ok(found)
        })
    }
}

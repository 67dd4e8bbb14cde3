//! Whether the store can do what larder needs of it, asked once at a start.

use std::time::SystemTime;

use bytes::Bytes;
use http::{Method, StatusCode};
use object_store::multipart::MultipartStore as _;
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetRange, ObjectStore as _, ObjectStoreExt as _, PutMode, PutOptions,
};

use super::{S3, S3Objects, failed};
use crate::error::StorageError;

const DOING: &str = "ask for the bucket";
const NO_BUCKET: &str = "NoSuchBucket";
/// What the probe object holds.
const BYTES: &[u8] = b"larder asks whether this store can do what it needs";

/// What came of a probe that was not passed.
#[derive(Debug)]
pub enum Refused {
    /// Nobody answers, or not as a store does: it may be better later.
    Later(StorageError),
    /// Waiting makes nothing better: credentials, bucket, region or the store itself are not the right ones. For the operator.
    Never(String),
}

impl S3Objects {
    /// Asks for the bucket, and changes nothing.
    ///
    /// # Errors
    /// The store cannot be used now, or never as it is.
    pub async fn look(&self) -> Result<(), Refused> {
        let asked = self.0.ask(Method::GET, DOING, &self.0.first_page()).await;
        let asked = asked.map_err(Refused::Later)?;
        let code = asked.element("Code").unwrap_or_default();
        self.0.judge(asked.status, code)
    }

    /// Tries what larder needs: an upload in parts, a range, a conditional put and a deletion, below the prefix. Gives what the store
    /// does not have of that which larder can do without.
    ///
    /// # Errors
    /// The store cannot be used now, or never as it is.
    pub async fn probe(&self) -> Result<Vec<&'static str>, Refused> {
        self.look().await?;
        let s3 = &self.0;
        let nanos = SystemTime::UNIX_EPOCH
            .elapsed()
            .unwrap_or_default()
            .as_nanos();
        let path = s3.path(&format!("probe/{}-{nanos}", std::process::id()));
        let tried = s3.attempt(&path).await;
        if tried.is_err() {
            // Nothing is left behind, as far as that is possible.
            let _ = s3.within("delete", s3.store.delete(&path)).await;
        }
        tried
    }
}

impl S3 {
    fn first_page(&self) -> [(&'static str, &str); 3] {
        [
            ("list-type", "2"),
            ("max-keys", "1"),
            ("prefix", self.settings.prefix.as_str()),
        ]
    }

    /// Asks whether the bucket is there and larder may use it, as cheaply as that can be asked, and notes what is said. That nobody
    /// answers is noted where it is seen.
    pub(super) async fn ping(&self) {
        // Who comes meanwhile needs no answer of its own.
        let Ok(_asking) = self.asking.try_lock() else {
            return;
        };
        let Ok(asked) = self.ask(Method::HEAD, DOING, &[]).await else {
            return;
        };
        // The answer has no body that could say it.
        let code = match asked.status {
            StatusCode::NOT_FOUND => NO_BUCKET,
            _ => "",
        };
        match self.judge(asked.status, code) {
            Ok(()) => self.patience.accepted(),
            Err(Refused::Never(why)) => self.patience.refused(&why),
            // It answers, and not as a store does: what is in front of it, perhaps.
            Err(Refused::Later(why)) => self.patience.refused(&why.message),
        }
    }

    /// What an answer about the bucket means.
    fn judge(&self, status: StatusCode, code: &str) -> Result<(), Refused> {
        let (bucket, endpoint) = (&self.settings.bucket, &self.settings.endpoint);
        let said = format!("{} {code}", status.as_u16());
        let said = said.trim_end();
        let never = |message: String| Err(Refused::Never(message));
        match status {
            status if status.is_success() => Ok(()),
            StatusCode::NOT_FOUND if code == NO_BUCKET => never(format!(
                "the object store at {endpoint} has no bucket {bucket}: make it, or set MINIO_BUCKET"
            )),
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => never(format!(
                "the object store at {endpoint} refuses larder's credentials for the bucket {bucket} ({said}): check MINIO_ACCESS_KEY and MINIO_SECRET_KEY"
            )),
            StatusCode::BAD_REQUEST if !code.is_empty() => never(format!(
                "the object store at {endpoint} does not accept larder's requests ({said}): check the region ({}) and the credentials",
                self.settings.region
            )),
            status if status.is_redirection() => never(format!(
                "the object store at {endpoint} says that the bucket {bucket} is elsewhere ({said}): check endpoint and `s3.region` ({})",
                self.settings.region
            )),
            _ => Err(Refused::Later(super::no_answer(&format!(
                "{DOING} (status {said})"
            )))),
        }
    }

    async fn attempt(&self, path: &Path) -> Result<Vec<&'static str>, Refused> {
        let mut missing = Vec::new();
        let mut lost = |what: &'static str, error: Error| self.lacks(what, error, &mut missing);
        match self.upload(path).await.map_err(Refused::Later)? {
            Ok(()) => {}
            Err(error) => {
                lost("uploads in parts", error)?;
                let whole = self.store.put(path, Bytes::from_static(BYTES).into());
                if let Err(error) = self.within("put", whole).await.map_err(Refused::Later)? {
                    lost("uploads", error)?;
                }
            }
        }
        let range = GetOptions {
            range: Some(GetRange::Bounded(7..11)),
            ..GetOptions::default()
        };
        let got = async { self.store.get_opts(path, range).await?.bytes().await };
        match self
            .within("read a range", got)
            .await
            .map_err(Refused::Later)?
        {
            Ok(bytes) if bytes == BYTES[7..11] => {}
            Ok(_) => {
                return Err(Refused::Never(
                    "the object store gives other bytes than those of the range that is asked for"
                        .to_owned(),
                ));
            }
            Err(error) => lost("ranges", error)?,
        }
        let is_conditional = match self.puts_on_condition(path).await? {
            Ok(is_conditional) => is_conditional,
            Err(error) => {
                lost("conditional puts", error)?;
                false
            }
        };
        let deleted = self.store.delete(path);
        if let Err(error) = self
            .within("delete", deleted)
            .await
            .map_err(Refused::Later)?
        {
            lost("deletions", error)?;
        }
        if !missing.is_empty() {
            return Err(Refused::Never(format!(
                "the object store at {} cannot do what larder needs: {}",
                self.settings.endpoint,
                missing.join("; ")
            )));
        }
        Ok(if is_conditional {
            Vec::new()
        } else {
            vec!["conditional puts"]
        })
    }

    /// Whether the store heeds the condition that nothing is there yet.
    async fn puts_on_condition(&self, path: &Path) -> Result<object_store::Result<bool>, Refused> {
        let create = PutOptions::from(PutMode::Create);
        let payload = Bytes::from_static(b"x").into();
        let again = self.store.put_opts(path, payload, create);
        let again = self.within("put", again).await.map_err(Refused::Later)?;
        Ok(match again {
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(true),
            // Not heeded, or not understood.
            Ok(_) | Err(Error::NotImplemented { .. } | Error::NotSupported { .. }) => Ok(false),
            Err(error) if error.to_string().contains("NotImplemented") => Ok(false),
            Err(error) => Err(error),
        })
    }

    /// An upload of one part, from beginning to end.
    async fn upload(&self, path: &Path) -> Result<object_store::Result<()>, StorageError> {
        let upload = async {
            let id = self.store.create_multipart(path).await?;
            let payload = Bytes::from_static(BYTES).into();
            let part = self.store.put_part(path, &id, 0, payload).await;
            let done = match part {
                Ok(part) => self.store.complete_multipart(path, &id, vec![part]).await,
                Err(error) => Err(error),
            };
            if done.is_err() {
                let _ = self.store.abort_multipart(path, &id).await;
            }
            done.map(drop)
        };
        self.within("try an upload", upload).await
    }

    /// Notes what the store refuses. What may be better later ends the probe.
    fn lacks(
        &self,
        what: &'static str,
        error: Error,
        missing: &mut Vec<String>,
    ) -> Result<(), Refused> {
        let said = error.to_string();
        let code = said
            .split_once("<Code>")
            .and_then(|(_, rest)| rest.split("</Code>").next());
        let denied = matches!(
            error,
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. }
        );
        match code {
            Some(code) if denied => {
                missing.push(format!(
                    "{what} (its answer: {code}; larder's credentials may not)"
                ));
            }
            Some(code) if self.patience.trouble().is_none() || code == "NotImplemented" => {
                missing.push(format!("{what} (its answer: {code})"));
            }
            _ if denied => missing.push(format!("{what} (larder's credentials may not)")),
            _ => return Err(Refused::Later(failed("try the object store", error))),
        }
        Ok(())
    }
}

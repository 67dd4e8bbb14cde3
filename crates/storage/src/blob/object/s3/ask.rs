//! Requests about the bucket that `object_store` does not know.

use http::{Method, StatusCode};
use object_store::aws::AwsAuthorizer;
use object_store::client::{HttpRequest, HttpRequestBody};

use super::{S3, failed, no_answer};
use crate::error::{StorageError, StorageErrorKind};

/// An answer, whatever it says.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) status: StatusCode,
    pub(super) body: String,
}

impl Asked {
    /// The text of the first element of this name.
    pub(super) fn element(&self, name: &str) -> Option<&str> {
        element(&self.body, name)
    }
}

/// The text of the first element of this name. Answers of a store are flat enough for that.
pub(super) fn element<'x>(xml: &'x str, name: &str) -> Option<&'x str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0)
}

/// The five entities of XML, back to what they stand for.
pub(super) fn unescaped(text: &str) -> String {
    let plain = text
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&#34;", "\"")
        .replace("&apos;", "'")
        .replace("&#39;", "'");
    plain.replace("&amp;", "&")
}

impl S3 {
    /// Asks something of the bucket itself.
    ///
    /// # Errors
    /// There are no credentials, or nobody answers.
    pub(super) async fn ask(
        &self,
        method: Method,
        doing: &str,
        query: &[(&str, &str)],
    ) -> Result<Asked, StorageError> {
        let asking = tokio::time::timeout(self.patience.limit(), self.asked(method, doing, query));
        asking.await.map_err(|_| no_answer(doing))?
    }

    async fn asked(
        &self,
        method: Method,
        doing: &str,
        query: &[(&str, &str)],
    ) -> Result<Asked, StorageError> {
        let credential = self.store.credentials().get_credential().await;
        let credential = credential.map_err(|error| StorageError {
            kind: StorageErrorKind::Unavailable,
            message: format!("cannot {doing}: the platform gives no credentials for the object store, and no keys are set"),
            source: Some(Box::new(error)),
        })?;
        let query: Vec<String> = query
            .iter()
            .map(|(name, value)| format!("{name}={}", encoded(value)))
            .collect();
        let slash = if self.settings.path_style { "" } else { "/" };
        let address = format!("{}{slash}?{}", self.bucket_url, query.join("&"));
        let mut request: HttpRequest = http::Request::builder()
            .method(method)
            .uri(address)
            .body(HttpRequestBody::empty())
            .map_err(|_| no_answer(doing))?;
        AwsAuthorizer::new(&credential, "s3", &self.settings.region)
            .try_authorize(&mut request, None)
            .map_err(|error| failed(doing, error))?;
        let silent = |error: object_store::client::HttpError| {
            let mut silent = no_answer(doing);
            silent.source = Some(Box::new(error));
            silent
        };
        let answer = self.client.execute(request).await.map_err(silent)?;
        let status = answer.status();
        let body = answer.into_body().bytes().await.map_err(silent)?;
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok(Asked { status, body })
    }
}

/// RFC 3986 section 2.3: all but the unreserved characters, as signatures want it.
fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

//! Where a store is, and who larder is to it.

use larder_core::{ProxyRules, Secret};
use reqwest::Url;

use crate::error::{StorageError, StorageErrorKind};

/// A bucket of a store that speaks S3, as an operator names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Settings {
    /// Host, and port if it is not the usual one of the scheme. No scheme and no path.
    pub endpoint: String,
    /// Whether the store is asked over TLS.
    pub secure: bool,
    /// The bucket, which is there already.
    pub bucket: String,
    /// The region that requests are signed for.
    pub region: String,
    /// Whether the bucket is the first segment of the path; else it is a label in front of the host.
    pub path_style: bool,
    /// What all keys begin with: empty, or ending with a slash.
    pub prefix: String,
    /// Access key and secret key; without them the platform gives credentials (web identity, container, instance).
    pub keys: Option<(Secret<String>, Secret<String>)>,
    /// The `AWS_…` variables by which a platform tells where its credentials are, names and values.
    pub platform: Vec<(String, String)>,
    /// Certificates in PEM that are trusted beside those of the system.
    pub ca: Option<Vec<u8>>,
    /// Where clients reach the store, host and port, and whether over TLS: what presigned URLs lead to. `None`: where larder does.
    pub public: Option<(String, bool)>,
    /// Whether uploads carry a checksum for the store to check. Other stores than AWS know too few of them.
    pub checksums: bool,
    /// The proxies by which the store is reached, where there are any. The environment's count by these rules only.
    pub proxies: Option<ProxyRules>,
}

impl S3Settings {
    /// As clients see it.
    pub(super) fn of_clients(&self) -> Self {
        let (endpoint, secure) = match &self.public {
            Some((endpoint, secure)) => (endpoint.clone(), *secure),
            None => (self.endpoint.clone(), self.secure),
        };
        Self {
            endpoint,
            secure,
            ..self.clone()
        }
    }

    /// The address of the bucket, without a slash at its end.
    ///
    /// # Errors
    /// Endpoint and bucket make no address.
    pub(super) fn bucket_url(&self) -> Result<String, StorageError> {
        let scheme = if self.secure { "https" } else { "http" };
        let (endpoint, bucket) = (&self.endpoint, &self.bucket);
        let url = if self.path_style {
            format!("{scheme}://{endpoint}/{bucket}")
        } else {
            format!("{scheme}://{bucket}.{endpoint}")
        };
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        let is_bucket = !bucket.is_empty() && bucket.bytes().all(legal);
        let is_host = |b: u8| legal(b) || b":[]".contains(&b);
        let is_legal = is_bucket && !endpoint.is_empty() && endpoint.bytes().all(is_host);
        if is_legal && Url::parse(&url).is_ok() {
            return Ok(url);
        }
        let mut message = format!("no bucket of an object store has the address {url}");
        if is_legal && !self.path_style {
            message += ": a bucket stands in front of host names only, not of addresses: set `s3.path_style: true`";
        }
        Err(StorageError::new(StorageErrorKind::Io, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// AWS, "Methods for accessing a general purpose bucket": both forms of address.
    #[test]
    fn both_forms_of_address() {
        let mut settings = S3Settings {
            endpoint: "s3.example.com".to_owned(),
            secure: true,
            bucket: "artifacts".to_owned(),
            region: "us-east-1".to_owned(),
            path_style: true,
            prefix: String::new(),
            keys: None,
            platform: Vec::new(),
            ca: None,
            public: None,
            checksums: false,
            proxies: None,
        };
        let url = |settings: &S3Settings| settings.bucket_url().unwrap();
        assert_eq!(url(&settings), "https://s3.example.com/artifacts");
        settings.path_style = false;
        assert_eq!(url(&settings), "https://artifacts.s3.example.com");
        (settings.endpoint, settings.secure) = ("127.0.0.1:8333".to_owned(), false);
        settings.path_style = true;
        assert_eq!(url(&settings), "http://127.0.0.1:8333/artifacts");
        settings.path_style = false;
        for endpoint in ["127.0.0.1:8333", "[::1]:8333", "127.0.0.1"] {
            endpoint.clone_into(&mut settings.endpoint);
            let refused = settings.bucket_url().unwrap_err();
            assert!(
                refused.message.contains("`s3.path_style: true`"),
                "{refused}"
            );
        }
        settings.path_style = true;
        for endpoint in ["127.0.0.1:8333", "[::1]:8333"] {
            endpoint.clone_into(&mut settings.endpoint);
            assert_eq!(url(&settings), format!("http://{endpoint}/artifacts"));
        }
        for (endpoint, bucket) in [
            ("a:99999", "b"),
            ("[::1", "b"),
            ("a/b", "c"),
            ("a", ""),
            ("", "b"),
            ("a", "b/c"),
            ("a@b", "c"),
        ] {
            (settings.endpoint, settings.bucket) = (endpoint.to_owned(), bucket.to_owned());
            assert!(settings.bucket_url().is_err(), "{endpoint} {bucket}");
        }
    }
}

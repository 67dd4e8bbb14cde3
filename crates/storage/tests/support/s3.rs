//! Settings for the store of the tests.

use larder_core::Secret;
use larder_storage::S3Settings;
use larder_testkit::servers::S3Server;

/// Those of a client at `endpoint` (the store's own, or that of a gate in front of it) that keeps to `prefix`.
pub(crate) fn settings(endpoint: String, prefix: &str) -> S3Settings {
    S3Settings {
        endpoint,
        secure: false,
        bucket: S3Server::BUCKET.to_owned(),
        region: "us-east-1".to_owned(),
        path_style: true,
        prefix: prefix.to_owned(),
        keys: Some((
            Secret::new(S3Server::ACCESS_KEY.to_owned()),
            Secret::new(S3Server::SECRET_KEY.to_owned()),
        )),
        platform: Vec::new(),
        ca: None,
        public: None,
        checksums: false,
        proxies: None,
    }
}

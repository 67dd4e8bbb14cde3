//! An S3 store as tests see it: beside larder, and not through it.

use std::sync::Arc;

use larder_core::Secret;
use larder_storage::{S3Objects, S3Settings};
use larder_testkit::servers::S3Server;

/// The store itself, to see what is in it.
pub(crate) fn store_of(server: &S3Server) -> S3Objects {
    store_below(server, "")
}

/// What begins with `prefix` in it.
pub(crate) fn store_below(server: &S3Server, prefix: &str) -> S3Objects {
    let secret = |text: &str| Secret::new(text.to_owned());
    let settings = S3Settings {
        endpoint: server.endpoint(),
        secure: false,
        bucket: S3Server::BUCKET.to_owned(),
        region: "us-east-1".to_owned(),
        path_style: true,
        prefix: prefix.to_owned(),
        keys: Some((secret(S3Server::ACCESS_KEY), secret(S3Server::SECRET_KEY))),
        platform: Vec::new(),
        ca: None,
        public: None,
        checksums: false,
        proxies: None,
    };
    S3Objects::new(settings, Arc::default()).expect("settings of a store")
}

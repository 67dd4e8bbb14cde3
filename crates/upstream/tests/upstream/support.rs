//! Repositories, upstreams and bodies for the tests.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use http::Method;
use larder_core::{
    AccessPolicy, AllowPrivate, CachePolicy, Credentials, Kind, PackageType, QuarantinePolicy,
    Repository, RepositoryName, Secret, UpstreamAuth, UpstreamSettings,
};
use larder_upstream::{
    HttpUpstream, NameLookup, Options, Upstream, UpstreamError, UpstreamErrorKind, UpstreamRequest,
    UpstreamResponse,
};
use url::Url;

/// What must never be seen anywhere but at the configured origin.
pub(crate) const CANARY: &str = "c4n4ry";

pub(crate) fn settings(base: &Url) -> UpstreamSettings {
    UpstreamSettings {
        base_urls: vec![base.join("/").unwrap()],
        index_url: base.join("/").unwrap(),
        credentials: None,
        auth: UpstreamAuth::Basic,
        default_namespace: None,
        headers: Vec::new(),
        connect_timeout: Duration::from_secs(5),
        read_timeout: Duration::from_secs(5),
        allow_private: Vec::new(),
        link_hosts: None,
        ca_file: None,
        proxy: None,
        offline: false,
        max_size: None,
        max_disk: None,
        limits: larder_core::RequestLimits::default(),
    }
}

/// With user, password and a header of its own.
pub(crate) fn with_secrets(base: &Url) -> UpstreamSettings {
    UpstreamSettings {
        credentials: Some(Credentials {
            username: "user".to_owned(),
            password: Secret::new(CANARY.to_owned()),
        }),
        headers: vec![(
            "X-Own-Token".to_owned(),
            Secret::new(format!("{CANARY}-own")),
        )],
        ..settings(base)
    }
}

pub(crate) fn allow(settings: UpstreamSettings, entry: &str) -> UpstreamSettings {
    let entry = match entry.parse() {
        Ok(network) => AllowPrivate::Network(network),
        Err(_) => AllowPrivate::Socket(entry.parse().unwrap()),
    };
    UpstreamSettings {
        allow_private: vec![entry],
        ..settings
    }
}

pub(crate) fn repository(settings: UpstreamSettings) -> Arc<Repository> {
    named("files", settings)
}

pub(crate) fn named(name: &str, settings: UpstreamSettings) -> Arc<Repository> {
    Arc::new(Repository {
        name: RepositoryName::parse(name).unwrap(),
        package: PackageType::Generic,
        description: String::new(),
        kind: Kind::Remote(Box::new(settings)),
        access: AccessPolicy::default(),
        cache: CachePolicy::default(),
        quarantine: QuarantinePolicy::default(),
        authoritative: false,
        reserved: larder_core::ReservedNames::default(),
        rules_epoch: 0,
    })
}

pub(crate) fn get(repository: &Arc<Repository>, url: Url) -> UpstreamRequest {
    UpstreamRequest::new(Arc::clone(repository), Method::GET, url)
}

/// A name table in place of DNS, which counts its look-ups.
#[derive(Debug, Default)]
pub(crate) struct Names {
    table: Mutex<HashMap<String, Vec<IpAddr>>>,
    lookups: AtomicUsize,
}

impl Names {
    pub(crate) fn set(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        self.table
            .lock()
            .unwrap()
            .insert(name.to_owned(), addresses);
    }

    pub(crate) fn lookups(&self) -> usize {
        self.lookups.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl NameLookup for Names {
    async fn addresses(&self, name: &str) -> std::io::Result<Vec<IpAddr>> {
        self.lookups.fetch_add(1, Ordering::SeqCst);
        self.table
            .lock()
            .unwrap()
            .get(name)
            .cloned()
            .ok_or_else(|| std::io::Error::other("no such name"))
    }
}

pub(crate) fn upstream() -> (HttpUpstream, Arc<Names>) {
    let names = Arc::new(Names::default());
    let options = Options {
        lookup: Arc::clone(&names) as Arc<dyn NameLookup>,
        ..Options::new("larder/0.0-test")
    };
    (HttpUpstream::new(options), names)
}

/// The kind of a refusal, after checking that its text gives nothing away.
pub(crate) fn kind(result: Result<UpstreamResponse, UpstreamError>) -> UpstreamErrorKind {
    let error = result.expect_err("an error");
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains(CANARY), "{shown}");
    error.kind
}

/// The whole body, and the error at its end.
pub(crate) async fn read(response: UpstreamResponse) -> (Vec<u8>, Option<UpstreamErrorKind>) {
    let (mut body, mut bytes) = (response.body, Vec::new());
    while let Some(item) = body.next().await {
        match item {
            Ok(chunk) => bytes.extend_from_slice(&chunk),
            Err(error) => return (bytes, Some(error.kind)),
        }
    }
    (bytes, None)
}

pub(crate) async fn text(upstream: &HttpUpstream, request: UpstreamRequest) -> String {
    let (bytes, end) = read(upstream.send(request).await.unwrap()).await;
    assert_eq!(end, None);
    String::from_utf8(bytes).unwrap()
}

/// As `settings`, of a registry that is asked what it wants.
pub(crate) fn registry(settings: UpstreamSettings) -> UpstreamSettings {
    UpstreamSettings {
        auth: UpstreamAuth::Challenge {
            token_hosts: Vec::new(),
        },
        ..settings
    }
}

/// As `settings`, of a registry whose tokens may come from these hosts.
pub(crate) fn with_token_hosts(settings: UpstreamSettings, hosts: &[&str]) -> UpstreamSettings {
    let token_hosts = hosts.iter().map(|&host| host.to_owned()).collect();
    UpstreamSettings {
        auth: UpstreamAuth::Challenge { token_hosts },
        ..settings
    }
}

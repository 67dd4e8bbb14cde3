//! Puts the crates together, top to bottom, and serves. No logic of its own.

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use crate::descriptors::{self, Shares};
use crate::prepare::{Prepared, prepare};
use larder::config::{Settings, Sources, watch};
use larder_core::{Clock, Pseudonym, SystemClock};
use larder_engine::{Engine, EngineParts, Limits};
use larder_server::{LiveSettings, ServerHandle, ServerLimits, ServerSettings, TlsFiles};
use larder_upstream::{HttpUpstream, Options};
use tokio::signal::unix::{SignalKind, signal};

/// The program's version.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Running downloads that somebody reads are given this long when larder stops.
const DRAIN: Duration = Duration::from_secs(30);
/// How often unreferenced blobs are looked for; nearly full disks are looked at more often.
const COLLECT_EVERY: Duration = Duration::from_hours(1);
/// The first collection waits until the first requests have been served.
const COLLECT_FIRST: Duration = Duration::from_mins(1);

/// Serves until a signal ends it.
///
/// # Errors
/// What kept larder from starting, for the operator.
pub(crate) fn run(settings: Settings, sources: Sources) -> Result<(), Box<dyn Error>> {
    let limit = descriptors::raise_limit();
    let wanted = wanted_shares(&settings);
    let shares = Shares::of(limit, wanted);
    descriptors::warn_of_less(limit, wanted, shares);
    larder_server::return_large_blocks();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(serve(settings, sources, shares));
    // A blocking read from a dead disk must not keep the process alive.
    runtime.shutdown_timeout(Duration::from_secs(2));
    served
}

/// How many descriptors the large users would have if there were enough.
pub(crate) fn wanted_shares(settings: &Settings) -> Shares {
    Shares {
        connections: settings.limits.connections,
        downloads: settings.limits.downloads,
        hot_files: larder_server::hot_files(settings.hot_set),
        blobs: larder_storage::MOST_OPEN_BLOBS,
    }
}

async fn serve(settings: Settings, sources: Sources, shares: Shares) -> Result<(), Box<dyn Error>> {
    let options = Options::new(format!("larder/{VERSION}"));
    let pseudonym = options.pseudonym;
    // The lock is held until the process ends.
    let Prepared { _lock, blobs, metadata, link_key, server } = prepare(&settings, shares, pseudonym).await?;
    let upstream = Arc::new(HttpUpstream::new(options));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let engine = Engine::new(EngineParts {
        repositories: settings.repositories.clone(),
        not_built: settings.not_built.clone(),
        blobs,
        metadata: metadata.clone(),
        upstream: Arc::clone(&upstream) as Arc<dyn larder_upstream::Upstream>,
        clock,
        link_key,
        public_urls: settings.public_urls.clone(),
        limits: Limits { document_size: settings.limits.document_size, downloads: shares.downloads, ..Limits::default() },
    });
    let scheme = if settings.tls.is_some() { "https" } else { "http" };
    for address in server.local_addrs() {
        tracing::info!(version = VERSION, repositories = settings.repositories.len(), "listening on {scheme}://{address}");
    }
    let handle = server.handle();
    let reloads = tokio::spawn(reload_on_change(sources, settings, Arc::clone(&engine), upstream, handle));
    let collector = tokio::spawn(collect_now_and_then(Arc::clone(&engine)));
    server.run(Arc::clone(&engine), stop_signal()).await;
    tracing::info!("stopping: what is being downloaded and read is finished first");
    reloads.abort();
    collector.abort();
    engine.drain(DRAIN).await;
    metadata.close().await;
    Ok(())
}

/// What the server is bound with.
pub(crate) fn server_settings(settings: &Settings, shares: Shares, pseudonym: Pseudonym) -> ServerSettings {
    ServerSettings {
        listen: settings.listen.clone(),
        tls: tls_files(settings),
        hot_set_bytes: settings.hot_set,
        hot_files: shares.hot_files,
        limits: ServerLimits { connections: shares.connections, ..ServerLimits::default() },
        version: VERSION,
        pseudonym,
        live: live_settings(settings),
    }
}

/// Certificate and key, where larder speaks HTTPS.
pub(crate) fn tls_files(settings: &Settings) -> Option<TlsFiles> {
    settings.tls.as_ref().map(|tls| TlsFiles { cert: tls.cert.clone(), key: tls.key.clone() })
}

fn live_settings(settings: &Settings) -> LiveSettings {
    LiveSettings {
        public_urls: settings.public_urls.clone(),
        trusted_proxies: settings.trusted_proxies.clone(),
        admin_token: settings.admin_token.clone(),
        docker_default_remote: settings.docker_default_remote.clone(),
        docker_registries: settings.docker_registries.clone(),
        host_names: host_names(settings),
        config_view: settings.config_view.clone(),
    }
}

/// The names that are larder's own, as far as a browser's `Host` is concerned.
fn host_names(settings: &Settings) -> BTreeSet<String> {
    let public = settings.public_urls.all().iter().filter_map(|url| url.host_str()).map(str::to_owned);
    public.chain(settings.hostnames.keys().cloned()).collect()
}

async fn reload_on_change(
    sources: Sources,
    first: Settings,
    engine: Arc<Engine>,
    upstream: Arc<HttpUpstream>,
    handle: ServerHandle,
) {
    let apply = |settings: Settings| {
        upstream.reload();
        engine.replace_repositories(settings.repositories.clone(), &settings.not_built, settings.public_urls.clone());
        handle.replace_live(live_settings(&settings));
        if let Err(error) = handle.reload_tls() {
            tracing::error!(%error, "the new certificate cannot be used; the old one stays");
        }
        tracing::info!(repositories = settings.repositories.len(), "the new configuration is in force");
    };
    if let Err(error) = watch(sources, first, apply).await {
        tracing::error!(%error, "the configuration is not watched: changes need a restart");
    }
}

async fn collect_now_and_then(engine: Arc<Engine>) {
    tokio::time::sleep(COLLECT_FIRST).await;
    loop {
        engine.collect_garbage().await;
        tokio::time::sleep(COLLECT_EVERY).await;
    }
}

async fn stop_signal() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

//! Puts the crates together, top to bottom, and serves. No logic of its own.

use std::collections::BTreeSet;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::blobs::Blobs;
use crate::cluster::{self, Member};
use crate::descriptors::{self, Shares};
use crate::memory;
use crate::prepare::{Prepared, on_damage, prepare};
use crate::reload::{Reloading, reload_on_change};
use crate::stop::{DrainTime, EndSignals, ignore_user_signals, until_stopped};
use crate::traces;
use larder::config::{Settings, Sources};
use larder_budget::{Budgets, Totals};
use larder_core::{Pseudonym, SystemClock};
use larder_engine::{Engine, EngineParts, Limits};
use larder_formats::LinkKey;
use larder_server::{LiveSettings, ServerLimits, ServerSettings, TlsFiles};
use larder_storage::{BlobStore, MetadataStore, StorageError};
use larder_upstream::{HttpUpstream, Options};

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
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let tracing = settings.tracing.clone();
    let serving = serve(settings, sources, shares, limit);
    let served = runtime.block_on(traces::recorded(tracing.as_ref(), VERSION, serving));
    // A blocking read from a dead disk must not keep the process alive.
    runtime.shutdown_timeout(Duration::from_secs(2));
    served
}

/// How many descriptors the large users would have if there were enough.
pub(crate) fn wanted_shares(settings: &Settings) -> Shares {
    Shares {
        connections: settings.limits.connections,
        downloads: settings.limits.downloads,
        uploads: Totals::default().uploads,
        hot_files: larder_server::hot_files(settings.hot_set),
        blobs: larder_storage::MOST_OPEN_BLOBS,
        derived: larder_engine::MOST_DERIVED_FILES,
    }
}

async fn serve(
    settings: Settings,
    sources: Sources,
    shares: Shares,
    open_files: usize,
) -> Result<(), Box<dyn Error>> {
    let ignoring = tokio::spawn(ignore_user_signals());
    let mut signals = EndSignals::new();
    let budgets = Arc::new(Budgets::new(totals(shares)));
    let options = options(&budgets);
    let pseudonym = options.pseudonym;
    // The lock is held until the process ends.
    let Prepared {
        _lock,
        blobs,
        metadata,
        link_key,
        server,
    } = tokio::select! {
        prepared = prepare(&settings, shares, pseudonym, &budgets, on_damage(&settings)) => prepared?,
        () = signals.next() => {
            tracing::info!("stopped before it had started");
            return Ok(());
        }
    };
    let upstream = Arc::new(HttpUpstream::new(options));
    let engine = engine(
        &settings,
        shares,
        (&blobs, &metadata, link_key),
        &upstream,
        budgets,
        true,
    )?;
    let member = cluster::join(&settings, &engine, &metadata, VERSION).await?;
    tell_of_start(&settings, server.local_addrs(), shares, open_files);
    let drain = DrainTime::new(settings.drain);
    let upkeep = blobs.keep_up(settings.clone(), member.clone());
    let stopped = until_stopped(signals, server.handle(), drain.clone());
    let reloading = Reloading {
        engine: Arc::clone(&engine),
        upstream,
        handle: server.handle(),
        drain,
        member: member.clone(),
    };
    let aside = [
        ignoring,
        tokio::spawn(reload_on_change(sources, settings, reloading)),
        tokio::spawn(collect_now_and_then(Arc::clone(&engine), member)),
        tokio::spawn(upkeep),
        tokio::spawn(memory::kept_small()),
        tokio::spawn(Arc::clone(engine.jobs()).run()),
        tokio::spawn(Arc::clone(engine.scrubs()).run()),
    ];
    server.run(Arc::clone(&engine), stopped).await;
    aside.iter().for_each(tokio::task::JoinHandle::abort);
    engine.drain(DRAIN).await;
    metadata.close().await;
    tracing::info!("stopped: what was downloaded is on disk");
    Ok(())
}

/// The engine over what a start has taken. `keeps_up`: it keeps to its bounds behind the scenes.
///
/// # Errors
/// The disk cannot be looked at.
pub(crate) fn engine(
    settings: &Settings,
    shares: Shares,
    (blobs, metadata, link_key): (&Blobs, &MetadataStore, LinkKey),
    upstream: &Arc<HttpUpstream>,
    budgets: Arc<Budgets>,
    keeps_up: bool,
) -> Result<Arc<Engine>, StorageError> {
    let limits = Limits {
        keeps_up,
        ..limits(settings, shares, &*blobs.store)?
    };
    Ok(Engine::new(EngineParts {
        repositories: settings.repositories.clone(),
        not_built: settings.not_built.clone(),
        blobs: Arc::clone(&blobs.store),
        metadata: metadata.clone(),
        upstream: Arc::clone(upstream) as Arc<dyn larder_upstream::Upstream>,
        clock: Arc::new(SystemClock),
        link_key,
        public_urls: settings.public_urls.clone(),
        limits,
        budgets,
    }))
}

/// How upstreams are asked.
pub(crate) fn options(budgets: &Arc<Budgets>) -> Options {
    Options {
        budgets: Arc::clone(budgets),
        ..Options::new(format!("larder/{VERSION}"))
    }
}

/// What may be leased at once.
pub(crate) fn totals(shares: Shares) -> Totals {
    Totals {
        downloads: shares.downloads,
        uploads: shares.uploads,
        ..Totals::default()
    }
}

fn limits(
    settings: &Settings,
    shares: Shares,
    blobs: &dyn BlobStore,
) -> Result<Limits, StorageError> {
    let disk = match settings.limits.disk {
        None => None,
        Some(limit) => Some(limit.of(blobs.free_space()?.total)),
    };
    Ok(Limits {
        document_size: settings.limits.document_size,
        derived_files: shares.derived,
        disk,
        ..Limits::default()
    })
}

/// What this larder is: in one line, for whoever looks at the log of a machine that is new to them.
fn tell_of_start(settings: &Settings, addresses: &[SocketAddr], shares: Shares, open_files: usize) {
    let scheme = if settings.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let addresses: Vec<String> = addresses
        .iter()
        .map(|address| format!("{scheme}://{address}"))
        .collect();
    let files: Vec<String> = settings
        .watched
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    tracing::info!(
        version = VERSION,
        data_dir = %settings.data_dir.display(),
        metadata = if settings.database.is_some() { "postgresql" } else { "sqlite" },
        config = if files.is_empty() { "built-in".to_owned() } else { files.join(", ") },
        repositories = settings.repositories.len(),
        admin_token = if settings.admin_token.is_some() { "yes" } else { "no" },
        connections = shares.connections,
        downloads = shares.downloads,
        document_size = settings.limits.document_size,
        hot_set = settings.hot_set,
        open_files,
        "listening on {}",
        addresses.join(" and ")
    );
}

/// What the server is bound with.
pub(crate) fn server_settings(
    settings: &Settings,
    shares: Shares,
    pseudonym: Pseudonym,
    budgets: Arc<Budgets>,
) -> ServerSettings {
    ServerSettings {
        listen: settings.listen.clone(),
        tls: tls_files(settings),
        hot_set_bytes: settings.hot_set,
        hot_files: shares.hot_files,
        limits: ServerLimits {
            connections: shares.connections,
            ..ServerLimits::default()
        },
        version: VERSION,
        pseudonym,
        budgets,
        live: live_settings(settings),
    }
}

/// Certificate and key, where larder speaks HTTPS.
pub(crate) fn tls_files(settings: &Settings) -> Option<TlsFiles> {
    settings.tls.as_ref().map(|tls| TlsFiles {
        cert: tls.cert.clone(),
        key: tls.key.clone(),
    })
}

pub(crate) fn live_settings(settings: &Settings) -> LiveSettings {
    LiveSettings {
        public_urls: settings.public_urls.clone(),
        trusted_proxies: settings.trusted_proxies.clone(),
        admin_token: settings.admin_token.clone(),
        docker_default_remote: settings.docker_default_remote.clone(),
        docker_registries: settings.docker_registries.clone(),
        host_names: host_names(settings),
        config_view: settings.config_view.clone(),
        config_waiting: Vec::new(),
        config_lines: Arc::clone(&settings.config_lines),
        config_warnings: Arc::new(warnings(settings)),
    }
}

/// What loading had to say, by the files' names alone: their paths are nobody else's business.
fn warnings(settings: &Settings) -> Vec<String> {
    let said = settings.warnings.iter().cloned();
    said.map(|said| said.by_file_name().to_string()).collect()
}

/// The names that are larder's own, as far as a browser's `Host` is concerned.
fn host_names(settings: &Settings) -> BTreeSet<String> {
    let public = settings
        .public_urls
        .all()
        .iter()
        .filter_map(|url| url.host_str())
        .map(str::to_owned);
    public.chain(settings.hostnames.keys().cloned()).collect()
}

async fn collect_now_and_then(engine: Arc<Engine>, member: Option<Arc<Member>>) {
    tokio::time::sleep(COLLECT_FIRST).await;
    loop {
        if member.as_ref().is_none_or(|member| member.does_chores()) {
            engine.collect_garbage().await;
        }
        tokio::time::sleep(COLLECT_EVERY).await;
    }
}

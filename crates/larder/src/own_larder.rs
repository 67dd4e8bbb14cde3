//! Commands in a data directory that no larder runs on: the same larder as `serve` starts, in this process, on a loopback port that the
//! system chooses and with a token that nobody else has, for one command (docs/adr/0105).

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use larder::config::{Cluster, Settings, Sources, load};
use larder::logging;
use larder::remote_commands::{self, Needs, OwnLarder, RemoteCommand};
use larder_budget::Budgets;
use larder_core::{Repository, Secret};
use larder_engine::Engine;
use larder_storage::{DataDirectoryLock, MetadataStore, OnDamage};
use larder_upstream::HttpUpstream;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::blobs::TIER;
use crate::descriptors::{self, Shares};
use crate::metadata::{IDENTITY, random};
use crate::migrate;
use crate::prepare::{DATABASE, Prepared, prepare};
use crate::wire;

/// What is still under way when a command has ended is given so long.
const DRAIN: Duration = Duration::from_secs(5);

/// Does a command in the data directory that the sources name.
pub(crate) fn run(command: &RemoteCommand, sources: &Sources) -> ExitCode {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    // Not locked: the larder's own log goes there, too.
    let mut err = std::io::stderr();
    let code = match started(command.needs(), sources) {
        Ok((runtime, larder, own)) => {
            let environment = &sources.environment;
            let code = remote_commands::run(command, environment, Some(&own), &mut out, &mut err);
            runtime.block_on(larder.stop());
            // A blocking read from a dead disk must not keep the process alive.
            runtime.shutdown_timeout(Duration::from_secs(2));
            code
        }
        Err(why) => remote_commands::refuse(command, &why.to_string(), &mut out, &mut err),
    };
    ExitCode::from(code)
}

fn started(
    needs: Needs,
    sources: &Sources,
) -> Result<(Runtime, Running, OwnLarder), Box<dyn Error>> {
    let quiet = Sources {
        // What the command has to say, it says itself.
        log: sources
            .environment
            .get("LARDER_LOG")
            .is_none()
            .then(|| "error".to_owned()),
        ..sources.clone()
    };
    logging::start(&quiet)?;
    let settings = load(sources).map_err(|found| {
        let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
        format!("the configuration cannot be used:\n{}", lines.join("\n"))
    })?;
    refuse_other_places(&settings, needs)?;
    let token = token()?;
    let directory = settings.data_dir.clone();
    let settings = for_one_command(settings, needs, token.clone());
    let limit = descriptors::raise_limit();
    let shares = Shares::of(limit, wire::wanted_shares(&settings));
    larder_server::return_large_blocks();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let (larder, address) = runtime.block_on(start(&settings, shares, needs))?;
    let own = OwnLarder {
        address,
        token: Secret::new(token),
        directory,
    };
    Ok((runtime, larder, own))
}

/// What is elsewhere would seem to be lost, and a directory that is in use is somebody else's.
fn refuse_other_places(settings: &Settings, needs: Needs) -> Result<(), String> {
    let directory = &settings.data_dir;
    let shown = directory.display();
    let ask = "ask a running larder (without --data-dir)";
    if let Ok(Some(process)) = DataDirectoryLock::holder(directory) {
        return Err(format!(
            "{shown}: the data directory is in use by another larder ({process}); stop it, or ask that one: without --data-dir, with --server"
        ));
    }
    if settings.database.is_some() {
        return Err(format!(
            "{shown}: the configuration keeps the records in PostgreSQL, which other larders may share: {ask}"
        ));
    }
    let is_there = |name: &str| directory.join(name).exists();
    if !is_there(DATABASE) && (!needs.makes_directory || is_there(IDENTITY)) {
        return Err(format!(
            "{shown} holds no {DATABASE}: name the data directory of a larder that keeps its records there; where they are in PostgreSQL, {ask}"
        ));
    }
    if settings.s3.is_none() && is_there(TIER) {
        return Err(format!(
            "{shown} is the data directory of a larder whose files are in an S3 store: name its configuration with --config, or {ask}"
        ));
    }
    migrate::refuse_unfinished_files(settings)
}

/// Nobody can guess it, and only this process has it.
fn token() -> Result<String, Box<dyn Error>> {
    use std::fmt::Write as _;
    let mut token = String::new();
    for byte in random()? {
        write!(token, "{byte:02x}")?;
    }
    Ok(token)
}

/// The same larder, for nobody but the command.
fn for_one_command(mut settings: Settings, needs: Needs, token: String) -> Settings {
    if !needs.upstreams {
        for repository in &mut settings.repositories {
            let mut offline = Repository::clone(repository);
            if let Some(upstream) = offline.upstream_mut() {
                upstream.offline = true;
            }
            *repository = Arc::new(offline);
        }
    }
    Settings {
        admin_token: Some(Secret::new(token)),
        tls: None,
        tracing: None,
        trusted_proxies: Vec::new(),
        cluster: Cluster::default(),
        hot_set: 0,
        ..settings
    }
}

/// A larder that has been started.
struct Running {
    _lock: DataDirectoryLock,
    engine: Arc<Engine>,
    metadata: MetadataStore,
    serving: JoinHandle<()>,
    aside: Vec<JoinHandle<()>>,
    stop: oneshot::Sender<()>,
}

async fn start(
    settings: &Settings,
    shares: Shares,
    needs: Needs,
) -> Result<(Running, std::net::SocketAddr), Box<dyn Error>> {
    let budgets = Arc::new(Budgets::new(wire::totals(shares)));
    let options = wire::options(&budgets);
    // Whoever has named another configuration by mistake shall not find the database put aside.
    let prepared = prepare(
        settings,
        shares,
        options.pseudonym,
        &budgets,
        OnDamage::Refuse,
    );
    let Prepared {
        _lock: lock,
        blobs,
        metadata,
        link_key,
        server,
    } = prepared.await?;
    let address = server.local_addrs().first().copied();
    let address = address.ok_or("the system gives no port on 127.0.0.1")?;
    let engine = wire::engine(
        settings,
        shares,
        (&blobs, &metadata, link_key),
        &Arc::new(HttpUpstream::new(options)),
        budgets,
        // A command does what was asked for: room is made only for what it keeps.
        false,
    )?;
    let mut aside = vec![tokio::spawn(blobs.keep_up(settings.clone(), None))];
    if needs.jobs {
        aside.push(tokio::spawn(Arc::clone(engine.jobs()).run()));
    }
    if needs.scrubs {
        aside.push(tokio::spawn(Arc::clone(engine.scrubs()).run()));
    }
    let (stop, stopped) = oneshot::channel();
    let backend = Arc::clone(&engine);
    let serving = tokio::spawn(async move {
        // Either way it is time to stop.
        let stopped = async move { drop(stopped.await) };
        server.run(backend, stopped).await;
    });
    let running = Running {
        _lock: lock,
        engine,
        metadata,
        serving,
        aside,
        stop,
    };
    Ok((running, address))
}

impl Running {
    /// What was taken is on disk when this returns.
    async fn stop(self) {
        let _ = self.stop.send(());
        // What panics has been told of.
        let _ = self.serving.await;
        self.aside.iter().for_each(JoinHandle::abort);
        self.engine.drain(DRAIN).await;
        self.metadata.close().await;
    }
}

//! Reloads while larder serves: what a new configuration changes is put in force, told by name, and kept for `/health`.

use std::sync::Arc;

use larder::config::{
    Changes, Diagnostic, Settings, Severity, Sources, waiting_for_restart, watch,
};
use larder_core::{Clock as _, SystemClock};
use larder_engine::Engine;
use larder_server::{LiveSettings, ReloadReport, ServerHandle};
use larder_upstream::HttpUpstream;

use crate::cluster::{self, Member};
use crate::stop::DrainTime;
use crate::wire::live_settings;

/// What a reload acts on.
pub(crate) struct Reloading {
    pub(crate) engine: Arc<Engine>,
    pub(crate) upstream: Arc<HttpUpstream>,
    pub(crate) handle: ServerHandle,
    pub(crate) drain: DrainTime,
    pub(crate) member: Option<Arc<Member>>,
}

/// Runs until it is dropped.
pub(crate) async fn reload_on_change(sources: Sources, first: Settings, reloading: Reloading) {
    let (mut current, started_with) = (first.clone(), first.clone());
    let apply = move |loaded: Result<Settings, Vec<Diagnostic>>| match loaded {
        Ok(settings) => {
            let waiting = waiting_for_restart(&started_with, &settings);
            reloading.put_in_force(&current, &settings, &waiting);
            current = settings;
        }
        Err(found) => reloading.refuse(&found),
    };
    if let Err(error) = watch(sources, first, apply).await {
        tracing::error!(%error, "the configuration is not watched: changes need a restart");
    }
}

impl Reloading {
    /// `waiting`: keys that are put in force by the next start only.
    fn put_in_force(&self, current: &Settings, settings: &Settings, waiting: &[&str]) {
        let changes = Changes::between(current, settings);
        self.upstream.reload();
        self.engine.replace_repositories(
            settings.repositories.clone(),
            &settings.not_built,
            settings.public_urls.clone(),
        );
        self.handle.replace_live(LiveSettings {
            config_waiting: waiting.iter().map(|key| (*key).to_owned()).collect(),
            ..live_settings(settings)
        });
        self.drain.set(settings.drain);
        self.engine.configured_as(&cluster::digest(settings));
        if let Some(member) = &self.member {
            member.reloaded(settings);
        }
        let error = self.handle.reload_tls().err();
        if let Some(error) = &error {
            tracing::error!(%error, "the new certificate cannot be used; the old one stays");
        }
        let list = |names: &[String]| names.join(", ");
        let message = if changes == Changes::default() {
            "the configuration is loaded again: nothing has changed"
        } else {
            IN_FORCE
        };
        tracing::info!(
            repositories = settings.repositories.len(),
            added = list(&changes.added),
            removed = list(&changes.removed),
            changed = list(&changes.changed),
            keys = list(&changes.keys),
            "{message}"
        );
        self.note(error.map(|error| error.to_string()), changes.names());
    }

    fn refuse(&self, found: &[Diagnostic]) {
        let errors: Vec<String> = found
            .iter()
            .filter(|found| found.severity == Severity::Error)
            .map(ToString::to_string)
            .collect();
        for error in &errors {
            tracing::error!("{error}");
        }
        // `/health` is read by anybody: of a file its name, not where it lies.
        let first = found
            .iter()
            .find(|found| found.severity == Severity::Error)
            .map(|found| found.clone().by_file_name().to_string());
        let first = first.unwrap_or_else(|| "the configuration cannot be used".to_owned());
        tracing::error!(
            errors = errors.len(),
            "the changed configuration cannot be used: the old one stays in force"
        );
        self.note(Some(first), Vec::new());
    }

    fn note(&self, error: Option<String>, changed: Vec<String>) {
        self.handle.note_reload(ReloadReport {
            at: SystemClock.now(),
            error,
            changed,
        });
    }
}

const IN_FORCE: &str = "the new configuration is in force";

//! From files, environment and flags to validated settings (contract, section 2).
//!
//! One way in: bytes → tree with places ([`yaml`]) → merged document ([`file`], [`merge`]) → settings ([`settings`]), with
//! every error of every file reported at once. Knows what keys mean; starts nothing.

mod bounds;
mod changes;
mod database;
mod defaults;
mod diagnostic;
mod env;
mod env_names;
mod epoch;
mod escape;
mod fields;
mod file;
mod globs;
mod hints;
mod indents;
mod lines;
mod members;
mod membership;
mod merge;
mod node;
mod proxies;
mod references;
mod registries;
mod repository;
mod request_limits;
mod schema;
mod secret_files;
mod settings;
mod synonyms;
mod tree;
mod upstream;
mod urls;
mod view;
mod watch;
mod written_secrets;
mod yaml;
mod yaml_hints;

pub use bounds::DiskLimit;
pub use changes::Changes;
pub use defaults::built_in;
pub(crate) use defaults::docker_hub_hosts;
pub use diagnostic::{Diagnostic, Place, Severity};
pub use env::Environment;
pub use fields::parse_rate;
pub use hints::nearest;
pub(crate) use node::{Entry, Node};
pub use settings::{Cluster, DEFAULT_HOT_SET, Limits, S3, Settings, Sources, Tls, Tracing};
pub(crate) use tree::{yaml_tree, yaml_trees};
pub use watch::{waiting_for_restart, watch};
pub use written_secrets::written_secrets;

use diagnostic::Report;

/// What fuzz targets call; no part of the crate's interface.
#[doc(hidden)]
pub mod fuzzing {
    use std::sync::Arc;

    /// Reads bytes as a configuration file's YAML: what cannot be used has a reason.
    pub fn yaml(data: &[u8]) {
        let Ok(text) = std::str::from_utf8(data) else {
            return;
        };
        let mut report = super::Report::default();
        let parsed = super::yaml::parse(&Arc::from("larder.yaml"), text, &mut report);
        assert!(
            parsed.is_some() || report.has_errors(),
            "refused without a reason"
        );
    }
}

/// Loads and validates a configuration. A reload is another load.
///
/// # Errors
/// Everything that is wrong, and the warnings beside it, sorted by file and line. None of it holds a secret.
pub fn load(sources: &Sources) -> Result<Settings, Vec<Diagnostic>> {
    let mut report = Report::default();
    let loaded = file::read(sources.config_path().as_deref(), &mut report);
    env_names::check(
        &sources.environment,
        &references::names(&loaded.document),
        &mut report,
    );
    let resolved = references::resolve(&loaded.document, &sources.environment, &mut report);
    let settings = settings::validate(&loaded, &resolved, sources, &mut report);
    let failed = report.has_errors();
    let found = report.into_sorted();
    match settings {
        Some(settings) if !failed => Ok(Settings {
            warnings: found,
            ..settings
        }),
        _ => Err(found),
    }
}

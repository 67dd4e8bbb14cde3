//! Puts the crates together and serves.

use larder::config::{Settings, Sources};

/// Serves until a signal ends it.
///
/// # Errors
/// What kept larder from starting, for the operator.
pub(crate) fn run(_settings: Settings, _sources: Sources) -> Result<(), Box<dyn std::error::Error>> {
    Err("this build holds the configuration only; it cannot serve".into())
}

//! The parts of the `larder` program that can be used without starting it: configuration, command line, logging.
//!
//! The program itself is `main.rs`, which puts the crates together.

#![cfg_attr(not(test), warn(clippy::too_many_lines))]

pub mod cli;
pub mod config;
mod lockfiles;
pub mod logging;
mod pages;
pub mod remote_commands;

/// What fuzz targets call; no part of the crate's interface.
#[doc(hidden)]
pub mod fuzzing {
    /// Reads bytes as each kind of lock file: what cannot be read has a reason.
    pub fn lockfiles(data: &[u8]) {
        let Ok(text) = std::str::from_utf8(data) else {
            return;
        };
        crate::lockfiles::read_as_all(text);
    }
}

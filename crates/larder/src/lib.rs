//! The parts of the `larder` program that can be used without starting it: configuration, command line, logging.
//!
//! The program itself is `main.rs`, which puts the crates together.

pub mod cli;
pub mod config;
pub mod logging;
pub mod remote_commands;

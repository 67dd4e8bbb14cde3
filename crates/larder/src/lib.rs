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

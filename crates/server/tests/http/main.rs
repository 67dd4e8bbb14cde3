//! The server over loopback, in front of a scripted pipeline.

mod access;
mod artifacts;
mod bad_input;
mod harness;
mod hot_set;
mod timeouts;
mod tls;

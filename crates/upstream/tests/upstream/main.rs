//! The network upstream against real sockets on this machine: every rule about redirects, credentials, addresses, bodies, TLS and
//! circuit breakers, each test named after the hazard that it keeps away.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test stops where something is not as it expects"
)]

mod addresses;
mod auth;
mod auth_faults;
mod auth_odd;
mod auth_secrets;
mod bodies;
mod breaker;
mod headers;
mod origin;
mod proxy;
mod redirects;
mod scripted;
mod silent_names;
mod support;
mod tls;
mod tls_self_signed;

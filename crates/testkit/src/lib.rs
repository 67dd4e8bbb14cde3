//! What the tests of every crate share: a scriptable upstream that can misbehave in every way known to have hurt a cache.
//!
//! [`Origin`] is a raw TCP HTTP/1.1 server on a free loopback port. It serves [`Resource`]s, records every request it
//! reads, and follows [`Behaviour`]s: it can stall, throttle, truncate, lie, reset, redirect and talk nonsense.
//! It knows nothing of larder. Beside it: real servers of the kinds that larder runs on, such as [`RedisServer`].

#![cfg_attr(not(test), warn(clippy::too_many_lines))]

mod behaviour;
mod connection;
mod origin;
mod plan;
mod request;
mod resource;
mod servers;
mod wire;

pub use behaviour::Behaviour;
pub use origin::Origin;
pub use request::RecordedRequest;
pub use resource::{Payload, Resource};
pub use servers::RedisServer;
pub use wire::gzip_stored;

//! Replicas that ask the upstream once: who downloads is who has the lease of a source; the others get the bytes from there while they
//! arrive (docs/adr/0084).
//!
//! | file | knows |
//! |---|---|
//! | `replica.rs` | this replica, and what it tells the operator of the others |
//! | `turn.rs` | whose turn it is to ask the upstream for a source |
//! | `heads.rs` | the same for heads of what is not held, and what is told of them |
//! | `lead.rs` | leases: taken, kept as long as a flight, and waited for |
//! | `relay.rs` | another replica's download as an upstream's answer, and who goes on when it breaks off |
//! | `serve.rs` | what this replica downloads, for the others |
//! | `frames.rs` | the form of it on the wire |
//! | `request.rs`, `secret.rs` | what replicas ask each other, and how they know each other |
//! | `hearsay.rs` | what one learns of upstreams, told to the others |
//! | `limits.rs` | bounds on requests to upstreams, kept by all replicas together (docs/adr/0086) |
//! | `roster.rs` | who else is there, with which configuration and what time |
//!
//! What goes wrong here makes larder slower, never wrong: whoever cannot tell what the others do asks the upstream itself.

mod frames;
mod heads;
mod hearsay;
mod lead;
mod limits;
mod relay;
mod replica;
mod request;
mod roster;
mod secret;
mod serve;
mod turn;

pub(crate) use self::heads::HeadTurn;
pub(crate) use self::hearsay::Hears;
pub(crate) use self::replica::Membership;
pub use self::replica::{ClusterParts, ClusterReport, Peers};
pub use self::request::{FLIGHT_PATH, FlightRequest};
pub use self::roster::ReplicaReport;
pub use self::secret::{CLUSTER_HEADER, ClusterSecret};
pub(crate) use self::serve::peer_flight;
pub(crate) use self::turn::Turn;

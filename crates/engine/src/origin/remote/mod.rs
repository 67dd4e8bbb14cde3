//! The origin that asks an upstream.
//!
//! Files import and call each other in one direction only, from the top of this table to its end; `tests/rules.rs` asserts it.
//!
//! | file | knows |
//! |---|---|
//! | `carried.rs` | what comes out of an archive, and becomes visible as what was fetched does |
//! | `obtain.rs` | look up, decide, serve what is held or join the one flight for it |
//! | `generation/served.rs` | the files around a document, as they are served |
//! | `patience.rs` | how long a refresh is waited for where a copy is held, and the copy that is served then |
//! | `launch.rs`, `fly.rs` | the one flight for a source, and its life: decide again, obtain, land |
//! | `head.rs`, `heads.rs` | HEAD on what is not held, one for all who ask meanwhile |
//! | `passthrough.rs` | requests that go to the upstream and back without the cache |
//! | `parts.rs` | what a remote is made of |
//! | `generation/` | documents that are right only together with other files |
//! | `landing.rs` | a new document becomes visible together with the loss of what it contradicts |
//! | `fetch.rs` | ask for a body, wherever it may be, and settle what came of it |
//! | `body.rs`, `supply.rs`, `inspector.rs` | what a body is taken in with: what its head says, who has the rest after a cut, what knows its format |
//! | `places.rs` | where a file may be, and which of the places has the last word |
//! | `settle.rs`, `outcome.rs` | what came of asking |
//! | `stand_in.rs`, `by_digest.rs`, `copies.rs` | copies that are held: under this name, under another that states the bytes, of other variants |
//! | `accept.rs`, `mirrors.rs`, `routes.rs`, `query.rs` | in which media types an upstream is asked, which of its places, who is asked next |
//! | `refusals.rs`, `standing.rs` | who has said when to come back, and how each place is doing |
//! | `fields.rs` | what is kept of an upstream's head |

mod accept;
mod body;
mod by_digest;
mod carried;
mod copies;
mod fetch;
mod fields;
mod fly;
mod generation;
mod head;
mod heads;
mod inspector;
mod landing;
mod launch;
mod mirrors;
mod obtain;
mod outcome;
mod parts;
mod passthrough;
pub(crate) mod patience;
mod places;
mod query;
mod refusals;
mod routes;
mod settle;
mod stand_in;
mod standing;
mod supply;

pub(crate) use carried::Identified;
pub(crate) use mirrors::Mirrors;
pub(crate) use parts::{Parts, Remote};
pub(crate) use routes::usual_place;

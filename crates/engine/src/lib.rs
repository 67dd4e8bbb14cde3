//! The one pipeline: parse, admit, look up, decide, obtain, clear, respond, fill, apply. Every format passes through it.
//!
//! | file | step |
//! |---|---|
//! | `engine.rs` | the shared state and the entry point, [`Engine::read`] |
//! | `admission.rs` | 1–2: parse the path, ask the format, apply the access rules; the only maker of `Admitted` |
//! | `obtain.rs`, `fetch.rs` | 3–5: look up, decide, ask the upstream, settle |
//! | `head.rs`, `heads.rs` | 5: HEAD on what is not held, one for all who ask meanwhile |
//! | `no_body.rs` | 5: why there is no body: what statuses and failures mean, and the words for users |
//! | `refusals.rs` | 5: paths that are not asked for, because the upstream has said when to come back |
//! | `places.rs` | 5: where a file may be, and which of the places has the last word |
//! | `mirrors.rs` | 5: which of an upstream's places is asked, and who is asked next |
//! | `clearance.rs` | 6: quarantine; the only maker of [`Cleared`] |
//! | `flight.rs`, `download.rs`, `intake.rs`, `resume.rs` | 8: one detached download: its head, its body, what follows a cut |
//! | `verify.rs` | 8: is it the right body? |
//! | `fill.rs`, `reader.rs` | 8: the bytes while they arrive, many readers |
//! | `expectation.rs`, `claims.rs`, `claim_tables.rs` | what a file's digest should be, and where its document says so |
//! | `rereading.rs` | documents that are read once more because they do not name a file |
//! | `landing.rs` | a new document becomes visible together with the loss of what it contradicts |
//! | `generation.rs`, `members.rs`, `reading.rs`, `retire.rs` | documents that are right only together with other files |
//! | `by_digest.rs` | names that stand for bytes which another name states by digest |
//! | `commit.rs` | 9: blob, then record, in groups |
//! | `derive.rs`, `coding.rs` | rewritten documents and their compressed forms |
//! | `spliced.rs` | those whose links begin with what the client calls larder |
//! | `serve.rs` | 7: from what was obtained to an [`Answer`] |

mod absences;
mod admission;
mod answer;
mod by_digest;
mod causes;
mod claim_tables;
mod claims;
mod clearance;
mod coding;
mod commit;
mod counters;
mod decided;
mod denied;
mod derive;
mod document;
mod download;
mod engine;
mod expectation;
mod fetch;
mod fill;
mod flight;
mod flush;
mod folder;
mod forget;
mod generation;
mod head;
mod heads;
mod health;
mod held;
mod intake;
mod keys;
mod landing;
mod learnt;
mod listing;
mod members;
mod mirrors;
mod no_body;
mod obtain;
mod passthrough;
mod places;
mod reader;
mod reading;
mod records;
mod refusals;
mod remembered;
mod repositories;
mod rereading;
mod resume;
mod retire;
mod serve;
mod spliced;
mod stand_in;
mod tongue;
mod upstreams;
mod verify;

pub use answer::{Answer, Body, Freshness, HotTicket, Representation};
pub use clearance::Cleared;
pub use counters::{Counters, MirrorCounters, MirrorReport, RepositoryCounters, UpstreamQuota};
pub use engine::{ArtifactRequest, Engine, EngineParts, Limits};
pub use flush::{CacheType, FlushReport, FlushRequest};
pub use health::{BackendHealth, DiskSpace, Health};
pub use held::{HeldArtifact, HeldCursor, HeldPage, HeldRequest, HeldSummary};
pub use larder_storage::HeldSize;
pub use passthrough::PassThroughBody;
pub use reader::{FlightBody, FlightReader};
pub use spliced::{SplicedBody, SplicedReader};
pub use upstreams::{UpstreamFailure, UpstreamReport, UpstreamStanding};

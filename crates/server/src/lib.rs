//! larder over HTTP: connections, the URL table, responses. Knows nothing of storage, upstreams or formats; it asks the
//! pipeline through [`Backend`].
//!
//! | to learn | read |
//! |---|---|
//! | what monitoring is told | `health_page.rs`, `metrics_page.rs`, `metrics/mod.rs` |
//! | how connections come and go | `listen.rs`, `places.rs` (how many), `drive.rs` and `streams.rs` (time-outs), `tls.rs`, `pem.rs`, `corked.rs` |
//! | in which order a request meets the layers | `service.rs`, `exchange.rs` |
//! | what the log says of a request, and what is counted of refusals | `access_log.rs`, `refused.rs` |
//! | which URLs there are | `routes.rs` |
//! | how an answer becomes a response | `artifact.rs`, `respond.rs`, `body.rs` |
//! | why a hit costs next to nothing | `hot.rs`, `warm.rs`, `remembered.rs`, `file_body.rs`, `frames.rs` |
//! | which requests are refused before anything else | `request_check.rs`, `framing.rs`, `loops.rs`, `origin_guard.rs` |
//! | what a client may send, and how it is told to stop | `request_body.rs`, `lingering.rs` |
//! | why a path is answered as it is | `explain.rs` |
//! | how files come into local repositories | `upload.rs` |
//! | what people see in a browser | `ui/` |

#![cfg_attr(not(test), warn(clippy::too_many_lines))]

mod accept;
mod access_log;
mod activity;
mod admin;
mod archive;
mod artifact;
mod attempts;
mod backend;
mod body;
mod corked;
mod discovery;
mod dispatch;
mod drive;
mod engine_backend;
mod exchange;
mod explain;
mod file_body;
mod forwarded;
mod frames;
mod framing;
mod health_page;
mod hidden;
mod hot;
mod jobs;
mod lingering;
mod listen;
mod loops;
mod metrics;
mod metrics_page;
mod multipart;
mod oci;
mod openapi;
mod origin_guard;
mod peers;
mod pem;
mod places;
mod problem;
mod refused;
mod remembered;
mod request_body;
mod request_check;
mod respond;
mod root_page;
mod routes;
mod selector;
mod service;
mod settings;
mod spans;
mod starting;
mod state;
mod streams;
mod striped;
mod tls;
mod ui;
mod unknown;
mod upkeep;
mod upload;
mod warm;
mod watched;

/// What fuzz targets call; no part of the crate's interface.
#[doc(hidden)]
pub mod fuzzing {
    /// Scans bytes for heads of requests, at once and a byte at a time: the same head must be refused. What a target must not hold is
    /// looked for in lines that come in one piece.
    pub fn framing(data: &[u8]) {
        use crate::framing::{FramingDefect, HeadScanner};
        let mut in_steps = HeadScanner::default();
        let whole = HeadScanner::default().feed(&mut data.to_vec());
        let cut = data.iter().find_map(|byte| in_steps.feed(&mut [*byte]));
        if !matches!(whole, Some((_, FramingDefect::BadTarget))) {
            let head = |found: Option<(u64, FramingDefect)>| found.map(|(number, _)| number);
            assert_eq!(
                head(whole),
                head(cut),
                "a verdict that depends on how the bytes came"
            );
        }
    }
}

pub use backend::{Backend, CounterSnapshot, UploadBody};
pub use health_page::ReloadReport;
pub use hot::hot_files;
pub use larder_sendfile::{return_large_blocks, return_unused_pages};
pub use listen::{BindError, BoundServer, ServerHandle, bind};
pub use places::RESERVE as RESERVED_CONNECTIONS;
pub use settings::{DEFAULT_HOT_SET_BYTES, LiveSettings, ServerLimits, ServerSettings, TlsFiles};
pub use starting::{Starting, Waiting};
pub use tls::{CertificateDates, TlsError, check_tls};

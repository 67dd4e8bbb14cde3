//! The ways in which an origin can be told to depart from serving well.

use std::time::Duration;

use bytes::Bytes;

/// One departure from good service. Several may be in force for one request; each touches only what it names.
///
/// Offsets count bytes of the response body on the wire, so that a `Range` answer starts again at zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behaviour {
    /// Reads the request, then waits before the first byte of the head.
    StallHead(Duration),
    /// Sends `after` bytes of the body, then waits.
    StallBody {
        /// Bytes sent before the pause.
        after: u64,
        /// The pause.
        pause: Duration,
    },
    /// Sends the body at most this fast.
    Throttle {
        /// Bytes per second.
        bytes_per_second: u64,
    },
    /// Sends `after` bytes of the body under the true `Content-Length`, then closes (FIN).
    Truncate {
        /// Bytes sent.
        after: u64,
    },
    /// Sends the body chunked, without `Content-Length`, with its last chunk.
    Chunked,
    /// Sends `after` bytes chunked, then closes (FIN) without the last chunk.
    CutChunked {
        /// Bytes sent.
        after: u64,
    },
    /// Sends neither `Content-Length` nor chunks: the end of the connection is the end of the body.
    UntilClose,
    /// States a length that differs from the body's by this many bytes, sends the true body and closes.
    LieAboutLength(i64),
    /// Resets the connection (RST) instead of a head.
    ResetHead,
    /// Sends `after` bytes of the body, then resets the connection (RST).
    ResetBody {
        /// Bytes sent.
        after: u64,
    },
    /// Answers with a redirect to any text whatsoever.
    Redirect {
        /// 301, 302, 303, 307, 308.
        status: u16,
        /// The `Location`, sent as it is.
        location: String,
    },
    /// Answers 401 with this `WWW-Authenticate`, unless the request's `Authorization` is exactly `unless`.
    Challenge {
        /// The field, sent as it is.
        challenge: String,
        /// What gets in.
        unless: String,
    },
    /// Answers this status to requests whose `Accept` mentions a media type.
    RefuseType {
        /// What may not stand in `Accept`.
        mentions: String,
        /// 404, 406.
        status: u16,
    },
    /// Answers this status with a short text body.
    Status(u16),
    /// Answers 304 to anything, with the resource's validators.
    NotModified,
    /// Compresses the body (gzip, stored blocks) and labels it so, whatever `Accept-Encoding` says.
    Gzip,
    /// Adds a `Content-Encoding` label without touching the bytes.
    LabelEncoding(String),
    /// Answers 206 with only the first `length` bytes, whether asked for a range or not.
    UnaskedPartial {
        /// Bytes sent.
        length: u64,
    },
    /// Sends these bytes instead of a head, then closes.
    Garbage(Bytes),
    /// Answers 200 with an HTML log-in page, as captive portals do.
    LoginPage,
    /// Answers 200 with `application/json` that opens this many arrays and closes none.
    JsonNesting {
        /// Number of `[`.
        depth: u64,
    },
    /// Sends these bytes after the complete body, on the same connection.
    Surplus(Bytes),
    /// Replaces or adds a header of the answer.
    Header(String, String),
    /// Leaves out a header of the answer.
    WithoutHeader(String),
    /// Answers with this body instead of the resource's; validators stay: the upstream that changes bytes under one ETag.
    Body(Bytes),
    /// Does not look at `If-None-Match` and `If-Modified-Since`.
    IgnoreConditions,
    /// Does not look at `Range` and does not offer ranges.
    IgnoreRanges,
    /// Says `Connection: close` and closes after the answer.
    Close,
}

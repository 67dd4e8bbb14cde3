//! `multipart/byteranges` (RFC 9110 section 14.6): the text around the parts.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};

use http::HeaderValue;
use larder_core::ByteRange;

use larder_engine::Body;

/// An answer of several ranges.
#[derive(Debug)]
pub(crate) struct Multipart {
    boundary: String,
    /// Each range with the text before it.
    parts: Vec<(Vec<u8>, ByteRange)>,
    closing: String,
}

impl Multipart {
    /// `content_type` and `length` are those of the whole body.
    pub(crate) fn new(
        ranges: &[ByteRange],
        content_type: Option<&HeaderValue>,
        length: u64,
    ) -> Self {
        // 128 random bits: no body can be made to hold them.
        let random = |n: u8| RandomState::new().hash_one(n);
        let boundary = format!("{:016x}{:016x}", random(1), random(2));
        let type_line = content_type
            .map(|value| [b"Content-Type: ", value.as_bytes(), b"\r\n"].concat())
            .unwrap_or_default();
        let head = |range: &ByteRange| {
            let ByteRange { start, end } = range;
            let opening = format!("\r\n--{boundary}\r\n");
            let place = format!("Content-Range: bytes {start}-{end}/{length}\r\n\r\n");
            [opening.as_bytes(), &type_line, place.as_bytes()].concat()
        };
        let parts = ranges.iter().map(|range| (head(range), *range)).collect();
        let closing = format!("\r\n--{boundary}--\r\n");
        Self {
            boundary,
            parts,
            closing,
        }
    }

    pub(crate) fn content_type(&self) -> String {
        format!("multipart/byteranges; boundary={}", self.boundary)
    }

    /// Length of the whole answer.
    pub(crate) fn length(&self) -> u64 {
        let parts: u64 = self
            .parts
            .iter()
            .map(|(head, range)| head.len() as u64 + (range.end - range.start + 1))
            .sum();
        parts + self.closing.len() as u64
    }

    /// The answer, with the ranges' bytes given by `bytes_of`.
    pub(crate) fn pieces(self, bytes_of: impl Fn(ByteRange) -> Option<Body>) -> VecDeque<Body> {
        let parts = self
            .parts
            .into_iter()
            .flat_map(|(head, range)| [Some(Body::Memory(head.into())), bytes_of(range)]);
        parts
            .chain([Some(Body::Memory(self.closing.into()))])
            .flatten()
            .collect()
    }
}

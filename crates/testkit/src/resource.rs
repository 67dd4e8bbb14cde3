//! What an origin serves at a path: bytes, headers, validators.

use bytes::Bytes;

/// The bytes of a resource, in memory or made on the fly, so that a test may serve gigabytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// These bytes.
    Bytes(Bytes),
    /// `length` bytes that look random but depend only on their offset; see [`Payload::generated`].
    Generated {
        /// Length in bytes.
        length: u64,
        /// Another seed gives other bytes.
        seed: u64,
    },
    /// One piece over and over, which costs nothing to make.
    Cycle {
        /// The piece.
        piece: Bytes,
        /// Length in bytes of all.
        length: u64,
    },
    /// One byte over and over.
    Repeat {
        /// The byte.
        byte: u8,
        /// How many.
        length: u64,
    },
}

impl Payload {
    /// A payload of `length` pseudo-random bytes.
    pub fn generated(length: u64, seed: u64) -> Self {
        Self::Generated { length, seed }
    }

    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Generated { length, .. }
            | Self::Cycle { length, .. }
            | Self::Repeat { length, .. } => *length,
        }
    }

    /// The bytes from `offset`, at most `length` of them; what a test compares a download with.
    pub fn slice(&self, offset: u64, length: u64) -> Bytes {
        let start = offset.min(self.length());
        let end = start.saturating_add(length).min(self.length());
        match self {
            Self::Bytes(bytes) => bytes.slice(start as usize..end as usize),
            Self::Generated { seed, .. } => generate(*seed, start, end),
            Self::Cycle { piece, .. } => cycle(piece, start, end),
            Self::Repeat { byte, .. } => vec![*byte; (end - start) as usize].into(),
        }
    }
}

/// Bytes `start..end` of the endless stream of `seed`: eight bytes per step of SplitMix64.
fn generate(seed: u64, start: u64, end: u64) -> Bytes {
    let mut out = Vec::with_capacity((end - start) as usize + 16);
    for word in start / 8..end.div_ceil(8) {
        let mut z = seed.wrapping_add(word.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        out.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    let skip = (start % 8) as usize;
    Bytes::from(out).slice(skip..skip + (end - start) as usize)
}

/// Bytes `start..end` of a piece that is repeated.
fn cycle(piece: &[u8], start: u64, end: u64) -> Bytes {
    let mut out = Vec::with_capacity((end - start) as usize);
    while !piece.is_empty() && (out.len() as u64) < end - start {
        let at = ((start + out.len() as u64) % piece.len() as u64) as usize;
        let left = (end - start) as usize - out.len();
        out.extend_from_slice(&piece[at..piece.len().min(at + left)]);
    }
    out.into()
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl From<String> for Payload {
    fn from(text: String) -> Self {
        Self::Bytes(text.into())
    }
}

impl From<&'static str> for Payload {
    fn from(text: &'static str) -> Self {
        Self::Bytes(Bytes::from_static(text.as_bytes()))
    }
}

impl From<&'static [u8]> for Payload {
    fn from(bytes: &'static [u8]) -> Self {
        Self::Bytes(Bytes::from_static(bytes))
    }
}

/// What is served at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Status of a plain GET.
    pub status: u16,
    /// Header fields beside `Content-Length`, `ETag` and `Last-Modified`.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Payload,
    /// `ETag` with its quotes; drives `If-None-Match` and `If-Range`.
    pub etag: Option<String>,
    /// `Last-Modified`, an HTTP date; drives `If-Modified-Since` and `If-Range`.
    pub last_modified: Option<String>,
}

impl Resource {
    /// 200 with these bytes, without validators.
    pub fn new(body: impl Into<Payload>) -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            body: body.into(),
            etag: None,
            last_modified: None,
        }
    }

    /// Another status.
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// One more header field.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets `Content-Type`.
    pub fn content_type(self, value: &str) -> Self {
        self.header("Content-Type", value)
    }

    /// Sets the `ETag`; give it with quotes (and `W/` if weak).
    pub fn etag(mut self, value: &str) -> Self {
        self.etag = Some(value.to_owned());
        self
    }

    /// Sets `Last-Modified`.
    pub fn last_modified(mut self, value: &str) -> Self {
        self.last_modified = Some(value.to_owned());
        self
    }
}

//! ADB, the container of apk 3 (apk-v3(5)): a header, then blocks, all of it packed or not. The first block is a tree of values.
//! Knows bytes; does not know what the values mean.

use std::io::{self, Read};

use crate::Malformed;

/// `indx`: the tree is an index.
pub(super) const INDEX: [u8; 4] = *b"indx";
/// `pckg`: the tree describes a package.
pub(super) const PACKAGE: [u8; 4] = *b"pckg";
/// Length of the header before the blocks.
pub(super) const HEADER: usize = 8;
/// Offsets within a tree have 28 bits.
const MAX_TREE: u64 = 1 << 28;
/// Longest name, version or rule.
const MAX_TEXT: usize = 1 << 10;
/// What any index may unpack to, whatever its size.
const ALWAYS_ALLOWED: u64 = 16 << 20;
/// Real indexes shrink to a tenth.
const INDEX_RATIO: u64 = 100;
/// Largest index, unpacked: that of the largest public repository is a tenth of it.
const MAX_UNPACKED: u64 = 128 << 20;
/// Deflate makes at most 1,032 bytes of one.
pub(super) const MAX_RATIO: u64 = 1_100;
/// zstd's window, as a power of two: the format asks every decoder for 8 MiB at least (RFC 8878 section 3.1.1.1.2).
pub(super) const ZSTD_WINDOW_LOG: u32 = 27;

/// How a container is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    None,
    Deflate,
    Zstd,
}

impl Packing {
    /// Of a container's first bytes, and how many of them are not packed: all six must be there, or all that there are.
    pub(super) fn of(head: &[u8]) -> Option<(Self, usize)> {
        match head {
            [b'A', b'D', b'B', b'.', ..] => Some((Self::None, 0)),
            [b'A', b'D', b'B', b'd', ..] => Some((Self::Deflate, 4)),
            // An algorithm and a level.
            [b'A', b'D', b'B', b'c', 0, _, ..] => Some((Self::None, 6)),
            [b'A', b'D', b'B', b'c', 1, _, ..] => Some((Self::Deflate, 6)),
            [b'A', b'D', b'B', b'c', 2, _, ..] => Some((Self::Zstd, 6)),
            _ => None,
        }
    }
}

/// All plain bytes of a container.
pub(super) fn unpack(body: &[u8]) -> Result<Vec<u8>, Malformed> {
    let (packing, head) = Packing::of(body)
        .ok_or_else(|| Malformed("it does not begin as a database of apk does".to_owned()))?;
    let packed = body.get(head..).unwrap_or_default();
    let allowed = (body.len() as u64)
        .saturating_mul(INDEX_RATIO)
        .clamp(ALWAYS_ALLOWED, MAX_UNPACKED);
    let mut plain = Vec::new();
    let read = match packing {
        Packing::None => packed.take(allowed).read_to_end(&mut plain),
        Packing::Deflate => flate2::bufread::DeflateDecoder::new(packed)
            .take(allowed)
            .read_to_end(&mut plain),
        Packing::Zstd => unpack_zstd(packed, allowed, &mut plain),
    };
    match read {
        Ok(length) if length as u64 == allowed => {
            Err(Malformed("it unpacks to far more than its size".to_owned()))
        }
        Ok(_) => Ok(plain),
        Err(error) => Err(Malformed(format!(
            "its compression cannot be read: {error}"
        ))),
    }
}

fn unpack_zstd(packed: &[u8], allowed: u64, plain: &mut Vec<u8>) -> io::Result<usize> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG)?;
    decoder.take(allowed).read_to_end(plain)
}

/// The schema of a container, if it begins as one.
pub(super) fn schema(plain: &[u8]) -> Option<[u8; 4]> {
    let header = plain.first_chunk::<HEADER>()?;
    let [b'A', b'D', b'B', b'.', schema @ ..] = *header else {
        return None;
    };
    Some(schema)
}

/// What a block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Tree,
    Signature,
    Data,
}

/// A block's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) kind: Kind,
    /// Length of the header itself.
    pub(super) header: usize,
    pub(super) length: u64,
    /// Bytes that follow, so that the next block begins at a multiple of eight.
    pub(super) padding: u64,
}

/// Length of the longest header.
pub(super) const LONGEST: usize = 16;

impl Block {
    /// How long the header is that begins with these bytes; `None` as long as that is not known.
    pub(super) fn header_length(bytes: &[u8]) -> Option<usize> {
        let word = u32::from_le_bytes(*bytes.first_chunk()?);
        Some(if word >> 30 == 3 { LONGEST } else { 4 })
    }

    /// Reads a whole header.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let word = u32::from_le_bytes(*bytes.first_chunk()?);
        let (kind, low) = (word >> 30, word & 0x3fff_ffff);
        let (kind, header, size) = if kind == 3 {
            (
                low,
                LONGEST,
                u64::from_le_bytes(*bytes.get(8..)?.first_chunk()?),
            )
        } else {
            (kind, 4, u64::from(low))
        };
        let kind = match kind {
            0 => Kind::Tree,
            1 => Kind::Signature,
            2 => Kind::Data,
            _ => return None,
        };
        let length = size.checked_sub(header as u64)?;
        Some(Self {
            kind,
            header,
            length,
            padding: size.checked_next_multiple_of(8)? - size,
        })
    }
}

/// The tree of a whole container, whose blocks must all be there.
pub(super) fn tree(plain: &[u8], expected: [u8; 4]) -> Result<Tree<'_>, Malformed> {
    let damaged = || Malformed("it is no database of apk, or it is damaged".to_owned());
    if schema(plain) != Some(expected) {
        return Err(Malformed(
            "it is no index of apk, though it may be another file of it".to_owned(),
        ));
    }
    let (mut rest, mut tree) = (&plain[HEADER..], None);
    while !rest.is_empty() {
        let block = Block::parse(rest).ok_or_else(damaged)?;
        let content = usize::try_from(block.length)
            .ok()
            .and_then(|length| rest.get(block.header..)?.get(..length));
        let content = content.ok_or_else(damaged)?;
        match (block.kind, tree.is_some()) {
            (Kind::Tree, false) => tree = Some(Tree::of(content).ok_or_else(damaged)?),
            (Kind::Signature, true) => {}
            _ => return Err(damaged()),
        }
        // Padding is missing only at the very end.
        rest = rest
            .get(block.header + content.len() + block.padding as usize..)
            .unwrap_or_default();
    }
    tree.ok_or_else(damaged)
}

/// A tree of values. What is not there, or leads out of the tree, reads as nothing, as it does for apk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tree<'a>(&'a [u8]);

/// A value, or where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Value(u32);

impl Value {
    fn kind(self) -> u32 {
        self.0 >> 28
    }

    fn low(self) -> usize {
        (self.0 & 0x0fff_ffff) as usize
    }
}

/// Fields of an object or items of an array, counted from one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Slots<'a>(&'a [u8]);

impl Slots<'_> {
    pub(super) fn count(&self) -> usize {
        (self.0.len() / 4).saturating_sub(1)
    }

    pub(super) fn get(&self, at: usize) -> Value {
        let word = at
            .checked_mul(4)
            .and_then(|from| self.0.get(from..)?.first_chunk());
        Value(word.map_or(0, |word| u32::from_le_bytes(*word)))
    }
}

impl<'a> Tree<'a> {
    /// A tree in the content of its block.
    pub(super) fn of(content: &'a [u8]) -> Option<Self> {
        // Another compatible version than 0 would be something else.
        (content.len() >= 8 && content.len() as u64 <= MAX_TREE && content[0] == 0)
            .then_some(Self(content))
    }

    pub(super) fn root(&self) -> Slots<'a> {
        self.slots(Slots(self.0).get(1))
    }

    pub(super) fn slots(&self, value: Value) -> Slots<'a> {
        let all = || {
            let slots = self
                .0
                .get(value.low()..)
                .filter(|_| matches!(value.kind(), 0xd | 0xe))?;
            let count = u32::from_le_bytes(*slots.first_chunk()?) as usize;
            slots.get(..count.checked_mul(4)?)
        };
        Slots(all().unwrap_or_default())
    }

    pub(super) fn number(&self, value: Value) -> u64 {
        let at = self.0.get(value.low()..).unwrap_or_default();
        match value.kind() {
            1 => value.low() as u64,
            2 => at
                .first_chunk()
                .map_or(0, |bytes| u64::from(u32::from_le_bytes(*bytes))),
            3 => at
                .first_chunk()
                .map_or(0, |bytes| u64::from_le_bytes(*bytes)),
            _ => 0,
        }
    }

    pub(super) fn bytes(&self, value: Value) -> Option<&'a [u8]> {
        let at = self.0.get(value.low()..)?;
        let (width, length) = match value.kind() {
            0x8 => (1, usize::from(*at.first()?)),
            0x9 => (2, usize::from(u16::from_le_bytes(*at.first_chunk()?))),
            0xa => (4, u32::from_le_bytes(*at.first_chunk()?) as usize),
            _ => return None,
        };
        at.get(width..)?.get(..length)
    }

    /// A short text; what is longer reads as nothing, since many values may be the same bytes.
    pub(super) fn text(&self, value: Value) -> &'a str {
        let bytes = self.bytes(value).filter(|bytes| bytes.len() <= MAX_TEXT);
        bytes
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .unwrap_or_default()
    }
}

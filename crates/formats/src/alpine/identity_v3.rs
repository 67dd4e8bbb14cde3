//! The identities of a package of apk 3 (apk-v3(5)): a tree that names every file with its digest, signatures, then the files.
//!
//! Indexes name it by a hash of the tree. Together with the digests in the tree that covers all but the signatures, which clients
//! check themselves.

use std::fmt;

use flate2::{Decompress, FlushDecompress, Status};
use larder_core::{DigestAlgorithm, Hasher};
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation as _, OutBuffer};

use super::adb::{Block, HEADER, Kind, MAX_RATIO, PACKAGE, Packing, ZSTD_WINDOW_LOG, schema};
use super::contents::{Contents, File};

/// Longest tree: that of a package of a hundred thousand files is a tenth of it.
const MAX_TREE: u64 = 64 << 20;
/// What any package may unpack to, whatever its size.
const ALWAYS_ALLOWED: u64 = 64 << 20;
const STEP: usize = 16 << 10;
/// What stands before a file's bytes: the numbers of its folder and of itself.
const POSITION: usize = 8;

/// Computes the identities of a package while its bytes go by.
#[derive(Debug)]
pub(super) struct Version3 {
    length: u64,
    unpacked: u64,
    packing: Unpacker,
    plain: Plain,
    /// It is no package, or it is damaged: nothing can make that good.
    broken: bool,
}

enum Unpacker {
    /// The first bytes, which say how the rest is packed.
    Head(Vec<u8>),
    None,
    Deflate(Box<Decompress>),
    /// With whether a frame has just ended.
    Zstd(Decoder<'static>, bool),
    /// The packed part has ended.
    Ended,
}

impl fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Head(_) => "Head",
            Self::None => "None",
            Self::Deflate(_) => "Deflate",
            Self::Zstd(..) => "Zstd",
            Self::Ended => "Ended",
        })
    }
}

impl Unpacker {
    fn new(packing: Packing) -> Option<Self> {
        Some(match packing {
            Packing::None => Self::None,
            Packing::Deflate => Self::Deflate(Box::new(Decompress::new(false))),
            Packing::Zstd => {
                let mut decoder = Decoder::new().ok()?;
                decoder
                    .set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG))
                    .ok()?;
                Self::Zstd(decoder, false)
            }
        })
    }

    /// Takes some of `bytes` and makes some of `out`: how many of each.
    fn step(&mut self, bytes: &[u8], out: &mut [u8]) -> Option<(usize, usize)> {
        match self {
            Self::None => {
                let count = bytes.len().min(out.len());
                out[..count].copy_from_slice(&bytes[..count]);
                Some((count, count))
            }
            Self::Deflate(inflate) => {
                let (read, written) = (inflate.total_in(), inflate.total_out());
                let status = inflate.decompress(bytes, out, FlushDecompress::None).ok()?;
                let done = (
                    (inflate.total_in() - read) as usize,
                    (inflate.total_out() - written) as usize,
                );
                if status == Status::StreamEnd {
                    *self = Self::Ended;
                }
                Some(done)
            }
            Self::Zstd(decoder, ended) => {
                let (mut from, mut to) = (InBuffer::around(bytes), OutBuffer::around(out));
                let left = decoder.run(&mut from, &mut to).ok()?;
                // A call that neither takes nor makes anything says nothing new.
                if from.pos() > 0 || to.pos() > 0 {
                    *ended = left == 0;
                }
                Some((from.pos(), to.pos()))
            }
            Self::Head(_) | Self::Ended => None,
        }
    }
}

impl Version3 {
    pub(super) fn new() -> Self {
        Self {
            length: 0,
            unpacked: 0,
            packing: Unpacker::Head(Vec::new()),
            plain: Plain::default(),
            broken: false,
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        self.broken = self.broken || self.take(bytes).is_none();
    }

    /// `None`: broken.
    fn take(&mut self, bytes: &[u8]) -> Option<()> {
        if let Unpacker::Head(head) = &mut self.packing {
            head.extend_from_slice(bytes);
            // The longest head has six bytes; no package is as short.
            if head.len() < 6 {
                return Some(());
            }
            let head = std::mem::take(head);
            let (packing, length) = Packing::of(&head)?;
            self.packing = Unpacker::new(packing)?;
            return self.take(&head[length..]);
        }
        let mut rest = bytes;
        let mut out = [0; STEP];
        loop {
            if rest.is_empty() && matches!(self.packing, Unpacker::Ended) {
                return Some(());
            }
            let (taken, made) = self.packing.step(rest, &mut out)?;
            rest = &rest[taken..];
            self.unpacked += made as u64;
            if self.unpacked > ALWAYS_ALLOWED && self.unpacked / MAX_RATIO > self.length {
                return None;
            }
            self.plain.take(&out[..made])?;
            // What is unpacked may lie there still, although all bytes were taken.
            if rest.is_empty() && made < out.len() {
                return Some(());
            }
            if taken == 0 && made == 0 {
                return None;
            }
        }
    }

    pub(super) fn finish(self) -> Vec<String> {
        // What is packed says itself where it ends; without its end it is cut, even if nothing more comes of that.
        let cut = matches!(
            self.packing,
            Unpacker::Head(_) | Unpacker::Deflate(_) | Unpacker::Zstd(_, false)
        );
        if self.broken || cut {
            return Vec::new();
        }
        self.plain.finish().unwrap_or_default()
    }
}

/// What plain bytes come next.
#[derive(Debug, Default)]
enum Part {
    /// The header of the container.
    #[default]
    Header,
    /// The header of a block.
    Block,
    /// The tree.
    Tree(Block),
    /// Which file the bytes of a block belong to.
    Position(Block),
    /// A file's bytes.
    File {
        file: File,
        hasher: Box<Hasher>,
        left: u64,
        padding: u64,
    },
    /// Signatures, and what fills blocks up.
    Pass(u64),
}

/// The plain bytes of a package, taken in order.
#[derive(Debug, Default)]
struct Plain {
    part: Part,
    /// The beginning of what is needed whole.
    partial: Vec<u8>,
    contents: Option<Contents>,
    has_data: bool,
}

impl Plain {
    fn take(&mut self, bytes: &[u8]) -> Option<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = self.step(rest)?;
        }
        Some(())
    }

    /// Takes what belongs to the present part; gives the rest. `None`: broken.
    fn step<'b>(&mut self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        match &mut self.part {
            Part::Pass(left) => {
                let count = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                *left -= count as u64;
                if *left == 0 {
                    self.part = Part::Block;
                }
                Some(&bytes[count..])
            }
            Part::File { hasher, left, .. } => {
                let count = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                hasher.update(&bytes[..count]);
                *left -= count as u64;
                if *left == 0 {
                    self.end_file()?;
                }
                Some(&bytes[count..])
            }
            Part::Header | Part::Block | Part::Tree(_) | Part::Position(_) => {
                let needed = self.needed();
                let count = needed.saturating_sub(self.partial.len()).min(bytes.len());
                self.partial.extend_from_slice(&bytes[..count]);
                // How long a block's header is shows in its first word.
                if self.partial.len() == self.needed() {
                    self.end_partial()?;
                }
                Some(&bytes[count..])
            }
        }
    }

    /// How many bytes of the present part are needed together.
    fn needed(&self) -> usize {
        match &self.part {
            Part::Header => HEADER,
            Part::Block => Block::header_length(&self.partial).unwrap_or(4),
            Part::Tree(block) => block.length as usize,
            Part::Position(_) => POSITION,
            Part::File { .. } | Part::Pass(_) => 0,
        }
    }

    fn end_partial(&mut self) -> Option<()> {
        let whole = std::mem::take(&mut self.partial);
        match std::mem::take(&mut self.part) {
            Part::Header => {
                self.part = Part::Block;
                (schema(&whole)? == PACKAGE).then_some(())
            }
            Part::Block => self.begin(Block::parse(&whole)?),
            Part::Tree(block) => {
                self.contents = Some(Contents::of(whole).ok()?);
                self.pass(block.padding);
                Some(())
            }
            Part::Position(block) => {
                let file = self.contents.as_mut()?.next().ok()??;
                let numbers = [&whole[..4], &whole[4..]]
                    .map(|word| word.first_chunk().map(|word| u32::from_le_bytes(*word)));
                let is_next = numbers == file.position.map(Some)
                    && block.length - POSITION as u64 == file.size;
                let also: &[DigestAlgorithm] = match file.digest.algorithm() {
                    DigestAlgorithm::Sha256 => &[],
                    _ => &[file.digest.algorithm()],
                };
                let (left, hasher) = (file.size, Box::new(Hasher::new(also)));
                self.part = Part::File {
                    file,
                    hasher,
                    left,
                    padding: block.padding,
                };
                is_next.then_some(())
            }
            Part::File { .. } | Part::Pass(_) => None,
        }
    }

    fn begin(&mut self, block: Block) -> Option<()> {
        match (block.kind, &self.contents) {
            (Kind::Tree, None) if (8..=MAX_TREE).contains(&block.length) => {
                self.part = Part::Tree(block);
            }
            (Kind::Signature, Some(_)) if !self.has_data => {
                self.pass(block.length.checked_add(block.padding)?);
            }
            (Kind::Data, Some(_)) if block.length > POSITION as u64 => {
                self.has_data = true;
                self.part = Part::Position(block);
            }
            _ => return None,
        }
        Some(())
    }

    fn pass(&mut self, count: u64) {
        self.part = if count == 0 {
            Part::Block
        } else {
            Part::Pass(count)
        };
    }

    fn end_file(&mut self) -> Option<()> {
        let Part::File {
            file,
            hasher,
            padding,
            ..
        } = std::mem::take(&mut self.part)
        else {
            return None;
        };
        self.pass(padding);
        hasher.finish().contains(&file.digest).then_some(())
    }

    /// The identities, if all files have come.
    fn finish(self) -> Option<Vec<String>> {
        let mut contents = self.contents?;
        let at_an_end = matches!(self.part, Part::Block) && self.partial.is_empty();
        (at_an_end && contents.next().ok()?.is_none()).then(|| contents.identities())
    }
}

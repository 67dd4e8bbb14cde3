//! The identity of a package of apk 2 (apk-v2(5)): signature members, a control member, then data to the end.
//!
//! `C:` in the index is the SHA-1 of the control member as it is compressed, and the control member's `.PKGINFO` names the SHA-256 of
//! the data as it is compressed. Together that covers all but the signature, which clients check themselves.

use flate2::{Decompress, FlushDecompress, Status};
use larder_core::{Digest, DigestAlgorithm, Hasher};

use super::apkindex::SIGNATURE;
use super::record::identity_of;
use super::tar::{BLOCK, Header};

/// Of an unpacked control member this much is looked at: `.PKGINFO` comes first.
const LOOKED_AT: usize = 1 << 20;
/// What the members before the data may unpack to.
const MAX_UNPACKED: u64 = 256 << 20;
const STEP: usize = 16 << 10;

/// Computes the identity of a package while its bytes go by.
#[derive(Debug)]
pub(super) struct Version2 {
    unpacked: u64,
    part: Part,
}

#[derive(Debug)]
enum Part {
    /// A signature or the control member: which of them shows when it has been unpacked.
    Member(Box<Member>),
    /// What follows the control member, whose SHA-1 this is.
    Data {
        control: Digest,
        stated: Digest,
        seen: Hasher,
    },
    /// The control member names no digest of the data: then the identity is that of both together.
    Undivided(Hasher),
    /// Not a package of apk 2.
    Other,
}

struct Member {
    hasher: Hasher,
    inflate: Decompress,
    plain: Vec<u8>,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member")
            .field("plain", &self.plain.len())
            .finish_non_exhaustive()
    }
}

impl Member {
    fn new() -> Self {
        Self {
            hasher: Hasher::new(&[DigestAlgorithm::Sha1]),
            inflate: Decompress::new_gzip(15),
            plain: Vec::new(),
        }
    }
}

impl Version2 {
    pub(super) fn new() -> Self {
        Self {
            unpacked: 0,
            part: Part::Member(Box::new(Member::new())),
        }
    }

    /// Takes what belongs to the present part; gives the rest.
    fn step<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        match &mut self.part {
            Part::Other => &[],
            Part::Data { seen, .. } | Part::Undivided(seen) => {
                seen.update(bytes);
                &[]
            }
            Part::Member(member) => {
                let mut out = [0; STEP];
                let (read, written) = (member.inflate.total_in(), member.inflate.total_out());
                let Ok(status) = member
                    .inflate
                    .decompress(bytes, &mut out, FlushDecompress::None)
                else {
                    self.part = Part::Other;
                    return &[];
                };
                let taken = (member.inflate.total_in() - read) as usize;
                let made = (member.inflate.total_out() - written) as usize;
                member.hasher.update(&bytes[..taken]);
                let room = LOOKED_AT.saturating_sub(member.plain.len()).min(made);
                member.plain.extend_from_slice(&out[..room]);
                self.unpacked += made as u64;
                if status == Status::StreamEnd {
                    self.end_member();
                } else if self.unpacked > MAX_UNPACKED || (taken == 0 && made == 0) {
                    self.part = Part::Other;
                }
                &bytes[taken..]
            }
        }
    }

    fn end_member(&mut self) {
        let Part::Member(member) = std::mem::replace(&mut self.part, Part::Other) else {
            return;
        };
        self.part = match Header::parse_first(&member.plain) {
            Some(first) if first.name.starts_with(SIGNATURE) => {
                Part::Member(Box::new(Member::new()))
            }
            Some(_) => match data_hash(&member.plain) {
                Some(stated) => match sha1(member.hasher) {
                    Some(control) => Part::Data {
                        control,
                        stated,
                        seen: Hasher::new(&[]),
                    },
                    None => Part::Other,
                },
                None => Part::Undivided(member.hasher),
            },
            None => Part::Other,
        };
    }
}

impl Version2 {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = self.step(rest);
        }
    }

    pub(super) fn finish(self) -> Vec<String> {
        let control = match self.part {
            Part::Data {
                control,
                stated,
                seen,
            } if seen.clone().finish_sha256() == stated => Some(control),
            Part::Undivided(hasher) => sha1(hasher),
            Part::Data { .. } | Part::Member(_) | Part::Other => None,
        };
        control
            .and_then(|control| identity_of(control.as_bytes()))
            .into_iter()
            .collect()
    }
}

fn sha1(hasher: Hasher) -> Option<Digest> {
    hasher
        .finish()
        .into_iter()
        .find(|digest| digest.algorithm() == DigestAlgorithm::Sha1)
}

impl Header {
    /// The first header of an unpacked archive.
    fn parse_first(plain: &[u8]) -> Option<Self> {
        Self::parse(plain.first_chunk::<BLOCK>()?)
    }
}

/// `datahash` of the `.PKGINFO` in an unpacked control member.
fn data_hash(plain: &[u8]) -> Option<Digest> {
    let mut rest = plain;
    loop {
        let header = Header::parse_first(rest)?;
        rest = &rest[BLOCK..];
        if header.name == ".PKGINFO" && header.is_file {
            let info = rest.get(..usize::try_from(header.size).ok()?)?;
            let values = info
                .split(|&byte| byte == b'\n')
                .filter_map(|line| line.strip_prefix(b"datahash"));
            let value = values
                .filter_map(|rest| rest.trim_ascii_start().strip_prefix(b"="))
                .next_back()?;
            return Digest::from_hex(
                DigestAlgorithm::Sha256,
                std::str::from_utf8(value.trim_ascii()).ok()?,
            )
            .ok();
        }
        rest = rest.get(usize::try_from(header.padded_size()?).ok()?..)?;
    }
}

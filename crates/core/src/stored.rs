//! The stored form of a record: compact, because one is read from the database whenever memory has none, and there may be millions.
//!
//! A version, flags that say which of the optional fields follow, what the record stands for, then the fields in the order of
//! [`ArtifactRecord`]. Numbers are LEB128 varints, signed ones zigzag; texts and lists have their length in front; of the times all
//! but the first are distances from it. A version is never changed, only added.

use std::collections::BTreeMap;

use crate::clock::UnixMillis;
use crate::digest::{Digest, DigestAlgorithm};
use crate::record::{ArtifactRecord, BlobDescriptor, Content, StoredHeaders};

const VERSION: u8 = 1;

/// The algorithms by their number in the stored form.
const ALGORITHMS: [DigestAlgorithm; 5] = [
    DigestAlgorithm::Md5,
    DigestAlgorithm::Sha1,
    DigestAlgorithm::Sha256,
    DigestAlgorithm::Sha384,
    DigestAlgorithm::Sha512,
];

/// Bits of the flags. The six texts of the headers have bits 0 to 5, in the order of [`StoredHeaders`].
const TEXTS: u64 = 6;
const HAS_DIGEST: u64 = 1 << 6;
const HAS_LENGTH: u64 = 1 << 7;
const HAS_FURTHER: u64 = 1 << 8;
const HAS_PUBLISHED: u64 = 1 << 9;
const VERIFIED: u64 = 1 << 10;
const KNOWN: u64 = (1 << 11) - 1;

const BLOB: u8 = 0;
const POINTER: u8 = 1;
const NEGATIVE: u8 = 2;
const HEAD_ONLY: u8 = 3;

/// Bytes that are no record in a form that this version knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a stored record: {0}")]
pub struct InvalidRecord(&'static str);

impl ArtifactRecord {
    /// The stored form.
    pub fn to_stored(&self) -> Vec<u8> {
        let headers = &self.headers;
        let texts = texts_of(headers);
        let bit = |set: bool, bit: u64| if set { bit } else { 0 };
        let mut flags = bit(headers.digest.is_some(), HAS_DIGEST)
            | bit(headers.length.is_some(), HAS_LENGTH)
            | bit(!headers.further.is_empty(), HAS_FURTHER)
            | bit(self.published_at.is_some(), HAS_PUBLISHED)
            | bit(self.verified, VERIFIED);
        for (at, text) in texts.iter().enumerate() {
            flags |= bit(text.is_some(), 1 << at);
        }
        let length: usize = texts.iter().flatten().map(|text| text.len()).sum();
        let mut out = Vec::with_capacity(96 + length + self.source_url.len());
        out.push(VERSION);
        put_number(&mut out, flags);
        put_content(&mut out, &self.content);
        for text in texts.into_iter().flatten() {
            put_text(&mut out, text);
        }
        if let Some(digest) = &headers.digest {
            put_digest(&mut out, digest);
        }
        if let Some(length) = headers.length {
            put_number(&mut out, length);
        }
        if !headers.further.is_empty() {
            put_number(&mut out, headers.further.len() as u64);
            for (name, value) in &headers.further {
                put_text(&mut out, name);
                put_text(&mut out, value);
            }
        }
        put_text(&mut out, &self.source_url);
        let first = self.first_seen_at.0;
        put_signed(&mut out, first);
        let others = [
            self.published_at,
            Some(self.contacted_at),
            Some(self.fresh_since),
            Some(self.served_since),
        ];
        for time in others.into_iter().flatten() {
            put_signed(&mut out, time.0.wrapping_sub(first));
        }
        out
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// The bytes are cut off, too long, or of a version that this one does not know.
    pub fn from_stored(bytes: &[u8]) -> Result<Self, InvalidRecord> {
        let mut reader = Reader(bytes);
        if reader.byte()? != VERSION {
            return Err(InvalidRecord("its version is unknown"));
        }
        let flags = reader.number()?;
        if flags & !KNOWN != 0 {
            return Err(InvalidRecord("it has fields that are unknown"));
        }
        let has = |bit: u64| flags & bit != 0;
        let content = reader.content()?;
        let mut texts: [Option<String>; TEXTS as usize] = Default::default();
        for (at, text) in texts.iter_mut().enumerate() {
            if has(1 << at) {
                *text = Some(reader.text()?);
            }
        }
        let [
            content_type,
            etag,
            last_modified,
            content_disposition,
            content_language,
            content_encoding,
        ] = texts;
        let digest = has(HAS_DIGEST).then(|| reader.digest()).transpose()?;
        let length = has(HAS_LENGTH).then(|| reader.number()).transpose()?;
        let further = has(HAS_FURTHER).then(|| reader.further()).transpose()?;
        let source_url = reader.text()?;
        let first = reader.signed()?;
        let mut time = || Ok(UnixMillis(first.wrapping_add(reader.signed()?)));
        let published_at = has(HAS_PUBLISHED).then(&mut time).transpose()?;
        let record = Self {
            content,
            headers: StoredHeaders {
                content_type,
                etag,
                last_modified,
                content_disposition,
                content_language,
                content_encoding,
                digest,
                length,
                further: further.unwrap_or_default(),
            },
            source_url,
            published_at,
            first_seen_at: UnixMillis(first),
            contacted_at: time()?,
            fresh_since: time()?,
            served_since: time()?,
            verified: has(VERIFIED),
        };
        if reader.0.is_empty() {
            Ok(record)
        } else {
            Err(InvalidRecord("something follows it"))
        }
    }
}

fn texts_of(headers: &StoredHeaders) -> [Option<&str>; TEXTS as usize] {
    [
        headers.content_type.as_deref(),
        headers.etag.as_deref(),
        headers.last_modified.as_deref(),
        headers.content_disposition.as_deref(),
        headers.content_language.as_deref(),
        headers.content_encoding.as_deref(),
    ]
}

fn put_content(out: &mut Vec<u8>, content: &Content) {
    match content {
        Content::Blob(blob) => {
            out.push(BLOB);
            put_digest(out, &blob.digest);
            put_number(out, blob.size);
        }
        Content::Pointer(to) => {
            out.push(POINTER);
            put_text(out, to);
        }
        Content::Negative { status } => {
            out.push(NEGATIVE);
            put_number(out, u64::from(*status));
        }
        Content::HeadOnly => out.push(HEAD_ONLY),
    }
}

fn put_digest(out: &mut Vec<u8>, digest: &Digest) {
    let number = match digest.algorithm() {
        DigestAlgorithm::Md5 => 0,
        DigestAlgorithm::Sha1 => 1,
        DigestAlgorithm::Sha256 => 2,
        DigestAlgorithm::Sha384 => 3,
        DigestAlgorithm::Sha512 => 4,
    };
    out.push(number);
    out.extend_from_slice(digest.as_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_number(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_signed(out: &mut Vec<u8>, number: i64) {
    put_number(out, ((number << 1) ^ (number >> 63)) as u64);
}

/// What is still to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], InvalidRecord> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(InvalidRecord("it is cut off"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, InvalidRecord> {
        let (byte, rest) = self.0.split_first().ok_or(InvalidRecord("it is cut off"))?;
        self.0 = rest;
        Ok(*byte)
    }

    fn number(&mut self) -> Result<u64, InvalidRecord> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(InvalidRecord("a number in it is too long"))
    }

    fn signed(&mut self) -> Result<i64, InvalidRecord> {
        let number = self.number()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// Names and values, preceded by their number.
    fn further(&mut self) -> Result<BTreeMap<String, String>, InvalidRecord> {
        let mut further = BTreeMap::new();
        for _ in 0..self.number()? {
            further.insert(self.text()?, self.text()?);
        }
        Ok(further)
    }

    fn text(&mut self) -> Result<String, InvalidRecord> {
        let length = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        let text = std::str::from_utf8(self.take(length)?);
        Ok(text
            .map_err(|_| InvalidRecord("a text in it is none"))?
            .to_owned())
    }

    fn digest(&mut self) -> Result<Digest, InvalidRecord> {
        let unknown = InvalidRecord("its digest is of an unknown kind");
        let algorithm = *ALGORITHMS.get(usize::from(self.byte()?)).ok_or(unknown)?;
        Digest::new(algorithm, self.take(algorithm.len())?).ok_or(unknown)
    }

    fn content(&mut self) -> Result<Content, InvalidRecord> {
        Ok(match self.byte()? {
            BLOB => Content::Blob(BlobDescriptor {
                digest: self.digest()?,
                size: self.number()?,
            }),
            POINTER => Content::Pointer(self.text()?),
            NEGATIVE => Content::Negative {
                status: u16::try_from(self.number()?)
                    .map_err(|_| InvalidRecord("its status is none"))?,
            },
            HEAD_ONLY => Content::HeadOnly,
            _ => return Err(InvalidRecord("what it stands for is unknown")),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::digest::sha256;
    use crate::testing::record;

    fn any_digest() -> impl Strategy<Value = Digest> {
        (proptest::sample::select(ALGORITHMS.to_vec()), any::<u8>()).prop_map(
            |(algorithm, byte)| Digest::new(algorithm, &vec![byte; algorithm.len()]).unwrap(),
        )
    }

    fn any_content() -> impl Strategy<Value = Content> {
        prop_oneof![
            (any_digest(), any::<u64>())
                .prop_map(|(digest, size)| Content::Blob(BlobDescriptor { digest, size })),
            any::<String>().prop_map(Content::Pointer),
            any::<u16>().prop_map(|status| Content::Negative { status }),
            Just(Content::HeadOnly),
        ]
    }

    fn any_headers() -> impl Strategy<Value = StoredHeaders> {
        let text = || proptest::option::of(any::<String>());
        let further = proptest::collection::btree_map(any::<String>(), any::<String>(), 0..4);
        (
            (text(), text(), text(), text(), text(), text()),
            proptest::option::of(any_digest()),
            proptest::option::of(any::<u64>()),
            further,
        )
            .prop_map(|(texts, digest, length, further)| StoredHeaders {
                content_type: texts.0,
                etag: texts.1,
                last_modified: texts.2,
                content_disposition: texts.3,
                content_language: texts.4,
                content_encoding: texts.5,
                digest,
                length,
                further,
            })
    }

    fn any_stored() -> impl Strategy<Value = ArtifactRecord> {
        let time = || any::<i64>().prop_map(UnixMillis);
        (
            any_content(),
            any_headers(),
            any::<String>(),
            proptest::option::of(time()),
            (time(), time(), time(), time()),
            any::<bool>(),
        )
            .prop_map(
                |(content, headers, source_url, published_at, times, verified)| ArtifactRecord {
                    content,
                    headers,
                    source_url,
                    published_at,
                    first_seen_at: times.0,
                    contacted_at: times.1,
                    fresh_since: times.2,
                    served_since: times.3,
                    verified,
                },
            )
    }

    proptest! {
        #[test]
        fn every_record_survives_its_stored_form(record in any_stored()) {
            let stored = record.to_stored();
            prop_assert_eq!(ArtifactRecord::from_stored(&stored), Ok(record));
            for cut in 0..stored.len() {
                prop_assert!(ArtifactRecord::from_stored(&stored[..cut]).is_err(), "cut at {}", cut);
            }
        }

        #[test]
        fn bytes_that_are_none_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(record) = ArtifactRecord::from_stored(&bytes) {
                prop_assert_eq!(ArtifactRecord::from_stored(&record.to_stored()), Ok(record));
            }
        }
    }

    /// Written down by hand from the description above: rows of today must be readable for ever.
    #[test]
    fn the_first_version_stays_as_it_is() {
        let mut stored = vec![1, 0b0000_0110, 0];
        stored.push(2);
        stored.extend(sha256(b"hello").as_bytes());
        stored.push(5);
        stored.push(4);
        stored.extend(b"\"v1\"");
        stored.push(29);
        stored.extend(b"Sun, 06 Nov 1994 08:49:37 GMT");
        stored.push(25);
        stored.extend(b"https://example.com/hello");
        // 300 is 600 in zigzag: 0b100_1011000. Then distances of 1, -1 and 0.
        stored.extend([0xd8, 0x04, 2, 1, 0]);
        let expected = ArtifactRecord {
            first_seen_at: UnixMillis(300),
            contacted_at: UnixMillis(301),
            fresh_since: UnixMillis(299),
            served_since: UnixMillis(300),
            ..record()
        };
        assert_eq!(ArtifactRecord::from_stored(&stored).unwrap(), expected);
        assert_eq!(expected.to_stored(), stored);

        stored[0] = 2;
        let error = ArtifactRecord::from_stored(&stored).unwrap_err();
        assert_eq!(
            error.to_string(),
            "not a stored record: its version is unknown"
        );
    }

    #[test]
    fn lengths_that_lie_take_no_memory() {
        // A text of 2^63 bytes, of which none is there.
        let mut stored = vec![1, 1, 3];
        stored.extend([0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1]);
        assert_eq!(
            ArtifactRecord::from_stored(&stored),
            Err(InvalidRecord("it is cut off"))
        );
        // A number of more than 64 bits.
        let mut stored = vec![1];
        stored.extend([0xff; 10]);
        assert_eq!(
            ArtifactRecord::from_stored(&stored),
            Err(InvalidRecord("a number in it is too long"))
        );
    }
}

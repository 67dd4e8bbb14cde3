//! Digests: parsing, printing, and computing several in one pass.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

/// The digest algorithms that package ecosystems name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DigestAlgorithm {
    /// Legacy; PyPI indexes may carry only this.
    Md5,
    /// npm `shasum`.
    Sha1,
    /// The store's own.
    Sha256,
    /// npm `integrity`.
    Sha384,
    /// npm `integrity`.
    Sha512,
}

impl DigestAlgorithm {
    /// Lower-case name as used in `sha256:…`, `sha512-…` and PyPI's `hashes`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    /// Length of the digest in bytes.
    #[expect(
        clippy::len_without_is_empty,
        reason = "no algorithm has an empty digest"
    )]
    pub fn len(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [
            Self::Md5,
            Self::Sha1,
            Self::Sha256,
            Self::Sha384,
            Self::Sha512,
        ]
        .into_iter()
        .find(|a| name.eq_ignore_ascii_case(a.as_str()))
    }
}

/// A digest with its algorithm. Prints as `sha256:<hex>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest {
    algorithm: DigestAlgorithm,
    bytes: Box<[u8]>,
}

/// A text that is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a digest: {0:?}")]
pub struct InvalidDigest(pub String);

impl Digest {
    /// From raw bytes; `None` if the length is not the algorithm's.
    pub fn new(algorithm: DigestAlgorithm, bytes: &[u8]) -> Option<Self> {
        (bytes.len() == algorithm.len()).then(|| Self {
            algorithm,
            bytes: bytes.into(),
        })
    }

    /// From hexadecimal digits of either case.
    pub fn from_hex(algorithm: DigestAlgorithm, hex: &str) -> Result<Self, InvalidDigest> {
        let invalid = || InvalidDigest(hex.to_owned());
        if hex.len() != algorithm.len() * 2 || !hex.is_ascii() {
            return Err(invalid());
        }
        let nibble = |b: u8| {
            (b as char)
                .to_digit(16)
                .map(|d| d as u8)
                .ok_or_else(invalid)
        };
        let bytes = hex
            .as_bytes()
            .chunks_exact(2)
            .map(|p| Ok(nibble(p[0])? << 4 | nibble(p[1])?))
            .collect::<Result<Vec<u8>, _>>()?;
        Ok(Self {
            algorithm,
            bytes: bytes.into(),
        })
    }

    /// Every known digest of a Subresource Integrity text (`sha512-<base64> sha1-…`); unknown algorithms and malformed parts are skipped.
    pub fn from_sri(text: &str) -> Vec<Self> {
        text.split_ascii_whitespace()
            .filter_map(|part| {
                let (name, rest) = part.split_once('-')?;
                let encoded = rest.split('?').next().unwrap_or(rest);
                let bytes = STANDARD.decode(encoded).ok()?;
                Self::new(DigestAlgorithm::from_name(name)?, &bytes)
            })
            .collect()
    }

    /// From padded base64 (RFC 4648 section 4), as in `Content-MD5`.
    ///
    /// # Errors
    /// Where the text is no base64, or not as long as the algorithm's digests.
    pub fn from_base64(algorithm: DigestAlgorithm, text: &str) -> Result<Self, InvalidDigest> {
        Self::decoded_by(&STANDARD, algorithm, text)
    }

    /// From the base64 of a byte sequence: padding and the bits behind the last byte may be as they like (RFC 9651 section 4.2.7).
    ///
    /// # Errors
    /// As those of [`from_base64`](Self::from_base64).
    pub fn from_byte_sequence(
        algorithm: DigestAlgorithm,
        text: &str,
    ) -> Result<Self, InvalidDigest> {
        const LENIENT: GeneralPurpose = GeneralPurpose::new(
            &alphabet::STANDARD,
            GeneralPurposeConfig::new()
                .with_decode_padding_mode(DecodePaddingMode::Indifferent)
                .with_decode_allow_trailing_bits(true),
        );
        Self::decoded_by(&LENIENT, algorithm, text)
    }

    fn decoded_by(
        engine: &GeneralPurpose,
        algorithm: DigestAlgorithm,
        text: &str,
    ) -> Result<Self, InvalidDigest> {
        let bytes = engine.decode(text).ok();
        bytes
            .and_then(|bytes| Self::new(algorithm, &bytes))
            .ok_or_else(|| InvalidDigest(text.to_owned()))
    }

    /// Padded base64 (RFC 4648 section 4).
    pub fn to_base64(&self) -> String {
        STANDARD.encode(&self.bytes)
    }

    /// From an algorithm's name (any case) and hexadecimal digits, as in PyPI's `hashes` and `#sha256=…`.
    pub fn from_name_and_hex(name: &str, hex: &str) -> Result<Self, InvalidDigest> {
        let algorithm =
            DigestAlgorithm::from_name(name).ok_or_else(|| InvalidDigest(name.to_owned()))?;
        Self::from_hex(algorithm, hex)
    }

    /// The algorithm.
    pub fn algorithm(&self) -> DigestAlgorithm {
        self.algorithm
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Lower-case hexadecimal digits.
    pub fn to_hex(&self) -> String {
        // Asked for on the way to every stored file: digit by digit from a table, not through the formatter.
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
        self.bytes
            .iter()
            .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
            .collect()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.as_str(), self.to_hex())
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, hex) = text
            .split_once(':')
            .ok_or_else(|| InvalidDigest(text.to_owned()))?;
        Self::from_name_and_hex(name, hex)
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// Computes SHA-256 always, and any other algorithm asked for, in one pass over the bytes.
#[derive(Clone)]
pub struct Hasher {
    sha256: sha2::Sha256,
    md5: Option<md5::Md5>,
    sha1: Option<sha1::Sha1>,
    sha384: Option<sha2::Sha384>,
    sha512: Option<sha2::Sha512>,
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher").finish_non_exhaustive()
    }
}

impl Hasher {
    /// A hasher for `algorithms` and SHA-256.
    pub fn new(algorithms: &[DigestAlgorithm]) -> Self {
        let wants = |a| algorithms.contains(&a);
        Self {
            sha256: sha2::Sha256::new(),
            md5: wants(DigestAlgorithm::Md5).then(md5::Md5::new),
            sha1: wants(DigestAlgorithm::Sha1).then(sha1::Sha1::new),
            sha384: wants(DigestAlgorithm::Sha384).then(sha2::Sha384::new),
            sha512: wants(DigestAlgorithm::Sha512).then(sha2::Sha512::new),
        }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(h) = &mut self.md5 {
            h.update(bytes);
        }
        if let Some(h) = &mut self.sha1 {
            h.update(bytes);
        }
        if let Some(h) = &mut self.sha384 {
            h.update(bytes);
        }
        if let Some(h) = &mut self.sha512 {
            h.update(bytes);
        }
    }

    /// The SHA-256 alone.
    pub fn finish_sha256(self) -> Digest {
        Digest {
            algorithm: DigestAlgorithm::Sha256,
            bytes: self.sha256.finalize().as_slice().into(),
        }
    }

    /// All digests that were asked for; SHA-256 comes first.
    pub fn finish(self) -> Vec<Digest> {
        let make = |algorithm, bytes: &[u8]| Digest {
            algorithm,
            bytes: bytes.into(),
        };
        let mut all = vec![make(
            DigestAlgorithm::Sha256,
            self.sha256.finalize().as_slice(),
        )];
        all.extend(
            self.md5
                .map(|h| make(DigestAlgorithm::Md5, h.finalize().as_slice())),
        );
        all.extend(
            self.sha1
                .map(|h| make(DigestAlgorithm::Sha1, h.finalize().as_slice())),
        );
        all.extend(
            self.sha384
                .map(|h| make(DigestAlgorithm::Sha384, h.finalize().as_slice())),
        );
        all.extend(
            self.sha512
                .map(|h| make(DigestAlgorithm::Sha512, h.finalize().as_slice())),
        );
        all
    }
}

/// The SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(&[]);
    hasher.update(bytes);
    hasher.finish_sha256()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The message "abc": RFC 1321 appendix A.5, FIPS 180 examples.
    const ABC: [(DigestAlgorithm, &str); 5] = [
        (DigestAlgorithm::Md5, "900150983cd24fb0d6963f7d28e17f72"),
        (
            DigestAlgorithm::Sha1,
            "a9993e364706816aba3e25717850c26c9cd0d89d",
        ),
        (
            DigestAlgorithm::Sha256,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ),
        (
            DigestAlgorithm::Sha384,
            "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7",
        ),
        (
            DigestAlgorithm::Sha512,
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
             2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        ),
    ];

    #[test]
    fn one_pass_gives_the_standards_digests() {
        let mut hasher = Hasher::new(&ABC.map(|(algorithm, _)| algorithm));
        hasher.update(b"a");
        hasher.update(b"bc");
        let all = hasher.finish();
        assert_eq!(
            all[0].algorithm(),
            DigestAlgorithm::Sha256,
            "the store's own comes first"
        );
        assert_eq!(all.len(), ABC.len());
        for (algorithm, hex) in ABC {
            let digest = all
                .iter()
                .find(|digest| digest.algorithm() == algorithm)
                .unwrap();
            assert_eq!(digest.to_hex(), hex);
            assert_eq!(digest.to_string(), format!("{}:{hex}", algorithm.as_str()));
            assert_eq!(digest.as_bytes().len(), algorithm.len());
        }
        assert_eq!(sha256(b"abc").to_hex(), ABC[2].1);
        assert_eq!(
            Hasher::new(&[DigestAlgorithm::Md5]).finish().len(),
            2,
            "only what was asked for"
        );
    }

    #[test]
    fn texts_are_read_in_either_case_and_refused_in_any_other_length() {
        let (_, hex) = ABC[2];
        let digest: Digest = format!("SHA256:{}", hex.to_uppercase()).parse().unwrap();
        assert_eq!(digest, sha256(b"abc"));
        for text in [
            "",
            "sha256",
            "sha256:",
            "sha256:ba78",
            "md5:zz0150983cd24fb0d6963f7d28e17f72",
            "crc32:00000000",
            hex,
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
        // Two-byte characters: the length in bytes is right, the digits are not.
        assert!(Digest::from_hex(DigestAlgorithm::Md5, &"é".repeat(16)).is_err());
        let json = serde_json::to_string(&digest).unwrap();
        assert_eq!(json, format!("\"sha256:{hex}\""));
        assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
        assert!(serde_json::from_str::<Digest>("\"sha256:00\"").is_err());
    }

    /// The example of the Subresource Integrity recommendation, section 3.1: `alert('Hello, world.');`.
    #[test]
    fn integrity_texts_give_every_known_digest() {
        let sha384 = "sha384-H8BRh8j48O9oYatfu5AZzq6A9RINhZO5H16dQZngK7T62em8MUt1FLm52t+eX6xO";
        let mut hasher = Hasher::new(&[DigestAlgorithm::Sha384]);
        hasher.update(b"alert('Hello, world.');");
        assert_eq!(Digest::from_sri(sha384), hasher.finish()[1..]);
        let mixed =
            format!("blake3-AAAA {sha384}?ct=text sha1-!! sha1-qZk+NkcGgWq6PiVxeFDCbJzQ2J0= md5");
        let found = Digest::from_sri(&mixed);
        assert_eq!(found.len(), 2);
        assert_eq!(found[1].to_hex(), ABC[1].1);
        assert!(Digest::from_sri("").is_empty());
    }
}

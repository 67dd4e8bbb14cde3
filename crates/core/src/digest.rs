//! Digests: parsing, printing, and computing several in one pass.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
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
    #[expect(clippy::len_without_is_empty, reason = "no algorithm has an empty digest")]
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
        [Self::Md5, Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512]
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
        (bytes.len() == algorithm.len()).then(|| Self { algorithm, bytes: bytes.into() })
    }

    /// From hexadecimal digits of either case.
    pub fn from_hex(algorithm: DigestAlgorithm, hex: &str) -> Result<Self, InvalidDigest> {
        let invalid = || InvalidDigest(hex.to_owned());
        if hex.len() != algorithm.len() * 2 || !hex.is_ascii() {
            return Err(invalid());
        }
        let nibble = |b: u8| (b as char).to_digit(16).map(|d| d as u8).ok_or_else(invalid);
        let bytes =
            hex.as_bytes().chunks_exact(2).map(|p| Ok(nibble(p[0])? << 4 | nibble(p[1])?)).collect::<Result<Vec<u8>, _>>()?;
        Ok(Self { algorithm, bytes: bytes.into() })
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

    /// From an algorithm's name (any case) and hexadecimal digits, as in PyPI's `hashes` and `#sha256=…`.
    pub fn from_name_and_hex(name: &str, hex: &str) -> Result<Self, InvalidDigest> {
        let algorithm = DigestAlgorithm::from_name(name).ok_or_else(|| InvalidDigest(name.to_owned()))?;
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
        use fmt::Write as _;
        self.bytes.iter().fold(String::with_capacity(self.bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
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
        let (name, hex) = text.split_once(':').ok_or_else(|| InvalidDigest(text.to_owned()))?;
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
        Digest { algorithm: DigestAlgorithm::Sha256, bytes: self.sha256.finalize().as_slice().into() }
    }

    /// All digests that were asked for; SHA-256 comes first.
    pub fn finish(self) -> Vec<Digest> {
        let make = |algorithm, bytes: &[u8]| Digest { algorithm, bytes: bytes.into() };
        let mut all = vec![make(DigestAlgorithm::Sha256, self.sha256.finalize().as_slice())];
        all.extend(self.md5.map(|h| make(DigestAlgorithm::Md5, h.finalize().as_slice())));
        all.extend(self.sha1.map(|h| make(DigestAlgorithm::Sha1, h.finalize().as_slice())));
        all.extend(self.sha384.map(|h| make(DigestAlgorithm::Sha384, h.finalize().as_slice())));
        all.extend(self.sha512.map(|h| make(DigestAlgorithm::Sha512, h.finalize().as_slice())));
        all
    }
}

/// The SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(&[]);
    hasher.update(bytes);
    hasher.finish_sha256()
}

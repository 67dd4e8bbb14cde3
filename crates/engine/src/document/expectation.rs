//! What a file on its way should be: known already, being looked up, or unknown.

use larder_core::{Digest, DigestAlgorithm, StoredHeaders};
use tokio::task::JoinHandle;

use crate::claim::StoredClaim;

/// What is known of a file's claim while it is being fetched.
#[derive(Debug)]
pub(crate) enum Expectation {
    /// Nothing states what it is, or it is a document itself.
    None,
    /// Its path, the upstream's head or a held document states it.
    Known(StoredClaim),
    /// The document that may name it is on its way.
    Pending(JoinHandle<Lookup>),
    /// No document that is held names it; others have not been asked for.
    Unasked,
}

/// What reading a document for one file came to.
#[derive(Debug)]
pub(crate) enum Lookup {
    Claim(StoredClaim),
    /// The document was read and does not name the file.
    NotNamed,
    /// The document does not name the file, but may be older than the file is.
    NotNamedLately,
    /// The document could not be read.
    NoDocument(Unread),
}

/// Why a document could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unread {
    /// There is none.
    Absent,
    /// No answer came, or none that could be understood: another try may help.
    Unanswered,
    /// An answer that says nothing of the file.
    Refused,
}

impl Lookup {
    pub(super) fn claim(self) -> Option<StoredClaim> {
        match self {
            Self::Claim(claim) => Some(claim),
            Self::NotNamed | Self::NotNamedLately | Self::NoDocument(_) => None,
        }
    }

    /// The same where the reading may have begun before the file was asked for, and so before it was published.
    pub(super) fn by(self, started: bool) -> Self {
        if !started && matches!(self, Self::NotNamed) {
            Self::NotNamedLately
        } else {
            self
        }
    }

    /// Whether the upstream could say nothing else of the file at present.
    pub(crate) fn is_last_word(&self) -> bool {
        matches!(
            self,
            Self::Claim(_) | Self::NotNamed | Self::NoDocument(Unread::Absent)
        )
    }
}

impl Expectation {
    /// A digest that is stated without a document; the file's URL is the usual one.
    fn of_digest(digest: Digest) -> Self {
        Self::Known(StoredClaim::of_digest(digest))
    }

    /// Takes up what the upstream's head states, unless more is known already.
    pub(crate) fn learn_from_head(&mut self, headers: &StoredHeaders) {
        if let (Self::None, Some(digest)) = (&self, &headers.digest) {
            *self = Self::of_digest(digest.clone());
        }
    }

    /// Whether it is known what the bytes are.
    pub(crate) fn is_stated(&self) -> bool {
        matches!(self, Self::Known(claim) if claim.stated().is_some())
    }

    /// The SHA-256 that the bytes must have, where that is known beforehand.
    pub(crate) fn sha256(&self) -> Option<&Digest> {
        match self {
            Self::Known(claim) => match &claim.digests[..] {
                [digest] if digest.algorithm() == DigestAlgorithm::Sha256 => Some(digest),
                _ => None,
            },
            _ => None,
        }
    }

    /// Algorithms worth computing while the body arrives; all that may be needed if it cannot be read again. `usual` are those that
    /// documents of this format state.
    pub(crate) fn algorithms(
        &self,
        usual: &[DigestAlgorithm],
        can_be_read_again: bool,
    ) -> Vec<DigestAlgorithm> {
        use DigestAlgorithm::{Md5, Sha1, Sha384, Sha512};
        match self {
            Self::Known(claim) => {
                let mut algorithms: Vec<_> = claim.digests.iter().map(Digest::algorithm).collect();
                algorithms.dedup();
                algorithms
            }
            Self::Pending(_) if !can_be_read_again => vec![Md5, Sha1, Sha384, Sha512],
            Self::Pending(_) => usual.to_vec(),
            Self::None | Self::Unasked => Vec::new(),
        }
    }

    /// Whether a digest is or may be stated.
    pub(crate) fn expects_digest(&self) -> bool {
        matches!(self, Self::Pending(_) | Self::Unasked) || self.is_stated()
    }
}

//! The identities of a package of either version: what comes tells by its first bytes which it is.

use super::identity_v2::Version2;
use super::identity_v3::Version3;
use crate::Identifier;

/// Computes the identities of a package while its bytes go by.
#[derive(Debug)]
pub(super) enum PackageIdentifier {
    /// Too little has come yet to tell.
    Unknown(Vec<u8>),
    Version2(Version2),
    Version3(Box<Version3>),
}

impl PackageIdentifier {
    pub(super) fn new() -> Self {
        Self::Unknown(Vec::new())
    }
}

impl Identifier for PackageIdentifier {
    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Version2(package) => package.update(bytes),
            Self::Version3(package) => package.update(bytes),
            Self::Unknown(head) => {
                head.extend_from_slice(bytes);
                if head.len() < 3 {
                    return;
                }
                let head = std::mem::take(head);
                *self = if head.starts_with(b"ADB") {
                    Self::Version3(Box::new(Version3::new()))
                } else {
                    Self::Version2(Version2::new())
                };
                self.update(&head);
            }
        }
    }

    fn finish(self: Box<Self>) -> Vec<String> {
        match *self {
            Self::Unknown(_) => Vec::new(),
            Self::Version2(package) => package.finish(),
            Self::Version3(package) => package.finish(),
        }
    }
}

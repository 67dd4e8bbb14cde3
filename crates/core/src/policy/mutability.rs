//! Path -> mutable, immutable or forbidden.

/// What a format itself says about a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BuiltIn {
    /// A built-in mutable pattern matches.
    Mutable,
    /// As `Mutable` (always allowed, never quarantined), but the name carries a digest of the bytes: the time-to-live is
    /// unlimited.
    MutableNamedByDigest,
    /// npm with neither pattern key: everything but tarballs is mutable.
    MutableUnlessConfigured,
    /// Nothing built in.
    #[default]
    None,
}

/// The class of an admitted path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mutability {
    /// Changes upstream; `user_defined` if (also) a configured pattern says so rather than only a built-in one.
    Mutable {
        /// Whether one of the operator's `mutable_patterns` matched, and no built-in one did: only these honour
        /// `check_mutable_updates`.
        user_defined: bool,
        /// Bytes are named by their digest: unlimited time-to-live.
        named_by_digest: bool,
    },
    /// Never changes upstream.
    Immutable,
}

impl Mutability {
    /// Whether the class is mutable.
    pub fn is_mutable(self) -> bool {
        matches!(self, Self::Mutable { .. })
    }
}

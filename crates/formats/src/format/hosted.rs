//! What a format knows of repositories that clients upload to.

use crate::Refusal;

/// What a request says of a file before its bytes come.
#[derive(Debug, Clone, Copy)]
pub struct UploadHead<'a> {
    /// The repository's name, for what users are told.
    pub repository: &'a str,
    /// Decoded path within the repository.
    pub path: &'a str,
}

/// A format whose files clients may upload. All functions are pure.
pub trait Hosted: Send + Sync + std::fmt::Debug {
    /// Whether a path names what can be uploaded, replaced or deleted as one file.
    ///
    /// # Errors
    /// What clients are told where it cannot be.
    fn accept(&self, head: &UploadHead<'_>) -> Result<(), Refusal>;
}

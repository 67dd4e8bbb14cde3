//! Where a repository's files come from, other than an upstream.

pub(crate) mod local;

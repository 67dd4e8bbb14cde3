//! Where repositories that are no copies of an upstream get what they serve.

pub(crate) mod virtual_;

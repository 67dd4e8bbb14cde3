//! What each fuzz target does with its input. The functions stand in a file of their own, which the replay of the corpora reads too.

mod targets;

pub use targets::*;

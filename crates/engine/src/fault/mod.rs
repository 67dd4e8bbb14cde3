//! Why there is no body: what the upstream's answer, or its silence, means, what larder's own faults are, and the words for the user.

mod busy;
mod fetch;
mod own;

pub(crate) use busy::busy;
pub(crate) use fetch::{
    FetchError, NOT_ASKED, failed, nothing_left, passed_on, status_outcome, was_given_up,
};
pub(crate) use own::{
    Remembered, database_away, gave_way, internal, is_failure, malformed, negative_fault, offline,
    refused, stopped, storage_fault, too_much_under_way, unusable_document,
};

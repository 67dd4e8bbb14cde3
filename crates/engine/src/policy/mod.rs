//! May it be asked for, and may it leave?
//!
//! | file | knows |
//! |---|---|
//! | `ruling.rs` | the one judge: access rules and quarantine, with what decided |
//! | `addressed.rs` | which repository a request names, and what can be no path |
//! | `admission.rs` | what a request means, and the judge's word on it; the only maker of `Admitted` |
//! | `clearance.rs` | the only maker of `Cleared` |
//! | `visibility.rs` | what is hidden in a document, and how long that holds |
//! | `explain.rs` | a ruling and what else is known of a file, in words |
//! | `denied.rs` | the words for what the rules refuse |
//! | `folder.rs`, `listing.rs` | what comes from a folder's path |

pub(crate) mod addressed;
pub(crate) mod admission;
pub(crate) mod clearance;
pub(crate) mod denied;
pub(crate) mod explain;
pub(crate) mod folder;
pub(crate) mod listing;
pub(crate) mod ruling;
pub(crate) mod visibility;

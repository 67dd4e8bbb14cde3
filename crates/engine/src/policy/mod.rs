//! May it be asked for, and may it leave?
//!
//! | file | knows |
//! |---|---|
//! | `admission.rs` | what a request means, and the access rules; the only maker of `Admitted` |
//! | `clearance.rs` | quarantine; the only maker of `Cleared` |
//! | `denied.rs` | the words for what the rules refuse |
//! | `folder.rs`, `listing.rs` | what comes from a folder's path |

pub(crate) mod admission;
pub(crate) mod clearance;
pub(crate) mod denied;
pub(crate) mod folder;
pub(crate) mod listing;

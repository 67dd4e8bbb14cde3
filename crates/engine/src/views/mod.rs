//! What people look at who want to know what is held: folders, searches, one file with all that is known of it, packages and images. Asks no
//! upstream and changes nothing; every view is a page of bounded work.
//!
//! | file | knows |
//! |---|---|
//! | `base.rs` | what the views have in common: documents that are held, and what quarantine says |
//! | `merged.rs` | folders and packages, of a repository or of the members of a virtual one |
//! | `folder.rs` | one level of a repository |
//! | `room.rs` | how much fits on a page |
//! | `search.rs` | paths by their beginning, a part of them, or the digest of the bytes |
//! | `holders.rs` | digests that are searched for, and places among those who have one |
//! | `artifact.rs` | one path |
//! | `package.rs` | the versions that a held index names |
//! | `image.rs` | tags, and what a manifest consists of |

mod artifact;
mod base;
mod folder;
mod holders;
mod image;
mod merged;
mod package;
mod room;
mod search;

pub use artifact::{ArtifactView, HeldCopy, Naming, Stated};
pub use base::Views;
pub use folder::{FolderFile, FolderPage, FolderRequest};
pub use image::{ImagePart, ImageRequest, ImageView, Manifest};
pub use package::{PackageFile, PackageRequest, PackageView};
pub use room::Room;
pub use search::{SearchHit, SearchKind, SearchPage, SearchRequest};
